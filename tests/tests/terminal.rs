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

#[test]
fn programs_run_on_terminals_of_their_own() {
    // A terminal inside the terminal: another session, its own Ctrl-C, and the outer shell untouched.
    let steps = r#"[["> ", "script -qc 'tty; echo inner; sleep 30' /dev/null\r"], ["inner\r\n", "\u0003"], ["> ", "tty; exit 6\r"]]"#;
    let (code, said) = type_at(steps, &["sh", "-c", "PS1='> ' exec bash --norc --noediting -i"]);
    assert!(said.contains("/dev/pts/0\ninner\n^C"), "{said:?}");
    assert!(said.contains("/dev/console\n"), "{said:?}");
    assert_eq!(code, 6, "{said:?}");
}

#[test]
fn programs_draw_on_the_screen() {
    let steps = r#"[["\u001b[", "ihello\u001b:wq\r"], ["> ", "seq 100 | less\r"], ["\n:", "G"], ["END", "q"], ["> ", "cat /tmp/x; exit 3\r"]]"#;
    let script = "export TERM=xterm; vim.tiny -u NONE /tmp/x || vi -u NONE /tmp/x; PS1='> ' exec bash --norc --noediting -i";
    let (code, said) = type_at(steps, &["sh", "-c", script]);
    assert!(said.ends_with("hello\nexit\n"), "{said:?}");
    assert!(said.contains("\n100\n"), "{said:?}");
    assert_eq!(code, 3, "{said:?}");
}

#[test]
fn curses_and_pty_of_python() {
    let program = "import pty, os, curses, sys
def read(fd):
    data = os.read(fd, 1024)
    return data.replace(b'here', b'THERE')
status = pty.spawn(['sh', '-c', 'echo here; test -t 1; exit $?'], read)
def draw(screen):
    screen.addstr(1, 2, 'size %d %d' % screen.getmaxyx())
    screen.refresh()
    return screen.getkey()
key = curses.wrapper(draw)
print('key', key, 'status', status)";
    let steps = r#"[["size 33 111", "k"]]"#;
    let (code, said) = type_at(steps, &["env", "TERM=xterm", "python3", "-c", program]);
    assert!(said.starts_with("THERE\n"), "{said:?}");
    assert!(said.ends_with("key k status 0\n"), "{said:?}");
    assert_eq!(code, 0);
}
