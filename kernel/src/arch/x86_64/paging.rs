//! The kernel's half of every address space, and the translation buffer.

use hafez_mm::{Flush, Pfn, PhysMap, SpaceId};

/// Where frame 0 is seen.
pub const DIRECT_MAP: u64 = 0xFFFF_8000_0000_0000;

/// All of RAM, and the device registers below 4 GiB (uncached).
pub fn phys() -> PhysMap {
    // SAFETY: the direct map covers every frame that the loader told and lives as long as the kernel.
    unsafe { PhysMap::new(DIRECT_MAP as *mut u8) }
}
/// The root of the kernel's own space: its upper half is what every space has.
pub fn kernel_root() -> Pfn {
    todo!()
}
/// Make no CPU in `flush.cpus` use an old translation of these pages.
pub fn flush(_flush: &Flush<'_>) {
    todo!()
}
/// Use this space's translations from now on.
pub fn load_space(_root: Pfn, _id: SpaceId) {
    todo!()
}
/// Use the kernel's own root: the lower half is empty.
pub fn load_kernel_space() {
    todo!()
}
