//! The machine's addresses, as QEMU's user network gives them.

use super::super::{LOOPBACK, OUTSIDE};
use crate::drivers;
use alloc::{vec, vec::Vec};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The guest's addresses, and those of the way out.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
pub const PREFIX: u8 = 24;
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0x5054, 0xff, 0xfe12, 0x3456);
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 2);
pub const PREFIX6: u8 = 64;
/// The machine's addresses that the outside knows, if there is an outside.
pub fn addresses() -> Option<[IpAddr; 2]> {
    drivers::card().map(|_| [IpAddr::V4(ADDRESS), IpAddr::V6(ADDRESS6)])
}

/// Whether it is the address of all on the network outside.
pub fn is_broadcast(ip: Ipv4Addr) -> bool {
    let hosts = u32::MAX >> PREFIX;
    drivers::card().is_some() && u32::from(ip) == u32::from(ADDRESS) | hosts
}

/// An interface: its number, name, addresses with the lengths of their prefixes, hardware address.
pub struct InterfaceInfo {
    pub index: u32,
    pub name: &'static str,
    pub addresses: [(IpAddr, u8); 2],
    pub mtu: u32,
    pub hardware: [u8; 6],
}

/// All interfaces.
pub fn interfaces() -> Vec<InterfaceInfo> {
    let mut all = vec![InterfaceInfo {
        index: LOOPBACK,
        name: "lo",
        addresses: [(IpAddr::V4(Ipv4Addr::LOCALHOST), 8), (IpAddr::V6(Ipv6Addr::LOCALHOST), 128)],
        mtu: 65536,
        hardware: [0; 6],
    }];
    if drivers::card().is_some() {
        all.push(InterfaceInfo {
            index: OUTSIDE,
            name: "eth0",
            addresses: [(IpAddr::V4(ADDRESS), PREFIX), (IpAddr::V6(ADDRESS6), PREFIX6)],
            mtu: 1500,
            hardware: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
        });
    }
    all
}

/// The address that another machine sees us by.
pub fn source(to: IpAddr) -> Option<IpAddr> {
    addresses().map(|[four, six]| if to.is_ipv4() { four } else { six })
}
