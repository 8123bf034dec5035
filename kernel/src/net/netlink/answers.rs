//! What is asked over NETLINK_ROUTE, and the answers; and the frame of those about sockets.
//!
//! ```text
//!   a question   header, the family's own structure, attributes that narrow it
//!   a list       a message each in one packet, and a packet that says it is done
//!   else         one message, or an error with the question's header in it; 0 is an acknowledgement
//! ```

use super::super::{
    abi,
    inet::{self, Interface},
    interfaces,
};
use super::{HEAD, diag};
use crate::errno::{Errno, Result};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `NLM_F_MULTI`, `NLM_F_ROOT | NLM_F_MATCH`, `NLM_F_ACK`; that an acknowledgement has no question in it (`NLM_F_CAPPED`).
pub const MULTI: u16 = 2;
const DUMP: u16 = 0x300;
const ACK: u16 = 4;
const CAPPED: u16 = 0x100;
/// Message types: an error (or an acknowledgement), the end of a list; what is told, and asked for one higher by two.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const NEW_NEIGHBOUR: u16 = 28;
const NEW_RULE: u16 = 32;
/// The last type that there is at all.
const LAST: u16 = 127;
/// Attributes of links (`IFLA_*`), of addresses (`IFA_*`), of ways (`RTA_*`), of rules (`FRA_*`).
const LINK_ADDRESS: u16 = 1;
const LINK_BROADCAST: u16 = 2;
const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const LINK_DISCIPLINE: u16 = 6;
const LINK_QUEUE: u16 = 13;
const LINK_STATE: u16 = 16;
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const LABEL: u16 = 3;
const BROADCAST: u16 = 4;
const ROUTE_TO: u16 = 1;
const ROUTE_BY: u16 = 4;
const ROUTE_GATEWAY: u16 = 5;
const ROUTE_FROM: u16 = 7;
const ROUTE_TABLE: u16 = 15;
const RULE_PRIORITY: u16 = 6;
const RULE_TABLE: u16 = 15;
/// The tables of ways: the machine's own addresses, and all else.
const TABLE_MAIN: u8 = 254;
const TABLE_LOCAL: u8 = 255;

/// A message that came, its header included and whole.
pub struct Question<'a> {
    pub bytes: &'a [u8],
    /// To whom the answer goes.
    pub port: u32,
    /// Acknowledgements are not to repeat it (NETLINK_CAP_ACK).
    pub capped: bool,
}

impl Question<'_> {
    pub fn head(&self, kind: u16, flags: u16) -> Vec<u8> {
        let (sequence, port) = (&self.bytes[8..12], self.port.to_ne_bytes());
        [&[0; 4][..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), sequence, &port].concat()
    }
    /// The family that is asked for, which is the first byte of every structure; 0 for all.
    pub fn family(&self) -> u32 {
        self.bytes.get(HEAD).copied().unwrap_or(0) as u32
    }
    fn wants(&self, ipv4: bool) -> bool {
        [0, if ipv4 { abi::AF_INET } else { abi::AF_INET6 }].contains(&self.family())
    }
    /// The value of an attribute behind a structure of `skip` bytes.
    pub fn attribute(&self, skip: usize, kind: u16) -> Option<&[u8]> {
        let mut rest = self.bytes.get(HEAD + skip..)?;
        while rest.len() >= 4 {
            let len = half(rest, 0) as usize;
            let value = rest.get(4..len)?;
            if half(rest, 2) & 0x3fff == kind {
                return Some(value);
            }
            rest = rest.get(len.next_multiple_of(4)..)?;
        }
        None
    }
}

