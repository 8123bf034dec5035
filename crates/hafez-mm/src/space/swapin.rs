//! A page from swap.
//!
//! The reader takes the slot, and the slots of the pages around it that lie beside it on the disk, puts a frame for
//! each into the swap cache marked READING, reads all with one request, checks every sum, and takes the marks away.
//! Then the fault looks again and finds the frame. Whoever else wants one of these pages meanwhile finds the mark and
//! waits. A page that could not be read, or that is not what was written, leaves the cache again: the one that needed
//! it gets SIGBUS, its neighbours were only a guess and cost nobody anything.
//!
//! How far to read ahead: a fault where the space's last cluster ended doubles the window; any other gets what has paid
//! lately (`balance.rs`), down to the page alone.

use super::fault::Look;
use super::{FaultError, Region, Space, Spaces, Stop};
use crate::account::Charge;
use crate::addr::{PAGE_SIZE, PageRange, Pfn, Vpn};
use crate::frame::Priority;
use crate::frame::lists::{Arrival, Kind};
use crate::frame::meta::{Flags, State, Word};
use crate::mutant::mutant;
use crate::object::{Object, Place};
use crate::paging::{Cursor, Entry};
use crate::swap::{CLUSTER, IoError, Moving, Record, Tier};
use crate::{Platform, keys};
use arrayvec::ArrayVec;
use core::sync::atomic::Ordering::*;

/// Pages in a cluster that a sequential reader gets: at the least, and at the most.
const AHEAD_MIN: u64 = 4;
const AHEAD_MAX: u64 = 32;

impl<P: Platform> Spaces<P> {
    /// The entry names a slot: map its frame if it has one, make it if it is of one word, else it must be read.
    #[inline(never)]
    pub(super) fn map_swapped(
        &self,
        space: &Space,
        region: &Region,
        page: Vpn,
        slot: u32,
        cursor: &mut Cursor<'_>,
        brought: PageRange,
    ) -> Result<Look, Stop> {
        let record = self.swap.record(&self.frames, slot).ok_or(FaultError::Io)?;
        if let Some(frame) = record.frame {
            if self.frames.meta(frame).word().has(Flags::READING) {
                return Ok(Look::Wait(frame));
            }
            self.map_cached(region, page, slot, frame, true, cursor)?;
            self.map_neighbours(region, page, brought, cursor)?;
            return Ok(Look::Done);
        }
        match record.tier {
            Tier::Filled(word) => {
                let frame = self.frames.alloc(self.cpu(), Priority::User)?;
                if word == 0 {
                    self.frames.phys.zero(frame)
                } else {
                    self.frames.phys.fill(frame, word)
                }
                self.adopt(space, region, page, frame);
                cursor.make(page)?.fill(Entry::Present {
                    frame,
                    rights: region.rights,
                    accessed: true,
                    dirty: true,
                });
                self.drop_slot(slot);
                Ok(Look::Done)
            }
            Tier::Disk { .. } => Ok(Look::Read { slot }),
            Tier::Ram => Err(FaultError::Io.into()),
        }
    }

    /// Name the slot's cached frame instead of the slot.
    fn map_cached(
        &self,
        region: &Region,
        page: Vpn,
        slot: u32,
        frame: Pfn,
        wanted: bool,
        cursor: &mut Cursor<'_>,
    ) -> Result<(), Stop> {
        let entry = cursor.make(page)?;
        let meta = self.frames.meta(frame);
        // Under the lock that uncaching takes too, so the frame cannot leave between the look and the map.
        let (refs, crowded) = {
            let mut state = self.swap.state.lock();
            let here = |r: &Record| r.frame == Some(frame) && !meta.word().has(Flags::READING);
            let Some(record) = state.slots.get(&self.frames, slot).filter(here) else { return Ok(()) };
            meta.add_map();
            let refs = record.refs.saturating_sub(1);
            state.slots.put(&self.frames, slot, Record { refs, ..record });
            (refs, state.blocks.free() < state.blocks.total() / 2)
        };
        let alone = refs == 0 && meta.word().maps() == 1;
        let rights = if alone { region.rights } else { super::fault::without_write(region.rights) };
        let rights = mutant!(RightsLost, crate::Rights::READ | crate::Rights::WRITE, rights);
        entry.fill(Entry::Present { frame, rights, accessed: wanted, dirty: false });
        if wanted {
            meta.clear(Flags::AHEAD);
        }
        if alone {
            meta.set_index(page.0);
        }
        if region.flags.contains(super::RegionFlags::WIRED) {
            self.set_wired(frame, true);
        }
        // On a crowded disk a page in RAM does not keep a second copy there.
        if alone && crowded {
            self.swap.uncache_unnamed(&self.frames, frame);
        }
        Ok(())
    }

