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

/// Pages of a file that nobody alive has made, locked by a mapping: whose that is goes, not the largest that has locked nothing.
#[test]
fn who_locks_files_goes_for_it() {
    const PARENT: &str = r#"
import subprocess, sys
mine = bytearray(b"x") * (24 << 20)
subprocess.run(["sh", "-c", "head -c 100M /dev/zero | tr '\\0' 'y' > /tmp/made"], check=True)
locker = """
import mmap, os
fd = os.open("/tmp/made", os.O_RDWR)
mmap.mmap(fd, 100 << 20, mmap.MAP_SHARED | 0x2000)
"""
ended = subprocess.run([sys.executable, "-c", locker]).returncode
print(ended, len(mine), mine.count(b"x"))
"#;
    let outcome = Hafez::memory("64M").seconds(300).run(&["python3", "-c", PARENT]);
    assert_eq!(outcome.text(), "-9 25165824 25165824\n", "{outcome:?}");
    assert!(outcome.complaint().contains("of files it had locked"), "{outcome:?}");
}
