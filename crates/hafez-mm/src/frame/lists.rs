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
//!
//! Each CPU has a set of these lists of its own, with a lock: a page that comes in joins those of the CPU that brought it in, and
//! stays there for life (`FrameMeta::home`). So faults on two CPUs write nothing that both need. To the policy they are one set.

use super::meta::{Flags, FrameMeta, NONE, State, Word};
use crate::MAX_CPUS;
use crate::account::AccountId;
use crate::addr::Pfn;
use crate::lock::{Mutex, MutexGuard};
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering::*};

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

/// Both kinds' lists of one CPU, under a lock that nests inside all others but the allocator's. Nobody holds two.
type Set = [[List; GENERATIONS as usize]; 2];
#[repr(align(64))]
struct Shelf(Mutex<Set>);

pub struct Lists {
    /// Generation for each [`Arrival`].
    places: [AtomicU8; 3],
    /// CPUs from this one on have brought in nothing.
    end: AtomicUsize,
    /// Whose turn it is to give pages up.
    turn: AtomicUsize,
    shelves: [Shelf; MAX_CPUS],
}

/// Frames on each list: `[kind][generation]`.
pub type Lengths = [[u32; GENERATIONS as usize]; 2];

impl Lists {
    pub const fn new() -> Self {
        const EMPTY: [List; GENERATIONS as usize] =
            [const { List { head: NONE, tail: NONE, len: 0 } }; GENERATIONS as usize];
        Lists {
            places: [const { AtomicU8::new(0) }; 3],
            end: AtomicUsize::new(1),
            turn: AtomicUsize::new(0),
            shelves: [const { Shelf(Mutex::new([EMPTY, EMPTY])) }; MAX_CPUS],
        }
    }

