//! Tracing (`ptrace(2)`): one task, the *tracer*, has another, its *tracee*, stop where something happens, looks at it and
//! changes it, and lets it go on. Debuggers and `strace` live on it.
//!
//! ```text
//!   tracee                                                 tracer
//!   a signal, a call, a fork, …
//!   stop.rs: shows its registers in TRACES, and sleeps ──▶ SIGCHLD; wait4 tells of it
//!                                                          reads and writes what is shown (`with_stopped`)
//!   takes back what was changed, goes on             ◀──── lets go (`resume`), perhaps with a signal
//! ```
//!
//! Nobody touches a task's registers but itself: a tracee that stops puts a copy of them ([`registers::Shown`]) where its tracer finds
//! it, and takes it back. So the tracer needs no rights to what is the tracee's own, and a tracee that is killed meanwhile
//! just leaves the copy there.
//!
//! Who traces whom stands in one table under one lock, a leaf that is held over nothing that sleeps or wakes. A task that nobody
//! traces has [`Task::is_traced`] false and pays nothing: a traced one's system calls go the way of unknown numbers
//! (`Caller::calls` is empty), as those with a filter do.
//!
//! A tracee that ends stays in the table until its tracer has waited for it. Where the tracer is not the parent, the parent hears of
//! the end of a process only then.
#![forbid(unsafe_code)]

pub mod registers;
mod stop;

pub use stop::{
    Steps, before_handler, debug_exception, ending, event, executed, leave_call, signalled, trap,
};
pub(crate) use stop::{enter_call, filtered, forget};
pub(super) use stop::{group_stop, option, stepped_into_handler, unflag};

use super::exit;
use super::process::Process;
use super::signal::{self, SigInfo};
use super::task::{Task, work};
use super::wait::{self, Selector, Status, Waited};
use super::{Pid, table};
use crate::errno::{Errno, Result};
use crate::mem;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use hafez_mm::lock::Mutex;
use linux_raw_sys::{general as abi, ptrace};
use registers::Shown;

/// The tracees, by their numbers.
static TRACES: Mutex<BTreeMap<Pid, Trace>> = Mutex::new(BTreeMap::new());

/// Heap that one more entry takes at most.
const COST: usize = 4096;

/// A tracee.
pub struct Trace {
    pub task: Arc<Task>,
    /// The task that traces it, and that one's process.
    tracer: Pid,
    of: Pid,
    /// By `PTRACE_SEIZE`: without a SIGSTOP, and with stops that can be told apart.
    pub seized: bool,
    /// `PTRACE_O_*`
    pub options: u32,
    /// The tracer may trace everybody: programs that it executes have what privileges they have.
    powerful: bool,
    /// What the last event told (`PTRACE_GETEVENTMSG`).
    pub message: u64,
    /// While it is stopped.
    stop: Option<Box<Stop>>,
    /// No wait has told of this stop yet.
    news: bool,
    /// How it ended.
    ended: Option<Status>,
}

/// Where it stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// At a system call, before it is done: what becomes of it can be changed. After it.
    Entry,
    Exit,
    /// Within a call that tells of an event.
    Within,
    /// Before a signal is delivered.
    Signal,
    /// At the end of its life.
    End,
    /// With its process, or because its tracer wanted so.
    Group,
}

/// A stop: what the tracer sees, and what it says about how to go on.
pub struct Stop {
    /// As `wait4` tells it: a signal, and an event above that.
    pub code: u32,
    pub info: Option<SigInfo>,
    pub moment: Moment,
    pub shown: Shown,
    /// It waits for what comes next, and cannot be looked at (`PTRACE_LISTEN`).
    listening: bool,
    /// The signal that it shall go on with, and how.
    signal: u32,
    how: How,
}

/// How a tracee goes on: until what.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct How {
    /// The next call, and its end.
    pub calls: bool,
    /// Calls are not done.
    pub emulate: bool,
    /// The next instruction.
    pub single: bool,
}

impl Trace {
    /// A tracee whose first tracer is `tracer`.
    fn new(task: &Arc<Task>, tracer: &Task, seized: bool, options: u32) -> Trace {
        Trace {
            task: task.clone(),
            tracer: tracer.tid(),
            of: tracer.process.pid,
            seized,
            options,
            powerful: tracer.cred().may(crate::fs::caps::cap::SYS_PTRACE),
            message: 0,
            stop: None,
            news: false,
            ended: None,
        }
    }

