//! Futexes that lend urgency (`FUTEX_LOCK_PI` and its kin, `futex(2)`): who holds a lock that a more urgent thread waits for runs as
//! urgently as that one, and passes it on if it waits for a lock itself.
//!
//! ```text
//!   word in user memory    the holder's number, WAITERS if unlocking is the kernel's, OWNER_DIED if a holder died with it
//!   Lock, by Key           only while somebody waits: the holder, and who waits
//!   parked                 who waits for another word, to be moved to a lock (`FUTEX_CMP_REQUEUE_PI`)
//! ```
//!
//! While a lock has waiters its holder is changed here alone: the next holder is chosen and *granted* the lock, its number
//! goes into the word, and then it wakes. One that was granted the lock has it, whatever else ended its wait.
//! The most urgent comes first, and of those the one that has waited longest.
//!
//! A holder that dies hands on what it holds; the new one, when it runs, writes the word itself, for the dead one's memory may
//! be another: until then the `Lock` stays, though nobody waits.
//!
//! Locks: [`ORDER`], by key, two in order of their index, over the reading and writing of words, which may sleep; then
//! `STATE`, a spin lock over all that is known, and in it a waiter's `place`.
#![forbid(unsafe_code)]

use super::futex::{self, Key};
use super::task::Task;
use super::{Pid, table};
use crate::arch::user;
use crate::errno::{Errno, Result};
use crate::fs::lock::{SleepGuard, SleepLock};
use crate::mem::{self, TryPush};
use crate::sched::timer::Deadline;
use crate::sched::{WaitQueue, WaitResult};
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use hafez_mm::Space;
use hafez_mm::lock::Mutex;
use linux_raw_sys::general::{FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS};

const ORDERS: usize = 16;
static ORDER: [SleepLock; ORDERS] = [const { SleepLock::new() }; ORDERS];
static STATE: Mutex<State> =
    Mutex::new(State { locks: BTreeMap::new(), parked: Vec::new(), blocked: BTreeMap::new() });

struct State {
    locks: BTreeMap<Key, Lock>,
    parked: Vec<Arc<Waiter>>,
    /// Which lock a task waits for.
    blocked: BTreeMap<Pid, Key>,
}

struct Lock {
    holder: Weak<Task>,
    /// In order of arrival.
    waiters: Vec<Arc<Waiter>>,
}

struct Waiter {
    task: Arc<Task>,
    queue: WaitQueue,
    place: Mutex<Place>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Waits on a word, to be moved to a lock.
    Parked {
        from: Key,
        to: Key,
    },
    Queued(Key),
    /// Has the lock; `died`: from a holder that is dead.
    Granted {
        key: Key,
        died: bool,
    },
}

impl Waiter {
    fn new(task: &Arc<Task>, place: Place) -> Result<Arc<Waiter>> {
        if !mem::headroom(1024) {
            return Err(Errno::ENOMEM);
        }
        Ok(Arc::new(Waiter { task: task.clone(), queue: WaitQueue::new(), place: Mutex::new(place) }))
    }
    fn place(&self) -> Place {
        *self.place.lock()
    }
    fn is_granted(&self) -> bool {
        matches!(self.place(), Place::Granted { .. })
    }
}

fn order(key: Key) -> SleepGuard<'static> {
    ORDER[key.bucket() % ORDERS].lock()
}

fn order_two(a: Key, b: Key) -> (SleepGuard<'static>, Option<SleepGuard<'static>>) {
    let (a, b) = (a.bucket() % ORDERS, b.bucket() % ORDERS);
    let first = ORDER[a.min(b)].lock();
    (first, (a != b).then(|| ORDER[a.max(b)].lock()))
}

/// The most urgent of them, and of those the first.
fn most_urgent<'a>(waiters: impl Iterator<Item = &'a Arc<Waiter>>) -> Option<usize> {
    let ranked = waiters.enumerate().map(|(at, waiter)| (waiter.task.urgency(), core::cmp::Reverse(at)));
    ranked.max().map(|(_, at)| at.0)
}

impl State {
    /// Tell the task, and whom it waits for in turn, how urgent those are that wait for it.
    fn settle(&mut self, task: &Arc<Task>) {
        let mut task = task.clone();
        loop {
            let held = self.locks.values().filter(|lock| lock.holder.as_ptr() == Arc::as_ptr(&task));
            let lent = held.flat_map(|lock| &lock.waiters).map(|waiter| waiter.task.urgency()).max();
            let lent = lent.unwrap_or(Task::NOTHING_LENT);
            if task.lent.swap(lent, SeqCst) == lent {
                return;
            }
            task.weigh();
            let waits_for = self.blocked.get(&task.tid()).and_then(|key| self.locks.get(key));
            let Some(next) = waits_for.and_then(|lock| lock.holder.upgrade()) else { return };
            task = next;
        }
    }

