//! The tracee's side: where it stops, and how it goes on.
//!
//! | stop | code that `wait4` tells | what the tracer's signal does |
//! |---|---|---|
//! | signal | the signal | is delivered in its place; 0: nothing is |
//! | system call | SIGTRAP, with bit 7 if it asked for that | is sent |
//! | event | SIGTRAP, the event above it | nothing |
//! | group | the signal that stopped the process, `PTRACE_EVENT_STOP` above it if seized | nothing |
//!
//! Single steps: the trap flag is set when the tracee goes on and taken away when it stops, so that nobody sees it who has not set it. Into a
//! system call and out of it is one step; into a handler is one.
#![forbid(unsafe_code)]

use super::super::run::Caller;
use super::super::signal::{self, SigInfo};
use super::super::task::work;
use super::super::{Pid, calls, rseq, table, wait};
use super::registers::{ORIG_RAX, RAX, Shown};
use super::{How, Moment, Stop, TRACES};
use crate::arch::debug;
use crate::arch::user::UserContext;
use crate::errno::Errno;
use alloc::boxed::Box;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;
use linux_raw_sys::ptrace::{self, PTRACE_EVENT_EXEC, PTRACE_EVENT_EXIT, PTRACE_EVENT_STOP};

const TRAP_FLAG: u64 = 1 << 8;
/// In the code of a system call's stop, if the tracer asked for it.
const GOOD: u32 = 0x80;
/// A child stopped; a traced one did. `si_code` of the tracer's SIGCHLD.
const CLD_STOPPED: i32 = abi::CLD_STOPPED as i32;
const CLD_TRAPPED: i32 = abi::CLD_TRAPPED as i32;
/// What the tracer did not tell of a signal it made.
const NO_SIGNAL: u32 = 0;

/// How a traced task goes on, as its own thread knows it.
#[derive(Default)]
pub struct Steps {
    how: How,
    /// The trap flag is ours, not the program's.
    flagged: bool,
    /// What the last debug exception was about (register 6).
    pub status: u64,
    /// The number of the call that it is in, or comes from.
    pub call: Option<u64>,
}

/// Why it stops.
struct Occasion {
    code: u32,
    info: Option<SigInfo>,
    message: Option<u64>,
    moment: Moment,
}

/// The siginfo of a stop that is no signal's.
fn told(caller: &Caller, code: u32) -> SigInfo {
    SigInfo::user(abi::SIGTRAP, code as i32, caller.task.tid(), caller.task.cred().uid)
}

/// Stop until the tracer lets go. The signal that it sends along, and the siginfo as it left it; `None` if it did not stop, as nobody traces
/// it (any more) or it is to end.
#[inline(never)]
fn stop(caller: &mut Caller, occasion: Occasion) -> Option<(u32, Option<SigInfo>)> {
    let task = caller.task.clone();
    unflag_own(caller);
    let Occasion { code, info, message, moment } = occasion;
    let interrupted = caller.restart.map(|(number, _)| number);
    let rax = match moment {
        Moment::Within => Errno::ENOSYS.to_rax(),
        _ => caller.user.rax,
    };
    let call = interrupted.or(caller.steps.call);
    let shown = Shown::of(&mut caller.user, call, rax, caller.steps.status);
    let mut shown = Some(Box::new(Stop {
        code,
        info,
        moment,
        shown,
        listening: false,
        signal: NO_SIGNAL,
        how: How::default(),
    }));
    let of = {
        let mut traces = TRACES.lock();
        let trace = traces.get_mut(&task.tid()).filter(|trace| trace.is(&task))?;
        if task.is_ending() && moment != Moment::End {
            return None;
        }
        trace.stop = shown.take();
        trace.news = true;
        trace.message = message.unwrap_or(trace.message);
        trace.of
    };
    tell(caller, of, code, moment);

    let tid = task.tid();
    task.resumed.wait(|| {
        let traces = TRACES.lock();
        let Some(trace) = traces.get(&tid).filter(|trace| trace.is(&task)) else { return true };
        let Some(stop) = &trace.stop else { return true };
        stop.listening && task.work.load(Ordering::SeqCst) & work::TRAP != 0
    });
    // One that listened is still shown.
    let listened =
        TRACES.lock().get_mut(&tid).filter(|trace| trace.is(&task)).and_then(|trace| trace.stop.take());
    drop(listened);
    let stop = task.shown_back.lock().take();
    // What came while it stopped has said so; but a call that was interrupted wants to go on.
    if caller.restart.is_some() {
        caller.look_at_signals();
    }
    rseq::interrupted(&task);
    let Some(stop) = stop else {
        caller.steps.how = How::default();
        return Some((NO_SIGNAL, None));
    };
    take_back(caller, &stop);
    Some((stop.signal, stop.info))
}

