//! Ring 3: entering it and coming back.
//!
//! `run` enters the program and returns at its next trap; what to do about the trap is the caller's loop. The entry
//! code stores the program's registers straight into its `UserContext`:
//!
//! ```text
//!   UserContext ─► State { r15 … rax, vector, error, rip, cs, rflags, rsp, ss | fs_base, gs_base, FPU }
//!                                                                            ▲
//!                                              TSS.rsp0 while the program runs, and where `syscall` stores from
//! ```
//!
//! FPU state and segment bases are switched seldom: they stay in the processor until another program runs on this
//! CPU (`PerCpu::live_user` says whose they are). `leave`, called at every switch of kernel threads, writes them to
//! memory if they may have changed; `run` loads them if they are not there. A system call touches neither: all that it
//! asks is whether its context is still the armed one (`PerCpu::armed`).
//!
//! What a program could set to harm the kernel does not get into the processor: flags are masked; selectors other than those of every
//! 64-bit program are checked against its descriptors each time the context is armed, and a context that has such is disarmed by
//! every exception; a `rip` outside the user half, or beyond its segment, is answered with a protection fault before `sysret` or
//! `iret` could fault in ring 0.

use super::{
    cpu, descriptors,
    percpu::{self, PerCpu},
    regs, segments, trap,
    trap::Frame,
};
use core::arch::naked_asm;
use core::mem::offset_of;

pub use super::user_context::*;
pub use super::user_copy::*;

/// In CR4: the kernel may not touch a program's memory but where it says so.
const SMAP: u64 = 1 << 21;
/// In CR4: programs may not read the time-stamp counter.
const NO_CLOCK: u64 = 1 << 2;
/// CS and SS of 64-bit programs.
pub(super) const USUAL: (u64, u64) = (descriptors::USER_CODE as u64, descriptors::USER_DATA as u64);
/// Cleared by `syscall`: TF IF DF NT AC.
const SYSCALL_MASK: u64 = 0x4_4700;
const GENERAL_PROTECTION: u8 = 13;
/// The first address that is not the program's (USER_END).
pub(super) const USER_TOP: u64 = hafez_mm::USER_END.0 << hafez_mm::PAGE_SHIFT;

/// Why a program stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// `rax` is the number; `rdi rsi rdx r10 r8 r9` the arguments; the answer goes to `rax`. `rip` is behind the instruction.
    Syscall,
    /// `present`: the page was there, and the access not allowed.
    PageFault { addr: u64, write: bool, exec: bool, present: bool },
    /// Any other exception, with its vector (0 divide … 31) and error code.
    Exception { vector: u8, code: u64 },
    /// An interrupt came and has been handled: look whether another thread should run.
    Interrupt,
}

/// Run the program until its next trap, in the address space that is loaded.
#[inline(always)]
pub fn run(context: &mut UserContext) -> Trap {
    let state = context.state.as_ptr();
    // SAFETY: the state is ours (borrowed mutably through the context), and has only what a program may have.
    unsafe {
        if percpu::this().armed.get() != state && !arm(state) {
            return Trap::Exception { vector: GENERAL_PROTECTION, code: 0 };
        }
        enter_user(state);
        match (*state).frame.vector {
            trap::SYSCALL => Trap::Syscall,
            vector => other_trap(vector, &(*state).frame),
        }
    }
}

/// Make the context the one whose FPU state and bases are in the processor, and newer than memory from now on. `false`
/// if its `rip` is no place for a program.
///
/// # Safety
/// The state is alive, and its thread runs here.
#[cold]
#[inline(never)]
unsafe fn arm(state: *mut State) -> bool {
    let area = percpu::this();
    // SAFETY: by the caller.
    unsafe {
        if (*state).frame.rip >= USER_TOP {
            return stop_at_rip(state, 0);
        }
        if area.live_user.get() != state || (*state).live_on != &raw const *area {
            load(area, state);
        }
        let frame = &(*state).frame;
        if frame.vector != trap::SYSCALL && (frame.cs, frame.ss) != USUAL && !is_sound(&*state) {
            return refuse_segments(area, state);
        }
        // Where the processor stores from when the program is interrupted, and where the system call entry begins.
        (*area.tss.get()).rsp0 = state as u64 + trap::FRAME_BYTES as u64;
    }
    area.armed.set(state);
    true
}

