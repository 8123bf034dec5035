//! Terminals: the console and pseudoterminals (`tty(4)`, `pty(7)`).
//!
//! ```text
//!               keys ──► Line (line.rs) ──► read   ┐
//!   other end                                      ├ program: a Side (side.rs), requests (request.rs)
//!             screen ◄── output.rs ◄─────── write  ┘
//!
//!   other end =  the port `hafez.tty` to the terminal outside (console.rs): /dev/console
//!             or the master of a pair (pty.rs): /dev/ptmx here, /dev/pts/N there (pts.rs)
//! ```
//!
//! Both kinds share everything between the program and the other end: the line discipline, the window size, and job
//! control ([`job`]). `/dev/tty` is whichever terminal controls the caller's session.
//!
//! Locks: `line` and `control` are spin locks, taken alone, except that bytes for a pair go to its queue with `line`
//! held, so that an echo does not fall into the middle of a program's output.

mod console;
pub mod job;
mod line;
mod output;
mod pts;
mod pty;
mod request;
mod side;

pub use console::{open as console, set_owner, set_window, start};
pub use pts::{MAX as MAX_PAIRS, count as pairs, mount as pts, open_number as open_pts, set_mount};
pub use pty::{new as new_pair, peer};

use super::{file::FileOps, inode::OpenMode, lock::SleepLock, poll::Signal};
use crate::{
    drivers::console::Port,
    errno::{Errno, Result},
};
use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use hafez_mm::lock::Mutex;
use job::Control;
use line::{Event, Line};
use linux_raw_sys::general as abi;
use pty::Queue;

/// The most echo that waits while output is stopped.
const MAX_HELD: usize = 4096;

/// A terminal, as programs see it.
pub struct Terminal {
    /// Its device number.
    pub device: u64,
    line: Mutex<Line>,
    control: Mutex<Control>,
    window: Mutex<[u16; 4]>,
    screen: Screen,
    /// Echo that came while output was stopped.
    held: Mutex<Vec<u8>>,
    /// One reader at a time takes bytes.
    reader: SleepLock,
    /// Input came, output may go on, or the terminal was hung up.
    changed: Arc<Signal>,
    hung_up: AtomicBool,
    /// Nobody else may open it (TIOCEXCL).
    exclusive: AtomicBool,
    /// Openings of this side.
    opens: AtomicUsize,
}

/// Where output goes.
enum Screen {
    Port(&'static Port),
    Pair(Queue),
}

impl Terminal {
    fn new(device: u64, screen: Screen, window: [u16; 4]) -> Terminal {
        Terminal {
            device,
            line: Mutex::new(Line::new()),
            control: Mutex::default(),
            window: Mutex::new(window),
            screen,
            held: Mutex::default(),
            reader: SleepLock::new(),
            changed: Signal::new(),
            hung_up: AtomicBool::new(false),
            exclusive: AtomicBool::new(false),
            opens: AtomicUsize::new(0),
        }
    }

    /// Open this side; it may become the caller's controlling terminal.
    fn open(self: &Arc<Self>, how: OpenMode) -> Result<Arc<dyn FileOps>> {
        if self.hung_up.load(Relaxed) {
            return Err(Errno::EIO);
        }
        if self.exclusive.load(Relaxed) && self.opens.load(Relaxed) > 0 && !job::is_root() {
            return Err(Errno::EBUSY);
        }
        if how.controlling && how.read {
            job::opened(self);
        }
        Ok(side::Side::new(self.clone(), how.read))
    }

    fn control(&self) -> Control {
        *self.control.lock()
    }
    fn set_control(&self, control: Control) {
        *self.control.lock() = control;
    }
    /// The group in the foreground; 0 for none.
    pub fn foreground(&self) -> u32 {
        self.control().foreground
    }

