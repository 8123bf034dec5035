//! Waiting for files to become ready: what `poll`, `select` and `epoll` share.
//!
//! A pollable file answers [`FileOps::poll`](super::file::FileOps::poll) (what can be done now) and names its [`Signal`]s, on which
//! whoever changes that answer calls [`Signal::notify`]. To wait for many is to ask all, and if none is ready to sleep on all their
//! queues at once with the same question as the condition. The answer is always computed, never remembered: no event
//! can be lost. Who watches thousands of files hangs a [`Hook`] on each signal, and asks only those whose hook was pulled.

use super::owner::Owner;
use crate::{
    errno::{Errno, Result},
    mem::TryPush,
    sched::{self, WaitQueue, WaitResult},
};
use alloc::{
    sync::{Arc, Weak},
    vec::Vec,
};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use hafez_mm::lock::Mutex;
use linux_raw_sys::general as abi;

bitflags::bitflags! {
    /// `POLL*`, which are the same bits as `EPOLL*`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Events: u32 {
        const IN = abi::POLLIN;
        const PRI = abi::POLLPRI;
        const OUT = abi::POLLOUT;
        const ERR = abi::POLLERR;
        const HUP = abi::POLLHUP;
        const NVAL = abi::POLLNVAL;
        const RDNORM = abi::POLLRDNORM;
        const RDBAND = abi::POLLRDBAND;
        const WRNORM = abi::POLLWRNORM;
        const WRBAND = abi::POLLWRBAND;
        const RDHUP = abi::POLLRDHUP;
    }
}

impl Events {
    /// Reported whether asked for or not.
    pub const ALWAYS: Events = Events::ERR.union(Events::HUP);
    /// Can be read.
    pub const READABLE: Events = Events::IN.union(Events::RDNORM);
    /// Can be written.
    pub const WRITABLE: Events = Events::OUT.union(Events::WRNORM);
}

/// Where one waits for a file to change, and how often it did.
pub struct Signal {
    queue: WaitQueue,
    count: AtomicU64,
    /// Who gets a signal at each change (O_ASYNC); looked at only if there ever was one.
    has_owners: AtomicBool,
    owners: Mutex<Vec<Weak<Owner>>>,
    /// Who is told of each change; looked at only if there ever was one.
    has_hooks: AtomicBool,
    hooks: Mutex<Vec<Weak<dyn Hook>>>,
}

/// Is told of each change of a file. Called with no lock held but that of the signal's list of hooks.
pub trait Hook: Send + Sync {
    fn pull(self: Arc<Self>);
}

impl Default for Signal {
    fn default() -> Self {
        Signal {
            queue: WaitQueue::new(),
            count: AtomicU64::new(0),
            has_owners: AtomicBool::new(false),
            owners: Mutex::default(),
            has_hooks: AtomicBool::new(false),
            hooks: Mutex::default(),
        }
    }
}

impl Signal {
    pub fn new() -> Arc<Signal> {
        Arc::default()
    }
    /// Something changed. Not with a lock held that `poll` takes.
    #[inline]
    pub fn notify(&self) {
        self.change(None);
    }
    /// The same, where it is known what can be done that could not be done before.
    #[inline]
    pub fn notify_as(&self, into: Events) {
        self.change(Some(into));
    }
    #[inline(always)]
    fn change(&self, into: Option<Events>) {
        self.count.fetch_add(1, Relaxed);
        self.queue.wake_all();
        if self.has_hooks.load(Relaxed) || self.has_owners.load(Relaxed) {
            self.tell_others(into);
        }
    }
    /// Those who do not wait in the queue.
    #[cold]
    fn tell_others(&self, into: Option<Events>) {
        self.hooks.lock().iter().filter_map(Weak::upgrade).for_each(|hook| hook.pull());
        self.each_owner(|owner| owner.changed(into));
    }
    /// Urgent data came: whoever owns the file hears of it, asked or not.
    pub fn urge(&self) {
        self.each_owner(|owner| owner.urge());
        self.notify();
    }

    #[cold]
    fn each_owner(&self, tell: impl Fn(&Owner)) {
        let mut next = 0;
        loop {
            // One at a time: a copy of the list might need more room than there is.
            let Some(weak) = self.owners.lock().get(next).cloned() else { return };
            next += 1;
            if let Some(owner) = weak.upgrade() {
                tell(&owner);
            }
        }
    }

