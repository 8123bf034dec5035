//! x86-64 under a microVM: PVH boot, long mode, local APIC and IOAPIC, no firmware and no legacy devices.

/// `PATCH kind`, for assembly: a place for `stac` (0) or `clac` (1), filled in at boot where the CPU has SMAP.
macro_rules! patch {
    () => {
        r#"
    .macro PATCH kind
    990:
    .byte 0x0F, 0x1F, 0x00
    .pushsection .patches, "a"
    .quad 990b, \kind
    .popsection
    .endm
    "#
    };
}

mod apic;
pub mod boot;
pub mod console;
pub mod context;
pub mod cpu;
pub mod debug;
mod descriptors;
mod entry;
pub mod fpu;
pub mod irq;
pub mod paging;
pub mod panic;
mod percpu;
pub mod random;
mod regs;
pub mod segments;
mod shootdown;
pub mod smp;
pub mod time;
mod trap;
pub mod user;
mod user_context;
mod user_copy;
pub mod vdso;
#[cfg(feature = "watermark")]
pub mod watermark;

/// Bytes of a kernel stack, its guard page not counted.
pub const STACK_BYTES: usize = 16 << 10;

/// Exit code of `exit` after a panic and the like: the command's "Hafez failed".
pub const EXIT_FAILED: u8 = 125;

/// QEMU's isa-debug-exit, as the command line places it.
const EXIT_PORT: u16 = 0x501;

/// End the machine: the exit code of QEMU becomes `code * 2 + 1`. Where the machine has no such device, stop for ever.
pub fn exit(code: u8) -> ! {
    // SAFETY: ends the machine, or does nothing.
    unsafe { regs::out32(EXIT_PORT, code as u32) };
    loop {
        // SAFETY: stops the CPU.
        unsafe { core::arch::asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
