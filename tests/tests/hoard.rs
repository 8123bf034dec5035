//! Whatever a program takes, the kernel stays: there is an error number or an explained end, and the machine goes on.

use hafez_tests::{Hafez, guest};

/// One program that takes all it can get of `kind` for so many seconds, `processes` at once, in 8 MiB; then another one runs.
#[track_caller]
fn hoard(kind: &str, seconds: u32, processes: u32) {
    let program = guest("hoard");
    let script = format!("{} {kind} {seconds} {processes}; echo code $?; echo alive", program.display());
    let outcome = Hafez::memory("8M").seconds(300).run(&["/bin/sh", "-c", &script]);
    let text = outcome.text();
    let told = text.contains(&format!("{kind}: ")) && text.contains("code 0\n");
    let explained = text.contains("code 137\n") && outcome.complaint().contains("out of memory");
    let alive = outcome.code == 0 && text.ends_with("alive\n");
    assert!(alive && (told || explained), "{kind}: {outcome:?}");
}

fn kinds() -> Vec<String> {
    let list = std::process::Command::new(guest("hoard")).arg("list").output().expect("its kinds");
    String::from_utf8(list.stdout).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn no_kind_of_thing_stops_the_kernel() {
    // Those that once did, and one of each sort.
    for kind in ["directories", "timers", "rights", "events", "signals", "full_pipes", "threads", "zombies"] {
        hoard(kind, 1, 1);
    }
}

#[test]
#[ignore = "long"]
fn nothing_stops_the_kernel() {
    for kind in kinds() {
        hoard(&kind, 3, 1);
        hoard(&kind, 3, 3);
    }
}
