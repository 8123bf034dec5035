//! The kernel's heap: talc, in an address range of its own, into which frames are mapped one by one as it grows.
//!
//! ```text
//!   HEAP ─────────────── arena's end ───────────────────────────────▶
//!   | blocks in use and free ones   | not mapped yet
//!                    trim: ◀────────|────────▶ :grow, a frame at a time
//! ```
//!
//! So a block may be larger than any run of free frames, and RAM that is cut up costs the heap nothing. What is free at the
//! end goes back when a process has ended ([`trim`]). Two small pieces of the image belong to it too: one for what is
//! built before there is a `Memory`, and what the boot stack does not need any more.
//!
//! The kernel allocates in many places that cannot fail. So that those do not meet an empty heap, a few frames are kept
//! in reserve, and no system call begins before it is full ([`is_ready`], [`refill`], which may have to wait; so does who
//! comes back from a long sleep within a call). What one call builds in small blocks always finds room then. Whatever
//! makes many things, or things that stay, asks [`headroom`] before each.
//!
//! A block of more than [`SMALL`] is never promised: whoever asks for one can do without it (`try_reserve`). And what
//! programs make the kernel remember has an end before RAM has: when the frames that no reclaim can take
//! are all but a part of RAM ([`Memory::is_crowded`](hafez_mm::Memory::is_crowded)), [`headroom`] and large blocks are refused. So there is always room to run
//! the program that is to hear of it.
//!
//! No lock of this module is held while frames are taken. The frame allocator does not use the heap, and does not sleep.

use crate::arch::paging;
use arrayvec::ArrayVec;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicBool, Ordering};
use hafez_mm::lock::Mutex;
use hafez_mm::{AccountId, PAGE_SIZE, Pfn};
use talc::{DefaultBinning, base::Talc, source::Manual};

/// Enough for what the machine layer builds before memory is up.
const FIRST_BYTES: usize = 40 << 10;
/// Frames in reserve: 80 KiB, more than any single operation builds in small blocks.
const RESERVE: usize = 20;
/// Of these, what only the kernel's own threads take: they explain and undo what the others did.
const LAST: usize = 4;
/// What may be built without a look at how much there is, as long as the reserve is full.
const SMALL: usize = 8 << 10;
/// Frames to take at once; what is larger grows in several steps.
const STEP: usize = 32;
/// Free bytes at the arena's end that are worth giving back.
const SPARE: u64 = 64 << 10;
/// What talc keeps at the ends of what it is given, and loses to alignment.
const OVERHEAD: usize = 128;

struct Heap {
    talc: Mutex<Talc<Manual, DefaultBinning>>,
    area: Mutex<Area>,
    reserve: Mutex<ArrayVec<Pfn, RESERVE>>,
    /// The reserve is full.
    full: AtomicBool,
    /// The kernel holds as much as it may for programs. Looked at when the heap grows, and by who is refused for it.
    crowded: AtomicBool,
    /// The piece in the image has been taken.
    begun: AtomicBool,
}

/// The part of the window that is mapped.
struct Area {
    /// Past the last mapped page.
    mapped: u64,
    /// Where talc says that its arena ends.
    end: Option<NonNull<u8>>,
}
// SAFETY: the pointer is a number to this module; what it points to is talc's.
unsafe impl Send for Area {}

#[repr(align(16))]
struct First(UnsafeCell<[u8; FIRST_BYTES]>);
// SAFETY: given to the heap once.
unsafe impl Sync for First {}
static FIRST: First = First(UnsafeCell::new([0; FIRST_BYTES]));

#[global_allocator]
static HEAP: Heap = Heap {
    talc: Mutex::new(Talc::new(Manual)),
    area: Mutex::new(Area { mapped: paging::HEAP, end: None }),
    reserve: Mutex::new(ArrayVec::new_const()),
    full: AtomicBool::new(false),
    crowded: AtomicBool::new(false),
    begun: AtomicBool::new(false),
};

impl Heap {
    fn give(&self, base: *mut u8, bytes: usize) {
        // SAFETY: the memory is the heap's own from now on (see the callers).
        let _ = unsafe { self.talc.lock().claim(base, bytes) };
    }

    /// Own room for one more block of `bytes`. `false` where there are no frames for it.
    #[cold]
    fn grow(&self, bytes: usize, use_reserve: bool) -> bool {
        if !self.begun.swap(true, Ordering::Relaxed) {
            self.give(FIRST.0.get().cast(), FIRST_BYTES);
            return true;
        }
        let mut wanted = (bytes + OVERHEAD).div_ceil(PAGE_SIZE);
        self.crowded.store(super::is_crowded(), Ordering::Release);
        if bytes > SMALL && self.crowded.load(Ordering::Relaxed) {
            return false;
        }
        // Not to take many, only to find that they are not enough.
        if !super::has_frames(wanted) {
            return use_reserve && self.grow_from_reserve(wanted);
        }
        while wanted > 0 {
            let frames: ArrayVec<Pfn, STEP> =
                core::iter::from_fn(super::take_frame).take(wanted.min(STEP)).collect();
            wanted -= frames.len();
            if frames.is_empty() || !self.extend(&frames) {
                return use_reserve && self.grow_from_reserve(wanted);
            }
        }
        true
    }

    /// With the last frames that the kernel may take, and then those of the reserve.
    fn grow_from_reserve(&self, wanted: usize) -> bool {
        if wanted > RESERVE / 2 {
            return false;
        }
        let mut frames: ArrayVec<Pfn, { RESERVE / 2 }> =
            core::iter::from_fn(super::take_frame).take(wanted).collect();
        self.full.store(false, Ordering::Release);
        let kept = if super::for_program() { LAST } else { 0 };
        while frames.len() < wanted {
            let frame = {
                let mut reserve = self.reserve.lock();
                if reserve.len() > kept { reserve.pop() } else { None }
            };
            let Some(frame) = frame else {
                frames.into_iter().for_each(|frame| super::free_wired(frame, 0));
                return false;
            };
            frames.push(frame);
        }
        self.extend(&frames)
    }

