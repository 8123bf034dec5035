//! Clocks, and sleeping by them.
//!
//! | clock | here |
//! |---|---|
//! | `REALTIME`, `_COARSE`; `TAI` | monotonic plus what it was at reset, by the clock as it is set (no leap seconds are known, so TAI is the same) |
//! | `MONOTONIC`, `_RAW`, `_COARSE`; `BOOTTIME` | nanoseconds since the machine's reset |
//! | `PROCESS_CPUTIME_ID`, `THREAD_CPUTIME_ID`, and those of other processes and threads | time their threads have run |
//!
//! The `_ALARM` clocks wake a machine by its real-time clock, of which there is none: EINVAL, as on such a Linux.
//!
//! A sleep is a wait for nothing with a deadline. An interrupted relative sleep tells what is left and, if no handler runs, goes on
//! to its *old* deadline, so that many small interruptions do not add up to a long sleep.
#![forbid(unsafe_code)]

use super::{Calls, words};
use crate::clock;
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::process::run::Caller;
use crate::process::timer::{self, Source};
use crate::process::{settime, table};
use crate::sched::timer::Deadline;
use crate::sched::{WaitQueue, WaitResult};
use alloc::boxed::Box;
use alloc::sync::Arc;
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[
    (abi::__NR_clock_gettime, clock_gettime),
    (abi::__NR_clock_getres, clock_getres),
    (abi::__NR_clock_settime, clock_settime),
    (abi::__NR_clock_nanosleep, clock_nanosleep),
    (abi::__NR_nanosleep, nanosleep),
    (abi::__NR_gettimeofday, gettimeofday),
    (abi::__NR_settimeofday, settimeofday),
    (abi::__NR_time, time),
];

/// What a clock number names.
pub(super) enum Clock {
    Realtime,
    Monotonic,
    Cpu(Source),
}

/// The clock of this number as the caller sees it; EINVAL if there is none.
pub(super) fn clock_of(caller: &Caller, id: i32) -> Result<Clock> {
    let task = &caller.task;
    match id as u32 {
        abi::CLOCK_REALTIME | abi::CLOCK_REALTIME_COARSE | abi::CLOCK_TAI => Ok(Clock::Realtime),
        abi::CLOCK_MONOTONIC
        | abi::CLOCK_MONOTONIC_RAW
        | abi::CLOCK_MONOTONIC_COARSE
        | abi::CLOCK_BOOTTIME => Ok(Clock::Monotonic),
        abi::CLOCK_PROCESS_CPUTIME_ID => Ok(Clock::Cpu(Source::Process(Arc::downgrade(&task.process)))),
        abi::CLOCK_THREAD_CPUTIME_ID => Ok(Clock::Cpu(Source::Task(Arc::downgrade(task)))),
        _ if id < 0 => cpu_clock(caller, id).map(Clock::Cpu),
        _ => Err(Errno::EINVAL),
    }
}

/// Negative numbers are made of a process or thread: `!pid << 3 | thread << 2 | kind` (`clock_getcpuclockid(3)`), where kind 3 is
/// a device's clock, of which there are none.
fn cpu_clock(caller: &Caller, id: i32) -> Result<Source> {
    let (pid, thread, kind) = (!(id >> 3), id & 4 != 0, id & 3);
    if kind == 3 {
        return Err(Errno::EINVAL);
    }
    if thread {
        let task = if pid == 0 { Some(caller.task.clone()) } else { table::task(pid) };
        let task = task.filter(|task| task.process.pid == caller.task.process.pid).ok_or(Errno::EINVAL)?;
        return Ok(Source::Task(Arc::downgrade(&task)));
    }
    let process = if pid == 0 { Some(caller.task.process.clone()) } else { table::process(pid) };
    Ok(Source::Process(Arc::downgrade(&process.ok_or(Errno::EINVAL)?)))
}

impl Clock {
    pub(super) fn now(&self) -> Result<u64> {
        match self {
            Clock::Realtime => Ok(clock::realtime()),
            Clock::Monotonic => Ok(clock::monotonic()),
            Clock::Cpu(source) => source.shows().ok_or(Errno::EINVAL),
        }
    }
}

fn clock_gettime(caller: &mut Caller) -> Result<u64> {
    let [id, to, ..] = caller.args();
    // The two that programs ask for all the time need no look at the task.
    let now = match id as u32 {
        abi::CLOCK_MONOTONIC => clock::monotonic(),
        abi::CLOCK_REALTIME => clock::realtime(),
        _ => clock_of(caller, id as i32)?.now()?,
    };
    words::put(to, words::timespec(now))?;
    Ok(0)
}

fn clock_getres(caller: &mut Caller) -> Result<u64> {
    let [id, to, ..] = caller.args();
    clock_of(caller, id as i32)?;
    let resolution = match id as u32 {
        // Linux says one tick of its timer; programs take the coarse clocks for the coarsest thing to expect.
        abi::CLOCK_REALTIME_COARSE | abi::CLOCK_MONOTONIC_COARSE => 4_000_000,
        _ => 1,
    };
    if to != 0 {
        words::put(to, words::timespec(resolution))?;
    }
    Ok(0)
}

