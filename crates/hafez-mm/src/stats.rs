//! Numbers: what there is, what it is used for, what happened.

use crate::Platform;
use crate::addr::{PageRange, Pfn, Vpn};
use crate::frame::meta::{Flags, State};
use crate::memory::Memory;
use crate::object::{Object, Place};
use crate::paging::huge::around;
use crate::paging::{Entry, Slot};
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
    /// Of the dirty: mapped once.
    pub private_dirty: u64,
    /// Each resident page divided by its users, summed, in 4096ths of a byte: all, the dirty, the anonymous.
    pub proportional: u64,
    pub proportional_dirty: u64,
    pub proportional_anonymous: u64,
    /// The same of swapped pages.
    pub proportional_swapped: u64,
    /// Pages of zeroes that were only read.
    pub zeroes: u64,
}

/// When memory may be huge pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HugeWish {
    Never,
    /// Where it was asked for, and where memory is filled in order.
    Asked,
    /// Wherever they fit.
    Always,
}

/// What an entry of a page table names.
#[derive(Clone, Copy, Debug)]
pub enum PageAt {
    Frame {
        frame: Pfn,
        /// It belongs to an object.
        file: bool,
        /// Nobody else maps it.
        exclusive: bool,
        /// It is the one that all share who only read zeroes.
        zeroes: bool,
    },
    Slot(u32),
}

impl<P: Platform> Spaces<P> {
    /// What the entry names, if anything.
    pub(crate) fn page_at(&self, slot: &Slot<'_>) -> Option<PageAt> {
        match slot.get() {
            Entry::Present { frame, .. } => {
                let word = self.frames.meta(frame).word();
                let users = word.maps().max(1) - 1 + slot.sharers();
                let file = matches!(word.state(), State::File | State::Shared);
                let zeroes = frame == self.frames.zero;
                Some(PageAt::Frame { frame, file, exclusive: !zeroes && users == 1, zeroes })
            }
            Entry::Swap { slot } => Some(PageAt::Slot(slot)),
            Entry::Absent => None,
        }
    }
}

