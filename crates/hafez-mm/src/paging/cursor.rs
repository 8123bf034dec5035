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
//!
//! # Locks
//!
//! The *shape* of a space's tables, which node links to which, has a lock whose readers share nothing; each leaf has one of its
//! own, in its record. So there are two kinds of cursor:
//!
//! ```text
//!   in one leaf    reads the shape, and holds the leaf's lock from when it comes there      what a fault needs, and most calls
//!   alone          holds the shape for writing: no other cursor of this space is anywhere   ranges of several leaves, and
//!                                                                                           whatever changes the shape
//! ```
//!
//! Who reads the shape may add a node where there is none, by compare and exchange, and nothing else. So a link, once seen, leads
//! to its node for as long as the shape is read, and two CPUs that fault on different leaves write nothing that both need. A
//! cursor in one leaf that comes to something it cannot do so lets go and comes back alone ([`Cursor::alone`]); what was seen
//! through it before is void then.
//!
//! A leaf that has become empty stays where it is until somebody who is alone comes by: the next call on a range around it, or
//! reclaim, when frames are short.
//!
//! A leaf may be shared: since a fork several spaces link to it ([`super::share`]). Who walks into one holds its lock,
//! alone or not, until he leaves it, and does not fill or replace its entries: a fault first makes a leaf of the space's own.
//! Only what takes a page from all who map it changes a shared leaf where it is ([`Slot::take`]).
//!
//! A leaf may be *whole*: the processor does not look into it, as the upper entry says what all its entries say
//! ([`super::huge`]). What could change one of them opens it first.

use super::entry::{self, Entry};
use super::gather::{Shootdown, Target};
use crate::account::{AccountId, Charge};
use crate::addr::{PageRange, Pfn, USER_END, Vpn};
use crate::frame::meta::{FrameMeta, State, Word};
use crate::frame::{Frames, NoFrames};
use crate::lock::{BigReaderLock, Readers, Reading, WriteGuard, rank};
use crate::mutant::mutant;
use crate::phys::PhysMap;
use crate::{Rights, SpaceId};
use alloc::sync::Arc;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::*};

/// A space's page tables.
pub struct Tables {
    shape: BigReaderLock<(), { rank::SHAPE }>,
    root_frame: Pfn,
    /// Where cursors begin: at the root, until that has been given back.
    top: AtomicU32,
    account: AccountId,
    space: SpaceId,
    /// Bit per CPU that may hold translations.
    pub cpus: AtomicU64,
    /// Some leaf may be shared. Never taken back: what a space was forked with it gives up leaf by leaf.
    pub(super) forked: AtomicBool,
    /// Leaves that are whole: changed by who is alone.
    pub(super) whole: AtomicU32,
}

/// How many levels lie above the leaf.
pub(super) const TOP: u32 = 3;
/// Entries of the root that belong to programs; the upper half is the kernel's.
const USER_ROOT: usize = 256;

/// What every root has in its upper half: the entries that are used there, which never change.
pub struct KernelHalf(Vec<(usize, u64)>);

impl KernelHalf {
    /// As it stands in the kernel's own root.
    pub fn of(phys: &PhysMap, root: Pfn) -> Self {
        let bits = |at: usize| phys.word(root, at).load(Relaxed);
        KernelHalf((USER_ROOT..512).map(|at| (at, bits(at))).filter(|&(_, bits)| bits != 0).collect())
    }
}

impl Tables {
    /// An empty lower half under the kernel's upper half.
    pub fn new(
        frames: &Frames,
        cpu: usize,
        account: AccountId,
        kernel: &KernelHalf,
        readers: &Arc<Readers>,
    ) -> Result<Tables, NoFrames> {
        let root = new_node(frames, cpu, account)?;
        for &(at, bits) in &kernel.0 {
            frames.phys.word(root, at).store(bits, Relaxed);
        }
        Ok(Tables {
            shape: BigReaderLock::new(readers, ()),
            root_frame: root,
            top: AtomicU32::new(root.0),
            account,
            space: SpaceId(0),
            cpus: AtomicU64::new(0),
            forked: AtomicBool::new(false),
            whole: AtomicU32::new(0),
        })
    }

    /// The same, as those of this space.
    pub fn of(self, space: SpaceId) -> Tables {
        Tables { space, ..self }
    }

