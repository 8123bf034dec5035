//! The other CPUs: how many there shall be, and how they start.
//!
//! The command line tells how many (`hafez.cpus=N`); without it there is one. They start all at once, by a broadcast: each
//! takes the next number, and with it the area, the stack and the idle thread that were made for that number before.
//!
//! ```text
//!   INIT, SIPI ──► START_PAGE, real mode ──► long mode, first page tables ──► the kernel's own tables, a number, a stack
//!                                                                              └──► `start`: tables, features, interrupts ──► idle thread
//! ```
//!
//! A CPU that starts in real mode needs code below 1 MiB that is mapped where it stands. The first page tables have
//! that; they and the page are kept where there is more than one CPU to start (16 KiB), and are gone otherwise.

use super::{apic, cpu, entry, paging, percpu, percpu::MAX_CPUS, time, user};
use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::*};
use hafez_mm::{PAGE_SIZE, Pfn, lock::Attentive, lock::RelaxStrategy};

/// Where the others begin, in real mode: `cs` = this frame's number * 256.
pub const START_PAGE: Pfn = Pfn(8);

/// How long to wait for a CPU to take its number, in nanoseconds. An emulated one on a busy host may take its time.
const PATIENCE: u64 = 10_000_000_000;
/// A start that is not heard is given again after this time.
const AGAIN: u64 = 20_000_000;

global_asm!(
    r#"
    .section .rodata, "a", @progbits
    .balign 16
    .globl ap_code
ap_code:
    .code16
    cli
    mov ax, cs
    mov ds, ax
    .byte 0x66, 0x0F, 0x01, 0x16            // lgdt [ap_gdt_pointer - ap_code], with the whole base
    .short ap_gdt_pointer - ap_code
    mov eax, cr0
    or eax, 1
    mov cr0, eax
    .byte 0x66, 0xEA                        // ljmp 0x08:2f
    .long {at} + 2f - ap_code
    .short 0x08
    .code32
2:
    mov eax, 0x20                           // PAE
    mov cr4, eax
    mov eax, offset boot_pml4 - {base}
    mov cr3, eax
    mov ecx, 0xC0000080                     // EFER
    rdmsr
    or eax, 0x900                           // LME NXE
    wrmsr
    mov eax, 0x80010033                     // PG WP NE ET MP PE
    mov cr0, eax
    .byte 0xEA                              // ljmp 0x10:3f
    .long {at} + 3f - ap_code
    .short 0x10
    .code64
3:
    movabs rax, offset ap_high
    jmp rax
    .balign 8
ap_gdt:
    .quad 0
    .quad 0x00CF9A000000FFFF                // 32-bit code
    .quad 0x00AF9A000000FFFF                // 64-bit code
ap_gdt_pointer:
    .short 23
    .long {at} + ap_gdt - ap_code
    .globl ap_code_end
ap_code_end:

    .section .text.boot, "ax", @progbits
ap_high:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov rax, [rip + {root}]
    mov cr3, rax
    mov edi, 1
    lock xadd dword ptr [rip + {next}], edi
    cmp edi, {most}
    jae 4f
    lea rax, [rip + {stacks}]
    mov rsp, [rax + rdi * 8]
    test rsp, rsp
    jz 4f
    xor ebp, ebp
    call {start}
4:  cli
    hlt
    jmp 4b
    "#,
    at = const START_PAGE.0 * PAGE_SIZE as u32,
    base = const entry::BASE,
    root = sym ROOT,
    next = sym NEXT,
    most = const MAX_CPUS,
    stacks = sym STACKS,
    start = sym start,
);

unsafe extern "C" {
    static ap_code: u8;
    static ap_code_end: u8;
}

/// What CR3 shall be.
static ROOT: AtomicU64 = AtomicU64::new(0);
/// The number that the next CPU to start takes.
static NEXT: AtomicU32 = AtomicU32::new(1);
/// Where each CPU's first stack ends; 0: there is no such CPU.
static STACKS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
/// A `fn() -> !`.
static ENTRY: AtomicUsize = AtomicUsize::new(0);
/// CPUs that run.
static RUNNING: AtomicUsize = AtomicUsize::new(1);

/// How many CPUs run.
#[inline(always)]
pub fn count() -> usize {
    RUNNING.load(Relaxed)
}

/// How many CPUs there shall be.
pub(super) fn wanted(command_line: &str) -> usize {
    super::boot::option_of(command_line, "hafez.cpus")
        .and_then(|n| n.parse().ok())
        .unwrap_or(1)
        .clamp(1, MAX_CPUS)
}