    /// The lists of the CPU that brought the frame in. Of a frame that is on none this may change: when it comes in.
    #[inline]
    fn home(&self, meta: &FrameMeta) -> MutexGuard<'_, Set> {
        self.shelves[meta.home() % MAX_CPUS].0.lock()
    }

    /// All CPUs' that are used.
    fn shelves(&self) -> &[Shelf] {
        &self.shelves[..self.end.load(Acquire)]
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
        let mut lengths = Lengths::default();
        for shelf in self.shelves() {
            let lists = shelf.0.lock();
            for (all, lists) in lengths.iter_mut().zip(&*lists) {
                all.iter_mut().zip(lists).for_each(|(all, list)| *all += list.len);
            }
        }
        lengths
    }

    /// A frame comes in, brought by this CPU: put it on a list, as its youngest member.
    pub fn insert(&self, table: &[FrameMeta], cpu: usize, frame: Pfn, generation: u8) {
        let meta = &table[frame.0 as usize];
        if cpu >= self.end.load(Relaxed) {
            self.join(cpu);
        }
        let mut lists = self.shelves[cpu].0.lock();
        push(table, &mut lists, frame.0, cpu, kind_of(meta), generation);
    }

    #[inline]
    pub fn insert_arrival(&self, table: &[FrameMeta], cpu: usize, frame: Pfn, arrival: Arrival) {
        self.insert(table, cpu, frame, self.place(arrival));
    }

    /// Begin the life of a frame: as `word` says, with this owner and index, and on a list of swapped pages, as its youngest member.
    #[inline]
    pub fn begin(
        &self,
        table: &[FrameMeta],
        cpu: usize,
        frame: Pfn,
        (word, owner, index): (Word, u32, u64),
        generation: u8,
    ) {
        if cpu >= self.end.load(Relaxed) {
            self.join(cpu);
        }
        let kind = Kind::Swapped as u8;
        let word = word.on_list(kind * GENERATIONS + generation);
        let mut lists = self.shelves[cpu % MAX_CPUS].0.lock();
        let list = list_of(&mut lists, kind * GENERATIONS + generation);
        let place = (FrameMeta::link_of(cpu, NONE), list.head);
        table[frame.0 as usize].begin_listed(word, owner, index, place);
        lead(table, list, cpu, (frame.0, frame.0));
        list.len += 1;
    }

    /// From now on this CPU's lists are looked at, too.
    #[cold]
    fn join(&self, cpu: usize) {
        self.end.fetch_max(cpu + 1, AcqRel);
    }

    /// Begin the lives of `count` frames in a row from `first` on: each as `word` says, with this owner, numbered from the index
    /// on, and on a list of swapped pages, as its youngest members.
    pub fn begin_row(
        &self,
        table: &[FrameMeta],
        cpu: usize,
        (first, count): (Pfn, u32),
        (word, owner, index): (Word, u32, u64),
        generation: u8,
    ) {
        if cpu >= self.end.load(Relaxed) {
            self.join(cpu);
        }
        let kind = Kind::Swapped as u8;
        let word = word.on_list(kind * GENERATIONS + generation);
        let row = &table[first.0 as usize..][..count as usize];
        let (mut link, mut next) = (FrameMeta::link_of(cpu, first.0 - 1), first.0 + 1);
        for (meta, index) in row.iter().zip(index..) {
            meta.begin_listed(word, owner, index, (link, next));
            (link, next) = (link + 1, next + 1);
        }
        let last = first.0 + count - 1;
        let mut lists = self.shelves[cpu].0.lock();
        let list = &mut lists[kind as usize][generation as usize];
        row[0].set_link(FrameMeta::link_of(cpu, NONE));
        row[count as usize - 1].set_next(list.head);
        lead(table, list, cpu, (first.0, last));
        list.len += count;
    }

    /// Take `count` frames in a row from their list, if they are on one as [`Lists::begin_row`] left them and each is just what
    /// `word` says. Who finds a page by a list takes it under the same lock, so nobody else has one of them then.
    pub fn end_row(&self, table: &[FrameMeta], first: Pfn, count: u32, word: Word) -> bool {
        let row = &table[first.0 as usize..][..count as usize];
        let mut lists = self.home(&row[0]);
        let Some(place) = row[0].word().list() else { return false };
        let word = word.on_list(place);
        let (last, mut next) = (&row[count as usize - 1], first.0);
        let as_begun = row.iter().all(|meta| {
            next += 1;
            meta.word() == word && (meta.next() == next || next == first.0 + count)
        });
        if !as_begun {
            return false;
        }
        let list = list_of(&mut lists, place);
        bridge(table, list, row[0].link(), last.next());
        list.len -= count;
        true
    }

    /// End an isolation: the frame goes back on a list, unless it is locked in memory, and `mine` is taken from its word. All
    /// in one step: from the moment that the word lets go of it, others may free the frame. The word after.
    pub fn put_back(&self, table: &[FrameMeta], frame: Pfn, generation: u8, mine: Flags) -> Word {
        let meta = &table[frame.0 as usize];
        let mut lists = self.home(meta);
        if !meta.word().has(Flags::WIRED) {
            push_home(table, &mut lists, frame.0, generation);
        }
        meta.release(mine)
    }

    /// Lock a frame in memory: it leaves its list.
    pub fn wire(&self, table: &[FrameMeta], frame: Pfn) {
        let meta = &table[frame.0 as usize];
        let mut lists = self.home(meta);
        let Some(list) = meta.set(Flags::WIRED).list() else { return };
        unlink(table, list_of(&mut lists, list), meta);
    }

    /// The frame is locked no longer, if it was: back on a list. One that somebody has in hand is put there by him.
    pub fn unwire(&self, table: &[FrameMeta], frame: Pfn, generation: u8) {
        let meta = &table[frame.0 as usize];
        let mut lists = self.home(meta);
        let before = meta.clear(Flags::WIRED);
        if before.has(Flags::WIRED) && !before.any(Flags::IN_HAND) {
            push_home(table, &mut lists, frame.0, generation);
        }
    }

    /// End the lives of frames that nothing holds: off whichever lists they are on, and idle.
    pub fn end_all(&self, table: &[FrameMeta], frames: &[Pfn]) {
        let mut left = frames;
        while let Some(first) = left.first() {
            let home = table[first.0 as usize].home();
            let mut lists = self.shelves[home % MAX_CPUS].0.lock();
            while let Some(first) = left.first()
                && table[first.0 as usize].home() == home
            {
                let run = end_run(table, &mut lists, left);
                left = &left[run..];
            }
        }
    }

    /// Move a frame that is on a list to another generation of its kind.
    pub fn promote(&self, table: &[FrameMeta], frame: Pfn, generation: u8) {
        let meta = &table[frame.0 as usize];
        let mut lists = self.home(meta);
        let Some(list) = meta.word().list() else { return };
        let (kind, from) = (list / GENERATIONS, list % GENERATIONS);
        if from == generation {
            return;
        }
        unlink(table, &mut lists[kind as usize][from as usize], meta);
        let kind = if kind == 0 { Kind::Swapped } else { Kind::File };
        push(table, &mut lists, frame.0, meta.home(), kind, generation);
    }

    /// Isolate up to `out`'s room of frames from the old end of a list: each is off the list and carries
    /// [`Flags::ISOLATED`]. Pinned frames, and such as are on their way in or out, join the generation `young` instead: they are
    /// in use, and where they stayed the policy would look for its next victim for ever.
    pub fn isolate(
        &self,
        table: &[FrameMeta],
        kind: Kind,
        (generation, young): (u8, u8),
        out: &mut dyn FnMut(Pfn) -> bool,
    ) {
        let shelves = self.shelves();
        // One CPU's after the other's, so that all age alike.
        let turn = self.turn.fetch_add(1, Relaxed) % shelves.len();
        for shelf in shelves[turn..].iter().chain(&shelves[..turn]) {
            let mut lists = shelf.0.lock();
            for _ in 0..lists[kind as usize][generation as usize].len {
                let list = &mut lists[kind as usize][generation as usize];
                let frame = list.tail;
                let meta = &table[frame as usize];
                unlink(table, list, meta);
                if !meta.claim(Flags::ISOLATED, Flags::IN_HAND | Flags::WIRED) {
                    push(table, &mut lists, frame, meta.home(), kind, young);
                } else if !out(Pfn(frame)) {
                    return;
                }
            }
        }
    }

    /// Every frame on a list, for the audit.
    pub fn each(&self, table: &[FrameMeta], mut f: impl FnMut(Pfn, Kind, u8)) {
        for shelf in self.shelves() {
            let lists = shelf.0.lock();
            for kind in [Kind::Swapped, Kind::File] {
                for generation in 0..GENERATIONS {
                    let mut at = lists[kind as usize][generation as usize].head;
                    while at != NONE {
                        f(Pfn(at), kind, generation);
                        at = table[at as usize].next();
                    }
                }
            }
        }
    }
}

