//! One port: a stream of bytes in, and one out, with nothing lost and nothing reordered.
//!
//! ```text
//!   output   writer ─copy─► buffer of 4 KiB ──► device           buffers come back when the host has taken the bytes;
//!                                                                none free: the writer sleeps
//!   input    device ──► buffer of 1 KiB ─copy─► reader           a buffer goes back to the device when it has been read:
//!                                                                none with it: the host waits
//! ```
//!
//! Both directions have their buffers made at first use, so a port that nobody uses costs nothing. Completions of output are not
//! waited for by interrupt unless somebody sleeps for one: QEMU takes the bytes before the bell's write returns, so
//! the usual write finds its buffer free again.
//!
//! The host may hang up (the reader of our output has gone): then output fails with [`WriteError::Closed`], and input ends
//! after what has already come.
//!
//! Locks: `output` and `input` are spin locks, never held over a wait or a user copy. A writer that copies from a program takes
//! a [`TxBuffer`] out first, and fills it while holding no lock.

use super::super::virtio::{DeviceError, Dma, Queue, Segment, dma};
use crate::sched::{WaitQueue, WaitResult};
use alloc::collections::VecDeque;
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicBool, Ordering};
use hafez_mm::PAGE_SIZE;
use hafez_mm::lock::Mutex;

/// Output buffers of a port: one to fill while the other is with the device.
pub(super) const TX_BUFFERS: usize = 2;
/// Bytes of one. A pipe's guarantee (4 KiB in one piece) holds for writes that fit.
const TX_BYTES: usize = PAGE_SIZE;
/// Input buffers of a port, and bytes of one: a frame in all.
pub(super) const RX_BUFFERS: usize = 4;
const RX_BYTES: usize = PAGE_SIZE / RX_BUFFERS;
/// The longest port name.
const NAME_MAX: usize = 32;

/// Why a write did not happen, or not whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteError {
    /// Nobody holds the other end.
    Closed,
    Interrupted,
    /// It would have to wait, and was told not to.
    WouldBlock,
    /// No memory for buffers.
    NoMemory,
}

struct Output {
    queue: Queue,
    buffers: Option<Dma>,
    /// Buffers that nobody holds: a bitmap.
    free: u8,
}

struct Input {
    queue: Queue,
    buffers: Option<Dma>,
    /// Buffers with bytes that came: which, from where on, to where.
    filled: VecDeque<(u16, usize, usize)>,
}

/// See the module.
pub struct Port {
    name: Mutex<ArrayVec<u8, NAME_MAX>>,
    open: AtomicBool,
    output: Mutex<Output>,
    input: Mutex<Input>,
    /// Woken when [`Port::writable`] may have become true.
    pub writers: WaitQueue,
    /// Woken when [`Port::readable`] may have become true.
    pub readers: WaitQueue,
}

/// An output buffer that is being filled. Dropped without [`TxBuffer::send`], it is free again.
pub struct TxBuffer<'a> {
    port: &'a Port,
    index: u16,
    memory: Dma,
}

impl Port {
    pub(super) fn new(input: Queue, output: Queue) -> Port {
        Port {
            name: Mutex::new(ArrayVec::new()),
            open: AtomicBool::new(false),
            output: Mutex::new(Output { queue: output, buffers: None, free: 0 }),
            input: Mutex::new(Input { queue: input, buffers: None, filled: VecDeque::new() }),
            writers: WaitQueue::new(),
            readers: WaitQueue::new(),
        }
    }

    pub(super) fn is_named(&self, name: &[u8]) -> bool {
        self.name.lock().as_slice() == name
    }

    pub(super) fn set_name(&self, name: &[u8]) {
        let end = name.iter().position(|b| *b == 0).unwrap_or(name.len()).min(NAME_MAX);
        *self.name.lock() = name[..end].iter().copied().collect();
    }

