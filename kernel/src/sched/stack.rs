//! Kernel stacks: 16 KiB each, in a window of their own, with a hole below that catches an overflow.
//!
//! ```text
//!   slot n:  | hole, 8 KiB, never mapped | stack, 16 KiB |
//! ```
//!
//! A few free stacks are kept mapped: most programs fork and exit all the time.

use crate::{arch, arch::paging, mem};
use arrayvec::ArrayVec;
use hafez_mm::lock::Mutex;
use hafez_mm::{PAGE_SIZE, Pfn};

/// Never mapped: an overflow ends in a fault, not in the next stack.
const HOLE_BYTES: u64 = 8 << 10;
const SLOT_BYTES: u64 = HOLE_BYTES + arch::STACK_BYTES as u64;
/// As many threads as there can be: 16384 (384 MiB of the window's GiB).
const SLOTS: usize = 1 << 14;
const _: () = assert!(SLOTS as u64 * SLOT_BYTES <= 1 << 30);
/// Free stacks that stay mapped.
const KEEP: usize = 4;

/// A mapped stack that is nobody else's.
pub struct Stack {
    slot: usize,
}

struct Slots {
    used: [u64; SLOTS / 64],
    /// No slot below this word is free.
    search_from: usize,
    kept: ArrayVec<Stack, KEEP>,
}

static SLOTS_IN_USE: Mutex<Slots> =
    Mutex::new(Slots { used: [0; SLOTS / 64], search_from: 0, kept: ArrayVec::new_const() });

impl Stack {
    /// A stack; `None` where there is no memory or no slot.
    pub fn take() -> Option<Stack> {
        let stack = Stack::find();
        #[cfg(feature = "watermark")]
        if let Some(stack) = &stack {
            arch::watermark::paint(stack.bottom(), arch::STACK_BYTES);
        }
        stack
    }

    /// How deep it is by now.
    #[cfg(feature = "watermark")]
    pub fn look(&self, name: &str) {
        arch::watermark::look(self.bottom(), arch::STACK_BYTES, name);
    }

    fn find() -> Option<Stack> {
        let slot = {
            let mut slots = SLOTS_IN_USE.lock();
            if let Some(stack) = slots.kept.pop() {
                return Some(stack);
            }
            let word = (slots.search_from..slots.used.len()).find(|&i| slots.used[i] != u64::MAX)?;
            slots.search_from = word;
            let bit = slots.used[word].trailing_ones() as usize;
            slots.used[word] |= 1 << bit;
            word * 64 + bit
        };
        let stack = Stack { slot };
        for page in 0..arch::STACK_BYTES / PAGE_SIZE {
            let at = stack.bottom() + (page * PAGE_SIZE) as u64;
            let Some(frame) = mem::wired(0) else {
                stack.unmap();
                return None;
            };
            if !map(at, frame) {
                mem::free_wired(frame, 0);
                stack.unmap();
                return None;
            }
        }
        Some(stack)
    }

    fn bottom(&self) -> u64 {
        paging::STACKS + self.slot as u64 * SLOT_BYTES + HOLE_BYTES
    }
    /// The first address past it.
    pub fn top(&self) -> u64 {
        self.bottom() + arch::STACK_BYTES as u64
    }

    /// Nobody is on it any more.
    pub fn give_back(self) {
        let result = SLOTS_IN_USE.lock().kept.try_push(self);
        if let Err(full) = result {
            full.element().unmap();
        }
    }

    fn unmap(self) {
        paging::unmap_stack_pages(self.bottom(), arch::STACK_BYTES / PAGE_SIZE, &mut |frame| {
            mem::free_wired(frame, 0);
        });
        let mut slots = SLOTS_IN_USE.lock();
        slots.used[self.slot / 64] &= !(1 << (self.slot % 64));
        slots.search_from = slots.search_from.min(self.slot / 64);
    }
}

/// Map one page; `false` where there was no frame for a table. Tables are taken with no lock held.
fn map(at: u64, frame: Pfn) -> bool {
    let mut tables: ArrayVec<Pfn, 2> = ArrayVec::new();
    let done = loop {
        if paging::map_stack_page(at, frame, &mut tables) {
            break true;
        }
        match mem::wired(0) {
            Some(table) => tables.push(table),
            None => break false,
        }
    };
    tables.into_iter().for_each(|table| mem::free_wired(table, 0));
    done
}
