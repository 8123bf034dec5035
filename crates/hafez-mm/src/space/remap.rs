//! mremap and brk: the calls that move or resize what is mapped.
//!
//! Moving pages moves entries, not bytes. An anonymous page that is the mover's alone notes its new number; one that
//! it shares stays noted where it was, and the family records the move (see `object::family`).

use super::map::at_hint;
use super::{ALL, Backing, MmError, Region, RegionFlags, Space, Spaces, Stop};
use crate::addr::{PAGE_SIZE, PageRange, USER_END, VirtAddr, Vpn};
use crate::frame::meta::State;
use crate::paging::Entry;
use crate::swap::Record;
use crate::{Platform, Rights};

/// How mremap may move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemapHow {
    /// Not at all.
    InPlace,
    /// Anywhere, if it cannot stay.
    MayMove,
    /// There, replacing what is.
    Fixed(VirtAddr),
    /// Anywhere, at the hint if it is free, and the old range stays mapped, empty.
    DontUnmap(Option<VirtAddr>),
    /// There, and the old range stays mapped, empty.
    FixedDontUnmap(VirtAddr),
}

impl RemapHow {
    fn keeps_old(self) -> bool {
        matches!(self, RemapHow::DontUnmap(_) | RemapHow::FixedDontUnmap(_))
    }
}

impl<P: Platform> Spaces<P> {
    /// mremap, in pages. An old length of 0 maps a shared object a second time.
    pub fn remap(&self, space: &Space, at: Vpn, old: u64, new: u64, how: RemapHow) -> Result<VirtAddr, Stop> {
        if new == 0 || new > USER_END.0 || old > USER_END.0 {
            return Err(MmError::Invalid.into());
        }
        let mut regions = space.regions_mut(self, span_of(at, old, new, how))?;
        let region = regions.find(at).cloned().ok_or(MmError::NotMapped)?;
        let old_range = PageRange::sized(at, old).ok_or(MmError::Invalid)?;
        if region.flags.contains(RegionFlags::SEALED) {
            return Err(MmError::Sealed.into());
        }
        // What becomes smaller where it is may be several regions.
        if old != 0 && new <= old && matches!(how, RemapHow::InPlace | RemapHow::MayMove) {
            if old_range.end > USER_END {
                return Err(MmError::Invalid.into());
            }
            self.cut(space, &mut regions, PageRange::new(at.add(new), old_range.end))?;
            return Ok(at.addr());
        }
        if old_range.end > region.range.end {
            return Err(MmError::NotMapped.into());
        }
        if old == 0 && !region.is_shared() || how.keeps_old() && old != new {
            return Err(MmError::Invalid.into());
        }
        let fixed = match how {
            RemapHow::Fixed(to) | RemapHow::FixedDontUnmap(to) => {
                let range = PageRange::sized(to.page(), new).filter(|r| to.is_aligned() && r.in_user_half());
                let range = range.ok_or(MmError::Invalid)?;
                // An old range without length still names the region that is to be mapped again.
                if !range.intersect(&old_range).is_empty() || range.contains(at) {
                    return Err(MmError::Invalid.into());
                }
                Some(range)
            }
            _ => None,
        };
        let stays = fixed.is_none() && !how.keeps_old() && old != 0;
        if stays && self.extend(space, &mut regions, &region, old_range, new) {
            return Ok(at.addr());
        }
        if how == RemapHow::InPlace {
            return Err(MmError::NoMemory.into());
        }
        self.room_for(space, &mut regions, 4)?;
        let to = match fixed {
            Some(range) => range,
            None => {
                let at_hint = match how {
                    RemapHow::DontUnmap(hint) => at_hint(&regions, hint, new, USER_END),
                    _ => None,
                };
                let start = match at_hint.or_else(|| regions.find_hole(new, space.map_top())) {
                    None if regions.is_own() => {
                        // There may be room elsewhere.
                        drop(regions);
                        drop(space.regions_mut(self, ALL)?);
                        return self.remap(space, at, old, new, how);
                    }
                    start => start.ok_or(MmError::NoMemory)?,
                };
                PageRange::new(start, start.add(new))
            }
        };
        if fixed.is_some() {
            self.cut(space, &mut regions, to)?;
        }
        // What needs frames comes before anything moves, and after the cut, which frees nodes that are empty: where it
        // fails, a retry finds the old range as it was.
        let moved = old.min(new);
        self.prepare(space, PageRange::new(at, at.add(moved)), to.start)?;
        let mut target = region.part(PageRange::new(at, region.range.end));
        target.range = to;
        target.flags -= RegionFlags::GROWS_DOWN | RegionFlags::WATCHED | RegionFlags::GUARDED;
        target.set_rare(|rare| (rare.watcher, rare.grow_limit) = (None, 0));
        self.add_region(space, &mut regions, target);
        self.move_entries(space, PageRange::new(at, at.add(moved)), to.start)?;
        if !how.keeps_old() && old != 0 {
            self.cut(space, &mut regions, old_range)?;
        }
        Ok(to.start.addr())
    }

