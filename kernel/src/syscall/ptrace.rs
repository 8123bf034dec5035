//! `ptrace(2)`: the tracer's side. What a tracee is, and where it stops, is in `process/trace`.
#![forbid(unsafe_code)]

use super::foreign::may_look;
use super::{Calls, dispatch, seccomp, user, words};
use crate::arch::fpu;
use crate::arch::user::copy_words_to;
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::process::run::Caller;
use crate::process::signal::{self, LAST, SIGINFO_LEN, SigInfo, SigSet};
use crate::process::trace::registers::{FS_BASE, GS_BASE, ORIG_RAX, RAX, RIP, RSP, WORDS};
use crate::process::trace::{self, How, Moment, Stop};
use crate::process::wait::Status;
use crate::process::{Image, Pid, Task, exit, foreign, table};
use alloc::sync::Arc;
use linux_raw_sys::general as abi;
use linux_raw_sys::ptrace as pt;

/// The calls of this family.
pub const CALLS: &Calls = &[(abi::__NR_ptrace, ptrace)];

/// Bytes of `struct user_regs_struct`, and of `struct user`, in which it comes first; where debug registers stand in that.
const REGISTERS: u64 = 8 * WORDS as u64;
const USER: u64 = 928;
const DEBUG_REGISTERS: u64 = 848;
const DEBUG_END: u64 = DEBUG_REGISTERS + 64;
/// Kinds of registers (`PTRACE_GETREGSET`).
const NT_PRSTATUS: u64 = 1;
const NT_PRFPREG: u64 = 2;
const NT_X86_XSTATE: u64 = 0x202;
/// `arch_prctl` for a tracee.
const ARCH_SET_GS: u64 = 0x1001;
const ARCH_SET_FS: u64 = 0x1002;
const ARCH_GET_FS: u64 = 0x1003;
const ARCH_GET_GS: u64 = 0x1004;
/// `AUDIT_ARCH_X86_64`
const ARCHITECTURE: u32 = 0xC000_003E;
/// `struct ptrace_syscall_info`: bytes before the union, and with each of its members.
const INFO_NONE: usize = 24;
const INFO_ENTRY: usize = 80;
const INFO_EXIT: usize = 33;
const INFO_SECCOMP: usize = 84;

fn ptrace(caller: &mut Caller) -> Result<u64> {
    let [request, pid, addr, data, ..] = caller.args();
    let (request, pid) = (request as u32, pid as Pid);
    if u64::from(request) != caller.args()[0] {
        return Err(Errno::EIO).or_else(|e| tracee_or(caller, pid, e));
    }
    match request {
        pt::PTRACE_TRACEME => trace_me(caller),
        pt::PTRACE_ATTACH => attach(caller, pid, false, 0),
        pt::PTRACE_SEIZE => {
            if addr != 0 || data & !u64::from(pt::PTRACE_O_MASK) != 0 {
                target(pid)?;
                return Err(Errno::EIO);
            }
            may_set(caller, data as u32)?;
            attach(caller, pid, true, data as u32)
        }
        pt::PTRACE_KILL => {
            let (task, ..) = trace::tracee(&caller.task, pid)?;
            let status = Status::Signalled { signo: abi::SIGKILL, core: false };
            exit::end_process(&task.process, status);
            Ok(0)
        }
        pt::PTRACE_INTERRUPT => {
            let (task, seized, _) = trace::tracee(&caller.task, pid)?;
            if !seized {
                return Err(Errno::EIO);
            }
            trace::want_trap(&task);
            Ok(0)
        }
        _ => of_stopped(caller, request, pid, addr, data),
    }
}

/// `error`, but ESRCH where the number is no stopped tracee's.
fn tracee_or(caller: &Caller, pid: Pid, error: Errno) -> Result<u64> {
    trace::with_stopped(&caller.task, pid, |_, _| Ok(()))?;
    Err(error)
}

