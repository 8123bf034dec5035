//! Several processors: do threads that use memory far from each other meet at all, and how much more do two do than one?
//!
//! Two things are counted, while a thread on each CPU faults, maps or protects pages of its own in the space of all (`guests/apart.c`):
//!
//! ```text
//!   a kernel that counts (feature `contention`)  ──▶ acquisitions that found their lock taken   (/proc/lock_stat)
//!   the kernel as it is, under a plugin of QEMU's ──▶ writes to a line that another CPU wrote last (tests/lines/lines.c)
//! ```
//!
//! And one is timed, on two real cores: what two processes, or two threads, get done of what one does (`guests/disjoint.c`).
//! That takes a computer with nothing else to do, so what it did else is told with it.

use super::machine::{Hafez, Model};
use crate::build::Built;
use crate::shell::{output, root, sh, step, target_dir};
use crate::toolchain::Toolchain;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const CPUS: [usize; 4] = [1, 2, 4, 8];
/// Much more than is used: what is counted is not reclaim.
const MIB: u64 = 512;
/// Operations of all threads together. Under the plugin each takes some ten times as long.
const FOR_LOCKS: usize = 16_000;
const FOR_LINES: usize = 4_000;
/// Seconds for each loop that is timed, and how often it is.
const SECONDS: &str = "1";
const TIMES: usize = 5;
/// Places that are named for each operation.
const PLACES: usize = 4;
/// What `apart` prints of each, in its order: the plugin's parts are numbered from 1.
const OPERATIONS: [(&str, &str); 3] =
    [("fault", "a page's first write"), ("map", "mmap, touch, munmap"), ("protect", "mprotect")];
const LOOPS: [(&str, &str); 4] = [
    ("fault", "faults"),
    ("map", "mmap, touch, munmap"),
    ("protect", "mprotect"),
    ("heap", "the heap's end (brk)"),
];
/// The bytes of pages are cleared and copied here. A page that one CPU has cleared and another takes is no meeting.
const BYTES_OF_PAGES: &str = "crates/hafez-mm/src/phys.rs";
/// Cores that are busy with something else, from which on there is nothing to time.
const BUSY: f64 = 0.5;
const START: &str = "<!-- what follows was written by `cargo xtask bench`: processors -->\n";
const END: &str = "<!-- up to here: processors -->\n";
const TIMED_START: &str = "<!-- what follows was written by `cargo xtask bench`: two at once -->\n";
const TIMED_END: &str = "<!-- up to here: two at once -->\n";

/// Of so many operations so many times; and where most often.
#[derive(Clone, Default)]
struct Count {
    operations: u64,
    times: u64,
    places: Vec<(String, u64)>,
}

pub fn run(machine: &Hafez<'_>, built: &Built, work: &Path) -> Result<()> {
    let plugin = work.join("lines.so");
    sh(Command::new("gcc")
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .arg(&plugin)
        .arg(root().join("tests/lines/lines.c")))?;
    let counting = counting_kernel(built.toolchain)?;
    let mut locks = Vec::new();
    let mut lines = Vec::new();
    for cpus in CPUS {
        step(&format!("counting what threads on {cpus} CPUs meet at"));
        locks.push(locks_taken(machine, &counting, cpus)?);
        lines.push(lines_moved(machine, &plugin, &built.kernel, &work.join("lines.txt"), cpus)?);
    }
    let text = counts(&locks, &lines);
    print!("{text}");
    super::table::write_between(START, END, &text)?;
    let busy = busy();
    if busy > BUSY {
        step(&format!(
            "{busy:.1} cores are busy with something else: what two do of what one does is not timed"
        ));
        return Ok(());
    }
    step("timing what two do of what one does");
    let text = factors(machine)?;
    print!("{text}");
    super::table::write_between(TIMED_START, TIMED_END, &text)
}

/// How many of this computer's cores are busy while we look.
fn busy() -> f64 {
    let look = || {
        let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let ticks: Vec<f64> = line.split_ascii_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
        // The fourth is idle time, the fifth idle with something on its way from a disk.
        (ticks.iter().sum::<f64>(), ticks.iter().skip(3).take(2).sum::<f64>())
    };
    let (all, idle) = look();
    std::thread::sleep(std::time::Duration::from_secs(3));
    let (all_later, idle_later) = look();
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    (1.0 - (idle_later - idle) / (all_later - all).max(1.0)) * cores
}

/// A kernel that counts acquisitions that found their lock taken. It has a directory of its own: nobody shall take it for the other.
fn counting_kernel(toolchain: Toolchain) -> Result<PathBuf> {
    toolchain.build_kernel_with(&["--features", "contention"], target_dir().join("counting"))
}

fn apart(machine: &Hafez<'_>, cpus: usize, qemu: &[String], operations: usize) -> Result<String> {
    let mut more = vec!["--cpus".to_owned(), cpus.to_string()];
    more.extend(qemu.iter().map(|arg| format!("--qemu-arg={arg}")));
    machine.run(Model::Wall, MIB, &more, "apart", &[&operations.to_string()])
}

