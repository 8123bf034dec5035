//! One run, from arguments to exit code.
//!
//! ```text
//!   plan     what the program inside shall see: arguments, environment, user, directories
//!   swap     the disk that stands behind memory: opened and measured before anything starts
//!   resolver whether this computer's name servers can be reached from inside
//!   qemu     the machine as a command line; started so that it dies with us and leaves no file
//!   pump     the program's bytes: three ports, one thread each way
//!   event    what can happen, and the threads that wait for it
//!   session  everything that happens between start and end, one event at a time
//!   terminal raw mode and window size, put back on every way out
//!   symbols  names for the addresses in a kernel's last words
//!   summary  the line at the end
//! ```
#![forbid(unsafe_code)]

mod event;
mod plan;
mod pump;
pub mod qemu;
mod resolver;
mod session;
mod summary;
mod swap;
mod symbols;
mod terminal;

use crate::cli::RunArgs;
use anyhow::Result;

pub fn run(args: RunArgs) -> Result<u8> {
    let verbosity = plan::Verbosity::from_env()?;
    let plan = plan::Plan::new(&args, &verbosity)?;
    let swap = swap::open(args.swap.as_deref(), args.memory)?;
    let machine = qemu::Machine::start(&args, &plan, swap, &verbosity)?;
    session::Session::new(machine, plan, &verbosity, args.quiet, args.memory, args.publish)?.run()
}

/// Where temporary swap files go.
pub fn swap_directory() -> std::path::PathBuf {
    swap::temporary_directory()
}

/// Whether one can be made there.
pub fn swap_probe(dir: &std::path::Path) -> Result<()> {
    tempfile::tempfile_in(dir)
        .map(drop)
        .map_err(|e| anyhow::anyhow!("cannot make a file in {}: {e}", dir.display()))
}
