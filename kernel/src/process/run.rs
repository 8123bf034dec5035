//! The loop that every task lives in: run the program, see why it stopped, put that right, run it again.
//!
//! ```text
//!        ┌──────────────▶ arch::user::run ──── Trap ────┐
//!        │                                              ▼
//!        │      Syscall    → calls::dispatch     PageFault → memory().fault, else a signal
//!        │      Exception  → a signal            Interrupt → let another task run, if it is time
//!        │                                              │
//!        └── work == 0 ◀── one load, one branch ────────┤
//!                                                       ▼
//!                         rare: signals, stops, restarts, the end
//! ```
//!
//! [`Caller`] is what only the task's own thread touches: it lives on this loop's stack, system calls get it by
//! `&mut`, and nothing in it needs a lock.

use super::calls::{self, Handler};
use super::image::{Image, flags};
use super::rseq;
use super::seccomp::Guard;
use super::signal::{self, Actions, AltStack, SigInfo};
use super::task::{Task, work};
use super::trace::{self, Steps};
use super::vsyscall;
use crate::arch::user::{self, Trap, UserContext};
use crate::errno::Errno;
use crate::mem::{self, memory};
use crate::sched;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use hafez_mm::lock::Mutex;
use hafez_mm::{Access, FaultError, Space, VirtAddr};
use linux_raw_sys::general as abi;

/// A task as its own thread sees it.
pub struct Caller {
    /// What others may look at.
    pub task: Arc<Task>,
    /// The space and the program in it.
    pub image: Arc<Image>,
    /// The program's registers, segment bases and FPU state.
    pub user: UserContext,
    /// A call that was interrupted: its number and how it may go on. Taken when signals are looked at.
    pub(super) restart: Option<(u64, Errno)>,
    /// The mask to go back to, where a call waits under another (`sigsuspend`, `ppoll`).
    pub(super) saved_mask: Option<signal::SigSet>,
    /// A signal that the task has just sent to itself, and by which call (`si_code`): it is dealt with first.
    pub(super) raised: Option<(u32, i32)>,
    /// The actions on signals of its process.
    pub actions: Arc<Mutex<Actions>>,
    /// Where handlers with `SA_ONSTACK` run.
    pub alt_stack: AltStack,
    /// The system calls by number; none where something stands before them (see `seccomp`).
    pub calls: &'static [Handler],
    /// If it is traced: how it goes on.
    pub steps: Steps,
    /// How `restart_syscall` goes on with the interrupted call.
    pub resume: Option<Resume>,
}

/// The rest of an interrupted relative wait; `restart_syscall` runs it.
pub type Resume = Box<dyn FnOnce(&mut Caller) -> crate::errno::Result<u64> + Send>;

impl Caller {
    /// A caller about to run `task` for the first time.
    pub(super) fn new(task: Arc<Task>, image: Arc<Image>, user: UserContext) -> Caller {
        let guarded = !matches!(*task.guard.lock(), Guard::Nothing) || task.is_traced();
        let calls = if guarded { &[] } else { calls::by_number() };
        let actions = task.process.actions();
        memory().join_account(image.account());
        Caller {
            task,
            image,
            user,
            restart: None,
            saved_mask: None,
            raised: None,
            actions,
            alt_stack: AltStack::NONE,
            calls,
            steps: Steps::default(),
            resume: None,
        }
    }

    /// The six arguments of a system call. Take them apart at once: `let [fd, at, len, ..] = caller.args();`
    #[inline(always)]
    pub fn args(&self) -> [u64; 6] {
        let u = &self.user;
        [u.rdi, u.rsi, u.rdx, u.r10, u.r8, u.r9]
    }

    /// The address space.
    #[inline(always)]
    pub fn space(&self) -> &Arc<Space> {
        self.image.space()
    }

    /// Wait under another signal mask: it holds until the call returns and, if a handler runs, until that has its
    /// own. `sigsuspend`, `ppoll`, `pselect6`, `epoll_pwait` use it.
    pub fn set_mask_until_return(&mut self, mask: signal::SigSet) {
        if self.saved_mask.is_none() {
            self.saved_mask = Some(self.task.mask());
        }
        signal::set_mask(&self.task, mask);
        self.task.work.fetch_or(work::SIGNAL, Ordering::Relaxed);
    }
}

/// Run a task until it ends. The body of its kernel thread.
pub(super) fn run(mut caller: Caller) {
    // They may have changed since its registers were copied, while nobody could tell it yet.
    if caller.image.flags.load(Ordering::SeqCst) & flags::SEGMENTS != 0 {
        caller.user.set_table(caller.image.segments());
    }
    // What came before its first instruction goes before that.
    if caller.task.work.load(Ordering::Relaxed) == 0 || rare(&mut caller) {
        live(&mut caller);
    }
    super::dump::take_part(&mut caller);
    if caller.task.is_traced() {
        let status = super::exit::status_of(&caller.task);
        trace::ending(&mut caller, status.to_wait());
    }
    super::exit::task_ends(caller);
}

/// Run its program until the task must end.
#[inline(always)]
fn live(caller: &mut Caller) {
    loop {
        match user::run(&mut caller.user) {
            Trap::Syscall => {
                if !mem::is_ready() {
                    mem::refill(caller.image.account());
                }
                calls::dispatch(caller)
            }
            Trap::PageFault { addr, write, exec, .. } => {
                if let Err(why) = memory().fault(caller.image.space(), VirtAddr(addr), Access { write, exec })
                {
                    refused(caller, addr, exec, why);
                }
                rseq::interrupted(&caller.task);
            }
            Trap::Exception { vector, code } => exception(caller, vector, code),
            Trap::Interrupt => {
                sched::preempt_if_needed();
                rseq::interrupted(&caller.task);
            }
        }
        if caller.task.work.load(Ordering::Relaxed) != 0 && !rare(caller) {
            break;
        }
    }
}

