//! `Memory`: the whole of it behind one door, and the one place where a want of frames meets reclaim.
//!
//! ```text
//!   call -> Spaces does it -> Ok
//!             ^     |
//!             |     +-> NoFrames: everything unwound, no lock held
//!             |              |
//!             +-- make_room: one batch of eviction; or wait for a write; or, at the very end, somebody goes
//! ```

use crate::account::{AccountId, AccountStat};
use crate::addr::{PAGE_SIZE, PageRange, Pfn, PfnRange, VirtAddr, Vpn};
use crate::frame::{Frames, Priority};
use crate::lock::{Mutex, Readers};
use crate::object::{Ghosts, Object, Pager, PagerError, Registry, Source};
use crate::paging::Entry;
use crate::paging::KernelHalf;
use crate::phys::PhysMap;
use crate::reclaim::{PolicyKind, Reclaim};
use crate::space::advise::{Advice, Naming};
use crate::space::map::MapRequest;
use crate::space::remap::RemapHow;
use crate::space::scan::{Seen, Verdict};
use crate::space::watch::{PlaceError, Watched};
use crate::space::{
    Access, Balance, Counters, FaultError, MAX_REGIONS, MmError, Region, RegionFlags, Space, Spaces, Stop,
};
use crate::stats::HugeWish;
use crate::swap::{IoError, Swap, SwapDevice, SwapOp};
use crate::{Platform, keys};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering::*};

/// What the core starts with.
pub struct Config<'a> {
    /// The window on all RAM.
    pub phys: PhysMap,
    /// RAM for the core to hand out, ascending.
    pub usable: &'a [PfnRange],
    /// Where the frame table goes: [`Config::meta_frames`] frames outside `usable`.
    pub meta: Pfn,
    /// Frames to keep records of: all RAM lies below.
    pub total_frames: u32,
    /// The root whose upper half every space shares.
    pub kernel_root: Pfn,
    pub policy: PolicyKind,
    /// For the checksums of swapped pages.
    pub seed: u64,
}

impl Config<'_> {
    /// Frames that the frame table of a machine with so many frames takes.
    pub const fn meta_frames(total_frames: u32) -> u32 {
        total_frames.div_ceil((PAGE_SIZE / 32) as u32)
    }
}

/// The machine's memory.
pub struct Memory<P: Platform> {
    pub(crate) spaces: Spaces<P>,
    pub(crate) reclaim: Reclaim,
    /// Processes told to go, until their account is closed.
    pub(crate) dying: Mutex<Vec<AccountId>>,
}

impl<P: Platform> Memory<P> {
    /// # Safety
    /// `config` must tell the truth about RAM: see [`PhysMap::new`] and [`Frames::new`].
    pub unsafe fn new(platform: P, config: Config<'_>) -> Self {
        // SAFETY: the caller's promise, passed on.
        let frames = unsafe { Frames::new(config.phys, config.usable, config.meta, config.total_frames) };
        let usable = frames.usable;
        let memory = Memory {
            spaces: Spaces {
                platform,
                frames,
                swap: Swap::new(config.seed),
                objects: Registry::new(),
                families: Registry::new(),
                spaces: Registry::new(),
                counters: Counters::default(),
                coming: AtomicU32::new(0),
                balance: Balance::default(),
                ghosts: Ghosts::new(usable),
                kernel: KernelHalf::of(&config.phys, config.kernel_root),
                most_regions: AtomicUsize::new(MAX_REGIONS),
                huge_wish: AtomicU8::new(HugeWish::Asked as u8),
                droppable: AtomicBool::new(false),
                last: Default::default(),
                readers: Arc::new(Readers::new(P::cpu)),
            },
            reclaim: Reclaim::new(config.policy),
            dying: Mutex::new(Vec::new()),
        };
        memory.reclaim.publish(&memory.spaces);
        memory
    }