    /// Grow a region where it is, if it ends there and nothing is in the way.
    fn extend(
        &self,
        space: &Space,
        regions: &mut super::Regions,
        region: &Region,
        old: PageRange,
        new: u64,
    ) -> bool {
        let more = PageRange::new(old.end, old.start.add(new));
        let free = more.end <= USER_END && regions.within(more).next().is_none();
        if old.end != region.range.end || !free {
            return false;
        }
        // A stack that lies below another mapping is not continued by what is put behind it.
        if region.flags.contains(RegionFlags::GROWS_DOWN) {
            regions.change(region.range.start, |r| r.range.end = more.end);
            return true;
        }
        let mut added = region.clone();
        if let Backing::Object { first, .. } = &mut added.backing {
            *first = region.index(more.start);
        }
        added.range = more;
        self.add_region(space, regions, added);
        true
    }

    /// Make the nodes that the moved entries will need, and those that they leave the space's own.
    fn prepare(&self, space: &Space, from: PageRange, to: Vpn) -> Result<(), Stop> {
        let (mut used, both) = (from.start, span(from, to));
        let mut cursor = self.cursor_alone(space, both);
        while let Some(page) = cursor.next_used(PageRange::new(used, from.end)) {
            if cursor.make(to.add(page.since(from.start)))?.is_shared() {
                self.own(space, &mut cursor, to.add(page.since(from.start)))?;
            }
            if cursor.find(page).is_some_and(|slot| slot.is_shared()) {
                self.own(space, &mut cursor, page)?;
            }
            used = page.add(1);
        }
        Ok(())
    }

    fn move_entries(&self, space: &Space, from: PageRange, to: Vpn) -> Result<(), Stop> {
        let mut gather = self.gather(space, from);
        let mut shared = false;
        let mut cursor = self.cursor_alone(space, span(from, to));
        let mut used = from.start;
        while let Some(page) = cursor.next_used(PageRange::new(used, from.end)) {
            used = page.add(1);
            let target = to.add(page.since(from.start));
            let slot = cursor.make(target)?;
            let Some(old) = cursor.find(page) else { continue };
            let entry = old.replace(Entry::Absent);
            slot.fill(entry);
            match entry {
                Entry::Present { frame, .. } => {
                    gather.page(page);
                    let meta = self.frames.meta(frame);
                    if meta.word().state() == State::Anon {
                        if self.is_exclusive(frame) {
                            meta.set_index(target.0);
                        } else {
                            shared = true;
                        }
                    }
                }
                Entry::Swap { slot } => match self.swap.record(&self.frames, slot) {
                    Some(Record { refs: 1, frame: None, .. }) => {}
                    Some(Record { refs: 1, frame: Some(frame), .. })
                        if self.frames.meta(frame).word().maps() == 0 =>
                    {
                        self.frames.meta(frame).set_index(target.0);
                    }
                    _ => shared = true,
                },
                Entry::Absent => {}
            }
        }
        // Before the cursor goes: who finds a page at its new place flushes that alone.
        gather.flush();
        drop(cursor);
        if shared {
            space.family.add_alias(from, to);
        }
        Ok(())
    }

