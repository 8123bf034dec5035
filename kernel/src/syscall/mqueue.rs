//! POSIX message queues: what the calls take and give. The C library takes the slash off the names.
#![forbid(unsafe_code)]

use super::timers::read_event;
use super::{Calls, at, user, words};
use crate::errno::{Errno, Result};
use crate::fs::file::File;
use crate::mem;
use crate::net::Socket;
use crate::net::abi::AF_NETLINK;
use crate::process::mqueue::{self, By, QueueFile, Registration, Request, Sender};
use crate::process::run::Caller;
use crate::process::signal::LAST;
use crate::sched::timer::Deadline;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[
    (abi::__NR_mq_open, mq_open),
    (abi::__NR_mq_unlink, mq_unlink),
    (abi::__NR_mq_timedsend, mq_timedsend),
    (abi::__NR_mq_timedreceive, mq_timedreceive),
    (abi::__NR_mq_notify, mq_notify),
    (abi::__NR_mq_getsetattr, mq_getsetattr),
];

fn mq_open(caller: &mut Caller) -> Result<u64> {
    let [name, flags, mode, attributes, ..] = caller.args();
    // struct mq_attr: flags, messages, bytes in one, messages now, and four words for later.
    let attributes = match attributes {
        0 => None,
        at => {
            let [_, messages, bytes, ..] = words::get::<8>(at)?;
            Some([messages as i64, bytes as i64])
        }
    };
    let name = at::path(name)?;
    let umask = caller.task.fs().umask();
    let cred = caller.task.cred();
    let limits = &caller.task.process.limits;
    let request = Request {
        name,
        flags: flags as u32,
        mode: mode as u32 & !umask,
        attributes,
        cred: &cred,
        limit: limits.soft(abi::RLIMIT_MSGQUEUE),
    };
    let file = mqueue::open(request)?;
    let fd = caller.task.files().insert(file, true, 0, limits.soft(abi::RLIMIT_NOFILE))?;
    Ok(fd.into())
}

fn mq_unlink(caller: &mut Caller) -> Result<u64> {
    let [name, ..] = caller.args();
    mqueue::unlink(&at::path(name)?, &caller.task.cred())?;
    Ok(0)
}

/// The queue that a descriptor names: EBADF for anything else.
fn queue_file(caller: &Caller, fd: u64) -> Result<Arc<File>> {
    caller.task.file(fd as u32).and_then(|file| {
        file.ops_as::<QueueFile>().ok_or(Errno::EBADF)?;
        Ok(file)
    })
}

fn queue(file: &File) -> Result<&mqueue::Queue> {
    Ok(&file.ops_as::<QueueFile>().ok_or(Errno::EBADF)?.queue)
}

/// A moment of the realtime clock; 0 for none.
fn deadline(at: u64) -> Result<Option<Deadline>> {
    Ok(if at == 0 { None } else { Some(Deadline::Realtime(words::nanoseconds(words::get(at)?)?)) })
}

fn mq_timedsend(caller: &mut Caller) -> Result<u64> {
    let [fd, from, len, priority, until, _] = caller.args();
    let until = deadline(until)?;
    if priority as u32 >= mqueue::PRIORITIES {
        return Err(Errno::EINVAL);
    }
    let file = queue_file(caller, fd)?;
    let queue = queue(&file)?;
    if !file.mode().write {
        return Err(Errno::EBADF);
    }
    if len > queue.longest as u64 {
        return Err(Errno::EMSGSIZE);
    }
    if !mem::headroom(2 * len as usize + 1024) {
        return Err(Errno::ENOMEM);
    }
    let mut text = Vec::new();
    text.try_reserve_exact(len as usize)?;
    text.resize(len as usize, 0);
    user::copy_from(&mut text, from)?;
    let sender = Sender { pid: caller.task.process.pid, uid: caller.task.cred().uid };
    let nonblock = file.flags() & abi::O_NONBLOCK != 0;
    queue.send(text, priority as u32, (nonblock, until), sender)?;
    Ok(0)
}

fn mq_timedreceive(caller: &mut Caller) -> Result<u64> {
    let [fd, to, len, priority_to, until, _] = caller.args();
    let until = deadline(until)?;
    let file = queue_file(caller, fd)?;
    let queue = queue(&file)?;
    if !file.mode().read {
        return Err(Errno::EBADF);
    }
    if len < queue.longest as u64 {
        return Err(Errno::EMSGSIZE);
    }
    let (text, priority) = queue.receive(file.flags() & abi::O_NONBLOCK != 0, until)?;
    if priority_to != 0 {
        user::write_u32(priority_to, priority)?;
    }
    user::copy_to(to, &text)?;
    Ok(text.len() as u64)
}

fn mq_notify(caller: &mut Caller) -> Result<u64> {
    let [fd, event, ..] = caller.args();
    let table = caller.task.files().id();
    let by = if event == 0 { None } else { Some(notification(caller, event)?) };
    let file = queue_file(caller, fd)?;
    let queue = queue(&file)?;
    match by {
        None => queue.unregister(table),
        Some(by) => {
            let process = Arc::downgrade(&caller.task.process);
            queue.register(Registration { table, process, by })?;
        }
    }
    Ok(0)
}

fn notification(caller: &Caller, event: u64) -> Result<By> {
    let (value, signo, how, _) = read_event(event)?;
    match how {
        abi::SIGEV_NONE => Ok(By::Nothing),
        abi::SIGEV_SIGNAL if signo <= LAST => Ok(By::Signal { signo, value }),
        // The C library's thread reads a socket; the value says where the bytes are that it wants to read there.
        abi::SIGEV_THREAD => {
            let mut cookie = [0; mqueue::COOKIE];
            user::copy_from(&mut cookie, value)?;
            let file = caller.task.file(signo)?;
            let socket = file.ops_as::<Socket>().ok_or(Errno::ENOTSOCK)?.0.clone();
            if socket.common().domain != AF_NETLINK {
                return Err(Errno::EINVAL);
            }
            Ok(By::Socket { socket, cookie })
        }
        _ => Err(Errno::EINVAL),
    }
}

fn mq_getsetattr(caller: &mut Caller) -> Result<u64> {
    let [fd, new, old, ..] = caller.args();
    let wanted = match new {
        0 => None,
        at => Some(words::get::<8>(at)?[0]),
    };
    if wanted.is_some_and(|flags| flags & !u64::from(abi::O_NONBLOCK) != 0) {
        return Err(Errno::EINVAL);
    }
    let file = queue_file(caller, fd)?;
    let queue = queue(&file)?;
    let flags = u64::from(file.flags() & abi::O_NONBLOCK);
    let told = [flags, queue.most as u64, queue.longest as u64, queue.len() as u64, 0, 0, 0, 0];
    if let Some(flags) = wanted {
        file.set_flag(abi::O_NONBLOCK, flags != 0);
    }
    if old != 0 {
        words::put(old, told)?;
    }
    Ok(0)
}
