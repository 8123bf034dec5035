//! What can be done with a file of the host: each call, as messages to the server and changes of what is known.

use super::client::{AT_REMOVEDIR, Fid, Listed};
use super::handle::FilePager;
use super::known::{P9Inode, TRUST};
use super::specials::CURSORS;
use super::wire::Qid;
use crate::clock;
use crate::errno::{Errno, Result};
use crate::fs::cache::CachedFile;
use crate::fs::cred::Cred;
use crate::fs::file::FileOps;
use crate::fs::inode::*;
use crate::fs::lock::SleepLock;
use crate::mem::memory;
use alloc::{sync::Arc, vec::Vec};
use core::any::Any;
use hafez_mm::Object;
use linux_raw_sys::general as abi;

/// Attributes that came with the look-up that precedes an opening need not be asked for again: so old, ns. Those that came after
/// a write of ours do not count: that is a moment at which others look, and change the file in their turn.
const JUST_NOW: u64 = 5_000_000;

impl P9Inode {
    /// Have the fids for reading, and for writing if wanted. Under `opening`.
    fn open_fids(&self, write: bool) -> Result<()> {
        if write && !self.handle.is_open(false, true) {
            let fid = Arc::new(self.name().twin()?);
            match fid.open(abi::O_RDWR | abi::O_LARGEFILE) {
                Ok(qid) => self.opened(fid, qid, true, true)?,
                // We may write but not read: the pages that a write covers whole need no reading.
                Err(Errno::EACCES) => {
                    let qid = fid.open(abi::O_WRONLY | abi::O_LARGEFILE)?;
                    self.opened(fid, qid, false, true)?;
                }
                Err(error) => return Err(error),
            }
        } else if !write && !self.handle.is_open(true, false) {
            // The name fid itself will do, which spares the server a walk: nothing is walked from a file.
            let fid = {
                let mut state = self.state.lock();
                state.name_open = true;
                state.name.clone()
            };
            let qid = fid.open(abi::O_RDONLY | abi::O_LARGEFILE)?;
            self.opened(fid, qid, true, false)?;
        }
        Ok(())
    }

    fn opened(&self, fid: Arc<Fid>, qid: Qid, read: bool, write: bool) -> Result<()> {
        if qid.path != self.path {
            return Err(Errno::ESTALE);
        }
        self.handle.opened(fid, read, write);
        Ok(())
    }

    /// Send the program's changes to the server.
    pub fn write_back(&self) -> Result<()> {
        let Some(object) = self.object.lock().clone() else { return Ok(()) };
        let _one_at_a_time = self.opening.lock();
        let before = self.state.lock().changed;
        let result = memory().object_sync(&object);
        self.handle.take_error()?;
        result?;
        if before.is_some() {
            let mut state = self.state.lock();
            // Unless it was written to meanwhile, the server has it all.
            if state.changed == before {
                state.changed = None;
            }
            drop(state);
            self.refresh(true)?;
        }
        Ok(())
    }

    /// A new file of this name, made by `make`.
    fn made(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        self.outdated();
        let (fid, qid) = self.name().walk(name)?;
        Ok(P9Inode::of(self.share, fid, qid)?)
    }

    /// Make a file that is neither regular nor a directory nor a link.
    fn make_special(&self, dir: &Fid, name: &[u8], kind: Kind, rdev: u64, new: &NewNode<'_>) -> Result<()> {
        dir.mknod(name, new.mode | kind as u32, rdev, new.gid).map(|_| ()).map_err(|error| match error {
            // Newer QEMU will not touch what it would have to open to set its mode: as if the disk had no such files.
            Errno::ENXIO => Errno::EPERM,
            other => other,
        })
    }

    /// The directory `to` of the same share.
    fn neighbour<'a>(&self, to: &'a Arc<dyn Inode>) -> Result<&'a P9Inode> {
        let other = to.as_any().downcast_ref::<P9Inode>().ok_or(Errno::EXDEV)?;
        if core::ptr::eq(other.share, self.share) { Ok(other) } else { Err(Errno::EXDEV) }
    }
}

impl Inode for P9Inode {
    fn id(&self) -> InodeId {
        InodeId { dev: self.share.client.dev, ino: self.path }
    }
    fn kind(&self) -> Kind {
        self.kind
    }
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn stat(&self) -> Result<Stat> {
        let mut stat = self.recent(TRUST)?;
        let (changed, gone) = {
            let state = self.state.lock();
            (state.changed, state.gone)
        };
        if let Some(when) = changed {
            (stat.mtime, stat.ctime) = (when, when);
        }
        if (changed.is_some() || gone)
            && let Some(object) = &*self.object.lock()
        {
            stat.size = object.size();
            stat.blocks = stat.size.div_ceil(512);
        }
        Ok(stat)
    }

