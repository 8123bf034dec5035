//! The wire to the host's file server: virtio-9p. What the messages mean is the business of `fs::p9`.
//!
//! A [`Channel`] carries 9P messages in pairs, a request and its reply. Up to [`SLOTS`] are in flight; the tag of a message
//! is the number of its slot, and a slot is half a frame of device memory:
//!
//! ```text
//!   0        512                 1600        2048
//!   | request | descriptors (68) | reply head |          + file data: straight from and to page frames
//! ```
//!
//! The fixed part of a message lives in the slot; bulk data never does. A read's reply is described as "11 bytes of head
//! here, the rest into these frames", so file pages are filled by the host in place. (An error reply is 11 bytes too, and fits the
//! head.) Slots are made once: the page cache can read and write when no memory is left.
//!
//! *Interruption.* Memory that a message names belongs to the device until its descriptors come back. So whoever is
//! interrupted sends a flush for its tag, and then still waits for both: its own descriptors (empty, or with a reply that
//! overtook the flush and then counts), and the flush's. Slot 0 is kept for flushes, so they never wait for a tag.
//!
//! *Casts.* A message whose reply nobody needs (clunk) is sent without waiting, and without ringing the bell: it rides with the
//! next request. That makes it fit for destructors.
//!
//! Lock: [`Channel::state`], a spin lock, never held over a wait. Source: VIRTIO 1.2 names the device only; the layout of its
//! configuration (tag length, tag) is Linux's `virtio_9p.h`.

use super::virtio::{DeviceError, Dma, Queue, Segment, Table, Transport, count_runs, dma, each_run};
use crate::{
    clock,
    sched::{WaitQueue, WaitResult},
};
use arrayvec::ArrayVec;
use hafez_mm::lock::Mutex;
use hafez_mm::{PAGE_SIZE, Pfn};

/// Messages in flight. 16 slots are eight frames.
const SLOTS: usize = 16;
/// The slot that flushes use, one at a time.
const FLUSH_SLOT: usize = 0;
/// Layout of a slot, in bytes.
const SLOT: usize = PAGE_SIZE / 2;
const TABLE_AT: usize = 512;
const DESCRIPTORS: usize = 68;
const HEAD_AT: usize = TABLE_AT + Table::bytes(DESCRIPTORS);
/// The longest fixed part of a request, and of a reply.
pub const REQUEST_MAX: usize = TABLE_AT;
pub const REPLY_MAX: usize = SLOT - HEAD_AT;
/// Runs of contiguous frames that one message can carry: so many frames can always be given to it.
pub const FRAMES_MAX: usize = DESCRIPTORS - 2;
/// Casts that may wait for a ride before the bell is rung for them.
const QUIET_CASTS: u16 = 4;
/// How long an interruptible call cannot be interrupted, ns: file servers answer in microseconds, and programs do not
/// expect a signal to end `stat` or `open`. Only a host that hangs must not make them unkillable.
const PATIENCE: u64 = 1_000_000_000;
/// The longest mount tag that we look at.
const TAG_MAX: usize = 32;
/// Where a message has its tag (after size and type), and the types that this room needs to know.
const TAG_AT: usize = 5;
const TFLUSH: u8 = 108;

/// The bulk part of a message: the first `bytes` of these frames.
#[derive(Clone, Copy)]
pub enum Data<'a> {
    None,
    /// The host reads them, after the request.
    Out {
        frames: &'a [Pfn],
        bytes: usize,
    },
    /// The host writes them, after a reply head of exactly the length asked for.
    In {
        frames: &'a [Pfn],
        bytes: usize,
    },
}

/// Why there is no reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallError {
    /// The thread was interrupted, and the host has dropped the request.
    Interrupted,
    /// The device is gone.
    Broken,
    /// The message does not fit a slot: a bug of the caller's, or frames too scattered.
    TooLong,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Free,
    /// With the device; somebody waits.
    Called,
    /// With the device; nobody waits.
    Cast,
    /// Back, with this many bytes of reply.
    Done(u32),
    /// The device died.
    Lost,
}

struct State {
    queue: Queue,
    phases: [Phase; SLOTS],
    /// Casts in flight.
    casts: u16,
    /// Messages to cast that found no slot.
    backlog: ArrayVec<ArrayVec<u8, 16>, 64>,
}

/// A 9P server on the host. See the module.
pub struct Channel {
    transport: Transport,
    tag: ArrayVec<u8, TAG_MAX>,
    memory: Dma,
    state: Mutex<State>,
    /// One for each slot: its reply.
    replies: [WaitQueue; SLOTS],
    /// For those who want a slot.
    vacancy: WaitQueue,
}

