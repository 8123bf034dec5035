//! Leases: to be told, and waited for, before others open or truncate a file (`fcntl(2)`, `F_SETLEASE`).
//!
//! ```text
//!   open, truncate ─▶ give_way ─┬─ no lease in the way: on
//!                               └─ its holder gets a signal; wait until it has let go, or so many seconds have passed (`lease-break-time`)
//! ```
//!
//! A read lease is in the way of who would write, a write lease of everybody. Who only reads is content when a write lease becomes a read
//! lease. Leases are few: all stand in one table, and while there are none, opening pays one load. Of the host's files, what is opened in
//! here is seen, not what others open out there.

use super::file::File;
use super::inode::{Inode, InodeId, Kind};
use super::owner::{News, Owner};
use super::poll::Signal;
use crate::clock;
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::fs::cred::Cred;
use crate::mem::TryPush;
use crate::sched::WaitResult;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use hafez_mm::lock::{LazyLock, Mutex};

/// `fs.lease-break-time`: seconds; 0: for ever. And whether there can be leases.
pub static BREAK_TIME: AtomicU64 = AtomicU64::new(45);
pub static ENABLED: AtomicU64 = AtomicU64::new(1);

/// What a lease is good for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lease {
    /// Nobody writes.
    Read,
    /// Nobody else has the file open at all.
    Write,
}

struct Held {
    /// The description, and who is told.
    file: u64,
    owner: Arc<Owner>,
    fd: u32,
    pid: u32,
    lease: Lease,
    breaking: Option<Breaking>,
}

/// Somebody is in the way: what the lease must become, and when it does so by itself.
#[derive(Clone, Copy)]
struct Breaking {
    into: Option<Lease>,
    until: u64,
}

impl Held {
    fn is_in_the_way(&self, of_writing: bool) -> bool {
        of_writing || self.lease == Lease::Write
    }
    /// What it is, or is about to become.
    fn target(&self) -> Option<Lease> {
        self.breaking.map_or(Some(self.lease), |breaking| breaking.into)
    }
}

#[derive(Default)]
struct OfFile {
    held: Vec<Held>,
    changed: Arc<Signal>,
}

static TABLE: LazyLock<Mutex<BTreeMap<InodeId, OfFile>>> = LazyLock::new(Mutex::default);
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// `F_GETLEASE`.
pub fn get(file: &File) -> Option<Lease> {
    let mut table = TABLE.lock();
    let of_file = table.get_mut(&file.inode().id())?;
    expire(of_file);
    of_file.held.iter().find(|held| held.file == file.id())?.target()
}

/// `F_SETLEASE` of a lease. EAGAIN where others have the file open in a way that it forbids.
pub fn take(file: &File, cred: &Cred, fd: u32, pid: u32, lease: Lease) -> Result<()> {
    check(file, cred)?;
    if ENABLED.load(Relaxed) == 0 {
        return Err(Errno::EINVAL);
    }
    let Some(users) = file.inode().writers() else { return Err(Errno::EINVAL) };
    let mode = file.mode();
    let fits = || match lease {
        Lease::Read => users.writing() == 0,
        Lease::Write => {
            users.writing() == mode.write as u32 && users.reading() == (mode.read && !mode.write) as u32
        }
    };
    // Counted before the look: who opens from now on either is seen here, or sees the lease.
    COUNT.fetch_add(1, SeqCst);
    let result = if fits() { enter(file, fd, pid, lease) } else { Err(Errno::EAGAIN) };
    if result != Ok(true) {
        COUNT.fetch_sub(1, SeqCst);
    }
    if result == Ok(true) && !fits() {
        let _ = give_up(file);
        return Err(Errno::EAGAIN);
    }
    result.map(|_| ())
}

/// Whether it is a new one.
fn enter(file: &File, fd: u32, pid: u32, lease: Lease) -> Result<bool> {
    let mut table = TABLE.lock();
    let of_file = table.entry(file.inode().id()).or_default();
    expire(of_file);
    let others = || of_file.held.iter().filter(|held| held.file != file.id());
    let refused = lease == Lease::Write && others().next().is_some()
        || others().any(|held| held.breaking.is_some_and(|breaking| breaking.into.is_none()));
    if refused {
        return Err(Errno::EAGAIN);
    }
    if let Some(own) = of_file.held.iter_mut().find(|held| held.file == file.id()) {
        (own.lease, own.breaking) = (lease, None);
        let changed = of_file.changed.clone();
        drop(table);
        changed.notify();
        return Ok(false);
    }
    let owner = file.owner().clone();
    of_file.held.try_push(Held { file: file.id(), owner, fd, pid, lease, breaking: None })?;
    Ok(true)
}

