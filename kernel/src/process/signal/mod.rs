//! Signals.
//!
//! ```text
//!   kill, faults, timers ──▶ send.rs ──▶ Pending (of the task, or of the process) + bit in Task::work + interrupt
//!                                             │
//!   the task's loop, before it returns  ──▶ deliver.rs ──▶ ignore │ end │ stop │ frame.rs: a handler's frame
//!                                                                                    └── rt_sigreturn undoes it
//! ```
//!
//! A sender never touches another task's registers: it queues, sets a bit and wakes. Only the task itself delivers, on its
//! own way back to the program, so everything about frames and restarts is single-threaded.
//!
//! A task that sends to itself need not queue what it is about to take: see [`raise`].
//!
//! No signal is lost between "look" and "sleep": the sender queues first, then sets the bit, then interrupts; the task
//! clears the bit first, then looks; and the scheduler's interrupt mark stays until the task clears it.
//!
//! Locks: the actions' lock, then a `Pending`'s; the task list's lock (`Process::tasks`) before both.

mod deliver;
mod frame;
mod send;
mod set;

pub use deliver::{deliver, force, kill};
pub use frame::min_stack;
pub use frame::sigreturn;
pub(super) use send::offer;
pub use send::{
    add_overrun, deliverable, forget, raise, set_mask, take, to_group, to_process, to_task, waiting,
};
pub use set::{Action, Actions, AltStack, LAST, Pending, SIGINFO_LEN, SS_AUTODISARM, SigInfo, SigSet};

use super::run::Caller;
use super::task::work;
use crate::errno::Errno;
use core::sync::atomic::Ordering;

impl Caller {
    /// A call ended with a restart code: what becomes of it is decided when signals have been looked at.
    #[cold]
    pub fn interrupted(&mut self, number: u64, how: Errno) {
        self.restart = Some((number, how));
        self.task.work.fetch_or(work::SIGNAL, Ordering::Relaxed);
    }

    /// Look at signals before the program goes on.
    pub fn look_at_signals(&self) {
        self.task.work.fetch_or(work::SIGNAL, Ordering::Relaxed);
    }
}
