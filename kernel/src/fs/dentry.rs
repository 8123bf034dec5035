//! Names that have been looked up: the tree as far as it is known.
//!
//! A dentry is one name in one directory, with the inode it leads to. It holds its parent, so any dentry knows its path
//! (`getcwd`, `/proc/self/exe`), and `..` needs no file system. Parents know children weakly: the tree stands
//! as long as somebody holds a leaf. [`Recent`] holds the last few used, and with them their inodes and page caches, so that
//! the next `open` of a library asks no server; how many depends on the machine's RAM.
//!
//! What does not exist is remembered too (a shell looks for a command in every directory of PATH). Both kinds of answer expire
//! after the directory's `lookup_ttl`. A name that comes to mean another file gets another dentry: the inode of a dentry
//! never changes, its parent and name only by `rename`.
//!
//! Locks: `link`, `children`, `Recent` are spin locks, each taken alone. Inodes and dentries are dropped outside
//! of them, since that may talk to a server.

use super::{
    inode::{Inode, RenameFlags},
    inotify,
    mount::Mount,
};
use crate::errno::{Errno, Result};
use alloc::{
    boxed::Box,
    collections::BTreeMap,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use hafez_mm::lock::{Mutex, RwLock};

/// What a dentry takes of the heap, with its inode.
const COST: usize = 2048;
/// Remembered absences per directory; when there are more, all are forgotten: they are cheap to find out again.
const MAX_ABSENT: usize = 64;

/// A name that leads to an inode.
pub struct Dentry {
    inode: Arc<dyn Inode>,
    link: RwLock<Link>,
    children: Mutex<Children>,
    /// What is mounted on it, and through which mount (its number) one sees that.
    covered: RwLock<Vec<(u32, Arc<Mount>)>>,
    removed: AtomicBool,
    /// Used since [`Recent`] last looked.
    used: AtomicBool,
    /// Where [`Recent`] holds it.
    slot: AtomicU32,
}

struct Link {
    /// `None` for the root of a file system, and for what has no place in any (a pipe).
    parent: Option<Arc<Dentry>>,
    name: Box<[u8]>,
}

#[derive(Default)]
struct Children {
    known: BTreeMap<Box<[u8]>, Known>,
    absent: usize,
}

struct Known {
    /// `None`: there is no such file.
    dentry: Option<Weak<Dentry>>,
    /// The clock's ns at which the answer grows stale.
    until: u64,
    /// [`EPOCH`] when it was given.
    epoch: u64,
}

/// Answers of an earlier epoch are stale, whatever the clock says.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// A server said that something we knew is no longer so (`ESTALE`): look everything up again.
pub fn expire_all() {
    EPOCH.fetch_add(1, Relaxed);
}

impl Known {
    fn holds(&self, now: u64) -> bool {
        now < self.until && (self.until == u64::MAX || self.epoch == EPOCH.load(Relaxed))
    }
}

impl Dentry {
    /// The root of a file system, or (with a name that says what it is) something outside any tree.
    pub fn root(inode: Arc<dyn Inode>, name: &[u8]) -> Arc<Dentry> {
        Dentry::make(inode, None, name)
    }

    fn make(inode: Arc<dyn Inode>, parent: Option<Arc<Dentry>>, name: &[u8]) -> Arc<Dentry> {
        Arc::new(Dentry {
            inode,
            link: RwLock::new(Link { parent, name: name.into() }),
            children: Mutex::default(),
            covered: RwLock::new(Vec::new()),
            removed: AtomicBool::new(false),
            used: AtomicBool::new(false),
            slot: AtomicU32::new(NO_SLOT),
        })
    }

    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.inode
    }
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.link.read().parent.clone()
    }
    pub fn name(&self) -> Box<[u8]> {
        self.link.read().name.clone()
    }
    /// Whether its name has been taken away.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Relaxed)
    }
    /// What covers it for who sees it through the mount of this number.
    pub fn covered(&self, seen_by: u32) -> Option<Arc<Mount>> {
        let covered = self.covered.read();
        covered.iter().find(|(by, _)| *by == seen_by).map(|(_, mount)| mount.clone())
    }
    /// Whether something is mounted here.
    pub fn is_covered(&self) -> bool {
        !self.covered.read().is_empty()
    }
    pub(super) fn cover(&self, seen_by: u32, mount: &Arc<Mount>) {
        self.covered.write().push((seen_by, mount.clone()));
    }
    pub(super) fn uncover(&self, mount: &Arc<Mount>) -> Option<Arc<Mount>> {
        let mut covered = self.covered.write();
        let at = covered.iter().position(|(_, m)| Arc::ptr_eq(m, mount))?;
        Some(covered.swap_remove(at).1)
    }
    /// Whether this is `other` or above it.
    pub fn is_above(self: &Arc<Self>, other: &Arc<Dentry>) -> bool {
        let mut at = Some(other.clone());
        while let Some(d) = at {
            if Arc::ptr_eq(self, &d) {
                return true;
            }
            at = d.parent();
        }
        false
    }

    /// The entry `name` of this directory, from memory or from the file system. `ENOENT` if there is none.
    pub fn child(self: &Arc<Self>, name: &[u8]) -> Result<Arc<Dentry>> {
        let now = crate::clock::monotonic();
        let stale = {
            let children = self.children.lock();
            match children.known.get(name) {
                Some(known) => match &known.dentry {
                    None if known.holds(now) => return Err(Errno::ENOENT),
                    None => None,
                    Some(weak) => match weak.upgrade() {
                        // What is mounted on stays what it is.
                        Some(d) if known.holds(now) || d.is_covered() => {
                            d.used.store(true, Relaxed);
                            return Ok(d);
                        }
                        other => other,
                    },
                },
                None => None,
            }
        };
        if !crate::mem::headroom(COST) {
            return Err(Errno::ENOMEM);
        }
        let ttl = self.inode.lookup_ttl();
        let until = now.saturating_add(ttl);
        match self.inode.lookup(name) {
            Ok(inode) => {
                if let Some(old) = stale.filter(|d| Arc::ptr_eq(&d.inode, &inode)) {
                    self.learn(name, Some(Arc::downgrade(&old)), until);
                    return Ok(old);
                }
                Ok(self.adopt(name, inode, until))
            }
            Err(Errno::ENOENT) => {
                if ttl > 0 {
                    self.learn(name, None, until);
                }
                Err(Errno::ENOENT)
            }
            Err(e) => Err(e),
        }
    }

    /// A dentry for what the file system says `name` is; the known one if another thread was first.
    fn adopt(self: &Arc<Self>, name: &[u8], inode: Arc<dyn Inode>, until: u64) -> Arc<Dentry> {
        let new = Dentry::make(inode, Some(self.clone()), name);
        let winner = {
            let mut children = self.children.lock();
            let first = children.known.get(name).and_then(|k| k.dentry.as_ref()?.upgrade());
            match first.filter(|d| Arc::ptr_eq(&d.inode, &new.inode)) {
                Some(first) => Some(first),
                None => {
                    children.set(name, Some(Arc::downgrade(&new)), until);
                    None
                }
            }
        };
        if let Some(first) = winner {
            return first;
        }
        let old = RECENT.lock().add(&new);
        drop(old);
        new
    }

    /// The file system has just made `name`.
    pub fn created(self: &Arc<Self>, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
        let until = crate::clock::monotonic().saturating_add(self.inode.lookup_ttl());
        self.adopt(name, inode, until)
    }

    /// A file that was made in this directory without a name.
    pub fn unnamed(self: &Arc<Self>, inode: Arc<dyn Inode>) -> Arc<Dentry> {
        let name = alloc::format!("#{}", inode.id().ino);
        let new = Dentry::make(inode, Some(self.clone()), name.as_bytes());
        new.removed.store(true, Relaxed);
        new
    }

    /// Make `name` lead to `inode` for as long as the dentry is held, whatever the file system says.
    pub fn graft(self: &Arc<Self>, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
        let new = Dentry::make(inode, Some(self.clone()), name);
        self.learn(name, Some(Arc::downgrade(&new)), u64::MAX);
        new
    }

    /// The file system has just taken `name` away.
    pub fn deleted(&self, name: &[u8]) {
        let until = crate::clock::monotonic().saturating_add(self.inode.lookup_ttl());
        let old = {
            let mut children = self.children.lock();
            let old = children.known.get(name).and_then(|k| k.dentry.as_ref()?.upgrade());
            children.set(name, None, until);
            old
        };
        if let Some(old) = old {
            old.is_gone();
        }
    }

    /// Its name leads to it no longer.
    fn is_gone(&self) {
        self.removed.store(true, Relaxed);
        let held = RECENT.lock().remove(self);
        drop(held);
    }

    /// Whatever is known about `name` is no longer sure.
    pub fn forget(&self, name: &[u8]) {
        self.children.lock().unset(name);
    }

    /// The file system has just renamed `name` here to `to_name` in `to`.
    pub fn renamed(self: &Arc<Self>, name: &[u8], to: &Arc<Dentry>, to_name: &[u8], how: RenameFlags) {
        let exchange = how.contains(RenameFlags::EXCHANGE);
        let moved = self.known(name);
        let other = to.known(to_name);
        self.forget(name);
        to.forget(to_name);
        if let Some(moved) = moved {
            moved.move_to(to, to_name);
        }
        if let Some(other) = other {
            if exchange {
                other.move_to(self, name);
            } else {
                other.is_gone();
            }
        }
        if !exchange && !how.contains(RenameFlags::WHITEOUT) {
            self.learn(name, None, crate::clock::monotonic().saturating_add(self.inode.lookup_ttl()));
        }
    }

    fn known(&self, name: &[u8]) -> Option<Arc<Dentry>> {
        self.children.lock().known.get(name)?.dentry.as_ref()?.upgrade()
    }

    fn move_to(self: &Arc<Self>, parent: &Arc<Dentry>, name: &[u8]) {
        let new = Link { parent: Some(parent.clone()), name: name.into() };
        let _old = core::mem::replace(&mut *self.link.write(), new);
        let until = crate::clock::monotonic().saturating_add(parent.inode.lookup_ttl());
        parent.learn(name, Some(Arc::downgrade(self)), until);
    }

    fn learn(&self, name: &[u8], dentry: Option<Weak<Dentry>>, until: u64) {
        self.children.lock().set(name, dentry, until);
    }
}

