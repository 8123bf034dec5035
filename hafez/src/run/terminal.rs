//! The terminal outside.
//!
//! While a program runs on one, it is in raw mode: every key goes inside, and the machine's own terminal does the echo, the
//! line editing and the Ctrl-C. A terminal left in raw mode is a broken shell, so `Raw` puts it back when it is dropped, and a
//! panic hook and the signal thread see to the ways out that drop nothing.

use hafez_link::WindowSize;
use rustix::fd::BorrowedFd;
use rustix::fs::fstat;
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::sync::Mutex;

/// Window size of the first terminal among the three, and which of them are terminals.
pub fn look() -> (WindowSize, [bool; 3]) {
    let tty = [isatty(stdin()), isatty(stdout()), isatty(stderr())];
    (window(), tty)
}

/// Where terminal output goes: the first terminal of the three, writable ones first.
pub fn device() -> Option<BorrowedFd<'static>> {
    [stdout(), stderr(), stdin()].into_iter().find(|fd| isatty(fd))
}

pub fn window() -> WindowSize {
    let size = device().and_then(|d| tcgetwinsize(d).ok());
    size.map_or(WindowSize::default(), |s| WindowSize {
        rows: s.ws_row,
        cols: s.ws_col,
        width: s.ws_xpixel,
        height: s.ws_ypixel,
    })
}

/// Whether standard error is the same file or pipe as standard output, so that the order of what goes to both matters.
pub fn merged() -> bool {
    match (fstat(stdout()), fstat(stderr())) {
        (Ok(a), Ok(b)) => a.st_dev == b.st_dev && a.st_ino == b.st_ino && !isatty(stdout()),
        _ => false,
    }
}

/// Whether there is anything to read at all: not `/dev/null`, nor a closed descriptor (which the runtime makes `/dev/null`).
pub fn has_input() -> bool {
    let Ok(null) = rustix::fs::stat("/dev/null") else { return true };
    fstat(stdin()).is_ok_and(|s| s.st_rdev != null.st_rdev)
}

/// How the terminal was before, while it is raw.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Raw mode, for as long as this lives.
pub struct Raw;

impl Raw {
    /// Raw mode, if standard input is a terminal.
    pub fn enter() -> Option<Self> {
        if !isatty(stdin()) || !enter() {
            return None;
        }
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            leave();
            earlier(info);
        }));
        Some(Self)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        leave();
    }
}

fn enter() -> bool {
    let Ok(now) = tcgetattr(stdin()) else { return false };
    let mut raw = now.clone();
    raw.make_raw();
    *lock() = Some(now);
    tcsetattr(stdin(), OptionalActions::Drain, &raw).is_ok()
}

/// Puts the terminal back, once.
pub fn leave() {
    if let Some(before) = lock().take() {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &before);
    }
}

/// Whether it is raw now: then a line needs a carriage return too.
pub fn is_raw() -> bool {
    lock().is_some()
}

fn lock() -> std::sync::MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
