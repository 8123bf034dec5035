//! Who hears of an open file's changes by signal: `O_ASYNC`, `F_SETOWN`, `F_SETSIG` (`fcntl(2)`).
//!
//! ```text
//!   Signal::notify ─▶ Owner::changed ── asks the file what can be done now ─▶ the process layer's function ─▶ SIGIO, or the chosen signal
//! ```
//!
//! An owner belongs to a description, and is made when somebody is named, or a signal chosen. A change of a file is not told by what it
//! was: the file is asked. Where who changes it knows better, it says so (`Signal::notify_as`): a pipe's reader made room, its writer
//! brought data.

use super::file::FileOps;
use super::poll::Events;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use hafez_mm::lock::{Mutex, Once};
use linux_raw_sys::general as abi;

/// Who is meant by the number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Target {
    /// One task (`F_OWNER_TID`).
    Task,
    #[default]
    Process,
    Group,
}

/// A task, a process or a group; 0 for nobody. And as whom that was said: signals go where they could have been sent by hand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Who {
    pub target: Target,
    pub number: i32,
    pub uid: u32,
    pub euid: u32,
}

/// What happened: `POLL_*`, as `si_code` tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum News {
    In = abi::POLL_IN,
    Out = abi::POLL_OUT,
    Message = abi::POLL_MSG,
    Error = abi::POLL_ERR,
    Hangup = abi::POLL_HUP,
}

/// A signal to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Telling {
    /// The one that was chosen; 0: SIGIO, which says no more than that.
    pub signal: u32,
    pub fd: u32,
    pub news: News,
    /// Urgent data: SIGURG, and no more.
    pub urgent: bool,
}

static SEND: Once<fn(Who, Telling)> = Once::new();

/// Tell how to send: processes are a room above.
pub fn set_sender(send: fn(Who, Telling)) {
    SEND.call_once(|| send);
}

/// See the module.
pub struct Owner {
    who: Mutex<Who>,
    /// O_ASYNC is on; and by which descriptor it was put on.
    wants: AtomicBool,
    fd: AtomicU32,
    signal: AtomicU32,
    /// At the last look it could be written.
    writable: AtomicBool,
    ops: Weak<dyn FileOps>,
}

impl Owner {
    pub fn new(ops: &Arc<dyn FileOps>) -> Owner {
        Owner {
            who: Mutex::default(),
            wants: AtomicBool::new(false),
            fd: AtomicU32::new(0),
            signal: AtomicU32::new(0),
            writable: AtomicBool::new(false),
            ops: Arc::downgrade(ops),
        }
    }

    pub fn who(&self) -> Who {
        *self.who.lock()
    }
    pub fn set_who(&self, who: Who) {
        *self.who.lock() = who;
    }
    /// `F_SETSIG`.
    pub fn signal(&self) -> u32 {
        self.signal.load(Relaxed)
    }
    pub fn set_signal(&self, signal: u32) {
        self.signal.store(signal, Relaxed);
    }
    /// O_ASYNC, by this descriptor.
    pub fn set_wants(&self, on: bool, fd: u32) {
        self.fd.store(fd, Relaxed);
        if on {
            let now = self.ops.upgrade().map_or(Events::empty(), |ops| ops.poll());
            self.writable.store(now.intersects(Events::WRITABLE), Relaxed);
        }
        self.wants.store(on, Relaxed);
    }

    /// The file has changed: into one of these, if that is known.
    pub fn changed(&self, into: Option<Events>) {
        if !self.wants.load(Relaxed) {
            return;
        }
        let Some(ops) = self.ops.upgrade() else { return };
        let now = ops.poll();
        let writable = now.intersects(Events::WRITABLE);
        let was_writable = self.writable.swap(writable, Relaxed);
        let news = match into {
            Some(into) if (now & into).intersects(Events::READABLE | Events::HUP) => News::In,
            Some(into) if (now & into).intersects(Events::WRITABLE | Events::ERR) => News::Out,
            Some(_) => return,
            None if now.intersects(Events::READABLE) => News::In,
            None if now.contains(Events::HUP) => News::Hangup,
            None if now.contains(Events::ERR) => News::Error,
            None if writable && !was_writable => News::Out,
            None => return,
        };
        self.tell(news, self.fd.load(Relaxed));
    }

    /// Something that is no change of the file's own, whether or not O_ASYNC is on.
    pub fn tell(&self, news: News, fd: u32) {
        self.send(Telling { signal: self.signal(), fd, news, urgent: false });
    }

    /// Urgent data came.
    pub fn urge(&self) {
        self.send(Telling { signal: 0, fd: 0, news: News::In, urgent: true });
    }

    fn send(&self, telling: Telling) {
        let who = self.who();
        if let Some(send) = SEND.get().filter(|_| who.number != 0) {
            send(who, telling);
        }
    }
}
