//! Blocks: 512 frames in a row and aligned, what huge pages are made of.
//!
//! A block is taken only while frames are plentiful: when an eighth of RAM would stay free behind it. So a huge page never
//! makes the machine reclaim; and where reclaim begins none the less, it opens huge pages before it evicts anything, and finds
//! them here by block.
//!
//! While a CPU has nothing to do it zeroes free blocks ahead, so that a fault finds one ready. They stay free RAM, and serve as any
//! other where that is wanted. Only what is there anyhow is zeroed: nothing is merged for it, nor RAM opened that nobody has used.

use super::buddy::Buddy;
use super::lists::Arrival;
use super::meta::{State, Word};
use super::{BLOCK, Frames};
use crate::account::AccountId;
use crate::addr::Pfn;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering::*};

const ORDER: u8 = BLOCK.ilog2() as u8;

impl Frames {
    /// The leaf behind the huge page that begins with this frame.
    pub fn leaf_behind(&self, first: Pfn) -> Option<Pfn> {
        match self.behind.get()?[(first.0 / BLOCK) as usize].load(Acquire) {
            0 => None,
            leaf => Some(Pfn(leaf)),
        }
    }

    /// See that leaves can be noted: a word for each 2 MiB of RAM. False if there is no room for them.
    fn can_note_leaves(&self) -> bool {
        let make = || {
            let mut words = Vec::new();
            let count = self.table.len().div_ceil(BLOCK as usize);
            words.try_reserve_exact(count)?;
            words.resize_with(count, || AtomicU32::new(0));
            Ok::<_, TryReserveError>(words.into_boxed_slice())
        };
        self.behind.try_call_once(make).is_ok()
    }

    /// Note the leaf behind a huge page, or that it is one no more. Only under the lock of the tables that have it.
    pub fn set_leaf_behind(&self, first: Pfn, leaf: Option<Pfn>) {
        let Some(behind) = self.behind.get() else { return };
        behind[(first.0 / BLOCK) as usize].store(leaf.map_or(0, |leaf| leaf.0), Release);
        match leaf {
            Some(_) => self.whole.fetch_add(1, Relaxed),
            None => self.whole.fetch_sub(1, Relaxed),
        };
    }

    /// How many huge pages there are.
    #[inline]
    pub fn whole(&self) -> u32 {
        self.whole.load(Relaxed)
    }

    /// The first frame of some huge page, as it seems without a lock; they take turns.
    pub fn some_whole(&self) -> Option<Pfn> {
        let behind = self.behind.get()?;
        let (blocks, from) = (behind.len() as u32, self.hand.load(Relaxed));
        let found =
            (0..blocks).map(|n| (from + n) % blocks).find(|&b| behind[b as usize].load(Relaxed) != 0)?;
        self.hand.store(found + 1, Relaxed);
        Some(Pfn(found * BLOCK))
    }

    /// Whether frames are so many that a program may have a block of them for one page.
    #[inline]
    pub fn has_blocks(&self) -> bool {
        self.free() > self.marks.high + BLOCK + self.usable / 8
    }

    /// A block, if that leaves plenty, and whether it holds zeroes. Its frames' records say nothing yet.
    pub fn take_block(&self) -> Option<(Pfn, bool)> {
        if !self.has_blocks() || !self.can_note_leaves() {
            return None;
        }
        self.with_buddy(|buddy| match buddy.take_zeroed(self.table) {
            Some(block) => Some((block, true)),
            None => Some((buddy.take_block(self.table, ORDER)?, false)),
        })
    }

    /// Zero one free block ahead, page by page until it is done or `stop` says so. False where there was nothing to do.
    pub fn zero_ahead(&self, stop: &dyn Fn() -> bool) -> bool {
        if !self.has_blocks() {
            return false;
        }
        let Some(block) = self.with_buddy(|buddy| buddy.take_unzeroed(self.table)) else { return false };
        for n in 0..BLOCK {
            if stop() {
                self.with_buddy(|buddy| buddy.give(self.table, block, ORDER));
                return true;
            }
            self.phys.zero(block.add(n));
        }
        self.with_buddy(|buddy| buddy.give_zeroed(self.table, block));
        true
    }

    fn with_buddy<T>(&self, f: impl FnOnce(&mut Buddy) -> T) -> T {
        let mut buddy = self.buddy.lock();
        let result = f(&mut buddy);
        self.free.store(buddy.free_frames(), Relaxed);
        result
    }

    /// Give back a block that nothing holds and nobody is charged for.
    pub fn give_block(&self, first: Pfn) {
        for n in 0..BLOCK {
            self.meta(first.add(n)).set_word(Word::new(State::Inner, AccountId::KERNEL, 0));
        }
        self.with_buddy(|buddy| buddy.give(self.table, first, ORDER));
    }

    /// End the lives of a block's frames, if they are as they began: each as `word` says, and all in a row on one list.
    pub fn end_block(&self, first: Pfn, word: Word) -> bool {
        self.lists.end_row(self.table, first, BLOCK, word)
    }

    /// Begin the lives of a block's frames: each as the word says, of the owner, numbered from the index on, and on the list
    /// of what arrives so.
    pub fn begin_block(&self, cpu: usize, first: Pfn, page: (Word, u32, u64), arrival: Arrival) {
        self.lists.begin_row(self.table, cpu, (first, BLOCK), page, self.lists.place(arrival));
    }
}
