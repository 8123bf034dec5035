//! Links from a process to files: `exe`, `cwd`, `root`, and `fd/N`; and what `fdinfo/N` says.
//!
//! These are *magic* links: their text is a path for people to read, but following one leads to the very file, even
//! if that has no name any more.

use super::number;
use super::pid::{Subject, owned};
use crate::errno::{Errno, Result};
use crate::fs::file::File;
use crate::fs::inode::Kind;
use crate::fs::synth::{Entry, SynthDir};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

/// `exe`, `cwd` or `root`.
pub fn link(subject: &Subject, name: &[u8]) -> Option<Entry> {
    let subject = subject.clone();
    Some(match name {
        b"exe" => Entry::magic(move || {
            let image = subject.image()?.ok_or(Errno::ENOENT)?;
            image.layout().place.clone().ok_or(Errno::ENOENT)
        }),
        b"cwd" => Entry::magic(move || Ok(subject.task()?.ok_or(Errno::ENOENT)?.fs().cwd())),
        b"root" => Entry::magic(move || Ok(subject.task()?.ok_or(Errno::ENOENT)?.fs().root())),
        _ => return None,
    })
}

/// `fd` or `fdinfo`.
pub struct Descriptors {
    pub subject: Subject,
    pub info: bool,
}

fn file(subject: &Subject, fd: u32) -> Result<Arc<File>> {
    let task = subject.task()?.ok_or(Errno::ENOENT)?;
    task.files().get_any(fd).map_err(|_| Errno::ENOENT)
}

impl SynthDir for Descriptors {
    fn lookup(&self, name: &[u8]) -> Option<Entry> {
        let fd = number(name)? as u32;
        let open = file(&self.subject, fd).ok()?;
        let subject = self.subject.clone();
        let entry = if self.info {
            Entry::file(move || Ok(info(&*file(&subject, fd)?)))
        } else {
            let mode = open.mode();
            let bits = 0o100 | if mode.read { 0o400 } else { 0 } | if mode.write { 0o200 } else { 0 };
            Entry::magic(move || Ok(file(&subject, fd)?.place().clone())).mode(bits)
        };
        Some(owned(entry, &self.subject))
    }

    fn list(&self, tell: &mut dyn FnMut(&[u8], Kind)) {
        let Ok(Some(task)) = self.subject.task() else { return };
        let kind = if self.info { Kind::File } else { Kind::Link };
        for fd in task.files().list() {
            tell(format!("{fd}").as_bytes(), kind);
        }
    }
}

fn info(file: &File) -> Vec<u8> {
    let ino = file.inode().id().ino;
    let flags = file.flags() | abi::O_LARGEFILE;
    format!(
        "pos:\t{}\nflags:\t0{flags:o}\nmnt_id:\t{}\nino:\t{ino}\n{}",
        file.offset(),
        file.place().mount.id(),
        file.ops().told()
    )
    .into_bytes()
}
