//! Numbers: what there is, what it is used for, what happened.

use crate::Platform;
use crate::addr::PageRange;
use crate::frame::meta::{Flags, State};
use crate::memory::Memory;
use crate::object::{Object, Place};
use crate::paging::Entry;
use crate::paging::huge::around;
use crate::space::{Space, Spaces};
use core::sync::atomic::Ordering::*;

/// The machine's memory in pages, and what happened since boot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Frames that the core has to hand out, and those that are free.
    pub total: u64,
    pub free: u64,
    /// Wired for the kernel: heap, stacks, rings, slot records. The image and the frame table are not in `total`.
    pub kernel: u64,
    pub tables: u64,
    /// Pages of programs by what backs them.
    pub anonymous: u64,
    pub file: u64,
    pub shared: u64,
    pub dirty: u64,
    pub wired: u64,
    /// Huge pages, of 512 pages each that are counted as anonymous.
    pub huge: u64,
    /// Huge pages made since boot, and those of them that became small ones.
    pub huge_made: u64,
    pub huge_opened: u64,
    /// Pages that were accessed lately (in the two youngest generations), by kind: swapped, file.
    pub active: [u64; 2],
    pub inactive: [u64; 2],
    /// Swap in blocks and slots.
    pub swap_total: u64,
    pub swap_free: u64,
    pub swap_used_slots: u64,
    pub swap_cached: u64,
    pub minor: u64,
    /// Faults that waited for a file's page, and for a page from swap.
    pub major_file: u64,
    pub major_swap: u64,
    pub swapped_in: u64,
    pub swapped_out: u64,
    pub filled: u64,
    pub file_in: u64,
    pub file_out: u64,
    pub refaults: u64,
    pub scanned: u64,
    pub reclaimed: u64,
    pub ahead_used: u64,
    pub ahead_wasted: u64,
    pub oom_kills: u64,
    pub corrupt: u64,
    pub read_errors: u64,
    pub write_errors: u64,
    /// The most that programs' pages in RAM and in swap were together.
    pub peak: u64,
}

/// Pages of a range, by where they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct RegionStat {
    pub resident: u64,
    pub swapped: u64,
    /// Of the resident: mapped more than once.
    pub shared: u64,
    pub dirty: u64,
    pub accessed: u64,
    pub anonymous: u64,
    /// Of the anonymous: in huge pages.
    pub huge: u64,
    /// Sum over resident pages of 4096 / maps: the proportional set size, in bytes.
    pub proportional: u64,
}

/// Pages of an object, by where they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheStat {
    pub cached: u64,
    pub dirty: u64,
    /// On their way out.
    pub writing: u64,
    /// Put out, and as far as is known still wanted: in swap, or of a file those that left a ghost.
    pub evicted: u64,
    /// Of those: so lately that with the right others gone they would still be here.
    pub recent: u64,
}

impl<P: Platform> Spaces<P> {
    /// Bring the peak up to date; called before anything shrinks.
    pub fn note_peak(&self) {
        let mut held = self.frames.accounts.held();
        // A page that is in RAM and has a slot is one page.
        held -= (self.swap.state.lock().slots.cached() as u64).min(held);
        self.counters.peak.fetch_max(held, Relaxed);
    }
}

