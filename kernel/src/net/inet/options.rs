//! Options of IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP: most are remembered and told, and change nothing, for there is one network
//! only and little to choose. Those that ask for notes beside the bytes are also kept as one word, which each receive looks at.

use super::super::{Common, abi, options::*};
use super::{
    groups,
    header::{HOPS, Wants},
};
use crate::errno::{Errno, Result};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use hafez_mm::lock::Mutex;
use linux_raw_sys::net as raw;

/// Which values an option can take.
#[derive(Clone, Copy)]
enum Values {
    Any,
    Flag,
    Range(i32, i32),
    /// 0 for all, or a header and more.
    Coverage,
}

/// Level, name, value at first, values that it can take.
type Known = (u32, u32, i32, Values);

const KNOWN: &[Known] = &[
    (abi::IPPROTO_IP, raw::IP_TOS, 0, Values::Any),
    (abi::IPPROTO_IP, raw::IP_TTL, 64, Values::Range(1, 255)),
    (abi::IPPROTO_IP, raw::IP_MTU_DISCOVER, 1, Values::Range(0, 5)),
    (abi::IPPROTO_IP, raw::IP_RECVERR, 0, Values::Flag),
    (abi::IPPROTO_IP, raw::IP_RECVTTL, 0, Values::Flag),
    (abi::IPPROTO_IP, raw::IP_RECVTOS, 0, Values::Flag),
    (abi::IPPROTO_IP, raw::IP_PKTINFO, 0, Values::Flag),
    // Options that no packet has here: who asks is never told of one.
    (abi::IPPROTO_IP, raw::IP_RECVOPTS, 0, Values::Flag),
    (abi::IPPROTO_IP, raw::IP_RETOPTS, 0, Values::Flag),
    (abi::IPPROTO_IP, raw::IP_RECVORIGDSTADDR, 0, Values::Flag),
    (abi::IPPROTO_IP, raw::IP_FREEBIND, 0, Values::Flag),
    (abi::IPPROTO_IP, raw::IP_BIND_ADDRESS_NO_PORT, 0, Values::Flag),
    (abi::IPPROTO_IP, raw::IP_MULTICAST_TTL, 1, Values::Range(-1, 255)),
    (abi::IPPROTO_IP, raw::IP_MULTICAST_LOOP, 1, Values::Flag),
    (abi::IPPROTO_IP, raw::IP_MULTICAST_ALL, 1, Values::Flag),
    (abi::IPPROTO_IPV6, raw::IPV6_UNICAST_HOPS, -1, Values::Range(-1, 255)),
    (abi::IPPROTO_IPV6, raw::IPV6_MULTICAST_HOPS, 1, Values::Range(-1, 255)),
    (abi::IPPROTO_IPV6, raw::IPV6_MULTICAST_LOOP, 1, Values::Flag),
    (abi::IPPROTO_IPV6, raw::IPV6_RECVERR, 0, Values::Flag),
    (abi::IPPROTO_IPV6, raw::IPV6_MULTICAST_ALL, 1, Values::Flag),
    (abi::IPPROTO_IPV6, raw::IPV6_RECVPKTINFO, 0, Values::Flag),
    (abi::IPPROTO_IPV6, raw::IPV6_RECVHOPLIMIT, 0, Values::Flag),
    (abi::IPPROTO_IPV6, raw::IPV6_RECVTCLASS, 0, Values::Flag),
    (abi::IPPROTO_IPV6, raw::IPV6_RECVORIGDSTADDR, 0, Values::Flag),
    // Headers that no packet has here: who asks is never told of one.
    (abi::IPPROTO_IPV6, raw::IPV6_RECVHOPOPTS, 0, Values::Flag),
    (abi::IPPROTO_IPV6, raw::IPV6_RECVRTHDR, 0, Values::Flag),
    (abi::IPPROTO_IPV6, raw::IPV6_RECVDSTOPTS, 0, Values::Flag),
    (abi::IPPROTO_IPV6, raw::IPV6_RECVPATHMTU, 0, Values::Flag),
    (abi::IPPROTO_IPV6, raw::IPV6_MTU_DISCOVER, 1, Values::Range(0, 5)),
    (abi::IPPROTO_IPV6, raw::IPV6_TCLASS, 0, Values::Range(-1, 255)),
    (abi::IPPROTO_IPV6, raw::IPV6_AUTOFLOWLABEL, 1, Values::Flag),
    (abi::IPPROTO_IPV6, raw::IPV6_DONTFRAG, 0, Values::Flag),
    (abi::IPPROTO_TCP, raw::TCP_MAXSEG, 536, Values::Range(88, 32767)),
    (abi::IPPROTO_TCP, raw::TCP_KEEPIDLE, 7200, Values::Range(1, 32767)),
    (abi::IPPROTO_TCP, raw::TCP_KEEPINTVL, 75, Values::Range(1, 32767)),
    (abi::IPPROTO_TCP, raw::TCP_KEEPCNT, 9, Values::Range(1, 127)),
    (abi::IPPROTO_TCP, raw::TCP_SYNCNT, 6, Values::Range(1, 127)),
    (abi::IPPROTO_TCP, raw::TCP_LINGER2, 60, Values::Any),
    (abi::IPPROTO_TCP, raw::TCP_DEFER_ACCEPT, 0, Values::Any),
    (abi::IPPROTO_TCP, raw::TCP_WINDOW_CLAMP, 0, Values::Any),
    (abi::IPPROTO_TCP, raw::TCP_QUICKACK, 1, Values::Flag),
    (abi::IPPROTO_TCP, raw::TCP_USER_TIMEOUT, 0, Values::Range(0, i32::MAX)),
    (abi::IPPROTO_TCP, raw::TCP_NOTSENT_LOWAT, 0, Values::Any),
    (abi::IPPROTO_TCP, raw::TCP_FASTOPEN, 0, Values::Range(0, i32::MAX)),
    (abi::IPPROTO_TCP, raw::TCP_FASTOPEN_CONNECT, 0, Values::Range(0, 1)),
    (abi::IPPROTO_UDP, UDP_SEGMENT, 0, Values::Range(0, u16::MAX as i32)),
    // May join what came as several: nothing does.
    (abi::IPPROTO_UDP, UDP_GRO, 0, Values::Flag),
    (abi::IPPROTO_UDPLITE, SEND_COVERAGE, 0, Values::Coverage),
    (abi::IPPROTO_UDPLITE, RECEIVE_COVERAGE, 0, Values::Coverage),
];
/// How much of a UDP-Lite datagram its checksum covers; inside the machine nothing gets lost on the way.
const SEND_COVERAGE: u32 = 10;
const RECEIVE_COVERAGE: u32 = 11;
/// How long the datagrams are that one call's bytes are cut into; whether those of one sender may be put together again.
pub const UDP_CORK: u32 = 1;
pub const UDP_SEGMENT: u32 = 103;
const UDP_GRO: u32 = 104;
/// The address that IP_MULTICAST_IF was set by, as a number.
const WAY_OUT: u32 = 1 << 16 | raw::IP_MULTICAST_IF;

