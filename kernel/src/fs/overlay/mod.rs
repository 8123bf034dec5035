//! A tree that looks writable over one that is not (`hafez run --overlay`): changes live in swappable memory and vanish at the end.
//!
//! ```text
//!   Node ─┬─ below: the file of the tree underneath, if it comes from there
//!         ├─ body:  its own file in memory, once anything about it has changed (body.rs: "copying up")
//!         └─ of a directory: what has changed among its names (names.rs)
//! ```
//!
//! There is one [`Node`] for each file below however many names lead to it, found by its number there; so a file that is
//! changed under one name is changed under all. Bodies have no names of their own: they are unnamed files of a
//! [`TmpFs`], and the names are the directories' business. So nothing needs its parents to be copied, and a directory is
//! renamed by moving its node, with all that is below it.
//!
//! A node from below that differs from what is there is kept alive ([`Overlay::changed`]) as long as it has a name.
//!
//! *Who has a file open sees changes.* An open file looks each time whether there is a body by now. A mapping cannot
//! do that, so a shared one is made of the body from the start. A private one may show the file as it was, as it may anywhere.
//!
//! Locks: `tree` (sleeps) is held over every change of names, a node's `copying` (sleeps) while its body is made, `tree` first;
//! the rest are spin locks over plain data.

mod body;
mod file;
mod names;

use super::{cred::Cred, dev, file::FileOps, inode::*, lock::SleepLock, tmpfs::TmpFs};
use crate::errno::{Errno, Result};
use alloc::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};
use hafez_mm::Object;
use hafez_mm::lock::{Mutex, Once};
use linux_raw_sys::general as abi;
use names::Names;

/// One overlay.
pub struct Overlay {
    dev: u64,
    bodies: Arc<TmpFs>,
    /// Numbers of files that are not from below: far from those that are.
    next: AtomicU64,
    known: Mutex<BTreeMap<InodeId, Weak<Node>>>,
    changed: Mutex<BTreeMap<InodeId, Arc<Node>>>,
    tree: SleepLock,
}

/// A file of it.
pub struct Node {
    fs: Arc<Overlay>,
    me: Weak<Node>,
    ino: u64,
    kind: Kind,
    below: Option<Arc<dyn Inode>>,
    body: Once<Arc<dyn Inode>>,
    copying: SleepLock,
    writing: SleepLock,
    writers: Writers,
    /// Names (of a directory: subdirectories) more or fewer than it began with.
    links: AtomicI32,
    /// When its names last changed, if that is not known to the body.
    renamed: Mutex<Option<Time>>,
    /// A file without a name that may be given one.
    linkable: AtomicBool,
    /// Of a directory.
    names: Mutex<Names>,
}

/// The number of the first file that is not from below.
const OWN: u64 = 1 << 52;

/// The root of an overlay over `below`, whose changes may take `limit` bytes.
pub fn mount(below: Arc<dyn Inode>, limit: u64) -> Result<Arc<dyn Inode>> {
    let fs = Arc::new(Overlay {
        dev: dev::next_anonymous(),
        bodies: TmpFs::of_bodies(limit),
        next: AtomicU64::new(OWN),
        known: Mutex::default(),
        changed: Mutex::default(),
        tree: SleepLock::new(),
    });
    Ok(fs.node_of(below)?)
}

impl Overlay {
    /// The node of a file below.
    fn node_of(self: &Arc<Self>, below: Arc<dyn Inode>) -> Result<Arc<Node>> {
        let id = below.id();
        let kind = below.kind();
        // Looked up in a step of its own: a node that is let go here takes the lock itself.
        let find = || self.known.lock().get(&id).and_then(Weak::upgrade);
        if let Some(node) = find().filter(|n| n.kind == kind) {
            return Ok(node);
        }
        if !crate::mem::headroom(1024) {
            return Err(Errno::ENOMEM);
        }
        let new = self.new_node(id.ino, kind, Some(below));
        let winner = {
            let mut known = self.known.lock();
            match known.get(&id).and_then(Weak::upgrade) {
                Some(node) if node.kind == kind => node,
                other => {
                    known.insert(id, Arc::downgrade(&new));
                    drop(known);
                    drop(other);
                    return Ok(new);
                }
            }
        };
        Ok(winner)
    }

    /// A new file, with a body.
    fn make(self: &Arc<Self>, new: &NewNode<'_>) -> Result<Arc<Node>> {
        let body = self.bodies.body(new)?;
        let node = self.new_node(self.next.fetch_add(1, Relaxed), body.kind(), None);
        node.body.call_once(|| body);
        Ok(node)
    }

    fn new_node(self: &Arc<Self>, ino: u64, kind: Kind, below: Option<Arc<dyn Inode>>) -> Arc<Node> {
        Arc::new_cyclic(|me| Node {
            fs: self.clone(),
            me: me.clone(),
            ino,
            kind,
            names: Mutex::new(Names::new(below.is_some())),
            below,
            body: Once::new(),
            copying: SleepLock::new(),
            writing: SleepLock::new(),
            writers: Writers::default(),
            links: AtomicI32::new(0),
            renamed: Mutex::new(None),
            linkable: AtomicBool::new(false),
        })
    }
}

impl Node {
    fn of(inode: &Arc<dyn Inode>) -> Result<Arc<Node>> {
        inode.as_any().downcast_ref::<Node>().and_then(|n| n.me.upgrade()).ok_or(Errno::EXDEV)
    }

    /// What holds its attributes and contents now.
    fn now(&self) -> &Arc<dyn Inode> {
        match (self.body.get(), &self.below) {
            (Some(body), _) => body,
            (None, Some(below)) => below,
            (None, None) => unreachable!("a file that is not from below has a body from the start"),
        }
    }

