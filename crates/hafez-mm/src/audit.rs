//! The audit: look at everything and check the invariants. For tests, and for a kernel told to distrust itself.
//!
//! It needs a quiet point: no call under way, no request in flight.

use crate::addr::{PageRange, Pfn, USER_END, Vpn};
use crate::frame::Frames;
use crate::frame::meta::{Flags, State};
use crate::memory::Memory;
use crate::object::Place;
use crate::paging::Entry;
use crate::paging::share::each_left;
use crate::{Platform, SpaceId};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use core::sync::atomic::Ordering::Acquire;

/// Which invariant is broken, and where.
#[derive(Debug)]
pub struct AuditError(pub String);

macro_rules! check {
    ($holds:expr, $($why:tt)*) => {
        if !$holds {
            return Err(AuditError(format!($($why)*)));
        }
    };
}

impl<P: Platform> Memory<P> {
    /// Check I1 to I4 and I6 (I5 is a matter of time, not of state: the software machine's stale TLBs check it).
    pub fn audit(&self) -> Result<(), AuditError> {
        let spaces = &self.spaces;
        let frames = &spaces.frames;
        let count = frames.table().len();
        let mut maps = vec![0u32; count];
        let mut slot_refs: BTreeMap<u32, u32> = BTreeMap::new();

        // Links to each leaf. What is in a shared one is counted when it is met first.
        let mut links: BTreeMap<u32, u32> = BTreeMap::new();
        let mut whole = 0;
        let mut number = 0;
        while let Some((next, space)) = spaces.spaces.next(number) {
            number = next;
            let all = PageRange::new(Vpn(0), USER_END);
            let regions = space.all_regions();
            let (mut stray, mut lost) = (None, None);
            let mut cursor = spaces.cursor(&space, all);
            cursor.look(all, &mut |page, slot| {
                if regions.within(PageRange::new(page, page.add(1))).next().is_none() {
                    stray = Some(page);
                }
                if slot.is_shared() && links.contains_key(&slot.leaf(frames).0) {
                    return;
                }
                match slot.get() {
                    Entry::Present { frame, .. } if frame != frames.zero => {
                        maps[frame.0 as usize] += 1;
                        if !self.leads_to(frame, space.id(), page) {
                            lost = Some((frame, page));
                        }
                    }
                    Entry::Swap { slot } => *slot_refs.entry(slot).or_default() += 1,
                    _ => {}
                }
            });
            let mut wholes = vec![];
            cursor.each_whole(all, &mut |page, _| wholes.push(page));
            let unlike = wholes.iter().find(|&&page| !cursor.is_as_its_leaf(page, frames));
            check!(
                unlike.is_none(),
                "space {:?}: the leaf behind the huge page at {unlike:?} differs",
                space.id()
            );
            whole += wholes.len();
            cursor.each_leaf(&mut |leaf| *links.entry(leaf.0).or_default() += 1);
            check!(
                lost.is_none(),
                "I3: the reverse map misses space {:?}'s entry, (frame, page) {lost:?}",
                space.id()
            );
            check!(stray.is_none(), "space {:?} has an entry outside its regions, at {stray:?}", space.id());
        }

        for (&leaf, &links) in &links {
            let meta = frames.meta(Pfn(leaf));
            let mut used = 0;
            each_left(frames, Pfn(leaf), &mut |_| used += 1);
            let untold = untold(frames, Pfn(leaf));
            check!(
                untold.is_none(),
                "leaf {leaf:#x} has an entry that its record does not tell of: {untold:?}"
            );
            check!(
                meta.word().maps() == links && meta.index() == used,
                "I2: leaf {leaf:#x} counts {} links and {} entries; there are {links} and {used}",
                meta.word().maps(),
                meta.index()
            );
        }

        check!(
            frames.whole() as usize == whole,
            "{} huge pages are counted, and there are {whole}",
            frames.whole()
        );

        let coming = spaces.coming.load(Acquire);
        check!(coming == 0, "{coming} frames are counted as on their way in, at a quiet point");

        let mut in_map = vec![false; count];
        let mut number = 0;
        while let Some((next, object)) = spaces.objects.next(number) {
            number = next;
            let pages = object.pages.lock();
            let mut at = 0;
            while let Some((index, place)) = pages.next(at) {
                at = index + 1;
                match place {
                    Place::Frame(frame) => {
                        let meta = frames.meta(frame);
                        check!(
                            meta.owner() == object.id
                                && meta.index() == index
                                && meta.word().has(Flags::CACHED),
                            "I3: {frame:?} is page {index} of object {}, but notes {} of {}",
                            object.id,
                            meta.index(),
                            meta.owner()
                        );
                        in_map[frame.0 as usize] = true;
                    }
                    Place::Swap(slot) => *slot_refs.entry(slot).or_default() += 1,
                    Place::Nowhere => {}
                }
            }
        }

        let mut listed = vec![false; count];
        let mut twice = None;
        frames.lists.each(frames.table(), |frame, _, _| {
            if core::mem::replace(&mut listed[frame.0 as usize], true) {
                twice = Some(frame);
            }
        });
        check!(twice.is_none(), "I1: {twice:?} is on a list twice");

        // What the audit takes for itself would be missing where the frames before it have been counted: no more from here on.
        let end = frames.accounts.end();
        let (mut charged, mut slots) = (vec![[0u64; 3]; end], vec![0u64; end]);
        for frame in frames.known() {
            let (n, meta) = (frame.0 as usize, frames.meta(frame));
            let word = meta.word();
            let kind = match word.state() {
                State::Anon | State::Shared | State::Wired => 0,
                State::File => 1,
                State::Table => 2,
                _ => {
                    check!(maps[n] == 0 && !listed[n], "I1: {frame:?} is free and used");
                    continue;
                }
            };
            // An image page or a table of the boot is wired without a charge; the core's own are charged to it.
            check!((word.account().0 as usize) < end, "I6: {frame:?} is charged to no account");
            charged[word.account().0 as usize][kind] += 1;
            if matches!(word.state(), State::Wired | State::Table) {
                check!(maps[n] == 0 && !listed[n], "I1: the kernel's {frame:?} is mapped or listed");
                continue;
            }
            check!(
                word.maps() == maps[n],
                "I2: {frame:?}, {:?} page {:#x} of {}, counts {} maps, and {} entries name it",
                word.state(),
                meta.index(),
                meta.owner(),
                word.maps(),
                maps[n]
            );
            let in_flight = word.any(Flags::ISOLATED | Flags::READING | Flags::WRITING);
            check!(
                listed[n] != (word.has(Flags::WIRED) || in_flight),
                "I1: {frame:?} is {} a list, word {:#x}",
                if listed[n] { "on" } else { "off" },
                word.0
            );
            check!(!word.is_unheld(), "I1: nothing holds {frame:?}, and it is not free");
            if word.state() == State::Anon {
                check!(spaces.families.get(meta.owner()).is_some(), "I3: {frame:?} has no family");
                let cached = meta.slot() != 0;
                check!(
                    cached == word.has(Flags::CACHED),
                    "I4: {frame:?}: slot {} and cached bit differ",
                    meta.slot()
                );
            } else {
                check!(
                    in_map[n] == word.has(Flags::CACHED),
                    "I3: {frame:?} is page {} of object {}, word {:#x}, slot {}, and its page map {} so",
                    meta.index(),
                    meta.owner(),
                    word.0,
                    meta.slot(),
                    if in_map[n] { "says" } else { "does not say" }
                );
            }
            if meta.slot() != 0 {
                let record = spaces.swap.record(frames, meta.slot());
                let named = record.and_then(|r| r.frame);
                check!(
                    named == Some(frame),
                    "I4: {frame:?} notes slot {}, which caches {named:?}",
                    meta.slot()
                );
            }
        }

        let mut wrong = None;
        spaces.swap.state.lock().slots.each(frames, |slot, record| {
            slots[record.account.0 as usize] += 1;
            let named = slot_refs.remove(&slot).unwrap_or(0);
            if record.refs as u32 != named {
                wrong =
                    Some(format!("I4: slot {slot} counts {} references, and {named} name it", record.refs));
            }
            if let Some(frame) = record.frame
                && frames.meta(frame).slot() != slot
            {
                wrong = Some(format!("I4: slot {slot} caches {frame:?}, which notes another"));
            }
        });
        check!(wrong.is_none(), "{}", wrong.unwrap_or_default());
        check!(slot_refs.is_empty(), "I4: entries name slots that are free: {slot_refs:?}");

        let mut unequal = None;
        frames.accounts.for_each(|id, _, stat| {
            let n = id.0 as usize;
            let seen = (core::mem::take(&mut charged[n]), core::mem::take(&mut slots[n]));
            if seen != ([stat.resident, stat.file, stat.tables], stat.swapped) {
                unequal = Some((id, seen, stat));
            }
        });
        check!(unequal.is_none(), "I6: charges differ from what is there: {unequal:?}");
        check!(charged.iter().all(|c| *c == [0; 3]), "I6: charged to no account: {charged:?}");
        Ok(())
    }

