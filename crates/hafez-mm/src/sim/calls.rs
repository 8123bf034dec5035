//! The calls on a space, each with its meaning told to the oracle.

use super::ops::{HEAP, MAP_TOP, STACK_PAGES, STACK_TOP, WIDE, ZONES, any_page, run_of, zone};
use super::oracle::{Cell, Verdict};
use super::world::{Process, World, anonymous};
use crate::addr::{PAGE_SIZE, PageRange, VirtAddr, Vpn};
use crate::space::{Backing, MmError, Space};
use crate::{Access, Advice, MapRequest, RemapHow, Rights, Where};
use std::rc::Rc;
use std::sync::Arc;

pub(super) const READ_WRITE: Rights = Rights::READ.union(Rights::WRITE);

pub(super) fn space_of(world: &World, number: u64) -> Option<Arc<Space>> {
    world.state.borrow().processes.get(&number).map(|p| p.space.clone())
}

/// A few pages somewhere in a zone, and never beyond its end.
fn any_range(world: &World, most: u64) -> PageRange {
    let (from, to) = zone(world, 24);
    let start = world.random.range(from, to);
    let end = (start + world.random.range(1, most + 1)).min(to);
    PageRange::new(Vpn(start), Vpn(end))
}

fn any_rights(world: &World) -> Rights {
    match world.random.below(8) {
        0 => Rights::empty(),
        1 => Rights::READ,
        2 => Rights::READ | Rights::EXEC,
        3 => Rights::WRITE,
        _ => READ_WRITE,
    }
}

pub(super) fn request(at: Where, pages: u64, rights: Rights, backing: Backing, shared: bool) -> MapRequest {
    MapRequest {
        at,
        pages,
        rights,
        max_rights: Rights::all(),
        backing,
        shared,
        label: None,
        grows_down: None,
        wired: false,
        special: crate::RegionFlags::empty(),
        by: Some(super::machine::current_cpu() as u32),
    }
}

/// Map, and note what `cell` says of each page.
pub(super) fn map(
    world: &World,
    number: u64,
    request: MapRequest,
    cell: impl Fn(u64) -> Cell,
) -> Option<u64> {
    let space = space_of(world, number)?;
    let (at, pages) = (request.at, request.pages);
    let result = world.memory().map(&space, request);
    world.say(|| format!("{number}: map {at:x?} {pages} -> {result:x?}"));
    let mut state = world.state.borrow_mut();
    let process = state.processes.get_mut(&number)?;
    let start = match result {
        Ok(at) => at.page().0,
        Err(error) => {
            let taken = |at: VirtAddr| process.cells.range(at.page().0..at.page().0 + pages).next().is_some();
            let right = match at {
                Where::FixedNoReplace(at) => error == MmError::Exists && taken(at),
                // Who is told to go gets no memory for its own copy of what it shares with others.
                Where::Fixed(_) => error == MmError::NoMemory && process.ending,
                _ => false,
            };
            assert!(right, "map at {at:?}: {error:?}");
            return None;
        }
    };
    match at {
        Where::Fixed(at) => assert_eq!(start, at.page().0),
        _ => assert!(process.cells.range(start..start + pages).next().is_none(), "mapped over something"),
    }
    for n in 0..pages {
        process.cells.insert(start + n, cell(n));
    }
    Some(start)
}

fn any_place(world: &World, range: PageRange) -> Where {
    match world.random.below(6) {
        0 => Where::Anywhere { hint: None },
        1 => Where::Anywhere { hint: Some(range.start.addr()) },
        2 => Where::FixedNoReplace(range.start.addr()),
        _ => Where::Fixed(range.start.addr()),
    }
}

/// Programs may not crowd the small world out.
fn has_room(world: &World, number: u64) -> bool {
    world.state.borrow().processes.get(&number).is_some_and(|p| p.cells.range(..WIDE.0).count() < 70)
}

pub fn map_anonymous(world: &Rc<World>, number: u64) {
    if !has_room(world, number) {
        return unmap(world, number);
    }
    let range = any_range(world, 16);
    let rights = any_rights(world);
    let request = request(any_place(world, range), range.len(), rights, Backing::Anonymous, false);
    map(world, number, request, |_| anonymous(rights));
}