    /// It differs from what is below: keep it, as long as it has a name.
    fn keep(&self) {
        if let (Some(below), Some(me)) = (&self.below, self.me.upgrade()) {
            let old = self.fs.changed.lock().insert(below.id(), me);
            drop(old);
        }
    }

    fn forget(&self) {
        if let Some(below) = &self.below {
            let old = self.fs.changed.lock().remove(&below.id());
            drop(old);
        }
    }

    fn nlink(&self) -> Result<u32> {
        let base = match &self.below {
            Some(below) => below.stat()?.nlink,
            None if self.kind == Kind::Dir => 2,
            None => 1,
        };
        Ok(base.saturating_add_signed(self.links.load(Relaxed)))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let Some(below) = &self.below else { return };
        let mut known = self.fs.known.lock();
        if known.get(&below.id()).is_some_and(|weak| weak.strong_count() == 0) {
            known.remove(&below.id());
        }
    }
}

impl Inode for Node {
    fn id(&self) -> InodeId {
        InodeId { dev: self.fs.dev, ino: self.ino }
    }
    fn kind(&self) -> Kind {
        self.kind
    }
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn stat(&self) -> Result<Stat> {
        let stat = self.now().stat()?;
        // Most files are as they are below; only of others must the names be counted.
        let same = self.body.get().is_none() && self.links.load(Relaxed) == 0;
        let nlink = if same { stat.nlink } else { self.nlink()? };
        let ctime = self.renamed.lock().map_or(stat.ctime, |t| t.max(stat.ctime));
        Ok(Stat { dev: self.fs.dev, ino: self.ino, nlink, ctime, ..stat })
    }
    fn permission(&self, cred: &Cred, wanted: u32) -> Result<()> {
        self.now().permission(cred, wanted)
    }
    fn setattr(&self, set: &SetAttr) -> Result<()> {
        // What is cut off need not be copied first.
        self.copy_up(set.size != Some(0))?.setattr(set)
    }
    fn statfs(&self) -> Result<StatFs> {
        let room = self.fs.bodies.statfs();
        Ok(StatFs { magic: abi::OVERLAYFS_SUPER_MAGIC as u64, ..room })
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        Ok(self.find(name)?)
    }
    fn lookup_ttl(&self) -> u64 {
        match &self.below {
            Some(below) => below.lookup_ttl(),
            None => u64::MAX,
        }
    }
    fn create(&self, name: &[u8], new: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        let node = self.fs.make(new)?;
        let _tree = self.fs.tree.lock();
        self.add(name, &node)?;
        Ok(node)
    }
    fn create_unnamed(&self, new: &NewNode<'_>, linkable: bool) -> Result<Arc<dyn Inode>> {
        let node = self.fs.make(new)?;
        node.links.store(-1, Relaxed);
        node.linkable.store(linkable, Relaxed);
        Ok(node)
    }
    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let node = Node::of(target)?;
        let _tree = self.fs.tree.lock();
        if node.nlink()? == 0 && !node.linkable.load(Relaxed) {
            return Err(Errno::ENOENT);
        }
        self.add(name, &node)?;
        node.linkable.store(false, Relaxed);
        node.links.fetch_add(1, Relaxed);
        node.keep();
        node.touch_names();
        Ok(())
    }
    fn unlink(&self, name: &[u8]) -> Result<()> {
        let _tree = self.fs.tree.lock();
        let node = self.find(name)?;
        if node.kind == Kind::Dir {
            return Err(Errno::EISDIR);
        }
        self.take(name, &node)?;
        node.lost_name()
    }
    fn rmdir(&self, name: &[u8]) -> Result<()> {
        let _tree = self.fs.tree.lock();
        let node = self.find(name)?;
        node.seal_empty()?;
        self.take(name, &node)
    }
    fn rename(&self, name: &[u8], to: &Arc<dyn Inode>, to_name: &[u8], how: RenameFlags) -> Result<()> {
        let to = Node::of(to)?;
        let _tree = self.fs.tree.lock();
        self.move_name(name, &to, to_name, how)
    }
    fn readdir(&self, from: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        self.list(from, emit)
    }

    fn readlink(&self) -> Result<Vec<u8>> {
        self.now().readlink()
    }

    fn open(self: Arc<Self>, how: OpenMode) -> Result<Arc<dyn FileOps>> {
        match self.kind {
            Kind::File => file::open(self, how),
            // What flows through a FIFO stays in here.
            Kind::Fifo => self.copy_up(true)?.clone().open(how),
            _ => self.now().clone().open(how),
        }
    }
    fn object(&self) -> Result<Arc<Object>> {
        self.now().object()
    }
    fn write_lock(&self) -> Option<&SleepLock> {
        (self.kind == Kind::File).then_some(&self.writing)
    }
    fn accessed(&self) {
        self.now().accessed();
    }
    fn punch(&self, from: u64, to: u64) -> Result<()> {
        self.copy_up(true)?.punch(from, to)
    }
    fn reserve(&self, from: u64, to: u64) -> Result<()> {
        self.copy_up(true)?.reserve(from, to)
    }
    fn writers(&self) -> Option<&Writers> {
        (self.kind == Kind::File).then_some(&self.writers)
    }
    fn next_data(&self, at: u64, hole: bool) -> Option<u64> {
        self.now().next_data(at, hole)
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.now().xattr(name)
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        self.copy_up(true)?.set_xattr(name, value, flags)
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        self.copy_up(true)?.remove_xattr(name)
    }
    fn xattrs(&self) -> Result<Vec<u8>> {
        self.now().xattrs()
    }
}
