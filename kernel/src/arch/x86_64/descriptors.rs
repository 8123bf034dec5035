//! Segments, the task state segment, and the table of interrupt gates (Intel SDM vol. 3, chapters 3, 6 and 8).
//!
//! The selectors are those that Linux uses: programs see them in signal frames.

use super::{percpu::PerCpu, regs, trap};
use core::arch::asm;
use core::cell::UnsafeCell;

pub const KERNEL_CODE: u16 = 0x10;
pub const KERNEL_DATA: u16 = 0x18;
/// Where `sysret` counts from: 32-bit code, over all of the first 4 GiB.
pub const USER_BASE: u16 = 0x23;
pub const USER_DATA: u16 = 0x2B;
pub const USER_CODE: u16 = 0x33;
const TASK: u16 = 0x40;
/// The program's own table, if it has one (see `segments`).
pub const LOCAL: u16 = 0x50;
/// A segment that nobody uses, whose limit is the CPU's number: for `lsl`.
pub const CPU_NUMBER: u16 = 0x7B;

#[repr(C, packed(4))]
pub struct Tss {
    _reserved0: u32,
    pub rsp0: u64,
    rsp1: u64,
    rsp2: u64,
    _reserved1: u64,
    ist: [u64; 7],
    _reserved2: u64,
    _reserved3: u16,
    io_map: u16,
}

impl Tss {
    pub const fn new() -> Self {
        Tss {
            _reserved0: 0,
            rsp0: 0,
            rsp1: 0,
            rsp2: 0,
            _reserved1: 0,
            ist: [0; 7],
            _reserved2: 0,
            _reserved3: 0,
            // Beyond the limit: no port is open to programs.
            io_map: size_of::<Tss>() as u16,
        }
    }
}

/// The segments of programs, marked as accessed.
const CODE_32: u64 = 0x00CF_FB00_0000_FFFF;
const DATA: u64 = 0x00CF_F300_0000_FFFF;
const CODE_64: u64 = 0x00AF_FB00_0000_FFFF;
/// Data, read-only, but for its limit.
const NUMBER: u64 = 0x0040_F500_0000_0000;

/// The descriptor at this place of the global table, if a program may use it; else 0.
pub fn of_programs(at: usize) -> u64 {
    const SELECTORS: [(u16, u64); 4] =
        [(USER_BASE, CODE_32), (USER_DATA, DATA), (USER_CODE, CODE_64), (CPU_NUMBER, NUMBER)];
    SELECTORS.iter().find(|(selector, _)| *selector as usize >> 3 == at).map_or(0, |&(_, d)| d)
}

/// null, (unused), kernel code, kernel data, user code 32, user data, user code 64, (unused), TSS (two words), LDT (two words), …,
/// CPU's number.
#[repr(C, align(16))]
pub struct Gdt([u64; 16]);

impl Gdt {
    pub const fn new() -> Self {
        Gdt([
            0,
            0,
            0x00AF_9B00_0000_FFFF,
            0x00CF_9300_0000_FFFF,
            CODE_32,
            DATA,
            CODE_64,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            NUMBER,
        ])
    }

    /// Where the table of the program's own descriptors is.
    pub(super) fn set_local(&mut self, low: u64, high: u64) {
        let at = LOCAL as usize >> 3;
        self.0[at] = low;
        self.0[at + 1] = high;
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Gate {
    low: u64,
    high: u64,
}

#[repr(C, align(16))]
struct Idt(UnsafeCell<[Gate; trap::VECTORS]>);
// SAFETY: written once, by the boot CPU, before it is loaded anywhere.
unsafe impl Sync for Idt {}
static IDT: Idt = Idt(UnsafeCell::new([Gate { low: 0, high: 0 }; trap::VECTORS]));

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// Exceptions on a stack of their own: debug, NMI, double fault, machine check.
const IST: [u8; 4] = [1, 2, 8, 18];

/// The gates, the same for all CPUs.
fn fill_gates() {
    // SAFETY: only the CPU that boots does this, before any other runs.
    let idt = unsafe { &mut *IDT.0.get() };
    for (vector, gate) in idt.iter_mut().enumerate() {
        let handler = trap::stub(vector);
        let ist = IST.iter().position(|&v| v as usize == vector).map_or(0, |i| i as u64 + 1);
        // Programs may use `int3` and `into`; any other `int n` is a protection fault.
        let dpl = if vector == 3 || vector == 4 { 3 } else { 0 };
        gate.low = (handler & 0xFFFF)
            | (KERNEL_CODE as u64) << 16
            | ist << 32
            | 0x8E << 40
            | dpl << 45
            | (handler >> 16 & 0xFFFF) << 48;
        gate.high = handler >> 32;
    }
}

/// Fill and load this CPU's tables.
pub fn init(area: &'static PerCpu) {
    let tss = area.tss.get();
    let base = tss as u64;
    let ist = core::array::from_fn(|i| if i < IST.len() { area.ist_top(i) } else { 0 });
    if area.id.get() == 0 {
        fill_gates();
    }
    // SAFETY: nobody else sees this CPU's tables, and they live for ever.
    unsafe {
        (*tss).ist = ist;
        let gdt = &mut (*area.gdt.get()).0;
        gdt[8] =
            (size_of::<Tss>() as u64 - 1) | (base & 0xFF_FFFF) << 16 | 0x89 << 40 | (base >> 24 & 0xFF) << 56;
        gdt[9] = base >> 32;
        gdt[15] |= area.id.get() as u64;
        let gdtr = Pointer { limit: size_of::<Gdt>() as u16 - 1, base: area.gdt.get() as u64 };
        let idtr = Pointer { limit: size_of::<Idt>() as u16 - 1, base: IDT.0.get() as u64 };
        let gs = regs::read_msr(regs::GS_BASE);
        asm!(
            "lgdt [{gdtr}]",
            "lidt [{idtr}]",
            "push {code}",
            "lea {tmp}, [rip + 2f]",
            "push {tmp}",
            "retfq",
            "2:",
            "mov ss, {data:e}",
            "ltr {task:x}",
            gdtr = in(reg) &gdtr,
            idtr = in(reg) &idtr,
            code = const KERNEL_CODE,
            data = in(reg) KERNEL_DATA as u32,
            task = in(reg) TASK,
            tmp = out(reg) _,
        );
        regs::write_msr(regs::GS_BASE, gs);
    }
}
