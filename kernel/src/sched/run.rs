//! Who runs: the run queue of a CPU, switching, and time slices.
//!
//! Round robin: a thread runs until it waits, or until its slice is over and another is ready. The timer is set only
//! while there is something to take turns with, or a timer pending: an idle machine, and one with a single busy
//! program, take no clock interrupts.
//!
//! The one lock here guards the queue and every change of a thread's state; it is innermost (nothing is locked or freed
//! under it). Between `Waiting` and the actual switch a wake-up may come: then the thread is still current, is made
//! `Running` again and does not switch at all.
//!
//! A thread cannot free its own stack: who runs next does it, first thing (`after_switch`).

use super::{thread::State, thread::Thread, timer};
use crate::arch::paging::{self, MAX_TAGS};
use crate::{arch, arch::context, mem};
use alloc::{collections::VecDeque, sync::Arc, sync::Weak, vec::Vec};
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use hafez_mm::Space;
use hafez_mm::lock::Mutex;

/// A slice, in nanoseconds: short enough for a human, and long against the switch.
const SLICE_NS: u64 = 5_000_000;

pub(super) struct Run {
    current: Arc<Thread>,
    idle: Arc<Thread>,
    ready: VecDeque<Arc<Thread>>,
    /// Who ran before; let go by who runs now.
    previous: Option<Arc<Thread>>,
    /// The spaces whose translations this CPU may hold, by tag. Each is `activate`d in the memory core.
    tagged: ArrayVec<Arc<Space>, MAX_TAGS>,
    /// The tag to take next where none is free.
    next_tag: usize,
    /// The one that is loaded; null for the kernel's own root. A thread without a space leaves it as it is.
    loaded: *const Space,
    /// When the current thread took over.
    since: u64,
    /// For what time the timer's interrupt is set; `u64::MAX` for none.
    timer_set: u64,
}

// SAFETY: the pointer in it only names; nothing is reached through it.
unsafe impl Send for Run {}

static RUN: Mutex<Option<Run>> = Mutex::new(None);
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Make the boot context the idle thread.
pub(super) fn init() {
    let idle = Arc::new(Thread::boot());
    arch::cpu::current().store(Arc::as_ptr(&idle).cast_mut().cast(), Relaxed);
    *RUN.lock() = Some(Run {
        current: idle.clone(),
        idle,
        ready: VecDeque::new(),
        previous: None,
        tagged: ArrayVec::new(),
        next_tag: 0,
        loaded: core::ptr::null(),
        since: arch::time::now_ns(),
        timer_set: u64::MAX,
    });
    arch::irq::set_timer_handler(on_timer);
    arch::panic::set_more(tell_threads);
}

#[inline(always)]
fn with<R>(f: impl FnOnce(&mut Run) -> R) -> R {
    f(RUN.lock().as_mut().expect("sched::init comes first"))
}

impl Run {
    /// Let the timer interrupt at `at`, if it would not come earlier anyhow.
    fn arm(&mut self, at: u64) {
        if at < self.timer_set {
            self.timer_set = at;
            arch::time::set_deadline(Some(at));
        }
    }

    fn is_idle(&self) -> bool {
        Arc::ptr_eq(&self.current, &self.idle)
    }

    /// Wake a waiting thread; whether it was waiting.
    fn wake(&mut self, thread: &Arc<Thread>) -> bool {
        if thread.state() != State::Waiting {
            return false;
        }
        if Arc::ptr_eq(thread, &self.current) {
            thread.set_state(State::Running);
            return true;
        }
        thread.set_state(State::Ready);
        // Room was reserved when the thread was made.
        self.ready.push_back(thread.clone());
        if self.is_idle() {
            arch::cpu::need_resched().set(true);
        } else if self.ready.len() == 1 {
            let end = self.since + SLICE_NS;
            self.arm(end.max(arch::time::now_ns()));
        }
        true
    }

