//! The frame that a handler finds on its stack, and the way back from it.
//!
//! The layout is Linux's `struct rt_sigframe` for x86-64; debuggers, unwinders and language runtimes read and write it:
//!
//! ```text
//!   stack of the program, or the alternate one
//!   ─────────────── (128 bytes red zone below the interrupted stack pointer)
//!   FPU state       512 bytes of fxsave; or xsave with two magic words; aligned to 64
//!   siginfo         128, written where the handler asked for it (SA_SIGINFO)
//!   ucontext        flags, link, stack, registers (sigcontext), mask
//!   return address  of sa_restorer, which calls rt_sigreturn         ◀── rsp, 8 below a multiple of 16
//! ```
//!
//! The general registers go to and fro as one block: `Registers` has them in the frame's order.
//!
//! On the way back nothing in it is believed: addresses are checked when they are used, of `rflags` only what a program
//! may set itself is taken, the FPU state is masked (`FpuState::set_bytes`), and selectors of code and stack are taken if they name such.

use super::super::run::Caller;
use super::{Action, AltStack, SIGINFO_LEN, SS_AUTODISARM, SigInfo, SigSet, set_mask};
use crate::arch::fpu;
use crate::arch::user::{self, UserContext};
use crate::errno::{Errno, Result};
use linux_raw_sys::general as abi;

/// Bytes below the stack pointer that the ABI lets functions use.
const RED_ZONE: u64 = 128;
/// Bytes of `struct ucontext`.
const UCONTEXT: usize = 304;
/// Words of it before the general registers: flags, link, stack.
const BEFORE: usize = 5;
/// And after them: `rsp`, `rip`, flags, selectors, error, trap, mask, `cr2`, FPU state, eight unused; and the mask.
const AFTER: usize = 18;
const _: () = assert!((BEFORE + size_of::<user::Registers>() / 8 + AFTER) * 8 == UCONTEXT);
/// Return address, ucontext, siginfo.
const FRAME: usize = 8 + UCONTEXT + SIGINFO_LEN;
/// `uc_flags`: an xsave image is there; the stack segment is in the frame and is to be taken as it is.
const UC_FP_XSTATE: u64 = 1;
const UC_SIGCONTEXT_SS: u64 = 2;
const UC_STRICT_RESTORE_SS: u64 = 4;
/// The usual selectors of code and stack, as a frame has them.
const USUAL: u64 = 0x33 | 0x2b << 48;
/// Where they stand in the words around the general registers; between them is what meant FS and GS once.
const SELECTORS: usize = 8;
const UNUSED: u64 = 0xFFFF_FFFF << 16;
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
    let alt = caller.alt_stack;
    let sp = caller.user.rsp();
    let on_alt = alt.holds(sp);
    let mut top = sp.wrapping_sub(RED_ZONE);
    if action.is(abi::SA_ONSTACK) && alt.flags & abi::SS_DISABLE == 0 && !on_alt {
        top = alt.base.wrapping_add(alt.size);
    }
    let fp_at = top.wrapping_sub(fp_bytes() as u64) & !63;
    let frame_at = (fp_at.wrapping_sub(FRAME as u64) & !15).wrapping_sub(8);
    let uc_at = frame_at + 8;
    let info_at = uc_at + UCONTEXT as u64;
    // A handler that has run off its alternate stack shall not run on into what lies below.
    if on_alt && !alt.holds(frame_at) {
        return Err(Errno::EFAULT);
    }

    push_fpu(caller, fp_at)?;
    if action.is(abi::SA_SIGINFO) {
        user::copy_words_to(info_at, &info.to_words())?;
    }
    let (fault_at, trap, error) = fault(caller, info);
    let xsave = if fpu::xcr0() != 0 { UC_FP_XSTATE } else { 0 };
    let on_stack = if on_alt { abi::SS_ONSTACK } else { 0 };
    let u = &caller.user;
    let usual = u.is_usual();
    let (code, stack) = u.code_and_stack();
    let strict = if code == USUAL & 0xFFFF { UC_STRICT_RESTORE_SS } else { 0 };
    #[rustfmt::skip]
    let words: [u64; 1 + BEFORE + AFTER] = [
        action.restorer,
        xsave | strict | UC_SIGCONTEXT_SS, 0, alt.base, (alt.flags | on_stack) as u64, alt.size,
        // Here the general registers.
        sp, u.rip(), u.rflags(), code | stack << 48, error, trap, mask.0, fault_at, fp_at, 0, 0, 0, 0, 0, 0, 0, 0,
        mask.0,
    ];
    u.put_registers(frame_at, &words, 1 + BEFORE)?;

    if alt.flags & SS_AUTODISARM != 0 {
        caller.alt_stack = AltStack::NONE;
    }
    let u = &mut caller.user;
    u.rdi = info.signo as u64;
    u.rsi = info_at;
    u.rdx = uc_at;
    u.rax = 0;
    u.set_rflags(u.rflags() & !FLAGS_CLEARED);
    u.set_rsp(frame_at);
    u.set_rip(action.handler);
    if !usual {
        u.enter_64_bits();
    }
    Ok(())
}

