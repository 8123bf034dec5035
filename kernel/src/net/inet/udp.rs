//! UDP: `udp(7)`.
//!
//! A datagram to this machine goes straight into the inbox of who is bound there; one to the outside becomes a packet. What
//! arrives is charged to the receiver, and what finds its inbox full is lost, as datagrams may be.

use super::super::{
    Address, Common, Incoming, Outgoing, Protocol, Shut, Target, Ucred, Wait, abi, boxed,
    inbox::{Account, Inbox, Packet},
};
use super::{
    canonical, destination, is_ours, is_reachable, named, options::Set, outside, ports, shown, source_for,
    unspecified,
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
use core::sync::atomic::Ordering::Relaxed;
use hafez_mm::lock::Mutex;
use linux_raw_sys::net as raw;

/// The most bytes of one datagram.
const MAX_BYTES: usize = 65_507;

/// See the module.
pub struct Udp {
    common: Common,
    me: Weak<Udp>,
    inbox: Inbox,
    /// Bytes that wait here.
    account: Arc<Account>,
    settings: Set,
    state: Mutex<State>,
}

struct State {
    local: Option<SocketAddr>,
    /// The address that it was bound to, to go back to when it is no longer connected.
    bound: Option<IpAddr>,
    peer: Option<SocketAddr>,
    shut: Shut,
}

impl Udp {
    pub fn new(domain: u32) -> Arc<Udp> {
        let common = Common::new(domain, abi::SOCK_DGRAM, abi::IPPROTO_UDP);
        let account = Account::new(super::super::options::BUFFER as usize, common.signal.clone());
        let shut = Shut { read: false, write: false };
        let state = State { local: None, bound: None, peer: None, shut };
        Arc::new_cyclic(|me| Udp {
            common,
            me: me.clone(),
            inbox: Inbox::new(),
            account,
            settings: Set::default(),
            state: Mutex::new(state),
        })
    }

    fn bind_at(&self, at: SocketAddr, root: bool) -> Result<SocketAddr> {
        let me = self.me.upgrade().ok_or(Errno::EINVAL)?;
        let weak: Weak<Udp> = Arc::downgrade(&me);
        let port = ports::UDP.bind(&self.common, at, weak, root)?;
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

    /// Take in a datagram from `from`, if there is room.
    pub(in crate::net::inet) fn deliver(&self, data: &mut Source<'_>, from: SocketAddr) -> Result<()> {
        let len = data.remaining();
        let limit = self.common.receive_buffer.load(Relaxed) as usize;
        if self.state.lock().shut.read || self.account.used() + len > limit {
            data.skip_all();
            return Ok(());
        }
        let mut packet = match Packet::new(data, len, &self.account, Ucred::default()) {
            Ok(packet) => packet,
            Err(_) => {
                data.skip_all();
                return Ok(());
            }
        };
        if data.faulted() {
            data.uncount(packet.len());
            return Err(Errno::EFAULT);
        }
        packet.source = boxed(shown(from, self.common.domain));
        if self.inbox.push(packet).is_ok() {
            self.common.signal.notify();
        }
        Ok(())
    }

    fn send_inside(
        &self,
        from: &mut Source<'_>,
        me: SocketAddr,
        to: SocketAddr,
        connected: bool,
    ) -> Result<()> {
        let found = ports::UDP.find(to, Some(me), false);
        match found.as_ref().and_then(|p| p.as_any().downcast_ref::<Udp>()) {
            Some(receiver) => receiver.deliver(from, me),
            None => {
                from.skip_all();
                if connected {
                    // What an ICMP message would say.
                    self.common.fail(Errno::ECONNREFUSED);
                    self.common.signal.notify();
                }
                Ok(())
            }
        }
    }

    fn send_outside(&self, from: &mut Source<'_>, me: SocketAddr, to: SocketAddr) -> Result<()> {
        if let IpAddr::V4(v4) = to.ip()
            && v4.is_broadcast()
            && !self.common.has(abi::SO_BROADCAST)
        {
            return Err(Errno::EACCES);
        }
        outside::start()?;
        if to.ip().is_multicast() {
            return Err(Errno::ENETUNREACH);
        }
        let source = outside::source(to.ip()).ok_or(Errno::ENETUNREACH)?;
        let mut bytes = crate::mem::zeroed(from.remaining())?;
        let n = from.take(&mut bytes);
        if from.faulted() {
            from.uncount(n);
            return Err(Errno::EFAULT);
        }
        let sent = outside::send_datagram(SocketAddr::new(source, me.port()), to, &bytes);
        if sent.is_err() {
            from.take_back();
        }
        sent
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
        let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
        if !ip.is_unspecified() && !ip.is_multicast() && !broadcast && !is_ours(ip) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        if self.state.lock().local.is_some() {
            return Err(Errno::EINVAL);
        }
        self.bind_at(at, to.walker.cred.may(cap::NET_BIND_SERVICE))?;
        if is_reachable(ip) {
            // Where there is no way out, only the machine itself can send.
            let _ = outside::start();
        }
        Ok(())
    }

    fn connect(&self, to: &Target, _wait: Wait) -> Result<()> {
        if to.address == Address::None {
            let mut state = self.state.lock();
            state.peer = None;
            if let (Some(local), Some(ip)) = (state.local, state.bound) {
                state.local = Some(SocketAddr::new(ip, local.port()));
                drop(state);
                ports::UDP.set_peer(local.port(), self.common.number, ip, None);
            }
            return Ok(());
        }
        let to = destination(named(&self.common, &to.address)?);
        let source = if is_ours(to.ip()) {
            source_for(to.ip())
        } else {
            outside::start()?;
            outside::source(to.ip()).ok_or(Errno::ENETUNREACH)?
        };
        let local = self.local()?;
        let ip = if local.ip().is_unspecified() { source } else { local.ip() };
        {
            let mut state = self.state.lock();
            (state.local, state.peer) = (Some(SocketAddr::new(ip, local.port())), Some(to));
        }
        ports::UDP.set_peer(local.port(), self.common.number, ip, Some(to));
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
        if !is_ours(to.ip()) {
            return self.send_outside(from, local, to);
        }
        let ip = if local.ip().is_unspecified() { source_for(to.ip()) } else { local.ip() };
        self.send_inside(from, SocketAddr::new(ip, local.port()), to, peer == Some(to))
    }

    fn receive(&self, to: &mut Sink<'_>, into: &mut Incoming, wait: Wait) -> Result<()> {
        if into.flags & (abi::MSG_ERRQUEUE | abi::MSG_OOB) != 0 {
            return Err(Errno::EAGAIN);
        }
        loop {
            self.common.take_error()?;
            if let Some(whole) = self.inbox.receive(to, into, into.flags & abi::MSG_PEEK != 0) {
                into.whole = Some(whole);
                return Ok(());
            }
            if self.state.lock().shut.read {
                return Ok(());
            }
            let ready = || !self.inbox.is_empty() || self.common.has_error() || self.state.lock().shut.read;
            self.common.sleep(wait, ready)?;
        }
    }

    fn holds(&self) -> usize {
        self.inbox.holds()
    }
    fn poll(&self) -> Events {
        let shut = self.state.lock().shut;
        let mut events = Events::WRITABLE;
        events.set(Events::ERR, self.common.has_error());
        events.set(Events::READABLE, !self.inbox.is_empty() || shut.read);
        events.set(Events::RDHUP, shut.read);
        events.set(Events::HUP, shut.read && shut.write);
        events
    }

    fn readable(&self) -> Result<usize> {
        Ok(self.inbox.first())
    }

    fn option(&self, level: u32, name: u32) -> Result<Vec<u8>> {
        self.settings.get(&self.common, level, name)
    }
    fn set_option(&self, level: u32, name: u32, value: &[u8]) -> Result<()> {
        let late = self.state.lock().local.is_some();
        if (level, name) == (abi::IPPROTO_IPV6, raw::IPV6_V6ONLY) && late {
            return Err(Errno::EINVAL);
        }
        self.settings.set(&self.common, level, name, value)
    }
    fn options_changed(&self) {
        let local = self.state.lock().local;
        if let Some(local) = local {
            ports::UDP.refresh(local.port(), &self.common);
        }
    }

    fn close(&self) {
        let local = {
            let mut state = self.state.lock();
            state.shut = Shut { read: true, write: true };
            state.peer = None;
            state.local.take()
        };
        if let Some(local) = local {
            ports::UDP.release(local.port(), self.common.number);
        }
        self.inbox.close();
        self.common.signal.notify();
    }
}
