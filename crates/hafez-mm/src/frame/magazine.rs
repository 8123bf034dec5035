//! A CPU's magazine: free frames that no other CPU asks for, so that those who take and give at the same time do not meet.
//!
//! ```text
//!            --a block--->  run ----.
//!   buddy                            >--32 at a time--->  hand  <---1---  fault, page table, cache
//!            <--one each->  loose <-'                           ----->
//! ```
//!
//! The hand is a small array: taking a frame is a pop from it. Where RAM is plentiful the magazine has more behind it: the *run*, which is
//! what is left of a block that this CPU got whole and uses up from its beginning, and a stack of the *loose* frames that came back
//! here last. So the records of the frames that a CPU hands out stay in its cache, and the lists of all are asked once a block.
//!
//! That is a convenience of times of plenty. When frames become few all magazines are emptied, once, before anybody reclaims, and from
//! then on have a hand only.

use super::buddy::Buddy;
use super::meta::{FrameMeta, NONE, State, Word};
use crate::account::AccountId;
use crate::addr::{Pfn, PfnRange};
use arrayvec::ArrayVec;

/// Frames in a hand. Two refills' worth, so that freeing and allocating in turn never goes behind it each time.
const HAND: usize = 64;
pub const REFILL: usize = HAND / 2;

/// Idle frames in a stack, which runs through their records' `next`.
pub struct Loose {
    head: u32,
    len: u32,
}

impl Default for Loose {
    fn default() -> Self {
        Loose { head: NONE, len: 0 }
    }
}

impl Loose {
    pub fn len(&self) -> u32 {
        self.len
    }

    #[inline]
    pub fn put(&mut self, table: &[FrameMeta], frame: Pfn) {
        table[frame.0 as usize].set_next(self.head);
        self.head = frame.0;
        self.len += 1;
    }

    /// The one that was put last.
    #[inline]
    pub fn take(&mut self, table: &[FrameMeta]) -> Option<Pfn> {
        let frame = self.head;
        if frame == NONE {
            return None;
        }
        self.head = table[frame as usize].next();
        self.len -= 1;
        Some(Pfn(frame))
    }
}

pub struct Magazine {
    hand: ArrayVec<Pfn, HAND>,
    loose: Loose,
    run: PfnRange,
}

impl Default for Magazine {
    fn default() -> Self {
        Magazine {
            hand: ArrayVec::new(),
            loose: Loose::default(),
            run: PfnRange { start: Pfn(0), end: Pfn(0) },
        }
    }
}

impl Magazine {
    pub fn len(&self) -> u32 {
        self.hand.len() as u32 + self.loose.len() + self.run.len()
    }

    /// What is left of a block: its frames' records do not say that they are free.
    pub fn run(&self) -> u32 {
        self.run.len()
    }

    #[inline]
    pub fn take(&mut self) -> Option<Pfn> {
        self.hand.pop()
    }

    /// Take idle frames in hand; false if they are too many.
    #[inline]
    pub fn put(&mut self, frames: &[Pfn]) -> bool {
        self.hand.try_extend_from_slice(frames).is_ok()
    }

    /// Fill the empty hand from what is behind it; a frame of it.
    pub fn draw(&mut self, table: &[FrameMeta]) -> Option<Pfn> {
        while self.hand.len() < REFILL
            && let Some(frame) = self.loose.take(table)
        {
            self.hand.push(frame);
        }
        while self.hand.len() < REFILL && !self.run.is_empty() {
            let frame = self.run.start;
            self.run.start = frame.add(1);
            table[frame.0 as usize].begin(Word::new(State::Idle, AccountId::KERNEL, 0), 0, 0);
            self.hand.push(frame);
        }
        self.take()
    }

    /// Have this block as a run, the one before being used up.
    pub fn begin_run(&mut self, block: PfnRange) {
        debug_assert!(self.run.is_empty());
        self.run = block;
    }

    /// Fill the empty hand from the buddy lists, which have so many frames to give.
    pub fn refill(&mut self, table: &[FrameMeta], buddy: &mut Buddy, count: usize) {
        buddy.take_singles(table, count, &mut |frame| self.hand.push(frame));
    }

    /// Put these behind the hand, and half of what is in it; false if more than `most` would be there.
    pub fn lay_by(&mut self, table: &[FrameMeta], frames: &[Pfn], most: u32) -> bool {
        if self.loose.len() + (frames.len() + HAND) as u32 > most {
            return false;
        }
        let kept = REFILL.min(self.hand.len());
        for frame in self.hand.drain(kept..).chain(frames.iter().copied()) {
            self.loose.put(table, frame);
        }
        true
    }

    /// Give all but `kept` of the hand to the buddy lists.
    pub fn spill(&mut self, table: &[FrameMeta], buddy: &mut Buddy, kept: usize) {
        let kept = kept.min(self.hand.len());
        buddy.give_singles(table, &self.hand[kept..]);
        self.hand.truncate(kept);
    }

    /// Give everything to the buddy lists, where blocks form again.
    pub fn empty(&mut self, table: &[FrameMeta], buddy: &mut Buddy) {
        self.spill(table, buddy, 0);
        while let Some(frame) = self.loose.take(table) {
            buddy.give_singles(table, &[frame]);
        }
        buddy.give_run(table, self.run);
        self.run.start = self.run.end;
    }
}
