//! Swap: what stands behind pages that no file backs.
//!
//! ```text
//!   out:  frame --take--> slot (cached) --unmap, flush--> same word? Filled, no I/O
//!                                                  else   run of blocks, sums kept, one write, on completion uncache
//!   in:   slot --> cached frame? take it : filled? fill a frame : read the block and its neighbours, verify, cache
//! ```
//!
//! A slot's cached frame is the one place where all who want the page meet: a reader puts the frame there, marked
//! READING, before it asks the disk, and whoever comes second waits for that mark to go. While a page in RAM has not
//! been written since it came in, it keeps its slot, and evicting it again is free.
//!
//! The disk is asynchronous: [`SwapDevice::submit`] returns at once and the device reports by token. Requests in
//! flight sit in a fixed table, so swapping out needs no heap.

pub mod blocks;
pub mod check;
pub mod slots;

use crate::addr::Pfn;
use crate::frame::Frames;
use crate::frame::meta::{Flags, State as FrameState, Word};
use crate::lock::{Mutex, Once};
use crate::mutant::mutant;
use alloc::boxed::Box;
use arrayvec::ArrayVec;
use blocks::Blocks;
use check::Key;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};
pub use slots::{Record, Slots, Tier};

/// Direction of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SwapOp {
    Read,
    Write,
}
/// The device takes no more requests now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueFull;
/// A request failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoError;

/// A disk of 4 KiB blocks with requests in flight.
pub trait SwapDevice: Send + Sync {
    /// How many 4 KiB blocks it has.
    fn blocks(&self) -> u32;
    /// Start to move `frames` to or from as many blocks from `block` on. The answer comes as
    /// [`crate::Memory::swap_done`] with the same token, at any later time, even before this returns.
    fn submit(&self, token: u32, op: SwapOp, block: u32, frames: &[Pfn]) -> Result<(), QueueFull>;
}

/// Pages in one request at most.
pub const CLUSTER: usize = 64;
/// Requests in flight at most: enough to keep a disk busy, few enough that completion order does not matter.
const REQUESTS: usize = 16;
/// Writes among them: a disk that has four clusters to write is busy, and what more could be queued would stand in the way of
/// the reads, for which somebody waits.
const WRITES: usize = 4;

/// A page on its way.
#[derive(Clone, Copy, Debug)]
pub struct Moving {
    pub slot: u32,
    pub frame: Pfn,
}

/// One request to the disk.
#[derive(Default)]
pub struct Request {
    pub op: Option<SwapOp>,
    pub pages: ArrayVec<Moving, CLUSTER>,
    /// The answer, once there is one.
    pub result: Option<Result<(), IoError>>,
    live: bool,
    age: u32,
}

pub struct Swap {
    pub state: Mutex<State>,
    device: Once<&'static dyn SwapDevice>,
    key: Key,
    requests: Box<[Mutex<Request>]>,
    /// Requests that are in the table.
    in_flight: AtomicU32,
    /// Answers, and ends of requests, since boot.
    answers: AtomicU32,
    /// Pages evicted since boot: the clock of refault distances.
    pub evictions: AtomicU32,
    /// Slots whose bytes came back changed.
    pub corrupt: AtomicU64,
    pub read_errors: AtomicU64,
    pub write_errors: AtomicU64,
}

/// Slots and blocks, under one lock.
pub struct State {
    pub slots: Slots,
    pub blocks: Blocks,
    /// Blocks that failed a write: taken for good.
    pub bad: u32,
}

/// Slots for each block: pages of one repeated word need a slot but no block, and there can be many of them.
const SLOTS_PER_BLOCK: u32 = 8;

