//! What a process or a thread is doing: `status`, `stat`, `statm`, `limits`, `cmdline` and the like.

use super::super::dump::filter;
use super::super::limits::INFINITY;
use super::super::process::Usage;
use super::super::signal::SigSet;
use super::super::task::DEFAULT_SLACK;
use super::super::{Process, foreign, table, timer, trace};
use super::kib;
use super::maps::{Shape, shape};
use super::pid::{Subject, owned, task_name};
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::fs::synth::Entry;
use crate::fs::tty;
use crate::mem::memory;
use crate::sched::Thread;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use core::num::IntErrorKind;
use core::ops::RangeInclusive;
use core::sync::atomic::Ordering::Relaxed;
use hafez_mm::{AccountStat, PAGE_SIZE};
use linux_raw_sys::general as abi;

/// Nanoseconds of a clock tick.
const TICK: u64 = 10_000_000;

/// What both `status` and `stat` tell, gathered once.
struct Facts {
    process: Arc<Process>,
    tid: i32,
    name: String,
    state: (char, &'static str),
    usage: Usage,
    memory: AccountStat,
    shape: Shape,
    /// Blocked, ignored, caught; pending for the thread, pending for the process.
    signals: [SigSet; 5],
    threads: usize,
    nice: i32,
    policy: u32,
    priority: u32,
}

impl Facts {
    fn of(subject: &Subject) -> Result<Facts> {
        let process = subject.process()?;
        let task = subject.task()?;
        let image = task.as_ref().and_then(|task| task.image());
        let account = image.as_ref().map(|image| memory().account(image.account()));
        let usage = match &task {
            Some(task) if subject.is_thread() => task.usage(),
            _ => process.usage(),
        };
        let signals = match &task {
            Some(task) => {
                let actions = process.actions();
                let (ignored, caught) = actions.lock().ignored_and_caught();
                [task.mask(), ignored, caught, task.pending_set(), process.pending_set()]
            }
            None => [SigSet::EMPTY; 5],
        };
        Ok(Facts {
            tid: task.as_ref().map_or(process.pid, |task| task.tid()),
            name: task.as_ref().map_or_else(|| String::from("?"), |task| task_name(task)),
            state: state(&process, task.as_deref()),
            usage,
            memory: account.unwrap_or_default(),
            shape: image.as_ref().map(|image| shape(image)).unwrap_or_default(),
            signals,
            threads: process.task_count(),
            nice: task.as_ref().map_or(0, |task| task.nice.load(Relaxed)),
            policy: task.as_ref().map_or(0, |task| task.policy.load(Relaxed)),
            priority: task.as_ref().map_or(0, |task| task.priority.load(Relaxed)),
            process,
        })
    }

    fn resident(&self) -> u64 {
        self.anonymous() + self.shape.file_resident + self.shape.shared_resident
    }

