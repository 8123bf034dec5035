//! What a process sets for itself: `prctl`, `personality`.
//!
//! Some of `prctl` asks for what this kernel never does to anybody: asking then tells so, and switching it off succeeds, as it is off.
#![forbid(unsafe_code)]

use super::{Calls, advise, capability, dispatch, processor, seccomp, user};
use crate::arch;
use crate::errno::{Errno, Result};
use crate::process::run::Caller;
use crate::process::signal::LAST;
use crate::process::task::DEFAULT_SLACK;
use crate::process::{exec, table};
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;
use linux_raw_sys::prctl;

pub const CALLS: &Calls = &[(abi::__NR_prctl, prctl), (abi::__NR_personality, personality)];

/// Newer than the list of numbers.
const GET_AUXV: u32 = 0x4155_5856;

fn no_more(args: &[u64]) -> Result<()> {
    if args.iter().all(|v| *v == 0) { Ok(()) } else { Err(Errno::EINVAL) }
}

fn prctl(caller: &mut Caller) -> Result<u64> {
    let [what, a, b, c, d, _] = caller.args();
    let task = caller.task.clone();
    let process = &task.process;
    match what as u32 {
        prctl::PR_SET_NAME => {
            let mut name = [0u8; 16];
            // The first 15 bytes count, wherever the string ends.
            let len = arch::user::copy_string(&mut name[..15], a)?.unwrap_or(15);
            task.set_name(&name[..len]);
        }
        prctl::PR_GET_NAME => user::copy_to(a, &task.name())?,
        prctl::PR_SET_PDEATHSIG if a <= LAST as u64 => task.death_signal.store(a as u32, Ordering::Relaxed),
        prctl::PR_GET_PDEATHSIG => user::write_u32(a, task.death_signal.load(Ordering::Relaxed))?,
        prctl::PR_SET_DUMPABLE if a <= 1 => process.dumpable.store(a as u32, Ordering::Relaxed),
        prctl::PR_GET_DUMPABLE => return Ok(process.dumpable.load(Ordering::Relaxed) as u64),
        prctl::PR_SET_CHILD_SUBREAPER => table::set_subreaper(process.pid, a != 0),
        prctl::PR_GET_CHILD_SUBREAPER => user::write_u32(a, table::is_subreaper(process.pid) as u32)?,
        prctl::PR_SET_NO_NEW_PRIVS => {
            no_more(&[b, c, d])?;
            if a != 1 {
                return Err(Errno::EINVAL);
            }
            process.no_new_privileges.store(true, Ordering::Relaxed);
        }
        prctl::PR_GET_NO_NEW_PRIVS => {
            no_more(&[a, b, c, d])?;
            return Ok(process.no_new_privileges.load(Ordering::Relaxed) as u64);
        }
        prctl::PR_SET_TIMERSLACK => {
            // Timers here are as exact as they can be: later by so much they may be, and need not.
            let slack = if a as i64 <= 0 { DEFAULT_SLACK } else { a };
            task.timer_slack.store(slack, Ordering::Relaxed);
        }
        prctl::PR_GET_TIMERSLACK => return Ok(task.timer_slack.load(Ordering::Relaxed)),
        prctl::PR_GET_TID_ADDRESS => user::write_u64(a, task.clear_child_tid.load(Ordering::Relaxed))?,
        prctl::PR_SET_THP_DISABLE => {
            no_more(&[b, c, d])?;
            process.no_huge_pages.store(a != 0, Ordering::Relaxed);
            if let Some(image) = task.image() {
                image.space().set_no_huge(a != 0);
            }
        }
        prctl::PR_GET_THP_DISABLE => {
            no_more(&[a, b, c, d])?;
            return Ok(process.no_huge_pages.load(Ordering::Relaxed) as u64);
        }
        prctl::PR_SET_VMA if a == prctl::PR_SET_VMA_ANON_NAME as u64 => advise::set_name(caller, b, c, d)?,
        prctl::PR_SET_MDWE => {
            no_more(&[b, c, d])?;
            const NO_INHERIT: u64 = prctl::PR_MDWE_NO_INHERIT as u64;
            if a & !(prctl::PR_MDWE_REFUSE_EXEC_GAIN as u64 | NO_INHERIT) != 0 || a == NO_INHERIT {
                return Err(Errno::EINVAL);
            }
            let now = process.no_new_code.load(Ordering::Relaxed);
            if now != 0 && now as u64 != a {
                return Err(Errno::EPERM);
            }
            process.no_new_code.store(a as u32, Ordering::Relaxed);
        }
        prctl::PR_GET_MDWE => {
            no_more(&[a, b, c, d])?;
            return Ok(process.no_new_code.load(Ordering::Relaxed) as u64);
        }
        GET_AUXV => {
            no_more(&[c, d])?;
            return processor::auxiliary(caller, a, b);
        }
        prctl::PR_GET_SECCOMP => return Ok(task.guard.lock().told().0.into()),
        prctl::PR_SET_SECCOMP => return seccomp::set_mode(caller, a, b),
        prctl::PR_SET_SYSCALL_USER_DISPATCH => return dispatch::set_own(caller, a, [b, c, d]),
        what => {
            let args = [a, b, c, d];
            let known = capability::request(caller, what, args);
            let known = known.or_else(|| processor::request(caller, what, args));
            return known.unwrap_or_else(|| never(what, [a, b, c, d]));
        }
    }
    Ok(0)
}

/// Requests whose answer is the same for everybody.
fn never(what: u32, [a, ..]: [u64; 4]) -> Result<u64> {
    let zero = |ok: bool| if ok { Ok(0) } else { Err(Errno::EINVAL) };
    match what {
        prctl::PR_GET_TIMING => Ok(prctl::PR_TIMING_STATISTICAL as u64),
        prctl::PR_SET_TIMING => zero(a == prctl::PR_TIMING_STATISTICAL as u64),
        // There are no performance events to switch.
        prctl::PR_TASK_PERF_EVENTS_DISABLE | prctl::PR_TASK_PERF_EVENTS_ENABLE => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// Asks for the personality without setting it.
const PERSONALITY_ASK: u32 = 0xffff_ffff;
/// The domains (the low byte) differ from Linux's own in nothing that 64-bit programs would notice, but for `uname`.
const DOMAIN: u32 = 0xff;
/// What else means something here, or would mean nothing on Linux either.
const KNOWN: u32 =
    exec::ADDR_NO_RANDOMIZE | exec::READ_IMPLIES_EXEC | exec::UNAME26 | SHORT_INODE | WHOLE_SECONDS;
const SHORT_INODE: u32 = 0x100_0000;
const WHOLE_SECONDS: u32 = 0x200_0000;

fn personality(caller: &mut Caller) -> Result<u64> {
    let wanted = caller.args()[0] as u32;
    let cell = &caller.task.process.personality;
    if wanted == PERSONALITY_ASK {
        return Ok(cell.load(Ordering::Relaxed) as u64);
    }
    if wanted & !(DOMAIN | KNOWN) != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(cell.swap(wanted, Ordering::Relaxed) as u64)
}
