//! One server, and what can be asked of it: each 9P2000.L call as a function.
//!
//! A [`Fid`] is our name for a file on the server; dropped, it is given back ("clunked") without waiting. Names are numbered
//! upwards and never used twice: four thousand million are enough for the life of a machine, and the server may
//! still be busy with an old one's end.
//!
//! Bulk data (file contents, directories, long link texts) travels in frames, never through the heap.

use super::wire::{ERROR_BYTES, HEADER, Message, QID_BYTES, Qid, Reply, op};
use crate::drivers::p9::{CallError, Channel, Data, FRAMES_MAX};
use crate::errno::{Errno, Result};
use crate::fs::inode::{DirEntry, Kind, SetAttr, Stat, StatFs, Time};
use crate::fs::lock::SleepLock;
use crate::fs::xattr;
use crate::mem::memory;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use hafez_mm::{PAGE_SIZE, Pfn};

/// The largest message: so many frames in one read or write, and a page for the head.
const MSIZE: u32 = ((FRAMES_MAX + 1) * PAGE_SIZE) as u32;
/// No authentication; no particular user id.
const NONE: u32 = u32::MAX;
/// The attributes that every stat(2) needs (`P9_GETATTR_BASIC`).
const ATTR_BASIC: u64 = 0x7ff;
/// Bytes of a getattr reply.
const ATTR_BYTES: usize = HEADER + 8 + QID_BYTES + 12 + 5 * 8 + 8 * 8 + 16;
/// What `st_blksize` says: the server's idea (its largest message) would make programs take buffers of that size.
const BLOCK_SIZE: u32 = PAGE_SIZE as u32;
/// The longest file name in bytes.
const NAME_MAX: usize = 255;
/// Take away a directory, not a file.
pub const AT_REMOVEDIR: u32 = 0x200;
/// Bytes of a directory's entry before its name: identity, cursor, type, length.
const ENTRY_BYTES: usize = QID_BYTES + 8 + 1 + 2;

/// A mounted server. It lives as long as the kernel.
pub struct Client {
    channel: &'static Channel,
    /// Bytes of file data in one read or write, a multiple of the page size.
    bulk: usize,
    next_fid: AtomicU32,
    bounce: Bounce,
    /// The device number of its files.
    pub dev: u64,
}

/// A name for a file on the server.
pub struct Fid {
    client: &'static Client,
    id: u32,
}

/// How reading a directory went.
#[derive(Clone, Copy, Debug)]
pub enum Listed {
    /// More may follow, from this cursor on.
    More(u64),
    End,
    /// The caller wanted no more.
    Stopped,
}

/// What the server knows of a file.
#[derive(Clone, Copy, Debug)]
pub struct Attr {
    pub qid: Qid,
    pub stat: Stat,
}

/// Frames that bulk data passes through when it is not a page of a file. They are kept, so that looking at a directory needs no
/// memory when there is none; whoever uses them holds the lock, over the call too.
struct Bounce {
    first: Pfn,
    lock: SleepLock,
}

impl Bounce {
    const ORDER: u8 = 1;
    const FRAMES: usize = 1 << Self::ORDER;
    const BYTES: usize = PAGE_SIZE << Self::ORDER;

    fn new() -> Result<Bounce> {
        Ok(Bounce { first: memory().alloc_wired(Self::ORDER)?, lock: SleepLock::new() })
    }
    fn frames(&self) -> [Pfn; Self::FRAMES] {
        core::array::from_fn(|i| self.first.add(i as u32))
    }
    /// Copy out; `None` where that is not all inside.
    fn read(&self, from: usize, out: &mut [u8]) -> Option<()> {
        if from.checked_add(out.len())? > Self::BYTES {
            return None;
        }
        let (mut at, mut rest) = (from, out);
        while !rest.is_empty() {
            let (piece, more) = rest.split_at_mut((PAGE_SIZE - at % PAGE_SIZE).min(rest.len()));
            memory().phys().read(self.first.add((at / PAGE_SIZE) as u32), at % PAGE_SIZE, piece);
            at += piece.len();
            rest = more;
        }
        Some(())
    }
    fn write(&self, bytes: &[u8]) {
        for (frame, piece) in self.frames().iter().zip(bytes.chunks(PAGE_SIZE)) {
            memory().phys().write(*frame, 0, piece);
        }
    }
}