    /// The account has shared memory too, if the process was the first to touch it.
    fn anonymous(&self) -> u64 {
        self.memory.resident.saturating_sub(self.shape.shared_resident)
    }
}

fn state(process: &Process, task: Option<&super::super::Task>) -> (char, &'static str) {
    if table::is_zombie(process.pid) || task.is_none() {
        ('Z', "zombie")
    } else if task.is_some_and(trace::is_stopped) {
        ('t', "tracing stop")
    } else if process.stopped().is_some() {
        ('T', "stopped")
    } else if task.and_then(|task| task.thread()).is_some_and(|thread| thread.is_runnable()) {
        ('R', "running")
    } else {
        ('S', "sleeping")
    }
}

/// The CPUs that a thread may run on, as bits and as `status` prints them: `0-3,8`.
fn cpus(thread: Option<&Thread>) -> (u64, String) {
    let mask = thread.map_or(1, Thread::affinity);
    let mut list = String::new();
    let mut rest = mask;
    while rest != 0 {
        let first = rest.trailing_zeros();
        let last = first + (rest >> first).trailing_ones() - 1;
        rest = rest.checked_shr(last + 1).map_or(0, |above| above << (last + 1));
        let comma = if list.is_empty() { "" } else { "," };
        let _ = match first == last {
            true => write!(list, "{comma}{first}"),
            false => write!(list, "{comma}{first}-{last}"),
        };
    }
    (mask, list)
}

pub fn status(subject: &Subject) -> Result<Vec<u8>> {
    let facts = Facts::of(subject)?;
    let process = &facts.process;
    let task = subject.task()?;
    let (pid, tid, parent) = (process.pid, facts.tid, process.parent());
    let mut text = String::new();
    let _ =
        writeln!(text, "Name:\t{}", String::from_utf8_lossy(&super::escaped(facts.name.as_bytes(), b"\n\\")));
    if let Some(task) = &task {
        let _ = writeln!(text, "Umask:\t{:04o}", task.fs().umask());
    }
    let (letter, word) = facts.state;
    let tracer = task.as_ref().map_or(0, |task| trace::tracer_of(task));
    let _ = writeln!(
        text,
        "State:\t{letter} ({word})\nTgid:\t{pid}\nNgid:\t0\nPid:\t{tid}\nPPid:\t{parent}\nTracerPid:\t{tracer}"
    );
    let cred = task.as_ref().map(|task| task.cred()).unwrap_or_default();
    let _ = writeln!(text, "Uid:\t{}\t{}\t{}\t{}", cred.uid, cred.euid, cred.suid, cred.fsuid);
    let _ = writeln!(text, "Gid:\t{}\t{}\t{}\t{}", cred.gid, cred.egid, cred.sgid, cred.fsgid);
    let size = task.as_ref().map_or(0, |task| task.files().size());
    let _ = write!(text, "FDSize:\t{size}\nGroups:\t");
    for group in cred.groups.iter() {
        let _ = write!(text, "{group} ");
    }
    if cred.groups.is_empty() {
        text.push(' ');
    }
    let (group, session) = (process.group(), process.session());
    let _ =
        writeln!(text, "\nNStgid:\t{pid}\nNSpid:\t{tid}\nNSpgid:\t{group}\nNSsid:\t{session}\nKthread:\t0");
    if task.as_ref().is_some_and(|task| task.image().is_some()) {
        tell_memory(&mut text, &facts);
    }
    let huge = !process.no_huge_pages.load(Relaxed) as u8;
    let dumping = process.is_dumping() as u8;
    let _ = writeln!(text, "CoreDumping:\t{dumping}\nTHP_enabled:\t{huge}\nuntag_mask:\t0xffffffffffffffff");
    let queue = process.limits.soft(abi::RLIMIT_SIGPENDING);
    let _ = writeln!(text, "Threads:\t{}\nSigQ:\t0/{queue}", facts.threads);
    let [blocked, ignored, caught, own, shared] = facts.signals;
    for (name, set) in
        [("SigPnd", own), ("ShdPnd", shared), ("SigBlk", blocked), ("SigIgn", ignored), ("SigCgt", caught)]
    {
        let _ = writeln!(text, "{name}:\t{:016x}", set.0);
    }
    let caps = &cred.caps;
    for (name, set) in [
        ("CapInh", caps.inheritable),
        ("CapPrm", caps.permitted),
        ("CapEff", caps.effective),
        ("CapBnd", caps.bounding),
        ("CapAmb", caps.ambient),
    ] {
        let _ = writeln!(text, "{name}:\t{set:016x}");
    }
    let bound = u8::from(process.no_new_privileges.load(Relaxed));
    let (mask, list) = cpus(task.as_ref().and_then(|task| task.thread()).as_deref());
    let (mode, filters) = task.as_ref().map_or((0, 0), |task| task.guard.lock().told());
    let _ = writeln!(text, "NoNewPrivs:\t{bound}\nSeccomp:\t{mode}\nSeccomp_filters:\t{filters}");
    let _ = writeln!(
        text,
        "Cpus_allowed:\t{mask:x}\nCpus_allowed_list:\t{list}\nMems_allowed:\t1\nMems_allowed_list:\t0"
    );
    let Usage { voluntary, involuntary, .. } = facts.usage;
    let _ =
        writeln!(text, "voluntary_ctxt_switches:\t{voluntary}\nnonvoluntary_ctxt_switches:\t{involuntary}");
    Ok(text.into_bytes())
}

fn tell_memory(text: &mut String, facts: &Facts) {
    let Facts { memory, shape, .. } = facts;
    for (name, pages) in [
        ("VmPeak", shape.total),
        ("VmSize", shape.total),
        ("VmLck", shape.wired),
        ("VmPin", 0),
        ("VmHWM", facts.usage.peak.max(facts.resident())),
        ("VmRSS", facts.resident()),
        ("RssAnon", facts.anonymous()),
        ("RssFile", shape.file_resident),
        ("RssShmem", shape.shared_resident),
        ("VmData", shape.data),
        ("VmStk", shape.stack),
        ("VmExe", shape.code),
        ("VmLib", shape.library),
        ("VmPTE", memory.tables),
        ("VmSwap", memory.swapped),
        ("HugetlbPages", 0),
    ] {
        let _ = writeln!(text, "{name}:\t{:8} kB", kib(pages));
    }
}

/// Fifty-two columns; those that Linux itself always shows as 0, or shows to a debugger only, are 0.
pub fn stat(subject: &Subject) -> Result<Vec<u8>> {
    let facts = Facts::of(subject)?;
    let process = &facts.process;
    let Usage { user, system, minor, major, .. } = facts.usage;
    let children = process.times.lock().children;
    let layout = subject.image()?.map(|image| image.layout());
    let layout = layout.as_deref();
    let (terminal, foreground) = match tty::of_session(process.session() as u32) {
        Some((number, group)) if !process.detached() => (number, group as i32),
        _ => (0, -1),
    };
    let [blocked, ignored, caught, own, shared] = facts.signals.map(|set| set.0 & 0x7fff_ffff);
    let pending = own | shared;
    let mut text = format!(
        "{} ({}) {} {} {} {} {terminal} {foreground} {FLAGS} {minor} {} {major} {} {} {} {} {} {} {} {} 0 {} {} {} {}",
        facts.tid,
        facts.name,
        facts.state.0,
        process.parent(),
        process.group(),
        process.session(),
        children.minor,
        children.major,
        user / TICK,
        system / TICK,
        children.user / TICK,
        children.system / TICK,
        if facts.priority > 0 { -1 - facts.priority as i32 } else { 20 + facts.nice },
        facts.nice,
        facts.threads,
        process.started / TICK,
        facts.shape.total * PAGE_SIZE as u64,
        facts.resident(),
        process.limits.soft(abi::RLIMIT_RSS),
    );
    let (code, stack) = layout.map_or(((0, 0), 0), |l| (l.code, l.stack));
    let _ = write!(text, " {} {} {stack} 0 0 {pending} {blocked} {ignored} {caught} 0 0 0", code.0, code.1);
    let signal = process.exit_signal();
    let cpu = subject.task()?.and_then(|task| task.thread()).map_or(0, |thread| thread.cpu());
    let _ = write!(text, " {signal} {cpu} {} {} 0 0 0", facts.priority, facts.policy);
    match layout {
        Some(l) => {
            let _ = write!(
                text,
                " {} {} {} {} {} {} {}",
                l.data.0, l.data.1, l.heap, l.args.0, l.args.1, l.env.0, l.env.1
            );
        }
        None => text.push_str(" 0 0 0 0 0 0 0"),
    }
    text.push_str(" 0\n");
    Ok(text.into_bytes())
}

/// `PF_RANDOMIZE`: the one flag that says something here.
const FLAGS: u32 = 0x0040_0000;

pub fn statm(subject: &Subject) -> Result<Vec<u8>> {
    let facts = Facts::of(subject)?;
    let Shape { total, data, stack, code, file_resident, shared_resident, .. } = facts.shape;
    let text = format!(
        "{total} {} {} {code} 0 {} 0\n",
        facts.resident(),
        file_resident + shared_resident,
        data + stack
    );
    Ok(text.into_bytes())
}

/// In the order of their numbers, as Linux prints them.
const LIMITS: [(&str, &str); 16] = [
    ("Max cpu time", "seconds"),
    ("Max file size", "bytes"),
    ("Max data size", "bytes"),
    ("Max stack size", "bytes"),
    ("Max core file size", "bytes"),
    ("Max resident set", "bytes"),
    ("Max processes", "processes"),
    ("Max open files", "files"),
    ("Max locked memory", "bytes"),
    ("Max address space", "bytes"),
    ("Max file locks", "locks"),
    ("Max pending signals", "signals"),
    ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""),
    ("Max realtime priority", ""),
    ("Max realtime timeout", "us"),
];

