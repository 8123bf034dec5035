//! `fcntl`, `flock` and `ioctl`: what else can be asked of a descriptor.

use super::{Calls, user};
use super::{advise, at};
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::fs::dev;
use crate::fs::lease::{self, Lease};
use crate::fs::locks::{self, Owner, Record};
use crate::fs::owner::{Target, Who};
use crate::fs::pipe::PipeEnd;
use crate::fs::pipe_share;
use crate::fs::tty;
use crate::fs::{File, Kind};
use crate::net::Socket;
use crate::process::run::Caller;
use crate::process::signal::LAST;
use crate::process::table;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::{general as abi, ioctl as request};

/// `linux/fs.h`: the block size, as an int.
const FIGETBSZ: u32 = 2;
const FIBMAP: u32 = 1;
/// The size that quotas count.
const FIOQSIZE: u32 = 0x5460;
const FIEMAP: u32 = 0xc020_660b;
const USERFAULTFD_NEW: u32 = 0xaa00;
const FICLONE: u32 = 0x4004_9409;
const FICLONERANGE: u32 = 0x4020_940d;

/// A bit that `flock` once knew.
const LOCK_MAND: u32 = 32;

pub const CALLS: &Calls = &[(abi::__NR_fcntl, fcntl), (abi::__NR_flock, flock), (abi::__NR_ioctl, ioctl)];

fn fcntl(caller: &mut Caller) -> Result<u64> {
    let [fd, command, argument, ..] = caller.args();
    let (fd, command) = (fd as u32, command as u32);
    let files = caller.task.files();
    let file = files.get_any(fd)?;
    match command {
        abi::F_DUPFD | abi::F_DUPFD_CLOEXEC => {
            let limit = caller.task.process.limits.soft(abi::RLIMIT_NOFILE);
            let min = u32::try_from(argument as i32).map_err(|_| Errno::EINVAL)?;
            if min as u64 >= limit {
                return Err(Errno::EINVAL);
            }
            Ok(files.insert(file, command == abi::F_DUPFD_CLOEXEC, min, limit)? as u64)
        }
        abi::F_DUPFD_QUERY => {
            let other = files.get_any(argument as u32)?;
            Ok(Arc::ptr_eq(&other, &file) as u64)
        }
        abi::F_CREATED_QUERY => Ok(file.made() as u64),
        abi::F_GETFD => Ok(files.close_on_exec(fd)? as u64),
        abi::F_SETFD => {
            files.set_close_on_exec(fd, argument as u32 & abi::FD_CLOEXEC != 0)?;
            Ok(0)
        }
        // Whatever was opened by a path is good for large files; what was not says no such thing.
        abi::F_GETFL if file.is_path_only() || file.place().mount.id() == 0 => Ok(file.flags() as u64),
        abi::F_GETFL => Ok((file.flags() | abi::O_LARGEFILE) as u64),
        _ if file.is_path_only() => Err(Errno::EBADF),
        abi::F_SETFL => set_flags(&file, fd, argument as u32),
        abi::F_GETLK | abi::F_OFD_GETLK => get_lock(caller, &file, argument, command == abi::F_OFD_GETLK),
        abi::F_SETLK | abi::F_SETLKW => {
            set_lock(caller, fd, &file, argument, command == abi::F_SETLKW, false)
        }
        abi::F_OFD_SETLK | abi::F_OFD_SETLKW => {
            set_lock(caller, fd, &file, argument, command == abi::F_OFD_SETLKW, true)
        }
        abi::F_SETOWN => set_owner(caller, &file, argument as i32),
        abi::F_GETOWN => Ok(told_owner(&file) as u64),
        abi::F_SETOWN_EX => {
            let [kind, number] = halves(user::read_u64(argument)?);
            let target = match kind {
                abi::F_OWNER_TID => Target::Task,
                abi::F_OWNER_PID => Target::Process,
                abi::F_OWNER_PGRP => Target::Group,
                _ => return Err(Errno::EINVAL),
            };
            name_owner(caller, &file, target, number as i32)
        }
        abi::F_GETOWN_EX => {
            let who = living(&file);
            let kind = match who.target {
                Target::Task => abi::F_OWNER_TID,
                Target::Process => abi::F_OWNER_PID,
                Target::Group => abi::F_OWNER_PGRP,
            };
            user::write_u64(argument, u64::from(kind) | (who.number as u32 as u64) << 32)?;
            Ok(0)
        }
        abi::F_GETOWNER_UIDS => {
            let who = file.owner().who();
            user::write_u64(argument, u64::from(who.uid) | u64::from(who.euid) << 32)?;
            Ok(0)
        }
        abi::F_SETSIG if argument > u64::from(LAST) => Err(Errno::EINVAL),
        abi::F_SETSIG => {
            file.owner().set_signal(argument as u32);
            Ok(0)
        }
        abi::F_GETSIG => Ok(file.owner().signal().into()),
        abi::F_GETPIPE_SZ => Ok(end_of_pipe(&file)?.pipe().capacity() as u64),
        abi::F_SETPIPE_SZ => {
            let who = pipe_share::Who::of(&caller.task.cred());
            Ok(end_of_pipe(&file)?.pipe().set_capacity(argument as u32 as usize, who)? as u64)
        }
        abi::F_GET_SEALS => Ok(file.inode().seals()? as u64),
        abi::F_ADD_SEALS => {
            if !file.mode().write {
                return Err(Errno::EPERM);
            }
            file.inode().add_seals(argument as u32)?;
            Ok(0)
        }
        abi::F_GETLEASE => Ok(lease::get(&file).map_or(abi::F_UNLCK, |lease| match lease {
            Lease::Read => abi::F_RDLCK,
            Lease::Write => abi::F_WRLCK,
        }) as u64),
        abi::F_SETLEASE => set_lease(caller, &file, fd, argument as u32),
        abi::F_GET_RW_HINT => {
            let hint = file.inode().writers().map_or(0, |users| users.hint.load(Relaxed));
            user::write_u64(argument, hint.into())?;
            Ok(0)
        }
        abi::F_SET_RW_HINT => {
            caller.task.cred().check_owner(&file.stat()?)?;
            let hint = user::read_u64(argument)?;
            let users = file.inode().writers().ok_or(Errno::EINVAL)?;
            if hint > abi::RWH_WRITE_LIFE_EXTREME.into() {
                return Err(Errno::EINVAL);
            }
            users.hint.store(hint as u32, Relaxed);
            Ok(0)
        }
        // Watching directories by signal was given up for inotify.
        abi::F_NOTIFY if argument as u32 & !abi::DN_MULTISHOT == 0 => Ok(0),
        abi::F_NOTIFY if file.kind() != Kind::Dir => Err(Errno::ENOTDIR),
        _ => Err(Errno::EINVAL),
    }
}

