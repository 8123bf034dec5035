//! What a thread that sleeps in the core waits for: the keys of [`Platform::wait`](crate::Platform::wait).
//!
//! ```text
//!   a frame's number        the page in it, which is on its way in or out
//!   REQUEST                 a request to the swap disk: an answer, or room for one more
//!   FREED                   frames, by who has none; and whatever may lead to some: a write that ended, a process that went
//!   WANTED                  work, by `kreclaim`
//!   WRITING + an object     the right to write that object's pages back
//! ```
//!
//! A key only says whom to wake. What is true by then each looks up again himself, so one key for several things costs a
//! look, not an error.

pub const REQUEST: usize = 1 << 40;
pub const FREED: usize = 1 << 41;
pub const WANTED: usize = 1 << 42;
/// Beside it, the object's number.
pub const WRITING: usize = 1 << 43;
