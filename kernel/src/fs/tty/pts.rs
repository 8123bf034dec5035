//! `/dev/pts`: a node for each pseudoterminal, as long as its master is open (`pts(4)`).
//!
//! A number is taken until both ends of a pair are gone; its node goes with the master. Owner and mode of a node are the
//! opener's of the master and 0620 for group `tty`, and can be changed as on any file system.

use super::{Terminal, pty::Master};
use crate::{
    errno::{Errno, Result},
    fs::{
        cred::Cred,
        dev,
        file::FileOps,
        inode::{DirEntry, Inode, InodeId, Kind, OpenMode, SetAttr, Stat, StatFs, Time},
        mount::Mount,
        path::Location,
    },
};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    sync::{Arc, Weak},
};
use core::any::Any;
use hafez_mm::lock::{LazyLock, Mutex, Once};
use linux_raw_sys::general as abi;

/// The first of the eight major numbers of pseudoterminals.
pub const MAJOR: u32 = 136;
/// The most pairs at one time, as on Linux (`kernel.pty.max`).
pub const MAX: u32 = 4096;
/// The group that may write to terminals.
const TTY_GROUP: u32 = 5;
/// Inode numbers: the root's, the multiplexer's, and what is added to a pair's number.
const ROOT: u64 = 1;
const PTMX: u64 = 2;
const FIRST: u64 = 3;

static DEVICE: LazyLock<u64> = LazyLock::new(dev::next_anonymous);
static USED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
static NODES: Mutex<BTreeMap<u32, Arc<Pts>>> = Mutex::new(BTreeMap::new());
static MOUNT: Once<Arc<Mount>> = Once::new();

/// A pair's number, taken until this goes.
pub struct Number(u32);

impl Number {
    pub fn get(&self) -> u32 {
        self.0
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        USED.lock().remove(&self.0);
    }
}

/// The lowest free number; `ENOSPC` if there is none.
pub fn new_number() -> Result<Number> {
    let mut used = USED.lock();
    let free = (0..MAX).find(|n| !used.contains(n)).ok_or(Errno::ENOSPC)?;
    used.insert(free);
    Ok(Number(free))
}

/// How many pairs there are.
pub fn count() -> usize {
    USED.lock().len()
}

/// The node of a pair.
pub struct Pts {
    number: Number,
    terminal: Arc<Terminal>,
    master: Once<Weak<Master>>,
    attributes: Mutex<Attributes>,
}

#[derive(Clone, Copy)]
struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    atime: Time,
    mtime: Time,
    ctime: Time,
}

impl Pts {
    pub fn number(&self) -> u32 {
        self.number.get()
    }
    pub fn set_master(&self, master: Weak<Master>) {
        self.master.call_once(|| master);
    }
}

/// Make the node of a new pair.
pub fn add(number: Number, terminal: Arc<Terminal>) -> Arc<Pts> {
    let uid = super::job::user();
    let now = Time::now();
    let attributes = Attributes { mode: 0o620, uid, gid: TTY_GROUP, atime: now, mtime: now, ctime: now };
    let node = Arc::new(Pts { number, terminal, master: Once::new(), attributes: Mutex::new(attributes) });
    NODES.lock().insert(node.number(), node.clone());
    node
}

/// The master is gone, and the node with it.
pub fn remove(node: &Pts) {
    let gone = NODES.lock().remove(&node.number());
    drop(gone);
}

/// The root of the file system.
pub fn mount() -> Arc<dyn Inode> {
    Arc::new(Root)
}

/// Where it is mounted.
pub fn set_mount(mount: Arc<Mount>) {
    MOUNT.call_once(|| mount);
}

/// The node's place in the tree.
pub fn place(node: &Pts) -> Option<Location> {
    MOUNT.get()?.root().child(format!("{}", node.number()).as_bytes()).ok()
}

struct Root;

