//! The fault: the processor found no way from an address to a frame, and asks.
//!
//! ```text
//!   region allows it?  no -> Denied / NotMapped (a stack may grow instead)
//!     | yes
//!   entry?  absent   + anonymous   read: the shared page of zeroes      write: a new frame, zeroed
//!                    + object      in its page map? map it and what lies around it
//!                                  not there? bring it in, then look again
//!           present  + write       the last who uses it: make it writable       shared: copy
//!                    else          another CPU was faster: nothing to do
//!           swap                   its frame is in RAM? map it        not? read it in, then look again
//! ```
//!
//! The region lock is held shared and the cursor held while an entry is decided on, and neither while anything waits:
//! a page that must be read first is brought to where all can find it (page map, swap cache), and the fault starts
//! over. So every look at an entry is a fresh one, and two CPUs that fault on one page meet without knowing it.

use super::watch::{About, Watched};
use super::{Access, Backing, FaultError, Region, RegionFlags, Space, Spaces, Stop};
use crate::addr::{PageRange, Pfn, USER_END, VirtAddr, Vpn};
use crate::frame::Priority;
use crate::frame::lists::Arrival;
use crate::frame::meta::{Flags, FrameMeta, MAX_MAPS, State, Word};
use crate::mutant::mutant;
use crate::object::pages::NODE;
use crate::object::{Object, Place};
use crate::paging::{Cursor, Entry, Slot};
use crate::{MAX_CPUS, Platform, Rights};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::*;

/// What one look at region and entry led to.
pub(super) enum Look {
    Done,
    /// The page's bytes are on their way into this frame.
    Wait(Pfn),
    /// They are in the object's file or slot.
    Fill {
        object: Arc<Object>,
        index: u64,
    },
    /// Its watcher is to bring it.
    Ask {
        watcher: Watched,
    },
    /// Its watcher is to hear of a write to it.
    Tell {
        watcher: Watched,
    },
    /// They are in this slot.
    Read {
        slot: u32,
    },
}

/// Pages below a stack that must stay unmapped for it to grow, as Linux's `stack_guard_gap`.
const STACK_GAP: u64 = 256;

impl<P: Platform> Spaces<P> {
    /// Make the page at `at` usable for `access`.
    pub fn fault(&self, space: &Space, at: VirtAddr, access: Access) -> Result<(), Stop> {
        let page = at.page();
        if page >= USER_END {
            return Err(FaultError::NotMapped.into());
        }
        match self.look(space, page, access, PageRange::new(page, page)) {
            Ok(Look::Done) => {
                self.frames.accounts.count_minor(self.cpu(), space.account);
                Ok(())
            }
            found => self.bring(space, at, access, found),
        }
    }

    /// The page is not here yet: see to it that it comes, until a look has made it usable.
    #[cold]
    #[inline(never)]
    fn bring(
        &self,
        space: &Space,
        at: VirtAddr,
        access: Access,
        mut found: Result<Look, Stop>,
    ) -> Result<(), Stop> {
        let page = at.page();
        let mut kind = None;
        let mut brought = PageRange::new(page, page);
        loop {
            match found? {
                Look::Done => break,
                Look::Wait(frame) => self.wait_for(frame),
                Look::Ask { watcher } => self.ask(space, watcher, at, access.write, About::Missing)?,
                Look::Tell { watcher } => self.ask(space, watcher, at, true, About::Guarded)?,
                Look::Fill { object, index } => {
                    if self.fill(&object, index)? {
                        kind = Some(match object.is_file() {
                            true => &self.counters.major_file,
                            false => &self.counters.major_swap,
                        });
                    }
                }
                Look::Read { slot } => {
                    kind = Some(&self.counters.major_swap);
                    brought = self.read_in(space, page, slot)?;
                }
            }
            found = self.look_again(space, page, access, brought);
        }
        match kind {
            Some(count) => {
                count.fetch_add(1, Relaxed);
                self.frames.accounts.count_major(space.account);
            }
            None => self.frames.accounts.count_minor(self.cpu(), space.account),
        }
        Ok(())
    }

    /// Sleep until the frame's bytes have come in, or will not.
    #[cold]
    pub(super) fn wait_for(&self, frame: Pfn) {
        let meta = self.frames.meta(frame);
        self.platform.wait(frame.0 as usize, &|| !meta.word().has(Flags::READING));
    }

