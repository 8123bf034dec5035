//! A process: tasks that share a number, signal actions, limits and an end.
//!
//! Who is whose parent, which group and session a process is in, and whether it still lives, stands in one table
//! under one lock (`table.rs`); the numbers that calls ask for all the time are copied here as atomics, written under
//! that lock and read without it.

use super::Pid;
use super::aio::Contexts;
use super::dump::{Dump, dumpable, filter};
use super::image::Image;
use super::limits::Limits;
use super::signal::{Action, Actions, Pending, SigSet};
use super::task::Task;
use super::timers::Timers;
use crate::fs::poll::Signal;
use crate::mem::memory;
use crate::sched::WaitQueue;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use hafez_mm::lock::{Mutex, Once};

/// One process.
pub struct Process {
    /// Its number: that of its first task.
    pub pid: Pid,
    /// Copies of what the table says, for calls that only ask.
    pub(super) parent: AtomicI32,
    pub(super) group: AtomicI32,
    pub(super) session: AtomicI32,
    /// Whether it has executed a program since its fork (`setpgid` of a child then fails).
    pub(super) executed: AtomicBool,
    /// Its living tasks. The lock also orders "last task out" and "kill them all".
    pub(super) tasks: Mutex<Tasks>,
    /// What to do on each signal; shared by `CLONE_SIGHAND`.
    actions: Mutex<Arc<Mutex<Actions>>>,
    /// Signals sent to the process as a whole: any task that does not block one takes it.
    pub(super) pending: Pending,
    /// Notified when a signal comes, once somebody waits for that (`signalfd`).
    pub(super) signal_came: Once<Arc<Signal>>,
    /// `setrlimit`.
    pub limits: Limits,
    /// `setitimer`, `timer_create`.
    pub timers: Timers,
    /// `io_setup`.
    pub aio: Contexts,
    /// `oom_score_adj`: -1000 to 1000.
    pub oom_adjust: AtomicI32,
    /// Counts changes of its children; `wait` sleeps on the queue until it moves.
    pub(super) changes: AtomicU32,
    pub(super) child_changed: WaitQueue,
    /// Tasks that are stopped wait here; and the one that executes a program waits for the others to go.
    pub(super) parked: WaitQueue,
    /// Signal that its end sends to the parent (0: none).
    pub(super) exit_signal: AtomicU32,
    /// Times and faults of its dead tasks, and of its waited-for children.
    pub times: Mutex<Times>,
    /// A `vfork` parent waits until this is set: the child has its own image, or is gone.
    pub(super) released: AtomicBool,
    pub(super) release: WaitQueue,
    /// Set when its last task is gone; and who wants to know of that.
    ended: AtomicBool,
    end_signal: Arc<Signal>,
    /// Nanoseconds since boot when it began.
    pub started: u64,
    /// Most pages ever resident, kept over `exec` and the end of the image.
    pub(super) peak: AtomicU64,
    /// `PR_SET_DUMPABLE` (see `dump`).
    pub dumpable: AtomicU32,
    /// `coredump_filter`: what kinds of memory a core file has.
    pub dump_filter: AtomicU32,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: AtomicBool,
    /// `PR_SET_THP_DISABLE`.
    pub no_huge_pages: AtomicBool,
    /// `PR_MDWE_*`: no memory becomes executable that is, or was, written to.
    pub no_new_code: AtomicU32,
    /// `personality`: bits that `exec` looks at.
    pub personality: AtomicU32,
    /// It has given up its session's terminal (TIOCNOTTY).
    pub(super) detached: AtomicBool,
    /// The process that traces its first task (see `trace`); 0: none. And how many tasks its own trace.
    pub(super) tracer: AtomicI32,
    pub(super) tracees: AtomicU32,
    /// The task that made it.
    pub(super) maker: AtomicI32,
    /// Real user number, for those who look when all its tasks are gone.
    pub(super) uid: AtomicU32,
}