    /// remap_file_pages: the range, of regions that share one object, shows that object's pages from `first` on.
    pub fn turn_pages(&self, space: &Space, range: PageRange, first: u64) -> Result<(), Stop> {
        let mut regions = space.regions_mut(self, range)?;
        let mut new = regions.find(range.start).cloned().ok_or(MmError::Invalid)?;
        let Backing::Object { object, .. } = &new.backing else { return Err(MmError::Invalid.into()) };
        let object = object.clone();
        let alike = |region: &Region| {
            region.flags == new.flags
                && region.rights == new.rights
                && matches!(&region.backing, Backing::Object { object: its, .. } if its.id == object.id)
        };
        let writable = new.is_shared() && new.max_rights.contains(Rights::WRITE);
        if !writable || !regions.cover(range) || !regions.within(range).all(alike) {
            return Err(MmError::Invalid.into());
        }
        self.room_for(space, &mut regions, 2)?;
        new.range = range;
        new.backing = Backing::Object { object, first };
        // Told before the old mapping goes: it may have been the last.
        self.tell_object(space, &new);
        match self.cut(space, &mut regions, range) {
            Ok(()) => regions.insert(new),
            Err(stop) => {
                self.forget_region(space, &new);
                return Err(stop);
            }
        }
        Ok(())
    }

    /// Set the heap to begin at `start`, empty.
    pub fn set_heap(&self, space: &Space, start: VirtAddr) {
        *space.heap.lock() = (start, start);
    }

    /// Move the heap's end. The end as it is afterwards: where it was, if it cannot move there.
    pub fn brk(&self, space: &Space, to: VirtAddr, limit: u64) -> Result<VirtAddr, Stop> {
        let page_end = |at: VirtAddr| Vpn(at.0.div_ceil(PAGE_SIZE as u64));
        let (start, seen) = space.heap();
        if to < start || to.0 - start.0 > limit {
            return Ok(seen);
        }
        let most = page_end(to.max(seen)).add(1);
        let mut regions = space.regions_mut(self, PageRange::new(start.page(), most))?;
        let mut heap = space.heap.lock();
        let end = heap.1;
        let (old, new) = (page_end(end), page_end(to));
        if !regions.bounds.allow(PageRange::new(start.page(), old.max(new).add(1))) {
            // Another thread has moved it meanwhile, and far.
            return Ok(end);
        }
        if new < old {
            self.cut(space, &mut regions, PageRange::new(new, old))?;
        } else if new > old {
            let more = PageRange::new(old, new);
            // A page of distance to the next region, as everywhere between neighbours that grow.
            let guard = PageRange::new(old, new.add(1));
            let taken = !more.in_user_half() || regions.within(guard).next().is_some();
            if taken || self.room_for(space, &mut regions, 0).is_err() {
                return Ok(end);
            }
            let rights = Rights::READ | Rights::WRITE;
            self.add_region(
                space,
                &mut regions,
                Region {
                    range: more,
                    rights,
                    max_rights: Rights::all(),
                    flags: RegionFlags::empty(),
                    backing: Backing::Anonymous,
                    label: None,
                    rare: None,
                },
            );
        }
        heap.1 = to;
        Ok(to)
    }
}

/// All pages that a call of mremap names.
fn span_of(at: Vpn, old: u64, new: u64, how: RemapHow) -> PageRange {
    let range = PageRange::sized(at, old.max(new).max(1)).filter(PageRange::in_user_half);
    let range = range.unwrap_or(PageRange::new(at, at.add(1)));
    match how {
        RemapHow::Fixed(to) | RemapHow::FixedDontUnmap(to) => match PageRange::sized(to.page(), new) {
            Some(to) if to.in_user_half() => PageRange::new(range.start.min(to.start), range.end.max(to.end)),
            _ => range,
        },
        _ => range,
    }
}

/// The smallest range with both in it.
fn span(from: PageRange, to: Vpn) -> PageRange {
    PageRange::new(from.start.min(to), from.end.max(to.add(from.len())))
}