    #[inline(never)]
    fn look_again(&self, space: &Space, page: Vpn, access: Access, brought: PageRange) -> Result<Look, Stop> {
        self.look(space, page, access, brought)
    }

    /// `brought`: what this fault has had read from swap, which is to be mapped with the page.
    #[inline(always)]
    fn look(&self, space: &Space, page: Vpn, access: Access, brought: PageRange) -> Result<Look, Stop> {
        let cpu = self.cpu();
        let regions = space.regions(cpu, page);
        let Some(region) = regions.find_again(page, &self.last[cpu % MAX_CPUS].0) else {
            drop(regions);
            self.grow_stack(space, page)?;
            return self.look_again(space, page, access, brought);
        };
        if !allows(region, access) && refuses(region, access) {
            return Err(FaultError::Denied.into());
        }
        if region.flags.contains(RegionFlags::GUARDED) {
            return self.look_guarded(space, region, page, access, brought);
        }
        let part = leaf_part(region, page);
        let mut cursor = space.tables.cursor_in_leaf(self, &self.frames, cpu, part);
        let mut slot = match cursor.place(page) {
            Some(slot) => slot,
            None => {
                let Some(back) = self.touch_leaf(space, region, page, access, cursor)? else {
                    return Ok(Look::Done);
                };
                cursor = back;
                cursor.make(page)?
            }
        };
        if mutant!(SharedLeafChanged, false, slot.is_shared()) {
            self.own(space, &mut cursor, page)?;
            slot = cursor.make(page)?;
        }
        // The leaf is the space's own: the entry is as it says.
        match slot.raw() {
            Entry::Absent => match &region.backing {
                Backing::Anonymous if region.flags.contains(RegionFlags::WATCHED) => Ok(ask(region)),
                Backing::Anonymous if access.write => self.new_page(space, region, page, &slot),
                Backing::Anonymous => {
                    self.map_zero(region, &slot);
                    Ok(Look::Done)
                }
                Backing::Object { object, .. } => {
                    self.map_object(space, region, object, page, &mut cursor, access)
                }
            },
            Entry::Swap { slot: number } => {
                self.map_swapped(space, region, page, number, &mut cursor, brought)
            }
            Entry::Present { frame, rights, .. } => {
                if access.write && !rights.contains(Rights::WRITE) {
                    self.write_protected(space, region, page, frame, &slot)
                } else {
                    self.restore(space, region, page, rights, (&slot, &mut cursor))
                }
            }
        }
    }

    /// A new frame of zeroes for a page that is written for the first time.
    #[inline(always)]
    pub(super) fn new_page(
        &self,
        space: &Space,
        region: &Region,
        page: Vpn,
        slot: &Slot<'_>,
    ) -> Result<Look, Stop> {
        let frame = self.frames.alloc(self.cpu(), Priority::User)?;
        self.frames.phys.zero(frame);
        self.adopt(space, region, page, frame);
        slot.fill(Entry::Present { frame, rights: region.rights, accessed: true, dirty: true });
        Ok(Look::Done)
    }

    /// The frame becomes the space's anonymous page, with one map, charged and on its list.
    #[inline]
    pub(super) fn adopt(&self, space: &Space, region: &Region, page: Vpn, frame: Pfn) {
        let (cpu, lists) = (self.cpu(), &self.frames.lists);
        let (word, owner) = (Word::new(State::Anon, space.account, 1).with(Flags::DIRTY), space.family.id);
        self.frames.accounts.charge_page(cpu, space.account);
        if region.flags.contains(RegionFlags::WIRED) {
            self.frames.meta(frame).begin(word.with(Flags::WIRED), owner, page.0);
        } else {
            let young = lists.place(Arrival::Wanted);
            lists.begin(self.frames.table(), cpu, frame, (word, owner, page.0), young);
        }
    }

    pub(super) fn map_zero(&self, region: &Region, slot: &Slot<'_>) {
        let rights = without_write(region.rights);
        slot.fill(Entry::Present { frame: self.frames.zero, rights, accessed: true, dirty: false });
    }

