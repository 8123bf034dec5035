//! `/proc/PID/mem`: a process's memory as a file, whose offsets are its addresses.
//!
//! An open one stays with the memory that it was opened on, and has nothing more to tell when that has gone, because the
//! process ended or executed another program: who keeps it open does not keep the memory.

use super::pid::Subject;
use crate::errno::{Errno, Result};
use crate::fs::file::{FileOps, How};
use crate::fs::inode::Kind;
use crate::fs::iobuf::{Sink, Source};
use crate::fs::synth::Entry;
use crate::mem::memory;
use crate::process::Image;
use alloc::sync::{Arc, Weak};
use core::any::Any;
use hafez_mm::{PAGE_SIZE, PageRange, VirtAddr};

/// The file.
pub fn entry(subject: &Subject) -> Entry {
    let subject = subject.clone();
    Entry::device(Kind::File, 0o600, 0, move |_| {
        let image = subject.image()?;
        Ok(Arc::new(Memory(image.as_ref().map(Arc::downgrade))))
    })
}

/// Of a process that is ending, none.
struct Memory(Option<Weak<Image>>);

impl Memory {
    fn image(&self) -> Option<Arc<Image>> {
        self.0.as_ref()?.upgrade()
    }
}

impl FileOps for Memory {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, at: u64, to: &mut Sink<'_>, _: How) -> Result<()> {
        let Some(image) = self.image() else { return Ok(()) };
        let mut at = at;
        let mut bytes = [0; PAGE_SIZE / 4];
        while to.remaining() > 0 {
            // Within a page all is there or nothing.
            let n = to.remaining().min(bytes.len()).min(PAGE_SIZE - at as usize % PAGE_SIZE);
            memory().read_space(image.space(), VirtAddr(at), &mut bytes[..n]).map_err(|_| Errno::EIO)?;
            if to.put(&bytes[..n]) < n {
                return Ok(());
            }
            at += n as u64;
        }
        Ok(())
    }

    fn write(&self, at: u64, from: &mut Source<'_>, _: How) -> Result<()> {
        let Some(image) = self.image() else { return Ok(()) };
        let mut at = at;
        let mut bytes = [0; PAGE_SIZE / 4];
        while from.remaining() > 0 {
            let room = bytes.len().min(PAGE_SIZE - at as usize % PAGE_SIZE);
            let page = PageRange::sized(VirtAddr(at).page(), 1).ok_or(Errno::EIO)?;
            if !memory().is_mapped(image.space(), page) {
                return Err(Errno::EIO);
            }
            let n = from.take(&mut bytes[..room]);
            let written = memory().force_space(image.space(), VirtAddr(at), &bytes[..n]);
            if written.is_err() && from.done() == n {
                from.take_back();
            }
            written.map_err(|_| Errno::EIO)?;
            at += n as u64;
        }
        Ok(())
    }

    fn seekable(&self) -> bool {
        true
    }
}
