//! ICMP and ICMPv6, as far as echoes go.
//!
//! ```text
//!   a message  type 0, code 1, checksum 2, identifier 4, sequence 6, then what is to come back
//! ```

use super::super::super::abi;
use super::super::{OUTSIDE, header::HOPS, outside};
use super::{Datagram, spread};
use crate::errno::{Errno, Result};
use alloc::vec::Vec;
use core::net::IpAddr;

/// Types: a request, and its answer.
const REQUEST: u8 = 8;
const REPLY: u8 = 0;
const REQUEST6: u8 = 128;
const REPLY6: u8 = 129;
/// Bytes before what is to come back.
const HEAD: usize = 8;

/// Whether packets of this protocol are ICMP's.
pub fn is(protocol: u32) -> bool {
    matches!(protocol, abi::IPPROTO_ICMP | abi::IPPROTO_ICMPV6)
}

/// The Internet's checksum of several pieces, each but the last of even length.
pub fn checksum(pieces: &[&[u8]]) -> u16 {
    let pairs = pieces.iter().flat_map(|piece| piece.chunks(2));
    let sum: u64 = pairs.map(|pair| (pair[0] as u64) << 8 | pair.get(1).copied().unwrap_or(0) as u64).sum();
    let folded = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// Write a message's checksum. That of IPv6 covers addresses, length and protocol, too.
pub fn seal(bytes: &mut [u8], from: IpAddr, to: IpAddr) {
    if bytes.len() < 4 {
        return;
    }
    bytes[2..4].fill(0);
    let sum = match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let len = (bytes.len() as u32).to_be_bytes();
            let protocol = abi::IPPROTO_ICMPV6.to_be_bytes();
            checksum(&[&from.octets(), &to.octets(), &len, &protocol, bytes])
        }
        _ => checksum(&[bytes]),
    };
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// What an ICMP socket for anybody may send: echo requests.
pub fn check_request(domain: u32, bytes: &[u8]) -> Result<()> {
    let kind = if domain == abi::AF_INET { REQUEST } else { REQUEST6 };
    let good = bytes.len() >= HEAD && (bytes[0], bytes[1]) == (kind, 0);
    if good { Ok(()) } else { Err(Errno::EINVAL) }
}

/// The identifier of an echo's answer.
pub fn reply_ident(packet: &Datagram<'_>) -> Option<u16> {
    let kind = if packet.to.is_ipv4() { REPLY } else { REPLY6 };
    let answers = packet.bytes.len() >= HEAD && packet.bytes[0] == kind;
    answers.then(|| u16::from_be_bytes([packet.bytes[4], packet.bytes[5]]))
}

/// A packet has come to this machine: raw sockets hear it, and an echo request is answered.
pub fn arrives(packet: &Datagram<'_>) {
    spread(packet);
    let (ours, request, reply) = match packet.to {
        IpAddr::V4(_) => (abi::IPPROTO_ICMP, REQUEST, REPLY),
        IpAddr::V6(_) => (abi::IPPROTO_ICMPV6, REQUEST6, REPLY6),
    };
    if packet.protocol != ours || packet.bytes.len() < HEAD || packet.bytes[0] != request {
        return;
    }
    let mut answer = Vec::new();
    // Where there is no room, it is lost.
    if answer.try_reserve_exact(packet.bytes.len()).is_err() {
        return;
    }
    answer.extend_from_slice(packet.bytes);
    answer[0] = reply;
    seal(&mut answer, packet.to, packet.from);
    spread(&Datagram { from: packet.to, to: packet.from, hops: HOPS, bytes: &answer, ..*packet });
}

/// A packet for another machine: only echo requests find the way.
pub fn leaves(packet: &Datagram<'_>) -> Result<()> {
    let request = if packet.to.is_ipv4() { REQUEST } else { REQUEST6 };
    if !is(packet.protocol) || packet.bytes.len() < HEAD || packet.bytes[0] != request {
        return Err(Errno::ENETUNREACH);
    }
    let ident = u16::from_be_bytes([packet.bytes[4], packet.bytes[5]]);
    outside::send_echo(ident, packet.to, packet.hops, packet.bytes)
}

/// An ICMP message has come from another machine.
pub fn came(bytes: &[u8], from: IpAddr, to: IpAddr, hops: u8) {
    let protocol = if from.is_ipv4() { abi::IPPROTO_ICMP } else { abi::IPPROTO_ICMPV6 };
    spread(&Datagram { from, to, protocol, hops, class: 0, interface: OUTSIDE, bytes });
}