// Cold beside a system call; but a page fault goes this way, too.
#[cold]
#[inline(always)]
fn other_trap(vector: u64, frame: &Frame) -> Trap {
    let error = frame.error;
    if vector == trap::PAGE_FAULT {
        if error & (trap::FAULT_USER | trap::FAULT_PRESENT) == trap::FAULT_PRESENT {
            // No processor says so of a program's own access.
            far_call_in_emulation();
        }
        percpu::this().faulted.set(frame.rip);
        Trap::PageFault {
            addr: regs::cr2(),
            write: error & trap::FAULT_WRITE != 0,
            exec: error & trap::FAULT_FETCH != 0,
            present: error & trap::FAULT_PRESENT != 0,
        }
    } else if vector < trap::FIRST_INTERRUPT {
        if (frame.cs, frame.ss) != USUAL {
            // Its `rip` may be beyond the segment: to be looked at before it goes on.
            leave_now();
        }
        Trap::Exception { vector: vector as u8, code: error }
    } else {
        super::irq::dispatch(vector as u8);
        percpu::this().faulted.set(0);
        Trap::Interrupt
    }
}

/// QEMU's emulation does a program's far call, and its far return, with the rights of ring 0, and SMAP would stop it for ever. So it is
/// off on this CPU until another program is loaded here.
#[cold]
fn far_call_in_emulation() {
    let area = percpu::this();
    area.smap_off.set(true);
    area.peculiar.set(true);
    // SAFETY: it forbids something, and nothing in the kernel counts on being stopped.
    unsafe { regs::set_cr4(regs::cr4() & !SMAP) };
}

#[cold]
fn smap_again(area: &PerCpu) {
    if cpu::features().smap {
        // SAFETY: the CPU has it, and had it on before.
        unsafe { regs::set_cr4(regs::cr4() | SMAP) };
    }
    area.smap_off.set(false);
}

/// Whether the program that an interrupt has just stopped had not run one instruction since it was entered: then the interrupt
/// came while the kernel worked for it. (`sysret` leaves `rcx` where it goes to; after a fault it is where that was.)
pub fn interrupted_on_entry() -> bool {
    let area = percpu::this();
    let state = area.armed.get();
    if state.is_null() {
        return true;
    }
    // SAFETY: an armed state is alive: its drop disarms it.
    let frame = unsafe { &(*state).frame };
    frame.rip == frame.registers.rcx || frame.rip == area.faulted.get()
}

/// Put a program's FPU state and segment bases into the processor.
///
/// # Safety
/// The state is alive and no other CPU holds it.
#[inline(always)]
unsafe fn load(area: &PerCpu, state: *mut State) {
    if !area.armed.get().is_null() {
        leave_now();
    }
    // SAFETY: by the caller; bases are in the user half.
    unsafe {
        (*state).fpu.restore();
        if area.peculiar.get() || (*state).peculiar {
            load_peculiar(area, &*state);
        }
        regs::write_msr(regs::FS_BASE, (*state).fs_base);
        regs::write_msr(regs::KERNEL_GS_BASE, (*state).gs_base);
        (*state).live_on = area;
    }
    area.live_user.set(state);
}

/// The context is loaded, but not armed: what is in memory is as new.
///
/// # Safety
/// As of `arm`.
#[cold]
#[inline(never)]
unsafe fn refuse_segments(area: &PerCpu, state: *mut State) -> bool {
    if area.has_table.get() {
        leave_table();
    }
    // SAFETY: by the caller.
    unsafe { stop_at_rip(state, (*state).frame.cs & 0xFFF8) }
}

/// What few programs have, in place of what the last one had of it. The bases of FS and GS are lost.
///
/// # Safety
/// As of `load`. The state keeps its table, and whoever takes the state away from here, or gives it another, has it leave first.
#[cold]
#[inline(never)]
unsafe fn load_peculiar(area: &PerCpu, state: &State) {
    if area.smap_off.get() {
        smap_again(area);
    }
    // SAFETY: by the caller.
    unsafe {
        if state.table.is_some() {
            segments::load(area, state.table.as_ref());
        }
        // What is there already may be so by another table.
        if !state.selectors.are_null() || !segments::read().are_null() {
            segments::write(state.selectors, state.table.as_ref());
        }
        if area.no_clock.get() != state.no_clock {
            let cr4 = regs::cr4() & !NO_CLOCK;
            regs::set_cr4(if state.no_clock { cr4 | NO_CLOCK } else { cr4 });
            area.no_clock.set(state.no_clock);
        }
    }
    if area.watching.get() || state.debug.is_on() {
        state.debug.load();
        area.watching.set(state.debug.is_on());
    }
    area.peculiar.set(state.peculiar);
}

