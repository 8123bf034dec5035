//! Which CPU a thread runs on: where it wakes, and how work spreads.
//!
//! A thread that wakes goes back to the CPU it ran on if that idles, else to any that idles, else back all the same. A CPU that runs out of
//! work takes some from the one that has most before it halts; one with two threads more than another gives one away when its slice ends.
//!
//! No work is left lying while a CPU idles: who puts a thread on a busy CPU's queue looks at the set of idle CPUs after that,
//! and wakes one of them; who idles enters itself into the set first, and then looks at the queues. (A thread whose registers are
//! just being saved cannot be taken; it is spread with the next slice.)
#![forbid(unsafe_code)]

use super::queue::{cpu, with};
use super::{fair, thread::State, thread::Thread};
use crate::arch::{self, smp};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering::*, fence};
use hafez_mm::lock::{Attentive, RelaxStrategy};

/// A bit for each CPU that has nothing to queue.
static IDLE: AtomicU64 = AtomicU64::new(0);

/// The CPU has nothing to queue.
#[inline]
pub(super) fn is_idle(here: usize) {
    if arch::cpu::count() > 1 {
        IDLE.fetch_or(1 << here, SeqCst);
    }
}
/// The CPU has something to queue.
#[inline]
pub(super) fn is_busy(here: usize) {
    if arch::cpu::count() > 1 {
        IDLE.fetch_and(!(1 << here), SeqCst);
    }
}

/// All CPUs.
pub(super) fn online() -> u64 {
    u64::MAX >> (64 - arch::cpu::count())
}

/// Put a thread, `Ready` and on no queue, where it shall queue.
pub(super) fn enqueue(thread: Arc<Thread>) {
    if arch::cpu::count() == 1 {
        let earliest = cpu(0).clock.load(Relaxed) - fair::CREDIT;
        if thread.virtual_time.load(Relaxed) < earliest {
            let band = thread.band.load(Relaxed);
            thread.virtual_time.store(if band != 0 { band } else { earliest }, Relaxed);
        }
        if with(0, |queue| queue.add(cpu(0), true, thread)) {
            arch::cpu::need_resched().set(true);
        }
        return;
    }
    let target = choose(&thread);
    put(thread, target);
}

/// Put it on this CPU's queue.
fn put(thread: Arc<Thread>, target: usize) {
    let allowed = thread.affinity.load(Relaxed);
    wake_up(&thread, target);
    let here = target == arch::cpu::id();
    let (look, was_idle) = with(target, |queue| {
        let was_idle = queue.is_idle();
        (queue.add(cpu(target), here, thread), was_idle)
    });
    if look && here {
        arch::cpu::need_resched().set(true);
    } else if look {
        smp::reschedule(target);
    }
    if !was_idle {
        fence(SeqCst);
        let idle = IDLE.load(SeqCst) & allowed & !(1 << target);
        if idle != 0 {
            smp::reschedule(idle.trailing_zeros() as usize);
        }
    }
}

/// The thread's virtual time as one that joins `target`'s queue has it.
#[inline]
fn wake_up(thread: &Thread, target: usize) {
    let from = thread.cpu.swap(target, Relaxed);
    if from != target {
        super::queue::tell_moved(thread);
    }
    let band = thread.band.load(Relaxed);
    if band != 0 {
        return thread.virtual_time.store(band, Relaxed);
    }
    let mut had = thread.virtual_time.load(Relaxed);
    let clock = cpu(target).clock.load(Relaxed);
    if from != target {
        let distance = had.wrapping_sub(cpu(from).clock.load(Relaxed)) as i64;
        had = clock.saturating_add_signed(distance);
    }
    thread.virtual_time.store(had.max(clock - fair::CREDIT), Relaxed);
}

#[cold]
fn choose(thread: &Thread) -> usize {
    let allowed = thread.affinity.load(Relaxed) & online();
    let last = thread.cpu.load(Relaxed);
    let may_last = allowed >> last & 1 != 0;
    // Still leaving its CPU: its place is there (see `run`). If it must not run there any more, it will have left in a moment.
    while thread.on_cpu.load(Acquire) {
        if may_last {
            return last;
        }
        Attentive::relax();
    }
    let idle = IDLE.load(SeqCst) & allowed;
    if idle >> last & 1 != 0 || idle == 0 && may_last {
        return last;
    }
    let set = if idle != 0 { idle } else { allowed };
    set.trailing_zeros() as usize
}

/// For a CPU that has nothing to run: take a thread from the one that has most. Whether there was one.
pub(super) fn find_work(here: usize) -> bool {
    let count = arch::cpu::count();
    if count == 1 {
        return false;
    }
    let mut tried = 1u64 << here;
    loop {
        let load = |other: &usize| cpu(*other).load.load(SeqCst);
        let others = (0..count).filter(|other| tried >> other & 1 == 0);
        let Some(busiest) = others.max_by_key(load).filter(|other| load(other) > 1) else { return false };
        tried |= 1 << busiest;
        if let Some(thread) = with(busiest, |queue| queue.give(cpu(busiest), here)) {
            put(thread, here);
            return true;
        }
    }
}

/// At the end of a slice with others waiting: give one away where another CPU has two less.
pub(super) fn even_out(here: usize) {
    let load = |other: &usize| cpu(*other).load.load(Relaxed);
    let Some(least) = (0..arch::cpu::count()).filter(|&other| other != here).min_by_key(load) else { return };
    if load(&here) < load(&least) + 2 {
        return;
    }
    if let Some(thread) = with(here, |queue| queue.give(cpu(here), least)) {
        put(thread, least);
    }
}

/// Let the thread run on these CPUs only from now on, of which one at least is there. Returns when the calling thread, if it is the
/// one, runs on one of them.
pub(super) fn set_affinity(thread: &Arc<Thread>, allowed: u64) {
    thread.affinity.store(allowed, SeqCst);
    if core::ptr::eq(Arc::as_ptr(thread), &*super::current()) {
        if !thread.may_run_on(arch::cpu::id()) {
            thread.set_state(State::Moving);
            super::run::switch();
        }
        return;
    }
    // It may change its queue while we look for it; whoever moves it looks at the new set.
    while matches!(thread.state(), State::Ready | State::Running) {
        let at = thread.cpu.load(SeqCst);
        if thread.may_run_on(at) {
            return;
        }
        if let Some(thread) = with(at, |queue| queue.take(cpu(at), Arc::as_ptr(thread))) {
            return enqueue(thread);
        }
        if thread.state() == State::Running {
            return smp::reschedule(at);
        }
        Attentive::relax();
    }
}

/// Take it off the queue that it waits on, if it does, and put it on one again.
pub(super) fn reorder(thread: &Arc<Thread>) {
    if thread.state() == State::Ready {
        let at = thread.cpu.load(SeqCst);
        if let Some(thread) = with(at, |queue| queue.take(cpu(at), Arc::as_ptr(thread))) {
            enqueue(thread);
        }
    }
}
