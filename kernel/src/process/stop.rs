//! Job control: stopping a process and letting it go on.

use super::process::Process;
use super::run::Caller;
use super::signal::{self, SigInfo};
use super::table;
use super::task::work;
use super::trace;
use super::wait::{self, Status};
use crate::sched::{self, WaitResult};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

/// Stop all tasks of the process, and tell its parent.
pub(super) fn stop(process: &Arc<Process>, signo: u32) {
    let again;
    {
        let mut tasks = process.tasks.lock();
        if tasks.ending.is_some() {
            return;
        }
        again = tasks.stopped.replace(signo).is_some();
    }
    // Of a process that is stopped, those run whom their tracer lets.
    for task in process.tasks().filter(|task| !again || task.is_traced()) {
        task.ask(work::STOP);
    }
    if again {
        return;
    }
    tell(process, table::note_stopped(process.pid, signo), Status::Stopped(signo));
}

/// Let it go on, if it is stopped (SIGCONT).
pub(super) fn resume(process: &Arc<Process>) {
    if process.tasks.lock().stopped.take().is_none() {
        return;
    }
    process.parked.wake_all();
    tell(process, table::note_continued(process.pid), Status::Continued);
}

/// The calling task waits here while its process is stopped.
pub(super) fn park(caller: &mut Caller) {
    let process = caller.task.process.clone();
    caller.task.work.fetch_and(!work::STOP, Ordering::SeqCst);
    if trace::group_stop(caller) {
        return;
    }
    loop {
        sched::clear_interrupt();
        if process.stopped().is_none()
            || caller.task.work.load(Ordering::SeqCst) & (work::EXIT | work::STOP) != 0
        {
            break;
        }
        // Or somebody begins to trace it.
        let task = &caller.task;
        let on = || process.stopped().is_none() || task.work.load(Ordering::SeqCst) & work::STOP != 0;
        if process.parked.wait_until(on, None, true) == WaitResult::Ready {
            break;
        }
    }
    // What came meanwhile interrupted nothing but this: look for it.
    caller.task.work.fetch_or(work::SIGNAL, Ordering::SeqCst);
}

fn tell(process: &Arc<Process>, parent: Option<Arc<Process>>, status: Status) {
    let Some(parent) = parent else {
        table::told(process);
        return;
    };
    let action = parent.actions().lock().get(abi::SIGCHLD);
    if !action.is(abi::SA_NOCLDSTOP) {
        let (code, value) = status.to_info();
        let uid = process.uid();
        let info = SigInfo::child(abi::SIGCHLD, code, process.pid, uid, value, 0, 0);
        let _ = signal::to_process(&parent, info);
    }
    wait::notify(table::told(process).as_ref().unwrap_or(&parent));
}
