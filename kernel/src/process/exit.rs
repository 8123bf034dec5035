//! The end of tasks and processes.
//!
//! ```text
//!   exit        one task ends itself                       ─┐
//!   exit_group, fatal signals:  end_process marks them all ─┴▶ each leaves its loop ─▶ task_ends
//!                                                                  the last one out ─▶ process_ends
//! ```
//!
//! Nobody ends another task: it is asked to ([`work::EXIT`]), wakes if it waits, and ends itself, on its own stack with
//! nothing held. What costs time or may sleep (unmapping, closing files) happens before anyone is told of the end,
//! so a parent that has seen the end finds the memory free and the pipes closed.

use super::files::FileTable;
use super::process::Process;
use super::run::Caller;
use super::signal::{self, SigInfo, SigSet};
use super::task::{Task, work};
use super::wait::{self, Status};
use super::{Image, futex, start, sysv, table, trace};
use crate::arch::user;
use crate::fs;
use crate::mem::memory;
use crate::sched;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as abi;

/// Tell all tasks of the process to end. The first status given is the one that stays.
pub fn end_process(process: &Arc<Process>, status: Status) {
    {
        let mut tasks = process.tasks.lock();
        tasks.ending.get_or_insert(status);
        tasks.stopped = None;
    }
    for task in process.tasks() {
        task.ask(work::EXIT);
        trace::let_go(&task);
    }
    process.parked.wake_all();
}

/// The calling task ends itself, alone (`exit`).
pub fn end_task(caller: &mut Caller, code: u8) {
    let task = &caller.task;
    task.exit_code.store(u32::from(code), Ordering::Relaxed);
    if task.tid() == task.process.pid {
        task.process.tasks.lock().leader_code = code;
    }
    task.work.fetch_or(work::EXIT, Ordering::SeqCst);
}

/// How a task ends that is about to.
pub(super) fn status_of(task: &Task) -> Status {
    let ending = task.process.tasks.lock().ending;
    ending.unwrap_or(Status::Exited(task.exit_code.load(Ordering::Relaxed) as u8))
}

/// The last thing a task does.
pub(super) fn task_ends(caller: Caller) {
    let Caller { task, image, .. } = caller;
    // Interrupted already or not, the waits below are no longer a program's.
    sched::clear_interrupt();
    let process = task.process.clone();
    let robust = task.robust_list.load(Ordering::Relaxed);
    if robust != 0 {
        futex::exit_robust_list(image.space(), robust, task.tid() as u32);
    }
    super::pi::holder_ends(&task);
    let cleared = task.clear_child_tid.load(Ordering::Relaxed);
    if cleared != 0 && Arc::strong_count(&image) > 2 && user::write_u32(cleared, 0).is_ok() {
        futex::wake_word(image.space(), cleared);
    }
    // Signals that this task was to take for the process are another's now.
    task.mask.store(!0, Ordering::SeqCst);
    signal::offer(&task, SigSet(!0));

    if process.tasks.lock().list.len() == 1 {
        process.leave_image(&image);
    }
    sched::current().set_space(None);
    drop(task.replace_image(None));
    let looked_at = Arc::downgrade(&image);
    drop(image);
    drop(task.replace_files(Arc::new(FileTable::new())));
    // Who is asked about its calls sees that there will be none.
    let guard = core::mem::take(&mut *task.guard.lock());
    drop(guard);
    if let Some(idle) = start::idle_fs() {
        drop(task.replace_fs(idle));
    }
    crate::mem::trim();

    process.times.lock().dead_tasks.add(&task.usage());
    let last = {
        let mut tasks = process.tasks.lock();
        tasks.list.retain(|t| !Arc::ptr_eq(t, &task));
        tasks.list.is_empty()
    };
    trace::tracer_ends(&task);
    trace::task_ends(&task, status_of(&task));
    table::remove_task(task.tid());
    // One that executes a program waits for the others to go.
    process.parked.wake_all();
    if last {
        if let Some(image) = looked_at.upgrade() {
            leave_image(image);
        }
        process_ends(&process, &task);
    }
    task.set_thread(None);
    start::process_has_ended();
}

