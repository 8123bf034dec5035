//! Eviction: a batch of frames, from the old end of a generation to free.
//!
//! ```text
//!   isolate 64  ->  used since? back, young
//!               ->  unmap through cursors, keeping the dirty bits      (entry: Swap{slot}, or absent for objects)
//!               ->  flush, once a space
//!               ->  look again: mapped or pinned meanwhile? back, young
//!                     file, clean                       leave the page map, free
//!                     file, dirty                       back; the caller writes the object back
//!                     one word over and over            slot says the word, free
//!                     clean, slot still holds it        free
//!                     else                              blocks in a row, sums, one write; free when it is done
//! ```
//!
//! Nothing is copied, summed or written before the flush. While a write is on its way its frame stays in the swap
//! cache (or page map): a fault finds it there and maps it again, and the completion then leaves it alone.

use super::Reclaim;
use crate::Platform;
use crate::addr::{Pfn, Vpn};
use crate::frame::lists::Kind;
use crate::frame::meta::{Flags, State, Word};
use crate::mutant::mutant;
use crate::object::{Object, Place};
use crate::paging::{Entry, Flushed, Sweep};
use crate::space::{Space, Spaces};
use crate::swap::{CLUSTER, IoError, Moving, Tier};
use alloc::sync::Arc;
use arrayvec::ArrayVec;
use core::cell::Cell;
use core::sync::atomic::Ordering::*;

/// Frames isolated at a time: one flush and one write for as many.
pub const BATCH: usize = 64;

/// What a batch came to, in frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Free now.
    pub freed: u32,
    /// Free when their write is done.
    pub queued: u32,
    /// Nothing was tried, as the disk has enough to write: come again when it has answered.
    pub blocked: bool,
}

/// What the entries that named a frame told.
#[derive(Default)]
struct Seen {
    used: bool,
}

impl Reclaim {
    /// Evict what has not been used (or, if `hard`, whatever there is) from the old end of one list. An object with dirty pages met
    /// on the way is left in `unclean`, for the caller to write back.
    #[inline(never)]
    pub(super) fn evict<P: Platform>(
        &self,
        spaces: &Spaces<P>,
        (kind, generation): (Kind, u8),
        hard: bool,
        unclean: &mut Option<Arc<Object>>,
    ) -> Progress {
        let frames = &spaces.frames;
        let mut batch: ArrayVec<Pfn, BATCH> = ArrayVec::new();
        let young = self.young.load(Relaxed);
        frames.lists.isolate(frames.table(), kind, (generation, young), &mut |frame| {
            batch.push(frame);
            !batch.is_full()
        });
        spaces.counters.scanned.fetch_add(batch.len() as u64, Relaxed);
        // Pages that lie side by side should come to lie side by side on the disk.
        batch.sort_unstable_by_key(|&f| (frames.meta(f).owner(), frames.meta(f).index()));
        let mut sweep = Sweep::new(spaces);
        let mut gone: ArrayVec<(Pfn, bool), BATCH> = ArrayVec::new();
        for frame in batch {
            let used = self.was_used(spaces, frame, &mut sweep) && !hard;
            match if used { None } else { self.take(spaces, frame, &mut sweep) } {
                Some(written) => gone.push((frame, written)),
                None => self.put_back(spaces, frame),
            }
        }
        let proof = mutant!(CopyBeforeFlush, Flushed::forged(), sweep.finish());
        let mut progress = Progress::default();
        let mut dirty: ArrayVec<Moving, CLUSTER> = ArrayVec::new();
        for (frame, written) in gone {
            if written {
                // Once more: what was written to it before the flush may have come after a write-back that found the mark.
                mutant!(DirtyLost, (), spaces.mark_dirty(frame));
            }
            progress.freed += self.settle_or_queue(spaces, frame, &mut dirty, unclean, &proof) as u32;
        }
        progress.queued = dirty.len() as u32;
        self.write(spaces, &mut dirty);
        progress.queued -= dirty.len() as u32;
        for page in dirty {
            frames.meta(page.frame).set(Flags::DIRTY);
            frames.meta(page.frame).clear(Flags::WRITING);
            self.put_back(spaces, page.frame);
        }
        spaces.counters.reclaimed.fetch_add((progress.freed + progress.queued) as u64, Relaxed);
        progress
    }

