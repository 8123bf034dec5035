//! What a datagram's header says beside the addresses, and how programs read and write it: `ip(7)`, `ipv6(7)`, RFC 3542.
//!
//! ```text
//!   IP_TTL, IP_TOS, IPV6_UNICAST_HOPS …   the socket's ─┐
//!                                                       ├─► Head ──► the receiver's inbox ──► notes it has asked for
//!   the same beside the bytes: this one's ──► Asked ────┘            (IP_RECVTTL, IP_PKTINFO, IPV6_RECVTCLASS …)
//! ```
//!
//! Inside the machine nothing forwards and nothing counts hops down, but what a sender said is what the receiver is told.

use super::super::{Address, Common, Inbox, Incoming, Sink, Wait, abi, beside};
use super::options::Set;
use super::{LOOPBACK, OUTSIDE, is_ours, shown};
use crate::errno::{Errno, Result};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use linux_raw_sys::net as raw;

/// The hop limit of who says nothing.
pub const HOPS: u8 = 64;

/// See the module.
#[derive(Clone, Debug)]
pub struct Head {
    pub hops: u8,
    /// Type of service, or traffic class.
    pub class: u8,
    pub to: SocketAddr,
    /// The interface by which it came.
    pub interface: u32,
}

bitflags::bitflags! {
    /// What a receiver wants to be told.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Wants: u32 {
        const PKTINFO = 1;
        const TTL = 2;
        const TOS = 4;
        const ORIGINAL = 8;
        const PKTINFO6 = 16;
        const HOPLIMIT = 32;
        const TCLASS = 64;
        const ORIGINAL6 = 128;
        const ERRORS = 256;
        const ERRORS6 = 512;
    }
}

impl Wants {
    /// Which of them an option is.
    pub fn of(level: u32, name: u32) -> Option<Wants> {
        Some(match (level, name) {
            (abi::IPPROTO_IP, raw::IP_PKTINFO) => Wants::PKTINFO,
            (abi::IPPROTO_IP, raw::IP_RECVTTL) => Wants::TTL,
            (abi::IPPROTO_IP, raw::IP_RECVTOS) => Wants::TOS,
            (abi::IPPROTO_IP, raw::IP_RECVORIGDSTADDR) => Wants::ORIGINAL,
            (abi::IPPROTO_IP, raw::IP_RECVERR) => Wants::ERRORS,
            (abi::IPPROTO_IPV6, raw::IPV6_RECVPKTINFO) => Wants::PKTINFO6,
            (abi::IPPROTO_IPV6, raw::IPV6_RECVHOPLIMIT) => Wants::HOPLIMIT,
            (abi::IPPROTO_IPV6, raw::IPV6_RECVTCLASS) => Wants::TCLASS,
            (abi::IPPROTO_IPV6, raw::IPV6_RECVORIGDSTADDR) => Wants::ORIGINAL6,
            (abi::IPPROTO_IPV6, raw::IPV6_RECVERR) => Wants::ERRORS6,
            _ => return None,
        })
    }
}

/// The interface that an address of this machine is on.
pub fn interface_of(ip: IpAddr) -> Option<u32> {
    match ip {
        _ if ip.is_loopback() => Some(LOOPBACK),
        _ if is_ours(ip) => Some(OUTSIDE),
        _ => None,
    }
}

