//! Setting the realtime clock (`clock_settime(2)`): the machine's own; the host's is untouched.
//!
//! Who sleeps or has a timer until a moment of that clock waits anew, for the moment has moved (`sched::timer`); who reads the
//! clock without a system call finds the new time in the page that all programs map (`vdso`); and who
//! asked to be told is woken ([`signal`]).
#![forbid(unsafe_code)]

use super::vdso;
use crate::clock::{self, SECOND};
use crate::errno::{Errno, Result};
use crate::fs::poll::Signal;
use crate::sched::timer;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use hafez_mm::lock::{Mutex, Once};

/// The last second that the clock can be set to: thirty years before nanoseconds overflow 63 bits.
const LAST: u64 = (i64::MAX as u64) / SECOND - 30 * 365 * 24 * 3600;

static CHANGED: Once<Arc<Signal>> = Once::new();
/// One sets it at a time, so that the page shows what was set last.
static SETTING: Mutex<()> = Mutex::new(());

/// Notified when the clock was set.
pub fn signal() -> &'static Arc<Signal> {
    CHANGED.call_once(Signal::new)
}

/// Whether the clock can show this, in nanoseconds since 1970.
pub fn is_valid(now: u64) -> bool {
    now / SECOND < LAST
}

/// It is `now` nanoseconds since 1970. EINVAL: at reset it would have been before that.
pub fn set(now: u64) -> Result<()> {
    // What can fail, and may have to wait for memory, comes first.
    let page = vdso::page()?;
    {
        let _one = SETTING.lock();
        if !clock::set_realtime(now) {
            return Err(Errno::EINVAL);
        }
        vdso::tell_time(&page, clock::at_reset());
    }
    timer::clock_was_set();
    signal().notify();
    Ok(())
}

/// `struct timezone`, which nothing here goes by: minutes west of Greenwich, kind of summer time.
static ZONE: AtomicU64 = AtomicU64::new(0);

pub fn zone() -> u64 {
    ZONE.load(Relaxed)
}

/// What `gettimeofday` shall say of it.
pub fn set_zone(zone: u64) -> Result<()> {
    let page = vdso::page()?;
    let _one = SETTING.lock();
    ZONE.store(zone, Relaxed);
    vdso::tell_zone(&page, zone);
    Ok(())
}
