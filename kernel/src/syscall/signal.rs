//! Signals: `kill` and its kin, actions, masks, waiting for signals, the alternate stack.

use super::{Calls, at, user};
use crate::arch::user::{copy_words_from, copy_words_to};
use crate::clock;
use crate::errno::{Errno, Result};
use crate::fs::anon;
use crate::fs::caps::cap;
use crate::process::run::Caller;
use crate::process::signal::{
    self, Action, AltStack, LAST, SIGINFO_LEN, SS_AUTODISARM, SigInfo, SigSet, set_mask,
};
use crate::process::signalfd::SignalFile;
use crate::process::{Pid, Process, Task, table};
use crate::sched::{WaitQueue, WaitResult};
use alloc::sync::Arc;
use linux_raw_sys::general as abi;

pub const CALLS: &Calls = &[
    (abi::__NR_kill, kill),
    (abi::__NR_tkill, tkill),
    (abi::__NR_tgkill, tgkill),
    (abi::__NR_rt_sigqueueinfo, rt_sigqueueinfo),
    (abi::__NR_rt_tgsigqueueinfo, rt_tgsigqueueinfo),
    (abi::__NR_rt_sigaction, rt_sigaction),
    (abi::__NR_rt_sigprocmask, rt_sigprocmask),
    (abi::__NR_rt_sigpending, rt_sigpending),
    (abi::__NR_rt_sigsuspend, rt_sigsuspend),
    (abi::__NR_rt_sigtimedwait, rt_sigtimedwait),
    (abi::__NR_rt_sigreturn, signal::sigreturn),
    (abi::__NR_sigaltstack, sigaltstack),
    (abi::__NR_pause, pause),
    (abi::__NR_signalfd, signalfd),
    (abi::__NR_signalfd4, signalfd4),
    (abi::__NR_restart_syscall, restart_syscall),
];

/// A signal number; 0 asks only whether one may.
pub(super) fn number(raw: u64) -> Result<u32> {
    if raw as u32 <= LAST { Ok(raw as u32) } else { Err(Errno::EINVAL) }
}

/// EPERM unless the caller may send this process this signal (`kill(2)`).
fn permit(caller: &Caller, target: &Process, signo: u32) -> Result<()> {
    let me = caller.task.cred();
    let Some(task) = target.any_task() else { return Ok(()) };
    let other = task.cred();
    let may = me.may(cap::KILL)
        || [other.uid, other.suid].iter().any(|id| *id == me.euid || *id == me.uid)
        || signo == abi::SIGCONT && target.session() == caller.task.process.session();
    if may { Ok(()) } else { Err(Errno::EPERM) }
}

pub(super) fn mine(caller: &Caller, signo: u32, code: i32) -> SigInfo {
    SigInfo::user(signo, code, caller.task.process.pid, caller.task.uid())
}

pub(super) fn send(caller: &Caller, target: &Arc<Process>, info: SigInfo) -> Result<()> {
    permit(caller, target, info.signo)?;
    if info.signo == 0 { Ok(()) } else { signal::to_process(target, info) }
}

/// The kernel itself: it has no handlers, so what root may send changes nothing, as with Linux's `init`.
fn to_init(caller: &Caller) -> Result<u64> {
    if caller.task.cred().may(cap::KILL) { Ok(0) } else { Err(Errno::EPERM) }
}

fn kill(caller: &mut Caller) -> Result<u64> {
    let [pid, signo, ..] = caller.args();
    let pid = pid as Pid;
    let signo = number(signo).map_err(|bad| if is_somebody(pid) { bad } else { Errno::ESRCH })?;
    let own = pid == caller.task.process.pid;
    // Of the tasks of a process the first is asked first.
    if own && pid == caller.task.tid() && signal::raise(caller, signo, abi::SI_USER as i32) {
        return Ok(0);
    }
    let info = mine(caller, signo, abi::SI_USER as i32);
    if own && signo != 0 {
        // To itself a process may always.
        return signal::to_process(&caller.task.process, info).map(|()| 0);
    }
    if pid == table::INIT {
        return to_init(caller);
    }
    if pid > 0 {
        let target = table::process_of(pid).ok_or(Errno::ESRCH)?;
        return send(caller, &target, info).map(|()| 0);
    }
    let me = &caller.task.process;
    let group = match pid {
        0 => me.group(),
        Pid::MIN => return Err(Errno::ESRCH),
        _ => -pid,
    };
    let targets = table::each_process().filter(|p| match pid {
        -1 => p.pid != me.pid,
        _ => p.group() == group && !p.has_ended(),
    });
    // It is enough if one could be sent to.
    let mut result = Err(Errno::ESRCH);
    for target in targets {
        match send(caller, &target, info) {
            Ok(()) => result = Ok(0),
            Err(e) if result == Err(Errno::ESRCH) => result = Err(e),
            Err(_) => {}
        }
    }
    result
}