pub fn map_stack(world: &Rc<World>, number: u64) {
    let at = Where::FixedNoReplace(Vpn(STACK_TOP - 2).addr());
    let mut request = request(at, 2, READ_WRITE, Backing::Anonymous, false);
    request.grows_down = Some(STACK_PAGES);
    if map(world, number, request, |_| anonymous(READ_WRITE)).is_some()
        && let Some(process) = world.state.borrow_mut().processes.get_mut(&number)
    {
        process.stack.0 = STACK_TOP - 2;
    }
}

pub fn map_object(world: &Rc<World>, number: u64) {
    let Some(known) = super::files::any(world) else { return };
    if !has_room(world, number) {
        return;
    }
    let (range, rights, shared) = (any_range(world, 10), any_rights(world), world.random.one_in(2));
    let first = world.random.below(12);
    let backing = Backing::Object { object: known.object.clone(), first };
    let request = request(any_place(world, range), range.len(), rights, backing, shared);
    let cell = |n| Cell { shared, backing: Some((known.number, first + n)), ..anonymous(rights) };
    map(world, number, request, cell);
}

/// Anonymous memory that children share: an object that goes with its last mapping.
pub fn map_shared(world: &Rc<World>, number: u64) {
    if !has_room(world, number) {
        return;
    }
    let Some(space) = space_of(world, number) else { return };
    let (range, rights) = (any_range(world, 6), any_rights(world));
    let size = range.len() * PAGE_SIZE as u64;
    let object = world.memory().new_object_shared(size, space.account()).expect("needs nothing");
    let id = {
        let mut state = world.state.borrow_mut();
        state.oracle.objects.push(super::oracle::Content { size, ..Default::default() });
        state.oracle.objects.len() - 1
    };
    let backing = Backing::Object { object: object.clone(), first: 0 };
    let request = request(any_place(world, range), range.len(), rights, backing, true);
    let cell = |n| Cell { shared: true, backing: Some((id, n)), ..anonymous(rights) };
    map(world, number, request, cell);
    world.memory().object_retire(&object);
}

pub fn unmap(world: &Rc<World>, number: u64) {
    let range = any_range(world, 12);
    unmap_range(world, number, range);
}

pub fn unmap_range(world: &Rc<World>, number: u64, range: PageRange) {
    let Some(space) = space_of(world, number) else { return };
    world.say(|| format!("{number}: unmap {range:x?}"));
    let result = world.memory().unmap(&space, range);
    let mut state = world.state.borrow_mut();
    if let Some(process) = state.processes.get_mut(&number) {
        if result.is_err() {
            return assert!(process.ending, "unmapping cannot fail: {result:?}");
        }
        process.cells.retain(|&page, _| !range.contains(Vpn(page)));
    }
}

pub fn protect(world: &Rc<World>, number: u64) {
    let page = any_page(world, number);
    let range = PageRange::new(Vpn(page), Vpn((page + world.random.range(1, 8)).min(STACK_TOP - 100)));
    protect_range(world, number, range, any_rights(world));
}

pub fn protect_range(world: &Rc<World>, number: u64, range: PageRange, rights: Rights) {
    let Some(space) = space_of(world, number) else { return };
    let result = world.memory().protect(&space, range, rights);
    world.say(|| format!("{number}: protect {range:x?} {rights:?} -> {result:?}"));
    let mut state = world.state.borrow_mut();
    let Some(process) = state.processes.get_mut(&number) else { return };
    if process.ending && result == Err(MmError::NoMemory) {
        return;
    }
    for page in range.iter() {
        let Some(cell) = process.cells.get_mut(&page.0) else {
            assert_eq!(result, Err(MmError::NotMapped));
            return;
        };
        cell.rights = rights;
    }
    assert_eq!(result, Ok(()));
}

pub fn remap(world: &Rc<World>, number: u64) {
    let at = any_page(world, number);
    let to = any_range(world, 1).start.addr();
    remap_up_to(world, number, at, to, 12);
}

