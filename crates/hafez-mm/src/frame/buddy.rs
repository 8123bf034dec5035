//! The buddy allocator: free blocks of 2^order frames, aligned to their size, merged with their buddy when both are free.
//!
//! A free block is known by its first frame alone ([`State::FreeHead`], with the order in `index`), so taking or giving
//! 4 MiB touches one record. The lists run through the records themselves.
//!
//! Single frames come and go far more often than blocks are wanted, so they are not merged as they come back, but lie *loose* on a
//! stack ([`State::Idle`]) that they leave again for the next who wants single ones. They are merged all at once, when a larger
//! block is wanted and there is none.
//!
//! Blocks that were zeroed while there was nothing else to do are in a list of their own, and apart from that as free as
//! any: they are split when nothing else is left.
//!
//! RAM begins *fresh*: in no list, its records never written. A largest block's worth is opened when the lists have
//! nothing left, and its records are cleared then. So starting costs the same with 16 MiB as with 16 GiB, and the host need
//! not back RAM, nor records of it, that nobody has used. As blocks of the largest order are never merged, nobody looks
//! across the border between what is open and what is fresh.

use super::magazine::{Loose, REFILL};
use super::meta::{FrameMeta, NONE, State, Word};
use crate::account::AccountId;
use crate::addr::{Pfn, PfnRange};
use alloc::vec;
use alloc::vec::Vec;

/// Blocks of 2^0 to 2^10 frames: 4 KiB to 4 MiB.
pub const ORDERS: usize = 11;

/// The list of blocks that hold zeroes already, beside those of each order; and the order of all of them.
const ZEROED: usize = ORDERS;
const ZEROED_ORDER: usize = super::BLOCK.ilog2() as usize;

/// So many of them are enough: 64 MiB.
const AHEAD: u32 = 32;

/// Frames of the largest block: what is opened at a time.
pub const CHUNK: u32 = 1 << (ORDERS - 1);

pub struct Buddy {
    heads: [u32; ORDERS + 1],
    /// Blocks that hold zeroes.
    zeroed: u32,
    /// Frames in all the lists, and fresh.
    free: u32,
    /// RAM whose records have not been written yet, ascending; it is opened from the end.
    fresh: Vec<PfnRange>,
    /// A bit for each chunk that is open.
    open: Vec<u64>,
    /// The single frames that have come back since the last merge.
    loose: Loose,
}

impl Buddy {
    /// Rule over these ranges of RAM, ascending, none of which overlap.
    pub fn new(ranges: impl Iterator<Item = PfnRange>, table: &[FrameMeta]) -> Self {
        let chunks = table.len().div_ceil(CHUNK as usize);
        let fresh: Vec<PfnRange> = ranges.filter(|r| !r.is_empty()).collect();
        let free = fresh.iter().map(PfnRange::len).sum();
        Buddy {
            heads: [NONE; ORDERS + 1],
            zeroed: 0,
            free,
            fresh,
            open: vec![0; chunks.div_ceil(64)],
            loose: Loose::default(),
        }
    }

    pub fn free_frames(&self) -> u32 {
        self.free
    }

    /// Whether the records of the chunk's frames mean something.
    pub fn is_open(&self, chunk: u32) -> bool {
        self.open[chunk as usize / 64] >> (chunk % 64) & 1 == 1
    }

    /// Put the last fresh chunk on the lists, in the largest blocks that fit; `false` where nothing is fresh.
    #[cold]
    fn open_chunk(&mut self, table: &[FrameMeta]) -> bool {
        let Some(last) = self.fresh.last_mut() else { return false };
        let chunk = (last.end.0 - 1) / CHUNK;
        let at = last.start.0.max(chunk * CHUNK);
        let end = last.end.0;
        last.end = Pfn(at);
        if last.is_empty() {
            self.fresh.pop();
        }
        // A chunk may lie in several ranges.
        let word = &mut self.open[chunk as usize / 64];
        if *word >> (chunk % 64) & 1 == 0 {
            *word |= 1 << (chunk % 64);
            table[(chunk * CHUNK) as usize..].iter().take(CHUNK as usize).for_each(FrameMeta::clear_all);
        }
        blocks_of(PfnRange { start: Pfn(at), end: Pfn(end) }, |at, order| self.push(table, at, order));
        true
    }

    /// A block of 2^order frames, split from a larger one where need be.
    pub fn take(&mut self, table: &[FrameMeta], order: u8) -> Option<Pfn> {
        if order == 0
            && let Some(frame) = self.take_loose(table)
        {
            return Some(frame);
        }
        let order = order as usize;
        let found = loop {
            match (order..ORDERS).find(|&o| self.heads[o] != NONE) {
                Some(found) => break found,
                None if self.forget_zeroed(table) => {}
                None if order > 0 && self.merge(table) => {}
                None if self.open_chunk(table) => {}
                None => return None,
            }
        };
        let block = self.heads[found];
        self.remove(table, block, found);
        for o in (order..found).rev() {
            self.push(table, block + (1 << o), o);
        }
        self.free -= 1 << order;
        Some(Pfn(block))
    }

    /// A block of 2^order frames that is there already, or fresh; single frames are merged for it only when they are so many
    /// that it may well be worth it.
    pub fn take_block(&mut self, table: &[FrameMeta], order: u8) -> Option<Pfn> {
        let there = |buddy: &Buddy| (order as usize..ORDERS).any(|o| buddy.heads[o] != NONE);
        let worth = |buddy: &Buddy| buddy.loose.len() >= 1 << order;
        if there(self)
            || self.open_chunk(table) && there(self)
            || worth(self) && self.merge(table) && there(self)
        {
            return self.take(table, order);
        }
        None
    }

