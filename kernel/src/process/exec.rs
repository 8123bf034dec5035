//! Executing a program: `execve`, and the start of the first one.
//!
//! 1. *Find* the file; if it is a script, its interpreter instead, with the script as an argument (`#!`, five deep at most).
//! 2. *Build* a new image: a fresh space with the program, its dynamic loader and its stack. To write to it, the new space
//!    is loaded while it is being built; if anything fails, the old one is loaded again and the caller gets the error.
//! 3. *Alone*: the other tasks of the process end.
//! 4. *Commit*: nothing fails from here on. The old image goes, files marked close-on-exec close, handlers become default.

use super::dump::{dumpable, pattern};
use super::elf::{Elf, Placed};
use super::image::{Image, Layout};
use super::run::Caller;
use super::signal::{self, AltStack};
use super::stack::{self, Contents, Strings};
use super::task::{Task, work};
use super::{exit, table, trace, user, vdso};
use crate::arch;
use crate::errno::{Errno, Result};
use crate::fs::cred::{Cred, want};
use crate::fs::file::{File, open_mode};
use crate::fs::inode::Kind;
use crate::fs::inode::Running;
use crate::fs::mount::Flags;
use crate::fs::path::{Location, Walker};
use crate::mem;
use crate::mem::memory;
use crate::random;
use crate::sched::{self, WaitResult};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use hafez_mm::lock::Mutex;
use hafez_mm::{Label, PAGE_SIZE, Space, VirtAddr};
use linux_raw_sys::auxvec as aux;
use linux_raw_sys::general as abi;

/// `personality(2)`: load everything at fixed addresses.
/// `/proc/sys/kernel/randomize_va_space`: with 0 every program's places are as if it had said so.
pub static RANDOMIZE: AtomicU64 = AtomicU64::new(2);
pub const ADDR_NO_RANDOMIZE: u32 = 0x0040000;
/// What can be read can be executed.
pub const READ_IMPLIES_EXEC: u32 = 0x0400000;
/// `uname` tells a release 2.6.
pub const UNAME26: u32 = 0x0020000;
/// `uname` tells a 32-bit machine.
pub const PER_LINUX32: u32 = 8;

/// Scripts that are run by scripts, and so on, before it is a loop.
const MAX_SCRIPTS: usize = 5;
/// As much of a file is looked at for `#!`.
const SCRIPT_LINE: usize = 256;
/// Where programs go that can go anywhere and have a loader: two thirds up the user half, and this many pages of chance.
const DYN_BASE: u64 = 0x5555_5555_4000;
const DYN_RANDOM_PAGES: u64 = (1 << 28) - 1;
/// The heap begins up to 32 MiB behind the program.
const HEAP_RANDOM_PAGES: u64 = (1 << 13) - 1;

/// What to execute.
pub struct Request {
    /// The path as the caller gave it.
    pub path: Vec<u8>,
    /// The file.
    pub place: Location,
    pub args: Strings,
    pub env: Strings,
    /// It was given as a descriptor that will be closed: a script's interpreter could not open it.
    pub closes: bool,
}

/// For whom.
pub struct Who<'a> {
    pub walker: &'a Walker,
    /// Most bytes that arguments and environment may take.
    pub strings: usize,
    /// Most bytes that the stack may grow to.
    pub stack: u64,
    pub randomize: bool,
    pub new_privileges: bool,
}

/// A program ready to run.
pub struct Loaded {
    pub image: Arc<Image>,
    pub entry: u64,
    pub stack: u64,
    pub name: Vec<u8>,
    pub cred: Arc<Cred>,
}

/// Most bytes of arguments and environment for this limit of the stack: a quarter of it, but within bounds.
pub fn strings_limit(stack: u64) -> usize {
    (stack / 4).clamp(128 << 10, 6 << 20) as usize
}

