//! Scheduling as programs see it: nice values, policies, affinity.
//!
//! There is a fair policy, under the names `SCHED_OTHER`, `SCHED_BATCH` and `SCHED_IDLE`, and there are the real-time ones, `SCHED_FIFO`
//! and `SCHED_RR`; the name that a thread chose is kept and told. Deadlines are refused with EPERM, as to a user without
//! the privilege, so that no program relies on what is not there.
#![forbid(unsafe_code)]

use super::{Calls, words};
use crate::arch::user;
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::mem::TryPush;
use crate::process::run::Caller;
use crate::process::table;
use crate::process::task::Task;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[
    (abi::__NR_sched_getaffinity, getaffinity),
    (abi::__NR_sched_setaffinity, setaffinity),
    (abi::__NR_sched_getscheduler, getscheduler),
    (abi::__NR_sched_setscheduler, setscheduler),
    (abi::__NR_sched_getparam, getparam),
    (abi::__NR_sched_setparam, setparam),
    (abi::__NR_sched_getattr, getattr),
    (abi::__NR_sched_setattr, setattr),
    (abi::__NR_sched_get_priority_max, priority_max),
    (abi::__NR_sched_get_priority_min, priority_min),
    (abi::__NR_sched_rr_get_interval, rr_get_interval),
    (abi::__NR_getpriority, getpriority),
    (abi::__NR_setpriority, setpriority),
];

/// The thread that `pid` names, 0 being the caller.
fn named(caller: &Caller, pid: u64) -> Result<Arc<Task>> {
    match pid as i32 {
        0 => Ok(caller.task.clone()),
        pid => table::task(pid).ok_or(Errno::ESRCH),
    }
}

/// The same for calls that take a negative number for a bad argument.
fn target(caller: &Caller, pid: u64) -> Result<Arc<Task>> {
    if (pid as i32) < 0 { Err(Errno::EINVAL) } else { named(caller, pid) }
}

/// Whether the caller may change how `task` is scheduled.
fn owns(caller: &Caller, task: &Task) -> bool {
    let (mine, theirs) = (caller.task.cred(), task.cred());
    mine.may(cap::SYS_NICE) || mine.euid == theirs.euid || mine.euid == theirs.uid
}

fn getaffinity(caller: &mut Caller) -> Result<u64> {
    let [pid, len, to, ..] = caller.args();
    // The kernel's own set of CPUs is one word; it must fit, and what it is copied to must be of whole words.
    if len & 7 != 0 || len == 0 {
        return Err(Errno::EINVAL);
    }
    let thread = named(caller, pid)?.thread().ok_or(Errno::ESRCH)?;
    words::put(to, [thread.affinity()])?;
    Ok(8)
}

fn setaffinity(caller: &mut Caller) -> Result<u64> {
    let [pid, len, from, ..] = caller.args();
    let mut raw = [0; 8];
    let len = (len as u32 as usize).min(8);
    if len > 0 {
        user::copy_from(&mut raw[..len], from)?;
    }
    let task = named(caller, pid)?;
    if !owns(caller, &task) {
        return Err(Errno::EPERM);
    }
    let thread = task.thread().ok_or(Errno::ESRCH)?;
    if thread.set_affinity(u64::from_le_bytes(raw)) { Ok(0) } else { Err(Errno::EINVAL) }
}

fn getscheduler(caller: &mut Caller) -> Result<u64> {
    let [pid, ..] = caller.args();
    let task = target(caller, pid)?;
    let reset = if task.reset_on_fork.load(Relaxed) { abi::SCHED_RESET_ON_FORK } else { 0 };
    Ok((task.policy.load(Relaxed) | reset).into())
}