    /// Take the next thread, if it is another than the current: from whom, to whom.
    #[inline(always)]
    fn choose(&mut self) -> Option<(*const Thread, *const Thread)> {
        let next = match self.ready.pop_front() {
            Some(next) => next,
            None if self.current.state() == State::Running => return None,
            None => self.idle.clone(),
        };
        arch::cpu::need_resched().set(false);
        next.set_state(State::Running);
        let now = arch::time::now_ns();
        self.current.cpu_ns.fetch_add(now - self.since, Relaxed);
        self.since = now;
        let to = Arc::as_ptr(&next);
        arch::cpu::current().store(to.cast_mut().cast(), Relaxed);
        let from = core::mem::replace(&mut self.current, next);
        let from_at = Arc::as_ptr(&from);
        // A waiting thread is kept by the queue that it waits on; a dead one by `previous`, for its stack; the idle thread
        // by `idle`. Only until the switch is done must `previous` keep the others too.
        if from.state() == State::Running && !Arc::ptr_eq(&from, &self.idle) {
            from.set_state(State::Ready);
            self.ready.push_back(from);
        } else {
            self.previous = Some(from);
        }
        if !self.ready.is_empty() && !self.is_idle() {
            self.arm(now + SLICE_NS);
        }
        Some((from_at, to))
    }

    /// Load a space that is tagged; whether it was.
    #[inline]
    fn load_tagged(&mut self, at: *const Space) -> bool {
        let Some(tag) = self.tagged.iter().position(|tagged| Arc::as_ptr(tagged) == at) else { return false };
        let space = &self.tagged[tag];
        self.loaded = at;
        paging::load_space(space.root(), space.id(), tag);
        true
    }

    /// Load a space that is not tagged yet, and say whose tag it took.
    #[cold]
    fn load(&mut self, space: &Arc<Space>) -> Option<Arc<Space>> {
        if self.load_tagged(Arc::as_ptr(space)) {
            return None;
        }
        mem::memory().activate(space, arch::cpu::id());
        let mut evicted = None;
        if self.tagged.is_full() {
            let tag = self.next_tag;
            self.next_tag = (tag + 1) % MAX_TAGS;
            evicted = Some(core::mem::replace(&mut self.tagged[tag], space.clone()));
        } else {
            self.tagged.push(space.clone());
        }
        self.load_tagged(Arc::as_ptr(space));
        evicted
    }
}

/// What tells spaces apart: a tagged one is kept alive, so its address is nobody else's.
pub(super) fn address(space: Option<&Arc<Space>>) -> *const Space {
    space.map_or(core::ptr::null(), Arc::as_ptr)
}

/// All threads, for the last words of a kernel that hangs.
static ALL: Mutex<Vec<Weak<Thread>>> = Mutex::new(Vec::new());

/// Print where every thread is.
fn tell_threads() {
    let Some(all) = ALL.try_lock() else { return };
    for thread in all.iter().filter_map(Weak::upgrade) {
        crate::early_println!("thread {} \"{}\" {:?}", thread.id(), thread.name(), thread.state());
        if thread.state() == State::Waiting || thread.state() == State::Ready {
            thread.context.trace();
        }
    }
}

/// Room for one more thread on the queue; it is counted.
pub(super) fn add_thread(thread: &Arc<Thread>) -> bool {
    {
        let mut all = ALL.lock();
        all.retain(|thread| thread.strong_count() != 0);
        if all.try_reserve(1).is_err() {
            return false;
        }
        all.push(Arc::downgrade(thread));
    }
    let count = THREADS.load(Relaxed) + 1;
    let roomy = with(|run| {
        let missing = count.saturating_sub(run.ready.len());
        run.ready.try_reserve(missing).is_ok()
    });
    if roomy && timer::reserve(count) {
        THREADS.store(count, Relaxed);
        return true;
    }
    false
}

/// Wake a waiting thread; whether it was waiting. Interrupt handlers may call it.
pub(super) fn wake(thread: &Arc<Thread>) -> bool {
    with(|run| run.wake(thread))
}

