//! ELF files: reading their headers, which may be anything, and mapping their segments.
//!
//! Nothing is copied. Each segment is a private mapping of the file's own pages, brought in when the program touches them
//! and shared with every other process that runs the same file; only the tail of the last data page, where the zeroed
//! variables begin, is written here.
//!
//! ```text
//!    file   [hdr][ text ......... ][ data .....]
//!                     │                 │
//!    space  ── base ──▼─────────────────▼──────┬───────────┐
//!              R    R X              R W       │ zero pages│  heap…
//!                                       tail zeroed ┘
//! ```
//!
//! A header is believed only after every sum in it has been checked. The first thing mapped is one reservation over
//! the whole program, so its segments can neither leave it nor land on anything else.

use crate::arch::user;
use crate::errno::{Errno, Result};
use crate::fs::file::File;
use crate::mem::memory;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hafez_mm::{
    Backing, Label, MapRequest, Object, PAGE_SIZE, PageRange, Rights, Space, USER_END, VirtAddr, Where,
};

/// Bytes of the ELF header, and of one program header.
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// Linux takes no more than 64 KiB of program headers.
const MAX_PROGRAM_HEADERS: usize = 65536 / PROGRAM_HEADER;
const PAGE: u64 = PAGE_SIZE as u64;

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_PHDR: u32 = 6;
const PT_GNU_STACK: u32 = 0x6474_e551;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;

/// What a program's headers say.
pub struct Elf {
    /// Says where it wants to be; the others go anywhere.
    pub fixed: bool,
    /// Address of the first instruction, before the bias.
    pub entry: u64,
    /// By address; at least one.
    segments: Vec<Segment>,
    /// Path of the program that shall load this one.
    pub interpreter: Option<Vec<u8>>,
    /// Address of the program headers, before the bias, and their number.
    pub headers: u64,
    pub header_count: u64,
    /// Whether it wants to run code on its stack.
    pub stack_exec: bool,
}

/// A `PT_LOAD`.
#[derive(Clone, Copy)]
struct Segment {
    at: u64,
    offset: u64,
    file_len: u64,
    len: u64,
    align: u64,
    rights: Rights,
}

impl Segment {
    fn end(&self) -> u64 {
        self.at + self.len
    }
}

/// Where a program went.
#[derive(Clone, Copy, Default, Debug)]
pub struct Placed {
    /// What to add to the file's addresses.
    pub bias: u64,
    /// First and last byte of it, of its code, of its initialised data; as addresses, ends exclusive.
    pub all: (u64, u64),
    pub code: (u64, u64),
    pub data: (u64, u64),
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u16_at(b, at) as u32 | (u16_at(b, at + 2) as u32) << 16
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u32_at(b, at) as u64 | (u32_at(b, at + 4) as u64) << 32
}

fn read_exactly(file: &File, at: u64, to: &mut [u8]) -> Result<()> {
    let mut done = 0;
    while done < to.len() {
        match file.read_kernel(at + done as u64, &mut to[done..])? {
            0 => return Err(Errno::ENOEXEC),
            n => done += n,
        }
    }
    Ok(())
}