    fn permission(&self, cred: &Cred, wanted: u32) -> Result<()> {
        // The server checks too, as whom it runs. Root passes through directories without our asking for their modes.
        if cred.passes() && self.kind == Kind::Dir {
            return Ok(());
        }
        cred.check(&self.stat()?, wanted)
    }

    fn setattr(&self, set: &SetAttr) -> Result<()> {
        // What was written before the call must not undo it afterwards.
        if set.size.is_none() {
            self.write_back()?;
        }
        let _one_at_a_time = self.opening.lock();
        let object = self.object.lock().clone();
        // Shorter: first here, for then no write-back is under way that would make it long again. Longer: first there.
        if let (Some(size), Some(object)) = (set.size, &object)
            && size < object.size()
        {
            memory().object_resize(object, size)?;
        }
        self.name().set_attr(set)?;
        if let (Some(size), Some(object)) = (set.size, &object)
            && size > object.size()
        {
            memory().object_resize(object, size)?;
        }
        self.outdated();
        self.refresh(true).map(|_| ())
    }

    fn close_written(&self) -> Result<()> {
        self.write_back()
    }

    fn statfs(&self) -> Result<StatFs> {
        self.name().statfs()
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        if let Some(special) = self.share.specials.get(self.path, name) {
            return Ok(special);
        }
        let (fid, qid) = self.name().walk(name)?;
        Ok(P9Inode::of(self.share, fid, qid)?)
    }

    fn lookup_ttl(&self) -> u64 {
        TRUST
    }

    fn create(&self, name: &[u8], new: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        let dir = self.name();
        match new.node {
            NewKind::File => {
                let fid = dir.twin()?;
                let flags = abi::O_RDWR | abi::O_CREAT | abi::O_EXCL | abi::O_LARGEFILE;
                let qid = fid.create(name, flags, new.mode, new.gid)?;
                self.outdated();
                let inode = P9Inode::of(self.share, fid, qid)?;
                // What made the file is its name and both its handles, until somebody needs an unopened name.
                let mut state = inode.state.lock();
                state.name_open = true;
                let fid = state.name.clone();
                drop(state);
                inode.handle.opened(fid, true, true);
                return Ok(inode);
            }
            NewKind::Dir => dir.mkdir(name, new.mode, new.gid).map(|_| ())?,
            NewKind::Link { target } => dir.symlink(name, target, new.gid).map(|_| ())?,
            NewKind::Fifo | NewKind::Socket => {
                let kind = if new.node == NewKind::Fifo { Kind::Fifo } else { Kind::Socket };
                match self.make_special(&dir, name, kind, 0, new) {
                    Err(Errno::EPERM) => {
                        return self.share.specials.make(self.path, name, new)?.ok_or(Errno::ENOSPC);
                    }
                    result => result?,
                }
            }
            NewKind::Device { block: true, rdev } => self.make_special(&dir, name, Kind::Block, rdev, new)?,
            NewKind::Device { block: false, rdev } => self.make_special(&dir, name, Kind::Char, rdev, new)?,
        };
        self.made(name)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let target = self.neighbour(target)?;
        self.name().link(name, &target.name())?;
        self.outdated();
        target.outdated();
        Ok(())
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        if self.share.specials.remove(self.path, name) {
            return Ok(());
        }
        self.name().unlink(name, 0)?;
        self.outdated();
        Ok(())
    }

    fn unlinked(&self) {
        let mut state = self.state.lock();
        let left = if self.kind == Kind::Dir { 0 } else { state.stat.nlink.saturating_sub(1) };
        state.stat.nlink = left;
        state.gone = left == 0;
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        let (_, qid) = self.name().walk(name)?;
        if self.share.specials.any_in(qid.path) {
            return Err(Errno::ENOTEMPTY);
        }
        self.name().unlink(name, AT_REMOVEDIR)?;
        self.outdated();
        Ok(())
    }