/// What the tracer changed, and how it wants the tracee to go on.
fn take_back(caller: &mut Caller, stop: &Stop) {
    let shown = &stop.shown;
    caller.steps.status = shown.give_back(&mut caller.user);
    if shown.is_changed() {
        let (number, rax) = (shown.words()[ORIG_RAX], shown.words()[RAX]);
        match stop.moment {
            Moment::Within => {}
            Moment::Entry => {
                caller.steps.call = Some(number);
                caller.user.rax = rax;
            }
            _ => {
                caller.user.rax = rax;
                // Whether an interrupted call is made again, these two tell.
                let how = Errno::restart(rax).filter(|_| number as i32 != -1);
                caller.restart = how.map(|how| (number, how));
                caller.look_at_signals();
                caller.steps.call = (number as i32 != -1).then_some(number);
            }
        }
    }
    caller.steps.how = stop.how;
    if stop.how.single {
        let flags = caller.user.rflags();
        caller.steps.flagged = flags & TRAP_FLAG == 0;
        caller.user.set_rflags(flags | TRAP_FLAG);
        // By `iret`, whose trap comes after the next instruction; that of `sysret` comes before it.
        caller.user.keep_all();
    }
}

/// The trap flag is gone if it was ours.
fn unflag_own(caller: &mut Caller) {
    if core::mem::take(&mut caller.steps.flagged) {
        let flags = caller.user.rflags();
        caller.user.set_rflags(flags & !TRAP_FLAG);
    }
}

/// The copy of a tracee's registers for its child has not the flag that is ours.
pub(in super::super) fn unflag(caller: &Caller, copy: &mut UserContext) {
    if caller.steps.flagged {
        copy.set_rflags(copy.rflags() & !TRAP_FLAG);
    }
}

/// Tell the tracer's process of a stop.
fn tell(caller: &Caller, of: Pid, code: u32, moment: Moment) {
    let Some(tracer) = table::process(of) else { return };
    let action = tracer.action(abi::SIGCHLD);
    if action.handler != signal::Action::IGNORE && !action.is(abi::SA_NOCLDSTOP) {
        let why = if moment == Moment::Group { CLD_STOPPED } else { CLD_TRAPPED };
        let usage = caller.task.usage();
        let (tid, uid) = (caller.task.tid(), caller.task.cred().uid);
        let ticks = |ns| ns / super::exit::NS_PER_TICK;
        let (user, system) = (ticks(usage.user), ticks(usage.system));
        let info = SigInfo::child(abi::SIGCHLD, why, tid, uid, (code & 0x7f) as i32, user, system);
        let _ = signal::to_process(&tracer, info);
    }
    wait::notify(&tracer);
}

/// A signal is to be delivered: what the tracer makes of it. False if nothing is.
pub fn signalled(caller: &mut Caller, info: &mut SigInfo) -> bool {
    let occasion = Occasion { code: info.signo, info: Some(*info), message: None, moment: Moment::Signal };
    let Some((signo, left)) = stop(caller, occasion) else { return true };
    if signo == NO_SIGNAL {
        return false;
    }
    *info = match left {
        Some(left) if left.signo == signo => left,
        _ => by_tracer(caller, signo),
    };
    let blocked = caller.task.mask().has(signo);
    if blocked {
        caller.task.pending.push(*info, u64::MAX);
    }
    !blocked
}

/// A signal that the tracer made up.
fn by_tracer(caller: &Caller, signo: u32) -> SigInfo {
    let tracer = table::task(super::tracer_of(&caller.task));
    let (pid, uid) = tracer.map_or((0, 0), |tracer| (tracer.process.pid, tracer.cred().uid));
    SigInfo::user(signo, abi::SI_USER as i32, pid, uid)
}

/// A system call begins, with its number in `rax`. Whether it is to be done.
pub(crate) fn enter_call(caller: &mut Caller) -> bool {
    let number = caller.user.rax;
    caller.steps.call = Some(number);
    let how = caller.steps.how;
    // Its end is looked at whatever the tracer wants by then.
    caller.task.work.fetch_or(work::TRACE, Ordering::Relaxed);
    if how.calls || how.emulate {
        caller.user.rax = Errno::ENOSYS.to_rax();
        call_stop(caller, Moment::Entry, ptrace::PTRACE_EVENTMSG_SYSCALL_ENTRY);
        if how.emulate || caller.task.is_ending() {
            return false;
        }
    } else if number as i32 == -1 {
        // Nobody has said what it gives.
        caller.user.rax = Errno::ENOSYS.to_rax();
    }
    let number = caller.steps.call.unwrap_or(number);
    if number as i32 == -1 {
        return false;
    }
    caller.user.rax = number;
    true
}

/// A system call has ended.
pub fn leave_call(caller: &mut Caller) {
    let how = caller.steps.how;
    if how.calls {
        call_stop(caller, Moment::Exit, ptrace::PTRACE_EVENTMSG_SYSCALL_EXIT);
    } else if how.single && !how.emulate {
        let rip = caller.user.rip();
        signal::force(caller, SigInfo::fault(abi::SIGTRAP, abi::TRAP_BRKPT as i32, rip));
    }
}

