//! Frames: where all of the machine's RAM is kept, and the only place that hands it out.
//!
//! ```text
//!   buddy (2^0..2^10)  --a block, or 32-->  magazine of a CPU  --1-->  fault, page table, cache
//!                      <-----------------                      <-----
//! ```
//!
//! The magazine makes the common case a pop from a small array that no other CPU touches. Three watermarks divide the
//! free frames: below `low` the reclaim thread works (up to `high`); the last `reserve` frames are not for programs,
//! because getting a page out of RAM itself takes a few: page-table nodes on the way, records of slots, request memory.
//! And above `plenty` a magazine may be large.
//!
//! Locks: a magazine, then the buddy lists; both innermost.

mod blocks;
pub mod buddy;
pub mod lists;
mod magazine;
pub mod meta;

use crate::MAX_CPUS;
use crate::account::{AccountId, Accounts, Charge};
use crate::addr::{Pfn, PfnRange};
use crate::lock::{Mutex, Once};
use crate::phys::PhysMap;
use alloc::boxed::Box;
use arrayvec::ArrayVec;
use buddy::Buddy;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::*};
use lists::Lists;
use magazine::{Magazine, REFILL};
use meta::{FrameMeta, State, Word};

/// Empty nodes of page tables that a CPU keeps: what a small process takes.
const NODES: usize = 12;

/// Frames of a huge page.
pub const BLOCK: u32 = 512;

/// What is one CPU's has no cache line in common with another's.
#[derive(Default)]
#[repr(align(64))]
struct Own<T>(T);

impl<T> core::ops::Deref for Own<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

/// There is no frame to be had at this priority. The holder of locks unwinds; [`crate::Memory`] makes room and retries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoFrames;

/// For whom a frame is: how deep it may reach into the reserve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Priority {
    /// A page that is only guessed to be wanted: not one of the last that programs can have, or a fault that needs
    /// two pages would see the second go to guesses around the first, each time anew.
    Ahead,
    /// A program's page.
    User,
    /// The kernel's own structures: half of the reserve.
    Kernel,
    /// What reclaim itself needs to get pages out: all of it.
    Reclaim,
}

/// Numbers of free frames at which something changes.
#[derive(Clone, Copy, Debug)]
pub struct Watermarks {
    /// Not for programs.
    pub reserve: u32,
    /// The reclaim thread starts.
    pub low: u32,
    /// The reclaim thread stops.
    pub high: u32,
    /// Magazines may be large.
    pub plenty: u32,
}

impl Watermarks {
    /// 1/128 of RAM as reserve, at least 24 frames (a page walk's nodes and a batch's slot records, twice) and at most 512.
    fn of(frames: u32) -> Self {
        let reserve = (frames / 128).clamp(24, 512).min(frames / 8);
        let high = reserve * 3;
        Watermarks { reserve, low: reserve * 2, high, plenty: high + frames / 8 }
    }
}

pub struct Frames {
    pub phys: PhysMap,
    pub accounts: Accounts,
    pub lists: Lists,
    pub marks: Watermarks,
    /// Frames of RAM that the allocator was given.
    pub usable: u32,
    /// A frame of zeroes, mapped read-only wherever untouched memory is read.
    pub zero: Pfn,
    /// Set where an allocation saw the low watermark crossed; the reclaim thread clears it.
    pub wanted: AtomicBool,
    table: &'static [FrameMeta],
    buddy: Mutex<Buddy>,
    /// Copy of the buddy's count, to be read without its lock.
    free: AtomicU32,
    magazines: Box<[Own<Mutex<Magazine>>]>,
    /// Set where some magazine may have more than its hand.
    stocked: AtomicBool,
    /// By block of 512 frames: the leaf behind the huge page that it is, or 0. Made with the first huge page.
    behind: Once<Box<[AtomicU32]>>,
    /// Huge pages, and the block after the one that was opened last.
    whole: AtomicU32,
    hand: AtomicU32,
    /// Huge pages that became small ones since the start.
    pub opened: AtomicU64,
    /// By CPU: frames that were nodes of page tables, and were emptied entry by entry. They need not be cleared again.
    nodes: Box<[Own<Mutex<ArrayVec<Pfn, NODES>>>]>,
}

