//! A CPU's queue: the threads that are ready, which of them comes next, and for how long.
//!
//! The thread that has had the least ([`fair`]) comes next; it has its slice for itself unless one that comes far before it is added. The
//! timer is set only while there is something to take turns with, a timer pending, or time to be told apart ([`split`]): an idle
//! CPU takes no clock interrupts, one with a single busy program a hundred a second.
//!
//! # Lock
//!
//! One for each CPU's queue. It is innermost: nothing is locked, allocated or freed under it. No two are held at once. Another CPU
//! may add to a queue or take from it; only its own chooses.

use super::fair::{self, virtual_time};
use super::{place, split, thread::State, thread::Thread};
use crate::arch::cpu::MAX_CPUS;
use crate::arch::paging::{self, MAX_TAGS};
use crate::{arch, mem};
use alloc::{collections::BinaryHeap, sync::Arc};
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use hafez_mm::lock::{Mutex, MutexGuard, Once};
use hafez_mm::{Pfn, Space};

/// A CPU's threads.
#[repr(align(64))]
pub(super) struct Cpu {
    queue: Mutex<Option<Queue>>,
    /// Threads on the queue, and one more while one runs; to be read without the lock.
    pub load: AtomicUsize,
    /// The virtual clock, as the lock's holder left it.
    pub clock: AtomicU64,
}

/// A thread on a queue: the one that has had the least is the greatest.
pub(super) struct Entry {
    pub virtual_time: u64,
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

/// A space whose translations a CPU may hold.
struct Tagged {
    space: Arc<Space>,
    /// The root that the CPU goes by.
    way: Pfn,
}

impl Tagged {
    #[inline(always)]
    fn is(&self, at: *const Space) -> bool {
        Arc::as_ptr(&self.space) == at
    }

    #[inline(always)]
    fn load(&mut self, tag: usize) {
        let Tagged { space, way } = self;
        let name = Arc::as_ptr(space).cast();
        paging::load_space(space.root(), space.id(), tag, name, way, || way_of(space));
    }
}

pub(super) struct Queue {
    pub current: Arc<Thread>,
    pub idle: Arc<Thread>,
    pub ready: BinaryHeap<Entry>,
    /// The spaces whose translations this CPU may hold, by tag. Each is `activate`d in the memory core.
    tagged: ArrayVec<Tagged, MAX_TAGS>,
    /// The tag to take next where none is free.
    next_tag: usize,
    /// Slices that real-time threads had while others waited.
    patience: u32,
    /// When the current thread took over.
    pub since: u64,
    /// When its slice is over, if another waits.
    pub turn_end: u64,
    /// For what time the timer's interrupt is set; `u64::MAX` for none.
    pub timer_set: u64,
    /// When to look at the timers: the first that was added here, or seen here, is due then.
    pub due_at: u64,
    /// When to look next what the CPU does, and what was found so far.
    pub sample_at: u64,
    pub split: split::Split,
}

static CPUS: [Cpu; MAX_CPUS] = [const {
    Cpu { queue: Mutex::new(None), load: AtomicUsize::new(0), clock: AtomicU64::new(fair::BEGIN) }
}; MAX_CPUS];

/// Give a CPU its idle thread, which is taken to run there.
pub(super) fn add_cpu(cpu: usize, idle: Arc<Thread>) {
    *CPUS[cpu].queue.lock() = Some(Queue {
        current: idle.clone(),
        idle,
        ready: BinaryHeap::new(),
        tagged: ArrayVec::new(),
        next_tag: 0,
        patience: 0,
        since: arch::time::now_ns(),
        turn_end: 0,
        timer_set: u64::MAX,
        due_at: u64::MAX,
        sample_at: 0,
        split: split::Split::new(),
    });
}

impl Cpu {
    #[inline(always)]
    pub fn lock(&self) -> MutexGuard<'_, Option<Queue>> {
        self.queue.lock()
    }
}

/// What may be known of a CPU without its lock.
pub(super) fn cpu(cpu: usize) -> &'static Cpu {
    &CPUS[cpu]
}

#[inline(always)]
pub(super) fn with<R>(cpu: usize, f: impl FnOnce(&mut Queue) -> R) -> R {
    f(CPUS[cpu].queue.lock().as_mut().expect("the CPU has its idle thread"))
}

impl Queue {
    /// Let the timer interrupt at `at`, if it would not come earlier anyhow. On the CPU itself only.
    pub(super) fn arm(&mut self, at: u64) {
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
    pub(super) fn sample(&mut self, now: u64, in_kernel: bool) {
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
    pub(super) fn choose(&mut self, here: usize) -> Option<(*const Thread, *const Thread)> {
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
        let had = self.current.ran(ran, stays);
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
    pub(super) fn goes_on(&mut self, here: usize) -> bool {
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
    #[inline(always)]
    pub(super) fn load_tagged(&mut self, thread: &Thread, at: *const Space) -> bool {
        let last = thread.tag.load(Relaxed);
        match self.tagged.get_mut(last).filter(|tagged| tagged.is(at)) {
            Some(tagged) => {
                tagged.load(last);
                true
            }
            None => self.load_other(thread, at),
        }
    }

    /// The same where it is not the tag that the thread had last.
    #[cold]
    #[inline(never)]
    fn load_other(&mut self, thread: &Thread, at: *const Space) -> bool {
        let Some(tag) = self.tagged.iter().position(|tagged| tagged.is(at)) else { return false };
        thread.tag.store(tag, Relaxed);
        self.tagged[tag].load(tag);
        true
    }

    /// Load the thread's space, which is not tagged yet, and say whose tag it took.
    #[cold]
    pub(super) fn load(&mut self, thread: &Thread, space: &Arc<Space>) -> Option<Arc<Space>> {
        if self.load_tagged(thread, Arc::as_ptr(space)) {
            return None;
        }
        mem::memory().activate(space, arch::cpu::id());
        let (mut evicted, new) = (None, Tagged { space: space.clone(), way: space.root() });
        if self.tagged.is_full() {
            let tag = self.next_tag;
            self.next_tag = (tag + 1) % MAX_TAGS;
            evicted = Some(core::mem::replace(&mut self.tagged[tag], new).space);
        } else {
            self.tagged.push(new);
        }
        self.load_tagged(thread, Arc::as_ptr(space));
        evicted
    }
}

/// The root that this CPU is to go by in a space of which it holds nothing.
#[cold]
#[inline(never)]
fn way_of(space: &Space) -> Pfn {
    mem::memory().take_way(space, arch::cpu::id())
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

/// Nanoseconds the thread has run, up to now.
pub(super) fn cpu_time(thread: &Thread) -> u64 {
    with(thread.cpu.load(Relaxed), |queue| {
        let done = thread.cpu_ns.load(Relaxed);
        if !core::ptr::eq(Arc::as_ptr(&queue.current), thread) {
            return done;
        }
        done + arch::time::now_ns().saturating_sub(queue.since)
    })
}

/// Nanoseconds that a CPU spent in programs, in the kernel, with nothing to queue.
pub(super) fn cpu_times(cpu: usize) -> [u64; 3] {
    let idle = idle_time(cpu);
    let busy = arch::time::now_ns().saturating_sub(idle);
    let (user, system) = with(cpu, |queue| queue.split.divide(busy));
    [user, system, idle]
}

/// Nanoseconds that a CPU had nothing to queue.
pub(super) fn idle_time(cpu: usize) -> u64 {
    let idle = with(cpu, |queue| queue.idle.clone());
    idle.cpu_time()
}
