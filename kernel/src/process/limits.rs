//! Resource limits (`getrlimit(2)`): sixteen pairs of a soft and a hard value for each process.
//!
//! Others ask for the soft values on their own paths (`mmap` for `RLIMIT_AS`, `open` for `RLIMIT_NOFILE`, …), so these are
//! plain atomics, read without a lock. Pairs change under `change`, so that two callers of `prlimit` cannot leave a
//! soft value above its hard one. A fork copies the pairs; `execve` keeps them.
#![forbid(unsafe_code)]

use crate::errno::{Errno, Result};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use hafez_mm::lock::Mutex;
use linux_raw_sys::general as abi;

/// No limit.
pub const INFINITY: u64 = u64::MAX;
/// How many kinds there are.
pub const KINDS: usize = abi::RLIM_NLIMITS as usize;

/// The most descriptors that a process can be allowed (Linux's `fs.nr_open`).
pub static NR_OPEN: AtomicU64 = AtomicU64::new(MOST_OPEN);
const MOST_OPEN: u64 = 1 << 20;

/// A soft and a hard value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    pub soft: u64,
    pub hard: u64,
}

/// The limits of one process.
pub struct Limits {
    soft: [AtomicU64; KINDS],
    hard: [AtomicU64; KINDS],
    change: Mutex<()>,
}

impl Limits {
    /// What the first program has where the command says nothing else: Linux's own first values.
    pub fn new() -> Limits {
        let limits = Limits {
            soft: [const { AtomicU64::new(INFINITY) }; KINDS],
            hard: [const { AtomicU64::new(INFINITY) }; KINDS],
            change: Mutex::new(()),
        };
        for (kind, soft, hard) in [
            (abi::RLIMIT_STACK, 8 << 20, INFINITY),
            (abi::RLIMIT_CORE, 0, INFINITY),
            (abi::RLIMIT_NPROC, 32768, 32768),
            (abi::RLIMIT_NOFILE, 1024, MOST_OPEN),
            (abi::RLIMIT_MEMLOCK, 8 << 20, 8 << 20),
            (abi::RLIMIT_SIGPENDING, 32768, 32768),
            (abi::RLIMIT_MSGQUEUE, 819_200, 819_200),
            (abi::RLIMIT_NICE, 0, 0),
            (abi::RLIMIT_RTPRIO, 0, 0),
        ] {
            limits.store(kind as usize, Limit { soft, hard });
        }
        limits
    }

    /// The soft value of `RLIMIT_*` number `kind`, which must be one.
    #[inline]
    pub fn soft(&self, kind: u32) -> u64 {
        self.soft[kind as usize].load(Relaxed)
    }

    /// The pair of `RLIMIT_*` number `kind`; EINVAL if there is no such limit.
    pub fn get(&self, kind: u32) -> Result<Limit> {
        let kind = Self::index(kind)?;
        let _still = self.change.lock();
        Ok(Limit { soft: self.soft[kind].load(Relaxed), hard: self.hard[kind].load(Relaxed) })
    }

    /// Replace a pair, and return the old one. EINVAL for a soft value above the hard one; EPERM to raise the hard
    /// value without `privileged`, and for more descriptors than the kernel ever gives out.
    pub fn set(&self, kind: u32, new: Limit, privileged: bool) -> Result<Limit> {
        let index = Self::index(kind)?;
        if new.soft > new.hard {
            return Err(Errno::EINVAL);
        }
        if kind == abi::RLIMIT_NOFILE && new.hard > NR_OPEN.load(Relaxed) {
            return Err(Errno::EPERM);
        }
        let _still = self.change.lock();
        let old = Limit { soft: self.soft[index].load(Relaxed), hard: self.hard[index].load(Relaxed) };
        if new.hard > old.hard && !privileged {
            return Err(Errno::EPERM);
        }
        self.store(index, new);
        Ok(old)
    }

    fn index(kind: u32) -> Result<usize> {
        if (kind as usize) < KINDS { Ok(kind as usize) } else { Err(Errno::EINVAL) }
    }

    fn store(&self, kind: usize, pair: Limit) {
        self.soft[kind].store(pair.soft, Relaxed);
        self.hard[kind].store(pair.hard, Relaxed);
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits::new()
    }
}

impl Clone for Limits {
    fn clone(&self) -> Self {
        let copy = Limits::new();
        let _still = self.change.lock();
        for kind in 0..KINDS {
            copy.store(
                kind,
                Limit { soft: self.soft[kind].load(Relaxed), hard: self.hard[kind].load(Relaxed) },
            );
        }
        copy
    }
}
