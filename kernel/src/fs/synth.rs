//! File systems whose files are made when one looks: `/proc`, `/sys`, `/dev`.
//!
//! ```text
//!   Entry = mode, owner, and one of
//!     Dir     names → entries; a fixed table (`Dir`), or anything that implements `SynthDir` (processes come and go)
//!     File    its text, made when it is read; perhaps a function that takes what is written
//!     Link    its text, made when it is read
//!     Magic   a link that leads straight to a place, whatever its text says (`/proc/PID/exe`)
//!     Device  what `open` opens
//! ```
//!
//! An entry becomes an inode when it is looked up. Inode numbers come from names (a hash of the path), so they
//! stay the same from one look to the next, though the inodes do not live long.

use super::{
    dev,
    file::{FileOps, How},
    inode::{DirEntry, Inode, InodeId, Kind, OpenMode, SetAttr, Stat, StatFs, Time},
    iobuf::{Sink, Source},
    path::Location,
};
use crate::errno::{Errno, Result};
use alloc::{string::String, sync::Arc, vec::Vec};
use core::any::Any;
use hafez_mm::lock::{LazyLock, Mutex, RwLock};
use linux_raw_sys::general as abi;

type Make<T> = Arc<dyn Fn() -> Result<T> + Send + Sync>;
type Open = Arc<dyn Fn(OpenMode) -> Result<Arc<dyn FileOps>> + Send + Sync>;
type Take = Arc<dyn Fn(&[u8]) -> Result<()> + Send + Sync>;

/// The most that one `write` can hand to a synthetic file.
const MAX_WRITE: usize = 4096;

/// A directory whose entries are found by asking.
pub trait SynthDir: Send + Sync {
    fn lookup(&self, name: &[u8]) -> Option<Entry>;
    /// Tell each name and kind; the `n`th is at cursor `n`. Only `.` and `..` are not among them. Where entries come and go,
    /// those whose names are numbers come last, and in order.
    fn list(&self, tell: &mut dyn FnMut(&[u8], Kind));
    /// Whether entries come and go by themselves.
    fn is_dynamic(&self) -> bool {
        true
    }
    /// For those who look for a directory of one kind.
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }
}

/// The directory of kind `T` that an inode is.
pub fn directory<T: 'static>(inode: &dyn Inode) -> Option<&T> {
    match &inode.as_any().downcast_ref::<SynthInode>()?.entry.node {
        Node::Dir(dir) => dir.as_any()?.downcast_ref(),
        _ => None,
    }
}

/// What a name in a synthetic directory is.
#[derive(Clone)]
pub struct Entry {
    node: Node,
    mode: u32,
    uid: u32,
    gid: u32,
    /// Of what can be given another mode and owner: which it has now.
    own: Option<Arc<Mutex<Owned>>>,
}

/// A mode, a user, a group.
type Owned = (u32, u32, u32);

#[derive(Clone)]
enum Node {
    Dir(Arc<dyn SynthDir>),
    File { text: Make<Vec<u8>>, take: Option<Take> },
    Link(Make<Vec<u8>>),
    Magic { text: Make<Vec<u8>>, to: Make<Location> },
    Device { kind: Kind, rdev: u64, open: Open },
}

impl Entry {
    fn new(node: Node, mode: u32) -> Entry {
        Entry { node, mode, uid: 0, gid: 0, own: None }
    }
    pub fn dir(dir: Arc<dyn SynthDir>) -> Entry {
        Entry::new(Node::Dir(dir), 0o555)
    }
    /// A file that anybody may read.
    pub fn file(text: impl Fn() -> Result<Vec<u8>> + Send + Sync + 'static) -> Entry {
        Entry::new(Node::File { text: Arc::new(text), take: None }, 0o444)
    }
    /// A file that its owner may also write: each `write` is one call of `take`.
    pub fn writable(
        text: impl Fn() -> Result<Vec<u8>> + Send + Sync + 'static,
        take: impl Fn(&[u8]) -> Result<()> + Send + Sync + 'static,
    ) -> Entry {
        Entry::new(Node::File { text: Arc::new(text), take: Some(Arc::new(take)) }, 0o644)
    }
    /// A file that always says the same.
    pub fn text(text: &'static str) -> Entry {
        Entry::file(move || Ok(text.as_bytes().to_vec()))
    }
    pub fn link(text: impl Fn() -> Result<Vec<u8>> + Send + Sync + 'static) -> Entry {
        Entry::new(Node::Link(Arc::new(text)), 0o777)
    }
    /// A link that leads to a place; its text is the place's path.
    pub fn magic(to: impl Fn() -> Result<Location> + Send + Sync + 'static) -> Entry {
        let to: Make<Location> = Arc::new(to);
        let text = {
            let to = to.clone();
            Arc::new(move || Ok(to()?.display()))
        };
        Entry::new(Node::Magic { text, to }, 0o777)
    }
    pub fn device(
        kind: Kind,
        mode: u32,
        rdev: u64,
        open: impl Fn(OpenMode) -> Result<Arc<dyn FileOps>> + Send + Sync + 'static,
    ) -> Entry {
        let own = Some(Arc::new(Mutex::new((mode, 0, 0))));
        Entry { own, ..Entry::new(Node::Device { kind, rdev, open: Arc::new(open) }, mode) }
    }
    pub fn mode(mut self, mode: u32) -> Entry {
        self.mode = mode;
        self
    }
    pub fn owner(mut self, uid: u32, gid: u32) -> Entry {
        (self.uid, self.gid) = (uid, gid);
        self
    }
    fn owned(&self) -> Owned {
        self.own.as_ref().map_or((self.mode, self.uid, self.gid), |own| *own.lock())
    }
    pub fn kind(&self) -> Kind {
        match &self.node {
            Node::Dir(_) => Kind::Dir,
            Node::File { .. } => Kind::File,
            Node::Link(_) | Node::Magic { .. } => Kind::Link,
            Node::Device { kind, .. } => *kind,
        }
    }
    /// As the root of a file system whose `statfs` magic is `magic`.
    pub fn into_root(self, magic: u32) -> Arc<dyn Inode> {
        let dev = dev::next_anonymous();
        Arc::new(SynthInode { entry: self, id: InodeId { dev, ino: 1 }, parent: 1, magic })
    }
}