/// Whether it is IP_MTU or IPV6_MTU.
pub fn is_mtu(level: u32, name: u32) -> bool {
    matches!((level, name), (abi::IPPROTO_IP, raw::IP_MTU) | (abi::IPPROTO_IPV6, raw::IPV6_MTU))
}

/// The longest packet on the way to the peer.
pub fn mtu(level: u32, common: &Common, peer: Option<SocketAddr>) -> Result<Vec<u8>> {
    if !belongs(common, level) {
        return Err(Errno::EOPNOTSUPP);
    }
    let bytes = largest_packet(peer.ok_or(Errno::ENOTCONN)?.ip());
    // The length in an IPv4 header has 16 bits.
    let limit = if level == abi::IPPROTO_IP { u16::MAX as u32 } else { u32::MAX };
    Ok(int(bytes.min(limit) as i64))
}

/// The longest packet to an address, by the interface that leads there.
pub fn largest_packet(to: IpAddr) -> u32 {
    let index = if super::is_ours(to) { super::LOOPBACK } else { super::OUTSIDE };
    super::interfaces().iter().find(|i| i.index == index).map_or(1500, |i| i.mtu)
}

/// What differs from the values at first.
#[derive(Default)]
pub struct Set {
    changed: Mutex<Vec<(u32, u32, i32)>>,
    /// The [`Wants`] among them.
    wants: AtomicU32,
}

