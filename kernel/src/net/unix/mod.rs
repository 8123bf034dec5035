//! Unix sockets: `unix(7)`.
//!
//! ```text
//!   stream, seqpacket    A ──send──► B.inbox          A.peer = B, B.peer = A
//!                        B ──send──► A.inbox
//!   listener             a queue of sockets that are connected already; `accept` takes the first
//!   datagram             who sends looks the receiver up, by name or by `connect`; its inbox holds a few packets
//! ```
//!
//! Peers hold each other weakly: when the last descriptor of one goes, [`Unix::close`] tells the other. A receiver that has
//! gone, and one that has closed its inbox, are the same to a sender.
//!
//! A file can be sent through a socket that is itself in flight; [`flight`] sees to rings of them.
//!
//! Lock: `state`, never of two sockets at once; inboxes and accounts have their own, taken alone.

pub mod flight;
mod message;
mod name;
mod stream;

pub use message::join;

use super::{
    Address, Common, Incoming, Outgoing, Protocol, Shut, Target, Ucred, Wait, abi, caller,
    inbox::{Account, Inbox},
    options, registry,
};
use crate::{
    errno::{Errno, Result},
    fs::{
        iobuf::{Sink, Source},
        poll::{Events, Signal, Watchers},
    },
};
use alloc::{
    collections::VecDeque,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::any::Any;
use hafez_mm::lock::Mutex;
use name::Name;

/// The most connections that wait for `accept` (`net.core.somaxconn`).
const SOMAXCONN: usize = 4096;

/// See the module.
pub struct Unix {
    common: Common,
    me: Weak<Unix>,
    inbox: Inbox,
    account: Arc<Account>,
    /// Told when a datagram has been taken out: senders wait for it.
    room: Option<Arc<Signal>>,
    state: Mutex<State>,
}

struct State {
    name: Option<Arc<Name>>,
    role: Role,
    shut: Shut,
    /// Who the other side was when the connection was made (SO_PEERCRED).
    peer_cred: Option<Peer>,
    /// What the other side is called; stays when it has gone.
    peer_name: Option<Arc<Name>>,
}

/// A process, as it was then.
#[derive(Clone)]
struct Peer {
    cred: Ucred,
    groups: Arc<Vec<u32>>,
}

impl Peer {
    fn caller() -> Peer {
        Peer { cred: caller(), groups: super::groups() }
    }
}

enum Role {
    Fresh,
    Listening {
        queue: VecDeque<Arc<Unix>>,
        most: usize,
    },
    /// Of a datagram socket: where it sends to.
    Connected(Weak<Unix>),
    Closed,
}

impl Unix {
    pub fn create(kind: u32, protocol: u32) -> Result<Arc<Unix>> {
        if protocol != 0 && protocol != abi::AF_UNIX {
            return Err(Errno::EPROTONOSUPPORT);
        }
        flight::make_room();
        match kind {
            abi::SOCK_STREAM | abi::SOCK_DGRAM | abi::SOCK_SEQPACKET => Ok(Unix::new(kind)),
            // As on Linux, where raw is another word for datagrams.
            abi::SOCK_RAW => Ok(Unix::new(abi::SOCK_DGRAM)),
            _ => Err(Errno::ESOCKTNOSUPPORT),
        }
    }

    fn new(kind: u32) -> Arc<Unix> {
        let common = Common::new(abi::AF_UNIX, kind, 0);
        let account = Account::new(options::BUFFER as usize, common.signal.clone());
        let state = State {
            name: None,
            role: Role::Fresh,
            shut: Shut { read: false, write: false },
            peer_cred: None,
            peer_name: None,
        };
        let new = Arc::new_cyclic(|me| Unix {
            common,
            me: me.clone(),
            inbox: Inbox::new(),
            account,
            room: (kind == abi::SOCK_DGRAM).then(Signal::new),
            state: Mutex::new(state),
        });
        registry::enter(&new);
        new
    }

    /// For `/proc/net/unix`: whether it is connected, and what it is called.
    pub fn has_peer(&self) -> bool {
        self.is_connected()
    }
    /// Its peer's number, if that is there.
    pub fn peer_number(&self) -> Option<u64> {
        self.peer().map(|peer| peer.common.number)
    }
    /// Of who listens: how many wait, and how many may; of others bytes to read, and bytes on their way.
    pub fn queue(&self) -> (u32, u32) {
        if let Role::Listening { queue, most } = &self.state.lock().role {
            return (queue.len() as u32, *most as u32);
        }
        (self.inbox.bytes() as u32, self.account.used() as u32)
    }
    pub fn shown_name(&self) -> Option<Vec<u8>> {
        match Unix::name_address(&self.state.lock().name) {
            Address::Path(path) => Some(path),
            Address::Abstract(name) => {
                let mut shown = name;
                shown.insert(0, 0);
                shown.iter_mut().filter(|b| **b == 0).for_each(|b| *b = b'@');
                Some(shown)
            }
            _ => None,
        }
    }

    fn is_datagram(&self) -> bool {
        self.common.kind == abi::SOCK_DGRAM
    }

    /// The other side, if it is there.
    fn peer(&self) -> Option<Arc<Unix>> {
        match &self.state.lock().role {
            Role::Connected(peer) => peer.upgrade(),
            _ => None,
        }
    }
    fn is_connected(&self) -> bool {
        matches!(self.state.lock().role, Role::Connected(_))
    }
    fn shut(&self) -> Shut {
        self.state.lock().shut
    }
    fn name_address(name: &Option<Arc<Name>>) -> Address {
        name.as_ref().map_or(Address::Unnamed, |n| n.address.clone())
    }

    /// Close directions here, and say so.
    fn close_ways(&self, how: Shut) {
        {
            let mut state = self.state.lock();
            state.shut.read |= how.read;
            state.shut.write |= how.write;
        }
        self.common.signal.notify();
    }

    /// Wait until something can be read, or never will be. `false`: never.
    fn await_input(&self, least: usize, wait: Wait) -> Result<bool> {
        let ready = || {
            let shut = self.shut().read;
            let inline = self.common.kind != abi::SOCK_STREAM || self.common.has(abi::SO_OOBINLINE);
            let bytes = || self.inbox.stream_bytes(inline);
            shut || self.common.has_error() || !self.inbox.is_empty() && bytes() >= least
        };
        self.common.sleep(wait, ready)?;
        Ok(!self.inbox.is_empty())
    }

    /// Whether who receives is told who sent.
    fn tells_sender(&self) -> bool {
        self.common.has(abi::SO_PASSCRED) || self.common.has(abi::SO_PASSPIDFD)
    }

    /// Who the packet says it is from.
    fn sender(&self, out: &Outgoing) -> Ucred {
        out.cred.unwrap_or_else(caller)
    }
}

impl Protocol for Unix {
    fn common(&self) -> &Common {
        &self.common
    }
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn bind(&self, to: &Target) -> Result<()> {
        if self.state.lock().name.is_some() {
            // What exists counts before that this socket has a name.
            return Err(if name::is_taken(to) { Errno::EADDRINUSE } else { Errno::EINVAL });
        }
        let me = self.me.upgrade().ok_or(Errno::EINVAL)?;
        let name = name::claim(to, &me)?;
        let lost = {
            let mut state = self.state.lock();
            if state.name.is_none() {
                state.name = Some(name);
                None
            } else {
                Some(name)
            }
        };
        if let Some(lost) = lost {
            name::release(&lost);
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    fn listen(&self, backlog: usize) -> Result<()> {
        self.start_listening(backlog.min(SOMAXCONN))
    }
    fn accept(&self, wait: Wait) -> Result<Arc<dyn Protocol>> {
        Ok(self.accept_one(wait)?)
    }
    fn connect(&self, to: &Target, wait: Wait) -> Result<()> {
        if self.is_datagram() { self.associate(to) } else { self.connect_to(to, wait) }
    }

    fn name(&self) -> Result<Address> {
        Ok(Unix::name_address(&self.state.lock().name))
    }
    fn peer_name(&self) -> Result<Address> {
        let state = self.state.lock();
        match state.role {
            Role::Connected(_) => Ok(Unix::name_address(&state.peer_name)),
            _ => Err(Errno::ENOTCONN),
        }
    }

    fn shutdown(&self, how: Shut) -> Result<()> {
        let peer = self.peer();
        self.close_ways(how);
        if let Some(peer) = peer.filter(|_| !self.is_datagram()) {
            peer.close_ways(Shut { read: how.write, write: how.read });
        }
        Ok(())
    }

    fn send(&self, from: &mut Source<'_>, out: Outgoing, wait: Wait) -> Result<()> {
        if out.flags & abi::MSG_OOB != 0 {
            return self.send_urgent(from, out, wait);
        }
        match self.common.kind {
            abi::SOCK_STREAM => self.send_stream(from, out, wait),
            abi::SOCK_SEQPACKET => self.send_record(from, out, wait),
            _ => self.send_datagram(from, out, wait),
        }
    }

    fn receive(&self, to: &mut Sink<'_>, into: &mut Incoming, wait: Wait) -> Result<()> {
        if into.flags & abi::MSG_OOB != 0 {
            return match self.common.kind {
                abi::SOCK_STREAM if self.common.has(abi::SO_OOBINLINE) => Err(Errno::EINVAL),
                abi::SOCK_STREAM => into.receive_urgent(&self.inbox, to),
                _ => Err(Errno::EOPNOTSUPP),
            };
        }
        if into.flags & abi::MSG_ERRQUEUE != 0 {
            return Err(Errno::EAGAIN);
        }
        match self.common.kind {
            abi::SOCK_STREAM => self.receive_stream(to, into, wait),
            _ => self.receive_packet(to, into, wait),
        }
    }

    fn holds(&self) -> usize {
        self.inbox.holds()
    }
    fn poll(&self) -> Events {
        let (shut, fresh, pending) = {
            let state = self.state.lock();
            let pending = match &state.role {
                Role::Listening { queue, .. } => Some(!queue.is_empty()),
                _ => None,
            };
            (state.shut, matches!(state.role, Role::Fresh | Role::Closed), pending)
        };
        let mut events = Events::empty();
        events.set(Events::ERR, self.common.has_error());
        events.set(Events::HUP, shut.read && shut.write || fresh && !self.is_datagram());
        events.set(Events::RDHUP, shut.read);
        events.set(Events::PRI, self.inbox.is_urgent());
        events.set(Events::READABLE, shut.read || pending.unwrap_or_else(|| self.has_input()));
        events.set(Events::WRITABLE, pending.is_none() && self.account.is_writable() && self.peer_has_room());
        events
    }

    fn watch(&self, watchers: &mut Watchers) {
        watchers.add(&self.common.signal);
        if self.is_datagram()
            && let Some(room) = self.peer().and_then(|peer| peer.room.clone())
        {
            watchers.add(&room);
        }
    }

    fn tells_all(&self) -> bool {
        // Where a datagram socket sends to can change, and with it whose room it waits for.
        !self.is_datagram()
    }

    fn readable(&self) -> Result<usize> {
        if self.is_listening() {
            return Err(Errno::EINVAL);
        }
        Ok(if self.is_datagram() { self.inbox.first() } else { self.inbox.bytes() })
    }
    fn at_mark(&self) -> Result<bool> {
        Ok(self.inbox.at_mark())
    }
    fn unsent(&self) -> usize {
        self.account.used()
    }

    fn option(&self, level: u32, name: u32) -> Result<Vec<u8>> {
        if level != abi::SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP);
        }
        match name {
            abi::SO_PEERCRED => {
                let cred = self.state.lock().peer_cred.clone();
                Ok(options::cred_bytes(&cred.map_or(options::NOBODY, |peer| peer.cred)))
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }
    fn set_option(&self, level: u32, _name: u32, _value: &[u8]) -> Result<()> {
        if level != abi::SOL_SOCKET { Err(Errno::EOPNOTSUPP) } else { Err(Errno::ENOPROTOOPT) }
    }
    fn peer_cred(&self) -> Option<Ucred> {
        self.state.lock().peer_cred.as_ref().map(|peer| peer.cred)
    }
    fn peer_groups(&self) -> Option<Arc<Vec<u32>>> {
        self.state.lock().peer_cred.as_ref().map(|peer| peer.groups.clone())
    }
    fn send_limit(&self, bytes: usize) {
        self.account.set_limit(bytes);
    }
    fn is_listening(&self) -> bool {
        matches!(self.state.lock().role, Role::Listening { .. })
    }

    fn ways_shut(&self) -> Shut {
        self.shut()
    }
    fn close(&self) {
        let (role, names) = {
            let mut state = self.state.lock();
            state.shut = Shut { read: true, write: true };
            // The names go here, where it may sleep: they hold places in the tree.
            let names = (state.name.take(), state.peer_name.take());
            (core::mem::replace(&mut state.role, Role::Closed), names)
        };
        if let Some(name) = names.0.as_ref().filter(|n| n.is_of(self)) {
            name::release(name);
        }
        drop(names);
        let unread = self.inbox.close();
        match role {
            Role::Connected(peer) if !self.is_datagram() => {
                if let Some(peer) = peer.upgrade() {
                    if unread {
                        peer.common.fail(Errno::ECONNRESET);
                    }
                    peer.close_ways(Shut { read: true, write: true });
                }
            }
            Role::Listening { queue, .. } => {
                for waiting in queue {
                    if let Some(peer) = waiting.peer() {
                        peer.common.fail(Errno::ECONNRESET);
                    }
                    waiting.close();
                }
            }
            _ => {}
        }
        self.common.signal.notify();
        if let Some(room) = &self.room {
            room.notify();
        }
        flight::collect();
    }
}

impl Unix {
    /// Those that wait for `accept`.
    fn unaccepted(&self) -> Vec<Arc<Unix>> {
        match &self.state.lock().role {
            Role::Listening { queue, .. } => queue.iter().cloned().collect(),
            _ => Vec::new(),
        }
    }
    /// Look at the files of all packets that can be received by way of this socket.
    fn each_flight(&self, look: &mut dyn FnMut(&flight::Flight)) {
        self.inbox.each(&mut |packet| look(&packet.rights));
        for socket in self.unaccepted() {
            socket.inbox.each(&mut |packet| look(&packet.rights));
        }
    }
    /// Throw away what can be received by way of this socket: nobody ever will.
    fn forget_all(&self) {
        self.inbox.clear();
        self.unaccepted().iter().for_each(|socket| socket.inbox.clear());
    }

    fn has_input(&self) -> bool {
        if self.common.kind == abi::SOCK_STREAM {
            // An urgent byte that is next counts, as on Linux, though a read passes it over.
            let bytes = self.inbox.bytes();
            bytes > 0 && bytes >= self.common.low_water()
        } else {
            !self.inbox.is_empty()
        }
    }
}

impl Drop for Unix {
    fn drop(&mut self) {
        // A name that was never closed (the file could not be made) is not to stay.
        let name = self.state.get_mut().name.take();
        if let Some(name) = name.filter(|n| n.is_of(self)) {
            name::release(&name);
        }
    }
}
