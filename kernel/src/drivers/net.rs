//! The network card: virtio-net.
//!
//! Found at the start, put into use when the first socket needs it: until then it costs the machine a few words. Each
//! buffer holds one frame behind a header that says nothing here (no offloads are asked for). Frames are copied out of
//! and into the buffers, so nothing above ever holds memory that the device may write.
//!
//! ```text
//!   receive queue   32 buffers, all with the device but while one is copied
//!   send queue      32 buffers, taken in turn; when all are in flight, the caller keeps its frame and tries again
//! ```
//!
//! Source: VIRTIO 1.2, 5.1.

use super::virtio::{DeviceError, Dma, Queue, Segment, Transport, dma};
use crate::sched::WaitQueue;
use alloc::{boxed::Box, vec::Vec};
use hafez_mm::lock::Mutex;

/// Feature bit: the device knows its address.
const MAC: u64 = 1 << 5;
/// Bytes before each frame, with and without VERSION_1 (the legacy header lacks the count of buffers).
const HEADER: usize = 12;
const LEGACY_HEADER: usize = 10;
/// The longest frame: an Ethernet header and 1500 bytes.
pub const FRAME: usize = 1514;
/// A buffer: two fit in a page.
const BUFFER: usize = 2048;
const RECEIVING: u16 = 32;
const SENDING: u16 = 32;

/// The card, in use or not yet.
pub struct Card {
    line: u8,
    state: Mutex<State>,
    /// Woken when frames have come, or room for sending.
    pub arrived: WaitQueue,
}

enum State {
    Idle(Option<Transport>),
    Running(Box<Running>),
}

struct Running {
    transport: Transport,
    header: usize,
    mac: [u8; 6],
    receive: Queue,
    send: Queue,
    incoming: Vec<Dma>,
    outgoing: Vec<Dma>,
    /// Buffers of `outgoing` that the device does not have.
    free: Vec<u16>,
}

impl Card {
    pub fn new(transport: Transport) -> Card {
        Card {
            line: transport.line(),
            state: Mutex::new(State::Idle(Some(transport))),
            arrived: WaitQueue::new(),
        }
    }

    /// Its interrupt line.
    pub fn line(&self) -> u8 {
        self.line
    }

    /// Put it into use; its address.
    pub fn start(&self) -> Result<[u8; 6], DeviceError> {
        let mut state = self.state.lock();
        if let State::Idle(transport) = &mut *state {
            let transport = transport.take().ok_or(DeviceError::Broken)?;
            *state = State::Running(Box::new(Running::start(transport)?));
        }
        match &*state {
            State::Running(running) => Ok(running.mac),
            State::Idle(_) => Err(DeviceError::Broken),
        }
    }

    /// An interrupt of the device.
    pub fn interrupt(&self) {
        if let State::Running(running) = &mut *self.state.lock() {
            running.transport.acknowledge();
        }
        self.arrived.wake_all();
    }

    /// Whether a frame waits.
    pub fn has_frames(&self) -> bool {
        matches!(&*self.state.lock(), State::Running(r) if r.receive.has_done())
    }

    /// The next frame that has come, into `frame`; whether there was one.
    pub fn receive(&self, frame: &mut Vec<u8>) -> bool {
        match &mut *self.state.lock() {
            State::Running(running) => running.receive(frame),
            State::Idle(_) => false,
        }
    }

    /// Whether a frame can be sent now.
    pub fn can_send(&self) -> bool {
        match &mut *self.state.lock() {
            State::Running(running) => running.reap(),
            State::Idle(_) => false,
        }
    }

    /// Send a frame; `false` if there is no room.
    pub fn send(&self, frame: &[u8]) -> bool {
        match &mut *self.state.lock() {
            State::Running(running) => running.send(frame),
            State::Idle(_) => false,
        }
    }
}

/// So many buffers, two from each page.
fn buffers(count: u16) -> Result<Vec<Dma>, DeviceError> {
    (0..count).map(|_| dma::alloc(BUFFER, 64).map_err(DeviceError::from)).collect()
}

impl Running {
    fn start(mut transport: Transport) -> Result<Running, DeviceError> {
        transport.negotiate(MAC)?;
        let receive = transport.queue(0, RECEIVING)?;
        let send = transport.queue(1, SENDING)?;
        let (incoming, outgoing) = (buffers(RECEIVING)?, buffers(SENDING)?);
        let header = if transport.has(super::virtio::feature::VERSION_1) { HEADER } else { LEGACY_HEADER };
        let mut mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
        if transport.has(MAC) {
            for (i, byte) in mac.iter_mut().enumerate() {
                *byte = transport.config_u8(i);
            }
        }
        let free = (0..SENDING).collect();
        let mut running = Running { transport, header, mac, receive, send, incoming, outgoing, free };
        running.transport.start();
        for at in 0..RECEIVING {
            running.offer(at);
        }
        running.receive.kick();
        let _ = running.receive.arm(1);
        Ok(running)
    }

    /// Give a receive buffer to the device.
    fn offer(&mut self, at: u16) {
        let buffer = self.incoming[at as usize];
        let segment = Segment { addr: buffer.phys(0), len: BUFFER as u32 };
        // There are as many places as buffers; only a broken device has none.
        let _ = self.receive.add_one(segment, true, at);
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> bool {
        loop {
            let Some(done) = self.receive.pop() else {
                if self.receive.arm(1) {
                    continue;
                }
                return false;
            };
            let len = (done.len as usize).min(BUFFER);
            let good = len > self.header && len - self.header <= FRAME;
            if good {
                frame.resize(len - self.header, 0);
                self.incoming[done.cookie as usize].read(self.header, frame);
            }
            self.offer(done.cookie);
            self.receive.kick();
            if good {
                return true;
            }
        }
    }

    /// Take back what has been sent; whether there is a free buffer.
    fn reap(&mut self) -> bool {
        while let Some(done) = self.send.pop() {
            self.free.push(done.cookie);
        }
        if self.free.is_empty() && self.send.arm(1) {
            return self.reap();
        }
        !self.free.is_empty()
    }

    fn send(&mut self, frame: &[u8]) -> bool {
        if frame.len() > FRAME || !self.reap() {
            return false;
        }
        let Some(at) = self.free.pop() else { return false };
        let buffer = self.outgoing[at as usize];
        buffer.write(0, &[0; HEADER]);
        buffer.write(self.header, frame);
        let segment = Segment { addr: buffer.phys(0), len: (self.header + frame.len()) as u32 };
        if self.send.add_one(segment, false, at).is_err() {
            self.free.push(at);
            return false;
        }
        self.send.kick();
        true
    }
}
