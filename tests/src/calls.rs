//! The table of calls in `docs/abi.md`: made from `tests/battery/calls.txt` and from the checks themselves.

use crate::battery;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::fs;
use std::process::Command;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Yes,
    Partly,
    No,
}

/// A row of the table.
pub struct Row {
    pub section: String,
    pub state: State,
    pub calls: Vec<String>,
    pub remark: String,
}

/// The list: rows, the numbers of the calls in them, and other words for calls.
pub struct List {
    pub rows: Vec<Row>,
    pub numbers: BTreeMap<String, u32>,
    aliases: HashMap<String, String>,
}

/// What the C library's headers number.
fn numbered() -> HashMap<String, u32> {
    let out = Command::new("gcc")
        .args(["-E", "-dM", "-include", "asm/unistd_64.h", "-x", "c", "/dev/null"])
        .output();
    String::from_utf8_lossy(&out.expect("gcc").stdout)
        .lines()
        .filter_map(|line| line.strip_prefix("#define __NR_")?.split_once(' '))
        .filter_map(|(name, number)| Some((name.to_owned(), number.trim().parse().ok()?)))
        .collect()
}

impl List {
    pub fn read() -> Self {
        let mut list = Self { rows: vec![], numbers: BTreeMap::new(), aliases: HashMap::new() };
        let known = numbered();
        let mut section = String::new();
        let text = fs::read_to_string(battery::place().join("calls.txt")).expect("the list of calls");
        for line in text.lines() {
            if let Some(title) = line.strip_prefix("## ") {
                section = title.to_owned();
            } else if let Some((word, call)) = line.split_once(" = ") {
                list.aliases.insert(word.to_owned(), call.to_owned());
            } else if !line.is_empty() && !line.starts_with('#') {
                let (head, remark) = line.split_once(": ").unwrap_or((line, ""));
                let mut words = head.split(' ');
                let state = match words.next() {
                    Some("yes") => State::Yes,
                    Some("partly") => State::Partly,
                    Some("no") => State::No,
                    _ => panic!("neither yes, partly nor no: {line}"),
                };
                let mut calls = vec![];
                for word in words {
                    let (name, number) = word.split_once('=').unwrap_or((word, ""));
                    let number = known.get(name).copied().or_else(|| number.parse().ok());
                    let number = number.unwrap_or_else(|| panic!("no number for {name}"));
                    let before = list.numbers.insert(name.to_owned(), number);
                    assert!(before.is_none(), "{name} is listed twice");
                    calls.push(name.to_owned());
                }
                list.rows.push(Row { section: section.clone(), state, calls, remark: remark.to_owned() });
            }
        }
        for name in known.keys() {
            assert!(list.numbers.contains_key(name), "{name} is in no row of calls.txt");
        }
        list
    }

    /// How many checks name each call. A check is a line of the sources with one of the macros of `check.h`.
    pub fn checks(&self) -> (usize, HashMap<String, usize>) {
        let mut all = 0;
        let mut by_call = HashMap::new();
        for source in fs::read_dir(battery::place()).expect("the battery").flatten() {
            if source.path().extension().is_none_or(|e| e != "c") {
                continue;
            }
            let text = fs::read_to_string(source.path()).expect("a source");
            for line in text.lines() {
                for check in line.split_inclusive(';').filter(|part| is_check(part.trim_start())) {
                    all += 1;
                    let mut named: Vec<&str> =
                        check.split(|c: char| !c.is_alphanumeric() && c != '_').skip(1).collect();
                    named.sort_unstable();
                    named.dedup();
                    for word in named {
                        let word = word.strip_prefix("SYS_").unwrap_or(word);
                        let call = self.aliases.get(word).map_or(word, String::as_str);
                        if self.numbers.contains_key(call) {
                            *by_call.entry(call.to_owned()).or_default() += 1;
                        }
                    }
                }
            }
        }
        (all, by_call)
    }

    /// The tables, as they stand in the page.
    pub fn tables(&self) -> String {
        let (all, by_call) = self.checks();
        let count =
            |state| self.rows.iter().filter(|r| r.state == state).map(|r| r.calls.len()).sum::<usize>();
        let mut page = format!(
            "{} calls: {} *yes*, {} *partly*, {} *no*. {all} checks.\n",
            self.numbers.len(),
            count(State::Yes),
            count(State::Partly),
            count(State::No)
        );
        let mut section = "";
        for row in self.rows.iter() {
            if row.section != section {
                section = &row.section;
                write!(page, "\n### {section}\n\n| call | | checks | remark |\n|---|---|---|---|\n")
                    .expect("memory");
            }
            let calls: Vec<String> = row.calls.iter().map(|call| format!("`{call}`")).collect();
            let checks: usize = row.calls.iter().filter_map(|call| by_call.get(call)).sum();
            let checks = if checks == 0 { String::new() } else { checks.to_string() };
            let state = match row.state {
                State::Yes => "yes",
                State::Partly => "partly",
                State::No => "no",
            };
            writeln!(page, "| {} | {state} | {checks} | {} |", calls.join(", "), row.remark).expect("memory");
        }
        page
    }
}

/// Whether a statement is a check.
fn is_check(statement: &str) -> bool {
    let mut letters = statement.chars();
    let one = letters.next().is_some_and(|c| "TPNSW".contains(c)) && letters.next() == Some('(');
    one || statement.starts_with("RD(") || statement.starts_with("WR(")
}
