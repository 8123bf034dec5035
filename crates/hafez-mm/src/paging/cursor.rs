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
//! through it before is void then. And the leaf that a CPU came to last is still the one for its pages if nobody has been alone since: it
//! notes it ([`Reading::remember`]), and most faults need not walk down from the root.
//!
//! A leaf that has become empty stays where it is until somebody who is alone comes by: the next call on a range around it, or
//! reclaim, when frames are short.
//!
//! A leaf may be shared: since a fork several spaces link to it ([`super::share`]). Who walks into one holds its lock,
//! alone or not, until he leaves it, and does not fill or replace its entries: a fault first makes a leaf of the space's own.
//! Only what takes a page from all who map it changes a shared leaf where it is ([`Slot::take`]).
//!
//! What a cursor does with a range is told apart: [`super::look`] and [`super::clear`].
//!
//! A leaf may be *whole*: the processor does not look into it, as the upper entry says what all its entries say
//! ([`super::huge`]). What could change one of them opens it first.

use super::entry::{self, Entry};
use super::gather::{Shootdown, Unflushed};
use super::slot::Slot;
use super::views::Views;
use crate::SpaceId;
use crate::account::{AccountId, Charge};
use crate::addr::{PageRange, Pfn, Vpn};
use crate::frame::meta::{FrameMeta, State, Word};
use crate::frame::{Frames, NoFrames};
use crate::lock::{BigReaderLock, Once, Readers, Reading, WriteGuard, rank};
use crate::mutant::mutant;
use crate::phys::PhysMap;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
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
    /// Of what reclaim has taken.
    pub(super) unflushed: Unflushed,
    /// CPUs' own ways to what they use.
    pub(super) views: Once<Box<Views>>,
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

    pub(super) fn copy_to(&self, frames: &Frames, root: Pfn) {
        for &(at, bits) in &self.0 {
            frames.phys.word(root, at).store(bits, Relaxed);
        }
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
        kernel.copy_to(frames, root);
        Ok(Tables {
            shape: BigReaderLock::new(readers, ()),
            root_frame: root,
            top: AtomicU32::new(root.0),
            account,
            space: SpaceId(0),
            cpus: AtomicU64::new(0),
            unflushed: Unflushed::default(),
            views: Once::new(),
            forked: AtomicBool::new(false),
            whole: AtomicU32::new(0),
        })
    }

    /// The same, as those of this space.
    pub fn of(self, space: SpaceId) -> Tables {
        Tables { space, ..self }
    }

    #[inline]
    pub(super) fn space(&self) -> SpaceId {
        self.space
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
        self.cursor(above, frames, cpu, range, Shape::Read(self.shape.keep(cpu)))
    }

    /// Lock `range`, and the shape of the tables.
    #[cfg_attr(feature = "contention", track_caller)]
    pub fn cursor_alone<'a>(
        &'a self,
        above: &'a dyn Shootdown,
        frames: &'a Frames,
        cpu: usize,
        range: PageRange,
    ) -> Cursor<'a> {
        self.cursor(above, frames, cpu, range, Shape::Alone(self.shape.write_alone()))
    }

    #[inline(always)]
    fn cursor<'a>(
        &'a self,
        above: &'a dyn Shootdown,
        frames: &'a Frames,
        cpu: usize,
        #[cfg_attr(not(debug_assertions), expect(unused_variables))] range: PageRange,
        shape: Shape<'a>,
    ) -> Cursor<'a> {
        Cursor {
            // What is held of the shape keeps this true.
            root: self.top(),
            shape,
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
        let alone = self.shape.write_alone();
        let root = Pfn(self.top.swap(frames.zero.0, Relaxed));
        drop(alone);
        self.destroy_views(frames, cpu);
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
    let meta = frames.meta(node);
    meta.begin(Word::new(State::Table, account, 1), 0, 0);
    meta.set_blocks(0, 0);
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
    shape: Shape<'a>,
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

/// What a cursor holds of the tables' shape.
enum Shape<'a> {
    Read(Reading<'a, { rank::SHAPE }>),
    Alone(#[expect(dead_code, reason = "held until it is dropped")] WriteGuard<'a, (), { rank::SHAPE }>),
    /// For a moment, on the way from one to the other.
    Free,
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
    /// Whether this cursor holds its lock.
    pub locked: bool,
}

impl<'a> Cursor<'a> {
    /// Only what lies in its range may be asked of a cursor.
    #[inline(always)]
    pub(super) fn expect(&self, part: PageRange) {
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
        matches!(self.shape, Shape::Alone(_))
    }

    /// From here on nobody else has a cursor on this space. What was seen before may have changed meanwhile.
    #[cold]
    pub fn alone(&mut self) {
        if !self.is_alone() {
            self.leave();
            self.shape = Shape::Free;
            self.shape = Shape::Alone(self.tables.shape.write_alone());
            self.root = self.tables.top();
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
    #[inline(always)]
    pub fn place(&mut self, page: Vpn) -> Option<Slot<'a>> {
        let Leaf { node, meta, shared, .. } = self.leaf_of(page)?;
        Some(Slot { word: self.frames.phys.word(node, index(page, 0)), node: meta, shared })
    }

    #[inline(always)]
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

    /// Come to the leaf that `page` is in: the one that this CPU came to last, or from the root.
    #[inline(always)]
    fn walk(&mut self, page: Vpn) -> Option<()> {
        let at = page.0 >> 9;
        if let Shape::Read(reading) = &self.shape
            && let Some(node) = reading.recall(at)
        {
            let node = Pfn(node as u32);
            let meta = self.frames.meta(node);
            lock(meta);
            self.leaf = Some(Leaf { at, node, meta, shared: false, locked: true });
            return Some(());
        }
        self.walk_down(page)
    }

    #[inline(never)]
    fn walk_down(&mut self, page: Vpn) -> Option<()> {
        let mut node = self.root;
        for level in (2..=TOP).rev() {
            node = entry::linked(self.frames.phys.word(node, index(page, level)).load(Acquire))?;
        }
        let word = self.frames.phys.word(node, index(page, 1));
        let bits = word.load(Acquire);
        let (at, node) = (page.0 >> 9, entry::linked(bits)?);
        let meta = self.frames.meta(node);
        let shared = self.enter(word, bits, node, meta);
        self.leaf = Some(Leaf { at, node, meta, shared, locked: shared || !self.is_alone() });
        // While the shape stays a link stays, and who is not shared with does not come to be.
        if let (Shape::Read(reading), false) = (&self.shape, shared) {
            reading.remember(at, node.0 as u64);
        }
        Some(())
    }

    /// Come to a leaf by this link, and take its lock, unless nobody else can be there. Whether others link to it too.
    #[inline(always)]
    pub(super) fn enter(&self, link: &AtomicU64, bits: u64, leaf: Pfn, meta: &FrameMeta) -> bool {
        if !self.is_alone() {
            lock(meta);
        }
        entry::is_guarded(bits) && self.enter_guarded(link, leaf)
    }

    /// Let go of a leaf.
    #[inline(always)]
    pub(super) fn exit(&self, meta: &FrameMeta, shared: bool) {
        if shared || !self.is_alone() {
            meta.unlock_leaf();
        }
    }

    /// Forget the leaf that the cursor is at.
    #[inline]
    pub(super) fn leave(&mut self) {
        if let Some(Leaf { meta, locked: true, .. }) = self.leaf.take() {
            meta.unlock_leaf();
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
}

impl Drop for Cursor<'_> {
    #[inline]
    fn drop(&mut self) {
        self.leave();
    }
}

/// Take a leaf's lock.
#[inline(always)]
fn lock(leaf: &FrameMeta) {
    mutant!(LeafNotLocked, (), leaf.lock_leaf());
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
