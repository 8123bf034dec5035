//! Which sockets there are, as `ss` asks: `sock_diag(7)`.
//!
//! ```text
//!   question  family 0, protocol 1, extensions 2, states 4, socket 8 (48 bytes)         56 bytes  (struct inet_diag_req_v2)
//!             family 0, protocol 1, states 4, number 8, what is to be shown 12           24 bytes  (struct unix_diag_req)
//!   answer    family 0, state 1, socket 4, expires 52, unread 56, unsent 60, owner 64, number 68: 72 bytes, and attributes
//!             family 0, kind 1, state 2, number 4, cookie 8:                                       16 bytes, and attributes
//!   socket    ports 0, 2; addresses 4, 20; interface 36; cookie 40                         48 bytes  (struct inet_diag_sockid)
//! ```
//!
//! Lists only (NLM_F_DUMP), and whole: a program that is to choose among them by a small program of its own (INET_DIAG_REQ_BYTECODE) is
//! told EOPNOTSUPP, and so is who asks for one socket. Connections that rest after their end are no sockets any more, and not told.

use super::super::{
    Protocol, abi,
    inet::{self, Row},
    registry,
    unix::Unix,
};
use super::{
    HEAD,
    answers::{MULTI, Question, attribute, finished},
};
use crate::{
    errno::{Errno, Result},
    mem::TryPush,
};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

/// The only message type.
pub const BY_FAMILY: u16 = 20;
/// Bytes of the questions' structures.
const INET_QUESTION: usize = 56;
const UNIX_QUESTION: usize = 24;
/// `INET_DIAG_*`: what a question has beside it, and answers have.
const BYTECODE: u16 = 1;
const SHUTDOWN: u16 = 8;
const MEMORY: u16 = 7;
/// `UNIX_DIAG_*`, and the bits that ask for them (`UDIAG_SHOW_*`).
const UNIX_NAME: u16 = 0;
const UNIX_PEER: u16 = 2;
const UNIX_QUEUE: u16 = 4;
const UNIX_MEMORY: u16 = 5;
const UNIX_SHUTDOWN: u16 = 6;
const UNIX_OWNER: u16 = 7;
const SHOW_NAME: u32 = 1;
const SHOW_PEER: u32 = 4;
const SHOW_QUEUE: u32 = 0x10;
const SHOW_MEMORY: u32 = 0x20;
const SHOW_OWNER: u32 = 0x40;
/// States that have names here: established, closed (or not connected), listening.
const ESTABLISHED: u8 = 1;
const CLOSED: u8 = 7;
const LISTENING: u8 = 10;

/// All sockets that are asked for, a message each.
pub fn list(asked: &Question<'_>) -> Result<Vec<Vec<u8>>> {
    let body = &asked.bytes[HEAD..];
    match asked.family() {
        abi::AF_INET | abi::AF_INET6 if body.len() < INET_QUESTION => Err(Errno::EINVAL),
        abi::AF_INET | abi::AF_INET6 if asked.attribute(INET_QUESTION, BYTECODE).is_some() => {
            Err(Errno::EOPNOTSUPP)
        }
        abi::AF_INET | abi::AF_INET6 => each(|socket| inet_socket(asked, body, socket)),
        abi::AF_UNIX if body.len() < UNIX_QUESTION => Err(Errno::EINVAL),
        abi::AF_UNIX => each(|socket| unix_socket(asked, body, socket)),
        family if family >= abi::AF_MAX => Err(Errno::EINVAL),
        _ => Err(Errno::ENOENT),
    }
}

fn each(tell: impl Fn(&dyn Protocol) -> Option<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for message in registry::each().filter_map(|socket| tell(&*socket)) {
        all.try_push(message)?;
    }
    Ok(all)
}

fn word(body: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]])
}

fn cookie(socket: &dyn Protocol) -> [u8; 8] {
    socket.common().number.to_ne_bytes()
}

/// Which ways are shut: 1 in, 2 out.
fn shut(socket: &dyn Protocol) -> u8 {
    let shut = socket.ways_shut();
    shut.read as u8 | (shut.write as u8) << 1
}

