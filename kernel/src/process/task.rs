//! A task: one thread of a program.
//!
//! What a task is splits in two, by who may touch it:
//!
//! ```text
//!   Caller  (run.rs)  registers, FPU state, image: only the task's own thread, so no lock, no atomics
//!   Task    (here)    what others may look at or send to: signal mask and queue, names, tables it shares
//! ```
//!
//! The trap loop looks at one word of the task, [`Task::work`], before it returns to the program. All rare work (a
//! signal, a stop, an exit) sets a bit there, so the common path pays one load and one branch for all of it.
//!
//! Locks: every `Mutex` here is a leaf, held for a few instructions; none is held over a user copy, a wait or a
//! call into another room.

use super::Pid;
use super::dump::pattern;
use super::files::{Cred, FileTable, FsContext};
use super::image::Image;
use super::process::{Process, Usage};
use super::rseq::Rseq;
use super::seccomp::Guard;
use super::signal::{Pending, SigInfo, SigSet};
use super::trace::Stop;
use super::wait::Status;
use crate::errno::Result;
use crate::fs::File;
use crate::sched::{self, Thread, WaitQueue};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};
use hafez_mm::lock::Mutex;
use linux_raw_sys::general as abi;

/// Bits of [`Task::work`].
pub mod work {
    /// A signal may be waiting, or a call wants to be restarted: look.
    pub const SIGNAL: u32 = 1;
    /// The process is stopped (SIGSTOP and its kin): park until it continues.
    pub const STOP: u32 = 2;
    /// The task must end: its process exits or another of its threads executes a new program.
    pub const EXIT: u32 = 4;
    /// What it registered with `rseq(2)` is to be looked at: the CPU, or what it was in.
    pub const RSEQ: u32 = 8;
    /// Another thread has put a guard before its system calls.
    pub const GUARD: u32 = 16;
    /// Its tracer, or something that its tracer shall know of, wants it to stop.
    pub const TRAP: u32 = 32;
    /// It is traced, and a system call of its has ended.
    pub const TRACE: u32 = 64;
    /// The segments of its image have changed.
    pub const SEGMENTS: u32 = 128;
}

/// Bytes of a task's name, the final zero included.
pub const NAME_LEN: usize = 16;

/// The urgency that real-time priorities begin above.
const REAL_TIME: i32 = 100;

/// Timers may be 50 microseconds late unless told otherwise.
pub const DEFAULT_SLACK: u64 = 50_000;

/// `PR_MCE_KILL_DEFAULT`.
const MACHINE_CHECK_DEFAULT: u8 = 2;

