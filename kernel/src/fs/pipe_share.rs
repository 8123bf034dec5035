//! How much the pipes of one user may hold: `pipe(7)`, "/proc files".
//!
//! Room in a pipe is memory that only the kernel can give back, so each user's is counted, in pages. Who has more than [`SOFT`] gets pipes
//! of two pages and cannot make them larger; past [`HARD`] there are none at all. 0 means that there is no such limit, and neither
//! binds who may use resources as he likes. FIFOs are not counted: a name on a file system keeps them, not a user.

use super::caps::cap;
use super::cred::Cred;
use crate::errno::{Errno, Result};
use alloc::collections::BTreeMap;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use hafez_mm::lock::Mutex;

/// `pipe-max-size`: bytes that an ordinary user may ask for in one pipe.
pub static LARGEST: AtomicU64 = AtomicU64::new(1 << 20);
/// `pipe-user-pages-soft` and `-hard`.
pub static SOFT: AtomicU64 = AtomicU64::new(16384);
pub static HARD: AtomicU64 = AtomicU64::new(0);

/// Pages of a pipe that nothing was said of, and of one whose user has many.
const USUAL: u64 = 16;
const LEAST: u64 = 2;

/// Who asks.
#[derive(Clone, Copy)]
pub struct Who {
    pub uid: u32,
    /// The limit for one pipe does not bind him.
    pub largest: bool,
    /// Nor do those for all of his.
    pub many: bool,
}

static HELD: Mutex<BTreeMap<u32, u64>> = Mutex::new(BTreeMap::new());

/// What a pipe counts for.
pub struct Share {
    uid: u32,
    pages: u64,
}

fn exceeds(held: u64, limit: &AtomicU64) -> bool {
    let limit = limit.load(Relaxed);
    limit != 0 && held > limit
}

impl Who {
    pub fn of(cred: &Cred) -> Who {
        let largest = cred.may(cap::SYS_RESOURCE);
        Who { uid: cred.uid, largest, many: largest || cred.may(cap::SYS_ADMIN) }
    }
}

impl Share {
    /// For a new pipe, and what it may have.
    pub fn new(who: Who) -> Result<Share> {
        let largest = if who.largest { u64::MAX } else { LARGEST.load(Relaxed) / super::pipe::CHUNK as u64 };
        let mut share = Share { uid: who.uid, pages: 0 };
        let mut held = share.set(USUAL.min(largest));
        if exceeds(held, &SOFT) && !who.many {
            held = share.set(share.pages.min(LEAST));
        }
        if exceeds(held, &HARD) && !who.many { Err(Errno::ENFILE) } else { Ok(share) }
    }

    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// The pipe is to have so many pages. Making it larger may be too much.
    pub fn change(&mut self, pages: u64, who: Who) -> Result<()> {
        let before = self.pages;
        let held = self.set(pages);
        if pages > before && !who.many && (exceeds(held, &SOFT) || exceeds(held, &HARD)) {
            self.set(before);
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    /// Count for so many; what the user has in all.
    fn set(&mut self, pages: u64) -> u64 {
        let mut all = HELD.lock();
        let held = all.entry(self.uid).or_insert(0);
        *held = *held + pages - self.pages;
        self.pages = pages;
        let held = *held;
        if held == 0 {
            all.remove(&self.uid);
        }
        held
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}
