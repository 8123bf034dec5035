//! System V's shared memory, semaphores and messages: what the calls take and give.
#![forbid(unsafe_code)]

use super::memory::room_for;
use super::words::{self, Layout};
use super::{Calls, user};
use crate::clock;
use crate::errno::{Errno, Result};
use crate::mem::memory;
use crate::process::Pid;
use crate::process::run::Caller;
use crate::process::sysv::sem::{Ask, Change};
use crate::process::sysv::{Perm, READ, WRITE, msg, sem, shm};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use hafez_mm::{Backing, MapRequest, PAGE_SIZE, PageRange, Rights, VirtAddr, Where};
use linux_raw_sys::general as abi;

pub const CALLS: &Calls = &[
    (abi::__NR_shmget, shmget),
    (abi::__NR_shmat, shmat),
    (abi::__NR_shmdt, shmdt),
    (abi::__NR_shmctl, shmctl),
    (abi::__NR_semget, semget),
    (abi::__NR_semop, semop),
    (abi::__NR_semtimedop, semtimedop),
    (abi::__NR_semctl, semctl),
    (abi::__NR_msgget, msgget),
    (abi::__NR_msgsnd, msgsnd),
    (abi::__NR_msgrcv, msgrcv),
    (abi::__NR_msgctl, msgctl),
];

/// Commands that all kinds know.
const REMOVE: u32 = 0;
const SET: u32 = 1;
const STAT: u32 = 2;
const INFO: u32 = 3;
// And those of shared memory alone.
const SHM_LOCK: u32 = 11;
const SHM_UNLOCK: u32 = 12;
const SHM_STAT: u32 = 13;
const SHM_INFO: u32 = 14;
const SHM_STAT_ANY: u32 = 15;

fn pid(caller: &Caller) -> Pid {
    caller.task.process.pid
}

/// `struct ipc64_perm`, at the head of all that `IPC_STAT` writes.
fn put_perm<const N: usize>(to: &mut Layout<N>, perm: &Perm) {
    let words = [perm.key as u32, perm.uid, perm.gid, perm.creator_uid, perm.creator_gid, perm.mode];
    for (i, word) in words.iter().enumerate() {
        to.set(4 * i, &word.to_ne_bytes());
    }
}

/// Owner, group and mode of what `IPC_SET` reads.
fn get_perm(at: u64) -> Result<[u32; 3]> {
    let [uid, gid, mode] = [4, 8, 20].map(|offset| user::read_u32(at.wrapping_add(offset)));
    Ok([uid?, gid?, mode?])
}

fn put_words<const N: usize>(to: &mut Layout<N>, at: usize, words: &[u64]) {
    for (i, word) in words.iter().enumerate() {
        to.set(at + 8 * i, &word.to_ne_bytes());
    }
}

// ---- shared memory ----

const SHM_EXEC: u32 = 0o100000;
const SHM_RDONLY: u32 = 0o10000;
const SHM_RND: u32 = 0o20000;
const SHM_REMAP: u32 = 0o40000;

fn shmget(caller: &mut Caller) -> Result<u64> {
    let [key, size, flags, ..] = caller.args();
    let cred = caller.task.cred();
    let account = caller.space().account();
    Ok(shm::get(key as i32, size, flags as u32, &cred, pid(caller), account)? as u64)
}

