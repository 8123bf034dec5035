//! Random bytes from the host: virtio-rng, the one good source in a machine whose CPU model has no `rdrand`.
//!
//! Asked once, at start-up, for enough to seed the kernel's generator. The answer comes by interrupt while the rest of the
//! machine starts; [`Entropy::wait`] makes sure of it before the first address space is laid out. Source: VIRTIO 1.2, 5.4.

use super::virtio::{DeviceError, Dma, Queue, Segment, Transport, dma};
use crate::sched::WaitQueue;
use hafez_mm::lock::Mutex;

/// 256 bits is what the generator's key holds; twice that costs nothing.
const BYTES: usize = 64;
/// A source of random bytes.
pub struct Entropy {
    transport: Transport,
    memory: Dma,
    state: Mutex<State>,
    arrived: WaitQueue,
}

struct State {
    queue: Queue,
    /// Bytes that came.
    got: Option<usize>,
}

impl Entropy {
    /// Take a device into use, and ask it.
    pub fn new(mut transport: Transport) -> Result<Entropy, DeviceError> {
        transport.negotiate(0)?;
        let mut queue = transport.queue(0, 1)?;
        let memory = dma::alloc(BYTES, 16)?;
        transport.start();
        let segment = Segment { addr: memory.phys(0), len: BYTES as u32 };
        queue.add_one(segment, true, 0).map_err(|_| DeviceError::Broken)?;
        queue.kick();
        let state = Mutex::new(State { queue, got: None });
        Ok(Entropy { transport, memory, state, arrived: WaitQueue::new() })
    }

    /// Its interrupt line.
    pub fn line(&self) -> u8 {
        self.transport.line()
    }

    /// An interrupt of the device: its answer. Nothing more is wanted of it, so it is reset.
    pub fn interrupt(&self) {
        self.transport.acknowledge();
        let mut state = self.state.lock();
        if state.got.is_some() {
            return;
        }
        let got = match state.queue.pop() {
            Some(done) => done.len as usize,
            None if state.queue.is_broken() || self.transport.is_broken() => 0,
            None => return,
        };
        self.transport.stop();
        let mut bytes = [0; BYTES];
        self.memory.read(0, &mut bytes[..got]);
        crate::random::mix(&bytes[..got]);
        self.memory.write(0, &[0; BYTES]);
        state.got = Some(got);
        drop(state);
        self.arrived.wake_all();
    }

    /// Sleep until the device has answered; whether it gave anything. (No deadline: on deterministic time the guest's clock
    /// leaps ahead of any host.)
    pub fn wait(&self) -> bool {
        let mut got = None;
        self.arrived.wait(|| {
            got = self.state.lock().got;
            got.is_some()
        });
        got.is_some_and(|bytes| bytes > 0)
    }
}
