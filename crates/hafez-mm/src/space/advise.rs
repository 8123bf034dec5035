//! madvise, mincore, mlock: what a program says of its pages, and asks of them.

use super::{Backing, MmError, RegionFlags, Space, Spaces, Stop};
use crate::addr::{PageRange, Pfn, Vpn};
use crate::frame::lists::Arrival;
use crate::frame::meta::Flags;
use crate::paging::Entry;
use crate::{Platform, Rights};

/// What can be said of a range of pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    Normal,
    Random,
    Sequential,
    /// Read it soon: files are read ahead.
    WillNeed,
    /// Its contents are not needed: private pages read as new again.
    DontNeed,
    /// As `DontNeed`, but at leisure; here, at once for clean pages, by ageing for the rest.
    Free,
    /// Not needed soon: first to be evicted.
    Cold,
    /// Evict it now.
    PageOut,
    DontFork,
    DoFork,
    WipeOnFork,
    KeepOnFork,
    DontDump,
    DoDump,
    HugePage,
    NoHugePage,
    /// Free the pages of the shared object behind it.
    Remove,
    /// Bring the pages in, as a read or a write would.
    PopulateRead,
    PopulateWrite,
}

impl<P: Platform> Spaces<P> {
    /// madvise. Holes are skipped and reported at the end, as on Linux. [`Advice::PageOut`] makes pages the first to go; the
    /// caller reclaims. How many pages became so.
    pub fn advise(&self, space: &Space, range: PageRange, advice: Advice) -> Result<u64, Stop> {
        if let Some((set, clear)) = flags_of(advice) {
            return self.alter_flags(space, range, advice, set, clear).map(|()| 0);
        }
        let mut cooled = 0;
        let mut punched = alloc::vec::Vec::new();
        let mut ahead = alloc::vec::Vec::new();
        {
            let regions = space.regions.read();
            for region in regions.within(range) {
                let part = region.range.intersect(&range);
                let wired = region.flags.contains(RegionFlags::WIRED);
                match advice {
                    Advice::DontNeed | Advice::Free if wired => return Err(MmError::Invalid.into()),
                    Advice::Free
                        if region.is_shared() || matches!(region.backing, Backing::Object { .. }) =>
                    {
                        return Err(MmError::Invalid.into());
                    }
                    Advice::DontNeed | Advice::Free => {
                        self.clear_range(space, part)?;
                    }
                    Advice::Cold | Advice::PageOut if wired => return Err(MmError::Invalid.into()),
                    Advice::Cold | Advice::PageOut => cooled += self.cool(space, part),
                    Advice::WillNeed | Advice::Remove => {
                        let Backing::Object { object, .. } = &region.backing else {
                            match advice {
                                Advice::Remove => return Err(MmError::Invalid.into()),
                                _ => continue,
                            }
                        };
                        let first = region.index(part.start);
                        let what = (object.clone(), first, first + part.len());
                        let list = if advice == Advice::WillNeed {
                            &mut ahead
                        } else if wired {
                            return Err(MmError::Invalid.into());
                        } else if !region.is_shared() || !region.max_rights.contains(Rights::WRITE) {
                            return Err(MmError::Denied.into());
                        } else if !object.is_file() {
                            &mut punched
                        } else {
                            return Err(MmError::Invalid.into());
                        };
                        list.try_reserve(1).map_err(|_| MmError::NoMemory)?;
                        list.push(what);
                    }
                    _ => {}
                }
            }
            if !regions.cover(range) {
                return Err(MmError::NotMapped.into());
            }
        }
        for (object, first, end) in ahead {
            self.prefetch(&object, first..end);
        }
        let page = crate::PAGE_SIZE as u64;
        for (object, first, end) in punched {
            self.punch(&object, first * page, end * page)?;
        }
        Ok(cooled)
    }

    fn alter_flags(
        &self,
        space: &Space,
        range: PageRange,
        advice: Advice,
        set: RegionFlags,
        clear: RegionFlags,
    ) -> Result<(), Stop> {
        let mut regions = space.regions.write();
        let covered = regions.cover(range);
        let mut at = range.start;
        while let Some(region) = regions.first_from(at).filter(|r| r.range.start.max(at) < range.end) {
            let whole = region.range;
            let part = whole.intersect(&range);
            let private = !region.is_shared() && matches!(region.backing, Backing::Anonymous);
            if advice == Advice::WipeOnFork && !private {
                return Err(MmError::Invalid.into());
            }
            at = part.end;
            self.alter(&mut regions, whole, part, |region| region.flags = (region.flags - clear) | set)?;
        }
        if covered { Ok(()) } else { Err(MmError::NotMapped.into()) }
    }

