//! When a program gets a huge page, and how the machine gets it back.
//!
//! A program gets 2 MiB at the first write to a place where it has nothing yet, if its region has all of them and
//!
//! - it said that it wants them so (`MADV_HUGEPAGE`), or it has used the 2 MiB below, in this region, to the last page: who
//!   fills memory in order goes on doing so. What it gets unasked and does not use is then less than what it has used;
//! - frames are plentiful ([`crate::frame::Frames::has_blocks`]).
//!
//! Small programs, sparse ones, stacks and whatever begins at odd places stay in small pages, and are not larger than they were.
//!
//! The promise of this kernel is that programs run in less RAM than they need, so what a huge page holds beyond what is
//! used must never cost another page its place. Therefore reclaim evicts nothing while there is a huge page: it opens them
//! first, one by one, as far as frames are wanted. Of one that is opened, pages that hold nothing but zeroes are given back at
//! once: no slot, no write, as if they had never been touched. The others begin as not used, and what uses them
//! from there on tells hot from cold. So with little memory a program needs what it would need with small pages, or less.

use super::{Access, Backing, Region, RegionFlags, Space, Spaces, Stop};
use crate::account::Charge;
use crate::addr::{Pfn, USER_END, Vpn};
use crate::frame::BLOCK;
use crate::frame::lists::Arrival;
use crate::frame::meta::{Flags, State, Word};
use crate::lock::{Attentive, RelaxStrategy};
use crate::paging::huge::{Above, PAGES, around};
use crate::paging::{Cursor, Entry, Shootdown};
use crate::stats::HugeWish;
use crate::{Platform, Rights};
use core::sync::atomic::Ordering::*;

/// Huge pages that are opened in one step of reclaim, while that frees nothing.
const STEP: usize = 8;

