//! System V's shared memory, semaphores and message queues (`sysvipc(7)`): things with numbers that outlive the processes that
//! made them.
//!
//! All three kinds are found by a key or by a number, belong to somebody, and stay until they are removed. That much is here:
//! [`Registry`] is a numbered list of things with a [`Perm`]. Numbers are not given twice, so that a number of what was removed
//! is wrong and not another's, unless somebody asks for one (`kernel.*_next_id`, to bring things back as they were).
//!
//! | file | what |
//! |---|---|
//! | `shm` | memory: shared objects, attached as mappings |
//! | `sem` | sets of semaphores, changed all at once or not at all |
//! | `msg` | queues of messages |
//!
//! Each kind has one lock, a leaf: it is held over no wait, no user copy and no call into the memory core.
#![forbid(unsafe_code)]

pub mod msg;
pub mod sem;
pub mod shm;

use crate::clock;
use crate::errno::{Errno, Result};
use crate::fs::Cred;
use crate::fs::caps::cap;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The key of what is found by its number only.
pub const PRIVATE: i32 = 0;
/// Flags of the calls that make and find.
pub const CREATE: u32 = 0o1000;
pub const EXCLUSIVE: u32 = 0o2000;
/// Do not wait.
pub const NOWAIT: u32 = 0o4000;

/// What one wants: the bits of a mode's `rw-` triple.
pub const READ: u32 = 4;
pub const WRITE: u32 = 2;

/// Whose it is, and who may use it (`struct ipc_perm`).
#[derive(Clone, Debug)]
pub struct Perm {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub creator_uid: u32,
    pub creator_gid: u32,
    pub mode: u32,
}

impl Perm {
    fn new(key: i32, flags: u32, cred: &Cred) -> Perm {
        let (uid, gid) = (cred.euid, cred.egid);
        Perm { key, uid, gid, creator_uid: uid, creator_gid: gid, mode: flags & 0o777 }
    }

    /// EACCES unless all that is `wanted` (the bits of one triple) is granted.
    pub fn check(&self, cred: &Cred, wanted: u32) -> Result<()> {
        let in_group = |gid| cred.egid == gid || cred.groups.contains(&gid);
        let granted = if cred.may(cap::IPC_OWNER) {
            7
        } else if cred.euid == self.uid || cred.euid == self.creator_uid {
            self.mode >> 6
        } else if in_group(self.gid) || in_group(self.creator_gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        if wanted & !granted & 7 == 0 { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// EPERM unless this is its owner, its creator or root.
    pub fn check_owner(&self, cred: &Cred) -> Result<()> {
        if [self.uid, self.creator_uid].contains(&cred.euid) || cred.may(cap::SYS_ADMIN) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// `IPC_SET`.
    pub fn set(&mut self, uid: u32, gid: u32, mode: u32) {
        (self.uid, self.gid, self.mode) = (uid, gid, self.mode & !0o777 | mode & 0o777);
    }
}

/// What a registry holds.
pub trait Thing {
    fn perm(&self) -> &Perm;
    /// Removed, but still in use: its key finds it no more.
    fn is_removed(&self) -> bool {
        false
    }
}

/// All things of a kind, by number.
pub struct Registry<T> {
    things: BTreeMap<i32, T>,
    next: i32,
    wanted: &'static AtomicU64,
}

/// No number is wanted (`-1`).
pub const ANY: u64 = u64::MAX;

impl<T: Thing> Registry<T> {
    /// `wanted`: a setting, what number the next thing shall have if that is free.
    const fn new(wanted: &'static AtomicU64) -> Self {
        Registry { things: BTreeMap::new(), next: 0, wanted }
    }

    /// The number for a new thing; `None` when there are no more.
    fn number(&mut self) -> Option<i32> {
        let wanted = self.wanted.swap(ANY, Relaxed);
        if let Ok(wanted) = i32::try_from(wanted)
            && !self.things.contains_key(&wanted)
        {
            return Some(wanted);
        }
        while self.things.contains_key(&self.next) {
            self.next = self.next.checked_add(1)?;
        }
        let number = self.next;
        self.next = number.checked_add(1)?;
        Some(number)
    }

    /// The thing with this number: EINVAL for none.
    fn get(&mut self, id: i32) -> Result<&mut T> {
        self.things.get_mut(&id).ok_or(Errno::EINVAL)
    }

    fn remove(&mut self, id: i32) -> Option<T> {
        self.things.remove(&id)
    }

    /// The highest number in use; 0 for none.
    fn highest(&self) -> i32 {
        self.things.keys().next_back().copied().unwrap_or(0)
    }

    fn all(&self) -> impl Iterator<Item = &T> {
        self.things.values()
    }

    /// The number of the thing with this key, or of a new one, of which there may be `most`. `fits`: whether what was found
    /// will do.
    fn find_or_make(
        &mut self,
        (key, flags, cred): (i32, u32, &Cred),
        most: usize,
        fits: impl FnOnce(&T) -> Result<()>,
        make: impl FnOnce(Perm) -> Result<T>,
    ) -> Result<i32> {
        let found = self.things.iter().find(|(_, t)| t.perm().key == key && !t.is_removed());
        if let (Some((id, thing)), true) = (found, key != PRIVATE) {
            if flags & (CREATE | EXCLUSIVE) == CREATE | EXCLUSIVE {
                return Err(Errno::EEXIST);
            }
            fits(thing)?;
            // Every right that the flags name, whoever's triple it stands in.
            let mode = flags & 0o777;
            thing.perm().check(cred, (mode >> 6 | mode >> 3 | mode) & 7)?;
            return Ok(*id);
        }
        if key != PRIVATE && flags & CREATE == 0 {
            return Err(Errno::ENOENT);
        }
        if self.things.len() >= most {
            return Err(Errno::ENOSPC);
        }
        let thing = make(Perm::new(key, flags, cred))?;
        let id = self.number().ok_or(Errno::ENOSPC)?;
        self.things.insert(id, thing);
        Ok(id)
    }

    /// Take out what is not to be kept; to be dropped without the lock.
    fn sweep(&mut self, keep: impl Fn(&T) -> bool) -> Vec<T> {
        let gone: Vec<i32> = self.things.iter().filter(|(_, t)| !keep(t)).map(|(id, _)| *id).collect();
        gone.iter().filter_map(|id| self.things.remove(id)).collect()
    }
}

/// The time that these things note, in seconds.
fn now() -> u64 {
    clock::realtime() / clock::SECOND
}
