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

    /// Make a thing that knows its number; `None` where there is no room for one more.
    pub fn add(&self, make: impl FnOnce(u32) -> T) -> Option<Arc<T>> {
        self.add_of((), |number, ()| make(number)).ok()
    }

    /// The same, of parts that come back where there is no room.
    pub fn add_of<U>(&self, parts: U, make: impl FnOnce(u32, U) -> T) -> Result<Arc<T>, U> {
        let mut guard = self.slots.write();
        let slots = &mut *guard;
        // Each number can be given back without further room.
        let room = slots.things.try_reserve(1).is_ok()
            && slots.free.try_reserve_exact(slots.things.capacity() - slots.free.len()).is_ok();
        if !room {
            return Err(parts);
        }
        let at = slots.free.pop().unwrap_or(slots.things.len() as u32);
        let thing = Arc::new(make(at + 1, parts));
        match slots.things.get_mut(at as usize) {
            Some(slot) => *slot = Some(thing.clone()),
            None => slots.things.push(Some(thing.clone())),
        }
        Ok(thing)
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
