//! The bytes of frames, seen through one window.
//!
//! The kernel maps all RAM at one address (the direct map); the software machine of the tests allocates one buffer
//! and calls it RAM. Either way frame `n` begins at `base + n * 4096`, so the same code runs on both, with no call
//! through a trait on the fault path.
//!
//! Frames are shared memory: user code on another CPU may store to a mapped frame while the kernel reads it. So all
//! access here goes through raw pointers, and no Rust reference to a frame's bytes is ever made.

use crate::addr::{PAGE_SIZE, Pfn};
use core::sync::atomic::AtomicU64;

/// Where frame 0 would begin.
#[derive(Clone, Copy)]
pub struct PhysMap {
    base: *mut u8,
}

// SAFETY: the window is plain memory that every CPU sees alike; races on its bytes are the callers' protocol, and
// happen through raw pointers or atomics only.
unsafe impl Send for PhysMap {}
// SAFETY: as above.
unsafe impl Sync for PhysMap {}

impl PhysMap {
    /// # Safety
    /// For every frame that is later named through this map, `base + frame * 4096` must be 4096 bytes of memory,
    /// valid for reads and writes for as long as the map is used, with an exposed provenance that covers it.
    pub const unsafe fn new(base: *mut u8) -> Self {
        PhysMap { base }
    }

    /// The frame's first byte.
    #[inline(always)]
    pub fn ptr(&self, frame: Pfn) -> *mut u8 {
        self.base.wrapping_add(frame.0 as usize * PAGE_SIZE)
    }

    /// The `index`th 64-bit word of the frame, as page tables are used.
    #[inline(always)]
    pub(crate) fn word(&self, frame: Pfn, index: usize) -> &AtomicU64 {
        debug_assert!(index < PAGE_SIZE / 8);
        // SAFETY: `new` promises memory behind every frame, the index is inside it, and an atomic may be aliased.
        unsafe { &*self.ptr(frame).cast::<AtomicU64>().wrapping_add(index) }
    }

    /// All of the frame's 64-bit words.
    #[inline(always)]
    pub(crate) fn words(&self, frame: Pfn) -> &[AtomicU64; PAGE_SIZE / 8] {
        // SAFETY: as for `word`; a frame is aligned to its size.
        unsafe { &*self.ptr(frame).cast::<[AtomicU64; PAGE_SIZE / 8]>() }
    }

    /// The frame that a word of it is in.
    pub(crate) fn frame_of(&self, word: &AtomicU64) -> Pfn {
        let bytes = (core::ptr::from_ref(word) as usize).wrapping_sub(self.base as usize);
        Pfn((bytes / PAGE_SIZE) as u32)
    }

    /// Fill the frame with zeroes.
    #[inline]
    pub fn zero(&self, frame: Pfn) {
        zero_page(self.ptr(frame));
    }

    /// Copy a whole frame.
    #[inline]
    pub fn copy(&self, from: Pfn, to: Pfn) {
        debug_assert!(from != to);
        copy_page(self.ptr(from), self.ptr(to));
    }

    /// Read `out.len()` bytes at `offset`; what would pass the end of the frame is a bug of the caller's and panics.
    pub fn read(&self, frame: Pfn, offset: usize, out: &mut [u8]) {
        assert!(offset + out.len() <= PAGE_SIZE);
        // SAFETY: source in the frame (checked), destination a slice, and the two cannot overlap as no reference
        // into a frame exists.
        unsafe { core::ptr::copy_nonoverlapping(self.ptr(frame).add(offset), out.as_mut_ptr(), out.len()) }
    }

    /// Write `bytes` at `offset`; bounds as in [`PhysMap::read`].
    pub fn write(&self, frame: Pfn, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= PAGE_SIZE);
        // SAFETY: as in `read`, the other way round.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.ptr(frame).add(offset), bytes.len()) }
    }

    /// Zero the bytes `[from, to)` of the frame.
    pub fn zero_part(&self, frame: Pfn, from: usize, to: usize) {
        assert!(from <= to && to <= PAGE_SIZE);
        // SAFETY: inside the frame (checked).
        unsafe { core::ptr::write_bytes(self.ptr(frame).add(from), 0, to - from) }
    }

    /// The word that fills the whole frame, if one does: such a page needs no I/O to be swapped.
    pub fn same_filled(&self, frame: Pfn) -> Option<u64> {
        use core::sync::atomic::Ordering::Relaxed;
        let first = self.word(frame, 0).load(Relaxed);
        // The last word differs in nearly every page that is not filled alike: look there first.
        if self.word(frame, 511).load(Relaxed) != first {
            return None;
        }
        (1..511).all(|i| self.word(frame, i).load(Relaxed) == first).then_some(first)
    }

    /// Fill the frame with one word.
    pub fn fill(&self, frame: Pfn, word: u64) {
        for i in 0..PAGE_SIZE / 8 {
            self.word(frame, i).store(word, core::sync::atomic::Ordering::Relaxed);
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "none"))]
fn zero_page(page: *mut u8) {
    // Stores of 16 bytes, which every x86-64 has: half as many as of words. The register may be a program's, so it is put
    // back. (`rep stosq` is as fast on real hardware, and much slower where each of its steps is emulated.)
    // SAFETY: the caller's frame is 4096 writable bytes, aligned to their number; the kernel has SSE switched on before it
    // has frames, and its own code uses none.
    unsafe {
        core::arch::asm!(
            "sub rsp, 16",
            "movups [rsp], xmm0",
            "xorps xmm0, xmm0",
            "2:",
            ".set .Lzeroed, 0",
            ".rept 64",
            "movaps [{at} + 16 * .Lzeroed], xmm0",
            ".set .Lzeroed, .Lzeroed + 1",
            ".endr",
            "add {at}, 1024",
            "dec {left:e}",
            "jnz 2b",
            "movups xmm0, [rsp]",
            "add rsp, 16",
            at = inout(reg) page => _, left = inout(reg) 4u32 => _);
    }
}
#[cfg(all(target_arch = "x86_64", target_os = "none"))]
fn copy_page(from: *const u8, to: *mut u8) {
    // SAFETY: both are 4096 bytes of different frames; the direction flag is clear by the ABI.
    unsafe {
        core::arch::asm!("rep movsq", inout("rcx") 512usize => _, inout("rsi") from => _, inout("rdi") to => _,
            options(nostack, preserves_flags));
    }
}
#[cfg(not(all(target_arch = "x86_64", target_os = "none")))]
fn zero_page(page: *mut u8) {
    // SAFETY: 4096 writable bytes, by `PhysMap::new`.
    unsafe { core::ptr::write_bytes(page, 0, PAGE_SIZE) }
}
#[cfg(not(all(target_arch = "x86_64", target_os = "none")))]
fn copy_page(from: *const u8, to: *mut u8) {
    // SAFETY: two different frames of 4096 bytes each, by `PhysMap::new`.
    unsafe { core::ptr::copy_nonoverlapping(from, to, PAGE_SIZE) }
}