/// Options that not everybody may set: a tracee's filters are suspended for who may do anything, and has none itself.
fn may_set(caller: &Caller, options: u32) -> Result<()> {
    let suspends = options & pt::PTRACE_O_SUSPEND_SECCOMP != 0;
    let may = || caller.task.cred().may(cap::SYS_ADMIN) && seccomp::is_free(&caller.task);
    if !suspends || may() { Ok(()) } else { Err(Errno::EPERM) }
}

/// What needs a tracee that is stopped.
fn of_stopped(caller: &mut Caller, request: u32, pid: Pid, addr: u64, data: u64) -> Result<u64> {
    let me = &caller.task;
    let stopped = |f: &mut dyn FnMut(&mut Stop) -> Result<()>| {
        trace::with_stopped(me, pid, |_, stop| f(stop)).map(|()| 0)
    };
    let how = |calls, emulate, single| How { calls, emulate, single };
    match request {
        pt::PTRACE_CONT => go_on(me, pid, data, how(false, false, false)),
        pt::PTRACE_SYSCALL => go_on(me, pid, data, how(true, false, false)),
        pt::PTRACE_SINGLESTEP => go_on(me, pid, data, how(false, false, true)),
        pt::PTRACE_SYSEMU => go_on(me, pid, data, how(false, true, false)),
        pt::PTRACE_SYSEMU_SINGLESTEP => go_on(me, pid, data, how(false, true, true)),
        pt::PTRACE_DETACH => {
            let signo = signal_number(me, pid, data)?;
            trace::detach(me, pid, signo).map(|()| 0)
        }
        pt::PTRACE_LISTEN => trace::listen(me, pid).map(|()| 0),
        pt::PTRACE_SETOPTIONS | pt::PTRACE_OLDSETOPTIONS => {
            let mine = &*caller;
            trace::with_stopped(me, pid, |options, _| {
                if data & !u64::from(pt::PTRACE_O_MASK) != 0 {
                    return Err(Errno::EINVAL);
                }
                may_set(mine, data as u32)?;
                *options = data as u32;
                Ok(0)
            })
        }
        pt::PTRACE_PEEKTEXT | pt::PTRACE_PEEKDATA => {
            let mut word = [0; 8];
            foreign::read(&*image(me, pid)?, addr, &mut word).map_err(|_| Errno::EIO)?;
            Ok(user::copy_to(data, &word).map(|()| 0)?)
        }
        pt::PTRACE_POKETEXT | pt::PTRACE_POKEDATA => {
            foreign::force(&*image(me, pid)?, addr, &data.to_le_bytes()).map(|()| 0)
        }
        pt::PTRACE_PEEKUSR => {
            let mut word = 0;
            stopped(&mut |stop| {
                word = match user_index(addr)? {
                    Place::Register(index) => stop.shown.words()[index],
                    Place::Debug(index) => stop.shown.debug(index),
                    Place::Other => 0,
                };
                Ok(())
            })?;
            Ok(user::write_u64(data, word).map(|()| 0)?)
        }
        pt::PTRACE_POKEUSR => stopped(&mut |stop| match user_index(addr)? {
            Place::Register(index) => stop.shown.set(index, data),
            Place::Debug(index) => stop.shown.set_debug(index, data),
            Place::Other => Err(Errno::EIO),
        }),
        pt::PTRACE_GETREGS => get_set(me, pid, Kind::General, data, u64::MAX, false).map(|_| 0),
        pt::PTRACE_SETREGS => get_set(me, pid, Kind::General, data, u64::MAX, true).map(|_| 0),
        pt::PTRACE_GETFPREGS => get_set(me, pid, Kind::Legacy, data, u64::MAX, false).map(|_| 0),
        pt::PTRACE_SETFPREGS => get_set(me, pid, Kind::Legacy, data, u64::MAX, true).map(|_| 0),
        pt::PTRACE_GETREGSET | pt::PTRACE_SETREGSET => {
            let set = request == pt::PTRACE_SETREGSET;
            stopped(&mut |_| Ok(()))?;
            let [at, len] = words::get(data)?;
            let kind = match addr {
                NT_PRSTATUS => Kind::General,
                NT_PRFPREG => Kind::Legacy,
                NT_X86_XSTATE if fpu::xcr0() != 0 => Kind::Whole,
                NT_X86_XSTATE => return Err(Errno::ENODEV),
                _ => return Err(Errno::EINVAL),
            };
            if len % 8 != 0 {
                return Err(Errno::EINVAL);
            }
            let used = get_set(me, pid, kind, at, len, set)?;
            Ok(user::write_u64(data.wrapping_add(8), used).map(|()| 0)?)
        }
        pt::PTRACE_GETSIGINFO => {
            let mut info = None;
            stopped(&mut |stop| {
                info = stop.info;
                Ok(())
            })?;
            let info = info.ok_or(Errno::EINVAL)?;
            Ok(copy_words_to(data, &info.to_words()).map(|()| 0)?)
        }
        pt::PTRACE_SETSIGINFO => {
            stopped(&mut |_| Ok(()))?;
            let mut raw = [0; SIGINFO_LEN];
            user::copy_from(&mut raw, data)?;
            stopped(&mut |stop| {
                let info = stop.info.as_mut().ok_or(Errno::EINVAL)?;
                *info = SigInfo::from_bytes(&raw);
                Ok(())
            })
        }
        pt::PTRACE_GETEVENTMSG => {
            stopped(&mut |_| Ok(()))?;
            let (_, _, message) = trace::tracee(me, pid)?;
            Ok(user::write_u64(data, message).map(|()| 0)?)
        }
        pt::PTRACE_GETSIGMASK | pt::PTRACE_SETSIGMASK => {
            stopped(&mut |_| Ok(()))?;
            if addr != 8 {
                return Err(Errno::EINVAL);
            }
            let (task, ..) = trace::tracee(me, pid)?;
            if request == pt::PTRACE_GETSIGMASK {
                user::write_u64(data, task.mask().0)?;
            } else {
                // It is stopped: nobody else writes it meanwhile.
                signal::set_mask(&task, SigSet(user::read_u64(data)?));
            }
            Ok(0)
        }
        pt::PTRACE_SECCOMP_GET_FILTER | pt::PTRACE_SECCOMP_GET_METADATA => {
            stopped(&mut |_| Ok(()))?;
            let (task, ..) = trace::tracee(me, pid)?;
            match request {
                pt::PTRACE_SECCOMP_GET_FILTER => seccomp::filter_of(me, &task, addr, data),
                _ => seccomp::metadata_of(me, &task, addr, data),
            }
        }
        pt::PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG | pt::PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG => {
            stopped(&mut |_| Ok(()))?;
            let (task, ..) = trace::tracee(me, pid)?;
            match request {
                pt::PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG => dispatch::set_traced(&task, addr, data),
                _ => dispatch::get_traced(&task, addr, data),
            }
        }
        pt::PTRACE_PEEKSIGINFO => peek_queue(caller, pid, addr, data),
        pt::PTRACE_GET_SYSCALL_INFO => syscall_info(caller, pid, addr, data),
        pt::PTRACE_GET_RSEQ_CONFIGURATION => {
            stopped(&mut |_| Ok(()))?;
            let (task, ..) = trace::tracee(me, pid)?;
            let (at, len, signature) = task.rseq.registered();
            let mut raw = [0; 24];
            raw[..8].copy_from_slice(&at.to_le_bytes());
            raw[8..12].copy_from_slice(&len.to_le_bytes());
            raw[12..16].copy_from_slice(&signature.to_le_bytes());
            user::copy_to(data, &raw[..raw.len().min(addr as usize)])?;
            Ok(raw.len() as u64)
        }
        pt::PTRACE_ARCH_PRCTL => {
            let index = match data {
                ARCH_SET_FS | ARCH_GET_FS => FS_BASE,
                ARCH_SET_GS | ARCH_GET_GS => GS_BASE,
                _ => return tracee_or(caller, pid, Errno::EINVAL),
            };
            let mut word = addr;
            let set = matches!(data, ARCH_SET_FS | ARCH_SET_GS);
            stopped(&mut |stop| {
                if set {
                    return stop.shown.set(index, word).map_err(|_| Errno::EPERM);
                }
                word = stop.shown.words()[index];
                Ok(())
            })?;
            if !set {
                user::write_u64(addr, word)?;
            }
            Ok(0)
        }
        _ => tracee_or(caller, pid, Errno::EIO),
    }
}

