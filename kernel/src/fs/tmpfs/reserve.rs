//! Room that `fallocate(2)` has promised, and who has a file mapped.
//!
//! Pages that are promised within a file are made at once: zero, and of the file. Past the end a file has no pages; there the
//! promise is a number of pages that count against the limit ([`Ahead`]), and become real ones when the file grows over them.

use super::{Body, Node};
use crate::{
    errno::{Errno, Result},
    mem::memory,
};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use hafez_mm::PAGE_SIZE;
use hafez_mm::lock::Once;
use linux_raw_sys::general as abi;

/// The pages that are promised past the end of a file, from `from` up to `to`. They are one range: what lies between two
/// promises is promised too.
#[derive(Default)]
pub(super) struct Ahead {
    from: AtomicU64,
    to: AtomicU64,
}

impl Ahead {
    pub fn pages(&self) -> u64 {
        self.to.load(Relaxed).saturating_sub(self.from.load(Relaxed))
    }
    fn set(&self, from: u64, to: u64) {
        self.from.store(from, Relaxed);
        self.to.store(to, Relaxed);
    }
}

/// Pages that so many bytes touch.
fn pages(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE_SIZE as u64)
}

impl Node {
    fn ahead(&self) -> Option<&Ahead> {
        match &self.body {
            Body::File { ahead, .. } => Some(ahead),
            _ => None,
        }
    }

    /// Whether page `index` is promised, and counted, but not there yet.
    pub(super) fn is_ahead(&self, index: u64) -> bool {
        let Some(ahead) = self.ahead() else { return false };
        (ahead.from.load(Relaxed)..ahead.to.load(Relaxed)).contains(&index)
    }

    /// Pages that could still be had: of the limit, or of what memory and swap hold in all.
    fn room(&self) -> u64 {
        let stats = memory().stats();
        let limit = self.fs.limit().unwrap_or(u64::MAX).min(stats.total + stats.swap_total);
        limit.saturating_sub(self.fs.used.load(Relaxed))
    }

    /// `fallocate(2)`.
    pub(super) fn reserve_pages(&self, from: u64, to: u64) -> Result<()> {
        let Body::File { object, ahead, .. } = &self.body else { return Err(Errno::ENODEV) };
        let size = object.size();
        if to > size && self.seals.load(Relaxed) & abi::F_SEAL_GROW != 0 {
            return Err(Errno::EPERM);
        }
        let (first, end) = (from / PAGE_SIZE as u64, pages(to));
        let inside = end.min(pages(size));
        self.recount();
        if end - first > self.room() + object.held() + ahead.pages() {
            return Err(Errno::ENOSPC);
        }
        let holes = (first..inside).filter(|i| object.next_held(*i) != Some(*i)).count() as u64;
        let past = first.max(pages(size));
        let promised = if past >= end {
            (ahead.from.load(Relaxed), ahead.to.load(Relaxed))
        } else if ahead.pages() == 0 {
            (past, end)
        } else {
            (past.min(ahead.from.load(Relaxed)), end.max(ahead.to.load(Relaxed)))
        };
        let more = promised.1 - promised.0 - ahead.pages();
        if holes + more > self.room() {
            return Err(Errno::ENOSPC);
        }
        self.make_pages(first, inside)?;
        ahead.set(promised.0, promised.1);
        self.fs.used.fetch_add(more, Relaxed);
        Ok(())
    }

    fn make_pages(&self, first: u64, end: u64) -> Result<()> {
        let Body::File { object, charged, .. } = &self.body else { return Ok(()) };
        for index in first..end {
            if object.next_held(index) != Some(index) {
                self.charge(object, charged, index)?;
                memory().object_page(object, index, true)?;
            }
        }
        Ok(())
    }

    /// The file's size has changed: what it has grown over becomes pages; of what was cut off nothing is promised any more.
    pub(super) fn take_ahead(&self, old: u64, new: u64) -> Result<()> {
        let Some(ahead) = self.ahead() else { return Ok(()) };
        if new < old {
            self.drop_ahead();
            return Ok(());
        }
        let (from, to) = (ahead.from.load(Relaxed), ahead.to.load(Relaxed));
        let end = pages(new).clamp(from, to);
        ahead.set(end, to);
        self.fs.used.fetch_sub(end - from, Relaxed);
        self.make_pages(from, end)
    }

    pub(super) fn drop_ahead(&self) {
        if let Some(ahead) = self.ahead() {
            self.fs.used.fetch_sub(ahead.pages(), Relaxed);
            ahead.set(0, 0);
        }
    }
}

static MAPPED: Once<fn(u32) -> bool> = Once::new();

/// Tell how to find out whether some process can write an object through a shared mapping.
pub fn set_mapped(mapped: fn(object: u32) -> bool) {
    MAPPED.call_once(|| mapped);
}

pub(super) fn is_mapped_writable(object: u32) -> bool {
    MAPPED.get().is_none_or(|mapped| mapped(object))
}
