//! UDP and UDP-Lite: `udp(7)`, `udplite(7)`.
//!
//! A datagram to this machine goes straight into the inbox of who is bound there; one to the outside becomes a packet. What
//! arrives is charged to the receiver, and what finds its inbox full is lost, as datagrams may be. One to a group or to all
//! goes to each socket that hears it ([`send`]). What could not be delivered comes back, to who wants to know, by a second
//! inbox ([`errors`]).
//!
//! UDP-Lite has ports of its own and is spoken within the machine only.

mod errors;
mod send;

use super::super::{
    Address, Common, Incoming, Outgoing, Protocol, Shut, Target, Wait, abi,
    inbox::{Account, Inbox},
    options::CORK,
    registry,
};
use super::{
    Row, canonical, destination,
    groups::Groups,
    header::{self, Asked},
    is_broadcast, is_ours, is_reachable, named,
    options::{self, Set},
    outside, ports, primary, shown, source_for, unspecified,
};
use crate::fs::caps::cap;
use crate::{
    errno::{Errno, Result},
    fs::{
        iobuf::{Sink, Source},
        poll::Events,
    },
};
use alloc::{
    sync::{Arc, Weak},
    vec::Vec,
};
use core::any::Any;
use core::net::{IpAddr, SocketAddr};
use hafez_mm::lock::Mutex;
use linux_raw_sys::net as raw;

/// The most bytes of one datagram.
const MAX_BYTES: usize = 65_507;

/// See the module.
pub struct Udp {
    common: Common,
    me: Weak<Udp>,
    inbox: Inbox,
    /// Datagrams that came back.
    errors: Inbox,
    groups: Groups,
    /// Bytes that wait here.
    account: Arc<Account>,
    settings: Set,
    /// A datagram that is not whole yet (MSG_MORE, UDP_CORK).
    begun: Mutex<Option<send::Begun>>,
    state: Mutex<State>,
}

struct State {
    local: Option<SocketAddr>,
    /// The address that it was bound to, to go back to when it is no longer connected.
    bound: Option<IpAddr>,
    /// Whether `bind` named the port.
    keeps_port: bool,
    peer: Option<SocketAddr>,
    shut: Shut,
}

impl Udp {
    pub fn new(domain: u32, protocol: u32) -> Arc<Udp> {
        let common = Common::new(domain, abi::SOCK_DGRAM, protocol);
        let account = Account::new(super::super::options::BUFFER as usize, common.signal.clone());
        let shut = Shut { read: false, write: false };
        let state = State { local: None, bound: None, keeps_port: false, peer: None, shut };
        let new = Arc::new_cyclic(|me| Udp {
            common,
            me: me.clone(),
            inbox: Inbox::new(),
            errors: Inbox::new(),
            groups: Groups::default(),
            account,
            settings: Set::default(),
            begun: Mutex::new(None),
            state: Mutex::new(state),
        });
        registry::enter(&new);
        new
    }

    /// Its line in `/proc/net/udp`, if it is bound.
    pub(super) fn row(&self) -> Option<Row> {
        let (local, peer) = {
            let state = self.state.lock();
            (state.local?, state.peer)
        };
        // TCP_ESTABLISHED and TCP_CLOSE are what it is called here, too.
        let state = if peer.is_some() { 1 } else { 7 };
        let peer = peer.unwrap_or(SocketAddr::new(unspecified(self.common.domain), 0));
        Some(Row { local, peer, state, unsent: 0, unread: self.account.used(), most: 0 })
    }

    fn bind_at(&self, at: SocketAddr, root: bool) -> Result<SocketAddr> {
        let me = self.me.upgrade().ok_or(Errno::EINVAL)?;
        let weak: Weak<Udp> = Arc::downgrade(&me);
        let port = self.ports().bind(&self.common, at, weak, root)?;
        let at = SocketAddr::new(at.ip(), port);
        let mut state = self.state.lock();
        (state.local, state.bound) = (Some(at), Some(at.ip()));
        Ok(at)
    }

    /// The address that it sends from, bound to a free port if it has none.
    fn local(&self) -> Result<SocketAddr> {
        let local = self.state.lock().local;
        match local {
            Some(at) => Ok(at),
            None => self.bind_at(SocketAddr::new(unspecified(self.common.domain), 0), true),
        }
    }

    /// The ports of its protocol.
    fn ports(&self) -> &'static ports::Ports {
        if self.common.protocol == abi::IPPROTO_UDPLITE { &ports::UDPLITE } else { &ports::UDP }
    }

    /// By which address it speaks to `to`, if it is bound to none.
    fn source(&self, to: IpAddr) -> Result<IpAddr> {
        if is_ours(to) {
            return Ok(source_for(to));
        }
        if to.is_multicast() || is_broadcast(to) {
            let interface = self.way_out(to, None)?;
            return Ok(primary(interface, to.is_ipv4()));
        }
        outside::start()?;
        outside::source(to).ok_or(Errno::ENETUNREACH)
    }

    /// From where to where a datagram goes, and what is asked of it.
    fn way(&self, out: &Outgoing) -> Result<(SocketAddr, SocketAddr, Asked)> {
        let (peer, shut) = {
            let state = self.state.lock();
            (state.peer, state.shut)
        };
        let local = self.local()?;
        let to = match &out.to {
            Some(to) => destination(named(&self.common, &to.address)?),
            None => peer.ok_or(Errno::EDESTADDRREQ)?,
        };
        if to.port() == 0 {
            return Err(Errno::EINVAL);
        }
        self.common.take_error()?;
        if shut.write {
            return Err(Errno::EPIPE);
        }
        let asked = Asked::read(&out.control, &self.common, to.ip())?;
        if asked.source.is_some_and(|ip| !is_ours(ip) || ip.is_ipv4() != to.is_ipv4()) {
            return Err(Errno::ENETUNREACH);
        }
        Ok((local, to, asked))
    }
}