/// Open a file to execute it: a regular file that the walker may execute, on a mount that allows it.
fn open(walker: &Walker, place: Location) -> Result<Arc<File>> {
    let inode = place.inode().clone();
    match inode.kind() {
        Kind::File => {}
        Kind::Link => return Err(Errno::ELOOP),
        _ => return Err(Errno::EACCES),
    }
    if place.mount.flags().contains(Flags::NOEXEC) {
        return Err(Errno::EACCES);
    }
    inode.permission(&walker.cred, want::EXEC)?;
    // Not while it is being written.
    let _running = Running::new(&inode)?;
    let ops = inode.open(open_mode(abi::O_RDONLY))?;
    File::new(ops, place, abi::O_RDONLY)
}

/// Steps 1 and 2. The new space is loaded when this returns; on an error the space that was loaded before is.
#[inline(never)]
pub fn load(mut request: Request, who: &Who<'_>) -> Result<Loaded> {
    let (file, elf) = find(&mut request, who)?;
    let image = Arc::new(Image::new()?);
    let thread = sched::current();
    let before = thread.space();
    thread.set_space(Some(image.space().clone()));
    let built = build(&image, &file, &elf, &request, who);
    match built {
        Ok((entry, stack)) => {
            let cred = privileges(&file, who);
            let name = request.path.rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec();
            Ok(Loaded { image, entry, stack, name, cred })
        }
        Err(e) => {
            thread.set_space(before);
            Err(e)
        }
    }
}

/// The ELF file that the request comes down to.
#[inline(never)]
fn find(request: &mut Request, who: &Who<'_>) -> Result<(Arc<File>, Elf)> {
    let mut place = request.place.clone();
    for depth in 0.. {
        let file = open(who.walker, place)?;
        let mut head = [0u8; SCRIPT_LINE];
        let len = file.read_kernel(0, &mut head)?;
        if len < 2 || head[..2] != *b"#!" {
            let elf = Elf::read(&file)?;
            return Ok((file, elf));
        }
        if depth == MAX_SCRIPTS {
            break;
        }
        let (interpreter, argument) = script_line(&head[2..len])?;
        if request.closes {
            return Err(Errno::ENOENT);
        }
        let path = request.path.clone();
        let new = [Some(interpreter), argument, Some(&path[..])];
        let new: Vec<&[u8]> = new.into_iter().flatten().collect();
        request.args.replace_first(&new, who.strings.saturating_sub(request.env.size()))?;
        request.path = interpreter.to_vec();
        place = who.walker.resolve(&who.walker.start(interpreter), interpreter, true)?;
    }
    Err(Errno::ELOOP)
}

/// Interpreter and its one argument, from what follows `#!`. A name that does not end within what was read is not run:
/// it might be cut.
fn script_line(rest: &[u8]) -> Result<(&[u8], Option<&[u8]>)> {
    let blank = |b: &u8| *b == b' ' || *b == b'\t';
    let end = rest.iter().position(|b| *b == b'\n' || *b == 0);
    let line = &rest[..end.unwrap_or(rest.len())];
    let line = trim(line);
    let split = line.iter().position(blank);
    let interpreter = &line[..split.unwrap_or(line.len())];
    if line.is_empty() && end.is_none() {
        return Err(Errno::EACCES);
    }
    if interpreter.is_empty() || end.is_none() && split.is_none() {
        return Err(Errno::ENOEXEC);
    }
    let argument = split.map(|at| trim(&line[at..])).filter(|a| !a.is_empty());
    Ok((interpreter, argument))
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t' | b'\r'] = text {
        if text.ends_with(b"\r") {
            break;
        }
        text = rest;
    }
    text
}

