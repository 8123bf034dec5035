//! The Hafez kernel: a microVM's kernel whose one subject is memory.
//!
//! Rooms, each importing only from those below it:
//!
//! ```text
//!   syscall    the Linux system calls: decode, call, encode
//!   process    processes, exec, fork, signals, futex
//!   net        sockets: Unix, TCP, UDP
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

extern crate alloc;

use alloc::boxed::Box;
use hafez_mm::{PolicyKind, SwapDevice};

mod arch;
mod clock;
mod drivers;
mod errno;
mod fs;
mod kmsg;
mod logger;
mod mem;
mod net;
mod process;
mod random;
mod sched;
mod syscall;

/// The machine is up: on the boot stack, interrupts off. Threads begin here, and the boot context becomes the idle one.
#[unsafe(no_mangle)]
extern "C" fn kernel_main() -> ! {
    let info = arch::boot::info();
    logger::init(info.option("hafez.log"));
    mem::init(match info.option("hafez.policy") {
        Some("clock") => PolicyKind::Clock,
        _ => PolicyKind::Generations,
    });
    sched::init();
    mem::take_boot_stack();
    mem::set_hooks(mem::Hooks {
        wait: sched::wait_key,
        wake: sched::wake_key,
        account: process::oom::asking,
        kill: process::oom::kill,
        for_program: process::is_for_program,
        holdings: process::oom::holdings,
    });
    sched::set_moved(process::rseq::moved);
    process::calls::serve_with(syscall::service());
    for (name, body) in [("init", init as fn()), ("kreclaim", reclaim)] {
        if sched::spawn(name, Box::new(body), None).is_err() {
            panic!("no memory for the first threads");
        }
    }
    sched::idle()
}

/// The first thread: what may sleep while it comes up.
fn init() {
    let info = arch::boot::info();
    let (system, release) = (process::host::SYSTEM, process::host::RELEASE);
    kmsg::say(
        kmsg::REMARK,
        format_args!("{system} version {release} (hafez), {} KiB of RAM", info.ram_frames * 4),
    );
    log::info!("{} KiB of RAM, up {} us after reset", info.ram_frames * 4, arch::time::now_ns() / 1000);
    sched::start_cpus();
    devices(info);
    process::start::start()
}

/// A function of its own, so that what it needs of the stack is free again for the rest.
#[inline(never)]
fn devices(info: &arch::boot::BootInfo) {
    drivers::init(info);
    if let Some(disk) = drivers::disk(hafez_link::SWAP_SERIAL) {
        let swap = drivers::block::SwapDisk(disk);
        if swap.blocks() > 0 {
            mem::memory().attach_swap(Box::leak(Box::new(swap)));
        }
    }
    drivers::await_entropy();
}

fn reclaim() {
    mem::memory().kreclaim()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    arch::panic::message(info)
}
