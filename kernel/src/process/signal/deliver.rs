//! Delivering signals: what a task does about them on its way back to the program.

use super::super::dump;
use super::super::exit;
use super::super::rseq;
use super::super::run::Caller;
use super::super::stop;
use super::super::task::work;
use super::super::trace;
use super::super::wait::Status;
use super::{Action, SigInfo, SigSet, frame, set_mask, take, waiting};
use crate::errno::Errno;
use crate::fs::kmsg;
use crate::kmsg::REMARK;
use crate::sched;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

/// Bytes of the `syscall` instruction: to go back over it is to make the call again.
const SYSCALL_LEN: u64 = 2;

/// Deliver all that waits and is not blocked; decide how an interrupted call goes on; put a temporary mask back.
pub fn deliver(caller: &mut Caller) {
    caller.task.work.fetch_and(!work::SIGNAL, Ordering::SeqCst);
    sched::clear_interrupt();
    let mut info = SigInfo::NONE;
    while next(caller, &mut info) {
        if caller.task.is_traced() && !trace::signalled(caller, &mut info) {
            continue;
        }
        let signo = info.signo;
        let Some(action) = handler(caller, &info) else { continue };
        settle(caller, Some(&action));
        rseq::before_handler(caller);
        trace::before_handler(caller);
        let mask = caller.saved_mask.take().unwrap_or(caller.task.mask());
        if frame::push(caller, &info, &action, mask).is_err() {
            // No room for the frame: as if the program itself had touched its stack there.
            set_mask(&caller.task, mask);
            force_default(caller, SigInfo::kernel(abi::SIGSEGV), signo == abi::SIGSEGV);
            continue;
        }
        let mut blocked = caller.task.mask().union(action.mask);
        if !action.is(abi::SA_NODEFER) {
            blocked = blocked.with(signo);
        }
        set_mask(&caller.task, blocked);
        trace::stepped_into_handler(caller);
        // What comes from now on asks for another look.
        if waiting(&caller.task).is_empty() {
            return;
        }
    }
    settle(caller, None);
    if let Some(mask) = caller.saved_mask.take() {
        // May unblock what waits: `set_mask` then asks for another look.
        set_mask(&caller.task, mask);
    }
}

/// Bring about a signal that the task's own instruction caused. It cannot be blocked or ignored: then it ends the process.
pub fn force(caller: &mut Caller, info: SigInfo) {
    force_default(caller, info, false);
}

/// The same, and it does end the process, now: nobody who traces it is asked.
pub fn kill(caller: &mut Caller, info: SigInfo) {
    end_with_core(caller, &info);
}

fn force_default(caller: &mut Caller, info: SigInfo, always: bool) {
    let task = &caller.task;
    let mut actions = caller.actions.lock();
    let blocked = task.mask().has(info.signo);
    if always || blocked || actions.get(info.signo).handler == Action::IGNORE {
        *actions.of(info.signo) = Action::default();
        task.mask.fetch_and(!SigSet::of(&[info.signo]).0, Ordering::SeqCst);
    }
    task.pending.push(info, u64::MAX);
    task.work.fetch_or(work::SIGNAL, Ordering::SeqCst);
}

/// The next signal to deal with; false if there is none.
#[inline(always)]
fn next(caller: &mut Caller, info: &mut SigInfo) -> bool {
    let task = &caller.task;
    if task.work.load(Ordering::SeqCst) & (work::EXIT | work::STOP | work::TRAP) != 0 {
        // The end, or a stop, comes first; what waits can wait.
        task.work.fetch_or(work::SIGNAL, Ordering::SeqCst);
        return false;
    }
    let found = match caller.raised.take() {
        Some((signo, code)) => Some(SigInfo::user(signo, code, task.process.pid, task.uid())),
        None => take(task, SigSet(!task.mask().0)),
    };
    if let Some(found) = found {
        *info = found;
    }
    found.is_some()
}

/// The action of a signal that has a handler. A signal without one does here what it does.
#[inline(always)]
fn handler(caller: &mut Caller, info: &SigInfo) -> Option<Action> {
    let signo = info.signo;
    let mut action = caller.actions.lock().get(signo);
    if action.is(abi::SA_RESETHAND) && action.handler > Action::IGNORE {
        action = reset(caller, signo);
    }
    if action.handler > Action::IGNORE {
        return Some(action);
    }
    if !action.ignores(signo) {
        act(caller, info);
    }
    None
}

/// What a signal does by itself.
#[cold]
fn act(caller: &mut Caller, info: &SigInfo) {
    let signo = info.signo;
    if SigSet::DUMPS.has(signo) {
        end_with_core(caller, info);
        return;
    }
    let process = &caller.task.process;
    if !SigSet::STOPS.has(signo) {
        exit::end_process(process, Status::Signalled { signo, core: false });
    } else if signo == abi::SIGSTOP || !super::super::table::group_is_orphaned(process.group()) {
        stop::stop(process, signo);
    }
}

/// End the process by a signal, with a core file if there may be one.
pub fn end_with_core(caller: &mut Caller, info: &SigInfo) {
    if info.code > 0 && SigSet::SYNCHRONOUS.has(info.signo) {
        let name = caller.task.name();
        let name = core::str::from_utf8(&name).unwrap_or("?").trim_end_matches('\0');
        let (tid, signo, code, at) = (caller.task.tid(), info.signo, info.code, info.fields[0]);
        let (ip, sp) = (caller.user.rip(), caller.user.rsp());
        kmsg::say(
            REMARK,
            format_args!("{name}[{tid}]: signal {signo} code {code} at {at:x} ip {ip:016x} sp {sp:016x}"),
        );
    }
    let core = dump::write(caller, info);
    exit::end_process(&caller.task.process, Status::Signalled { signo: info.signo, core });
}

/// A handler that runs once (`SA_RESETHAND`): take it, and leave the default. Of two tasks that come at once one gets it.
#[cold]
fn reset(caller: &Caller, signo: u32) -> Action {
    let mut actions = caller.actions.lock();
    let action = actions.of(signo);
    let once = *action;
    if once.is(abi::SA_RESETHAND) && once.handler > Action::IGNORE {
        action.handler = Action::DEFAULT;
    }
    once
}

/// Decide how an interrupted call goes on, once: before the first handler's frame is made, or when no handler runs.
fn settle(caller: &mut Caller, handler: Option<&Action>) {
    let Some((number, how)) = caller.restart else { return };
    if handler.is_none() && caller.task.work.load(Ordering::SeqCst) & work::STOP != 0 {
        return; // after the stop there is another look, and perhaps a handler
    }
    caller.restart = None;
    let again = match (how, handler) {
        (_, None) | (Errno::RESTART_NOINTR, _) => true,
        (Errno::RESTART, Some(action)) => action.is(abi::SA_RESTART),
        _ => false,
    };
    if !again {
        caller.user.rax = Errno::EINTR.to_rax();
        caller.resume = None;
        return;
    }
    caller.user.rax = if how == Errno::RESTART_BLOCK { abi::__NR_restart_syscall as u64 } else { number };
    let rip = caller.user.rip();
    caller.user.set_rip(rip - SYSCALL_LEN);
}
