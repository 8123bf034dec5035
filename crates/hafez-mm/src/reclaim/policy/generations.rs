//! Generations: age is told by walks over the page tables, not by a hand that meets pages one by one.
//!
//! ```text
//!   walk:  a new youngest generation opens; every page accessed since the last walk moves into it
//!   take:  from the oldest generation that has pages, whatever was not used since
//! ```
//!
//! Four generations turn like a wheel: number `n` is list `n mod 4`, so opening a new one moves nothing. It cannot
//! open while the oldest still holds pages; then those go first. A walk costs a look at each entry and is paid only
//! when the two oldest generations are used up, so each page has been seen unused by at least one walk before it goes,
//! if memory allows. Pages read ahead start one generation older than pages that were asked for.

use super::{Policy, Step, View, cheaper};
use crate::frame::lists::{Arrival, GENERATIONS, Kind};

#[derive(Default)]
pub struct Generations {
    /// Number of the youngest generation, ever growing.
    youngest: u32,
    /// Walks since something was taken: two without a gain, and the youngest must do.
    walks: u32,
}

impl Generations {
    fn list(&self, age: u32) -> u8 {
        (self.youngest.wrapping_sub(age) % GENERATIONS as u32) as u8
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
        let pages = |age: u32| {
            let list = self.list(age) as usize;
            let swapped = if view.can_swap { view.lengths[Kind::Swapped as usize][list] } else { 0 };
            [swapped, view.lengths[Kind::File as usize][list]]
        };
        let Some(age) = (0..GENERATIONS as u32).rev().find(|&age| pages(age) != [0, 0]) else {
            return Step::Nothing;
        };
        if age < 2 && self.walks < 2 {
            return Step::Age;
        }
        let kind = cheaper(view, pages(age));
        self.walks = 0;
        Step::Take { kind, generation: self.list(age) }
    }
    fn age(&mut self) {
        self.youngest = self.youngest.wrapping_add(1);
        self.walks += 1;
    }
}
