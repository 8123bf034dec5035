//! Another process's memory, for `/proc/PID/cmdline` and `process_vm_readv(2)`.
//!
//! The calling thread moves into the other space for the time of the copy, to a buffer of the kernel's, and back. So
//! the ordinary user copies do it, with their checks and faults: a page that is swapped out comes in, charged to
//! its owner. The image is held meanwhile, so its space cannot end.
#![forbid(unsafe_code)]

use super::Image;
use crate::arch::user;
use crate::errno::{Errno, Result};
use crate::sched;
use alloc::sync::Arc;
use hafez_mm::Space;

/// Back to where the thread was, however the visit ends.
struct Home(Option<Arc<Space>>);

impl Drop for Home {
    fn drop(&mut self) {
        sched::current().set_space(self.0.take());
    }
}

fn visit<T>(image: &Image, act: impl FnOnce() -> T) -> T {
    let home = sched::current().space();
    if home.as_ref().is_some_and(|home| home.id() == image.space().id()) {
        return act();
    }
    let _home = Home(home);
    sched::current().set_space(Some(image.space().clone()));
    act()
}

/// Read `to.len()` bytes at `from` of the other's memory.
pub fn read(image: &Image, from: u64, to: &mut [u8]) -> Result<()> {
    visit(image, || user::copy_from(to, from)).map_err(|_| Errno::EFAULT)
}

/// Write `from` at `to` of the other's memory.
pub fn write(image: &Image, to: u64, from: &[u8]) -> Result<()> {
    visit(image, || user::copy_to(to, from)).map_err(|_| Errno::EFAULT)
}