/// Another thread may run now: bring what the processor holds of the last program to memory, if it may have changed.
#[inline]
pub fn leave() {
    let area = percpu::this();
    let state = area.armed.replace(core::ptr::null_mut());
    if state.is_null() {
        return;
    }
    // SAFETY: an armed state is alive: its drop disarms it.
    unsafe {
        (*state).fpu.save();
        (*state).fs_base = regs::read_msr(regs::FS_BASE);
        (*state).gs_base = regs::read_msr(regs::KERNEL_GS_BASE);
        if area.peculiar.get() || segments::are_set() {
            leave_peculiar(area, &mut *state);
        }
    }
}

/// The same, out of the way.
#[cold]
#[inline(never)]
pub(super) fn leave_now() {
    leave();
}

/// The selectors are the program's to change without the kernel; and the table goes with the program.
#[cold]
#[inline(never)]
fn leave_peculiar(area: &PerCpu, state: &mut State) {
    state.selectors = segments::read();
    state.peculiar =
        !state.selectors.are_null() || state.table.is_some() || state.no_clock || state.debug.is_on();
    area.peculiar.set(true);
    if area.has_table.get() {
        leave_table();
    }
}

/// The table of descriptors goes with the program, and comes back with it.
#[cold]
pub(super) fn leave_table() {
    let area = percpu::this();
    // SAFETY: no table is always a good one.
    unsafe { segments::load(area, None) };
    area.live_user.set(core::ptr::null_mut());
}

/// As if its next instruction had been refused: it does not run (`false`).
///
/// # Safety
/// The state is alive, and its thread runs here.
#[cold]
#[inline(never)]
unsafe fn stop_at_rip(state: *mut State, error: u64) -> bool {
    // SAFETY: by the caller.
    let frame = unsafe { &mut (*state).frame };
    if frame.vector == trap::SYSCALL {
        (frame.cs, frame.ss) = USUAL;
    }
    (frame.vector, frame.error) = (GENERAL_PROTECTION as u64, error);
    false
}

/// Whether a program may go on with what it has in CS and SS.
#[cold]
#[inline(never)]
fn is_sound(state: &State) -> bool {
    let (frame, table) = (&state.frame, state.table.as_ref());
    let (code, stack) = (u16::try_from(frame.cs), u16::try_from(frame.ss));
    let (Ok(code), Ok(stack)) = (code, stack) else { return false };
    segments::is_code(table, code, frame.rip) && segments::is_stack(table, stack)
}

