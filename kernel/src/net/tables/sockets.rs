//! A line a socket.

use super::super::{
    Common, Protocol, abi,
    inet::{self, Row},
    netlink::Netlink,
    registry,
    unix::Unix,
};
use super::Table;
use crate::errno::Result;
use core::fmt::{self, Display, Formatter};
use core::net::{IpAddr, SocketAddr};

/// Width of the lines of `tcp` and of `udp`.
const TCP_WIDTH: usize = 149;
const UDP_WIDTH: usize = 127;

/// An address as these tables have it: words as they lie in memory, and the port.
struct Hex(SocketAddr, bool);

impl Display for Hex {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Hex(at, six) = self;
        match at.ip() {
            IpAddr::V4(ip) if !six => write!(f, "{:08X}", u32::from_ne_bytes(ip.octets()))?,
            ip => {
                let octets = match ip {
                    IpAddr::V4(v4) if v4.is_unspecified() => [0; 16],
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                    IpAddr::V6(v6) => v6.octets(),
                };
                for word in octets.as_chunks::<4>().0 {
                    write!(f, "{:08X}", u32::from_ne_bytes(*word))?;
                }
            }
        }
        write!(f, ":{:04X}", at.port())
    }
}

/// The columns that all of the internet's tables have.
struct Columns<'a> {
    row: &'a Row,
    common: &'a Common,
    six: bool,
}

impl Display for Columns<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Columns { row, common, six } = self;
        let (local, peer) = (Hex(row.local, *six), Hex(row.peer, *six));
        write!(
            f,
            "{local} {peer} {:02X} {:08X}:{:08X} 00:00000000 00000000 {:5}        0 {}",
            row.state,
            row.unsent,
            row.unread,
            common.owner(),
            common.number
        )
    }
}

/// All sockets of one family and kind that have a row.
fn rows(six: bool, kind: u32) -> impl Iterator<Item = (alloc::sync::Arc<dyn Protocol>, Row)> {
    let domain = if six { abi::AF_INET6 } else { abi::AF_INET };
    registry::each().filter_map(move |socket| {
        let common = socket.common();
        let wanted = common.domain == domain && common.protocol == kind;
        let row = wanted.then(|| inet::row(&*socket)).flatten()?;
        Some((socket, row))
    })
}

const HEAD6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";

pub fn tcp(table: &mut Table, six: bool) -> Result<()> {
    let width = if six { 0 } else { TCP_WIDTH };
    let head =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
    table.padded(width, format_args!("{}", if six { HEAD6 } else { head }))?;
    for (n, (socket, row)) in rows(six, abi::IPPROTO_TCP).enumerate() {
        let columns = Columns { row: &row, common: socket.common(), six };
        table.padded(width, format_args!("{n:4}: {columns} 1 {:016x} 100 0 0 10 0", 0))?;
    }
    Ok(())
}

pub fn udp(table: &mut Table, six: bool, protocol: u32) -> Result<()> {
    let width = if six { 0 } else { UDP_WIDTH };
    if six {
        table.line(format_args!("{HEAD6} ref pointer drops"))?;
    } else {
        table.padded(
            width,
            format_args!(
                "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops"
            ),
        )?;
    }
    for (n, (socket, row)) in rows(six, protocol).enumerate() {
        let columns = Columns { row: &row, common: socket.common(), six };
        table.padded(width, format_args!("{n:5}: {columns} 2 {:016x} {}", 0, socket.common().drops()))?;
    }
    Ok(())
}

/// Raw sockets, or ICMP sockets for anybody.
pub fn raw(table: &mut Table, six: bool, ping: bool) -> Result<()> {
    let head =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
    table.line(format_args!("{} ref pointer drops", if six { HEAD6 } else { head }))?;
    let domain = if six { abi::AF_INET6 } else { abi::AF_INET };
    let kind = if ping { abi::SOCK_DGRAM } else { abi::SOCK_RAW };
    for (n, socket) in registry::each().enumerate() {
        let common = socket.common();
        let wanted = (common.domain, common.kind) == (domain, kind);
        let ours =
            kind == abi::SOCK_RAW || matches!(common.protocol, abi::IPPROTO_ICMP | abi::IPPROTO_ICMPV6);
        let Some(row) = (wanted && ours).then(|| inet::row(&*socket)).flatten() else { continue };
        let columns = Columns { row: &row, common, six };
        table.line(format_args!("{n:4}: {columns} 2 {:016x} {}", 0, common.drops()))?;
    }
    Ok(())
}
/// There are none: only the head.
pub fn packet(table: &mut Table) -> Result<()> {
    table.line(format_args!("sk               RefCnt Type Proto  Iface R Rmem   User   Inode"))
}