fn setscheduler(caller: &mut Caller) -> Result<u64> {
    let [pid, policy, parameter, ..] = caller.args();
    if (policy as i32) < 0 || parameter == 0 || (pid as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    let priority = user::read_u32(parameter)?;
    let task = target(caller, pid)?;
    // A deadline takes more than a priority: `sched_setattr`.
    if policy as u32 & !abi::SCHED_RESET_ON_FORK == abi::SCHED_DEADLINE {
        return Err(Errno::EINVAL);
    }
    let reset = policy as u32 & abi::SCHED_RESET_ON_FORK != 0;
    set_policy(caller, &task, policy as u32 & !abi::SCHED_RESET_ON_FORK, priority, reset)
}

fn set_policy(caller: &Caller, task: &Task, policy: u32, priority: u32, reset: bool) -> Result<u64> {
    match policy {
        abi::SCHED_NORMAL | abi::SCHED_BATCH | abi::SCHED_IDLE if priority != 0 => return Err(Errno::EINVAL),
        abi::SCHED_NORMAL | abi::SCHED_BATCH | abi::SCHED_IDLE => {}
        abi::SCHED_FIFO | abi::SCHED_RR if priority == 0 || priority > RT_MAX => return Err(Errno::EINVAL),
        abi::SCHED_FIFO | abi::SCHED_RR if may_hurry(caller, task, policy, priority) => {}
        abi::SCHED_FIFO | abi::SCHED_RR | abi::SCHED_DEADLINE => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    }
    let stays_reset = reset || !task.reset_on_fork.load(Relaxed) || caller.task.cred().may(cap::SYS_NICE);
    if !owns(caller, task) || !stays_reset {
        return Err(Errno::EPERM);
    }
    // Idle is nicer than the nicest: to leave it is to ask for more.
    let leaves_idle = task.policy.load(Relaxed) == abi::SCHED_IDLE && policy != abi::SCHED_IDLE;
    if leaves_idle && !caller.task.cred().may(cap::SYS_NICE) && !within_limit(task, task.nice.load(Relaxed)) {
        return Err(Errno::EPERM);
    }
    task.reset_on_fork.store(reset, Relaxed);
    task.policy.store(policy, Relaxed);
    task.priority.store(priority, Relaxed);
    task.weigh();
    if core::ptr::eq(task, &*caller.task) {
        // Others may come first now.
        crate::sched::yield_now();
    }
    Ok(0)
}

/// Whether the caller may give `task` this real-time policy and priority: with the capability, or as far as RLIMIT_RTPRIO goes.
fn may_hurry(caller: &Caller, task: &Task, policy: u32, priority: u32) -> bool {
    let limit = task.process.limits.soft(abi::RLIMIT_RTPRIO);
    let same = policy == task.policy.load(Relaxed) || limit > 0;
    let raises = priority > task.priority.load(Relaxed) && u64::from(priority) > limit;
    caller.task.cred().may(cap::SYS_NICE) || same && !raises
}

fn getparam(caller: &mut Caller) -> Result<u64> {
    let [pid, to, ..] = caller.args();
    if to == 0 {
        return Err(Errno::EINVAL);
    }
    user::write_u32(to, target(caller, pid)?.priority.load(Relaxed))?;
    Ok(0)
}

fn setparam(caller: &mut Caller) -> Result<u64> {
    let [pid, from, ..] = caller.args();
    if from == 0 || (pid as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    let priority = user::read_u32(from)?;
    let task = target(caller, pid)?;
    set_policy(caller, &task, task.policy.load(Relaxed), priority, task.reset_on_fork.load(Relaxed))
}

/// Bytes of the first version of `struct sched_attr`: size, policy, flags (8), nice, priority, runtime (8), deadline (8), period (8).
const ATTR: usize = 48;

fn getattr(caller: &mut Caller) -> Result<u64> {
    let [pid, to, size, flags, ..] = caller.args();
    if to == 0 || (size as u32 as usize) < ATTR || size as u32 > 4096 || flags as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let task = target(caller, pid)?;
    let mut attr = words::Layout::<ATTR>::new();
    attr.set(0, &(ATTR as u32).to_ne_bytes());
    attr.set(4, &task.policy.load(Relaxed).to_ne_bytes());
    let reset = if task.reset_on_fork.load(Relaxed) { abi::SCHED_FLAG_RESET_ON_FORK } else { 0 };
    attr.set(8, &u64::from(reset).to_ne_bytes());
    attr.set(16, &task.nice.load(Relaxed).to_ne_bytes());
    attr.set(20, &task.priority.load(Relaxed).to_ne_bytes());
    attr.put(to)?;
    Ok(0)
}

fn setattr(caller: &mut Caller) -> Result<u64> {
    let [pid, from, flags, ..] = caller.args();
    if from == 0 || flags as u32 != 0 || (pid as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    let mut raw = [0; ATTR];
    let int =
        |raw: &[u8; ATTR], at: usize| u32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
    let size = match user::read_u32(from)? as usize {
        0 => ATTR,
        size if size < ATTR => {
            user::write_u32(from, ATTR as u32)?;
            return Err(Errno::E2BIG);
        }
        size => size,
    };
    user::copy_from(&mut raw, from)?;
    // What a later version of the structure adds must be 0.
    let mut at = from + ATTR as u64;
    while at < from + (size as u64).min(4096) {
        let mut byte = [0];
        user::copy_from(&mut byte, at)?;
        if byte[0] != 0 {
            user::write_u32(from, ATTR as u32)?;
            return Err(Errno::E2BIG);
        }
        at += 1;
    }
    let known = u64::from(abi::SCHED_FLAG_RESET_ON_FORK | abi::SCHED_FLAG_KEEP_ALL);
    let flags = u64::from(int(&raw, 8)) | u64::from(int(&raw, 12)) << 32;
    if flags & !known != 0 || (int(&raw, 4) as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    let task = target(caller, pid)?;
    let nice = (int(&raw, 16) as i32).clamp(-20, 19);
    let normal = matches!(int(&raw, 4), abi::SCHED_NORMAL | abi::SCHED_BATCH);
    let sets_nice = normal && flags & u64::from(abi::SCHED_FLAG_KEEP_PARAMS) == 0;
    if sets_nice && !may_nice(caller, &task, nice) {
        return Err(Errno::EPERM);
    }
    let reset = flags & u64::from(abi::SCHED_FLAG_RESET_ON_FORK) != 0;
    let keeps = |flag: u32| flags & u64::from(flag) != 0;
    let (policy, priority) = match () {
        _ if keeps(abi::SCHED_FLAG_KEEP_POLICY) => (task.policy.load(Relaxed), task.priority.load(Relaxed)),
        _ => (int(&raw, 4), int(&raw, 20)),
    };
    set_policy(caller, &task, policy, priority, reset)?;
    if sets_nice {
        task.nice.store(nice, Relaxed);
        task.weigh();
    }
    Ok(0)
}

/// The highest real-time priority.
const RT_MAX: u32 = 99;

fn priority_max(caller: &mut Caller) -> Result<u64> {
    let [policy, ..] = caller.args();
    priority_bound(policy as u32, RT_MAX)
}

fn priority_min(caller: &mut Caller) -> Result<u64> {
    let [policy, ..] = caller.args();
    priority_bound(policy as u32, 1)
}

fn priority_bound(policy: u32, real_time: u32) -> Result<u64> {
    match policy {
        abi::SCHED_FIFO | abi::SCHED_RR => Ok(real_time.into()),
        abi::SCHED_NORMAL | abi::SCHED_BATCH | abi::SCHED_IDLE | abi::SCHED_DEADLINE | abi::SCHED_EXT => {
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn rr_get_interval(caller: &mut Caller) -> Result<u64> {
    let [pid, to, ..] = caller.args();
    let waits = target(caller, pid)?.policy.load(Relaxed) == abi::SCHED_FIFO;
    words::put(to, words::timespec(if waits { 0 } else { crate::sched::SLICE }))?;
    Ok(0)
}

/// The threads that `which` and `who` name.
fn targets(caller: &Caller, which: u64, who: u64) -> Result<Vec<Arc<Task>>> {
    let who = who as i32;
    let own = &caller.task.process;
    let mut all: Vec<Arc<Task>> = Vec::new();
    match which as u32 {
        abi::PRIO_PROCESS if who == 0 => all.try_push(caller.task.clone())?,
        abi::PRIO_PROCESS => table::task(who).into_iter().try_for_each(|task| all.try_push(task))?,
        abi::PRIO_PGRP => {
            let group = if who == 0 { own.group() } else { who };
            for process in table::each_process().filter(|p| p.group() == group) {
                process.tasks().try_for_each(|task| all.try_push(task))?;
            }
        }
        abi::PRIO_USER => {
            let uid = if who == 0 { caller.task.cred().uid } else { who as u32 };
            for process in table::each_process() {
                let tasks = process.tasks().filter(|task| task.cred().uid == uid);
                tasks.into_iter().try_for_each(|task| all.try_push(task))?;
            }
        }
        _ => return Err(Errno::EINVAL),
    }
    if all.is_empty() { Err(Errno::ESRCH) } else { Ok(all) }
}

/// The kernel's answer is never negative: 40 (for nice -20) to 1 (for 19).
fn getpriority(caller: &mut Caller) -> Result<u64> {
    let [which, who, ..] = caller.args();
    let best = targets(caller, which, who)?.iter().map(|task| 20 - task.nice.load(Relaxed)).max();
    Ok(best.unwrap_or(20) as u64)
}

fn setpriority(caller: &mut Caller) -> Result<u64> {
    let [which, who, nice, ..] = caller.args();
    let nice = (nice as i32).clamp(abi::PRIO_MIN, 19);
    let mut result = Ok(0);
    for task in targets(caller, which, who)? {
        if !owns(caller, &task) {
            result = Err(Errno::EPERM);
        } else if !may_nice(caller, &task, nice) {
            result = Err(Errno::EACCES);
        } else {
            task.nice.store(nice, Relaxed);
            task.weigh();
        }
    }
    result
}

/// Whether the caller may give `task` this nice value: a higher one always, a lower one as far as RLIMIT_NICE goes.
fn may_nice(caller: &Caller, task: &Task, nice: i32) -> bool {
    nice >= task.nice.load(Relaxed) || caller.task.cred().may(cap::SYS_NICE) || within_limit(task, nice)
}

fn within_limit(task: &Task, nice: i32) -> bool {
    (20 - nice) as u64 <= task.process.limits.soft(abi::RLIMIT_NICE)
}
