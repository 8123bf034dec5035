//! Files: names, what they name, and what an open one can do.
//!
//! ```text
//!   system calls ── path walk ──► Location (mount, dentry) ──► dyn Inode ── open ──► dyn FileOps
//!                                  dentry cache, mounts         p9, tmpfs, dev,       in a File: offset,
//!                                                               synth (/proc, /sys)   flags, shared by dup
//! ```
//!
//! A file system implements [`Inode`]; whatever can be read or written once it is open implements [`file::FileOps`]. Regular
//! files have neither code of their own for reading: their bytes are the pages of a memory object (`Inode::object`), which
//! is the page cache, and [`cache`] copies between those pages and the program. So a file that is read and one that is
//! mapped are the same frames.
//!
//! Locks: data is under `spin` locks that are never held over anything that can sleep (another file system's call, a
//! user copy, an object's page). What must be one step over a sleep (a shared offset, an append) is under a
//! [`SleepLock`]. Wakers drop their spin lock first, because a waiter's condition takes it under the queue's.
#![forbid(unsafe_code)]

pub mod anon;
pub mod cache;
pub mod caps;
pub mod cred;
pub mod dentry;
pub mod dev;
pub mod epoll;
pub mod eventfd;
pub mod file;
pub mod inode;
pub mod inotify;
pub mod iobuf;
pub mod kmsg;
pub mod lease;
pub mod lock;
pub mod locks;
pub mod mount;
pub mod names;
pub mod overlay;
pub mod owner;
pub mod p9;
pub mod path;
pub mod pipe;
pub mod pipe_share;
pub mod poll;
pub mod protected;
pub mod splice;
pub mod stdio;
pub mod synth;
pub mod sys;
pub mod tmpfs;
pub mod tty;
pub mod xattr;

pub use cred::Cred;
pub use file::File;
pub use inode::{DirEntry, Inode, Kind, SetAttr, Stat, Time};
pub use lock::SleepLock;
pub use path::{Location, Walker};

use crate::errno::Result;
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use hafez_mm::lock::{Mutex, Once};
use mount::Mount;

static ROOT: Once<Location> = Once::new();
static OWN: Once<Vec<Arc<mount::FileSystem>>> = Once::new();

/// The root of everything, once [`start`] has mounted it.
pub fn root() -> Option<Location> {
    ROOT.get().cloned()
}

/// The file system of a kind of which there is one, wherever it is mounted.
pub fn own(kind: &[u8]) -> Option<Arc<mount::FileSystem>> {
    OWN.get()?.iter().find(|system| system.kind.as_bytes() == kind).cloned()
}

/// A directory of the host's that programs may write.
pub struct Writable {
    /// Where it appears, absolute.
    pub path: Vec<u8>,
    pub inode: Arc<dyn Inode>,
    /// What `/proc/mounts` calls it.
    pub source: Box<[u8]>,
}

/// Build the tree: the host's files below, read-only (or, with `overlay`, as if they could be written), and over them what is
/// the machine's own.
pub fn start(
    host: Arc<dyn Inode>,
    proc: Arc<dyn Inode>,
    writable: Vec<Writable>,
    overlay: bool,
) -> Result<Location> {
    dentry::set_limit(crate::mem::memory().stats().total);
    // What is left when these are full is enough for the programs that look for room.
    let stats = crate::mem::memory().stats();
    let limit = (stats.total + stats.swap_total) / 4 * 3 * hafez_mm::PAGE_SIZE as u64;
    let root = match overlay {
        false => Mount::new(host, None, "9p", b"root", true).root(),
        true => Mount::new(overlay::mount(host, limit)?, None, "overlay", b"overlay", false).root(),
    };
    let root = ROOT.call_once(|| root).clone();
    let all = Walker {
        root: root.clone(),
        cwd: root.clone(),
        cred: Arc::new(Cred::default()),
        umask: 0,
        limits: Default::default(),
        beneath: None,
    };
    mount_on(&all, b"/proc", proc, "proc", b"proc")?;
    mount_on(&all, b"/sys", sys::tree(), "sysfs", b"sysfs")?;
    mount_on(&all, b"/dev", dev::tree(), "devtmpfs", b"udev")?;
    tty::set_mount(mount_on(&all, b"/dev/pts", tty::pts(), "devpts", b"devpts")?);
    OWN.call_once(|| mount::all().iter().map(|mount| mount.system().clone()).collect());
    for path in [&b"/dev/shm"[..], b"/tmp"] {
        mount_on(&all, path, tmpfs::TmpFs::mount(0o1777, Some(limit))?, "tmpfs", b"tmpfs")?;
    }
    for w in writable {
        mount_on(&all, &w.path, w.inode, "9p", &w.source)?;
    }
    Ok(root)
}

/// Cover `path` with a file system. Where the path does not exist it is made: in the file system, or, if that cannot be
/// written, only in our memory of it.
fn mount_on(
    walker: &Walker,
    path: &[u8],
    root: Arc<dyn Inode>,
    kind: &'static str,
    source: &[u8],
) -> Result<Arc<Mount>> {
    let mut at = walker.root.clone();
    for name in path.split(|c| *c == b'/').filter(|n| !n.is_empty()) {
        let next = walker.resolve(&at, name, true);
        at = match next {
            Ok(next) if next.is_dir() => next,
            _ if !at.mount.is_read_only() => walker.create(&at, name, inode::NewKind::Dir, 0o755)?,
            _ => {
                let empty = synth::Dir::new(0o755).inode();
                Location { mount: at.mount.clone(), dentry: at.dentry.graft(name, empty) }
            }
        };
    }
    Ok(Mount::new(root, Some(at), kind, source, false))
}

/// Let a file appear in a directory of the root's in place of what is there, for as long as the machine runs. Where there is
/// no such directory, nobody looks for the file either.
pub fn cover_file(root: &Location, dir: &[u8], name: &[u8], text: Vec<u8>) {
    static COVERS: Mutex<Vec<Arc<dentry::Dentry>>> = Mutex::new(Vec::new());
    let Ok(dir) = root.child(dir) else { return };
    let file = synth::Entry::file(move || Ok(text.clone())).into_root(linux_raw_sys::general::TMPFS_MAGIC);
    // A dentry is known as long as somebody holds it.
    COVERS.lock().push(dir.dentry.graft(name, file));
}

/// `sync(2)`: every file system writes back what is dirty. The first error, after all have tried.
pub fn sync_all() -> Result<()> {
    let results: Vec<Result<()>> = mount::all().iter().map(|m| m.root().inode().sync_all()).collect();
    results.into_iter().collect()
}
