//! Sections: parts of a space whose regions have a lock each.
//!
//! While a space has one thread, all of it is one section. When it is about to have a second ([`Spaces::divide`]), and there are CPUs to
//! run them side by side, there are sections for threads: addresses where each puts the memory that it maps wherever there is room. Which
//! is whose is told by the thread's number; where there are more threads than sections, some have one together.
//!
//! ```text
//!   common                                  of threads 0, 16 .. ; 1, 17 .. ; 2 …          common
//!   program, heap, what is large       |----|----|----|----|                   libraries, files, stacks
//! ```
//!
//! A section belongs to its thread by custom only: any other may use, change or unmap what lies there, and takes the section's lock for
//! that. But most of what a thread maps it uses and unmaps itself, and then two CPUs meet neither at a lock nor at a line: who wants to
//! write a section looks at the lines of those CPUs that have ever read it ([`crate::lock::BigReaderLock`]), and that is mostly himself. It
//! goes by threads, not by the CPU that one happens to run on, so that what a thread has mapped before it was moved is still its own. What
//! other threads are going to use is put in the common part: stacks, files, shared memory.
//!
//! Where a section ends is fixed, and no region lies in two. Who looks at a range goes from one to the next. Who wants
//! to change a range that lies in several *unites* the space first: all sections become one again, for good. Programs hardly ever do, as
//! they would have to know where the sections are.

use super::region::Region;
use super::regions::{Bounds, Regions};
use super::{ALL, MmError, RegionsMut, Space, Spaces};
use crate::Platform;
use crate::addr::{PageRange, Vpn};
use crate::lock::{BigReaderLock, Once, ReadGuard, Readers, rank};
use alloc::boxed::Box;
use alloc::sync::Arc;
use arrayvec::ArrayVec;
use core::iter::once;
use core::sync::atomic::{AtomicUsize, Ordering::*};

/// Sections for threads.
const SECTIONS: usize = 16;
/// Each has 32 GiB: all together stay within what tools that lay out the address space by themselves leave to `mmap`.
const SHIFT: u32 = 23;
/// One mapping may have this part of it.
const LARGE: u64 = 1 << (SHIFT - 2);
/// Sections begin where no node of the page tables that CPUs share is above two ([`crate::paging`]'s views).
const ALIGN: u64 = 1 << 18;
/// So many regions may have come or gone in a section before it is told to the others.
const TOLD: usize = 64;

type Lock = BigReaderLock<Regions, { rank::REGIONS }>;
pub(crate) type RegionsRef<'a> = ReadGuard<'a, Regions, { rank::REGIONS }>;

/// A space's regions.
pub(crate) struct Sections {
    /// While there is one section. Closed once there are others, to which its regions have gone.
    one: Lock,
    several: Once<Box<Several>>,
}

/// The sections of a space that has several.
struct Several {
    common: Section,
    /// What those of threads cover, side by side.
    block: PageRange,
    /// Each has `1 << shift` pages.
    shift: u32,
    /// By thread's number, modulo how many there are. Closed once the space is united.
    own: Box<[Section]>,
}

#[repr(align(128))]
struct Section {
    lock: Lock,
    /// Regions in it, or about as many.
    len: AtomicUsize,
}

impl Section {
    fn new(readers: &Arc<Readers>, regions: Regions) -> Self {
        Section { len: AtomicUsize::new(regions.len()), lock: Lock::new(readers, regions) }
    }
}

/// What never happens: only a space's first section and those of threads are closed.
const CLOSED: &str = "the common section stays open";

impl Several {
    /// The section of a thread that the page is in, if it is in one.
    fn own(&self, page: Vpn) -> Option<&Section> {
        self.own.get((page.0.wrapping_sub(self.block.start.0) >> self.shift) as usize)
    }

    /// The part of the range, from its start, that lies in one section.
    fn part(&self, range: PageRange) -> PageRange {
        let offset = range.start.0.wrapping_sub(self.block.start.0);
        let end = match self.own(range.start) {
            Some(_) => self.block.start.add(((offset >> self.shift) + 1) << self.shift),
            None if range.start < self.block.start => self.block.start,
            None => range.end,
        };
        PageRange::new(range.start, end.min(range.end))
    }

