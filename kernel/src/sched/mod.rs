//! Threads, run queues, wait queues, timers. This room knows no process.

pub mod timer;
mod wait;

pub use wait::{WaitQueue, WaitResult, multi_wait, wait_key, wake_key};

use alloc::{boxed::Box, sync::Arc};
use core::any::Any;
use hafez_mm::Space;

/// There was no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

/// What a thread belongs to, in the eyes of the room above: it downcasts.
pub type Owner = Arc<dyn Any + Send + Sync>;

/// A thread of the kernel; a program's thread is one whose body runs the trap loop.
pub struct Thread {
    _p: (),
}

impl Thread {
    /// Unique, never reused.
    pub fn id(&self) -> u64 {
        todo!()
    }
    pub fn name(&self) -> &str {
        todo!()
    }
    pub fn owner(&self) -> Option<&Owner> {
        todo!()
    }
    /// The space whose lower half it runs in (loaded at once if the thread is current).
    pub fn set_space(&self, _space: Option<Arc<Space>>) {
        todo!()
    }
    pub fn space(&self) -> Option<Arc<Space>> {
        todo!()
    }
    /// End its interruptible wait, now or the next one, until it calls [`clear_interrupt`].
    pub fn interrupt(&self) {
        todo!()
    }
    /// Whether `interrupt` was called since the last `clear_interrupt`.
    pub fn interrupted(&self) -> bool {
        todo!()
    }
    /// Nanoseconds it has run.
    pub fn cpu_time(&self) -> u64 {
        todo!()
    }
}

/// The thread that runs this code. Cannot leave it.
#[derive(Clone, Copy)]
pub struct Current {
    _not_send: core::marker::PhantomData<*const ()>,
}

impl Current {
    pub fn arc(&self) -> Arc<Thread> {
        todo!()
    }
}
impl core::ops::Deref for Current {
    type Target = Thread;
    fn deref(&self) -> &Thread {
        todo!()
    }
}

/// The thread that runs this code.
pub fn current() -> Current {
    todo!()
}
/// Start a thread that runs `body` on a kernel stack of its own and ends when `body` returns.
pub fn spawn(
    _name: &str,
    _body: Box<dyn FnOnce() + Send>,
    _owner: Option<Owner>,
) -> Result<Arc<Thread>, NoMemory> {
    todo!()
}
/// Let the others run first.
pub fn yield_now() {
    todo!()
}
/// End the current thread at once; values on its stack are not dropped, so better return from its body.
pub fn exit() -> ! {
    todo!()
}
/// Whether the current thread's time slice is over.
pub fn need_resched() -> bool {
    todo!()
}
/// The trap loop calls this before it goes back to the program.
pub fn preempt_if_needed() {
    todo!()
}
/// The current thread has seen why it was interrupted.
pub fn clear_interrupt() {
    todo!()
}
/// Time this CPU had nothing to run, in nanoseconds.
pub fn idle_time() -> u64 {
    todo!()
}
/// Threads that run or want to, and threads in all.
pub fn counts() -> (usize, usize) {
    todo!()
}