impl Elf {
    /// Read and check the headers. ENOEXEC for what is no program for this machine.
    #[inline(never)]
    pub fn read(file: &File) -> Result<Elf> {
        let mut h = [0u8; HEADER];
        read_exactly(file, 0, &mut h)?;
        let kind = u16_at(&h, 16);
        let count = u16_at(&h, 56) as usize;
        let sound = h[..4] == *b"\x7fELF"
            && matches!(kind, ET_EXEC | ET_DYN)
            && u16_at(&h, 18) == EM_X86_64
            && u16_at(&h, 54) as usize == PROGRAM_HEADER
            && (1..=MAX_PROGRAM_HEADERS).contains(&count);
        if !sound {
            return Err(Errno::ENOEXEC);
        }
        let table_at = u64_at(&h, 32);
        let table_len = count * PROGRAM_HEADER;
        if table_at.checked_add(table_len as u64).is_none_or(|end| end > i64::MAX as u64) {
            return Err(Errno::ENOEXEC);
        }
        let mut table = Vec::new();
        table.try_reserve_exact(table_len).map_err(|_| Errno::ENOMEM)?;
        table.resize(table_len, 0);
        read_exactly(file, table_at, &mut table)?;

        let mut elf = Elf {
            fixed: kind == ET_EXEC,
            entry: u64_at(&h, 24),
            segments: Vec::new(),
            interpreter: None,
            headers: 0,
            header_count: count as u64,
            stack_exec: false,
        };
        let mut headers = None;
        for p in table.chunks_exact(PROGRAM_HEADER) {
            let (kind, flags) = (u32_at(p, 0), u32_at(p, 4));
            match kind {
                PT_LOAD => elf.add_segment(p, flags)?,
                PT_INTERP if elf.interpreter.is_none() => {
                    elf.interpreter = Some(read_path(file, u64_at(p, 8), u64_at(p, 32))?)
                }
                PT_PHDR => headers = Some(u64_at(p, 16)),
                PT_GNU_STACK => elf.stack_exec = flags & PF_X != 0,
                _ => {}
            }
        }
        if elf.segments.is_empty() {
            return Err(Errno::ENOEXEC);
        }
        let loaded = |s: &&Segment| s.offset <= table_at && table_at - s.offset < s.file_len;
        let found = elf.segments.iter().find(loaded).map(|s| s.at.wrapping_add(table_at - s.offset));
        elf.headers = headers.or(found).unwrap_or(0);
        Ok(elf)
    }

    fn add_segment(&mut self, p: &[u8], flags: u32) -> Result<()> {
        let mut rights = Rights::empty();
        rights.set(Rights::READ, flags & PF_R != 0);
        rights.set(Rights::WRITE, flags & PF_W != 0);
        rights.set(Rights::EXEC, flags & PF_X != 0);
        let s = Segment {
            offset: u64_at(p, 8),
            at: u64_at(p, 16),
            file_len: u64_at(p, 32),
            len: u64_at(p, 40),
            align: u64_at(p, 48).max(PAGE),
            rights,
        };
        if s.len == 0 {
            return Ok(());
        }
        let limit = USER_END.addr().0;
        let sound = s.file_len <= s.len
            && s.at.checked_add(s.len).is_some_and(|end| end <= limit)
            && s.offset.checked_add(s.file_len).is_some_and(|end| end <= i64::MAX as u64)
            && s.at % PAGE == s.offset % PAGE
            && self.segments.last().is_none_or(|before| before.end() <= s.at);
        if !sound {
            return Err(Errno::ENOEXEC);
        }
        self.segments.push(s);
        Ok(())
    }

    /// The pages between its first and its last byte, before the bias.
    fn extent(&self) -> PageRange {
        let (first, last) = (self.segments[0], self.segments[self.segments.len() - 1]);
        PageRange::new(VirtAddr(first.at).page(), VirtAddr(last.end() + PAGE - 1).page())
    }

    /// The alignment that its segments ask for, where that is one.
    pub fn align(&self) -> u64 {
        let most = self.segments.iter().map(|s| s.align).filter(|a| a.is_power_of_two()).max();
        most.unwrap_or(PAGE).min(1 << 30)
    }

    /// Map it into a space, which is loaded. `at`: where to, for what is not fixed; `None` lets the space choose.
    #[inline(never)]
    pub fn map(
        &self,
        space: &Arc<Space>,
        object: &Arc<Object>,
        label: &Arc<Label>,
        at: Option<u64>,
    ) -> Result<Placed> {
        let extent = self.extent();
        let base = self.reserve(space, extent, at)?;
        let bias = base.wrapping_sub(extent.start.addr().0);
        let mut placed = Placed { bias, all: (base, base), code: (u64::MAX, 0), data: (0, 0) };
        let mut covered = VirtAddr(base).page();
        for s in &self.segments {
            let moved = Segment { at: s.at.wrapping_add(bias), ..*s };
            let start = VirtAddr(moved.at).page();
            if start > covered {
                memory().unmap(space, PageRange::new(covered, start))?;
            }
            map_segment(space, object, label, &moved)?;
            covered = covered.max(VirtAddr(moved.end() + PAGE - 1).page());
            placed.all.1 = moved.end();
            if s.rights.contains(Rights::EXEC) {
                placed.code = (placed.code.0.min(moved.at), placed.code.1.max(moved.at + moved.file_len));
            }
            placed.data = (moved.at, moved.at + moved.file_len);
        }
        placed.code.0 = placed.code.0.min(placed.code.1);
        Ok(placed)
    }

