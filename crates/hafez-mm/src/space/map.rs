//! Mapping, unmapping and changing rights: the calls that change regions.
//!
//! None of them touches a page that is not there: to map costs a region, and frames come with faults.

use super::regions::Place;
use super::sections::is_small;
use super::{
    ALL, Backing, Label, MmError, Rare, Region, RegionFlags, Regions, RegionsMut, Space, Spaces, Stop,
};
use crate::addr::{PageRange, Pfn, USER_END, USER_START, VirtAddr, Vpn};
use crate::paging::huge::around;
use crate::paging::{Cursor, Entry, Gather, Slot, Visitor};
use crate::{Platform, Rights};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;

/// Bytes of heap that a call may take for the regions it makes: two chunks, and nodes of its objects' mappings.
pub(super) const REGION_COST: usize = 8 << 10;

/// Where a mapping should go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Where {
    /// Wherever there is room; at the hint if it is free.
    Anywhere { hint: Option<VirtAddr> },
    /// As `Anywhere`, below 2 GiB; without the hint not below 1 GiB.
    Low { hint: Option<VirtAddr> },
    /// Exactly there, replacing what is.
    Fixed(VirtAddr),
    /// Exactly there, if nothing is.
    FixedNoReplace(VirtAddr),
}

/// A mapping to be made.
pub struct MapRequest {
    pub at: Where,
    pub pages: u64,
    pub rights: Rights,
    /// What the rights may be raised to later.
    pub max_rights: Rights,
    pub backing: Backing,
    pub shared: bool,
    pub label: Option<Arc<Label>>,
    /// For a stack: the pages it may grow to.
    pub grows_down: Option<u64>,
    /// Lock its pages in memory as they come in.
    pub wired: bool,
    /// What else its region is: [`RegionFlags::NO_RESERVE`], [`RegionFlags::OPAQUE`], or what [`crate::Memory::droppable`] says.
    pub special: RegionFlags,
    /// The number of the thread that asks for it, if it is the one that is going to use it: not of a stack.
    pub by: Option<u32>,
}

/// No page: what is common to all.
const NOWHERE: PageRange = PageRange::new(Vpn(0), Vpn(0));

impl Where {
    /// The pages that are named, if any are.
    fn range(self, pages: u64) -> PageRange {
        let named = match self {
            Where::Anywhere { hint } | Where::Low { hint } => hint,
            Where::Fixed(at) | Where::FixedNoReplace(at) => Some(at),
        };
        let range = named.and_then(|at| PageRange::sized(at.page(), pages));
        range.filter(PageRange::in_user_half).unwrap_or(NOWHERE)
    }
}

/// The thread that asks for memory which it is likely to use itself.
fn own_user(request: &MapRequest) -> Option<u32> {
    let plain = matches!(request.backing, Backing::Anonymous) && request.grows_down.is_none();
    request.by.filter(|_| plain && !request.shared && is_small(request.pages))
}

/// The range of one page, if programs can have it.
pub(crate) fn user_page(page: Vpn) -> Option<PageRange> {
    (page < USER_END).then(|| PageRange::new(page, page.add(1)))
}

/// MAP_32BIT: addresses of 31 bits, of the second gigabyte where the program does not say better.
const LOW: PageRange = PageRange::new(Vpn(1 << 18), Vpn(1 << 19));

impl<P: Platform> Spaces<P> {
    pub fn map(&self, space: &Space, request: &MapRequest) -> Result<VirtAddr, Stop> {
        if request.pages == 0 || request.pages > USER_END.0 {
            return Err(if request.pages == 0 { MmError::Invalid } else { MmError::NoMemory }.into());
        }
        let mut regions = space.regions_or(|| self.section_for(space, request))?;
        let (start, replace) = match place(space, &mut regions, request) {
            Ok(placed) => placed,
            Err(stop) => {
                let (elsewhere, placed) = self.place_elsewhere(space, regions, request, stop)?;
                regions = elsewhere;
                placed
            }
        };
        let range = PageRange::sized(start, request.pages).ok_or(MmError::NoMemory)?;
        if replace {
            self.cut(space, &mut regions, range)?;
        }
        self.room_for(space, &mut regions, 0)?;
        let mut flags = request.special;
        flags.set(RegionFlags::SHARED, request.shared);
        flags.set(RegionFlags::GROWS_DOWN, request.grows_down.is_some());
        flags.set(RegionFlags::WIRED, request.wired);
        self.add_region(
            space,
            &mut regions,
            Region {
                range,
                rights: request.rights,
                max_rights: request.max_rights,
                flags,
                backing: request.backing.clone(),
                label: request.label.clone(),
                rare: request.grows_down.map(|grow_limit| Box::new(Rare { grow_limit, ..Rare::default() })),
            },
        );
        // Who maps something is likely to use it next.
        regions.tell_hint(self.hint());
        Ok(start.addr())
    }

