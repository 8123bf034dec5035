//! The page of code that the kernel lends every program (`vdso(7)`): see [`arch::vdso`].
//!
//! It is one page of a shared object that all programs map, so it costs a frame in all; like any page it may go to swap.

use super::elf;
use crate::errno::{Errno, Result};
use crate::mem::memory;
use crate::{arch, clock};
use alloc::boxed::Box;
use alloc::sync::Arc;
use hafez_mm::lock::Once;
use hafez_mm::{AccountId, Backing, FramePin, Label, Object, PAGE_SIZE, Rights, Space, Where};

type Pin = FramePin<'static, crate::mem::KernelPlatform>;

/// The object, and its name in `/proc/PID/maps`.
static PAGE: Once<(Arc<Object>, Arc<Label>)> = Once::new();

/// Make it. Once, when the time of day is known.
pub fn init() -> Result<()> {
    let bytes = arch::vdso::page(clock::at_reset());
    let object = memory().new_object_shared(PAGE_SIZE as u64, AccountId::KERNEL)?;
    memory().object_page(&object, 0, true).map_err(|_| Errno::ENOMEM)?.write(0, &bytes);
    let label = Label { path: Box::from(&b"[vdso]"[..]), dev: 0, ino: 0 };
    PAGE.call_once(|| (object, Arc::new(label)));
    Ok(())
}

/// The page itself, to write to.
pub(super) fn page() -> Result<Pin> {
    let (object, _) = PAGE.get().ok_or(Errno::ENODEV)?;
    memory().object_page(object, 0, true).map_err(|_| Errno::ENOMEM)
}

/// What time it was at reset, by the clock as it is set now.
pub(super) fn tell_time(page: &Pin, at_reset: u64) {
    page.write(arch::vdso::at_reset_offset(), &at_reset.to_le_bytes());
}

/// What `gettimeofday` says of the time zone.
pub(super) fn tell_zone(page: &Pin, zone: u64) {
    page.write(arch::vdso::zone_offset(), &zone.to_le_bytes());
}

/// Map it into a new space; where it is.
pub(super) fn map(space: &Arc<Space>) -> Result<Option<u64>> {
    let Some((object, label)) = PAGE.get() else { return Ok(None) };
    let backing = Backing::Object { object: object.clone(), first: 0 };
    let rights = Rights::READ | Rights::EXEC;
    let mut request = elf::request(Where::Anywhere { hint: None }, 1, rights, backing, Some(label.clone()));
    request.max_rights = rights;
    Ok(Some(memory().map(space, request)?.0))
}
