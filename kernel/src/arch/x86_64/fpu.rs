//! The x87, SSE and AVX state of programs. The kernel itself is compiled without them.
//!
//! AVX-512 is not enabled: a program sees so in XCR0 and uses AVX. That keeps a thread's state at 832 bytes.

use super::{cpu, regs};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bytes of the largest state that is kept: legacy 512, header 64, upper halves of the AVX registers 256.
pub const MAX_BYTES: usize = 832;
/// Of them, what `fxsave` knows; and the header of `xsave`, which follows.
pub const LEGACY_BYTES: usize = 512;
pub const HEADER_BYTES: usize = 64;

const X87: u64 = 1;
const SSE: u64 = 2;
const AVX: u64 = 4;

const CONTROL_WORD_AT: usize = 0;
const MXCSR_AT: usize = 24;
/// All x87 exceptions masked, 64-bit precision (SDM vol. 1, 8.1.5).
const FRESH_CONTROL_WORD: u16 = 0x37F;
/// All SSE exceptions masked (SDM vol. 1, 10.2.3).
const FRESH_MXCSR: u32 = 0x1F80;
/// Bits of MXCSR that may be set: all but the reserved upper half. Every 64-bit CPU has DAZ.
pub const MXCSR_MASK: u32 = 0xFFFF;

/// A program's FPU state in memory, in the layout of `xsave` (or `fxsave`, its first 512 bytes).
#[repr(C, align(64))]
#[derive(Clone)]
pub struct FpuState {
    bytes: [u8; MAX_BYTES],
}

/// What `xsave` is asked for; 0 where the CPU has none.
static XCR0: AtomicU64 = AtomicU64::new(0);
static SIZE: AtomicUsize = AtomicUsize::new(LEGACY_BYTES);

impl FpuState {
    /// As a fresh program finds it: all empty, exceptions masked.
    pub const fn new() -> Self {
        let mut bytes = [0; MAX_BYTES];
        let [a, b] = FRESH_CONTROL_WORD.to_le_bytes();
        bytes[CONTROL_WORD_AT] = a;
        bytes[CONTROL_WORD_AT + 1] = b;
        let [a, b, ..] = FRESH_MXCSR.to_le_bytes();
        bytes[MXCSR_AT] = a;
        bytes[MXCSR_AT + 1] = b;
        FpuState { bytes }
    }
    /// The bytes as `xsave` writes them; [`size`] of them mean something.
    pub fn bytes(&self) -> &[u8; MAX_BYTES] {
        &self.bytes
    }
    /// Take over bytes from a signal frame: what a program may not set is masked away, never believed. Fewer than 512
    /// bytes make a fresh state.
    pub fn set_bytes(&mut self, from: &[u8]) {
        *self = Self::new();
        if from.len() < LEGACY_BYTES {
            return;
        }
        let wanted = size();
        let take = if from.len() >= wanted { wanted } else { LEGACY_BYTES };
        self.bytes[..take].copy_from_slice(&from[..take]);
        let mxcsr = u32::from_le_bytes(core::array::from_fn(|i| self.bytes[MXCSR_AT + i])) & MXCSR_MASK;
        self.bytes[MXCSR_AT..MXCSR_AT + 4].copy_from_slice(&mxcsr.to_le_bytes());
        let header = &mut self.bytes[LEGACY_BYTES..LEGACY_BYTES + HEADER_BYTES];
        let present = u64::from_le_bytes(core::array::from_fn(|i| header[i]));
        let present = if take > LEGACY_BYTES { present & xcr0() } else { X87 | SSE };
        header.fill(0);
        header[..8].copy_from_slice(&present.to_le_bytes());
    }
    /// Store the processor's state.
    pub(super) fn save(&mut self) {
        let mask = xcr0();
        // SAFETY: the buffer is aligned and as large as the components of the mask need.
        unsafe {
            if mask != 0 {
                asm!("xsave64 [{}]", in(reg) self, in("eax") mask as u32, in("edx") (mask >> 32) as u32,
                    options(nostack, preserves_flags));
            } else {
                asm!("fxsave64 [{}]", in(reg) self, options(nostack, preserves_flags));
            }
        }
    }
    /// Load the processor's state.
    pub(super) fn restore(&self) {
        let mask = xcr0();
        // SAFETY: the bytes come from `new`, `save` or `set_bytes`, so nothing reserved is set.
        unsafe {
            if mask != 0 {
                asm!("xrstor64 [{}]", in(reg) self, in("eax") mask as u32, in("edx") (mask >> 32) as u32,
                    options(nostack, readonly, preserves_flags));
            } else {
                asm!("fxrstor64 [{}]", in(reg) self, options(nostack, readonly, preserves_flags));
            }
        }
    }
}

/// Bytes of state that this CPU saves: 512 (fxsave), 576 or 832.
#[inline(always)]
pub fn size() -> usize {
    SIZE.load(Ordering::Relaxed)
}
/// The XCR0 mask in force; 0 where the CPU has no xsave.
pub fn xcr0() -> u64 {
    XCR0.load(Ordering::Relaxed)
}

/// CR4 allows it already; choose the components.
pub(super) fn init(features: &cpu::Features) {
    if features.xsave {
        let mask = X87 | SSE | if features.avx { AVX } else { 0 };
        regs::set_xcr0(mask);
        XCR0.store(mask, Ordering::Relaxed);
        SIZE.store(if features.avx { MAX_BYTES } else { LEGACY_BYTES + HEADER_BYTES }, Ordering::Relaxed);
    }
}
