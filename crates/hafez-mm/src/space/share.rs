//! A leaf of one's own: what comes before any change to entries that a fork has left shared.
//!
//! The copy of a leaf names the private pages that the old one names, so each frame counts a map more and each slot a
//! reference more. They may be written through neither from here on: the fault that follows copies the one page that is
//! wanted, or finds that its space has it alone (`fault.rs`). Pages of objects are left out: most who fork run little of the
//! program's text after, and what they want is found in the object.

use super::{Space, Spaces, Stop};
use crate::Platform;
use crate::addr::{PageRange, Vpn};
use crate::frame::meta::{Flags, MAX_MAPS, State};
use crate::mutant::mutant;
use crate::paging::share::Copied;
use crate::paging::{Cursor, Entry, Slot};

impl<P: Platform> Spaces<P> {
    /// See that the leaf that `page` is in is the space's own. Its translations are flushed, and the cursor is alone.
    #[cold]
    pub(super) fn own(&self, space: &Space, cursor: &mut Cursor<'_>, page: Vpn) -> Result<(), Stop> {
        if let Some(old) = cursor.own(page, &mut |slot| self.copy_entry(slot))? {
            let mut gather = self.gather(space, PageRange::new(page, page.add(1)));
            mutant!(OwnWithoutFlush, (), gather.all_pages());
            gather.leave_leaf(old);
            gather.flush();
        }
        Ok(())
    }

    /// What becomes of an entry in the copy of its leaf, counted.
    #[inline]
    fn copy_entry(&self, slot: &Slot<'_>) -> Copied {
        let Some(frame) = slot.frame() else { return self.copy_swapped(slot.raw()) };
        let meta = self.frames.meta(frame);
        let word = meta.word();
        match word.state() {
            // It is found in its object at the next fault, if it comes to that.
            State::File | State::Shared if !word.has(Flags::WIRED) => Copied::Nothing,
            State::Anon => {
                meta.add_map();
                Copied::Page
            }
            _ => self.copy_pinned(slot.raw()),
        }
    }

    /// An object's page that is locked in memory; or the page of zeroes.
    #[inline(never)]
    fn copy_pinned(&self, entry: Entry) -> Copied {
        let Entry::Present { frame, rights, .. } = entry else { return Copied::Nothing };
        let meta = self.frames.meta(frame);
        if frame != self.frames.zero {
            if meta.word().maps() >= MAX_MAPS {
                return Copied::Nothing;
            }
            meta.add_map();
        }
        Copied::As(Entry::fresh(frame, rights))
    }

    #[inline(never)]
    fn copy_swapped(&self, entry: Entry) -> Copied {
        let Entry::Swap { slot } = entry else { return Copied::Nothing };
        self.swap.add_ref(&self.frames, slot);
        Copied::As(entry)
    }

    /// See that no entry of the range is in a shared leaf. The caller keeps the space from being forked.
    #[inline]
    pub(super) fn own_range(
        &self,
        space: &Space,
        cursor: &mut Cursor<'_>,
        range: PageRange,
    ) -> Result<(), Stop> {
        while space.tables.may_share()
            && let Some(page) = cursor.next_shared(range)
        {
            self.own(space, cursor, page)?;
        }
        Ok(())
    }

    /// See that what is cleared of the range is not in a part of a shared leaf. Whole ones may be left to the others.
    pub(super) fn own_edges(
        &self,
        space: &Space,
        cursor: &mut Cursor<'_>,
        range: PageRange,
    ) -> Result<(), Stop> {
        let (first, last) = (Vpn((range.start.0 + 511) & !511), Vpn(range.end.0 & !511));
        if first > last {
            return self.own_range(space, cursor, range);
        }
        self.own_range(space, cursor, PageRange::new(range.start, first))?;
        self.own_range(space, cursor, PageRange::new(last, range.end))
    }
}
