//! What stays in RAM: `msync`, `mincore`, `cachestat`, `mlock` and its kin; and `membarrier`.
//!
//! Wiring (`mlock`) takes frames from everyone else for good, so it is bounded by `RLIMIT_MEMLOCK`; root is not bound by that,
//! but by the memory core, which keeps what the machine needs. `MLOCK_ONFAULT` wires what is there, and the rest as
//! it comes.
#![forbid(unsafe_code)]

use super::memory::{aligned, may_wire, pages, user_range};
use super::{Calls, at, words};
use crate::arch::{self, user};
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::fs::file::Mapping;
use crate::mem::TryPush;
use crate::mem::memory;
use crate::process::image::flags::{
    LOCK_FUTURE, LOCK_ON_FAULT, MEMBARRIER, MEMBARRIER_CORE, MEMBARRIER_GLOBAL, MEMBARRIER_TOLD,
};
use crate::process::limits::INFINITY;
use crate::process::run::Caller;
use core::sync::atomic::Ordering::Relaxed;
use hafez_mm::{CacheStat, MmError, PAGE_SHIFT, PAGE_SIZE, PageRange, USER_END, USER_START, VirtAddr, Vpn};
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[
    (abi::__NR_cachestat, cachestat),
    (abi::__NR_msync, msync),
    (abi::__NR_mincore, mincore),
    (abi::__NR_mlock, mlock),
    (abi::__NR_mlock2, mlock2),
    (abi::__NR_munlock, munlock),
    (abi::__NR_mlockall, mlockall),
    (abi::__NR_munlockall, munlockall),
    (abi::__NR_membarrier, membarrier),
];

/// The pages of `[at, at + len)`, `at` aligned; `wrap` if the end is not an address. As in Linux, a length that cannot be
/// rounded up to pages is 0. What lies outside the user half has no regions: calls find that out by themselves.
pub(super) fn range(at: u64, len: u64, wrap: Errno) -> Result<PageRange> {
    if !aligned(at) {
        return Err(Errno::EINVAL);
    }
    let count = pages(len).unwrap_or(0);
    (count << PAGE_SHIFT).checked_add(at).ok_or(wrap)?;
    PageRange::sized(VirtAddr(at).page(), count).ok_or(wrap)
}

/// The part of a range that can hold regions, and whether that is all of it.
pub(super) fn in_user_half(range: PageRange) -> (PageRange, bool) {
    let part = range.intersect(&PageRange::new(USER_START, USER_END));
    (part, part == range)
}

fn msync(caller: &mut Caller) -> Result<u64> {
    let [at, len, flags, ..] = caller.args();
    let flags = flags as u32;
    const BOTH: u32 = abi::MS_ASYNC | abi::MS_SYNC;
    if flags & !(BOTH | abi::MS_INVALIDATE) != 0 || !aligned(at) || flags & BOTH == BOTH {
        return Err(Errno::EINVAL);
    }
    let range = range(at, len, Errno::ENOMEM)?;
    if range.is_empty() {
        return Ok(0);
    }
    let (part, whole) = in_user_half(range);
    if part.is_empty() {
        return Err(Errno::ENOMEM);
    }
    if flags & abi::MS_INVALIDATE != 0 && memory().is_locked(caller.space(), part) {
        return Err(Errno::EBUSY);
    }
    if flags & abi::MS_SYNC != 0 {
        memory().sync(caller.space(), part)?;
    } else if !memory().is_mapped(caller.space(), part) {
        return Err(Errno::ENOMEM);
    }
    if whole { Ok(0) } else { Err(Errno::ENOMEM) }
}

/// Pages that one round of `mincore` asks about.
const ROUND: usize = 512;

fn mincore(caller: &mut Caller) -> Result<u64> {
    let [at, len, to, ..] = caller.args();
    if !aligned(at) {
        return Err(Errno::EINVAL);
    }
    let range = user_range(at, len).ok_or(Errno::ENOMEM)?;
    if !user::in_user_half(to, range.len() as usize) {
        return Err(Errno::EFAULT);
    }
    let mut start = range.start;
    while start < range.end {
        let part = PageRange::new(start, Vpn(range.end.0.min(start.0 + ROUND as u64)));
        let mut answer = [0u8; ROUND];
        memory().residency(caller.space(), part, &mut |page, resident| {
            if part.contains(page) {
                answer[page.since(part.start) as usize] = u8::from(resident);
            }
        })?;
        user::copy_to(to + start.since(range.start), &answer[..part.len() as usize])?;
        start = part.end;
    }
    Ok(0)
}

