//! Linux says the same: programs of checks (`tests/battery/*.c`) print what each system call answers, here and inside.
//!
//! The table of calls in `docs/abi.md` is made from the same place. `HAFEZ_BLESS=1` writes it anew.

use hafez_tests::battery::{self, Answers};
use hafez_tests::calls::{List, State};
use hafez_tests::{Hafez, Scratch, host};
use std::ffi::OsStr;
use std::path::Path;

/// Of this process.
fn niceness() -> String {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc/self/stat");
    let behind_name = stat.rsplit_once(')').expect("a name in brackets").1;
    behind_name.split_whitespace().nth(16).expect("a niceness").to_string()
}

/// Runs a program of checks inside and outside, and compares line by line.
fn same(family: &str) {
    let scratch = Scratch::new();
    let program = battery::build(&format!("{family}.c"), &scratch);
    let outside = host(&[&program], None, Path::new("/")).good().text();
    // As nice as out here; and on two CPUs, where those who wait for each other may miss each other.
    let nice = niceness();
    let inside = Hafez::with(&["-m", "64M", "--cpus", "2"]).run(&[
        OsStr::new("nice"),
        OsStr::new("-n"),
        OsStr::new(&nice),
        program.as_os_str(),
    ]);
    let text = inside.text();
    let (outside, answers) = (Answers::read(&outside), Answers::read(&text));
    let wrong = battery::compare(family, &outside, &answers);
    let (many, all) = (wrong.len(), outside.order.len());
    assert!(wrong.is_empty(), "{many} of {all} checks differ:\n{}", wrong.join("\n"));
    inside.good();
}

macro_rules! families {
    ($($family:ident)*) => { $(
        #[test]
        fn $family() {
            same(stringify!($family));
        }
    )* };
}
families! { aio directories events exec files frames futex identity io limits memory pidfd pipes process pty signals splice sysv time wait opening data tree sockets internet clocks advice urgent datagrams raw pages queues inheritance filters asked userfault corners trace mounts segments owners kmsg processor packets guarded swapping kinds paths scan peers droppable carried listed about }

/// What another user than root is refused. Only root can become that user, and its answers are compared under a name of their own.
#[test]
fn identity_of_nobody() {
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;
    let scratch = Scratch::new();
    let program = battery::build("identity.c", &scratch);
    if !std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        return;
    }
    let answers = |mut command: std::process::Command| {
        let done = command.current_dir("/").uid(NOBODY).gid(NOBODY).output().expect("a run");
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{text}{}", String::from_utf8_lossy(&done.stderr));
        Answers::read(&text.replace("identity.", "nobody."))
    };
    let outside = answers(std::process::Command::new(&program));
    // Nobody may not look into root's own directories, where the command may lie.
    let command = Hafez::memory("64M").command(&[&program]);
    let copy = scratch.file("hafez");
    std::fs::copy(command.get_program(), &copy).expect("a copy of the command");
    let mut readable = std::process::Command::new(&copy);
    readable.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => readable.env(name, value),
            None => readable.env_remove(name),
        };
    }
    let inside = answers(readable);
    let wrong = battery::compare("nobody", &outside, &inside);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the list says of each call is what the machine answers.
#[test]
fn calls_answer_as_listed() {
    let list = List::read();
    let scratch = Scratch::new();
    let program = battery::build("tools/answers.c", &scratch);
    let mut words = vec![program.into_os_string()];
    words.extend(list.numbers.values().map(|number| number.to_string().into()));
    let answers = Hafez::memory("64M").run(&words).good().text();
    let there = |number: u32| answers.lines().any(|line| line == format!("{number} 1"));
    assert_eq!(answers.lines().count(), list.numbers.len());
    let mut wrong = vec![];
    for row in &list.rows {
        for call in &row.calls {
            if there(list.numbers[call]) != (row.state != State::No) {
                wrong.push(format!("{call} is listed as {:?}, which it is not", row.state));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_of_calls_is_current() {
    const BEGIN: &str =
        "<!-- The tables are made by `cargo xtask test`: HAFEZ_BLESS=1 writes them anew. -->\n";
    const END: &str = "<!-- End of the tables. -->\n";
    let list = List::read();
    assert!(list.checks().0 >= 400, "only {} checks", list.checks().0);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/abi.md");
    let text = std::fs::read_to_string(&page).expect("the page");
    let (head, rest) = text.split_once(BEGIN).expect("where the tables begin");
    let (_, tail) = rest.split_once(END).expect("where the tables end");
    let now = format!("{head}{BEGIN}\n{}\n{END}{tail}", list.tables());
    if std::env::var_os("HAFEZ_BLESS").is_some() {
        std::fs::write(&page, now).expect("the page, written");
    } else {
        assert!(text == now, "docs/abi.md is not current: run this test with HAFEZ_BLESS=1");
    }
}
