//! What a program asks of the processor: `arch_prctl`, and the requests of `prctl` for the time-stamp counter, speculation and machine
//! checks.
//!
//! What the processor does for all alike is told as Linux tells it of a machine that has no choice there: speculation is as the hardware
//! has it (`PR_SPEC_ENABLE`, as with `mitigations=off`), `cpuid` cannot be withheld (ENODEV), and no state but what everybody has can be
//! asked for.
#![forbid(unsafe_code)]

use super::{Calls, user};
use crate::arch::{self, fpu};
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::process::run::Caller;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as abi;
use linux_raw_sys::prctl;

/// The calls of this family.
pub const CALLS: &Calls = &[(abi::__NR_arch_prctl, arch_prctl)];

const SET_GS: u64 = 0x1001;
const SET_FS: u64 = 0x1002;
const GET_FS: u64 = 0x1003;
const GET_GS: u64 = 0x1004;
const GET_CPUID: u64 = 0x1011;
const SET_CPUID: u64 = 0x1012;
const GET_STATES: u64 = 0x1021;
const GET_STATES_ALLOWED: u64 = 0x1022;
const ASK_FOR_STATE: u64 = 0x1023;
const GET_GUEST_STATES: u64 = 0x1024;
const ASK_FOR_GUEST_STATE: u64 = 0x1025;
const GET_ADDRESS_MASK: u64 = 0x4001;
const TAG_ADDRESSES: u64 = 0x4002;
const GET_TAG_BITS: u64 = 0x4003;

/// Numbers that there are for parts of the processor's state; and what `fxsave` knows of them.
const STATES: u64 = 19;
const LEGACY_STATES: u64 = 3;

