//! Right when it is wrong: each failure has its code, its words, and harms nobody else.

use hafez_tests::{Hafez, Outcome, Scratch, guest};
use std::path::PathBuf;

fn small() -> Hafez {
    Hafez::memory("32M")
}

fn path(program: &str) -> String {
    guest(program).to_str().expect("a plain path").to_owned()
}

#[track_caller]
fn failed(outcome: &Outcome, code: i32, words: &[&str]) {
    assert_eq!(outcome.code, code, "{outcome:?}");
    for part in words {
        assert!(outcome.complaint().contains(part), "{part:?} is not said: {outcome:?}");
    }
}

#[test]
fn no_such_program() {
    failed(&small().run(&["no-such-program"]), 127, &["no-such-program"]);
    failed(&small().run(&["/usr/bin/no-such-program"]), 127, &["no-such-program"]);
    failed(&small().run(&["/nowhere/at/all"]), 127, &["/nowhere/at/all"]);
}

#[test]
fn not_executable() {
    failed(&small().run(&["/etc/passwd"]), 126, &["/etc/passwd"]);
    failed(&small().run(&["/usr"]), 126, &["/usr"]);
    let scratch = Scratch::new();
    let junk = scratch.put("junk", [0x7f, b'E', b'L', b'F', 9, 9, 9, 9]);
    std::fs::set_permissions(&junk, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its mode");
    failed(&small().run(&[&junk]), 126, &["junk"]);
}

#[test]
fn bad_arguments_get_one_line() {
    let run = |options: &[&str]| Hafez::with(options).run(&["true"]);
    for (options, words) in [
        (&["-m", "1M"][..], &["minimum", "4 MiB"][..]),
        (&["-m", "2M"], &["minimum", "4 MiB"]),
        (&["-m", "lots"], &["lots"]),
        (&["--swap", "/nowhere/swap"], &["/nowhere/swap"]),
        (&["--swap", "9999T"], &["no room"]),
        (&["--root", "/nowhere"], &["--root /nowhere"]),
        (&["--rw", "/nowhere"], &["--rw /nowhere"]),
        (&["--cpus", "17"], &["--cpus"]),
    ] {
        let outcome = run(options);
        failed(&outcome, 125, words);
        assert_eq!(outcome.complaint().lines().count(), 1, "{outcome:?}");
    }
}

#[test]
fn an_unwritable_place_for_swap_is_said_before_the_start() {
    let run = Hafez::with(&["--swap", "/proc"]).run(&["true"]);
    failed(&run, 125, &["--swap /proc"]);
}

#[test]
fn a_wild_access_is_a_signal_with_the_right_address() {
    for what in ["null", "kernel", "high", "readonly", "noexec", "gone", "pastend", "guard"] {
        small().same(&[path("wild").as_str(), what, "catch"]);
        small().same(&[path("wild").as_str(), what]);
    }
}

#[test]
fn a_wild_program_dies_alone() {
    let wild = path("wild");
    let script = format!("{wild} null; echo $?; {wild} kernel; echo $?; {wild} guard; echo $?; echo alive");
    let outcome = small().run(&["/bin/sh", "-c", &script]);
    assert_eq!(outcome.text(), "139\n139\n139\nalive\n");
}

#[test]
fn memory_that_runs_out_is_explained() {
    let outcome = Hafez::with(&["-m", "32M", "--swap", "16M"]).run(&[path("hold").as_str(), "200"]);
    failed(&outcome, 137, &["hold", "memory"]);
}

#[test]
fn others_live_when_memory_runs_out() {
    let hold = path("hold");
    let script = format!("{hold} 200; echo $?; seq 1 1000 | tail -1");
    let outcome = Hafez::with(&["-m", "32M", "--swap", "0"]).run(&["/bin/sh", "-c", &script]);
    assert_eq!((outcome.code, outcome.text().as_str()), (0, "137\n1000\n"), "{outcome:?}");
}

/// A swap disk with bad places all over its first 32 MiB, where requests of one kind fail, as QEMU's block layer can play it.
fn bad_disk(scratch: &Scratch, kind: &str, once: bool) -> String {
    let disk = scratch.file("swap");
    std::fs::File::create(&disk).and_then(|f| f.set_len(128 << 20)).expect("a disk");
    let rules: Vec<String> = (1..=16)
        .map(|n| {
            let sector = n * 4096;
            format!(
                r#"{{"event":"none","iotype":"{kind}","errno":5,"sector":{sector},"once":{once},"immediately":false}}"#
            )
        })
        .collect();
    format!(
        r#"json:{{"driver":"raw","file":{{"driver":"blkdebug","image":{{"driver":"file","filename":"{}"}},"inject-error":[{}]}}}}"#,
        disk.display(),
        rules.join(",")
    )
}

#[test]
fn a_read_error_on_swap_is_a_bus_error_for_the_one_that_needed_it() {
    let scratch = Scratch::new();
    let disk = bad_disk(&scratch, "read", false);
    let program = path("overcommit");
    let outcome = Hafez::with(&["-m", "16M", "--swap", &disk]).run(&[
        "/bin/sh",
        "-c",
        &format!("{program} 48 1; echo code $?; seq 3"),
    ]);
    assert!(outcome.text().ends_with("code 135\n1\n2\n3\n"), "{outcome:?}");
}

#[test]
fn a_passing_read_error_is_tried_again() {
    let scratch = Scratch::new();
    let disk = bad_disk(&scratch, "read", true);
    let program = path("overcommit");
    Hafez::with(&["-m", "16M", "--swap", &disk]).same(&[program.as_str(), "48", "1"]);
}

#[test]
fn a_write_error_on_swap_costs_a_slot_and_nothing_else() {
    let scratch = Scratch::new();
    let disk = bad_disk(&scratch, "write", false);
    let program = path("overcommit");
    Hafez::with(&["-m", "16M", "--swap", &disk]).same(&[program.as_str(), "48", "1"]);
}

#[test]
fn damage_on_the_swap_disk_is_never_believed() {
    let scratch = Scratch::new();
    let disk = scratch.file("swap");
    std::fs::File::create(&disk).and_then(|f| f.set_len(128 << 20)).expect("a disk");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let damaged = disk.clone();
    // Beside the run, bits on the disk are flipped wherever there is something but zeros.
    let damage = std::thread::spawn(move || flip_bits(&damaged, &stopped));
    let program = path("overcommit");
    let outcome = Hafez::with(&["-m", "16M", "--swap"]).option(&disk).run(&[
        "/bin/sh",
        "-c",
        &format!("{program} 48 4; echo code $?"),
    ]);
    drop(stop);
    let flipped = damage.join().expect("the damage");
    assert!(flipped > 0, "nothing was damaged");
    assert_eq!(outcome.text(), "code 135\n", "{outcome:?}");
}

fn flip_bits(disk: &PathBuf, stopped: &std::sync::mpsc::Receiver<()>) -> u64 {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().read(true).write(true).open(disk).expect("the disk");
    let mut flipped = 0;
    // The first block is the mark that the command leaves.
    for block in (1..(128 << 20) / 4096_u64).cycle() {
        if stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Disconnected) {
            return flipped;
        }
        let at = block * 4096 + block * 97 % 4096;
        let mut byte = [0];
        if block % 64 == 1 && file.read_exact_at(&mut byte, at).is_ok() && byte[0] != 0 {
            byte[0] ^= 4;
            flipped += u64::from(file.write_all_at(&byte, at).is_ok());
        }
    }
    flipped
}

