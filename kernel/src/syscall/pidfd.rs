//! Process descriptors: `pidfd_open`, `pidfd_send_signal`, `pidfd_getfd`.
#![forbid(unsafe_code)]

use super::signal::{made_up, mine, number, send};
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
    if flags as u32 != 0 {
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
    send(caller, &process, info)?;
    Ok(0)
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
