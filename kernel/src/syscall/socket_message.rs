//! Sending to and receiving from sockets: `send`, `sendmsg`, `recvmsg` and their kin, and what goes beside the bytes.
//!
//! ```text
//!   struct msghdr   name 0, namelen 8, iov 16, iovlen 24, control 32, controllen 40, flags 48; 56 bytes
//!   struct mmsghdr  a msghdr, and at 56 what came of it; 64 bytes
//! ```
#![forbid(unsafe_code)]

use super::at;
use super::io::Segments;
use super::poll::timespec;
use super::socket::{ADDRESS_MAX, file, of, put_address, target};
use super::{Calls, user};
use crate::clock;
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::fs::caps::cap;
use crate::fs::iobuf::{self, Segment, Sink, Source};
use crate::net::{Incoming, Outgoing, Protocol, Ucred, abi as net_abi, beside, moment, options};
use crate::process::run::Caller;
use crate::process::signal::{self, SigInfo};
use crate::process::{Pid, pidfd, table};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[
    (abi::__NR_sendto, sendto),
    (abi::__NR_recvfrom, recvfrom),
    (abi::__NR_sendmsg, sendmsg),
    (abi::__NR_recvmsg, recvmsg),
    (abi::__NR_sendmmsg, sendmmsg),
    (abi::__NR_recvmmsg, recvmmsg),
];

/// The most that one call moves, as on Linux.
const MAX_TRANSFER: usize = 0x7fff_f000;
/// The most control bytes that are looked at (`net.core.optmem_max`).
const CONTROL_MAX: usize = 131_072;
const CMSG_HEAD: usize = beside::HEAD;
/// Bytes of `struct mmsghdr`.
const MMSG_BYTES: u64 = 64;
/// The most messages of one call (UIO_MAXIOV).
const MAX_MESSAGES: u64 = 1024;

/// `struct msghdr`, as it came from the program.
struct Header {
    name: u64,
    name_len: u32,
    segments: Segments,
    control: u64,
    control_len: usize,
}

fn header(at: u64) -> Result<Header> {
    let mut words = [0; 6];
    user::read_words(&mut words, at)?;
    let [name, name_len, iov, iov_len, control, control_len] = words;
    if iov_len > 1024 {
        return Err(Errno::EMSGSIZE);
    }
    let name_len = if name == 0 { 0 } else { name_len as i32 };
    if name_len < 0 {
        return Err(Errno::EINVAL);
    }
    // No address is longer.
    let name_len = name_len.min(ADDRESS_MAX as i32);
    let segments = Segments::read(iov, iov_len)?;
    let control_len = control_len as usize;
    Ok(Header { name, name_len: name_len as u32, segments, control, control_len })
}

/// Send; SIGPIPE where a stream has nobody at its other end.
fn send(caller: &Caller, file: &File, segments: &[Segment], out: Outgoing) -> Result<u64> {
    let socket = of(file)?;
    let quiet = out.flags & net_abi::MSG_NOSIGNAL != 0 || socket.0.common().kind != net_abi::SOCK_STREAM;
    let limit = iobuf::total(segments).min(MAX_TRANSFER);
    let mut source = Source::user(segments, limit);
    let result = socket.send(&mut source, out, file.how().nonblock);
    let result = source.outcome(result);
    if result == Err(Errno::EPIPE) && !quiet {
        let me = &caller.task;
        let _ = signal::to_task(me, SigInfo::user(abi::SIGPIPE, 0, me.process.pid, me.cred().uid));
    }
    result.map(|n| n as u64)
}

fn segment(at: u64, len: u64) -> Result<Segment> {
    let len = (len as usize).min(MAX_TRANSFER);
    if len > 0 && !crate::arch::user::in_user_half(at, len) {
        return Err(Errno::EFAULT);
    }
    Ok(Segment { at, len })
}

fn sendto(caller: &mut Caller) -> Result<u64> {
    let [fd, at, len, flags, name, name_len] = caller.args();
    let one = segment(at, len)?;
    let file = file(caller, fd)?;
    let mut out = Outgoing { flags: flags as u32, ..Outgoing::default() };
    let domain = of(&file)?.0.common().domain;
    // An address without a length is none to a Unix socket.
    if name != 0 && (domain != net_abi::AF_UNIX || name_len as u32 != 0) {
        out.to = Some(target(caller, domain, name, name_len)?);
    }
    send(caller, &file, &[one], out)
}

fn sendmsg(caller: &mut Caller) -> Result<u64> {
    let [fd, at, flags, ..] = caller.args();
    let file = file(caller, fd)?;
    send_header(caller, &file, at, flags as u32)
}