    /// Map what was brought in beside `page`: not accessed yet, so that a wrong guess ages fast.
    fn map_neighbours(
        &self,
        region: &Region,
        page: Vpn,
        brought: PageRange,
        cursor: &mut Cursor<'_>,
    ) -> Result<(), Stop> {
        let still = neighbourhood(region, page, AHEAD_MAX).intersect(&brought);
        for near in still.iter().filter(|&near| near != page) {
            let Entry::Swap { slot } = cursor.get(near) else { continue };
            let Some(frame) = self.swap.record(&self.frames, slot).and_then(|r| r.frame) else { continue };
            let word = self.frames.meta(frame).word();
            if word.has(Flags::AHEAD) && !word.any(Flags::READING | Flags::ISOLATED | Flags::WRITING) {
                self.map_cached(region, near, slot, frame, false, cursor)?;
            }
        }
        Ok(())
    }

    /// Bring the page's bytes into the swap cache, and those around it that lie beside it on the disk: these pages. None where
    /// it is to be looked at again.
    #[cold]
    pub(super) fn read_in(&self, space: &Space, page: Vpn, slot: u32) -> Result<PageRange, Stop> {
        let nothing = PageRange::new(page, page);
        let mut pages: ArrayVec<(Vpn, Moving), CLUSTER> = ArrayVec::new();
        let (first_block, brought) = {
            let regions = space.regions(self.cpu(), page);
            let Some(region) = regions.find(page) else { return Ok(nothing) };
            let mut cursor = self.cursor(space, neighbourhood(region, page, AHEAD_MAX));
            if cursor.get(page) != (Entry::Swap { slot }) {
                return Ok(nothing);
            }
            let Some(Record { tier: Tier::Disk { block, .. }, frame: None, evicted, .. }) =
                self.swap.record(&self.frames, slot)
            else {
                return Ok(nothing);
            };
            self.note_return(Kind::Swapped, self.swap.evictions.load(Relaxed).wrapping_sub(evicted));
            let run = self.run_around(space, region, page, block, &mut cursor);
            // The one that is wanted, then those around it as far as frames go.
            let mut enter = |near: Vpn| -> Result<bool, Stop> {
                let Entry::Swap { slot } = cursor.get(near) else { return Ok(false) };
                let (priority, ahead) = match near == page {
                    true => (Priority::User, Flags::empty()),
                    false => (Priority::Ahead, Flags::AHEAD),
                };
                let frame = self.frames.alloc(self.cpu(), priority)?;
                let word =
                    Word::new(State::Anon, space.account, 0).with(Flags::CACHED | Flags::READING | ahead);
                let place = (block as u64 + near.0 - page.0) as u32;
                if !self.enter_swap_cache(frame, slot, place, word, (space.family.id, near.0)) {
                    return Ok(false);
                }
                let at = if near < page { 0 } else { pages.len() };
                pages.insert(at, (near, Moving { slot, frame }));
                Ok(true)
            };
            // A relative who names the slot too may have been faster.
            if !enter(page)? {
                return Ok(nothing);
            }
            let (mut first, mut end) = (page, page.add(1));
            while first > run.start && enter(Vpn(first.0 - 1)) == Ok(true) {
                first = Vpn(first.0 - 1);
            }
            while end < run.end && enter(end) == Ok(true) {
                end = end.add(1);
            }
            *space.ahead.lock() = (end, end.since(first));
            ((block as u64 - page.since(first)) as u32, PageRange::new(first, end))
        };
        let moving: ArrayVec<Moving, CLUSTER> = pages.iter().map(|p| p.1).collect();
        let wanted = pages.iter().position(|p| p.0 == page).unwrap_or(0);
        self.read_cluster(first_block, &moving, wanted)?;
        Ok(brought)
    }

