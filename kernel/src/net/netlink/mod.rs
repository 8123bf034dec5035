//! Netlink, as far as the C library and `ip` ask: `netlink(7)`, `rtnetlink(7)`.
//!
//! Over NETLINK_ROUTE, interfaces, addresses, ways, neighbours and rules can be asked for, as lists (NLM_F_DUMP), interfaces and
//! ways one by one, too. To change them is EPERM, to ask anything else EOPNOTSUPP. Answers are made while the question is sent, and wait
//! in the inbox, one packet each ([`answers`]). Nothing ever changes: who joins a group (NETLINK_ADD_MEMBERSHIP) hears nothing, and
//! so does who listens for devices (NETLINK_KOBJECT_UEVENT). Over NETLINK_SOCK_DIAG sockets are listed ([`diag`]).
//!
//! ```text
//!   struct nlmsghdr  length 0, type 4, flags 6, sequence 8, port 12; 16 bytes, then the family's own, then attributes
//!   attribute        length 0, type 2, then the value; padded to 4
//! ```

mod answers;
mod diag;

use super::{
    Address, Common, Incoming, Outgoing, Protocol, Target, Ucred, Wait, abi, beside, boxed,
    inbox::{Account, Inbox, Packet},
    options, registry,
};
use crate::{
    errno::{Errno, Result},
    fs::{
        iobuf::{Sink, Source},
        poll::Events,
    },
};
use alloc::{sync::Arc, vec::Vec};
use answers::Question;
use core::any::Any;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

const NETLINK_ROUTE: u32 = 0;
const NETLINK_SOCK_DIAG: u32 = 4;
const NETLINK_KOBJECT_UEVENT: u32 = 15;
const HEAD: usize = 16;
/// The longest question that is looked at.
const QUESTION_MAX: usize = 4096;
/// `SOL_NETLINK`, and its options: groups, and what is told beside answers.
const SOL_NETLINK: u32 = 270;
const ADD_MEMBERSHIP: u32 = 1;
const DROP_MEMBERSHIP: u32 = 2;
const NO_ENOBUFS: u32 = 5;
const CAP_ACK: u32 = 10;
const EXT_ACK: u32 = 11;
const STRICT_CHECK: u32 = 12;
/// The highest group of NETLINK_ROUTE.
const GROUP_MAX: i32 = 36;

/// See the module.
pub struct Netlink {
    common: Common,
    inbox: Inbox,
    account: Arc<Account>,
    port: AtomicU32,
    /// Options that are on, a bit each.
    options: AtomicU32,
}

impl Netlink {
    pub fn create(kind: u32, protocol: u32) -> Result<Arc<Netlink>> {
        if kind != abi::SOCK_RAW && kind != abi::SOCK_DGRAM {
            return Err(Errno::ESOCKTNOSUPPORT);
        }
        if !matches!(protocol, NETLINK_ROUTE | NETLINK_SOCK_DIAG | NETLINK_KOBJECT_UEVENT) {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let common = Common::new(abi::AF_NETLINK, kind, protocol);
        let account = Account::new(options::BUFFER as usize, common.signal.clone());
        let new = Arc::new(Netlink {
            common,
            inbox: Inbox::new(),
            account,
            port: AtomicU32::new(0),
            options: AtomicU32::new(0),
        });
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
        let capped = self.has(CAP_ACK);
        if !self.account.has_room() {
            // Who asks on and on is to read the answers first.
            return Err(Errno::ENOBUFS);
        }
        let asked = Question { bytes: question, port: self.own_port(), capped };
        let about_sockets = self.common.protocol == NETLINK_SOCK_DIAG;
        answers::to(&asked, about_sockets, &mut |message| self.answer(message))
    }
    fn has(&self, option: u32) -> bool {
        self.options.load(Relaxed) & 1 << option != 0
    }
}

impl Protocol for Netlink {
    fn post(&self, message: &[u8]) -> Result<()> {
        self.answer(message)
    }
    fn common(&self) -> &Common {
        &self.common
    }
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn bind(&self, to: &Target) -> Result<()> {
        // Groups are joined in vain: nothing here ever changes.
        let Address::Netlink { port, .. } = to.address else { return Err(Errno::EINVAL) };
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
        match out.to.as_ref().map(|t| &t.address) {
            None | Some(Address::Netlink { port: 0, .. }) => {}
            _ => return Err(Errno::ECONNREFUSED),
        }
        beside::ignore(&out.control, &self.common)?;
        if self.common.protocol == NETLINK_KOBJECT_UEVENT {
            // Nobody listens there.
            return Err(Errno::ECONNREFUSED);
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

    fn option(&self, level: u32, name: u32) -> Result<Vec<u8>> {
        match (level, name) {
            (SOL_NETLINK, NO_ENOBUFS | CAP_ACK | EXT_ACK | STRICT_CHECK) => {
                Ok(options::int(self.has(name) as i64))
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }
    fn set_option(&self, level: u32, name: u32, value: &[u8]) -> Result<()> {
        if level != SOL_NETLINK {
            return Err(Errno::ENOPROTOOPT);
        }
        let number = options::int_of(value)?;
        match name {
            ADD_MEMBERSHIP | DROP_MEMBERSHIP if (1..=GROUP_MAX).contains(&number) => Ok(()),
            ADD_MEMBERSHIP | DROP_MEMBERSHIP => Err(Errno::EINVAL),
            NO_ENOBUFS | CAP_ACK | EXT_ACK | STRICT_CHECK => {
                if number != 0 {
                    self.options.fetch_or(1 << name, Relaxed);
                } else {
                    self.options.fetch_and(!(1 << name), Relaxed);
                }
                Ok(())
            }
            _ => Err(Errno::ENOPROTOOPT),
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
