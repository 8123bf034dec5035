//! Sockets: there are none yet, and programs are told so in the words that they expect.
//!
//! Programs probe with these calls: a shell asks `getpeername` of its standard input whether it was started by a network
//! server, and takes any error but ENOTSOCK for a yes. So what is no socket is said to be none, and no family is supported.
#![forbid(unsafe_code)]

use super::Calls;
use crate::errno::{Errno, Result};
use crate::process::run::Caller;
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[
    (abi::__NR_socket, no_family),
    (abi::__NR_socketpair, no_family),
    (abi::__NR_bind, no_socket),
    (abi::__NR_listen, no_socket),
    (abi::__NR_accept, no_socket),
    (abi::__NR_accept4, no_socket),
    (abi::__NR_connect, no_socket),
    (abi::__NR_shutdown, no_socket),
    (abi::__NR_getsockname, no_socket),
    (abi::__NR_getpeername, no_socket),
    (abi::__NR_getsockopt, no_socket),
    (abi::__NR_setsockopt, no_socket),
    (abi::__NR_sendto, no_socket),
    (abi::__NR_recvfrom, no_socket),
    (abi::__NR_sendmsg, no_socket),
    (abi::__NR_recvmsg, no_socket),
    (abi::__NR_sendmmsg, no_socket),
    (abi::__NR_recvmmsg, no_socket),
];

fn no_family(_: &mut Caller) -> Result<u64> {
    Err(Errno::EAFNOSUPPORT)
}

fn no_socket(caller: &mut Caller) -> Result<u64> {
    let [fd, ..] = caller.args();
    caller.task.files().get(fd as u32)?;
    Err(Errno::ENOTSOCK)
}
