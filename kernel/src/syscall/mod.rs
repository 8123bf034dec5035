//! The Linux system calls: one file a family, each thin: decode, call, encode.
//!
//! A family lists its calls as `pub const CALLS: &Calls = &[(nr::__NR_read, read), …]`; the lists are merged into one
//! table when the kernel is compiled. A handler gets the caller, takes its arguments apart
//! (`let [fd, at, len, ..] = caller.args();`) and returns the value for `rax` or an [`Errno`].
//!
//! A number in no list answers ENOSYS, which is what programs are written to cope with; nothing here pretends to have
//! done what it has not. With `HAFEZ_LOG=abi` each such number is logged once.
#![forbid(unsafe_code)]

use crate::errno::{Errno, Result};
use crate::process::calls::{Handler, Service};
use crate::process::run::Caller;
use crate::process::{control, start, trace};
use alloc::format;
use core::sync::atomic::{AtomicU64, Ordering};
use hafez_link::Level;

mod adjust;
mod advise;
mod aio;
mod at;
mod capability;
mod compare;
mod dir;
mod dispatch;
mod epoll;
mod fcntl;
mod file;
mod foreign;
mod futex;
mod identity;
mod inotify;
mod io;
mod ioprio;
mod limits;
mod memory;
mod mount;
mod mqueue;
mod nodes;
mod old;
mod pidfd;
mod pipe;
mod poll;
mod prctl;
mod process;
mod processor;
mod ptrace;
mod random;
mod residence;
mod sched;
mod seccomp;
mod segments;
mod signal;
mod socket;
mod socket_filter;
mod socket_message;
mod splice;
mod stat;
mod swap;
mod syslog;
mod system;
mod sysv;
mod time;
mod timers;
mod words;
mod xattr;

pub use crate::process::user;

/// A family's calls by number.
pub type Calls = [(u32, Handler)];

/// One more than the highest number in use.
const NUMBERS: usize = 472;

static TABLE: [Handler; NUMBERS] = {
    let mut table = [unsupported as Handler; NUMBERS];
    let families: &[&Calls] = &[
        process::CALLS,
        processor::CALLS,
        signal::CALLS,
        pidfd::CALLS,
        prctl::CALLS,
        sysv::CALLS,
        seccomp::CALLS,
        segments::CALLS,
        ioprio::CALLS,
        compare::CALLS,
        syslog::CALLS,
        mqueue::CALLS,
        socket::CALLS,
        socket_message::CALLS,
        identity::CALLS,
        capability::CALLS,
        memory::CALLS,
        residence::CALLS,
        advise::CALLS,
        nodes::CALLS,
        foreign::CALLS,
        ptrace::CALLS,
        futex::CALLS,
        time::CALLS,
        adjust::CALLS,
        timers::CALLS,
        limits::CALLS,
        sched::CALLS,
        mount::CALLS,
        system::CALLS,
        swap::CALLS,
        old::CALLS,
        random::CALLS,
        file::CALLS,
        io::CALLS,
        stat::CALLS,
        dir::CALLS,
        pipe::CALLS,
        splice::CALLS,
        xattr::CALLS,
        inotify::CALLS,
        fcntl::CALLS,
        poll::CALLS,
        epoll::CALLS,
        aio::CALLS,
    ];
    let mut f = 0;
    while f < families.len() {
        let mut i = 0;
        while i < families[f].len() {
            let (number, handler) = families[f][i];
            table[number as usize] = handler;
            i += 1;
        }
        f += 1;
    }
    table
};

/// What serves programs.
pub fn service() -> Service {
    Service { by_number: &TABLE, otherwise: unusual }
}

/// A number beyond the table, or any call where something stands before it.
#[cold]
fn unusual(caller: &mut Caller) -> Result<u64> {
    if dispatch::hands_back(caller) {
        return Ok(caller.user.rax);
    }
    if caller.task.is_traced() {
        if !trace::enter_call(caller) {
            return Ok(caller.user.rax);
        }
    } else if caller.calls.is_empty() && caller.task.is_unguarded() {
        trace::forget(caller);
    }
    if caller.calls.is_empty()
        && let Some(answer) = seccomp::judge(caller)
    {
        return answer;
    }
    let handler = TABLE.get(caller.user.rax as u32 as usize).copied();
    handler.unwrap_or(unsupported)(caller)
}

/// The numbers that have been logged; what lies past the last bit shares it.
static LOGGED: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];

#[cold]
fn unsupported(caller: &mut Caller) -> Result<u64> {
    if start::logs_abi() {
        let number = caller.user.rax;
        let slot = number.min(511) as usize;
        let bit = 1 << (slot % 64);
        if LOGGED[slot / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            let name = caller.task.name();
            let name = core::str::from_utf8(&name).unwrap_or("?").trim_end_matches('\0');
            control::log(Level::Warn, format!("{name}: system call {number} is not supported"));
        }
    }
    Err(Errno::ENOSYS)
}
