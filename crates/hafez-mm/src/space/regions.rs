//! Regions: what a program is allowed where, in order of address.
//!
//! They stand in chunks of at most 32, and the chunks in a tree (`chunks.rs`). Finding one is a way down the tree and a binary
//! search in the chunk; adding one moves at most 31. With 10 or with 60,000 regions a look-up touches a handful of cache lines.
//!
//! How many pages there are of each kind of region is kept as they come and go: who asks how much a program has been promised need
//! not look at them all.

use super::chunks::{Chunks, Id, NONE};
use super::region::{Region, RegionFlags};
use crate::Rights;
use crate::addr::{PageRange, Vpn};
use core::iter::successors;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Regions in a chunk at most.
pub(super) const CHUNK: usize = 32;

/// Pages between the end of one region and the start of the next.
pub(super) fn hole(end: Vpn, start: Vpn) -> u64 {
    start.0.saturating_sub(end.0)
}

/// A space's regions.
pub struct Regions {
    pub(super) chunks: Chunks,
    pub(super) count: usize,
    /// Pages of each kind of region.
    pub(super) pages: [u64; KINDS],
    /// Where something was changed last: chunk and place. Most who come next look for that. Faults, which look but change nothing,
    /// have a hint of their own for each CPU ([`Regions::find_again`]).
    hint: u32,
    /// Which addresses these are the regions of.
    pub(super) bounds: Bounds,
}

/// What a section's regions may cover.
#[derive(Clone, Copy, Default)]
pub(super) enum Bounds {
    /// Anything.
    #[default]
    None,
    /// What is not in this block.
    Beside(PageRange),
    /// What is in this section; mappings are placed below `top`.
    Within { section: PageRange, top: Vpn },
}

impl Bounds {
    pub fn section(self) -> Option<PageRange> {
        if let Bounds::Within { section, .. } = self { Some(section) } else { None }
    }

    pub fn allow(self, range: PageRange) -> bool {
        match self {
            Bounds::None => true,
            Bounds::Beside(block) => range.intersect(&block).is_empty(),
            Bounds::Within { section, .. } => section.covers(&range),
        }
    }
}

/// Flags that tell regions of one kind from those of another; the right to write comes beside them.
const KIND: RegionFlags = RegionFlags::SHARED
    .union(RegionFlags::GROWS_DOWN)
    .union(RegionFlags::WIRED)
    .union(RegionFlags::NO_RESERVE);
const KINDS: usize = 2 * (KIND.bits() as usize + 1);

/// The number of a region's kind.
#[inline]
pub(super) fn kind(region: &Region) -> usize {
    let writable = region.rights.contains(Rights::WRITE) as usize;
    (region.flags & KIND).bits() as usize * 2 + writable
}

/// Where a region stands: its chunk's number, and its number there. Good until regions come or go.
pub(super) type Place = (Id, usize);

/// Bits for a region's number in its chunk, in a hint.
const HINT_SHIFT: u32 = 8;

#[inline]
fn hinted_at(hint: u32) -> Place {
    (hint >> HINT_SHIFT, hint as usize & ((1 << HINT_SHIFT) - 1))
}

#[inline]
fn hint_to((chunk, at): Place) -> u32 {
    chunk << HINT_SHIFT | at as u32
}

impl Default for Regions {
    fn default() -> Self {
        Regions::new()
    }
}

impl Regions {
    pub const fn new() -> Self {
        Regions { chunks: Chunks::new(), count: 0, pages: [0; KINDS], hint: 0, bounds: Bounds::None }
    }

