//! A process's regions: `maps`, `smaps`, `numa_maps`, and `smaps_rollup`, which sums them up.
//!
//! A process may have tens of thousands of regions, so none of these texts is ever there as a whole. An open file knows where
//! its reader is: how many bytes it has told, and from which address on the next region is to be told ([`Rows`]). Who
//! reads on gets each region as it is when its turn comes; who seeks back begins again. The regions are not held meanwhile: one
//! that goes before its turn is not told, and one that goes in its turn has no pages.

use super::super::Image;
use super::pid::Subject;
use super::smaps::{self, Pages};
use super::{kib, query};
use crate::errno::{Errno, Result};
use crate::fs::file::{FileOps, How};
use crate::fs::inode::Kind;
use crate::fs::iobuf::{Sink, Source};
use crate::fs::synth::Entry;
use crate::mem::memory;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::fmt::Write;
use hafez_mm::lock::Mutex;
use hafez_mm::{Label, PageRange, RegionFlags, RegionInfo, Rights, USER_END, VirtAddr, Vpn};

/// The column where paths begin.
const PATH_COLUMN: usize = 73;

/// Tells one region.
type Tell = fn(&Image, &RegionInfo, &mut Vec<u8>);

/// Names, and how each tells a region.
pub const FILES: &[(&str, Tell)] = &[("maps", maps), ("smaps", smaps::region), ("numa_maps", numa)];

/// The file of a process.
pub fn entry(subject: &Subject, name: &str, tell: Tell) -> Entry {
    let (subject, asked, whole) = (subject.clone(), name == "maps", name != "numa_maps");
    Entry::device(Kind::File, 0o444, 0, move |_| {
        let image = subject.image()?.as_ref().map(Arc::downgrade);
        let subject = subject.clone();
        Ok(Arc::new(Rows { subject, image, tell, asked, whole, at: Mutex::new(Position::START) }))
    })
}

/// An open file of regions. It stays with the memory that it was opened on, and tells nothing more when that has gone.
struct Rows {
    subject: Subject,
    /// None of a process that is ending.
    image: Option<Weak<Image>>,
    tell: Tell,
    /// It answers questions about single regions, too.
    asked: bool,
    /// It tells of what no memory stands behind, too.
    whole: bool,
    at: Mutex<Position>,
}

struct Position {
    /// What was told last, and where in the file it begins.
    text: Vec<u8>,
    begin: u64,
    /// The region in or after this page is the next.
    next: Vpn,
}

impl Position {
    const START: Position = Position { text: Vec::new(), begin: 0, next: Vpn(0) };

    fn end(&self) -> u64 {
        self.begin + self.text.len() as u64
    }
}

impl Rows {
    /// Put the next region's text in place of the last one's; false behind the last region.
    fn advance(&self, image: &Image, at: &mut Position) -> Result<bool> {
        let mut found = None;
        if at.next < USER_END {
            image.space().regions_from(at.next, &mut |region| {
                found = Some(region.clone());
                false
            });
        }
        // Behind all others, but where nothing but pages is told of.
        let last = || (self.whole && at.next < VSYSCALL.end).then(vsyscall);
        let Some(region) = found.or_else(last) else { return Ok(false) };
        at.begin = at.end();
        at.next = region.range.end;
        at.text.clear();
        let path = region.label.as_ref().map_or(0, |label| label.path.len());
        at.text.try_reserve(smaps::MOST + 4 * path)?;
        (self.tell)(image, &region, &mut at.text);
        Ok(true)
    }
}

/// The page above all of the program's where a few calls once were code: it can be called, and is in nobody's tables.
const VSYSCALL: PageRange = PageRange::new(Vpn(0xf_ffff_ffff_f600), Vpn(0xf_ffff_ffff_f601));

fn vsyscall() -> RegionInfo {
    RegionInfo {
        range: VSYSCALL,
        rights: Rights::EXEC,
        shared: false,
        max_rights: Rights::empty(),
        object: None,
        offset: 0,
        label: Some(Arc::new(Label { path: (*b"[vsyscall]").into(), dev: 0, ino: 0 })),
        grows_down: false,
        wired: false,
        flags: RegionFlags::empty(),
        nodes: 0,
        huge: None,
        noted: false,
    }
}

impl FileOps for Rows {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, from: u64, to: &mut Sink<'_>, _: How) -> Result<()> {
        self.subject.task()?;
        let Some(image) = self.image.as_ref().and_then(Weak::upgrade) else { return Ok(()) };
        // Bytes go to the reader without the lock: that may wait.
        let mut at = core::mem::replace(&mut *self.at.lock(), Position::START);
        if from < at.begin || from == 0 {
            at = Position::START;
        }
        let mut here = from;
        while to.remaining() > 0 {
            if here < at.end() {
                let piece = &at.text[(here - at.begin) as usize..];
                let len = piece.len();
                let put = to.put(piece);
                here += put as u64;
                if put < len {
                    break;
                }
            } else if !self.advance(&image, &mut at)? {
                break;
            }
        }
        *self.at.lock() = at;
        Ok(())
    }

    fn write(&self, _: u64, _: &mut Source<'_>, _: How) -> Result<()> {
        Err(Errno::EINVAL)
    }

    fn ioctl(&self, request: u32, argument: u64) -> Result<usize> {
        if !self.asked || request != query::REQUEST {
            return Err(Errno::ENOTTY);
        }
        query::answer(self.image.as_ref().and_then(Weak::upgrade).as_ref(), argument)
    }

    fn seekable(&self) -> bool {
        true
    }

    fn size(&self) -> Result<u64> {
        Ok(0)
    }
}

