//! The terminal: `/dev/console` and `/dev/tty`, when `hafez` runs on one.
//!
//! Outside, the host command has put its terminal in raw mode and passes bytes both ways through the port `hafez.tty`; echo,
//! line editing and Ctrl-C happen here, in a [`Line`]. A thread takes keys as they come, for Ctrl-C has to work when
//! nobody reads. If standard input is no terminal, the port's input is that stream's, and the terminal has output only.
//!
//! Processes, sessions and signals are above: [`set_hooks`] tells how to ask about the caller and how to signal a group.
//!
//! Locks: `line` and `job` are spin locks, taken alone.

use super::{
    file::{FileOps, How},
    iobuf::{Sink, Source},
    line::{KeySignal, Line, Termios},
    lock::SleepLock,
    poll::{Events, Signal, Watchers},
    stdio,
};
use crate::{
    arch::user,
    drivers::console::Port,
    errno::{Errno, Result},
    sched::{self, WaitResult},
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::any::Any;
use hafez_link::port;
use hafez_mm::lock::{Mutex, Once};
use linux_raw_sys::{general as abi, ioctl};

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Job {
    pub pid: u32,
    pub group: u32,
    pub session: u32,
}

/// What the process layer does for terminals.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// The calling process.
    pub caller: fn() -> Job,
    /// Send a signal to every process of a group.
    pub signal: fn(group: u32, signal: u32),
}

static HOOKS: Once<Hooks> = Once::new();

/// Tell how to reach processes.
pub fn set_hooks(hooks: Hooks) {
    HOOKS.call_once(|| hooks);
}

/// Bytes of a program's output that are processed in one go.
const OUTPUT_CHUNK: usize = 1024;

struct Tty {
    port: &'static Port,
    line: Mutex<Line>,
    job: Mutex<Control>,
    reader: SleepLock,
    changed: Arc<Signal>,
}

/// Whose terminal it is.
#[derive(Default)]
struct Control {
    session: u32,
    foreground: u32,
    window: [u16; 4],
    hung_up: bool,
}

static TTY: Once<Arc<Tty>> = Once::new();

/// Take the terminal into use, with its keys if `input`.
pub fn start(input: bool) -> Result<()> {
    let port = stdio::wait_for(port::TTY)?;
    let mut first = false;
    let tty = TTY.call_once(|| {
        first = true;
        let control = Control { window: *WINDOW.lock(), ..Control::default() };
        Arc::new(Tty {
            port,
            line: Mutex::new(Line::new()),
            job: Mutex::new(control),
            reader: SleepLock::new(),
            changed: Signal::new(),
        })
    });
    if first && input {
        port.listen().map_err(|_| Errno::EIO)?;
        let tty = tty.clone();
        sched::spawn("tty", Box::new(move || tty.listen()), None).map_err(|_| Errno::ENOMEM)?;
    }
    Ok(())
}

/// `/dev/console` and `/dev/tty`: `ENXIO` where there is no terminal outside.
pub fn open() -> Result<Arc<dyn FileOps>> {
    Ok(TTY.get().ok_or(Errno::ENXIO)?.clone())
}

/// The first program's session gets it as its controlling terminal.
pub fn set_owner(session: u32, group: u32) {
    if let Some(tty) = TTY.get() {
        let mut job = tty.job.lock();
        (job.session, job.foreground) = (session, group);
    }
}

/// The foreground process group, if there is a terminal with one.
pub fn foreground() -> Option<u32> {
    TTY.get().map(|t| t.job.lock().foreground).filter(|g| *g != 0)
}

/// The device number of the terminal of a session (`/proc/PID/stat`); 0 if it has none.
pub fn number_of(session: u32) -> u64 {
    let ours = TTY.get().is_some_and(|t| t.job.lock().session == session);
    if ours { super::dev::makedev(5, 1) } else { 0 }
}

static WINDOW: Mutex<[u16; 4]> = Mutex::new([24, 80, 0, 0]);

/// The host's terminal has this many rows and columns, and pixels of width and height.
pub fn set_window(window: [u16; 4]) {
    *WINDOW.lock() = window;
    if let Some(tty) = TTY.get() {
        tty.resize(window);
    }
}

fn signal(group: u32, signal: u32) {
    if let Some(hooks) = HOOKS.get().filter(|_| group != 0) {
        (hooks.signal)(group, signal);
    }
}

