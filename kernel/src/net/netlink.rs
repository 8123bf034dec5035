//! Netlink, as far as the C library asks: `netlink(7)`, `rtnetlink(7)`.
//!
//! `getaddrinfo`, `getifaddrs` and `if_nameindex` ask for lists of interfaces and addresses (RTM_GETLINK, RTM_GETADDR with
//! NLM_F_DUMP) over NETLINK_ROUTE. These are answered; to all else the answer is the message that says EOPNOTSUPP. Answers are
//! made while the question is sent, and wait in the inbox, one packet each.
//!
//! ```text
//!   struct nlmsghdr  length 0, type 4, flags 6, sequence 8, port 12; 16 bytes, then the family's own, then attributes
//!   attribute        length 0, type 2, then the value; padded to 4
//! ```

use super::{
    Address, Common, Incoming, Outgoing, Protocol, Target, Ucred, Wait, abi, boxed,
    inbox::{Account, Inbox, Packet},
    inet::{self, Interface},
    interfaces, options, registry,
};
use crate::{
    errno::{Errno, Result},
    fs::{
        iobuf::{Sink, Source},
        poll::Events,
    },
};
use alloc::{sync::Arc, vec::Vec};
use core::any::Any;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

const NETLINK_ROUTE: u32 = 0;
const HEAD: usize = 16;
/// The longest question that is looked at.
const QUESTION_MAX: usize = 4096;
/// `NLM_F_MULTI`, `NLM_F_ROOT | NLM_F_MATCH`, `NLM_F_ACK`.
const MULTI: u16 = 2;
const DUMP: u16 = 0x300;
const ACK: u16 = 4;
/// Message types: an error (or an acknowledgement), the end of a list; links and addresses, told and asked for.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
/// Attributes of links (`IFLA_*`) and of addresses (`IFA_*`).
const LINK_ADDRESS: u16 = 1;
const LINK_BROADCAST: u16 = 2;
const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const LINK_QUEUE: u16 = 13;
const LINK_STATE: u16 = 16;
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const LABEL: u16 = 3;
const BROADCAST: u16 = 4;

/// See the module.
pub struct Netlink {
    common: Common,
    inbox: Inbox,
    account: Arc<Account>,
    port: AtomicU32,
}