/// Answer a question, of NETLINK_ROUTE or about sockets: `tell` sends one packet.
pub fn to(
    asked: &Question<'_>,
    about_sockets: bool,
    tell: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let (kind, flags) = (half(asked.bytes, 4), half(asked.bytes, 6));
    // Control messages ask for nothing, but may want to be acknowledged.
    let error = match kind {
        0..NEW_LINK => Ok(()),
        diag::BY_FAMILY if about_sockets && flags & DUMP == 0 => Err(Errno::EOPNOTSUPP),
        diag::BY_FAMILY if about_sockets => match diag::list(asked) {
            Ok(all) => return tell_all(asked, &all, tell),
            Err(error) => Err(error),
        },
        _ if about_sockets => Err(Errno::EINVAL),
        NEW_LINK..=LAST if kind % 4 == 2 && flags & DUMP != 0 => {
            if let Some(all) = list(asked, kind - 2) {
                return tell_all(asked, &all, tell);
            }
            Err(Errno::EOPNOTSUPP)
        }
        NEW_LINK..=LAST if kind % 4 == 2 => match one(asked, kind - 2) {
            Ok(message) => {
                tell(&message)?;
                Ok(())
            }
            Err(e) => Err(e),
        },
        // To make, to change, to remove.
        NEW_LINK..=LAST => Err(Errno::EPERM),
        _ => Err(Errno::EOPNOTSUPP),
    };
    let code = match error {
        Ok(()) if flags & ACK == 0 => return Ok(()),
        Ok(()) => 0,
        Err(e) => -(e.code() as i32),
    };
    let capped = asked.capped || code == 0;
    let repeated = if capped { &asked.bytes[..HEAD] } else { asked.bytes };
    let mark = if capped { CAPPED } else { 0 };
    tell(&finished([&asked.head(ERROR, mark)[..], &code.to_ne_bytes(), repeated].concat()))
}

/// A list, several messages in a packet, and its end.
fn tell_all(asked: &Question<'_>, all: &[Vec<u8>], tell: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    for part in all.chunks(16) {
        tell(&part.concat())?;
    }
    tell(&finished([&asked.head(DONE, MULTI)[..], &[0; 4]].concat()))
}

/// All there are of one kind, as messages; `None` for a kind that is not known.
fn list(asked: &Question<'_>, kind: u16) -> Option<Vec<Vec<u8>>> {
    let head = || asked.head(kind, MULTI);
    let all = inet::interfaces();
    Some(match kind {
        NEW_LINK => all.iter().map(|i| link(head(), i)).collect(),
        NEW_ADDRESS => {
            let each = all.iter().flat_map(|i| i.addresses.iter().map(move |a| (i, *a)));
            let wanted = each.filter(|(_, (ip, _))| asked.wants(ip.is_ipv4()));
            wanted.map(|(i, (ip, prefix))| address(head(), i, ip, prefix)).collect()
        }
        NEW_ROUTE => {
            let wanted = routes(&all).into_iter().filter(|r| asked.wants(r.to.0.is_ipv4()));
            wanted.map(|r| route(head(), &r)).collect()
        }
        NEW_RULE => [true, false]
            .into_iter()
            .filter(|four| asked.wants(*four))
            .flat_map(|four| rules(four).map(move |(at, table)| (four, at, table)))
            .map(|(four, at, table)| rule(head(), four, at, table))
            .collect(),
        // The library's affair, and not told.
        NEW_NEIGHBOUR => Vec::new(),
        _ => return None,
    })
}

/// The one that is asked for.
fn one(asked: &Question<'_>, kind: u16) -> Result<Vec<u8>> {
    let all = inet::interfaces();
    match kind {
        NEW_LINK => {
            let body = asked.bytes.get(HEAD..HEAD + 16).ok_or(Errno::EINVAL)?;
            let index = u32::from_ne_bytes([body[4], body[5], body[6], body[7]]);
            let name = asked.attribute(16, LINK_NAME).map(|n| n.strip_suffix(b"\0").unwrap_or(n));
            if index == 0 && name.is_none() {
                return Err(Errno::EINVAL);
            }
            let is = |i: &&Interface| i.index == index || index == 0 && name == Some(i.name.as_bytes());
            let found = all.iter().find(is).ok_or(Errno::ENODEV)?;
            Ok(link(asked.head(NEW_LINK, 0), found))
        }
        NEW_ROUTE => {
            let to = asked.attribute(12, ROUTE_TO).and_then(ip_of).ok_or(Errno::EINVAL)?;
            let ways = routes(&all);
            let fits = |r: &&Route| r.to.0.is_ipv4() == to.is_ipv4() && contains(r.to, to);
            let way = ways.iter().filter(fits).max_by_key(|r| r.to.1).ok_or(Errno::ENETUNREACH)?;
            let whole = if to.is_ipv4() { 32 } else { 128 };
            Ok(route(asked.head(NEW_ROUTE, 0), &Route { to: (to, whole), ..*way }))
        }
        _ => Err(Errno::EOPNOTSUPP),
    }
}

fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|six| Ipv6Addr::from(six).into())
}

/// Whether the network has the address.
fn contains((net, prefix): (IpAddr, u8), ip: IpAddr) -> bool {
    let (net, ip) = (octets(net), octets(ip));
    let whole = prefix as usize / 8;
    let rest = 0xffu8.checked_shl(8 - prefix as u32 % 8).unwrap_or(0);
    net[..whole] == ip[..whole] && (prefix % 8 == 0 || (net[whole] ^ ip[whole]) & rest == 0)
}

/// A way: whither, by which interface, by which gateway, as whom.
#[derive(Clone, Copy)]
struct Route {
    to: (IpAddr, u8),
    interface: u32,
    gateway: Option<IpAddr>,
    from: Option<IpAddr>,
    local: bool,
}

fn routes(all: &[Interface]) -> Vec<Route> {
    let mut found = Vec::new();
    for one in all {
        for (ip, prefix) in one.addresses {
            let plain =
                Route { to: (ip, prefix), interface: one.index, gateway: None, from: None, local: false };
            let whole = if ip.is_ipv4() { 32 } else { 128 };
            if one.index == inet::OUTSIDE {
                let gateway = if ip.is_ipv4() { inet::GATEWAY.into() } else { inet::GATEWAY6.into() };
                let nowhere =
                    if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                found.push(Route { to: (nowhere, 0), gateway: Some(gateway), ..plain });
                let from = ip.is_ipv4().then_some(ip);
                found.push(Route { to: (network(ip, prefix), prefix), from, ..plain });
            } else if ip.is_ipv4() {
                let net = network(ip, prefix);
                found.push(Route { to: (net, prefix), from: Some(ip), local: true, ..plain });
            }
            let from = ip.is_ipv4().then_some(ip);
            found.push(Route { to: (ip, whole), from, local: true, ..plain });
        }
    }
    found
}

fn network(ip: IpAddr, prefix: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            Ipv4Addr::from(u32::from(v4) & u32::MAX.checked_shl(32 - prefix as u32).unwrap_or(0)).into()
        }
        IpAddr::V6(v6) => {
            Ipv6Addr::from(u128::from(v6) & u128::MAX.checked_shl(128 - prefix as u32).unwrap_or(0)).into()
        }
    }
}

/// `struct rtmsg`: family 0, lengths of the prefixes 1 and 2, tos 3, table 4, protocol 5, scope 6, type 7, flags 8.
fn route(mut message: Vec<u8>, way: &Route) -> Vec<u8> {
    const BY_KERNEL: u8 = 2;
    const BY_BOOT: u8 = 3;
    let table = if way.local { TABLE_LOCAL } else { TABLE_MAIN };
    let four = way.to.0.is_ipv4();
    let scope = match way.gateway {
        _ if !four => 0,
        Some(_) => 0,
        None if way.local => 254,
        None => 253,
    };
    let by = if way.gateway.is_some() { BY_BOOT } else { BY_KERNEL };
    let kind = if way.local { 2 } else { 1 };
    message.extend_from_slice(&[family_of(way.to.0) as u8, way.to.1, 0, 0, table, by, scope, kind]);
    message.extend_from_slice(&[0; 4]);
    attribute(&mut message, ROUTE_TABLE, &(table as u32).to_ne_bytes());
    if way.to.1 > 0 {
        attribute(&mut message, ROUTE_TO, &octets(way.to.0));
    }
    if let Some(gateway) = way.gateway {
        attribute(&mut message, ROUTE_GATEWAY, &octets(gateway));
    }
    if let Some(from) = way.from {
        attribute(&mut message, ROUTE_FROM, &octets(from));
    }
    attribute(&mut message, ROUTE_BY, &way.interface.to_ne_bytes());
    finished(message)
}