    /// The regions that a mapping is to join, where there are several sections.
    #[cold]
    #[inline(never)]
    fn section_for<'a>(&self, space: &'a Space, request: &MapRequest) -> Result<RegionsMut<'a>, MmError> {
        match (request.at, own_user(request)) {
            (Where::Anywhere { hint: None }, Some(thread)) => Ok(space.section_of(thread)),
            _ => space.section_mut(self, request.at.range(request.pages)),
        }
    }

    /// There was no place for a mapping: perhaps there is one in the common section.
    #[cold]
    #[inline(never)]
    fn place_elsewhere<'a>(
        &self,
        space: &'a Space,
        regions: RegionsMut<'a>,
        request: &MapRequest,
        stop: Stop,
    ) -> Result<(RegionsMut<'a>, (Vpn, bool)), Stop> {
        if stop != Stop::Mm(MmError::NoMemory) || !regions.is_own() {
            return Err(stop);
        }
        drop(regions);
        let mut regions = space.regions_mut(self, NOWHERE)?;
        let placed = place(space, &mut regions, request)?;
        Ok((regions, placed))
    }

    /// Whether a space may be cut into so many regions more, and the heap has room for them. As on Linux, who maps something new
    /// asks for none: so it may have one region more than the limit says, but not be cut any further.
    #[inline]
    pub(super) fn room_for(&self, space: &Space, regions: &mut Regions, more: usize) -> Result<(), Stop> {
        let fits = space.count(regions) + more <= self.most_regions.load(Relaxed) && regions.make_room();
        if fits && self.platform.headroom(REGION_COST) { Ok(()) } else { Err(MmError::NoMemory.into()) }
    }

    /// Insert a region and tell its object.
    pub(super) fn add_region(&self, space: &Space, regions: &mut Regions, region: Region) {
        self.tell_object(space, &region);
        regions.insert(region);
    }

    /// The object of a region is mapped there from now on.
    #[inline]
    pub(super) fn tell_object(&self, space: &Space, region: &Region) {
        if let Backing::Object { object, first } = &region.backing {
            object.add_mapping(space.id, region.range.start, *first, region.range.len());
        }
    }

    #[inline]
    pub fn unmap(&self, space: &Space, range: PageRange) -> Result<(), Stop> {
        self.cut(space, &mut *space.regions_mut(self, range)?, range)
    }

    /// Take the range out of the regions, and its entries away.
    pub(super) fn cut(&self, space: &Space, regions: &mut Regions, range: PageRange) -> Result<(), Stop> {
        let Some(place) = regions.place_from(range.start) else { return Ok(()) };
        let first = regions.at(place).range;
        if first.start >= range.end {
            return Ok(());
        }
        self.check_unsealed(space, regions, range)?;
        // A hole in the middle of a region makes one region more.
        if first.start < range.start && range.end < first.end {
            self.room_for(space, regions, 1)?;
        }
        // First the entries, then what leads reclaim to them.
        self.clear_range(space, range)?;
        regions.remove_from(Some(place), range, |piece| self.forget_region(space, &piece));
        Ok(())
    }

    /// Whether what lies in the range may go, or become something else.
    #[inline]
    pub(super) fn check_unsealed(
        &self,
        space: &Space,
        regions: &Regions,
        range: PageRange,
    ) -> Result<(), Stop> {
        let sealed = |region: &Region| region.flags.contains(RegionFlags::SEALED);
        match space.sealed.load(Relaxed) && regions.within(range).any(sealed) {
            true => Err(MmError::Sealed.into()),
            false => Ok(()),
        }
    }

    /// The region is gone: tell its watcher, and its object, which may go with it (its mapped frames go as their entries do).
    #[inline(always)]
    pub(super) fn forget_region(&self, space: &Space, region: &Region) {
        if region.rare.is_some() || !matches!(region.backing, Backing::Anonymous) {
            self.leave_others(space, region);
        }
    }

    #[inline(never)]
    fn leave_others(&self, space: &Space, region: &Region) {
        if let Some(watcher) = region.watcher() {
            watcher.0.guarded().clear(region.range);
        }
        if let Backing::Object { object, first } = &region.backing
            && object.drop_mapping(space.id, region.range.start, *first, region.range.len())
        {
            self.free_object(object);
        }
    }

    /// Make every entry of the range absent, and free the nodes that this empties.
    #[inline]
    pub(crate) fn clear_range(&self, space: &Space, range: PageRange) -> Result<(), Stop> {
        // Parts of two leaves, one after the other: who has the tables alone keeps other threads from theirs.
        let border = around(range.start).end;
        if range.contains(border) && !range.covers(&around(range.start)) && space.tables.is_parted() {
            let above = PageRange::new(border, range.end);
            if above.len() < around(border).len() {
                self.clear_at_once(space, PageRange::new(range.start, border))?;
                return self.clear_at_once(space, above);
            }
        }
        self.clear_at_once(space, range)
    }

    #[inline]
    fn clear_at_once(&self, space: &Space, range: PageRange) -> Result<(), Stop> {
        let mut cursor = self.cursor(space, range);
        // It flushes when it goes, which is before the cursor does: reclaim takes a page from all whose tables lead to it, and
        // flushes those. Of a space that has just left the leaf it would know nothing.
        let mut gather = self.gather(space, range);
        let mut clearing = Clearing { spaces: self, gather: &mut gather };
        if range.covers(&around(range.start)) {
            // Leaves that go as they are.
            cursor.alone();
        } else if cursor.clear_in_own(range, &mut clearing) {
            return Ok(());
        }
        self.own_edges(space, &mut cursor, range)?;
        cursor.clear(range, &mut clearing);
        Ok(())
    }

    pub(super) fn unmap_all(&self, space: &Space) {
        let mut regions = space.all_regions();
        let mut cursor = self.cursor(space, ALL);
        let mut gather = self.gather(space, ALL);
        gather.all_pages();
        let mut clearing = Clearing { spaces: self, gather: &mut gather };
        let mut at = Vpn(0);
        let parts = regions.parts().flat_map(|(regions, part)| regions.within(part));
        for region in parts {
            // By whole leaves: shared ones can just be left.
            let whole =
                PageRange::new(Vpn(region.range.start.0 & !511), Vpn((region.range.end.0 + 511) & !511));
            if whole.end > at {
                cursor.clear(PageRange::new(whole.start.max(at), whole.end), &mut clearing);
                at = whole.end;
            }
        }
        // A shared leaf that was emptied from elsewhere may be left where there is no region any more.
        if !cursor.is_empty() {
            cursor.clear(ALL, &mut clearing);
        }
        // Before the cursor goes: see `clear_range`.
        gather.flush();
        drop(cursor);
        regions.drain(|region| self.forget_region(space, &region));
    }

    /// mprotect. Up to a hole or a refusal the change is made, as on Linux.
    pub fn protect(&self, space: &Space, range: PageRange, rights: Rights) -> Result<(), Stop> {
        let mut regions = space.regions_mut(self, range)?;
        let mut cursor = self.cursor(space, range);
        // It flushes when it goes: before the cursor does, and the regions.
        let mut gather = self.gather(space, range);
        self.own_range(space, &mut cursor, range)?;
        let mut at = range.start;
        while at < range.end {
            let Some(place) = regions.seek(at) else { return Err(MmError::NotMapped.into()) };
            let region = regions.at(place);
            if region.flags.contains(RegionFlags::SEALED) {
                return Err(MmError::Sealed.into());
            }
            if !region.max_rights.contains(rights) {
                return Err(MmError::Denied.into());
            }
            let whole = region.range;
            let part = whole.intersect(&PageRange::new(at, range.end));
            at = part.end;
            if region.rights == rights {
                continue;
            }
            self.alter(space, &mut regions, place, part, |region| region.rights = rights)?;
            self.protect_entries(&mut cursor, part, rights, &mut gather);
        }
        Ok(())
    }

    /// Say something else of `part` of the region at this place, splitting it and joining the pieces again.
    #[inline]
    pub(super) fn alter(
        &self,
        space: &Space,
        regions: &mut Regions,
        place: Place,
        part: PageRange,
        change: impl FnOnce(&mut Region),
    ) -> Result<(), Stop> {
        let whole = regions.at(place).range;
        if whole == part {
            regions.modify(place, change);
            return Ok(());
        }
        let pieces = (whole.start < part.start) as usize + (part.end < whole.end) as usize;
        self.room_for(space, regions, pieces)?;
        let mut piece = regions.split_off(place, part);
        change(&mut piece);
        regions.insert(piece);
        Ok(())
    }

    /// Bring present entries in line with new rights. What may now be written, but was not, stays unwritable: the
    /// fault finds out whether it is shared.
    #[inline]
    fn protect_entries(
        &self,
        cursor: &mut Cursor<'_>,
        range: PageRange,
        rights: Rights,
        gather: &mut Gather<'_, Self>,
    ) {
        cursor.each(range, &mut |page, slot: &Slot<'_>| {
            let Entry::Present { frame, rights: old, .. } = slot.get() else { return };
            let keeps_write = old.contains(Rights::WRITE) && frame != self.frames.zero;
            let new = if keeps_write { readable(rights) } else { super::fault::without_write(rights) };
            if new == old {
                return;
            }
            slot.set_rights(new);
            // What is only allowed more needs no flush: who still holds the translation without the right faults once more.
            if !new.contains(old) {
                gather.page(page);
            }
        });
    }
}

