//! An object's pages without mapping them: read and write calls, truncation, write-back.

use super::{ALL, Access, Backing, FaultError, MmError, Region, Spaces, Stop};
use crate::account::AccountId;
use crate::addr::{PAGE_SIZE, PageRange, Pfn, Vpn};
use crate::frame::meta::Flags;
use crate::object::{Mapping, Object, PagerError, Place, Source};
use crate::paging::Entry;
use crate::{Platform, keys};
use alloc::sync::Arc;
use arrayvec::ArrayVec;
use core::ops::Bound;
use core::sync::atomic::Ordering::*;

const PAGE: u64 = PAGE_SIZE as u64;
/// Pages in one write to a file.
const CLUSTER: usize = 64;

/// The right to write an object's pages back, or to make it shorter. One at a time: who syncs a file must not find its
/// pages clean while another is still writing them, nor may a page be written after its file has become shorter.
pub struct Writing<'a, P: Platform> {
    spaces: &'a Spaces<P>,
    object: &'a Object,
}

impl<P: Platform> Drop for Writing<'_, P> {
    fn drop(&mut self) {
        self.object.writing.store(false, Release);
        self.spaces.platform.wake(keys::WRITING + self.object.id as usize);
    }
}

impl<P: Platform> Spaces<P> {
    /// `None` where the heap has no room for it.
    pub fn new_object(&self, source: Source, account: AccountId, size: u64) -> Option<Arc<Object>> {
        self.objects.add(|id| Object::new(id, source, account, size))
    }

    /// The page in RAM, with a pin on it. For writing it is dirty from here on; a hole that is only read is the page
    /// of zeroes.
    pub fn pin_page(&self, object: &Object, index: u64, for_write: bool) -> Result<Pfn, Stop> {
        loop {
            let busy = {
                let pages = object.pages.lock();
                match pages.get(index) {
                    Place::Frame(frame) => {
                        let meta = self.frames.meta(frame);
                        if meta.word().has(Flags::READING) {
                            Some(frame)
                        } else if !meta.pin() {
                            return Err(FaultError::OutOfMemory.into());
                        } else {
                            meta.set(Flags::REFERENCED);
                            meta.clear(Flags::AHEAD);
                            drop(pages);
                            if for_write {
                                self.mark_dirty(frame);
                            }
                            return Ok(frame);
                        }
                    }
                    Place::Nowhere if !for_write && !object.is_file() => return Ok(self.frames.zero),
                    _ => None,
                }
            };
            match busy {
                Some(frame) => self.wait_for(frame),
                None => {
                    self.fill(object, index)?;
                }
            }
        }
    }

    /// Pin what the entry names, if it does and may be written where that is asked.
    pub fn pin_entry(&self, space: &super::Space, page: Vpn, access: Access) -> Option<Pfn> {
        let mut cursor = self.cursor(space, super::map::user_page(page)?);
        let own = |frame| access == Access::FORCED && frame != self.frames.zero && self.is_exclusive(frame);
        match cursor.get(page) {
            Entry::Present { frame, rights, .. }
                if rights.contains(crate::Rights::WRITE)
                    || !access.write && !rights.is_empty()
                    || own(frame) =>
            {
                (frame == self.frames.zero || self.frames.meta(frame).pin()).then_some(frame)
            }
            _ => None,
        }
    }

    /// End of a pin.
    pub fn unpin_page(&self, frame: Pfn) {
        if frame == self.frames.zero {
            return;
        }
        let word = self.frames.meta(frame).unpin();
        if word.is_unheld() {
            self.free_page(frame);
        }
    }

    fn try_writing<'a>(&'a self, object: &'a Object) -> Option<Writing<'a, P>> {
        (!object.writing.swap(true, AcqRel)).then(|| Writing { spaces: self, object })
    }

    fn writing<'a>(&'a self, object: &'a Object) -> Writing<'a, P> {
        loop {
            if let Some(writing) = self.try_writing(object) {
                return writing;
            }
            self.wait_writing(object);
        }
    }

    fn wait_writing(&self, object: &Object) {
        self.platform.wait(keys::WRITING + object.id as usize, &|| !object.writing.load(Acquire));
    }

    /// For reclaim: write the object back, or wait for the one who does.
    pub fn help_write_back(&self, object: &Object) {
        match self.try_writing(object) {
            // A failure leaves the pages dirty and in RAM; fsync tells the program.
            Some(writing) => drop(self.write_dirty(&writing)),
            None => self.wait_writing(object),
        }
    }