fn send_header(caller: &Caller, file: &File, at: u64, flags: u32) -> Result<u64> {
    let header = header(at)?;
    let domain = of(file)?.0.common().domain;
    let mut out = Outgoing { flags, ..Outgoing::default() };
    if header.name != 0 && header.name_len > 0 {
        out.to = Some(target(caller, domain, header.name, header.name_len as u64)?);
    }
    if header.control_len > 0 {
        read_control(caller, &header, domain, &mut out)?;
    }
    send(caller, file, header.segments.as_slice(), out)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Take the control messages apart, or leave that to the protocol.
fn read_control(caller: &Caller, header: &Header, domain: u32, out: &mut Outgoing) -> Result<()> {
    if header.control_len > CONTROL_MAX {
        return Err(Errno::ENOBUFS);
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(header.control_len).map_err(|_| Errno::ENOBUFS)?;
    bytes.resize(header.control_len, 0);
    user::copy_from(&mut bytes, header.control)?;
    if domain != net_abi::AF_UNIX {
        out.control = bytes;
        return Ok(());
    }
    for told in beside::Each(&bytes) {
        let told = told?;
        match (told.level, told.kind) {
            (net_abi::SOL_SOCKET, net_abi::SCM_RIGHTS) => read_rights(caller, told.data, &mut out.rights)?,
            (net_abi::SOL_SOCKET, net_abi::SCM_CREDENTIALS) => {
                out.cred = Some(read_credentials(caller, told.data)?);
            }
            (net_abi::SOL_SOCKET, _) => return Err(Errno::EINVAL),
            _ => {}
        }
    }
    Ok(())
}

fn read_rights(caller: &Caller, data: &[u8], rights: &mut Vec<Arc<File>>) -> Result<()> {
    if data.len() / 4 + rights.len() > net_abi::SCM_MAX_FD {
        return Err(Errno::EINVAL);
    }
    let files = caller.task.files();
    for i in 0..data.len() / 4 {
        rights.push(files.get(word(data, 4 * i))?);
    }
    Ok(())
}

/// Who the sender says it is: the truth, unless it is privileged.
fn read_credentials(caller: &Caller, data: &[u8]) -> Result<Ucred> {
    if data.len() != 12 {
        return Err(Errno::EINVAL);
    }
    let pid = word(data, 0);
    let began = table::process(pid as Pid).map_or(0, |process| moment(process.started));
    let said = Ucred { pid, uid: word(data, 4), gid: word(data, 8), began };
    let cred = caller.task.cred();
    let mine = (said.pid == caller.task.process.pid as u32 || cred.may(cap::SYS_ADMIN))
        && ([cred.uid, cred.euid, cred.suid].contains(&said.uid) || cred.may(cap::SETUID))
        && ([cred.gid, cred.egid, cred.sgid].contains(&said.gid) || cred.may(cap::SETGID));
    if mine { Ok(said) } else { Err(Errno::EPERM) }
}

fn receive(file: &File, segments: &[Segment], into: &mut Incoming) -> Result<usize> {
    let limit = iobuf::total(segments).min(MAX_TRANSFER);
    let mut sink = Sink::user(segments, limit);
    let result = of(file)?.receive(&mut sink, into, file.how().nonblock);
    let got = sink.outcome(result)?;
    Ok(match into.whole {
        Some(whole) if into.flags & net_abi::MSG_TRUNC != 0 => whole,
        _ => got,
    })
}

fn recvfrom(caller: &mut Caller) -> Result<u64> {
    let [fd, at, len, flags, name, name_len] = caller.args();
    let one = segment(at, len)?;
    let file = file(caller, fd)?;
    let mut into = Incoming { flags: flags as u32, ..Incoming::default() };
    let got = receive(&file, &[one], &mut into)?;
    if name != 0 {
        match &into.from {
            Some(from) => put_address(from, name, name_len)?,
            None => user::write_u32(name_len, 0)?,
        }
    }
    Ok(got as u64)
}

fn recvmsg(caller: &mut Caller) -> Result<u64> {
    let [fd, at, flags, ..] = caller.args();
    let file = file(caller, fd)?;
    receive_header(caller, &file, at, flags as u32)
}

fn receive_header(caller: &Caller, file: &File, at: u64, flags: u32) -> Result<u64> {
    let header = header(at)?;
    let mut into = Incoming { flags, ..Incoming::default() };
    let got = receive(file, header.segments.as_slice(), &mut into)?;
    if header.name != 0 {
        let bytes = into.from.as_ref().map_or(Vec::new(), |from| from.bytes());
        user::copy_to(header.name, &bytes[..bytes.len().min(header.name_len as usize)])?;
        user::write_u32(at.wrapping_add(8), bytes.len() as u32)?;
    }
    let protocol = &*of(file)?.0;
    let (written, cut) = write_control(caller, protocol, &header, &mut into)?;
    let told = into.told | flags & net_abi::MSG_CMSG_CLOEXEC | if cut { net_abi::MSG_CTRUNC } else { 0 };
    user::write_u64(at.wrapping_add(40), written as u64)?;
    user::write_u32(at.wrapping_add(48), told)?;
    Ok(got as u64)
}

/// Where control messages go, as long as there is room.
struct Control {
    at: u64,
    room: usize,
    written: usize,
    cut: bool,
}

impl Control {
    fn put(&mut self, level: u32, kind: u32, data: &[u8]) -> Result<()> {
        let left = self.room - self.written;
        if left < CMSG_HEAD {
            self.cut = true;
            return Ok(());
        }
        let len = CMSG_HEAD + data.len();
        let fits = len.min(left);
        self.cut |= fits < len;
        let at = self.at.wrapping_add(self.written as u64);
        user::write_u64(at, fits as u64)?;
        user::write_u32(at.wrapping_add(8), level)?;
        user::write_u32(at.wrapping_add(12), kind)?;
        user::copy_to(at.wrapping_add(CMSG_HEAD as u64), &data[..fits - CMSG_HEAD])?;
        self.written += fits.next_multiple_of(8).min(left);
        Ok(())
    }
}

/// Tell credentials and hand out descriptors; how many bytes that took, and whether not all fitted.
fn write_control(
    caller: &Caller,
    protocol: &dyn Protocol,
    header: &Header,
    into: &mut Incoming,
) -> Result<(usize, bool)> {
    let room = if header.control == 0 { 0 } else { header.control_len };
    let mut control = Control { at: header.control, room, written: 0, cut: false };
    for note in core::mem::take(&mut into.notes) {
        control.put(note.level, note.kind, &note.data)?;
    }
    if let Some(cred) = into.cred.filter(|_| protocol.common().has(net_abi::SO_PASSCRED)) {
        control.put(net_abi::SOL_SOCKET, net_abi::SCM_CREDENTIALS, &options::cred_bytes(&cred))?;
    }
    if !into.rights.is_empty() {
        let fits = (control.room - control.written).saturating_sub(CMSG_HEAD) / 4;
        let close_on_exec = into.flags & net_abi::MSG_CMSG_CLOEXEC != 0;
        let mut numbers = Vec::new();
        for file in into.rights.drain(..) {
            if numbers.len() / 4 == fits {
                control.cut = true;
                break;
            }
            match at::install(caller, file, close_on_exec) {
                Ok(fd) => numbers.extend_from_slice(&(fd as u32).to_ne_bytes()),
                Err(_) => {
                    control.cut = true;
                    break;
                }
            }
        }
        if !numbers.is_empty() {
            control.put(net_abi::SOL_SOCKET, net_abi::SCM_RIGHTS, &numbers)?;
        }
    }
    if let Some(cred) = into.cred.filter(|_| protocol.common().has(net_abi::SO_PASSPIDFD)) {
        tell_pidfd(caller, &cred, &mut control)?;
    }
    Ok((control.written, control.cut))
}

/// SCM_PIDFD: a descriptor of who sent, or the error that stands in its place.
#[cold]
fn tell_pidfd(caller: &Caller, cred: &Ucred, control: &mut Control) -> Result<()> {
    if control.room - control.written < CMSG_HEAD + 4 {
        control.cut = true;
        return Ok(());
    }
    let opened = pidfd::sender(cred).ok_or(Errno::ESRCH).and_then(|process| pidfd::open(&process, false));
    let fd = match opened.and_then(|file| at::install(caller, file, true)) {
        Ok(fd) => fd as i32,
        Err(error) => -(error.code() as i32),
    };
    control.put(net_abi::SOL_SOCKET, net_abi::SCM_PIDFD, &fd.to_ne_bytes())
}

fn sendmmsg(caller: &mut Caller) -> Result<u64> {
    let [fd, at, count, flags, ..] = caller.args();
    let file = file(caller, fd)?;
    let mut done = 0;
    while done < (count as u32 as u64).min(MAX_MESSAGES) {
        let one = at.wrapping_add(done * MMSG_BYTES);
        match send_header(caller, &file, one, flags as u32) {
            Ok(n) => user::write_u32(one.wrapping_add(56), n as u32)?,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
        done += 1;
    }
    Ok(done)
}

fn recvmmsg(caller: &mut Caller) -> Result<u64> {
    let [fd, at, count, flags, timeout, ..] = caller.args();
    let deadline = timespec(timeout)?.and_then(|ns| clock::monotonic().checked_add(ns));
    let file = file(caller, fd)?;
    let mut flags = flags as u32;
    let mut done = 0;
    while done < (count as u32 as u64).min(MAX_MESSAGES) {
        let one = at.wrapping_add(done * MMSG_BYTES);
        match receive_header(caller, &file, one, flags & !net_abi::MSG_WAITFORONE) {
            Ok(n) => user::write_u32(one.wrapping_add(56), n as u32)?,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
        done += 1;
        if flags & net_abi::MSG_WAITFORONE != 0 {
            flags |= net_abi::MSG_DONTWAIT;
        }
        // As on Linux, the time is looked at between messages only.
        if deadline.is_some_and(|d| d <= clock::monotonic()) {
            break;
        }
    }
    Ok(done)
}
