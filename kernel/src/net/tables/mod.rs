//! What `/proc/net` says: `proc(5)`, "/proc/net". Monitors, `netstat`, `lsof` read these by column.
//!
//! | file | tables |
//! |---|---|
//! | `sockets` | `tcp`, `udp`, `unix`, …: a line a socket |
//! | `machine` | `dev`, `route`, `if_inet6`, …: interfaces and ways; counters |
//!
//! Nothing is kept: a table is made from the live sockets when it is read, line by line, and is an error where there is no
//! room for it. Addresses in the kernel are never told: the columns that have them on Linux are zeroes, as there for who
//! may not know.

mod machine;
mod sockets;

use crate::errno::Result;
use alloc::vec::Vec;
use core::fmt::{Arguments, Write};

/// A table that is being made.
#[derive(Default)]
pub struct Table(Vec<u8>);

/// Longer than any line but for names, which are counted apart.
const LINE: usize = 512;

impl Write for Table {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.0.try_reserve(text.len()).map_err(|_| core::fmt::Error)?;
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl Table {
    fn line(&mut self, text: Arguments<'_>) -> Result<()> {
        self.padded(0, text)
    }
    /// A line of a fixed width, as Linux makes some for who seeks in them.
    fn padded(&mut self, width: usize, text: Arguments<'_>) -> Result<()> {
        self.0.try_reserve(LINE)?;
        let start = self.0.len();
        self.write_fmt(text).map_err(|_| crate::errno::Errno::ENOMEM)?;
        let len = self.0.len() - start;
        self.0.resize(start + len.max(width), b' ');
        self.0.push(b'\n');
        Ok(())
    }
    /// Bytes of a name, as they are.
    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.try_reserve(bytes.len())?;
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

type Make = fn(&mut Table) -> Result<()>;

/// Names and tables.
const FILES: &[(&str, Make)] = &[
    ("tcp", |t| sockets::tcp(t, false)),
    ("tcp6", |t| sockets::tcp(t, true)),
    ("udp", |t| sockets::udp(t, false, super::abi::IPPROTO_UDP)),
    ("udp6", |t| sockets::udp(t, true, super::abi::IPPROTO_UDP)),
    ("udplite", |t| sockets::udp(t, false, super::abi::IPPROTO_UDPLITE)),
    ("udplite6", |t| sockets::udp(t, true, super::abi::IPPROTO_UDPLITE)),
    ("unix", sockets::unix),
    ("netlink", sockets::netlink),
    ("sockstat", sockets::sockstat),
    ("sockstat6", sockets::sockstat6),
    ("dev", machine::dev),
    ("route", machine::route),
    ("ipv6_route", machine::ipv6_route),
    ("if_inet6", machine::if_inet6),
    ("arp", machine::arp),
    ("snmp", machine::snmp),
    ("netstat", machine::netstat),
    ("raw", |t| sockets::raw(t, false, false)),
    ("raw6", |t| sockets::raw(t, true, false)),
    ("icmp", |t| sockets::raw(t, false, true)),
    ("icmp6", |t| sockets::raw(t, true, true)),
    ("packet", sockets::packet),
    ("dev_mcast", machine::dev_mcast),
];

/// The names of all tables.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// How to make one of them.
pub fn find(name: &[u8]) -> Option<impl Fn() -> Result<Vec<u8>> + Send + Sync + 'static> {
    let (_, make) = *FILES.iter().find(|(known, _)| known.as_bytes() == name)?;
    Some(move || {
        let mut table = Table::default();
        make(&mut table)?;
        Ok(table.0)
    })
}

/// What cannot be changed about the network: paths below `/proc/sys/net`, and what they say.
pub const SETTINGS: &[(&str, &str)] = &[
    ("net/core/somaxconn", "4096"),
    ("net/core/rmem_default", "212992"),
    ("net/core/rmem_max", "212992"),
    ("net/core/wmem_default", "212992"),
    ("net/core/wmem_max", "212992"),
    ("net/core/optmem_max", "131072"),
    ("net/core/netdev_max_backlog", "1000"),
    ("net/ipv4/ip_local_port_range", "32768\t60999"),
    ("net/ipv4/ip_unprivileged_port_start", "1024"),
    ("net/ipv4/ip_default_ttl", "64"),
    ("net/ipv4/ip_forward", "0"),
    ("net/ipv4/ip_nonlocal_bind", "0"),
    ("net/ipv4/igmp_max_memberships", "20"),
    ("net/ipv4/igmp_max_msf", "10"),
    ("net/ipv4/ping_group_range", "0\t2147483647"),
    ("net/ipv4/tcp_rmem", "4096\t131072\t6291456"),
    ("net/ipv4/tcp_wmem", "4096\t16384\t4194304"),
    ("net/ipv4/tcp_keepalive_time", "7200"),
    ("net/ipv4/tcp_keepalive_intvl", "75"),
    ("net/ipv4/tcp_keepalive_probes", "9"),
    ("net/ipv4/tcp_syn_retries", "6"),
    ("net/ipv4/tcp_fin_timeout", "60"),
    ("net/ipv4/tcp_max_syn_backlog", "4096"),
    ("net/ipv4/tcp_fastopen", "0"),
    ("net/ipv4/tcp_congestion_control", "reno"),
    ("net/ipv4/tcp_available_congestion_control", "reno"),
    ("net/ipv4/tcp_allowed_congestion_control", "reno"),
    ("net/ipv6/bindv6only", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
    ("net/ipv6/conf/lo/disable_ipv6", "0"),
    ("net/ipv6/conf/all/forwarding", "0"),
    ("net/unix/max_dgram_qlen", "10"),
];