    pub(super) fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Release);
        self.writers.wake_all();
        self.readers.wake_all();
    }

    /// Whether somebody on the host holds the other end.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// The device is dead: nothing comes, nothing goes.
    pub(super) fn give_up(&self) {
        self.output.lock().queue.abandon(|_| ());
        self.input.lock().queue.abandon(|_| ());
        self.set_open(false);
    }

    /// Wake those who wait, as far as there is something for them.
    pub(super) fn interrupt(&self) {
        if self.input.lock().collect() {
            self.readers.wake_all();
        }
        if self.output.lock().collect() {
            self.writers.wake_all();
        }
    }

    // Output.

    /// Whether a write would find a buffer, or fail at once. If not, `writers` is woken when one would.
    pub fn writable(&self) -> bool {
        if !self.is_open() {
            return true;
        }
        let mut output = self.output.lock();
        output.buffers.is_none() || output.free != 0 || output.wait_for_one()
    }

    /// Take a buffer to fill; sleeps while none is free.
    pub fn buffer(&self, block: bool, interruptible: bool) -> Result<TxBuffer<'_>, WriteError> {
        let mut taken = None;
        let mut take = || {
            if !self.is_open() {
                taken = Some(Err(WriteError::Closed));
                return true;
            }
            let mut output = self.output.lock();
            if output.free == 0 && !output.wait_for_one() {
                return false;
            }
            let index = output.free.trailing_zeros() as u16;
            output.free &= output.free - 1;
            // Buffers exist if one is free.
            taken = output.buffers.map(|m| {
                Ok(TxBuffer { port: self, index, memory: m.part(index as usize * TX_BYTES, TX_BYTES) })
            });
            true
        };
        self.output.lock().prepare().map_err(|_| WriteError::NoMemory)?;
        if !take() {
            if !block {
                return Err(WriteError::WouldBlock);
            }
            if self.writers.wait_until(&mut take, None, interruptible) != WaitResult::Ready {
                return Err(WriteError::Interrupted);
            }
        }
        taken.unwrap_or(Err(WriteError::Closed))
    }

    /// Write all of `bytes`, sleeping while the host takes none. On an error, how many were written is lost only if
    /// none were; else that number is the answer.
    pub fn write(&self, bytes: &[u8], block: bool, interruptible: bool) -> Result<usize, WriteError> {
        let mut done = 0;
        for piece in bytes.chunks(TX_BYTES) {
            match self.buffer(block, interruptible) {
                Ok(mut buffer) => {
                    buffer.bytes()[..piece.len()].copy_from_slice(piece);
                    buffer.send(piece.len());
                    done += piece.len();
                }
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Sleep until the host has taken all output; whether it has, by the deadline.
    pub fn drain(&self, deadline: Option<u64>) -> bool {
        let empty = || {
            if !self.is_open() {
                return true;
            }
            let mut output = self.output.lock();
            output.collect();
            output.queue.in_flight() == 0 || {
                output.wait_for_one();
                output.queue.in_flight() == 0
            }
        };
        self.writers.wait_until(empty, deadline, false) == WaitResult::Ready
    }

    // Input.

    /// Begin to take input: from here on the host's bytes are let in, a few KiB ahead of the reader.
    pub fn listen(&self) -> Result<(), DeviceError> {
        let mut input = self.input.lock();
        if input.buffers.is_none() {
            let memory = dma::alloc(RX_BYTES * RX_BUFFERS, 64)?;
            input.buffers = Some(memory);
            for index in 0..RX_BUFFERS {
                input.give(index as u16);
            }
            input.queue.kick();
        }
        Ok(())
    }

    /// Whether a read would find bytes, or the end.
    pub fn readable(&self) -> bool {
        let mut input = self.input.lock();
        input.collect();
        !input.filled.is_empty() || !self.is_open()
    }

    /// Read what is there into `out`: `None` where nothing is, `Some(0)` at the end (the host has hung up).
    pub fn try_read(&self, out: &mut [u8]) -> Option<usize> {
        let mut input = self.input.lock();
        input.collect();
        let Some(buffers) = input.buffers else { return (!self.is_open()).then_some(0) };
        let mut done = 0;
        while done < out.len()
            && let Some((index, from, to)) = input.filled.pop_front()
        {
            let n = (to - from).min(out.len() - done);
            buffers.read(index as usize * RX_BYTES + from, &mut out[done..done + n]);
            done += n;
            if from + n < to {
                input.filled.push_front((index, from + n, to));
            } else {
                input.give(index);
            }
        }
        input.queue.kick();
        if done > 0 || out.is_empty() || !self.is_open() { Some(done) } else { None }
    }

    /// Read what is there, sleeping until something is; 0 at the end. `None`: interrupted.
    pub fn read(&self, out: &mut [u8], interruptible: bool) -> Option<usize> {
        let mut got = None;
        let wait = || {
            got = self.try_read(out);
            got.is_some()
        };
        self.readers.wait_until(wait, None, interruptible);
        got
    }
}

impl Output {
    /// Make the buffers, at first use.
    fn prepare(&mut self) -> Result<(), DeviceError> {
        if self.buffers.is_none() {
            self.buffers = Some(dma::alloc(TX_BYTES * TX_BUFFERS, PAGE_SIZE)?);
            self.free = (1 << TX_BUFFERS) - 1;
        }
        Ok(())
    }

    /// Take finished buffers back; whether there were any.
    fn collect(&mut self) -> bool {
        let before = self.free;
        while let Some(done) = self.queue.pop() {
            self.free |= 1 << done.cookie;
        }
        self.free != before
    }

    /// Take finished buffers back. If there are none, an interrupt will tell.
    fn wait_for_one(&mut self) -> bool {
        self.collect() || (self.queue.arm(1) && self.collect())
    }

    fn offer(&mut self, index: u16, len: usize) {
        let Some(buffers) = self.buffers else { return };
        let segment = Segment { addr: buffers.phys(index as usize * TX_BYTES), len: len as u32 };
        // The ring has an entry for each buffer. A dead device's ring takes nothing: then the bytes go nowhere.
        if self.queue.add_one(segment, false, index).is_err() {
            self.free |= 1 << index;
        }
        self.queue.kick();
    }
}

impl Input {
    fn give(&mut self, index: u16) {
        let Some(buffers) = self.buffers else { return };
        let segment = Segment { addr: buffers.phys(index as usize * RX_BYTES), len: RX_BYTES as u32 };
        // The ring has an entry for each buffer; a dead device's ring takes none, and nothing comes any more.
        let _ = self.queue.add_one(segment, true, index);
    }

    /// Note buffers with bytes; whether there were any. The next will interrupt.
    fn collect(&mut self) -> bool {
        let mut any = false;
        loop {
            while let Some(done) = self.queue.pop() {
                if done.len == 0 {
                    self.give(done.cookie);
                    continue;
                }
                self.filled.push_back((done.cookie, 0, done.len as usize));
                any = true;
            }
            if !self.queue.arm(1) {
                return any;
            }
        }
    }
}

impl TxBuffer<'_> {
    /// The bytes to fill.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the buffer is out of the free set and not with the device, and this handle is its only owner, so
        // for as long as the borrow lasts nobody else touches it.
        unsafe { self.memory.slice() }
    }

    /// Send its first `len` bytes.
    pub fn send(self, len: usize) {
        assert!(len <= TX_BYTES);
        if len > 0 {
            self.port.output.lock().offer(self.index, len);
            core::mem::forget(self);
        }
    }
}

impl Drop for TxBuffer<'_> {
    fn drop(&mut self) {
        self.port.output.lock().free |= 1 << self.index;
        self.port.writers.wake_all();
    }
}
