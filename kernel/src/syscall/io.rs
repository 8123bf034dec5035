//! Reading and writing: `read`, `write` and their vector and positioned forms, `lseek`, `copy_file_range`.

use super::Calls;
use super::at::{self, check_flags};
use super::user;
use crate::arch;
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::fs::file::How;
use crate::fs::iobuf::{self, Segment, Sink, Source};
use crate::fs::{File, Kind, SetAttr, inotify};
use crate::process::run::Caller;
use crate::process::signal::{self, SigInfo};
use alloc::sync::Arc;
use arrayvec::ArrayVec;
use linux_raw_sys::general as abi;

pub const CALLS: &Calls = &[
    (abi::__NR_read, read),
    (abi::__NR_write, write),
    (abi::__NR_readv, readv),
    (abi::__NR_writev, writev),
    (abi::__NR_pread64, pread64),
    (abi::__NR_pwrite64, pwrite64),
    (abi::__NR_preadv, preadv),
    (abi::__NR_pwritev, pwritev),
    (abi::__NR_preadv2, preadv2),
    (abi::__NR_pwritev2, pwritev2),
    (abi::__NR_lseek, lseek),
    (abi::__NR_copy_file_range, copy_file_range),
];

/// The most that one call moves, as on Linux: whole pages below 2 GiB.
pub const MAX_TRANSFER: usize = 0x7fff_f000;
/// Most segments of a vector (UIO_MAXIOV).
const MAX_SEGMENTS: usize = 1024;
/// Vectors up to this long need no heap.
const FEW: usize = 8;
/// Bytes that go through the kernel at a time from file to file.
const COPY_CHUNK: usize = 32 * 1024;
/// After so many bytes others may run: as many as one likes can be asked for.
const LET_OTHERS: usize = 32 * COPY_CHUNK;

/// A range of the program's memory; `EFAULT` at once if it cannot be one.
#[inline]
fn segment(at: u64, len: u64) -> Result<Segment> {
    let len = len as usize;
    if len > 0 && !arch::user::in_user_half(at, len) {
        return Err(Errno::EFAULT);
    }
    Ok(Segment { at, len })
}

/// A vector of them.
pub enum Segments {
    Few(ArrayVec<Segment, FEW>),
    Many(alloc::vec::Vec<Segment>),
}

impl Segments {
    pub fn read(at: u64, count: u64) -> Result<Segments> {
        let count = usize::try_from(count).ok().filter(|n| *n <= MAX_SEGMENTS).ok_or(Errno::EINVAL)?;
        let one = |i: usize| {
            let at = at.wrapping_add(16 * i as u64);
            let len = user::read_u64(at.wrapping_add(8))?;
            if (len as i64) < 0 {
                return Err(Errno::EINVAL);
            }
            segment(user::read_u64(at)?, len)
        };
        if count <= FEW {
            return Ok(Segments::Few((0..count).map(one).collect::<Result<_>>()?));
        }
        Ok(Segments::Many((0..count).map(one).collect::<Result<_>>()?))
    }
    /// A vector of one.
    pub fn one(at: u64, len: u64) -> Result<Segments> {
        Ok(Segments::Few(core::iter::once(segment(at, len)?).collect()))
    }
    pub fn as_slice(&self) -> &[Segment] {
        match self {
            Segments::Few(s) => s,
            Segments::Many(s) => s,
        }
    }
}

/// What the file's flags, the call's flags and the limits say about a transfer.
pub fn how(caller: &Caller, file: &File) -> How {
    How { size_limit: caller.task.process.limits.soft(abi::RLIMIT_FSIZE), ..file.how() }
}

/// Tell the program by signal what it must not miss: a pipe without readers, a file that may not grow.
#[inline]
pub fn warn(caller: &Caller, result: Result<usize>, file: &File) -> Result<u64> {
    if let Err(Errno::EPIPE | Errno::EFBIG) = result {
        warn_by_signal(caller, result, file);
    }
    result.map(|n| n as u64)
}

#[cold]
fn warn_by_signal(caller: &Caller, result: Result<usize>, file: &File) {
    let signo = match result {
        Err(Errno::EPIPE) => abi::SIGPIPE,
        // Where the limit is not what stopped it, it is the file system.
        _ if file.kind() == Kind::File && how(caller, file).size_limit <= i64::MAX as u64 => abi::SIGXFSZ,
        _ => return,
    };
    let me = &caller.task;
    let _ = signal::to_task(me, SigInfo::user(signo, 0, me.process.pid, me.cred().uid));
}

#[inline(always)]
fn read_into(caller: &Caller, fd: u64, segments: &[Segment], at: Option<u64>) -> Result<u64> {
    let file = at::file(caller, fd)?;
    let limit = iobuf::total(segments).min(MAX_TRANSFER);
    Ok(file.read(at, &mut Sink::user(segments, limit))? as u64)
}