/// Remap at most so many pages.
pub fn remap_up_to(world: &Rc<World>, number: u64, at: u64, to: VirtAddr, most: u64) {
    let Some(space) = space_of(world, number) else { return };
    let Some((_, run)) = run_of(&world.state.borrow(), number, at) else { return };
    let old = if world.random.one_in(12) { 0 } else { world.random.range(1, run.min(most) + 1) };
    let new = world.random.range(1, most + 1);
    let how = match world.random.below(6) {
        0 => RemapHow::InPlace,
        1 | 2 => RemapHow::MayMove,
        3 => RemapHow::DontUnmap(world.random.one_in(2).then_some(to)),
        4 => RemapHow::FixedDontUnmap(to),
        _ => RemapHow::Fixed(to),
    };
    let new =
        if matches!(how, RemapHow::DontUnmap(_) | RemapHow::FixedDontUnmap(_)) { old.max(1) } else { new };
    let bytes = PAGE_SIZE as u64;
    let result = world.memory().remap(&space, Vpn(at).addr(), old * bytes, new * bytes, how);
    world.say(|| format!("{number}: remap {at:#x} {old} -> {new} {how:x?} -> {result:x?}"));
    let mut state = world.state.borrow_mut();
    let Some(process) = state.processes.get_mut(&number) else { return };
    let to = match result {
        Ok(to) => to.page().0,
        // The target may have been cleared before memory ran out.
        Err(_) => {
            let fixed = matches!(how, RemapHow::Fixed(_) | RemapHow::FixedDontUnmap(_));
            let gone = |page| fixed && space.region_at(Vpn(page).addr()).is_none();
            return process.cells.retain(|&page, _| !gone(page));
        }
    };
    let Some(first) = process.cells.get(&at).cloned() else { panic!("remapped what is not there") };
    let keeps = matches!(how, RemapHow::DontUnmap(_) | RemapHow::FixedDontUnmap(_));
    let grown = |n: u64, from: &Cell| {
        let backing = first.backing.map(|(object, index)| (object, index + n));
        Cell { backing, private: None, vague: false, ..from.clone() }
    };
    if to == at && old != 0 {
        assert!(!keeps && !matches!(how, RemapHow::Fixed(_)));
        for n in new..old {
            process.cells.remove(&(at + n));
        }
        for n in old..new {
            let fresh = process.cells.insert(at + n, grown(n, &first)).is_none();
            assert!(fresh, "grew over something");
        }
        return;
    }
    assert!(how != RemapHow::InPlace);
    let moved: Vec<Option<Cell>> = (0..old).map(|n| process.cells.get(&(at + n)).cloned()).collect();
    for n in 0..old {
        match process.cells.get_mut(&(at + n)) {
            Some(cell) if keeps => (cell.private, cell.vague) = (None, false),
            _ => drop(process.cells.remove(&(at + n))),
        }
    }
    let fixed = matches!(how, RemapHow::Fixed(_) | RemapHow::FixedDontUnmap(_));
    for n in 0..new {
        let mut cell = grown(n, &first);
        if let Some(Some(old)) = moved.get(n as usize) {
            (cell.private, cell.vague) = (old.private.clone(), old.vague);
        }
        let before = process.cells.insert(to + n, cell);
        assert!(before.is_none() || fixed, "moved over something");
    }
}

/// Show other pages of the same object where some are shared.
pub fn turn(world: &Rc<World>, number: u64) {
    let Some(space) = space_of(world, number) else { return };
    let at = any_page(world, number);
    let Some((first, run)) = run_of(&world.state.borrow(), number, at) else { return };
    let (Some((object, _)), true) = (first.backing, first.shared) else { return };
    let (pages, index) = (world.random.range(1, run.min(8) + 1), world.random.below(12));
    let result = world.memory().turn_pages(&space, PageRange::new(Vpn(at), Vpn(at + pages)), index);
    world.say(|| format!("{number}: turn {at:#x} {pages} to {index} -> {result:?}"));
    let mut state = world.state.borrow_mut();
    let Some(process) = state.processes.get_mut(&number) else { return };
    // Another thread may have changed what was there meanwhile.
    if result.is_ok() {
        for n in 0..pages {
            let Some(cell) = process.cells.get_mut(&(at + n)) else { panic!("turned what is not there") };
            cell.backing = Some((object, index + n));
        }
    }
}

