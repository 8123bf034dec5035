//! Limits, and what the machine has left: `getrlimit`, `prlimit64`, `sysinfo`.
#![forbid(unsafe_code)]

use super::{Calls, words};
use crate::clock;
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::mem::memory;
use crate::process::Process;
use crate::process::limits::Limit;
use crate::process::run::Caller;
use crate::process::{host, table};
use alloc::sync::Arc;
use hafez_mm::PAGE_SIZE;
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[
    (abi::__NR_getrlimit, getrlimit),
    (abi::__NR_setrlimit, setrlimit),
    (abi::__NR_prlimit64, prlimit64),
    (abi::__NR_sysinfo, sysinfo),
];

fn getrlimit(caller: &mut Caller) -> Result<u64> {
    let [kind, to, ..] = caller.args();
    let Limit { soft, hard } = caller.task.process.limits.get(kind as u32)?;
    words::put(to, [soft, hard])?;
    Ok(0)
}

fn setrlimit(caller: &mut Caller) -> Result<u64> {
    let [kind, from, ..] = caller.args();
    let [soft, hard] = words::get(from)?;
    change(caller, &caller.task.process.clone(), kind as u32, Limit { soft, hard })?;
    Ok(0)
}

fn change(caller: &Caller, process: &Arc<Process>, kind: u32, new: Limit) -> Result<Limit> {
    let old = process.limits.set(kind, new, caller.task.cred().may(cap::SYS_RESOURCE))?;
    if kind == abi::RLIMIT_CPU {
        process.timers.watch_cpu_limit(process)?;
    }
    Ok(old)
}

fn prlimit64(caller: &mut Caller) -> Result<u64> {
    let [pid, kind, from, to, ..] = caller.args();
    let kind = kind as u32;
    let new = match from {
        0 => None,
        from => Some(words::get(from)?),
    };
    let process = match pid as i32 {
        0 => caller.task.process.clone(),
        pid => table::process_of(pid).ok_or(Errno::ESRCH)?,
    };
    may_change(caller, &process)?;
    let old = match new {
        Some([soft, hard]) => change(caller, &process, kind, Limit { soft, hard })?,
        None => process.limits.get(kind)?,
    };
    if to != 0 {
        words::put(to, [old.soft, old.hard])?;
    }
    Ok(0)
}

/// The limits of one's own processes may be seen and set, those of others by root alone.
fn may_change(caller: &Caller, process: &Arc<Process>) -> Result<()> {
    let mine = caller.task.cred();
    if process.pid == caller.task.process.pid || mine.may(cap::SYS_RESOURCE) {
        return Ok(());
    }
    let theirs = process.any_task().ok_or(Errno::ESRCH)?.cred();
    let users = [theirs.uid, theirs.euid, theirs.suid].iter().all(|&uid| uid == mine.uid);
    let groups = [theirs.gid, theirs.egid, theirs.sgid].iter().all(|&gid| gid == mine.gid);
    if users && groups { Ok(()) } else { Err(Errno::EPERM) }
}

fn sysinfo(caller: &mut Caller) -> Result<u64> {
    let [to, ..] = caller.args();
    let stats = memory().stats();
    let mut info = words::Layout::<112>::new();
    let loads = host::loads().map(|load| load << (linux_raw_sys::system::SI_LOAD_SHIFT - host::LOAD_BITS));
    let uptime = clock::monotonic() / clock::SECOND;
    let [total, free, shared, swap, swap_free] =
        [stats.total, stats.free, stats.shared, stats.swap_total, stats.swap_free]
            .map(|n| n * PAGE_SIZE as u64);
    let first = [uptime, loads[0], loads[1], loads[2], total, free, shared, 0, swap, swap_free];
    for (i, word) in first.iter().enumerate() {
        info.set(8 * i, &word.to_ne_bytes());
    }
    let tasks = table::task_count() as u16;
    info.set(80, &tasks.to_ne_bytes());
    // No high memory; and the sizes above are in units of one byte.
    info.set(104, &1u32.to_ne_bytes());
    info.put(to)?;
    Ok(0)
}
