//! Where a datagram goes: to one socket of this machine, to all that hear a group or a network, or out.

use super::super::super::{Outgoing, Ucred, abi, boxed, filter, inbox::Packet};
use super::super::{
    LOOPBACK, OUTSIDE, groups,
    header::{self, Asked, Head},
    interfaces, is_broadcast, is_ours, options, outside, primary, shown, source_for,
};
use super::{MAX_BYTES, State, Udp};
use crate::{
    clock,
    errno::{Errno, Result},
    fs::iobuf::Source,
    mem,
};
use alloc::{boxed::Box, vec::Vec};
use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::net as raw;

/// `UDP_MAX_SEGMENTS`
const MOST_PIECES: usize = 128;

/// What there is so far of a datagram that several calls make.
pub(super) struct Begun {
    local: SocketAddr,
    to: SocketAddr,
    asked: Asked,
    bytes: Vec<u8>,
}

impl Udp {
    /// A part of a datagram: the first says where it goes, the last (`more`: not this one) sends it.
    #[cold]
    #[inline(never)]
    pub(super) fn send_more(&self, from: &mut Source<'_>, out: Outgoing, more: bool) -> Result<()> {
        let taken = self.begun.lock().take();
        let mut begun = match taken {
            Some(begun) => begun,
            None => {
                let (local, to, asked) = self.way(&out)?;
                Begun { local, to, asked, bytes: Vec::new() }
            }
        };
        // Too long, or not there to be read: all that was begun is forgotten.
        if begun.bytes.len() + from.remaining() > MAX_BYTES {
            return Err(Errno::EMSGSIZE);
        }
        begun.bytes.try_reserve(from.remaining()).map_err(|_| Errno::ENOBUFS)?;
        begun.bytes.append(&mut Udp::collect(from)?);
        *self.begun.lock() = Some(begun);
        if more { Ok(()) } else { self.send_begun().inspect_err(|_| from.take_back()) }
    }

    /// What was begun is whole.
    #[cold]
    #[inline(never)]
    pub(super) fn send_begun(&self) -> Result<()> {
        let taken = self.begun.lock().take();
        let Some(Begun { local, to, asked, bytes }) = taken else { return Ok(()) };
        let mut all = Source::kernel(&bytes);
        match self.piece(bytes.len(), to, &asked)? {
            Some(piece) => self.send_in_pieces(&mut all, piece, local, to, &asked),
            None => self.send_one(&mut all, local, to, &asked),
        }
    }

    /// Take in a datagram from `from`, if there is room.
    pub(in crate::net::inet) fn deliver(
        &self,
        data: &mut Source<'_>,
        from: SocketAddr,
        head: Head,
    ) -> Result<()> {
        let len = data.remaining();
        let limit = self.common.receive_buffer.load(Relaxed) as usize;
        let packet = if self.state.lock().shut.read || self.account.used() + len > limit {
            None
        } else {
            Packet::new(data, len, &self.account, Ucred::default()).ok()
        };
        let Some(mut packet) = packet else {
            self.common.drop_one();
            data.skip_all();
            return Ok(());
        };
        if data.faulted() {
            data.uncount(packet.len());
            return Err(Errno::EFAULT);
        }
        let around = |packet: &Packet| {
            let ports = [from.port(), head.to.port(), packet.len() as u16 + 8, 0];
            let protocol = if head.to.is_ipv4() { filter::IPV4 } else { filter::IPV6 };
            (ports.iter().flat_map(|port| port.to_be_bytes()).collect(), protocol, head.interface)
        };
        if !self.common.lets_in(&mut packet, around) {
            self.common.drop_one();
            return Ok(());
        }
        packet.source = boxed(shown(from, self.common.domain));
        packet.head = Some(Box::new(head));
        if self.common.is_stamped() {
            packet.at = clock::realtime();
        }
        if self.inbox.push(packet).is_ok() {
            self.common.signal.notify();
        }
        Ok(())
    }

