//! This CPU: its number, what it can do, and waiting for an interrupt.

use super::{boot, fpu, percpu, regs, smp, user_copy};
pub use percpu::MAX_CPUS;

use alloc::vec::Vec;
use core::arch::asm;
use hafez_mm::lock::Once;

/// What the CPU offers, as far as the kernel asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    pub nx: bool,
    pub smep: bool,
    pub smap: bool,
    pub umip: bool,
    pub pcid: bool,
    pub fsgsbase: bool,
    pub xsave: bool,
    pub avx: bool,
    pub x2apic: bool,
    pub tsc_deadline: bool,
    pub rdrand: bool,
    pub rdseed: bool,
    pub huge_1g: bool,
    /// A hypervisor whose local APIC timer counts nanoseconds (QEMU's emulation, KVM).
    pub apic_ns: bool,
    /// QEMU's emulation.
    pub emulated: bool,
    /// CPUID leaf 1 EDX, as programs get it in AT_HWCAP.
    pub hwcap: u32,
}

/// What /proc/cpuinfo tells.
#[derive(Clone, Debug)]
pub struct Identity {
    pub vendor: [u8; 12],
    /// Padded with NUL.
    pub brand: [u8; 48],
    pub family: u32,
    pub model: u32,
    pub stepping: u32,
    /// Words for the `flags` line.
    pub flags: Vec<&'static str>,
}

static FEATURES: Once<Features> = Once::new();

/// Read the features, and turn on those that protect on the CPU that boots.
pub(super) fn init() {
    let [max, ..] = regs::cpuid(0, 0);
    let [_, _, c1, d1] = regs::cpuid(1, 0);
    let [_, b7, c7, _] = if max >= 7 { regs::cpuid(7, 0) } else { [0; 4] };
    let [max_extended, ..] = regs::cpuid(0x8000_0000, 0);
    let [_, _, _, dx] = if max_extended >= 0x8000_0001 { regs::cpuid(0x8000_0001, 0) } else { [0; 4] };
    let bit = |word: u32, n: u32| word >> n & 1 != 0;
    let hypervisor = bit(c1, 31).then(|| {
        let [_, b, c, d] = regs::cpuid(0x4000_0000, 0);
        [b, c, d].map(u32::to_le_bytes).concat_12()
    });
    let emulated = hypervisor.is_some_and(|name| &name == b"TCGTCGTCGTCG");
    let apic_ns = emulated || hypervisor.is_some_and(|name| &name == b"KVMKVMKVM\0\0\0");
    let xsave = bit(c1, 26);
    let features = FEATURES.call_once(|| Features {
        nx: bit(dx, 20),
        smep: bit(b7, 7),
        smap: bit(b7, 20),
        umip: bit(c7, 2),
        pcid: bit(c1, 17),
        fsgsbase: bit(b7, 0),
        xsave,
        avx: xsave && bit(c1, 28),
        x2apic: bit(c1, 21),
        tsc_deadline: bit(c1, 24),
        rdrand: bit(c1, 30),
        rdseed: bit(b7, 18),
        huge_1g: bit(dx, 26),
        apic_ns,
        emulated,
        hwcap: d1,
    });
    if !features.nx {
        boot::cannot_start("this CPU cannot forbid execution of data (NX)");
    }
    if features.smap {
        user_copy::enable_smap_gates();
    }
    enable();
}

/// Turn on, on this CPU, what all offer.
pub(super) fn enable() {
    let features = features();
    const FXSR: u64 = 1 << 9;
    const SSE_EXCEPTIONS: u64 = 1 << 10;
    let mut cr4 = regs::cr4() | FXSR | SSE_EXCEPTIONS;
    for (has, bit) in [
        (features.umip, 11),
        (features.fsgsbase, 16),
        (features.xsave, 18),
        (features.smep, 20),
        (features.smap, 21),
    ] {
        cr4 |= (has as u64) << bit;
    }
    // SAFETY: bits that CPUID offers; text and data of the kernel are in its own half, so SMEP and SMAP do not touch it.
    // CR0: MP on, EM and TS off (the FPU is always usable), WP on.
    unsafe {
        regs::write_msr(regs::EFER, regs::read_msr(regs::EFER) | 1 << 11);
        // The first page tables map the low half as the kernel's own, so SMEP does not hit them.
        regs::set_cr4(cr4);
        regs::set_cr0(regs::cr0() & !(1 << 2 | 1 << 3) | 1 << 1 | 1 << 16);
    }
    fpu::init(features);
}

trait Concat12 {
    fn concat_12(self) -> [u8; 12];
}
impl Concat12 for [[u8; 4]; 3] {
    fn concat_12(self) -> [u8; 12] {
        core::array::from_fn(|i| self[i / 4][i % 4])
    }
}

