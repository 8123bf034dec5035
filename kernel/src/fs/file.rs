//! The open file description: what `open` makes and `dup`, `fork` and `SCM_RIGHTS` share (`open(2)`).
//!
//! It joins a place in the tree, what can be done with the contents ([`FileOps`]), how it was opened, and an offset. The
//! offset of a file that has one is under a [`SleepLock`]: two threads that read through one description get
//! different bytes, as POSIX wants; `pread` and `pwrite` take no part in it. A write, and an append's look at
//! the end, are under the inode's write lock.
//!
//! Lock order: offset > write lock of the inode > whatever the file system has.

use super::{
    inode::{Inode, Kind, OpenMode, Stat, Writers, Writing},
    inotify,
    iobuf::{Sink, Source},
    lease,
    lock::SleepLock,
    locks,
    mount::Flags,
    owner::Owner,
    path::Location,
    poll::{Events, Watchers},
};
use crate::errno::{Errno, Result};
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use hafez_mm::{Object, lock::Once};
use linux_raw_sys::general as abi;

/// How the transfer may behave, from the description's flags or from `RWF_*`.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// Say `EAGAIN` rather than sleep.
    pub nonblock: bool,
    /// Past the page cache; of a pipe: each write is a packet (O_DIRECT).
    pub direct: bool,
    /// Reading leaves the time of the last access alone (O_NOATIME).
    pub unnoticed: bool,
    /// A regular file may not grow past this (RLIMIT_FSIZE): `EFBIG`.
    pub size_limit: u64,
}

impl Default for How {
    fn default() -> Self {
        How { nonblock: false, direct: false, unnoticed: false, size_limit: u64::MAX }
    }
}

/// What a mapping of the file is backed by.
pub enum Mapping {
    Object(Arc<Object>),
    /// `/dev/zero`: as anonymous memory.
    Zero,
}

/// What can be done with an open file, apart from its place in the tree.
///
/// A transfer moves what it can through the sink or source and returns; what moved counts even if an error follows, so an
/// implementation just returns the error. It sleeps only if nothing moved yet (reads), and never with `nonblock`.
pub trait FileOps: Any + Send + Sync {
    fn as_any(&self) -> &dyn Any;
    /// `at` means something only to what is [`seekable`](FileOps::seekable).
    fn read(&self, _at: u64, _to: &mut Sink<'_>, _how: How) -> Result<()> {
        Err(Errno::EINVAL)
    }
    fn write(&self, _at: u64, _from: &mut Source<'_>, _how: How) -> Result<()> {
        Err(Errno::EINVAL)
    }
    /// What `/proc/PID/fdinfo` says of it beyond what all files have: whole lines.
    fn told(&self) -> String {
        String::new()
    }
    /// Whether it has an offset; else `lseek` and `pread` say `ESPIPE`.
    fn seekable(&self) -> bool {
        false
    }
    /// `lseek` of what has no offset; a few answer as if they had one that never moves.
    fn seek_nowhere(&self, _offset: i64, _whence: u32) -> Result<u64> {
        Err(Errno::ESPIPE)
    }
    /// Bytes, roughly, that the kernel holds for it beside the description.
    fn holds(&self) -> usize {
        256
    }
    /// Whether the offset moves; that of `/dev/null` and `/dev/zero` is always 0.
    fn counts(&self) -> bool {
        true
    }
    /// What could be done now without sleeping.
    fn poll(&self) -> Events {
        Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM
    }
    /// Name every queue that is woken when [`poll`](FileOps::poll)'s answer may change. None: it never does.
    fn watch(&self, _watchers: &mut Watchers) {}
    /// Whether the signals that [`watch`](FileOps::watch) names stay the same and tell of every change: then what is not ready need
    /// not be asked again until one has come.
    fn tells_all(&self) -> bool {
        false
    }
    /// The device's own requests; those common to all files are done before.
    fn ioctl(&self, _request: u32, _argument: u64) -> Result<usize> {
        Err(Errno::ENOTTY)
    }
    /// What backs a mapping, shared or private.
    fn mapping(&self, _shared: bool) -> Result<Mapping> {
        Err(Errno::ENODEV)
    }
    /// `fsync`: `EINVAL` for what has no storage.
    fn sync(&self, _data_only: bool) -> Result<()> {
        Err(Errno::EINVAL)
    }
    /// A descriptor of it in this table is gone.
    fn let_go(&self, _table: u64) {}
    /// The description, which could write, is gone.
    fn closed(&self) {}
    /// Bytes that a regular file has (SEEK_END).
    fn size(&self) -> Result<u64> {
        Err(Errno::ESPIPE)
    }
    /// SEEK_DATA and SEEK_HOLE: the next offset from `at` on that is in data (or, if `hole`, in a hole). The default knows one
    /// piece of data and the hole at its end.
    fn seek_data(&self, at: u64, hole: bool) -> Result<u64> {
        let size = self.size()?;
        if at >= size {
            return Err(Errno::ENXIO);
        }
        Ok(if hole { size } else { at })
    }
}

