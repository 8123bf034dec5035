//! Letting go: of an entry, a frame, a slot, an object's page.
//!
//! ```text
//!   entry --clear--> gather --flush--> frame has a map fewer
//!                                        still held?    stays where it is
//!                                        only by a swap cache that no entry names?   leaves it, and the slot is freed
//!                                        not held       off its list, uncharged, free
//! ```

use super::{Space, Spaces};
use crate::Platform;
use crate::account::Charge;
use crate::addr::{Pfn, Vpn};
use crate::frame::meta::{Flags, FrameMeta, State, Word};
use crate::object::{Object, Place};
use crate::paging::share::each_left;
use crate::paging::{Entry, Flush, Flushed, Gather, Shootdown, Slot};
use arrayvec::ArrayVec;
use core::sync::atomic::Ordering::*;

impl<P: Platform> Shootdown for Spaces<P> {
    fn flush(&self, flush: &Flush<'_>) {
        self.platform.flush(flush);
    }

    fn unmapped(&self, frames: &[Pfn], _: &Flushed) {
        let mut free: ArrayVec<Pfn, 64> = ArrayVec::new();
        for &frame in frames {
            let word = self.frames.meta(frame).drop_map();
            if !word.is_unheld() {
                if word.maps() == 0 {
                    self.let_go(frame, word);
                }
                continue;
            }
            if free.is_full() {
                self.free_pages(&free);
                free.clear();
            }
            free.push(frame);
        }
        self.free_pages(&free);
    }

    fn abandoned(&self, leaf: Pfn, proof: &Flushed) {
        if self.free_whole(leaf) {
            return;
        }
        each_left(&self.frames, leaf, &mut |entry| match entry {
            Entry::Swap { slot } => self.drop_slot(slot),
            Entry::Present { frame, dirty, .. } if frame != self.frames.zero => {
                if dirty {
                    self.mark_dirty(frame);
                }
                self.unmapped(&[frame], proof);
            }
            _ => {}
        });
    }
}

impl<P: Platform> Spaces<P> {
    /// Make the entry absent, into the gather.
    #[inline(always)]
    pub(crate) fn clear_entry(&self, slot: &Slot<'_>, page: Vpn, gather: &mut Gather<'_, Self>) {
        self.forget_entry(slot.take(Entry::Absent), page, gather);
    }

    /// This was said of the page, and is not any more.
    #[inline(always)]
    pub(crate) fn forget_entry(&self, was: Entry, page: Vpn, gather: &mut Gather<'_, Self>) {
        match was {
            Entry::Present { frame, dirty, .. } => self.forget_map(frame, page, dirty, gather),
            Entry::Swap { slot } => self.drop_slot(slot),
            Entry::Absent => {}
        }
    }

    /// An entry that named the frame has been overwritten.
    #[inline(always)]
    pub(crate) fn forget_map(&self, frame: Pfn, page: Vpn, dirty: bool, gather: &mut Gather<'_, Self>) {
        if frame == self.frames.zero {
            return gather.page(page);
        }
        if dirty {
            self.mark_dirty(frame);
        }
        gather.drop_frame(page, frame);
    }

    /// The frame's bytes differ from what stands behind them.
    #[inline(always)]
    pub(crate) fn mark_dirty(&self, frame: Pfn) {
        let meta = self.frames.meta(frame);
        if !meta.word().has(Flags::DIRTY) {
            self.note_dirty(meta);
        }
    }

    #[cold]
    fn note_dirty(&self, meta: &FrameMeta) {
        let before = meta.set(Flags::DIRTY);
        if before.state() == State::File
            && let Some(object) = self.objects.get(meta.owner())
        {
            object.dirtied.fetch_add(1, AcqRel);
        }
    }

    /// A hold was dropped, and this is the word that it left.
    pub(crate) fn let_go(&self, frame: Pfn, word: Word) {
        if word.is_unheld() {
            return self.free_page(frame);
        }
        // Who locked it has gone, or it would be mapped.
        if word.has(Flags::WIRED) && word.maps() == 0 {
            self.set_wired(frame, false);
        }
        if word.state() == State::Anon && word.has(Flags::CACHED) && !word.any(Flags::IN_HAND) {
            self.leave_swap_cache(frame);
        }
    }

