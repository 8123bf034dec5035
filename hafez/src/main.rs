//! The `hafez` command: runs an unmodified program in a small virtual machine whose kernel is embedded in this file.
//!
//! ```text
//!   cli        the options, and one clear line for each bad one
//!   size       SIZE: 64M, 1.5GiB, …
//!   run/       the machine's life: plan → swap place → QEMU → bytes and signals both ways → exit code
//!   doctor     what this computer lacks, and the command that mends it
//!   accel      whether the processor's virtualization can be used
//!   kernel     the embedded image
//!   tsc        how fast the time-stamp counter ticks
//! ```
//!
//! Exit codes are those that container tools use: the program's own; 125 if Hafez failed; 126 if the program cannot be executed; 127
//! if there is none; 128+n if signal n killed it.
#![deny(unsafe_code)] // one instruction in `tsc` is the exception

mod accel;
mod aio;
mod cli;
mod doctor;
mod kernel;
mod publish;
mod run;
mod size;
mod tsc;

use std::process::ExitCode;

/// Hafez itself failed, the program did not.
pub const FAILED: u8 = 125;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    if args.nth(1).is_some_and(|a| a == run::qemu::LAUNCHER) {
        let error = run::qemu::launch(args);
        eprintln!("{error:#}");
        return ExitCode::from(FAILED);
    }
    let result = match cli::parse() {
        Ok(cli::Command::Run(args)) => run::run(*args),
        Ok(cli::Command::Doctor) => doctor::run(),
        Err(code) => return ExitCode::from(code),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("hafez: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}