fn locks_taken(machine: &Hafez<'_>, kernel: &Path, cpus: usize) -> Result<Vec<Count>> {
    let kernel = ["-kernel".to_owned(), kernel.display().to_string()];
    let counts = read_apart(&apart(machine, cpus, &kernel, FOR_LOCKS / cpus)?)?;
    if counts.iter().any(|count| count.is_none()) {
        bail!("the kernel that was to count locks does not");
    }
    Ok(counts.into_iter().flatten().collect())
}

/// What `apart` prints: `NAME OPERATIONS [TAKEN]`, each with its places, `at FILE:LINE TAKEN`. None where nothing was counted.
fn read_apart(text: &str) -> Result<Vec<Option<Count>>> {
    let mut counts: Vec<Option<Count>> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let wrong = || format!("not what apart prints: {line:?}");
        match words[..] {
            ["at", place, times] => {
                let count = counts.last_mut().and_then(Option::as_mut).with_context(wrong)?;
                let (file, _) = place.rsplit_once(':').with_context(wrong)?;
                let times = times.parse::<u64>().with_context(wrong)?;
                match count.places.iter_mut().find(|(name, _)| name == file) {
                    Some(known) => known.1 += times,
                    None => count.places.push((file.to_owned(), times)),
                }
            }
            [_, operations, times] => counts.push(Some(Count {
                operations: operations.parse().with_context(wrong)?,
                times: times.parse().with_context(wrong)?,
                places: vec![],
            })),
            [_, _] => counts.push(None),
            _ => bail!(wrong()),
        }
    }
    if counts.len() != OPERATIONS.len() {
        bail!("apart has not measured all: {text}");
    }
    for count in counts.iter_mut().flatten() {
        count.places.sort_by_key(|place| std::cmp::Reverse(place.1));
    }
    Ok(counts)
}

fn lines_moved(
    machine: &Hafez<'_>,
    plugin: &Path,
    kernel: &Path,
    out: &Path,
    cpus: usize,
) -> Result<Vec<Count>> {
    let plugin = ["-plugin".to_owned(), format!("{},out={}", plugin.display(), out.display())];
    let each = FOR_LINES / cpus;
    apart(machine, cpus, &plugin, each)?;
    let text = std::fs::read_to_string(out).with_context(|| format!("cannot read {}", out.display()))?;
    let operations = (each * cpus) as u64;
    let mut counts = vec![Count { operations, ..Count::default() }; OPERATIONS.len()];
    let mut by_address = vec![BTreeMap::<String, u64>::new(); OPERATIONS.len()];
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let part = |text: &str| text.parse::<usize>().ok()?.checked_sub(1).filter(|n| *n < OPERATIONS.len());
        match words[..] {
            ["part", number, moves] => {
                if let Some(n) = part(number) {
                    counts[n].times = moves.parse()?;
                }
            }
            [number, moves, "line", _, at, "after", _] => {
                if let Some(n) = part(number) {
                    *by_address[n].entry(at.trim_end_matches(':').to_owned()).or_default() +=
                        moves.parse::<u64>()?;
                }
            }
            _ => bail!("not what the plugin writes: {line:?}"),
        }
    }
    for (count, addresses) in counts.iter_mut().zip(by_address) {
        count.places = named(kernel, addresses)?;
        let bytes = count.places.iter().position(|(file, _)| file == BYTES_OF_PAGES);
        if let Some((_, moves)) = bytes.map(|at| count.places.remove(at)) {
            count.times = count.times.saturating_sub(moves);
        }
    }
    Ok(counts)
}

/// Moves by source file instead of by the instruction that wrote.
fn named(kernel: &Path, addresses: BTreeMap<String, u64>) -> Result<Vec<(String, u64)>> {
    if addresses.is_empty() {
        return Ok(vec![]);
    }
    let text = output(Command::new("addr2line").args(["-a", "-i", "-e"]).arg(kernel).args(addresses.keys()))?;
    let mut files = BTreeMap::<String, u64>::new();
    for (frames, moves) in text.split("0x").skip(1).zip(addresses.values()) {
        *files.entry(file(frames)).or_default() += moves;
    }
    let mut places: Vec<_> = files.into_iter().collect();
    places.sort_by_key(|place| std::cmp::Reverse(place.1));
    Ok(places)
}

/// Of an address, and the places that it was inlined from, innermost first: our own nearest file.
fn file(frames: &str) -> String {
    let place = |line: &str| line.rsplit_once(':').map_or(line, |(file, _)| file).to_owned();
    let own = |line: &str| place(line).strip_prefix(&format!("{}/", root().display())).map(str::to_owned);
    let mut frames = frames.lines().skip(1).peekable();
    let inner = frames.peek().map_or("?".into(), |line| place(line));
    let inner = inner.rsplit_once("/src/").map_or(inner.clone(), |(_, file)| file.to_owned());
    frames.find_map(own).unwrap_or(inner)
}

