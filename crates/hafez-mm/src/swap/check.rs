//! The checksum of a swapped page: kept in RAM, keyed at boot, verified on the way in.
//!
//! A disk may return other bytes than were written: a flipped bit, an old version, or another block's content. The
//! sum is *multilinear hashing* (Carter and Wegman; Lemire and Kaser 2014): each word times a secret random number of
//! its own, added up modulo 2^64, of which the upper half is kept. Whatever two pages differ in, they have the same
//! sum with odds of 2^-32 over the choice of the numbers, and no disk knows those. The block's number is one term
//! more, so a page written to the wrong place is seen as well. It costs three instructions a word.

use crate::addr::{PAGE_SIZE, Pfn};
use crate::phys::PhysMap;
use alloc::boxed::Box;
use core::sync::atomic::Ordering::Relaxed;

const WORDS: usize = PAGE_SIZE / 8;

/// The secret numbers of one boot: one a word, one for the block's number, one to begin with.
pub struct Key {
    words: Box<[u64]>,
    block: u64,
    start: u64,
}

impl Key {
    /// Spread a seed over the key, by steps of the splitmix generator.
    pub fn from_seed(mut seed: u64) -> Key {
        let mut next = || {
            seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let a = (seed ^ seed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let b = (a ^ a >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            b ^ b >> 31
        };
        let (block, start) = (next(), next());
        Key { words: (0..WORDS).map(|_| next()).collect(), block, start }
    }

    /// The sum of the frame's bytes as they should stand in `block`.
    pub fn sum(&self, phys: &PhysMap, frame: Pfn, block: u32) -> u32 {
        let page = phys.words(frame);
        let mut sums = [self.start.wrapping_add(self.block.wrapping_mul(block as u64 + 1)), 0, 0, 0];
        for (words, keys) in page.chunks_exact(8).zip(self.words.chunks_exact(8)) {
            for i in 0..8 {
                sums[i % 4] = sums[i % 4].wrapping_add(words[i].load(Relaxed).wrapping_mul(keys[i]));
            }
        }
        (sums.into_iter().fold(0u64, u64::wrapping_add) >> 32) as u32
    }
}
