//! The checksum of a swapped page: kept in RAM, keyed at boot, verified on the way in.
//!
//! A disk may return other bytes than were written: a flipped bit, an old version, or another block's content. The
//! sum is made in two steps, each with a proof over the choice of its secret numbers, which no disk knows:
//!
//! - NH (Black, Halevi, Krawczyk, Krovetz, Rogaway 1999): of two words, each plus a number of its own, the full product;
//!   all products added up modulo 2^128. Two pages that differ come out alike with odds of 2^-64.
//! - multilinear hashing (Carter and Wegman 1979) of the four 32-bit pieces of that and the block's number, each
//!   times 64 random bits, of whose sum the upper half is kept: odds of 2^-32. The pieces must be shorter than the
//!   numbers: of a 64-bit word's highest bits such a sum would keep nearly nothing.
//!
//! So a page written to the wrong place is seen as well. It costs under four instructions a word.

use crate::addr::{PAGE_SIZE, Pfn};
use crate::phys::PhysMap;
use alloc::boxed::Box;
use core::sync::atomic::Ordering::Relaxed;

const WORDS: usize = PAGE_SIZE / 8;

/// The secret numbers of one boot: one a word, one for each piece of the second step, one to begin with.
pub struct Key {
    words: Box<[u64]>,
    pieces: [u64; 5],
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
        let (start, pieces) = (next(), core::array::from_fn(|_| next()));
        Key { words: (0..WORDS).map(|_| next()).collect(), pieces, start }
    }

    /// The sum of the frame's bytes as they should stand in `block`.
    pub fn sum(&self, phys: &PhysMap, frame: Pfn, block: u32) -> u32 {
        let page = phys.words(frame);
        let mut sum = 0u128;
        for (words, keys) in page.chunks_exact(8).zip(self.words.chunks_exact(8)) {
            for i in [0, 2, 4, 6] {
                let a = words[i].load(Relaxed).wrapping_add(keys[i]);
                let b = words[i + 1].load(Relaxed).wrapping_add(keys[i + 1]);
                sum = sum.wrapping_add(a as u128 * b as u128);
            }
        }
        let pieces = [sum as u32, (sum >> 32) as u32, (sum >> 64) as u32, (sum >> 96) as u32, block];
        let terms = pieces.into_iter().zip(self.pieces).map(|(piece, key)| key.wrapping_mul(piece as u64));
        (terms.fold(self.start, u64::wrapping_add) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::PAGE_SIZE;

    #[test]
    fn every_flipped_bit_is_seen() {
        #[repr(align(4096))]
        struct Frame([u8; PAGE_SIZE]);
        let mut frame = Box::new(Frame([0x5A; PAGE_SIZE]));
        // SAFETY: frame 0 is these 4096 bytes, which live longer than the map.
        let phys = unsafe { PhysMap::new(frame.0.as_mut_ptr()) };
        let key = Key::from_seed(7);
        let sum = key.sum(&phys, Pfn(0), 3);
        let mut byte = [0];
        for bit in 0..8 * PAGE_SIZE {
            for _ in 0..2 {
                phys.read(Pfn(0), bit / 8, &mut byte);
                phys.write(Pfn(0), bit / 8, &[byte[0] ^ 1 << (bit % 8)]);
                assert_eq!(key.sum(&phys, Pfn(0), 3) == sum, byte[0] != 0x5A, "bit {bit}");
            }
        }
        assert_ne!(key.sum(&phys, Pfn(0), 4), sum);
    }
}
