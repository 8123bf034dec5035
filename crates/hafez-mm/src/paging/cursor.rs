//! The cursor: the only thing that writes entries.
//!
//! A cursor is a lock guard over a range of one space. Of two cursors whose ranges overlap, one is wholly before the
//! other, and the later sees all that the earlier did. While it lives nobody else changes the entries it covers but
//! the processor, which sets accessed and dirty bits in present ones; so a present entry is changed by atomic
//! exchange, and what the processor noted comes back with the old value.
//!
//! ```text
//!   vpn   47 ........ 39 38 ........ 30 29 ........ 21 20 ........ 12
//!         root index     node index     node index     leaf index
//!              |              |              |              |
//!   root  -----+--> node -----+--> node -----+--> leaf -----+--> Entry
//! ```
//!
//! A node's record counts its used entries in `index`, so an empty node is known without a scan.
//! Today one lock guards all of a space's tables; the interface leaves room for a lock a node.

use super::entry::{self, Entry};
use crate::account::{AccountId, Charge};
use crate::addr::{PageRange, Pfn, Vpn};
use crate::frame::meta::{FrameMeta, State, Word};
use crate::frame::{Frames, NoFrames, Priority};
use crate::lock::{Mutex, MutexGuard};
use core::sync::atomic::{AtomicU64, Ordering::*};

/// A space's page tables: the root, behind the lock that a cursor holds.
pub struct Tables {
    root: Mutex<Pfn>,
    /// The same frame, for loading it without the lock.
    root_frame: Pfn,
    account: AccountId,
}

/// How many levels lie above the leaf.
const TOP: u32 = 3;
/// Entries of the root that belong to programs; the upper half is the kernel's.
const USER_ROOT: usize = 256;

impl Tables {
    /// An empty lower half under the kernel's upper half, copied from `kernel_root`.
    pub fn new(
        frames: &Frames,
        cpu: usize,
        account: AccountId,
        kernel_root: Pfn,
    ) -> Result<Tables, NoFrames> {
        let root = new_node(frames, cpu, account)?;
        for i in USER_ROOT..512 {
            let bits = frames.phys.word(kernel_root, i).load(Relaxed);
            frames.phys.word(root, i).store(bits, Relaxed);
        }
        Ok(Tables { root: Mutex::new(root), root_frame: root, account })
    }

    pub fn root(&self) -> Pfn {
        self.root_frame
    }

    /// Lock `range`.
    pub fn cursor<'a>(&'a self, frames: &'a Frames, cpu: usize, range: PageRange) -> Cursor<'a> {
        Cursor { root: self.root.lock(), frames, cpu, account: self.account, range, leaf: None }
    }

    /// Give back the root of tables that no CPU uses and whose lower half is empty.
    pub fn destroy(&self, frames: &Frames, cpu: usize) {
        let root = self.root.lock();
        debug_assert_eq!(frames.meta(*root).index(), 0, "a space is destroyed with entries in it");
        free_node(frames, cpu, *root);
    }
}

fn new_node(frames: &Frames, cpu: usize, account: AccountId) -> Result<Pfn, NoFrames> {
    let node = frames.alloc(cpu, Priority::Kernel)?;
    frames.phys.zero(node);
    frames.meta(node).begin(Word::new(State::Table, account, 0), 0, 0);
    frames.accounts.charge(account, Charge::Table, 1);
    Ok(node)
}

/// Free a node that no CPU can walk any more.
pub(super) fn free_node(frames: &Frames, cpu: usize, node: Pfn) {
    frames.accounts.uncharge(frames.meta(node).word().account(), Charge::Table, 1);
    frames.free_frame(cpu, node);
}

/// Exclusive access to the entries of a range of one space.
pub struct Cursor<'a> {
    root: MutexGuard<'a, Pfn>,
    frames: &'a Frames,
    cpu: usize,
    account: AccountId,
    range: PageRange,
    /// The last leaf found, by `page >> 9`.
    leaf: Option<(u64, Pfn)>,
}

/// One entry under a cursor.
pub struct Slot<'a> {
    word: &'a AtomicU64,
    node: &'a FrameMeta,
}

