//! Multicast groups: who has joined which, on which interface: `ip(7)`, `ipv6(7)`, RFC 3678.
//!
//! ```text
//!   a socket    its memberships: group, interface, and from whom it wants to hear (all but some, or only some)
//!   the machine how many sockets are in each group: what nobody has joined is heard by nobody
//! ```
//!
//! As on Linux, a socket that has not joined a group hears it too if another has, unless IP_MULTICAST_ALL is off. All of
//! this is within the machine: QEMU's network brings no group's datagrams from outside.

use super::super::{Common, abi};
use super::{OUTSIDE, header, interfaces};
use crate::{
    errno::{Errno, Result},
    mem::{self, TryPush},
};
use alloc::{collections::BTreeMap, vec::Vec};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use hafez_mm::lock::{LazyLock, Mutex};
use linux_raw_sys::net as raw;

/// Memberships of one socket (`net.ipv4.igmp_max_memberships`), and sources of one membership (`igmp_max_msf`).
const MAX_MEMBERSHIPS: usize = 20;
const MAX_SOURCES: usize = 10;

/// How many sockets are in each group on each interface.
static JOINED: LazyLock<Mutex<BTreeMap<(IpAddr, u32), usize>>> = LazyLock::new(Mutex::default);

/// Whether anybody on the machine is in the group.
pub fn is_joined(group: IpAddr, interface: u32) -> bool {
    let all_nodes = match group {
        IpAddr::V4(v4) => v4 == Ipv4Addr::new(224, 0, 0, 1),
        IpAddr::V6(v6) => [0xff01, 0xff02].contains(&v6.segments()[0]) && u128::from(v6) as u64 == 1,
    };
    all_nodes || JOINED.lock().contains_key(&(group, interface))
}

struct Membership {
    group: IpAddr,
    interface: u32,
    /// Only these are heard, or all but these.
    only: bool,
    sources: Vec<IpAddr>,
    /// It has had sources: which kind it is can no longer change.
    fixed: bool,
}

/// See the module.
#[derive(Default)]
pub struct Groups(Mutex<Vec<Membership>>);

/// What is asked of a membership.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Join,
    Leave,
    JoinSource,
    LeaveSource,
    Block,
    Unblock,
}

fn change_of(level: u32, name: u32) -> Option<Change> {
    if !matches!(level, abi::IPPROTO_IP | abi::IPPROTO_IPV6) {
        return None;
    }
    Some(match (level, name) {
        (abi::IPPROTO_IP, raw::IP_ADD_MEMBERSHIP) => Change::Join,
        (abi::IPPROTO_IP, raw::IP_DROP_MEMBERSHIP) => Change::Leave,
        (abi::IPPROTO_IP, raw::IP_ADD_SOURCE_MEMBERSHIP) => Change::JoinSource,
        (abi::IPPROTO_IP, raw::IP_DROP_SOURCE_MEMBERSHIP) => Change::LeaveSource,
        (abi::IPPROTO_IP, raw::IP_BLOCK_SOURCE) => Change::Block,
        (abi::IPPROTO_IP, raw::IP_UNBLOCK_SOURCE) => Change::Unblock,
        (abi::IPPROTO_IPV6, raw::IPV6_ADD_MEMBERSHIP) => Change::Join,
        (abi::IPPROTO_IPV6, IPV6_DROP_MEMBERSHIP) => Change::Leave,
        (_, raw::MCAST_JOIN_GROUP) => Change::Join,
        (_, raw::MCAST_LEAVE_GROUP) => Change::Leave,
        (_, raw::MCAST_JOIN_SOURCE_GROUP) => Change::JoinSource,
        (_, raw::MCAST_LEAVE_SOURCE_GROUP) => Change::LeaveSource,
        (_, raw::MCAST_BLOCK_SOURCE) => Change::Block,
        (_, raw::MCAST_UNBLOCK_SOURCE) => Change::Unblock,
        _ => return None,
    })
}
const IPV6_DROP_MEMBERSHIP: u32 = 21;

/// Whether an option is about memberships, and what it answers for a stream, which has none.
pub fn refused(level: u32, name: u32) -> Option<Errno> {
    change_of(level, name)?;
    Some(if level == abi::IPPROTO_IP { Errno::EPROTO } else { Errno::ENOPROTOOPT })
}

/// `struct group_req` and `group_source_req`: the interface, then addresses of 128 bytes each, the first at 8.
const ADDRESS_AT: usize = 8;
const ADDRESS_BYTES: usize = 128;