fn arch_prctl(caller: &mut Caller) -> Result<u64> {
    let [what, value, ..] = caller.args();
    if matches!(what, SET_FS | SET_GS) && !arch::user::in_user_half(value, 0) {
        return Err(Errno::EPERM);
    }
    match what {
        SET_FS => caller.user.set_fs_base(value),
        SET_GS => caller.user.set_gs_base(value),
        GET_FS => user::write_u64(value, caller.user.fs_base())?,
        GET_GS => user::write_u64(value, caller.user.gs_base())?,
        GET_CPUID => return Ok(1),
        SET_CPUID => return Err(Errno::ENODEV),
        GET_STATES | GET_STATES_ALLOWED | GET_GUEST_STATES => {
            user::write_u64(value, fpu::xcr0().max(LEGACY_STATES))?;
        }
        ASK_FOR_STATE | ASK_FOR_GUEST_STATE if value < STATES => return Err(Errno::EOPNOTSUPP),
        GET_ADDRESS_MASK => user::write_u64(value, u64::MAX)?,
        GET_TAG_BITS => user::write_u64(value, 0)?,
        TAG_ADDRESSES => return Err(Errno::ENODEV),
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

fn no_more(args: &[u64]) -> Result<()> {
    if args.iter().all(|v| *v == 0) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Kinds of speculation: past stores, of indirect branches, of what is in the first cache.
const STORES: u64 = prctl::PR_SPEC_STORE_BYPASS as u64;
const BRANCHES: u64 = prctl::PR_SPEC_INDIRECT_BRANCH as u64;
const CACHE: u64 = prctl::PR_SPEC_L1D_FLUSH as u64;

/// `prctl` for these; `None` if the request is another.
pub fn request(caller: &mut Caller, what: u32, [a, b, c, d]: [u64; 4]) -> Option<Result<u64>> {
    Some(match what {
        prctl::PR_GET_TSC => {
            let mode =
                if caller.user.may_read_clock() { prctl::PR_TSC_ENABLE } else { prctl::PR_TSC_SIGSEGV };
            user::write_u32(a, mode).map(|()| 0).map_err(Into::into)
        }
        prctl::PR_SET_TSC => match a as u32 {
            mode @ (prctl::PR_TSC_ENABLE | prctl::PR_TSC_SIGSEGV) => {
                caller.user.let_read_clock(mode == prctl::PR_TSC_ENABLE);
                Ok(0)
            }
            _ => Err(Errno::EINVAL),
        },
        prctl::PR_GET_SPECULATION_CTRL => no_more(&[b, c, d]).and_then(|()| match a {
            STORES | BRANCHES => Ok(prctl::PR_SPEC_ENABLE.into()),
            CACHE => Ok(prctl::PR_SPEC_FORCE_DISABLE.into()),
            _ => Err(Errno::ENODEV),
        }),
        prctl::PR_SET_SPECULATION_CTRL => no_more(&[c, d]).and_then(|()| set_speculation(a, b)),
        prctl::PR_MCE_KILL => no_more(&[c, d]).and_then(|()| set_machine_check(caller, a, b)),
        prctl::PR_MCE_KILL_GET => {
            no_more(&[a, b, c, d]).map(|()| caller.task.machine_check.load(Relaxed).into())
        }
        prctl::PR_SET_IO_FLUSHER | prctl::PR_GET_IO_FLUSHER => io_flusher(caller, what, [a, b, c, d]),
        _ => return None,
    })
}

fn set_speculation(kind: u64, mode: u64) -> Result<u64> {
    const ON: u64 = prctl::PR_SPEC_ENABLE as u64;
    const OFF: u64 = prctl::PR_SPEC_DISABLE as u64;
    const OFF_FOR_EVER: u64 = prctl::PR_SPEC_FORCE_DISABLE as u64;
    match (kind, mode) {
        (STORES, _) => Err(Errno::ENXIO),
        (BRANCHES, ON) => Ok(0),
        (BRANCHES, OFF | OFF_FOR_EVER) | (CACHE, _) => Err(Errno::EPERM),
        (BRANCHES, _) => Err(Errno::ERANGE),
        _ => Err(Errno::ENODEV),
    }
}

/// What is to become of the task when a page of its has gone bad. None does here.
fn set_machine_check(caller: &Caller, what: u64, policy: u64) -> Result<u64> {
    const CLEAR: u64 = prctl::PR_MCE_KILL_CLEAR as u64;
    const SET: u64 = prctl::PR_MCE_KILL_SET as u64;
    let policy = match (what, policy) {
        (CLEAR, 0) => prctl::PR_MCE_KILL_DEFAULT,
        (SET, policy) if policy <= prctl::PR_MCE_KILL_DEFAULT.into() => policy as u32,
        _ => return Err(Errno::EINVAL),
    };
    caller.task.machine_check.store(policy as u8, Relaxed);
    Ok(0)
}

/// Who writes out what others wait for says so, to be given memory first: there is no such one here, as files are the host's; it is noted.
fn io_flusher(caller: &Caller, what: u32, [a, b, c, d]: [u64; 4]) -> Result<u64> {
    let cell = &caller.task.io_flusher;
    if !caller.task.cred().may(cap::SYS_RESOURCE) {
        return Err(Errno::EPERM);
    }
    if what == prctl::PR_GET_IO_FLUSHER {
        return no_more(&[a, b, c, d]).map(|()| cell.load(Relaxed).into());
    }
    no_more(&[b, c, d])?;
    if a > 1 {
        return Err(Errno::EINVAL);
    }
    cell.store(a == 1, Relaxed);
    Ok(0)
}

/// `PR_GET_AUXV`: what the program was told when it began; how many bytes that is.
pub fn auxiliary(caller: &Caller, to: u64, bytes: u64) -> Result<u64> {
    let layout = caller.image.layout();
    let all = size_of_val(&*layout.auxv) as u64;
    for (at, word) in (0..bytes.min(all)).step_by(8).zip(layout.auxv.iter()) {
        let part = (bytes - at).min(8) as usize;
        user::copy_to(to.wrapping_add(at), &word.to_ne_bytes()[..part])?;
    }
    Ok(all)
}