#[test]
fn a_reader_that_goes_away_is_a_broken_pipe() {
    use std::io::Read;
    let mut command = small().command(&["yes"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("a run");
    child.stdout.take().expect("its output").read_exact(&mut [0; 10]).expect("some bytes");
    assert_eq!(child.wait().expect("its end").code(), Some(141));
}

#[test]
fn interrupts_reach_the_program() {
    use std::io::{BufRead, BufReader};
    let mut command = small().command(&[
        "bash",
        "-c",
        "trap 'echo trapped; exit 7' INT; echo ready; while :; do sleep 0.1; done",
    ]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("a run");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "ready");
    let sent = std::process::Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status();
    assert!(sent.expect("kill").success());
    assert_eq!(lines.next().expect("a line").expect("text"), "trapped");
    assert_eq!(child.wait().expect("its end").code(), Some(7));
}

#[test]
fn garbage_in_every_system_call_harms_nobody() {
    let outcome = Hafez::memory("64M").seconds(300).run(&[path("fuzz").as_str(), "1", "40"]);
    assert_eq!((outcome.code, outcome.text().as_str()), (0, "alive\n"), "{outcome:?}");
}

/// Processes with threads that make calls which mostly make sense, at random, with more memory than there is.
fn havoc(memory: &str, seed: &str, rounds: &str, mebibytes: &str) {
    let run = Hafez::memory(memory).seconds(1800);
    let outcome = run.run(&[path("havoc").as_str(), seed, rounds, mebibytes]);
    let alive = outcome.code == 0 && outcome.text().starts_with("alive") && outcome.err.is_empty();
    assert!(alive, "seed {seed}: {outcome:?}");
}

/// What a child of `guests/core.c` left, in a file of this name.
fn core_file(name: &str, threads: u32) -> String {
    format!(
        "signal 11, core 1\n{name}: mode 600\ntype 4, machine 62\nsignal 11, r15 1122334455667788\nname core\n\
         code 1, address 0x8\nxmm7 77\nthreads {threads}, notes 7, memory all, wrong 0\n"
    )
}

#[test]
fn a_core_file_has_all_that_was() {
    let whole = [
        core_file("core", 1),
        core_file("core", 4),
        core_file("core.PID", 1),
        core_file("core-PID-11-0-%", 1),
        "signal 15, core 0\nsignal 11, core 0\nsignal 11, core 0\ncore: No such file or directory\n".into(),
        "signal 3, core 1\nshort: 1\na program to hand it to: Invalid argument\n".into(),
    ]
    .concat();
    // In ample memory, and where neither the memory nor the file fits.
    for (memory, mebibytes) in [("64M", "1"), ("16M", "24")] {
        let machine = Hafez::memory(memory).option("-w").option("/tmp").seconds(600);
        let outcome = machine.run(&[path("core").as_str(), mebibytes]);
        // Numbers of processes are as they come.
        let told: Vec<String> = outcome
            .text()
            .lines()
            .map(|line| match line.strip_prefix("core").and_then(|rest| rest.split_once(": mode")) {
                Some((name, _)) if !name.is_empty() => {
                    let digits = name[1..].chars().take_while(char::is_ascii_digit).count();
                    format!("core{}PID{}: mode 600", &name[..1], &name[1 + digits..])
                }
                _ => line.to_owned(),
            })
            .collect();
        assert_eq!(told.join("\n") + "\n", whole, "{outcome:?}");
        assert_eq!(outcome.code, 0, "{outcome:?}");
    }
}

#[test]
fn many_that_misbehave_at_once_harm_nobody() {
    havoc("64M", "1", "6", "0");
    havoc("32M", "2", "6", "64");
}

#[test]
#[ignore = "long"]
fn much_misbehaviour_harms_nobody() {
    for seed in 3..23 {
        havoc(if seed % 2 == 0 { "24M" } else { "64M" }, &seed.to_string(), "60", "96");
    }
}

#[test]
#[ignore = "long"]
fn much_garbage_harms_nobody() {
    for seed in 2..12 {
        let outcome =
            Hafez::memory("64M").seconds(1800).run(&[path("fuzz").as_str(), &seed.to_string(), "200"]);
        assert_eq!((outcome.code, outcome.text().as_str()), (0, "alive\n"), "seed {seed}: {outcome:?}");
    }
}
