//! Wall time: whether fewer instructions are less time, too. The same rows in the same emulation, but with this computer's clock.
//!
//! A gain in instructions that is a loss in time is no gain: so each row has the ratio of both, and says which it is.
//!
//! Hafez and the tuned Linux take turns, so that what else the computer does comes upon both. A row's answer is the ratio
//! of the medians of both sides' runs, and how far the ratios of single pairs of runs lie apart: bare times would say more about the computer.

use super::figures::Figures;
use super::linux::Linux;
use super::machine::{Hafez, Model};
use super::rows::{ROWS, Unit};
use crate::shell::step;
use anyhow::Result;
use std::fmt::Write;
use std::path::Path;

/// Runs of each side.
const PAIRS: usize = 5;
const START: &str = "<!-- what follows was written by `cargo xtask bench`: wall time -->\n";
const END: &str = "<!-- up to here: wall time -->\n";

/// Measures both, with scratch room in `work`, and writes the table. `counted`: what both take in instructions.
pub fn run(
    machine: &Hafez<'_>,
    linux: &Linux,
    work: &Path,
    counted: Option<(&Figures, &Figures)>,
) -> Result<()> {
    linux.prepare(machine.guests, work)?;
    let mut pairs = Vec::new();
    for n in 1..=PAIRS {
        step(&format!("measuring wall time, {n} of {PAIRS}"));
        pairs.push((machine.paths(Model::Wall)?, linux.paths(work, Model::Wall)?));
    }
    let text = match counted {
        Some((ours, theirs)) => table(&pairs, ours, theirs)?,
        None => {
            step("counting the same in instructions");
            table(&pairs, &machine.paths(Model::Plain)?, &linux.paths(work, Model::Plain)?)?
        }
    };
    print!("{text}");
    super::table::write_between(START, END, &text)
}

fn table(pairs: &[(Figures, Figures)], our_count: &Figures, their_count: &Figures) -> Result<String> {
    let mut text = String::from(
        "| Hafez : Linux, tuned | time | pairs of runs | instructions | |\n|---|---|---|---|---|\n",
    );
    for row in ROWS.iter().filter(|row| row.unit == Unit::Instructions) {
        let ratio = |ours: &Figures, theirs: &Figures| {
            let median = |figures: &Figures| figures.get(row.name).map(|figure| figure.median as f64);
            Some((median(ours)?, median(theirs).filter(|median| *median > 0.0)?))
        };
        // A message of the other kernel can stand in the line of a figure.
        let medians: Vec<(f64, f64)> =
            pairs.iter().filter_map(|(ours, theirs)| ratio(ours, theirs)).collect();
        if medians.is_empty() {
            continue;
        }
        let (ours, theirs) = (median(medians.iter().map(|m| m.0)), median(medians.iter().map(|m| m.1)));
        let ratios = || medians.iter().map(|m| m.0 / m.1);
        let (least, most) = (ratios().fold(f64::MAX, f64::min), ratios().fold(0.0, f64::max));
        let time = ours / theirs;
        let count = ratio(our_count, their_count).map(|(ours, theirs)| ours / theirs);
        // Waiting counts here.
        let title = row.title.trim_end_matches(" (busy)");
        writeln!(
            text,
            "| {title} | {} | {} to {} | {} | {} |",
            show(time),
            show(least),
            show(most),
            count.map_or("–".into(), show),
            verdict(time, most, count)
        )?;
    }
    writeln!(
        text,
        "\nMedians of {} runs each, by turns; below 1 Hafez takes less. *Less*: in every pair of runs; *mostly less*: in the median.",
        pairs.len()
    )?;
    Ok(text)
}

/// Whether what is saved in instructions is saved in time.
fn verdict(time: f64, most: f64, count: Option<f64>) -> &'static str {
    match count {
        _ if most < 1.0 => "less",
        _ if time < 1.0 => "mostly less",
        Some(count) if count < 1.0 => "**fewer instructions, more time**",
        _ => "**more time**",
    }
}

/// Two digits that say something.
fn show(ratio: f64) -> String {
    let digits = if ratio < 0.01 {
        4
    } else if ratio < 0.1 {
        3
    } else {
        2
    };
    format!("{ratio:.digits$}")
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_ratio_of_medians() {
        let figures = |null: u64| {
            let mut figures = Figures::default();
            figures.read(&format!("null {null} {null} 9\n")).expect("figures");
            figures
        };
        let pairs = [(100, 200), (110, 1000), (90, 190)].map(|(a, b)| (figures(a), figures(b)));
        let text = table(&pairs, &figures(50), &figures(200)).expect("a table");
        // 100 of 200; of the pairs the second lies lowest.
        assert!(text.contains("| null system call | 0.50 | 0.11 to 0.50 | 0.25 | less |"), "{text}");
        assert!(!text.contains("fork"), "a row that one side lacks is left out");
        assert_eq!(verdict(0.9, 1.1, Some(0.5)), "mostly less");
        assert_eq!(verdict(1.1, 1.2, Some(0.5)), "**fewer instructions, more time**");
    }
}
