//! `adjtimex(2)`: telling how well the clock is kept, and stepping it.
//!
//! What can be set is what the kernel only keeps for those who ask (the errors, the state of synchronisation, the leap seconds of
//! atomic time), and the time itself, by so much (`ADJ_SETOFFSET`). The clock's *speed* is the host's: a frequency, a
//! tick or a slow adjustment other than none is EINVAL.
#![forbid(unsafe_code)]

use super::{Calls, words};
use crate::arch::user;
use crate::clock::{self, SECOND};
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::process::run::Caller;
use crate::process::settime;
use hafez_mm::lock::Mutex;
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[(abi::__NR_adjtimex, adjtimex), (abi::__NR_clock_adjtime, clock_adjtime)];

/// Bytes of `struct timex`, and the offsets of its fields.
const TIMEX: usize = 208;
mod at {
    pub const OFFSET: usize = 8;
    pub const FREQUENCY: usize = 16;
    pub const MAX_ERROR: usize = 24;
    pub const ESTIMATE: usize = 32;
    pub const STATUS: usize = 40;
    pub const CONSTANT: usize = 48;
    pub const PRECISION: usize = 56;
    pub const TOLERANCE: usize = 64;
    pub const SECONDS: usize = 72;
    pub const FRACTION: usize = 80;
    pub const TICK: usize = 88;
    pub const TAI: usize = 160;
}

/// What to set (`ADJ_*`).
mod adj {
    pub const OFFSET: u32 = 1;
    pub const FREQUENCY: u32 = 2;
    pub const MAX_ERROR: u32 = 4;
    pub const ESTIMATE: u32 = 8;
    pub const STATUS: u32 = 0x10;
    pub const TIME_CONSTANT: u32 = 0x20;
    pub const TAI: u32 = 0x80;
    pub const SET_OFFSET: u32 = 0x100;
    pub const MICRO: u32 = 0x1000;
    pub const NANO: u32 = 0x2000;
    pub const TICK: u32 = 0x4000;
    /// As `adjtime(3)` asks; with `NANO`'s bit it only reads.
    pub const ADJTIME: u32 = 0x8000;
}

const UNSYNCHRONISED: u32 = 0x40;
const IN_NANOSECONDS: u32 = 0x2000;
/// Bits of the status that a program may set and that ask nothing of the clock.
const KEPT: u32 = UNSYNCHRONISED | 0x80;
/// What the call returns: all is well, or nobody keeps the clock.
const GOOD: u64 = 0;
const BAD: u64 = 5;
/// Microseconds of a hundredth of a second, and how far a program may want them off.
const TICK: i64 = 10_000;
const TICK_RANGE: core::ops::RangeInclusive<i64> = 9_000..=11_000;
/// The worst error that is told, in microseconds.
const WORST: i64 = 16_000_000;

struct Kept {
    status: u32,
    max_error: i64,
    estimate: i64,
    constant: i64,
    tai: i32,
}

static KEPT_HERE: Mutex<Kept> =
    Mutex::new(Kept { status: UNSYNCHRONISED, max_error: WORST, estimate: WORST, constant: 2, tai: 0 });

fn adjtimex(caller: &mut Caller) -> Result<u64> {
    let [at, ..] = caller.args();
    tune(caller, at)
}

fn clock_adjtime(caller: &mut Caller) -> Result<u64> {
    let [clock, at, ..] = caller.args();
    match clock as i32 as u32 {
        abi::CLOCK_REALTIME => tune(caller, at),
        _ => {
            user::copy_from(&mut [0; TIMEX], at)?;
            super::time::clock_of(caller, clock as i32).and(Err(Errno::EOPNOTSUPP))
        }
    }
}

fn tune(caller: &Caller, to: u64) -> Result<u64> {
    let mut timex = words::Layout::<TIMEX>::new();
    user::copy_from(&mut timex.0, to)?;
    let modes = int(&timex, 0) as u32;
    check(caller, modes, &timex)?;
    let single = modes & adj::ADJTIME != 0;
    if modes & adj::SET_OFFSET != 0 {
        step(&timex, modes & adj::NANO != 0)?;
    }
    let mut kept = KEPT_HERE.lock();
    if !single {
        kept.set(modes, &timex);
    }
    kept.tell(&mut timex);
    let state = if kept.status & UNSYNCHRONISED != 0 { BAD } else { GOOD };
    drop(kept);
    timex.put(to)?;
    Ok(state)
}

fn long(timex: &words::Layout<TIMEX>, at: usize) -> i64 {
    timex.0[at..].first_chunk().map_or(0, |bytes| i64::from_ne_bytes(*bytes))
}