/// One thread of a program.
pub struct Task {
    /// Its number; the first task of a process has the process's own.
    tid: AtomicU32,
    /// In which order the tasks of its process came.
    pub(super) serial: AtomicU64,
    /// The process it belongs to.
    pub process: Arc<Process>,
    /// Rare work to do before the program runs again (see [`work`]).
    pub work: AtomicU32,
    /// Blocked signals. Written by the task itself only; senders read it.
    pub(super) mask: AtomicU64,
    /// Blocked signals that the task waits for (`sigtimedwait`): they wake it all the same.
    awaited: AtomicU64,
    /// Signals sent to this very task.
    pub(super) pending: Pending,
    /// Open files; tasks created with `CLONE_FILES` share one table.
    files: Mutex<Arc<FileTable>>,
    /// Root, working directory and umask; shared with `CLONE_FS`.
    fs: Mutex<Arc<FsContext>>,
    cred: Mutex<Arc<Cred>>,
    /// The loaded program, for other tasks to look at; the task's own thread uses its `Caller`'s.
    image: Mutex<Option<Arc<Image>>>,
    name: Mutex<[u8; NAME_LEN]>,
    /// Address to zero and to wake a futex at when the task ends (`set_tid_address`); 0 for none.
    pub clear_child_tid: AtomicU64,
    /// Head of the list of robust futexes; 0 for none.
    pub robust_list: AtomicU64,
    /// Its restartable sequences.
    pub rseq: Rseq,
    /// Signal that the parent's death sends (`PR_SET_PDEATHSIG`); 0 for none.
    pub death_signal: AtomicU32,
    /// Nanoseconds by which its timers may be late (`PR_SET_TIMERSLACK`).
    pub timer_slack: AtomicU64,
    /// What it said is to become of it when a page of its goes bad (`PR_MCE_KILL`), and that others wait for what it writes.
    pub machine_check: AtomicU8,
    pub io_flusher: AtomicBool,
    /// What it said about memory nodes (`set_mempolicy`).
    pub nodes: AtomicU64,
    /// Nice value, -20 to 19.
    pub nice: AtomicI32,
    /// `SCHED_*`, as it was chosen.
    pub policy: AtomicU32,
    /// Its children begin with the normal policy (`SCHED_RESET_ON_FORK`).
    pub reset_on_fork: AtomicBool,
    /// Under a real-time policy: 1 to 99.
    pub priority: AtomicU32,
    /// How urgent those are that wait for a lock of its (see `pi`): [`Task::NOTHING_LENT`], or as [`Task::urgency`] counts.
    pub lent: AtomicI32,
    /// It holds, or has held, a lock that others wait for; it is granted one whose last holder died, and has not said so in the
    /// word; it takes no more part.
    pub pi_holds: AtomicBool,
    pub pi_heir: AtomicBool,
    pub pi_closed: AtomicBool,
    /// What stands before its system calls.
    pub guard: Mutex<Guard>,
    /// Which of its calls its program sees itself.
    pub dispatch: Mutex<Option<Dispatch>>,
    /// `IOPRIO_*`, as it was chosen.
    pub io_priority: AtomicU32,
    /// Somebody traces it (see `trace`).
    pub(super) traced: AtomicBool,
    /// Where it waits while it is stopped for its tracer, and what that leaves it when it lets go.
    pub(super) resumed: WaitQueue,
    pub(super) shown_back: Mutex<Option<Box<Stop>>>,
    /// It has ended: nobody can begin to trace it.
    pub(super) has_closed: AtomicBool,
    /// The code that it ended with, if it ended alone.
    pub(super) exit_code: AtomicU32,
    /// The kernel thread that runs it; gone before it starts and after it ends.
    thread: Mutex<Option<Arc<Thread>>>,
}

/// Calls that the program sees itself: but for those from a range of code, while a byte of its memory (0: none) does not say otherwise.
#[derive(Clone, Copy)]
pub struct Dispatch {
    pub start: u64,
    pub len: u64,
    pub selector: u64,
}

/// What a new task starts from.
pub struct TaskParts {
    pub files: Arc<FileTable>,
    pub fs: Arc<FsContext>,
    pub cred: Arc<Cred>,
    pub image: Arc<Image>,
    pub name: [u8; NAME_LEN],
    pub mask: SigSet,
}

impl Task {
    /// A task that does not run yet.
    pub fn new(tid: Pid, process: Arc<Process>, parts: TaskParts) -> Arc<Task> {
        Arc::new(Task {
            serial: AtomicU64::new(0),
            tid: AtomicU32::new(tid as u32),
            process,
            work: AtomicU32::new(0),
            mask: AtomicU64::new(parts.mask.0),
            awaited: AtomicU64::new(0),
            pending: Pending::new(),
            files: Mutex::new(parts.files),
            fs: Mutex::new(parts.fs),
            cred: Mutex::new(parts.cred),
            image: Mutex::new(Some(parts.image)),
            name: Mutex::new(parts.name),
            clear_child_tid: AtomicU64::new(0),
            robust_list: AtomicU64::new(0),
            rseq: Rseq::default(),
            death_signal: AtomicU32::new(0),
            timer_slack: AtomicU64::new(DEFAULT_SLACK),
            machine_check: AtomicU8::new(MACHINE_CHECK_DEFAULT),
            io_flusher: AtomicBool::new(false),
            nodes: AtomicU64::new(0),
            nice: AtomicI32::new(0),
            policy: AtomicU32::new(0),
            priority: AtomicU32::new(0),
            lent: AtomicI32::new(Self::NOTHING_LENT),
            pi_holds: AtomicBool::new(false),
            pi_heir: AtomicBool::new(false),
            pi_closed: AtomicBool::new(false),
            reset_on_fork: AtomicBool::new(false),
            guard: Mutex::default(),
            dispatch: Mutex::default(),
            io_priority: AtomicU32::new(0),
            traced: AtomicBool::new(false),
            resumed: WaitQueue::new(),
            shown_back: Mutex::default(),
            has_closed: AtomicBool::new(false),
            exit_code: AtomicU32::new(0),
            thread: Mutex::new(None),
        })
    }

    /// The number of this thread. It changes once at most: when a thread that is not the first executes a program,
    /// it takes the process's number.
    #[inline]
    pub fn tid(&self) -> Pid {
        self.tid.load(Ordering::Relaxed) as Pid
    }

