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
//!
//! Here: what sockets ask for. [`stack`] takes frames and sees to what they begin, [`wire`] is between it and the card.

mod interfaces;
mod stack;
mod wire;

pub use interfaces::{GATEWAY, GATEWAY6, InterfaceInfo, addresses, interfaces, is_broadcast, source};
pub use stack::{GIVE_UP, Handle, Status};
pub use wire::{Counted, counted};

use super::tcp::Tcp;
use crate::{
    clock,
    drivers::{
        self,
        net::{Card, FRAME},
    },
    errno::{Errno, Result},
    fs::{SleepLock, poll::Signal},
    mem,
    sched::{self, WaitQueue},
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
use hafez_mm::lock::Mutex;
use smoltcp::{
    socket::{icmp, tcp, udp},
    time::Duration,
};
use stack::{Connection, Left, Stack, new_connection};

static STACK: Mutex<Option<Box<Stack>>> = Mutex::new(None);
static STARTING: SleepLock = SleepLock::new();
static UP: AtomicBool = AtomicBool::new(false);
/// The thread is to look again, though no frame has come.
static LOOK: AtomicBool = AtomicBool::new(false);
static LOOKER: WaitQueue = WaitQueue::new();

/// Frames that the card's buffers and the thread take.
const TO_START: u32 = 48;
/// Frames for some connections, where one came and found none.
const TO_CONNECT: u32 = 64;

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
    mem::memory().make_headroom(TO_START);
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
    let (mut left, mut next) = (Left::default(), None);
    loop {
        let ready = || card.has_frames() || LOOK.load(SeqCst) || left.unsent && card.can_send();
        let _ = sched::multi_wait(&[&card.arrived, &LOOKER], ready, next, false);
        LOOK.store(false, SeqCst);
        (left, next) = on(|stack| stack.poll()).unwrap_or_default();
        if left.starved {
            mem::memory().make_headroom(TO_CONNECT);
        }
        if left.frames || left.starved {
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

/// Options that smoltcp knows. Times in seconds and milliseconds.
pub struct Settings {
    pub nodelay: bool,
    pub keep_alive: Option<u64>,
    pub give_up: Option<u64>,
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

/// Send an ICMP echo request, whole, with this identifier.
pub fn send_echo(ident: u16, to: IpAddr, hops: u8, bytes: &[u8]) -> Result<()> {
    if bytes.len() > FRAME - 14 - if to.is_ipv4() { 20 } else { 40 } {
        return Err(Errno::EMSGSIZE);
    }
    start()?;
    let result = on(|stack| {
        let handle = stack.echo_socket(ident).ok_or(Errno::ENOBUFS)?;
        let socket = stack.sockets.get_mut::<icmp::Socket<'_>>(handle);
        socket.set_hop_limit(Some(hops.max(1)));
        // One that finds no room is lost.
        let _ = socket.send_slice(bytes, to.into());
        stack.egress();
        Ok(())
    });
    look();
    result.unwrap_or(Err(Errno::ENETDOWN))
}

/// Send a datagram.
pub fn send_datagram(from: SocketAddr, to: SocketAddr, hops: u8, bytes: &[u8]) -> Result<()> {
    if bytes.len() > FRAME - 14 - 8 - if to.is_ipv4() { 20 } else { 40 } {
        return Err(Errno::EMSGSIZE);
    }
    let result = on(|stack| {
        let handle = stack.datagram_socket(from.port()).ok_or(Errno::ENOBUFS)?;
        let socket = stack.sockets.get_mut::<udp::Socket<'_>>(handle);
        socket.set_hop_limit(Some(hops.max(1)));
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
