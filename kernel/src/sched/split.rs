//! How much of a thread's time was its program's, and how much the kernel's for it (`times(2)`).
//!
//! How long a thread has run is known to the nanosecond. To read the clock at every crossing between program and kernel
//! as well would make each system call a tenth slower; so the two parts are estimated, as polls are. A hundred times a second of
//! busy time a CPU notes where it is, and the thread's time is divided as its samples are.
//!
//! The kernel runs with interrupts off. A sample that falls due in it comes with the first interrupt after it, when the program
//! has not run one instruction yet, or at the next switch: either tells that it was the kernel's time.
//!
//! Neither part ever shrinks, though the estimate may: what was told once stays told.
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use hafez_mm::lock::Mutex;

/// Nanoseconds of a CPU's time between two samples.
pub const EVERY: u64 = 10_000_000;
/// An interrupt that comes so much too early will do: the next one, set for the rest, would come before the program had run at all.
pub const EARLY: u64 = EVERY / 8;

/// The samples of a thread, or of a CPU.
pub struct Split {
    samples: [AtomicU32; 2],
    /// Nanoseconds in the program and in the kernel, as they were last told.
    told: Mutex<(u64, u64)>,
}

impl Split {
    pub const fn new() -> Split {
        Split { samples: [const { AtomicU32::new(0) }; 2], told: Mutex::new((0, 0)) }
    }

    /// By the CPU alone that is found at it.
    pub fn sample(&self, in_kernel: bool, samples: u32) {
        let count = &self.samples[in_kernel as usize];
        count.store(count.load(Relaxed).saturating_add(samples), Relaxed);
    }

    /// `total` nanoseconds, divided.
    pub fn divide(&self, total: u64) -> (u64, u64) {
        let [user, system] = [0, 1].map(|i| u64::from(self.samples[i].load(Relaxed)));
        let mut told = self.told.lock();
        // With no sample yet, all was the program's.
        let share = (u128::from(total) * u128::from(system)).checked_div(u128::from(user + system));
        let system = (share.unwrap_or(0) as u64).max(told.1);
        let user = total.saturating_sub(system).max(told.0);
        *told = (user, total.saturating_sub(user).max(told.1));
        *told
    }
}
