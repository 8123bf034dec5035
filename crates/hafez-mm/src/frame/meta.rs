//! What the kernel knows about one frame: 32 bytes, of which one atomic word says everything that can be raced for.
//!
//! ```text
//!  63        48 47          28 27    16 15     8 7    4 3     0
//! +------------+--------------+--------+--------+------+-------+
//! |  account   |     maps     |  pins  | flags  | list | state |
//! +------------+--------------+--------+--------+------+-------+
//! ```
//!
//! A frame of a page is *held* by its maps (entries that name it), its pins (kernel code that uses its bytes), by
//! the cache it sits in ([`Flags::CACHED`]: an object's page map, or the swap cache) and by whoever has isolated it
//! ([`Flags::ISOLATED`], [`Flags::READING`]). All holds live in the one word, so of several that let go at once,
//! exactly one sees the word become unheld, and that one frees the frame. There is no count to keep in step.
//!
//! The maps of a page-table node are the links to it: one, but for a leaf that several spaces share since a fork.
//!
//! The other fields are written only by the one that owns the frame in its present state:
//!
//! | field | free head | page table | anonymous | of an object |
//! |---|---|---|---|---|
//! | `owner` | – | of a leaf: blocks with the space's own pages | family | object |
//! | `index` | order | used entries | page (`Vpn`) | page index |
//! | `slot` | – | of a leaf: its lock | slot that holds the same bytes, or 0 | the same |
//! | `prev`, `next` | free list | `next` of a leaf: blocks in use | generation list | generation list |
//!
//! In `prev` stands, above the frame, of which CPU's generation lists it is on one.

use crate::account::AccountId;
use crate::lock::{Attentive, RelaxStrategy, contended};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};

/// What a frame is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// Not RAM, or inside a free block whose head tells about it.
    Inner = 0,
    /// The first frame of a free block.
    FreeHead = 1,
    /// Free and single: in a CPU's magazine or loose at the buddy's; or just taken from there.
    Idle = 2,
    /// The kernel's own: image, heap, stacks, rings. Never evicted.
    Wired = 3,
    /// A node of a page table.
    Table = 4,
    /// A page of anonymous memory.
    Anon = 5,
    /// A page of a file, in its object's page map.
    File = 6,
    /// A page of a shared object (tmpfs, memfd, shared anonymous memory).
    Shared = 7,
}

bitflags::bitflags! {
    /// Facts about a page's frame that may change while others look.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Flags: u64 {
        /// The bytes differ from what the file or slot behind them holds.
        const DIRTY = 1 << 8;
        /// Seen accessed since the last look, by other means than an entry's bit (read and write calls).
        const REFERENCED = 1 << 9;
        /// In an object's page map or in the swap cache.
        const CACHED = 1 << 10;
        /// Taken off its list by reclaim, which decides what comes next.
        const ISOLATED = 1 << 11;
        /// Its bytes are on their way in; nobody may map or read it yet.
        const READING = 1 << 12;
        /// Locked in memory: on no generation list.
        const WIRED = 1 << 13;
        /// Brought in ahead of need and not yet seen used.
        const AHEAD = 1 << 14;
        /// Being written to its file or slot.
        const WRITING = 1 << 15;
        /// Reclaim or a reader works on it, and relies on its slot.
        const IN_HAND = Self::ISOLATED.bits() | Self::READING.bits() | Self::WRITING.bits();
    }
}

const STATE: u64 = 0xF;
const LIST_SHIFT: u32 = 4;
const LIST: u64 = 0xF << LIST_SHIFT;
const PIN_SHIFT: u32 = 16;
const PIN: u64 = 1 << PIN_SHIFT;
const PINS: u64 = 0xFFF << PIN_SHIFT;
const MAP_SHIFT: u32 = 28;
const MAP: u64 = 1 << MAP_SHIFT;
const MAPS: u64 = 0xF_FFFF << MAP_SHIFT;
const ACCOUNT_SHIFT: u32 = 48;
/// What keeps a page's frame from being freed.
const HOLDS: u64 = PINS
    | MAPS
    | Flags::CACHED.bits()
    | Flags::ISOLATED.bits()
    | Flags::READING.bits()
    | Flags::WRITING.bits();

/// No frame: the end of a list. All frames' numbers are below: 1 TiB of RAM.
pub const NONE: u32 = (1 << HOME_SHIFT) - 1;
const HOME_SHIFT: u32 = 28;

/// A reading of the word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Word(pub u64);