    /// A page of an object: share its frame, or copy it for a private write.
    #[inline(never)]
    pub(super) fn map_object(
        &self,
        space: &Space,
        region: &Region,
        object: &Arc<Object>,
        page: Vpn,
        cursor: &mut Cursor<'_>,
        access: Access,
    ) -> Result<Look, Stop> {
        let index = region.index(page);
        if index >= object.end() {
            return Err(FaultError::PastEnd.into());
        }
        let pages = object.pages.lock();
        let Place::Frame(frame) = pages.get(index) else {
            if region.flags.contains(RegionFlags::WATCHED) && pages.get(index) == Place::Nowhere {
                return Ok(ask(region));
            }
            return Ok(Look::Fill { object: object.clone(), index });
        };
        let meta = self.frames.meta(frame);
        if meta.word().has(Flags::READING) {
            return Ok(Look::Wait(frame));
        }
        if access.write && !region.is_shared() {
            let own = self.frames.alloc(self.cpu(), Priority::User)?;
            self.frames.phys.copy(frame, own);
            drop(pages);
            self.adopt(space, region, page, own);
            let slot = cursor.make(page)?;
            slot.fill(Entry::Present { frame: own, rights: region.rights, accessed: true, dirty: true });
            return Ok(Look::Done);
        }
        if meta.word().maps() >= MAX_MAPS {
            return Err(FaultError::OutOfMemory.into());
        }
        let rights = if region.is_shared() { region.rights } else { without_write(region.rights) };
        // Around it what is here already, up to the object's end.
        let mut window = around(region, page);
        window.end = window.end.min(page.add(object.end() - index));
        let below = index - page.since(window.start);
        let Some((_, place)) = pages.around(index) else { return Ok(Look::Done) };
        let wired = region.flags.contains(RegionFlags::WIRED);
        cursor.each_absent(window, &mut |near, slot| {
            let Place::Frame(frame) = place(below + near.since(window.start)) else { return };
            let meta = self.frames.meta(frame);
            let word = meta.word();
            if word.has(Flags::READING) || word.maps() >= MAX_MAPS {
                return;
            }
            meta.add_map();
            slot.fill_of_object(Entry::Present { frame, rights, accessed: near == page, dirty: false });
            if wired {
                slot.keep();
                self.set_wired(frame, true);
            }
        });
        Ok(Look::Done)
    }

    /// A write to a page that is mapped without the right: the page of zeroes, a page shared since a fork, a file's
    /// page in a private region; or one whose region has since become writable.
    #[inline(always)]
    pub(super) fn write_protected(
        &self,
        space: &Space,
        region: &Region,
        page: Vpn,
        frame: Pfn,
        slot: &Slot<'_>,
    ) -> Result<Look, Stop> {
        let own = frame != self.frames.zero && (region.is_shared() || self.is_exclusive(frame));
        if own {
            // No flush: another CPU that still holds the translation without the right faults once more, at worst.
            slot.renew(Entry::Present { frame, rights: region.rights, accessed: true, dirty: true });
            return Ok(Look::Done);
        }
        self.copy_on_write(space, region, page, frame, slot)
    }

    #[inline(never)]
    fn copy_on_write(
        &self,
        space: &Space,
        region: &Region,
        page: Vpn,
        frame: Pfn,
        slot: &Slot<'_>,
    ) -> Result<Look, Stop> {
        let copy = self.frames.alloc(self.cpu(), Priority::User)?;
        if frame == self.frames.zero {
            self.frames.phys.zero(copy);
        } else {
            self.frames.phys.copy(frame, copy);
        }
        self.adopt(space, region, page, copy);
        let new = Entry::Present { frame: copy, rights: region.rights, accessed: true, dirty: true };
        slot.replace_after(new, |old| {
            let mut gather = self.gather(space, one(page));
            if let Entry::Present { frame, dirty, .. } = old {
                self.forget_map(frame, page, dirty, &mut gather);
            }
            gather.flush();
        });
        Ok(Look::Done)
    }

    /// Whether an anonymous page has no other user: no second entry, and none that names its slot.
    #[inline]
    pub(super) fn is_exclusive(&self, frame: Pfn) -> bool {
        let meta = self.frames.meta(frame);
        let word = meta.word();
        word.state() == State::Anon && word.maps() == 1 && (meta.slot() == 0 || self.is_unnamed(meta))
    }

