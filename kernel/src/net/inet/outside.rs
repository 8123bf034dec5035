//! The way out: smoltcp's state machines over the network card.
//!
//! ```text
//!   card ── frame ──► Stack: admit (a new connection? a datagram?) ──► smoltcp ──► buffers of Tcp sockets, inboxes of Udp ones
//!        ◄── frame ── smoltcp ◄── flush ◄── send, receive, connect, close
//! ```
//!
//! One lock guards all of it. A thread of its own takes frames as they come and sees to smoltcp's timers; whoever sends
//! flushes by himself. Frames go in one by one, and each is looked at before:
//!
//! - The first packet of a connection to one of our listeners gets its smoltcp socket there and then. So a listener holds no
//!   buffers, and any number of clients can come at once, up to its backlog; past that the packet is dropped and the client
//!   tries again.
//! - A datagram for one of our sockets gets a smoltcp socket for that port, if it has none.
//!
//! After each frame, sockets whose connection changed are told. The addresses are those that QEMU's user network gives: they are
//! the same in each machine, so nothing needs to be asked.
//!
//! Lock: the stack's, above that of a socket's state. Signals are notified without it.

use super::{ports, tcp::Tcp, udp::Udp};
use crate::{
    clock,
    drivers::{
        self,
        net::{Card, FRAME},
    },
    errno::{Errno, Result},
    fs::{SleepLock, iobuf::Source, poll::Signal},
    mem, random,
    sched::{self, WaitQueue},
};
use alloc::{
    boxed::Box,
    sync::{Arc, Weak},
    vec,
    vec::Vec,
};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
use hafez_mm::lock::Mutex;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, HardwareAddress, IpCidr, IpProtocol, Ipv4Packet,
    Ipv6Packet, TcpPacket, UdpPacket,
};

/// QEMU's user network: the guest's addresses, and those of the way out.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const PREFIX: u8 = 24;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0x5054, 0xff, 0xfe12, 0x3456);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 2);
const PREFIX6: u8 = 64;

