//! What waits to be read at a socket: a queue of packets, and the accounts that bound it.
//!
//! ```text
//!   sender ── copy ──► Packet { bytes, credentials, files } ──► Inbox of the receiver ── copy ──► receiver
//!                        │ charged to
//!                        ▼
//!                      Account of the sender: SO_SNDBUF bounds what is under way
//! ```
//!
//! Bytes are charged to who sent them, until they have been read or thrown away: so a sender with a slow reader waits (or hears
//! EAGAIN), whoever reads. All accounts together may have a part of the machine's RAM; past it, sending fails with
//! ENOBUFS, and no program can fill the kernel's memory by not reading.
//!
//! A stream is packets whose borders do not matter. Small writes join the last packet, so a byte costs a byte and not a
//! packet.
//!
//! A stream may have a mark: the last *urgent* byte, which is a packet of its own. A read ends before it, and the next begins
//! behind it; the byte itself is read apart (MSG_OOB), or in its place (SO_OOBINLINE). What becomes of it where a newer one follows, or where it
//! is read in both ways, differs: `AF_UNIX` gives each byte once, TCP looks at where the newest is.
//!
//! Copies touch user memory and may sleep: no spin lock is held there. A reader takes the packet out, copies, and puts back
//! what is left; `turn` makes that one step for other readers. Packets are dropped without a lock, since a file in one
//! may be the last of its kind.

use super::{Address, Incoming, Ucred, abi, inet::Head, unix::flight::Flight};
use crate::{
    errno::{Errno, Result},
    fs::{
        File, SleepLock,
        iobuf::{Sink, Source},
        poll::Signal,
    },
    mem,
};
use alloc::{boxed::Box, collections::VecDeque, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use hafez_mm::lock::{Mutex, Once};

/// What a packet costs beside its bytes.
const PACKET_COST: usize = 256;
/// The most bytes of one packet of a stream: larger blocks are hard to find on the heap.
const STREAM_PACKET: usize = 4096;
/// Writes of a stream up to this long join the packet before them.
const SMALL: usize = 256;
/// Room that such a packet is made with.
const SMALL_ROOM: usize = 1024;
/// All packets on the machine may have one byte in so many of the RAM.
const SHARE: u64 = 4;

/// Bytes in all packets.
static TOTAL: AtomicUsize = AtomicUsize::new(0);

fn total_limit() -> usize {
    // The machine's RAM does not change, and to count it takes a while.
    static LIMIT: Once<usize> = Once::new();
    *LIMIT.call_once(|| (mem::memory().stats().total * hafez_mm::PAGE_SIZE as u64 / SHARE) as usize)
}

/// Bytes that a socket has sent and nobody has read.
pub struct Account {
    used: AtomicUsize,
    limit: AtomicUsize,
    /// Told when there is room again.
    signal: Arc<Signal>,
}

impl Account {
    pub fn new(limit: usize, signal: Arc<Signal>) -> Arc<Account> {
        Arc::new(Account { used: AtomicUsize::new(0), limit: AtomicUsize::new(limit), signal })
    }
    pub fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
        self.signal.notify();
    }
    pub fn used(&self) -> usize {
        self.used.load(SeqCst)
    }
    /// Whether anything more may be sent.
    pub fn has_room(&self) -> bool {
        self.used() < self.limit()
    }
    /// Whether it is worth waking a sender that found no room.
    pub fn is_writable(&self) -> bool {
        self.used() <= self.limit() / 2
    }
    fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, SeqCst);
        TOTAL.fetch_add(bytes, Relaxed);
    }
    fn give(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, SeqCst);
        TOTAL.fetch_sub(bytes, Relaxed);
        let half = self.limit() / 2;
        if before > half && before - bytes <= half {
            self.signal.notify();
        }
    }
}

/// Something sent.
pub struct Packet {
    bytes: Vec<u8>,
    /// Read so far.
    from: usize,
    pub source: Option<Box<Address>>,
    /// Of datagrams: what the header says.
    pub head: Option<Box<Head>>,
    /// When it came (ns, real time), if anybody wanted to know then; else 0.
    pub at: u64,
    pub cred: Ucred,
    pub rights: Flight,
    account: Arc<Account>,
    charged: usize,
    /// It is the byte that the mark stands at.
    urgent: bool,
}

impl Drop for Packet {
    fn drop(&mut self) {
        self.account.give(self.charged);
    }
}

impl Packet {
    /// Copy up to `len` bytes of the source. `ENOBUFS` where memory is short.
    pub fn new(from: &mut Source<'_>, len: usize, account: &Arc<Account>, cred: Ucred) -> Result<Packet> {
        Packet::with_room(from, len, len, account, cred)
    }

