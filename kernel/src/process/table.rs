//! The table of processes: who exists, who is whose parent, who is in which group and session, who has ended.
//!
//! All relations stand here, under one lock, by number and not by reference: so a walk over them sees one moment, no two
//! processes can hold each other alive, and a change (a fork, an end, `setsid`) is one step for everybody. The lock is a
//! leaf that is never held over a wake-up, a signal or anything that sleeps: functions here decide and return what is
//! to be done, their callers do it.
//!
//! Number 1 is the kernel's, in the role of `init`: it is the parent of orphans and forgets them when they end. The first
//! program has the number 2 and, as its parent is outside, 0 for a parent.

use super::Pid;
use super::process::Process;
use super::task::Task;
use super::wait::{Selector, Status, Waited, Whom};
use crate::errno::{Errno, Result};
use crate::mem::TryPush;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use hafez_mm::lock::Mutex;

/// The kernel in the role of `init`.
pub const INIT: Pid = 1;
/// The first program.
pub const FIRST: Pid = 2;
/// Numbers wrap around here, as on Linux with 64 bits.
pub static PID_MAX: AtomicU64 = AtomicU64::new(1 << 22);
/// Low numbers are not used a second time.
const PID_MIN: Pid = 300;

struct Table {
    nodes: BTreeMap<Pid, Node>,
    tasks: BTreeMap<Pid, Weak<Task>>,
    /// Numbers of groups and of sessions, and how often processes name them.
    named: BTreeMap<Pid, u32>,
    last: Pid,
}

/// A process, alive or waiting to be waited for.
struct Node {
    process: Arc<Process>,
    parent: Pid,
    group: Pid,
    session: Pid,
    children: Vec<Pid>,
    ended: Option<Status>,
    /// A stop, or a continuation, that no `wait` has reported yet.
    news: Option<News>,
    /// How many signals that tell of the two are being sent.
    telling: u32,
    /// Orphans below it become its children (`PR_SET_CHILD_SUBREAPER`).
    subreaper: bool,
}

/// What else than its end a parent can hear of a child.
#[derive(Clone, Copy, PartialEq, Eq)]
enum News {
    Stopped(u32),
    Continued,
}

static TABLE: Mutex<Table> =
    Mutex::new(Table { nodes: BTreeMap::new(), tasks: BTreeMap::new(), named: BTreeMap::new(), last: INIT });

impl Table {
    fn in_use(&self, number: Pid) -> bool {
        self.nodes.contains_key(&number)
            || self.tasks.contains_key(&number)
            || self.named.contains_key(&number)
    }

    /// A process is in this group and this session from now on.
    fn name(&mut self, group: Pid, session: Pid) {
        for number in [group, session] {
            *self.named.entry(number).or_default() += 1;
        }
    }

    /// It was in these.
    fn unname(&mut self, group: Pid, session: Pid) {
        for number in [group, session] {
            match self.named.get_mut(&number) {
                Some(times) if *times > 1 => *times -= 1,
                _ => drop(self.named.remove(&number)),
            }
        }
    }

    fn set_parent(&mut self, child: Pid, parent: Pid) {
        if let Some(node) = self.nodes.get_mut(&child) {
            node.parent = parent;
            node.process.parent.store(parent, Ordering::Relaxed);
        }
    }

    /// Whether no member of the group has a parent in the same session but another group: nobody is left to do job
    /// control on it. `without`: do not count this process.
    fn orphaned(&self, group: Pid, without: Pid) -> bool {
        !self.nodes.values().any(|n| {
            n.group == group
                && n.ended.is_none()
                && n.process.pid != without
                && self.nodes.get(&n.parent).is_some_and(|p| p.session == n.session && p.group != group)
        })
    }

    fn forget(&mut self, pid: Pid) -> Option<Arc<Process>> {
        let node = self.nodes.remove(&pid)?;
        self.unname(node.group, node.session);
        if let Some(Node { children, .. }) = self.nodes.get_mut(&node.parent) {
            // They stand in the order in which they came: by number, until numbers begin again or an orphan comes.
            let at = children.binary_search(&pid).ok();
            if let Some(at) = at.or_else(|| children.iter().position(|child| *child == pid)) {
                children.remove(at);
            }
        }
        Some(node.process)
    }
}

