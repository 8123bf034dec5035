//! What the tests that boot the machine, and the demo, share: running a program inside and outside, and real text to feed it.
#![forbid(unsafe_code)]

pub mod battery;
pub mod calls;
pub mod run;
pub mod text;

pub use run::{Hafez, Outcome, Scratch, guest, host};
