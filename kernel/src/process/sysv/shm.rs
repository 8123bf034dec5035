//! Shared memory (`shmget(2)`, `shmat(2)`): a shared object with a number.
//!
//! To attach a segment is to map its object. Who has it attached is not written down anywhere: every mapping of a segment
//! carries the segment's own label, and the label's reference count is the number of mappings, whatever forks, unmaps or ends. So
//! a segment that was removed is gone when its label is held by nobody else; its pages went with the last mapping (the
//! object was retired), and its entry goes with the next call that looks.

use super::{Perm, Registry, Thing, now};
use crate::errno::{Errno, Result};
use crate::fs::Cred;
use crate::fs::caps::cap;
use crate::mem::{self, memory};
use crate::process::Pid;
use alloc::format;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use hafez_mm::lock::Mutex;
use hafez_mm::{AccountId, Label, Object, PAGE_SIZE};

/// Segments that there may be (`SHMMNI`), and bytes of one (`SHMMAX`): settings.
pub static MOST: AtomicU64 = AtomicU64::new(4096);
pub static LARGEST: AtomicU64 = AtomicU64::new(u64::MAX - (1 << 24));
/// Pages of all together (`SHMALL`).
pub static ALL: AtomicU64 = AtomicU64::new(u64::MAX - (1 << 24));
/// Kernel memory that one takes.
const COST: usize = 1024;

/// One segment.
pub struct Segment {
    perm: Perm,
    size: u64,
    object: Arc<Object>,
    label: Arc<Label>,
    removed: bool,
    attached: u64,
    detached: u64,
    changed: u64,
    creator: Pid,
    last: Pid,
}

impl Thing for Segment {
    fn perm(&self) -> &Perm {
        &self.perm
    }
    fn is_removed(&self) -> bool {
        self.removed
    }
}

impl Segment {
    fn pages(&self) -> u64 {
        self.size.div_ceil(PAGE_SIZE as u64)
    }

    fn mappings(&self) -> u64 {
        Arc::strong_count(&self.label) as u64 - 1
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if !self.removed {
            memory().object_retire(&self.object);
        }
    }
}

/// What `IPC_STAT` tells.
pub struct Stat {
    pub perm: Perm,
    pub size: u64,
    /// When it was last attached, detached, changed.
    pub times: [u64; 3],
    pub creator: Pid,
    pub last: Pid,
    pub mappings: u64,
    object: Arc<Object>,
}

/// What to map to attach a segment.
pub struct Attachment {
    pub object: Arc<Object>,
    pub label: Arc<Label>,
    pub pages: u64,
}

/// What number the next one shall have.
pub static NEXT: AtomicU64 = AtomicU64::new(super::ANY);

static SEGMENTS: Mutex<Registry<Segment>> = Mutex::new(Registry::new(&NEXT));

/// Do something with the list, after those have been taken out that nobody needs any more.
fn with<R>(what: impl FnOnce(&mut Registry<Segment>) -> R) -> R {
    let mut list = SEGMENTS.lock();
    let gone = list.sweep(|s| !s.removed || s.mappings() > 0);
    let result = what(&mut list);
    drop(list);
    drop(gone);
    result
}

/// `shmget`. A new segment's frames are charged to `account`.
pub fn get(key: i32, size: u64, flags: u32, cred: &Cred, creator: Pid, account: AccountId) -> Result<i32> {
    let sized = (1..=LARGEST.load(Relaxed)).contains(&size);
    let pages = size.div_ceil(PAGE_SIZE as u64);
    if !mem::headroom(COST) {
        return Err(Errno::ENOMEM);
    }
    let object = memory().new_object_shared(pages.min(1 << 35) * PAGE_SIZE as u64, account)?;
    let spare = object.clone();
    let result = with(|list| {
        let all: u64 = list.all().map(Segment::pages).sum();
        list.find_or_make(
            (key, flags, cred),
            MOST.load(Relaxed) as usize,
            |found: &Segment| if size > found.size { Err(Errno::EINVAL) } else { Ok(()) },
            |perm| {
                if !sized || pages >= 1 << 35 {
                    return Err(if sized { Errno::ENOMEM } else { Errno::EINVAL });
                }
                if all.saturating_add(pages) > ALL.load(Relaxed) {
                    return Err(Errno::ENOSPC);
                }
                let path = format!("/SYSV{:08x} (deleted)", perm.key as u32).into_bytes().into_boxed_slice();
                let label = Arc::new(Label { path, dev: 1, ino: object.id().into() });
                Ok(Segment {
                    perm,
                    size,
                    object,
                    label,
                    removed: false,
                    attached: 0,
                    detached: 0,
                    changed: now(),
                    creator,
                    last: 0,
                })
            },
        )
    });
    // Still here and in no segment: it was not needed.
    if Arc::strong_count(&spare) == 1 {
        memory().object_retire(&spare);
    }
    result
}

