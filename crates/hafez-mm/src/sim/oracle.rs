//! The oracle: what every word of every space and every object must read, kept as flat as can be.
//!
//! A space is a map from page to [`Cell`]: rights, flags, the object behind it, and the private page if one was written.
//! No regions, no frames, no sharing of anything. Copies are made when they are due (a fork copies all), with reference
//! counts underneath only to save time. Each call on the core is applied here when it returns, as its last attempt is
//! one step that nothing interrupts.

use crate::addr::PAGE_SIZE;
use crate::space::FaultError;
use crate::{Access, Rights};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Words of a page.
pub const WORDS: usize = PAGE_SIZE / 8;
pub type Page = [u64; WORDS];

/// A page of a space.
#[derive(Clone)]
pub struct Cell {
    pub rights: Rights,
    pub max_rights: Rights,
    pub shared: bool,
    /// The object's number in [`Oracle::objects`], and its page.
    pub backing: Option<(usize, u64)>,
    /// What was written privately.
    pub private: Option<Rc<Page>>,
    pub dont_fork: bool,
    pub wipe_on_fork: bool,
    pub wired: bool,
    /// A private copy may have been made while its object was changing: nothing can be said of its bytes.
    pub vague: bool,
    pub random: bool,
    pub sequential: bool,
    /// Whether huge pages were asked for, or refused.
    pub huge: Option<bool>,
}

impl Cell {
    /// Whether the next page could be of the same region, as far as attributes go.
    pub fn like(&self, other: &Cell) -> bool {
        let attributes = |c: &Cell| {
            let forks = (c.dont_fork, c.wipe_on_fork);
            (c.rights, c.max_rights, c.shared, forks, c.wired, c.random, c.sequential, c.huge)
        };
        let backing = match (self.backing, other.backing) {
            (None, None) => true,
            (Some((a, i)), Some((b, j))) => a == b && i + 1 == j,
            _ => false,
        };
        backing && attributes(self) == attributes(other)
    }
}

/// An object's content.
#[derive(Default)]
pub struct Content {
    pub pages: BTreeMap<u64, Rc<Page>>,
    pub size: u64,
    /// When each page was last written, in steps of [`Oracle::clock`].
    pub written: BTreeMap<u64, u64>,
    /// Pages that a call under way is changing: nothing can be said of them.
    pub unstable: Option<(u64, u64)>,
    /// A call failed half-way: nothing can be said of any of its bytes from then on.
    pub lost: bool,
    /// Times that pages were dropped.
    pub dropped: u64,
}

impl Content {
    pub fn end(&self) -> u64 {
        self.size.div_ceil(PAGE_SIZE as u64)
    }
    pub fn is_unstable(&self, index: u64) -> bool {
        self.lost || self.unstable.is_some_and(|(from, to)| (from..to).contains(&index))
    }
    /// Bytes `[from, to)` read as zero from now on.
    pub fn zero(&mut self, from: u64, to: u64) {
        let page = PAGE_SIZE as u64;
        let indices: Vec<u64> = self.pages.range(from / page..to.div_ceil(page)).map(|(&i, _)| i).collect();
        for index in indices {
            let (start, end) = (index * page, (index + 1) * page);
            if from <= start && end <= to {
                self.pages.remove(&index);
                continue;
            }
            let Some(content) = self.pages.get_mut(&index) else { continue };
            let content = Rc::make_mut(content);
            for n in 0..WORDS {
                let at = start + n as u64 * 8;
                for byte in 0..8 {
                    if (from..to).contains(&(at + byte)) {
                        content[n] &= !(0xFF << (8 * byte));
                    }
                }
            }
        }
    }
}

/// A space's pages.
pub type Cells = BTreeMap<u64, Cell>;

#[derive(Default)]
pub struct Oracle {
    pub objects: Vec<Content>,
    pub clock: u64,
}

/// What can be said of an access.
pub enum Verdict {
    /// Nothing: a call under way changes the page.
    Unknown,
    Fails(FaultError),
    Works,
}

impl Oracle {
    /// What an access to a page must come to.
    pub fn judge(&self, cell: Option<&Cell>, access: Access) -> Verdict {
        let Some(cell) = cell else { return Verdict::Fails(FaultError::NotMapped) };
        let wanted = if access.write {
            Rights::WRITE
        } else if access.exec {
            Rights::EXEC
        } else {
            // What may be written or executed may be read: the processor cannot tell.
            Rights::all()
        };
        if !cell.rights.intersects(wanted) {
            return Verdict::Fails(FaultError::Denied);
        }
        if cell.vague {
            return Verdict::Unknown;
        }
        if let Some((object, index)) = cell.backing {
            let content = &self.objects[object];
            if content.is_unstable(index) {
                return Verdict::Unknown;
            }
            if cell.private.is_none() && index >= content.end() {
                return Verdict::Fails(FaultError::PastEnd);
            }
        }
        Verdict::Works
    }

    /// The page's content; `None` for zeroes.
    pub fn page<'a>(&'a self, cell: &'a Cell) -> Option<&'a Rc<Page>> {
        match (&cell.private, cell.backing) {
            (Some(page), _) => Some(page),
            (None, Some((object, index))) => self.objects[object].pages.get(&index),
            (None, None) => None,
        }
    }

    pub fn word(&self, cell: &Cell, n: usize) -> u64 {
        self.page(cell).map_or(0, |page| page[n])
    }

    /// Whether bytes of the word may be stored: not past the end of an object, where nobody says what becomes of them.
    pub fn storable(&self, cell: &Cell, words: std::ops::Range<usize>) -> bool {
        match cell.backing {
            Some((object, index)) => {
                index * PAGE_SIZE as u64 + words.end as u64 * 8 <= self.objects[object].size
            }
            None => true,
        }
    }

    /// Whether the word is within what an object's size covers, so that a load can be judged.
    pub fn loadable(&self, cell: &Cell, words: std::ops::Range<usize>) -> bool {
        cell.private.is_some() || self.storable(cell, words)
    }

    /// Words of the page are these from now on.
    pub fn store(&mut self, cell: &mut Cell, at: usize, words: &[u64]) {
        let zeroes = || Rc::new([0; WORDS]);
        let page = match cell.backing {
            Some((object, index)) if cell.shared => {
                self.note_written(object, index);
                self.objects[object].pages.entry(index).or_insert_with(zeroes)
            }
            _ => {
                if cell.private.is_none() {
                    cell.private = Some(self.page(cell).cloned().unwrap_or_else(zeroes));
                }
                cell.private.get_or_insert_with(zeroes)
            }
        };
        Rc::make_mut(page)[at..at + words.len()].copy_from_slice(words);
    }

    pub fn note_written(&mut self, object: usize, index: u64) {
        self.clock += 1;
        self.objects[object].written.insert(index, self.clock);
    }
}
