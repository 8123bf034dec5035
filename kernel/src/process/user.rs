//! Values in a program's memory, as calls want them: little-endian words at addresses that may be wrong.

use crate::arch;
pub use crate::arch::user::{copy_from, copy_to, read_u32, read_u64, write_u32, write_u64};
use crate::errno::{Errno, Result};
use crate::mem::memory;
use crate::sched;
use alloc::vec::Vec;
use hafez_mm::{Access, FaultError, VirtAddr};

/// Read as many 64-bit words as `to` has.
pub fn read_words<const N: usize>(to: &mut [u64; N], from: u64) -> Result<()> {
    for (i, word) in to.iter_mut().enumerate() {
        *word = read_u64(from.wrapping_add(8 * i as u64))?;
    }
    Ok(())
}

/// Write 64-bit words one after the other.
pub fn write_words(to: u64, words: &[u64]) -> Result<()> {
    for (i, word) in words.iter().enumerate() {
        write_u64(to.wrapping_add(8 * i as u64), *word)?;
    }
    Ok(())
}

/// A string that ends in NUL, without the NUL; `too_long` if it has `limit` bytes or more.
pub fn read_string(from: u64, limit: usize, too_long: Errno) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    // Most are short; long ones come in pieces, so that one call does not take a big buffer for a small string.
    let mut piece = [0u8; 256];
    loop {
        let room = piece.len().min(limit - text.len());
        let at = from.wrapping_add(text.len() as u64);
        match arch::user::copy_string(&mut piece[..room], at)? {
            Some(len) => {
                text.extend_from_slice(&piece[..len]);
                return Ok(text);
            }
            None => text.extend_from_slice(&piece[..room]),
        }
        if text.len() >= limit {
            return Err(too_long);
        }
    }
}

/// Bring in what the kernel touches of a program's memory: the space that is loaded answers for it.
fn fault(addr: u64, write: bool, exec: bool) -> bool {
    let Some(space) = sched::current().space() else { return false };
    loop {
        match memory().fault(&space, VirtAddr(addr), Access { write, exec }) {
            Ok(()) => return true,
            Err(FaultError::OutOfMemory) => {
                // Somebody is being killed. If it is this task, it shall go and die; else there will be room soon.
                if super::current_task().is_none_or(|t| t.is_ending()) {
                    return false;
                }
                sched::yield_now();
            }
            // The signal waits until the kernel is through with the memory; only the end does not.
            Err(FaultError::Interrupted) if super::current_task().is_some_and(|t| !t.is_ending()) => {
                sched::clear_interrupt();
            }
            Err(_) => return false,
        }
    }
}

/// Make the kernel's accesses to program memory resolve their faults.
pub fn init() {
    arch::user::set_fault_hook(fault);
}