pub fn brk(world: &Rc<World>, number: u64) {
    let Some(space) = space_of(world, number) else { return };
    if space.heap().0 == VirtAddr(0) {
        world.memory().set_heap(&space, Vpn(HEAP).addr());
    }
    let to = VirtAddr((HEAP << 12) + world.random.below(12 * PAGE_SIZE as u64));
    let before = space.heap().1;
    let now = world.memory().brk(&space, to, 10 * PAGE_SIZE as u64);
    let page_end = |at: VirtAddr| at.0.div_ceil(PAGE_SIZE as u64);
    let mut state = world.state.borrow_mut();
    let Some(process) = state.processes.get_mut(&number) else { return };
    assert!(now == to || now == before);
    for page in page_end(now)..page_end(before) {
        process.cells.remove(&page);
    }
    for page in page_end(before)..page_end(now) {
        assert!(process.cells.insert(page, anonymous(READ_WRITE)).is_none());
    }
}

/// Lock a page or two, while few are; else unlock.
pub fn wire(world: &Rc<World>, number: u64) {
    let Some(space) = space_of(world, number) else { return };
    let page = any_page(world, number);
    let range = PageRange::new(Vpn(page), Vpn(page + world.random.range(1, 4)));
    let wired: usize = {
        let state = world.state.borrow();
        state.processes.values().map(|p| p.cells.values().filter(|c| c.wired).count()).sum()
    };
    let on = wired < 4 && world.random.one_in(2) && !would_copy(world, number, range);
    {
        let mut state = world.state.borrow_mut();
        let Some(process) = state.processes.get_mut(&number) else { return };
        for page in range.iter() {
            if let Some(cell) = process.cells.get_mut(&page.0) {
                cell.wired = on;
            }
        }
    }
    let result = world.memory().wire(&space, range, on);
    world.say(|| format!("{number}: wire {range:x?} {on} -> {result:?}"));
}

/// Whether faulting the range in for writing makes private copies of an object's pages: when, the oracle could not tell.
fn would_copy(world: &World, number: u64, range: PageRange) -> bool {
    let state = world.state.borrow();
    let Some(process) = state.processes.get(&number) else { return false };
    let copied = |c: &Cell| !c.shared && c.backing.is_some() && c.private.is_none();
    process.cells.range(range.start.0..range.end.0).any(|(_, cell)| copied(cell))
}

pub fn advise(world: &Rc<World>, number: u64) {
    const ADVICE: [Advice; 18] = [
        Advice::DontNeed,
        Advice::DontNeed,
        Advice::Free,
        Advice::Cold,
        Advice::PageOut,
        Advice::PageOut,
        Advice::WillNeed,
        Advice::Remove,
        Advice::DontFork,
        Advice::DoFork,
        Advice::WipeOnFork,
        Advice::KeepOnFork,
        Advice::Random,
        Advice::Normal,
        Advice::PopulateRead,
        Advice::PopulateWrite,
        Advice::HugePage,
        Advice::NoHugePage,
    ];
    let page = any_page(world, number);
    let range = PageRange::new(Vpn(page), Vpn(page + world.random.range(1, 10)));
    let advice = ADVICE[world.random.below(ADVICE.len() as u64) as usize];
    advise_range(world, number, range, advice);
}

