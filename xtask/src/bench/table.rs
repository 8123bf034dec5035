//! The table, for the terminal and for `docs/measuring.md`.

use super::figures::{Figure, Figures};
use super::machine::{Hafez, Model, ROOMY, SWAPPING};
use super::rows::{ROWS, Row, Unit};
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

fn grouped(value: u64) -> String {
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

pub fn full(plain: &Figures, max: &Figures, machine: &Hafez<'_>) -> Result<String> {
    let mut text = String::from(
        "| | Hafez | zeroing, copying | Hafez, `-cpu max` | goal | Linux 6.12, tuned | Linux 6.12, Debian |\n\
         |---|---|---|---|---|---|---|\n",
    );
    let zero = plain.get("zero-page").map_or(0, |f| f.median);
    for row in ROWS {
        let within = if row.pages > 0 { grouped(row.pages * zero) } else { String::new() };
        let goal = row.goal.map_or(String::new(), |goal| format!("≤ {}", show(row, goal)));
        let earlier =
            |value: Option<u64>| value.map_or("–".into(), |value| format!("{} *", show(row, value)));
        writeln!(
            text,
            "| {} | {} | {within} | {} | {goal} | {} | {} |",
            row.title,
            cell(row, plain.get(row.name)),
            cell(row, max.get(row.name)),
            earlier(row.tuned),
            earlier(row.debian),
        )?;
    }
    text.push_str(
        "\n\\* measured earlier, with other programs for the same operations, on the same QEMU.\n\n\
         Medians; in brackets the least, where it differs by more than a hundredth. ",
    );
    let samples = ROWS.iter().filter_map(|row| plain.get(row.name)).map(|f| f.samples);
    let (most, least) = (samples.clone().max().unwrap_or(0), samples.filter(|n| *n > 1).min().unwrap_or(0));
    writeln!(
        text,
        "{least} to {most} operations a row; swapping, starting and the smallest RAM are measured once. \
         *Zeroing, copying* is the part that a kernel spends on the bytes of the pages themselves, if it does so in steps of 8 bytes.\n"
    )?;
    text.push_str(&how(machine)?);
    Ok(text)
}

/// The command lines, versions and machine.
fn how(machine: &Hafez<'_>) -> Result<String> {
    let mut text = String::from("Command lines:\n\n");
    let (ram, touched) = SWAPPING;
    let swap = ["--swap".to_owned(), "512M".into(), "-e".into(), format!("SWAP_MIB={touched}")];
    let lines = [
        machine.line(Model::Plain, 64, &[], "meter", &[]),
        machine.line(Model::Plain, ROOMY, &[], "meter", &["fork-return-big", "fork-wait-big"]),
        machine.line(Model::Plain, ram, &swap, "meter", &["swapout", "swapin", "swapin-random"]),
        machine.line(Model::Plain, ROOMY, &[], "first", &[]),
        machine.line(Model::Max, 64, &[], "meter", &[]),
    ];
    let place = format!("{}/", machine.guests.display());
    for line in lines {
        // The programs were copied for this run only.
        writeln!(text, "    hafez {}", line.join(" ").replace(&place, "target/guests/"))?;
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
    Ok(text)
}

/// Puts the table between its two markers.
pub fn write(table: &str) -> Result<()> {
    let path = root().join("docs/measuring.md");
    let old = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (before, rest) =
        old.split_once(START).context("docs/measuring.md has lost the table's first marker")?;
    let (_, after) = rest.split_once(END).context("docs/measuring.md has lost the table's last marker")?;
    std::fs::write(&path, format!("{before}{START}\n{table}\n{END}{after}"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    step(&format!("written to {}", path.display()));
    Ok(())
}
