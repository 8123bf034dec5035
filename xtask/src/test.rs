//! Every test: those on the host first (they are quick), then those that boot the machine.

use crate::shell::{cargo, sh};
use crate::{Options, build};
use anyhow::Result;

pub fn run(options: &Options) -> Result<()> {
    let built = build::all(options)?;
    if options.rest.is_empty() {
        sh(cargo().arg("test"))?;
        // Thousands of machines a second need an optimized build.
        sh(cargo().args(["test", "--release", "--package", "hafez-mm", "--features", "sim,mutants"]))?;
        let model = ["--features", "model,mutants", "--test", "model"];
        sh(cargo().args(["test", "--release", "--package", "hafez-mm"]).args(model))?;
    }
    let mut machine = cargo();
    machine.args(["test", "--no-fail-fast", "--package", "hafez-tests", "--"]);
    // Each machine is one busy thread; more at a time than processors would only upset the time limits.
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
    machine.arg(format!("--test-threads={threads}"));
    if options.all {
        machine.arg("--include-ignored");
    }
    machine.args(&options.rest);
    sh(machine.env("HAFEZ", built.hafez).env("HAFEZ_GUESTS", built.guests))
}
