//! What a socket is as a file: an inode without a place, `socket:[N]` in `/proc/PID/fd`.

use super::{Protocol, Socket, options::MODE};
use crate::{
    errno::{Errno, Result},
    fs::{
        File, Inode, Kind, Location, Stat, Time, anon,
        file::FileOps,
        inode::{InodeId, OpenMode, SetAttr, StatFs},
        mount::Mount,
    },
};
use alloc::{
    format,
    sync::{Arc, Weak},
};
use core::any::Any;
use hafez_mm::lock::LazyLock;
use linux_raw_sys::general as abi;

struct SocketInode {
    id: InodeId,
    attributes: anon::Attributes,
    /// None for the root.
    socket: Option<Weak<dyn Protocol>>,
}

impl SocketInode {
    fn new(number: u64, owner: (u32, u32), made: Time, socket: Option<Weak<dyn Protocol>>) -> SocketInode {
        let id = InodeId { dev: SOCKET_DEV, ino: number };
        let mode = Kind::Socket as u32 | MODE;
        SocketInode { id, attributes: anon::Attributes::new(id, mode, owner, made), socket }
    }
}

/// The `st_dev` of sockets: anonymous device numbers have major 0.
const SOCKET_DEV: u64 = 8;

static MOUNT: LazyLock<Arc<Mount>> =
    LazyLock::new(|| Mount::detached(Arc::new(SocketInode::new(0, (0, 0), Time::default(), None)), "sockfs"));

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
        Ok(self.attributes.stat())
    }
    fn setattr(&self, set: &SetAttr) -> Result<()> {
        self.attributes.set(set)?;
        if let Some(socket) = self.socket.as_ref().and_then(Weak::upgrade) {
            let stat = self.attributes.stat();
            socket.common().set_mode(stat.mode & 0o7777);
            socket.common().set_owner(stat.uid);
        }
        Ok(())
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
    let number = protocol.common().number;
    let inode = SocketInode::new(number, owner, Time::now(), Some(Arc::downgrade(&protocol)));
    let name = format!("socket:[{number}]");
    let place = Location::detached(&MOUNT, Arc::new(inode), name.as_bytes());
    let flags = abi::O_RDWR | if nonblock { abi::O_NONBLOCK } else { 0 };
    let socket = Arc::new(Socket(protocol));
    File::new(socket.clone(), place, flags).inspect_err(|_| socket.closed())
}
