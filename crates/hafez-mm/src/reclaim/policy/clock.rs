//! CLOCK: one circle a kind, and a hand. A page under the hand that was used since the hand last passed gets its
//! second chance, at the far end of the circle; one that was not, goes. Here the circle is generation 0.

use super::{Policy, Step, View, cheaper};
use crate::frame::lists::{Arrival, Kind};

pub struct Clock;

impl Policy for Clock {
    fn name(&self) -> &'static str {
        "clock"
    }
    fn place(&self, _: Arrival) -> u8 {
        0
    }
    fn used(&self) -> u8 {
        0
    }
    fn next(&mut self, view: &View) -> Step {
        let pages = [view.lengths[Kind::Swapped as usize][0], view.lengths[Kind::File as usize][0]];
        if pages == [0, 0] || pages[1] == 0 && !view.can_swap {
            return Step::Nothing;
        }
        Step::Take { kind: cheaper(view, pages), generation: 0 }
    }
}
