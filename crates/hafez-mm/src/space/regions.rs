//! Regions: what a program is allowed where, in order of address.
//!
//! The container is a list of chunks of at most 64 regions. Finding one is a binary search over the chunks and one in
//! the chunk; adding one moves at most 63. With 10 or with 60,000 regions a look-up touches a handful of cache lines.
//!
//! Finding a hole goes down from the top. Each chunk knows how large the holes below its regions are *at most*, so that
//! those without a chance are passed in one step. Adding a region makes holes smaller, which leaves the bound as it is; removing one
//! makes a hole larger, which raises it; and who looks at a whole chunk in vain leaves the true value behind.

use super::watch::Watched;
use crate::Rights;
use crate::addr::{PageRange, USER_END, USER_START, Vpn};
use crate::object::Object;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

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
        /// Left out of a child at fork.
        const DONT_FORK = 1 << 3;
        /// Empty in a child after fork.
        const WIPE_ON_FORK = 1 << 4;
        const RANDOM = 1 << 5;
        const SEQUENTIAL = 1 << 6;
        const DONT_DUMP = 1 << 7;
        const NO_RESERVE = 1 << 8;
        /// Huge pages are wanted here.
        const HUGE = 1 << 9;
        /// And here they are not.
        const NO_HUGE = 1 << 10;
        /// Stays as it is for as long as the space lives (`mseal`).
        const SEALED = 1 << 11;
        /// It has a watcher.
        const WATCHED = 1 << 13;
        /// Who mapped it may not know which of its file's pages are in RAM.
        const OPAQUE = 1 << 12;
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
    fn continues(&self, next: &Region) -> bool {
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
            && self.nodes == next.nodes
            && self.watcher == next.watcher
            && !self.flags.contains(RegionFlags::GROWS_DOWN)
    }
}

const CHUNK: usize = 64;

/// Up to [`CHUNK`] regions, never none.
struct Chunk {
    /// Where the first begins.
    start: Vpn,
    /// No hole just below one of these regions has more pages.
    gap: u64,
    regions: Vec<Region>,
}

/// Pages between the end of one region and the start of the next.
fn hole(end: Vpn, start: Vpn) -> u64 {
    start.0.saturating_sub(end.0)
}

/// A space's regions.
#[derive(Default)]
pub struct Regions {
    chunks: Vec<Chunk>,
    count: usize,
    pages: u64,
    /// Where something was changed last: chunk and place. Most who come next look for that. Faults, which look but change nothing,
    /// have a hint of their own for each CPU ([`Regions::find_again`]).
    hint: u32,
}

/// Where a region stands: its chunk's number, and its number there. Good until regions come or go.
type Place = (usize, usize);

/// Bits for a region's number in its chunk, in a hint.
const HINT_SHIFT: u32 = 8;

#[inline]
fn hinted_at(hint: u32) -> Place {
    (hint as usize >> HINT_SHIFT, hint as usize & ((1 << HINT_SHIFT) - 1))
}

#[inline]
fn hint_to((chunk, at): Place) -> u32 {
    (chunk << HINT_SHIFT | at) as u32
}