impl<P: Platform> Spaces<P> {
    /// The page's leaf is not there, or whole. Either all is done with a huge page; or the cursor comes back, for a small one.
    #[cold]
    pub(super) fn touch_leaf<'a>(
        &'a self,
        space: &'a Space,
        region: &Region,
        page: Vpn,
        access: Access,
        mut cursor: Cursor<'a>,
    ) -> Result<Option<Cursor<'a>>, Stop> {
        // Rights of a whole leaf are the region's, as who changes one opens it. So another CPU was faster, or this one has no way there.
        let vacant = match cursor.above(page) {
            Above::Whole => {
                cursor.reach(page)?;
                return Ok(None);
            }
            above => above == Above::Nothing,
        };
        if !vacant
            || !access.write
            || !self.may_be_huge(space, region, page)
            || self.huge_wish.load(Relaxed) != HugeWish::Always as u8 && !wants_huge(region, page, &cursor)
        {
            return Ok(Some(cursor));
        }
        let Some((block, zeroed)) = self.frames.take_block() else { return Ok(Some(cursor)) };
        let mut cursor = match zeroed {
            true => cursor,
            false => {
                // Others may use the tables meanwhile. The region stays as it is.
                drop(cursor);
                self.zero_block(block);
                self.cursor(space, around(page))
            }
        };
        cursor.alone();
        if cursor.is_vacant(page) && self.join(space, region, page, block, &mut cursor) {
            return Ok(None);
        }
        self.frames.give_block(block);
        Ok(if cursor.is_whole(page) { None } else { Some(cursor) })
    }

    fn may_be_huge(&self, space: &Space, region: &Region, page: Vpn) -> bool {
        matches!(region.backing, Backing::Anonymous)
            && !region.flags.intersects(SMALL)
            && region.rights.contains(Rights::WRITE)
            && region.range.covers(&around(page))
            && !space.no_huge.load(Relaxed)
            && self.huge_wish.load(Relaxed) != HugeWish::Never as u8
            && self.frames.has_blocks()
    }

    fn zero_block(&self, block: Pfn) {
        for n in 0..BLOCK {
            self.frames.phys.zero(block.add(n));
            // It takes long, and others may wait for this CPU to forget something.
            if n % 32 == 31 {
                Attentive::relax();
            }
        }
    }

    /// The block becomes 512 anonymous pages of the space, and one entry. False where there is no frame for the leaf.
    fn join(&self, space: &Space, region: &Region, page: Vpn, block: Pfn, cursor: &mut Cursor<'_>) -> bool {
        // Before the frames are seen on a list: who finds one there waits for the cursor.
        if cursor.join(page, block, region.rights).is_err() {
            return false;
        }
        let word = Word::new(State::Anon, space.account, 1).with(Flags::DIRTY);
        let first = (word, space.family.id, around(page).start.0);
        self.frames.begin_block(self.cpu(), block, first, Arrival::Wanted);
        self.frames.accounts.charge(space.account, Charge::Resident, BLOCK);
        self.counters.huge.fetch_add(1, Relaxed);
        true
    }

    /// What a leaf names that nobody links to any more: if that is a block of frames as a huge page has them, and nobody has
    /// one of them in hand, give it back in one piece.
    pub(super) fn free_whole(&self, leaf: Pfn) -> bool {
        let words = self.frames.phys.words(leaf);
        let entry = |n: usize| words[n].load(Acquire);
        let Entry::Present { frame: first, .. } = Entry::decode(entry(0)) else { return false };
        let in_a_row = |n: usize| entry(n) == entry(0) + ((n as u64) << crate::PAGE_SHIFT);
        if !first.0.is_multiple_of(BLOCK) || !(1..PAGES as usize).all(in_a_row) {
            return false;
        }
        let payer = self.frames.meta(first).word().account();
        if !self.frames.end_block(first, Word::new(State::Anon, payer, 1).with(Flags::DIRTY)) {
            return false;
        }
        self.frames.accounts.uncharge(payer, Charge::Resident, BLOCK);
        self.frames.give_block(first);
        true
    }

    /// Open huge pages until that has freed something; how many frames. None where there is no huge page.
    pub fn open_some(&self) -> Option<u32> {
        let mut freed = None;
        for _ in 0..STEP {
            let Some(first) = self.frames.some_whole() else { break };
            let more = freed.unwrap_or(0) + self.open_block(first);
            freed = Some(more);
            if more > 0 {
                break;
            }
        }
        self.counters.reclaimed.fetch_add(freed.unwrap_or(0) as u64, Relaxed);
        freed
    }

    /// Open the huge page that begins with this frame, and free those of its pages that hold nothing but zeroes.
    fn open_block(&self, first: Pfn) -> u32 {
        let meta = self.frames.meta(first);
        let (page, family) = (Vpn(meta.index()), self.families.get(meta.owner()));
        // Nobody has to hold it: what its record says is a hint.
        let Some(family) = family.filter(|_| page < USER_END) else { return 0 };
        let mut freed = 0;
        for &(space, _) in family.members.lock().iter() {
            let Some(space) = self.spaces.get(space.0) else { continue };
            let mut cursor = self.cursor(&space, around(page));
            let mut here = false;
            cursor.each_whole(around(page), &mut |_, named| here = named == first);
            if !here {
                continue;
            }
            cursor.open_and_inspect(page, &mut |_, slot, proof| {
                slot.take_accessed();
                let Some(frame) = slot.frame() else { return };
                let word = self.frames.meta(frame).word();
                let ours = word.maps() == 1 && word.pins() == 0 && !word.any(Flags::IN_HAND | Flags::WIRED);
                if ours && self.frames.phys.same_filled(frame) == Some(0) {
                    slot.take(Entry::Absent);
                    self.unmapped(&[frame], proof);
                    freed += 1;
                }
            });
        }
        freed
    }
}

/// Whether the program has said, or shown, that it will use the 2 MiB around the page.
fn wants_huge(region: &Region, page: Vpn, cursor: &Cursor<'_>) -> bool {
    let below = Vpn(around(page).start.0.saturating_sub(PAGES));
    region.flags.contains(RegionFlags::HUGE) || region.range.start <= below && cursor.is_full(below)
}

/// Regions that have small pages only.
const SMALL: RegionFlags = RegionFlags::SHARED
    .union(RegionFlags::WATCHED)
    .union(RegionFlags::GUARDED)
    .union(RegionFlags::NO_HUGE)
    .union(RegionFlags::GROWS_DOWN)
    .union(RegionFlags::WIRED)
    .union(RegionFlags::DROPPABLE);