    /// How long the datagrams are that so many bytes to `to` are cut into (UDP_SEGMENT), if they are.
    pub(super) fn piece(&self, len: usize, to: SocketAddr, asked: &Asked) -> Result<Option<usize>> {
        let set = self.settings.number(abi::IPPROTO_UDP, options::UDP_SEGMENT).unwrap_or(0) as usize;
        let piece = asked.piece.map_or(set, usize::from);
        if piece == 0 {
            return Ok(None);
        }
        let headers = if to.is_ipv4() { 28 } else { 48 };
        if piece.min(len) + headers > options::largest_packet(to.ip()) as usize {
            return Err(Errno::EMSGSIZE);
        }
        if len > piece * MOST_PIECES {
            return Err(Errno::EINVAL);
        }
        Ok((len > piece).then_some(piece))
    }

    pub(super) fn send_in_pieces(
        &self,
        from: &mut Source<'_>,
        piece: usize,
        local: SocketAddr,
        to: SocketAddr,
        asked: &Asked,
    ) -> Result<()> {
        let bytes = Udp::collect(from)?;
        for part in bytes.chunks(piece) {
            self.send_one(&mut Source::kernel(part), local, to, asked).inspect_err(|_| from.take_back())?;
        }
        Ok(())
    }

    /// One datagram of all that there is.
    pub(super) fn send_one(
        &self,
        from: &mut Source<'_>,
        local: SocketAddr,
        to: SocketAddr,
        asked: &Asked,
    ) -> Result<()> {
        if to.ip().is_multicast() || is_broadcast(to.ip()) {
            return self.send_to_many(from, local, to, asked);
        }
        let source = match asked.source {
            Some(ip) => ip,
            None if local.ip().is_unspecified() => self.source(to.ip())?,
            None => local.ip(),
        };
        let me = SocketAddr::new(source, local.port());
        if is_ours(to.ip()) {
            self.send_inside(from, me, to, asked)
        } else {
            self.send_outside(from, me, to, asked)
        }
    }

    fn send_inside(
        &self,
        from: &mut Source<'_>,
        me: SocketAddr,
        to: SocketAddr,
        asked: &Asked,
    ) -> Result<()> {
        let found = self.ports().find(to, Some(me), false);
        match found.as_ref().and_then(|p| p.as_any().downcast_ref::<Udp>()) {
            Some(receiver) => {
                let interface = header::interface_of(to.ip()).unwrap_or(LOOPBACK);
                receiver.deliver(from, me, asked.head(&self.settings, to, interface))
            }
            None => self.came_back(from, to),
        }
    }

    /// All that is to be sent, in the kernel's memory.
    pub(super) fn collect(from: &mut Source<'_>) -> Result<Vec<u8>> {
        let mut bytes = mem::zeroed(from.remaining())?;
        let n = from.take(&mut bytes);
        if from.faulted() {
            from.uncount(n);
            return Err(Errno::EFAULT);
        }
        Ok(bytes)
    }

    fn send_outside(
        &self,
        from: &mut Source<'_>,
        me: SocketAddr,
        to: SocketAddr,
        asked: &Asked,
    ) -> Result<()> {
        if self.common.protocol != abi::IPPROTO_UDP || me.ip().is_loopback() {
            return Err(Errno::ENETUNREACH);
        }
        outside::start()?;
        let bytes = Udp::collect(from)?;
        let head = asked.head(&self.settings, to, OUTSIDE);
        let sent = outside::send_datagram(me, to, head.hops, &bytes);
        if sent.is_err() {
            from.take_back();
        }
        sent
    }

    /// The interface by which groups and broadcasts are spoken to.
    pub(super) fn way_out(&self, to: IpAddr, asked: Option<u32>) -> Result<u32> {
        if is_broadcast(to) {
            let lo = matches!(to, IpAddr::V4(v4) if v4.octets()[0] == 127);
            return if lo { Ok(LOOPBACK) } else { self.outward() };
        }
        let level = if to.is_ipv4() { abi::IPPROTO_IP } else { abi::IPPROTO_IPV6 };
        let set = asked.or(Some(self.settings.way_out(level)).filter(|i| *i != 0));
        let bound = || {
            let local = self.state.lock().local?;
            if local.ip().is_multicast() { None } else { header::interface_of(local.ip()) }
        };
        match set.or_else(bound) {
            Some(interface) => Ok(interface),
            None => self.outward(),
        }
    }
    fn outward(&self) -> Result<u32> {
        let there = interfaces().iter().any(|i| i.index == OUTSIDE);
        if there { Ok(OUTSIDE) } else { Err(Errno::ENETUNREACH) }
    }

