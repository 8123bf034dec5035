//! Huge pages: a leaf that the processor need not look into.
//!
//! Where all entries of a leaf would name 512 frames in a row, with the same rights, the entry above may name these frames
//! itself: 2 MiB by one translation, and one fault. The leaf stays behind it, filled in as if it were walked:
//!
//! ```text
//!   whole   upper [large: F] ----> frames F .. F+511        open   upper [link] ---> leaf [F][F+1] .. [F+511]
//!                    :                                                                 |   |          |
//!                    : (not walked)                                                 frames F .. F+511
//!                   leaf [F][F+1] .. [F+511]
//! ```
//!
//! So a huge page is no further kind of page. Its frames are 512 anonymous pages: each has its record, one map, and its
//! place on a list, and every sum and invariant holds as if nobody had joined them. And *opening* one takes no memory and no
//! decision, so it can be done wherever an entry is to be changed, also where the last frame has gone: the leaf that a split
//! needs was set aside when the page was made. The price is a frame for each 2 MiB, which small pages would take as well.
//!
//! A processor must never find one address by translations of both sizes. So who opens a leaf closes the way first (nobody
//! gets through), has all processors forget the space, and only then links to the leaf. Meanwhile his cursor is alone:
//! whoever faults there waits, and finds small pages.
//!
//! Which leaf is behind a large entry is kept by block of RAM ([`Frames::leaf_behind`]): a word for each 2 MiB. As only
//! pages that one space alone maps are ever whole (a fork opens them), the block tells its one leaf; and reclaim,
//! going by blocks, finds all huge pages without a walk.

use super::cursor::{Cursor, TOP, begin_node, end_of, index, is_in_one_leaf};
use super::entry::{self, Entry};
use super::gather::{Flushed, forget_all};
use super::slot::Slot;
use crate::Rights;
use crate::addr::{PageRange, Pfn, Vpn};
use crate::frame::{Frames, NoFrames, Priority};
use crate::mutant::mutant;
use core::sync::atomic::{AtomicU64, Ordering::*};

/// Pages of a leaf, and so of a huge page.
pub const PAGES: u64 = 512;

/// The leaf's worth of pages around one.
#[inline]
pub fn around(page: Vpn) -> PageRange {
    let first = Vpn(page.0 & !(PAGES - 1));
    PageRange::new(first, first.add(PAGES))
}

/// What is where the leaf of a page would be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Above {
    Nothing,
    Leaf,
    /// A leaf that the processor does not look into.
    Whole,
}

