//! What the kernel's paths cost, in guest instructions: a table, and a guard against growing worse.
//!
//! ```text
//!   guests/*.c ──▶ one run a machine ──▶ figures by row ──┬─▶ table (standard output, docs/measuring.md)
//!                  (machine, linux)                       └─▶ compared with guests/figures.txt (kept)
//! ```
//!
//! `--quick` runs Hafez alone, on the plain processor model, and fails where a row is more than a tenth worse than the figure
//! that is kept. `bench scale` measures cost against size alone, `bench cpus` what several processors meet at, `bench wall` wall
//! time beside the tuned Linux's. `--keep` keeps the new ones: do so in the commit that changes them, with the reason.

mod cpus;
mod figures;
mod kept;
mod linux;
mod machine;
mod rows;
mod scale;
mod table;
mod wall;

use crate::shell::step;
use crate::{Options, build};
use anyhow::Result;
use figures::Figures;
use hafez_tests::Scratch;
use linux::Linux;
use machine::Model;

/// A Linux and its figures: on the plain model, and maybe on the one with everything.
pub struct Opponent {
    kernel: Linux,
    figures: Vec<Figures>,
}

pub fn run(options: &Options) -> Result<()> {
    let built = build::all(options)?;
    // Inside, `/tmp` is the machine's own; this place is seen from both sides.
    let scratch = Scratch::new();
    for program in std::fs::read_dir(&built.guests)?.flatten() {
        std::fs::copy(program.path(), scratch.file(&program.file_name().to_string_lossy()))?;
    }
    let machine = machine::Hafez { hafez: &built.hafez, guests: scratch.path() };
    if options.rest == ["scale"] {
        return scale::run(&machine);
    }
    let work = scratch.file("linux");
    std::fs::create_dir(&work)?;
    if options.rest == ["cpus"] {
        return cpus::run(&machine, &built, &work);
    }
    if options.rest == ["wall"] {
        return wall::run(&machine, &linux::tuned(options.setup)?, &work, None);
    }
    step("measuring Hafez");
    let plain = machine.measure(Model::Plain)?;
    if options.quick {
        print!("{}", table::short(&plain));
        return finish(options, &plain);
    }
    step("measuring Hafez on the processor model with everything");
    let max = machine.measure(Model::Max)?;
    let tuned = opponent("the tuned Linux", linux::tuned(options.setup), |kernel| {
        Ok(vec![
            kernel.measure(scratch.path(), &work, Model::Plain)?,
            kernel.measure(scratch.path(), &work, Model::Max)?,
        ])
    });
    let debian = opponent("Debian's Linux", linux::debian(), |kernel| {
        Ok(vec![kernel.measure(scratch.path(), &work, Model::Plain)?])
    });
    let table = table::Table { plain: &plain, max: &max, tuned: &tuned, debian: &debian };
    let text = table.text(&machine)?;
    print!("{text}");
    table::write(&text)?;
    scale::run(&machine)?;
    cpus::run(&machine, &built, &work)?;
    if let Some(Opponent { kernel, figures }) = &tuned {
        wall::run(&machine, kernel, &work, figures.first().map(|counted| (&plain, counted)))?;
    }
    finish(options, &plain)
}

/// Measures one, if it is to be had; else says why not, and what was measured earlier takes its place.
fn opponent(
    name: &str,
    kernel: Result<Linux>,
    measure: impl FnOnce(&Linux) -> Result<Vec<Figures>>,
) -> Option<Opponent> {
    let measured = kernel.and_then(|kernel| {
        step(&format!("measuring {name}, {}", kernel.version));
        let figures = measure(&kernel)?;
        Ok(Opponent { kernel, figures })
    });
    match measured {
        Ok(opponent) => Some(opponent),
        Err(why) => {
            step(&format!("{name} cannot be measured here: {why:#}"));
            None
        }
    }
}

fn finish(options: &Options, plain: &Figures) -> Result<()> {
    if options.keep { kept::keep(plain) } else { kept::compare(plain) }
}