fn v4_at(value: &[u8], at: usize) -> Result<IpAddr> {
    let bytes = value.get(at..at + 4).ok_or(Errno::EINVAL)?;
    Ok(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into())
}
fn v6_at(value: &[u8], at: usize) -> Result<IpAddr> {
    let bytes: [u8; 16] = value.get(at..at + 16).and_then(|b| b.try_into().ok()).ok_or(Errno::EINVAL)?;
    Ok(Ipv6Addr::from(bytes).into())
}
fn word_at(value: &[u8], at: usize) -> Result<u32> {
    let bytes = value.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or(Errno::EINVAL)?;
    Ok(u32::from_ne_bytes(bytes))
}
/// The address in a `struct sockaddr_storage`, which must be of the level's family.
fn stored(value: &[u8], at: usize, level: u32) -> Result<IpAddr> {
    let place = value.get(at..at + ADDRESS_BYTES).ok_or(Errno::EINVAL)?;
    match (u16::from_ne_bytes([place[0], place[1]]) as u32, level) {
        (abi::AF_INET, abi::IPPROTO_IP) => v4_at(place, 4),
        (abi::AF_INET6, abi::IPPROTO_IPV6) => v6_at(place, 8),
        _ => Err(Errno::EADDRNOTAVAIL),
    }
}

/// The interface with this address, or any that leads to groups.
fn interface(index: u32, address: IpAddr) -> Result<u32> {
    let all = interfaces();
    if index != 0 {
        return all.iter().find(|i| i.index == index).map(|i| i.index).ok_or(Errno::ENODEV);
    }
    if !address.is_unspecified() {
        return header::interface_of(address).ok_or(Errno::ENODEV);
    }
    all.iter().find(|i| i.index == OUTSIDE).map(|i| i.index).ok_or(Errno::ENODEV)
}

const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Group, interface and source that an option's value names.
fn asked(level: u32, name: u32, change: Change, value: &[u8]) -> Result<(IpAddr, u32, Option<IpAddr>)> {
    let sourced = !matches!(change, Change::Join | Change::Leave);
    let (group, index, address, source) = match (level, name) {
        (abi::IPPROTO_IP, raw::IP_ADD_MEMBERSHIP | raw::IP_DROP_MEMBERSHIP) => {
            // `struct ip_mreq`, or `ip_mreqn` with the interface's number.
            let index = if value.len() >= 12 { word_at(value, 8)? } else { 0 };
            (v4_at(value, 0)?, index, v4_at(value, 4)?, None)
        }
        (abi::IPPROTO_IP, raw::IP_UNBLOCK_SOURCE..=raw::IP_DROP_SOURCE_MEMBERSHIP) => {
            (v4_at(value, 0)?, 0, v4_at(value, 4)?, Some(v4_at(value, 8)?))
        }
        (abi::IPPROTO_IPV6, raw::IPV6_ADD_MEMBERSHIP | IPV6_DROP_MEMBERSHIP) => {
            (v6_at(value, 0)?, word_at(value, 16)?, NOWHERE, None)
        }
        _ => {
            let group = stored(value, ADDRESS_AT, level)?;
            let source = if sourced { Some(stored(value, ADDRESS_AT + ADDRESS_BYTES, level)?) } else { None };
            (group, word_at(value, 0)?, NOWHERE, source)
        }
    };
    if !group.is_multicast() {
        return Err(Errno::EINVAL);
    }
    Ok((group, interface(index, address)?, source))
}

impl Groups {
    /// Set an option that is about memberships; `None` if it is another.
    pub fn set(&self, common: &Common, level: u32, name: u32, value: &[u8]) -> Option<Result<()>> {
        let change = change_of(level, name)?;
        if level == abi::IPPROTO_IPV6 && common.domain != abi::AF_INET6 {
            return Some(Err(Errno::ENOPROTOOPT));
        }
        Some(asked(level, name, change, value).and_then(|(group, at, source)| match (change, source) {
            (Change::Join, _) => self.join(group, at, false),
            (Change::Leave, _) => self.leave(group, at),
            (_, Some(source)) => self.change_source(change, group, at, source),
            _ => Err(Errno::EINVAL),
        }))
    }