impl Client {
    /// Agree on the protocol, and name the root.
    pub fn connect(channel: &'static Channel, dev: u64) -> Result<(Client, u32, Qid)> {
        let mut client =
            Client { channel, bulk: 0, next_fid: AtomicU32::new(0), bounce: Bounce::new()?, dev };
        let mut room = [0; 64];
        let version = b"9P2000.L";
        let mut reply = client.ask(Message::new(op::VERSION).u32(MSIZE).string(version), &mut room)?;
        let msize = reply.u32()? as usize;
        if reply.string()? != version || msize < 2 * PAGE_SIZE || msize > MSIZE as usize {
            return Err(Errno::EPROTO);
        }
        client.bulk = (msize - PAGE_SIZE / 2) / PAGE_SIZE * PAGE_SIZE;
        let id = client.new_id();
        let attach = Message::new(op::ATTACH).u32(id).u32(NONE).string(b"").string(b"").u32(NONE);
        let qid = client.ask(attach, &mut room)?.qid()?;
        Ok((client, id, qid))
    }

    fn new_id(&self) -> u32 {
        self.next_fid.fetch_add(1, Relaxed)
    }

    /// A request without bulk data.
    fn ask<'r>(&self, message: Message, room: &'r mut [u8]) -> Result<Reply<'r>> {
        self.request(message, Data::None, room, true).map(|(reply, _)| reply)
    }

    /// A request; the reply, and the bytes of it that went into frames. Only what asks and changes nothing may be
    /// interruptible.
    fn request<'r>(
        &self,
        mut message: Message,
        data: Data<'_>,
        room: &'r mut [u8],
        interruptible: bool,
    ) -> Result<(Reply<'r>, usize)> {
        let bulk = if let Data::Out { bytes, .. } = data { bytes } else { 0 };
        debug_assert!(room.len() >= ERROR_BYTES);
        let whole =
            self.channel.call(message.finish(bulk)?, data, room, interruptible).map_err(|e| match e {
                CallError::Interrupted => Errno::RESTART_NOINTR,
                CallError::Broken => Errno::EIO,
                CallError::TooLong => Errno::EIO,
            })?;
        let in_frames = whole.saturating_sub(room.len());
        Ok((Reply::parse(message.kind(), room, whole)?, in_frames))
    }
}

/// For messages that change something: an answer is always waited for.
macro_rules! command {
    ($client:expr, $message:expr, $room:expr) => {
        $client.request($message, Data::None, $room, false).map(|(reply, _)| reply)
    };
}

impl Fid {
    /// Take charge of a name that the server knows.
    pub fn from_raw(client: &'static Client, id: u32) -> Fid {
        Fid { client, id }
    }

    /// The file of this name in this directory.
    pub fn walk(&self, name: &[u8]) -> Result<(Fid, Qid)> {
        let id = self.client.new_id();
        let mut room = [0; HEADER + 2 + QID_BYTES];
        let message = Message::new(op::WALK).u32(self.id).u32(id).u16(1).string(name);
        let mut reply = self.client.ask(message, &mut room)?;
        if reply.u16()? != 1 {
            return Err(Errno::ENOENT);
        }
        let fid = Fid { client: self.client, id };
        Ok((fid, reply.qid()?))
    }

    /// Another name for the same file, not open.
    pub fn twin(&self) -> Result<Fid> {
        let id = self.client.new_id();
        let mut room = [0; ERROR_BYTES];
        self.client.ask(Message::new(op::WALK).u32(self.id).u32(id).u16(0), &mut room)?;
        Ok(Fid { client: self.client, id })
    }

    /// Open the file. Its identity as of now.
    pub fn open(&self, flags: u32) -> Result<Qid> {
        let mut room = [0; HEADER + QID_BYTES + 4];
        self.client.ask(Message::new(op::LOPEN).u32(self.id).u32(flags), &mut room)?.qid()
    }

    /// Make a file in this directory and open it: afterwards this is a name of the new file.
    pub fn create(&self, name: &[u8], flags: u32, mode: u32, gid: u32) -> Result<Qid> {
        let mut room = [0; HEADER + QID_BYTES + 4];
        let message = Message::new(op::LCREATE).u32(self.id).string(name).u32(flags).u32(mode).u32(gid);
        command!(self.client, message, &mut room)?.qid()
    }

    pub fn mkdir(&self, name: &[u8], mode: u32, gid: u32) -> Result<Qid> {
        let mut room = [0; HEADER + QID_BYTES];
        let message = Message::new(op::MKDIR).u32(self.id).string(name).u32(mode).u32(gid);
        command!(self.client, message, &mut room)?.qid()
    }

