//! What the memory core asks of the kernel. What rooms above this one do is handed in as hooks.

use crate::arch;
use hafez_mm::lock::Once;
use hafez_mm::{AccountId, Flush, OomReport, Platform};

/// What rooms above do for the memory core.
pub struct Hooks {
    /// Sleep until `ready()`, woken by the same key.
    pub wait: fn(key: usize, ready: &dyn Fn() -> bool),
    /// Wake those who sleep on the key.
    pub wake: fn(key: usize),
    /// The account of the process that this thread runs for.
    pub account: fn() -> AccountId,
    /// Out of memory: this account's process has to go. Must not block.
    pub kill: fn(account: AccountId, why: &OomReport),
    /// Whether this thread runs for a program. Called from within an allocation, with locks held.
    pub for_program: fn() -> bool,
    /// Tell, for each account, the pages' worth of things that the kernel holds for its process. Takes no lock that is held
    /// over a wait.
    pub holdings: fn(tell: &mut dyn FnMut(AccountId, u64)),
}

static HOOKS: Once<Hooks> = Once::new();

/// Tell what to call; before the first program starts.
pub fn set_hooks(hooks: Hooks) {
    HOOKS.call_once(|| hooks);
}

pub(super) fn for_program() -> bool {
    HOOKS.get().is_some_and(|hooks| (hooks.for_program)())
}

pub(super) fn account() -> AccountId {
    HOOKS.get().map_or(AccountId::KERNEL, |hooks| (hooks.account)())
}

/// The kernel under the memory core.
pub struct KernelPlatform;

impl Platform for KernelPlatform {
    fn cpu() -> usize {
        arch::cpu::id()
    }
    fn flush(&self, flush: &Flush<'_>) {
        arch::paging::flush(flush)
    }
    fn wait(&self, key: usize, ready: &dyn Fn() -> bool) {
        match HOOKS.get() {
            Some(hooks) => (hooks.wait)(key, ready),
            None => assert!(ready(), "memory waits before there are threads"),
        }
    }
    fn wake(&self, key: usize) {
        if let Some(hooks) = HOOKS.get() {
            (hooks.wake)(key);
        }
    }
    fn random(&self) -> u64 {
        arch::random::seed()
    }
    fn account(&self) -> AccountId {
        account()
    }
    fn holdings(&self, tell: &mut dyn FnMut(AccountId, u64)) {
        if let Some(hooks) = HOOKS.get() {
            (hooks.holdings)(tell);
        }
    }
    fn headroom(&self, bytes: usize) -> bool {
        super::headroom(bytes)
    }
    fn kill(&self, account: AccountId, why: &OomReport) {
        if let Some(hooks) = HOOKS.get() {
            (hooks.kill)(account, why);
        }
    }
}