/// Start the other CPUs. Each calls `entry` on the stack that ends where `stack` says for its number; it is given one number after
/// the other, and says `None` where no more can be had. Once.
pub fn start_others(stack: &mut dyn FnMut(usize) -> Option<u64>, entry: fn() -> !) {
    percpu::this().shared.apic.store(apic::id(), Relaxed);
    let mut count = 1;
    while count < wanted(super::boot::info().command_line) {
        if !percpu::add(count) {
            break;
        }
        let Some(top) = stack(count) else { break };
        STACKS[count].store(top, Relaxed);
        count += 1;
    }
    if count == 1 {
        return;
    }
    ENTRY.store(entry as usize, Relaxed);
    ROOT.store(paging::kernel_root().addr().0, SeqCst);
    // SAFETY: the page was kept for this; the code is as long as its labels say, and shorter than a page.
    unsafe {
        let bytes = (&raw const ap_code_end).offset_from(&raw const ap_code) as usize;
        assert!(bytes <= PAGE_SIZE);
        paging::phys().ptr(START_PAGE).copy_from_nonoverlapping(&raw const ap_code, bytes);
    }
    apic::send_init();
    let begin = time::now_ns();
    let mut last = 0;
    while RUNNING.load(Acquire) < count {
        let now = time::now_ns();
        if now - begin > PATIENCE {
            // Those that have come are numbered without a gap; one that comes later finds no stack.
            STACKS.iter().for_each(|stack| stack.store(0, SeqCst));
            log::warn!("{} of {count} CPUs have started", RUNNING.load(Acquire));
            return;
        }
        if now - last > AGAIN {
            apic::send_start(START_PAGE.0 as u8);
            last = now;
        }
        Attentive::relax();
    }
}

/// The first Rust of another CPU.
extern "sysv64" fn start(cpu: u32) -> ! {
    percpu::enter(cpu as usize);
    cpu::enable();
    paging::enable();
    percpu::init_tables();
    apic::init();
    percpu::this().shared.apic.store(apic::id(), Relaxed);
    user::init();
    // In order of their numbers, so that those that run are numbered without a gap.
    while RUNNING.load(Acquire) != cpu as usize {
        core::hint::spin_loop();
    }
    RUNNING.store(cpu as usize + 1, Release);
    // SAFETY: stored by `start_others` alone.
    let entry: fn() -> ! = unsafe { core::mem::transmute(ENTRY.load(Acquire)) };
    entry()
}

/// Have the CPU look at its run queue soon.
pub fn reschedule(cpu: usize) {
    if let Some(other) = percpu::shared(cpu) {
        apic::send(other.apic.load(Relaxed), super::trap::RESCHEDULE);
    }
}

/// Return when every other CPU has passed through a full barrier since the call.
pub use super::shootdown::barrier;

/// Who holds the others, as its number + 1; 0: nobody. And how many are held.
static HOLDER: AtomicUsize = AtomicUsize::new(0);
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Do `f` while all other CPUs stand still outside the kernel: between two instructions of a program, or idle. The caller
/// holds no lock.
pub fn hold_others<R>(f: impl FnOnce() -> R) -> R {
    let others = count() - 1;
    let me = percpu::this().id.get() as usize + 1;
    while HOLDER.compare_exchange(0, me, AcqRel, Relaxed).is_err() {
        // Two that hold each other would wait for ever: let the other have this one.
        cpu::interrupt_window();
    }
    for other in (0..count()).filter(|&other| other + 1 != me).filter_map(percpu::shared) {
        apic::send(other.apic.load(Relaxed), super::trap::REQUEST);
    }
    while HELD.load(Acquire) < others {
        Attentive::relax();
    }
    let result = f();
    HOLDER.store(0, Release);
    while HELD.load(Acquire) > 0 {
        Attentive::relax();
    }
    result
}

/// The interrupt of a request came: stand still while somebody holds this CPU.
pub(super) fn be_held() {
    if HOLDER.load(Acquire) == 0 || percpu::this().napping.get() {
        return;
    }
    HELD.fetch_add(1, AcqRel);
    while HOLDER.load(Acquire) != 0 {
        Attentive::relax();
    }
    HELD.fetch_sub(1, AcqRel);
}

/// Stop all other CPUs, for good.
pub(super) fn stop_others() {
    if count() > 1 {
        apic::send_stop();
    }
}

/// Looks at what it waits for before a CPU naps.
const LOOKS: u32 = 3000;
/// How long it naps, in nanoseconds.
const NAP: u64 = 50_000;

/// Between two looks at what this CPU waits for: serve others. Where it takes long, the one that is waited for may itself wait for
/// a processor of the host, which this one keeps busy by looking: so it sleeps for a moment. Requests wake it.
fn attend() {
    super::shootdown::serve();
    let looks = &percpu::this().looks;
    looks.set(looks.get() + 1);
    if looks.get() > LOOKS {
        looks.set(0);
        time::nap(NAP);
        if HOLDER.load(Acquire) != 0 {
            // The wish to hold this CPU may have come, and gone, while it napped: let it come again when it can be heeded.
            let own = &percpu::this().shared;
            apic::send(own.apic.load(Relaxed), super::trap::REQUEST);
        }
    }
}

/// What a CPU that spins shall do meanwhile.
pub(super) fn init() {
    hafez_mm::lock::set_idler(attend);
}