    /// From now on each change is also told to `owner`, as long as it lives.
    fn add_owner(&self, owner: &Arc<Owner>) -> Result<()> {
        let mut owners = self.owners.lock();
        owners.retain(|o| o.strong_count() > 0);
        if !owners.iter().any(|o| core::ptr::eq(o.as_ptr(), Arc::as_ptr(owner))) {
            owners.try_push(Arc::downgrade(owner))?;
        }
        self.has_owners.store(true, Relaxed);
        Ok(())
    }

    /// From now on each change is also told to `hook`, as long as it lives.
    fn add_hook(&self, hook: &Arc<dyn Hook>) -> Result<()> {
        let mut hooks = self.hooks.lock();
        hooks.retain(|h| h.strong_count() > 0);
        hooks.try_push(Arc::downgrade(hook))?;
        self.has_hooks.store(true, Relaxed);
        Ok(())
    }

    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }
    /// Changes so far: how edge-triggered epoll tells a new one from an old one.
    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }
    /// For one who has just looked and will look again: sleep once, if `ready` still says no.
    #[inline]
    pub fn sleep_once(&self, ready: impl FnOnce() -> bool) -> Result<()> {
        match self.queue.sleep_once(ready) {
            WaitResult::Interrupted => Err(Errno::RESTART),
            _ => Ok(()),
        }
    }
    /// Sleep until `ready()` or a signal arrives for the caller.
    pub fn wait(&self, ready: impl FnMut() -> bool) -> Result<()> {
        match self.queue.wait_until(ready, None, true) {
            WaitResult::Interrupted => Err(Errno::RESTART),
            _ => Ok(()),
        }
    }
}

/// Queues to sleep on.
#[derive(Default)]
pub struct Watchers {
    signals: Vec<Arc<Signal>>,
    fixed: Vec<&'static WaitQueue>,
    /// There was no room for all.
    short: bool,
}

impl Watchers {
    pub fn new() -> Watchers {
        Watchers::default()
    }
    pub fn add(&mut self, signal: &Arc<Signal>) {
        // The same file many times over is one thing to wait for.
        if self.signals.last().is_none_or(|last| !Arc::ptr_eq(last, signal)) {
            self.short |= self.signals.try_push(signal.clone()).is_err();
        }
    }
    /// A driver's queue.
    pub fn add_fixed(&mut self, queue: &'static WaitQueue) {
        self.short |= self.fixed.try_push(queue).is_err();
    }
    pub fn is_empty(&self) -> bool {
        self.signals.is_empty() && self.fixed.is_empty()
    }
    /// Tell `owner` of every change, too. Only queues that can do so: `false` if there is another, or none.
    pub fn add_owner(&self, owner: &Arc<Owner>) -> Result<bool> {
        self.signals.iter().try_for_each(|s| s.add_owner(owner))?;
        Ok(self.fixed.is_empty() && !self.signals.is_empty())
    }
    /// Tell `hook` of every change, too. Only queues that can do so: `false` if there is another, or none.
    pub fn add_hook(&self, hook: &Arc<dyn Hook>) -> Result<bool> {
        if self.short {
            return Err(Errno::ENOMEM);
        }
        if !self.fixed.is_empty() || self.signals.is_empty() {
            return Ok(false);
        }
        self.signals.iter().try_for_each(|s| s.add_hook(hook)).map(|()| true)
    }
    /// The changes of all that can count them.
    pub fn changes(&self) -> u64 {
        self.signals.iter().fold(0, |sum, s| sum.wrapping_add(s.count()))
    }

    /// Sleep until `ready()`, which is asked first; at most until `deadline` (ns of the monotonic clock).
    pub fn wait(&self, ready: impl FnMut() -> bool, deadline: Option<u64>) -> Result<WaitResult> {
        if self.short {
            return Err(Errno::ENOMEM);
        }
        let mut queues: Vec<&WaitQueue> = Vec::new();
        queues.try_reserve_exact(self.signals.len() + self.fixed.len())?;
        queues.extend(self.signals.iter().map(|s| s.queue()));
        queues.extend(self.fixed.iter().copied());
        sched::multi_wait(&queues, ready, deadline, true).map_err(|_| Errno::ENOMEM)
    }
}
