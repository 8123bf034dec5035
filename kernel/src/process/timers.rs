//! The timers of a process: the three interval timers (`setitimer(2)`), those made by `timer_create(2)`, and the watch over
//! `RLIMIT_CPU`.
//!
//! A fork's child starts with none. `execve` keeps the interval timers and deletes the others.
//!
//! A POSIX timer has at most one signal waiting. An expiry that finds the last one's still undelivered adds to that
//! one's overrun count instead, in the queue itself, so whoever takes the signal sees all that came before it was taken.
//!
//! `ITIMER_PROF` goes by all time of the process, `ITIMER_VIRTUAL` by what of it was not the kernel's.
#![forbid(unsafe_code)]

use super::process::Process;
use super::signal::{self, SigInfo};
use super::task::Task;
use super::timer::{Setting, Source, Timer, process_time, user_time};
use crate::clock::SECOND;
use crate::errno::{Errno, Result};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use hafez_mm::lock::Mutex;
use linux_raw_sys::general as abi;

/// The timers of one process.
pub struct Timers {
    /// By `ITIMER_*`; made when first set.
    interval: [Mutex<Option<Arc<Timer>>>; 3],
    posix: Mutex<Posix>,
    cpu_limit: Mutex<Option<Arc<Timer>>>,
}

struct Posix {
    timers: BTreeMap<i32, Arc<PosixTimer>>,
    next: i32,
}

/// A timer that `timer_create` made.
pub struct PosixTimer {
    /// Runs the clock, and holds the action.
    pub timer: Arc<Timer>,
    /// Its clock, as the program named it.
    pub clock: i32,
    /// Expirations beyond the first, of the last signal that was queued.
    overrun: Arc<AtomicU32>,
    /// As it was asked for, to be shown: the signal, what comes with it, how it is told, and which thread, if it is one.
    pub shown: Shown,
}

/// What a program asked for with a POSIX timer.
#[derive(Clone, Copy)]
pub struct Shown {
    pub signo: u32,
    pub value: u64,
    /// `SIGEV_*`.
    pub how: u32,
    pub thread: Option<i32>,
}

/// Whom a POSIX timer tells (`sigevent(3type)`).
pub enum Notify {
    Nobody,
    Process { signo: u32 },
    Task { signo: u32, task: Weak<Task> },
}

/// As many as RLIMIT_SIGPENDING allows elsewhere.
const MOST: usize = 32768;

impl Timers {
    /// None set.
    pub const fn new() -> Timers {
        Timers {
            interval: [const { Mutex::new(None) }; 3],
            posix: Mutex::new(Posix { timers: BTreeMap::new(), next: 0 }),
            cpu_limit: Mutex::new(None),
        }
    }

    /// The interval timer `ITIMER_*`, if it was ever set.
    pub fn interval(&self, which: u32) -> Option<Arc<Timer>> {
        self.interval[which as usize].lock().clone()
    }

    /// What the clock of `ITIMER_*` shows.
    pub fn interval_now(process: &Process, which: u32) -> u64 {
        match which {
            abi::ITIMER_REAL => crate::clock::monotonic(),
            abi::ITIMER_VIRTUAL => user_time(process),
            _ => process_time(process),
        }
    }

    /// Set the interval timer `ITIMER_*` of `process`, whose timers these are.
    pub fn set_interval(&self, process: &Arc<Process>, which: u32, setting: Setting) -> Result<()> {
        let timer = {
            let mut slot = self.interval[which as usize].lock();
            slot.get_or_insert_with(|| interval_timer(process, which)).clone()
        };
        timer.set(setting)?;
        Ok(())
    }

    /// Make a POSIX timer, not set yet. Its number.
    pub fn create(
        &self,
        process: &Arc<Process>,
        (clock, source): (i32, Source),
        notify: Notify,
        shown: Option<Shown>,
    ) -> Result<i32> {
        if !crate::mem::headroom(1024) {
            return Err(Errno::EAGAIN);
        }
        let overrun = Arc::new(AtomicU32::new(0));
        let mut posix = self.posix.lock();
        if posix.timers.len() >= MOST {
            return Err(Errno::EAGAIN);
        }
        let number = posix.next;
        posix.next = posix.next.checked_add(1).unwrap_or(0);
        if posix.timers.contains_key(&number) {
            return Err(Errno::EAGAIN);
        }
        let unasked =
            Shown { signo: abi::SIGALRM, value: number as u64, how: abi::SIGEV_SIGNAL, thread: None };
        let shown = shown.unwrap_or(unasked);
        let told = Told { process: Arc::downgrade(process), notify, number, value: shown.value };
        let count = overrun.clone();
        let timer = Timer::new(source, Box::new(move |times| told.tell(times, &count)));
        posix.timers.insert(number, Arc::new(PosixTimer { timer, clock, overrun, shown }));
        Ok(number)
    }

    /// Their signals may have been ignored, and are not any more.
    pub fn listen(&self) {
        for timer in self.interval.iter().filter_map(|slot| slot.lock().clone()) {
            timer.listen();
        }
        let mut last = None;
        loop {
            let posix = self.posix.lock();
            let after = last.map_or(core::ops::Bound::Unbounded, core::ops::Bound::Excluded);
            let Some((number, timer)) = posix.timers.range((after, core::ops::Bound::Unbounded)).next()
            else {
                return;
            };
            let (number, timer) = (*number, timer.clone());
            drop(posix);
            timer.timer.listen();
            last = Some(number);
        }
    }

