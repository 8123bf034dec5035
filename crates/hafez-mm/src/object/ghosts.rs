//! Ghosts: what a file's page leaves behind when it is evicted.
//!
//! When it is wanted again, its ghost tells how many pages were evicted meanwhile (the *refault distance*). A distance
//! below the number of pages in RAM means that the page would still be here had the right others gone: evicting it was
//! a mistake, and files should be spared for a while. A swapped page's slot keeps the same number (`swap::slots`).
//!
//! The table has a word for every two frames of RAM, addressed by a hash of object and index; a newer ghost replaces
//! an older one in its place. It is made when the first page goes: a machine with enough RAM never pays for it. A word is a tag of 12 bits and the eviction clock's low 20.

use crate::lock::Once;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

pub struct Ghosts {
    count: usize,
    words: Once<Vec<AtomicU32>>,
}

const CLOCK: u32 = (1 << 20) - 1;

impl Ghosts {
    pub fn new(frames: u32) -> Self {
        Ghosts { count: (frames / 2).next_power_of_two() as usize, words: Once::new() }
    }

    /// Its word, and the tag that it would carry there.
    fn place<'a>(&self, words: &'a [AtomicU32], object: u32, index: u64) -> Option<(&'a AtomicU32, u32)> {
        let hash = (index ^ (object as u64) << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let at = (hash >> 32) as usize & (self.count - 1);
        // A tag of 0 would look like an empty word.
        Some((words.get(at)?, ((hash >> 20) as u32 & 0xFFF | 1) << 20))
    }

    /// The page goes, as the `clock`th since boot.
    pub fn leave(&self, object: u32, index: u64, clock: u32) {
        let words = self.words.call_once(|| {
            let mut words = Vec::new();
            // Without room for it there are no ghosts, and nothing else is lost.
            if words.try_reserve_exact(self.count).is_ok() {
                words.resize_with(self.count, || AtomicU32::new(0));
            }
            words
        });
        if let Some((word, tag)) = self.place(words, object, index) {
            word.store(tag | clock & CLOCK, Relaxed);
        }
    }

    /// For how many pages in a row to ask [`Ghosts::find`] at most: beyond, chance finds more than memory does.
    pub fn reach(&self) -> u64 {
        self.count as u64 * 8
    }

    /// How many have gone since the page did.
    pub fn find(&self, object: u32, index: u64, clock: u32) -> Option<u32> {
        let (word, tag) = self.place(self.words.get()?, object, index)?;
        let seen = word.load(Relaxed);
        (seen & !CLOCK == tag).then(|| clock.wrapping_sub(seen) & CLOCK)
    }

    /// The page is wanted again: how many have gone since it did. Its ghost is gone then.
    pub fn take(&self, object: u32, index: u64, clock: u32) -> Option<u32> {
        let (word, tag) = self.place(self.words.get()?, object, index)?;
        let seen = word.load(Relaxed);
        if seen & !CLOCK != tag {
            return None;
        }
        word.store(0, Relaxed);
        Some(clock.wrapping_sub(seen) & CLOCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ghost_tells_its_distance_once() {
        let ghosts = Ghosts::new(64);
        ghosts.leave(3, 77, 10);
        assert_eq!(ghosts.take(3, 77, 35), Some(25));
        assert_eq!(ghosts.take(3, 77, 35), None);
        assert_eq!(ghosts.take(4, 77, 35), None);
    }
}
