//! Spaces: one address space a process, and all that can happen to one.
//!
//! Two small truths, and one writer for each. *Regions say what is allowed* ([`regions`]): range, rights, backing.
//! *Entries say what is* ([`crate::paging`]): absent, present, in swap. A system call changes regions, a fault brings
//! entries in line with them, reclaim takes entries away. A region changes under the space's region lock with a
//! cursor over its range; a fault holds the region lock shared and a cursor on the page, so it never acts on a
//! permission that is being taken away.
//!
//! | file | what |
//! |---|---|
//! | `fault.rs` | the fault: from a region and an entry to a page that can be used |
//! | `swapin.rs`, `fill.rs` | the two slow ways: a page from swap, a page from a file |
//! | `map.rs`, `remap.rs`, `advise.rs`, `fork.rs` | the calls |
//! | `region.rs`, `regions.rs`, `chunks.rs` | a region, all of them, how they are found |
//! | `rearrange.rs`, `holes.rs` | how they come, go and become one; the room between them |
//! | `sections.rs` | parts of a space whose regions have a lock each, once it has threads |
//! | `huge.rs` | when 2 MiB are one page, and when they are 512 again |
//! | `share.rs` | a space's own copy of page-table leaves that a fork has left shared |
//! | `watch.rs`, `guard.rs` | pages that a program brings in itself, and writes that it is told of |
//! | `release.rs` | the other way: letting go of entries, frames, slots, objects |
//!
//! Nothing here waits for memory: what finds no frame unwinds with [`Stop::NoFrames`], having changed nothing that a
//! retry would not change the same way, up to [`crate::Memory`], which makes room and calls again.

pub mod advise;
pub mod balance;
mod carry;
mod chunks;
pub mod fault;
pub mod fill;
pub mod fork;
pub mod guard;
mod holes;
pub mod huge;
pub mod map;
pub mod pages;
mod rearrange;
pub mod region;
pub mod regions;
pub mod release;
pub mod remap;
pub mod scan;
pub mod sections;
mod share;
pub mod swapin;
pub mod watch;

use crate::MAX_CPUS;
use crate::account::AccountId;
use crate::addr::{PageRange, Pfn, USER_END, USER_START, VirtAddr, Vpn};
use crate::frame::{Frames, NoFrames};
use crate::lock::{Mutex, Readers, WriteGuard, rank};
use crate::object::{Family, Ghosts, Object, Registry};
use crate::paging::cursor::is_in_one_leaf;
use crate::paging::{Cursor, Flush, FlushPages, Gather, KernelHalf, Tables};
use crate::swap::Swap;
use crate::{CpuSet, Platform, Rights};
use alloc::sync::Arc;
pub use balance::Balance;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::*};
pub use region::{Backing, Label, Rare, Region, RegionFlags};
pub use regions::Regions;
use sections::Sections;

/// The number of a space.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct SpaceId(pub u32);

/// Why a call on a mapping was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MmError {
    /// No memory to do it with.
    NoMemory,
    /// Arguments that make no sense.
    Invalid,
    /// Something is mapped there.
    Exists,
    /// Nothing is mapped there (or in part of it).
    NotMapped,
    /// The rights asked for are more than the mapping may have.
    Denied,
    /// It is sealed.
    Sealed,
    /// It is a file's.
    HasFile,
    /// What is mapped there cannot do that.
    Unsupported,
    /// It is locked in memory.
    Busy,
    /// A read or write behind it failed.
    Io,
    /// More regions than a space may have.
    TooMany,
}

/// Why a page could not be made usable; what signal that is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultError {
    /// Nothing is mapped there: SIGSEGV, `SEGV_MAPERR`.
    NotMapped,
    /// The region forbids it: SIGSEGV, `SEGV_ACCERR`.
    Denied,
    /// Past the end of the mapped object: SIGBUS, `BUS_ADRERR`.
    PastEnd,
    /// The file or the slot could not be read, or did not hold what was written: SIGBUS, `BUS_ADRERR`.
    Io,
    /// Who was to bring the page has not: SIGBUS, `BUS_ADRERR`.
    Unanswered,
    /// A signal came while the fault waited for a program to bring the page: to be tried again after that.
    Interrupted,
    /// No memory, and the process that asks is the one that goes.
    OutOfMemory,
}

