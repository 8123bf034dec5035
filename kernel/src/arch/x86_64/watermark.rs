//! How deep kernel stacks get: with the feature `watermark` each one is painted when it is taken, and where the paint has gone
//! when it is given back shows how much was ever used. The deepest so far is logged with the thread's name.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const PAINT: u64 = 0x9a17_9a17_9a17_9a17;
static MOST: AtomicUsize = AtomicUsize::new(0);

/// Paint a stack that nobody is on, `bytes` from `bottom`.
pub fn paint(bottom: u64, bytes: usize) {
    for at in (bottom..bottom + bytes as u64).step_by(8) {
        // SAFETY: the stack is mapped, and the caller's alone.
        unsafe { (at as *mut u64).write_volatile(PAINT) };
    }
}

/// See how deep it was, and tell if none was deeper.
pub fn look(bottom: u64, bytes: usize, name: &str) {
    // SAFETY: as in `paint`: the thread whose stack it is looks, or nobody is on it.
    let painted = |at: &u64| unsafe { (*at as *const u64).read_volatile() } == PAINT;
    let unused = (bottom..bottom + bytes as u64).step_by(8).take_while(painted).count() * 8;
    let used = bytes - unused;
    if used > MOST.fetch_max(used, Relaxed) {
        log::warn!("stack: {used} of {bytes} bytes, by {name}");
    }
}
