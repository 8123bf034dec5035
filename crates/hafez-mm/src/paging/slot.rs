//! One entry, at its place.
//!
//! While a cursor is at a leaf nobody but the processor changes the leaf's entries, and it only sets accessed and dirty bits in
//! present ones. So what may be present is changed by atomic exchange, and what the processor noted comes back with the
//! old value.
//!
//! The leaf's record tells by blocks of sixteen entries where some may be in use, and where some may be the space's own, not just an
//! object's pages that a fault finds again. So who goes through a leaf passes over what is empty, and who copies one for a fork
//! (`space/share.rs`) over the program's text. A bit may be set for nothing, as entries go; it is never missing.

use super::entry::{self, Entry};
use crate::Rights;
use crate::addr::Pfn;
use crate::frame::meta::FrameMeta;
use core::sync::atomic::{AtomicU64, Ordering::*};

/// Entries of a block.
pub(super) const BLOCK: usize = 16;

/// One entry under a cursor.
pub struct Slot<'a> {
    pub(super) word: &'a AtomicU64,
    pub(super) node: &'a FrameMeta,
    pub(super) shared: bool,
}

impl Slot<'_> {
    /// What the entry says. In a shared leaf no page may be written through it.
    #[inline]
    pub fn get(&self) -> Entry {
        match (Entry::decode(self.word.load(Acquire)), self.shared) {
            (Entry::Present { frame, rights, accessed, dirty }, true) => {
                Entry::Present { frame, rights: rights - Rights::WRITE, accessed, dirty }
            }
            (entry, _) => entry,
        }
    }
    /// The frame that the entry names.
    #[inline]
    pub fn frame(&self) -> Option<Pfn> {
        entry::named(self.word.load(Acquire))
    }
    /// What the entry says where the leaf is not guarded.
    #[inline]
    pub fn raw(&self) -> Entry {
        Entry::decode(self.word.load(Acquire))
    }
    #[inline]
    pub fn is_absent(&self) -> bool {
        self.word.load(Acquire) == 0
    }
    /// Whether the leaf that it is in belongs to other spaces too.
    #[inline]
    pub fn is_shared(&self) -> bool {
        self.shared
    }
    /// How many spaces' tables lead to it.
    pub fn sharers(&self) -> u32 {
        if self.shared { self.node.word().maps().max(1) } else { 1 }
    }
    /// Put another entry here; the one that stood here to the last, with the bits that the processor set.
    #[inline(always)]
    pub fn replace(&self, entry: Entry) -> Entry {
        debug_assert!(!self.shared || cfg!(feature = "mutants"), "an entry of others is replaced");
        self.take(entry)
    }
    /// As [`Slot::replace`] where the leaf may be shared: who calls it takes the page from all who share it, and flushes
    /// them all.
    #[inline(always)]
    pub fn take(&self, entry: Entry) -> Entry {
        let new = entry.encode();
        let old = self.word.swap(new, AcqRel);
        self.note(old, new);
        Entry::decode(old)
    }
    /// Give a present entry other rights. What the processor notes meanwhile stays in it: a mark that were taken over to the
    /// frame alone would be missed by a write-back that had looked there already.
    #[inline]
    pub fn set_rights(&self, rights: Rights) {
        debug_assert!(!self.shared, "an entry of others is changed");
        let _ = self.word.fetch_update(AcqRel, Acquire, |bits| entry::with_rights(bits, rights));
    }
    /// As [`Slot::replace`], where the same frame is named, and no right is taken that processors may still use.
    #[inline(always)]
    pub fn renew(&self, entry: Entry) {
        debug_assert!(!self.shared || cfg!(feature = "mutants"), "an entry of others is replaced");
        let old = self.word.swap(entry.encode(), AcqRel);
        debug_assert!(entry::named(old) == entry::named(entry.encode()));
    }
    /// As [`Slot::replace`], with nothing here while `flush` has all processors forget what was here. If they found the new
    /// entry before, one of them could write through it while another still reads the old page.
    #[inline]
    pub fn replace_after(&self, entry: Entry, flush: impl FnOnce(Entry)) {
        debug_assert!(!self.shared || cfg!(feature = "mutants"), "an entry of others is replaced");
        let old = self.word.swap(0, AcqRel);
        flush(Entry::decode(old));
        let new = entry.encode();
        self.word.store(new, Release);
        self.note(old, new);
    }
    /// Fill an entry that is absent or in swap, which the processor does not write to.
    #[inline(always)]
    pub fn fill(&self, entry: Entry) {
        let (old, new) = self.put(entry);
        self.note(old, new);
    }
    /// As [`Slot::fill`], with an object's page, which a fault would find again.
    #[inline(always)]
    pub fn fill_of_object(&self, entry: Entry) {
        let (old, new) = self.put(entry);
        self.count(old, new);
        let (used, own) = self.node.blocks();
        self.node.set_blocks(used | self.block(), own);
    }
    #[inline(always)]
    fn put(&self, entry: Entry) -> (u64, u64) {
        debug_assert!(!self.shared || cfg!(feature = "mutants"), "an entry of others is filled");
        let old = self.word.load(Relaxed);
        debug_assert!(!matches!(Entry::decode(old), Entry::Present { .. }));
        let new = entry.encode();
        self.word.store(new, Release);
        (old, new)
    }
    /// See that the leaf's record is right about this entry.
    #[inline(always)]
    fn note(&self, old: u64, new: u64) {
        self.count(old, new);
        if new != 0 {
            self.keep();
        }
    }
    /// What the entry says is not to be left out where the leaf is copied.
    #[inline(always)]
    pub fn keep(&self) {
        let (used, own) = self.node.blocks();
        self.node.set_blocks(used | self.block(), own | self.block());
    }
    /// The bit of the entry's block.
    #[inline(always)]
    fn block(&self) -> u32 {
        1 << (core::ptr::from_ref(self.word) as usize / (8 * BLOCK) % 32)
    }
    #[inline(always)]
    fn count(&self, old: u64, new: u64) {
        let change = (new != 0) as i64 - (old != 0) as i64;
        if change != 0 {
            self.node.set_index(self.node.index().wrapping_add_signed(change));
        }
    }
    /// Forget that the page was accessed through here; whether it had been. Stale translations may hide later
    /// accesses until the caller flushes.
    #[inline]
    pub fn take_accessed(&self) -> bool {
        if self.word.load(Relaxed) & entry::ACCESSED_BIT == 0 || !matches!(self.get(), Entry::Present { .. })
        {
            return false;
        }
        self.word.fetch_and(!entry::ACCESSED_BIT, AcqRel) & entry::ACCESSED_BIT != 0
    }
    /// Forget that the page was written through here; whether it had been. A stale translation would hide later
    /// writes: the caller flushes before it relies on the frame's bytes.
    #[inline]
    pub fn take_dirty(&self) -> bool {
        match self.get() {
            Entry::Present { dirty: true, .. } => {
                self.word.fetch_and(!entry::DIRTY_BIT, AcqRel) & entry::DIRTY_BIT != 0
            }
            _ => false,
        }
    }
}
