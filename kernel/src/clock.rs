//! The two clocks, from which all of Linux's clock numbers follow (`clock_gettime(2)`).
//!
//! *Monotonic* counts nanoseconds since the machine's reset; a machine that does not suspend has the same value for boot
//! time and for the raw clock. *Realtime* is that plus an offset, which the host's wall clock gives at the start, and which a program may
//! change that has the privilege: the machine's own clock, the host's is untouched. So a deadline on one clock is none
//! on the other (see `sched::timer`); what else must know that the clock was set looks at [`times_set`].
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering::*};

/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;

/// Realtime at reset, in nanoseconds since 1970.
static RESET: AtomicU64 = AtomicU64::new(0);
static SET: AtomicU64 = AtomicU64::new(0);

/// Nanoseconds since reset.
#[inline]
pub fn monotonic() -> u64 {
    crate::arch::time::now_ns()
}

/// Nanoseconds since 1970.
#[inline]
pub fn realtime() -> u64 {
    at_reset().wrapping_add(monotonic())
}

/// What the realtime clock showed at reset.
#[inline]
pub fn at_reset() -> u64 {
    RESET.load(Relaxed)
}

/// Tell the time: it is `now` nanoseconds since 1970. `false`: at reset it would have been before 1970.
pub fn set_realtime(now: u64) -> bool {
    let Some(at_reset) = now.checked_sub(monotonic()) else { return false };
    RESET.store(at_reset, Relaxed);
    SET.fetch_add(1, Release);
    true
}

/// How often the realtime clock has been set.
pub fn times_set() -> u64 {
    SET.load(Acquire)
}
