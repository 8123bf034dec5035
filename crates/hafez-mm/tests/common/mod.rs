//! What the tests share: run a world by its setup, and say how to repeat it if it fails.
#![allow(dead_code)]

use hafez_mm::Stats;
use hafez_mm::sim::world::Tally;
use hafez_mm::sim::{Setup, World};
use hafez_mm::{Backing, MapRequest, RegionFlags, Rights, Where};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// A wish for private anonymous memory, to be read and written, in the part of the space that is nobody's.
pub fn anonymous(at: Where, pages: u64) -> MapRequest {
    MapRequest {
        at,
        pages,
        rights: Rights::READ | Rights::WRITE,
        max_rights: Rights::all(),
        backing: Backing::Anonymous,
        shared: false,
        label: None,
        grows_down: None,
        wired: false,
        special: RegionFlags::empty(),
        by: None,
    }
}

/// What a run came to.
pub struct Outcome {
    pub tally: Tally,
    pub stats: Stats,
}

/// Run a world for so many operations, to an empty machine.
///
/// `SIM_SEED` replaces the seed, `SIM_OPERATIONS` the number; `SIM_TRACE` prints every call.
pub fn run(setup: Setup, operations: u64) -> Outcome {
    let setup = Setup { seed: env("SIM_SEED").unwrap_or(setup.seed), ..setup };
    let operations = env("SIM_OPERATIONS").unwrap_or(operations);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let world = World::new(setup);
        world.run(operations);
        let tally = world.finish();
        Outcome { tally, stats: world.memory().stats() }
    }));
    match result {
        Ok(outcome) => outcome,
        Err(panic) => {
            eprintln!(
                "failed: {setup:?}\nrepeat with SIM_SEED={} (SIM_TRACE=1 prints every call)",
                setup.seed
            );
            resume_unwind(panic)
        }
    }
}

/// Several worlds, seed after seed.
pub fn run_seeds(setup: Setup, seeds: std::ops::Range<u64>, operations: u64) -> Vec<Outcome> {
    seeds.map(|seed| run(Setup { seed, ..setup }, operations)).collect()
}

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
