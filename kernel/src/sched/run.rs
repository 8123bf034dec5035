//! Who runs: switching from one thread to the next, waking, and the timer's interrupt. Who comes next is the queue's ([`queue`]).
//!
//! # Who changes a thread's state
//!
//! ```text
//!   Running → Waiting          the thread itself, before it looks at its condition
//!   Waiting → Running          whoever wakes it before it has left, or the thread itself
//!   Waiting → Parked           its CPU, under the queue's lock, when it leaves
//!   Parked  → Ready            whoever wakes it then: exactly one succeeds, and puts it on a queue
//!   Ready   → Running          the CPU that takes it from its queue
//! ```
//!
//! Between `Parked` and the moment at which its registers are saved a thread is still `on_cpu`. Woken then, it goes to the queue of
//! the very CPU that is leaving it, and nobody else takes it from there: so no CPU ever waits for another to finish a switch.
//!
//! A thread cannot free its own stack: who runs next does it, first thing (`after_switch`).

use super::fair;
use super::queue::{self, Queue, with};
use super::{place, roll, split, thread::State, thread::Thread, timer};
use crate::arch::paging;
use crate::{arch, arch::context, mem};
use alloc::{collections::BinaryHeap, sync::Arc};
use core::sync::atomic::{Ordering::Relaxed, Ordering::Release};
use hafez_mm::lock::MutexGuard;

/// Make the boot context the idle thread of the first CPU.
pub(super) fn init() {
    let idle = Arc::new(Thread::boot());
    arch::cpu::current().store(Arc::as_ptr(&idle).cast_mut().cast(), Relaxed);
    queue::add_cpu(0, idle);
    arch::irq::set_timer_handler(on_timer);
    arch::panic::set_more(roll::tell);
}

/// Start the other CPUs, if there are to be any. Each begins with its idle thread.
pub(super) fn start_cpus() {
    let mut stack = |cpu: usize| {
        let (idle, top) = Thread::idle(cpu)?;
        let room = BinaryHeap::with_capacity(roll::count() + 1);
        queue::add_cpu(cpu, Arc::new(idle));
        with(cpu, |queue| queue.ready = room);
        Some(top)
    };
    arch::smp::start_others(&mut stack, begin_idle);
}

/// The first of `sched` on another CPU.
fn begin_idle() -> ! {
    let here = arch::cpu::id();
    mem::memory().add_cpu(here);
    with(here, |queue| {
        arch::cpu::current().store(Arc::as_ptr(&queue.idle).cast_mut().cast(), Relaxed);
        queue.since = arch::time::now_ns();
    });
    place::is_idle(here);
    idle()
}

/// Wake a waiting thread; whether it was waiting. Interrupt handlers may call it.
#[inline]
pub(super) fn wake(thread: Arc<Thread>) -> bool {
    loop {
        if thread.unpark() {
            place::enqueue(thread);
            return true;
        }
        if thread.stay() {
            return true;
        }
        if !matches!(thread.state(), State::Parked | State::Waiting) {
            return false;
        }
    }
}

/// Give up the CPU; returns when the thread runs again. If it is `Running` it stays on the queue; if `Waiting`, until
/// somebody wakes it (at once if somebody has already).
pub(super) fn switch() {
    let here = arch::cpu::id();
    let (from, to, ready) = {
        let mut guard: MutexGuard<'_, Option<Queue>> = queue::cpu(here).lock();
        let queue = guard.as_mut().expect("the CPU has its idle thread");
        let Some((from, to)) = queue.choose(here) else { return };
        // SAFETY: both are alive: `current` holds one; its own stack, the queue, `idle` or `before` the other.
        let (from, to) = unsafe { (&*from, &*to) };
        let space = to.space_at.load(Relaxed).cast_const();
        paging::set_lazy(space.is_null());
        (from, to, space.is_null() || space.cast() == paging::loaded() || queue.load_tagged(to, space))
    };
    if !ready {
        load_space_of(to);
    }
    // SAFETY: `from` is the running thread, `to` is current from now on and runs nowhere else.
    unsafe { context::switch(&from.context, &to.context) };
    after_switch();
}