impl Swap {
    pub fn new(seed: u64) -> Self {
        Swap {
            state: Mutex::new(State { slots: Slots::default(), blocks: Blocks::new(0), bad: 0 }),
            device: Once::new(),
            key: Key::from_seed(seed),
            requests: (0..REQUESTS).map(|_| Mutex::new(Request::default())).collect(),
            in_flight: AtomicU32::new(0),
            answers: AtomicU32::new(0),
            evictions: AtomicU32::new(0),
            corrupt: AtomicU64::new(0),
            read_errors: AtomicU64::new(0),
            write_errors: AtomicU64::new(0),
        }
    }

    /// Answers, and ends of requests, since boot: changes whenever a place in the table may have become free.
    pub fn answers(&self) -> u32 {
        self.answers.load(Acquire)
    }

    /// Use this disk from now on. Only the first is taken.
    pub fn attach(&self, device: &'static dyn SwapDevice) {
        self.device.call_once(|| {
            // A block number has 28 bits in a record: 1 TiB.
            let blocks = device.blocks().min((1 << 28) - 1);
            let mut state = self.state.lock();
            state.slots = Slots::new(blocks.saturating_mul(SLOTS_PER_BLOCK));
            state.blocks = Blocks::new(blocks);
            device
        });
    }

    /// Whether another page can be swapped out.
    pub fn has_room(&self) -> bool {
        let state = self.state.lock();
        state.blocks.free() > 0 && state.slots.has_room()
    }

