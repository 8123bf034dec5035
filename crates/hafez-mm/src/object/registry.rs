//! Numbers for things that frames refer to: a frame's record has room for a number, not for a reference.

use crate::lock::RwLock;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Things by number, from 1 on; numbers are used again.
pub struct Registry<T> {
    slots: RwLock<Slots<T>>,
}

struct Slots<T> {
    things: Vec<Option<Arc<T>>>,
    free: Vec<u32>,
}

impl<T> Registry<T> {
    pub const fn new() -> Self {
        Registry { slots: RwLock::new(Slots { things: Vec::new(), free: Vec::new() }) }
    }

    /// Make a thing that knows its number.
    pub fn add(&self, make: impl FnOnce(u32) -> T) -> Arc<T> {
        let mut slots = self.slots.write();
        let at = slots.free.pop().unwrap_or(slots.things.len() as u32);
        let thing = Arc::new(make(at + 1));
        match slots.things.get_mut(at as usize) {
            Some(slot) => *slot = Some(thing.clone()),
            None => slots.things.push(Some(thing.clone())),
        }
        thing
    }

    pub fn get(&self, number: u32) -> Option<Arc<T>> {
        self.slots.read().things.get((number as usize).checked_sub(1)?)?.clone()
    }

    pub fn remove(&self, number: u32) -> Option<Arc<T>> {
        let mut slots = self.slots.write();
        let thing = slots.things.get_mut((number as usize).checked_sub(1)?)?.take()?;
        slots.free.push(number - 1);
        Some(thing)
    }

    /// The first thing whose number is above `after`, to go through all without holding the lock.
    pub fn next(&self, after: u32) -> Option<(u32, Arc<T>)> {
        let slots = self.slots.read();
        (after as usize..slots.things.len()).find_map(|n| Some((n as u32 + 1, slots.things[n].clone()?)))
    }
}
