//! Clearing a range: entries go, and with them the nodes that become empty.
//!
//! Only who is alone takes nodes away. What goes is told to a [`Visitor`], who sees to it that no CPU can still use it before anybody
//! else does.

use super::cursor::{Cursor, Leaf, TOP, end_of, index, is_in_one_leaf};
use super::entry::{self, Entry};
use super::look::each_used;
use super::views::SHARED;
use crate::addr::{PageRange, Pfn, USER_END, Vpn};
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicU64, Ordering::*};

/// Who goes along when a range is cleared.
pub trait Visitor {
    /// An entry was made absent; this is what it said to the last.
    fn cleared(&mut self, page: Vpn, was: Entry);
    /// A node that has become empty, or a shared leaf, was unlinked: to be let go of once no CPU can walk it any more.
    fn unlinked(&mut self, node: Pfn);
    /// Of a shared leaf a part was passed over in which nothing is used any more. What was may have been taken by way of another
    /// space, whose flush has not come to this one yet.
    fn passed(&mut self);
}

impl Cursor<'_> {
    /// Make the entries of `range` absent; who is alone unlinks the nodes that have become empty. A leaf that is shared or whole and
    /// lies in the range is unlinked as it is, and its entries are not visited; of a shared one that lies in it in part, nothing
    /// may be used there.
    pub fn clear(&mut self, range: PageRange, visitor: &mut impl Visitor) {
        self.expect(range);
        if self.open_edges(range) && is_in_one_leaf(range) {
            let leaf = self.leaf_of(range.start);
            if leaf.is_none_or(|leaf| !leaf.shared) {
                if leaf.is_some_and(|leaf| self.clear_leaf(leaf.node, range, visitor) > 0) {
                    return;
                }
                self.leave();
                if self.is_alone() {
                    self.prune(range.start, visitor);
                }
                return;
            }
        }
        self.leave();
        self.clear_below(self.root, TOP, range, visitor);
    }

    /// Make the entries of `range` absent if it lies in one leaf, which is the space's own; or do nothing. Whether it was done. The leaf
    /// stays, also if it has become empty.
    #[inline]
    pub fn clear_in_own(&mut self, range: PageRange, visitor: &mut impl Visitor) -> bool {
        if !is_in_one_leaf(range) {
            return false;
        }
        let Some(Leaf { node, shared: false, .. }) = self.leaf_of(range.start) else { return false };
        // Many a single page goes that was never touched.
        if range.len() != 1 || self.frames.phys.word(node, index(range.start, 0)).load(Acquire) != 0 {
            self.clear_leaf(node, range, visitor);
        }
        true
    }

    /// Make the entries of `range` absent in a leaf of the space's own. How many are left in it.
    #[inline]
    fn clear_leaf(&self, leaf: Pfn, range: PageRange, visitor: &mut impl Visitor) -> u64 {
        let (words, node) = (self.frames.phys.words(leaf), self.frames.meta(leaf));
        let mut left = node.index();
        each_used(words, node.blocks().0, range, |page, word| {
            left -= 1;
            visitor.cleared(page, Entry::decode(word.swap(0, AcqRel)));
        });
        node.set_index(left);
        if left == 0 {
            node.set_blocks(0, 0);
        }
        left
    }

    fn clear_below(&self, node: Pfn, level: u32, range: PageRange, visitor: &mut impl Visitor) {
        let mut page = range.start;
        while page < range.end {
            let Some(used) = self.skip(node, level, page, range.end) else { return };
            page = end_of(used, level).min(range.end);
            let part = PageRange::new(used, page);
            let word = self.frames.phys.word(node, index(used, level));
            let bits = word.load(Acquire);
            let Some(child) = self.child(bits) else { continue };
            let empty = match level {
                1 => self.clear_at(word, bits, child, part, visitor),
                _ => {
                    self.clear_below(child, level - 1, part, visitor);
                    self.frames.meta(child).index() == 0
                }
            };
            if empty && self.is_alone() {
                self.unlink(node, (level, used), word, child, visitor);
            }
        }
    }

    /// Clear a part of the leaf that this word of the node above leads to. Whether the leaf is to go.
    fn clear_at(
        &self,
        word: &AtomicU64,
        bits: u64,
        leaf: Pfn,
        part: PageRange,
        visitor: &mut impl Visitor,
    ) -> bool {
        if self.forget_whole(word) {
            return true;
        }
        let meta = self.frames.meta(leaf);
        let shared = self.enter(word, bits, leaf, meta);
        let empty = if shared {
            // It stays to the others as it is.
            let all = part.len() == 512;
            debug_assert!(all || self.skip(leaf, 0, part.start, part.end).is_none());
            if !all {
                visitor.passed();
            }
            all
        } else {
            self.clear_leaf(leaf, part, visitor) == 0
        };
        self.exit(meta, shared);
        empty
    }

    /// Unlink what has become empty on the way to `page`, from below.
    fn prune(&self, page: Vpn, visitor: &mut impl Visitor) {
        let mut way: ArrayVec<(u32, &AtomicU64, Pfn, Pfn), { TOP as usize }> = ArrayVec::new();
        let mut node = self.root;
        for level in (1..=TOP).rev() {
            let word = self.frames.phys.word(node, index(page, level));
            let Some(child) = entry::linked(word.load(Relaxed)) else { break };
            way.push((level, word, node, child));
            node = child;
        }
        for (level, word, node, child) in way.into_iter().rev() {
            if self.frames.meta(child).index() > 0 {
                return;
            }
            self.unlink(node, (level, page), word, child, visitor);
        }
    }

    /// Take away the link at this word of a node of `level`, which is for the page. Nobody else is in these tables.
    fn unlink(
        &self,
        node: Pfn,
        (level, page): (u32, Vpn),
        word: &AtomicU64,
        child: Pfn,
        visitor: &mut impl Visitor,
    ) {
        debug_assert!(self.is_alone());
        word.store(0, Release);
        if level == SHARED {
            self.cut_off(page);
        }
        let meta = self.frames.meta(node);
        meta.set_index(meta.index() - 1);
        visitor.unlinked(child);
    }

    /// Unlink the nodes that are empty; of the leaves those that nothing is used in.
    pub fn tidy(&mut self, visitor: &mut impl Visitor) {
        self.alone();
        self.leave();
        self.tidy_below(self.root, TOP, PageRange::new(Vpn(0), USER_END), visitor);
    }

    fn tidy_below(&self, node: Pfn, level: u32, range: PageRange, visitor: &mut impl Visitor) {
        let mut page = range.start;
        while page < range.end {
            let Some(used) = self.skip(node, level, page, range.end) else { return };
            page = end_of(used, level).min(range.end);
            let word = self.frames.phys.word(node, index(used, level));
            let Some(child) = entry::linked(word.load(Acquire)) else { continue };
            if level > 1 {
                self.tidy_below(child, level - 1, PageRange::new(used, page), visitor);
            }
            if self.frames.meta(child).index() == 0 {
                self.unlink(node, (level, used), word, child, visitor);
            }
        }
    }
}
