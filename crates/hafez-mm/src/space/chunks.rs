//! Chunks: some dozens of regions in a row, and the tree above them.
//!
//! Regions that are neighbours stand together in a chunk, so that adding one moves few. The chunks stand wherever there is room and
//! name each other: the next and the one before in order of address, and as the nodes of a balanced tree (Andersson's: a node's
//! `level` is that of its lower child plus one, and at most its upper child has the same), in which one is found by address, and
//! the nearest with a large enough hole by what each node says of all below it.
//!
//! ```text
//!            start   gap: no hole below one of my regions is larger
//!   chunk    regions          largest: nor below one of those in the tree under me
//!            before <- -> next
//!            lower /  \ upper
//! ```
//!
//! Both bounds may be too high, which costs a look in vain, after which they are right; never too low.

use super::region::Region;
use crate::addr::Vpn;
use alloc::vec::Vec;
use core::ops::{Index, IndexMut};

/// The number of a chunk, which it keeps.
pub(super) type Id = u32;

/// What there is room for before memory has to be had: chunks, and regions in a copied one.
const SPARE: usize = 4;

/// No chunk.
pub(super) const NONE: Id = u32::MAX;

/// A row of regions, never none while it is in the tree.
pub(super) struct Chunk {
    /// Where the first begins.
    pub start: Vpn,
    pub regions: Vec<Region>,
    /// No hole just below one of these regions has more pages.
    gap: u64,
    /// Nor just below one of those of any chunk in the tree under this one.
    largest: u64,
    before: Id,
    next: Id,
    lower: Id,
    upper: Id,
    level: u32,
}

/// All chunks of a space.
pub(super) struct Chunks {
    all: Vec<Chunk>,
    root: Id,
    /// The first that is not in use; each names the next.
    vacant: Id,
}

impl Index<Id> for Chunks {
    type Output = Chunk;
    #[inline(always)]
    fn index(&self, id: Id) -> &Chunk {
        &self.all[id as usize]
    }
}
impl IndexMut<Id> for Chunks {
    #[inline(always)]
    fn index_mut(&mut self, id: Id) -> &mut Chunk {
        &mut self.all[id as usize]
    }
}

impl Chunk {
    /// No hole just below one of its regions has more pages.
    #[inline]
    pub fn gap(&self) -> u64 {
        self.gap
    }
}

impl Chunks {
    pub const fn new() -> Self {
        Chunks { all: Vec::new(), root: NONE, vacant: NONE }
    }

    /// See to it that a few more need no memory; false where there is none.
    #[inline]
    pub fn make_room(&mut self) -> bool {
        self.all.capacity() - self.all.len() >= SPARE || self.all.try_reserve(8).is_ok()
    }

    /// The regions of a chunk; none, if there is no such chunk.
    #[inline]
    pub fn regions(&self, id: Id) -> &[Region] {
        self.all.get(id as usize).map_or(&[], |chunk| &chunk.regions)
    }

    /// Become what these are, in place of none, each region as `copy` makes it. See [`Regions::copy`](super::Regions::copy).
    pub fn copy(&mut self, from: &Chunks, mut copy: impl FnMut(&Region) -> Option<Region>) -> bool {
        (self.root, self.vacant) = (from.root, from.vacant);
        let room = self.all.try_reserve(from.all.len() + SPARE).is_ok();
        room && from.all.iter().all(|chunk| {
            let mut regions = Vec::new();
            let wanted = if chunk.regions.is_empty() { 0 } else { chunk.regions.len() + SPARE };
            if regions.try_reserve(wanted).is_err() {
                return false;
            }
            regions.extend(chunk.regions.iter().map_while(&mut copy));
            let all = regions.len() == chunk.regions.len();
            self.all.push(Chunk { regions, ..*chunk });
            all
        })
    }

    pub fn into_regions(self) -> impl Iterator<Item = Region> {
        self.all.into_iter().flat_map(|chunk| chunk.regions)
    }

    /// The chunks below and above this one, by address.
    #[inline]
    pub fn before(&self, id: Id) -> Option<Id> {
        Some(self[id].before).filter(|&before| before != NONE)
    }
    #[inline]
    pub fn next(&self, id: Id) -> Option<Id> {
        Some(self[id].next).filter(|&next| next != NONE)
    }

    /// The lowest and the highest of all.
    #[inline]
    pub fn first(&self) -> Option<Id> {
        self.outermost(|chunk| chunk.lower)
    }
    #[inline]
    pub fn last(&self) -> Option<Id> {
        self.outermost(|chunk| chunk.upper)
    }

    #[inline]
    fn outermost(&self, outwards: impl Fn(&Chunk) -> Id) -> Option<Id> {
        let (mut found, mut id) = (None, self.root);
        while id != NONE {
            found = Some(id);
            id = outwards(&self[id]);
        }
        found
    }

