//! Mapping, unmapping and changing rights: the calls that change regions.
//!
//! None of them touches a page that is not there: to map costs a region, and frames come with faults.

use super::{Backing, Label, MAX_REGIONS, MmError, Region, RegionFlags, Regions, Space, Spaces, Stop};
use crate::addr::{PageRange, USER_END, USER_START, VirtAddr, Vpn};
use crate::lock::RwLockWriteGuard;
use crate::paging::{Cursor, Entry, Gather, Slot};
use crate::{Platform, Rights};
use alloc::sync::Arc;

/// Bytes of heap that a call may take for the regions it makes: two chunks, and nodes of its objects' mappings.
pub(super) const REGION_COST: usize = 8 << 10;

/// Where a mapping should go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Where {
    /// Wherever there is room; at the hint if it is free.
    Anywhere { hint: Option<VirtAddr> },
    /// As `Anywhere`, below 2 GiB.
    Low,
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
    pub noreserve: bool,
    /// Lock its pages in memory as they come in.
    pub wired: bool,
}

/// The range of one page, if programs can have it.
pub(crate) fn user_page(page: Vpn) -> Option<PageRange> {
    (page < USER_END).then(|| PageRange::new(page, page.add(1)))
}

/// MAP_32BIT: addresses of 31 bits.
const LOW_TOP: Vpn = Vpn(1 << 19);

