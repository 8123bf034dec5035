//! Changing regions: as they come, go, are cut and become one with a neighbour.
//!
//! Two regions that are neighbours and alike are one region: whoever adds or changes one looks at those beside it. Each change keeps
//! three things true beside the order: the pages of each kind, the chunk's start, and that no bound on a hole is too low
//! (`chunks.rs`). Most changes are among the neighbours of one chunk; what lies at its edge is a call.

use super::chunks::Id;
use super::region::Region;
use super::regions::{CHUNK, Place, Regions, hole, kind};
use crate::addr::{PageRange, USER_START, Vpn};
use alloc::vec::Vec;

impl Regions {
    /// Change the range of the region that `page` is in, within the holes around it.
    pub fn change(&mut self, page: Vpn, f: impl FnOnce(&mut Region)) {
        if let Some(place) = self.place(page) {
            self.change_at(place, f);
        }
    }

    fn change_at(&mut self, place @ (chunk, at): Place, f: impl FnOnce(&mut Region)) {
        let region = &mut self.chunks[chunk].regions[at];
        self.pages[kind(region)] -= region.range.len();
        f(region);
        self.pages[kind(region)] += region.range.len();
        let PageRange { start, end } = region.range;
        if at == 0 {
            self.chunks[chunk].start = start;
        }
        self.chunks.note_gap(chunk, hole(self.end_below(place), start));
        self.note_gap_above(place, end);
    }

    /// Say something else of the region at this place than where it is. It becomes one with a neighbour that it then continues.
    #[inline]
    pub(super) fn modify(&mut self, place @ (chunk, at): Place, f: impl FnOnce(&mut Region)) {
        let region = &mut self.chunks[chunk].regions[at];
        self.pages[kind(region)] -= region.range.len();
        f(region);
        self.pages[kind(region)] += region.range.len();
        let this = self.at(place);
        let joins = self.place_after(place).is_some_and(|next| this.continues(self.at(next)))
            || self.place_before(place).is_some_and(|before| self.at(before).continues(this));
        if joins {
            self.join_anew(place);
        }
    }

    #[inline(never)]
    fn join_anew(&mut self, place: Place) {
        let region = self.take(place);
        self.insert(region);
    }

    /// Add a region where there is none, as part of a neighbour that it continues if it can be.
    pub fn insert(&mut self, region: Region) {
        let before = self.locate(region.range.start);
        // Most stand between two of a chunk that are unlike them.
        if let Some((chunk, at)) = before
            && let Some([below, above]) = self.chunks.regions(chunk).get(at..at + 2)
            && !below.continues(&region)
            && !region.continues(above)
        {
            let gap = hole(below.range.end, region.range.start);
            return self.put((chunk, at + 1), gap, region);
        }
        self.insert_at_edge(before, region);
    }

    #[inline(never)]
    fn insert_at_edge(&mut self, before: Option<Place>, region: Region) {
        let next = self.place_above(before);
        let joined = before.filter(|&before| self.at(before).continues(&region));
        let joining = next.filter(|&next| region.continues(self.at(next)));
        if joined.is_none() && joining.is_none() {
            return self.put_behind(before, region);
        }
        self.join(joined, region, joining);
    }

    /// Make a region part of its neighbours: of those that are named.
    #[inline(never)]
    fn join(&mut self, before: Option<Place>, region: Region, next: Option<Place>) {
        let PageRange { start, end } = region.range;
        match (before, next) {
            (Some(before), None) => self.change_at(before, |before| before.range.end = end),
            (Some(before), Some(next)) => {
                let end = self.take(next).range.end;
                self.change_at(before, |before| before.range.end = end);
            }
            (None, Some(next)) => self.change_at(next, |next| {
                (next.range.start, next.backing) = (start, region.backing);
            }),
            (None, None) => {}
        }
    }

    /// Add a region above all others, as part of the last one if it continues that.
    #[inline]
    pub fn push(&mut self, region: Region) {
        let last = self.chunks.last().map(|last| (last, self.chunks[last].regions.len() - 1));
        match last.filter(|&last| self.at(last).continues(&region)) {
            Some(last) => self.change_at(last, |last| last.range.end = region.range.end),
            None => self.put_behind(last, region),
        }
    }

    /// Take `part` from the region at this place, which it is a part of, but not all.
    pub(super) fn split_off(&mut self, place: Place, part: PageRange) -> Region {
        let piece = self.at(place).part(part);
        let whole = self.at(place).range;
        if whole.start < part.start {
            let above =
                (part.end < whole.end).then(|| self.at(place).part(PageRange::new(part.end, whole.end)));
            self.change_at(place, |region| region.range.end = part.start);
            if let Some(above) = above {
                self.put_behind(Some(place), above);
            }
        } else {
            let above = self.at(place).part(PageRange::new(part.end, whole.end));
            self.change_at(place, |region| *region = above);
        }
        piece
    }

