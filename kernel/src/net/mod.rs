//! Sockets: `socket(7)`.
//!
//! ```text
//!   system calls ──► Socket (a FileOps) ──► dyn Protocol ─┬─ unix      stream, datagram, seqpacket; names in the tree or abstract
//!                                                         ├─ inet      TCP and UDP; within the machine directly, outside by smoltcp
//!                                                         └─ netlink   which interfaces and addresses there are
//! ```
//!
//! A socket is a file without a place; what it does is its [`Protocol`]'s. All have in common a [`Common`]: what was asked for,
//! the options of SOL_SOCKET, a pending error, and the [`Signal`](crate::fs::poll::Signal) on which everything that may change the answer of `poll` is
//! announced. What has arrived waits in an [`Inbox`].
//!
//! *Inside the machine there are no packets.* Two sockets of one machine hand each other bytes: a connection to 127.0.0.1 is
//! a pair of inboxes, as a Unix socket's is. So it costs no buffers but for bytes that are under way, no timers and no
//! checksums, and it cannot lose anything. Only what leaves the machine becomes packets (`inet::outside`), and only then is
//! the network card woken at all.
//!
//! Closing is [`Protocol::close`], called when the last descriptor goes; dropping does nothing that could sleep, as the
//! pollers of a file drop it at any time.
//!
//! Locks: each protocol's state is under spin locks, held for a few instructions, and of two sockets never both at once.
//! User memory is copied under an inbox's `turn` only, which may sleep.
#![forbid(unsafe_code)]

pub mod abi;
pub mod address;
pub mod beside;
pub mod file;
pub mod filter;
pub mod inbox;
pub mod inet;
pub mod interfaces;
pub mod netlink;
pub mod options;
mod registry;
pub mod sysfs;
pub mod tables;
pub mod unix;

pub use address::Address;
pub use options::Common;

use crate::{
    errno::{Errno, Result},
    fs::{
        File, Walker,
        file::{FileOps, How},
        iobuf::{Sink, Source},
        poll::{Events, Watchers},
    },
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::any::Any;
use hafez_mm::lock::Once;
use inbox::{Inbox, Packet};
use linux_raw_sys::ioctl;

/// Who sent something: process, user, group. As SCM_CREDENTIALS tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ucred {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
    /// When that process began (about a millisecond, [`moment`]): with its number, which process it is.
    pub began: u32,
}

/// A time in ns since boot, as short as it can be and still tell two processes of one number apart.
pub fn moment(ns: u64) -> u32 {
    (ns >> 20) as u32
}

static CALLER: Once<fn() -> Ucred> = Once::new();

/// Tell how to ask who the calling process is: processes are a room above.
pub fn set_caller(hook: fn() -> Ucred) {
    CALLER.call_once(|| hook);
}

/// Who sends files, and how many it may have under way.
#[derive(Clone, Copy)]
pub struct Sender {
    pub uid: u32,
    pub most: usize,
}

static GROUPS: Once<fn() -> Arc<Vec<u32>>> = Once::new();

/// As [`set_caller`].
pub fn set_groups(hook: fn() -> Arc<Vec<u32>>) {
    GROUPS.call_once(|| hook);
}
/// The calling process's supplementary groups.
fn groups() -> Arc<Vec<u32>> {
    GROUPS.get().map_or_else(Arc::default, |hook| hook())
}

static SENDER: Once<fn() -> Sender> = Once::new();

/// As [`set_caller`].
pub fn set_sender(hook: fn() -> Sender) {
    SENDER.call_once(|| hook);
}
fn sender() -> Sender {
    SENDER.get().map_or(Sender { uid: 0, most: usize::MAX }, |hook| hook())
}

/// The calling process, by its effective ids.
pub fn caller() -> Ucred {
    CALLER.get().map_or(Ucred::default(), |hook| hook())
}

/// How long a call may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: EAGAIN.
    Never,
    /// Until this moment (ns, monotonic; SO_RCVTIMEO, SO_SNDTIMEO); for ever if `None`.
    Until(Option<u64>),
}

/// An address that a call names, and who looks for it in the tree.
pub struct Target {
    pub address: Address,
    pub walker: Walker,
}

