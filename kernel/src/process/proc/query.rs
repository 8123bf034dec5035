//! `PROCMAP_QUERY`: one region of a process, asked for by an address, as a record instead of a line of text.
//!
//! The argument begins with its own size, so that it can grow: who knows a longer one may pass it as long as what is new in it is zero, and
//! who knows a shorter one gets as much of the answer as fits. Name and build identity go where the argument says.
//!
//! The *build identity* of a program or library is a note in its ELF file: read from the file, wherever in it the region lies.

use super::super::Image;
use super::maps::shown;
use crate::arch::user;
use crate::errno::{Errno, Result};
use crate::mem::memory;
use alloc::sync::Arc;
use hafez_mm::{Object, PAGE_SIZE, RegionInfo, Rights, VirtAddr};

/// The request's number: it reads and writes its argument of 104 bytes, and is number 17 of `f`.
pub const REQUEST: u32 = 3 << 30 | (SIZE as u32) << 16 | (b'f' as u32) << 8 | 17;
/// Bytes of the argument, and those at least that say what is asked.
const SIZE: usize = 104;
const LEAST: u64 = 24;

/// What is asked: rights that the region must have, and which one it may be.
mod ask {
    pub const READABLE: u64 = 1;
    pub const WRITABLE: u64 = 2;
    pub const EXECUTABLE: u64 = 4;
    pub const SHARED: u64 = 8;
    /// The one at the address, or the next above it.
    pub const OR_NEXT: u64 = 16;
    pub const OF_FILE: u64 = 32;
    pub const ALL: u64 = 63;
}

/// The argument's words, by number; those from `DEVICE` on are two halves each.
mod word {
    pub const FLAGS: usize = 1;
    pub const ADDRESS: usize = 2;
    pub const START: usize = 3;
    pub const DEVICE: usize = 9;
    pub const SIZES: usize = 10;
    pub const NAME_AT: usize = 11;
    pub const BUILD_AT: usize = 12;
}

/// Bytes of a name at most, its NUL included.
const NAME_MAX: u64 = 4096;

/// Answer the argument at `at`. `None`: of a program that is no more.
pub fn answer(image: Option<&Arc<Image>>, at: u64) -> Result<usize> {
    let mut words = read(at)?;
    let size = words[0];
    let flags = words[word::FLAGS];
    let (name_room, build_room) = (words[word::SIZES] & 0xffff_ffff, words[word::SIZES] >> 32);
    let (name_at, build_at) = (words[word::NAME_AT], words[word::BUILD_AT]);
    if flags & !ask::ALL != 0 || (name_room == 0) != (name_at == 0) || (build_room == 0) != (build_at == 0) {
        return Err(Errno::EINVAL);
    }
    let image = image.ok_or(Errno::ESRCH)?;
    let region = find(image, words[word::ADDRESS], flags).ok_or(Errno::ENOENT)?;
    let (dev, ino, path) = shown(image, &region);
    let offset = if is_of_file(&region) { region.offset } else { 0 };
    let (start, end) = (region.range.start.addr().0, region.range.end.addr().0);
    words[word::START..word::DEVICE].copy_from_slice(&[
        start,
        end,
        kind(&region),
        PAGE_SIZE as u64,
        offset,
        ino,
    ]);
    let (major, minor) = (dev >> 8 & 0xfff, dev & 0xff | dev >> 12 & 0xfff00);
    words[word::DEVICE] = major | minor << 32;
    let build = if build_room > 0 { build_identity(image, &region) } else { None };
    let build = build.as_ref().map_or(&[][..], |(bytes, len)| &bytes[..*len]);
    if build.len() as u64 > build_room {
        return Err(Errno::ENAMETOOLONG);
    }
    let name = if name_room > 0 { path } else { &[] };
    let name_len = if name.is_empty() { 0 } else { name.len() as u64 + 1 };
    if name_len > name_room.min(NAME_MAX) {
        return Err(Errno::ENAMETOOLONG);
    }
    if name_len > 0 {
        user::copy_to(name_at, name)?;
        user::copy_to(name_at.wrapping_add(name_len - 1), &[0])?;
    }
    user::copy_to(build_at, build)?;
    words[word::SIZES] = name_len | (build.len() as u64) << 32;
    let bytes = words.map(u64::to_ne_bytes);
    user::copy_to(at, &bytes.as_flattened()[..SIZE.min(size as usize)])?;
    Ok(0)
}

