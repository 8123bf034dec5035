//! Advisory locks on files: `flock(2)`, and `fcntl(2)`'s record locks by process (POSIX) and by open file description (OFD).
//!
//! All locks of the machine are in one table, by inode. POSIX and OFD locks are byte ranges and exclude each other; an
//! `flock` is another kind, over the whole file, that the others do not see (as on Linux). Owners are numbers: a file
//! table's for POSIX locks (threads share them, a fork does not inherit them), a description's for the other two.
//!
//! A range that an owner locks again replaces what it had there: ranges are cut and merged, so that of one owner no two
//! overlap. Who must wait sleeps on the inode's queue and tries again. Before a POSIX lock waits, the chain of who waits
//! for whom is followed: a circle is `EDEADLK`.

use super::{file::File, inode::InodeId, poll::Signal};
use crate::errno::{Errno, Result};
use crate::mem::TryPush;
use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};
use hafez_mm::lock::{LazyLock, Mutex};

/// Locks that one file may have in all: a bound for the kernel's heap.
const MAX_LOCKS: usize = 4096;

/// Who holds a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Owner {
    /// POSIX: the file table's number, and the pid that `F_GETLK` tells.
    Process { table: u64, pid: u32 },
    /// OFD: the description's number.
    Description(u64),
}

impl Owner {
    fn same(&self, other: &Owner) -> bool {
        match (self, other) {
            (Owner::Process { table: a, .. }, Owner::Process { table: b, .. }) => a == b,
            (a, b) => a == b,
        }
    }
}

/// A locked range of bytes, `start <= byte <= last`.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub start: u64,
    pub last: u64,
    pub exclusive: bool,
    pub owner: Owner,
}

impl Record {
    fn overlaps(&self, other: &Record) -> bool {
        self.start <= other.last && other.start <= self.last
    }
    fn conflicts(&self, other: &Record) -> bool {
        !self.owner.same(&other.owner) && (self.exclusive || other.exclusive) && self.overlaps(other)
    }
}

/// A lock on all of a file: whose description, by which process, and of which kind.
struct Whole {
    file: u64,
    pid: u32,
    exclusive: bool,
}

#[derive(Default)]
struct FileLocks {
    records: Vec<Record>,
    /// Of `flock`.
    whole: Vec<Whole>,
    changed: Arc<Signal>,
}

#[derive(Default)]
struct Table {
    files: BTreeMap<InodeId, FileLocks>,
    /// Owners that wait for a record, and what they want.
    waiting: Vec<(InodeId, Record)>,
}

static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);

impl Table {
    /// Forget a file nobody locks or waits for.
    fn tidy(&mut self, id: InodeId) {
        if self.files.get(&id).is_some_and(|f| f.records.is_empty() && f.whole.is_empty()) {
            self.files.remove(&id);
        }
    }

    fn conflict(&self, id: InodeId, want: &Record) -> Option<Record> {
        self.files.get(&id)?.records.iter().find(|r| r.conflicts(want)).copied()
    }

    /// Whether waiting for `want` would close a circle of waiters.
    fn deadlock(&self, id: InodeId, want: &Record) -> bool {
        let mut at = match self.conflict(id, want) {
            Some(r) => r.owner,
            None => return false,
        };
        // A chain longer than the number of waiters has met one twice.
        for _ in 0..=self.waiting.len() {
            let Some((next_id, next)) = self.waiting.iter().find(|(_, w)| w.owner.same(&at)) else {
                return false;
            };
            match self.conflict(*next_id, next) {
                Some(r) if r.owner.same(&want.owner) => return true,
                Some(r) => at = r.owner,
                None => return false,
            }
        }
        true
    }

    /// Take `range` from what its owner has; then, if `lock`, give it to him.
    fn set(&mut self, id: InodeId, range: Record, lock: bool) -> Result<()> {
        let file = self.files.entry(id).or_default();
        if file.records.len() >= MAX_LOCKS {
            return Err(Errno::ENOLCK);
        }
        if !crate::mem::headroom(1024) {
            return Err(Errno::ENOLCK);
        }
        let mut kept = Vec::new();
        kept.try_reserve_exact(file.records.len() + 2).map_err(|_| Errno::ENOLCK)?;
        let mut new = range;
        for r in &file.records {
            if !r.owner.same(&range.owner) {
                kept.push(*r);
                continue;
            }
            let touches = r.start <= new.last.saturating_add(1) && new.start <= r.last.saturating_add(1);
            if lock && r.exclusive == range.exclusive && touches {
                new.start = new.start.min(r.start);
                new.last = new.last.max(r.last);
                continue;
            }
            if !r.overlaps(&range) {
                kept.push(*r);
                continue;
            }
            if r.start < range.start {
                kept.push(Record { last: range.start - 1, ..*r });
            }
            if r.last > range.last {
                kept.push(Record { start: range.last + 1, ..*r });
            }
        }
        if lock {
            kept.push(new);
        }
        file.records = kept;
        Ok(())
    }
}

fn wake(id: InodeId) {
    let changed = TABLE.lock().files.get(&id).map(|f| f.changed.clone());
    if let Some(changed) = changed {
        changed.notify();
    }
}

/// F_GETLK: the lock that would be in the way.
pub fn test(id: InodeId, want: &Record) -> Option<Record> {
    TABLE.lock().conflict(id, want)
}

