//! `process_vm_readv(2)` and `process_vm_writev(2)`.
#![forbid(unsafe_code)]

use super::{Calls, words};
use crate::arch::user;
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::process::dump::dumpable;
use crate::process::run::Caller;
use crate::process::{Image, Task, foreign, table};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use hafez_mm::{Rights, VirtAddr};
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls =
    &[(abi::__NR_process_vm_readv, process_vm_readv), (abi::__NR_process_vm_writev, process_vm_writev)];

/// Bytes that go through the kernel's buffer at once.
const PIECE: usize = 1024;

/// An address and what is left of its length.
pub(super) type Part = (u64, u64);

fn process_vm_readv(caller: &mut Caller) -> Result<u64> {
    transfer(caller, |image, local, remote, piece| {
        // The processor reads what may be written or executed; but who does not say so has not got the right.
        let region = image.space().region_at(VirtAddr(remote));
        if !region.is_some_and(|region| region.rights.contains(Rights::READ)) {
            return Err(Errno::EFAULT);
        }
        foreign::read(image, remote, piece)?;
        Ok(user::copy_to(local, piece)?)
    })
}

fn process_vm_writev(caller: &mut Caller) -> Result<u64> {
    transfer(caller, |image, local, remote, piece| {
        user::copy_from(piece, local)?;
        foreign::write(image, remote, piece)
    })
}

/// The parts of an `iovec` list. EINVAL for more than there may be, or a sum that is no size.
pub(super) fn parts(at: u64, count: u64) -> Result<Vec<Part>> {
    if count > u64::from(abi::UIO_MAXIOV) {
        return Err(Errno::EINVAL);
    }
    let mut parts = Vec::new();
    parts.try_reserve_exact(count as usize)?;
    let mut sum = 0u64;
    for i in 0..count {
        let [base, len] = words::get(at.wrapping_add(16 * i))?;
        sum = sum.checked_add(len).filter(|&sum| sum <= i64::MAX as u64).ok_or(Errno::EINVAL)?;
        parts.push((base, len));
    }
    Ok(parts)
}

/// Whether the caller may look into the other process: the same person, and no process that hides itself.
fn target(caller: &Caller, pid: u64) -> Result<Arc<Image>> {
    let task = table::task(pid as i32).ok_or(Errno::ESRCH)?;
    may_look(caller, &task)?;
    task.image().ok_or(Errno::ESRCH)
}

/// EPERM unless the caller may look into that task.
pub fn may_look(caller: &Caller, task: &Task) -> Result<()> {
    let (mine, theirs) = (caller.task.cred(), task.cred());
    let same = [theirs.uid, theirs.euid, theirs.suid].iter().all(|&uid| uid == mine.uid)
        && [theirs.gid, theirs.egid, theirs.sgid].iter().all(|&gid| gid == mine.gid)
        && task.process.dumpable.load(Relaxed) == dumpable::USER;
    let own = task.process.pid == caller.task.process.pid;
    if own || same || mine.may(cap::SYS_PTRACE) { Ok(()) } else { Err(Errno::EPERM) }
}

/// Move bytes piece by piece; how many got through before the first that could not.
fn transfer(caller: &Caller, step: impl Fn(&Image, u64, u64, &mut [u8]) -> Result<()>) -> Result<u64> {
    let [pid, local, local_count, remote, remote_count, flags] = caller.args();
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let (local, remote) = (parts(local, local_count)?, parts(remote, remote_count)?);
    let image = target(caller, pid)?;
    let (mut local, mut remote) = (local.into_iter(), remote.into_iter());
    let (mut here, mut there): (Part, Part) = ((0, 0), (0, 0));
    let mut done = 0;
    loop {
        while here.1 == 0 {
            let Some(next) = local.next() else { return Ok(done) };
            here = next;
        }
        while there.1 == 0 {
            let Some(next) = remote.next() else { return Ok(done) };
            there = next;
        }
        // A piece ends with a page of the other's, so that what lies before a bad page still counts.
        let to_page = 4096 - there.0 % 4096;
        let len = here.1.min(there.1).min(to_page).min(PIECE as u64);
        let mut piece = [0; PIECE];
        match step(&image, here.0, there.0, &mut piece[..len as usize]) {
            Ok(()) => {}
            Err(error) => return if done > 0 { Ok(done) } else { Err(error) },
        }
        done += len;
        here = (here.0 + len, here.1 - len);
        there = (there.0 + len, there.1 - len);
    }
}