    /// Whether a write could begin now. If not, some are under way, and an answer will come.
    pub fn can_write(&self) -> bool {
        self.requests[..WRITES].iter().any(|request| !request.lock().live)
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Acquire)
    }

    /// An entry more names the slot.
    pub fn add_ref(&self, frames: &Frames, slot: u32) {
        let mut state = self.state.lock();
        if let Some(record) = state.slots.get(frames, slot) {
            state.slots.put(frames, slot, Record { refs: record.refs + 1, ..record });
        }
    }

    /// An entry fewer names the slot. Where none is left the slot is freed, or, if a frame is cached, that frame is
    /// returned: its holder decides (see [`Swap::uncache`]).
    pub fn drop_ref(&self, frames: &Frames, slot: u32) -> Option<Pfn> {
        let mut state = self.state.lock();
        let record = state.slots.get(frames, slot)?;
        debug_assert!(record.refs > 0, "slot {slot} has no reference to drop");
        let record = Record { refs: record.refs - 1, ..record };
        state.slots.put(frames, slot, record);
        if record.refs == 0 && record.frame.is_none() {
            state.free(frames, slot);
            mutant!(SlotFreedTwice, state.free(frames, slot), ());
        }
        record.frame.filter(|_| record.refs == 0)
    }

    /// As [`Swap::drop_ref`] for a slot that caches a frame, whose holder stays: nothing is freed.
    pub fn unname(&self, frames: &Frames, slot: u32) {
        let mut state = self.state.lock();
        if let Some(record) = state.slots.get(frames, slot) {
            state.slots.put(frames, slot, Record { refs: record.refs - 1, ..record });
        }
    }

    pub fn record(&self, frames: &Frames, slot: u32) -> Option<Record> {
        self.state.lock().slots.get(frames, slot)
    }

    /// The slot caches no frame any more, and is free if nothing names it.
    pub fn uncache(&self, frames: &Frames, slot: u32) {
        self.state.lock().uncache_at(frames, slot, self.evictions.load(Relaxed));
    }

    /// Take `frame` out of the swap cache if no entry names its slot, which frees the slot; the frame's word then. Not if
    /// somebody has the frame in hand: who isolates one looks at its slot only after, under this lock. And not if it has
    /// become an object's page since the caller looked: then its slot is unnamed, too, but what it is cached in is the page map.
    pub fn uncache_unnamed(&self, frames: &Frames, frame: Pfn) -> Option<Word> {
        let meta = frames.meta(frame);
        let mut state = self.state.lock();
        let slot = meta.slot();
        let record = state.slots.get(frames, slot)?;
        let word = meta.word();
        let theirs = word.state() != FrameState::Anon || word.any(Flags::IN_HAND);
        if record.refs > 0 || record.frame != Some(frame) || theirs {
            return None;
        }
        state.slots.put(frames, slot, Record { frame: None, ..record });
        state.free(frames, slot);
        meta.set_slot(0);
        // What is in RAM is the only copy now.
        meta.set(Flags::DIRTY);
        Some(meta.release(Flags::CACHED))
    }

    /// The frame has left its page map: its slot does not cache it any more, unless somebody has it in hand, who will see.
    pub fn uncache_cut(&self, frames: &Frames, frame: Pfn) {
        let meta = frames.meta(frame);
        let mut state = self.state.lock();
        if meta.slot() != 0 && !meta.word().any(Flags::IN_HAND) {
            state.uncache_at(frames, meta.slot(), self.evictions.load(Relaxed));
            meta.set_slot(0);
        }
    }

    /// Make `frame` the cached frame of a slot that lies at `block` and caches none; false if that is not so any more.
    pub fn cache(&self, frames: &Frames, slot: u32, frame: Pfn, block: u32) -> bool {
        let mut state = self.state.lock();
        match state.slots.get(frames, slot) {
            Some(record @ Record { frame: None, tier: Tier::Disk { block: at, .. }, .. }) if at == block => {
                state.slots.put(frames, slot, Record { frame: Some(frame), ..record });
                true
            }
            _ => false,
        }
    }

    /// Give blocks to a batch whose frames no CPU can write any more, note the sums, and hand the batch to the disk.
    /// What could not be started (no block, no request, device full) is left in `pages`.
    pub fn write(&self, frames: &Frames, pages: &mut ArrayVec<Moving, CLUSTER>) {
        let Some(device) = self.device.get() else { return };
        while !pages.is_empty() {
            let Some(token) = self.open(SwapOp::Write) else { return };
            let Some((start, len)) = self.state.lock().blocks.take(pages.len() as u32) else {
                self.close(token);
                return;
            };
            let mut batch: ArrayVec<Pfn, CLUSTER> = ArrayVec::new();
            {
                let mut request = self.request(token).lock();
                for (n, page) in pages.drain(..len as usize).enumerate() {
                    let block = start + n as u32;
                    let sum = self.key.sum(&frames.phys, page.frame, block);
                    self.state.lock().set_tier(frames, page.slot, Tier::Disk { block, sum });
                    request.pages.push(page);
                    batch.push(page.frame);
                }
            }
            if device.submit(token, SwapOp::Write, start, &batch).is_err() {
                let returned = self.take_back(token);
                self.close(token);
                for page in &returned {
                    self.state.lock().set_tier(frames, page.slot, Tier::Ram);
                }
                pages.extend(returned);
                return;
            }
        }
    }

    /// Start to read pages whose slots lie in blocks in a row, the first at `block`. The token to wait for, or `None` where others'
    /// requests have to be answered first.
    pub fn read(&self, block: u32, pages: &[Moving]) -> Result<Option<u32>, IoError> {
        let device = self.device.get().ok_or(IoError)?;
        let Some(token) = self.open(SwapOp::Read) else { return Ok(None) };
        let batch: ArrayVec<Pfn, CLUSTER> = pages.iter().map(|p| p.frame).collect();
        self.request(token).lock().pages.extend(pages.iter().copied());
        if device.submit(token, SwapOp::Read, block, &batch).is_ok() {
            return Ok(Some(token));
        }
        let others = self.in_flight() > 1;
        self.take_back(token);
        self.close(token);
        if others { Ok(None) } else { Err(IoError) }
    }

    /// Whether the bytes that came in are those that went out.
    pub fn verify(&self, frames: &Frames, page: Moving) -> bool {
        match self.record(frames, page.slot).map(|r| r.tier) {
            Some(Tier::Disk { block, sum }) => {
                mutant!(SumIgnored, true, self.key.sum(&frames.phys, page.frame, block) == sum)
            }
            _ => false,
        }
    }

    /// The device's answer. `None` where the token names no request: the device repeats itself, or lies.
    /// A read's answer is kept for its reader; a write's request is returned and is over.
    pub fn answered(&self, token: u32, result: Result<(), IoError>) -> Option<SwapOp> {
        let mut request = self.requests.get(token as usize % REQUESTS)?.lock();
        if !request.live || request.age != token / REQUESTS as u32 || request.result.is_some() {
            return None;
        }
        request.result = Some(result);
        self.answers.fetch_add(1, AcqRel);
        request.op
    }

    /// The answer, if it is there.
    pub fn answer(&self, token: u32) -> Option<Result<(), IoError>> {
        self.request(token).lock().result
    }

    /// The pages of a request that is to be closed.
    pub fn take_back(&self, token: u32) -> ArrayVec<Moving, CLUSTER> {
        core::mem::take(&mut self.request(token).lock().pages)
    }

    fn request(&self, token: u32) -> &Mutex<Request> {
        &self.requests[token as usize % REQUESTS]
    }

    fn open(&self, op: SwapOp) -> Option<u32> {
        // Each kind has its own: reads never wait for writes to end.
        let (first, end) = if op == SwapOp::Write { (0, WRITES) } else { (WRITES, REQUESTS) };
        let requests = self.requests[..end].iter().enumerate().skip(first);
        requests.into_iter().find_map(|(n, request)| {
            let mut request = request.lock();
            if request.live {
                return None;
            }
            let age = request.age.wrapping_add(1) & 0x00FF_FFFF;
            *request = Request { op: Some(op), live: true, age, ..Request::default() };
            self.in_flight.fetch_add(1, AcqRel);
            Some(age * REQUESTS as u32 + n as u32)
        })
    }

    /// End a request: its pages have been seen to.
    pub fn close(&self, token: u32) {
        self.request(token).lock().live = false;
        self.in_flight.fetch_sub(1, AcqRel);
        self.answers.fetch_add(1, AcqRel);
    }
}

