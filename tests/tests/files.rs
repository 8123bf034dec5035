//! A file is what was written to it, whichever way that was done: `guests/files.c` on each file system that can be written.

use hafez_tests::{Hafez, Scratch, guest};

/// In so little RAM that pages of the file are in swap, or written back, at any time.
fn changed_in_every_way(machine: Hafez, file: &str) {
    for seed in ["1", "2", "3"] {
        let outcome = machine.run(&[guest("files").to_str().expect("a plain path"), file, seed, "1500"]);
        assert!(outcome.good().text().contains("bytes"));
    }
}

#[test]
fn in_memory() {
    changed_in_every_way(Hafez::memory("12M"), "/tmp/changed");
}

#[test]
fn on_the_host() {
    let scratch = Scratch::new();
    let machine = Hafez::memory("12M").option("--rw").option(scratch.path()).dir(scratch.path());
    changed_in_every_way(machine, "changed");
}

#[test]
fn over_the_hosts() {
    let scratch = Scratch::new();
    scratch.put("changed", "the host's");
    let machine = Hafez::memory("12M").option("--overlay").dir(scratch.path());
    changed_in_every_way(machine, "changed");
    let outside = std::fs::read_to_string(scratch.file("changed"));
    assert_eq!(outside.expect("the host's file"), "the host's");
}
