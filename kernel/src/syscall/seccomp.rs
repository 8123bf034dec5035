//! `seccomp(2)`: putting filters before one's own calls, and asking them.
#![forbid(unsafe_code)]

use super::{Calls, user};
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::process::asked::{ANSWER, Listener, QUESTION};
use crate::process::control;
use crate::process::exit::{end_process, end_task};
use crate::process::run::Caller;
use crate::process::seccomp::{ARCHITECTURE, DATA, Filter, Guard, Instruction, LONGEST, action};
use crate::process::signal::{self, SigInfo};
use crate::process::task::Task;
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
const SIZES: u32 = 3;

/// For all threads of the process; and say so by an error, not by the number of the one that cannot have it.
const ALL_THREADS: u32 = 1;
const ALL_OR_ESRCH: u32 = 1 << 4;
/// Log what is not allowed; mind no speculation: neither changes what is done.
const LOGS: u32 = 1 << 1;
const HARMLESS: u32 = LOGS | 1 << 2;
/// The answer is a descriptor, whose holder the filter can have asked; what it has received, only the end of who asked takes back.
const LISTENER: u32 = 1 << 3;
const PATIENT: u32 = 1 << 5;

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
        SIZES if flags == 0 => {
            let sizes = [QUESTION, ANSWER, DATA].map(|bytes| (bytes as u16).to_ne_bytes());
            Ok(user::copy_to(at, sizes.as_flattened()).map(|()| 0)?)
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
    let has = |flag| flags & flag != 0;
    if flags & !(ALL_THREADS | ALL_OR_ESRCH | HARMLESS | LISTENER | PATIENT) != 0
        || has(ALL_THREADS) && has(LISTENER) && !has(ALL_OR_ESRCH)
        || has(PATIENT) && !has(LISTENER)
    {
        return Err(Errno::EINVAL);
    }
    let head = read_head(at)?;
    if !caller.task.process.no_new_privileges.load(Relaxed) && !caller.task.cred().may(cap::SYS_ADMIN) {
        return Err(Errno::EACCES);
    }
    let program = read(head)?;
    if !has(LISTENER) {
        return attach(caller, flags, program, None);
    }
    let listener = Listener::new(has(PATIENT));
    let (files, limit) = (caller.task.files(), caller.task.process.limits.soft(abi::RLIMIT_NOFILE));
    let fd = files.insert(listener.open()?, true, 0, limit)?;
    match attach(caller, flags, program, Some(listener)) {
        Ok(_) => Ok(fd.into()),
        Err(why) => {
            let _ = files.close(fd);
            Err(why)
        }
    }
}

/// Put a program before the caller's calls, and perhaps those of its process's other threads.
fn attach(
    caller: &mut Caller,
    flags: u32,
    program: Vec<Instruction>,
    listener: Option<Arc<Listener>>,
) -> Result<u64> {
    let task = caller.task.clone();
    let process = &task.process;
    let before = match &*task.guard.lock() {
        Guard::Nothing => None,
        Guard::Filters(newest) => Some(newest.clone()),
        Guard::Strict => return Err(Errno::EINVAL),
    };
    if listener.is_some() && before.as_ref().is_some_and(|before| before.asks()) {
        return Err(Errno::EBUSY);
    }
    let filter = Filter::new(program, before, listener, flags & LOGS != 0)?;
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

/// Whether nothing stands before its calls.
pub(super) fn is_free(task: &Task) -> bool {
    matches!(*task.guard.lock(), Guard::Nothing)
}

/// The filters of a task, for a tracer that may do anything and has none itself. EACCES for others, EINVAL without filters.
fn filters_of(tracer: &Task, task: &Task) -> Result<Arc<Filter>> {
    if !tracer.cred().may(cap::SYS_ADMIN) || !is_free(tracer) {
        return Err(Errno::EACCES);
    }
    match &*task.guard.lock() {
        Guard::Filters(newest) => Ok(newest.clone()),
        _ => Err(Errno::EINVAL),
    }
}

/// `PTRACE_SECCOMP_GET_FILTER`: how long the `n`th is, the oldest being 0, and, if there is a place for it, what it is.
pub(super) fn filter_of(tracer: &Task, task: &Task, n: u64, to: u64) -> Result<u64> {
    let filters = filters_of(tracer, task)?;
    let program = filters.nth(n)?.program();
    for (i, &Instruction { code, if_true, if_false, k }) in (0..).zip(program).filter(|_| to != 0) {
        let ([c, d], [k0, k1, k2, k3]) = (code.to_ne_bytes(), k.to_ne_bytes());
        user::copy_to(to.wrapping_add(8 * i), &[c, d, if_true, if_false, k0, k1, k2, k3])?;
    }
    Ok(program.len() as u64)
}

/// `PTRACE_SECCOMP_GET_METADATA`: the flags that a filter was made with. `len`: how much of a `struct seccomp_metadata` there is.
pub(super) fn metadata_of(tracer: &Task, task: &Task, len: u64, at: u64) -> Result<u64> {
    let filters = filters_of(tracer, task)?;
    let mut words = [[0; 8]; 2];
    if len < 8 {
        return Err(Errno::EINVAL);
    }
    user::copy_from(&mut words[0], at)?;
    let filter = filters.nth(u64::from_ne_bytes(words[0]))?;
    words[1] = u64::from(if filter.logs() { LOGS } else { 0 }).to_ne_bytes();
    let len = len.min(16);
    user::copy_to(at, &words.as_flattened()[..len as usize])?;
    Ok(len)
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
    if trace::suspends_filters(&caller.task) {
        return None;
    }
    let (answer, filter) = guard.judge(number, &data);
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
        action::ASK => match filter.and_then(Filter::listener) {
            // There is nobody to ask.
            None => Some(Err(Errno::ENOSYS)),
            Some(listener) => listener.ask(caller, &data).transpose(),
        },
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
