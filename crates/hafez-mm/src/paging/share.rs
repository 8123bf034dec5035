//! Leaves that several spaces share: what makes a fork cost by the table, not by the page.
//!
//! ```text
//!   fork          parent --guarded--> leaf <--guarded-- child        neither writes through its link, so no page below
//!   write fault   parent --guarded--> leaf     own leaf <-- child    copied: its pages have a map more each, and may be
//!                                                                    written by neither; the fault then goes on as usual
//!   one left      parent ----------> leaf                            the next walk finds it alone, and takes the guard off
//! ```
//!
//! A *guarded* link lacks the right to write, and the processor applies that to all below. So the entries keep theirs: where
//! the child execs, exits or never touches what lies there, the parent has every page back as it was, for one walk.
//!
//! An entry of a shared leaf is one entry: its frame counts one map for it, its slot one reference, however many spaces
//! come by it. The links to the leaf are counted in its record (`maps`). They grow only by who is alone in a space that has
//! one, so a space that finds itself alone stays so. While there are several the leaf's own lock orders what is done
//! through them. Who unlinks it lets go of it after a flush, and the last one lets go of what the entries name.

use super::cursor::{Cursor, Leaf, index, is_in_one_leaf, new_node};
use super::entry::{self, Entry};
use super::look::each_of_few;
use super::slot::Slot;
use crate::addr::{PageRange, Pfn, Vpn};
use crate::frame::{Frames, NoFrames};
use crate::mutant::mutant;
use core::sync::atomic::{AtomicU64, Ordering::*};

/// What a leaf's copy has for an entry.
pub enum Copied {
    /// Nothing: a fault finds it again.
    Nothing,
    /// The same private page, which may be written through neither from now on.
    Page,
    /// This.
    As(Entry),
}

impl Slot<'_> {
    /// The leaf that it is in, for the audit.
    pub fn leaf(&self, frames: &Frames) -> Pfn {
        frames.phys.frame_of(self.word)
    }

    /// Take the right to write, if the entry has it. Nobody has used it: the guards forbade that. What the entry is for another
    /// user.
    #[inline(always)]
    fn forbid_write(&self) -> u64 {
        let bits = self.word.load(Relaxed);
        if mutant!(SharersMayWrite, false, entry::is_writable(bits)) {
            self.word.fetch_and(!entry::WRITE_BIT, AcqRel);
        }
        entry::inherited(bits)
    }
}

impl Cursor<'_> {
    /// At what a guarded link leads to: whether others link to it too; it is locked then. If not, the guard is taken off.
    #[cold]
    pub(super) fn enter_guarded(&self, link: &AtomicU64, leaf: Pfn) -> bool {
        let meta = self.frames.meta(leaf);
        if meta.word().maps() > 1 {
            // Who is not alone holds it already.
            if !self.is_alone() {
                return true;
            }
            meta.lock_leaf();
            if meta.word().maps() > 1 {
                return true;
            }
            meta.unlock_leaf();
        }
        // Others of this space may do the same now: no link of it changes otherwise while its shape is read.
        link.store(entry::link(leaf), Release);
        false
    }

    /// Have `child` link to each leaf of `range` too; all of them have one node above. Whether processors may still write
    /// through one of them, until the caller has flushed all of this space.
    pub fn share(&mut self, range: PageRange, child: &mut Cursor<'_>) -> Result<bool, NoFrames> {
        self.leave();
        child.leave();
        let Some(ours) = self.node_above_leaf(range.start) else { return Ok(false) };
        let theirs = child.grow(range.start, 1)?;
        let (links, their_links) = (self.frames.phys.words(ours), self.frames.phys.words(theirs));
        let (mut shared, mut writable) = (0, false);
        for at in index(range.start, 1)..=index(Vpn(range.end.0 - 1), 1) {
            let bits = links[at].load(Relaxed);
            let Some(leaf) = entry::linked(bits) else { continue };
            if self.frames.meta(leaf).index() == 0 {
                continue;
            }
            self.frames.meta(leaf).add_map();
            their_links[at].store(entry::guarded_link(leaf), Release);
            links[at].store(entry::guarded_link(leaf), Release);
            shared += 1;
            writable |= !entry::is_guarded(bits);
        }
        let above = self.frames.meta(theirs);
        above.set_index(above.index() + shared);
        self.tables.forked.store(true, Relaxed);
        child.tables.forked.store(true, Relaxed);
        Ok(writable)
    }

    /// Put a leaf of the space's own in place of the shared one that `page` is in, if it is. `copy` tells what becomes of each entry
    /// that may name more than an object's page, and has counted it. The old leaf, for the gather: ways through it may be cached until the whole space is
    /// flushed. The cursor is alone then.
    #[cold]
    pub fn own(
        &mut self,
        page: Vpn,
        copy: &mut impl FnMut(&Slot<'_>) -> Copied,
    ) -> Result<Option<Pfn>, NoFrames> {
        self.alone();
        let Some(Leaf { at, node: old, shared: true, .. }) = self.leaf_of(page) else { return Ok(None) };
        let first = Vpn(at << 9);
        let new = new_node(self.frames, self.cpu, self.tables.account())?;
        let (node, new_node) = (self.frames.meta(old), self.frames.meta(new));
        let (words, new_words) = (self.frames.phys.words(old), self.frames.phys.words(new));
        let (_, own) = node.blocks();
        let mut used = 0;
        each_of_few(words, own, |at, word| {
            let slot = Slot { word, node, shared: true };
            let new = match copy(&slot) {
                Copied::Nothing => return,
                Copied::Page => slot.forbid_write(),
                Copied::As(entry) => entry.encode(),
            };
            new_words[at].store(new, Relaxed);
            used += 1;
        });
        new_node.set_index(used);
        new_node.set_blocks(own, own);
        let above = self.grow(first, 1)?;
        self.frames.phys.word(above, index(first, 1)).store(entry::link(new), Release);
        self.leave();
        let meta = self.frames.meta(new);
        self.leaf = Some(Leaf { at, node: new, meta, shared: false, locked: false });
        Ok(Some(old))
    }

    /// The first page of `range` that has an entry in a leaf that is shared.
    #[inline(always)]
    pub fn next_shared(&mut self, range: PageRange) -> Option<Vpn> {
        // Most ranges lie in one leaf, which is the space's own.
        if is_in_one_leaf(range) && !self.leaf_of(range.start)?.shared {
            return None;
        }
        self.look_for_shared(range)
    }

    #[inline(never)]
    fn look_for_shared(&mut self, range: PageRange) -> Option<Vpn> {
        let mut from = range.start;
        while let Some(page) = self.next_used(PageRange::new(from, range.end)) {
            if self.find(page).is_some_and(|slot| slot.is_shared()) {
                return Some(page);
            }
            from = Vpn(((page.0 >> 9) + 1) << 9);
        }
        None
    }

    /// Each leaf, for the audit.
    pub fn each_leaf(&self, f: &mut dyn FnMut(Pfn)) {
        let links = |node: Pfn, count: usize| {
            let words = self.frames.phys.words(node)[..count].iter();
            words.filter_map(|word| self.child(word.load(Acquire)))
        };
        for third in links(self.root, 256) {
            for second in links(third, 512) {
                links(second, 512).for_each(&mut *f);
            }
        }
    }
}

/// Each entry that is used in a leaf that nobody links to any more.
pub fn each_left(frames: &Frames, leaf: Pfn, f: &mut dyn FnMut(Entry)) {
    for word in frames.phys.words(leaf) {
        match word.load(Acquire) {
            0 => {}
            bits => f(Entry::decode(bits)),
        }
    }
}
