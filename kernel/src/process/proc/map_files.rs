//! `/proc/PID/map_files`: a link for each region that a file is mapped in, named by where it begins and ends, to the file.
//!
//! Only who may administer the machine, or checkpoint programs, is told where they lead. The links are by path: a file that has no name any more is told of, and cannot be opened so.

use super::super::Image;
use super::pid::{Subject, owned};
use crate::errno::Errno;
use crate::fs::caps::cap;
use crate::fs::inode::Kind;
use crate::fs::synth::{Entry, SynthDir};
use alloc::format;
use alloc::sync::Arc;
use hafez_mm::{RegionInfo, VirtAddr, Vpn};

/// The directory's entries.
pub struct MapFiles(pub Subject);

/// The region that begins here and ends there, if a file is mapped in it.
fn find(image: &Image, start: u64, end: u64) -> Option<RegionInfo> {
    let region = image.space().region_at(VirtAddr(start))?;
    let same = (region.range.start.addr().0, region.range.end.addr().0) == (start, end);
    (same && is_of_file(&region)).then_some(region)
}

fn is_of_file(region: &RegionInfo) -> bool {
    region.label.as_ref().is_some_and(|label| label.is_of_file())
}

/// An address as the names have it: no sign, no zeroes before it.
fn address(text: &str) -> Option<u64> {
    let plain = !text.starts_with('+') && (text == "0" || !text.starts_with('0'));
    if plain { u64::from_str_radix(text, 16).ok() } else { None }
}

impl SynthDir for MapFiles {
    fn lookup(&self, name: &[u8]) -> Option<Entry> {
        let (start, end) = core::str::from_utf8(name).ok()?.split_once('-')?;
        let image = self.0.image().ok()??;
        let region = find(&image, address(start)?, address(end)?)?;
        let label = region.label?;
        let text = move || {
            let cred = super::caller()?.cred();
            let may = cred.may(cap::SYS_ADMIN) || cred.may(cap::LAST);
            if may { Ok(label.path.to_vec()) } else { Err(Errno::EPERM) }
        };
        Some(owned(Entry::link(text), &self.0))
    }

    fn list(&self, tell: &mut dyn FnMut(&[u8], Kind)) {
        let Ok(Some(image)) = self.0.image() else { return };
        each(&image, &mut |region| {
            let (start, end) = (region.range.start.addr().0, region.range.end.addr().0);
            tell(format!("{start:x}-{end:x}").as_bytes(), Kind::Link);
        });
    }
}

/// Each region of a file. None is held meanwhile.
fn each(image: &Arc<Image>, f: &mut dyn FnMut(&RegionInfo)) {
    let mut next = Vpn(0);
    loop {
        let mut found = None;
        image.space().regions_from(next, &mut |region| {
            found = Some(region.clone());
            false
        });
        let Some(region) = found else { return };
        next = region.range.end;
        if is_of_file(&region) {
            f(&region);
        }
    }
}