/// Fill the image, whose space is loaded. Where to begin, and with which stack pointer.
#[inline(never)]
fn build(
    image: &Arc<Image>,
    file: &Arc<File>,
    elf: &Elf,
    request: &Request,
    who: &Who<'_>,
) -> Result<(u64, u64)> {
    let space = image.space();
    let chance = |pages: u64| if who.randomize { (random::u64() & pages) * PAGE_SIZE as u64 } else { 0 };
    let top = stack::top(who.randomize);
    // Dynamic programs go low, so that their heap has room; a loader, or a static program that can go anywhere, goes
    // among the mappings.
    let low = DYN_BASE + chance(DYN_RANDOM_PAGES);
    let at = elf.interpreter.is_some().then_some(low);
    let loader = match &elf.interpreter {
        Some(path) => Some(open_loader(path, who)?),
        None => None,
    };
    let placed = map(space, file, elf, at)?;
    let mut entry = elf.entry.wrapping_add(placed.bias);
    let mut auxv: Vec<(u32, u64)> = Vec::with_capacity(26);
    let headers = elf.headers.wrapping_add(placed.bias);
    let cred = &who.walker.cred;
    let first = entry;
    let mut base = 0;
    if let Some((file, elf)) = &loader {
        let placed = map(space, file, elf, None)?;
        base = placed.bias;
        entry = elf.entry.wrapping_add(placed.bias);
    }
    let secure = cred.uid != cred.euid || cred.gid != cred.egid;
    auxv.extend([
        (aux::AT_HWCAP, arch::cpu::features().hwcap as u64),
        (aux::AT_PAGESZ, PAGE_SIZE as u64),
        (aux::AT_CLKTCK, 100),
        (aux::AT_PHDR, headers),
        (aux::AT_PHENT, 56),
        (aux::AT_PHNUM, elf.header_count),
        (aux::AT_BASE, base),
        (aux::AT_FLAGS, 0),
        (aux::AT_ENTRY, first),
        (aux::AT_UID, cred.uid as u64),
        (aux::AT_EUID, cred.euid as u64),
        (aux::AT_GID, cred.gid as u64),
        (aux::AT_EGID, cred.egid as u64),
        (aux::AT_SECURE, secure as u64),
        // Bit 1: the program may use wrfsbase and its kin.
        (aux::AT_HWCAP2, if arch::cpu::features().fsgsbase { 2 } else { 0 }),
        (aux::AT_MINSIGSTKSZ, signal::min_stack()),
        (aux::AT_RSEQ_FEATURE_SIZE, super::rseq::USED),
        (aux::AT_RSEQ_ALIGN, super::rseq::SIZE),
    ]);
    if let Some(at) = vdso::map(space)? {
        auxv.push((aux::AT_SYSINFO_EHDR, at));
    }
    let contents = Contents { args: &request.args, env: &request.env, path: &request.path, aux: &auxv };
    let stack = stack::build(space, top, elf.stack_exec, who.stack, who.randomize, &contents)?;

    // A static program among the mappings has no room above it: its heap goes where dynamic programs are.
    let end = if elf.fixed || at.is_some() { placed.all.1 } else { low };
    let heap = end.next_multiple_of(PAGE_SIZE as u64) + chance(HEAP_RANDOM_PAGES);
    memory().set_heap(space, VirtAddr(heap));
    image.set_layout(Arc::new(Layout {
        place: Some(file.place().clone()),
        _running: Some(Running::new(file.inode())?),
        args: stack.args,
        env: stack.env,
        auxv: stack.aux,
        code: placed.code,
        data: placed.data,
        heap,
        stack: stack.pointer,
    }));
    Ok((entry, stack.pointer))
}

/// The dynamic loader that a program asks for.
#[inline(never)]
fn open_loader(path: &[u8], who: &Who<'_>) -> Result<(Arc<File>, Elf)> {
    let place = who.walker.resolve(&who.walker.start(path), path, true)?;
    let file = open(who.walker, place)?;
    let elf = Elf::read(&file).map_err(|e| if e == Errno::ENOEXEC { Errno::ELIBBAD } else { e })?;
    Ok((file, elf))
}

#[inline(never)]
fn map(space: &Arc<Space>, file: &Arc<File>, elf: &Elf, at: Option<u64>) -> Result<Placed> {
    let object = file.inode().object()?;
    let id = file.inode().id();
    let path = file.place().display().into_boxed_slice();
    let label = Arc::new(Label { path, dev: id.dev, ino: id.ino });
    elf.map(space, &object, &label, at)
}

