//! `/proc`: what the kernel tells about processes and about itself, as text (`proc(5)`).
//!
//! | file | entries |
//! |---|---|
//! | `pid` | the directories of processes and threads, and which entries they have |
//! | `links` | `exe`, `cwd`, `root`, `fd/`, `fdinfo/` |
//! | `status` | `status`, `stat`, `statm`, `limits`, `cmdline`, … |
//! | `mem`, `map_files` | `mem`, `map_files/` |
//! | `maps`, `smaps` | `maps`, `smaps`, `smaps_rollup`, `numa_maps` |
//! | `pagemap` | `pagemap`, `clear_refs`, `/proc/kpagecount`, `/proc/kpageflags` |
//! | `query`, `scan` | requests to open files of `maps` (`PROCMAP_QUERY`) and `pagemap` (`PAGEMAP_SCAN`) |
//! | `zones` | `buddyinfo`, `pagetypeinfo`, `zoneinfo`, `slabinfo` |
//! | `config` | `config.gz` |
//! | `system` | `meminfo`, `vmstat`, `stat`, `cpuinfo`, `mounts`, … |
//! | `tables` | `locks`, `sysvipc/{msg,sem}` |
//! | `sys` | `/proc/sys` |
//!
//! Programs parse these texts by column and by spelling, so each is as Linux prints it, spaces included. A line whose
//! value is not known is left out where readers look lines up by name; where they count columns, it is 0.
//!
//! Nothing is kept: a text is made from the live structures when it is read. A process that is gone by then answers
//! ESRCH.
#![forbid(unsafe_code)]

mod config;
mod links;
mod map_files;
mod maps;
mod mem;
mod pagemap;
mod pid;
mod query;
mod scan;
mod smaps;
mod status;
mod sys;
mod system;
mod tables;
mod zones;

pub use pid::process_of;

use super::{table, task::current_task};
use crate::errno::{Errno, Result};
use crate::fs::inode::Kind;
use crate::fs::synth::{Entry, SynthDir};
use crate::mem as memory;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as abi;

/// The root of a new `/proc`.
pub fn root() -> Arc<dyn crate::fs::Inode> {
    Entry::dir(Arc::new(Root { sys: sys::directory() })).into_root(abi::PROC_SUPER_MAGIC)
}

struct Root {
    sys: Arc<dyn SynthDir>,
}

/// The text of a file, in whole lines.
pub(super) type Text = fn() -> String;

impl SynthDir for Root {
    fn lookup(&self, name: &[u8]) -> Option<Entry> {
        match name {
            b"self" => Some(Entry::link(|| Ok(format!("{}", caller()?.process.pid).into_bytes()))),
            b"thread-self" => Some(Entry::link(|| {
                let task = caller()?;
                Ok(format!("{}/task/{}", task.process.pid, task.tid()).into_bytes())
            })),
            b"mounts" => Some(Entry::link(|| Ok(b"self/mounts".to_vec()))),
            b"net" => Some(Entry::link(|| Ok(b"self/net".to_vec()))),
            b"sys" => Some(Entry::dir(self.sys.clone())),
            b"audit" if memory::AUDITED.load(Relaxed) => {
                Some(Entry::file(|| Ok(system::audit().into_bytes())))
            }
            b"sysvipc" => Some(Entry::dir(Arc::new(Texts(system::SYSV)))),
            b"pressure" => Some(Entry::dir(Arc::new(Texts(system::PRESSURE)))),
            b"config.gz" => Some(Entry::file(|| Ok(config::packed()))),
            b"kpagecount" | b"kpageflags" => pagemap::of_frames(name),
            _ => match number(name) {
                Some(pid) => pid::process(pid),
                None => match Texts(system::SECRET).lookup(name) {
                    Some(secret) => Some(secret.mode(0o400)),
                    None => Texts(system::FILES).lookup(name),
                },
            },
        }
    }

    fn list(&self, tell: &mut dyn FnMut(&[u8], Kind)) {
        for name in ["self", "thread-self", "mounts", "net"] {
            tell(name.as_bytes(), Kind::Link);
        }
        for name in ["config.gz", "kpagecount", "kpageflags"] {
            tell(name.as_bytes(), Kind::File);
        }
        for name in ["sys", "sysvipc", "pressure"] {
            tell(name.as_bytes(), Kind::Dir);
        }
        Texts(system::FILES).list(tell);
        Texts(system::SECRET).list(tell);
        for process in table::each_process() {
            tell(format!("{}", process.pid).as_bytes(), Kind::Dir);
        }
    }
}

/// A directory of files with a text each.
pub(super) struct Texts(pub &'static [(&'static str, Text)]);

impl SynthDir for Texts {
    fn lookup(&self, name: &[u8]) -> Option<Entry> {
        let (_, text) = *self.0.iter().find(|(known, _)| known.as_bytes() == name)?;
        Some(Entry::file(move || Ok(text().into_bytes())))
    }
    fn list(&self, tell: &mut dyn FnMut(&[u8], Kind)) {
        for (name, _) in self.0 {
            tell(name.as_bytes(), Kind::File);
        }
    }
    fn is_dynamic(&self) -> bool {
        false
    }
}

/// Who looks.
fn caller() -> Result<Arc<super::Task>> {
    current_task().ok_or(Errno::ENOENT)
}

/// A number as a name is written: no sign, no leading zero.
fn number(name: &[u8]) -> Option<i32> {
    let first = *name.first()?;
    if first == b'0' && name.len() > 1 || !name.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(name).ok()?.parse().ok()
}

/// Kibibytes of so many pages.
fn kib(pages: u64) -> u64 {
    pages * 4
}

/// `text` with those of its bytes that would break a line or a column, and the backslash, as octal escapes.
fn escaped(text: &[u8], special: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for &byte in text {
        if special.contains(&byte) {
            out.extend_from_slice(format!("\\{byte:03o}").as_bytes());
        } else {
            out.push(byte);
        }
    }
    out
}
