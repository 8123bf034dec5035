//! `futex(2)`: the operations by number, over [`crate::process::futex`].
//!
//! Operations with priority inheritance (`LOCK_PI` and its kin) answer ENOSYS; so does `FUTEX_FD`, which Linux dropped.
#![forbid(unsafe_code)]

use super::{Calls, words};
use crate::clock;
use crate::errno::{Errno, Result};
use crate::process::futex::{self, Key, Word};
use crate::process::run::Caller;
use crate::sched::timer::Deadline;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[(abi::__NR_futex, futex), (abi::__NR_futex_waitv, futex_waitv)];

const ANY: u32 = abi::FUTEX_BITSET_MATCH_ANY;

fn futex(caller: &mut Caller) -> Result<u64> {
    let [at, operation, value, fourth, other, fifth] = caller.args();
    let (operation, value) = (operation as u32, value as u32);
    let private = operation & abi::FUTEX_PRIVATE_FLAG != 0;
    let realtime = operation & abi::FUTEX_CLOCK_REALTIME != 0;
    let command = operation & !(abi::FUTEX_PRIVATE_FLAG | abi::FUTEX_CLOCK_REALTIME);
    if realtime
        && !matches!(command, abi::FUTEX_WAIT_BITSET | abi::FUTEX_WAIT_REQUEUE_PI | abi::FUTEX_LOCK_PI2)
    {
        return Err(Errno::ENOSYS);
    }
    let key = |caller: &Caller, at| Key::of(caller.space(), at, private);
    // Counts are signed in Linux, and a negative one wakes as many as there are, but at least one.
    let count = |n: u64| if n as i32 <= 0 { 1 } else { n as u32 as usize };
    match command {
        abi::FUTEX_WAIT | abi::FUTEX_WAIT_BITSET => {
            let (bits, absolute) = match command {
                abi::FUTEX_WAIT => (ANY, false),
                _ => (fifth as u32, true),
            };
            let deadline = match fourth {
                0 => None,
                from => Some(deadline(words::nanoseconds(words::get(from)?)?, absolute, realtime)),
            };
            if bits == 0 {
                return Err(Errno::EINVAL);
            }
            wait(caller, Word { at, expected: value, private, bits }, deadline)
        }
        abi::FUTEX_WAKE => Ok(futex::wake(key(caller, at)?, count(value.into()), ANY) as u64),
        abi::FUTEX_WAKE_BITSET if fifth as u32 == 0 => Err(Errno::EINVAL),
        abi::FUTEX_WAKE_BITSET => Ok(futex::wake(key(caller, at)?, count(value.into()), fifth as u32) as u64),
        abi::FUTEX_REQUEUE | abi::FUTEX_CMP_REQUEUE => {
            let (wakes, moves) = (value as i32, fourth as i32);
            if wakes < 0 || moves < 0 {
                return Err(Errno::EINVAL);
            }
            let expected = (command == abi::FUTEX_CMP_REQUEUE).then_some(fifth as u32);
            let (from, to) = (key(caller, at)?, key(caller, other)?);
            let (woken, moved) = futex::requeue((from, at), to, wakes as usize, moves as usize, expected)?;
            Ok((woken + moved) as u64)
        }
        abi::FUTEX_WAKE_OP => {
            let keys = (key(caller, at)?, key(caller, other)?);
            let woken = futex::wake_op(keys, other, count(value.into()), count(fourth), fifth as u32)?;
            Ok(woken as u64)
        }
        _ => Err(Errno::ENOSYS),
    }
}

fn deadline(ns: u64, absolute: bool, realtime: bool) -> Deadline {
    match (absolute, realtime) {
        (false, _) => Deadline::Monotonic(clock::monotonic().saturating_add(ns)),
        (true, false) => Deadline::Monotonic(ns),
        (true, true) => Deadline::Realtime(ns),
    }
}

/// Interrupted with no deadline, the call may start again; with one, it goes on to the same deadline, unless a handler ran.
fn wait(caller: &mut Caller, word: Word, deadline: Option<Deadline>) -> Result<u64> {
    match futex::wait(caller.space(), &[word], deadline) {
        Ok(_) => Ok(0),
        Err(Errno::EINTR) if deadline.is_none() => Err(Errno::RESTART),
        Err(Errno::EINTR) => {
            caller.resume = Some(alloc::boxed::Box::new(move |caller| wait(caller, word, deadline)));
            Err(Errno::RESTART_BLOCK)
        }
        Err(error) => Err(error),
    }
}

/// Wait on up to 128 words at once; which one woke the caller.
fn futex_waitv(caller: &mut Caller) -> Result<u64> {
    let [list, count, flags, timeout, clock_id, _] = caller.args();
    if flags != 0 || count == 0 || count as u32 > abi::FUTEX_WAITV_MAX || list == 0 {
        return Err(Errno::EINVAL);
    }
    let limit = if timeout == 0 {
        None
    } else {
        let realtime = match clock_id as u32 {
            abi::CLOCK_REALTIME => true,
            abi::CLOCK_MONOTONIC => false,
            _ => return Err(Errno::EINVAL),
        };
        Some(deadline(words::nanoseconds(words::get(timeout)?)?, true, realtime))
    };
    let mut waits = Vec::with_capacity(count as u32 as usize);
    for i in 0..u64::from(count as u32) {
        // struct futex_waitv { u64 val, uaddr; u32 flags, reserved }
        let [value, at, flags] = words::get(list + i * 24)?;
        let private = u64::from(abi::FUTEX2_PRIVATE);
        if flags & !private != u64::from(abi::FUTEX2_SIZE_U32) || value > u64::from(u32::MAX) {
            return Err(Errno::EINVAL);
        }
        waits.push(Word { at, expected: value as u32, private: flags & private != 0, bits: ANY });
    }
    match futex::wait(caller.space(), &waits, limit) {
        Ok(index) => Ok(index as u64),
        Err(Errno::EINTR) => Err(Errno::RESTART),
        Err(error) => Err(error),
    }
}
