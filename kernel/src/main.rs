//! The Hafez kernel: a microVM's kernel whose one subject is memory.
//!
//! Rooms, each importing only from those below it:
//!
//! ```text
//!   syscall    the Linux system calls: decode, call, encode
//!   process    processes, exec, fork, signals, futex
//!   fs         files: vfs, 9p client, tmpfs, synthetic files, pipes
//!   drivers    virtio: block, console, 9p, entropy
//!   sched      threads, wait queues, timers
//!   mem        the one Memory of the machine (crate hafez-mm) and the kernel's heap
//!   arch       the processor: the only room with assembly
//! ```
//!
//! This file may see them all: it starts them in order and hands the hooks of upper rooms to lower ones.
#![no_std]
#![no_main]
#![allow(dead_code, unused_imports)]
extern crate alloc;

mod arch;
mod clock;
mod drivers;
mod errno;
mod fs;
mod mem;
mod process;
mod random;
mod sched;
mod syscall;

/// The machine is up: on the boot stack, interrupts off.
#[unsafe(no_mangle)]
extern "C" fn kernel_main() -> ! {
    let info = arch::boot::info();
    early_println!(
        "hafez: {} KiB of RAM, {} devices, at {} ns",
        info.ram_frames * 4,
        info.virtio.len(),
        arch::time::now_ns()
    );
    early_println!("{:?} [{}] tsc {}", info.usable, info.command_line, arch::time::tsc_hz());
    early_println!("{:?}", info.virtio);
    selfcheck::run();
    arch::exit(0)
}

mod selfcheck;

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    arch::panic::message(info)
}
