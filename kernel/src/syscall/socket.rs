//! Sockets: making, naming and connecting them, and their options. What is sent and received is in `socket_message`.
//!
//! Programs probe with these calls: a shell asks `getpeername` of its standard input whether it was started by a network
//! server, and takes any error but ENOTSOCK for a yes.
#![forbid(unsafe_code)]

use super::at;
use super::socket_filter as filter;
use super::{Calls, user};
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::fs::caps::cap;
use crate::net::{self, Address, Protocol, Shut, Socket, Target, abi as net_abi, options};
use crate::process::pidfd;
use crate::process::run::Caller;
use alloc::{sync::Arc, vec::Vec};
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[
    (abi::__NR_socket, socket),
    (abi::__NR_socketpair, socketpair),
    (abi::__NR_bind, bind),
    (abi::__NR_listen, listen),
    (abi::__NR_accept, accept),
    (abi::__NR_accept4, accept4),
    (abi::__NR_connect, connect),
    (abi::__NR_shutdown, shutdown),
    (abi::__NR_getsockname, getsockname),
    (abi::__NR_getpeername, getpeername),
    (abi::__NR_getsockopt, getsockopt),
    (abi::__NR_setsockopt, setsockopt),
];

/// The longest address (`struct sockaddr_storage`).
pub(super) const ADDRESS_MAX: usize = 128;
/// The most of an option's value that is looked at.
const OPTION_MAX: usize = 4096;

/// A descriptor's file, which must be a socket.
pub(super) fn file(caller: &Caller, fd: u64) -> Result<Arc<File>> {
    let file = at::file(caller, fd)?;
    if file.ops_as::<Socket>().is_none() { Err(Errno::ENOTSOCK) } else { Ok(file) }
}

/// The socket of such a file.
pub(super) fn of(file: &File) -> Result<&Socket> {
    file.ops_as::<Socket>().ok_or(Errno::ENOTSOCK)
}

fn address_bytes(at: u64, len: u64) -> Result<([u8; ADDRESS_MAX], usize)> {
    let len = usize::try_from(len as i32).ok().filter(|n| *n <= ADDRESS_MAX).ok_or(Errno::EINVAL)?;
    let mut bytes = [0; ADDRESS_MAX];
    user::copy_from(&mut bytes[..len], at)?;
    Ok((bytes, len))
}

/// An address that the program gives, for a socket of this family.
pub(super) fn target(caller: &Caller, domain: u32, at: u64, len: u64) -> Result<Target> {
    let (bytes, len) = address_bytes(at, len)?;
    let address = Address::parse(&bytes[..len], domain)?;
    Ok(Target { address, walker: caller.task.fs().walker(caller.task.cred()) })
}

/// Tell the program an address, cut to the room it has; `*len` becomes what it would take.
pub(super) fn put_address(address: &Address, at: u64, len_at: u64) -> Result<()> {
    let bytes = address.bytes();
    let room = user::read_u32(len_at)? as i32;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    user::copy_to(at, &bytes[..bytes.len().min(room)])?;
    user::write_u32(len_at, bytes.len() as u32)?;
    Ok(())
}

