//! An object's page map: for each page index, the frame that holds it or the slot that it was swapped to.
//!
//! Sixteen neighbours share one small node (128 bytes), found through an ordered map: a file of a few pages costs one
//! node, a large one 9 bytes a page, and a fault that also maps what lies around it finds all of that in one node.

use crate::addr::Pfn;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;

/// Pages in a node.
pub const NODE: u64 = 16;

/// Where a page of an object is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Not here: in the file, or a hole.
    Nowhere,
    /// In this frame (which may still be on its way in: see its flags).
    Frame(Pfn),
    /// In this slot of swap.
    Swap(u32),
}

#[derive(Default)]
pub struct Pages {
    nodes: BTreeMap<u64, Box<[u64; NODE as usize]>>,
    frames: u64,
    slots: u64,
}

fn decode(bits: u64) -> Place {
    match bits & 3 {
        1 => Place::Frame(Pfn((bits >> 2) as u32)),
        2 => Place::Swap((bits >> 2) as u32),
        _ => Place::Nowhere,
    }
}

fn encode(place: Place) -> u64 {
    match place {
        Place::Nowhere => 0,
        Place::Frame(frame) => (frame.0 as u64) << 2 | 1,
        Place::Swap(slot) => (slot as u64) << 2 | 2,
    }
}

impl Pages {
    pub const fn new() -> Self {
        Pages { nodes: BTreeMap::new(), frames: 0, slots: 0 }
    }

    /// Pages in RAM.
    pub fn resident(&self) -> u64 {
        self.frames
    }

    /// Pages in RAM or in swap.
    pub fn held(&self) -> u64 {
        self.frames + self.slots
    }

    #[inline]
    pub fn get(&self, index: u64) -> Place {
        self.nodes.get(&(index / NODE)).map_or(Place::Nowhere, |n| decode(n[(index % NODE) as usize]))
    }

    /// Put a page somewhere else; where it was.
    pub fn set(&mut self, index: u64, place: Place) -> Place {
        let at = (index % NODE) as usize;
        let old = if place == Place::Nowhere {
            let Some(node) = self.nodes.get_mut(&(index / NODE)) else { return Place::Nowhere };
            let old = core::mem::take(&mut node[at]);
            if node.iter().all(|&bits| bits == 0) {
                self.nodes.remove(&(index / NODE));
            }
            old
        } else {
            let node = self.nodes.entry(index / NODE).or_insert_with(|| Box::new([0; NODE as usize]));
            core::mem::replace(&mut node[at], encode(place))
        };
        self.count(decode(old), -1);
        self.count(place, 1);
        decode(old)
    }

    fn count(&mut self, place: Place, change: i64) {
        match place {
            Place::Frame(_) => self.frames = self.frames.wrapping_add_signed(change),
            Place::Swap(_) => self.slots = self.slots.wrapping_add_signed(change),
            Place::Nowhere => {}
        }
    }

    /// The first page at or after `from` that is somewhere.
    pub fn next(&self, from: u64) -> Option<(u64, Place)> {
        self.nodes.range(from / NODE..).find_map(|(&n, node)| {
            let skip = if n == from / NODE { from % NODE } else { 0 };
            let at = (skip..NODE).find(|&i| node[i as usize] != 0)?;
            Some((n * NODE + at, decode(node[at as usize])))
        })
    }

    /// The pages of the node that `index` is in, with the index of the first.
    #[inline]
    pub fn around(&self, index: u64) -> Option<(u64, impl Fn(u64) -> Place)> {
        let node = self.nodes.get(&(index / NODE))?;
        Some((index / NODE * NODE, move |i: u64| decode(node[(i % NODE) as usize])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_kept_counted_and_found_in_order() {
        let mut pages = Pages::new();
        assert_eq!(pages.set(5, Place::Frame(Pfn(7))), Place::Nowhere);
        assert_eq!(pages.set(40, Place::Swap(9)), Place::Nowhere);
        assert_eq!((pages.resident(), pages.held()), (1, 2));
        assert_eq!(pages.next(0), Some((5, Place::Frame(Pfn(7)))));
        assert_eq!(pages.next(6), Some((40, Place::Swap(9))));
        assert_eq!(pages.set(5, Place::Nowhere), Place::Frame(Pfn(7)));
        assert_eq!(pages.set(40, Place::Nowhere), Place::Swap(9));
        assert_eq!(pages.next(0), None);
        assert_eq!((pages.resident(), pages.held(), pages.nodes.len()), (0, 0, 0));
    }
}