    /// Keys come from the other end: how many were taken. Fewer than all if nobody reads them.
    fn keys(&self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let mut echo = Vec::new();
            let (n, event) = self.line.lock().input(&bytes[done..], &mut echo);
            self.echo(&echo);
            done += n;
            match event {
                Some(event) => self.act(event),
                None if n == 0 => break,
                None => {}
            }
        }
        self.changed.notify();
        done
    }

    fn act(&self, event: Event) {
        match event {
            Event::Signal { signo, flush } => {
                if flush {
                    self.drop_output();
                }
                job::signal_group(self.foreground(), signo);
                let mut echo = Vec::new();
                self.line.lock().echo_signal(signo, &mut echo);
                if self.line.lock().input_flag(abi::IXON) {
                    self.start_output();
                }
                self.echo(&echo);
            }
            Event::Stop => self.stop_output(),
            Event::Start => self.start_output(),
        }
    }

    fn stop_output(&self) {
        self.line.lock().stopped = true;
        self.report(abi_stop(true));
    }

    fn start_output(&self) {
        if !core::mem::replace(&mut self.line.lock().stopped, false) {
            return;
        }
        self.report(abi_stop(false));
        let held = core::mem::take(&mut *self.held.lock());
        self.echo(&held);
        self.changed.notify();
    }

    /// Tell a master in packet mode.
    fn report(&self, status: u32) {
        if let Screen::Pair(queue) = &self.screen {
            queue.report(status as u8);
        }
    }

    /// Output that has not been sent yet is forgotten. There never is any: what was written is at the other end
    /// already, as on Linux, where it gets there by and by. A master in packet mode is told all the same.
    fn drop_output(&self) {
        self.report(pty::PKT_FLUSHWRITE);
    }

    /// Show what was typed. A screen that has gone, or takes no more, shows no echo.
    fn echo(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.line.lock().stopped {
            let mut held = self.held.lock();
            let n = bytes.len().min(MAX_HELD.saturating_sub(held.len()));
            held.extend_from_slice(&bytes[..n]);
            return;
        }
        let _ = self.show(bytes, true);
    }

    /// Process output, and send it to the other end.
    fn show(&self, bytes: &[u8], echo: bool) -> Result<()> {
        let mut screen = Vec::with_capacity(bytes.len() + bytes.len() / 8);
        let mut line = self.line.lock();
        line.output(bytes, &mut screen);
        match &self.screen {
            Screen::Pair(queue) => {
                let result = queue.push(&screen, echo);
                drop(line);
                queue.changed.notify();
                result
            }
            Screen::Port(port) => {
                drop(line);
                port.write(&screen, true, false).map_err(super::stdio::write_error)?;
                Ok(())
            }
        }
    }

    /// The window has another size: whoever is in the foreground hears of it.
    fn resize(&self, window: [u16; 4]) {
        if core::mem::replace(&mut *self.window.lock(), window) != window {
            job::signal_group(self.foreground(), abi::SIGWINCH);
        }
    }

    /// The other end has gone: reads find the end, writes fail, the session's leader is told.
    fn hang_up(&self) {
        self.hung_up.store(true, Relaxed);
        self.line.lock().flush();
        job::hang_up(self);
        self.changed.notify();
    }
}

/// What packet mode says of stopped or restarted output.
fn abi_stop(stop: bool) -> u32 {
    if stop { pty::PKT_STOP } else { pty::PKT_START }
}

/// `/dev/tty`: the terminal that controls the caller; `ENXIO` if none does.
pub fn open_own(how: OpenMode) -> Result<Arc<dyn FileOps>> {
    let terminal = job::own().ok_or(Errno::ENXIO)?;
    terminal.open(OpenMode { controlling: false, ..how })
}

/// `vhangup(2)`.
pub fn hang_up_own() {
    if let Some(terminal) = job::own() {
        terminal.hang_up();
    }
}

/// Of a session's terminal: its device number, and the group in the foreground (`/proc/PID/stat`).
pub fn of_session(session: u32) -> Option<(u64, u32)> {
    job::terminal_of(session).map(|t| (t.device, t.foreground()))
}