    fn write<P: Platform>(&self, spaces: &Spaces<P>, dirty: &mut ArrayVec<Moving, CLUSTER>) {
        let before = dirty.len();
        spaces.swap.write(&spaces.frames, dirty);
        spaces.counters.swapped_out.fetch_add((before - dirty.len()) as u64, Relaxed);
    }

    /// Whether the page was used since the last look. Takes the marks back.
    fn was_used<P: Platform>(
        &self,
        spaces: &Spaces<P>,
        frame: Pfn,
        sweep: &mut Sweep<'_, Spaces<P>>,
    ) -> bool {
        let meta = spaces.frames.meta(frame);
        let mut seen = Seen { used: meta.word().has(Flags::REFERENCED) };
        meta.clear(Flags::REFERENCED);
        let maps = meta.word().maps();
        let visit = Visit { more: &|found| found < maps, sharers: false };
        self.each_entry(spaces, frame, visit, &mut |space, page, slot| {
            if slot.is_some_and(|slot| slot.take_accessed()) {
                seen.used = true;
                sweep.page(&space.tables, page);
            }
        });
        if seen.used {
            self.note_ahead(spaces, frame, true);
        }
        seen.used
    }

    #[inline(always)]
    fn take<P: Platform>(
        &self,
        spaces: &Spaces<P>,
        frame: Pfn,
        sweep: &mut Sweep<'_, Spaces<P>>,
    ) -> Option<bool> {
        if spaces.droppable.load(Relaxed) && self.discard(spaces, frame, sweep) {
            return Some(false);
        }
        self.unmap(spaces, frame, sweep)
    }

    /// Take the page from all who map it; whether it was written to. None, with nothing changed, where there is no slot to be had
    /// for it.
    fn unmap<P: Platform>(
        &self,
        spaces: &Spaces<P>,
        frame: Pfn,
        sweep: &mut Sweep<'_, Spaces<P>>,
    ) -> Option<bool> {
        let meta = spaces.frames.meta(frame);
        let word = meta.word();
        if word.any(Flags::WIRED) || word.pins() > 0 {
            return None;
        }
        if word.state() == State::Shared
            && spaces.objects.get(meta.owner()).is_some_and(|object| object.locked.load(Relaxed))
        {
            return None;
        }
        if word.state() != State::File && !self.ensure_slot(spaces, frame, word) {
            return None;
        }
        let mut written = false;
        let visit = Visit { more: &|_| meta.word().maps() > 0, sharers: true };
        self.each_entry(spaces, frame, visit, &mut |space, page, slot| {
            let Some(slot) = slot else {
                return mutant!(SharersNotFlushed, (), sweep.taken(&space.tables, page));
            };
            let after = match word.state() {
                State::Anon => Entry::Swap { slot: meta.slot() },
                _ => Entry::Absent,
            };
            if word.state() == State::Anon {
                spaces.swap.add_ref(&spaces.frames, meta.slot());
            }
            if let Entry::Present { dirty: true, .. } = slot.take(after) {
                mutant!(DirtyLost, (), spaces.mark_dirty(frame));
                written = true;
            }
            sweep.taken(&space.tables, page);
            // The frame is isolated: dropping the last map frees nothing before the flush.
            meta.drop_map();
        });
        Some(written)
    }