    #[cfg_attr(feature = "contention", track_caller)]
    fn read(&self, cpu: usize, page: Vpn) -> RegionsRef<'_> {
        let own = self.own(page).and_then(|own| own.lock.read(cpu));
        own.unwrap_or_else(|| self.common.lock.read(cpu).expect(CLOSED))
    }

    #[cfg_attr(feature = "contention", track_caller)]
    fn write(&self, page: Vpn) -> RegionsMut<'_> {
        let own = self.own(page).and_then(|own| own.lock.write());
        own.unwrap_or_else(|| self.common.lock.write().expect(CLOSED))
    }

    /// Put all regions into the common section, which has all addresses then. `room`: whether there is memory for so many regions.
    fn unite(&self, room: &dyn Fn(usize) -> bool) -> Result<(), MmError> {
        let mut common = self.common.lock.write().expect(CLOSED);
        let mut own: ArrayVec<_, SECTIONS> = self.own.iter().filter_map(|own| own.lock.write()).collect();
        if !room(own.iter().map(|regions| regions.len()).sum()) {
            return Err(MmError::NoMemory);
        }
        common.bounds = Bounds::None;
        for mut regions in own.drain(..) {
            for region in regions.drain() {
                common.make_room();
                common.insert(region);
            }
            regions.close();
        }
        Ok(())
    }

    /// Regions of all sections, seen from this one.
    #[cold]
    fn len(&self, here: &Regions) -> usize {
        let this = match here.bounds {
            Bounds::Within { section, .. } => self.own(section.start).unwrap_or(&self.common),
            _ => &self.common,
        };
        if this.len.load(Relaxed).abs_diff(here.len()) >= TOLD {
            this.len.store(here.len(), Relaxed);
        }
        let told: usize = [&self.common].into_iter().chain(&self.own).map(|s| s.len.load(Relaxed)).sum();
        told - this.len.load(Relaxed) + here.len()
    }
}

impl Sections {
    pub fn new(readers: &Arc<Readers>) -> Self {
        Sections { one: Lock::new(readers, Regions::new()), several: Once::new() }
    }

    /// Once the first section has been found closed.
    fn several(&self) -> &Several {
        self.several.get().expect("made before that was closed")
    }

    #[inline(always)]
    #[cfg_attr(feature = "contention", track_caller)]
    fn read(&self, cpu: usize, page: Vpn) -> RegionsRef<'_> {
        match self.one.read(cpu) {
            Some(regions) => regions,
            None => self.read_section(cpu, page),
        }
    }

    #[inline(never)]
    #[cfg_attr(feature = "contention", track_caller)]
    fn read_section(&self, cpu: usize, page: Vpn) -> RegionsRef<'_> {
        self.several().read(cpu, page)
    }
}

