//! madvise, mincore, mlock: what a program says of its pages, and asks of them.

use super::regions::Place;
use super::{Backing, Label, MmError, Region, RegionFlags, Regions, Space, Spaces, Stop};
use crate::addr::{PageRange, Pfn, Vpn};
use crate::frame::lists::Arrival;
use crate::frame::meta::Flags;
use crate::paging::Entry;
use crate::{Platform, Rights};
use Advice::*;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;

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
    /// The same where they are locked, too.
    DontNeedLocked,
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

/// A name for memory without a file, as it is shown: with the brackets of private and of shared memory.
pub struct Naming<'a> {
    pub private: Arc<Label>,
    pub shared: &'a [u8],
}

/// How shared memory without a file is shown that has no name.
pub const NAMELESS: &[u8] = b"/dev/zero (deleted)";
/// How names begin.
pub const PRIVATE_NAME: &[u8] = b"[anon:";
pub const SHARED_NAME: &[u8] = b"[anon_shmem:";

/// The contents of what is sealed, and may not be written, may not go in other ways either.
fn check_discard(region: &Region) -> Result<(), MmError> {
    let private = !region.is_shared() && matches!(region.backing, Backing::Anonymous);
    let kept = region.flags.contains(RegionFlags::SEALED)
        && private
        && region.label.as_ref().is_none_or(|label| !label.is_of_file())
        && !region.rights.contains(Rights::WRITE);
    if kept { Err(MmError::Sealed) } else { Ok(()) }
}

impl<P: Platform> Spaces<P> {
    /// madvise. Holes are skipped and reported at the end, as on Linux. [`PageOut`] makes pages the first to go; the
    /// caller reclaims. How many pages became so.
    pub fn advise(&self, space: &Space, range: PageRange, advice: Advice) -> Result<u64, Stop> {
        if let Some((set, clear)) = flags_of(advice) {
            return self
                .alter_each(space, range, |region| {
                    let private = !region.is_shared() && matches!(region.backing, Backing::Anonymous);
                    let droppable = region.flags.contains(RegionFlags::DROPPABLE);
                    let refused = advice == WipeOnFork
                        && (!private || region.label.as_ref().is_some_and(|label| label.is_of_file()))
                        || droppable && matches!(advice, KeepOnFork | DoDump);
                    if refused {
                        return Err(MmError::Invalid);
                    }
                    let discards = matches!(advice, DontFork | WipeOnFork);
                    if discards {
                        check_discard(region)?;
                    }
                    region.flags = (region.flags - clear) | set;
                    Ok(())
                })
                .map(|()| 0);
        }
        let mut cooled = 0;
        let mut punched = alloc::vec::Vec::new();
        let mut ahead = alloc::vec::Vec::new();
        let mut covered = true;
        for (regions, range) in space.parts(self.cpu(), range) {
            // What is thrown away is likely to be used again.
            for region in regions.within_again(range, self.hint()) {
                let part = region.range.intersect(&range);
                let wired = region.flags.contains(RegionFlags::WIRED);
                if matches!(advice, DontNeed | DontNeedLocked | Free | Remove) {
                    check_discard(region)?;
                }
                match advice {
                    DontNeed | Free if wired => return Err(MmError::Invalid.into()),
                    Free if region.is_shared() || matches!(region.backing, Backing::Object { .. }) => {
                        return Err(MmError::Invalid.into());
                    }
                    DontNeed | DontNeedLocked | Free => {
                        super::guard::forget_own(region, part);
                        self.clear_range(space, part)?;
                    }
                    Cold | PageOut if wired => return Err(MmError::Invalid.into()),
                    Cold | PageOut => cooled += self.cool(space, part),
                    WillNeed | Remove => {
                        let Backing::Object { object, .. } = &region.backing else {
                            // The file of zeroes has none to give back, and is nobody's to share.
                            let of_file = region.label.as_ref().is_some_and(|label| label.is_of_file());
                            match advice {
                                Remove if of_file => return Err(MmError::Denied.into()),
                                Remove => return Err(MmError::Invalid.into()),
                                _ => continue,
                            }
                        };
                        let first = region.index(part.start);
                        let what = (object.clone(), first, first + part.len());
                        let list = if advice == WillNeed {
                            &mut ahead
                        } else if wired {
                            return Err(MmError::Invalid.into());
                        } else if !region.is_shared() || !region.max_rights.contains(Rights::WRITE) {
                            return Err(MmError::Denied.into());
                        } else if !object.is_file() {
                            &mut punched
                        } else {
                            return Err(MmError::Unsupported.into());
                        };
                        list.try_reserve(1).map_err(|_| MmError::NoMemory)?;
                        list.push(what);
                    }
                    _ => {}
                }
            }
            covered &= regions.cover(range);
        }
        for (object, first, end) in ahead {
            self.prefetch(&object, first..end);
        }
        let page = crate::PAGE_SIZE as u64;
        for (object, first, end) in punched {
            self.punch(&object, first * page, end * page)?;
        }
        if covered { Ok(cooled) } else { Err(MmError::NotMapped.into()) }
    }

    /// Say something else of every part of a region that lies in the range, from below, up to the first refusal. Holes are
    /// skipped and reported at the end.
    pub(super) fn alter_each(
        &self,
        space: &Space,
        range: PageRange,
        mut change: impl FnMut(&mut Region) -> Result<(), MmError>,
    ) -> Result<(), Stop> {
        let mut regions = space.regions_mut(self, range)?;
        let covered = regions.cover(range);
        let mut at = range.start;
        while let Some((place, part)) = part_from(&regions, at, range) {
            at = part.end;
            let mut changed = regions.at(place).clone();
            change(&mut changed)?;
            let Region { flags, label, rare, .. } = changed;
            self.alter(space, &mut regions, place, part, |region| {
                (region.flags, region.label, region.rare) = (flags, label, rare);
            })?;
        }
        if covered { Ok(()) } else { Err(MmError::NotMapped.into()) }
    }