impl Regions {
    pub const fn new() -> Self {
        Regions { chunks: Vec::new(), count: 0, pages: 0, hint: 0 }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// Pages that all regions cover.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// See to it that a few more chunks need no memory; false where there is none.
    #[inline]
    pub fn make_room(&mut self) -> bool {
        self.chunks.capacity() - self.chunks.len() >= 4 || self.chunks.try_reserve(8).is_ok()
    }

    #[inline]
    fn at(&self, (chunk, at): Place) -> &Region {
        &self.chunks[chunk].regions[at]
    }

    /// The place of the last region that starts at or before `page`.
    fn locate(&self, page: Vpn) -> Option<Place> {
        let place @ (chunk, at) = hinted_at(self.hint);
        if let Some([this, next]) = self.chunks.get(chunk).and_then(|chunk| chunk.regions.get(at..at + 2))
            && this.range.start <= page
            && page < next.range.start
        {
            return Some(place);
        }
        let chunk = match &self.chunks[..] {
            [only] if only.start <= page => 0,
            chunks => chunks.partition_point(|c| c.start <= page).checked_sub(1)?,
        };
        let at = self.chunks[chunk].regions.partition_point(|r| r.range.start <= page) - 1;
        Some((chunk, at))
    }

    /// The place of the region that `page` is in, if it is where the hint says.
    #[inline]
    fn hinted(&self, page: Vpn, hint: u32) -> Option<Place> {
        let (chunk, at) = hinted_at(hint);
        let region = self.chunks.get(chunk)?.regions.get(at)?;
        region.range.contains(page).then_some((chunk, at))
    }

    /// The place of the region that `page` is in.
    #[inline]
    fn place(&self, page: Vpn) -> Option<Place> {
        self.hinted(page, self.hint).or_else(|| self.search(page))
    }

    fn search(&self, page: Vpn) -> Option<Place> {
        self.locate(page).filter(|&place| page < self.at(place).range.end)
    }

    /// The next look-up is likely to be for the region there.
    #[inline]
    fn note(&mut self, place: Place) {
        self.hint = hint_to(place);
    }

    /// The region that `page` is in.
    pub fn find(&self, page: Vpn) -> Option<&Region> {
        self.place(page).map(|place| self.at(place))
    }

    /// As [`Regions::find`], and the next look-up is likely to be for the same.
    #[inline]
    pub fn seek(&mut self, page: Vpn) -> Option<&Region> {
        if self.hinted(page, self.hint).is_none() {
            let place = self.search(page)?;
            self.note(place);
        }
        Some(self.at(hinted_at(self.hint)))
    }

    /// As [`Regions::find`], with a hint where it may be, which tells afterwards where it is.
    #[inline]
    pub fn find_again(&self, page: Vpn, hint: &AtomicU32) -> Option<&Region> {
        let (chunk, at) = hinted_at(hint.load(Relaxed));
        match self.chunks.get(chunk).and_then(|chunk| chunk.regions.get(at)) {
            Some(region) if region.range.contains(page) => Some(region),
            _ => self.find_elsewhere(page, hint),
        }
    }

    /// Have [`Regions::find_again`] begin where something was changed last.
    #[inline]
    pub fn tell_hint(&self, hint: &AtomicU32) {
        hint.store(self.hint, Relaxed);
    }

    #[inline(never)]
    fn find_elsewhere(&self, page: Vpn, hint: &AtomicU32) -> Option<&Region> {
        let place = self.place(page)?;
        hint.store(hint_to(place), Relaxed);
        Some(self.at(place))
    }

    #[inline]
    fn place_before(&self, (chunk, at): Place) -> Option<Place> {
        match (chunk, at) {
            (0, 0) => None,
            (chunk, 0) => Some((chunk - 1, self.chunks[chunk - 1].regions.len() - 1)),
            (chunk, at) => Some((chunk, at - 1)),
        }
    }

    #[inline]
    fn place_after(&self, (chunk, at): Place) -> Option<Place> {
        if at + 1 < self.chunks[chunk].regions.len() {
            return Some((chunk, at + 1));
        }
        (chunk + 1 < self.chunks.len()).then_some((chunk + 1, 0))
    }

    /// The place after this one; of the first region, if there is none before.
    #[inline]
    fn place_above(&self, place: Option<Place>) -> Option<Place> {
        match place {
            Some(place) => self.place_after(place),
            None => (!self.chunks.is_empty()).then_some((0, 0)),
        }
    }

    /// The place of the first region that ends after `page`: the one it is in, or the next above.
    #[inline]
    fn place_from(&self, page: Vpn) -> Option<Place> {
        self.hinted(page, self.hint).or_else(|| match self.locate(page) {
            Some(place) if page < self.at(place).range.end => Some(place),
            place => self.place_above(place),
        })
    }

    /// The first region that ends after `page`: the one it is in, or the next above.
    pub fn first_from(&self, page: Vpn) -> Option<&Region> {
        self.place_from(page).map(|place| self.at(place))
    }

    /// Regions in order, from the first that ends after `page`.
    pub fn from(&self, page: Vpn) -> impl Iterator<Item = &Region> {
        self.starting_at(self.place_from(page))
    }

    fn starting_at(&self, first: Option<Place>) -> impl Iterator<Item = &Region> {
        let (chunk, at) = first.unwrap_or((self.chunks.len(), 0));
        let head = self.chunks.get(chunk).map_or(&[][..], |c| &c.regions[at..]);
        head.iter().chain(self.chunks.iter().skip(chunk + 1).flat_map(|c| &c.regions))
    }

    /// The last region that starts before `page`.
    pub fn last_before(&self, page: Vpn) -> Option<&Region> {
        self.locate(Vpn(page.0.checked_sub(1)?)).map(|place| self.at(place))
    }

    /// Those that overlap `range`.
    pub fn within(&self, range: PageRange) -> impl Iterator<Item = &Region> {
        self.from(range.start).take_while(move |r| r.range.start < range.end)
    }

    /// As [`Regions::within`], with a hint as for [`Regions::find_again`].
    pub fn within_again(&self, range: PageRange, hint: &AtomicU32) -> impl Iterator<Item = &Region> {
        let place = self.hinted(range.start, hint.load(Relaxed)).or_else(|| {
            let place = self.place_from(range.start)?;
            hint.store(hint_to(place), Relaxed);
            Some(place)
        });
        self.starting_at(place).take_while(move |r| r.range.start < range.end)
    }

    /// Whether `range` is covered without a hole.
    pub fn cover(&self, range: PageRange) -> bool {
        if self.find(range.start).is_some_and(|region| region.range.end >= range.end) {
            return true;
        }
        let mut at = range.start;
        for region in self.within(range) {
            if region.range.start > at {
                return false;
            }
            at = region.range.end;
        }
        at >= range.end
    }

    /// Change the range of the region that `page` is in, within the holes around it.
    pub fn change(&mut self, page: Vpn, f: impl FnOnce(&mut Region)) {
        if let Some(place) = self.place(page) {
            self.change_at(place, f);
        }
    }

    fn change_at(&mut self, (chunk, at): Place, f: impl FnOnce(&mut Region)) {
        let region = &mut self.chunks[chunk].regions[at];
        let before = region.range.len();
        f(region);
        let PageRange { start, end } = region.range;
        self.pages = self.pages - before + region.range.len();
        if at == 0 {
            self.chunks[chunk].start = start;
        }
        let below = hole(self.end_below((chunk, at)), start);
        self.chunks[chunk].gap = self.chunks[chunk].gap.max(below);
        self.note_gap_above((chunk, at), end);
    }

    /// Say something else of the region that `page` is in than where it is. It becomes one with a neighbour that it then
    /// continues.
    pub fn modify(&mut self, page: Vpn, f: impl FnOnce(&mut Region)) {
        let Some(place @ (chunk, at)) = self.place(page) else { return };
        f(&mut self.chunks[chunk].regions[at]);
        let this = self.at(place);
        let joins = self.place_after(place).is_some_and(|next| this.continues(self.at(next)))
            || self.place_before(place).is_some_and(|before| self.at(before).continues(this));
        if joins {
            let region = self.take(place);
            self.insert(region);
        }
    }

    /// Add a region where there is none, as part of a neighbour that it continues if it can be.
    pub fn insert(&mut self, region: Region) {
        let place = self.locate(region.range.start);
        let next = self.place_above(place);
        let before = place.filter(|&before| self.at(before).continues(&region));
        let next = next.filter(|&next| region.continues(self.at(next)));
        let PageRange { start, end } = region.range;
        match (before, next) {
            (None, None) => self.put(place, region),
            (Some(before), None) => self.change_at(before, |before| before.range.end = end),
            (Some(before), Some(next)) => {
                let end = self.take(next).range.end;
                self.change_at(before, |before| before.range.end = end);
            }
            (None, Some(next)) => self.change_at(next, |next| {
                (next.range.start, next.backing) = (start, region.backing);
            }),
        }
    }

    /// Add a region above all others, as part of the last one if it continues that.
    #[inline]
    pub fn push(&mut self, region: Region) {
        let last = self.chunks.last().map(|chunk| (self.chunks.len() - 1, chunk.regions.len() - 1));
        match last.filter(|&last| self.at(last).continues(&region)) {
            Some(last) => self.change_at(last, |last| last.range.end = region.range.end),
            None => self.put(last, region),
        }
    }

    /// Take `part` from the region that it is a part of, but not all of.
    pub fn split_off(&mut self, part: PageRange) -> Option<Region> {
        let place = self.place(part.start)?;
        let piece = self.at(place).part(part);
        let whole = self.at(place).range;
        if whole.start < part.start {
            let above =
                (part.end < whole.end).then(|| self.at(place).part(PageRange::new(part.end, whole.end)));
            self.change_at(place, |region| region.range.end = part.start);
            if let Some(above) = above {
                self.put(Some(place), above);
            }
        } else {
            let above = self.at(place).part(PageRange::new(part.end, whole.end));
            self.change_at(place, |region| *region = above);
        }
        Some(piece)
    }

    /// Add a region as it is, behind the one at `before`.
    #[inline(always)]
    fn put(&mut self, before: Option<Place>, region: Region) {
        self.count += 1;
        self.pages += region.range.len();
        let start = region.range.start;
        if self.chunks.is_empty() {
            self.chunks.push(Chunk { start, gap: 0, regions: Vec::with_capacity(16) });
        }
        let (index, at) = before.map_or((0, 0), |(index, at)| (index, at + 1));
        let gap = hole(self.end_below((index, at)), start);
        let chunk = &mut self.chunks[index];
        chunk.gap = chunk.gap.max(gap);
        chunk.start = chunk.start.min(start);
        chunk.regions.insert(at, region);
        if chunk.regions.len() > CHUNK {
            let regions = chunk.regions.split_off(CHUNK / 2);
            let upper = Chunk { start: regions[0].range.start, gap: chunk.gap, regions };
            self.chunks.insert(index + 1, upper);
        } else {
            self.note((index, at));
        }
    }

    /// Where the region before this place ends; without one, where programs' memory begins.
    #[inline]
    fn end_below(&self, place: Place) -> Vpn {
        self.place_before(place).map_or(USER_START, |before| self.at(before).range.end)
    }

    /// What lay before the region after this place now ends at `end`: the hole between may have grown.
    #[inline]
    fn note_gap_above(&mut self, place: Place, end: Vpn) {
        if let Some((chunk, at)) = self.place_after(place) {
            let above = &mut self.chunks[chunk];
            above.gap = above.gap.max(hole(end, above.regions[at].range.start));
        }
    }

    /// Take out the region at this place.
    #[inline]
    fn take(&mut self, place @ (chunk, at): Place) -> Region {
        let below = self.end_below(place);
        self.note_gap_above(place, below);
        let region = self.chunks[chunk].regions.remove(at);
        match self.chunks[chunk].regions.first() {
            Some(first) => self.chunks[chunk].start = first.range.start,
            None => drop(self.chunks.remove(chunk)),
        }
        self.count -= 1;
        self.pages -= region.range.len();
        region
    }

    /// Take out what lies in `range`, splitting regions at its ends. `taken` gets each piece.
    pub fn remove(&mut self, range: PageRange, mut taken: impl FnMut(Region)) {
        while let Some(place) = self.place_from(range.start) {
            let whole = self.at(place).range;
            if whole.start >= range.end {
                return;
            }
            if range.covers(&whole) {
                taken(self.take(place));
            } else if let Some(piece) = self.split_off(whole.intersect(&range)) {
                taken(piece);
            }
            if range.end <= whole.end {
                return;
            }
        }
    }

    /// Take out all.
    pub fn drain(&mut self) -> impl Iterator<Item = Region> {
        core::mem::take(self).chunks.into_iter().flat_map(|chunk| chunk.regions)
    }

    /// The highest hole of `pages` pages below `top`, as Linux looks for it; else the lowest above `top`.
    pub fn find_hole(&mut self, pages: u64, top: Vpn) -> Option<Vpn> {
        self.hole_below(pages, top).or_else(|| self.hole_above(pages, top))
    }

    fn hole_below(&mut self, pages: u64, top: Vpn) -> Option<Vpn> {
        let Some((last, at)) = self.locate(Vpn(top.0.checked_sub(1)?)) else {
            return (top.0 >= USER_START.0 + pages).then(|| Vpn(top.0 - pages));
        };
        let end = self.chunks[last].regions[at].range.end;
        if top.0.saturating_sub(end.0) >= pages {
            return Some(Vpn(top.0 - pages));
        }
        let mut below = at + 1;
        for index in (0..=last).rev() {
            if self.chunks[index].gap >= pages {
                let whole = below >= self.chunks[index].regions.len();
                let mut largest = 0;
                for at in (0..below.min(self.chunks[index].regions.len())).rev() {
                    let start = self.chunks[index].regions[at].range.start;
                    let hole = hole(self.end_below((index, at)), start);
                    if hole >= pages {
                        // A region is going to be put there.
                        self.place_before((index, at)).inspect(|&before| self.note(before));
                        return Some(Vpn(start.0 - pages));
                    }
                    largest = hole.max(largest);
                }
                if whole {
                    self.chunks[index].gap = largest;
                }
            }
            below = usize::MAX;
        }
        None
    }

    fn hole_above(&self, pages: u64, bottom: Vpn) -> Option<Vpn> {
        let bottom = bottom.max(USER_START);
        let (first, _) = self.locate(bottom).unwrap_or((0, 0));
        for (index, chunk) in self.chunks.iter().enumerate().skip(first).filter(|(_, c)| c.gap >= pages) {
            for (at, region) in chunk.regions.iter().enumerate() {
                let hole = self.end_below((index, at)).max(bottom);
                if region.range.start.0.saturating_sub(hole.0) >= pages {
                    return Some(hole);
                }
            }
        }
        let last = self.chunks.last().and_then(|c| c.regions.last());
        let start = last.map_or(bottom, |r| r.range.end.max(bottom));
        (start.0 + pages <= USER_END.0).then_some(start)
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;
    use crate::sim::Random;

    fn region(start: u64, pages: u64) -> Region {
        Region {
            range: PageRange::new(Vpn(start), Vpn(start + pages)),
            // So that no two become one.
            rights: if start & 1 == 0 { Rights::READ } else { Rights::WRITE },
            max_rights: Rights::all(),
            flags: RegionFlags::empty(),
            backing: Backing::Anonymous,
            label: None,
            grow_limit: start,
            nodes: 0,
            watcher: None,
        }
    }

    /// A hole is found where a plain look through all of them finds it, whatever came and went before.
    #[test]
    fn holes_are_found_where_they_are() {
        let random = Random::new(3);
        let (mut regions, base) = (Regions::new(), USER_START.0);
        const SPAN: u64 = 4000;
        let mut used = [false; SPAN as usize];
        for round in 0..20_000 {
            let (start, pages) = (random.next() % SPAN, 1 + random.next() % 6);
            let end = (start + pages).min(SPAN);
            let range = PageRange::new(Vpn(base + start), Vpn(base + end));
            regions.remove(range, |_| {});
            // First it fills, then it empties.
            let add = random.next() % 10 < if round < 10_000 { 8 } else { 3 };
            if add {
                regions.insert(region(base + start, end - start));
            }
            (start..end).for_each(|n| used[n as usize] = add);
            if round % 8 > 0 {
                continue;
            }
            let (wanted, top) = (1 + random.next() % 12, random.next() % SPAN);
            let free = |at: u64| at + wanted <= SPAN && (at..at + wanted).all(|n| !used[n as usize]);
            let below = (0..(top + 1).saturating_sub(wanted)).rev().find(|&at| free(at));
            let found = regions.hole_below(wanted, Vpn(base + top));
            assert_eq!(found, below.map(|at| Vpn(base + at)), "{wanted} pages below {top}");
            let above = (top..SPAN).find(|&at| free(at));
            let found = regions.hole_above(wanted, Vpn(base + top));
            if let Some(at) = above {
                assert_eq!(found, Some(Vpn(base + at)), "{wanted} pages above {top}");
            }
        }
        assert_eq!(regions.count, regions.from(Vpn(0)).count());
    }
}