fn pid_max() -> Pid {
    PID_MAX.load(Ordering::Relaxed) as Pid
}

/// A number that nothing has.
pub fn new_number() -> Result<Pid> {
    let mut table = TABLE.lock();
    let end = pid_max();
    for _ in 0..end {
        let next = if table.last + 1 >= end { PID_MIN } else { table.last + 1 };
        table.last = next;
        if !table.in_use(next) {
            return Ok(next);
        }
    }
    Err(Errno::EAGAIN)
}

/// This very number (`set_tid` of `clone3`). EEXIST if something has it.
pub fn claim_number(number: Pid) -> Result<()> {
    if !(1..pid_max()).contains(&number) {
        return Err(Errno::EINVAL);
    }
    if number <= FIRST || TABLE.lock().in_use(number) { Err(Errno::EEXIST) } else { Ok(()) }
}

/// Whether this very process still has its number: it lives, or waits to be waited for.
pub fn holds(process: &Arc<Process>) -> bool {
    TABLE.lock().nodes.get(&process.pid).is_some_and(|n| Arc::ptr_eq(&n.process, process))
}

/// Whether this very task lives.
pub fn holds_task(task: &Arc<Task>) -> bool {
    self::task(task.tid()).is_some_and(|holder| Arc::ptr_eq(&holder, task))
}

/// The first program's number is taken.
pub(super) fn claim_first() {
    TABLE.lock().last = FIRST;
}

/// Add a process: a child of its maker, in its group and session; or, as a `sibling`, a child of the maker's parent
/// (`CLONE_PARENT`); or the first of all.
pub(super) fn add(process: &Arc<Process>, maker: Option<&Process>, sibling: bool) {
    let mut table = TABLE.lock();
    let (parent, group, session) = match maker {
        Some(p) => (if sibling { p.parent() } else { p.pid }, p.group(), p.session()),
        None => (0, process.pid, process.pid),
    };
    process.parent.store(parent, Ordering::Relaxed);
    process.group.store(group, Ordering::Relaxed);
    process.session.store(session, Ordering::Relaxed);
    let node = Node {
        process: process.clone(),
        parent,
        group,
        session,
        children: Vec::new(),
        ended: None,
        news: None,
        telling: 0,
        subreaper: false,
    };
    table.name(group, session);
    table.nodes.insert(process.pid, node);
    if let Some(parent) = table.nodes.get_mut(&parent) {
        parent.children.push(process.pid);
    }
}

/// Take away a process that never ran.
pub(super) fn remove(pid: Pid) {
    let gone = TABLE.lock().forget(pid);
    drop(gone);
}

/// Make a task findable by its number.
pub(super) fn add_task(task: &Arc<Task>) {
    TABLE.lock().tasks.insert(task.tid(), Arc::downgrade(task));
}

/// The number is free again.
pub(super) fn remove_task(tid: Pid) {
    TABLE.lock().tasks.remove(&tid);
}

/// The process with this number; a zombie too.
pub fn process(pid: Pid) -> Option<Arc<Process>> {
    TABLE.lock().nodes.get(&pid).map(|n| n.process.clone())
}

/// The process with this number, or that whose thread has it: most calls that name a process take either.
pub fn process_of(number: Pid) -> Option<Arc<Process>> {
    process(number).or_else(|| task(number).map(|task| task.process.clone()))
}

/// The living task with this number.
pub fn task(tid: Pid) -> Option<Arc<Task>> {
    TABLE.lock().tasks.get(&tid)?.upgrade()
}

/// The process of the lowest number above `after`: to go through all of them without a list, and without the lock.
pub fn next_process(after: Pid) -> Option<Arc<Process>> {
    let above = (core::ops::Bound::Excluded(after), core::ops::Bound::Unbounded);
    TABLE.lock().nodes.range(above).next().map(|(_, n)| n.process.clone())
}

