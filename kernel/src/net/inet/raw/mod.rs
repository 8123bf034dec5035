//! Raw sockets, for who may (CAP_NET_RAW), and ICMP sockets for anybody: `raw(7)`, `icmp(7)`.
//!
//! ```text
//!   send ──► to this machine   every raw socket of that protocol hears it; an echo request is answered (icmp.rs)
//!        └─► to any other      echo requests only, by the library; their answers come back here
//! ```
//!
//! Inside the machine TCP and UDP are no packets, so a raw socket hears nothing of them: what it hears is what others like it send.
//! `ping` needs no more.

mod icmp;

use super::super::filter;
use super::super::{
    Address, Common, Incoming, Outgoing, Protocol, Shut, Target, Ucred, Wait, abi, boxed,
    inbox::{Account, Inbox, Packet},
    options as common_options, registry,
};
use super::{
    LOOPBACK, Row, canonical, destination,
    header::{self, Asked, Head},
    is_broadcast, is_ours, named,
    options::Set,
    outside, shown, source_for, unspecified,
};
use crate::{
    clock,
    errno::{Errno, Result},
    fs::{
        iobuf::{Sink, Source},
        poll::Events,
    },
    mem::{self, TryPush},
};
use alloc::{
    boxed::Box,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::any::Any;
use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::Ordering::Relaxed;
use hafez_mm::lock::Mutex;
pub use icmp::came;
use linux_raw_sys::net as raw;

/// The most bytes of one packet, its header included.
const MAX_BYTES: usize = 65_535;
const HEADER: usize = 20;
/// `SOL_RAW`, `SOL_ICMPV6`, and their options: which ICMP types are not wanted, where a checksum goes.
const SOL_RAW: u32 = 255;
const SOL_ICMPV6: u32 = 58;
const FILTER: u32 = 1;

/// All that are open.
static ALL: Mutex<Vec<Weak<Raw>>> = Mutex::new(Vec::new());

/// See the module.
pub struct Raw {
    common: Common,
    inbox: Inbox,
    account: Arc<Account>,
    settings: Set,
    state: Mutex<State>,
}

struct State {
    local: Option<IpAddr>,
    peer: Option<IpAddr>,
    /// Of an ICMP socket: the identifier of its requests; 0 for none yet.
    ident: u16,
    shut: Shut,
    /// A bit for each ICMP type that is not wanted.
    blocked: [u32; 8],
    /// What is sent begins with a header (IP_HDRINCL).
    whole: bool,
}

/// A packet on its way.
pub struct Datagram<'a> {
    pub from: IpAddr,
    pub to: IpAddr,
    pub protocol: u32,
    pub hops: u8,
    pub class: u8,
    pub interface: u32,
    pub bytes: &'a [u8],
}

impl Raw {
    pub fn new(domain: u32, kind: u32, protocol: u32) -> Result<Arc<Raw>> {
        let common = Common::new(domain, kind, protocol);
        let account = Account::new(common_options::BUFFER as usize, common.signal.clone());
        let shut = Shut { read: false, write: false };
        let whole = protocol == abi::IPPROTO_RAW;
        let state = State { local: None, peer: None, ident: 0, shut, blocked: [0; 8], whole };
        let new = Arc::new(Raw {
            common,
            inbox: Inbox::new(),
            account,
            settings: Set::default(),
            state: Mutex::new(state),
        });
        {
            let mut all = ALL.lock();
            all.retain(|other| other.strong_count() > 0);
            all.try_push(Arc::downgrade(&new))?;
        }
        registry::enter(&new);
        Ok(new)
    }

    /// Whether it is an ICMP socket for anybody, which sends and hears echoes only.
    fn is_ping(&self) -> bool {
        self.common.kind == abi::SOCK_DGRAM
    }

    /// Its line in `/proc/net/raw`: the protocol stands for the port.
    pub(super) fn row(&self) -> Option<Row> {
        let state = self.state.lock();
        let port = if self.is_ping() { state.ident } else { self.common.protocol as u16 };
        let any = unspecified(self.common.domain);
        let local = SocketAddr::new(state.local.unwrap_or(any), port);
        let peer = SocketAddr::new(state.peer.unwrap_or(any), 0);
        let number = if state.peer.is_some() { 1 } else { 7 };
        Some(Row { local, peer, state: number, unsent: 0, unread: self.account.used(), most: 0 })
    }

