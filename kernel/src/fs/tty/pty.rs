//! The master of a pseudoterminal (`pty(7)`): whoever holds it is the keyboard and the screen.
//!
//! `/dev/ptmx` makes a pair. What is written to the master are keys for the other side's line discipline; what the program there
//! writes waits in a [`Queue`] until the master reads it. A queue that is full makes the program wait, and keys that nobody
//! reads make the master wait. When the master is closed the other side is hung up; when the last opening of the other
//! side is closed, the master reads what is left and then `EIO`, until somebody opens it again.

use super::{
    Screen, Terminal,
    pts::{self, Pts},
    request,
};
use crate::{
    arch::user,
    errno::{Errno, Result},
    fs::{
        File, dev,
        file::{FileOps, How},
        inode::Inode,
        iobuf::{Sink, Source},
        poll::{Events, Signal, Watchers},
    },
};
use alloc::{collections::VecDeque, sync::Arc, vec::Vec};
use core::any::Any;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use hafez_mm::lock::Mutex;
use linux_raw_sys::ioctl;

/// Bytes that wait for the master at most; an echo may go a little beyond.
const QUEUE: usize = 16 * 1024;
const ECHO_BEYOND: usize = 4096;
/// Keys that are taken from a program in one go.
const KEYS: usize = 512;

/// What packet mode tells (`TIOCPKT_*`): one bit each.
pub const PKT_FLUSHREAD: u32 = 1;
pub const PKT_FLUSHWRITE: u32 = 2;
pub const PKT_STOP: u32 = 4;
pub const PKT_START: u32 = 8;
pub const PKT_NOSTOP: u32 = 16;
pub const PKT_DOSTOP: u32 = 32;

/// What waits for the master.
pub struct Queue {
    state: Mutex<State>,
    /// It can be read, or more keys can be written.
    pub changed: Arc<Signal>,
}

#[derive(Default)]
struct State {
    bytes: VecDeque<u8>,
    packets: bool,
    /// What packet mode has to tell.
    status: u8,
    /// The other side was open and is no more.
    closed: bool,
}

impl Queue {
    fn new() -> Queue {
        Queue { state: Mutex::default(), changed: Signal::new() }
    }
    pub fn len(&self) -> usize {
        self.state.lock().bytes.len()
    }
    pub fn room(&self) -> usize {
        QUEUE.saturating_sub(self.len())
    }
    /// Add bytes that there is room for; an echo is lost where there is none.
    pub fn push(&self, bytes: &[u8], echo: bool) -> Result<()> {
        let mut state = self.state.lock();
        if echo && state.bytes.len() + bytes.len() > QUEUE + ECHO_BEYOND {
            return Ok(());
        }
        state.bytes.try_reserve(bytes.len()).map_err(|_| Errno::ENOMEM)?;
        state.bytes.extend(bytes);
        Ok(())
    }
    /// Tell this, if in packet mode.
    pub fn report(&self, status: u8) {
        {
            let mut state = self.state.lock();
            if !state.packets {
                return;
            }
            let undone = match status as u32 {
                PKT_STOP => PKT_START,
                PKT_START => PKT_STOP,
                PKT_NOSTOP => PKT_DOSTOP,
                PKT_DOSTOP => PKT_NOSTOP,
                _ => 0,
            };
            state.status = state.status & !(undone as u8) | status;
        }
        self.changed.notify();
    }
    pub fn set_closed(&self, closed: bool) {
        self.state.lock().closed = closed;
        self.changed.notify();
    }
    fn readable(&self) -> bool {
        let state = self.state.lock();
        !state.bytes.is_empty() || state.status != 0
    }
    fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// What a read of at most `most` bytes gets; `None`: nothing yet. With the number of its bytes that came from the queue.
    fn take(&self, most: usize) -> Result<Option<(Vec<u8>, usize)>> {
        let mut state = self.state.lock();
        if state.packets && state.status != 0 {
            return Ok(Some((alloc::vec![core::mem::take(&mut state.status)], 0)));
        }
        if state.bytes.is_empty() {
            return if state.closed { Err(Errno::EIO) } else { Ok(None) };
        }
        let mut bytes = Vec::new();
        if state.packets {
            bytes.push(0);
        }
        let n = state.bytes.len().min(most - bytes.len());
        bytes.try_reserve(n).map_err(|_| Errno::ENOMEM)?;
        bytes.extend(state.bytes.drain(..n));
        Ok(Some((bytes, n)))
    }

    fn put_back(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        for byte in bytes.iter().rev() {
            state.bytes.push_front(*byte);
        }
    }
}

/// An open master.
pub struct Master {
    terminal: Arc<Terminal>,
    node: Arc<Pts>,
    locked: AtomicBool,
}

