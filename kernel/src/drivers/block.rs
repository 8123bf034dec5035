//! The disk that stands behind memory: virtio-blk as a [`SwapDevice`].
//!
//! A request moves up to 64 frames to or from contiguous 4 KiB blocks. Its descriptors point straight at the frames
//! (neighbours in physical memory share one), so the driver touches no byte of the pages:
//!
//! ```text
//!   table: [ header 16 B: type, sector ][ frame ][ frames .. ][ status 1 B ]
//! ```
//!
//! Tables are cut from a fixed pool ([`POOL`] pieces of [`PIECE`] descriptors; a bitmap says which are taken), so nothing
//! is allocated where memory is being freed. The first piece of a request also names it: its number is the queue's
//! cookie, and its header and status byte lie at that index. When pool or ring are full, `submit` says so, and the
//! caller tries again after the next completion.
//!
//! *Completion.* By interrupt, or by [`Block::poll`] from whoever waits. A read is waited for, so while one is in flight the
//! next completion interrupts; writes only free memory, so an interrupt reports a few of them at once.
//!
//! *Errors* belong to the request: the memory core retries, or moves the page elsewhere. A device that breaks the rules
//! of its ring is reset; then everything in flight, and all that is submitted later, fails.
//!
//! Lock: [`Block::state`], a spin lock; the memory core is called (`swap_done`) only after it is dropped. Source: VIRTIO 1.2, 5.2.

use super::virtio::{DeviceError, Dma, Queue, Segment, Table, Transport, count_runs, dma, each_run};
use crate::{mem::memory, sched};
use alloc::boxed::Box;
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use hafez_mm::lock::Mutex;
use hafez_mm::{IoError, PAGE_SIZE, Pfn, QueueFull, SwapDevice, SwapOp};

/// Request types.
const READ: u32 = 0;
const WRITE: u32 = 1;
const GET_ID: u32 = 8;

/// The device's own features: how many segments a request may have; it is read-only.
const F_SEG_MAX: u64 = 1 << 2;
const F_READ_ONLY: u64 = 1 << 5;

/// Sectors of 512 bytes in a block.
const SECTORS: u64 = (PAGE_SIZE / 512) as u64;
/// Pieces in the pool of tables: the bits of the bitmap.
const POOL: usize = 64;
/// Descriptors in a piece: a single frame's request takes one piece, a cluster of 64 scattered frames takes nine.
const PIECE: usize = 8;
/// The most frames in one request, as the memory core promises.
const MOST_FRAMES: usize = 64;
/// Bytes of a request's header, with its status byte behind it, padded.
const HEADER: usize = 32;
const STATUS_AT: usize = 16;
/// Status of a request that the device has not answered.
const UNANSWERED: u8 = 0xFF;
/// Bytes of a serial number.
const SERIAL: usize = 20;

/// A request in flight, by its first piece.
#[derive(Clone, Copy, Default)]
struct Request {
    token: u32,
    pieces: u64,
    read: bool,
}

struct State {
    queue: Queue,
    /// Set: the piece is free.
    free: u64,
    requests: [Request; POOL],
    reads: u16,
    /// Submitted after the device was given up; to be failed by the next poll.
    lost: ArrayVec<u32, POOL>,
}

/// A disk. See the module.
pub struct Block {
    transport: Transport,
    state: Mutex<State>,
    tables: Dma,
    headers: Dma,
    blocks: u32,
    read_only: bool,
    serial: ArrayVec<u8, SERIAL>,
    polling: AtomicBool,
}

