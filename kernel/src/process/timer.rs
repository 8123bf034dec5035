//! A timer: something to do at a time, and again and again if it has an interval.
//!
//! All of Linux's timers are this one: `setitimer`, `timer_create`, `timerfd`, `RLIMIT_CPU`. It runs on the monotonic clock, or
//! on the realtime clock where it was set to a moment of that, or on the CPU time of a process or a thread:
//!
//! ```text
//!   the clocks  the scheduler's timer is set to the deadline itself
//!   CPU time    set to the earliest moment when the CPU time can get there, that is when it runs all the while;
//!               if it has not, look again after what is then left, but not more often than each LOOK
//! ```
//!
//! What expired while nobody could look counts: the action is told how many intervals have passed. So a timer whose news nobody
//! takes is looked at ever more rarely, and thousands of them do not keep the machine from its work; who takes
//! the news at last says so ([`Timer::taken`]) and is told what came meanwhile.
//!
//! Each setting of a timer has a generation; an expiry of an older one, that was on its way when the timer was set anew, does
//! nothing. Lock: `state`, over the scheduler's timers and the reading of a clock; the action runs without it, in
//! interrupt context, so it must not block.
#![forbid(unsafe_code)]

use super::process::Process;
use super::task::Task;
use crate::clock;
use crate::errno::{Errno, Result};
use crate::sched::timer::{self as alarm, Deadline, TimerId};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use hafez_mm::lock::Mutex;

/// How often CPU time is looked at when little of it is left: one millisecond.
const LOOK: u64 = 1_000_000;
/// How seldom a timer is looked at whose news nobody takes: once a second.
const SELDOM: u64 = 1_000_000_000;

/// What a timer goes by, in nanoseconds.
pub enum Source {
    Monotonic,
    /// CPU time of all threads of a process.
    Process(Weak<Process>),
    /// What of it they spent in the program, not in the kernel.
    User(Weak<Process>),
    /// CPU time of one thread.
    Task(Weak<Task>),
}

impl Source {
    /// What it shows; `None` when whose time it counts is gone.
    fn now(&self, real: bool) -> Option<u64> {
        if real { Some(clock::realtime()) } else { self.shows() }
    }

    /// The same, where realtime is no question.
    pub fn shows(&self) -> Option<u64> {
        match self {
            Source::Monotonic => Some(clock::monotonic()),
            Source::Process(process) => Some(process_time(&*process.upgrade()?)),
            Source::User(process) => Some(user_time(&*process.upgrade()?)),
            Source::Task(task) => Some(task_time(&*task.upgrade()?)),
        }
    }
}

/// Nanoseconds that a process's threads have run, those that have ended too.
pub fn process_time(process: &Process) -> u64 {
    let dead = process.times.lock().dead_tasks;
    process.tasks().map(|task| task_time(&task)).sum::<u64>() + dead.user + dead.system
}

/// What of it they spent in the program.
pub fn user_time(process: &Process) -> u64 {
    let dead = process.times.lock().dead_tasks;
    process.tasks().map(|task| task.thread().map_or(0, |thread| thread.cpu_times().0)).sum::<u64>()
        + dead.user
}

/// Nanoseconds that a thread has run.
pub fn task_time(task: &Task) -> u64 {
    task.thread().map_or(0, |thread| thread.cpu_time())
}

/// What to do when it expires; the argument is how many times it has, since the last call. Whether somebody can still be
/// hearing of them: if not, for nobody has taken note of the one before or all are ignored, nobody minds when the next comes.
pub type Action = Box<dyn Fn(u64) -> bool + Send + Sync>;

/// When it expires next, and how often after that; in nanoseconds of its clock.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Setting {
    /// `None`: not at all.
    pub deadline: Option<u64>,
    /// 0: only once.
    pub interval: u64,
    /// The deadline is a moment of the realtime clock, whatever that is set to meanwhile.
    pub real: bool,
}

#[derive(Default)]
struct State {
    setting: Setting,
    armed: Option<TimerId>,
    generation: u64,
    /// Nobody listens: do not look before so many nanoseconds have passed; 0 if somebody may.
    patience: u64,
}

/// See the module.
pub struct Timer {
    source: Source,
    state: Mutex<State>,
    action: Action,
}

impl Timer {
    /// A timer that is not set.
    pub fn new(source: Source, action: Action) -> Arc<Timer> {
        Arc::new(Timer { source, state: Mutex::new(State::default()), action })
    }

    /// What its clock shows; 0 if whose time it counts is gone.
    pub fn now(&self) -> u64 {
        self.source.shows().unwrap_or(0)
    }

