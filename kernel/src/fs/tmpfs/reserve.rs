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

/// What is promised past the end of a file: that page is the first which is not; and how many pages count for it.
#[derive(Default)]
pub(super) struct Ahead {
    to: AtomicU64,
    pages: AtomicU64,
}

impl Ahead {
    pub fn pages(&self) -> u64 {
        self.pages.load(Relaxed)
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
        let (Some(ahead), Body::File { object, .. }) = (self.ahead(), &self.body) else { return false };
        index < ahead.to.load(Relaxed) && index >= pages(object.size())
    }

    /// Pages that could still be had: of the limit, or of what memory and swap hold in all.
    fn room(&self) -> u64 {
        let stats = memory().stats();
        let limit = self.fs.limit.unwrap_or(u64::MAX).min(stats.total + stats.swap_total);
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
        let before = ahead.to.load(Relaxed).max(pages(size));
        let more = end.saturating_sub(before.max(first));
        if holes + more > self.room() {
            return Err(Errno::ENOSPC);
        }
        self.make_pages(first, inside)?;
        if more > 0 {
            ahead.to.store(end, Relaxed);
            ahead.pages.fetch_add(more, Relaxed);
            self.fs.used.fetch_add(more, Relaxed);
        }
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
        let to = ahead.to.load(Relaxed);
        if to == 0 {
            return Ok(());
        }
        if new < old {
            self.drop_ahead();
            return Ok(());
        }
        let (first, end) = (pages(old), pages(new).min(to));
        let n = end.saturating_sub(first).min(ahead.pages());
        ahead.pages.fetch_sub(n, Relaxed);
        self.fs.used.fetch_sub(n, Relaxed);
        if end == to {
            self.drop_ahead();
        }
        self.make_pages(first, end)
    }

    pub(super) fn drop_ahead(&self) {
        if let Some(ahead) = self.ahead() {
            ahead.to.store(0, Relaxed);
            self.fs.used.fetch_sub(ahead.pages.swap(0, Relaxed), Relaxed);
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