impl Block {
    /// Take a device into use.
    pub fn new(mut transport: Transport) -> Result<Block, DeviceError> {
        transport.negotiate(F_SEG_MAX | F_READ_ONLY)?;
        let queue = transport.queue(0, Queue::MAX_SIZE)?;
        if queue.longest() < MOST_FRAMES + 2 {
            return Err(transport.refuse("its queue is too short for a cluster of 64 frames"));
        }
        let segments = if transport.has(F_SEG_MAX) { transport.config_u32(12) } else { u32::MAX };
        if (segments as usize) < MOST_FRAMES {
            return Err(transport.refuse("it takes too few segments for a cluster of 64 frames"));
        }
        let tables = dma::alloc(Table::bytes(PIECE) * POOL, 16)?;
        let headers = dma::alloc(HEADER * POOL, 16)?;
        let blocks = u32::try_from(transport.config_u64(0) / SECTORS).unwrap_or(u32::MAX);
        let read_only = transport.has(F_READ_ONLY);
        transport.start();
        let state = State {
            queue,
            free: u64::MAX,
            requests: [Request::default(); POOL],
            reads: 0,
            lost: ArrayVec::new(),
        };
        let mut block = Block {
            transport,
            state: Mutex::new(state),
            tables,
            headers,
            blocks,
            read_only,
            serial: ArrayVec::new(),
            polling: AtomicBool::new(false),
        };
        block.serial = block.ask_serial()?;
        Ok(block)
    }

    /// The serial number that the host gave it; empty if none.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// Its interrupt line.
    pub fn line(&self) -> u8 {
        self.transport.line()
    }

    /// Ask for the serial number, and wait by looking: this is start-up, and nothing else runs.
    fn ask_serial(&self) -> Result<ArrayVec<u8, SERIAL>, DeviceError> {
        let answer = dma::alloc(SERIAL, 16)?;
        let mut state = self.state.lock();
        let segment = Segment { addr: answer.phys(0), len: SERIAL as u32 };
        self.header(0, GET_ID, 0);
        let mut table = Table::new(self.tables);
        table.readable(self.header_segment(0));
        table.writable(segment);
        table.writable(self.status_segment(0));
        state.queue.add(&table, 0).map_err(|_| DeviceError::Broken)?;
        state.queue.kick();
        while state.queue.pop().is_none() {
            if state.queue.is_broken() || self.transport.is_broken() {
                return Err(DeviceError::Broken);
            }
            core::hint::spin_loop();
        }
        let mut serial = ArrayVec::from([0; SERIAL]);
        if self.headers.load::<u8>(STATUS_AT) == 0 {
            answer.read(0, &mut serial);
        }
        let end = serial.iter().position(|b| *b == 0).unwrap_or(SERIAL);
        serial.truncate(end);
        Ok(serial)
    }

    #[inline]
    fn header(&self, index: usize, kind: u32, sector: u64) {
        let at = index * HEADER;
        self.headers.store::<u64>(at, kind as u64);
        self.headers.store::<u64>(at + 8, sector);
        self.headers.store::<u8>(at + STATUS_AT, UNANSWERED);
    }
    #[inline]
    fn header_segment(&self, index: usize) -> Segment {
        Segment { addr: self.headers.phys(index * HEADER), len: STATUS_AT as u32 }
    }
    #[inline]
    fn status_segment(&self, index: usize) -> Segment {
        Segment { addr: self.headers.phys(index * HEADER + STATUS_AT), len: 1 }
    }

    /// An interrupt of the device.
    pub fn interrupt(&self) {
        self.transport.acknowledge();
        self.poll();
    }

    /// Report what is finished. For waiters that would rather look than wait for an interrupt; never blocks.
    pub fn poll(&self) {
        let mut done: ArrayVec<(u32, Result<(), IoError>), 32> = ArrayVec::new();
        loop {
            let mut state = self.state.lock();
            if self.transport.is_broken() || state.queue.is_broken() {
                self.give_up(&mut state);
            }
            while !done.is_full() {
                match state.queue.pop() {
                    Some(finished) => done.push(self.finish(&mut state, finished.cookie as usize)),
                    None => break,
                }
            }
            while !done.is_full()
                && let Some(token) = state.lost.pop()
            {
                done.push((token, Err(IoError)));
            }
            let more = done.is_full() || self.arm(&mut state);
            drop(state);
            for (token, result) in done.drain(..) {
                memory().swap_done(token, result);
            }
            if !more {
                return;
            }
        }
    }

    /// Free what the request held, and judge it.
    fn finish(&self, state: &mut State, index: usize) -> (u32, Result<(), IoError>) {
        let request = state.requests[index];
        state.free |= request.pieces;
        state.reads -= request.read as u16;
        let ok = self.headers.load::<u8>(index * HEADER + STATUS_AT) == 0;
        (request.token, if ok { Ok(()) } else { Err(IoError) })
    }