    /// Whether `task` would wait for itself if it waited for `holder`.
    fn is_circle(&self, task: &Arc<Task>, holder: &Arc<Task>) -> bool {
        let mut holder = holder.clone();
        loop {
            if Arc::ptr_eq(&holder, task) {
                return true;
            }
            let waits_for = self.blocked.get(&holder.tid()).and_then(|key| self.locks.get(key));
            match waits_for.and_then(|lock| lock.holder.upgrade()) {
                Some(next) => holder = next,
                None => return false,
            }
        }
    }

    /// Let a waiter wait for the lock that `holder` has. EDEADLK for a circle; ESRCH for one who is gone.
    fn enter(&mut self, waiter: &Arc<Waiter>, key: Key, holder: &Arc<Task>) -> Result<()> {
        if holder.pi_closed.load(SeqCst) {
            return Err(Errno::ESRCH);
        }
        if self.is_circle(&waiter.task, holder) {
            return Err(Errno::EDEADLK);
        }
        let fresh = || Lock { holder: Arc::downgrade(holder), waiters: Vec::new() };
        let lock = self.locks.entry(key).or_insert_with(fresh);
        if lock.waiters.try_push(waiter.clone()).is_err() {
            if lock.waiters.is_empty() {
                self.locks.remove(&key);
            }
            return Err(Errno::ENOMEM);
        }
        *waiter.place.lock() = Place::Queued(key);
        self.blocked.insert(waiter.task.tid(), key);
        holder.pi_holds.store(true, Relaxed);
        self.settle(holder);
        Ok(())
    }

    /// The lock's next holder, granted it already; and whether others still wait.
    fn hand_on(&mut self, key: Key, died: bool) -> Option<(Arc<Waiter>, bool)> {
        let lock = self.locks.get_mut(&key)?;
        let next = lock.waiters.remove(most_urgent(lock.waiters.iter())?);
        let more = !lock.waiters.is_empty();
        lock.holder = Arc::downgrade(&next.task);
        if !more && !died {
            self.locks.remove(&key);
        }
        next.task.pi_holds.store(true, Relaxed);
        *next.place.lock() = Place::Granted { key, died };
        self.blocked.remove(&next.task.tid());
        self.settle(&next.task);
        Some((next, more))
    }

    /// A waiter gives up.
    fn leave(&mut self, waiter: &Arc<Waiter>) {
        match waiter.place() {
            Place::Parked { .. } => self.parked.retain(|other| !Arc::ptr_eq(other, waiter)),
            Place::Queued(key) => {
                self.blocked.remove(&waiter.task.tid());
                let Some(lock) = self.locks.get_mut(&key) else { return };
                lock.waiters.retain(|other| !Arc::ptr_eq(other, waiter));
                let holder = lock.holder.upgrade();
                // One that was granted the lock by a death has yet to write the word.
                if lock.waiters.is_empty()
                    && !holder.as_ref().is_some_and(|holder| holder.pi_heir.load(Relaxed))
                {
                    self.locks.remove(&key);
                }
                if let Some(holder) = holder {
                    self.settle(&holder);
                }
            }
            Place::Granted { .. } => {}
        }
    }
}

/// What became of the try to take a lock.
enum Claim {
    Taken,
    /// It is this one's.
    Held(Arc<Task>),
}

/// Take the lock for `task` if it is free; with its key's order taken. `more`: others will wait for it.
fn claim(task: &Arc<Task>, key: Key, at: u64, more: bool) -> Result<Claim> {
    let me = task.tid() as u32;
    loop {
        let value = user::read_u32(at)?;
        let holder = value & FUTEX_TID_MASK;
        if holder == me {
            return Err(Errno::EDEADLK);
        }
        let known = STATE.lock().locks.get(&key).map(|lock| lock.holder.clone());
        if let Some(known) = known {
            let known = known.upgrade().ok_or(Errno::ESRCH)?;
            // The word must say what is known here, unless a death has not been written down yet.
            let agrees = known.tid() as u32 == holder || known.pi_heir.load(Relaxed);
            return if agrees { Ok(Claim::Held(known)) } else { Err(Errno::EINVAL) };
        }
        if holder == 0 {
            let waiters = if more { FUTEX_WAITERS } else { 0 };
            if user::cmpxchg_u32(at, value, me | value & FUTEX_OWNER_DIED | waiters)? == value {
                return Ok(Claim::Taken);
            }
            continue;
        }
        let holder = table::task(holder as Pid).ok_or(Errno::ESRCH)?;
        return Ok(Claim::Held(holder));
    }
}