    /// A slot for a page of anonymous or shared memory, with the frame as its cached frame.
    fn ensure_slot<P: Platform>(&self, spaces: &Spaces<P>, frame: Pfn, word: Word) -> bool {
        let meta = spaces.frames.meta(frame);
        // Under the lock: somebody may be about to take the slot away, who saw the frame before it was isolated.
        let mut state = spaces.swap.state.lock();
        if meta.slot() != 0 {
            return true;
        }
        // A shared object's page that has just left its page map is nobody's to write.
        let cut = word.state() == State::Shared && !meta.word().has(Flags::CACHED);
        if cut || state.blocks.free() == 0 {
            return false;
        }
        match state.slots.take(&spaces.frames, spaces.cpu(), frame, word.account()) {
            Ok(slot) => {
                meta.set_slot(slot);
                meta.set(if word.state() == State::Anon {
                    Flags::CACHED | Flags::DIRTY
                } else {
                    Flags::DIRTY
                });
                true
            }
            Err(_) => false,
        }
    }

    /// After the flush: free the frame (true), queue it to be written, or put it back.
    fn settle_or_queue<P: Platform>(
        &self,
        spaces: &Spaces<P>,
        frame: Pfn,
        dirty: &mut ArrayVec<Moving, CLUSTER>,
        unclean: &mut Option<Arc<Object>>,
        _flushed: &Flushed,
    ) -> bool {
        let meta = spaces.frames.meta(frame);
        let word = meta.word();
        if word.maps() > 0 || word.pins() > 0 {
            self.put_back(spaces, frame);
            return false;
        }
        self.note_ahead(spaces, frame, false);
        if word.state() == State::File {
            if word.has(Flags::DIRTY) {
                *unclean = unclean.take().or_else(|| spaces.objects.get(meta.owner()));
                self.put_back(spaces, frame);
                return false;
            }
            return self.drop_file_page(spaces, frame);
        }
        let slot = meta.slot();
        if !word.has(Flags::CACHED) {
            // Truncated away while we held it.
            return self.finish(spaces, Moving { slot, frame }, false);
        }
        if word.has(Flags::DIRTY) {
            meta.clear(Flags::DIRTY);
            match spaces.frames.phys.same_filled(frame) {
                Some(fill) => {
                    spaces.counters.filled.fetch_add(1, Relaxed);
                    return self.finish_filled(spaces, Moving { slot, frame }, fill);
                }
                None => {
                    meta.set(Flags::WRITING);
                    dirty.push(Moving { slot, frame });
                    return false;
                }
            }
        }
        self.finish(spaces, Moving { slot, frame }, true)
    }

    fn drop_file_page<P: Platform>(&self, spaces: &Spaces<P>, frame: Pfn) -> bool {
        let meta = spaces.frames.meta(frame);
        if let Some(object) = spaces.objects.get(meta.owner()) {
            let mut pages = object.pages.lock();
            // Under the page map's lock nobody can pin it or begin to map it.
            if meta.word().pins() > 0 || meta.word().maps() > 0 || meta.word().has(Flags::DIRTY) {
                drop(pages);
                self.put_back(spaces, frame);
                return false;
            }
            if pages.get(meta.index()) == Place::Frame(frame) {
                pages.set(meta.index(), Place::Nowhere);
                meta.clear(Flags::CACHED);
            }
        }
        let clock = spaces.swap.evictions.fetch_add(1, Relaxed);
        spaces.ghosts.leave(meta.owner(), meta.index(), clock);
        spaces.balance.evicted(Kind::File);
        self.release(spaces, frame, Flags::ISOLATED)
    }

    /// The page is safe in its slot (or no longer wanted): let the frame go, unless someone has come for it meanwhile.
    /// Whether it is free.
    pub(super) fn finish<P: Platform>(&self, spaces: &Spaces<P>, page: Moving, good: bool) -> bool {
        let meta = spaces.frames.meta(page.frame);
        let mine = Flags::ISOLATED | Flags::WRITING;
        let word = meta.word();
        if word.has(Flags::CACHED) && good {
            match word.state() {
                State::Shared => self.leave_page_map(spaces, page),
                _ => self.leave_swap_cache(spaces, page),
            }
        } else if !word.has(Flags::CACHED) && page.slot != 0 {
            spaces.swap.uncache(&spaces.frames, page.slot);
            meta.set_slot(0);
        }
        if !meta.word().has(Flags::CACHED) {
            spaces.swap.evictions.fetch_add(1, Relaxed);
            spaces.balance.evicted(Kind::Swapped);
        }
        self.release(spaces, page.frame, mine)
    }