/// Of a signal that an instruction caused: the address, the exception and its error code, as the frame tells them.
#[inline]
fn fault(caller: &Caller, info: &SigInfo) -> (u64, u64, u64) {
    if info.code <= 0 || !SigSet::SYNCHRONOUS.has(info.signo) {
        return (0, 0, 0);
    }
    let (trap, error) = caller.user.exception().unwrap_or_default();
    (info.fields[0], trap, error)
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
    caller.user.save_fpu(at)?;
    if fpu::xcr0() == 0 {
        return Ok(());
    }
    // What says to others that more follows than `fxsave` knows.
    let size = fpu::size();
    let magic = MAGIC1 as u64 | (size as u64 + 4) << 32;
    user::copy_words_to(at + SOFTWARE_BYTES as u64, &[magic, fpu::xcr0(), size as u64, 0, 0, 0])?;
    Ok(user::write_u32(at + size as u64, MAGIC2)?)
}

/// `rt_sigreturn`: take everything back from the frame below the stack pointer. What `rax` was.
pub fn sigreturn(caller: &mut Caller) -> Result<u64> {
    if restore(caller).is_err() {
        super::force(caller, SigInfo::kernel(abi::SIGSEGV));
    }
    Ok(caller.user.rax)
}

fn restore(caller: &mut Caller) -> Result<()> {
    let uc = caller.user.rsp();
    let rest = caller.user.take_registers(uc, BEFORE, |user, words: &[u64; BEFORE + AFTER]| {
        let [_, _, base, flags, size, rsp, rip, rflags, _, _, _, _, _, fp_at, .., mask] = *words;
        user.set_rsp(rsp);
        user.set_rip(rip);
        user.set_rflags(rflags);
        user.keep_all();
        if words[SELECTORS] & !UNUSED != USUAL || !user.is_usual() {
            restore_selectors(user, words[0], words[SELECTORS]);
        }
        (AltStack { base, size, flags: flags as u32 & !abi::SS_ONSTACK }, fp_at, mask)
    });
    let (alt, fp_at, mask) = rest?;
    // What the old mask lets through does not wait for the next trap.
    set_mask(&caller.task, SigSet(mask));
    // As if by sigaltstack: while it is in use it stays.
    if !caller.alt_stack.holds(caller.user.rsp())
        && (alt.flags & abi::SS_DISABLE != 0 || alt.size >= abi::MINSIGSTKSZ as u64)
    {
        caller.alt_stack = alt;
    }
    restore_fpu(caller, fp_at)
}

/// Code and stack as the frame has them. Who knows nothing of stack segments gets a good one for 64-bit code.
#[cold]
fn restore_selectors(user: &mut UserContext, flags: u64, selectors: u64) {
    let (code, stack) = (selectors as u16 | 3, (selectors >> 48) as u16 | 3);
    user.set_code_and_stack(code, stack);
    if flags & UC_STRICT_RESTORE_SS == 0 && code == USUAL as u16 {
        user.enter_64_bits();
    }
}

fn restore_fpu(caller: &mut Caller, at: u64) -> Result<()> {
    if at == 0 {
        *caller.user.fpu() = fpu::FpuState::new();
        return Ok(());
    }
    let mut used = LEGACY;
    if fpu::xcr0() != 0 {
        let [magic, _, size] = user::copy_words_from(at.wrapping_add(SOFTWARE_BYTES as u64))?;
        let size = size as u32 as usize;
        let whole = magic as u32 == MAGIC1
            && (LEGACY + 64..=fpu::size()).contains(&size)
            && user::read_u32(at.wrapping_add(size as u64))? == MAGIC2;
        if whole {
            used = size;
        }
    }
    Ok(caller.user.load_fpu(at, used)?)
}
