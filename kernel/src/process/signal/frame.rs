//! The frame that a handler finds on its stack, and the way back from it.
//!
//! The layout is Linux's `struct rt_sigframe` for x86-64; debuggers, unwinders and language runtimes read and write it:
//!
//! ```text
//!   stack of the program, or the alternate one
//!   ─────────────── (128 bytes red zone below the interrupted stack pointer)
//!   FPU state       512 bytes of fxsave; or xsave with two magic words; aligned to 64
//!   siginfo         128
//!   ucontext        flags, link, stack, registers (sigcontext), mask
//!   return address  of sa_restorer, which calls rt_sigreturn         ◀── rsp, 8 below a multiple of 16
//! ```
//!
//! On the way back nothing in it is believed: addresses are checked when they are used, of `rflags` only what a program
//! may set itself is taken, segment selectors are not taken at all, and the FPU state is masked (`FpuState::set_bytes`).

use super::super::run::Caller;
use super::super::task::work;
use super::{Action, AltStack, SIGINFO_LEN, SS_AUTODISARM, SigInfo, SigSet, set_mask};
use crate::arch::fpu;
use crate::arch::user;
use crate::errno::{Errno, Result};
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

/// Bytes below the stack pointer that the ABI lets functions use.
const RED_ZONE: u64 = 128;
/// Bytes of `struct ucontext`.
const UCONTEXT: usize = 304;
/// Where things stand in it.
const UC_STACK: usize = 16;
const UC_REGISTERS: usize = 40;
const UC_FPSTATE: usize = UC_REGISTERS + 184;
const UC_MASK: usize = 296;
/// Return address, ucontext, siginfo.
const FRAME: usize = 8 + UCONTEXT + SIGINFO_LEN;
/// `uc_flags`: an xsave image is there; the stack segment is in the frame and is to be taken as it is.
const UC_FP_XSTATE: u64 = 1;
const UC_SIGCONTEXT_SS: u64 = 2;
const UC_STRICT_RESTORE_SS: u64 = 4;
/// Selectors of user code and stack, as Linux's programs know them.
const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2b;
/// In the 48 bytes that the hardware leaves to software (byte 464): says that an xsave image follows; and its end mark.
const SOFTWARE_BYTES: usize = 464;
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
/// Bytes of the fxsave part.
const LEGACY: usize = 512;
/// Flags that a handler starts without: trap, direction, resume.
const FLAGS_CLEARED: u64 = 1 << 8 | 1 << 10 | 1 << 16;

/// Put a frame on the stack and point the registers at the handler. `mask` is what the handler's return restores.
pub(super) fn push(caller: &mut Caller, info: &SigInfo, action: &Action, mask: SigSet) -> Result<()> {
    if !action.is(abi::SA_RESTORER) {
        return Err(Errno::EFAULT);
    }
    let alt = *caller.task.alt_stack.lock();
    let sp = caller.user.rsp();
    let on_alt = alt.holds(sp);
    let mut top = sp.wrapping_sub(RED_ZONE);
    if action.is(abi::SA_ONSTACK) && alt.flags & abi::SS_DISABLE == 0 && !on_alt {
        top = alt.base.wrapping_add(alt.size);
    }
    let fp_at = top.wrapping_sub(fp_bytes() as u64) & !63;
    let frame_at = (fp_at.wrapping_sub(FRAME as u64) & !15).wrapping_sub(8);
    // A handler that has run off its alternate stack shall not run on into what lies below.
    if on_alt && !alt.holds(frame_at) {
        return Err(Errno::EFAULT);
    }

    let mut frame = [0u8; FRAME];
    put(&mut frame, 0, action.restorer);
    let uc = &mut frame[8..8 + UCONTEXT];
    let xsave = if fpu::xcr0() != 0 { UC_FP_XSTATE } else { 0 };
    put(uc, 0, xsave | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS);
    put(uc, UC_STACK, alt.base);
    put(uc, UC_STACK + 8, (alt.flags | if on_alt { abi::SS_ONSTACK } else { 0 }) as u64);
    put(uc, UC_STACK + 16, alt.size);
    let u = &caller.user;
    let registers = [
        u.r8,
        u.r9,
        u.r10,
        u.r11,
        u.r12,
        u.r13,
        u.r14,
        u.r15,
        u.rdi,
        u.rsi,
        u.rbp,
        u.rbx,
        u.rdx,
        u.rax,
        u.rcx,
        u.rsp(),
        u.rip(),
        u.rflags(),
        USER_CS | USER_SS << 48,
        0,
        0,
        mask.0,
        if is_fault(info) { info.fields[0] } else { 0 },
        fp_at,
    ];
    for (i, value) in registers.into_iter().enumerate() {
        put(uc, UC_REGISTERS + 8 * i, value);
    }
    put(uc, UC_MASK, mask.0);
    frame[8 + UCONTEXT..].copy_from_slice(&info.to_bytes());

    push_fpu(caller, fp_at)?;
    user::copy_to(frame_at, &frame)?;

    if alt.flags & SS_AUTODISARM != 0 {
        *caller.task.alt_stack.lock() = AltStack::NONE;
    }
    let flags = caller.user.rflags() & !FLAGS_CLEARED;
    let u = &mut caller.user;
    u.rdi = info.signo as u64;
    u.rsi = frame_at + 8 + UCONTEXT as u64;
    u.rdx = frame_at + 8;
    u.rax = 0;
    u.set_rflags(flags);
    u.set_rsp(frame_at);
    u.set_rip(action.handler);
    Ok(())
}

