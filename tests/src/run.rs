//! One program, run inside and outside, with everything that comes out of it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Seconds that a run may take unless it says otherwise; a machine that hangs is a failure, not a long wait.
const PATIENCE: u64 = 120;
/// What `timeout` answers when it had to act.
const TIMED_OUT: i32 = 124;

/// A directory for one test's files, gone afterwards. The machine sees it too, which it would not if it lay in `/tmp`.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Self {
        Self(tempfile::tempdir_in("/var/tmp").expect("a scratch directory in /var/tmp"))
    }
    pub fn path(&self) -> &Path {
        self.0.path()
    }
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
    /// Puts a file there.
    pub fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, content).expect("a file in the scratch directory");
        path
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// How a program ended and what it said.
#[derive(PartialEq, Eq, Clone)]
pub struct Outcome {
    /// The exit code; for a program outside that a signal killed, 128 and the signal's number.
    pub code: i32,
    pub out: Vec<u8>,
    pub err: Vec<u8>,
}

impl Outcome {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
    pub fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.err).into_owned()
    }
    /// Asserts success, for what comes next depends on it.
    #[track_caller]
    pub fn good(self) -> Self {
        assert_eq!(self.code, 0, "it failed: {self:?}");
        self
    }
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned();
            if bytes.len() > 2000 { format!("{text}… ({} bytes)", bytes.len()) } else { text }
        };
        write!(f, "code {}\n--- out:\n{}\n--- err:\n{}", self.code, short(&self.out), short(&self.err))
    }
}

/// The command under test.
pub fn hafez() -> PathBuf {
    let named = std::env::var_os("HAFEZ").map(PathBuf::from);
    named
        .unwrap_or_else(|| panic!("HAFEZ does not name the command; run these tests with `cargo xtask test`"))
}

/// One of our own programs, where the machine sees it.
pub fn guest(name: &str) -> PathBuf {
    static PLACE: OnceLock<Scratch> = OnceLock::new();
    let place = PLACE.get_or_init(|| {
        let built = std::env::var_os("HAFEZ_GUESTS").expect("HAFEZ_GUESTS names our programs' directory");
        let place = Scratch::new();
        for program in fs::read_dir(built).expect("our programs").flatten() {
            fs::copy(program.path(), place.path().join(program.file_name())).expect("a copy of our program");
        }
        place
    });
    place.file(name)
}

/// The same few variables inside and outside, so that output can be compared.
fn plain(command: &mut Command) -> &mut Command {
    command.env_clear().envs([
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("LC_ALL", "C.UTF-8"),
        ("HOME", "/root"),
    ])
}

fn finish(mut command: Command, input: Option<&[u8]>) -> Outcome {
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    let stdin = child.stdin.take();
    let done = std::thread::scope(|scope| {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A program need not read all of it.
            scope.spawn(move || stdin.write_all(input));
        }
        child.wait_with_output().expect("its output")
    });
    use std::os::unix::process::ExitStatusExt;
    let code = done.status.code().unwrap_or_else(|| 128 + done.status.signal().unwrap_or_default());
    Outcome { code, out: done.stdout, err: done.stderr }
}

/// A program on this computer itself.
pub fn host<S: AsRef<OsStr>>(program: &[S], input: Option<&[u8]>, dir: &Path) -> Outcome {
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]).current_dir(dir);
    plain(&mut command);
    finish(command, input)
}

/// `hafez run`, being put together.
pub struct Hafez {
    options: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    input: Option<Vec<u8>>,
    dir: PathBuf,
    patience: u64,
}

impl Hafez {
    /// With these options; `-q` is among them, so that standard error is the program's own.
    pub fn with(options: &[&str]) -> Self {
        let mut all = vec!["-q".into()];
        all.extend(options.iter().map(OsString::from));
        Self { options: all, variables: vec![], input: None, dir: "/".into(), patience: PATIENCE }
    }
    /// With this much memory.
    pub fn memory(size: &str) -> Self {
        Self::with(&["-m", size])
    }
    pub fn option(mut self, option: impl Into<OsString>) -> Self {
        self.options.push(option.into());
        self
    }
    /// Sets a variable of the command's own environment.
    pub fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = dir.into();
        self
    }
    pub fn seconds(mut self, seconds: u64) -> Self {
        self.patience = seconds;
        self
    }

    /// The command line, for those who want to hold the process in their own hands.
    pub fn command<S: AsRef<OsStr>>(&self, program: &[S]) -> Command {
        let mut command = Command::new(hafez());
        command.arg("run").args(&self.options).arg("--").args(program).current_dir(&self.dir);
        plain(&mut command).envs(self.variables.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Runs the program inside.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, program: &[S]) -> Outcome {
        let inner = self.command(program);
        let mut command = Command::new("timeout");
        command.args(["-k", "5", &self.patience.to_string()]).arg(inner.get_program()).args(inner.get_args());
        command.current_dir(&self.dir);
        plain(&mut command).envs(self.variables.iter().map(|(k, v)| (k, v)));
        let outcome = finish(command, self.input.as_deref());
        let said = outcome.complaint();
        assert!(outcome.code != TIMED_OUT, "no end after {} s: {outcome:?}", self.patience);
        assert!(!said.contains("kernel panicked"), "{said}");
        outcome
    }

    /// Runs the program inside and outside: same bytes, same exit code, same complaints.
    #[track_caller]
    pub fn same<S: AsRef<OsStr>>(&self, program: &[S]) -> Outcome {
        let outside = host(program, self.input.as_deref(), &self.dir);
        let inside = self.run(program);
        assert!(inside == outside, "inside: {inside:?}\n=== outside: {outside:?}");
        inside
    }
}
