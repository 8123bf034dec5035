//! Looking at many pages at once, and guarding them as one goes (`PAGEMAP_SCAN`).
//!
//! Who wants to know which of its pages a program has written since the last time guards them all, and asks later which are guarded
//! no longer. Between an answer and the next guard nothing may be written unseen; so a page is told of and guarded again in one
//! step, under the cursor:
//!
//! ```text
//!   scan:   region held, cursor on a leaf's worth -> each run of pages, told -> those that are taken: in the set, right to write gone
//!           -> flush -> cursor goes                                            (a write from here on faults, and waits for the cursor)
//! ```
//!
//! What may fail, for want of memory, comes before the first page is told, so that a retry tells none twice.

use super::fault::without_write;
use super::guard::Guarded;
use super::{Space, Spaces, Stop};
use crate::addr::{PageRange, Vpn};
use crate::paging::Entry;
use crate::paging::huge::around;
use crate::{MmError, PageAt, Platform, Rights};

/// A run of pages that are alike: absent ones, or a single one that is not.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub pages: PageRange,
    pub at: Option<PageAt>,
    /// Writes to them are told, or noted.
    pub guarded: bool,
    /// Part of a huge page.
    pub huge: bool,
}

/// What is to be done about a run of pages.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// Guard so many of them, from the first on.
    pub guard: u64,
    /// Tell the next.
    pub go_on: bool,
}

impl<P: Platform> Spaces<P> {
    /// Tell what is in the entries of the range, as far as the region goes that `range` begins in; the page to go on with. `guarding`:
    /// pages are to be guarded, and the range is in one leaf.
    pub fn scan(
        &self,
        space: &Space,
        range: PageRange,
        guarding: bool,
        tell: &mut dyn FnMut(&Seen) -> Verdict,
    ) -> Result<Vpn, Stop> {
        let regions = space.regions(self.cpu(), range.start);
        let Some(region) = regions.find(range.start) else { return Ok(range.end) };
        let part = region.range.intersect(&range);
        let watcher = region.watcher().map(|watched| &watched.0);
        if guarding && let Some(watcher) = watcher {
            let room = watcher.guarded().prepare(part, &|bytes| self.platform.headroom(bytes));
            if !room {
                return Err(MmError::NoMemory.into());
            }
        }
        let mut cursor = self.cursor(space, part);
        if guarding {
            cursor.open(part);
            self.own_range(space, &mut cursor, part)?;
        }
        let mut scan = Scan { guarded: watcher.map(|watcher| watcher.guarded()), tell };
        let mut gather = self.gather(space, part);
        let mut next = part.start;
        let mut go_on = true;
        while go_on && let Some(used) = cursor.next_leaf(PageRange::new(next, part.end)) {
            go_on = scan.absent(PageRange::new(next, used));
            let leaf = around(used).intersect(&PageRange::new(used, part.end));
            let huge = cursor.is_whole(used);
            next = used;
            cursor.look(leaf, &mut |page, slot| {
                go_on = go_on && scan.absent(PageRange::new(next, page));
                if !go_on {
                    return;
                }
                next = page.add(1);
                let (pages, at) = (PageRange::new(page, next), self.page_at(slot));
                let verdict = scan.tell(Seen { pages, at, guarded: false, huge });
                go_on = verdict.go_on;
                if verdict.guard > 0
                    && let Entry::Present { rights, .. } = slot.get()
                    && rights.contains(Rights::WRITE)
                {
                    slot.set_rights(without_write(rights));
                    gather.page(page);
                }
            });
            go_on = go_on && scan.absent(PageRange::new(next, leaf.end));
            next = leaf.end;
        }
        if go_on {
            scan.absent(PageRange::new(next, part.end));
        }
        gather.flush();
        Ok(part.end)
    }
}

/// One call's way through a region.
struct Scan<'a> {
    /// The set of its guarded pages.
    guarded: Option<&'a Guarded>,
    tell: &'a mut dyn FnMut(&Seen) -> Verdict,
}

impl Scan<'_> {
    fn tell(&mut self, seen: Seen) -> Verdict {
        let guarded = self.guarded.is_some_and(|set| set.has(seen.pages.start));
        let verdict = (self.tell)(&Seen { guarded, ..seen });
        let taken = PageRange::new(seen.pages.start, seen.pages.start.add(verdict.guard));
        if let Some(set) = self.guarded.filter(|_| !taken.is_empty()) {
            set.put(taken, true);
        }
        verdict
    }

    /// Absent pages: where none of them can be guarded they are alike. Whether to go on.
    fn absent(&mut self, range: PageRange) -> bool {
        let mut rest = range;
        while !rest.is_empty() {
            let end = if self.guarded.is_some() { rest.start.add(1) } else { rest.end };
            let pages = PageRange::new(rest.start, end);
            if !self.tell(Seen { pages, at: None, guarded: false, huge: false }).go_on {
                return false;
            }
            rest.start = end;
        }
        true
    }
}
