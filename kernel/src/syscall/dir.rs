//! Directories and names: listing, making, removing, renaming, and where a process is.

use super::at::{self, Paths, check_flags};
use super::{Calls, user};
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::fs::cred::want;
use crate::fs::inode::{NewKind, RenameFlags};
use crate::fs::mount::Flags;
use crate::fs::{DirEntry, File, Location, inotify};
use crate::process::run::Caller;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

pub const CALLS: &Calls = &[
    (abi::__NR_getdents, getdents),
    (abi::__NR_getdents64, getdents64),
    (abi::__NR_getcwd, getcwd),
    (abi::__NR_chdir, chdir),
    (abi::__NR_fchdir, fchdir),
    (abi::__NR_chroot, chroot),
    (abi::__NR_mkdir, mkdir),
    (abi::__NR_mkdirat, mkdirat),
    (abi::__NR_mknod, mknod),
    (abi::__NR_mknodat, mknodat),
    (abi::__NR_rmdir, rmdir),
    (abi::__NR_unlink, unlink),
    (abi::__NR_unlinkat, unlinkat),
    (abi::__NR_rename, rename),
    (abi::__NR_renameat, renameat),
    (abi::__NR_renameat2, renameat2),
    (abi::__NR_link, link),
    (abi::__NR_linkat, linkat),
    (abi::__NR_symlink, symlink),
    (abi::__NR_symlinkat, symlinkat),
    (abi::__NR_name_to_handle_at, name_to_handle_at),
    (abi::__NR_open_by_handle_at, open_by_handle_at),
];

const CWD: u64 = abi::AT_FDCWD as u64;
/// Entries are put together in the kernel and copied out at once: at most so many bytes of them per call.
const MAX_LISTING: usize = 32 * 1024;

/// One entry in the form of `getdents64` or of the old `getdents`, whose type is its last byte.
fn encode(entry: &DirEntry<'_>, old: bool, out: &mut Vec<u8>, room: usize) -> bool {
    let kind = entry.kind.map_or(0, |k| k.d_type());
    let header = if old { 18 } else { 19 };
    let len = (header + entry.name.len() + 1 + old as usize).next_multiple_of(8);
    if out.len() + len > room {
        return false;
    }
    let start = out.len();
    out.resize(start + len, 0);
    let record = &mut out[start..];
    record[..8].copy_from_slice(&entry.ino.to_ne_bytes());
    record[8..16].copy_from_slice(&entry.next.to_ne_bytes());
    record[16..18].copy_from_slice(&(len as u16).to_ne_bytes());
    record[header..header + entry.name.len()].copy_from_slice(entry.name);
    record[if old { len - 1 } else { 18 }] = kind;
    true
}

fn list(file: &File, to: u64, count: u64, old: bool) -> Result<u64> {
    if !file.place().is_dir() {
        return Err(Errno::ENOTDIR);
    }
    if file.place().dentry.is_removed() {
        return Err(Errno::ENOENT);
    }
    let room = (count as u32 as usize).min(MAX_LISTING);
    file.with_offset(|at| {
        let mut out = Vec::new();
        let (mut next, mut refused) = (*at, false);
        let read = file.inode().readdir(*at, &mut |entry| {
            refused = !encode(entry, old, &mut out, room);
            if !refused {
                next = entry.next;
            }
            !refused
        });
        inotify::fire(file.place(), inotify::ACCESS);
        read?;
        if out.is_empty() && refused {
            return Err(Errno::EINVAL);
        }
        if !file.how().unnoticed && !file.place().mount.flags().contains(Flags::NODIRATIME) {
            file.inode().accessed();
        }
        user::copy_to(to, &out)?;
        *at = next;
        Ok(out.len() as u64)
    })
}

fn getdents(caller: &mut Caller) -> Result<u64> {
    let [fd, to, count, ..] = caller.args();
    list(&*at::file(caller, fd)?, to, count, true)
}

fn getdents64(caller: &mut Caller) -> Result<u64> {
    let [fd, to, count, ..] = caller.args();
    list(&*at::file(caller, fd)?, to, count, false)
}

