//! `splice`, `tee`, `vmsplice`, `sendfile`: bytes into and out of pipes and files that do not pass through the program.

use super::at::{self, check_flags};
use super::io::{self, position};
use super::{Calls, user};
use crate::errno::{Errno, Result};
use crate::fs::iobuf::{self, Sink, Source};
use crate::fs::pipe::{Pipe, PipeEnd};
use crate::fs::{File, Kind, dev, splice as bytes};
use crate::process::run::Caller;
use alloc::sync::Arc;
use linux_raw_sys::general as abi;

pub const CALLS: &Calls = &[
    (abi::__NR_splice, splice),
    (abi::__NR_tee, tee),
    (abi::__NR_vmsplice, vmsplice),
    (abi::__NR_sendfile, sendfile),
];

const NONBLOCK: u32 = 2;
/// `SPLICE_F_MOVE`, `NONBLOCK`, `MORE`, `GIFT`: but for the second, hints.
const ALL: u32 = 15;

fn pipe(file: &File) -> Option<&Arc<Pipe>> {
    file.ops_as::<PipeEnd>().map(PipeEnd::pipe)
}

/// Whether bytes can be spliced to it: files, devices and streams, not directories and the kernel's own objects.
fn can_splice(file: &File) -> bool {
    let named = file.stat().ok().and_then(|s| s.kind());
    matches!(named, Some(Kind::File | Kind::Char | Kind::Block | Kind::Fifo | Kind::Socket))
}

/// And from it: there is nothing to be had of `/dev/null`.
fn gives(file: &File) -> bool {
    const NULL: u64 = dev::makedev(1, 3);
    can_splice(file) && file.stat().is_ok_and(|stat| stat.kind() != Some(Kind::Char) || stat.rdev != NULL)
}

/// The offset that a pointer leads to.
fn pointed(at: u64, file: &File) -> Result<Option<u64>> {
    if at == 0 {
        return Ok(None);
    }
    if !file.ops().seekable() {
        return Err(Errno::EINVAL);
    }
    position(user::read_u64(at)?)
}

fn splice(caller: &mut Caller) -> Result<u64> {
    let [fd_in, off_in, fd_out, off_out, len, flags] = caller.args();
    let len = len as usize & !(1 << 63);
    if len == 0 {
        return Ok(0);
    }
    let flags = check_flags(flags, ALL)?;
    let (input, output) = (at::file(caller, fd_in)?, at::file(caller, fd_out)?);
    if !input.mode().read || !output.mode().write {
        return Err(Errno::EBADF);
    }
    let blocks = |file: &File| !file.how().nonblock && flags & NONBLOCK == 0;
    let (from, to) = (pipe(&input), pipe(&output));
    if from.is_some() && off_in != 0 || to.is_some() && off_out != 0 {
        return Err(Errno::ESPIPE);
    }
    let result = match (from, to) {
        (Some(from), Some(to)) if Arc::ptr_eq(from, to) => Err(Errno::EINVAL),
        (Some(from), Some(to)) => bytes::pipe_to_pipe(from, to, len, !(blocks(&input) && blocks(&output))),
        (Some(from), None) => {
            let at = pointed(off_out, &output)?;
            if output.is_append() || !can_splice(&output) {
                return Err(Errno::EINVAL);
            }
            let how = io::how(caller, &output);
            let result = bytes::pipe_to_file(from, &output, at, len, !blocks(&input), how);
            told(off_out, at, result)
        }
        (None, Some(to)) => {
            let at = pointed(off_in, &input)?;
            if !gives(&input) {
                return Err(Errno::EINVAL);
            }
            let result = bytes::file_to_pipe(&input, at, to, len, !blocks(&output));
            told(off_in, at, result)
        }
        (None, None) => Err(Errno::EINVAL),
    };
    io::warn(caller, result, &output)
}

/// The program's offset has moved by what went.
fn told(pointer: u64, at: Option<u64>, result: Result<usize>) -> Result<usize> {
    if let (Some(at), Ok(n)) = (at, result) {
        user::write_u64(pointer, at + n as u64)?;
    }
    result
}

fn is_at_end(file: &File) -> Result<bool> {
    Ok(file.is_regular() && file.offset() >= file.stat()?.size)
}

/// `sendfile(2)`: from what has positions to anything; or from anything into a pipe, which is a splice.
pub fn sendfile(caller: &mut Caller) -> Result<u64> {
    let [out, input, offset, count, ..] = caller.args();
    if offset != 0 {
        user::read_u64(offset)?;
    }
    let (input, output) = (at::file(caller, input)?, at::file(caller, out)?);
    if !input.mode().read || !output.mode().write {
        return Err(Errno::EBADF);
    }
    if offset != 0 && !input.ops().seekable() {
        return Err(Errno::ESPIPE);
    }
    if !gives(&input) || pipe(&input).is_some() || output.is_append() {
        return Err(Errno::EINVAL);
    }
    let len = usize::try_from(count).unwrap_or(usize::MAX).min(io::MAX_TRANSFER);
    let result = match pipe(&output) {
        Some(to) if !input.ops().seekable() => {
            bytes::file_to_pipe(&input, None, to, len, output.how().nonblock)
        }
        _ if !input.ops().seekable() => Err(Errno::EINVAL),
        _ if !can_splice(&output) && (offset != 0 || !is_at_end(&input)?) => Err(Errno::EINVAL),
        _ if offset == 0 => io::copy_from_own(caller, &input, &output, None, len),
        _ => {
            let mut at = position(user::read_u64(offset)?)?.unwrap_or(0);
            let result = io::copy(caller, &input, &mut at, &output, None, len);
            user::write_u64(offset, at)?;
            result
        }
    };
    io::warn(caller, result, &output)
}

fn tee(caller: &mut Caller) -> Result<u64> {
    let [fd_in, fd_out, len, flags, ..] = caller.args();
    let flags = check_flags(flags, ALL)?;
    let len = len as usize & !(1 << 63);
    if len == 0 {
        return Ok(0);
    }
    let (input, output) = (at::file(caller, fd_in)?, at::file(caller, fd_out)?);
    if !input.mode().read || !output.mode().write {
        return Err(Errno::EBADF);
    }
    let (Some(from), Some(to)) = (pipe(&input), pipe(&output)) else { return Err(Errno::EINVAL) };
    if Arc::ptr_eq(from, to) {
        return Err(Errno::EINVAL);
    }
    let nonblock = flags & NONBLOCK != 0 || input.how().nonblock || output.how().nonblock;
    let result = bytes::tee(from, to, len, nonblock);
    io::warn(caller, result, &output)
}

/// Into a pipe the program's bytes are copied; it may change them at once.
fn vmsplice(caller: &mut Caller) -> Result<u64> {
    let [fd, at, count, flags, ..] = caller.args();
    let flags = check_flags(flags, ALL)?;
    let file = at::file(caller, fd)?;
    let segments = io::Segments::read(at, count)?;
    let limit = iobuf::total(segments.as_slice()).min(io::MAX_TRANSFER);
    if limit == 0 {
        return Ok(0);
    }
    if pipe(&file).is_none() {
        return Err(Errno::EBADF);
    }
    let mut how = file.how();
    how.nonblock |= flags & NONBLOCK != 0;
    if !file.mode().write {
        return Ok(file.read_how(None, &mut Sink::user(segments.as_slice(), limit), how)? as u64);
    }
    let result = file.write_how(None, &mut Source::user(segments.as_slice(), limit), how, false);
    io::warn(caller, result, &file)
}