    /// An identifier that no other ICMP socket has.
    fn identify(&self, wanted: u16) -> Result<u16> {
        let has = self.state.lock().ident;
        if has != 0 {
            return Ok(has);
        }
        let first = if wanted != 0 { wanted } else { crate::random::u64() as u16 };
        for step in 0..=u16::MAX {
            let ident = first.wrapping_add(step);
            if ident != 0 && !each().any(|other| other.is_ping() && other.state.lock().ident == ident) {
                self.state.lock().ident = ident;
                return Ok(ident);
            }
            if wanted != 0 {
                break;
            }
        }
        Err(Errno::EADDRINUSE)
    }

    /// Whether a packet is for this socket.
    fn hears(&self, packet: &Datagram<'_>) -> bool {
        let four = packet.to.is_ipv4();
        if four != (self.common.domain == abi::AF_INET) || packet.protocol != self.common.protocol {
            return false;
        }
        let state = self.state.lock();
        let bound = state.local.is_none_or(|ip| ip == packet.to || ip.is_unspecified());
        let from = state.peer.is_none_or(|ip| ip == packet.from);
        let kind = packet.bytes.first().copied().unwrap_or(0) as usize;
        let wanted = match icmp::is(packet.protocol) {
            true if self.is_ping() => icmp::reply_ident(packet) == Some(state.ident),
            true => state.blocked[kind / 32] & 1 << (kind % 32) == 0,
            false => true,
        };
        bound && from && wanted && !state.shut.read
    }

    /// Take it in, if there is room. Raw sockets for IPv4 see the header, too.
    fn take(&self, packet: &Datagram<'_>) {
        let head = if packet.to.is_ipv4() && !self.is_ping() { header_of(packet) } else { Vec::new() };
        let limit = self.common.receive_buffer.load(Relaxed) as usize;
        let len = head.len() + packet.bytes.len();
        let mut all = Vec::new();
        let room = self.account.used() + len <= limit && all.try_reserve_exact(len).is_ok();
        if room {
            all.extend_from_slice(&head);
            all.extend_from_slice(packet.bytes);
        }
        let made = match room {
            true => Packet::new(&mut Source::kernel(&all), len, &self.account, Ucred::default()).ok(),
            false => None,
        };
        let Some(mut new) = made else { return self.common.drop_one() };
        let protocol = if packet.to.is_ipv4() { filter::IPV4 } else { filter::IPV6 };
        if !self.common.lets_in(&mut new, |_| (Vec::new(), protocol, packet.interface)) {
            return self.common.drop_one();
        }
        new.source = boxed(shown(SocketAddr::new(packet.from, 0), self.common.domain));
        let to = SocketAddr::new(packet.to, 0);
        let (hops, class, interface) = (packet.hops, packet.class, packet.interface);
        new.head = Some(Box::new(Head { hops, class, to, interface }));
        if self.common.stamp() != 0 {
            new.at = clock::realtime();
        }
        if self.inbox.push(new).is_ok() {
            self.common.signal.notify();
        }
    }
}

/// Every open one.
fn each() -> impl Iterator<Item = Arc<Raw>> {
    let mut next = 0;
    core::iter::from_fn(move || {
        let all = ALL.lock();
        while let Some(weak) = all.get(next) {
            next += 1;
            if let Some(socket) = weak.upgrade() {
                return Some(socket);
            }
        }
        None
    })
}

/// Hand a packet to all that hear it.
pub fn spread(packet: &Datagram<'_>) {
    each().filter(|socket| socket.hears(packet)).for_each(|socket| socket.take(packet));
}

