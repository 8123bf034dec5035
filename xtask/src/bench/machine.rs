//! Hafez's machine, and what its figures are read from.

use super::figures::{Figure, Figures};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

/// The emulated processor, and its clock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// QEMU's plain, old one, `qemu64`; its clock counts instructions.
    Plain,
    /// All that QEMU can emulate; counted, too.
    Max,
    /// The plain one, as fast as this computer can, with this computer's clock.
    Wall,
}

pub struct Hafez<'a> {
    pub hafez: &'a Path,
    /// Our programs, where the machine sees them.
    pub guests: &'a Path,
}

/// Seconds for one run: a machine that hangs is a failure, not a long wait.
const PATIENCE: &str = "240";
/// The machine that boots and is asked what is free.
pub const ROOMY: u64 = 256;
/// Rows that need more RAM than the others: 128 MiB are touched.
pub const BIG: [&str; 2] = ["fork-return-big", "fork-wait-big"];
/// Rows that swap.
pub const SWAP: [&str; 3] = ["swapout", "swapin", "swapin-random"];
/// RAM and memory touched when swapping is measured, in MiB.
pub const SWAPPING: (u64, u64) = (64, 192);
/// Runs that swap: what one comes to depends on how soon this computer's disk answers, by a tenth and more.
pub const SWAPS: usize = 5;
/// Starts that are timed.
pub const STARTS: usize = 9;
/// No machine with more than this is tried for the smallest.
const SMALL: u64 = 16;

impl Hafez<'_> {
    pub fn measure(&self, model: Model) -> Result<Figures> {
        let mut figures = self.paths(model)?;
        self.starts(model, &mut figures)?;
        let free = figures.get("free").context("the first program did not tell what is free")?;
        figures.set("gone", Figure::single((ROOMY << 20).saturating_sub(free.median)));
        if model == Model::Plain {
            figures.set("smallest", Figure::single(self.smallest()? << 20));
        }
        Ok(figures)
    }

    /// What the paths through the kernel cost.
    pub fn paths(&self, model: Model) -> Result<Figures> {
        let mut figures = Figures::default();
        figures.read(&self.run(model, 64, &[], "meter", &[])?)?;
        figures.read(&self.run(model, ROOMY, &[], "meter", &BIG)?)?;
        let (ram, touched) = SWAPPING;
        let mut swap = vec!["--swap".to_owned(), "512M".into(), "-e".into(), format!("SWAP_MIB={touched}")];
        if model == Model::Wall {
            swap.extend(["-e".into(), "WALL=1".into()]);
        }
        let runs = if model == Model::Wall { 1 } else { SWAPS };
        let mut each = Vec::new();
        for _ in 0..runs {
            let mut once = Figures::default();
            once.read(&self.run(model, ram, &swap, "meter", &SWAP)?)?;
            each.push(once);
        }
        for row in SWAP {
            if let Some(figure) = Figure::of(each.iter().filter_map(|once| once.get(row)).map(|f| f.median)) {
                figures.set(row, figure);
            }
        }
        Ok(figures)
    }

    /// The command line for one run, as one would type it.
    pub fn line(&self, model: Model, mib: u64, more: &[String], program: &str, rows: &[&str]) -> Vec<String> {
        let mut line: Vec<String> = ["run", "-q", "--clean-env", "-w", "/", "-m"].map(Into::into).into();
        line.push(format!("{mib}M"));
        let how: &[&str] = match model {
            Model::Plain => &["--icount"],
            Model::Max => &["--icount", "--qemu-arg=-cpu", "--qemu-arg=max"],
            Model::Wall => &["--accel", "tcg", "--qemu-arg=-cpu", "--qemu-arg=qemu64"],
        };
        line.extend(how.iter().map(|word| (*word).to_owned()));
        line.extend(more.iter().cloned());
        line.push("--".into());
        line.push(self.guests.join(program).to_string_lossy().into_owned());
        line.extend(rows.iter().map(|row| (*row).to_owned()));
        line
    }

    pub fn run(
        &self,
        model: Model,
        mib: u64,
        more: &[String],
        program: &str,
        rows: &[&str],
    ) -> Result<String> {
        let mut command = Command::new("timeout");
        command.args(["-k", "1", PATIENCE]).arg(self.hafez).args(self.line(model, mib, more, program, rows));
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            bail!("{program} {} at {mib} MiB: {}", rows.join(" "), output.status);
        }
        String::from_utf8(output.stdout).with_context(|| format!("{program} prints what is no text"))
    }

    /// What the first instructions of the first program see. While the machine waits for the host its clock
    /// moves to the next timer, so the least of several starts is the one that waited least.
    fn starts(&self, model: Model, figures: &mut Figures) -> Result<()> {
        let mut ticks = Vec::new();
        for _ in 0..STARTS {
            figures.read(&self.run(model, ROOMY, &[], "first", &[])?)?;
            ticks.push(figures.get("boot").context("the first program did not tell when it began")?.median);
        }
        let least = ticks.into_iter().min().context("nothing was started")?;
        figures.set("boot", Figure { median: least, least, samples: STARTS as u64 });
        Ok(())
    }

    /// The smallest whole number of MiB in which a static program says hello.
    fn smallest(&self) -> Result<u64> {
        let mut smallest = None;
        for mib in (1..=SMALL).rev() {
            let mut command = Command::new("timeout");
            command.args(["-k", "1", "20"]).arg(self.hafez).args(self.line(
                Model::Plain,
                mib,
                &[],
                "hello",
                &[],
            ));
            // What it says when it does not fit is not for the reader of the table.
            let output = command.stdin(Stdio::null()).stderr(File::create("/dev/null")?).output()?;
            if !output.status.success() || output.stdout != b"hello\n" {
                break;
            }
            smallest = Some(mib);
        }
        smallest.with_context(|| format!("a static program does not run in {SMALL} MiB"))
    }
}