    /// Whose translations are flushed when entries change.
    #[inline]
    pub fn target(&self) -> Target<'_> {
        Target { space: self.space, root: self.root_frame, cpus: &self.cpus }
    }

    pub fn root(&self) -> Pfn {
        self.root_frame
    }

    #[inline(always)]
    fn top(&self) -> Pfn {
        Pfn(self.top.load(Relaxed))
    }

    /// Lock a range of one leaf.
    #[inline(always)]
    #[cfg_attr(feature = "contention", track_caller)]
    pub fn cursor_in_leaf<'a>(
        &'a self,
        above: &'a dyn Shootdown,
        frames: &'a Frames,
        cpu: usize,
        range: PageRange,
    ) -> Cursor<'a> {
        debug_assert!(is_in_one_leaf(range));
        let reads = self.shape.keep(cpu);
        Cursor {
            root: self.top(),
            reads: Some(reads),
            alone: None,
            tables: self,
            above,
            frames,
            cpu,
            #[cfg(debug_assertions)]
            range,
            leaf: None,
        }
    }

    /// Lock `range`, and the shape of the tables.
    #[cfg_attr(feature = "contention", track_caller)]
    pub fn cursor_alone<'a>(
        &'a self,
        above: &'a dyn Shootdown,
        frames: &'a Frames,
        cpu: usize,
        #[cfg_attr(not(debug_assertions), expect(unused_variables))] range: PageRange,
    ) -> Cursor<'a> {
        let alone = self.shape.write();
        Cursor {
            root: self.top(),
            reads: None,
            alone: Some(alone),
            tables: self,
            above,
            frames,
            cpu,
            #[cfg(debug_assertions)]
            range,
            leaf: None,
        }
    }

    /// Who pays for its nodes.
    pub(super) fn account(&self) -> AccountId {
        self.account
    }

    /// Whether a leaf of it may be shared.
    #[inline]
    pub fn may_share(&self) -> bool {
        self.forked.load(Relaxed)
    }

    /// Give back the root of tables that no CPU uses and whose lower half is empty. Who still has a reference to the space, and
    /// looks through a cursor later, finds tables without an entry: those of the frame of zeroes.
    pub fn destroy(&self, frames: &Frames, cpu: usize) {
        let alone = self.shape.write();
        let root = Pfn(self.top.swap(frames.zero.0, Relaxed));
        drop(alone);
        let meta = frames.meta(root);
        debug_assert_eq!(meta.index(), 0, "a space is destroyed with entries in it");
        // The kernel's half is still there.
        frames.accounts.uncharge(meta.word().account(), Charge::Table, 1);
        frames.free_frame(cpu, root);
    }
}

pub(super) fn new_node(frames: &Frames, cpu: usize, account: AccountId) -> Result<Pfn, NoFrames> {
    Ok(begin_node(frames, frames.alloc_node(cpu)?, account))
}

/// Make a frame a node, whose entries the caller has seen to, or will.
pub(super) fn begin_node(frames: &Frames, node: Pfn, account: AccountId) -> Pfn {
    frames.meta(node).begin(Word::new(State::Table, account, 1), 0, 0);
    frames.accounts.charge(account, Charge::Table, 1);
    node
}

/// Free a node that no CPU can walk any more.
pub(super) fn free_node(frames: &Frames, cpu: usize, node: Pfn) {
    let meta = frames.meta(node);
    frames.accounts.uncharge(meta.word().account(), Charge::Table, 1);
    match meta.index() {
        0 => frames.free_empty_node(cpu, node),
        _ => frames.free_frame(cpu, node),
    }
}

/// Exclusive access to the entries of a range of one space.
pub struct Cursor<'a> {
    pub(super) root: Pfn,
    /// One of the two: what it holds of the shape.
    reads: Option<Reading<'a>>,
    alone: Option<WriteGuard<'a, (), { rank::SHAPE }>>,
    pub(super) tables: &'a Tables,
    /// Who flushes.
    pub(super) above: &'a dyn Shootdown,
    pub(super) frames: &'a Frames,
    pub(super) cpu: usize,
    #[cfg(debug_assertions)]
    range: PageRange,
    /// The last leaf found.
    pub(super) leaf: Option<Leaf<'a>>,
}