/// What is to be done with the entries of a leaf that is being opened: nobody can use them yet, nor could since the flush.
type Inspect<'a> = &'a mut dyn FnMut(Vpn, &Slot<'_>, &Flushed);

impl<'a> Cursor<'a> {
    /// What the entry above the page's leaf says.
    #[inline]
    pub fn above(&self, page: Vpn) -> Above {
        match self.upper(page).map_or(0, |word| word.load(Relaxed)) {
            0 => Above::Nothing,
            bits if entry::large_frame(bits).is_some() => Above::Whole,
            _ => Above::Leaf,
        }
    }

    /// Whether the page is part of a huge one.
    #[cold]
    pub fn is_whole(&self, page: Vpn) -> bool {
        self.above(page) == Above::Whole
    }

    /// Whether there is nothing where the leaf of the page would be.
    pub fn is_vacant(&self, page: Vpn) -> bool {
        self.above(page) == Above::Nothing
    }

    /// Whether every entry of the page's leaf is used, and the leaf is the space's own.
    pub fn is_full(&self, page: Vpn) -> bool {
        let Some(bits) = self.upper(page).map(|word| word.load(Relaxed)) else { return false };
        let own = !entry::is_guarded(bits);
        own && self.child(bits).is_some_and(|leaf| self.frames.meta(leaf).index() == PAGES)
    }

    /// Make a huge page of 512 frames in a row, whose records say already that they are this space's, at a place that is
    /// vacant.
    pub fn join(&mut self, page: Vpn, first: Pfn, rights: Rights) -> Result<(), NoFrames> {
        let page = around(page).start;
        debug_assert!(self.is_alone());
        self.leave();
        let above = self.grow(page, 1)?;
        // Not one of zeroes: all its entries are filled.
        let leaf = self.frames.alloc(self.cpu, Priority::Kernel)?;
        let leaf = begin_node(self.frames, leaf, self.tables.account());
        let mut bits = Entry::Present { frame: first, rights, accessed: true, dirty: true }.encode();
        // Sixteen at a turn: this is what making a huge page costs.
        for words in self.frames.phys.words(leaf).chunks_exact(16) {
            for word in words {
                word.store(bits, Relaxed);
                bits += 1 << 12;
            }
        }
        let meta = self.frames.meta(leaf);
        meta.set_index(PAGES);
        meta.set_blocks(u32::MAX, u32::MAX);
        self.frames.set_leaf_behind(first, Some(leaf));
        self.frames.meta(above).add_index();
        self.tables.whole.fetch_add(1, Relaxed);
        self.frames.phys.word(above, index(page, 1)).store(entry::large(first, rights), Release);
        Ok(())
    }

    /// Open every leaf that has a page in `range`.
    #[inline]
    pub fn open(&mut self, range: PageRange) {
        if self.tables.whole.load(Relaxed) != 0 {
            self.open_with(range, None);
        }
    }

    /// Open the leaf of the page, and have a look at each of its entries in between.
    pub fn open_and_inspect(&mut self, page: Vpn, inspect: Inspect<'_>) {
        self.open_with(around(page), Some(inspect));
    }

    #[cold]
    fn open_with(&mut self, range: PageRange, mut inspect: Option<Inspect<'_>>) {
        let mut any = false;
        self.each_whole(range, &mut |_, _| any = true);
        if !any {
            return;
        }
        self.alone();
        self.leave();
        let mut found = 0;
        self.each_upper(self.root, TOP, range, &mut |_, word| {
            let Some(first) = entry::large_frame(word.load(Relaxed)) else { return };
            let Some(leaf) = self.frames.leaf_behind(first) else { return };
            word.store(entry::closed_link(leaf), Release);
            self.frames.set_leaf_behind(first, None);
            found += 1;
        });
        if found == 0 {
            return;
        }
        self.tables.whole.fetch_sub(found, Relaxed);
        self.frames.opened.fetch_add(found as u64, Relaxed);
        let proof = mutant!(OpenWithoutFlush, Flushed::forged(), forget_all(self.above, self.tables));
        self.each_upper(self.root, TOP, range, &mut |page, word| {
            let Some(leaf) = entry::closed(word.load(Relaxed)) else { return };
            if let Some(inspect) = &mut inspect {
                self.visit_leaf(leaf, around(page), &mut |page, slot| inspect(page, slot, &proof), false);
            }
            word.store(entry::link(leaf), Release);
        });
    }

    /// Before a range is cleared: what it has a part of is opened, so that only leaves that lie in it wholly are still whole.
    /// False if there may be such.
    #[inline]
    pub(super) fn open_edges(&mut self, range: PageRange) -> bool {
        if self.tables.whole.load(Relaxed) == 0 || range.is_empty() {
            return true;
        }
        for edge in [around(range.start), around(Vpn(range.end.0 - 1))] {
            if !range.covers(&edge) {
                self.open_with(edge, None);
            }
        }
        !is_in_one_leaf(range) || !self.is_whole(range.start)
    }

    /// Of a leaf that is to be cleared: if it is whole, it is so no longer, and is to be unlinked. What its own entries name goes
    /// with it.
    #[inline]
    pub(super) fn forget_whole(&self, word: &AtomicU64) -> bool {
        let Some(first) = entry::large_frame(word.load(Relaxed)) else { return false };
        self.frames.set_leaf_behind(first, None);
        self.tables.whole.fetch_sub(1, Relaxed);
        true
    }

    /// The node that an upper entry leads to, or has behind it.
    #[inline]
    pub(super) fn child(&self, bits: u64) -> Option<Pfn> {
        entry::linked(bits).or_else(|| self.behind(bits))
    }

    #[cold]
    fn behind(&self, bits: u64) -> Option<Pfn> {
        entry::large_frame(bits).and_then(|first| self.frames.leaf_behind(first))
    }

    /// The entry's place in a leaf that had to be opened for it.
    #[cold]
    pub(super) fn find_in_whole(&mut self, page: Vpn) -> Option<Slot<'a>> {
        if self.tables.whole.load(Relaxed) == 0 {
            return None;
        }
        self.open_with(around(page), None);
        self.place(page)
    }

    /// The entry's place in a leaf that is whole, to look at only.
    #[cold]
    pub(super) fn peek(&mut self, page: Vpn) -> Option<Slot<'a>> {
        let leaf = self.behind(self.upper(page)?.load(Relaxed))?;
        Some(self.slot(leaf, page, false))
    }

    /// The entry of the node above the leaf.
    fn upper(&self, page: Vpn) -> Option<&'a AtomicU64> {
        let mut node = self.root;
        for level in (2..=TOP).rev() {
            node = entry::linked(self.frames.phys.word(node, index(page, level)).load(Acquire))?;
        }
        Some(self.frames.phys.word(node, index(page, 1)))
    }

    /// Each entry above a leaf that has a page in `range`, with such a page.
    fn each_upper(&self, node: Pfn, level: u32, range: PageRange, f: &mut dyn FnMut(Vpn, &AtomicU64)) {
        let mut page = range.start;
        while page < range.end {
            let Some(used) = self.skip(node, level, page, range.end) else { return };
            page = end_of(used, level).min(range.end);
            let word = self.frames.phys.word(node, index(used, level));
            if level == 1 {
                f(used, word);
            } else if let Some(child) = entry::linked(word.load(Relaxed)) {
                self.each_upper(child, level - 1, PageRange::new(used, page), f);
            }
        }
    }

    /// Each huge page that has a page in `range`: its first page, and its first frame.
    pub fn each_whole(&self, range: PageRange, f: &mut dyn FnMut(Vpn, Pfn)) {
        if self.tables.whole.load(Relaxed) == 0 {
            return;
        }
        self.each_upper(self.root, TOP, range, &mut |page, word| {
            if let Some(first) = entry::large_frame(word.load(Relaxed)) {
                f(around(page).start, first);
            }
        });
    }

    /// Whether the leaf behind a huge page says what the page is, for the audit.
    pub fn is_as_its_leaf(&self, page: Vpn, frames: &Frames) -> bool {
        let Some(bits) = self.upper(page).map(|word| word.load(Relaxed)) else { return false };
        let (Some(first), Some(leaf)) = (entry::large_frame(bits), self.behind(bits)) else { return false };
        let Entry::Present { rights, .. } = Entry::decode(bits) else { return false };
        first.0.is_multiple_of(PAGES as u32)
            && frames.meta(leaf).index() == PAGES
            && frames.phys.words(leaf).iter().enumerate().all(|(n, word)| {
                matches!(Entry::decode(word.load(Relaxed)), Entry::Present { frame, rights: r, dirty: true, .. }
                    if frame == first.add(n as u32) && r == rights)
            })
    }
}
