//! Files in memory: `/tmp`, `/dev/shm`, and `memfd_create`.
//!
//! A regular file is a shared object, whose pages are swapped like any program's; so `/tmp` may be larger than RAM.
//! Directories, links and attributes are on the kernel's heap. A size limit counts the pages that files have.
//!
//! ```text
//!   TmpFs ── limits, device number
//!     └─ Node ── attributes ── Body: File(object) │ Dir(names) │ Link(text) │ Fifo(pipe) │ Socket │ Device
//! ```
//!
//! Locks: `attr` and a directory's `names` are spin locks. An operation on two directories takes their `names` one
//! after the other under `TmpFs::tree`, never both at once; what it found in the first it checks again where it matters.
//! Nodes are dropped outside of locks, for the last drop of a file frees its object.

mod inode;
mod options;
mod reserve;

pub use options::{fresh, reconfigure, told};
pub use reserve::set_mapped;

use super::{
    cache, dev,
    inode::{Inode, Kind, NewKind, NewNode, StatFs, Time, Writers},
    lock::SleepLock,
    mount::Mount,
    pipe::Pipe,
    xattr::Store,
};
use crate::{
    errno::{Errno, Result},
    mem::{self, memory},
};
use alloc::{
    boxed::Box,
    collections::BTreeMap,
    string::String,
    sync::{Arc, Weak},
};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use hafez_mm::lock::{Mutex, Once};
use hafez_mm::{AccountId, Object, PAGE_SIZE};
use linux_raw_sys::general as abi;
use reserve::Ahead;

/// What a node takes of the kernel's heap, roughly: asked for before one is made.
const NODE_COST: usize = 2048;

/// Files that one may have, whatever was asked for.
fn most_nodes() -> u64 {
    memory().stats().total * PAGE_SIZE as u64 / (4 * NODE_COST as u64)
}

/// One file system.
pub struct TmpFs {
    dev: u64,
    next_ino: AtomicU64,
    /// Pages that files may have; `u64::MAX`: as many as memory and swap hold.
    limit: AtomicU64,
    /// Pages of files, as far as counted: see [`Node::charge`] and [`Node::recount`].
    used: AtomicU64,
    nodes: AtomicU64,
    /// Files that it may have: no process answers for them, so all of them together may take a quarter of RAM.
    most: AtomicU64,
    tree: SleepLock,
    /// What `mount` was told beside limits, as text.
    given: Once<String>,
}

/// Mode, owner, times.
#[derive(Clone, Copy)]
struct Attr {
    mode: u32,
    nlink: u32,
    uid: u32,
    gid: u32,
    atime: Time,
    mtime: Time,
    ctime: Time,
}

enum Body {
    File { object: Arc<Object>, write_lock: SleepLock, charged: AtomicU64, ahead: Ahead, writers: Writers },
    Dir { names: Mutex<Names>, parent: Mutex<Weak<Node>> },
    Link(Box<[u8]>),
    Fifo(Arc<Pipe>),
    Socket,
    Device(u64),
}

/// A directory's entries, by name and in the order in which `readdir` gives them: a cursor stays valid over any change.
#[derive(Default)]
struct Names {
    by_name: BTreeMap<Arc<[u8]>, (u64, Arc<Node>)>,
    by_cursor: BTreeMap<u64, Arc<[u8]>>,
    last: u64,
}

impl Names {
    fn get(&self, name: &[u8]) -> Option<&Arc<Node>> {
        self.by_name.get(name).map(|(_, node)| node)
    }
    fn insert(&mut self, name: &[u8], node: Arc<Node>) {
        // 0 and 1 are where `.` and `..` begin.
        self.last = self.last.max(1) + 1;
        let name: Arc<[u8]> = name.into();
        self.by_cursor.insert(self.last, name.clone());
        self.by_name.insert(name, (self.last, node));
    }
    fn remove(&mut self, name: &[u8]) -> Option<Arc<Node>> {
        let (cursor, node) = self.by_name.remove(name)?;
        self.by_cursor.remove(&cursor);
        Some(node)
    }
}

/// A file of it.
pub struct Node {
    fs: Arc<TmpFs>,
    me: Weak<Node>,
    ino: u64,
    body: Body,
    attr: Mutex<Attr>,
    made: Time,
    /// `F_SEAL_*`; only a memfd's ever change.
    seals: AtomicU32,
    /// It has no name yet, and may get one (O_TMPFILE).
    linkable: AtomicBool,
    xattrs: Store,
}

