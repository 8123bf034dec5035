//! Views: which CPUs may hold a translation of what.
//!
//! A CPU can only hold translations of what it reaches from the root that it has loaded. While all CPUs load the same root each may
//! hold any, and to take one back is to ask all that run the space. So once a space has threads to run side by side, each CPU gets
//! nodes of the top two levels of its own, its *view*. There it links to the nodes below, which all share, only when it faults on
//! something there:
//!
//! ```text
//!   the space's root --- node --+-- node A (512 leaves: 1 GiB) -- ...       seen by CPU 0
//!                               +-- node B                     -- ...       seen by CPU 0 and CPU 1
//!   view of CPU 0 ------ node --+-- A, B
//!   view of CPU 1 ------ node --+-- B
//! ```
//!
//! Who takes back a translation asks the CPUs that have *seen* the GiB around it, and leaves the others in peace. With a section for
//! each thread ([`crate::space::sections`]) that is the ordinary case.
//!
//! Cursors walk from the space's root only, and know nothing of views. A fault that finds all as it should be, and yet no way there
//! by the view, gets the link ([`Cursor::reach`]): one fault more for each GiB that a CPU uses. It says that it has seen the GiB before it
//! links, so whoever clears an entry after the link is there finds its name. Who unlinks such a node takes it out of all views
//! ([`Cursor::cut_off`]), and flushes as ever.
//!
//! What a CPU has seen is noted by GiB, for several of them together where there are many. A name too many costs a question, one too few
//! would be a stale translation. A CPU that has no view goes by the space's root, and counts as having seen everything.
//!
//! A thread that is moved to another CPU leaves its name behind. So whoever has asked others often enough bids them *leave* ([`Leaving`]):
//! each gives up its way there, forgets the space, and then its name is gone. Who still wants to be there has one fault more.

use super::cursor::{Cursor, KernelHalf, TOP, Tables, begin_node, free_node, index, new_node};
use super::entry;
use crate::addr::{PageRange, Pfn, Vpn};
use crate::frame::{Frames, NoFrames, Priority};
use crate::mutant::mutant;
use crate::{CpuSet, MAX_CPUS};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering::*};

/// The level of the nodes whose entries link to what views share.
pub(super) const SHARED: u32 = 2;
/// Pages below one such entry: 1 GiB.
const SPAN: u32 = 9 * SHARED;
/// GiB that are told apart; their numbers are taken modulo this.
const PLACES: usize = 256;
/// A range of more is all of the space.
const WIDE: u64 = 8;

/// A space's views.
pub(super) struct Views {
    /// By CPU: its root, or 0.
    roots: [AtomicU32; MAX_CPUS],
    /// A bit for each CPU that may hold translations it found by the space's own root.
    common: AtomicU16,
    /// By GiB: a bit for each CPU that has linked to it.
    seen: [AtomicU16; PLACES],
    /// By CPU: how often it has asked others.
    asked: [Asked; MAX_CPUS],
}

#[derive(Default)]
#[repr(align(64))]
struct Asked(AtomicU32);

/// So often others are asked before they are bidden to leave.
const PATIENCE: u32 = 8;

const _: () = assert!(MAX_CPUS <= 16);

impl Views {
    fn new() -> Self {
        Views {
            roots: [const { AtomicU32::new(0) }; MAX_CPUS],
            common: AtomicU16::new(u16::MAX),
            seen: [const { AtomicU16::new(0) }; PLACES],
            asked: Default::default(),
        }
    }

    fn seen(&self, gib: u64) -> &AtomicU16 {
        &self.seen[gib as usize % PLACES]
    }

    /// CPUs that may hold translations of pages of the range.
    pub fn seen_in(&self, range: PageRange) -> u64 {
        let (first, last) = (range.start.0 >> SPAN, range.end.0.saturating_sub(1) >> SPAN);
        if last.wrapping_sub(first) >= WIDE {
            return u64::MAX;
        }
        let seen = (first..=last).fold(0, |seen, gib| seen | self.seen(gib).load(SeqCst));
        (seen | self.common.load(SeqCst)) as u64
    }

    /// Whether the CPU, which is about to ask these, should bid them leave.
    pub fn leaving<'a>(
        &'a self,
        frames: &'a Frames,
        cpu: usize,
        asked: CpuSet,
        range: PageRange,
    ) -> Option<Leaving<'a>> {
        if asked.0 & !(1 << cpu) == 0 || range.len() > WIDE << SPAN {
            return None;
        }
        let count = &self.asked[cpu % MAX_CPUS].0;
        count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
        count.load(Relaxed).is_multiple_of(PATIENCE).then_some(Leaving { views: self, frames, range })
    }

    /// This CPU's root, if it has one.
    #[inline]
    fn own(&self, cpu: usize) -> Option<Pfn> {
        Some(Pfn(self.roots[cpu % MAX_CPUS].load(Acquire))).filter(|root| root.0 != 0)
    }
}

/// Some GiB that CPUs are to give up their ways to.
pub struct Leaving<'a> {
    views: &'a Views,
    frames: &'a Frames,
    range: PageRange,
}

