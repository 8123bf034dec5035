//! What calls on files have in common: descriptors, paths, and where they begin.

use super::user;
use crate::errno::{Errno, Result};
use crate::fs::cred::want;
use crate::fs::{File, Location, Walker};
use crate::process::files::FileTable;
use crate::process::run::Caller;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

/// The open file of a descriptor, for doing something with it.
#[inline(always)]
pub fn file(caller: &Caller, fd: u64) -> Result<Arc<File>> {
    caller.task.file(fd as u32)
}

/// Give the file a descriptor.
pub fn install(caller: &Caller, file: Arc<File>, close_on_exec: bool) -> Result<u64> {
    let limit = caller.task.process.limits.soft(abi::RLIMIT_NOFILE);
    Ok(caller.task.files().insert(file, close_on_exec, 0, limit)? as u64)
}

/// A path from the program's memory.
pub fn path(at: u64) -> Result<Vec<u8>> {
    user::read_string(at, abi::PATH_MAX as usize, Errno::ENAMETOOLONG)
}

/// One who walks for the caller.
pub struct Paths {
    pub walker: Walker,
    files: Arc<FileTable>,
}

impl Paths {
    pub fn new(caller: &Caller) -> Paths {
        let walker = caller.task.fs().walker(caller.task.cred());
        Paths { walker, files: caller.task.files() }
    }

    /// Where `path` begins, given a directory descriptor or AT_FDCWD.
    pub fn base(&self, dir: u64, path: &[u8]) -> Result<Location> {
        if path.first() == Some(&b'/') || dir as i32 == abi::AT_FDCWD {
            return Ok(self.walker.start(path));
        }
        let file = self.files.get_any(dir as u32)?;
        if !path.is_empty() && !file.place().is_dir() {
            return Err(Errno::ENOTDIR);
        }
        Ok(file.place().clone())
    }

    /// What `path` names, as AT_EMPTY_PATH and `follow` say.
    pub fn find(&self, dir: u64, path: &[u8], flags: u32, follow: bool) -> Result<Location> {
        if path.is_empty() && flags & abi::AT_EMPTY_PATH == 0 {
            return Err(Errno::ENOENT);
        }
        let base = self.base(dir, path)?;
        if path.is_empty() && flags & abi::AT_EMPTY_PATH != 0 {
            return Ok(base);
        }
        let place = self.walker.resolve(&base, path, follow)?;
        place.mount.used();
        Ok(place)
    }
}

/// Whether the caller may be told which of a file's pages are in RAM: who may write to it, or owns it. Others could learn from
/// that what somebody else reads.
pub fn may_know_pages(caller: &Caller, file: &File) -> bool {
    if file.mode().write {
        return true;
    }
    let cred = caller.task.cred();
    cred.passes()
        || file
            .stat()
            .is_ok_and(|stat| cred.check_owner(&stat).is_ok() || cred.check(&stat, want::WRITE).is_ok())
}

/// `EINVAL` for flags that are not among `known`.
pub fn check_flags(flags: u64, known: u32) -> Result<u32> {
    if flags as u32 & !known == 0 { Ok(flags as u32) } else { Err(Errno::EINVAL) }
}