/// What `shmat` is to map.
pub fn attach(id: i32, cred: &Cred, wanted: u32, by: Pid) -> Result<Attachment> {
    with(|list| {
        let segment = list.get(id)?;
        segment.perm.check(cred, wanted)?;
        (segment.attached, segment.last) = (now(), by);
        let pages = segment.size.div_ceil(PAGE_SIZE as u64);
        Ok(Attachment { object: segment.object.clone(), label: segment.label.clone(), pages })
    })
}

/// How many pages the segment with this label has, if it is one.
pub fn pages(label: &Arc<Label>) -> Option<u64> {
    let list = SEGMENTS.lock();
    let found = list.all().find(|s| Arc::ptr_eq(&s.label, label));
    found.map(|s| s.size.div_ceil(PAGE_SIZE as u64))
}

/// It has been detached.
pub fn detached(label: Arc<Label>, by: Pid) {
    {
        let mut list = SEGMENTS.lock();
        if let Some(segment) = list.things.values_mut().find(|s| Arc::ptr_eq(&s.label, &label)) {
            (segment.detached, segment.last) = (now(), by);
        }
    }
    drop(label);
    with(|_| ());
}

impl Stat {
    fn of(s: &Segment) -> Stat {
        Stat {
            perm: s.perm.clone(),
            size: s.size,
            times: [s.attached, s.detached, s.changed],
            creator: s.creator,
            last: s.last,
            mappings: s.mappings(),
            object: s.object.clone(),
        }
    }

    /// Pages in RAM, and in swap.
    pub fn pages(&self) -> (u64, u64) {
        let resident = self.object.resident();
        (resident, self.object.held().saturating_sub(resident))
    }
}

/// `IPC_STAT`; without credentials (`SHM_STAT_ANY`) whoever asks may know.
pub fn stat(id: i32, cred: Option<&Cred>) -> Result<Stat> {
    with(|list| {
        let s = list.get(id)?;
        cred.map_or(Ok(()), |cred| s.perm.check(cred, super::READ))?;
        Ok(Stat::of(s))
    })
}

/// The first segment whose number is `from` or above.
pub fn next(from: i32) -> Option<(i32, Stat)> {
    with(|list| list.things.range(from..).next().map(|(id, s)| (*id, Stat::of(s))))
}

/// `SHM_INFO`: how many there are, and their pages: all, in RAM, in swap.
pub fn totals() -> [u64; 4] {
    let (mut sum, mut from) = ([0; 4], 0);
    while let Some((id, stat)) = next(from) {
        let (resident, swapped) = stat.pages();
        let more = [1, stat.size.div_ceil(PAGE_SIZE as u64), resident, swapped];
        sum = core::array::from_fn(|i| sum[i] + more[i]);
        from = id + 1;
    }
    sum
}

/// `SHM_LOCK` and `SHM_UNLOCK`: its pages stay in RAM, as far as `limit` allows who may not lock as much as he likes.
pub fn lock(id: i32, cred: &Cred, limit: u64, on: bool) -> Result<()> {
    with(|list| {
        let segment = list.get(id)?;
        if !cred.may(cap::IPC_LOCK) {
            let own = [segment.perm.uid, segment.perm.creator_uid].contains(&cred.euid);
            if !own || on && limit == 0 {
                return Err(Errno::EPERM);
            }
            if on && segment.size > limit {
                return Err(Errno::ENOMEM);
            }
        }
        segment.object.set_locked(on);
        segment.perm.mode = segment.perm.mode & !LOCKED | if on { LOCKED } else { 0 };
        Ok(())
    })
}

/// `IPC_SET`.
pub fn set(id: i32, cred: &Cred, uid: u32, gid: u32, mode: u32) -> Result<()> {
    with(|list| {
        let segment = list.get(id)?;
        segment.perm.check_owner(cred)?;
        segment.perm.set(uid, gid, mode);
        segment.changed = now();
        Ok(())
    })
}

/// `IPC_RMID`: gone as soon as nobody has it attached.
pub fn remove(id: i32, cred: &Cred) -> Result<()> {
    let object: Option<Arc<Object>> = with(|list| -> Result<_> {
        let segment = list.get(id)?;
        segment.perm.check_owner(cred)?;
        if segment.removed {
            return Ok(None);
        }
        segment.removed = true;
        segment.perm.mode |= REMOVED;
        segment.perm.key = super::PRIVATE;
        Ok(Some(segment.object.clone()))
    })?;
    if let Some(object) = object {
        memory().object_retire(&object);
    }
    with(|_| ());
    Ok(())
}

/// In the mode of a segment that goes with its last mapping (`SHM_DEST`).
const REMOVED: u32 = 0o1000;
/// And of one that is locked in RAM (`SHM_LOCKED`).
const LOCKED: u32 = 0o2000;

/// The highest number in use, and how many there are (`IPC_INFO`).
pub fn highest() -> i32 {
    with(|list| list.highest())
}