impl Frames {
    /// # Safety
    /// `phys` must reach every frame below `total`; `usable` must be RAM that nothing else uses, ascending; the frame
    /// table's frames from `meta` on must be RAM that nothing else uses and be outside `usable`.
    pub unsafe fn new(phys: PhysMap, usable: &[PfnRange], meta: Pfn, total: u32) -> Self {
        let total = total.min(meta::NONE);
        let records = phys.ptr(meta).cast::<FrameMeta>();
        // SAFETY: the caller gave the frames at `meta` to this table alone, for good, and any bytes are valid records;
        // what they say counts only once the buddy allocator has opened their chunk, and cleared them.
        let table: &'static [FrameMeta] = unsafe { core::slice::from_raw_parts(records, total as usize) };
        let below = |r: &PfnRange| PfnRange { start: r.start, end: Pfn(r.end.0.min(total)) };
        let mut buddy = Buddy::new(usable.iter().map(below), table);
        let usable = buddy.free_frames();
        // Without even one frame there is nothing to run: the caller has checked the minimum.
        let zero = buddy.take(table, 0).unwrap_or(Pfn(0));
        table[zero.0 as usize].begin(Word::new(State::Wired, AccountId::KERNEL, 0), 0, 0);
        phys.zero(zero);
        let frames = Frames {
            phys,
            accounts: Accounts::new(),
            lists: Lists::new(),
            marks: Watermarks::of(usable),
            usable,
            zero,
            wanted: AtomicBool::new(false),
            table,
            free: AtomicU32::new(buddy.free_frames()),
            buddy: Mutex::new(buddy),
            magazines: (0..MAX_CPUS).map(|_| Own::default()).collect(),
            stocked: AtomicBool::new(false),
            behind: Once::new(),
            whole: AtomicU32::new(0),
            hand: AtomicU32::new(0),
            opened: AtomicU64::new(0),
            nodes: (0..MAX_CPUS).map(|_| Own::default()).collect(),
        };
        frames.accounts.charge(AccountId::KERNEL, Charge::Resident, 1);
        frames
    }