/// Whether `kill` with this number means anybody: that is asked before what is to be sent.
#[cold]
fn is_somebody(pid: Pid) -> bool {
    match pid {
        -1 | 0 => true,
        1.. => table::process_of(pid).is_some(),
        _ => pid.checked_neg().is_some_and(|group| table::group_members(group).next().is_some()),
    }
}

/// The number of a signal for one task; who it is is asked first.
fn number_for(group: Option<Pid>, tid: Pid, signo: u64) -> Result<u32> {
    number(signo).map_err(|bad| {
        if tid <= 0 || group.is_some_and(|g| g <= 0) {
            return Errno::EINVAL;
        }
        let named = table::task(tid).filter(|task| group.is_none_or(|g| g == task.process.pid));
        if named.is_some() { bad } else { Errno::ESRCH }
    })
}

pub(super) fn queue_for_task(caller: &Caller, group: Option<Pid>, tid: Pid, info: SigInfo) -> Result<u64> {
    if tid <= 0 || group.is_some_and(|g| g <= 0) {
        return Err(Errno::EINVAL);
    }
    if tid == table::INIT && group.is_none_or(|g| g == tid) {
        return to_init(caller);
    }
    let task: Arc<Task> = table::task(tid).ok_or(Errno::ESRCH)?;
    if group.is_some_and(|g| g != task.process.pid) {
        return Err(Errno::ESRCH);
    }
    permit(caller, &task.process, info.signo)?;
    if info.signo != 0 {
        signal::to_task(&task, info)?;
    }
    Ok(0)
}

/// `tkill`, `tgkill`.
fn send_to_task(caller: &mut Caller, group: Option<Pid>, tid: Pid, signo: u32) -> Result<u64> {
    let own = tid == caller.task.tid() && group.is_none_or(|g| g == caller.task.process.pid);
    if own && signal::raise(caller, signo, abi::SI_TKILL) {
        return Ok(0);
    }
    queue_for_task(caller, group, tid, mine(caller, signo, abi::SI_TKILL))
}

fn tkill(caller: &mut Caller) -> Result<u64> {
    let [tid, signo, ..] = caller.args();
    send_to_task(caller, None, tid as Pid, number_for(None, tid as Pid, signo)?)
}

fn tgkill(caller: &mut Caller) -> Result<u64> {
    let [group, tid, signo, ..] = caller.args();
    let signo = number_for(Some(group as Pid), tid as Pid, signo)?;
    send_to_task(caller, Some(group as Pid), tid as Pid, signo)
}

/// An info that the program made up. It may say what it likes to itself, but not pose as the kernel, or as `kill`, to others.
pub(super) fn made_up(caller: &Caller, target: Pid, signo: u64, at: u64) -> Result<SigInfo> {
    let mut raw = [0; SIGINFO_LEN];
    user::copy_from(&mut raw, at)?;
    let info = SigInfo::from_bytes(&raw);
    if (info.code >= 0 || info.code == abi::SI_TKILL) && target != caller.task.process.pid {
        return Err(Errno::EPERM);
    }
    Ok(SigInfo { signo: number(signo)?, ..info })
}

fn rt_sigqueueinfo(caller: &mut Caller) -> Result<u64> {
    let [pid, signo, at, ..] = caller.args();
    let info = made_up(caller, pid as Pid, signo, at)?;
    if pid as Pid == table::INIT {
        return to_init(caller);
    }
    let target = table::process_of(pid as Pid).ok_or(Errno::ESRCH)?;
    send(caller, &target, info).map(|()| 0)
}

fn rt_tgsigqueueinfo(caller: &mut Caller) -> Result<u64> {
    let [group, tid, signo, at, ..] = caller.args();
    let mut seen = [0; SIGINFO_LEN];
    user::copy_from(&mut seen, at)?;
    if group as Pid <= 0 || tid as Pid <= 0 {
        return Err(Errno::EINVAL);
    }
    let info = made_up(caller, group as Pid, signo, at)?;
    queue_for_task(caller, Some(group as Pid), tid as Pid, info)
}

/// The kernel's sigset has 8 bytes, and callers must say so.
fn check_size(size: u64) -> Result<()> {
    if size == 8 { Ok(()) } else { Err(Errno::EINVAL) }
}

