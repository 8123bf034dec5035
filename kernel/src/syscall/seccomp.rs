//! `seccomp(2)`: putting filters before one's own calls, and asking them.
#![forbid(unsafe_code)]

use super::{Calls, user};
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::process::control;
use crate::process::exit::{end_process, end_task};
use crate::process::run::Caller;
use crate::process::seccomp::{ARCHITECTURE, DATA, Filter, Guard, Instruction, LONGEST, action};
use crate::process::signal::{self, SigInfo};
use crate::process::trace;
use crate::process::wait::Status;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use hafez_link::Level;
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[(abi::__NR_seccomp, seccomp)];

const STRICT: u32 = 0;
const FILTER: u32 = 1;
const ACTION_IS_THERE: u32 = 2;

/// For all threads of the process; and say so by an error, not by the number of the one that cannot have it.
const ALL_THREADS: u32 = 1;
const ALL_OR_ESRCH: u32 = 1 << 4;
/// Log what is not allowed; mind no speculation: neither changes what is done.
const HARMLESS: u32 = 1 << 1 | 1 << 2;

fn seccomp(caller: &mut Caller) -> Result<u64> {
    let [what, flags, at, ..] = caller.args();
    let flags = flags as u32;
    match what as u32 {
        STRICT if flags == 0 && at == 0 => be_strict(caller),
        FILTER => add(caller, flags, at),
        ACTION_IS_THERE if flags == 0 => {
            let known = action::KNOWN.contains(&user::read_u32(at)?);
            if known { Ok(0) } else { Err(Errno::EOPNOTSUPP) }
        }
        _ => Err(Errno::EINVAL),
    }
}

/// `prctl(PR_SET_SECCOMP)`
pub fn set_mode(caller: &mut Caller, mode: u64, at: u64) -> Result<u64> {
    match mode {
        1 => be_strict(caller),
        2 => add(caller, 0, at),
        _ => Err(Errno::EINVAL),
    }
}

fn be_strict(caller: &mut Caller) -> Result<u64> {
    {
        let mut guard = caller.task.guard.lock();
        if matches!(*guard, Guard::Filters(_)) {
            return Err(Errno::EINVAL);
        }
        *guard = Guard::Strict;
    }
    caller.calls = &[];
    Ok(0)
}

/// A `struct sock_fprog`: a length and an address.
fn read_head(at: u64) -> Result<(usize, u64)> {
    let mut head = [0; 16];
    user::copy_from(&mut head, at)?;
    let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
    let from = head[8..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    if len == 0 || len > LONGEST { Err(Errno::EINVAL) } else { Ok((len, from)) }
}

fn read((len, from): (usize, u64)) -> Result<Vec<Instruction>> {
    let mut program = Vec::new();
    program.try_reserve_exact(len)?;
    for i in 0..len as u64 {
        let mut raw = [0; 8];
        user::copy_from(&mut raw, from.wrapping_add(8 * i))?;
        let [c, d, if_true, if_false, k @ ..] = raw;
        let (code, k) = (u16::from_ne_bytes([c, d]), u32::from_ne_bytes(k));
        program.push(Instruction { code, if_true, if_false, k });
    }
    Ok(program)
}

fn add(caller: &mut Caller, flags: u32, at: u64) -> Result<u64> {
    if flags & !(ALL_THREADS | ALL_OR_ESRCH | HARMLESS) != 0 {
        return Err(Errno::EINVAL);
    }
    let task = caller.task.clone();
    let process = &task.process;
    let head = read_head(at)?;
    if !process.no_new_privileges.load(Relaxed) && !task.cred().may(cap::SYS_ADMIN) {
        return Err(Errno::EACCES);
    }
    let program = read(head)?;
    let before = match &*task.guard.lock() {
        Guard::Nothing => None,
        Guard::Filters(newest) => Some(newest.clone()),
        Guard::Strict => return Err(Errno::EINVAL),
    };
    let filter = Filter::new(program, before)?;
    if flags & ALL_THREADS != 0 {
        let others = || process.tasks().filter(|other| !Arc::ptr_eq(other, &task));
        let misfit = others().find(|other| !other.guard.lock().precedes(&filter));
        match misfit {
            Some(_) if flags & ALL_OR_ESRCH != 0 => return Err(Errno::ESRCH),
            Some(other) => return Ok(other.tid() as u64),
            None => others().for_each(|other| other.set_guard(Guard::Filters(filter.clone()))),
        }
    }
    let old = core::mem::replace(&mut *task.guard.lock(), Guard::Filters(filter));
    drop(old);
    caller.calls = &[];
    Ok(0)
}

/// What the caller's guard says of the call that its registers describe: `None` to let it be done.
pub(super) fn judge(caller: &mut Caller) -> Option<Result<u64>> {
    judge_as(caller, false)
}

/// `asked`: the tracer has been asked about it already.
fn judge_as(caller: &mut Caller, asked: bool) -> Option<Result<u64>> {
    let guard = caller.task.guard.lock().clone();
    let number = caller.user.rax as u32;
    let mut data = [0; DATA];
    data[..4].copy_from_slice(&number.to_ne_bytes());
    data[4..8].copy_from_slice(&ARCHITECTURE.to_ne_bytes());
    data[8..16].copy_from_slice(&caller.user.rip().to_ne_bytes());
    for (to, argument) in data[16..].chunks_exact_mut(8).zip(caller.args()) {
        to.copy_from_slice(&argument.to_ne_bytes());
    }
    let answer = guard.judge(number, &data);
    let with = answer & !action::MASK;
    // What `rax` holds if the call has not been begun.
    let untouched = Some(Ok(caller.user.rax));
    let info = SigInfo::seccomp(caller.user.rip(), number, ARCHITECTURE, with);
    match answer & action::MASK {
        action::ALLOW => None,
        action::LOG => {
            log(caller, number);
            None
        }
        action::ERRNO => {
            let code = with.min(4095);
            Some(if code == 0 { Ok(0) } else { Ok(u64::from(code).wrapping_neg()) })
        }
        action::TRAP => {
            signal::force(caller, info);
            untouched
        }
        action::TRACE if asked => None,
        action::TRACE => match trace::filtered(caller, with) {
            // There is nobody to ask.
            None => Some(Err(Errno::ENOSYS)),
            Some(_) if caller.task.is_ending() => untouched,
            Some(number) if number as i32 == -1 => Some(Ok(caller.user.rax)),
            Some(number) => {
                // It may be another call now: the filters are asked about that, but not the tracer again.
                caller.user.rax = number;
                judge_as(caller, true)
            }
        },
        NOTIFY => Some(Err(Errno::ENOSYS)),
        action::KILL_THREAD if matches!(guard, Guard::Strict) => {
            die_alone(caller, abi::SIGKILL);
            untouched
        }
        action::KILL_THREAD if caller.task.process.task_count() > 1 => {
            die_alone(caller, abi::SIGSYS);
            untouched
        }
        _ => {
            signal::kill(caller, info);
            untouched
        }
    }
}

/// To ask another process, which takes a descriptor that is not given here.
const NOTIFY: u32 = 0x7fc0_0000;

fn die_alone(caller: &mut Caller, signo: u32) {
    if caller.task.process.task_count() == 1 {
        end_process(&caller.task.process, Status::Signalled { signo, core: false });
    } else {
        end_task(caller, signo as u8);
    }
}

#[cold]
fn log(caller: &Caller, number: u32) {
    let name = caller.task.name();
    let name = core::str::from_utf8(&name).unwrap_or("?").trim_end_matches('\0');
    control::log(Level::Info, format!("seccomp: {name} ({}): call {number}", caller.task.tid()));
}
