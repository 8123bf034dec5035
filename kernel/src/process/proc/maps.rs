//! A process's regions: `maps`, `smaps`, `smaps_rollup`.
//!
//! `smaps` walks the entries, without holding the regions meanwhile: a region that goes in between has no pages.

use super::super::Image;
use super::kib;
use super::pid::Subject;
use crate::errno::{Errno, Result};
use crate::mem::{self, memory};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use hafez_mm::{Label, PageRange, RegionInfo, RegionStat, Rights, VirtAddr};

/// The column where paths begin.
const PATH_COLUMN: usize = 73;

/// One line of `maps` without its end: range, rights, offset, device, inode, path.
fn line(image: &Image, region: &RegionInfo) -> Vec<u8> {
    let has = |right, letter| if region.rights.contains(right) { letter } else { '-' };
    let (dev, ino, path) = match region.label.as_deref() {
        Some(Label { path, dev, ino }) => (*dev, *ino, &path[..]),
        None if is_heap(image, region) => (0, 0, &b"[heap]"[..]),
        None => (0, 0, &b""[..]),
    };
    let offset = if ino == 0 { 0 } else { region.offset };
    let mut text = String::new();
    let _ = write!(
        text,
        "{:08x}-{:08x} {}{}{}{} {offset:08x} {:02x}:{:02x} {ino} ",
        region.range.start.addr().0,
        region.range.end.addr().0,
        has(Rights::READ, 'r'),
        has(Rights::WRITE, 'w'),
        has(Rights::EXEC, 'x'),
        if region.shared { 's' } else { 'p' },
        dev >> 8 & 0xfff,
        dev & 0xff | dev >> 12 & 0xfff00,
    );
    let mut line = text.into_bytes();
    if !path.is_empty() {
        line.resize(line.len().max(PATH_COLUMN), b' ');
        line.extend_from_slice(&super::escaped(path, b"\n"));
    }
    line
}

fn is_heap(image: &Image, region: &RegionInfo) -> bool {
    let (start, end) = image.space().heap();
    start != end && region.range.start.addr().0 < end.0 && region.range.end.addr().0 > start.0
}

/// More than what is told of a region takes, but for `smaps`, and that is less than two.
const STEP: usize = 1024;

/// All regions, in order; none of a process that is ending.
fn regions(subject: &Subject, each: &mut dyn FnMut(&Image, &RegionInfo)) -> Result<()> {
    if let Some(image) = subject.image()? {
        image.space().for_each_region(&mut |region| each(&image, region));
    }
    Ok(())
}

pub fn maps(subject: &Subject) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut room = true;
    regions(subject, &mut |image, region| {
        room &= mem::headroom(STEP);
        if room {
            let line = line(image, region);
            room = text.try_reserve(line.len() + 1).is_ok();
            if room {
                text.extend_from_slice(&line);
                text.push(b'\n');
            }
        }
    })?;
    if room { Ok(text) } else { Err(Errno::ENOMEM) }
}

/// What is known of a region's pages.
#[derive(Default)]
struct Pages {
    size: u64,
    locked: u64,
    /// Resident pages by what backs them.
    file: u64,
    shmem: u64,
    stat: RegionStat,
}

impl Pages {
    fn of(image: &Image, region: &Found) -> Pages {
        let stat = memory().region_stat(image.space(), region.range);
        let other = stat.resident - stat.anonymous;
        let locked = if region.wired { stat.resident } else { 0 };
        let (file, shmem) = if region.file { (other, 0) } else { (0, other) };
        Pages { size: region.range.len(), locked, file, shmem, stat }
    }

    fn add(&mut self, other: &Pages) {
        self.size += other.size;
        self.locked += other.locked;
        self.file += other.file;
        self.shmem += other.shmem;
        let (sum, stat) = (&mut self.stat, &other.stat);
        sum.resident += stat.resident;
        sum.swapped += stat.swapped;
        sum.shared += stat.shared;
        sum.dirty += stat.dirty;
        sum.accessed += stat.accessed;
        sum.anonymous += stat.anonymous;
        sum.huge += stat.huge;
        sum.proportional += stat.proportional;
    }

    /// The lines from `Rss` to `Locked`; in a roll-up with three more.
    fn tell(&self, rollup: bool) -> String {
        let mut text = String::new();
        let stat = &self.stat;
        let mut tell = |name: &str, size: u64| {
            let _ = writeln!(text, "{:<15} {size:>8} kB", format!("{name}:"));
        };
        let private = stat.resident - stat.shared;
        let private_dirty = stat.dirty.min(private);
        let shared_dirty = stat.dirty - private_dirty;
        let proportional = stat.proportional / 1024;
        tell("Rss", kib(stat.resident));
        tell("Pss", proportional);
        tell("Pss_Dirty", kib(private_dirty));
        if rollup {
            let anonymous = kib(stat.anonymous).min(proportional);
            let shmem = kib(self.shmem).min(proportional - anonymous);
            tell("Pss_Anon", anonymous);
            tell("Pss_File", proportional - anonymous - shmem);
            tell("Pss_Shmem", shmem);
        }
        tell("Shared_Clean", kib(stat.shared.saturating_sub(shared_dirty)));
        tell("Shared_Dirty", kib(shared_dirty));
        tell("Private_Clean", kib(private - private_dirty));
        tell("Private_Dirty", kib(private_dirty));
        tell("Referenced", kib(stat.accessed));
        tell("Anonymous", kib(stat.anonymous));
        tell("KSM", 0);
        tell("LazyFree", 0);
        tell("AnonHugePages", kib(stat.huge));
        for name in ["ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb", "Private_Hugetlb"] {
            tell(name, 0);
        }
        tell("Swap", kib(stat.swapped));
        tell("SwapPss", kib(stat.swapped));
        tell("Locked", kib(self.locked));
        text
    }
}

