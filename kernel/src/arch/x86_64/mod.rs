//! x86-64 under a microVM: PVH boot, long mode, local APIC and IOAPIC, no firmware and no legacy devices.

pub mod boot;
pub mod console;
pub mod cpu;
pub mod fpu;
pub mod irq;
pub mod paging;
pub mod random;
pub mod time;
pub mod user;

pub use irq::{InterruptsOff, interrupts_off};

/// End the machine: the exit code of QEMU becomes `code * 2 + 1`.
pub fn exit(_code: u8) -> ! {
    todo!()
}
