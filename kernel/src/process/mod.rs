//! Processes: programs in address spaces, their threads, signals and ends.
//!
//! ```text
//!   table ── Process ─┬─ Task ── its kernel thread runs run::run with a Caller on its stack
//!     relations,      ├─ Task
//!     zombies         └─ …        Tasks share: Process (number, signal actions, limits), Image (space, account),
//!                                 FileTable, FsContext, as the flags of clone say
//! ```
//!
//! | file | what |
//! |---|---|
//! | `task`, `process`, `image`, `table` | what there is |
//! | `run` | the loop that a task lives in · `calls` a system call's way |
//! | `fork`, `exec`, `elf`, `exit`, `wait`, `stop` | how it changes |
//! | `signal/` | signals · `dump/` core files |
//! | `files` | open files · `limits` rlimits · `futex` · `proc` what `/proc` shows |
//! | `sysv/` | System V's shared memory, semaphores, messages · `pidfd` | descriptors for processes · `aio` contexts of asynchronous I/O · `timer`, `timers` timers · `host` names and load |
//! | `start` | the first program, and the end of the machine |
#![forbid(unsafe_code)]

pub mod aio;
pub mod asked;
pub mod calls;
pub mod commit;
pub mod control;
pub mod dump;
pub mod elf;
pub mod exec;
pub mod exit;
pub mod files;
pub mod foreign;
pub mod fork;
pub mod futex;
pub mod host;
pub mod image;
pub mod limits;
pub mod mqueue;
pub mod oom;
pub mod pi;
pub mod pidfd;
pub mod proc;
#[allow(clippy::module_inception)]
pub mod process;
pub mod rseq;
pub mod run;
pub mod seccomp;
pub mod settime;
mod sigio;
pub mod signal;
pub mod signalfd;
mod stack;
pub mod start;
mod stop;
pub mod sysv;
pub mod table;
pub mod task;
mod terminal;
pub mod timer;
pub mod timerfd;
pub mod timers;
pub mod trace;
pub mod user;
pub mod userfault;
mod vdso;
mod vsyscall;
pub mod wait;

pub use image::Image;
pub use process::Process;
pub use task::{Task, current_task};

/// The number of a process, a task, a group or a session.
pub type Pid = i32;

/// Whether this thread runs for a program. Takes no lock.
pub fn is_for_program() -> bool {
    current_task().is_some()
}
