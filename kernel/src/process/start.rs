//! The first program, and the end of the machine.
//!
//! The main thread of the kernel runs [`start`]: it hears from the host what to run, makes the first process, waits until
//! that has ended, ends the others, writes back what is not yet on the host, says how it went, and switches the machine
//! off. The first program's end is the machine's end, as it is a container's.
//!
//! Its steps are kept apart (`inline(never)`): all together their frames would fill a kernel stack, and the deepest of them
//! has the whole path of a fault and a file's read below it.

use super::control::{self, Inbox};
use super::exec::{self, Loaded, Request, Who};
use super::files::{FileTable, FsContext};
use super::limits::{Limit, Limits, NR_OPEN};
use super::process::Process;
use super::run::Caller;
use super::signal::{Actions, SigSet};
use super::stack::Strings;
use super::task::{Task, TaskParts, short_name};
use super::wait::Status;
use super::{exit, fork, host, oom, proc, sigio, table, user, vdso};
use crate::arch;
use crate::arch::user::UserContext;
use crate::clock;
use crate::drivers;
use crate::errno::{Errno, Result};
use crate::fs;
use crate::fs::caps::cap;
use crate::fs::cred::Cred;
use crate::fs::path::{Location, Walker};
use crate::mem::{self, memory};
use crate::net;
use crate::sched::{self, WaitQueue};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hafez_link::{Ending, Start, StartError, Summary, ToHost};
use hafez_mm::PAGE_SIZE;
use hafez_mm::lock::{Mutex, Once};
use linux_raw_sys::general as abi;

/// Where paths begin for tasks that have ended.
static IDLE: Once<Arc<FsContext>> = Once::new();
/// The main thread waits here for processes to end.
static ENDED: WaitQueue = WaitQueue::new();
/// When the first program began.
static BEGAN: AtomicU64 = AtomicU64::new(0);

/// Processes that are told to end at the end have this long, in nanoseconds, before the machine is switched off anyhow.
const PATIENCE: u64 = 5_000_000_000;
/// What `execvp` searches where the environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// A context for tasks that have ended: theirs may hold directories that only a living thread can let go.
pub(super) fn idle_fs() -> Option<Arc<FsContext>> {
    IDLE.get().cloned()
}

/// A process has ended.
pub(super) fn process_has_ended() {
    ENDED.wake_all();
}

/// Why the first program did not begin.
struct Failure {
    why: StartError,
    text: String,
}

fn failed(text: String) -> Failure {
    Failure { why: StartError::Failed, text }
}

/// Run the machine's one job. The body of the kernel's main thread, when everything below is up.
pub fn start() -> ! {
    user::init();
    let ending = match Inbox::open() {
        Some(mut inbox) => match inbox.start() {
            Some(start) => run(start, inbox),
            None => not_started(failed(String::from("the control port did not say what to run"))),
        },
        None => {
            log::error!("there is no control port");
            Ending::NotStarted(StartError::Failed)
        }
    };
    control::send(&ToHost::Summary(summary()));
    control::send(&ToHost::Exit(ending));
    drivers::drain();
    arch::exit(ending.code())
}

/// Whether calls that nothing serves are told of (`HAFEZ_LOG=abi`).
static LOG_ABI: AtomicBool = AtomicBool::new(false);

pub fn logs_abi() -> bool {
    LOG_ABI.load(Ordering::Relaxed)
}

#[inline(never)]
fn not_started(failure: Failure) -> Ending {
    control::explain(failure.text);
    Ending::NotStarted(failure.why)
}

#[inline(never)]
fn run(start: Start, inbox: Inbox) -> Ending {
    LOG_ABI.store(start.log_abi, Ordering::Relaxed);
    if !clock::set_realtime(start.wall_ns) {
        log::warn!("the host's clock is before 1970");
    }
    if oom::start_keeper().is_err() {
        return not_started(failed(String::from("no memory to begin with")));
    }
    let audit = start.audit;
    mem::AUDITED.store(audit, Ordering::Relaxed);
    let w = start.window;
    if (w.rows, w.cols) != (0, 0) {
        fs::tty::set_window([w.rows, w.cols, w.width, w.height]);
    }
    inbox.serve(|w| fs::tty::set_window([w.rows, w.cols, w.width, w.height]), fs::stdio::end_of_input);
    if vdso::init().is_err() {
        return not_started(failed(String::from("no memory to begin with")));
    }
    if let Err(failure) = first_program(start) {
        return not_started(failure);
    }
    ENDED.wait(|| table::first_status().is_some());
    end_the_rest();
    if let Err(e) = fs::p9::sync_all() {
        control::explain(format!("not all that was written has reached the host: {}", words(e)));
    }
    if audit && let Some(Err(e)) = mem::audit() {
        return not_started(failed(format!("the memory audit found: {}", e.0)));
    }
    match table::first_status() {
        Some(Status::Signalled { signo, .. }) => Ending::Signalled(signo as u8),
        Some(Status::Exited(code)) => Ending::Exited(code),
        _ => Ending::NotStarted(StartError::Failed),
    }
}