    fn rename(&self, name: &[u8], to: &Arc<dyn Inode>, to_name: &[u8], how: RenameFlags) -> Result<()> {
        // The protocol has neither "not over another" nor "exchange", and two steps would not be one.
        if !how.is_empty() {
            return Err(Errno::EINVAL);
        }
        let to = self.neighbour(to)?;
        let specials = &self.share.specials;
        if specials.get(self.path, name).is_some() {
            match to.name().unlink(to_name, 0) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(e) => return Err(e),
            }
            to.outdated();
            specials.rename((self.path, name), (to.path, to_name));
            return Ok(());
        }
        self.name().rename(name, &to.name(), to_name)?;
        specials.remove(to.path, to_name);
        self.outdated();
        to.outdated();
        Ok(())
    }

    fn readdir(&self, from: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        if self.kind != Kind::Dir {
            return Err(Errno::ENOTDIR);
        }
        let (listing, end) = {
            let state = self.state.lock();
            (state.listing.clone(), state.end)
        };
        // Programs ask until nothing comes. The server has just been asked that.
        if CURSORS.contains(&from) {
            self.share.specials.list(self.path, from, emit);
            return Ok(());
        }
        if from != 0 && end == Some(from) {
            self.share.specials.list(self.path, 0, emit);
            return Ok(());
        }
        let fid = match listing {
            Some(fid) => fid,
            None => {
                let fid = Arc::new(self.name().twin()?);
                fid.open(abi::O_RDONLY | abi::O_DIRECTORY)?;
                fid
            }
        };
        let mut cursor = from;
        let ended = loop {
            match fid.read_dir(cursor, emit)? {
                Listed::Stopped => break false,
                Listed::End => break true,
                Listed::More(next) => cursor = next,
            }
        };
        let mut state = self.state.lock();
        state.end = ended.then_some(cursor);
        let old = core::mem::replace(&mut state.listing, if ended { None } else { Some(fid) });
        drop(state);
        drop(old);
        if ended {
            self.share.specials.list(self.path, 0, emit);
        }
        Ok(())
    }

    fn readlink(&self) -> Result<Vec<u8>> {
        if self.kind != Kind::Link {
            return Err(Errno::EINVAL);
        }
        let (name, version) = {
            let state = self.state.lock();
            if let Some(target) = &state.target {
                return Ok(target.clone());
            }
            (state.name.clone(), state.version)
        };
        let target = name.readlink()?;
        let mut state = self.state.lock();
        if state.version == version {
            state.target = Some(target.clone());
        }
        Ok(target)
    }

    fn open(self: Arc<Self>, how: OpenMode) -> Result<Arc<dyn FileOps>> {
        if self.kind != Kind::File {
            return Err(Errno::ENXIO);
        }
        {
            let _one_at_a_time = self.opening.lock();
            self.open_fids(how.write)?;
            let mut state = self.state.lock();
            let fresh = state.unused
                && state.fetched != 0
                && clock::monotonic().saturating_sub(state.fetched) < JUST_NOW;
            state.unused = false;
            drop(state);
            if !fresh {
                self.refresh(false)?;
                self.state.lock().unused = false;
            }
        }
        self.share.table.keep(&self);
        CachedFile::open(self)
    }

    fn object(&self) -> Result<Arc<Object>> {
        if let Some(object) = &*self.object.lock() {
            return Ok(object.clone());
        }
        if self.kind != Kind::File {
            return Err(Errno::ENODEV);
        }
        let _one_at_a_time = self.opening.lock();
        if let Some(object) = &*self.object.lock() {
            return Ok(object.clone());
        }
        self.open_fids(false)?;
        let stat = self.recent(TRUST)?;
        let object = memory().new_object_file(Arc::new(FilePager(self.handle.clone())), stat.size)?;
        self.state.lock().pages_of = (stat.size, stat.mtime);
        *self.object.lock() = Some(object.clone());
        Ok(object)
    }

    fn write_lock(&self) -> Option<&SleepLock> {
        Some(&self.writing)
    }

    fn grow(&self, size: u64) -> Result<()> {
        let object = self.object()?;
        self.written();
        Ok(memory().object_resize(&object, size)?)
    }

    fn written(&self) {
        self.state.lock().changed = Some(Time::now());
    }

    fn writers(&self) -> Option<&Writers> {
        (self.kind == Kind::File).then_some(&self.writers)
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.name().xattr(name)
    }
    fn xattrs(&self) -> Result<Vec<u8>> {
        // Of the server's form: the list is the value of the attribute without a name.
        self.name().xattr(b"")
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        if value.is_empty() {
            // To the server that means to take it away.
            return Err(Errno::EOPNOTSUPP);
        }
        self.name().set_xattr(name, value, flags)?;
        self.outdated();
        Ok(())
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        self.name().set_xattr(name, b"", crate::fs::xattr::REPLACE)?;
        self.outdated();
        Ok(())
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        match self.kind {
            Kind::File => {
                self.write_back()?;
                self.handle.writer().map_or(Ok(()), |fid| fid.fsync(data_only))
            }
            // A directory's names are on the server already; its own fsync would need it open.
            _ => Ok(()),
        }
    }
}