/// The bits of the status flags that `fcntl(F_SETFL)` can change.
pub const SETTABLE: u32 = abi::O_APPEND | abi::O_NONBLOCK | abi::O_DIRECT | abi::O_NOATIME;
/// The flags that are of the opening only, not of the description.
const OPEN_ONLY: u32 = abi::O_CREAT | abi::O_EXCL | abi::O_NOCTTY | abi::O_TRUNC | abi::O_CLOEXEC;

/// An open file description.
pub struct File {
    ops: Arc<dyn FileOps>,
    place: Location,
    /// Status and access-mode flags, as `F_GETFL` gives them.
    flags: AtomicU32,
    mode: OpenMode,
    /// What the implementation says of itself.
    seekable: bool,
    offset: AtomicU64,
    offset_lock: SleepLock,
    id: u64,
    /// Who hears of changes by signal, once somebody was named.
    owner: Once<Arc<Owner>>,
    /// Nobody can run what is being written.
    _writing: Option<Writing>,
    /// Opening it made the file.
    made: AtomicBool,
    /// Nobody has written through this yet: the set-user-id bit may still be there.
    unwritten: AtomicBool,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Open file descriptions on the machine (`/proc/sys/fs/file-nr`).
pub fn count() -> u64 {
    COUNT.load(Relaxed)
}

impl File {
    /// `flags` as `open(2)` takes them.
    pub fn new(ops: Arc<dyn FileOps>, place: Location, flags: u32) -> Result<Arc<File>> {
        let writing = if open_mode(flags).write { Some(Writing::new(place.inode())?) } else { None };
        File::with(ops, place, flags, writing)
    }

    /// Of a file that was never opened, only made (`memfd_create`): that it can be written by this does not keep it from being run.
    pub fn unopened(ops: Arc<dyn FileOps>, place: Location, flags: u32) -> Result<Arc<File>> {
        File::with(ops, place, flags, None)
    }

    fn with(
        ops: Arc<dyn FileOps>,
        place: Location,
        flags: u32,
        writing: Option<Writing>,
    ) -> Result<Arc<File>> {
        // Descriptions can be made by the thousand: leave the kernel room for what it cannot do without.
        if !crate::mem::headroom(4096) {
            return Err(Errno::ENFILE);
        }
        let mode = open_mode(flags);
        COUNT.fetch_add(1, Relaxed);
        if mode.write && place.inode().kind() == Kind::File {
            place.mount.writes(true);
        }
        let file = Arc::new(File {
            seekable: ops.seekable(),
            ops,
            place,
            mode,
            _writing: writing,
            made: AtomicBool::new(false),
            unwritten: AtomicBool::new(true),
            flags: AtomicU32::new(flags & !OPEN_ONLY),
            offset: AtomicU64::new(0),
            offset_lock: SleepLock::new(),
            id: NEXT_ID.fetch_add(1, Relaxed),
            owner: Once::new(),
        });
        if let Some(users) = file.readers() {
            users.reads(true);
        }
        Ok(file)
    }

    /// Of a regular file that is open for reading alone: who uses it.
    fn readers(&self) -> Option<&Writers> {
        if self.mode.read && !self.mode.write { self.place.inode().writers() } else { None }
    }

