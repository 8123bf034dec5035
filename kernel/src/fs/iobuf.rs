//! The program's end of a read or a write: where the bytes go, or come from.
//!
//! A [`Sink`] takes what a read finds, a [`Source`] gives what a write wants; each is a list of user ranges (`readv`), or a
//! slice of the kernel's (reading a program's header, `sendfile`). So a file implements reading once.
//!
//! User memory may fault in the middle. Bytes cannot be half there within one page, so copies go page by page, and the one
//! that fails ends the transfer: `put` and `take` then say how much went, and what went is what the call returns.
//! `EFAULT` is the answer only if nothing did (`read(2)`, `write(2)`). The bytes of a page-cache frame go straight to the user
//! page: no bounce buffer.
//!
//! No spin lock may be held around any call here, for it may fault and sleep; but for the two that end in `_now`.

use crate::{
    arch::user,
    errno::{Errno, Result},
    mem::memory,
};
use hafez_mm::{PAGE_SIZE, Pfn};

/// A range of user memory, as `struct iovec` has it. Hostile until touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub at: u64,
    pub len: usize,
}

/// A cursor over user segments.
struct UserCursor<'a> {
    segments: &'a [Segment],
    index: usize,
    within: usize,
}

impl UserCursor<'_> {
    /// The next piece of at most `most` bytes that lies in one page.
    fn piece(&mut self, most: usize) -> Option<(u64, usize)> {
        loop {
            let segment = self.segments.get(self.index)?;
            if self.within == segment.len {
                self.index += 1;
                self.within = 0;
                continue;
            }
            let at = segment.at.wrapping_add(self.within as u64);
            let in_page = PAGE_SIZE - (at as usize & (PAGE_SIZE - 1));
            let len = in_page.min(segment.len - self.within).min(most);
            return (len > 0).then_some((at, len));
        }
    }

    /// Where the next `len` bytes are, if they lie in one segment and one page: nearly always.
    #[inline(always)]
    fn straight(&self, len: usize) -> Option<u64> {
        let segment = self.segments.get(self.index)?;
        let at = segment.at.wrapping_add(self.within as u64);
        let in_page = PAGE_SIZE - (at as usize & (PAGE_SIZE - 1));
        (len > 0 && len <= in_page && len <= segment.len - self.within).then_some(at)
    }

    /// Run `copy(address, offset, length)` over the next `len` bytes, until one fails; how many bytes went.
    #[inline(always)]
    fn each(&mut self, len: usize, mut copy: impl FnMut(u64, usize, usize) -> bool) -> (usize, bool) {
        if let Some(at) = self.straight(len) {
            let went = copy(at, 0, len);
            let done = if went { len } else { 0 };
            self.within += done;
            return (done, !went);
        }
        self.pieces(len, &mut copy)
    }

    fn pieces(&mut self, len: usize, copy: &mut dyn FnMut(u64, usize, usize) -> bool) -> (usize, bool) {
        let mut done = 0;
        while done < len {
            let Some((at, n)) = self.piece(len - done) else { break };
            if !copy(at, done, n) {
                return (done, true);
            }
            self.within += n;
            done += n;
        }
        (done, false)
    }
}

/// Bytes in all segments.
pub fn total(segments: &[Segment]) -> usize {
    segments.iter().fold(0, |sum, s| sum.saturating_add(s.len))
}

/// Where a read puts its bytes.
pub struct Sink<'a> {
    place: SinkPlace<'a>,
    limit: usize,
    done: usize,
    faulted: bool,
}

