//! Generations: age is told by walks over the page tables, not by a hand that meets pages one by one.
//!
//! ```text
//!   walk:  a new youngest generation opens; every page accessed since the last walk moves into it
//!   take:  from the oldest generation that has pages, whatever was not used since
//! ```
//!
//! Four generations turn like a wheel: number `n` is list `n mod 4`, so opening a new one moves nothing. The two kinds
//! age together but are emptied apart: which one is taken from is decided by whose evictions were mistakes lately, so
//! that a program's text does not go to make room for data that is touched once.
//!
//! A walk looks at every entry, and tells little when the last one was a moment ago: everything would look unused. So
//! an eighth of RAM must have been evicted in between; until then the second oldest generation serves.

use super::{Policy, Step, View, cheaper};
use crate::frame::lists::{Arrival, GENERATIONS, Kind};
use crate::reclaim::BATCH;

/// The age of the oldest list.
const LAST: u32 = GENERATIONS as u32 - 1;

#[derive(Default)]
pub struct Generations {
    /// Number of the youngest generation, ever growing.
    youngest: u32,
    /// Walks since something was taken: two without a gain, and the youngest must do.
    walks: u32,
    /// Pages asked for since the last walk.
    taken: u32,
}

impl Generations {
    fn list(&self, age: u32) -> u8 {
        (self.youngest.wrapping_sub(age) % GENERATIONS as u32) as u8
    }

    /// The age of the kind's oldest page.
    fn oldest(&self, view: &View, kind: Kind) -> Option<u32> {
        let pages = |age: u32| view.lengths[kind as usize][self.list(age) as usize];
        (0..GENERATIONS as u32)
            .rev()
            .find(|&age| pages(age) > 0)
            .filter(|_| kind == Kind::File || view.can_swap)
    }
}

impl Policy for Generations {
    fn name(&self) -> &'static str {
        "generations"
    }
    fn place(&self, arrival: Arrival) -> u8 {
        match arrival {
            Arrival::Wanted | Arrival::Refault => self.list(0),
            Arrival::Ahead => self.list(1),
        }
    }
    fn used(&self) -> u8 {
        self.list(0)
    }
    fn next(&mut self, view: &View) -> Step {
        let ages = [self.oldest(view, Kind::Swapped), self.oldest(view, Kind::File)];
        let Some(oldest) = ages.into_iter().flatten().max() else { return Step::Nothing };
        let kind = cheaper(view, ages.map(|age| age.is_some() as u32));
        let age = ages[kind as usize].unwrap_or(oldest);
        let window = view.resident / 8;
        if age < 2 && (self.taken >= window || age == 0) && self.walks < 2 {
            // The wheel cannot turn while the oldest list holds pages of either kind.
            return match [Kind::Swapped, Kind::File].into_iter().find(|&k| ages[k as usize] == Some(LAST)) {
                Some(kind) => Step::Take { kind, generation: self.list(LAST) },
                None => Step::Age,
            };
        }
        Step::Take { kind, generation: self.list(age) }
    }
    fn took(&mut self) {
        self.walks = 0;
        self.taken += BATCH as u32;
    }
    fn age(&mut self) {
        self.youngest = self.youngest.wrapping_add(1);
        self.walks += 1;
        self.taken = 0;
    }
}
