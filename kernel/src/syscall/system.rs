//! What the machine is, and what the caller may do with it: `uname`, names, `getcpu`, capabilities.
//!
//! Privilege is that of user 0 and not divided further: user 0 has all capabilities, others have none, and `capset`
//! accepts what is so already.
#![forbid(unsafe_code)]

use super::{Calls, at, words};
use crate::arch::{self, user};
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::process::run::Caller;
use crate::process::{exec, host};
use alloc::vec;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[
    (abi::__NR_uname, uname),
    (abi::__NR_sethostname, sethostname),
    (abi::__NR_setdomainname, setdomainname),
    (abi::__NR_getcpu, getcpu),
    (abi::__NR_setns, setns),
    (abi::__NR_pivot_root, root_only),
    (abi::__NR_vhangup, vhangup),
    (abi::__NR_reboot, root_only),
    (abi::__NR_acct, acct),
];

/// Bytes of each of the six names of `struct new_utsname`.
const NAME: usize = host::NAME_MAX + 1;

fn uname(caller: &mut Caller) -> Result<u64> {
    let [to, ..] = caller.args();
    let mut names = words::Layout::<{ 6 * NAME }>::new();
    let (host, domain) = (host::name(), host::domain());
    let personality = caller.task.process.personality.load(Relaxed);
    let release = if personality & exec::UNAME26 != 0 { host::RELEASE_26 } else { host::RELEASE };
    let machine = if personality & 0xff == exec::PER_LINUX32 { host::MACHINE_32 } else { host::MACHINE };
    let all: [&[u8]; 6] = [
        host::SYSTEM.as_bytes(),
        &host,
        release.as_bytes(),
        host::VERSION.as_bytes(),
        machine.as_bytes(),
        &domain,
    ];
    for (i, name) in all.iter().enumerate() {
        names.set(i * NAME, &name[..name.len().min(NAME - 1)]);
    }
    names.put(to)?;
    Ok(0)
}

fn set_name(caller: &Caller, set: fn(&[u8]) -> Result<()>) -> Result<u64> {
    let [from, len, ..] = caller.args();
    if !caller.task.cred().may(cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let len = len as i32;
    if len < 0 || len as usize > host::NAME_MAX {
        return Err(Errno::EINVAL);
    }
    let mut name = vec![0; len as usize];
    user::copy_from(&mut name, from)?;
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    set(&name[..end])?;
    Ok(0)
}

fn sethostname(caller: &mut Caller) -> Result<u64> {
    set_name(caller, host::set_name)
}

fn setdomainname(caller: &mut Caller) -> Result<u64> {
    set_name(caller, host::set_domain)
}

fn getcpu(caller: &mut Caller) -> Result<u64> {
    let [cpu, node, ..] = caller.args();
    if cpu != 0 {
        user::write_u32(cpu, arch::cpu::id() as u32)?;
    }
    if node != 0 {
        user::write_u32(node, 0)?;
    }
    Ok(0)
}

/// There is one namespace of each kind, and no file that is one: only a descriptor that is none at all is told apart.
fn setns(caller: &mut Caller) -> Result<u64> {
    let [fd, ..] = caller.args();
    at::file(caller, fd)?;
    Err(Errno::EINVAL)
}

/// Hang up the caller's own terminal.
fn vhangup(caller: &mut Caller) -> Result<u64> {
    if !caller.task.cred().may(cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    crate::fs::tty::hang_up_own();
    Ok(0)
}

/// No records of processes are written; only who might ask for them hears that.
fn acct(caller: &mut Caller) -> Result<u64> {
    Err(if caller.task.cred().may(cap::SYS_PACCT) { Errno::ENOSYS } else { Errno::EPERM })
}

/// Not for programs: the machine, and what is mounted in it, are the `hafez` command's.
fn root_only(_: &mut Caller) -> Result<u64> {
    Err(Errno::EPERM)
}
