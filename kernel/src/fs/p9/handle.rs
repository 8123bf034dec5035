//! A regular file's contents on the server: the fids it is open by, and the traffic of its pages.
//!
//! A file is opened once for reading and once for writing, whoever opens it how often: reads and writes name their
//! offset, so one fid serves all. The handle outlives the last `close`, because mappings and dirty pages do.
//!
//! [`Pager::fill`] reads straight into the frames of the page cache, a cluster in one message. The server ends a read early only
//! at the end of the file; what lies behind is zeroed. [`Pager::write`] may run when no memory is left: nothing on its
//! path allocates. Its errors reach the program at `fsync`, as on Linux.

use super::client::Fid;
use crate::errno::{Errno, Result};
use crate::mem::memory;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};
use hafez_mm::lock::Mutex;
use hafez_mm::{PAGE_SIZE, Pager, PagerError, Pfn};

/// See the module.
#[derive(Default)]
pub struct Handle {
    fids: Mutex<Fids>,
    /// We have written since somebody last asked ([`Handle::take_wrote`]): the server's times are of our making.
    wrote: AtomicBool,
    /// The error of a write-back that nobody has been told of, as a number; 0: none.
    error: AtomicU16,
}

#[derive(Default)]
struct Fids {
    read: Option<Arc<Fid>>,
    /// Also good for reading, unless the file's mode forbade that.
    write: Option<Arc<Fid>>,
}

impl Handle {
    /// Whether it is open for that.
    pub fn is_open(&self, read: bool, write: bool) -> bool {
        let fids = self.fids.lock();
        (!read || fids.read.is_some()) && (!write || fids.write.is_some())
    }

    /// From now on use this open fid for reading, for writing, or both.
    pub fn opened(&self, fid: Arc<Fid>, read: bool, write: bool) {
        let mut fids = self.fids.lock();
        let old_read = if read { fids.read.replace(fid.clone()) } else { None };
        let old_write = if write { fids.write.replace(fid) } else { None };
        drop(fids);
        drop((old_read, old_write));
    }

    pub fn reader(&self) -> Option<Arc<Fid>> {
        self.fids.lock().read.clone()
    }
    pub fn writer(&self) -> Option<Arc<Fid>> {
        self.fids.lock().write.clone()
    }

    /// Whether pages were written since the last call.
    pub fn take_wrote(&self) -> bool {
        self.wrote.swap(false, Relaxed)
    }

    /// The error that a write-back met since the last call.
    pub fn take_error(&self) -> Result<()> {
        match self.error.swap(0, Relaxed) {
            0 => Ok(()),
            code => Err(Errno::from_code(code as u32)),
        }
    }

    fn try_fill(&self, first: u64, frames: &[Pfn]) -> Result<()> {
        let fid = self.reader().ok_or(Errno::EBADF)?;
        let mut done = 0;
        while done < frames.len() {
            let rest = &frames[done..];
            let got = fid.read_frames((first + done as u64) * PAGE_SIZE as u64, rest)?;
            let whole = got / PAGE_SIZE;
            done += whole;
            if !got.is_multiple_of(PAGE_SIZE) || got == 0 {
                // The file's end lies in this page: what is behind it reads as zero.
                memory().phys().zero_part(frames[done], got % PAGE_SIZE, PAGE_SIZE);
                frames[done + 1..].iter().for_each(|frame| memory().phys().zero(*frame));
                break;
            }
        }
        Ok(())
    }

    fn try_write(&self, first: u64, frames: &[Pfn], bytes: usize) -> Result<()> {
        let fid = self.writer().ok_or(Errno::EBADF)?;
        self.wrote.store(true, Relaxed);
        let (mut done, mut left) = (0, bytes);
        while left > 0 {
            let sent = fid.write_frames((first + done as u64) * PAGE_SIZE as u64, &frames[done..], left)?;
            if sent >= left {
                break;
            }
            // What was cut off within a page is written again with the rest. Less than a page: the disk is full.
            let whole = sent / PAGE_SIZE;
            if whole == 0 {
                return Err(Errno::ENOSPC);
            }
            done += whole;
            left -= whole * PAGE_SIZE;
        }
        Ok(())
    }
}

/// What the memory core holds. (A type of its own: the inode shares the handle.)
pub struct FilePager(pub Arc<Handle>);

impl Pager for FilePager {
    fn fill(&self, first: u64, frames: &[Pfn]) -> core::result::Result<(), PagerError> {
        self.0.try_fill(first, frames).map_err(|_| PagerError)
    }

    fn write(&self, first: u64, frames: &[Pfn], bytes: usize) -> core::result::Result<(), PagerError> {
        self.0.try_write(first, frames, bytes).map_err(|error| {
            self.0.error.store(error.code(), Relaxed);
            PagerError
        })
    }
}
