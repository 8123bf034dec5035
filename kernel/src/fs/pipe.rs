//! Pipes and FIFOs: `pipe(7)`.
//!
//! A queue of page-sized chunks, up to a capacity (64 KiB, `F_SETPIPE_SZ` changes it) that counts whole chunks, however little is in
//! them. Memory is taken when bytes come and given back when they go. A write of at most `PIPE_BUF` bytes is one piece: it waits until all of it fits.
//!
//! ```text
//!   write ──copy──► [chunk][chunk][chunk] ──copy──► read
//! ```
//!
//! Copies touch user memory and may sleep, so they run under `turn`, a lock that can; the chunks themselves are under a
//! spin lock, from which the one being copied is taken out. Nobody sleeps for room or data with `turn` held.
//!
//! Most transfers are short, and both the program's page and a chunk are there. Then all is done in one step under the spin lock,
//! by a copy that would rather fail than sleep ([`Pipe::read_quickly`], [`Pipe::write_quickly`]); what it cannot do is done the long way.

use super::{
    anon,
    file::{FileOps, How},
    inode::{Inode, InodeId, Kind, OpenMode, SetAttr, Stat, StatFs, Time},
    iobuf::{Sink, Source},
    lock::SleepLock,
    mount::Mount,
    path::Location,
    pipe_share::{self, Share, Who},
    poll::{Events, Signal, Watchers},
};
use crate::{
    errno::{Errno, Result},
    mem,
};
use alloc::{boxed::Box, collections::VecDeque, format, sync::Arc};
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use hafez_mm::lock::{LazyLock, Mutex};
use linux_raw_sys::{general as abi, ioctl};

/// Bytes that go into a pipe in one piece.
pub const PIPE_BUF: usize = 4096;
/// `pipe(7)`: 16 pages.
const DEFAULT_CAPACITY: usize = 65536;
pub(super) const CHUNK: usize = 4096;

/// What is between the ends.
pub struct Pipe {
    pub(super) turn: SleepLock,
    pub(super) state: Mutex<State>,
    pub(super) changed: Arc<Signal>,
}

pub(super) struct State {
    pub(super) chunks: VecDeque<Chunk>,
    /// Kept when the pipe runs empty: the next small write needs no allocation.
    spare: Option<Chunk>,
    /// Bytes in the chunks, the one that is being copied included.
    pub(super) len: usize,
    pub(super) capacity: usize,
    /// What it counts for; a FIFO counts for nobody.
    share: Option<Share>,
    pub(super) readers: u32,
    pub(super) writers: u32,
    /// Openings ever: a FIFO's `open` waits for one to come, even if it has gone since.
    readers_seen: u64,
    writers_seen: u64,
}

pub(super) struct Chunk {
    bytes: Box<[u8]>,
    from: usize,
    to: usize,
    /// What one write wrote, kept apart: a read gets it alone, and drops what it has no room for (O_DIRECT).
    packet: bool,
}

impl Chunk {
    pub(super) fn new() -> Result<Chunk> {
        if !mem::headroom(CHUNK) {
            return Err(Errno::ENOMEM);
        }
        Ok(Chunk { bytes: alloc::vec![0; CHUNK].into(), from: 0, to: 0, packet: false })
    }

    /// What is in it.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }
    /// Put `bytes`, of which it can hold PIPE_BUF, into a fresh one.
    pub(super) fn fill(&mut self, bytes: &[u8]) {
        self.bytes[..bytes.len()].copy_from_slice(bytes);
        (self.from, self.to) = (0, bytes.len());
    }
    /// The first `n` bytes have gone.
    pub(super) fn drop_first(&mut self, n: usize) {
        self.from += n;
    }
}

impl State {
    /// One more end.
    fn begin(&mut self, read: bool, write: bool, pipe: &Arc<Pipe>) -> Arc<PipeEnd> {
        self.readers += read as u32;
        self.readers_seen += read as u64;
        self.writers += write as u32;
        self.writers_seen += write as u64;
        Arc::new(PipeEnd { pipe: pipe.clone(), read, write })
    }

    /// Chunks that hold something.
    fn used(&self) -> usize {
        // One that was read empty stays for the next write.
        let empty = self.chunks.front().is_some_and(|chunk| chunk.from == chunk.to);
        self.chunks.len() - empty as usize
    }

    /// Bytes that fit: into the last chunk, if others than packets may, and into chunks still to come.
    pub(super) fn room(&self, packets: bool) -> usize {
        let last = self.chunks.back().filter(|chunk| !chunk.packet && !packets);
        let new = (self.capacity / CHUNK).saturating_sub(self.used()) * CHUNK;
        (new + last.map_or(0, |chunk| CHUNK - chunk.to)).min(self.capacity.saturating_sub(self.len))
    }
}