    /// A block that holds zeroes.
    pub fn take_zeroed(&mut self, table: &[FrameMeta]) -> Option<Pfn> {
        let block = self.heads[ZEROED];
        if block == NONE {
            return None;
        }
        self.remove(table, block, ZEROED);
        self.zeroed -= 1;
        self.free -= 1 << ZEROED_ORDER;
        Some(Pfn(block))
    }

    /// A block to be zeroed, if there is one as large without more ado, and not enough are.
    pub fn take_unzeroed(&mut self, table: &[FrameMeta]) -> Option<Pfn> {
        let there = self.heads[ZEROED_ORDER..ORDERS].iter().any(|&head| head != NONE);
        if there && self.zeroed < AHEAD { self.take(table, ZEROED_ORDER as u8) } else { None }
    }

    /// Give a block back that holds zeroes now. It is not merged.
    pub fn give_zeroed(&mut self, table: &[FrameMeta], block: Pfn) {
        self.free += 1 << ZEROED_ORDER;
        self.push(table, block.0, ZEROED);
        self.zeroed += 1;
    }

    /// Have one of the blocks that hold zeroes serve as any other; false if there is none.
    #[cold]
    fn forget_zeroed(&mut self, table: &[FrameMeta]) -> bool {
        let block = self.take_zeroed(table);
        block.is_some_and(|block| {
            self.give(table, block, ZEROED_ORDER as u8);
            true
        })
    }

    /// Up to `count` single frames, those that are single already before a block is split for more. Loose ones are idle already.
    pub fn take_singles(&mut self, table: &[FrameMeta], count: usize, out: &mut impl FnMut(Pfn)) {
        let mut left = count as u32;
        while left > 0
            && let Some(frame) = self.take_loose(table)
        {
            out(frame);
            left -= 1;
        }
        while left > 0 {
            let order = if self.heads[0] == NONE { left.ilog2() as u8 } else { 0 };
            let whole = self.take(table, order).map(|block| (block, 1 << order));
            let Some((block, got)) = whole.or_else(|| Some((self.take(table, 0)?, 1))) else { return };
            for frame in (0..got).map(|n| block.add(n)) {
                table[frame.0 as usize].begin(Word::new(State::Idle, AccountId::KERNEL, 0), 0, 0);
                out(frame);
            }
            left -= got;
        }
    }

    /// A block to be used up frame by frame: the smallest that is there of those worth it, of 2^most frames at most. None while there
    /// are single frames, which are to be used first.
    pub fn take_run(&mut self, table: &[FrameMeta], most: u8) -> Option<PfnRange> {
        if self.loose.len() > 0 {
            return None;
        }
        let there = (REFILL.ilog2() as u8..most).find(|&order| self.heads[order as usize] != NONE);
        let order = there.unwrap_or(most);
        let start = self.take(table, order)?;
        Some(PfnRange { start, end: start.add(1 << order) })
    }

    /// Give back what is left of a run.
    pub fn give_run(&mut self, table: &[FrameMeta], run: PfnRange) {
        blocks_of(run, |at, order| self.give(table, Pfn(at), order as u8));
    }

    /// The single frame that came back last.
    #[inline]
    fn take_loose(&mut self, table: &[FrameMeta]) -> Option<Pfn> {
        let frame = self.loose.take(table)?;
        self.free -= 1;
        Some(frame)
    }

    /// Give idle frames back, to be merged when need be.
    pub fn give_singles(&mut self, table: &[FrameMeta], frames: &[Pfn]) {
        for &frame in frames {
            self.loose.put(table, frame);
        }
        self.free += frames.len() as u32;
    }

    /// Merge the single frames; false if none has come back since the last time.
    #[cold]
    fn merge(&mut self, table: &[FrameMeta]) -> bool {
        let some = self.loose.len() > 0;
        while let Some(frame) = self.take_loose(table) {
            self.give(table, frame, 0);
        }
        some
    }

    /// Give a block back, merging it upwards.
    pub fn give(&mut self, table: &[FrameMeta], block: Pfn, order: u8) {
        self.free += 1 << order;
        let (mut at, mut o) = (block.0, order as usize);
        while o + 1 < ORDERS {
            let buddy = at ^ (1 << o);
            let Some(meta) = table.get(buddy as usize) else { break };
            if meta.word().state() != State::FreeHead || meta.index() != o as u64 {
                break;
            }
            self.remove(table, buddy, o);
            at &= !(1 << o);
            o += 1;
        }
        self.push(table, at, o);
    }

    fn push(&mut self, table: &[FrameMeta], block: u32, order: usize) {
        let meta = &table[block as usize];
        meta.begin(Word::new(State::FreeHead, AccountId::KERNEL, 0), 0, order as u64);
        let next = self.heads[order];
        meta.set_prev(NONE);
        meta.set_next(next);
        if next != NONE {
            table[next as usize].set_prev(block);
        }
        self.heads[order] = block;
    }

    fn remove(&mut self, table: &[FrameMeta], block: u32, order: usize) {
        let meta = &table[block as usize];
        let (prev, next) = (meta.prev(), meta.next());
        match prev {
            NONE => self.heads[order] = next,
            _ => table[prev as usize].set_next(next),
        }
        if next != NONE {
            table[next as usize].set_prev(prev);
        }
        meta.set_word(Word::new(State::Inner, AccountId::KERNEL, 0));
    }
}

/// The largest blocks that make up the range, as first frame and order, ascending.
fn blocks_of(range: PfnRange, mut each: impl FnMut(u32, usize)) {
    let (mut at, end) = (range.start.0, range.end.0);
    while at < end {
        let fits = (end - at).ilog2();
        let order = at.trailing_zeros().min(fits).min(ORDERS as u32 - 1);
        each(at, order as usize);
        at += 1 << order;
    }
}
