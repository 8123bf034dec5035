//! The memory of the machine: every frame, every page and every slot, under one owner.
//!
//! This crate knows no hardware, no file system and no process. It gets a window on RAM ([`PhysMap`]), a disk to swap
//! to ([`SwapDevice`]), files to read ([`Pager`]) and a few services ([`Platform`]), and makes of them address spaces
//! that may be larger than the RAM. The same code runs in the kernel and, on a software machine, in the tests.
//!
//! ```text
//!                       Memory          the door; retries when there were no frames
//!                      /      \
//!               reclaim        \        which page goes, and how                     reclaim/
//!                      \       /
//!                       space           regions, faults, fork, the calls             space/
//!                         |
//!                       object          files' pages, shared memory, families        object/
//!                         |
//!                        swap           slots, blocks, checksums, requests           swap/
//!                         |
//!                       paging          entries, cursor, gather                      paging/
//!                         |
//!                       frame           records, buddy lists, magazines, generations frame/
//!                         |
//!                    account, phys, addr
//! ```
//!
//! # Locks
//!
//! In this order; no lock is held across anything that waits (a pager, the disk, [`Platform::wait`]):
//!
//! ```text
//!   a space's regions (of several sections: the common one, then by CPU)
//!     Family::members, Object::mappings
//!       the shape of Tables (a cursor; in a fork the parent's, then the child's)
//!         a leaf of them
//!         Object::pages
//!           Swap::state, a Request
//!             Lists
//!               a magazine, then the buddy lists
//! ```
//!
//! # Invariants
//!
//! | | |
//! |---|---|
//! | I1 | a frame is in exactly one of: free, one generation, isolated, wired, on its way in or out |
//! | I2 | a frame's map count is the number of present entries that name it; a leaf's, the number of links to it |
//! | I3 | a frame on a generation list has a valid owner |
//! | I4 | a slot has at most one cached frame; its references are the entries and page maps that name it |
//! | I5 | no frame is freed, reused or written out while a CPU may hold a translation to it |
//! | I6 | every frame and slot is charged to one account, and the sums are the machine's |
//!
//! [`Memory::audit`] checks them all at a quiet point.
#![cfg_attr(not(feature = "sim"), no_std)]
// Without the feature a mutant's place holds only what is right: nothing, or the value it already had.
#![cfg_attr(not(feature = "mutants"), allow(clippy::no_effect, clippy::redundant_locals))]
extern crate alloc;

pub mod account;
pub mod addr;
pub mod audit;
pub mod frame;
mod keys;
pub mod lock;
pub mod memory;
pub mod mutant;
pub mod object;
pub mod paging;
pub mod phys;
pub mod pressure;
pub mod reclaim;
#[cfg(feature = "sim")]
pub mod sim;
pub mod space;
pub mod stats;
pub mod swap;

pub use account::{AccountId, AccountStat};
pub use addr::*;
pub use audit::AuditError;
pub use memory::{Config, FramePin, Memory};
pub use object::{Object, Pager, PagerError};
pub use paging::{Flush, FlushPages, Leaving};
pub use phys::PhysMap;
pub use reclaim::PolicyKind;
pub use space::advise::Advice;
pub use space::guard::Guarded;
pub use space::map::{MapRequest, Where};
pub use space::remap::RemapHow;
pub use space::scan::{Seen, Verdict};
pub use space::watch::{About, PlaceError, Watched, Watcher};
pub use space::{Access, Backing, FaultError, Label, MmError, RegionFlags, RegionInfo, Space, SpaceId};
pub use stats::{CacheStat, FrameUse, HugeWish, PageAt, RegionStat, Stats};
pub use swap::{IoError, QueueFull, SwapDevice, SwapOp};

bitflags::bitflags! {
    /// What a program may do with a page; the bits of `PROT_*`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
    pub struct Rights: u8 {
        const READ = 1;
        const WRITE = 2;
        const EXEC = 4;
    }
}

/// CPUs that the core knows: each has its own of what all would otherwise share.
pub const MAX_CPUS: usize = 16;

/// A set of CPUs, a bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuSet(pub u64);

/// What the core asks of the machine it runs on.
pub trait Platform: Send + Sync + 'static {
    /// This CPU's number, dense from 0.
    fn cpu() -> usize
    where
        Self: Sized;
    /// Invalidate on every CPU of the set; returns when none can hold a stale translation.
    fn flush(&self, flush: &Flush<'_>);
    /// Sleep until `ready()`, which is looked at again whenever [`Platform::wake`] names the key. No lock is held.
    fn wait(&self, key: usize, ready: &dyn Fn() -> bool);
    /// Wake all who wait for the key. Called with locks held, and from interrupts: it must not run them at once.
    fn wake(&self, key: usize);
    fn random(&self) -> u64;
    /// Whether the heap has `bytes` to spare, beyond what it keeps for those who cannot fail. To be asked before something is
    /// built that a program can have any number of.
    fn headroom(&self, bytes: usize) -> bool;
    /// On whose behalf this thread runs: so that one who is told to go does not wait for others to go first.
    fn account(&self) -> AccountId;
    /// Tell, for each account, the pages' worth of things beside its own memory that are there for its process. Asked before
    /// somebody has to go, with no lock held.
    fn holdings(&self, tell: &mut dyn FnMut(AccountId, u64));
    /// Memory has run out: this process has to go. Must not wait.
    fn kill(&self, account: AccountId, why: &OomReport);
}

/// Why a process had to go.
#[derive(Clone, Debug)]
pub struct OomReport {
    /// What it held, in pages.
    pub victim: AccountStat,
    /// What the kernel held for it besides, in pages.
    pub things: u64,
    /// How the machine stood.
    pub totals: Stats,
}
