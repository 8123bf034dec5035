//! The interrupt controllers: this CPU's local APIC (through MSRs as x2APIC where the CPU has it, else through memory)
//! and the IOAPICs that the device lines end at (Intel SDM vol. 3, chapter 11; 82093AA data sheet).

use super::{cpu, paging, regs, trap};
use core::sync::atomic::{AtomicBool, Ordering};

/// Physical addresses, as every microVM has them.
pub const LOCAL: u64 = 0xFEE0_0000;
pub const IO: u64 = 0xFEC0_0000;
/// Lines of one IOAPIC; the second's begin after the first's.
const IO_LINES: u8 = 24;
/// Distance of a second IOAPIC.
const IO_STRIDE: u64 = 0x1_0000;

const TASK_PRIORITY: u32 = 0x8;
const EOI: u32 = 0xB;
const SPURIOUS_VECTOR: u32 = 0xF;
const COMMAND: u32 = 0x30;
const COMMAND_HIGH: u32 = 0x31;
const LVT_TIMER: u32 = 0x32;
const LVT_LINT0: u32 = 0x35;
const LVT_LINT1: u32 = 0x36;
const LVT_ERROR: u32 = 0x37;
const INITIAL_COUNT: u32 = 0x38;
const CURRENT_COUNT: u32 = 0x39;
const DIVIDE: u32 = 0x3E;

/// Of the command register: to all CPUs but this, and the level that everything but a de-assertion has.
const ALL_OTHERS: u32 = 3 << 18;
const ASSERT: u32 = 1 << 14;
const SENDING: u32 = 1 << 12;
const INIT: u32 = 5 << 8;
const START_UP: u32 = 6 << 8;

const MASKED: u32 = 1 << 16;
const NMI: u32 = 4 << 8;
const TSC_DEADLINE_MODE: u32 = 2 << 17;
const DIVIDE_BY_ONE: u32 = 0b1011;

static X2APIC: AtomicBool = AtomicBool::new(false);

#[inline(always)]
fn read(register: u32) -> u32 {
    if X2APIC.load(Ordering::Relaxed) {
        return regs::read_msr(0x800 + register) as u32;
    }
    // SAFETY: mapped device registers.
    unsafe { ((paging::DIRECT_MAP + LOCAL + register as u64 * 16) as *const u32).read_volatile() }
}

#[inline(always)]
fn write(register: u32, value: u32) {
    // SAFETY: a register of the local APIC that exists in both forms.
    unsafe {
        if X2APIC.load(Ordering::Relaxed) {
            regs::write_msr(0x800 + register, value as u64);
        } else {
            ((paging::DIRECT_MAP + LOCAL + register as u64 * 16) as *mut u32).write_volatile(value);
        }
    }
}

pub fn init() {
    let features = cpu::features();
    // SAFETY: global enable, and x2APIC mode where CPUID offers it. The old PICs, if they are there, are masked.
    unsafe {
        let base = regs::read_msr(regs::APIC_BASE) | 1 << 11;
        regs::write_msr(regs::APIC_BASE, base | if features.x2apic { 1 << 10 } else { 0 });
        regs::out8(0x21, 0xFF);
        regs::out8(0xA1, 0xFF);
    }
    X2APIC.store(features.x2apic, Ordering::Relaxed);
    write(SPURIOUS_VECTOR, 1 << 8 | trap::SPURIOUS as u32);
    write(LVT_LINT0, MASKED);
    // The non-maskable interrupt of the machine's monitor: it makes a kernel that hangs tell where.
    write(LVT_LINT1, NMI);
    write(LVT_ERROR, MASKED);
    write(DIVIDE, DIVIDE_BY_ONE);
    write(LVT_TIMER, trap::TIMER as u32 | if features.tsc_deadline { TSC_DEADLINE_MODE } else { 0 });
}

/// The interrupt is handled.
#[inline(always)]
pub fn end_of_interrupt() {
    write(EOI, 0);
}

/// Interrupt after so many ticks of the timer; 0 stops it.
#[inline(always)]
pub fn set_count(ticks: u32) {
    write(INITIAL_COUNT, ticks);
}
pub fn count() -> u32 {
    read(CURRENT_COUNT)
}
/// Keep the timer from interrupting (calibration), or let it.
pub fn mask_timer(masked: bool) {
    write(LVT_TIMER, trap::TIMER as u32 | if masked { MASKED } else { 0 });
}

/// Let only requests of other CPUs in, and the timer as one of them; or all again, and the timer as itself.
pub fn only_requests(only: bool) {
    let (priority, vector) = if only { (trap::REQUEST - 16, trap::REQUEST) } else { (0, trap::TIMER) };
    let mode = if cpu::features().tsc_deadline { TSC_DEADLINE_MODE } else { 0 };
    write(LVT_TIMER, vector as u32 | mode);
    write(TASK_PRIORITY, priority as u32);
}

/// This CPU's number among the interrupt controllers.
pub fn id() -> u32 {
    let id = read(2);
    if X2APIC.load(Ordering::Relaxed) { id } else { id >> 24 }
}

fn command(target: u32, what: u32) {
    // SAFETY: an interrupt to another CPU, which expects it.
    unsafe {
        if X2APIC.load(Ordering::Relaxed) {
            // Not ordered after earlier stores by itself, as a store to device memory would be.
            core::arch::asm!("mfence", "lfence", options(nostack, preserves_flags));
            regs::write_msr(0x800 + COMMAND, (target as u64) << 32 | what as u64);
        } else {
            while read(COMMAND) & SENDING != 0 {
                core::hint::spin_loop();
            }
            write(COMMAND_HIGH, target << 24);
            write(COMMAND, what);
        }
    }
}

/// Interrupt the CPU whose controller has this number.
pub fn send(target: u32, vector: u8) {
    command(target, ASSERT | vector as u32);
}
/// Stop all other CPUs with what they cannot mask.
pub fn send_stop() {
    command(0, ALL_OTHERS | ASSERT | NMI);
}
/// Reset all other CPUs: they wait for a start.
pub fn send_init() {
    command(0, ALL_OTHERS | ASSERT | INIT);
}
/// Start all other CPUs that wait for it at `page` (a frame below 1 MiB), in real mode.
pub fn send_start(page: u8) {
    command(0, ALL_OTHERS | ASSERT | START_UP | page as u32);
}

/// Send line `gsi` to this CPU as `vector`: active high, level-triggered, so that a device that raises its line again
/// before the end of the interrupt is heard again.
pub fn route(gsi: u8, vector: u8) {
    let base = paging::DIRECT_MAP + IO + (gsi / IO_LINES) as u64 * IO_STRIDE;
    let index = 0x10 + (gsi % IO_LINES) as u32 * 2;
    let set = |register: u32, value: u32| {
        // SAFETY: select and window of a mapped IOAPIC.
        unsafe {
            (base as *mut u32).write_volatile(register);
            ((base + 0x10) as *mut u32).write_volatile(value);
        }
    };
    set(index, MASKED);
    set(index + 1, id() << 24);
    set(index, vector as u32 | 1 << 15);
}