    pub(super) fn set_tid(&self, tid: Pid) {
        self.tid.store(tid as u32, Ordering::Relaxed);
    }

    /// The table of open files.
    pub fn files(&self) -> Arc<FileTable> {
        self.files.lock().clone()
    }

    /// The open file of a descriptor, for doing something with it.
    #[inline]
    pub fn file(&self, fd: u32) -> Result<Arc<File>> {
        // The table's own lock is a leaf, too, and nothing else is locked inside this one.
        self.files.lock().get(fd)
    }

    /// Use another table of open files; the old one is handed back, to be dropped where sleeping is allowed.
    pub fn replace_files(&self, files: Arc<FileTable>) -> Arc<FileTable> {
        core::mem::replace(&mut *self.files.lock(), files)
    }

    /// Root, working directory and umask.
    pub fn fs(&self) -> Arc<FsContext> {
        self.fs.lock().clone()
    }

    /// Have root, directory and umask for itself alone.
    pub fn unshare_fs(&self) {
        let own = self.fs().fork_copy();
        drop(self.replace_fs(own));
    }

    pub(super) fn replace_fs(&self, fs: Arc<FsContext>) -> Arc<FsContext> {
        core::mem::replace(&mut *self.fs.lock(), fs)
    }

    /// Who the task acts as.
    pub fn cred(&self) -> Arc<Cred> {
        self.cred.lock().clone()
    }

    /// The real user that it acts as.
    #[inline]
    pub fn uid(&self) -> u32 {
        self.cred.lock().uid
    }

    /// Who changes who it acts as no longer hears of its parent's end (`prctl(PR_SET_PDEATHSIG)`), and is looked at by nobody unless
    /// `fs.suid_dumpable` says so.
    pub fn set_cred(&self, cred: Arc<Cred>) {
        let ids = |cred: &Cred| [cred.euid, cred.egid, cred.fsuid, cred.fsgid];
        let old = core::mem::replace(&mut *self.cred.lock(), cred.clone());
        if ids(&old) != ids(&cred) || cred.caps.permitted & !old.caps.permitted != 0 {
            self.death_signal.store(0, Ordering::Relaxed);
            let how = pattern::SUID.load(Ordering::Relaxed) as u32;
            self.process.dumpable.store(how, Ordering::Relaxed);
        }
    }

    /// The program it runs; `None` once it has ended.
    pub fn image(&self) -> Option<Arc<Image>> {
        self.image.lock().clone()
    }

    pub(super) fn replace_image(&self, image: Option<Arc<Image>>) -> Option<Arc<Image>> {
        core::mem::replace(&mut *self.image.lock(), image)
    }

    /// Its name, padded with zeroes (`comm`).
    pub fn name(&self) -> [u8; NAME_LEN] {
        *self.name.lock()
    }

    /// Set the name: the first 15 bytes of it.
    pub fn set_name(&self, name: &[u8]) {
        *self.name.lock() = short_name(name);
    }

    /// The blocked signals.
    pub fn mask(&self) -> SigSet {
        SigSet(self.mask.load(Ordering::Relaxed))
    }

    /// The signals that wait for this very task.
    pub fn pending_set(&self) -> SigSet {
        self.pending.set()
    }

    /// The signals that wait for it, or for its process, one after the other from the `first` on, until `f` says no.
    pub fn look_at_queue(&self, shared: bool, first: u64, f: &mut dyn FnMut(&SigInfo) -> bool) {
        let queue = if shared { &self.process.pending } else { &self.pending };
        queue.look(first, f);
    }

    /// The signals that it is no use to wake the task for.
    pub(super) fn deaf_to(&self) -> SigSet {
        SigSet(self.mask.load(Ordering::SeqCst) & !self.awaited.load(Ordering::SeqCst))
    }

    /// Wake for these signals though they are blocked.
    pub fn await_signals(&self, signals: SigSet) {
        self.awaited.store(signals.0, Ordering::SeqCst);
    }

    /// Bind the kernel thread that runs this task.
    pub(super) fn set_thread(&self, thread: Option<Arc<Thread>>) {
        let old = core::mem::replace(&mut *self.thread.lock(), thread);
        drop(old);
    }

    /// The kernel thread that runs this task, if it has started.
    pub fn thread(&self) -> Option<Arc<Thread>> {
        self.thread.lock().clone()
    }