pub fn unix(table: &mut Table) -> Result<()> {
    table.line(format_args!("Num       RefCount Protocol Flags    Type St Inode Path"))?;
    for socket in registry::each() {
        let Some(unix) = socket.as_any().downcast_ref::<Unix>() else { continue };
        let common = socket.common();
        // __SO_ACCEPTCON; SS_UNCONNECTED, SS_CONNECTED.
        let flags = if socket.is_listening() { 0x10000 } else { 0 };
        let state = if unix.has_peer() { 3 } else { 1 };
        table.line(format_args!(
            "{:016x}: {:08X} {:08X} {flags:08X} {:04X} {state:02X} {:5}",
            0, 2, 0, common.kind, common.number
        ))?;
        if let Some(name) = unix.shown_name() {
            // Before the end of the line.
            table.0.pop();
            table.raw(b" ")?;
            table.raw(&name)?;
            table.raw(b"\n")?;
        }
    }
    Ok(())
}

pub fn netlink(table: &mut Table) -> Result<()> {
    table.line(format_args!(
        "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode"
    ))?;
    for socket in registry::each() {
        let Some(one) = socket.as_any().downcast_ref::<Netlink>() else { continue };
        let common = socket.common();
        table.line(format_args!(
            "{:016x} {:<3} {:<10} {:08x} {:<8} {:<8} {:<5} {:<8} {:<8} {:<8}",
            0,
            common.protocol,
            one.port(),
            0,
            socket.holds(),
            0,
            0,
            2,
            0,
            common.number
        ))?;
    }
    Ok(())
}

/// TCP connections that are in use.
pub fn established() -> usize {
    let both = [false, true].into_iter().flat_map(|six| rows(six, abi::IPPROTO_TCP));
    both.filter(|(_, row)| row.state == 1).count()
}

/// How many sockets of a family have a row, and how many there are.
fn count(six: bool, kind: u32) -> usize {
    rows(six, kind).count()
}
fn all_of(domain: u32, protocol: u32) -> usize {
    registry::each().filter(|s| (s.common().domain, s.common().protocol) == (domain, protocol)).count()
}

fn of_kind(domain: u32, kind: u32) -> usize {
    registry::each().filter(|s| (s.common().domain, s.common().kind) == (domain, kind)).count()
}

pub fn sockstat(table: &mut Table) -> Result<()> {
    let pages = registry::each().map(|s| s.holds()).sum::<usize>().div_ceil(hafez_mm::PAGE_SIZE);
    table.line(format_args!("sockets: used {}", registry::each().count()))?;
    table.line(format_args!(
        "TCP: inuse {} orphan 0 tw 0 alloc {} mem {pages}",
        count(false, abi::IPPROTO_TCP),
        all_of(abi::AF_INET, abi::IPPROTO_TCP) + all_of(abi::AF_INET6, abi::IPPROTO_TCP)
    ))?;
    table.line(format_args!("UDP: inuse {} mem 0", count(false, abi::IPPROTO_UDP)))?;
    table.line(format_args!("UDPLITE: inuse {}", count(false, abi::IPPROTO_UDPLITE)))?;
    table.line(format_args!("RAW: inuse {}\nFRAG: inuse 0 memory 0", of_kind(abi::AF_INET, abi::SOCK_RAW)))
}

pub fn sockstat6(table: &mut Table) -> Result<()> {
    table.line(format_args!("TCP6: inuse {}", count(true, abi::IPPROTO_TCP)))?;
    table.line(format_args!("UDP6: inuse {}", count(true, abi::IPPROTO_UDP)))?;
    table.line(format_args!("UDPLITE6: inuse {}", count(true, abi::IPPROTO_UDPLITE)))?;
    table.line(format_args!("RAW6: inuse {}\nFRAG6: inuse 0 memory 0", of_kind(abi::AF_INET6, abi::SOCK_RAW)))
}