    /// Whether opening it made the file (`F_CREATED_QUERY`).
    pub fn made(&self) -> bool {
        self.made.load(Relaxed)
    }
    pub(super) fn set_made(&self) {
        self.made.store(true, Relaxed);
    }
    /// Bytes, roughly, that the kernel holds for it.
    pub fn holds(&self) -> usize {
        size_of::<File>() + self.ops.holds()
    }
    pub fn ops(&self) -> &Arc<dyn FileOps> {
        &self.ops
    }
    /// The implementation, if it is a `T`.
    pub fn ops_as<T: FileOps>(&self) -> Option<&T> {
        self.ops.as_any().downcast_ref()
    }
    pub fn place(&self) -> &Location {
        &self.place
    }
    pub fn inode(&self) -> &Arc<dyn Inode> {
        self.place.inode()
    }
    pub fn kind(&self) -> Kind {
        self.inode().kind()
    }
    pub fn stat(&self) -> Result<Stat> {
        self.inode().stat()
    }
    /// Whether it is a regular file: the kernel's own objects are of no kind.
    pub fn is_regular(&self) -> bool {
        self.kind() == Kind::File && self.stat().is_ok_and(|stat| stat.kind() == Some(Kind::File))
    }
    /// Whether O_DIRECT means something: of files with pages in a file system, and of pipes.
    pub fn can_direct(&self) -> bool {
        match self.kind() {
            Kind::Fifo => true,
            Kind::File => {
                self.place.mount.id() != 0 && matches!(self.ops.mapping(false), Ok(Mapping::Object(_)))
            }
            Kind::Block => true,
            _ => false,
        }
    }
    /// Unique, never reused: names the owner of an open-file-description lock.
    pub fn id(&self) -> u64 {
        self.id
    }
    pub fn mode(&self) -> OpenMode {
        self.mode
    }
    /// Opened with O_PATH: good for naming only.
    pub fn is_path_only(&self) -> bool {
        self.flags() & abi::O_PATH != 0
    }
    pub fn flags(&self) -> u32 {
        self.flags.load(Relaxed)
    }
    /// F_SETFL: the settable ones become as in `flags`.
    pub fn set_flags(&self, flags: u32) {
        let _ = self.flags.fetch_update(Relaxed, Relaxed, |old| Some(old & !SETTABLE | flags & SETTABLE));
    }
    /// Set or clear one flag (`ioctl(FIONBIO)`).
    pub fn set_flag(&self, flag: u32, on: bool) {
        if on {
            self.flags.fetch_or(flag, Relaxed);
        } else {
            self.flags.fetch_and(!flag, Relaxed);
        }
    }
    /// Who hears of changes by signal.
    pub fn owner(&self) -> &Arc<Owner> {
        self.owner.call_once(|| Arc::new(Owner::new(&self.ops)))
    }
    /// Have the owner hear of urgent data, whether or not it wants to hear of every change.
    pub fn watch_urgent(&self) -> Result<()> {
        let mut watchers = Watchers::new();
        self.ops.watch(&mut watchers);
        watchers.add_owner(self.owner()).map(|_| ())
    }
    /// Set or clear O_ASYNC, by this descriptor; `EINVAL` for a file that cannot tell of its changes so.
    pub fn set_async(&self, on: bool, fd: u32) -> Result<()> {
        if on {
            let mut watchers = Watchers::new();
            self.ops.watch(&mut watchers);
            if !watchers.add_owner(self.owner())? {
                return Err(Errno::EINVAL);
            }
        }
        if let Some(owner) = self.owner.get() {
            owner.set_wants(on, fd);
        }
        self.set_flag(abi::FASYNC, on);
        Ok(())
    }
    /// As the flags say.
    pub fn how(&self) -> How {
        let flags = self.flags();
        let has = |flag: u32| flags & flag != 0;
        How {
            nonblock: has(abi::O_NONBLOCK),
            direct: has(abi::O_DIRECT),
            unnoticed: has(abi::O_NOATIME) || self.place.mount.flags().intersects(Flags::NOATIME),
            ..How::default()
        }
    }
    pub fn is_append(&self) -> bool {
        self.flags() & abi::O_APPEND != 0
    }