/// Buffers of a connection, in bytes.
const RECEIVE: usize = 16 << 10;
const SEND: usize = 16 << 10;
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
    fn of(socket: &tcp::Socket<'_>) -> Status {
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

/// Options that smoltcp knows. Times in seconds and milliseconds.
pub struct Settings {
    pub nodelay: bool,
    pub keep_alive: Option<u64>,
    pub give_up: Option<u64>,
}

/// A connection that a socket of ours has.
struct Connection {
    handle: Handle,
    owner: Weak<Tcp>,
    /// As it was when the owner was last told.
    told: Status,
    began: u64,
}

/// One that is being made from outside.
struct Embryo {
    handle: Handle,
    listener: Weak<Tcp>,
}

struct Stack {
    card: &'static Card,
    interface: Interface,
    sockets: SocketSet<'static>,
    connections: Vec<Connection>,
    embryos: Vec<Embryo>,
    /// Connections that no socket has any more, on their way to their end.
    closing: Vec<Handle>,
    /// By local port.
    datagrams: Vec<(u16, Handle)>,
    frame: Vec<u8>,
}

static STACK: Mutex<Option<Box<Stack>>> = Mutex::new(None);
static STARTING: SleepLock = SleepLock::new();
static UP: AtomicBool = AtomicBool::new(false);
/// The thread is to look again, though no frame has come.
static LOOK: AtomicBool = AtomicBool::new(false);
static LOOKER: WaitQueue = WaitQueue::new();

/// The machine's addresses that the outside knows, if there is an outside.
pub fn addresses() -> Option<[IpAddr; 2]> {
    drivers::card().map(|_| [IpAddr::V4(ADDRESS), IpAddr::V6(ADDRESS6)])
}

/// An interface: its number, name, addresses with the lengths of their prefixes, hardware address.
pub struct InterfaceInfo {
    pub index: u32,
    pub name: &'static str,
    pub addresses: [(IpAddr, u8); 2],
    pub mtu: u32,
    pub hardware: [u8; 6],
}

/// All interfaces.
pub fn interfaces() -> Vec<InterfaceInfo> {
    let mut all = vec![InterfaceInfo {
        index: super::LOOPBACK,
        name: "lo",
        addresses: [(IpAddr::V4(Ipv4Addr::LOCALHOST), 8), (IpAddr::V6(Ipv6Addr::LOCALHOST), 128)],
        mtu: 65536,
        hardware: [0; 6],
    }];
    if drivers::card().is_some() {
        all.push(InterfaceInfo {
            index: super::OUTSIDE,
            name: "eth0",
            addresses: [(IpAddr::V4(ADDRESS), PREFIX), (IpAddr::V6(ADDRESS6), PREFIX6)],
            mtu: 1500,
            hardware: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
        });
    }
    all
}

/// The address that another machine sees us by.
pub fn source(to: IpAddr) -> Option<IpAddr> {
    addresses().map(|[four, six]| if to.is_ipv4() { four } else { six })
}

/// Put the network card into use, once. `ENETUNREACH` without one.
pub fn start() -> Result<()> {
    if UP.load(SeqCst) {
        return Ok(());
    }
    let _one = STARTING.lock();
    if UP.load(SeqCst) {
        return Ok(());
    }
    let card = drivers::card().ok_or(Errno::ENETUNREACH)?;
    if !mem::headroom(32 << 10) {
        return Err(Errno::ENOBUFS);
    }
    let mac = card.start().map_err(|_| Errno::ENETDOWN)?;
    *STACK.lock() = Some(Box::new(Stack::new(card, mac)));
    sched::spawn("net", Box::new(move || run(card)), None).map_err(|_| Errno::ENOBUFS)?;
    UP.store(true, SeqCst);
    Ok(())
}

/// The thread that takes what comes.
fn run(card: &'static Card) {
    let mut next = None;
    loop {
        let ready = || card.has_frames() || LOOK.load(SeqCst);
        let _ = sched::multi_wait(&[&card.arrived, &LOOKER], ready, next, false);
        LOOK.store(false, SeqCst);
        let (again, at) = on(|stack| stack.poll()).unwrap_or((false, None));
        next = at;
        if again {
            LOOK.store(true, SeqCst);
            sched::yield_now();
        }
    }
}

/// Do something with the stack, and tell those whom it concerns.
fn on<T>(what: impl FnOnce(&mut Stack) -> T) -> Option<T> {
    let mut signals = Vec::new();
    let result = {
        let mut guard = STACK.lock();
        let stack = guard.as_mut()?;
        let result = what(stack);
        stack.tell(&mut signals);
        result
    };
    signals.iter().for_each(|s: &Arc<Signal>| s.notify());
    Some(result)
}

/// Only look at a connection, or change its buffers.
fn with<T>(handle: Handle, what: impl FnOnce(&mut tcp::Socket<'static>) -> T) -> Option<T> {
    let mut guard = STACK.lock();
    let stack = guard.as_mut()?;
    Some(what(stack.sockets.get_mut::<tcp::Socket<'_>>(handle)))
}

/// Begin a connection.
pub fn connect(from: SocketAddr, to: SocketAddr, owner: &Arc<Tcp>) -> Result<Handle> {
    let mut socket = new_connection().ok_or(Errno::ENOBUFS)?;
    socket.set_timeout(Some(Duration::from_micros(GIVE_UP / 1000)));
    on(|stack| {
        let context = stack.interface.context();
        socket.connect(context, to, from).map_err(|_| Errno::ENETUNREACH)?;
        let handle = stack.sockets.add(socket);
        let began = clock::monotonic();
        stack.connections.push(Connection {
            handle,
            owner: Arc::downgrade(owner),
            told: Status::default(),
            began,
        });
        Ok(handle)
    })
    .unwrap_or(Err(Errno::ENETDOWN))
}

fn new_connection() -> Option<tcp::Socket<'static>> {
    if !mem::headroom(RECEIVE + SEND + 4096) {
        return None;
    }
    let buffer = |len| tcp::SocketBuffer::new(vec![0; len]);
    let mut socket = tcp::Socket::new(buffer(RECEIVE), buffer(SEND));
    // The network is the host itself: to wait for more to acknowledge gains nothing.
    socket.set_ack_delay(None);
    Some(socket)
}

pub fn configure(handle: Handle, settings: Settings) {
    with(handle, |socket| {
        socket.set_nagle_enabled(!settings.nodelay);
        socket.set_keep_alive(settings.keep_alive.map(Duration::from_secs));
        if let Some(ms) = settings.give_up {
            socket.set_timeout(Some(Duration::from_millis(ms)));
        }
    });
}

pub fn status(handle: Handle) -> Status {
    with(handle, |socket| Status::of(socket)).unwrap_or_default()
}
/// Queue bytes; as many as there is room for.
pub fn send(handle: Handle, bytes: &[u8]) -> usize {
    with(handle, |socket| socket.send_slice(bytes).unwrap_or(0)).unwrap_or(0)
}
/// Look at what has come.
pub fn peek(handle: Handle, bytes: &mut [u8]) -> usize {
    with(handle, |socket| socket.peek_slice(bytes).unwrap_or(0)).unwrap_or(0)
}
/// Take out what has been looked at.
pub fn consume(handle: Handle, mut bytes: usize) {
    with(handle, |socket| {
        // Twice at most: the buffer is a ring.
        while bytes > 0 {
            let n = socket.recv(|part| (part.len().min(bytes), part.len().min(bytes))).unwrap_or(0);
            if n == 0 {
                break;
            }
            bytes -= n;
        }
    });
}
/// Send no more.
pub fn shut(handle: Handle) {
    with(handle, |socket| socket.close());
    flush();
}
/// No socket has the connection any more.
pub fn release(handle: Handle, abort: bool) {
    on(|stack| {
        stack.connections.retain(|c| c.handle != handle);
        let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(handle);
        if abort || socket.recv_queue() > 0 {
            socket.abort();
        } else {
            socket.close();
        }
        // The other side may be gone: not for ever.
        socket.set_timeout(Some(Duration::from_secs(60)));
        stack.closing.push(handle);
        stack.egress();
    });
    look();
}
/// Send what there is to send.
pub fn flush() {
    on(|stack| stack.egress());
    look();
}

/// Wake the thread: there may be a new deadline.
fn look() {
    LOOK.store(true, SeqCst);
    LOOKER.wake_all();
}

/// Send a datagram.
pub fn send_datagram(from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> Result<()> {
    if bytes.len() > FRAME - 14 - 8 - if to.is_ipv4() { 20 } else { 40 } {
        return Err(Errno::EMSGSIZE);
    }
    let result = on(|stack| {
        let handle = stack.datagram_socket(from.port()).ok_or(Errno::ENOBUFS)?;
        let socket = stack.sockets.get_mut::<udp::Socket<'_>>(handle);
        let mut meta = udp::UdpMetadata::from(smoltcp::wire::IpEndpoint::from(to));
        meta.local_address = Some(from.ip().into());
        // One that finds no room is lost, as datagrams may be.
        let _ = socket.send_slice(bytes, meta);
        stack.egress();
        Ok(())
    });
    look();
    result.unwrap_or(Err(Errno::ENETDOWN))
}

fn now() -> Instant {
    Instant::from_micros((clock::monotonic() / 1000) as i64)
}

/// One frame on its way into smoltcp, and the card for what it sends.
struct Port<'a> {
    card: &'static Card,
    frame: Option<&'a [u8]>,
}
struct Received<'a>(&'a [u8]);
struct Sender(&'static Card);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}
impl TxToken for Sender {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = [0; FRAME];
        let frame = &mut frame[..len.min(FRAME)];
        let result = f(frame);
        // `transmit` has seen that there is room; a broken card loses it, as a wire would.
        let _ = self.0.send(frame);
        result
    }
}
impl Device for Port<'_> {
    type RxToken<'b>
        = Received<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Sender
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sender)> {
        let frame = self.frame.take()?;
        Some((Received(frame), Sender(self.card)))
    }
    fn transmit(&mut self, _: Instant) -> Option<Sender> {
        self.card.can_send().then_some(Sender(self.card))
    }
    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ethernet;
        caps.max_transmission_unit = FRAME;
        caps
    }
}

