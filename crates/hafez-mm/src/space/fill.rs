//! Bringing an object's page to where all can find it: its page map.
//!
//! A file's page is read through the pager together with those around it that are missing: the frames go into the
//! page map marked READING first, so that nobody reads them twice, then the pager is asked for all at once. A reader
//! that goes on where the last one ended gets twice as much each time; any other gets the aligned block around it.
//! A shared object's page is a new page of zeroes, or comes from swap.

use super::{FaultError, Spaces, Stop};
use crate::account::{AccountId, Charge};
use crate::addr::{PAGE_SIZE, Pfn};
use crate::frame::lists::{Arrival, Kind};
use crate::frame::meta::{Flags, FrameMeta, State, Word};
use crate::frame::{NoFrames, Priority};
use crate::object::pages::NODE;
use crate::object::{Object, Pager, Place, Source};
use crate::{Platform, keys};
use alloc::sync::Arc;
use arrayvec::ArrayVec;
use core::ops::Range;
use core::sync::atomic::Ordering::*;

/// Pages that one read of a file asks for at most: 256 KiB.
const AHEAD_MAX: u64 = 64;

impl<P: Platform> Spaces<P> {
    /// See that page `index` is in the page map, or on its way there. Whether it was read from somewhere, or is one of zeroes.
    #[cold]
    pub(super) fn fill(&self, object: &Object, index: u64) -> Result<bool, Stop> {
        match &object.source {
            Source::File(pager) => self.fill_from_file(object, pager, index)?,
            Source::Shared => {
                let place = object.pages.lock().get(index);
                match place {
                    Place::Swap(slot) => self.read_in_shared(object, index, slot)?,
                    Place::Nowhere => {
                        self.new_shared_page(object, index)?;
                        return Ok(false);
                    }
                    Place::Frame(_) => return Ok(false),
                }
            }
        }
        Ok(true)
    }

    /// A page of zeroes for a hole of a shared object, or for what lies past a file's old end.
    fn new_shared_page(&self, object: &Object, index: u64) -> Result<(), Stop> {
        let frame = self.frames.alloc(self.cpu(), Priority::User)?;
        self.frames.phys.zero(frame);
        self.enter_shared_page(object, index, frame);
        Ok(())
    }

    /// The frame becomes the object's page, if there is none yet; else it is freed.
    pub(super) fn enter_shared_page(&self, object: &Object, index: u64, frame: Pfn) -> bool {
        let mut pages = object.pages.lock();
        if pages.get(index) != Place::Nowhere {
            drop(pages);
            self.frames.free_frame(self.cpu(), frame);
            return false;
        }
        let word = Word::new(State::Shared, object.account, 0).with(Flags::CACHED | Flags::DIRTY);
        self.frames.meta(frame).begin(word, object.id, index);
        self.frames.accounts.charge(object.account, Charge::Resident, 1);
        pages.set(index, Place::Frame(frame));
        self.frames.lists.insert_arrival(self.frames.table(), self.cpu(), frame, Arrival::Wanted);
        true
    }

    #[inline(never)]
    fn fill_from_file(&self, object: &Object, pager: &Arc<dyn Pager>, index: u64) -> Result<(), Stop> {
        let window = self.window(object, index);
        let mut frames: ArrayVec<Pfn, { AHEAD_MAX as usize }> = ArrayVec::new();
        let first = {
            let mut pages = object.pages.lock();
            let missing = |pages: &crate::object::Pages, i: u64| pages.get(i) == Place::Nowhere;
            if !missing(&pages, index) {
                return Ok(());
            }
            // The one that is wanted, then the missing ones around it, within the window and as far as frames go.
            let enter = |pages: &mut crate::object::Pages, at: u64| -> Result<Pfn, NoFrames> {
                let priority = if at == index { Priority::User } else { Priority::Ahead };
                let frame = self.frames.alloc(self.cpu(), priority)?;
                self.enter_page_map(object, pages, frame, at, at == index);
                let clock = self.swap.evictions.load(Relaxed);
                if let Some(distance) = self.ghosts.take(object.id, at, clock)
                    && at == index
                {
                    self.note_return(Kind::File, distance);
                }
                Ok(frame)
            };
            frames.push(enter(&mut pages, index)?);
            let mut first = index;
            while first > window.start && missing(&pages, first - 1) {
                let Ok(frame) = enter(&mut pages, first - 1) else { break };
                frames.insert(0, frame);
                first -= 1;
            }
            let mut at = index + 1;
            while at < window.end && missing(&pages, at) {
                let Ok(frame) = enter(&mut pages, at) else { break };
                frames.push(frame);
                at += 1;
            }
            first
        };
        if pager.fill(first, &frames).is_err() {
            self.withdraw(object, first, &frames);
            return self.fill_alone(object, pager, index, frames.len());
        }
        self.counters.file_in.fetch_add(frames.len() as u64, Relaxed);
        for (n, &frame) in frames.iter().enumerate() {
            self.filled(object, first + n as u64, frame);
        }
        Ok(())
    }