/// Have the holder unlock by a call: say in the word that somebody waits. `false`: it is another word by now.
fn mark(at: u64, holder: &Task) -> Result<bool> {
    let value = user::read_u32(at)?;
    if value & FUTEX_WAITERS != 0 {
        return Ok(true);
    }
    if value & FUTEX_TID_MASK != holder.tid() as u32 {
        return Ok(holder.pi_heir.load(Relaxed));
    }
    Ok(user::cmpxchg_u32(at, value, value | FUTEX_WAITERS)? == value)
}

/// `FUTEX_LOCK_PI`, `FUTEX_TRYLOCK_PI`.
pub fn lock(
    (space, task): (&Space, &Arc<Task>),
    (at, private): (u64, bool),
    deadline: Option<Deadline>,
    only_try: bool,
) -> Result<()> {
    let key = Key::of(space, at, private)?;
    let waiter = Waiter::new(task, Place::Queued(key))?;
    {
        let _one = order(key);
        loop {
            let holder = match claim(task, key, at, false)? {
                Claim::Taken => return Ok(()),
                Claim::Held(_) if only_try => return Err(Errno::EAGAIN),
                Claim::Held(holder) => holder,
            };
            if mark(at, &holder)? {
                STATE.lock().enter(&waiter, key, &holder)?;
                break;
            }
        }
    }
    wait(&waiter, at, deadline)
        .map_err(|error| if error == Errno::EINTR { Errno::RESTART_NOINTR } else { error })
}

/// Sleep until the lock is granted. EINTR for a signal; EAGAIN for one that came when the waiter had been moved to the lock.
fn wait(waiter: &Arc<Waiter>, at: u64, deadline: Option<Deadline>) -> Result<()> {
    let began = waiter.place();
    let end = waiter.queue.wait_till(|| waiter.is_granted(), deadline, true);
    let place = {
        let mut state = STATE.lock();
        state.leave(waiter);
        waiter.place()
    };
    let Place::Granted { key, died } = place else {
        return Err(match end {
            WaitResult::TimedOut => Errno::ETIMEDOUT,
            _ if place != began => Errno::EAGAIN,
            _ => Errno::EINTR,
        });
    };
    // Who granted it may be about to write the word.
    let _one = order(key);
    if died { inherit(waiter, key, at) } else { Ok(()) }
}

/// The holder before died: the word is written by the new one.
fn inherit(waiter: &Arc<Waiter>, key: Key, at: u64) -> Result<()> {
    let me = waiter.task.tid() as u32;
    let written = loop {
        let Ok(value) = user::read_u32(at) else { break Err(Errno::EFAULT) };
        let new = me | value & FUTEX_WAITERS | FUTEX_OWNER_DIED;
        match user::cmpxchg_u32(at, value, new) {
            Ok(seen) if seen == value => break Ok(()),
            Ok(_) => {}
            Err(_) => break Err(Errno::EFAULT),
        }
    };
    let mut state = STATE.lock();
    waiter.task.pi_heir.store(false, Relaxed);
    if state.locks.get(&key).is_some_and(|lock| lock.waiters.is_empty()) {
        state.locks.remove(&key);
    }
    written
}

/// `FUTEX_UNLOCK_PI`: EPERM if the caller does not hold the lock.
pub fn unlock((space, task): (&Space, &Arc<Task>), at: u64, private: bool) -> Result<()> {
    let me = task.tid() as u32;
    if user::read_u32(at)? & FUTEX_TID_MASK != me {
        return Err(Errno::EPERM);
    }
    let key = Key::of(space, at, private)?;
    let _one = order(key);
    loop {
        let value = user::read_u32(at)?;
        if value & FUTEX_TID_MASK != me {
            return Err(Errno::EPERM);
        }
        let next = {
            let mut state = STATE.lock();
            let other = |lock: &Lock| lock.holder.as_ptr() != Arc::as_ptr(task);
            if state.locks.get(&key).is_some_and(other) {
                return Err(Errno::EINVAL);
            }
            let next = state.hand_on(key, false);
            state.settle(task);
            next
        };
        let Some((next, _)) = next else {
            if user::cmpxchg_u32(at, value, 0)? == value {
                return Ok(());
            }
            continue;
        };
        // Only the holder writes the word while others wait; a program that does otherwise has what it wrote overwritten.
        let new = FUTEX_WAITERS | next.task.tid() as u32;
        let mut old = value;
        let written = loop {
            match user::cmpxchg_u32(at, old, new) {
                Ok(seen) if seen == old => break Ok(()),
                Ok(seen) => old = seen,
                Err(bad) => break Err(bad.into()),
            }
        };
        next.queue.wake_all();
        return written;
    }
}