    fn with_room(
        from: &mut Source<'_>,
        len: usize,
        room: usize,
        account: &Arc<Account>,
        cred: Ucred,
    ) -> Result<Packet> {
        let charged = len + PACKET_COST;
        if TOTAL.load(Relaxed) + charged > total_limit() || !mem::headroom(room + PACKET_COST) {
            return Err(Errno::ENOBUFS);
        }
        account.take(charged);
        let mut packet = Packet {
            bytes: Vec::new(),
            from: 0,
            source: None,
            head: None,
            at: 0,
            cred,
            rights: Flight::default(),
            account: account.clone(),
            charged,
            urgent: false,
        };
        packet.bytes.try_reserve_exact(room.max(len)).map_err(|_| Errno::ENOBUFS)?;
        packet.bytes.resize(len, 0);
        let n = from.take(&mut packet.bytes);
        packet.bytes.truncate(n);
        Ok(packet)
    }

    /// What was sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// Leave no more than so many bytes of it.
    pub fn cut(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    /// Bytes not read yet.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.from
    }

    /// `n` bytes have been read.
    fn consume(&mut self, n: usize) {
        self.from += n;
        let back = n.min(self.charged);
        self.charged -= back;
        self.account.give(back);
    }

    /// Add bytes that fit in the room it has; whether they did.
    fn append(&mut self, bytes: &[u8]) -> bool {
        if self.bytes.capacity() - self.bytes.len() < bytes.len() {
            return false;
        }
        self.bytes.extend_from_slice(bytes);
        self.charged += bytes.len();
        self.account.take(bytes.len());
        true
    }
}

/// Where the urgent byte is in a stream.
#[derive(Clone, Copy)]
struct Mark {
    at: u64,
    byte: u8,
    /// It has been read apart.
    read: bool,
}

#[derive(Default)]
struct Queue {
    packets: VecDeque<Packet>,
    /// Bytes in all of them, and in the one that a reader has in hand.
    bytes: usize,
    /// Bytes of a stream that have been read.
    taken: u64,
    mark: Option<Mark>,
    /// A reader has taken one out, and may put it back.
    in_hand: bool,
    /// Nobody will read any more.
    closed: bool,
}

impl Queue {
    fn take(&mut self) -> Option<Packet> {
        let packet = self.packets.pop_front()?;
        self.in_hand = true;
        Some(packet)
    }
    /// `n` bytes of a stream have been read.
    fn advance(&mut self, n: usize) {
        self.bytes = self.bytes.saturating_sub(n);
        self.taken += n as u64;
        if self.mark.is_some_and(|m| m.at < self.taken) {
            self.mark = None;
        }
    }
    fn at_mark(&self) -> bool {
        self.mark.is_some_and(|m| m.at == self.taken)
    }
}

/// See the module.
#[derive(Default)]
pub struct Inbox {
    turn: SleepLock,
    queue: Mutex<Queue>,
}

/// What becomes of the byte that was urgent until a newer one came. Else it is read in its place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Older {
    Stays,
    /// It is passed over if it is next.
    Skipped,
    /// It is gone if it has been read apart.
    GivenOnce,
}

/// What a read of a stream does.
#[derive(Clone, Copy, Default)]
pub struct Reading {
    /// Leave everything where it is (MSG_PEEK).
    pub peek: bool,
    /// Bytes of different senders are not to be mixed (SO_PASSCRED).
    pub by_sender: bool,
    /// The urgent byte is one like the others (SO_OOBINLINE).
    pub inline: bool,
    /// But not if it has been read apart.
    pub once: bool,
}

impl Inbox {
    pub fn new() -> Inbox {
        Inbox::default()
    }
    /// Whether there is nothing to read, nor will be when another reader is done.
    pub fn is_empty(&self) -> bool {
        let queue = self.queue.lock();
        queue.packets.is_empty() && !queue.in_hand
    }
    /// Bytes in all packets.
    pub fn bytes(&self) -> usize {
        self.queue.lock().bytes
    }
    /// Bytes that a read of a stream can give: an urgent byte that is next is not among them, unless it is read in its place.
    pub fn stream_bytes(&self, inline: bool) -> usize {
        let queue = self.queue.lock();
        queue.bytes - (queue.at_mark() && !inline && queue.bytes > 0) as usize
    }
    /// Bytes that one read gives: those before the mark (FIONREAD).
    pub fn until_mark(&self, inline: bool) -> usize {
        let queue = self.queue.lock();
        match queue.mark {
            Some(mark) if !inline => (mark.at - queue.taken) as usize,
            _ => queue.bytes,
        }
    }
    /// Whether the urgent byte is next (SIOCATMARK).
    pub fn at_mark(&self) -> bool {
        self.queue.lock().at_mark()
    }
    /// Whether there is an urgent byte that has not been read apart (POLLPRI).
    pub fn is_urgent(&self) -> bool {
        self.queue.lock().mark.is_some_and(|m| !m.read)
    }
    /// Read the urgent byte apart. `EINVAL` without one.
    pub fn read_urgent(&self, peek: bool) -> Result<u8> {
        let mut queue = self.queue.lock();
        let mark = queue.mark.as_mut().filter(|m| !m.read).ok_or(Errno::EINVAL)?;
        mark.read = !peek;
        Ok(mark.byte)
    }

