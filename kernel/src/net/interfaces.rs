//! Which network interfaces there are, as any socket can be asked by `ioctl`: `netdevice(7)`.
//!
//! They are what they are: asking is for all, changing is EPERM.

use super::{abi, inet};
use crate::{
    arch::user,
    errno::{Errno, Result},
};
use core::net::IpAddr;
use linux_raw_sys::ioctl;

/// Bytes of `struct ifreq`: a name of 16, and what is asked or told.
const REQUEST: usize = 40;
const NAME: usize = 16;

/// `IFF_*`: up, broadcast, loopback, running, multicast.
const UP: u16 = 1;
const BROADCAST: u16 = 2;
const LOOPBACK: u16 = 8;
pub const RUNNING: u16 = 0x40;
const MULTICAST: u16 = 0x1000;
/// `ARPHRD_*`.
const ETHERNET: u16 = 1;
const LOOP: u16 = 772;

/// Requests to a driver: of `ethtool`, and of the older `mii-tool`. None here answers them, as none of the loopback's does.
const ETHTOOL: u32 = 0x8946;
const MII: u32 = 0x8947;

/// The flags of an interface.
pub fn flags(one: &inet::Interface) -> u16 {
    UP | RUNNING | if one.index == inet::LOOPBACK { LOOPBACK } else { BROADCAST | MULTICAST }
}
/// What sort of hardware it is.
pub fn hardware_type(one: &inet::Interface) -> u16 {
    if one.index == inet::LOOPBACK { LOOP } else { ETHERNET }
}

/// A `struct sockaddr_in` of an IPv4 address.
fn address(ip: [u8; 4]) -> [u8; 16] {
    let mut out = [0; 16];
    out[..2].copy_from_slice(&(abi::AF_INET as u16).to_ne_bytes());
    out[4..8].copy_from_slice(&ip);
    out
}

fn ipv4(one: &inet::Interface) -> ([u8; 4], u8) {
    match one.addresses[0] {
        (IpAddr::V4(ip), prefix) => (ip.octets(), prefix),
        (IpAddr::V6(_), _) => ([0; 4], 0),
    }
}

/// SIOCGIFCONF: `struct ifconf` is a length and where the list goes.
fn list(at: u64) -> Result<usize> {
    let room = user::read_u32(at)? as i32;
    let to = user::read_u64(at.wrapping_add(8))?;
    let mut written = 0;
    for one in inet::interfaces() {
        if to != 0 && written + REQUEST > room.max(0) as usize {
            break;
        }
        if to != 0 {
            let mut request = [0; REQUEST];
            request[..one.name.len()].copy_from_slice(one.name.as_bytes());
            request[NAME..NAME + 16].copy_from_slice(&address(ipv4(&one).0));
            user::copy_to(to.wrapping_add(written as u64), &request)?;
        }
        written += REQUEST;
    }
    user::write_u32(at, written as u32)?;
    Ok(0)
}

/// A request that is not the protocol's own; `ENOTTY` if it is not one of these either.
pub fn request(code: u32, at: u64) -> Result<usize> {
    match code {
        ioctl::SIOCGIFCONF => return list(at),
        ioctl::SIOCSIFLINK
        | ioctl::SIOCSIFFLAGS
        | ioctl::SIOCSIFADDR
        | ioctl::SIOCSIFNETMASK
        | ioctl::SIOCSIFMTU
        | ioctl::SIOCADDRT
        | ioctl::SIOCDELRT => return Err(Errno::EPERM),

        ioctl::SIOCGIFNAME..=ioctl::SIOCGIFTXQLEN | ETHTOOL | MII => {}
        _ => return Err(Errno::ENOTTY),
    }
    let mut request = [0; REQUEST];
    user::copy_from(&mut request, at)?;
    let index = u32::from_ne_bytes([request[16], request[17], request[18], request[19]]);
    let end = request[..NAME].iter().position(|b| *b == 0).unwrap_or(NAME);
    let all = inet::interfaces();
    let mut named = all.iter().filter(|i| match code {
        ioctl::SIOCGIFNAME => i.index == index,
        _ => i.name.as_bytes() == &request[..end],
    });
    let one = named.next().ok_or(Errno::ENODEV)?;
    if matches!(code, ETHTOOL | MII) {
        return Err(Errno::EOPNOTSUPP);
    }
    let (ip, prefix) = ipv4(one);
    let mask = u32::MAX.checked_shl(32 - prefix as u32).unwrap_or(0);
    let mut told = [0; 24];
    let mut tell = |bytes: &[u8]| told[..bytes.len()].copy_from_slice(bytes);
    match code {
        ioctl::SIOCGIFNAME => {
            let mut name = [0; NAME];
            name[..one.name.len()].copy_from_slice(one.name.as_bytes());
            user::copy_to(at, &name)?;
            return Ok(0);
        }
        ioctl::SIOCGIFINDEX => tell(&one.index.to_ne_bytes()),
        ioctl::SIOCGIFFLAGS => tell(&flags(one).to_ne_bytes()),
        ioctl::SIOCGIFADDR => tell(&address(ip)),
        ioctl::SIOCGIFNETMASK => tell(&address(mask.to_be_bytes())),
        ioctl::SIOCGIFBRDADDR if one.index == inet::LOOPBACK => tell(&address([0; 4])),
        ioctl::SIOCGIFBRDADDR => tell(&address((u32::from_be_bytes(ip) | !mask).to_be_bytes())),
        ioctl::SIOCGIFDSTADDR => tell(&address(ip)),
        ioctl::SIOCGIFMETRIC => tell(&0u32.to_ne_bytes()),
        ioctl::SIOCGIFMTU => tell(&one.mtu.to_ne_bytes()),
        ioctl::SIOCGIFTXQLEN => tell(&1000u32.to_ne_bytes()),
        ioctl::SIOCGIFHWADDR => {
            tell(&hardware_type(one).to_ne_bytes());
            told[2..8].copy_from_slice(&one.hardware);
        }
        _ => return Err(Errno::EINVAL),
    }
    user::copy_to(at.wrapping_add(NAME as u64), &told)?;
    Ok(0)
}
