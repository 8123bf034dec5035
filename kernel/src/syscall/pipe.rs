//! Making pipes.

use super::at::{self, check_flags};
use super::{Calls, user};
use crate::errno::{Errno, Result};
use crate::fs::{File, pipe, pipe_share};
use crate::mem;
use crate::process::run::Caller;
use linux_raw_sys::general as abi;

pub const CALLS: &Calls = &[(abi::__NR_pipe, pipe_plain), (abi::__NR_pipe2, pipe2)];

fn make(caller: &Caller, to: u64, flags: u64) -> Result<u64> {
    let flags = check_flags(flags, abi::O_CLOEXEC | abi::O_NONBLOCK | abi::O_DIRECT)?;
    if !mem::headroom(16 * 1024) {
        return Err(Errno::ENFILE);
    }
    let cred = caller.task.cred();
    let ((reader, writer), place) = pipe::pipe((cred.fsuid, cred.fsgid), pipe_share::Who::of(&cred))?;
    let status = flags & (abi::O_NONBLOCK | abi::O_DIRECT);
    let close_on_exec = flags & abi::O_CLOEXEC != 0;
    let reader = File::new(reader, place.clone(), abi::O_RDONLY | status & abi::O_NONBLOCK)?;
    let writer = File::new(writer, place, abi::O_WRONLY | status)?;
    let files = caller.task.files();
    let one = at::install(caller, reader, close_on_exec)?;
    let result = at::install(caller, writer, close_on_exec).and_then(|two| {
        user::write_u64(to, one | two << 32).map_err(|e| {
            let _ = files.close(two as u32);
            e.into()
        })
    });
    if let Err(e) = result {
        let _ = files.close(one as u32);
        return Err(e);
    }
    Ok(0)
}

fn pipe_plain(caller: &mut Caller) -> Result<u64> {
    let [to, ..] = caller.args();
    make(caller, to, 0)
}

fn pipe2(caller: &mut Caller) -> Result<u64> {
    let [to, flags, ..] = caller.args();
    make(caller, to, flags)
}
