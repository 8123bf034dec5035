//! Semaphores (`semget(2)`, `semop(2)`): sets of counters that are changed together.
//!
//! A `semop` is tried whole under the lock: if every change can be made, all are, else none. One that must wait sleeps on
//! the set's queue until the set has changed, and tries again. What was to be undone at the end of a process
//! (`SEM_UNDO`) is kept with the set, by process, so that it goes with the set.

use super::{NOWAIT, Perm, Registry, Thing, now};
use crate::errno::{Errno, Result};
use crate::fs::Cred;
use crate::mem;
use crate::process::Pid;
use crate::sched::{WaitQueue, WaitResult};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hafez_mm::lock::Mutex;

/// Sets that there may be (`SEMMNI`), semaphores in one (`SEMMSL`), changes at once (`SEMOPM`), the highest value (`SEMVMX`).
pub static MOST: AtomicU64 = AtomicU64::new(32000);
pub static LARGEST: AtomicU64 = AtomicU64::new(32000);
pub static MOST_CHANGES: AtomicU64 = AtomicU64::new(500);
/// In all sets together.
pub static ALL: AtomicU64 = AtomicU64::new(32000 * 32000);
pub const HIGHEST: i32 = 32767;
/// Undo this change when the process ends (`SEM_UNDO`).
const UNDO: u16 = 0x1000;

/// One change: `struct sembuf`.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub number: u16,
    pub by: i16,
    pub flags: u16,
}

#[derive(Clone, Copy, Default)]
struct Semaphore {
    value: i32,
    last: Pid,
    /// Who wait for it to grow, and to be zero.
    growers: u32,
    zeroers: u32,
}

struct Set {
    perm: Perm,
    semaphores: Vec<Semaphore>,
    operated: u64,
    changed: u64,
    undo: BTreeMap<Pid, BTreeMap<u16, i32>>,
    waiting: Arc<Waiting>,
}

/// Where they wait for a set to change. It outlives the set.
struct Waiting {
    changes: AtomicU64,
    removed: AtomicBool,
    queue: WaitQueue,
}

impl Waiting {
    fn wake(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.queue.wake_all();
    }
}

impl Thing for Set {
    fn perm(&self) -> &Perm {
        &self.perm
    }
}

/// What `IPC_STAT` tells.
pub struct Stat {
    pub perm: Perm,
    pub operated: u64,
    pub changed: u64,
    pub count: u64,
}

impl Stat {
    fn of(set: &Set) -> Stat {
        let count = set.semaphores.len() as u64;
        Stat { perm: set.perm.clone(), operated: set.operated, changed: set.changed, count }
    }
}

/// What can be asked of one semaphore.
#[derive(Clone, Copy)]
pub enum Ask {
    Value,
    Last,
    Growers,
    Zeroers,
}

/// What number the next one shall have.
pub static NEXT: AtomicU64 = AtomicU64::new(super::ANY);

static SETS: Mutex<Registry<Set>> = Mutex::new(Registry::new(&NEXT));

/// `semget`.
pub fn get(key: i32, count: i32, flags: u32, cred: &Cred) -> Result<i32> {
    let Some(count) = usize::try_from(count).ok().filter(|n| *n as u64 <= LARGEST.load(Ordering::Relaxed))
    else {
        return Err(Errno::EINVAL);
    };
    if !mem::headroom(1024 + count * size_of::<Semaphore>()) {
        return Err(Errno::ENOMEM);
    }
    let mut sets = SETS.lock();
    let used: usize = sets.all().map(|set| set.semaphores.len()).sum();
    sets.find_or_make(
        (key, flags, cred),
        MOST.load(Ordering::Relaxed) as usize,
        |found: &Set| if count > found.semaphores.len() { Err(Errno::EINVAL) } else { Ok(()) },
        |perm| {
            if count == 0 {
                return Err(Errno::EINVAL);
            }
            if (used + count) as u64 > ALL.load(Ordering::Relaxed) {
                return Err(Errno::ENOSPC);
            }
            let waiting = Waiting {
                changes: AtomicU64::new(0),
                removed: AtomicBool::new(false),
                queue: WaitQueue::new(),
            };
            Ok(Set {
                perm,
                semaphores: vec![Semaphore::default(); count],
                operated: 0,
                changed: now(),
                undo: BTreeMap::new(),
                waiting: Arc::new(waiting),
            })
        },
    )
}