    /// A signal of one of them has been taken: its own count is brought up to date, and it listens again.
    #[cold]
    pub fn taken(&self, info: &mut SigInfo) {
        if info.code != abi::SI_TIMER {
            let which = match info.signo {
                abi::SIGALRM => abi::ITIMER_REAL,
                abi::SIGVTALRM => abi::ITIMER_VIRTUAL,
                _ => abi::ITIMER_PROF,
            };
            if let Some(timer) = self.interval(which) {
                timer.taken();
            }
            return;
        }
        let Ok(timer) = self.posix(info.timer_number()) else { return };
        let more = timer.timer.taken().min(i32::MAX as u64) as u32;
        if more > 0 {
            timer.overrun.store(info.add_overrun(more), Relaxed);
        }
    }

    /// Bytes, roughly, that they take.
    pub fn holds(&self) -> usize {
        512 * self.posix.lock().timers.len()
    }

    /// The POSIX timer of this number; EINVAL if there is none.
    pub fn posix(&self, number: i32) -> Result<Arc<PosixTimer>> {
        self.posix.lock().timers.get(&number).cloned().ok_or(Errno::EINVAL)
    }

    /// The POSIX timer with the highest number below this one.
    pub fn below(&self, number: Option<i32>) -> Option<(i32, Arc<PosixTimer>)> {
        let posix = self.posix.lock();
        let below = match number {
            Some(number) => posix.timers.range(..number).next_back(),
            None => posix.timers.last_key_value(),
        };
        below.map(|(&number, timer)| (number, timer.clone()))
    }

    /// Delete a POSIX timer. A signal of its that waits already stays.
    pub fn delete(&self, number: i32) -> Result<()> {
        let gone = self.posix.lock().timers.remove(&number);
        gone.map(drop).ok_or(Errno::EINVAL)
    }

    /// Delete all POSIX timers: a new program is executed.
    pub fn delete_posix(&self) {
        let gone = core::mem::take(&mut self.posix.lock().timers);
        drop(gone);
    }

    /// `RLIMIT_CPU` is set, or inherited: from its soft value on SIGXCPU each second, at its hard value SIGKILL.
    pub fn watch_cpu_limit(&self, process: &Arc<Process>) -> Result<()> {
        let soft = process.limits.soft(abi::RLIMIT_CPU);
        let mut slot = self.cpu_limit.lock();
        if soft == super::limits::INFINITY && slot.is_none() {
            return Ok(());
        }
        let timer = slot.get_or_insert_with(|| cpu_limit_timer(process)).clone();
        drop(slot);
        // A limit of 0 is one second, as in Linux.
        let deadline = (soft != super::limits::INFINITY).then(|| soft.max(1).saturating_mul(SECOND));
        timer.set(Setting { deadline, interval: SECOND, ..Setting::default() })?;
        Ok(())
    }
}

fn interval_timer(process: &Arc<Process>, which: u32) -> Arc<Timer> {
    let process = Arc::downgrade(process);
    let (source, signo) = match which {
        abi::ITIMER_REAL => (Source::Monotonic, abi::SIGALRM),
        abi::ITIMER_VIRTUAL => (Source::User(process.clone()), abi::SIGVTALRM),
        _ => (Source::Process(process.clone()), abi::SIGPROF),
    };
    Timer::new(
        source,
        Box::new(move |_| {
            let Some(process) = process.upgrade() else { return false };
            let waits = process.pending_set().has(signo);
            let _ = signal::to_process(&process, SigInfo::kernel(signo));
            !waits && process.pending_set().has(signo)
        }),
    )
}

fn cpu_limit_timer(process: &Arc<Process>) -> Arc<Timer> {
    let process = Arc::downgrade(process);
    Timer::new(
        Source::Process(process.clone()),
        Box::new(move |_| {
            let Some(process) = process.upgrade() else { return false };
            let hard =
                process.limits.get(abi::RLIMIT_CPU).map_or(super::limits::INFINITY, |limit| limit.hard);
            let over = process_time(&process) >= hard.saturating_mul(SECOND);
            let signo = if over { abi::SIGKILL } else { abi::SIGXCPU };
            let _ = signal::to_process(&process, SigInfo::kernel(signo));
            true
        }),
    )
}

/// What the action of a POSIX timer knows.
struct Told {
    process: Weak<Process>,
    notify: Notify,
    number: i32,
    value: u64,
}

impl Told {
    /// Whether it is news.
    fn tell(&self, times: u64, overrun: &AtomicU32) -> bool {
        let Some(process) = self.process.upgrade() else { return false };
        let task = match &self.notify {
            Notify::Task { task, .. } => task.upgrade(),
            _ => None,
        };
        let signo = match self.notify {
            Notify::Nobody => return false,
            Notify::Process { signo } | Notify::Task { signo, .. } => signo,
        };
        // Programs see a signed count, which stops at its top (DELAYTIMER_MAX).
        let times = times.min(i32::MAX as u64) as u32;
        if signal::add_overrun(&process, task.as_ref(), self.number, times) {
            let _ = overrun
                .fetch_update(Relaxed, Relaxed, |old| Some(old.saturating_add(times).min(i32::MAX as u32)));
            return false;
        }
        overrun.store(times - 1, Relaxed);
        let info = SigInfo::timer(signo, self.number, times as i32 - 1, self.value);
        match (&self.notify, task) {
            (Notify::Task { .. }, Some(task)) => signal::to_task(&task, info).is_ok(),
            (Notify::Task { .. }, None) => false,
            _ => signal::to_process(&process, info).is_ok(),
        }
    }
}

impl PosixTimer {
    /// `timer_getoverrun(2)`.
    pub fn overrun(&self) -> u32 {
        self.overrun.load(Relaxed)
    }
}
