//! The kernel's memory: the one [`Memory`] of the machine, what it asks of the kernel, and the kernel's own heap.

mod heap;
mod platform;

pub use heap::{headroom, is_ready, refill, take_boot_stack, trim};
pub use platform::{Hooks, KernelPlatform, set_hooks};

use crate::arch;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};
use hafez_mm::{AuditError, Config, Memory, Pfn, PolicyKind};

struct Place(UnsafeCell<MaybeUninit<Memory<KernelPlatform>>>);
// SAFETY: written once, before any other thread or CPU runs.
unsafe impl Sync for Place {}
static MEMORY: Place = Place(UnsafeCell::new(MaybeUninit::uninit()));
static UP: AtomicBool = AtomicBool::new(false);

/// Build the machine's memory from what the loader told. Once, before anything else of this room is used.
// Its frame holds a whole `Memory`: it must not become part of a function that stays.
#[inline(never)]
pub fn init(policy: PolicyKind) {
    assert!(!UP.load(Ordering::Relaxed));
    let info = arch::boot::info();
    let config = Config {
        phys: arch::paging::phys(),
        usable: &info.usable,
        meta: info.frame_table,
        total_frames: info.total_frames,
        kernel_root: arch::paging::kernel_root(),
        policy,
        seed: arch::random::seed(),
    };
    // SAFETY: the ranges are RAM that nothing else uses, the frame table's place was kept for it, and nobody looks at
    // the static before `UP`.
    unsafe { (*MEMORY.0.get()).write(Memory::new(KernelPlatform, config)) };
    UP.store(true, Ordering::Release);
}

/// The memory of the machine.
#[inline(always)]
pub fn memory() -> &'static Memory<KernelPlatform> {
    debug_assert!(UP.load(Ordering::Relaxed));
    // SAFETY: `init` has run: it is the first thing that `kernel_main` does.
    unsafe { (*MEMORY.0.get()).assume_init_ref() }
}

/// Whether [`audit`] is there for programs to ask for.
pub static AUDITED: AtomicBool = AtomicBool::new(false);

/// Check the invariants at a quiet point: no other CPU in the kernel, no request under way. `None`: no such point could be found.
pub fn audit() -> Option<Result<(), AuditError>> {
    /// Tries before the disk is never quiet.
    const TRIES: usize = 1000;
    /// Nanoseconds between two.
    const PAUSE: u64 = 1_000_000;
    for _ in 0..TRIES {
        let result = arch::smp::hold_others(|| memory().is_quiet().then(|| memory().audit()));
        if result.is_some() {
            return result;
        }
        // The disk's answers come in meanwhile.
        let from = arch::time::now_ns();
        while arch::time::now_ns() - from < PAUSE {
            arch::cpu::interrupt_window();
        }
    }
    None
}

/// 2^`order` contiguous frames for the kernel itself. Does not sleep.
pub fn wired(order: u8) -> Option<Pfn> {
    if !UP.load(Ordering::Relaxed) {
        return None;
    }
    memory().alloc_wired(order).ok()
}

/// Frames of [`wired`], back.
pub fn free_wired(frame: Pfn, order: u8) {
    memory().free_wired(frame, order);
}

/// One frame for the heap, and nothing else: nobody is woken, so any lock may be held.
fn take_frame() -> Option<Pfn> {
    UP.load(Ordering::Relaxed).then(|| memory().take_wired())?
}

/// Whether so many frames are free for the kernel.
fn has_frames(count: usize) -> bool {
    UP.load(Ordering::Relaxed) && memory().kernel_headroom() as usize >= count
}

/// Whether the kernel holds as much of RAM as programs may make it hold.
fn is_crowded() -> bool {
    UP.load(Ordering::Relaxed) && memory().is_crowded()
}

/// Whether this thread runs for a program.
fn for_program() -> bool {
    platform::for_program()
}

/// Wait until the heap has its reserve again, on behalf of the program that this thread runs for.
#[cold]
pub fn await_reserve() {
    refill(platform::account());
}

/// So many zero bytes, if there is room: for what a program says how large it is.
pub fn zeroed(len: usize) -> Result<Vec<u8>, TryReserveError> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len)?;
    bytes.resize(len, 0);
    Ok(bytes)
}

/// A list that takes one more only if there is room.
pub trait TryPush<T> {
    /// Put it at the end.
    fn try_push(&mut self, one: T) -> Result<(), TryReserveError>;
}

impl<T> TryPush<T> for Vec<T> {
    #[inline]
    fn try_push(&mut self, one: T) -> Result<(), TryReserveError> {
        self.try_reserve(1)?;
        self.push(one);
        Ok(())
    }
}
