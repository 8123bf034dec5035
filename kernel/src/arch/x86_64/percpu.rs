//! What belongs to one CPU: reached through GS while the kernel runs.
//!
//! ```text
//!   gs:0    its own address, so that Rust gets a reference
//!   gs:8    the kernel stack to come back to from ring 3
//!   gs:16   scratch of the system call entry
//!   …       the descriptor tables
//!   shared  what other CPUs may look at and post to (see `shootdown`), on cache lines of its own
//! ```
//!
//! In the TSS, `rsp0` points just behind the registers of the `UserContext` that runs: on an interrupt from ring 3 the
//! processor itself stores `ss rsp rflags cs rip` where they belong (see `user`).
//!
//! All but `shared` is touched by its own CPU only, with interrupts off, so plain cells do. The kernel is not preempted, so
//! a reference from [`this`] is good until the thread gives up its CPU, and no longer: it may go on on another.

use super::descriptors::{Gdt, Tss};
use super::shootdown::Shared;
use alloc::boxed::Box;
use core::cell::{Cell, UnsafeCell};
use core::sync::atomic::{AtomicPtr, Ordering};

/// CPUs that the kernel can use.
pub const MAX_CPUS: usize = hafez_mm::MAX_CPUS;

/// Bytes of each stack for exceptions that must not trust the current one. An area is built on a kernel stack, so all four together
/// must leave room there; what the last words need beyond theirs they take from the one below, the lowest being that which needs least.
pub const IST_BYTES: usize = 3072;

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
    /// Where the program took a page fault, if no interrupt has come since (see `user::interrupted_on_entry`).
    pub faulted: Cell<u64>,
    /// For `sched`: the current thread.
    pub current: AtomicPtr<()>,
    /// For `sched`: another thread should run soon.
    pub need_resched: Cell<bool>,
    /// For what time the timer is set (see `time`); `u64::MAX` for none.
    pub deadline: Cell<u64>,
    /// This CPU sleeps in the middle of a wait (see `smp::attend`); and how often it has looked since it last did.
    pub napping: Cell<bool>,
    pub looks: Cell<u32>,
    /// The thread that runs has no space of its own: the one that is loaded may go at any time (see `paging`).
    pub lazy: Cell<bool>,
    /// What names the space that is loaded; null for the kernel's own.
    pub loaded: Cell<*const ()>,
    pub shared: Shared,
    pub tss: UnsafeCell<Tss>,
    pub gdt: UnsafeCell<Gdt>,
    /// Debug registers are loaded (see `debug`).
    pub watching: Cell<bool>,
    /// A program's own table of descriptors is loaded (see `segments`).
    pub has_table: Cell<bool>,
    /// SMAP is off for the program that is loaded (see `user::far_call_in_emulation`).
    pub smap_off: Cell<bool>,
    /// Its program may not read the time-stamp counter.
    pub no_clock: Cell<bool>,
    /// One of these four is so, or a data segment register is not null: to be looked at when another program comes.
    pub peculiar: Cell<bool>,
    pub ist: [IstStack; 4],
}

// SAFETY: all but `shared`, which is made of atomics, is used by the area's own CPU only, with interrupts off.
unsafe impl Sync for PerCpu {}

impl PerCpu {
    const fn new() -> Self {
        PerCpu {
            this: Cell::new(core::ptr::null()),
            kernel_rsp: Cell::new(0),
            scratch: Cell::new(0),
            live_user: Cell::new(core::ptr::null_mut()),
            armed: Cell::new(core::ptr::null_mut()),
            id: Cell::new(0),
            faulted: Cell::new(0),
            current: AtomicPtr::new(core::ptr::null_mut()),
            need_resched: Cell::new(false),
            deadline: Cell::new(u64::MAX),
            napping: Cell::new(false),
            looks: Cell::new(0),
            lazy: Cell::new(true),
            loaded: Cell::new(core::ptr::null()),
            shared: Shared::new(),
            tss: UnsafeCell::new(Tss::new()),
            gdt: UnsafeCell::new(Gdt::new()),
            watching: Cell::new(false),
            has_table: Cell::new(false),
            smap_off: Cell::new(false),
            no_clock: Cell::new(false),
            peculiar: Cell::new(false),
            ist: [const { IstStack(UnsafeCell::new([0; IST_BYTES])) }; 4],
        }
    }

    /// The top of an exception stack. Its last 16 bytes hold the area's address: such an exception may come while
    /// GS is still the program's.
    pub fn ist_top(&self, index: usize) -> u64 {
        self.ist[index].0.get() as u64 + IST_BYTES as u64 - 16
    }
}

static BOOT_CPU: PerCpu = PerCpu::new();

/// The areas, by number. Null where there is no such CPU.
static AREAS: [AtomicPtr<PerCpu>; MAX_CPUS] = {
    let mut areas = [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS];
    areas[0] = AtomicPtr::new((&raw const BOOT_CPU).cast_mut());
    areas
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

/// What others may see of a CPU's area; `None` where there is no such CPU.
pub fn shared(cpu: usize) -> Option<&'static Shared> {
    // SAFETY: areas live for ever.
    unsafe { AREAS.get(cpu)?.load(Ordering::Acquire).as_ref() }.map(|area| &area.shared)
}

/// Make [`this`] work on the CPU that runs this: the one that booted, or one that [`add`] made an area for.
pub fn enter(cpu: usize) {
    let area = AREAS[cpu].load(Ordering::Acquire);
    // SAFETY: areas live for ever, and this is the only CPU of that number.
    unsafe {
        (*area).this.set(area);
        super::regs::write_msr(super::regs::GS_BASE, area as u64);
    }
}

/// An area for one more CPU. `false`: there is no memory.
pub fn add(cpu: usize) -> bool {
    if !crate::mem::headroom(size_of::<PerCpu>()) {
        return false;
    }
    let area = Box::leak(Box::new(PerCpu::new()));
    area.id.set(cpu as u32);
    AREAS[cpu].store(area, Ordering::Release);
    true
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
