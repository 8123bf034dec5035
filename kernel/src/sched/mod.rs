//! Threads, run queues, wait queues, timers. This room knows no process.
//!
//! ```text
//!            spawn                switch                     WaitQueue::wait, multi_wait, wait_key
//!   (new) ─────────► Ready ◄──────────────────► Running ──────────────────────────────────────► Waiting
//!                      ▲                           │ exit                                           │
//!                      │                           ▼                                                │
//!                      │                         Dead                                               │
//!                      └──────────────── wake_one, wake_all, wake_key, interrupt, a deadline ◄──────┘
//! ```
//!
//! The kernel runs with interrupts off and is not preempted: a thread gives up the CPU where it waits, where it yields,
//! and in the trap loop on its way back to the program (`preempt_if_needed`). Interrupts come in while a program runs and
//! while the CPU idles.
//!
//! Locks, outermost first: a wait queue's, the timers', a run queue's. None is held across a switch.
//!
//! | file | what |
//! |---|---|
//! | `queue.rs` | each CPU's queue: who comes next, and for how long |
//! | `run.rs` | the switch, waking, the timer's interrupt |
//! | `roll.rs` | all threads there are |
//! | `fair.rs` | how much a thread has had, and what its nice level is worth |
//! | `place.rs` | on which CPU a thread goes on |
//! | `split.rs` | how much of its time a thread spent in its program, and how much in the kernel |
//! | `wait.rs`, `timer.rs` | waiting for something, or for a time |

mod fair;
mod place;
mod queue;
mod roll;
mod run;
mod split;
mod stack;
mod thread;
pub mod timer;
mod wait;

pub use queue::set_moved;
pub use thread::{Owner, Thread};
pub use wait::{WaitQueue, WaitResult, multi_wait, wait_key, wake_key};

use crate::arch;
use alloc::{boxed::Box, sync::Arc};
use core::marker::PhantomData;
use core::sync::atomic::Ordering::Relaxed;
use thread::State;

/// There was no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

/// The thread that runs this code. Cannot leave it.
#[derive(Clone, Copy)]
pub struct Current {
    at: *const Thread,
    _not_send: PhantomData<*const ()>,
}

impl Current {
    pub fn arc(&self) -> Arc<Thread> {
        // SAFETY: the pointer is that of an `Arc` which the run queue holds while the thread runs.
        unsafe {
            Arc::increment_strong_count(self.at);
            Arc::from_raw(self.at)
        }
    }
    /// As [`Thread::interrupt`]: a thread that runs does not wait, so the next wait ends.
    pub fn interrupt(&self) {
        self.set_interrupted();
    }
}
impl core::ops::Deref for Current {
    type Target = Thread;
    #[inline(always)]
    fn deref(&self) -> &Thread {
        // SAFETY: the handle stays on its thread (it is not `Send`), and a thread that runs is alive.
        unsafe { &*self.at }
    }
}

/// The boot context becomes the idle thread. Once, when memory is up.
pub fn init() {
    run::init();
}
/// Start the other CPUs, if there are to be any; returns when they run.
pub fn start_cpus() {
    run::start_cpus();
}
/// The boot context is done: from now on it only idles.
pub fn idle() -> ! {
    run::idle()
}
/// The thread that runs this code.
#[inline(always)]
pub fn current() -> Current {
    Current { at: arch::cpu::current().load(Relaxed).cast(), _not_send: PhantomData }
}
/// Start a thread that runs `body` on a kernel stack of its own and ends when `body` returns. The last reference to
/// `owner` may be dropped by any thread: that must not block.
pub fn spawn(
    name: &str,
    body: Box<dyn FnOnce() + Send>,
    owner: Option<Owner>,
) -> Result<Arc<Thread>, NoMemory> {
    let thread = prepare(name, body, owner)?;
    start(thread.clone());
    Ok(thread)
}
/// As [`spawn`], but it does not run before it is [`start`]ed.
pub fn prepare(
    name: &str,
    body: Box<dyn FnOnce() + Send>,
    owner: Option<Owner>,
) -> Result<Arc<Thread>, NoMemory> {
    let thread = Thread::new(name, body, owner)?;
    if roll::enter(&thread) { Ok(thread) } else { Err(NoMemory) }
}
/// Let a prepared thread run.
pub fn start(thread: Arc<Thread>) {
    run::wake(thread);
}
/// Let the others run first, and interrupts in: who yields in a loop may be waiting for one.
pub fn yield_now() {
    arch::cpu::interrupt_window();
    run::switch();
}
/// End the current thread at once; values on its stack are not dropped, so better return from its body.
pub fn exit() -> ! {
    current().set_space(None);
    current().set_state(State::Dead);
    run::switch();
    unreachable!("a dead thread ran")
}
/// Whether another thread should run now.
#[inline(always)]
pub fn need_resched() -> bool {
    arch::cpu::need_resched().get()
}
/// The trap loop calls this before it goes back to the program.
#[inline(always)]
pub fn preempt_if_needed() {
    if need_resched() {
        run::preempt();
    }
}
/// The current thread has seen why it was interrupted.
pub fn clear_interrupt() {
    current().clear_interrupt();
}
/// Time the CPU had nothing to run, in nanoseconds.
pub fn idle_time(cpu: usize) -> u64 {
    queue::idle_time(cpu)
}
/// How a CPU has spent its time up to now, in nanoseconds: in programs, in the kernel, with nothing to run.
pub fn cpu_times(cpu: usize) -> [u64; 3] {
    queue::cpu_times(cpu)
}
/// The same, of all CPUs together.
pub fn idle_times() -> u64 {
    (0..arch::cpu::count()).map(idle_time).sum()
}
/// How long a thread runs while another of the same nice level waits, in nanoseconds.
pub const SLICE: u64 = fair::SLICE;
/// Load the current thread's space anew: what a CPU goes by in it has changed.
pub fn reload_space() {
    run::reload_space();
}
/// Threads that run or want to, and threads in all.
pub fn counts() -> (usize, usize) {
    roll::counts()
}
