//! Restartable sequences (`rseq(2)`): a thread's word to its program on which CPU it runs, and the promise that a short piece of
//! code which the program has marked is either run to its end on one CPU, with nobody else in between, or left for its
//! abort handler.
//!
//! ```text
//!   struct rseq:     cpu_id_start  cpu_id  rseq_cs ──► struct rseq_cs: version flags start_ip length abort_ip
//!                    flags  node_id  mm_cid                            (before abort_ip: the signature that was registered)
//! ```
//!
//! What can break such a piece: another thread had the CPU ([`interrupted`]), the thread was moved ([`moved`]), a
//! signal's handler is to run ([`before_handler`]). Then, before the program goes on, [`settle`] looks. A thread that
//! has none registered costs a load where it comes back from an interrupt or a fault, and nothing elsewhere.
#![forbid(unsafe_code)]

use super::run::Caller;
use super::signal::{self, SigInfo};
use super::task::{Task, work};
use crate::arch::{self, user};
use crate::errno::{Errno, Result};
use crate::sched::{self, Thread};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use linux_raw_sys::general as abi;

/// The size of the first version, and what a structure is aligned to.
pub const SIZE: u64 = 32;
/// Bytes of it that mean something.
pub const USED: u64 = 28;
/// `cpu_id` of a thread that is registered no more.
const UNKNOWN: u32 = u32::MAX;

/// What a thread has registered.
#[derive(Default)]
pub struct Rseq {
    /// 0: nothing.
    at: AtomicU64,
    len: AtomicU32,
    signature: AtomicU32,
    /// One more than the CPU that the program was told last; 0: none.
    told: AtomicU32,
}

impl Rseq {
    #[inline(always)]
    fn is_on(&self) -> bool {
        self.at.load(Relaxed) != 0
    }

    /// A forked process has what its maker had; a thread, and a new program, nothing.
    pub fn copy_from(&self, other: &Rseq) {
        self.at.store(other.at.load(Relaxed), Relaxed);
        self.len.store(other.len.load(Relaxed), Relaxed);
        self.signature.store(other.signature.load(Relaxed), Relaxed);
        self.told.store(other.told.load(Relaxed), Relaxed);
    }
    /// Where, how long, and the signature; all 0 where there is none.
    pub fn registered(&self) -> (u64, u32, u32) {
        match self.at.load(Relaxed) {
            0 => (0, 0, 0),
            at => (at, self.len.load(Relaxed), self.signature.load(Relaxed)),
        }
    }
    pub fn clear(&self) {
        self.at.store(0, Relaxed);
    }
}

/// `rseq(2)`, to register.
pub fn register(caller: &Caller, at: u64, len: u32, signature: u32) -> Result<()> {
    let mine = &caller.task.rseq;
    if mine.is_on() {
        return Err(match mine {
            _ if mine.at.load(Relaxed) != at || mine.len.load(Relaxed) != len => Errno::EINVAL,
            _ if mine.signature.load(Relaxed) != signature => Errno::EPERM,
            _ => Errno::EBUSY,
        });
    }
    if u64::from(len) < SIZE || !at.is_multiple_of(SIZE) {
        return Err(Errno::EINVAL);
    }
    if !user::in_user_half(at, len as usize) {
        return Err(Errno::EFAULT);
    }
    mine.len.store(len, Relaxed);
    mine.signature.store(signature, Relaxed);
    mine.told.store(0, Relaxed);
    mine.at.store(at, Relaxed);
    if at != 0 {
        caller.task.work.fetch_or(work::RSEQ, Relaxed);
    }
    Ok(())
}

/// `rseq(2)`, to take it back.
pub fn unregister(caller: &Caller, at: u64, len: u32, signature: u32) -> Result<()> {
    let mine = &caller.task.rseq;
    if !mine.is_on() || mine.at.load(Relaxed) != at || mine.len.load(Relaxed) != len {
        return Err(Errno::EINVAL);
    }
    if mine.signature.load(Relaxed) != signature {
        return Err(Errno::EPERM);
    }
    tell(at, 0, UNKNOWN, 0)?;
    mine.clear();
    Ok(())
}

fn tell(at: u64, start: u32, cpu: u32, id: u32) -> Result<()> {
    user::write_u32(at, start)?;
    user::write_u32(at + 4, cpu)?;
    // The node, and the number within the process.
    user::write_u32(at + 20, 0)?;
    user::write_u32(at + 24, id)?;
    Ok(())
}

/// The thread comes back from an interrupt or a fault, during which it may have left the CPU.
#[inline(always)]
pub fn interrupted(task: &Task) {
    if sched::current().has_left() {
        broken(task);
    }
}

#[cold]
fn broken(task: &Task) {
    sched::current().forget_left();
    if task.rseq.is_on() {
        task.work.fetch_or(work::RSEQ, Relaxed);
    }
}

/// A thread goes on on another CPU. Called by the scheduler, with its lock held.
pub fn moved(thread: &Thread) {
    if let Some(task) = thread.owner().and_then(|owner| owner.downcast_ref::<Task>())
        && task.rseq.is_on()
    {
        task.work.fetch_or(work::RSEQ, Relaxed);
    }
}

/// A handler is about to run: it interrupts whatever the program is in.
#[inline]
pub fn before_handler(caller: &mut Caller) {
    let at = caller.task.rseq.at.load(Relaxed);
    // Nearly always it is in none.
    if at != 0 && user::read_u64(at + 8) != Ok(0) && leave(caller, at).is_err() {
        refuse(caller);
    }
}

/// Before the program goes on: leave the piece that was broken, and tell the CPU.
#[cold]
pub fn settle(caller: &mut Caller) {
    let at = caller.task.rseq.at.load(Relaxed);
    if at == 0 {
        return;
    }
    let cpu = arch::cpu::id() as u32;
    let known = caller.task.rseq.told.swap(cpu + 1, Relaxed) == cpu + 1;
    if leave(caller, at).is_err() || !known && tell(at, cpu, cpu, cpu).is_err() {
        refuse(caller);
    }
}

/// A structure that cannot be what it should be is answered with SIGSEGV.
#[cold]
fn refuse(caller: &mut Caller) {
    caller.task.rseq.clear();
    signal::force(caller, SigInfo::kernel(abi::SIGSEGV));
}

fn leave(caller: &mut Caller, at: u64) -> Result<()> {
    let piece = user::read_u64(at + 8)?;
    if piece == 0 {
        return Ok(());
    }
    let mut words = [0; 4];
    for (i, word) in words.iter_mut().enumerate() {
        *word = user::read_u64(piece.wrapping_add(8 * i as u64))?;
    }
    let [version_flags, start, length, abort] = words;
    let end = start.checked_add(length).ok_or(Errno::EINVAL)?;
    let outside = [start, end, abort].iter().any(|&ip| !user::in_user_half(ip, 0));
    if outside || version_flags != 0 || abort.wrapping_sub(start) < length {
        return Err(Errno::EINVAL);
    }
    if user::read_u32(abort.wrapping_sub(4))? != caller.task.rseq.signature.load(Relaxed) {
        return Err(Errno::EINVAL);
    }
    let inside = caller.user.rip().wrapping_sub(start) < length;
    if inside && user::read_u32(at + 16)? != 0 {
        return Err(Errno::EINVAL);
    }
    user::write_u64(at + 8, 0)?;
    if inside {
        caller.user.set_rip(abort);
    }
    Ok(())
}
