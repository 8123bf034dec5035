//! Operations on objects without mapping them, as a file system does them for read, write, truncate and fsync.
//!
//! One call at a time changes an object's size or punches holes, as an inode's lock has it; what it is changing is
//! marked unstable until it returns, since others may see any state in between.

use super::ops::any_page;
use super::oracle::WORDS;
use super::tasks;
use super::world::{Known, World, words};
use crate::account::AccountId;
use crate::addr::{PAGE_SIZE, PageRange, Vpn};
use crate::space::FaultError;
use std::rc::Rc;

const PAGE: u64 = PAGE_SIZE as u64;

pub fn any(world: &World) -> Option<Known> {
    let state = world.state.borrow();
    if state.objects.is_empty() {
        return None;
    }
    Some(state.objects[world.random.below(state.objects.len() as u64) as usize].clone())
}

/// An object, locked until `f` has returned.
fn with_lock(world: &Rc<World>, f: impl FnOnce(&Known)) {
    let Some(known) = any(world) else { return };
    if world.state.borrow().locked.contains(&known.number) {
        return;
    }
    // The lock is taken on an open file.
    world.state.borrow_mut().locked.push(known.number);
    f(&known);
    world.state.borrow_mut().locked.retain(|&n| n != known.number);
}

/// A failed access to an object's page: only what was promised to fail may.
fn check(world: &World, known: &Known, error: FaultError) {
    match error {
        // The kernel asked: there is no process that could go for it.
        FaultError::OutOfMemory => assert!(!world.setup.roomy, "no memory for an object's page"),
        FaultError::Io => {
            let swap =
                known.file.is_none() && world.machine.disk.as_ref().is_some_and(|d| d.faults().can_lose());
            assert!(swap || known.file.as_ref().is_some_and(|f| f.can_fail()), "an I/O error on good disks");
            world.state.borrow_mut().tally.io_errors += 1;
        }
        other => panic!("an object's page: {other:?}"),
    }
}

/// An object that is not retired until `f` has returned, as an open file keeps its inode.
fn with_use(world: &Rc<World>, f: impl FnOnce(&Known)) {
    let Some(known) = any(world) else { return };
    world.state.borrow_mut().used.push(known.number);
    f(&known);
    let mut state = world.state.borrow_mut();
    let at = state.used.iter().position(|&n| n == known.number).expect("pushed above");
    state.used.swap_remove(at);
}

pub fn read(world: &Rc<World>, _: u64) {
    with_use(world, |known| read_page(world, known));
}

fn read_page(world: &World, known: &Known) {
    let end = world.state.borrow().oracle.objects[known.number].end();
    if end == 0 {
        return;
    }
    let index = world.random.below(end);
    match world.memory().object_page(&known.object, index, false) {
        Ok(pin) => {
            let mut bytes = [0; PAGE_SIZE];
            pin.read(0, &mut bytes);
            hold_against(world, known, index, &bytes);
        }
        Err(error) => check(world, known, error),
    }
}

fn hold_against(world: &World, known: &Known, index: u64, bytes: &[u8; PAGE_SIZE]) {
    let state = world.state.borrow();
    let content = &state.oracle.objects[known.number];
    if content.is_unstable(index) {
        return;
    }
    let found = words(bytes);
    for (n, &word) in found.iter().enumerate() {
        if index * PAGE + n as u64 * 8 + 8 > content.size {
            return;
        }
        let expected = content.pages.get(&index).map_or(0, |page| page[n]);
        assert_eq!(word, expected, "wrong data in object {}, page {index}, word {n}", known.number);
    }
}

pub fn write(world: &Rc<World>, _: u64) {
    with_lock(world, |known| {
        let end = world.state.borrow().oracle.objects[known.number].end();
        if end == 0 {
            return;
        }
        let (index, n) = (world.random.below(end), world.random.below(WORDS as u64) as usize);
        let words: Vec<u64> = match world.random.below(4) {
            0 => vec![0; WORDS],
            1 => (0..WORDS).map(|_| world.random.next()).collect(),
            _ => vec![world.random.next()],
        };
        let n = if words.len() > 1 { 0 } else { n };
        match world.memory().object_page(&known.object, index, true) {
            Ok(pin) => {
                let mut state = world.state.borrow_mut();
                let content = &mut state.oracle.objects[known.number];
                let room = content.size.saturating_sub(index * PAGE + n as u64 * 8) / 8;
                let words = &words[..words.len().min(room as usize)];
                let page = content.pages.entry(index).or_insert_with(|| Rc::new([0; WORDS]));
                Rc::make_mut(page)[n..n + words.len()].copy_from_slice(words);
                for (i, word) in words.iter().enumerate() {
                    pin.write((n + i) * 8, &word.to_le_bytes());
                }
                state.oracle.note_written(known.number, index);
            }
            Err(error) => check(world, known, error),
        }
    });
}

pub fn resize(world: &Rc<World>, _: u64) {
    with_lock(world, |known| {
        let old = world.state.borrow().oracle.objects[known.number].size;
        let size = match world.random.below(4) {
            0 => world.random.below(20) * PAGE,
            1 => old + world.random.below(2 * PAGE),
            _ => world.random.below(20 * PAGE),
        };
        world.state.borrow_mut().oracle.objects[known.number].unstable =
            Some((size.min(old) / PAGE, u64::MAX));
        // The file first when it grows, so that no page is written past its end; last when it shrinks, when no
        // write-back is under way any more.
        if let Some(file) = known.file.as_ref().filter(|_| size > old) {
            file.resize(size);
        }
        let result = world.memory().object_resize(&known.object, size);
        world.say(|| format!("resize object {} to {size:#x} -> {result:?}", known.number));
        if let Some(file) = &known.file {
            file.resize(if result.is_ok() { size } else { old });
        }
        let mut state = world.state.borrow_mut();
        let content = &mut state.oracle.objects[known.number];
        content.unstable = None;
        content.dropped += 1;
        match result {
            Ok(()) => {
                content.zero(size.min(old), u64::MAX - PAGE);
                content.size = size;
                let end = content.end();
                state.oracle.clock += 1;
                // The copies that were made of pages past the end go with them.
                for cell in state.processes.values_mut().flat_map(|process| process.cells.values_mut()) {
                    let past =
                        cell.backing.is_some_and(|(object, index)| object == known.number && index >= end);
                    if past && size < old {
                        cell.private = None;
                    }
                }
            }
            Err(error) => {
                drop(state);
                check(world, known, error);
                // The tail could not be had: the old size stands.
            }
        }
    });
}