    /// Map these frames at the arena's end. What cannot be mapped is given back.
    fn extend(&self, frames: &[Pfn]) -> bool {
        let mut left = frames;
        let mut tables: ArrayVec<Pfn, 2> = ArrayVec::new();
        loop {
            left = self.map(left, &mut tables);
            if left.is_empty() || tables.is_full() {
                break;
            }
            // Tables are missing.
            let Some(table) = super::take_frame() else { break };
            tables.push(table);
        }
        for &frame in left.iter().chain(&tables) {
            super::free_wired(frame, 0);
        }
        left.len() < frames.len()
    }

    /// Map as many of the frames as the tables serve for; the rest.
    fn map<'a>(&self, frames: &'a [Pfn], tables: &mut ArrayVec<Pfn, 2>) -> &'a [Pfn] {
        let mut area = self.area.lock();
        let start = area.mapped;
        let mapped = frames
            .iter()
            .take_while(|&&frame| {
                let done = paging::map_heap_page(area.mapped, frame, tables);
                area.mapped += if done { PAGE_SIZE as u64 } else { 0 };
                done
            })
            .count();
        if mapped > 0 {
            let mut talc = self.talc.lock();
            let to = area.mapped as *mut u8;
            // SAFETY: the pages from the arena's end to `mapped` are mapped, and the heap's alone.
            area.end = unsafe {
                match area.end {
                    Some(end) => Some(talc.extend(end, to)),
                    None => talc.claim(start as *mut u8, (area.mapped - start) as usize),
                }
            };
        }
        &frames[mapped..]
    }

    #[inline]
    fn allocate(&self, layout: Layout, use_reserve: bool) -> *mut u8 {
        // SAFETY: the layout has a size (`GlobalAlloc`'s contract, and `headroom`). Talc takes no memory by itself (`Manual`): that
        // happens in `grow_for`, without its lock.
        match unsafe { self.talc.lock().try_allocate(layout) } {
            Some(at) => at.as_ptr(),
            None => self.grow_for(layout, use_reserve),
        }
    }

    /// Grow until there is such a block.
    #[cold]
    #[inline(never)]
    fn grow_for(&self, layout: Layout, use_reserve: bool) -> *mut u8 {
        while self.grow(layout.size() + layout.align(), use_reserve) {
            // SAFETY: as in `allocate`, which calls this.
            if let Some(at) = unsafe { self.talc.lock().try_allocate(layout) } {
                return at.as_ptr();
            }
        }
        null_mut()
    }

    /// Fill the reserve; whether it is full.
    fn fill_reserve(&self) -> bool {
        loop {
            if self.reserve.lock().is_full() {
                self.full.store(true, Ordering::Release);
                return true;
            }
            let Some(frame) = super::take_frame() else { return false };
            // Another CPU may have been faster.
            if self.reserve.lock().try_push(frame).is_err() {
                super::free_wired(frame, 0);
            }
        }
    }

    /// Give back what is free at the end, if it is much.
    fn trim(&self) {
        let mut area = self.area.lock();
        let Some(end) = area.end else { return };
        let keep = {
            let mut talc = self.talc.lock();
            // SAFETY: `end` is what talc last said.
            let used = unsafe { talc.reserved(end) }.up_to.as_ptr() as u64;
            if area.mapped - used < 2 * SPARE {
                return;
            }
            let keep = (used + SPARE).next_multiple_of(PAGE_SIZE as u64);
            // SAFETY: as above.
            area.end = unsafe { talc.truncate(end, keep as *mut u8) };
            keep
        };
        // The lock stays: nobody may map here what is being unmapped.
        while area.mapped > keep {
            let count = ((area.mapped - keep) / PAGE_SIZE as u64).min(paging::UNMAP_AT_ONCE as u64);
            area.mapped -= count * PAGE_SIZE as u64;
            paging::unmap_heap_pages(area.mapped, count as usize, &mut |frame| super::free_wired(frame, 0));
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
#[inline]
pub fn headroom(bytes: usize) -> bool {
    bytes <= SMALL && HEAP.full.load(Ordering::Acquire) && !HEAP.crowded.load(Ordering::Relaxed)
        || headroom_for(bytes)
}

/// Whether the reserve is full: what a system call begins with.
#[inline(always)]
pub fn is_ready() -> bool {
    HEAP.full.load(Ordering::Relaxed)
}

#[cold]
fn headroom_for(bytes: usize) -> bool {
    let Ok(layout) = Layout::from_size_align(bytes.max(1), 16) else { return false };
    let crowded = super::is_crowded();
    HEAP.crowded.store(crowded, Ordering::Release);
    if crowded || !HEAP.fill_reserve() {
        return false;
    }
    if bytes <= SMALL {
        return true;
    }
    let at = HEAP.allocate(layout, false);
    if at.is_null() {
        return false;
    }
    // SAFETY: just allocated, with this layout.
    unsafe { HEAP.dealloc(at, layout) };
    true
}

/// Fill the reserve again, waiting for frames if need be; before a call or between two steps of one, with no lock held.
/// Gives up where `who` asks for them and is itself to go.
#[cold]
pub fn refill(who: AccountId) {
    while !HEAP.fill_reserve() {
        if super::memory().await_kernel_frames(who, RESERVE as u32).is_err() {
            return;
        }
    }
}

/// Give back what the heap does not need any more. When a process has ended.
pub fn trim() {
    HEAP.trim();
}