/// All that is not usual; false when the task must end.
#[cold]
fn rare(caller: &mut Caller) -> bool {
    loop {
        let bits = caller.task.work.load(Ordering::SeqCst);
        if bits & work::EXIT != 0 {
            return false;
        }
        if bits & work::RSEQ != 0 {
            caller.task.work.fetch_and(!work::RSEQ, Ordering::SeqCst);
            rseq::settle(caller);
            continue;
        }
        if bits & work::SEGMENTS != 0 {
            caller.task.work.fetch_and(!work::SEGMENTS, Ordering::SeqCst);
            caller.user.set_table(caller.image.segments());
            continue;
        }
        if bits & work::GUARD != 0 {
            caller.task.work.fetch_and(!work::GUARD, Ordering::SeqCst);
            caller.calls = &[];
            continue;
        }
        if bits & work::TRACE != 0 {
            caller.task.work.fetch_and(!work::TRACE, Ordering::SeqCst);
            trace::leave_call(caller);
            continue;
        }
        if bits & work::TRAP != 0 {
            caller.task.work.fetch_and(!work::TRAP, Ordering::SeqCst);
            if caller.task.is_traced() {
                trace::trap(caller);
            }
            continue;
        }
        if bits & work::STOP != 0 {
            super::stop::park(caller);
            continue;
        }
        if bits & work::SIGNAL != 0 {
            signal::deliver(caller);
            if caller.task.work.load(Ordering::SeqCst) != 0 {
                continue;
            }
        }
        caller.steps.call = None;
        return true;
    }
}

/// The space does not allow an access, or cannot serve it.
#[cold]
fn refused(caller: &mut Caller, addr: u64, exec: bool, why: FaultError) {
    let call = if exec && why == FaultError::NotMapped { vsyscall::call(caller, addr) } else { None };
    match call {
        // A bad pointer is as bad here as in the program's own code.
        Some(Err(_)) => signal::force(caller, SigInfo::kernel(abi::SIGSEGV)),
        Some(Ok(())) => {}
        None => fault_signal(caller, addr, why),
    }
}

/// An access that the space does not allow, or cannot serve, as a signal.
#[cold]
fn fault_signal(caller: &mut Caller, addr: u64, why: FaultError) {
    let (signo, code) = match why {
        FaultError::NotMapped => (abi::SIGSEGV, abi::SEGV_MAPERR),
        FaultError::Denied => (abi::SIGSEGV, abi::SEGV_ACCERR),
        FaultError::PastEnd | FaultError::Io | FaultError::Unanswered => (abi::SIGBUS, abi::BUS_ADRERR),
        FaultError::Interrupted => return,
        // The SIGKILL is on its way to somebody. If it is not for us, the next try finds memory.
        FaultError::OutOfMemory => return sched::yield_now(),
    };
    signal::force(caller, SigInfo::fault(signo, code as i32, addr));
}

/// An exception of the CPU that is no page fault, as the signal that Linux sends.
#[cold]
fn exception(caller: &mut Caller, vector: u8, _code: u64) {
    let rip = caller.user.rip();
    let info = match vector {
        0 => SigInfo::fault(abi::SIGFPE, abi::FPE_INTDIV as i32, rip),
        1 => SigInfo::fault(abi::SIGTRAP, trace::debug_exception(caller), rip),
        // `int3` and `into` report from the kernel, with no address.
        3 => SigInfo::kernel(abi::SIGTRAP),
        4 => SigInfo::kernel(abi::SIGSEGV),
        5 => SigInfo::kernel(abi::SIGSEGV),
        6 => SigInfo::fault(abi::SIGILL, abi::ILL_ILLOPN as i32, rip),
        16 => SigInfo::fault(abi::SIGFPE, fpe_code(x87_causes(caller)), rip),
        17 => SigInfo::fault(abi::SIGBUS, abi::BUS_ADRALN as i32, 0),
        19 => SigInfo::fault(abi::SIGFPE, fpe_code(sse_causes(caller)), rip),
        11 | 12 => SigInfo::kernel(abi::SIGBUS),
        // General protection: a non-canonical address, a privileged instruction, a bad segment.
        _ => SigInfo::kernel(abi::SIGSEGV),
    };
    signal::force(caller, info);
}

/// Unmasked exceptions that the x87's status word reports.
fn x87_causes(caller: &mut Caller) -> u32 {
    let state = caller.user.fpu().bytes();
    let control = u16::from_le_bytes([state[0], state[1]]);
    let status = u16::from_le_bytes([state[2], state[3]]);
    (status & !control) as u32
}

/// Unmasked exceptions that MXCSR reports: its masks stand 7 bits above its flags.
fn sse_causes(caller: &mut Caller) -> u32 {
    let state = caller.user.fpu().bytes();
    let mxcsr = u32::from_le_bytes([state[24], state[25], state[26], state[27]]);
    mxcsr & !(mxcsr >> 7)
}

/// The most telling `si_code` for a set of floating-point exceptions; both units number them alike.
fn fpe_code(causes: u32) -> i32 {
    let code = match causes {
        c if c & 0x01 != 0 => abi::FPE_FLTINV,
        c if c & 0x04 != 0 => abi::FPE_FLTDIV,
        c if c & 0x08 != 0 => abi::FPE_FLTOVF,
        c if c & 0x12 != 0 => abi::FPE_FLTUND,
        c if c & 0x20 != 0 => abi::FPE_FLTRES,
        _ => 0,
    };
    code as i32
}
