//! What is known about a file without opening it, and changing that: `stat` and its kin, modes, owners, times.

use super::at::{self, Paths, check_flags};
use super::file::may;
use super::{Calls, user};
use crate::clock::SECOND;
use crate::errno::{Errno, Result};
use crate::fs::cred::want;
use crate::fs::mount::Flags;
use crate::fs::names::retry_stale;
use crate::fs::{Kind, Location, SetAttr, Stat, Time, inotify};
use crate::process::run::Caller;
use linux_raw_sys::general as abi;

/// `STATX_ATTR_MOUNT_ROOT`
const ATTR_MOUNT_ROOT: u64 = 0x2000;

pub const CALLS: &Calls = &[
    (abi::__NR_stat, stat),
    (abi::__NR_lstat, lstat),
    (abi::__NR_fstat, fstat),
    (abi::__NR_newfstatat, newfstatat),
    (abi::__NR_statx, statx),
    (abi::__NR_statfs, statfs),
    (abi::__NR_fstatfs, fstatfs),
    (abi::__NR_access, access),
    (abi::__NR_faccessat, faccessat),
    (abi::__NR_faccessat2, faccessat2),
    (abi::__NR_readlink, readlink),
    (abi::__NR_readlinkat, readlinkat),
    (abi::__NR_chmod, chmod),
    (abi::__NR_fchmod, fchmod),
    (abi::__NR_fchmodat, fchmodat),
    (abi::__NR_fchmodat2, fchmodat2),
    (abi::__NR_chown, chown),
    (abi::__NR_lchown, lchown),
    (abi::__NR_fchown, fchown),
    (abi::__NR_fchownat, fchownat),
    (abi::__NR_utime, utime),
    (abi::__NR_utimes, utimes),
    (abi::__NR_futimesat, futimesat),
    (abi::__NR_utimensat, utimensat),
];

const CWD: u64 = abi::AT_FDCWD as u64;

/// A structure of the ABI being put together: fields at offsets.
struct Record<const N: usize>([u8; N]);

