//! Looking at a range: which entries it has, and where the next one is.
//!
//! Most of the words of a table are zero, in long stretches; they are passed over sixteen at a time. Of a leaf, whose record
//! tells in which sixteen some may be used, the others are not even looked at.

use super::cursor::{Cursor, Leaf, TOP, end_of, index, is_in_one_leaf};
use super::entry;
use super::slot::{BLOCK, Slot};
use crate::addr::{PageRange, Pfn, Vpn};
use core::sync::atomic::{AtomicU64, Ordering::*};

impl Cursor<'_> {
    /// Visit each entry of `range` that is not absent, in order of address.
    pub fn each(&mut self, range: PageRange, f: &mut impl FnMut(Vpn, &Slot<'_>)) {
        self.expect(range);
        self.open(range);
        if range.len() == 1 {
            if let Some(slot) = self.place(range.start).filter(|slot| !slot.is_absent()) {
                f(range.start, &slot);
            }
            return;
        }
        if is_in_one_leaf(range) {
            if let Some(leaf) = self.leaf_of(range.start) {
                self.visit_leaf(leaf.node, range, f, leaf.shared);
            }
            return;
        }
        self.look(range, f);
    }

    /// As [`Cursor::each`], to look only: nothing may be changed, and what is whole stays so.
    pub fn look(&mut self, range: PageRange, f: &mut impl FnMut(Vpn, &Slot<'_>)) {
        self.leave();
        self.look_below(self.root, TOP, range, f);
    }

    /// Visit each entry of `range` that is absent; all of it is in the leaf of the entry that was found last.
    #[inline]
    pub fn each_absent(&self, range: PageRange, f: &mut impl FnMut(Vpn, &Slot<'_>)) {
        let Some(Leaf { at, node, shared, .. }) = self.leaf else { return };
        debug_assert!(is_in_one_leaf(range) && range.start.0 >> 9 == at);
        let words = &self.frames.phys.words(node)[index(range.start, 0)..][..range.len() as usize];
        let node = self.frames.meta(node);
        for (page, word) in range.iter().zip(words) {
            if word.load(Acquire) == 0 {
                f(page, &Slot { word, node, shared });
            }
        }
    }

    fn look_below<F: FnMut(Vpn, &Slot<'_>)>(&self, node: Pfn, level: u32, range: PageRange, f: &mut F) {
        let mut page = range.start;
        while page < range.end {
            let Some(used) = self.skip(node, level, page, range.end) else { return };
            page = end_of(used, level).min(range.end);
            let part = PageRange::new(used, page);
            let word = self.frames.phys.word(node, index(used, level));
            let bits = word.load(Acquire);
            let Some(child) = self.child(bits) else { continue };
            if level > 1 {
                self.look_below(child, level - 1, part, f);
                continue;
            }
            let leaf = self.frames.meta(child);
            let shared = self.enter(word, bits, child, leaf);
            self.visit_leaf(child, part, f, shared);
            self.exit(leaf, shared);
        }
    }

    #[inline]
    pub(super) fn visit_leaf(
        &self,
        leaf: Pfn,
        range: PageRange,
        f: &mut impl FnMut(Vpn, &Slot<'_>),
        shared: bool,
    ) {
        let (words, node) = (self.frames.phys.words(leaf), self.frames.meta(leaf));
        each_used(words, node.blocks().0, range, |page, word| f(page, &Slot { word, node, shared }));
    }

    /// Whether the tables have no node below the root.
    pub fn is_empty(&self) -> bool {
        self.frames.meta(self.root).index() == 0
    }

    /// The first page of `range` whose entry is not absent.
    pub fn next_used(&self, range: PageRange) -> Option<Vpn> {
        debug_assert!(
            range.is_empty()
                || self.is_alone()
                || self.leaf.is_some_and(|leaf| leaf.at == range.start.0 >> 9)
        );
        self.seek(self.root, TOP, range, &|_, level| level == 0)
    }

    /// The first page of `range` that has a leaf with entries.
    pub fn next_leaf(&self, range: PageRange) -> Option<Vpn> {
        let in_use = |leaf: Pfn| self.frames.meta(leaf).index() > 0;
        // Most ranges begin where something is used.
        let link =
            self.node_above_leaf(range.start).map(|node| self.frames.phys.word(node, index(range.start, 1)));
        if !range.is_empty() && link.and_then(|link| self.child(link.load(Acquire))).is_some_and(in_use) {
            return Some(range.start);
        }
        self.seek(self.root, TOP, range, &|child, level| level == 1 && in_use(child))
    }

    /// The node that has the link to the leaf of `page`, if it is there.
    #[inline]
    pub(super) fn node_above_leaf(&self, page: Vpn) -> Option<Pfn> {
        let next = |node, level| entry::linked(self.frames.phys.word(node, index(page, level)).load(Acquire));
        (2..=TOP).rev().try_fold(self.root, next)
    }

    /// The first page of `range` whose way ends at an entry that `found` likes: it gets the node that the entry links to,
    /// and the level of the node that the entry is in.
    fn seek(&self, node: Pfn, level: u32, range: PageRange, found: &dyn Fn(Pfn, u32) -> bool) -> Option<Vpn> {
        let mut page = range.start;
        while page < range.end {
            page = self.skip(node, level, page, range.end)?;
            if level == 0 {
                return found(node, 0).then_some(page);
            }
            let end = end_of(page, level).min(range.end);
            let bits = self.frames.phys.word(node, index(page, level)).load(Acquire);
            if let Some(child) = self.child(bits) {
                if found(child, level) {
                    return Some(page);
                }
                let below = self.seek(child, level - 1, PageRange::new(page, end), found);
                if below.is_some() {
                    return below;
                }
            }
            page = end;
        }
        None
    }

    /// The first page from `page` on, below `end`, whose word in the node is not zero.
    #[inline]
    pub(super) fn skip(&self, node: Pfn, level: u32, page: Vpn, end: Vpn) -> Option<Vpn> {
        let (first, last) = (index(page, level), index(Vpn(end.0 - 1), level));
        let words = &self.frames.phys.words(node)[first..=last];
        let skipped = next_used(words, 0)?.0 as u64;
        if skipped == 0 {
            return Some(page);
        }
        let page = Vpn(((page.0 >> (9 * level)) + skipped) << (9 * level));
        (page < end).then_some(page)
    }
}

/// Each word for the pages of `range`, which is in one leaf, that is not zero; only those in `blocks` are looked at.
#[inline(always)]
pub(super) fn each_used(
    words: &[AtomicU64; 512],
    blocks: u32,
    range: PageRange,
    mut f: impl FnMut(Vpn, &AtomicU64),
) {
    let (first, last) = (index(range.start, 0), index(Vpn(range.end.0 - 1), 0));
    let mut blocks = blocks & (u32::MAX << (first / BLOCK)) & (u32::MAX >> (31 - last / BLOCK));
    while blocks != 0 {
        let block = blocks.trailing_zeros() as usize * BLOCK;
        blocks &= blocks - 1;
        let (from, to) = (block.max(first), (block + BLOCK - 1).min(last));
        let mut page = Vpn(range.start.0 - first as u64 + from as u64);
        for word in &words[from..=to] {
            if word.load(Acquire) != 0 {
                f(page, word);
            }
            page = page.add(1);
        }
    }
}

/// Each word of a leaf that is not zero, with its number; only those in `blocks` are looked at. For leaves of which little is used.
#[inline(always)]
pub(super) fn each_of_few(words: &[AtomicU64; 512], mut blocks: u32, mut f: impl FnMut(usize, &AtomicU64)) {
    while blocks != 0 {
        let block = blocks.trailing_zeros() as usize * BLOCK;
        blocks &= blocks - 1;
        let mut used = in_use(words, block);
        while used != 0 {
            let at = block + used.trailing_zeros() as usize;
            used &= used - 1;
            f(at, &words[at % 512]);
        }
    }
}

/// Which of the sixteen words from `block` on are not zero, a bit for each.
#[inline(always)]
fn in_use(words: &[AtomicU64; 512], block: usize) -> u32 {
    let words = words[block..][..BLOCK].iter().rev();
    let unused = words.fold(0, |bits, word| bits << 1 | (word.load(Acquire) == 0) as u32);
    !unused & ((1 << BLOCK) - 1)
}

/// The first word from number `at` on that is not zero, with its number. A stretch that is not in use costs an instruction a
/// word.
#[inline]
fn next_used(words: &[AtomicU64], mut at: usize) -> Option<(usize, &AtomicU64)> {
    let unused = |block: &[AtomicU64; BLOCK]| block.iter().fold(0, |all, word| all | word.load(Relaxed)) == 0;
    loop {
        let word = words.get(at)?;
        if word.load(Acquire) != 0 {
            return Some((at, word));
        }
        at += 1;
        while at.is_multiple_of(BLOCK) && words[at..].first_chunk().is_some_and(unused) {
            at += BLOCK;
        }
    }
}
