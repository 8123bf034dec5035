//! Random programs on small machines: every load must see the last store, whatever was evicted in between, and every
//! invariant must hold at every quiet point. More than 10^6 operations in all.
#![cfg(feature = "sim")]

mod common;

use common::{run, run_seeds};
use hafez_mm::PolicyKind::{Clock, Generations};
use hafez_mm::sim::Setup;

/// One process, nothing asynchronous: what fails here is easiest to follow.
#[test]
fn one_process() {
    for policy in [Generations, Clock] {
        let setup =
            Setup { processes: 1, objects: 0, delayed: 0, kreclaim: false, policy, ..Setup::default() };
        run_seeds(setup, 0..3, 20_000);
    }
}

/// Families of processes, files and shared memory, the disk answering in any order.
#[test]
fn families_with_generations() {
    run_seeds(Setup { policy: Generations, ..Setup::default() }, 10..14, 50_000);
}

#[test]
fn families_with_clock() {
    run_seeds(Setup { policy: Clock, ..Setup::default() }, 20..24, 50_000);
}

/// As few frames as it goes with.
#[test]
fn eight_frames() {
    for policy in [Generations, Clock] {
        run_seeds(Setup { processes: 1, frames: 8, policy, ..Setup::default() }, 30..32, 50_000);
    }
}

/// Several threads in each space, on four processors.
#[test]
fn threads() {
    for policy in [Generations, Clock] {
        run_seeds(Setup { frames: 20, threads: 3, cpus: 4, policy, ..Setup::default() }, 40..42, 50_000);
    }
}

/// Processors that go by views of their own, which takes frames for each.
#[test]
fn views() {
    for policy in [Generations, Clock] {
        let setup = Setup { frames: 96, processes: 4, threads: 4, cpus: 4, policy, ..Setup::default() };
        run_seeds(setup, 80..82, 50_000);
    }
}

/// A disk that is soon full, or none: processes are killed, and the rest is right.
#[test]
fn little_swap() {
    for swap in [0, 16, 64] {
        let setup = Setup { frames: 16, processes: 5, threads: 2, swap, ..Setup::default() };
        run_seeds(setup, 50..52, 30_000);
    }
}

/// Every size from 8 to 64 frames.
#[test]
fn every_size() {
    for frames in 8..=64 {
        let policy = if frames % 2 == 0 { Generations } else { Clock };
        let setup = Setup { seed: 1000 + frames as u64, frames, policy, threads: 2, ..Setup::default() };
        run(setup, 4_000);
    }
}

/// The reclaim thread and the disk interleave with everything; without it, each fault reclaims for itself.
#[test]
fn with_and_without_reclaim_thread() {
    for kreclaim in [true, false] {
        run_seeds(Setup { kreclaim, delayed: 1, frames: 24, ..Setup::default() }, 60..62, 30_000);
    }
}

/// Pages go to swap and come back in numbers that mean something.
#[test]
fn pressure_is_extreme() {
    let outcome = run(Setup { seed: 70, frames: 12, ..Setup::default() }, 50_000);
    assert!(outcome.stats.swapped_in > 2_000 && outcome.stats.swapped_out > 2_000, "{:?}", outcome.stats);
    assert!(outcome.stats.file_in > 1_000 && outcome.tally.stale_stores > 100 && outcome.tally.forks > 20);
}

/// Where there is enough of everything, nobody is killed.
#[test]
fn enough_is_enough() {
    for policy in [Generations, Clock] {
        run_seeds(
            Setup { frames: 64, processes: 2, roomy: true, policy, ..Setup::default() },
            80..84,
            30_000,
        );
    }
}

/// Regions of several MiB: huge pages come, are cut up by every call, forked, opened under pressure, and swapped.
#[test]
fn huge_pages() {
    for (policy, frames, least) in
        [(Generations, 12_000, 15), (Clock, 12_000, 15), (Generations, 4_000, 3), (Clock, 4_000, 3)]
    {
        let setup = Setup { frames, swap: 8_192, threads: 2, wide: true, policy, ..Setup::default() };
        for outcome in run_seeds(setup, 90..93, 10_000) {
            assert!(outcome.stats.huge_made >= least, "{:?}", outcome.stats);
        }
    }
}
