//! Pressure: what happens when frames run short.
//!
//! ```text
//!   free frames   high      reclaim_to_high stops
//!                 low       ... starts: an allocation that sees it wakes the reclaim thread
//!                 reserve   a program's allocation fails: make_room, by the program's own thread
//!                 starved   nothing left but the last of the files: out_of_memory
//! ```
//!
//! Everything here may sleep and is called with no lock held. `Memory::retry` is the door: it does what it is given, and
//! on [`Stop::NoFrames`] makes room and does it again.

use crate::account::{AccountId, AccountStat};
use crate::frame::BLOCK;
use crate::frame::lists::GENERATIONS;
use crate::memory::Memory;
use crate::reclaim::BATCH;
use crate::space::{FaultError, Stop};
use crate::{OomReport, Platform, keys};
use core::sync::atomic::Ordering::*;

/// Frames that one fault may need at the same time, besides page tables, which stay made: an object's page and its copy.
const FAULT_FRAMES: u32 = 4;

/// How often a process that wants a frame goes through all there is before another has to go for it. From the second half of the
/// first time on nothing is spared for having been used; and what other CPUs fault back as fast as it is taken is tried again.
const HARD_ROUNDS: usize = 8;

impl<P: Platform> Memory<P> {
    /// Do it, making room as often as needed. What a fault needs is a few frames: where they cannot be had, somebody goes.
    pub(crate) fn retry<T>(&self, who: AccountId, f: impl FnMut() -> Result<T, Stop>) -> Result<T, Stop> {
        self.retry_up_to(who, 1, FAULT_FRAMES, f)
    }

    /// As `Memory::retry`, for what needs so many frames.
    pub(crate) fn retry_for<T>(
        &self,
        who: AccountId,
        frames: u32,
        f: impl FnMut() -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        self.retry_up_to(who, frames, frames, f)
    }

    /// As `Memory::retry`, for a call that may need many frames at once, and that can be refused where they cannot be had.
    pub(crate) fn retry_or_refuse<T>(
        &self,
        who: AccountId,
        f: impl FnMut() -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        self.retry_up_to(who, 1, u32::MAX, f)
    }

    fn retry_up_to<T>(
        &self,
        who: AccountId,
        least: u32,
        most: u32,
        mut f: impl FnMut() -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let mut want = least;
        loop {
            match f() {
                Err(Stop::NoFrames) => {
                    // An attempt that failed gave its frames back, and the next needs as many: ask for ever more.
                    let had = self.make_room(who, want)?;
                    if !had && most == u32::MAX {
                        return Err(FaultError::OutOfMemory.into());
                    }
                    if !had {
                        self.out_of_memory(who, want)?;
                    }
                    want = want.saturating_mul(2).min(most);
                }
                done => {
                    if self.spaces.frames.wanted.load(Relaxed) {
                        self.spaces.platform.wake(keys::WANTED);
                    }
                    return done;
                }
            }
        }
    }

    /// Batches without a gain after which there is nothing to be had: twice through everything, since the first pass
    /// may only take accessed bits back, and a batch is a walk or a part of one of the lists.
    fn patience(&self) -> usize {
        let lists: u32 = self.spaces.frames.lists.lengths().iter().flatten().sum();
        2 * (lists as usize / BATCH + 3 * 2 * GENERATIONS as usize)
    }

    /// Get so many frames for a program; false where that is not possible.
    #[cold]
    fn make_room(&self, who: AccountId, want: u32) -> Result<bool, Stop> {
        let frames = &self.spaces.frames;
        let goal = frames.marks.reserve.saturating_add(want);
        let gained = || self.spaces.counters.reclaimed.load(Relaxed);
        let (mut fruitless, mut before) = (0, gained());
        loop {
            let patience = self.patience();
            if fruitless >= HARD_ROUNDS * patience {
                // Others on other CPUs gained something meanwhile, and used it up: there is something to be had.
                if gained() == before {
                    break;
                }
                (fruitless, before) = (0, gained());
            }
            if self.dying.lock().contains(&who) {
                return Err(FaultError::OutOfMemory.into());
            }
            frames.drain();
            if frames.free() >= goal {
                return Ok(true);
            }
            if self.is_starved() {
                return Ok(false);
            }
            self.spaces.note_peak();
            // In this order: what a batch that has ended by then left to the disk is seen in flight, or its answer was.
            let (ended, _) = self.reclaim.progress();
            let coming = self.spaces.coming.load(Acquire);
            let answers = self.spaces.swap.answers();
            let in_flight = self.spaces.swap.in_flight();
            let hard = fruitless >= patience / 2;
            match self.reclaim.batch_of(&self.spaces, hard) {
                Some(progress) if progress.freed > 0 => fruitless = 0,
                progress => {
                    fruitless += 1;
                    if progress.is_some_and(|p| p.queued > 0 || p.blocked) {
                        fruitless = 0;
                    }
                    if in_flight > 0 {
                        self.spaces.wait_answer(answers);
                    } else if progress.is_none() && !self.await_others(ended, coming) {
                        break;
                    }
                }
            }
        }
        frames.drain();
        Ok(frames.free() >= goal)
    }

    /// There is nothing on the lists, perhaps because others have it in hand: wait for one of them. A batch counts, of those that
    /// have not ended since `ended` and our own; and what is on its way in, as `before` frames were then. False where there was
    /// nothing of either.
    fn await_others(&self, ended: u32, before: u32) -> bool {
        let own = ended.wrapping_add(1);
        let coming = || self.spaces.coming.load(Acquire);
        let batches = || {
            let (now, under_way) = self.reclaim.progress();
            (now != own, under_way > 0)
        };
        let moved = || batches().0 || coming() != before;
        self.spaces.platform.wait(keys::FREED, &|| moved() || !batches().1 && before == 0);
        moved()
    }

