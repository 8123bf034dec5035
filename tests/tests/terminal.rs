//! On a terminal it is a terminal: echo and line editing, size, Ctrl-C, job control.

use hafez_tests::{Hafez, Outcome};
use std::process::Command;

/// Runs a program inside, on a terminal, typing by `steps` (see terminal.py); line ends as a file has them.
#[track_caller]
fn type_at(steps: &str, program: &[&str]) -> (i32, String) {
    let inner = Hafez::memory("64M").command(program);
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "60", "python3", "-c", include_str!("../src/terminal.py"), steps]);
    command.arg(inner.get_program()).args(inner.get_args());
    command.env_clear().envs(inner.get_envs().filter_map(|(k, v)| Some((k, v?)))).env("TERM", "dumb");
    let done = command.output().expect("a terminal");
    let outcome = Outcome { code: done.status.code().unwrap_or(-1), out: done.stdout, err: done.stderr };
    assert!(outcome.code != 124, "no end: {outcome:?}");
    (outcome.code, outcome.text().replace("\r\n", "\n"))
}

#[test]
fn it_has_a_size_and_a_line_discipline() {
    let (code, said) = type_at(
        r#"[["ready", "wrx\u007fong\u0015right\r"]]"#,
        &[
            "sh",
            "-c",
            "stty size; test -t 0 && test -t 1 && test -t 2 && echo ready; read x; echo got:$x; exit 5",
        ],
    );
    assert!(said.starts_with("33 111\nready\n"), "{said:?}");
    assert!(said.ends_with("got:right\n"), "{said:?}");
    assert_eq!(code, 5);
}

#[test]
fn ctrl_c_interrupts() {
    let (code, said) = type_at(r#"[["ready", "\u0003"]]"#, &["sh", "-c", "echo ready; sleep 30; echo no"]);
    assert_eq!((code, said.as_str()), (130, "ready\n^C"));
}

#[test]
fn ctrl_d_ends_the_input() {
    let (code, said) = type_at(r#"[["ready", "one\rtwo\r\u0004"]]"#, &["sh", "-c", "echo ready; wc -l"]);
    assert!(code == 0 && said.ends_with("two\n2\n"), "{said:?}");
}

#[test]
fn a_new_size_is_told() {
    let program = ["bash", "-c", "trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.05; done"];
    let (code, said) = type_at(r#"[["ready", [50, 99]]]"#, &program);
    assert_eq!((code, said.as_str()), (3, "ready\n50 99\n"));
}

#[test]
fn raw_mode_gives_each_key_at_once() {
    let program = ["sh", "-c", "stty -icanon -echo; echo ready; a=$(head -c1); b=$(head -c1); echo $a-$b"];
    let (code, said) = type_at(r#"[["ready", "xy"]]"#, &program);
    assert_eq!((code, said.as_str()), (0, "ready\nx-y\n"));
}

#[test]
fn a_shell_has_job_control() {
    let steps = r#"[["> ", "sh -c 'echo one; sleep 30'\r"], ["one\r\n", "\u001a"], ["> ", "jobs\r"], ["topped", ""], ["> ", "kill %1; exit 4\r"]]"#;
    let (code, said) = type_at(steps, &["sh", "-c", "PS1='> ' exec bash --norc --noediting -i"]);
    assert!(said.contains("Stopped"), "{said:?}");
    assert_eq!(code, 4, "{said:?}");
}