pub fn limits(subject: &Subject) -> Result<Vec<u8>> {
    let process = subject.process()?;
    let mut text = format!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    let show = |value: u64| if value == INFINITY { String::from("unlimited") } else { format!("{value}") };
    for (kind, (name, unit)) in LIMITS.iter().enumerate() {
        let limit = process.limits.get(kind as u32)?;
        let _ = writeln!(text, "{name:<25} {:<20} {:<20} {unit:<10}", show(limit.soft), show(limit.hard));
    }
    Ok(text.into_bytes())
}

/// The most that `cmdline` and `environ` give.
const STRINGS_MAX: u64 = 2 << 20;

/// Bytes of the process's own memory, as far as they can be read.
fn peek(subject: &Subject, (start, end): (u64, u64)) -> Result<Vec<u8>> {
    let Some(image) = subject.image()? else { return Ok(Vec::new()) };
    let len = end.saturating_sub(start).min(STRINGS_MAX);
    let mut bytes = crate::mem::zeroed(len as usize)?;
    let done = foreign::read(&image, start, &mut bytes).is_ok();
    Ok(if done { bytes } else { Vec::new() })
}

pub fn cmdline(subject: &Subject) -> Result<Vec<u8>> {
    let Some(image) = subject.image()? else { return Ok(Vec::new()) };
    peek(subject, image.layout().args)
}