    /// The pages around `page` whose slots lie beside its own on the disk, within the read-ahead window.
    fn run_around(
        &self,
        space: &Space,
        region: &Region,
        page: Vpn,
        block: u32,
        cursor: &mut Cursor<'_>,
    ) -> PageRange {
        let (next, last) = *space.ahead.lock();
        let window = if region.flags.contains(super::RegionFlags::RANDOM) {
            1
        } else if page == next {
            (last * 2).clamp(AHEAD_MIN, AHEAD_MAX)
        } else {
            self.balance.scattered_window()
        };
        let near = neighbourhood(region, page, AHEAD_MAX);
        let beside = |at: Vpn, cursor: &mut Cursor<'_>| {
            let Entry::Swap { slot } = cursor.get(at) else { return false };
            let wanted = (block as u64 + at.0).wrapping_sub(page.0);
            matches!(self.swap.record(&self.frames, slot),
                Some(Record { tier: Tier::Disk { block, .. }, frame: None, .. }) if block as u64 == wanted)
        };
        let mut run = PageRange::new(page, page.add(1));
        while run.len() < window && run.end < near.end && beside(run.end, cursor) {
            run.end = run.end.add(1);
        }
        // A fault out of sequence looks behind itself as well.
        while page != next
            && run.len() < window
            && run.start > near.start
            && beside(Vpn(run.start.0 - 1), cursor)
        {
            run.start = Vpn(run.start.0 - 1);
        }
        run
    }

    /// Make a new frame the cached one of the slot at `block`. If it has one already, or has moved: false, and the frame is free.
    fn enter_swap_cache(&self, frame: Pfn, slot: u32, block: u32, word: Word, owner: (u32, u64)) -> bool {
        let meta = self.frames.meta(frame);
        meta.begin(word, owner.0, owner.1);
        meta.set_slot(slot);
        let entered = self.swap.cache(&self.frames, slot, frame, block);
        if entered {
            self.coming.fetch_add(1, AcqRel);
            self.frames.accounts.charge(word.account(), Charge::Resident, 1);
        } else {
            meta.set_slot(0);
            self.frames.free_frame(self.cpu(), frame);
        }
        entered
    }

    /// Read, verify, publish. `wanted` is the one of `pages` whose failure is the reader's.
    #[inline(never)]
    fn read_cluster(&self, first: u32, pages: &[Moving], wanted: usize) -> Result<(), FaultError> {
        self.read_blocks(first, pages, |whole| self.settle(first, pages, wanted, whole))
    }

    /// See to each page of a request that was answered.
    fn settle(
        &self,
        first: u32,
        pages: &[Moving],
        wanted: usize,
        whole: Result<(), IoError>,
    ) -> Result<(), FaultError> {
        let mut result = Ok(());
        for (n, &page) in pages.iter().enumerate() {
            let good = match whole {
                Ok(()) => self.swap.verify(&self.frames, page),
                // One bad sector fails a whole request: the page that is needed is read again, alone.
                Err(IoError) => n == wanted && self.read_again(first + n as u32, page),
            };
            if good {
                self.publish(page);
                continue;
            }
            if whole.is_ok() {
                self.swap.corrupt.fetch_add(1, Relaxed);
            }
            self.abandon(&[page]);
            if n == wanted {
                result = Err(FaultError::Io);
            }
        }
        self.counters.swapped_in.fetch_add(pages.len() as u64, Relaxed);
        result
    }

    fn read_again(&self, block: u32, page: Moving) -> bool {
        let read = self.read_blocks(block, &[page], |answer| answer);
        let good = read.is_ok() && self.swap.verify(&self.frames, page);
        if !good {
            self.swap.read_errors.fetch_add(1, Relaxed);
        }
        good
    }

    /// Start the request, sleep until it is answered, and see to its pages; wait for a place where there is none. It is in
    /// flight until they are seen to: who looks for frames finds them on a list or in flight.
    fn read_blocks<R>(
        &self,
        first: u32,
        pages: &[Moving],
        settle: impl FnOnce(Result<(), IoError>) -> R,
    ) -> R {
        let token = loop {
            let answers = self.swap.answers();
            match self.swap.read(first, pages) {
                Ok(Some(token)) => break token,
                Ok(None) => self.wait_answer(answers),
                Err(error) => return settle(Err(error)),
            }
        };
        self.platform.wait(keys::REQUEST, &|| self.swap.answer(token).is_some());
        let answer = self.swap.answer(token).unwrap_or(Err(IoError));
        self.swap.take_back(token);
        let end = || {
            self.swap.close(token);
            self.platform.wake(keys::REQUEST);
        };
        // What is read again needs a place of its own.
        if answer.is_err() {
            end();
            return settle(answer);
        }
        let done = settle(answer);
        end();
        done
    }

    /// Sleep until the disk has answered a request more than `before` of them.
    pub fn wait_answer(&self, before: u32) {
        self.platform.wait(keys::REQUEST, &|| self.swap.answers() != before || self.swap.in_flight() == 0);
    }

    /// Wake those who wait for a request's answer or for a place for one.
    pub fn request_answered(&self) {
        self.platform.wake(keys::REQUEST);
    }

    /// The page's bytes are good: others may use it.
    fn publish(&self, page: Moving) {
        let meta = self.frames.meta(page.frame);
        let arrival = if meta.word().has(Flags::AHEAD) { Arrival::Ahead } else { Arrival::Refault };
        self.frames.lists.insert_arrival(self.frames.table(), self.cpu(), page.frame, arrival);
        let word = self.has_come(meta, Flags::READING);
        mutant!(WakeForgotten, (), self.platform.wake(page.frame.0 as usize));
        // All who named the slot may have gone while it was read.
        if word.state() == State::Anon && word.maps() == 0 {
            self.let_go(page.frame, word);
        } else if word.is_unheld() {
            self.free_page(page.frame);
        }
    }

    /// The pages cannot be had: their frames leave the cache, their slots stay as they are.
    fn abandon(&self, pages: &[Moving]) {
        for page in pages {
            let meta = self.frames.meta(page.frame);
            let word = meta.word();
            if word.state() == State::Shared
                && let Some(object) = self.objects.get(meta.owner())
            {
                let mut map = object.pages.lock();
                if map.get(meta.index()) == Place::Frame(page.frame) {
                    self.swap.add_ref(&self.frames, page.slot);
                    map.set(meta.index(), Place::Swap(page.slot));
                }
            }
            self.swap.uncache(&self.frames, page.slot);
            meta.set_slot(0);
            let word = self.has_come(meta, Flags::CACHED | Flags::READING);
            self.platform.wake(page.frame.0 as usize);
            if word.is_unheld() {
                self.free_page(page.frame);
            }
        }
    }

    /// A shared object's page from swap into its page map.
    #[cold]
    pub(super) fn read_in_shared(&self, object: &Object, index: u64, slot: u32) -> Result<(), Stop> {
        let frame = self.frames.alloc(self.cpu(), Priority::User)?;
        let mut pages = object.pages.lock();
        let record = self.swap.record(&self.frames, slot).filter(|_| pages.get(index) == Place::Swap(slot));
        let Some(record) = record else {
            drop(pages);
            self.frames.free_frame(self.cpu(), frame);
            return Ok(());
        };
        let word = Word::new(State::Shared, object.account, 0).with(Flags::CACHED);
        match record.tier {
            Tier::Filled(fill) => {
                self.frames.phys.fill(frame, fill);
                self.frames.meta(frame).begin(word.with(Flags::DIRTY), object.id, index);
                self.frames.accounts.charge(object.account, Charge::Resident, 1);
                pages.set(index, Place::Frame(frame));
                self.frames.lists.insert_arrival(self.frames.table(), self.cpu(), frame, Arrival::Refault);
                drop(pages);
                self.drop_slot(slot);
                Ok(())
            }
            Tier::Disk { block, .. } => {
                let word = word.with(Flags::READING);
                if !self.enter_swap_cache(frame, slot, block, word, (object.id, index)) {
                    return Err(FaultError::Io.into());
                }
                pages.set(index, Place::Frame(frame));
                self.swap.unname(&self.frames, slot);
                drop(pages);
                self.read_cluster(block, &[Moving { slot, frame }], 0).map_err(Stop::Fault)
            }
            Tier::Ram => {
                drop(pages);
                self.frames.free_frame(self.cpu(), frame);
                Err(FaultError::Io.into())
            }
        }
    }
}

/// The pages of the region within `span` pages of `page`, in its leaf.
fn neighbourhood(region: &Region, page: Vpn, span: u64) -> PageRange {
    let first = Vpn(page.0 & !511);
    let leaf = PageRange::new(first, first.add(512));
    let near = PageRange::new(Vpn(page.0.saturating_sub(span)), page.add(span + 1));
    region.range.intersect(&leaf).intersect(&near)
}

const _: () = assert!(AHEAD_MAX as usize <= CLUSTER && PAGE_SIZE == 4096);
