//! Contexts of asynchronous I/O (`io_setup(2)`): where a process finds the results of what it has submitted.
//!
//! ```text
//!   io_submit ─▶ reserve a place ─▶ the transfer itself ─▶ the result is queued ─▶ io_getevents
//! ```
//!
//! A transfer is carried out while it is submitted, which the interface allows and Linux does for most files: so nothing is ever
//! under way that could be cancelled, and a full queue is the only reason to try again. The place is reserved first: a transfer
//! that has been made always finds room for its result.
//!
//! A context's name is an address: there the program finds a page of zeroes where Linux has a ring of results. Libraries that would
//! read the ring without a call look for its magic number first, and make the call if it is not there.
//!
//! Contexts belong to the process: a fork inherits none, `exec` and the end leave none. The lock of the table is not held while a
//! queue's is taken.

use crate::errno::{Errno, Result};
use crate::fs::poll::{Signal, Watchers};
use crate::mem::{self, TryPush};
use crate::sched::WaitResult;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use hafez_mm::lock::Mutex;

/// Most requests that all contexts together can be asked for (`fs.aio-max-nr`).
pub static MOST: AtomicU64 = AtomicU64::new(65536);
/// Requests that the contexts have been asked for (`fs.aio-nr`).
static ASKED: AtomicU64 = AtomicU64::new(0);
/// Bytes that a context may take of the heap before it has a result.
const COST: usize = 512;

pub fn asked() -> u64 {
    ASKED.load(Relaxed)
}

/// What became of a request: `struct io_event`.
#[derive(Clone, Copy)]
pub struct Event {
    /// The program's own word for the request.
    pub data: u64,
    /// Where the request stands.
    pub request: u64,
    /// Bytes, or an error below zero.
    pub result: i64,
}

/// See the module.
pub struct Context {
    /// What it was made for, as counted in `ASKED`.
    asked: u64,
    /// Results that it can keep.
    room: usize,
    queue: Mutex<Queue>,
    changed: Arc<Signal>,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    /// Places for transfers that are being made.
    reserved: usize,
    /// Destroyed while somebody waits.
    gone: bool,
}

impl Context {
    /// One for `asked` requests, which has room for `room`.
    pub fn new(asked: u64, room: usize) -> Result<Arc<Context>> {
        let fits = |now: u64| now.checked_add(asked).filter(|sum| *sum <= MOST.load(Relaxed));
        ASKED.fetch_update(Relaxed, Relaxed, fits).map_err(|_| Errno::EAGAIN)?;
        if !mem::headroom(COST) {
            ASKED.fetch_sub(asked, Relaxed);
            return Err(Errno::ENOMEM);
        }
        Ok(Arc::new(Context { asked, room, queue: Mutex::default(), changed: Signal::new() }))
    }

    /// How many requests one submission may have.
    pub fn room(&self) -> usize {
        self.room
    }

    /// A place for a result, which [`Context::finish`] or [`Context::release`] takes.
    pub fn reserve(&self) -> Result<()> {
        let mut queue = self.queue.lock();
        let more = queue.reserved + 1;
        if queue.events.len() + more > self.room || queue.events.try_reserve(more).is_err() {
            return Err(Errno::EAGAIN);
        }
        queue.reserved = more;
        Ok(())
    }

    /// The request was refused: it has no result.
    pub fn release(&self) {
        self.queue.lock().reserved -= 1;
    }

    pub fn finish(&self, event: Event) {
        let mut queue = self.queue.lock();
        queue.reserved -= 1;
        queue.events.push_back(event);
        drop(queue);
        self.changed.notify();
    }

    /// Wait until there is a result, or until the deadline (ns of the monotonic clock): `false` if that has come.
    pub fn wait(&self, deadline: Option<u64>) -> Result<bool> {
        let ready = || {
            let queue = self.queue.lock();
            queue.gone || !queue.events.is_empty()
        };
        let mut watchers = Watchers::new();
        watchers.add(&self.changed);
        match watchers.wait(ready, deadline)? {
            _ if self.queue.lock().gone => Err(Errno::EINVAL),
            WaitResult::Interrupted => Err(Errno::EINTR),
            WaitResult::TimedOut => Ok(false),
            WaitResult::Ready => Ok(true),
        }
    }

    /// The oldest result, if there is one.
    pub fn take(&self) -> Option<Event> {
        self.queue.lock().events.pop_front()
    }

    /// The program could not be given it: it is the oldest again.
    pub fn put_back(&self, event: Event) {
        let mut queue = self.queue.lock();
        // Where it came from there is room, unless others were faster: then it is lost, as on Linux.
        if queue.events.try_reserve(1).is_ok() {
            queue.events.push_front(event);
        }
    }

    fn end(&self) {
        self.queue.lock().gone = true;
        self.changed.notify();
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        ASKED.fetch_sub(self.asked, Relaxed);
    }
}

/// The contexts of a process, by their addresses.
#[derive(Default)]
pub struct Contexts(Mutex<Vec<(u64, Arc<Context>)>>);

impl Contexts {
    pub fn add(&self, at: u64, context: Arc<Context>) -> Result<()> {
        Ok(self.0.lock().try_push((at, context))?)
    }

    pub fn find(&self, at: u64) -> Result<Arc<Context>> {
        let contexts = self.0.lock();
        let found = contexts.iter().find(|(name, _)| *name == at);
        found.map(|(_, context)| context.clone()).ok_or(Errno::EINVAL)
    }

    /// Take one away; who waits for it is told.
    pub fn remove(&self, at: u64) -> Result<()> {
        let mut contexts = self.0.lock();
        let place = contexts.iter().position(|(name, _)| *name == at).ok_or(Errno::EINVAL)?;
        let (_, context) = contexts.swap_remove(place);
        drop(contexts);
        context.end();
        Ok(())
    }

    /// The image that the addresses are of is gone.
    pub fn clear(&self) {
        let contexts = core::mem::take(&mut *self.0.lock());
        contexts.iter().for_each(|(_, context)| context.end());
    }
}
