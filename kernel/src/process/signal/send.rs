//! Sending a signal: queue it where it belongs and wake who shall take it.

use super::super::exit;
use super::super::process::Process;
use super::super::run::Caller;
use super::super::stop;
use super::super::task::{Task, work};
use super::super::trace;
use super::super::wait::Status;
use super::super::{Pid, table};
use super::set::FIRST_REALTIME;
use super::{SigInfo, SigSet};
use crate::errno::{Errno, Result};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

/// A standard signal that the calling task sends to itself and does not block: it is the next thing that comes up on the way back from
/// this very call, so it is handed over without a queue. False where something else may have to be told, or comes first.
#[inline]
pub fn raise(caller: &mut Caller, signo: u32, code: i32) -> bool {
    let task = &caller.task;
    let straight = (1..FIRST_REALTIME).contains(&signo)
        && !NOT_ONLY_HANDLED.union(task.mask()).has(signo)
        && waiting(task).is_empty()
        && task.process.signal_came.get().is_none()
        && caller.raised.is_none();
    if straight {
        caller.raised = Some((signo, code));
        caller.look_at_signals();
    }
    straight
}

/// Signals that do something when they are sent, whoever takes them.
const NOT_ONLY_HANDLED: SigSet = SigSet::STOPS.union(SigSet::of(&[abi::SIGKILL, abi::SIGCONT]));

/// Send to one task. EAGAIN if a real-time queue is full.
pub fn to_task(task: &Arc<Task>, info: SigInfo) -> Result<()> {
    let process = &task.process;
    if !prepare(process, info.signo) {
        return Ok(());
    }
    let blocked = task.mask().has(info.signo);
    if !blocked && !task.is_traced() && process.action(info.signo).ignores(info.signo) {
        return Ok(());
    }
    let queued = task.pending.push(info, process.limits.soft(abi::RLIMIT_SIGPENDING));
    // Looked at again after the push: the task may have unblocked it meanwhile, before it could see it queued.
    if !task.deaf_to().has(info.signo) {
        task.ask(work::SIGNAL);
    }
    tell_listeners(process);
    lost(queued, &info)
}

/// Send to a process: any one of its tasks takes it. EAGAIN if a real-time queue is full.
pub fn to_process(process: &Arc<Process>, info: SigInfo) -> Result<()> {
    if !prepare(process, info.signo) {
        return Ok(());
    }
    let heeded = || process.any_task().is_some_and(|first| first.mask().has(info.signo) || first.is_traced());
    if process.action(info.signo).ignores(info.signo) && !heeded() {
        return Ok(());
    }
    let queued = process.pending.push(info, process.limits.soft(abi::RLIMIT_SIGPENDING));
    // Looked for after the push: who unblocks it meanwhile sees it queued.
    if let Some(task) = process.tasks().find(|task| !task.deaf_to().has(info.signo)) {
        task.ask(work::SIGNAL);
    }
    tell_listeners(process);
    lost(queued, &info)
}

/// Wake those who wait for signals of the process by a file.
#[inline]
fn tell_listeners(process: &Process) {
    if let Some(listeners) = process.signal_came.get() {
        listeners.notify();
    }
}

/// A timer of the process expired `more` times while a signal of its waits, for `task` or for the process: count that into it.
/// False if none waits.
pub fn add_overrun(process: &Process, task: Option<&Arc<Task>>, timer: i32, more: u32) -> bool {
    let pending = task.map_or(&process.pending, |task| &task.pending);
    pending.add_overrun(timer, more)
}

/// Send to every process of a group. ESRCH if it has none.
pub fn to_group(group: Pid, info: SigInfo) -> Result<()> {
    let mut result = Err(Errno::ESRCH);
    for process in table::group_members(group) {
        result = Ok(to_process(&process, info)?);
    }
    result
}

/// Change the blocked signals of the calling task. What it no longer blocks it will look at; what waits for the process
/// and is newly blocked here is offered to the other tasks.
pub fn set_mask(task: &Task, mask: SigSet) {
    let mask = mask.minus(SigSet::UNBLOCKABLE);
    let old = SigSet(task.mask.swap(mask.0, Ordering::SeqCst));
    let waiting = task.pending.set().union(task.process.pending.set());
    if waiting.is_empty() {
        return;
    }
    if !waiting.minus(mask).is_empty() {
        task.work.fetch_or(work::SIGNAL, Ordering::Relaxed);
    }
    let newly = mask.minus(old);
    if !newly.is_empty() {
        offer(task, newly);
    }
}

/// Wake another task of the process for those of `signals` that wait for the process as a whole.
pub(in super::super) fn offer(from: &Task, signals: SigSet) {
    let orphaned = from.process.pending.set().both(signals);
    if orphaned.is_empty() {
        return;
    }
    for other in from.process.tasks() {
        if other.tid() != from.tid() && !orphaned.minus(other.deaf_to()).is_empty() {
            other.ask(work::SIGNAL);
        }
    }
}

/// What a signal does at once, whoever will take it. False if that was all.
fn prepare(process: &Arc<Process>, signo: u32) -> bool {
    if signo == abi::SIGKILL {
        exit::end_process(process, Status::Signalled { signo, core: false });
        return false;
    }
    if signo == abi::SIGCONT {
        forget(process, SigSet::STOPS);
        stop::resume(process);
        trace::continued(process);
    } else if SigSet::STOPS.has(signo) {
        forget(process, SigSet::of(&[abi::SIGCONT]));
    }
    !process.is_ending()
}

/// Forget these signals, wherever they wait: they are ignored now.
pub fn forget(process: &Process, signals: SigSet) {
    process.pending.remove(signals);
    for task in process.tasks() {
        task.pending.remove(signals);
    }
}

/// Only `sigqueue` and its kin care whether the info was kept.
fn lost(queued: bool, info: &SigInfo) -> Result<()> {
    if queued || info.code == abi::SI_USER as i32 || info.code > 0 { Ok(()) } else { Err(Errno::EAGAIN) }
}

/// What waits for this task, sent to it or to its process.
pub fn waiting(task: &Task) -> SigSet {
    task.pending.set().union(task.process.pending.set())
}

/// Whether something waits that is not blocked, or the task shall stop or end.
pub fn deliverable(task: &Task) -> bool {
    task.work.load(Ordering::SeqCst) & (work::EXIT | work::STOP | work::TRAP) != 0
        || !waiting(task).minus(task.mask()).is_empty()
}

/// Take one of these signals off the queues, without its action.
#[inline]
pub fn take(task: &Task, wanted: SigSet) -> Option<SigInfo> {
    let own = task.pending.take(wanted);
    let mut info = own.or_else(|| task.process.pending.take(wanted))?;
    if info.is_of_timer() {
        task.process.timers.taken(&mut info);
    }
    Some(info)
}
