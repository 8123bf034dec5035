//! The slot table: for each page that entries name as swapped, where its bytes are.
//!
//! ```text
//!   entry --slot--> record --+-- cached frame     (on its way out, on its way in, or in and still the same)
//!                            +-- tier: filled | disk block
//! ```
//!
//! A record is two words, made 256 at a time in a frame of their own when first needed:
//!
//! ```text
//!   where:  tier 2 | block 28 | sum 32             who:  frame or eviction time 32 | refs 16 | account 16
//! ```
//!
//! `refs` counts the entries (or shared objects' pages) that name the slot. With the cached bit, it says when a slot
//! is free: no reference, and no frame cached (I4). A number names the same slot until then, whatever tier it is in.

use crate::account::{AccountId, Charge};
use crate::addr::{PAGE_SIZE, Pfn};
use crate::frame::meta::{State, Word};
use crate::frame::{Frames, NoFrames, Priority};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Where a slot's bytes are, apart from a cached frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tier {
    /// Nowhere else: the cached frame is all there is.
    Ram,
    /// The page is this one word over and over.
    Filled(u64),
    /// In a block of the disk, with this checksum.
    Disk { block: u32, sum: u32 },
}

/// What a slot's record says.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub tier: Tier,
    /// The frame with the slot's bytes, if one is in RAM.
    pub frame: Option<Pfn>,
    /// When its page was evicted, in pages evicted since boot; meaningful while no frame is cached.
    pub evicted: u32,
    pub refs: u16,
    pub account: AccountId,
}

const PER_FRAME: u32 = (PAGE_SIZE / 16) as u32;
const CACHED: u64 = 1 << 2;

#[derive(Default)]
pub struct Slots {
    records: Vec<Pfn>,
    /// Free records, linked through their frame field; 0 ends the list (slot 0 is never used).
    free: u32,
    used: u32,
    /// Slots that cache a frame.
    cached: u32,
    /// Records that there may be at most.
    limit: u32,
}

impl Slots {
    pub fn new(limit: u32) -> Self {
        // One pointer a frame of records, reserved now: taking a slot never needs the heap.
        Slots {
            records: Vec::with_capacity(limit.div_ceil(PER_FRAME) as usize),
            free: 0,
            used: 0,
            cached: 0,
            limit,
        }
    }

    pub fn used(&self) -> u32 {
        self.used
    }

    /// Slots whose bytes are in RAM as well.
    pub fn cached(&self) -> u32 {
        self.cached
    }

    pub fn has_room(&self) -> bool {
        self.free != 0 || (self.records.len() as u32 * PER_FRAME) < self.limit
    }

    fn words<'f>(&self, frames: &'f Frames, slot: u32) -> Option<(&'f AtomicU64, &'f AtomicU64)> {
        let frame = *self.records.get((slot / PER_FRAME) as usize)?;
        let at = (slot % PER_FRAME) as usize * 2;
        Some((frames.phys.word(frame, at), frames.phys.word(frame, at + 1)))
    }

    pub fn get(&self, frames: &Frames, slot: u32) -> Option<Record> {
        let (place, holders) = self.words(frames, slot)?;
        let (place, holders) = (place.load(Relaxed), holders.load(Relaxed));
        let low = (holders >> 32) as u32;
        let (sum, block) = ((place >> 32) as u32, (place as u32) >> 4);
        let tier = match place & 3 {
            1 => Tier::Filled((low as u64) << 32 | sum as u64),
            2 => Tier::Disk { block, sum },
            _ => Tier::Ram,
        };
        Some(Record {
            tier,
            frame: (place & CACHED != 0).then_some(Pfn(low)),
            evicted: low,
            refs: (holders >> 16) as u16,
            account: AccountId(holders as u16),
        })
    }

    pub fn put(&mut self, frames: &Frames, slot: u32, record: Record) {
        let Some((place, holders)) = self.words(frames, slot) else { return };
        let was = place.load(Relaxed) & CACHED != 0;
        self.cached = self.cached - was as u32 + record.frame.is_some() as u32;
        let mut low = record.frame.map_or(record.evicted, |f| f.0);
        let mut bits = match record.tier {
            Tier::Ram => 0,
            Tier::Disk { block, sum } => (sum as u64) << 32 | (block as u64) << 4 | 2,
            Tier::Filled(word) => {
                debug_assert!(record.frame.is_none(), "a filled slot caches no frame");
                low = (word >> 32) as u32;
                (word as u32 as u64) << 32 | 1
            }
        };
        if record.frame.is_some() {
            bits |= CACHED;
        }
        place.store(bits, Relaxed);
        holders.store((low as u64) << 32 | (record.refs as u64) << 16 | record.account.0 as u64, Relaxed);
    }

    /// A free slot, its bytes in `frame` only, with no reference yet.
    pub fn take(
        &mut self,
        frames: &Frames,
        cpu: usize,
        frame: Pfn,
        account: AccountId,
    ) -> Result<u32, NoFrames> {
        if self.free == 0 {
            self.grow(frames, cpu)?;
        }
        let slot = self.free;
        let (_, holders) = self.words(frames, slot).ok_or(NoFrames)?;
        self.free = (holders.load(Relaxed) >> 32) as u32;
        self.used += 1;
        frames.accounts.charge(account, Charge::Slot, 1);
        self.put(frames, slot, Record { tier: Tier::Ram, frame: Some(frame), evicted: 0, refs: 0, account });
        Ok(slot)
    }

    /// Forget a slot that nothing names and that caches no frame.
    pub fn give(&mut self, frames: &Frames, slot: u32) {
        let Some(record) = self.get(frames, slot) else { return };
        debug_assert!(record.refs == 0 && record.frame.is_none(), "slot {slot} is freed in use: {record:?}");
        frames.accounts.uncharge(record.account, Charge::Slot, 1);
        self.used -= 1;
        self.link_free(frames, slot);
    }

    fn link_free(&mut self, frames: &Frames, slot: u32) {
        if let Some((place, holders)) = self.words(frames, slot) {
            place.store(0, Relaxed);
            holders.store((self.free as u64) << 32, Relaxed);
            self.free = slot;
        }
    }

    fn grow(&mut self, frames: &Frames, cpu: usize) -> Result<(), NoFrames> {
        if self.records.len() == self.records.capacity() {
            return Err(NoFrames);
        }
        let frame = frames.alloc(cpu, Priority::Reclaim)?;
        frames.phys.zero(frame);
        frames.meta(frame).begin(Word::new(State::Wired, AccountId::KERNEL, 0), 0, 0);
        frames.accounts.charge(AccountId::KERNEL, Charge::Resident, 1);
        let first = self.records.len() as u32 * PER_FRAME;
        self.records.push(frame);
        for slot in (first.max(1)..first + PER_FRAME).rev() {
            self.link_free(frames, slot);
        }
        Ok(())
    }

    /// Each slot in use, for the audit.
    pub fn each(&self, frames: &Frames, mut f: impl FnMut(u32, Record)) {
        for slot in 1..self.records.len() as u32 * PER_FRAME {
            if let Some(record) = self.get(frames, slot) {
                let in_use = record.refs > 0 || record.frame.is_some();
                if in_use {
                    f(slot, record);
                }
            }
        }
    }
}
