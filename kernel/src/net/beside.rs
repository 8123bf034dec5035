//! What goes beside the bytes of a message: `cmsg(3)`.
//!
//! ```text
//!   struct cmsghdr  len 0 (itself included), level 8, type 12, data 16; padded to 8
//! ```
//!
//! A program's list comes as bytes, and is hostile: [`Each`] takes it apart and says EINVAL where it ends in the middle of a
//! message. What the program is told is a list of [`Note`]s, in the order in which Linux tells them.

use super::{Common, Incoming, abi};
use crate::{
    clock,
    errno::{Errno, Result},
    mem::TryPush,
};
use alloc::vec::Vec;

/// Bytes of `struct cmsghdr`.
pub const HEAD: usize = 16;

/// One message of a list that a program gave.
pub struct Told<'a> {
    pub level: u32,
    pub kind: u32,
    pub data: &'a [u8],
}

impl Told<'_> {
    /// Its value as an `int`; EINVAL if it is of another size.
    pub fn int(&self) -> Result<i32> {
        self.data.try_into().map(i32::from_ne_bytes).map_err(|_| Errno::EINVAL)
    }
}

/// See the module.
pub struct Each<'a>(pub &'a [u8]);

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl<'a> Iterator for Each<'a> {
    type Item = Result<Told<'a>>;
    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0;
        let len = usize::from_ne_bytes(rest.get(..8)?.try_into().ok()?);
        if rest.len() < HEAD {
            return None;
        }
        if len < HEAD || len > rest.len() {
            self.0 = &[];
            return Some(Err(Errno::EINVAL));
        }
        self.0 = &rest[len.next_multiple_of(8).min(rest.len())..];
        Some(Ok(Told { level: word(rest, 8), kind: word(rest, 12), data: &rest[HEAD..len] }))
    }
}

/// What a socket that is not Unix takes beside the bytes at the level of all sockets: what is not for it is left alone.
pub fn of_any_socket(told: &Told<'_>, common: &Common) -> Result<()> {
    match told.kind {
        abi::SO_TXTIME if common.has_send_time() && told.data.len() == 8 => Ok(()),
        abi::SCM_RIGHTS | abi::SCM_CREDENTIALS => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

/// A list that says nothing to a protocol without messages of its own.
pub fn ignore(list: &[u8], common: &Common) -> Result<()> {
    for told in Each(list) {
        let told = told?;
        if told.level == abi::SOL_SOCKET {
            of_any_socket(&told, common)?;
        }
    }
    Ok(())
}

/// What the program is told.
pub struct Note {
    pub level: u32,
    pub kind: u32,
    pub data: Vec<u8>,
}

impl Incoming {
    /// One more note. Where there is no room for it the list counts as cut.
    pub fn note(&mut self, level: u32, kind: u32, data: &[u8]) {
        let mut copy = Vec::new();
        let room = copy.try_reserve_exact(data.len()).is_ok();
        copy.extend_from_slice(if room { data } else { &[] });
        if !room || self.notes.try_push(Note { level, kind, data: copy }).is_err() {
            self.told |= abi::MSG_CTRUNC;
        }
    }

    /// When it came, if the program wants to know (SO_TIMESTAMP and its kin): what came before it wanted to came now.
    pub fn stamp(&mut self, common: &Common) {
        if self.at != 0 && common.tells_stamps() {
            let time = [(self.at / clock::SECOND).to_ne_bytes(), (self.at % clock::SECOND).to_ne_bytes()];
            // Behind it the two of the card, which makes none.
            let all = [time.concat(), [0; 32].to_vec()].concat();
            self.note(abi::SOL_SOCKET, abi::SO_TIMESTAMPING_OLD, &all);
        }
        let wish = common.stamp();
        if wish == 0 {
            return;
        }
        let at = if self.at == 0 { clock::realtime() } else { self.at };
        let parts = abi::is_nanoseconds(wish);
        let fraction = at % clock::SECOND / if parts { 1 } else { 1000 };
        let time = [(at / clock::SECOND).to_ne_bytes(), fraction.to_ne_bytes()].concat();
        self.note(abi::SOL_SOCKET, wish, &time);
    }
}
