//! Fork: the child gets the parent's regions, and shares the parent's page tables.
//!
//! Each leaf of the parent's tables becomes one of both, and neither writes through it (`paging/share.rs`): a fork costs by the
//! table, not by the page. Who first changes something there copies the leaf (`share.rs`); a page that is written then is copied
//! by whoever writes first, and the last who is left just takes it (`fault.rs`).
//!
//! Where a region says that the child must not have its pages, or must have them empty, the leaves around it are not shared:
//! the entries of the other regions there are given one by one.
//!
//! If frames run out half-way the child is taken down again; the parent finds its leaves alone at the next walk.

use super::map::REGION_COST;
use super::sections::All;
use super::{ALL, Backing, Region, RegionFlags, Space, Spaces, Stop};
use crate::account::AccountId;
use crate::addr::{PageRange, Vpn};
use crate::mutant::mutant;
use crate::paging::{Cursor, Entry, Gather};
use crate::{MmError, Platform, Rights};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::*;

impl<P: Platform> Spaces<P> {
    pub fn fork_space(&self, parent: &Space, account: AccountId) -> Result<Arc<Space>, Stop> {
        let child = self.make_space(account, parent.family.clone(), parent.map_top().0)?;
        *child.heap.lock() = *parent.heap.lock();
        child.set_no_huge(parent.no_huge.load(Relaxed));
        child.sealed.store(parent.sealed.load(Relaxed), Relaxed);
        child.droppable.store(parent.droppable.load(Relaxed), Relaxed);
        // Held to the end: no page of the parent may come or go in between.
        let regions = parent.all_regions();
        let mut of_child = child.all_regions();
        let mut said = RegionFlags::empty();
        let copied = of_child.copy(&regions, |region| {
            if !self.platform.headroom(REGION_COST) {
                return None;
            }
            said |= region.flags;
            let copy = inherited(region);
            self.tell_object(&child, &copy);
            Some(copy)
        });
        let result = if copied {
            if said.contains(RegionFlags::DONT_FORK) {
                self.leave_out(&child, &regions, &mut of_child);
            }
            self.share_tables(parent, &child, &regions, said.intersects(APART))
        } else {
            of_child.drain(|region| self.forget_region(&child, &region));
            Err(MmError::NoMemory.into())
        };
        drop(of_child);
        drop(regions);
        if let Err(stop) = result {
            self.destroy_space(&child);
            return Err(stop);
        }
        Ok(child)
    }

    /// The child has no regions that its parent keeps for itself.
    #[cold]
    #[inline(never)]
    fn leave_out(&self, child: &Space, regions: &All<'_>, of_child: &mut All<'_>) {
        for region in regions.within(ALL).filter(|region| region.flags.contains(RegionFlags::DONT_FORK)) {
            of_child.remove(region.range, |piece| self.forget_region(child, &piece));
        }
    }

    fn share_tables(
        &self,
        parent: &Space,
        child: &Space,
        regions: &All<'_>,
        apart: bool,
    ) -> Result<(), Stop> {
        let mut theirs = self.cursor(parent, ALL);
        let mut ours = self.cursor(child, ALL);
        // It flushes before the cursors go: who finds a page by way of the child knows nothing of the parent's right to write.
        let mut gather = self.gather(parent, ALL);
        // Whole leaves are one space's only.
        theirs.open(ALL);
        let mut from = Vpn(0);
        for region in regions.parts().flat_map(|(regions, part)| regions.within(part)) {
            from = from.max(region.range.start);
            while from < region.range.end
                && let Some(page) = theirs.next_leaf(PageRange::new(from, region.range.end))
            {
                let leaves = if apart { leaf_of(page) } else { leaves_from(page, region.range.end) };
                from = leaves.end;
                if apart && regions.within(leaves).any(|r| r.flags.intersects(APART)) {
                    for region in regions.within(leaves).filter(|r| has_own(r)) {
                        let part = region.range.intersect(&leaves);
                        self.give_entries(parent, part, &mut theirs, &mut ours, &mut gather)?;
                    }
                } else if theirs.share(leaves, &mut ours)? {
                    mutant!(ForkWithoutFlush, (), gather.all_pages());
                }
            }
        }
        Ok(())
    }