/// Makes every entry absent, into the gather.
pub(crate) struct Clearing<'a, 'g, P: Platform> {
    pub spaces: &'a Spaces<P>,
    pub gather: &'a mut Gather<'g, Spaces<P>>,
}

impl<P: Platform> Visitor for Clearing<'_, '_, P> {
    #[inline(always)]
    fn cleared(&mut self, page: Vpn, was: Entry) {
        self.spaces.forget_entry(was, page, self.gather);
    }
    fn unlinked(&mut self, node: Pfn) {
        self.gather.drop_node(node);
    }
    fn passed(&mut self) {
        self.gather.all_pages();
    }
}

fn readable(rights: Rights) -> Rights {
    if rights.is_empty() { rights } else { rights | Rights::READ }
}

/// The hint, if so many pages are free there, below `top`.
#[inline]
pub(super) fn at_hint(regions: &Regions, hint: Option<VirtAddr>, pages: u64, top: Vpn) -> Option<Vpn> {
    hint.and_then(|hint| at_page(regions, hint.page(), pages, top))
}

#[inline(never)]
fn at_page(regions: &Regions, hint: Vpn, pages: u64, top: Vpn) -> Option<Vpn> {
    let range = PageRange::sized(hint, pages)?;
    let free = regions.bounds.allow(range) && regions.within(range).next().is_none();
    let fits = range.in_user_half() && range.end <= top && free;
    fits.then_some(range.start)
}

