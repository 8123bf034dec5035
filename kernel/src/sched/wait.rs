//! Waiting for a condition, with no wake-up lost.

use super::NoMemory;

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

/// Threads that wait for something; whoever makes it true wakes them. Wakers may be interrupt handlers.
pub struct WaitQueue {
    _p: (),
}

impl WaitQueue {
    pub const fn new() -> Self {
        WaitQueue { _p: () }
    }
    /// Sleep until `ready()`; it is asked again after each wake-up and must not block.
    pub fn wait(&self, _ready: impl FnMut() -> bool) {
        todo!()
    }
    /// As `wait`, with a deadline (nanoseconds of the monotonic clock) and, if `interruptible`, an end by `Thread::interrupt`.
    pub fn wait_until(
        &self,
        _ready: impl FnMut() -> bool,
        _deadline: Option<u64>,
        _interruptible: bool,
    ) -> WaitResult {
        todo!()
    }
    /// Wake the one that has waited longest; whether there was one.
    pub fn wake_one(&self) -> bool {
        todo!()
    }
    /// Wake all.
    pub fn wake_all(&self) {
        todo!()
    }
}

/// Sleep on several queues at once. `NoMemory` where it cannot even queue.
pub fn multi_wait(
    _queues: &[&WaitQueue],
    _ready: impl FnMut() -> bool,
    _deadline: Option<u64>,
    _interruptible: bool,
) -> Result<WaitResult, NoMemory> {
    todo!()
}
/// Sleep until `ready()`, woken by `wake_key` of the same key.
pub fn wait_key(_key: usize, _ready: &dyn Fn() -> bool) {
    todo!()
}
/// Wake all that sleep on the key; interrupt handlers may call it.
pub fn wake_key(_key: usize) {
    todo!()
}
