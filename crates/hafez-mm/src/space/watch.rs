//! Watched memory: a program brings in the pages of its own regions (`userfaultfd`).
//!
//! A region may have a [`Watcher`]. A fault that finds nothing where such a region has a page does not make one: it asks the
//! watcher, who tells the program, and waits until he says to look again. The program puts the page there by a call of its own
//! ([`Spaces::place_page`]), which fails if one is there already, so that of two answers to one question the first stands.
//!
//! ```text
//!   fault:    look: absent, watched -> (all locks dropped) -> missing()  -- asks, waits --> look again: present
//!   another:                                    read the question -> place_page -> wake
//! ```
//!
//! The fault holds nothing while it waits. Between its look and its question the answer may have come already, unasked for, with
//! nobody yet to be woken; so the watcher, once the question can be found, has the fault look once more before it waits.
//!
//! Only pages that nobody made are asked for. One that is in swap is there. Of pages that are there, writes are told ([`super::guard`]).

use super::fault::without_write;
use super::guard::Guarded;
use super::{Backing, FaultError, MmError, Region, RegionFlags, Space, Spaces, Stop};
use crate::addr::{PageRange, Pfn, VirtAddr, Vpn};
use crate::frame::Priority;
use crate::object::{Object, Place};
use crate::paging::Entry;
use crate::{Platform, Rights};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;

/// What a watcher is asked about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum About {
    /// A page that nobody made.
    Missing,
    /// A write to a guarded page.
    Guarded,
}

/// Who brings in pages that are missing, and lets others be written.
pub trait Watcher: Send + Sync {
    /// A page is wanted: see that it can be used, and return when it is worth while to look again. `still_so` tells whether it is as it
    /// was; it is to be asked once whoever answers can find this question.
    fn wanted(
        &self,
        at: VirtAddr,
        write: bool,
        about: About,
        still_so: &dyn Fn() -> bool,
    ) -> Result<(), FaultError>;
    /// The pages that it guards.
    fn guarded(&self) -> &Guarded;
    /// A write to a guarded page is let through: the page is guarded no longer, and who wants to know which were written looks there.
    fn only_notes(&self) -> bool {
        false
    }
}

/// A watcher of a region. Two are the same if they are one.
#[derive(Clone)]
pub struct Watched(pub Arc<dyn Watcher>);

impl PartialEq for Watched {
    fn eq(&self, other: &Watched) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Why a page could not be put where one is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlaceError {
    /// There is one.
    Exists,
    /// Nothing is watched there.
    NotWatched,
    /// No writes are told there.
    NotGuarded,
    /// Past the end of what is mapped there.
    PastEnd,
    /// Of a page to be carried: there is none.
    Nothing,
    /// It is not the program's alone.
    Shared,
    /// The two places are not of a kind.
    NotAlike,
    NoMemory,
}

/// What a watcher may be told of.
const WATCHES: RegionFlags = RegionFlags::WATCHED.union(RegionFlags::GUARDED);

impl<P: Platform> Spaces<P> {
    /// Watch what is mapped in the range, or watch it no longer. All of it must be memory without a file, or nothing is changed.
    /// `how`: [`RegionFlags::WATCHED`], [`RegionFlags::GUARDED`], or both; none to watch no longer.
    pub fn watch(
        &self,
        space: &Space,
        range: PageRange,
        watcher: &Watched,
        how: RegionFlags,
    ) -> Result<(), Stop> {
        let on = !how.is_empty();
        let mut some = false;
        for (regions, range) in space.parts(self.cpu(), range) {
            for region in regions.within(range) {
                some = true;
                let file = matches!(&region.backing, Backing::Object { object, .. } if object.is_file() || !region.is_shared());
                if file && (how.contains(RegionFlags::WATCHED) || !watcher.0.only_notes()) {
                    return Err(MmError::Invalid.into());
                }
                if on && !region.max_rights.contains(Rights::WRITE) {
                    return Err(MmError::Sealed.into());
                }
                if on && region.watcher().is_some_and(|other| other != watcher) {
                    return Err(MmError::Busy.into());
                }
            }
        }
        if !some {
            return Err(MmError::Invalid.into());
        }
        let done = self.alter_each(space, range, |region| {
            if on {
                if let Backing::Object { object, .. } = &region.backing {
                    object.watched.store(true, Relaxed);
                }
                region.set_rare(|rare| rare.watcher = Some(watcher.clone()));
                region.flags = (region.flags - WATCHES) | how;
            } else if region.watcher() == Some(watcher) {
                region.set_rare(|rare| rare.watcher = None);
                region.flags -= WATCHES;
            }
            if !region.flags.contains(RegionFlags::GUARDED) {
                watcher.0.guarded().clear(region.range.intersect(&range));
            }
            Ok(())
        });
        match done {
            // Holes are nobody's.
            Err(Stop::Mm(MmError::NotMapped)) => {}
            done => done?,
        }
        // Of a huge page that is opened for want of RAM, pages of zeroes would be given back as if they had never been.
        self.cursor(space, range).open(range);
        Ok(())
    }

