//! A region: a range of pages with one set of rights and one backing, and what was said of it.

use super::watch::Watched;
use crate::Rights;
use crate::addr::{PageRange, Vpn};
use crate::object::Object;
use alloc::boxed::Box;
use alloc::sync::Arc;

/// What a mapping is shown as: a file's path and identity, or a name such as `[heap]`.
#[derive(Debug)]
pub struct Label {
    pub path: Box<[u8]>,
    pub dev: u64,
    pub ino: u64,
}

impl Label {
    /// Not just a name.
    pub fn is_of_file(&self) -> bool {
        self.dev != 0 || self.ino != 0
    }
}

bitflags::bitflags! {
    /// What was said about a region beyond its rights.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct RegionFlags: u32 {
        /// Writes are seen by all who map the object.
        const SHARED = 1 << 0;
        /// Extends downwards on access (a stack).
        const GROWS_DOWN = 1 << 1;
        /// Locked in memory.
        const WIRED = 1 << 2;
        const NO_RESERVE = 1 << 3;
        /// Left out of a child at fork.
        const DONT_FORK = 1 << 4;
        /// Empty in a child after fork.
        const WIPE_ON_FORK = 1 << 5;
        const RANDOM = 1 << 6;
        const SEQUENTIAL = 1 << 7;
        const DONT_DUMP = 1 << 8;
        /// Huge pages are wanted here.
        const HUGE = 1 << 9;
        /// And here they are not.
        const NO_HUGE = 1 << 10;
        /// Stays as it is for as long as the space lives (`mseal`).
        const SEALED = 1 << 11;
        /// Who mapped it may not know which of its file's pages are in RAM.
        const OPAQUE = 1 << 12;
        /// Its watcher brings in its missing pages.
        const WATCHED = 1 << 13;
        /// Its watcher is told of writes to those of its pages that are guarded.
        const GUARDED = 1 << 14;
        /// When RAM is short its pages go, and are zeroes again.
        const DROPPABLE = 1 << 15;
    }
}

/// What backs the pages that were not written privately.
#[derive(Clone)]
pub enum Backing {
    /// Zeroes.
    Anonymous,
    /// Pages of the object from `first` on.
    Object { object: Arc<Object>, first: u64 },
}

/// A range of pages with one set of rights and one backing.
#[derive(Clone)]
pub struct Region {
    pub range: PageRange,
    pub rights: Rights,
    /// What the rights may be raised to.
    pub max_rights: Rights,
    pub flags: RegionFlags,
    pub backing: Backing,
    pub label: Option<Arc<Label>>,
    pub rare: Option<Box<Rare>>,
}

// A line of the cache.
const _: () = assert!(size_of::<Region>() <= 64);

/// What is said of few regions.
#[derive(Clone, PartialEq, Default)]
pub struct Rare {
    /// For a region that grows: the most pages it may have.
    pub grow_limit: u64,
    /// What the program said about memory nodes (`mbind`), in a form that is the caller's. There is one node, so this decides
    /// nothing.
    pub nodes: u64,
    /// Who brings in its pages that are missing.
    pub watcher: Option<Watched>,
}

impl Region {
    pub fn is_shared(&self) -> bool {
        self.flags.contains(RegionFlags::SHARED)
    }

    pub fn grow_limit(&self) -> u64 {
        self.rare.as_ref().map_or(0, |rare| rare.grow_limit)
    }

    pub fn nodes(&self) -> u64 {
        self.rare.as_ref().map_or(0, |rare| rare.nodes)
    }

    pub fn watcher(&self) -> Option<&Watched> {
        self.rare.as_ref()?.watcher.as_ref()
    }

    /// Say something else of what is said of few.
    pub fn set_rare(&mut self, f: impl FnOnce(&mut Rare)) {
        let mut rare = self.rare.take().unwrap_or_default();
        f(&mut rare);
        self.rare = (*rare != Rare::default()).then_some(rare);
    }

    /// The object's page that backs `page`.
    pub fn index(&self, page: Vpn) -> u64 {
        match self.backing {
            Backing::Object { first, .. } => first + page.since(self.range.start),
            Backing::Anonymous => page.0,
        }
    }

    /// The part of it within `range`, which it overlaps.
    pub fn part(&self, range: PageRange) -> Region {
        let range = self.range.intersect(&range);
        let mut part = self.clone();
        if let Backing::Object { first, .. } = &mut part.backing {
            *first += range.start.since(self.range.start);
        }
        part.range = range;
        part
    }

    /// Whether `next` continues this region as if they were one.
    #[inline]
    pub(super) fn continues(&self, next: &Region) -> bool {
        // Most neighbours differ in these.
        self.range.end == next.range.start
            && self.rights == next.rights
            && self.flags == next.flags
            && self.is_like(next)
    }

    #[inline(never)]
    fn is_like(&self, next: &Region) -> bool {
        let backing = match (&self.backing, &next.backing) {
            (Backing::Anonymous, Backing::Anonymous) => true,
            (Backing::Object { object: a, first: i }, Backing::Object { object: b, first: j }) => {
                Arc::ptr_eq(a, b) && i + self.range.len() == *j
            }
            _ => false,
        };
        let label = match (&self.label, &next.label) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || !a.is_of_file() && !b.is_of_file() && a.path == b.path,
            _ => false,
        };
        backing
            && label
            && self.max_rights == next.max_rights
            && self.rare == next.rare
            && !self.flags.contains(RegionFlags::GROWS_DOWN)
    }
}
