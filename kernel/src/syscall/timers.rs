//! Timers that signal: `alarm`, `setitimer`, and the `timer_create` family; and timers that are files.
#![forbid(unsafe_code)]

use super::time::{Clock, clock_of};
use super::{Calls, words};
use crate::arch::user;
use crate::clock::SECOND;
use crate::errno::{Errno, Result};
use crate::fs::anon;
use crate::fs::caps::cap;
use crate::fs::file::File;
use crate::process::run::Caller;
use crate::process::signal::LAST;
use crate::process::table;
use crate::process::timer::{Setting, Source, Timer};
use crate::process::timerfd::TimerFile;
use crate::process::timers::{Notify, Shown, Timers};
use alloc::sync::Arc;
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[
    (abi::__NR_alarm, alarm),
    (abi::__NR_getitimer, getitimer),
    (abi::__NR_setitimer, setitimer),
    (abi::__NR_timer_create, timer_create),
    (abi::__NR_timer_settime, timer_settime),
    (abi::__NR_timer_gettime, timer_gettime),
    (abi::__NR_timer_getoverrun, timer_getoverrun),
    (abi::__NR_timer_delete, timer_delete),
    (abi::__NR_timerfd_create, timerfd_create),
    (abi::__NR_timerfd_settime, timerfd_settime),
    (abi::__NR_timerfd_gettime, timerfd_gettime),
];

/// What is left until the next expiry, and the interval. A timer that is set never says that nothing is left.
fn left(timer: &Timer) -> (u64, u64) {
    let (left, interval) = timer.left();
    (left.map_or(0, |left| left.max(1)), interval)
}

/// As [`left`], in whole microseconds, rounded up for the same reason.
fn left_of_interval(caller: &Caller, which: u32) -> (u64, u64) {
    let timer = caller.task.process.timers.interval(which);
    let (ns, interval) = timer.map_or((0, 0), |timer| left(&timer));
    (ns.next_multiple_of(1000), interval)
}

fn alarm(caller: &mut Caller) -> Result<u64> {
    let [seconds, ..] = caller.args();
    let (left, _) = left_of_interval(caller, abi::ITIMER_REAL);
    set_interval(caller, abi::ITIMER_REAL, u64::from(seconds as u32) * SECOND, 0)?;
    // Rounded, but not to 0 while something is left.
    Ok(if left == 0 { 0 } else { ((left + SECOND / 2) / SECOND).max(1) })
}

fn set_interval(caller: &Caller, which: u32, value: u64, interval: u64) -> Result<()> {
    let process = &caller.task.process;
    let deadline = (value != 0).then(|| Timers::interval_now(process, which).saturating_add(value));
    process.timers.set_interval(process, which, Setting { deadline, interval, real: false })
}

fn getitimer(caller: &mut Caller) -> Result<u64> {
    let [which, to, ..] = caller.args();
    if which as u32 > abi::ITIMER_PROF {
        return Err(Errno::EINVAL);
    }
    put_interval(to, left_of_interval(caller, which as u32))?;
    Ok(0)
}

fn put_interval(to: u64, (left, interval): (u64, u64)) -> Result<()> {
    let ([a, b], [c, d]) = (words::timeval(interval), words::timeval(left));
    words::put(to, [a, b, c, d])
}

fn setitimer(caller: &mut Caller) -> Result<u64> {
    let [which, from, to, ..] = caller.args();
    let which = which as u32;
    let (value, interval) = if from == 0 {
        (0, 0)
    } else {
        let [a, b, c, d] = words::get(from)?;
        (words::from_timeval([c, d])?, words::from_timeval([a, b])?)
    };
    if which > abi::ITIMER_PROF {
        return Err(Errno::EINVAL);
    }
    let old = left_of_interval(caller, which);
    // Of what is stopped, only the timers of CPU time keep the interval.
    let interval = if value == 0 && which == abi::ITIMER_REAL { 0 } else { interval };
    set_interval(caller, which, value, interval)?;
    if to != 0 {
        put_interval(to, old)?;
    }
    Ok(0)
}

/// `struct sigevent`, as far as the kernel reads it: value, signal number, how to notify, thread.
pub(super) fn read_event(at: u64) -> Result<(u64, u32, u32, i32)> {
    let mut raw = [0; 20];
    user::copy_from(&mut raw, at)?;
    let int = |at: usize| u32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
    Ok((u64::from(int(0)) | u64::from(int(4)) << 32, int(8), int(12), int(16) as i32))
}

fn timer_create(caller: &mut Caller) -> Result<u64> {
    let [clock, event, to, ..] = caller.args();
    let clock = clock as i32;
    let event = match event {
        0 => None,
        at => Some(read_event(at)?),
    };
    let source = match clock as u32 {
        abi::CLOCK_REALTIME_COARSE | abi::CLOCK_MONOTONIC_COARSE | abi::CLOCK_MONOTONIC_RAW => {
            return Err(Errno::EOPNOTSUPP);
        }
        // These wake a suspended machine: for the administrator, on machines that suspend.
        abi::CLOCK_REALTIME_ALARM | abi::CLOCK_BOOTTIME_ALARM => return Err(Errno::EOPNOTSUPP),
        _ => match clock_of(caller, clock)? {
            Clock::Realtime | Clock::Monotonic => Source::Monotonic,
            Clock::Cpu(source) => source,
        },
    };
    let (shown, notify) = match event {
        None => (None, Notify::Process { signo: abi::SIGALRM }),
        Some((value, signo, how, tid)) => {
            let thread = (how == SIGNAL_TO_THREAD).then_some(tid);
            (Some(Shown { signo, value, how, thread }), notify(caller, signo, how, tid)?)
        }
    };
    let process = &caller.task.process;
    let number = process.timers.create(process, (clock, source), notify, shown)?;
    if let Err(bad) = user::write_u32(to, number as u32) {
        process.timers.delete(number)?;
        return Err(bad.into());
    }
    Ok(0)
}