impl Space {
    /// To look at the regions of the section that the page is in, on this CPU.
    #[inline(always)]
    #[cfg_attr(feature = "contention", track_caller)]
    pub(crate) fn regions(&self, cpu: usize, page: Vpn) -> RegionsRef<'_> {
        self.sections.read(cpu, page)
    }

    /// As [`Space::regions`], for who does not know the CPU.
    pub(super) fn regions_here(&self, page: Vpn) -> RegionsRef<'_> {
        self.sections.read(self.sections.one.here(), page)
    }

    /// To look at all of a range, section by section in order of address: one at a time is locked.
    #[cfg_attr(feature = "contention", track_caller)]
    pub(crate) fn parts(
        &self,
        cpu: usize,
        range: PageRange,
    ) -> impl Iterator<Item = (RegionsRef<'_>, PageRange)> {
        let mut rest = range;
        core::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let regions = self.sections.read(cpu, rest.start);
            // United or not: where a section ended is a place to stop as good as any.
            let part = self.sections.several.get().map_or(rest, |several| several.part(rest));
            rest = PageRange::new(part.end, rest.end);
            Some((regions, part))
        })
    }

    /// Each region that ends after `page`, in order, for as long as the callback wants more.
    pub(super) fn each_region(&self, page: Vpn, f: &mut dyn FnMut(&Region) -> bool) {
        let all = PageRange::new(page, ALL.end);
        for (regions, part) in self.parts(self.sections.one.here(), all) {
            // What lies across the end of a part is told with the part that it begins in.
            let from = |region: &&Region| region.range.start >= part.start || part.start == page;
            if !regions.within(part).filter(from).all(&mut *f) {
                return;
            }
        }
    }

    /// The sum of what is told of each section.
    pub(super) fn sum_regions(&self, of: &mut dyn FnMut(&Regions) -> u64) -> u64 {
        let cpu = self.sections.one.here();
        if let Some(one) = self.sections.one.read(cpu) {
            return of(&one);
        }
        let several = self.sections.several();
        let own = several.own.iter().filter_map(|own| own.lock.read(cpu).map(|regions| of(&regions)));
        own.sum::<u64>() + of(&several.common.lock.read(cpu).expect(CLOSED))
    }

    /// Whether the range has no hole.
    pub(crate) fn covers(&self, cpu: usize, range: PageRange) -> bool {
        self.parts(cpu, range).all(|(regions, part)| regions.cover(part))
    }

    /// To change what lies in the range; nobody else looks at it then.
    #[inline(always)]
    #[cfg_attr(feature = "contention", track_caller)]
    pub(crate) fn regions_mut<P: Platform>(
        &self,
        spaces: &Spaces<P>,
        range: PageRange,
    ) -> Result<RegionsMut<'_>, MmError> {
        self.regions_or(|| self.section_mut(spaces, range))
    }

    #[inline(never)]
    #[cfg_attr(feature = "contention", track_caller)]
    pub(super) fn section_mut<P: Platform>(
        &self,
        spaces: &Spaces<P>,
        range: PageRange,
    ) -> Result<RegionsMut<'_>, MmError> {
        let several = self.sections.several();
        let mut regions = several.write(range.start);
        if !regions.bounds.allow(range) {
            drop(regions);
            several.unite(&|regions| spaces.room_to_move(regions))?;
            regions = several.write(range.start);
        }
        Ok(regions)
    }

    /// As [`Space::regions_mut`], where `elsewhere` says in which of several.
    #[inline(always)]
    #[cfg_attr(feature = "contention", track_caller)]
    pub(super) fn regions_or<'a>(
        &'a self,
        elsewhere: impl FnOnce() -> Result<RegionsMut<'a>, MmError>,
    ) -> Result<RegionsMut<'a>, MmError> {
        match self.sections.one.write() {
            Some(regions) => Ok(regions),
            None => elsewhere(),
        }
    }

    /// To map something wherever there is room, for the thread of that number.
    #[cfg_attr(feature = "contention", track_caller)]
    pub(super) fn section_of(&self, thread: u32) -> RegionsMut<'_> {
        let several = self.sections.several();
        let own = several.own[thread as usize % several.own.len()].lock.write();
        own.unwrap_or_else(|| several.common.lock.write().expect(CLOSED))
    }

    /// To change all regions, or to see to it that none changes.
    pub(crate) fn all_regions(&self) -> All<'_> {
        match self.sections.one.write() {
            Some(regions) => All { block: ALL.end, common: regions, own: ArrayVec::new() },
            None => self.sections.several().all(),
        }
    }

    /// Change the regions of each section. None may come or go.
    pub(super) fn each_section_mut(&self, f: &mut dyn FnMut(&mut Regions)) {
        let mut all = self.all_regions();
        f(&mut all.common);
        all.own.iter_mut().for_each(|regions| f(regions));
    }

    /// Regions in all, where these are held.
    #[inline]
    pub(super) fn count(&self, regions: &Regions) -> usize {
        match regions.bounds {
            Bounds::None => regions.len(),
            _ => self.sections.several().len(regions),
        }
    }
}

impl Several {
    fn all(&self) -> All<'_> {
        let common = self.common.lock.write().expect(CLOSED);
        let own: ArrayVec<_, SECTIONS> = self.own.iter().filter_map(|own| own.lock.write()).collect();
        // United: there is no block.
        All { block: if own.is_empty() { ALL.end } else { self.block.start }, common, own }
    }
}

/// The right to change all regions.
pub(crate) struct All<'a> {
    /// Where what threads have begins, between what is common.
    block: Vpn,
    common: RegionsMut<'a>,
    own: ArrayVec<RegionsMut<'a>, SECTIONS>,
}

