//! Replacement policies: which page goes when one must.
//!
//! A policy decides; the mechanism (`evict.rs`, `age.rs`) does. It never sees a frame: it says which generation a page
//! joins, and from which list the next victims come, or that page tables should be walked first to learn what has
//! been used. So a policy is some thirty lines of plain logic, and every eviction order it can think of is safe.

mod clock;
mod generations;

use crate::frame::lists::{Arrival, Kind, Lengths};
use alloc::boxed::Box;
pub use clock::Clock;
pub use generations::Generations;

/// What reclaim should do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Walk the page tables; pages accessed since the last walk join [`Policy::used`].
    Age,
    /// Evict from the old end of this list what has not been used.
    Take { kind: Kind, generation: u8 },
    /// There is nothing to take.
    Nothing,
}

/// What a policy may know.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub lengths: Lengths,
    /// Whether pages can go to swap at all now.
    pub can_swap: bool,
    /// The kind whose evictions came back least lately.
    pub better_loss: Kind,
    /// Frames in use.
    pub resident: u32,
}

/// A replacement policy.
pub trait Policy: Send {
    fn name(&self) -> &'static str;
    /// The generation that a page joins which arrives so.
    fn place(&self, arrival: Arrival) -> u8;
    /// The generation that a page joins which was found used.
    fn used(&self) -> u8;
    /// What to do next.
    fn next(&mut self, view: &View) -> Step;
    /// The walk that [`Step::Age`] asks for begins now.
    fn age(&mut self) {}
    /// The batch that [`Step::Take`] asks for is taken now. It is not where the disk has enough to write already.
    fn took(&mut self) {}
}

/// The policies by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PolicyKind {
    /// Ageing by generations; the default.
    Generations,
    /// The textbook's second chance.
    Clock,
}

impl PolicyKind {
    pub fn make(self) -> Box<dyn Policy> {
        match self {
            PolicyKind::Generations => Box::new(Generations::default()),
            PolicyKind::Clock => Box::new(Clock),
        }
    }
}

/// Which kind to take from where both may have pages that are equally old.
fn cheaper(view: &View, pages: [u32; 2]) -> Kind {
    match pages {
        [0, _] => Kind::File,
        [_, 0] => Kind::Swapped,
        _ if !view.can_swap => Kind::File,
        _ => view.better_loss,
    }
}