/// Every process, zombies too.
pub fn each_process() -> impl Iterator<Item = Arc<Process>> {
    let mut last = 0;
    core::iter::from_fn(move || {
        let process = next_process(last)?;
        last = process.pid;
        Some(process)
    })
}

/// How many children of this process have ended and wait to be waited for.
pub fn zombies_of(pid: Pid) -> usize {
    let table = TABLE.lock();
    let Some(node) = table.nodes.get(&pid) else { return 0 };
    node.children.iter().filter(|c| table.nodes.get(c).is_some_and(|n| n.ended.is_some())).count()
}

/// How many processes of this real user there are: `RLIMIT_NPROC` counts tasks.
pub fn task_count() -> usize {
    TABLE.lock().tasks.len()
}

/// The living processes of a group.
pub fn group_members(group: Pid) -> impl Iterator<Item = Arc<Process>> {
    each_process().filter(move |p| p.group() == group && !p.has_ended())
}

/// The number given out last.
pub fn last_number() -> Pid {
    TABLE.lock().last
}

/// Whether the process has ended and waits for its parent to hear of it.
pub fn is_zombie(pid: Pid) -> bool {
    TABLE.lock().nodes.get(&pid).is_some_and(|n| n.ended.is_some())
}

/// Whether nobody is left to do job control on the group: terminal stops are then not for it.
pub fn group_is_orphaned(group: Pid) -> bool {
    TABLE.lock().orphaned(group, 0)
}

/// `setsid`: a new session with a new group in it, both led by `process`. EPERM if it leads a group already.
pub fn new_session(process: &Process) -> Result<Pid> {
    let mut table = TABLE.lock();
    let pid = process.pid;
    if table.nodes.values().any(|n| n.group == pid) {
        return Err(Errno::EPERM);
    }
    let node = table.nodes.get_mut(&pid).ok_or(Errno::ESRCH)?;
    let (group, session) = (node.group, node.session);
    node.group = pid;
    node.session = pid;
    table.name(pid, pid);
    table.unname(group, session);
    process.group.store(pid, Ordering::Relaxed);
    process.session.store(pid, Ordering::Relaxed);
    process.detached.store(false, Ordering::Relaxed);
    Ok(pid)
}

/// `setpgid`, with its rules: of oneself or a child that has not yet executed a program, within one session, no leader.
pub fn set_group(caller: &Process, pid: Pid, group: Pid) -> Result<()> {
    let mut table = TABLE.lock();
    let node = table.nodes.get(&pid).ok_or(Errno::ESRCH)?;
    if pid != caller.pid {
        if node.parent != caller.pid || node.ended.is_some() {
            return Err(Errno::ESRCH);
        }
        if node.session != caller.session() {
            return Err(Errno::EPERM);
        }
        if node.process.executed.load(Ordering::Relaxed) {
            return Err(Errno::EACCES);
        }
    }
    let session = node.session;
    if session == pid {
        return Err(Errno::EPERM);
    }
    if group != pid && !table.nodes.values().any(|n| n.group == group && n.session == session) {
        return Err(Errno::EPERM);
    }
    if let Some(node) = table.nodes.get_mut(&pid) {
        let before = core::mem::replace(&mut node.group, group);
        node.process.group.store(group, Ordering::Relaxed);
        table.name(group, session);
        table.unname(before, session);
    }
    Ok(())
}

/// Group and session of a process.
pub fn group_and_session(pid: Pid) -> Result<(Pid, Pid)> {
    TABLE.lock().nodes.get(&pid).map(|n| (n.group, n.session)).ok_or(Errno::ESRCH)
}

/// Whether some process can write an object of this number through a shared mapping.
pub(super) fn can_write(object: u32) -> bool {
    let mut images = each_process().filter_map(|p| p.any_task()?.image());
    images.any(|image| {
        let mut found = false;
        image.space().for_each_region(&mut |region| {
            found |= region.object == Some(object)
                && region.shared
                && region.max_rights.contains(hafez_mm::Rights::WRITE);
        });
        found
    })
}