    /// The last that starts at or before `page`.
    #[inline]
    pub fn find(&self, page: Vpn) -> Option<Id> {
        let (mut found, mut id) = (None, self.root);
        while id != NONE {
            let chunk = &self[id];
            if chunk.start <= page {
                found = Some(id);
                id = chunk.upper;
            } else {
                id = chunk.lower;
            }
        }
        found
    }

    /// A new chunk above this one, or as the first of all.
    pub fn add(&mut self, before: Option<Id>, regions: Vec<Region>, gap: u64) -> Id {
        let before = before.unwrap_or(NONE);
        let next = if before == NONE { self.first().unwrap_or(NONE) } else { self[before].next };
        let start = regions.first().map_or(Vpn(0), |region| region.range.start);
        let new =
            Chunk { start, regions, gap, largest: gap, before, next, lower: NONE, upper: NONE, level: 1 };
        let id = self.vacant;
        let id = if id == NONE {
            self.all.push(new);
            self.all.len() as Id - 1
        } else {
            self.vacant = self[id].next;
            self[id] = new;
            id
        };
        self.link(before, id);
        self.link(id, next);
        self.root = self.insert_below(self.root, id);
        id
    }

    /// Take out a chunk that has no regions any more; `start` still says where it is.
    pub fn remove(&mut self, id: Id) {
        let Chunk { before, next, .. } = self[id];
        self.link(before, next);
        self.root = self.remove_below(self.root, id);
        (self[id].regions, self[id].next) = (Vec::new(), self.vacant);
        self.vacant = id;
    }

    /// These two are neighbours.
    fn link(&mut self, before: Id, next: Id) {
        if before != NONE {
            self[before].next = next;
        }
        if next != NONE {
            self[next].before = before;
        }
    }

    /// There is a hole of so many pages below one of the chunk's regions.
    #[inline]
    pub fn note_gap(&mut self, id: Id, gap: u64) {
        if gap > self[id].gap {
            self.raise(id, gap);
        }
    }

    #[inline(never)]
    fn raise(&mut self, id: Id, gap: u64) {
        let start = self[id].start;
        self[id].gap = gap;
        let mut above = self.root;
        while above != NONE {
            let chunk = &mut self[above];
            chunk.largest = chunk.largest.max(gap);
            above = match start.cmp(&chunk.start) {
                core::cmp::Ordering::Less => chunk.lower,
                core::cmp::Ordering::Equal => return,
                core::cmp::Ordering::Greater => chunk.upper,
            };
        }
    }

    /// No hole below one of the chunk's regions is larger than this.
    pub fn lower_gap(&mut self, id: Id, gap: u64) {
        self[id].gap = gap;
    }

    /// What `look` finds in the highest chunk that starts below `under` and may have a hole of `pages` pages. Where it finds
    /// nothing it has lowered the chunk's gap to what it is.
    pub fn highest<T>(
        &mut self,
        under: Vpn,
        pages: u64,
        look: &mut dyn FnMut(&mut Self, Id) -> Option<T>,
    ) -> Option<T> {
        self.highest_below(self.root, under, pages, look)
    }

    fn highest_below<T>(
        &mut self,
        id: Id,
        under: Vpn,
        pages: u64,
        look: &mut dyn FnMut(&mut Self, Id) -> Option<T>,
    ) -> Option<T> {
        if id == NONE || self[id].largest < pages {
            return None;
        }
        let Chunk { start, gap, lower, upper, .. } = self[id];
        if start < under {
            let found = self.highest_below(upper, under, pages, look);
            let found = found.or_else(|| if gap >= pages { look(self, id) } else { None });
            if found.is_some() {
                return found;
            }
        }
        let found = self.highest_below(lower, under, pages, look);
        if found.is_none() {
            self.sum(id);
        }
        found
    }

    /// What `look` finds in the lowest chunk that ends above `bottom` and may have a hole of `pages` pages.
    pub fn lowest<T>(
        &self,
        bottom: Vpn,
        pages: u64,
        look: &mut dyn FnMut(&Self, Id) -> Option<T>,
    ) -> Option<T> {
        self.lowest_below(self.root, bottom, pages, look)
    }

    fn lowest_below<T>(
        &self,
        id: Id,
        bottom: Vpn,
        pages: u64,
        look: &mut dyn FnMut(&Self, Id) -> Option<T>,
    ) -> Option<T> {
        if id == NONE || self[id].largest < pages {
            return None;
        }
        let Chunk { gap, lower, upper, .. } = self[id];
        let ends_above = self.next(id).is_none_or(|next| self[next].start > bottom);
        if ends_above {
            let found = self.lowest_below(lower, bottom, pages, look);
            let found = found.or_else(|| if gap >= pages { look(self, id) } else { None });
            if found.is_some() {
                return found;
            }
        }
        self.lowest_below(upper, bottom, pages, look)
    }

