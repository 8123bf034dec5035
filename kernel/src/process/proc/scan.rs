//! `PAGEMAP_SCAN`: which pages of a range are in one of several states, as runs of pages, and guarding them as they are told
//! (`PAGEMAP_SCAN(2const)`).
//!
//! A page's *categories* are bits. It is of interest if those of `mask` are set and one of `any` is, each bit of `inverted` being taken for
//! its opposite first. What is told of it is `shown` of them, and neighbours of which the same is told are one run.
//!
//! The core shows pages under its locks ([`hafez_mm::Memory::scan`]); what is of interest is gathered in a buffer of the
//! kernel, and handed out in between.

use super::super::Image;
use super::super::task::current_task;
use crate::arch::user;
use crate::errno::{Errno, Result};
use crate::mem::{TryPush, memory};
use alloc::sync::Arc;
use alloc::vec::Vec;
use hafez_mm::{PAGE_SIZE, PageAt, PageRange, Seen, USER_END, Verdict, VirtAddr, Vpn};

/// The request's number: it reads and writes its argument of 96 bytes, and is number 16 of `f`.
pub const REQUEST: u32 = 3 << 30 | (SIZE as u32) << 16 | (b'f' as u32) << 8 | 16;
const SIZE: usize = 96;
/// The word of the argument that tells where the scan ended.
const WALK_END: u64 = 4 * 8;

/// What a page can be.
mod category {
    /// Writes to it are noted.
    pub const NOTED: u64 = 1 << 0;
    /// Written since it was guarded last; or never guarded.
    pub const WRITTEN: u64 = 1 << 1;
    pub const FILE: u64 = 1 << 2;
    pub const PRESENT: u64 = 1 << 3;
    pub const SWAPPED: u64 = 1 << 4;
    pub const ZEROES: u64 = 1 << 5;
    pub const HUGE: u64 = 1 << 6;
    /// These, and what Linux has besides: soft-dirty pages and guard pages, of which there are none.
    pub const ALL: u64 = (1 << 9) - 1;
}

/// Guard what is told.
const GUARD: u64 = 1;
/// Fail where writes are not noted.
const ONLY_NOTED: u64 = 2;

/// Runs in the kernel's buffer at most.
const BUFFER: u64 = 512;
/// Pages that are looked at in one go.
const STRETCH: u64 = 1 << 18;
const LEAF: u64 = 512;

/// A run of pages: first byte, first byte behind it, categories.
type Run = [u64; 3];

struct Scan {
    flags: u64,
    vec: u64,
    /// Runs that still fit the program's own buffer.
    room: u64,
    /// Pages that may still be told.
    pages: u64,
    inverted: u64,
    mask: u64,
    any: u64,
    shown: u64,
    runs: Vec<Run>,
    told: u64,
    /// What pages of this region have besides.
    of_region: u64,
    /// Where it stopped, for want of room or because enough is told.
    stopped: Option<Vpn>,
}

/// Do what the argument at `at` asks for. The number of runs.
pub fn scan(image: &Arc<Image>, at: u64) -> Result<usize> {
    let mut words = [[0; 8]; SIZE / 8];
    user::copy_from(words.as_flattened_mut(), at)?;
    let words = words.map(u64::from_ne_bytes);
    let [size, flags, start, end, _, vec, len, most, inverted, mask, any, shown] = words;
    if size != SIZE as u64
        || flags & !(GUARD | ONLY_NOTED) != 0
        || (inverted | mask | any | shown) & !category::ALL != 0
        || !VirtAddr(start).is_aligned()
    {
        return Err(Errno::EINVAL);
    }
    if end < start || end > i64::MAX as u64 {
        return Err(Errno::EFAULT);
    }
    if vec == 0 && len != 0 {
        return Err(Errno::EINVAL);
    }
    let bytes = len.checked_mul(size_of::<Run>() as u64).ok_or(Errno::EFAULT)?;
    if vec != 0 && !user::in_user_half(vec, bytes as usize) {
        return Err(Errno::EFAULT);
    }
    let pages = if most == 0 { u64::MAX } else { most };
    let runs = Vec::new();
    let (of_region, told, stopped) = (0, 0, None);
    let mut scan =
        Scan { flags, vec, room: len, pages, inverted, mask, any, shown, runs, told, of_region, stopped };
    let end = end.next_multiple_of(PAGE_SIZE as u64);
    let range = PageRange::new(VirtAddr(start).page(), VirtAddr(end).page().min(USER_END));
    let done = scan.run(image, range);
    let done = scan.hand_out().and(done);
    let walked = scan.stopped.map_or(end, |page| page.addr().0);
    user::copy_to(at + WALK_END, &walked.to_ne_bytes())?;
    done.map(|()| scan.told as usize)
}