/// What goes with the bytes of a `sendmsg`.
#[derive(Default)]
pub struct Outgoing {
    pub to: Option<Target>,
    /// MSG_*.
    pub flags: u32,
    /// Instead of the caller's own (SCM_CREDENTIALS).
    pub cred: Option<Ucred>,
    pub rights: Vec<Arc<File>>,
    /// Control messages that are for the protocol, as they came.
    pub control: Vec<u8>,
}

/// What a `recvmsg` finds beside the bytes.
#[derive(Default)]
pub struct Incoming {
    /// MSG_*, as the caller gave them.
    pub flags: u32,
    pub from: Option<Address>,
    pub cred: Option<Ucred>,
    pub rights: Vec<Arc<File>>,
    /// What the packet's own header said.
    pub head: Option<Box<inet::Head>>,
    /// When it came (ns, real time); 0: not known.
    pub at: u64,
    pub notes: Vec<beside::Note>,
    /// MSG_* that the caller is told.
    pub told: u32,
    /// Length of the whole packet, where there are packets.
    pub whole: Option<usize>,
}

impl Incoming {
    fn take(&mut self, packet: &mut Packet, peek: bool) {
        self.cred = Some(packet.cred);
        self.at = packet.at;
        if peek {
            self.from = packet.source.as_deref().cloned();
            self.head = packet.head.clone();
            self.rights.extend(packet.rights.copies());
        } else {
            self.from = packet.source.take().map(|a| *a);
            self.head = packet.head.take();
            self.rights.append(&mut packet.rights.land());
        }
    }
    /// The urgent byte of a stream: one at most.
    fn receive_urgent(&mut self, inbox: &Inbox, to: &mut Sink<'_>) -> Result<()> {
        let byte = inbox.read_urgent(self.peeks())?;
        self.told |= abi::MSG_OOB;
        if to.put(&[byte]) == 0 {
            self.told |= abi::MSG_TRUNC;
        }
        Ok(())
    }
    fn peeks(&self) -> bool {
        self.flags & abi::MSG_PEEK != 0
    }
}

/// Which directions `shutdown` closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shut {
    pub read: bool,
    pub write: bool,
}