/// Somebody still holds the memory of a process that has gone: another that shares it, or one who only looks at it.
#[cold]
fn leave_image(image: Arc<Image>) {
    let own = |task: Arc<Task>| task.image().is_some_and(|i| Arc::ptr_eq(&i, &image));
    if !table::each_process().any(|process| process.any_task().is_some_and(own)) {
        memory().leave_space(image.space());
    }
}

/// The process has no task any more.
fn process_ends(process: &Arc<Process>, last: &Task) {
    release_parent(process);
    if process.session() == process.pid {
        fs::tty::job::leader_ends(process.pid as u32);
    }
    let status = {
        let tasks = process.tasks.lock();
        tasks.ending.unwrap_or(Status::Exited(tasks.leader_code))
    };
    let uid = last.cred().uid;
    process.uid.store(uid, Ordering::Relaxed);
    sysv::sem::process_ends(process.pid);
    process.aio.clear();
    let observed = trace::is_observed(process);
    let ended = table::end(process, status, observed || is_wanted(process));
    process.set_ended();
    for orphan in ended.orphans.iter().filter_map(|pid| table::process(*pid)) {
        for task in orphan.tasks() {
            let signo = task.death_signal.load(Ordering::Relaxed);
            if signo != 0 {
                let info = SigInfo::user(signo, abi::SI_USER as i32, process.pid, uid);
                let _ = signal::to_task(&task, info);
            }
        }
    }
    if let Some(heir) = &ended.heir {
        // Some of them may have ended already.
        wait::notify(heir);
    }
    for group in ended.orphaned_groups {
        let _ = signal::to_group(group, SigInfo::kernel(abi::SIGHUP));
        let _ = signal::to_group(group, SigInfo::kernel(abi::SIGCONT));
    }
    if observed && trace::process_ends(process, end_info(process, abi::SIGCHLD, status), status) {
        // The parent's turn comes with `tell_parent`.
        return;
    }
    if observed && !is_wanted(process) {
        table::remove(process.pid);
    }
    if let Some(parent) = ended.parent {
        tell(&parent, process, status);
    }
}

/// Whether the parent wants to wait for it.
fn is_wanted(process: &Process) -> bool {
    table::process(process.parent()).is_some_and(|p| {
        let action = p.actions().lock().get(abi::SIGCHLD);
        process.exit_signal() != abi::SIGCHLD
            || action.handler != signal::Action::IGNORE && !action.is(abi::SA_NOCLDWAIT)
    })
}

fn end_info(process: &Process, signo: u32, status: Status) -> SigInfo {
    let (code, value) = status.to_info();
    let usage = process.usage();
    let (user, system) = (usage.user / NS_PER_TICK, usage.system / NS_PER_TICK);
    let uid = process.uid.load(Ordering::Relaxed);
    SigInfo::child(signo, code, process.pid, uid, value, user, system)
}

/// The signal comes before what `wait` has to say, and neither comes without the other.
fn tell(parent: &Arc<Process>, process: &Arc<Process>, status: Status) {
    let exit_signal = process.exit_signal();
    if exit_signal != 0 {
        let _ = signal::to_process(parent, end_info(process, exit_signal, status));
    }
    wait::notify(table::told(process).as_ref().unwrap_or(parent));
}

/// A process ended while another than its parent traced it. That one has heard of it; now the parent does.
pub(super) fn tell_parent(process: &Arc<Process>) {
    let Some(status) = table::status_of(process) else { return };
    let parent = table::process(process.parent()).filter(|parent| !parent.has_ended());
    if !is_wanted(process) && process.pid != table::FIRST {
        table::remove(process.pid);
    }
    if let Some(parent) = parent {
        tell(&parent, process, status);
    }
}

/// `sysconf(_SC_CLK_TCK)` is 100.
pub const NS_PER_TICK: u64 = 10_000_000;

/// A `vfork` parent may go on: this process no longer uses its memory.
pub(super) fn release_parent(process: &Process) {
    if !process.released.swap(true, Ordering::SeqCst) {
        process.release.wake_all();
    }
}