/// The argument, as long as it says; what it does not have is zero.
fn read(at: u64) -> Result<[u64; SIZE / 8]> {
    let mut size = [0; 8];
    user::copy_from(&mut size, at)?;
    let size = u64::from_ne_bytes(size);
    if size > PAGE_SIZE as u64 {
        return Err(Errno::E2BIG);
    }
    if size < LEAST {
        return Err(Errno::EINVAL);
    }
    let mut words = [[0; 8]; SIZE / 8];
    let len = SIZE.min(size as usize);
    user::copy_from(&mut words.as_flattened_mut()[..len], at)?;
    let mut newer = len as u64;
    while newer < size {
        let mut bytes = [0; 64];
        let piece = &mut bytes[..64.min((size - newer) as usize)];
        user::copy_from(piece, at.wrapping_add(newer))?;
        if piece.iter().any(|&byte| byte != 0) {
            return Err(Errno::E2BIG);
        }
        newer += piece.len() as u64;
    }
    let mut words = words.map(u64::from_ne_bytes);
    words[0] = size;
    Ok(words)
}

fn is_of_file(region: &RegionInfo) -> bool {
    region.label.as_ref().is_some_and(|label| label.is_of_file())
}

/// A region's rights, and whether it is shared, as the bits that ask for them.
fn kind(region: &RegionInfo) -> u64 {
    [
        (region.rights.contains(Rights::READ), ask::READABLE),
        (region.rights.contains(Rights::WRITE), ask::WRITABLE),
        (region.rights.contains(Rights::EXEC), ask::EXECUTABLE),
        (region.shared, ask::SHARED),
    ]
    .iter()
    .fold(0, |bits, &(has, bit)| if has { bits | bit } else { bits })
}

fn find(image: &Image, address: u64, flags: u64) -> Option<RegionInfo> {
    let wanted = flags & (ask::READABLE | ask::WRITABLE | ask::EXECUTABLE | ask::SHARED);
    let page = VirtAddr(address).page();
    let mut found = None;
    image.space().regions_from(page, &mut |region| {
        let fits = kind(region) & wanted == wanted && (flags & ask::OF_FILE == 0 || is_of_file(region));
        let near = flags & ask::OR_NEXT != 0 || region.range.contains(page);
        if fits && near {
            found = Some(region.clone());
        }
        found.is_none() && near
    });
    found
}

/// Bytes of a build identity at most.
const BUILD_MAX: usize = 20;

/// The build identity in the file behind a region, and how long it is.
fn build_identity(image: &Image, region: &RegionInfo) -> Option<([u8; BUILD_MAX], usize)> {
    if !is_of_file(region) {
        return None;
    }
    let file = image.space().object_at(region.range.start)?;
    let mut header = [0; 64];
    read_file(&file, 0, &mut header)?;
    // A file of 64-bit words in this machine's order.
    if header[..6] != *b"\x7fELF\x02\x01" {
        return None;
    }
    let first = number(&header[32..40]);
    let (entry, count) = (number(&header[54..56]), number(&header[56..58]));
    let mut program = [0; 56];
    const NOTES: u64 = 4;
    for n in 0..count {
        read_file(&file, first.checked_add(n * entry)?, &mut program)?;
        if number(&program[..4]) == NOTES {
            let (at, len) = (number(&program[8..16]), number(&program[32..40]));
            let found = in_notes(&file, at, len);
            if found.is_some() {
                return found;
            }
        }
    }
    None
}

/// Notes looked at in one segment of them: more than any linker writes.
const NOTES_MAX: usize = 64;

/// A note has three words (bytes of its name, bytes of what it says, kind), the name, and what it says; both fill whole words.
fn in_notes(file: &Arc<Object>, mut at: u64, len: u64) -> Option<([u8; BUILD_MAX], usize)> {
    const IDENTITY: u64 = 3;
    let end = at.checked_add(len)?;
    for _ in 0..NOTES_MAX {
        let mut head = [0; 16];
        if at.checked_add(16)? > end {
            return None;
        }
        read_file(file, at, &mut head)?;
        let [name, said, kind] = [0, 4, 8].map(|from| number(&head[from..from + 4]));
        let text = at.checked_add(12)?.checked_add(name.next_multiple_of(4))?;
        if kind == IDENTITY && name == 4 && head[12..] == *b"GNU\0" && (1..=BUILD_MAX as u64).contains(&said)
        {
            let mut bytes = [0; BUILD_MAX];
            read_file(file, text, &mut bytes[..said as usize])?;
            return Some((bytes, said as usize));
        }
        at = text.checked_add(said.next_multiple_of(4))?;
    }
    None
}

/// A number of up to eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Bytes of the file; `None` past its end, or where it cannot be read.
fn read_file(file: &Arc<Object>, at: u64, out: &mut [u8]) -> Option<()> {
    const PAGE: u64 = PAGE_SIZE as u64;
    if at.checked_add(out.len() as u64)? > file.size() {
        return None;
    }
    let mut done = 0;
    while done < out.len() {
        let here = at + done as u64;
        let within = (here % PAGE) as usize;
        let len = (out.len() - done).min(PAGE_SIZE - within);
        let page = memory().object_page(file, here / PAGE, false).ok()?;
        page.read(within, &mut out[done..done + len]);
        done += len;
    }
    Some(())
}
