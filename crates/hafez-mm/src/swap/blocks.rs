//! Which blocks of the swap disk are taken: a bit a block, handed out in runs.
//!
//! A batch of evicted pages wants one run, so that it is one write now and one read-ahead later. The search goes on
//! from where the last one ended (next fit), which keeps runs long while the disk is not nearly full.

use alloc::vec;
use alloc::vec::Vec;

pub struct Blocks {
    taken: Vec<u64>,
    total: u32,
    free: u32,
    next: u32,
}

impl Blocks {
    pub fn new(total: u32) -> Self {
        let mut taken = vec![0; total.div_ceil(64) as usize];
        if let (Some(last), part @ 1..) = (taken.last_mut(), total % 64) {
            *last = !0 << part;
        }
        Blocks { taken, total, free: total, next: 0 }
    }

    pub fn total(&self) -> u32 {
        self.total
    }

    pub fn free(&self) -> u32 {
        self.free
    }

    /// Take a run of 1 to `want` free blocks: the first that has them all, else the longest.
    pub fn take(&mut self, want: u32) -> Option<(u32, u32)> {
        let mut best = (0, 0);
        let mut at = self.next;
        let mut seen = 0;
        while seen < self.total && self.free > 0 {
            let start = match self.next_free(at) {
                Some(start) => start,
                None => {
                    seen += self.total - at;
                    at = 0;
                    continue;
                }
            };
            let len = (start..self.total.min(start + want)).take_while(|&b| !self.is_taken(b)).count() as u32;
            seen += start - at + len;
            at = start + len;
            if len > best.1 {
                best = (start, len);
            }
            if len == want {
                break;
            }
            if at >= self.total {
                at = 0;
            }
        }
        let (start, len) = best;
        if len == 0 {
            return None;
        }
        for block in start..start + len {
            self.taken[block as usize / 64] |= 1 << (block % 64);
        }
        self.free -= len;
        self.next = if start + len < self.total { start + len } else { 0 };
        Some((start, len))
    }

    pub fn give(&mut self, block: u32) {
        debug_assert!(self.is_taken(block), "a block is freed twice");
        self.taken[block as usize / 64] &= !(1 << (block % 64));
        self.free += 1;
    }

    fn is_taken(&self, block: u32) -> bool {
        self.taken[block as usize / 64] & 1 << (block % 64) != 0
    }

    fn next_free(&self, from: u32) -> Option<u32> {
        let first = from as usize / 64;
        let masked = self.taken.get(first)? | ((1u64 << (from % 64)) - 1);
        if masked != !0 {
            return Some(first as u32 * 64 + masked.trailing_ones());
        }
        let word = (first + 1..self.taken.len()).find(|&w| self.taken[w] != !0)?;
        Some(word as u32 * 64 + self.taken[word].trailing_ones())
    }
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
}