    pub fn table(&self) -> &'static [FrameMeta] {
        self.table
    }

    /// Every frame whose record means something: the others have never been handed out.
    pub fn known(&self) -> impl Iterator<Item = Pfn> {
        let total = self.table.len() as u32;
        let open = (0..total.div_ceil(buddy::CHUNK)).filter(|&chunk| self.buddy.lock().is_open(chunk));
        open.flat_map(move |chunk| (chunk * buddy::CHUNK..((chunk + 1) * buddy::CHUNK).min(total)).map(Pfn))
    }

    /// Whether the frame is one of them.
    pub fn is_known(&self, frame: Pfn) -> bool {
        (frame.0 as usize) < self.table.len() && self.buddy.lock().is_open(frame.0 / buddy::CHUNK)
    }

    #[inline]
    pub fn meta(&self, frame: Pfn) -> &'static FrameMeta {
        &self.table[frame.0 as usize]
    }

    /// Free frames, those in magazines not counted.
    pub fn free(&self) -> u32 {
        self.free.load(Relaxed)
    }

    /// Free frames, those in magazines counted too.
    pub fn all_free(&self) -> u32 {
        let magazines: u32 = self.magazines.iter().map(|m| m.lock().len()).sum();
        let nodes: usize = self.nodes.iter().map(|n| n.lock().len()).sum();
        self.buddy.lock().free_frames() + magazines + nodes as u32
    }

    /// Those of them that no record tells of: the rest of blocks which magazines use up.
    pub fn in_runs(&self) -> u32 {
        self.magazines.iter().map(|m| m.lock().run()).sum()
    }

    /// One frame, its bytes unknown, its record [`State::Idle`], charged to nobody yet.
    #[inline]
    pub fn alloc(&self, cpu: usize, priority: Priority) -> Result<Pfn, NoFrames> {
        if let Some(frame) = self.magazines[cpu].lock().take() {
            return Ok(frame);
        }
        self.refill(cpu, priority)
    }

    #[cold]
    fn refill(&self, cpu: usize, priority: Priority) -> Result<Pfn, NoFrames> {
        let mut magazine = self.magazines[cpu].lock();
        if let Some(frame) = magazine.draw(self.table) {
            return Ok(frame);
        }
        let mut buddy = self.buddy.lock();
        if buddy.free_frames() > self.marks.plenty
            && let Some(run) = buddy.take_run(self.table, self.most().ilog2() as u8)
        {
            self.free.store(buddy.free_frames(), Relaxed);
            magazine.begin_run(run);
            self.note_stocked();
            return magazine.draw(self.table).ok_or(NoFrames);
        }
        if buddy.free_frames() < self.marks.high + REFILL as u32 && self.stocked.load(Relaxed) {
            drop((buddy, magazine));
            self.drain();
            return self.refill(cpu, priority);
        }
        let free = buddy.free_frames();
        if free < self.marks.low + REFILL as u32 {
            self.wanted.store(true, Release);
        }
        if free <= self.floor(priority) {
            return Err(NoFrames);
        }
        // Near the reserve a magazine takes one at a time: what it holds, another priority could pop.
        let count = if free > self.marks.low + REFILL as u32 { REFILL } else { 1 };
        magazine.refill(self.table, &mut buddy, count);
        self.free.store(buddy.free_frames(), Relaxed);
        magazine.take().ok_or(NoFrames)
    }

    /// Frames that a run begins with, and that lie loose in a magazine, at most: a 64th of RAM, not more than 4 MiB.
    fn most(&self) -> u32 {
        (self.usable / 64).clamp(REFILL as u32, buddy::CHUNK)
    }

    fn note_stocked(&self) {
        if !self.stocked.load(Relaxed) {
            self.stocked.store(true, Relaxed);
        }
    }

    fn floor(&self, priority: Priority) -> u32 {
        match priority {
            Priority::Ahead => self.marks.reserve + 8,
            Priority::User => self.marks.reserve,
            Priority::Kernel => self.marks.reserve / 2,
            Priority::Reclaim => 0,
        }
    }

    /// Give back a frame that nothing holds and nobody is charged for.
    pub fn free_frame(&self, cpu: usize, frame: Pfn) {
        let meta = self.meta(frame);
        debug_assert!(meta.word().list().is_none());
        meta.begin(Word::new(State::Idle, AccountId::KERNEL, 0), 0, 0);
        self.give_idle(cpu, &[frame]);
    }

    /// Give back idle frames that nobody is charged for.
    #[inline]
    pub fn give_idle(&self, cpu: usize, frames: &[Pfn]) {
        let mut magazine = self.magazines[cpu].lock();
        if self.wanted.load(Relaxed) || !magazine.put(frames) {
            self.spill(&mut magazine, frames);
        }
    }

    /// A frame of zeroes, for a node of page tables.
    pub fn alloc_node(&self, cpu: usize) -> Result<Pfn, NoFrames> {
        if let Some(node) = self.nodes[cpu].lock().pop() {
            return Ok(node);
        }
        let node = self.alloc(cpu, Priority::Kernel)?;
        self.phys.zero(node);
        Ok(node)
    }

    /// Give back a node whose every entry is zero.
    pub fn free_empty_node(&self, cpu: usize, node: Pfn) {
        debug_assert!(self.phys.same_filled(node) == Some(0), "a node is called empty that is not");
        // Before it can be found: another CPU may drain this one's, and give the frame to somebody, at any moment after.
        self.meta(node).begin(Word::new(State::Idle, AccountId::KERNEL, 0), 0, 0);
        if self.wanted.load(Relaxed) || self.nodes[cpu].lock().try_push(node).is_err() {
            self.free_frame(cpu, node);
        }
    }

    /// There is no room in hand for these: they, and half of it, are laid by, or go to the buddy lists; all of it where frames are wanted.
    fn spill(&self, magazine: &mut Magazine, frames: &[Pfn]) {
        let wanted = self.wanted.load(Relaxed);
        if !wanted && self.free() > self.marks.plenty && magazine.lay_by(self.table, frames, self.most()) {
            return self.note_stocked();
        }
        let mut buddy = self.buddy.lock();
        magazine.spill(self.table, &mut buddy, if wanted { 0 } else { REFILL });
        buddy.give_singles(self.table, frames);
        self.free.store(buddy.free_frames(), Relaxed);
    }

    /// See that no magazine has more than its hand.
    pub fn recall(&self) {
        if self.stocked.load(Relaxed) {
            self.drain();
        }
    }

    /// Bring all that the magazines hold back to the buddy lists, where blocks form again.
    pub fn drain(&self) {
        self.stocked.store(false, Relaxed);
        for (cpu, magazine) in self.magazines.iter().enumerate() {
            let mut magazine = magazine.lock();
            let mut buddy = self.buddy.lock();
            magazine.empty(self.table, &mut buddy);
            let mut nodes = self.nodes[cpu].lock();
            buddy.give_singles(self.table, &nodes);
            nodes.clear();
            self.free.store(buddy.free_frames(), Relaxed);
        }
    }

    /// 2^order frames in a row, charged to the kernel and never evicted.
    pub fn alloc_wired(&self, order: u8, priority: Priority) -> Result<Pfn, NoFrames> {
        if order as usize >= buddy::ORDERS {
            return Err(NoFrames);
        }
        if let Some(block) = self.take_wired(order, priority) {
            return Ok(block);
        }
        self.drain();
        self.take_wired(order, priority).ok_or(NoFrames)
    }

    fn take_wired(&self, order: u8, priority: Priority) -> Option<Pfn> {
        let mut buddy = self.buddy.lock();
        if buddy.free_frames() < self.floor(priority) + (1 << order) {
            self.wanted.store(true, Release);
            return None;
        }
        let block = buddy.take(self.table, order)?;
        self.free.store(buddy.free_frames(), Relaxed);
        for n in 0..1 << order {
            self.meta(block.add(n)).begin(Word::new(State::Wired, AccountId::KERNEL, 0), 0, order as u64);
        }
        self.accounts.charge(AccountId::KERNEL, Charge::Resident, 1 << order);
        if buddy.free_frames() < self.marks.low {
            self.wanted.store(true, Release);
        }
        Some(block)
    }

    /// Give back what [`Frames::alloc_wired`] gave.
    pub fn free_wired(&self, block: Pfn, order: u8) {
        for n in 0..1 << order {
            debug_assert!(self.meta(block.add(n)).word().state() == State::Wired);
            self.meta(block.add(n)).begin(Word::new(State::Inner, AccountId::KERNEL, 0), 0, 0);
        }
        let mut buddy = self.buddy.lock();
        buddy.give(self.table, block, order);
        self.free.store(buddy.free_frames(), Relaxed);
        self.accounts.uncharge(AccountId::KERNEL, Charge::Resident, 1 << order);
    }
}