/// What came of trying it the short way.
enum Quick {
    Done,
    /// There is nothing now; or for ever.
    Empty,
    Ended,
    /// It needs the long way.
    Not,
}

impl Pipe {
    /// With no ends yet, and for nobody.
    pub fn new() -> Arc<Pipe> {
        Pipe::with(None)
    }

    fn with(share: Option<Share>) -> Arc<Pipe> {
        let state = State {
            chunks: VecDeque::new(),
            spare: None,
            len: 0,
            capacity: share.as_ref().map_or(DEFAULT_CAPACITY, |share| share.pages() as usize * CHUNK),
            share,
            readers: 0,
            writers: 0,
            readers_seen: 0,
            writers_seen: 0,
        };
        Arc::new(Pipe { turn: SleepLock::new(), state: Mutex::new(state), changed: Signal::new() })
    }

    fn end(self: &Arc<Self>, read: bool, write: bool) -> Arc<PipeEnd> {
        let end = self.state.lock().begin(read, write, self);
        self.changed.notify();
        end
    }

    /// Open once more through `/proc/PID/fd`: unlike a FIFO's, the ends of a pipe wait for nobody, who may have gone.
    fn reopen(self: &Arc<Self>, how: OpenMode) -> Result<Arc<dyn FileOps>> {
        if how.write && !how.read && how.nonblock && self.state.lock().readers == 0 {
            return Err(Errno::ENXIO);
        }
        Ok(self.end(how.read, how.write))
    }

    /// Open as a FIFO: each end waits for the other (`fifo(7)`).
    pub fn open(self: &Arc<Self>, how: OpenMode) -> Result<Arc<dyn FileOps>> {
        if how.write && !how.read && how.nonblock && self.state.lock().readers == 0 {
            return Err(Errno::ENXIO);
        }
        let mut s = self.state.lock();
        let end = s.begin(how.read, how.write, self);
        // Looked at in the same hold: who is there now may have gone by the time that this one waits.
        let met = if how.read { s.writers > 0 } else { s.readers > 0 };
        let (readers, writers) = (s.readers_seen, s.writers_seen);
        drop(s);
        self.changed.notify();
        if met || how.nonblock {
            return Ok(end);
        }
        self.changed.wait(|| {
            let s = self.state.lock();
            if how.read { s.writers_seen > writers } else { s.readers_seen > readers }
        })?;
        Ok(end)
    }

    /// Take what there is out of the first chunk, if that is all there is or all that is wanted. While someone has the `turn`, a
    /// chunk may be missing.
    #[inline]
    fn read_quickly(&self, to: &mut Sink<'_>) -> Quick {
        let mut s = self.state.lock();
        let s = &mut *s;
        if s.len == 0 {
            return if s.writers == 0 { Quick::Ended } else { Quick::Empty };
        }
        if self.turn.is_held() {
            return Quick::Not;
        }
        let Some(chunk) = s.chunks.front_mut() else { return Quick::Not };
        let wanted = to.remaining().min(s.len);
        if chunk.packet
            || chunk.to - chunk.from < wanted
            || !to.put_now(&chunk.bytes[chunk.from..chunk.from + wanted])
        {
            return Quick::Not;
        }
        s.len -= wanted;
        chunk.from += wanted;
        if chunk.from == chunk.to {
            // Empty it stays where it is, for the next write.
            (chunk.from, chunk.to) = (0, 0);
        }
        Quick::Done
    }

    /// Put all of it into the last chunk, if it fits there; whether it was done.
    #[inline]
    fn write_quickly(&self, from: &mut Source<'_>, packets: bool) -> bool {
        let mut s = self.state.lock();
        let s = &mut *s;
        let n = from.remaining();
        if self.turn.is_held() || s.readers == 0 || n > PIPE_BUF || s.len + n > s.capacity || packets {
            return false;
        }
        let Some(chunk) = s.chunks.back_mut() else { return false };
        if chunk.packet || chunk.to + n > CHUNK || !from.take_now(&mut chunk.bytes[chunk.to..chunk.to + n]) {
            return false;
        }
        chunk.to += n;
        s.len += n;
        true
    }