fn getcwd(caller: &mut Caller) -> Result<u64> {
    let [to, len, ..] = caller.args();
    let fs = caller.task.fs();
    let cwd = fs.cwd();
    if cwd.dentry.is_removed() {
        return Err(Errno::ENOENT);
    }
    if !crate::mem::headroom(2 * abi::PATH_MAX as usize) {
        return Err(Errno::ENOMEM);
    }
    let mut path = match cwd.path_from(&fs.root()) {
        Some(path) => path,
        None => [b"(unreachable)", cwd.display().as_slice()].concat(),
    };
    path.push(0);
    if path.len() as u64 > len {
        return Err(Errno::ERANGE);
    }
    user::copy_to(to, &path)?;
    Ok(path.len() as u64)
}

/// A directory that one may go to.
fn enter(paths: &Paths, place: Location) -> Result<Location> {
    if !place.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    place.inode().permission(&paths.walker.cred, want::EXEC)?;
    Ok(place)
}

fn chdir(caller: &mut Caller) -> Result<u64> {
    let [path, ..] = caller.args();
    let path = at::path(path)?;
    let paths = Paths::new(caller);
    let place = enter(&paths, paths.find(CWD, &path, 0, true)?)?;
    caller.task.fs().set_cwd(place);
    Ok(0)
}

fn fchdir(caller: &mut Caller) -> Result<u64> {
    let [fd, ..] = caller.args();
    let file = caller.task.files().get_any(fd as u32)?;
    let place = enter(&Paths::new(caller), file.place().clone())?;
    caller.task.fs().set_cwd(place);
    Ok(0)
}

fn chroot(caller: &mut Caller) -> Result<u64> {
    let [path, ..] = caller.args();
    let path = at::path(path)?;
    let paths = Paths::new(caller);
    let place = enter(&paths, paths.find(CWD, &path, 0, true)?)?;
    if !paths.walker.cred.may(cap::SYS_CHROOT) {
        return Err(Errno::EPERM);
    }
    caller.task.fs().set_root(place);
    Ok(0)
}

fn create_at(caller: &Caller, dir: u64, path: u64, node: NewKind<'_>, mode: u32) -> Result<u64> {
    let path = at::path(path)?;
    let paths = Paths::new(caller);
    paths.walker.create(&paths.base(dir, &path)?, &path, node, mode)?;
    Ok(0)
}

fn mkdir(caller: &mut Caller) -> Result<u64> {
    let [path, mode, ..] = caller.args();
    create_at(caller, CWD, path, NewKind::Dir, mode as u32 & 0o1777)
}

fn mkdirat(caller: &mut Caller) -> Result<u64> {
    let [dir, path, mode, ..] = caller.args();
    create_at(caller, dir, path, NewKind::Dir, mode as u32 & 0o1777)
}

fn mknod_at(caller: &Caller, dir: u64, path: u64, mode: u32, rdev: u64) -> Result<u64> {
    let device = |block| NewKind::Device { block, rdev: rdev as u32 as u64 };
    let node = match mode & abi::S_IFMT {
        0 | abi::S_IFREG => NewKind::File,
        abi::S_IFIFO => NewKind::Fifo,
        abi::S_IFSOCK => NewKind::Socket,
        abi::S_IFCHR => device(false),
        abi::S_IFBLK => device(true),
        abi::S_IFDIR => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    };
    create_at(caller, dir, path, node, mode & 0o7777)
}

fn mknod(caller: &mut Caller) -> Result<u64> {
    let [path, mode, rdev, ..] = caller.args();
    mknod_at(caller, CWD, path, mode as u32, rdev)
}

fn mknodat(caller: &mut Caller) -> Result<u64> {
    let [dir, path, mode, rdev, ..] = caller.args();
    mknod_at(caller, dir, path, mode as u32, rdev)
}

fn rmdir(caller: &mut Caller) -> Result<u64> {
    let [path, ..] = caller.args();
    let path = at::path(path)?;
    let paths = Paths::new(caller);
    paths.walker.rmdir(&paths.base(CWD, &path)?, &path)?;
    Ok(0)
}

fn unlink(caller: &mut Caller) -> Result<u64> {
    let [path, ..] = caller.args();
    let path = at::path(path)?;
    let paths = Paths::new(caller);
    paths.walker.unlink(&paths.base(CWD, &path)?, &path)?;
    Ok(0)
}

fn unlinkat(caller: &mut Caller) -> Result<u64> {
    let [dir, path, flags, ..] = caller.args();
    let flags = check_flags(flags, abi::AT_REMOVEDIR)?;
    let path = at::path(path)?;
    let paths = Paths::new(caller);
    let base = paths.base(dir, &path)?;
    if flags != 0 {
        paths.walker.rmdir(&base, &path)?
    } else {
        paths.walker.unlink(&base, &path)?
    }
    Ok(0)
}