impl Netlink {
    pub fn create(kind: u32, protocol: u32) -> Result<Arc<Netlink>> {
        if kind != abi::SOCK_RAW && kind != abi::SOCK_DGRAM {
            return Err(Errno::ESOCKTNOSUPPORT);
        }
        if protocol != NETLINK_ROUTE {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let common = Common::new(abi::AF_NETLINK, kind, protocol);
        let account = Account::new(options::BUFFER as usize, common.signal.clone());
        let new = Arc::new(Netlink { common, inbox: Inbox::new(), account, port: AtomicU32::new(0) });
        registry::enter(&new);
        Ok(new)
    }
    pub fn port(&self) -> u32 {
        self.port.load(Relaxed)
    }

    /// The number that answers are addressed to: the process's, or one that nobody else has.
    fn own_port(&self) -> u32 {
        let fresh = super::caller().pid;
        match self.port.compare_exchange(0, fresh, Relaxed, Relaxed) {
            Ok(_) => fresh,
            Err(port) => port,
        }
    }

    fn answer(&self, message: &[u8]) -> Result<()> {
        let mut source = Source::kernel(message);
        let mut packet = Packet::new(&mut source, message.len(), &self.account, Ucred::default())?;
        packet.source = boxed(Address::Netlink { port: 0, groups: 0 });
        // A socket that is being closed reads no answers.
        let _ = self.inbox.push(packet);
        self.common.signal.notify();
        Ok(())
    }

    /// One question, with its header.
    fn ask(&self, question: &[u8]) -> Result<()> {
        let (kind, flags) = (half(question, 4), half(question, 6));
        let sequence = &question[8..12];
        let head = |kind: u16, flags: u16| {
            let port = self.own_port().to_ne_bytes();
            [&[0; 4][..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), sequence, &port].concat()
        };
        // `struct rtgenmsg`: the family that is asked for, 0 for all.
        let family = question.get(HEAD).copied().unwrap_or(0) as u32;
        let list = match kind {
            GET_LINK if flags & DUMP == DUMP => {
                inet::interfaces().iter().map(|i| link(head(NEW_LINK, MULTI), i)).collect()
            }
            GET_ADDRESS if flags & DUMP == DUMP => {
                let all = inet::interfaces();
                let each = all.iter().flat_map(|i| i.addresses.iter().map(move |a| (i, *a)));
                let wanted = each.filter(|(_, (ip, _))| family == 0 || family == family_of(*ip));
                wanted.map(|(i, (ip, prefix))| address(head(NEW_ADDRESS, MULTI), i, ip, prefix)).collect()
            }
            _ => {
                // Control messages ask for nothing, but may want to be acknowledged.
                let error = match kind {
                    0..NEW_LINK if flags & ACK == 0 => return Ok(()),
                    0..NEW_LINK => 0,
                    _ => -(Errno::EOPNOTSUPP.code() as i32),
                };
                let message = [&head(ERROR, 0)[..], &error.to_ne_bytes(), &question[..HEAD]].concat();
                return self.answer(&finished(message));
            }
        };
        let list: Vec<Vec<u8>> = list;
        self.answer(&list.concat())?;
        self.answer(&finished([&head(DONE, MULTI)[..], &[0; 4]].concat()))
    }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn family_of(ip: IpAddr) -> u32 {
    if ip.is_ipv4() { abi::AF_INET } else { abi::AF_INET6 }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Write the length into a message's header.
fn finished(mut message: Vec<u8>) -> Vec<u8> {
    let len = message.len() as u32;
    message[..4].copy_from_slice(&len.to_ne_bytes());
    message
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn name(one: &Interface) -> Vec<u8> {
    [one.name.as_bytes(), b"\0"].concat()
}

/// `struct ifinfomsg`: family 0, type 2, index 4, flags 8, change mask 12.
fn link(mut message: Vec<u8>, one: &Interface) -> Vec<u8> {
    // Lower layer up, besides what `ioctl` tells.
    let flags = interfaces::flags(one) as u32 | 0x1_0000;
    message.extend_from_slice(&[0, 0]);
    message.extend_from_slice(&interfaces::hardware_type(one).to_ne_bytes());
    for word in [one.index, flags, 0] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    attribute(&mut message, LINK_NAME, &name(one));
    attribute(&mut message, LINK_QUEUE, &1000u32.to_ne_bytes());
    // Unknown for the loopback, up for the other (RFC 2863).
    attribute(&mut message, LINK_STATE, &[if one.index == inet::LOOPBACK { 0 } else { 6 }]);
    attribute(&mut message, LINK_MTU, &one.mtu.to_ne_bytes());
    attribute(&mut message, LINK_ADDRESS, &one.hardware);
    let broadcast = if one.index == inet::LOOPBACK { [0; 6] } else { [0xff; 6] };
    attribute(&mut message, LINK_BROADCAST, &broadcast);
    finished(message)
}

/// `struct ifaddrmsg`: family 0, prefix 1, flags 2, scope 3, index 4.
fn address(mut message: Vec<u8>, one: &Interface, ip: IpAddr, prefix: u8) -> Vec<u8> {
    const PERMANENT: u8 = 0x80;
    // The whole world, the site, the host.
    let scope = match ip {
        _ if ip.is_loopback() => 254,
        IpAddr::V6(_) => 200,
        IpAddr::V4(_) => 0,
    };
    message.extend_from_slice(&[family_of(ip) as u8, prefix, PERMANENT, scope]);
    message.extend_from_slice(&one.index.to_ne_bytes());
    attribute(&mut message, ADDRESS, &octets(ip));
    if let IpAddr::V4(v4) = ip {
        attribute(&mut message, LOCAL, &v4.octets());
        if one.index != inet::LOOPBACK {
            let hosts = u32::MAX.checked_shr(prefix as u32).unwrap_or(0);
            attribute(&mut message, BROADCAST, &(u32::from(v4) | hosts).to_be_bytes());
        }
        attribute(&mut message, LABEL, &name(one));
    }
    finished(message)
}

impl Protocol for Netlink {
    fn common(&self) -> &Common {
        &self.common
    }
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn bind(&self, to: &Target) -> Result<()> {
        let Address::Netlink { port, groups } = to.address else { return Err(Errno::EINVAL) };
        // Nothing here ever changes, so there is nothing to be told of in a group.
        let _ = groups;
        match (port, self.port.load(Relaxed)) {
            (0, _) => drop(self.own_port()),
            (port, 0) => self.port.store(port, Relaxed),
            (port, bound) if port == bound => {}
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }
    fn connect(&self, to: &Target, _: Wait) -> Result<()> {
        // There is nobody but the kernel.
        match to.address {
            Address::Netlink { port: 0, .. } => Ok(()),
            _ => Err(Errno::ECONNREFUSED),
        }
    }
    fn name(&self) -> Result<Address> {
        Ok(Address::Netlink { port: self.port.load(Relaxed), groups: 0 })
    }
    fn peer_name(&self) -> Result<Address> {
        Ok(Address::Netlink { port: 0, groups: 0 })
    }

    fn send(&self, from: &mut Source<'_>, out: Outgoing, _: Wait) -> Result<()> {
        match out.to.map(|t| t.address) {
            None | Some(Address::Netlink { port: 0, .. }) => {}
            _ => return Err(Errno::ECONNREFUSED),
        }
        if from.remaining() > QUESTION_MAX {
            return Err(Errno::EMSGSIZE);
        }
        let mut bytes = crate::mem::zeroed(from.remaining())?;
        let n = from.take(&mut bytes);
        if from.faulted() {
            from.uncount(n);
            return Err(Errno::EFAULT);
        }
        self.own_port();
        let mut rest = &bytes[..];
        while rest.len() >= HEAD {
            let len = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            if len < HEAD || len > rest.len() {
                break;
            }
            self.ask(&rest[..len])?;
            rest = &rest[len.next_multiple_of(4).min(rest.len())..];
        }
        Ok(())
    }

    fn receive(&self, to: &mut Sink<'_>, into: &mut Incoming, wait: Wait) -> Result<()> {
        loop {
            if let Some(whole) = self.inbox.receive(to, into, into.flags & abi::MSG_PEEK != 0) {
                into.whole = Some(whole);
                return Ok(());
            }
            self.common.sleep(wait, || !self.inbox.is_empty())?;
        }
    }

    fn holds(&self) -> usize {
        self.inbox.holds()
    }
    fn poll(&self) -> Events {
        let mut events = Events::WRITABLE;
        events.set(Events::READABLE, !self.inbox.is_empty());
        events
    }
    fn readable(&self) -> Result<usize> {
        Ok(self.inbox.first())
    }
    fn close(&self) {
        self.inbox.close();
    }
}
