//! The processor's special instructions, one function each.

use core::arch::asm;

pub const EFER: u32 = 0xC000_0080;
pub const STAR: u32 = 0xC000_0081;
pub const LSTAR: u32 = 0xC000_0082;
pub const CSTAR: u32 = 0xC000_0083;
pub const FMASK: u32 = 0xC000_0084;
pub const FS_BASE: u32 = 0xC000_0100;
pub const GS_BASE: u32 = 0xC000_0101;
/// What `swapgs` exchanges with `GS_BASE`: the program's base while the kernel runs.
pub const KERNEL_GS_BASE: u32 = 0xC000_0102;
pub const APIC_BASE: u32 = 0x1B;
pub const TSC_DEADLINE: u32 = 0x6E0;

macro_rules! control_register {
    ($read:ident, $write:ident, $name:literal) => {
        pub fn $read() -> u64 {
            let value;
            // SAFETY: reading a control register changes nothing.
            unsafe { asm!(concat!("mov {}, ", $name), out(reg) value, options(nomem, nostack, preserves_flags)) };
            value
        }
        /// # Safety
        /// The value must keep the kernel running.
        #[allow(dead_code)]
        pub unsafe fn $write(value: u64) {
            // SAFETY: by the caller. Not `nomem`: memory may look different afterwards.
            unsafe { asm!(concat!("mov ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags)) };
        }
    };
}
control_register!(cr0, set_cr0, "cr0");
control_register!(cr2, set_cr2, "cr2");
control_register!(cr3, set_cr3, "cr3");
control_register!(cr4, set_cr4, "cr4");

pub fn read_msr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: only called with registers that exist on every CPU, or that CPUID told of.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nostack, preserves_flags))
    };
    (high as u64) << 32 | low as u64
}

/// # Safety
/// The register must exist and the value must keep the kernel running.
pub unsafe fn write_msr(msr: u32, value: u64) {
    // SAFETY: by the caller.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags));
    }
}

pub fn set_xcr0(value: u64) {
    // SAFETY: CR4.OSXSAVE is set and the bits are those that CPUID offers; FPU state does not touch kernel code.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack))
    };
}

/// # Safety
/// What the device behind the port does must be wanted.
pub unsafe fn out8(port: u16, value: u8) {
    // SAFETY: by the caller.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}
/// # Safety
/// As [`out8`].
pub unsafe fn out32(port: u16, value: u32) {
    // SAFETY: by the caller.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags)) };
}

#[inline(always)]
pub fn rdtsc() -> u64 {
    // SAFETY: no side effect.
    unsafe { core::arch::x86_64::_rdtsc() }
}

pub fn invlpg(address: u64) {
    // SAFETY: forgetting a translation is always allowed.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags)) };
}

/// The four words of a CPUID leaf.
pub fn cpuid(leaf: u32, sub: u32) -> [u32; 4] {
    let r = core::arch::x86_64::__cpuid_count(leaf, sub);
    [r.eax, r.ebx, r.ecx, r.edx]
}