    /// Add a region as it is, behind the one at `before`.
    #[inline]
    fn put_behind(&mut self, before: Option<Place>, region: Region) {
        let end = before.map_or(USER_START, |before| self.at(before).range.end);
        let gap = hole(end, region.range.start);
        match before.or_else(|| self.place_above(None)) {
            Some((chunk, at)) => self.put((chunk, at + before.is_some() as usize), gap, region),
            None => self.put_first(region, gap),
        }
    }

    /// Add a region at this place, with a hole of `gap` pages below it.
    #[inline]
    fn put(&mut self, (chunk, at): Place, gap: u64, region: Region) {
        self.count += 1;
        self.pages[kind(&region)] += region.range.len();
        let row = &mut self.chunks[chunk];
        if at == 0 {
            row.start = region.range.start;
        }
        row.regions.insert(at, region);
        let full = row.regions.len() > CHUNK;
        self.chunks.note_gap(chunk, gap);
        match full {
            true => self.split(chunk),
            false => self.note((chunk, at)),
        }
    }

    #[cold]
    fn put_first(&mut self, region: Region, gap: u64) {
        self.count += 1;
        self.pages[kind(&region)] += region.range.len();
        let mut regions = Vec::with_capacity(16);
        regions.push(region);
        self.chunks.add(None, regions, gap);
    }

    /// Make two of a chunk.
    #[cold]
    fn split(&mut self, chunk: Id) {
        let upper = self.chunks[chunk].regions.split_off(CHUNK / 2);
        self.chunks.add(Some(chunk), upper, self.chunks[chunk].gap());
    }

    /// Where the region before this place ends; without one, where programs' memory begins.
    #[inline]
    pub(super) fn end_below(&self, place: Place) -> Vpn {
        self.place_before(place).map_or(USER_START, |before| self.at(before).range.end)
    }

    /// What lay before the region after this place now ends at `end`: the hole between may have grown.
    fn note_gap_above(&mut self, place: Place, end: Vpn) {
        if let Some(above @ (chunk, _)) = self.place_after(place) {
            self.chunks.note_gap(chunk, hole(end, self.at(above).range.start));
        }
    }

    /// Another region is the chunk's first now, if there is one.
    #[inline(never)]
    fn first_is_gone(&mut self, chunk: Id) {
        match self.chunks.regions(chunk).first().map(|first| first.range.start) {
            Some(first) => self.chunks[chunk].start = first,
            None => self.chunks.remove(chunk),
        }
    }

    /// Take out the region at this place.
    #[inline(always)]
    fn take(&mut self, place @ (chunk, at): Place) -> Region {
        if let Some([below, _, above]) = self.chunks.regions(chunk).get(at.wrapping_sub(1)..at + 2) {
            self.chunks.note_gap(chunk, hole(below.range.end, above.range.start));
        } else {
            self.note_gap_above(place, self.end_below(place));
        }
        let region = self.chunks[chunk].regions.remove(at);
        if at == 0 {
            self.first_is_gone(chunk);
        }
        self.count -= 1;
        self.pages[kind(&region)] -= region.range.len();
        region
    }

    /// Take out what lies in `range`, splitting regions at its ends. `taken` gets each piece.
    pub fn remove(&mut self, range: PageRange, taken: impl FnMut(Region)) {
        self.remove_from(self.place_from(range.start), range, taken);
    }

    /// The same, where the place of the first region that ends in `range` or above it is known.
    #[inline]
    pub(super) fn remove_from(
        &mut self,
        mut first: Option<Place>,
        range: PageRange,
        mut taken: impl FnMut(Region),
    ) {
        while let Some(place) = first {
            let whole = self.at(place).range;
            if whole.start >= range.end {
                return;
            }
            if range.covers(&whole) {
                taken(self.take(place));
            } else {
                taken(self.split_off(place, whole.intersect(&range)));
            }
            if range.end <= whole.end {
                return;
            }
            first = self.place_from(range.start);
        }
    }

    /// Have the regions of another space, each where it is there and as `copy` makes it, in place of none. Where memory is missing some
    /// are missing (`false`), and nothing may be done but to take out the others.
    pub fn copy(&mut self, from: &Regions, mut copy: impl FnMut(&Region) -> Option<Region>) -> bool {
        (self.count, self.pages) = (from.count, from.pages);
        let pages = &mut self.pages;
        self.chunks.copy(&from.chunks, |region| {
            let copy = copy(region)?;
            if kind(&copy) != kind(region) {
                pages[kind(region)] -= region.range.len();
                pages[kind(&copy)] += region.range.len();
            }
            Some(copy)
        })
    }

    /// Take out all.
    pub fn drain(&mut self) -> impl Iterator<Item = Region> {
        core::mem::take(self).chunks.into_regions()
    }
}