/// `FUTEX_WAIT_REQUEUE_PI`: wait on one word until moved to the lock at the other, and then for that.
pub fn wait_requeue(
    (space, task): (&Space, &Arc<Task>),
    (at, expected): (u64, u32),
    (lock_at, private): (u64, bool),
    deadline: Option<Deadline>,
) -> Result<()> {
    let (from, to) = (Key::of(space, at, private)?, Key::of(space, lock_at, private)?);
    if from == to {
        return Err(Errno::EINVAL);
    }
    let waiter = Waiter::new(task, Place::Parked { from, to })?;
    {
        let _one = order(from);
        if user::read_u32(at)? != expected {
            return Err(Errno::EAGAIN);
        }
        STATE.lock().parked.try_push(waiter.clone())?;
    }
    wait(&waiter, lock_at, deadline)
        .map_err(|error| if error == Errno::EINTR { Errno::RESTART_NOINTR } else { error })
}

/// `FUTEX_CMP_REQUEUE_PI`: give the lock to one of those who wait on the word, if it is free, and let up to `moves` others wait for it.
/// How many that were.
pub fn requeue(
    space: &Space,
    (at, expected): (u64, u32),
    (lock_at, private): (u64, bool),
    moves: usize,
) -> Result<usize> {
    let (from, to) = (Key::of(space, at, private)?, Key::of(space, lock_at, private)?);
    if from == to {
        return Err(Errno::EINVAL);
    }
    if !mem::headroom(1024) {
        return Err(Errno::ENOMEM);
    }
    let _both = order_two(from, to);
    if user::read_u32(at)? != expected {
        return Err(Errno::EAGAIN);
    }
    if futex::is_awaited(from) {
        // Who waits there in the plain way expects no lock.
        return Err(Errno::EINVAL);
    }
    let mut done = 0;
    while done < moves.saturating_add(1) {
        let (waiter, more) = {
            let state = STATE.lock();
            let here = |waiter: &&Arc<Waiter>| matches!(waiter.place(), Place::Parked { from: at, .. } if at == from);
            let Some(which) = most_urgent(state.parked.iter().filter(here)) else { break };
            let Some(waiter) = state.parked.iter().filter(here).nth(which).cloned() else { break };
            (waiter, moves > 0 && state.parked.iter().filter(here).count() > 1)
        };
        if waiter.place() != (Place::Parked { from, to }) {
            return Err(Errno::EINVAL);
        }
        match claim(&waiter.task, to, lock_at, more)? {
            Claim::Held(holder) => {
                if !mark(lock_at, &holder)? {
                    continue;
                }
                let mut state = STATE.lock();
                // It may have given up meanwhile.
                if waiter.place() == (Place::Parked { from, to }) && state.is_parked(&waiter) {
                    state.enter(&waiter, to, &holder)?;
                    state.parked.retain(|other| !Arc::ptr_eq(other, &waiter));
                    done += 1;
                }
            }
            Claim::Taken => {
                let granted = {
                    let mut state = STATE.lock();
                    let waits = state.is_parked(&waiter);
                    if waits {
                        *waiter.place.lock() = Place::Granted { key: to, died: false };
                        state.parked.retain(|other| !Arc::ptr_eq(other, &waiter));
                    }
                    waits
                };
                if granted {
                    waiter.queue.wake_all();
                    done += 1;
                } else {
                    user::write_u32(lock_at, 0)?;
                }
            }
        }
    }
    Ok(done)
}

impl State {
    fn is_parked(&self, waiter: &Arc<Waiter>) -> bool {
        self.parked.iter().any(|other| Arc::ptr_eq(other, waiter))
    }
}

/// The task is about to be gone: what it holds goes to those who wait for it.
pub fn holder_ends(task: &Arc<Task>) {
    let mut state = STATE.lock();
    task.pi_closed.store(true, SeqCst);
    if !task.pi_holds.load(Relaxed) {
        return;
    }
    let held = |state: &State| {
        let mut locks = state.locks.iter();
        locks.find(|(_, lock)| lock.holder.as_ptr() == Arc::as_ptr(task)).map(|(key, _)| *key)
    };
    while let Some(key) = held(&state) {
        match state.hand_on(key, true) {
            Some((next, _)) => {
                next.task.pi_heir.store(true, Relaxed);
                next.queue.wake_all();
            }
            None => drop(state.locks.remove(&key)),
        }
    }
}
