//! The checksum of a swapped page: kept in RAM, keyed at boot, verified on the way in.
//!
//! A disk may return other bytes than were written: a flipped bit, an old version, or another block's content. The
//! sum is a chain of 64x64-to-128-bit multiplications folded by exclusive-or, in two lanes; it starts from a key that
//! no disk knows and from the block's number, so a misplaced write is seen as well. Cost: about 4 instructions a word.
//! It guards against broken and lying disks with odds of 2^-32 a page; it is not a cipher.

use crate::addr::{PAGE_SIZE, Pfn};
use crate::phys::PhysMap;
use core::sync::atomic::Ordering::Relaxed;

/// Secrets that the sums of one boot share.
#[derive(Clone, Copy)]
pub struct Key(pub [u64; 4]);

impl Key {
    /// Spread a seed over the key, by steps of the splitmix generator.
    pub fn from_seed(mut seed: u64) -> Key {
        Key(core::array::from_fn(|_| {
            seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let a = (seed ^ seed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let b = (a ^ a >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            (b ^ b >> 31) | 1
        }))
    }

    /// The sum of the frame's bytes as they should stand in `block`.
    pub fn sum(&self, phys: &PhysMap, frame: Pfn, block: u32) -> u32 {
        let Key([k0, k1, k2, k3]) = *self;
        let (mut a, mut b) = (k0 ^ block as u64, k1);
        for i in (0..PAGE_SIZE / 8).step_by(4) {
            let word = |n| phys.word(frame, i + n).load(Relaxed);
            a = fold(a ^ word(0), k2 ^ word(1));
            b = fold(b ^ word(2), k3 ^ word(3));
        }
        let sum = fold(a ^ k3, b ^ k2);
        (sum ^ sum >> 32) as u32
    }
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    // Adding the factor back keeps a zero factor from wiping out the other.
    (product as u64 ^ (product >> 64) as u64).wrapping_add(a)
}
