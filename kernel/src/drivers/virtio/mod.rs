//! Virtio: how the guest and the host pass each other buffers.
//!
//! A virtio device is a few registers ([`mmio::Transport`]) and a handful of *queues* ([`queue::Queue`]): rings in
//! the guest's memory, in which the driver publishes buffers by physical address and the device hands them back.
//! Every driver in this kernel is built from those two and from [`dma`], which finds memory that a device may see.
//!
//! ```text
//!   driver ── table of segments ──► Queue::add ── avail ring ──►  device
//!          ◄─ (cookie, length) ──── Queue::pop ◄─ used ring ───
//! ```
//!
//! *Who is trusted.* Nobody on the other side. Whatever the device can write (used ring, buffers, configuration
//! space) is read once, checked against what the driver remembers in its own memory, and only then believed. A
//! device that breaks the rules is marked broken: its requests fail with an error, and the kernel goes on.
//!
//! *Why queues of our own.* The swap path wants many requests in flight, descriptors that point straight at page
//! frames, and few instructions; a queue that borrows slices for the time of a request cannot give that.
//!
//! Source: "Virtual I/O Device (VIRTIO) Version 1.2", OASIS, chapters 2 (queues), 4.2 (MMIO) and 5 (devices).

pub mod dma;
pub mod mmio;
pub mod queue;

pub use dma::{Dma, DmaError};
pub use mmio::Transport;
pub use queue::{Queue, Table};

use hafez_mm::{PAGE_SIZE, Pfn};

/// What a device is, by the number in its `DeviceID` register (VIRTIO 1.2, chapter 5).
pub mod device_id {
    /// The slot is empty.
    pub const NONE: u32 = 0;
    pub const NET: u32 = 1;
    pub const BLOCK: u32 = 2;
    pub const CONSOLE: u32 = 3;
    pub const ENTROPY: u32 = 4;
    pub const P9: u32 = 9;
}

/// Feature bits that belong to no single kind of device (VIRTIO 1.2, chapter 6).
pub mod feature {
    /// A descriptor may name a table of descriptors.
    pub const INDIRECT: u64 = 1 << 28;
    /// Each side says at which index it next wants to be told.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// The device keeps to version 1 of the standard (not "legacy").
    pub const VERSION_1: u64 = 1 << 32;
}

/// A run of physical memory that a descriptor names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Physical address of the first byte.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
}

/// Why a device cannot be used, or can no longer be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceError {
    /// No memory that a device can see.
    NoMemory,
    /// Not a device that this driver understands; the text says what was missing.
    Unsupported(&'static str),
    /// The device broke the rules of the ring, or asks for a reset.
    Broken,
}

impl From<DmaError> for DeviceError {
    fn from(_: DmaError) -> Self {
        DeviceError::NoMemory
    }
}

/// Call `f` with each run of frames that are neighbours in physical memory, `bytes` in all.
#[inline]
pub fn each_run(frames: &[Pfn], bytes: usize, mut f: impl FnMut(Segment)) {
    let mut left = bytes;
    for run in frames.chunk_by(adjacent) {
        let len = left.min(run.len() * PAGE_SIZE);
        if len == 0 {
            return;
        }
        left -= len;
        f(Segment { addr: run[0].addr().0, len: len as u32 });
    }
}

/// How many runs there are.
#[inline]
pub fn count_runs(frames: &[Pfn]) -> usize {
    frames.chunk_by(adjacent).count()
}

fn adjacent(a: &Pfn, b: &Pfn) -> bool {
    b.0 == a.0.wrapping_add(1)
}