    /// A cluster failed: the wanted page is tried once more by itself.
    #[cold]
    fn fill_alone(
        &self,
        object: &Object,
        pager: &Arc<dyn Pager>,
        index: u64,
        cluster: usize,
    ) -> Result<(), Stop> {
        if cluster <= 1 {
            return Err(FaultError::Io.into());
        }
        let frame = self.frames.alloc(self.cpu(), Priority::User)?;
        {
            let mut pages = object.pages.lock();
            if pages.get(index) != Place::Nowhere {
                drop(pages);
                self.frames.free_frame(self.cpu(), frame);
                return Ok(());
            }
            self.enter_page_map(object, &mut pages, frame, index, true);
        }
        if pager.fill(index, &[frame]).is_err() {
            self.withdraw(object, index, &[frame]);
            return Err(FaultError::Io.into());
        }
        self.filled(object, index, frame);
        Ok(())
    }

    fn enter_page_map(
        &self,
        object: &Object,
        pages: &mut crate::object::Pages,
        frame: Pfn,
        at: u64,
        wanted: bool,
    ) {
        let ahead = if wanted { Flags::empty() } else { Flags::AHEAD };
        let payer = self.payer();
        let word = Word::new(State::File, payer, 0).with(Flags::CACHED | Flags::READING | ahead);
        self.frames.meta(frame).begin(word, object.id, at);
        self.frames.accounts.charge(payer, Charge::File, 1);
        self.coming.fetch_add(1, AcqRel);
        pages.set(at, Place::Frame(frame));
    }

    /// File pages stay when the process that first read them has gone, and serve whoever comes next: the kernel pays.
    fn payer(&self) -> AccountId {
        AccountId::KERNEL
    }

    /// The bytes of page `index` have come in. What lies past the object's end is zero, whatever the file says: it may
    /// be about to become shorter.
    fn filled(&self, object: &Object, index: u64, frame: Pfn) {
        let valid = object.size().saturating_sub(index * PAGE_SIZE as u64);
        if valid < PAGE_SIZE as u64 {
            self.frames.phys.zero_part(frame, valid as usize, PAGE_SIZE);
        }
        let meta = self.frames.meta(frame);
        let arrival = if meta.word().has(Flags::AHEAD) { Arrival::Ahead } else { Arrival::Wanted };
        self.frames.lists.insert_arrival(self.frames.table(), self.cpu(), frame, arrival);
        let word = self.has_come(meta, Flags::READING);
        self.platform.wake(frame.0 as usize);
        if word.is_unheld() {
            self.free_page(frame);
        }
    }

    /// The frame is no longer on its way in; its word without these marks. Who looks for frames may have waited for it.
    pub(super) fn has_come(&self, meta: &FrameMeta, marks: Flags) -> Word {
        let word = meta.release(marks);
        self.coming.fetch_sub(1, AcqRel);
        self.platform.wake(keys::FREED);
        word
    }

    /// The frames' bytes will not come: take them out of the page map again.
    fn withdraw(&self, object: &Object, first: u64, frames: &[Pfn]) {
        for (n, &frame) in frames.iter().enumerate() {
            {
                let mut pages = object.pages.lock();
                let at = first + n as u64;
                if pages.get(at) == Place::Frame(frame) {
                    pages.set(at, Place::Nowhere);
                }
            }
            let word = self.has_come(self.frames.meta(frame), Flags::READING | Flags::CACHED);
            self.platform.wake(frame.0 as usize);
            if word.is_unheld() {
                self.free_page(frame);
            }
        }
    }

    /// What to read when page `index` of a file is missing.
    fn window(&self, object: &Object, index: u64) -> Range<u64> {
        let mut ahead = object.ahead.lock();
        let block = index / NODE * NODE;
        let window = if index == ahead.next && index != 0 {
            index..index + (ahead.window * 2).clamp(NODE, AHEAD_MAX)
        } else {
            block..block + NODE
        };
        let end = window.end.min(object.end().max(index + 1));
        ahead.next = end;
        ahead.window = end - window.start.min(end);
        window.start..end
    }

    /// Read ahead what will be wanted soon, as far as frames are plentiful.
    pub fn prefetch(&self, object: &Object, range: Range<u64>) {
        let Source::File(_) = &object.source else { return };
        let mut at = range.start;
        while at < range.end.min(object.end()) {
            if self.frames.free() < self.frames.marks.high + AHEAD_MAX as u32 {
                return;
            }
            let here = object.pages.lock().get(at);
            if here == Place::Nowhere && self.fill(object, at).is_err() {
                return;
            }
            at += 1;
        }
    }
}
