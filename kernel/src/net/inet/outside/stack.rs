//! smoltcp's machine and what it works for: connections, those that are being made, those that end, ports for datagrams.

use super::super::{Head, OUTSIDE, ports, raw, tcp::Tcp, udp::Udp};
use super::interfaces::{ADDRESS, ADDRESS6, GATEWAY, GATEWAY6, PREFIX, PREFIX6};
use super::wire::{Opening, Port, count_in, opening};
use crate::{
    clock,
    drivers::net::{Card, FRAME},
    fs::{iobuf::Source, poll::Signal},
    mem, random,
};
use alloc::{
    sync::{Arc, Weak},
    vec,
    vec::Vec,
};
use core::net::{IpAddr, SocketAddr};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, IpEndpoint};

/// Buffers of a connection, in bytes.
const RECEIVE: usize = 16 << 10;
const SEND: usize = 16 << 10;
/// Identifiers of echo requests that are remembered.
const MAX_ECHOES: usize = 16;
/// Buffers of a port for datagrams: two wait at most to go out or come in, for both are emptied at once.
const DATAGRAMS: usize = 4;
const DATAGRAM_BYTES: usize = 2 * FRAME;
/// A connection attempt ends after this long, in ns.
pub const GIVE_UP: u64 = 60 * clock::SECOND;
/// Frames taken in one go, before others get the CPU.
const BATCH: usize = 64;

pub type Handle = SocketHandle;

/// The state of a connection, as a socket wants to know it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Status {
    pub established: bool,
    /// The other side sends no more.
    pub fin: bool,
    pub closed: bool,
    pub readable: usize,
    /// Bytes that can be sent now.
    pub room: usize,
    pub unsent: usize,
}

impl Status {
    pub fn of(socket: &tcp::Socket<'_>) -> Status {
        use tcp::State::*;
        let state = socket.state();
        let open = matches!(state, Established | CloseWait);
        Status {
            established: !matches!(state, Closed | Listen | SynSent | SynReceived),
            fin: matches!(state, CloseWait | Closing | LastAck | TimeWait),
            closed: state == Closed,
            readable: socket.recv_queue(),
            room: if open { socket.send_capacity() - socket.send_queue() } else { 0 },
            unsent: socket.send_queue(),
        }
    }
    /// Nothing will come and nothing can go.
    pub fn is_over(&self) -> bool {
        self.closed && self.readable == 0
    }
}

/// A connection that a socket of ours has.
pub struct Connection {
    pub handle: Handle,
    pub owner: Weak<Tcp>,
    /// As it was when the owner was last told.
    pub told: Status,
    pub began: u64,
}

/// One that is being made from outside.
struct Embryo {
    handle: Handle,
    listener: Weak<Tcp>,
}

/// What [`Stack::poll`] has not done yet.
#[derive(Default)]
pub struct Left {
    /// There may be more frames.
    pub frames: bool,
    /// The card had no room for all that is to go.
    pub unsent: bool,
    /// A connection came for which there was no memory.
    pub starved: bool,
}

/// See the module.
pub struct Stack {
    card: &'static Card,
    pub interface: Interface,
    pub sockets: SocketSet<'static>,
    pub connections: Vec<Connection>,
    embryos: Vec<Embryo>,
    /// Connections that no socket has any more, on their way to their end.
    pub closing: Vec<Handle>,
    /// By local port.
    datagrams: Vec<(u16, Handle)>,
    /// By identifier of the echo requests that were sent; the last is the newest.
    echoes: Vec<(u16, Handle)>,
    frame: Vec<u8>,
    /// It begins a connection for which there was no memory: to be tried once more.
    starved: bool,
    /// Of the datagram that came last.
    hops: u8,
    class: u8,
}

