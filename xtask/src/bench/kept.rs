//! Figures that are kept in the repository, and what may become of them: a tenth worse is a failure. Rows that wait for a disk
//! depend on when its answers come, which the host decides: they may be three tenths worse. Starting waits for the host several times,
//! and counted time leaps to the next timer each time: it has a ceiling instead.

use super::figures::Figures;
use super::rows::ROWS;
use crate::shell::{root, step};
use anyhow::{Context, Result, bail};
use std::fmt::Write;
use std::path::PathBuf;

/// By how much of itself, in tenths, a row may grow.
fn tolerance(name: &str) -> u64 {
    if name.starts_with("swap") { 3 } else { 1 }
}

/// Instructions, waiting included, in which the first program must have begun.
const BOOT_CEILING: u64 = 20_000_000;

const HEAD: &str = "\
# Guest instructions (or bytes) on the plain processor model, as `cargo xtask bench --quick --keep` wrote them.
# `cargo xtask bench --quick` fails where a row is more than a tenth above its figure here.
";

fn path() -> PathBuf {
    root().join("guests/figures.txt")
}

pub fn keep(figures: &Figures) -> Result<()> {
    let mut text = HEAD.to_owned();
    for row in ROWS {
        if let Some(figure) = figures.get(row.name) {
            writeln!(text, "{} {}", row.name, figure.median)?;
        }
    }
    std::fs::write(path(), text).with_context(|| format!("cannot write {}", path().display()))?;
    step(&format!("kept in {}", path().display()));
    Ok(())
}

pub fn compare(figures: &Figures) -> Result<()> {
    let text =
        std::fs::read_to_string(path()).with_context(|| format!("cannot read {}", path().display()))?;
    let mut kept = Figures::default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    kept.read(&lines.join("\n"))?;
    let mut worse = Vec::new();
    let mut better = Vec::new();
    for (name, old) in kept.iter() {
        let (old, Some(new)) = (old.median, figures.get(name)) else {
            worse.push(format!("{name}: was {}, now not measured", old.median));
            continue;
        };
        let (new, slack) = (new.median, old * tolerance(name) / 10);
        let ceiling = if name == "boot" { BOOT_CEILING } else { old + slack };
        if new > ceiling {
            worse.push(format!("{name}: was {old}, is {new}"));
        } else if new < old - slack {
            better.push(format!("{name}: was {old}, is {new}"));
        }
    }
    for (name, _) in figures.iter().filter(|(name, _)| ROWS.iter().any(|row| row.name == *name)) {
        if kept.get(name).is_none() {
            worse.push(format!("{name}: no figure is kept"));
        }
    }
    if !better.is_empty() {
        step(&format!("clearly better (`--keep` keeps it):\n    {}", better.join("\n    ")));
    }
    if !worse.is_empty() {
        bail!("worse than {}:\n    {}", path().display(), worse.join("\n    "));
    }
    step("no row is worse than it may be");
    Ok(())
}