/// Where the mapping goes, and whether something there is replaced.
#[inline(always)]
fn place(space: &Space, regions: &mut Regions, request: &MapRequest) -> Result<(Vpn, bool), Stop> {
    let fixed = |at: VirtAddr| match PageRange::sized(at.page(), request.pages) {
        Some(range) if at.is_aligned() && range.in_user_half() => Ok(range),
        Some(_) if !at.is_aligned() => Err(MmError::Invalid),
        Some(range) if range.start < USER_START => Err(MmError::Denied),
        _ => Err(MmError::NoMemory),
    };
    match request.at {
        Where::Fixed(at) => Ok((fixed(at)?.start, true)),
        Where::FixedNoReplace(at) => {
            let range = fixed(at)?;
            match regions.within(range).next() {
                Some(_) => Err(MmError::Exists.into()),
                None => Ok((range.start, false)),
            }
        }
        Where::Anywhere { hint } => {
            let at_hint = at_hint(regions, hint, request.pages, USER_END);
            let start = at_hint.or_else(|| regions.find_hole(request.pages, space.map_top()));
            Ok((start.ok_or(MmError::NoMemory)?, false))
        }
        Where::Low { hint } => {
            let start = at_hint(regions, hint, request.pages, LOW.end).or_else(|| {
                let hole = regions.find_hole(request.pages, LOW.end);
                hole.filter(|start| start.0 >= LOW.start.0 && start.0 + request.pages <= LOW.end.0)
            });
            Ok((start.ok_or(MmError::NoMemory)?, false))
        }
    }
}
