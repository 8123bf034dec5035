//! Fair shares: how much time a thread has had, weighed.
//!
//! A thread's *virtual time* is the time it ran, divided by its weight: twice the weight, half as fast. Whoever has the least
//! runs next, so in the long run each gets time in proportion to its weight. A nice level is worth a factor of 1.25: two busy threads
//! one level apart share a CPU 55 to 45 (`nice(2)`, `sched(7)`).
//!
//! Each CPU has a virtual clock of its own (that of the thread it took last, never back). A thread that slept begins at the
//! clock less [`CREDIT`], so that it is served soon and cannot save up; one that comes from another CPU keeps its distance to the clock.
//!
//! Real-time threads (`SCHED_FIFO`, `SCHED_RR`) are on the same queues: their virtual time lies below everybody's, in a band for each
//! priority, and stands still (so they run until they wait) or creeps (so those of one priority take turns). One that runs for
//! long while others wait stands back for a moment, about once a second: the kernel's own threads are among those others.
#![forbid(unsafe_code)]

/// How long a thread runs while another waits, in nanoseconds: short enough for a human, and long against the switch.
pub const SLICE: u64 = 4_000_000;
/// How far behind a thread must be that wakes to run before the slice is over, and the least that a slice is cut to.
pub const WAKE: u64 = 1_000_000;
/// How far behind the clock a thread that slept may begin.
pub const CREDIT: u64 = SLICE;
/// Where virtual clocks begin: far enough from 0 for any distance.
pub const BEGIN: u64 = 1 << 50;

/// Virtual times of real-time threads lie below.
pub const REAL_TIME: u64 = 1 << 49;
/// What a priority has of them: at the rate of `SCHED_RR`, days.
const BAND: u64 = 1 << 36;
/// Slices that a real-time thread has while others wait, before it stands back.
pub const PATIENCE: u32 = 240;

/// Where the virtual time of a real-time thread begins; 99 is the most urgent priority.
pub fn band(priority: u32) -> u64 {
    REAL_TIME - u64::from(priority) * BAND
}
/// The rate at which it passes.
pub fn rate_in_band(turns: bool) -> u64 {
    if turns { RATE >> 12 } else { 0 }
}

/// Nice 0.
const UNIT: u64 = 1024;
/// `SCHED_IDLE`: less than the nicest.
const IDLE: u64 = 3;
const MOST: i32 = -20;
const LEVELS: usize = 40;

/// Virtual nanoseconds for each one that passes, times 2^32, for each nice level from -20 on.
const RATES: [u64; LEVELS] = {
    let mut rates = [0; LEVELS];
    let mut level = 0;
    while level < LEVELS {
        // Nice -20 weighs 1.25^20 times as much as nice 0; each level down is four fifths of that before.
        let mut weight = UNIT << 20;
        let mut nice = MOST + level as i32;
        while nice < 0 {
            weight = weight / 4 * 5;
            nice += 1;
        }
        while nice > 0 {
            weight = weight / 5 * 4;
            nice -= 1;
        }
        rates[level] = (((UNIT as u128) << 52) / weight as u128) as u64;
        level += 1;
    }
    rates
};

/// The rate of nice 0.
pub const RATE: u64 = 1 << 32;

/// The rate at which a thread's virtual time passes; `idle`: under `SCHED_IDLE`.
pub fn rate(nice: i32, idle: bool) -> u64 {
    if idle {
        return RATE * UNIT / IDLE;
    }
    RATES[(nice - MOST).clamp(0, LEVELS as i32 - 1) as usize]
}

/// How much virtual time passes in `ns`.
#[inline(always)]
pub fn virtual_time(ns: u64, rate: u64) -> u64 {
    ((ns as u128 * rate as u128) >> 32) as u64
}
