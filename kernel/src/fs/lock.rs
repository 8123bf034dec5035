//! A lock that may be held over a sleep.
//!
//! It guards a sequence of steps, not data: what it orders lies in atomics or under spin locks of its own. Waiters sleep.

use crate::sched::WaitQueue;
use core::sync::atomic::{AtomicBool, Ordering};

/// See the module. `const`-constructible, and free until somebody waits.
pub struct SleepLock {
    held: AtomicBool,
    queue: WaitQueue,
}

/// Gives the lock back when dropped.
#[must_use]
pub struct SleepGuard<'a>(&'a SleepLock);

impl SleepLock {
    pub const fn new() -> SleepLock {
        SleepLock { held: AtomicBool::new(false), queue: WaitQueue::new() }
    }

    /// Take the lock, sleeping (not interruptibly) while another has it.
    pub fn lock(&self) -> SleepGuard<'_> {
        if !self.try_take() {
            self.queue.wait(|| self.try_take());
        }
        SleepGuard(self)
    }

    /// Whether somebody has it now.
    #[inline]
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    fn try_take(&self) -> bool {
        self.held.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

impl Default for SleepLock {
    fn default() -> Self {
        SleepLock::new()
    }
}

impl Drop for SleepGuard<'_> {
    fn drop(&mut self) {
        self.0.held.store(false, Ordering::Release);
        self.0.queue.wake_one();
    }
}
