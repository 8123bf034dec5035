//! A file of the host, as the rest of the kernel sees it.
//!
//! The inode has a *name fid*, by which it asks the server for attributes and walks on; it is replaced whenever the name is
//! looked up again, because the server finds files by path and the old path may be gone. A regular file's open fids
//! are its [`Handle`]'s.
//!
//! *Attributes* are trusted for [`TRUST`], and asked anew when a file is opened. If the server tells of another size or
//! modification time than the cached pages were read under, and the change is not ours, the pages are dropped. If the name
//! has come to mean another file, the answer is `ESTALE`: look the name up again.
//!
//! *Own changes.* [`State::changed`] says when the program last wrote; until write-back has sent it all, size and times are
//! the object's and the clock's.
//!
//! Locks: `opening` (sleeps) makes opening, write-back and truncation one step each; `state` and `object` are spin locks over plain
//! fields; `writing` is the callers' (see [`Inode::write_lock`]) and never taken here.

use super::Share;
use super::client::{AT_REMOVEDIR, Fid, Listed};
use super::handle::{FilePager, Handle};
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
use hafez_mm::lock::Mutex;
use linux_raw_sys::general as abi;

/// How long an answer of the server is believed, ns. The host's files seldom change under a running program, and a look
/// costs tens of microseconds; a second is as long as anyone will wait for a file to show up.
pub const TRUST: u64 = 1_000_000_000;
/// Attributes that came with the look-up that precedes an opening need not be asked for again: so old, ns.
const JUST_NOW: u64 = 50_000_000;

/// What an inode costs of the kernel's heap, with its object, generously.
const ROOM: usize = 4096;

/// See the module.
pub struct P9Inode {
    share: &'static Share,
    path: u64,
    kind: Kind,
    state: Mutex<State>,
    handle: Arc<Handle>,
    object: Mutex<Option<Arc<Object>>>,
    opening: SleepLock,
    writing: SleepLock,
    writers: Writers,
}

struct State {
    name: Arc<Fid>,
    /// The name fid has been opened. Newer servers then tell the attributes of what is open, not of what the name means by now.
    name_open: bool,
    stat: Stat,
    /// When `stat` was fetched, ns; 0: never, or not to be believed any more.
    fetched: u64,
    /// Nobody has opened the file since then.
    unused: bool,
    /// Size and modification time that the cached pages belong to.
    pages_of: (u64, Time),
    /// When the program last wrote what the server does not have yet.
    changed: Option<Time>,
    /// The server's version of the file when its name was last looked up.
    version: u32,
    /// We have taken its last name away: nobody can be asked about it any more.
    gone: bool,
    /// A link's text, as of that version.
    target: Option<Vec<u8>>,
    /// The fid that a directory is being read by, and the cursor at which the server said that nothing follows.
    listing: Option<Arc<Fid>>,
    end: Option<u64>,
}

impl P9Inode {
    /// The inode of what `fid` names: the known one if there is one.
    pub(super) fn of(share: &'static Share, fid: Fid, qid: Qid) -> Result<Arc<P9Inode>> {
        let linked = [(Qid::DIR, Kind::Dir), (Qid::LINK, Kind::Link)];
        let told = linked.into_iter().find(|(bit, _)| qid.kind & bit != 0).map(|(_, kind)| kind);
        if let Some(known) = share.table.get(qid.path)
            && told.map_or(!matches!(known.kind, Kind::Dir | Kind::Link), |kind| kind == known.kind)
        {
            known.renamed(fid, qid);
            return Ok(known);
        }
        // Files can be known by the thousand: leave the kernel room for what it cannot do without.
        if !crate::mem::headroom(ROOM) {
            share.table.forget_recent();
            if !crate::mem::headroom(ROOM) {
                return Err(Errno::ENOMEM);
            }
        }
        // Whether it is a regular file only its mode tells.
        let attr = if told.is_some() { None } else { Some(fid.attr()?) };
        let stat = attr.map_or(Stat::default(), |a| a.stat);
        let kind = told.or(stat.kind()).ok_or(Errno::EIO)?;
        let state = State {
            name: Arc::new(fid),
            name_open: false,
            stat,
            fetched: attr.map_or(0, |_| clock::monotonic()),
            unused: true,
            pages_of: (stat.size, stat.mtime),
            changed: None,
            version: qid.version,
            gone: false,
            target: None,
            listing: None,
            end: None,
        };
        let inode = Arc::new(P9Inode {
            share,
            path: qid.path,
            kind,
            state: Mutex::new(state),
            handle: Arc::default(),
            object: Mutex::new(None),
            opening: SleepLock::new(),
            writing: SleepLock::new(),
            writers: Writers::default(),
        });
        Ok(share.table.insert(inode))
    }

