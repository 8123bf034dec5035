//! The two clocks, from which all of Linux's clock numbers follow (`clock_gettime(2)`).
//!
//! *Monotonic* counts nanoseconds since the machine's reset; a machine that does not suspend has the same value for boot
//! time and for the raw clock. *Realtime* is that plus an offset, which the host's wall clock fixes once at the
//! start. Nothing sets it later: a program that asks to is told EPERM. So a deadline on either clock is a deadline on the other.
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;

/// Realtime at reset, in nanoseconds since 1970.
static RESET: AtomicU64 = AtomicU64::new(0);

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

/// Tell the time: it is `now` nanoseconds since 1970.
pub fn set_realtime(now: u64) {
    RESET.store(now.wrapping_sub(monotonic()), Relaxed);
}
