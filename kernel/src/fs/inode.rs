//! What a name names, whichever file system holds it.
//!
//! An inode is one file, directory, link or device, however many names and openings it has; two `Arc`s of the same file are
//! the same `Arc`. Its identity ([`InodeId`]) stays while it lives. Every call may sleep, so none is made with a spin
//! lock held, and two may run at once: what must be atomic (of two `create`s of a name one fails) the file
//! system makes so. The callers ([`super::path`]) have checked permissions, read-only mounts and the length of names
//! before; names are never empty, `.`, `..` and never hold `/`.

use super::{cred::Cred, file::FileOps, lock::SleepLock};
use crate::errno::{Errno, Result};
use alloc::{sync::Arc, vec::Vec};
use core::any::Any;
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use hafez_mm::Object;

/// Which file, on the whole machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct InodeId {
    pub dev: u64,
    pub ino: u64,
}

/// What sort of file: the `S_IFMT` bits of its mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Kind {
    Fifo = 0o010000,
    Char = 0o020000,
    Dir = 0o040000,
    Block = 0o060000,
    File = 0o100000,
    Link = 0o120000,
    Socket = 0o140000,
}

impl Kind {
    /// From a mode's `S_IFMT` bits.
    pub fn from_mode(mode: u32) -> Option<Kind> {
        use Kind::*;
        [Fifo, Char, Dir, Block, File, Link, Socket].into_iter().find(|k| *k as u32 == mode & 0o170000)
    }
    /// The `d_type` of a directory entry.
    pub fn d_type(self) -> u8 {
        (self as u32 >> 12) as u8
    }
    /// From a `d_type`; `None` for `DT_UNKNOWN`.
    pub fn from_d_type(t: u8) -> Option<Kind> {
        Kind::from_mode((t as u32) << 12)
    }
}

/// A point in time, since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, PartialOrd, Ord)]
pub struct Time {
    pub sec: i64,
    pub nsec: u32,
}

impl Time {
    /// Now, by the realtime clock.
    pub fn now() -> Time {
        let ns = crate::clock::realtime();
        Time { sec: (ns / 1_000_000_000) as i64, nsec: (ns % 1_000_000_000) as u32 }
    }
}

/// `stat(2)`, in no particular ABI.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    /// Kind and permission bits.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    /// Bytes.
    pub size: u64,
    /// Units of 512 bytes.
    pub blocks: u64,
    /// Preferred size of I/O in bytes.
    pub blksize: u32,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    /// Birth, where the file system knows it.
    pub btime: Option<Time>,
}

impl Stat {
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_mode(self.mode)
    }
    pub fn is_dir(&self) -> bool {
        self.kind() == Some(Kind::Dir)
    }
}

/// What to change of a file's attributes; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits (07777).
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Truncate or extend; the implementation resizes the object with it.
    pub size: Option<u64>,
    pub atime: Option<Time>,
    pub mtime: Option<Time>,
}

/// What `create` is to make.
#[derive(Clone, Debug)]
pub struct NewNode<'a> {
    pub node: NewKind<'a>,
    /// Permission bits, with the umask taken off.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// See [`NewNode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewKind<'a> {
    File,
    Dir,
    Link { target: &'a [u8] },
    Fifo,
    Socket,
    Device { block: bool, rdev: u64 },
}

/// One name in a directory.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    pub name: &'a [u8],
    pub ino: u64,
    /// `None`: not known without a look-up.
    pub kind: Option<Kind>,
    /// Where a later `readdir` goes on after this entry.
    pub next: u64,
}

/// `statfs(2)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct StatFs {
    /// The magic number of `linux/magic.h`.
    pub magic: u64,
    pub block_size: u64,
    pub blocks: u64,
    pub blocks_free: u64,
    /// Free for other than root.
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
    /// The longest name, in bytes.
    pub name_max: u64,
}

/// How a file is being opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenMode {
    pub read: bool,
    pub write: bool,
    /// Only FIFOs and devices care at the time of opening.
    pub nonblock: bool,
    /// A terminal may become the caller's controlling one (no O_NOCTTY).
    pub controlling: bool,
    /// It is about to be made empty (O_TRUNC).
    pub truncate: bool,
}

bitflags::bitflags! {
    /// `renameat2(2)`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct RenameFlags: u32 { const NOREPLACE = 1; const EXCHANGE = 2; const WHITEOUT = 4; }
}

