//! The command line: a contract. Every bad argument gets one line that says what is wrong and what would be right.

use crate::publish::Publish;
use crate::size::Size;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Parser)]
#[command(
    name = "hafez",
    version,
    about = "Runs a program in less memory than it needs, and shows what its memory did"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run a program in a machine of its own
    Run(Box<RunArgs>),
    /// Say what is missing on this computer, and how to mend it
    Doctor,
}

/// Which replacement policy chooses the pages that leave RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Policy {
    /// By age, in generations of pages used at about the same time
    Generations,
    /// A hand that goes round and gives each used page a second chance
    Clock,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum AccelChoice {
    Auto,
    Kvm,
    Tcg,
}

#[derive(Args)]
pub struct RunArgs {
    /// RAM of the machine
    #[arg(short, long, value_name = "SIZE", default_value = "128M")]
    pub memory: Size,

    /// Swap: its size (0: none; default: 4x the memory, in an unlinked temporary file), or a block device, a file, a directory
    /// for the temporary file, or a URI such as nbd://host:port/export
    #[arg(long, value_name = "SIZE|PATH|URI", value_parser = non_empty)]
    pub swap: Option<OsString>,

    /// Processors
    #[arg(long, value_name = "N", default_value = "1")]
    pub cpus: u32,

    /// Replacement policy
    #[arg(long, value_name = "NAME", default_value = "generations")]
    pub policy: Policy,

    /// Directory that becomes the machine's /, read-only
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,

    /// Directory that the machine may write to (repeat for more)
    #[arg(long, value_name = "DIR")]
    pub rw: Vec<PathBuf>,

    /// Let the machine write anywhere: what it writes stays in its own memory and swap, and is gone at the end
    #[arg(long)]
    pub overlay: bool,

    /// Set an environment variable; K alone takes it from outside
    #[arg(short, long, value_name = "K=V")]
    pub env: Vec<OsString>,

    /// Start with no environment but what -e gives
    #[arg(long)]
    pub clean_env: bool,

    /// Working directory inside [default: as outside]
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,

    /// Reach a server inside: connections to this TCP port of the computer go to that port of the machine (repeat for more;
    /// ADDRESS:HOST:GUEST takes only those to one address, such as 127.0.0.1)
    #[arg(short, long, value_name = "HOST:GUEST")]
    pub publish: Vec<Publish>,

    /// Virtualization: auto takes KVM only where it works
    #[arg(long, default_value = "auto")]
    pub accel: AccelChoice,

    /// Deterministic time: one guest instruction is one nanosecond
    #[arg(long)]
    pub icount: bool,

    /// Pass one argument through to QEMU (repeat for more)
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub qemu_arg: Vec<OsString>,

    /// No line of figures at the end
    #[arg(short, long)]
    pub quiet: bool,

    #[arg(long, value_name = "PERCENT", hide = true)]
    zram: Option<OsString>,
    #[arg(long, value_name = "FILE", hide = true)]
    trace: Option<OsString>,
    #[arg(long, value_name = "FILE", hide = true)]
    report: Option<OsString>,

    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    pub program: Vec<OsString>,
}

fn non_empty(text: &str) -> Result<OsString, String> {
    if text.is_empty() {
        Err("it is empty; give a size, a path or a URI, or 0 for no swap".into())
    } else {
        Ok(text.into())
    }
}

/// The least RAM in which the kernel starts and a small static program says hello: found by trying, and tried by a test.
pub const LEAST_MEMORY: Size = Size(4 << 20);

/// The most CPUs that the kernel uses.
const MOST_CPUS: u32 = 16;

impl RunArgs {
    /// What clap cannot know. `all` is the whole command line.
    fn check(&self, all: &[OsString]) -> Result<(), String> {
        // Clap takes a mistyped option for the program; nobody means that without a `--` before it.
        let before = all.len().checked_sub(self.program.len() + 1).map(|i| &all[i]);
        let first = self.program.first().filter(|p| p.as_encoded_bytes().starts_with(b"-"));
        if let Some(first) = first.filter(|_| before.is_none_or(|b| b != "--")) {
            return Err(format!(
                "there is no option {}; `hafez run --help` lists them",
                first.to_string_lossy()
            ));
        }
        let later = [
            (self.zram.is_some(), "--zram: compressed swap is not there yet; --swap takes a disk"),
            (self.trace.is_some(), "--trace: traces are not there yet"),
            (self.report.is_some(), "--report: reports are not there yet"),
            (self.cpus == 0, "--cpus 0: a machine needs a processor; give 1"),
            (self.cpus > MOST_CPUS, "--cpus: 16 processors are the most; give 1 to 16"),
            (
                self.icount && self.cpus > 1,
                "--icount counts the instructions of one processor; it goes with --cpus 1",
            ),
            (
                self.icount && self.accel == AccelChoice::Kvm,
                "--icount counts emulated instructions; it goes with --accel tcg, not kvm",
            ),
        ];
        if let Some((_, why)) = later.into_iter().find(|(wrong, _)| *wrong) {
            return Err(why.into());
        }
        if self.memory < LEAST_MEMORY {
            return Err(format!("--memory {}: the minimum is {LEAST_MEMORY}", self.memory));
        }
        for pair in &self.env {
            let bytes = pair.as_encoded_bytes();
            if bytes.is_empty() || bytes[0] == b'=' {
                return Err(format!("--env {pair:?}: it has no name; write NAME=VALUE"));
            }
        }
        Ok(())
    }
}

