//! Known bugs, put back one at a time: each must be noticed.
//!
//! The same worlds pass without them (`tests/random.rs`, `tests/faults.rs`). Bugs of locks need real threads (`tests/threads.rs`), and
//! one needs a moment that chance rarely finds (`tests/behind.rs`). What notices is told by the panic: wrong data, a stale
//! translation in use, the audit, an assertion of the core's, or a hang.
#![cfg(feature = "mutants")]

use hafez_mm::PolicyKind::{Clock, Generations};
use hafez_mm::mutant::{self, Mutant};
use hafez_mm::sim::{Faults, Setup, World};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Run worlds with the bug until one fails, and tell how; then one without, which must not.
fn caught(bug: Mutant, setup: Setup) {
    let run = |setup| {
        catch_unwind(AssertUnwindSafe(|| {
            let world = World::new(setup);
            world.run(10_000);
            world.finish();
        }))
    };
    for seed in 1..=100 {
        let policy = if seed % 2 == 0 { Clock } else { Generations };
        let setup = Setup { seed, policy, ..setup };
        mutant::set(Some(bug));
        let result = run(setup);
        mutant::set(None);
        if let Err(panic) = result {
            let why = panic.downcast_ref::<String>().map_or("a failed assertion", |s| s);
            println!("{bug:?} is caught: {why}");
            assert!(run(setup).is_ok(), "and without it all is well");
            return;
        }
    }
    panic!("{bug:?} lives: nobody noticed in a hundred worlds");
}

fn small() -> Setup {
    Setup { frames: 16, threads: 2, ..Setup::default() }
}

#[test]
fn copy_before_flush() {
    // What is written at once, and mapped by many, gives the bug its chance.
    caught(Mutant::CopyBeforeFlush, Setup { delayed: 0, objects: 4, processes: 4, ..small() });
}

#[test]
fn free_before_flush() {
    caught(Mutant::FreeBeforeFlush, small());
}

#[test]
fn slot_freed_twice() {
    caught(Mutant::SlotFreedTwice, small());
}

#[test]
fn dirty_bit_lost() {
    caught(Mutant::DirtyLost, small());
}

#[test]
fn rights_lost_after_swap_in() {
    caught(Mutant::RightsLost, small());
}

#[test]
fn fork_without_flush() {
    caught(Mutant::ForkWithoutFlush, small());
}

/// Processes that fork much, on several processors.
fn forking() -> Setup {
    Setup { frames: 24, cpus: 3, processes: 4, threads: 2, ..Setup::default() }
}

#[test]
fn shared_leaf_changed() {
    caught(Mutant::SharedLeafChanged, forking());
}

#[test]
fn sharers_may_write() {
    caught(Mutant::SharersMayWrite, forking());
}

#[test]
fn sharers_not_flushed() {
    caught(Mutant::SharersNotFlushed, forking());
}

#[test]
fn leaf_freed_in_use() {
    caught(Mutant::LeafFreedInUse, forking());
}

#[test]
fn own_without_flush() {
    caught(Mutant::OwnWithoutFlush, Setup { frames: 128, cpus: 4, threads: 4, processes: 2, ..forking() });
}

#[test]
fn reaches_unseen() {
    caught(Mutant::ReachesUnseen, Setup { frames: 128, cpus: 4, threads: 4, processes: 2, ..forking() });
}

#[test]
fn checksum_ignored() {
    let faults = Faults { lost: 50, ..Faults::default() };
    caught(Mutant::SumIgnored, Setup { faults, ..small() });
}

#[test]
fn wake_up_forgotten() {
    caught(Mutant::WakeForgotten, Setup { threads: 3, delayed: 1, ..small() });
}

/// Programs with regions of several MiB, in less RAM than they would fill.
fn wide() -> Setup {
    Setup { frames: 4_000, swap: 8_192, cpus: 3, threads: 2, wide: true, ..Setup::default() }
}

#[test]
fn opened_without_flush() {
    caught(Mutant::OpenWithoutFlush, wide());
}