fn notify(caller: &Caller, signo: u32, how: u32, tid: i32) -> Result<Notify> {
    let good = (1..=LAST).contains(&signo);
    match how {
        abi::SIGEV_NONE => Ok(Notify::Nobody),
        abi::SIGEV_SIGNAL if good => Ok(Notify::Process { signo }),
        // SIGEV_THREAD is the C library's: for the kernel it is a signal.
        abi::SIGEV_THREAD if good => Ok(Notify::Process { signo }),
        SIGNAL_TO_THREAD if good => {
            let task = table::task(tid).filter(|task| task.process.pid == caller.task.process.pid);
            Ok(Notify::Task { signo, task: Arc::downgrade(&task.ok_or(Errno::EINVAL)?) })
        }
        _ => Err(Errno::EINVAL),
    }
}

const SIGNAL_TO_THREAD: u32 = abi::SIGEV_SIGNAL | abi::SIGEV_THREAD_ID;

fn timer_settime(caller: &mut Caller) -> Result<u64> {
    let [number, flags, from, to, ..] = caller.args();
    if from == 0 {
        return Err(Errno::EINVAL);
    }
    let [a, b, c, d] = words::get(from)?;
    let (value, interval) = (words::nanoseconds([c, d])?, words::nanoseconds([a, b])?);
    let posix = caller.task.process.timers.posix(number as i32)?;
    let old = left(&posix.timer);
    let absolute = flags as u32 & abi::TIMER_ABSTIME != 0;
    // So long from now is so long, whatever the clock is set to; a moment is one of the clock.
    let real = absolute && matches!(clock_of(caller, posix.clock), Ok(Clock::Realtime));
    let deadline = match value {
        0 => None,
        _ if absolute => Some(value),
        _ => Some(posix.timer.now().saturating_add(value)),
    };
    posix.timer.set(Setting { deadline, interval, real })?;
    if to != 0 {
        put_timer(to, old)?;
    }
    Ok(0)
}

fn put_timer(to: u64, (left, interval): (u64, u64)) -> Result<()> {
    let ([a, b], [c, d]) = (words::timespec(interval), words::timespec(left));
    words::put(to, [a, b, c, d])
}

fn timer_gettime(caller: &mut Caller) -> Result<u64> {
    let [number, to, ..] = caller.args();
    let posix = caller.task.process.timers.posix(number as i32)?;
    put_timer(to, left(&posix.timer))?;
    Ok(0)
}

fn timer_getoverrun(caller: &mut Caller) -> Result<u64> {
    let [number, ..] = caller.args();
    Ok(caller.task.process.timers.posix(number as i32)?.overrun().into())
}

fn timer_delete(caller: &mut Caller) -> Result<u64> {
    let [number, ..] = caller.args();
    caller.task.process.timers.delete(number as i32)?;
    Ok(0)
}

fn timerfd_create(caller: &mut Caller) -> Result<u64> {
    let [clock, flags, ..] = caller.args();
    let flags = flags as u32;
    if flags & !abi::TFD_CREATE_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let realtime = match clock as u32 {
        abi::CLOCK_REALTIME => true,
        abi::CLOCK_MONOTONIC | abi::CLOCK_BOOTTIME => false,
        // These wake a suspended machine: for who may. This one is never suspended.
        abi::CLOCK_REALTIME_ALARM | abi::CLOCK_BOOTTIME_ALARM => {
            if !caller.task.cred().may(cap::WAKE_ALARM) {
                return Err(Errno::EPERM);
            }
            clock as u32 == abi::CLOCK_REALTIME_ALARM
        }
        _ => return Err(Errno::EINVAL),
    };
    let status = flags & abi::TFD_NONBLOCK | abi::O_RDWR;
    let file = anon::open(Arc::new(TimerFile::new(realtime)), "timerfd", status)?;
    let limit = caller.task.process.limits.soft(abi::RLIMIT_NOFILE);
    let fd = caller.task.files().insert(file, flags & abi::TFD_CLOEXEC != 0, 0, limit)?;
    Ok(fd.into())
}

/// The open file `fd`; EBADF if there is none.
fn timer_file(caller: &Caller, fd: u64) -> Result<Arc<File>> {
    caller.task.files().get(fd as u32)
}

fn timerfd_settime(caller: &mut Caller) -> Result<u64> {
    let [fd, flags, from, to, ..] = caller.args();
    let [a, b, c, d] = words::get(from)?;
    if flags as u32 & !(abi::TFD_TIMER_ABSTIME | abi::TFD_TIMER_CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL);
    }
    let (value, interval) = (words::nanoseconds([c, d])?, words::nanoseconds([a, b])?);
    let file = timer_file(caller, fd)?;
    let timer = file.ops_as::<TimerFile>().ok_or(Errno::EINVAL)?;
    let old = left(timer.timer());
    let told = timer.set(
        value,
        interval,
        flags as u32 & abi::TFD_TIMER_ABSTIME != 0,
        flags as u32 & abi::TFD_TIMER_CANCEL_ON_SET != 0,
    );
    told?;
    if to != 0 {
        put_timer(to, old)?;
    }
    Ok(0)
}

fn timerfd_gettime(caller: &mut Caller) -> Result<u64> {
    let [fd, to, ..] = caller.args();
    let file = timer_file(caller, fd)?;
    let timer = file.ops_as::<TimerFile>().ok_or(Errno::EINVAL)?;
    put_timer(to, left(timer.timer()))?;
    Ok(0)
}