/// A leaf that a cursor is at.
#[derive(Clone, Copy)]
pub(super) struct Leaf<'a> {
    /// The number of its first page, divided by 512.
    pub at: u64,
    pub node: Pfn,
    pub meta: &'a FrameMeta,
    /// Others link to it too.
    pub shared: bool,
}

/// Who goes along when a range is cleared.
pub trait Visitor {
    /// Whether it leaves no entry that it is shown, so that nodes become empty.
    const CLEARS: bool = true;
    /// An entry that is not absent.
    fn entry(&mut self, page: Vpn, slot: &Slot<'_>);
    /// A node that has become empty, or a shared leaf, was unlinked: to be let go of once no CPU can walk it any more.
    fn unlinked(&mut self, node: Pfn);
}

/// Who only looks, and changes no entry from or to absent.
struct Looking<'a, F>(&'a mut F);

impl<F: FnMut(Vpn, &Slot<'_>)> Visitor for Looking<'_, F> {
    const CLEARS: bool = false;
    #[inline]
    fn entry(&mut self, page: Vpn, slot: &Slot<'_>) {
        self.0(page, slot);
    }
    fn unlinked(&mut self, _: Pfn) {}
}

/// One entry under a cursor.
pub struct Slot<'a> {
    pub(super) word: &'a AtomicU64,
    node: &'a FrameMeta,
    shared: bool,
}

