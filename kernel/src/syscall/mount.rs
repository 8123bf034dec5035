//! `mount(2)` and `umount2(2)`: file systems in memory, the kernel's own ones, and directories shown a second time.
//!
//! What the `hafez` command has brought in stays what it was: its read-only parts cannot be made writable, and no file system on
//! a disk can be mounted, for there is no disk.
#![forbid(unsafe_code)]

use super::at::{self, Paths};
use super::{Calls, user};
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::fs::mount::{self, FileSystem, Flags, Leave};
use crate::fs::{Location, tmpfs};
use crate::process::run::Caller;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

pub const CALLS: &Calls = &[(abi::__NR_mount, mount), (abi::__NR_umount2, umount)];

const MAGIC: u32 = 0xc0ed_0000;
const MAGIC_MASK: u32 = 0xffff_0000;
/// Set by the kernel for what it does not show to anybody.
const NOUSER: u32 = 1 << 31;
/// How events are passed on to other trees, of which there are none.
const PROPAGATION: u32 = abi::MS_SHARED | abi::MS_PRIVATE | abi::MS_SLAVE | abi::MS_UNBINDABLE;
/// Bytes of options at most: a page; and of the name that a file system is given.
const DATA: usize = 4096;
const NAME: usize = 1024;

fn text(at: u64) -> Result<Option<Vec<u8>>> {
    if at == 0 { Ok(None) } else { user::read_string(at, DATA, Errno::EINVAL).map(Some) }
}

/// The page of options: as much of it as there is, up to its first zero.
fn data(at: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if at == 0 {
        return Ok(bytes);
    }
    bytes.try_reserve_exact(DATA).map_err(|_| Errno::ENOMEM)?;
    let mut one = [0];
    while bytes.len() < DATA - 1 {
        match user::copy_from(&mut one, at.wrapping_add(bytes.len() as u64)) {
            Ok(()) if one[0] != 0 => bytes.push(one[0]),
            Err(_) if bytes.is_empty() => return Err(Errno::EFAULT),
            _ => break,
        }
    }
    Ok(bytes)
}