impl Slot<'_> {
    #[inline]
    pub fn get(&self) -> Entry {
        Entry::decode(self.word.load(Acquire))
    }
    /// Put another entry here; the one that stood here to the last, with the bits that the processor set.
    pub fn replace(&self, entry: Entry) -> Entry {
        let new = entry.encode();
        let old = self.word.swap(new, AcqRel);
        self.count(old, new);
        Entry::decode(old)
    }
    /// Fill an entry that is absent or in swap, which the processor does not write to.
    #[inline]
    pub fn fill(&self, entry: Entry) {
        let old = self.word.load(Relaxed);
        debug_assert!(!matches!(Entry::decode(old), Entry::Present { .. }));
        let new = entry.encode();
        self.word.store(new, Release);
        self.count(old, new);
    }
    #[inline]
    fn count(&self, old: u64, new: u64) {
        let change = (new != 0) as i64 - (old != 0) as i64;
        if change != 0 {
            self.node.set_index(self.node.index().wrapping_add_signed(change));
        }
    }
    /// Forget that the page was accessed through here; whether it had been. Stale translations may hide later
    /// accesses until the caller flushes.
    pub fn take_accessed(&self) -> bool {
        if self.word.load(Relaxed) & entry::ACCESSED_BIT == 0 || !matches!(self.get(), Entry::Present { .. })
        {
            return false;
        }
        self.word.fetch_and(!entry::ACCESSED_BIT, AcqRel) & entry::ACCESSED_BIT != 0
    }
    /// Forget that the page was written through here; whether it had been. A stale translation would hide later
    /// writes: the caller flushes before it relies on the frame's bytes.
    pub fn take_dirty(&self) -> bool {
        match self.get() {
            Entry::Present { dirty: true, .. } => {
                self.word.fetch_and(!entry::DIRTY_BIT, AcqRel) & entry::DIRTY_BIT != 0
            }
            _ => false,
        }
    }
}

