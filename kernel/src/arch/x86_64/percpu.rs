//! What belongs to one CPU: reached through GS while the kernel runs.
//!
//! ```text
//!   gs:0    its own address, so that Rust gets a reference
//!   gs:8    the kernel stack to come back to from ring 3
//!   gs:16   scratch of the system call entry
//!   …       the descriptor tables
//! ```
//!
//! In the TSS, `rsp0` points just behind the registers of the `UserContext` that runs: on an interrupt from ring 3 the
//! processor itself stores `ss rsp rflags cs rip` where they belong (see `user`).
//!
//! Only its own CPU touches an area, with interrupts off, so plain cells do.

use super::descriptors::{Gdt, Tss};
use super::paging::Tags;
use core::cell::{Cell, UnsafeCell};
use core::sync::atomic::AtomicPtr;

/// Bytes of each stack for exceptions that must not trust the current one.
pub const IST_BYTES: usize = 4096;

#[repr(C, align(16))]
pub struct IstStack(UnsafeCell<[u8; IST_BYTES]>);

#[repr(C, align(64))]
pub struct PerCpu {
    pub this: Cell<*const PerCpu>,
    /// Where `run` was called from.
    pub kernel_rsp: Cell<u64>,
    pub scratch: Cell<u64>,
    /// Whose FPU state and segment bases are in the processor (see `user`).
    pub live_user: Cell<*mut super::user::State>,
    /// The same, if it is newer than its copy in memory and may go on at once; else null.
    pub armed: Cell<*mut super::user::State>,
    pub id: Cell<u32>,
    /// For `sched`: the current thread.
    pub current: AtomicPtr<()>,
    /// For `sched`: another thread should run soon.
    pub need_resched: Cell<bool>,
    /// Whose translations the buffer keeps (see `paging`).
    pub tags: Tags,
    pub tss: UnsafeCell<Tss>,
    pub gdt: UnsafeCell<Gdt>,
    pub ist: [IstStack; 3],
}

// SAFETY: an area is used by its own CPU only, with interrupts off.
unsafe impl Sync for PerCpu {}

static BOOT_CPU: PerCpu = PerCpu {
    this: Cell::new(&raw const BOOT_CPU),
    kernel_rsp: Cell::new(0),
    scratch: Cell::new(0),
    live_user: Cell::new(core::ptr::null_mut()),
    armed: Cell::new(core::ptr::null_mut()),
    id: Cell::new(0),
    current: AtomicPtr::new(core::ptr::null_mut()),
    need_resched: Cell::new(false),
    tags: Tags::new(),
    tss: UnsafeCell::new(Tss::new()),
    gdt: UnsafeCell::new(Gdt::new()),
    ist: [const { IstStack(UnsafeCell::new([0; IST_BYTES])) }; 3],
};

/// This CPU's area.
#[inline(always)]
pub fn this() -> &'static PerCpu {
    let area: *const PerCpu;
    // SAFETY: GS holds the address of this CPU's area from the first Rust instruction on; areas live for ever.
    unsafe {
        core::arch::asm!("mov {}, gs:[0]", out(reg) area, options(pure, readonly, nostack, preserves_flags));
        &*area
    }
}

impl PerCpu {
    /// The top of an exception stack. Its last 16 bytes hold the area's address: such an exception may come while
    /// GS is still the program's.
    pub fn ist_top(&self, index: usize) -> u64 {
        self.ist[index].0.get() as u64 + IST_BYTES as u64 - 16
    }
}

/// First of all: make [`this`] work on the CPU that booted.
pub fn init_boot_cpu() {
    // SAFETY: the area is a static.
    unsafe { super::regs::write_msr(super::regs::GS_BASE, &raw const BOOT_CPU as u64) };
}

/// Descriptor tables of the CPU that runs this, and what goes with them.
pub fn init_tables() {
    let area = this();
    for i in 0..area.ist.len() {
        // SAFETY: inside the stack, which nothing uses yet.
        unsafe { *(area.ist_top(i) as *mut u64) = &raw const *area as u64 };
    }
    super::descriptors::init(area);
}
