//! Guarded pages: a program is told before it writes to some of its pages (`userfaultfd`'s write protection).
//!
//! Which pages are guarded is not in the entries: those come and go with reclaim. The watcher keeps a set of them ([`Guarded`]), and a
//! region says whether one has to look there. So the one rule is that *an entry of a guarded page never has the right to write*:
//!
//! ```text
//!   guard:      cursor on the pages -> in the set -> the right to write taken from their entries -> flush
//!   a fault:    cursor on the page  -> in the set, and a write?  ask, as for a missing page
//!                                   -> else as ever, but whatever maps more than the one page maps without the right
//!   let go:     cursor on the pages -> out of the set; the next write finds out what its page may be
//! ```
//!
//! The set changes under a cursor on its pages, as entries do, so no fault acts on a set that is no longer so.
//!
//! A watcher may be one that asks nobody, but only wants to know later ([`super::watch::Watcher::only_notes`]): then the first write
//! takes the page out of the set, and that is all.
//!
//! Of private memory only pages that are there are guarded, unless the program wants the others, too; of shared memory all: they may be there
//! by way of somebody else's mapping.

use super::fault::{Look, ask, without_write};
use super::{Access, Backing, Region, RegionFlags, Space, Spaces, Stop};
use crate::addr::{PageRange, Vpn};
use crate::lock::Mutex;
use crate::paging::Entry;
use crate::{MmError, Platform, Rights};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, btree_map};

/// Pages of one piece of the set.
const PIECE: u64 = 4096;
const WORDS: usize = PIECE as usize / 64;

/// A set of pages of one space. Its pieces are made before a cursor is there, as they take memory; they go with the set.
#[derive(Default)]
pub struct Guarded(Mutex<BTreeMap<u64, Box<[u64; WORDS]>>>);

impl Guarded {
    /// Bytes that a piece takes, with what leads to it.
    const COST: usize = 2 * size_of::<[u64; WORDS]>();

    /// Whether all pages of the range can be in it. `room` says whether the heap has so many bytes.
    pub(super) fn prepare(&self, range: PageRange, room: &dyn Fn(usize) -> bool) -> bool {
        let last = (range.end.0 - 1) / PIECE;
        (range.start.0 / PIECE..=last).all(|number| {
            let mut pieces = self.0.lock();
            if let btree_map::Entry::Vacant(place) = pieces.entry(number) {
                if !room(Self::COST) {
                    return false;
                }
                place.insert(Box::new([0; WORDS]));
            }
            true
        })
    }

    /// Put the pages in, as far as there are pieces; or take them out.
    pub(super) fn put(&self, range: PageRange, on: bool) {
        let mut pieces = self.0.lock();
        for page in range.iter() {
            let Some(piece) = pieces.get_mut(&(page.0 / PIECE)) else { continue };
            let (word, bit) = (&mut piece[(page.0 % PIECE) as usize / 64], 1 << (page.0 % 64));
            *word = if on { *word | bit } else { *word & !bit };
        }
    }

    /// None of these is guarded any more.
    pub(super) fn clear(&self, range: PageRange) {
        let mut pieces = self.0.lock();
        if range.is_empty() || pieces.is_empty() {
            return;
        }
        for (&number, piece) in pieces.range_mut(range.start.0 / PIECE..=(range.end.0 - 1) / PIECE) {
            let here = PageRange::new(Vpn(number * PIECE), Vpn((number + 1) * PIECE));
            for page in here.intersect(&range).iter() {
                piece[(page.0 % PIECE) as usize / 64] &= !(1 << (page.0 % 64));
            }
        }
    }

    pub fn has(&self, page: Vpn) -> bool {
        let pieces = self.0.lock();
        let piece = pieces.get(&(page.0 / PIECE));
        piece.is_some_and(|piece| piece[(page.0 % PIECE) as usize / 64] >> (page.0 % 64) & 1 != 0)
    }
}

/// Pages of private memory that are thrown away are not guarded any more.
#[inline]
pub(super) fn forget_own(region: &Region, range: PageRange) {
    if region.flags.contains(RegionFlags::GUARDED) && !region.is_shared() {
        forget(region, range);
    }
}

#[cold]
fn forget(region: &Region, range: PageRange) {
    if let Some(watcher) = region.watcher() {
        watcher.0.guarded().clear(range);
    }
}

impl<P: Platform> Spaces<P> {
    /// Guard the pages of the range, or let them go; `absent`: also private ones that are not there. What is not watched for that is an
    /// error, once one comes to it.
    pub fn guard(&self, space: &Space, range: PageRange, on: bool, absent: bool) -> Result<(), Stop> {
        let mut some = false;
        for (regions, range) in space.parts(self.cpu(), range) {
            for region in regions.within(range) {
                some = true;
                self.guard_region(space, region, region.range.intersect(&range), on, absent)?;
            }
        }
        if some { Ok(()) } else { Err(MmError::NotMapped.into()) }
    }

