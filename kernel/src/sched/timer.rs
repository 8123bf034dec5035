//! Things to do at a time.
//!
//! A binary heap by time. Room for one entry a thread is reserved when the thread is made, so that a wait with a
//! deadline never lacks memory.

#![forbid(unsafe_code)]

use super::{NoMemory, run, thread::Thread};
use alloc::{boxed::Box, collections::BinaryHeap, sync::Arc};
use core::cmp::Reverse;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use hafez_mm::lock::Mutex;

/// Names a pending timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerId {
    at: u64,
    serial: u64,
}

enum Action {
    Wake(Arc<Thread>),
    Call(Box<dyn FnOnce() + Send>),
}

struct Entry {
    id: TimerId,
    action: Action,
}
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.id.cmp(&other.id)
    }
}

struct Timers {
    pending: BinaryHeap<Reverse<Entry>>,
    /// Entries that threads may need.
    reserved: usize,
}

static TIMERS: Mutex<Timers> = Mutex::new(Timers { pending: BinaryHeap::new(), reserved: 0 });
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Call `callback` at `ns` of the monotonic clock, from interrupt context: it must not block.
pub fn at(ns: u64, callback: Box<dyn FnOnce() + Send>) -> Result<TimerId, NoMemory> {
    {
        let mut timers = TIMERS.lock();
        let more = timers.reserved + 1;
        timers.pending.try_reserve(more).map_err(|_| NoMemory)?;
    }
    Ok(add(ns, Action::Call(callback)))
}

/// Wake the thread at `ns`.
pub(super) fn wake_at(ns: u64, thread: &Arc<Thread>) -> TimerId {
    add(ns, Action::Wake(thread.clone()))
}

fn add(ns: u64, action: Action) -> TimerId {
    let id = TimerId { at: ns, serial: SERIAL.fetch_add(1, Relaxed) };
    TIMERS.lock().pending.push(Reverse(Entry { id, action }));
    run::arm(ns);
    id
}

/// Whether it was still pending.
pub fn cancel(timer: TimerId) -> bool {
    let mut timers = TIMERS.lock();
    let before = timers.pending.len();
    let mut gone = None;
    let old = core::mem::take(&mut timers.pending).into_vec();
    let mut kept = old;
    if let Some(at) = kept.iter().position(|entry| entry.0.id == timer) {
        gone = Some(kept.swap_remove(at));
    }
    timers.pending = kept.into();
    let found = timers.pending.len() < before;
    drop(timers);
    // Outside the lock: a callback's captures may be anything.
    drop(gone);
    found
}

/// Room for `threads` waits with a deadline.
pub(super) fn reserve(threads: usize) -> bool {
    let mut timers = TIMERS.lock();
    if timers.pending.try_reserve(threads).is_err() {
        return false;
    }
    timers.reserved = threads;
    true
}

/// Do what is due; when the next is.
pub(super) fn expire(now: u64) -> Option<u64> {
    loop {
        let due = {
            let mut timers = TIMERS.lock();
            match timers.pending.peek() {
                Some(Reverse(entry)) if entry.id.at <= now => timers.pending.pop(),
                other => return other.map(|entry| entry.0.id.at),
            }
        };
        match due {
            Some(Reverse(Entry { action: Action::Wake(thread), .. })) => {
                run::wake(thread);
            }
            Some(Reverse(Entry { action: Action::Call(callback), .. })) => callback(),
            None => return None,
        }
    }
}