    fn join(&self, group: IpAddr, interface: u32, only: bool) -> Result<()> {
        if !mem::headroom(512) {
            return Err(Errno::ENOBUFS);
        }
        let mut all = self.0.lock();
        if all.iter().any(|m| (m.group, m.interface) == (group, interface)) {
            return Err(Errno::EADDRINUSE);
        }
        if all.len() >= MAX_MEMBERSHIPS {
            return Err(Errno::ENOBUFS);
        }
        all.try_push(Membership { group, interface, only, sources: Vec::new(), fixed: false })?;
        *JOINED.lock().entry((group, interface)).or_insert(0) += 1;
        Ok(())
    }

    fn leave(&self, group: IpAddr, interface: u32) -> Result<()> {
        let mut all = self.0.lock();
        let at = all.iter().position(|m| (m.group, m.interface) == (group, interface));
        all.remove(at.ok_or(Errno::EADDRNOTAVAIL)?);
        left(group, interface);
        Ok(())
    }

    fn change_source(&self, change: Change, group: IpAddr, interface: u32, source: IpAddr) -> Result<()> {
        let only = matches!(change, Change::JoinSource | Change::LeaveSource);
        let mut joined = false;
        if change == Change::JoinSource {
            match self.join(group, interface, true) {
                Ok(()) => joined = true,
                Err(Errno::EADDRINUSE) => {}
                Err(e) => return Err(e),
            }
        }
        let mut all = self.0.lock();
        let found = all.iter_mut().find(|m| (m.group, m.interface) == (group, interface));
        let member = found.ok_or(Errno::EINVAL)?;
        if member.only != only {
            // Without sources yet, it may still become the other kind.
            if member.fixed || matches!(change, Change::LeaveSource | Change::Unblock) {
                return Err(Errno::EINVAL);
            }
            member.only = only;
        }
        let at = member.sources.iter().position(|s| *s == source);
        match change {
            Change::JoinSource | Change::Block => {
                if at.is_some() {
                    return Err(Errno::EADDRNOTAVAIL);
                }
                if member.sources.len() >= MAX_SOURCES {
                    return Err(Errno::ENOBUFS);
                }
                let pushed = member.sources.try_push(source);
                member.fixed = true;
                drop(all);
                if pushed.is_err() && joined {
                    self.leave(group, interface)?;
                }
                Ok(pushed?)
            }
            _ => {
                member.sources.remove(at.ok_or(Errno::EADDRNOTAVAIL)?);
                let empty = member.only && member.sources.is_empty();
                drop(all);
                if empty { self.leave(group, interface) } else { Ok(()) }
            }
        }
    }

    /// Whether the socket hears this; `all`: also what it has not joined (IP_MULTICAST_ALL).
    pub fn hears(&self, group: IpAddr, interface: u32, from: IpAddr, all: bool) -> bool {
        let members = self.0.lock();
        match members.iter().find(|m| (m.group, m.interface) == (group, interface)) {
            Some(m) => m.sources.contains(&from) == m.only,
            None => all,
        }
    }

    /// Leave all: the socket is closed.
    pub fn clear(&self) {
        for gone in core::mem::take(&mut *self.0.lock()) {
            left(gone.group, gone.interface);
        }
    }
}

/// One socket fewer is in a group.
fn left(group: IpAddr, interface: u32) {
    let mut joined = JOINED.lock();
    if let Some(count) = joined.get_mut(&(group, interface)) {
        *count -= 1;
        if *count == 0 {
            joined.remove(&(group, interface));
        }
    }
}

/// IP_MULTICAST_IF and IPV6_MULTICAST_IF: the interface that a value names, 0 for none in particular; and what is to be told of it.
pub fn way_out(level: u32, value: &[u8]) -> Result<u32> {
    let known = |index: u32| interfaces().iter().any(|i| i.index == index);
    if level == abi::IPPROTO_IPV6 {
        let index = word_at(value, 0)?;
        return if index == 0 || known(index) { Ok(index) } else { Err(Errno::ENODEV) };
    }
    // An address, or one of the structures that have it at 4 and perhaps the number at 8.
    let index = if value.len() >= 12 { word_at(value, 8)? } else { 0 };
    let address = v4_at(value, if value.len() >= 8 { 4 } else { 0 })?;
    match index {
        0 if address.is_unspecified() => Ok(0),
        0 => header::interface_of(address).ok_or(Errno::EADDRNOTAVAIL),
        index if known(index) => Ok(index),
        _ => Err(Errno::EADDRNOTAVAIL),
    }
}