    /// Give the child the range's anonymous pages one by one, both sides without the right to write.
    fn give_entries(
        &self,
        parent: &Space,
        range: PageRange,
        theirs: &mut Cursor<'_>,
        ours: &mut Cursor<'_>,
        gather: &mut Gather<'_, Self>,
    ) -> Result<(), Stop> {
        while let Some(page) = theirs.next_shared(range) {
            self.own(parent, theirs, page)?;
        }
        let mut result = Ok(());
        theirs.each(range, &mut |page, slot| {
            if result.is_err() {
                return;
            }
            let entry = slot.get();
            let target = match entry {
                Entry::Present { frame, .. } if !self.is_private(frame) && frame != self.frames.zero => {
                    return;
                }
                Entry::Absent => return,
                _ => match ours.make(page) {
                    Ok(target) => target,
                    Err(stop) => return result = Err(stop.into()),
                },
            };
            match entry {
                Entry::Swap { slot } => {
                    self.swap.add_ref(&self.frames, slot);
                    target.fill(entry);
                }
                Entry::Present { frame, rights, accessed, .. } => {
                    if frame != self.frames.zero {
                        self.frames.meta(frame).add_map();
                    }
                    let shared = super::fault::without_write(rights);
                    if shared != rights {
                        if let Entry::Present { dirty: true, .. } =
                            slot.replace(Entry::Present { frame, rights: shared, accessed, dirty: false })
                        {
                            self.mark_dirty(frame);
                        }
                        gather.page(page);
                    }
                    target.fill(Entry::fresh(frame, shared));
                }
                Entry::Absent => {}
            }
        });
        result
    }

    fn is_private(&self, frame: crate::Pfn) -> bool {
        self.frames.meta(frame).word().state() == crate::frame::meta::State::Anon
    }

    /// The CPU is about to load the space's root.
    pub fn activate(&self, space: &Space, cpu: usize) {
        space.tables.cpus.fetch_or(1 << cpu, AcqRel);
    }

    /// The CPU has left the space and holds no translation of it.
    pub fn deactivate(&self, space: &Space, cpu: usize) {
        space.tables.cpus.fetch_and(!(1 << cpu), AcqRel);
    }
}

/// The child's region: locks on memory are not inherited, nor are watchers.
fn inherited(region: &Region) -> Region {
    let mut copy = region.clone();
    copy.flags -= RegionFlags::WIRED | RegionFlags::WATCHED | RegionFlags::GUARDED;
    if copy.rare.is_some() {
        copy.set_rare(|rare| rare.watcher = None);
    }
    copy
}

/// The leaf that `page` is in.
fn leaf_of(page: Vpn) -> PageRange {
    let first = Vpn(page.0 & !511);
    PageRange::new(first, first.add(512))
}

/// The leaves from the one that `page` is in up to the one before `end`, as far as they have one node above.
fn leaves_from(page: Vpn, end: Vpn) -> PageRange {
    let node = Vpn(((page.0 >> 18) + 1) << 18);
    PageRange::new(leaf_of(page).start, Vpn((end.0 + 511) & !511).min(node))
}

/// Regions whose pages the child must not find in its tables.
const APART: RegionFlags = RegionFlags::DONT_FORK.union(RegionFlags::WIPE_ON_FORK);

/// Whether the child gets pages of the region that it could not find elsewhere.
fn has_own(region: &Region) -> bool {
    let read_only_object =
        matches!(region.backing, Backing::Object { .. }) && !region.max_rights.contains(Rights::WRITE);
    !region.is_shared() && !region.flags.intersects(APART) && !read_only_object
}