    /// Take the frame out of the swap cache if no entry names its slot; it is freed if nothing else holds it.
    fn leave_swap_cache(&self, frame: Pfn) {
        if self.swap.uncache_unnamed(&self.frames, frame).is_some_and(Word::is_unheld) {
            self.free_page(frame);
        }
    }

    /// An entry that named the slot is gone.
    pub(crate) fn drop_slot(&self, slot: u32) {
        if let Some(frame) = self.swap.drop_ref(&self.frames, slot) {
            let word = self.frames.meta(frame).word();
            if word.maps() == 0 && !word.any(Flags::IN_HAND) {
                self.leave_swap_cache(frame);
            }
        }
    }

    /// Free a page's frame that nothing holds.
    pub(crate) fn free_page(&self, frame: Pfn) {
        self.free_pages(&[frame]);
    }

    /// Free pages' frames that nothing holds.
    fn free_pages(&self, frames: &[Pfn]) {
        let Some(&first) = frames.first() else { return };
        // Most that go together were paid for by one process.
        let (mut paid, mut pages) = (self.frames.meta(first).word(), 0);
        for &frame in frames {
            let meta = self.frames.meta(frame);
            let word = meta.word();
            // A shared object's page that left the page map while it was held.
            if meta.slot() != 0 {
                self.swap.uncache(&self.frames, meta.slot());
                meta.set_slot(0);
            }
            if !word.is_paid_as(paid) {
                self.uncharge(paid, pages);
                (paid, pages) = (word, 0);
            }
            pages += 1;
        }
        self.uncharge(paid, pages);
        self.frames.lists.end_all(self.frames.table(), frames);
        self.frames.give_idle(self.cpu(), frames);
    }

    /// So many pages go that were paid for as this one.
    #[inline(always)]
    fn uncharge(&self, page: Word, pages: u32) {
        match page.state() {
            State::File => self.frames.accounts.uncharge(page.account(), Charge::File, pages),
            _ => self.frames.accounts.uncharge_pages(self.cpu(), page.account(), pages),
        }
    }

    /// An object's page is no longer in its page map: free it, or leave that to the last who holds it.
    pub(crate) fn release_place(&self, place: Place) {
        match place {
            Place::Nowhere => {}
            Place::Swap(slot) => self.drop_slot(slot),
            Place::Frame(frame) => {
                let meta = self.frames.meta(frame);
                self.swap.uncache_cut(&self.frames, frame);
                if meta.release(Flags::CACHED).is_unheld() {
                    self.free_page(frame);
                }
            }
        }
    }

    /// Unmap the object's page from every space that maps it.
    pub(crate) fn unmap_everywhere(&self, object: &Object, index: u64, frame: Pfn) {
        for mapping in object.mappings.lock().keys() {
            let Some(space) = self.spaces.get(mapping.space.0) else { continue };
            self.unmap_if_names(&space, Vpn(index.wrapping_add(mapping.delta)), frame);
        }
    }

    fn unmap_if_names(&self, space: &Space, page: Vpn, frame: Pfn) {
        let Some(range) = super::map::user_page(page) else { return };
        let mut gather = self.gather(space, range);
        let mut cursor = self.cursor(space, range);
        if let Some(slot) = cursor.find(page) {
            if matches!(slot.get(), Entry::Present { frame: f, .. } if f == frame) {
                self.clear_entry(&slot, page, &mut gather);
            } else if space.tables.may_share() {
                // It may have been cleared by way of another space, which has since left the leaf, and whose flush was not
                // for this one.
                gather.page(page);
            }
        }
        gather.flush();
    }

    /// Free all pages of an object that no inode and no mapping refers to any more.
    pub(crate) fn free_object(&self, object: &Object) {
        if object.ending.swap(true, AcqRel) {
            return;
        }
        loop {
            let next = {
                let mut pages = object.pages.lock();
                let Some((index, _)) = pages.next(0) else { break };
                pages.set(index, Place::Nowhere)
            };
            self.release_place(next);
        }
        self.objects.remove(object.id);
    }
}