fn shmat(caller: &mut Caller) -> Result<u64> {
    let [id, at, flags, ..] = caller.args();
    let flags = flags as u32;
    let has = |flag: u32| flags & flag != 0;
    let at = match at {
        0 if has(SHM_REMAP) => return Err(Errno::EINVAL),
        at if at % PAGE_SIZE as u64 == 0 => at,
        at if has(SHM_RND) => at & !(PAGE_SIZE as u64 - 1),
        _ => return Err(Errno::EINVAL),
    };
    let mut rights = Rights::READ;
    rights.set(Rights::WRITE, !has(SHM_RDONLY));
    rights.set(Rights::EXEC, has(SHM_EXEC));
    let wanted = READ | if has(SHM_RDONLY) { 0 } else { WRITE } | u32::from(has(SHM_EXEC));
    let segment = shm::attach(id as i32, &caller.task.cred(), wanted, pid(caller))?;
    room_for(caller, segment.pages, 0, false)?;
    let place = match at {
        0 => Where::Anywhere { hint: None },
        at if has(SHM_REMAP) => Where::Fixed(VirtAddr(at)),
        at => Where::FixedNoReplace(VirtAddr(at)),
    };
    let max_rights = if has(SHM_RDONLY) { Rights::READ | Rights::EXEC } else { Rights::all() };
    let mapped = memory().map(
        caller.space(),
        MapRequest {
            at: place,
            pages: segment.pages,
            rights,
            max_rights,
            backing: Backing::Object { object: segment.object, first: 0 },
            shared: true,
            label: Some(segment.label),
            grows_down: None,
            wired: false,
            special: hafez_mm::RegionFlags::empty(),
            by: None,
        },
    );
    match mapped.map_err(Errno::from) {
        Err(Errno::EEXIST) => Err(Errno::EINVAL),
        other => Ok(other?.0),
    }
}

/// The mapping that begins a segment at this address is unmapped, with all that is left of the segment after it.
fn shmdt(caller: &mut Caller) -> Result<u64> {
    let at = caller.args()[0];
    let first =
        caller.space().region_at(VirtAddr(at)).filter(|r| r.range.start.addr().0 == at && r.offset == 0);
    let label = first.and_then(|r| r.label).ok_or(Errno::EINVAL)?;
    let pages = shm::pages(&label).ok_or(Errno::EINVAL)?;
    let mut parts: Vec<PageRange> = Vec::new();
    let mut room = true;
    caller.space().for_each_region(&mut |region| {
        let begin = region.range.start.addr().0;
        let of_it = region.label.as_ref().is_some_and(|l| Arc::ptr_eq(l, &label));
        if of_it && begin.wrapping_sub(region.offset) == at && region.offset / (PAGE_SIZE as u64) < pages {
            room &= parts.try_reserve(1).map(|()| parts.push(region.range)).is_ok();
        }
    });
    if !room {
        return Err(Errno::ENOMEM);
    }
    for part in parts {
        memory().unmap(caller.space(), part)?;
    }
    shm::detached(label, pid(caller));
    Ok(0)
}

/// `struct shmid64_ds`.
fn put_segment(stat: &shm::Stat, at: u64) -> Result<()> {
    let mut to = Layout::<112>::new();
    put_perm(&mut to, &stat.perm);
    put_words(&mut to, 48, &[stat.size, stat.times[0], stat.times[1], stat.times[2]]);
    to.set(80, &stat.creator.to_ne_bytes()).set(84, &stat.last.to_ne_bytes());
    put_words(&mut to, 88, &[stat.mappings]);
    to.put(at)
}