    /// Whether all that could still be evicted is the last of the files: a 32nd of RAM, mostly the programs' own text; or so
    /// little of anything that what runs would be out and back at once, again and again. The machine would seem to hang; so
    /// this counts as out of memory.
    fn is_starved(&self) -> bool {
        let frames = &self.spaces.frames;
        // What is looked at one after the other may move from where it is still to be seen to where it was seen already, and be
        // missed: then this look tells nothing.
        let moves = || (self.reclaim.moves(), self.spaces.swap.answers());
        let before = moves();
        let [_, files] = frames.lists.lengths().map(|kind| kind.iter().sum::<u32>());
        // What is in hand may all be files'.
        let files_only = files + self.in_hand() < frames.usable / 32
            && frames.whole() == 0
            && !self.spaces.swap.has_room();
        let busy = self.spaces.swap.in_flight() > 0;
        !busy && (files_only || self.within_reach() < self.least() / 2) && moves() == before
    }

    /// Frames that are free, or can be made so; and those that are in hand.
    fn within_reach(&self) -> u32 {
        let frames = &self.spaces.frames;
        let in_hand = self.in_hand();
        let listed: u32 = frames.lists.lengths().iter().flatten().sum();
        frames.free() + listed + in_hand + frames.whole() * BLOCK
    }

    /// Frames that are on no list at this moment, and will be on one or free: what batches have, at most, and what is on its way in.
    fn in_hand(&self) -> u32 {
        let (_, batches) = self.reclaim.progress();
        batches * BATCH as u32 + self.spaces.coming.load(Acquire)
    }

    /// What must stay within reach, so that programs can run at all: a 6th of RAM, at most 4 MiB.
    fn least(&self) -> u32 {
        (self.spaces.frames.usable / 6).min(1024)
    }

    /// Whether what cannot be reclaimed leaves programs so little room that nothing more of its kind may be made.
    pub fn is_crowded(&self) -> bool {
        self.within_reach() < self.least() && {
            self.spaces.frames.recall();
            self.within_reach() < self.least()
        }
    }

    /// Nothing more can be evicted: the process that holds most goes, and says why.
    #[cold]
    fn out_of_memory(&self, who: AccountId, want: u32) -> Result<(), Stop> {
        let frames = &self.spaces.frames;
        let accounts = &frames.accounts;
        self.spaces.platform.holdings(&mut |id, pages| accounts.note_things(id, pages));
        let mut victim: Option<(AccountId, AccountStat)> = None;
        accounts.for_each(|id, open, stat| {
            let held = |id, s: &AccountStat| s.resident + s.swapped + s.tables + accounts.things(id);
            if open
                && accounts.can_go(id)
                && id != AccountId::KERNEL
                && victim.as_ref().is_none_or(|(other, most)| held(id, &stat) > held(*other, most))
            {
                victim = Some((id, stat));
            }
        });
        let Some((id, stat)) = victim else { return Err(FaultError::OutOfMemory.into()) };
        let first = {
            let mut dying = self.dying.lock();
            let first = !dying.contains(&id);
            if first {
                dying.push(id);
            }
            first
        };
        if first {
            self.spaces.counters.oom_kills.fetch_add(1, Relaxed);
            let totals = self.stats();
            self.spaces.platform.kill(id, &OomReport { victim: stat, things: accounts.things(id), totals });
            // It may be one of those who wait for another to go.
            self.spaces.platform.wake(keys::FREED);
        }
        if id == who {
            return Err(FaultError::OutOfMemory.into());
        }
        // The victim's memory comes back as it exits.
        let dying = |id| self.dying.lock().contains(&id);
        let had = || frames.free() >= frames.marks.reserve + want;
        self.spaces.platform.wait(keys::FREED, &|| had() || !dying(id) || dying(who));
        Ok(())
    }

    /// The body of the reclaim thread, for ever: sleep until frames are wanted, reclaim up to the high watermark.
    pub fn kreclaim(&self) -> ! {
        loop {
            let frames = &self.spaces.frames;
            self.spaces.platform.wait(keys::WANTED, &|| frames.wanted.load(Acquire));
            self.reclaim_to_high();
        }
    }

    /// One step of reclaim, needed or not.
    pub fn reclaim_some(&self) -> bool {
        self.spaces.note_peak();
        self.reclaim.batch(&self.spaces).is_some()
    }

    /// One waking of the reclaim thread.
    pub fn reclaim_to_high(&self) {
        let frames = &self.spaces.frames;
        frames.recall();
        let mut fruitless = 0;
        while frames.free() < frames.marks.high && fruitless < self.patience() && !self.is_starved() {
            self.spaces.note_peak();
            let answers = self.spaces.swap.answers();
            let busy = self.spaces.swap.in_flight();
            // What is being written counts as soon free.
            if busy > 0 && frames.free() + busy * BATCH as u32 / 2 >= frames.marks.high {
                self.spaces.wait_answer(answers);
                continue;
            }
            match self.reclaim.batch(&self.spaces) {
                Some(progress) if progress.blocked => self.spaces.wait_answer(answers),
                Some(progress) if progress.freed + progress.queued > 0 => fruitless = 0,
                Some(_) => fruitless += 1,
                None => break,
            }
            self.spaces.platform.wake(keys::FREED);
        }
        frames.wanted.store(false, Release);
        self.spaces.platform.wake(keys::FREED);
    }
}