impl Stack {
    pub fn new(card: &'static Card, mac: [u8; 6]) -> Stack {
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac)));
        config.random_seed = random::u64();
        let mut port = Port { card, frame: None, full: false };
        let mut interface = Interface::new(config, &mut port, now());
        interface.update_ip_addrs(|all| {
            // There is room for two.
            let _ = all.push(IpCidr::new(ADDRESS.into(), PREFIX));
            let _ = all.push(IpCidr::new(ADDRESS6.into(), PREFIX6));
        });
        let _ = interface.routes_mut().add_default_ipv4_route(GATEWAY);
        let _ = interface.routes_mut().add_default_ipv6_route(GATEWAY6);
        Stack {
            card,
            interface,
            sockets: SocketSet::new(Vec::new()),
            connections: Vec::new(),
            embryos: Vec::new(),
            closing: Vec::new(),
            datagrams: Vec::new(),
            echoes: Vec::new(),
            frame: Vec::with_capacity(FRAME),
            starved: false,
            hops: 0,
            class: 0,
        }
    }

    /// Take what has come, and send what is to be sent; what is left, and when to look again (ns).
    pub fn poll(&mut self) -> (Left, Option<u64>) {
        let mut taken = 0;
        let mut frame = core::mem::take(&mut self.frame);
        while taken < BATCH {
            let again = core::mem::take(&mut self.starved);
            if !again && !self.card.receive(&mut frame) {
                break;
            }
            taken += 1;
            if !again {
                count_in(frame.len());
            }
            let admitted = self.admit(&frame);
            if self.starved && !again {
                break;
            }
            self.starved = false;
            if admitted {
                let mut port = Port { card: self.card, frame: Some(&frame), full: false };
                self.interface.poll_ingress_single(now(), &mut port, &mut self.sockets);
                self.take_datagrams();
                self.take_echoes();
                self.take_embryos();
            }
        }
        self.frame = frame;
        self.interface.poll_maintenance(now());
        let sent = self.egress();
        self.bury(sent);
        let next = self.interface.poll_at(now(), &self.sockets);
        let next = next.map(|at| (at.total_micros().max(0) as u64).saturating_mul(1000));
        // "Now" means that the card had no room: its interrupt will say when there is.
        let next = next.map(|at| at.max(clock::monotonic() + 1_000_000));
        (Left { frames: taken == BATCH, unsent: !sent, starved: self.starved }, next)
    }

    /// Send what there is to send; whether all of it went.
    pub fn egress(&mut self) -> bool {
        let mut port = Port { card: self.card, frame: None, full: false };
        while self.interface.poll_egress(now(), &mut port, &mut self.sockets)
            != smoltcp::iface::PollResult::None
        {}
        !port.full
    }

    /// Make ready for what the frame begins; `false` if it is to be dropped.
    fn admit(&mut self, frame: &[u8]) -> bool {
        match opening(frame) {
            Some(Opening::Connection { from, to }) => self.admit_connection(from, to),
            Some(Opening::Datagram { to, hops, class }) => {
                (self.hops, self.class) = (hops, class);
                if ports::UDP.in_use(to.port()) {
                    return self.datagram_socket(to.port()).is_some();
                }
                true
            }
            None => true,
        }
    }

    fn admit_connection(&mut self, from: SocketAddr, to: SocketAddr) -> bool {
        let (from_end, to_end) = (IpEndpoint::from(from), IpEndpoint::from(to));
        let known = self.sockets.iter().any(|(_, socket)| match socket {
            smoltcp::socket::Socket::Tcp(s) => {
                s.remote_endpoint() == Some(from_end) && s.local_endpoint() == Some(to_end)
            }
            _ => false,
        });
        if known {
            return true;
        }
        // Nobody listens: smoltcp answers with a reset. No room: the client tries again.
        if ports::TCP.find(to, Some(from), true).is_none() {
            return true;
        }
        let Some(listener) = Tcp::listener(to, from) else { return false };
        let Some(mut socket) = new_connection() else {
            self.starved = true;
            return false;
        };
        socket.set_timeout(Some(Duration::from_micros(GIVE_UP / 1000)));
        if socket.listen(to_end).is_err() {
            return false;
        }
        let handle = self.sockets.add(socket);
        self.embryos.push(Embryo { handle, listener: Arc::downgrade(&listener) });
        true
    }

    /// Those that have grown into connections go to their listeners; those that came to nothing go.
    fn take_embryos(&mut self) {
        let mut at = 0;
        while at < self.embryos.len() {
            let handle = self.embryos[at].handle;
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
            let status = Status::of(socket);
            if status.established {
                let embryo = self.embryos.swap_remove(at);
                socket.set_timeout(None);
                let ends = (socket.local_endpoint(), socket.remote_endpoint());
                self.hand_over(embryo, ends);
            } else if status.closed || socket.state() == tcp::State::Listen {
                self.embryos.swap_remove(at);
                self.sockets.remove(handle);
            } else {
                at += 1;
            }
        }
    }

    fn hand_over(&mut self, embryo: Embryo, ends: (Option<IpEndpoint>, Option<IpEndpoint>)) {
        let handle = embryo.handle;
        let new = match (embryo.listener.upgrade(), ends) {
            (Some(listener), (Some(local), Some(peer))) => {
                let local = SocketAddr::new(local.addr.into(), local.port);
                let peer = SocketAddr::new(peer.addr.into(), peer.port);
                Tcp::arrived(&listener, handle, local, peer).map(|new| (new, listener))
            }
            _ => None,
        };
        match new {
            Some((new, listener)) => {
                let owner = Arc::downgrade(&new);
                let began = clock::monotonic();
                self.connections.push(Connection { handle, owner, told: Status::default(), began });
                listener.news();
            }
            None => {
                self.sockets.get_mut::<tcp::Socket<'_>>(handle).abort();
                self.closing.push(handle);
            }
        }
    }

    /// The smoltcp socket of a local port for datagrams, made if there is none.
    pub fn datagram_socket(&mut self, port: u16) -> Option<Handle> {
        if let Some((_, handle)) = self.datagrams.iter().find(|(p, _)| *p == port) {
            return Some(*handle);
        }
        // Ports that nobody is bound to any more make room.
        let (kept, gone) =
            core::mem::take(&mut self.datagrams).into_iter().partition(|(p, _)| ports::UDP.in_use(*p));
        self.datagrams = kept;
        let gone: Vec<(u16, Handle)> = gone;
        gone.into_iter().for_each(|(_, handle)| drop(self.sockets.remove(handle)));
        if !mem::headroom(2 * DATAGRAM_BYTES + 2048) {
            return None;
        }
        let buffer =
            || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; DATAGRAMS], vec![0; DATAGRAM_BYTES]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).ok()?;
        let handle = self.sockets.add(socket);
        self.datagrams.push((port, handle));
        Some(handle)
    }

    /// The smoltcp socket for echoes with this identifier, made if there is none: the oldest makes room.
    pub fn echo_socket(&mut self, ident: u16) -> Option<Handle> {
        if let Some((_, handle)) = self.echoes.iter().find(|(i, _)| *i == ident) {
            return Some(*handle);
        }
        if self.echoes.len() >= MAX_ECHOES {
            let (_, oldest) = self.echoes.remove(0);
            self.sockets.remove(oldest);
        }
        if !mem::headroom(2 * DATAGRAM_BYTES + 2048) {
            return None;
        }
        let buffer =
            || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; DATAGRAMS], vec![0; DATAGRAM_BYTES]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket.bind(icmp::Endpoint::Ident(ident)).ok()?;
        let handle = self.sockets.add(socket);
        self.echoes.push((ident, handle));
        Some(handle)
    }

    /// Answers to echo requests go to raw sockets.
    fn take_echoes(&mut self) {
        for (_, handle) in &self.echoes {
            let socket = self.sockets.get_mut::<icmp::Socket<'_>>(*handle);
            while let Ok((bytes, from)) = socket.recv() {
                let from = IpAddr::from(from);
                let to = if from.is_ipv4() { ADDRESS.into() } else { ADDRESS6.into() };
                raw::came(bytes, from, to, super::super::header::HOPS);
            }
        }
    }

    /// Datagrams that have come go to the sockets that they are for.
    fn take_datagrams(&mut self) {
        for (port, handle) in &self.datagrams {
            let socket = self.sockets.get_mut::<udp::Socket<'_>>(*handle);
            while let Ok((bytes, meta)) = socket.recv() {
                let from = SocketAddr::new(meta.endpoint.addr.into(), meta.endpoint.port);
                let to = SocketAddr::new(meta.local_address.map_or(ADDRESS.into(), IpAddr::from), *port);
                let found = ports::UDP.find(to, Some(from), false);
                if let Some(receiver) = found.as_ref().and_then(|p| p.as_any().downcast_ref::<Udp>()) {
                    // It cannot fail: the bytes are the kernel's.
                    let head = Head { hops: self.hops, class: self.class, to, interface: OUTSIDE };
                    let _ = receiver.deliver(&mut Source::kernel(bytes), from, head);
                }
            }
        }
    }

    /// Connections without an owner that are over go. Who closed last first sends his last acknowledgement, which it may be that
    /// is not `sent` yet: the other side would say its end again and again, and hear of nobody.
    fn bury(&mut self, sent: bool) {
        let sockets = &mut self.sockets;
        self.closing.retain(|handle| {
            // Who closed last would keep the address pair for a while (TIME-WAIT); on a wire that reorders nothing it need not.
            let state = sockets.get_mut::<tcp::Socket<'_>>(*handle).state();
            let over = state == tcp::State::Closed || state == tcp::State::TimeWait && sent;
            if over {
                sockets.remove(*handle);
            }
            !over
        });
    }

    /// Tell the owners of connections that have changed, and collect whom to wake.
    pub fn tell(&mut self, signals: &mut Vec<Arc<Signal>>) {
        for connection in &mut self.connections {
            let status = Status::of(self.sockets.get::<tcp::Socket<'_>>(connection.handle));
            if status == connection.told {
                continue;
            }
            connection.told = status;
            if let Some(owner) = connection.owner.upgrade() {
                owner.hears(&status, connection.began);
                signals.push(owner.signal());
            }
        }
    }
}

pub fn new_connection() -> Option<tcp::Socket<'static>> {
    if !mem::headroom(RECEIVE + SEND + 4096) {
        return None;
    }
    let buffer = |len| tcp::SocketBuffer::new(vec![0; len]);
    let mut socket = tcp::Socket::new(buffer(RECEIVE), buffer(SEND));
    // The network is the host itself: to wait for more to acknowledge gains nothing.
    socket.set_ack_delay(None);
    Some(socket)
}

fn now() -> Instant {
    Instant::from_micros((clock::monotonic() / 1000) as i64)
}