impl<const N: usize> Record<N> {
    fn new() -> Self {
        Record([0; N])
    }
    fn u16(&mut self, at: usize, value: u16) {
        self.0[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    }
    fn u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    fn u64(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }
    fn put(&self, at: u64) -> Result<u64> {
        user::copy_to(at, &self.0)?;
        Ok(0)
    }
}

/// `struct stat`, 144 bytes.
fn put_stat(to: u64, s: &Stat) -> Result<u64> {
    let mut r = Record::<144>::new();
    r.u64(0, s.dev);
    r.u64(8, s.ino);
    r.u64(16, s.nlink as u64);
    r.u32(24, s.mode);
    r.u32(28, s.uid);
    r.u32(32, s.gid);
    r.u64(40, s.rdev);
    r.u64(48, s.size);
    r.u64(56, s.blksize as u64);
    r.u64(64, s.blocks);
    for (at, time) in [(72, s.atime), (88, s.mtime), (104, s.ctime)] {
        r.u64(at, time.sec as u64);
        r.u64(at + 8, time.nsec as u64);
    }
    r.put(to)
}

fn stat_path(caller: &Caller, dir: u64, path: u64, to: u64, flags: u32) -> Result<u64> {
    let path =
        if path == 0 && flags & abi::AT_EMPTY_PATH != 0 { alloc::vec::Vec::new() } else { at::path(path)? };
    let paths = Paths::new(caller);
    let follow = flags & abi::AT_SYMLINK_NOFOLLOW == 0;
    put_stat(to, &retry_stale(|| paths.find(dir, &path, flags, follow)?.inode().stat())?)
}

fn stat(caller: &mut Caller) -> Result<u64> {
    let [path, to, ..] = caller.args();
    stat_path(caller, CWD, path, to, 0)
}

fn lstat(caller: &mut Caller) -> Result<u64> {
    let [path, to, ..] = caller.args();
    stat_path(caller, CWD, path, to, abi::AT_SYMLINK_NOFOLLOW)
}

fn fstat(caller: &mut Caller) -> Result<u64> {
    let [fd, to, ..] = caller.args();
    put_stat(to, &caller.task.files().get_any(fd as u32)?.stat()?)
}

fn newfstatat(caller: &mut Caller) -> Result<u64> {
    let [dir, path, to, flags, ..] = caller.args();
    let flags = check_flags(flags, abi::AT_SYMLINK_NOFOLLOW | abi::AT_EMPTY_PATH | abi::AT_NO_AUTOMOUNT)?;
    stat_path(caller, dir, path, to, flags)
}

/// The two halves of a device number.
fn major_minor(dev: u64) -> (u32, u32) {
    let major = (dev >> 8 & 0xfff) as u32 | (dev >> 32) as u32 & !0xfff;
    let minor = (dev & 0xff) as u32 | (dev >> 12) as u32 & !0xff;
    (major, minor)
}

/// `struct statx`, 256 bytes. Everything that we know, whatever was asked for, as statx(2) allows.
fn statx(caller: &mut Caller) -> Result<u64> {
    let [dir, path, flags, mask, to, ..] = caller.args();
    let flags = check_flags(
        flags,
        abi::AT_SYMLINK_NOFOLLOW | abi::AT_EMPTY_PATH | abi::AT_NO_AUTOMOUNT | abi::AT_STATX_SYNC_TYPE,
    )?;
    if mask as u32 & abi::STATX__RESERVED != 0 || flags & abi::AT_STATX_SYNC_TYPE == abi::AT_STATX_SYNC_TYPE {
        return Err(Errno::EINVAL);
    }
    let path =
        if path == 0 && flags & abi::AT_EMPTY_PATH != 0 { alloc::vec::Vec::new() } else { at::path(path)? };
    let paths = Paths::new(caller);
    let follow = flags & abi::AT_SYMLINK_NOFOLLOW == 0;
    let (place, s) = retry_stale(|| {
        let place = paths.find(dir, &path, flags, follow)?;
        let stat = place.inode().stat()?;
        Ok((place, stat))
    })?;
    let mut r = Record::<256>::new();
    let btime = if s.btime.is_some() { abi::STATX_BTIME } else { 0 };
    r.u32(0, abi::STATX_BASIC_STATS | abi::STATX_MNT_ID | btime);
    r.u32(4, s.blksize);
    r.u32(16, s.nlink);
    r.u32(20, s.uid);
    r.u32(24, s.gid);
    r.u16(28, s.mode as u16);
    r.u64(32, s.ino);
    r.u64(40, s.size);
    r.u64(48, s.blocks);
    for (at, time) in [(64, s.atime), (80, s.btime.unwrap_or_default()), (96, s.ctime), (112, s.mtime)] {
        r.u64(at, time.sec as u64);
        r.u32(at + 8, time.nsec);
    }
    for (at, dev) in [(128, s.rdev), (136, s.dev)] {
        let (major, minor) = major_minor(dev);
        r.u32(at, major);
        r.u32(at + 4, minor);
    }
    // STATX_ATTR_MOUNT_ROOT: told, and so.
    r.u64(56, ATTR_MOUNT_ROOT);
    r.u64(8, if place.is_mount_root() { ATTR_MOUNT_ROOT } else { 0 });
    r.u64(144, place.mount.id() as u64);
    r.put(to)
}

/// `struct statfs`, 120 bytes.
fn put_statfs(to: u64, place: &Location) -> Result<u64> {
    let s = place.inode().statfs()?;
    let mut r = Record::<120>::new();
    let valid = 0x20;
    let flags = place.mount.flags();
    let mut told = valid;
    for (flag, bit) in [
        (Flags::NOSUID, 2),
        (Flags::NODEV, 4),
        (Flags::NOEXEC, 8),
        (Flags::NOATIME, 1024),
        (Flags::NODIRATIME, 2048),
        (Flags::RELATIME, 4096),
        (Flags::NOSYMFOLLOW, 8192),
    ] {
        told |= if flags.contains(flag) { bit } else { 0 };
    }
    told |= place.mount.is_read_only() as u64;
    let words = [s.magic, s.block_size, s.blocks, s.blocks_free, s.blocks_available, s.files, s.files_free];
    for (i, word) in words.into_iter().enumerate() {
        r.u64(8 * i, word);
    }
    r.u64(56, place.inode().id().dev);
    r.u64(64, s.name_max);
    r.u64(72, s.block_size);
    r.u64(80, told);
    r.put(to)
}

fn statfs(caller: &mut Caller) -> Result<u64> {
    let [path, to, ..] = caller.args();
    let path = at::path(path)?;
    put_statfs(to, &Paths::new(caller).find(CWD, &path, 0, true)?)
}

fn fstatfs(caller: &mut Caller) -> Result<u64> {
    let [fd, to, ..] = caller.args();
    put_statfs(to, caller.task.files().get_any(fd as u32)?.place())
}

fn access_at(caller: &Caller, dir: u64, path: u64, mode: u64, flags: u32) -> Result<u64> {
    let mode = check_flags(mode, want::READ | want::WRITE | want::EXEC)?;
    let path = at::path(path)?;
    let paths = Paths::new(caller);
    let place = paths.find(dir, &path, flags, flags & abi::AT_SYMLINK_NOFOLLOW == 0)?;
    may(&paths, &place, mode, flags & abi::AT_EACCESS != 0)?;
    Ok(0)
}

fn access(caller: &mut Caller) -> Result<u64> {
    let [path, mode, ..] = caller.args();
    access_at(caller, CWD, path, mode, 0)
}

fn faccessat(caller: &mut Caller) -> Result<u64> {
    let [dir, path, mode, ..] = caller.args();
    access_at(caller, dir, path, mode, 0)
}

fn faccessat2(caller: &mut Caller) -> Result<u64> {
    let [dir, path, mode, flags, ..] = caller.args();
    let flags = check_flags(flags, abi::AT_EACCESS | abi::AT_EMPTY_PATH | abi::AT_SYMLINK_NOFOLLOW)?;
    access_at(caller, dir, path, mode, flags)
}

fn readlink_at(caller: &Caller, dir: u64, path: u64, to: u64, len: u64) -> Result<u64> {
    if len as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    let path = at::path(path)?;
    let paths = Paths::new(caller);
    // An empty path names the descriptor's own link (O_PATH|O_NOFOLLOW).
    let place = paths.find(dir, &path, abi::AT_EMPTY_PATH, false).and_then(|place| {
        if path.is_empty() && dir as i32 == abi::AT_FDCWD { Err(Errno::ENOENT) } else { Ok(place) }
    })?;
    if place.inode().kind() != Kind::Link {
        return Err(if path.is_empty() { Errno::ENOENT } else { Errno::EINVAL });
    }
    let text = place.inode().readlink()?;
    place.inode().accessed();
    let n = text.len().min(len as i32 as usize);
    user::copy_to(to, &text[..n])?;
    Ok(n as u64)
}

fn readlink(caller: &mut Caller) -> Result<u64> {
    let [path, to, len, ..] = caller.args();
    readlink_at(caller, CWD, path, to, len)
}

fn readlinkat(caller: &mut Caller) -> Result<u64> {
    let [dir, path, to, len, ..] = caller.args();
    readlink_at(caller, dir, path, to, len)
}

fn chmod_at(caller: &Caller, dir: u64, path: u64, mode: u64, flags: u32) -> Result<u64> {
    let path = at::path(path)?;
    let paths = Paths::new(caller);
    let place = paths.find(dir, &path, flags, flags & abi::AT_SYMLINK_NOFOLLOW == 0)?;
    paths.walker.chmod(&place, mode as u32)?;
    Ok(0)
}

fn chmod(caller: &mut Caller) -> Result<u64> {
    let [path, mode, ..] = caller.args();
    chmod_at(caller, CWD, path, mode, 0)
}

fn fchmod(caller: &mut Caller) -> Result<u64> {
    let [fd, mode, ..] = caller.args();
    let file = at::file(caller, fd)?;
    Paths::new(caller).walker.chmod(file.place(), mode as u32)?;
    Ok(0)
}

fn fchmodat(caller: &mut Caller) -> Result<u64> {
    let [dir, path, mode, ..] = caller.args();
    chmod_at(caller, dir, path, mode, 0)
}

fn fchmodat2(caller: &mut Caller) -> Result<u64> {
    let [dir, path, mode, flags, ..] = caller.args();
    let flags = check_flags(flags, abi::AT_SYMLINK_NOFOLLOW | abi::AT_EMPTY_PATH)?;
    chmod_at(caller, dir, path, mode, flags)
}

/// An id to set, or -1 to leave it.
fn id(raw: u64) -> Option<u32> {
    Some(raw as u32).filter(|id| *id != u32::MAX)
}

fn chown_at(caller: &Caller, dir: u64, path: u64, owner: (u64, u64), flags: u32) -> Result<u64> {
    let path = at::path(path)?;
    let paths = Paths::new(caller);
    let place = paths.find(dir, &path, flags, flags & abi::AT_SYMLINK_NOFOLLOW == 0)?;
    paths.walker.chown(&place, id(owner.0), id(owner.1))?;
    Ok(0)
}

fn chown(caller: &mut Caller) -> Result<u64> {
    let [path, uid, gid, ..] = caller.args();
    chown_at(caller, CWD, path, (uid, gid), 0)
}

fn lchown(caller: &mut Caller) -> Result<u64> {
    let [path, uid, gid, ..] = caller.args();
    chown_at(caller, CWD, path, (uid, gid), abi::AT_SYMLINK_NOFOLLOW)
}

fn fchown(caller: &mut Caller) -> Result<u64> {
    let [fd, uid, gid, ..] = caller.args();
    let file = at::file(caller, fd)?;
    Paths::new(caller).walker.chown(file.place(), id(uid), id(gid))?;
    Ok(0)
}

fn fchownat(caller: &mut Caller) -> Result<u64> {
    let [dir, path, uid, gid, flags, ..] = caller.args();
    let flags = check_flags(flags, abi::AT_SYMLINK_NOFOLLOW | abi::AT_EMPTY_PATH)?;
    chown_at(caller, dir, path, (uid, gid), flags)
}

/// What to set a time to.
#[derive(Clone, Copy, PartialEq)]
enum Want {
    Now,
    Leave,
    At(Time),
}

/// Set times: to "now" whoever may write may, to anything the owner only (utimensat(2), "Permissions requirements").
fn set_times(paths: &Paths, place: &Location, atime: Want, mtime: Want) -> Result<u64> {
    if atime == Want::Leave && mtime == Want::Leave {
        return Ok(0);
    }
    place.mount.check_writable()?;
    let cred = &paths.walker.cred;
    let owner = cred.check_owner(&place.inode().stat()?);
    if atime == Want::Now && mtime == Want::Now {
        owner.or_else(|_| place.inode().permission(cred, want::WRITE))?;
    } else {
        owner?;
    }
    let now = Time::now();
    let time = |want| match want {
        Want::Now => Some(now),
        Want::Leave => None,
        Want::At(time) => Some(time),
    };
    let set = SetAttr { atime: time(atime), mtime: time(mtime), ..SetAttr::default() };
    place.inode().setattr(&set)?;
    let what = match (set.atime, set.mtime) {
        (Some(_), Some(_)) => inotify::ATTRIB,
        (Some(_), None) => inotify::ACCESS,
        _ => inotify::MODIFY,
    };
    inotify::fire(place, what);
    Ok(0)
}

fn utime(caller: &mut Caller) -> Result<u64> {
    let [path, times, ..] = caller.args();
    let (atime, mtime) = if times == 0 {
        (Want::Now, Want::Now)
    } else {
        let at = |p| Ok::<_, Errno>(Want::At(Time { sec: user::read_u64(p)? as i64, nsec: 0 }));
        (at(times)?, at(times.wrapping_add(8))?)
    };
    let path = at::path(path)?;
    let paths = Paths::new(caller);
    set_times(&paths, &paths.find(CWD, &path, 0, true)?, atime, mtime)
}

/// Two `struct timeval`.
fn timevals(times: u64) -> Result<(Want, Want)> {
    if times == 0 {
        return Ok((Want::Now, Want::Now));
    }
    let mut w = [0; 4];
    user::read_words(&mut w, times)?;
    if w[1] >= 1_000_000 || w[3] >= 1_000_000 {
        return Err(Errno::EINVAL);
    }
    let at = |sec, micro| Want::At(Time { sec: sec as i64, nsec: micro as u32 * 1000 });
    Ok((at(w[0], w[1]), at(w[2], w[3])))
}

fn utimes(caller: &mut Caller) -> Result<u64> {
    let [path, times, ..] = caller.args();
    let (atime, mtime) = timevals(times)?;
    let path = at::path(path)?;
    let paths = Paths::new(caller);
    set_times(&paths, &paths.find(CWD, &path, 0, true)?, atime, mtime)
}

fn futimesat(caller: &mut Caller) -> Result<u64> {
    let [dir, path, times, ..] = caller.args();
    let (atime, mtime) = timevals(times)?;
    let paths = Paths::new(caller);
    let place = if path == 0 {
        caller.task.files().get_any(dir as u32)?.place().clone()
    } else {
        paths.find(dir, &at::path(path)?, 0, true)?
    };
    set_times(&paths, &place, atime, mtime)
}

fn utimensat(caller: &mut Caller) -> Result<u64> {
    let [dir, path, times, flags, ..] = caller.args();
    let (atime, mtime) = if times == 0 {
        (Want::Now, Want::Now)
    } else {
        let mut w = [0; 4];
        user::read_words(&mut w, times)?;
        (timespec(w[0], w[1])?, timespec(w[2], w[3])?)
    };
    let flags = check_flags(flags, abi::AT_SYMLINK_NOFOLLOW | abi::AT_EMPTY_PATH)?;
    if atime == Want::Leave && mtime == Want::Leave {
        // Nothing is to be done, so nothing is looked for.
        return Ok(0);
    }
    let paths = Paths::new(caller);
    let place = if path == 0 {
        if dir as i32 == abi::AT_FDCWD {
            return Err(Errno::EFAULT);
        }
        at::file(caller, dir)?.place().clone()
    } else {
        paths.find(dir, &at::path(path)?, flags, flags & abi::AT_SYMLINK_NOFOLLOW == 0)?
    };
    set_times(&paths, &place, atime, mtime)
}

fn timespec(sec: u64, nsec: u64) -> Result<Want> {
    match nsec as u32 {
        abi::UTIME_NOW => Ok(Want::Now),
        abi::UTIME_OMIT => Ok(Want::Leave),
        _ if nsec >= SECOND => Err(Errno::EINVAL),
        nsec => Ok(Want::At(Time { sec: sec as i64, nsec })),
    }
}
