//! A split queue: three arrays in memory that driver and device share.
//!
//! ```text
//!   descriptors  N x { address, length, flags, next }     the driver writes
//!   avail        flags, idx, N x head,       used_event   the driver writes: heads of chains on offer
//!   used         flags, idx, N x {id, len},  avail_event  the device writes: heads of chains it has finished
//! ```
//!
//! A request is a [`Table`] of descriptors: first what the device reads, then what it writes. Where the device takes
//! *indirect* descriptors, a request of any length costs one entry of the ring, which points at the table; else the table
//! is copied into the ring as a chain.
//!
//! *Few notifications.* With event indices each side publishes the index at which it wants to hear of the other.
//! [`Queue::kick`] rings the bell only if the device asked for it; [`Queue::expect`] and [`Queue::arm`] say how many
//! completions we can wait for before an interrupt.
//!
//! *Fences that are none.* Each side writes its index and then reads what the other wishes; if both reads came before the other's
//! write was visible, both would sleep for ever. A fence between write and read is the remedy, but QEMU's emulation before 8.0
//! drops the fences of a machine with one CPU, though its devices run in threads of their own. There the processor's store
//! buffer is real, and so was the loss: now and then a published server heard of no packet any more. What it cannot drop is an
//! access to a device, for which it takes a lock: [`Queue::settle`] reads a register.
//!
//! *What the device may not break.* The free list, the lengths of chains and the cookies are kept in our own memory
//! ([`Chain`]); nothing is read back from the descriptors. From the used ring we take two numbers: an id, which must be
//! the head of a chain in flight, and a length, which is cut to what the chain allowed the device to write. Anything else
//! marks the queue broken, and from then on it yields nothing.
//!
//! Lock: a queue has none; it is the driver's, under the driver's lock. Source: VIRTIO 1.2, section 2.7.

use super::{Dma, Segment, feature};
use crate::arch;
use alloc::{boxed::Box, vec};
use core::sync::atomic::{AtomicU16, Ordering, fence};

/// Descriptor flags: another follows; the device writes here; this is a table of descriptors.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Bytes of a descriptor.
const DESC: usize = 16;

/// A list of descriptors in device memory, in the making or in flight.
#[derive(Clone, Copy)]
pub struct Table {
    mem: Dma,
    len: u16,
    writable: u32,
}

impl Table {
    /// Bytes that a table of `n` descriptors takes.
    pub const fn bytes(n: usize) -> usize {
        n * DESC
    }

    /// An empty table in `mem`, which the device must not be using.
    pub fn new(mem: Dma) -> Table {
        Table { mem, len: 0, writable: 0 }
    }

    /// Descriptors so far.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Append memory that the device reads. All of it comes before what the device writes.
    #[inline]
    pub fn readable(&mut self, segment: Segment) {
        debug_assert!(self.writable == 0);
        self.push(segment, 0);
    }

    /// Append memory that the device writes.
    #[inline]
    pub fn writable(&mut self, segment: Segment) {
        self.writable = self.writable.saturating_add(segment.len);
        self.push(segment, WRITE);
    }

    #[inline]
    fn push(&mut self, segment: Segment, flags: u16) {
        let at = self.len as usize * DESC;
        // Each descriptor says that another follows; `close` takes it back from the last.
        put(
            &self.mem,
            at,
            Raw { addr: segment.addr, len: segment.len, flags: flags | NEXT, next: self.len + 1 },
        );
        self.len += 1;
    }

    fn close(&self) {
        let at = (self.len as usize - 1) * DESC + 12;
        self.mem.store::<u16>(at, self.mem.load::<u16>(at) & !NEXT);
    }
}