fn rename_at(caller: &Caller, from: (u64, u64), to: (u64, u64), flags: u64) -> Result<u64> {
    let how = RenameFlags::from_bits(flags as u32).ok_or(Errno::EINVAL)?;
    if how.contains(RenameFlags::EXCHANGE) && how != RenameFlags::EXCHANGE {
        return Err(Errno::EINVAL);
    }
    let (old, new) = (at::path(from.1)?, at::path(to.1)?);
    let paths = Paths::new(caller);
    let (old_base, new_base) = (paths.base(from.0, &old)?, paths.base(to.0, &new)?);
    paths.walker.rename((&old_base, &old), (&new_base, &new), how)?;
    Ok(0)
}

fn rename(caller: &mut Caller) -> Result<u64> {
    let [from, to, ..] = caller.args();
    rename_at(caller, (CWD, from), (CWD, to), 0)
}

fn renameat(caller: &mut Caller) -> Result<u64> {
    let [dir, from, to_dir, to, ..] = caller.args();
    rename_at(caller, (dir, from), (to_dir, to), 0)
}

fn renameat2(caller: &mut Caller) -> Result<u64> {
    let [dir, from, to_dir, to, flags, ..] = caller.args();
    rename_at(caller, (dir, from), (to_dir, to), flags)
}

fn link_at(caller: &Caller, from: (u64, u64), to: (u64, u64), flags: u32) -> Result<u64> {
    let (old, new) = (at::path(from.1)?, at::path(to.1)?);
    let paths = Paths::new(caller);
    let target = paths.find(from.0, &old, flags, flags & abi::AT_SYMLINK_FOLLOW != 0)?;
    paths.walker.link(&target, &paths.base(to.0, &new)?, &new)?;
    Ok(0)
}

fn link(caller: &mut Caller) -> Result<u64> {
    let [from, to, ..] = caller.args();
    link_at(caller, (CWD, from), (CWD, to), 0)
}

fn linkat(caller: &mut Caller) -> Result<u64> {
    let [dir, from, to_dir, to, flags, ..] = caller.args();
    let flags = check_flags(flags, abi::AT_SYMLINK_FOLLOW | abi::AT_EMPTY_PATH)?;
    let empty = flags & abi::AT_EMPTY_PATH != 0 && at::path(from)?.is_empty();
    if empty && !caller.task.cred().may(cap::DAC_READ_SEARCH) {
        return Err(Errno::ENOENT);
    }
    link_at(caller, (dir, from), (to_dir, to), flags)
}

fn symlink_at(caller: &Caller, target: u64, dir: u64, path: u64) -> Result<u64> {
    let target = at::path(target)?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    create_at(caller, dir, path, NewKind::Link { target: &target }, 0o777)
}

fn symlink(caller: &mut Caller) -> Result<u64> {
    let [target, path, ..] = caller.args();
    symlink_at(caller, target, CWD, path)
}

fn symlinkat(caller: &mut Caller) -> Result<u64> {
    let [target, dir, path, ..] = caller.args();
    symlink_at(caller, target, dir, path)
}

/// No file system here can find a file by a number that outlives it, so there are no handles: as on Linux for such a file system,
/// once everything else about the call has been found right.
fn name_to_handle_at(caller: &mut Caller) -> Result<u64> {
    /// `MAX_HANDLE_SZ`.
    const MOST: u32 = 128;
    let [dir, path, handle, _, flags, ..] = caller.args();
    let flags = check_flags(flags, abi::AT_SYMLINK_FOLLOW | abi::AT_EMPTY_PATH)?;
    let path = at::path(path)?;
    Paths::new(caller).find(dir, &path, flags, flags & abi::AT_SYMLINK_FOLLOW != 0)?;
    if user::read_u32(handle)? > MOST {
        return Err(Errno::EINVAL);
    }
    Err(Errno::EOPNOTSUPP)
}

/// And so none can be opened.
fn open_by_handle_at(caller: &mut Caller) -> Result<u64> {
    let [fd, handle, ..] = caller.args();
    if !caller.task.cred().may(cap::DAC_READ_SEARCH) {
        return Err(Errno::EPERM);
    }
    if fd as i32 != abi::AT_FDCWD {
        caller.task.files().get_any(fd as u32)?;
    }
    user::read_u32(handle)?;
    Err(Errno::ESTALE)
}
