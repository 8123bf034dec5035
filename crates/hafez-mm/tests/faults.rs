//! Disks and files that fail. Whoever needs a page that cannot be had gets an error, and nobody ever gets wrong data.
#![cfg(feature = "sim")]

mod common;

use common::run_seeds;
use hafez_mm::sim::{Faults, Setup};

const NONE: Faults = Faults { read_error: 0, write_error: 0, flip: 0, lost: 0, misplaced: 0, full: 0 };

fn with(faults: Faults) -> Setup {
    Setup { faults, threads: 2, frames: 24, swap: 4096, ..Setup::default() }
}

/// A read that fails is tried again for the page that is needed; what still fails is an error for that one alone.
#[test]
fn read_errors() {
    let outcomes = run_seeds(with(Faults { read_error: 8, ..NONE }), 0..4, 30_000);
    assert!(outcomes.iter().any(|o| o.stats.read_errors > 0));
}

/// After a write error the page stays, and goes elsewhere. No access fails for it.
#[test]
fn write_errors_lose_nothing() {
    let outcomes = run_seeds(with(Faults { write_error: 10, ..NONE }), 10..14, 30_000);
    assert!(outcomes.iter().all(|o| o.stats.write_errors > 0 && o.tally.io_errors == 0));
}

/// One bit on the disk is another: the sum says so.
#[test]
fn flipped_bits_are_seen() {
    let outcomes = run_seeds(with(Faults { flip: 50, ..NONE }), 20..24, 30_000);
    assert!(outcomes.iter().all(|o| o.stats.corrupt > 0 && o.tally.io_errors > 0));
}

/// The disk says that it wrote, and did not: the block holds an older page, whose sum is another.
#[test]
fn lost_writes_are_seen() {
    let outcomes = run_seeds(with(Faults { lost: 50, ..NONE }), 30..34, 30_000);
    assert!(outcomes.iter().all(|o| o.stats.corrupt > 0));
}

/// A page went to another block: both are seen, as the sum knows its block.
#[test]
fn misplaced_writes_are_seen() {
    let outcomes = run_seeds(with(Faults { misplaced: 50, ..NONE }), 40..44, 30_000);
    assert!(outcomes.iter().all(|o| o.stats.corrupt > 0));
}

/// A device that takes no more requests now is asked again.
#[test]
fn full_queues_cost_time_only() {
    let outcomes = run_seeds(with(Faults { full: 3, ..NONE }), 50..54, 30_000);
    assert!(outcomes.iter().all(|o| o.tally.io_errors == 0));
}

/// Files that cannot be read or written now and then: a read error is the reader's, a write error is told by sync and
/// the page stays dirty.
#[test]
fn file_errors() {
    run_seeds(Setup { file_errors: (12, 12), frames: 24, threads: 2, ..Setup::default() }, 60..64, 30_000);
}

/// Everything at once.
#[test]
fn everything_fails() {
    let faults = Faults { read_error: 20, write_error: 20, flip: 100, lost: 100, misplaced: 100, full: 5 };
    let setup = Setup {
        faults,
        file_errors: (20, 20),
        frames: 16,
        threads: 3,
        cpus: 4,
        swap: 2048,
        ..Setup::default()
    };
    run_seeds(setup, 70..74, 30_000);
}