impl All<'_> {
    /// The regions of each section, and the part of the space that is theirs: in order of address.
    pub fn parts(&self) -> impl Iterator<Item = (&Regions, PageRange)> {
        let common = |part| (&*self.common, part);
        let section = |own: &Regions| own.bounds.section().unwrap_or(ALL);
        let below = PageRange::new(ALL.start, self.block);
        let own = self.own.iter().map(move |own| (&**own, section(own)));
        let above = self.own.last().map(|last| PageRange::new(section(last).end, ALL.end));
        once(below).map(common).chain(own).chain(above.map(common))
    }

    /// Have the regions of another space, in place of none (see [`Regions::copy`]). What lies in sections there comes to the others here.
    pub fn copy(&mut self, from: &All<'_>, mut copy: impl FnMut(&Region) -> Option<Region>) -> bool {
        self.common.copy(&from.common, &mut copy) && (from.own.is_empty() || self.copy_own(from, &mut copy))
    }

    #[cold]
    fn copy_own(&mut self, from: &All<'_>, copy: &mut dyn FnMut(&Region) -> Option<Region>) -> bool {
        from.own.iter().flat_map(|own| own.from(ALL.start)).all(|region| {
            let copy = if self.common.make_room() { copy(region) } else { None };
            copy.map(|copy| self.common.insert(copy)).is_some()
        })
    }

    /// Take out what lies in the range, where all is common.
    pub fn remove(&mut self, range: PageRange, taken: impl FnMut(Region)) {
        self.common.remove(range, taken);
    }

    /// Those that overlap the range, in any order.
    pub fn within(&self, range: PageRange) -> impl Iterator<Item = &Region> {
        let all = [&*self.common].into_iter().chain(self.own.iter().map(|own| &**own));
        all.flat_map(move |regions| regions.within(range))
    }

    /// Take out all.
    pub fn drain(&mut self, mut taken: impl FnMut(Region)) {
        self.common.drain().for_each(&mut taken);
        self.own.iter_mut().for_each(|own| own.drain().for_each(&mut taken));
    }
}

impl<P: Platform> Spaces<P> {
    /// The space is about to have threads that run side by side, on so many CPUs: threads get sections, and CPUs their own ways to what
    /// they use.
    /// Whether that changes something.
    pub fn divide(&self, space: &Space, cpus: usize) -> bool {
        if cpus < 2 || space.tables.is_parted() {
            return false;
        }
        self.divide_regions(space, SHIFT, &mut |regions, top| {
            let pages = (SECTIONS as u64) << SHIFT;
            let hole = regions.find_hole(pages + ALIGN, top)?;
            let start = Vpn(hole.0.next_multiple_of(ALIGN));
            Some(PageRange::new(start, start.add(pages))).filter(|block| block.end <= top)
        });
        space.tables.part(&self.frames, self.cpu(), cpus, &self.kernel);
        self.forget_translations(space);
        true
    }

    /// Make sections of so many pages each, where `block` says. If that is nowhere, there is one still.
    pub(crate) fn divide_regions(
        &self,
        space: &Space,
        shift: u32,
        block: &mut dyn FnMut(&mut Regions, Vpn) -> Option<PageRange>,
    ) {
        let Some(mut one) = space.sections.one.write() else { return };
        let Some(block) = block(&mut one, space.map_top()) else { return };
        let own = |n: u64| {
            let section = PageRange::new(block.start.add(n << shift), block.start.add((n + 1) << shift));
            // Not from the section's end, or one could tell the last bits of every address.
            let top = Vpn(section.end.0 - self.platform.random() % (section.len() / 32));
            let mut regions = Regions::new();
            regions.bounds = Bounds::Within { section, top };
            Section::new(&self.readers, regions)
        };
        space.sections.several.call_once(|| {
            let mut regions = core::mem::take(&mut *one);
            regions.bounds = Bounds::Beside(block);
            let own = (0..block.len() >> shift).map(own).collect();
            Box::new(Several { common: Section::new(&self.readers, regions), block, shift, own })
        });
        // What is common is placed below.
        space.map_top.fetch_min(block.start.0, Relaxed);
        one.close();
    }

    /// Whether there is memory to move so many regions.
    fn room_to_move(&self, regions: usize) -> bool {
        self.platform.headroom(super::map::REGION_COST + 2 * regions * size_of::<Region>())
    }
}

/// Whether a mapping of so many pages may be put in a thread's section.
pub(super) fn is_small(pages: u64) -> bool {
    pages <= LARGE
}
