//! How much memory programs may be promised (`vm.overcommit_memory`, proc_sys_vm(5)).
//!
//! | mode | a promise is refused |
//! |---|---|
//! | 1 | never: that is how the machine starts, as its point is to run what is larger than it |
//! | 0 | if it alone is more than RAM and swap together |
//! | 2 | if with all that was promised before it is more than the limit: swap and a part of RAM, less a little for others |
//!
//! What has been promised is not kept in a number that all CPUs would have to change at every mapping: each space knows what it was
//! promised, and that is added up when somebody asks. In mode 2 that is every call that takes more, and exact but for what
//! others are taking at the same moment.
#![forbid(unsafe_code)]

use super::Task;
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::mem::memory;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The mode, the percentage of RAM that the limit has in it, and, if that is not 0, KiB instead.
pub static MODE: AtomicU64 = AtomicU64::new(ALWAYS);
pub static RATIO: AtomicU64 = AtomicU64::new(50);
pub static KIB: AtomicU64 = AtomicU64::new(0);

pub const ALWAYS: u64 = 1;
pub const STRICT: u64 = 2;

/// Pages that stay for root, and for everybody's way out, beyond what one may have (`vm.admin_reserve_kbytes` and
/// `vm.user_reserve_kbytes`).
pub const ADMIN_RESERVE: u64 = 8 << 8;
pub const USER_RESERVE: u64 = 128 << 8;

/// Pages that may be promised in mode 2.
pub fn limit() -> u64 {
    let (ram, swap) = memory().capacity();
    swap + match KIB.load(Relaxed) {
        0 => ram * RATIO.load(Relaxed) / 100,
        kib => kib / 4,
    }
}

/// Whether `pages` more may be promised to the task; of memory that wants no promise (`MAP_NORESERVE`) only mode 2 asks.
#[inline(always)]
pub fn check(task: &Task, pages: u64, noreserve: bool) -> Result<()> {
    if MODE.load(Relaxed) == ALWAYS { Ok(()) } else { judge(task, pages, noreserve) }
}

#[cold]
fn judge(task: &Task, pages: u64, noreserve: bool) -> Result<()> {
    let fits = if MODE.load(Relaxed) == STRICT {
        let root = task.cred().may(cap::SYS_ADMIN);
        let own = task.image().map_or(0, |image| image.space().total_pages());
        let kept = if root { 0 } else { ADMIN_RESERVE } + USER_RESERVE.min(own / 32);
        memory().promised().saturating_add(pages) <= limit().saturating_sub(kept)
    } else {
        let (ram, swap) = memory().capacity();
        noreserve || pages <= ram + swap
    };
    if fits { Ok(()) } else { Err(Errno::ENOMEM) }
}