fn end_of_pipe(file: &File) -> Result<&PipeEnd> {
    file.ops_as::<PipeEnd>().ok_or(Errno::EBADF)
}

fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

/// Who gets SIGIO: a process, or a group if negative.
fn set_owner(caller: &Caller, file: &File, number: i32) -> Result<u64> {
    let target = if number < 0 { Target::Group } else { Target::Process };
    name_owner(caller, file, target, number.checked_abs().ok_or(Errno::EINVAL)?)
}

fn name_owner(caller: &Caller, file: &File, target: Target, number: i32) -> Result<u64> {
    if number != 0 && !is_known(number) {
        return Err(Errno::ESRCH);
    }
    let cred = caller.task.cred();
    file.owner().set_who(Who { target, number, uid: cred.uid, euid: cred.euid });
    if file.ops_as::<Socket>().is_some() {
        file.watch_urgent()?;
    }
    Ok(0)
}

/// Whether a number is a task's, a process's or a group's.
fn is_known(number: i32) -> bool {
    table::task(number).is_some()
        || table::process(number).is_some()
        || table::group_members(number).next().is_some()
}

/// Who was named; nobody, if that one has gone.
fn living(file: &File) -> Who {
    let who = file.owner().who();
    let lives = match who.target {
        Target::Task => table::task(who.number).is_some(),
        Target::Process => table::process(who.number).is_some(),
        Target::Group => table::group_members(who.number).next().is_some(),
    };
    if lives { who } else { Who { number: 0, ..who } }
}

fn told_owner(file: &File) -> i64 {
    let who = living(file);
    if who.target == Target::Group { -i64::from(who.number) } else { who.number.into() }
}

fn set_lease(caller: &Caller, file: &File, fd: u32, kind: u32) -> Result<u64> {
    let kind = match kind {
        abi::F_UNLCK => return lease::give_up(file).map(|()| 0),
        abi::F_RDLCK => Lease::Read,
        abi::F_WRLCK => Lease::Write,
        _ => return Err(Errno::EINVAL),
    };
    let cred = caller.task.cred();
    let pid = caller.task.process.pid;
    lease::take(file, &cred, fd, pid as u32, kind)?;
    let owner = file.owner();
    if owner.who().number == 0 {
        owner.set_who(Who { target: Target::Process, number: pid, uid: cred.uid, euid: cred.euid });
    }
    Ok(0)
}

