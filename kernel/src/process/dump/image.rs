//! The core file itself: an ELF file whose segments are the regions of memory.
//!
//! ```text
//!   ELF header │ program headers: one for the notes, one for each region │ notes │ (to a page) │ memory │ (one section header)
//! ```
//!
//! Which regions are there in full, which begin only, and which are told of but empty, is what `coredump_filter` and `madvise(MADV_DONTDUMP)` say.
//! A page that has nothing but zeroes, or was never there, is a hole in the file. Of ELF's numbers one is too small for all the regions that a
//! space can have: then their count stands in a section header, which is there for nothing else.

use super::super::run::Caller;
use super::filter;
use super::notes::Notes;
use crate::errno::{Errno, Result};
use crate::fs::iobuf::Source;
use crate::fs::{File, names};
use crate::mem::{TryPush, memory};
use crate::process::foreign;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hafez_mm::{PAGE_SIZE, PageRange, RegionFlags, RegionInfo, Rights, Vpn};

const PAGE: u64 = PAGE_SIZE as u64;
const EHDR: usize = 64;
const PHDR: usize = 56;
const SHDR: usize = 64;
const ET_CORE: u16 = 4;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// So many program headers, or more: look into the first section header.
const PN_XNUM: usize = 0xffff;
const ELF_MAGIC: &[u8] = b"\x7fELF";

/// Pages that are looked for at once, and tables' worth of them: where a gibibyte has nothing, that is seen at one look.
const LOOK: u64 = 64;
const LARGE: u64 = 1 << 18;

/// A region, and how many of its pages are in the file.
struct Segment {
    range: PageRange,
    rights: Rights,
    pages: u64,
}

/// The file, as far as it is written.
struct Out<'a> {
    caller: &'a Caller,
    file: &'a File,
    at: u64,
    /// Bytes that may still be written. Holes are none.
    left: u64,
}

impl Out<'_> {
    /// EFBIG past the limit; EINTR if the writer itself is to end.
    fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(Errno::EFBIG)?;
        while !bytes.is_empty() {
            if self.caller.task.is_ending() {
                return Err(Errno::EINTR);
            }
            let mut from = Source::kernel(bytes);
            let put = self.file.write_how(Some(self.at), &mut from, self.file.how(), false)?;
            if put == 0 {
                return Err(Errno::EIO);
            }
            self.at += put as u64;
            bytes = &bytes[put..];
        }
        Ok(())
    }
}

/// Write all of it.
pub(super) fn write(caller: &Caller, file: &File, notes: Notes, limit: u64) -> Result<()> {
    let segments = segments(caller)?;
    let headers = (EHDR + PHDR * (1 + segments.len())) as u64;
    let data = (headers + notes.bytes().len() as u64).next_multiple_of(PAGE);
    let end = segments.iter().fold(data, |at, segment| at + segment.pages * PAGE);
    let mut out = Out { caller, file, at: 0, left: limit };
    let many = 1 + segments.len() >= PN_XNUM;
    out.put(&header(1 + segments.len(), if many { end } else { 0 }))?;
    out.put(&program_header(PT_NOTE, 0, headers, [0, notes.bytes().len() as u64, 0], 0))?;
    let mut offset = data;
    for segment in &segments {
        let len = segment.pages * PAGE;
        let place = [segment.range.start.addr().0, len, segment.range.len() * PAGE];
        out.put(&program_header(PT_LOAD, flags(segment.rights), offset, place, PAGE))?;
        offset += len;
    }
    out.put(notes.bytes())?;
    out.at = data;
    for segment in &segments {
        let next = out.at + segment.pages * PAGE;
        pages(&mut out, segment)?;
        out.at = next;
    }
    if many {
        out.put(&section_header(1 + segments.len()))?;
    }
    if file.stat()?.size < out.at {
        names::truncate(file.inode(), out.at)?;
    }
    Ok(())
}

/// All regions, in order.
fn segments(caller: &Caller) -> Result<Vec<Segment>> {
    let mut segments = Vec::new();
    let mut next = Vpn(0);
    loop {
        let mut found = None;
        caller.space().regions_from(next, &mut |region| {
            found = Some(region.clone());
            false
        });
        let Some(region) = found else { return Ok(segments) };
        next = region.range.end;
        let pages = pages_of(caller, &region);
        segments.try_push(Segment { range: region.range, rights: region.rights, pages })?;
    }
}