    /// `read(2)` if `at` is `None`, else `pread(2)`.
    #[inline(always)]
    pub fn read(&self, at: Option<u64>, to: &mut Sink<'_>) -> Result<usize> {
        self.read_how(at, to, self.how())
    }

    /// As [`read`](File::read), in another way than the flags say (`RWF_NOWAIT`).
    #[inline(always)]
    pub fn read_how(&self, at: Option<u64>, to: &mut Sink<'_>, how: How) -> Result<usize> {
        // One opened with O_PATH has neither mode.
        if !self.mode.read {
            return Err(self.cannot(at));
        }
        let result = match at {
            _ if self.seekable => self.read_seekable(at, to, how),
            None => self.ops.read(0, to, how),
            Some(_) => return Err(Errno::ESPIPE),
        };
        self.tell(to.outcome(result), inotify::ACCESS)
    }

    fn read_seekable(&self, at: Option<u64>, to: &mut Sink<'_>, how: How) -> Result<()> {
        if let Some(at) = at {
            return self.ops.read(at, to, how);
        }
        if !self.ops.counts() {
            return self.ops.read(0, to, how);
        }
        let _one = self.offset_lock.lock();
        let at = self.offset.load(Relaxed);
        let result = self.ops.read(at, to, how);
        self.offset.store(at + to.done() as u64, Relaxed);
        result
    }

    /// Why it cannot be read or written that was not opened for it: where there are no positions, that comes first.
    #[cold]
    fn cannot(&self, at: Option<u64>) -> Errno {
        if at.is_some() && !self.seekable && !self.is_path_only() { Errno::ESPIPE } else { Errno::EBADF }
    }

    /// Tell who watches the file that so many bytes of it were read or written.
    #[inline]
    fn tell(&self, result: Result<usize>, what: u32) -> Result<usize> {
        if inotify::active() && result.is_ok_and(|n| n > 0) {
            inotify::fire(&self.place, what);
        }
        result
    }

    /// Whether this is the first time that somebody writes through it.
    #[inline(always)]
    pub fn first_write(&self) -> bool {
        self.unwritten.load(Relaxed) && self.unwritten.swap(false, Relaxed)
    }

    /// `write(2)` if `at` is `None`, else `pwrite(2)`. With `append` both write at the end, as on Linux.
    #[inline(always)]
    pub fn write_how(&self, at: Option<u64>, from: &mut Source<'_>, how: How, append: bool) -> Result<usize> {
        if !self.mode.write {
            return Err(self.cannot(at));
        }
        let result = match at {
            _ if self.seekable => self.write_seekable(at, from, how, append),
            None => {
                let result = self.ops.write(0, from, how);
                from.outcome(result)
            }
            Some(_) => return Err(Errno::ESPIPE),
        };
        self.tell(result, inotify::MODIFY)
    }

    fn write_seekable(
        &self,
        at: Option<u64>,
        from: &mut Source<'_>,
        how: How,
        append: bool,
    ) -> Result<usize> {
        if let Some(at) = at {
            return self.write_at(Some(at), from, how, append).0;
        }
        if !self.ops.counts() {
            let result = self.ops.write(0, from, how);
            return from.outcome(result);
        }
        let _one = self.offset_lock.lock();
        let (result, end) = self.write_at(None, from, how, append);
        if from.done() > 0 {
            self.offset.store(end, Relaxed);
        }
        result
    }

    fn write_at(
        &self,
        at: Option<u64>,
        from: &mut Source<'_>,
        how: How,
        append: bool,
    ) -> (Result<usize>, u64) {
        let _one = self.inode().write_lock().map(SleepLock::lock);
        let at = match (append, self.ops.size()) {
            (true, Ok(end)) => end,
            _ => at.unwrap_or_else(|| self.offset.load(Relaxed)),
        };
        let mut result = self.ops.write(at, from, how);
        if result.is_ok() && self.flags() & abi::O_DSYNC != 0 {
            result = self.ops.sync(self.flags() & abi::O_SYNC != abi::O_SYNC);
        }
        (from.outcome(result), at + from.done() as u64)
    }