/// The flag of [`Common`] that an option is, if it is one.
fn flag(level: u32, name: u32) -> Option<u32> {
    match (level, name) {
        (abi::IPPROTO_IPV6, raw::IPV6_V6ONLY) => Some(V6ONLY),
        (abi::IPPROTO_TCP, raw::TCP_NODELAY) => Some(NODELAY),
        (abi::IPPROTO_TCP, raw::TCP_CORK) => Some(CORK),
        (abi::IPPROTO_TCP, raw::TCP_INQ) => Some(INQ),
        (abi::IPPROTO_UDP, UDP_CORK) => Some(CORK),
        _ => None,
    }
}

/// Whether sockets such as this have options of this level.
fn belongs(common: &Common, level: u32) -> bool {
    match level {
        abi::IPPROTO_TCP => common.kind == abi::SOCK_STREAM,
        abi::IPPROTO_UDP => common.kind == abi::SOCK_DGRAM && common.protocol == abi::IPPROTO_UDP,
        abi::IPPROTO_UDPLITE => common.protocol == abi::IPPROTO_UDPLITE,
        abi::IPPROTO_IPV6 => common.domain == abi::AF_INET6,
        abi::IPPROTO_IP | abi::SOL_SOCKET => true,
        _ => false,
    }
}

fn known(level: u32, name: u32) -> Result<&'static Known> {
    let found = KNOWN.iter().find(|k| (k.0, k.1) == (level, name));
    found.ok_or(Errno::ENOPROTOOPT)
}

impl Set {
    /// `ENOPROTOOPT` for what is not known here.
    pub fn get(&self, common: &Common, level: u32, name: u32) -> Result<Vec<u8>> {
        if !belongs(common, level) {
            return Err(Errno::EOPNOTSUPP);
        }
        if let Some(flag) = flag(level, name) {
            return Ok(int(common.has(flag) as i64));
        }
        if (level, name) == (abi::IPPROTO_IP, raw::IP_MULTICAST_IF) {
            return Ok(self.changed(level, WAY_OUT).unwrap_or(0).to_ne_bytes().to_vec());
        }
        if (level, name) == (abi::IPPROTO_IPV6, raw::IPV6_MULTICAST_IF) {
            return Ok(int(self.way_out(level) as i64));
        }
        let number = self.number(level, name)?;
        let hops =
            matches!((level, name), (abi::IPPROTO_IPV6, raw::IPV6_UNICAST_HOPS | raw::IPV6_MULTICAST_HOPS));
        Ok(int(if hops && number < 0 { HOPS as i64 } else { number as i64 }))
    }