/// What a frame is used for.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameUse {
    pub maps: u32,
    pub anonymous: bool,
    /// Swap stands behind it.
    pub swappable: bool,
    pub file: bool,
    pub table: bool,
    pub kernel: bool,
    pub free: bool,
    pub zeroes: bool,
    /// On a generation list.
    pub listed: bool,
    pub swap_cached: bool,
    pub dirty: bool,
    pub referenced: bool,
    pub writing: bool,
    pub wired: bool,
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
        stats.minor = spaces.frames.accounts.minor_faults();
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

    /// What stands in the entries of a range, where there is something.
    pub fn page_map(&self, space: &Space, range: PageRange, tell: &mut dyn FnMut(Vpn, PageAt)) {
        let spaces = &self.spaces;
        spaces.cursor(space, range).look(range, &mut |page, slot| {
            if let Some(at) = spaces.page_at(slot) {
                tell(page, at);
            }
        });
    }

    /// RAM to hand out, and blocks of swap.
    pub fn capacity(&self) -> (u64, u64) {
        let swap = self.spaces.swap.state.lock().blocks.total() as u64;
        (self.spaces.frames.usable as u64, swap)
    }

    /// Free frames at which programs wait, reclaim begins, and reclaim ends.
    pub fn watermarks(&self) -> (u32, u32, u32) {
        let marks = &self.spaces.frames.marks;
        (marks.reserve, marks.low, marks.high)
    }

    /// Free blocks of 2^n frames.
    pub fn free_blocks(&self) -> [u32; 16] {
        let frames = &self.spaces.frames;
        let mut orders = [0; 16];
        orders[0] = frames.in_runs();
        for frame in frames.known() {
            let meta = frames.meta(frame);
            match meta.word().state() {
                State::FreeHead => orders[(meta.index() as usize).min(15)] += 1,
                State::Idle => orders[0] += 1,
                _ => {}
            }
        }
        orders
    }

    /// Pages that programs have been promised: what they may write to that no file stands behind, touched or not; and what shared
    /// objects hold.
    pub fn promised(&self) -> u64 {
        let (mut sum, mut after) = (0, 0);
        while let Some((number, space)) = self.spaces.spaces.next(after) {
            after = number;
            sum += space.promised();
        }
        after = 0;
        while let Some((number, object)) = self.spaces.objects.next(after) {
            after = number;
            if !object.is_file() {
                // One that only its mappings keep is as large as it was asked for.
                let all = object.retired.load(Relaxed);
                sum += if all { object.end() } else { object.held() };
            }
        }
        sum
    }

    /// Forget files' pages that are clean and not in use.
    pub fn drop_caches(&self) {
        let mut after = 0;
        while let Some((number, object)) = self.spaces.objects.next(after) {
            after = number;
            if object.is_file() {
                self.spaces.invalidate(&object);
            }
        }
    }

    /// How many regions a space may have.
    pub fn most_regions(&self) -> usize {
        self.spaces.most_regions.load(Relaxed)
    }
    pub fn set_most_regions(&self, most: usize) {
        self.spaces.most_regions.store(most, Relaxed);
    }

    /// When memory may be huge pages.
    pub fn huge_wish(&self) -> HugeWish {
        match self.spaces.huge_wish.load(Relaxed) {
            0 => HugeWish::Never,
            1 => HugeWish::Asked,
            _ => HugeWish::Always,
        }
    }
    pub fn set_huge_wish(&self, wish: HugeWish) {
        self.spaces.huge_wish.store(wish as u8, Relaxed);
    }

    /// One more than the highest number of a frame.
    pub fn frame_end(&self) -> u64 {
        self.spaces.frames.table().len() as u64
    }

    /// What the account holds now is the most that it ever held.
    pub fn reset_peak(&self, account: crate::AccountId) {
        self.spaces.frames.accounts.reset_peak(account);
    }

    /// What a frame is used for; `None` where there is no RAM.
    pub fn frame_use(&self, frame: Pfn) -> Option<FrameUse> {
        let frames = &self.spaces.frames;
        if !frames.is_known(frame) {
            return None;
        }
        let word = frames.meta(frame).word();
        let state = word.state();
        let page = matches!(state, State::Anon | State::File | State::Shared);
        Some(FrameUse {
            maps: if page { word.maps() } else { 0 },
            anonymous: state == State::Anon,
            swappable: matches!(state, State::Anon | State::Shared),
            file: state == State::File,
            table: state == State::Table,
            kernel: state == State::Wired,
            free: matches!(state, State::FreeHead | State::Idle),
            zeroes: frame == frames.zero,
            listed: word.list().is_some(),
            swap_cached: state == State::Anon && word.has(Flags::CACHED),
            dirty: page && word.has(Flags::DIRTY),
            referenced: page && word.has(Flags::REFERENCED),
            writing: page && word.has(Flags::WRITING),
            wired: page && word.has(Flags::WIRED),
        })
    }

    /// Forget which pages of the range were accessed: those that are `anonymous`, or those that are not, or both for `None`.
    pub fn clear_accessed(&self, space: &Space, range: PageRange, anonymous: Option<bool>) {
        let spaces = &self.spaces;
        let mut cursor = spaces.cursor(space, range);
        let mut gather = spaces.gather(space, range);
        cursor.each(range, &mut |page, slot| {
            let Entry::Present { frame, .. } = slot.get() else { return };
            let meta = spaces.frames.meta(frame);
            if anonymous.is_some_and(|which| which != (meta.word().state() == State::Anon)) {
                return;
            }
            if slot.take_accessed() {
                gather.page(page);
            }
        });
        gather.flush();
    }

    /// Where the pages of a range are.
    pub fn region_stat(&self, space: &Space, range: PageRange) -> RegionStat {
        let mut stat = RegionStat::default();
        let spaces = &self.spaces;
        let mut cursor = spaces.cursor(space, range);
        cursor.each_whole(range, &mut |page, _| stat.huge += around(page).intersect(&range).len());
        cursor.look(range, &mut |_, slot| match slot.get() {
            Entry::Present { frame, accessed, .. } if frame == spaces.frames.zero => {
                stat.zeroes += 1;
                stat.accessed += accessed as u64;
            }
            Entry::Present { frame, accessed, dirty, .. } => {
                let word = spaces.frames.meta(frame).word();
                let dirty = dirty || word.has(Flags::DIRTY);
                let anonymous = word.state() == State::Anon;
                // Who comes to it by a leaf that several share is counted in the frame's record as one.
                let users = (word.maps().max(1) - 1 + slot.sharers()) as u64;
                let part = (1 << (2 * crate::PAGE_SHIFT)) / users;
                stat.resident += 1;
                stat.shared += (users > 1) as u64;
                stat.dirty += dirty as u64;
                stat.private_dirty += (dirty && users == 1) as u64;
                stat.accessed += accessed as u64;
                stat.anonymous += anonymous as u64;
                stat.proportional += part;
                stat.proportional_dirty += if dirty { part } else { 0 };
                stat.proportional_anonymous += if anonymous { part } else { 0 };
            }
            Entry::Swap { slot: number } => {
                stat.swapped += 1;
                let refs = spaces.swap.record(&spaces.frames, number).map_or(1, |record| record.refs);
                let users = refs.max(1) as u64 - 1 + slot.sharers() as u64;
                stat.proportional_swapped += (1 << (2 * crate::PAGE_SHIFT)) / users;
            }
            Entry::Absent => {}
        });
        stat
    }
}
