//! Two calls of old about file systems: `ustat(2)` and `sysfs(2)`.
#![forbid(unsafe_code)]

use super::{Calls, user, words};
use crate::errno::{Errno, Result};
use crate::fs::mount;
use crate::process::run::Caller;
use linux_raw_sys::general as abi;

pub const CALLS: &Calls = &[(abi::__NR_ustat, ustat), (abi::__NR_sysfs, sysfs)];

/// How much room there is on a device: `struct ustat` is free blocks (an `int`), free inodes, and two names that are empty.
fn ustat(caller: &mut Caller) -> Result<u64> {
    let [device, to, ..] = caller.args();
    let here = |mount: &&alloc::sync::Arc<mount::Mount>| {
        mount.system().root().inode().id().dev as u32 == device as u32
    };
    let all = mount::all();
    let found = all.iter().find(here).ok_or(Errno::EINVAL)?;
    let stat = found.system().root().inode().statfs()?;
    let mut answer = words::Layout::<32>::new();
    answer.set(0, &(stat.blocks_free as u32).to_ne_bytes());
    answer.set(8, &stat.files_free.to_ne_bytes());
    answer.put(to)?;
    Ok(0)
}

/// The kinds of file systems: the number of a name, the name of a number, how many there are.
fn sysfs(caller: &mut Caller) -> Result<u64> {
    let [what, a, b, ..] = caller.args();
    match what as i32 {
        1 => {
            let name = user::read_string(a, abi::PATH_MAX as usize, Errno::ENAMETOOLONG)?;
            let number = mount::KINDS.iter().position(|kind| kind.as_bytes() == name);
            number.map(|number| number as u64).ok_or(Errno::EINVAL)
        }
        2 => {
            let kind = mount::KINDS.get(a as u32 as usize).ok_or(Errno::EINVAL)?;
            user::copy_to(b, kind.as_bytes())?;
            user::copy_to(b + kind.len() as u64, &[0])?;
            Ok(0)
        }
        3 => Ok(mount::KINDS.len() as u64),
        _ => Err(Errno::EINVAL),
    }
}
