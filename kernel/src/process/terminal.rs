//! What terminals must know of processes, and do to them (`fs::tty::job`).

use super::signal::{self, Action, SigInfo};
use super::{Pid, current_task, table};
use crate::fs::caps::cap;
use crate::fs::tty::job::{Job, Processes};
use core::sync::atomic::Ordering;

/// The process layer, as terminals see it.
pub struct OfTerminals;

impl Processes for OfTerminals {
    fn caller(&self) -> Job {
        let Some(task) = current_task() else { return Job::default() };
        let process = &task.process;
        let cred = task.cred();
        Job {
            pid: process.pid as u32,
            group: process.group() as u32,
            session: process.session() as u32,
            detached: process.detached.load(Ordering::Relaxed),
            root: cred.may(cap::SYS_ADMIN),
            user: cred.fsuid,
        }
    }

    fn signal_group(&self, group: u32, signo: u32) {
        let _ = signal::to_group(group as Pid, SigInfo::kernel(signo));
    }

    fn signal_process(&self, pid: u32, signo: u32) {
        if let Some(process) = table::process(pid as Pid) {
            let _ = signal::to_process(&process, SigInfo::kernel(signo));
        }
    }

    fn session_of(&self, group: u32) -> Option<u32> {
        table::session_of_group(group as Pid).map(|session| session as u32)
    }

    fn is_deaf_to(&self, signo: u32) -> bool {
        let Some(task) = current_task() else { return true };
        let ignored = task.process.actions().lock().get(signo).handler == Action::IGNORE;
        ignored || task.mask().has(signo)
    }

    fn is_orphaned(&self, group: u32) -> bool {
        table::group_is_orphaned(group as Pid)
    }

    fn detach(&self) {
        if let Some(task) = current_task() {
            task.process.detached.store(true, Ordering::Relaxed);
        }
    }
}