    /// Read into the kernel's own memory, as far as the file goes.
    pub fn read_kernel(&self, at: u64, bytes: &mut [u8]) -> Result<usize> {
        let mut sink = Sink::kernel(bytes);
        let result = self.ops.read(at, &mut sink, How::default());
        sink.outcome(result)
    }

    pub fn offset(&self) -> u64 {
        self.offset.load(Relaxed)
    }
    /// Run `step` on the offset as one step (`getdents`, `sendfile`).
    pub fn with_offset<T>(&self, step: impl FnOnce(&mut u64) -> T) -> T {
        let _one = self.offset_lock.lock();
        let mut at = self.offset.load(Relaxed);
        let result = step(&mut at);
        self.offset.store(at, Relaxed);
        result
    }

    /// `lseek(2)`.
    pub fn seek(&self, offset: i64, whence: u32) -> Result<u64> {
        if self.is_path_only() {
            return Err(Errno::EBADF);
        }
        if whence > abi::SEEK_HOLE {
            return Err(Errno::EINVAL);
        }
        if !self.ops.seekable() {
            return self.ops.seek_nowhere(offset, whence);
        }
        if !self.ops.counts() {
            return Ok(0);
        }
        let _one = self.offset_lock.lock();
        let to = match whence {
            abi::SEEK_SET => offset,
            abi::SEEK_CUR => (self.offset() as i64).checked_add(offset).ok_or(Errno::EINVAL)?,
            abi::SEEK_END => (self.ops.size()? as i64).checked_add(offset).ok_or(Errno::EINVAL)?,
            abi::SEEK_DATA | abi::SEEK_HOLE => {
                let at = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
                self.ops.seek_data(at, whence == abi::SEEK_HOLE)? as i64
            }
            _ => return Err(Errno::EINVAL),
        };
        let to = u64::try_from(to).map_err(|_| Errno::EINVAL)?;
        self.offset.store(to, Relaxed);
        Ok(to)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        locks::release_file(self);
        lease::release(self);
        if let Some(users) = self.readers() {
            users.reads(false);
        }
        if inotify::active() && !self.is_path_only() {
            inotify::closed(&self.place, self.mode.write);
        }
        if self.mode.write {
            self.ops.closed();
        }
        if self.mode.write && self.place.inode().kind() == Kind::File {
            self.place.mount.writes(false);
        }
        COUNT.fetch_sub(1, Relaxed);
    }
}

/// What the access-mode bits allow.
pub fn open_mode(flags: u32) -> OpenMode {
    let access = flags & abi::O_ACCMODE;
    let path_only = flags & abi::O_PATH != 0;
    OpenMode {
        read: !path_only && access != abi::O_WRONLY && access != abi::O_ACCMODE,
        write: !path_only && (access == abi::O_WRONLY || access == abi::O_RDWR),
        nonblock: flags & abi::O_NONBLOCK != 0,
        controlling: flags & abi::O_NOCTTY == 0,
        truncate: !path_only && flags & abi::O_TRUNC != 0,
    }
}

/// What O_PATH opens: nothing can be done with it.
pub struct PathOnly;

impl FileOps for PathOnly {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _: u64, _: &mut Sink<'_>, _: How) -> Result<()> {
        Err(Errno::EBADF)
    }
    fn write(&self, _: u64, _: &mut Source<'_>, _: How) -> Result<()> {
        Err(Errno::EBADF)
    }
    fn mapping(&self, _: bool) -> Result<Mapping> {
        Err(Errno::EBADF)
    }
}

/// An open directory: its entries come by `getdents`, which asks the inode.
pub struct OpenDir;

impl FileOps for OpenDir {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _: u64, _: &mut Sink<'_>, _: How) -> Result<()> {
        Err(Errno::EISDIR)
    }
    fn seekable(&self) -> bool {
        true
    }
    fn size(&self) -> Result<u64> {
        Ok(i64::MAX as u64)
    }
    fn seek_data(&self, _: u64, _: bool) -> Result<u64> {
        Err(Errno::EINVAL)
    }
    fn sync(&self, _: bool) -> Result<()> {
        Ok(())
    }
}