fn four(ip: IpAddr) -> [u8; 4] {
    match ip {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(_) => [0; 4],
    }
}
fn six(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Tell the program what it wants to know of a datagram's header.
pub fn tell(into: &mut Incoming, wants: Wants, domain: u32) {
    if wants.is_empty() {
        return;
    }
    let Some(head) = into.head.take() else { return };
    let to = head.to.ip();
    if domain == abi::AF_INET6 && wants.contains(Wants::PKTINFO6) {
        let info = [&six(to)[..], &head.interface.to_ne_bytes()].concat();
        into.note(abi::IPPROTO_IPV6, raw::IPV6_PKTINFO, &info);
    }
    if to.is_ipv4() {
        tell_ipv4(into, wants, &head);
    } else {
        tell_ipv6(into, wants, &head);
    }
}

fn tell_ipv4(into: &mut Incoming, wants: Wants, head: &Head) {
    if wants.contains(Wants::PKTINFO) {
        // The address to answer from: that which was spoken to, if it is one.
        let to = head.to.ip();
        let own = if is_ours(to) { to } else { super::primary(head.interface, true) };
        let info = [head.interface.to_ne_bytes(), four(own), four(to)].concat();
        into.note(abi::IPPROTO_IP, raw::IP_PKTINFO, &info);
    }
    if wants.contains(Wants::TTL) {
        into.note(abi::IPPROTO_IP, raw::IP_TTL, &(head.hops as i32).to_ne_bytes());
    }
    if wants.contains(Wants::TOS) {
        into.note(abi::IPPROTO_IP, raw::IP_TOS, &[head.class]);
    }
    if wants.contains(Wants::ORIGINAL) {
        into.note(abi::IPPROTO_IP, raw::IP_ORIGDSTADDR, &Address::Inet(head.to).bytes());
    }
}

fn tell_ipv6(into: &mut Incoming, wants: Wants, head: &Head) {
    let mut number = |kind, value: u8| into.note(abi::IPPROTO_IPV6, kind, &(value as i32).to_ne_bytes());
    if wants.contains(Wants::HOPLIMIT) {
        number(raw::IPV6_HOPLIMIT, head.hops);
    }
    if wants.contains(Wants::TCLASS) {
        number(raw::IPV6_TCLASS, head.class);
    }
    if wants.contains(Wants::ORIGINAL6) {
        let address = shown(head.to, abi::AF_INET6).bytes();
        into.note(abi::IPPROTO_IPV6, raw::IPV6_ORIGDSTADDR, &address);
    }
}

/// What a sender says of one datagram.
#[derive(Default)]
pub struct Asked {
    hops: Option<u8>,
    class: Option<u8>,
    pub source: Option<IpAddr>,
    pub interface: Option<u32>,
    /// UDP_SEGMENT.
    pub piece: Option<u16>,
}

impl Asked {
    /// From the control messages of a socket, for a datagram to `to`.
    pub fn read(list: &[u8], common: &Common, to: IpAddr) -> Result<Asked> {
        let mut asked = Asked::default();
        for told in beside::Each(list) {
            let told = told?;
            match told.level {
                abi::SOL_SOCKET => beside::of_any_socket(&told, common)?,
                abi::IPPROTO_IP if to.is_ipv4() => asked.take_ipv4(&told)?,
                abi::IPPROTO_IPV6 if common.domain == abi::AF_INET6 => asked.take_ipv6(&told)?,
                abi::IPPROTO_UDP if common.protocol == abi::IPPROTO_UDP => {
                    let piece = (told.kind == super::options::UDP_SEGMENT).then_some(told.data);
                    let piece: [u8; 2] = piece.and_then(|p| p.try_into().ok()).ok_or(Errno::EINVAL)?;
                    asked.piece = Some(u16::from_ne_bytes(piece));
                }
                _ => {}
            }
        }
        Ok(asked)
    }

    fn place(&mut self, interface: u32, source: IpAddr) -> Result<()> {
        if interface != 0 && !super::interfaces().iter().any(|i| i.index == interface) {
            return Err(Errno::ENODEV);
        }
        self.interface = (interface != 0).then_some(interface).or(self.interface);
        if !source.is_unspecified() {
            self.source = Some(source);
        }
        Ok(())
    }

    fn take_ipv4(&mut self, told: &beside::Told<'_>) -> Result<()> {
        match told.kind {
            raw::IP_PKTINFO => {
                let info: &[u8; 12] = told.data.try_into().map_err(|_| Errno::EINVAL)?;
                let interface = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
                let source = Ipv4Addr::new(info[4], info[5], info[6], info[7]);
                self.place(interface, source.into())
            }
            raw::IP_TTL => {
                let hops = u8::try_from(told.int()?).ok().filter(|h| *h != 0);
                self.hops = Some(hops.ok_or(Errno::EINVAL)?);
                Ok(())
            }
            raw::IP_TOS => {
                let class = match told.data {
                    [one] => *one as i32,
                    _ => told.int()?,
                };
                self.class = Some(u8::try_from(class).map_err(|_| Errno::EINVAL)?);
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn take_ipv6(&mut self, told: &beside::Told<'_>) -> Result<()> {
        // -1 asks for what holds without it.
        let number = || match told.int()? {
            -1 => Ok(None),
            n => u8::try_from(n).map(Some).map_err(|_| Errno::EINVAL),
        };
        match told.kind {
            raw::IPV6_PKTINFO => {
                let info = told.data.get(..20).ok_or(Errno::EINVAL)?;
                let mut ip = [0; 16];
                ip.copy_from_slice(&info[..16]);
                let ip = Ipv6Addr::from(ip);
                let source = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
                if !source.is_unspecified() && !is_ours(source) {
                    return Err(Errno::EINVAL);
                }
                self.place(u32::from_ne_bytes([info[16], info[17], info[18], info[19]]), source)
            }
            raw::IPV6_HOPLIMIT => number().map(|hops| self.hops = hops),
            raw::IPV6_TCLASS => number().map(|class| self.class = class),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The header of a datagram that is sent now.
    pub fn head(&self, settings: &Set, to: SocketAddr, interface: u32) -> Head {
        let number = |level, name| settings.number(level, name).unwrap_or(-1);
        let many = to.ip().is_multicast();
        let (hops, class) = match (to.is_ipv4(), many) {
            (true, true) => (number(abi::IPPROTO_IP, raw::IP_MULTICAST_TTL), raw::IP_TOS),
            (true, false) => (number(abi::IPPROTO_IP, raw::IP_TTL), raw::IP_TOS),
            (false, true) => (number(abi::IPPROTO_IPV6, raw::IPV6_MULTICAST_HOPS), raw::IPV6_TCLASS),
            (false, false) => (number(abi::IPPROTO_IPV6, raw::IPV6_UNICAST_HOPS), raw::IPV6_TCLASS),
        };
        let class = number(if to.is_ipv4() { abi::IPPROTO_IP } else { abi::IPPROTO_IPV6 }, class);
        Head {
            hops: self.hops.unwrap_or(u8::try_from(hops).unwrap_or(HOPS)),
            class: self.class.unwrap_or(u8::try_from(class).unwrap_or(0)),
            to,
            interface,
        }
    }
}

/// What a socket that wants to know how many it lost is told.
pub fn tell_drops(into: &mut Incoming, common: &Common) {
    let drops = common.drops();
    if drops != 0 && common.has(abi::SO_RXQ_OVFL) {
        into.note(abi::SOL_SOCKET, abi::SO_RXQ_OVFL, &drops.to_ne_bytes());
    }
}

/// Wait for a datagram and take it, with what its reader wants to be told of it. Nothing comes once that end `is_shut`.
pub fn receive(
    (common, inbox, settings): (&Common, &Inbox, &Set),
    is_shut: impl Fn() -> bool,
    to: &mut Sink<'_>,
    into: &mut Incoming,
    wait: Wait,
) -> Result<()> {
    loop {
        common.take_error()?;
        if let Some(whole) = inbox.receive(to, into, into.flags & abi::MSG_PEEK != 0) {
            into.whole = Some(whole);
            tell_drops(into, common);
            tell(into, settings.wants(), common.domain);
            return Ok(());
        }
        if is_shut() {
            return Ok(());
        }
        common.sleep(wait, || !inbox.is_empty() || common.has_error() || is_shut())?;
    }
}
