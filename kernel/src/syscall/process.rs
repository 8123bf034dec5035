//! Processes and tasks: making, ending, waiting; who they are; what they set for themselves.

use super::{Calls, user};
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::process::fork::CloneArgs;
use crate::process::pidfd::PidFile;
use crate::process::process::Usage;
use crate::process::rseq;
use crate::process::run::Caller;
use crate::process::signal::LAST;
use crate::process::wait::{self, Selector, Status, Waited, Whom};
use crate::process::{Pid, exec, exit, fork, table};
use crate::sched;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

pub const CALLS: &Calls = &[
    (abi::__NR_getpid, getpid),
    (abi::__NR_getppid, getppid),
    (abi::__NR_gettid, gettid),
    (abi::__NR_getpgrp, getpgrp),
    (abi::__NR_getpgid, getpgid),
    (abi::__NR_getsid, getsid),
    (abi::__NR_setpgid, setpgid),
    (abi::__NR_setsid, setsid),
    (abi::__NR_fork, fork),
    (abi::__NR_vfork, vfork),
    (abi::__NR_clone, clone),
    (abi::__NR_clone3, clone3),
    (abi::__NR_execve, execve),
    (abi::__NR_execveat, execveat),
    (abi::__NR_exit, exit),
    (abi::__NR_exit_group, exit_group),
    (abi::__NR_unshare, unshare),
    (abi::__NR_wait4, wait4),
    (abi::__NR_waitid, waitid),
    (abi::__NR_set_tid_address, set_tid_address),
    (abi::__NR_set_robust_list, set_robust_list),
    (abi::__NR_get_robust_list, get_robust_list),
    (abi::__NR_rseq, rseq),
    (abi::__NR_sched_yield, sched_yield),
    (abi::__NR_getrusage, getrusage),
    (abi::__NR_times, times),
];

fn getpid(caller: &mut Caller) -> Result<u64> {
    Ok(caller.task.process.pid as u64)
}

fn getppid(caller: &mut Caller) -> Result<u64> {
    Ok(caller.task.process.parent() as u64)
}

fn gettid(caller: &mut Caller) -> Result<u64> {
    Ok(caller.task.tid() as u64)
}

fn getpgrp(caller: &mut Caller) -> Result<u64> {
    Ok(caller.task.process.group() as u64)
}

/// The number given, or the caller's own for 0. Negative numbers name nobody.
fn whom(caller: &Caller, pid: u64) -> Result<Pid> {
    match pid as Pid {
        0 => Ok(caller.task.process.pid),
        pid if pid > 0 => Ok(pid),
        _ => Err(Errno::ESRCH),
    }
}

fn getpgid(caller: &mut Caller) -> Result<u64> {
    let pid = whom(caller, caller.args()[0])?;
    let process = table::process_of(pid).ok_or(Errno::ESRCH)?;
    Ok(table::group_and_session(process.pid)?.0 as u64)
}

fn getsid(caller: &mut Caller) -> Result<u64> {
    let pid = whom(caller, caller.args()[0])?;
    let process = table::process_of(pid).ok_or(Errno::ESRCH)?;
    Ok(table::group_and_session(process.pid)?.1 as u64)
}

fn setpgid(caller: &mut Caller) -> Result<u64> {
    let [pid, group, ..] = caller.args();
    if (pid as Pid) < 0 || (group as Pid) < 0 {
        return Err(if group as Pid > 0 { Errno::ESRCH } else { Errno::EINVAL });
    }
    let pid = whom(caller, pid)?;
    // A thread's number, but not its process's.
    if table::process_of(pid).is_some_and(|process| process.pid != pid) {
        return Err(Errno::EINVAL);
    }
    let group = if group as Pid == 0 { pid } else { group as Pid };
    table::set_group(&caller.task.process, pid, group)?;
    Ok(0)
}

fn setsid(caller: &mut Caller) -> Result<u64> {
    Ok(table::new_session(&caller.task.process)? as u64)
}

fn fork(caller: &mut Caller) -> Result<u64> {
    let args = CloneArgs { exit_signal: abi::SIGCHLD, ..CloneArgs::default() };
    Ok(fork::clone(caller, &args)? as u64)
}

