//! The kernel's log: what it has said, for programs to read (`/dev/kmsg`, `syslog(2)`, `dmesg(1)`).
//!
//! ```text
//!    oldest                                   newest
//!   ┌──────┬──────┬──────────┬───┬─────────┐
//!   │ head │ text │ head     │ … │ text    │   a ring of bytes: the oldest go when there is no room for the next
//!   └──────┴──────┴──────────┴───┴─────────┘   a head: when, how grave, how long
//! ```
//!
//! Each record has a number, and a reader remembers the number of the next one; so readers do not disturb each other, and each sees that it
//! was too slow. Whoever says something needs no memory for it and waits for nobody: what comes while another CPU writes, or from within
//! an interrupt that came upon a writer, is not kept.

#![forbid(unsafe_code)]

use crate::arch::time;
use core::fmt::{self, Write};
use hafez_mm::lock::Mutex;

/// Bytes of the ring. As long as a record can be.
pub const SIZE: usize = 16 << 10;
pub const LONGEST: usize = 976;
/// Moment (nanoseconds), gravity and facility, length.
const HEAD: usize = 8 + 2 + 2;

/// Gravity: an error, a warning, a remark. And of whom: user programs are facility 1.
pub const ERROR: u16 = 3;
pub const WARNING: u16 = 4;
pub const REMARK: u16 = 6;

struct Ring {
    bytes: [u8; SIZE],
    /// Where the oldest record begins, its number, and how many bytes there are.
    begin: usize,
    first: u64,
    used: usize,
    /// The number of the record to come.
    next: u64,
}

static RING: Mutex<Ring> = Mutex::new(Ring { bytes: [0; SIZE], begin: 0, first: 0, used: 0, next: 0 });

/// A record, apart from its text.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub number: u64,
    /// Nanoseconds since reset.
    pub at: u64,
    pub gravity: u16,
    pub len: usize,
}

impl Ring {
    fn copy(&self, from: usize, to: &mut [u8]) {
        let from = from % SIZE;
        let first = to.len().min(SIZE - from);
        to[..first].copy_from_slice(&self.bytes[from..from + first]);
        let rest = to.len() - first;
        to[first..].copy_from_slice(&self.bytes[..rest]);
    }
    fn append(&mut self, bytes: &[u8]) {
        let at = (self.begin + self.used) % SIZE;
        let first = bytes.len().min(SIZE - at);
        self.bytes[at..at + first].copy_from_slice(&bytes[..first]);
        self.bytes[..bytes.len() - first].copy_from_slice(&bytes[first..]);
        self.used += bytes.len();
    }
    /// The record that begins here, `used` bytes behind the oldest.
    fn head(&self, number: u64, behind: usize) -> Record {
        let mut head = [0; HEAD];
        self.copy(self.begin + behind, &mut head);
        let [a, b, c, d, e, f, g, h, i, j, k, l] = head;
        Record {
            number,
            at: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            gravity: u16::from_ne_bytes([i, j]),
            len: u16::from_ne_bytes([k, l]) as usize,
        }
    }
    fn add(&mut self, at: u64, gravity: u16, text: &[u8]) {
        let need = HEAD + text.len();
        while SIZE - self.used < need {
            let oldest = self.head(self.first, 0);
            self.begin = (self.begin + HEAD + oldest.len) % SIZE;
            self.used -= HEAD + oldest.len;
            self.first += 1;
        }
        self.append(&at.to_ne_bytes());
        self.append(&gravity.to_ne_bytes());
        self.append(&(text.len() as u16).to_ne_bytes());
        self.append(text);
        self.next += 1;
    }
}

/// Text that fits; what is too long is cut.
struct Line {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let n = text.len().min(LONGEST - self.len);
        self.bytes[self.len..self.len + n].copy_from_slice(&text.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

/// Say something.
pub fn say(gravity: u16, text: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; LONGEST], len: 0 };
    let _ = line.write_fmt(text);
    put(gravity, &line.bytes[..line.len]);
}

/// Keep a record: what is too long of it is cut.
pub fn put(gravity: u16, text: &[u8]) {
    let text = &text[..text.len().min(LONGEST)];
    let Some(mut ring) = RING.try_lock() else { return };
    ring.add(time::now_ns(), gravity, text);
}

/// The numbers of the oldest record that is there and of the one to come.
pub fn range() -> (u64, u64) {
    let ring = RING.lock();
    (ring.first, ring.next)
}

/// The record with this number, or the oldest if that has gone: its text is put into `text`, as far as it fits. `None`: there is none yet.
pub fn get(number: u64, text: &mut [u8; LONGEST]) -> Option<Record> {
    let ring = RING.lock();
    let (mut at, mut behind) = (ring.first, 0);
    while at < ring.next {
        let record = ring.head(at, behind);
        if at >= number {
            ring.copy(ring.begin + behind + HEAD, &mut text[..record.len.min(LONGEST)]);
            return Some(record);
        }
        behind += HEAD + record.len;
        at += 1;
    }
    None
}
