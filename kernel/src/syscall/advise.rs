//! What a program says of memory: `madvise`, `process_madvise`, `process_mrelease`, `mseal`, `userfaultfd`, and names for memory
//! (`prctl`).
//!
//! Advice changes what the kernel does with pages, not what is mapped where. It is given for a range, holes are passed over, and
//! that there were some is told at the end. Of another process's memory only that can be said which destroys nothing.
#![forbid(unsafe_code)]

use super::residence::{in_user_half, range};
use super::{Calls, at, foreign};
use crate::arch::user;
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::mem::memory;
use crate::process::pidfd::PidFile;
use crate::process::run::Caller;
use crate::process::{Image, Process, userfault};
use alloc::sync::Arc;
use hafez_mm::space::advise::Naming;
use hafez_mm::{Advice, Label, MmError, PageRange, Rights, Space};
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[
    (abi::__NR_madvise, madvise),
    (abi::__NR_process_madvise, process_madvise),
    (abi::__NR_process_mrelease, process_mrelease),
    (abi::__NR_mseal, mseal),
    (abi::__NR_userfaultfd, userfaultfd),
];

fn madvise(caller: &mut Caller) -> Result<u64> {
    let [at, len, advice, ..] = caller.args();
    let advice = known(advice as u32)?;
    advise(caller.space(), at, len, advice)?;
    Ok(0)
}

fn known(advice: u32) -> Result<Advice> {
    Ok(match advice {
        abi::MADV_NORMAL => Advice::Normal,
        abi::MADV_RANDOM => Advice::Random,
        abi::MADV_SEQUENTIAL => Advice::Sequential,
        abi::MADV_WILLNEED => Advice::WillNeed,
        abi::MADV_DONTNEED => Advice::DontNeed,
        abi::MADV_DONTNEED_LOCKED => Advice::DontNeedLocked,
        abi::MADV_FREE => Advice::Free,
        abi::MADV_REMOVE => Advice::Remove,
        abi::MADV_DONTFORK => Advice::DontFork,
        abi::MADV_DOFORK => Advice::DoFork,
        abi::MADV_WIPEONFORK => Advice::WipeOnFork,
        abi::MADV_KEEPONFORK => Advice::KeepOnFork,
        abi::MADV_DONTDUMP => Advice::DontDump,
        abi::MADV_DODUMP => Advice::DoDump,
        abi::MADV_HUGEPAGE => Advice::HugePage,
        abi::MADV_NOHUGEPAGE => Advice::NoHugePage,
        abi::MADV_COLD => Advice::Cold,
        abi::MADV_PAGEOUT => Advice::PageOut,
        abi::MADV_POPULATE_READ => Advice::PopulateRead,
        abi::MADV_POPULATE_WRITE => Advice::PopulateWrite,
        _ => return Err(Errno::EINVAL),
    })
}

/// `madvise` for a space that need not be the caller's.
fn advise(space: &Arc<Space>, at: u64, len: u64, advice: Advice) -> Result<()> {
    let range = range(at, len, Errno::EINVAL)?;
    if range.is_empty() {
        return if len == 0 { Ok(()) } else { Err(Errno::EINVAL) };
    }
    let (part, whole) = in_user_half(range);
    let outside = if whole { Ok(()) } else { Err(Errno::ENOMEM) };
    if part.is_empty() {
        return outside;
    }
    let needed = match advice {
        Advice::PopulateRead => Rights::READ,
        Advice::PopulateWrite => Rights::WRITE,
        _ => Rights::empty(),
    };
    if !needed.is_empty() && lacks(space, part, needed) {
        return Err(Errno::EINVAL);
    }
    match memory().advise(space, part, advice) {
        Ok(()) => outside,
        Err(MmError::Io) if !needed.is_empty() => Err(Errno::EFAULT),
        Err(error) => Err(error.into()),
    }
}

fn lacks(space: &Space, range: PageRange, needed: Rights) -> bool {
    let mut lacks = false;
    space.for_each_region(&mut |region| {
        lacks |= !region.rights.contains(needed) && !region.range.intersect(&range).is_empty();
    });
    lacks
}

/// The process behind a descriptor of one: ESRCH if it has gone.
fn named(caller: &Caller, fd: u64) -> Result<Arc<Process>> {
    let file = at::file(caller, fd)?;
    let process = PidFile::of(&file)?;
    if process.has_ended() { Err(Errno::ESRCH) } else { Ok(process.clone()) }
}

