//! A timer as a file (`timerfd_create(2)`): reading it gives how often it has expired since the last read.
//!
//! The count is added to in interrupt context and taken by readers: an atomic. Setting the timer anew begins a new count.
#![forbid(unsafe_code)]

use super::timer::{Setting, Source, Timer};
use crate::clock;
use crate::errno::{Errno, Result};
use crate::fs::file::{FileOps, How};
use crate::fs::iobuf::Sink;
use crate::fs::poll::{Events, Signal, Watchers};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering};

/// What an open timer file does.
pub struct TimerFile {
    timer: Arc<Timer>,
    expired: Arc<Expired>,
    /// Whether absolute times are of the realtime clock.
    realtime: bool,
}

struct Expired {
    count: AtomicU64,
    changed: Arc<Signal>,
}

impl TimerFile {
    pub fn new(realtime: bool) -> TimerFile {
        let expired = Arc::new(Expired { count: AtomicU64::new(0), changed: Signal::new() });
        let told = expired.clone();
        let timer = Timer::new(
            Source::Monotonic,
            Box::new(move |times| {
                let unread = told.count.fetch_add(times, Ordering::AcqRel);
                told.changed.notify();
                unread == 0
            }),
        );
        TimerFile { timer, expired, realtime }
    }

    /// The timer; to ask how it is set.
    pub fn timer(&self) -> &Timer {
        &self.timer
    }

    /// Set it: `value` nanoseconds from now, or, if `absolute`, on its clock; 0 stops it.
    pub fn set(&self, value: u64, interval: u64, absolute: bool) -> Result<()> {
        let deadline = match (value, absolute, self.realtime) {
            (0, ..) => None,
            (_, false, _) => Some(clock::monotonic().saturating_add(value)),
            (_, true, false) => Some(value),
            (_, true, true) => Some(value.saturating_sub(clock::at_reset())),
        };
        self.timer.set(Setting::default())?;
        self.expired.count.store(0, Ordering::Release);
        self.timer.set(Setting { deadline, interval })?;
        Ok(())
    }

    fn take(&self) -> Option<u64> {
        let count = self.expired.count.swap(0, Ordering::AcqRel);
        (count != 0).then(|| count + self.timer.taken())
    }
}

impl FileOps for TimerFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _: u64, to: &mut Sink<'_>, how: How) -> Result<()> {
        if to.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut count = self.take();
        if count.is_none() && how.nonblock {
            return Err(Errno::EAGAIN);
        }
        while count.is_none() {
            self.expired.changed.wait(|| self.expired.count.load(Ordering::Acquire) != 0)?;
            count = self.take();
        }
        to.put(&count.unwrap_or(0).to_ne_bytes());
        Ok(())
    }

    fn seek_nowhere(&self) -> Result<u64> {
        Ok(0)
    }
    fn poll(&self) -> Events {
        if self.expired.count.load(Ordering::Acquire) != 0 { Events::READABLE } else { Events::empty() }
    }

    fn watch(&self, watchers: &mut Watchers) {
        watchers.add(&self.expired.changed);
    }
}
