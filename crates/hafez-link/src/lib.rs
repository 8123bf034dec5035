//! The control port: what the `hafez` command and the kernel say to each other.
//!
//! ```text
//!   hafez (host) ── Start, Signal, WindowSize, StdinEnd ──────────▶ kernel
//!                ◀── Log, Explain, Started, Summary, Exit, Panic ───
//!
//!   one frame:   length: u32 LE │ kind: u8 │ payload (length − 1 bytes)
//! ```
//!
//! Only control travels here. The program's bytes have ports of their own (`hafez.tty`, `hafez.out`, `hafez.err`), so
//! they need no framing and stay binary clean, and a full pipe on one never holds up the other.
//!
//! The life of a run: the host sends one [`Start`] and nothing before it. The kernel answers with
//! `Started`, `Summary` and `Exit`, in this order, and any number of `Log` and `Explain` before the `Exit`; or with `Panic`, at
//! any point. Nothing comes after `Exit` or `Panic`. The host may send `Signal`, `WindowSize`
//! and one `StdinEnd` at any time between.
//!
//! Two rules keep it safe. Neither side trusts the other: every length, count and tag is checked before it is used, and a
//! frame must be used up to its last byte. And nothing here panics or allocates more than the bytes that have arrived can
//! justify: the far side of this port may be a guest gone wild.
//!
//! Integers are little endian. A string is a `u32` length and bytes (Linux paths and arguments are bytes, not UTF-8). A
//! list is a `u32` count and its items.

#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

mod frames;
mod message;
mod wire;

pub use frames::{FrameError, Frames, HEADER, MAX_FRAME, header};
pub use message::{
    Ending, KIND_PANIC, Level, Limit, Mount, Start, StartError, Summary, ToGuest, ToHost, WindowSize,
};
pub use wire::DecodeError;

/// Names of the virtio console ports, as both sides know them.
pub mod port {
    /// Standard input towards the guest (whatever it is outside); terminal output towards the host.
    pub const TTY: &str = "hafez.tty";
    /// Standard output, when it is not a terminal.
    pub const OUT: &str = "hafez.out";
    /// Standard error, when it is not a terminal.
    pub const ERR: &str = "hafez.err";
    /// The frames of this crate.
    pub const CTL: &str = "hafez.ctl";
}

/// The mount tag of the root directory's 9p share; `--rw` directories are `rw0`, `rw1`, …
pub const ROOT_TAG: &str = "root";
/// The virtio-blk serial number of the swap disk.
pub const SWAP_SERIAL: &str = "hafez-swap";
