//! Opening, closing and duplicating descriptors; what is done to an open file as a whole.

use super::at::{self, Paths, check_flags};
use super::{Calls, user};
use crate::errno::{Errno, Result};
use crate::fs::cred::want;
use crate::fs::path::Limits;
use crate::fs::{self, File, Kind, Location, SetAttr, SleepLock, inotify, tmpfs};
use crate::mem;
use crate::process::run::Caller;
use crate::process::signal::{self, SigInfo};
use alloc::sync::Arc;
use linux_raw_sys::general as abi;

pub const CALLS: &Calls = &[
    (abi::__NR_open, open),
    (abi::__NR_openat, openat),
    (abi::__NR_openat2, openat2),
    (abi::__NR_creat, creat),
    (abi::__NR_close, close),
    (abi::__NR_close_range, close_range),
    (abi::__NR_dup, dup),
    (abi::__NR_dup2, dup2),
    (abi::__NR_dup3, dup3),
    (abi::__NR_truncate, truncate),
    (abi::__NR_ftruncate, ftruncate),
    (abi::__NR_fallocate, fallocate),
    (abi::__NR_fsync, fsync),
    (abi::__NR_fdatasync, fdatasync),
    (abi::__NR_sync, sync),
    (abi::__NR_syncfs, syncfs),
    (abi::__NR_sync_file_range, sync_file_range),
    (abi::__NR_fadvise64, fadvise64),
    (abi::__NR_readahead, readahead),
    (abi::__NR_memfd_create, memfd_create),
    (abi::__NR_umask, umask),
];

/// `linux/close_range.h`.
const CLOSE_RANGE_UNSHARE: u32 = 2;
const CLOSE_RANGE_CLOEXEC: u32 = 4;

/// Only what is cached already.
const RESOLVE_CACHED: u64 = 32;

/// Flags that `openat2` takes; `open` passes over what it does not know.
const OPEN_FLAGS: u32 = abi::O_ACCMODE
    | abi::O_CREAT
    | abi::O_EXCL
    | abi::O_NOCTTY
    | abi::O_TRUNC
    | abi::O_APPEND
    | abi::O_NONBLOCK
    | abi::O_SYNC
    | abi::FASYNC
    | abi::O_DIRECT
    | abi::O_LARGEFILE
    | abi::O_DIRECTORY
    | abi::O_NOFOLLOW
    | abi::O_NOATIME
    | abi::O_CLOEXEC
    | abi::O_PATH
    | abi::__O_TMPFILE;

fn open_at(caller: &Caller, dir: u64, path: u64, flags: u32, mode: u32) -> Result<u64> {
    const NEITHER: u32 = abi::O_CREAT | abi::O_DIRECTORY;
    if flags & (NEITHER | abi::O_PATH) == NEITHER {
        return Err(Errno::EINVAL);
    }
    let path = at::path(path)?;
    let paths = Paths::new(caller);
    let file = paths.walker.open(&paths.base(dir, &path)?, &path, flags & OPEN_FLAGS, mode)?;
    at::install(caller, file, flags & abi::O_CLOEXEC != 0)
}

fn open(caller: &mut Caller) -> Result<u64> {
    let [path, flags, mode, ..] = caller.args();
    open_at(caller, abi::AT_FDCWD as u64, path, flags as u32, mode as u32)
}

fn openat(caller: &mut Caller) -> Result<u64> {
    let [dir, path, flags, mode, ..] = caller.args();
    open_at(caller, dir, path, flags as u32, mode as u32)
}

fn creat(caller: &mut Caller) -> Result<u64> {
    let [path, mode, ..] = caller.args();
    let flags = abi::O_CREAT | abi::O_WRONLY | abi::O_TRUNC;
    open_at(caller, abi::AT_FDCWD as u64, path, flags, mode as u32)
}