    /// Take the address range for the whole program; its first address.
    fn reserve(&self, space: &Arc<Space>, extent: PageRange, at: Option<u64>) -> Result<u64> {
        let align = self.align();
        let place = if self.fixed {
            Where::FixedNoReplace(extent.start.addr())
        } else if let Some(at) = at {
            Where::FixedNoReplace(VirtAddr(at & !(align - 1)))
        } else {
            Where::Anywhere { hint: None }
        };
        if extent.start.0 < hafez_mm::USER_START.0 && self.fixed {
            return Err(Errno::EPERM);
        }
        let slack = if matches!(place, Where::Anywhere { .. }) { align / PAGE - 1 } else { 0 };
        let pages = extent.len() + slack;
        let got = memory().map(space, request(place, pages, Rights::empty(), Backing::Anonymous, None))?;
        if slack == 0 {
            return Ok(got.0);
        }
        let base = got.0.next_multiple_of(align);
        let (first, end) = (VirtAddr(base).page(), VirtAddr(base).page().add(extent.len()));
        if first > got.page() {
            memory().unmap(space, PageRange::new(got.page(), first))?;
        }
        if end < got.page().add(pages) {
            memory().unmap(space, PageRange::new(end, got.page().add(pages)))?;
        }
        Ok(base)
    }
}

/// One segment over its part of the reservation.
fn map_segment(space: &Arc<Space>, object: &Arc<Object>, label: &Arc<Label>, s: &Segment) -> Result<()> {
    let first = VirtAddr(s.at).page();
    let file_end = s.at + s.file_len;
    let page_after = |at: u64| VirtAddr(at + PAGE - 1).page();
    let file_pages = if s.file_len == 0 { first } else { page_after(file_end) };
    let end = page_after(s.end());
    if file_pages > first {
        let backing = Backing::Object { object: object.clone(), first: s.offset / PAGE };
        let label = Some(label.clone());
        memory().map(
            space,
            request(Where::Fixed(first.addr()), file_pages.since(first), s.rights, backing, label),
        )?;
    }
    if end > file_pages {
        let place = Where::Fixed(file_pages.addr());
        memory().map(space, request(place, end.since(file_pages), s.rights, Backing::Anonymous, None))?;
    }
    let tail_end = s.end().min(file_pages.addr().0);
    if s.file_len > 0 && tail_end > file_end && s.rights.contains(Rights::WRITE) {
        // The whole rest of the page, as Linux does: programs find zeroes up to the page's end.
        user::zero(file_end, (file_pages.addr().0 - file_end) as usize)?;
    }
    Ok(())
}

/// A private mapping.
pub(super) fn request(
    at: Where,
    pages: u64,
    rights: Rights,
    backing: Backing,
    label: Option<Arc<Label>>,
) -> MapRequest {
    MapRequest {
        at,
        pages,
        rights,
        max_rights: Rights::all(),
        backing,
        shared: false,
        label,
        grows_down: None,
        wired: false,
        special: hafez_mm::RegionFlags::empty(),
        by: None,
    }
}

/// The path in a `PT_INTERP`: it ends in NUL, and there is something before it.
fn read_path(file: &File, at: u64, len: u64) -> Result<Vec<u8>> {
    if !(2..=4096).contains(&len) || at.checked_add(len).is_none_or(|end| end > i64::MAX as u64) {
        return Err(Errno::ENOEXEC);
    }
    let mut path = crate::mem::zeroed(len as usize)?;
    read_exactly(file, at, &mut path).map_err(|e| if e == Errno::ENOEXEC { Errno::EIO } else { e })?;
    match path.iter().position(|b| *b == 0) {
        Some(end) if end > 0 && path[len as usize - 1] == 0 => path.truncate(end),
        _ => return Err(Errno::ENOEXEC),
    }
    Ok(path)
}