/// The header of a packet: version and length 0, class 1, total 2, hops 8, protocol 9, checksum 10, addresses 12 and 16.
fn header_of(packet: &Datagram<'_>) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (packet.from, packet.to) else { return Vec::new() };
    let mut head = [0; HEADER];
    (head[0], head[1]) = (0x45, packet.class);
    head[2..4].copy_from_slice(&((HEADER + packet.bytes.len()) as u16).to_be_bytes());
    (head[8], head[9]) = (packet.hops, packet.protocol as u8);
    head[12..16].copy_from_slice(&from.octets());
    head[16..].copy_from_slice(&to.octets());
    let sum = icmp::checksum(&[&head]);
    head[10..12].copy_from_slice(&sum.to_be_bytes());
    head.to_vec()
}

impl Protocol for Raw {
    fn common(&self) -> &Common {
        &self.common
    }
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn bind(&self, to: &Target) -> Result<()> {
        let at = canonical(named(&self.common, &to.address)?);
        if at.is_ipv4() != (self.common.domain == abi::AF_INET) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        if !at.ip().is_unspecified() && !at.ip().is_multicast() && !is_ours(at.ip()) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        if self.is_ping() {
            self.identify(at.port())?;
        }
        self.state.lock().local = Some(at.ip());
        Ok(())
    }

    fn connect(&self, to: &Target, _: Wait) -> Result<()> {
        let peer = match to.address {
            Address::None => None,
            _ => Some(destination(named(&self.common, &to.address)?).ip()),
        };
        if self.is_ping() {
            self.identify(0)?;
        }
        let mut state = self.state.lock();
        state.peer = peer;
        if let Some(ip) = peer.filter(|ip| is_ours(*ip)) {
            state.local.get_or_insert(source_for(ip));
        }
        Ok(())
    }

    fn name(&self) -> Result<Address> {
        let row = self.row().ok_or(Errno::EINVAL)?;
        Ok(shown(row.local, self.common.domain))
    }
    fn peer_name(&self) -> Result<Address> {
        let peer = self.state.lock().peer.ok_or(Errno::ENOTCONN)?;
        Ok(shown(SocketAddr::new(peer, 0), self.common.domain))
    }
    fn shutdown(&self, how: Shut) -> Result<()> {
        let connected = {
            let mut state = self.state.lock();
            state.shut.read |= how.read;
            state.shut.write |= how.write;
            state.peer.is_some()
        };
        self.common.signal.notify();
        if connected { Ok(()) } else { Err(Errno::ENOTCONN) }
    }

    fn send(&self, from: &mut Source<'_>, out: Outgoing, _: Wait) -> Result<()> {
        if out.flags & abi::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if from.remaining() > MAX_BYTES - HEADER {
            return Err(Errno::EMSGSIZE);
        }
        let (peer, local, shut, whole) = {
            let state = self.state.lock();
            (state.peer, state.local, state.shut, state.whole)
        };
        let to = match &out.to {
            Some(to) => destination(named(&self.common, &to.address)?).ip(),
            None => peer.ok_or(Errno::EDESTADDRREQ)?,
        };
        self.common.take_error()?;
        // As on Linux, only the ICMP sockets for anybody mind that.
        if shut.write && self.is_ping() {
            return Err(Errno::EPIPE);
        }
        if is_broadcast(to) && !self.common.has(abi::SO_BROADCAST) {
            return Err(Errno::EACCES);
        }
        let asked = Asked::read(&out.control, &self.common, to)?;
        let mut bytes = mem::zeroed(from.remaining())?;
        let n = from.take(&mut bytes);
        if from.faulted() {
            from.uncount(n);
            return Err(Errno::EFAULT);
        }
        let done = self.send_bytes(bytes, to, local, whole, &asked);
        if done.is_err() {
            from.take_back();
        }
        done
    }

    fn receive(&self, to: &mut Sink<'_>, into: &mut Incoming, wait: Wait) -> Result<()> {
        if into.flags & abi::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if into.flags & abi::MSG_ERRQUEUE != 0 {
            return Err(Errno::EAGAIN);
        }
        let is_shut = || self.state.lock().shut.read;
        header::receive((&self.common, &self.inbox, &self.settings), is_shut, to, into, wait)
    }

    fn holds(&self) -> usize {
        self.inbox.holds()
    }
    fn poll(&self) -> Events {
        let shut = self.state.lock().shut;
        let mut events = Events::WRITABLE;
        events.set(Events::ERR, self.common.has_error());
        events.set(Events::READABLE, !self.inbox.is_empty() || shut.read);
        events.set(Events::RDHUP, shut.read);
        events.set(Events::HUP, shut.read && shut.write);
        events
    }
    fn readable(&self) -> Result<usize> {
        Ok(self.inbox.first())
    }

