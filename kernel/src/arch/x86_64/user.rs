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
    cpu,
    debug::DebugRegisters,
    descriptors,
    fpu::{self, FpuState},
    percpu::{self, PerCpu},
    regs,
    segments::{self, Selectors, Table},
    trap,
    trap::Frame,
};
use alloc::alloc::{Layout, alloc, dealloc};
use alloc::sync::Arc;
use core::arch::naked_asm;
use core::mem::{MaybeUninit, offset_of};
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

pub use super::user_copy::*;

/// Flags that a program may set by itself: CF PF AF ZF SF TF DF OF NT AC ID.
const USER_FLAGS: u64 = 0x0024_4DD5;
/// The next instruction is not stopped by a breakpoint on it.
const RESUME_FLAG: u64 = 1 << 16;
/// In CR4: the kernel may not touch a program's memory but where it says so.
const SMAP: u64 = 1 << 21;
/// In CR4: programs may not read the time-stamp counter.
const NO_CLOCK: u64 = 1 << 2;
/// CS and SS of 64-bit programs.
const USUAL: (u64, u64) = (descriptors::USER_CODE as u64, descriptors::USER_DATA as u64);
/// Interrupts on, and the bit that is always set.
const FIXED_FLAGS: u64 = 0x202;
/// Cleared by `syscall`: TF IF DF NT AC.
const SYSCALL_MASK: u64 = 0x4_4700;
const GENERAL_PROTECTION: u8 = 13;
/// The first address that is not the program's (USER_END).
const USER_TOP: u64 = hafez_mm::USER_END.0 << hafez_mm::PAGE_SHIFT;

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
    frame: Frame,
    fs_base: u64,
    gs_base: u64,
    selectors: Selectors,
    /// The program's own descriptors.
    table: Option<Arc<Table>>,
    debug: DebugRegisters,
    /// `rdtsc` ends it.
    no_clock: bool,
    /// It has selectors, descriptors, a clock or something watched, unlike nearly all.
    peculiar: bool,
    /// The CPU that loaded it last.
    live_on: *const PerCpu,
    fpu: FpuState,
}

/// All that a program's thread has in the processor: registers, segment bases, FPU state.
pub struct UserContext {
    state: NonNull<State>,
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
fn leave_now() {
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
fn leave_table() {
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
