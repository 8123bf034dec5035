//! Fair shares: how much time a thread has had, weighed.
//!
//! A thread's *virtual time* is the time it ran, divided by its weight: twice the weight, half as fast. Whoever has the least
//! runs next, so in the long run each gets time in proportion to its weight. A nice level is worth a factor of 1.25: two busy threads
//! one level apart share a CPU 55 to 45 (`nice(2)`, `sched(7)`).
//!
//! Each CPU has a virtual clock of its own (that of the thread it took last, never back). A thread that slept begins at the
//! clock less [`CREDIT`], so that it is served soon and cannot save up; one that comes from another CPU keeps its distance to the clock.
#![forbid(unsafe_code)]

/// How long a thread runs while another waits, in nanoseconds: short enough for a human, and long against the switch.
pub const SLICE: u64 = 4_000_000;
/// How far behind a thread must be that wakes to run before the slice is over, and the least that a slice is cut to.
pub const WAKE: u64 = 1_000_000;
/// How far behind the clock a thread that slept may begin.
pub const CREDIT: u64 = SLICE;
/// Where virtual clocks begin: far enough from 0 for any distance.
pub const BEGIN: u64 = 1 << 50;

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
