//! The words that the lock for readers and writers is made of: the processor's, or those of a model (feature `model`), which goes through
//! the orders in which two CPUs may do what they do, and what each may then see (`tests/model.rs`).

#[cfg(not(feature = "model"))]
pub use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
#[cfg(feature = "model")]
pub use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};

/// After an exchange with the order `SeqCst`: whatever comes later in the program comes later for all. That is so already; the
/// model takes such an exchange for less than it is, unless there is a fence behind.
#[inline(always)]
pub fn exchanged() {
    #[cfg(feature = "model")]
    loom::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

/// Let go of what an exchange took. The model has a store and another's exchange in no order, and goes on for ever seeing both; so
/// there this is an exchange too.
#[inline(always)]
pub fn let_go(word: &AtomicBool) {
    #[cfg(not(feature = "model"))]
    word.store(false, core::sync::atomic::Ordering::Release);
    #[cfg(feature = "model")]
    word.swap(false, core::sync::atomic::Ordering::Release);
}