impl Tty {
    /// The thread that takes keys.
    fn listen(&self) {
        let mut bytes = [0; 256];
        while let Some(n) = self.port.read(&mut bytes, false) {
            if n == 0 {
                break;
            }
            let reaction = self.line.lock().input(&bytes[..n]);
            self.changed.notify();
            for key in reaction.signals {
                let group = self.job.lock().foreground;
                signal(
                    group,
                    match key {
                        KeySignal::Interrupt => abi::SIGINT,
                        KeySignal::Quit => abi::SIGQUIT,
                        KeySignal::Stop => abi::SIGTSTP,
                    },
                );
            }
            let mut screen = Vec::new();
            self.line.lock().output(&reaction.echo, &mut screen);
            // A screen that has gone shows no echo.
            let _ = self.port.write(&screen, true, false);
        }
        let leader = {
            let mut job = self.job.lock();
            job.hung_up = true;
            job.session
        };
        self.changed.notify();
        signal(leader, abi::SIGHUP);
    }

    fn resize(&self, window: [u16; 4]) {
        let group = {
            let mut job = self.job.lock();
            if job.window == window {
                return;
            }
            job.window = window;
            job.foreground
        };
        signal(group, abi::SIGWINCH);
    }

    /// A process in the background may not read, or (TOSTOP) write: its group is stopped.
    fn check_foreground(&self, stop: u32) -> Result<()> {
        let Some(hooks) = HOOKS.get() else { return Ok(()) };
        let caller = (hooks.caller)();
        let job = self.job.lock();
        if job.session != caller.session || job.foreground == 0 || job.foreground == caller.group {
            return Ok(());
        }
        drop(job);
        (hooks.signal)(caller.group, stop);
        Err(Errno::RESTART)
    }

    /// Sleep until there is something to read: not longer than VTIME says, in the modes that count time.
    fn await_input(&self, how: How) -> Result<()> {
        let (canonical, min, time) = {
            let line = self.line.lock();
            let cc = line.termios.c_cc;
            let canonical = line.termios.c_lflag & abi::ICANON != 0;
            (canonical, cc[abi::VMIN as usize], cc[abi::VTIME as usize])
        };
        let ready = || self.line.lock().readable() || self.job.lock().hung_up;
        if ready() || (!canonical && min == 0 && time == 0) {
            return Ok(());
        }
        if how.nonblock {
            return Err(Errno::EAGAIN);
        }
        // VTIME is in tenths of a second.
        let deadline =
            (!canonical && min == 0).then(|| crate::clock::monotonic() + time as u64 * 100_000_000);
        match self.changed.queue().wait_until(ready, deadline, true) {
            WaitResult::Interrupted => Err(Errno::RESTART),
            _ => Ok(()),
        }
    }
}