/// The flags beside a type: non-blocking, close-on-exec.
fn flags(kind: u64) -> Result<(bool, bool)> {
    let flags = kind as u32 & !net_abi::SOCK_TYPE_MASK;
    if flags & !(net_abi::SOCK_NONBLOCK | net_abi::SOCK_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    Ok((flags & net_abi::SOCK_NONBLOCK != 0, flags & net_abi::SOCK_CLOEXEC != 0))
}

fn owner(caller: &Caller) -> (u32, u32) {
    let cred = caller.task.cred();
    (cred.fsuid, cred.fsgid)
}

fn socket(caller: &mut Caller) -> Result<u64> {
    let [domain, kind, protocol, ..] = caller.args();
    let (nonblock, close_on_exec) = flags(kind)?;
    let root = caller.task.cred().may(cap::NET_RAW);
    let new = net::create(domain as u32, kind as u32 & net_abi::SOCK_TYPE_MASK, protocol as u32, root)?;
    at::install(caller, net::file::open(new, owner(caller), nonblock)?, close_on_exec)
}

fn socketpair(caller: &mut Caller) -> Result<u64> {
    let [domain, kind, protocol, to, ..] = caller.args();
    let (nonblock, close_on_exec) = flags(kind)?;
    // Where the numbers go is looked at first.
    user::write_u64(to, u64::MAX)?;
    let pair = net::pair(domain as u32, kind as u32 & net_abi::SOCK_TYPE_MASK, protocol as u32)?;
    let one = net::file::open(pair.0, owner(caller), nonblock)?;
    let two = net::file::open(pair.1, owner(caller), nonblock)?;
    let files = caller.task.files();
    let one = at::install(caller, one, close_on_exec)?;
    let result = at::install(caller, two, close_on_exec).and_then(|two| {
        user::write_u64(to, one | two << 32).map_err(|e| {
            let _ = files.close(two as u32);
            e.into()
        })
    });
    if result.is_err() {
        let _ = files.close(one as u32);
    }
    result.map(|()| 0)
}

fn bind(caller: &mut Caller) -> Result<u64> {
    let [fd, at, len, ..] = caller.args();
    let file = file(caller, fd)?;
    let protocol = &of(&file)?.0;
    protocol.bind(&target(caller, protocol.common().domain, at, len)?)?;
    Ok(0)
}

fn listen(caller: &mut Caller) -> Result<u64> {
    let [fd, backlog, ..] = caller.args();
    let file = file(caller, fd)?;
    // A negative backlog is a very long one.
    of(&file)?.0.listen(backlog as u32 as usize)?;
    Ok(0)
}

fn accept(caller: &mut Caller) -> Result<u64> {
    let [fd, at, len, ..] = caller.args();
    accept_from(caller, fd, at, len, 0)
}

fn accept4(caller: &mut Caller) -> Result<u64> {
    let [fd, at, len, flags, ..] = caller.args();
    accept_from(caller, fd, at, len, flags)
}

fn accept_from(caller: &Caller, fd: u64, at: u64, len: u64, how: u64) -> Result<u64> {
    at::file(caller, fd)?;
    if how as u32 & net_abi::SOCK_TYPE_MASK != 0 {
        return Err(Errno::EINVAL);
    }
    let (nonblock, close_on_exec) = flags(how)?;
    let file = file(caller, fd)?;
    let socket = of(&file)?;
    let wait = socket.0.common().receive_wait(file.how().nonblock);
    let new = socket.0.accept(wait)?;
    let opened = net::file::open(new.clone(), owner(caller), nonblock)?;
    if at != 0 {
        let peer = new.peer_name().map_err(|_| Errno::ECONNABORTED)?;
        put_address(&peer, at, len)?;
    }
    at::install(caller, opened, close_on_exec)
}

fn connect(caller: &mut Caller) -> Result<u64> {
    let [fd, at, len, ..] = caller.args();
    let file = at::file(caller, fd)?;
    address_bytes(at, len)?;
    let protocol = &of(&file)?.0;
    let to = target(caller, protocol.common().domain, at, len)?;
    protocol.connect(&to, protocol.common().send_wait(file.how().nonblock))?;
    Ok(0)
}

fn shutdown(caller: &mut Caller) -> Result<u64> {
    let [fd, how, ..] = caller.args();
    let file = file(caller, fd)?;
    let how = match how as u32 {
        0 => Shut { read: true, write: false },
        1 => Shut { read: false, write: true },
        2 => Shut { read: true, write: true },
        _ => return Err(Errno::EINVAL),
    };
    of(&file)?.0.shutdown(how)?;
    Ok(0)
}

fn getsockname(caller: &mut Caller) -> Result<u64> {
    let [fd, at, len, ..] = caller.args();
    let file = file(caller, fd)?;
    put_address(&of(&file)?.0.name()?, at, len)?;
    Ok(0)
}

fn getpeername(caller: &mut Caller) -> Result<u64> {
    let [fd, at, len, ..] = caller.args();
    let file = file(caller, fd)?;
    put_address(&of(&file)?.0.peer_name()?, at, len)?;
    Ok(0)
}

fn getsockopt(caller: &mut Caller) -> Result<u64> {
    let [fd, level, name, at, len_at, ..] = caller.args();
    let file = file(caller, fd)?;
    let room = usize::try_from(user::read_u32(len_at)? as i32).map_err(|_| Errno::EINVAL)?;
    if (level as u32, name as u32) == (net_abi::SOL_SOCKET, net_abi::SO_GET_FILTER) {
        return filter::get(&file, at, room, len_at);
    }
    let protocol = &*of(&file)?.0;
    match (level as u32, name as u32) {
        (net_abi::SOL_SOCKET, net_abi::SO_PEERPIDFD) => {
            return peer_pidfd(caller, protocol, at, room, len_at);
        }
        (net_abi::SOL_SOCKET, net_abi::SO_PEERGROUPS) => return peer_groups(protocol, at, room, len_at),
        _ => {}
    }
    let value = options::get(protocol, level as u32, name as u32)?;
    options::check_room(level as u32, name as u32, room, value.len())?;
    let len = value.len().min(room);
    user::copy_to(at, &value[..len])?;
    user::write_u32(len_at, len as u32)?;
    Ok(0)
}

/// A descriptor of the process at the other side.
#[cold]
fn peer_pidfd(caller: &Caller, protocol: &dyn Protocol, at: u64, room: usize, len_at: u64) -> Result<u64> {
    let peer = protocol.peer_cred().ok_or(Errno::ENODATA)?;
    let process = pidfd::sender(&peer).ok_or(Errno::ESRCH)?;
    let fd = at::install(caller, pidfd::open(&process, false)?, true)?;
    let len = room.min(4);
    let told = user::copy_to(at, &(fd as u32).to_ne_bytes()[..len])
        .and_then(|()| user::write_u32(len_at, len as u32));
    if let Err(error) = told {
        let _ = caller.task.files().close(fd as u32);
        return Err(error.into());
    }
    Ok(0)
}

/// Supplementary groups of the process at the other side. Where there is too little room, `*len` says how much it takes.
#[cold]
fn peer_groups(protocol: &dyn Protocol, at: u64, room: usize, len_at: u64) -> Result<u64> {
    let groups = protocol.peer_groups().ok_or(Errno::ENODATA)?;
    let bytes: Vec<u8> = groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
    user::write_u32(len_at, bytes.len() as u32)?;
    if room < bytes.len() {
        return Err(Errno::ERANGE);
    }
    user::copy_to(at, &bytes)?;
    Ok(0)
}

fn setsockopt(caller: &mut Caller) -> Result<u64> {
    let [fd, level, name, at, len, ..] = caller.args();
    let file = file(caller, fd)?;
    let len = usize::try_from(len as i32).map_err(|_| Errno::EINVAL)?.min(OPTION_MAX);
    let mut value = crate::mem::zeroed(len)?;
    user::copy_from(&mut value, at)?;
    if (level as u32, name as u32) == (net_abi::SOL_SOCKET, net_abi::SO_ATTACH_FILTER) {
        return filter::attach(&file, &value);
    }
    let root = caller.task.cred().may(cap::NET_ADMIN);
    options::set(&*of(&file)?.0, level as u32, name as u32, &value, root)?;
    Ok(0)
}
