//! Extended attributes: `getxattr`, `setxattr`, `listxattr`, `removexattr`, each by path, by link, by descriptor.

use super::at::{self, Paths, check_flags};
use super::{Calls, user};
use crate::errno::{Errno, Result};
use crate::fs::{Cred, Location, xattr};
use crate::process::run::Caller;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

pub const CALLS: &Calls = &[
    (abi::__NR_getxattr, getxattr),
    (abi::__NR_lgetxattr, lgetxattr),
    (abi::__NR_fgetxattr, fgetxattr),
    (abi::__NR_setxattr, setxattr),
    (abi::__NR_lsetxattr, lsetxattr),
    (abi::__NR_fsetxattr, fsetxattr),
    (abi::__NR_removexattr, removexattr),
    (abi::__NR_lremovexattr, lremovexattr),
    (abi::__NR_fremovexattr, fremovexattr),
    (abi::__NR_listxattr, listxattr),
    (abi::__NR_llistxattr, llistxattr),
    (abi::__NR_flistxattr, flistxattr),
];

/// How the first argument names the file.
#[derive(Clone, Copy)]
enum By {
    Path,
    Link,
    Descriptor,
}

fn find(caller: &Caller, what: u64, by: By) -> Result<(Location, Arc<Cred>)> {
    let paths = Paths::new(caller);
    let place = match by {
        By::Descriptor => at::file(caller, what)?.place().clone(),
        _ => paths.find(abi::AT_FDCWD as u64, &at::path(what)?, 0, matches!(by, By::Path))?,
    };
    Ok((place, paths.walker.cred))
}

fn name(at: u64) -> Result<Vec<u8>> {
    let name = user::read_string(at, xattr::NAME_MAX + 1, Errno::ERANGE)?;
    if name.is_empty() { Err(Errno::ERANGE) } else { Ok(name) }
}

/// Hand over bytes, or (no room at all) only say how many there are.
fn give(bytes: &[u8], to: u64, room: u64) -> Result<u64> {
    if room != 0 {
        if bytes.len() as u64 > room {
            return Err(Errno::ERANGE);
        }
        user::copy_to(to, bytes)?;
    }
    Ok(bytes.len() as u64)
}

fn get(caller: &Caller, by: By) -> Result<u64> {
    let [what, at, to, room, ..] = caller.args();
    let (place, cred) = find(caller, what, by)?;
    give(&xattr::get(&place, &cred, &name(at)?)?, to, room)
}

fn set(caller: &Caller, by: By) -> Result<u64> {
    let [what, at, from, size, flags, ..] = caller.args();
    let flags = check_flags(flags, xattr::CREATE | xattr::REPLACE)?;
    let name = name(at)?;
    if size > xattr::SIZE_MAX as u64 {
        return Err(Errno::E2BIG);
    }
    let mut value = crate::mem::zeroed(size as usize)?;
    user::copy_from(&mut value, from)?;
    let (place, cred) = find(caller, what, by)?;
    xattr::set(&place, &cred, &name, &value, flags)?;
    Ok(0)
}

fn remove(caller: &Caller, by: By) -> Result<u64> {
    let [what, at, ..] = caller.args();
    let (place, cred) = find(caller, what, by)?;
    xattr::remove(&place, &cred, &name(at)?)?;
    Ok(0)
}

fn list(caller: &Caller, by: By) -> Result<u64> {
    let [what, to, room, ..] = caller.args();
    let (place, cred) = find(caller, what, by)?;
    give(&xattr::list(&place, &cred)?, to, room)
}

fn getxattr(caller: &mut Caller) -> Result<u64> {
    get(caller, By::Path)
}
fn lgetxattr(caller: &mut Caller) -> Result<u64> {
    get(caller, By::Link)
}
fn fgetxattr(caller: &mut Caller) -> Result<u64> {
    get(caller, By::Descriptor)
}
fn setxattr(caller: &mut Caller) -> Result<u64> {
    set(caller, By::Path)
}
fn lsetxattr(caller: &mut Caller) -> Result<u64> {
    set(caller, By::Link)
}
fn fsetxattr(caller: &mut Caller) -> Result<u64> {
    set(caller, By::Descriptor)
}
fn removexattr(caller: &mut Caller) -> Result<u64> {
    remove(caller, By::Path)
}
fn lremovexattr(caller: &mut Caller) -> Result<u64> {
    remove(caller, By::Link)
}
fn fremovexattr(caller: &mut Caller) -> Result<u64> {
    remove(caller, By::Descriptor)
}
fn listxattr(caller: &mut Caller) -> Result<u64> {
    list(caller, By::Path)
}
fn llistxattr(caller: &mut Caller) -> Result<u64> {
    list(caller, By::Link)
}
fn flistxattr(caller: &mut Caller) -> Result<u64> {
    list(caller, By::Descriptor)
}