impl Word {
    /// A word of this state, charge and number of maps, with no other hold.
    #[inline]
    pub const fn new(state: State, account: AccountId, maps: u32) -> Word {
        Word(state as u64 | (account.0 as u64) << ACCOUNT_SHIFT | (maps as u64) << MAP_SHIFT)
    }
    #[inline]
    pub const fn with(self, flags: Flags) -> Word {
        Word(self.0 | flags.bits())
    }
    #[inline]
    pub const fn on_list(self, list: u8) -> Word {
        Word(self.0 & !LIST | (list as u64 + 1) << LIST_SHIFT)
    }
    #[inline]
    pub fn state(self) -> State {
        match self.0 & STATE {
            1 => State::FreeHead,
            2 => State::Idle,
            3 => State::Wired,
            4 => State::Table,
            5 => State::Anon,
            6 => State::File,
            7 => State::Shared,
            _ => State::Inner,
        }
    }
    /// Whether both are of one state and charged to one account.
    #[inline]
    pub fn is_paid_as(self, other: Word) -> bool {
        (self.0 ^ other.0) & (STATE | u64::MAX << ACCOUNT_SHIFT) == 0
    }
    /// The list it is on, or `None`.
    #[inline]
    pub fn list(self) -> Option<u8> {
        (((self.0 & LIST) >> LIST_SHIFT) as u8).checked_sub(1)
    }
    #[inline]
    pub fn has(self, flags: Flags) -> bool {
        self.0 & flags.bits() == flags.bits()
    }
    #[inline]
    pub fn any(self, flags: Flags) -> bool {
        self.0 & flags.bits() != 0
    }
    #[inline]
    pub fn pins(self) -> u32 {
        ((self.0 & PINS) >> PIN_SHIFT) as u32
    }
    #[inline]
    pub fn maps(self) -> u32 {
        ((self.0 & MAPS) >> MAP_SHIFT) as u32
    }
    #[inline]
    pub fn account(self) -> AccountId {
        AccountId((self.0 >> ACCOUNT_SHIFT) as u16)
    }
    /// Whether nothing holds the frame any more.
    #[inline]
    pub fn is_unheld(self) -> bool {
        self.0 & HOLDS == 0
    }
}

/// The record of one frame.
#[repr(C)]
pub struct FrameMeta {
    word: AtomicU64,
    index: AtomicU64,
    owner: AtomicU32,
    slot: AtomicU32,
    prev: AtomicU32,
    next: AtomicU32,
}

const _: () = assert!(size_of::<FrameMeta>() == 32);

/// Most maps that one frame may have; a map beyond is refused.
pub const MAX_MAPS: u32 = 0xF_FFF0;
/// Most pins that one frame may have; a pin beyond is refused.
pub const MAX_PINS: u32 = 0xFF0;

