//! Moving bytes between a pipe and something else without the program seeing them: `splice(2)`, `tee(2)`.
//!
//! ```text
//!   file ──read──► chunks at the pipe's end       the pipe had room before; what was read always goes in
//!   pipe's first chunks ──write──► file           a chunk that did not go whole stays first
//!   pipe ──chunks change hands──► pipe            copied only where one must be cut
//! ```
//!
//! The pipe's `turn` is held over a move, so that bytes keep their order; not while waiting for data or room.

use super::{
    file::{File, How},
    iobuf::{Sink, Source},
    pipe::{Chunk, Pipe},
};
use crate::errno::{Errno, Result};
use alloc::sync::Arc;

/// The most that one step moves, and so the most by which a pipe can be too full.
const STEP: usize = 64 * 1024;

/// From a file (at `at`, or its own offset) into a pipe: what one read gives.
pub fn file_to_pipe(input: &File, at: Option<u64>, pipe: &Pipe, len: usize, nonblock: bool) -> Result<usize> {
    let room = pipe.await_room(nonblock)?;
    let mut bytes = alloc::vec::Vec::new();
    let most = len.min(room).min(STEP);
    bytes.try_reserve_exact(most).map_err(|_| Errno::ENOMEM)?;
    bytes.resize(most, 0);
    let how = How { nonblock: nonblock || input.how().nonblock, ..input.how() };
    let n = input.read_how(at, &mut Sink::kernel(&mut bytes), how)?;
    pipe.push_all(&bytes[..n])?;
    Ok(n)
}

/// From a pipe into a file (at `at`, or its own offset).
pub fn pipe_to_file(
    pipe: &Pipe,
    output: &File,
    mut at: Option<u64>,
    len: usize,
    nonblock: bool,
    how: How,
) -> Result<usize> {
    pipe.await_data(nonblock)?;
    pipe.pull(len, &mut |bytes| {
        let n = output.write_how(at, &mut Source::kernel(bytes), how, false)?;
        at = at.map(|at| at + n as u64);
        Ok(n)
    })
}

/// From one pipe into another, as much as there is and fits.
pub fn pipe_to_pipe(from: &Arc<Pipe>, to: &Arc<Pipe>, len: usize, nonblock: bool) -> Result<usize> {
    if !from.await_data(nonblock)? {
        return Ok(0);
    }
    let room = to.await_room(nonblock)?;
    from.pull(len.min(room), &mut |bytes| to.push_all(bytes).map(|()| bytes.len()))
}

/// The same, but what is moved also stays.
pub fn tee(from: &Arc<Pipe>, to: &Arc<Pipe>, len: usize, nonblock: bool) -> Result<usize> {
    if !from.await_data(nonblock)? {
        return Ok(0);
    }
    let room = to.await_room(nonblock)?;
    let copies = from.copies(len.min(room))?;
    let mut done = 0;
    for copy in &copies {
        to.push_all(copy.bytes())?;
        done += copy.bytes().len();
    }
    Ok(done)
}

impl Pipe {
    /// Wait for room; how much there is. `EPIPE` where nobody reads.
    fn await_room(&self, nonblock: bool) -> Result<usize> {
        let room = || {
            let s = self.state.lock();
            if s.readers == 0 { Err(Errno::EPIPE) } else { Ok(s.room(true)) }
        };
        if room()? == 0 {
            if nonblock {
                return Err(Errno::EAGAIN);
            }
            self.changed.wait(|| room() != Ok(0))?;
        }
        // Between two looks another may have filled it: then it is too full by one step.
        Ok(room()?.max(1))
    }

    /// Wait for data; `false` where there is none and nobody writes.
    fn await_data(&self, nonblock: bool) -> Result<bool> {
        let empty = || self.state.lock().len == 0;
        let ended = || self.state.lock().writers == 0;
        if empty() && !ended() {
            if nonblock {
                return Err(Errno::EAGAIN);
            }
            self.changed.wait(|| !empty() || ended())?;
        }
        Ok(!empty())
    }

    /// Add bytes at the end, whatever the capacity.
    fn push_all(&self, bytes: &[u8]) -> Result<()> {
        let turn = self.turn.lock();
        for piece in bytes.chunks(super::pipe::PIPE_BUF) {
            let mut chunk = Chunk::new()?;
            chunk.fill(piece);
            let mut s = self.state.lock();
            s.chunks.try_reserve(1)?;
            s.len += piece.len();
            s.chunks.push_back(chunk);
        }
        drop(turn);
        self.changed.notify();
        Ok(())
    }

    /// Hand up to `len` bytes to `give`, a chunk at a time, which says how many it took.
    fn pull(&self, len: usize, give: &mut dyn FnMut(&[u8]) -> Result<usize>) -> Result<usize> {
        let turn = self.turn.lock();
        let mut done = 0;
        let mut result = Ok(());
        while done < len && result.is_ok() {
            let Some(mut chunk) = self.state.lock().chunks.pop_front() else { break };
            if chunk.bytes().is_empty() {
                continue;
            }
            let want = chunk.bytes().len().min(len - done);
            let taken = give(&chunk.bytes()[..want]);
            let n = *taken.as_ref().unwrap_or(&0);
            done += n;
            chunk.drop_first(n);
            let mut s = self.state.lock();
            s.len -= n;
            if !chunk.bytes().is_empty() {
                s.chunks.push_front(chunk);
            }
            drop(s);
            result = match taken {
                Ok(n) if n == want => Ok(()),
                Ok(_) => break,
                Err(e) => Err(e),
            };
        }
        drop(turn);
        self.changed.notify();
        if done > 0 { Ok(done) } else { result.map(|()| 0) }
    }

    /// Copies of the first `len` bytes.
    fn copies(&self, len: usize) -> Result<alloc::vec::Vec<Chunk>> {
        let _turn = self.turn.lock();
        let mut copies = alloc::vec::Vec::new();
        let mut done = 0;
        for index in 0.. {
            // Room first: nothing is allocated with the lock held.
            let mut copy = Chunk::new()?;
            let s = self.state.lock();
            let Some(chunk) = s.chunks.get(index).filter(|_| done < len) else { break };
            copy.fill(&chunk.bytes()[..chunk.bytes().len().min(len - done)]);
            drop(s);
            done += copy.bytes().len();
            copies.push(copy);
        }
        Ok(copies)
    }
}