/// What came of a try.
enum Tried {
    Done(Arc<Waiting>),
    /// The change of this number has to wait.
    Wait(usize, Arc<Waiting>),
}

impl Set {
    /// Make all changes or none.
    fn change(&mut self, changes: &[Change], by: Pid) -> Result<Tried> {
        let mut values: Vec<i32> = Vec::new();
        values.try_reserve(self.semaphores.len()).map_err(|_| Errno::ENOMEM)?;
        values.extend(self.semaphores.iter().map(|s| s.value));
        for (i, c) in changes.iter().enumerate() {
            let value = values.get_mut(c.number as usize).ok_or(Errno::EFBIG)?;
            let new = *value + c.by as i32;
            if new > HIGHEST {
                return Err(Errno::ERANGE);
            }
            if new < 0 || c.by == 0 && *value != 0 {
                return if c.flags & NOWAIT as u16 != 0 {
                    Err(Errno::EAGAIN)
                } else {
                    Ok(Tried::Wait(i, self.waiting.clone()))
                };
            }
            *value = new;
        }
        for (semaphore, value) in self.semaphores.iter_mut().zip(values) {
            semaphore.value = value;
        }
        for c in changes {
            self.semaphores[c.number as usize].last = by;
            if c.flags & UNDO != 0 && c.by != 0 {
                *self.undo.entry(by).or_default().entry(c.number).or_default() -= c.by as i32;
            }
        }
        self.operated = now();
        Ok(Tried::Done(self.waiting.clone()))
    }

    /// One more, or one fewer, waits for this change.
    fn count(&mut self, change: Change, by: i32) {
        let semaphore = &mut self.semaphores[change.number as usize];
        let counter = if change.by == 0 { &mut semaphore.zeroers } else { &mut semaphore.growers };
        *counter = counter.saturating_add_signed(by);
    }
}

/// `semtimedop`.
pub fn operate(id: i32, changes: &[Change], cred: &Cred, by: Pid, deadline: Option<u64>) -> Result<()> {
    let wanted = if changes.iter().any(|c| c.by != 0) { super::WRITE } else { super::READ };
    loop {
        let (blocked, waiting, seen) = {
            let mut sets = SETS.lock();
            let set = sets.get(id)?;
            if changes.iter().any(|c| c.number as usize >= set.semaphores.len()) {
                return Err(Errno::EFBIG);
            }
            set.perm.check(cred, wanted)?;
            match set.change(changes, by)? {
                Tried::Done(waiting) => {
                    drop(sets);
                    if wanted == super::WRITE {
                        waiting.wake();
                    }
                    return Ok(());
                }
                Tried::Wait(i, waiting) => {
                    set.count(changes[i], 1);
                    let seen = waiting.changes.load(Ordering::SeqCst);
                    (i, waiting, seen)
                }
            }
        };
        let moved = || waiting.changes.load(Ordering::SeqCst) != seen;
        let result = waiting.queue.wait_until(moved, deadline, true);
        if waiting.removed.load(Ordering::SeqCst) {
            return Err(Errno::EIDRM);
        }
        if let Ok(set) = SETS.lock().get(id) {
            set.count(changes[blocked], -1);
        }
        match result {
            WaitResult::Ready => {}
            WaitResult::TimedOut => return Err(Errno::EAGAIN),
            // Never restarted (`signal(7)`).
            WaitResult::Interrupted => return Err(Errno::EINTR),
        }
    }
}

/// Look at a set, or change it; `wanted` is the right for it.
fn with<R>(id: i32, cred: &Cred, wanted: u32, what: impl FnOnce(&mut Set) -> Result<R>) -> Result<R> {
    let mut sets = SETS.lock();
    let set = sets.get(id)?;
    set.perm.check(cred, wanted)?;
    what(set)
}