/// What stands behind the page in this frame.
pub fn kind_of(meta: &FrameMeta) -> Kind {
    if meta.word().state() == State::File { Kind::File } else { Kind::Swapped }
}

/// The list of this number, as a frame's word has it.
#[inline]
fn list_of(lists: &mut Set, number: u8) -> &mut List {
    &mut lists[(number / GENERATIONS) as usize % 2][(number % GENERATIONS) as usize]
}

#[inline]
fn push(table: &[FrameMeta], lists: &mut Set, frame: u32, home: usize, kind: Kind, generation: u8) {
    let meta = &table[frame as usize];
    let list = &mut lists[kind as usize][generation as usize];
    debug_assert!(meta.word().list().is_none());
    meta.set_link(FrameMeta::link_of(home, NONE));
    meta.set_next(list.head);
    lead(table, list, home, (frame, frame));
    list.len += 1;
    meta.set_list(Some(kind as u8 * GENERATIONS + generation));
}

/// Frames that are linked to each other, from the first to the last, and on to the list's head, are its head from now on.
#[inline]
fn lead(table: &[FrameMeta], list: &mut List, home: usize, (first, last): (u32, u32)) {
    match list.head {
        NONE => list.tail = last,
        head => table[head as usize].set_link(FrameMeta::link_of(home, last)),
    }
    list.head = first;
}

/// As [`push`], on the list of its kind, of its own CPU's.
#[inline]
fn push_home(table: &[FrameMeta], lists: &mut Set, frame: u32, generation: u8) {
    let meta = &table[frame as usize];
    push(table, lists, frame, meta.home(), kind_of(meta), generation);
}

#[inline]
fn unlink(table: &[FrameMeta], list: &mut List, meta: &FrameMeta) {
    bridge(table, list, meta.link(), meta.next());
    list.len -= 1;
    meta.set_list(None);
}

/// Link what came before the frames that leave a list to what comes after them.
#[inline]
fn bridge(table: &[FrameMeta], list: &mut List, link: u32, next: u32) {
    match link & NONE {
        NONE => list.head = next,
        prev => table[prev as usize].set_next(next),
    }
    match next {
        NONE => list.tail = link & NONE,
        _ => table[next as usize].set_link(link),
    }
}