impl Channel {
    /// Take a device into use.
    pub fn new(mut transport: Transport) -> Result<Channel, DeviceError> {
        const HAS_TAG: u64 = 1;
        transport.negotiate(HAS_TAG)?;
        if !transport.has(HAS_TAG) {
            return Err(transport.refuse("a 9p device without a mount tag"));
        }
        let length = transport.config_u8(0) as usize | (transport.config_u8(1) as usize) << 8;
        let tag = (0..length.min(TAG_MAX)).map(|i| transport.config_u8(2 + i)).collect();
        let queue = transport.queue(0, Queue::MAX_SIZE)?;
        if queue.longest() < DESCRIPTORS {
            return Err(transport.refuse("its queue is too short"));
        }
        let memory = dma::alloc(SLOT * SLOTS, PAGE_SIZE)?;
        transport.start();
        let state = State { queue, phases: [Phase::Free; SLOTS], casts: 0, backlog: ArrayVec::new() };
        Ok(Channel {
            transport,
            tag,
            memory,
            state: Mutex::new(state),
            replies: [const { WaitQueue::new() }; SLOTS],
            vacancy: WaitQueue::new(),
        })
    }

    /// The mount tag that the host gave it.
    pub fn tag(&self) -> &[u8] {
        &self.tag
    }

    /// Its interrupt line.
    pub fn line(&self) -> u8 {
        self.transport.line()
    }

    /// Send a request and wait for its reply.
    ///
    /// `request` is a whole 9P message but for the bulk data; its tag field is filled in here. The reply's first bytes go to
    /// `reply` (as many as there are, at most its length); the answer is the length of the whole reply, bulk data included.
    pub fn call(
        &self,
        request: &[u8],
        data: Data<'_>,
        reply: &mut [u8],
        interruptible: bool,
    ) -> Result<usize, CallError> {
        if request.len() > REQUEST_MAX || request.len() < 7 || reply.len() > REPLY_MAX {
            return Err(CallError::TooLong);
        }
        if let Data::Out { frames, .. } | Data::In { frames, .. } = data
            && count_runs(frames) > FRAMES_MAX
        {
            return Err(CallError::TooLong);
        }
        let slot = self.vacant_slot(interruptible)?;
        self.send(slot, request, data, reply.len(), interruptible)?;
        let got = self.outcome(slot, interruptible)?;
        self.slot(slot).read(HEAD_AT, reply);
        self.free(slot);
        Ok(got)
    }

    /// Send a message of at most 16 bytes whose reply does not matter. Never sleeps. Lost only if 64 are waiting already.
    pub fn cast(&self, request: &[u8]) {
        let Ok(message) = ArrayVec::try_from(request) else { return };
        let mut state = self.state.lock();
        if state.backlog.try_push(message).is_err() {
            log::warn!("9p: too many messages wait; a handle stays open on the host");
        }
        self.send_backlog(&mut state, false);
    }

    fn slot(&self, slot: usize) -> Dma {
        self.memory.part(slot * SLOT, SLOT)
    }

    /// Reserve a slot for a call, sleeping while there is none.
    fn vacant_slot(&self, interruptible: bool) -> Result<usize, CallError> {
        let mut found = None;
        let look = || {
            let mut state = self.state.lock();
            found = state.vacant();
            if let Some(slot) = found {
                state.phases[slot] = Phase::Called;
            }
            found.is_some() || state.queue.is_broken()
        };
        if !sleep(&self.vacancy, look, interruptible) {
            return Err(CallError::Interrupted);
        }
        found.ok_or(CallError::Broken)
    }

    /// Describe the message and hand it to the device.
    fn send(
        &self,
        slot: usize,
        request: &[u8],
        data: Data<'_>,
        head: usize,
        interruptible: bool,
    ) -> Result<(), CallError> {
        let memory = self.slot(slot);
        memory.write(0, request);
        memory.write(TAG_AT, &(slot as u16).to_le_bytes());
        let mut table = Table::new(memory.part(TABLE_AT, Table::bytes(DESCRIPTORS)));
        table.readable(Segment { addr: memory.phys(0), len: request.len() as u32 });
        if let Data::Out { frames, bytes } = data {
            each_run(frames, bytes, |segment| table.readable(segment));
        }
        table.writable(Segment { addr: memory.phys(HEAD_AT), len: head as u32 });
        if let Data::In { frames, bytes } = data {
            each_run(frames, bytes, |segment| table.writable(segment));
        }
        // A ring that is full for the moment is waited for: each completion wakes `vacancy`.
        let mut broken = false;
        let offer = || {
            let mut state = self.state.lock();
            broken = state.queue.is_broken();
            if broken {
                return true;
            }
            state.queue.expect(true);
            if state.queue.add(&table, slot as u16).is_err() {
                return false;
            }
            state.queue.kick();
            true
        };
        let sent = sleep(&self.vacancy, offer, interruptible);
        if sent && !broken {
            return Ok(());
        }
        self.free(slot);
        Err(if broken { CallError::Broken } else { CallError::Interrupted })
    }

    /// Wait for the reply in `slot`: its length.
    fn outcome(&self, slot: usize, interruptible: bool) -> Result<usize, CallError> {
        let back = || !matches!(self.state.lock().phases[slot], Phase::Called);
        if !sleep(&self.replies[slot], back, interruptible) {
            self.flush(slot);
            self.replies[slot].wait(back);
        }
        let phase = self.state.lock().phases[slot];
        match phase {
            // Descriptors that come back empty: the host has dropped the request.
            Phase::Done(0) => {
                self.free(slot);
                Err(CallError::Interrupted)
            }
            Phase::Done(length) => Ok(length as usize),
            _ => {
                self.free(slot);
                Err(CallError::Broken)
            }
        }
    }

