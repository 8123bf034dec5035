//! The generation lists: every frame that could be evicted is on exactly one.
//!
//! ```text
//!              oldest                                youngest
//!   swapped    gen 0 <-> ..  gen 1 <-> ..  gen 2      gen 3
//!   file       gen 0 <-> ..  gen 1 <-> ..  gen 2      gen 3
//! ```
//!
//! Pages that swap backs and pages that a file backs age apart, since losing one costs a write and a read, the other
//! only a read. A list runs through the frames' records, newest at the head, victims from the tail. This module only
//! keeps the lists; what joins where, and when the oldest is taken, is the policy's (`reclaim::policy`).

use super::meta::{Flags, FrameMeta, NONE, State, Word};
use crate::addr::Pfn;
use crate::lock::Mutex;
use core::sync::atomic::{AtomicU8, Ordering::*};

/// Generations a page can be in. Four: one that is being filled, one being emptied, and two between, so that a page
/// survives at least two agings before its turn comes.
pub const GENERATIONS: u8 = 4;

/// What stands behind a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Anonymous or shared: swap.
    Swapped = 0,
    /// A file.
    File = 1,
}

/// How a page came to be in RAM; the policy says which generation that means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// A fault or a call asked for it.
    Wanted = 0,
    /// Brought in beside one that was wanted.
    Ahead = 1,
    /// It was here not long ago: evicting it was a mistake.
    Refault = 2,
}

struct List {
    head: u32,
    tail: u32,
    len: u32,
}

/// Both kinds' lists, under one lock that nests inside all others but the allocator's.
pub struct Lists {
    lists: Mutex<[[List; GENERATIONS as usize]; 2]>,
    /// Generation for each [`Arrival`].
    places: [AtomicU8; 3],
}

/// Frames on each list: `[kind][generation]`.
pub type Lengths = [[u32; GENERATIONS as usize]; 2];

impl Lists {
    pub const fn new() -> Self {
        Lists {
            lists: Mutex::new(
                [const { [const { List { head: NONE, tail: NONE, len: 0 } }; GENERATIONS as usize] }; 2],
            ),
            places: [const { AtomicU8::new(0) }; 3],
        }
    }

    /// From now on pages that arrive so join this generation.
    pub fn set_place(&self, arrival: Arrival, generation: u8) {
        self.places[arrival as usize].store(generation, Relaxed);
    }

    #[inline]
    pub fn place(&self, arrival: Arrival) -> u8 {
        self.places[arrival as usize].load(Relaxed)
    }

    pub fn lengths(&self) -> Lengths {
        let lists = self.lists.lock();
        core::array::from_fn(|k| core::array::from_fn(|g| lists[k][g].len))
    }

    /// Put a frame that is on no list on one, as its youngest member.
    pub fn insert(&self, table: &[FrameMeta], frame: Pfn, generation: u8) {
        let mut lists = self.lists.lock();
        let kind = kind_of(&table[frame.0 as usize]);
        push(table, &mut lists[kind as usize][generation as usize], frame.0, kind, generation);
    }

    #[inline]
    pub fn insert_arrival(&self, table: &[FrameMeta], frame: Pfn, arrival: Arrival) {
        self.insert(table, frame, self.place(arrival));
    }

    /// End an isolation: the frame goes back on a list, unless it is locked in memory, and `mine` is taken from its word. All
    /// in one step: from the moment that the word lets go of it, others may free the frame. The word after.
    pub fn put_back(&self, table: &[FrameMeta], frame: Pfn, generation: u8, mine: Flags) -> Word {
        let meta = &table[frame.0 as usize];
        let mut lists = self.lists.lock();
        if !meta.word().has(Flags::WIRED) {
            let kind = kind_of(meta);
            push(table, &mut lists[kind as usize][generation as usize], frame.0, kind, generation);
        }
        meta.release(mine)
    }

    /// Lock a frame in memory: it leaves its list.
    pub fn wire(&self, table: &[FrameMeta], frame: Pfn) {
        let mut lists = self.lists.lock();
        let Some(list) = table[frame.0 as usize].set(Flags::WIRED).list() else { return };
        unlink(table, &mut lists[(list / GENERATIONS) as usize][(list % GENERATIONS) as usize], frame.0);
    }

