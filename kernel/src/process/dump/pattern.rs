//! What a core file is called: `/proc/sys/kernel/core_pattern` and `core_uses_pid`.
//!
//! The pattern is a path, relative to the directory that the process was in. A `%` and a letter stand for something about the process; a
//! slash in what they stand for becomes a `!`. A program behind a `|`, which would be given the file on its
//! standard input, is not taken: EINVAL when the pattern is set.

use super::super::host;
use super::super::run::Caller;
use super::super::signal::SigInfo;
use crate::clock;
use crate::errno::{Errno, Result};
use alloc::format;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use hafez_mm::lock::Mutex;

/// Bytes that a pattern, and what is made of it, can have.
pub const LONGEST: usize = 127;

/// `kernel.core_uses_pid`: a name without the number gets it at its end.
pub static USES_PID: AtomicU64 = AtomicU64::new(0);
/// `fs.suid_dumpable`: how far a process may be looked at that has changed who it is.
pub static SUID: AtomicU64 = AtomicU64::new(0);
static PATTERN: Mutex<([u8; LONGEST], usize)> = Mutex::new(([0; LONGEST], usize::MAX));
const FIRST: &[u8] = b"core";

/// The pattern.
pub fn get() -> Vec<u8> {
    let (bytes, len) = *PATTERN.lock();
    bytes.get(..len).unwrap_or(FIRST).to_vec()
}

/// Another pattern; what is too long of it is cut.
pub fn set(pattern: &[u8]) -> Result<()> {
    if pattern.first() == Some(&b'|') {
        return Err(Errno::EINVAL);
    }
    let len = pattern.len().min(LONGEST);
    let mut place = PATTERN.lock();
    place.0[..len].copy_from_slice(&pattern[..len]);
    place.1 = len;
    Ok(())
}

/// The path for this one.
pub(super) fn path(caller: &Caller, info: &SigInfo, limit: u64, how: u32) -> Result<Vec<u8>> {
    let pattern = get();
    let (task, process) = (&caller.task, &caller.task.process);
    let cred = task.cred();
    let mut path = Vec::new();
    let mut has_pid = false;
    let mut letters = pattern.iter().copied();
    while let Some(letter) = letters.next() {
        if letter != b'%' {
            path.push(letter);
            continue;
        }
        match letters.next() {
            None => break,
            Some(b'%') => path.push(b'%'),
            Some(b'p' | b'P') => {
                has_pid = true;
                put(&mut path, process.pid);
            }
            Some(b'i' | b'I') => put(&mut path, task.tid()),
            Some(b'u') => put(&mut path, cred.uid),
            Some(b'g') => put(&mut path, cred.gid),
            Some(b'd') => put(&mut path, how),
            Some(b's') => put(&mut path, info.signo),
            Some(b't') => put(&mut path, clock::realtime() / clock::SECOND),
            Some(b'c') => put(&mut path, limit),
            Some(b'C') => put(&mut path, crate::sched::current().cpu()),
            Some(b'h') => escaped(&mut path, &host::name()),
            Some(b'e') => {
                let name = task.name();
                escaped(&mut path, name.split(|&byte| byte == 0).next().unwrap_or_default());
            }
            Some(b'f') => {
                let whole = executable(caller);
                escaped(&mut path, whole.rsplit(|&byte| byte == b'/').next().unwrap_or_default());
            }
            Some(b'E') => escaped(&mut path, &executable(caller)),
            Some(_) => {}
        }
    }
    if USES_PID.load(Relaxed) != 0 && !has_pid {
        path.push(b'.');
        put(&mut path, process.pid);
    }
    if path.is_empty() { Err(Errno::ENOENT) } else { Ok(path) }
}

fn executable(caller: &Caller) -> Vec<u8> {
    caller.image.layout().place.as_ref().map(|place| place.display()).unwrap_or_default()
}

fn put(path: &mut Vec<u8>, value: impl core::fmt::Display) {
    path.extend_from_slice(format!("{value}").as_bytes());
}

/// One name: no slashes, and neither nothing nor a directory.
fn escaped(path: &mut Vec<u8>, text: &[u8]) {
    let from = path.len();
    path.extend(text.iter().map(|&byte| if byte == b'/' { b'!' } else { byte }));
    match &path[from..] {
        b"" => path.push(b'!'),
        b"." | b".." => path[from] = b'!',
        _ => {}
    }
}
