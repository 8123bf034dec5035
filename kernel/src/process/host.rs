//! What the machine says it is (`uname(2)`), and how busy it has been.
//!
//! Programs read the release to decide what they may use, so it names the Linux whose interface this one follows.
#![forbid(unsafe_code)]

use crate::clock::SECOND;
use crate::errno::{Errno, Result};
use crate::process::timer::{Setting, Source, Timer};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use spin::{Mutex, Once};

pub const SYSTEM: &str = "Linux";
pub const RELEASE: &str = "6.12.0-hafez";
pub const VERSION: &str = concat!("#1 Hafez ", env!("CARGO_PKG_VERSION"));
pub const MACHINE: &str = "x86_64";

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

static LOADS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
static SAMPLER: Once<Arc<Timer>> = Once::new();

/// Threads that run or want to, averaged over 1, 5 and 15 minutes; [`LOAD_BITS`] bits after the point.
pub fn loads() -> [u64; 3] {
    [0, 1, 2].map(|i| LOADS[i].load(Relaxed))
}

/// Begin to look, each five seconds, how many threads want to run.
pub fn start_load_average() -> Result<()> {
    let sampler = SAMPLER.call_once(|| Timer::new(Source::Monotonic, Box::new(|_| sample())));
    let deadline = Some(crate::clock::monotonic() + 5 * SECOND);
    sampler.set(Setting { deadline, interval: 5 * SECOND }).map(drop)
}

fn sample() {
    let (active, _) = crate::sched::counts();
    for (load, decay) in LOADS.iter().zip(DECAY) {
        load.store((load.load(Relaxed) * decay + active as u64 * ONE * (ONE - decay)) >> LOAD_BITS, Relaxed);
    }
}