/// The task with this number. EPERM for a process that has ended.
fn target(pid: Pid) -> Result<Arc<Task>> {
    table::task(pid).ok_or(if table::is_zombie(pid) { Errno::EPERM } else { Errno::ESRCH })
}

fn attach(caller: &Caller, pid: Pid, seized: bool, options: u32) -> Result<u64> {
    let task = target(pid)?;
    if task.process.pid == caller.task.process.pid {
        return Err(Errno::EPERM);
    }
    may_look(caller, &task)?;
    trace::attach(&caller.task, &task, seized, options)?;
    if !seized {
        let _ = signal::to_task(&task, SigInfo::kernel(abi::SIGSTOP));
    }
    Ok(0)
}

/// The parent becomes the tracer: the thread of it that made this process, or another where that is gone.
fn trace_me(caller: &mut Caller) -> Result<u64> {
    let process = &caller.task.process;
    let parent = table::process(process.parent()).ok_or(Errno::EPERM)?;
    let maker = table::task(process.maker()).filter(|task| task.process.pid == parent.pid);
    let tracer = maker.or_else(|| parent.any_task()).ok_or(Errno::EPERM)?;
    trace::attach(&tracer, &caller.task, false, 0)?;
    Ok(0)
}

fn signal_number(me: &Task, pid: Pid, data: u64) -> Result<u32> {
    trace::with_stopped(
        me,
        pid,
        |_, _| if data > u64::from(LAST) { Err(Errno::EIO) } else { Ok(data as u32) },
    )
}

