//! Watching files: `inotify_init1`, `inotify_add_watch`, `inotify_rm_watch`.

use super::Calls;
use super::at::{self, Paths, check_flags};
use crate::errno::{Errno, Result};
use crate::fs::cred::want;
use crate::fs::inotify::{self, Instance};
use crate::fs::{File, anon};
use crate::process::run::Caller;
use alloc::sync::Arc;
use linux_raw_sys::general as abi;

pub const CALLS: &Calls = &[
    (abi::__NR_inotify_init, init),
    (abi::__NR_inotify_init1, init1),
    (abi::__NR_inotify_add_watch, add_watch),
    (abi::__NR_inotify_rm_watch, rm_watch),
];

fn make(caller: &Caller, flags: u32) -> Result<u64> {
    let file = anon::open(Instance::new()?, "inotify", flags & abi::O_NONBLOCK | abi::O_RDONLY)?;
    at::install(caller, file, flags & abi::O_CLOEXEC != 0)
}

fn init(caller: &mut Caller) -> Result<u64> {
    make(caller, 0)
}

fn init1(caller: &mut Caller) -> Result<u64> {
    let [flags, ..] = caller.args();
    let flags = check_flags(flags, abi::O_CLOEXEC | abi::O_NONBLOCK)?;
    make(caller, flags)
}

fn instance(file: &Arc<File>) -> Result<&Instance> {
    file.ops_as::<Instance>().ok_or(Errno::EINVAL)
}

fn add_watch(caller: &mut Caller) -> Result<u64> {
    let [fd, path, mask, ..] = caller.args();
    let mask = mask as u32;
    if !inotify::is_mask(mask) {
        return Err(Errno::EINVAL);
    }
    let file = at::file(caller, fd)?;
    let instance = instance(&file)?;
    let path = at::path(path)?;
    let paths = Paths::new(caller);
    let place = paths.find(abi::AT_FDCWD as u64, &path, 0, mask & inotify::DONT_FOLLOW == 0)?;
    if mask & inotify::ONLYDIR != 0 && !place.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    place.inode().permission(&paths.walker.cred, want::READ)?;
    Ok(instance.add(place.inode(), mask)? as u64)
}

fn rm_watch(caller: &mut Caller) -> Result<u64> {
    let [fd, number, ..] = caller.args();
    let file = at::file(caller, fd)?;
    instance(&file)?.remove(number as i32)?;
    Ok(0)
}