/// Both counts, of a thousand operations, and where.
fn counts(locks: &[Vec<Count>], lines: &[Vec<Count>]) -> String {
    let head: Vec<String> =
        CPUS.iter().map(|n| format!("{n} CPU{}", if *n == 1 { "" } else { "s" })).collect();
    let mut text =
        format!("| of 1,000 operations | {} |\n|---|{}\n", head.join(" | "), "---|".repeat(CPUS.len()));
    let kinds = [("locks found taken", locks), ("lines that another wrote last", lines)];
    for (n, (_, title)) in OPERATIONS.iter().enumerate() {
        for (kind, by_cpus) in kinds {
            let cells: Vec<String> = by_cpus.iter().map(|counts| share(&counts[n])).collect();
            let _ = writeln!(text, "| {title}: {kind} | {} |", cells.join(" | "));
        }
    }
    text.push_str("\nWhere, with the most CPUs (shares of what is counted):\n\n");
    for (n, (_, title)) in OPERATIONS.iter().enumerate() {
        for (kind, by_cpus) in kinds {
            let Some(count) = by_cpus.last().map(|counts| &counts[n]).filter(|count| count.times > 0) else {
                continue;
            };
            let places: Vec<String> = count
                .places
                .iter()
                .filter(|(_, times)| times * 100 >= count.times)
                .take(PLACES)
                .map(|(place, times)| format!("`{place}` {} %", times * 100 / count.times))
                .collect();
            let _ = writeln!(text, "- {title}, {kind}: {}", places.join(", "));
        }
    }
    text
}

/// Of a thousand, with as many digits as say something.
fn share(count: &Count) -> String {
    let of_thousand = count.times as f64 * 1000.0 / count.operations as f64;
    match of_thousand {
        0.0 => "0".into(),
        x if x < 10.0 => format!("{x:.1}"),
        x => format!("{x:.0}"),
    }
}

/// Two processes and two threads against one of them.
fn factors(machine: &Hafez<'_>) -> Result<String> {
    let mut factors = BTreeMap::<String, Vec<f64>>::new();
    for _ in 0..TIMES {
        let more = ["--cpus".to_owned(), "2".into()];
        let text = machine.run(Model::Wall, MIB, &more, "disjoint", &[SECONDS])?;
        for (key, factor) in text.lines().filter_map(factor) {
            factors.entry(key).or_default().push(factor);
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut text = String::from("| two at once, against one | processes | threads |\n|---|---|---|\n");
    for (name, title) in LOOPS {
        let cell = |kind: &str| spread(factors.get(&format!("{name} {kind}")));
        writeln!(text, "| {title} | {} | {} |", cell("processes"), cell("threads"))?;
    }
    writeln!(
        text,
        "\nMedians of {TIMES} times {SECONDS} second each, and how far they lie apart; {cores} cores."
    )?;
    Ok(text)
}

/// A line of `disjoint` about two: `fault 2 threads: 900000 a second, factor 1.95`.
fn factor(line: &str) -> Option<(String, f64)> {
    let (what, rest) = line.split_once(": ")?;
    let [name, "2", kind] = what.split(' ').collect::<Vec<_>>()[..] else { return None };
    Some((format!("{name} {kind}"), rest.rsplit_once("factor ")?.1.trim().parse().ok()?))
}

/// The median, and how far the values lie apart; nothing where there are none.
fn spread(values: Option<&Vec<f64>>) -> String {
    let Some(mut values) = values.cloned() else { return String::new() };
    values.sort_by(f64::total_cmp);
    let (least, most) = (values[0], values[values.len() - 1]);
    format!("{:.2} ({least:.2} to {most:.2})", values[values.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_programs_print_is_read() {
        let text = "fault 100 3\nat a.rs:1 1\nat b.rs:9 1\nat b.rs:2 1\nmap 100 0\nprotect 100 7\n";
        let counts: Vec<Count> = read_apart(text).expect("counts").into_iter().flatten().collect();
        assert_eq!(counts[0].places, [("b.rs".to_owned(), 2), ("a.rs".to_owned(), 1)]);
        assert_eq!(counts.iter().map(share).collect::<Vec<_>>(), ["30", "0", "70"]);
        assert!(read_apart("fault 100 3\n").is_err(), "two are missing");
        assert!(read_apart("fault 8\nmap 8\nprotect 8\n").expect("three").iter().all(Option::is_none));
        assert_eq!(
            factor("fault 2 threads: 900 a second, factor 1.95"),
            Some(("fault threads".into(), 1.95))
        );
        assert_eq!(factor("fault 1 threads: 900 a second, factor 1.00"), None);
        let inlined = format!(
            "ffff0\n/rustc/1/library/core/src/ptr/mod.rs:7\n{}/kernel/src/main.rs:8 (x)\n",
            root().display()
        );
        assert_eq!(file(&inlined), "kernel/src/main.rs");
        assert_eq!(file("ffff0\n/rustc/1/src/mem/x86_64.rs:7\n"), "mem/x86_64.rs");
        assert_eq!(factor("    taken 3 times: a.rs:2"), None);
    }
}
