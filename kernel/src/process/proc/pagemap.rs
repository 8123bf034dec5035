//! Pages as words of 64 bits: `pagemap` of a process, `/proc/kpagecount` and `/proc/kpageflags` of all RAM, and `clear_refs`.
//!
//! An offset is a page's number times eight. Frames' numbers are for who may administer the machine: others could aim at
//! a neighbour's memory with them.

use super::super::Image;
use super::pid::{Subject, owned};
use super::scan;
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::fs::file::{FileOps, How};
use crate::fs::inode::Kind;
use crate::fs::iobuf::Sink;
use crate::fs::synth::Entry;
use crate::mem::memory;
use alloc::sync::{Arc, Weak};
use core::any::Any;
use hafez_mm::{FrameUse, PageAt, PageRange, Pfn, USER_END, Vpn};

/// Bytes of a word.
const WORD: u64 = 8;
/// Words that are made at once.
const ROUND: u64 = 64;

/// `pagemap`.
pub fn entry(subject: &Subject) -> Entry {
    let about = subject.clone();
    let open = move |_| -> Result<Arc<dyn FileOps>> {
        let numbers = super::caller()?.cred().may(cap::SYS_ADMIN);
        let image = about.image()?.as_ref().map(Arc::downgrade);
        Ok(Arc::new(Words {
            end: USER_END.0,
            of: Some(image.clone().unwrap_or_default()),
            make: move |first, words: &mut [u64]| {
                let image = image.as_ref().and_then(Weak::upgrade);
                image.map(|image| of_process(&image, first, numbers, words)).is_some()
            },
        }))
    };
    owned(Entry::device(Kind::File, 0o400, 0, open), subject)
}

/// `kpagecount` or `kpageflags`.
pub fn of_frames(name: &[u8]) -> Option<Entry> {
    let tell: fn(FrameUse) -> u64 = match name {
        b"kpagecount" => |frame| u64::from(frame.maps),
        b"kpageflags" => flags,
        _ => return None,
    };
    Some(Entry::device(Kind::File, 0o400, 0, move |_| {
        let make = move |first: u64, words: &mut [u64]| {
            for (n, word) in words.iter_mut().enumerate() {
                *word = memory().frame_use(Pfn(first as u32 + n as u32)).map_or(NO_PAGE, tell);
            }
            true
        };
        Ok(Arc::new(Words { end: memory().frame_end(), of: None, make }))
    }))
}

/// A file of words, made when they are read.
struct Words<F> {
    /// How many there are.
    end: u64,
    /// The program that they are about, which can be asked more.
    of: Option<Weak<Image>>,
    /// Makes those from a number on; false when there are none any more.
    make: F,
}

impl<F: Fn(u64, &mut [u64]) -> bool + Send + Sync + 'static> FileOps for Words<F> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, at: u64, to: &mut Sink<'_>, _: How) -> Result<()> {
        if !at.is_multiple_of(WORD) || !(to.remaining() as u64).is_multiple_of(WORD) {
            return Err(Errno::EINVAL);
        }
        let mut next = at / WORD;
        while next < self.end && to.remaining() > 0 {
            let count = (self.end - next).min(ROUND).min(to.remaining() as u64 / WORD);
            let mut words = [0; ROUND as usize];
            if !(self.make)(next, &mut words[..count as usize]) {
                break;
            }
            let bytes = words.map(u64::to_ne_bytes);
            let bytes = &bytes.as_flattened()[..(count * WORD) as usize];
            if to.put(bytes) < bytes.len() {
                break;
            }
            next += count;
        }
        Ok(())
    }

    fn ioctl(&self, request: u32, argument: u64) -> Result<usize> {
        match &self.of {
            Some(image) if request == scan::REQUEST => {
                scan::scan(&image.upgrade().ok_or(Errno::ESRCH)?, argument)
            }
            Some(_) => Err(Errno::EINVAL),
            None => Err(Errno::ENOTTY),
        }
    }

    fn seekable(&self) -> bool {
        true
    }

    fn size(&self) -> Result<u64> {
        Ok(0)
    }
}

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_FILE: u64 = 1 << 61;
const GUARDED: u64 = 1 << 57;
const EXCLUSIVE: u64 = 1 << 56;
/// Where a slot's number begins: below stands which swap area it is in, of which there is one.
const SLOT_SHIFT: u32 = 5;

fn of_process(image: &Image, first: u64, numbers: bool, words: &mut [u64]) {
    let range = PageRange::new(Vpn(first), Vpn(first + words.len() as u64));
    memory().page_map(image.space(), range, &mut |page, what| {
        words[page.since(range.start) as usize] = match what {
            PageAt::Frame { frame, file, exclusive, .. } => {
                let number = if numbers { u64::from(frame.0) } else { 0 };
                let of_file = if file { OF_FILE } else { 0 };
                PRESENT | number | of_file | if exclusive { EXCLUSIVE } else { 0 }
            }
            PageAt::Slot(slot) => SWAPPED | if numbers { u64::from(slot) << SLOT_SHIFT } else { 0 },
        };
    });
    memory().each_guarded(image.space(), range, &mut |page| {
        words[page.since(range.start) as usize] |= GUARDED;
    });
}

/// There is no RAM.
const NO_PAGE: u64 = 1 << 20;

/// A frame's use in the bits of `<linux/kernel-page-flags.h>`, as far as it is known here.
fn flags(frame: FrameUse) -> u64 {
    [
        (frame.referenced, 2),
        (frame.maps > 0, 3),
        (frame.dirty, 4),
        (frame.listed, 5),
        (frame.writing, 8),
        (frame.free, 10),
        (frame.maps > 0, 11),
        (frame.anonymous, 12),
        (frame.swap_cached, 13),
        (frame.swappable, 14),
        (frame.wired, 18),
        (frame.zeroes, 24),
        (frame.table, 26),
    ]
    .iter()
    .fold(0, |bits, &(has, bit)| bits | if has { 1 << bit } else { 0 })
}

/// `clear_refs`: which pages are to be as if they had not been accessed. Written pages are not told apart (4: EINVAL).
pub fn clear_refs(subject: &Subject) -> Entry {
    let about = subject.clone();
    let take = move |bytes: &[u8]| {
        let text = core::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
        let which = match text.trim().parse::<i32>() {
            Ok(1) => None,
            Ok(2) => Some(true),
            Ok(3) => Some(false),
            Ok(5) => {
                let task = about.task()?.ok_or(Errno::ESRCH)?;
                let image = task.image().ok_or(Errno::ESRCH)?;
                memory().reset_peak(image.account());
                return Ok(());
            }
            _ => return Err(Errno::EINVAL),
        };
        let image = about.image()?.ok_or(Errno::ESRCH)?;
        let mut next = Vpn(0);
        loop {
            let mut range = None;
            image.space().regions_from(next, &mut |region| {
                range = Some(region.range);
                false
            });
            let Some(range) = range else { return Ok(()) };
            next = range.end;
            memory().clear_accessed(image.space(), range, which);
        }
    };
    owned(Entry::writable(|| Err(Errno::EINVAL), take).mode(0o200), subject)
}