/// `F_SETLEASE` of none: EAGAIN if there is none.
pub fn give_up(file: &File) -> Result<()> {
    let changed = {
        let mut table = TABLE.lock();
        let id = file.inode().id();
        let of_file = table.get_mut(&id).ok_or(Errno::EAGAIN)?;
        let at = of_file.held.iter().position(|held| held.file == file.id()).ok_or(Errno::EAGAIN)?;
        of_file.held.swap_remove(at);
        COUNT.fetch_sub(1, SeqCst);
        let changed = of_file.changed.clone();
        if of_file.held.is_empty() {
            table.remove(&id);
        }
        changed
    };
    changed.notify();
    Ok(())
}

/// EACCES for another's file, EINVAL for what is none.
pub fn check(file: &File, cred: &Cred) -> Result<()> {
    if file.stat()?.uid != cred.fsuid && !cred.may(cap::LEASE) {
        return Err(Errno::EACCES);
    }
    if file.kind() == Kind::File { Ok(()) } else { Err(Errno::EINVAL) }
}

/// A description is gone, and its lease.
pub fn release(file: &File) {
    if COUNT.load(SeqCst) != 0 {
        let _ = give_up(file);
    }
}

/// What nobody answered to for too long happens by itself.
fn expire(of_file: &mut OfFile) {
    let now = clock::monotonic();
    let late = |held: &Held| held.breaking.filter(|breaking| breaking.until <= now);
    let mut changed = false;
    of_file.held.retain_mut(|held| match late(held) {
        None => true,
        Some(breaking) => {
            changed = true;
            let Some(lease) = breaking.into else {
                COUNT.fetch_sub(1, SeqCst);
                return false;
            };
            (held.lease, held.breaking) = (lease, None);
            true
        }
    });
    if changed {
        of_file.changed.notify();
    }
}

/// Somebody opens the file, or changes its length. EAGAIN if he would have to wait, and does not want to.
#[inline]
pub fn give_way(inode: &Arc<dyn Inode>, writes: bool, nonblock: bool) -> Result<()> {
    if COUNT.load(SeqCst) == 0 { Ok(()) } else { ask(inode, writes, nonblock) }
}

#[cold]
fn ask(inode: &Arc<dyn Inode>, writes: bool, nonblock: bool) -> Result<()> {
    let id = inode.id();
    loop {
        let mut told = Vec::new();
        let (changed, deadline) = {
            let mut table = TABLE.lock();
            let Some(of_file) = table.get_mut(&id) else { return Ok(()) };
            expire(of_file);
            let into = if writes { None } else { Some(Lease::Read) };
            let seconds = BREAK_TIME.load(Relaxed);
            let until = if seconds == 0 {
                u64::MAX
            } else {
                clock::monotonic().saturating_add(seconds.saturating_mul(clock::SECOND))
            };
            let mut deadline = None;
            for held in of_file.held.iter_mut().filter(|held| held.is_in_the_way(writes)) {
                if held.breaking.is_none_or(|now| now.into.is_some() && into.is_none()) {
                    told.try_push((held.owner.clone(), held.fd))?;
                    held.breaking = Some(Breaking { into, until });
                }
                let soonest = held.breaking.map_or(u64::MAX, |breaking| breaking.until);
                deadline = Some(deadline.unwrap_or(u64::MAX).min(soonest));
            }
            let Some(deadline) = deadline else { return Ok(()) };
            (of_file.changed.clone(), deadline)
        };
        for (owner, fd) in told {
            owner.tell(News::Message, fd);
        }
        if nonblock {
            return Err(Errno::EAGAIN);
        }
        let free = || {
            let table = TABLE.lock();
            table.get(&id).is_none_or(|of_file| !of_file.held.iter().any(|held| held.is_in_the_way(writes)))
        };
        let deadline = (deadline != u64::MAX).then_some(deadline);
        if changed.queue().wait_until(free, deadline, true) == WaitResult::Interrupted {
            return Err(Errno::RESTART);
        }
    }
}

/// Each lease: of which file and process, what it is, and whether it is being broken (`/proc/locks`).
pub fn each(tell: &mut dyn FnMut(InodeId, u32, Option<Lease>, bool)) {
    for (id, of_file) in TABLE.lock().iter() {
        for held in &of_file.held {
            tell(*id, held.pid, held.target(), held.breaking.is_some());
        }
    }
}
