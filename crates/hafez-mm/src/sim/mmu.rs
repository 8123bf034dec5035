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
//! - a fault drops the cached translation of its address.
//!
//! [`Cpu::stale`] says what no program could: whether a cached translation has lost its right to be. The tests ask it
//! at every use.

use super::random::Random;
use crate::PhysMap;
use crate::addr::{Pfn, Vpn};
use core::sync::atomic::Ordering::SeqCst;
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
    /// The frame for an access, as hardware finds it.
    pub fn translate(
        &mut self,
        phys: &PhysMap,
        random: &Random,
        root: Pfn,
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
        match self.walk(phys, root, page, write, execute) {
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

    fn walk(&mut self, phys: &PhysMap, root: Pfn, page: Vpn, write: bool, execute: bool) -> Option<Cached> {
        let (leaf, guard_off) = match self.leaves.get(&(root, page.0 >> 9)) {
            Some(&leaf) => leaf,
            None => {
                let leaf = leaf_of(phys, root, page)?;
                self.leaves.insert((root, page.0 >> 9), leaf);
                leaf
            }
        };
        let word = phys.word(leaf, (page.0 & 511) as usize);
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
                return Some(read(used, guard_off));
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
            let now = leaf_of(phys, root, page);
            if now.is_none_or(|now| now.0 != leaf || writable && !now.1) {
                return Some(format!("the way is cached as {:?}, and is {now:?}", (leaf, writable)));
            }
        }
        stale(phys, root, page, self.translations.get(&(root, page.0))?)
    }
}

fn stale(phys: &PhysMap, root: Pfn, page: Vpn, cached: &Cached) -> Option<String> {
    let (leaf, writable) = leaf_of(phys, root, page).unzip();
    let bits = leaf.map_or(0, |leaf| phys.word(leaf, (page.0 & 511) as usize).load(SeqCst));
    let now = read(bits, writable == Some(true));
    let why = if bits & PRESENT == 0 {
        "the page is not present"
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
fn read(bits: u64, writable: bool) -> Cached {
    let writable = writable && bits & WRITABLE != 0;
    Cached {
        frame: Pfn(((bits & ADDRESS) >> 12) as u32),
        writable,
        executable: bits & NO_EXECUTE == 0,
        dirty: writable && bits & DIRTY != 0,
    }
}

/// The leaf that a page is in, and whether all entries on the way there let one write: only the last may forbid it.
fn leaf_of(phys: &PhysMap, root: Pfn, page: Vpn) -> Option<(Pfn, bool)> {
    let (mut node, mut writable) = (root, true);
    for level in [3u32, 2, 1] {
        let bits = phys.word(node, (page.0 >> (9 * level) & 511) as usize).load(SeqCst);
        if bits & PRESENT == 0 {
            return None;
        }
        assert_eq!(bits & (USER | LARGE | NO_EXECUTE), USER, "an upper entry forbids something");
        assert!(writable, "a guard above the last but one");
        writable = bits & WRITABLE != 0;
        node = Pfn(((bits & ADDRESS) >> 12) as u32);
    }
    Some((node, writable))
}