fn vfork(caller: &mut Caller) -> Result<u64> {
    let flags = (abi::CLONE_VM | abi::CLONE_VFORK) as u64;
    let args = CloneArgs { flags, exit_signal: abi::SIGCHLD, ..CloneArgs::default() };
    Ok(fork::clone(caller, &args)? as u64)
}

fn clone(caller: &mut Caller) -> Result<u64> {
    let [flags, stack, parent_tid, child_tid, tls, _] = caller.args();
    let signal = (flags & abi::CSIGNAL as u64) as u32;
    // Only the lower half is flags here; `clone3` has the rest.
    let flags = flags as u32 as u64 & !(abi::CSIGNAL as u64);
    if flags & abi::CLONE_PIDFD as u64 != 0
        && flags & (abi::CLONE_PARENT_SETTID | abi::CLONE_DETACHED) as u64 != 0
    {
        // The descriptor goes where the number would go.
        return Err(Errno::EINVAL);
    }
    let pidfd = parent_tid;
    let args = CloneArgs {
        flags,
        stack,
        exit_signal: signal,
        parent_tid,
        child_tid,
        tls,
        pidfd,
        ..CloneArgs::default()
    };
    Ok(fork::clone(caller, &args)? as u64)
}

fn clone3(caller: &mut Caller) -> Result<u64> {
    let [at, size, ..] = caller.args();
    if size < abi::CLONE_ARGS_SIZE_VER0 as u64 {
        return Err(Errno::EINVAL);
    }
    if size > hafez_mm::PAGE_SIZE as u64 {
        return Err(Errno::E2BIG);
    }
    let mut raw = [0u64; 11];
    let known = (size as usize).min(8 * raw.len());
    let mut bytes = [0u8; 88];
    user::copy_from(&mut bytes[..known], at)?;
    for (word, eight) in raw.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = eight.iter().rev().fold(0, |sum, byte| sum << 8 | *byte as u64);
    }
    // A newer program may say more than is known here, as long as it says zero.
    for extra in known as u64..size {
        let mut byte = [0];
        user::copy_from(&mut byte, at.wrapping_add(extra))?;
        if byte[0] != 0 {
            return Err(Errno::E2BIG);
        }
    }
    let [flags, pidfd, child_tid, parent_tid, signal, stack, stack_size, tls, set_tid, set_tid_size, _cgroup] =
        raw;
    const KNOWN: u64 = u32::MAX as u64 | abi::CLONE_CLEAR_SIGHAND | abi::CLONE_INTO_CGROUP;
    let wrong = flags & (abi::CSIGNAL as u64 | abi::CLONE_DETACHED as u64 | !KNOWN) != 0
        || signal > LAST as u64
        || (stack == 0) != (stack_size == 0)
        || (set_tid == 0) != (set_tid_size == 0)
        // One number for each nested namespace of processes, of which there is one.
        || set_tid_size > 1
        || flags & (abi::CLONE_THREAD | abi::CLONE_PARENT) as u64 != 0 && signal != 0;
    if wrong || stack.checked_add(stack_size).is_none() {
        return Err(Errno::EINVAL);
    }
    let number = if set_tid == 0 { 0 } else { chosen_number(caller, set_tid)? };
    let args = CloneArgs {
        flags,
        stack: stack + stack_size,
        exit_signal: signal as u32,
        parent_tid,
        child_tid,
        tls,
        pidfd,
        number,
    };
    Ok(fork::clone(caller, &args)? as u64)
}

/// The number that `clone3` is asked to give: root may.
fn chosen_number(caller: &Caller, at: u64) -> Result<Pid> {
    let number = user::read_u32(at)? as Pid;
    if number <= 0 {
        return Err(Errno::EINVAL);
    }
    if caller.task.cred().may(cap::LAST) || caller.task.cred().may(cap::SYS_ADMIN) {
        Ok(number)
    } else {
        Err(Errno::EPERM)
    }
}

fn execve(caller: &mut Caller) -> Result<u64> {
    let [path, argv, envp, ..] = caller.args();
    exec::execve(caller, abi::AT_FDCWD, path, argv, envp, 0)
}

fn execveat(caller: &mut Caller) -> Result<u64> {
    let [dir, path, argv, envp, flags, _] = caller.args();
    exec::execve(caller, dir as i32, path, argv, envp, flags as u32)
}