/// A descriptor.
struct Raw {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

#[inline(always)]
fn put(mem: &Dma, at: usize, raw: Raw) {
    mem.store(at, raw.addr);
    mem.store(at + 8, raw.len as u64 | (raw.flags as u64) << 32 | (raw.next as u64) << 48);
}

/// What we remember of a descriptor: its place in the free list, or the request it is the head of.
#[derive(Clone, Copy, Default)]
struct Chain {
    next: u16,
    /// Descriptors of the chain that begins here; 0 if none in flight does.
    len: u16,
    cookie: u16,
    /// Bytes that the device may write.
    writable: u32,
}

/// A request that the device has finished.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Done {
    /// As given to [`Queue::add`].
    pub cookie: u16,
    /// Bytes that the device says it wrote, at most what it was allowed to.
    pub len: u32,
}

/// No room in the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// See the module.
pub struct Queue {
    ring: Dma,
    size: u16,
    index: u16,
    indirect: bool,
    event_idx: bool,
    broken: bool,
    chains: Box<[Chain]>,
    free_head: u16,
    free: u16,
    in_flight: u16,
    /// Heads offered so far, those the device has heard of, and those taken back; they wrap.
    offered: u16,
    told: u16,
    taken: u16,
    bell: *mut u32,
    /// A register that can be read at any time, where fences may not hold.
    settler: Option<*const u32>,
}

// SAFETY: `bell` and `settler` are device registers, mapped for ever; the first is written through `&mut self` only, and reading the
// second does nothing.
unsafe impl Send for Queue {}

impl Queue {
    /// The largest queue: with 128 entries all three arrays fit in one frame.
    pub const MAX_SIZE: u16 = 128;
    /// Alignment of the ring, and of the used array in it: a cache line (the standard asks for 16 and 4).
    pub const ALIGN: usize = 64;

    /// The most completions that wait for one interrupt, where nobody is in a hurry.
    pub const PATIENCE: u16 = 8;

    const fn avail_at(size: u16) -> usize {
        DESC * size as usize
    }
    const fn used_at(size: u16) -> usize {
        (Self::avail_at(size) + 6 + 2 * size as usize).next_multiple_of(Self::ALIGN)
    }
    /// Bytes of a ring with `size` entries.
    pub const fn bytes(size: u16) -> usize {
        Self::used_at(size) + 6 + 8 * size as usize
    }

    /// A queue in `ring` (zeroed, [`Queue::bytes`] long) with a power of two of entries; `bell` is the notify register, and reading
    /// the register `magic` does nothing.
    pub(super) fn new(
        ring: Dma,
        size: u16,
        index: u16,
        features: u64,
        bell: *mut u32,
        magic: *const u32,
    ) -> Queue {
        assert!(size.is_power_of_two() && ring.len() >= Self::bytes(size));
        let mut chains = vec![Chain::default(); size as usize].into_boxed_slice();
        for (i, chain) in chains.iter_mut().enumerate() {
            chain.next = i as u16 + 1;
        }
        Queue {
            ring,
            size,
            index,
            indirect: features & feature::INDIRECT != 0,
            event_idx: features & feature::EVENT_IDX != 0,
            broken: false,
            chains,
            free_head: 0,
            free: size,
            in_flight: 0,
            offered: 0,
            told: 0,
            taken: 0,
            bell,
            settler: arch::cpu::drops_fences().then_some(magic),
        }
    }

    /// Physical addresses of descriptors, avail and used.
    pub(super) fn places(&self) -> (u64, u64, u64) {
        let at = |offset| self.ring.phys(offset);
        (at(0), at(Self::avail_at(self.size)), at(Self::used_at(self.size)))
    }

    /// Requests that the device has and has not given back.
    pub fn in_flight(&self) -> u16 {
        self.in_flight
    }
    /// Whether the device broke the rules. Nothing more will come from it.
    pub fn is_broken(&self) -> bool {
        self.broken
    }
    /// Descriptors that one request may have.
    pub fn longest(&self) -> usize {
        self.size as usize
    }

