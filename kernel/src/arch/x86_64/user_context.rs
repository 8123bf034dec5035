//! What a program's thread has in the processor: registers, segment bases, FPU state.
//!
//! They are read and written here, by system calls, signals and tracers, while the program does not run. Part of them may be in the processor
//! still (see `user`): who looks at such a part has it brought to memory first (`settle`), and who changes it also has the next `run` load it
//! again (`abandon`). The general registers, `rip`, `rsp` and flags are in memory whenever the program does not run.

use super::{
    debug::DebugRegisters,
    descriptors,
    fpu::{self, FpuState},
    percpu::{self, PerCpu},
    segments::{self, Selectors, Table},
    trap,
    trap::Frame,
    user::{USER_TOP, USUAL, leave_now, leave_table},
    user_copy::*,
};
use alloc::alloc::{Layout, alloc, dealloc};
use alloc::sync::Arc;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

/// Flags that a program may set by itself: CF PF AF ZF SF TF DF OF NT AC ID.
const USER_FLAGS: u64 = 0x0024_4DD5;
/// The next instruction is not stopped by a breakpoint on it.
const RESUME_FLAG: u64 = 1 << 16;
/// Interrupts on, and the bit that is always set.
const FIXED_FLAGS: u64 = 0x202;

/// The general registers of a program, in the order in which a signal frame has them: one block there, one block here.
#[derive(Clone, Default, Debug)]
#[repr(C)]
pub struct Registers {
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rax: u64,
    pub rcx: u64,
}

/// How many there are.
const REGISTERS: usize = size_of::<Registers>() / size_of::<u64>();

/// What a `UserContext` points to.
#[repr(C, align(64))]
#[derive(Clone)]
pub struct State {
    pub(super) frame: Frame,
    pub(super) fs_base: u64,
    pub(super) gs_base: u64,
    pub(super) selectors: Selectors,
    /// The program's own descriptors.
    pub(super) table: Option<Arc<Table>>,
    pub(super) debug: DebugRegisters,
    /// `rdtsc` ends it.
    pub(super) no_clock: bool,
    /// It has selectors, descriptors, a clock or something watched, unlike nearly all.
    pub(super) peculiar: bool,
    /// The CPU that loaded it last.
    pub(super) live_on: *const PerCpu,
    pub(super) fpu: FpuState,
}

/// All that a program's thread has in the processor: registers, segment bases, FPU state.
pub struct UserContext {
    pub(super) state: NonNull<State>,
}

// SAFETY: the state is owned; only the CPU on which its thread runs holds parts of it.
unsafe impl Send for UserContext {}

/// There was no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

impl State {
    fn fresh(rip: u64, rsp: u64) -> Self {
        State {
            frame: Frame {
                registers: Registers::default(),
                vector: trap::FIRST_INTERRUPT,
                error: 0,
                rip,
                cs: descriptors::USER_CODE as u64,
                rflags: FIXED_FLAGS,
                rsp,
                ss: descriptors::USER_DATA as u64,
            },
            fs_base: 0,
            gs_base: 0,
            selectors: Selectors::default(),
            table: None,
            debug: DebugRegisters::default(),
            no_clock: false,
            peculiar: false,
            live_on: core::ptr::null(),
            fpu: FpuState::new(),
        }
    }
}

