//! Regions: what a program is allowed where, in order of address.
//!
//! The container is a list of chunks of at most 64 regions. Finding one is a binary search over the chunks and one in
//! the chunk; adding one moves at most 63. With 10 or with 100,000 regions a look-up touches a handful of cache lines.

use crate::Rights;
use crate::addr::{PageRange, USER_END, USER_START, Vpn};
use crate::object::Object;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// What a mapping is shown as: a file's path and identity, or a name such as `[heap]`.
#[derive(Debug)]
pub struct Label {
    pub path: Box<[u8]>,
    pub dev: u64,
    pub ino: u64,
}

bitflags::bitflags! {
    /// What was said about a region beyond its rights.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct RegionFlags: u16 {
        /// Writes are seen by all who map the object.
        const SHARED = 1 << 0;
        /// Extends downwards on access (a stack).
        const GROWS_DOWN = 1 << 1;
        /// Locked in memory.
        const WIRED = 1 << 2;
        /// Left out of a child at fork.
        const DONT_FORK = 1 << 3;
        /// Empty in a child after fork.
        const WIPE_ON_FORK = 1 << 4;
        const RANDOM = 1 << 5;
        const SEQUENTIAL = 1 << 6;
        const DONT_DUMP = 1 << 7;
        const NO_RESERVE = 1 << 8;
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
    /// For a region that grows: the most pages it may have.
    pub grow_limit: u64,
}