/// An address in 16 bytes, as sockets of the family have it.
fn place(at: SocketAddr, six: bool) -> [u8; 16] {
    let mut out = [0; 16];
    match at.ip() {
        IpAddr::V6(v6) => out = v6.octets(),
        IpAddr::V4(v4) if !six => out[..4].copy_from_slice(&v4.octets()),
        IpAddr::V4(v4) if v4.is_unspecified() => {}
        IpAddr::V4(v4) => out = v4.to_ipv6_mapped().octets(),
    }
    out
}

fn inet_socket(asked: &Question<'_>, body: &[u8], socket: &dyn Protocol) -> Option<Vec<u8>> {
    let (common, protocol) = (socket.common(), body[1] as u32);
    let raw = protocol == abi::IPPROTO_RAW && common.kind == abi::SOCK_RAW;
    let wanted = common.protocol == protocol && common.kind != abi::SOCK_RAW || raw;
    if common.domain != asked.family() || !wanted {
        return None;
    }
    let row: Row = inet::row(socket)?;
    if word(body, 4) & 1 << row.state == 0 {
        return None;
    }
    let six = common.domain == abi::AF_INET6;
    // Of who listens: how many wait, and how many may.
    let unsent = if row.state == LISTENING { row.most } else { row.unsent };
    let mut out = asked.head(BY_FAMILY, MULTI);
    out.extend_from_slice(&[common.domain as u8, row.state, 0, 0]);
    out.extend_from_slice(&row.local.port().to_be_bytes());
    out.extend_from_slice(&row.peer.port().to_be_bytes());
    out.extend_from_slice(&place(row.local, six));
    out.extend_from_slice(&place(row.peer, six));
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&cookie(socket));
    for number in [0, row.unread as u32, unsent as u32, common.owner(), common.number as u32] {
        out.extend_from_slice(&number.to_ne_bytes());
    }
    attribute(&mut out, SHUTDOWN, &[shut(socket)]);
    if body[2] & 1 << (MEMORY - 1) != 0 {
        attribute(&mut out, MEMORY, &super::options::meminfo(socket));
    }
    Some(finished(out))
}

fn unix_socket(asked: &Question<'_>, body: &[u8], socket: &dyn Protocol) -> Option<Vec<u8>> {
    let unix = socket.as_any().downcast_ref::<Unix>()?;
    let common = socket.common();
    let state = match () {
        () if socket.is_listening() => LISTENING,
        () if unix.has_peer() => ESTABLISHED,
        () => CLOSED,
    };
    let (states, number, show) = (word(body, 4), word(body, 8), word(body, 12));
    if states & 1 << state == 0 || number != 0 && number != common.number as u32 {
        return None;
    }
    let mut out = asked.head(BY_FAMILY, MULTI);
    out.extend_from_slice(&[abi::AF_UNIX as u8, common.kind as u8, state, 0]);
    out.extend_from_slice(&(common.number as u32).to_ne_bytes());
    out.extend_from_slice(&cookie(socket));
    if show & SHOW_NAME != 0
        && let Ok(name) = socket.name().map(|name| name.bytes())
        && name.len() > 2
    {
        attribute(&mut out, UNIX_NAME, &name[2..]);
    }
    if show & SHOW_PEER != 0
        && let Some(peer) = unix.peer_number()
    {
        attribute(&mut out, UNIX_PEER, &(peer as u32).to_ne_bytes());
    }
    if show & SHOW_QUEUE != 0 {
        let (waiting, most) = unix.queue();
        attribute(&mut out, UNIX_QUEUE, &[waiting.to_ne_bytes(), most.to_ne_bytes()].concat());
    }
    if show & SHOW_MEMORY != 0 {
        attribute(&mut out, UNIX_MEMORY, &super::options::meminfo(socket));
    }
    attribute(&mut out, UNIX_SHUTDOWN, &[shut(socket)]);
    if show & SHOW_OWNER != 0 {
        attribute(&mut out, UNIX_OWNER, &common.owner().to_ne_bytes());
    }
    Some(finished(out))
}
