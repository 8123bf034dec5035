//! Things to do at a time.

use super::NoMemory;
use alloc::boxed::Box;

/// Names a pending timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerId {
    at: u64,
    serial: u64,
}

/// Call `callback` at `ns` of the monotonic clock, from interrupt context: it must not block.
pub fn at(_ns: u64, _callback: Box<dyn FnOnce() + Send>) -> Result<TimerId, NoMemory> {
    todo!()
}
/// Whether it was still pending.
pub fn cancel(_timer: TimerId) -> bool {
    todo!()
}
