//! Locks: short, spinning, and never deaf.
//!
//! Who waits for a lock here cannot be interrupted: the kernel runs with interrupts off. Yet another CPU may wait for *it*
//! to forget translations (a flush), perhaps with the very lock in hand. So whoever spins, on whatever, serves such
//! requests between two looks at the lock: [`set_idler`] tells how. That is what makes it right to flush with locks held,
//! and it only holds if every lock of kernel and core is one of these: none is taken from the lock crate directly.
//!
//! ```text
//!   CPU 0  holds the tables' lock, flushes, waits for CPU 1 ──┐
//!   CPU 1  spins for the tables' lock ── idler: flush, answer ┘ ── … gets the lock
//! ```
//!
//! Waiting is never part of who waits: there are two thousand places that lock, and each would carry the loop.
//!
//! What many read and few change, and what CPUs must not meet at, is behind a [`BigReaderLock`].
//!
//! With the feature `contention`, each acquisition that found its lock taken is counted, with its place in the source.

mod atomic;
mod big_reader;

pub use big_reader::{BigReaderLock, ReadGuard, Readers, Reading, WriteGuard, rank};
pub use spin::RelaxStrategy;

/// What a CPU does between two looks at what it waits for.
pub struct Attentive;

impl RelaxStrategy for Attentive {
    #[inline]
    fn relax() {
        if let Some(idler) = IDLER.get() {
            idler();
        }
    }
}

static IDLER: spin::Once<fn()> = spin::Once::new();

/// Have `idler` called while somebody spins. It must take no lock.
pub fn set_idler(idler: fn()) {
    IDLER.call_once(|| idler);
}

pub type MutexGuard<'a, T> = spin::mutex::MutexGuard<'a, T, Attentive>;
pub type RwLockReadGuard<'a, T> = spin::rwlock::RwLockReadGuard<'a, T, Attentive>;
pub type RwLockWriteGuard<'a, T> = spin::rwlock::RwLockWriteGuard<'a, T, Attentive>;
/// Written once, read without a lock.
pub type Once<T> = spin::once::Once<T, Attentive>;
/// Made at its first use.
pub type LazyLock<T, F = fn() -> T> = spin::lazylock::LazyLock<T, F, Attentive>;

/// Access for one at a time.
#[derive(Default)]
pub struct Mutex<T>(spin::mutex::Mutex<T, Attentive>);

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Mutex(spin::mutex::Mutex::new(value))
    }
    #[inline(always)]
    #[cfg_attr(feature = "contention", track_caller)]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        match self.0.try_lock() {
            Some(guard) => guard,
            None => self.wait(),
        }
    }
    #[cold]
    #[inline(never)]
    #[cfg_attr(feature = "contention", track_caller)]
    fn wait(&self) -> MutexGuard<'_, T> {
        contended();
        self.0.lock()
    }
    #[inline(always)]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock()
    }
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

/// Access for one who writes, or for many who read.
#[derive(Default)]
pub struct RwLock<T>(spin::rwlock::RwLock<T, Attentive>);

impl<T> RwLock<T> {
    pub const fn new(value: T) -> Self {
        RwLock(spin::rwlock::RwLock::new(value))
    }
    #[inline(always)]
    #[cfg_attr(feature = "contention", track_caller)]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        match self.0.try_read() {
            Some(guard) => guard,
            None => self.wait_to_read(),
        }
    }
    #[inline(always)]
    #[cfg_attr(feature = "contention", track_caller)]
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        match self.0.try_write() {
            Some(guard) => guard,
            None => self.wait_to_write(),
        }
    }
    #[cold]
    #[inline(never)]
    #[cfg_attr(feature = "contention", track_caller)]
    fn wait_to_read(&self) -> RwLockReadGuard<'_, T> {
        contended();
        self.0.read()
    }
    #[cold]
    #[inline(never)]
    #[cfg_attr(feature = "contention", track_caller)]
    fn wait_to_write(&self) -> RwLockWriteGuard<'_, T> {
        contended();
        self.0.write()
    }
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }
}

/// A lock was found taken.
#[cfg(not(feature = "contention"))]
pub(crate) fn contended() {}

#[cfg(feature = "contention")]
#[track_caller]
pub(crate) fn contended() {
    contention::note(core::panic::Location::caller());
}

#[cfg(feature = "contention")]
pub mod contention {
    //! Who found a lock taken, by place in the source.

    use core::panic::Location;
    use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering::*};

    /// Places that can be told apart; there are about two hundred calls of `lock` in all.
    const PLACES: usize = 256;

    struct Place {
        at: AtomicPtr<Location<'static>>,
        count: AtomicU64,
    }

    static TABLE: [Place; PLACES] =
        [const { Place { at: AtomicPtr::new(core::ptr::null_mut()), count: AtomicU64::new(0) } }; PLACES];

    pub(super) fn note(at: &'static Location<'static>) {
        let wanted = core::ptr::from_ref(at).cast_mut();
        for place in &TABLE {
            let found = match place.at.compare_exchange(core::ptr::null_mut(), wanted, AcqRel, Acquire) {
                Ok(_) => wanted,
                Err(other) => other,
            };
            if found == wanted {
                place.count.fetch_add(1, Relaxed);
                return;
            }
        }
    }

    /// Each place where a lock was found taken, as file, line and how often.
    pub fn each(f: &mut dyn FnMut(&'static str, u32, u64)) {
        for place in &TABLE {
            let at = place.at.load(Acquire);
            if at.is_null() {
                break;
            }
            // SAFETY: `note` stores nothing but references that live for ever.
            let at = unsafe { &*at };
            f(at.file(), at.line(), place.count.load(Relaxed));
        }
    }
}