/// The command, or the exit code after the right words went out.
pub fn parse() -> Result<Command, u8> {
    let all: Vec<OsString> = std::env::args_os().collect();
    let command = match Cli::try_parse_from(&all) {
        Ok(cli) => cli.command,
        Err(error) if !error.use_stderr() => {
            let _ = error.print();
            return Err(0);
        }
        Err(error) => {
            eprintln!("hafez: {}", one_line(&error));
            return Err(crate::FAILED);
        }
    };
    if let Command::Run(args) = &command
        && let Err(why) = args.check(&all)
    {
        eprintln!("hafez: {why}");
        return Err(crate::FAILED);
    }
    Ok(command)
}

/// Clap's first paragraph, without its label, on one line.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "no command given; try `hafez run -- PROGRAM` or `hafez --help`".into();
    }
    if error.kind() == clap::error::ErrorKind::MissingRequiredArgument {
        return "no program given; the form is: hafez run [OPTION]… -- PROGRAM [ARG]…".into();
    }
    let words: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|l| !l.starts_with("Usage:") && !l.starts_with("For more information"))
        .filter(|l| !l.is_empty())
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<Box<RunArgs>, String> {
        let all: Vec<OsString> = ["hafez", "run"].iter().chain(args).map(OsString::from).collect();
        match Cli::try_parse_from(&all).map_err(|e| one_line(&e))?.command {
            Command::Run(args) => args.check(&all).map(|()| args),
            Command::Doctor => unreachable!("the arguments say run"),
        }
    }

    fn refused(args: &[&str]) -> String {
        run(args).err().unwrap_or_else(|| panic!("{args:?} was taken"))
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn options_end_at_the_program() {
        let args = run(&["-m", "64M", "sort", "-m", "--rw", "x"]).unwrap();
        assert_eq!(args.memory, Size(64 << 20));
        assert_eq!(args.program, ["sort", "-m", "--rw", "x"]);
        assert!(args.rw.is_empty());
        assert_eq!(run(&["--", "-x"]).unwrap().program, ["-x"]);
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let args = run(&["true"]).unwrap();
        assert_eq!(args.memory, Size(128 << 20));
        assert_eq!(args.policy, Policy::Generations);
        assert_eq!((args.cpus, args.swap.is_none(), args.clean_env), (1, true, false));
    }

    #[test]
    fn one_line_for_each_bad_argument() {
        for (args, part) in [
            (&["-m", "12Q", "true"][..], "no unit is called \"Q\""),
            (&["-m", "1M", "true"], "the minimum is 4 MiB"),
            (&["--cpus", "17", "true"], "give 1 to 16"),
            (&["--cpus", "0", "true"], "give 1"),
            (&["--cpus", "2", "--icount", "true"], "--cpus 1"),
            (&["--zram", "30", "true"], "not there yet"),
            (&["-p", "80", "true"], "HOST:GUEST"),
            (&["-p", "80:0", "true"], "from 1 to 65535"),
            (&["-p", "nowhere:80:80", "true"], "no IPv4 address"),
            (&["--policy", "best", "true"], "generations, clock"),
            (&["--icount", "--accel", "kvm", "true"], "--accel tcg"),
            (&["-e", "=x", "true"], "NAME=VALUE"),
            (&["--swap", "", "true"], "0 for no swap"),
            (&["--frobnicate", "true"], "--frobnicate"),
            (&[], "PROGRAM"),
        ] {
            let line = refused(args);
            assert!(line.contains(part), "{args:?}: {line}");
            assert!(!line.contains('\n'), "{args:?}: {line}");
        }
    }
}