fn set_flags(file: &File, fd: u32, flags: u32) -> Result<u64> {
    if flags & abi::O_DIRECT != 0 && !file.can_direct() {
        return Err(Errno::EINVAL);
    }
    let on = flags & abi::FASYNC != 0;
    if on != (file.flags() & abi::FASYNC != 0) {
        // What has nothing to tell stays silent, and the flag unset.
        match file.set_async(on, fd) {
            Err(Errno::EINVAL) => {}
            done => done?,
        }
    }
    file.set_flags(flags);
    Ok(0)
}

/// `struct flock`: type and whence at 0 and 2, start at 8, length at 16, pid at 24; 32 bytes in all.
struct LockRequest {
    kind: u32,
    start: u64,
    last: u64,
    pid: u32,
}

fn read_lock(file: &File, at: u64) -> Result<LockRequest> {
    let mut b = [0; 32];
    user::copy_from(&mut b, at)?;
    let short = |i: usize| i16::from_ne_bytes([b[i], b[i + 1]]);
    let long = |i: usize| {
        i64::from_ne_bytes([b[i], b[i + 1], b[i + 2], b[i + 3], b[i + 4], b[i + 5], b[i + 6], b[i + 7]])
    };
    let base = match short(2) as u32 {
        abi::SEEK_SET => 0,
        abi::SEEK_CUR => file.offset() as i64,
        abi::SEEK_END => file.stat()?.size as i64,
        _ => return Err(Errno::EINVAL),
    };
    let start = base.checked_add(long(8)).ok_or(Errno::EOVERFLOW)?;
    // A negative length reaches back; 0 is to the end, however far that moves.
    let (start, last) = match long(16) {
        0 => (start, i64::MAX),
        len if len > 0 => (start, start.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?),
        len => (start.checked_add(len).ok_or(Errno::EINVAL)?, start - 1),
    };
    let start = u64::try_from(start).map_err(|_| Errno::EINVAL)?;
    let pid = u32::from_ne_bytes([b[24], b[25], b[26], b[27]]);
    Ok(LockRequest { kind: short(0) as u32, start, last: last as u64, pid })
}

fn owner(caller: &Caller, file: &File, by_file: bool) -> Owner {
    if by_file {
        Owner::Description(file.id())
    } else {
        Owner::Process { table: caller.task.files().id(), pid: caller.task.process.pid as u32 }
    }
}

