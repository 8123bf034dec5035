//! Waiting for descriptors: `poll`, `select`, `epoll`, `eventfd`, `timerfd`.

use super::{Calls, user};
use crate::clock::{self, SECOND};
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::fs::poll::{Events, Watchers};
use crate::mem::{TryPush, zeroed};
use crate::process::run::Caller;
use crate::process::signal::SigSet;
use crate::sched::WaitResult;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

pub const CALLS: &Calls = &[
    (abi::__NR_poll, poll),
    (abi::__NR_ppoll, ppoll),
    (abi::__NR_select, select),
    (abi::__NR_pselect6, pselect6),
];

/// One descriptor that is waited for.
struct Entry {
    /// `None` for one that is not to be looked at.
    file: Option<Arc<File>>,
    wanted: Events,
    /// Said of a descriptor that is not open.
    fixed: Events,
}

impl Entry {
    fn now(&self) -> Events {
        match &self.file {
            Some(file) => file.ops().poll() & (self.wanted | Events::ALWAYS),
            None => self.fixed,
        }
    }
}

/// Sleep until one is ready or the deadline (ns, monotonic) passes.
fn wait(entries: &[Entry], deadline: Option<u64>) -> Result<WaitResult> {
    let any = || entries.iter().any(|e| !e.now().is_empty());
    if any() {
        return Ok(WaitResult::Ready);
    }
    if deadline.is_some_and(|d| d <= clock::monotonic()) {
        return Ok(WaitResult::TimedOut);
    }
    let mut watchers = Watchers::new();
    for file in entries.iter().filter_map(|e| e.file.as_ref()) {
        file.ops().watch(&mut watchers);
    }
    watchers.wait(any, deadline)
}

/// A timeout in ns from now as a deadline; none if it lies past the clock's end.
fn after(ns: Option<u64>) -> Option<u64> {
    ns.and_then(|ns| clock::monotonic().checked_add(ns))
}

/// A `struct timespec` as ns; `None` for a null pointer.
pub fn timespec(at: u64) -> Result<Option<u64>> {
    if at == 0 {
        return Ok(None);
    }
    let (sec, nsec) = (user::read_u64(at)?, user::read_u64(at.wrapping_add(8))?);
    if (sec as i64) < 0 || nsec >= SECOND {
        return Err(Errno::EINVAL);
    }
    Ok(Some(sec.saturating_mul(SECOND).saturating_add(nsec)))
}

/// Write what is left until the deadline back to where the timeout came from. Linux passes over an error there.
fn put_rest(at: u64, deadline: Option<u64>, micro: bool) {
    if let Some(deadline) = deadline.filter(|_| at != 0) {
        let rest = deadline.saturating_sub(clock::monotonic());
        let part = if micro { rest % SECOND / 1000 } else { rest % SECOND };
        let _ = user::write_words(at, &[rest / SECOND, part]);
    }
}

/// The mask that a call waits under.
pub fn wait_mask(caller: &mut Caller, at: u64, size: u64) -> Result<()> {
    if at != 0 {
        if size != 8 {
            return Err(Errno::EINVAL);
        }
        let mask = SigSet(user::read_u64(at)?);
        caller.set_mask_until_return(mask);
    }
    Ok(())
}

/// `struct pollfd`: descriptor, wanted events, events; 8 bytes.
fn read_entries(caller: &Caller, at: u64, count: u64) -> Result<Vec<Entry>> {
    let count = count as u32 as usize;
    if count as u64 > caller.task.process.limits.soft(abi::RLIMIT_NOFILE) {
        return Err(Errno::EINVAL);
    }
    let files = caller.task.files();
    let mut entries = Vec::new();
    entries.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    for i in 0..count as u64 {
        let word = user::read_u64(at.wrapping_add(8 * i))?;
        let fd = word as i32;
        let wanted = Events::from_bits_truncate((word >> 32) as u16 as u32);
        let file = if fd < 0 { None } else { files.get(fd as u32).ok() };
        let fixed = if fd >= 0 && file.is_none() { Events::NVAL } else { Events::empty() };
        entries.push(Entry { file, wanted, fixed });
    }
    Ok(entries)
}

/// Poll until the deadline; the number of those that are ready.
fn poll_until(caller: &Caller, at: u64, count: u64, deadline: Option<u64>) -> Result<(u64, WaitResult)> {
    let entries = read_entries(caller, at, count)?;
    let result = wait(&entries, deadline)?;
    let mut ready = 0;
    for (i, entry) in entries.iter().enumerate() {
        let now = entry.now();
        ready += !now.is_empty() as u64;
        user::copy_to(at.wrapping_add(8 * i as u64 + 6), &(now.bits() as u16).to_ne_bytes())?;
    }
    Ok((ready, result))
}

fn poll(caller: &mut Caller) -> Result<u64> {
    let [at, count, timeout, ..] = caller.args();
    let timeout = u64::try_from(timeout as i32).ok().map(|ms| ms * 1_000_000);
    poll_rest(caller, at, count, after(timeout))
}

fn poll_rest(caller: &mut Caller, at: u64, count: u64, deadline: Option<u64>) -> Result<u64> {
    match poll_until(caller, at, count, deadline)? {
        (0, WaitResult::Interrupted) => {
            caller.resume = Some(Box::new(move |caller| poll_rest(caller, at, count, deadline)));
            Err(Errno::RESTART_BLOCK)
        }
        (ready, _) => Ok(ready),
    }
}

