//! `futex(2)`: the operations by number, over [`crate::process::futex`].
//!
//! `FUTEX_FD`, which Linux dropped, answers ENOSYS.
#![forbid(unsafe_code)]

use super::{Calls, words};
use crate::clock;
use crate::errno::{Errno, Result};
use crate::process::futex::{self, Key, Word};
use crate::process::pi;
use crate::process::run::Caller;
use crate::sched::timer::Deadline;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[
    (abi::__NR_futex, futex),
    (abi::__NR_futex_waitv, futex_waitv),
    (FUTEX_WAKE, futex_wake),
    (FUTEX_WAIT, futex_wait),
    (FUTEX_REQUEUE, futex_requeue),
];
const FUTEX_WAKE: u32 = 454;
const FUTEX_WAIT: u32 = 455;
const FUTEX_REQUEUE: u32 = 456;

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
        abi::FUTEX_LOCK_PI | abi::FUTEX_LOCK_PI2 | abi::FUTEX_TRYLOCK_PI => {
            let deadline = match fourth {
                from if from != 0 && command != abi::FUTEX_TRYLOCK_PI => {
                    let realtime = realtime || command == abi::FUTEX_LOCK_PI;
                    Some(deadline(words::nanoseconds(words::get(from)?)?, true, realtime))
                }
                _ => None,
            };
            let only_try = command == abi::FUTEX_TRYLOCK_PI;
            pi::lock((caller.space(), &caller.task), (at, private), deadline, only_try).map(|()| 0)
        }
        abi::FUTEX_UNLOCK_PI => pi::unlock((caller.space(), &caller.task), at, private).map(|()| 0),
        abi::FUTEX_WAIT_REQUEUE_PI => {
            let deadline = match fourth {
                0 => None,
                from => Some(deadline(words::nanoseconds(words::get(from)?)?, true, realtime)),
            };
            if at == other {
                return Err(Errno::EINVAL);
            }
            pi::wait_requeue((caller.space(), &caller.task), (at, value), (other, private), deadline)?;
            Ok(0)
        }
        abi::FUTEX_CMP_REQUEUE_PI => {
            let (wakes, moves) = (value as i32, fourth as i32);
            if wakes != 1 || moves < 0 || at == other {
                return Err(Errno::EINVAL);
            }
            Ok(pi::requeue(caller.space(), (at, fifth as u32), (other, private), moves as usize)? as u64)
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
    let limit = until(timeout, clock_id)?;
    let mut waits = Vec::with_capacity(count as u32 as usize);
    for i in 0..u64::from(count as u32) {
        waits.push(word(list + i * 24)?);
    }
    match futex::wait(caller.space(), &waits, limit) {
        Ok(index) => Ok(index as u64),
        Err(Errno::EINTR) => Err(Errno::RESTART),
        Err(error) => Err(error),
    }
}

/// A `struct futex_waitv`: value, address, and in one word flags and what must be 0.
fn word(from: u64) -> Result<Word> {
    let [value, at, flags] = words::get(from)?;
    let private = is_private(flags)?;
    Ok(Word { at, expected: fits(value)?, private, bits: ANY })
}

/// Whether these flags of the newer calls say so. EINVAL unless they name a word of 32 bits.
fn is_private(flags: u64) -> Result<bool> {
    let private = u64::from(abi::FUTEX2_PRIVATE);
    if flags & !private == u64::from(abi::FUTEX2_SIZE_U32) {
        Ok(flags & private != 0)
    } else {
        Err(Errno::EINVAL)
    }
}

/// A value or a mask for such a word.
fn fits(value: u64) -> Result<u32> {
    u32::try_from(value).map_err(|_| Errno::EINVAL)
}

/// The moment at `timeout`, of one of two clocks; 0 for none.
fn until(timeout: u64, clock: u64) -> Result<Option<Deadline>> {
    if timeout == 0 {
        return Ok(None);
    }
    let realtime = match clock as u32 {
        abi::CLOCK_REALTIME => true,
        abi::CLOCK_MONOTONIC => false,
        _ => return Err(Errno::EINVAL),
    };
    Ok(Some(deadline(words::nanoseconds(words::get(timeout)?)?, true, realtime)))
}

fn futex_wake(caller: &mut Caller) -> Result<u64> {
    let [at, mask, count, flags, ..] = caller.args();
    let private = is_private(u64::from(flags as u32))?;
    let bits = fits(mask)?;
    if bits == 0 {
        return Err(Errno::EINVAL);
    }
    let key = Key::of(caller.space(), at, private)?;
    Ok(match count as i32 {
        // Unlike the older call, none means none.
        0 => 0,
        count => futex::wake(key, usize::try_from(count).unwrap_or(1), bits) as u64,
    })
}

fn futex_wait(caller: &mut Caller) -> Result<u64> {
    let [at, expected, mask, flags, timeout, clock] = caller.args();
    let private = is_private(u64::from(flags as u32))?;
    let (expected, bits) = (fits(expected)?, fits(mask)?);
    let limit = until(timeout, clock)?;
    if bits == 0 {
        return Err(Errno::EINVAL);
    }
    match futex::wait(caller.space(), &[Word { at, expected, private, bits }], limit) {
        Ok(_) => Ok(0),
        Err(Errno::EINTR) => Err(Errno::RESTART),
        Err(error) => Err(error),
    }
}

fn futex_requeue(caller: &mut Caller) -> Result<u64> {
    let [list, flags, wakes, moves, ..] = caller.args();
    if flags as u32 != 0 || list == 0 {
        return Err(Errno::EINVAL);
    }
    let (from, to) = (word(list)?, word(list + 24)?);
    let (wakes, moves) = (wakes as i32, moves as i32);
    if wakes < 0 || moves < 0 {
        return Err(Errno::EINVAL);
    }
    let key = |word: &Word| Key::of(caller.space(), word.at, word.private);
    let (source, target) = (key(&from)?, key(&to)?);
    let counts = (wakes as usize, moves as usize);
    let (woken, moved) = futex::requeue((source, from.at), target, counts.0, counts.1, Some(from.expected))?;
    Ok((woken + moved) as u64)
}