    fn option(&self, level: u32, name: u32) -> Result<Vec<u8>> {
        let state = self.state.lock();
        let raw = !self.is_ping();
        match (level, name) {
            (SOL_RAW, FILTER) if raw && self.common.protocol == abi::IPPROTO_ICMP => {
                Ok(state.blocked[0].to_ne_bytes().to_vec())
            }
            (SOL_ICMPV6, FILTER) if raw && self.common.protocol == abi::IPPROTO_ICMPV6 => {
                Ok(state.blocked.iter().flat_map(|w| w.to_ne_bytes()).collect())
            }
            (abi::IPPROTO_IP, raw::IP_HDRINCL) if raw => Ok(common_options::int(state.whole as i64)),
            _ => {
                drop(state);
                self.settings.get(&self.common, level, name)
            }
        }
    }
    fn set_option(&self, level: u32, name: u32, value: &[u8]) -> Result<()> {
        let raw = !self.is_ping();
        let word = |at: usize| {
            value.get(4 * at..4 * at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
        };
        match (level, name) {
            (SOL_RAW, FILTER) if raw && self.common.protocol == abi::IPPROTO_ICMP => {
                self.state.lock().blocked[0] = word(0);
                Ok(())
            }
            (SOL_ICMPV6, FILTER) if raw && self.common.protocol == abi::IPPROTO_ICMPV6 => {
                self.state.lock().blocked = core::array::from_fn(word);
                Ok(())
            }
            (abi::IPPROTO_IP, raw::IP_HDRINCL) if raw => {
                self.state.lock().whole = common_options::int_of(value)? != 0;
                Ok(())
            }
            _ => self.settings.set(&self.common, level, name, value),
        }
    }

    fn close(&self) {
        {
            let mut state = self.state.lock();
            state.shut = Shut { read: true, write: true };
            state.ident = 0;
        }
        self.inbox.close();
        self.common.signal.notify();
    }
}

impl Raw {
    fn send_bytes(
        &self,
        mut bytes: Vec<u8>,
        to: IpAddr,
        local: Option<IpAddr>,
        whole: bool,
        asked: &Asked,
    ) -> Result<()> {
        let mut protocol = self.common.protocol;
        let interface = header::interface_of(to).unwrap_or(super::OUTSIDE);
        let mut head = asked.head(&self.settings, SocketAddr::new(to, 0), interface);
        if whole && self.common.domain == abi::AF_INET {
            let first = *bytes.first().ok_or(Errno::EINVAL)?;
            let len = (first & 15) as usize * 4;
            if first >> 4 != 4 || len < HEADER || bytes.len() < len {
                return Err(Errno::EINVAL);
            }
            (head.class, head.hops, protocol) = (bytes[1], bytes[8], bytes[9] as u32);
            bytes.drain(..len);
        }
        if self.is_ping() {
            icmp::check_request(self.common.domain, &bytes)?;
            let ident = self.identify(0)?;
            bytes[4..6].copy_from_slice(&ident.to_be_bytes());
        }
        let own = local.filter(|ip| !ip.is_unspecified() && !ip.is_multicast());
        let from = match asked.source.or(own) {
            Some(ip) if is_ours(ip) => ip,
            Some(_) => return Err(Errno::ENETUNREACH),
            None if is_ours(to) => source_for(to),
            None => {
                outside::start()?;
                outside::source(to).ok_or(Errno::ENETUNREACH)?
            }
        };
        if self.is_ping() || protocol == abi::IPPROTO_ICMPV6 {
            icmp::seal(&mut bytes, from, to);
        }
        let (hops, class) = (head.hops, head.class);
        let interface = if is_ours(to) { interface } else { LOOPBACK };
        let packet = Datagram { from, to, protocol, hops, class, interface, bytes: &bytes };
        match is_ours(to) {
            true => icmp::arrives(&packet),
            false => return icmp::leaves(&packet),
        }
        Ok(())
    }
}
