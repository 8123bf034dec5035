//! Copying up: a file that is about to change gets a body in memory, with all that it has below.

use super::Node;
use crate::errno::{Errno, Result};
use crate::fs::{
    file::{FileOps, How},
    inode::*,
    iobuf::{Sink, Source},
    xattr,
};
use alloc::sync::Arc;

/// Bytes that are copied at a time.
const CHUNK: usize = 64 * 1024;

/// To read a file's contents.
const READ: OpenMode =
    OpenMode { read: true, write: false, nonblock: true, controlling: false, truncate: false };
const WRITE: OpenMode = OpenMode { read: true, write: true, ..READ };

impl Node {
    /// Its body, which is made if it has none yet; `contents`: with what a regular file holds, else that is about to be
    /// cut off.
    pub(super) fn copy_up(&self, contents: bool) -> Result<&Arc<dyn Inode>> {
        if let Some(body) = self.body.get() {
            return Ok(body);
        }
        let below = self.below.as_ref().ok_or(Errno::EIO)?;
        let _one = self.copying.lock();
        if let Some(body) = self.body.get() {
            return Ok(body);
        }
        let stat = below.stat()?;
        let target = if self.kind == Kind::Link { below.readlink()? } else { Default::default() };
        let node = match self.kind {
            Kind::File => NewKind::File,
            Kind::Dir => NewKind::Dir,
            Kind::Link => NewKind::Link { target: &target },
            Kind::Fifo => NewKind::Fifo,
            Kind::Socket => NewKind::Socket,
            Kind::Char => NewKind::Device { block: false, rdev: stat.rdev },
            Kind::Block => NewKind::Device { block: true, rdev: stat.rdev },
        };
        let new = NewNode { node, mode: stat.mode & 0o7777, uid: stat.uid, gid: stat.gid };
        let body = self.fs.bodies.body(&new)?;
        if contents && self.kind == Kind::File {
            copy(below, &body, stat.size)?;
        }
        copy_attributes(below, &body)?;
        let times = SetAttr { atime: Some(stat.atime), mtime: Some(stat.mtime), ..SetAttr::default() };
        body.setattr(&times)?;
        self.body.call_once(|| body);
        self.keep();
        self.body.get().ok_or(Errno::EIO)
    }

    /// What a directory holds has changed.
    pub(super) fn touch(&self) -> Result<()> {
        self.copy_up(true)?.setattr(&SetAttr { mtime: Some(Time::now()), ..SetAttr::default() })
    }
    /// Its names have changed: no reason to copy what is in it.
    pub(super) fn touch_names(&self) {
        *self.renamed.lock() = Some(Time::now());
    }

    /// Whether a body with all contents would find room.
    pub(super) fn fits(&self) -> bool {
        let room = self.fs.bodies.statfs();
        let size = self.now().stat().map_or(u64::MAX, |s| s.size);
        self.body.get().is_some() || size < room.blocks_available / 2 * room.block_size
    }
}

fn copy(below: &Arc<dyn Inode>, body: &Arc<dyn Inode>, size: u64) -> Result<()> {
    let from = below.clone().open(READ)?;
    let to = body.clone().open(WRITE)?;
    let mut chunk = alloc::vec::Vec::new();
    let most = (CHUNK as u64).min(size) as usize;
    chunk.try_reserve_exact(most).map_err(|_| Errno::ENOMEM)?;
    chunk.resize(most, 0);
    let mut at = 0;
    while at < size {
        let n = read(&*from, at, &mut chunk)?;
        if n == 0 {
            break;
        }
        // What is all zero stays a hole.
        if chunk[..n].iter().any(|b| *b != 0) {
            let mut source = Source::kernel(&chunk[..n]);
            let result = to.write(at, &mut source, How::default());
            source.outcome(result)?;
            if source.done() < n {
                return Err(Errno::ENOSPC);
            }
        }
        at += n as u64;
    }
    body.setattr(&SetAttr { size: Some(at), ..SetAttr::default() })
}

fn read(from: &dyn FileOps, at: u64, to: &mut [u8]) -> Result<usize> {
    let mut sink = Sink::kernel(to);
    let result = from.read(at, &mut sink, How::default());
    sink.outcome(result)
}

/// Extended attributes, where there are any.
fn copy_attributes(below: &Arc<dyn Inode>, body: &Arc<dyn Inode>) -> Result<()> {
    let Ok(names) = below.xattrs() else { return Ok(()) };
    for name in names.split(|b| *b == 0).filter(|n| !n.is_empty() && n.len() <= xattr::NAME_MAX) {
        // One that may not be read, or is gone by now, is not there for us.
        if let Ok(value) = below.xattr(name) {
            body.set_xattr(name, &value, 0)?;
        }
    }
    Ok(())
}
