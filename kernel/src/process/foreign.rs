//! Another process's memory, for `/proc/PID/cmdline` and `process_vm_readv(2)`.
//!
//! The memory core brings the pages in, charged to their owner, under the rights that the owner has. The image is held
//! meanwhile, so its space cannot end. Up to the page that fails, the bytes are transferred.
#![forbid(unsafe_code)]

use super::Image;
use crate::errno::{Errno, Result};
use crate::mem::memory;
use hafez_mm::VirtAddr;

/// Read `to.len()` bytes at `from` of the other's memory.
pub fn read(image: &Image, from: u64, to: &mut [u8]) -> Result<()> {
    memory().read_space(image.space(), VirtAddr(from), to).map_err(|_| Errno::EFAULT)
}

/// Write for a debugger: into private memory that the other may not write itself, too.
pub fn force(image: &Image, to: u64, from: &[u8]) -> Result<()> {
    memory().force_space(image.space(), VirtAddr(to), from).map_err(|_| Errno::EIO)
}

/// Write `from` at `to` of the other's memory.
pub fn write(image: &Image, to: u64, from: &[u8]) -> Result<()> {
    memory().write_space(image.space(), VirtAddr(to), from).map_err(|_| Errno::EFAULT)
}