impl TmpFs {
    /// A new one's root directory. `limit` in bytes.
    pub fn mount(mode: u32, limit: Option<u64>) -> Result<Arc<dyn Inode>> {
        let fs = TmpFs::new(limit);
        let new = NewNode { node: NewKind::Dir, mode, uid: 0, gid: 0 };
        let root = Node::make(&fs, &new)?;
        if let Body::Dir { parent, .. } = &root.body {
            *parent.lock() = Arc::downgrade(&root);
        }
        Ok(root)
    }

    fn limit(&self) -> Option<u64> {
        Some(self.limit.load(Relaxed)).filter(|pages| *pages != u64::MAX)
    }

    fn new(limit: Option<u64>) -> Arc<TmpFs> {
        Arc::new(TmpFs {
            dev: dev::next_anonymous(),
            next_ino: AtomicU64::new(1),
            limit: AtomicU64::new(limit.map_or(u64::MAX, |bytes| bytes.div_ceil(PAGE_SIZE as u64))),
            used: AtomicU64::new(0),
            nodes: AtomicU64::new(0),
            most: AtomicU64::new(most_nodes()),
            tree: SleepLock::new(),
            given: Once::new(),
        })
    }

    /// One without a tree, for files whose names are another's business.
    pub fn of_bodies(limit: u64) -> Arc<TmpFs> {
        TmpFs::new(Some(limit))
    }

    /// A file of it that no directory of it has.
    pub fn body(self: &Arc<Self>, new: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        Ok(Node::make(self, new)?)
    }

    pub fn statfs(&self) -> StatFs {
        let stats = memory().stats();
        let used = self.used.load(Relaxed);
        let (blocks, free) = match self.limit() {
            Some(limit) => (limit, limit.saturating_sub(used)),
            None => (stats.total + stats.swap_total, stats.free + stats.swap_free),
        };
        StatFs {
            magic: abi::TMPFS_MAGIC as u64,
            block_size: PAGE_SIZE as u64,
            blocks,
            blocks_free: free,
            blocks_available: free,
            files: self.most.load(Relaxed),
            files_free: self.most.load(Relaxed).saturating_sub(self.nodes.load(Relaxed)),
            name_max: 255,
        }
    }

    /// A file in no directory, for `memfd_create(2)`, and where it is. `seals` are what it is born with.
    pub fn unnamed(mode: u32, uid: u32, gid: u32, seals: u32) -> Result<(Arc<dyn Inode>, Arc<Mount>)> {
        static FS: Once<(Arc<TmpFs>, Arc<Mount>)> = Once::new();
        let (fs, mount) = FS.try_call_once(|| {
            let fs = TmpFs::new(None);
            let root = Node::make(&fs, &NewNode { node: NewKind::Dir, mode: 0, uid: 0, gid: 0 })?;
            Ok::<_, Errno>((fs, Mount::detached(root, "tmpfs")))
        })?;
        let node = Node::make(fs, &NewNode { node: NewKind::File, mode, uid, gid })?;
        node.attr.lock().nlink = 0;
        node.seals.store(seals, Relaxed);
        Ok((node, mount.clone()))
    }
}

impl Node {
    fn make(fs: &Arc<TmpFs>, new: &NewNode<'_>) -> Result<Arc<Node>> {
        if !mem::headroom(NODE_COST) || fs.nodes.load(Relaxed) >= fs.most.load(Relaxed) {
            return Err(Errno::ENOSPC);
        }
        let (kind, body) = match new.node {
            NewKind::File => {
                let object = memory().new_object_shared(0, AccountId::KERNEL)?;
                let (write_lock, charged) = (SleepLock::new(), AtomicU64::new(0));
                let (ahead, writers) = (Ahead::default(), Writers::default());
                (Kind::File, Body::File { object, write_lock, charged, ahead, writers })
            }
            NewKind::Dir => {
                (Kind::Dir, Body::Dir { names: Mutex::default(), parent: Mutex::new(Weak::new()) })
            }
            NewKind::Link { target } => (Kind::Link, Body::Link(target.into())),
            NewKind::Fifo => (Kind::Fifo, Body::Fifo(Pipe::new())),
            NewKind::Socket => (Kind::Socket, Body::Socket),
            NewKind::Device { block, rdev } => {
                (if block { Kind::Block } else { Kind::Char }, Body::Device(rdev))
            }
        };
        let now = Time::now();
        let mode = if kind == Kind::Link { 0o777 } else { new.mode & 0o7777 };
        fs.nodes.fetch_add(1, Relaxed);
        Ok(Arc::new_cyclic(|me| Node {
            fs: fs.clone(),
            me: me.clone(),
            ino: fs.next_ino.fetch_add(1, Relaxed),
            body,
            attr: Mutex::new(Attr {
                mode: kind as u32 | mode,
                nlink: if kind == Kind::Dir { 2 } else { 1 },
                uid: new.uid,
                gid: new.gid,
                atime: now,
                mtime: now,
                ctime: now,
            }),
            made: now,
            seals: AtomicU32::new(abi::F_SEAL_SEAL),
            linkable: AtomicBool::new(false),
            xattrs: Store::default(),
        }))
    }