/// How much of a region belongs in the file.
fn pages_of(caller: &Caller, region: &RegionInfo) -> u64 {
    let chosen = caller.task.process.dump_filter.load(Ordering::Relaxed);
    let wanted = |kind: u32| chosen & kind != 0;
    let all = region.range.len();
    let label = region.label.as_deref();
    // The kernel's own code in a program, which no file has.
    if label.is_some_and(|label| &*label.path == b"[vdso]") {
        return all;
    }
    if region.flags.contains(RegionFlags::DONT_DUMP) {
        return 0;
    }
    let of_file = label.is_some_and(|label| label.is_of_file());
    if region.shared {
        let named = of_file && label.is_some_and(|label| !label.path.ends_with(b" (deleted)"));
        let kind = if named { filter::FILE_SHARED } else { filter::ANONYMOUS_SHARED };
        return if wanted(kind) { all } else { 0 };
    }
    let stat = memory().region_stat(caller.space(), region.range);
    if wanted(filter::ANONYMOUS_PRIVATE) && stat.anonymous + stat.swapped + stat.zeroes > 0 {
        return all;
    }
    if !of_file {
        return 0;
    }
    if wanted(filter::FILE_PRIVATE) {
        return all;
    }
    let mut first = [0; ELF_MAGIC.len()];
    let begins = wanted(filter::ELF_HEADERS)
        && region.offset == 0
        && region.rights.contains(Rights::READ)
        && foreign::read(&caller.image, region.range.start.addr().0, &mut first).is_ok()
        && first == ELF_MAGIC;
    begins as u64
}

/// The pages of a segment that have something.
fn pages(out: &mut Out<'_>, segment: &Segment) -> Result<()> {
    let begin = out.at;
    let range = PageRange::new(segment.range.start, Vpn(segment.range.start.0 + segment.pages));
    let of_object = out.caller.space().region_at(range.start.addr()).is_some_and(|r| r.object.is_some());
    let mut page = [0; PAGE_SIZE];
    let mut next = range.start;
    while next < range.end {
        if !of_object && next.0.is_multiple_of(LARGE) {
            let large = PageRange::new(next, Vpn(next.0 + LARGE)).intersect(&range);
            let stat = memory().region_stat(out.caller.space(), large);
            if stat.anonymous + stat.swapped == 0 {
                next = large.end;
                continue;
            }
        }
        let some = PageRange::new(next, Vpn((next.0 / LOOK + 1) * LOOK)).intersect(&range);
        let mut there = if of_object { u64::MAX } else { 0 };
        memory().page_map(out.caller.space(), some, &mut |at, _| there |= 1 << at.since(next));
        for at in some.iter().filter(|at| there >> at.since(next) & 1 != 0) {
            if foreign::read(&out.caller.image, at.addr().0, &mut page).is_ok() && page != [0; PAGE_SIZE] {
                out.at = begin + at.since(range.start) * PAGE;
                out.put(&page)?;
            } else if out.caller.task.is_ending() {
                return Err(Errno::EINTR);
            }
        }
        next = some.end;
    }
    Ok(())
}

fn flags(rights: Rights) -> u32 {
    [(Rights::READ, 4), (Rights::WRITE, 2), (Rights::EXEC, 1)]
        .iter()
        .fold(0, |flags, &(right, bit)| flags | if rights.contains(right) { bit } else { 0 })
}

/// Fields one after the other.
struct Bytes<const N: usize>([u8; N], usize);

impl<const N: usize> Bytes<N> {
    fn put(mut self, bytes: &[u8]) -> Self {
        self.0[self.1..self.1 + bytes.len()].copy_from_slice(bytes);
        self.1 += bytes.len();
        self
    }
    fn half(self, value: usize) -> Self {
        self.put(&(value as u16).to_le_bytes())
    }
    fn word(self, value: u32) -> Self {
        self.put(&value.to_le_bytes())
    }
    fn long(self, value: u64) -> Self {
        self.put(&value.to_le_bytes())
    }
}

fn header(count: usize, sections_at: u64) -> [u8; EHDR] {
    let some = sections_at != 0;
    Bytes([0; EHDR], 0)
        .put(ELF_MAGIC)
        // 64 bits, little-endian, version 1; of no system in particular.
        .put(&[2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        .half(ET_CORE as usize)
        .half(EM_X86_64 as usize)
        .word(1)
        .long(0)
        .long(EHDR as u64)
        .long(sections_at)
        .word(0)
        .half(EHDR)
        .half(PHDR)
        .half(count.min(PN_XNUM))
        .half(if some { SHDR } else { 0 })
        .half(some as usize)
        .half(0)
        .0
}

/// `place`: address, bytes in the file, bytes in memory.
fn program_header(kind: u32, flags: u32, offset: u64, place: [u64; 3], align: u64) -> [u8; PHDR] {
    let [at, in_file, in_memory] = place;
    Bytes([0; PHDR], 0)
        .word(kind)
        .word(flags)
        .long(offset)
        .long(at)
        .long(0)
        .long(in_file)
        .long(in_memory)
        .long(align)
        .0
}

/// The one that has the count of program headers where `e_phnum` has no room for it.
fn section_header(count: usize) -> [u8; SHDR] {
    Bytes([0; SHDR], 0).word(0).word(0).long(0).long(0).long(0).long(1).word(0).word(count as u32).0
}