/// Why an attempt ended without its result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// For want of a frame; try again when there are some.
    NoFrames,
    Fault(FaultError),
    Mm(MmError),
}

impl From<NoFrames> for Stop {
    fn from(_: NoFrames) -> Self {
        Stop::NoFrames
    }
}
impl From<MmError> for Stop {
    fn from(e: MmError) -> Self {
        Stop::Mm(e)
    }
}
impl From<FaultError> for Stop {
    fn from(e: FaultError) -> Self {
        Stop::Fault(e)
    }
}

/// What a program tried to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    pub write: bool,
    pub exec: bool,
}

impl Access {
    /// A debugger's write, which no instruction could be: where the program may not write to private memory, its page becomes the
    /// space's own copy all the same.
    pub const FORCED: Access = Access { write: true, exec: true };
}

/// The right to change a space's regions.
pub(crate) type RegionsMut<'a> = WriteGuard<'a, Regions, { rank::REGIONS }>;

/// All pages that a program could have.
pub(crate) const ALL: PageRange = PageRange::new(Vpn(0), USER_END);

/// Regions in one space at most, as Linux's `vm.max_map_count`.
pub const MAX_REGIONS: usize = 65530;

/// One address space.
pub struct Space {
    id: SpaceId,
    account: AccountId,
    pub(crate) family: Arc<Family>,
    pub(crate) tables: Tables,
    sections: Sections,
    /// The program wants no huge pages (`PR_SET_THP_DISABLE`).
    pub(crate) no_huge: AtomicBool,
    /// Some region may be sealed.
    pub(crate) sealed: AtomicBool,
    /// Some region may be droppable.
    pub(crate) droppable: AtomicBool,
    /// The heap that `brk` moves the end of, in bytes.
    pub(crate) heap: Mutex<(VirtAddr, VirtAddr)>,
    /// Mappings are placed below this page, from the top down.
    map_top: AtomicU64,
    /// Read-ahead from swap: the page after the last cluster, and pages in the next.
    pub(crate) ahead: Mutex<(Vpn, u64)>,
}

/// What [`Space::for_each_region`] tells.
#[derive(Clone)]
pub struct RegionInfo {
    pub range: PageRange,
    pub rights: Rights,
    pub shared: bool,
    /// What the rights may be raised to.
    pub max_rights: Rights,
    /// The number of the object behind it, if any, and the byte of it that the first page begins with.
    pub object: Option<u32>,
    pub offset: u64,
    pub label: Option<Arc<Label>>,
    pub grows_down: bool,
    pub wired: bool,
    pub flags: RegionFlags,
    /// What was said about memory nodes.
    pub nodes: u64,
    /// Whether huge pages were asked for here, or refused.
    pub huge: Option<bool>,
    /// Its guarded pages can be written, which is noted.
    pub noted: bool,
}

impl From<&Region> for RegionInfo {
    fn from(region: &Region) -> Self {
        let (object, first) = match &region.backing {
            Backing::Anonymous => (None, 0),
            Backing::Object { object, first } => (Some(object.id), *first),
        };
        RegionInfo {
            range: region.range,
            rights: region.rights,
            shared: region.is_shared(),
            max_rights: region.max_rights,
            object,
            offset: first * crate::PAGE_SIZE as u64,
            label: region.label.clone(),
            grows_down: region.flags.contains(RegionFlags::GROWS_DOWN),
            wired: region.flags.contains(RegionFlags::WIRED),
            flags: region.flags,
            nodes: region.nodes(),
            noted: region.flags.contains(RegionFlags::GUARDED)
                && region.watcher().is_some_and(|watcher| watcher.0.only_notes()),
            huge: match region.flags {
                flags if flags.contains(RegionFlags::HUGE) => Some(true),
                flags if flags.contains(RegionFlags::NO_HUGE) => Some(false),
                _ => None,
            },
        }
    }
}

