//! The host command against a stand-in for the machine: bytes, codes, signals, and a kernel that misbehaves.

use hafez_tests::{Hafez, Outcome, Scratch};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

fn fake() -> Hafez {
    Hafez::with(&[]).variable("HAFEZ_QEMU", env!("CARGO_BIN_EXE_fake-machine")).seconds(20)
}

/// Without `-q`, so that the last line is there.
fn run(program: &[&str]) -> Outcome {
    fake().run(program)
}

#[test]
fn exit_codes_pass_through() {
    for code in [0, 1, 42, 125, 255] {
        assert_eq!(run(&["exit", &code.to_string()]).code, code);
    }
    assert_eq!(run(&["absent"]).code, 127);
}

#[test]
fn a_killed_program_is_explained_even_when_quiet() {
    let outcome = run(&["killed"]);
    assert_eq!(outcome.code, 137);
    assert_eq!(outcome.complaint(), "hafez: out of memory: it held all there was\n");
}

#[test]
fn bytes_pass_untouched_and_are_counted() {
    let mut input: Vec<u8> = (0..=255).cycle().take(3_000_001).collect();
    input.extend_from_slice(b"\r\n\x04\x03\x00");
    let outcome = fake().input(input.clone()).run(&["echo"]);
    assert_eq!(outcome.code, 0);
    assert!(outcome.out == input, "{} bytes came back of {}", outcome.out.len(), input.len());
    assert_eq!(outcome.complaint(), input.len().to_string());
}

#[test]
fn an_empty_input_ends() {
    let outcome = fake().input("").run(&["echo"]);
    assert_eq!((outcome.code, outcome.complaint().as_str()), (0, "0"));
}

#[test]
fn what_the_program_is_told() {
    let scratch = Scratch::new();
    let dir = scratch.path().to_str().expect("a plain path");
    let outcome = fake()
        .dir(dir)
        .option("--rw")
        .option(".")
        .option("-e")
        .option("A=1=2")
        .option("-e")
        .option("HOME")
        .option("--clean-env")
        .run(&["start", "-x", "ü", ""]);
    let said = outcome.good().text();
    for line in [
        "argv=[\"start\", \"-x\", \"ü\", \"\"]".to_owned(),
        "env=[\"A=1=2\", \"HOME=/root\"]".into(),
        format!("cwd={dir}"),
        "tty=[false, false, false]".into(),
        "merged=false".into(),
        "stdin=false".into(),
        format!("mounts=[(\"rw0\", \"{dir}\")]"),
    ] {
        assert!(said.lines().any(|l| l == line), "{line} is not in\n{said}");
    }
}

#[test]
fn one_file_for_both_outputs_is_seen() {
    let scratch = Scratch::new();
    let log = std::fs::File::create(scratch.file("log")).expect("a file");
    let mut command = fake().command(&["start"]);
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
    assert!(command.status().expect("a run").success());
    let said = std::fs::read_to_string(scratch.file("log")).expect("the file");
    assert!(said.contains("merged=true"), "{said}");
}

#[test]
fn signals_are_passed_on() {
    for (name, number) in [("INT", 2), ("TERM", 15), ("HUP", 1), ("USR1", 10)] {
        let mut child = fake().command(&["signal"]).stdout(Stdio::piped()).spawn().expect("a run");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        kill(name, child.id());
        assert_eq!(child.wait().expect("its end").code(), Some(128 + number), "{name}");
    }
}

#[test]
fn a_machine_that_does_not_listen_is_ended_at_the_third_signal() {
    let mut child =
        fake().command(&["deaf"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a run");
    let mut output = BufReader::new(child.stdout.take().expect("its output"));
    let mut line = String::new();
    output.read_line(&mut line).expect("a line");
    while child.try_wait().expect("its state").is_none() {
        kill("TERM", child.id());
        std::thread::yield_now();
    }
    assert_eq!(child.wait().expect("its end").code(), Some(128 + 15));
}

#[test]
fn a_reader_that_goes_away_stops_the_program() {
    let mut child = fake().command(&["flood"]).stdout(Stdio::piped()).spawn().expect("a run");
    let mut some = [0; 100];
    child.stdout.take().expect("its output").read_exact(&mut some).expect("some bytes");
    assert_eq!(child.wait().expect("its end").code(), Some(128 + 13));
}

#[test]
fn a_full_disk_for_the_output_is_not_success() {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let mut command = fake().command(&["start"]);
    let done = command.stdout(full).stderr(Stdio::piped()).output().expect("a run");
    assert_eq!(done.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&done.stderr).contains("standard output: No space left"));
}

#[test]
fn a_panic_is_125_and_says_so() {
    for program in ["panic", "early-panic"] {
        let mut command = fake().command(&[program]);
        let done = command.output().expect("a run");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(125), "{said}");
        assert!(said.contains("the kernel panicked"), "{said}");
        assert!(said.contains(if program == "panic" { "page 7 is lost" } else { "no memory" }), "{said}");
    }
}

#[test]
fn a_machine_that_dies_is_125_and_quotes_its_last_words() {
    let outcome = run(&["die"]);
    assert_eq!(outcome.code, 125);
    let said = outcome.complaint();
    assert!(said.contains("ended with code 1") && said.contains("qemu: cannot go on"), "{said}");
}

#[test]
fn nonsense_on_the_control_port_is_125() {
    let outcome = run(&["garbage"]);
    assert_eq!(outcome.code, 125);
    assert!(outcome.complaint().contains("control port"), "{outcome:?}");
}

#[test]
fn log_lines_are_shown_from_the_level_asked_for() {
    assert_eq!(run(&["log"]).complaint(), "hafez: Error\nhafez: Warn\n");
    let outcome = fake().variable("HAFEZ_LOG", "error").run(&["log"]);
    assert_eq!(outcome.complaint(), "hafez: Error\n");
    let outcome = fake().variable("HAFEZ_LOG", "loud").run(&["log"]);
    assert_eq!(outcome.code, 125);
    assert!(outcome.complaint().contains("\"loud\" is none of"), "{outcome:?}");
}

#[test]
fn nothing_outlives_a_killed_command() {
    let scratch = Scratch::new();
    let mut child = fake()
        .variable("TMPDIR", scratch.path())
        .command(&["deaf"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a run");
    let mut output = BufReader::new(child.stdout.take().expect("its output"));
    let mut line = String::new();
    output.read_line(&mut line).expect("a line");
    let machine = children(child.id());
    assert_eq!(machine.len(), 1, "one machine");
    child.kill().expect("the kill");
    child.wait().expect("its end");
    // The system kills the machine at once, but its end takes a moment; nothing tells a stranger when, so look again.
    let gone = || std::fs::read_to_string(format!("/proc/{}/stat", machine[0])).is_err();
    for _ in 0..1000 {
        if gone() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(gone(), "the machine lives on");
    assert_eq!(std::fs::read_dir(scratch.path()).expect("the directory").count(), 0);
}

fn children(of: u32) -> Vec<u32> {
    let list =
        std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).expect("the list of children");
    list.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect()
}

fn kill(signal: &str, process: u32) {
    let sent = Command::new("kill").args(["-s", signal, &process.to_string()]).status();
    assert!(sent.is_ok_and(|s| s.success()), "kill -s {signal} {process}");
}
