//! Cost against size: the same operations with ever more regions, and with ever more RAM. Flat is what they should be.
//!
//! The figures go into a table and a drawing (`docs/scaling.svg`): instructions upwards from nothing, sizes to the right in powers of ten.

use super::figures::Figures;
use super::machine::{Hafez, Model};
use crate::shell::{root, step};
use anyhow::{Context, Result};
use std::fmt::Write;

/// Regions in the space that is measured. Linux allows 65,530 unless told otherwise, and so does Hafez: the last tells it otherwise.
const REGIONS: [u64; 5] = [10, 100, 1_000, 10_000, 100_000];
/// RAM, in MiB. Most of it is never touched, here and on the host.
const RAM: [u64; 4] = [16, 64, 1 << 10, 16 << 10];
const FEW: u64 = 10;
const ROWS: [(&str, &str); 4] = [
    ("fault", "first write to a page"),
    ("mmap", "mmap of a page"),
    ("munmap", "munmap of a page"),
    ("mprotect", "mprotect of a page"),
];
const START: &str = "<!-- what follows was written by `cargo xtask bench`: scaling -->\n";
const END: &str = "<!-- up to here: scaling -->\n";

/// One line of a drawing: a name, and where it goes.
struct Line<'a> {
    name: &'a str,
    points: Vec<(f64, f64)>,
}

pub fn run(machine: &Hafez<'_>) -> Result<()> {
    step("measuring cost against size");
    let measure = |mib, regions: u64| -> Result<Figures> {
        let mut figures = Figures::default();
        let swap = ["--swap".into(), "0".into()];
        figures.read(&machine.run(Model::Plain, mib, &swap, "scale", &[&regions.to_string()])?)?;
        figures.read(&machine.run(Model::Plain, mib, &swap, "first", &[])?)?;
        Ok(figures)
    };
    let by_regions = REGIONS.iter().map(|&n| measure(64, n)).collect::<Result<Vec<_>>>()?;
    let by_ram = RAM.iter().map(|&mib| measure(mib, FEW)).collect::<Result<Vec<_>>>()?;

    let regions: Vec<String> = REGIONS.iter().map(|n| format!("{n} regions")).collect();
    let ram: Vec<String> = RAM.iter().map(|n| format!("{n} MiB")).collect();
    let mut text = table(&regions, &by_regions, &ROWS);
    let kept =
        |f: &Figures, mib: u64| f.get("free").map_or(0, |free| (mib << 20).saturating_sub(free.median));
    let mut with_start =
        table(&ram, &by_ram, &[&ROWS[..], &[("boot", "reset to the first user instruction")]].concat());
    with_start.push_str("| RAM gone by then, of 1,000 parts |");
    for (figures, mib) in by_ram.iter().zip(RAM) {
        write!(with_start, " {} |", kept(figures, mib) * 1000 / (mib << 20))?;
    }
    write!(text, "\n{with_start}\n\n![The same as a drawing](scaling.svg)\n")?;
    print!("{text}");

    let left = lines(&REGIONS.map(|n| n as f64), &by_regions);
    let right = lines(&RAM.map(|n| n as f64), &by_ram);
    let drawing = draw(&[("regions in the space", left), ("MiB of RAM", right)]);
    let path = root().join("docs/scaling.svg");
    std::fs::write(&path, drawing).with_context(|| format!("cannot write {}", path.display()))?;
    super::table::write_between(START, END, &text)
}

fn table(columns: &[String], figures: &[Figures], rows: &[(&str, &str)]) -> String {
    let mut text = format!("| | {} |\n|---|{}\n", columns.join(" | "), "---|".repeat(columns.len()));
    for (name, title) in rows {
        let cells: Vec<String> =
            figures.iter().map(|f| f.get(name).map_or("–".into(), |f| f.median.to_string())).collect();
        let _ = writeln!(text, "| {title} | {} |", cells.join(" | "));
    }
    text
}

fn lines<'a>(at: &[f64], figures: &[Figures]) -> Vec<Line<'a>> {
    let point = |name, x: f64, f: &Figures| f.get(name).map(|f| (x, f.median as f64));
    ROWS.iter()
        .map(|&(name, _)| Line {
            name,
            points: at.iter().zip(figures).filter_map(|(&x, f)| point(name, x, f)).collect(),
        })
        .collect()
}

/// Drawings side by side, with one scale: instructions upwards from 0, sizes to the right.
fn draw(charts: &[(&str, Vec<Line<'_>>)]) -> String {
    const WIDTH: f64 = 420.0;
    const HEIGHT: f64 = 300.0;
    const MARGIN: f64 = 60.0;
    const COLOURS: [&str; 4] = ["#c0392b", "#2471a3", "#1e8449", "#9a7d0a"];
    const STEPS: u32 = 4;
    let values =
        charts.iter().flat_map(|(_, lines)| lines).flat_map(|line| &line.points).map(|point| point.1);
    // The highest line of the grid is the first multiple of 500 of its steps above all that is drawn.
    let step = (values.fold(1.0, f64::max) / f64::from(STEPS) / 500.0).ceil() * 500.0;
    let high = step * f64::from(STEPS);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        WIDTH * charts.len() as f64
    );
    let up = |value: f64| HEIGHT - MARGIN - value / high * (HEIGHT - 2.0 * MARGIN);
    for (n, (title, lines)) in charts.iter().enumerate() {
        let left = n as f64 * WIDTH + MARGIN;
        let sizes: Vec<f64> =
            lines.first().map_or(vec![], |l| l.points.iter().map(|p| p.0.log10()).collect());
        let (Some(first), Some(last)) = (sizes.first(), sizes.last()) else { continue };
        let right = |size: f64| left + (size.log10() - first) / (last - first) * (WIDTH - 2.0 * MARGIN);
        for value in (0..=STEPS).map(|n| step * f64::from(n)) {
            let (y, end) = (up(value), left + WIDTH - 2.0 * MARGIN);
            let _ = writeln!(svg, "<line x1=\"{left}\" y1=\"{y}\" x2=\"{end}\" y2=\"{y}\" stroke=\"#ddd\"/>");
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{value}</text>",
                left - 6.0,
                y + 4.0
            );
        }
        for size in lines.first().into_iter().flat_map(|l| &l.points).map(|p| p.0) {
            let (x, y) = (right(size), HEIGHT - MARGIN + 16.0);
            let size = super::table::grouped(size as u64);
            let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{size}</text>");
        }
        let (middle, below) = (left + WIDTH / 2.0 - MARGIN, HEIGHT - 20.0);
        let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{title}</text>");
        let _ = writeln!(svg, "<text x=\"{left}\" y=\"{}\">guest instructions</text>", MARGIN - 36.0);
        for (i, (line, colour)) in lines.iter().zip(COLOURS).enumerate() {
            let points: Vec<String> =
                line.points.iter().map(|&(x, y)| format!("{:.1},{:.1}", right(x), up(y))).collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                points.join(" ")
            );
            for &(x, y) in &line.points {
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"{colour}\"/>",
                    right(x),
                    up(y)
                );
            }
            let (x, y) = (left + 75.0 * i as f64, MARGIN - 18.0);
            let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" fill=\"{colour}\">{}</text>", line.name);
        }
    }
    svg.push_str("</svg>\n");
    svg
}
