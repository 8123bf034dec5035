//! Socket addresses: `struct sockaddr` of each family, taken apart and put together (`unix(7)`, `ip(7)`, `ipv6(7)`,
//! `netlink(7)`).

use super::abi;
use crate::errno::{Errno, Result};
use alloc::{vec, vec::Vec};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes before the path in a `struct sockaddr_un`.
const UNIX_PATH_AT: usize = 2;
/// Bytes that a path can have.
const UNIX_PATH_MAX: usize = 108;

/// A socket's address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// AF_UNSPEC: none. `connect` to it ends an association.
    None,
    /// A Unix socket that was not bound. To bind to it is to be given an abstract name.
    Unnamed,
    Path(Vec<u8>),
    /// A name apart from all files; the zero before it is left out.
    Abstract(Vec<u8>),
    Inet(SocketAddr),
    Netlink {
        port: u32,
        groups: u32,
    },
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}
fn be16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl Address {
    /// As a program gives it to a socket of family `domain`.
    pub fn parse(bytes: &[u8], domain: u32) -> Result<Address> {
        if bytes.len() < 2 {
            return Err(Errno::EINVAL);
        }
        let family = u16_at(bytes, 0) as u32;
        match (domain, family) {
            (abi::AF_UNIX, abi::AF_UNIX) => Address::parse_unix(&bytes[UNIX_PATH_AT..]),
            (abi::AF_UNIX, abi::AF_UNSPEC) => Ok(Address::None),
            (abi::AF_UNIX, _) => Err(Errno::EINVAL),
            (abi::AF_NETLINK, abi::AF_NETLINK) if bytes.len() >= 12 => {
                Ok(Address::Netlink { port: u32_at(bytes, 4), groups: u32_at(bytes, 8) })
            }
            (abi::AF_NETLINK, _) => Err(Errno::EINVAL),
            (abi::AF_INET, abi::AF_INET) if bytes.len() >= 16 => {
                let ip = Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]);
                Ok(Address::Inet(SocketAddr::new(IpAddr::V4(ip), be16_at(bytes, 2))))
            }
            (abi::AF_INET6, abi::AF_INET6) if bytes.len() >= 24 => {
                let mut ip = [0; 16];
                ip.copy_from_slice(&bytes[8..24]);
                let scope = if bytes.len() >= 28 { u32_at(bytes, 24) } else { 0 };
                let at = SocketAddrV6::new(Ipv6Addr::from(ip), be16_at(bytes, 2), 0, scope);
                Ok(Address::Inet(SocketAddr::V6(at)))
            }
            (abi::AF_INET6, _) if bytes.len() < 24 && family != abi::AF_UNSPEC => Err(Errno::EINVAL),
            (abi::AF_INET, _) if bytes.len() < 16 && family != abi::AF_UNSPEC => Err(Errno::EINVAL),
            (_, abi::AF_UNSPEC) => Ok(Address::None),
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    fn parse_unix(path: &[u8]) -> Result<Address> {
        if path.len() > UNIX_PATH_MAX {
            return Err(Errno::EINVAL);
        }
        match path.first() {
            None => Ok(Address::Unnamed),
            Some(0) => Ok(Address::Abstract(path[1..].to_vec())),
            Some(_) => {
                let end = path.iter().position(|b| *b == 0).unwrap_or(path.len());
                Ok(Address::Path(path[..end].to_vec()))
            }
        }
    }

    /// As a program is told it.
    pub fn bytes(&self) -> Vec<u8> {
        let family = |f: u32| (f as u16).to_ne_bytes();
        match self {
            Address::None => family(abi::AF_UNSPEC).to_vec(),
            Address::Unnamed => family(abi::AF_UNIX).to_vec(),
            Address::Path(path) => [&family(abi::AF_UNIX)[..], path, b"\0"].concat(),
            Address::Abstract(name) => [&family(abi::AF_UNIX)[..], b"\0", name].concat(),
            Address::Inet(SocketAddr::V4(v4)) => {
                let mut out = vec![0; 16];
                out[..2].copy_from_slice(&family(abi::AF_INET));
                out[2..4].copy_from_slice(&v4.port().to_be_bytes());
                out[4..8].copy_from_slice(&v4.ip().octets());
                out
            }
            Address::Inet(SocketAddr::V6(v6)) => {
                let mut out = vec![0; 28];
                out[..2].copy_from_slice(&family(abi::AF_INET6));
                out[2..4].copy_from_slice(&v6.port().to_be_bytes());
                out[8..24].copy_from_slice(&v6.ip().octets());
                out[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                out
            }
            Address::Netlink { port, groups } => {
                let mut out = vec![0; 12];
                out[..2].copy_from_slice(&family(abi::AF_NETLINK));
                out[4..8].copy_from_slice(&port.to_ne_bytes());
                out[8..12].copy_from_slice(&groups.to_ne_bytes());
                out
            }
        }
    }
}
