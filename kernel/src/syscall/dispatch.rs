//! A thread's calls handed back to its program (`PR_SET_SYSCALL_USER_DISPATCH`): emulators of other systems run foreign code that makes calls
//! of its own, and want to see those. Each call is a SIGSYS instead; but for calls from one range of code, and for all of them while
//! a byte of the program's, the selector, says so.
//!
//! It goes before a tracer and filters, and neither children nor new programs have it. As with filters, a thread that has it has an empty
//! table of calls.
#![forbid(unsafe_code)]

use super::user;
use crate::arch::user::in_user_half;
use crate::errno::{Errno, Result};
use crate::process::run::Caller;
use crate::process::seccomp::ARCHITECTURE;
use crate::process::signal::{self, SigInfo};
use crate::process::task::{Dispatch, Task};
use linux_raw_sys::general as abi;
use linux_raw_sys::prctl;

/// What the selector says.
const ALLOW: u8 = 0;
const HAND_BACK: u8 = 1;

/// Bytes of `struct ptrace_sud_config`: mode, selector, start and length of the range.
const CONFIG: u64 = 32;

/// `prctl(PR_SET_SYSCALL_USER_DISPATCH)`
pub(super) fn set_own(caller: &mut Caller, mode: u64, [start, len, selector]: [u64; 3]) -> Result<u64> {
    set(&caller.task, mode, [start, len, selector])?;
    if mode != 0 {
        caller.calls = &[];
    }
    Ok(0)
}

fn set(task: &Task, mode: u64, [start, len, selector]: [u64; 3]) -> Result<()> {
    let next = match mode {
        0 if start == 0 && len == 0 && selector == 0 => None,
        1 if start == 0 || start.wrapping_add(len) > start => Some(Dispatch { start, len, selector }),
        _ => return Err(Errno::EINVAL),
    };
    if next.is_some() && selector != 0 && !in_user_half(selector, 1) {
        return Err(Errno::EFAULT);
    }
    *task.dispatch.lock() = next;
    Ok(())
}

/// `PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG`
pub(super) fn set_traced(task: &Task, size: u64, at: u64) -> Result<u64> {
    let mut words = [[0; 8]; 4];
    if size != CONFIG {
        return Err(Errno::EINVAL);
    }
    user::copy_from(words.as_flattened_mut(), at)?;
    let [mode, selector, start, len] = words.map(u64::from_ne_bytes);
    set(task, mode, [start, len, selector]).map(|()| 0)
}

/// `PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG`
pub(super) fn get_traced(task: &Task, size: u64, at: u64) -> Result<u64> {
    if size != CONFIG {
        return Err(Errno::EINVAL);
    }
    let words = match *task.dispatch.lock() {
        Some(Dispatch { start, len, selector }) => {
            [u64::from(prctl::PR_SYS_DISPATCH_ON), selector, start, len]
        }
        None => [0; 4],
    };
    Ok(user::copy_to(at, words.map(u64::to_ne_bytes).as_flattened()).map(|()| 0)?)
}

/// Whether the call that the caller's registers describe is not done, but handed back.
#[inline]
pub(super) fn hands_back(caller: &mut Caller) -> bool {
    let dispatch = *caller.task.dispatch.lock();
    dispatch.is_some_and(|dispatch| diverts(caller, dispatch))
}

#[cold]
fn diverts(caller: &mut Caller, Dispatch { start, len, selector }: Dispatch) -> bool {
    let at = caller.user.rip();
    if at.wrapping_sub(start) < len {
        return false;
    }
    let mut says = [HAND_BACK];
    if selector != 0 && user::copy_from(&mut says, selector).is_err() {
        signal::kill(caller, SigInfo::kernel(abi::SIGSEGV));
        return true;
    }
    match says {
        [ALLOW] => return false,
        [HAND_BACK] => signal::force(caller, SigInfo::dispatch(at, caller.user.rax as u32, ARCHITECTURE)),
        _ => signal::kill(caller, SigInfo::kernel(abi::SIGSYS)),
    }
    true
}