/// F_SETLK and F_SETLKW of a lock. `EAGAIN` where it must wait and may not.
pub fn lock(id: InodeId, want: Record, wait: bool) -> Result<()> {
    loop {
        let changed = {
            let mut table = TABLE.lock();
            if table.conflict(id, &want).is_none() {
                let result = table.set(id, want, true);
                drop(table);
                // A range that became shared lets others in.
                wake(id);
                return result;
            }
            if !wait {
                return Err(Errno::EAGAIN);
            }
            if matches!(want.owner, Owner::Process { .. }) && table.deadlock(id, &want) {
                return Err(Errno::EDEADLK);
            }
            table.waiting.try_push((id, want)).map_err(|_| Errno::ENOLCK)?;
            table.files.entry(id).or_default().changed.clone()
        };
        let result = changed.wait(|| TABLE.lock().conflict(id, &want).is_none());
        let mut table = TABLE.lock();
        let mine =
            |w: &(InodeId, Record)| w.0 == id && w.1.owner.same(&want.owner) && w.1.start == want.start;
        if let Some(at) = table.waiting.iter().position(mine) {
            table.waiting.swap_remove(at);
        }
        drop(table);
        result?;
    }
}

/// F_UNLCK.
pub fn unlock(id: InodeId, range: Record) -> Result<()> {
    let mut table = TABLE.lock();
    if !table.files.contains_key(&id) {
        return Ok(());
    }
    table.set(id, range, false)?;
    drop(table);
    wake(id);
    TABLE.lock().tidy(id);
    Ok(())
}

/// `flock(2)`, by a process: shared, exclusive, or none.
pub fn flock(file: &File, pid: u32, exclusive: Option<bool>, wait: bool) -> Result<()> {
    let (id, me) = (file.inode().id(), file.id());
    let Some(exclusive) = exclusive else {
        release_whole(id, me);
        return Ok(());
    };
    let free = |f: &FileLocks| !f.whole.iter().any(|lock| lock.file != me && (exclusive || lock.exclusive));
    loop {
        let changed = {
            let mut table = TABLE.lock();
            let locks = table.files.entry(id).or_default();
            // A change of kind gives the old lock up first, as Linux does; another may come between.
            locks.whole.retain(|lock| lock.file != me);
            if free(locks) {
                locks.whole.try_push(Whole { file: me, pid, exclusive }).map_err(|_| Errno::ENOLCK)?;
                drop(table);
                wake(id);
                return Ok(());
            }
            locks.changed.clone()
        };
        changed.notify();
        if !wait {
            return Err(Errno::EAGAIN);
        }
        changed.wait(|| TABLE.lock().files.get(&id).is_none_or(free))?;
    }
}

fn release_whole(id: InodeId, who: u64) {
    if let Some(locks) = TABLE.lock().files.get_mut(&id) {
        locks.whole.retain(|lock| lock.file != who);
    }
    wake(id);
    TABLE.lock().tidy(id);
}

/// A description is gone: its `flock` and its OFD locks with it.
pub fn release_file(file: &File) {
    if TABLE.lock().files.is_empty() {
        return;
    }
    let (id, me) = (file.inode().id(), file.id());
    let held = TABLE.lock().files.contains_key(&id);
    if held {
        let owner = Owner::Description(me);
        let _ = unlock(id, Record { start: 0, last: u64::MAX, exclusive: false, owner });
        release_whole(id, me);
    }
}

/// A process closed a descriptor of this file: by POSIX all its record locks of it are gone, whichever descriptor set them.
pub fn release_process(id: InodeId, table: u64) {
    let held = {
        let all = TABLE.lock();
        !all.files.is_empty() && all.files.contains_key(&id)
    };
    if held {
        let owner = Owner::Process { table, pid: 0 };
        let _ = unlock(id, Record { start: 0, last: u64::MAX, exclusive: false, owner });
    }
}

/// A line of `/proc/locks`.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub id: InodeId,
    /// `POSIX`, `OFDLCK`, `FLOCK`.
    pub kind: &'static str,
    pub exclusive: bool,
    pub pid: i32,
    pub start: u64,
    pub last: u64,
    /// It waits for the one told last that does not.
    pub waits: bool,
}

/// Each lock, and behind it who waits for it, as far as is known: of `flock` it is not.
pub fn each(tell: &mut dyn FnMut(Line)) {
    let table = TABLE.lock();
    let line = |id: InodeId, record: &Record, waits: bool| {
        let (kind, pid) = match record.owner {
            Owner::Process { pid, .. } => ("POSIX", pid as i32),
            Owner::Description(_) => ("OFDLCK", -1),
        };
        Line { id, kind, exclusive: record.exclusive, pid, start: record.start, last: record.last, waits }
    };
    for (id, file) in &table.files {
        for lock in &file.whole {
            let (pid, exclusive) = (lock.pid as i32, lock.exclusive);
            tell(Line { id: *id, kind: "FLOCK", exclusive, pid, start: 0, last: u64::MAX, waits: false });
        }
        for record in &file.records {
            tell(line(*id, record, false));
            let behind = table.waiting.iter().filter(|(of, want)| of == id && record.conflicts(want));
            behind.for_each(|(_, want)| tell(line(*id, want, true)));
        }
    }
}
