//! Objects: what backs memory other than the private anonymous kind.
//!
//! | object | pages come from | pages go to | used for |
//! |---|---|---|---|
//! | file | its [`Pager`] | its pager if dirty, else nowhere | files of any file system: this *is* the page cache |
//! | shared | zeroes | swap | tmpfs, memfd, shared anonymous memory |
//!
//! A page of an object is in at most one frame, whoever maps, reads or writes it; its page map is where they meet.
//! A frame on its way in stands there with READING set, and whoever comes second waits for that.
//!
//! An object does not know spaces. It keeps hints of the form (space, delta): page `i` may be mapped in that space at
//! page `i + delta`. Splitting or joining regions changes neither
//! number, so it is enough to count the pages for which a hint holds.
//!
//! Lock order: mappings, then (a cursor), then pages. Neither lock is held across a pager's call.

pub mod family;
pub mod ghosts;
pub mod pages;
pub mod registry;

use crate::SpaceId;
use crate::account::AccountId;
use crate::addr::{PAGE_SIZE, Pfn, Vpn};
use crate::lock::Mutex;
use alloc::collections::btree_map::{BTreeMap, Entry};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
pub use family::Family;
pub use ghosts::Ghosts;
pub use pages::{Pages, Place};
pub use registry::Registry;

/// The file behind an object could not be read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PagerError;

/// What stands behind a file object. Every call may sleep.
pub trait Pager: Send + Sync {
    /// Read as many pages as there are frames, from page `first` on. What lies past the end of the file reads as zeroes.
    fn fill(&self, first: u64, frames: &[Pfn]) -> Result<(), PagerError>;
    /// Write `bytes` bytes of the frames to the file, from page `first` on.
    fn write(&self, first: u64, frames: &[Pfn], bytes: usize) -> Result<(), PagerError>;
}

/// What backs an object's pages.
pub enum Source {
    File(Arc<dyn Pager>),
    Shared,
}

/// Where pages of an object may be mapped: page `i` at page `i + delta` of the space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mapping {
    pub space: SpaceId,
    /// Modulo 2^64: mappings below the object's first page are no special case.
    pub delta: u64,
}

/// Memory that can be mapped by several spaces, and read and written without mapping it.
pub struct Object {
    pub(crate) id: u32,
    pub(crate) source: Source,
    /// Who pays for a shared object's pages; a file's are paid by whoever brings them in.
    pub(crate) account: AccountId,
    /// Bytes.
    size: AtomicU64,
    pub(crate) pages: Mutex<Pages>,
    /// With the number of pages of regions for which it holds.
    pub(crate) mappings: Mutex<BTreeMap<Mapping, u64>>,
    /// No inode refers to it any more: it goes with its last mapping.
    pub(crate) retired: AtomicBool,
    /// Its pages stay in RAM (`SHM_LOCK`).
    pub(crate) locked: AtomicBool,
    /// Some region that maps it has had a watcher: a page of zeroes is not as good as none.
    pub(crate) watched: AtomicBool,
    /// Its pages are being let go of: by one only, of the two who may see that nothing refers to it any more.
    pub(crate) ending: AtomicBool,
    /// Where a sequential reader would go on, and how much it would get.
    pub(crate) ahead: Mutex<Ahead>,
    /// Pages marked dirty since the last write-back began, or more: zero means there is nothing to write.
    pub(crate) dirtied: AtomicU64,
    /// Somebody writes its pages back, or drops some: one at a time.
    pub(crate) writing: AtomicBool,
}

/// State of sequential read-ahead: the page after the last read, and the window in pages.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    pub next: u64,
    pub window: u64,
}

impl Object {
    pub(crate) fn new(id: u32, source: Source, account: AccountId, size: u64) -> Self {
        Object {
            id,
            source,
            account,
            size: AtomicU64::new(size),
            pages: Mutex::new(Pages::new()),
            mappings: Mutex::new(BTreeMap::new()),
            retired: AtomicBool::new(false),
            locked: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            ahead: Mutex::new(Ahead { next: 0, window: 0 }),
            dirtied: AtomicU64::new(0),
            writing: AtomicBool::new(false),
        }
    }

    /// Its number, unique among living objects.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Bytes.
    #[inline]
    pub fn size(&self) -> u64 {
        self.size.load(Acquire)
    }

    pub(crate) fn set_size(&self, size: u64) {
        self.size.store(size, Release);
    }

    /// Pages up to the end, the last one perhaps in part.
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.size().div_ceil(PAGE_SIZE as u64)
    }

    /// Pages in RAM.
    pub fn resident(&self) -> u64 {
        self.pages.lock().resident()
    }

    /// From now on its pages that are in RAM, or come there, stay; or do so no longer.
    pub fn set_locked(&self, on: bool) {
        self.locked.store(on, Release);
    }

    /// Pages in RAM or in swap: what a shared object really takes.
    pub fn held(&self) -> u64 {
        self.pages.lock().held()
    }

    /// The first page at or after `from` that holds data (of a shared object; of a file only what is cached).
    pub fn next_held(&self, from: u64) -> Option<u64> {
        self.pages.lock().next(from).map(|(index, _)| index)
    }

    #[inline]
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.source, Source::File(_))
    }

    /// A region of the space maps `pages` pages from `first` on at `start`.
    pub(crate) fn add_mapping(&self, space: SpaceId, start: Vpn, first: u64, pages: u64) {
        let delta = start.0.wrapping_sub(first);
        *self.mappings.lock().entry(Mapping { space, delta }).or_default() += pages;
    }

    /// So many pages fewer. Whether that was the last mapping of a retired object, whose pages are then to be freed.
    pub(crate) fn drop_mapping(&self, space: SpaceId, start: Vpn, first: u64, pages: u64) -> bool {
        let delta = start.0.wrapping_sub(first);
        let mut mappings = self.mappings.lock();
        if let Entry::Occupied(mut mapping) = mappings.entry(Mapping { space, delta }) {
            *mapping.get_mut() -= pages;
            if *mapping.get() == 0 {
                mapping.remove();
            }
        }
        mappings.is_empty() && self.retired.load(Acquire)
    }
}
