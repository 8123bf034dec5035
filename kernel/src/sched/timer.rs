//! Things to do at a time: of the monotonic clock, or of the realtime clock, wherever that is set to meanwhile.
//!
//! A heap for each clock, by time. A heap holds numbers of *slots*, and a slot knows its place in the heap, so a timer that is called off
//! is taken out in as many steps as the heap is deep. Room for one entry a thread is reserved when the thread is made, so that a
//! wait with a deadline never lacks memory.
//!
//! Who sets the realtime clock says so ([`clock_was_set`]), for what was due in an hour may be due now.

#![forbid(unsafe_code)]

use super::{NoMemory, run, thread::Thread};
use crate::clock;
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use hafez_mm::lock::Mutex;

/// A moment, in nanoseconds of a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    Monotonic(u64),
    Realtime(u64),
}

impl Deadline {
    /// When that is on the monotonic clock, as the clocks stand now.
    #[inline]
    pub fn monotonic(self) -> u64 {
        match self {
            Deadline::Monotonic(at) => at,
            Deadline::Realtime(at) => at.saturating_sub(clock::at_reset()),
        }
    }
    #[inline]
    fn parts(self) -> (usize, u64) {
        match self {
            Deadline::Monotonic(at) => (0, at),
            Deadline::Realtime(at) => (1, at),
        }
    }
}

/// Names a pending timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId {
    heap: usize,
    slot: u32,
    serial: u64,
}

enum Action {
    Wake(Arc<Thread>),
    Call(Box<dyn FnOnce() + Send>),
}

struct Slot {
    /// When it is due; those due at once come in the order of their making.
    at: u64,
    serial: u64,
    /// Its place in the heap; of a free slot, the next free one.
    place: u32,
    action: Option<Action>,
}

struct Heap {
    /// Numbers of slots: each is due no earlier than the one at half its index.
    order: Vec<u32>,
    slots: Vec<Slot>,
    free: u32,
}

/// No slot.
const NONE: u32 = u32::MAX;

impl Heap {
    const fn new() -> Heap {
        Heap { order: Vec::new(), slots: Vec::new(), free: NONE }
    }

    /// Room for `more` entries beyond those that are there.
    fn reserve(&mut self, more: usize) -> Result<(), NoMemory> {
        self.order.try_reserve(more).map_err(|_| NoMemory)?;
        // Free slots count as room.
        let wanted = self.order.len() + more;
        self.slots.try_reserve(wanted.saturating_sub(self.slots.len())).map_err(|_| NoMemory)
    }

    fn key(&self, place: usize) -> (u64, u64) {
        let slot = &self.slots[self.order[place] as usize];
        (slot.at, slot.serial)
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.order.swap(a, b);
        for place in [a, b] {
            self.slots[self.order[place] as usize].place = place as u32;
        }
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 && self.key(place) < self.key((place - 1) / 2) {
            self.swap(place, (place - 1) / 2);
            place = (place - 1) / 2;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let children = 2 * place + 1..(2 * place + 3).min(self.order.len());
            let Some(least) = children.min_by_key(|&child| self.key(child)) else { return };
            if self.key(place) <= self.key(least) {
                return;
            }
            self.swap(place, least);
            place = least;
        }
    }

    fn add(&mut self, at: u64, serial: u64, action: Action) -> u32 {
        let place = self.order.len() as u32;
        let entry = Slot { at, serial, place, action: Some(action) };
        let slot = self.free;
        let slot = match self.slots.get_mut(slot as usize) {
            Some(free) => {
                self.free = core::mem::replace(free, entry).place;
                slot
            }
            None => {
                self.slots.push(entry);
                self.slots.len() as u32 - 1
            }
        };
        self.order.push(slot);
        self.rise(place as usize);
        slot
    }

    fn remove(&mut self, place: usize) -> Option<Action> {
        let last = self.order.len() - 1;
        self.swap(place, last);
        let slot = self.order.pop()?;
        if place < last {
            self.sink(place);
            self.rise(place);
        }
        let entry = &mut self.slots[slot as usize];
        (entry.serial, entry.place) = (u64::MAX, core::mem::replace(&mut self.free, slot));
        entry.action.take()
    }

    fn first(&self) -> Option<u64> {
        self.order.first().map(|&slot| self.slots[slot as usize].at)
    }
}

struct Timers {
    /// Of the monotonic clock, and of the realtime clock.
    heaps: [Heap; 2],
    /// Entries that threads may need.
    reserved: usize,
}

static TIMERS: Mutex<Timers> = Mutex::new(Timers { heaps: [Heap::new(), Heap::new()], reserved: 0 });
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Call `callback` then, from interrupt context: it must not block.
pub fn at(when: Deadline, callback: Box<dyn FnOnce() + Send>) -> Result<TimerId, NoMemory> {
    {
        let mut timers = TIMERS.lock();
        let more = timers.reserved + 1;
        timers.heaps[when.parts().0].reserve(more)?;
    }
    Ok(add(when, Action::Call(callback)))
}

/// Wake the thread then.
pub(super) fn wake_at(when: Deadline, thread: &Arc<Thread>) -> TimerId {
    add(when, Action::Wake(thread.clone()))
}

fn add(when: Deadline, action: Action) -> TimerId {
    let (heap, at) = when.parts();
    let serial = SERIAL.fetch_add(1, Relaxed);
    let slot = TIMERS.lock().heaps[heap].add(at, serial, action);
    run::arm(when.monotonic());
    TimerId { heap, slot, serial }
}

/// Whether it was still pending.
pub fn cancel(timer: TimerId) -> bool {
    let mut timers = TIMERS.lock();
    let heap = &mut timers.heaps[timer.heap];
    let pending = heap.slots.get(timer.slot as usize).filter(|slot| slot.serial == timer.serial);
    let Some(place) = pending.map(|slot| slot.place) else { return false };
    let gone = heap.remove(place as usize);
    drop(timers);
    // Outside the lock: a callback's captures may be anything.
    drop(gone);
    true
}

/// Room for `threads` waits with a deadline.
pub(super) fn reserve(threads: usize) -> bool {
    let mut timers = TIMERS.lock();
    // What stands in a heap already counts: it may be called off, but not before somebody needs the room.
    let roomy = timers.heaps.iter_mut().all(|heap| heap.reserve(threads).is_ok());
    if roomy {
        timers.reserved = threads;
    }
    roomy
}

/// The realtime clock was set: what is due by it now, and when the rest is, is another matter.
pub fn clock_was_set() {
    let first = TIMERS.lock().heaps[1].first();
    if let Some(at) = first {
        run::arm(Deadline::Realtime(at).monotonic());
    }
}

/// Do what is due; when the next is.
pub(super) fn expire(now: u64) -> Option<u64> {
    loop {
        let due = {
            let mut timers = TIMERS.lock();
            let [monotonic, realtime] = &timers.heaps;
            let first =
                |heap: &Heap, deadline: fn(u64) -> Deadline| heap.first().map(|at| deadline(at).monotonic());
            let due = [first(monotonic, Deadline::Monotonic), first(realtime, Deadline::Realtime)];
            match due {
                [Some(at), _] if at <= now => timers.heaps[0].remove(0),
                [_, Some(at)] if at <= now => timers.heaps[1].remove(0),
                _ => return due.into_iter().flatten().min(),
            }
        };
        match due {
            Some(Action::Wake(thread)) => {
                run::wake(thread);
            }
            Some(Action::Call(callback)) => callback(),
            None => {}
        }
    }
}
