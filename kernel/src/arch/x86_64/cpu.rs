//! This CPU: its number, what it can do, and waiting for an interrupt.

/// What the CPU offers, as far as the kernel asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    pub nx: bool,
    pub smep: bool,
    pub smap: bool,
    pub umip: bool,
    pub pcid: bool,
    pub invpcid: bool,
    pub fsgsbase: bool,
    pub xsave: bool,
    pub avx: bool,
    pub x2apic: bool,
    pub tsc_deadline: bool,
    pub rdrand: bool,
    pub rdseed: bool,
    pub huge_1g: bool,
    pub erms: bool,
    /// CPUID leaf 1 EDX, as programs get it in AT_HWCAP.
    pub hwcap: u32,
}

/// What /proc/cpuinfo tells.
#[derive(Clone, Debug)]
pub struct Identity {
    pub vendor: [u8; 12],
    pub brand: [u8; 48],
    pub family: u32,
    pub model: u32,
    pub stepping: u32,
    /// Words for the `flags` line.
    pub flags: alloc::vec::Vec<&'static str>,
}

/// Index of this CPU, dense from 0.
pub fn id() -> usize {
    todo!()
}
/// How many CPUs run.
pub fn count() -> usize {
    1
}
/// What all CPUs offer.
pub fn features() -> &'static Features {
    todo!()
}
/// Vendor, model and flags.
pub fn identity() -> Identity {
    todo!()
}
/// Let interrupts in and sleep until one has been handled; off again on return.
pub fn halt_with_interrupts() {
    todo!()
}
/// Let pending interrupts in, without sleeping; off again on return.
pub fn interrupt_window() {
    todo!()
}
