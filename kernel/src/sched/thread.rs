//! A thread of the kernel: a stack, a place in it, and the space whose lower half it sees.

use super::{NoMemory, fair, place, queue, run, split::Split, stack::Stack};
use crate::{arch::context::Context, mem};
use alloc::{boxed::Box, sync::Arc};
use core::any::Any;
use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed,
    Ordering::SeqCst,
};
use hafez_mm::Space;
use hafez_mm::lock::Mutex;

/// What a thread belongs to, in the eyes of the room above: it downcasts.
pub type Owner = Arc<dyn Any + Send + Sync>;

type Body = Box<dyn FnOnce() + Send>;

/// Where a thread stands; `run` says who may change it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(super) enum State {
    /// On a CPU.
    Running,
    /// On a run queue, or on its way to one.
    Ready,
    /// About to give up the CPU; whoever wakes it makes it `Running` again.
    Waiting,
    /// Has given up the CPU; whoever wakes it makes it `Ready`.
    Parked,
    /// Must not run on this CPU any more: leaves it, for another.
    Moving,
    /// Never runs again.
    Dead,
}

/// A thread of the kernel; a program's thread is one whose body runs the trap loop.
pub struct Thread {
    id: u64,
    name: Box<str>,
    owner: Option<Owner>,
    pub(super) context: Context,
    /// Gone once it is dead.
    pub(super) stack: Mutex<Option<Stack>>,
    space: Mutex<Option<Arc<Space>>>,
    /// Where the space is, or null: lets the switch see at a glance whether another must be loaded.
    pub(super) space_at: AtomicPtr<Space>,
    /// The space's tag where it ran last.
    pub(super) tag: AtomicUsize,
    body: Mutex<Option<Body>>,
    state: AtomicU8,
    pub(super) interruptible: AtomicBool,
    /// On how many wait queues it stands.
    pub(super) queued: AtomicUsize,
    interrupted: AtomicBool,
    pub(super) cpu_ns: AtomicU64,
    pub(super) split: Split,
    /// Times it left its CPU: to wait, and as another was to run.
    switches: [AtomicU64; 2],
    /// It has left it since it was last asked.
    left: AtomicBool,
    /// A CPU runs on its stack, or has not yet left it.
    pub(super) on_cpu: AtomicBool,
    /// The CPU that it runs on, or ran on last; or whose queue it is on.
    pub(super) cpu: AtomicUsize,
    /// The CPUs that it may run on, a bit each.
    pub(super) affinity: AtomicU64,
    /// What it has had, and how fast that grows while it runs (see `fair`).
    pub(super) virtual_time: AtomicU64,
    pub(super) rate: AtomicU64,
    /// Of a real-time thread: where its virtual time begins; else 0.
    pub(super) band: AtomicU64,
    /// Whom this thread's CPU left for it.
    pub(super) before: AtomicPtr<Thread>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Thread {
    /// The thread that runs already, on the boot stack: it becomes the idle thread.
    pub(super) fn boot() -> Self {
        Self::with(0, "idle", None, Context::running(), None, None, State::Running)
    }

    /// The idle thread of another CPU, which starts on its stack; and where that ends.
    pub(super) fn idle(cpu: usize) -> Option<(Self, u64)> {
        if !mem::headroom(size_of::<Self>() + 256) {
            return None;
        }
        let stack = Stack::take()?;
        let top = stack.top();
        let idle = Self::with(0, "idle", None, Context::running(), Some(stack), None, State::Running);
        idle.cpu.store(cpu, Relaxed);
        Some((idle, top))
    }

    /// A thread that will run `body` when it is first scheduled.
    pub(super) fn new(name: &str, body: Body, owner: Option<Owner>) -> Result<Arc<Self>, NoMemory> {
        if !mem::headroom(size_of::<Self>() + name.len() + 256) {
            return Err(NoMemory);
        }
        let stack = Stack::take().ok_or(NoMemory)?;
        // SAFETY: the stack was just taken and is kept until the thread is dead.
        let context = unsafe { Context::new(stack.top(), begin, 0) };
        let id = NEXT_ID.fetch_add(1, Relaxed);
        let thread = Self::with(id, name, owner, context, Some(stack), Some(body), State::Parked);
        let maker = super::current();
        thread.affinity.store(maker.affinity.load(Relaxed), Relaxed);
        thread.rate.store(maker.rate.load(Relaxed), Relaxed);
        thread.cpu.store(maker.cpu.load(Relaxed), Relaxed);
        let band = maker.band.load(Relaxed);
        thread.band.store(band, Relaxed);
        let begin = if band != 0 { band } else { queue::cpu(maker.cpu()).clock.load(Relaxed) };
        thread.virtual_time.store(begin, Relaxed);
        Ok(Arc::new(thread))
    }

    fn with(
        id: u64,
        name: &str,
        owner: Option<Owner>,
        context: Context,
        stack: Option<Stack>,
        body: Option<Body>,
        state: State,
    ) -> Self {
        Thread {
            id,
            name: name.into(),
            owner,
            context,
            stack: Mutex::new(stack),
            space: Mutex::new(None),
            space_at: AtomicPtr::new(core::ptr::null_mut()),
            tag: AtomicUsize::new(0),
            body: Mutex::new(body),
            state: AtomicU8::new(state as u8),
            interruptible: AtomicBool::new(false),
            queued: AtomicUsize::new(0),
            interrupted: AtomicBool::new(false),
            cpu_ns: AtomicU64::new(0),
            split: Split::new(),
            switches: [const { AtomicU64::new(0) }; 2],
            left: AtomicBool::new(false),
            on_cpu: AtomicBool::new(state as u8 == State::Running as u8),
            cpu: AtomicUsize::new(0),
            affinity: AtomicU64::new(u64::MAX),
            virtual_time: AtomicU64::new(fair::BEGIN),
            rate: AtomicU64::new(fair::RATE),
            band: AtomicU64::new(0),
            before: AtomicPtr::new(core::ptr::null_mut()),
        }
    }

    /// Unique, never reused.
    pub fn id(&self) -> u64 {
        self.id
    }
    pub fn name(&self) -> &str {
        &self.name
    }
    pub fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }
    /// The space whose lower half it runs in (loaded at once if the thread is current). A space must be left by all its
    /// threads this way before it is destroyed.
    pub fn set_space(&self, space: Option<Arc<Space>>) {
        self.space_at.store(super::queue::address(space.as_ref()).cast_mut(), Relaxed);
        let old = core::mem::replace(&mut *self.space.lock(), space);
        if core::ptr::eq(self, &*super::current()) {
            run::load_own_space();
        }
        drop(old);
    }
    pub fn space(&self) -> Option<Arc<Space>> {
        self.space.lock().clone()
    }
    pub(super) fn with_space<R>(&self, f: impl FnOnce(Option<&Arc<Space>>) -> R) -> R {
        f(self.space.lock().as_ref())
    }
    /// End its interruptible wait, now or the next one, until it calls [`super::clear_interrupt`].
    pub fn interrupt(self: &Arc<Self>) {
        self.set_interrupted();
        if self.interruptible.load(SeqCst) {
            run::wake(self.clone());
        }
    }
    pub(super) fn set_interrupted(&self) {
        self.interrupted.store(true, SeqCst);
    }
    /// Whether `interrupt` was called since the last `clear_interrupt`.
    #[inline(always)]
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(SeqCst)
    }
    pub(super) fn clear_interrupt(&self) {
        self.interrupted.store(false, SeqCst);
    }
    /// It leaves its CPU after so many nanoseconds, to wait or though it would have gone on. Its virtual time then.
    #[inline(always)]
    pub(super) fn ran(&self, ns: u64, wanted_on: bool) -> u64 {
        // Only the CPU that it leaves counts.
        self.cpu_ns.store(self.cpu_ns.load(Relaxed) + ns, Relaxed);
        let count = &self.switches[wanted_on as usize];
        count.store(count.load(Relaxed) + 1, Relaxed);
        self.left.store(true, Relaxed);
        let had = self.virtual_time.load(Relaxed) + fair::virtual_time(ns, self.rate.load(Relaxed));
        self.virtual_time.store(had, Relaxed);
        had
    }
    /// How often it has left its CPU: to wait, and though it would have gone on.
    pub fn switched(&self) -> (u64, u64) {
        (self.switches[0].load(Relaxed), self.switches[1].load(Relaxed))
    }
    /// Whether it has left its CPU since `forget_left`.
    #[inline(always)]
    pub fn has_left(&self) -> bool {
        self.left.load(Relaxed)
    }
    pub fn forget_left(&self) {
        self.left.store(false, Relaxed);
    }
    /// Nanoseconds it has run, up to now.
    pub fn cpu_time(&self) -> u64 {
        queue::cpu_time(self)
    }
    /// The same in two: in the program, and in the kernel for it.
    pub fn cpu_times(&self) -> (u64, u64) {
        self.split.divide(queue::cpu_time(self))
    }

    /// Whether it runs, or would if it had the CPU.
    pub fn is_runnable(&self) -> bool {
        matches!(self.state(), State::Running | State::Ready | State::Moving)
    }
    /// Whether its registers are on its stack.
    pub(super) fn is_off_cpu(&self) -> bool {
        !self.on_cpu.load(SeqCst) && self.state() != State::Dead
    }

    /// The CPU that it runs on, or ran on last.
    pub fn cpu(&self) -> usize {
        self.cpu.load(Relaxed)
    }
    /// The CPUs that it may run on, a bit each, of those that there are.
    pub fn affinity(&self) -> u64 {
        self.affinity.load(Relaxed) & place::online()
    }
    /// Let it run on these CPUs only. `false`: none of them is there.
    pub fn set_affinity(self: &Arc<Self>, allowed: u64) -> bool {
        if allowed & place::online() == 0 {
            return false;
        }
        place::set_affinity(self, allowed);
        true
    }
    /// Its nice level from now on; `idle`: it gets what nobody else wants.
    pub fn set_nice(&self, nice: i32, idle: bool) {
        if self.band.swap(0, Relaxed) != 0 {
            self.virtual_time.store(queue::cpu(self.cpu()).clock.load(Relaxed), Relaxed);
        }
        self.rate.store(fair::rate(nice, idle), Relaxed);
    }
    /// It comes before all that have a lower priority, or none; if it `turns`, it takes turns with those of the same.
    pub fn set_real_time(&self, priority: u32, turns: bool) {
        self.rate.store(fair::rate_in_band(turns), Relaxed);
        self.virtual_time.store(fair::band(priority), Relaxed);
        self.band.store(fair::band(priority), Relaxed);
    }
    /// If it runs a program on another CPU, have it come into the kernel.
    pub fn poke(&self) {
        let at = self.cpu();
        if at != crate::arch::cpu::id() && self.state() == State::Running {
            crate::arch::smp::reschedule(at);
        }
    }
    /// Its nice level or priority is another than when it joined a queue: it takes its place there anew.
    pub fn reorder(self: &Arc<Self>) {
        place::reorder(self);
    }
    pub(super) fn may_run_on(&self, cpu: usize) -> bool {
        self.affinity.load(Relaxed) >> cpu & 1 != 0
    }
    /// Whether another CPU may take it from its queue: not while the one it ran on has not left it.
    pub(super) fn may_move(&self) -> bool {
        !self.on_cpu.load(Acquire)
    }

    pub(super) fn state(&self) -> State {
        match self.state.load(SeqCst) {
            0 => State::Running,
            1 => State::Ready,
            2 => State::Waiting,
            3 => State::Parked,
            4 => State::Moving,
            _ => State::Dead,
        }
    }
    fn change(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from as u8, to as u8, SeqCst, SeqCst).is_ok()
    }
    /// It leaves its CPU, as nobody has woken it yet.
    pub(super) fn park(&self) -> bool {
        self.change(State::Waiting, State::Parked)
    }
    /// Wake it: it had left its CPU, and the caller puts it on a queue.
    pub(super) fn unpark(&self) -> bool {
        self.change(State::Parked, State::Ready)
    }
    /// Wake it: it had not left its CPU yet, and stays.
    pub(super) fn stay(&self) -> bool {
        self.change(State::Waiting, State::Running)
    }
    pub(super) fn set_state(&self, state: State) {
        self.state.store(state as u8, SeqCst);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // A thread that never ran still has its stack; one that did gave it back when it died.
        if let Some(stack) = self.stack.get_mut().take() {
            stack.give_back();
        }
    }
}

/// The first code of every thread.
extern "sysv64" fn begin(_: usize) -> ! {
    run::after_switch();
    let body = super::current().body.lock().take();
    if let Some(body) = body {
        body();
    }
    super::exit()
}
