//! Extended attributes: what any file system has to say about them before the file's own is asked (`xattr(7)`).
//!
//! | names | who may read | who may write |
//! |---|---|---|
//! | `user.*` | who may read the file | who may write it; only on files and directories |
//! | `trusted.*` | root | root |
//! | `security.*` | all | root |
//! | others | `EOPNOTSUPP`; access control lists (`system.posix_acl_*`): nobody has any | |
//!
//! [`Store`] keeps them for a file system in memory.

use super::{
    cred::{Cred, want},
    inode::{Inode, Kind},
    inotify,
    path::Location,
};
use crate::fs::caps::cap;
use crate::{
    errno::{Errno, Result},
    mem,
};
use alloc::{boxed::Box, collections::BTreeMap, sync::Arc, vec::Vec};
use hafez_mm::lock::Mutex;
use linux_raw_sys::general as abi;

/// The longest name, and the most bytes of a value and of a list.
pub const NAME_MAX: usize = 255;
pub const SIZE_MAX: usize = 65536;

/// Must not be there yet; must be there.
pub const CREATE: u32 = 1;
pub const REPLACE: u32 = 2;

#[derive(Clone, Copy, PartialEq)]
enum Class {
    User,
    Trusted,
    Security,
    Acl,
    /// No attribute can have such a name: what to answer once the file's permission bits allow the access.
    Wrong(Errno),
}

fn class(name: &[u8]) -> Class {
    let prefixes =
        [(&b"user."[..], Class::User), (b"trusted.", Class::Trusted), (b"security.", Class::Security)];
    for (prefix, class) in prefixes {
        if let Some(rest) = name.strip_prefix(prefix) {
            return if rest.is_empty() { Class::Wrong(Errno::EINVAL) } else { class };
        }
    }
    match name {
        b"system.posix_acl_access" | b"system.posix_acl_default" => Class::Acl,
        _ => Class::Wrong(Errno::EOPNOTSUPP),
    }
}

/// Whether `cred` may touch attributes of this class; `none` is the answer to a reader who may not.
fn check(inode: &Arc<dyn Inode>, cred: &Cred, class: Class, write: bool) -> Result<()> {
    let wanted = if write { want::WRITE } else { want::READ };
    let refused = || Err(if write { Errno::EPERM } else { Errno::ENODATA });
    match class {
        Class::Trusted if !cred.may(cap::SYS_ADMIN) => refused(),
        Class::Security if write && !cred.may(cap::SYS_ADMIN) => Err(Errno::EPERM),
        Class::User if !matches!(inode.kind(), Kind::File | Kind::Dir) => refused(),
        Class::User => {
            if write && inode.kind() == Kind::Dir {
                let stat = inode.stat()?;
                if stat.mode & abi::S_ISVTX != 0 {
                    cred.check_owner(&stat)?;
                }
            }
            inode.permission(cred, wanted)
        }
        Class::Wrong(answer) => inode.permission(cred, wanted).and(Err(answer)),
        _ => Ok(()),
    }
}

/// `getxattr(2)`.
pub fn get(place: &Location, cred: &Cred, name: &[u8]) -> Result<Vec<u8>> {
    let inode = place.inode();
    let class = class(name);
    check(inode, cred, class, false)?;
    if class == Class::Acl { inode.xattrs().and(Err(Errno::ENODATA)) } else { inode.xattr(name) }
}

/// `setxattr(2)`.
pub fn set(place: &Location, cred: &Cred, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
    place.mount.check_writable()?;
    let class = class(name);
    check(place.inode(), cred, class, true)?;
    if class == Class::Acl {
        return Err(Errno::EOPNOTSUPP);
    }
    place.inode().set_xattr(name, value, flags)?;
    inotify::fire(place, inotify::ATTRIB);
    Ok(())
}

/// `removexattr(2)`.
pub fn remove(place: &Location, cred: &Cred, name: &[u8]) -> Result<()> {
    place.mount.check_writable()?;
    let class = class(name);
    check(place.inode(), cred, class, true)?;
    if class == Class::Acl {
        return Err(Errno::ENODATA);
    }
    place.inode().remove_xattr(name)?;
    inotify::fire(place, inotify::ATTRIB);
    Ok(())
}

/// `listxattr(2)`: names, each with a NUL behind it; those that the caller may not read are not told.
pub fn list(place: &Location, cred: &Cred) -> Result<Vec<u8>> {
    let all = match place.inode().xattrs() {
        Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        all => all?,
    };
    let mut names = Vec::new();
    for name in all.split_inclusive(|b| *b == 0) {
        if cred.may(cap::SYS_ADMIN) || !name.starts_with(b"trusted.") {
            names.extend_from_slice(name);
        }
    }
    Ok(names)
}

/// The attributes of one file, in memory.
#[derive(Default)]
pub struct Store(Mutex<Values>);

type Values = BTreeMap<Box<[u8]>, Box<[u8]>>;

impl Store {
    pub fn get(&self, name: &[u8]) -> Result<Vec<u8>> {
        let all = self.0.lock();
        let value = all.get(name).ok_or(Errno::ENODATA)?;
        let mut copy = Vec::new();
        copy.try_reserve_exact(value.len())?;
        copy.extend_from_slice(value);
        Ok(copy)
    }
    pub fn set(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        if !mem::headroom(name.len() + value.len() + 256) {
            return Err(Errno::ENOSPC);
        }
        let (new_name, new_value) = (Box::from(name), Box::from(value));
        let mut all = self.0.lock();
        match all.contains_key(name) {
            true if flags & CREATE != 0 => return Err(Errno::EEXIST),
            false if flags & REPLACE != 0 => return Err(Errno::ENODATA),
            _ => {}
        }
        let old = all.insert(new_name, new_value);
        drop(all);
        drop(old);
        Ok(())
    }
    pub fn remove(&self, name: &[u8]) -> Result<()> {
        let old = self.0.lock().remove(name);
        old.map(|_| ()).ok_or(Errno::ENODATA)
    }
    pub fn list(&self) -> Result<Vec<u8>> {
        let mut names = Vec::new();
        for name in self.0.lock().keys() {
            names.try_reserve(name.len() + 1)?;
            names.extend_from_slice(name);
            names.push(0);
        }
        Ok(names)
    }
}