impl Leaving<'_> {
    fn places(&self) -> impl Iterator<Item = u64> {
        (self.range.start.0 >> SPAN)..=(self.range.end.0.saturating_sub(1) >> SPAN)
    }

    /// What the CPU does first: no way leads there any more, nor to what is noted together with it.
    pub fn cut(&self, cpu: usize) {
        let Some(own) = self.views.own(cpu) else { return };
        for middle in
            self.frames.phys.words(own)[..512 / 2].iter().filter_map(|w| entry::linked(w.load(Relaxed)))
        {
            for gib in self.places() {
                let links = self.frames.phys.words(middle).iter();
                links.skip(gib as usize % PLACES).step_by(PLACES).for_each(|link| link.store(0, SeqCst));
            }
        }
    }

    /// And last, when it has forgotten all that it had found of the space.
    pub fn done(&self, cpu: usize) {
        for gib in self.places() {
            self.views.seen(gib).fetch_and(!(1 << cpu), SeqCst);
        }
    }
}

impl Tables {
    pub fn is_parted(&self) -> bool {
        self.views.is_completed()
    }

    /// From now on each of so many CPUs has a view, as far as there are frames. The caller flushes the space, so that CPUs come to load it
    /// anew ([`Tables::take_way`]).
    pub fn part(&self, frames: &Frames, cpu: usize, cpus: usize, kernel: &KernelHalf) {
        let views = Box::new(Views::new());
        for own in &views.roots[..cpus.min(MAX_CPUS)] {
            // Views are for speed: not from the last frames.
            let Ok(root) = frames.alloc(cpu, Priority::Ahead) else { break };
            frames.phys.zero(root);
            let root = begin_node(frames, root, self.account());
            kernel.copy_to(frames, root);
            own.store(root.0, Relaxed);
        }
        let mut views = Some(views);
        self.views.call_once(|| views.take().unwrap_or_else(|| Box::new(Views::new())));
        // Another was faster.
        if let Some(views) = views {
            free_roots(&views, frames, cpu);
        }
    }

    /// The root that the CPU is to load, which holds no translation of the space, and does not find any by another root from now on.
    pub fn take_way(&self, cpu: usize) -> Pfn {
        let Some(views) = self.views.get() else { return self.root() };
        let Some(own) = views.own(cpu) else { return self.root() };
        views.common.fetch_and(!(1 << cpu), SeqCst);
        own
    }

    /// Give back all views: no CPU uses them, and what they shared is gone.
    pub(super) fn destroy_views(&self, frames: &Frames, cpu: usize) {
        if let Some(views) = self.views.get() {
            free_roots(views, frames, cpu);
        }
    }
}

fn free_roots(views: &Views, frames: &Frames, cpu: usize) {
    for own in &views.roots {
        let root = Pfn(own.swap(0, AcqRel));
        if root.0 == 0 {
            continue;
        }
        for word in &frames.phys.words(root)[..512 / 2] {
            if let Some(middle) = entry::linked(word.load(Relaxed)) {
                free_used(frames, cpu, middle);
            }
        }
        // The kernel's half is still there.
        free_used(frames, cpu, root);
    }
}

/// Free a node that is not known to be empty.
fn free_used(frames: &Frames, cpu: usize, node: Pfn) {
    frames.meta(node).set_index(1);
    free_node(frames, cpu, node);
}

impl Cursor<'_> {
    /// See that this CPU reaches the page's tables by its view, if it has one.
    #[cold]
    pub fn reach(&mut self, page: Vpn) -> Result<(), NoFrames> {
        let Some(views) = self.tables.views.get() else { return Ok(()) };
        let (Some(own), Some(link)) = (views.own(self.cpu), self.shared_link(page)) else { return Ok(()) };
        let above = self.frames.phys.word(own, index(page, TOP));
        let middle = match entry::linked(above.load(Relaxed)) {
            Some(middle) => middle,
            None => {
                let new = new_node(self.frames, self.cpu, self.tables.account())?;
                above.store(entry::link(new), Release);
                new
            }
        };
        mutant!(ReachesUnseen, 0, views.seen(page.0 >> SPAN).fetch_or(1 << self.cpu, SeqCst));
        self.frames.phys.word(middle, index(page, SHARED)).store(link, SeqCst);
        Ok(())
    }

    /// The space's own entry above the page's GiB, if it links to a node.
    fn shared_link(&self, page: Vpn) -> Option<u64> {
        let middle = entry::linked(self.frames.phys.word(self.root, index(page, TOP)).load(Acquire))?;
        let bits = self.frames.phys.word(middle, index(page, SHARED)).load(Acquire);
        entry::linked(bits).map(|_| bits)
    }

    /// The node of the page's GiB is being unlinked: no view leads there any more.
    #[cold]
    pub(super) fn cut_off(&self, page: Vpn) {
        debug_assert!(self.is_alone());
        let Some(views) = self.tables.views.get() else { return };
        for own in (0..MAX_CPUS).filter_map(|cpu| views.own(cpu)) {
            if let Some(middle) = entry::linked(self.frames.phys.word(own, index(page, TOP)).load(Acquire)) {
                self.frames.phys.word(middle, index(page, SHARED)).store(0, Release);
            }
        }
    }
}