    /// The value of a number among them.
    pub fn number(&self, level: u32, name: u32) -> Result<i32> {
        let (_, _, first, _) = *known(level, name)?;
        Ok(self.changed(level, name).unwrap_or(first))
    }
    pub fn changed(&self, level: u32, name: u32) -> Option<i32> {
        self.changed.lock().iter().find(|s| (s.0, s.1) == (level, name)).map(|s| s.2)
    }
    fn change(&self, level: u32, name: u32, number: i32) {
        let mut set = self.changed.lock();
        set.retain(|s| (s.0, s.1) != (level, name));
        set.push((level, name, number));
    }
    /// What an accepted socket has from its listener: all but what is a listener's own, or one connection's.
    pub fn inherit(&self, from: &Set) {
        const OWN: [u32; 5] = [
            raw::TCP_FASTOPEN,
            raw::TCP_FASTOPEN_CONNECT,
            raw::TCP_DEFER_ACCEPT,
            raw::TCP_QUICKACK,
            raw::TCP_WINDOW_CLAMP,
        ];
        let mut changed = from.changed.lock().clone();
        changed.retain(|(level, name, _)| *level != abi::IPPROTO_TCP || !OWN.contains(name));
        *self.changed.lock() = changed;
        self.wants.store(from.wants.load(Relaxed), Relaxed);
    }
    /// IP_FREEBIND: also to addresses that are not the machine's.
    pub fn binds_freely(&self) -> bool {
        self.changed(abi::IPPROTO_IP, raw::IP_FREEBIND) == Some(1)
    }
    /// Which notes beside the bytes are asked for.
    pub fn wants(&self) -> Wants {
        Wants::from_bits_truncate(self.wants.load(Relaxed))
    }
    /// The interface that datagrams to groups go by; 0: any that leads to groups.
    pub fn way_out(&self, level: u32) -> u32 {
        let name = if level == abi::IPPROTO_IP { raw::IP_MULTICAST_IF } else { raw::IPV6_MULTICAST_IF };
        self.changed(level, name).unwrap_or(0) as u32
    }
    fn set_way_out(&self, level: u32, name: u32, value: &[u8]) -> Result<()> {
        let index = groups::way_out(level, value)?;
        self.change(level, name, index as i32);
        if level == abi::IPPROTO_IP {
            let at = if value.len() >= 8 { 4 } else { 0 };
            self.change(level, WAY_OUT, int_of(&value[at..])?);
        }
        Ok(())
    }

    pub fn set(&self, common: &Common, level: u32, name: u32, value: &[u8]) -> Result<()> {
        if !belongs(common, level) {
            return Err(Errno::ENOPROTOOPT);
        }
        if let Some(flag) = flag(level, name) {
            let number = int_of(value)?;
            if flag == INQ && !(0..=1).contains(&number) {
                return Err(Errno::EINVAL);
            }
            common.set(flag, number != 0);
            return Ok(());
        }
        if matches!(
            (level, name),
            (abi::IPPROTO_IP, raw::IP_MULTICAST_IF) | (abi::IPPROTO_IPV6, raw::IPV6_MULTICAST_IF)
        ) {
            return self.set_way_out(level, name, value);
        }
        let (_, _, first, values) = *known(level, name)?;
        // Those of IPPROTO_IP may be a single byte.
        let number = match value {
            [byte, ..] if value.len() < 4 && level == abi::IPPROTO_IP => *byte as i32,
            _ => int_of(value)?,
        };
        let number = match values {
            Values::Any => number,
            Values::Flag => (number != 0) as i32,
            Values::Range(low, high) if (low..=high).contains(&number) => number,
            // -1 asks for the value at first, and for TCP's segments 0 does.
            Values::Range(..) if number == -1 && level != abi::IPPROTO_TCP && level != abi::IPPROTO_UDP => {
                first
            }
            Values::Range(..) if (level, name, number) == (abi::IPPROTO_TCP, raw::TCP_MAXSEG, 0) => first,
            Values::Range(..) => return Err(Errno::EINVAL),
            Values::Coverage if number == 0 => 0,
            Values::Coverage => number.clamp(8, u16::MAX as i32),
        };
        self.change(level, name, number);
        if let Some(want) = Wants::of(level, name) {
            if number != 0 {
                self.wants.fetch_or(want.bits(), Relaxed);
            } else {
                self.wants.fetch_and(!want.bits(), Relaxed);
            }
        }
        Ok(())
    }
}