    /// Change the size. Pages past the new end go, mapped or not, and the rest of the last one reads as zeroes. The copies
    /// that private mappings have are left to [`Spaces::drop_copies`].
    pub fn resize(&self, object: &Object, size: u64) -> Result<(), Stop> {
        let old = object.size();
        // A page on its way to the file must be there before the file is told that it is shorter.
        let _writing = (size < old).then(|| self.writing(object));
        if size < old && !size.is_multiple_of(PAGE) {
            self.zero_tail(object, size, PAGE - size % PAGE)?;
        }
        object.set_size(size);
        if size < old {
            self.drop_pages(object, size.div_ceil(PAGE), u64::MAX);
        }
        Ok(())
    }

    /// Of an object that has become shorter: forget the copies that private mappings have of pages past its end, in RAM or in
    /// swap. As long as nothing is there to be copied no fault makes new ones.
    pub fn drop_copies(&self, object: &Object) -> Result<(), Stop> {
        let end = object.size().div_ceil(PAGE);
        let mut after = None;
        loop {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let next =
                object.mappings.lock().range((from, Bound::Unbounded)).next().map(|(mapping, _)| *mapping);
            let Some(mapping) = next else { return Ok(()) };
            // A space at a time, however many mappings it has: they are found in its regions.
            after = Some(Mapping { delta: u64::MAX, ..mapping });
            let Some(space) = self.spaces.get(mapping.space.0) else { continue };
            for (regions, part) in space.parts(self.cpu(), ALL) {
                self.drop_copies_in(&space, regions.within(part), object, end)?;
            }
        }
    }

