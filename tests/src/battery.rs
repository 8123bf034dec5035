//! The battery: programs of checks (`tests/battery/*.c`) that print what each system call answers.
//!
//! A line is `FAMILY.CHECK: RESULT`. A check that is made more than once is told apart by a number, ` #2` from the second on,
//! so that a line of one run can be laid beside the same line of another, whatever else is missing or too much.

use crate::Scratch;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the programs and the lists lie.
pub fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("battery")
}

/// Compiles one of them, where the machine and every user can see it.
pub fn build(source: &str, to: &Scratch) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let family = Path::new(source).file_stem().and_then(|s| s.to_str()).expect("a name");
    let program = to.file(family);
    let built = Command::new("gcc")
        .args(["-static", "-O1", "-w", "-pthread", &format!("-DFAMILY=\"{family}\""), "-o"])
        .arg(&program)
        .arg(place().join(source))
        .status();
    assert!(built.expect("gcc").success(), "{source} does not compile");
    fs::set_permissions(to.path(), fs::Permissions::from_mode(0o755)).expect("a directory for all to see");
    program
}

/// What a run printed: checks, as they came, and what each answered.
pub struct Answers {
    pub order: Vec<String>,
    pub by_check: HashMap<String, String>,
}

impl Answers {
    pub fn read(printed: &str) -> Self {
        let mut answers = Self { order: vec![], by_check: HashMap::new() };
        let mut times = HashMap::<&str, u32>::new();
        for line in printed.lines() {
            // A check may have a colon in it, a result has none with a blank after it.
            let (check, result) = line.rsplit_once(": ").unwrap_or((line, ""));
            let time = times.entry(check).or_default();
            *time += 1;
            let check = if *time == 1 { check.to_owned() } else { format!("{check} #{time}") };
            answers.by_check.insert(check.clone(), result.to_owned());
            answers.order.push(check);
        }
        answers
    }
}

/// The differences that are known, with their reasons, of one family.
pub fn known(family: &str) -> BTreeMap<String, String> {
    let list = fs::read_to_string(place().join("differences.txt")).expect("the list of differences");
    let mut known = BTreeMap::new();
    for line in list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (check, reason) = line.split_once(" -- ").unwrap_or_else(|| panic!("no reason given: {line}"));
        if check.split_once('.').is_some_and(|(of, _)| of == family) {
            let before = known.insert(check.to_owned(), reason.to_owned());
            assert!(before.is_none(), "listed twice: {check}");
        }
    }
    known
}

/// What is wrong with the answers from inside, a line each: differences that are not known, and known ones that are none.
pub fn compare(family: &str, outside: &Answers, inside: &Answers) -> Vec<String> {
    let mut known = known(family);
    let mut wrong = vec![];
    let none = "(not printed)".to_owned();
    let only_inside = inside.order.iter().filter(|check| !outside.by_check.contains_key(*check));
    for check in outside.order.iter().chain(only_inside) {
        let linux = outside.by_check.get(check).unwrap_or(&none);
        let hafez = inside.by_check.get(check).unwrap_or(&none);
        let listed = known.remove(check).is_some();
        if (linux != hafez) != listed {
            let remark = if listed { " (listed as a difference, but the same)" } else { "" };
            wrong.push(format!("{check}\n    Linux: {linux}\n    Hafez: {hafez}{remark}"));
        }
    }
    wrong.extend(known.keys().map(|check| format!("{check}\n    listed as a difference, but not there")));
    wrong
}