    /// mseal: nothing, if there is a hole.
    pub fn seal(&self, space: &Space, range: PageRange) -> Result<(), Stop> {
        if !space.covers(self.cpu(), range) {
            return Err(MmError::NotMapped.into());
        }
        space.sealed.store(true, Relaxed);
        self.alter_each(space, range, |region| {
            region.flags |= RegionFlags::SEALED;
            Ok(())
        })
    }

    /// Show the range's memory under this name, or under none.
    pub fn set_name(&self, space: &Space, range: PageRange, name: Option<&Naming<'_>>) -> Result<(), Stop> {
        self.alter_each(space, range, |region| {
            let old = region.label.clone();
            match old.as_deref() {
                Some(label) if label.is_of_file() => {
                    let anonymous =
                        region.is_shared() && label.path.starts_with(SHARED_NAME) || &*label.path == NAMELESS;
                    if !anonymous {
                        return Err(MmError::HasFile);
                    }
                    let path = name.map_or(NAMELESS.into(), |name| name.shared.into());
                    region.label = Some(Arc::new(Label { path, dev: label.dev, ino: label.ino }));
                }
                Some(label) if !label.path.starts_with(PRIVATE_NAME) => {}
                _ => region.label = name.map(|name| name.private.clone()),
            }
            Ok(())
        })
    }

    /// Note what the program says about memory nodes. With `strict`, a hole is an error before anything is changed.
    pub fn set_nodes(
        &self,
        space: &Space,
        range: PageRange,
        strict: bool,
        next: &mut dyn FnMut(u64) -> Result<u64, MmError>,
    ) -> Result<(), Stop> {
        if strict && !space.covers(self.cpu(), range) {
            return Err(MmError::NotMapped.into());
        }
        let done = self.alter_each(space, range, |region| {
            let nodes = next(region.nodes())?;
            region.set_rare(|rare| rare.nodes = nodes);
            Ok(())
        });
        match done {
            Err(Stop::Mm(MmError::NotMapped)) if !strict => Ok(()),
            done => done,
        }
    }

    /// The pages become the first to be evicted. How many there are.
    fn cool(&self, space: &Space, range: PageRange) -> u64 {
        let mut cooled = 0;
        let mut gather = self.gather(space, range);
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
        if !space.covers(self.cpu(), range) {
            return Err(MmError::NotMapped.into());
        }
        for (regions, range) in space.parts(self.cpu(), range) {
            regions.within(range).for_each(|region| self.residency_of(space, region, range, f));
        }
        Ok(())
    }

    fn residency_of(&self, space: &Space, region: &Region, range: PageRange, f: &mut dyn FnMut(Vpn, bool)) {
        let part = region.range.intersect(&range);
        let opaque = region.flags.contains(RegionFlags::OPAQUE);
        let mut cursor = self.cursor(space, part);
        for page in part.iter() {
            let here = match cursor.get(page) {
                _ if opaque => true,
                Entry::Present { .. } => true,
                Entry::Swap { slot } => {
                    self.swap.record(&self.frames, slot).is_some_and(|r| r.frame.is_some())
                }
                Entry::Absent => match &region.backing {
                    Backing::Anonymous => false,
                    Backing::Object { object, .. } => {
                        matches!(object.pages.lock().get(region.index(page)), crate::object::Place::Frame(_))
                    }
                },
            };
            f(page, here);
        }
    }

    /// mlock and munlock: the regions, and the pages that are there. The caller brings in the rest.
    pub fn wire(&self, space: &Space, range: PageRange, on: bool) -> Result<(), Stop> {
        let mut regions = space.regions_mut(self, range)?;
        let covered = regions.cover(range);
        let mut at = range.start;
        while let Some((place, part)) = part_from(&regions, at, range) {
            at = part.end;
            // What may go is not held back.
            if regions.at(place).flags.contains(RegionFlags::DROPPABLE) {
                continue;
            }
            self.alter(space, &mut regions, place, part, |region| region.flags.set(RegionFlags::WIRED, on))?;
            self.cursor(space, part).each(part, &mut |_, slot| {
                if let Entry::Present { frame, .. } = slot.get()
                    && frame != self.frames.zero
                {
                    slot.keep();
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

/// The first region that has pages in `range` from `at` on: its place, and its part of the range.
fn part_from(regions: &Regions, at: Vpn, range: PageRange) -> Option<(Place, PageRange)> {
    let place = regions.place_from(at)?;
    let whole = regions.at(place).range;
    (whole.start.max(at) < range.end).then(|| (place, whole.intersect(&range)))
}

fn flags_of(advice: Advice) -> Option<(RegionFlags, RegionFlags)> {
    let (none, random, sequential) = (RegionFlags::empty(), RegionFlags::RANDOM, RegionFlags::SEQUENTIAL);
    Some(match advice {
        Normal => (none, random | sequential),
        Random => (random, sequential),
        Sequential => (sequential, random),
        DontFork => (RegionFlags::DONT_FORK, none),
        DoFork => (none, RegionFlags::DONT_FORK),
        WipeOnFork => (RegionFlags::WIPE_ON_FORK, none),
        KeepOnFork => (none, RegionFlags::WIPE_ON_FORK),
        DontDump => (RegionFlags::DONT_DUMP, none),
        HugePage => (RegionFlags::HUGE, RegionFlags::NO_HUGE),
        NoHugePage => (RegionFlags::NO_HUGE, RegionFlags::HUGE),
        DoDump => (none, RegionFlags::DONT_DUMP),
        _ => return None,
    })
}