impl<'a> Cursor<'a> {
    /// The entry's place, if the nodes above it exist.
    #[inline]
    pub fn find(&mut self, page: Vpn) -> Option<Slot<'a>> {
        debug_assert!(self.range.contains(page), "{page:?} is outside the cursor's {:?}", self.range);
        let leaf = match self.leaf {
            Some((at, leaf)) if at == page.0 >> 9 => leaf,
            _ => self.walk(page)?,
        };
        Some(self.slot(leaf, page))
    }

    /// The entry's place, with nodes made as needed.
    #[inline]
    pub fn make(&mut self, page: Vpn) -> Result<Slot<'a>, NoFrames> {
        if let Some(slot) = self.find(page) {
            return Ok(slot);
        }
        self.grow(page)?;
        self.find(page).ok_or(NoFrames)
    }

    /// What the entry says; absent where no node leads there.
    pub fn get(&mut self, page: Vpn) -> Entry {
        self.find(page).map_or(Entry::Absent, |slot| slot.get())
    }

    fn slot(&self, leaf: Pfn, page: Vpn) -> Slot<'a> {
        Slot { word: self.frames.phys.word(leaf, index(page, 0)), node: self.frames.meta(leaf) }
    }

    fn walk(&mut self, page: Vpn) -> Option<Pfn> {
        let mut node = *self.root;
        for level in (1..=TOP).rev() {
            node = entry::linked(self.frames.phys.word(node, index(page, level)).load(Relaxed))?;
        }
        self.leaf = Some((page.0 >> 9, node));
        Some(node)
    }

    #[cold]
    fn grow(&mut self, page: Vpn) -> Result<(), NoFrames> {
        let mut node = *self.root;
        for level in (1..=TOP).rev() {
            let word = self.frames.phys.word(node, index(page, level));
            node = match entry::linked(word.load(Relaxed)) {
                Some(next) => next,
                None => {
                    let next = new_node(self.frames, self.cpu, self.account)?;
                    let meta = self.frames.meta(node);
                    meta.set_index(meta.index() + 1);
                    word.store(entry::link(next), Release);
                    next
                }
            };
        }
        Ok(())
    }

    /// Visit each entry of `range` that is not absent, in order of address.
    pub fn each(&mut self, range: PageRange, f: &mut dyn FnMut(Vpn, &Slot<'_>)) {
        debug_assert!(self.range.covers(&range) || range.is_empty());
        self.visit(*self.root, TOP, range, f, &mut |_| {}, false);
    }

    /// As [`Cursor::each`], and afterwards unlink the nodes that have become empty; `unlinked` gets each, to be freed
    /// once no CPU can walk it any more.
    pub fn clear(
        &mut self,
        range: PageRange,
        f: &mut dyn FnMut(Vpn, &Slot<'_>),
        unlinked: &mut dyn FnMut(Pfn),
    ) {
        debug_assert!(self.range.covers(&range) || range.is_empty());
        self.leaf = None;
        self.visit(*self.root, TOP, range, f, unlinked, true);
    }

    /// The first page of `range` whose entry is not absent.
    pub fn next_used(&self, range: PageRange) -> Option<Vpn> {
        self.seek(*self.root, TOP, range, false)
    }

    /// The first page of `range` whose entry is not absent, or that only a node without entries leads to: what
    /// [`Cursor::clear`] still has to do. Such nodes are left where a fault made them and then failed.
    pub fn next_to_clear(&self, range: PageRange) -> Option<Vpn> {
        self.seek(*self.root, TOP, range, true)
    }

    fn seek(&self, node: Pfn, level: u32, range: PageRange, empty: bool) -> Option<Vpn> {
        let mut page = range.start;
        while page < range.end {
            page = self.skip(node, level, page, range.end)?;
            if level == 0 {
                return Some(page);
            }
            let end = end_of(page, level).min(range.end);
            let bits = self.frames.phys.word(node, index(page, level)).load(Acquire);
            if let Some(child) = entry::linked(bits) {
                if empty && self.frames.meta(child).index() == 0 {
                    return Some(page);
                }
                let found = self.seek(child, level - 1, PageRange::new(page, end), empty);
                if found.is_some() {
                    return found;
                }
            }
            page = end;
        }
        None
    }

    /// The first page from `page` on, below `end`, whose word in the node is not zero: a stretch that is not in use
    /// costs a load and a test a word.
    #[inline]
    fn skip(&self, node: Pfn, level: u32, page: Vpn, end: Vpn) -> Option<Vpn> {
        let (first, last) = (index(page, level), index(Vpn(end.0 - 1), level));
        let words = &self.frames.phys.words(node)[first..=last];
        let skipped = words.iter().position(|word| word.load(Acquire) != 0)? as u64;
        if skipped == 0 {
            return Some(page);
        }
        let page = Vpn(((page.0 >> (9 * level)) + skipped) << (9 * level));
        (page < end).then_some(page)
    }

    fn visit(
        &self,
        node: Pfn,
        level: u32,
        range: PageRange,
        f: &mut dyn FnMut(Vpn, &Slot<'_>),
        unlinked: &mut dyn FnMut(Pfn),
        prune: bool,
    ) {
        if range.is_empty() {
            return;
        }
        let meta = self.frames.meta(node);
        let mut page = range.start;
        while page < range.end {
            let Some(used) = self.skip(node, level, page, range.end) else { return };
            page = used;
            let end = end_of(page, level).min(range.end);
            let word = self.frames.phys.word(node, index(page, level));
            let bits = word.load(Acquire);
            if bits != 0 && level == 0 {
                f(page, &Slot { word, node: meta });
            } else if let Some(child) = entry::linked(bits).filter(|_| level > 0) {
                self.visit(child, level - 1, PageRange::new(page, end), f, unlinked, prune);
                if prune && self.frames.meta(child).index() == 0 {
                    word.store(0, Release);
                    meta.set_index(meta.index() - 1);
                    unlinked(child);
                }
            }
            page = end;
        }
    }
}

/// The first page after the one entry of `level` that `page` is in.
#[inline]
fn end_of(page: Vpn, level: u32) -> Vpn {
    Vpn(((page.0 >> (9 * level)) + 1) << (9 * level))
}

/// The index into a node of `level` (0 = leaf).
#[inline]
fn index(page: Vpn, level: u32) -> usize {
    (page.0 >> (9 * level)) as usize & 511
}
