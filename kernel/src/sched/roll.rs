//! All threads there are: counted, so that each queue has room for every one, and listed for the last words of a kernel that hangs.
//!
//! A thread that is woken must find its place without asking for memory; so room for it is made when it is, on every queue.

use super::queue::{self, Entry, with};
use super::{thread::Thread, timer};
use crate::arch;
use alloc::{collections::BinaryHeap, sync::Arc, sync::Weak, vec::Vec};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use hafez_mm::lock::Mutex;

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// All threads, for the last words of a kernel that hangs.
static ALL: Mutex<Vec<Weak<Thread>>> = Mutex::new(Vec::new());

/// Print where every thread is.
pub(super) fn tell() {
    let Some(all) = ALL.try_lock() else { return };
    for thread in all.iter().filter_map(Weak::upgrade) {
        crate::early_println!("thread {} \"{}\" {:?}", thread.id(), thread.name(), thread.state());
        if thread.is_off_cpu() {
            thread.context.trace();
        }
    }
}

/// Room for one more thread on every queue; it is counted.
pub(super) fn enter(thread: &Arc<Thread>) -> bool {
    let count = THREADS.fetch_add(1, Relaxed) + 1;
    let listed = {
        let mut all = ALL.lock();
        if all.len() == all.capacity() {
            all.retain(|thread| thread.strong_count() != 0);
        }
        all.try_reserve(1).map(|()| all.push(Arc::downgrade(thread))).is_ok()
    };
    let roomy = listed && (0..arch::cpu::count()).all(|cpu| make_room(cpu, count)) && timer::reserve(count);
    if !roomy {
        THREADS.fetch_sub(1, Relaxed);
    }
    roomy
}

/// Room for `count` threads on a CPU's queue. The memory is asked for without the lock.
fn make_room(cpu: usize, count: usize) -> bool {
    if with(cpu, |queue| queue.ready.capacity() >= count) {
        return true;
    }
    let mut larger: BinaryHeap<Entry> = BinaryHeap::new();
    if larger.try_reserve(count.next_power_of_two()).is_err() {
        return false;
    }
    let mut larger = larger.into_vec();
    let _old = with(cpu, |queue| {
        // What another CPU has made meanwhile may be larger still.
        if queue.ready.capacity() >= larger.capacity() {
            return Vec::new();
        }
        let mut old = core::mem::take(&mut queue.ready).into_vec();
        larger.append(&mut old);
        queue.ready = core::mem::take(&mut larger).into();
        old
    });
    true
}

/// Threads that run or want to, and threads in all.
pub(super) fn counts() -> (usize, usize) {
    let running = (0..arch::cpu::count()).map(|cpu| queue::cpu(cpu).load.load(Relaxed)).sum();
    (running, THREADS.load(Relaxed))
}

/// How many there are.
pub(super) fn count() -> usize {
    THREADS.load(Relaxed)
}

/// One has ended.
pub(super) fn leave() {
    THREADS.fetch_sub(1, Relaxed);
}