pub fn environ(subject: &Subject) -> Result<Vec<u8>> {
    let Some(image) = subject.image()? else { return Ok(Vec::new()) };
    peek(subject, image.layout().env)
}

pub fn auxv(subject: &Subject) -> Result<Vec<u8>> {
    let Some(image) = subject.image()? else { return Ok(Vec::new()) };
    Ok(image.layout().auxv.iter().flat_map(|word| word.to_ne_bytes()).collect())
}

/// `comm`: may be written by the process itself.
pub fn comm(subject: &Subject) -> Entry {
    let (reader, writer) = (subject.clone(), subject.clone());
    let text = move || {
        let task = reader.task()?.ok_or(Errno::ESRCH)?;
        Ok(format!("{}\n", task_name(&task)).into_bytes())
    };
    let take = move |name: &[u8]| {
        let task = writer.task()?.ok_or(Errno::ESRCH)?;
        if super::caller()?.process.pid != task.process.pid {
            return Err(Errno::EINVAL);
        }
        let end = name.iter().position(|&byte| byte == b'\n' || byte == 0).unwrap_or(name.len());
        task.set_name(&name[..end]);
        Ok(())
    };
    owned(Entry::writable(text, take), subject)
}

/// What kinds of memory a core file of its would have, as a number that is written in hexadecimal.
pub fn dump_filter(subject: &Subject) -> Entry {
    let (reader, writer) = (subject.clone(), subject.clone());
    let text = move || {
        let chosen = reader.process()?.dump_filter.load(Relaxed);
        Ok(format!("{chosen:08x}\n").into_bytes())
    };
    let take = move |bytes: &[u8]| {
        let text = core::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?.trim_end_matches(['\0', '\n']);
        let number = match (text.strip_prefix("0x").or(text.strip_prefix("0X")), text.strip_prefix('0')) {
            (Some(digits), _) => u32::from_str_radix(digits, 16),
            (None, Some(digits)) if !digits.is_empty() => u32::from_str_radix(digits, 8),
            _ => text.parse(),
        };
        let chosen = number.map_err(|error| match error.kind() {
            IntErrorKind::PosOverflow => Errno::ERANGE,
            _ => Errno::EINVAL,
        })?;
        writer.process()?.dump_filter.store(chosen & filter::ALL, Relaxed);
        Ok(())
    };
    owned(Entry::writable(text, take), subject)
}

/// By how much timers may be late: its own for everybody, of others for who may change priorities.
pub fn timer_slack(subject: &Subject) -> Entry {
    let (reader, writer) = (subject.clone(), subject.clone());
    let of = |subject: &Subject| {
        let task = subject.task()?.ok_or(Errno::ESRCH)?;
        let me = super::caller()?;
        let may = Arc::ptr_eq(&me, &task) || me.cred().may(cap::SYS_NICE);
        if may { Ok(task) } else { Err(Errno::EPERM) }
    };
    let text = move || Ok(format!("{}\n", of(&reader)?.timer_slack.load(Relaxed)).into_bytes());
    let take = move |text: &[u8]| {
        let number = core::str::from_utf8(text).ok().and_then(|text| text.trim_end().parse().ok());
        let slack: u64 = number.ok_or(Errno::EINVAL)?;
        of(&writer)?.timer_slack.store(if slack == 0 { DEFAULT_SLACK } else { slack }, Relaxed);
        Ok(())
    };
    owned(Entry::writable(text, take), subject).mode(0o666)
}

/// The children that a thread has made: all of the process are told as its first's.
pub fn children(subject: &Subject) -> Result<Vec<u8>> {
    let (process, task) = (subject.process()?, subject.task()?.ok_or(Errno::ESRCH)?);
    let mut text = String::new();
    if task.tid() == process.pid {
        for child in table::each_process().filter(|child| child.parent() == process.pid) {
            let _ = write!(text, "{} ", child.pid);
        }
    }
    Ok(text.into_bytes())
}

