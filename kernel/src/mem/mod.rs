//! The kernel's memory: the one [`Memory`] of the machine, what it asks of the kernel, and the kernel's own heap.

mod heap;
mod platform;

pub use platform::{Hooks, KernelPlatform, set_hooks};

use hafez_mm::Memory;

/// The memory of the machine.
pub fn memory() -> &'static Memory<KernelPlatform> {
    todo!()
}

/// Whether the heap can serve `bytes` more, for the kernel's own objects. Ask before building what a program can
/// ask for any number of times (processes, files, regions); if not, answer ENOMEM.
pub fn headroom(_bytes: usize) -> bool {
    todo!()
}
