//! The last words: what happened, where, the registers, and how we got there.
//!
//! The backtrace follows frame pointers and prints return addresses; the host, which has the symbols, names them.

use super::{console::Out, cpu, entry, paging, regs, trap::Frame};
use core::fmt::Write;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Frames to print at most.
const DEPTH: usize = 40;

/// The number of the CPU that panics, plus one.
static PANICKING: AtomicUsize = AtomicUsize::new(0);

/// The number of the CPU whose turn it is to tell where it was stopped, plus one; and how many have told.
static TURN: AtomicUsize = AtomicUsize::new(0);
static TOLD: AtomicUsize = AtomicUsize::new(0);
/// How long to wait for a CPU to tell, in nanoseconds.
const PATIENCE: u64 = 200_000_000;

/// The first to panic stops the others and goes on; they wait for their turn to tell where they were. A panic while
/// panicking ends the machine.
fn begin(frame: Option<&Frame>) {
    // SAFETY: nothing may come in between any more.
    unsafe { core::arch::asm!("cli", options(nostack)) };
    let me = cpu::id() + 1;
    match PANICKING.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => super::smp::stop_others(),
        Err(first) if first == me => {
            let _ = writeln!(Out, "panic while panicking");
            super::exit(super::EXIT_FAILED);
        }
        Err(_) => stopped(frame, me),
    }
}

/// Another CPU panics: tell where this one was when that one asks, and stop.
fn stopped(frame: Option<&Frame>, me: usize) -> ! {
    while TURN.load(Ordering::Acquire) != me {
        core::hint::spin_loop();
    }
    let _ = match frame {
        Some(frame) if frame.cs & 3 == 0 => {
            let _ = writeln!(Out, "cpu {} was at\n  {:016x}", me - 1, frame.rip);
            follow(frame.registers.rbp);
            Ok(())
        }
        Some(_) => writeln!(Out, "cpu {} ran a program", me - 1),
        None => writeln!(Out, "cpu {} panics too", me - 1),
    };
    TOLD.fetch_add(1, Ordering::Release);
    loop {
        // SAFETY: stops the CPU.
        unsafe { core::arch::asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Let each of the other CPUs tell where it was.
fn others() {
    let me = PANICKING.load(Ordering::Relaxed);
    for (told, turn) in (1..=cpu::count()).filter(|&cpu| cpu != me).enumerate() {
        TURN.store(turn, Ordering::Release);
        let from = super::time::now_ns();
        while TOLD.load(Ordering::Acquire) <= told && super::time::now_ns() - from < PATIENCE {
            core::hint::spin_loop();
        }
    }
}

/// For the panic handler: print message, place and backtrace, and end the machine.
pub fn message(info: &core::panic::PanicInfo<'_>) -> ! {
    begin(None);
    let _ = match info.location() {
        Some(at) => writeln!(Out, "KERNEL PANIC: {} ({}:{})", info.message(), at.file(), at.line()),
        None => writeln!(Out, "KERNEL PANIC: {}", info.message()),
    };
    let frame_pointer: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) frame_pointer, options(nomem, nostack)) };
    control();
    backtrace(frame_pointer);
    others();
    super::exit(super::EXIT_FAILED)
}

/// The kernel itself made an exception.
pub(super) fn trap(frame: &Frame, address: Option<u64>) -> ! {
    begin(Some(frame));
    let name = NAMES.get(frame.vector as usize).copied().unwrap_or("unknown exception");
    let _ = write!(Out, "KERNEL PANIC: {name} in the kernel, error code {:#x}", frame.error);
    if let Some(address) = address {
        let _ = write!(Out, ", address {address:#x}");
        if (paging::STACKS..paging::STACKS + (1 << 30)).contains(&address) {
            let _ = write!(Out, " (a kernel stack has overflowed)");
        }
    }
    let r = &frame.registers;
    let _ = writeln!(Out, "\n  rip {:016x}  cs {:02x}  rflags {:x}", frame.rip, frame.cs, frame.rflags);
    let _ = writeln!(Out, "  rax {:016x}  rbx {:016x}  rcx {:016x}  rdx {:016x}", r.rax, r.rbx, r.rcx, r.rdx);
    let _ =
        writeln!(Out, "  rsi {:016x}  rdi {:016x}  rbp {:016x}  rsp {:016x}", r.rsi, r.rdi, r.rbp, frame.rsp);
    let _ = writeln!(Out, "  r8  {:016x}  r9  {:016x}  r10 {:016x}  r11 {:016x}", r.r8, r.r9, r.r10, r.r11);
    let _ = writeln!(Out, "  r12 {:016x}  r13 {:016x}  r14 {:016x}  r15 {:016x}", r.r12, r.r13, r.r14, r.r15);
    control();
    if frame.cs & 3 == 0 {
        let _ = writeln!(Out, "backtrace:\n  {:016x}", frame.rip);
        follow(r.rbp);
    }
    others();
    if frame.vector == 2 {
        more();
    }
    super::exit(super::EXIT_FAILED)
}

/// Called by a panic after its own words: for `sched`, to tell what the other threads did.
static MORE: AtomicUsize = AtomicUsize::new(0);

/// Have `more` called at the end of a panic.
pub fn set_more(more: fn()) {
    MORE.store(more as usize, Ordering::Relaxed);
}

fn more() {
    let more = MORE.swap(0, Ordering::Relaxed);
    if more != 0 {
        // SAFETY: stored by `set_more` alone.
        let more: fn() = unsafe { core::mem::transmute(more) };
        more();
    }
}

/// Print a chain of return addresses.
pub(super) fn follow_from(frame_pointer: u64, first: u64) {
    let _ = writeln!(Out, "  {first:016x}");
    follow(frame_pointer);
}

fn control() {
    let _ = writeln!(
        Out,
        "  cpu {}  cr2 {:x}  cr3 {:x}  cr4 {:x}",
        cpu::id(),
        regs::cr2(),
        regs::cr3(),
        regs::cr4()
    );
}

fn backtrace(frame_pointer: u64) {
    let _ = writeln!(Out, "backtrace:");
    follow(frame_pointer);
}

fn follow(mut frame_pointer: u64) {
    let image = entry::image();
    let (text, data) = (image.start..image.text_end, image.rodata_end..image.end);
    let stacks = paging::STACKS..paging::STACKS + (1 << 30);
    for _ in 0..DEPTH {
        let readable = data.contains(&frame_pointer) || stacks.contains(&frame_pointer);
        if !readable || !frame_pointer.is_multiple_of(8) {
            break;
        }
        // SAFETY: an aligned place in kernel data or stacks; a fault here ends in "panic while panicking".
        let [next, back] = unsafe { *(frame_pointer as *const [u64; 2]) };
        if !text.contains(&back) {
            break;
        }
        let _ = writeln!(Out, "  {back:016x}");
        if next <= frame_pointer {
            break;
        }
        frame_pointer = next;
    }
}

/// Exceptions by vector (SDM vol. 3, table 6-1).
const NAMES: [&str; 32] = [
    "divide error",
    "debug exception",
    "non-maskable interrupt",
    "breakpoint",
    "overflow",
    "bound range exceeded",
    "invalid opcode",
    "device not available",
    "double fault",
    "coprocessor overrun",
    "invalid TSS",
    "segment not present",
    "stack fault",
    "general protection fault",
    "page fault",
    "reserved",
    "x87 error",
    "alignment check",
    "machine check",
    "SIMD exception",
    "virtualization exception",
    "control protection exception",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "hypervisor injection",
    "VMM communication",
    "security exception",
    "reserved",
];