/// The tasks of a process, and how it is ending.
pub(super) struct Tasks {
    /// In the order in which they came, and so by their serial numbers.
    pub list: Vec<Arc<Task>>,
    /// Set when the process is told to end: the status that `wait` shall see.
    pub ending: Option<super::wait::Status>,
    /// A core file is being written.
    pub dump: Option<Arc<Dump>>,
    /// The task that executes a new program while the others must go.
    pub executing: Option<Pid>,
    /// Whether it is stopped, and by which signal.
    pub stopped: Option<u32>,
    /// The code that the first task ended with, if it ended alone.
    pub leader_code: u8,
}

impl Tasks {
    /// One more.
    pub fn add(&mut self, task: &Arc<Task>) -> Result<(), TryReserveError> {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        self.list.try_reserve(1)?;
        task.serial.store(SERIAL.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        self.list.push(task.clone());
        Ok(())
    }
}

/// Time used and faults taken. Times in nanoseconds.
#[derive(Clone, Copy, Default, Debug)]
pub struct Usage {
    pub user: u64,
    pub system: u64,
    pub minor: u64,
    pub major: u64,
    /// Largest resident set of any process in it, in pages.
    pub peak: u64,
    /// Times it gave up the CPU by waiting, and because another wanted it.
    pub voluntary: u64,
    pub involuntary: u64,
}

impl Usage {
    /// Sum, but for the peak, of which the larger counts.
    pub fn add(&mut self, other: &Usage) {
        self.user += other.user;
        self.system += other.system;
        self.minor += other.minor;
        self.major += other.major;
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
        self.peak = self.peak.max(other.peak);
    }
}

/// Usage that outlives the tasks that made it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Times {
    /// Of tasks of this process that have ended.
    pub dead_tasks: Usage,
    /// Of children that were waited for, theirs included.
    pub children: Usage,
}

impl Process {
    pub(super) fn new(
        pid: Pid,
        actions: Arc<Mutex<Actions>>,
        limits: Limits,
        exit_signal: u32,
    ) -> Arc<Process> {
        Arc::new(Process {
            pid,
            parent: AtomicI32::new(0),
            group: AtomicI32::new(pid),
            session: AtomicI32::new(pid),
            executed: AtomicBool::new(false),
            tasks: Mutex::new(Tasks {
                list: Vec::new(),
                ending: None,
                dump: None,
                executing: None,
                stopped: None,
                leader_code: 0,
            }),
            actions: Mutex::new(actions),
            pending: Pending::new(),
            signal_came: Once::new(),
            limits,
            timers: Timers::new(),
            aio: Contexts::default(),
            oom_adjust: AtomicI32::new(0),
            changes: AtomicU32::new(0),
            child_changed: WaitQueue::new(),
            parked: WaitQueue::new(),
            exit_signal: AtomicU32::new(exit_signal),
            times: Mutex::new(Times::default()),
            released: AtomicBool::new(false),
            release: WaitQueue::new(),
            ended: AtomicBool::new(false),
            end_signal: Signal::new(),
            started: crate::arch::time::now_ns(),
            peak: AtomicU64::new(0),
            dumpable: AtomicU32::new(dumpable::USER),
            dump_filter: AtomicU32::new(filter::FIRST),
            no_new_privileges: AtomicBool::new(false),
            no_huge_pages: AtomicBool::new(false),
            no_new_code: AtomicU32::new(0),
            personality: AtomicU32::new(0),
            detached: AtomicBool::new(false),
            tracer: AtomicI32::new(0),
            tracees: AtomicU32::new(0),
            maker: AtomicI32::new(0),
            uid: AtomicU32::new(0),
        })
    }

    /// Number of the parent; 0 where it is outside, 1 for the kernel in its role as `init`.
    #[inline]
    pub fn parent(&self) -> Pid {
        self.parent.load(Ordering::Relaxed)
    }

    /// The task that made it.
    pub fn maker(&self) -> Pid {
        self.maker.load(Ordering::Relaxed)
    }

    /// Number of the process group.
    pub fn group(&self) -> Pid {
        self.group.load(Ordering::Relaxed)
    }

