//! Structures of the system-call interface, as the rows of 64-bit words that most of them are.
//!
//! `timespec`, `rlimit`, `itimerspec`, `rusage` hold nothing but 64-bit fields, so a call reads and writes them as
//! arrays, with no cast and no padding to leak.
#![forbid(unsafe_code)]

use crate::arch::user;
use crate::errno::{Errno, Result};

/// Read `N` words at `at`.
pub fn get<const N: usize>(at: u64) -> Result<[u64; N]> {
    let mut bytes = [[0; 8]; N];
    user::copy_from(bytes.as_flattened_mut(), at)?;
    Ok(bytes.map(u64::from_ne_bytes))
}

/// Write `N` words at `at`.
pub fn put<const N: usize>(at: u64, words: [u64; N]) -> Result<()> {
    Ok(user::copy_to(at, words.map(u64::to_ne_bytes).as_flattened())?)
}

/// A structure of mixed fields under construction, in a buffer of `N` zero bytes.
pub struct Layout<const N: usize>(pub [u8; N]);

impl<const N: usize> Layout<N> {
    pub const fn new() -> Self {
        Layout([0; N])
    }
    /// Put `bytes` at `offset`; what does not fit is cut off.
    pub fn set(&mut self, offset: usize, bytes: &[u8]) -> &mut Self {
        let room = N.saturating_sub(offset).min(bytes.len());
        self.0[N.min(offset)..][..room].copy_from_slice(&bytes[..room]);
        self
    }
    /// Copy it all to `at`.
    pub fn put(&self, at: u64) -> Result<()> {
        Ok(user::copy_to(at, &self.0)?)
    }
}

/// The nanoseconds of a `timespec`'s two words: EINVAL if they are not a time. What does not fit is for ever.
pub fn nanoseconds([sec, nsec]: [u64; 2]) -> Result<u64> {
    if sec as i64 >= 0 && nsec < 1_000_000_000 {
        Ok(sec.saturating_mul(1_000_000_000).saturating_add(nsec))
    } else {
        Err(Errno::EINVAL)
    }
}

/// The nanoseconds of a `timeval`'s two words.
pub fn from_timeval([sec, usec]: [u64; 2]) -> Result<u64> {
    if usec < 1_000_000 { nanoseconds([sec, usec * 1000]) } else { Err(Errno::EINVAL) }
}

/// The words of a `timespec`.
pub fn timespec(ns: u64) -> [u64; 2] {
    [ns / 1_000_000_000, ns % 1_000_000_000]
}

/// The words of a `timeval`.
pub fn timeval(ns: u64) -> [u64; 2] {
    [ns / 1_000_000_000, ns % 1_000_000_000 / 1000]
}
