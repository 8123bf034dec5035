//! The memory of the machine: one owner for every frame, every page and every slot.
#![no_std]
extern crate alloc;

pub mod addr;
pub mod phys;

pub use addr::*;
pub use phys::PhysMap;

use alloc::{boxed::Box, sync::Arc};

bitflags::bitflags! {
    /// What a program may do with a page; the bits of `PROT_*`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
    pub struct Rights: u8 { const READ = 1; const WRITE = 2; const EXEC = 4; }
}

/// A set of CPUs by index.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuSet(pub u64);
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct SpaceId(pub u32);
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct AccountId(pub u16);
impl AccountId { pub const KERNEL: AccountId = AccountId(0); }

pub struct Flush<'a> { pub space: SpaceId, pub root: Pfn, pub pages: FlushPages<'a>, pub cpus: CpuSet }
pub enum FlushPages<'a> { All, List(&'a [Vpn]) }

pub trait Platform: Send + Sync + 'static {
    fn cpu(&self) -> usize;
    fn flush(&self, flush: &Flush<'_>);
    fn now(&self) -> u64;
    fn wait(&self, key: usize, ready: &dyn Fn() -> bool);
    fn wake(&self, key: usize);
    fn random(&self) -> u64;
    fn kill(&self, account: AccountId, why: &OomReport);
}
#[derive(Clone, Debug, Default)]
pub struct OomReport { pub resident: u64, pub swapped: u64, pub total_frames: u64, pub free_frames: u64, pub swap_blocks: u64, pub swap_free: u64, pub file_frames: u64 }

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MmError { NoMemory, Invalid, Exists, NotMapped, Denied, Busy, Io, TooMany, Overflow, Unsupported }
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultError { NotMapped, Denied, PastEnd, Io, OutOfMemory }
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access { pub write: bool, pub exec: bool }
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PagerError;
pub trait Pager: Send + Sync {
    fn fill(&self, first: u64, frames: &[Pfn]) -> Result<(), PagerError>;
    fn write(&self, first: u64, frames: &[Pfn], bytes: usize) -> Result<(), PagerError>;
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SwapOp { Read, Write }
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueFull;
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoError;
pub trait SwapDevice: Send + Sync {
    fn blocks(&self) -> u32;
    fn submit(&self, token: u32, op: SwapOp, block: u32, frames: &[Pfn]) -> Result<(), QueueFull>;
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PolicyKind { Generations, Clock }

pub struct Config<'a> { pub phys: PhysMap, pub usable: &'a [PfnRange], pub meta: Pfn, pub total_frames: u32, pub kernel_root: Pfn, pub policy: PolicyKind, pub seed: u64 }
impl Config<'_> {
    /// Frames that the frame table of a machine with `total_frames` frames takes (see `Config::meta`).
    pub const fn meta_frames(total_frames: u32) -> u32 { total_frames.div_ceil(128) }
}

#[derive(Debug)]
pub struct Label { pub path: Box<[u8]>, pub dev: u64, pub ino: u64 }
pub struct RegionInfo { pub range: PageRange, pub rights: Rights, pub shared: bool, pub offset: u64, pub object: Option<u32>, pub wired: bool, pub label: Option<Arc<Label>>, pub grows_down: bool }
pub enum Where { Anywhere { hint: Option<VirtAddr> }, Fixed(VirtAddr), FixedNoReplace(VirtAddr) }
pub enum Backing { Anonymous, Object { object: Arc<Object>, first: u64 } }
pub struct MapRequest { pub at: Where, pub pages: u64, pub rights: Rights, pub max_rights: Rights, pub backing: Backing, pub shared: bool, pub label: Option<Arc<Label>>,
    pub grows_down: Option<u64>, pub populate: bool, pub noreserve: bool, pub wired: bool }
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemapHow { InPlace, MayMove, Fixed(VirtAddr), DontUnmap }
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice { Normal, Random, Sequential, WillNeed, DontNeed, Free, Cold, PageOut, DontFork, DoFork, WipeOnFork, KeepOnFork, PopulateRead, PopulateWrite, Huge, NoHuge, DontDump, DoDump, Remove }
#[derive(Clone, Copy, Debug, Default)]
pub struct AccountStat { pub resident: u64, pub file: u64, pub swapped: u64, pub tables: u64, pub peak: u64 }
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats { pub total: u64, pub free: u64, pub kernel: u64, pub tables: u64, pub anonymous: u64, pub file: u64, pub shared: u64, pub dirty: u64, pub swap_total: u64, pub swap_free: u64, pub swap_cached: u64,
    pub minor: u64, pub major: u64, pub swapped_in: u64, pub swapped_out: u64, pub peak: u64, pub file_in: u64, pub file_out: u64, pub refaults: u64, pub scanned: u64, pub reclaimed: u64, pub oom_kills: u64, pub corrupt: u64, pub read_errors: u64, pub write_errors: u64 }