    /// The watcher watches nothing any more. It takes no memory: each region is changed as a whole.
    pub fn unwatch(&self, space: &Space, watcher: &Watched) {
        space.each_section_mut(&mut |regions| {
            let mut at = Vpn(0);
            let mine = |region: &&Region| region.watcher() == Some(watcher);
            while let Some(PageRange { start, end }) =
                { regions.from(at).find(mine).map(|region| region.range) }
            {
                at = end;
                let Some(place) = regions.place(start) else { return };
                regions.modify(place, |region| {
                    region.set_rare(|rare| rare.watcher = None);
                    region.flags -= WATCHES;
                });
            }
        });
    }

    /// Ask for a page that the fault has found missing.
    #[cold]
    pub(super) fn ask(
        &self,
        space: &Space,
        watched: Watched,
        at: VirtAddr,
        write: bool,
        about: About,
    ) -> Result<(), Stop> {
        let page = at.page();
        let still_so = || match about {
            About::Missing => self.is_missing(space, page, &watched),
            About::Guarded => self.is_guarded(space, page, &watched),
        };
        Ok(watched.0.wanted(at, write, about, &still_so)?)
    }

    fn is_guarded(&self, space: &Space, page: Vpn, watched: &Watched) -> bool {
        let regions = space.regions(self.cpu(), page);
        let region = regions.find(page).filter(|region| region.flags.contains(RegionFlags::GUARDED));
        region.is_some_and(|region| region.watcher() == Some(watched) && watched.0.guarded().has(page))
    }

    fn is_missing(&self, space: &Space, page: Vpn, watched: &Watched) -> bool {
        let regions = space.regions(self.cpu(), page);
        let Some(region) = regions.find(page) else { return false };
        let Some(range) = super::map::user_page(page) else { return false };
        region.watcher() == Some(watched)
            && self.cursor(space, range).get(page) == Entry::Absent
            && match &region.backing {
                Backing::Anonymous => true,
                Backing::Object { object, .. } => is_hole(object, region.index(page)),
            }
    }

    /// Put a page where one is missing: this one, or one of zeroes; guarded, if `guard` says so.
    pub fn place_page(
        &self,
        space: &Space,
        page: Vpn,
        bytes: Option<&[u8]>,
        guard: bool,
    ) -> Result<Result<(), PlaceError>, Stop> {
        let regions = space.regions(self.cpu(), page);
        let watched = |region: &&Region| region.flags.intersects(WATCHES);
        let Some(region) = regions.find(page).filter(watched) else { return Ok(Err(PlaceError::NotWatched)) };
        let Some(range) = super::map::user_page(page) else { return Ok(Err(PlaceError::NotWatched)) };
        if guard && !region.flags.contains(RegionFlags::GUARDED) {
            return Ok(Err(PlaceError::NotGuarded));
        }
        if guard && !self.room_to_guard(region, page) {
            return Ok(Err(PlaceError::NoMemory));
        }
        if let Backing::Object { object, .. } = &region.backing {
            let _cursor = self.cursor(space, range);
            let placed = self.place_shared(object, region.index(page), bytes)?;
            if placed.is_ok() {
                self.guard_new(region, page, guard);
            }
            return Ok(placed);
        }
        let mut cursor = self.cursor(space, range);
        let mut slot = cursor.make(page)?;
        if slot.is_shared() {
            self.own(space, &mut cursor, page)?;
            slot = cursor.make(page)?;
        }
        if !slot.is_absent() {
            return Ok(Err(PlaceError::Exists));
        }
        match bytes {
            None => self.map_zero(region, &slot),
            Some(bytes) => {
                let frame = self.new_frame(Some(bytes))?;
                self.adopt(space, region, page, frame);
                let rights = if guard { without_write(region.rights) } else { region.rights };
                slot.fill(Entry::Present { frame, rights, accessed: true, dirty: true });
            }
        }
        self.guard_new(region, page, guard);
        Ok(Ok(()))
    }

    fn new_frame(&self, bytes: Option<&[u8]>) -> Result<Pfn, Stop> {
        let frame = self.frames.alloc(self.cpu(), Priority::User)?;
        match bytes {
            Some(bytes) => self.frames.phys.write(frame, 0, bytes),
            None => self.frames.phys.zero(frame),
        }
        Ok(frame)
    }

    fn place_shared(
        &self,
        object: &Object,
        index: u64,
        bytes: Option<&[u8]>,
    ) -> Result<Result<(), PlaceError>, Stop> {
        if index >= object.end() {
            return Ok(Err(PlaceError::PastEnd));
        }
        if !is_hole(object, index) {
            return Ok(Err(PlaceError::Exists));
        }
        let frame = self.new_frame(bytes)?;
        let entered = self.enter_shared_page(object, index, frame);
        Ok(if entered { Ok(()) } else { Err(PlaceError::Exists) })
    }
}

/// Whether nobody has made the object's page.
pub(super) fn is_hole(object: &Object, index: u64) -> bool {
    object.pages.lock().get(index) == Place::Nowhere
}