impl<P: Platform> Spaces<P> {
    pub fn map(&self, space: &Space, request: &MapRequest) -> Result<VirtAddr, Stop> {
        if request.pages == 0 || request.pages > USER_END.0 {
            return Err(if request.pages == 0 { MmError::Invalid } else { MmError::NoMemory }.into());
        }
        let mut regions = space.regions.write();
        let (start, replace) = place(space, &mut regions, request)?;
        let range = PageRange::sized(start, request.pages).ok_or(MmError::NoMemory)?;
        if replace {
            self.cut(space, &mut regions, range)?;
        }
        self.room_for(&mut regions, 1)?;
        let mut flags = RegionFlags::empty();
        flags.set(RegionFlags::SHARED, request.shared);
        flags.set(RegionFlags::GROWS_DOWN, request.grows_down.is_some());
        flags.set(RegionFlags::WIRED, request.wired);
        flags.set(RegionFlags::NO_RESERVE, request.noreserve);
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
                grow_limit: request.grows_down.unwrap_or(0),
            },
        );
        Ok(start.addr())
    }

    /// Whether a space may have so many regions more, and the heap has room for them.
    #[inline]
    pub(super) fn room_for(&self, regions: &mut Regions, more: usize) -> Result<(), Stop> {
        let fits = regions.len() + more <= MAX_REGIONS && regions.make_room();
        if fits && self.platform.headroom(REGION_COST) { Ok(()) } else { Err(MmError::NoMemory.into()) }
    }

    /// Insert a region and tell its object.
    pub(super) fn add_region(&self, space: &Space, regions: &mut Regions, region: Region) {
        if let Backing::Object { object, first } = &region.backing {
            object.add_mapping(space.id, region.range.start, *first, region.range.len());
        }
        regions.insert(region);
    }

    pub fn unmap(&self, space: &Space, range: PageRange) -> Result<(), Stop> {
        self.cut(space, &mut space.regions.write(), range)
    }

    /// Take the range out of the regions, and its entries away.
    pub(super) fn cut(
        &self,
        space: &Space,
        regions: &mut RwLockWriteGuard<'_, Regions>,
        range: PageRange,
    ) -> Result<(), Stop> {
        // A hole in the middle of a region makes one region more.
        let splits =
            regions.find(range.start).is_some_and(|r| r.range.start < range.start && r.range.end > range.end);
        if splits {
            self.room_for(regions, 1)?;
        }
        if regions.first_from(range.start).is_none_or(|region| region.range.start >= range.end) {
            return Ok(());
        }
        self.own_edges(space, range)?;
        // First the entries, then what leads reclaim to them.
        self.clear_range(space, range);
        regions.remove(range, &mut |piece| self.forget_region(space, &piece));
        Ok(())
    }

    /// The region is gone: tell its object, which may go with it (its mapped frames go as their entries do).
    fn forget_region(&self, space: &Space, region: &Region) {
        if let Backing::Object { object, first } = &region.backing
            && object.drop_mapping(space.id, region.range.start, *first, region.range.len())
        {
            self.free_object(object);
        }
    }

    /// Make every entry of the range absent, and free the nodes that this empties. Of shared leaves only whole ones may have
    /// entries in it.
    pub(super) fn clear_range(&self, space: &Space, range: PageRange) {
        let mut gather = self.gather(space);
        let mut cursor = self.cursor(space, range);
        self.clear_part(&mut cursor, range, &mut gather);
        // Before the cursor goes: reclaim takes a page from all whose tables lead to it, and flushes those. Of a space that has
        // just left the leaf it would know nothing.
        gather.finish();
    }

    fn clear_part(&self, cursor: &mut Cursor<'_>, range: PageRange, gather: &mut Gather<'_, Self>) {
        let mut nodes = arrayvec::ArrayVec::<_, 64>::new();
        let mut from = range.start;
        // In steps of what the list of emptied nodes can hold: 32 leaves and the nodes above them.
        while from < range.end {
            let step = PageRange::new(from, Vpn(((from.0 >> 9) + 32) << 9).min(range.end));
            cursor.clear(step, &mut |page, slot| self.clear_entry(slot, page, gather), &mut |node| {
                nodes.push(node)
            });
            for node in nodes.drain(..) {
                gather.drop_node(node);
            }
            if step.end == range.end {
                break;
            }
            from = match cursor.next_to_clear(PageRange::new(step.end, range.end)) {
                Some(page) => page,
                None => break,
            };
        }
    }

    pub(super) fn unmap_all(&self, space: &Space) {
        let mut regions = space.regions.write();
        let mut gather = self.gather(space);
        let mut cursor = self.cursor(space, PageRange::new(Vpn(0), USER_END));
        let mut at = Vpn(0);
        for region in regions.from(Vpn(0)) {
            // By whole leaves: shared ones can just be left.
            let whole =
                PageRange::new(Vpn(region.range.start.0 & !511), Vpn((region.range.end.0 + 511) & !511));
            self.clear_part(&mut cursor, PageRange::new(whole.start.max(at), whole.end), &mut gather);
            at = whole.end;
        }
        // A shared leaf that was emptied from elsewhere may be left where there is no region any more.
        if !cursor.is_empty() {
            self.clear_part(&mut cursor, PageRange::new(Vpn(0), USER_END), &mut gather);
        }
        gather.finish();
        drop(cursor);
        regions.remove(PageRange::new(Vpn(0), USER_END), &mut |piece| self.forget_region(space, &piece));
    }

    /// mprotect. Up to a hole or a refusal the change is made, as on Linux.
    pub fn protect(&self, space: &Space, range: PageRange, rights: Rights) -> Result<(), Stop> {
        let mut regions = space.regions.write();
        self.own_range(space, range)?;
        let mut at = range.start;
        while at < range.end {
            let Some(region) = regions.find(at) else { return Err(MmError::NotMapped.into()) };
            if !region.max_rights.contains(rights) {
                return Err(MmError::Denied.into());
            }
            let part = region.range.intersect(&PageRange::new(at, range.end));
            at = part.end;
            if region.rights == rights {
                continue;
            }
            self.alter(&mut regions, part, &mut |region| region.rights = rights)?;
            self.protect_entries(space, part, rights);
        }
        Ok(())
    }

    /// Change the part of one region that lies in `part`, splitting it and joining the pieces again.
    pub(super) fn alter(
        &self,
        regions: &mut Regions,
        part: PageRange,
        change: &mut dyn FnMut(&mut Region),
    ) -> Result<(), Stop> {
        let whole = regions.find(part.start).map(|r| r.range).unwrap_or(part);
        if whole == part {
            regions.change(part.start, |region| change(region));
            regions.join(part.start);
            return Ok(());
        }
        let pieces = (whole.start < part.start) as usize + (part.end < whole.end) as usize;
        self.room_for(regions, pieces)?;
        if pieces == 1
            && let Some(mut piece) = regions.split_off(part)
        {
            change(&mut piece);
            regions.insert(piece);
            return Ok(());
        }
        let mut altered = None;
        regions.remove(part, &mut |mut piece| {
            change(&mut piece);
            altered = Some(piece);
        });
        if let Some(region) = altered {
            regions.insert(region);
        }
        Ok(())
    }

    /// Bring present entries in line with new rights. What may now be written, but was not, stays unwritable: the
    /// fault finds out whether it is shared.
    fn protect_entries(&self, space: &Space, range: PageRange, rights: Rights) {
        let mut gather = self.gather(space);
        self.cursor(space, range).each(range, &mut |page, slot: &Slot<'_>| {
            let Entry::Present { frame, rights: old, .. } = slot.get() else { return };
            let keeps_write = old.contains(Rights::WRITE) && frame != self.frames.zero;
            let new = if keeps_write { readable(rights) } else { super::fault::without_write(rights) };
            if new == old {
                return;
            }
            slot.set_rights(new);
            if !old.is_empty() {
                gather.page(page);
            }
        });
        gather.finish();
    }
}

fn readable(rights: Rights) -> Rights {
    if rights.is_empty() { rights } else { rights | Rights::READ }
}

/// Where the mapping goes, and whether something there is replaced.
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
            let at_hint = hint
                .and_then(|at| PageRange::sized(at.page(), request.pages))
                .filter(|range| range.in_user_half() && regions.within(*range).next().is_none());
            match at_hint
                .map(|range| range.start)
                .or_else(|| regions.find_hole(request.pages, space.map_top()))
            {
                Some(start) => Ok((start, false)),
                None => Err(MmError::NoMemory.into()),
            }
        }
        Where::Low => {
            let start =
                regions.find_hole(request.pages, LOW_TOP).filter(|s| s.0 + request.pages <= LOW_TOP.0);
            Ok((start.ok_or(MmError::NoMemory)?, false))
        }
    }
}