/// Make a pair; the master's end (`/dev/ptmx`).
pub fn new() -> Result<Arc<dyn FileOps>> {
    let number = pts::new_number()?;
    let device = dev::makedev(pts::MAJOR + (number.get() >> 8), number.get() & 0xff);
    let terminal = Arc::new(Terminal::new(device, Screen::Pair(Queue::new()), [0; 4]));
    let node = pts::add(number, terminal.clone());
    Ok(Arc::new_cyclic(|me| {
        node.set_master(me.clone());
        Master { terminal, node, locked: AtomicBool::new(true) }
    }))
}

/// TIOCGPTPEER: open the other side of this master, whatever path it has.
pub fn peer(file: &File, flags: u32) -> Result<Arc<File>> {
    let master = file.ops_as::<Master>().ok_or_else(|| {
        let terminal = file.ops_as::<super::side::Side>().is_some();
        if terminal { Errno::EIO } else { Errno::ENOTTY }
    })?;
    let place = pts::place(&master.node).ok_or(Errno::ENOENT)?;
    let ops = master.node.clone().open(crate::fs::file::open_mode(flags))?;
    File::new(ops, place, flags)
}

impl Master {
    pub fn is_locked(&self) -> bool {
        self.locked.load(Relaxed)
    }

    fn queue(&self) -> &Queue {
        match &self.terminal.screen {
            Screen::Pair(queue) => queue,
            Screen::Port(_) => unreachable!("a master's terminal is one of a pair"),
        }
    }

    fn has_room(&self) -> bool {
        self.terminal.line.lock().room() > 0
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        pts::remove(&self.node);
        self.terminal.hang_up();
    }
}

impl FileOps for Master {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _: u64, to: &mut Sink<'_>, how: How) -> Result<()> {
        if to.remaining() == 0 {
            return Ok(());
        }
        let queue = self.queue();
        loop {
            if let Some((bytes, counted)) = queue.take(to.remaining())? {
                let n = to.put(&bytes);
                if n < bytes.len() {
                    queue.put_back(&bytes[n.max(bytes.len() - counted)..]);
                }
                // A program may have waited for room.
                self.terminal.changed.notify();
                return Ok(());
            }
            if how.nonblock {
                return Err(Errno::EAGAIN);
            }
            queue.changed.wait(|| queue.readable() || queue.is_closed())?;
        }
    }

    fn write(&self, _: u64, from: &mut Source<'_>, how: How) -> Result<()> {
        let mut keys = [0; KEYS];
        while from.remaining() > 0 {
            if !self.has_room() {
                if how.nonblock {
                    return Err(Errno::EAGAIN);
                }
                self.queue().changed.wait(|| self.has_room())?;
            }
            let room = self.terminal.line.lock().room();
            let n = from.take(&mut keys[..room.min(KEYS)]);
            let mut rest = &keys[..n];
            while !rest.is_empty() {
                let taken = self.terminal.keys(rest);
                rest = &rest[taken..];
                if taken == 0 {
                    // Another writer was quicker: these few bytes still have to go.
                    self.queue().changed.queue().wait(|| self.has_room());
                }
            }
        }
        Ok(())
    }

    fn poll(&self) -> Events {
        let mut events = Events::empty();
        events.set(Events::READABLE, self.queue().readable());
        events.set(Events::WRITABLE, self.has_room());
        let state = self.queue().state.lock();
        events.set(Events::HUP, state.closed);
        events.set(Events::PRI, state.status != 0);
        events
    }
    fn watch(&self, watchers: &mut Watchers) {
        watchers.add(&self.queue().changed);
    }

    fn ioctl(&self, code: u32, at: u64) -> Result<usize> {
        match code {
            ioctl::TIOCGPTN => user::write_u32(at, self.node.number())?,
            ioctl::TIOCSPTLCK => self.locked.store(user::read_u32(at)? != 0, Relaxed),
            ioctl::TIOCGPTLCK => user::write_u32(at, self.is_locked() as u32)?,
            ioctl::TIOCPKT => {
                let on = user::read_u32(at)? != 0;
                let mut state = self.queue().state.lock();
                (state.packets, state.status) = (on, 0);
            }
            ioctl::TIOCGPKT => {
                let on = self.queue().state.lock().packets;
                user::write_u32(at, on as u32)?
            }
            ioctl::TIOCSIG => {
                let signo = at as u32;
                if !(1..=64).contains(&signo) {
                    return Err(Errno::EINVAL);
                }
                super::job::signal_group(self.terminal.foreground(), signo)
            }
            ioctl::TIOCGDEV => user::write_u32(at, dev::makedev(5, 2) as u32)?,
            _ => return request::serve(&self.terminal, code, at, request::End::Master),
        }
        Ok(0)
    }
}