/// What threads share and a task can have for itself: descriptors, directories. Of namespaces there is one of each.
fn unshare(caller: &mut Caller) -> Result<u64> {
    let flags = caller.args()[0] as u32;
    let alone = caller.task.process.task_count() == 1;
    // With one thread, these are unshared already.
    let threads = abi::CLONE_THREAD | abi::CLONE_SIGHAND | abi::CLONE_VM;
    if flags & !(abi::CLONE_FILES | abi::CLONE_FS | abi::CLONE_SYSVSEM | threads) != 0
        || flags & threads != 0 && !alone
    {
        return Err(Errno::EINVAL);
    }
    if flags & abi::CLONE_FILES != 0 {
        let own = caller.task.files().fork_copy()?;
        drop(caller.task.replace_files(own));
    }
    if flags & abi::CLONE_FS != 0 {
        caller.task.unshare_fs();
    }
    Ok(0)
}

fn exit(caller: &mut Caller) -> Result<u64> {
    let code = caller.args()[0] as u8;
    exit::end_task(caller, code);
    Ok(0)
}

fn exit_group(caller: &mut Caller) -> Result<u64> {
    let code = caller.args()[0] as u8;
    exit::end_process(&caller.task.process, Status::Exited(code));
    Ok(0)
}

fn wait4(caller: &mut Caller) -> Result<u64> {
    let [pid, status_at, options, usage_at, ..] = caller.args();
    let options = options as u32;
    let known =
        abi::WNOHANG | abi::WUNTRACED | abi::WCONTINUED | abi::__WNOTHREAD | abi::__WCLONE | abi::__WALL;
    if options & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let whom = match pid as Pid {
        Pid::MIN => return Err(Errno::ESRCH),
        -1 => Whom::Any,
        0 => Whom::Group(caller.task.process.group()),
        pid if pid < 0 => Whom::Group(-pid),
        pid => Whom::Pid(pid),
    };
    let selector = Selector {
        whom,
        ended: true,
        stopped: options & abi::WUNTRACED != 0,
        continued: options & abi::WCONTINUED != 0,
        keep: false,
        clones: options & abi::__WCLONE != 0,
        all: options & abi::__WALL != 0,
    };
    let Some(waited) = wait::wait(caller, &selector, options & abi::WNOHANG != 0)? else { return Ok(0) };
    if status_at != 0 {
        user::write_u32(status_at, waited.status.to_wait())?;
    }
    if usage_at != 0 {
        write_usage(usage_at, &waited.usage())?;
    }
    Ok(waited.pid as u64)
}

fn waitid(caller: &mut Caller) -> Result<u64> {
    let [_, _, info_at, _, usage_at, _] = caller.args();
    let found = waitid_found(caller);
    let waited = found.as_ref().ok().and_then(Option::as_ref);
    if let (Some(waited), true) = (waited, usage_at != 0) {
        write_usage(usage_at, &waited.usage())?;
    }
    if info_at != 0 {
        let (signo, code, pid, uid, status) = match waited {
            Some(w) => {
                let (code, status) = w.status.to_info();
                (abi::SIGCHLD, code, w.pid, w.process.uid(), status)
            }
            None => (0, 0, 0, 0, 0),
        };
        // Only these fields, and those after an error too; the rest of the caller's siginfo stays as it is.
        let words = [signo, 0, code as u32, 0, pid as u32, uid, status as u32];
        for (i, word) in words.into_iter().enumerate().filter(|(i, _)| *i != 3) {
            user::write_u32(info_at.wrapping_add(4 * i as u64), word)?;
        }
    }
    found.map(|_| 0)
}