#[inline(never)]
fn end_the_rest() {
    for process in table::each_process() {
        exit::end_process(&process, Status::Signalled { signo: abi::SIGKILL, core: false });
    }
    let deadline = clock::monotonic() + PATIENCE;
    ENDED.wait_until(|| table::task_count() == 0, Some(deadline), false);
}

/// Make the first process and let it run.
#[inline(never)]
fn first_program(start: Start) -> core::result::Result<(), Failure> {
    let program = String::from_utf8_lossy(&start.argv[0]).into_owned();
    if host::set_name(&start.hostname).is_err() {
        log::warn!("the host's name is too long");
    }
    let root = mount(&start)?;
    IDLE.call_once(|| FsContext::new(root.clone(), root.clone(), 0o022));
    let cred = Arc::new(Cred::new(start.uid, start.gid, start.groups));
    let limits = Limits::new();
    for l in &start.rlimits {
        let most = if l.resource == abi::RLIMIT_NOFILE { NR_OPEN.load(Ordering::Relaxed) } else { u64::MAX };
        // One that this kernel does not know, or that makes no sense, stays as it is.
        let _ = limits.set(l.resource, Limit { soft: l.soft.min(most), hard: l.hard.min(most) }, true);
    }
    let mut walker = Walker {
        root: root.clone(),
        cwd: root.clone(),
        cred: cred.clone(),
        umask: start.umask,
        limits: Default::default(),
        beneath: None,
    };
    walker.cwd = walker.resolve(&root, &start.cwd, true).map_err(|e| {
        failed(format!("working directory {}: {}", String::from_utf8_lossy(&start.cwd), words(e)))
    })?;

    let stack = limits.soft(abi::RLIMIT_STACK);
    let strings = exec::strings_limit(stack);
    let who = Who { walker: &walker, strings, stack, randomize: true, new_privileges: true };
    let mut args = Strings::default();
    let mut env = Strings::default();
    let too_long = |e| Failure { why: StartError::NotExecutable, text: format!("{program}: {}", words(e)) };
    start.argv.iter().try_for_each(|a| args.push(a, strings)).map_err(too_long)?;
    start.env.iter().try_for_each(|e| env.push(e, strings - args.size())).map_err(too_long)?;
    let search = start.env.iter().find_map(|e| e.strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
    let loaded = find(&who, &start.argv[0], search, &args, &env).map_err(|e| Failure {
        why: match e {
            Errno::ENOENT | Errno::ENOTDIR => StartError::NotFound,
            Errno::ENOMEM => StartError::Failed,
            _ => StartError::NotExecutable,
        },
        text: format!("{program}: {}", if e == Errno::ENOENT { "not found" } else { words(e) }),
    })?;
    let files = Arc::new(FileTable::new());
    let streams = fs::stdio::Streams { tty: start.tty, merged: start.merged, stdin: start.stdin };
    let standard =
        fs::stdio::open(&walker, streams).map_err(|e| failed(format!("standard files: {}", words(e))))?;
    for file in standard {
        files.insert(file, false, 0, 3).map_err(|e| failed(format!("standard files: {}", words(e))))?;
    }
    let context = FsContext::new(root, walker.cwd.clone(), start.umask);
    launch(loaded, files, context, limits).map_err(|e| failed(format!("{program}: {}", words(e))))
}

/// Build the tree of files: the host's root and what it may write, over the 9p shares that it offers.
#[inline(never)]
fn mount(start: &Start) -> core::result::Result<Location, Failure> {
    let share = |tag: &[u8], number: u64| {
        let text = String::from_utf8_lossy(tag).into_owned();
        fs::p9::mount(tag, number)
            .map_err(|e| failed(format!("the share {text} of the host's files: {}", words(e))))
    };
    let root = share(hafez_link::ROOT_TAG.as_bytes(), fs::dev::next_anonymous())?;
    let mut writable = Vec::new();
    for m in &start.mounts {
        let inode = share(&m.tag, fs::dev::next_anonymous())?;
        writable.push(fs::Writable { path: m.path.clone(), inode, source: m.tag.clone().into_boxed_slice() });
    }
    fs::tty::job::set_processes(&super::terminal::OfTerminals);
    net::set_caller(sender);
    fs::sys::set_network(net::sysfs::fill);
    net::set_sender(sender_of_files);
    net::set_groups(|| super::current_task().map_or_else(Arc::default, |task| task.cred().groups.clone()));
    fs::owner::set_sender(sigio::send);
    fs::kmsg::set_caller(|| super::current_task().map_or_else(Arc::default, |task| task.cred()));
    fs::tmpfs::set_mapped(table::can_write);
    let root = fs::start(root, proc::root(), writable, start.overlay)
        .map_err(|e| failed(format!("files: {}", words(e))))?;
    if let Some(server) = arch::boot::info().option("hafez.resolver") {
        let text = format!(
            "# The computer's own name servers cannot be reached from in here.\nnameserver {server}\n"
        );
        fs::cover_file(&root, b"etc", b"resolv.conf", text.into_bytes());
    }
    Ok(root)
}

/// Who the calling process is, for who hears from it by socket.
fn sender() -> net::Ucred {
    super::current_task().map_or(net::Ucred::default(), |task| {
        let cred = task.cred();
        net::Ucred {
            pid: task.process.pid as u32,
            uid: cred.euid,
            gid: cred.egid,
            began: net::moment(task.process.started),
        }
    })
}

/// Who sends files by socket: as many as it may have open can be under way, unless it is privileged.
fn sender_of_files() -> net::Sender {
    let Some(task) = super::current_task() else { return net::Sender { uid: 0, most: usize::MAX } };
    let cred = task.cred();
    let most = match cred.may(cap::SYS_RESOURCE) || cred.may(cap::SYS_ADMIN) {
        true => usize::MAX,
        false => task.process.limits.soft(abi::RLIMIT_NOFILE) as usize,
    };
    net::Sender { uid: cred.uid, most }
}

#[inline(never)]
fn launch(loaded: Loaded, files: Arc<FileTable>, fs: Arc<FsContext>, limits: Limits) -> Result<()> {
    let actions = Arc::new(Mutex::new(Actions::new()));
    let process = Process::new(table::FIRST, actions, limits, abi::SIGCHLD);
    let parts = TaskParts {
        files,
        fs,
        cred: loaded.cred,
        image: loaded.image.clone(),
        name: short_name(&loaded.name),
        mask: SigSet::EMPTY,
    };
    let task = Task::new(table::FIRST, process.clone(), parts);
    process.executed.store(true, Ordering::Relaxed);
    table::claim_first();
    process.tasks.lock().add(&task)?;
    table::add_task(&task);
    table::add(&process, None, false);
    process.timers.watch_cpu_limit(&process)?;
    fs::tty::set_owner(table::FIRST as u32, table::FIRST as u32);
    let user = UserContext::new(loaded.entry, loaded.stack).map_err(|_| Errno::ENOMEM)?;
    // The program's space was loaded here to be filled.
    sched::current().set_space(None);
    BEGAN.store(clock::monotonic(), Ordering::Relaxed);
    control::send(&ToHost::Started);
    fork::launch(Caller::new(task, loaded.image, user), 0)
}

/// Find the program as `execvp` does, and load it.
#[inline(never)]
fn find(who: &Who<'_>, program: &[u8], search: &[u8], args: &Strings, env: &Strings) -> Result<Loaded> {
    let load = |path: Vec<u8>| {
        let place: Location = who.walker.resolve(&who.walker.start(&path), &path, true)?;
        exec::load(Request { path, place, args: args.clone(), env: env.clone(), closes: false }, who)
    };
    if program.is_empty() {
        return Err(Errno::ENOENT);
    }
    if program.contains(&b'/') {
        return load(program.to_vec());
    }
    let mut best = Errno::ENOENT;
    for dir in search.split(|b| *b == b':') {
        let mut path = dir.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(program);
        match load(path) {
            Err(Errno::EACCES) => best = Errno::EACCES,
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            other => return other,
        }
    }
    Err(best)
}

/// An error in words, for the few that a start can fail with.
fn words(e: Errno) -> &'static str {
    match e {
        Errno::ENOENT => "no such file or directory",
        Errno::ENOTDIR => "a part of the path is not a directory",
        Errno::EACCES => "permission denied",
        Errno::ENOEXEC => "not a program for this machine (64-bit x86 Linux)",
        Errno::ELIBBAD => "its dynamic loader is no program",
        Errno::ELOOP => "too many links or interpreters",
        Errno::E2BIG => "arguments and environment are too long",
        Errno::ENOMEM => "not enough memory to load it",
        Errno::EIO => "it could not be read",
        Errno::EISDIR => "is a directory",
        _ => "it cannot be executed",
    }
}

/// The figures of the run.
#[inline(never)]
fn summary() -> Summary {
    let stats = memory().stats();
    let page = PAGE_SIZE as u64;
    let began = BEGAN.load(Ordering::Relaxed);
    Summary {
        usable: (stats.total - stats.kernel.min(stats.total)) * page,
        peak: stats.peak * page,
        peak_resident: stats.peak.min(stats.total) * page,
        minor_faults: stats.minor,
        major_file: stats.major_file,
        major_swap: stats.major_swap,
        swapped_out: stats.swapped_out * page,
        swapped_in: stats.swapped_in * page,
        boot_ns: began,
        run_ns: if began == 0 { 0 } else { clock::monotonic() - began },
        ..Summary::default()
    }
}
