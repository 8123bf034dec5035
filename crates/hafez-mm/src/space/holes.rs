//! Holes between regions: where a new one finds room.
//!
//! One looks from the top down, as Linux does. Each chunk knows how large the holes below its regions are *at most*, and each node of
//! the tree of chunks how large those of all chunks under it are, so that those without a chance are passed in one step. Adding a
//! region makes holes smaller, which leaves the bounds as they are; removing one makes a hole larger, which raises them; and who
//! looks at a whole chunk in vain leaves the true value behind.

use super::chunks::{Chunks, Id};
use super::regions::{Bounds, Place, Regions, hole};
use crate::addr::{PageRange, USER_END, USER_START, Vpn};

impl Regions {
    /// The highest hole of `pages` pages below `top`, as Linux looks for it; else the lowest above `top`.
    #[inline]
    pub fn find_hole(&mut self, pages: u64, top: Vpn) -> Option<Vpn> {
        match self.bounds {
            Bounds::None => self.hole_below(pages, top).or_else(|| self.hole_above(pages, top)),
            bounds => self.hole_within(pages, top, bounds),
        }
    }

    /// The same in one of several sections.
    #[inline(never)]
    fn hole_within(&mut self, pages: u64, top: Vpn, bounds: Bounds) -> Option<Vpn> {
        let fits = |start: &Vpn| bounds.allow(PageRange::new(*start, start.add(pages)));
        match bounds {
            Bounds::Within { top, .. } => self.hole_below(pages, top).filter(fits),
            _ => {
                let above = |regions: &Self, end: Vpn| regions.hole_above(pages, end).filter(fits);
                let block = if let Bounds::Beside(block) = bounds { block.end } else { top };
                let found = self.hole_below(pages, top).filter(fits).or_else(|| above(self, top));
                found.or_else(|| above(self, top.max(block)))
            }
        }
    }

    fn hole_below(&mut self, pages: u64, top: Vpn) -> Option<Vpn> {
        let Some((chunk, at)) = self.locate(Vpn(top.0.checked_sub(1)?)) else {
            return (top.0 >= USER_START.0 + pages).then(|| Vpn(top.0 - pages));
        };
        if hole(self.chunks[chunk].regions[at].range.end, top) >= pages {
            return Some(Vpn(top.0 - pages));
        }
        let above @ (chunk, at) = match self.chunks.hole_among(chunk, at + 1, pages) {
            Ok(above) => above,
            Err(_) => {
                let under = self.chunks[chunk].start;
                self.chunks.highest(under, pages, &mut |chunks, id| chunks.hole_in(id, pages))?
            }
        };
        // A region is going to be put there.
        self.place_before(above).inspect(|&before| self.note(before));
        Some(Vpn(self.chunks[chunk].regions[at].range.start.0 - pages))
    }

    fn hole_above(&self, pages: u64, bottom: Vpn) -> Option<Vpn> {
        let bottom = bottom.max(USER_START);
        let look = |chunks: &Chunks, id: Id| {
            (0..chunks[id].regions.len()).find_map(|at| {
                let start = self.end_below((id, at)).max(bottom);
                (hole(start, chunks[id].regions[at].range.start) >= pages).then_some(start)
            })
        };
        self.chunks.lowest(bottom, pages, &mut &look).or_else(|| {
            let last = self.chunks.last().and_then(|last| self.chunks.regions(last).last());
            let start = last.map_or(bottom, |region| region.range.end.max(bottom));
            (start.0 + pages <= USER_END.0).then_some(start)
        })
    }
}

impl Chunks {
    /// The place of the region above the highest hole of so many pages, among those just below the first `count` regions of the chunk;
    /// or how large the largest of these holes is at most.
    #[inline(always)]
    fn hole_among(&self, id: Id, count: usize, pages: u64) -> Result<Place, u64> {
        let chunk = &self[id];
        if chunk.gap() < pages {
            return Err(chunk.gap());
        }
        let (mut largest, mut above) = (0, None);
        for (at, below) in chunk.regions[..count].iter().enumerate().rev() {
            let hole = above.map_or(0, |above| hole(below.range.end, above));
            if hole >= pages {
                return Ok((id, at + 1));
            }
            largest = hole.max(largest);
            above = Some(below.range.start);
        }
        let below = self.before(id).and_then(|below| self.regions(below).last());
        let hole = hole(below.map_or(USER_START, |region| region.range.end), chunk.start);
        if hole >= pages { Ok((id, 0)) } else { Err(largest.max(hole)) }
    }

