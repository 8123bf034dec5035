//! Regions that huge pages fit in: how programs come to have some, and what cuts them up.
//!
//! Nothing here knows where a huge page is: the core may make one or not. What it must not do is to show it in any byte.

use super::calls::{self, READ_WRITE};
use super::ops::{self, WIDE};
use super::world::{World, anonymous};
use crate::addr::{PageRange, Vpn};
use crate::paging::huge::PAGES;
use crate::space::Backing;
use crate::{Advice, Where};
use std::rc::Rc;

pub fn random(world: &Rc<World>, process: u64) {
    match world.random.below(18) {
        0..4 => map(world, process),
        4..8 => fill(world, process),
        8..10 => touch(world, process),
        10 => calls::unmap_range(world, process, part(world)),
        11 => calls::protect_range(world, process, part(world), READ_WRITE),
        12 => calls::advise_range(world, process, part(world), Advice::DontNeed),
        13 => calls::advise_range(world, process, part(world), Advice::Cold),
        14 => {
            let range = part(world);
            calls::remap_up_to(world, process, range.start.0, part(world).start.addr(), range.len());
        }
        15 => _ = world.memory().reclaim_some(),
        // Work comes at some page, or not before all is done.
        _ => _ = world.memory().use_idle_time(&|| world.random.one_in(700)),
    }
}

/// A range that may begin and end anywhere, but likes to do so where leaves do.
fn part(world: &World) -> PageRange {
    let edge = |world: &World| match world.random.one_in(2) {
        true => world.random.range(WIDE.0, WIDE.1),
        false => WIDE.0 + PAGES * world.random.below((WIDE.1 - WIDE.0) / PAGES + 1),
    };
    let (a, b) = (edge(world), edge(world));
    PageRange::new(Vpn(a.min(b)), Vpn(a.max(b).max(a.min(b) + 1).min(WIDE.1 + 1)))
}

fn map(world: &Rc<World>, process: u64) {
    let range = part(world);
    if range.end.0 > WIDE.1 {
        return;
    }
    let at = Where::Fixed(range.start.addr());
    let request = calls::request(at, range.len(), READ_WRITE, Backing::Anonymous, false);
    if calls::map(world, process, request, |_| anonymous(READ_WRITE)).is_some() && !world.random.one_in(4) {
        calls::advise_range(world, process, range, Advice::HugePage);
    }
    touch(world, process);
}

/// Write to page after page.
fn fill(world: &Rc<World>, process: u64) {
    let range = part(world);
    for page in range.iter() {
        let mapped =
            world.state.borrow().processes.get(&process).is_some_and(|p| p.cells.contains_key(&page.0));
        if mapped {
            ops::store_words(world, process, page.0, 3, &[world.random.next()]);
        }
    }
}

/// A page here and there.
fn touch(world: &Rc<World>, process: u64) {
    for _ in 0..8 {
        let page = world.random.range(WIDE.0, WIDE.1);
        let mapped =
            world.state.borrow().processes.get(&process).is_some_and(|p| p.cells.contains_key(&page));
        if mapped {
            ops::store_words(world, process, page, 5, &[world.random.next()]);
        }
    }
}
