//! Who runs: the run queue of each CPU, switching, and time slices.
//!
//! A CPU takes the thread of its queue that has had the least ([`fair`]), and lets it run until it waits, or until its slice
//! is over and another has had less. The timer is set only while there is something to take turns with, a timer pending, or time to
//! be told apart ([`split`]): an idle CPU takes no clock interrupts, one with a single busy program a hundred a second.
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
//! # Locks
//!
//! One for each CPU's queue. It is innermost: nothing is locked, allocated or freed under it. No two are held at once. Another CPU
//! may add to a queue or take from it; only its own switches.
//!
//! A thread cannot free its own stack: who runs next does it, first thing (`after_switch`).

use super::fair::{self, virtual_time};
use super::{place, split, thread::State, thread::Thread, timer};
use crate::arch::cpu::MAX_CPUS;
use crate::arch::paging::{self, MAX_TAGS};
use crate::{arch, arch::context, mem};
use alloc::{collections::BinaryHeap, sync::Arc, sync::Weak, vec::Vec};
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::Release};
use hafez_mm::Space;
use hafez_mm::lock::{Mutex, MutexGuard, Once};

/// A CPU's threads.
#[repr(align(64))]
pub(super) struct Cpu {
    run: Mutex<Option<Run>>,
    /// Threads on the queue, and one more while one runs; to be read without the lock.
    pub load: AtomicUsize,
    /// The virtual clock, as the lock's holder left it.
    pub clock: AtomicU64,
}

/// A thread on a queue: the one that has had the least is the greatest.
pub(super) struct Entry {
    virtual_time: u64,
    pub thread: Arc<Thread>,
}
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.virtual_time == other.virtual_time
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        other.virtual_time.cmp(&self.virtual_time)
    }
}

pub(super) struct Run {
    current: Arc<Thread>,
    idle: Arc<Thread>,
    ready: BinaryHeap<Entry>,
    /// The spaces whose translations this CPU may hold, by tag. Each is `activate`d in the memory core.
    tagged: ArrayVec<Arc<Space>, MAX_TAGS>,
    /// The tag to take next where none is free.
    next_tag: usize,
    /// Slices that real-time threads had while others waited.
    patience: u32,
    /// When the current thread took over.
    since: u64,
    /// When its slice is over, if another waits.
    turn_end: u64,
    /// For what time the timer's interrupt is set; `u64::MAX` for none.
    timer_set: u64,
    /// When to look next what the CPU does, and what was found so far.
    sample_at: u64,
    split: split::Split,
}

static CPUS: [Cpu; MAX_CPUS] =
    [const { Cpu { run: Mutex::new(None), load: AtomicUsize::new(0), clock: AtomicU64::new(fair::BEGIN) } };
        MAX_CPUS];

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Give a CPU its idle thread, which is taken to run there.
fn add_cpu(cpu: usize, idle: Arc<Thread>) {
    *CPUS[cpu].run.lock() = Some(Run {
        current: idle.clone(),
        idle,
        ready: BinaryHeap::new(),
        tagged: ArrayVec::new(),
        next_tag: 0,
        patience: 0,
        since: arch::time::now_ns(),
        turn_end: 0,
        timer_set: u64::MAX,
        sample_at: 0,
        split: split::Split::new(),
    });
}

/// Make the boot context the idle thread of the first CPU.
pub(super) fn init() {
    let idle = Arc::new(Thread::boot());
    arch::cpu::current().store(Arc::as_ptr(&idle).cast_mut().cast(), Relaxed);
    add_cpu(0, idle);
    arch::irq::set_timer_handler(on_timer);
    arch::panic::set_more(tell_threads);
}

/// Start the other CPUs, if there are to be any. Each begins with its idle thread.
pub(super) fn start_cpus() {
    let mut stack = |cpu: usize| {
        let (idle, top) = Thread::idle(cpu)?;
        let room = BinaryHeap::with_capacity(THREADS.load(Relaxed) + 1);
        add_cpu(cpu, Arc::new(idle));
        with(cpu, |run| run.ready = room);
        Some(top)
    };
    arch::smp::start_others(&mut stack, begin_idle);
}

/// The first of `sched` on another CPU.
fn begin_idle() -> ! {
    let here = arch::cpu::id();
    with(here, |run| {
        arch::cpu::current().store(Arc::as_ptr(&run.idle).cast_mut().cast(), Relaxed);
        run.since = arch::time::now_ns();
    });
    place::is_idle(here);
    idle()
}