    #[cold]
    fn is_unnamed(&self, meta: &FrameMeta) -> bool {
        // Who maps it instead of naming its slot changes both numbers under this lock.
        let state = self.swap.state.lock();
        meta.word().maps() == 1
            && state.slots.get(&self.frames, meta.slot()).is_none_or(|record| record.refs == 0)
    }

    /// The entry forbids what the region allows: bring it in line. Or it allows that already: then another CPU was faster, or it is this
    /// CPU's own way there that is missing.
    #[inline(never)]
    pub(super) fn restore(
        &self,
        space: &Space,
        region: &Region,
        page: Vpn,
        rights: Rights,
        (slot, cursor): (&Slot<'_>, &mut Cursor<'_>),
    ) -> Result<Look, Stop> {
        let mut wanted = region.rights | Rights::READ;
        if !region.is_shared() && !rights.contains(Rights::WRITE) {
            wanted = without_write(wanted);
        }
        if wanted == rights {
            cursor.reach(page)?;
            return Ok(Look::Done);
        }
        slot.set_rights(wanted);
        // What is only allowed more needs no flush: see `write_protected`.
        if !wanted.contains(rights) {
            let mut gather = self.gather(space, one(page));
            gather.page(page);
            gather.flush();
        }
        Ok(Look::Done)
    }

    /// The access was below a stack: extend it, if it may reach so far.
    #[cold]
    fn grow_stack(&self, space: &Space, page: Vpn) -> Result<(), Stop> {
        let mut regions = space.regions_mut(self, one(page))?;
        let Some(stack) = regions.first_from(page) else { return Err(FaultError::NotMapped.into()) };
        let (start, pages) = (stack.range.start, stack.range.end.since(page));
        let fits = stack.flags.contains(RegionFlags::GROWS_DOWN) && pages <= stack.grow_limit();
        // What nobody can use, and another stack, is no danger below.
        let free = regions.last_before(page).is_none_or(|below| {
            let harmless = below.rights.is_empty() || below.flags.contains(RegionFlags::GROWS_DOWN);
            harmless || below.range.end.0 + STACK_GAP <= page.0
        });
        if page >= start {
            return Ok(());
        }
        if !fits || !free || page < crate::USER_START {
            return Err(FaultError::NotMapped.into());
        }
        regions.change(start, |stack| stack.range.start = page);
        Ok(())
    }
}

fn one(page: Vpn) -> PageRange {
    PageRange::new(page, page.add(1))
}

/// The page of a watched region is missing.
#[cold]
pub(super) fn ask(region: &Region) -> Look {
    // Without one it would not be marked; another look tells.
    region.watcher().cloned().map_or(Look::Done, |watcher| Look::Ask { watcher })
}

/// The same rights but writing; what may be written or executed may also be read.
pub(super) fn without_write(rights: Rights) -> Rights {
    if rights.is_empty() { rights } else { (rights | Rights::READ) - Rights::WRITE }
}

#[inline]
fn allows(region: &Region, access: Access) -> bool {
    match access {
        Access { write: true, .. } => region.rights.contains(Rights::WRITE),
        Access { exec: true, .. } => may_be_executed(region),
        // The processor cannot forbid reading alone: what may be written or executed may be read.
        _ => !region.rights.is_empty(),
    }
}

#[inline(never)]
fn may_be_executed(region: &Region) -> bool {
    region.rights.contains(Rights::EXEC)
}

/// Whether what the region does not allow is refused to a debugger too.
#[cold]
#[inline(never)]
fn refuses(region: &Region, access: Access) -> bool {
    access != Access::FORCED || region.is_shared()
}

/// The part of the region that the same leaf of the page table covers.
fn leaf_part(region: &Region, page: Vpn) -> PageRange {
    let first = Vpn(page.0 & !511);
    region.range.intersect(&PageRange::new(first, first.add(512)))
}

/// The pages of the region whose object pages share a node with `page`'s, within its leaf.
fn around(region: &Region, page: Vpn) -> PageRange {
    let before = region.index(page) % NODE;
    let first = Vpn(page.0.saturating_sub(before));
    leaf_part(region, page).intersect(&PageRange::new(first, Vpn(page.0 - before.min(page.0) + NODE)))
}
