//! `getrandom(2)`.
#![forbid(unsafe_code)]

use super::Calls;
use crate::arch::user;
use crate::errno::{Errno, Result};
use crate::process::run::Caller;
use crate::random;
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[(abi::__NR_getrandom, getrandom)];

/// Bytes made in one go. Up to so many are never cut short by a signal (the manual promises 256).
const ROUND: usize = 512;

/// The generator is seeded before the first program runs, so no flag changes anything.
fn getrandom(caller: &mut Caller) -> Result<u64> {
    let [to, len, flags, ..] = caller.args();
    let flags = flags as u32;
    const BOTH: u32 = abi::GRND_RANDOM | abi::GRND_INSECURE;
    if flags & !(abi::GRND_NONBLOCK | BOTH) != 0 || flags & BOTH == BOTH {
        return Err(Errno::EINVAL);
    }
    let len = len.min(i32::MAX as u64) as usize;
    let mut done = 0;
    while done < len {
        let mut bytes = [0; ROUND];
        let part = &mut bytes[..ROUND.min(len - done)];
        random::fill(part);
        match user::copy_to(to + done as u64, part) {
            Ok(()) => done += part.len(),
            Err(bad) => {
                // As far as there is room.
                let fits = part.iter().enumerate().take_while(|&(i, byte)| {
                    user::copy_to(to.wrapping_add((done + i) as u64), core::slice::from_ref(byte)).is_ok()
                });
                done += fits.count();
                if done == 0 {
                    return Err(bad.into());
                }
                break;
            }
        }
        if caller.task.has_work() {
            break;
        }
    }
    Ok(done as u64)
}