    fn names(&self) -> Result<&Mutex<Names>> {
        match &self.body {
            Body::Dir { names, .. } => Ok(names),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// An entry came or went.
    fn changed(&self, subdirs: i32) {
        let now = Time::now();
        let mut attr = self.attr.lock();
        attr.nlink = attr.nlink.saturating_add_signed(subdirs);
        (attr.mtime, attr.ctime) = (now, now);
    }

    /// One name less.
    fn unlinked(&self) {
        let now = Time::now();
        let mut attr = self.attr.lock();
        attr.nlink = if matches!(self.body, Body::Dir { .. }) { 0 } else { attr.nlink.saturating_sub(1) };
        attr.ctime = now;
    }

    fn is_dir(&self) -> bool {
        matches!(self.body, Body::Dir { .. })
    }
    fn is_empty(&self) -> bool {
        self.names().is_ok_and(|names| names.lock().by_name.is_empty())
    }

    fn insert(&self, name: &[u8], node: &Arc<Node>) -> Result<()> {
        let mut names = self.names()?.lock();
        if self.attr.lock().nlink == 0 {
            return Err(Errno::ENOENT);
        }
        if names.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        names.insert(name, node.clone());
        drop(names);
        if let Body::Dir { parent, .. } = &node.body {
            *parent.lock() = self.me.clone();
        }
        self.changed(node.is_dir() as i32);
        Ok(())
    }

    fn remove(&self, name: &[u8]) -> Result<Arc<Node>> {
        let node = self.names()?.lock().remove(name).ok_or(Errno::ENOENT)?;
        self.changed(-(node.is_dir() as i32));
        Ok(node)
    }

    /// See how many pages the file has by now (stores to mappings make some too), and count them.
    fn recount(&self) {
        if let Body::File { object, charged, .. } = &self.body {
            let now = object.held();
            let before = charged.swap(now, Relaxed);
            // Wraps where it must: the sum over all files is right again at once.
            self.fs.used.fetch_add(now.wrapping_sub(before), Relaxed);
        }
    }

    /// `ENOSPC` if page `index` is a hole and the limit is reached.
    fn charge(&self, object: &Object, charged: &AtomicU64, index: u64) -> Result<()> {
        let Some(limit) = self.fs.limit() else { return Ok(()) };
        if object.next_held(index) == Some(index) || self.is_ahead(index) {
            return Ok(());
        }
        if self.fs.used.load(Relaxed) >= limit {
            self.recount();
            if self.fs.used.load(Relaxed) >= limit {
                return Err(Errno::ENOSPC);
            }
        }
        self.fs.used.fetch_add(1, Relaxed);
        charged.fetch_add(1, Relaxed);
        Ok(())
    }

    fn set_size(&self, size: u64) -> Result<()> {
        match &self.body {
            Body::File { object, .. } => {
                if size > cache::MAX_SIZE {
                    return Err(Errno::EFBIG);
                }
                let seals = self.seals.load(Relaxed);
                let old = object.size();
                let shrinks = size < old && seals & abi::F_SEAL_SHRINK != 0;
                if shrinks || size > old && seals & abi::F_SEAL_GROW != 0 {
                    return Err(Errno::EPERM);
                }
                memory().object_resize(object, size)?;
                if size < old {
                    self.recount();
                }
                self.take_ahead(old, size)
            }
            Body::Dir { .. } => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    fn of(inode: &Arc<dyn Inode>) -> Result<Arc<Node>> {
        inode.as_any().downcast_ref::<Node>().and_then(|n| n.me.upgrade()).ok_or(Errno::EXDEV)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.fs.nodes.fetch_sub(1, Relaxed);
        if let Body::File { object, charged, .. } = &self.body {
            self.drop_ahead();
            self.fs.used.fetch_sub(charged.load(Relaxed), Relaxed);
            memory().object_retire(object);
        }
    }
}