#[inline(always)]
fn write_from(caller: &Caller, fd: u64, segments: &[Segment], at: Option<u64>) -> Result<u64> {
    let file = at::file(caller, fd)?;
    if file.first_write() {
        keep_no_privileges(caller, &file)?;
    }
    let limit = iobuf::total(segments).min(MAX_TRANSFER);
    let mut source = Source::user(segments, limit);
    let result = file.write_how(at, &mut source, how(caller, &file), file.is_append());
    warn(caller, result, &file)
}

/// A program that somebody else than root has changed no longer runs as its owner.
#[cold]
pub fn keep_no_privileges(caller: &Caller, file: &File) -> Result<()> {
    if file.kind() != Kind::File || !file.mode().write || caller.task.cred().may(cap::FSETID) {
        return Ok(());
    }
    let mode = crate::fs::names::without_suid(&file.stat()?);
    if mode.is_some() {
        file.inode().setattr(&SetAttr { mode, ..SetAttr::default() })?;
    }
    Ok(())
}

/// A file offset: negative is `EINVAL`.
pub fn position(raw: u64) -> Result<Option<u64>> {
    if (raw as i64) < 0 { Err(Errno::EINVAL) } else { Ok(Some(raw)) }
}

fn read(caller: &mut Caller) -> Result<u64> {
    let [fd, at, len, ..] = caller.args();
    let one = checked(caller, fd, at, len)?;
    read_into(caller, fd, &[one], None)
}

fn write(caller: &mut Caller) -> Result<u64> {
    let [fd, at, len, ..] = caller.args();
    let one = checked(caller, fd, at, len)?;
    write_from(caller, fd, &[one], None)
}

/// The one segment of a call; a bad descriptor counts before a bad address.
#[inline(always)]
fn checked(caller: &Caller, fd: u64, at: u64, len: u64) -> Result<Segment> {
    segment(at, len).or_else(|e| at::file(caller, fd).and(Err(e)))
}

/// Where a transfer of so many bytes begins: EINVAL if there is no such position, or it would end where there is none.
fn position_for(raw: u64, len: u64) -> Result<Option<u64>> {
    let at = position(raw)?;
    if (raw as i64).checked_add_unsigned(len.min(MAX_TRANSFER as u64)).is_none() {
        return Err(Errno::EINVAL);
    }
    Ok(at)
}

fn pread64(caller: &mut Caller) -> Result<u64> {
    let [fd, at, len, offset, ..] = caller.args();
    let offset = position_for(offset, len)?;
    let one = checked(caller, fd, at, len)?;
    read_into(caller, fd, &[one], offset)
}

fn pwrite64(caller: &mut Caller) -> Result<u64> {
    let [fd, at, len, offset, ..] = caller.args();
    let offset = position_for(offset, len)?;
    let one = checked(caller, fd, at, len)?;
    write_from(caller, fd, &[one], offset)
}

fn readv(caller: &mut Caller) -> Result<u64> {
    let [fd, at, count, ..] = caller.args();
    at::file(caller, fd)?;
    read_into(caller, fd, Segments::read(at, count)?.as_slice(), None)
}

fn writev(caller: &mut Caller) -> Result<u64> {
    let [fd, at, count, ..] = caller.args();
    if !at::file(caller, fd)?.mode().write {
        return Err(Errno::EBADF);
    }
    write_from(caller, fd, Segments::read(at, count)?.as_slice(), None)
}

fn preadv(caller: &mut Caller) -> Result<u64> {
    let [fd, at, count, offset, ..] = caller.args();
    let offset = position(offset)?;
    at::file(caller, fd)?;
    read_into(caller, fd, Segments::read(at, count)?.as_slice(), offset)
}

fn pwritev(caller: &mut Caller) -> Result<u64> {
    let [fd, at, count, offset, ..] = caller.args();
    let offset = position(offset)?;
    at::file(caller, fd)?;
    write_from(caller, fd, Segments::read(at, count)?.as_slice(), offset)
}

/// `RWF_*`: which of them the file can do.
pub fn way(caller: &Caller, file: &File, flags: u64) -> Result<(How, bool)> {
    let known = abi::RWF_HIPRI | abi::RWF_DSYNC | abi::RWF_SYNC | abi::RWF_NOWAIT | abi::RWF_APPEND;
    let flags = flags as u32;
    if flags & !known != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut way = how(caller, file);
    if flags & abi::RWF_NOWAIT != 0 {
        // Whether a page of a file is there is not known beforehand.
        if file.ops().seekable() && file.kind() != Kind::Char {
            return Err(Errno::EOPNOTSUPP);
        }
        way.nonblock = true;
    }
    Ok((way, file.is_append() || flags & abi::RWF_APPEND != 0))
}

/// ESPIPE for a position in what has none.
fn can_at(file: &File, at: Option<u64>) -> Result<()> {
    if at.is_some() && !file.ops().seekable() { Err(Errno::ESPIPE) } else { Ok(()) }
}

/// An offset, or -1 for the file's own.
fn position_or_own(raw: u64) -> Result<Option<u64>> {
    if raw as i64 == -1 { Ok(None) } else { position(raw) }
}

