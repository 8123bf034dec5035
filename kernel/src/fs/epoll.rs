//! Waiting for many files at once: `epoll(7)`.
//!
//! ```text
//!   file changes ──► hook ──► candidates ──► wait: ask each; report, or forget until it changes again
//!                                 ▲                        │ level-triggered: it stays a candidate
//!                                 └────────────────────────┘
//! ```
//!
//! An instance is a table of (descriptor, file) with what is wanted of each. A file that tells of all its changes
//! ([`FileOps::tells_all`]: sockets, pipes, eventfds) has a hook of ours on its signal, and is asked only when it has
//! changed, or was ready the last time: a wait costs what is ready, not what is watched. The few others are asked at each wait, and
//! slept on one by one.
//!
//! Edge-triggered (EPOLLET) is a memory beside it: of the file's count of changes when it was last reported; it is reported
//! again when that has moved on.
//!
//! A file leaves the table when its last descriptor is closed: the table holds it weakly. An instance can be in another's table,
//! not in a circle.
//!
//! Locks: the table's, and below it that of the candidates, which hooks take alone. A candidate is in the list once at most, and
//! there is room for all.

use super::{
    file::{File, FileOps},
    poll::{Events, Hook, Signal, Watchers},
};
use crate::{
    clock,
    errno::{Errno, Result},
    mem::TryPush,
    sched::WaitResult,
};
use alloc::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Weak},
    vec::Vec,
};
use core::any::Any;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
use hafez_mm::lock::Mutex;
use linux_raw_sys::general as abi;

/// Instances in instances in instances: as deep as Linux allows.
const MAX_DEPTH: u32 = 5;

/// What is wanted of a file, and what to say when it is so.
#[derive(Clone, Copy, Debug)]
pub struct Interest {
    /// `EPOLL*`, the flags EPOLLET and EPOLLONESHOT too.
    pub events: u32,
    pub data: u64,
}

/// The descriptor's number and the file's.
type Key = (u32, u64);

/// Who is to be asked, in turn; and where one waits for there to be any.
struct Candidates {
    list: Mutex<VecDeque<Arc<Line>>>,
    changed: Arc<Signal>,
}

/// On the signal of one watched file.
struct Line {
    key: Key,
    /// It is in the list.
    listed: AtomicBool,
    candidates: Weak<Candidates>,
}

impl Hook for Line {
    fn pull(self: Arc<Self>) {
        if let Some(candidates) = self.candidates.upgrade()
            && candidates.add(&self)
        {
            candidates.changed.notify();
        }
    }
}

impl Candidates {
    /// Whether it was not there already.
    fn add(&self, line: &Arc<Line>) -> bool {
        let new = !line.listed.swap(true, SeqCst);
        if new {
            self.list.lock().push_back(line.clone());
        }
        new
    }
    /// The next one, which is no longer listed: from here on a change lists it again.
    fn take(&self) -> Option<Arc<Line>> {
        let line = self.list.lock().pop_front()?;
        line.listed.store(false, SeqCst);
        Some(line)
    }
    fn remove(&self, line: &Arc<Line>) {
        if line.listed.load(SeqCst) {
            self.list.lock().retain(|other| !Arc::ptr_eq(other, line));
        }
    }
    fn count(&self) -> usize {
        self.list.lock().len()
    }
}

struct Item {
    file: Weak<File>,
    /// What is asked. Letting go of this never sleeps, unlike letting go of a file, which has a place in the tree too.
    ops: Weak<dyn FileOps>,
    /// For counting its changes.
    signals: Watchers,
    interest: Interest,
    /// EPOLLONESHOT has struck: nothing until it is armed again.
    spent: bool,
    /// For EPOLLET: changes of the file when it was last reported.
    seen: Option<u64>,
    /// `None`: it does not tell, and is always asked.
    line: Option<Arc<Line>>,
}

#[derive(Default)]
struct Table {
    items: BTreeMap<Key, Item>,
    /// Of these, those that are always asked.
    silent: Vec<Key>,
    /// When there are so many, those whose files have gone without a word are looked for.
    sweep: usize,
}

/// See the module.
pub struct Epoll {
    table: Mutex<Table>,
    candidates: Arc<Candidates>,
}

impl Item {
    fn has(&self, flag: u32) -> bool {
        self.interest.events & flag != 0
    }
    fn is_of(&self, line: &Arc<Line>) -> bool {
        self.line.as_ref().is_some_and(|own| Arc::ptr_eq(own, line))
    }
    fn is_gone(&self) -> bool {
        self.file.strong_count() == 0
    }

