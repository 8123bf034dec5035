//! A processor's way from a page to a frame: translation caches in front of a walk through the page tables.
//!
//! The walk is written from the architecture's manual, not with the core's own decoding, so that the two check each
//! other. It does what hardware does to the entries that it uses:
//!
//! - it sets the accessed bit, and the dirty bit before the first write, by an atomic exchange of the entry that it
//!   looked at; if that changed meanwhile, it walks again;
//! - a translation is used, without another look at the tables, until it is flushed or falls out of the cache. One
//!   that is cached as dirty writes without touching the entry. So what the core forgets to flush is a wrong read, or
//!   a write into somebody else's frame;
//! - the way through the upper nodes is cached too, up to the leaf, and goes with any flush of its space;
//! - a large entry is cached in pieces of a page, as processors may; a flush of one page takes that piece alone. One that is
//!   left when the page has become small is stale, also where frame and rights are the same;
//! - a fault drops the cached translation of its address.
//!
//! [`Cpu::stale`] says what no program could: whether a cached translation has lost its right to be. The tests ask it
//! at every use.

use super::random::Random;
use crate::PhysMap;
use crate::addr::{Pfn, Vpn};
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::collections::HashMap;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// The processor could not: what a page fault tells the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageFault;

/// A cached translation.
#[derive(Clone, Copy, Debug)]
pub struct Cached {
    pub frame: Pfn,
    pub writable: bool,
    pub executable: bool,
    pub dirty: bool,
    /// A piece of a large page.
    pub large: bool,
}

/// Translations that one processor caches, by root and page.
#[derive(Default)]
pub struct Cpu {
    translations: HashMap<(Pfn, u64), Cached>,
    /// By root and page / 512: the leaf, and whether the way there lets one write.
    leaves: HashMap<(Pfn, u64), (Pfn, bool)>,
}

/// Translations cached at most, of all spaces together.
const CAPACITY: usize = 48;

impl Cpu {
    /// The frame for an access, as hardware finds it: for the space of this root, going by that one.
    pub fn translate(
        &mut self,
        phys: &PhysMap,
        random: &Random,
        (root, way): (Pfn, Pfn),
        page: Vpn,
        write: bool,
        execute: bool,
    ) -> Result<Pfn, PageFault> {
        let key = (root, page.0);
        if let Some(cached) = self.translations.get(&key) {
            if write && !cached.writable || execute && !cached.executable {
                self.translations.remove(&key);
                return Err(PageFault);
            }
            if !write || cached.dirty {
                return Ok(cached.frame);
            }
        }
        match self.walk(phys, (root, way), page, write, execute) {
            Some(cached) => {
                if self.translations.len() >= CAPACITY {
                    self.drop_one(random);
                }
                self.translations.insert(key, cached);
                Ok(cached.frame)
            }
            None => {
                self.translations.remove(&key);
                self.leaves.remove(&(root, page.0 >> 9));
                Err(PageFault)
            }
        }
    }

    fn walk(
        &mut self,
        phys: &PhysMap,
        (root, way): (Pfn, Pfn),
        page: Vpn,
        write: bool,
        execute: bool,
    ) -> Option<Cached> {
        let cached = self.leaves.get(&(root, page.0 >> 9));
        let (word, guard_off) =
            match cached.map_or_else(|| way_to(phys, way, page), |&(l, w)| Way::Leaf(l, w)) {
                Way::None => return None,
                Way::Large(word) => (word, true),
                Way::Leaf(leaf, guard_off) => {
                    self.leaves.insert((root, page.0 >> 9), (leaf, guard_off));
                    (phys.word(leaf, (page.0 & 511) as usize), guard_off)
                }
            };
        loop {
            let bits = word.load(SeqCst);
            if bits & (PRESENT | USER) != PRESENT | USER
                || write && (bits & WRITABLE == 0 || !guard_off)
                || execute && bits & NO_EXECUTE != 0
            {
                return None;
            }
            let used = bits | ACCESSED | if write { DIRTY } else { 0 };
            if used == bits || word.compare_exchange(bits, used, SeqCst, SeqCst).is_ok() {
                return Some(read(used, guard_off, page));
            }
        }
    }

    fn drop_one(&mut self, random: &Random) {
        // The order of a hash map is not the seed's: choose by key.
        let mut keys: Vec<_> = self.translations.keys().copied().collect();
        keys.sort_unstable();
        let key = keys[random.below(keys.len() as u64) as usize];
        self.translations.remove(&key);
    }