    /// What is left until the next expiry, if there is to be one, and the interval.
    pub fn left(&self) -> (Option<u64>, u64) {
        let Setting { deadline, interval, real } = self.get();
        let now = self.source.now(real).unwrap_or(0);
        (deadline.map(|deadline| deadline.saturating_sub(now)), interval)
    }

    /// The setting as it stands.
    fn get(&self) -> Setting {
        let Setting { deadline, interval, real } = self.state.lock().setting;
        // What has passed unheard has passed all the same.
        let now = self.source.now(real).unwrap_or(0);
        let missed = |d: u64| now.checked_sub(d).map_or(0, |late| 1 + late / interval);
        let next =
            |d: u64| if interval == 0 { d } else { d.saturating_add(missed(d).saturating_mul(interval)) };
        Setting { deadline: deadline.map(next), interval, real }
    }

    /// Set it anew, and tell how it was set.
    pub fn set(self: &Arc<Self>, setting: Setting) -> Result<Setting> {
        let mut state = self.state.lock();
        if let Some(id) = state.armed.take() {
            alarm::cancel(id);
        }
        state.generation += 1;
        state.patience = 0;
        let old = core::mem::replace(&mut state.setting, setting);
        let now = self.source.now(setting.real);
        if setting.deadline.is_some_and(|deadline| now.is_some_and(|now| deadline <= now)) {
            // What is due already comes before the caller goes on.
            let generation = state.generation;
            drop(state);
            self.look(generation);
        } else {
            self.arm(&mut state)?;
        }
        Ok(old)
    }

    fn arm(self: &Arc<Self>, state: &mut State) -> Result<()> {
        let real = state.setting.real;
        let (Some(deadline), Some(now)) = (state.setting.deadline, self.source.now(real)) else {
            return Ok(());
        };
        let patient =
            if state.patience == 0 { deadline } else { deadline.max(now.saturating_add(state.patience)) };
        let at = match self.source {
            _ if real => Deadline::Realtime(patient),
            Source::Monotonic => Deadline::Monotonic(patient),
            _ => {
                let wait = deadline.saturating_sub(now).max(LOOK.max(state.patience));
                Deadline::Monotonic(clock::monotonic().saturating_add(wait))
            }
        };
        let (timer, generation) = (Arc::downgrade(self), state.generation);
        let expire = Box::new(move || {
            if let Some(timer) = timer.upgrade() {
                timer.look(generation);
            }
        });
        match alarm::at(at, expire) {
            Ok(id) => state.armed = Some(id),
            Err(_) => {
                state.setting.deadline = None;
                return Err(Errno::ENOMEM);
            }
        }
        Ok(())
    }

    /// The scheduler's timer has come.
    fn look(self: &Arc<Self>, generation: u64) {
        let expired = {
            let mut state = self.state.lock();
            if state.generation != generation {
                return;
            }
            state.armed = None;
            self.advance(&mut state)
        };
        let heard = expired == 0 || (self.action)(expired);
        let mut state = self.state.lock();
        if state.generation != generation || state.armed.is_some() {
            return;
        }
        state.patience = if heard { 0 } else { (2 * state.patience).clamp(LOOK, SELDOM) };
        if self.arm(&mut state).is_err() {
            log::warn!("no memory to set a timer again: it stops");
        }
    }

    /// How many times it has expired, and when it does next.
    fn advance(&self, state: &mut State) -> u64 {
        let now = self.source.now(state.setting.real);
        let (Some(deadline), Some(now)) = (state.setting.deadline, now) else { return 0 };
        let Some(late) = now.checked_sub(deadline) else { return 0 };
        let expired = 1 + late.checked_div(state.setting.interval).unwrap_or(0);
        let step = state.setting.interval.saturating_mul(expired);
        state.setting.deadline = (step > 0).then(|| deadline.saturating_add(step));
        expired
    }

    /// Somebody may hear of it from now on, who could not before: it need not be patient.
    pub fn listen(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if core::mem::take(&mut state.patience) > 0
            && let Some(id) = state.armed.take()
        {
            alarm::cancel(id);
            if self.arm(&mut state).is_err() {
                log::warn!("no memory to set a timer again: it stops");
            }
        }
    }

    /// Somebody has taken note of what the action told, and is told how often it has expired since: it need not be patient.
    pub fn taken(self: &Arc<Self>) -> u64 {
        let mut state = self.state.lock();
        if state.patience == 0 {
            return 0;
        }
        state.patience = 0;
        let Some(id) = state.armed.take() else { return 0 };
        alarm::cancel(id);
        // A look at it that is on its way comes too late.
        state.generation += 1;
        let expired = self.advance(&mut state);
        if self.arm(&mut state).is_err() {
            log::warn!("no memory to set a timer again: it stops");
        }
        expired
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(id) = self.state.get_mut().armed.take() {
            alarm::cancel(id);
        }
    }
}