pub struct Object;
impl Object { pub fn size(&self) -> u64 { todo!() } pub fn resident(&self) -> u64 { todo!() } pub fn id(&self) -> u32 { todo!() } }
/// A frame that stays in RAM for as long as this lives.
pub struct FramePin<'a> { pfn: Pfn, _m: &'a () }
impl FramePin<'_> { pub fn frame(&self) -> Pfn { self.pfn } }
pub struct Space;
impl Space {
    pub fn id(&self) -> SpaceId { todo!() }
    pub fn root(&self) -> Pfn { todo!() }
    pub fn account(&self) -> AccountId { todo!() }
    pub fn for_each_region(&self, _f: &mut dyn FnMut(&RegionInfo)) { todo!() }
    pub fn region_at(&self, _at: VirtAddr) -> Option<RegionInfo> { todo!() }
    /// Pages that its regions cover, resident or not.
    pub fn total_pages(&self) -> u64 { todo!() }
}
#[derive(Debug)]
pub struct AuditError(pub alloc::string::String);

pub struct Memory<P: Platform> { platform: P }
#[allow(unused_variables, clippy::missing_safety_doc)]
impl<P: Platform> Memory<P> {
    pub unsafe fn new(platform: P, config: Config<'_>) -> Self { Memory { platform } }
    pub fn platform(&self) -> &P { &self.platform }
    pub fn phys(&self) -> &PhysMap { todo!() }
    pub fn attach_swap(&self, dev: &'static dyn SwapDevice) { todo!() }
    pub fn swap_done(&self, token: u32, result: Result<(), IoError>) { todo!() }
    pub fn open_account(&self) -> Result<AccountId, MmError> { todo!() }
    pub fn close_account(&self, a: AccountId) { todo!() }
    pub fn account(&self, a: AccountId) -> AccountStat { todo!() }
    /// 2^order frames, contiguous, wired, charged to the kernel. Contents are not zeroed.
    pub fn alloc_wired(&self, order: u8) -> Result<Pfn, MmError> { todo!() }
    pub fn free_wired(&self, frame: Pfn, order: u8) { todo!() }
    pub fn new_space(&self, a: AccountId) -> Result<Arc<Space>, MmError> { todo!() }
    pub fn fork_space(&self, parent: &Arc<Space>, a: AccountId) -> Result<Arc<Space>, MmError> { todo!() }
    pub fn destroy_space(&self, s: &Arc<Space>) { todo!() }
    pub fn map(&self, s: &Arc<Space>, req: MapRequest) -> Result<VirtAddr, MmError> { todo!() }
    pub fn unmap(&self, s: &Arc<Space>, range: PageRange) -> Result<(), MmError> { todo!() }
    pub fn protect(&self, s: &Arc<Space>, range: PageRange, rights: Rights) -> Result<(), MmError> { todo!() }
    pub fn remap(&self, s: &Arc<Space>, old: VirtAddr, old_len: u64, new_len: u64, how: RemapHow) -> Result<VirtAddr, MmError> { todo!() }
    pub fn advise(&self, s: &Arc<Space>, range: PageRange, advice: Advice) -> Result<(), MmError> { todo!() }
    pub fn sync(&self, s: &Arc<Space>, range: PageRange, wait: bool, invalidate: bool) -> Result<(), MmError> { todo!() }
    pub fn set_heap(&self, s: &Arc<Space>, start: VirtAddr) { todo!() }
    /// The break after the call (unchanged where it cannot be moved). `limit`: bytes of RLIMIT_DATA left for the heap.
    pub fn brk(&self, s: &Arc<Space>, to: VirtAddr, limit: u64) -> VirtAddr { todo!() }
    pub fn residency(&self, s: &Arc<Space>, range: PageRange, f: &mut dyn FnMut(Vpn, bool)) -> Result<(), MmError> { todo!() }
    pub fn wire(&self, s: &Arc<Space>, range: PageRange, on: bool) -> Result<(), MmError> { todo!() }
    pub fn fault(&self, s: &Arc<Space>, at: VirtAddr, access: Access) -> Result<(), FaultError> { todo!() }
    pub fn new_object_file(&self, pager: Arc<dyn Pager>, size: u64) -> Result<Arc<Object>, MmError> { todo!() }
    pub fn new_object_shared(&self, size: u64, a: AccountId) -> Result<Arc<Object>, MmError> { todo!() }
    /// The page, in RAM and pinned; may sleep. `for_write` marks it dirty; a hole of a shared object reads as the zero page.
    pub fn object_page(&self, o: &Arc<Object>, index: u64, for_write: bool) -> Result<FramePin<'_>, FaultError> { todo!() }
    pub fn object_resize(&self, o: &Arc<Object>, size: u64) { todo!() }
    /// Make the bytes `[from, to)` read as zero, freeing whole pages.
    pub fn object_punch(&self, o: &Arc<Object>, from: u64, to: u64) -> Result<(), FaultError> { todo!() }
    pub fn object_sync(&self, o: &Arc<Object>) -> Result<(), PagerError> { todo!() }
    pub fn object_invalidate(&self, o: &Arc<Object>) { todo!() }
    pub fn object_retire(&self, o: &Arc<Object>) { todo!() }
    /// The body of the reclaim thread: sleeps until free frames fall below the low watermark, reclaims to the high one; for ever.
    pub fn kreclaim(&self) -> ! { todo!() }
    pub fn stats(&self) -> Stats { todo!() }
    pub fn audit(&self) -> Result<(), AuditError> { todo!() }
    /// The CPU is about to load the space's root / has left it.
    pub fn activate(&self, s: &Space, cpu: usize) { todo!() }
    pub fn deactivate(&self, s: &Space, cpu: usize) { todo!() }
}
