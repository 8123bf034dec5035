//! Mapping memory: `mmap`, `munmap`, `mprotect`, `mremap`, `brk`.
//!
//! The memory core decides what a space looks like; here the arguments are judged as the manual pages say, in the order in
//! which Linux judges them (programs see which of two errors comes first), and limits are applied:
//!
//! | limit | counts | over it |
//! |---|---|---|
//! | `RLIMIT_AS` | all pages of all regions | ENOMEM |
//! | `RLIMIT_DATA` | private writable pages, but for stacks | ENOMEM |
//! | `RLIMIT_MEMLOCK` | wired pages | EAGAIN (`mmap`, `mremap`), ENOMEM (`mlock`) |
//!
//! What a mapping may be raised to later by `mprotect` follows from how its file was opened: a shared mapping of a
//! file opened for reading can never be written.
#![forbid(unsafe_code)]

use super::{Calls, at};
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::fs::file::{File, Mapping};
use crate::fs::mount::Flags;
use crate::mem::memory;
use crate::process::image::flags::{LOCK_FUTURE, LOCK_ON_FAULT};
use crate::process::limits::INFINITY;
use crate::process::run::Caller;
use crate::process::{commit, exec};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;
use hafez_mm::{
    Backing, Label, MapRequest, MmError, Object, PAGE_SHIFT, PAGE_SIZE, PageRange, RegionFlags, RegionInfo,
    RemapHow, Rights, USER_END, USER_START, VirtAddr, Where,
};
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[
    (abi::__NR_mmap, mmap),
    (abi::__NR_munmap, munmap),
    (abi::__NR_mprotect, mprotect),
    (abi::__NR_pkey_mprotect, pkey_mprotect),
    (abi::__NR_pkey_alloc, pkey_alloc),
    (abi::__NR_pkey_free, pkey_free),
    (abi::__NR_mremap, mremap),
    (abi::__NR_remap_file_pages, remap_file_pages),
    (abi::__NR_brk, brk),
];

/// First byte after the memory that a program may map.
pub(super) const TOP: u64 = USER_END.0 << PAGE_SHIFT;
/// All that Linux lets a mapping be.
const ALL: Rights = Rights::all();

/// Bytes rounded up to whole pages, in pages. `None`: more than there are addresses.
pub(super) fn pages(len: u64) -> Option<u64> {
    Some(len.checked_add(PAGE_SIZE as u64 - 1)? >> PAGE_SHIFT)
}

pub(super) fn aligned(at: u64) -> bool {
    VirtAddr(at).is_aligned()
}

/// The pages of `[at, at + len)`, `at` aligned; `None` if that is not all in the user half.
pub(super) fn user_range(at: u64, len: u64) -> Option<PageRange> {
    let range = PageRange::sized(VirtAddr(at).page(), pages(len)?)?;
    (range.end <= USER_END).then_some(range)
}

fn rights(prot: u64) -> Rights {
    Rights::from_bits_truncate(prot as u8)
}

/// The rights asked for, and those that come with them for a program of old (`READ_IMPLIES_EXEC`).
fn implied(caller: &Caller, prot: u64) -> u64 {
    let implies = caller.task.process.personality.load(Relaxed) & exec::READ_IMPLIES_EXEC != 0;
    if implies && prot & abi::PROT_READ as u64 != 0 { prot | abi::PROT_EXEC as u64 } else { prot }
}

