//! Core files: what a process was when a signal ended it, for a debugger (`core(5)`).
//!
//! ```text
//!   deliver: a signal that dumps ─▶ write ─┬─ the others are told to end; each stops by in `take_part`, leaves its registers
//!                                          │  and waits
//!                                          ├─ when all are there: `pattern` says where, `notes` and `image` what
//!                                          └─ they go on and end; so does this task, and the status says "core dumped"
//! ```
//!
//! The writer is the task that took the signal, with its own rights, limits and directory. It alone is not yet told to end: a SIGKILL, or the
//! end of memory, tells it so, and then the file stays as short as it is. Nothing here needs memory beyond a page and the
//! notes: pages come back from swap one at a time, and go on into the file.

mod image;
mod notes;
pub mod pattern;

use super::Process;
use super::run::Caller;
use super::signal::SigInfo;
use super::task::{Task, work};
use super::trace;
use super::trace::registers::Shown;
use super::wait::Status;
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::fs::cred::Cred;
use crate::fs::inode::Kind;
use crate::mem::TryPush;
use crate::sched::{self, WaitQueue};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use hafez_mm::lock::Mutex;
use linux_raw_sys::general as abi;

/// `PR_SET_DUMPABLE`: nobody may look, its user may, only user 0 may.
pub mod dumpable {
    pub const NO: u32 = 0;
    pub const USER: u32 = 1;
    pub const ROOT: u32 = 2;
}

/// What `coredump_filter` says of kinds of memory, and at first.
pub mod filter {
    pub const ANONYMOUS_PRIVATE: u32 = 1;
    pub const ANONYMOUS_SHARED: u32 = 2;
    pub const FILE_PRIVATE: u32 = 4;
    pub const FILE_SHARED: u32 = 8;
    pub const ELF_HEADERS: u32 = 16;
    pub const FIRST: u32 = 0x33;
    /// Bits that there are, those for huge pages and for devices included.
    pub const ALL: u32 = 0x1ff;
}

/// No core file is shorter than may be as long as this.
const LEAST: u64 = hafez_mm::PAGE_SIZE as u64;

/// A dump that is being made.
pub struct Dump {
    /// The tasks that have come, but for the writer.
    threads: Mutex<Vec<Thread>>,
    over: AtomicBool,
    waiting: WaitQueue,
}

/// A task as it was.
struct Thread {
    task: Arc<Task>,
    shown: Shown,
}

impl Thread {
    fn of(caller: &mut Caller) -> Thread {
        let call = caller.restart.map(|(number, _)| number);
        let rax = caller.user.rax;
        Thread { task: caller.task.clone(), shown: Shown::of(&mut caller.user, call, rax, 0) }
    }
}

/// The signal ends the process: write a core file, if one may be written. Whether it was.
#[cold]
pub(super) fn write(caller: &mut Caller, info: &SigInfo) -> bool {
    let process = caller.task.process.clone();
    let how = process.dumpable.load(Ordering::Relaxed);
    let limit = process.limits.soft(abi::RLIMIT_CORE);
    if how == dumpable::NO || limit < LEAST {
        return false;
    }
    let Some(dump) = begin(&process, info.signo) else { return false };
    let written = gather(caller, &process, &dump).and_then(|()| {
        let file = create(caller, info, limit, how)?;
        let own = Thread::of(caller);
        let others = dump.threads.lock();
        let notes = notes::Notes::new(caller, info, &own, &others)?;
        drop(others);
        // However much of it gets into the file, there is one.
        let _ = image::write(caller, &file, notes, limit);
        Ok(())
    });
    end(&process, &dump, Status::Signalled { signo: info.signo, core: written.is_ok() });
    written.is_ok()
}

/// Have the others end, and come by. `None` if the process ends already, or its tasks make way for another program.
fn begin(process: &Arc<Process>, signo: u32) -> Option<Arc<Dump>> {
    let dump =
        Arc::new(Dump { threads: Mutex::default(), over: AtomicBool::new(false), waiting: WaitQueue::new() });
    let mut tasks = process.tasks.lock();
    if tasks.ending.is_some() || tasks.executing.is_some() {
        return None;
    }
    tasks.ending = Some(Status::Signalled { signo, core: false });
    tasks.stopped = None;
    tasks.dump = Some(dump.clone());
    Some(dump)
}

/// Wait until all others are here or gone. EINTR if this one is to end, too.
fn gather(caller: &Caller, process: &Arc<Process>, dump: &Dump) -> Result<()> {
    for task in process.tasks().filter(|task| !Arc::ptr_eq(task, &caller.task)) {
        task.ask(work::EXIT);
        trace::let_go(&task);
    }
    process.parked.wake_all();
    loop {
        sched::clear_interrupt();
        if caller.task.is_ending() {
            return Err(Errno::EINTR);
        }
        // Those who have come stay among the process's tasks.
        let ready = || process.task_count() == 1 + dump.threads.lock().len() || caller.task.is_ending();
        // Other signals end nothing any more.
        if process.parked.wait_until(ready, None, true) == sched::WaitResult::Ready
            && !caller.task.is_ending()
        {
            return Ok(());
        }
    }
}

/// It is over: all go on, and the status is known.
fn end(process: &Process, dump: &Dump, status: Status) {
    {
        let mut tasks = process.tasks.lock();
        tasks.dump = None;
        tasks.ending = Some(status);
    }
    dump.over.store(true, Ordering::SeqCst);
    dump.waiting.wake_all();
}

/// A task that is about to end: if its process writes a core file, it leaves its registers there, and waits.
#[inline]
pub(super) fn take_part(caller: &mut Caller) {
    let process = caller.task.process.clone();
    let Some(dump) = process.tasks.lock().dump.clone() else { return };
    let own = Thread::of(caller);
    if dump.threads.lock().try_push(own).is_err() {
        // Without room for its registers it is left out: it goes on, and is gone.
        return;
    }
    process.parked.wake_all();
    dump.waiting.wait(|| dump.over.load(Ordering::SeqCst));
}

/// The file: made anew, never one that was there, for nobody but the process's user to read.
fn create(caller: &Caller, info: &SigInfo, limit: u64, how: u32) -> Result<Arc<File>> {
    let path = pattern::path(caller, info, limit, how)?;
    let mut cred = caller.task.cred();
    if how == dumpable::ROOT {
        if path.first() != Some(&b'/') {
            return Err(Errno::EACCES);
        }
        cred = Arc::new(Cred { fsuid: 0, ..(*cred).clone() });
    }
    let owner = cred.fsuid;
    let walker = caller.task.fs().walker(cred);
    let base = walker.start(&path);
    if how != dumpable::ROOT {
        let _ = walker.unlink(&base, &path);
    }
    let flags = abi::O_CREAT | abi::O_EXCL | abi::O_WRONLY | abi::O_NOFOLLOW | abi::O_LARGEFILE;
    let file = walker.open(&base, &path, flags, 0o600)?;
    let stat = file.stat()?;
    let private = stat.kind() == Some(Kind::File) && stat.uid == owner && stat.mode & 0o677 == 0o600;
    if private { Ok(file) } else { Err(Errno::EACCES) }
}