/// What a frame begins: the addresses of a TCP connection's first packet, or of a datagram.
enum Opening {
    Connection { from: SocketAddr, to: SocketAddr },
    Datagram { to: SocketAddr },
}

fn opening(frame: &[u8]) -> Option<Opening> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let (from, to, protocol, payload): (IpAddr, IpAddr, _, _) = match frame.ethertype() {
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
            (packet.src_addr().into(), packet.dst_addr().into(), packet.next_header(), packet.payload())
        }
        EthernetProtocol::Ipv6 => {
            let packet = Ipv6Packet::new_checked(frame.payload()).ok()?;
            (packet.src_addr().into(), packet.dst_addr().into(), packet.next_header(), packet.payload())
        }
        _ => return None,
    };
    match protocol {
        IpProtocol::Tcp => {
            let packet = TcpPacket::new_checked(payload).ok()?;
            (packet.syn() && !packet.ack()).then(|| Opening::Connection {
                from: SocketAddr::new(from, packet.src_port()),
                to: SocketAddr::new(to, packet.dst_port()),
            })
        }
        IpProtocol::Udp => {
            let packet = UdpPacket::new_checked(payload).ok()?;
            Some(Opening::Datagram { to: SocketAddr::new(to, packet.dst_port()) })
        }
        _ => None,
    }
}

