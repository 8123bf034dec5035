//! Holes between regions: where a new one finds room.
//!
//! One looks from the top down, as Linux does. Each chunk knows how large the holes below its regions are *at most*, so that
//! those without a chance are passed in one step. Adding a region makes holes smaller, which leaves the bound as it is; removing one
//! makes a hole larger, which raises it; and who looks at a whole chunk in vain leaves the true value behind.

use super::regions::{Regions, hole};
use crate::addr::{USER_END, USER_START, Vpn};

impl Regions {
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
    use super::super::region::{Backing, Region, RegionFlags};
    use super::*;
    use crate::Rights;
    use crate::addr::PageRange;
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
        assert_eq!(regions.len(), regions.from(Vpn(0)).count());
    }
}