    /// Each guarded page of the range.
    pub fn each_guarded(&self, space: &Space, range: PageRange, tell: &mut dyn FnMut(Vpn)) {
        for (regions, range) in space.parts(self.cpu(), range) {
            for region in regions.within(range).filter(|region| region.flags.contains(RegionFlags::GUARDED)) {
                let Some(watcher) = region.watcher() else { continue };
                let pages = region.range.intersect(&range);
                pages.iter().filter(|&page| watcher.0.guarded().has(page)).for_each(&mut *tell);
            }
        }
    }

    fn guard_region(
        &self,
        space: &Space,
        region: &Region,
        part: PageRange,
        on: bool,
        absent: bool,
    ) -> Result<(), Stop> {
        let watched = region.flags.contains(RegionFlags::GUARDED);
        let Some(watcher) = region.watcher().filter(|_| watched) else {
            return Err(MmError::NotMapped.into());
        };
        let guarded = watcher.0.guarded();
        if on && !guarded.prepare(part, &|bytes| self.platform.headroom(bytes)) {
            return Err(MmError::NoMemory.into());
        }
        let mut cursor = self.cursor(space, part);
        if !on {
            guarded.clear(part);
            return Ok(());
        }
        // No fork comes in between: the regions are held.
        self.own_range(space, &mut cursor, part)?;
        if absent || region.is_shared() {
            guarded.put(part, true);
        }
        let mut gather = self.gather(space, part);
        cursor.each(part, &mut |page, slot| {
            guarded.put(PageRange::new(page, page.add(1)), true);
            if let Entry::Present { rights, .. } = slot.get()
                && rights.contains(Rights::WRITE)
            {
                slot.set_rights(without_write(rights));
                gather.page(page);
            }
        });
        gather.flush();
        Ok(())
    }

    /// A page was put there: guarded from the start, or not. The cursor is on it.
    pub(super) fn guard_new(&self, region: &Region, page: Vpn, on: bool) {
        if let Some(watcher) = region.watcher() {
            watcher.0.guarded().put(PageRange::new(page, page.add(1)), on);
        }
    }

    /// Room in the set, before a cursor is there.
    pub(super) fn room_to_guard(&self, region: &Region, page: Vpn) -> bool {
        region.watcher().is_some_and(|watcher| {
            let range = PageRange::new(page, page.add(1));
            watcher.0.guarded().prepare(range, &|bytes| self.platform.headroom(bytes))
        })
    }

    /// As the fault's look, in a region whose pages may be guarded.
    #[cold]
    #[inline(never)]
    pub(super) fn look_guarded(
        &self,
        space: &Space,
        region: &Region,
        page: Vpn,
        access: Access,
        brought: PageRange,
    ) -> Result<Look, Stop> {
        let one = PageRange::new(page, page.add(1));
        let cursor = &mut self.cursor(space, one);
        cursor.open(one);
        if cursor.make(page)?.is_shared() {
            self.own(space, cursor, page)?;
        }
        let slot = cursor.make(page)?;
        let entry = slot.raw();
        let mut guarded = region.watcher().is_some_and(|watcher| watcher.0.guarded().has(page));
        let anonymous = matches!(region.backing, Backing::Anonymous);
        if entry == Entry::Absent && anonymous && region.flags.contains(RegionFlags::WATCHED) {
            return Ok(ask(region));
        }
        if access.write
            && guarded
            && let Some(watcher) = region.watcher().filter(|watcher| watcher.0.only_notes())
        {
            watcher.0.guarded().clear(one);
            guarded = false;
        }
        // What is missing is asked for first, when one comes to the object.
        if access.write && guarded && (anonymous || entry != Entry::Absent) {
            let watcher = region.watcher().cloned();
            return Ok(watcher.map_or(Look::Done, |watcher| Look::Tell { watcher }));
        }
        let mut readable = region.clone();
        readable.rights = without_write(region.rights);
        match entry {
            Entry::Absent => match &region.backing {
                Backing::Anonymous if access.write => self.new_page(space, region, page, &slot),
                Backing::Anonymous => {
                    self.map_zero(region, &slot);
                    Ok(Look::Done)
                }
                Backing::Object { object, .. } => {
                    let read = Access { write: false, ..access };
                    self.map_object(space, &readable, object, page, cursor, read)
                }
            },
            Entry::Swap { slot } => self.map_swapped(space, &readable, page, slot, cursor, brought),
            Entry::Present { frame, rights, .. } => {
                let writable = rights.contains(Rights::WRITE);
                if access.write && !writable {
                    self.write_protected(space, region, page, frame, &slot)
                } else {
                    self.restore(
                        space,
                        if writable { region } else { &readable },
                        page,
                        rights,
                        (&slot, cursor),
                    )
                }
            }
        }
    }
}
