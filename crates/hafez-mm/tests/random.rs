//! Random programs on small machines, against the oracle.
#![cfg(feature = "sim")]
use hafez_mm::PolicyKind;
use hafez_mm::sim::{Setup, World};

fn run(setup: Setup, operations: u64) {
    eprintln!("{setup:?}");
    let world = World::new(setup);
    world.run(operations);
    let tally = world.finish();
    let s = world.memory().stats();
    eprintln!(
        "{tally:?} in {} out {} file in {} out {} ahead {} wasted {} kills {} filled {}",
        s.swapped_in,
        s.swapped_out,
        s.file_in,
        s.file_out,
        s.ahead_used,
        s.ahead_wasted,
        s.oom_kills,
        s.filled
    );
}

fn env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|s| s.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn one() {
    let setup = Setup {
        seed: env("SIM_SEED", 1),
        frames: env("FRAMES", 32) as u32,
        processes: env("PROCS", 3) as usize,
        threads: env("THREADS", 1) as usize,
        objects: env("OBJECTS", 2) as usize,
        delayed: env("DELAYED", 2) as u32,
        swap: env("SWAP", 1024) as u32,
        kreclaim: env("KRECLAIM", 1) == 1,
        policy: if env("CLOCK", 0) == 1 { PolicyKind::Clock } else { PolicyKind::Generations },
        ..Setup::default()
    };
    run(setup, env("OPS", 20000));
}