    /// Forget one page of a space, and all ways through its upper nodes.
    pub fn forget_page(&mut self, root: Pfn, page: Vpn) {
        self.translations.remove(&(root, page.0));
        self.leaves.retain(|key, _| key.0 != root);
    }

    /// Forget all of a space.
    pub fn forget_space(&mut self, root: Pfn) {
        self.translations.retain(|key, _| key.0 != root);
        self.leaves.retain(|key, _| key.0 != root);
    }

    /// The cached translations of a space, in order.
    pub fn of_space(&self, root: Pfn) -> Vec<(Vpn, Cached)> {
        let mut found: Vec<_> = self
            .translations
            .iter()
            .filter(|(key, _)| key.0 == root)
            .map(|(key, &c)| (Vpn(key.1), c))
            .collect();
        found.sort_unstable_by_key(|(page, _)| *page);
        found
    }

    /// Every cached translation that the tables no longer back, with why.
    pub fn stale(&self, phys: &PhysMap) -> Option<String> {
        self.translations.iter().find_map(|(&(root, page), cached)| {
            let why = stale(phys, root, Vpn(page), cached)?;
            Some(format!("root {root:?}, page {page:#x}: {why}"))
        })
    }

    /// Whether the translation that an access to this page would use is still backed, and the way that a walk would go.
    pub fn stale_at(&self, phys: &PhysMap, root: Pfn, page: Vpn) -> Option<String> {
        if let Some(&(leaf, writable)) = self.leaves.get(&(root, page.0 >> 9)) {
            let now = match way_to(phys, root, page) {
                Way::Leaf(leaf, writable) => Some((leaf, writable)),
                _ => None,
            };
            if now.is_none_or(|now| now.0 != leaf || writable && !now.1) {
                return Some(format!("the way is cached as {:?}, and is {now:?}", (leaf, writable)));
            }
        }
        stale(phys, root, page, self.translations.get(&(root, page.0))?)
    }
}

fn stale(phys: &PhysMap, root: Pfn, page: Vpn, cached: &Cached) -> Option<String> {
    let (bits, writable) = match way_to(phys, root, page) {
        Way::None => (0, false),
        Way::Large(word) => (word.load(SeqCst), true),
        Way::Leaf(leaf, writable) => (phys.word(leaf, (page.0 & 511) as usize).load(SeqCst), writable),
    };
    let now = read(bits, writable, page);
    let why = if bits & PRESENT == 0 {
        "the page is not present"
    } else if now.large != cached.large {
        "the page has another size"
    } else if now.frame != cached.frame {
        "the page is in another frame"
    } else if cached.writable && !now.writable {
        "the page may not be written"
    } else if cached.executable && !now.executable {
        "the page may not be executed"
    } else if cached.dirty && !now.dirty {
        "writes through it would leave no mark"
    } else {
        return None;
    };
    Some(format!("{why}: cached {cached:?}, entry {bits:#x}"))
}

/// What an entry gives, behind upper entries that let one write or not. What may not be written needs no mark of it.
fn read(bits: u64, writable: bool, page: Vpn) -> Cached {
    let writable = writable && bits & WRITABLE != 0;
    let large = bits & LARGE != 0;
    let first = Pfn(((bits & ADDRESS) >> 12) as u32);
    assert!(!large || first.0.is_multiple_of(512), "a large page at an odd place");
    Cached {
        frame: if large { first.add((page.0 & 511) as u32) } else { first },
        large,
        writable,
        executable: bits & NO_EXECUTE == 0,
        dirty: writable && bits & DIRTY != 0,
    }
}

/// Where the way through the upper nodes ends.
enum Way<'a> {
    None,
    /// At the entry that names 512 frames.
    Large(&'a AtomicU64),
    /// At a leaf, and whether all entries on the way there let one write: only the last may forbid it.
    Leaf(Pfn, bool),
}

fn way_to(phys: &PhysMap, root: Pfn, page: Vpn) -> Way<'_> {
    let (mut node, mut writable) = (root, true);
    for level in [3u32, 2, 1] {
        let word = phys.word(node, (page.0 >> (9 * level) & 511) as usize);
        let bits = word.load(SeqCst);
        if bits & PRESENT == 0 {
            return Way::None;
        }
        if level == 1 && bits & LARGE != 0 {
            return Way::Large(word);
        }
        assert_eq!(bits & (USER | LARGE | NO_EXECUTE), USER, "an upper entry forbids something");
        assert!(writable, "a guard above the last but one");
        writable = bits & WRITABLE != 0;
        node = Pfn(((bits & ADDRESS) >> 12) as u32);
    }
    Way::Leaf(node, writable)
}