    fn is(&self, task: &Arc<Task>) -> bool {
        Arc::ptr_eq(&self.task, task)
    }

    /// Whether it is the first task of its process, whose end is the process's.
    fn leads(&self, tid: Pid) -> bool {
        self.task.process.pid == tid
    }
}

/// Begin to trace a task. EPERM if somebody does, or it has ended.
pub fn attach(tracer: &Task, task: &Arc<Task>, seized: bool, options: u32) -> Result<()> {
    if !mem::headroom(COST) {
        return Err(Errno::ENOMEM);
    }
    link(tracer, task, Trace::new(task, tracer, seized, options))?;
    // On whichever CPU it runs, its calls go the long way from now on.
    task.guard_changed();
    if task.process.stopped().is_some() {
        // It shall be seen stopped.
        task.ask(work::STOP);
        task.process.parked.wake_all();
    }
    Ok(())
}

fn link(tracer: &Task, task: &Arc<Task>, trace: Trace) -> Result<()> {
    let tid = task.tid();
    let mut traces = TRACES.lock();
    if traces.contains_key(&tid) || task.has_closed.load(Ordering::SeqCst) {
        return Err(Errno::EPERM);
    }
    tracer.process.tracees.fetch_add(1, Ordering::SeqCst);
    if trace.leads(tid) {
        task.process.tracer.store(trace.of, Ordering::SeqCst);
    }
    task.traced.store(true, Ordering::SeqCst);
    traces.insert(tid, trace);
    Ok(())
}

/// A child of a tracee that its tracer gets too; before it runs.
pub(super) fn inherit(maker: &Task, child: &Arc<Task>) {
    let trace = {
        let traces = TRACES.lock();
        let Some(of_maker) = traces.get(&maker.tid()) else { return };
        Trace {
            task: child.clone(),
            tracer: of_maker.tracer,
            of: of_maker.of,
            seized: of_maker.seized,
            options: of_maker.options,
            powerful: of_maker.powerful,
            message: 0,
            stop: None,
            news: false,
            ended: None,
        }
    };
    let (seized, tracer) = (trace.seized, table::task(trace.tracer));
    if let Some(tracer) = tracer.filter(|_| mem::headroom(COST))
        && link(&tracer, child, trace).is_ok()
    {
        if seized {
            child.work.fetch_or(work::TRAP, Ordering::SeqCst);
        } else {
            child.pending.push(SigInfo::user(abi::SIGSTOP, 0, 0, 0), u64::MAX);
            child.work.fetch_or(work::SIGNAL, Ordering::SeqCst);
        }
    }
}

/// Take an entry out. What it showed goes back to the tracee, if it waits for that.
fn unlink(traces: &mut BTreeMap<Pid, Trace>, tid: Pid) -> Option<Trace> {
    let mut trace = traces.remove(&tid)?;
    trace.task.traced.store(false, Ordering::SeqCst);
    if trace.leads(tid) {
        trace.task.process.tracer.store(0, Ordering::SeqCst);
    }
    if let Some(tracer) = table::process(trace.of) {
        tracer.tracees.fetch_sub(1, Ordering::SeqCst);
    }
    if let Some(stop) = trace.stop.take() {
        let unused = trace.task.shown_back.lock().replace(stop);
        debug_assert!(unused.is_none());
    }
    Some(trace)
}

/// Stop tracing. It goes on with `signal`, or stays stopped if its process is.
fn set_free(trace: Trace, tid: Pid) {
    match trace.ended {
        Some(_) if trace.leads(tid) => exit::tell_parent(&trace.task.process),
        Some(_) => {}
        None => {
            if trace.task.process.stopped().is_some() {
                trace.task.ask(work::STOP);
            }
            trace.task.resumed.wake_all();
        }
    }
}

/// `PTRACE_DETACH`
pub fn detach(tracer: &Task, tid: Pid, signal: u32) -> Result<()> {
    with_stopped(tracer, tid, |_, stop| {
        (stop.signal, stop.how) = (signal, How::default());
        Ok(())
    })?;
    let trace = unlink(&mut TRACES.lock(), tid);
    if let Some(trace) = trace {
        set_free(trace, tid);
    }
    Ok(())
}