fn mmap(caller: &mut Caller) -> Result<u64> {
    let [at, len, prot, flags, fd, offset] = caller.args();
    if !aligned(offset) {
        return Err(Errno::EINVAL);
    }
    let request = Request {
        at,
        len,
        rights: rights(implied(caller, prot)),
        flags: flags as u32,
        first: offset >> PAGE_SHIFT,
    };
    let source = if request.has(abi::MAP_ANONYMOUS) {
        if request.has(abi::MAP_HUGETLB) {
            return Err(no_huge_pages(request.flags));
        }
        None
    } else {
        let file = caller.task.files().get(fd as u32)?;
        if request.has(abi::MAP_HUGETLB) {
            return Err(Errno::EINVAL);
        }
        Some(file)
    };
    let count = request.count()?;
    request.check_address(count)?;
    let file = source;
    let mut source = match &file {
        None => request.anonymous(caller)?,
        Some(file) => request.file(caller, file)?,
    };
    request.check_code(caller)?;
    let future = caller.image.flags.load(Relaxed);
    let mut wired = request.has(abi::MAP_LOCKED) || future & LOCK_FUTURE != 0;
    if wired {
        wired = source.may_wire(caller, count)?;
    }
    room_for(caller, count, request.replaced(caller, count), request.is_data())?;
    if !request.shared() && request.rights.contains(Rights::WRITE) || nameless_share(&request, &source) {
        commit::check(&caller.task, count, request.has(abi::MAP_NORESERVE))?;
    }
    let grows_down = request
        .has(abi::MAP_GROWSDOWN)
        .then(|| caller.task.process.limits.soft(abi::RLIMIT_STACK) >> PAGE_SHIFT);
    let populate = request.flags & (abi::MAP_POPULATE | abi::MAP_NONBLOCK) == abi::MAP_POPULATE
        || wired && (request.has(abi::MAP_LOCKED) || future & LOCK_ON_FAULT == 0);
    let place = request.place();
    let nameless = request.share(caller, &mut source, count)?;
    let mapped = memory().map(
        caller.space(),
        MapRequest {
            at: place,
            pages: count,
            rights: request.rights,
            max_rights: source.max_rights,
            backing: source.backing,
            shared: request.shared(),
            label: source.label,
            grows_down,
            wired,
            special: if request.has(abi::MAP_NORESERVE) {
                source.special | RegionFlags::NO_RESERVE
            } else {
                source.special
            },
            by: (!request.has(abi::MAP_STACK)).then(|| caller.task.tid() as u32),
        },
    );
    if let Some(object) = nameless {
        memory().object_retire(&object);
    }
    let mapped = mapped?;
    if let Some(file) = file.filter(|_| request.shared() && request.rights.contains(Rights::WRITE)) {
        // Sealed since we looked: whoever sealed it has not seen this mapping.
        if let Err(e) = file.inode().check_unsealed() {
            PageRange::sized(mapped.page(), count).map(|range| memory().unmap(caller.space(), range));
            return Err(e);
        }
    }
    if populate {
        // What cannot be brought in now will fault later: mmap does not fail for it.
        if let Some(range) = PageRange::sized(mapped.page(), count) {
            let _ = memory().populate(caller.space(), range, false);
        }
    }
    Ok(mapped.0)
}

/// Whether it is shared memory with no file behind it.
fn nameless_share(request: &Request, source: &Source) -> bool {
    request.shared() && matches!(source.backing, Backing::Anonymous)
}

/// No huge pages are set aside here: of a size that exists there are none left, another size is wrong.
fn no_huge_pages(flags: u32) -> Errno {
    match flags >> abi::MAP_HUGE_SHIFT & abi::MAP_HUGE_MASK {
        0 | 21 | 30 => Errno::ENOMEM,
        _ => Errno::EINVAL,
    }
}

/// The arguments of `mmap`.
struct Request {
    at: u64,
    len: u64,
    rights: Rights,
    flags: u32,
    /// The first page of the file.
    first: u64,
}

/// What is behind a new mapping.
struct Source {
    backing: Backing,
    max_rights: Rights,
    label: Option<Arc<Label>>,
    /// What its region is besides: which of its pages are in RAM is not for the caller to know, or they may go.
    special: RegionFlags,
}

/// A kind of its own, beside shared and private.
const MAP_DROPPABLE: u32 = 8;

