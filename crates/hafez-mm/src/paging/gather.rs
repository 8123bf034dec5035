//! Taking translations back: collect, flush once, and only then let go of the frames.
//!
//! After an entry is cleared a CPU may still hold its translation, and write through it. So what was unmapped is
//! gathered here; [`Gather::flush`] tells every CPU that may use the space, and hands the frames on together with a
//! [`Flushed`], the proof without which nothing can be dropped, freed or written out (invariant I5). A range of any
//! size costs one flush, or one for each 64 frames where frames are let go.
//!
//! Reclaim clears entries too, and flushes at the end of its batch ([`Sweep`]). Who comes to such an entry in between finds nothing to
//! take back, and yet a translation may be there: to a page that he says is unmapped, or not to be written any more. So a
//! sweep notes in each space that it is behind there ([`Unflushed`]), and the next gather of that space flushes all of it.

use super::cursor::{Tables, free_node};
use super::views::Leaving;
use crate::addr::{PageRange, Pfn, Vpn};
use crate::frame::Frames;
use crate::mutant::mutant;
use crate::{CpuSet, SpaceId};
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicU64, Ordering::*, fence};

/// Proof that no CPU holds a translation to what was gathered. Only this module makes one.
pub struct Flushed(());

#[cfg(feature = "mutants")]
impl Flushed {
    /// A false proof, for a mutant.
    pub(crate) fn forged() -> Self {
        Flushed(())
    }
}

/// Which translations to forget.
pub struct Flush<'a> {
    pub space: SpaceId,
    /// The space's page-table root.
    pub root: Pfn,
    pub pages: FlushPages<'a>,
    /// The CPUs that may hold translations of the space.
    pub cpus: CpuSet,
    /// The others of them are to give up their ways there.
    pub leaving: Option<&'a Leaving<'a>>,
}

/// Single pages, or the whole space where that is cheaper.
pub enum FlushPages<'a> {
    All,
    List(&'a [Vpn]),
}

/// What a gather needs from those above it.
pub trait Shootdown {
    /// Returns when no CPU of the set holds a stale translation.
    fn flush(&self, flush: &Flush<'_>);
    /// Of each of these frames, an entry that named it is gone for good.
    fn unmapped(&self, frames: &[Pfn], proof: &Flushed);
    /// The last link to a leaf is gone, or a huge page is, and entries are left in it: what they name has one user fewer each.
    fn abandoned(&self, leaf: Pfn, proof: &Flushed);
}

/// How often a sweep has taken an entry of a space, and how many of these times are known to be flushed.
#[derive(Default)]
pub struct Unflushed {
    taken: AtomicU64,
    flushed: AtomicU64,
}

impl Unflushed {
    /// An entry was taken; the cursor on it is still there.
    fn note(&self) {
        self.taken.fetch_add(1, AcqRel);
    }
    #[inline(always)]
    fn is_any(&self) -> bool {
        let behind = self.taken.load(Acquire) != self.flushed.load(Acquire);
        mutant!(SweepNotAwaited, false, behind)
    }
}

/// Have every CPU forget all that it may have of a space, whose entries have been changed already.
pub(super) fn forget_all(above: &dyn Shootdown, tables: &Tables) -> Flushed {
    fence(SeqCst);
    let cpus = CpuSet(tables.cpus.load(Acquire));
    if cpus.0 != 0 {
        above.flush(&Flush {
            space: tables.space(),
            root: tables.root(),
            pages: FlushPages::All,
            cpus,
            leaving: None,
        });
    }
    Flushed(())
}

/// Beyond this, forgetting everything is cheaper than one by one (an `invlpg` costs about as much as the walk it causes).
const SINGLE: usize = 32;

/// Translations taken back and frames to let go, not flushed yet.
pub struct Gather<'a, S: Shootdown + ?Sized> {
    above: &'a S,
    frames: &'a Frames,
    cpu: usize,
    tables: &'a Tables,
    /// Where it all is.
    range: PageRange,
    pages: ArrayVec<Vpn, SINGLE>,
    all: bool,
    dropped: ArrayVec<Pfn, 64>,
    nodes: ArrayVec<Pfn, 16>,
}

impl<'a, S: Shootdown + ?Sized> Gather<'a, S> {
    /// For pages of this range, of the space with these tables.
    pub fn new(above: &'a S, frames: &'a Frames, cpu: usize, tables: &'a Tables, range: PageRange) -> Self {
        Gather {
            above,
            frames,
            cpu,
            tables,
            range,
            pages: ArrayVec::new(),
            all: false,
            dropped: ArrayVec::new(),
            nodes: ArrayVec::new(),
        }
    }

    /// A translation of this page may be held somewhere.
    #[inline]
    pub fn page(&mut self, page: Vpn) {
        if !self.all && self.pages.try_push(page).is_err() {
            self.all = true;
        }
    }

    /// The page's entry is gone, and this frame has an entry fewer.
    #[inline]
    pub fn drop_frame(&mut self, page: Vpn, frame: Pfn) {
        if self.dropped.try_push(frame).is_err() {
            self.flush_all();
            self.dropped.push(frame);
        }
        self.page(page);
    }

