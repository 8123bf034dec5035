//! The table, for the terminal and for `docs/measuring.md`.

use super::figures::{Figure, Figures};
use super::machine::{BIG, Hafez, Model, ROOMY, SWAP, SWAPPING, SWAPS};
use super::rows::{ROWS, Row, Unit};
use super::{Opponent, linux};
use crate::shell::{output, root, step};
use anyhow::{Context, Result};
use std::fmt::Write;
use std::process::Command;

const START: &str = "<!-- what follows was written by `cargo xtask bench` -->\n";
const END: &str = "<!-- up to here -->\n";

/// For reading on the way: name, median, least.
pub fn short(figures: &Figures) -> String {
    let mut text = String::new();
    for row in ROWS {
        if let Some(figure) = figures.get(row.name) {
            let goal = row.goal.map_or(String::new(), |goal| {
                let mark = if figure.median <= goal { "✓" } else { " " };
                format!("{mark} goal {}", show(row, goal))
            });
            let _ = writeln!(
                text,
                "{:>13} {:>13}  {:58} {goal}",
                show(row, figure.median),
                show(row, figure.least),
                row.title
            );
        }
    }
    text
}

fn show(row: &Row, value: u64) -> String {
    match row.unit {
        Unit::Instructions => grouped(value),
        Unit::Bytes => {
            let tenths = (value * 10).div_ceil(1 << 20);
            if tenths.is_multiple_of(10) {
                format!("{} MiB", tenths / 10)
            } else {
                format!("{}.{} MiB", tenths / 10, tenths % 10)
            }
        }
    }
}

/// With a comma before each three digits.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A row's cell: the median, and the least where it differs by more than a hundredth.
fn cell(row: &Row, figure: Option<Figure>) -> String {
    match figure {
        None => "–".into(),
        Some(f) if f.median - f.least > f.median / 100 => {
            format!("{} ({})", show(row, f.median), show(row, f.least))
        }
        Some(f) => show(row, f.median),
    }
}

/// All that the table is made of.
pub struct Table<'a> {
    pub plain: &'a Figures,
    pub max: &'a Figures,
    pub tuned: &'a Option<Opponent>,
    pub debian: &'a Option<Opponent>,
}

impl Table<'_> {
    pub fn text(&self, machine: &Hafez<'_>) -> Result<String> {
        let mut text = String::from(
            "| | Hafez | goal | Linux, tuned | Linux, Debian | zeroing, copying | Hafez, `-cpu max` | Linux, tuned, `-cpu max` |\n\
             |---|---|---|---|---|---|---|---|\n",
        );
        let zero = self.plain.get("zero-page").map_or(0, |f| f.median);
        for row in ROWS {
            let goal = row.goal.map_or(String::new(), |goal| format!("≤ {}", show(row, goal)));
            let within = if row.pages > 0 { grouped(row.pages * zero) } else { String::new() };
            let max = self.tuned.as_ref().and_then(|o| o.figures.get(1));
            writeln!(
                text,
                "| {} | {} | {goal} | {} | {} | {within} | {} | {} |",
                row.title,
                cell(row, self.plain.get(row.name)),
                against(row, self.tuned, row.tuned),
                against(row, self.debian, row.debian),
                cell(row, self.max.get(row.name)),
                cell(row, max.and_then(|figures| figures.get(row.name))),
            )?;
        }
        text.push_str(
            "\nMedians; in brackets the least, where it differs by more than a hundredth. \\* measured earlier: that kernel could not be \
             had or has no driver for the disk. ",
        );
        let counted = ROWS.iter().filter(|row| !SWAP.contains(&row.name));
        let samples = counted.filter_map(|row| self.plain.get(row.name)).map(|f| f.samples);
        let (most, least) =
            (samples.clone().max().unwrap_or(0), samples.filter(|n| *n > 1).min().unwrap_or(0));
        writeln!(
            text,
            "{least} to {most} operations a row; starting: the least of 9; swapping: {SWAPS} runs; RAM: once. *Zeroing, copying* is the \
             part that goes into the bytes of the pages themselves, in steps of 8 bytes (512 instructions a page).\n"
        )?;
        self.how(machine, &mut text)?;
        Ok(text)
    }

    /// The command lines, versions and machine.
    fn how(&self, machine: &Hafez<'_>, text: &mut String) -> Result<()> {
        text.push_str("Command lines:\n\n");
        let (ram, touched) = SWAPPING;
        let swap = ["--swap".to_owned(), "512M".into(), "-e".into(), format!("SWAP_MIB={touched}")];
        let lines = [
            machine.line(Model::Plain, 64, &[], "meter", &[]),
            machine.line(Model::Plain, ROOMY, &[], "meter", &BIG),
            machine.line(Model::Plain, ram, &swap, "meter", &SWAP),
            machine.line(Model::Plain, ROOMY, &[], "first", &[]),
            machine.line(Model::Max, 64, &[], "meter", &[]),
        ];
        let place = format!("{}/", machine.guests.display());
        for line in lines {
            // The programs were copied for this run only.
            writeln!(text, "    hafez {}", line.join(" ").replace(&place, "target/guests/"))?;
        }
        for (name, opponent) in [("tuned", self.tuned), ("Debian", self.debian)] {
            let Some(Opponent { kernel, .. }) = opponent else { continue };
            let line = kernel.line(Model::Plain, ROOMY, "all.cpio".as_ref(), "ARGUMENTS", None);
            let line: Vec<String> = line
                .into_iter()
                .map(|word| {
                    word.rsplit_once("/hafez/bench/").map_or(word.clone(), |(_, name)| name.to_owned())
                })
                .collect();
            writeln!(text, "    qemu-system-x86_64 {}", line.join(" "))?;
            writeln!(
                text,
                "        ({name}: Debian's {}; ARGUMENTS: {} rdinit=/meter)",
                kernel.version,
                linux::ARGUMENTS
            )?;
        }
        let qemu = output(Command::new("qemu-system-x86_64").arg("--version"))?;
        let rustc = output(Command::new("rustc").arg("--version"))?;
        let gcc = output(Command::new("gcc").arg("--version"))?;
        let first = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model =
            model.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ")).map_or("?", |m| m.1);
        writeln!(
            text,
            "\n{}; {}; programs by {}; on {cpus} × {model} (which the counts do not depend on).",
            first(&qemu),
            first(&rustc),
            first(&gcc)
        )?;
        Ok(())
    }
}

/// An opponent's cell: as measured now, else as measured earlier.
fn against(row: &Row, opponent: &Option<Opponent>, earlier: Option<u64>) -> String {
    let figure = opponent.as_ref().and_then(|o| o.figures.first()?.get(row.name));
    match (figure, earlier) {
        (Some(_), _) => cell(row, figure),
        (None, Some(value)) => format!("{} \\*", show(row, value)),
        (None, None) => "–".into(),
    }
}

/// Puts the table between its two markers.
pub fn write(table: &str) -> Result<()> {
    write_between(START, END, table)
}

/// Puts text between two markers of `docs/measuring.md`.
pub fn write_between(start: &str, end: &str, text: &str) -> Result<()> {
    let path = root().join("docs/measuring.md");
    let old = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let lost = || format!("docs/measuring.md has lost a marker: {}", start.trim());
    let (before, rest) = old.split_once(start).with_context(lost)?;
    let (_, after) = rest.split_once(end).with_context(lost)?;
    std::fs::write(&path, format!("{before}{start}\n{text}\n{end}{after}"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    step(&format!("written to {}", path.display()));
    Ok(())
}
