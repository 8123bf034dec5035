//! The first program's standard streams.
//!
//! Outside they are a terminal or they are not, each for itself. What is a terminal is `/dev/console` ([`super::tty`]); what is
//! not looks like a pipe from here (a FIFO to `fstat`, no `isatty`), whose other end is a port of the console device:
//!
//! ```text
//!   0  hafez.tty, up to as many bytes as the host says there are, then end of file; or nothing at all: end at once
//!   1  hafez.out
//!   2  hafez.err; or the same open file as 1, where it is so outside: then their order stays
//! ```

use super::{
    file::{File, FileOps, How},
    inode::{Inode, InodeId, Kind, OpenMode, Stat, StatFs, Time},
    iobuf::{Sink, Source},
    lock::SleepLock,
    mount::Mount,
    path::{Location, Walker},
    poll::{Events, Watchers},
};
use crate::{
    drivers::{
        self,
        console::{Port, WriteError},
    },
    errno::{Errno, Result},
    sched::{WaitQueue, WaitResult},
};
use alloc::{format, sync::Arc, vec::Vec};
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use hafez_link::port;
use hafez_mm::lock::Mutex;
use linux_raw_sys::general as abi;

/// What the host says about the three streams.
#[derive(Clone, Copy, Debug)]
pub struct Streams {
    /// Which are terminals.
    pub tty: [bool; 3],
    /// 2 is the same open file as 1.
    pub merged: bool,
    /// There is something to read from 0.
    pub stdin: bool,
}

/// Open descriptors 0, 1 and 2 for the first program.
pub fn open(walker: &Walker, streams: Streams) -> Result<[Arc<File>; 3]> {
    let terminal = match streams.tty.contains(&true) {
        true => {
            super::tty::start(streams.tty[0])?;
            Some(walker.open(&walker.root, b"/dev/console", abi::O_RDWR, 0)?)
        }
        false => None,
    };
    let mount = Mount::detached(Arc::new(Stream { ino: 1, side: Side::Nothing }), "pipefs");
    let stream = |fd: usize, side: Side, flags: u32| -> Result<Arc<File>> {
        if let Some(terminal) = terminal.as_ref().filter(|_| streams.tty[fd]) {
            return Ok(terminal.clone());
        }
        let inode = Arc::new(Stream { ino: fd as u64 + 2, side });
        let place = Location::detached(&mount, inode.clone(), format!("pipe:[{}]", inode.ino).as_bytes());
        File::new(inode.open(super::file::open_mode(flags))?, place, flags)
    };
    let input = if streams.stdin && !streams.tty[0] {
        let port = wait_for(port::TTY)?;
        port.listen().map_err(|_| Errno::EIO)?;
        Side::In(port)
    } else {
        Side::Nothing
    };
    let zero = stream(0, input, abi::O_RDONLY)?;
    let one = stream(1, Side::Out(wait_for(port::OUT)?), abi::O_WRONLY)?;
    let two = match streams.merged && streams.tty[1] == streams.tty[2] {
        true => one.clone(),
        false => stream(2, Side::Out(wait_for(port::ERR)?), abi::O_WRONLY)?,
    };
    Ok([zero, one, two])
}

/// The port, once the device has told of it. It does within this time, or there is none.
pub(super) fn wait_for(name: &str) -> Result<&'static Port> {
    const PATIENCE: u64 = 5_000_000_000;
    let deadline = crate::clock::monotonic() + PATIENCE;
    drivers::port(name)
        .or_else(|| drivers::consoles().find_map(|c| c.wait_for_port(name, deadline)))
        .ok_or(Errno::ENXIO)
}

/// Bytes of standard input there are in all; `u64::MAX` while the host has not said.
static TOTAL: AtomicU64 = AtomicU64::new(u64::MAX);
static ENDED: WaitQueue = WaitQueue::new();

/// The host says that standard input ends after `total` bytes.
pub fn end_of_input(total: u64) {
    TOTAL.store(total, Relaxed);
    ENDED.wake_all();
    if let Some(port) = drivers::port(port::TTY) {
        port.readers.wake_all();
    }
}

/// A stream's inode; the stream is its own state, however often it is opened (`/dev/stdin`).
struct Stream {
    ino: u64,
    side: Side,
}

