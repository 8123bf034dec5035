//! What the kernel's paths cost, in guest instructions: a table, and a guard against growing worse.
//!
//! ```text
//!   guests/*.c ──▶ one run a machine ──▶ figures by row ──┬─▶ table (standard output, docs/measuring.md)
//!                  (machine)                              └─▶ compared with guests/figures.txt (kept)
//! ```
//!
//! `--quick` runs Hafez alone, on the plain processor model, and fails where a row is more than a tenth worse than the figure
//! that is kept. `--keep` keeps the new ones: do so in the commit that changes them, with the reason.

mod figures;
mod kept;
mod machine;
mod rows;
mod table;

use crate::shell::step;
use crate::{Options, build};
use anyhow::Result;
use hafez_tests::Scratch;
use machine::Model;

pub fn run(options: &Options) -> Result<()> {
    let built = build::all(options)?;
    // Inside, `/tmp` is the machine's own; this place is seen from both sides.
    let scratch = Scratch::new();
    for program in std::fs::read_dir(&built.guests)?.flatten() {
        std::fs::copy(program.path(), scratch.file(&program.file_name().to_string_lossy()))?;
    }
    let machine = machine::Hafez { hafez: &built.hafez, guests: scratch.path() };
    step("measuring Hafez");
    let plain = machine.measure(Model::Plain)?;
    if options.quick {
        print!("{}", table::short(&plain));
        return finish(options, &plain);
    }
    step("measuring Hafez on the processor model with everything");
    let max = machine.measure(Model::Max)?;
    let text = table::full(&plain, &max, &machine)?;
    print!("{text}");
    table::write(&text)?;
    finish(options, &plain)
}

fn finish(options: &Options, plain: &figures::Figures) -> Result<()> {
    if options.keep { kept::keep(plain) } else { kept::compare(plain) }
}