/// Who the program acts as: set-user-ID and set-group-ID files lend their owner's identity.
fn privileges(file: &File, who: &Who<'_>) -> Arc<Cred> {
    let mut cred = Cred::clone(&who.walker.cred);
    let lends = who.new_privileges && !file.place().mount.flags().contains(Flags::NOSUID);
    if let (true, Ok(stat)) = (lends, file.stat()) {
        if stat.mode & 0o4000 != 0 {
            cred.euid = stat.uid;
        }
        if stat.mode & 0o2010 == 0o2010 {
            cred.egid = stat.gid;
        }
    }
    let set_id = (cred.euid, cred.egid) != (who.walker.cred.euid, who.walker.cred.egid);
    (cred.suid, cred.fsuid, cred.sgid, cred.fsgid) = (cred.euid, cred.euid, cred.egid, cred.egid);
    cred.caps.exec(cred.uid, cred.euid, set_id);
    Arc::new(cred)
}

/// `execve`, with the addresses that the program gave.
#[inline(never)]
pub fn execve(caller: &mut Caller, dir: i32, path: u64, argv: u64, envp: u64, flags: u32) -> Result<u64> {
    let task = caller.task.clone();
    let walker = task.fs().walker(task.cred());
    let path = user::read_string(path, abi::PATH_MAX as usize, Errno::ENAMETOOLONG)?;
    let known = abi::AT_EMPTY_PATH | abi::AT_SYMLINK_NOFOLLOW;
    if flags & !known != 0 && !path.is_empty() {
        return Err(Errno::EINVAL);
    }
    let place = find_place(&task, &walker, dir, &path, flags)?;
    let by_descriptor = dir != abi::AT_FDCWD && path.first() != Some(&b'/');
    let closes = by_descriptor && task.files().close_on_exec(dir as u32)?;
    let path = if by_descriptor { fd_path(dir, &path) } else { path };
    let stack = task.process.limits.soft(abi::RLIMIT_STACK);
    let limit = strings_limit(stack);
    let mut args = read_strings(argv, limit)?;
    let env = read_strings(envp, limit.saturating_sub(args.size()))?;
    if args.count == 0 {
        // Programs rely on argv[0], and read on into the environment without it.
        args.push(b"", limit)?;
    }
    let process = &task.process;
    let who = Who {
        walker: &walker,
        strings: limit,
        stack,
        randomize: RANDOMIZE.load(Ordering::Relaxed) != 0
            && process.personality.load(Ordering::Relaxed) & ADDR_NO_RANDOMIZE == 0,
        new_privileges: !process.no_new_privileges.load(Ordering::Relaxed) && !trace::holds_back(&task),
    };
    let loaded = load(Request { path, place, args, env, closes }, &who)?;
    let number = task.tid();
    if let Err(e) = alone(&task) {
        sched::current().set_space(Some(caller.space().clone()));
        return Err(e);
    }
    commit(caller, loaded);
    trace::executed(caller, number);
    Ok(0)
}

fn find_place(task: &Task, walker: &Walker, dir: i32, path: &[u8], flags: u32) -> Result<Location> {
    let base = match path.first() {
        Some(b'/') => walker.root.clone(),
        _ if dir == abi::AT_FDCWD => walker.cwd.clone(),
        _ => task.files().get_any(dir as u32)?.place().clone(),
    };
    if path.is_empty() {
        return if flags & abi::AT_EMPTY_PATH != 0 { Ok(base) } else { Err(Errno::ENOENT) };
    }
    walker.resolve(&base, path, flags & abi::AT_SYMLINK_NOFOLLOW == 0)
}

/// What a script's interpreter is told of a script that was opened by its descriptor.
fn fd_path(fd: i32, path: &[u8]) -> Vec<u8> {
    let mut text = format!("/dev/fd/{fd}").into_bytes();
    if !path.is_empty() {
        text.push(b'/');
        text.extend_from_slice(path);
    }
    text
}

