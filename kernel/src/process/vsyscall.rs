//! The page at the top of the address space where `gettimeofday`, `time` and `getcpu` once were code (`vsyscall`).
//!
//! Programs of those days call there. The page cannot be read, and nothing is mapped there: what is executed at one of the three entries
//! is done here, and goes on where it was called from. It is Linux's `vsyscall=xonly`.
#![forbid(unsafe_code)]

use super::calls;
use super::run::Caller;
use crate::arch::user;
use crate::errno::{Errno, Result};
use linux_raw_sys::general as abi;

/// Where it is, and how far the entries are apart.
const PAGE: u64 = 0xFFFF_FFFF_FF60_0000;
const ENTRY: u64 = 0x400;
/// The calls that they are for.
const CALLS: [u32; 3] = [abi::__NR_gettimeofday, abi::__NR_time, abi::__NR_getcpu];

/// The program has come to `at` in what it executes, where nothing is mapped: what came of the call, if this is one.
pub fn call(caller: &mut Caller, at: u64) -> Option<Result<()>> {
    let entry = at.checked_sub(PAGE).filter(|offset| offset.is_multiple_of(ENTRY))? / ENTRY;
    let number = *CALLS.get(entry as usize)?;
    (caller.user.rip() == at).then(|| serve(caller, number))
}

fn serve(caller: &mut Caller, number: u32) -> Result<()> {
    let stack = caller.user.rsp();
    let mut back = [0; 8];
    user::copy_from(&mut back, stack)?;
    let answer = match calls::by_number()[number as usize](caller) {
        Err(Errno::EFAULT) => return Err(Errno::EFAULT),
        answer => answer.unwrap_or_else(Errno::to_rax),
    };
    let user = &mut caller.user;
    user.rax = answer;
    user.set_rsp(stack.wrapping_add(8));
    user.set_rip(u64::from_ne_bytes(back));
    Ok(())
}