fn may_mount(caller: &Caller) -> Result<()> {
    if caller.task.cred().may(cap::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
}

/// What the bits of `mount(2)` say of a mount.
fn mount_flags(bits: u32) -> Flags {
    let kept = Flags::NOSUID
        | Flags::NODEV
        | Flags::NOEXEC
        | Flags::NOSYMFOLLOW
        | Flags::NOATIME
        | Flags::NODIRATIME;
    let mut flags = Flags::from_bits_truncate(bits) & (kept | Flags::READ_ONLY);
    let exact = bits & abi::MS_STRICTATIME != 0;
    flags.set(Flags::RELATIME, !flags.contains(Flags::NOATIME) && !exact);
    flags
}

fn mount(caller: &mut Caller) -> Result<u64> {
    let [source, place, kind, flags, options, _] = caller.args();
    let kind = text(kind)?;
    let source = text(source)?;
    let options = data(options)?;
    let path = at::path(place)?;
    let paths = Paths::new(caller);
    let on = paths.find(abi::AT_FDCWD as u64, &path, 0, true)?;
    let mut bits = flags as u32;
    if bits & MAGIC_MASK == MAGIC {
        bits &= !MAGIC_MASK;
    }
    if bits & NOUSER != 0 {
        return Err(Errno::EINVAL);
    }
    may_mount(caller)?;
    let flags = mount_flags(bits);
    if bits & abi::MS_REMOUNT != 0 {
        return remount(&on, bits, flags, &options);
    }
    if bits & abi::MS_BIND != 0 {
        let from = named(&paths, source)?;
        mount::bind(&from, on, bits & abi::MS_REC != 0)?;
        return Ok(0);
    }
    if bits & PROPAGATION != 0 {
        return propagate(&on, bits);
    }
    if bits & abi::MS_MOVE != 0 {
        let from = named(&paths, source)?;
        mount::move_to(from, on)?;
        return Ok(0);
    }
    let kind = kind.ok_or(Errno::EINVAL)?;
    let system = system(&kind, source.as_deref().unwrap_or(b"none"), &options)?;
    if flags.contains(Flags::READ_ONLY) && kind == b"tmpfs" {
        system.set_read_only(true)?;
    }
    let root = system.root().clone();
    mount::attach(system, root, on, flags)?;
    Ok(0)
}

/// What the first argument names, where that is a path.
fn named(paths: &Paths, source: Option<Vec<u8>>) -> Result<Location> {
    let source = source.filter(|source| !source.is_empty()).ok_or(Errno::EINVAL)?;
    paths.find(abi::AT_FDCWD as u64, &source, 0, true)
}

/// A file system of this kind: a new one in memory, or that of the kernel's own of which there is one only.
fn system(kind: &[u8], source: &[u8], options: &[u8]) -> Result<Arc<FileSystem>> {
    if source.len() > NAME {
        return Err(Errno::EINVAL);
    }
    match kind {
        b"tmpfs" => Ok(FileSystem::new(tmpfs::fresh(options)?, "tmpfs", source, false)),
        b"proc" | b"sysfs" | b"devtmpfs" | b"devpts" => {
            let own = crate::fs::own(kind).ok_or(Errno::ENODEV)?;
            let known = kind == b"devpts" || options.is_empty();
            if known { Ok(own) } else { Err(Errno::EINVAL) }
        }
        _ => Err(Errno::ENODEV),
    }
}

fn remount(on: &Location, bits: u32, flags: Flags, options: &[u8]) -> Result<u64> {
    if !on.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    let flags = flags | on.mount.flags() & Flags::UNBINDABLE;
    if bits & abi::MS_BIND == 0 {
        let system = on.mount.system();
        let read_only = flags.contains(Flags::READ_ONLY);
        if system.kind == "tmpfs" {
            tmpfs::reconfigure(system.root().inode(), options)?;
        } else if !options.is_empty() && system.kind != "devpts" {
            return Err(Errno::EINVAL);
        }
        system.set_read_only(read_only)?;
    }
    on.mount.set_flags(flags)?;
    Ok(0)
}

/// All mounts are private: that can be said again, and a slave without a master is nothing else. There is nobody to share with.
fn propagate(on: &Location, bits: u32) -> Result<u64> {
    let kind = bits & PROPAGATION;
    if bits & !(PROPAGATION | abi::MS_REC | abi::MS_SILENT) != 0 || !kind.is_power_of_two() {
        return Err(Errno::EINVAL);
    }
    if !on.is_mount_root() || kind == abi::MS_SHARED {
        return Err(Errno::EINVAL);
    }
    let mut flags = on.mount.flags();
    flags.set(Flags::UNBINDABLE, kind == abi::MS_UNBINDABLE);
    on.mount.set_flags(flags)?;
    Ok(0)
}

fn umount(caller: &mut Caller) -> Result<u64> {
    let [place, flags, ..] = caller.args();
    let known = abi::MNT_FORCE | abi::MNT_DETACH | abi::MNT_EXPIRE | abi::UMOUNT_NOFOLLOW;
    let flags = at::check_flags(flags, known)?;
    let path = at::path(place)?;
    let place = {
        let walker = Paths::new(caller).walker;
        walker.resolve(&walker.start(&path), &path, flags & abi::UMOUNT_NOFOLLOW == 0)?
    };
    may_mount(caller)?;
    if !place.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    let how = match flags & (abi::MNT_FORCE | abi::MNT_DETACH | abi::MNT_EXPIRE) {
        abi::MNT_EXPIRE => Leave::Expired,
        other if other & abi::MNT_EXPIRE != 0 => return Err(Errno::EINVAL),
        other if other & abi::MNT_DETACH != 0 => Leave::Detached,
        _ => Leave::Idle,
    };
    mount::detach(place, how)?;
    Ok(0)
}