    fn finish_filled<P: Platform>(&self, spaces: &Spaces<P>, page: Moving, fill: u64) -> bool {
        // The slot may say so only once its frame has left: until then the frame is what it is.
        let meta = spaces.frames.meta(page.frame);
        let freed = {
            let object = match meta.word().state() {
                State::Shared => spaces.objects.get(meta.owner()),
                _ => None,
            };
            let mut map = object.as_ref().map(|o| o.pages.lock());
            let mut state = spaces.swap.state.lock();
            let word = meta.word();
            let here = map.as_ref().is_none_or(|m| m.get(meta.index()) == Place::Frame(page.frame));
            if word.maps() > 0 || word.pins() > 0 || word.has(Flags::DIRTY) || !here {
                false
            } else {
                // A shared object's page of zeroes is a hole: it needs no slot at all. Not where holes are asked about.
                let watched = object.as_ref().is_some_and(|object| object.watched.load(Relaxed));
                let hole = map.is_some() && fill == 0 && !watched;
                state.uncache_as(&spaces.frames, page.slot, Tier::Filled(fill), map.is_some() && !hole);
                if let Some(map) = &mut map {
                    map.set(meta.index(), if hole { Place::Nowhere } else { Place::Swap(page.slot) });
                }
                meta.set_slot(0);
                meta.clear(Flags::CACHED);
                true
            }
        };
        if !freed {
            meta.set(Flags::DIRTY);
            return self.finish(spaces, page, false);
        }
        spaces.swap.evictions.fetch_add(1, Relaxed);
        spaces.balance.evicted(Kind::Swapped);
        self.release(spaces, page.frame, Flags::ISOLATED)
    }

    fn leave_swap_cache<P: Platform>(&self, spaces: &Spaces<P>, page: Moving) {
        let meta = spaces.frames.meta(page.frame);
        let mut state = spaces.swap.state.lock();
        let word = meta.word();
        // Mapping a cached frame takes the same lock, so this look is the last word.
        if word.maps() == 0 && word.pins() == 0 && !word.has(Flags::DIRTY) {
            state.uncache_at(&spaces.frames, page.slot, spaces.swap.evictions.load(Relaxed));
            meta.set_slot(0);
            meta.clear(Flags::CACHED);
        }
    }

    fn leave_page_map<P: Platform>(&self, spaces: &Spaces<P>, page: Moving) {
        let meta = spaces.frames.meta(page.frame);
        let Some(object) = spaces.objects.get(meta.owner()) else { return };
        let mut pages = object.pages.lock();
        let word = meta.word();
        let here = pages.get(meta.index()) == Place::Frame(page.frame);
        if here && word.maps() == 0 && word.pins() == 0 && !word.has(Flags::DIRTY) {
            spaces.swap.add_ref(&spaces.frames, page.slot);
            pages.set(meta.index(), Place::Swap(page.slot));
            spaces.swap.uncache(&spaces.frames, page.slot);
            meta.set_slot(0);
            meta.clear(Flags::CACHED);
        }
    }

    /// A write has been answered.
    pub(super) fn written<P: Platform>(&self, spaces: &Spaces<P>, page: Moving, result: Result<(), IoError>) {
        let meta = spaces.frames.meta(page.frame);
        if result.is_err() {
            spaces.swap.write_errors.fetch_add(1, Relaxed);
            spaces.swap.state.lock().set_bad(&spaces.frames, page.slot);
            meta.set(Flags::DIRTY);
        }
        self.finish(spaces, page, result.is_ok());
    }