impl FrameMeta {
    #[inline]
    pub fn word(&self) -> Word {
        Word(self.word.load(Acquire))
    }
    /// Begin a new life: only for a frame that nobody else can see yet.
    #[inline]
    pub fn begin(&self, word: Word, owner: u32, index: u64) {
        self.owner.store(owner, Relaxed);
        self.index.store(index, Relaxed);
        self.slot.store(0, Relaxed);
        self.word.store(word.0, Release);
    }
    /// As [`FrameMeta::begin`], on a list that its word names.
    #[inline]
    pub fn begin_listed(&self, word: Word, owner: u32, index: u64, (link, next): (u32, u32)) {
        self.set_link(link);
        self.set_next(next);
        self.begin(word, owner, index);
    }
    /// Make of whatever is here the record of a frame in no use.
    pub fn clear_all(&self) {
        self.begin(Word::new(State::Inner, AccountId::KERNEL, 0), 0, 0);
        self.set_link(NONE);
    }
    #[inline]
    pub fn set_word(&self, word: Word) {
        self.word.store(word.0, Release);
    }
    /// Set flags; the word before.
    #[inline]
    pub fn set(&self, flags: Flags) -> Word {
        Word(self.word.fetch_or(flags.bits(), AcqRel))
    }
    /// Clear flags; the word before.
    #[inline]
    pub fn clear(&self, flags: Flags) -> Word {
        Word(self.word.fetch_and(!flags.bits(), AcqRel))
    }
    /// Clear flags; the word after. Where that is unheld, the caller frees the frame.
    #[inline]
    pub fn release(&self, flags: Flags) -> Word {
        Word(self.clear(flags).0 & !flags.bits())
    }
    /// Set `flags` if none of `unless` is set and the frame has no pin: how reclaim takes a frame for itself. Not one that
    /// nothing holds any more: who saw that is about to free it.
    #[inline]
    pub fn claim(&self, flags: Flags, unless: Flags) -> bool {
        let free = |w| w & (unless.bits() | PINS) == 0 && !Word(w).is_unheld();
        self.word.fetch_update(AcqRel, Acquire, |w| free(w).then_some(w | flags.bits())).is_ok()
    }
    /// Clear flags if nothing else holds the frame; whether it is so: then the caller frees it.
    #[inline]
    pub fn release_last(&self, flags: Flags) -> bool {
        let rest = |w| Word(w & !flags.bits()).is_unheld().then_some(w & !flags.bits());
        self.word.fetch_update(AcqRel, Acquire, rest).is_ok()
    }
    /// One entry more names the frame.
    #[inline]
    pub fn add_map(&self) -> Word {
        Word(self.word.fetch_add(MAP, AcqRel))
    }
    /// One entry fewer; the word after.
    #[inline]
    pub fn drop_map(&self) -> Word {
        let before = Word(self.word.fetch_sub(MAP, AcqRel));
        debug_assert!(before.maps() > 0, "an entry is gone that no map was counted for");
        Word(before.0 - MAP)
    }
    /// Wait for the leaf's lock, and take it.
    #[inline(always)]
    #[cfg_attr(feature = "contention", track_caller)]
    pub fn lock_leaf(&self) {
        if self.slot.swap(1, Acquire) != 0 {
            self.wait_for_leaf();
        }
    }
    #[cold]
    #[cfg_attr(feature = "contention", track_caller)]
    fn wait_for_leaf(&self) {
        contended();
        while self.slot.swap(1, Acquire) != 0 {
            while self.slot.load(Relaxed) != 0 {
                Attentive::relax();
            }
        }
    }
    #[inline(always)]
    pub fn unlock_leaf(&self) {
        self.slot.store(0, Release);
    }
    /// Hold the frame's bytes in RAM; false where it is pinned too often already.
    #[must_use]
    #[inline]
    pub fn pin(&self) -> bool {
        let before = Word(self.word.fetch_add(PIN, AcqRel));
        if before.pins() < MAX_PINS {
            return true;
        }
        self.word.fetch_sub(PIN, AcqRel);
        false
    }
    /// Let go of a pin; the word after.
    #[inline]
    pub fn unpin(&self) -> Word {
        let before = Word(self.word.fetch_sub(PIN, AcqRel));
        debug_assert!(before.pins() > 0);
        Word(before.0 - PIN)
    }
    /// Note the list it is on, or that it is on none; it was on none, or leaves one. Only under the lists' lock.
    #[inline]
    pub fn set_list(&self, list: Option<u8>) {
        match list {
            Some(list) => self.word.fetch_or((list as u64 + 1) << LIST_SHIFT, AcqRel),
            None => self.word.fetch_and(!LIST, AcqRel),
        };
    }
    pub fn set_account(&self, account: AccountId) {
        let bits = (account.0 as u64) << ACCOUNT_SHIFT;
        let _ = self.word.fetch_update(AcqRel, Acquire, |w| Some(w << 16 >> 16 | bits));
    }
    #[inline]
    pub fn owner(&self) -> u32 {
        self.owner.load(Relaxed)
    }
    pub fn set_owner(&self, owner: u32) {
        self.owner.store(owner, Relaxed)
    }
    #[inline]
    pub fn index(&self) -> u64 {
        self.index.load(Relaxed)
    }
    /// A node got an entry, perhaps while others get theirs.
    pub fn add_index(&self) {
        self.index.fetch_add(1, AcqRel);
    }
    #[inline]
    pub fn set_index(&self, index: u64) {
        self.index.store(index, Relaxed)
    }
    /// Of a leaf: a bit for each block of entries that may be in use, and for each that may name something that is not found again
    /// in an object.
    #[inline]
    pub fn blocks(&self) -> (u32, u32) {
        (self.next.load(Relaxed), self.owner.load(Relaxed))
    }
    #[inline]
    pub fn set_blocks(&self, used: u32, own: u32) {
        self.next.store(used, Relaxed);
        self.owner.store(own, Relaxed);
    }
    #[inline]
    pub fn slot(&self) -> u32 {
        self.slot.load(Relaxed)
    }
    #[inline]
    pub fn set_slot(&self, slot: u32) {
        self.slot.store(slot, Relaxed)
    }
    #[inline]
    pub fn prev(&self) -> u32 {
        self.prev.load(Relaxed) & NONE
    }
    #[inline]
    pub fn set_prev(&self, frame: u32) {
        self.prev.store(self.prev.load(Relaxed) & !NONE | frame, Relaxed)
    }
    /// Of which CPU's lists it is on one, or was last.
    #[inline]
    pub fn home(&self) -> usize {
        (self.link() >> HOME_SHIFT) as usize
    }
    /// The neighbour before it on a CPU's list, and that CPU, as one number: of the list's frames all have the same home.
    #[inline]
    pub fn link(&self) -> u32 {
        self.prev.load(Relaxed)
    }
    #[inline]
    pub fn set_link(&self, link: u32) {
        self.prev.store(link, Relaxed)
    }
    #[inline]
    pub fn link_of(home: usize, frame: u32) -> u32 {
        (home as u32) << HOME_SHIFT | frame
    }
    #[inline]
    pub fn next(&self) -> u32 {
        self.next.load(Relaxed)
    }
    #[inline]
    pub fn set_next(&self, frame: u32) {
        self.next.store(frame, Relaxed)
    }
}
