//! Linux says the same: programs of checks (`tests/abi/*.c`) print what each system call answers, here and inside.

use hafez_tests::{Hafez, Scratch, host};
use std::path::Path;
use std::process::Command;

/// Compile a program of checks, run it inside and outside, and compare line by line.
fn same(name: &str) {
    let scratch = Scratch::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("abi").join(format!("{name}.c"));
    let program = scratch.file(name);
    let built = Command::new("gcc")
        .args(["-static", "-O1", "-w", "-pthread", "-o"])
        .arg(&program)
        .arg(source)
        .status();
    assert!(built.expect("gcc").success());
    let outside = host(&[&program], None, Path::new("/")).good().text();
    let inside = Hafez::memory("64M").run(&[&program]).good().text();
    let differing: Vec<String> = outside
        .lines()
        .zip(inside.lines())
        .filter(|(here, there)| here != there)
        .map(|(here, there)| format!("  Linux: {here}\n  Hafez: {there}"))
        .collect();
    assert!(
        differing.is_empty(),
        "{} of {} checks differ:\n{}",
        differing.len(),
        outside.lines().count(),
        differing.join("\n")
    );
    assert_eq!(outside.lines().count(), inside.lines().count(), "one of the two ended early:\n{inside}");
}

#[test]
fn memory() {
    same("memory");
}

#[test]
fn futexes() {
    same("futex");
}

#[test]
fn time() {
    same("time");
}

#[test]
fn limits() {
    same("limits");
}
