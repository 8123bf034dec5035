//! The reverse map of anonymous memory: from a frame to the entries that may name it.
//!
//! Fork gives the child the parent's pages at the parent's addresses. So the spaces that descend from one exec form a
//! *family*, an anonymous frame notes its family and its page number, and the entries that can name it are those of
//! the family's members at that page. Nothing is kept for each page, and fork adds one member.
//!
//! `mremap` is the exception. A page that is the mover's alone simply notes its new number; for one that is shared the
//! move is recorded as an alias, and the candidates are then the page and what it was moved to, in every member.
//! The candidates are hints: the cursor sees whether an entry there really names the frame.

use crate::SpaceId;
use crate::account::AccountId;
use crate::addr::{PageRange, Vpn};
use crate::lock::Mutex;
use alloc::vec::Vec;
use arrayvec::ArrayVec;

/// The spaces that share an ancestor since its exec.
pub struct Family {
    pub id: u32,
    /// And who pays for each: a page is most likely to be found with the one that it is charged to.
    pub members: Mutex<Vec<(SpaceId, AccountId)>>,
    aliases: Mutex<Vec<(PageRange, Vpn)>>,
}

impl Family {
    pub fn new(id: u32) -> Self {
        Family { id, members: Mutex::new(Vec::new()), aliases: Mutex::new(Vec::new()) }
    }

    /// Shared pages of `from` are from now on at `to` in some member.
    pub fn add_alias(&self, from: PageRange, to: Vpn) {
        let mut aliases = self.aliases.lock();
        if !aliases.contains(&(from, to)) {
            aliases.push((from, to));
        }
    }

    /// Each page number at which the page noted as `page` may be found. Moves count in both directions: a page that
    /// comes back from swap notes the number at which it was wanted, in whichever member that was.
    pub fn each_page(&self, page: Vpn, mut f: impl FnMut(Vpn)) {
        let aliases = self.aliases.lock();
        if aliases.is_empty() {
            return f(page);
        }
        // What the moves lead to, and on from there. A page that was moved more often has to stay in RAM.
        let mut found: ArrayVec<Vpn, 64> = ArrayVec::new();
        found.push(page);
        let mut next = 0;
        while let Some(&at) = found.get(next) {
            next += 1;
            for &(old, new) in aliases.iter() {
                let landed = PageRange::new(new, new.add(old.len()));
                let there = old.contains(at).then(|| new.add(at.since(old.start)));
                let back = landed.contains(at).then(|| old.start.add(at.since(new)));
                for page in there.into_iter().chain(back) {
                    if !found.contains(&page) && found.try_push(page).is_err() {
                        break;
                    }
                }
            }
        }
        drop(aliases);
        found.into_iter().for_each(f);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_page_moved_twice_is_still_found() {
        let family = Family::new(1);
        family.add_alias(PageRange::new(Vpn(10), Vpn(20)), Vpn(100));
        family.add_alias(PageRange::new(Vpn(105), Vpn(107)), Vpn(200));
        let mut found = vec![];
        family.each_page(Vpn(16), |p| found.push(p.0));
        found.sort();
        assert_eq!(found, [16, 106, 201]);
        let mut found = vec![];
        family.each_page(Vpn(201), |p| found.push(p.0));
        found.sort();
        assert_eq!(found, [16, 106, 201], "and the same from where it is now");
    }
}
