//! Random numbers that a seed repeats.
//!
//! The splitmix generator: the state counts up by an odd constant, and a mixing function makes a number of it. One
//! atomic addition draws a number, so threads may share a generator; on one thread the sequence is the seed's.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub struct Random(AtomicU64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(AtomicU64::new(seed.wrapping_mul(0xD129_0E8A_6B3C_51F7)))
    }

    pub fn next(&self) -> u64 {
        let state = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Relaxed).wrapping_add(0x9E37_79B9_7F4A_7C15);
        let a = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let b = (a ^ a >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        b ^ b >> 31
    }

    /// Less than `end`, which is not 0.
    pub fn below(&self, end: u64) -> u64 {
        self.next() % end
    }

    /// From `start` up to but not including `end`.
    pub fn range(&self, start: u64, end: u64) -> u64 {
        start + self.below(end - start)
    }

    /// True once in `n` times; never for 0.
    pub fn one_in(&self, n: u32) -> bool {
        n != 0 && self.below(n as u64) == 0
    }

    /// An index, each as likely as its weight says.
    pub fn weighted(&self, weights: &[u32]) -> usize {
        let mut at = self.below(weights.iter().map(|&w| w as u64).sum());
        for (n, &weight) in weights.iter().enumerate() {
            if at < weight as u64 {
                return n;
            }
            at -= weight as u64;
        }
        0
    }
}
