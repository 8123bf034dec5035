//! Ring 3: entering it, coming back, and reaching into its memory.

use super::fpu::FpuState;
use alloc::boxed::Box;
use core::ops::{Deref, DerefMut};
use hafez_mm::Pfn;

/// The registers of a program.
#[derive(Clone, Default, Debug)]
#[repr(C, align(16))]
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rax: u64,
}

/// All that a program's thread has in the processor: registers, segment bases, FPU state. The last two stay in the
/// processor while nobody else needs it; this handle knows where they are.
pub struct UserContext {
    _state: Box<(Registers, FpuState)>,
}

/// There was no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

impl UserContext {
    /// A fresh program's context: `rip` and `rsp` as given, all else zero, FPU state fresh.
    pub fn new(_rip: u64, _rsp: u64) -> Result<Self, NoMemory> {
        todo!()
    }
    /// A copy for a child.
    pub fn try_clone(&self) -> Result<Self, NoMemory> {
        todo!()
    }
    /// All as in a fresh program (execve).
    pub fn reset(&mut self, _rip: u64, _rsp: u64) {
        todo!()
    }
    pub fn rip(&self) -> u64 {
        todo!()
    }
    /// A value that is no user address ends the next `run` with a general protection exception.
    pub fn set_rip(&mut self, _rip: u64) {
        todo!()
    }
    pub fn rsp(&self) -> u64 {
        todo!()
    }
    pub fn set_rsp(&mut self, _rsp: u64) {
        todo!()
    }
    pub fn rflags(&self) -> u64 {
        todo!()
    }
    /// Only the flags that a program may set by itself are taken.
    pub fn set_rflags(&mut self, _rflags: u64) {
        todo!()
    }
    pub fn fs_base(&self) -> u64 {
        todo!()
    }
    /// The address must be in the user half (the caller checks: EPERM).
    pub fn set_fs_base(&mut self, _base: u64) {
        todo!()
    }
    pub fn gs_base(&self) -> u64 {
        todo!()
    }
    /// As `set_fs_base`.
    pub fn set_gs_base(&mut self, _base: u64) {
        todo!()
    }
    /// The FPU state, brought to memory first where the processor holds it.
    pub fn fpu(&mut self) -> &mut FpuState {
        todo!()
    }
}

impl Deref for UserContext {
    type Target = Registers;
    fn deref(&self) -> &Registers {
        todo!()
    }
}
impl DerefMut for UserContext {
    fn deref_mut(&mut self) -> &mut Registers {
        todo!()
    }
}

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
pub fn run(_context: &mut UserContext) -> Trap {
    todo!()
}

/// An access to memory that the program does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadAddress;

/// Called when the kernel itself faults on user memory: bring the page in (may sleep) and tell whether to try again.
pub fn set_fault_hook(_hook: fn(addr: u64, write: bool, exec: bool) -> bool) {
    todo!()
}

/// Copy from the program. On an error, part of `to` may have been written.
pub fn copy_from(_to: &mut [u8], _from: u64) -> Result<(), BadAddress> {
    todo!()
}
/// Copy to the program. On an error, part may have been written.
pub fn copy_to(_to: u64, _from: &[u8]) -> Result<(), BadAddress> {
    todo!()
}
/// Zero `len` bytes of the program's memory.
pub fn zero(_to: u64, _len: usize) -> Result<(), BadAddress> {
    todo!()
}
/// Copy a string that ends in NUL: `Some(length)` without the NUL, `None` if `to` is full before it ends.
pub fn copy_string(_to: &mut [u8], _from: u64) -> Result<Option<usize>, BadAddress> {
    todo!()
}
/// Copy `len` bytes at `offset` of a pinned frame to the program.
pub fn copy_from_frame(_to: u64, _frame: Pfn, _offset: usize, _len: usize) -> Result<(), BadAddress> {
    todo!()
}
/// Copy `len` bytes from the program to `offset` of a pinned frame.
pub fn copy_to_frame(_frame: Pfn, _offset: usize, _from: u64, _len: usize) -> Result<(), BadAddress> {
    todo!()
}
pub fn read_u32(_at: u64) -> Result<u32, BadAddress> {
    todo!()
}
pub fn write_u32(_at: u64, _value: u32) -> Result<(), BadAddress> {
    todo!()
}
pub fn read_u64(_at: u64) -> Result<u64, BadAddress> {
    todo!()
}
pub fn write_u64(_at: u64, _value: u64) -> Result<(), BadAddress> {
    todo!()
}
/// Atomic compare and exchange: what was there before (equal to `old` if it was exchanged).
pub fn cmpxchg_u32(_at: u64, _old: u32, _new: u32) -> Result<u32, BadAddress> {
    todo!()
}
/// Whether all of `[at, at + len)` lies in the user half. The copies check by themselves.
pub fn in_user_half(_at: u64, _len: usize) -> bool {
    todo!()
}
