//! How fast the time-stamp counter ticks.
//!
//! The machine has no other clock that is cheap to read, and under emulation its counter is this computer's own. Measuring here,
//! where there is a calibrated clock, spares the kernel a calibration at every boot.

use std::time::{Duration, Instant};

/// Long enough that reading both clocks at slightly different moments costs less than 20 parts in a million.
const MEASURE: Duration = Duration::from_millis(10);

/// Ticks a second, measured against the monotonic clock.
pub fn hz() -> u64 {
    let (clock, ticks) = (Instant::now(), read());
    std::thread::sleep(MEASURE);
    let (elapsed, ticks) = (clock.elapsed(), read().wrapping_sub(ticks));
    (u128::from(ticks) * 1_000_000_000 / elapsed.as_nanos().max(1)) as u64
}

#[allow(unsafe_code)]
fn read() -> u64 {
    // SAFETY: `rdtsc` reads a counter and touches no memory. It could only trap if the system had forbidden it to programs
    // (prctl PR_SET_TSC), which nothing here does.
    unsafe { core::arch::x86_64::_rdtsc() }
}
