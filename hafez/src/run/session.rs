//! Between start and end: one loop, one event at a time.
//!
//! Threads wait for the things that can happen (a frame from the kernel, a signal, the end of QEMU) and send each here; so
//! there is one place that decides, and nothing to lock. The loop ends when the machine has ended *and* the control port has
//! been read to its end; the outputs are drained after it, as far as their readers take them.

use super::event::{self, Event};
use super::plan::{Plan, Verbosity};
use super::qemu::Machine;
use super::{pump, summary, symbols, terminal};
use crate::FAILED;
use crate::publish::{self, Publish};
use crate::size::Size;
use anyhow::{Context, Result, bail};
use hafez_link::{Ending, Level, Summary, ToGuest, ToHost};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The kernel switches the machine off right after its last frame; this is for one that cannot.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// This many of one deadly signal, and the machine is ended from outside: whatever is inside does not listen.
const IMPATIENCE: u32 = 3;
/// How a panic begins on the early console.
const EARLY_PANIC: &str = "KERNEL PANIC";
/// Bytes of what QEMU and the early kernel say that are worth keeping.
const KEPT: usize = 16 << 10;

pub struct Session {
    events: Receiver<Event>,
    control: UnixStream,
    qemu: Pid,
    published: Vec<Publish>,
    kernel: PathBuf,
    memory: Size,
    quiet: bool,
    log: Level,
    spinner: Option<ProgressBar>,
    raw: Option<terminal::Raw>,
    outputs: Vec<JoinHandle<()>>,
    qemu_words: JoinHandle<Vec<u8>>,
    early_words: JoinHandle<Vec<u8>>,
    state: State,
    _kernel: OwnedFd,
}

#[derive(Default)]
struct State {
    ending: Option<Ending>,
    panic: Option<String>,
    summary: Option<Summary>,
    control_lost: Option<String>,
    output_failed: bool,
    /// The deadly signal that came last, and how often in a row.
    deadly: (i32, u32),
    given_up: bool,
}

impl Session {
    pub fn new(
        machine: Machine,
        plan: Plan,
        verbosity: &Verbosity,
        quiet: bool,
        memory: Size,
        published: Vec<Publish>,
    ) -> Result<Self> {
        let (send, events) = channel();
        let Machine { mut child, control, tty, out, err, early, kernel, kernel_file } = machine;
        let qemu = Pid::from_raw(child.id().cast_signed()).context("QEMU has no process number")?;
        let qemu_words = (child.stdout.take(), child.stderr.take());
        let qemu_words = match qemu_words {
            (Some(out), Some(err)) => pump::collect(err.chain(out), KEPT, false),
            _ => bail!("QEMU's output is not connected"),
        };
        let early_words = pump::collect(early, KEPT, verbosity.boot);

        event::watch_signals(send.clone())?;
        event::watch_control(control.try_clone()?, send.clone());
        let raw = terminal::Raw::enter();
        let mut outputs = vec![
            pump::out("standard output", out, rustix::stdio::stdout(), send.clone()),
            pump::out("standard error", err, rustix::stdio::stderr(), send.clone()),
        ];
        if plan.start.stdin {
            pump::input(rustix::stdio::stdin(), tty.try_clone()?, send.clone());
        }
        if let Some(device) = terminal::device() {
            outputs.push(pump::out("the terminal", tty, device, send.clone()));
        } else {
            // Nothing is a terminal, so the guest writes nothing here; but its end must stay open for the input.
            outputs.push(pump::discard(tty));
        }
        event::watch_machine(child, send);

        let mut session = Self {
            events,
            control,
            qemu,
            published,
            kernel,
            memory,
            quiet,
            log: verbosity.level,
            spinner: spinner(quiet),
            raw,
            outputs,
            qemu_words,
            early_words,
            state: State::default(),
            _kernel: kernel_file,
        };
        if let Some(note) = plan.note.as_ref().filter(|_| !quiet) {
            session.say(note);
        }
        session.send(&ToGuest::Start(plan.start_now()));
        Ok(session)
    }

    /// To the end: the exit code.
    pub fn run(mut self) -> Result<u8> {
        let (mut ended, mut control_ended) = (None, false);
        let mut deadline: Option<Instant> = None;
        while ended.is_none() || !control_ended {
            let event = match deadline {
                None => self.events.recv().context("the watchers are gone")?,
                Some(at) => match self.events.recv_timeout(at.saturating_duration_since(Instant::now())) {
                    Ok(event) => event,
                    Err(RecvTimeoutError::Timeout) => {
                        let _ = kill_process(self.qemu, Signal::KILL);
                        deadline = None;
                        continue;
                    }
                    Err(e) => return Err(e).context("the watchers are gone"),
                },
            };
            match event {
                Event::Control(message) => {
                    if matches!(message, ToHost::Exit(_) | ToHost::Panic { .. }) {
                        deadline = Some(Instant::now() + LAST_WORDS);
                    }
                    self.take(message);
                }
                Event::ControlEnded(why) => {
                    control_ended = true;
                    self.state.control_lost = why;
                    // Without it nobody can say how the program ends.
                    deadline = deadline.or(Some(Instant::now() + LAST_WORDS));
                }
                Event::Signal(signal) => self.signal(signal),
                Event::MachineEnded(status) => ended = Some(status),
                Event::InputEnded { total } => self.send(&ToGuest::StdinEnd { total }),
                Event::InputFailed(error) => self.say(&format!("standard input: {error}")),
                Event::OutputFailed { name, error } => {
                    self.state.output_failed = true;
                    self.say(&format!("{name}: {error}"));
                }
            }
        }
        self.finish(ended.context("QEMU's end")?)
    }