/// First thing on the new thread: the one before has left this CPU.
#[inline]
pub(super) fn after_switch() {
    let before = super::current().before.load(Relaxed).cast_const();
    // SAFETY: `choose` stored it, and it lives at least until it is no longer `on_cpu`: see there.
    let thread = unsafe { &*before };
    if thread.state() >= State::Moving {
        return leave_behind(before);
    }
    thread.on_cpu.store(false, Release);
}

/// A thread that is dead, or must go on elsewhere.
#[cold]
fn leave_behind(thread: *const Thread) {
    // SAFETY: `choose` gave up its reference for this one.
    let thread = unsafe { Arc::from_raw(thread) };
    thread.on_cpu.store(false, Release);
    if thread.state() == State::Moving {
        thread.set_state(State::Ready);
        return place::enqueue(thread);
    }
    let stack = thread.stack.lock().take();
    if let Some(stack) = stack {
        #[cfg(feature = "watermark")]
        stack.look(thread.name());
        stack.give_back();
    }
    roll::leave();
}

#[cold]
fn load_space_of(thread: &Thread) {
    let here = arch::cpu::id();
    let evicted =
        thread.with_space(|space| with(here, |queue| space.and_then(|space| queue.load(thread, space))));
    if let Some(old) = evicted {
        mem::memory().deactivate(&old, here);
    }
}

/// The current thread has another space than before, or none: then nothing of the old one stays on this CPU.
pub(super) fn load_own_space() {
    let thread = super::current();
    let none = thread.space_at.load(Relaxed).is_null();
    paging::set_lazy(none);
    if !none {
        return load_space_of(&thread);
    }
    // The space stays tagged, as others may run in it. When it is destroyed, the memory core flushes it, and what the tag
    // keeps is not used again.
    if !paging::loaded().is_null() {
        paging::load_kernel_space();
    }
}

/// Load the current thread's space anew, keeping nothing of it.
pub(super) fn reload_space() {
    paging::leave_space();
    load_own_space();
}

/// The trap loop, on its way back to a program, after something asked for a look.
pub(super) fn preempt() {
    let here = arch::cpu::id();
    if !with(here, |queue| queue.goes_on(here)) {
        switch();
    }
}

/// The timer's interrupt: something is due, or the slice is over.
fn on_timer() {
    let here = arch::cpu::id();
    let now = arch::time::now_ns();
    let due = with(here, |queue| {
        queue.timer_set = u64::MAX;
        if now + split::EARLY >= queue.sample_at {
            queue.sample(now, arch::user::interrupted_on_entry());
        }
        queue.due_at <= now
    });
    // The timers are everybody's: looked at only where something of them is due here.
    let next = due.then(|| timer::expire(now));
    let crowded = with(here, |queue| {
        if let Some(next) = next {
            queue.due_at = next.unwrap_or(u64::MAX);
        }
        let mut at = queue.due_at;
        if !queue.is_idle() {
            at = at.min(queue.sample_at);
        }
        let crowded = !queue.ready.is_empty() && !queue.is_idle();
        if crowded {
            // The look that follows sets the timer for the rest of the slice.
            arch::cpu::need_resched().set(true);
            queue.arm(at.min(queue.turn_end.max(now + fair::WAKE)));
        } else if at != u64::MAX {
            queue.arm(at);
        }
        crowded
    });
    if crowded {
        place::even_out(here);
    }
}

/// A CPU without a thread: run what comes, take from those who have too much, or wait for an interrupt.
pub(super) fn idle() -> ! {
    let here = arch::cpu::id();
    loop {
        switch();
        let idle = || with(here, |queue| queue.ready.is_empty());
        if idle() && !place::find_work(here) {
            let work_has_come = || {
                arch::cpu::interrupt_window();
                !idle()
            };
            if !mem::memory().use_idle_time(&work_has_come) {
                arch::cpu::halt_with_interrupts();
            }
        }
    }
}

/// A timer was added: let the interrupt come for it.
pub(super) fn arm(at: u64) {
    with(arch::cpu::id(), |queue| {
        queue.due_at = queue.due_at.min(at);
        queue.arm(at);
    });
}
