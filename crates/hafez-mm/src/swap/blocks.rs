//! Which blocks of the swap disk are taken: a bit a block, handed out in runs.
//!
//! A batch of evicted pages wants one run, so that it is one write now and one read-ahead later. The search goes on
//! from where the last one ended (next fit), which keeps runs long while the disk is not nearly full. Where the free blocks lie
//! scattered it looks at some runs and takes the longest of them; all of a large disk would be a long look for a little longer a run.
//!
//! What is taken as a whole is passed over 4,096 blocks at a time: `full` has a bit for each word of `taken`.

use alloc::vec;
use alloc::vec::Vec;

pub struct Blocks {
    taken: Vec<u64>,
    /// Words of `taken` of which no bit is zero.
    full: Vec<u64>,
    total: u32,
    free: u32,
    next: u32,
}

/// Runs that are looked at, at most, for one that is as long as wanted.
const LOOK: u32 = 16;

impl Blocks {
    pub fn new(total: u32) -> Self {
        let taken = bits(total);
        Blocks { full: bits(taken.len() as u32), taken, total, free: total, next: 0 }
    }

    pub fn total(&self) -> u32 {
        self.total
    }

    pub fn free(&self) -> u32 {
        self.free
    }

    /// Take a run of 1 to `want` free blocks: the first that has them all, else the longest of the next few.
    pub fn take(&mut self, want: u32) -> Option<(u32, u32)> {
        let mut best = (0, 0);
        let (mut at, mut first) = (self.next, None);
        for _ in 0..LOOK {
            let Some(start) = self.next_free(at).or_else(|| self.next_free(0)) else { break };
            if first == Some(start) {
                break;
            }
            first = first.or(Some(start));
            let len = self.free_from(start).min(want);
            if len > best.1 {
                best = (start, len);
            }
            if len == want {
                break;
            }
            at = start + len;
        }
        let (start, len) = best;
        if len == 0 {
            return None;
        }
        for block in start..start + len {
            set(&mut self.taken, block);
            if self.taken[block as usize / 64] == !0 {
                set(&mut self.full, block / 64);
            }
        }
        self.free -= len;
        self.next = start + len;
        Some((start, len))
    }

    pub fn give(&mut self, block: u32) {
        debug_assert!(self.taken[block as usize / 64] & 1 << (block % 64) != 0, "a block is freed twice");
        self.taken[block as usize / 64] &= !(1 << (block % 64));
        self.full[block as usize / 4096] &= !(1 << (block / 64 % 64));
        self.free += 1;
    }

    /// The first free block from `from` on.
    fn next_free(&self, from: u32) -> Option<u32> {
        zero_in(&self.taken, from).or_else(|| zero_in(&self.taken, self.next_word(from / 64 + 1)? * 64))
    }

    /// The first word of `taken` from `from` on that is not full.
    fn next_word(&self, from: u32) -> Option<u32> {
        let others = from / 64 + 1..self.full.len() as u32;
        zero_in(&self.full, from)
            .or_else(|| others.map(|part| part * 64).find_map(|at| zero_in(&self.full, at)))
    }

    /// How many blocks from this free one on are free, as far as they are counted: up to the end of the next word.
    fn free_from(&self, start: u32) -> u32 {
        let here = (self.taken[start as usize / 64] >> (start % 64)).trailing_zeros().min(64 - start % 64);
        match self.taken.get(start as usize / 64 + 1) {
            Some(next) if here == 64 - start % 64 => here + next.trailing_zeros(),
            _ => here,
        }
    }
}

/// So many bits that are zero. What lies behind them in the last word is not.
fn bits(count: u32) -> Vec<u64> {
    let mut words = vec![0; count.div_ceil(64) as usize];
    if let (Some(last), part @ 1..) = (words.last_mut(), count % 64) {
        *last = !0 << part;
    }
    words
}

fn set(words: &mut [u64], bit: u32) {
    words[bit as usize / 64] |= 1 << (bit % 64);
}

/// The first bit from `from` on, in its word, that is zero.
fn zero_in(words: &[u64], from: u32) -> Option<u32> {
    let word = words.get(from as usize / 64)? | ((1 << (from % 64)) - 1);
    (word != !0).then(|| from / 64 * 64 + word.trailing_ones())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_do_not_overlap_and_all_blocks_are_found() {
        let mut blocks = Blocks::new(150);
        let mut seen = [false; 150];
        while let Some((start, len)) = blocks.take(16) {
            for b in start..start + len {
                assert!(!core::mem::replace(&mut seen[b as usize], true));
            }
        }
        assert!(seen.iter().all(|&s| s));
        assert_eq!(blocks.free(), 0);
        blocks.give(149);
        blocks.give(3);
        blocks.give(4);
        assert_eq!(blocks.take(16), Some((3, 2)));
        assert_eq!(blocks.take(16), Some((149, 1)));
        assert_eq!(blocks.take(1), None);
    }

    /// A large disk of which every other block is free: all are found, and soon (were all of it looked at each time, this would
    /// take hours).
    #[test]
    fn scattered_blocks_are_found_without_a_long_look() {
        let total = (1 << 21) + 77;
        let mut blocks = Blocks::new(total);
        while blocks.take(64).is_some() {}
        assert_eq!(blocks.free(), 0);
        (0..total).step_by(2).for_each(|block| blocks.give(block));
        let mut found = vec![false; total as usize];
        while let Some((block, len)) = blocks.take(64) {
            assert!(len == 1 && block % 2 == 0 && !core::mem::replace(&mut found[block as usize], true));
        }
        assert!(found.iter().step_by(2).all(|&found| found));
        // One alone is found wherever it is.
        for block in [total - 1, 0, 4095, 4096, 1 << 20] {
            blocks.give(block);
            assert_eq!(blocks.take(2), Some((block, 1)));
        }
    }

    /// A run is taken whole across words, and no longer than there is disk.
    #[test]
    fn runs_go_across_words() {
        let mut blocks = Blocks::new(200);
        while blocks.take(64).is_some() {}
        (60..130).for_each(|block| blocks.give(block));
        assert_eq!(blocks.take(64), Some((60, 64)));
        assert_eq!(blocks.take(64), Some((124, 6)));
        (190..200).for_each(|block| blocks.give(block));
        assert_eq!(blocks.take(64), Some((190, 10)));
        assert_eq!((blocks.take(1), blocks.free()), (None, 0));
    }
}