pub fn advise_range(world: &Rc<World>, number: u64, range: PageRange, advice: Advice) {
    let Some(space) = space_of(world, number) else { return };
    if advice == Advice::PopulateWrite && would_copy(world, number, range) {
        return;
    }
    let locked = |process: &Process| -> Vec<u64> {
        let cells = process.cells.range(range.start.0..range.end.0);
        cells.filter(|(_, cell)| cell.wired).map(|(page, _)| *page).collect()
    };
    let before = world.state.borrow().processes.get(&number).map(locked);
    let result = world.memory().advise(&space, range, advice);
    world.say(|| format!("{number}: advise {range:x?} {advice:?} -> {result:?}"));
    let mut state = world.state.borrow_mut();
    let super::world::State { processes, oracle, objects, .. } = &mut *state;
    let Some(process) = processes.get_mut(&number) else { return };
    let minds_locks =
        matches!(advice, Advice::DontNeed | Advice::Free | Advice::Cold | Advice::PageOut | Advice::Remove);
    if minds_locks && before != Some(locked(process)) {
        // Another thread locked or unlocked some of it meanwhile: whether the call came before or after, nobody can say.
        process.cells.range_mut(range.start.0..range.end.0).for_each(|(_, cell)| cell.vague = true);
        return;
    }
    if process.ending && result == Err(MmError::NoMemory) {
        // Some of it may be done.
        process.cells.range_mut(range.start.0..range.end.0).for_each(|(_, cell)| cell.vague = true);
        return;
    }
    let hole = range.iter().any(|page| !process.cells.contains_key(&page.0));
    for page in range.iter() {
        let Some(cell) = process.cells.get_mut(&page.0) else { continue };
        let is_file =
            cell.backing.is_some_and(|(n, _)| objects.iter().any(|k| k.number == n && k.file.is_some()));
        let refused = match advice {
            Advice::DontNeed | Advice::Cold | Advice::PageOut => cell.wired,
            Advice::Free => cell.wired || cell.shared || cell.backing.is_some(),
            Advice::WipeOnFork => cell.shared || cell.backing.is_some(),
            Advice::Remove => cell.wired || !cell.shared || is_file || cell.backing.is_none(),
            _ => false,
        };
        if refused {
            // To remove what only a private mapping shows is not allowed; all else makes no sense.
            let private = advice == Advice::Remove && !cell.shared && !cell.wired && cell.backing.is_some();
            let of_file = advice == Advice::Remove && cell.shared && !cell.wired && is_file;
            let error = match (private, of_file) {
                (true, _) => MmError::Denied,
                (_, true) => MmError::Unsupported,
                _ => MmError::Invalid,
            };
            assert_eq!(result, Err(error), "{advice:?} at {page:?}");
            return;
        }
        match advice {
            Advice::DontNeed | Advice::Free => (cell.private, cell.vague) = (None, false),
            Advice::DontFork => cell.dont_fork = true,
            Advice::DoFork => cell.dont_fork = false,
            Advice::WipeOnFork => cell.wipe_on_fork = true,
            Advice::KeepOnFork => cell.wipe_on_fork = false,
            Advice::HugePage => cell.huge = Some(true),
            Advice::NoHugePage => cell.huge = Some(false),
            Advice::Random => (cell.random, cell.sequential) = (true, false),
            Advice::Normal => (cell.random, cell.sequential) = (false, false),
            _ => {}
        }
    }
    if advice == Advice::Remove && matches!(result, Ok(()) | Err(MmError::NotMapped)) {
        for page in range.iter() {
            let Some((object, index)) = process.cells.get(&page.0).and_then(|c| c.backing) else { continue };
            oracle.objects[object].pages.remove(&index);
            oracle.objects[object].dropped += 1;
            oracle.note_written(object, index);
        }
    }
    match advice {
        Advice::PopulateRead | Advice::PopulateWrite => {}
        // Evicting comes after the look at the regions, and may wait while another thread unmaps.
        Advice::PageOut if hole && result.is_ok() => {}
        _ if hole => assert_eq!(result, Err(MmError::NotMapped), "{advice:?}"),
        _ => assert!(result.is_ok() || process.ending, "{advice:?}: {result:?}"),
    }
}

