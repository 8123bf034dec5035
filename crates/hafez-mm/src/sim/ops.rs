//! What programs do: one random operation, and what must come of it.
//!
//! Each function calls the core, then tells the oracle what that means. A call's last attempt is one step that nothing
//! interrupts, so at its return the oracle is brought to the same state; what the call refused is held against the
//! oracle as it is then. Loads and stores are judged in the moment in which they happen.

use super::oracle::{Cell, Verdict, WORDS};
use super::world::{State, World, anonymous, words};
use super::{calls, files};
use crate::addr::{PAGE_SIZE, PageRange, VirtAddr, Vpn};
use crate::{Access, Rights};
use std::rc::Rc;

/// Pages where programs map, chosen to need several leaves and upper nodes.
pub const ZONES: [(u64, u64); 3] = [(0x1F0, 0x210), (0x600, 0x618), (0xA00, 0xA20)];
/// Sections of threads, which end in the midst of zones: where they are, and how many pages each has, as a power of two.
pub const SECTIONS: (PageRange, u32) = (PageRange::new(Vpn(0x208), Vpn(0xA08)), 10);
/// Where mappings without an address go: below.
pub const MAP_TOP: u64 = 0xA20;
/// Where regions are that huge pages fit in.
pub const WIDE: (u64, u64) = (0x1000, 0x1600);
pub const HEAP: u64 = 0x620;
/// The page after the stack's last, and how many pages it may grow to.
pub const STACK_TOP: u64 = (1 << 18) + 0x100;
pub const STACK_PAGES: u64 = 12;

const READ: Access = Access { write: false, exec: false };
const WRITE: Access = Access { write: true, exec: false };

type Operation = fn(&Rc<World>, u64);

/// Operations and how often each is chosen.
const MIX: &[(u32, Operation)] = &[
    (240, load),
    (280, store),
    (20, |w, p| with_cell(w, p, |w, p, page| load_page(w, p, Vpn(page)))),
    (30, fill_page),
    (20, touch_stack),
    (8, speculate),
    (16, calls::map_anonymous),
    (14, calls::map_object),
    (6, calls::map_shared),
    (10, calls::unmap),
    (14, calls::protect),
    (12, calls::remap),
    (4, calls::turn),
    (16, calls::advise),
    (6, calls::brk),
    (4, calls::wire),
    (5, calls::fork),
    (1, calls::exit),
    (2, calls::thread),
    (4, calls::residency),
    (6, calls::other_memory),
    (2, |w, _| w.memory().reclaim_to_high()),
    (20, files::read),
    (20, files::write),
    (4, files::resize),
    (4, files::punch),
    (5, files::sync),
    (3, files::sync_mapping),
    (2, files::invalidate),
    (2, files::prefetch),
    (3, files::hold),
    (1, files::replace),
];

/// A place where programs map: in one of so many cases where huge pages fit in, if they do that at all.
pub fn zone(world: &World, wide: u32) -> (u64, u64) {
    if world.setup.wide && world.random.one_in(wide) {
        return WIDE;
    }
    ZONES[world.random.below(ZONES.len() as u64) as usize]
}

/// No program maps anything from here on but its stack.
pub fn top(world: &World) -> u64 {
    if world.setup.wide { WIDE.1 } else { MAP_TOP }
}

pub fn random(world: &Rc<World>, process: u64) {
    if world.setup.wide && world.random.one_in(12) {
        return super::wide::random(world, process);
    }
    let weights: Vec<u32> = MIX.iter().map(|m| m.0).collect();
    MIX[world.random.weighted(&weights)].1(world, process);
}

/// A page that programs may use: mostly one that the process has mapped.
pub fn any_page(world: &World, process: u64) -> u64 {
    let (from, to) = zone(world, 3);
    let page = world.random.range(from, to);
    if world.random.one_in(8) {
        return page;
    }
    let state = world.state.borrow();
    let Some(process) = state.processes.get(&process) else { return page };
    // The stack is left alone: where it grows to is told by faults.
    let mut found = process.cells.range(page..top(world)).chain(process.cells.range(..top(world)));
    found.next().map_or(page, |(&page, _)| page)
}

fn with_cell(world: &Rc<World>, process: u64, f: fn(&Rc<World>, u64, u64)) {
    let page = any_page(world, process);
    f(world, process, page);
}

pub fn load(world: &Rc<World>, process: u64) {
    let page = any_page(world, process);
    load_word(world, process, page);
}

pub fn load_word(world: &Rc<World>, process: u64, page: u64) {
    let n = world.random.below(WORDS as u64) as usize;
    compare(world, process, page, n..n + 1);
}

pub fn load_page(world: &Rc<World>, process: u64, page: Vpn) {
    compare(world, process, page.0, 0..WORDS);
}

