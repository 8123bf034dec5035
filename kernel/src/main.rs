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

/// The machine is up: on the boot stack, interrupts off. Threads begin here, and the boot context becomes the idle one.
#[unsafe(no_mangle)]
extern "C" fn kernel_main() -> ! {
    sched::init();
    mem::set_hooks(mem::Hooks { wait: sched::wait_key, wake: sched::wake_key, kill: |_, _| {} });
    match sched::spawn("init", alloc::boxed::Box::new(init), None) {
        Ok(_) => sched::idle(),
        Err(_) => panic!("no memory for the first thread"),
    }
}

/// The first thread: what may sleep while it comes up.
fn init() {
    let info = arch::boot::info();
    early_println!(
        "hafez: {} KiB of RAM, {} devices, {} ns since reset",
        info.ram_frames * 4,
        info.virtio.len(),
        arch::time::now_ns()
    );
    arch::exit(0)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    arch::panic::message(info)
}