fn clock_settime(caller: &mut Caller) -> Result<u64> {
    let [id, from, ..] = caller.args();
    let clock = clock_of(caller, id as i32)?;
    match clock {
        Clock::Realtime if id as u32 == abi::CLOCK_REALTIME => {
            let time = may_set(caller, words::nanoseconds(words::get(from)?)?)?;
            settime::set(time)?;
            Ok(0)
        }
        // Of a process or thread by its number.
        Clock::Cpu(_) if (id as i32) < 0 => {
            words::get::<2>(from)?;
            Err(Errno::EPERM)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// EINVAL for a time that the clock cannot show, EPERM for one who may not set it.
fn may_set(caller: &Caller, time: u64) -> Result<u64> {
    if !settime::is_valid(time) {
        return Err(Errno::EINVAL);
    }
    if !caller.task.cred().may(cap::SYS_TIME) {
        return Err(Errno::EPERM);
    }
    Ok(time)
}

fn gettimeofday(caller: &mut Caller) -> Result<u64> {
    let [to, zone, ..] = caller.args();
    if to != 0 {
        words::put(to, words::timeval(clock::realtime()))?;
    }
    if zone != 0 {
        words::put(zone, [settime::zone()])?;
    }
    Ok(0)
}

fn settimeofday(caller: &mut Caller) -> Result<u64> {
    let [from, zone, ..] = caller.args();
    let time = if from == 0 { None } else { Some(words::from_timeval(words::get(from)?)?) };
    let zone = if zone == 0 { None } else { Some(words::get::<1>(zone)?[0]) };
    may_set(caller, time.unwrap_or(0))?;
    if let Some(zone) = zone {
        let west = zone as i32;
        if west.unsigned_abs() > 15 * 60 {
            return Err(Errno::EINVAL);
        }
        settime::set_zone(zone)?;
    }
    if let Some(time) = time {
        settime::set(time)?;
    }
    Ok(0)
}

fn time(caller: &mut Caller) -> Result<u64> {
    let [to, ..] = caller.args();
    let now = clock::realtime() / clock::SECOND;
    if to != 0 {
        words::put(to, [now])?;
    }
    Ok(now)
}

fn nanosleep(caller: &mut Caller) -> Result<u64> {
    let [from, left, ..] = caller.args();
    let ns = words::nanoseconds(words::get(from)?)?;
    sleep(caller, clock::monotonic().saturating_add(ns), left)
}

fn clock_nanosleep(caller: &mut Caller) -> Result<u64> {
    let [id, flags, from, left, ..] = caller.args();
    let id = id as i32;
    let clock = match id as u32 {
        abi::CLOCK_REALTIME_COARSE | abi::CLOCK_MONOTONIC_COARSE | abi::CLOCK_MONOTONIC_RAW => {
            return Err(Errno::EOPNOTSUPP);
        }
        // No clock here wakes a machine; who asks is told so last.
        abi::CLOCK_REALTIME_ALARM | abi::CLOCK_BOOTTIME_ALARM => {
            words::nanoseconds(words::get(from)?)?;
            return Err(Errno::EOPNOTSUPP);
        }
        // The C library says EINVAL without asking.
        abi::CLOCK_THREAD_CPUTIME_ID => return Err(Errno::EOPNOTSUPP),
        _ => clock_of(caller, id)?,
    };
    let ns = words::nanoseconds(words::get(from)?)?;
    let absolute = flags as u32 & abi::TIMER_ABSTIME != 0;
    match clock {
        Clock::Cpu(source) => sleep_by_cpu(source, ns, absolute),
        _ if !absolute => sleep(caller, clock::monotonic().saturating_add(ns), left),
        Clock::Monotonic => sleep_until(Deadline::Monotonic(ns)),
        Clock::Realtime => sleep_until(Deadline::Realtime(ns)),
    }
}

/// Sleep; what is left goes to `left`, unless that is 0.
fn sleep(caller: &mut Caller, deadline: u64, left: u64) -> Result<u64> {
    if nap(Deadline::Monotonic(deadline)) {
        return Ok(0);
    }
    if left != 0 {
        words::put(left, words::timespec(deadline.saturating_sub(clock::monotonic())))?;
    }
    caller.resume = Some(Box::new(move |caller| sleep(caller, deadline, left)));
    Err(Errno::RESTART_BLOCK)
}

fn sleep_until(deadline: Deadline) -> Result<u64> {
    if nap(deadline) { Ok(0) } else { Err(Errno::RESTART_NOHAND) }
}

/// Sleep until the deadline; false for a signal.
fn nap(deadline: Deadline) -> bool {
    WaitQueue::new().wait_till(|| false, Some(deadline), true) != WaitResult::Interrupted
}

/// Sleep until others have used so much CPU time.
fn sleep_by_cpu(source: Source, ns: u64, absolute: bool) -> Result<u64> {
    let queue = Arc::new((WaitQueue::new(), core::sync::atomic::AtomicBool::new(false)));
    let ring = queue.clone();
    let now = source.shows().ok_or(Errno::EINVAL)?;
    let timer = timer::Timer::new(
        source,
        Box::new(move |_| {
            ring.1.store(true, core::sync::atomic::Ordering::Release);
            ring.0.wake_all();
            true
        }),
    );
    let deadline = if absolute { ns } else { now.saturating_add(ns) };
    timer.set(timer::Setting { deadline: Some(deadline), ..Default::default() })?;
    match queue.0.wait_until(|| queue.1.load(core::sync::atomic::Ordering::Acquire), None, true) {
        WaitResult::Interrupted => Err(if absolute { Errno::RESTART_NOHAND } else { Errno::EINTR }),
        _ => Ok(0),
    }
}