    /// Whether these are those of a thread's section.
    pub fn is_own(&self) -> bool {
        matches!(self.bounds, Bounds::Within { .. })
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// Pages that all regions cover.
    pub fn pages(&self) -> u64 {
        self.pages.iter().sum()
    }

    /// Pages of the regions that have these flags and that right, or not.
    pub fn pages_of(&self, mut which: impl FnMut(RegionFlags, bool) -> bool) -> u64 {
        let kinds = self.pages.iter().enumerate();
        let of = kinds.filter(|(n, _)| which(RegionFlags::from_bits_truncate(*n as u32 / 2), n % 2 == 1));
        of.map(|(_, pages)| pages).sum()
    }

    /// See to it that a few more chunks need no memory; false where there is none.
    #[inline]
    pub fn make_room(&mut self) -> bool {
        self.chunks.make_room()
    }

    #[inline]
    pub(super) fn at(&self, (chunk, at): Place) -> &Region {
        &self.chunks[chunk].regions[at]
    }

    /// The place of the last region that starts at or before `page`.
    #[inline]
    pub(super) fn locate(&self, page: Vpn) -> Option<Place> {
        let place @ (chunk, at) = hinted_at(self.hint);
        if let Some([this, next]) = self.chunks.regions(chunk).get(at..at + 2)
            && this.range.start <= page
            && page < next.range.start
        {
            return Some(place);
        }
        self.locate_far(page)
    }

    #[inline(never)]
    fn locate_far(&self, page: Vpn) -> Option<Place> {
        self.locate_anew(page)
    }

    #[inline]
    fn locate_anew(&self, page: Vpn) -> Option<Place> {
        let chunk = self.chunks.find(page)?;
        let at = self.chunks[chunk].regions.partition_point(|r| r.range.start <= page) - 1;
        Some((chunk, at))
    }

    /// The place of the region that `page` is in, if it is where the hint says.
    #[inline]
    fn hinted(&self, page: Vpn, hint: u32) -> Option<Place> {
        let (chunk, at) = hinted_at(hint);
        let region = self.chunks.regions(chunk).get(at)?;
        region.range.contains(page).then_some((chunk, at))
    }

    /// The place of the region that `page` is in.
    #[inline]
    pub(super) fn place(&self, page: Vpn) -> Option<Place> {
        self.hinted(page, self.hint).or_else(|| self.search(page))
    }

    fn search(&self, page: Vpn) -> Option<Place> {
        self.locate(page).filter(|&place| page < self.at(place).range.end)
    }

    /// The next look-up is likely to be for the region there.
    #[inline]
    pub(super) fn note(&mut self, place: Place) {
        self.hint = hint_to(place);
    }

    /// The region that `page` is in.
    pub fn find(&self, page: Vpn) -> Option<&Region> {
        self.place(page).map(|place| self.at(place))
    }

    /// As [`Regions::place`], and the next look-up is likely to be for the same.
    #[inline]
    pub(super) fn seek(&mut self, page: Vpn) -> Option<Place> {
        self.hinted(page, self.hint).or_else(|| self.search(page).inspect(|&place| self.note(place)))
    }

    /// As [`Regions::find`], with a hint where it may be, which tells afterwards where it is.
    #[inline]
    pub fn find_again(&self, page: Vpn, hint: &AtomicU32) -> Option<&Region> {
        let (chunk, at) = hinted_at(hint.load(Relaxed));
        match self.chunks.regions(chunk).get(at) {
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
        let place = self.locate_anew(page)?;
        let region = self.at(place);
        if page >= region.range.end {
            return None;
        }
        hint.store(hint_to(place), Relaxed);
        Some(region)
    }

    #[inline]
    pub(super) fn place_before(&self, (chunk, at): Place) -> Option<Place> {
        match at.checked_sub(1) {
            Some(at) => Some((chunk, at)),
            None => self.chunks.before(chunk).map(|before| (before, self.chunks[before].regions.len() - 1)),
        }
    }

    #[inline]
    pub(super) fn place_after(&self, (chunk, at): Place) -> Option<Place> {
        match at + 1 < self.chunks[chunk].regions.len() {
            true => Some((chunk, at + 1)),
            false => self.chunks.next(chunk).map(|next| (next, 0)),
        }
    }

    /// The place after this one; of the first region, if there is none before.
    #[inline]
    pub(super) fn place_above(&self, place: Option<Place>) -> Option<Place> {
        match place {
            Some(place) => self.place_after(place),
            None => self.chunks.first().map(|first| (first, 0)),
        }
    }

    /// The place of the first region that ends after `page`: the one it is in, or the next above.
    #[inline]
    pub(super) fn place_from(&self, page: Vpn) -> Option<Place> {
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
        let (chunk, at) = first.unwrap_or((NONE, 0));
        let head = &self.chunks.regions(chunk)[at..];
        let others = successors(first.and_then(|_| self.chunks.next(chunk)), |&id| self.chunks.next(id));
        head.iter().chain(others.flat_map(|id| self.chunks.regions(id)))
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
}