impl Source {
    /// Whether it is to be wired, where all else is: not what may go. EAGAIN if that would be too much.
    #[cold]
    fn may_wire(&self, caller: &Caller, count: u64) -> Result<bool> {
        match self.special.contains(RegionFlags::DROPPABLE) {
            true => Ok(false),
            false if may_wire(caller, count) => Ok(true),
            false => Err(Errno::EAGAIN),
        }
    }
}

/// Flags that every kernel has known: `MAP_SHARED_VALIDATE` refuses all others.
const LEGACY: u32 = abi::MAP_SHARED
    | abi::MAP_PRIVATE
    | abi::MAP_FIXED
    | abi::MAP_ANONYMOUS
    | abi::MAP_DENYWRITE
    | abi::MAP_EXECUTABLE
    | abi::MAP_UNINITIALIZED
    | abi::MAP_GROWSDOWN
    | abi::MAP_LOCKED
    | abi::MAP_NORESERVE
    | abi::MAP_POPULATE
    | abi::MAP_NONBLOCK
    | abi::MAP_STACK
    | abi::MAP_HUGETLB
    | abi::MAP_32BIT
    | abi::MAP_ABOVE4G
    | abi::MAP_FIXED_NOREPLACE
    | abi::MAP_HUGE_MASK << abi::MAP_HUGE_SHIFT;

impl Request {
    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    fn kind(&self) -> u32 {
        self.flags & abi::MAP_TYPE
    }

    fn shared(&self) -> bool {
        self.kind() & abi::MAP_SHARED != 0
    }

    fn fixed(&self) -> bool {
        self.has(abi::MAP_FIXED | abi::MAP_FIXED_NOREPLACE)
    }

    /// Counts for `RLIMIT_DATA`.
    fn is_data(&self) -> bool {
        !self.shared() && self.rights.contains(Rights::WRITE) && !self.has(abi::MAP_GROWSDOWN)
    }

    fn count(&self) -> Result<u64> {
        if self.len == 0 {
            return Err(Errno::EINVAL);
        }
        pages(self.len).filter(|&n| n << PAGE_SHIFT <= TOP).ok_or(Errno::ENOMEM)
    }

    fn check_address(&self, count: u64) -> Result<()> {
        if !self.fixed() {
            return Ok(());
        }
        if self.at > TOP - (count << PAGE_SHIFT) {
            Err(Errno::ENOMEM)
        } else if !aligned(self.at) {
            Err(Errno::EINVAL)
        } else if VirtAddr(self.at).page() < USER_START {
            Err(Errno::EPERM)
        } else {
            Ok(())
        }
    }

    /// EACCES for what could be written and executed, where the process has renounced that.
    fn check_code(&self, caller: &Caller) -> Result<()> {
        let both = Rights::WRITE | Rights::EXEC;
        let refused = self.rights.contains(both) && caller.task.process.no_new_code.load(Relaxed) != 0;
        if refused { Err(Errno::EACCES) } else { Ok(()) }
    }

    /// Memory that the program can do without.
    #[cold]
    fn droppable(&self, caller: &Caller) -> Result<Source> {
        if self.has(abi::MAP_LOCKED | abi::MAP_HUGETLB | abi::MAP_GROWSDOWN) {
            return Err(Errno::EINVAL);
        }
        let special = memory().droppable(caller.space());
        Ok(Source { backing: Backing::Anonymous, max_rights: ALL, label: None, special })
    }

    fn anonymous(&self, caller: &Caller) -> Result<Source> {
        match self.kind() {
            abi::MAP_SHARED if self.has(abi::MAP_GROWSDOWN) => Err(Errno::EINVAL),
            abi::MAP_SHARED | abi::MAP_PRIVATE => {
                let special = RegionFlags::empty();
                Ok(Source { backing: Backing::Anonymous, max_rights: ALL, label: None, special })
            }
            MAP_DROPPABLE => self.droppable(caller),
            _ => Err(Errno::EINVAL),
        }
    }

