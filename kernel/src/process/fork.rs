//! New tasks: `fork`, `vfork`, `clone`, `clone3` are one operation with different things shared.
//!
//! | shared with the parent | by | else |
//! |---|---|---|
//! | memory (image) | `CLONE_VM` | a copy, copied page by page when written |
//! | open files | `CLONE_FILES` | a table of its own, of the same open files |
//! | root, directory, umask | `CLONE_FS` | a copy |
//! | signal actions | `CLONE_SIGHAND` | a copy |
//! | the process itself | `CLONE_THREAD` | a new process, child of this one |
//!
//! All that can fail is done before anyone can see the new task; then it is entered in the tables; last, its kernel
//! thread starts, and if even that fails the entries are taken out again.

use super::image::Image;
use super::process::Process;
use super::run::{self, Caller};
use super::task::{Task, TaskParts, work};
use super::{Pid, commit, pidfd, table, trace};
use crate::arch::smp;
use crate::arch::user::{self};
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::mem;
use crate::sched::{self, WaitResult};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use hafez_mm::MmError;
use hafez_mm::lock::{Mutex, Once};
use linux_raw_sys::general as abi;
use linux_raw_sys::ptrace::{
    PTRACE_EVENT_CLONE, PTRACE_EVENT_FORK, PTRACE_EVENT_VFORK, PTRACE_EVENT_VFORK_DONE,
};

/// What `clone` and `clone3` are told.
#[derive(Clone, Copy, Default, Debug)]
pub struct CloneArgs {
    /// `CLONE_*`, without the signal in the low byte.
    pub flags: u64,
    /// The child's first stack pointer; 0: the parent's.
    pub stack: u64,
    /// Signal that its end sends to its parent; 0 for none.
    pub exit_signal: u32,
    pub parent_tid: u64,
    pub child_tid: u64,
    pub tls: u64,
    /// Where the descriptor of the new process goes (`CLONE_PIDFD`).
    pub pidfd: u64,
    /// The number that the new task shall have; 0: any.
    pub number: Pid,
}

/// Namespaces and the like that there are not.
const UNSUPPORTED: u64 = (abi::CLONE_NEWNS
    | abi::CLONE_NEWCGROUP
    | abi::CLONE_NEWUTS
    | abi::CLONE_NEWIPC
    | abi::CLONE_NEWUSER
    | abi::CLONE_NEWPID
    | abi::CLONE_NEWNET
    | abi::CLONE_NEWTIME) as u64
    | abi::CLONE_INTO_CGROUP;

/// Heap that one more task takes, in small blocks: its structures, its share of tables.
const TASK_COST: usize = 8 << 10;
/// Frames of it that should be free: its stack, and the first of its page tables.
const TASK_FRAMES: u32 = 8;
/// And for the first page tables of a copy of a space, and the heap that grows.
const COPY_FRAMES: u32 = 48;

/// Tasks that there can be: what the kernel holds for them is out of reclaim's reach, so all together may have half of the RAM.
pub fn max_tasks() -> &'static u64 {
    static MAX: Once<u64> = Once::new();
    MAX.call_once(|| (mem::memory().stats().total / 2 / TASK_FRAMES as u64).clamp(32, 1 << 14))
}

/// Tasks that there may be, if somebody has said so: `/proc/sys/kernel/threads-max`.
pub static THREADS_MAX: AtomicU64 = AtomicU64::new(u64::MAX);