/// What is cached of a file: pages that are in RAM, that are dirty, that are being written, that were put out, and were so lately.
fn cachestat(caller: &mut Caller) -> Result<u64> {
    let [fd, range, to, flags, ..] = caller.args();
    let file = at::file(caller, fd)?;
    let [offset, len] = words::get(range)?;
    if !at::may_know_pages(caller, &file) {
        return Err(Errno::EPERM);
    }
    if flags as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let last = if len == 0 { u64::MAX } else { offset.wrapping_add(len - 1) };
    let stat = match file.ops().mapping(false) {
        Ok(Mapping::Object(object)) => memory().cache_stat(&object, offset >> PAGE_SHIFT, last >> PAGE_SHIFT),
        _ => CacheStat::default(),
    };
    words::put(to, [stat.cached, stat.dirty, stat.writing, stat.evicted, stat.recent])?;
    Ok(0)
}

fn mlock(caller: &mut Caller) -> Result<u64> {
    lock(caller, false)
}

fn lock(caller: &mut Caller, on_fault: bool) -> Result<u64> {
    let [at, len, ..] = caller.args();
    // Unlike most, these take any address, and mean the pages that the bytes touch.
    let lead = at & (PAGE_SIZE as u64 - 1);
    let len = len.wrapping_add(lead);
    let range = range(at - lead, len, Errno::EINVAL)?;
    let limits = &caller.task.process.limits;
    if limits.soft(abi::RLIMIT_MEMLOCK) == 0 && !caller.task.cred().may(cap::IPC_LOCK) {
        return Err(Errno::EPERM);
    }
    if range.is_empty() {
        return Ok(0);
    }
    if !may_wire(caller, range.len() - wired_in(caller, range)) {
        return Err(Errno::ENOMEM);
    }
    let (part, whole) = in_user_half(range);
    // Where nothing is mapped at its beginning nothing is locked at all.
    if part.is_empty() || caller.space().region_at(part.start.addr()).is_none() {
        return Err(Errno::ENOMEM);
    }
    wire(caller, part, on_fault)?;
    if whole { Ok(0) } else { Err(Errno::ENOMEM) }
}

/// Pages of `range` that are wired already.
fn wired_in(caller: &Caller, range: PageRange) -> u64 {
    if caller.task.process.limits.soft(abi::RLIMIT_MEMLOCK) == INFINITY {
        return 0;
    }
    let mut sum = 0;
    caller.space().for_each_region(&mut |region| {
        sum += if region.wired { region.range.intersect(&range).len() } else { 0 };
    });
    sum
}

fn mlock2(caller: &mut Caller) -> Result<u64> {
    let [_, _, flags, ..] = caller.args();
    const ON_FAULT: u64 = abi::MLOCK_ONFAULT as u64;
    match flags {
        0 => lock(caller, false),
        ON_FAULT => lock(caller, true),
        _ => Err(Errno::EINVAL),
    }
}

fn wire(caller: &Caller, range: PageRange, on_fault: bool) -> core::result::Result<(), MmError> {
    match on_fault {
        true => memory().wire_as_they_come(caller.space(), range),
        false => memory().wire(caller.space(), range, true),
    }
}

fn munlock(caller: &mut Caller) -> Result<u64> {
    let [at, len, ..] = caller.args();
    let lead = at & (PAGE_SIZE as u64 - 1);
    let len = len.wrapping_add(lead);
    let range = range(at - lead, len, Errno::EINVAL)?;
    if range.is_empty() {
        return Ok(0);
    }
    let (part, whole) = in_user_half(range);
    if part.is_empty() {
        return Err(Errno::ENOMEM);
    }
    memory().wire(caller.space(), part, false)?;
    if whole { Ok(0) } else { Err(Errno::ENOMEM) }
}

