//! A counter that one can wait for: `eventfd(2)`.

use super::{
    file::{FileOps, How},
    iobuf::{Sink, Source},
    poll::{Events, Signal, Watchers},
};
use crate::errno::{Errno, Result};
use alloc::{format, string::String, sync::Arc};
use core::any::Any;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use hafez_mm::lock::Mutex;

/// The counter stays below this: a write that would reach it waits.
const FULL: u64 = u64::MAX;

static NEXT_ID: AtomicU32 = AtomicU32::new(0);

/// See the module.
pub struct EventFd {
    count: Mutex<u64>,
    /// A read takes one, not all (EFD_SEMAPHORE).
    semaphore: bool,
    id: u32,
    changed: Arc<Signal>,
}

impl EventFd {
    pub fn new(count: u64, semaphore: bool) -> Arc<EventFd> {
        let id = NEXT_ID.fetch_add(1, Relaxed);
        Arc::new(EventFd { count: Mutex::new(count), semaphore, id, changed: Signal::new() })
    }

    fn take(&self) -> Option<u64> {
        let mut count = self.count.lock();
        let taken = if self.semaphore { 1.min(*count) } else { *count };
        *count -= taken;
        (taken > 0).then_some(taken)
    }

    /// The kernel itself counts one more; a full counter stays full.
    pub fn signal(&self) {
        let mut count = self.count.lock();
        *count = count.saturating_add(1);
        drop(count);
        self.changed.notify();
    }

    fn add(&self, more: u64) -> bool {
        let mut count = self.count.lock();
        match count.checked_add(more).filter(|sum| *sum < FULL) {
            Some(sum) => {
                *count = sum;
                true
            }
            None => false,
        }
    }
}

impl FileOps for EventFd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _: u64, to: &mut Sink<'_>, how: How) -> Result<()> {
        if to.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut taken = self.take();
        if taken.is_none() {
            if how.nonblock {
                return Err(Errno::EAGAIN);
            }
            self.changed.wait(|| {
                taken = self.take();
                taken.is_some()
            })?;
        }
        self.changed.notify();
        to.put(&taken.unwrap_or(0).to_ne_bytes());
        Ok(())
    }

    fn write(&self, _: u64, from: &mut Source<'_>, how: How) -> Result<()> {
        if from.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0; 8];
        if from.take(&mut bytes) < 8 {
            return Err(Errno::EFAULT);
        }
        let more = u64::from_ne_bytes(bytes);
        if more == FULL {
            from.take_back();
            return Err(Errno::EINVAL);
        }
        if !self.add(more) {
            let result = if how.nonblock { Err(Errno::EAGAIN) } else { self.changed.wait(|| self.add(more)) };
            if result.is_err() {
                from.take_back();
                return result;
            }
        }
        self.changed.notify();
        Ok(())
    }

    fn told(&self) -> String {
        let (count, id, semaphore) = (*self.count.lock(), self.id, self.semaphore as u32);
        format!("eventfd-count: {count:16x}\neventfd-id: {id}\neventfd-semaphore: {semaphore}\n")
    }
    fn seek_nowhere(&self, _: i64, _: u32) -> Result<u64> {
        Ok(0)
    }
    fn poll(&self) -> Events {
        let count = *self.count.lock();
        let mut events = Events::empty();
        events.set(Events::READABLE, count > 0);
        events.set(Events::WRITABLE, count < FULL - 1);
        events
    }
    fn watch(&self, watchers: &mut Watchers) {
        watchers.add(&self.changed);
    }
    fn tells_all(&self) -> bool {
        true
    }
}