#[derive(Clone, Copy)]
enum Side {
    Nothing,
    In(&'static Port),
    Out(&'static Port),
}

impl Inode for Stream {
    fn id(&self) -> InodeId {
        InodeId { dev: 12, ino: self.ino }
    }
    fn kind(&self) -> Kind {
        Kind::Fifo
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn stat(&self) -> Result<Stat> {
        let now = Time::now();
        Ok(Stat {
            dev: 12,
            ino: self.ino,
            mode: Kind::Fifo as u32 | 0o666,
            nlink: 1,
            blksize: 4096,
            atime: now,
            mtime: now,
            ctime: now,
            ..Stat::default()
        })
    }
    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { magic: abi::PIPEFS_MAGIC as u64, block_size: 4096, name_max: 255, ..StatFs::default() })
    }
    fn open(self: Arc<Self>, _: OpenMode) -> Result<Arc<dyn FileOps>> {
        Ok(match self.side {
            Side::Nothing => Arc::new(Nothing),
            Side::In(port) => Arc::new(Input { port }),
            Side::Out(port) => Arc::new(Output { port }),
        })
    }
}

/// No input.
struct Nothing;

impl FileOps for Nothing {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _: u64, _: &mut Sink<'_>, _: How) -> Result<()> {
        Ok(())
    }
}

struct Input {
    port: &'static Port,
}

/// One reader at a time; what was taken from the port and not yet by a program; bytes taken from the port.
static TURN: SleepLock = SleepLock::new();
static TAKEN: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static COUNT: AtomicU64 = AtomicU64::new(0);

impl Input {
    fn ended(&self) -> bool {
        COUNT.load(Relaxed) >= TOTAL.load(Relaxed)
    }
    fn ready(&self) -> bool {
        !TAKEN.lock().is_empty() || self.ended() || self.port.readable()
    }
    /// Take from the port what there is, at most `most` bytes; `None` if there is nothing yet.
    fn take(&self, most: usize) -> Option<Vec<u8>> {
        let pending = core::mem::take(&mut *TAKEN.lock());
        if !pending.is_empty() || self.ended() {
            return Some(pending);
        }
        let mut bytes = crate::mem::zeroed(most).ok()?;
        let n = self.port.try_read(&mut bytes)?;
        bytes.truncate(n);
        COUNT.fetch_add(n as u64, Relaxed);
        Some(bytes)
    }
}

impl FileOps for Input {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _: u64, to: &mut Sink<'_>, how: How) -> Result<()> {
        if to.remaining() == 0 {
            return Ok(());
        }
        loop {
            let turn = TURN.lock();
            if let Some(mut bytes) = self.take(to.remaining().min(4096)) {
                let n = to.put(&bytes);
                bytes.drain(..n);
                *TAKEN.lock() = bytes;
                return Ok(());
            }
            drop(turn);
            if how.nonblock {
                return Err(Errno::EAGAIN);
            }
            let wait = self.port.readers.wait_until(|| self.ready(), None, true);
            if wait == WaitResult::Interrupted {
                return Err(Errno::RESTART);
            }
        }
    }
    fn poll(&self) -> Events {
        let mut events = Events::empty();
        events.set(Events::READABLE, self.ready() && !(self.ended() && TAKEN.lock().is_empty()));
        events.set(Events::HUP, self.ended());
        events
    }
    fn watch(&self, watchers: &mut Watchers) {
        watchers.add_fixed(&self.port.readers);
        watchers.add_fixed(&ENDED);
    }
    fn ioctl(&self, request: u32, argument: u64) -> Result<usize> {
        if request == linux_raw_sys::ioctl::FIONREAD {
            // More may wait in the port, which does not say how much.
            let n = TAKEN.lock().len().max(self.port.readable() as usize);
            crate::arch::user::write_u32(argument, n as u32)?;
            return Ok(0);
        }
        Err(Errno::ENOTTY)
    }
}

struct Output {
    port: &'static Port,
}

impl FileOps for Output {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _: u64, _: &mut Sink<'_>, _: How) -> Result<()> {
        Err(Errno::EBADF)
    }
    fn write(&self, _: u64, from: &mut Source<'_>, how: How) -> Result<()> {
        write_port(self.port, from, how)
    }
    fn poll(&self) -> Events {
        let mut events = Events::empty();
        events.set(Events::WRITABLE, self.port.writable());
        events.set(Events::ERR, !self.port.is_open());
        events
    }
    fn watch(&self, watchers: &mut Watchers) {
        watchers.add_fixed(&self.port.writers);
    }
}

/// Send everything, straight from the program's pages to the port's buffers.
fn write_port(port: &'static Port, from: &mut Source<'_>, how: How) -> Result<()> {
    while from.remaining() > 0 {
        let mut buffer = port.buffer(!how.nonblock, true).map_err(write_error)?;
        let n = from.take(buffer.bytes());
        buffer.send(n);
    }
    Ok(())
}

pub(super) fn write_error(error: WriteError) -> Errno {
    match error {
        WriteError::Closed => Errno::EPIPE,
        WriteError::Interrupted => Errno::RESTART,
        WriteError::WouldBlock => Errno::EAGAIN,
        WriteError::NoMemory => Errno::ENOMEM,
    }
}
