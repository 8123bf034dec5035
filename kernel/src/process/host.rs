//! What the machine says it is (`uname(2)`), and how busy it has been.
//!
//! Programs read the release to decide what they may use, so it names the Linux whose interface this one follows.
#![forbid(unsafe_code)]

use crate::clock::{self, SECOND};
use crate::errno::{Errno, Result};
use crate::{arch, sched};
use alloc::vec::Vec;
use hafez_mm::lock::Mutex;

pub const SYSTEM: &str = "Linux";
pub const RELEASE: &str = "6.12.0-hafez";
/// The same for programs that cannot do with a version above 2.6 (`UNAME26`): 40 and the minor number, and 20 for each major one since.
pub const RELEASE_26: &str = "2.6.72-hafez";
pub const VERSION: &str = concat!("#1 Hafez ", env!("CARGO_PKG_VERSION"));
pub const MACHINE: &str = "x86_64";
/// For programs that want a 32-bit machine told (`PER_LINUX32`).
pub const MACHINE_32: &str = "i686";

/// The longest name of a host or domain.
pub const NAME_MAX: usize = linux_raw_sys::system::__NEW_UTS_LEN as usize;

static HOST: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static DOMAIN: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// The host's name.
pub fn name() -> Vec<u8> {
    let name = HOST.lock().clone();
    if name.is_empty() { b"hafez".to_vec() } else { name }
}

/// The NIS domain's name.
pub fn domain() -> Vec<u8> {
    let name = DOMAIN.lock().clone();
    if name.is_empty() { b"(none)".to_vec() } else { name }
}

/// Name the host. EINVAL if it is too long.
pub fn set_name(name: &[u8]) -> Result<()> {
    set(&HOST, name)
}

/// Name the NIS domain.
pub fn set_domain(name: &[u8]) -> Result<()> {
    set(&DOMAIN, name)
}

fn set(slot: &Mutex<Vec<u8>>, name: &[u8]) -> Result<()> {
    if name.len() > NAME_MAX {
        return Err(Errno::EINVAL);
    }
    let old = core::mem::replace(&mut *slot.lock(), name.to_vec());
    drop(old);
    Ok(())
}

/// Bits after the point of a load average.
pub const LOAD_BITS: u32 = 11;
const ONE: u64 = 1 << LOAD_BITS;
/// exp(-5 s / 1, 5, 15 min), in the same form.
const DECAY: [u64; 3] = [1884, 2014, 2037];

/// Nanoseconds between two samples.
const PERIOD: u64 = 5 * SECOND;

struct Loads {
    averages: [u64; 3],
    /// When the last sample was due, and the CPUs' idle time by then.
    sampled: u64,
    idle: u64,
}

static LOADS: Mutex<Loads> = Mutex::new(Loads { averages: [0; 3], sampled: 0, idle: 0 });

/// How many CPUs' worth of work there was, averaged over 1, 5 and 15 minutes; [`LOAD_BITS`] bits after the point.
///
/// The samples that have become due since the last look are made up for now, each with the mean of that time. So no
/// timer wakes an idle machine for it.
pub fn loads() -> [u64; 3] {
    let (now, idle) = (clock::monotonic(), sched::idle_times());
    let mut loads = LOADS.lock();
    let time = now - loads.sampled;
    let steps = time / PERIOD;
    if steps > 0 {
        let all = time.saturating_mul(arch::cpu::count() as u64);
        let busy = all.saturating_sub(idle.saturating_sub(loads.idle));
        let mean = (busy as u128 * ONE as u128 / time as u128) as u64;
        for (load, decay) in loads.averages.iter_mut().zip(DECAY) {
            // After an hour of samples nothing is left of what was before.
            for _ in 0..steps.min(720) {
                *load = (*load * decay + mean * (ONE - decay)) >> LOAD_BITS;
            }
        }
        loads.sampled += steps * PERIOD;
        loads.idle = idle;
    }
    loads.averages
}
