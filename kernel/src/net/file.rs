//! What a socket is as a file: an inode without a place, `socket:[N]` in `/proc/PID/fd`.

use super::{Protocol, Socket};
use crate::{
    errno::{Errno, Result},
    fs::{
        File, Inode, Kind, Location, Stat, Time, anon,
        file::FileOps,
        inode::{InodeId, OpenMode, StatFs},
        mount::Mount,
    },
};
use alloc::{format, sync::Arc};
use core::any::Any;
use hafez_mm::lock::LazyLock;
use linux_raw_sys::general as abi;

struct SocketInode {
    id: InodeId,
    made: Time,
    owner: (u32, u32),
}

/// The `st_dev` of sockets: anonymous device numbers have major 0.
const SOCKET_DEV: u64 = 8;

static MOUNT: LazyLock<Arc<Mount>> = LazyLock::new(|| {
    let root = SocketInode { id: InodeId { dev: SOCKET_DEV, ino: 0 }, made: Time::default(), owner: (0, 0) };
    Mount::detached(Arc::new(root), "sockfs")
});

impl Inode for SocketInode {
    fn id(&self) -> InodeId {
        self.id
    }
    fn kind(&self) -> Kind {
        Kind::Socket
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn stat(&self) -> Result<Stat> {
        Ok(anon::stat(self.id, Kind::Socket as u32 | 0o777, self.owner, self.made))
    }
    fn statfs(&self) -> Result<StatFs> {
        Ok(anon::statfs(abi::SOCKFS_MAGIC))
    }
    fn open(self: Arc<Self>, _: OpenMode) -> Result<Arc<dyn FileOps>> {
        Err(Errno::ENXIO)
    }
}

/// An open file for a socket. `owner`: the user and group that it belongs to.
pub fn open(protocol: Arc<dyn Protocol>, owner: (u32, u32), nonblock: bool) -> Result<Arc<File>> {
    protocol.common().set_owner(owner.0);
    let id = InodeId { dev: SOCKET_DEV, ino: protocol.common().number };
    let name = format!("socket:[{}]", id.ino);
    let inode = Arc::new(SocketInode { id, made: Time::now(), owner });
    let place = Location::detached(&MOUNT, inode, name.as_bytes());
    let flags = abi::O_RDWR | if nonblock { abi::O_NONBLOCK } else { 0 };
    let socket = Arc::new(Socket(protocol));
    File::new(socket.clone(), place, flags).inspect_err(|_| socket.closed())
}