/// A file, directory, link or device. What an implementation leaves out answers as Linux does for a file system without it.
pub trait Inode: Any + Send + Sync {
    /// Constant for its life.
    fn id(&self) -> InodeId;
    /// Constant for its life, and known without asking anyone.
    fn kind(&self) -> Kind;
    fn stat(&self) -> Result<Stat>;
    fn as_any(&self) -> &dyn Any;

    /// Whether this identity may do this: by mode bits, unless the file system knows better.
    fn permission(&self, cred: &Cred, wanted: u32) -> Result<()> {
        cred.check(&self.stat()?, wanted)
    }
    fn setattr(&self, _set: &SetAttr) -> Result<()> {
        Err(Errno::EPERM)
    }
    fn statfs(&self) -> Result<StatFs>;

    // Directories.

    /// The file of this name; `ENOENT` if there is none.
    fn lookup(&self, _name: &[u8]) -> Result<Arc<dyn Inode>> {
        Err(Errno::ENOTDIR)
    }
    /// Whether a name that is not there is an error even to who wants to make it, as in `/proc`.
    fn only_known_names(&self) -> bool {
        false
    }
    /// For how many ns an answer of `lookup` may be reused (also "no such file"). For ever where nobody else can change
    /// the directory; 0 where its entries come and go by themselves.
    fn lookup_ttl(&self) -> u64 {
        u64::MAX
    }
    /// Make a new file; `EEXIST` if the name is taken.
    fn create(&self, _name: &[u8], new: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        // The two that Linux says for a directory that can have no new files, or no other new things.
        Err(if new.node == NewKind::File { Errno::EACCES } else { Errno::EPERM })
    }
    /// A regular file with no name in this directory's file system (O_TMPFILE); `linkable`: it may be given one later, once.
    fn create_unnamed(&self, _new: &NewNode<'_>, _linkable: bool) -> Result<Arc<dyn Inode>> {
        Err(Errno::EOPNOTSUPP)
    }
    /// A second name for `target`, which is of the same file system (same `dev`) and no directory.
    fn link(&self, _name: &[u8], _target: &Arc<dyn Inode>) -> Result<()> {
        Err(Errno::EPERM)
    }
    /// Take away the name of what is no directory.
    fn unlink(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EPERM)
    }
    /// Take away an empty directory.
    fn rmdir(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EPERM)
    }
    /// One of this file's names has just been taken away, by whoever keeps them.
    fn unlinked(&self) {}
    /// Move a name into `to`, a directory of the same file system. The caller has excluded moving a directory into itself.
    fn rename(&self, _name: &[u8], _to: &Arc<dyn Inode>, _to_name: &[u8], _how: RenameFlags) -> Result<()> {
        Err(Errno::EPERM)
    }
    /// Call `emit` for each entry (`.` and `..` too) from the cursor `from` on (0 is the beginning), until it says `false`
    /// (it did not take that entry) or there are no more. `emit` does not sleep.
    fn readdir(&self, _from: u64, _emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        Err(Errno::ENOTDIR)
    }

    // Links.

    fn readlink(&self) -> Result<Vec<u8>> {
        Err(Errno::EINVAL)
    }
    /// Where the link leads, when that is not by its text: `/proc/self/exe`, `/proc/self/fd/N`.
    fn follow(&self) -> Option<Result<super::path::Location>> {
        None
    }

    // Contents.

    /// Something to read from and write to. A regular file makes itself ready (a handle on the server, a look whether its
    /// cached pages are still true) and returns `cache::CachedFile::open(self)`.
    fn open(self: Arc<Self>, how: OpenMode) -> Result<Arc<dyn FileOps>>;
    /// The pages of a regular file: one object for as long as the inode lives.
    fn object(&self) -> Result<Arc<Object>> {
        Err(Errno::ENODEV)
    }
    /// Held over a write, and over a truncation, so that each is one step for the others.
    fn write_lock(&self) -> Option<&SleepLock> {
        None
    }
    /// A write is about to reach past the end: make the file this long (more than `object().size()`), or say `ENOSPC`.
    fn grow(&self, size: u64) -> Result<()> {
        crate::mem::memory().object_resize(&self.object()?, size).map_err(Errno::from)
    }
    /// A write is about to fill page `index`: room for it, or `ENOSPC`.
    fn fill_page(&self, _index: u64) -> Result<()> {
        Ok(())
    }
    /// Contents were changed by `write(2)`: mtime and ctime are now.
    fn written(&self) {}
    /// Contents were read: atime, where it is kept.
    fn accessed(&self) {}
    /// `fallocate(2)` with FALLOC_FL_PUNCH_HOLE: the bytes read as zero from now on.
    fn punch(&self, _from: u64, _to: u64) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// `fallocate(2)`: room for these bytes, which reads as zero; writing them will not fail for want of it. `from` and `to` may lie
    /// past the end, which stays where it is.
    fn reserve(&self, _from: u64, _to: u64) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Who writes the file, or runs it: of regular files.
    fn writers(&self) -> Option<&Writers> {
        None
    }

    // Extended attributes; names with their prefix. What goes for every file system, `xattr` has seen to.

    fn xattr(&self, _name: &[u8]) -> Result<Vec<u8>> {
        Err(Errno::EOPNOTSUPP)
    }
    fn set_xattr(&self, _name: &[u8], _value: &[u8], _flags: u32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    fn remove_xattr(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// All names, each with a NUL behind it.
    fn xattrs(&self) -> Result<Vec<u8>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// `fsync(2)`: everything is on stable storage when it returns.
    fn sync(&self, _data_only: bool) -> Result<()> {
        Ok(())
    }
    /// The next offset from `at` on with data (or, if `hole`, without): `None` if there is none before the end. By default a
    /// file is all data.
    fn next_data(&self, at: u64, hole: bool) -> Option<u64> {
        (!hole).then_some(at)
    }
    /// One who could write has closed the file: where others look at it too, they are to see what he wrote.
    fn close_written(&self) -> Result<()> {
        Ok(())
    }

    /// Of a file system's root: write back all that is dirty in it (`sync(2)`).
    fn sync_all(&self) -> Result<()> {
        Ok(())
    }

    /// What a memfd is sealed against (`F_GET_SEALS`); `EINVAL` for what has no seals.
    fn seals(&self) -> Result<u32> {
        Err(Errno::EINVAL)
    }
    /// Add seals (`F_ADD_SEALS`).
    fn add_seals(&self, _seals: u32) -> Result<()> {
        Err(Errno::EINVAL)
    }
    /// Whether contents may be written, or mapped shared and writable, in spite of seals.
    fn check_unsealed(&self) -> Result<()> {
        Ok(())
    }
}

/// How many have a file open for writing; or, below zero, how many run it as their program: it is never both (`ETXTBSY`). And how many
/// have it open for reading alone.
#[derive(Default)]
pub struct Writers {
    claims: AtomicI32,
    readers: AtomicU32,
    /// How long what is written is expected to stay (`F_SET_RW_HINT`). Nothing comes of it here.
    pub hint: AtomicU32,
}

impl Writers {
    pub fn writing(&self) -> u32 {
        self.claims.load(SeqCst).max(0) as u32
    }
    pub fn reading(&self) -> u32 {
        self.readers.load(SeqCst)
    }
    /// One more, or one fewer.
    pub(super) fn reads(&self, more: bool) {
        self.readers.fetch_add(if more { 1 } else { u32::MAX }, SeqCst);
    }
}

/// One who writes a file, or (`RUNS`) keeps others from writing it.
pub struct Claim<const RUNS: bool>(Arc<dyn Inode>);

/// Writes a file.
pub type Writing = Claim<false>;
/// Runs a file.
pub type Running = Claim<true>;

impl<const RUNS: bool> Claim<RUNS> {
    const STEP: i32 = if RUNS { -1 } else { 1 };

    /// `ETXTBSY` where the other kind has it; nothing to claim in what is no regular file.
    pub fn new(inode: &Arc<dyn Inode>) -> Result<Self> {
        if let Some(Writers { claims: count, .. }) = inode.writers() {
            let free = |n: i32| (n.signum() != -Self::STEP).then_some(n + Self::STEP);
            count.fetch_update(SeqCst, Relaxed, free).map_err(|_| Errno::ETXTBSY)?;
        }
        Ok(Claim(inode.clone()))
    }
}

impl<const RUNS: bool> Drop for Claim<RUNS> {
    fn drop(&mut self) {
        if let Some(Writers { claims: count, .. }) = self.0.writers() {
            count.fetch_sub(Self::STEP, Relaxed);
        }
    }
}
