//! Descriptors that stand for processes (`pidfd_open(2)`).
//!
//! A number can be another process's tomorrow; a descriptor is this one process for as long as it is open. It can be polled: it
//! is readable from the moment that the process has ended, whether its parent has heard of that or not.
#![forbid(unsafe_code)]

use super::process::Process;
use super::{Pid, proc, table};
use crate::errno::{Errno, Result};
use crate::fs::anon;
use crate::fs::file::{File, FileOps};
use crate::fs::poll::{Events, Watchers};
use crate::net::{Ucred, moment};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use linux_raw_sys::general as abi;

/// What the open file does.
pub struct PidFile {
    process: Arc<Process>,
}

/// Open one. `nonblock`: waiting for the process through it does not wait.
pub fn open(process: &Arc<Process>, nonblock: bool) -> Result<Arc<File>> {
    let flags = abi::O_RDWR | if nonblock { abi::O_NONBLOCK } else { 0 };
    anon::open(Arc::new(PidFile { process: process.clone() }), "pidfd", flags)
}

/// The process that sent something: `None` if it is no more.
pub fn sender(who: &Ucred) -> Option<Arc<Process>> {
    table::process(who.pid as Pid).filter(|process| moment(process.started) == who.began)
}

impl PidFile {
    /// The process behind an open file: EBADF for a file of another kind.
    pub fn of(file: &File) -> Result<&Arc<Process>> {
        file.ops_as::<PidFile>().map(|it| &it.process).ok_or(Errno::EBADF)
    }

    /// For signals a process's directory in `/proc` is as good. The process lives, or waits to be waited for; else ESRCH.
    pub fn to_signal(file: &File) -> Result<Arc<Process>> {
        let process = match proc::process_of(&**file.inode()) {
            Some(process) => process?,
            None => Self::of(file)?.clone(),
        };
        if table::holds(&process) { Ok(process) } else { Err(Errno::ESRCH) }
    }
}

impl FileOps for PidFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn told(&self) -> String {
        let pid = if table::holds(&self.process) { self.process.pid as i64 } else { -1 };
        format!("Pid:\t{pid}\nNSpid:\t{pid}\n")
    }

    fn poll(&self) -> Events {
        if self.process.has_ended() { Events::READABLE } else { Events::empty() }
    }

    fn watch(&self, watchers: &mut Watchers) {
        watchers.add(self.process.end_signal());
    }
}