fn set_lock(caller: &Caller, fd: u32, file: &Arc<File>, at: u64, wait: bool, by_file: bool) -> Result<u64> {
    let want = read_lock(file, at)?;
    if by_file && want.pid != 0 {
        return Err(Errno::EINVAL);
    }
    let id = file.inode().id();
    let owner = owner(caller, file, by_file);
    let mut record = Record { start: want.start, last: want.last, exclusive: false, owner };
    match want.kind {
        abi::F_UNLCK => locks::unlock(id, record)?,
        abi::F_RDLCK if !file.mode().read => return Err(Errno::EBADF),
        abi::F_WRLCK if !file.mode().write => return Err(Errno::EBADF),
        abi::F_RDLCK | abi::F_WRLCK => {
            record.exclusive = want.kind == abi::F_WRLCK;
            locks::lock(id, record, wait)?;
            // Another thread may have closed the descriptor while we waited: then the lock is nobody's.
            let still = caller.task.files().get_any(fd).is_ok_and(|f| Arc::ptr_eq(&f, file));
            if !still && !by_file {
                locks::release_process(id, caller.task.files().id());
                return Err(Errno::EBADF);
            }
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

fn get_lock(caller: &Caller, file: &File, at: u64, by_file: bool) -> Result<u64> {
    let want = read_lock(file, at)?;
    if !matches!(want.kind, abi::F_RDLCK | abi::F_WRLCK) || by_file && want.pid != 0 {
        return Err(Errno::EINVAL);
    }
    let owner = owner(caller, file, by_file);
    let record = Record { start: want.start, last: want.last, exclusive: want.kind == abi::F_WRLCK, owner };
    let Some(found) = locks::test(file.inode().id(), &record) else {
        user::copy_to(at, &(abi::F_UNLCK as i16).to_ne_bytes())?;
        return Ok(0);
    };
    let mut b = [0; 32];
    let kind = if found.exclusive { abi::F_WRLCK } else { abi::F_RDLCK };
    b[..2].copy_from_slice(&(kind as i16).to_ne_bytes());
    b[2..4].copy_from_slice(&(abi::SEEK_SET as i16).to_ne_bytes());
    b[8..16].copy_from_slice(&found.start.to_ne_bytes());
    let len = if found.last >= i64::MAX as u64 { 0 } else { found.last - found.start + 1 };
    b[16..24].copy_from_slice(&len.to_ne_bytes());
    let pid: i32 = match found.owner {
        Owner::Process { pid, .. } => pid as i32,
        Owner::Description(_) => -1,
    };
    b[24..28].copy_from_slice(&pid.to_ne_bytes());
    user::copy_to(at, &b)?;
    Ok(0)
}

fn flock(caller: &mut Caller) -> Result<u64> {
    let [fd, operation, ..] = caller.args();
    let operation = operation as u32;
    if operation & LOCK_MAND != 0 {
        // Mandatory locks, which Linux has given up too: it takes the request and does nothing.
        return Ok(0);
    }
    let exclusive = match operation & !abi::LOCK_NB {
        abi::LOCK_SH => Some(false),
        abi::LOCK_EX => Some(true),
        abi::LOCK_UN => None,
        _ => return Err(Errno::EINVAL),
    };
    let file = at::file(caller, fd)?;
    locks::flock(&file, caller.task.process.pid as u32, exclusive, operation & abi::LOCK_NB == 0)?;
    Ok(0)
}

/// No file system here lets files share their pieces; who asks with the wrong files hears that first.
fn clone_range(caller: &Caller, from: u64, to: &File) -> Result<u64> {
    let from = at::file(caller, from)?;
    if from.kind() == Kind::Dir || to.kind() == Kind::Dir {
        return Err(Errno::EISDIR);
    }
    if !from.is_regular() || !to.is_regular() {
        return Err(Errno::EINVAL);
    }
    if !from.mode().read || !to.mode().write || to.is_append() {
        return Err(Errno::EBADF);
    }
    if !Arc::ptr_eq(from.place().mount.system(), to.place().mount.system()) {
        return Err(Errno::EXDEV);
    }
    Err(Errno::EOPNOTSUPP)
}

fn ioctl(caller: &mut Caller) -> Result<u64> {
    let [fd, code, argument, ..] = caller.args();
    let file = at::file(caller, fd)?;
    let files = caller.task.files();
    match code as u32 {
        request::FIOCLEX => files.set_close_on_exec(fd as u32, true)?,
        request::FIONCLEX => files.set_close_on_exec(fd as u32, false)?,
        request::FIONBIO => file.set_flag(abi::O_NONBLOCK, user::read_u32(argument)? != 0),
        request::FIOASYNC => {
            let on = user::read_u32(argument)? != 0;
            file.set_async(on, fd as u32).map_err(|_| Errno::ENOTTY)?;
        }
        request::FIOSETOWN | request::SIOCSPGRP if file.kind() == Kind::Socket => {
            set_owner(caller, &file, user::read_u32(argument)? as i32)?;
        }
        request::FIOGETOWN | request::SIOCGPGRP if file.kind() == Kind::Socket => {
            user::write_u32(argument, told_owner(&file) as u32)?;
        }
        request::FIONREAD if file.is_regular() => {
            let left = file.stat()?.size.saturating_sub(file.offset());
            user::write_u32(argument, left.min(i32::MAX as u64) as u32)?;
        }
        FIOQSIZE if file.is_regular() || file.kind() == Kind::Dir => {
            user::write_u64(argument, file.stat()?.size)?;
        }
        FIOQSIZE => return Err(Errno::ENOTTY),
        // Where the pieces of a file lie on a disk: there is none.
        FIBMAP if file.is_regular() => {
            let raw = caller.task.cred().may(cap::SYS_RAWIO);
            return Err(if raw { Errno::EINVAL } else { Errno::EPERM });
        }
        USERFAULTFD_NEW if file.kind() == Kind::Char && file.stat()?.rdev == dev::USERFAULT => {
            return advise::new_userfault(caller, argument as u32);
        }
        FIEMAP => return Err(Errno::EOPNOTSUPP),
        FICLONE => return clone_range(caller, argument, &file),
        FICLONERANGE => return clone_range(caller, user::read_u64(argument)?, &file),
        FIGETBSZ => user::write_u32(argument, file.stat()?.blksize)?,
        request::TIOCGPTPEER => {
            let flags = argument as u32;
            let peer = tty::peer(&file, flags)?;
            let limit = caller.task.process.limits.soft(abi::RLIMIT_NOFILE);
            return Ok(files.insert(peer, flags & abi::O_CLOEXEC != 0, 0, limit)? as u64);
        }
        code => return Ok(file.ops().ioctl(code, argument)? as u64),
    }
    Ok(0)
}