impl Region {
    pub fn is_shared(&self) -> bool {
        self.flags.contains(RegionFlags::SHARED)
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
    fn continues(&self, next: &Region) -> bool {
        let backing = match (&self.backing, &next.backing) {
            (Backing::Anonymous, Backing::Anonymous) => true,
            (Backing::Object { object: a, first: i }, Backing::Object { object: b, first: j }) => {
                Arc::ptr_eq(a, b) && i + self.range.len() == *j
            }
            _ => false,
        };
        let label = match (&self.label, &next.label) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        backing
            && label
            && self.range.end == next.range.start
            && self.rights == next.rights
            && self.max_rights == next.max_rights
            && self.flags == next.flags
            && !self.flags.contains(RegionFlags::GROWS_DOWN)
    }
}

const CHUNK: usize = 64;

/// A space's regions.
#[derive(Default)]
pub struct Regions {
    chunks: Vec<Vec<Region>>,
    count: usize,
    pages: u64,
}

impl Regions {
    pub const fn new() -> Self {
        Regions { chunks: Vec::new(), count: 0, pages: 0 }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// Pages that all regions cover.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Chunk and place of the last region that starts at or before `page`.
    #[inline]
    fn locate(&self, page: Vpn) -> Option<(usize, usize)> {
        let chunk = self.chunks.partition_point(|c| c[0].range.start <= page).checked_sub(1)?;
        let at = self.chunks[chunk].partition_point(|r| r.range.start <= page) - 1;
        Some((chunk, at))
    }

    /// The region that `page` is in.
    #[inline]
    pub fn find(&self, page: Vpn) -> Option<&Region> {
        let (chunk, at) = self.locate(page)?;
        let region = &self.chunks[chunk][at];
        (page < region.range.end).then_some(region)
    }

    /// The first region that ends after `page`: the one it is in, or the next above.
    pub fn first_from(&self, page: Vpn) -> Option<&Region> {
        self.from(page).next()
    }

    /// Regions in order, from the first that ends after `page`.
    pub fn from(&self, page: Vpn) -> impl Iterator<Item = &Region> {
        let (chunk, at) = match self.locate(page) {
            Some((c, a)) if page < self.chunks[c][a].range.end => (c, a),
            Some((c, a)) => (c, a + 1),
            None => (0, 0),
        };
        let head = self.chunks.get(chunk).map_or(&[][..], |c| &c[at..]);
        head.iter().chain(self.chunks.iter().skip(chunk + 1).flatten())
    }

    /// The last region that starts before `page`.
    pub fn last_before(&self, page: Vpn) -> Option<&Region> {
        let (chunk, at) = self.locate(Vpn(page.0.checked_sub(1)?))?;
        Some(&self.chunks[chunk][at])
    }

    /// Those that overlap `range`.
    pub fn within(&self, range: PageRange) -> impl Iterator<Item = &Region> {
        self.from(range.start).take_while(move |r| r.range.start < range.end)
    }

    /// Whether `range` is covered without a hole.
    pub fn cover(&self, range: PageRange) -> bool {
        let mut at = range.start;
        for region in self.within(range) {
            if region.range.start > at {
                return false;
            }
            at = region.range.end;
        }
        at >= range.end
    }

    /// Change one region in place; neither its start nor its order may change.
    pub fn change(&mut self, page: Vpn, f: impl FnOnce(&mut Region)) {
        if let Some((chunk, at)) = self.locate(page) {
            let region = &mut self.chunks[chunk][at];
            let before = region.range.len();
            f(region);
            self.pages = self.pages - before + region.range.len();
        }
    }

    /// Add a region where there is none, as part of a neighbour that it continues if it can be. Whether it stands alone.
    pub fn insert(&mut self, region: Region) -> bool {
        let (start, end) = (region.range.start, region.range.end);
        if self.last_before(start).is_some_and(|before| before.continues(&region)) {
            let before = self.last_before(start).map(|b| b.range.start).unwrap_or(start);
            let joins_next = self.find(end).is_some_and(|next| region.continues(next));
            let end = if joins_next { self.remove_at(end).map_or(end, |next| next.range.end) } else { end };
            self.change(before, |b| b.range.end = end);
            return false;
        }
        if self.find(end).is_some_and(|next| region.continues(next)) {
            let Some(next) = self.remove_at(end) else { return true };
            self.put(Region { range: PageRange::new(start, next.range.end), ..region });
            return false;
        }
        self.put(region);
        true
    }

    fn put(&mut self, region: Region) {
        self.count += 1;
        self.pages += region.range.len();
        let start = region.range.start;
        if self.chunks.is_empty() {
            self.chunks.push(Vec::with_capacity(8));
        }
        let chunk = self
            .chunks
            .partition_point(|c| c.first().is_some_and(|r| r.range.start <= start))
            .saturating_sub(1);
        let at = self.chunks[chunk].partition_point(|r| r.range.start <= start);
        self.chunks[chunk].insert(at, region);
        if self.chunks[chunk].len() > CHUNK {
            let upper = self.chunks[chunk].split_off(CHUNK / 2);
            self.chunks.insert(chunk + 1, upper);
        }
    }

    fn remove_at(&mut self, page: Vpn) -> Option<Region> {
        let (chunk, at) = self.locate(page)?;
        let region = self.chunks[chunk].remove(at);
        if self.chunks[chunk].is_empty() {
            self.chunks.remove(chunk);
        }
        self.count -= 1;
        self.pages -= region.range.len();
        Some(region)
    }

    /// Take out what lies in `range`, splitting regions at its ends. `taken` gets each piece.
    pub fn remove(&mut self, range: PageRange, taken: &mut dyn FnMut(Region)) {
        while let Some(region) = self.first_from(range.start).filter(|r| r.range.start < range.end) {
            let start = region.range.start;
            let Some(whole) = self.remove_at(start) else { return };
            let below = PageRange::new(whole.range.start, range.start);
            let above = PageRange::new(range.end, whole.range.end);
            for rest in [below, above] {
                if !rest.is_empty() {
                    self.put(whole.part(rest));
                }
            }
            taken(whole.part(range));
            if whole.range.end >= range.end {
                return;
            }
        }
    }

    /// The highest hole of `pages` pages below `top`, as Linux looks for it; else the lowest above `top`.
    pub fn find_hole(&self, pages: u64, top: Vpn) -> Option<Vpn> {
        self.hole_below(pages, top).or_else(|| self.hole_above(pages, top))
    }

    fn hole_below(&self, pages: u64, top: Vpn) -> Option<Vpn> {
        let mut end = top;
        let chunks = self.chunks.partition_point(|c| c[0].range.start < top);
        for region in self.chunks[..chunks].iter().rev().flat_map(|c| c.iter().rev()) {
            if region.range.start >= top {
                continue;
            }
            let hole = end.0.saturating_sub(region.range.end.0);
            if hole >= pages {
                return Some(Vpn(end.0 - pages));
            }
            end = region.range.start.min(end);
        }
        (end.0 >= USER_START.0 + pages).then(|| Vpn(end.0 - pages))
    }

    fn hole_above(&self, pages: u64, bottom: Vpn) -> Option<Vpn> {
        let mut start = bottom.max(USER_START);
        for region in self.from(start) {
            if region.range.start.0.saturating_sub(start.0) >= pages {
                return Some(start);
            }
            start = region.range.end;
        }
        (start.0 + pages <= USER_END.0).then_some(start)
    }
}
