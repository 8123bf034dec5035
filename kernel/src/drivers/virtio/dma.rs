//! Memory that a device may see: wired frames, reached through the direct map.
//!
//! Drivers live as long as the kernel, so this memory is handed out once and never taken back. Small pieces are cut
//! from a shared frame: the rings of all eighteen console queues fit in one, and in a machine of 16 MiB that counts.
//!
//! A [`Dma`] is memory shared with a device that may write at any time. No Rust reference to it is ever made; it is
//! read and written through raw pointers, by value.

use crate::mem::memory;
use core::sync::atomic::{Ordering, compiler_fence};
use hafez_mm::PAGE_SIZE;
use hafez_mm::lock::Mutex;

/// No wired memory is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DmaError;

/// A piece of wired, physically contiguous memory, zeroed when it was handed out.
#[derive(Clone, Copy)]
pub struct Dma {
    ptr: *mut u8,
    phys: u64,
    len: usize,
}

// SAFETY: a `Dma` is an address of memory that is never freed; every access copies bytes through raw pointers, and
// who may access which part when is the driver's protocol, kept under the driver's lock.
unsafe impl Send for Dma {}
// SAFETY: as above.
unsafe impl Sync for Dma {}

impl Dma {
    /// Physical address of the byte at `offset`.
    #[inline(always)]
    pub fn phys(&self, offset: usize) -> u64 {
        debug_assert!(offset <= self.len);
        self.phys + offset as u64
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The `len` bytes from `offset` on, as a piece of their own.
    pub fn part(&self, offset: usize, len: usize) -> Dma {
        assert!(offset <= self.len && len <= self.len - offset, "part of device memory out of bounds");
        Dma { ptr: self.ptr.wrapping_add(offset), phys: self.phys + offset as u64, len }
    }

    /// The address of a `T` at `offset`, aligned and inside.
    #[inline(always)]
    pub fn at<T>(&self, offset: usize) -> *mut T {
        assert!(offset <= self.len && size_of::<T>() <= self.len - offset);
        let ptr = self.ptr.wrapping_add(offset).cast::<T>();
        debug_assert!(ptr.is_aligned());
        ptr
    }

    /// Read a plain value that the device may have written.
    #[inline(always)]
    pub fn load<T: Plain>(&self, offset: usize) -> T {
        // SAFETY: `at` checks bounds and alignment, the memory is never freed, and any bit pattern is a `Plain`.
        unsafe { self.at::<T>(offset).read_volatile() }
    }

    /// Write a plain value for the device to read.
    #[inline(always)]
    pub fn store<T: Plain>(&self, offset: usize, value: T) {
        // SAFETY: as in `load`.
        unsafe { self.at::<T>(offset).write_volatile(value) }
    }

    /// Copy bytes in. Panics on a piece that does not fit: offsets and lengths are the driver's own.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset <= self.len && bytes.len() <= self.len - offset);
        // SAFETY: inside the piece (checked); `bytes` is a Rust slice and so not device memory, hence no overlap.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.ptr.add(offset), bytes.len()) }
    }

    /// Copy bytes out. Panics as [`Dma::write`] does.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        assert!(offset <= self.len && out.len() <= self.len - offset);
        compiler_fence(Ordering::Acquire);
        // SAFETY: inside the piece (checked); `out` is a Rust slice and so not device memory, hence no overlap.
        unsafe { core::ptr::copy_nonoverlapping(self.ptr.add(offset), out.as_mut_ptr(), out.len()) }
    }

    /// The bytes as a slice.
    ///
    /// # Safety
    /// While the slice lives, the device must not own any of it (no descriptor in flight names it), and nobody else may
    /// access it.
    pub unsafe fn slice<'a>(&self) -> &'a mut [u8] {
        // SAFETY: `len` bytes of wired memory, never freed; that they are ours alone for the time is the caller's promise.
        unsafe { core::slice::from_raw_parts_mut(self.ptr, self.len) }
    }
}

/// Plain values: every bit pattern is one.
///
/// # Safety
/// Implement it only for types without padding or invalid bit patterns.
pub unsafe trait Plain: Copy {}
// SAFETY: integers have neither padding nor invalid patterns.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}

/// The frame that small pieces are being cut from: its memory, and how much is taken.
static OPEN: Mutex<Option<(Dma, usize)>> = Mutex::new(None);

/// `len` zeroed bytes at a multiple of `align` (a power of two, at most a page), contiguous for the device.
pub fn alloc(len: usize, align: usize) -> Result<Dma, DmaError> {
    assert!(align.is_power_of_two() && align <= PAGE_SIZE);
    if len <= PAGE_SIZE / 2 && align < PAGE_SIZE {
        let mut open = OPEN.lock();
        if let Some((dma, used)) = &mut *open {
            let start = used.next_multiple_of(align);
            if start + len <= dma.len {
                *used = start + len;
                return Ok(dma.part(start, len));
            }
        }
        let dma = frames(0)?;
        *open = Some((dma, len));
        return Ok(dma.part(0, len));
    }
    let order = len.div_ceil(PAGE_SIZE).next_power_of_two().trailing_zeros();
    Ok(frames(order as u8)?.part(0, len))
}

/// 2^`order` contiguous frames, zeroed.
fn frames(order: u8) -> Result<Dma, DmaError> {
    let first = memory().alloc_wired(order).map_err(|_| DmaError)?;
    for n in 0..1u32 << order {
        memory().phys().zero(first.add(n));
    }
    Ok(Dma { ptr: memory().phys().ptr(first), phys: first.addr().0, len: PAGE_SIZE << order })
}