    /// Make a FIFO, socket or device; `mode` says which.
    pub fn mknod(&self, name: &[u8], mode: u32, rdev: u64, gid: u32) -> Result<Qid> {
        let mut room = [0; HEADER + QID_BYTES];
        // Linux's encoding of device numbers in 64 bits.
        let major = (rdev >> 8 & 0xfff | rdev >> 32 & !0xfff) as u32;
        let minor = (rdev & 0xff | rdev >> 12 & !0xff) as u32;
        let message = Message::new(op::MKNOD).u32(self.id).string(name).u32(mode).u32(major).u32(minor);
        command!(self.client, message.u32(gid), &mut room)?.qid()
    }

    pub fn symlink(&self, name: &[u8], target: &[u8], gid: u32) -> Result<Qid> {
        let mut room = [0; HEADER + QID_BYTES];
        // A target can be longer than a message's fixed part: it and the field behind it go as bulk data.
        let len = u16::try_from(target.len()).ok().filter(|n| (*n as usize) < PAGE_SIZE);
        let len = len.ok_or(Errno::ENAMETOOLONG)?;
        let mut tail = Vec::with_capacity(target.len() + 4);
        tail.extend_from_slice(target);
        tail.extend_from_slice(&gid.to_le_bytes());
        let bounce = &self.client.bounce;
        let _mine = bounce.lock.lock();
        bounce.write(&tail);
        let message = Message::new(op::SYMLINK).u32(self.id).string(name).u16(len);
        let data = Data::Out { frames: &bounce.frames(), bytes: tail.len() };
        self.client.request(message, data, &mut room, false)?.0.qid()
    }

    /// A second name in this directory for `target`.
    pub fn link(&self, name: &[u8], target: &Fid) -> Result<()> {
        let mut room = [0; ERROR_BYTES];
        let message = Message::new(op::LINK).u32(self.id).u32(target.id).string(name);
        command!(self.client, message, &mut room).map(|_| ())
    }

    /// Take a name away; with [`AT_REMOVEDIR`], that of an empty directory.
    pub fn unlink(&self, name: &[u8], flags: u32) -> Result<()> {
        let mut room = [0; ERROR_BYTES];
        let message = Message::new(op::UNLINKAT).u32(self.id).string(name).u32(flags);
        command!(self.client, message, &mut room).map(|_| ())
    }

    pub fn rename(&self, name: &[u8], to: &Fid, to_name: &[u8]) -> Result<()> {
        let mut room = [0; ERROR_BYTES];
        let message = Message::new(op::RENAMEAT).u32(self.id).string(name).u32(to.id).string(to_name);
        command!(self.client, message, &mut room).map(|_| ())
    }

    pub fn attr(&self) -> Result<Attr> {
        let mut room = [0; ATTR_BYTES];
        let mut r = self.client.ask(Message::new(op::GETATTR).u32(self.id).u64(ATTR_BASIC), &mut room)?;
        let _valid = r.u64()?;
        let qid = r.qid()?;
        let (mode, uid, gid) = (r.u32()?, r.u32()?, r.u32()?);
        let (nlink, rdev, size, _blksize, blocks) = (r.u64()?, r.u64()?, r.u64()?, r.u64()?, r.u64()?);
        let (atime, mtime, ctime) = (time(&mut r)?, time(&mut r)?, time(&mut r)?);
        let stat = Stat {
            dev: self.client.dev,
            ino: qid.path,
            mode,
            nlink: nlink.min(u32::MAX as u64) as u32,
            uid,
            gid,
            rdev,
            size: size.min(i64::MAX as u64),
            blocks,
            blksize: BLOCK_SIZE,
            atime,
            mtime,
            ctime,
            btime: None,
        };
        Ok(Attr { qid, stat })
    }