/// What a kind of socket does. What it leaves out answers as Linux does for a protocol without it.
pub trait Protocol: Send + Sync {
    fn common(&self) -> &Common;
    fn bind(&self, _to: &Target) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    fn listen(&self, _backlog: usize) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    fn accept(&self, _wait: Wait) -> Result<Arc<dyn Protocol>> {
        Err(Errno::EOPNOTSUPP)
    }
    fn connect(&self, _to: &Target, _wait: Wait) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// `getsockname`.
    fn name(&self) -> Result<Address>;
    /// `getpeername`.
    fn peer_name(&self) -> Result<Address> {
        Err(Errno::ENOTCONN)
    }
    fn shutdown(&self, _how: Shut) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Send what the source gives; what it took counts, also if an error follows.
    fn send(&self, from: &mut Source<'_>, out: Outgoing, wait: Wait) -> Result<()>;
    fn receive(&self, to: &mut Sink<'_>, into: &mut Incoming, wait: Wait) -> Result<()>;
    /// A message of the kernel's own, as it is.
    fn post(&self, _message: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    fn poll(&self) -> Events;
    /// Bytes, roughly, that wait in it.
    fn holds(&self) -> usize {
        0
    }
    fn watch(&self, watchers: &mut Watchers) {
        watchers.add(&self.common().signal);
    }
    /// See [`FileOps::tells_all`].
    fn tells_all(&self) -> bool {
        true
    }
    /// Bytes that a read would give now (FIONREAD).
    fn readable(&self) -> Result<usize> {
        Err(Errno::EINVAL)
    }
    /// Whether the urgent byte is next (SIOCATMARK).
    fn at_mark(&self) -> Result<bool> {
        Err(Errno::ENOTTY)
    }
    /// Bytes sent and not taken by the other side yet (SIOCOUTQ).
    fn unsent(&self) -> usize {
        0
    }
    /// An option of the protocol's own, or one of SOL_SOCKET that means something special to it; else ENOPROTOOPT.
    fn option(&self, _level: u32, _name: u32) -> Result<Vec<u8>> {
        Err(Errno::ENOPROTOOPT)
    }
    fn set_option(&self, _level: u32, _name: u32, _value: &[u8]) -> Result<()> {
        Err(Errno::ENOPROTOOPT)
    }
    /// Who the other side was when the connection was made, and in which groups; `None`: nobody knows.
    fn peer_cred(&self) -> Option<Ucred> {
        None
    }
    fn peer_groups(&self) -> Option<Arc<Vec<u32>>> {
        None
    }
    /// SO_SNDBUF was set.
    fn send_limit(&self, _bytes: usize) {}
    fn is_listening(&self) -> bool {
        false
    }
    /// An option of SOL_SOCKET was set.
    fn options_changed(&self) {}
    /// Which ways `shutdown` has closed.
    fn ways_shut(&self) -> Shut {
        Shut { read: false, write: false }
    }
    /// The last descriptor is gone.
    fn close(&self);
    fn as_any(&self) -> &dyn Any;
}

/// An open socket.
pub struct Socket(pub Arc<dyn Protocol>);

impl Socket {
    pub fn send(&self, from: &mut Source<'_>, out: Outgoing, nonblock: bool) -> Result<()> {
        let wait = self.0.common().send_wait(nonblock || out.flags & abi::MSG_DONTWAIT != 0);
        self.0.send(from, out, wait)
    }
    pub fn receive(&self, to: &mut Sink<'_>, into: &mut Incoming, nonblock: bool) -> Result<()> {
        let wait = self.0.common().receive_wait(nonblock || into.flags & abi::MSG_DONTWAIT != 0);
        self.0.receive(to, into, wait)?;
        into.stamp(self.0.common());
        Ok(())
    }
}

impl FileOps for Socket {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _: u64, to: &mut Sink<'_>, how: How) -> Result<()> {
        // Nothing asked for, nothing looked at; `recv` differs.
        if to.remaining() == 0 {
            return Ok(());
        }
        self.receive(to, &mut Incoming::default(), how.nonblock)
    }
    fn write(&self, _: u64, from: &mut Source<'_>, how: How) -> Result<()> {
        self.send(from, Outgoing::default(), how.nonblock)
    }
    fn poll(&self) -> Events {
        self.0.poll()
    }
    fn watch(&self, watchers: &mut Watchers) {
        self.0.watch(watchers);
    }
    fn tells_all(&self) -> bool {
        self.0.tells_all()
    }
    fn holds(&self) -> usize {
        1024 + self.0.holds()
    }
    fn ioctl(&self, request: u32, argument: u64) -> Result<usize> {
        let value = match request {
            ioctl::FIONREAD => self.0.readable()?,
            ioctl::TIOCOUTQ => self.0.unsent(),
            ioctl::SIOCATMARK => self.0.at_mark()? as usize,
            _ => return interfaces::request(request, argument),
        };
        crate::arch::user::write_u32(argument, value as u32)?;
        Ok(0)
    }
    fn closed(&self) {
        self.0.close();
    }
}

/// `socket(2)`: the type without its flags. `root`: the caller may send packets by hand.
pub fn create(domain: u32, kind: u32, protocol: u32, root: bool) -> Result<Arc<dyn Protocol>> {
    if domain >= abi::AF_MAX {
        return Err(Errno::EAFNOSUPPORT);
    }
    if kind > abi::SOCK_PACKET {
        return Err(Errno::EINVAL);
    }
    if !crate::mem::headroom(4096) {
        return Err(Errno::ENOBUFS);
    }
    match domain {
        abi::AF_UNIX => Ok(unix::Unix::create(kind, protocol)?),
        abi::AF_INET | abi::AF_INET6 => inet::create(domain, kind, protocol, root),
        abi::AF_NETLINK => Ok(netlink::Netlink::create(kind, protocol)?),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

/// `socketpair(2)`: two that are connected.
pub fn pair(domain: u32, kind: u32, protocol: u32) -> Result<(Arc<dyn Protocol>, Arc<dyn Protocol>)> {
    let one = create(domain, kind, protocol, false)?;
    if domain != abi::AF_UNIX {
        return Err(Errno::EOPNOTSUPP);
    }
    let two = create(domain, kind, protocol, false)?;
    if let (Some(a), Some(b)) = (one.as_any().downcast_ref(), two.as_any().downcast_ref()) {
        unix::join(a, b);
    }
    Ok((one, two))
}

/// Boxed, as a packet has it.
fn boxed(address: Address) -> Option<Box<Address>> {
    Some(Box::new(address))
}
