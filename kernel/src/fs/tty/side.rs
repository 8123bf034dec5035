//! The program's side of a terminal, opened: reading, writing, waiting.

use super::{Screen, Terminal, job, request};
use crate::{
    errno::{Errno, Result},
    fs::{
        file::{FileOps, How},
        iobuf::{Sink, Source},
        poll::{Events, Watchers},
        stdio,
    },
    sched::WaitResult,
};
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::{general as abi, ioctl};

/// Bytes of a program's output that are processed in one go.
const OUTPUT_CHUNK: usize = 1024;
/// Nanoseconds in VTIME's unit.
const TENTH: u64 = 100_000_000;

/// One opening.
pub struct Side {
    pub terminal: Arc<Terminal>,
    readable: bool,
}

impl Side {
    pub fn new(terminal: Arc<Terminal>, readable: bool) -> Arc<Side> {
        terminal.opens.fetch_add(1, Relaxed);
        if let Screen::Pair(queue) = &terminal.screen {
            queue.set_closed(false);
        }
        Arc::new(Side { terminal, readable })
    }

    fn hung_up(&self) -> bool {
        self.terminal.hung_up.load(Relaxed)
    }

    /// Move what there is, at most a line; `None`: there is nothing.
    fn take(&self, to: &mut Sink<'_>) -> Option<usize> {
        let _one = self.terminal.reader.lock();
        let (bytes, over) = {
            let mut line = self.terminal.line.lock();
            let before = line.lines();
            let bytes = line.read(to.remaining())?;
            (bytes, line.lines() < before)
        };
        let n = to.put(&bytes);
        if n < bytes.len() {
            self.terminal.line.lock().unread(&bytes[n..], over);
        }
        Some(n)
    }

    /// Whether a byte of output would go.
    fn writable(&self) -> bool {
        if self.terminal.line.lock().stopped {
            return false;
        }
        match &self.terminal.screen {
            Screen::Port(port) => port.writable(),
            Screen::Pair(queue) => queue.room() > 0,
        }
    }

    /// Wait until output goes; how many bytes at once.
    fn await_output(&self, how: How) -> Result<usize> {
        let terminal = &self.terminal;
        let stopped = || terminal.line.lock().stopped;
        let room = || match &terminal.screen {
            Screen::Port(_) => OUTPUT_CHUNK,
            Screen::Pair(queue) => queue.room(),
        };
        let ready = || self.hung_up() || !stopped() && room() > 0;
        if !ready() {
            if how.nonblock {
                return Err(Errno::EAGAIN);
            }
            terminal.changed.wait(ready)?;
        }
        if self.hung_up() {
            return Err(Errno::EIO);
        }
        if let Screen::Port(port) = &terminal.screen {
            // See that it goes before bytes are taken from the program.
            drop(port.buffer(!how.nonblock, true).map_err(stdio::write_error)?);
        }
        Ok(room().clamp(1, OUTPUT_CHUNK))
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let last = self.terminal.opens.fetch_sub(1, Relaxed) == 1;
        if last {
            self.terminal.exclusive.store(false, Relaxed);
            if let Screen::Pair(queue) = &self.terminal.screen {
                queue.set_closed(true);
            }
        }
    }
}

impl FileOps for Side {
    fn as_any(&self) -> &dyn Any {
        self
    }

    /// A line; or, where there are no lines, at least VMIN bytes, with no more than VTIME between one and the next. With VMIN 0
    /// VTIME is how long to wait for the first.
    fn read(&self, _: u64, to: &mut Sink<'_>, how: How) -> Result<()> {
        if to.remaining() == 0 {
            return Ok(());
        }
        if self.hung_up() {
            return Ok(());
        }
        let terminal = &self.terminal;
        job::check(terminal, abi::SIGTTIN)?;
        let after = |tenths: u64| crate::clock::monotonic() + tenths * TENTH;
        let mut deadline = match terminal.line.lock().least() {
            Some((0, time)) => Some(after(time)),
            _ => None,
        };
        loop {
            if self.take(to).is_some() {
                let Some((min, time)) = terminal.line.lock().least() else { return Ok(()) };
                // The writer at the other end may have waited for room.
                if let Screen::Pair(queue) = &terminal.screen {
                    queue.changed.notify();
                }
                terminal.changed.notify();
                if to.remaining() == 0 || to.done() >= min {
                    return Ok(());
                }
                deadline = (time > 0).then(|| after(time));
                continue;
            }
            if self.hung_up() || deadline.is_some_and(|d| d <= crate::clock::monotonic()) {
                return Ok(());
            }
            if how.nonblock {
                return Err(Errno::EAGAIN);
            }
            let ready = || terminal.line.lock().has_input() || self.hung_up();
            match terminal.changed.queue().wait_until(ready, deadline, true) {
                WaitResult::Interrupted => return Err(Errno::RESTART),
                WaitResult::TimedOut => return Ok(()),
                WaitResult::Ready => {}
            }
        }
    }

    fn write(&self, _: u64, from: &mut Source<'_>, how: How) -> Result<()> {
        if self.terminal.line.lock().local(abi::TOSTOP) {
            job::check(&self.terminal, abi::SIGTTOU)?;
        }
        if self.hung_up() {
            return Err(Errno::EIO);
        }
        let mut bytes = [0; OUTPUT_CHUNK];
        while from.remaining() > 0 {
            let most = self.await_output(how)?;
            let n = from.take(&mut bytes[..most]);
            self.terminal.show(&bytes[..n], false)?;
        }
        Ok(())
    }

    fn poll(&self) -> Events {
        if self.hung_up() {
            return Events::READABLE | Events::WRITABLE | Events::ERR | Events::HUP;
        }
        let mut events = Events::empty();
        events.set(Events::READABLE, self.terminal.line.lock().readable());
        events.set(Events::WRITABLE, self.writable());
        events
    }
    fn watch(&self, watchers: &mut Watchers) {
        watchers.add(&self.terminal.changed);
        if let Screen::Port(port) = &self.terminal.screen {
            watchers.add_fixed(&port.writers);
        }
    }

    fn ioctl(&self, code: u32, argument: u64) -> Result<usize> {
        if self.hung_up() {
            return Err(if code == ioctl::TIOCSPGRP { Errno::ENOTTY } else { Errno::EIO });
        }
        request::serve(&self.terminal, code, argument, request::End::Program { readable: self.readable })
    }
}