fn preadv2(caller: &mut Caller) -> Result<u64> {
    let [fd, at, count, offset, _, flags] = caller.args();
    let offset = position_or_own(offset)?;
    let file = at::file(caller, fd)?;
    can_at(&file, offset)?;
    let segments = Segments::read(at, count)?;
    if !file.mode().read {
        return Err(Errno::EBADF);
    }
    let (how, _) = way(caller, &file, flags)?;
    let limit = iobuf::total(segments.as_slice()).min(MAX_TRANSFER);
    Ok(file.read_how(offset, &mut Sink::user(segments.as_slice(), limit), how)? as u64)
}

fn pwritev2(caller: &mut Caller) -> Result<u64> {
    let [fd, at, count, offset, _, flags] = caller.args();
    let offset = position_or_own(offset)?;
    let file = at::file(caller, fd)?;
    can_at(&file, offset)?;
    if !file.mode().write {
        return Err(Errno::EBADF);
    }
    let segments = Segments::read(at, count)?;
    let (how, append) = way(caller, &file, flags)?;
    let limit = iobuf::total(segments.as_slice()).min(MAX_TRANSFER);
    let result = file.write_how(offset, &mut Source::user(segments.as_slice(), limit), how, append);
    if result.is_ok() && flags as u32 & (abi::RWF_DSYNC | abi::RWF_SYNC) != 0 && file.is_regular() {
        file.ops().sync(flags as u32 & abi::RWF_SYNC == 0)?;
    }
    warn(caller, result, &file)
}

fn lseek(caller: &mut Caller) -> Result<u64> {
    let [fd, offset, whence, ..] = caller.args();
    at::file(caller, fd)?.seek(offset as i64, whence as u32)
}

/// Move up to `len` bytes from `input` at `from` to `output` at `to` (`None`: its own offset), through the kernel.
/// How many went; `from` moves on by that.
pub fn copy(
    caller: &Caller,
    input: &File,
    from: &mut u64,
    output: &Arc<File>,
    mut to: Option<u64>,
    len: usize,
) -> Result<usize> {
    let mut buffer = crate::mem::zeroed(len.min(COPY_CHUNK))?;
    let mut done = 0;
    while done < len {
        let want = buffer.len().min(len - done);
        let got = match input.read_kernel(*from, &mut buffer[..want]) {
            Ok(0) => break,
            Ok(n) => n,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        };
        if done == 0 {
            inotify::fire(input.place(), inotify::ACCESS);
        }
        let mut source = Source::kernel(&buffer[..got]);
        let result = output.write_how(to, &mut source, how(caller, output), output.is_append());
        match result {
            Ok(n) => {
                *from += n as u64;
                to = to.map(|t| t + n as u64);
                done += n;
                if n < got {
                    break;
                }
                if done.is_multiple_of(LET_OTHERS) {
                    crate::sched::yield_now();
                }
            }
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// As `copy`, from where the input's own offset stands. Not one step for others: the output may be the same description.
pub fn copy_from_own(
    caller: &Caller,
    input: &File,
    output: &Arc<File>,
    to: Option<u64>,
    len: usize,
) -> Result<usize> {
    let mut at = input.offset();
    let result = copy(caller, input, &mut at, output, to, len);
    input.seek(at as i64, abi::SEEK_SET)?;
    result
}

fn copy_file_range(caller: &mut Caller) -> Result<u64> {
    let [fd_in, off_in, fd_out, off_out, len, flags] = caller.args();
    let (input, output) = (at::file(caller, fd_in)?, at::file(caller, fd_out)?);
    let pointed = |at: u64| if at == 0 { Ok(None) } else { user::read_u64(at).map(Some) };
    let (from, to) = (pointed(off_in)?, pointed(off_out)?);
    check_flags(flags, 0)?;
    if input.kind() == Kind::Dir || output.kind() == Kind::Dir {
        return Err(Errno::EISDIR);
    }
    if !input.is_regular() || !output.is_regular() {
        return Err(Errno::EINVAL);
    }
    if !input.mode().read || !output.mode().write || output.is_append() {
        return Err(Errno::EBADF);
    }
    if !Arc::ptr_eq(input.place().mount.system(), output.place().mount.system()) {
        return Err(Errno::EXDEV);
    }
    let (begin, end) = (from.unwrap_or(input.offset()), to.unwrap_or(output.offset()));
    for at in [begin, end] {
        at.checked_add(len).ok_or(Errno::EOVERFLOW)?;
        position(at)?;
    }
    let left = input.stat()?.size.saturating_sub(begin);
    let len = usize::try_from(len.min(left)).unwrap_or(usize::MAX).min(MAX_TRANSFER);
    if input.inode().id() == output.inode().id() && begin.abs_diff(end) < len as u64 {
        return Err(Errno::EINVAL);
    }
    let result = match from {
        Some(mut at) => {
            let result = copy(caller, &input, &mut at, &output, to, len);
            user::write_u64(off_in, at)?;
            result
        }
        None => copy_from_own(caller, &input, &output, to, len),
    };
    if let (Some(to), Ok(n)) = (to, result) {
        user::write_u64(off_out, to + n as u64)?;
    }
    warn(caller, result, &output)
}