    /// Any translation of the range may be held somewhere.
    pub fn all_pages(&mut self) {
        self.all = true;
    }

    /// A node of the tables was unlinked; perhaps a leaf that others share.
    pub fn drop_node(&mut self, node: Pfn) {
        if self.nodes.is_full() {
            self.flush();
        }
        // A translation of any page below may have cached the way through this node.
        self.all = true;
        self.nodes.push(node);
    }

    /// A leaf of others' is no longer this space's; all of its pages are to be flushed.
    pub fn leave_leaf(&mut self, leaf: Pfn) {
        self.nodes.push(leaf);
    }

    /// Flush what was gathered, then let go of it. The gather can be used on.
    #[inline]
    pub fn flush(&mut self) {
        if !self.is_empty() || self.tables.unflushed.is_any() {
            self.flush_all();
        }
    }

    #[inline(never)]
    fn flush_all(&mut self) {
        mutant!(FreeBeforeFlush, self.let_go(), ());
        let (tables, unflushed) = (self.tables, &self.tables.unflushed);
        let taken = unflushed.taken.load(Acquire);
        let behind = unflushed.is_any();
        self.all |= behind;
        if self.all || !self.pages.is_empty() {
            // The entries are gone before the set is looked at: a CPU that enters it later sees them gone.
            fence(SeqCst);
            let mut cpus = CpuSet(tables.cpus.load(Acquire));
            let mut leaving = None;
            if let Some(views) = tables.views.get()
                && !behind
            {
                cpus.0 &= views.seen_in(self.range);
                leaving = views.leaving(self.frames, self.cpu, cpus, self.range);
            }
            if cpus.0 != 0 {
                let pages = if self.all { FlushPages::All } else { FlushPages::List(&self.pages) };
                let (space, root, leaving) = (tables.space(), tables.root(), leaving.as_ref());
                self.above.flush(&Flush { space, root, pages, cpus, leaving });
            }
            if behind {
                unflushed.flushed.fetch_max(taken, AcqRel);
            }
        }
        self.let_go();
        self.pages.clear();
        self.all = false;
    }

    fn let_go(&mut self) {
        let proof = Flushed(());
        if !self.dropped.is_empty() {
            self.above.unmapped(&self.dropped, &proof);
            self.dropped.clear();
        }
        for node in self.nodes.drain(..) {
            let meta = self.frames.meta(node);
            let left = mutant!(LeafFreedInUse, 0, meta.drop_map().maps());
            if left > 0 {
                continue;
            }
            if meta.index() > 0 {
                self.above.abandoned(node, &proof);
            }
            free_node(self.frames, self.cpu, node);
        }
    }

    fn is_empty(&self) -> bool {
        // What is dropped has a page here, too.
        !self.all && self.pages.is_empty() && self.nodes.is_empty()
    }
}

/// Whoever stops half-way must flush all the same.
impl<S: Shootdown + ?Sized> Drop for Gather<'_, S> {
    #[inline]
    fn drop(&mut self) {
        self.flush();
    }
}

/// Translations taken back by reclaim, which goes from frame to frame and so from space to space. It keeps its frames
/// itself (they are isolated), so there is nothing to hand on: only the flush, one for each run of pages of one space.
pub struct Sweep<'a, S: Shootdown + ?Sized> {
    above: &'a S,
    current: Option<(SpaceId, Pfn)>,
    cpus: u64,
    pages: ArrayVec<Vpn, SINGLE>,
    all: bool,
}

impl<'a, S: Shootdown + ?Sized> Sweep<'a, S> {
    pub fn new(above: &'a S) -> Self {
        Sweep { above, current: None, cpus: 0, pages: ArrayVec::new(), all: false }
    }

    /// This page's entry was taken just now, or may have been by way of another space: it does not allow any more what it did.
    pub fn taken(&mut self, tables: &Tables, page: Vpn) {
        tables.unflushed.note();
        self.page(tables, page);
    }

    /// The entry of this page has just been changed.
    pub fn page(&mut self, tables: &Tables, page: Vpn) {
        if self.current != Some((tables.space(), tables.root())) {
            self.flush();
            self.current = Some((tables.space(), tables.root()));
        }
        fence(SeqCst);
        self.cpus |= tables.cpus.load(Acquire);
        if !self.all && self.pages.try_push(page).is_err() {
            self.all = true;
        }
    }

    fn flush(&mut self) {
        if let Some((space, root)) = self.current.take()
            && self.cpus != 0
        {
            let pages = if self.all { FlushPages::All } else { FlushPages::List(&self.pages) };
            self.above.flush(&Flush { space, root, pages, cpus: CpuSet(self.cpus), leaving: None });
        }
        self.pages.clear();
        (self.cpus, self.all) = (0, false);
    }

    /// Flush what is left, and end with the proof.
    pub fn finish(mut self) -> Flushed {
        self.flush();
        Flushed(())
    }
}

impl<S: Shootdown + ?Sized> Drop for Sweep<'_, S> {
    fn drop(&mut self) {
        self.flush();
    }
}
