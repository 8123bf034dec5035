//! What one CPU asks of others: to forget translations, or just to pass through a barrier.
//!
//! A CPU keeps translations that it has used, and no write to a page table takes them from it. So who takes an entry back
//! must have every CPU forget it that may have it, and wait until all have. For each CPU there are three cases:
//!
//! ```text
//!   runs the space now         it is sent a request, and answers when it has forgotten (or disowned, if it runs another by then)
//!   ran it before              what its buffer keeps under a tag is disowned (`Tags::disown`): it will not be used again
//!   never ran it               it is not in the space's set of CPUs
//! ```
//!
//! # The race with a change of space
//!
//! A CPU that changes to a space says so in `loaded` first, then looks at its tag, and only then loads. Who flushes has
//! changed the entry first, then disowns the tag, then looks at `loaded`. Each step is sequentially consistent, so either the one that
//! flushes sees the space loaded and sends a request, or the other finds its tag disowned and starts with an empty buffer.
//! The same holds one level up: `activate` enters the CPU into the space's set before it loads, and a gather looks at the set after its
//! entries have changed.
//!
//! # Nobody waits for the deaf
//!
//! A CPU has one request of its own, on which it waits until all have answered; whom it asks finds its number in `posted`. The
//! kernel runs with interrupts off, so requests are also served by whoever spins on a lock
//! ([`hafez_mm::lock`]), and by who waits for answers itself. That makes it right to flush with locks held. Serving takes no lock.
//!
//! A CPU that idles, or runs a thread of the kernel's own, needs no space at all: when asked to forget something of the one that is
//! still loaded it leaves it altogether, and is not asked again.

use super::{apic, paging, percpu, trap};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::*, fence};
use hafez_mm::{Flush, FlushPages, Leaving, Pfn, SpaceId, Vpn, lock::Attentive, lock::RelaxStrategy};

/// What other CPUs may see of a CPU.
#[repr(C, align(64))]
pub struct Shared {
    /// A bit for each CPU whose request waits here to be served.
    posted: AtomicU64,
    /// The root that is loaded, or is about to be; 0 for the kernel's own.
    pub loaded: AtomicU32,
    /// Whose translations the buffer keeps.
    pub tags: paging::Tags,
    /// The number of its interrupt controller.
    pub apic: AtomicU32,
    request: Request,
}

impl Shared {
    pub const fn new() -> Self {
        Shared {
            posted: AtomicU64::new(0),
            loaded: AtomicU32::new(0),
            tags: paging::Tags::new(),
            apic: AtomicU32::new(0),
            request: Request::new(),
        }
    }
}

/// What a CPU asks of others. Written by its owner while nobody is asked.
#[repr(C, align(64))]
struct Request {
    /// A bit for each CPU that has not answered yet.
    waiting: AtomicU64,
    /// The root of the space, and its number; root 0: pages of the kernel's own half.
    root: AtomicU32,
    space: AtomicU32,
    pages: AtomicPtr<Vpn>,
    /// How many there are; [`EVERYTHING`] for all of the space.
    count: AtomicUsize,
    /// Null, or what those who are asked are to leave.
    leaving: AtomicPtr<Leaving<'static>>,
}

const EVERYTHING: usize = usize::MAX;

impl Request {
    const fn new() -> Self {
        Request {
            waiting: AtomicU64::new(0),
            root: AtomicU32::new(0),
            space: AtomicU32::new(0),
            pages: AtomicPtr::new(core::ptr::null_mut()),
            count: AtomicUsize::new(0),
            leaving: AtomicPtr::new(core::ptr::null_mut()),
        }
    }
}

/// Answer what others have asked of this CPU.
#[inline]
pub fn serve() {
    let own = &percpu::this().shared;
    if own.posted.load(Relaxed) != 0 {
        serve_posted(own);
    }
}

#[cold]
fn serve_posted(own: &Shared) {
    let mine = 1 << percpu::this().id.get();
    for asker in bits(own.posted.swap(0, AcqRel)) {
        let Some(asker) = percpu::shared(asker) else { continue };
        let request = &asker.request;
        let root = Pfn(request.root.load(Relaxed));
        let count = request.count.load(Relaxed);
        let pages = request.pages.load(Relaxed).cast_const();
        // SAFETY: the asker lends its list until this CPU has answered.
        let list = (count != EVERYTHING).then(|| unsafe { core::slice::from_raw_parts(pages, count) });
        // SAFETY: as above.
        let leaving = unsafe { request.leaving.load(Relaxed).as_ref() };
        paging::forget_here(SpaceId(request.space.load(Relaxed)), root, list, leaving);
        request.waiting.fetch_and(!mine, AcqRel);
    }
}

fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let next = set.trailing_zeros() as usize;
        set &= set.wrapping_sub(1);
        (next < 64).then_some(next)
    })
}

/// What others are asked: pages, so many of them or [`EVERYTHING`], and what to leave.
struct What<'a> {
    pages: &'a [Vpn],
    count: usize,
    leaving: Option<&'a Leaving<'a>>,
}

/// Ask the CPUs of the set, `here` among them or not, and do `meanwhile`; returns when all have answered.
fn ask(targets: u64, (id, root): (SpaceId, Pfn), what: What<'_>, meanwhile: impl FnOnce()) {
    let area = percpu::this();
    let request = &area.shared.request;
    request.root.store(root.0, Relaxed);
    request.space.store(id.0, Relaxed);
    request.pages.store(what.pages.as_ptr().cast_mut(), Relaxed);
    request.count.store(what.count, Relaxed);
    let leaving = what.leaving.map_or(core::ptr::null(), core::ptr::from_ref);
    request.leaving.store(leaving.cast_mut().cast(), Relaxed);
    request.waiting.store(targets, Release);
    for cpu in bits(targets) {
        if let Some(other) = percpu::shared(cpu) {
            other.posted.fetch_or(1 << area.id.get(), AcqRel);
            apic::send(other.apic.load(Relaxed), trap::REQUEST);
        }
    }
    meanwhile();
    while request.waiting.load(Acquire) != 0 {
        Attentive::relax();
    }
}

/// Have the CPUs in `others` (this one not among them) forget pages of a space, and do `here` meanwhile.
#[cold]
pub fn space(others: u64, flush: &Flush<'_>, here: impl FnOnce()) {
    let (id, root) = (flush.space, flush.root);
    let mut running = 0;
    fence(SeqCst);
    for cpu in bits(others) {
        let Some(other) = percpu::shared(cpu) else { continue };
        if other.loaded.load(SeqCst) != root.0 {
            other.tags.disown(id);
        }
        if other.loaded.load(SeqCst) == root.0 {
            running |= 1 << cpu;
        }
    }
    let (pages, count): (&[Vpn], _) = match flush.pages {
        FlushPages::List(list) => (list, list.len()),
        FlushPages::All => (&[], EVERYTHING),
    };
    let what = What { pages, count, leaving: flush.leaving };
    if running == 0 { here() } else { ask(running, (id, root), what, here) }
}

/// All CPUs but this.
fn others() -> u64 {
    let all = u64::MAX >> (64 - super::smp::count());
    all & !(1 << percpu::this().id.get())
}

/// Have all other CPUs forget pages of the kernel's half.
pub fn kernel(pages: &[Vpn]) {
    let others = others();
    if others != 0 {
        ask(others, (SpaceId(0), Pfn(0)), What { pages, count: pages.len(), leaving: None }, || {});
    }
}

/// When it returns, every other CPU has passed through a full barrier.
pub fn barrier() {
    kernel(&[]);
    fence(SeqCst);
}