    pub fn packets(&self) -> usize {
        self.queue.lock().packets.len()
    }
    /// Bytes of the first packet.
    pub fn first(&self) -> usize {
        self.queue.lock().packets.front().map_or(0, Packet::len)
    }

    /// The error of a packet that came back.
    fn refused(&self) -> Errno {
        if self.queue.lock().closed { Errno::EPIPE } else { Errno::ENOBUFS }
    }
    /// Bytes, roughly, that the packets take.
    pub fn holds(&self) -> usize {
        let queue = self.queue.lock();
        queue.bytes + queue.packets.len() * PACKET_COST
    }

    /// Put a packet at the end. It is gone if nobody will read it (ECONNREFUSED), or if there is no room for it.
    pub fn push(&self, packet: Packet) -> Result<()> {
        let mut queue = self.queue.lock();
        if queue.closed || queue.packets.try_reserve(1).is_err() {
            // What it carries may have much to do when it goes.
            drop(queue);
            drop(packet);
            return Err(Errno::ECONNREFUSED);
        }
        queue.bytes += packet.len();
        queue.packets.push_back(packet);
        Ok(())
    }

    /// Put the source's one last byte at the end of a stream, as an urgent one: the mark moves there.
    pub fn send_urgent(
        &self,
        from: &mut Source<'_>,
        account: &Arc<Account>,
        cred: Ucred,
        older: Older,
    ) -> Result<()> {
        let mut packet = Packet::new(from, 1, account, cred)?;
        packet.urgent = true;
        let Some(byte) = packet.bytes.first().copied() else { return Ok(()) };
        let passed = {
            let mut queue = self.queue.lock();
            if queue.closed || queue.packets.try_reserve(1).is_err() {
                drop(queue);
                return Err(self.refused());
            }
            let mut passed = None;
            let was_read = queue.mark.is_some_and(|mark| mark.read);
            if older == Older::GivenOnce {
                if let Some(old) = queue.packets.iter().rposition(|packet| packet.urgent) {
                    queue.packets[old].urgent = false;
                    if was_read {
                        passed = queue.packets.remove(old);
                        queue.bytes -= 1;
                    }
                }
            } else if older == Older::Skipped && queue.at_mark() && !queue.in_hand {
                passed = queue.packets.pop_front();
                queue.advance(1);
            }
            let at = queue.taken + queue.bytes as u64;
            queue.mark = Some(Mark { at, byte, read: false });
            queue.bytes += 1;
            queue.packets.push_back(packet);
            passed
        };
        drop(passed);
        Ok(())
    }

    /// Read no more: what is there is thrown away; whether there was anything.
    pub fn close(&self) -> bool {
        let left = {
            let mut queue = self.queue.lock();
            queue.closed = true;
            queue.bytes = 0;
            queue.mark = None;
            core::mem::take(&mut queue.packets)
        };
        !left.is_empty()
    }

    /// Look at all packets.
    pub fn each(&self, look: &mut dyn FnMut(&Packet)) {
        self.queue.lock().packets.iter().for_each(look);
    }

    /// Throw away what is there, and go on.
    pub fn clear(&self) {
        let left = {
            let mut queue = self.queue.lock();
            queue.bytes = 0;
            queue.mark = None;
            core::mem::take(&mut queue.packets)
        };
        drop(left);
    }

    /// Send a piece of a stream: as much as one packet takes. `EPIPE` if nobody will read it.
    pub fn send_stream(
        &self,
        from: &mut Source<'_>,
        account: &Arc<Account>,
        cred: Ucred,
        rights: &mut Vec<Arc<File>>,
    ) -> Result<()> {
        let len = from.remaining();
        if len <= SMALL && rights.is_empty() {
            return self.send_small(from, len, account, cred);
        }
        // What may fail comes before the bytes are taken.
        let flight = Flight::new(core::mem::take(rights))?;
        let mut packet = Packet::new(from, len.min(STREAM_PACKET), account, cred)?;
        if packet.len() == 0 {
            return Ok(());
        }
        packet.rights = flight;
        self.push(packet).map_err(|_| self.refused())
    }