/// End the lives of as many of these frames, from the first on, as lie side by side on its list: each younger by one than the one
/// before it, as pages do that were touched one after the other. How many these are. Nobody else changes the word of a frame that
/// nothing holds.
#[inline]
fn end_run(table: &[FrameMeta], lists: &mut Set, frames: &[Pfn]) -> usize {
    let idle = Word::new(State::Idle, AccountId::KERNEL, 0);
    let first = &table[frames[0].0 as usize];
    let Some(list) = first.word().list() else {
        first.set_word(idle);
        return 1;
    };
    first.set_word(idle);
    let (mut link, mut run) = (first.link(), 1);
    while let Some(younger) = frames.get(run)
        && younger.0 == link & NONE
    {
        let meta = &table[younger.0 as usize];
        meta.set_word(idle);
        link = meta.link();
        run += 1;
    }
    let list = list_of(lists, list);
    bridge(table, list, link, first.next());
    list.len -= run as u32;
    run
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::boxed::Box;
    use alloc::vec::Vec;

    fn frames(lists: &Lists) -> Box<[FrameMeta]> {
        frames_of(lists, &|n| n % 3)
    }

    /// Each brought in by the CPU that `home` tells.
    fn frames_of(lists: &Lists, home: &dyn Fn(usize) -> usize) -> Box<[FrameMeta]> {
        // SAFETY: any bytes are valid records.
        let table: Box<[FrameMeta]> = (0..8).map(|_| unsafe { core::mem::zeroed() }).collect();
        for n in 1..8 {
            table[n].clear_all();
            table[n].begin(Word::new(State::Anon, AccountId::KERNEL, 1), 1, 0);
            lists.insert(&table, home(n), Pfn(n as u32), 0);
        }
        table
    }

    fn isolated(lists: &Lists, table: &[FrameMeta]) -> Vec<u32> {
        let mut found = Vec::new();
        lists.isolate(table, Kind::Swapped, (0, 0), &mut |frame| {
            found.push(frame.0);
            true
        });
        found.sort_unstable();
        found
    }

    /// Who has seen the last hold on a frame go frees it, and takes it off its list only then. Nobody else may have it.
    #[test]
    fn a_frame_about_to_be_freed_is_not_isolated() {
        let lists = Lists::new();
        let table = frames(&lists);
        assert!(table[3].drop_map().is_unheld());
        assert_eq!(isolated(&lists, &table), [1, 2, 4, 5, 6, 7]);
        lists.end_all(&table, &[Pfn(3)]);
        assert_eq!(lists.lengths()[0][0], 0);
    }

    /// What is in use does not stay where victims are looked for.
    #[test]
    fn a_frame_in_use_joins_the_young() {
        let lists = Lists::new();
        let table = frames(&lists);
        assert!(table[4].pin());
        let mut found = 0;
        lists.isolate(&table, Kind::Swapped, (0, 2), &mut |_| {
            found += 1;
            true
        });
        assert_eq!((found, lists.lengths()[0]), (6, [0, 0, 1, 0]));
        table[4].unpin();
    }

    /// Isolated is isolated once; what comes back is on its CPU's list with the same step.
    #[test]
    fn a_frame_in_hand_comes_back_whole() {
        let lists = Lists::new();
        let table = frames(&lists);
        isolated(&lists, &table);
        assert_eq!(isolated(&lists, &table), []);
        let word = lists.put_back(&table, Pfn(4), 2, Flags::ISOLATED);
        assert!(word.list().is_some() && !word.has(Flags::ISOLATED));
        lists.wire(&table, Pfn(5));
        let word = lists.put_back(&table, Pfn(5), 2, Flags::ISOLATED);
        assert!(word.list().is_none(), "what is locked in memory is on no list");
        lists.unwire(&table, Pfn(5), 2);
        assert_eq!(lists.lengths()[0], [0, 0, 2, 0]);
    }

    /// What leaves together leaves the rest in order, whichever way it was linked.
    #[test]
    fn runs_leave_a_list_whole() {
        let numbers = |list: &[u32]| list.iter().map(|&n| Pfn(n)).collect::<Vec<_>>();
        for leaving in
            [&[2, 3, 4][..], &[4, 3, 2], &[1, 2, 5, 6, 7], &[7, 1], &[3, 5, 4], &[1, 2, 3, 4, 5, 6, 7]]
        {
            let lists = Lists::new();
            let table = frames_of(&lists, &|_| 0);
            leaving.iter().for_each(|&n| assert!(table[n as usize].drop_map().is_unheld()));
            lists.end_all(&table, &numbers(leaving));
            let mut stay = Vec::new();
            lists.each(&table, |frame, _, _| stay.push(frame.0));
            let expected: Vec<u32> = (1..8).rev().filter(|n| !leaving.contains(n)).collect();
            assert_eq!(stay, expected, "after {leaving:?} have left");
            assert_eq!(lists.lengths()[0][0] as usize, stay.len());
            assert_eq!(isolated(&lists, &table).len(), stay.len());
        }
    }
}
