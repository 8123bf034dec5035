//! What stands behind a region's pages, counted: the paragraphs of `smaps`.
//!
//! A page that several map is divided among them (*proportional*), so that the sums over all processes are what there is.

use super::super::Image;
use super::{kib, maps};
use crate::mem::memory;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use hafez_mm::{RegionFlags, RegionInfo, RegionStat, Rights};

/// More bytes than a region's paragraph has, but for its path.
pub const MOST: usize = 2048;

/// What is known of a region's pages.
#[derive(Default)]
pub struct Pages {
    size: u64,
    /// Resident pages by what backs them.
    file: u64,
    shmem: u64,
    /// Of the proportional size: what is locked, what is shared memory's.
    locked: u64,
    proportional_shmem: u64,
    stat: RegionStat,
}

impl Pages {
    pub fn of(image: &Image, region: &RegionInfo) -> Pages {
        let here = region.range.in_user_half();
        let stat =
            if here { memory().region_stat(image.space(), region.range) } else { RegionStat::default() };
        let other = stat.resident - stat.anonymous;
        let file = region.object.is_none() || is_file(region);
        let proportional_shmem = if file { 0 } else { stat.proportional - stat.proportional_anonymous };
        let locked = if region.wired { stat.proportional } else { 0 };
        let (file, shmem) = if file { (other, 0) } else { (0, other) };
        Pages { size: region.range.len(), file, shmem, locked, proportional_shmem, stat }
    }

    pub fn add(&mut self, other: &Pages) {
        self.size += other.size;
        self.locked += other.locked;
        self.file += other.file;
        self.shmem += other.shmem;
        self.proportional_shmem += other.proportional_shmem;
        let (sum, stat) = (&mut self.stat, &other.stat);
        for (sum, more) in [
            (&mut sum.resident, stat.resident),
            (&mut sum.swapped, stat.swapped),
            (&mut sum.shared, stat.shared),
            (&mut sum.dirty, stat.dirty),
            (&mut sum.private_dirty, stat.private_dirty),
            (&mut sum.accessed, stat.accessed),
            (&mut sum.anonymous, stat.anonymous),
            (&mut sum.huge, stat.huge),
            (&mut sum.proportional, stat.proportional),
            (&mut sum.proportional_dirty, stat.proportional_dirty),
            (&mut sum.proportional_anonymous, stat.proportional_anonymous),
            (&mut sum.proportional_swapped, stat.proportional_swapped),
        ] {
            *sum += more;
        }
    }

    /// The lines from `Rss` to `Locked`; in a roll-up with three more.
    pub fn tell(&self, rollup: bool) -> String {
        let mut text = String::with_capacity(MOST);
        let stat = &self.stat;
        let mut tell = |name: &str, size: u64| line(&mut text, name, size);
        // From 4096ths of a byte.
        let part = |sum: u64| sum >> 22;
        let private = stat.resident - stat.shared;
        let shared_dirty = stat.dirty - stat.private_dirty;
        tell("Rss", kib(stat.resident));
        tell("Pss", part(stat.proportional));
        tell("Pss_Dirty", part(stat.proportional_dirty));
        if rollup {
            tell("Pss_Anon", part(stat.proportional_anonymous));
            let file = stat.proportional - stat.proportional_anonymous - self.proportional_shmem;
            tell("Pss_File", part(file));
            tell("Pss_Shmem", part(self.proportional_shmem));
        }
        tell("Shared_Clean", kib(stat.shared - shared_dirty));
        tell("Shared_Dirty", kib(shared_dirty));
        tell("Private_Clean", kib(private - stat.private_dirty));
        tell("Private_Dirty", kib(stat.private_dirty));
        tell("Referenced", kib(stat.accessed.min(stat.resident)));
        tell("Anonymous", kib(stat.anonymous));
        tell("KSM", 0);
        tell("LazyFree", 0);
        tell("AnonHugePages", kib(stat.huge));
        for name in ["ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb", "Private_Hugetlb"] {
            tell(name, 0);
        }
        tell("Swap", kib(stat.swapped));
        tell("SwapPss", part(stat.proportional_swapped));
        tell("Locked", part(self.locked));
        text
    }
}

/// Name and colon in 15 columns, a blank, the size in 8, the unit. By hand: a program with many regions that reads this often
/// waits for little else.
fn line(text: &mut String, name: &str, mut size: u64) {
    let mut digits = [b' '; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (size % 10) as u8;
        size /= 10;
        if size == 0 {
            break;
        }
    }
    text.push_str(name);
    text.push(':');
    text.push_str(&"               "[..15usize.saturating_sub(name.len())]);
    text.push_str(core::str::from_utf8(&digits[first.min(12)..]).unwrap_or_default());
    text.push_str(" kB\n");
}

/// One region's paragraph of `smaps`.
pub fn region(image: &Image, region: &RegionInfo, text: &mut Vec<u8>) {
    maps::maps(image, region, text);
    let pages = Pages::of(image, region);
    text.extend_from_slice(maps::size_lines(pages.size).as_bytes());
    text.extend_from_slice(pages.tell(false).as_bytes());
    let huge = region.huge == Some(true) && region.object.is_none() && !region.shared;
    text.extend_from_slice(
        format!("THPeligible:           {}\nVmFlags: {}\n", huge as u8, flags(region)).as_bytes(),
    );
}

/// The marks of a region, two letters each.
fn flags(region: &RegionInfo) -> String {
    let has = |flag| region.flags.contains(flag);
    let may = |right| region.max_rights.contains(right);
    let accountable =
        !region.shared && region.rights.contains(Rights::WRITE) && !has(RegionFlags::NO_RESERVE);
    let mut flags = String::new();
    for (has, name) in [
        (region.rights.contains(Rights::READ), "rd "),
        (region.rights.contains(Rights::WRITE), "wr "),
        (region.rights.contains(Rights::EXEC), "ex "),
        (region.shared, "sh "),
        (may(Rights::READ), "mr "),
        (may(Rights::WRITE), "mw "),
        (may(Rights::EXEC), "me "),
        (region.shared, "ms "),
        (region.grows_down, "gd "),
        (region.wired, "lo "),
        (has(RegionFlags::SEQUENTIAL), "sr "),
        (has(RegionFlags::RANDOM), "rr "),
        (has(RegionFlags::DONT_FORK), "dc "),
        (accountable, "ac "),
        (has(RegionFlags::NO_RESERVE), "nr "),
        (has(RegionFlags::WIPE_ON_FORK), "wf "),
        (has(RegionFlags::DONT_DUMP), "dd "),
        (region.huge == Some(true), "hg "),
        (region.huge == Some(false), "nh "),
        (has(RegionFlags::SEALED), "sl "),
        (has(RegionFlags::DROPPABLE), "dp "),
    ] {
        if has {
            flags.push_str(name);
        }
    }
    flags
}

/// A file's, not memory that is shared without one.
pub fn is_file(region: &RegionInfo) -> bool {
    region.label.as_ref().is_some_and(|label| label.dev != 1 && label.ino != 0)
}