/// The session of a group, if there is such a group.
pub(super) fn session_of_group(group: Pid) -> Option<Pid> {
    TABLE.lock().nodes.values().find(|n| n.group == group).map(|n| n.session)
}

/// `PR_SET_CHILD_SUBREAPER`.
pub fn set_subreaper(pid: Pid, on: bool) {
    if let Some(node) = TABLE.lock().nodes.get_mut(&pid) {
        node.subreaper = on;
    }
}

/// `PR_GET_CHILD_SUBREAPER`.
pub fn is_subreaper(pid: Pid) -> bool {
    TABLE.lock().nodes.get(&pid).is_some_and(|n| n.subreaper)
}

/// What is to be done when a process has ended.
pub(super) struct Ended {
    /// Who hears of it; `None` where nobody does.
    pub parent: Option<Arc<Process>>,
    /// Its children, now another's.
    pub orphans: Vec<Pid>,
    /// Who has them now; `None`: the kernel.
    pub heir: Option<Arc<Process>>,
    /// Groups that lost their last link to job control and have a stopped member.
    pub orphaned_groups: Vec<Pid>,
}

/// A process has ended: its children go to the nearest subreaper, or to the kernel; it becomes a zombie if it has a parent
/// to tell (`keep`), else it is gone.
pub(super) fn end(process: &Process, status: Status, keep: bool) -> Ended {
    let mut table = TABLE.lock();
    let pid = process.pid;
    let mut heir = process.parent();
    while let Some(node) = table.nodes.get(&heir) {
        if node.subreaper && node.ended.is_none() {
            break;
        }
        heir = node.parent;
    }
    let heir = if table.nodes.contains_key(&heir) { heir } else { INIT };
    let (children, parent, group, session) = match table.nodes.get_mut(&pid) {
        Some(node) => {
            node.ended = Some(status);
            node.news = None;
            node.telling += 1;
            (core::mem::take(&mut node.children), node.parent, node.group, node.session)
        }
        None => (Vec::new(), 0, 0, 0),
    };
    // Only a group to which this process, or its parent through it, was a link can have become an orphan by its end.
    let linked = table.nodes.get(&parent).is_some_and(|p| p.session == session && p.group != group);
    let mut groups = if linked { alloc::vec![group] } else { Vec::new() };
    for child in &children {
        let child = *child;
        let Some(node) = table.nodes.get(&child) else { continue };
        let (child_group, ended) = (node.group, node.ended.is_some());
        let linked = node.session == session && child_group != group;
        table.set_parent(child, heir);
        if heir == INIT && ended {
            table.forget(child);
            continue;
        }
        if let Some(node) = table.nodes.get_mut(&heir) {
            // Where its list cannot grow, the kernel has the child.
            if node.children.try_push(child).is_err() {
                table.set_parent(child, INIT);
            }
        }
        if linked && !groups.contains(&child_group) {
            groups.push(child_group);
        }
    }
    let stopped = |t: &Table, g: Pid| {
        t.nodes.values().any(|n| n.group == g && n.ended.is_none() && n.process.stopped().is_some())
    };
    groups.retain(|g| table.orphaned(*g, pid) && stopped(&table, *g));
    let parent = table.nodes.get(&process.parent()).filter(|n| n.ended.is_none()).map(|n| n.process.clone());
    // The first program is kept: the kernel itself reads its status.
    if !keep && parent.is_some() || parent.is_none() && pid != FIRST {
        table.forget(pid);
    }
    let heir = table.nodes.get(&heir).map(|n| n.process.clone());
    Ended { parent, orphans: children, heir, orphaned_groups: groups }
}

/// How this process ended, if it has and nobody has waited for it.
pub(super) fn status_of(process: &Arc<Process>) -> Option<Status> {
    TABLE.lock().nodes.get(&process.pid).filter(|n| Arc::ptr_eq(&n.process, process))?.ended
}