impl State {
    /// Move a slot to another tier; a block that it leaves is free again.
    pub fn set_tier(&mut self, frames: &Frames, slot: u32, tier: Tier) {
        let Some(record) = self.slots.get(frames, slot) else { return };
        if let Tier::Disk { block, .. } = record.tier {
            self.blocks.give(block);
        }
        self.slots.put(frames, slot, Record { tier, ..record });
    }

    /// The slot's bytes are these from now on, and it caches no frame; `named`: a page map names it henceforth.
    pub fn uncache_as(&mut self, frames: &Frames, slot: u32, tier: Tier, named: bool) {
        self.set_tier(frames, slot, Tier::Ram);
        let Some(record) = self.slots.get(frames, slot) else { return };
        let refs = record.refs + named as u16;
        self.slots.put(frames, slot, Record { frame: None, tier, refs, ..record });
        if refs == 0 {
            self.free(frames, slot);
        }
    }

    /// The slot caches no frame from now on, and is free if nothing names it.
    pub fn uncache_at(&mut self, frames: &Frames, slot: u32, evicted: u32) {
        let Some(record) = self.slots.get(frames, slot) else { return };
        self.slots.put(frames, slot, Record { frame: None, evicted, ..record });
        if record.refs == 0 {
            self.free(frames, slot);
        }
    }

    /// The slot's block failed a write: never use it again.
    pub fn set_bad(&mut self, frames: &Frames, slot: u32) {
        let Some(record) = self.slots.get(frames, slot) else { return };
        self.bad += 1;
        self.slots.put(frames, slot, Record { tier: Tier::Ram, ..record });
    }

    fn free(&mut self, frames: &Frames, slot: u32) {
        self.set_tier(frames, slot, Tier::Ram);
        self.slots.give(frames, slot);
    }
}
