//! A lock whose readers share nothing: many read, few write.
//!
//! A common lock for many readers counts them, so each who comes or goes writes a line that all need. Here a reader writes only
//! what is his own CPU's: *this CPU reads that lock*. Who wants to write says so where only writers write, and then waits until
//! no CPU says that it reads.
//!
//! ```text
//!   reader on CPU 1                               writer
//!     own line: "reads L"                           L: "wanted"
//!     ---- full fence ----                          ---- full fence ----
//!     L wanted?  no:  go on                         each CPU's line: "reads L"?  no:  go on
//!                yes: own line: "reads nothing",                                 yes: wait
//!                     wait, try again
//! ```
//!
//! Of the two fences one comes first, so at least one of the two sees the other. Nobody is moved to another CPU between taking
//! and releasing a lock, and a CPU reads at most one lock of each [`rank`] at a time.

use super::{Attentive, RelaxStrategy, contended};
use crate::MAX_CPUS;
use crate::mutant::mutant;
use alloc::sync::Arc;
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};

/// What locks guard, in the order in which they may be taken.
pub mod rank {
    /// A space's regions.
    pub const REGIONS: usize = 0;
    /// The shape of its page tables.
    pub const SHAPE: usize = 1;
    pub(super) const COUNT: usize = 2;
}

/// What each CPU of a machine reads at this moment.
pub struct Readers {
    /// CPUs from this one on have never read anything.
    end: AtomicUsize,
    cpus: [Line; MAX_CPUS],
}

/// By rank: the address of the lock that the CPU reads, or 0.
#[derive(Default)]
#[repr(align(64))]
struct Line([AtomicUsize; rank::COUNT]);

impl Default for Readers {
    fn default() -> Self {
        Readers { end: AtomicUsize::new(1), cpus: Default::default() }
    }
}

impl Readers {
    #[inline(always)]
    fn word(&self, cpu: usize, rank: usize) -> &AtomicUsize {
        if cpu >= self.end.load(Relaxed) {
            self.join(cpu);
        }
        &self.cpus[cpu % MAX_CPUS].0[rank]
    }
    /// From now on writers look at this CPU's line too.
    #[cold]
    fn join(&self, cpu: usize) {
        self.end.fetch_max(cpu + 1, SeqCst);
    }
}

/// Access for one who writes, or for any number who read.
pub struct BigReaderLock<T, const RANK: usize> {
    readers: Arc<Readers>,
    /// Somebody writes, or waits until nobody reads.
    wanted: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: as for any lock for readers and writers: who reads has a shared reference beside other readers', who writes the only one.
unsafe impl<T: Send, const RANK: usize> Send for BigReaderLock<T, RANK> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync, const RANK: usize> Sync for BigReaderLock<T, RANK> {}

/// The right to read, until it is dropped: on the CPU that took it.
pub struct ReadGuard<'a, T> {
    value: &'a T,
    _reading: Reading<'a>,
}

/// This CPU reads something, until this is dropped.
pub struct Reading<'a>(&'a AtomicUsize);

/// The right to write.
pub struct WriteGuard<'a, T, const RANK: usize>(&'a BigReaderLock<T, RANK>);

impl<T, const RANK: usize> BigReaderLock<T, RANK> {
    pub fn new(readers: &Arc<Readers>, value: T) -> Self {
        BigReaderLock {
            readers: readers.clone(),
            wanted: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// What a CPU's line says while it reads this lock. It stays where it is while somebody has a guard.
    #[inline(always)]
    fn name(&self) -> usize {
        core::ptr::from_ref(self) as usize
    }

    #[inline(always)]
    #[cfg_attr(feature = "contention", track_caller)]
    pub fn read(&self, cpu: usize) -> ReadGuard<'_, T> {
        let _reading = self.keep(cpu);
        // SAFETY: the line says that this CPU reads, and afterwards no writer was there: the next will wait.
        ReadGuard { value: unsafe { &*self.value.get() }, _reading }
    }

    /// As [`BigReaderLock::read`], to keep others from writing.
    #[inline(always)]
    #[cfg_attr(feature = "contention", track_caller)]
    pub fn keep(&self, cpu: usize) -> Reading<'_> {
        let word = self.readers.word(cpu, RANK);
        let before = word.swap(self.name(), SeqCst);
        debug_assert!(before == 0, "CPU {cpu} reads two locks of the rank {RANK}");
        if self.wanted.load(SeqCst) {
            self.wait_to_read(word);
        }
        Reading(word)
    }

    #[cold]
    #[inline(never)]
    #[cfg_attr(feature = "contention", track_caller)]
    fn wait_to_read(&self, word: &AtomicUsize) {
        contended();
        while self.wanted.load(SeqCst) {
            word.store(0, Release);
            while self.wanted.load(Relaxed) {
                Attentive::relax();
            }
            word.swap(self.name(), SeqCst);
        }
    }

    #[inline]
    #[cfg_attr(feature = "contention", track_caller)]
    pub fn write(&self) -> WriteGuard<'_, T, RANK> {
        if self.wanted.swap(true, SeqCst) {
            self.wait_to_write();
        }
        // With one CPU there is nobody to wait for.
        if self.readers.end.load(SeqCst) > 1 {
            mutant!(WriterDoesNotWait, (), self.await_readers());
        }
        WriteGuard(self)
    }

    #[cold]
    #[inline(never)]
    #[cfg_attr(feature = "contention", track_caller)]
    fn wait_to_write(&self) {
        contended();
        while self.wanted.swap(true, SeqCst) {
            while self.wanted.load(Relaxed) {
                Attentive::relax();
            }
        }
    }

    #[inline(never)]
    #[cfg_attr(feature = "contention", track_caller)]
    fn await_readers(&self) {
        for line in self.readers.cpus.iter().take(self.readers.end.load(SeqCst)) {
            let word = &line.0[RANK];
            if word.load(SeqCst) == self.name() {
                self.await_reader(word);
            }
        }
    }

    #[cold]
    #[inline(never)]
    #[cfg_attr(feature = "contention", track_caller)]
    fn await_reader(&self, word: &AtomicUsize) {
        contended();
        while word.load(SeqCst) == self.name() {
            Attentive::relax();
        }
    }
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        self.value
    }
}
impl Drop for Reading<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.store(0, Release);
    }
}

impl<T, const RANK: usize> Deref for WriteGuard<'_, T, RANK> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: who writes is alone.
        unsafe { &*self.0.value.get() }
    }
}
impl<T, const RANK: usize> DerefMut for WriteGuard<'_, T, RANK> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.0.value.get() }
    }
}
impl<T, const RANK: usize> Drop for WriteGuard<'_, T, RANK> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.wanted.store(false, Release);
    }
}