impl Inode for Root {
    fn id(&self) -> InodeId {
        InodeId { dev: *DEVICE, ino: ROOT }
    }
    fn kind(&self) -> Kind {
        Kind::Dir
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn stat(&self) -> Result<Stat> {
        static BORN: LazyLock<Time> = LazyLock::new(Time::now);
        Ok(Stat {
            dev: *DEVICE,
            ino: ROOT,
            mode: Kind::Dir as u32 | 0o755,
            nlink: 2,
            blksize: 1024,
            atime: *BORN,
            mtime: *BORN,
            ctime: *BORN,
            ..Stat::default()
        })
    }
    fn statfs(&self) -> Result<StatFs> {
        statfs()
    }
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        if name == b"ptmx" {
            return Ok(Arc::new(Multiplexer));
        }
        let number: u32 =
            core::str::from_utf8(name).ok().and_then(|n| n.parse().ok()).ok_or(Errno::ENOENT)?;
        let node = NODES.lock().get(&number).cloned().ok_or(Errno::ENOENT)?;
        // "007" is no name of 7.
        if format!("{number}").as_bytes() == name { Ok(node) } else { Err(Errno::ENOENT) }
    }
    fn lookup_ttl(&self) -> u64 {
        0
    }
    fn readdir(&self, from: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        let fixed = [(&b"."[..], ROOT, Kind::Dir), (b"..", ROOT, Kind::Dir), (b"ptmx", PTMX, Kind::Char)];
        for (at, (name, ino, kind)) in (0..).zip(fixed) {
            if from <= at && !emit(&DirEntry { name, ino, kind: Some(kind), next: at + 1 }) {
                return Ok(());
            }
        }
        let numbers: alloc::vec::Vec<u32> = NODES.lock().keys().copied().collect();
        for number in numbers {
            let at = number as u64 + FIRST;
            let name: String = format!("{number}");
            let entry = DirEntry { name: name.as_bytes(), ino: at, kind: Some(Kind::Char), next: at + 1 };
            if at >= from && !emit(&entry) {
                break;
            }
        }
        Ok(())
    }
    fn open(self: Arc<Self>, _: OpenMode) -> Result<Arc<dyn FileOps>> {
        Err(Errno::EISDIR)
    }
}

fn statfs() -> Result<StatFs> {
    Ok(StatFs { magic: abi::DEVPTS_SUPER_MAGIC as u64, block_size: 4096, name_max: 255, ..StatFs::default() })
}

/// `/dev/pts/ptmx`, which Debian lets nobody open: `/dev/ptmx` is for everybody.
struct Multiplexer;

impl Inode for Multiplexer {
    fn id(&self) -> InodeId {
        InodeId { dev: *DEVICE, ino: PTMX }
    }
    fn kind(&self) -> Kind {
        Kind::Char
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn stat(&self) -> Result<Stat> {
        let mode = Kind::Char as u32;
        let rdev = dev::makedev(5, 2);
        Ok(Stat { dev: *DEVICE, ino: PTMX, mode, nlink: 1, rdev, blksize: 1024, ..Stat::default() })
    }
    fn statfs(&self) -> Result<StatFs> {
        statfs()
    }
    fn open(self: Arc<Self>, _: OpenMode) -> Result<Arc<dyn FileOps>> {
        super::pty::new()
    }
}

impl Inode for Pts {
    fn id(&self) -> InodeId {
        InodeId { dev: *DEVICE, ino: self.number() as u64 + FIRST }
    }
    fn kind(&self) -> Kind {
        Kind::Char
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn stat(&self) -> Result<Stat> {
        let a = *self.attributes.lock();
        let InodeId { dev, ino } = self.id();
        Ok(Stat {
            dev,
            ino,
            mode: Kind::Char as u32 | a.mode,
            nlink: 1,
            uid: a.uid,
            gid: a.gid,
            rdev: self.terminal.device,
            blksize: 1024,
            atime: a.atime,
            mtime: a.mtime,
            ctime: a.ctime,
            ..Stat::default()
        })
    }
    fn permission(&self, cred: &Cred, wanted: u32) -> Result<()> {
        cred.check(&self.stat()?, wanted)
    }
    fn setattr(&self, set: &SetAttr) -> Result<()> {
        let mut a = self.attributes.lock();
        a.mode = set.mode.unwrap_or(a.mode) & 0o7777;
        a.uid = set.uid.unwrap_or(a.uid);
        a.gid = set.gid.unwrap_or(a.gid);
        a.atime = set.atime.unwrap_or(a.atime);
        a.mtime = set.mtime.unwrap_or(a.mtime);
        a.ctime = Time::now();
        Ok(())
    }
    fn statfs(&self) -> Result<StatFs> {
        statfs()
    }
    fn open(self: Arc<Self>, how: OpenMode) -> Result<Arc<dyn FileOps>> {
        // EIO for a master that is gone, or that has not unlocked the pair yet.
        let master = self.master.get().and_then(Weak::upgrade).ok_or(Errno::EIO)?;
        if master.is_locked() {
            return Err(Errno::EIO);
        }
        self.terminal.open(how)
    }
}

/// Open a node that `mknod` made, by its device number.
pub fn open_number(rdev: u64, how: OpenMode) -> Result<Arc<dyn FileOps>> {
    let node = NODES.lock().values().find(|n| n.terminal.device == rdev).cloned();
    node.ok_or(Errno::ENXIO)?.open(how)
}
