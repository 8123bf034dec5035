//! Waiting for a condition, with no wake-up lost.
//!
//! The waiter says that it waits, queues up, and only then looks at the condition. The waker makes the condition true
//! and only then looks at the queue. So whichever comes second sees the other. A wake-up means "look again", never "it
//! is so": spurious ones are harmless.
//!
//! The first waiter of a queue needs no memory, and nearly every queue has one at most. Where there is no memory for
//! another, the thread does not sleep but yields and looks again: slow, and right.

#![forbid(unsafe_code)]

use super::timer::{self, Deadline};
use super::{NoMemory, current, run, thread::State, thread::Thread};
use crate::{arch, mem};
use alloc::{collections::VecDeque, sync::Arc};
use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use hafez_mm::lock::Mutex;

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitResult {
    /// The condition holds.
    Ready,
    /// The deadline passed first.
    TimedOut,
    /// `Thread::interrupt` came first.
    Interrupted,
}

struct Waiter {
    thread: Arc<Thread>,
    /// What it waits for, where several things share a queue.
    key: usize,
}

/// In the order of arrival: `first`, then `more`.
struct Waiters {
    first: Option<Waiter>,
    more: VecDeque<Waiter>,
}

/// Threads that wait for something; whoever makes it true wakes them. Wakers may be interrupt handlers.
pub struct WaitQueue {
    /// How many wait; lets a waker pass by without the lock.
    count: AtomicUsize,
    waiters: Mutex<Waiters>,
}

impl Waiters {
    /// Whether there is room for one more.
    #[inline]
    fn has_room(&self) -> bool {
        self.first.is_none() && self.more.is_empty() || self.more.len() < self.more.capacity()
    }
    /// Where there is room.
    #[inline]
    fn add(&mut self, waiter: Waiter) {
        waiter.thread.queued.fetch_add(1, SeqCst);
        if self.first.is_none() && self.more.is_empty() {
            self.first = Some(waiter);
        } else {
            self.more.push_back(waiter);
        }
    }
    /// Take out the first that `f` wants.
    fn take(&mut self, mut f: impl FnMut(&Waiter) -> bool) -> Option<Waiter> {
        let taken = match self.first.as_ref().is_some_and(&mut f) {
            true => self.first.take(),
            false => self.take_of_more(f),
        }?;
        taken.thread.queued.fetch_sub(1, SeqCst);
        Some(taken)
    }
    #[inline]
    fn take_of_more(&mut self, f: impl FnMut(&Waiter) -> bool) -> Option<Waiter> {
        let at = self.more.iter().position(f)?;
        self.more.remove(at)
    }
}

impl WaitQueue {
    pub const fn new() -> Self {
        WaitQueue {
            count: AtomicUsize::new(0),
            waiters: Mutex::new(Waiters { first: None, more: VecDeque::new() }),
        }
    }
    /// Sleep until `ready()`; it is asked again after each wake-up and must not block.
    #[inline]
    pub fn wait(&self, mut ready: impl FnMut() -> bool) {
        if !ready() {
            wait_on(&[self], NO_KEY, &mut ready, None, false);
        }
    }
    /// As `wait`, with a deadline (nanoseconds of the monotonic clock) and, if `interruptible`, an end by `Thread::interrupt`.
    #[inline]
    pub fn wait_until(
        &self,
        mut ready: impl FnMut() -> bool,
        deadline: Option<u64>,
        interruptible: bool,
    ) -> WaitResult {
        if ready() {
            return WaitResult::Ready;
        }
        wait_on(&[self], NO_KEY, &mut ready, deadline.map(Deadline::Monotonic), interruptible)
    }
    /// As `wait_until`, with a deadline on either clock.
    pub fn wait_till(
        &self,
        mut ready: impl FnMut() -> bool,
        deadline: Option<Deadline>,
        interruptible: bool,
    ) -> WaitResult {
        if ready() {
            return WaitResult::Ready;
        }
        wait_on(&[self], NO_KEY, &mut ready, deadline, interruptible)
    }
    /// For one who has just looked and will look again: sleep once, if `ready` still says no when the waiter is on the queue.
    /// `Ready` says that it is time to look; it can be interrupted.
    #[inline]
    pub fn sleep_once(&self, ready: impl FnOnce() -> bool) -> WaitResult {
        let me = current();
        me.interruptible.store(true, SeqCst);
        me.set_state(State::Waiting);
        let queued = self.add(me.arc(), NO_KEY).is_ok();
        let answer = match ready() {
            true => Some(WaitResult::Ready),
            false => me.interrupted().then_some(WaitResult::Interrupted),
        };
        if answer.is_some() || !queued {
            me.set_state(State::Running);
        }
        if answer.is_none() {
            run::switch();
        }
        let woken = !self.remove(&me);
        if woken && answer == Some(WaitResult::Interrupted) {
            self.wake_one();
        }
        awake(&me, true);
        answer.unwrap_or(WaitResult::Ready)
    }
    /// Wake the one that has waited longest; whether there was one.
    #[inline]
    pub fn wake_one(&self) -> bool {
        self.anyone() && self.wake_first()
    }
    /// Wake all.
    #[inline]
    pub fn wake_all(&self) {
        if self.anyone() {
            self.wake_matching(|_| true);
        }
    }

    #[inline(always)]
    fn anyone(&self) -> bool {
        // Sequentially consistent against the waiter's count and look: one of the two sees the other.
        core::sync::atomic::fence(SeqCst);
        self.count.load(SeqCst) != 0
    }

