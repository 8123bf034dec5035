//! What the loader told: memory map, command line, devices.

use hafez_mm::PfnRange;

/// One virtio-mmio device, as `virtio_mmio.device=512@0xfeb00e00:12` on the command line told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioMmio {
    /// Physical address of its registers.
    pub base: u64,
    /// Bytes of them.
    pub size: u64,
    /// Its interrupt line (GSI).
    pub irq: u8,
}

/// What the loader told.
pub struct BootInfo {
    /// RAM that is free for use: without the kernel's image, its first page tables and the frame table.
    pub usable: &'static [PfnRange],
    /// Frames from 0 to the last one that is RAM.
    pub total_frames: u32,
    /// The kernel's command line.
    pub command_line: &'static str,
    /// The virtio-mmio slots.
    pub virtio: &'static [VirtioMmio],
}

impl BootInfo {
    /// The value of `key=value` on the command line.
    pub fn option(&self, key: &str) -> Option<&'static str> {
        self.command_line.split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }
}

/// The one that this kernel was started with.
pub fn info() -> &'static BootInfo {
    todo!()
}