    fn drop_copies_in<'a>(
        &self,
        space: &super::Space,
        regions: impl Iterator<Item = &'a Region>,
        object: &Object,
        end: u64,
    ) -> Result<(), Stop> {
        for region in regions {
            let Backing::Object { object: its, first } = &region.backing else { continue };
            if its.id != object.id || region.is_shared() {
                continue;
            }
            let kept = end.saturating_sub(*first).min(region.range.len());
            let gone = PageRange::new(region.range.start.add(kept), region.range.end);
            if !gone.is_empty() {
                self.clear_range(space, gone)?;
            }
        }
        Ok(())
    }

    /// Make `len` bytes from `from` on, all in one page, zero, if the page holds data at all.
    fn zero_tail(&self, object: &Object, from: u64, len: u64) -> Result<(), Stop> {
        let index = from / PAGE;
        // A file's page that is not cached needs nothing: its pager reads zeroes past the end.
        if object.pages.lock().get(index) == Place::Nowhere {
            return Ok(());
        }
        let frame = self.pin_page(object, index, true)?;
        let at = (from % PAGE) as usize;
        self.frames.phys.zero_part(frame, at, at + len as usize);
        self.unpin_page(frame);
        Ok(())
    }

    /// Make the bytes `[from, to)` of a shared object read as zero; whole pages are given back.
    pub fn punch(&self, object: &Object, from: u64, to: u64) -> Result<(), Stop> {
        if from >= to {
            return Ok(());
        }
        let (first, end) = (from.div_ceil(PAGE), to / PAGE);
        if from / PAGE == to / PAGE {
            return self.zero_tail(object, from, to - from);
        }
        if !from.is_multiple_of(PAGE) {
            self.zero_tail(object, from, PAGE - from % PAGE)?;
        }
        if !to.is_multiple_of(PAGE) {
            self.zero_tail(object, end * PAGE, to % PAGE)?;
        }
        self.drop_pages(object, first, end);
        Ok(())
    }

    /// Take pages out of the map and away from whoever maps them.
    fn drop_pages(&self, object: &Object, first: u64, end: u64) {
        let mut from = first;
        loop {
            let (index, place) = {
                let mut pages = object.pages.lock();
                match pages.next(from) {
                    Some((index, _)) if index < end => (index, pages.set(index, Place::Nowhere)),
                    _ => return,
                }
            };
            if let Place::Frame(frame) = place {
                self.unmap_everywhere(object, index, frame);
            }
            self.release_place(place);
            from = index + 1;
        }
    }

    /// Forget cached pages that are clean and not in use: the file changed behind them.
    pub fn invalidate(&self, object: &Object) {
        let mut from = 0;
        loop {
            let place = {
                let mut pages = object.pages.lock();
                let Some((index, place)) = pages.next(from) else { return };
                from = index + 1;
                let Place::Frame(frame) = place else { continue };
                let word = self.frames.meta(frame).word();
                let in_use = word.maps() > 0 || word.pins() > 0;
                if in_use || word.any(Flags::DIRTY | Flags::READING | Flags::WRITING | Flags::ISOLATED) {
                    continue;
                }
                pages.set(index, Place::Nowhere)
            };
            self.release_place(place);
        }
    }

    /// Write the object's dirty pages to its file; also what was written through mappings.
    pub fn write_back(&self, object: &Object) -> Result<(), PagerError> {
        if !object.is_file() {
            return Ok(());
        }
        self.write_dirty(&self.writing(object))
    }

    fn write_dirty(&self, writing: &Writing<'_, P>) -> Result<(), PagerError> {
        let object = writing.object;
        let Source::File(pager) = &object.source else { return Ok(()) };
        self.collect_dirty(object);
        if object.dirtied.swap(0, AcqRel) == 0 {
            return Ok(());
        }
        let mut result = Ok(());
        let mut from = 0;
        loop {
            let mut frames: ArrayVec<Pfn, CLUSTER> = ArrayVec::new();
            let Some(first) = self.pin_dirty_run(object, from, &mut frames) else { break };
            let bytes = (frames.len() as u64 * PAGE).min(object.size().saturating_sub(first * PAGE));
            // A page that was asked for before its file became shorter lies past the end: there is nothing to write of it.
            let within = &frames[..bytes.div_ceil(PAGE) as usize];
            let written = if bytes == 0 { Ok(()) } else { pager.write(first, within, bytes as usize) };
            self.counters.file_out.fetch_add(frames.len() as u64, Relaxed);
            for &frame in &frames {
                if written.is_err() {
                    self.mark_dirty(frame);
                }
                self.unpin_page(frame);
            }
            result = result.and(written);
            from = first + frames.len() as u64;
        }
        result
    }

    /// The next run of dirty pages, pinned and marked clean: what is written to them from here on is for the next time.
    fn pin_dirty_run(&self, object: &Object, from: u64, frames: &mut ArrayVec<Pfn, CLUSTER>) -> Option<u64> {
        let pages = object.pages.lock();
        let (mut at, mut first) = (from, None);
        while let Some((index, place)) = pages.next(at) {
            let Place::Frame(frame) = place else { return first };
            let meta = self.frames.meta(frame);
            let word = meta.word();
            let dirty = word.has(Flags::DIRTY) && !word.has(Flags::READING);
            if first.is_some() && (index != at || !dirty || frames.is_full()) {
                break;
            }
            if dirty && meta.pin() {
                meta.clear(Flags::DIRTY);
                frames.push(frame);
                first = first.or(Some(index));
            }
            at = index + 1;
        }
        first
    }

    /// Move the dirty bits of all entries that map the object to its frames.
    fn collect_dirty(&self, object: &Object) {
        // One after the other, without the lock that comes after the regions'.
        let mut last = None;
        loop {
            let next = {
                let mappings = object.mappings.lock();
                let from = last.map_or(Bound::Unbounded, Bound::Excluded);
                mappings.range((from, Bound::Unbounded)).next().map(|(&mapping, _)| mapping)
            };
            let Some(mapping) = next else { return };
            last = Some(mapping);
            let Some(space) = self.spaces.get(mapping.space.0) else { continue };
            for (regions, part) in space.parts(self.cpu(), ALL) {
                let here = |region: &&Region| match &region.backing {
                    Backing::Object { object: backing, first } => {
                        backing.id == object.id && region.range.start.0.wrapping_sub(*first) == mapping.delta
                    }
                    Backing::Anonymous => false,
                };
                for region in regions.within(part).filter(here).filter(|region| region.is_shared()) {
                    self.collect_dirty_in(&space, region.range);
                }
            }
        }
    }

    fn collect_dirty_in(&self, space: &super::Space, range: PageRange) {
        let mut gather = self.gather(space, range);
        self.cursor(space, range).each(range, &mut |page, slot| {
            if let Entry::Present { frame, dirty: true, .. } = slot.get()
                && slot.take_dirty()
            {
                gather.page(page);
                self.mark_dirty(frame);
            }
        });
        gather.flush();
    }

    /// The last inode that referred to the object has gone.
    pub fn retire(&self, object: &Object) {
        object.retired.store(true, Release);
        if object.mappings.lock().is_empty() {
            self.free_object(object);
        }
    }

    /// msync: write back what the range's shared file mappings have changed.
    pub fn sync(&self, space: &super::Space, range: PageRange) -> Result<(), Stop> {
        let mut objects: alloc::vec::Vec<Arc<Object>> = alloc::vec::Vec::new();
        let mut covered = true;
        for (regions, range) in space.parts(self.cpu(), range) {
            for region in regions.within(range).filter(|r| r.is_shared()) {
                if let Backing::Object { object, .. } = &region.backing
                    && !objects.iter().any(|o| o.id == object.id)
                {
                    objects.try_reserve(1).map_err(|_| MmError::NoMemory)?;
                    objects.push(object.clone());
                }
            }
            covered &= regions.cover(range);
        }
        for object in objects {
            self.write_back(&object).map_err(|_| MmError::Io)?;
        }
        if covered { Ok(()) } else { Err(MmError::NotMapped.into()) }
    }
}