    fn file(&self, caller: &Caller, file: &File) -> Result<Source> {
        let mut max_rights = ALL;
        // A byte of a file has a number of 63 bits.
        if self.first + pages(self.len).unwrap_or(0) > i64::MAX as u64 >> PAGE_SHIFT {
            return Err(Errno::EOVERFLOW);
        }
        match self.kind() {
            abi::MAP_SHARED_VALIDATE if self.flags & !(LEGACY | abi::MAP_TYPE) != 0 => {
                return Err(Errno::EOPNOTSUPP);
            }
            abi::MAP_SHARED | abi::MAP_SHARED_VALIDATE => {
                if self.rights.contains(Rights::WRITE) {
                    file.inode().check_unsealed()?;
                }
                if !file.mode().write || file.inode().check_unsealed().is_err() {
                    max_rights.remove(Rights::WRITE);
                }
            }
            abi::MAP_PRIVATE => {}
            _ => return Err(Errno::EINVAL),
        }
        if !file.mode().read || !max_rights.contains(self.rights & Rights::WRITE) {
            return Err(Errno::EACCES);
        }
        if file.place().mount.flags().contains(Flags::NOEXEC) {
            if self.rights.contains(Rights::EXEC) {
                return Err(Errno::EPERM);
            }
            max_rights.remove(Rights::EXEC);
        }
        let mapping = file.ops().mapping(self.shared())?;
        if self.has(abi::MAP_GROWSDOWN) {
            return Err(Errno::EINVAL);
        }
        if !file.how().unnoticed {
            file.inode().accessed();
        }
        let id = file.inode().id();
        let label = Arc::new(Label { path: file.place().display().into(), dev: id.dev, ino: id.ino });
        let backing = match mapping {
            Mapping::Object(object) => Backing::Object { object, first: self.first },
            Mapping::Zero => Backing::Anonymous,
        };
        let special =
            if at::may_know_pages(caller, file) { RegionFlags::empty() } else { RegionFlags::OPAQUE };
        Ok(Source { backing, max_rights, label: Some(label), special })
    }

    /// Anonymous memory that is shared has an object, which belongs to nobody but its mappings: here it is, to be retired as
    /// soon as it is mapped.
    #[inline(always)]
    fn share(&self, caller: &Caller, source: &mut Source, count: u64) -> Result<Option<Arc<Object>>> {
        if !self.shared() || !matches!(source.backing, Backing::Anonymous) {
            return Ok(None);
        }
        let object = memory().new_object_shared(count << PAGE_SHIFT, caller.space().account())?;
        source.backing = Backing::Object { object: object.clone(), first: 0 };
        source.label.get_or_insert_with(|| {
            Arc::new(Label { path: (*b"/dev/zero (deleted)").into(), dev: 1, ino: object.id().into() })
        });
        Ok(Some(object))
    }

    /// Pages of other mappings that this one takes the place of.
    #[inline(always)]
    fn replaced(&self, caller: &Caller, count: u64) -> u64 {
        let counts = self.has(abi::MAP_FIXED) && caller.task.process.limits.soft(abi::RLIMIT_AS) != INFINITY;
        if counts { self.covered(caller, count) } else { 0 }
    }

    #[cold]
    fn covered(&self, caller: &Caller, count: u64) -> u64 {
        let range = PageRange::new(VirtAddr(self.at).page(), VirtAddr(self.at).page().add(count));
        let mut covered = 0;
        caller.space().regions_from(range.start, &mut |region| {
            covered += region.range.intersect(&range).len();
            region.range.end < range.end
        });
        covered
    }

    #[inline(always)]
    fn place(&self) -> Where {
        if self.has(abi::MAP_FIXED_NOREPLACE) {
            Where::FixedNoReplace(VirtAddr(self.at))
        } else if self.has(abi::MAP_FIXED) {
            Where::Fixed(VirtAddr(self.at))
        } else {
            let hint = self.at & !(PAGE_SIZE as u64 - 1);
            let hint = (hint != 0).then(|| VirtAddr(hint.max(USER_START.addr().0)));
            if self.has(abi::MAP_32BIT) { Where::Low { hint } } else { Where::Anywhere { hint } }
        }
    }
}