fn rt_sigaction(caller: &mut Caller) -> Result<u64> {
    let [signo, new, old, size, ..] = caller.args();
    check_size(size)?;
    if new == 0 || old != 0 {
        return exchange(caller, signo, new, old);
    }
    let new = read_action(new)?;
    let signo = changeable(signo)?;
    let was = core::mem::replace(caller.actions.lock().of(signo), new);
    changed(caller, signo, was.handler, new.handler);
    Ok(0)
}

/// The same, and tell what the action was; or only tell.
#[inline(never)]
fn exchange(caller: &Caller, signo: u64, new: u64, old: u64) -> Result<u64> {
    let new = if new != 0 { Some(read_action(new)?) } else { None };
    let signo = match new {
        Some(_) => changeable(signo)?,
        None => number(signo).and_then(|n| if n == 0 { Err(Errno::EINVAL) } else { Ok(n) })?,
    };
    let mut actions = caller.actions.lock();
    let was = actions.get(signo);
    if let Some(new) = new {
        *actions.of(signo) = new;
    }
    drop(actions);
    if let Some(new) = new {
        changed(caller, signo, was.handler, new.handler);
    }
    if old != 0 {
        copy_words_to(old, &[was.handler, was.flags, was.restorer, was.mask.0])?;
    }
    Ok(0)
}

#[inline(always)]
fn read_action(at: u64) -> Result<Action> {
    let [handler, flags, restorer, mask] = copy_words_from(at)?;
    let mask = SigSet(mask).minus(SigSet::UNBLOCKABLE);
    Ok(Action { handler, flags: flags & KNOWN_FLAGS, restorer, mask })
}

/// A signal whose action can be changed.
#[inline(always)]
fn changeable(signo: u64) -> Result<u32> {
    let signo = number(signo)?;
    if signo == 0 || SigSet::UNBLOCKABLE.has(signo) { Err(Errno::EINVAL) } else { Ok(signo) }
}

/// What follows from it that the handler is another now.
#[inline(always)]
fn changed(caller: &Caller, signo: u32, was: u64, now: u64) {
    if was <= Action::IGNORE {
        listen(caller);
    }
    if now <= Action::IGNORE {
        stop_waiting(caller, signo, now);
    }
}

/// Timers whose signals were ignored have an ear again.
#[cold]
fn listen(caller: &Caller) {
    caller.task.process.timers.listen();
}

/// What is ignored from now on does not wait any more.
#[cold]
fn stop_waiting(caller: &Caller, signo: u32, handler: u64) {
    if (Action { handler, ..Action::default() }).ignores(signo) {
        signal::forget(&caller.task.process, SigSet::of(&[signo]));
    }
}

/// Flags that `rt_sigaction` keeps: a program can ask which of its flags are known by reading them back.
const KNOWN_FLAGS: u64 = (abi::SA_NOCLDSTOP
    | abi::SA_NOCLDWAIT
    | abi::SA_SIGINFO
    | abi::SA_ONSTACK
    | abi::SA_RESTART
    | abi::SA_NODEFER
    | abi::SA_RESETHAND
    | abi::SA_RESTORER) as u64;

fn rt_sigprocmask(caller: &mut Caller) -> Result<u64> {
    let [how, new, old, size, ..] = caller.args();
    check_size(size)?;
    let before = caller.task.mask();
    if new != 0 {
        let set = SigSet(user::read_u64(new)?);
        let mask = match how as u32 {
            abi::SIG_BLOCK => before.union(set),
            abi::SIG_UNBLOCK => before.minus(set),
            abi::SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL),
        };
        set_mask(&caller.task, mask);
    }
    if old != 0 {
        user::write_u64(old, before.0)?;
    }
    Ok(0)
}

fn rt_sigpending(caller: &mut Caller) -> Result<u64> {
    let [at, size, ..] = caller.args();
    if size > 8 {
        return Err(Errno::EINVAL);
    }
    let set = signal::waiting(&caller.task).both(caller.task.mask());
    user::copy_to(at, &set.0.to_le_bytes()[..size as usize])?;
    Ok(0)
}

/// A queue that nobody wakes: what ends the wait is an interruption.
static NOTHING: WaitQueue = WaitQueue::new();

fn rt_sigsuspend(caller: &mut Caller) -> Result<u64> {
    let [at, size, ..] = caller.args();
    check_size(size)?;
    let mask = SigSet(user::read_u64(at)?);
    caller.set_mask_until_return(mask);
    pause(caller)
}

fn pause(caller: &mut Caller) -> Result<u64> {
    let task = caller.task.clone();
    NOTHING.wait_until(|| signal::deliverable(&task), None, true);
    Err(Errno::RESTART_NOHAND)
}