/// The tracer ends: its tracees are free, or end with it (`PTRACE_O_EXITKILL`).
pub(super) fn tracer_ends(tracer: &Task) {
    if tracer.process.tracees.load(Ordering::SeqCst) == 0 {
        return;
    }
    loop {
        let mine = {
            let mut traces = TRACES.lock();
            let tid = traces.iter().find(|(_, t)| t.tracer == tracer.tid()).map(|(tid, _)| *tid);
            tid.and_then(|tid| Some((tid, unlink(&mut traces, tid)?)))
        };
        let Some((tid, trace)) = mine else { return };
        if trace.options & ptrace::PTRACE_O_EXITKILL != 0 && trace.ended.is_none() {
            exit::end_process(&trace.task.process, Status::Signalled { signo: abi::SIGKILL, core: false });
        }
        set_free(trace, tid);
    }
}

/// Do something with a tracee of `tracer` that is stopped. ESRCH if it is not.
pub fn with_stopped<T>(
    tracer: &Task,
    tid: Pid,
    f: impl FnOnce(&mut u32, &mut Stop) -> Result<T>,
) -> Result<T> {
    let mut traces = TRACES.lock();
    let trace = traces.get_mut(&tid).filter(|trace| trace.tracer == tracer.tid()).ok_or(Errno::ESRCH)?;
    match &mut trace.stop {
        Some(stop) if !stop.listening => f(&mut trace.options, stop),
        _ => Err(Errno::ESRCH),
    }
}

/// A tracee of `tracer`, stopped or not, whether it was seized, and its last message. ESRCH if it is none.
pub fn tracee(tracer: &Task, tid: Pid) -> Result<(Arc<Task>, bool, u64)> {
    let traces = TRACES.lock();
    let trace = traces.get(&tid).filter(|trace| trace.tracer == tracer.tid()).ok_or(Errno::ESRCH)?;
    Ok((trace.task.clone(), trace.seized, trace.message))
}

/// Let a stopped tracee go on.
pub fn resume(tracer: &Task, tid: Pid, signal: u32, how: How) -> Result<()> {
    with_stopped(tracer, tid, |_, stop| {
        (stop.signal, stop.how) = (signal, how);
        Ok(())
    })?;
    let task = {
        let mut traces = TRACES.lock();
        let trace = traces.get_mut(&tid).ok_or(Errno::ESRCH)?;
        let stop = trace.stop.take().ok_or(Errno::ESRCH)?;
        trace.news = false;
        let unused = trace.task.shown_back.lock().replace(stop);
        debug_assert!(unused.is_none());
        trace.task.clone()
    };
    task.resumed.wake_all();
    Ok(())
}

/// `PTRACE_LISTEN`: stay stopped, but tell of what comes. EIO unless it stopped with its process, or was asked to.
pub fn listen(tracer: &Task, tid: Pid) -> Result<()> {
    let (task, seized, _) = tracee(tracer, tid)?;
    with_stopped(tracer, tid, |_, stop| {
        if !seized || stop.code >> 8 != ptrace::PTRACE_EVENT_STOP {
            return Err(Errno::EIO);
        }
        stop.listening = true;
        Ok(())
    })?;
    // What came meanwhile is told at once.
    task.resumed.wake_all();
    Ok(())
}

/// The process goes on by a SIGCONT: tracees that were seized tell so.
pub(super) fn continued(process: &Arc<Process>) {
    for task in process.tasks().filter(|task| task.is_traced()) {
        if TRACES.lock().get(&task.tid()).is_some_and(|trace| trace.seized) {
            want_trap(&task);
        }
    }
}

/// Have it stop soon (`PTRACE_INTERRUPT`).
pub fn want_trap(task: &Task) {
    task.ask(work::TRAP);
    task.resumed.wake_all();
}

/// It is to end: whatever it is stopped for, it goes on.
pub(super) fn let_go(task: &Task) {
    if task.is_traced() {
        let stop = TRACES.lock().get_mut(&task.tid()).and_then(|trace| trace.stop.take());
        drop(stop);
        task.resumed.wake_all();
    }
}

/// A child that was to be traced does not come to run.
pub(super) fn never_ran(child: &Task) {
    if child.is_traced() {
        let gone = unlink(&mut TRACES.lock(), child.tid());
        drop(gone);
    }
}

/// Who traces the task; 0 for nobody.
pub fn tracer_of(task: &Task) -> Pid {
    if task.is_traced() { TRACES.lock().get(&task.tid()).map_or(0, |trace| trace.tracer) } else { 0 }
}

/// Whether it is stopped for its tracer.
pub fn is_stopped(task: &Task) -> bool {
    task.is_traced() && TRACES.lock().get(&task.tid()).is_some_and(|trace| trace.stop.is_some())
}