    /// To a group, or to all.
    fn send_to_many(
        &self,
        from: &mut Source<'_>,
        local: SocketAddr,
        to: SocketAddr,
        asked: &Asked,
    ) -> Result<()> {
        let broadcast = is_broadcast(to.ip());
        if broadcast && !self.common.has(abi::SO_BROADCAST) {
            return Err(Errno::EACCES);
        }
        let interface = self.way_out(to.ip(), asked.interface)?;
        if to.is_ipv6() && interface == LOOPBACK {
            // As on Linux: no way leads to groups there.
            return Err(Errno::ENETUNREACH);
        }
        let own = primary(interface, to.is_ipv4());
        let usable = !local.ip().is_unspecified() && local.ip().is_ipv4() == to.is_ipv4();
        let own = if usable && !local.ip().is_multicast() { source_for(local.ip()) } else { own };
        let me = SocketAddr::new(asked.source.unwrap_or(own), local.port());
        let bytes = Udp::collect(from)?;
        let head = asked.head(&self.settings, to, interface);
        let looped = match to.ip() {
            _ if broadcast || interface == LOOPBACK => true,
            IpAddr::V4(_) => self.settings.number(abi::IPPROTO_IP, raw::IP_MULTICAST_LOOP) != Ok(0),
            IpAddr::V6(_) => self.settings.number(abi::IPPROTO_IPV6, raw::IPV6_MULTICAST_LOOP) != Ok(0),
        };
        if looped && (broadcast || groups::is_joined(to.ip(), interface)) {
            for socket in self.ports().all(to.port()) {
                if let Some(receiver) = socket.as_any().downcast_ref::<Udp>().filter(|r| r.hears(&head, me)) {
                    receiver.deliver(&mut Source::kernel(&bytes), me, head.clone())?;
                }
            }
        }
        if interface == OUTSIDE && head.hops > 0 && self.common.protocol == abi::IPPROTO_UDP {
            outside::start()?;
            outside::send_datagram(me, to, head.hops, &bytes).inspect_err(|_| from.take_back())?;
        }
        Ok(())
    }

    /// Whether what goes to many is also for this socket.
    fn hears(&self, head: &Head, from: SocketAddr) -> bool {
        let (local, peer) = {
            let State { local, peer, .. } = &*self.state.lock();
            (*local, *peer)
        };
        let to = head.to.ip();
        let Some(ip) = local.map(|l| l.ip()) else { return false };
        let dual =
            self.common.domain == abi::AF_INET6 && !self.common.has(super::super::super::options::V6ONLY);
        let fits = ip == to || ip.is_unspecified() && (ip.is_ipv4() == to.is_ipv4() || dual && to.is_ipv4());
        if !fits || peer.is_some_and(|peer| peer != from) {
            return false;
        }
        let all = match to {
            _ if !to.is_multicast() => return true,
            IpAddr::V4(_) => self.settings.number(abi::IPPROTO_IP, raw::IP_MULTICAST_ALL),
            IpAddr::V6(_) => self.settings.number(abi::IPPROTO_IPV6, raw::IPV6_MULTICAST_ALL),
        };
        self.groups.hears(to, head.interface, from.ip(), all != Ok(0))
    }

    /// `connect` to no address: everybody is heard again, and what `connect` gave the socket goes.
    pub(super) fn disconnect(&self) {
        let mut state = self.state.lock();
        state.peer = None;
        let Some(local) = state.local else { return };
        if state.keeps_port {
            let ip = state.bound.unwrap_or(local.ip());
            state.local = Some(SocketAddr::new(ip, local.port()));
            drop(state);
            self.ports().set_peer(local.port(), self.common.number, ip, None);
        } else {
            state.local = None;
            drop(state);
            self.ports().release(local.port(), self.common.number);
        }
    }
}
