//! A program's own segments: `modify_ldt`.
//!
//! It describes code and data segments of 32 bits, and reaches them by selectors into its local table. Segments of 16 bits are refused,
//! as by a Linux that was built without them: on the way back to such a stack the processor would leave the kernel's upper half of the
//! stack pointer there.
#![forbid(unsafe_code)]

use super::Calls;
use crate::arch::segments::{MOST, Segment, Table};
use crate::arch::{smp, user};
use crate::errno::{Errno, Result};
use crate::process::run::Caller;
use crate::process::{table, task::work};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::SeqCst;
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[(abi::__NR_modify_ldt, modify_ldt)];

/// Bytes of `struct user_desc`.
const DESCRIPTION: usize = 16;
/// Bytes of the default table, which is empty.
const DEFAULT: u64 = 128;
const DESCRIPTOR: u64 = 8;

/// Its answer is an `int`: an error is no negative word, as of any other call, but the lower half of one.
fn modify_ldt(caller: &mut Caller) -> Result<u64> {
    let [what, at, bytes, ..] = caller.args();
    let answer = match what as i32 {
        0 => read(caller, at, bytes),
        1 => write(caller, at, bytes, true),
        2 => clear(at, bytes.min(DEFAULT)),
        0x11 => write(caller, at, bytes, false),
        _ => Err(Errno::ENOSYS),
    };
    Ok(answer.unwrap_or_else(|error| u64::from((error.code() as u32).wrapping_neg())))
}

fn clear(mut at: u64, bytes: u64) -> Result<u64> {
    const ZEROES: [u8; 512] = [0; 512];
    let mut left = bytes as usize;
    while left > 0 {
        let part = left.min(ZEROES.len());
        user::copy_to(at, &ZEROES[..part])?;
        (at, left) = (at.wrapping_add(part as u64), left - part);
    }
    Ok(bytes)
}

fn read(caller: &Caller, at: u64, bytes: u64) -> Result<u64> {
    let Some(table) = caller.image.segments() else { return Ok(0) };
    let bytes = bytes.min(MOST as u64 * DESCRIPTOR);
    let mut to = at;
    let mut left = bytes as usize;
    for entry in table.entries() {
        let part = left.min(DESCRIPTOR as usize);
        user::copy_to(to, &entry.to_ne_bytes()[..part])?;
        (to, left) = (to.wrapping_add(part as u64), left - part);
        if left == 0 {
            break;
        }
    }
    clear(to, left as u64)?;
    Ok(bytes)
}

/// What a program says of a segment, beyond where it is.
struct Described {
    segment: Segment,
    bits_32: bool,
    bits_64: bool,
}

impl Described {
    fn of(base: u32, limit: u32, flags: u32) -> Described {
        let bit = |at: u32| flags >> at & 1 != 0;
        let segment = Segment {
            base,
            limit,
            kind: flags >> 1 & 3,
            plain: bit(3),
            limit_in_pages: bit(4),
            present: !bit(5),
            own: bit(6),
        };
        Described { segment, bits_32: bit(0), bits_64: bit(7) }
    }

    /// How a place in the table is said to be empty.
    fn is_empty(&self) -> bool {
        let s = &self.segment;
        let plain = s.plain && !s.present && s.kind == 0 && !s.limit_in_pages && !s.own;
        s.base == 0 && s.limit == 0 && plain && !self.bits_32 && !self.bits_64
    }
}

fn write(caller: &Caller, at: u64, bytes: u64, old_way: bool) -> Result<u64> {
    const CONFORMING: u32 = 3;
    if bytes != DESCRIPTION as u64 {
        return Err(Errno::EINVAL);
    }
    let mut words = [[0; 4]; DESCRIPTION / 4];
    user::copy_from(words.as_flattened_mut(), at)?;
    let [number, base, limit, flags] = words.map(u32::from_ne_bytes);
    let described = Described::of(base, limit, flags);
    let mut segment = described.segment;
    if number as usize >= MOST || segment.kind == CONFORMING && (old_way || segment.present) {
        return Err(Errno::EINVAL);
    }
    let none = described.is_empty() || old_way && base == 0 && limit == 0;
    if !none && !described.bits_32 {
        return Err(Errno::EINVAL);
    }
    segment.own &= !old_way;
    let descriptor = if none { 0 } else { segment.descriptor() };
    caller.image.change_segments(|old| Table::with(old, number as usize, descriptor).ok_or(Errno::ENOMEM))?;
    tell(caller);
    Ok(0)
}

/// All who run in this image have the new segments when this returns.
fn tell(caller: &Caller) {
    for process in table::each_process() {
        for task in process.tasks() {
            if task.image().is_some_and(|image| Arc::ptr_eq(&image, &caller.image)) {
                task.work.fetch_or(work::SEGMENTS, SeqCst);
            }
        }
    }
    // Those in their program's code come out of it, and look at their work before they go on.
    smp::barrier();
}
