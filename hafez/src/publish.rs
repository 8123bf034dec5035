//! `-p [ADDRESS:]HOST:GUEST`: a port of this computer that leads to one of the machine's.
//!
//! QEMU listens, and lets two clients wait at a time. Of more that come at once, the system here drops the first packets, and each
//! tries again after one second, three, seven: fifty clients of a server take a minute to get in. But how many may wait can be
//! said again of a socket that listens already, by whoever has it. So once the machine runs we borrow QEMU's listening
//! sockets ([`let_many_wait`]). Where the system does not lend them (a container may forbid it), all works, as slowly as that.

use rustix::io::Result as IoResult;
use rustix::net::sockopt::socket_acceptconn;
use rustix::net::{getsockname, listen};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::str::FromStr;

/// Clients that may wait: what Linux allows a server by default, and the machine inside as well.
const WAITING: i32 = 4096;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Publish {
    /// Connections to this address only; to any, if it is 0.0.0.0.
    pub address: Ipv4Addr,
    pub host: u16,
    pub guest: u16,
}

impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Publish, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let (address, host, guest) = match parts[..] {
            [host, guest] => (Ipv4Addr::UNSPECIFIED, host, guest),
            [address, host, guest] => {
                let address = address
                    .parse()
                    .map_err(|_| format!("{address:?} is no IPv4 address, such as 127.0.0.1"))?;
                (address, host, guest)
            }
            _ => return Err("write HOST:GUEST, such as 8080:80".into()),
        };
        let port = |text: &str| match text.parse::<u16>() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!("{text:?} is no port; ports go from 1 to 65535")),
        };
        Ok(Publish { address, host: port(host)?, guest: port(guest)? })
    }
}

impl Publish {
    /// Whether the port can be had; what is wrong, if not. It is given back at once: between this and the machine's start
    /// another can take it, and then the machine says so.
    pub fn check(&self) -> Result<(), String> {
        match TcpListener::bind((self.address, self.host)) {
            Ok(_) => Ok(()),
            Err(e) => {
                Err(format!("-p {}:{}: port {} of this computer: {e}", self.host, self.guest, self.host))
            }
        }
    }

    /// As QEMU wants it.
    pub fn forward(&self) -> String {
        format!("hostfwd=tcp:{}:{}-:{}", self.address, self.host, self.guest)
    }
}

/// Let many clients wait at these ports, on which the process `qemu` listens.
pub fn let_many_wait(qemu: Pid, ports: &[Publish]) -> IoResult<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let process = pidfd_open(qemu, PidfdFlags::empty())?;
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{}/fd", qemu.as_raw_pid())) else { return Ok(()) };
    for entry in descriptors.flatten() {
        let is_socket =
            std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
        let Some(number) = entry.file_name().to_str().and_then(|n| n.parse().ok()).filter(|_| is_socket)
        else {
            continue;
        };
        let socket = pidfd_getfd(&process, number, PidfdGetfdFlags::empty())?;
        let at = getsockname(&socket).ok().and_then(|a| SocketAddr::try_from(a).ok());
        let ours = |p: &Publish| at == Some(SocketAddrV4::new(p.address, p.host).into());
        if ports.iter().any(ours) && socket_acceptconn(&socket).unwrap_or(false) {
            listen(&socket, WAITING)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_an_address() {
        let one: Publish = "8080:80".parse().unwrap();
        assert_eq!(one.forward(), "hostfwd=tcp:0.0.0.0:8080-:80");
        let two: Publish = "127.0.0.1:1:65535".parse().unwrap();
        assert_eq!(two.forward(), "hostfwd=tcp:127.0.0.1:1-:65535");
        for wrong in ["", "80", "80:", ":80", "1:2:3:4", "70000:1", "1:-1", "x:1:2"] {
            assert!(wrong.parse::<Publish>().is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn a_port_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = taken.local_addr().unwrap().port();
        let publish = Publish { address: Ipv4Addr::LOCALHOST, host, guest: 80 };
        assert!(publish.check().unwrap_err().contains(&host.to_string()));
    }
}