/// What may be known of a CPU without its lock.
pub(super) fn cpu(cpu: usize) -> &'static Cpu {
    &CPUS[cpu]
}

#[inline(always)]
pub(super) fn with<R>(cpu: usize, f: impl FnOnce(&mut Run) -> R) -> R {
    f(CPUS[cpu].run.lock().as_mut().expect("the CPU has its idle thread"))
}

impl Run {
    /// Let the timer interrupt at `at`, if it would not come earlier anyhow. On the CPU itself only.
    fn arm(&mut self, at: u64) {
        if at < self.timer_set {
            self.timer_set = at;
            arch::time::set_deadline(Some(at));
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        Arc::ptr_eq(&self.current, &self.idle)
    }

    fn note_load(&self, cpu: &Cpu) {
        cpu.load.store(self.ready.len() + !self.is_idle() as usize, Relaxed);
    }

    /// Put a thread on the queue of `cpu`. Whether the CPU should look at its queue soon, for want of something to do or
    /// because this one comes first.
    #[inline]
    pub(super) fn add(&mut self, cpu: &Cpu, here: bool, thread: Arc<Thread>) -> bool {
        let virtual_time = thread.virtual_time.load(Relaxed);
        // Room was reserved when the thread was made.
        self.ready.push(Entry { virtual_time, thread });
        self.note_load(cpu);
        if self.is_idle() {
            return true;
        }
        // What the current thread has had since it took over is not looked at: that is a slice at most.
        let first = self.current.virtual_time.load(Relaxed) > virtual_time + fair::WAKE;
        if !here {
            // A single thread that runs has set no timer for its slice.
            return first || self.ready.len() == 1;
        }
        self.arm(if first { self.turn_end.min(arch::time::now_ns() + fair::WAKE) } else { self.turn_end });
        first
    }

    /// Note what the CPU does, if a thread has it.
    #[cold]
    fn sample(&mut self, now: u64, in_kernel: bool) {
        // A stretch in the kernel, where no interrupt comes in, may be longer than the time between two samples: then it counts for
        // as many as were due in it.
        let late = now.saturating_sub(self.sample_at).min(now.saturating_sub(self.since));
        let samples = (1 + late / split::EVERY) as u32;
        self.sample_at = now + split::EVERY;
        if !self.is_idle() {
            self.split.sample(in_kernel, samples);
            self.current.split.sample(in_kernel, samples);
        }
    }

    /// The current thread's virtual time.
    #[inline]
    fn virtual_now(&self, now: u64) -> u64 {
        let rate = self.current.rate.load(Relaxed);
        self.current.virtual_time.load(Relaxed) + virtual_time(now.saturating_sub(self.since), rate)
    }

    /// Take the next thread, if it is another than the current: from whom, to whom.
    #[inline(always)]
    fn choose(&mut self, here: usize) -> Option<(*const Thread, *const Thread)> {
        let stays = match self.current.state() {
            State::Running if self.ready.is_empty() => return None,
            State::Running => !self.is_idle(),
            State::Waiting if !self.current.park() => return None,
            _ => false,
        };
        arch::cpu::need_resched().set(false);
        let cpu = &CPUS[here];
        let now = arch::time::now_ns();
        if now >= self.sample_at {
            self.sample(now, true);
        }
        let ran = now.saturating_sub(self.since);
        self.since = now;
        self.turn_end = now + fair::SLICE;
        self.current.cpu_ns.store(self.current.cpu_ns.load(Relaxed) + ran, Relaxed);
        self.current.count_switch(stays);
        let had = self.current.virtual_time.load(Relaxed);
        let had = had + virtual_time(ran, self.current.rate.load(Relaxed));
        self.current.virtual_time.store(had, Relaxed);
        let next = match self.ready.pop() {
            Some(entry) => {
                if entry.virtual_time > cpu.clock.load(Relaxed) {
                    cpu.clock.store(entry.virtual_time, Relaxed);
                }
                if self.is_idle() {
                    place::is_busy(here);
                    self.arm(self.sample_at);
                }
                entry.thread
            }
            None => {
                place::is_idle(here);
                self.idle.clone()
            }
        };
        next.set_state(State::Running);
        next.on_cpu.store(true, Relaxed);
        if next.cpu.load(Relaxed) != here {
            next.cpu.store(here, Relaxed);
            tell_moved(&next);
        }
        let to = Arc::as_ptr(&next);
        arch::cpu::current().store(to.cast_mut().cast(), Relaxed);
        let from = core::mem::replace(&mut self.current, next);
        let from_at = Arc::as_ptr(&from);
        self.current.before.store(from_at.cast_mut(), Relaxed);
        if stays {
            from.set_state(State::Ready);
            self.ready.push(Entry { virtual_time: had, thread: from });
        } else if from.state() >= State::Moving {
            // Nobody else may hold it: `after_switch` takes this reference over.
            core::mem::forget(from);
        }
        // A thread that waits holds itself, by its own stack; the idle thread is held by `idle`.
        if !self.ready.is_empty() {
            self.arm(self.turn_end);
        }
        self.note_load(cpu);
        Some((from_at, to))
    }

    /// Whether the current thread goes on, though it was asked to look: it does while no other comes first.
    fn goes_on(&mut self, here: usize) -> bool {
        arch::cpu::need_resched().set(false);
        if !self.current.may_run_on(here) && !self.is_idle() {
            self.current.set_state(State::Moving);
            return false;
        }
        let Some(first) = self.ready.peek() else { return true };
        if self.is_idle() {
            return false;
        }
        let now = arch::time::now_ns();
        let over = now >= self.turn_end;
        let first_time = first.virtual_time;
        if over && self.current.band.load(Relaxed) != 0 && self.stands_back(first_time) {
            return false;
        }
        let had = self.virtual_now(now);
        if had > first_time + if over { 0 } else { fair::WAKE } {
            return false;
        }
        if over {
            self.turn_end = now + fair::SLICE;
        }
        self.arm(self.turn_end);
        true
    }

    /// Whether the current thread, a real-time one, has had so much that one of the others comes first for once.
    #[cold]
    fn stands_back(&mut self, first: u64) -> bool {
        if first < fair::REAL_TIME {
            return false;
        }
        self.patience += 1;
        let back = self.patience >= fair::PATIENCE;
        let time = if back { first + 1 } else { self.current.band.load(Relaxed) };
        if back || self.current.virtual_time.load(Relaxed) >= fair::REAL_TIME {
            self.current.virtual_time.store(time, Relaxed);
        }
        if back {
            self.patience = 0;
        }
        back
    }

    /// Take a thread that may run on `to` off the queue, the last to come first: it would wait longest.
    pub(super) fn give(&mut self, cpu: &Cpu, to: usize) -> Option<Arc<Thread>> {
        let wanted = |entry: &&Entry| entry.thread.may_move() && entry.thread.may_run_on(to);
        let which = Arc::as_ptr(&self.ready.iter().filter(wanted).min()?.thread);
        self.take(cpu, which)
    }

    /// Take this thread off the queue, if it is there.
    pub(super) fn take(&mut self, cpu: &Cpu, which: *const Thread) -> Option<Arc<Thread>> {
        let mut entries = core::mem::take(&mut self.ready).into_vec();
        let at = entries.iter().position(|entry| Arc::as_ptr(&entry.thread) == which);
        let taken = at.map(|at| entries.swap_remove(at).thread);
        self.ready = entries.into();
        self.note_load(cpu);
        taken
    }

    /// Load the thread's space, if it is tagged; whether it was.
    #[inline]
    fn load_tagged(&mut self, thread: &Thread, at: *const Space) -> bool {
        let is_it = |tagged: &Arc<Space>| Arc::as_ptr(tagged) == at;
        let last = thread.tag.load(Relaxed);
        let same = self.tagged.get(last).is_some_and(is_it);
        let Some(tag) = (if same { Some(last) } else { self.tagged.iter().position(is_it) }) else {
            return false;
        };
        thread.tag.store(tag, Relaxed);
        let space = &self.tagged[tag];
        paging::load_space(space.root(), space.id(), tag, at.cast());
        true
    }

    /// Load the thread's space, which is not tagged yet, and say whose tag it took.
    #[cold]
    fn load(&mut self, thread: &Thread, space: &Arc<Space>) -> Option<Arc<Space>> {
        if self.load_tagged(thread, Arc::as_ptr(space)) {
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
        self.load_tagged(thread, Arc::as_ptr(space));
        evicted
    }
}

static MOVED: Once<fn(&Thread)> = Once::new();

/// Tell whom to call when a thread goes on on another CPU; with the queue's lock held.
pub fn set_moved(hook: fn(&Thread)) {
    MOVED.call_once(|| hook);
}

#[cold]
pub(super) fn tell_moved(thread: &Thread) {
    if let Some(hook) = MOVED.get() {
        hook(thread);
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
        if thread.is_off_cpu() {
            thread.context.trace();
        }
    }
}

/// Room for one more thread on every queue; it is counted.
pub(super) fn add_thread(thread: &Arc<Thread>) -> bool {
    let count = THREADS.fetch_add(1, Relaxed) + 1;
    let listed = {
        let mut all = ALL.lock();
        all.retain(|thread| thread.strong_count() != 0);
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
    if with(cpu, |run| run.ready.capacity() >= count) {
        return true;
    }
    let mut larger: BinaryHeap<Entry> = BinaryHeap::new();
    if larger.try_reserve(count.next_power_of_two()).is_err() {
        return false;
    }
    let mut larger = larger.into_vec();
    let _old = with(cpu, |run| {
        // What another CPU has made meanwhile may be larger still.
        if run.ready.capacity() >= larger.capacity() {
            return Vec::new();
        }
        let mut old = core::mem::take(&mut run.ready).into_vec();
        larger.append(&mut old);
        run.ready = core::mem::take(&mut larger).into();
        old
    });
    true
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
        let mut guard: MutexGuard<'_, Option<Run>> = CPUS[here].run.lock();
        let run = guard.as_mut().expect("the CPU has its idle thread");
        let Some((from, to)) = run.choose(here) else { return };
        // SAFETY: both are alive: `current` holds one; its own stack, the queue, `idle` or `before` the other.
        let (from, to) = unsafe { (&*from, &*to) };
        let space = to.space_at.load(Relaxed).cast_const();
        paging::set_lazy(space.is_null());
        (from, to, space.is_null() || space.cast() == paging::loaded() || run.load_tagged(to, space))
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
    THREADS.fetch_sub(1, Relaxed);
}

#[cold]
fn load_space_of(thread: &Thread) {
    let here = arch::cpu::id();
    let evicted =
        thread.with_space(|space| with(here, |run| space.and_then(|space| run.load(thread, space))));
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

/// The trap loop, on its way back to a program, after something asked for a look.
pub(super) fn preempt() {
    let here = arch::cpu::id();
    if !with(here, |run| run.goes_on(here)) {
        switch();
    }
}

/// The timer's interrupt: something is due, or the slice is over.
fn on_timer() {
    let here = arch::cpu::id();
    let now = arch::time::now_ns();
    with(here, |run| {
        run.timer_set = u64::MAX;
        if now + split::EARLY >= run.sample_at {
            run.sample(now, arch::user::interrupted_on_entry());
        }
    });
    let next = timer::expire(now);
    let crowded = with(here, |run| {
        let mut at = next.unwrap_or(u64::MAX);
        if !run.is_idle() {
            at = at.min(run.sample_at);
        }
        let crowded = !run.ready.is_empty() && !run.is_idle();
        if crowded {
            // The look that follows sets the timer for the rest of the slice.
            arch::cpu::need_resched().set(true);
            run.arm(at.min(run.turn_end.max(now + fair::WAKE)));
        } else if at != u64::MAX {
            run.arm(at);
        }
        crowded
    });
    if crowded {
        place::even_out(here);
    }
}

/// A timer was added: let the interrupt come for it.
pub(super) fn arm(at: u64) {
    with(arch::cpu::id(), |run| run.arm(at));
}

/// Nanoseconds the thread has run, up to now.
pub(super) fn cpu_time(thread: &Thread) -> u64 {
    with(thread.cpu.load(Relaxed), |run| {
        let done = thread.cpu_ns.load(Relaxed);
        if !core::ptr::eq(Arc::as_ptr(&run.current), thread) {
            return done;
        }
        done + arch::time::now_ns().saturating_sub(run.since)
    })
}

/// A CPU without a thread: run what comes, take from those who have too much, or wait for an interrupt.
pub(super) fn idle() -> ! {
    let here = arch::cpu::id();
    loop {
        switch();
        let idle = || with(here, |run| run.ready.is_empty());
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

/// Nanoseconds that a CPU spent in programs, in the kernel, with nothing to run.
pub(super) fn cpu_times(cpu: usize) -> [u64; 3] {
    let idle = idle_time(cpu);
    let busy = arch::time::now_ns().saturating_sub(idle);
    let (user, system) = with(cpu, |run| run.split.divide(busy));
    [user, system, idle]
}

/// Nanoseconds that a CPU had nothing to run.
pub(super) fn idle_time(cpu: usize) -> u64 {
    let idle = with(cpu, |run| run.idle.clone());
    idle.cpu_time()
}

/// Threads that run or want to, and threads in all.
pub(super) fn counts() -> (usize, usize) {
    let running = CPUS.iter().map(|cpu| cpu.load.load(Relaxed)).sum();
    (running, THREADS.load(Relaxed))
}