    /// Whether the reverse map of the frame leads to this page of this space, so that reclaim finds the entry there.
    fn leads_to(&self, frame: Pfn, space: SpaceId, page: Vpn) -> bool {
        let spaces = &self.spaces;
        let meta = spaces.frames.meta(frame);
        if meta.word().state() == State::Anon {
            let Some(family) = spaces.families.get(meta.owner()) else { return false };
            let mut found = false;
            family.each_page(Vpn(meta.index()), |at| found |= at == page);
            return found && family.members.lock().iter().any(|&(member, _)| member == space);
        }
        // Cut off by a truncation and still pinned: it is in no page map, and no entry names it.
        let Some(object) = spaces.objects.get(meta.owner()) else { return false };
        let mappings = object.mappings.lock();
        mappings.keys().any(|m| m.space == space && meta.index().wrapping_add(m.delta) == page.0)
    }
}

/// An entry of the leaf that is in none of the blocks where it would be looked for.
fn untold(frames: &Frames, leaf: Pfn) -> Option<(usize, Entry)> {
    let (used, own) = frames.meta(leaf).blocks();
    let words = frames.phys.words(leaf).iter().map(|word| Entry::decode(word.load(Acquire)));
    words.enumerate().find(|&(n, entry)| {
        let found = |blocks: u32| blocks >> (n / 16) & 1 == 1;
        let of_object = match entry {
            Entry::Present { frame, .. } => {
                matches!(frames.meta(frame).word().state(), State::File | State::Shared)
            }
            _ => false,
        };
        entry != Entry::Absent && !(found(used) && (of_object || found(own)))
    })
}