fn openat2(caller: &mut Caller) -> Result<u64> {
    let [dir, path, how, size, ..] = caller.args();
    if size < 24 {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let mut words = [0; 3];
    user::read_words(&mut words, how)?;
    for more in (24..size).step_by(8) {
        if user::read_u64(how + more)? != 0 {
            return Err(Errno::E2BIG);
        }
    }
    let [flags, mode, resolve] = words;
    if flags & !(OPEN_FLAGS as u64) != 0 || mode & !0o7777 != 0 {
        return Err(Errno::EINVAL);
    }
    let makes = flags as u32 & (abi::O_CREAT | abi::__O_TMPFILE) != 0;
    if mode != 0 && !makes {
        return Err(Errno::EINVAL);
    }
    if resolve & !(RESOLVE_CACHED | Limits::all().bits() as u64) != 0 {
        return Err(Errno::EINVAL);
    }
    let limits = Limits::from_bits_truncate(resolve as u32);
    let with_path = (abi::O_PATH | abi::O_DIRECTORY | abi::O_NOFOLLOW | abi::O_CLOEXEC) as u64;
    let of_path = flags as u32 & abi::O_PATH != 0 && flags & !with_path != 0;
    if limits.contains(Limits::BENEATH | Limits::IN_ROOT) || of_path {
        return Err(Errno::EINVAL);
    }
    if resolve & RESOLVE_CACHED != 0 {
        // What is cached is not told apart here: who asks for that opens again without.
        return Err(Errno::EAGAIN);
    }
    let path = at::path(path)?;
    let paths = Paths::new(caller);
    let inside = limits.contains(Limits::IN_ROOT);
    let base = paths.base(dir, if inside && !path.is_empty() { b"." } else { &path })?;
    let walker = paths.walker.limited(limits, &base);
    let file = walker.open(&base, &path, flags as u32, mode as u32)?;
    at::install(caller, file, flags as u32 & abi::O_CLOEXEC != 0)
}

fn close(caller: &mut Caller) -> Result<u64> {
    let [fd, ..] = caller.args();
    caller.task.files().close(fd as u32)?;
    Ok(0)
}

fn close_range(caller: &mut Caller) -> Result<u64> {
    let [first, last, flags, ..] = caller.args();
    let flags = check_flags(flags, CLOSE_RANGE_CLOEXEC | CLOSE_RANGE_UNSHARE)?;
    let (first, last) = (first as u32, last as u32);
    if first > last {
        return Err(Errno::EINVAL);
    }
    if flags & CLOSE_RANGE_UNSHARE != 0 {
        let own = caller.task.files().fork_copy()?;
        drop(caller.task.replace_files(own));
    }
    caller.task.files().close_range(first, last, flags & CLOSE_RANGE_CLOEXEC != 0);
    Ok(0)
}

fn dup(caller: &mut Caller) -> Result<u64> {
    let [fd, ..] = caller.args();
    let file = caller.task.files().get_any(fd as u32)?;
    at::install(caller, file, false)
}

fn dup_to(caller: &Caller, from: u32, to: u32, close_on_exec: bool) -> Result<u64> {
    let files = caller.task.files();
    let file = files.get_any(from)?;
    let limit = caller.task.process.limits.soft(abi::RLIMIT_NOFILE);
    files.insert_at(to, file, close_on_exec, limit)?;
    Ok(to as u64)
}

fn dup2(caller: &mut Caller) -> Result<u64> {
    let [from, to, ..] = caller.args();
    if from as u32 == to as u32 {
        caller.task.files().get_any(from as u32)?;
        return Ok(to as u32 as u64);
    }
    dup_to(caller, from as u32, to as u32, false)
}

fn dup3(caller: &mut Caller) -> Result<u64> {
    let [from, to, flags, ..] = caller.args();
    let flags = check_flags(flags, abi::O_CLOEXEC)?;
    if from as u32 == to as u32 {
        return Err(Errno::EINVAL);
    }
    dup_to(caller, from as u32, to as u32, flags != 0)
}

/// A length or an offset, which must not be negative.
fn length(raw: u64) -> Result<u64> {
    if (raw as i64) < 0 { Err(Errno::EINVAL) } else { Ok(raw) }
}

/// RLIMIT_FSIZE: a file may not become longer.
fn check_size(caller: &Caller, size: u64) -> Result<()> {
    if size > caller.task.process.limits.soft(abi::RLIMIT_FSIZE) {
        signal::to_task(&caller.task, SigInfo::kernel(abi::SIGXFSZ))?;
        return Err(Errno::EFBIG);
    }
    Ok(())
}

fn truncate(caller: &mut Caller) -> Result<u64> {
    let [path, size, ..] = caller.args();
    let size = length(size)?;
    let path = at::path(path)?;
    let paths = Paths::new(caller);
    let place = paths.find(abi::AT_FDCWD as u64, &path, 0, true)?;
    check_size(caller, size)?;
    paths.walker.truncate(&place, size)?;
    Ok(0)
}

fn ftruncate(caller: &mut Caller) -> Result<u64> {
    let [fd, size, ..] = caller.args();
    let size = length(size)?;
    let file = at::file(caller, fd)?;
    if !file.is_regular() || !file.mode().write {
        return Err(Errno::EINVAL);
    }
    check_size(caller, size)?;
    super::io::keep_no_privileges(caller, &file)?;
    fs::names::truncate(file.inode(), size)?;
    inotify::fire(file.place(), inotify::MODIFY);
    Ok(0)
}

fn fallocate(caller: &mut Caller) -> Result<u64> {
    let [fd, mode, offset, len, ..] = caller.args();
    let file = at::file(caller, fd)?;
    let (offset, len) = (length(offset)?, length(len)?);
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    const KEEP: u32 = abi::FALLOC_FL_KEEP_SIZE;
    const HOLE: u32 = abi::FALLOC_FL_PUNCH_HOLE | KEEP;
    let mode = mode as u32;
    match (mode & !KEEP, mode & KEEP != 0) {
        (0 | abi::FALLOC_FL_UNSHARE_RANGE | abi::FALLOC_FL_ZERO_RANGE, _) => {}
        (abi::FALLOC_FL_PUNCH_HOLE, true) => {}
        (abi::FALLOC_FL_COLLAPSE_RANGE | abi::FALLOC_FL_INSERT_RANGE, false) => {}
        _ => return Err(Errno::EOPNOTSUPP),
    }
    if !file.mode().write {
        return Err(Errno::EBADF);
    }
    match file.kind() {
        Kind::File if file.is_regular() => {}
        Kind::Fifo => return Err(Errno::ESPIPE),
        Kind::Dir => return Err(Errno::EISDIR),
        _ => return Err(Errno::ENODEV),
    }
    let end = offset.checked_add(len).filter(|e| *e <= fs::cache::MAX_SIZE).ok_or(Errno::EFBIG)?;
    let inode = file.inode();
    let _one = inode.write_lock().map(SleepLock::lock);
    let size = file.ops().size()?;
    match mode {
        KEEP => inode.reserve(offset, end)?,
        0 => {
            let grows = end > size;
            if grows {
                check_size(caller, end)?;
            }
            inode.reserve(offset, end)?;
            if grows {
                inode.setattr(&SetAttr { size: Some(end), ..SetAttr::default() })?;
            }
        }
        HOLE => inode.punch(offset.min(size), end.min(size))?,
        _ => return Err(Errno::EOPNOTSUPP),
    }
    inotify::fire(file.place(), inotify::MODIFY);
    Ok(0)
}

fn fsync(caller: &mut Caller) -> Result<u64> {
    let [fd, ..] = caller.args();
    at::file(caller, fd)?.ops().sync(false)?;
    Ok(0)
}

fn fdatasync(caller: &mut Caller) -> Result<u64> {
    let [fd, ..] = caller.args();
    at::file(caller, fd)?.ops().sync(true)?;
    Ok(0)
}

fn sync(_: &mut Caller) -> Result<u64> {
    // sync(2) has no way to say that it failed.
    let _ = fs::sync_all();
    Ok(0)
}

fn syncfs(caller: &mut Caller) -> Result<u64> {
    let [fd, ..] = caller.args();
    at::file(caller, fd)?;
    fs::sync_all()?;
    Ok(0)
}

fn sync_file_range(caller: &mut Caller) -> Result<u64> {
    let [fd, offset, len, flags, ..] = caller.args();
    let file = at::file(caller, fd)?;
    let (offset, len) = (length(offset)?, length(len)?);
    offset.checked_add(len).filter(|e| *e <= fs::cache::MAX_SIZE).ok_or(Errno::EINVAL)?;
    check_flags(flags, 7)?;
    match file.kind() {
        Kind::File if !file.is_regular() => return Err(Errno::ESPIPE),
        Kind::File | Kind::Block | Kind::Dir | Kind::Link if flags as u32 == 0 => {}
        Kind::File | Kind::Block | Kind::Dir | Kind::Link => file.ops().sync(true)?,
        _ => return Err(Errno::ESPIPE),
    }
    Ok(0)
}

/// Advice about use to come. The memory core sees for itself how a file is read; so only the errors matter.
fn fadvise64(caller: &mut Caller) -> Result<u64> {
    let [fd, _offset, len, advice, ..] = caller.args();
    let file = at::file(caller, fd)?;
    if file.kind() == Kind::Fifo {
        return Err(Errno::ESPIPE);
    }
    if (len as i64) < 0 || advice > abi::POSIX_FADV_NOREUSE as u64 {
        return Err(Errno::EINVAL);
    }
    Ok(0)
}

fn readahead(caller: &mut Caller) -> Result<u64> {
    let [fd, _, len, ..] = caller.args();
    let file = at::file(caller, fd)?;
    if !file.mode().read {
        return Err(Errno::EBADF);
    }
    length(len)?;
    if file.is_regular() { Ok(0) } else { Err(Errno::EINVAL) }
}

fn memfd_create(caller: &mut Caller) -> Result<u64> {
    let [name, flags, ..] = caller.args();
    let known = abi::MFD_CLOEXEC | abi::MFD_ALLOW_SEALING | abi::MFD_NOEXEC_SEAL | abi::MFD_EXEC;
    let flags = check_flags(flags, known)?;
    if flags & abi::MFD_EXEC != 0 && flags & abi::MFD_NOEXEC_SEAL != 0 {
        return Err(Errno::EINVAL);
    }
    let name = user::read_string(name, 250, Errno::EINVAL)?;
    if !mem::headroom(4096) {
        return Err(Errno::ENOMEM);
    }
    let cred = caller.task.cred();
    let mode = if flags & abi::MFD_NOEXEC_SEAL != 0 { 0o666 } else { 0o777 };
    let seals = match flags & (abi::MFD_ALLOW_SEALING | abi::MFD_NOEXEC_SEAL) {
        0 => abi::F_SEAL_SEAL,
        abi::MFD_ALLOW_SEALING => 0,
        _ => abi::F_SEAL_EXEC,
    };
    let (inode, mount) = tmpfs::TmpFs::unnamed(mode, cred.fsuid, cred.fsgid, seals)?;
    let label = [b"/memfd:", name.as_slice(), b" (deleted)"].concat();
    let place = Location::detached(&mount, inode.clone(), &label);
    let ops = inode.open(fs::file::open_mode(abi::O_RDWR))?;
    let file: Arc<File> = File::unopened(ops, place, abi::O_RDWR | abi::O_LARGEFILE)?;
    at::install(caller, file, flags & abi::MFD_CLOEXEC != 0)
}

fn umask(caller: &mut Caller) -> Result<u64> {
    let [mask, ..] = caller.args();
    Ok(caller.task.fs().set_umask(mask as u32) as u64)
}

/// Whether the caller may do what `wanted` says, by its real or its effective ids.
pub fn may(paths: &Paths, place: &Location, wanted: u32, effective: bool) -> Result<()> {
    let cred = &paths.walker.cred;
    let wanted = wanted & (want::READ | want::WRITE | want::EXEC);
    if wanted & want::WRITE != 0 && matches!(place.inode().kind(), Kind::File | Kind::Dir | Kind::Link) {
        place.mount.check_writable()?;
    }
    if wanted == 0 {
        return Ok(());
    }
    if effective {
        place.inode().permission(cred, wanted)
    } else {
        place.inode().permission(&cred.as_real(), wanted)
    }
}