fn is_fault(info: &SigInfo) -> bool {
    info.code > 0 && SigSet::SYNCHRONOUS.has(info.signo)
}

/// Bytes of FPU state in a frame.
fn fp_bytes() -> usize {
    if fpu::xcr0() != 0 { fpu::size() + 4 } else { LEGACY }
}

/// The least size of a signal stack that this CPU's frames fit (`AT_MINSIGSTKSZ`).
pub fn min_stack() -> u64 {
    (FRAME + fp_bytes() + 64 + 16 + RED_ZONE as usize) as u64
}

fn push_fpu(caller: &mut Caller, at: u64) -> Result<()> {
    let size = fpu::size();
    let xcr0 = fpu::xcr0();
    let bytes = caller.user.fpu().bytes();
    if xcr0 == 0 {
        return Ok(user::copy_to(at, &bytes[..LEGACY])?);
    }
    let mut software = [0u8; 48];
    software[0..4].copy_from_slice(&MAGIC1.to_le_bytes());
    software[4..8].copy_from_slice(&(size as u32 + 4).to_le_bytes());
    put(&mut software, 8, xcr0);
    software[16..20].copy_from_slice(&(size as u32).to_le_bytes());
    user::copy_to(at, &bytes[..SOFTWARE_BYTES])?;
    user::copy_to(at + SOFTWARE_BYTES as u64, &software)?;
    user::copy_to(at + LEGACY as u64, &bytes[LEGACY..size])?;
    Ok(user::copy_to(at + size as u64, &MAGIC2.to_le_bytes())?)
}

/// `rt_sigreturn`: take everything back from the frame below the stack pointer. What `rax` was.
pub fn sigreturn(caller: &mut Caller) -> Result<u64> {
    if restore(caller).is_err() {
        super::force(caller, SigInfo::kernel(abi::SIGSEGV));
    }
    Ok(caller.user.rax)
}

fn restore(caller: &mut Caller) -> Result<()> {
    let mut uc = [0u8; UCONTEXT];
    user::copy_from(&mut uc, caller.user.rsp())?;
    let reg = |i: usize| get(&uc, UC_REGISTERS + 8 * i);
    let u = &mut caller.user;
    [u.r8, u.r9, u.r10, u.r11, u.r12, u.r13, u.r14, u.r15] = core::array::from_fn(reg);
    [u.rdi, u.rsi, u.rbp, u.rbx, u.rdx, u.rax, u.rcx] = core::array::from_fn(|i| reg(8 + i));
    u.set_rsp(reg(15));
    u.set_rip(reg(16));
    u.set_rflags(reg(17));
    let fp_at = get(&uc, UC_FPSTATE);
    set_mask(&caller.task, SigSet(get(&uc, UC_MASK)));
    // Another look: what the old mask lets through must not wait for the next trap.
    caller.task.work.fetch_or(work::SIGNAL, Ordering::Relaxed);
    let alt = AltStack {
        base: get(&uc, UC_STACK),
        size: get(&uc, UC_STACK + 16),
        flags: get(&uc, UC_STACK + 8) as u32 & !abi::SS_ONSTACK,
    };
    // As if by sigaltstack: while it is in use it stays.
    let mut now = caller.task.alt_stack.lock();
    if !now.holds(caller.user.rsp())
        && (alt.flags & abi::SS_DISABLE != 0 || alt.size >= abi::MINSIGSTKSZ as u64)
    {
        *now = alt;
    }
    drop(now);
    restore_fpu(caller, fp_at)
}

fn restore_fpu(caller: &mut Caller, at: u64) -> Result<()> {
    let state = caller.user.fpu();
    if at == 0 {
        *state = fpu::FpuState::new();
        return Ok(());
    }
    let mut bytes = [0u8; fpu::MAX_BYTES];
    user::copy_from(&mut bytes[..LEGACY], at)?;
    let magic1 = u32::from_le_bytes([bytes[464], bytes[465], bytes[466], bytes[467]]);
    let size = u32::from_le_bytes([bytes[480], bytes[481], bytes[482], bytes[483]]) as usize;
    let mut used = LEGACY;
    if fpu::xcr0() != 0 && magic1 == MAGIC1 && (LEGACY + 64..=fpu::size()).contains(&size) {
        let end = user::read_u32(at.wrapping_add(size as u64))?;
        if end == MAGIC2 {
            user::copy_from(&mut bytes[LEGACY..size], at.wrapping_add(LEGACY as u64))?;
            used = size;
        }
    }
    state.set_bytes(&bytes[..used]);
    Ok(())
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn get(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | *byte as u64)
}