    #[cold]
    fn wake_first(&self) -> bool {
        loop {
            let Some(waiter) = self.waiters.lock().take(|_| true) else { return false };
            self.count.fetch_sub(1, SeqCst);
            // One that something else has just woken does not count: it may have given up.
            if run::wake(waiter.thread) {
                return true;
            }
        }
    }

    #[cold]
    fn wake_matching(&self, mut wanted: impl FnMut(&Waiter) -> bool) {
        loop {
            let Some(waiter) = self.waiters.lock().take(&mut wanted) else { return };
            let last = self.count.fetch_sub(1, SeqCst) == 1;
            run::wake(waiter.thread);
            // Who queues up now looks at the condition after.
            if last {
                return;
            }
        }
    }

    #[inline]
    fn add(&self, thread: Arc<Thread>, key: usize) -> Result<(), NoMemory> {
        let waiter = Waiter { thread, key };
        let mut waiters = self.waiters.lock();
        while !waiters.has_room() {
            let needed = waiters.more.len() + 1;
            drop(waiters);
            self.make_room(needed)?;
            waiters = self.waiters.lock();
        }
        waiters.add(waiter);
        self.count.fetch_add(1, SeqCst);
        Ok(())
    }

    /// Room for `needed` besides the first. The memory is asked for without the lock: that may wake the thread that reclaims.
    #[cold]
    fn make_room(&self, needed: usize) -> Result<(), NoMemory> {
        let mut larger = VecDeque::new();
        larger.try_reserve(needed.next_power_of_two().max(4)).map_err(|_| NoMemory)?;
        let mut waiters = self.waiters.lock();
        if waiters.more.len() < larger.capacity() {
            larger.append(&mut waiters.more);
            core::mem::swap(&mut waiters.more, &mut larger);
        }
        drop(waiters);
        Ok(())
    }

    /// Who woke us has taken us out; only where we gave up by ourselves are we still here, and the answer is `true`.
    #[inline]
    fn remove(&self, thread: &Thread) -> bool {
        if thread.queued.load(SeqCst) == 0 {
            return false;
        }
        let gone = self.waiters.lock().take(|waiter| core::ptr::eq(&*waiter.thread, thread));
        if gone.is_some() {
            self.count.fetch_sub(1, SeqCst);
        }
        gone.is_some()
    }
}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}

/// Sleep on several queues at once.
pub fn multi_wait(
    queues: &[&WaitQueue],
    mut ready: impl FnMut() -> bool,
    deadline: Option<u64>,
    interruptible: bool,
) -> Result<WaitResult, NoMemory> {
    if ready() {
        return Ok(WaitResult::Ready);
    }
    Ok(wait_on(queues, NO_KEY, &mut ready, deadline.map(Deadline::Monotonic), interruptible))
}

fn wait_on(
    queues: &[&WaitQueue],
    key: usize,
    ready: &mut dyn FnMut() -> bool,
    deadline: Option<Deadline>,
    interruptible: bool,
) -> WaitResult {
    let me = current();
    let timer = deadline.map(|at| timer::wake_at(at, &me.arc()));
    let mut look = || {
        if ready() {
            Some(WaitResult::Ready)
        } else if interruptible && me.interrupted() {
            Some(WaitResult::Interrupted)
        } else if deadline.is_some_and(|at| arch::time::now_ns() >= at.monotonic()) {
            Some(WaitResult::TimedOut)
        } else {
            None
        }
    };
    me.interruptible.store(interruptible, SeqCst);
    let result = loop {
        me.set_state(State::Waiting);
        let queued = queues.iter().filter(|queue| queue.add(me.arc(), key).is_ok()).count();
        let mut answer = look();
        if answer.is_some() || queued < queues.len() {
            me.set_state(State::Running);
        }
        if answer.is_none() {
            run::switch();
            answer = look();
        }
        for queue in queues {
            let woken = !queue.remove(&me);
            // The one wake-up for several came to a thread that gives up for another reason: the next one shall have it.
            let gives_up = matches!(answer, Some(WaitResult::TimedOut | WaitResult::Interrupted));
            if gives_up && woken && key == NO_KEY {
                queue.wake_one();
            }
        }
        if let Some(answer) = answer {
            break answer;
        }
    };
    if let Some(timer) = timer {
        timer::cancel(timer);
    }
    awake(&me, interruptible);
    result
}

/// A wait is over.
#[inline]
fn awake(me: &Thread, interruptible: bool) {
    me.interruptible.store(false, SeqCst);
    #[cfg(feature = "watermark")]
    if let Some(stack) = me.stack.lock().as_ref() {
        stack.look(me.name());
    }
    // Who sleeps long goes on as if the call began here: others may have used the reserve meanwhile.
    if interruptible && !mem::is_ready() && me.owner().is_some() {
        mem::await_reserve();
    }
}

/// Of waiters on a queue that is for one thing.
const NO_KEY: usize = 0;

/// Queues for things that have a number and no queue of their own.
const KEYED: usize = 64;
static KEY_QUEUES: [WaitQueue; KEYED] = [const { WaitQueue::new() }; KEYED];

fn key_queue(key: usize) -> &'static WaitQueue {
    // Fibonacci hashing: the top six bits of the product.
    &KEY_QUEUES[key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58]
}

/// Sleep until `ready()`, woken by `wake_key` of the same key.
pub fn wait_key(key: usize, ready: &dyn Fn() -> bool) {
    if !ready() {
        wait_on(&[key_queue(key)], key, &mut || ready(), None, false);
    }
}
/// Wake all that sleep on the key; interrupt handlers may call it.
#[inline]
pub fn wake_key(key: usize) {
    let queue = key_queue(key);
    if queue.anyone() {
        queue.wake_matching(|waiter| waiter.key == key);
    }
}