    /// Less than any urgency.
    pub const NOTHING_LENT: i32 = -1;

    /// How urgent it is by its own policy: 0 for `SCHED_IDLE`, 1 to 40 by its nice value, and above that by priority.
    fn own_urgency(&self) -> i32 {
        match self.policy.load(Ordering::Relaxed) {
            abi::SCHED_FIFO | abi::SCHED_RR => REAL_TIME + self.priority.load(Ordering::Relaxed) as i32,
            abi::SCHED_IDLE => 0,
            _ => 20 - self.nice.load(Ordering::Relaxed),
        }
    }

    /// How urgent it is, what others lend it included.
    pub fn urgency(&self) -> i32 {
        self.own_urgency().max(self.lent.load(Ordering::SeqCst))
    }

    /// Have the scheduler heed its nice value and policy, or what is lent to it.
    pub fn weigh(&self) {
        let Some(thread) = self.thread() else { return };
        let lent = self.lent.load(Ordering::SeqCst);
        if lent > self.own_urgency() {
            match lent - REAL_TIME {
                priority @ 1.. => thread.set_real_time(priority as u32, false),
                _ => thread.set_nice(20 - lent, false),
            }
        } else {
            match self.policy.load(Ordering::Relaxed) {
                policy @ (abi::SCHED_FIFO | abi::SCHED_RR) => {
                    thread.set_real_time(self.priority.load(Ordering::Relaxed), policy == abi::SCHED_RR)
                }
                policy => thread.set_nice(self.nice.load(Ordering::Relaxed), policy == abi::SCHED_IDLE),
            }
        }
        thread.reorder();
    }

    /// Ask for rare work, and get the task to look soon: an interruptible wait of its ends.
    pub fn ask(&self, bits: u32) {
        self.work.fetch_or(bits, Ordering::SeqCst);
        if let Some(thread) = &*self.thread.lock() {
            thread.interrupt();
        }
    }

    /// Time it has used.
    pub fn usage(&self) -> Usage {
        let Some(thread) = self.thread() else { return Usage::default() };
        let (voluntary, involuntary) = thread.switched();
        let (user, system) = thread.cpu_times();
        Usage { user, system, voluntary, involuntary, ..Usage::default() }
    }

    /// Whether its calls are done without being looked at, but for a tracer.
    pub fn is_unguarded(&self) -> bool {
        matches!(*self.guard.lock(), Guard::Nothing) && self.dispatch.lock().is_none()
    }

    /// Put a guard before its calls, for another thread of its process.
    pub fn set_guard(&self, guard: Guard) {
        let old = core::mem::replace(&mut *self.guard.lock(), guard);
        drop(old);
        self.guard_changed();
    }

    /// Something stands before its calls: on whichever CPU it runs, it hears of it now.
    pub fn guard_changed(&self) {
        self.work.fetch_or(work::GUARD, Ordering::SeqCst);
        if let Some(thread) = self.thread() {
            thread.poke();
        }
    }

    /// Whether somebody traces it.
    #[inline]
    pub fn is_traced(&self) -> bool {
        self.traced.load(Ordering::SeqCst)
    }

    /// What the end of this task alone tells its tracer.
    pub(super) fn exit_info(&self, status: Status) -> SigInfo {
        let (code, value) = status.to_info();
        SigInfo::child(abi::SIGCHLD, code, self.tid(), self.cred().uid, value, 0, 0)
    }

    /// Whether it has been told to end.
    pub fn is_ending(&self) -> bool {
        self.work.load(Ordering::SeqCst) & work::EXIT != 0
    }

    /// Whether an interruptible call should give up: rare work is waiting.
    pub fn has_work(&self) -> bool {
        self.work.load(Ordering::SeqCst) & !(work::RSEQ | work::GUARD | work::TRACE | work::SEGMENTS) != 0
    }
}

/// The first 15 bytes of a name, padded with zeroes.
pub fn short_name(name: &[u8]) -> [u8; NAME_LEN] {
    let mut short = [0; NAME_LEN];
    let len = name.iter().position(|&b| b == 0).unwrap_or(name.len()).min(NAME_LEN - 1);
    short[..len].copy_from_slice(&name[..len]);
    short
}

/// The task that the running kernel thread belongs to; `None` on the kernel's own threads.
pub fn current_task() -> Option<Arc<Task>> {
    sched::current().owner().cloned()?.downcast::<Task>().ok()
}