impl Children {
    fn set(&mut self, name: &[u8], dentry: Option<Weak<Dentry>>, until: u64) {
        if dentry.is_none() && self.absent >= MAX_ABSENT {
            self.known.retain(|_, k| k.dentry.is_some());
            self.absent = 0;
        }
        self.unset(name);
        self.absent += dentry.is_none() as usize;
        self.known.insert(name.into(), Known { dentry, until, epoch: EPOCH.load(Relaxed) });
    }
    fn unset(&mut self, name: &[u8]) {
        if let Some(old) = self.known.remove(name) {
            self.absent -= old.dentry.is_none() as usize;
        }
    }
}

impl Drop for Dentry {
    fn drop(&mut self) {
        let me: *const Dentry = self;
        if *self.removed.get_mut() && inotify::active() {
            inotify::gone(&self.inode);
        }
        let link = self.link.get_mut();
        let mut next = link.parent.take();
        if let Some(parent) = &next {
            let mut children = parent.children.lock();
            let mine = |k: &Known| k.dentry.as_ref().is_some_and(|w| core::ptr::eq(w.as_ptr(), me));
            if children.known.get(&link.name).is_some_and(mine) {
                children.unset(&link.name);
            }
        }
        // A chain of parents may be thousands long: let go of it in a loop, not by recursion on a kernel stack.
        while let Some(mut parent) = next.take().and_then(Arc::into_inner) {
            let link = parent.link.get_mut();
            if let Some(above) = link.parent.take() {
                above.children.lock().unset_dead(&link.name);
                next = Some(above);
            }
        }
    }
}

