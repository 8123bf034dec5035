//! `cargo xtask`: everything one does with this repository, on a machine that has only Rust and git.
//!
//! ```text
//!   setup     install what is missing (QEMU, the kernel's target, the real programs that tests run)
//!   build     kernel → target/…/hafez-kernel, then the `hafez` command with the kernel embedded in it
//!   demo      setup, build, and the main job on real input, beside the host's own run
//!   test      setup, build, every test; --all adds those that take long under emulation
//!   bench     setup, build, and the table of what the kernel's paths cost; --quick: compare with what is kept
//!   lint      formatting, clippy and rustdoc, warnings denied
//!   install   setup, build, and put `hafez` on the PATH
//! ```
//!
//! The one hard question, which compiler builds the kernel, is answered in `toolchain`.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod demo;
mod install;
mod lint;
mod setup;
mod shell;
mod test;
mod toolchain;

use anyhow::{Result, bail};
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND [OPTION]…

  setup      install what is missing on this machine
  build      build the kernel and the hafez command
  demo       build, and run the main job on real input
  test       build, and run the tests   [--all: also the long ones] [NAME…: only these machine tests]
  bench      build, and measure the kernel's paths   [--quick: Hafez alone; fails if a row grew worse] [--keep: keep the figures] [scale | cpus | wall: only that part]
  lint       rustfmt, clippy and rustdoc, warnings denied
  install    build, and put hafez on the PATH

options: --toolchain auto|rustup|debian   who compiles the kernel (default: auto)
         --no-setup                       take the machine as it is
";

/// What the command line asked for, common to all commands.
pub struct Options {
    pub toolchain: toolchain::Choice,
    pub setup: bool,
    pub all: bool,
    pub quick: bool,
    pub keep: bool,
    pub rest: Vec<String>,
}

fn parse() -> Result<(String, Options)> {
    let mut args = std::env::args().skip(1);
    let Some(command) = args.next() else { bail!("no command\n\n{USAGE}") };
    let mut options = Options {
        toolchain: toolchain::Choice::Auto,
        setup: true,
        all: false,
        quick: false,
        keep: false,
        rest: Vec::new(),
    };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--toolchain" => {
                options.toolchain = match args.next().as_deref() {
                    Some("auto") => toolchain::Choice::Auto,
                    Some("rustup") => toolchain::Choice::Rustup,
                    Some("debian") => toolchain::Choice::Debian,
                    _ => bail!("--toolchain takes auto, rustup or debian"),
                }
            }
            "--no-setup" => options.setup = false,
            "--all" => options.all = true,
            "--quick" => options.quick = true,
            "--keep" => options.keep = true,
            _ if arg.starts_with('-') => bail!("unknown option {arg}\n\n{USAGE}"),
            _ => options.rest.push(arg),
        }
    }
    Ok((command, options))
}

fn main() -> ExitCode {
    let result = parse().and_then(|(command, options)| match command.as_str() {
        "setup" => setup::run(&options),
        "build" => build::all(&options).map(|_| ()),
        "demo" => demo::run(&options),
        "bench" => bench::run(&options),
        "test" => test::run(&options),
        "lint" => lint::run(&options),
        "install" => install::run(&options),
        "help" | "-h" | "--help" => {
            print!("{USAGE}");
            Ok(())
        }
        other => bail!("unknown command {other}\n\n{USAGE}"),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::FAILURE
        }
    }
}