    pub fn set_attr(&self, set: &SetAttr) -> Result<()> {
        let mut valid = 0;
        let mut given = |bits: u32, is: bool| valid |= if is { bits } else { 0 };
        given(1, set.mode.is_some());
        given(2, set.uid.is_some());
        given(4, set.gid.is_some());
        given(8, set.size.is_some());
        given(0x10 | 0x80, set.atime.is_some());
        given(0x20 | 0x100, set.mtime.is_some());
        let (atime, mtime) = (set.atime.unwrap_or_default(), set.mtime.unwrap_or_default());
        let message = Message::new(op::SETATTR)
            .u32(self.id)
            .u32(valid)
            .u32(set.mode.unwrap_or(0))
            .u32(set.uid.unwrap_or(0))
            .u32(set.gid.unwrap_or(0))
            .u64(set.size.unwrap_or(0))
            .u64(atime.sec as u64)
            .u64(atime.nsec as u64)
            .u64(mtime.sec as u64)
            .u64(mtime.nsec as u64);
        let mut room = [0; ERROR_BYTES];
        command!(self.client, message, &mut room).map(|_| ())
    }

    pub fn statfs(&self) -> Result<StatFs> {
        let mut room = [0; HEADER + 4 + 4 + 6 * 8 + 4];
        let mut r = self.client.ask(Message::new(op::STATFS).u32(self.id), &mut room)?;
        let (magic, block_size) = (r.u32()? as u64, r.u32()? as u64);
        let (blocks, blocks_free, blocks_available) = (r.u64()?, r.u64()?, r.u64()?);
        let (files, files_free, _fsid, name_max) = (r.u64()?, r.u64()?, r.u64()?, r.u32()? as u64);
        // The server counts in messages; programs expect blocks.
        let page = PAGE_SIZE as u64;
        let many = if block_size.is_multiple_of(page) { (block_size / page).max(1) } else { 1 };
        let block_size = block_size / many;
        let [blocks, blocks_free, blocks_available] =
            [blocks, blocks_free, blocks_available].map(|n| n.saturating_mul(many));
        Ok(StatFs { magic, block_size, blocks, blocks_free, blocks_available, files, files_free, name_max })
    }

    pub fn fsync(&self, data_only: bool) -> Result<()> {
        let mut room = [0; ERROR_BYTES];
        let message = Message::new(op::FSYNC).u32(self.id).u32(data_only as u32);
        command!(self.client, message, &mut room).map(|_| ())
    }

    pub fn readlink(&self) -> Result<Vec<u8>> {
        // The fixed part must be able to hold an error, so the text's first two bytes come with it.
        let mut room = [0; ERROR_BYTES];
        let bounce = &self.client.bounce;
        let _mine = bounce.lock.lock();
        let data = Data::In { frames: &bounce.frames(), bytes: Bounce::BYTES };
        let message = Message::new(op::READLINK).u32(self.id);
        let (mut reply, came) = self.client.request(message, data, &mut room, true)?;
        let len = reply.u16()? as usize;
        let begin = reply.bytes(len.min(2))?;
        let rest = len - begin.len();
        if rest > came || len > PAGE_SIZE {
            return Err(Errno::EIO);
        }
        let mut text = crate::mem::zeroed(len)?;
        text[..begin.len()].copy_from_slice(begin);
        bounce.read(0, &mut text[begin.len()..]).ok_or(Errno::EIO)?;
        Ok(text)
    }