/// One line of `maps`: range, rights, offset, device, inode, path.
pub fn maps(image: &Image, region: &RegionInfo, text: &mut Vec<u8>) {
    let has = |right, letter| if region.rights.contains(right) { letter } else { '-' };
    let (dev, ino, path) = shown(image, region);
    let offset = if ino == 0 { 0 } else { region.offset };
    let mut line = String::new();
    let _ = write!(
        line,
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
    let begin = text.len();
    text.extend_from_slice(line.as_bytes());
    if !path.is_empty() {
        text.resize(text.len().max(begin + PATH_COLUMN), b' ');
        text.extend_from_slice(&super::escaped(path, b"\n"));
    }
    text.push(b'\n');
}

/// Device, inode and path that a region is shown with.
pub fn shown<'a>(image: &Image, region: &'a RegionInfo) -> (u64, u64, &'a [u8]) {
    match region.label.as_deref() {
        Some(Label { path, dev, ino }) => (*dev, *ino, path),
        None if is_heap(image, region) => (0, 0, b"[heap]"),
        None => (0, 0, b""),
    }
}

fn is_heap(image: &Image, region: &RegionInfo) -> bool {
    let (start, end) = image.space().heap();
    start != end && region.range.start.addr().0 < end.0 && region.range.end.addr().0 > start.0
}

/// What is said of memory nodes, by number (`numa(7)`).
const POLICIES: [&str; 8] = [
    "default",
    "prefer:0",
    "bind:0",
    "interleave:0",
    "local",
    "prefer (many):0",
    "weighted interleave:0",
    "",
];

/// One line of `numa_maps`: all pages are on the one node.
fn numa(image: &Image, region: &RegionInfo, text: &mut Vec<u8>) {
    let stat = memory().region_stat(image.space(), region.range);
    let policy = POLICIES[(region.nodes & 7) as usize];
    let mut line = format!("{:08x} {policy}", region.range.start.addr().0);
    match region.label.as_deref() {
        Some(label) if label.is_of_file() => {
            let path = super::escaped(&label.path, b"\n\t= ");
            let _ = write!(line, " file={}", String::from_utf8_lossy(&path));
        }
        Some(label) if &*label.path == b"[stack]" => line.push_str(" stack"),
        None if is_heap(image, region) => line.push_str(" heap"),
        _ => {}
    }
    let _ = match (stat.anonymous, stat.dirty) {
        (0, 0) => Ok(()),
        (0, dirty) => write!(line, " dirty={dirty}"),
        (anonymous, dirty) => write!(line, " anon={anonymous} dirty={dirty}"),
    };
    if stat.resident > stat.anonymous {
        let _ = write!(line, " mapped={}", stat.resident);
    }
    if stat.resident > 0 {
        let _ = write!(line, " N0={} kernelpagesize_kB=4", stat.resident);
    }
    text.extend_from_slice(line.as_bytes());
    text.push(b'\n');
}

/// `smaps_rollup`: one region that stands for all.
pub fn rollup(subject: &Subject) -> Result<Vec<u8>> {
    let Some(image) = subject.image()? else { return Ok(Vec::new()) };
    let (mut sum, mut next, mut start) = (Pages::default(), Vpn(0), None);
    loop {
        let mut found = None;
        image.space().regions_from(next, &mut |region| {
            found = Some(region.clone());
            false
        });
        let Some(region) = found else { break };
        start = start.or(Some(region.range.start));
        next = region.range.end;
        sum.add(&Pages::of(&image, &region));
    }
    let Some(start) = start else { return Ok(Vec::new()) };
    let mut text =
        format!("{:08x}-{:08x} ---p 00000000 00:00 0 ", start.addr().0, next.addr().0).into_bytes();
    text.resize(text.len().max(PATH_COLUMN), b' ');
    text.extend_from_slice(b"[rollup]\n");
    text.extend_from_slice(sum.tell(true).as_bytes());
    Ok(text)
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
            let _ = backed.try_reserve(1).map(|()| backed.push((region.range, smaps::is_file(region))));
        }
    });
    for (range, file) in backed {
        let stat = memory().region_stat(image.space(), range);
        *(if file { &mut shape.file_resident } else { &mut shape.shared_resident }) +=
            stat.resident - stat.anonymous;
    }
    shape
}

/// The text of `KernelPageSize` and its like.
pub fn size_lines(pages: u64) -> String {
    format!(
        "Size:           {:>8} kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 kB\n",
        kib(pages)
    )
}
