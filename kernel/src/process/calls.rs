//! A system call on its way: from the number in `rax` to what serves it, and back with the answer.
//!
//! ```text
//!   rax ──▶ caller.calls[number] ──▶ a Handler ──▶ rax
//!                └─ beyond it, or empty: `otherwise` (a tracer, a filter, a number that nothing serves)
//! ```
//!
//! What serves them are the families of the room above, which hands its table in when the machine starts. A task with
//! something before its calls has an empty table: the usual way pays for none of that with so much as a branch.

use super::run::Caller;
use crate::errno::{Errno, Result};
use hafez_mm::lock::Once;

/// What serves one system call.
pub type Handler = fn(&mut Caller) -> Result<u64>;

/// What serves all of them.
pub struct Service {
    pub by_number: &'static [Handler],
    pub otherwise: Handler,
}

static SERVICE: Once<Service> = Once::new();

/// Before the first program runs.
pub fn serve_with(service: Service) {
    SERVICE.call_once(|| service);
}

fn service() -> &'static Service {
    SERVICE.get().expect("programs run after the kernel has come up")
}

/// What serves each call, where nothing stands before them.
pub fn by_number() -> &'static [Handler] {
    service().by_number
}

/// Serve the call that the caller's registers describe.
#[inline]
pub fn dispatch(caller: &mut Caller) {
    let number = caller.user.rax;
    // Linux looks at the lower half of the register only.
    let handler = match caller.calls.get(number as u32 as usize) {
        Some(handler) => *handler,
        None => otherwise,
    };
    caller.user.rax = match handler(caller) {
        Ok(value) => value,
        Err(error) => {
            if error.code() >= Errno::RESTART.code() {
                let number = caller.steps.call.unwrap_or(number);
                caller.interrupted(number, error);
            }
            error.to_rax()
        }
    };
}

#[cold]
fn otherwise(caller: &mut Caller) -> Result<u64> {
    (service().otherwise)(caller)
}
