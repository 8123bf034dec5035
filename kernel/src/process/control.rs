//! The line to the `hafez` command: its messages come in here, the kernel's go out.
//!
//! One thread reads; anyone may send, a whole frame at a time. What cannot wait for the port (a kill for want of memory
//! comes from deep inside) leaves a note and wakes the keeper thread (`oom.rs`).

use super::signal::{self, SigInfo};
use super::table;
use crate::drivers;
use crate::drivers::console::Port;
use crate::fs::lock::SleepLock;
use crate::sched;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use hafez_link::{Frames, Level, Start, ToGuest, ToHost, WindowSize, port};
use linux_raw_sys::general as abi;

/// Held while a frame goes out: frames do not mix.
static SENDING: SleepLock = SleepLock::new();

fn ctl() -> Option<&'static Port> {
    drivers::port(port::CTL)
}

/// Send one message. Lost if nobody listens any more.
pub fn send(message: &ToHost) {
    let Some(port) = ctl() else { return };
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    let _one = SENDING.lock();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        match port.write(rest, true, false) {
            Ok(0) | Err(_) => return,
            Ok(n) => rest = &rest[n..],
        }
    }
}

/// Words for the user, on `hafez`'s standard error.
pub fn explain(text: String) {
    send(&ToHost::Explain { text });
}

/// A line for the log that `HAFEZ_LOG` shows. May sleep; where that is not allowed, `log` writes to the early console.
pub fn log(level: Level, text: String) {
    send(&ToHost::Log { level, text });
}

/// What comes in.
pub struct Inbox {
    port: &'static Port,
    frames: Frames,
}

impl Inbox {
    /// Begin to listen; `None` where there is no control port.
    pub fn open() -> Option<Inbox> {
        let port = ctl()?;
        port.listen().ok()?;
        Some(Inbox { port, frames: Frames::new() })
    }

    /// The next message; `None` when the other side is gone or talks nonsense.
    fn next(&mut self) -> Option<ToGuest> {
        loop {
            match self.frames.next() {
                Ok(Some((kind, payload))) => return ToGuest::decode(kind, &payload).ok(),
                Ok(None) => {}
                Err(_) => return None,
            }
            let mut bytes = [0u8; 1024];
            match self.port.read(&mut bytes, false)? {
                0 => return None,
                n => self.frames.feed(&bytes[..n]).ok()?,
            }
        }
    }

    /// The first message must be this one.
    pub fn start(&mut self) -> Option<Start> {
        match self.next()? {
            ToGuest::Start(start) => Some(start),
            _ => None,
        }
    }

    /// Serve all further messages, on a thread of its own.
    pub fn serve(mut self, window: fn(WindowSize), stdin_end: fn(u64)) {
        let body = move || {
            while let Some(message) = self.next() {
                match message {
                    ToGuest::Signal(signo) => from_outside(signo as u32),
                    ToGuest::WindowSize(size) => window(size),
                    ToGuest::StdinEnd { total } => stdin_end(total),
                    ToGuest::Start(_) => {}
                }
            }
        };
        if sched::spawn("control", Box::new(body), None).is_err() {
            log::error!("no memory for the control thread: signals from outside will not come through");
        }
    }
}

/// A signal that the `hafez` command got: what a terminal would send goes to the first program's group, the rest to itself.
fn from_outside(signo: u32) {
    let info = SigInfo::user(signo, abi::SI_USER as i32, 0, 0);
    let sent = match signo {
        abi::SIGINT | abi::SIGQUIT | abi::SIGTSTP | abi::SIGHUP | abi::SIGWINCH => {
            signal::to_group(table::FIRST, info)
        }
        _ => table::process(table::FIRST).map_or(Ok(()), |p| signal::to_process(&p, info)),
    };
    if let Err(e) = sent {
        log::debug!("signal {signo} from outside: {e}");
    }
}
