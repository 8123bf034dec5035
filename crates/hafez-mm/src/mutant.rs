//! Known bugs, to be put back on purpose: a test that cannot fail proves nothing.
//!
//! `mutant!(Name, bug, right)` is `right`. With the feature `mutants` it is `bug` on a thread that has switched that
//! mutant on, and a test then has to see the software machine notice (`tests/{mutants,threads,behind}.rs`). Without the
//! feature nothing of it is compiled.

/// The bugs.
#[cfg(feature = "mutants")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// Evicted pages are summed and written while processors may still write to them.
    CopyBeforeFlush,
    /// Unmapped frames are freed while processors may still use them.
    FreeBeforeFlush,
    /// A slot goes to the free list twice.
    SlotFreedTwice,
    /// Eviction forgets that a page was written.
    DirtyLost,
    /// A page that comes back from swap may be written by all.
    RightsLost,
    /// Fork leaves the parent's processors their right to write.
    ForkWithoutFlush,
    /// A fault changes entries that other spaces share.
    SharedLeafChanged,
    /// Who gets a leaf of his own leaves the right to write in the one that he leaves to the others.
    SharersMayWrite,
    /// Eviction flushes one of the spaces that share an entry.
    SharersNotFlushed,
    /// The first who leaves a shared leaf frees it.
    LeafFreedInUse,
    /// The copy of a leaf is used before processors have forgotten the way through the old one.
    OwnWithoutFlush,
    /// A huge page is opened while processors may still use it as one.
    OpenWithoutFlush,
    /// What comes from the disk is believed.
    SumIgnored,
    /// A writer does not wait for those who read.
    WriterDoesNotWait,
    /// What a CPU noted of tables is believed when they have changed.
    NoteOutlivesChange,
    /// Who changes entries trusts that reclaim has flushed what it took.
    SweepNotAwaited,
    /// A cursor does not take the lock of the leaf that it comes to.
    LeafNotLocked,
    /// A CPU gets a way to a part of a space without saying so.
    ReachesUnseen,
    /// Nobody tells those who wait that their page is there.
    WakeForgotten,
}

#[cfg(feature = "mutants")]
std::thread_local! {
    static ON: core::cell::Cell<Option<Mutant>> = const { core::cell::Cell::new(None) };
}

/// Switch one mutant on for this thread, or all off.
#[cfg(feature = "mutants")]
pub fn set(mutant: Option<Mutant>) {
    ON.set(mutant);
}

/// Whether it is on.
#[cfg(feature = "mutants")]
pub fn on(mutant: Mutant) -> bool {
    ON.get() == Some(mutant)
}

#[cfg(feature = "mutants")]
macro_rules! mutant {
    ($name:ident, $bug:expr, $right:expr) => {
        if $crate::mutant::on($crate::mutant::Mutant::$name) { $bug } else { $right }
    };
}
#[cfg(not(feature = "mutants"))]
macro_rules! mutant {
    ($name:ident, $bug:expr, $right:expr) => {
        $right
    };
}
pub(crate) use mutant;
