//! A stopped tracee's registers, as its tracer sees and changes them: `struct user_regs_struct`, and the FPU's state.
//!
//! Nothing that a tracer writes is believed more than what a program sets itself: flags are masked, addresses of segments are checked,
//! selectors that name nothing are found before they are loaded, and the FPU's state is masked as that of a signal frame is.
#![forbid(unsafe_code)]

use crate::arch::debug::{self, DebugRegisters};
use crate::arch::fpu::{self, FpuState};
use crate::arch::segments::Selectors;
use crate::arch::user::{self, UserContext};
use crate::errno::{Errno, Result};
use core::ops::Range;

/// Words of `struct user_regs_struct`, and where some stand.
pub const WORDS: usize = 27;
pub const RAX: usize = 10;
pub const ORIG_RAX: usize = 15;
pub const RIP: usize = 16;
const CS: usize = 17;
const FLAGS: usize = 18;
pub const RSP: usize = 19;
const SS: usize = 20;
pub const FS_BASE: usize = 21;
pub const GS_BASE: usize = 22;
const DS: usize = 23;
const GS: usize = 26;

/// Debug registers that are no addresses.
const STATUS: usize = 6;
const CONTROL: usize = 7;

/// In what `xsave` leaves to software, a debugger finds the components that there can be.
const COMPONENTS: Range<usize> = 464..472;
const SOFTWARE: Range<usize> = 464..512;
const MXCSR: Range<usize> = 24..28;
const HEADER: usize = 512;
const X87_AND_SSE: u8 = 3;

/// What may stand in a segment register: null, or with the program's own privilege.
fn is_selector(value: u64) -> bool {
    value == 0 || value <= u16::MAX as u64 && value & 3 == 3
}

/// A copy of a tracee's registers.
pub struct Shown {
    words: [u64; WORDS],
    fpu: FpuState,
    /// Addresses that are watched, for what, and what happened.
    debug: DebugRegisters,
    status: u64,
    debug_changed: bool,
    /// What is to be taken back.
    changed: bool,
    fpu_changed: bool,
}

impl Shown {
    /// `call`: the number of the system call that it is in, or has just made.
    pub fn of(user: &mut UserContext, call: Option<u64>, rax: u64, status: u64) -> Shown {
        let (fs_base, gs_base) = (user.fs_base(), user.gs_base());
        let (code, stack) = user.code_and_stack();
        let Selectors { ds, es, fs, gs } = user.selectors();
        let [ds, es, fs, gs] = [ds, es, fs, gs].map(u64::from);
        let fpu = user.fpu().clone();
        let (rip, flags, rsp) = (user.rip(), user.rflags(), user.rsp());
        let r = &**user;
        #[rustfmt::skip]
        let words = [
            r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, rax, r.rcx, r.rdx, r.rsi, r.rdi,
            call.unwrap_or(u64::MAX), rip, code, flags, rsp, stack, fs_base, gs_base, ds, es, fs, gs,
        ];
        let debug = user.debug();
        Shown { words, fpu, debug, status, debug_changed: false, changed: false, fpu_changed: false }
    }

    /// One of the eight debug registers. Two of them are none.
    pub fn debug(&self, index: usize) -> u64 {
        match index {
            STATUS => debug::NOTHING ^ self.status,
            CONTROL => self.debug.control,
            _ => self.debug.at.get(index).copied().unwrap_or(0),
        }
    }

    /// EINVAL for what cannot be watched, EIO for what is no register.
    pub fn set_debug(&mut self, index: usize, value: u64) -> Result<()> {
        let mut wanted = self.debug;
        match index {
            STATUS => {
                self.status = value ^ debug::NOTHING;
                return Ok(());
            }
            CONTROL => wanted.control = value,
            _ => *wanted.at.get_mut(index).ok_or(Errno::EIO)? = value,
        }
        if index < debug::COUNT && !user::in_user_half(value, 1) {
            return Err(Errno::EINVAL);
        }
        self.debug = wanted.controlled(wanted.control).ok_or(Errno::EINVAL)?;
        self.debug_changed = true;
        Ok(())
    }