impl Protocol for Udp {
    fn common(&self) -> &Common {
        &self.common
    }
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn bind(&self, to: &Target) -> Result<()> {
        let Address::Inet(at) = &to.address else { return Err(Errno::EAFNOSUPPORT) };
        let at = canonical(*at);
        let ip = at.ip();
        if !ip.is_unspecified()
            && !ip.is_multicast()
            && !is_broadcast(ip)
            && !is_ours(ip)
            && !self.settings.binds_freely()
        {
            return Err(Errno::EADDRNOTAVAIL);
        }
        if self.state.lock().local.is_some() {
            return Err(Errno::EINVAL);
        }
        self.bind_at(at, to.walker.cred.may(cap::NET_BIND_SERVICE))?;
        self.state.lock().keeps_port = at.port() != 0;
        if is_reachable(ip) {
            // Where there is no way out, only the machine itself can send.
            let _ = outside::start();
        }
        Ok(())
    }

    fn connect(&self, to: &Target, _wait: Wait) -> Result<()> {
        if to.address == Address::None {
            self.disconnect();
            return Ok(());
        }
        let to = destination(named(&self.common, &to.address)?);
        if is_broadcast(to.ip()) && !self.common.has(abi::SO_BROADCAST) {
            return Err(Errno::EACCES);
        }
        let source = self.source(to.ip())?;
        let local = self.local()?;
        let ip = if local.ip().is_unspecified() { source } else { local.ip() };
        {
            let mut state = self.state.lock();
            (state.local, state.peer) = (Some(SocketAddr::new(ip, local.port())), Some(to));
        }
        self.ports().set_peer(local.port(), self.common.number, ip, Some(to));
        Ok(())
    }

    fn name(&self) -> Result<Address> {
        let local = self.state.lock().local;
        Ok(shown(local.unwrap_or(SocketAddr::new(unspecified(self.common.domain), 0)), self.common.domain))
    }
    fn peer_name(&self) -> Result<Address> {
        let peer = self.state.lock().peer;
        peer.map(|p| shown(p, self.common.domain)).ok_or(Errno::ENOTCONN)
    }

    fn shutdown(&self, how: Shut) -> Result<()> {
        let connected = {
            let mut state = self.state.lock();
            state.shut.read |= how.read;
            state.shut.write |= how.write;
            state.peer.is_some()
        };
        self.common.signal.notify();
        if connected { Ok(()) } else { Err(Errno::ENOTCONN) }
    }

    fn send(&self, from: &mut Source<'_>, out: Outgoing, _wait: Wait) -> Result<()> {
        if out.flags & abi::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if from.remaining() > MAX_BYTES {
            return Err(Errno::EMSGSIZE);
        }
        let more = out.flags & abi::MSG_MORE != 0 || self.common.has(CORK);
        if more || self.begun.lock().is_some() {
            return self.send_more(from, out, more);
        }
        let (local, to, asked) = self.way(&out)?;
        match self.piece(from.remaining(), to, &asked)? {
            Some(piece) => self.send_in_pieces(from, piece, local, to, &asked),
            None => self.send_one(from, local, to, &asked),
        }
    }

    fn receive(&self, to: &mut Sink<'_>, into: &mut Incoming, wait: Wait) -> Result<()> {
        if into.flags & abi::MSG_ERRQUEUE != 0 {
            return self.receive_error(to, into);
        }
        let is_shut = || self.state.lock().shut.read;
        header::receive((&self.common, &self.inbox, &self.settings), is_shut, to, into, wait)
    }

    fn holds(&self) -> usize {
        self.inbox.holds() + self.errors.holds()
    }
    fn poll(&self) -> Events {
        let shut = self.state.lock().shut;
        let mut events = Events::WRITABLE;
        events.set(Events::ERR, self.common.has_error() || !self.errors.is_empty());
        events.set(Events::READABLE, !self.inbox.is_empty() || shut.read);
        events.set(Events::RDHUP, shut.read);
        events.set(Events::HUP, shut.read && shut.write);
        events
    }

    fn readable(&self) -> Result<usize> {
        Ok(self.inbox.first())
    }

    fn option(&self, level: u32, name: u32) -> Result<Vec<u8>> {
        if options::is_mtu(level, name) {
            let peer = self.state.lock().peer;
            return options::mtu(level, &self.common, peer);
        }
        self.settings.get(&self.common, level, name)
    }
    fn set_option(&self, level: u32, name: u32, value: &[u8]) -> Result<()> {
        let late = self.state.lock().local.is_some();
        if (level, name) == (abi::IPPROTO_IPV6, raw::IPV6_V6ONLY) && late {
            return Err(Errno::EINVAL);
        }
        if let Some(result) = self.groups.set(&self.common, level, name, value) {
            return result;
        }
        self.settings.set(&self.common, level, name, value)?;
        if (level, name) == (abi::IPPROTO_UDP, options::UDP_CORK) && !self.common.has(CORK) {
            self.send_begun()?;
        }
        Ok(())
    }
    fn options_changed(&self) {
        let local = self.state.lock().local;
        if let Some(local) = local {
            self.ports().refresh(local.port(), &self.common);
        }
    }

    fn ways_shut(&self) -> Shut {
        self.state.lock().shut
    }
    fn close(&self) {
        let local = {
            let mut state = self.state.lock();
            state.shut = Shut { read: true, write: true };
            state.peer = None;
            state.local.take()
        };
        if let Some(local) = local {
            self.ports().release(local.port(), self.common.number);
        }
        *self.begun.lock() = None;
        self.groups.clear();
        self.inbox.close();
        self.errors.close();
        self.common.signal.notify();
    }
}