    /// The same among all of the chunk, which afterwards says what is true.
    fn hole_in(&mut self, id: Id, pages: u64) -> Option<Place> {
        let found = self.hole_among(id, self[id].regions.len(), pages);
        found.map_err(|largest| self.lower_gap(id, largest)).ok()
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::super::region::{Backing, Region, RegionFlags};
    use super::*;
    use crate::Rights;
    use crate::addr::PageRange;
    use crate::sim::Random;
    use alloc::vec::Vec;

    fn region(start: u64, pages: u64) -> Region {
        Region {
            range: PageRange::new(Vpn(start), Vpn(start + pages)),
            // So that no two become one.
            rights: if start & 1 == 0 { Rights::READ } else { Rights::WRITE },
            max_rights: Rights::all(),
            flags: RegionFlags::empty(),
            backing: Backing::Anonymous,
            label: None,
            rare: None,
        }
    }

    /// A copy as `change` makes it, of at most so many.
    fn copied(regions: &Regions, most: usize, change: impl Fn(&mut Region)) -> Regions {
        let (mut copy, mut made) = (Regions::new(), 0);
        let all = copy.copy(regions, |region| {
            made += 1;
            (made <= most).then(|| {
                let mut region = region.clone();
                change(&mut region);
                region
            })
        });
        assert_eq!(all, made <= most);
        copy
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
        assert_eq!(regions.len(), regions.from(Vpn(0)).count());
    }

    /// The tree is one whatever comes and goes, also by whole chunks; the sums are those of the regions; and holes are found in
    /// large ones too.
    #[test]
    fn many_come_and_go() {
        let random = Random::new(5);
        let (mut regions, base) = (Regions::new(), USER_START.0);
        const SPAN: u64 = 40_000;
        let mut used = std::vec![false; SPAN as usize];
        let mut most = 0;
        for round in 0..60_000 {
            // Rising, falling, anywhere.
            let start = match round / 20_000 {
                0 => round * 2 % SPAN,
                1 => SPAN - 1 - round * 2 % SPAN,
                _ => random.next() % SPAN,
            };
            let wide = round % 50 == 49;
            let end = (start + if wide { random.next() % 3000 } else { 1 + random.next() % 2 }).min(SPAN);
            regions.remove(PageRange::new(Vpn(base + start), Vpn(base + end)), |_| {});
            if !wide && start < end {
                regions.insert(region(base + start, end - start));
            }
            (start..end).for_each(|n| used[n as usize] = !wide);
            if round % 100 > 0 {
                continue;
            }
            most = most.max(regions.chunks.check());
            assert_eq!(regions.pages(), used.iter().filter(|&&used| used).count() as u64);
            let written: u64 =
                regions.from(Vpn(0)).filter(|r| r.rights == Rights::WRITE).map(|r| r.range.len()).sum();
            assert_eq!(regions.pages_of(|_, writable| writable), written);
            let wanted = 1 + random.next() % 200;
            let (mut free, mut below) = (0, None);
            for at in (0..SPAN).rev() {
                free = if used[at as usize] { 0 } else { free + 1 };
                if free >= wanted {
                    below = Some(Vpn(base + at));
                    break;
                }
            }
            assert_eq!(regions.hole_below(wanted, Vpn(base + SPAN)), below, "{wanted} pages");
            // On with a copy of a copy; in the one between each may what it may not in the others.
            let turn = |region: &mut Region| region.rights = (Rights::READ | Rights::WRITE) - region.rights;
            let turned = copied(&regions, usize::MAX, turn);
            assert_eq!(turned.pages_of(|_, writable| writable), regions.pages() - written);
            regions = copied(&turned, usize::MAX, turn);
            assert_eq!(regions.pages_of(|_, writable| writable), written);
        }
        let part: Vec<Region> = copied(&regions, 40, |_| {}).drain().collect();
        assert_eq!(part.len(), 40);
        assert!(
            part.iter().all(|piece| regions.find(piece.range.start).is_some_and(|r| r.range == piece.range))
        );
        assert!(most > 100, "at most {most} chunks");
    }
}