    #[inline(always)]
    fn shared(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: `at` checks bounds and alignment; ring memory is never freed; the device accesses these 16-bit fields
        // as whole words, and an atomic may be aliased.
        unsafe { &*self.ring.at::<AtomicU16>(offset) }
    }

    /// Offer a request. `cookie` comes back with its completion. The bell is not rung: see [`Queue::kick`].
    pub fn add(&mut self, table: &Table, cookie: u16) -> Result<(), Full> {
        if table.len == 0 || table.len() > self.longest() {
            return Err(Full);
        }
        table.close();
        let whole = Segment { addr: table.mem.phys(0), len: Table::bytes(table.len()) as u32 };
        if self.indirect {
            let head = self.take(1)?;
            put(
                &self.ring,
                head as usize * DESC,
                Raw { addr: whole.addr, len: whole.len, flags: INDIRECT, next: 0 },
            );
            self.offer(head, 1, cookie, table.writable);
            return Ok(());
        }
        let head = self.take(table.len)?;
        let mut at = head;
        for i in 0..table.len as usize {
            let addr = table.mem.load::<u64>(i * DESC);
            let rest = table.mem.load::<u64>(i * DESC + 8);
            let next = self.chains[at as usize].next;
            let raw = Raw { addr, len: rest as u32, flags: (rest >> 32) as u16, next };
            put(&self.ring, at as usize * DESC, raw);
            at = next;
        }
        self.offer(head, table.len, cookie, table.writable);
        Ok(())
    }

    /// Offer one segment, with no table.
    pub fn add_one(&mut self, segment: Segment, writable: bool, cookie: u16) -> Result<(), Full> {
        let head = self.take(1)?;
        let flags = if writable { WRITE } else { 0 };
        put(&self.ring, head as usize * DESC, Raw { addr: segment.addr, len: segment.len, flags, next: 0 });
        self.offer(head, 1, cookie, if writable { segment.len } else { 0 });
        Ok(())
    }

    /// The first of `n` free descriptors, linked by `Chain::next`.
    #[inline]
    fn take(&mut self, n: u16) -> Result<u16, Full> {
        if self.free < n || self.broken {
            return Err(Full);
        }
        let head = self.free_head;
        let mut last = head;
        for _ in 1..n {
            last = self.chains[last as usize].next;
        }
        self.free_head = self.chains[last as usize].next;
        self.free -= n;
        Ok(head)
    }

    #[inline]
    fn offer(&mut self, head: u16, len: u16, cookie: u16, writable: u32) {
        let chain = &mut self.chains[head as usize];
        (chain.len, chain.cookie, chain.writable) = (len, cookie, writable);
        self.in_flight += 1;
        let avail = Self::avail_at(self.size);
        let slot = (self.offered & (self.size - 1)) as usize;
        self.shared(avail + 4 + 2 * slot).store(head, Ordering::Relaxed);
        self.offered = self.offered.wrapping_add(1);
        // Release: the device that sees the index sees the descriptors too.
        self.shared(avail + 2).store(self.offered, Ordering::Release);
    }

    /// Tell the device of what was added since the last kick, if it wants to be told.
    pub fn kick(&mut self) {
        if self.told == self.offered {
            return;
        }
        // Our index must be visible before we look whether the device waits for it: else both could fall asleep.
        fence(Ordering::SeqCst);
        let wanted = self.wanted()
            || self.settler.is_some() && {
                self.settle();
                self.wanted()
            };
        self.told = self.offered;
        if wanted {
            // SAFETY: the notify register of a mapped device.
            unsafe { self.bell.write_volatile(self.index as u32) }
        }
    }

    /// Whether the device wants to hear of what was added since the last kick.
    fn wanted(&self) -> bool {
        let used = Self::used_at(self.size);
        if self.event_idx {
            let event = self.shared(used + 4 + 8 * self.size as usize).load(Ordering::Relaxed);
            passed(event, self.offered, self.told)
        } else {
            self.shared(used).load(Ordering::Relaxed) & 1 == 0
        }
    }