pub fn fork(world: &Rc<World>, number: u64) {
    let Some(space) = space_of(world, number) else { return };
    if world.state.borrow().processes.len() > world.setup.processes {
        return if world.random.one_in(4) {
            exit(world, number)
        };
    }
    let Ok(account) = world.memory().open_account() else { return };
    let result = world.memory().fork_space(&space, account);
    world.say(|| format!("{number}: fork -> {:?}", result.as_ref().map(|s| s.id())));
    let child = match result {
        Ok(child) => child,
        Err(error) => {
            world.memory().close_account(account);
            assert!(error == MmError::NoMemory && !world.setup.roomy, "fork: {error:?}");
            return;
        }
    };
    let (cells, stack) = {
        let mut state = world.state.borrow_mut();
        state.tally.forks += 1;
        let Some(parent) = state.processes.get(&number) else { panic!("a process that forks lives") };
        let mut cells = parent.cells.clone();
        cells.retain(|_, cell| !cell.dont_fork);
        for cell in cells.values_mut() {
            cell.wired = false;
            if cell.wipe_on_fork {
                (cell.private, cell.vague) = (None, false);
            }
        }
        (cells, parent.stack)
    };
    let number = world.adopt(child, account, cells, stack);
    world.say(|| format!("{number}: is the child"));
}

pub fn exit(world: &Rc<World>, number: u64) {
    if let Some(process) = world.state.borrow_mut().processes.get_mut(&number) {
        process.ending = true;
    }
}

/// A second thread on the same space.
pub fn thread(world: &Rc<World>, number: u64) {
    let threads = world.state.borrow().processes.get(&number).map_or(9, |p| p.threads);
    if threads < world.setup.threads {
        world.start_thread(number);
    }
}

pub fn residency(world: &Rc<World>, number: u64) {
    let Some(space) = space_of(world, number) else { return };
    let range = any_range(world, 16);
    let mut seen = 0;
    let result = world.memory().residency(&space, range, &mut |_, _| seen += 1);
    let state = world.state.borrow();
    let Some(process) = state.processes.get(&number) else { return };
    let hole = range.iter().any(|page| !process.cells.contains_key(&page.0));
    assert_eq!(result.is_err(), hole);
    assert!(hole || seen == range.len());
    drop(state);
    world.memory().region_stat(&space, range);
}

/// Read or write memory by way of the core, as /proc/PID/mem does.
pub fn other_memory(world: &Rc<World>, number: u64) {
    let Some(space) = space_of(world, number) else { return };
    let page = any_page(world, number);
    let n = world.random.below(512) as usize;
    let at = VirtAddr((page << 12) | (n as u64 * 8));
    let write = world.random.one_in(2);
    let access = Access { write, exec: false };
    {
        // An object may change while the page is brought in; then nobody could say what was stored.
        let state = world.state.borrow();
        let cell = state.processes.get(&number).and_then(|p| p.cells.get(&page));
        if cell.is_some_and(|cell| cell.backing.is_some() && cell.private.is_none()) {
            return;
        }
    }
    let word = world.random.next();
    let mut bytes = [0; 8];
    let result = match write {
        true => world.memory().write_space(&space, at, &word.to_le_bytes()),
        false => world.memory().read_space(&space, at, &mut bytes),
    };
    let mut state = world.state.borrow_mut();
    let super::world::State { processes, oracle, .. } = &mut *state;
    let Some(process) = processes.get_mut(&number) else { return };
    match (result, process.cells.get_mut(&page)) {
        (Ok(()), Some(cell)) if matches!(oracle.judge(Some(cell), access), Verdict::Unknown) => {
            cell.vague = true
        }
        (Ok(()), Some(cell)) if write => oracle.store(cell, n, &[word]),
        (Ok(()), Some(cell)) => {
            assert_eq!(
                u64::from_le_bytes(bytes),
                oracle.word(cell, n),
                "wrong data by read_space, page {page:#x}"
            );
        }
        (Ok(()), None) => panic!("read or wrote what is not mapped"),
        (Err(error), _) => {
            drop(state);
            world.check_error(number, Vpn(page), access, error);
        }
    }
}

/// Keep the linker of ideas honest: zones lie below what is placed by the core.
const _: () = assert!(MAP_TOP == ZONES[2].1 && HEAP >= ZONES[1].1);