    /// What is to be reported now, when the file's changes are these.
    fn ready(&self, changes: u64) -> Events {
        let Some(ops) = self.ops.upgrade().filter(|_| !self.is_gone()) else {
            return Events::empty();
        };
        if self.spent || self.has(abi::EPOLLET) && self.seen == Some(changes) {
            return Events::empty();
        }
        ops.poll() & (Events::from_bits_truncate(self.interest.events) | Events::ALWAYS)
    }

    /// The same, for one who reports it.
    fn report(&mut self) -> Option<(Events, u64)> {
        // The count before the answer: a change between is reported again, not lost.
        let changes = self.signals.changes();
        let now = self.ready(changes);
        if now.is_empty() {
            return None;
        }
        self.seen = Some(changes);
        self.spent = self.has(abi::EPOLLONESHOT);
        Some((now, self.interest.data))
    }
}

impl Table {
    fn remove(&mut self, key: &Key, candidates: &Candidates) -> Option<Item> {
        let item = self.items.remove(key)?;
        match &item.line {
            Some(line) => candidates.remove(line),
            None => self.silent.retain(|silent| silent != key),
        }
        Some(item)
    }
    fn sweep(&mut self, candidates: &Candidates) {
        while let Some(key) = self.items.iter().find(|(_, item)| item.is_gone()).map(|(key, _)| *key) {
            self.remove(&key, candidates);
        }
        self.sweep = (2 * self.items.len()).max(64);
    }
}

impl Epoll {
    pub fn new() -> Arc<Epoll> {
        let candidates = Candidates { list: Mutex::default(), changed: Signal::new() };
        Arc::new(Epoll { table: Mutex::default(), candidates: Arc::new(candidates) })
    }

    /// How many instances deep this is.
    fn depth(&self, below: u32) -> u32 {
        if below > MAX_DEPTH {
            return below;
        }
        let ends = self.silent_ends();
        let inner = ends.iter().filter_map(|e| e.as_any().downcast_ref::<Epoll>());
        inner.map(|e| e.depth(below + 1)).max().unwrap_or(below)
    }

    fn contains(&self, other: &Epoll, depth: u32) -> bool {
        if core::ptr::eq(self, other) {
            return true;
        }
        if depth > MAX_DEPTH {
            return true;
        }
        let ends = self.silent_ends();
        let mut inner = ends.iter().filter_map(|e| e.as_any().downcast_ref::<Epoll>());
        inner.any(|e| e.contains(other, depth + 1))
    }

    /// EPOLL_CTL_ADD.
    pub fn add(&self, fd: u32, file: &Arc<File>, interest: Interest) -> Result<()> {
        let mut signals = Watchers::new();
        file.ops().watch(&mut signals);
        // Regular files and such are always ready; epoll refuses them.
        if signals.is_empty() {
            return Err(Errno::EPERM);
        }
        if let Some(inner) = file.ops_as::<Epoll>() {
            if core::ptr::eq(inner, self) {
                return Err(Errno::EINVAL);
            }
            if inner.contains(self, 0) || inner.depth(1) > MAX_DEPTH {
                return Err(Errno::ELOOP);
            }
        }
        if !crate::mem::headroom(512) {
            return Err(Errno::ENOMEM);
        }
        let key = (fd, file.id());
        let mut table = self.table.lock();
        if table.items.len() >= table.sweep {
            table.sweep(&self.candidates);
        }
        if table.items.contains_key(&key) {
            return Err(Errno::EEXIST);
        }
        // As if it were listed already: only below it is.
        let line = Arc::new(Line {
            key,
            listed: AtomicBool::new(true),
            candidates: Arc::downgrade(&self.candidates),
        });
        let hook: Arc<dyn Hook> = line.clone();
        let tells = file.ops().tells_all() && signals.add_hook(&hook)?;
        if tells {
            self.candidates.list.lock().try_reserve(table.items.len() + 1)?;
        } else {
            table.silent.try_push(key)?;
        }
        let (file, ops) = (Arc::downgrade(file), Arc::downgrade(file.ops()));
        let (hooked, line) = (line.clone(), tells.then_some(line));
        table.items.insert(key, Item { file, ops, signals, interest, spent: false, seen: None, line });
        if tells {
            self.candidates.list.lock().push_back(hooked);
        }
        drop(table);
        self.candidates.changed.notify();
        Ok(())
    }

