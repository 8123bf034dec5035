//! Process descriptors: `pidfd_open`, `pidfd_send_signal`, `pidfd_getfd`.
#![forbid(unsafe_code)]

use super::signal::{made_up, mine, number, queue_for_task, send};
use super::{Calls, at, foreign};
use crate::errno::{Errno, Result};
use crate::process::pidfd::{self, PidFile};
use crate::process::run::Caller;
use crate::process::{Pid, table};
use linux_raw_sys::general as abi;

pub const CALLS: &Calls = &[
    (abi::__NR_pidfd_open, pidfd_open),
    (abi::__NR_pidfd_send_signal, pidfd_send_signal),
    (abi::__NR_pidfd_getfd, pidfd_getfd),
];

/// To whom a signal goes: the one thread, its whole process (as without), the group that has the process's number.
const THREAD: u32 = 1;
const ALL_THREADS: u32 = 2;
const GROUP: u32 = 4;

fn pidfd_open(caller: &mut Caller) -> Result<u64> {
    let [pid, flags, ..] = caller.args();
    let pid = pid as Pid;
    if flags as u32 & !abi::O_NONBLOCK != 0 || pid <= 0 {
        return Err(Errno::EINVAL);
    }
    let Some(process) = table::process(pid) else {
        // A thread that is not its process's first has no descriptor.
        return Err(if table::task(pid).is_some() { Errno::EINVAL } else { Errno::ESRCH });
    };
    let file = pidfd::open(&process, flags as u32 & abi::O_NONBLOCK != 0)?;
    at::install(caller, file, true)
}

fn pidfd_send_signal(caller: &mut Caller) -> Result<u64> {
    let [fd, signo, info_at, flags, ..] = caller.args();
    let scope = flags as u32;
    if scope & !(THREAD | ALL_THREADS | GROUP) != 0 || scope.count_ones() > 1 {
        return Err(Errno::EINVAL);
    }
    let file = at::file(caller, fd)?;
    let process = PidFile::to_signal(&file)?;
    let info = match info_at {
        0 => mine(caller, number(signo)?, abi::SI_USER as i32),
        at => {
            let info = made_up(caller, process.pid, signo, at)?;
            // Here, unlike with `rt_sigqueueinfo`, it has to say the same number.
            if super::user::read_u32(at)? != info.signo {
                return Err(Errno::EINVAL);
            }
            info
        }
    };
    match scope {
        GROUP => {
            let group = process.pid;
            let mut result = Err(Errno::ESRCH);
            for member in table::group_members(group) {
                match send(caller, &member, info) {
                    Ok(()) => result = Ok(0),
                    Err(error) if result == Err(Errno::ESRCH) => result = Err(error),
                    Err(_) => {}
                }
            }
            result
        }
        THREAD => queue_for_task(caller, None, process.pid, info),
        _ => send(caller, &process, info).map(|()| 0),
    }
}

fn pidfd_getfd(caller: &mut Caller) -> Result<u64> {
    let [fd, wanted, flags, ..] = caller.args();
    if flags as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let file = at::file(caller, fd)?;
    let process = PidFile::of(&file)?;
    let task = process.any_task().filter(|_| table::holds(process)).ok_or(Errno::ESRCH)?;
    foreign::may_look(caller, &task)?;
    let theirs = task.files().get_any(wanted as u32)?;
    at::install(caller, theirs, true)
}
