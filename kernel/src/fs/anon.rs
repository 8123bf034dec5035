//! Files without a place: what `timerfd_create`, `eventfd`, `epoll_create` make. All share one inode, as on Linux; the
//! name in `/proc/PID/fd` says what they are.

use super::{
    file::{File, FileOps},
    inode::{Inode, InodeId, Kind, OpenMode, SetAttr, Stat, StatFs, Time},
    mount::Mount,
    path::Location,
};
use crate::errno::{Errno, Result};
use alloc::{format, sync::Arc};
use core::any::Any;
use hafez_mm::lock::{LazyLock, Mutex};
use linux_raw_sys::general as abi;

struct AnonInode;

/// Its device number: anonymous ones have major 0.
const ID: InodeId = InodeId { dev: 14, ino: 1 };

static MOUNT: LazyLock<Arc<Mount>> = LazyLock::new(|| Mount::detached(Arc::new(AnonInode), "anon_inodefs"));

impl Inode for AnonInode {
    fn id(&self) -> InodeId {
        ID
    }
    fn kind(&self) -> Kind {
        Kind::File
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn stat(&self) -> Result<Stat> {
        // No kind at all in the mode: so Linux has it, and so programs tell these from files.
        Ok(stat(ID, 0o600, (0, 0), Time::default()))
    }
    /// It is everybody's.
    fn setattr(&self, _: &SetAttr) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    fn statfs(&self) -> Result<StatFs> {
        Ok(statfs(abi::ANON_INODE_FS_MAGIC))
    }
    fn open(self: Arc<Self>, _: OpenMode) -> Result<Arc<dyn FileOps>> {
        Err(Errno::ENXIO)
    }
}

/// What can be changed of an inode that is in no file system, but is one file's own.
pub struct Attributes(Mutex<Stat>);

impl Attributes {
    /// As made now. `mode`: kind and permissions.
    pub fn new(id: InodeId, mode: u32, owner: (u32, u32), made: Time) -> Attributes {
        Attributes(Mutex::new(stat(id, mode, owner, made)))
    }

    pub fn stat(&self) -> Stat {
        *self.0.lock()
    }

    /// All but the size, which is EINVAL.
    pub fn set(&self, set: &SetAttr) -> Result<()> {
        if set.size.is_some() {
            return Err(Errno::EINVAL);
        }
        let mut stat = self.0.lock();
        if let Some(mode) = set.mode {
            stat.mode = stat.mode & abi::S_IFMT | mode & 0o7777;
        }
        stat.uid = set.uid.unwrap_or(stat.uid);
        stat.gid = set.gid.unwrap_or(stat.gid);
        stat.atime = set.atime.unwrap_or(stat.atime);
        stat.mtime = set.mtime.unwrap_or(stat.mtime);
        stat.ctime = Time::now();
        Ok(())
    }
}

/// Attributes of an inode that is in no file system. `mode`: kind and permissions.
pub fn stat(id: InodeId, mode: u32, owner: (u32, u32), made: Time) -> Stat {
    Stat {
        dev: id.dev,
        ino: id.ino,
        mode,
        nlink: 1,
        uid: owner.0,
        gid: owner.1,
        blksize: 4096,
        atime: made,
        mtime: made,
        ctime: made,
        ..Stat::default()
    }
}

/// What `fstatfs` tells of one.
pub fn statfs(magic: u32) -> StatFs {
    StatFs { magic: magic as u64, block_size: 4096, name_max: 255, ..StatFs::default() }
}

/// An open file that does `ops`, shown as `anon_inode:[what]`. `flags`: status flags and access mode.
pub fn open(ops: Arc<dyn FileOps>, what: &str, flags: u32) -> Result<Arc<File>> {
    let place =
        Location::detached(&MOUNT, MOUNT.root().inode().clone(), format!("anon_inode:[{what}]").as_bytes());
    File::new(ops, place, flags)
}