    /// The pages become the first to be evicted. How many there are.
    fn cool(&self, space: &Space, range: PageRange) -> u64 {
        let mut cooled = 0;
        let mut gather = self.gather(space);
        let oldest = self.frames.lists.place(Arrival::Ahead);
        self.cursor(space, range).each(range, &mut |page, slot| {
            if let Entry::Present { frame, .. } = slot.get() {
                if slot.take_accessed() {
                    gather.page(page);
                }
                let meta = self.frames.meta(frame);
                if meta.word().maps() == 1 {
                    meta.clear(Flags::REFERENCED);
                    self.frames.lists.promote(self.frames.table(), frame, oldest);
                    cooled += 1;
                }
            }
        });
        gather.flush();
        cooled
    }

    /// mincore: for each page whether it is in RAM.
    pub fn residency(
        &self,
        space: &Space,
        range: PageRange,
        f: &mut dyn FnMut(Vpn, bool),
    ) -> Result<(), Stop> {
        let regions = space.regions.read();
        if !regions.cover(range) {
            return Err(MmError::NotMapped.into());
        }
        for region in regions.within(range) {
            let part = region.range.intersect(&range);
            let mut cursor = self.cursor(space, part);
            for page in part.iter() {
                let here = match cursor.get(page) {
                    Entry::Present { .. } => true,
                    Entry::Swap { slot } => {
                        self.swap.record(&self.frames, slot).is_some_and(|r| r.frame.is_some())
                    }
                    Entry::Absent => match &region.backing {
                        Backing::Anonymous => false,
                        Backing::Object { object, .. } => {
                            matches!(
                                object.pages.lock().get(region.index(page)),
                                crate::object::Place::Frame(_)
                            )
                        }
                    },
                };
                f(page, here);
            }
        }
        Ok(())
    }

    /// mlock and munlock: the regions, and the pages that are there. The caller brings in the rest.
    pub fn wire(&self, space: &Space, range: PageRange, on: bool) -> Result<(), Stop> {
        let mut regions = space.regions.write();
        let covered = regions.cover(range);
        let mut at = range.start;
        while let Some(region) = regions.first_from(at).filter(|r| r.range.start.max(at) < range.end) {
            let whole = region.range;
            let part = whole.intersect(&range);
            at = part.end;
            self.alter(&mut regions, whole, part, |region| region.flags.set(RegionFlags::WIRED, on))?;
            self.cursor(space, part).each(part, &mut |_, slot| {
                if let Entry::Present { frame, .. } = slot.get()
                    && frame != self.frames.zero
                {
                    self.set_wired(frame, on);
                }
            });
        }
        if covered { Ok(()) } else { Err(MmError::NotMapped.into()) }
    }

    /// Take the frame off the generation lists, or put it back. One that reclaim has in hand is left to it: it looks
    /// at the mark before it goes on.
    pub(super) fn set_wired(&self, frame: Pfn, on: bool) {
        let (lists, table) = (&self.frames.lists, self.frames.table());
        match on {
            true => lists.wire(table, frame),
            false => lists.unwire(table, frame, lists.place(Arrival::Wanted)),
        }
    }
}

fn flags_of(advice: Advice) -> Option<(RegionFlags, RegionFlags)> {
    let (none, random, sequential) = (RegionFlags::empty(), RegionFlags::RANDOM, RegionFlags::SEQUENTIAL);
    Some(match advice {
        Advice::Normal => (none, random | sequential),
        Advice::Random => (random, sequential),
        Advice::Sequential => (sequential, random),
        Advice::DontFork => (RegionFlags::DONT_FORK, none),
        Advice::DoFork => (none, RegionFlags::DONT_FORK),
        Advice::WipeOnFork => (RegionFlags::WIPE_ON_FORK, none),
        Advice::KeepOnFork => (none, RegionFlags::WIPE_ON_FORK),
        Advice::DontDump => (RegionFlags::DONT_DUMP, none),
        Advice::HugePage => (RegionFlags::HUGE, RegionFlags::NO_HUGE),
        Advice::NoHugePage => (RegionFlags::NO_HUGE, RegionFlags::HUGE),
        Advice::DoDump => (none, RegionFlags::DONT_DUMP),
        _ => return None,
    })
}
