//! The buddy allocator: free blocks of 2^order frames, aligned to their size, merged with their buddy when both are free.
//!
//! A free block is known by its first frame alone ([`State::FreeHead`], with the order in `index`), so adding 4 MiB of
//! RAM at start-up touches one record, and so does taking it away. The lists run through the records themselves.

use super::meta::{FrameMeta, NONE, State, Word};
use crate::account::AccountId;
use crate::addr::{Pfn, PfnRange};

/// Blocks of 2^0 to 2^10 frames: 4 KiB to 4 MiB.
pub const ORDERS: usize = 11;

pub struct Buddy {
    heads: [u32; ORDERS],
    /// Frames in all the lists.
    free: u32,
}

impl Buddy {
    pub const fn new() -> Self {
        Buddy { heads: [NONE; ORDERS], free: 0 }
    }

    pub fn free_frames(&self) -> u32 {
        self.free
    }

    /// Give a range of RAM to the allocator, in the largest blocks that fit it.
    pub fn add(&mut self, table: &[FrameMeta], range: PfnRange) {
        let mut at = range.start.0;
        while at < range.end.0 {
            let fits = (range.end.0 - at).ilog2();
            let order = at.trailing_zeros().min(fits).min(ORDERS as u32 - 1);
            self.push(table, at, order as usize);
            self.free += 1 << order;
            at += 1 << order;
        }
    }

    /// A block of 2^order frames, split from a larger one where need be.
    pub fn take(&mut self, table: &[FrameMeta], order: u8) -> Option<Pfn> {
        let order = order as usize;
        let found = (order..ORDERS).find(|&o| self.heads[o] != NONE)?;
        let block = self.heads[found];
        self.remove(table, block, found);
        for o in (order..found).rev() {
            self.push(table, block + (1 << o), o);
        }
        self.free -= 1 << order;
        Some(Pfn(block))
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