fn int(timex: &words::Layout<TIMEX>, at: usize) -> i32 {
    timex.0[at..].first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes))
}

/// Whether the caller may ask this, whether it makes sense, and whether it can be done here.
fn check(caller: &Caller, modes: u32, timex: &words::Layout<TIMEX>) -> Result<()> {
    let may = caller.task.cred().may(cap::SYS_TIME);
    let single = modes & adj::ADJTIME != 0;
    if single && modes & adj::OFFSET == 0 {
        return Err(Errno::EINVAL);
    }
    let reads = modes == 0 || single && modes & adj::NANO != 0;
    if !reads && !may {
        return Err(Errno::EPERM);
    }
    if single {
        let still = reads || long(timex, at::OFFSET) == 0;
        return if still { Ok(()) } else { Err(Errno::EINVAL) };
    }
    let tick = long(timex, at::TICK);
    if modes & adj::TICK != 0 && (!TICK_RANGE.contains(&tick) || tick != TICK) {
        return Err(Errno::EINVAL);
    }
    let most = if modes & adj::NANO != 0 { SECOND } else { SECOND / 1000 };
    if modes & adj::SET_OFFSET != 0 && long(timex, at::FRACTION) as u64 >= most {
        return Err(Errno::EINVAL);
    }
    if modes & adj::FREQUENCY != 0 && long(timex, at::FREQUENCY) != 0 {
        return Err(Errno::EINVAL);
    }
    // Without a loop that follows it (`STA_PLL`), an offset is ignored; the loop is what is not there.
    if modes & adj::STATUS != 0 && int(timex, at::STATUS) as u32 & !(KEPT | READ_ONLY) != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// Bits of the status that are told only; setting them is ignored.
const READ_ONLY: u32 = 0xff00;

/// Set the clock forward, or back if the seconds are negative.
fn step(timex: &words::Layout<TIMEX>, nano: bool) -> Result<()> {
    let fraction = i128::from(long(timex, at::FRACTION)) * if nano { 1 } else { 1000 };
    let by = i128::from(long(timex, at::SECONDS)) * i128::from(SECOND) + fraction;
    let then = u64::try_from(i128::from(clock::realtime()) + by).map_err(|_| Errno::EINVAL)?;
    if !settime::is_valid(then) {
        return Err(Errno::EINVAL);
    }
    settime::set(then)
}

impl Kept {
    fn set(&mut self, modes: u32, timex: &words::Layout<TIMEX>) {
        if modes & adj::STATUS != 0 {
            self.status = self.status & !KEPT | int(timex, at::STATUS) as u32 & KEPT;
        }
        if modes & adj::NANO != 0 {
            self.status |= IN_NANOSECONDS;
        }
        if modes & adj::MICRO != 0 {
            self.status &= !IN_NANOSECONDS;
        }
        if modes & adj::MAX_ERROR != 0 {
            self.max_error = long(timex, at::MAX_ERROR).clamp(0, WORST);
        }
        if modes & adj::ESTIMATE != 0 {
            self.estimate = long(timex, at::ESTIMATE).clamp(0, WORST);
        }
        if modes & adj::TIME_CONSTANT != 0 {
            // In microseconds' mode four more are added; ten is the most.
            let more = if self.status & IN_NANOSECONDS != 0 { 0 } else { 4 };
            self.constant = long(timex, at::CONSTANT).clamp(0, 10).saturating_add(more).min(10);
        }
        if modes & adj::TAI != 0 && (0..=100_000).contains(&long(timex, at::CONSTANT)) {
            self.tai = long(timex, at::CONSTANT) as i32;
        }
    }

    fn tell(&self, timex: &mut words::Layout<TIMEX>) {
        let now = clock::realtime();
        let fraction = now % SECOND / if self.status & IN_NANOSECONDS != 0 { 1 } else { 1000 };
        let modes = timex.0[..8].first_chunk::<8>().copied().unwrap_or_default();
        *timex = words::Layout::new();
        timex.set(0, &modes);
        timex
            .set(at::MAX_ERROR, &self.max_error.to_ne_bytes())
            .set(at::ESTIMATE, &self.estimate.to_ne_bytes());
        timex.set(at::STATUS, &self.status.to_ne_bytes()).set(at::CONSTANT, &self.constant.to_ne_bytes());
        timex.set(at::PRECISION, &1i64.to_ne_bytes()).set(at::TOLERANCE, &32_768_000i64.to_ne_bytes());
        timex.set(at::SECONDS, &(now / SECOND).to_ne_bytes()).set(at::FRACTION, &fraction.to_ne_bytes());
        timex.set(at::TICK, &TICK.to_ne_bytes()).set(at::TAI, &self.tai.to_ne_bytes());
    }
}