/// How the first program ended, once it has.
pub(super) fn first_status() -> Option<Status> {
    TABLE.lock().nodes.get(&FIRST)?.ended
}

/// A child stopped: its parent can hear of it.
pub(super) fn note_stopped(pid: Pid, signo: u32) -> Option<Arc<Process>> {
    note(pid, News::Stopped(signo))
}

/// A child goes on.
pub(super) fn note_continued(pid: Pid) -> Option<Arc<Process>> {
    note(pid, News::Continued)
}

fn note(pid: Pid, news: News) -> Option<Arc<Process>> {
    let mut table = TABLE.lock();
    let node = table.nodes.get_mut(&pid)?;
    node.news = Some(news);
    node.telling += 1;
    let parent = node.parent;
    table.nodes.get(&parent).map(|n| n.process.clone())
}

/// The signal that tells of what was noted is sent: whoever is the parent now can hear of it by waiting, too.
pub(super) fn told(process: &Arc<Process>) -> Option<Arc<Process>> {
    let mut table = TABLE.lock();
    let node = table.nodes.get_mut(&process.pid).filter(|n| Arc::ptr_eq(&n.process, process))?;
    node.telling -= 1;
    let parent = node.parent;
    table.nodes.get(&parent).map(|n| n.process.clone())
}

/// What a look at the children found.
pub(super) enum Look {
    Found(Waited),
    /// One has something to report, and the signal that tells of it is being sent: who waits has had that first.
    Soon,
    Nothing,
}

/// Look for a child that `selector` asks about and that has something to report. ECHILD if it asks about none;
/// `Nothing` if none has. What is reported is taken away, unless it only looks (`WNOWAIT`).
pub(super) fn wait(parent: &Process, selector: &Selector) -> Result<Look> {
    let mut guard = TABLE.lock();
    let table = &mut *guard;
    let all = &table.nodes.get(&parent.pid).ok_or(Errno::ECHILD)?.children;
    let is_child = |pid: &Pid| table.nodes.get(pid).is_some_and(|node| node.parent == parent.pid);
    // Who asks about one need not look at the others.
    let children = match &selector.whom {
        Whom::Pid(pid) if is_child(pid) => core::slice::from_ref(pid),
        Whom::Pid(_) => &[],
        Whom::Any | Whom::Group(_) => &all[..],
    };
    let (mut any, mut soon) = (false, false);
    let mut found = None;
    for pid in children {
        let Some(node) = table.nodes.get(pid) else { continue };
        let exit_signal = node.process.exit_signal.load(Ordering::Relaxed);
        if !selector.asks_about(*pid, node.group, exit_signal) {
            continue;
        }
        let tracer = node.process.tracer.load(Ordering::SeqCst);
        if node.ended.is_some() && tracer != 0 && tracer != parent.pid {
            // Who traces it hears of its end first.
            any = true;
            continue;
        }
        // One that has ended has nothing else to report any more.
        any |= selector.ended || node.ended.is_none();
        let status = match (node.ended, node.news) {
            (Some(status), _) if selector.ended => status,
            (None, Some(News::Stopped(signo))) if selector.stopped && tracer != parent.pid => {
                Status::Stopped(signo)
            }
            (None, Some(News::Continued)) if selector.continued => Status::Continued,
            _ => continue,
        };
        if node.telling > 0 {
            soon = true;
            continue;
        }
        found = Some((*pid, status));
        break;
    }
    let Some((pid, status)) = found else {
        return match (soon, any) {
            (true, _) => Ok(Look::Soon),
            (_, true) => Ok(Look::Nothing),
            _ => Err(Errno::ECHILD),
        };
    };
    let process = match table.nodes.get_mut(&pid) {
        Some(node) => {
            if !selector.keep {
                node.news = None;
            }
            node.process.clone()
        }
        None => return Ok(Look::Nothing),
    };
    if !selector.keep && matches!(status, Status::Exited(_) | Status::Signalled { .. }) {
        let gone = table.forget(pid);
        drop(guard);
        drop(gone);
    }
    Ok(Look::Found(Waited { pid, status, process }))
}