/// Enter ring 3; returns at the next trap with the state completed. `sysret`, which destroys rcx and r11 as the call did, where the
/// last trap was a system call (see `keep_all`), else `iret`.
#[unsafe(naked)]
unsafe extern "sysv64" fn enter_user(state: *mut State) {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov gs:[{kernel_rsp}], rsp",
        "mov rcx, [rdi + {rip}]",
        "mov r11, [rdi + {rflags}]",
        "mov rbx, [rdi + {rbx}]",
        "mov rbp, [rdi + {rbp}]",
        "mov r12, [rdi + {r12}]",
        "mov r13, [rdi + {r13}]",
        "mov r14, [rdi + {r14}]",
        "mov r15, [rdi + {r15}]",
        "mov rdx, [rdi + {rdx}]",
        "mov rsi, [rdi + {rsi}]",
        "mov r8, [rdi + {r8}]",
        "mov r9, [rdi + {r9}]",
        "mov r10, [rdi + {r10}]",
        "mov rax, [rdi + {rax}]",
        "cmp qword ptr [rdi + {vector}], {syscall}",
        "jne 2f",
        "mov rsp, [rdi + {rsp}]",
        "mov rdi, [rdi + {rdi}]",
        "swapgs",
        "sysretq",
        // All registers, through the frame itself.
        "2:",
        "mov rcx, [rdi + {rcx}]",
        "mov r11, [rdi + {r11}]",
        "lea rsp, [rdi + {rip}]",
        "mov rdi, [rdi + {rdi}]",
        "swapgs",
        "iretq",
        kernel_rsp = const offset_of!(PerCpu, kernel_rsp),
        vector = const offset_of!(Frame, vector),
        syscall = const trap::SYSCALL,
        rip = const offset_of!(Frame, rip),
        rflags = const offset_of!(Frame, rflags),
        rsp = const offset_of!(Frame, rsp),
        rbx = const offset_of!(Frame, registers.rbx),
        rbp = const offset_of!(Frame, registers.rbp),
        r8 = const offset_of!(Frame, registers.r8),
        r9 = const offset_of!(Frame, registers.r9),
        r10 = const offset_of!(Frame, registers.r10),
        r11 = const offset_of!(Frame, registers.r11),
        r12 = const offset_of!(Frame, registers.r12),
        r13 = const offset_of!(Frame, registers.r13),
        r14 = const offset_of!(Frame, registers.r14),
        r15 = const offset_of!(Frame, registers.r15),
        rax = const offset_of!(Frame, registers.rax),
        rcx = const offset_of!(Frame, registers.rcx),
        rdx = const offset_of!(Frame, registers.rdx),
        rsi = const offset_of!(Frame, registers.rsi),
        rdi = const offset_of!(Frame, registers.rdi),
    )
}

/// Where the `syscall` instruction arrives: interrupts off, the program's stack still in `rsp`, `rcx` = its `rip`, `r11` =
/// its flags.
#[unsafe(naked)]
unsafe extern "sysv64" fn syscall_entry() {
    naked_asm!(
        "swapgs",
        "mov gs:[{scratch}], rsp",
        "mov rsp, gs:[{rsp0}]",
        "mov [rsp - {from_end_rflags}], r11",
        "mov [rsp - {from_end_rip}], rcx",
        "lea rsp, [rsp - {pushed}]",
        "push {syscall}",
        "push rcx",
        "push rax",
        "push rdx",
        "push rbx",
        "push rbp",
        "push rsi",
        "push rdi",
        "push r15",
        "push r14",
        "push r13",
        "push r12",
        "push r11",
        "push r10",
        "push r9",
        "push r8",
        "mov rax, gs:[{scratch}]",
        "mov [rsp + {rsp}], rax",
        ".globl leave_user",
        "leave_user:",
        "mov rsp, gs:[{kernel_rsp}]",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        scratch = const offset_of!(PerCpu, scratch),
        rsp0 = const trap::RSP0,
        from_end_rflags = const trap::FRAME_BYTES - offset_of!(Frame, rflags),
        from_end_rip = const trap::FRAME_BYTES - offset_of!(Frame, rip),
        pushed = const trap::FRAME_BYTES - offset_of!(Frame, error),
        syscall = const trap::SYSCALL,
        rsp = const offset_of!(Frame, rsp),
        kernel_rsp = const offset_of!(PerCpu, kernel_rsp),
    )
}

/// Where `syscall` in 32-bit code arrives, on processors that know it there: there are no such calls (ENOSYS). The program's stack and
/// GS are still there, and stay.
#[unsafe(naked)]
unsafe extern "sysv64" fn refuse_32() {
    naked_asm!("mov eax, -38", "sysret")
}

/// Let this CPU take system calls.
pub(super) fn init() {
    // SAFETY: the handler and selectors are as the manual wants them (SDM vol. 3, 5.8.8): kernel code and the data
    // selector after it; and the base from which `sysret` takes data + 8 and 64-bit code + 16.
    unsafe {
        regs::write_msr(regs::EFER, regs::read_msr(regs::EFER) | 1);
        let star = (descriptors::USER_BASE as u64) << 48 | (descriptors::KERNEL_CODE as u64) << 32;
        regs::write_msr(regs::STAR, star);
        regs::write_msr(regs::LSTAR, syscall_entry as *const () as u64);
        regs::write_msr(regs::CSTAR, refuse_32 as *const () as u64);
        regs::write_msr(regs::FMASK, SYSCALL_MASK);
    }
}
