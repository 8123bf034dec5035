//! A timer as a file (`timerfd_create(2)`): reading it gives how often it has expired since the last read.
//!
//! The count is added to in interrupt context and taken by readers: an atomic. Setting the timer anew begins a new count.
#![forbid(unsafe_code)]

use super::settime;
use super::timer::{Setting, Source, Timer};
use crate::clock;
use crate::errno::{Errno, Result};
use crate::fs::file::{FileOps, How};
use crate::fs::iobuf::Sink;
use crate::fs::poll::{Events, Signal, Watchers};
use crate::sched::WaitResult;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What an open timer file does.
pub struct TimerFile {
    timer: Arc<Timer>,
    expired: Arc<Expired>,
    /// Whether absolute times are of the realtime clock.
    realtime: bool,
    /// A moment of that clock is meant, and who reads wants to know if it was set (TFD_TIMER_CANCEL_ON_SET).
    cancels: AtomicBool,
    /// How often it had been set when that was last told.
    seen: AtomicU64,
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
        let seen = AtomicU64::new(clock::times_set());
        TimerFile { timer, expired, realtime, cancels: AtomicBool::new(false), seen }
    }

    /// Whether the clock was set since that was last told, and somebody wants to know.
    fn is_cancelled(&self) -> bool {
        self.cancels.load(Ordering::Acquire) && self.seen.load(Ordering::Acquire) != clock::times_set()
    }

    /// ECANCELED, once, if the clock was set.
    fn tell(&self) -> Result<()> {
        if !self.is_cancelled() {
            return Ok(());
        }
        self.seen.store(clock::times_set(), Ordering::Release);
        Err(Errno::ECANCELED)
    }

    fn is_ready(&self) -> bool {
        self.expired.count.load(Ordering::Acquire) != 0 || self.is_cancelled()
    }

    /// The timer; to ask how it is set.
    pub fn timer(&self) -> &Timer {
        &self.timer
    }

    /// Set it: `value` nanoseconds from now, or, if `absolute`, on its clock; 0 stops it. If the realtime clock is set before the
    /// moment comes, that `cancels` it: the reader hears of it. ECANCELED: it was, since that was last told.
    pub fn set(&self, value: u64, interval: u64, absolute: bool, cancels: bool) -> Result<()> {
        let real = absolute && self.realtime;
        let deadline = match value {
            0 => None,
            _ if absolute => Some(value),
            _ => Some(clock::monotonic().saturating_add(value)),
        };
        self.timer.set(Setting::default())?;
        self.expired.count.store(0, Ordering::Release);
        self.cancels.store(real && cancels, Ordering::Release);
        self.timer.set(Setting { deadline, interval, real })?;
        if value == 0 { Ok(()) } else { self.tell() }
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
        self.tell()?;
        if count.is_none() && how.nonblock {
            return Err(Errno::EAGAIN);
        }
        while count.is_none() {
            let mut watchers = Watchers::new();
            self.watch(&mut watchers);
            if watchers.wait(|| self.is_ready(), None)? == WaitResult::Interrupted {
                return Err(Errno::RESTART);
            }
            count = self.take();
            self.tell()?;
        }
        to.put(&count.unwrap_or(0).to_ne_bytes());
        Ok(())
    }

    fn seek_nowhere(&self, _: i64, _: u32) -> Result<u64> {
        Ok(0)
    }
    fn poll(&self) -> Events {
        if self.is_ready() { Events::READABLE } else { Events::empty() }
    }

    fn watch(&self, watchers: &mut Watchers) {
        watchers.add(&self.expired.changed);
        if self.realtime {
            watchers.add(settime::signal());
        }
    }
}
