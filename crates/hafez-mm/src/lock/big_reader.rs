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
//! Of the two fences one comes first, so at least one of the two sees the other. Who has never read a lock is not looked at: a CPU
//! that comes to one for the first time leaves its name there, before all else. Nobody is moved to another CPU between taking
//! and releasing a lock, and a CPU reads at most one lock of each [`rank`] at a time.
//!
//! What a reader has found holds until somebody writes. So a CPU may note one thing that it found ([`Reading::remember`]), on its
//! line; the next writer of that lock, who looks at the line anyway, takes the note away.
//!
//! Who writes may *close* a lock for good, when what it guarded has gone elsewhere ([`WriteGuard::close`]): everybody who comes, or has
//! waited, finds it closed. That costs those who find it open nothing: a closed lock is one that is wanted for ever.

use super::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, exchanged, let_go};
use super::{Attentive, RelaxStrategy, contended};
use crate::MAX_CPUS;
use crate::mutant::mutant;
use alloc::sync::Arc;
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::Ordering::*;

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
    /// CPUs from this one on are not there.
    end: AtomicUsize,
    /// Which CPU this is.
    here: fn() -> usize,
    cpus: [Line; MAX_CPUS],
}

/// What one CPU says.
#[derive(Default)]
#[repr(align(64))]
struct Line {
    /// By rank: the address of the lock that it reads, or 0.
    reads: [AtomicUsize; rank::COUNT],
    /// The address of the lock that the note is about, or 0; what was looked for, and what was found.
    noted: AtomicUsize,
    key: AtomicU64,
    value: AtomicU64,
}

const _: () = assert!(cfg!(feature = "model") || size_of::<Line>() == 64);

impl Readers {
    pub fn new(here: fn() -> usize) -> Self {
        Readers { end: AtomicUsize::new(1), here, cpus: Default::default() }
    }

    /// This CPU is there too: said before it takes any of the locks, for who writes looks at others only where there are any.
    pub fn add_cpu(&self, cpu: usize) {
        self.end.fetch_max(cpu + 1, SeqCst);
    }
}

/// Access for one who writes, or for any number who read.
pub struct BigReaderLock<T, const RANK: usize> {
    readers: Arc<Readers>,
    /// Somebody writes, or waits until nobody reads.
    wanted: AtomicBool,
    closed: AtomicBool,
    /// A bit for each CPU that has ever read it: who writes looks at their lines only.
    known: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: as for any lock for readers and writers: who reads has a shared reference beside other readers', who writes the only one.
unsafe impl<T: Send, const RANK: usize> Send for BigReaderLock<T, RANK> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync, const RANK: usize> Sync for BigReaderLock<T, RANK> {}

/// The right to read, until it is dropped: on the CPU that took it.
pub struct ReadGuard<'a, T, const RANK: usize> {
    value: &'a T,
    _reading: Reading<'a, RANK>,
}

/// This CPU reads something, until this is dropped.
pub struct Reading<'a, const RANK: usize>(&'a Line);

/// The right to write.
pub struct WriteGuard<'a, T, const RANK: usize>(&'a BigReaderLock<T, RANK>);

impl<T, const RANK: usize> BigReaderLock<T, RANK> {
    pub fn new(readers: &Arc<Readers>, value: T) -> Self {
        BigReaderLock {
            readers: readers.clone(),
            wanted: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            known: AtomicU32::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// What a CPU's line says while it reads this lock. It stays where it is while somebody has a guard.
    #[inline(always)]
    fn name(&self) -> usize {
        core::ptr::from_ref(self) as usize
    }

    /// The CPU that this runs on, for who does not know.
    pub fn here(&self) -> usize {
        (self.readers.here)()
    }

    /// What it guards, for a model that watches who uses it.
    #[cfg(feature = "model")]
    pub fn inside(&self) -> &T {
        // SAFETY: the model's cells may be shared; it reports who uses what is inside of one while another writes it.
        unsafe { &*self.value.get() }
    }

    /// To read it; `None` if it is closed.
    #[inline(always)]
    #[cfg_attr(feature = "contention", track_caller)]
    pub fn read(&self, cpu: usize) -> Option<ReadGuard<'_, T, RANK>> {
        let _reading = self.enter(cpu)?;
        // SAFETY: the line says that this CPU reads, and afterwards no writer was there: the next will wait.
        Some(ReadGuard { value: unsafe { &*self.value.get() }, _reading })
    }

    /// Keep others from writing. Not of one that can be closed.
    #[inline(always)]
    #[cfg_attr(feature = "contention", track_caller)]
    pub fn keep(&self, cpu: usize) -> Reading<'_, RANK> {
        let line = self.say(cpu);
        if self.wanted.load(SeqCst) {
            self.wait_to_read(&line.reads[RANK]);
        }
        Reading(line)
    }

