//! TCP, UDP and raw packets, over IPv4 and IPv6: `tcp(7)`, `udp(7)`, `udplite(7)`, `ip(7)`, `ipv6(7)`.
//!
//! ```text
//!   to an address of this machine     two sockets hand each other bytes (tcp.rs, udp.rs)
//!   to any other                      packets, by smoltcp over the network card (outside.rs)
//! ```
//!
//! Which of the two, the address of the other side decides, so one listening socket has connections of both kinds. The network
//! card is put into use when the first socket could need it: one that connects outside, or that is bound to an
//! address by which the outside can reach it.
//!
//! Inside, addresses are canonical: an IPv4 address that an AF_INET6 socket was given in its mapped form (`::ffff:a.b.c.d`) is
//! IPv4, and is shown mapped to that socket again.

mod groups;
mod header;
mod held;
mod options;
mod outside;
mod ports;
mod raw;
mod tcp;
mod udp;

use super::{Address, Common, Protocol, abi};
use crate::errno::{Errno, Result};
use alloc::sync::Arc;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

pub use header::Head;
pub use outside::{Counted, GATEWAY, GATEWAY6, InterfaceInfo as Interface, counted, interfaces};

/// The interface that everything else on the machine is on.
pub const LOOPBACK: u32 = 1;
/// The interface to the outside.
pub const OUTSIDE: u32 = 2;

/// What `/proc/net` tells of a socket.
pub struct Row {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub state: u8,
    pub unsent: usize,
    pub unread: usize,
    /// Of who listens: how many connections may wait.
    pub most: usize,
}

pub fn row(socket: &dyn Protocol) -> Option<Row> {
    let any = socket.as_any();
    if let Some(tcp) = any.downcast_ref::<tcp::Tcp>() {
        return tcp.row();
    }
    if let Some(udp) = any.downcast_ref::<udp::Udp>() {
        return udp.row();
    }
    any.downcast_ref::<raw::Raw>()?.row()
}

/// `socket(2)` for AF_INET and AF_INET6.
pub fn create(domain: u32, kind: u32, protocol: u32, root: bool) -> Result<Arc<dyn Protocol>> {
    if protocol >= abi::IPPROTO_MAX {
        return Err(Errno::EINVAL);
    }
    match (kind, protocol) {
        (abi::SOCK_STREAM, abi::IPPROTO_IP | abi::IPPROTO_TCP) => Ok(tcp::Tcp::new(domain)),
        (abi::SOCK_DGRAM, abi::IPPROTO_IP | abi::IPPROTO_UDP) => Ok(udp::Udp::new(domain, abi::IPPROTO_UDP)),
        (abi::SOCK_DGRAM, abi::IPPROTO_UDPLITE) => Ok(udp::Udp::new(domain, protocol)),
        (abi::SOCK_DGRAM, abi::IPPROTO_ICMP) if domain == abi::AF_INET => {
            Ok(raw::Raw::new(domain, kind, protocol)?)
        }
        (abi::SOCK_DGRAM, abi::IPPROTO_ICMPV6) if domain == abi::AF_INET6 => {
            Ok(raw::Raw::new(domain, kind, protocol)?)
        }
        (abi::SOCK_STREAM | abi::SOCK_DGRAM, _) => Err(Errno::EPROTONOSUPPORT),
        (abi::SOCK_RAW, 0) => Err(Errno::EPROTONOSUPPORT),
        (abi::SOCK_RAW, _) if !root => Err(Errno::EPERM),
        (abi::SOCK_RAW, _) => Ok(raw::Raw::new(domain, kind, protocol)?),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

/// An IPv4 address as such, however it was written.
fn canonical(at: SocketAddr) -> SocketAddr {
    match at {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), v6.port()),
            None => at,
        },
        _ => at,
    }
}

/// As a socket of family `domain` is told it.
fn shown(at: SocketAddr, domain: u32) -> Address {
    Address::Inet(match at {
        SocketAddr::V4(v4) if domain == abi::AF_INET6 => {
            SocketAddr::V6(SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0))
        }
        _ => at,
    })
}

/// "Any", in the family.
fn unspecified(domain: u32) -> IpAddr {
    if domain == abi::AF_INET6 {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    }
}

/// The address that a program names to `bind` or `connect`. A socket for IPv6 only has no IPv4 ones.
fn named(common: &Common, address: &Address) -> Result<SocketAddr> {
    let Address::Inet(at) = address else { return Err(Errno::EAFNOSUPPORT) };
    let at = canonical(*at);
    if at.is_ipv4() && common.domain == abi::AF_INET6 && common.has(super::options::V6ONLY) {
        return Err(Errno::ENETUNREACH);
    }
    Ok(at)
}

/// Whether the address is one of this machine's.
fn is_ours(ip: IpAddr) -> bool {
    ip.is_loopback() || outside::addresses().is_some_and(|own| own.contains(&ip))
}

/// Whether the outside can reach what is bound to the address.
fn is_reachable(ip: IpAddr) -> bool {
    !ip.is_loopback()
}

/// From where one of ours is spoken to.
fn source_for(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) if v4.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => ip,
    }
}

/// Whether the address is for all on a network.
fn is_broadcast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            v4.is_broadcast() || v4 == Ipv4Addr::new(127, 255, 255, 255) || outside::is_broadcast(v4)
        }
        IpAddr::V6(_) => false,
    }
}

/// The first address of an interface, in the family.
fn primary(interface: u32, ipv4: bool) -> IpAddr {
    let all = interfaces();
    let found = all.iter().find(|i| i.index == interface);
    let ip = found.and_then(|i| i.addresses.iter().find(|(ip, _)| ip.is_ipv4() == ipv4));
    ip.map_or(unspecified(if ipv4 { abi::AF_INET } else { abi::AF_INET6 }), |(ip, _)| *ip)
}

/// Where "to nowhere in particular" leads: to this machine.
fn destination(at: SocketAddr) -> SocketAddr {
    let ip = match at.ip() {
        IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, at.port())
}