impl FileOps for Tty {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _: u64, to: &mut Sink<'_>, how: How) -> Result<()> {
        if to.remaining() == 0 {
            return Ok(());
        }
        self.check_foreground(abi::SIGTTIN)?;
        self.await_input(how)?;
        let _one = self.reader.lock();
        let (bytes, over) = {
            let mut line = self.line.lock();
            let before = line.lines();
            let bytes = line.read(to.remaining());
            (bytes, line.lines() < before)
        };
        let n = to.put(&bytes);
        if n < bytes.len() {
            self.line.lock().unread(&bytes[n..], over);
        }
        Ok(())
    }

    fn write(&self, _: u64, from: &mut Source<'_>, how: How) -> Result<()> {
        if self.line.lock().termios.c_lflag & abi::TOSTOP != 0 {
            self.check_foreground(abi::SIGTTOU)?;
        }
        let mut bytes = [0; OUTPUT_CHUNK];
        while from.remaining() > 0 {
            // See that it goes before bytes are taken from the program.
            drop(self.port.buffer(!how.nonblock, true).map_err(stdio::write_error)?);
            let n = from.take(&mut bytes);
            let mut screen = Vec::with_capacity(n + n / 8);
            self.line.lock().output(&bytes[..n], &mut screen);
            self.port.write(&screen, true, false).map_err(stdio::write_error)?;
        }
        Ok(())
    }

    fn poll(&self) -> Events {
        let mut events = Events::empty();
        let hung_up = self.job.lock().hung_up;
        events.set(Events::READABLE, self.line.lock().readable() || hung_up);
        events.set(Events::WRITABLE, self.port.writable());
        events.set(Events::HUP, hung_up);
        events
    }
    fn watch(&self, watchers: &mut Watchers) {
        watchers.add(&self.changed);
        watchers.add_fixed(&self.port.writers);
    }

    fn ioctl(&self, request: u32, at: u64) -> Result<usize> {
        match request {
            ioctl::TCGETS => {
                let termios = self.line.lock().termios;
                put_termios(at, &termios, OLD_TERMIOS)?
            }
            ioctl::TCGETS2 => {
                let termios = self.line.lock().termios;
                put_termios(at, &termios, NEW_TERMIOS)?
            }
            ioctl::TCSETS | ioctl::TCSETSW | ioctl::TCSETSF => {
                self.set_termios(at, OLD_TERMIOS, request == ioctl::TCSETSF)?
            }
            ioctl::TCSETS2 | ioctl::TCSETSW2 | ioctl::TCSETSF2 => {
                self.set_termios(at, NEW_TERMIOS, request == ioctl::TCSETSF2)?
            }
            ioctl::TIOCGWINSZ => {
                let window = self.job.lock().window;
                user::copy_to(at, &words(window))?
            }
            ioctl::TIOCSWINSZ => {
                let mut b = [0; 8];
                user::copy_from(&mut b, at)?;
                let word = |i: usize| u16::from_ne_bytes([b[2 * i], b[2 * i + 1]]);
                self.resize([word(0), word(1), word(2), word(3)]);
            }
            ioctl::TIOCGPGRP => {
                let group = self.job.lock().foreground;
                user::write_u32(at, group)?
            }
            ioctl::TIOCSPGRP => {
                let group = user::read_u32(at)?;
                if group as i32 <= 0 {
                    return Err(Errno::EINVAL);
                }
                self.job.lock().foreground = group;
            }
            ioctl::TIOCGSID => {
                let session = self.job.lock().session;
                user::write_u32(at, session)?
            }
            ioctl::TIOCSCTTY => {
                let caller = HOOKS.get().map(|h| (h.caller)()).unwrap_or_default();
                let mut job = self.job.lock();
                if caller.session != caller.pid || (job.session != 0 && job.session != caller.session) {
                    return Err(Errno::EPERM);
                }
                (job.session, job.foreground) = (caller.session, caller.group);
            }
            ioctl::TIOCNOTTY => {
                let mut job = self.job.lock();
                (job.session, job.foreground) = (0, 0);
            }
            ioctl::FIONREAD => {
                let n = self.line.lock().available();
                user::write_u32(at, n as u32)?
            }
            ioctl::TIOCOUTQ => user::write_u32(at, 0)?,
            ioctl::TCFLSH => match at as u32 {
                abi::TCIFLUSH | abi::TCIOFLUSH => self.line.lock().flush(),
                abi::TCOFLUSH => {}
                _ => return Err(Errno::EINVAL),
            },
            // Output does not stay here: it has been sent.
            ioctl::TCSBRK | ioctl::TCSBRKP => {}
            ioctl::TIOCEXCL | ioctl::TIOCNXCL => {}
            _ => return Err(Errno::ENOTTY),
        }
        Ok(0)
    }
}

/// Bytes of `struct termios` and of `struct termios2`.
const OLD_TERMIOS: usize = 36;
const NEW_TERMIOS: usize = 44;

impl Tty {
    fn set_termios(&self, at: u64, len: usize, flush: bool) -> Result<()> {
        self.check_foreground(abi::SIGTTOU)?;
        let mut b = [0; NEW_TERMIOS];
        user::copy_from(&mut b[..len], at)?;
        let word = |i: usize| u32::from_ne_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let mut line = self.line.lock();
        let mut new = line.termios;
        (new.c_iflag, new.c_oflag, new.c_cflag, new.c_lflag) = (word(0), word(4), word(8), word(12));
        new.c_line = b[16];
        new.c_cc.copy_from_slice(&b[17..36]);
        if len == NEW_TERMIOS {
            (new.c_ispeed, new.c_ospeed) = (word(36), word(40));
        }
        if flush {
            line.flush();
        }
        line.set(new);
        drop(line);
        self.changed.notify();
        Ok(())
    }
}

fn put_termios(at: u64, t: &Termios, len: usize) -> Result<()> {
    let mut b = [0; NEW_TERMIOS];
    let words =
        [(0, t.c_iflag), (4, t.c_oflag), (8, t.c_cflag), (12, t.c_lflag), (36, t.c_ispeed), (40, t.c_ospeed)];
    for (i, word) in words {
        b[i..i + 4].copy_from_slice(&word.to_ne_bytes());
    }
    b[16] = t.c_line;
    b[17..36].copy_from_slice(&t.c_cc);
    user::copy_to(at, &b[..len])?;
    Ok(())
}

fn words(window: [u16; 4]) -> [u8; 8] {
    let mut b = [0; 8];
    for (i, w) in window.iter().enumerate() {
        b[2 * i..2 * i + 2].copy_from_slice(&w.to_ne_bytes());
    }
    b
}