fn rt_sigtimedwait(caller: &mut Caller) -> Result<u64> {
    let [set, info, timeout, size, ..] = caller.args();
    check_size(size)?;
    let wanted = SigSet(user::read_u64(set)?).minus(SigSet::UNBLOCKABLE);
    let deadline = if timeout != 0 {
        let mut spec = [0u64; 2];
        user::read_words(&mut spec, timeout)?;
        let [seconds, ns] = spec;
        if (seconds as i64) < 0 || ns >= 1_000_000_000 {
            return Err(Errno::EINVAL);
        }
        Some(clock::monotonic().saturating_add(seconds.saturating_mul(1_000_000_000)).saturating_add(ns))
    } else {
        None
    };
    let task = caller.task.clone();
    let mut found = signal::take(&task, wanted);
    if found.is_none() && deadline.is_none_or(|d| d > clock::monotonic()) {
        task.await_signals(wanted);
        let came = || !signal::waiting(&task).both(wanted).is_empty() || signal::deliverable(&task);
        let ended = NOTHING.wait_until(came, deadline, true);
        task.await_signals(SigSet::EMPTY);
        found = signal::take(&task, wanted);
        if found.is_none() && ended != WaitResult::TimedOut {
            caller.look_at_signals();
            return Err(Errno::EINTR);
        }
    }
    let found = found.ok_or(Errno::EAGAIN)?;
    if info != 0 {
        copy_words_to(info, &found.to_words())?;
    }
    Ok(found.signo as u64)
}

fn sigaltstack(caller: &mut Caller) -> Result<u64> {
    let [new, old, ..] = caller.args();
    let sp = caller.user.rsp();
    let before = caller.alt_stack;
    let in_use = before.holds(sp);
    if new != 0 {
        let mut raw = [0u64; 3];
        user::read_words(&mut raw, new)?;
        let [base, flags, size] = raw;
        let flags = flags as u32;
        if in_use {
            return Err(Errno::EPERM);
        }
        // Of none at all nobody asks whether it is disabled.
        let same = (base, size) == (before.base, before.size) && (flags == before.flags || size == 0);
        let next = match flags & !SS_AUTODISARM {
            // Nothing is to be changed, whatever it is.
            abi::SS_DISABLE | 0 | abi::SS_ONSTACK if same => before,
            abi::SS_DISABLE => AltStack { flags: flags | abi::SS_DISABLE, ..AltStack::NONE },
            0 | abi::SS_ONSTACK if size < abi::MINSIGSTKSZ as u64 => return Err(Errno::ENOMEM),
            0 | abi::SS_ONSTACK => AltStack { base, size, flags: flags & SS_AUTODISARM },
            _ => return Err(Errno::EINVAL),
        };
        caller.alt_stack = next;
    }
    if old != 0 {
        let flags = before.flags | if in_use { abi::SS_ONSTACK } else { 0 };
        user::write_words(old, &[before.base, flags as u64, before.size])?;
    }
    Ok(0)
}

/// Goes on with a relative wait that a stop, or a signal with no handler, interrupted.
fn restart_syscall(caller: &mut Caller) -> Result<u64> {
    match caller.resume.take() {
        Some(resume) => resume(caller),
        None => Err(Errno::EINTR),
    }
}

fn signalfd(caller: &mut Caller) -> Result<u64> {
    let [fd, set, size, ..] = caller.args();
    signal_file(caller, fd, set, size, 0)
}

fn signalfd4(caller: &mut Caller) -> Result<u64> {
    let [fd, set, size, flags, ..] = caller.args();
    signal_file(caller, fd, set, size, flags as u32)
}

/// A new file for these signals, or (`fd` is not -1) a new set for an old one.
fn signal_file(caller: &Caller, fd: u64, set: u64, size: u64, flags: u32) -> Result<u64> {
    check_size(size)?;
    let set = SigSet(user::read_u64(set)?);
    let flags = at::check_flags(flags as u64, abi::O_CLOEXEC | abi::O_NONBLOCK)?;
    if fd as i32 == -1 {
        let status = flags & abi::O_NONBLOCK | abi::O_RDWR;
        let file = anon::open(Arc::new(SignalFile::new(set)), "signalfd", status)?;
        return at::install(caller, file, flags & abi::O_CLOEXEC != 0);
    }
    let file = at::file(caller, fd)?;
    file.ops_as::<SignalFile>().ok_or(Errno::EINVAL)?.set(set);
    Ok(fd as u32 as u64)
}