    /// Number of the session.
    pub fn session(&self) -> Pid {
        self.session.load(Ordering::Relaxed)
    }

    /// Real user number.
    pub fn uid(&self) -> u32 {
        self.any_task().map_or_else(|| self.uid.load(Ordering::Relaxed), |t| t.cred().uid)
    }

    /// Whether it has given up its session's terminal.
    pub fn detached(&self) -> bool {
        self.detached.load(Ordering::Relaxed)
    }

    /// Signal that its end sends to the parent.
    pub fn exit_signal(&self) -> u32 {
        self.exit_signal.load(Ordering::Relaxed)
    }

    /// The signals that wait for any of its tasks.
    pub fn pending_set(&self) -> SigSet {
        self.pending.set()
    }

    /// The signal actions.
    pub fn actions(&self) -> Arc<Mutex<Actions>> {
        self.actions.lock().clone()
    }

    /// What to do on one signal.
    #[inline]
    pub fn action(&self, signo: u32) -> Action {
        self.actions.lock().lock().get(signo)
    }

    pub(super) fn replace_actions(&self, actions: Arc<Mutex<Actions>>) {
        *self.actions.lock() = actions;
    }

    /// Its living tasks, first the oldest.
    /// One that ends, or is made, while they are gone through may be among them or not.
    pub fn tasks(&self) -> impl Iterator<Item = Arc<Task>> + '_ {
        let mut last = 0;
        core::iter::from_fn(move || {
            let tasks = self.tasks.lock();
            let next = tasks.list.partition_point(|t| t.serial.load(Ordering::Relaxed) <= last);
            let task = tasks.list.get(next)?.clone();
            last = task.serial.load(Ordering::Relaxed);
            Some(task)
        })
    }

    /// How many there are.
    pub fn task_count(&self) -> usize {
        self.tasks.lock().list.len()
    }

    /// Whether all its tasks are gone.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Notified when they are.
    pub fn end_signal(&self) -> &Arc<Signal> {
        &self.end_signal
    }

    pub(super) fn set_ended(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.end_signal.notify();
    }

    /// Any living task: the first one while it lives.
    pub fn any_task(&self) -> Option<Arc<Task>> {
        self.tasks.lock().list.first().cloned()
    }

    /// Whether the process has been told to end.
    pub fn is_ending(&self) -> bool {
        self.tasks.lock().ending.is_some()
    }

    /// Whether a core file of it is being written.
    pub fn is_dumping(&self) -> bool {
        self.tasks.lock().dump.is_some()
    }

    /// The signal that stopped it, while it is stopped.
    pub fn stopped(&self) -> Option<u32> {
        self.tasks.lock().stopped
    }

    /// The image is about to be left for good: keep what was counted of it. The child of a `vfork` lives in its parent's, which
    /// keeps its own count.
    pub(super) fn leave_image(&self, image: &Image) {
        let parent = super::table::process(self.parent()).and_then(|p| p.any_task()).and_then(|t| t.image());
        if parent.is_some_and(|p| p.space().id() == image.space().id()) {
            return;
        }
        let stat = memory().account(image.account());
        self.peak.fetch_max(stat.peak, Ordering::Relaxed);
        let mut times = self.times.lock();
        times.dead_tasks.minor += stat.minor;
        times.dead_tasks.major += stat.major;
    }

    /// What its tasks, living and dead, have used.
    pub fn usage(&self) -> Usage {
        let mut sum = self.times.lock().dead_tasks;
        for task in self.tasks() {
            sum.add(&task.usage());
        }
        sum.peak = sum.peak.max(self.peak.load(Ordering::Relaxed));
        if let Some(image) = self.any_task().and_then(|task| task.image()) {
            let stat = memory().account(image.account());
            sum.peak = sum.peak.max(stat.peak);
            sum.minor += stat.minor;
            sum.major += stat.major;
        }
        sum
    }

    /// The same with the children that it waited for.
    pub fn usage_with_children(&self) -> Usage {
        let mut sum = self.usage();
        sum.add(&self.times.lock().children);
        sum
    }
}