    /// Make what was written visible to the device before anything that follows is read. See the module.
    fn settle(&self) {
        fence(Ordering::SeqCst);
        if let Some(magic) = self.settler {
            // SAFETY: a register of a mapped device, which reading does not change.
            unsafe { magic.read_volatile() };
        }
    }

    /// Whether the device has finished something that [`Queue::pop`] would give.
    #[inline]
    pub fn has_done(&self) -> bool {
        !self.broken && self.finished() != self.taken
    }

    /// The next finished request.
    pub fn pop(&mut self) -> Option<Done> {
        if !self.has_done() {
            return None;
        }
        let slot = (self.taken & (self.size - 1)) as usize;
        let at = Self::used_at(self.size) + 4 + 8 * slot;
        // Read once: what the device changes later does not matter.
        let (id, len) = (self.ring.load::<u32>(at), self.ring.load::<u32>(at + 4));
        let chain = match self.chains.get(id as usize) {
            Some(chain) if chain.len != 0 => *chain,
            _ => {
                self.broken = true;
                return None;
            }
        };
        self.taken = self.taken.wrapping_add(1);
        self.in_flight -= 1;
        let head = id as u16;
        let mut last = head;
        for _ in 1..chain.len {
            last = self.chains[last as usize].next;
        }
        self.chains[head as usize].len = 0;
        self.chains[last as usize].next = self.free_head;
        self.free_head = head;
        self.free += chain.len;
        Some(Done { cookie: chain.cookie, len: len.min(chain.writable) })
    }

    /// For who has popped all there was: ask for an interrupt when `after` more requests are finished (1: the next
    /// one). True if that has happened meanwhile and no interrupt may come: then pop again.
    #[must_use]
    pub fn arm(&mut self, after: u16) -> bool {
        let after = after.max(1);
        if self.event_idx {
            self.wish(self.taken.wrapping_add(after - 1));
            self.settle();
            return !self.broken && self.finished().wrapping_sub(self.taken) >= after;
        }
        self.has_done()
    }

    /// For who is about to add a request: make sure of an interrupt once all in flight (or a few of them) are
    /// finished, or, if `soon`, at the very next completion. What is finished already is reported with it.
    pub fn expect(&mut self, soon: bool) {
        if !self.event_idx {
            return;
        }
        if !soon {
            // The new request is the last of all in flight to be counted, whichever the device finishes last.
            // It is visible before the request is: stores keep their order.
            return self.wish(self.taken.wrapping_add(self.in_flight.min(Self::PATIENCE - 1)));
        }
        // The wish must name a completion that is still to come, and the new request's is: so this settles.
        let mut finished = self.finished();
        loop {
            self.wish(finished);
            self.settle();
            let now = self.finished();
            if now == finished {
                return;
            }
            finished = now;
        }
    }

    #[inline]
    fn wish(&mut self, event: u16) {
        let avail = Self::avail_at(self.size);
        // Release: the device sees it no later than what is offered after it.
        self.shared(avail + 4 + 2 * self.size as usize).store(event, Ordering::Release);
    }

    /// The device's count of finished requests; it wraps.
    #[inline]
    fn finished(&self) -> u16 {
        self.shared(Self::used_at(self.size) + 2).load(Ordering::Acquire)
    }

    /// Give up on the device: take every request in flight back, by its cookie. The memory they name stays the
    /// device's for as long as it has not been reset.
    pub fn abandon(&mut self, mut each: impl FnMut(u16)) {
        self.broken = true;
        for chain in self.chains.iter_mut().filter(|c| c.len != 0) {
            chain.len = 0;
            each(chain.cookie);
        }
        self.in_flight = 0;
    }
}

/// Whether an index that moved from `old` to `new` has passed `event` (VIRTIO 1.2, 2.7.7.2).
fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