    fn read(&self, to: &mut Sink<'_>, how: How) -> Result<()> {
        if to.remaining() == 0 {
            return Ok(());
        }
        loop {
            match self.read_quickly(to) {
                Quick::Done => {
                    self.changed.notify_as(Events::WRITABLE);
                    return Ok(());
                }
                Quick::Ended => return Ok(()),
                Quick::Empty if how.nonblock => return Err(Errno::EAGAIN),
                Quick::Empty => self.changed.sleep_once(|| {
                    let s = self.state.lock();
                    s.len > 0 || s.writers == 0
                })?,
                Quick::Not => {
                    let turn = self.turn.lock();
                    let moved = self.drain(to);
                    drop(turn);
                    if moved || to.faulted() {
                        self.changed.notify_as(Events::WRITABLE);
                        return Ok(());
                    }
                    // Another reader was faster.
                }
            }
        }
    }

    /// Move what is there; whether anything moved. With `turn` held.
    fn drain(&self, to: &mut Sink<'_>) -> bool {
        let mut moved = false;
        while to.remaining() > 0 {
            let Some(mut chunk) = self.state.lock().chunks.pop_front() else { break };
            if chunk.from == chunk.to {
                continue;
            }
            let mut n = to.put(&chunk.bytes[chunk.from..chunk.to]);
            if to.faulted() {
                // As on Linux, a piece that did not go whole stays in the pipe whole.
                to.uncount(n);
                n = 0;
            }
            let packet = chunk.packet && !to.faulted();
            if packet {
                n = chunk.to - chunk.from;
            }
            chunk.from += n;
            moved |= n > 0;
            let mut s = self.state.lock();
            s.len -= n;
            if chunk.from < chunk.to {
                s.chunks.push_front(chunk);
            } else if s.spare.is_none() {
                (chunk.from, chunk.to, chunk.packet) = (0, 0, false);
                s.spare = Some(chunk);
            }
            if packet {
                break;
            }
        }
        moved
    }

    fn write(&self, from: &mut Source<'_>, how: How) -> Result<()> {
        if from.remaining() == 0 {
            return Ok(());
        }
        if self.write_quickly(from, how.direct) {
            self.changed.notify_as(Events::READABLE);
            return Ok(());
        }
        // What must be free before anything is written.
        let whole = if from.remaining() <= PIPE_BUF { from.remaining() } else { 1 };
        loop {
            let turn = self.turn.lock();
            let before = from.done();
            let result = self.fill(from, whole, how.direct);
            drop(turn);
            if from.done() > before {
                self.changed.notify_as(Events::READABLE);
            }
            if !result? || from.remaining() == 0 {
                return Ok(());
            }
            if how.nonblock {
                return Err(Errno::EAGAIN);
            }
            self.changed.wait(|| {
                let s = self.state.lock();
                s.readers == 0 || whole <= s.room(how.direct)
            })?;
        }
    }

    /// Move what fits; `false` when the source has no more to give. With `turn` held.
    fn fill(&self, from: &mut Source<'_>, whole: usize, packets: bool) -> Result<bool> {
        loop {
            let mut chunk = {
                let mut s = self.state.lock();
                if s.readers == 0 {
                    return Err(Errno::EPIPE);
                }
                let room = s.room(packets);
                if whole.min(from.remaining()) > room {
                    return Ok(true);
                }
                s.chunks.try_reserve(1)?;
                match s.chunks.pop_back() {
                    Some(last) if last.to < CHUNK && !last.packet && !packets => (last, room),
                    other => {
                        s.chunks.extend(other);
                        match s.spare.take() {
                            Some(spare) => (spare, room),
                            None => {
                                drop(s);
                                (Chunk::new()?, room)
                            }
                        }
                    }
                }
            };
            let end = (chunk.0.to + chunk.1).min(CHUNK);
            let mut n = from.take(&mut chunk.0.bytes[chunk.0.to..end]);
            if from.faulted() {
                // Half a piece is none: a reader never sees a write torn by a fault.
                from.uncount(n);
                n = 0;
            }
            chunk.0.to += n;
            chunk.0.packet = packets;
            let mut s = self.state.lock();
            s.len += n;
            if chunk.0.from < chunk.0.to {
                s.chunks.push_back(chunk.0);
            } else {
                s.spare = Some(chunk.0);
            }
            if n == 0 || from.remaining() == 0 {
                return Ok(false);
            }
        }
    }

    /// Bytes that wait to be read.
    pub fn len(&self) -> usize {
        self.state.lock().len
    }
    pub fn capacity(&self) -> usize {
        self.state.lock().capacity
    }
    /// `F_SETPIPE_SZ`: rounded up to a power of two pages; the new capacity.
    pub fn set_capacity(&self, bytes: usize, who: Who) -> Result<usize> {
        if bytes > 1 << 31 {
            return Err(Errno::EINVAL);
        }
        let capacity = bytes.max(CHUNK).next_power_of_two();
        let mut s = self.state.lock();
        if capacity > s.capacity && capacity as u64 > pipe_share::LARGEST.load(Relaxed) && !who.largest {
            return Err(Errno::EPERM);
        }
        if capacity < s.len || capacity / CHUNK < s.used() {
            return Err(Errno::EBUSY);
        }
        if let Some(share) = &mut s.share {
            share.change((capacity / CHUNK) as u64, who)?;
        }
        s.capacity = capacity;
        drop(s);
        self.changed.notify();
        Ok(capacity)
    }
}