/// What the caller's arguments to `waitid` ask for.
fn waitid_found(caller: &mut Caller) -> Result<Option<Waited>> {
    let [kind, id, _, options, ..] = caller.args();
    let options = options as u32;
    let what = abi::WEXITED | abi::WSTOPPED | abi::WCONTINUED;
    let how = abi::WNOHANG | abi::WNOWAIT | abi::__WNOTHREAD | abi::__WCLONE | abi::__WALL;
    if options & !(what | how) != 0 || options & what == 0 {
        return Err(Errno::EINVAL);
    }
    let mut now = options & abi::WNOHANG != 0;
    let mut again = false;
    let id = id as Pid;
    let whom = match kind as u32 {
        abi::P_PIDFD if id >= 0 => {
            let file = caller.task.files().get(id as u32)?;
            let process = PidFile::of(&file)?;
            again = !now && file.flags() & abi::O_NONBLOCK != 0;
            now |= again;
            // One that has been waited for is nobody's child.
            if !table::holds(process) {
                return Err(Errno::ECHILD);
            }
            Whom::Pid(process.pid)
        }
        abi::P_ALL => Whom::Any,
        abi::P_PID if id > 0 => Whom::Pid(id),
        abi::P_PGID if id > 0 => Whom::Group(id),
        abi::P_PGID if id == 0 => Whom::Group(caller.task.process.group()),
        _ => return Err(Errno::EINVAL),
    };
    let selector = Selector {
        whom,
        ended: options & abi::WEXITED != 0,
        stopped: options & abi::WSTOPPED != 0,
        continued: options & abi::WCONTINUED != 0,
        keep: options & abi::WNOWAIT != 0,
        clones: options & abi::__WCLONE != 0,
        all: options & abi::__WALL != 0,
    };
    let waited = wait::wait(caller, &selector, now)?;
    if waited.is_none() && again { Err(Errno::EAGAIN) } else { Ok(waited) }
}

/// `struct rusage`.
fn write_usage(at: u64, usage: &Usage) -> Result<()> {
    let time = |ns: u64| [ns / 1_000_000_000, ns % 1_000_000_000 / 1000];
    let mut words = [0u64; 18];
    words[0..2].copy_from_slice(&time(usage.user));
    words[2..4].copy_from_slice(&time(usage.system));
    words[4] = usage.peak * 4; // KiB
    words[8] = usage.minor;
    words[9] = usage.major;
    words[16] = usage.voluntary;
    words[17] = usage.involuntary;
    user::write_words(at, &words)
}

fn getrusage(caller: &mut Caller) -> Result<u64> {
    let [who, at, ..] = caller.args();
    let process = &caller.task.process;
    let usage = match who as i32 {
        abi::RUSAGE_CHILDREN => process.times.lock().children,
        0 => process.usage(),
        1 => caller.task.usage(),
        _ => return Err(Errno::EINVAL),
    };
    write_usage(at, &usage)?;
    Ok(0)
}

fn times(caller: &mut Caller) -> Result<u64> {
    let at = caller.args()[0];
    if at != 0 {
        let own = caller.task.process.usage();
        let children = caller.task.process.times.lock().children;
        let ticks = [own.user, own.system, children.user, children.system].map(|ns| ns / exit::NS_PER_TICK);
        user::write_words(at, &ticks)?;
    }
    Ok(crate::clock::monotonic() / exit::NS_PER_TICK)
}

fn set_tid_address(caller: &mut Caller) -> Result<u64> {
    caller.task.clear_child_tid.store(caller.args()[0], Ordering::Relaxed);
    Ok(caller.task.tid() as u64)
}

/// Bytes of `struct robust_list_head`.
const ROBUST_HEAD: u64 = 24;

fn set_robust_list(caller: &mut Caller) -> Result<u64> {
    let [head, len, ..] = caller.args();
    if len != ROBUST_HEAD {
        return Err(Errno::EINVAL);
    }
    caller.task.robust_list.store(head, Ordering::Relaxed);
    Ok(0)
}

/// `RSEQ_FLAG_UNREGISTER`
const UNREGISTER: u32 = 1;

fn rseq(caller: &mut Caller) -> Result<u64> {
    let [at, len, flags, signature, ..] = caller.args();
    let (len, signature) = (len as u32, signature as u32);
    match flags as u32 {
        0 => rseq::register(caller, at, len, signature)?,
        UNREGISTER => rseq::unregister(caller, at, len, signature)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

fn get_robust_list(caller: &mut Caller) -> Result<u64> {
    let [tid, head_at, len_at, ..] = caller.args();
    let task = match tid as Pid {
        0 => caller.task.clone(),
        tid => table::task(tid).ok_or(Errno::ESRCH)?,
    };
    let (me, other) = (caller.task.cred(), task.cred());
    if !me.may(cap::SYS_PTRACE) && me.uid != other.uid {
        return Err(Errno::EPERM);
    }
    user::write_u64(len_at, ROBUST_HEAD)?;
    user::write_u64(head_at, task.robust_list.load(Ordering::Relaxed))?;
    Ok(0)
}

fn sched_yield(_caller: &mut Caller) -> Result<u64> {
    sched::yield_now();
    Ok(0)
}