    pub(super) fn path(&self) -> u64 {
        self.path
    }
    pub(super) fn same_kind(&self, other: &P9Inode) -> bool {
        self.kind == other.kind
    }

    fn name(&self) -> Arc<Fid> {
        self.state.lock().name.clone()
    }

    /// The file was found under a name: that is how to reach it from now on.
    fn renamed(&self, fid: Fid, qid: Qid) {
        let mut state = self.state.lock();
        state.gone = false;
        let old = core::mem::replace(&mut state.name, Arc::new(fid));
        state.name_open = false;
        if state.version != qid.version {
            state.version = qid.version;
            state.fetched = 0;
            state.target = None;
        }
        drop(state);
        drop(old);
    }

    /// The next one who wants attributes has to ask.
    fn outdated(&self) {
        let mut state = self.state.lock();
        state.fetched = 0;
        state.end = None;
    }

    /// Ask the server, and drop cached pages that are no longer true. `ours`: what changed, we changed.
    fn refresh(&self, ours: bool) -> Result<Stat> {
        let attr = match self.unopened_name().and_then(|name| name.attr()) {
            Ok(attr) => attr,
            // Its name is gone, but we have it open: it lives on without one.
            Err(Errno::ENOENT) if self.handle.is_open(true, false) => {
                let mut state = self.state.lock();
                state.stat.nlink = 0;
                return Ok(state.stat);
            }
            Err(error) => return Err(error),
        };
        if attr.qid.path != self.path || attr.stat.kind() != Some(self.kind) {
            return Err(Errno::ESTALE);
        }
        let ours = self.handle.take_wrote() || ours;
        let mut state = self.state.lock();
        state.stat = attr.stat;
        state.fetched = clock::monotonic();
        state.unused = true;
        let now = (attr.stat.size, attr.stat.mtime);
        let foreign = state.changed.is_none() && !ours && state.pages_of != now;
        if state.changed.is_none() {
            state.pages_of = now;
        }
        drop(state);
        let object = self.object.lock().clone();
        if foreign && let Some(object) = object {
            memory().object_invalidate(&object);
            memory().object_resize(&object, attr.stat.size)?;
        }
        Ok(attr.stat)
    }

    /// The name fid, or if that has been opened, a new one.
    fn unopened_name(&self) -> Result<Arc<Fid>> {
        let (name, open) = {
            let state = self.state.lock();
            (state.name.clone(), state.name_open)
        };
        if !open {
            return Ok(name);
        }
        let twin = Arc::new(name.twin()?);
        let mut state = self.state.lock();
        state.name = twin.clone();
        state.name_open = false;
        drop(state);
        Ok(twin)
    }

    /// Attributes that are recent enough.
    fn recent(&self, age: u64) -> Result<Stat> {
        let state = self.state.lock();
        if state.gone || state.fetched != 0 && clock::monotonic().saturating_sub(state.fetched) < age {
            return Ok(state.stat);
        }
        drop(state);
        self.refresh(false)
    }

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

impl Drop for P9Inode {
    fn drop(&mut self) {
        self.share.table.remove(self.path);
        if let Some(object) = self.object.get_mut().take() {
            memory().object_retire(&object);
        }
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
        if cred.is_root() && self.kind == Kind::Dir {
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
