//! Pages that may just go (`MAP_DROPPABLE`).
//!
//! A program may say of memory that it can do without what is in it: caches, keys that can be made anew. Such a page is never
//! written to swap; when its turn comes it goes, and reads as zeroes the next time.
//!
//! Their turn comes with that of others without a file: where there is no swap, none of them is looked at.
//!
//! Whether a page is of that kind its region says, not its frame's record, in which no bit is free. Reclaim finds frames, not regions;
//! so here a region is looked up from below, as hints lead there, and only for spaces that ever had such a one. What makes this
//! right is the order: the region is held, then the entry's cursor, and while both are held the entry names the frame. A child has none of these
//! pages (they are wiped at fork), so the one entry is all there is.

use super::Reclaim;
use crate::Platform;
use crate::addr::{PageRange, Pfn, Vpn};
use crate::frame::meta::State;
use crate::paging::{Entry, Sweep};
use crate::space::{RegionFlags, Space, Spaces};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;

impl Reclaim {
    /// Take the page, whose frame is isolated, from its space, if that can do without it. The frame is free after the flush.
    #[cold]
    #[inline(never)]
    pub(super) fn discard<P: Platform>(
        &self,
        spaces: &Spaces<P>,
        frame: Pfn,
        sweep: &mut Sweep<'_, Spaces<P>>,
    ) -> bool {
        let meta = spaces.frames.meta(frame);
        let word = meta.word();
        if word.state() != State::Anon || word.maps() != 1 || meta.slot() != 0 {
            return false;
        }
        let page = Vpn(meta.index());
        let (Some(space), Some(range)) =
            (self.with_droppable(spaces, meta.owner(), word.account()), crate::space::map::user_page(page))
        else {
            return false;
        };
        let regions = space.regions(spaces.cpu(), page);
        let droppable = regions.find(page).is_some_and(|r| r.flags.contains(RegionFlags::DROPPABLE));
        if !droppable {
            return false;
        }
        let mut cursor = spaces.cursor(&space, range);
        cursor.open(PageRange::new(page, page.add(1)));
        let Some(slot) = cursor.find(page) else { return false };
        if slot.frame() != Some(frame) || slot.is_shared() || meta.word().maps() != 1 {
            return false;
        }
        slot.take(Entry::Absent);
        sweep.taken(&space.tables, page);
        meta.drop_map();
        true
    }

    /// The member of the family that pays with this account, if it has memory that it can do without.
    fn with_droppable<P: Platform>(
        &self,
        spaces: &Spaces<P>,
        family: u32,
        account: crate::AccountId,
    ) -> Option<Arc<Space>> {
        let family = spaces.families.get(family)?;
        let members = family.members.lock();
        let payers = members.iter().filter(|&&(_, payer)| payer == account);
        payers.filter_map(|&(space, _)| spaces.spaces.get(space.0)).find(|s| s.droppable.load(Relaxed))
    }
}
