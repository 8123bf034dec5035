//! FIFOs and sockets that the server cannot make.
//!
//! Newer QEMU makes none where it would have to open them to set their owner. What programs use them for is between
//! programs of this machine anyhow: so they stand here, beside the server's names, and are gone with the machine.
//!
//! The lock is a leaf.

use crate::errno::Result;
use crate::fs::inode::{DirEntry, Inode, NewNode};
use crate::fs::tmpfs::TmpFs;
use alloc::{boxed::Box, collections::BTreeMap, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use hafez_mm::lock::{LazyLock, Mutex};

const FIRST_CURSOR: u64 = 0x7fff_ffff_ffff_0000;
/// The most that there may be.
const MOST: u64 = 0xff00;
/// Cursors of these names: no file system gives such numbers to its own. (Some give the very last one to the end.)
pub const CURSORS: core::ops::RangeInclusive<u64> = FIRST_CURSOR..=FIRST_CURSOR + MOST + 1;

/// A directory's number, and a name in it.
type Key = (u64, Box<[u8]>);

/// Of one share.
#[derive(Default)]
pub struct Specials {
    count: AtomicUsize,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    by_name: BTreeMap<Key, (u64, Arc<dyn Inode>)>,
    last: u64,
}

/// Where they live.
static BODIES: LazyLock<Arc<TmpFs>> = LazyLock::new(|| TmpFs::of_bodies(0));

impl Specials {
    /// Nearly always there are none.
    #[inline]
    fn none(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    /// Make one. `None`: there are too many.
    pub fn make(&self, dir: u64, name: &[u8], new: &NewNode<'_>) -> Result<Option<Arc<dyn Inode>>> {
        let node = BODIES.body(new)?;
        let mut all = self.all.lock();
        if all.last >= MOST {
            return Ok(None);
        }
        all.last += 1;
        let number = all.last;
        all.by_name.insert((dir, name.into()), (number, node.clone()));
        self.count.store(all.by_name.len(), Relaxed);
        Ok(Some(node))
    }

    pub fn get(&self, dir: u64, name: &[u8]) -> Option<Arc<dyn Inode>> {
        if self.none() {
            return None;
        }
        self.all.lock().by_name.get(&(dir, name.into())).map(|(_, node)| node.clone())
    }

    /// Take a name away; whether it was here.
    pub fn remove(&self, dir: u64, name: &[u8]) -> bool {
        if self.none() {
            return false;
        }
        let mut all = self.all.lock();
        let old = all.by_name.remove(&(dir, name.into()));
        self.count.store(all.by_name.len(), Relaxed);
        drop(all);
        old.is_some()
    }

    /// Another name for one that is here.
    pub fn rename(&self, from: (u64, &[u8]), to: (u64, &[u8])) {
        let mut all = self.all.lock();
        let old = all.by_name.remove(&(from.0, from.1.into()));
        let over = old.and_then(|entry| all.by_name.insert((to.0, to.1.into()), entry));
        self.count.store(all.by_name.len(), Relaxed);
        drop(all);
        drop(over);
    }

    /// Whether the directory has any.
    pub fn any_in(&self, dir: u64) -> bool {
        !self.none() && self.all.lock().by_name.keys().any(|(d, _)| *d == dir)
    }

    /// Tell those of a directory, from a cursor on.
    pub fn list(&self, dir: u64, from: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) {
        if self.none() {
            return;
        }
        let all = self.all.lock();
        let mut here: Vec<_> = all.by_name.iter().filter(|((d, _), _)| *d == dir).collect();
        here.sort_by_key(|(_, (number, _))| *number);
        for ((_, name), (number, node)) in here {
            let at = FIRST_CURSOR + number;
            let entry = DirEntry { name, ino: node.id().ino, kind: Some(node.kind()), next: at + 1 };
            if at >= from && !emit(&entry) {
                return;
            }
        }
    }
}