/// Give up the CPU; returns when the thread runs again. If it is `Running` it stays on the queue; if `Waiting`, until
/// somebody wakes it (at once if somebody has already).
pub(super) fn switch() {
    let (from, to, ready) = {
        let mut guard = RUN.lock();
        let run = guard.as_mut().expect("sched::init comes first");
        let Some((from, to)) = run.choose() else { return };
        // SAFETY: both are alive: `current` holds one; `previous` or the queue the other.
        let (from, to) = unsafe { (&*from, &*to) };
        let space = to.space_at.load(Relaxed).cast_const();
        (from, to, space.is_null() || space == run.loaded || run.load_tagged(space))
    };
    if !ready {
        load_space_of(to);
    }
    // SAFETY: `from` is the running thread, `to` is current from now on and runs nowhere else.
    unsafe { context::switch(&from.context, &to.context) };
    after_switch();
}

/// First thing on the new thread: let go of the one before.
#[inline]
pub(super) fn after_switch() {
    let previous = with(|run| run.previous.take());
    if let Some(thread) = previous
        && thread.state() == State::Dead
    {
        bury(&thread);
    }
}

#[cold]
fn bury(thread: &Thread) {
    let stack = thread.stack.lock().take();
    if let Some(stack) = stack {
        stack.give_back();
    }
    THREADS.fetch_sub(1, Relaxed);
}

#[cold]
fn load_space_of(thread: &Thread) {
    let evicted = thread.with_space(|space| with(|run| space.and_then(|space| run.load(space))));
    if let Some(old) = evicted {
        mem::memory().deactivate(&old, arch::cpu::id());
    }
}

/// The current thread has another space than before, or none: then nothing of the old one stays on this CPU.
pub(super) fn load_own_space() {
    let thread = super::current();
    if !thread.space_at.load(Relaxed).is_null() {
        return load_space_of(&thread);
    }
    // The space stays tagged, as others may run in it. When it is destroyed, the memory core flushes it, and what the tag
    // keeps is not used again.
    with(|run| {
        if !core::mem::replace(&mut run.loaded, core::ptr::null()).is_null() {
            paging::load_kernel_space();
        }
    });
}

/// The timer's interrupt: something is due, or the slice is over.
fn on_timer() {
    let now = arch::time::now_ns();
    with(|run| run.timer_set = u64::MAX);
    let next = timer::expire(now);
    with(|run| {
        let mut at = next.unwrap_or(u64::MAX);
        if !run.ready.is_empty() {
            let end = run.since + SLICE_NS;
            if end <= now {
                arch::cpu::need_resched().set(true);
            } else {
                at = at.min(end);
            }
        }
        if at != u64::MAX {
            run.arm(at);
        }
    });
}

/// A timer was added: let the interrupt come for it.
pub(super) fn arm(at: u64) {
    with(|run| run.arm(at));
}

/// How long the thread has run since it last took over; 0 if it does not run.
pub(super) fn time_since_switch(thread: &Thread) -> u64 {
    with(
        |run| {
            if core::ptr::eq(Arc::as_ptr(&run.current), thread) {
                arch::time::now_ns() - run.since
            } else {
                0
            }
        },
    )
}

/// The boot context ends here: run others, or wait for an interrupt.
pub(super) fn idle() -> ! {
    loop {
        switch();
        if with(|run| run.ready.is_empty()) {
            arch::cpu::halt_with_interrupts();
        }
    }
}

/// Nanoseconds with nothing to run.
pub(super) fn idle_time() -> u64 {
    let idle = with(|run| run.idle.clone());
    idle.cpu_time()
}

/// Threads that run or want to, and threads in all.
pub(super) fn counts() -> (usize, usize) {
    let running = with(|run| run.ready.len() + !run.is_idle() as usize);
    (running, THREADS.load(Relaxed))
}