/// A directory of a table of names, which may grow.
pub struct Dir {
    names: RwLock<Vec<Named>>,
    mode: u32,
}

struct Named {
    name: String,
    entry: Entry,
    /// The table itself, where the entry is one.
    table: Option<Arc<Dir>>,
}

impl Dir {
    pub fn new(mode: u32) -> Arc<Dir> {
        Arc::new(Dir { names: RwLock::default(), mode })
    }
    /// Put `entry` there, in place of what had the name.
    pub fn add(&self, name: &str, entry: Entry) {
        self.put(Named { name: name.into(), entry, table: None });
    }
    fn put(&self, new: Named) {
        let mut names = self.names.write();
        match names.iter_mut().find(|n| n.name == new.name) {
            Some(old) => *old = new,
            None => names.push(new),
        }
    }
    fn table(&self, name: &str) -> Option<Arc<Dir>> {
        self.names.read().iter().find(|n| n.name == name)?.table.clone()
    }
    /// The directory at `path` below, made where it is missing.
    pub fn below(self: &Arc<Self>, path: &str) -> Arc<Dir> {
        let mut at = self.clone();
        for name in path.split('/').filter(|n| !n.is_empty()) {
            at = at.table(name).unwrap_or_else(|| {
                let new = Dir::new(0o555);
                let entry = Entry::dir(new.clone());
                at.put(Named { name: name.into(), entry, table: Some(new.clone()) });
                new
            });
        }
        at
    }
    /// As the root of a file system.
    pub fn inode(self: Arc<Self>) -> Arc<dyn Inode> {
        let mode = self.mode;
        Entry::dir(self).mode(mode).into_root(abi::TMPFS_MAGIC)
    }
}

impl SynthDir for Dir {
    fn lookup(&self, name: &[u8]) -> Option<Entry> {
        self.names.read().iter().find(|n| n.name.as_bytes() == name).map(|n| n.entry.clone())
    }
    fn list(&self, tell: &mut dyn FnMut(&[u8], Kind)) {
        for n in self.names.read().iter() {
            tell(n.name.as_bytes(), n.entry.kind());
        }
    }
    fn is_dynamic(&self) -> bool {
        false
    }
}

struct SynthInode {
    entry: Entry,
    id: InodeId,
    parent: u64,
    magic: u32,
}

/// Cursors in a directory from here on are behind the thing of that number.
const NUMBERED: u64 = 1 << 32;

/// The number that is a name.
fn thing(name: &[u8]) -> Option<u64> {
    core::str::from_utf8(name).ok()?.parse::<u32>().ok().map(u64::from)
}

/// FNV-1a over the parent's number and the name; never 0 or 1.
fn number(parent: u64, name: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64 ^ parent;
    for byte in name {
        hash = (hash ^ *byte as u64).wrapping_mul(0x0100_0000_01b3);
    }
    (hash >> 16) + 2
}

/// Synthetic files are as old as the machine.
static BORN: LazyLock<Time> = LazyLock::new(Time::now);