    /// What the node says of all below it, from what they say.
    fn sum(&mut self, id: Id) {
        let of = |id: Id| if id == NONE { 0 } else { self[id].largest };
        let Chunk { gap, lower, upper, .. } = self[id];
        self[id].largest = gap.max(of(lower)).max(of(upper));
    }

    fn level(&self, id: Id) -> u32 {
        if id == NONE { 0 } else { self[id].level }
    }

    /// Put a chunk into the tree at `root`. Its root then.
    fn insert_below(&mut self, root: Id, new: Id) -> Id {
        if root == NONE {
            return new;
        }
        if self[new].start < self[root].start {
            self[root].lower = self.insert_below(self[root].lower, new);
        } else {
            self[root].upper = self.insert_below(self[root].upper, new);
        }
        self.balance(root)
    }

    /// Take a chunk out of the tree at `root`. Its root then.
    fn remove_below(&mut self, root: Id, gone: Id) -> Id {
        let Chunk { lower, upper, level, .. } = self[root];
        if root == gone {
            if lower == NONE {
                return upper;
            }
            let (least, rest) = self.take_least(upper);
            (self[least].lower, self[least].upper, self[least].level) = (lower, rest, level);
            return self.balance(least);
        }
        if self[gone].start < self[root].start {
            self[root].lower = self.remove_below(lower, gone);
        } else {
            self[root].upper = self.remove_below(upper, gone);
        }
        self.balance(root)
    }

    /// The lowest chunk of the tree at `root`, and the root of the rest.
    fn take_least(&mut self, root: Id) -> (Id, Id) {
        let Chunk { lower, upper, .. } = self[root];
        if lower == NONE {
            return (root, upper);
        }
        let (least, rest) = self.take_least(lower);
        self[root].lower = rest;
        (least, self.balance(root))
    }

    /// A child of this node has changed: make it a tree again. Its root then.
    fn balance(&mut self, id: Id) -> Id {
        let Chunk { lower, upper, level, .. } = self[id];
        let most = self.level(lower).min(self.level(upper)) + 1;
        if most < level {
            self[id].level = most;
            if upper != NONE && most < self[upper].level {
                self[upper].level = most;
            }
        }
        self.sum(id);
        let root = self.turn_up(id);
        let upper = self[root].upper;
        if upper != NONE {
            let upper = self.turn_up(upper);
            self[root].upper = upper;
            if self[upper].upper != NONE {
                self[upper].upper = self.turn_up(self[upper].upper);
            }
        }
        let root = self.turn_down(root);
        if self[root].upper != NONE {
            self[root].upper = self.turn_down(self[root].upper);
        }
        root
    }

    /// A lower child of the node's own level comes to stand above it.
    fn turn_up(&mut self, id: Id) -> Id {
        let lower = self[id].lower;
        if lower == NONE || self[lower].level != self[id].level {
            return id;
        }
        self[id].lower = self[lower].upper;
        self[lower].upper = id;
        self.sum(id);
        self.sum(lower);
        lower
    }

    /// Of three in a row of one level the middle comes to stand above the others.
    fn turn_down(&mut self, id: Id) -> Id {
        let upper = self[id].upper;
        if upper == NONE || self.level(self[upper].upper) != self[id].level {
            return id;
        }
        self[id].upper = self[upper].lower;
        self[upper].lower = id;
        self[upper].level += 1;
        self.sum(id);
        self.sum(upper);
        upper
    }
}

#[cfg(all(test, feature = "sim"))]
impl Chunks {
    /// That it is a tree, in order, of logarithmic depth, and that no bound is too low. How many chunks there are.
    pub(super) fn check(&self) -> usize {
        let mut order = Vec::new();
        self.check_below(self.root, &mut order);
        let linked: Vec<Id> = core::iter::successors(self.first(), |&id| self.next(id)).collect();
        assert_eq!(order, linked);
        for pair in order.windows(2) {
            assert!(self[pair[0]].start < self[pair[1]].start);
            assert_eq!(self.before(pair[1]), Some(pair[0]));
        }
        let mut end = crate::addr::USER_START;
        for &id in &order {
            assert_eq!(self[id].start, self[id].regions[0].range.start);
            for region in &self[id].regions {
                assert!(self[id].gap >= super::regions::hole(end, region.range.start));
                end = region.range.end;
            }
        }
        order.len()
    }

    fn check_below(&self, id: Id, order: &mut Vec<Id>) {
        if id == NONE {
            return;
        }
        let Chunk { gap, largest, lower, upper, level, .. } = self[id];
        assert_eq!(self.level(lower) + 1, level);
        assert!(self.level(upper) == level || self.level(upper) + 1 == level);
        assert!(upper == NONE || self.level(self[upper].upper) < level);
        assert!(largest >= gap);
        for child in [lower, upper].into_iter().filter(|&child| child != NONE) {
            assert!(largest >= self[child].largest);
        }
        self.check_below(lower, order);
        order.push(id);
        self.check_below(upper, order);
    }
}