    /// All words.
    pub fn words(&self) -> &[u64; WORDS] {
        &self.words
    }

    /// One word; EIO if it may not be so.
    pub fn set(&mut self, index: usize, value: u64) -> Result<()> {
        let fine = match index {
            CS | SS => is_selector(value) && value != 0,
            DS..=GS => is_selector(value),
            FS_BASE | GS_BASE => user::in_user_half(value, 0),
            _ => index < WORDS,
        };
        if !fine {
            return Err(Errno::EIO);
        }
        self.words[index] = value;
        self.changed = true;
        Ok(())
    }

    /// Whether the tracer has set any of them.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// The FPU's state in the layout of `xsave`.
    pub fn xstate(&self) -> ([u8; fpu::MAX_BYTES], usize) {
        let mut bytes = *self.fpu.bytes();
        bytes[COMPONENTS].copy_from_slice(&fpu::xcr0().to_le_bytes());
        (bytes, fpu::size())
    }

    /// The part of it that `fxsave` knows.
    pub fn legacy(&self) -> [u8; fpu::LEGACY_BYTES] {
        core::array::from_fn(|i| self.fpu.bytes()[i])
    }

    /// Set the whole state. EINVAL for what is reserved.
    pub fn set_xstate(&mut self, from: &[u8]) -> Result<()> {
        let header = from.get(HEADER..HEADER + 16).and_then(|h| h.first_chunk::<8>()).ok_or(Errno::EFAULT)?;
        if u64::from_le_bytes(*header) & !fpu::xcr0() != 0 {
            return Err(Errno::EINVAL);
        }
        self.set_fpu(from)
    }

    /// Set the part that `fxsave` knows; the rest stays.
    pub fn set_legacy(&mut self, from: &[u8; fpu::LEGACY_BYTES]) -> Result<()> {
        let mut bytes = *self.fpu.bytes();
        bytes[..from.len()].copy_from_slice(from);
        if fpu::xcr0() != 0 {
            bytes[HEADER] |= X87_AND_SSE;
        }
        self.set_fpu(&bytes[..fpu::size()])
    }

    fn set_fpu(&mut self, from: &[u8]) -> Result<()> {
        let mxcsr = from.get(MXCSR).and_then(|m| m.first_chunk::<4>()).ok_or(Errno::EFAULT)?;
        if u32::from_le_bytes(*mxcsr) & !fpu::MXCSR_MASK != 0 {
            return Err(Errno::EINVAL);
        }
        let mut own = [0; fpu::MAX_BYTES];
        own[..from.len()].copy_from_slice(from);
        own[SOFTWARE].fill(0);
        self.fpu.set_bytes(&own[..from.len()]);
        self.fpu_changed = true;
        Ok(())
    }

    /// Take back what was changed: all but `rax`, which means something else at each moment. The status of debug registers.
    pub fn give_back(&self, user: &mut UserContext) -> u64 {
        if self.debug_changed {
            user.set_debug(self.debug);
        }
        if self.fpu_changed {
            *user.fpu() = self.fpu.clone();
        }
        if !self.changed {
            return self.status;
        }
        let w = &self.words;
        [user.r15, user.r14, user.r13, user.r12, user.rbp, user.rbx] = [w[0], w[1], w[2], w[3], w[4], w[5]];
        [user.r11, user.r10, user.r9, user.r8] = [w[6], w[7], w[8], w[9]];
        [user.rcx, user.rdx, user.rsi, user.rdi] = [w[11], w[12], w[13], w[14]];
        user.set_rip(w[RIP]);
        user.set_rflags(w[FLAGS]);
        user.set_rsp(w[RSP]);
        let [ds, es, fs, gs] = [w[DS], w[DS + 1], w[DS + 2], w[GS]].map(|word| word as u16);
        user.set_selectors(Selectors { ds, es, fs, gs });
        user.set_fs_base(w[FS_BASE]);
        user.set_gs_base(w[GS_BASE]);
        user.keep_all();
        if user.code_and_stack() != (w[CS], w[SS]) {
            user.set_code_and_stack(w[CS] as u16, w[SS] as u16);
        }
        self.status
    }
}
