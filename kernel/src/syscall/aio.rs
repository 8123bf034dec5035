//! Asynchronous I/O: `io_setup`, `io_submit`, `io_getevents` and their kin. What a request becomes stands in
//! [`process::aio`](crate::process::aio).

use super::io::{self, Segments};
use super::poll::wait_mask;
use super::{Calls, at, user};
use crate::clock;
use crate::errno::{Errno, Result};
use crate::fs::eventfd::EventFd;
use crate::fs::iobuf::{self, Sink, Source};
use crate::fs::{File, Kind};
use crate::mem::memory;
use crate::process::aio::{Context, Event, MOST};
use crate::process::run::Caller;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;
use hafez_mm::{Backing, Label, MapRequest, PAGE_SIZE, PageRange, Rights, VirtAddr, Where};
use linux_raw_sys::general as abi;

pub const CALLS: &Calls = &[
    (abi::__NR_io_setup, io_setup),
    (abi::__NR_io_destroy, io_destroy),
    (abi::__NR_io_submit, io_submit),
    (abi::__NR_io_cancel, io_cancel),
    (abi::__NR_io_getevents, io_getevents),
    (abi::__NR_io_pgetevents, io_pgetevents),
];

/// Bytes of `struct io_event`, and of the head of Linux's ring of them.
const EVENT: u64 = 32;
/// `IOCB_CMD_*`
const PREAD: u16 = 0;
const PWRITE: u16 = 1;
const FSYNC: u16 = 2;
const FDSYNC: u16 = 3;
const PREADV: u16 = 7;
const PWRITEV: u16 = 8;
/// `IOCB_FLAG_RESFD`: an eventfd is to count the result.
const TELL: u32 = 1;
/// `IOCB_FLAG_IOPRIO`: the request has a priority.
const PRIORITY: u32 = 2;
const SECOND: u64 = 1_000_000_000;

/// How many results fit Linux's ring for so many requests, but for the one that tells full from empty: more may be submitted
/// than was asked for.
fn room(asked: u64) -> Result<usize> {
    let wanted = asked.max(4 * crate::arch::smp::count() as u64) * 2;
    if wanted > 0x1000_0000 / EVENT {
        return Err(Errno::EINVAL);
    }
    let pages = (EVENT + EVENT * (wanted + 2)).div_ceil(PAGE_SIZE as u64);
    Ok(((pages * PAGE_SIZE as u64 - EVENT) / EVENT - 1) as usize)
}

fn io_setup(caller: &mut Caller) -> Result<u64> {
    let [asked, to, ..] = caller.args();
    let asked = asked as u32 as u64;
    if user::read_u64(to)? != 0 || asked == 0 {
        return Err(Errno::EINVAL);
    }
    let room = room(asked)?;
    if asked > MOST.load(Relaxed) {
        return Err(Errno::EAGAIN);
    }
    let context = Context::new(asked, room)?;
    let name = map_page(caller)?;
    let result = caller.task.process.aio.add(name, context).and_then(|()| {
        let written = user::write_u64(to, name).map_err(Errno::from);
        written.inspect_err(|_| {
            let _ = caller.task.process.aio.remove(name);
        })
    });
    if result.is_err() {
        unmap_page(caller, name);
    }
    result.map(|()| 0)
}

/// The page whose address is the context's name.
fn map_page(caller: &Caller) -> Result<u64> {
    let limits = &caller.task.process.limits;
    if caller.space().total_pages() >= limits.soft(abi::RLIMIT_AS) / PAGE_SIZE as u64 {
        return Err(Errno::ENOMEM);
    }
    let request = MapRequest {
        at: Where::Anywhere { hint: None },
        pages: 1,
        rights: Rights::READ | Rights::WRITE,
        max_rights: Rights::READ | Rights::WRITE,
        backing: Backing::Anonymous,
        shared: false,
        label: Some(Arc::new(Label { path: (*b"/[aio] (deleted)").into(), dev: 0, ino: 0 })),
        grows_down: None,
        wired: false,
        special: hafez_mm::RegionFlags::empty(),
        by: None,
    };
    Ok(memory().map(caller.space(), request)?.0)
}

