//! 9P2000.L messages: making requests, reading replies.
//!
//! ```text
//!   size: u32 │ type: u8 │ tag: u16 │ fields …            strings: u16 length and bytes; integers little endian
//! ```
//!
//! A reply's type is its request's plus one, or [`LERROR`] with a Linux error number. The server is not
//! trusted: whatever does not parse to the byte is `EIO`. Source: the protocol's description in diod's `protocol.md`, and
//! Plan 9's `intro(5)`.

use crate::drivers::p9::REQUEST_MAX;
use crate::errno::{Errno, Result};
use arrayvec::ArrayVec;

/// Message types, of requests.
pub mod op {
    pub const STATFS: u8 = 8;
    pub const LOPEN: u8 = 12;
    pub const LCREATE: u8 = 14;
    pub const SYMLINK: u8 = 16;
    pub const MKNOD: u8 = 18;
    pub const READLINK: u8 = 22;
    pub const GETATTR: u8 = 24;
    pub const SETATTR: u8 = 26;
    pub const XATTRWALK: u8 = 30;
    pub const XATTRCREATE: u8 = 32;
    pub const READDIR: u8 = 40;
    pub const FSYNC: u8 = 50;
    pub const LINK: u8 = 70;
    pub const MKDIR: u8 = 72;
    pub const RENAMEAT: u8 = 74;
    pub const UNLINKAT: u8 = 76;
    pub const VERSION: u8 = 100;
    pub const ATTACH: u8 = 104;
    pub const WALK: u8 = 110;
    pub const READ: u8 = 116;
    pub const WRITE: u8 = 118;
    pub const CLUNK: u8 = 120;
}
/// The reply that carries an error.
pub const LERROR: u8 = 7;
/// Bytes before the fields.
pub const HEADER: usize = 7;
/// Bytes of an error reply, and so the least room for any.
pub const ERROR_BYTES: usize = HEADER + 4;
/// Bytes of a file's identity.
pub const QID_BYTES: usize = 13;

/// A request in the making.
pub struct Message {
    bytes: ArrayVec<u8, REQUEST_MAX>,
    too_long: bool,
}

impl Message {
    pub fn new(kind: u8) -> Message {
        let mut message = Message { bytes: ArrayVec::new(), too_long: false };
        // The transport fills the tag in.
        message.put(&[0, 0, 0, 0, kind, 0, 0]);
        message
    }

    fn put(&mut self, bytes: &[u8]) {
        self.too_long |= self.bytes.try_extend_from_slice(bytes).is_err();
    }
    pub fn u16(mut self, value: u16) -> Self {
        self.put(&value.to_le_bytes());
        self
    }
    pub fn u32(mut self, value: u32) -> Self {
        self.put(&value.to_le_bytes());
        self
    }
    pub fn u64(mut self, value: u64) -> Self {
        self.put(&value.to_le_bytes());
        self
    }
    pub fn string(mut self, text: &[u8]) -> Self {
        self.too_long |= text.len() > u16::MAX as usize;
        self.put(&(text.len() as u16).to_le_bytes());
        self.put(text);
        self
    }

    /// What this request is.
    pub fn kind(&self) -> u8 {
        self.bytes[4]
    }

    /// The message, with `bulk` bytes of data to follow.
    pub fn finish(&mut self, bulk: usize) -> Result<&[u8]> {
        let size = u32::try_from(self.bytes.len() + bulk).map_err(|_| Errno::ENAMETOOLONG)?;
        if self.too_long {
            return Err(Errno::ENAMETOOLONG);
        }
        self.bytes[..4].copy_from_slice(&size.to_le_bytes());
        Ok(&self.bytes)
    }
}

/// A file's identity on the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Qid {
    /// [`Qid::DIR`], [`Qid::LINK`] or neither.
    pub kind: u8,
    /// Changes with the file's contents.
    pub version: u32,
    /// Unique among the files of the server.
    pub path: u64,
}

impl Qid {
    pub const DIR: u8 = 0x80;
    pub const LINK: u8 = 0x02;
}

/// The fields of a reply, read one after the other.
pub struct Reply<'a> {
    rest: &'a [u8],
}

impl<'a> Reply<'a> {
    /// The fields of `bytes`, if they are the reply to `request`; `whole` is how long the server says it is, with bulk data.
    pub fn parse(request: u8, bytes: &'a [u8], whole: usize) -> Result<Reply<'a>> {
        let mut reply = Reply { rest: &bytes[..bytes.len().min(whole)] };
        let _size = reply.u32()?;
        let kind = reply.u8()?;
        let _tag = reply.u16()?;
        match kind {
            LERROR => Err(Errno::from_code(reply.u32()?)),
            k if k == request + 1 => Ok(reply),
            _ => Err(Errno::EIO),
        }
    }

    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(Errno::EIO)?;
        self.rest = rest;
        Ok(head)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Errno::EIO)?;
        self.rest = rest;
        Ok(*head)
    }
    pub fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    pub fn string(&mut self) -> Result<&'a [u8]> {
        let len = self.u16()?;
        self.bytes(len as usize)
    }
    pub fn qid(&mut self) -> Result<Qid> {
        Ok(Qid { kind: self.u8()?, version: self.u32()?, path: self.u64()? })
    }
    /// Fields in bytes that are no message, as a directory's entries are.
    pub fn of_fields(bytes: &'a [u8]) -> Reply<'a> {
        Reply { rest: bytes }
    }
}
