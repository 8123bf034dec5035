//! Fork: the child gets the parent's regions, and its anonymous pages without a copy.
//!
//! Each such page's entry loses its write right in both spaces; whoever writes first copies it, and the last who is
//! left just takes it (`fault.rs`). Pages of objects are not copied: the child finds them in the object's page map.
//! If frames run out half-way the child is taken down again; entries of the parent that lost their write right get
//! it back at the next write, since their frames have one user again.

use super::{Backing, RegionFlags, Space, Spaces, Stop};
use crate::account::AccountId;
use crate::addr::Vpn;
use crate::frame::meta::MAX_MAPS;
use crate::mutant::mutant;
use crate::paging::{Entry, Gather};
use crate::{Platform, Rights};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::*;

impl<P: Platform> Spaces<P> {
    pub fn fork_space(&self, parent: &Space, account: AccountId) -> Result<Arc<Space>, Stop> {
        let child = self.make_space(account, parent.family.clone(), parent.map_top().0)?;
        *child.heap.lock() = *parent.heap.lock();
        // Held to the end: no page of the parent may come or go in between.
        let regions = parent.regions.write();
        let mut of_child = child.regions.write();
        let mut gather = self.gather(parent);
        let mut result = Ok(());
        for region in regions.from(Vpn(0)) {
            if region.flags.contains(RegionFlags::DONT_FORK) {
                continue;
            }
            let mut copy = region.clone();
            // Locks on memory are not inherited.
            copy.flags -= RegionFlags::WIRED;
            self.add_region(&child, &mut of_child, copy);
            let has_own = !region.is_shared() && !region.flags.contains(RegionFlags::WIPE_ON_FORK);
            let read_only_object = matches!(region.backing, Backing::Object { .. })
                && !region.max_rights.contains(Rights::WRITE);
            if has_own && !read_only_object {
                result = self.share_entries(parent, &child, region.range, &mut gather);
            }
            if result.is_err() {
                break;
            }
        }
        gather.finish();
        drop(of_child);
        drop(regions);
        if let Err(stop) = result {
            self.destroy_space(&child);
            return Err(stop);
        }
        Ok(child)
    }

    /// Give the child the range's anonymous pages, both sides without the right to write.
    fn share_entries(
        &self,
        parent: &Space,
        child: &Space,
        range: crate::PageRange,
        gather: &mut Gather<'_, Self>,
    ) -> Result<(), Stop> {
        let mut theirs = self.cursor(parent, range);
        let mut ours = self.cursor(child, range);
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
                        let meta = self.frames.meta(frame);
                        if meta.word().maps() >= MAX_MAPS {
                            return result = Err(Stop::NoFrames);
                        }
                        meta.add_map();
                    }
                    let shared = super::fault::without_write(rights);
                    if shared != rights {
                        if let Entry::Present { dirty: true, .. } =
                            slot.replace(Entry::Present { frame, rights: shared, accessed, dirty: false })
                        {
                            self.mark_dirty(frame);
                        }
                        mutant!(ForkWithoutFlush, (), gather.page(page));
                    }
                    target.fill(Entry::Present { frame, rights: shared, accessed: false, dirty: false });
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
        space.cpus.fetch_or(1 << cpu, AcqRel);
    }

    /// The CPU has left the space and holds no translation of it.
    pub fn deactivate(&self, space: &Space, cpu: usize) {
        space.cpus.fetch_and(!(1 << cpu), AcqRel);
    }
}
