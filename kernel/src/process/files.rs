//! A process's descriptors: small numbers for open file descriptions.
//!
//! Threads share one table (CLONE_FILES), a fork copies it. Each descriptor has one flag of its own, close-on-exec. A new one
//! gets the lowest free number. A file leaves the table under the lock and is dropped outside, since closing may sleep.
#![forbid(unsafe_code)]

pub use crate::fs::{Cred, path::FsContext};
use crate::{
    errno::{Errno, Result},
    fs::{file::File, locks},
};
use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use hafez_mm::lock::Mutex;

/// The most descriptors that a table can have, whatever the limits say (`/proc/sys/fs/nr_open`).
pub const MAX_FILES: usize = 1 << 20;

/// One descriptor.
#[derive(Clone)]
struct Slot {
    file: Arc<File>,
    close_on_exec: bool,
}

#[derive(Default)]
struct Slots {
    slots: Vec<Option<Slot>>,
    /// No free slot is below.
    lowest: usize,
}

/// See the module.
pub struct FileTable {
    slots: Mutex<Slots>,
    /// Names the owner of POSIX record locks.
    id: u64,
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

impl Slots {
    fn get(&self, fd: u32) -> Option<&Slot> {
        self.slots.get(fd as usize)?.as_ref()
    }

    /// The lowest free number, at least `min`; `EMFILE` if that is not below `limit`.
    fn free(&mut self, min: usize, limit: usize) -> Result<usize> {
        let from = min.max(self.lowest);
        let len = self.slots.len();
        let at = (from..len).find(|i| self.slots[*i].is_none()).unwrap_or(len.max(from));
        if at >= limit.min(MAX_FILES) {
            return Err(Errno::EMFILE);
        }
        if min <= self.lowest {
            self.lowest = at;
        }
        Ok(at)
    }

    fn put(&mut self, at: usize, slot: Slot) -> Result<Option<Slot>> {
        if at >= self.slots.len() {
            let more = at + 1 - self.slots.len();
            self.slots.try_reserve(more).map_err(|_| Errno::ENOMEM)?;
            self.slots.resize(at + 1, None);
        }
        if at == self.lowest {
            self.lowest += 1;
        }
        Ok(self.slots[at].replace(slot))
    }

    fn take(&mut self, at: usize) -> Option<Slot> {
        let slot = self.slots.get_mut(at)?.take()?;
        self.lowest = self.lowest.min(at);
        Some(slot)
    }
}

impl FileTable {
    pub fn new() -> FileTable {
        FileTable { slots: Mutex::default(), id: next_id() }
    }

    /// The table of a forked process: the same open files under the same numbers.
    pub fn fork_copy(&self) -> Result<Arc<FileTable>> {
        let mut slots = Vec::new();
        // Room first, without the lock; a thread may open more files meanwhile.
        let lowest = loop {
            let len = self.slots.lock().slots.len();
            slots.try_reserve(len).map_err(|_| Errno::ENOMEM)?;
            let old = self.slots.lock();
            if old.slots.len() <= slots.capacity() {
                slots.extend(old.slots.iter().cloned());
                break old.lowest;
            }
        };
        Ok(Arc::new(FileTable { slots: Mutex::new(Slots { slots, lowest }), id: next_id() }))
    }

    /// Names the table as an owner of locks.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The file, for doing something with it: `EBADF` for none, and for one opened with O_PATH.
    #[inline]
    pub fn get(&self, fd: u32) -> Result<Arc<File>> {
        let file = self.get_any(fd)?;
        if file.is_path_only() { Err(Errno::EBADF) } else { Ok(file) }
    }

    /// The file, for naming it.
    #[inline]
    pub fn get_any(&self, fd: u32) -> Result<Arc<File>> {
        self.slots.lock().get(fd).map(|s| s.file.clone()).ok_or(Errno::EBADF)
    }

    /// A new descriptor, at least `min` and below `limit` (RLIMIT_NOFILE).
    pub fn insert(&self, file: Arc<File>, close_on_exec: bool, min: u32, limit: u64) -> Result<u32> {
        let limit = usize::try_from(limit).unwrap_or(MAX_FILES);
        let mut slots = self.slots.lock();
        let at = slots.free(min as usize, limit)?;
        slots.put(at, Slot { file, close_on_exec })?;
        Ok(at as u32)
    }

    /// Put the file at exactly this number, closing what was there (`dup2`).
    pub fn insert_at(&self, fd: u32, file: Arc<File>, close_on_exec: bool, limit: u64) -> Result<()> {
        if fd as u64 >= limit.min(MAX_FILES as u64) {
            return Err(Errno::EBADF);
        }
        let old = self.slots.lock().put(fd as usize, Slot { file, close_on_exec })?;
        self.closed(old);
        Ok(())
    }

    /// `close(2)`.
    pub fn close(&self, fd: u32) -> Result<()> {
        let slot = self.slots.lock().take(fd as usize);
        if slot.is_none() {
            return Err(Errno::EBADF);
        }
        self.closed(slot);
        Ok(())
    }

    fn closed(&self, slot: Option<Slot>) {
        if let Some(slot) = slot {
            locks::release_process(slot.file.inode().id(), self.id);
            slot.file.ops().let_go(self.id);
        }
    }

    /// `close_range(2)`: close those in `first..=last`, or mark them close-on-exec.
    pub fn close_range(&self, first: u32, last: u32, only_mark: bool) {
        let end = (last as usize).saturating_add(1).min(self.slots.lock().slots.len());
        for fd in first as usize..end {
            if only_mark {
                let _ = self.set_close_on_exec(fd as u32, true);
            } else {
                let slot = self.slots.lock().take(fd);
                self.closed(slot);
            }
        }
    }

    pub fn close_on_exec(&self, fd: u32) -> Result<bool> {
        self.slots.lock().get(fd).map(|s| s.close_on_exec).ok_or(Errno::EBADF)
    }

    pub fn set_close_on_exec(&self, fd: u32, on: bool) -> Result<()> {
        let mut slots = self.slots.lock();
        let slot = slots.slots.get_mut(fd as usize).and_then(Option::as_mut).ok_or(Errno::EBADF)?;
        slot.close_on_exec = on;
        Ok(())
    }

    /// A new program begins: close what is marked.
    pub fn exec(&self) {
        let end = self.slots.lock().slots.len();
        for fd in 0..end {
            if self.close_on_exec(fd as u32) == Ok(true) {
                let _ = self.close(fd as u32);
            }
        }
    }

    /// The numbers in use, in order.
    pub fn list(&self) -> impl Iterator<Item = u32> + '_ {
        let mut next = 0;
        core::iter::from_fn(move || {
            let slots = self.slots.lock();
            let fd = (next..slots.slots.len() as u32).find(|fd| slots.get(*fd).is_some())?;
            next = fd + 1;
            Some(fd)
        })
    }

    /// Bytes, roughly, that the kernel holds for it. Who shares a file shares its cost.
    pub fn holds(&self) -> usize {
        let slots = self.slots.lock();
        let files = slots.slots.iter().flatten().map(|s| s.file.holds() / Arc::strong_count(&s.file));
        files.sum::<usize>() + slots.slots.capacity() * size_of::<Option<Slot>>()
    }

    /// How many numbers it has room for (`FDSize` in `/proc/PID/status`).
    pub fn size(&self) -> usize {
        self.slots.lock().slots.len().next_multiple_of(64)
    }
}

impl Drop for FileTable {
    fn drop(&mut self) {
        let slots = core::mem::take(&mut self.slots.get_mut().slots);
        for slot in slots {
            self.closed(slot);
        }
    }
}
