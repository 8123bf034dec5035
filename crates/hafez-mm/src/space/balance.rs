//! Which kind of page is the better loss, and whether reading ahead pays: two small memories of what happened lately.
//!
//! Each kind counts its evictions and those that came back too soon (a refault distance below the pages in RAM). The
//! kind with the smaller share of mistakes is the one to evict from. Read-ahead counts the pages that it brought and
//! that were used, or went unused. Every so often all counts are halved, so that the past fades.

use crate::frame::lists::Kind;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// After so many events the past counts half.
const FADE: u32 = 2048;

#[derive(Default)]
struct Pair {
    all: AtomicU32,
    some: AtomicU32,
}

impl Pair {
    fn add(&self, all: u32, some: u32) {
        let (now_all, now_some) = (self.all.load(Relaxed) + all, self.some.load(Relaxed) + some);
        let fade = (now_all + now_some > FADE) as u32;
        self.all.store(now_all >> fade, Relaxed);
        self.some.store(now_some >> fade, Relaxed);
    }
    fn get(&self) -> (u64, u64) {
        (self.all.load(Relaxed) as u64, self.some.load(Relaxed) as u64)
    }
}

#[derive(Default)]
pub struct Balance {
    /// Evictions and mistakes, by kind.
    kinds: [Pair; 2],
    /// Pages read ahead whose fate is known, and those used.
    ahead: Pair,
    /// Faults since the last try at reading ahead where it did not pay.
    tries: AtomicU32,
}

impl Balance {
    pub fn evicted(&self, kind: Kind) {
        self.kinds[kind as usize].add(1, 0);
    }

    /// A page came back sooner than it should have had to.
    pub fn mistake(&self, kind: Kind) {
        self.kinds[kind as usize].add(0, 1);
    }

    /// The kind whose evictions were the lesser mistakes lately.
    pub fn better_loss(&self) -> Kind {
        let [(swapped, back_swapped), (file, back_file)] = [self.kinds[0].get(), self.kinds[1].get()];
        // A swapped page costs a write as well as a read: files go first where both do equally well.
        if (back_file * 2 + 1) * (swapped + 1) <= (back_swapped * 2 + 2) * (file + 1) {
            Kind::File
        } else {
            Kind::Swapped
        }
    }

    pub fn ahead_fate(&self, used: bool) {
        self.ahead.add(1, used as u32);
    }

    /// How many pages to read where a fault follows no sequence.
    pub fn scattered_window(&self) -> u64 {
        let (all, used) = self.ahead.get();
        // A page read on a guess takes the place of one that has been used: it must be used as often as not.
        if used * 2 >= all {
            8
        } else {
            // It does not pay now; try again now and then, for times change.
            if self.tries.fetch_add(1, Relaxed).is_multiple_of(16) { 4 } else { 1 }
        }
    }
}
