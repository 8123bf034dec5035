//! Reclaim: getting frames back.
//!
//! ```text
//!   huge pages?          -> open them, and free what is nothing but zeroes          (space/huge.rs)
//!   policy says   Age   -> walk the page tables, used pages become young          (age.rs)
//!                 Take  -> evict a batch from the old end of one list              (evict.rs)
//! ```
//!
//! It runs in two places: in the reclaim thread, which keeps the number of free frames between two watermarks, and in
//! a program's own fault that found none, which does one bounded batch itself. Both hold no lock when they come here.

pub mod age;
pub mod discard;
pub mod evict;
pub mod policy;

use crate::frame::lists::{Arrival, Kind};
use crate::lock::Mutex;
use crate::space::Spaces;
use crate::swap::IoError;
use crate::{Platform, keys};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering::*};
pub use evict::{BATCH, Progress};
pub use policy::{Policy, PolicyKind, Step, View};

pub struct Reclaim {
    policy: Mutex<Box<dyn Policy>>,
    /// Copy of the policy's generation for used pages.
    young: AtomicU8,
    /// Batches in a row that gained nothing.
    fruitless: AtomicU32,
    /// Batches begun, and ended, on all CPUs.
    begun: AtomicU32,
    ended: AtomicU32,
}

impl Reclaim {
    pub fn new(kind: PolicyKind) -> Self {
        Reclaim {
            policy: Mutex::new(kind.make()),
            young: AtomicU8::new(0),
            fruitless: AtomicU32::new(0),
            begun: AtomicU32::new(0),
            ended: AtomicU32::new(0),
        }
    }

    /// Batches ended since boot, and those under way: they have frames in hand that may be free soon, or are back on their lists.
    pub fn progress(&self) -> (u32, u32) {
        let ended = self.ended.load(SeqCst);
        (ended, self.begun.load(SeqCst).wrapping_sub(ended))
    }

    /// Changes whenever a batch begins or ends.
    pub fn moves(&self) -> (u32, u32) {
        (self.begun.load(SeqCst), self.ended.load(SeqCst))
    }

    pub fn policy_name(&self) -> &'static str {
        self.policy.lock().name()
    }

    /// Tell the lists where pages go from now on.
    pub fn publish<P: Platform>(&self, spaces: &Spaces<P>) {
        let policy = self.policy.lock();
        for arrival in [Arrival::Wanted, Arrival::Ahead, Arrival::Refault] {
            spaces.frames.lists.set_place(arrival, policy.place(arrival));
        }
        self.young.store(policy.used(), Relaxed);
    }

    /// One batch. `None`: the policy has nothing that could be evicted.
    pub fn batch<P: Platform>(&self, spaces: &Spaces<P>) -> Option<Progress> {
        self.batch_of(spaces, false)
    }

    /// As [`Reclaim::batch`]; `hard`: take pages also that were used since the last look. Where others use all that there is faster
    /// than we come round, somebody has to lose.
    pub fn batch_of<P: Platform>(&self, spaces: &Spaces<P>, hard: bool) -> Option<Progress> {
        self.begun.fetch_add(1, SeqCst);
        let progress = self.one_batch(spaces, hard);
        self.ended.fetch_add(1, SeqCst);
        spaces.platform.wake(keys::FREED);
        progress
    }

    fn one_batch<P: Platform>(&self, spaces: &Spaces<P>, hard: bool) -> Option<Progress> {
        // Before anything is evicted: what a huge page holds beyond what is used must not cost a page its place.
        if let Some(freed) = spaces.open_some() {
            return Some(Progress { freed, ..Progress::default() });
        }
        let step = {
            let mut policy = self.policy.lock();
            let view = View {
                lengths: spaces.frames.lists.lengths(),
                can_swap: spaces.swap.has_room(),
                better_loss: self.try_other(spaces.balance.better_loss()),
                resident: spaces.frames.usable - spaces.frames.free(),
            };
            let step = policy.next(&view);
            match step {
                Step::Age => policy.age(),
                // To unmap and sum pages that cannot be written now would be work for nothing.
                Step::Take { kind: Kind::Swapped, .. } if !spaces.swap.can_write() => {
                    return Some(Progress { blocked: true, ..Progress::default() });
                }
                Step::Take { .. } => policy.took(),
                Step::Nothing => {}
            }
            step
        };
        match step {
            Step::Nothing => None,
            Step::Age => {
                self.publish(spaces);
                self.walk(spaces, self.young.load(Relaxed));
                Some(Progress::default())
            }
            Step::Take { kind, generation } => {
                let mut unclean = None;
                let progress = self.evict(spaces, (kind, generation), hard, &mut unclean);
                match progress.freed + progress.queued {
                    0 => self.fruitless.fetch_add(1, Relaxed),
                    _ => self.fruitless.swap(0, Relaxed),
                };
                if let Some(object) = unclean {
                    spaces.help_write_back(&object);
                }
                Some(progress)
            }
        }
    }

    /// What is left of a kind may be such that nothing can be had of it: pinned, or dirty and not to be written. So after
    /// two rounds in vain, the other kind gets as many.
    fn try_other(&self, kind: Kind) -> Kind {
        match (self.fruitless.load(Relaxed) / 2 % 2, kind) {
            (0, kind) => kind,
            (_, Kind::Swapped) => Kind::File,
            (_, Kind::File) => Kind::Swapped,
        }
    }

    /// The device answered a write.
    pub fn write_done<P: Platform>(&self, spaces: &Spaces<P>, token: u32, result: Result<(), IoError>) {
        for page in spaces.swap.take_back(token) {
            self.written(spaces, page, result);
        }
        spaces.swap.close(token);
    }
}
