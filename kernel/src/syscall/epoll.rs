//! `epoll` and `eventfd`.

use super::poll::{timespec, wait_mask};
use super::{Calls, at, user};
use crate::clock;
use crate::errno::{Errno, Result};
use crate::fs::anon;
use crate::fs::epoll::{Epoll, Interest};
use crate::fs::eventfd::EventFd;
use crate::process::run::Caller;
use linux_raw_sys::general as abi;

pub const CALLS: &Calls = &[
    (abi::__NR_epoll_create, epoll_create),
    (abi::__NR_epoll_create1, epoll_create1),
    (abi::__NR_epoll_ctl, epoll_ctl),
    (abi::__NR_epoll_wait, epoll_wait),
    (abi::__NR_epoll_pwait, epoll_pwait),
    (abi::__NR_epoll_pwait2, epoll_pwait2),
    (abi::__NR_eventfd, eventfd),
    (abi::__NR_eventfd2, eventfd2),
];

/// Bytes of `struct epoll_event`, which is packed: events, then data.
const EVENT: u64 = 12;
/// More than this cannot be asked for (`INT_MAX` bytes of them).
const MAX_EVENTS: usize = i32::MAX as usize / EVENT as usize;

fn create(caller: &Caller, flags: u64) -> Result<u64> {
    let flags = at::check_flags(flags, abi::EPOLL_CLOEXEC)?;
    let file = anon::open(Epoll::new(), "eventpoll", abi::O_RDWR)?;
    at::install(caller, file, flags != 0)
}

fn epoll_create(caller: &mut Caller) -> Result<u64> {
    let [size, ..] = caller.args();
    if size as i32 <= 0 { Err(Errno::EINVAL) } else { create(caller, 0) }
}

fn epoll_create1(caller: &mut Caller) -> Result<u64> {
    let [flags, ..] = caller.args();
    create(caller, flags)
}

fn epoll_ctl(caller: &mut Caller) -> Result<u64> {
    let [instance, operation, fd, event, ..] = caller.args();
    let operation = operation as u32;
    let interest = if operation == abi::EPOLL_CTL_DEL {
        Interest { events: 0, data: 0 }
    } else {
        Interest { events: user::read_u32(event)?, data: user::read_u64(event.wrapping_add(4))? }
    };
    let file = at::file(caller, instance)?;
    let target = at::file(caller, fd)?;
    let epoll = file.ops_as::<Epoll>().ok_or(Errno::EINVAL)?;
    // Waking one of several instances only is a promise that we do not make.
    if interest.events & abi::EPOLLEXCLUSIVE != 0 && operation != abi::EPOLL_CTL_ADD {
        return Err(Errno::EINVAL);
    }
    let fd = fd as u32;
    match operation {
        abi::EPOLL_CTL_ADD => epoll.add(fd, &target, interest)?,
        abi::EPOLL_CTL_MOD => epoll.change(fd, &target, interest)?,
        abi::EPOLL_CTL_DEL => epoll.remove(fd, &target)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

fn wait(caller: &Caller, instance: u64, to: u64, most: u64, ns: Option<u64>) -> Result<u64> {
    let most =
        usize::try_from(most as i32).ok().filter(|n| (1..=MAX_EVENTS).contains(n)).ok_or(Errno::EINVAL)?;
    let file = at::file(caller, instance)?;
    let epoll = file.ops_as::<Epoll>().ok_or(Errno::EINVAL)?;
    let deadline = ns.and_then(|ns| clock::monotonic().checked_add(ns));
    let found = epoll.wait(most, deadline)?;
    for (i, (events, data)) in found.iter().enumerate() {
        let at = to.wrapping_add(EVENT * i as u64);
        user::write_u32(at, events.bits())?;
        user::write_u64(at.wrapping_add(4), *data)?;
    }
    Ok(found.len() as u64)
}

/// A timeout in ms; negative is for ever.
fn milliseconds(timeout: u64) -> Option<u64> {
    u64::try_from(timeout as i32).ok().map(|ms| ms * 1_000_000)
}

fn epoll_wait(caller: &mut Caller) -> Result<u64> {
    let [instance, to, most, timeout, ..] = caller.args();
    wait(caller, instance, to, most, milliseconds(timeout))
}

fn epoll_pwait(caller: &mut Caller) -> Result<u64> {
    let [instance, to, most, timeout, mask, size] = caller.args();
    wait_mask(caller, mask, size)?;
    wait(caller, instance, to, most, milliseconds(timeout))
}

fn epoll_pwait2(caller: &mut Caller) -> Result<u64> {
    let [instance, to, most, timeout, mask, size] = caller.args();
    let ns = timespec(timeout)?;
    wait_mask(caller, mask, size)?;
    wait(caller, instance, to, most, ns)
}

fn make_eventfd(caller: &Caller, count: u64, flags: u64) -> Result<u64> {
    let flags = at::check_flags(flags, abi::EFD_SEMAPHORE | abi::EFD_CLOEXEC | abi::EFD_NONBLOCK)?;
    let ops = EventFd::new(count as u32 as u64, flags & abi::EFD_SEMAPHORE != 0);
    let file = anon::open(ops, "eventfd", abi::O_RDWR | flags & abi::EFD_NONBLOCK)?;
    at::install(caller, file, flags & abi::EFD_CLOEXEC != 0)
}

fn eventfd(caller: &mut Caller) -> Result<u64> {
    let [count, ..] = caller.args();
    make_eventfd(caller, count, 0)
}

fn eventfd2(caller: &mut Caller) -> Result<u64> {
    let [count, flags, ..] = caller.args();
    make_eventfd(caller, count, flags)
}
