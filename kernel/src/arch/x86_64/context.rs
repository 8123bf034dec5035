//! Switching between kernel threads: six registers and a stack.
//!
//! A thread that does not run has its callee-saved registers on its stack and the stack pointer in its `Context`. Its
//! program's registers are in its `UserContext`; FPU state and segment bases follow lazily (`user::leave`).

use super::user;
use core::arch::naked_asm;
use core::cell::UnsafeCell;

/// Where a thread that does not run goes on.
pub struct Context {
    rsp: UnsafeCell<u64>,
}

// SAFETY: touched only by `switch`, whose caller owns both threads.
unsafe impl Sync for Context {}

impl Context {
    /// For the thread that runs already.
    pub const fn running() -> Self {
        Context { rsp: UnsafeCell::new(0) }
    }

    /// For the last words: print where a thread that does not run was, as return addresses.
    pub fn trace(&self) {
        // SAFETY: a thread that does not run has six registers there, rbp the fifth, then the return address.
        unsafe {
            let rsp = *self.rsp.get() as *const u64;
            super::panic::follow_from(*rsp.add(4), *rsp.add(6));
        }
    }

    /// A thread that will begin with `entry(argument)` on the stack that ends at `stack_top`.
    ///
    /// # Safety
    /// The stack is mapped, at least a page, and nobody else's for as long as the thread lives.
    pub unsafe fn new(stack_top: u64, entry: extern "sysv64" fn(usize) -> !, argument: usize) -> Self {
        // As `switch_stacks` pops them; then one word, so that `entry` finds the stack as after a call.
        let words: [u64; 8] =
            [0, 0, 0, entry as usize as u64, argument as u64, 0, begin as *const () as u64, 0];
        let rsp = stack_top - size_of_val(&words) as u64;
        // SAFETY: inside the stack, by the caller.
        unsafe { (rsp as *mut [u64; 8]).write(words) };
        Context { rsp: UnsafeCell::new(rsp) }
    }
}

/// Stop here, go on there; returns when somebody switches back.
///
/// # Safety
/// `from` is the running thread's, `to` that of a thread that does not run anywhere; both stay alive until the other
/// side has taken over.
#[inline]
pub unsafe fn switch(from: &Context, to: &Context) {
    user::leave();
    // SAFETY: by the caller.
    unsafe { switch_stacks(from.rsp.get(), *to.rsp.get()) };
}

#[unsafe(naked)]
unsafe extern "sysv64" fn switch_stacks(save: *mut u64, to: u64) {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
    )
}

/// The first instructions of a thread: r12 = entry, rbp = its argument.
#[unsafe(naked)]
unsafe extern "sysv64" fn begin() {
    naked_asm!("mov rdi, rbp", "xor ebp, ebp", "call r12", "ud2")
}