    fn send_small(
        &self,
        from: &mut Source<'_>,
        len: usize,
        account: &Arc<Account>,
        cred: Ucred,
    ) -> Result<()> {
        let mut small = [0; SMALL];
        let n = from.take(&mut small[..len]);
        if n == 0 {
            return Ok(());
        }
        {
            let mut queue = self.queue.lock();
            if queue.closed {
                return Err(Errno::EPIPE);
            }
            let joins =
                |p: &Packet| Arc::ptr_eq(&p.account, account) && p.cred == cred && p.rights.is_empty();
            let marked = queue.mark.is_some_and(|m| m.at + 1 == queue.taken + queue.bytes as u64);
            if let Some(last) = queue.packets.back_mut().filter(|p| joins(p) && !marked)
                && last.append(&small[..n])
            {
                queue.bytes += n;
                return Ok(());
            }
        }
        let room = if self.is_empty() { n } else { SMALL_ROOM };
        let mut source = Source::kernel(&small[..n]);
        let packet = match Packet::with_room(&mut source, n, room, account, cred) {
            Ok(packet) => packet,
            Err(e) => {
                from.give_back(n);
                return Err(e);
            }
        };
        self.push(packet).map_err(|_| self.refused())
    }

    /// Read from a stream what is there; whether anything came.
    pub fn read_stream(&self, to: &mut Sink<'_>, into: &mut Incoming, how: Reading) -> bool {
        let _turn = self.turn.lock();
        let mut sender: Option<Ucred> = None;
        let mut kept = Vec::new();
        let mut at = self.queue.lock().taken;
        while to.remaining() > 0 {
            let (packet, marked) = {
                let mut queue = self.queue.lock();
                let mark = queue.mark.filter(|mark| mark.at == at);
                let marked = mark.is_some();
                // What is before the urgent byte is for this read, what is behind it for the next.
                let packet = if marked && sender.is_some() { None } else { queue.take() };
                let gone = mark.is_some_and(|mark| mark.read && how.once);
                (packet, marked && (!how.inline || gone))
            };
            let Some(mut packet) = packet else { break };
            if marked {
                at += 1;
                if how.peek {
                    kept.push(packet);
                } else {
                    self.queue.lock().advance(1);
                }
                continue;
            }
            if sender.is_some_and(|s| how.by_sender && s != packet.cred) {
                self.queue.lock().packets.push_front(packet);
                break;
            }
            let mut n = to.put(&packet.bytes[packet.from..]);
            if to.faulted() {
                to.uncount(n);
                n = 0;
            }
            let barrier = n > 0 && !packet.rights.is_empty();
            if n > 0 {
                sender = Some(packet.cred);
                into.take(&mut packet, how.peek);
            }
            at += n as u64;
            if how.peek {
                let partly = n < packet.len();
                kept.push(packet);
                if partly {
                    break;
                }
            } else {
                packet.consume(n);
                let rest = packet.len() > 0;
                let mut queue = self.queue.lock();
                queue.advance(n);
                if rest && !queue.closed {
                    queue.packets.push_front(packet);
                } else {
                    drop(queue);
                    drop(packet);
                }
                if rest {
                    break;
                }
            }
            if barrier {
                break;
            }
        }
        let mut queue = self.queue.lock();
        while let Some(packet) = kept.pop() {
            queue.packets.push_front(packet);
        }
        queue.in_hand = false;
        drop(queue);
        sender.is_some()
    }

    /// Receive one packet, cut to what the sink takes; its whole length. `None` if there is none.
    pub fn receive(&self, to: &mut Sink<'_>, into: &mut Incoming, peek: bool) -> Option<usize> {
        let _turn = self.turn.lock();
        let mut packet = self.queue.lock().take()?;
        let len = packet.len();
        let put = to.put(&packet.bytes[packet.from..]);
        into.take(&mut packet, peek);
        into.told |= if put < len { abi::MSG_TRUNC } else { 0 };
        let mut queue = self.queue.lock();
        queue.in_hand = false;
        if peek && !queue.closed {
            queue.packets.push_front(packet);
        } else {
            queue.bytes = queue.bytes.saturating_sub(len);
            drop(queue);
            drop(packet);
        }
        Some(len)
    }
}