fn ppoll(caller: &mut Caller) -> Result<u64> {
    let [at, count, timeout, mask, size, ..] = caller.args();
    let deadline = after(timespec(timeout)?);
    wait_mask(caller, mask, size)?;
    let result = poll_until(caller, at, count, deadline);
    put_rest(timeout, deadline, false);
    match result? {
        (0, WaitResult::Interrupted) => Err(Errno::RESTART_NOHAND),
        (ready, _) => Ok(ready),
    }
}

/// The three sets of `select`, and which events put a descriptor into each.
const SETS: [(Events, Events); 3] = [
    (
        Events::IN.union(Events::RDNORM).union(Events::RDBAND),
        Events::IN.union(Events::RDNORM).union(Events::RDBAND).union(Events::HUP).union(Events::ERR),
    ),
    (
        Events::OUT.union(Events::WRNORM).union(Events::WRBAND),
        Events::OUT.union(Events::WRNORM).union(Events::WRBAND).union(Events::ERR),
    ),
    (Events::PRI, Events::PRI),
];

/// Bytes of a set for `count` descriptors: whole 64-bit words.
fn set_bytes(count: usize) -> usize {
    count.div_ceil(64) * 8
}

fn read_set(at: u64, count: usize) -> Result<Vec<u8>> {
    let mut set = crate::mem::zeroed(set_bytes(count))?;
    if at != 0 {
        user::copy_from(&mut set, at)?;
    }
    Ok(set)
}

fn has(set: &[u8], fd: usize) -> bool {
    set[fd / 8] & 1 << (fd % 8) != 0
}

fn select_until(
    caller: &Caller,
    count: u64,
    at: [u64; 3],
    deadline: Option<u64>,
) -> Result<(u64, WaitResult)> {
    let count = usize::try_from(count as i32).map_err(|_| Errno::EINVAL)?;
    let files = caller.task.files();
    // Past the table's end nothing is open, and Linux does not look.
    let count = count.min(files.size());
    let sets = [read_set(at[0], count)?, read_set(at[1], count)?, read_set(at[2], count)?];
    let mut entries = Vec::new();
    let mut numbers = Vec::new();
    for fd in 0..count {
        let mut wanted = Events::empty();
        for (set, (events, _)) in sets.iter().zip(SETS) {
            if has(set, fd) {
                wanted |= events;
            }
        }
        if !wanted.is_empty() {
            let file = Some(files.get(fd as u32)?);
            entries.try_push(Entry { file, wanted, fixed: Events::empty() })?;
            numbers.try_push(fd)?;
        }
    }
    // HUP and ERR alone make a descriptor ready only for a set that it is in.
    let narrow = |e: &Entry| {
        let counts =
            SETS.iter().filter(|(w, _)| e.wanted.intersects(*w)).fold(Events::empty(), |c, s| c | s.1);
        Entry { file: e.file.clone(), wanted: counts, fixed: Events::empty() }
    };
    entries.iter_mut().for_each(|entry| *entry = narrow(entry));
    let result = wait(&entries, deadline)?;
    let mut out = [zeroed(sets[0].len())?, zeroed(sets[1].len())?, zeroed(sets[2].len())?];
    let mut ready = 0;
    for (entry, fd) in entries.iter().zip(numbers) {
        let now = entry.now();
        for i in 0..3 {
            if has(&sets[i], fd) && now.intersects(SETS[i].1) {
                out[i][fd / 8] |= 1 << (fd % 8);
                ready += 1;
            }
        }
    }
    if ready == 0 && result == WaitResult::Interrupted {
        return Ok((0, result));
    }
    for i in 0..3 {
        if at[i] != 0 {
            user::copy_to(at[i], &out[i])?;
        }
    }
    Ok((ready, result))
}

fn select(caller: &mut Caller) -> Result<u64> {
    let [count, reads, writes, others, timeout, ..] = caller.args();
    let ns = if timeout == 0 {
        None
    } else {
        let (sec, micro) = (user::read_u64(timeout)? as i64, user::read_u64(timeout.wrapping_add(8))? as i64);
        if sec < 0 || micro < 0 {
            return Err(Errno::EINVAL);
        }
        Some((sec as u64).saturating_mul(SECOND).saturating_add((micro as u64).saturating_mul(1000)))
    };
    let deadline = after(ns);
    let result = select_until(caller, count, [reads, writes, others], deadline);
    put_rest(timeout, deadline, true);
    match result? {
        (0, WaitResult::Interrupted) => Err(Errno::RESTART_NOHAND),
        (ready, _) => Ok(ready),
    }
}

fn pselect6(caller: &mut Caller) -> Result<u64> {
    let [count, reads, writes, others, timeout, mask] = caller.args();
    let deadline = after(timespec(timeout)?);
    if mask != 0 {
        let (at, size) = (user::read_u64(mask)?, user::read_u64(mask.wrapping_add(8))?);
        wait_mask(caller, at, size)?;
    }
    let result = select_until(caller, count, [reads, writes, others], deadline);
    put_rest(timeout, deadline, false);
    match result? {
        (0, WaitResult::Interrupted) => Err(Errno::RESTART_NOHAND),
        (ready, _) => Ok(ready),
    }
}