impl Inode for SynthInode {
    fn id(&self) -> InodeId {
        self.id
    }
    fn kind(&self) -> Kind {
        self.entry.kind()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn stat(&self) -> Result<Stat> {
        let rdev = if let Node::Device { rdev, .. } = self.entry.node { rdev } else { 0 };
        let (mode, uid, gid) = self.entry.owned();
        Ok(Stat {
            dev: self.id.dev,
            ino: self.id.ino,
            mode: self.kind() as u32 | mode,
            nlink: if self.kind() == Kind::Dir { 2 } else { 1 },
            uid,
            gid,
            rdev,
            blksize: 4096,
            atime: *BORN,
            mtime: *BORN,
            ctime: *BORN,
            ..Stat::default()
        })
    }
    fn setattr(&self, set: &SetAttr) -> Result<()> {
        if let Some(own) = &self.entry.own {
            let mut own = own.lock();
            let (mode, uid, gid) = *own;
            *own =
                (set.mode.map_or(mode, |mode| mode & 0o7777), set.uid.unwrap_or(uid), set.gid.unwrap_or(gid));
            return Ok(());
        }
        // O_TRUNC of a file that can be written, and times of a device, change nothing.
        let harmless = set.mode.is_none() && set.uid.is_none() && set.gid.is_none();
        if harmless && self.kind() != Kind::Dir { Ok(()) } else { Err(Errno::EPERM) }
    }
    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { magic: self.magic as u64, block_size: 4096, name_max: 255, ..StatFs::default() })
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let Node::Dir(dir) = &self.entry.node else { return Err(Errno::ENOTDIR) };
        let entry = dir.lookup(name).ok_or(Errno::ENOENT)?;
        let id = InodeId { dev: self.id.dev, ino: number(self.id.ino, name) };
        Ok(Arc::new(SynthInode { entry, id, parent: self.id.ino, magic: self.magic }))
    }
    fn only_known_names(&self) -> bool {
        self.magic == abi::PROC_SUPER_MAGIC
    }
    fn lookup_ttl(&self) -> u64 {
        match &self.entry.node {
            Node::Dir(dir) if !dir.is_dynamic() => u64::MAX,
            _ => 0,
        }
    }
    fn readdir(&self, from: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        let Node::Dir(dir) = &self.entry.node else { return Err(Errno::ENOTDIR) };
        for (at, name, ino) in [(0, &b"."[..], self.id.ino), (1, &b".."[..], self.parent)] {
            if from <= at && !emit(&DirEntry { name, ino, kind: Some(Kind::Dir), next: at + 1 }) {
                return Ok(());
            }
        }
        let mut count = 1;
        let mut going = true;
        dir.list(&mut |name, kind| {
            count += 1;
            // Things with numbers come and go while somebody reads: who goes on behind a number misses none that stayed.
            let at = match thing(name) {
                Some(number) if dir.is_dynamic() => NUMBERED + number,
                _ => count,
            };
            if going && at >= from {
                let ino = number(self.id.ino, name);
                going = emit(&DirEntry { name, ino, kind: Some(kind), next: at + 1 });
            }
        });
        Ok(())
    }

    fn readlink(&self) -> Result<Vec<u8>> {
        match &self.entry.node {
            Node::Link(text) | Node::Magic { text, .. } => text(),
            _ => Err(Errno::EINVAL),
        }
    }
    fn follow(&self) -> Option<Result<Location>> {
        match &self.entry.node {
            Node::Magic { to, .. } => Some(to()),
            _ => None,
        }
    }

    fn open(self: Arc<Self>, how: OpenMode) -> Result<Arc<dyn FileOps>> {
        match &self.entry.node {
            Node::File { text, take } => {
                if how.write && take.is_none() {
                    return Err(Errno::EACCES);
                }
                Ok(Arc::new(OpenText { make: text.clone(), text: Mutex::default(), take: take.clone() }))
            }
            Node::Device { open, .. } => open(how),
            Node::Dir(_) => Err(Errno::EISDIR),
            Node::Link(_) | Node::Magic { .. } => Err(Errno::ELOOP),
        }
    }
}

/// An open synthetic file. Its text is made anew by each read from the beginning, so that whoever seeks back sees news, and
/// one who reads on sees the same text to its end.
struct OpenText {
    make: Make<Vec<u8>>,
    text: Mutex<Option<Arc<Vec<u8>>>>,
    take: Option<Take>,
}

impl OpenText {
    fn text(&self, at: u64) -> Result<Arc<Vec<u8>>> {
        if let Some(text) = self.text.lock().clone().filter(|_| at > 0) {
            return Ok(text);
        }
        let new = Arc::new((self.make)()?);
        let old = self.text.lock().replace(new.clone());
        drop(old);
        Ok(new)
    }
}

impl FileOps for OpenText {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, at: u64, to: &mut Sink<'_>, _: How) -> Result<()> {
        let text = self.text(at)?;
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(text.len());
        to.put(&text[from..]);
        Ok(())
    }
    fn write(&self, _: u64, from: &mut Source<'_>, _: How) -> Result<()> {
        let take = self.take.as_ref().ok_or(Errno::EINVAL)?;
        let mut bytes = crate::mem::zeroed(from.remaining().min(MAX_WRITE))?;
        let n = from.take(&mut bytes);
        if from.faulted() {
            return Err(Errno::EFAULT);
        }
        let taken = take(&bytes[..n]);
        if taken.is_err() {
            from.take_back();
        }
        taken
    }
    fn seekable(&self) -> bool {
        true
    }
    fn size(&self) -> Result<u64> {
        Ok(0)
    }
}