/// Make a task; its number.
pub fn clone(caller: &mut Caller, args: &CloneArgs) -> Result<Pid> {
    let has = |flag: u32| args.flags & flag as u64 != 0;
    check(args)?;
    let task = caller.task.clone();
    let process = task.process.clone();
    if has(abi::CLONE_PARENT) && process.parent() == 0 {
        // The first program's parent is outside, where there are no other children.
        return Err(Errno::EINVAL);
    }
    let tasks = table::task_count() as u64;
    let free = task.cred().uid == 0 || task.cred().may(cap::SYS_RESOURCE) || task.cred().may(cap::SYS_ADMIN);
    let bound = tasks >= process.limits.soft(abi::RLIMIT_NPROC) && !free;
    if bound || tasks >= THREADS_MAX.load(Ordering::Relaxed).min(*max_tasks()) {
        return Err(Errno::EAGAIN);
    }
    // What is the kernel's own fails where programs have taken all: make room while nothing is held.
    mem::memory().make_headroom(TASK_FRAMES);
    if !mem::headroom(TASK_COST) {
        return Err(Errno::EAGAIN);
    }
    if task.has_work() {
        // A signal to the group either finds the child or comes before it is made: deal with it, then again.
        return Err(Errno::RESTART_NOINTR);
    }

    let mut user = caller.user.try_clone().map_err(|_| Errno::ENOMEM)?;
    user.rax = 0;
    trace::unflag(caller, &mut user);
    if args.stack != 0 {
        user.set_rsp(args.stack);
    }
    if has(abi::CLONE_SETTLS) {
        if !user::in_user_half(args.tls, 0) {
            return Err(Errno::EPERM);
        }
        user.set_fs_base(args.tls);
    }
    let image = if has(abi::CLONE_VM) {
        if !has(abi::CLONE_VFORK) && mem::memory().divide(caller.space(), smp::count()) {
            sched::reload_space();
        }
        caller.image.clone()
    } else {
        if commit::MODE.load(Ordering::Relaxed) == commit::STRICT {
            commit::check(&task, caller.space().promised(), true)?;
        }
        Arc::new(copy_image(caller)?)
    };
    let tid = match args.number {
        0 => table::new_number()?,
        number => table::claim_number(number).map(|()| number)?,
    };
    let child_process =
        if has(abi::CLONE_THREAD) { process.clone() } else { new_process(tid, &process, task.tid(), args) };
    let parts = TaskParts {
        files: if has(abi::CLONE_FILES) { task.files() } else { task.files().fork_copy()? },
        fs: if has(abi::CLONE_FS) { task.fs() } else { task.fs().fork_copy() },
        cred: task.cred(),
        image: image.clone(),
        name: task.name(),
        mask: task.mask(),
    };
    let child = Task::new(tid, child_process.clone(), parts);
    *child.guard.lock() = task.guard.lock().clone();
    child.io_priority.store(task.io_priority.load(Ordering::Relaxed), Ordering::Relaxed);
    child.timer_slack.store(task.timer_slack.load(Ordering::Relaxed), Ordering::Relaxed);
    child.machine_check.store(task.machine_check.load(Ordering::Relaxed), Ordering::Relaxed);
    child.io_flusher.store(task.io_flusher.load(Ordering::Relaxed), Ordering::Relaxed);
    child.nodes.store(task.nodes.load(Ordering::Relaxed), Ordering::Relaxed);
    let nice = task.nice.load(Ordering::Relaxed);
    if task.reset_on_fork.load(Ordering::Relaxed) {
        child.nice.store(nice.max(0), Ordering::Relaxed);
    } else {
        child.nice.store(nice, Ordering::Relaxed);
        child.policy.store(task.policy.load(Ordering::Relaxed), Ordering::Relaxed);
        child.priority.store(task.priority.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    if !has(abi::CLONE_THREAD) {
        child_process.timers.watch_cpu_limit(&child_process)?;
    }
    if !has(abi::CLONE_VM) {
        child.rseq.copy_from(&task.rseq);
    }
    if has(abi::CLONE_CHILD_CLEARTID) {
        child.clear_child_tid.store(args.child_tid, Ordering::Relaxed);
    }

    let pidfd =
        if has(abi::CLONE_PIDFD) { Some(give_pidfd(&task, &child_process, args.pidfd)?) } else { None };
    let take_back = |e: Errno| {
        if let Some(fd) = pidfd {
            let _ = task.files().close(fd);
        }
        e
    };
    // For its stack: the copy may have had what was there.
    mem::memory().make_headroom(TASK_FRAMES);
    enter(&process, &child, args).map_err(take_back)?;
    let event = told_event(caller, args);
    if task.is_traced() && (event.is_some() || has(abi::CLONE_PTRACE)) {
        trace::inherit(&task, &child);
    }
    if has(abi::CLONE_PARENT_SETTID) {
        let _ = user::write_u32(args.parent_tid, tid as u32);
    }
    let set_tid = if has(abi::CLONE_CHILD_SETTID) { args.child_tid } else { 0 };
    let mut own = Caller::new(child.clone(), image, user);
    // A thread must not run a handler on its maker's stack; the child of a vfork does nothing meanwhile.
    if !has(abi::CLONE_VM) || has(abi::CLONE_VFORK) {
        own.alt_stack = caller.alt_stack;
    }
    if let Err(e) = launch(own, set_tid) {
        leave(&child);
        return Err(take_back(e));
    }
    if let Some(event) = event {
        trace::event(caller, event, tid as u64);
    }
    if has(abi::CLONE_VFORK) {
        wait_for_release(&task, &child_process);
        trace::event(caller, PTRACE_EVENT_VFORK_DONE, tid as u64);
    }
    Ok(tid)
}

/// The event that this is to the maker's tracer, if it wants to hear of such.
fn told_event(caller: &Caller, args: &CloneArgs) -> Option<u32> {
    let event = match args.exit_signal {
        _ if args.flags & abi::CLONE_UNTRACED as u64 != 0 => return None,
        _ if args.flags & abi::CLONE_VFORK as u64 != 0 => PTRACE_EVENT_VFORK,
        abi::SIGCHLD => PTRACE_EVENT_FORK,
        _ => PTRACE_EVENT_CLONE,
    };
    trace::option(caller, 1 << event).then_some(event)
}

/// The caller's space once more. Where frames are short the regions' copies may take the heap's whole reserve, and an attempt that
/// fails for that changes nothing: then the reserve is filled, which may have to wait, and the next finds the heap large enough.
fn copy_image(caller: &Caller) -> Result<Image> {
    const TRIES: u32 = 8;
    for _ in 0..TRIES {
        match caller.image.fork() {
            Err(MmError::NoMemory) if !mem::is_ready() => {
                mem::refill(caller.image.account());
                mem::memory().make_headroom(COPY_FRAMES);
            }
            done => return Ok(done?),
        }
    }
    Err(Errno::ENOMEM)
}

/// Which flags go together (`clone(2)`, ERRORS).
fn check(args: &CloneArgs) -> Result<()> {
    let has = |flag: u32| args.flags & flag as u64 != 0;
    let clear = args.flags & abi::CLONE_CLEAR_SIGHAND != 0;
    let wrong = args.flags & UNSUPPORTED != 0
        || has(abi::CLONE_THREAD) && !has(abi::CLONE_SIGHAND)
        || has(abi::CLONE_SIGHAND) && !has(abi::CLONE_VM)
        || has(abi::CLONE_SIGHAND) && clear
        || has(abi::CLONE_PIDFD) && has(abi::CLONE_THREAD)
        || args.exit_signal > super::signal::LAST;
    if wrong { Err(Errno::EINVAL) } else { Ok(()) }
}

/// A descriptor of the new process, for its maker. Nobody else sees it before the process is there.
fn give_pidfd(maker: &Task, process: &Arc<Process>, at: u64) -> Result<u32> {
    let file = pidfd::open(process, false)?;
    let limit = maker.process.limits.soft(abi::RLIMIT_NOFILE);
    let fd = maker.files().insert(file, true, 0, limit)?;
    if let Err(e) = user::write_u32(at, fd) {
        let _ = maker.files().close(fd);
        return Err(e.into());
    }
    Ok(fd)
}

fn new_process(pid: Pid, parent: &Arc<Process>, maker: Pid, args: &CloneArgs) -> Arc<Process> {
    let actions = if args.flags & abi::CLONE_SIGHAND as u64 != 0 {
        parent.actions()
    } else {
        let mut copy = parent.actions().lock().clone();
        if args.flags & abi::CLONE_CLEAR_SIGHAND != 0 {
            copy.clear_handlers();
        }
        Arc::new(Mutex::new(copy))
    };
    let sibling = args.flags & abi::CLONE_PARENT as u64 != 0;
    let exit_signal = if sibling { parent.exit_signal() } else { args.exit_signal };
    let process = Process::new(pid, actions, parent.limits.clone(), exit_signal);
    process.maker.store(maker, Ordering::Relaxed);
    process.dumpable.store(parent.dumpable.load(Ordering::Relaxed), Ordering::Relaxed);
    process.dump_filter.store(parent.dump_filter.load(Ordering::Relaxed), Ordering::Relaxed);
    process.no_new_privileges.store(parent.no_new_privileges.load(Ordering::Relaxed), Ordering::Relaxed);
    process.no_huge_pages.store(parent.no_huge_pages.load(Ordering::Relaxed), Ordering::Relaxed);
    let no_new_code = parent.no_new_code.load(Ordering::Relaxed);
    if no_new_code & linux_raw_sys::prctl::PR_MDWE_NO_INHERIT == 0 {
        process.no_new_code.store(no_new_code, Ordering::Relaxed);
    }
    process.personality.store(parent.personality.load(Ordering::Relaxed), Ordering::Relaxed);
    process.detached.store(parent.detached.load(Ordering::Relaxed), Ordering::Relaxed);
    process.oom_adjust.store(parent.oom_adjust.load(Ordering::Relaxed), Ordering::Relaxed);
    process
}

/// Make the child known. From here on signals find it.
fn enter(process: &Arc<Process>, child: &Arc<Task>, args: &CloneArgs) -> Result<()> {
    let thread = args.flags & abi::CLONE_THREAD as u64 != 0;
    {
        let mut tasks = child.process.tasks.lock();
        if tasks.ending.is_some() || tasks.executing.is_some() {
            return Err(Errno::RESTART_NOINTR);
        }
        tasks.add(child).map_err(|_| Errno::EAGAIN)?;
        if tasks.stopped.is_some() {
            child.work.fetch_or(work::STOP, Ordering::SeqCst);
        }
    }
    table::add_task(child);
    if !thread {
        table::add(&child.process, Some(process), args.flags & abi::CLONE_PARENT as u64 != 0);
    }
    Ok(())
}

/// Undo `enter`: the kernel thread could not be made.
fn leave(child: &Arc<Task>) {
    trace::never_ran(child);
    let empty = {
        let mut tasks = child.process.tasks.lock();
        tasks.list.retain(|t| !Arc::ptr_eq(t, child));
        tasks.list.is_empty()
    };
    table::remove_task(child.tid());
    if empty {
        table::remove(child.process.pid);
    }
}

/// Start the kernel thread of a task. `set_tid`: where the task writes its number into its own memory first; 0: nowhere.
pub(super) fn launch(caller: Caller, set_tid: u64) -> Result<()> {
    let task = caller.task.clone();
    let owner: sched::Owner = task.clone();
    // The new thread is scheduled as this one is, unless that is not for children.
    let differs = super::current_task().is_some_and(|maker| maker.reset_on_fork.load(Ordering::Relaxed));
    let body = move || {
        let thread = sched::current();
        thread.set_space(Some(caller.space().clone()));
        if caller.task.has_work() {
            thread.interrupt();
        }
        if set_tid != 0 {
            let _ = user::write_u32(set_tid, caller.task.tid() as u32);
        }
        run::run(caller);
    };
    let thread = sched::prepare("task", Box::new(body), Some(owner)).map_err(|_| Errno::EAGAIN)?;
    // Whoever knows its number can give it a policy or a CPU before it has run.
    task.set_thread(Some(thread.clone()));
    if differs {
        task.weigh();
    }
    sched::start(thread);
    Ok(())
}

/// The parent of a `vfork` lends its memory, and waits until the child has its own or is gone. Only its own end gets it
/// out earlier.
fn wait_for_release(parent: &Task, child: &Process) {
    let free = || child.released.load(Ordering::SeqCst);
    while child.release.wait_until(free, None, true) == WaitResult::Interrupted {
        // In this order: an end that is asked for after the look interrupts the next wait.
        sched::clear_interrupt();
        if parent.is_ending() {
            break;
        }
    }
}