impl UserContext {
    fn place(state: State) -> Result<Self, NoMemory> {
        // SAFETY: the layout has a size; the memory is written before it is used.
        unsafe {
            let at = NonNull::new(alloc(Layout::new::<State>()).cast::<State>()).ok_or(NoMemory)?;
            at.write(state);
            Ok(UserContext { state: at })
        }
    }
    /// A fresh program's context: `rip` and `rsp` as given, all else zero, FPU state fresh.
    pub fn new(rip: u64, rsp: u64) -> Result<Self, NoMemory> {
        Self::place(State::fresh(rip, rsp))
    }
    /// A copy for a child, but for what is watched.
    pub fn try_clone(&mut self) -> Result<Self, NoMemory> {
        self.settle();
        let debug = DebugRegisters::default();
        Self::place(State { live_on: core::ptr::null(), debug, ..self.state().clone() })
    }
    /// All as in a fresh program (execve).
    pub fn reset(&mut self, rip: u64, rsp: u64) {
        self.abandon();
        let no_clock = self.state().no_clock;
        *self.state_mut() = State { no_clock, peculiar: no_clock, ..State::fresh(rip, rsp) };
    }
    #[inline(always)]
    fn state(&self) -> &State {
        // SAFETY: owned and initialised; the processor writes to it only inside `run`, which borrows it mutably.
        unsafe { self.state.as_ref() }
    }
    #[inline(always)]
    fn state_mut(&mut self) -> &mut State {
        // SAFETY: as above.
        unsafe { self.state.as_mut() }
    }
    pub fn rip(&self) -> u64 {
        self.state().frame.rip
    }
    /// A value that is no user address ends the next `run` with a general protection exception.
    #[inline]
    pub fn set_rip(&mut self, rip: u64) {
        if rip >= USER_TOP {
            // Disarmed, so that `run` looks at it.
            self.settle();
        }
        self.state_mut().frame.rip = rip;
    }
    /// `rcx` and `r11` are the program's, too: after a system call they would be lost.
    pub fn keep_all(&mut self) {
        (self.state_mut().frame.cs, self.state_mut().frame.ss) = self.code_and_stack();
        self.state_mut().frame.vector = trap::FIRST_INTERRUPT;
    }
    /// The selectors in CS and SS.
    #[inline(always)]
    pub fn code_and_stack(&self) -> (u64, u64) {
        let frame = &self.state().frame;
        // `syscall` stores neither, and `sysret` sets both.
        if frame.vector == trap::SYSCALL { USUAL } else { (frame.cs, frame.ss) }
    }
    /// Whether the program runs 64-bit code with the usual stack segment.
    #[inline(always)]
    pub fn is_usual(&self) -> bool {
        self.code_and_stack() == USUAL
    }
    /// What does not name a code and a stack segment of the program's ends the next `run` with a general protection exception.
    #[cold]
    pub fn set_code_and_stack(&mut self, code: u16, stack: u16) {
        self.settle();
        self.keep_all();
        let frame = &mut self.state_mut().frame;
        (frame.cs, frame.ss) = (code as u64, stack as u64);
    }
    /// Go on in 64-bit code, with the stack segment that there is if that is still good.
    #[cold]
    pub fn enter_64_bits(&mut self) {
        let stack = self.code_and_stack().1 as u16;
        let good = segments::is_stack(self.state().table.as_ref(), stack);
        self.set_code_and_stack(descriptors::USER_CODE, if good { stack } else { descriptors::USER_DATA });
    }
    /// What is in the data segment registers.
    pub fn selectors(&mut self) -> Selectors {
        self.settle();
        self.state().selectors
    }
    /// What names nothing becomes null.
    pub fn set_selectors(&mut self, selectors: Selectors) {
        self.abandon();
        (self.state_mut().selectors, self.state_mut().peculiar) = (selectors, true);
    }
    /// The program's own descriptors from now on.
    pub fn set_table(&mut self, table: Option<Arc<Table>>) {
        self.abandon();
        (self.state_mut().table, self.state_mut().peculiar) = (table, true);
    }
    pub fn rsp(&self) -> u64 {
        self.state().frame.rsp
    }
    pub fn set_rsp(&mut self, rsp: u64) {
        self.state_mut().frame.rsp = rsp;
    }
    pub fn rflags(&self) -> u64 {
        self.state().frame.rflags
    }
    /// Only the flags that a program may set by itself are taken.
    pub fn set_rflags(&mut self, rflags: u64) {
        self.state_mut().frame.rflags = rflags & USER_FLAGS | FIXED_FLAGS;
    }
    pub fn fs_base(&mut self) -> u64 {
        self.settle();
        self.state().fs_base
    }
    /// An address outside the user half is not taken (the caller checks first: EPERM).
    pub fn set_fs_base(&mut self, base: u64) {
        if base < USER_TOP {
            self.abandon();
            self.state_mut().fs_base = base;
        }
    }
    pub fn gs_base(&mut self) -> u64 {
        self.settle();
        self.state().gs_base
    }
    /// As `set_fs_base`.
    pub fn set_gs_base(&mut self, base: u64) {
        if base < USER_TOP {
            self.abandon();
            self.state_mut().gs_base = base;
        }
    }
    /// The exception that the program was stopped by last, and its error code; none where it was a call or an interrupt.
    pub fn exception(&self) -> Option<(u64, u64)> {
        let frame = &self.state().frame;
        (frame.vector < trap::FIRST_INTERRUPT).then_some((frame.vector, frame.error))
    }
    /// Put `words` into the program's memory, with the general registers between the first `before` of them and the rest.
    #[inline(always)]
    pub fn put_registers<const N: usize>(
        &self,
        to: u64,
        words: &[u64; N],
        before: usize,
    ) -> Result<(), BadAddress> {
        // SAFETY: fifteen words and nothing else.
        let registers = unsafe { &*(&raw const self.state().frame.registers).cast::<[u64; REGISTERS]>() };
        put_around(to, words, before, registers)
    }
    /// Take the general registers from the program's memory, and the `N` words around them: `before` of these come first. On an error
    /// the registers are undefined.
    #[inline(always)]
    pub fn take_registers<const N: usize, R>(
        &mut self,
        from: u64,
        before: usize,
        look: impl FnOnce(&mut Self, &[u64; N]) -> R,
    ) -> Result<R, BadAddress> {
        let mut words = MaybeUninit::uninit();
        // SAFETY: fifteen words and nothing else; any value will do.
        let registers =
            unsafe { &mut *(&raw mut self.state_mut().frame.registers).cast::<[u64; REGISTERS]>() };
        let words = take_around(&mut words, from, before, registers)?;
        Ok(look(self, words))
    }
    /// What of its memory is watched.
    pub fn debug(&self) -> DebugRegisters {
        self.state().debug
    }
    pub fn set_debug(&mut self, debug: DebugRegisters) {
        self.abandon();
        (self.state_mut().debug, self.state_mut().peculiar) = (debug, true);
    }
    /// Whether it may read the time-stamp counter.
    pub fn may_read_clock(&self) -> bool {
        !self.state().no_clock
    }
    /// What does not is ended by a general protection exception.
    pub fn let_read_clock(&mut self, may: bool) {
        self.abandon();
        (self.state_mut().no_clock, self.state_mut().peculiar) = (!may, true);
    }
    /// The instruction at `rip` runs though it is watched.
    pub fn pass_breakpoint(&mut self) {
        self.state_mut().frame.rflags |= RESUME_FLAG;
        self.keep_all();
    }
    /// The FPU state, brought to memory first where the processor holds it.
    pub fn fpu(&mut self) -> &mut FpuState {
        self.abandon();
        &mut self.state_mut().fpu
    }
    /// Put the FPU state into the program's memory, in the layout of `xsave` (or `fxsave`): straight from the processor, if it is
    /// there and the page too.
    pub fn save_fpu(&mut self, to: u64) -> Result<(), BadAddress> {
        let area = percpu::this();
        let live = area.live_user.get() == self.state.as_ptr() && core::ptr::eq(self.state().live_on, area);
        let (size, mask) = (fpu::size(), fpu::xcr0());
        // What `xsave` leaves of its header as it was, it later wants to be zero.
        if live
            && (mask == 0 || zero(to.wrapping_add(fpu::LEGACY_BYTES as u64), fpu::HEADER_BYTES).is_ok())
            && save_fpu(to, size, mask).is_ok()
        {
            return Ok(());
        }
        copy_to(to, &self.fpu().bytes()[..size])
    }
    /// Take the FPU state from `bytes` of the program's memory, all of what `save_fpu` stores or the part of `fxsave`. What a program
    /// may not set is masked away.
    pub fn load_fpu(&mut self, from: u64, bytes: usize) -> Result<(), BadAddress> {
        let (size, mask) = (fpu::size(), fpu::xcr0());
        let armed = percpu::this().armed.get() == self.state.as_ptr();
        if armed && bytes == size && load_fpu(from, size, mask).is_ok() {
            return Ok(());
        }
        let mut copy = [0; fpu::MAX_BYTES];
        copy_from(&mut copy[..bytes], from)?;
        self.fpu().set_bytes(&copy[..bytes]);
        Ok(())
    }
    /// Bring what the processor holds to memory.
    fn settle(&mut self) {
        let area = percpu::this();
        if area.armed.get() == self.state.as_ptr() {
            leave_now();
        }
    }
    /// Bring what the processor holds to memory, and have the next `run` load it again.
    fn abandon(&mut self) {
        self.settle();
        self.state_mut().live_on = core::ptr::null();
    }
}

impl Drop for UserContext {
    fn drop(&mut self) {
        let area = percpu::this();
        if area.live_user.get() == self.state.as_ptr() {
            area.live_user.set(core::ptr::null_mut());
            area.armed.set(core::ptr::null_mut());
            if area.has_table.get() {
                leave_table();
            }
        }
        // SAFETY: from `place`, and no CPU names it any more.
        unsafe { core::ptr::drop_in_place(self.state.as_ptr()) };
        // SAFETY: as above.
        unsafe { dealloc(self.state.as_ptr().cast(), Layout::new::<State>()) };
    }
}

impl Deref for UserContext {
    type Target = Registers;
    #[inline(always)]
    fn deref(&self) -> &Registers {
        &self.state().frame.registers
    }
}
impl DerefMut for UserContext {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Registers {
        &mut self.state_mut().frame.registers
    }
}