/// Index of this CPU, dense from 0.
#[inline(always)]
pub fn id() -> usize {
    percpu::this().id.get() as usize
}
/// How many CPUs run.
#[inline(always)]
pub fn count() -> usize {
    smp::count()
}
/// Whether a fence may order nothing between this machine and its devices: QEMU's emulation before 8.0 leaves them out where there
/// is one CPU.
pub fn drops_fences() -> bool {
    features().emulated && smp::wanted(super::boot::info().command_line) == 1
}
/// What all CPUs offer.
pub fn features() -> &'static Features {
    FEATURES.get().expect("features are read first")
}

/// For `sched`: the place of the current thread's pointer.
#[inline(always)]
pub fn current() -> &'static core::sync::atomic::AtomicPtr<()> {
    &percpu::this().current
}
/// For `sched`: whether another thread should run soon.
#[inline(always)]
pub fn need_resched() -> &'static core::cell::Cell<bool> {
    &percpu::this().need_resched
}

/// What was fetched ahead is thrown away: instructions written meanwhile are seen.
pub fn serialize() {
    regs::cpuid(0, 0);
}

/// Vendor, model and flags.
pub fn identity() -> Identity {
    let [_, b, c, d] = regs::cpuid(0, 0);
    let [signature, _, c1, d1] = regs::cpuid(1, 0);
    let [_, b7, c7, _] = regs::cpuid(7, 0);
    let [max, ..] = regs::cpuid(0x8000_0000, 0);
    let [_, _, cx, dx] = regs::cpuid(0x8000_0001, 0);
    let mut brand = [0; 48];
    if max >= 0x8000_0004 {
        for (i, chunk) in brand.chunks_exact_mut(4).enumerate() {
            chunk.copy_from_slice(&regs::cpuid(0x8000_0002 + i as u32 / 4, 0)[i % 4].to_le_bytes());
        }
    }
    let family = signature >> 8 & 15;
    let model = signature >> 4 & 15;
    let known =
        [(d1, FLAGS_1D), (c1, FLAGS_1C), (b7, FLAGS_7B), (c7, FLAGS_7C), (dx, FLAGS_XD), (cx, FLAGS_XC)];
    let flags = known
        .iter()
        .flat_map(|&(word, names)| {
            names.iter().filter(move |(n, _)| word >> n & 1 != 0).map(|&(_, name)| name)
        })
        .collect();
    Identity {
        vendor: [b, d, c].map(u32::to_le_bytes).concat_12(),
        brand,
        family: if family == 15 { family + (signature >> 20 & 255) } else { family },
        model: if family == 6 || family == 15 { model | (signature >> 16 & 15) << 4 } else { model },
        stepping: signature & 15,
        flags,
    }
}

type Names = &'static [(u32, &'static str)];
const FLAGS_1D: Names = &[
    (0, "fpu"),
    (3, "pse"),
    (4, "tsc"),
    (5, "msr"),
    (6, "pae"),
    (8, "cx8"),
    (9, "apic"),
    (11, "sep"),
    (13, "pge"),
    (15, "cmov"),
    (16, "pat"),
    (19, "clflush"),
    (23, "mmx"),
    (24, "fxsr"),
    (25, "sse"),
    (26, "sse2"),
];
const FLAGS_1C: Names = &[
    (0, "pni"),
    (1, "pclmulqdq"),
    (9, "ssse3"),
    (12, "fma"),
    (13, "cx16"),
    (17, "pcid"),
    (19, "sse4_1"),
    (20, "sse4_2"),
    (21, "x2apic"),
    (22, "movbe"),
    (23, "popcnt"),
    (24, "tsc_deadline_timer"),
    (25, "aes"),
    (26, "xsave"),
    (28, "avx"),
    (29, "f16c"),
    (30, "rdrand"),
    (31, "hypervisor"),
];
const FLAGS_7B: Names = &[
    (0, "fsgsbase"),
    (3, "bmi1"),
    (5, "avx2"),
    (7, "smep"),
    (8, "bmi2"),
    (9, "erms"),
    (10, "invpcid"),
    (18, "rdseed"),
    (19, "adx"),
    (20, "smap"),
    (23, "clflushopt"),
    (29, "sha_ni"),
];
const FLAGS_7C: Names = &[(2, "umip"), (22, "rdpid")];
const FLAGS_XD: Names = &[(11, "syscall"), (20, "nx"), (26, "pdpe1gb"), (27, "rdtscp"), (29, "lm")];
const FLAGS_XC: Names = &[(0, "lahf_lm"), (5, "abm"), (6, "sse4a"), (8, "3dnowprefetch")];

/// Let interrupts in and sleep until one has been handled; off again on return.
#[inline]
pub fn halt_with_interrupts() {
    // SAFETY: `sti` takes effect after the next instruction, so no interrupt slips in before `hlt`. Handlers run on this
    // stack and keep all registers.
    unsafe { asm!("sti", "hlt", "cli", options()) };
}
/// Let pending interrupts in, without sleeping; off again on return.
#[inline]
pub fn interrupt_window() {
    // SAFETY: as above. `sti` takes effect after the instruction that follows it.
    unsafe { asm!("sti", "nop", "cli") };
}