    /// Ask the host to drop the request in `slot`, and wait until it says that no reply will come any more.
    fn flush(&self, slot: usize) {
        let take = || {
            let mut state = self.state.lock();
            let free = state.phases[FLUSH_SLOT] == Phase::Free;
            if free {
                state.phases[FLUSH_SLOT] = Phase::Called;
            }
            free
        };
        self.vacancy.wait(take);
        let mut message = [9, 0, 0, 0, TFLUSH, 0, 0, 0, 0];
        message[7..].copy_from_slice(&(slot as u16).to_le_bytes());
        if self.send(FLUSH_SLOT, &message, Data::None, 11, false).is_ok()
            && self.outcome(FLUSH_SLOT, false).is_ok()
        {
            self.free(FLUSH_SLOT);
        }
    }

    fn free(&self, slot: usize) {
        let mut state = self.state.lock();
        state.phases[slot] = Phase::Free;
        self.send_backlog(&mut state, false);
        drop(state);
        self.vacancy.wake_all();
    }

    /// Send casts while there are slots for them. A call's slot is never taken for one if it is the last.
    fn send_backlog(&self, state: &mut State, hurry: bool) {
        while !state.backlog.is_empty() && state.casts < SLOTS as u16 / 2 {
            let Some(slot) = state.vacant() else { break };
            let Some(message) = state.backlog.pop() else { break };
            let memory = self.slot(slot);
            memory.write(0, &message);
            memory.write(TAG_AT, &(slot as u16).to_le_bytes());
            let mut table = Table::new(memory.part(TABLE_AT, Table::bytes(DESCRIPTORS)));
            table.readable(Segment { addr: memory.phys(0), len: message.len() as u32 });
            table.writable(Segment { addr: memory.phys(HEAD_AT), len: 11 });
            state.queue.expect(true);
            if state.queue.add(&table, slot as u16).is_err() {
                // There was room for it in the backlog a moment ago.
                let _ = state.backlog.try_push(message);
                break;
            }
            state.phases[slot] = Phase::Cast;
            state.casts += 1;
        }
        if hurry || state.casts >= QUIET_CASTS {
            state.queue.kick();
        }
    }

    /// An interrupt of the device: give the replies to those who wait for them.
    pub fn interrupt(&self) {
        self.transport.acknowledge();
        loop {
            let mut back: ArrayVec<usize, SLOTS> = ArrayVec::new();
            let mut state = self.state.lock();
            while !back.is_full()
                && let Some(done) = state.queue.pop()
            {
                let slot = done.cookie as usize;
                back.push(slot);
                if state.phases[slot] == Phase::Cast {
                    state.phases[slot] = Phase::Free;
                    state.casts -= 1;
                } else {
                    state.phases[slot] = Phase::Done(done.len);
                }
            }
            if state.queue.is_broken() || self.transport.is_broken() {
                self.give_up(&mut state, &mut back);
            }
            self.send_backlog(&mut state, false);
            let more = state.queue.arm(1);
            drop(state);
            for slot in &back {
                self.replies[*slot].wake_all();
            }
            if !back.is_empty() {
                self.vacancy.wake_all();
            }
            if !more {
                return;
            }
        }
    }

    /// The device broke the rules: reset it, so that it lets go of all frames, and end every wait.
    fn give_up(&self, state: &mut State, back: &mut ArrayVec<usize, SLOTS>) {
        if state.queue.is_broken() && state.queue.in_flight() == 0 {
            return;
        }
        log::error!("9p: the device is broken; the files on it are out of reach");
        self.transport.stop();
        let State { queue, phases, casts, .. } = state;
        queue.abandon(|slot| {
            let slot = slot as usize;
            phases[slot] = if phases[slot] == Phase::Cast { Phase::Free } else { Phase::Lost };
            let _ = back.try_push(slot);
        });
        *casts = 0;
    }
}

impl State {
    fn vacant(&self) -> Option<usize> {
        (FLUSH_SLOT + 1..SLOTS).find(|slot| self.phases[*slot] == Phase::Free)
    }
}

/// Sleep until `ready()`; whether it is. An interruption counts only after [`PATIENCE`]; a timer is set only for one who is
/// interrupted, since the usual wait should cost nothing (and a machine whose clock skips idle time would skip to it).
fn sleep(queue: &WaitQueue, mut ready: impl FnMut() -> bool, interruptible: bool) -> bool {
    if ready() {
        return true;
    }
    if !interruptible {
        queue.wait(ready);
        return true;
    }
    let deadline = clock::monotonic().saturating_add(PATIENCE);
    queue.wait_until(&mut ready, None, true) == WaitResult::Ready
        || queue.wait_until(ready, Some(deadline), false) == WaitResult::Ready
}