fn unmap_page(caller: &Caller, name: u64) {
    if let Some(range) = PageRange::sized(VirtAddr(name).page(), 1) {
        let _ = memory().unmap(caller.space(), range);
    }
}

fn io_destroy(caller: &mut Caller) -> Result<u64> {
    let [name, ..] = caller.args();
    caller.task.process.aio.remove(name)?;
    unmap_page(caller, name);
    Ok(0)
}

fn io_submit(caller: &mut Caller) -> Result<u64> {
    let [name, count, list, ..] = caller.args();
    if (count as i64) < 0 {
        return Err(Errno::EINVAL);
    }
    let context = caller.task.process.aio.find(name)?;
    let count = count.min(context.room() as u64);
    for done in 0..count {
        let at = user::read_u64(list.wrapping_add(8 * done)).map_err(Errno::from);
        let one = at.and_then(|at| submit(caller, &context, at));
        if let Err(error) = one {
            return if done == 0 { Err(error) } else { Ok(done) };
        }
    }
    Ok(count)
}

/// `struct iocb`
struct Request {
    data: u64,
    flags: u64,
    operation: u16,
    fd: u32,
    buffer: u64,
    length: u64,
    offset: u64,
    tell: Option<u32>,
    /// Where it stands in the program's memory.
    at: u64,
}

impl Request {
    fn read(at: u64) -> Result<Request> {
        let mut words = [0; 8];
        user::read_words(&mut words, at)?;
        let [data, key, what, buffer, length, offset, reserved, end] = words;
        if reserved != 0 || (length as i64) < 0 {
            return Err(Errno::EINVAL);
        }
        let (flags, tell) = (end as u32, (end >> 32) as u32);
        // Who orders the disk's queue is the host: a priority is refused, not forgotten.
        if flags & PRIORITY != 0 {
            return Err(Errno::EINVAL);
        }
        Ok(Request {
            data,
            flags: key >> 32,
            operation: what as u16,
            fd: (what >> 32) as u32,
            buffer,
            length,
            offset,
            tell: (flags & TELL != 0).then_some(tell),
            at,
        })
    }
}

fn submit(caller: &Caller, context: &Context, at: u64) -> Result<()> {
    let request = Request::read(at)?;
    context.reserve()?;
    let outcome = start(caller, &request);
    match outcome {
        Ok((result, told)) => {
            let result = match result {
                Ok(bytes) => bytes as i64,
                Err(e) if e.code() >= Errno::RESTART.code() => -i64::from(Errno::EINTR.code()),
                Err(e) => -i64::from(e.code()),
            };
            context.finish(Event { data: request.data, request: request.at, result });
            if let Some(counter) = told.as_ref().and_then(|file| file.ops_as::<EventFd>()) {
                counter.signal();
            }
            Ok(())
        }
        Err(e) => {
            context.release();
            Err(e)
        }
    }
}

/// What came of it, and the eventfd to tell; an error is one of the submission.
fn start(caller: &Caller, request: &Request) -> Result<(Result<u64>, Option<Arc<File>>)> {
    let file = at::file(caller, request.fd.into())?;
    let told = request.tell.map(|fd| at::file(caller, fd.into())).transpose()?;
    if told.as_ref().is_some_and(|file| file.ops_as::<EventFd>().is_none()) {
        return Err(Errno::EINVAL);
    }
    user::write_u32(request.at.wrapping_add(8), 0)?;
    let result = match request.operation {
        PREAD | PREADV => read(caller, &file, request)?,
        PWRITE | PWRITEV => write(caller, &file, request)?,
        FSYNC | FDSYNC => sync(&file, request)?,
        _ => return Err(Errno::EINVAL),
    };
    Ok((result, told))
}

fn segments(request: &Request) -> Result<Segments> {
    match request.operation {
        PREADV | PWRITEV => Segments::read(request.buffer, request.length),
        _ => Segments::one(request.buffer, request.length),
    }
}

/// Where in the file: what has no offset has no place, either.
fn place(file: &File, request: &Request) -> Result<Option<u64>> {
    let at = io::position(request.offset)?;
    Ok(at.filter(|_| file.ops().seekable()))
}

