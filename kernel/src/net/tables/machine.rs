//! The interfaces, the ways out, and what is counted.

use super::super::inet::{self, Interface, LOOPBACK, OUTSIDE};
use super::Table;
use crate::errno::Result;
use core::net::{IpAddr, Ipv4Addr};

pub fn dev(table: &mut Table) -> Result<()> {
    table
        .line(format_args!("Inter-|   Receive                                                |  Transmit"))?;
    table.line(format_args!(
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed"
    ))?;
    for one in inet::interfaces() {
        // Inside the machine there are no packets.
        let n = if one.index == OUTSIDE { inet::counted() } else { inet::Counted::default() };
        table.line(format_args!(
            "{:>6}: {:7} {:7} {:4} {:4} {:4} {:5} {:10} {:9} {:8} {:7} {:4} {:4} {:4} {:5} {:7} {:10}",
            one.name,
            n.bytes_in,
            n.packets_in,
            0,
            0,
            0,
            0,
            0,
            0,
            n.bytes_out,
            n.packets_out,
            0,
            0,
            0,
            0,
            0,
            0
        ))?;
    }
    Ok(())
}

fn word(ip: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(ip.octets())
}
fn outside() -> Option<Interface> {
    inet::interfaces().into_iter().find(|i| i.index == OUTSIDE)
}

pub fn route(table: &mut Table) -> Result<()> {
    const WIDTH: usize = 127;
    table.padded(
        WIDTH,
        format_args!("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"),
    )?;
    let Some(one) = outside() else { return Ok(()) };
    let (IpAddr::V4(ip), prefix) = one.addresses[0] else { return Ok(()) };
    let mask = Ipv4Addr::from(u32::MAX.checked_shl(32 - prefix as u32).unwrap_or(0));
    // Up, and by a gateway.
    let ways = [(0, word(inet::GATEWAY), 3, 0), (word(ip) & word(mask), 0, 1, word(mask))];
    for (to, gateway, flags, mask) in ways {
        table.padded(
            WIDTH,
            format_args!("{}\t{to:08X}\t{gateway:08X}\t{flags:04X}\t0\t0\t0\t{mask:08X}\t0\t0\t0", one.name),
        )?;
    }
    Ok(())
}

pub fn ipv6_route(table: &mut Table) -> Result<()> {
    let mut way = |to: u128, len: u8, by: u128, metric: u32, flags: u32, name: &str| {
        let none = 0u128;
        table.line(format_args!(
            "{to:032x} {len:02x} {none:032x} 00 {by:032x} {metric:08x} 00000001 00000000 {flags:08x} {name:>8}"
        ))
    };
    if let Some(one) = outside()
        && let (IpAddr::V6(ip), prefix) = one.addresses[1]
    {
        let net = u128::from(ip) & u128::MAX.checked_shl(128 - prefix as u32).unwrap_or(0);
        way(net, prefix, 0, 0x100, 1, one.name)?;
        way(0, 0, inet::GATEWAY6.into(), 0x400, 3, one.name)?;
        way(ip.into(), 128, 0, 0, 0x8020_0001, one.name)?;
    }
    way(1, 128, 0, 0, 0x8020_0001, "lo")
}

pub fn if_inet6(table: &mut Table) -> Result<()> {
    for one in inet::interfaces() {
        for (ip, prefix) in one.addresses {
            let IpAddr::V6(ip) = ip else { continue };
            // Of the host, of the site; permanent.
            let scope = if one.index == LOOPBACK { 0x10 } else { 0x40 };
            table.line(format_args!(
                "{:032x} {:02x} {prefix:02x} {scope:02x} 80 {:>8}",
                u128::from(ip),
                one.index,
                one.name
            ))?;
        }
    }
    Ok(())
}

/// Neighbours are the library's affair, and not told.
pub fn arp(table: &mut Table) -> Result<()> {
    table.line(format_args!("IP address       HW type     Flags       HW address            Mask     Device"))
}

pub fn dev_mcast(_: &mut Table) -> Result<()> {
    Ok(())
}

/// Only what is counted is not 0.
pub fn snmp(table: &mut Table) -> Result<()> {
    let n = inet::counted();
    let established = super::sockets::established();
    table.line(format_args!(
        "Ip: Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos InDiscards InDelivers OutRequests OutDiscards OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragOKs FragFails FragCreates OutTransmits"
    ))?;
    let (came, went) = (n.packets_in, n.packets_out);
    table.line(format_args!("Ip: 2 64 {came} 0 0 0 0 0 {came} {went} 0 0 0 0 0 0 0 0 0 {went}"))?;
    table.line(format_args!(
        "Icmp: InMsgs InErrors InCsumErrors InDestUnreachs InTimeExcds InParmProbs InSrcQuenchs InRedirects InEchos InEchoReps InTimestamps InTimestampReps InAddrMasks InAddrMaskReps OutMsgs OutErrors OutRateLimitGlobal OutRateLimitHost OutDestUnreachs OutTimeExcds OutParmProbs OutSrcQuenchs OutRedirects OutEchos OutEchoReps OutTimestamps OutTimestampReps OutAddrMasks OutAddrMaskReps"
    ))?;
    table.line(format_args!("Icmp:{}", Zeroes(29)))?;
    table.line(format_args!(
        "Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors"
    ))?;
    table.line(format_args!("Tcp: 1 200 120000 -1 0 0 0 0 {established}{}", Zeroes(6)))?;
    for name in ["Udp", "UdpLite"] {
        table.line(format_args!(
            "{name}: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors"
        ))?;
        table.line(format_args!("{name}:{}", Zeroes(9)))?;
    }
    Ok(())
}

/// So many columns of nothing.
struct Zeroes(usize);
impl core::fmt::Display for Zeroes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        (0..self.0).try_for_each(|_| f.write_str(" 0"))
    }
}

pub fn netstat(table: &mut Table) -> Result<()> {
    let n = inet::counted();
    table.line(format_args!(
        "TcpExt: SyncookiesSent SyncookiesRecv SyncookiesFailed ListenOverflows ListenDrops TCPTimeouts TCPAbortOnData TCPAbortOnClose TCPAbortOnMemory"
    ))?;
    table.line(format_args!("TcpExt:{}", Zeroes(9)))?;
    table.line(format_args!("IpExt: InNoRoutes InMcastPkts OutMcastPkts InOctets OutOctets"))?;
    table.line(format_args!("IpExt: 0 0 0 {} {}", n.bytes_in, n.bytes_out))
}