/// What is kept of a region while its pages are counted, with no lock on the regions held: counting may take long.
struct Found {
    line: Vec<u8>,
    flags: String,
    range: PageRange,
    wired: bool,
    file: bool,
    /// It may have huge pages because it asked for them.
    huge: bool,
}

fn collect(subject: &Subject) -> Result<Option<(Arc<Image>, Vec<Found>)>> {
    let Some(image) = subject.image()? else { return Ok(None) };
    let mut found = Vec::new();
    let mut room = true;
    image.space().for_each_region(&mut |region| {
        room &= mem::headroom(STEP) && found.try_reserve(1).is_ok();
        if room {
            found.push(Found {
                line: line(&image, region),
                flags: flags(region),
                range: region.range,
                wired: region.wired,
                file: is_file(region),
                huge: region.huge == Some(true) && region.object.is_none() && !region.shared,
            });
        }
    });
    if room { Ok(Some((image, found))) } else { Err(Errno::ENOMEM) }
}

pub fn smaps(subject: &Subject) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let Some((image, all)) = collect(subject)? else { return Ok(text) };
    for region in &all {
        if !mem::headroom(STEP) {
            return Err(Errno::ENOMEM);
        }
        text.try_reserve(2 * STEP)?;
        let pages = Pages::of(&image, region);
        let (size, fixed) = (kib(pages.size), "KernelPageSize:        4 kB\nMMUPageSize:           4 kB\n");
        text.extend_from_slice(&region.line);
        text.extend_from_slice(format!("\nSize:           {size:>8} kB\n{fixed}").as_bytes());
        text.extend_from_slice(pages.tell(false).as_bytes());
        text.extend_from_slice(
            format!("THPeligible:           {}\nVmFlags: {}\n", region.huge as u8, region.flags).as_bytes(),
        );
    }
    Ok(text)
}

fn flags(region: &RegionInfo) -> String {
    let mut flags = String::new();
    for (has, name) in [
        (region.rights.contains(Rights::READ), "rd "),
        (region.rights.contains(Rights::WRITE), "wr "),
        (region.rights.contains(Rights::EXEC), "ex "),
        (region.shared, "sh "),
        (true, "mr mw me "),
        (region.shared, "ms "),
        (region.grows_down, "gd "),
        (region.wired, "lo "),
        (region.huge == Some(true), "hg "),
        (region.huge == Some(false), "nh "),
    ] {
        if has {
            flags.push_str(name);
        }
    }
    flags
}

pub fn rollup(subject: &Subject) -> Result<Vec<u8>> {
    let Some((image, all)) = collect(subject)? else { return Ok(Vec::new()) };
    let (Some(first), Some(last)) = (all.first(), all.last()) else { return Ok(Vec::new()) };
    let (start, end) = (first.range.start.addr().0, last.range.end.addr().0);
    let mut sum = Pages::default();
    for region in &all {
        sum.add(&Pages::of(&image, region));
    }
    let mut text = format!("{start:08x}-{end:08x} ---p 00000000 00:00 0 ").into_bytes();
    text.resize(text.len().max(PATH_COLUMN), b' ');
    text.extend_from_slice(b"[rollup]\n");
    text.extend_from_slice(sum.tell(true).as_bytes());
    Ok(text)
}

/// A file's, not memory that is shared without one.
fn is_file(region: &RegionInfo) -> bool {
    region.label.as_ref().is_some_and(|label| label.dev != 1 && label.ino != 0)
}

/// Pages of a space by use, for `status` and `statm`.
#[derive(Default)]
pub struct Shape {
    pub total: u64,
    pub data: u64,
    pub stack: u64,
    pub code: u64,
    pub library: u64,
    pub wired: u64,
    /// Resident pages of files, and of shared memory; the account knows the others.
    pub file_resident: u64,
    pub shared_resident: u64,
}

/// Sort the regions of an image by use, as Linux does for `VmData` and its kin.
pub fn shape(image: &Image) -> Shape {
    let mut shape = Shape::default();
    let code = image.layout().code;
    let mut backed = Vec::new();
    image.space().for_each_region(&mut |region| {
        let pages = region.range.len();
        shape.total += pages;
        shape.wired += if region.wired { pages } else { 0 };
        let writable = region.rights.contains(Rights::WRITE);
        if region.grows_down {
            shape.stack += pages;
        } else if writable && !region.shared {
            shape.data += pages;
        } else if region.rights.contains(Rights::EXEC) && !writable {
            let own = region.range.contains(VirtAddr(code.0).page());
            *(if own { &mut shape.code } else { &mut shape.library }) += pages;
        }
        if region.object.is_some() {
            // Where there is no room for all, the rest counts as not resident.
            let _ = backed.try_reserve(1).map(|()| backed.push((region.range, is_file(region))));
        }
    });
    for (range, file) in backed {
        let stat = memory().region_stat(image.space(), range);
        *(if file { &mut shape.file_resident } else { &mut shape.shared_resident }) +=
            stat.resident - stat.anonymous;
    }
    shape
}