/// Load words and hold them against the oracle.
fn compare(world: &Rc<World>, number: u64, page: u64, range: std::ops::Range<usize>) {
    let exec = world.random.one_in(20);
    let access = Access { write: false, exec };
    let at = VirtAddr((page << 12) | (range.start as u64 * 8));
    let phys = world.machine.phys();
    let result = world.access(number, at, access, |state, frame| {
        state.tally.loads += 1;
        let Some(process) = state.processes.get(&number) else { return };
        let cell = process.cells.get(&page);
        match state.oracle.judge(cell, access) {
            Verdict::Unknown => return,
            Verdict::Fails(why) => panic!("process {number} may read page {page:#x}, which is {why:?}"),
            Verdict::Works => {}
        }
        let Some(cell) = cell else { return };
        let mut bytes = [0; PAGE_SIZE];
        phys.read(frame, 0, &mut bytes);
        let found = words(&bytes);
        for n in range.clone().filter(|&n| state.oracle.loadable(cell, n..n + 1)) {
            let expected = state.oracle.word(cell, n);
            assert_eq!(
                found[n],
                expected,
                "wrong data: process {number}, page {page:#x}, word {n}, {frame:?}: {:#x} instead of {expected:#x} (backing {:?}, private {})",
                found[n],
                cell.backing,
                cell.private.is_some(),
            );
        }
    });
    if let Err(error) = result {
        world.check_error(number, Vpn(page), access, error);
    }
}

pub fn store(world: &Rc<World>, process: u64) {
    let page = any_page(world, process);
    let n = world.random.below(WORDS as u64) as usize;
    let word = if world.random.one_in(4) { 0 } else { world.random.next() };
    store_words(world, process, page, n, &[word]);
}

/// A whole page of one word, as freshly allocated memory often is.
fn fill_page(world: &Rc<World>, process: u64) {
    let page = any_page(world, process);
    let word = if world.random.one_in(2) { 0 } else { world.random.next() };
    store_words(world, process, page, 0, &[word; WORDS]);
}

pub fn store_words(world: &Rc<World>, number: u64, page: u64, n: usize, words: &[u64]) {
    let at = VirtAddr((page << 12) | (n as u64 * 8));
    {
        // Past the end of a file nobody promises anything; and what a call under way changes is left alone.
        let state = world.state.borrow();
        let Some(process) = state.processes.get(&number) else { return };
        if let Some(cell) = process.cells.get(&page)
            && (!state.oracle.storable(cell, n..n + words.len())
                || matches!(state.oracle.judge(Some(cell), WRITE), Verdict::Unknown))
        {
            return;
        }
    }
    let phys = world.machine.phys();
    let result = world.access(number, at, WRITE, |state, frame| {
        let State { processes, oracle, tally, .. } = state;
        let Some(process) = processes.get_mut(&number) else { return };
        let verdict = oracle.judge(process.cells.get(&page), WRITE);
        if let Verdict::Fails(why) = verdict {
            panic!("process {number} may write page {page:#x}, which is {why:?}");
        }
        let Some(cell) = process.cells.get_mut(&page) else { return };
        if matches!(verdict, Verdict::Unknown) || !oracle.storable(cell, n..n + words.len()) {
            // The object has changed since the look above; the fault may have copied its page meanwhile.
            cell.vague |= !cell.shared && cell.private.is_none();
            return;
        }
        for (i, word) in words.iter().enumerate() {
            phys.write(frame, (n + i) * 8, &word.to_le_bytes());
        }
        oracle.store(cell, n, words);
        tally.stores += 1;
    });
    if let Err(error) = result {
        world.check_error(number, Vpn(page), WRITE, error);
    }
}

/// A processor may translate any page at any time, without a program's wish.
fn speculate(world: &Rc<World>, process: u64) {
    let page = any_page(world, process);
    let Some(space) = world.state.borrow().processes.get(&process).map(|p| p.space.clone()) else { return };
    let _ =
        world.machine.access(super::machine::current_cpu(), space.root(), Vpn(page).addr(), READ, |_, _| ());
}

/// Below the stack's lowest page a write extends it.
fn touch_stack(world: &Rc<World>, number: u64) {
    let Some((start, space)) =
        world.state.borrow().processes.get(&number).map(|p| (p.stack.0, p.space.clone()))
    else {
        return;
    };
    if start == STACK_TOP {
        return calls::map_stack(world, number);
    }
    let page = world.random.range(STACK_TOP - STACK_PAGES - 2, STACK_TOP);
    if page >= start {
        return if world.random.one_in(2) {
            load_word(world, number, page)
        } else {
            store_words(world, number, page, 8, &[world.random.next()])
        };
    }
    let result = world.memory().fault(&space, Vpn(page).addr(), WRITE);
    let mut state = world.state.borrow_mut();
    let Some(process) = state.processes.get_mut(&number) else { return };
    match result {
        Ok(()) => {
            assert!(STACK_TOP - page <= STACK_PAGES, "the stack grew past its limit");
            for page in page..process.stack.0 {
                process.cells.insert(page, anonymous(Rights::READ | Rights::WRITE));
            }
            process.stack.0 = page.min(process.stack.0);
        }
        Err(error) => {
            // It may have grown before the want of a frame.
            for page in page..process.stack.0 {
                if space.region_at(Vpn(page).addr()).is_some() {
                    process.cells.insert(page, anonymous(Rights::READ | Rights::WRITE));
                    process.stack.0 = process.stack.0.min(page);
                }
            }
            drop(state);
            if STACK_TOP - page <= STACK_PAGES {
                world.check_error(number, Vpn(page), WRITE, error);
            }
        }
    }
}

/// A cell of the process, and how many pages from there on could be of one region with it.
pub fn run_of(state: &State, number: u64, page: u64) -> Option<(Cell, u64)> {
    let cells = &state.processes.get(&number)?.cells;
    let first = cells.get(&page)?;
    let mut len = 1;
    while let (Some(a), Some(b)) = (cells.get(&(page + len - 1)), cells.get(&(page + len)))
        && a.like(b)
    {
        len += 1;
    }
    Some((first.clone(), len))
}
