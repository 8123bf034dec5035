//! What the memory core asks of the kernel.

use crate::arch;
use hafez_mm::{AccountId, Flush, OomReport, Platform};

/// What rooms above do for the memory core.
pub struct Hooks {
    /// Sleep until `ready()`, woken by the same key.
    pub wait: fn(key: usize, ready: &dyn Fn() -> bool),
    /// Wake those who sleep on the key.
    pub wake: fn(key: usize),
    /// Out of memory: this account's process has to go. Must not block.
    pub kill: fn(account: AccountId, why: &OomReport),
}

/// Tell what to call; before the first program starts.
pub fn set_hooks(_hooks: Hooks) {
    todo!()
}

/// The kernel under the memory core.
pub struct KernelPlatform;

impl Platform for KernelPlatform {
    fn cpu(&self) -> usize {
        arch::cpu::id()
    }
    fn flush(&self, flush: &Flush<'_>) {
        arch::paging::flush(flush)
    }
    fn now(&self) -> u64 {
        arch::time::now_ns()
    }
    fn wait(&self, _key: usize, _ready: &dyn Fn() -> bool) {
        todo!()
    }
    fn wake(&self, _key: usize) {
        todo!()
    }
    fn random(&self) -> u64 {
        todo!()
    }
    fn kill(&self, _account: AccountId, _why: &OomReport) {
        todo!()
    }
}