impl Scan {
    fn run(&mut self, image: &Arc<Image>, range: PageRange) -> Result<()> {
        self.runs.try_reserve_exact(self.room.min(BUFFER) as usize)?;
        let mut at = range.start;
        while at < range.end {
            let mut found = None;
            image.space().regions_from(at, &mut |region| {
                found = Some((region.range, region.noted));
                false
            });
            let Some((region, noted)) = found.filter(|(region, _)| region.start < range.end) else {
                return Ok(());
            };
            if current_task().is_some_and(|task| task.is_ending()) {
                return Err(Errno::EINTR);
            }
            let part = region.intersect(&PageRange::new(at, range.end));
            at = part.end;
            if !noted && self.flags & ONLY_NOTED != 0 {
                return Err(Errno::EPERM);
            }
            self.of_region = if noted { category::NOTED } else { 0 };
            let wanted = self.mask & category::NOTED;
            let of_interest = (self.of_region ^ self.inverted) & wanted == wanted;
            if !of_interest || !noted && self.flags & GUARD != 0 {
                continue;
            }
            at = self.go_through(image, part)?;
            if self.stopped.is_some() {
                // The kernel's buffer is full, or the program's, or enough is told.
                self.hand_out()?;
                if self.room == 0 || self.pages == 0 {
                    return Ok(());
                }
                self.stopped = None;
            }
        }
        Ok(())
    }

    /// Pages of one region, or some of them: the page to go on with.
    fn go_through(&mut self, image: &Arc<Image>, part: PageRange) -> Result<Vpn> {
        let guarding = self.flags & GUARD != 0;
        // Up to where a leaf ends, or many of them.
        let most = if guarding { LEAF } else { STRETCH };
        let end = Vpn((part.start.0 / most + 1) * most).min(part.end);
        let mut judge = |seen: &Seen| self.judge(seen, guarding);
        let next = memory().scan(image.space(), PageRange::new(part.start, end), guarding, &mut judge)?;
        Ok(self.stopped.unwrap_or(next))
    }

    fn judge(&mut self, seen: &Seen, guarding: bool) -> Verdict {
        let categories = self.of_region | categories(seen);
        let seen_as = categories ^ self.inverted;
        if seen_as & self.mask != self.mask || self.any != 0 && seen_as & self.any == 0 {
            return Verdict { guard: 0, go_on: true };
        }
        let taken = self.take(seen.pages, categories & self.shown);
        Verdict { guard: if guarding { taken } else { 0 }, go_on: self.stopped.is_none() }
    }

    /// Note the pages as told, as far as may be: how many.
    fn take(&mut self, pages: PageRange, categories: u64) -> u64 {
        let all = pages.len();
        if self.vec == 0 {
            return all;
        }
        let mut taken = all.min(self.pages);
        if taken > 0 {
            let (start, end) = (pages.start.addr().0, pages.start.add(taken).addr().0);
            let has_room = (self.runs.len() as u64) < self.room.min(BUFFER);
            match self.runs.last_mut() {
                Some(last) if last[1] == start && last[2] == categories => last[1] = end,
                _ if has_room => {
                    let fits = self.runs.try_push([start, end, categories]);
                    debug_assert!(fits.is_ok(), "the room is reserved");
                }
                _ => taken = 0,
            }
        }
        self.pages -= taken;
        if taken < all {
            self.stopped = Some(pages.start.add(taken));
        }
        taken
    }

    /// Give the program what has been gathered.
    fn hand_out(&mut self) -> Result<()> {
        let count = self.runs.len() as u64;
        for run in core::mem::take(&mut self.runs) {
            let at = self.vec + self.told * size_of::<Run>() as u64;
            user::copy_to(at, run.map(u64::to_ne_bytes).as_flattened())?;
            self.told += 1;
        }
        self.room -= count;
        self.runs.try_reserve_exact(self.room.min(BUFFER) as usize)?;
        Ok(())
    }
}

fn categories(seen: &Seen) -> u64 {
    let of = |has, category| if has { category } else { 0 };
    let here = match seen.at {
        Some(PageAt::Frame { file, zeroes, .. }) => {
            category::PRESENT | of(file, category::FILE) | of(zeroes, category::ZEROES)
        }
        Some(PageAt::Slot(_)) => category::SWAPPED,
        None => 0,
    };
    here | of(!seen.guarded, category::WRITTEN) | of(seen.huge, category::HUGE)
}
