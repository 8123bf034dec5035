//! Waiting for children: `wait4`, `waitid`.
//!
//! A parent reads its process's counter of changes, looks at all its children, and sleeps until the counter differs from
//! what it read. A child that changes in between moves the counter, so no change is missed and nobody holds the
//! table's lock to sleep.

use super::Pid;
use super::process::{Process, Usage};
use super::run::Caller;
use super::table::{self, Look};
use super::trace;
use crate::errno::{Errno, Result};
use crate::sched::WaitResult;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

/// How a process ended, or what else it did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// With this code.
    Exited(u8),
    /// By this signal.
    Signalled { signo: u32, core: bool },
    /// Not ended: stopped by this signal.
    Stopped(u32),
    /// Not ended: stopped for its tracer, with this code.
    Trapped(u32),
    /// Not ended: running again.
    Continued,
}

impl Status {
    /// As `wait4` tells it.
    pub fn to_wait(self) -> u32 {
        match self {
            Status::Exited(code) => (code as u32) << 8,
            Status::Signalled { signo, core } => signo | if core { 0x80 } else { 0 },
            Status::Stopped(code) | Status::Trapped(code) => code << 8 | 0x7f,
            Status::Continued => 0xffff,
        }
    }
    /// As `siginfo` tells it: `si_code` and `si_status`.
    pub fn to_info(self) -> (i32, i32) {
        let (code, status) = match self {
            Status::Exited(code) => (abi::CLD_EXITED, code as u32),
            Status::Signalled { signo, core: false } => (abi::CLD_KILLED, signo),
            Status::Signalled { signo, core: true } => (abi::CLD_DUMPED, signo),
            Status::Stopped(signo) => (abi::CLD_STOPPED, signo),
            Status::Trapped(code) => (abi::CLD_TRAPPED, code),
            Status::Continued => (abi::CLD_CONTINUED, abi::SIGCONT),
        };
        (code as i32, status as i32)
    }
}

/// Which children.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whom {
    Any,
    Pid(Pid),
    Group(Pid),
}

/// Which children, and what of them.
#[derive(Clone, Copy, Debug)]
pub struct Selector {
    pub whom: Whom,
    pub ended: bool,
    pub stopped: bool,
    pub continued: bool,
    /// Only look (`WNOWAIT`).
    pub keep: bool,
    /// Children whose end sends no SIGCHLD: only those (`__WCLONE`), or also those (`__WALL`).
    pub clones: bool,
    pub all: bool,
}

impl Selector {
    /// Those that the caller traces it asks about whatever they send at their end.
    pub(super) fn asks_about_tracee(&self, pid: Pid, group: Pid) -> bool {
        match self.whom {
            Whom::Any => true,
            Whom::Pid(p) => p == pid,
            Whom::Group(g) => g == group,
        }
    }

    pub(super) fn asks_about(&self, pid: Pid, group: Pid, exit_signal: u32) -> bool {
        self.asks_about_tracee(pid, group) && (self.all || self.clones == (exit_signal != abi::SIGCHLD))
    }
}

/// What a wait found.
pub struct Waited {
    pub pid: Pid,
    pub status: Status,
    pub process: Arc<Process>,
}

impl Waited {
    /// What the child, and those that it waited for, have used.
    pub fn usage(&self) -> Usage {
        self.process.usage_with_children()
    }
}

/// Wait until a child that the selector asks about has something to report; `None` if `now` and none has.
pub fn wait(caller: &mut Caller, selector: &Selector, now: bool) -> Result<Option<Waited>> {
    let process = caller.task.process.clone();
    loop {
        let seen = process.changes.load(Ordering::SeqCst);
        let (traces, tracee) = trace::wait(&process, selector);
        if tracee.is_some() {
            return Ok(tracee);
        }
        let changed = || process.changes.load(Ordering::SeqCst) != seen;
        let child = match table::wait(&process, selector) {
            Err(Errno::ECHILD) if traces => Look::Nothing,
            other => other?,
        };
        if let Look::Soon = child {
            process.child_changed.wait(changed);
            continue;
        }
        if let Look::Found(waited) = child {
            if !selector.keep && matches!(waited.status, Status::Exited(_) | Status::Signalled { .. }) {
                process.times.lock().children.add(&waited.usage());
            }
            return Ok(Some(waited));
        }
        if now {
            return Ok(None);
        }
        if process.child_changed.wait_until(changed, None, true) == WaitResult::Interrupted {
            return Err(Errno::RESTART);
        }
    }
}

/// A child of `parent` has changed: let it look.
pub(super) fn notify(parent: &Process) {
    parent.changes.fetch_add(1, Ordering::SeqCst);
    parent.child_changed.wake_all();
}