fn mlockall(caller: &mut Caller) -> Result<u64> {
    let [flags, ..] = caller.args();
    let flags = flags as u32;
    let on_fault = flags & abi::MCL_ONFAULT != 0;
    let which = flags & (abi::MCL_CURRENT | abi::MCL_FUTURE);
    if which == 0 || flags & !(which | abi::MCL_ONFAULT) != 0 {
        return Err(Errno::EINVAL);
    }
    let limit = caller.task.process.limits.soft(abi::RLIMIT_MEMLOCK);
    if !caller.task.cred().may(cap::IPC_LOCK) {
        if limit == 0 {
            return Err(Errno::EPERM);
        }
        let all = caller.space().total_pages();
        if flags & abi::MCL_CURRENT != 0 && limit != INFINITY && all > limit >> PAGE_SHIFT {
            return Err(Errno::ENOMEM);
        }
    }
    caller.image.flags.fetch_and(!(LOCK_FUTURE | LOCK_ON_FAULT), Relaxed);
    if flags & abi::MCL_FUTURE != 0 {
        caller.image.flags.fetch_or(LOCK_FUTURE | if on_fault { LOCK_ON_FAULT } else { 0 }, Relaxed);
    }
    if flags & abi::MCL_CURRENT != 0 {
        for range in regions(caller)? {
            // Linux too leaves out what cannot be brought in (past a file's end, no rights).
            let _ = wire(caller, range, on_fault);
        }
    }
    Ok(0)
}

fn munlockall(caller: &mut Caller) -> Result<u64> {
    caller.image.flags.fetch_and(!(LOCK_FUTURE | LOCK_ON_FAULT), Relaxed);
    for range in regions(caller)? {
        memory().wire(caller.space(), range, false)?;
    }
    Ok(0)
}

fn regions(caller: &Caller) -> Result<alloc::vec::Vec<PageRange>> {
    let mut ranges = alloc::vec::Vec::new();
    let mut room = true;
    caller.space().for_each_region(&mut |region| room &= ranges.try_push(region.range).is_ok());
    if room { Ok(ranges) } else { Err(Errno::ENOMEM) }
}

/// A context switch is a full barrier for who leaves a CPU; those that run pass through one by an interrupt. With one CPU
/// whoever asks is the only one running, and there is nothing left to do.
fn membarrier(caller: &mut Caller) -> Result<u64> {
    use abi::membarrier_cmd as cmd;
    let [command, flags, ..] = caller.args();
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    const GLOBAL: u64 = cmd::MEMBARRIER_CMD_GLOBAL as u64;
    const GLOBAL_EXPEDITED: u64 = cmd::MEMBARRIER_CMD_GLOBAL_EXPEDITED as u64;
    const JOIN_GLOBAL: u64 = cmd::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED as u64;
    const PRIVATE: u64 = cmd::MEMBARRIER_CMD_PRIVATE_EXPEDITED as u64;
    const JOIN_PRIVATE: u64 = cmd::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED as u64;
    const SYNC_CORE: u64 = cmd::MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE as u64;
    const JOIN_SYNC_CORE: u64 = cmd::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE as u64;
    /// Since 6.3.
    const JOINED: u64 = 1 << 9;
    let known = [
        (MEMBARRIER_GLOBAL, JOIN_GLOBAL),
        (MEMBARRIER_TOLD, JOIN_PRIVATE),
        (MEMBARRIER_CORE, JOIN_SYNC_CORE),
    ];
    let joined = caller.image.flags.load(Relaxed);
    match command {
        0 => {
            let joins = known.iter().fold(0, |all, (_, join)| all | join);
            Ok(GLOBAL | GLOBAL_EXPEDITED | PRIVATE | SYNC_CORE | JOINED | joins)
        }
        JOINED => {
            Ok(known.iter().filter(|(flag, _)| joined & flag != 0).fold(0, |all, (_, join)| all | join))
        }
        JOIN_GLOBAL => {
            caller.image.flags.fetch_or(MEMBARRIER_GLOBAL, Relaxed);
            Ok(0)
        }
        GLOBAL | GLOBAL_EXPEDITED => {
            arch::smp::barrier();
            Ok(0)
        }
        JOIN_PRIVATE => {
            caller.image.flags.fetch_or(MEMBARRIER | MEMBARRIER_TOLD, Relaxed);
            Ok(0)
        }
        JOIN_SYNC_CORE => {
            caller.image.flags.fetch_or(MEMBARRIER_CORE | MEMBARRIER_TOLD, Relaxed);
            Ok(0)
        }
        PRIVATE if joined & MEMBARRIER == 0 => Err(Errno::EPERM),
        SYNC_CORE if joined & MEMBARRIER_CORE == 0 => Err(Errno::EPERM),
        PRIVATE => {
            arch::smp::barrier();
            Ok(0)
        }
        // The others serialize as they leave the interrupt; who asks does so here.
        SYNC_CORE => {
            arch::smp::barrier();
            arch::cpu::serialize();
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}
