//! What the rest of the kernel asks of a file of a tmpfs.

use super::{Body, Node, reserve};
use crate::{
    errno::{Errno, Result},
    fs::{
        cache::CachedFile,
        dev,
        file::FileOps,
        inode::{
            DirEntry, Inode, InodeId, Kind, NewKind, NewNode, OpenMode, RenameFlags, SetAttr, Stat, StatFs,
            Time, Writers,
        },
        lock::SleepLock,
    },
    mem::memory,
};
use alloc::{sync::Arc, vec::Vec};
use core::any::Any;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use hafez_mm::{Object, PAGE_SIZE};
use linux_raw_sys::general as abi;

impl Inode for Node {
    fn id(&self) -> InodeId {
        InodeId { dev: self.fs.dev, ino: self.ino }
    }
    fn kind(&self) -> Kind {
        match &self.body {
            Body::File { .. } => Kind::File,
            Body::Dir { .. } => Kind::Dir,
            Body::Link(_) => Kind::Link,
            Body::Fifo(_) => Kind::Fifo,
            Body::Socket => Kind::Socket,
            Body::Device(_) => Kind::from_mode(self.attr.lock().mode).unwrap_or(Kind::Char),
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn stat(&self) -> Result<Stat> {
        let attr = *self.attr.lock();
        let (size, pages) = match &self.body {
            Body::File { object, ahead, .. } => (object.size(), object.held() + ahead.pages()),
            Body::Dir { names, .. } => (20 * (2 + names.lock().by_name.len() as u64), 0),
            Body::Link(target) => (target.len() as u64, 0),
            _ => (0, 0),
        };
        Ok(Stat {
            dev: self.fs.dev,
            ino: self.ino,
            mode: attr.mode,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            rdev: if let Body::Device(rdev) = self.body { rdev } else { 0 },
            size,
            blocks: pages * (PAGE_SIZE as u64 / 512),
            blksize: PAGE_SIZE as u32,
            atime: attr.atime,
            mtime: attr.mtime,
            ctime: attr.ctime,
            btime: Some(self.made),
        })
    }

    fn setattr(&self, set: &SetAttr) -> Result<()> {
        if let Some(size) = set.size {
            self.set_size(size)?;
        }
        let now = Time::now();
        let mut attr = self.attr.lock();
        if let Some(mode) = set.mode {
            if self.seals.load(Relaxed) & abi::F_SEAL_EXEC != 0 && (attr.mode ^ mode) & 0o111 != 0 {
                return Err(Errno::EPERM);
            }
            attr.mode = attr.mode & abi::S_IFMT | mode & 0o7777;
        }
        attr.uid = set.uid.unwrap_or(attr.uid);
        attr.gid = set.gid.unwrap_or(attr.gid);
        attr.atime = set.atime.unwrap_or(attr.atime);
        attr.mtime = set.mtime.unwrap_or(if set.size.is_some() { now } else { attr.mtime });
        attr.ctime = now;
        Ok(())
    }

    fn statfs(&self) -> Result<StatFs> {
        Ok(self.fs.statfs())
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let node = self.names()?.lock().get(name).cloned();
        node.map(|n| n as Arc<dyn Inode>).ok_or(Errno::ENOENT)
    }

    fn create(&self, name: &[u8], new: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        let node = Node::make(&self.fs, new)?;
        self.insert(name, &node)?;
        Ok(node)
    }

    fn create_unnamed(&self, new: &NewNode<'_>, linkable: bool) -> Result<Arc<dyn Inode>> {
        let node = Node::make(&self.fs, new)?;
        node.attr.lock().nlink = 0;
        node.linkable.store(linkable, Relaxed);
        Ok(node)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let node = Node::of(target)?;
        if node.attr.lock().nlink == 0 && !node.linkable.load(Relaxed) {
            return Err(Errno::ENOENT);
        }
        self.insert(name, &node)?;
        node.linkable.store(false, Relaxed);
        let now = Time::now();
        let mut attr = node.attr.lock();
        attr.nlink += 1;
        attr.ctime = now;
        Ok(())
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        if self.names()?.lock().get(name).ok_or(Errno::ENOENT)?.is_dir() {
            return Err(Errno::EISDIR);
        }
        self.remove(name)?.unlinked();
        Ok(())
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        let _one = self.fs.tree.lock();
        let node = self.names()?.lock().get(name).cloned().ok_or(Errno::ENOENT)?;
        let inner = node.names()?.lock();
        if !inner.by_name.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        // From here on nothing can be made in it: `insert` looks at the count under the same lock.
        node.attr.lock().nlink = 0;
        drop(inner);
        self.remove(name)?.unlinked();
        Ok(())
    }

    fn rename(&self, name: &[u8], to: &Arc<dyn Inode>, to_name: &[u8], how: RenameFlags) -> Result<()> {
        let to = Node::of(to)?;
        let _one = self.fs.tree.lock();
        let node = self.names()?.lock().get(name).cloned().ok_or(Errno::ENOENT)?;
        let target = to.names()?.lock().get(to_name).cloned();
        if to.attr.lock().nlink == 0 {
            return Err(Errno::ENOENT);
        }
        let exchange = how.contains(RenameFlags::EXCHANGE);
        match &target {
            Some(_) if how.contains(RenameFlags::NOREPLACE) => return Err(Errno::EEXIST),
            None if exchange => return Err(Errno::ENOENT),
            Some(t) if !exchange && t.is_dir() && !t.is_empty() => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        let whiteout = match how.contains(RenameFlags::WHITEOUT) {
            true => {
                let device = NewKind::Device { block: false, rdev: 0 };
                Some(Node::make(&self.fs, &NewNode { node: device, mode: 0, uid: 0, gid: 0 })?)
            }
            false => None,
        };
        if target.is_some() {
            let old = to.remove(to_name)?;
            if !exchange {
                old.unlinked();
            }
        }
        self.remove(name)?;
        to.insert(to_name, &node)?;
        let left = target.filter(|_| exchange).or(whiteout);
        if let Some(left) = left {
            self.insert(name, &left)?;
        }
        node.attr.lock().ctime = Time::now();
        Ok(())
    }

    fn readdir(&self, from: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        let Body::Dir { names, parent } = &self.body else { return Err(Errno::ENOTDIR) };
        let above = parent.lock().upgrade().map_or(self.ino, |p| p.ino);
        for (at, name, ino) in [(0, &b"."[..], self.ino), (1, &b".."[..], above)] {
            if from <= at && !emit(&DirEntry { name, ino, kind: Some(Kind::Dir), next: at + 1 }) {
                return Ok(());
            }
        }
        let names = names.lock();
        for (cursor, name) in names.by_cursor.range(from.max(2)..) {
            let Some(node) = names.get(name) else { continue };
            let entry = DirEntry { name, ino: node.ino, kind: Some(node.kind()), next: cursor + 1 };
            if !emit(&entry) {
                break;
            }
        }
        Ok(())
    }

    fn readlink(&self) -> Result<Vec<u8>> {
        match &self.body {
            Body::Link(target) => Ok(target.to_vec()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(self: Arc<Self>, how: OpenMode) -> Result<Arc<dyn FileOps>> {
        match &self.body {
            Body::File { .. } => CachedFile::open(self),
            Body::Fifo(pipe) => pipe.open(how),
            Body::Device(rdev) if self.kind() == Kind::Char => dev::open_number(*rdev, how),
            Body::Dir { .. } => Err(Errno::EISDIR),
            _ => Err(Errno::ENXIO),
        }
    }

    fn object(&self) -> Result<Arc<Object>> {
        match &self.body {
            Body::File { object, .. } => Ok(object.clone()),
            _ => Err(Errno::ENODEV),
        }
    }
    fn write_lock(&self) -> Option<&SleepLock> {
        match &self.body {
            Body::File { write_lock, .. } => Some(write_lock),
            _ => None,
        }
    }
    fn grow(&self, size: u64) -> Result<()> {
        self.set_size(size)
    }
    fn fill_page(&self, index: u64) -> Result<()> {
        match &self.body {
            Body::File { object, charged, .. } => self.charge(object, charged, index),
            _ => Ok(()),
        }
    }
    fn reserve(&self, from: u64, to: u64) -> Result<()> {
        self.reserve_pages(from, to)
    }
    fn writers(&self) -> Option<&Writers> {
        match &self.body {
            Body::File { writers, .. } => Some(writers),
            _ => None,
        }
    }
    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.xattrs.get(name)
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        self.xattrs.set(name, value, flags)?;
        self.attr.lock().ctime = Time::now();
        Ok(())
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        self.xattrs.remove(name)?;
        self.attr.lock().ctime = Time::now();
        Ok(())
    }
    fn xattrs(&self) -> Result<Vec<u8>> {
        self.xattrs.list()
    }
    fn close_written(&self) -> Result<()> {
        self.recount();
        Ok(())
    }
    fn written(&self) {
        let now = Time::now();
        let mut attr = self.attr.lock();
        (attr.mtime, attr.ctime) = (now, now);
    }
    /// As with `relatime`: what was changed since it was last read is told apart from what was not, at one update per change.
    fn accessed(&self) {
        let mut attr = self.attr.lock();
        if attr.atime <= attr.mtime.max(attr.ctime) {
            attr.atime = Time::now();
        }
    }
    fn punch(&self, from: u64, to: u64) -> Result<()> {
        self.check_unsealed()?;
        memory().object_punch(&self.object()?, from, to)?;
        self.recount();
        self.written();
        Ok(())
    }
    fn next_data(&self, at: u64, hole: bool) -> Option<u64> {
        let object = self.object().ok()?;
        let size = PAGE_SIZE as u64;
        let mut page = at / size;
        if hole {
            while object.next_held(page) == Some(page) {
                page += 1;
            }
        } else {
            page = object.next_held(page)?;
        }
        Some(at.max(page * size))
    }
    fn seals(&self) -> Result<u32> {
        self.object().map_err(|_| Errno::EINVAL)?;
        Ok(self.seals.load(Relaxed))
    }
    fn add_seals(&self, seals: u32) -> Result<()> {
        let known = abi::F_SEAL_SEAL
            | abi::F_SEAL_SHRINK
            | abi::F_SEAL_GROW
            | abi::F_SEAL_WRITE
            | abi::F_SEAL_FUTURE_WRITE
            | abi::F_SEAL_EXEC;
        if seals & !known != 0 {
            return Err(Errno::EINVAL);
        }
        let object = self.object().map_err(|_| Errno::EINVAL)?;
        // What is to be run as it is must not change either.
        let frozen = abi::F_SEAL_SHRINK | abi::F_SEAL_GROW | abi::F_SEAL_WRITE | abi::F_SEAL_FUTURE_WRITE;
        let runs = seals & abi::F_SEAL_EXEC != 0 && self.attr.lock().mode & 0o111 != 0;
        let seals = if runs { seals | frozen } else { seals };
        // No write is under way while this is held.
        let _one = self.write_lock().map(SleepLock::lock);
        let before = self.seals.load(Relaxed);
        if before & abi::F_SEAL_SEAL != 0 {
            return Err(Errno::EPERM);
        }
        self.seals.store(before | seals, SeqCst);
        // First the seal, then the look: who maps the file looks at the seals again when it is mapped.
        if seals & !before & abi::F_SEAL_WRITE != 0 && reserve::is_mapped_writable(object.id()) {
            self.seals.store(before, SeqCst);
            return Err(Errno::EBUSY);
        }
        Ok(())
    }
    fn check_unsealed(&self) -> Result<()> {
        let sealed = self.seals.load(SeqCst) & (abi::F_SEAL_WRITE | abi::F_SEAL_FUTURE_WRITE) != 0;
        if sealed { Err(Errno::EPERM) } else { Ok(()) }
    }
}
