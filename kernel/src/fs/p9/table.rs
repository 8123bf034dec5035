//! Which inodes there are: one for each file of the server that somebody knows, found by `qid.path`.
//!
//! The table itself holds nothing alive. What was opened lately is kept alive by a short list, so that a program
//! that is started again (a shell script's tools) finds its pages still cached; [`Table::forget_recent`] gives them up.
//!
//! Locks: both are spin locks over a few steps. An inode is never dropped while one is held, since that looks here too.

use super::known::P9Inode;
use alloc::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    sync::Weak,
};
use hafez_mm::lock::Mutex;

/// Files that are kept after the last user is gone. Each costs about half a KiB, and its pages while nobody needs the RAM.
const RECENT: usize = 96;

pub struct Table {
    known: Mutex<BTreeMap<u64, Weak<P9Inode>>>,
    recent: Mutex<VecDeque<Arc<P9Inode>>>,
}

impl Table {
    pub fn new() -> Table {
        Table { known: Mutex::new(BTreeMap::new()), recent: Mutex::new(VecDeque::new()) }
    }

    /// The inode of this file, if it is known.
    pub fn get(&self, path: u64) -> Option<Arc<P9Inode>> {
        self.known.lock().get(&path)?.upgrade()
    }

    /// Make `inode` known, unless another of the same file and kind is by now: then that one.
    pub fn insert(&self, inode: Arc<P9Inode>) -> Arc<P9Inode> {
        let mut known = self.known.lock();
        let before = known.get(&inode.path()).and_then(Weak::upgrade);
        let winner = match before {
            Some(old) if old.same_kind(&inode) => old,
            other => {
                known.insert(inode.path(), Arc::downgrade(&inode));
                // An inode of another kind: its number has been used again. It may end here, so not under the lock.
                drop(known);
                drop(other);
                return inode;
            }
        };
        drop(known);
        winner
    }

    /// An inode has ended: forget it, unless its number belongs to another by now.
    pub fn remove(&self, path: u64) {
        let mut known = self.known.lock();
        if known.get(&path).is_some_and(|weak| weak.strong_count() == 0) {
            known.remove(&path);
        }
    }

    /// Keep the inode for a while.
    pub fn keep(&self, inode: &Arc<P9Inode>) {
        let mut recent = self.recent.lock();
        // The last one used goes to the front; looking further would cost more than a double entry does.
        if recent.back().is_some_and(|last| Arc::ptr_eq(last, inode)) {
            return;
        }
        let before = recent.iter().position(|i| Arc::ptr_eq(i, inode)).and_then(|at| recent.remove(at));
        let old = if recent.len() >= RECENT { recent.pop_front() } else { None };
        recent.push_back(before.unwrap_or_else(|| inode.clone()));
        drop(recent);
        drop(old);
    }

    /// Keep nothing that nobody uses.
    pub fn forget_recent(&self) {
        let all = core::mem::take(&mut *self.recent.lock());
        drop(all);
    }

    /// The first inode from the number `from` on that is alive, and from where to look for the next.
    pub fn next(&self, from: u64) -> Option<(u64, Arc<P9Inode>)> {
        let known = self.known.lock();
        known.range(from..).find_map(|(number, inode)| Some((number.checked_add(1)?, inode.upgrade()?)))
    }
}
