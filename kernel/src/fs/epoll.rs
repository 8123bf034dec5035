//! Waiting for many files at once: `epoll(7)`.
//!
//! An instance is a list of (descriptor, file) with what is wanted of each. To wait is to ask each file; only when none
//! is ready does the caller sleep on all their queues. So level-triggered is the natural thing here, and costs
//! a question per file and wait. Edge-triggered (EPOLLET) is a memory beside it: of the file's count of changes when it was last
//! reported; it is reported again when that has moved on.
//!
//! A file leaves the list when its last descriptor is closed: the list holds it weakly. An instance can be in another's list,
//! not in a circle.

use super::{
    file::{File, FileOps},
    poll::{Events, Signal, Watchers},
};
use crate::{
    clock,
    errno::{Errno, Result},
    mem::TryPush,
    sched::WaitResult,
};
use alloc::{
    sync::{Arc, Weak},
    vec::Vec,
};
use core::any::Any;
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

struct Item {
    fd: u32,
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
    /// Changes of the file when it was last found not ready; kept only if it tells of all its changes.
    idle: Option<u64>,
    tells_all: bool,
}

/// See the module.
pub struct Epoll {
    items: Mutex<Vec<Item>>,
    /// The list has changed.
    changed: Arc<Signal>,
}

impl Item {
    fn is_edge(&self) -> bool {
        self.interest.events & abi::EPOLLET != 0
    }

    /// What is to be reported now, when the file's changes are these. A file that has not changed since it was not ready is
    /// not asked: of a thousand connections most are idle.
    #[inline]
    fn ready(&mut self, changes: u64) -> Events {
        if self.idle == Some(changes) {
            return Events::empty();
        }
        let now = self.ask(changes);
        self.idle = (self.tells_all && now.is_empty()).then_some(changes);
        now
    }

    fn ask(&self, changes: u64) -> Events {
        let Some(ops) = self.ops.upgrade().filter(|_| self.file.strong_count() > 0) else {
            return Events::empty();
        };
        if self.spent || self.is_edge() && self.seen == Some(changes) {
            return Events::empty();
        }
        ops.poll() & (Events::from_bits_truncate(self.interest.events) | Events::ALWAYS)
    }
}

impl Epoll {
    pub fn new() -> Arc<Epoll> {
        Arc::new(Epoll { items: Mutex::default(), changed: Signal::new() })
    }

    /// How many instances deep this is.
    fn depth(&self, below: u32) -> u32 {
        if below > MAX_DEPTH {
            return below;
        }
        let ends = self.ends();
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
        let ends = self.ends();
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
        if !crate::mem::headroom(256) {
            return Err(Errno::ENOMEM);
        }
        let mut items = self.items.lock();
        items.retain(|i| i.file.strong_count() > 0);
        if items.iter().any(|i| is(i, fd, file)) {
            return Err(Errno::EEXIST);
        }
        items.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let tells_all = file.ops().tells_all();
        let (file, ops) = (Arc::downgrade(file), Arc::downgrade(file.ops()));
        items.push(Item {
            fd,
            file,
            ops,
            signals,
            interest,
            spent: false,
            seen: None,
            idle: None,
            tells_all,
        });
        drop(items);
        self.changed.notify();
        Ok(())
    }

    /// EPOLL_CTL_MOD.
    pub fn change(&self, fd: u32, file: &Arc<File>, interest: Interest) -> Result<()> {
        let mut items = self.items.lock();
        let item = items.iter_mut().find(|i| is(i, fd, file)).ok_or(Errno::ENOENT)?;
        if item.interest.events & abi::EPOLLEXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        (item.interest, item.spent, item.seen, item.idle) = (interest, false, None, None);
        drop(items);
        self.changed.notify();
        Ok(())
    }

    /// EPOLL_CTL_DEL.
    pub fn remove(&self, fd: u32, file: &Arc<File>) -> Result<()> {
        let mut items = self.items.lock();
        let at = items.iter().position(|i| is(i, fd, file)).ok_or(Errno::ENOENT)?;
        items.remove(at);
        Ok(())
    }

    /// The inner ends of the files that are still there.
    fn ends(&self) -> Vec<Arc<dyn FileOps>> {
        self.items.lock().iter().filter_map(|i| i.ops.upgrade()).collect()
    }

    /// Collect up to `most` that are ready. Those that are reported go to the back, so that all get their turn.
    fn collect(&self, most: usize) -> Vec<(Events, u64)> {
        let mut found = Vec::new();
        let mut reported = Vec::new();
        let mut items = self.items.lock();
        items.retain(|i| i.file.strong_count() > 0);
        for (at, item) in items.iter_mut().enumerate() {
            // The count before the answer: a change between is reported again, not lost.
            let changes = item.signals.changes();
            let now = item.ready(changes);
            if now.is_empty() {
                continue;
            }
            // What finds no place now is reported next time.
            if found.try_push((now, item.interest.data)).is_err() || reported.try_push(at).is_err() {
                break;
            }
            item.seen = Some(changes);
            item.spent = item.interest.events & abi::EPOLLONESHOT != 0;
            if found.len() == most {
                break;
            }
        }
        if found.len() == most {
            for (moved, at) in reported.into_iter().enumerate() {
                let item = items.remove(at - moved);
                items.push(item);
            }
        }
        found
    }

    fn any_ready(&self) -> bool {
        self.items.lock().iter_mut().any(|item| {
            let changes = item.signals.changes();
            !item.ready(changes).is_empty()
        })
    }

    /// `epoll_wait(2)`: up to `most` ready ones, none if the deadline (ns, monotonic) passes first.
    pub fn wait(&self, most: usize, deadline: Option<u64>) -> Result<Vec<(Events, u64)>> {
        loop {
            let found = self.collect(most);
            if !found.is_empty() || deadline.is_some_and(|d| d <= clock::monotonic()) {
                return Ok(found);
            }
            let list = self.changed.count();
            let mut watchers = Watchers::new();
            self.watch(&mut watchers);
            let ready = || self.any_ready() || self.changed.count() != list;
            match watchers.wait(ready, deadline)? {
                WaitResult::Interrupted => return Err(Errno::RESTART_NOHAND),
                WaitResult::TimedOut => return Ok(self.collect(most)),
                WaitResult::Ready => {}
            }
        }
    }
}

fn is(item: &Item, fd: u32, file: &Arc<File>) -> bool {
    item.fd == fd && core::ptr::eq(item.file.as_ptr(), Arc::as_ptr(file))
}

impl FileOps for Epoll {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn seek_nowhere(&self) -> Result<u64> {
        Ok(0)
    }
    fn poll(&self) -> Events {
        if self.any_ready() { Events::READABLE } else { Events::empty() }
    }
    fn watch(&self, watchers: &mut Watchers) {
        watchers.add(&self.changed);
        for end in self.ends() {
            end.watch(watchers);
        }
    }
}