    fn take(&mut self, message: ToHost) {
        match message {
            ToHost::Started => {
                self.spinner = None;
                // Where it cannot be done, fewer may wait.
                let _ = publish::let_many_wait(self.qemu, &self.published);
            }
            ToHost::Log { level, text } if level <= self.log => self.say(text.trim_end()),
            ToHost::Log { .. } => {}
            ToHost::Explain { text } => self.say(text.trim_end()),
            ToHost::Summary(summary) => self.state.summary = Some(summary),
            ToHost::Exit(ending) => self.state.ending = Some(ending),
            ToHost::Panic { text } => self.state.panic = Some(text),
        }
    }

    fn signal(&mut self, signal: i32) {
        match signal {
            SIGWINCH => self.send(&ToGuest::WindowSize(terminal::window())),
            SIGTSTP => self.stop(),
            _ => {
                let times = if self.state.deadly.0 == signal { self.state.deadly.1 + 1 } else { 1 };
                self.state.deadly = (signal, times);
                if times >= IMPATIENCE && matches!(signal, SIGINT | SIGTERM | SIGHUP | SIGQUIT) {
                    self.state.given_up = true;
                    let _ = kill_process(self.qemu, Signal::KILL);
                } else {
                    self.send(&ToGuest::Signal(signal as u8));
                }
            }
        }
    }

    /// Ctrl-Z outside: the machine stands still too, until we go on.
    fn stop(&mut self) {
        let was_raw = terminal::is_raw();
        self.raw = None;
        let _ = kill_process(self.qemu, Signal::STOP);
        let _ = kill_process(rustix::process::getpid(), Signal::STOP);
        // Here again: someone sent SIGCONT.
        let _ = kill_process(self.qemu, Signal::CONT);
        if was_raw {
            self.raw = terminal::Raw::enter();
        }
    }

    /// A message to the kernel. If it cannot be sent the machine is ending, and its end will be seen.
    fn send(&mut self, message: &ToGuest) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let _ = self.control.write_all(&bytes);
    }

    /// Words of our own on standard error.
    fn say(&mut self, text: &str) {
        self.spinner = None;
        let end = if terminal::is_raw() { "\r\n" } else { "\n" };
        let mut all = String::new();
        for line in text.lines() {
            all += &format!("hafez: {line}{end}");
        }
        let _ = io::stderr().lock().write_all(all.as_bytes());
    }

    fn finish(mut self, status: io::Result<ExitStatus>) -> Result<u8> {
        let bytes_of = |words: JoinHandle<Vec<u8>>| words.join().unwrap_or_default();
        for output in std::mem::take(&mut self.outputs) {
            let _ = output.join();
        }
        self.spinner = None;
        self.raw = None;
        let early = String::from_utf8_lossy(&bytes_of(self.early_words)).into_owned();
        // A kernel that panics before it has ports, or in them, can still write to the early console.
        let panic = self.state.panic.take().or_else(|| Some(early[early.find(EARLY_PANIC)?..].to_owned()));
        if let Some(text) = panic {
            let named = symbols::name_addresses(&text, &self.kernel);
            eprintln!(
                "hafez: the kernel panicked. This is a bug in Hafez, not in the program.\n{}",
                named.trim_end()
            );
            return Ok(FAILED);
        }
        let Some(ending) = self.state.ending else {
            if self.state.given_up {
                return Ok(128 + self.state.deadly.0 as u8);
            }
            let qemu = String::from_utf8_lossy(&bytes_of(self.qemu_words)).trim().to_owned();
            let how = match status {
                Ok(status) => match status.signal() {
                    Some(signal) => format!("QEMU was killed by signal {signal}"),
                    None => format!("QEMU ended with code {}", status.code().unwrap_or_default()),
                },
                Err(e) => format!("QEMU is lost: {e}"),
            };
            let lost = self.state.control_lost.map(|why| format!("; {why}")).unwrap_or_default();
            let mut report = format!("the machine stopped before the program did: {how}{lost}");
            for words in [qemu, symbols::name_addresses(early.trim(), &self.kernel)] {
                if !words.is_empty() {
                    report += &format!("\n{words}");
                }
            }
            bail!(report);
        };
        if let Some(s) = self.state.summary.filter(|_| !self.quiet) {
            eprintln!("hafez: {}", summary::line(&s, self.memory));
        }
        // A program that could not deliver its output, and does not know, did not succeed.
        let code = ending.code();
        Ok(if self.state.output_failed && code == 0 { FAILED } else { code })
    }
}

fn spinner(quiet: bool) -> Option<ProgressBar> {
    if quiet || !io::stderr().is_terminal() {
        return None;
    }
    let spinner = ProgressBar::new_spinner().with_message("starting the machine");
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(100));
    Some(spinner)
}