impl Stack {
    fn new(card: &'static Card, mac: [u8; 6]) -> Stack {
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac)));
        config.random_seed = random::u64();
        let mut port = Port { card, frame: None };
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
            frame: Vec::with_capacity(FRAME),
        }
    }

    /// Take what has come, and send what is to be sent; whether there is more, and when to look again (ns).
    fn poll(&mut self) -> (bool, Option<u64>) {
        let mut taken = 0;
        let mut frame = core::mem::take(&mut self.frame);
        while taken < BATCH && self.card.receive(&mut frame) {
            taken += 1;
            if self.admit(&frame) {
                let mut port = Port { card: self.card, frame: Some(&frame) };
                self.interface.poll_ingress_single(now(), &mut port, &mut self.sockets);
                self.take_datagrams();
                self.take_embryos();
            }
        }
        self.frame = frame;
        self.interface.poll_maintenance(now());
        self.egress();
        self.bury();
        let next = self.interface.poll_at(now(), &self.sockets);
        let next = next.map(|at| (at.total_micros().max(0) as u64).saturating_mul(1000));
        // "Now" means that the card had no room: its interrupt will say when there is.
        let next = next.map(|at| at.max(clock::monotonic() + 1_000_000));
        (taken == BATCH, next)
    }

    fn egress(&mut self) {
        let mut port = Port { card: self.card, frame: None };
        while self.interface.poll_egress(now(), &mut port, &mut self.sockets)
            != smoltcp::iface::PollResult::None
        {}
    }

    /// Make ready for what the frame begins; `false` if it is to be dropped.
    fn admit(&mut self, frame: &[u8]) -> bool {
        match opening(frame) {
            Some(Opening::Connection { from, to }) => self.admit_connection(from, to),
            Some(Opening::Datagram { to }) => {
                if ports::UDP.in_use(to.port()) {
                    return self.datagram_socket(to.port()).is_some();
                }
                true
            }
            None => true,
        }
    }

    fn admit_connection(&mut self, from: SocketAddr, to: SocketAddr) -> bool {
        let (from_end, to_end) = (smoltcp::wire::IpEndpoint::from(from), smoltcp::wire::IpEndpoint::from(to));
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
        let Some(mut socket) = new_connection() else { return false };
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

    fn hand_over(
        &mut self,
        embryo: Embryo,
        ends: (Option<smoltcp::wire::IpEndpoint>, Option<smoltcp::wire::IpEndpoint>),
    ) {
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
    fn datagram_socket(&mut self, port: u16) -> Option<Handle> {
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
                    let _ = receiver.deliver(&mut Source::kernel(bytes), from);
                }
            }
        }
    }

    /// Connections without an owner that are over go.
    fn bury(&mut self) {
        let sockets = &mut self.sockets;
        self.closing.retain(|handle| {
            // Who closed last would keep the address pair for a while (TIME-WAIT); on a wire that reorders nothing it need not.
            let state = sockets.get_mut::<tcp::Socket<'_>>(*handle).state();
            let over = matches!(state, tcp::State::Closed | tcp::State::TimeWait);
            if over {
                sockets.remove(*handle);
            }
            !over
        });
    }

    /// Tell the owners of connections that have changed, and collect whom to wake.
    fn tell(&mut self, signals: &mut Vec<Arc<Signal>>) {
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