impl<P: Platform> Memory<P> {
    /// Looks at every frame's record: for people, not for fast paths.
    pub fn stats(&self) -> Stats {
        let spaces = &self.spaces;
        spaces.note_peak();
        let counters = &spaces.counters;
        let mut stats = Stats { total: spaces.frames.usable as u64, ..Stats::default() };
        for frame in spaces.frames.known() {
            let word = spaces.frames.meta(frame).word();
            match word.state() {
                State::Wired => stats.kernel += 1,
                State::Table => stats.tables += 1,
                State::Anon => stats.anonymous += 1,
                State::File => stats.file += 1,
                State::Shared => stats.shared += 1,
                _ => continue,
            }
            stats.dirty += (word.state() == State::File && word.has(Flags::DIRTY)) as u64;
            stats.wired += word.has(Flags::WIRED) as u64;
            stats.swap_cached += (word.state() == State::Anon && word.has(Flags::CACHED)) as u64;
        }
        stats.huge = spaces.frames.whole() as u64;
        stats.free = spaces.frames.all_free() as u64;
        let lengths = spaces.frames.lists.lengths();
        for kind in 0..2 {
            for (generation, &len) in lengths[kind].iter().enumerate() {
                let young =
                    generation as u8 == spaces.frames.lists.place(crate::frame::lists::Arrival::Wanted);
                *if young { &mut stats.active[kind] } else { &mut stats.inactive[kind] } += len as u64;
            }
        }
        {
            let state = spaces.swap.state.lock();
            stats.swap_total = state.blocks.total() as u64;
            stats.swap_free = state.blocks.free() as u64;
            stats.swap_used_slots = state.slots.used() as u64;
        }
        for (to, from) in [
            (&mut stats.major_file, &counters.major_file),
            (&mut stats.major_swap, &counters.major_swap),
            (&mut stats.swapped_in, &counters.swapped_in),
            (&mut stats.swapped_out, &counters.swapped_out),
            (&mut stats.filled, &counters.filled),
            (&mut stats.huge_made, &counters.huge),
            (&mut stats.huge_opened, &spaces.frames.opened),
            (&mut stats.file_in, &counters.file_in),
            (&mut stats.file_out, &counters.file_out),
            (&mut stats.refaults, &counters.refaults),
            (&mut stats.scanned, &counters.scanned),
            (&mut stats.reclaimed, &counters.reclaimed),
            (&mut stats.ahead_used, &counters.ahead_used),
            (&mut stats.ahead_wasted, &counters.ahead_wasted),
            (&mut stats.oom_kills, &counters.oom_kills),
            (&mut stats.peak, &counters.peak),
            (&mut stats.corrupt, &spaces.swap.corrupt),
            (&mut stats.read_errors, &spaces.swap.read_errors),
            (&mut stats.write_errors, &spaces.swap.write_errors),
        ] {
            *to = from.load(Relaxed);
        }
        stats.minor = counters.minor.iter().map(|line| line.0.load(Relaxed)).sum();
        stats
    }

    /// Where the pages `first..=last` of an object are.
    pub fn cache_stat(&self, object: &Object, first: u64, last: u64) -> CacheStat {
        let spaces = &self.spaces;
        let (clock, reach) =
            (spaces.swap.evictions.load(Relaxed), spaces.frames.usable - spaces.frames.free());
        let mut stat = CacheStat::default();
        let mut from = first;
        // A node at a time: the map may be long, and others want it.
        while let Some((index, place)) = object.pages.lock().next(from).filter(|&(index, _)| index <= last) {
            from = index + 1;
            match place {
                Place::Frame(frame) => {
                    let word = spaces.frames.meta(frame).word();
                    stat.cached += 1;
                    // What has no file behind it is never clean, nor can it be made so.
                    stat.dirty += (word.has(Flags::DIRTY) && object.is_file()) as u64;
                    stat.writing += word.has(Flags::WRITING) as u64;
                }
                Place::Swap(_) => (stat.evicted, stat.recent) = (stat.evicted + 1, stat.recent + 1),
                Place::Nowhere => {}
            }
        }
        if object.is_file() {
            let end =
                object.end().min(last.saturating_add(1)).min(first.saturating_add(spaces.ghosts.reach()));
            for index in first..end {
                let Some(distance) = spaces.ghosts.find(object.id, index, clock) else { continue };
                stat.evicted += 1;
                stat.recent += (distance < reach) as u64;
            }
        }
        stat
    }

    /// Where the pages of a range are.
    pub fn region_stat(&self, space: &Space, range: PageRange) -> RegionStat {
        let mut stat = RegionStat::default();
        let spaces = &self.spaces;
        let mut cursor = spaces.cursor(space, range);
        cursor.each_whole(range, &mut |page, _| stat.huge += around(page).intersect(&range).len());
        cursor.look(range, &mut |_, slot| match slot.get() {
            Entry::Present { frame, accessed, dirty, .. } if frame != spaces.frames.zero => {
                let word = spaces.frames.meta(frame).word();
                stat.resident += 1;
                stat.shared += (word.maps() > 1) as u64;
                stat.dirty += (dirty || word.has(Flags::DIRTY)) as u64;
                stat.accessed += accessed as u64;
                stat.anonymous += (word.state() == State::Anon) as u64;
                stat.proportional += crate::PAGE_SIZE as u64 / (word.maps() as u64).max(1);
            }
            Entry::Swap { .. } => stat.swapped += 1,
            _ => {}
        });
        stat
    }
}