    pub fn platform(&self) -> &P {
        &self.spaces.platform
    }
    pub fn phys(&self) -> &PhysMap {
        &self.spaces.frames.phys
    }
    /// The replacement policy's name.
    pub fn policy_name(&self) -> &'static str {
        self.reclaim.policy_name()
    }

    // ---- swap ----

    /// Swap to this disk from now on; only the first is taken.
    pub fn attach_swap(&self, device: &'static dyn SwapDevice) {
        self.spaces.swap.attach(device);
    }

    /// The disk's answer to the request `token`. An answer to no request is ignored.
    pub fn swap_done(&self, token: u32, result: Result<(), IoError>) {
        match self.spaces.swap.answered(token, result) {
            Some(SwapOp::Write) => {
                self.reclaim.write_done(&self.spaces, token, result);
                self.spaces.platform.wake(keys::FREED);
                self.spaces.request_answered();
            }
            Some(SwapOp::Read) => self.spaces.request_answered(),
            None => {}
        }
    }

    /// Whether no request to the disk is under way.
    pub fn is_quiet(&self) -> bool {
        self.spaces.swap.in_flight() == 0
    }

    // ---- accounts and the kernel's own frames ----

    pub fn open_account(&self) -> Result<AccountId, MmError> {
        self.spaces.frames.accounts.open().ok_or(MmError::NoMemory)
    }
    pub fn close_account(&self, id: AccountId) {
        self.spaces.frames.accounts.close(id);
        self.dying.lock().retain(|&d| d != id);
        self.spaces.platform.wake(keys::FREED);
    }
    pub fn account(&self, id: AccountId) -> AccountStat {
        self.spaces.frames.accounts.stat(id)
    }
    /// Another CPU is there: said by itself, before it does anything else with memory.
    pub fn add_cpu(&self, cpu: usize) {
        self.spaces.readers.add_cpu(cpu);
    }
    /// 2^order frames in a row, never evicted, charged to the kernel; their bytes are unknown. Does not wait.
    pub fn alloc_wired(&self, order: u8) -> Result<Pfn, MmError> {
        let frame = self.spaces.frames.alloc_wired(order, Priority::Kernel).map_err(|_| MmError::NoMemory);
        if self.spaces.frames.wanted.load(Relaxed) {
            self.spaces.platform.wake(keys::WANTED);
        }
        frame
    }
    /// One frame as [`Memory::alloc_wired`] gives it; nobody is woken, so any lock may be held.
    pub fn take_wired(&self) -> Option<Pfn> {
        self.spaces.frames.alloc_wired(0, Priority::Kernel).ok()
    }
    /// Wait until the kernel can have `frames` frames; whoever holds most may have to go for them. Fails if that is `who`.
    pub fn await_kernel_frames(&self, who: AccountId, frames: u32) -> Result<(), MmError> {
        let had = || if self.kernel_headroom() >= frames { Ok(()) } else { Err(Stop::NoFrames) };
        self.retry_for(who, frames, had).map_err(refused)
    }
    pub fn free_wired(&self, frame: Pfn, order: u8) {
        self.spaces.frames.free_wired(frame, order);
    }
    /// Frames that the kernel could still take for itself.
    pub fn kernel_headroom(&self) -> u32 {
        self.spaces.frames.free().saturating_sub(self.spaces.frames.marks.reserve)
    }
    /// Reclaim until the kernel has `frames` frames of headroom; false where they cannot be had. May sleep.
    pub fn make_headroom(&self, frames: u32) -> bool {
        for _ in 0..64 {
            if self.kernel_headroom() >= frames {
                return true;
            }
            let answers = self.spaces.swap.answers();
            let in_flight = self.spaces.swap.in_flight();
            match self.reclaim.batch(&self.spaces) {
                Some(progress) if progress.freed > 0 => {}
                _ if in_flight > 0 => self.spaces.wait_answer(answers),
                Some(_) => {}
                None => break,
            }
            self.spaces.frames.drain();
        }
        self.kernel_headroom() >= frames
    }

    /// For a CPU without work: make something of the time. False where there is nothing to be made of it; true also where `stop`
    /// said that work has come.
    pub fn use_idle_time(&self, stop: &dyn Fn() -> bool) -> bool {
        self.spaces.frames.zero_ahead(stop)
    }

    // ---- spaces ----

    pub fn new_space(&self, account: AccountId) -> Result<Arc<Space>, MmError> {
        self.retry_or_refuse(account, || self.spaces.new_space(account)).map_err(refused)
    }
    pub fn fork_space(&self, parent: &Arc<Space>, account: AccountId) -> Result<Arc<Space>, MmError> {
        self.retry_or_refuse(parent.account(), || self.spaces.fork_space(parent, account)).map_err(refused)
    }
    /// At the exit of the last thread, when no CPU runs the space any more.
    pub fn destroy_space(&self, space: &Arc<Space>) {
        self.spaces.note_peak();
        self.spaces.destroy_space(space);
        self.spaces.platform.wake(keys::FREED);
    }
    pub fn map(&self, space: &Arc<Space>, request: MapRequest) -> Result<VirtAddr, MmError> {
        self.retry(space.account(), || self.spaces.map(space, &request)).map_err(refused)
    }
    /// What a region is whose pages may go when RAM is short, instead of to swap: nobody else gets them either, no child and no core
    /// file. The space is going to have one.
    pub fn droppable(&self, space: &Space) -> RegionFlags {
        space.droppable.store(true, Relaxed);
        self.spaces.droppable.store(true, Relaxed);
        let kept_from_all = RegionFlags::WIPE_ON_FORK | RegionFlags::DONT_DUMP;
        RegionFlags::DROPPABLE | RegionFlags::NO_RESERVE | kept_from_all
    }
    pub fn unmap(&self, space: &Arc<Space>, range: PageRange) -> Result<(), MmError> {
        self.before_loss(range.len());
        self.retry(space.account(), || self.spaces.unmap(space, range)).map_err(refused)
    }

    /// So many pages may be given up now: what all processes hold together will not be as much again soon.
    #[inline]
    fn before_loss(&self, pages: u64) {
        // A MiB: less is not worth the look, and what is given up in smaller pieces comes back in them.
        const MUCH: u64 = (1 << 20) / PAGE_SIZE as u64;
        if pages >= MUCH {
            self.spaces.note_peak();
        }
    }

    pub fn protect(
        &self,
        space: &Arc<Space>,
        range: PageRange,
        rights: crate::Rights,
    ) -> Result<(), MmError> {
        self.retry(space.account(), || self.spaces.protect(space, range, rights)).map_err(refused)
    }
    /// mremap; lengths in bytes, rounded up to pages.
    pub fn remap(
        &self,
        space: &Arc<Space>,
        old: VirtAddr,
        old_len: u64,
        new_len: u64,
        how: RemapHow,
    ) -> Result<VirtAddr, MmError> {
        if !old.is_aligned() {
            return Err(MmError::Invalid);
        }
        let pages = |bytes: u64| bytes.div_ceil(PAGE_SIZE as u64);
        self.retry_or_refuse(space.account(), || {
            self.spaces.remap(space, old.page(), pages(old_len), pages(new_len), how)
        })
        .map_err(refused)
    }
    pub fn advise(&self, space: &Arc<Space>, range: PageRange, advice: Advice) -> Result<(), MmError> {
        if matches!(advice, Advice::PopulateRead | Advice::PopulateWrite) {
            let write = advice == Advice::PopulateWrite;
            let wanted = |rights: crate::Rights, _| write && rights.contains(crate::Rights::WRITE);
            return self.fault_in(space, range, &wanted).map_err(|error| match error {
                FaultError::NotMapped | FaultError::OutOfMemory | FaultError::Interrupted => {
                    MmError::NoMemory
                }
                FaultError::Denied => MmError::Invalid,
                FaultError::PastEnd | FaultError::Io | FaultError::Unanswered => MmError::Io,
            });
        }
        if matches!(advice, Advice::DontNeed | Advice::DontNeedLocked | Advice::Free) {
            self.before_loss(range.len());
        }
        let cooled =
            self.retry(space.account(), || self.spaces.advise(space, range, advice)).map_err(refused)?;
        if advice == Advice::PageOut {
            self.page_out(cooled);
        }
        Ok(())
    }
    /// These many pages are the first to go now: take about as many.
    fn page_out(&self, mut pages: u64) {
        // Batches without a gain before there is none to be had: a walk may come before each of the two kinds.
        const VAIN: u32 = 4;
        let mut vain = 0;
        while pages > 0 && vain < VAIN {
            let answers = self.spaces.swap.answers();
            match self.reclaim.batch(&self.spaces) {
                Some(progress) if progress.freed + progress.queued > 0 => {
                    pages = pages.saturating_sub((progress.freed + progress.queued) as u64);
                }
                Some(progress) if progress.blocked => self.spaces.wait_answer(answers),
                Some(_) => vain += 1,
                None => return,
            }
        }
    }
    /// msync with MS_SYNC.
    pub fn sync(&self, space: &Arc<Space>, range: PageRange) -> Result<(), MmError> {
        self.spaces.sync(space, range).map_err(refused)
    }
    /// Whether the range has no hole.
    pub fn is_mapped(&self, space: &Space, range: PageRange) -> bool {
        space.covers(self.spaces.cpu(), range)
    }
    /// Whether some of the range is locked.
    pub fn is_locked(&self, space: &Space, range: PageRange) -> bool {
        let wired = |region: &Region| region.flags.contains(RegionFlags::WIRED);
        space.parts(self.spaces.cpu(), range).any(|(regions, part)| regions.within(part).any(wired))
    }
    /// mincore.
    pub fn residency(
        &self,
        space: &Arc<Space>,
        range: PageRange,
        f: &mut dyn FnMut(Vpn, bool),
    ) -> Result<(), MmError> {
        self.spaces.residency(space, range, f).map_err(refused)
    }
    /// mlock (brings the pages in) or munlock.
    pub fn wire(&self, space: &Arc<Space>, range: PageRange, on: bool) -> Result<(), MmError> {
        self.spaces.wire(space, range, on).map_err(refused)?;
        if on { self.populate(space, range, false).map_err(|_| MmError::NoMemory) } else { Ok(()) }
    }
    /// Lock the pages of the range that are in RAM, and the others as they come.
    pub fn wire_as_they_come(&self, space: &Arc<Space>, range: PageRange) -> Result<(), MmError> {
        self.spaces.wire(space, range, true).map_err(refused)
    }
    /// Watch memory without a file, or watch it no longer (`userfaultfd`).
    pub fn watch(
        &self,
        space: &Arc<Space>,
        range: PageRange,
        watcher: &Watched,
        how: RegionFlags,
    ) -> Result<(), MmError> {
        self.spaces.watch(space, range, watcher, how).map_err(refused)
    }
    /// The watcher watches nothing of the space any more.
    pub fn unwatch(&self, space: &Arc<Space>, watcher: &Watched) {
        self.spaces.unwatch(space, watcher);
    }
    /// Guard pages that are watched for that, or let them go; `absent`: also private ones that nobody has made.
    pub fn guard(&self, space: &Arc<Space>, range: PageRange, on: bool, absent: bool) -> Result<(), MmError> {
        self.retry(space.account(), || self.spaces.guard(space, range, on, absent)).map_err(refused)
    }
    /// Tell of the pages of a range, as far as the region goes that it begins in, and guard those that are taken; the page to go on
    /// with. Who guards asks for one leaf's worth at most.
    pub fn scan(
        &self,
        space: &Arc<Space>,
        range: PageRange,
        guarding: bool,
        tell: &mut dyn FnMut(&Seen) -> Verdict,
    ) -> Result<Vpn, MmError> {
        self.retry(space.account(), || self.spaces.scan(space, range, guarding, tell)).map_err(refused)
    }
    /// Each page of the range that is guarded.
    pub fn each_guarded(&self, space: &Space, range: PageRange, tell: &mut dyn FnMut(Vpn)) {
        self.spaces.each_guarded(space, range, tell);
    }
    /// Put a page where one is missing and watched: these bytes, or zeroes; guarded, if `guard` says so.
    pub fn place_page(
        &self,
        space: &Arc<Space>,
        page: Vpn,
        bytes: Option<&[u8]>,
        guard: bool,
    ) -> Result<(), PlaceError> {
        let placed = self.retry(space.account(), || self.spaces.place_page(space, page, bytes, guard));
        placed.unwrap_or(Err(PlaceError::NoMemory))
    }
    /// Carry the first page of one range to the first of another, as long, where one is missing and watched. Both lie in one region each.
    pub fn carry_page(
        &self,
        space: &Arc<Space>,
        from: PageRange,
        to: PageRange,
        watcher: &Watched,
    ) -> Result<(), PlaceError> {
        let carried = self.retry(space.account(), || self.spaces.carry(space, from, to, watcher));
        carried.unwrap_or(Err(PlaceError::NoMemory))
    }
    /// mseal.
    pub fn seal(&self, space: &Arc<Space>, range: PageRange) -> Result<(), MmError> {
        self.spaces.seal(space, range).map_err(refused)
    }
    /// Name memory that is no file's; `None` takes the name away.
    pub fn set_name(
        &self,
        space: &Arc<Space>,
        range: PageRange,
        name: Option<&Naming<'_>>,
    ) -> Result<(), MmError> {
        self.spaces.set_name(space, range, name).map_err(refused)
    }
    /// Note what the program says about memory nodes: `next` makes of what was noted before what is from now on. With
    /// `strict`, a hole is an error before anything is changed.
    pub fn set_nodes(
        &self,
        space: &Arc<Space>,
        range: PageRange,
        strict: bool,
        next: &mut dyn FnMut(u64) -> Result<u64, MmError>,
    ) -> Result<(), MmError> {
        self.spaces.set_nodes(space, range, strict, next).map_err(refused)
    }
    /// remap_file_pages.
    pub fn turn_pages(&self, space: &Arc<Space>, range: PageRange, first: u64) -> Result<(), MmError> {
        self.retry(space.account(), || self.spaces.turn_pages(space, range, first)).map_err(refused)
    }
    /// Give back the pages that nobody but this space has: nobody will look at it any more.
    pub fn release_private(&self, space: &Arc<Space>) {
        let mut at = Vpn(0);
        loop {
            let mut next = None;
            space.regions_from(at, &mut |region| {
                next = Some((region.range, region.shared));
                false
            });
            let Some((range, shared)) = next else { return };
            at = range.end;
            if !shared {
                let _ = self.retry(space.account(), || self.spaces.clear_range(space, range));
            }
        }
    }

    /// Nobody runs in this space any more, though others may hold it to look at it. Where its process had to go for want of
    /// memory, the memory goes now: who looks may be one of those who wait for it.
    pub fn leave_space(&self, space: &Arc<Space>) {
        if self.dying.lock().contains(&space.account()) {
            self.release_private(space);
            self.nobody_to_go(space.account());
        }
    }
    /// A task begins to run on the account's space.
    pub fn join_account(&self, id: AccountId) {
        self.spaces.frames.accounts.join(id);
    }
    /// Who was told to go runs no more, or does not run yet: another has to.
    pub fn nobody_to_go(&self, id: AccountId) {
        self.spaces.frames.accounts.leave(id);
        self.dying.lock().retain(|&d| d != id);
        self.spaces.platform.wake(keys::FREED);
    }
    /// Whether the page is in RAM under this address. `None`: nothing is mapped there, or only the page of zeroes.
    pub fn is_resident(&self, space: &Space, at: VirtAddr) -> Option<bool> {
        let page = at.page();
        let regions = space.regions(self.spaces.cpu(), page);
        regions.find(page)?;
        let range = crate::space::map::user_page(page)?;
        match self.spaces.cursor(space, range).get(page) {
            Entry::Present { frame, .. } if frame == self.spaces.frames.zero => None,
            Entry::Present { .. } => Some(true),
            _ => Some(false),
        }
    }
    pub fn set_heap(&self, space: &Arc<Space>, start: VirtAddr) {
        self.spaces.set_heap(space, start);
    }
    /// The heap's end after the call: where it was if it cannot go there. `limit`: bytes that the heap may have.
    pub fn brk(&self, space: &Arc<Space>, to: VirtAddr, limit: u64) -> VirtAddr {
        self.before_loss(space.heap().1.0.saturating_sub(to.0) / PAGE_SIZE as u64);
        self.retry(space.account(), || self.spaces.brk(space, to, limit)).unwrap_or(space.heap().1)
    }
    pub fn activate(&self, space: &Space, cpu: usize) {
        self.spaces.activate(space, cpu);
    }
    /// The space is about to have threads that run side by side, on so many CPUs. Whether that changes something: then who has it
    /// loaded should load it anew.
    pub fn divide(&self, space: &Space, cpus: usize) -> bool {
        self.spaces.divide(space, cpus)
    }
    /// Divide the space's regions alone: what lies in the block, where nothing may be yet, into sections of `1 << shift` pages.
    #[cfg(feature = "sim")]
    pub fn divide_into(&self, space: &Space, block: PageRange, shift: u32) {
        self.spaces.divide_regions(space, shift, &mut |regions, _| {
            regions.within(block).next().is_none().then_some(block)
        });
    }
    /// The root that the CPU, which holds no translation of the space now, is to load for it until the next such time.
    pub fn take_way(&self, space: &Space, cpu: usize) -> Pfn {
        space.tables.take_way(cpu)
    }
    pub fn deactivate(&self, space: &Space, cpu: usize) {
        self.spaces.deactivate(space, cpu);
    }

    /// Make the page usable. May sleep; the caller holds no lock.
    #[inline]
    pub fn fault(&self, space: &Arc<Space>, at: VirtAddr, access: Access) -> Result<(), FaultError> {
        self.retry(space.account(), || self.spaces.fault(space, at, access)).map_err(|stop| match stop {
            Stop::Fault(error) => error,
            _ => FaultError::OutOfMemory,
        })
    }

    /// Fault in every page of the range as its region allows: with the right to write where it has it and `write` says so.
    pub fn populate(&self, space: &Arc<Space>, range: PageRange, write: bool) -> Result<(), FaultError> {
        self.fault_in(space, range, &|rights, shared| {
            rights.contains(crate::Rights::WRITE) && (write || !shared)
        })
    }

    /// Fault in every page of the range, to be written where `wanted` says so of a region's rights and sharing.
    fn fault_in(
        &self,
        space: &Arc<Space>,
        range: PageRange,
        wanted: &dyn Fn(crate::Rights, bool) -> bool,
    ) -> Result<(), FaultError> {
        for page in range.iter() {
            let region = space.regions(self.spaces.cpu(), page).find(page).map(|r| (r.rights, r.is_shared()));
            let Some((rights, shared)) = region else { return Err(FaultError::NotMapped) };
            self.fault(space, page.addr(), Access { write: wanted(rights, shared), exec: false })?;
        }
        Ok(())
    }

    // ---- objects ----

    pub fn new_object_file(&self, pager: Arc<dyn Pager>, size: u64) -> Result<Arc<Object>, MmError> {
        self.spaces.new_object(Source::File(pager), AccountId::KERNEL, size).ok_or(MmError::NoMemory)
    }
    pub fn new_object_shared(&self, size: u64, account: AccountId) -> Result<Arc<Object>, MmError> {
        self.spaces.new_object(Source::Shared, account, size).ok_or(MmError::NoMemory)
    }
    /// The page, in RAM for as long as the pin lives; may sleep. `for_write` makes it dirty; a hole of a shared object
    /// that is only read is the page of zeroes.
    pub fn object_page(
        &self,
        object: &Arc<Object>,
        index: u64,
        for_write: bool,
    ) -> Result<FramePin<'_, P>, FaultError> {
        let pin = self.retry(self.platform().account(), || self.spaces.pin_page(object, index, for_write));
        match pin {
            Ok(frame) => Ok(FramePin { memory: self, frame, for_write }),
            Err(Stop::Fault(error)) => Err(error),
            Err(_) => Err(FaultError::OutOfMemory),
        }
    }
    /// Read ahead `count` pages from `first` while frames are plentiful; may sleep.
    pub fn object_prefetch(&self, object: &Arc<Object>, first: u64, count: u64) {
        self.spaces.prefetch(object, first..first.saturating_add(count));
    }
    pub fn object_resize(&self, object: &Arc<Object>, size: u64) -> Result<(), FaultError> {
        let (account, shorter) = (self.platform().account(), size < object.size());
        self.retry(account, || self.spaces.resize(object, size)).map_err(failed)?;
        if shorter { self.retry(account, || self.spaces.drop_copies(object)).map_err(failed) } else { Ok(()) }
    }
    /// Make the bytes `[from, to)` of a shared object read as zero; whole pages are given back.
    pub fn object_punch(&self, object: &Arc<Object>, from: u64, to: u64) -> Result<(), FaultError> {
        self.retry(self.platform().account(), || self.spaces.punch(object, from, to)).map_err(failed)
    }
    /// Write dirty pages to the file, those dirtied through mappings too; may sleep.
    pub fn object_sync(&self, object: &Arc<Object>) -> Result<(), PagerError> {
        self.spaces.write_back(object)
    }
    /// Forget clean pages that nobody uses: the file has changed behind them.
    pub fn object_invalidate(&self, object: &Arc<Object>) {
        self.spaces.invalidate(object);
    }
    /// The last inode that refers to the object has gone: it lives on while it is mapped.
    pub fn object_retire(&self, object: &Arc<Object>) {
        self.spaces.retire(object);
    }

    // ---- another process's memory ----

    /// Copy from a space that need not be the current one.
    pub fn read_space(&self, space: &Arc<Space>, at: VirtAddr, out: &mut [u8]) -> Result<(), FaultError> {
        let mut done = 0;
        while done < out.len() {
            let here = VirtAddr(at.0.checked_add(done as u64).ok_or(FaultError::NotMapped)?);
            let len = (PAGE_SIZE - here.offset()).min(out.len() - done);
            let frame = self.pin_mapped(space, here, Access { write: false, exec: false })?;
            self.phys().read(frame, here.offset(), &mut out[done..done + len]);
            self.spaces.unpin_page(frame);
            done += len;
        }
        Ok(())
    }

    /// Copy into a space that need not be the current one.
    pub fn write_space(&self, space: &Arc<Space>, at: VirtAddr, bytes: &[u8]) -> Result<(), FaultError> {
        self.write_as(space, at, bytes, Access { write: true, exec: false })
    }

    /// The same for a debugger: into private memory that the program itself may not write, too.
    pub fn force_space(&self, space: &Arc<Space>, at: VirtAddr, bytes: &[u8]) -> Result<(), FaultError> {
        self.write_as(space, at, bytes, Access::FORCED)
    }

    fn write_as(
        &self,
        space: &Arc<Space>,
        at: VirtAddr,
        bytes: &[u8],
        access: Access,
    ) -> Result<(), FaultError> {
        let mut done = 0;
        while done < bytes.len() {
            let here = VirtAddr(at.0.checked_add(done as u64).ok_or(FaultError::NotMapped)?);
            let len = (PAGE_SIZE - here.offset()).min(bytes.len() - done);
            let frame = self.pin_mapped(space, here, access)?;
            self.phys().write(frame, here.offset(), &bytes[done..done + len]);
            self.spaces.mark_dirty(frame);
            self.spaces.unpin_page(frame);
            done += len;
        }
        Ok(())
    }

    fn pin_mapped(&self, space: &Arc<Space>, at: VirtAddr, access: Access) -> Result<Pfn, FaultError> {
        loop {
            self.fault(space, at, access)?;
            if let Some(frame) = self.spaces.pin_entry(space, at.page(), access) {
                return Ok(frame);
            }
        }
    }
}

fn refused(stop: Stop) -> MmError {
    match stop {
        Stop::Mm(error) => error,
        _ => MmError::NoMemory,
    }
}

fn failed(stop: Stop) -> FaultError {
    match stop {
        Stop::Fault(error) => error,
        _ => FaultError::OutOfMemory,
    }
}

/// A frame that stays in RAM for as long as this lives.
pub struct FramePin<'a, P: Platform> {
    memory: &'a Memory<P>,
    frame: Pfn,
    for_write: bool,
}

impl<P: Platform> FramePin<'_, P> {
    pub fn frame(&self) -> Pfn {
        self.frame
    }
    /// Copy bytes out; what would pass the end of the frame panics.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        self.memory.phys().read(self.frame, offset, out);
    }
    /// Copy bytes in; the page must have been asked for to be written.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        debug_assert!(self.frame != self.memory.spaces.frames.zero);
        self.memory.phys().write(self.frame, offset, bytes);
    }
}

impl<P: Platform> Drop for FramePin<'_, P> {
    fn drop(&mut self) {
        // A write-back since the pin was taken may have marked the page clean before the bytes came.
        if self.for_write {
            self.memory.spaces.mark_dirty(self.frame);
        }
        self.memory.spaces.unpin_page(self.frame);
    }
}