    /// The value of an extended attribute; without a name: the list of all names.
    pub fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        let id = self.client.new_id();
        let mut room = [0; HEADER + 8];
        let message = Message::new(op::XATTRWALK).u32(self.id).u32(id).string(name);
        let size = self.client.ask(message, &mut room)?.u64()?;
        let fid = Fid { client: self.client, id };
        let size = usize::try_from(size).ok().filter(|n| *n <= xattr::SIZE_MAX).ok_or(Errno::E2BIG)?;
        let mut value = Vec::new();
        value.try_reserve_exact(size).map_err(|_| Errno::ENOMEM)?;
        value.resize(size, 0);
        let bounce = &self.client.bounce;
        let _mine = bounce.lock.lock();
        let mut done = 0;
        while done < size {
            let got = fid.read_frames(done as u64, &bounce.frames())?.min(size - done);
            if got == 0 {
                return Err(Errno::EIO);
            }
            bounce.read(0, &mut value[done..done + got]).ok_or(Errno::EIO)?;
            done += got;
        }
        Ok(value)
    }

    /// Set an extended attribute; without a value, take it away.
    pub fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        let fid = self.twin()?;
        let mut room = [0; ERROR_BYTES];
        let message =
            Message::new(op::XATTRCREATE).u32(fid.id).string(name).u64(value.len() as u64).u32(flags);
        command!(self.client, message, &mut room)?;
        let bounce = &self.client.bounce;
        {
            let _mine = bounce.lock.lock();
            let mut done = 0;
            while done < value.len() {
                let piece = &value[done..value.len().min(done + Bounce::BYTES)];
                bounce.write(piece);
                match fid.write_frames(done as u64, &bounce.frames(), piece.len())? {
                    0 => return Err(Errno::EIO),
                    n => done += n,
                }
            }
        }
        fid.close()
    }

    /// Give the name back, and hear how that went: for an attribute, that is when it is set.
    fn close(self) -> Result<()> {
        let fid = core::mem::ManuallyDrop::new(self);
        let mut room = [0; ERROR_BYTES];
        command!(fid.client, Message::new(op::CLUNK).u32(fid.id), &mut room).map(|_| ())
    }

    /// The next entries of this open directory, from the cursor on. `emit` says `false` when it wants no more.
    pub fn read_dir(&self, cursor: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<Listed> {
        let mut room = [0; ERROR_BYTES];
        let bounce = &self.client.bounce;
        let _mine = bounce.lock.lock();
        let data = Data::In { frames: &bounce.frames(), bytes: Bounce::BYTES };
        let message = Message::new(op::READDIR).u32(self.id).u64(cursor).u32(Bounce::BYTES as u32);
        let (mut reply, came) = self.client.request(message, data, &mut room, true)?;
        let len = reply.u32()? as usize;
        if len > came {
            return Err(Errno::EIO);
        }
        let (mut at, mut listed) = (0, Listed::End);
        while at < len {
            let (mut head, mut name) = ([0; ENTRY_BYTES], [0; NAME_MAX]);
            bounce.read(at, &mut head).ok_or(Errno::EIO)?;
            let mut fields = Reply::of_fields(&head);
            let (qid, next, d_type) = (fields.qid()?, fields.u64()?, fields.u8()?);
            let name = name.get_mut(..fields.u16()? as usize).ok_or(Errno::EIO)?;
            bounce.read(at + ENTRY_BYTES, name).ok_or(Errno::EIO)?;
            at += ENTRY_BYTES + name.len();
            if at > len || name.is_empty() || name.iter().any(|b| matches!(b, 0 | b'/')) {
                return Err(Errno::EIO);
            }
            if !emit(&DirEntry { name, ino: qid.path, kind: Kind::from_d_type(d_type), next }) {
                return Ok(Listed::Stopped);
            }
            listed = Listed::More(next);
        }
        Ok(listed)
    }

    /// Read into frames from the byte `offset` on, as much as one message carries: how many bytes came.
    pub fn read_frames(&self, offset: u64, frames: &[Pfn]) -> Result<usize> {
        let frames = self.fit(frames);
        let bytes = frames.len() * PAGE_SIZE;
        let mut room = [0; ERROR_BYTES];
        let message = Message::new(op::READ).u32(self.id).u64(offset).u32(bytes as u32);
        let data = Data::In { frames, bytes };
        let (mut reply, came) = self.client.request(message, data, &mut room, false)?;
        let count = reply.u32()? as usize;
        if count > came.min(bytes) { Err(Errno::EIO) } else { Ok(count) }
    }

    /// Write the first `bytes` of the frames to the byte `offset`, as much as one message carries: how many went.
    pub fn write_frames(&self, offset: u64, frames: &[Pfn], bytes: usize) -> Result<usize> {
        let frames = self.fit(frames);
        let bytes = bytes.min(frames.len() * PAGE_SIZE);
        let mut room = [0; ERROR_BYTES];
        let message = Message::new(op::WRITE).u32(self.id).u64(offset).u32(bytes as u32);
        let data = Data::Out { frames, bytes };
        let (mut reply, _) = self.client.request(message, data, &mut room, false)?;
        let count = reply.u32()? as usize;
        if count > bytes { Err(Errno::EIO) } else { Ok(count) }
    }

    /// As many of the frames as one message takes.
    fn fit<'a>(&self, frames: &'a [Pfn]) -> &'a [Pfn] {
        &frames[..frames.len().min(self.client.bulk / PAGE_SIZE).min(FRAMES_MAX)]
    }
}

impl Drop for Fid {
    fn drop(&mut self) {
        if let Ok(message) = Message::new(op::CLUNK).u32(self.id).finish(0) {
            self.client.channel.cast(message);
        }
    }
}

fn time(reply: &mut Reply<'_>) -> Result<Time> {
    let (sec, nsec) = (reply.u64()? as i64, reply.u64()?);
    Ok(Time { sec, nsec: (nsec % 1_000_000_000) as u32 })
}