    /// Drop our hold; whether the frame is free now. If someone else holds it, it goes back on its list, among the young.
    fn release<P: Platform>(&self, spaces: &Spaces<P>, frame: Pfn, mine: Flags) -> bool {
        let frames = &spaces.frames;
        if frames.meta(frame).release_last(mine) {
            spaces.free_page(frame);
            return true;
        }
        let word = frames.lists.put_back(frames.table(), frame, self.young.load(Relaxed), mine);
        if word.maps() == 0 {
            // Its last user may have gone while it was in our hands.
            spaces.let_go(frame, word);
        }
        word.is_unheld()
    }

    /// Not this time.
    fn put_back<P: Platform>(&self, spaces: &Spaces<P>, frame: Pfn) {
        self.release(spaces, frame, Flags::ISOLATED);
    }

    /// Read-ahead's score: used after all, or evicted unused.
    pub(super) fn note_ahead<P: Platform>(&self, spaces: &Spaces<P>, frame: Pfn, used: bool) {
        let meta = spaces.frames.meta(frame);
        if meta.word().has(Flags::AHEAD) {
            meta.clear(Flags::AHEAD);
            if meta.word().state() == State::Anon {
                spaces.balance.ahead_fate(used);
            }
            let count = if used { &spaces.counters.ahead_used } else { &spaces.counters.ahead_wasted };
            count.fetch_add(1, Relaxed);
        }
    }

    /// Each entry that names the frame, for as long as there are `more` beside so many. Where one is in a shared leaf and `f` wants
    /// it ([`Visit::sharers`]): then also, without an entry, each place where one may have been. Whoever shares the leaf may hold a
    /// translation, also who came to share it, or ceased to, while we went round.
    fn each_entry<P: Platform>(
        &self,
        spaces: &Spaces<P>,
        frame: Pfn,
        visit: Visit<'_>,
        f: &mut dyn FnMut(&Space, Vpn, Option<&crate::paging::Slot<'_>>),
    ) {
        let meta = spaces.frames.meta(frame);
        let word = meta.word();
        if word.maps() == 0 {
            return;
        }
        let index = meta.index();
        let (shared, mut found) = (Cell::new(false), 0);
        // Whether to go on.
        let mut at = |space: crate::SpaceId, page: Vpn, flush: bool| {
            let (Some(space), Some(range)) = (spaces.spaces.get(space.0), crate::space::map::user_page(page))
            else {
                return true;
            };
            if flush {
                f(&space, page, None);
                return true;
            }
            let mut cursor = spaces.cursor(&space, range);
            if let Some(slot) = cursor.find(page)
                && slot.frame() == Some(frame)
            {
                f(&space, page, Some(&slot));
                shared.set(shared.get() || slot.is_shared());
                found += 1;
            }
            (visit.more)(found)
        };
        // Both rounds under one lock: nobody is forgotten in between.
        if word.state() == State::Anon {
            let Some(family) = spaces.families.get(meta.owner()) else { return };
            let members = family.members.lock();
            // Most pages are only with the one who pays for them, and he with many relatives.
            let payer = |&&(_, account): &&(_, crate::AccountId)| account == word.account();
            let others = members.iter().filter(|member| !payer(member));
            members.iter().filter(payer).chain(others).all(|&(space, _)| {
                let mut go_on = true;
                family.each_page(Vpn(index), |page| go_on = go_on && at(space, page, false));
                go_on
            });
            if shared.get() && visit.sharers {
                for &(space, _) in members.iter() {
                    family.each_page(Vpn(index), |page| _ = at(space, page, true));
                }
            }
        } else if let Some(object) = spaces.objects.get(meta.owner()) {
            let mappings = object.mappings.lock();
            let place = |delta: u64| Vpn(index.wrapping_add(delta));
            mappings.keys().all(|mapping| at(mapping.space, place(mapping.delta), false));
            if shared.get() && visit.sharers {
                mappings.keys().for_each(|mapping| _ = at(mapping.space, place(mapping.delta), true));
            }
        }
    }
}

/// How far to go round the entries that name a frame.
struct Visit<'a> {
    /// Whether there may be more, so many having been found.
    more: &'a dyn Fn(u32) -> bool,
    /// Whether those who share an entry are of interest.
    sharers: bool,
}