/// `GETVAL` and its kin.
pub fn ask(id: i32, number: i32, what: Ask, cred: &Cred) -> Result<u64> {
    with(id, cred, super::READ, |set| {
        let at = usize::try_from(number).map_err(|_| Errno::EINVAL)?;
        let semaphore = set.semaphores.get(at).ok_or(Errno::EINVAL)?;
        Ok(match what {
            Ask::Value => semaphore.value as u64,
            Ask::Last => semaphore.last as u64,
            Ask::Growers => semaphore.growers as u64,
            Ask::Zeroers => semaphore.zeroers as u64,
        })
    })
}

/// `GETALL`.
pub fn values(id: i32, cred: &Cred) -> Result<Vec<u16>> {
    with(id, cred, super::READ, |set| Ok(set.semaphores.iter().map(|s| s.value as u16).collect()))
}

/// How many semaphores the set has, for one who wants to set them all.
pub fn count(id: i32, cred: &Cred) -> Result<usize> {
    with(id, cred, super::WRITE, |set| Ok(set.semaphores.len()))
}

/// `SETVAL`: one, or `SETALL`: those from `first` on. What was to be undone to them is not any more.
pub fn set_values(id: i32, first: i32, values: &[i32], cred: &Cred, by: Pid) -> Result<()> {
    if values.iter().any(|v| !(0..=HIGHEST).contains(v)) {
        return Err(Errno::ERANGE);
    }
    let waiting = with(id, cred, super::WRITE, |set| {
        let first = usize::try_from(first).map_err(|_| Errno::EINVAL)?;
        let places = set.semaphores.get_mut(first..first + values.len()).ok_or(Errno::EINVAL)?;
        for (semaphore, value) in places.iter_mut().zip(values) {
            (semaphore.value, semaphore.last) = (*value, by);
        }
        for undo in set.undo.values_mut() {
            undo.retain(|number, _| !(first..first + values.len()).contains(&(*number as usize)));
        }
        set.changed = now();
        Ok(set.waiting.clone())
    })?;
    waiting.wake();
    Ok(())
}

/// `IPC_STAT`.
pub fn stat(id: i32, cred: &Cred) -> Result<Stat> {
    with(id, cred, super::READ, |set| Ok(Stat::of(set)))
}

/// The first set whose number is `from` or above.
pub fn next(from: i32) -> Option<(i32, Stat)> {
    SETS.lock().things.range(from..).next().map(|(id, set)| (*id, Stat::of(set)))
}

/// The highest number in use; how many sets there are, and semaphores in them.
pub fn totals() -> (i32, u32, u32) {
    let sets = SETS.lock();
    let all = sets.all().map(|s| s.semaphores.len() as u32).sum();
    (sets.highest(), sets.things.len() as u32, all)
}

/// `IPC_SET`.
pub fn set(id: i32, cred: &Cred, uid: u32, gid: u32, mode: u32) -> Result<()> {
    with(id, cred, 0, |set| {
        set.perm.check_owner(cred)?;
        set.perm.set(uid, gid, mode);
        set.changed = now();
        Ok(())
    })
}

/// `IPC_RMID`. Those who wait hear EIDRM.
pub fn remove(id: i32, cred: &Cred) -> Result<()> {
    let set = {
        let mut sets = SETS.lock();
        sets.get(id)?.perm.check_owner(cred)?;
        sets.remove(id)
    };
    if let Some(set) = set {
        set.waiting.removed.store(true, Ordering::SeqCst);
        set.waiting.wake();
    }
    Ok(())
}

/// A process has ended: undo what it wanted undone. A value stays within its bounds.
pub fn process_ends(pid: Pid) {
    let mut from = i32::MIN;
    loop {
        let mut sets = SETS.lock();
        let mut those = sets.things.range_mut(from..);
        let Some((id, set)) = those.find(|(_, set)| set.undo.contains_key(&pid)) else { return };
        from = id.saturating_add(1);
        for (number, by) in set.undo.remove(&pid).into_iter().flatten() {
            let semaphore = &mut set.semaphores[number as usize];
            semaphore.value = (semaphore.value + by).clamp(0, HIGHEST);
            semaphore.last = pid;
        }
        let waiting = set.waiting.clone();
        drop(sets);
        waiting.wake();
    }
}