/// `oom_score_adj`: -1000 (never) to 1000 (first). Who goes when memory runs out is the memory core's choice, and this
/// wish is kept and told, not yet followed.
pub fn oom_score_adj(subject: &Subject) -> Entry {
    adjustment(subject, -1000..=1000, |score| score, |wish| wish)
}

/// The same as programs of old knew it: -17 (never) to 15.
pub fn oom_adj(subject: &Subject) -> Entry {
    let told = |score: i32| if score == 1000 { 15 } else { score * 17 / 1000 };
    let meant = |wish: i32| if wish == 15 { 1000 } else { wish * 1000 / 17 };
    adjustment(subject, -17..=15, told, meant)
}

fn adjustment(
    subject: &Subject,
    range: RangeInclusive<i32>,
    told: fn(i32) -> i32,
    meant: fn(i32) -> i32,
) -> Entry {
    let (reader, writer) = (subject.clone(), subject.clone());
    let text = move || Ok(format!("{}\n", told(reader.process()?.oom_adjust.load(Relaxed))).into_bytes());
    let take = move |bytes: &[u8]| {
        let process = writer.process()?;
        let text = core::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
        let wish: i32 = text.trim().parse().map_err(|_| Errno::EINVAL)?;
        if !range.contains(&wish) {
            return Err(Errno::EINVAL);
        }
        let value = meant(wish);
        if value < process.oom_adjust.load(Relaxed) && !super::caller()?.cred().may(cap::SYS_RESOURCE) {
            return Err(Errno::EACCES);
        }
        process.oom_adjust.store(value, Relaxed);
        Ok(())
    };
    owned(Entry::writable(text, take), subject)
}

/// Its share of memory and swap in thousandths, times 4/3 as in Linux.
pub fn oom_score(subject: &Subject) -> Result<Vec<u8>> {
    let facts = Facts::of(subject)?;
    let stats = memory().stats();
    let held = facts.resident() + facts.memory.swapped + facts.memory.tables;
    let share = held * 1000 / (stats.total + stats.swap_total).max(1);
    let adjust = i64::from(facts.process.oom_adjust.load(Relaxed));
    let score = ((1000 + share as i64 + adjust) * 2 / 3).max(0);
    Ok(format!("{score}\n").into_bytes())
}

pub fn io(subject: &Subject) -> Result<Vec<u8>> {
    subject.process()?;
    let names = ["rchar", "wchar", "syscr", "syscw", "read_bytes", "write_bytes", "cancelled_write_bytes"];
    Ok(names.iter().flat_map(|name| format!("{name}: 0\n").into_bytes()).collect())
}

/// The timers of `timer_create`, the last one first.
pub fn timers(subject: &Subject) -> Result<Vec<u8>> {
    let process = subject.process()?;
    let mut text = String::new();
    let mut last = None;
    while let Some((number, timer)) = process.timers.below(last) {
        last = Some(number);
        let shown = timer.shown;
        let how = match shown.how & !abi::SIGEV_THREAD_ID {
            abi::SIGEV_NONE => "none",
            abi::SIGEV_THREAD => "thread",
            _ => "signal",
        };
        let (whom, id) = match shown.thread {
            Some(tid) => ("tid", tid),
            None => ("pid", process.pid),
        };
        // Clocks of CPU time as the kernel names them, for nobody in particular.
        let clock = match timer.clock as u32 {
            abi::CLOCK_PROCESS_CPUTIME_ID => -6,
            abi::CLOCK_THREAD_CPUTIME_ID => -2,
            _ => timer.clock,
        };
        text.try_reserve(128)?;
        let _ = writeln!(
            text,
            "ID: {number}\nsignal: {}/{:016x}\nnotify: {how}/{whom}.{id}\nClockID: {clock}",
            shown.signo, shown.value
        );
    }
    Ok(text.into_bytes())
}

pub fn personality(subject: &Subject) -> Result<Vec<u8>> {
    Ok(format!("{:08x}\n", subject.process()?.personality.load(Relaxed)).into_bytes())
}

/// Time on the CPU, time waited for it (not measured), and slices.
pub fn schedstat(subject: &Subject) -> Result<Vec<u8>> {
    let task = subject.task()?.ok_or(Errno::ESRCH)?;
    let Usage { voluntary, involuntary, .. } = task.usage();
    Ok(format!("{} 0 {}\n", timer::task_time(&task), voluntary + involuntary).into_bytes())
}