impl Slot<'_> {
    /// What the entry says. In a shared leaf no page may be written through it.
    #[inline]
    pub fn get(&self) -> Entry {
        match (Entry::decode(self.word.load(Acquire)), self.shared) {
            (Entry::Present { frame, rights, accessed, dirty }, true) => {
                Entry::Present { frame, rights: rights - Rights::WRITE, accessed, dirty }
            }
            (entry, _) => entry,
        }
    }
    /// The frame that the entry names.
    #[inline]
    pub fn frame(&self) -> Option<Pfn> {
        entry::named(self.word.load(Acquire))
    }
    /// What the entry says where the leaf is not guarded.
    #[inline]
    pub fn raw(&self) -> Entry {
        Entry::decode(self.word.load(Acquire))
    }
    #[inline]
    pub fn is_absent(&self) -> bool {
        self.word.load(Acquire) == 0
    }
    /// Whether the leaf that it is in belongs to other spaces too.
    #[inline]
    pub fn is_shared(&self) -> bool {
        self.shared
    }
    /// How many spaces' tables lead to it.
    pub fn sharers(&self) -> u32 {
        if self.shared { self.node.word().maps().max(1) } else { 1 }
    }
    /// Put another entry here; the one that stood here to the last, with the bits that the processor set.
    #[inline]
    pub fn replace(&self, entry: Entry) -> Entry {
        debug_assert!(!self.shared || cfg!(feature = "mutants"), "an entry of others is replaced");
        self.take(entry)
    }
    /// As [`Slot::replace`] where the leaf may be shared: who calls it takes the page from all who share it, and flushes
    /// them all.
    #[inline]
    pub fn take(&self, entry: Entry) -> Entry {
        let new = entry.encode();
        let old = self.word.swap(new, AcqRel);
        self.count(old, new);
        Entry::decode(old)
    }
    /// Give a present entry other rights. What the processor notes meanwhile stays in it: a mark that were taken over to the
    /// frame alone would be missed by a write-back that had looked there already.
    #[inline]
    pub fn set_rights(&self, rights: Rights) {
        debug_assert!(!self.shared, "an entry of others is changed");
        let _ = self.word.fetch_update(AcqRel, Acquire, |bits| entry::with_rights(bits, rights));
    }
    /// As [`Slot::replace`], with nothing here while `flush` has all processors forget what was here. If they found the new
    /// entry before, one of them could write through it while another still reads the old page.
    #[inline]
    pub fn replace_after(&self, entry: Entry, flush: impl FnOnce(Entry)) {
        debug_assert!(!self.shared || cfg!(feature = "mutants"), "an entry of others is replaced");
        let old = self.word.swap(0, AcqRel);
        flush(Entry::decode(old));
        let new = entry.encode();
        self.word.store(new, Release);
        self.count(old, new);
    }
    /// Fill an entry that is absent or in swap, which the processor does not write to.
    #[inline(always)]
    pub fn fill(&self, entry: Entry) {
        debug_assert!(!self.shared || cfg!(feature = "mutants"), "an entry of others is filled");
        let old = self.word.load(Relaxed);
        debug_assert!(!matches!(Entry::decode(old), Entry::Present { .. }));
        let new = entry.encode();
        self.word.store(new, Release);
        self.count(old, new);
    }
    #[inline(always)]
    fn count(&self, old: u64, new: u64) {
        let change = (new != 0) as i64 - (old != 0) as i64;
        if change != 0 {
            self.node.set_index(self.node.index().wrapping_add_signed(change));
        }
    }
    /// Forget that the page was accessed through here; whether it had been. Stale translations may hide later
    /// accesses until the caller flushes.
    #[inline]
    pub fn take_accessed(&self) -> bool {
        if self.word.load(Relaxed) & entry::ACCESSED_BIT == 0 || !matches!(self.get(), Entry::Present { .. })
        {
            return false;
        }
        self.word.fetch_and(!entry::ACCESSED_BIT, AcqRel) & entry::ACCESSED_BIT != 0
    }
    /// Forget that the page was written through here; whether it had been. A stale translation would hide later
    /// writes: the caller flushes before it relies on the frame's bytes.
    #[inline]
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
    /// Only what lies in its range may be asked of a cursor.
    #[inline(always)]
    fn expect(&self, part: PageRange) {
        #[cfg(debug_assertions)]
        assert!(
            part.is_empty() || self.range.covers(&part),
            "{part:?} is outside the cursor's {:?}",
            self.range
        );
        let _ = part;
    }

    /// Whether nobody else has a cursor on this space.
    #[inline]
    pub fn is_alone(&self) -> bool {
        self.alone.is_some()
    }

    /// From here on nobody else has a cursor on this space. What was seen before may have changed meanwhile.
    #[cold]
    pub fn alone(&mut self) {
        if !self.is_alone() {
            self.leave();
            self.reads = None;
            let alone = self.tables.shape.write();
            (self.root, self.alone) = (self.tables.top(), Some(alone));
        }
    }

    /// The entry's place, if the nodes above it exist.
    #[inline]
    pub fn find(&mut self, page: Vpn) -> Option<Slot<'a>> {
        match self.place(page) {
            None => self.find_in_whole(page),
            found => found,
        }
    }

    /// As [`Cursor::find`], but for leaves that are whole, which stay so.
    #[inline]
    pub fn place(&mut self, page: Vpn) -> Option<Slot<'a>> {
        let Leaf { node, meta, shared, .. } = self.leaf_of(page)?;
        Some(Slot { word: self.frames.phys.word(node, index(page, 0)), node: meta, shared })
    }

    #[inline]
    pub(super) fn leaf_of(&mut self, page: Vpn) -> Option<Leaf<'a>> {
        self.expect(PageRange::new(page, page.add(1)));
        if self.leaf.is_some_and(|leaf| leaf.at == page.0 >> 9) {
            return self.leaf;
        }
        self.leave();
        self.walk(page)?;
        self.leaf
    }

    /// The entry's place, with nodes made as needed.
    #[inline]
    pub fn make(&mut self, page: Vpn) -> Result<Slot<'a>, NoFrames> {
        if let Some(slot) = self.find(page) {
            return Ok(slot);
        }
        self.grow(page, 0)?;
        self.find(page).ok_or(NoFrames)
    }

    /// What the entry says; absent where no node leads there.
    #[inline]
    pub fn get(&mut self, page: Vpn) -> Entry {
        self.place(page).or_else(|| self.peek(page)).map_or(Entry::Absent, |slot| slot.get())
    }

    #[inline]
    pub(super) fn slot(&self, leaf: Pfn, page: Vpn, shared: bool) -> Slot<'a> {
        Slot { word: self.frames.phys.word(leaf, index(page, 0)), node: self.frames.meta(leaf), shared }
    }

    #[inline(never)]
    fn walk(&mut self, page: Vpn) -> Option<()> {
        let mut node = self.root;
        for level in (2..=TOP).rev() {
            node = entry::linked(self.frames.phys.word(node, index(page, level)).load(Acquire))?;
        }
        let word = self.frames.phys.word(node, index(page, 1));
        let bits = word.load(Acquire);
        let leaf = entry::linked(bits)?;
        let meta = self.frames.meta(leaf);
        let shared = self.enter(word, bits, leaf, meta);
        self.leaf = Some(Leaf { at: page.0 >> 9, node: leaf, meta, shared });
        Some(())
    }

    /// Come to a leaf by this link, and take its lock, unless nobody else can be there. Whether others link to it too.
    #[inline(always)]
    fn enter(&self, link: &AtomicU64, bits: u64, leaf: Pfn, meta: &FrameMeta) -> bool {
        if !self.is_alone() {
            mutant!(LeafNotLocked, (), meta.lock_leaf());
        }
        entry::is_guarded(bits) && self.enter_guarded(link, leaf)
    }

    /// Let go of a leaf.
    #[inline(always)]
    fn exit(&self, meta: &FrameMeta, shared: bool) {
        if shared || !self.is_alone() {
            meta.unlock_leaf();
        }
    }

    /// Forget the leaf that the cursor is at.
    #[inline]
    pub(super) fn leave(&mut self) {
        if let Some(Leaf { meta, shared, .. }) = self.leaf.take() {
            self.exit(meta, shared);
        }
    }

    /// Make the nodes that lead to `page`, down to the one of `level`.
    #[cold]
    pub(super) fn grow(&mut self, page: Vpn, level: u32) -> Result<Pfn, NoFrames> {
        let mut node = self.root;
        for level in (level + 1..=TOP).rev() {
            let word = self.frames.phys.word(node, index(page, level));
            node = match entry::linked(word.load(Acquire)) {
                Some(next) => next,
                None => self.link_new(node, word)?,
            };
        }
        Ok(node)
    }

    /// Link to a new node, at this word of the one above; to another's, if that one was faster.
    fn link_new(&self, above: Pfn, word: &AtomicU64) -> Result<Pfn, NoFrames> {
        let new = new_node(self.frames, self.cpu, self.tables.account)?;
        match word.compare_exchange(0, entry::link(new), AcqRel, Acquire) {
            Ok(_) => {
                self.frames.meta(above).add_index();
                Ok(new)
            }
            Err(bits) => {
                free_node(self.frames, self.cpu, new);
                // Nothing but a link comes to where nothing was while the shape is read.
                entry::linked(bits).ok_or(NoFrames)
            }
        }
    }

    /// Visit each entry of `range` that is not absent, in order of address.
    pub fn each(&mut self, range: PageRange, f: &mut impl FnMut(Vpn, &Slot<'_>)) {
        self.expect(range);
        self.open(range);
        if is_in_one_leaf(range) {
            if let Some(leaf) = self.leaf_of(range.start) {
                self.visit_leaf(leaf.node, range, f, leaf.shared);
            }
            return;
        }
        self.look(range, f);
    }

    /// As [`Cursor::each`], to look only: nothing may be changed, and what is whole stays so.
    pub fn look(&mut self, range: PageRange, f: &mut impl FnMut(Vpn, &Slot<'_>)) {
        self.leave();
        self.visit(self.root, TOP, range, &mut Looking(f));
    }

    /// Visit each entry of `range` that is absent; all of it is in the leaf of the entry that was found last.
    #[inline]
    pub fn each_absent(&self, range: PageRange, f: &mut impl FnMut(Vpn, &Slot<'_>)) {
        let Some(Leaf { at, node, shared, .. }) = self.leaf else { return };
        debug_assert!(is_in_one_leaf(range) && range.start.0 >> 9 == at);
        let words = &self.frames.phys.words(node)[index(range.start, 0)..][..range.len() as usize];
        let node = self.frames.meta(node);
        for (page, word) in range.iter().zip(words) {
            if word.load(Acquire) == 0 {
                f(page, &Slot { word, node, shared });
            }
        }
    }

    /// As [`Cursor::each`], and afterwards, who is alone unlinks the nodes that have become empty. A leaf that is shared or whole and
    /// lies in the range is unlinked as it is, and its entries are not visited; of a shared one that lies in it in part, nothing
    /// may be used there.
    pub fn clear(&mut self, range: PageRange, visitor: &mut impl Visitor) {
        self.expect(range);
        if self.open_edges(range) && is_in_one_leaf(range) {
            let leaf = self.leaf_of(range.start);
            if let Some(leaf) = leaf.filter(|leaf| !leaf.shared) {
                self.visit_leaf(leaf.node, range, &mut |page, slot| visitor.entry(page, slot), false);
                if self.frames.meta(leaf.node).index() > 0 {
                    return;
                }
            }
            if leaf.is_none_or(|leaf| !leaf.shared) {
                self.leave();
                if self.is_alone() {
                    self.prune(range.start, visitor);
                }
                return;
            }
        }
        self.leave();
        self.visit(self.root, TOP, range, visitor);
    }

    /// Unlink what has become empty on the way to `page`, from below.
    fn prune(&self, page: Vpn, visitor: &mut impl Visitor) {
        let mut way: ArrayVec<(&AtomicU64, Pfn, Pfn), { TOP as usize }> = ArrayVec::new();
        let mut node = self.root;
        for level in (1..=TOP).rev() {
            let word = self.frames.phys.word(node, index(page, level));
            let Some(child) = entry::linked(word.load(Relaxed)) else { break };
            way.push((word, node, child));
            node = child;
        }
        for (word, node, child) in way.into_iter().rev() {
            if self.frames.meta(child).index() > 0 {
                return;
            }
            self.unlink(node, word, child, visitor);
        }
    }

    /// Whether the tables have no node below the root.
    pub fn is_empty(&self) -> bool {
        self.frames.meta(self.root).index() == 0
    }

    /// The first page of `range` whose entry is not absent.
    pub fn next_used(&self, range: PageRange) -> Option<Vpn> {
        debug_assert!(
            range.is_empty()
                || self.is_alone()
                || self.leaf.is_some_and(|leaf| leaf.at == range.start.0 >> 9)
        );
        self.seek(self.root, TOP, range, &|_, level| level == 0)
    }

    /// The first page of `range` that has a leaf with entries.
    pub fn next_leaf(&self, range: PageRange) -> Option<Vpn> {
        self.seek(self.root, TOP, range, &|child, level| level == 1 && self.frames.meta(child).index() > 0)
    }

    /// The first page of `range` whose way ends at an entry that `found` likes: it gets the node that the entry links to,
    /// and the level of the node that the entry is in.
    fn seek(&self, node: Pfn, level: u32, range: PageRange, found: &dyn Fn(Pfn, u32) -> bool) -> Option<Vpn> {
        let mut page = range.start;
        while page < range.end {
            page = self.skip(node, level, page, range.end)?;
            if level == 0 {
                return found(node, 0).then_some(page);
            }
            let end = end_of(page, level).min(range.end);
            let bits = self.frames.phys.word(node, index(page, level)).load(Acquire);
            if let Some(child) = self.child(bits) {
                if found(child, level) {
                    return Some(page);
                }
                let below = self.seek(child, level - 1, PageRange::new(page, end), found);
                if below.is_some() {
                    return below;
                }
            }
            page = end;
        }
        None
    }

    /// The first page from `page` on, below `end`, whose word in the node is not zero.
    #[inline]
    pub(super) fn skip(&self, node: Pfn, level: u32, page: Vpn, end: Vpn) -> Option<Vpn> {
        let (first, last) = (index(page, level), index(Vpn(end.0 - 1), level));
        let words = &self.frames.phys.words(node)[first..=last];
        let skipped = next_used(words, 0)?.0 as u64;
        if skipped == 0 {
            return Some(page);
        }
        let page = Vpn(((page.0 >> (9 * level)) + skipped) << (9 * level));
        (page < end).then_some(page)
    }

    fn visit<V: Visitor>(&self, node: Pfn, level: u32, range: PageRange, visitor: &mut V) {
        let mut page = range.start;
        while page < range.end {
            let Some(used) = self.skip(node, level, page, range.end) else { return };
            let whole = index(used, level - 1) == 0 && end_of(used, level) <= range.end;
            let end = end_of(used, level).min(range.end);
            page = end;
            let word = self.frames.phys.word(node, index(used, level));
            let bits = word.load(Acquire);
            let Some(child) = self.child(bits) else { continue };
            if V::CLEARS && level == 1 && self.forget_whole(word) {
                self.unlink(node, word, child, visitor);
                continue;
            }
            let below = self.frames.meta(child);
            let shared = level == 1 && self.enter(word, bits, child, below);
            let part = PageRange::new(used, end);
            match (level, V::CLEARS && shared) {
                (1, false) => {
                    self.visit_leaf(child, part, &mut |page, slot| visitor.entry(page, slot), shared)
                }
                // It stays to the others as it is.
                (1, true) => debug_assert!(whole || self.skip(child, 0, used, end).is_none()),
                _ => self.visit(child, level - 1, part, visitor),
            }
            if level == 1 {
                self.exit(below, shared);
            }
            if V::CLEARS
                && self.is_alone()
                && if shared { whole } else { self.frames.meta(child).index() == 0 }
            {
                self.unlink(node, word, child, visitor);
            }
        }
    }

    /// Take away the link at this word of a node. Nobody else is in these tables.
    fn unlink(&self, node: Pfn, word: &AtomicU64, child: Pfn, visitor: &mut impl Visitor) {
        debug_assert!(self.is_alone());
        word.store(0, Release);
        let meta = self.frames.meta(node);
        meta.set_index(meta.index() - 1);
        visitor.unlinked(child);
    }

    /// Unlink the nodes that are empty; of the leaves those that nothing is used in.
    pub fn tidy(&mut self, visitor: &mut impl Visitor) {
        self.alone();
        self.leave();
        self.tidy_below(self.root, TOP, PageRange::new(Vpn(0), USER_END), visitor);
    }

    fn tidy_below(&self, node: Pfn, level: u32, range: PageRange, visitor: &mut impl Visitor) {
        let mut page = range.start;
        while page < range.end {
            let Some(used) = self.skip(node, level, page, range.end) else { return };
            page = end_of(used, level).min(range.end);
            let word = self.frames.phys.word(node, index(used, level));
            let Some(child) = entry::linked(word.load(Acquire)) else { continue };
            if level > 1 {
                self.tidy_below(child, level - 1, PageRange::new(used, page), visitor);
            }
            if self.frames.meta(child).index() == 0 {
                self.unlink(node, word, child, visitor);
            }
        }
    }

    #[inline]
    pub(super) fn visit_leaf(
        &self,
        leaf: Pfn,
        range: PageRange,
        f: &mut impl FnMut(Vpn, &Slot<'_>),
        shared: bool,
    ) {
        let (words, node) = (self.frames.phys.words(leaf), self.frames.meta(leaf));
        let words = &words[index(range.start, 0)..][..range.len() as usize];
        // Entries left to meet, here or outside the range.
        let (mut at, mut left) = (0, node.index());
        while left > 0 {
            let Some((used, word)) = next_used(words, at) else { return };
            f(range.start.add(used as u64), &Slot { word, node, shared });
            (at, left) = (used + 1, left - 1);
        }
    }
}

impl Drop for Cursor<'_> {
    #[inline]
    fn drop(&mut self) {
        self.leave();
    }
}

/// The first word from number `at` on that is not zero, with its number. A stretch that is not in use costs an instruction a
/// word.
#[inline]
fn next_used(words: &[AtomicU64], mut at: usize) -> Option<(usize, &AtomicU64)> {
    const BLOCK: usize = 16;
    let unused = |block: &[AtomicU64; BLOCK]| block.iter().fold(0, |all, word| all | word.load(Relaxed)) == 0;
    loop {
        let word = words.get(at)?;
        if word.load(Acquire) != 0 {
            return Some((at, word));
        }
        at += 1;
        while at.is_multiple_of(BLOCK) && words[at..].first_chunk().is_some_and(unused) {
            at += BLOCK;
        }
    }
}

#[inline]
pub(crate) fn is_in_one_leaf(range: PageRange) -> bool {
    !range.is_empty() && range.start.0 >> 9 == (range.end.0 - 1) >> 9
}

/// The first page after the one entry of `level` that `page` is in.
#[inline]
pub(super) fn end_of(page: Vpn, level: u32) -> Vpn {
    Vpn(((page.0 >> (9 * level)) + 1) << (9 * level))
}

/// The index into a node of `level` (0 = leaf).
#[inline]
pub(super) fn index(page: Vpn, level: u32) -> usize {
    (page.0 >> (9 * level)) as usize & 511
}
