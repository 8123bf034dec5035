//! The machine, as the rest of the kernel sees it. Everything above names `arch::…`; only this room knows which
//! processor it is.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::*;