/// Whether `count` more pages fit `RLIMIT_AS`, `replaced` pages going at the same time, and, if they are private and writable,
/// `RLIMIT_DATA`.
#[inline(always)]
pub(super) fn room_for(caller: &Caller, count: u64, replaced: u64, data: bool) -> Result<()> {
    let limits = &caller.task.process.limits;
    let limit = limits.soft(abi::RLIMIT_AS);
    if limit != INFINITY && caller.space().total_pages() - replaced + count > limit >> PAGE_SHIFT {
        return Err(Errno::ENOMEM);
    }
    if data { data_for(caller, count) } else { Ok(()) }
}

/// Whether `count` more private writable pages fit `RLIMIT_DATA`.
#[inline(always)]
fn data_for(caller: &Caller, count: u64) -> Result<()> {
    let limit = caller.task.process.limits.soft(abi::RLIMIT_DATA);
    let over = limit != INFINITY && data_pages(caller) + count > limit >> PAGE_SHIFT;
    if over { Err(Errno::ENOMEM) } else { Ok(()) }
}

fn is_data(region: &RegionInfo) -> bool {
    !region.shared && region.rights.contains(Rights::WRITE) && !region.grows_down
}

/// Pages of such regions.
fn data_pages(caller: &Caller) -> u64 {
    let others = RegionFlags::SHARED | RegionFlags::GROWS_DOWN;
    caller.space().pages_of(|flags, writable| writable && !flags.intersects(others))
}

/// Wired pages of the space.
pub(super) fn wired_pages(caller: &Caller) -> u64 {
    caller.space().pages_of(|flags, _| flags.contains(RegionFlags::WIRED))
}

/// Whether the caller may wire `count` pages more.
pub(super) fn may_wire(caller: &Caller, count: u64) -> bool {
    let limit = caller.task.process.limits.soft(abi::RLIMIT_MEMLOCK);
    limit == INFINITY
        || caller.task.cred().may(cap::IPC_LOCK)
        || wired_pages(caller).saturating_add(count) <= limit >> PAGE_SHIFT
}

fn munmap(caller: &mut Caller) -> Result<u64> {
    let [at, len, ..] = caller.args();
    if !aligned(at) {
        return Err(Errno::EINVAL);
    }
    let range = user_range(at, len).filter(|range| !range.is_empty()).ok_or(Errno::EINVAL)?;
    memory().unmap(caller.space(), range)?;
    Ok(0)
}