fn go_on(me: &Task, pid: Pid, data: u64, how: How) -> Result<u64> {
    let signo = signal_number(me, pid, data)?;
    trace::resume(me, pid, signo, how).map(|()| 0)
}

/// The program of a stopped tracee.
fn image(me: &Task, pid: Pid) -> Result<Arc<Image>> {
    trace::with_stopped(me, pid, |_, _| Ok(()))?;
    let (task, ..) = trace::tracee(me, pid)?;
    task.image().ok_or(Errno::ESRCH)
}

/// What stands at a place of `struct user`.
enum Place {
    Register(usize),
    Debug(usize),
    Other,
}

/// EIO for what is no place.
fn user_index(addr: u64) -> Result<Place> {
    if !addr.is_multiple_of(8) || addr >= USER {
        return Err(Errno::EIO);
    }
    Ok(match addr {
        0..REGISTERS => Place::Register(addr as usize / 8),
        DEBUG_REGISTERS..DEBUG_END => Place::Debug((addr - DEBUG_REGISTERS) as usize / 8),
        _ => Place::Other,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    General,
    Legacy,
    Whole,
}

/// Copy a set of registers out or in, `len` bytes of it at most; how many there were.
fn get_set(me: &Task, pid: Pid, kind: Kind, at: u64, len: u64, set: bool) -> Result<u64> {
    let mut bytes = [0; fpu::MAX_BYTES];
    let size = trace::with_stopped(me, pid, |_, stop| {
        Ok(match kind {
            Kind::General => {
                for (to, word) in bytes.chunks_exact_mut(8).zip(stop.shown.words()) {
                    to.copy_from_slice(&word.to_le_bytes());
                }
                REGISTERS as usize
            }
            Kind::Legacy => {
                bytes[..fpu::LEGACY_BYTES].copy_from_slice(&stop.shown.legacy());
                fpu::LEGACY_BYTES
            }
            Kind::Whole => {
                let (all, size) = stop.shown.xstate();
                bytes = all;
                size
            }
        })
    })?;
    let used = size.min(len as usize);
    if !set {
        user::copy_to(at, &bytes[..used])?;
        return Ok(used as u64);
    }
    if kind != Kind::General && used < size {
        return Err(if kind == Kind::Whole { Errno::EFAULT } else { Errno::EINVAL });
    }
    user::copy_from(&mut bytes[..used], at)?;
    trace::with_stopped(me, pid, |_, stop| match kind {
        Kind::General => {
            let words = bytes[..used].as_chunks::<8>().0.iter();
            words.enumerate().try_for_each(|(i, word)| stop.shown.set(i, u64::from_le_bytes(*word)))
        }
        Kind::Legacy => bytes.first_chunk().map_or(Ok(()), |legacy| stop.shown.set_legacy(legacy)),
        Kind::Whole => stop.shown.set_xstate(&bytes[..used]),
    })?;
    Ok(used as u64)
}

/// `PTRACE_PEEKSIGINFO`: signals that wait.
fn peek_queue(caller: &Caller, pid: Pid, addr: u64, data: u64) -> Result<u64> {
    trace::with_stopped(&caller.task, pid, |_, _| Ok(()))?;
    let [first, rest] = words::get(addr)?;
    let (flags, count) = (rest as u32, (rest >> 32) as i32);
    if flags & !pt::PTRACE_PEEKSIGINFO_SHARED != 0 || count < 0 {
        return Err(Errno::EINVAL);
    }
    let (task, ..) = trace::tracee(&caller.task, pid)?;
    let mut done = 0;
    while done < count as u64 {
        let mut found = None;
        let mut look = |info: &SigInfo| {
            found = Some(*info);
            false
        };
        let Some(at) = first.checked_add(done) else { break };
        task.look_at_queue(flags & pt::PTRACE_PEEKSIGINFO_SHARED != 0, at, &mut look);
        let Some(info) = found else { break };
        let to = data.wrapping_add(done * SIGINFO_LEN as u64);
        if let Err(e) = copy_words_to(to, &info.to_words()) {
            return if done > 0 { Ok(done) } else { Err(e.into()) };
        }
        done += 1;
    }
    Ok(done)
}

/// `PTRACE_GET_SYSCALL_INFO`: the call at which the tracee is stopped.
fn syscall_info(caller: &Caller, pid: Pid, room: u64, at: u64) -> Result<u64> {
    let mut raw = [0; INFO_SECCOMP];
    let (_, _, message) = trace::tracee(&caller.task, pid)?;
    let size = trace::with_stopped(&caller.task, pid, |_, stop| {
        let words = stop.shown.words();
        let mut put = |at: usize, word: u64| raw[at..at + 8].copy_from_slice(&word.to_le_bytes());
        put(0, u64::from(ARCHITECTURE) << 32);
        put(8, words[RIP]);
        put(16, words[RSP]);
        let code = stop.info.map_or(0, |info| info.code as u32);
        let (kind, size) = match stop.moment {
            _ if code == abi::SIGTRAP | pt::PTRACE_EVENT_SECCOMP << 8 => {
                (pt::PTRACE_SYSCALL_INFO_SECCOMP, INFO_SECCOMP)
            }
            _ if code != abi::SIGTRAP | 0x80 => (pt::PTRACE_SYSCALL_INFO_NONE, INFO_NONE),
            Moment::Entry => (pt::PTRACE_SYSCALL_INFO_ENTRY, INFO_ENTRY),
            Moment::Exit => (pt::PTRACE_SYSCALL_INFO_EXIT, INFO_EXIT),
            _ => (pt::PTRACE_SYSCALL_INFO_NONE, INFO_NONE),
        };
        if matches!(size, INFO_ENTRY | INFO_SECCOMP) {
            // The number, and rdi rsi rdx r10 r8 r9.
            for (i, word) in [ORIG_RAX, 14, 13, 12, 7, 9, 8].into_iter().enumerate() {
                put(24 + 8 * i, words[word]);
            }
        }
        if size == INFO_EXIT {
            put(24, words[RAX]);
            raw[32] = u8::from(words[RAX] > u64::MAX - 4095);
        }
        if size == INFO_SECCOMP {
            raw[80..84].copy_from_slice(&(message as u32).to_le_bytes());
        }
        raw[0] = kind as u8;
        Ok(size)
    })?;
    user::copy_to(at, &raw[..size.min(room as usize)])?;
    Ok(size as u64)
}