fn read(caller: &Caller, file: &File, request: &Request) -> Result<Result<u64>> {
    let (how, _) = io::way(caller, file, request.flags)?;
    if !file.mode().read {
        return Err(Errno::EBADF);
    }
    if file.kind() == Kind::Dir {
        return Err(Errno::EINVAL);
    }
    let (segments, at) = (segments(request)?, place(file, request)?);
    let limit = iobuf::total(segments.as_slice()).min(io::MAX_TRANSFER);
    let result = file.read_how(at, &mut Sink::user(segments.as_slice(), limit), how);
    Ok(result.map(|n| n as u64))
}

fn write(caller: &Caller, file: &Arc<File>, request: &Request) -> Result<Result<u64>> {
    let (how, append) = io::way(caller, file, request.flags)?;
    if !file.mode().write {
        return Err(Errno::EBADF);
    }
    let (segments, at) = (segments(request)?, place(file, request)?);
    if file.first_write() {
        io::keep_no_privileges(caller, file)?;
    }
    let limit = iobuf::total(segments.as_slice()).min(io::MAX_TRANSFER);
    let mut result = file.write_how(at, &mut Source::user(segments.as_slice(), limit), how, append);
    let flags = request.flags as u32;
    if result.is_ok()
        && flags & (abi::RWF_DSYNC | abi::RWF_SYNC) != 0
        && let Err(e) = file.ops().sync(flags & abi::RWF_SYNC == 0)
    {
        result = Err(e);
    }
    Ok(io::warn(caller, result, file))
}

fn sync(file: &File, request: &Request) -> Result<Result<u64>> {
    if [request.buffer, request.length, request.offset, request.flags] != [0; 4] {
        return Err(Errno::EINVAL);
    }
    match file.ops().sync(request.operation == FDSYNC) {
        // It has no storage, which is known before.
        Err(Errno::EINVAL) => Err(Errno::EINVAL),
        result => Ok(result.map(|()| 0)),
    }
}

/// Nothing is under way that could be cancelled.
fn io_cancel(caller: &mut Caller) -> Result<u64> {
    let [_, request, ..] = caller.args();
    user::read_u32(request.wrapping_add(8))?;
    Err(Errno::EINVAL)
}

/// A time to wait; Linux does not mind a wrong one, and one below zero is no wait.
fn patience(at: u64) -> Result<Option<u64>> {
    if at == 0 {
        return Ok(None);
    }
    let (seconds, rest) = (user::read_u64(at)? as i64, user::read_u64(at.wrapping_add(8))? as i64);
    let ns = seconds.saturating_mul(SECOND as i64).saturating_add(rest);
    Ok(Some(u64::try_from(ns).unwrap_or(0)))
}

fn collect(caller: &Caller, [name, least, most, to]: [u64; 4], patience: Option<u64>) -> Result<u64> {
    let context = caller.task.process.aio.find(name)?;
    let (least, most) = (least as i64, most as i64);
    if least < 0 || least > most {
        return Err(Errno::EINVAL);
    }
    let deadline = patience.map(|ns| if ns == 0 { 0 } else { clock::monotonic().saturating_add(ns) });
    let mut done = 0;
    loop {
        while done < most as u64
            && let Some(event) = context.take()
        {
            let words = [event.data, event.request, event.result as u64, 0];
            if let Err(e) = user::write_words(to.wrapping_add(EVENT * done), &words) {
                context.put_back(event);
                return if done > 0 { Ok(done) } else { Err(e) };
            }
            done += 1;
        }
        if done >= least as u64 {
            return Ok(done);
        }
        match context.wait(deadline) {
            Ok(true) => {}
            Err(e) if done == 0 => return Err(e),
            _ => return Ok(done),
        }
    }
}

fn io_getevents(caller: &mut Caller) -> Result<u64> {
    let [name, least, most, to, timeout, _] = caller.args();
    let patience = patience(timeout)?;
    collect(caller, [name, least, most, to], patience)
}

fn io_pgetevents(caller: &mut Caller) -> Result<u64> {
    let [name, least, most, to, timeout, mask] = caller.args();
    let patience = patience(timeout)?;
    if mask != 0 {
        let (set, size) = (user::read_u64(mask)?, user::read_u64(mask.wrapping_add(8))?);
        wait_mask(caller, set, size)?;
    }
    collect(caller, [name, least, most, to], patience)
}