impl Children {
    /// Forget `name` if the dentry it led to is gone.
    fn unset_dead(&mut self, name: &[u8]) {
        let dead = |k: &Known| k.dentry.as_ref().is_some_and(|w| w.strong_count() == 0);
        if self.known.get(name).is_some_and(dead) {
            self.unset(name);
        }
    }
}

/// The dentries that were used lately, held so that they stay: slots, and a hand that goes round and gives each
/// used one a second chance.
struct Recent {
    slots: Vec<Option<Arc<Dentry>>>,
    /// Slots that a removal has left empty.
    empty: Vec<u32>,
    hand: usize,
    limit: usize,
}

static RECENT: Mutex<Recent> =
    Mutex::new(Recent { slots: Vec::new(), empty: Vec::new(), hand: 0, limit: 128 });

/// [`Dentry::slot`] of one that has none.
const NO_SLOT: u32 = u32::MAX;

/// How many dentries to keep, for a machine with so many frames: at about 1 KiB each (with the inode and its object) a
/// 128th of the RAM.
pub fn set_limit(frames: u64) {
    RECENT.lock().limit = (frames as usize / 32).clamp(64, 8192);
}

/// Hold nothing any more of a file system that is mounted nowhere.
pub fn forget_below(root: &Arc<Dentry>) {
    let mut at = 0;
    loop {
        let dentry = {
            let recent = RECENT.lock();
            if at >= recent.slots.len() {
                return;
            }
            recent.slots[at].clone()
        };
        if let Some(dentry) = dentry.filter(|dentry| root.is_above(dentry)) {
            let held = RECENT.lock().remove(&dentry);
            drop((held, dentry));
        }
        at += 1;
    }
}

impl Recent {
    /// Hold `new`; what had to make room for it, to be dropped without the lock.
    fn add(&mut self, new: &Arc<Dentry>) -> Option<Arc<Dentry>> {
        let at = match self.empty.pop() {
            Some(at) => at as usize,
            None if self.slots.len() < self.limit => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => self.victim(),
        };
        new.slot.store(at as u32, Relaxed);
        let old = self.slots[at].replace(new.clone());
        if let Some(old) = &old {
            old.slot.store(NO_SLOT, Relaxed);
        }
        old
    }

    /// The slot whose dentry goes: the next unused one, of 16 at most.
    fn victim(&mut self) -> usize {
        for _ in 0..16 {
            self.hand = (self.hand + 1) % self.slots.len();
            let used = self.slots[self.hand].as_ref().is_some_and(|d| d.used.swap(false, Relaxed));
            if !used {
                break;
            }
        }
        self.hand
    }

    /// Hold `old` no longer: its file is gone, and should be so to the last byte.
    fn remove(&mut self, old: &Dentry) -> Option<Arc<Dentry>> {
        let at = old.slot.swap(NO_SLOT, Relaxed);
        let gone = self.slots.get_mut(at as usize)?.take()?;
        self.empty.push(at);
        Some(gone)
    }
}