enum SinkPlace<'a> {
    User(UserCursor<'a>),
    Kernel(&'a mut [u8]),
}

impl<'a> Sink<'a> {
    /// Into user memory, at most `limit` bytes of it.
    pub fn user(segments: &'a [Segment], limit: usize) -> Sink<'a> {
        let place = SinkPlace::User(UserCursor { segments, index: 0, within: 0 });
        Sink { place, limit, done: 0, faulted: false }
    }
    /// Into the kernel's.
    pub fn kernel(bytes: &'a mut [u8]) -> Sink<'a> {
        let limit = bytes.len();
        Sink { place: SinkPlace::Kernel(bytes), limit, done: 0, faulted: false }
    }
    /// Bytes that it still takes; 0 after a fault.
    pub fn remaining(&self) -> usize {
        if self.faulted { 0 } else { self.limit - self.done }
    }
    /// Bytes that it took.
    pub fn done(&self) -> usize {
        self.done
    }
    /// Whether user memory gave way.
    pub fn faulted(&self) -> bool {
        self.faulted
    }

    /// Take as much of `bytes` as goes; how much that was.
    pub fn put(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(self.remaining());
        let n = match &mut self.place {
            SinkPlace::Kernel(to) => {
                to[self.done..self.done + len].copy_from_slice(&bytes[..len]);
                (len, false)
            }
            SinkPlace::User(cursor) => {
                cursor.each(len, |at, off, n| user::copy_to(at, &bytes[off..off + n]).is_ok())
            }
        };
        self.advance(n)
    }

    /// Take all of `bytes` without sleeping, or nothing: with a spin lock held. Whether it did.
    #[inline(always)]
    pub fn put_now(&mut self, bytes: &[u8]) -> bool {
        let SinkPlace::User(cursor) = &mut self.place else { return false };
        let went = cursor.straight(bytes.len()).is_some_and(|at| user::copy_to_now(at, bytes).is_ok());
        if went {
            cursor.within += bytes.len();
            self.done += bytes.len();
        }
        went
    }

    /// Take `len` bytes of a pinned frame from `offset` on.
    pub fn put_frame(&mut self, frame: Pfn, offset: usize, len: usize) -> usize {
        let len = len.min(self.remaining());
        let n = match &mut self.place {
            SinkPlace::Kernel(to) => {
                memory().phys().read(frame, offset, &mut to[self.done..self.done + len]);
                (len, false)
            }
            SinkPlace::User(cursor) => {
                cursor.each(len, |at, off, n| user::copy_from_frame(at, frame, offset + off, n).is_ok())
            }
        };
        self.advance(n)
    }

    /// Take `len` zero bytes.
    pub fn put_zeroes(&mut self, len: usize) -> usize {
        let len = len.min(self.remaining());
        let n = match &mut self.place {
            SinkPlace::Kernel(to) => {
                to[self.done..self.done + len].fill(0);
                (len, false)
            }
            SinkPlace::User(cursor) => cursor.each(len, |at, _, n| user::zero(at, n).is_ok()),
        };
        self.advance(n)
    }

    /// The last `n` bytes do not count after the fault that ended them: where it is all or nothing.
    pub fn uncount(&mut self, n: usize) {
        debug_assert!(self.faulted);
        self.done -= n;
    }

    fn advance(&mut self, (n, faulted): (usize, bool)) -> usize {
        self.done += n;
        self.faulted |= faulted;
        n
    }

    /// What `read(2)` returns after the file said `result`: bytes that went count for more than an error that followed.
    pub fn outcome(&self, result: Result<()>) -> Result<usize> {
        outcome(self.done, self.faulted, result)
    }
}

/// Where a write takes its bytes from.
pub struct Source<'a> {
    place: SourcePlace<'a>,
    limit: usize,
    done: usize,
    faulted: bool,
}

enum SourcePlace<'a> {
    User(UserCursor<'a>),
    Kernel(&'a [u8]),
}

impl<'a> Source<'a> {
    /// From user memory, at most `limit` bytes of it.
    pub fn user(segments: &'a [Segment], limit: usize) -> Source<'a> {
        let place = SourcePlace::User(UserCursor { segments, index: 0, within: 0 });
        Source { place, limit, done: 0, faulted: false }
    }
    /// From the kernel's.
    pub fn kernel(bytes: &'a [u8]) -> Source<'a> {
        Source { place: SourcePlace::Kernel(bytes), limit: bytes.len(), done: 0, faulted: false }
    }
    /// Bytes that it still gives; 0 after a fault.
    pub fn remaining(&self) -> usize {
        if self.faulted { 0 } else { self.limit - self.done }
    }
    /// Bytes that it gave.
    pub fn done(&self) -> usize {
        self.done
    }
    /// Whether user memory gave way.
    pub fn faulted(&self) -> bool {
        self.faulted
    }

    /// Fill `bytes` as far as it goes; how far that was.
    pub fn take(&mut self, bytes: &mut [u8]) -> usize {
        let len = bytes.len().min(self.remaining());
        let n = match &mut self.place {
            SourcePlace::Kernel(from) => {
                bytes[..len].copy_from_slice(&from[self.done..self.done + len]);
                (len, false)
            }
            SourcePlace::User(cursor) => {
                cursor.each(len, |at, off, n| user::copy_from(&mut bytes[off..off + n], at).is_ok())
            }
        };
        self.advance(n)
    }

    /// Fill all of `bytes` without sleeping, or give nothing: with a spin lock held. Whether it did.
    #[inline(always)]
    pub fn take_now(&mut self, bytes: &mut [u8]) -> bool {
        let SourcePlace::User(cursor) = &mut self.place else { return false };
        let went = cursor.straight(bytes.len()).is_some_and(|at| user::copy_from_now(bytes, at).is_ok());
        if went {
            cursor.within += bytes.len();
            self.done += bytes.len();
        }
        went
    }

    /// Fill `len` bytes of a pinned frame from `offset` on.
    pub fn take_frame(&mut self, frame: Pfn, offset: usize, len: usize) -> usize {
        let len = len.min(self.remaining());
        let n = match &mut self.place {
            SourcePlace::Kernel(from) => {
                memory().phys().write(frame, offset, &from[self.done..self.done + len]);
                (len, false)
            }
            SourcePlace::User(cursor) => {
                cursor.each(len, |at, off, n| user::copy_to_frame(frame, offset + off, at, n).is_ok())
            }
        };
        self.advance(n)
    }

    /// Keep the last `n` bytes for later, or give them after all.
    pub fn hold_back(&mut self, n: usize) {
        self.limit -= n.min(self.limit - self.done);
    }
    pub fn let_go(&mut self, n: usize) {
        self.limit += n;
    }

    /// What was taken counts as not taken: the write came to nothing after all.
    pub fn take_back(&mut self) {
        self.done = 0;
    }

    /// The last `n` bytes came to nothing: they count as not taken, and the transfer ends here.
    pub fn give_back(&mut self, n: usize) {
        self.done -= n;
        self.limit = self.done;
    }

    /// Give everything that is left to nobody (`/dev/null` does not even look at it).
    pub fn skip_all(&mut self) {
        self.done = self.limit;
    }

    /// As [`Sink::uncount`].
    pub fn uncount(&mut self, n: usize) {
        debug_assert!(self.faulted);
        self.done -= n;
    }

    fn advance(&mut self, (n, faulted): (usize, bool)) -> usize {
        self.done += n;
        self.faulted |= faulted;
        n
    }

    /// As [`Sink::outcome`], for `write(2)`.
    pub fn outcome(&self, result: Result<()>) -> Result<usize> {
        outcome(self.done, self.faulted, result)
    }
}

fn outcome(done: usize, faulted: bool, result: Result<()>) -> Result<usize> {
    match result {
        _ if done > 0 => Ok(done),
        _ if faulted => Err(Errno::EFAULT),
        Ok(()) => Ok(0),
        Err(e) => Err(e),
    }
}