/// Whether the programs that it executes get no privileges: its tracer would have them.
pub(super) fn holds_back(task: &Task) -> bool {
    task.is_traced() && TRACES.lock().get(&task.tid()).is_some_and(|trace| !trace.powerful)
}

/// Whether its filters are not asked (`PTRACE_O_SUSPEND_SECCOMP`).
pub fn suspends_filters(task: &Task) -> bool {
    let suspends = |trace: &Trace| trace.options & ptrace::PTRACE_O_SUSPEND_SECCOMP != 0;
    task.is_traced() && TRACES.lock().get(&task.tid()).is_some_and(suspends)
}

/// A task that executes a program has taken its process's number.
pub(super) fn renumber(old: Pid, new: Pid) {
    let mut traces = TRACES.lock();
    let leader = unlink(&mut traces, new);
    if let Some(trace) = traces.remove(&old) {
        trace.task.traced.store(true, Ordering::SeqCst);
        trace.task.process.tracer.store(trace.of, Ordering::SeqCst);
        traces.insert(new, trace);
    }
    drop(traces);
    drop(leader);
}

/// A task ends. Its tracer hears of it; of the first of a process, when that ends.
pub(super) fn task_ends(task: &Arc<Task>, status: Status) {
    task.has_closed.store(true, Ordering::SeqCst);
    if !task.is_traced() || task.tid() == task.process.pid {
        return;
    }
    close(task.tid(), status, task.exit_info(status), |trace| trace.is(task));
}

/// A process ends: whether its tracer is not its parent, and is to hear of it first. One that is its parent hears of it as such.
pub(super) fn is_observed(process: &Arc<Process>) -> bool {
    match process.tracer.load(Ordering::SeqCst) {
        0 => false,
        tracer if tracer == process.parent() => {
            let trace = unlink(&mut TRACES.lock(), process.pid);
            drop(trace);
            false
        }
        _ => true,
    }
}

/// Tell the tracer of the end of a process. False if it does not want to know.
pub(super) fn process_ends(process: &Arc<Process>, info: SigInfo, status: Status) -> bool {
    close(process.pid, status, info, |trace| Arc::ptr_eq(&trace.task.process, process))
}

/// Note an end, and tell the tracer. False if there is none, or it does not want to know.
fn close(tid: Pid, status: Status, info: SigInfo, right: impl FnOnce(&Trace) -> bool) -> bool {
    let (tracer, gone) = {
        let mut traces = TRACES.lock();
        let Some(trace) = traces.get_mut(&tid).filter(|trace| right(trace)) else { return false };
        let tracer = table::process(trace.of);
        let heeds = tracer.as_ref().is_some_and(|tracer| {
            let action = tracer.action(abi::SIGCHLD);
            action.handler != signal::Action::IGNORE && !action.is(abi::SA_NOCLDWAIT)
        });
        trace.ended = Some(status);
        trace.stop = None;
        let gone = if heeds { None } else { unlink(&mut traces, tid) };
        (tracer, gone)
    };
    let told = gone.is_none();
    drop(gone);
    if let Some(tracer) = tracer {
        let _ = signal::to_process(&tracer, info);
        wait::notify(&tracer);
    }
    told
}

/// Look for a tracee that the selector asks about and that has something to report, and whether it asks about any.
pub(super) fn wait(tracer: &Process, selector: &Selector) -> (bool, Option<Waited>) {
    if tracer.tracees.load(Ordering::SeqCst) == 0 {
        return (false, None);
    }
    let mut any = false;
    let mut traces = TRACES.lock();
    let mut found = None;
    for (tid, trace) in traces.iter_mut().filter(|(_, trace)| trace.of == tracer.pid) {
        if !selector.asks_about_tracee(*tid, trace.task.process.group()) {
            continue;
        }
        any |= selector.ended || trace.ended.is_none();
        let status = match (&trace.ended, &trace.stop) {
            (Some(status), _) if selector.ended => *status,
            (None, Some(stop)) if trace.news => Status::Trapped(stop.code),
            _ => continue,
        };
        trace.news &= selector.keep;
        found = Some((*tid, status, trace.task.process.clone(), trace.ended.is_some()));
        break;
    }
    let Some((tid, status, process, ended)) = found else { return (any, None) };
    let gone = if ended && !selector.keep { unlink(&mut traces, tid) } else { None };
    drop(traces);
    if let Some(trace) = gone {
        set_free(trace, tid);
    }
    (true, Some(Waited { pid: tid, status, process }))
}
