//! The directory of a process, and of each of its threads.
//!
//! Both have nearly the same entries; those of a thread tell about the thread where that makes a difference (name, state,
//! times, signals), those of a process about its first thread, or about all.

use super::super::Image;
use super::super::process::Process;
use super::super::table;
use super::super::task::Task;
use super::map_files::MapFiles;
use super::{links, maps, mem, number, pagemap, status, system};
use crate::errno::{Errno, Result};
use crate::fs::inode::{Inode, Kind};
use crate::fs::synth::{Entry, SynthDir, directory};
use crate::mem::TryPush;
use crate::net::tables;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;

/// Whom a file is about.
#[derive(Clone)]
pub struct Subject {
    process: Weak<Process>,
    /// One thread of it.
    task: Option<Weak<Task>>,
}

impl Subject {
    /// ESRCH if it is gone, though somebody may hold it a moment longer.
    pub fn process(&self) -> Result<Arc<Process>> {
        self.process.upgrade().filter(table::holds).ok_or(Errno::ESRCH)
    }

    /// The thread; of a process the first one that lives. `None` for a zombie.
    pub fn task(&self) -> Result<Option<Arc<Task>>> {
        match &self.task {
            Some(task) => Ok(Some(task.upgrade().filter(table::holds_task).ok_or(Errno::ESRCH)?)),
            None => Ok(self.process()?.any_task()),
        }
    }

    /// Whether it is one thread.
    pub fn is_thread(&self) -> bool {
        self.task.is_some()
    }

    /// The loaded program. `None` for one that is ending.
    pub fn image(&self) -> Result<Option<Arc<Image>>> {
        Ok(self.task()?.and_then(|task| task.image()))
    }
}

/// The directory of a process; a thread's number leads to its process too, as on Linux.
pub fn process(pid: i32) -> Option<Entry> {
    let process = table::process_of(pid)?;
    let subject = Subject { process: Arc::downgrade(&process), task: None };
    Some(owned(Entry::dir(Arc::new(Directory(subject.clone()))), &subject))
}

/// As the process's user owns it.
pub fn owned(entry: Entry, subject: &Subject) -> Entry {
    match subject.task() {
        Ok(Some(task)) => {
            let cred = task.cred();
            entry.owner(cred.euid, cred.egid)
        }
        _ => entry,
    }
}

type Make = fn(&Subject) -> Result<Vec<u8>>;

/// Names, permission bits and texts.
const FILES: &[(&str, u32, Make)] = &[
    ("auxv", 0o400, status::auxv),
    ("cgroup", 0o444, |_| Ok(b"0::/\n".to_vec())),
    ("cmdline", 0o444, status::cmdline),
    ("environ", 0o400, status::environ),
    ("io", 0o400, status::io),
    ("limits", 0o444, status::limits),
    ("loginuid", 0o444, |_| Ok(b"4294967295".to_vec())),
    ("mountinfo", 0o444, |_| system::mountinfo()),
    ("mounts", 0o444, |_| system::mounts()),
    ("mountstats", 0o400, |_| system::mountstats()),
    ("oom_score", 0o444, status::oom_score),
    ("gid_map", 0o644, |_| Ok(ALL_IDS.to_vec())),
    ("uid_map", 0o644, |_| Ok(ALL_IDS.to_vec())),
    ("projid_map", 0o644, |_| Ok(ALL_IDS.to_vec())),
    ("setgroups", 0o644, |_| Ok(b"allow\n".to_vec())),
    ("sessionid", 0o444, |_| Ok(b"4294967295".to_vec())),
    ("personality", 0o400, status::personality),
    ("schedstat", 0o444, status::schedstat),
    ("smaps_rollup", 0o444, maps::rollup),
    ("stat", 0o444, status::stat),
    ("timers", 0o444, status::timers),
    ("statm", 0o444, status::statm),
    ("status", 0o444, status::status),
    ("wchan", 0o444, |_| Ok(b"0".to_vec())),
];

/// There is one user namespace: every number means itself.
const ALL_IDS: &[u8] = b"         0          0 4294967295\n";

const DIRECTORIES: [&str; 6] = ["fd", "fdinfo", "map_files", "net", "ns", "task"];
const LINKS: [&str; 3] = ["cwd", "exe", "root"];

struct Directory(Subject);

/// The process whose directory (`/proc/PID`, not one of its threads') `inode` is: ESRCH if it has gone.
pub fn process_of(inode: &dyn Inode) -> Option<Result<Arc<Process>>> {
    let Directory(subject) = directory(inode)?;
    (!subject.is_thread()).then(|| subject.process())
}