/// Which tables are looked at, in order.
fn rules(four: bool) -> impl Iterator<Item = (u32, u8)> {
    const TABLE_DEFAULT: u8 = 253;
    [(0, TABLE_LOCAL), (32766, TABLE_MAIN), (32767, TABLE_DEFAULT)].into_iter().take(if four { 3 } else { 2 })
}

/// `struct fib_rule_hdr`: family 0, lengths 1 and 2, tos 3, table 4, action 7, flags 8.
fn rule(mut message: Vec<u8>, four: bool, priority: u32, table: u8) -> Vec<u8> {
    const TO_TABLE: u8 = 1;
    let family = if four { abi::AF_INET } else { abi::AF_INET6 };
    message.extend_from_slice(&[family as u8, 0, 0, 0, table, 0, 0, TO_TABLE]);
    message.extend_from_slice(&[0; 4]);
    attribute(&mut message, RULE_TABLE, &(table as u32).to_ne_bytes());
    if priority != 0 {
        attribute(&mut message, RULE_PRIORITY, &priority.to_ne_bytes());
    }
    finished(message)
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn family_of(ip: IpAddr) -> u32 {
    if ip.is_ipv4() { abi::AF_INET } else { abi::AF_INET6 }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Write the length into a message's header.
pub fn finished(mut message: Vec<u8>) -> Vec<u8> {
    let len = message.len() as u32;
    message[..4].copy_from_slice(&len.to_ne_bytes());
    message
}

pub fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn name(one: &Interface) -> Vec<u8> {
    [one.name.as_bytes(), b"\0"].concat()
}

/// `struct ifinfomsg`: family 0, type 2, index 4, flags 8, change mask 12.
fn link(mut message: Vec<u8>, one: &Interface) -> Vec<u8> {
    // Lower layer up, besides what `ioctl` tells.
    let flags = interfaces::flags(one) as u32 | 0x1_0000;
    message.extend_from_slice(&[0, 0]);
    message.extend_from_slice(&interfaces::hardware_type(one).to_ne_bytes());
    for word in [one.index, flags, 0] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    attribute(&mut message, LINK_NAME, &name(one));
    attribute(&mut message, LINK_QUEUE, &1000u32.to_ne_bytes());
    // Unknown for the loopback, up for the other (RFC 2863).
    attribute(&mut message, LINK_STATE, &[if one.index == inet::LOOPBACK { 0 } else { 6 }]);
    attribute(&mut message, LINK_MTU, &one.mtu.to_ne_bytes());
    attribute(&mut message, LINK_ADDRESS, &one.hardware);
    let broadcast = if one.index == inet::LOOPBACK { [0; 6] } else { [0xff; 6] };
    attribute(&mut message, LINK_BROADCAST, &broadcast);
    let discipline: &[u8] = if one.index == inet::LOOPBACK { b"noqueue\0" } else { b"pfifo_fast\0" };
    attribute(&mut message, LINK_DISCIPLINE, discipline);
    finished(message)
}

/// `struct ifaddrmsg`: family 0, prefix 1, flags 2, scope 3, index 4.
fn address(mut message: Vec<u8>, one: &Interface, ip: IpAddr, prefix: u8) -> Vec<u8> {
    const PERMANENT: u8 = 0x80;
    // The whole world, the site, the host.
    let scope = match ip {
        _ if ip.is_loopback() => 254,
        IpAddr::V6(_) => 200,
        IpAddr::V4(_) => 0,
    };
    message.extend_from_slice(&[family_of(ip) as u8, prefix, PERMANENT, scope]);
    message.extend_from_slice(&one.index.to_ne_bytes());
    attribute(&mut message, ADDRESS, &octets(ip));
    if let IpAddr::V4(v4) = ip {
        attribute(&mut message, LOCAL, &v4.octets());
        if one.index != inet::LOOPBACK {
            let hosts = u32::MAX.checked_shr(prefix as u32).unwrap_or(0);
            attribute(&mut message, BROADCAST, &(u32::from(v4) | hosts).to_be_bytes());
        }
        attribute(&mut message, LABEL, &name(one));
    }
    finished(message)
}
