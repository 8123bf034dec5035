//! `swapon(2)` and `swapoff(2)`: what memory is swapped to is the `hafez` command's (`--swap`), and stays so.
//!
//! So both are refused, but as `swapon(2)` says: what is wrong with the arguments is told first.
#![forbid(unsafe_code)]

use super::Calls;
use super::at::{self, Paths};
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::fs::caps::cap;
use crate::fs::inode::Kind;
use crate::process::run::Caller;
use alloc::sync::Arc;
use linux_raw_sys::general as abi;

pub const CALLS: &Calls = &[(abi::__NR_swapon, swapon), (abi::__NR_swapoff, swapoff)];

/// `SWAP_FLAG_PREFER`, a priority, `SWAP_FLAG_DISCARD` with its two kinds.
const FLAGS: u64 = 0x8000 | 0x7fff | 0x10000 | 0x20000 | 0x40000;
/// What the first page of a swap area ends with.
const SIGNATURE: &[u8; 10] = b"SWAPSPACE2";
const SIGNATURE_AT: u64 = 4096 - SIGNATURE.len() as u64;

fn open(caller: &Caller, path: u64) -> Result<Arc<File>> {
    let path = at::path(path)?;
    let paths = Paths::new(caller);
    let base = paths.base(abi::AT_FDCWD as u64, &path)?;
    paths.walker.open(&base, &path, abi::O_RDWR, 0)
}

fn swapon(caller: &mut Caller) -> Result<u64> {
    let [path, flags, ..] = caller.args();
    if flags as u32 as u64 & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    if !caller.task.cred().may(cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let file = open(caller, path)?;
    if !matches!(file.inode().kind(), Kind::File | Kind::Block) {
        return Err(Errno::EINVAL);
    }
    let mut found = [0; SIGNATURE.len()];
    let read = file.read_kernel(SIGNATURE_AT, &mut found)?;
    Err(if read == found.len() && found == *SIGNATURE { Errno::EPERM } else { Errno::EINVAL })
}

/// Whatever the file is, it is not swapped to.
fn swapoff(caller: &mut Caller) -> Result<u64> {
    let [path, ..] = caller.args();
    if !caller.task.cred().may(cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    open(caller, path)?;
    Err(Errno::EINVAL)
}