    /// EPOLL_CTL_MOD.
    pub fn change(&self, fd: u32, file: &Arc<File>, interest: Interest) -> Result<()> {
        let mut table = self.table.lock();
        let item = table.items.get_mut(&(fd, file.id())).ok_or(Errno::ENOENT)?;
        if item.has(abi::EPOLLEXCLUSIVE) {
            return Err(Errno::EINVAL);
        }
        (item.interest, item.spent, item.seen) = (interest, false, None);
        if let Some(line) = &item.line {
            self.candidates.add(line);
        }
        drop(table);
        self.candidates.changed.notify();
        Ok(())
    }

    /// EPOLL_CTL_DEL.
    pub fn remove(&self, fd: u32, file: &Arc<File>) -> Result<()> {
        let removed = self.table.lock().remove(&(fd, file.id()), &self.candidates);
        removed.map(drop).ok_or(Errno::ENOENT)
    }

    /// The inner ends of those files that do not tell and are still there. Instances are among them.
    fn silent_ends(&self) -> Vec<Arc<dyn FileOps>> {
        let table = self.table.lock();
        table.silent.iter().filter_map(|key| table.items.get(key)?.ops.upgrade()).collect()
    }

    /// Collect up to `most` that are ready. Those that are reported go to the back, so that all get their turn.
    fn collect(&self, most: usize) -> Vec<(Events, u64)> {
        let mut found = Vec::new();
        let table = &mut *self.table.lock();
        for _ in 0..self.candidates.count() {
            // What finds no place now is reported next time.
            if found.len() == most || found.try_reserve(1).is_err() {
                return found;
            }
            let Some(line) = self.candidates.take() else { break };
            let Some(item) = table.items.get_mut(&line.key).filter(|item| item.is_of(&line)) else {
                continue;
            };
            if item.is_gone() {
                table.items.remove(&line.key);
                continue;
            }
            if let Some(event) = item.report() {
                found.push(event);
                if !item.has(abi::EPOLLET) && !item.spent {
                    self.candidates.add(&line);
                }
            }
        }
        self.collect_silent(table, most, &mut found);
        found
    }

    fn collect_silent(&self, table: &mut Table, most: usize, found: &mut Vec<(Events, u64)>) {
        let Table { items, silent, .. } = table;
        silent.retain(|key| {
            let stays = items.get(key).is_some_and(|item| !item.is_gone());
            if !stays {
                items.remove(key);
            }
            stays
        });
        let mut reported = 0;
        for at in 0..silent.len() {
            if found.len() == most || found.try_reserve(1).is_err() {
                break;
            }
            // Each that is reported has moved those behind it forward.
            let at = at - reported;
            if let Some(event) = items.get_mut(&silent[at]).and_then(Item::report) {
                found.push(event);
                silent[at..].rotate_left(1);
                reported += 1;
            }
        }
    }

    fn any_ready(&self) -> bool {
        let table = self.table.lock();
        let ready = |key: &Key| {
            let item = table.items.get(key)?;
            (!item.ready(item.signals.changes()).is_empty()).then_some(())
        };
        for _ in 0..self.candidates.count() {
            let Some(line) = self.candidates.take() else { break };
            let is = table.items.get(&line.key).is_some_and(|item| item.is_of(&line));
            if is && ready(&line.key).is_some() {
                self.candidates.add(&line);
                return true;
            }
        }
        table.silent.iter().any(|key| ready(key).is_some())
    }

    /// `epoll_wait(2)`: up to `most` ready ones, none if the deadline (ns, monotonic) passes first.
    pub fn wait(&self, most: usize, deadline: Option<u64>) -> Result<Vec<(Events, u64)>> {
        loop {
            let list = self.candidates.changed.count();
            let found = self.collect(most);
            if !found.is_empty() || deadline.is_some_and(|d| d <= clock::monotonic()) {
                return Ok(found);
            }
            let mut watchers = Watchers::new();
            self.watch(&mut watchers);
            let ready = || self.candidates.changed.count() != list || self.any_ready();
            match watchers.wait(ready, deadline)? {
                WaitResult::Interrupted => return Err(Errno::RESTART_NOHAND),
                WaitResult::TimedOut => return Ok(self.collect(most)),
                WaitResult::Ready => {}
            }
        }
    }
}

impl FileOps for Epoll {
    /// It knows no requests, and says so in its own way.
    fn ioctl(&self, _: u32, _: u64) -> Result<usize> {
        Err(Errno::EINVAL)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn seek_nowhere(&self, _: i64, _: u32) -> Result<u64> {
        Ok(0)
    }
    fn poll(&self) -> Events {
        if self.any_ready() { Events::READABLE } else { Events::empty() }
    }
    fn watch(&self, watchers: &mut Watchers) {
        watchers.add(&self.candidates.changed);
        for end in self.silent_ends() {
            end.watch(watchers);
        }
    }
}
