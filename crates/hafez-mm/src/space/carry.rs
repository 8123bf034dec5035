//! Pages carried from one place of a space to another (`UFFDIO_MOVE`): who answers for missing pages has them in memory of his own,
//! and the page itself goes where it is missing, instead of a copy.
//!
//! An entry moves, not bytes, as with `mremap` (`remap`); but the regions stay as they are, the old place is empty from then on, and only a page
//! that nobody else has can go: a frame notes one number, and here no alias is kept. What is shared since a fork is refused; who writes to
//! it first makes it his own.
//!
//! All regions are held for writing and the cursor is alone, so that no fault finds the page in neither place.

use super::fault::without_write;
use super::watch::{PlaceError, Watched};
use super::{Backing, Region, RegionFlags, Space, Spaces, Stop};
use crate::addr::PageRange;
use crate::paging::Entry;
use crate::swap::Record;
use crate::{Platform, Rights};

/// What two places must agree in.
const ALIKE: RegionFlags = RegionFlags::WIRED;

impl<P: Platform> Spaces<P> {
    /// Whether pages of one range can be carried to the other, of as many pages: each lies in one region of private memory without a
    /// file, both can be written, and `to` is the watcher's.
    fn may_carry(&self, from: (&Region, PageRange), to: (&Region, PageRange), watcher: &Watched) -> bool {
        let private = |(region, range): (&Region, PageRange)| {
            region.range.covers(&range)
                && matches!(region.backing, Backing::Anonymous)
                && !region.is_shared()
                && region.rights.contains(Rights::WRITE)
        };
        private(from)
            && private(to)
            && from.0.rights == to.0.rights
            && from.0.flags & ALIKE == to.0.flags & ALIKE
            && to.0.watcher() == Some(watcher)
    }

    /// Carry the first page of `from` to the first of `to`, where one is missing. How it went; where `from` has none, so.
    pub fn carry(
        &self,
        space: &Space,
        from: PageRange,
        to: PageRange,
        watcher: &Watched,
    ) -> Result<Result<(), PlaceError>, Stop> {
        let both = PageRange::new(from.start.min(to.start), from.end.max(to.end));
        let regions = space.regions_mut(self, both)?;
        let (Some(source), Some(target)) = (regions.find(from.start), regions.find(to.start)) else {
            return Ok(Err(PlaceError::NotWatched));
        };
        if !self.may_carry((source, from), (target, to), watcher) {
            return Ok(Err(PlaceError::NotAlike));
        }
        let (old, new) = (from.start, to.start);
        let mut cursor = self.cursor_alone(space, both);
        for page in [old, new] {
            cursor.open(PageRange::new(page, page.add(1)));
            if cursor.make(page)?.is_shared() {
                self.own(space, &mut cursor, page)?;
            }
        }
        let place = cursor.make(new)?;
        if !place.is_absent() {
            return Ok(Err(PlaceError::Exists));
        }
        let slot = cursor.make(old)?;
        let entry = match slot.raw() {
            Entry::Absent => return Ok(Err(PlaceError::Nothing)),
            entry => entry,
        };
        if !self.is_alone_with(entry) {
            return Ok(Err(PlaceError::Shared));
        }
        let mut gather = self.gather(space, PageRange::new(old, old.add(1)));
        let carried = match slot.replace(Entry::Absent) {
            Entry::Present { frame, accessed, dirty, .. } => {
                gather.page(old);
                let rights = if frame == self.frames.zero || !self.is_exclusive(frame) {
                    without_write(target.rights)
                } else {
                    self.frames.meta(frame).set_index(new.0);
                    target.rights
                };
                Entry::Present { frame, rights, accessed, dirty }
            }
            Entry::Swap { slot } => {
                if let Some(Record { frame: Some(frame), .. }) = self.swap.record(&self.frames, slot) {
                    self.frames.meta(frame).set_index(new.0);
                }
                entry
            }
            Entry::Absent => Entry::Absent,
        };
        place.fill(carried);
        // Before the cursor goes: what was written through the old place is there when the new one is found.
        gather.flush();
        super::guard::forget_own(source, PageRange::new(old, old.add(1)));
        self.guard_new(target, new, false);
        Ok(Ok(()))
    }

    /// Whether nobody else has what the entry names, nor has it in hand: the page of zeroes is nobody's.
    fn is_alone_with(&self, entry: Entry) -> bool {
        match entry {
            Entry::Present { frame, .. } if frame == self.frames.zero => true,
            Entry::Present { frame, .. } => {
                self.is_exclusive(frame) && self.frames.meta(frame).word().pins() == 0
            }
            Entry::Swap { slot } => match self.swap.record(&self.frames, slot) {
                Some(Record { refs: 1, frame: None, .. }) => true,
                Some(Record { refs: 1, frame: Some(frame), .. }) => {
                    self.frames.meta(frame).word().maps() == 0
                }
                _ => false,
            },
            Entry::Absent => false,
        }
    }
}