/// One end, or both (a FIFO opened O_RDWR).
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    read: bool,
    write: bool,
}

impl PipeEnd {
    pub fn pipe(&self) -> &Arc<Pipe> {
        &self.pipe
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let unused = {
            let mut s = self.pipe.state.lock();
            s.readers -= self.read as u32;
            s.writers -= self.write as u32;
            if s.readers + s.writers == 0 {
                // A FIFO that nobody has open holds nothing.
                s.len = 0;
                Some((core::mem::take(&mut s.chunks), s.spare.take()))
            } else {
                None
            }
        };
        drop(unused);
        self.pipe.changed.notify_as(Events::all());
    }
}

impl FileOps for PipeEnd {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _: u64, to: &mut Sink<'_>, how: How) -> Result<()> {
        self.pipe.read(to, how)
    }
    fn write(&self, _: u64, from: &mut Source<'_>, how: How) -> Result<()> {
        self.pipe.write(from, how)
    }
    fn holds(&self) -> usize {
        // Each end answers for half.
        256 + self.pipe.state.lock().chunks.len() * (CHUNK / 2)
    }
    fn poll(&self) -> Events {
        let s = self.pipe.state.lock();
        let mut events = Events::empty();
        if self.read {
            events.set(Events::READABLE, s.len > 0);
            events.set(Events::HUP, s.writers == 0 && s.writers_seen > 0);
        }
        if self.write {
            events.set(Events::WRITABLE, s.room(true) >= PIPE_BUF);
            events.set(Events::ERR, s.readers == 0);
        }
        events
    }
    fn watch(&self, watchers: &mut Watchers) {
        watchers.add(&self.pipe.changed);
    }
    fn tells_all(&self) -> bool {
        true
    }
    fn ioctl(&self, request: u32, argument: u64) -> Result<usize> {
        match request {
            ioctl::FIONREAD => {
                crate::arch::user::write_u32(argument, self.pipe.len() as u32)?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }
}

/// What `pipe2` makes has an inode too, though no name.
struct PipeInode {
    id: InodeId,
    pipe: Arc<Pipe>,
    attributes: anon::Attributes,
}

impl PipeInode {
    fn new(pipe: Arc<Pipe>, owner: (u32, u32), made: Time) -> PipeInode {
        let id = next_id();
        PipeInode { id, pipe, attributes: anon::Attributes::new(id, Kind::Fifo as u32 | 0o600, owner, made) }
    }
}

/// The `st_dev` of pipes: anonymous device numbers have major 0.
const PIPE_DEV: u64 = 13;
static PIPES: LazyLock<Arc<Mount>> = LazyLock::new(|| {
    Mount::detached(Arc::new(PipeInode::new(Pipe::new(), (0, 0), Time::default())), "pipefs")
});

fn next_id() -> InodeId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    InodeId { dev: PIPE_DEV, ino: NEXT.fetch_add(1, Relaxed) }
}

impl Inode for PipeInode {
    fn id(&self) -> InodeId {
        self.id
    }
    fn kind(&self) -> Kind {
        Kind::Fifo
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn stat(&self) -> Result<Stat> {
        Ok(self.attributes.stat())
    }
    fn setattr(&self, set: &SetAttr) -> Result<()> {
        self.attributes.set(set)
    }
    fn statfs(&self) -> Result<StatFs> {
        Ok(anon::statfs(abi::PIPEFS_MAGIC))
    }
    fn open(self: Arc<Self>, how: OpenMode) -> Result<Arc<dyn FileOps>> {
        self.pipe.reopen(how)
    }
}

/// The end to read from, the end to write to.
pub type Ends = (Arc<PipeEnd>, Arc<PipeEnd>);

/// `pipe2(2)`: the reading and the writing end, and their place.
pub fn pipe(owner: (u32, u32), who: Who) -> Result<(Ends, Location)> {
    let pipe = Pipe::with(Some(Share::new(who)?));
    let (reader, writer) = (pipe.end(true, false), pipe.end(false, true));
    let inode = Arc::new(PipeInode::new(pipe, owner, Time::now()));
    let name = format!("pipe:[{}]", inode.id.ino);
    let place = Location::detached(&PIPES, inode, name.as_bytes());
    Ok(((reader, writer), place))
}