fn process_madvise(caller: &mut Caller) -> Result<u64> {
    let [fd, parts, count, advice, flags, _] = caller.args();
    if flags as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let parts = foreign::parts(parts, count)?;
    if !parts.iter().all(|&(at, len)| user::in_user_half(at, len as usize)) {
        return Err(Errno::EFAULT);
    }
    let process = named(caller, fd)?;
    let harmless = |advice: &Advice| matches!(advice, Advice::Cold | Advice::PageOut | Advice::WillNeed);
    let advice = known(advice as u32).ok().filter(harmless).ok_or(Errno::EINVAL)?;
    let task = process.any_task().ok_or(Errno::ESRCH)?;
    foreign::may_look(caller, &task)?;
    let image = task.image().ok_or(Errno::ESRCH)?;
    let own = Arc::ptr_eq(image.space(), caller.space());
    if !own && !caller.task.cred().may(cap::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let mut done = 0;
    for (at, len) in parts {
        match advise(image.space(), at, len, advice) {
            Ok(()) => done += len,
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Gives back what a process that is about to die still holds, without waiting for it to get round to that.
fn process_mrelease(caller: &mut Caller) -> Result<u64> {
    let [fd, flags, ..] = caller.args();
    if flags as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let process = named(caller, fd)?;
    let image = process.any_task().and_then(|task| task.image()).ok_or(Errno::ESRCH)?;
    if !process.is_ending() || shared_with_living(&image) {
        return Err(Errno::EINVAL);
    }
    memory().release_private(image.space());
    Ok(0)
}

/// Whether a process that does not end uses the image too.
fn shared_with_living(image: &Arc<Image>) -> bool {
    crate::process::table::each_process().any(|process| {
        let here = process.any_task().and_then(|task| task.image()).is_some_and(|i| Arc::ptr_eq(&i, image));
        here && !process.is_ending()
    })
}

fn mseal(caller: &mut Caller) -> Result<u64> {
    let [at, len, flags, ..] = caller.args();
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let range = range(at, len, Errno::EINVAL)?;
    if range.is_empty() {
        return if len == 0 { Ok(0) } else { Err(Errno::EINVAL) };
    }
    let (part, whole) = in_user_half(range);
    if !whole {
        return Err(Errno::ENOMEM);
    }
    memory().seal(caller.space(), part)?;
    Ok(0)
}

/// The kernel's own accesses fault, too: to hold those up is for who may trace others.
fn userfaultfd(caller: &mut Caller) -> Result<u64> {
    let flags = caller.args()[0] as u32;
    if flags & !USERFAULT_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    // The kernel's accesses are not told apart here: who may not have those told may have none.
    if !caller.task.cred().may(cap::SYS_PTRACE) {
        return Err(Errno::EPERM);
    }
    new_userfault(caller, flags)
}

const USERFAULT_FLAGS: u32 = abi::O_CLOEXEC | abi::O_NONBLOCK | abi::UFFD_USER_MODE_ONLY;

/// The same, for who could open `/dev/userfaultfd`.
pub(super) fn new_userfault(caller: &Caller, flags: u32) -> Result<u64> {
    if flags & !USERFAULT_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let file = userfault::open(&caller.image, flags & abi::O_NONBLOCK)?;
    at::install(caller, file, flags & abi::O_CLOEXEC != 0)
}

/// Bytes of a name at most, with its NUL.
const NAME_MAX: usize = 80;

/// `prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME)`: show memory without a file under a name; without one for the address 0.
pub fn set_name(caller: &Caller, at: u64, len: u64, name: u64) -> Result<()> {
    let mut text = [0; NAME_MAX];
    let name = match name {
        0 => None,
        from => {
            let len = user::copy_string(&mut text, from)?.ok_or(Errno::EINVAL)?;
            let refused = |b: &u8| !(0x20..0x7f).contains(b) || b"\\`$[]".contains(b);
            if text[..len].iter().any(refused) {
                return Err(Errno::EINVAL);
            }
            Some(&text[..len])
        }
    };
    let range = range(at, len, Errno::EINVAL)?;
    if range.is_empty() {
        return if len == 0 { Ok(()) } else { Err(Errno::EINVAL) };
    }
    let shown = |prefix: &[u8]| [prefix, name.unwrap_or_default(), b"]"].concat();
    let (part, whole) = in_user_half(range);
    let shared = shown(hafez_mm::space::advise::SHARED_NAME);
    let private = shown(hafez_mm::space::advise::PRIVATE_NAME).into_boxed_slice();
    let naming = Naming { private: Arc::new(Label { path: private, dev: 0, ino: 0 }), shared: &shared };
    memory().set_name(caller.space(), part, name.map(|_| &naming))?;
    if whole { Ok(()) } else { Err(Errno::ENOMEM) }
}