impl Space {
    pub fn id(&self) -> SpaceId {
        self.id
    }
    /// The page-table root that a CPU loads.
    pub fn root(&self) -> Pfn {
        self.tables.root()
    }
    pub fn account(&self) -> AccountId {
        self.account
    }
    /// In order of address. The callback must not call into memory management.
    pub fn for_each_region(&self, f: &mut dyn FnMut(&RegionInfo)) {
        self.regions_from(Vpn(0), &mut |region| {
            f(region);
            true
        });
    }
    /// Those that end after `page`, in order, for as long as the callback wants more. It must not call into memory management.
    pub fn regions_from(&self, page: Vpn, f: &mut dyn FnMut(&RegionInfo) -> bool) {
        self.each_region(page, &mut |region| f(&RegionInfo::from(region)));
    }
    pub fn region_at(&self, at: VirtAddr) -> Option<RegionInfo> {
        self.regions_here(at.page()).find(at.page()).map(RegionInfo::from)
    }
    /// The object behind a page.
    pub fn object_at(&self, page: Vpn) -> Option<Arc<Object>> {
        match &self.regions_here(page).find(page)?.backing {
            Backing::Object { object, .. } => Some(object.clone()),
            Backing::Anonymous => None,
        }
    }
    /// Pages that its regions cover, resident or not.
    pub fn total_pages(&self) -> u64 {
        self.pages_of(|_, _| true)
    }
    /// Pages of it that are promised: private, without a file that they could be read from again.
    pub fn promised(&self) -> u64 {
        let free = RegionFlags::SHARED | RegionFlags::NO_RESERVE;
        self.pages_of(|flags, writable| writable && !flags.intersects(free))
    }
    /// Pages of its regions of certain kinds: by whether they are shared, grow, are wired or not reserved, and whether they may be
    /// written.
    pub fn pages_of(&self, mut which: impl FnMut(RegionFlags, bool) -> bool) -> u64 {
        self.sum_regions(&mut |regions| regions.pages_of(&mut which))
    }
    /// The heap's start and its present end, in bytes.
    pub fn heap(&self) -> (VirtAddr, VirtAddr) {
        *self.heap.lock()
    }
    /// Whether the program wants no huge pages; a fork passes that on.
    pub fn set_no_huge(&self, on: bool) {
        self.no_huge.store(on, Relaxed);
    }
    /// Place new mappings below this address.
    pub fn set_map_top(&self, top: VirtAddr) {
        self.map_top.store(top.page().0.clamp(USER_START.0, USER_END.0), Relaxed);
    }
    #[inline]
    pub(crate) fn map_top(&self) -> Vpn {
        Vpn(self.map_top.load(Relaxed))
    }
}

/// A number with a cache line to itself.
#[derive(Default)]
#[repr(align(64))]
pub struct Line(pub AtomicU32);

/// Numbers for `/proc/vmstat` and the summary.
#[derive(Default)]
pub struct Counters {
    pub major_file: AtomicU64,
    pub major_swap: AtomicU64,
    pub swapped_in: AtomicU64,
    pub swapped_out: AtomicU64,
    pub file_in: AtomicU64,
    pub file_out: AtomicU64,
    pub refaults: AtomicU64,
    pub scanned: AtomicU64,
    pub reclaimed: AtomicU64,
    pub ahead_used: AtomicU64,
    pub ahead_wasted: AtomicU64,
    pub filled: AtomicU64,
    /// Huge pages made.
    pub huge: AtomicU64,
    pub oom_kills: AtomicU64,
    pub peak: AtomicU64,
}

/// All spaces, and what they are made of.
pub struct Spaces<P: Platform> {
    pub platform: P,
    pub frames: Frames,
    pub swap: Swap,
    pub objects: Registry<Object>,
    pub families: Registry<Family>,
    pub spaces: Registry<Space>,
    pub counters: Counters,
    /// Frames on their way in, from a file or from swap: charged, and on no list yet.
    pub coming: AtomicU32,
    pub balance: Balance,
    pub ghosts: Ghosts,
    /// What every space has in its upper half.
    pub kernel: KernelHalf,
    /// How many regions a space may have.
    pub most_regions: AtomicUsize,
    /// A [`crate::HugeWish`].
    pub huge_wish: AtomicU8,
    /// Some space may have pages that it can do without.
    pub droppable: AtomicBool,
    /// By CPU: where the region of its last fault stood among its space's.
    pub last: [Line; MAX_CPUS],
    /// What each CPU reads of the spaces at this moment.
    pub readers: Arc<Readers>,
}

impl<P: Platform> Spaces<P> {
    pub(crate) fn cpu(&self) -> usize {
        P::cpu()
    }