fn call_stop(caller: &mut Caller, moment: Moment, message: u32) {
    let good = option(caller, ptrace::PTRACE_O_TRACESYSGOOD);
    let code = abi::SIGTRAP | if good { GOOD } else { 0 };
    let info = Some(told(caller, code));
    let occasion = Occasion { code, info, message: Some(u64::from(message)), moment };
    if let Some((signo, _)) = stop(caller, occasion)
        && signo != NO_SIGNAL
    {
        let info = SigInfo::kernel(signo);
        let _ = signal::to_task(&caller.task, info);
    }
}

/// Whether the tracer has set this option (`PTRACE_O_*`).
pub(in super::super) fn option(caller: &Caller, option: u32) -> bool {
    caller.task.is_traced()
        && TRACES.lock().get(&caller.task.tid()).is_some_and(|trace| trace.options & option != 0)
}

/// Something happened (`PTRACE_EVENT_*`) within a call. Whether the tracer wanted to know.
pub fn event(caller: &mut Caller, event: u32, message: u64) -> bool {
    let wanted = option(caller, 1 << event);
    if wanted {
        event_stop(caller, event, message, Moment::Within);
    }
    wanted
}

/// A filter wants the tracer to be asked about a call. `None` if nobody is there to ask; else the number of the call as it shall be: -1 for
/// none, and `rax` is then the answer.
pub(crate) fn filtered(caller: &mut Caller, with: u32) -> Option<u64> {
    if !option(caller, ptrace::PTRACE_O_TRACESECCOMP) {
        return None;
    }
    let number = caller.user.rax;
    caller.steps.call = Some(number);
    caller.user.rax = Errno::ENOSYS.to_rax();
    event_stop(caller, ptrace::PTRACE_EVENT_SECCOMP, u64::from(with), Moment::Entry);
    Some(caller.steps.call.unwrap_or(number))
}

fn event_stop(caller: &mut Caller, event: u32, message: u64, moment: Moment) {
    let code = abi::SIGTRAP | event << 8;
    let info = Some(told(caller, code));
    stop(caller, Occasion { code, info, message: Some(message), moment });
}

/// A new program is there; the task's number was `old`.
pub fn executed(caller: &mut Caller, old: Pid) {
    if !caller.task.is_traced() || event(caller, PTRACE_EVENT_EXEC, old as u64) {
        return;
    }
    let seized = TRACES.lock().get(&caller.task.tid()).is_none_or(|trace| trace.seized);
    if !seized {
        let (pid, uid) = (caller.task.process.pid, caller.task.cred().uid);
        let _ = signal::to_task(&caller.task, SigInfo::user(abi::SIGTRAP, abi::SI_USER as i32, pid, uid));
    }
}

/// The task is about to end, with this status.
pub fn ending(caller: &mut Caller, status: u32) {
    if option(caller, ptrace::PTRACE_O_TRACEEXIT) {
        event_stop(caller, PTRACE_EVENT_EXIT, u64::from(status), Moment::End);
    }
}

/// The tracer wants a stop, or something has happened to the group that it shall know of.
#[cold]
pub fn trap(caller: &mut Caller) {
    let signo = caller.task.process.stopped().unwrap_or(abi::SIGTRAP);
    let code = signo | PTRACE_EVENT_STOP << 8;
    let info = Some(SigInfo { signo, ..told(caller, code) });
    stop(caller, Occasion { code, info, message: None, moment: Moment::Group });
}

/// The process is stopped. False if nobody traces the task: then it waits as others do.
pub(in super::super) fn group_stop(caller: &mut Caller) -> bool {
    if !caller.task.is_traced() {
        return false;
    }
    let Some(signo) = caller.task.process.stopped() else { return true };
    let seized = TRACES.lock().get(&caller.task.tid()).is_some_and(|trace| trace.seized);
    if seized {
        trap(caller);
        return true;
    }
    stop(caller, Occasion { code: signo, info: None, message: None, moment: Moment::Group }).is_some()
}

/// The program came to a place that it, or its tracer, has the processor watch, or has made a single step: which, as `si_code` tells it.
#[cold]
pub fn debug_exception(caller: &mut Caller) -> i32 {
    let status = debug::take_status();
    caller.steps.status = status & (debug::PLACES | debug::STEP);
    if caller.user.debug().before_instruction(status) {
        caller.user.pass_breakpoint();
    }
    let code = match status {
        s if s & debug::STEP != 0 => abi::TRAP_TRACE,
        s if s & debug::PLACES != 0 => abi::TRAP_HWBKPT,
        _ => abi::TRAP_BRKPT,
    };
    code as i32
}

/// A handler's frame is to be made: it shall not have our trap flag.
pub fn before_handler(caller: &mut Caller) {
    unflag_own(caller);
}

/// A single step led into a handler.
pub(in super::super) fn stepped_into_handler(caller: &mut Caller) {
    if caller.steps.how.single {
        let (code, info) = (abi::SIGTRAP, told(caller, abi::SIGTRAP));
        stop(caller, Occasion { code, info: Some(info), message: None, moment: Moment::Signal });
    }
}

/// A task that was traced, and is no more, makes its calls the short way again.
pub(crate) fn forget(caller: &mut Caller) {
    caller.steps = Steps::default();
    caller.calls = calls::by_number();
}
