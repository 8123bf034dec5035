//! Exceptions and interrupts: the stubs that the gates name, and what happens when one comes while the kernel runs.
//!
//! From ring 3 the processor has switched to `rsp0`, which points behind the `Frame` of the running `UserContext`; the
//! stub completes that frame in place and returns to `user::run`'s caller. From ring 0 the frame is built on the
//! current stack. Which of the two it was, the saved CS alone decides.
//!
//! A debug exception comes on a stack of its own (see `debug`).
//! NMI, double fault and machine check come on stacks of their own and end the kernel: they may strike between two
//! instructions of the entry code, where neither the stack nor GS can be trusted.

use super::{irq, panic, percpu::PerCpu, regs, user, user::Registers};
use core::arch::global_asm;
use core::mem::offset_of;

/// Gates in use: exceptions below 32, then the CPU's own interrupts, then one for each interrupt line.
pub const VECTORS: usize = REQUEST as usize + 1;
pub const PAGE_FAULT: u64 = 14;
/// The first vector that is no exception.
pub const FIRST_INTERRUPT: u64 = 32;
pub const TIMER: u8 = 32;
/// Another CPU has work for this one's scheduler.
pub const RESCHEDULE: u8 = 33;
pub const SPURIOUS: u8 = 47;
/// The vector of interrupt line 0.
pub const FIRST_LINE: u8 = 48;
/// Another CPU has posted a request (see `shootdown`). Above all others in priority, which goes by sixteens.
pub const REQUEST: u8 = 96;
const _: () = assert!(REQUEST / 16 > (FIRST_LINE as usize + irq::LINES - 1) as u8 / 16);
/// What the system call entry stores as its vector.
pub const SYSCALL: u64 = 256;

/// Bits of a page fault's error code.
pub const FAULT_PRESENT: u64 = 1;
pub const FAULT_WRITE: u64 = 2;
pub const FAULT_USER: u64 = 4;
pub const FAULT_FETCH: u64 = 16;

/// What the stubs leave: registers, then what the processor pushed.
#[derive(Clone, Debug)]
#[repr(C, align(16))]
pub struct Frame {
    pub registers: Registers,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

pub const FRAME_BYTES: usize = size_of::<Frame>();

global_asm!(
    patch!(),
    r#"
    .macro SAVE_REGISTERS
    push rcx
    push rax
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r15
    push r14
    push r13
    push r12
    push r11
    push r10
    push r9
    push r8
    .endm

    .section .text.hot, "ax", @progbits
    .globl trap_stubs
    .balign 16
trap_stubs:
    .set vector, 0
    .rept {vectors}
    .balign 16
    .if vector == 2 || vector == 8 || vector == 18
      .if vector != 8
      push 0
      .endif
      push vector
      jmp trap_fatal
    .elseif vector == 1
      push 0
      push vector
      jmp trap_debug
    .else
      .if !(vector == 10 || vector == 11 || vector == 12 || vector == 13 || vector == 14 || vector == 17 || vector == 21 || vector == 29 || vector == 30)
      push 0
      .endif
      push vector
      jmp trap_common
    .endif
    .set vector, vector + 1
    .endr

    .balign 16
trap_common:
    test byte ptr [rsp + 24], 3
    jz 2f
    swapgs
trap_from_user:
    SAVE_REGISTERS
    PATCH 1
    cld
    jmp leave_user
2:
    SAVE_REGISTERS
    PATCH 1
    cld
    mov rdi, rsp
    mov rbp, rsp
    and rsp, -16
    call {kernel_trap}
    mov rsp, rbp
    pop r8
    pop r9
    pop r10
    pop r11
    pop r12
    pop r13
    pop r14
    pop r15
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rax
    pop rcx
    add rsp, 16
    iretq

// From the program: as any other, once what the processor pushed is where that of others is. From the kernel: nothing comes of it.
trap_debug:
    test byte ptr [rsp + 24], 3
    jz 2f
    swapgs
    mov gs:[{scratch}], rax
    mov rax, gs:[{rsp0}]
    push qword ptr [rsp + 48]
    pop qword ptr [rax - 8]
    push qword ptr [rsp + 40]
    pop qword ptr [rax - 16]
    push qword ptr [rsp + 32]
    pop qword ptr [rax - 24]
    push qword ptr [rsp + 24]
    pop qword ptr [rax - 32]
    push qword ptr [rsp + 16]
    pop qword ptr [rax - 40]
    push qword ptr [rsp + 8]
    pop qword ptr [rax - 48]
    push qword ptr [rsp]
    pop qword ptr [rax - 56]
    lea rsp, [rax - 56]
    mov rax, gs:[{scratch}]
    jmp trap_from_user
2:
    push rax
    mov eax, {nothing}
    mov dr6, rax
    pop rax
    add rsp, 16
    iretq

trap_fatal:
    SAVE_REGISTERS
    PATCH 1
    cld
    mov rdi, rsp
    mov rax, [rsp + {frame}]               // the area's address, at the top of the exception stack
    mov rdx, rax
    shr rdx, 32
    mov ecx, {gs_base}
    wrmsr
    xor ebp, ebp
    call {fatal_trap}
    ud2
    .purgem PATCH
    "#,
    vectors = const VECTORS,
    frame = const FRAME_BYTES,
    gs_base = const regs::GS_BASE,
    scratch = const offset_of!(PerCpu, scratch),
    rsp0 = const RSP0,
    nothing = const super::debug::NOTHING,
    kernel_trap = sym kernel_trap,
    fatal_trap = sym fatal_trap,
);

unsafe extern "C" {
    static trap_stubs: u8;
}

/// The address of a vector's stub.
pub fn stub(vector: usize) -> u64 {
    (&raw const trap_stubs) as u64 + vector as u64 * 16
}

/// A trap while the kernel ran.
extern "C" fn kernel_trap(frame: &mut Frame) {
    match frame.vector {
        PAGE_FAULT => {
            let address = regs::cr2();
            let Some(recover) = user::fixup(frame.rip) else {
                panic::trap(frame, Some(address));
            };
            if user::is_peek(frame.rip) || !user::bring_in(address, frame.error) {
                frame.rip = recover;
            }
        }
        vector if vector >= FIRST_INTERRUPT => irq::dispatch(vector as u8),
        _ => match user::fixup(frame.rip) {
            Some(recover) => frame.rip = recover,
            None => panic::trap(frame, None),
        },
    }
}

extern "C" fn fatal_trap(frame: &mut Frame) -> ! {
    panic::trap(frame, (frame.vector == 8).then(regs::cr2))
}

/// Where `rsp0` lies in a CPU's area.
pub const RSP0: usize = offset_of!(PerCpu, tss) + offset_of!(super::descriptors::Tss, rsp0);