pub fn punch(world: &Rc<World>, _: u64) {
    with_lock(world, |known| {
        if known.file.is_some() {
            return;
        }
        let from = world.random.below(20 * PAGE);
        let to = from + world.random.range(0, 5 * PAGE);
        world.state.borrow_mut().oracle.objects[known.number].unstable =
            Some((from / PAGE, to.div_ceil(PAGE)));
        let result = world.memory().object_punch(&known.object, from, to);
        let mut state = world.state.borrow_mut();
        let content = &mut state.oracle.objects[known.number];
        content.dropped += 1;
        content.unstable = None;
        if let Err(error) = result {
            // Some of it may be gone, some not: nobody can say any more.
            content.lost = true;
            drop(state);
            return check(world, known, error);
        }
        content.zero(from, to);
    });
}

/// What was written before is in the file when this returns.
pub fn sync(world: &Rc<World>, _: u64) {
    with_lock(world, |known| {
        let before = world.state.borrow().oracle.clock;
        world.say(|| format!("sync {} begins", known.number));
        let result = world.memory().object_sync(&known.object);
        world.say(|| format!("sync {} -> {result:?}", known.number));
        let Some(file) = &known.file else { return assert_eq!(result, Ok(())) };
        if result.is_err() {
            return assert!(file.can_fail(), "a write error on a good disk");
        }
        let state = world.state.borrow();
        let content = &state.oracle.objects[known.number];
        if content.unstable.is_some() || content.lost {
            return;
        }
        for index in 0..content.end() {
            // What was written meanwhile may be there or not; and another's write-back under way may have taken a
            // page out of our hands.
            if content.written.get(&index).is_some_and(|&at| at > before) {
                continue;
            }
            let found = words(&file.page(index));
            for (n, &word) in found.iter().enumerate() {
                if index * PAGE + n as u64 * 8 + 8 <= content.size {
                    let expected = content.pages.get(&index).map_or(0, |page| page[n]);
                    assert_eq!(
                        word, expected,
                        "object {} was synced, but page {index}, word {n} is not",
                        known.number
                    );
                }
            }
        }
    });
}

pub fn sync_mapping(world: &Rc<World>, number: u64) {
    let Some(space) = world.state.borrow().processes.get(&number).map(|p| p.space.clone()) else { return };
    let page = any_page(world, number);
    let _ = world.memory().sync(&space, PageRange::new(Vpn(page), Vpn(page + 3)));
}

pub fn invalidate(world: &Rc<World>, _: u64) {
    with_lock(world, |known| {
        if known.file.is_some() {
            world.memory().object_invalidate(&known.object);
        }
    });
}

pub fn prefetch(world: &Rc<World>, _: u64) {
    with_use(world, |known| {
        world.memory().object_prefetch(&known.object, world.random.below(10), world.random.below(20));
    });
}

/// Hold a page while others run, as a copy to a program does that must fault: its frame stays the page's.
pub fn hold(world: &Rc<World>, _: u64) {
    with_use(world, |known| hold_page(world, known));
}

fn hold_page(world: &World, known: &Known) {
    let (end, dropped) = {
        let state = world.state.borrow();
        let content = &state.oracle.objects[known.number];
        (content.end(), content.dropped)
    };
    if end == 0 {
        return;
    }
    let index = world.random.below(end);
    let pin = match world.memory().object_page(&known.object, index, true) {
        Ok(pin) => pin,
        Err(error) => return check(world, known, error),
    };
    for _ in 0..world.random.below(20) {
        tasks::pause();
    }
    let still = {
        let state = world.state.borrow();
        let content = &state.oracle.objects[known.number];
        content.dropped == dropped && content.unstable.is_none() && !content.lost
    };
    let mut bytes = [0; PAGE_SIZE];
    pin.read(0, &mut bytes);
    if still {
        hold_against(world, known, index, &bytes);
        // The bytes come late: a write-back may have gone by since the page was asked for.
        let word = world.random.next();
        let mut state = world.state.borrow_mut();
        let content = &mut state.oracle.objects[known.number];
        if index * PAGE + 8 <= content.size {
            pin.write(0, &word.to_le_bytes());
            let page = content.pages.entry(index).or_insert_with(|| Rc::new([0; WORDS]));
            Rc::make_mut(page)[0] = word;
            state.oracle.note_written(known.number, index);
        }
    }
}

/// An object's last name goes, and another comes: what is mapped lives on.
pub fn replace(world: &Rc<World>, _: u64) {
    let Some(known) = any(world) else { return };
    if world.state.borrow().locked.contains(&known.number) || known.file.is_some() {
        return;
    }
    if world.state.borrow().used.contains(&known.number) {
        return;
    }
    world.state.borrow_mut().objects.retain(|k| k.number != known.number);
    world.memory().object_retire(&known.object);
    world.add_object(false);
}

/// Who pays for objects that outlive processes.
pub const PAYER: AccountId = AccountId::KERNEL;