    #[inline(always)]
    #[cfg_attr(feature = "contention", track_caller)]
    fn enter(&self, cpu: usize) -> Option<Reading<'_, RANK>> {
        let line = self.say(cpu);
        if self.wanted.load(SeqCst) && !self.wait_to_read(&line.reads[RANK]) {
            return None;
        }
        Some(Reading(line))
    }

    /// Say that this CPU reads.
    #[inline(always)]
    fn say(&self, cpu: usize) -> &Line {
        if self.known.load(Relaxed).wrapping_shr(cpu as u32) & 1 == 0 {
            self.join(cpu);
        }
        let line = &self.readers.cpus[cpu % MAX_CPUS];
        let before = line.reads[RANK].swap(self.name(), SeqCst);
        exchanged();
        debug_assert!(before == 0, "CPU {cpu} reads two locks of the rank {RANK}");
        line
    }

    /// From now on writers look at this CPU's line too.
    #[cold]
    fn join(&self, cpu: usize) {
        debug_assert!(cpu < self.readers.end.load(SeqCst), "CPU {cpu} reads and is not known to be there");
        self.known.fetch_or(1 << cpu, SeqCst);
    }

    /// False if it is closed: then nothing is read.
    #[cold]
    #[inline(never)]
    #[cfg_attr(feature = "contention", track_caller)]
    fn wait_to_read(&self, word: &AtomicUsize) -> bool {
        if !self.closed.load(Acquire) {
            contended();
        }
        while self.wanted.load(SeqCst) {
            word.store(0, Release);
            while self.wanted.load(Relaxed) {
                if self.closed.load(Acquire) {
                    return false;
                }
                Attentive::relax();
            }
            word.swap(self.name(), SeqCst);
            exchanged();
        }
        true
    }

    /// To write it; `None` if it is closed.
    #[inline(always)]
    #[cfg_attr(feature = "contention", track_caller)]
    pub fn write(&self) -> Option<WriteGuard<'_, T, RANK>> {
        // Who finds it closed writes nothing.
        if (self.wanted.load(Relaxed) || self.wanted.swap(true, SeqCst)) && !self.wait_to_write() {
            return None;
        }
        Some(self.begin_to_write())
    }

    /// To write it. Not one that can be closed.
    #[inline]
    #[cfg_attr(feature = "contention", track_caller)]
    pub fn write_alone(&self) -> WriteGuard<'_, T, RANK> {
        if self.wanted.swap(true, SeqCst) {
            self.wait_to_write();
        }
        self.begin_to_write()
    }

    #[inline(always)]
    #[cfg_attr(feature = "contention", track_caller)]
    fn begin_to_write(&self) -> WriteGuard<'_, T, RANK> {
        exchanged();
        let end = self.readers.end.load(SeqCst);
        debug_assert!(self.here() < end, "a CPU writes that is not known to be there");
        if end > 1 {
            mutant!(WriterDoesNotWait, (), self.await_readers());
        }
        if RANK == rank::SHAPE {
            mutant!(NoteOutlivesChange, (), self.forget());
        }
        WriteGuard(self)
    }

    /// Lines of the CPUs that have ever read it.
    #[inline(always)]
    fn lines(&self) -> impl Iterator<Item = &Line> {
        let mut known = self.known.load(SeqCst);
        core::iter::from_fn(move || {
            let next = known.trailing_zeros() as usize;
            known &= known.wrapping_sub(1);
            self.readers.cpus.get(next)
        })
    }

    /// What readers have noted of it will not hold any more. They do not read now, so nobody else writes these words.
    #[inline(always)]
    fn forget(&self) {
        for line in self.lines() {
            if line.noted.load(Relaxed) == self.name() {
                line.noted.store(0, Relaxed);
            }
        }
    }

    /// False if it is closed.
    #[cold]
    #[inline(never)]
    #[cfg_attr(feature = "contention", track_caller)]
    fn wait_to_write(&self) -> bool {
        if !self.closed.load(Acquire) {
            contended();
        }
        loop {
            while self.wanted.load(Relaxed) {
                if self.closed.load(Acquire) {
                    return false;
                }
                Attentive::relax();
            }
            if !self.wanted.swap(true, SeqCst) {
                return true;
            }
        }
    }

    #[inline(never)]
    #[cfg_attr(feature = "contention", track_caller)]
    fn await_readers(&self) {
        for line in self.lines() {
            let word = &line.reads[RANK];
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

impl<T, const RANK: usize> Deref for ReadGuard<'_, T, RANK> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        self.value
    }
}

impl<const RANK: usize> Reading<'_, RANK> {
    /// What was read.
    #[inline(always)]
    fn name(&self) -> usize {
        self.0.reads[RANK].load(Relaxed)
    }

    /// What this CPU noted last, if it was about this lock and found under this key, and nobody has written since.
    #[inline(always)]
    pub fn recall(&self, key: u64) -> Option<u64> {
        let line = self.0;
        let found = line.key.load(Relaxed) == key && line.noted.load(Relaxed) == self.name();
        found.then(|| line.value.load(Relaxed))
    }

    /// Note what was found under the key, which holds until somebody writes.
    pub fn remember(&self, key: u64, value: u64) {
        let line = self.0;
        line.key.store(key, Relaxed);
        line.value.store(value, Relaxed);
        line.noted.store(self.name(), Relaxed);
    }
}

impl<const RANK: usize> Drop for Reading<'_, RANK> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.reads[RANK].store(0, Release);
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
impl<T, const RANK: usize> WriteGuard<'_, T, RANK> {
    /// Nobody is to come after.
    pub fn close(self) {
        self.0.closed.store(true, Release);
        core::mem::forget(self);
    }
}
impl<T, const RANK: usize> Drop for WriteGuard<'_, T, RANK> {
    #[inline(always)]
    fn drop(&mut self) {
        let_go(&self.0.wanted);
    }
}