fn shmctl(caller: &mut Caller) -> Result<u64> {
    let [id, command, at, ..] = caller.args();
    let (id, cred) = (id as i32, caller.task.cred());
    match command as u32 {
        REMOVE => shm::remove(id, &cred)?,
        SET => {
            let [uid, gid, mode] = get_perm(at)?;
            shm::set(id, &cred, uid, gid, mode)?;
        }
        STAT => {
            put_segment(&shm::stat(id, Some(&cred))?, at)?;
        }
        SHM_STAT | SHM_STAT_ANY => {
            // Here a segment's place in the table is its number.
            let asker = (command as u32 == SHM_STAT).then_some(&*cred);
            put_segment(&shm::stat(id, asker)?, at)?;
            return Ok(id as u64);
        }
        SHM_INFO => {
            let [count, pages, resident, swapped] = shm::totals();
            words::put(at, [count, pages, resident, swapped, 0, 0])?;
            return Ok(shm::highest() as u64);
        }
        SHM_LOCK | SHM_UNLOCK => {
            let limit = caller.task.process.limits.soft(abi::RLIMIT_MEMLOCK);
            shm::lock(id, &cred, limit, command as u32 == SHM_LOCK)?;
        }
        INFO => {
            let (largest, most) = (shm::LARGEST.load(Relaxed), shm::MOST.load(Relaxed));
            // Largest, smallest, how many, how many in a process, how many pages in all.
            words::put(at, [largest, 1, most, most, shm::ALL.load(Relaxed), 0, 0, 0, 0])?;
            return Ok(shm::highest() as u64);
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

// ---- semaphores ----

fn semget(caller: &mut Caller) -> Result<u64> {
    let [key, count, flags, ..] = caller.args();
    Ok(sem::get(key as i32, count as i32, flags as u32, &caller.task.cred())? as u64)
}

fn semop(caller: &mut Caller) -> Result<u64> {
    let [id, at, count, ..] = caller.args();
    operate(caller, id, at, count, None)
}

fn semtimedop(caller: &mut Caller) -> Result<u64> {
    let [id, at, count, timeout, ..] = caller.args();
    let timeout = match timeout {
        0 => None,
        at => Some(words::get(at)?),
    };
    operate(caller, id, at, count, timeout)
}

fn operate(caller: &Caller, id: u64, at: u64, count: u64, timeout: Option<[u64; 2]>) -> Result<u64> {
    let count = count as u32 as usize;
    if count == 0 {
        return Err(Errno::EINVAL);
    }
    if count as u64 > sem::MOST_CHANGES.load(Relaxed) {
        return Err(Errno::E2BIG);
    }
    let mut raw = vec![[0u8; 6]; count];
    user::copy_from(raw.as_flattened_mut(), at)?;
    if (id as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    let deadline = match timeout {
        None => None,
        Some(time) => Some(clock::monotonic().saturating_add(words::nanoseconds(time)?)),
    };
    let changes: Vec<Change> = raw
        .iter()
        .map(|[a, b, c, d, e, f]| Change {
            number: u16::from_ne_bytes([*a, *b]),
            by: i16::from_ne_bytes([*c, *d]),
            flags: u16::from_ne_bytes([*e, *f]),
        })
        .collect();
    sem::operate(id as i32, &changes, &caller.task.cred(), pid(caller), deadline)?;
    Ok(0)
}

const GETPID: u32 = 11;
const GETVAL: u32 = 12;
const GETALL: u32 = 13;
const GETNCNT: u32 = 14;
const GETZCNT: u32 = 15;
const SETVAL: u32 = 16;
const SETALL: u32 = 17;
const SEM_STAT: u32 = 18;
const SEM_INFO: u32 = 19;
const SEM_STAT_ANY: u32 = 20;
fn semctl(caller: &mut Caller) -> Result<u64> {
    let [id, number, command, at, ..] = caller.args();
    let (id, number, cred) = (id as i32, number as i32, caller.task.cred());
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    match command as u32 {
        REMOVE => sem::remove(id, &cred)?,
        SET => {
            let [uid, gid, mode] = get_perm(at)?;
            sem::set(id, &cred, uid, gid, mode)?;
        }
        INFO | SEM_INFO => {
            let (highest, sets, all) = sem::totals();
            // What there may be of each; with SEM_INFO the last two but one say what there is.
            let [most, many, largest, changes] =
                [&sem::MOST, &sem::ALL, &sem::LARGEST, &sem::MOST_CHANGES].map(|n| n.load(Relaxed) as u32);
            let mut words = [many, most, many, many, largest, changes, 500, 20, 32767, 32767];
            if command as u32 == SEM_INFO {
                (words[7], words[9]) = (sets, all);
            }
            user::copy_to(at, words.map(u32::to_ne_bytes).as_flattened())?;
            return Ok(highest as u64);
        }
        STAT | SEM_STAT | SEM_STAT_ANY => {
            let stat = sem::stat(id, &cred)?;
            let mut to = Layout::<104>::new();
            put_perm(&mut to, &stat.perm);
            put_words(&mut to, 48, &[stat.operated, 0, stat.changed, 0, stat.count]);
            to.put(at)?;
            // By index, which here is the number itself.
            return Ok(if command as u32 == STAT { 0 } else { id as u64 });
        }
        GETPID => return sem::ask(id, number, Ask::Last, &cred),
        GETVAL => return sem::ask(id, number, Ask::Value, &cred),
        GETNCNT => return sem::ask(id, number, Ask::Growers, &cred),
        GETZCNT => return sem::ask(id, number, Ask::Zeroers, &cred),
        GETALL => {
            let values: Vec<[u8; 2]> = sem::values(id, &cred)?.into_iter().map(u16::to_ne_bytes).collect();
            user::copy_to(at, values.as_flattened())?;
        }
        SETVAL => sem::set_values(id, number, &[at as i32], &cred, pid(caller))?,
        SETALL => {
            let mut raw = vec![[0u8; 2]; sem::count(id, &cred)?];
            user::copy_from(raw.as_flattened_mut(), at)?;
            let values: Vec<i32> = raw.into_iter().map(|b| u16::from_ne_bytes(b) as i32).collect();
            sem::set_values(id, 0, &values, &cred, pid(caller))?;
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

// ---- messages ----

fn msgget(caller: &mut Caller) -> Result<u64> {
    let [key, flags, ..] = caller.args();
    Ok(msg::get(key as i32, flags as u32, &caller.task.cred())? as u64)
}

fn msgsnd(caller: &mut Caller) -> Result<u64> {
    let [id, at, len, flags, ..] = caller.args();
    let kind = user::read_u64(at)? as i64;
    if len > msg::LONGEST.load(Relaxed) || (id as i32) < 0 || kind < 1 {
        return Err(Errno::EINVAL);
    }
    let mut text = crate::mem::zeroed(len as usize)?;
    user::copy_from(&mut text, at.wrapping_add(8))?;
    msg::send(id as i32, kind, text, flags as u32, &caller.task.cred(), pid(caller))?;
    Ok(0)
}

const MSG_STAT: u32 = 11;
const MSG_INFO: u32 = 12;
const MSG_STAT_ANY: u32 = 13;

fn msgrcv(caller: &mut Caller) -> Result<u64> {
    let [id, at, room, kind, flags, _] = caller.args();
    if (id as i32) < 0 || (room as i64) < 0 {
        return Err(Errno::EINVAL);
    }
    let cred = caller.task.cred();
    let (kind, text) = msg::receive(id as i32, room as usize, kind as i64, flags as u32, &cred, pid(caller))?;
    user::write_u64(at, kind as u64)?;
    user::copy_to(at.wrapping_add(8), &text)?;
    Ok(text.len() as u64)
}

fn msgctl(caller: &mut Caller) -> Result<u64> {
    let [id, command, at, ..] = caller.args();
    let (id, cred) = (id as i32, caller.task.cred());
    match command as u32 {
        REMOVE => msg::remove(id, &cred)?,
        SET => {
            let perm = get_perm(at)?;
            msg::set(id, &cred, perm, user::read_u64(at.wrapping_add(88))?)?;
        }
        INFO | MSG_INFO => {
            let (highest, queues, messages, bytes) = msg::totals();
            let [longest, room, most] =
                [&msg::LONGEST, &msg::ROOM, &msg::MOST].map(|n| n.load(Relaxed) as u32);
            // What there may be; with MSG_INFO the first two and the last but one say what there is.
            let mut words =
                [(most as u64 * room as u64 / 1024) as u32, room, longest, room, most, 16, most, 0xffff];
            if command as u32 == MSG_INFO {
                (words[0], words[1], words[6]) = (queues, messages, bytes);
            }
            user::copy_to(at, words.map(u32::to_ne_bytes).as_flattened())?;
            return Ok(highest as u64);
        }
        STAT | MSG_STAT | MSG_STAT_ANY => {
            let stat = msg::stat(id, &cred)?;
            let mut to = Layout::<120>::new();
            put_perm(&mut to, &stat.perm);
            put_words(&mut to, 48, &stat.times);
            put_words(&mut to, 72, &[stat.bytes, stat.count, stat.room]);
            to.set(96, &stat.sender.to_ne_bytes()).set(100, &stat.receiver.to_ne_bytes());
            to.put(at)?;
            return Ok(if command as u32 == STAT { 0 } else { id as u64 });
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}
