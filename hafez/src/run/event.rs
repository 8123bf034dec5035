//! What can happen while a program runs, and the threads that wait for it.
//!
//! Each waits for one thing and sends it to the session, which alone decides what it means. (The program's own bytes are `pump`'s.)

use anyhow::{Context, Result};
use hafez_link::{Frames, ToHost};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::sync::mpsc::Sender;

/// What a session waits for.
pub enum Event {
    Control(ToHost),
    /// No more frames, and why if that is odd.
    ControlEnded(Option<String>),
    Signal(i32),
    MachineEnded(io::Result<ExitStatus>),
    InputEnded {
        total: u64,
    },
    InputFailed(io::Error),
    OutputFailed {
        name: &'static str,
        error: io::Error,
    },
}

/// The signals that a session answers.
pub fn watch_signals(events: Sender<Event>) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, SIGTSTP])
        .context("cannot watch signals")?;
    std::thread::spawn(move || {
        for signal in &mut signals {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// The end of QEMU.
pub fn watch_machine(mut child: Child, events: Sender<Event>) {
    std::thread::spawn(move || {
        let status = child.wait();
        let _ = events.send(Event::MachineEnded(status));
    });
}

/// What the kernel says.
pub fn watch_control(mut port: UnixStream, events: Sender<Event>) {
    std::thread::spawn(move || {
        let why = read_control(&mut port, &events).err().map(|e| format!("the control port: {e}"));
        let _ = events.send(Event::ControlEnded(why));
    });
}

fn read_control(port: &mut UnixStream, events: &Sender<Event>) -> Result<()> {
    let mut frames = Frames::new();
    let mut buffer = [0; 4096];
    loop {
        let n = match port.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            // QEMU died with something unread.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        frames.feed(&buffer[..n])?;
        while let Some((kind, payload)) = frames.next()? {
            let message = ToHost::decode(kind, &payload)?;
            if events.send(Event::Control(message)).is_err() {
                return Ok(());
            }
        }
    }
}