impl SynthDir for Directory {
    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }

    fn lookup(&self, name: &[u8]) -> Option<Entry> {
        let subject = self.0.clone();
        let entry = match name {
            b"task" if !subject.is_thread() => Entry::dir(Arc::new(Threads(subject.clone()))),
            b"map_files" if !subject.is_thread() => {
                Entry::dir(Arc::new(MapFiles(subject.clone()))).mode(0o500)
            }
            b"fd" => {
                Entry::dir(Arc::new(links::Descriptors { subject: subject.clone(), info: false })).mode(0o500)
            }
            b"fdinfo" => {
                Entry::dir(Arc::new(links::Descriptors { subject: subject.clone(), info: true })).mode(0o500)
            }
            b"cwd" | b"exe" | b"root" => links::link(&subject, name)?,
            b"comm" => status::comm(&subject),
            b"oom_score_adj" => status::oom_score_adj(&subject),
            b"mem" => mem::entry(&subject),
            b"pagemap" => pagemap::entry(&subject),
            b"clear_refs" => pagemap::clear_refs(&subject),
            b"oom_adj" => status::oom_adj(&subject),
            b"coredump_filter" => status::dump_filter(&subject),
            b"timerslack_ns" if !subject.is_thread() => status::timer_slack(&subject),
            b"children" if subject.is_thread() => {
                let about = subject.clone();
                Entry::file(move || status::children(&about))
            }
            b"ns" => Entry::dir(Arc::new(Namespaces)),
            b"net" => Entry::dir(Arc::new(Net)),
            _ if let Some((text, tell)) = maps::FILES.iter().find(|(known, _)| known.as_bytes() == name) => {
                maps::entry(&subject, text, *tell)
            }
            _ => {
                let known = name != b"timers" || !subject.is_thread();
                let (_, mode, make) =
                    *FILES.iter().filter(|_| known).find(|(known, ..)| known.as_bytes() == name)?;
                let about = subject.clone();
                Entry::file(move || make(&about)).mode(mode)
            }
        };
        Some(owned(entry, &subject))
    }

    fn list(&self, tell: &mut dyn FnMut(&[u8], Kind)) {
        for name in DIRECTORIES {
            if !matches!(name, "task" | "map_files") || !self.0.is_thread() {
                tell(name.as_bytes(), Kind::Dir);
            }
        }
        for name in LINKS {
            tell(name.as_bytes(), Kind::Link);
        }
        for (name, _) in maps::FILES {
            tell(name.as_bytes(), Kind::File);
        }
        for name in ["clear_refs", "comm", "coredump_filter", "mem", "oom_adj", "oom_score_adj", "pagemap"] {
            tell(name.as_bytes(), Kind::File);
        }
        for (name, ..) in FILES.iter().filter(|(name, ..)| *name != "timers" || !self.0.is_thread()) {
            tell(name.as_bytes(), Kind::File);
        }
        let own = if self.0.is_thread() { "children" } else { "timerslack_ns" };
        tell(own.as_bytes(), Kind::File);
    }
}

/// `/proc/PID/net`: there is one network, so it is the same for all.
struct Net;

impl SynthDir for Net {
    fn lookup(&self, name: &[u8]) -> Option<Entry> {
        Some(Entry::file(tables::find(name)?))
    }
    fn list(&self, tell: &mut dyn FnMut(&[u8], Kind)) {
        tables::names().for_each(|name| tell(name.as_bytes(), Kind::File));
    }
    fn is_dynamic(&self) -> bool {
        false
    }
}

/// `/proc/PID/ns`: there is one namespace of each kind, with Linux's own number for the first. They can be compared, not
/// opened.
struct Namespaces;

const NAMESPACES: [(&str, &str, u32); 10] = [
    ("cgroup", "cgroup", 4026531835),
    ("ipc", "ipc", 4026531839),
    ("mnt", "mnt", 4026531841),
    ("net", "net", 4026531840),
    ("pid", "pid", 4026531836),
    ("pid_for_children", "pid", 4026531836),
    ("time", "time", 4026531834),
    ("time_for_children", "time", 4026531834),
    ("user", "user", 4026531837),
    ("uts", "uts", 4026531838),
];

impl SynthDir for Namespaces {
    fn lookup(&self, name: &[u8]) -> Option<Entry> {
        let (_, kind, number) = *NAMESPACES.iter().find(|(known, ..)| known.as_bytes() == name)?;
        Some(Entry::link(move || Ok(format!("{kind}:[{number}]").into_bytes())))
    }
    fn list(&self, tell: &mut dyn FnMut(&[u8], Kind)) {
        for (name, ..) in NAMESPACES {
            tell(name.as_bytes(), Kind::Link);
        }
    }
}

/// `/proc/PID/task`.
struct Threads(Subject);

impl SynthDir for Threads {
    fn lookup(&self, name: &[u8]) -> Option<Entry> {
        let tid = number(name)?;
        let process = self.0.process().ok()?;
        let task = process.tasks().find(|task| task.tid() == tid)?;
        let subject = Subject { process: Arc::downgrade(&process), task: Some(Arc::downgrade(&task)) };
        Some(owned(Entry::dir(Arc::new(Directory(subject.clone()))), &subject))
    }
    fn list(&self, tell: &mut dyn FnMut(&[u8], Kind)) {
        let Ok(process) = self.0.process() else { return };
        let mut tids = Vec::new();
        // Without room for more the rest is not told.
        let _ = process.tasks().try_for_each(|task| tids.try_push(task.tid()));
        tids.sort_unstable();
        for tid in tids {
            tell(format!("{tid}").as_bytes(), Kind::Dir);
        }
    }
}

/// Printable text from the zero-padded name of a task.
pub fn task_name(task: &Task) -> String {
    let name = task.name();
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
}