    /// The frame is locked no longer, if it was: back on a list. One that somebody has in hand is put there by him.
    pub fn unwire(&self, table: &[FrameMeta], frame: Pfn, generation: u8) {
        let meta = &table[frame.0 as usize];
        let mut lists = self.lists.lock();
        let before = meta.clear(Flags::WIRED);
        if before.has(Flags::WIRED) && !before.any(Flags::IN_HAND) {
            let kind = kind_of(meta);
            push(table, &mut lists[kind as usize][generation as usize], frame.0, kind, generation);
        }
    }

    /// Take frames off whichever lists they are on.
    pub fn remove_all(&self, table: &[FrameMeta], frames: &[Pfn]) {
        let mut lists = self.lists.lock();
        for frame in frames {
            let Some(list) = table[frame.0 as usize].word().list() else { continue };
            let list = &mut lists[(list / GENERATIONS) as usize][(list % GENERATIONS) as usize];
            unlink(table, list, frame.0);
        }
    }

    /// Move a frame that is on a list to another generation of its kind.
    pub fn promote(&self, table: &[FrameMeta], frame: Pfn, generation: u8) {
        let mut lists = self.lists.lock();
        let Some(list) = table[frame.0 as usize].word().list() else { return };
        let (kind, from) = (list / GENERATIONS, list % GENERATIONS);
        if from == generation {
            return;
        }
        unlink(table, &mut lists[kind as usize][from as usize], frame.0);
        let kind = if kind == 0 { Kind::Swapped } else { Kind::File };
        push(table, &mut lists[kind as usize][generation as usize], frame.0, kind, generation);
    }

    /// Isolate up to `out`'s room of frames from the old end of a list: each is off the list and carries
    /// [`Flags::ISOLATED`]. Pinned frames, and such as are on their way in or out, go to the young end instead.
    pub fn isolate(&self, table: &[FrameMeta], kind: Kind, generation: u8, out: &mut dyn FnMut(Pfn) -> bool) {
        let mut lists = self.lists.lock();
        let list = &mut lists[kind as usize][generation as usize];
        for _ in 0..list.len {
            let frame = list.tail;
            let meta = &table[frame as usize];
            unlink(table, list, frame);
            if !meta.claim(Flags::ISOLATED, Flags::IN_HAND | Flags::WIRED) {
                push(table, list, frame, kind, generation);
            } else if !out(Pfn(frame)) {
                break;
            }
        }
    }

    /// Every frame on a list, for the audit.
    pub fn each(&self, table: &[FrameMeta], mut f: impl FnMut(Pfn, Kind, u8)) {
        let lists = self.lists.lock();
        for kind in [Kind::Swapped, Kind::File] {
            for generation in 0..GENERATIONS {
                let list = &lists[kind as usize][generation as usize];
                let mut at = list.head;
                while at != NONE {
                    f(Pfn(at), kind, generation);
                    at = table[at as usize].next();
                }
            }
        }
    }
}

/// What stands behind the page in this frame.
pub fn kind_of(meta: &FrameMeta) -> Kind {
    if meta.word().state() == State::File { Kind::File } else { Kind::Swapped }
}

fn push(table: &[FrameMeta], list: &mut List, frame: u32, kind: Kind, generation: u8) {
    let meta = &table[frame as usize];
    debug_assert!(meta.word().list().is_none());
    meta.set_prev(NONE);
    meta.set_next(list.head);
    match list.head {
        NONE => list.tail = frame,
        head => table[head as usize].set_prev(frame),
    }
    list.head = frame;
    list.len += 1;
    meta.set_list(Some(kind as u8 * GENERATIONS + generation));
}

fn unlink(table: &[FrameMeta], list: &mut List, frame: u32) {
    let meta = &table[frame as usize];
    let (prev, next) = (meta.prev(), meta.next());
    match prev {
        NONE => list.head = next,
        _ => table[prev as usize].set_next(next),
    }
    match next {
        NONE => list.tail = prev,
        _ => table[next as usize].set_prev(prev),
    }
    list.len -= 1;
    meta.set_list(None);
}
