//! Interrupts: handlers for the timer, for other CPUs' requests, and for the lines of the IOAPIC.
//!
//! The kernel runs with interrupts off. They come in while a program runs, and in the idle loop. Handlers run with
//! interrupts off, do not block, and wake whoever waits.

use super::{apic, percpu, shootdown, smp, trap};
use core::sync::atomic::{AtomicUsize, Ordering};

/// Lines of two IOAPICs.
pub const LINES: usize = 48;

/// Handlers that share a line.
const SHARED: usize = 4;

struct Handler {
    /// A `fn(usize)`, or 0.
    function: AtomicUsize,
    data: AtomicUsize,
}

static HANDLERS: [[Handler; SHARED]; LINES] =
    [const { [const { Handler { function: AtomicUsize::new(0), data: AtomicUsize::new(0) } }; SHARED] };
        LINES];
static TIMER: AtomicUsize = AtomicUsize::new(0);

/// Call `handler(data)` at each interrupt on line `gsi` (level-triggered: the handler makes the device lower it). Up to
/// four handlers may share a line; each is called. They must not block. `false`: no such line, or it is full.
pub fn register(gsi: u8, handler: fn(usize), data: usize) -> bool {
    let Some(line) = HANDLERS.get(gsi as usize) else { return false };
    let Some(free) = line.iter().find(|entry| entry.function.load(Ordering::Acquire) == 0) else {
        return false;
    };
    free.data.store(data, Ordering::Relaxed);
    free.function.store(handler as usize, Ordering::Release);
    apic::route(gsi, trap::FIRST_LINE + gsi);
    true
}

/// For `sched`: what the timer's interrupt calls.
pub fn set_timer_handler(handler: fn()) {
    TIMER.store(handler as usize, Ordering::Release);
}

/// An interrupt came.
pub(super) fn dispatch(vector: u8) {
    if vector == trap::SPURIOUS {
        return;
    }
    if vector == trap::TIMER {
        percpu::this().deadline.set(u64::MAX);
        let handler = TIMER.load(Ordering::Acquire);
        if handler != 0 {
            // SAFETY: stored by `set_timer_handler` alone.
            let handler: fn() = unsafe { core::mem::transmute(handler) };
            handler();
        }
    } else if vector == trap::RESCHEDULE {
        percpu::this().need_resched.set(true);
    } else if vector == trap::REQUEST {
        shootdown::serve();
        apic::end_of_interrupt();
        return smp::be_held();
    } else if let Some(line) = vector.checked_sub(trap::FIRST_LINE).and_then(|n| HANDLERS.get(n as usize)) {
        for entry in line {
            let function = entry.function.load(Ordering::Acquire);
            if function == 0 {
                break;
            }
            // SAFETY: stored by `register` alone.
            let handler: fn(usize) = unsafe { core::mem::transmute(function) };
            handler(entry.data.load(Ordering::Relaxed));
        }
    }
    apic::end_of_interrupt();
}