/// A list of strings that ends with a null pointer.
fn read_strings(list: u64, limit: usize) -> Result<Strings> {
    let mut strings = Strings::default();
    if list == 0 {
        return Ok(strings);
    }
    for i in 0.. {
        let at = user::read_u64(list.wrapping_add(8 * i))?;
        if at == 0 {
            break;
        }
        let room = limit.saturating_sub(strings.size()).min(stack::MAX_STRING);
        strings.push(&user::read_string(at, room, Errno::E2BIG)?, limit)?;
        if !mem::headroom(strings.size()) {
            return Err(Errno::ENOMEM);
        }
    }
    Ok(strings)
}

/// Step 3: end the other tasks, wait until they are gone, and take the process's number.
#[inline(never)]
fn alone(task: &Arc<Task>) -> Result<()> {
    let process = &task.process;
    {
        let mut tasks = process.tasks.lock();
        if tasks.ending.is_some() || tasks.executing.is_some() {
            return Err(Errno::RESTART_NOINTR);
        }
        if tasks.list.len() == 1 {
            return Ok(());
        }
        tasks.executing = Some(task.tid());
    }
    for other in process.tasks().filter(|t| !Arc::ptr_eq(t, task)) {
        other.ask(work::EXIT);
        trace::let_go(&other);
    }
    let gone = || process.tasks.lock().list.len() == 1;
    let killed = || task.work.load(Ordering::SeqCst) & work::EXIT != 0;
    while process.parked.wait_until(gone, None, true) == WaitResult::Interrupted && !killed() {
        sched::clear_interrupt();
    }
    process.tasks.lock().executing = None;
    if killed() {
        return Err(Errno::RESTART_NOINTR);
    }
    let old = task.tid();
    if old != process.pid {
        table::remove_task(old);
        task.set_tid(process.pid);
        table::add_task(task);
        trace::renumber(old, process.pid);
    }
    Ok(())
}

/// Step 4: become the new program.
#[inline(never)]
fn commit(caller: &mut Caller, loaded: Loaded) {
    let task = caller.task.clone();
    let process = &task.process;
    process.leave_image(&caller.image);
    loaded.image.space().set_no_huge(process.no_huge_pages.load(Ordering::Relaxed));
    if process.no_new_code.load(Ordering::Relaxed) & linux_raw_sys::prctl::PR_MDWE_NO_INHERIT != 0 {
        process.no_new_code.store(0, Ordering::Relaxed);
    }
    memory().join_account(loaded.image.account());
    let old = core::mem::replace(&mut caller.image, loaded.image.clone());
    drop(task.replace_image(Some(loaded.image)));
    exit::release_parent(process);
    drop(old);

    let files = task.files();
    // Two: the task's own and this one.
    if Arc::strong_count(&files) > 2
        && let Ok(own) = files.fork_copy()
    {
        drop(task.replace_files(own));
    }
    drop(files);
    task.files().exec();

    let mut actions = caller.actions.lock().clone();
    actions.reset_handlers();
    caller.actions = Arc::new(Mutex::new(actions));
    process.replace_actions(caller.actions.clone());
    caller.alt_stack = AltStack::NONE;
    task.clear_child_tid.store(0, Ordering::Relaxed);
    task.robust_list.store(0, Ordering::Relaxed);
    *task.dispatch.lock() = None;
    task.rseq.clear();
    if loaded.cred.uid != loaded.cred.euid || loaded.cred.gid != loaded.cred.egid {
        task.death_signal.store(0, Ordering::Relaxed);
    }
    let loaded_cred = loaded.cred.clone();
    task.set_cred(loaded.cred);
    task.set_name(&loaded.name);
    process.timers.delete_posix();
    process.aio.clear();
    process.exit_signal.store(abi::SIGCHLD, Ordering::Relaxed);
    process.executed.store(true, Ordering::Relaxed);
    let own = loaded_cred.uid == loaded_cred.euid && loaded_cred.gid == loaded_cred.egid;
    let how = if own { u64::from(dumpable::USER) } else { pattern::SUID.load(Ordering::Relaxed) };
    process.dumpable.store(how as u32, Ordering::Relaxed);
    process.timers.delete_posix();
    caller.resume = None;
    caller.user.reset(loaded.entry, loaded.stack);
}
