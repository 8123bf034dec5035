//! The kernel's heap: talc, fed with wired frames from the machine's memory.
//!
//! It begins with a small arena in the image, for what is built before there is a `Memory`. When it is full, it takes a
//! few more frames, contiguous, in the direct map. It never gives frames back (blocks of all ages share them), so it
//! stays as large as the kernel's objects once were.
//!
//! The kernel allocates in many places that cannot fail. So that those do not meet an empty heap, a few blocks are kept in
//! reserve for them, and whoever builds what programs can ask for without end asks `headroom` first: it says no as soon
//! as the reserve has been touched and cannot be filled again.
//!
//! The lock is never held while frames are taken. The frame allocator does not use the heap, and does not sleep.

use arrayvec::ArrayVec;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};
use hafez_mm::lock::Mutex;
use hafez_mm::{PAGE_SIZE, Pfn};
use talc::{DefaultBinning, base::Talc, source::Manual};

/// Enough for what the machine layer builds before memory is up.
const FIRST_BYTES: usize = 40 << 10;
/// Frames to take at a time, log2: 32 KiB keep the number of steps small, and little is left over.
const GROW_ORDER: u8 = 3;
/// The largest block that the frame allocator has, log2 of frames.
const MAX_ORDER: u8 = 10;
/// Blocks of `GROW_ORDER` in reserve: 64 KiB, more than any single operation builds.
const RESERVE: usize = 2;
/// What talc keeps at the ends of what it is given.
const OVERHEAD: usize = 128;

struct Heap {
    talc: Mutex<Talc<Manual, DefaultBinning>>,
    reserve: Mutex<ArrayVec<Pfn, RESERVE>>,
    /// Bytes owned.
    owned: AtomicUsize,
}

#[repr(align(16))]
struct First(UnsafeCell<[u8; FIRST_BYTES]>);
// SAFETY: given to the heap once.
unsafe impl Sync for First {}
static FIRST: First = First(UnsafeCell::new([0; FIRST_BYTES]));

#[global_allocator]
static HEAP: Heap = Heap {
    talc: Mutex::new(Talc::new(Manual)),
    reserve: Mutex::new(ArrayVec::new_const()),
    owned: AtomicUsize::new(0),
};

impl Heap {
    fn give(&self, base: *mut u8, bytes: usize) {
        // SAFETY: the memory is the heap's own from now on (see the callers).
        if unsafe { self.talc.lock().claim(base, bytes) }.is_some() {
            self.owned.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Own room for one more block of `bytes`. `false` where there are no frames for it.
    #[cold]
    fn grow(&self, bytes: usize, use_reserve: bool) -> bool {
        if self.owned.load(Ordering::Relaxed) == 0 {
            self.give(FIRST.0.get().cast(), FIRST_BYTES);
            return true;
        }
        let frames = (bytes + OVERHEAD).div_ceil(PAGE_SIZE);
        let wanted = frames.next_power_of_two().trailing_zeros() as u8;
        if wanted > MAX_ORDER {
            return false;
        }
        for order in [wanted.max(GROW_ORDER), wanted] {
            if let Some(frame) = super::wired(order) {
                self.give(crate::arch::paging::phys().ptr(frame), PAGE_SIZE << order);
                return true;
            }
        }
        if !use_reserve || wanted > GROW_ORDER {
            return false;
        }
        let Some(frame) = self.reserve.lock().pop() else { return false };
        self.give(crate::arch::paging::phys().ptr(frame), PAGE_SIZE << GROW_ORDER);
        true
    }

    fn allocate(&self, layout: Layout, use_reserve: bool) -> *mut u8 {
        loop {
            // SAFETY: the layout has a size (`GlobalAlloc`'s contract, and `headroom`). Talc takes no frames by itself
            // (`Manual`): that happens below, without the lock.
            if let Some(at) = unsafe { self.talc.lock().try_allocate(layout) } {
                return at.as_ptr();
            }
            if !self.grow(layout.size() + layout.align(), use_reserve) {
                return null_mut();
            }
        }
    }

    /// Fill the reserve; whether it is full.
    fn fill_reserve(&self) -> bool {
        loop {
            if self.reserve.lock().is_full() {
                return true;
            }
            let Some(frame) = super::wired(GROW_ORDER) else { return false };
            // Only another CPU can have been faster.
            if self.reserve.lock().try_push(frame).is_err() {
                super::free_wired(frame, GROW_ORDER);
            }
        }
    }
}

// SAFETY: talc is the allocator; the lock serialises it, and interrupt handlers cannot interrupt its holder as the
// kernel runs with interrupts off.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.allocate(layout, true)
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: by the caller, the block is ours and has this layout.
        unsafe { self.talc.lock().deallocate(at, layout) };
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: by the caller, as above.
        if unsafe { self.talc.lock().try_realloc_in_place(at, layout, size) } {
            return at;
        }
        // SAFETY: by the caller; the new block is another, and at least as large as what is copied.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                core::ptr::copy_nonoverlapping(at, new, layout.size().min(size));
                self.dealloc(at, layout);
            }
            new
        }
    }
}

/// The heap may have what the boot stack needs no more. Once, when the start is over.
pub fn take_boot_stack() {
    let (base, bytes) = crate::arch::boot::spare_stack();
    HEAP.give(base, bytes);
}

/// Whether `bytes` more are to be had with the reserve untouched (growing the heap for them if need be).
pub fn headroom(bytes: usize) -> bool {
    let Ok(layout) = Layout::from_size_align(bytes.max(1), 16) else { return false };
    if !HEAP.fill_reserve() {
        return false;
    }
    let at = HEAP.allocate(layout, false);
    if at.is_null() {
        return false;
    }
    // SAFETY: just allocated, with this layout.
    unsafe { HEAP.dealloc(at, layout) };
    true
}
