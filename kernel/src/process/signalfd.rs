//! Signals as a file (`signalfd(2)`): reading it takes signals off the reader's queues, without their action.
//!
//! The file has a set of signals and nothing else: whose signals it tells of is decided by who reads, or polls, as on
//! Linux. To be woken, one waits on the [`Signal`] of one's process, which exists once somebody has asked for it.
#![forbid(unsafe_code)]

use super::current_task;
use super::signal::{self, SigInfo, SigSet};
use crate::errno::{Errno, Result};
use crate::fs::file::{FileOps, How};
use crate::fs::iobuf::Sink;
use crate::fs::poll::{Events, Signal, Watchers};
use crate::sched::WaitResult;
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering};
use linux_raw_sys::general as abi;

/// Bytes of a `struct signalfd_siginfo`.
const RECORD: usize = 128;

/// What an open signal file does.
pub struct SignalFile {
    wanted: AtomicU64,
    /// Whoever waits looks again when the set changes.
    changed: alloc::sync::Arc<Signal>,
}

impl SignalFile {
    pub fn new(wanted: SigSet) -> SignalFile {
        SignalFile { wanted: AtomicU64::new(wanted.minus(SigSet::UNBLOCKABLE).0), changed: Signal::new() }
    }

    /// From now on of these signals.
    pub fn set(&self, wanted: SigSet) {
        self.wanted.store(wanted.minus(SigSet::UNBLOCKABLE).0, Ordering::SeqCst);
        self.changed.notify();
    }

    fn wanted(&self) -> SigSet {
        SigSet(self.wanted.load(Ordering::SeqCst))
    }

    fn take(&self) -> Option<SigInfo> {
        current_task().and_then(|task| signal::take(&task, self.wanted()))
    }

    fn waits(&self) -> bool {
        current_task().is_some_and(|task| !signal::waiting(&task).both(self.wanted()).is_empty())
    }
}

impl FileOps for SignalFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _: u64, to: &mut Sink<'_>, how: How) -> Result<()> {
        if to.remaining() < RECORD {
            return Err(Errno::EINVAL);
        }
        while to.remaining() >= RECORD {
            match self.take() {
                Some(info) => {
                    if to.put(&record(&info)) < RECORD {
                        return Ok(());
                    }
                }
                None if to.done() > 0 => return Ok(()),
                None if how.nonblock => return Err(Errno::EAGAIN),
                None => {
                    let mut watchers = Watchers::new();
                    self.watch(&mut watchers);
                    if watchers.wait(|| self.waits(), None)? == WaitResult::Interrupted {
                        return Err(Errno::RESTART);
                    }
                }
            }
        }
        Ok(())
    }

    fn seek_nowhere(&self, _: i64, _: u32) -> Result<u64> {
        Ok(0)
    }
    fn poll(&self) -> Events {
        if self.waits() { Events::READABLE } else { Events::empty() }
    }

    fn watch(&self, watchers: &mut Watchers) {
        watchers.add(&self.changed);
        if let Some(task) = current_task() {
            watchers.add(task.process.signal_came.call_once(Signal::new));
        }
    }
}

/// A `struct signalfd_siginfo`. Which fields count is told by where the signal came from, as in `siginfo_t`.
fn record(info: &SigInfo) -> [u8; RECORD] {
    let mut out = [0; RECORD];
    let low = |i: usize| info.fields[i] as u32;
    let high = |i: usize| (info.fields[i] >> 32) as u32;
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &info.signo.to_ne_bytes());
    put(4, &info.errno.to_ne_bytes());
    put(8, &info.code.to_ne_bytes());
    let from_process = |put: &mut dyn FnMut(usize, &[u8])| {
        put(12, &low(0).to_ne_bytes());
        put(16, &high(0).to_ne_bytes());
    };
    let value = |put: &mut dyn FnMut(usize, &[u8])| {
        put(44, &low(1).to_ne_bytes());
        put(48, &info.fields[1].to_ne_bytes());
    };
    let faulted = matches!(info.signo, abi::SIGSEGV | abi::SIGBUS | abi::SIGILL | abi::SIGFPE | abi::SIGTRAP);
    if info.code == abi::SI_TIMER {
        put(24, &low(0).to_ne_bytes());
        put(32, &high(0).to_ne_bytes());
        value(&mut put);
    } else if info.code < 0 {
        from_process(&mut put);
        value(&mut put);
    } else if info.signo == abi::SIGCHLD && info.code > 0 && info.code != abi::SI_KERNEL as i32 {
        from_process(&mut put);
        put(40, &low(1).to_ne_bytes());
        put(56, &info.fields[2].to_ne_bytes());
        put(64, &info.fields[3].to_ne_bytes());
    } else if faulted && info.code > 0 && info.code != abi::SI_KERNEL as i32 {
        put(72, &info.fields[0].to_ne_bytes());
    } else {
        from_process(&mut put);
    }
    out
}
