//! Regions: what a program is allowed where, in order of address.
//!
//! The container is a list of chunks of at most 64 regions. Finding one is a binary search over the chunks and one in
//! the chunk; adding one moves at most 63. With 10 or with 60,000 regions a look-up touches a handful of cache lines.

use super::region::Region;
use crate::addr::{PageRange, USER_START, Vpn};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

const CHUNK: usize = 64;

/// Up to [`CHUNK`] regions, never none.
pub(super) struct Chunk {
    /// Where the first begins.
    pub start: Vpn,
    /// No hole just below one of these regions has more pages.
    pub gap: u64,
    pub regions: Vec<Region>,
}

/// Pages between the end of one region and the start of the next.
pub(super) fn hole(end: Vpn, start: Vpn) -> u64 {
    start.0.saturating_sub(end.0)
}

/// A space's regions.
#[derive(Default)]
pub struct Regions {
    pub(super) chunks: Vec<Chunk>,
    count: usize,
    pages: u64,
    /// Where something was changed last: chunk and place. Most who come next look for that. Faults, which look but change nothing,
    /// have a hint of their own for each CPU ([`Regions::find_again`]).
    hint: u32,
}

/// Where a region stands: its chunk's number, and its number there. Good until regions come or go.
pub(super) type Place = (usize, usize);

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
    pub(super) fn locate(&self, page: Vpn) -> Option<Place> {
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
    pub(super) fn note(&mut self, place: Place) {
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
    pub(super) fn place_before(&self, (chunk, at): Place) -> Option<Place> {
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
    pub(super) fn end_below(&self, place: Place) -> Vpn {
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
}