fn mprotect(caller: &mut Caller) -> Result<u64> {
    let [at, len, prot, ..] = caller.args();
    const GROWS: u64 = (abi::PROT_GROWSDOWN | abi::PROT_GROWSUP) as u64;
    if prot & GROWS == GROWS || !aligned(at) {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    let mut range = user_range(at, len).ok_or(Errno::ENOMEM)?;
    const KNOWN: u64 = (abi::PROT_READ | abi::PROT_WRITE | abi::PROT_EXEC | abi::PROT_SEM) as u64;
    if prot & !(GROWS | KNOWN) != 0 {
        return Err(Errno::EINVAL);
    }
    if prot & GROWS != 0 {
        let region = caller.space().region_at(VirtAddr(at)).ok_or(Errno::ENOMEM)?;
        if prot & u64::from(abi::PROT_GROWSUP) != 0 || !region.grows_down {
            return Err(Errno::EINVAL);
        }
        range.start = region.range.start;
    }
    let rights = rights(implied(caller, prot));
    if rights.contains(Rights::EXEC) && caller.task.process.no_new_code.load(Relaxed) != 0 {
        let mut gains = rights.contains(Rights::WRITE);
        caller.space().for_each_region(&mut |region| {
            gains |= !region.rights.contains(Rights::EXEC) && !region.range.intersect(&range).is_empty();
        });
        if gains {
            return Err(Errno::EACCES);
        }
    }
    let counted = commit::MODE.load(Relaxed) != commit::ALWAYS
        || caller.task.process.limits.soft(abi::RLIMIT_DATA) != INFINITY;
    if rights.contains(Rights::WRITE) && counted {
        let mut more = 0;
        caller.space().for_each_region(&mut |region| {
            let gains = !region.shared && !region.rights.contains(Rights::WRITE);
            more += if gains { region.range.intersect(&range).len() } else { 0 };
        });
        if more > 0 {
            data_for(caller, more)?;
        }
        commit::check(&caller.task, more, false)?;
    }
    memory().protect(caller.space(), range, rights)?;
    Ok(0)
}

/// Without protection keys there is one way to call it: with no key.
fn pkey_mprotect(caller: &mut Caller) -> Result<u64> {
    let [_, _, _, key, ..] = caller.args();
    if key as i32 == -1 { mprotect(caller) } else { Err(Errno::EINVAL) }
}

fn pkey_alloc(caller: &mut Caller) -> Result<u64> {
    let [flags, access, ..] = caller.args();
    if flags != 0 || access & !u64::from(abi::PKEY_ACCESS_MASK) != 0 {
        return Err(Errno::EINVAL);
    }
    Err(Errno::ENOSPC)
}

fn pkey_free(_: &mut Caller) -> Result<u64> {
    Err(Errno::EINVAL)
}

/// Old, and not worth a way of its own: other pages of the same file are mapped over those that are there.
fn remap_file_pages(caller: &mut Caller) -> Result<u64> {
    let [at, len, prot, first, ..] = caller.args();
    let mask = !(PAGE_SIZE as u64 - 1);
    let (at, len) = (at & mask, len & mask);
    let end = at.checked_add(len).filter(|&end| end > at).ok_or(Errno::EINVAL)?;
    let past = first.checked_add(len >> PAGE_SHIFT).ok_or(Errno::EINVAL)?;
    if prot != 0 || end > TOP {
        return Err(Errno::EINVAL);
    }
    if past > i64::MAX as u64 >> PAGE_SHIFT {
        return Err(Errno::EOVERFLOW);
    }
    let range = PageRange::new(VirtAddr(at).page(), VirtAddr(end).page());
    memory().turn_pages(caller.space(), range, first)?;
    let _ = memory().populate(caller.space(), range, false);
    Ok(0)
}

fn mremap(caller: &mut Caller) -> Result<u64> {
    let [at, old_len, new_len, flags, to, _] = caller.args();
    const MAY_MOVE: u64 = abi::MREMAP_MAYMOVE as u64;
    const FIXED: u64 = abi::MREMAP_FIXED as u64;
    const DONT_UNMAP: u64 = abi::MREMAP_DONTUNMAP as u64;
    if flags & !(MAY_MOVE | FIXED | DONT_UNMAP) != 0
        || flags & (FIXED | DONT_UNMAP) != 0 && flags & MAY_MOVE == 0
        || flags & DONT_UNMAP != 0 && old_len != new_len
        || !aligned(at)
    {
        return Err(Errno::EINVAL);
    }
    let fits = |&pages: &u64| pages != 0 && pages <= TOP >> PAGE_SHIFT;
    let (Some(old), Some(new)) = (pages(old_len), pages(new_len).filter(fits)) else {
        return Err(Errno::EINVAL);
    };
    let how = if flags & FIXED != 0 {
        check_target(at, old, to, new)?;
        if flags & DONT_UNMAP != 0 {
            RemapHow::FixedDontUnmap(VirtAddr(to))
        } else {
            RemapHow::Fixed(VirtAddr(to))
        }
    } else if flags & DONT_UNMAP != 0 {
        // Where to is only a hint then; but it has to be one that could be taken.
        match check_target(at, old, to, new) {
            Err(Errno::EPERM) => RemapHow::DontUnmap(None),
            Ok(()) => RemapHow::DontUnmap(Some(VirtAddr(to))),
            Err(error) => return Err(error),
        }
    } else if flags & MAY_MOVE != 0 {
        RemapHow::MayMove
    } else {
        RemapHow::InPlace
    };
    let region = caller.space().region_at(VirtAddr(at)).ok_or(Errno::EFAULT)?;
    if region.flags.contains(RegionFlags::SEALED) {
        return Err(Errno::EPERM);
    }
    // A length of 0 asks for a second mapping of the same pages, which only shared ones have, and elsewhere.
    if old == 0 && (!region.shared || how == RemapHow::InPlace) {
        return Err(if region.shared { Errno::ENOMEM } else { Errno::EINVAL });
    }
    let smaller = matches!(how, RemapHow::InPlace | RemapHow::MayMove) && new <= old;
    if region.range.end.since(VirtAddr(at).page()) < old && !smaller {
        return Err(Errno::EFAULT);
    }
    let added = if flags & DONT_UNMAP != 0 { new } else { new.saturating_sub(old) };
    if added > 0 {
        if region.wired && !may_wire(caller, added) {
            return Err(Errno::EAGAIN);
        }
        room_for(caller, added, 0, is_data(&region))?;
        if !region.shared && region.rights.contains(Rights::WRITE) {
            commit::check(&caller.task, added, region.flags.contains(RegionFlags::NO_RESERVE))?;
        }
    }
    match memory().remap(caller.space(), VirtAddr(at), old << PAGE_SHIFT, new << PAGE_SHIFT, how) {
        Ok(now) => Ok(now.0),
        Err(MmError::NotMapped) => Err(Errno::EFAULT),
        Err(error) => Err(error.into()),
    }
}

/// The place that `MREMAP_FIXED` names: aligned, in the user half, apart from the old one.
fn check_target(at: u64, old: u64, to: u64, new: u64) -> Result<()> {
    let target = user_range(to, new << PAGE_SHIFT).filter(|_| aligned(to)).ok_or(Errno::EINVAL)?;
    let source = PageRange::sized(VirtAddr(at).page(), old).ok_or(Errno::EINVAL)?;
    if !target.intersect(&source).is_empty() {
        return Err(Errno::EINVAL);
    }
    if target.start < USER_START { Err(Errno::EPERM) } else { Ok(()) }
}

/// `brk` does not fail: it says where the break is after it.
fn brk(caller: &mut Caller) -> Result<u64> {
    let [to, ..] = caller.args();
    let space = caller.space();
    let limits = &caller.task.process.limits;
    let flags = caller.image.flags.load(Relaxed);
    let future = flags & LOCK_FUTURE != 0;
    let (_, old) = space.heap();
    if future || limits.soft(abi::RLIMIT_AS) != INFINITY {
        let more = to.saturating_sub(old.0).div_ceil(PAGE_SIZE as u64);
        if more > 0 && (room_for(caller, more, 0, false).is_err() || future && !may_wire(caller, more)) {
            return Ok(old.0);
        }
    }
    let more = to.saturating_sub(old.0).div_ceil(PAGE_SIZE as u64);
    if more > 0 && commit::check(&caller.task, more, false).is_err() {
        return Ok(old.0);
    }
    let new = memory().brk(space, VirtAddr(to), limits.soft(abi::RLIMIT_DATA));
    if future
        && new.0 > old.0
        && let Some(range) = PageRange::of_bytes(old, new.0 - old.0)
    {
        // Pages that cannot be brought in now come with the first access.
        let _ = match flags & LOCK_ON_FAULT {
            0 => memory().wire(space, range, true),
            _ => memory().wire_as_they_come(space, range),
        };
    }
    Ok(new.0)
}