    /// Choose when to be interrupted next; true if it has come to that already.
    #[inline]
    fn arm(&self, state: &mut State) -> bool {
        let after = if state.reads > 0 { 1 } else { state.queue.in_flight().min(Queue::PATIENCE) };
        state.queue.arm(after)
    }

    /// The device broke the rules: reset it, so that it lets go of all frames, and fail what was in flight.
    fn give_up(&self, state: &mut State) {
        if state.queue.in_flight() == 0 && state.queue.is_broken() {
            return;
        }
        log::error!("block: the device is broken; its requests fail from here on");
        self.transport.stop();
        let State { queue, requests, lost, free, reads } = state;
        queue.abandon(|index| {
            // At most one token for each of the POOL pieces is in flight or lost, so this always fits.
            let _ = lost.try_push(requests[index as usize].token);
        });
        (*free, *reads) = (u64::MAX, 0);
    }

    /// Have [`Block::poll`] called soon from a timer: a dead device interrupts no more.
    fn poll_soon(&'static self) {
        if !self.polling.swap(true, Relaxed) {
            let later = move || {
                self.polling.store(false, Relaxed);
                self.poll();
            };
            if sched::timer::at(sched::timer::Deadline::Monotonic(0), Box::new(later)).is_err() {
                self.polling.store(false, Relaxed);
            }
        }
    }

    /// True if the device is dead and the request will be failed by the next poll.
    fn enqueue(&self, token: u32, op: SwapOp, block: u32, frames: &[Pfn]) -> Result<bool, QueueFull> {
        let mut state = self.state.lock();
        if state.queue.is_broken() {
            state.lost.try_push(token).map_err(|_| QueueFull)?;
            return Ok(true);
        }
        let pieces = (count_runs(frames) + 2).div_ceil(PIECE);
        let index = fit(state.free, pieces).ok_or(QueueFull)?;
        let read = op == SwapOp::Read;
        self.header(index, if read { READ } else { WRITE }, block as u64 * SECTORS);
        let size = Table::bytes(PIECE);
        let mut table = Table::new(self.tables.part(index * size, pieces * size));
        table.readable(self.header_segment(index));
        each_run(
            frames,
            frames.len() * PAGE_SIZE,
            |s| if read { table.writable(s) } else { table.readable(s) },
        );
        table.writable(self.status_segment(index));
        let soon = read || state.reads > 0;
        state.queue.expect(soon);
        if state.queue.add(&table, index as u16).is_err() {
            // The request that `expect` counted on does not come.
            state.queue.expect(true);
            return Err(QueueFull);
        }
        let mask = mask(pieces) << index;
        state.free &= !mask;
        state.requests[index] = Request { token, pieces: mask, read };
        state.reads += read as u16;
        state.queue.kick();
        Ok(false)
    }
}

/// A disk that lives as long as the kernel, as the memory core sees it.
pub struct SwapDisk(pub &'static Block);

impl SwapDevice for SwapDisk {
    fn blocks(&self) -> u32 {
        if self.0.read_only { 0 } else { self.0.blocks }
    }

    fn submit(&self, token: u32, op: SwapOp, block: u32, frames: &[Pfn]) -> Result<(), QueueFull> {
        assert!(!frames.is_empty() && frames.len() <= MOST_FRAMES, "a swap request of 1 to 64 frames");
        // A loss is reported from a timer: the caller may hold locks that `swap_done` wants.
        if self.0.enqueue(token, op, block, frames)? {
            self.0.poll_soon();
        }
        Ok(())
    }
}

#[inline]
fn mask(pieces: usize) -> u64 {
    (1 << pieces) - 1
}

/// The first of `pieces` free neighbours in the bitmap (1 to 16 of them).
#[inline]
fn fit(free: u64, pieces: usize) -> Option<usize> {
    let mut starts = free;
    for n in 1..pieces {
        starts &= free >> n;
    }
    (starts != 0).then(|| starts.trailing_zeros() as usize)
}