    /// Where this CPU's next fault may find its region.
    #[inline]
    pub(crate) fn hint(&self) -> &AtomicU32 {
        &self.last[self.cpu() % MAX_CPUS].0
    }

    #[inline]
    #[cfg_attr(feature = "contention", track_caller)]
    pub(crate) fn cursor<'a>(&'a self, space: &'a Space, range: PageRange) -> Cursor<'a> {
        match is_in_one_leaf(range) {
            true => space.tables.cursor_in_leaf(self, &self.frames, self.cpu(), range),
            false => self.cursor_alone(space, range),
        }
    }

    /// As [`Spaces::cursor`], in the tables of a space that nobody else is in then.
    #[inline(never)]
    #[cfg_attr(feature = "contention", track_caller)]
    pub(crate) fn cursor_alone<'a>(&'a self, space: &'a Space, range: PageRange) -> Cursor<'a> {
        space.tables.cursor_alone(self, &self.frames, self.cpu(), range)
    }

    /// To take back translations of pages of the range.
    pub(crate) fn gather<'a>(&'a self, space: &'a Space, range: PageRange) -> Gather<'a, Self> {
        Gather::new(self, &self.frames, self.cpu(), &space.tables, range)
    }

    /// A page is wanted that was evicted as the `evicted`th: count a mistake if it would still be here had others gone.
    pub(crate) fn note_return(&self, kind: crate::frame::lists::Kind, distance: u32) {
        if distance < self.frames.usable - self.frames.free() {
            self.counters.refaults.fetch_add(1, Relaxed);
            self.balance.mistake(kind);
        }
    }

    /// A new space with nothing mapped, in a family of its own.
    pub fn new_space(&self, account: AccountId) -> Result<Arc<Space>, Stop> {
        let family = self.families.add(Family::new).ok_or(FaultError::OutOfMemory)?;
        // As far below the top as Linux's default: room for a stack placed at random in 16 GiB, then up to 1 TiB.
        let below = (1 << 22) + (128 << 8) + (self.platform.random() & ((1 << 28) - 1));
        let made = self.make_space(account, family.clone(), USER_END.0 - below);
        if made.is_err() {
            self.families.remove(family.id);
        }
        made
    }

    fn make_space(&self, account: AccountId, family: Arc<Family>, map_top: u64) -> Result<Arc<Space>, Stop> {
        let tables = Tables::new(&self.frames, self.cpu(), account, &self.kernel, &self.readers)?;
        let mut members = family.members.lock();
        let room = members.try_reserve(1).is_ok();
        let make = |id, tables: Tables| Space {
            id: SpaceId(id),
            account,
            family: family.clone(),
            tables: tables.of(SpaceId(id)),
            sections: Sections::new(&self.readers),
            no_huge: AtomicBool::new(false),
            sealed: AtomicBool::new(false),
            droppable: AtomicBool::new(false),
            heap: Mutex::new((VirtAddr(0), VirtAddr(0))),
            map_top: AtomicU64::new(map_top),
            ahead: Mutex::new((Vpn(0), 0)),
        };
        match if room { self.spaces.add_of(tables, make) } else { Err(tables) } {
            Ok(space) => {
                members.push((space.id, account));
                Ok(space)
            }
            Err(tables) => {
                tables.destroy(&self.frames, self.cpu());
                Err(FaultError::OutOfMemory.into())
            }
        }
    }

    /// Unmap everything and give the page tables back. No thread may run in the space any more, nor enter it again.
    pub fn destroy_space(&self, space: &Space) {
        self.unmap_all(space);
        // Its translations may still be kept, and its root loaded where nothing uses it: not beyond this point.
        self.forget_translations(space);
        if self.spaces.remove(space.id.0).is_none() {
            return;
        }
        let mut members = space.family.members.lock();
        members.retain(|&(id, _)| id != space.id);
        let last = members.is_empty();
        drop(members);
        if last {
            self.families.remove(space.family.id);
        }
        space.tables.destroy(&self.frames, self.cpu());
    }

    /// Have every CPU forget what it keeps of the space.
    fn forget_translations(&self, space: &Space) {
        let cpus = CpuSet(space.tables.cpus.load(SeqCst));
        if cpus.0 != 0 {
            let (id, root) = (space.id, space.root());
            self.platform.flush(&Flush { space: id, root, pages: FlushPages::All, cpus, leaving: None });
        }
    }
}
