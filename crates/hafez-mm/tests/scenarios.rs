//! What has a definite outcome: who goes when memory runs out, what stays when it is locked.
#![cfg(feature = "sim")]

use hafez_mm::sim::machine::{Host, current_cpu};
use hafez_mm::sim::{Build, Disk, Faults, Hooks, Machine, SimFile, tasks};
use hafez_mm::{
    About, Access, AccountId, Advice, Backing, FaultError, Guarded, MapRequest, Memory, MmError, OomReport,
    PageRange, PlaceError, PolicyKind, RegionFlags, Rights, Seen, Space, Verdict, VirtAddr, Watched, Watcher,
    Where,
};
use std::sync::{Arc, Mutex};

/// Who lives, and who was told to go.
#[derive(Default)]
struct Town {
    living: Vec<Arc<Space>>,
    killed: Vec<(AccountId, OomReport)>,
}

struct Plain {
    disk: Option<Disk>,
    town: Arc<Mutex<Town>>,
}

impl Hooks for Plain {
    fn wait(&self, machine: &Machine, key: usize, ready: &dyn Fn() -> bool) {
        // Whoever was told to go and is not waiting itself goes now.
        while !ready() {
            let gone = {
                let mut town = self.town.lock().unwrap();
                let at = town.living.iter().position(|s| town.killed.iter().any(|(a, _)| *a == s.account()));
                at.map(|at| town.living.remove(at))
            };
            let Some(space) = gone else { break };
            leave(machine, &space);
        }
        tasks::wait(self.disk.as_ref(), key, ready);
    }
    fn wake(&self, _: usize) {}
    fn kill(&self, account: AccountId, why: &OomReport) {
        self.town.lock().unwrap().killed.push((account, why.clone()));
    }
}

fn leave(machine: &Machine, space: &Arc<Space>) {
    machine.unload(space);
    machine.memory().destroy_space(space);
    machine.memory().close_account(space.account());
}

struct Bench {
    machine: Arc<Machine>,
    town: Arc<Mutex<Town>>,
}

impl Bench {
    fn new(frames: u32, swap: u32) -> Bench {
        Bench::with(PolicyKind::Generations, frames, swap)
    }

    fn with(policy: PolicyKind, frames: u32, swap: u32) -> Bench {
        let disk = (swap > 0).then(|| Disk::new(swap, 0, Faults::default(), 1));
        let town = Arc::new(Mutex::new(Town::default()));
        let hooks = Box::new(Plain { disk: disk.clone(), town: town.clone() });
        Bench { machine: Machine::new(Build { frames, cpus: 1, policy, disk, seed: 7, hooks }), town }
    }

    fn memory(&self) -> &Memory<Host> {
        self.machine.memory()
    }

    fn space(&self) -> Arc<Space> {
        let space = self.memory().new_space(self.memory().open_account().unwrap()).unwrap();
        self.town.lock().unwrap().living.push(space.clone());
        space
    }

    fn map(&self, space: &Arc<Space>, at: u64, pages: u64, backing: Backing, shared: bool) {
        let request = MapRequest {
            at: Where::Fixed(VirtAddr(at)),
            pages,
            rights: Rights::READ | Rights::WRITE,
            max_rights: Rights::all(),
            backing,
            shared,
            label: None,
            grows_down: None,
            wired: false,
            special: hafez_mm::RegionFlags::empty(),
            by: None,
        };
        self.memory().map(space, request).unwrap();
    }

    /// 300 pages from `BASE` on, private and anonymous, or of an object that others can map.
    fn map_watchable(&self, space: &Arc<Space>, shared: bool) {
        let object = || self.memory().new_object_shared(300 << 12, space.account()).unwrap();
        let backing = match shared {
            true => Backing::Object { object: object(), first: 0 },
            false => Backing::Anonymous,
        };
        self.map(space, BASE, 300, backing, shared);
    }

    /// Use a word as a program does; `None` loads it.
    fn touch(&self, space: &Arc<Space>, at: u64, store: Option<u64>) -> Result<u64, FaultError> {
        let access = Access { write: store.is_some(), exec: false };
        loop {
            self.machine.load(current_cpu(), space);
            let phys = self.machine.phys();
            let done =
                self.machine.access(current_cpu(), space.root(), VirtAddr(at), access, |frame, offset| {
                    let mut bytes = [0; 8];
                    if let Some(word) = store {
                        phys.write(frame, offset, &word.to_le_bytes());
                    }
                    phys.read(frame, offset, &mut bytes);
                    u64::from_le_bytes(bytes)
                });
            match done {
                Ok(word) => return Ok(word),
                Err(_) => self.memory().fault(space, VirtAddr(at), access)?,
            }
        }
    }
}

const BASE: u64 = 0x10_0000;

fn page(n: u64) -> u64 {
    BASE + n * 4096
}

fn word(space: &Space, n: u64) -> u64 {
    (space.id().0 as u64) << 32 | n
}

/// Memory runs out: the one that holds most goes, the one that asked goes on, and nobody's bytes change.
#[test]
fn the_largest_goes() {
    let bench = Bench::new(160, 0);
    let [small, large, asking] = [(); 3].map(|_| bench.space());
    for (space, pages) in [(&small, 10), (&large, 60), (&asking, 120)] {
        bench.map(space, BASE, 200, Backing::Anonymous, false);
        for n in 0..pages {
            bench.touch(space, page(n), Some(word(space, n))).expect("the asking one is not the largest");
            if bench.town.lock().unwrap().killed.len() == 1 {
                break;
            }
        }
    }
    let killed: Vec<AccountId> =
        bench.town.lock().unwrap().killed.iter().map(|(account, _)| *account).collect();
    assert_eq!(killed, [large.account()]);
    for n in 0..10 {
        assert_eq!(bench.touch(&small, page(n), None), Ok(word(&small, n)));
        assert_eq!(bench.touch(&asking, page(n), None), Ok(word(&asking, n)));
    }
    bench.memory().audit().unwrap();
}

/// If the one that asks is the largest, it is refused, and told to go.
#[test]
fn who_asks_may_be_the_largest() {
    let bench = Bench::new(160, 16);
    let [small, large] = [(); 2].map(|_| bench.space());
    bench.map(&small, BASE, 10, Backing::Anonymous, false);
    (0..10).for_each(|n| _ = bench.touch(&small, page(n), Some(word(&small, n))).unwrap());
    bench.map(&large, BASE, 400, Backing::Anonymous, false);
    let refused = (0..400).find_map(|n| bench.touch(&large, page(n), Some(word(&large, n))).err());
    assert_eq!(refused, Some(FaultError::OutOfMemory));
    assert_eq!(bench.town.lock().unwrap().killed[0].0, large.account());
    assert!(
        bench.town.lock().unwrap().killed[0].1.victim.swapped > 0,
        "swap was used before anyone was killed"
    );
    leave(&bench.machine, &large);
    (0..10).for_each(|n| assert_eq!(bench.touch(&small, page(n), None), Ok(word(&small, n))));
    bench.memory().audit().unwrap();
}

/// Four times the memory, swap on disk: all of it comes back as it was.
#[test]
fn four_times_the_memory() {
    let bench = Bench::new(128, 1024);
    let space = bench.space();
    bench.map(&space, BASE, 512, Backing::Anonymous, false);
    for round in 0..3 {
        for n in 0..512 {
            let expected = if round == 0 { 0 } else { word(&space, n) + round - 1 };
            assert_eq!(bench.touch(&space, page(n), None), Ok(expected));
            bench.touch(&space, page(n), Some(word(&space, n) + round)).unwrap();
        }
    }
    let stats = bench.memory().stats();
    assert!(stats.swapped_in > 800 && stats.swapped_out > 800 && stats.oom_kills == 0, "{stats:?}");
    bench.memory().audit().unwrap();
}

/// A page that a call holds on to for long is the oldest of all by then, and cannot go: others do.
#[test]
fn a_pinned_page_stands_in_nobodys_way() {
    for policy in [PolicyKind::Generations, PolicyKind::Clock] {
        let bench = Bench::with(policy, 128, 1024);
        let object = bench.memory().new_object_shared(4096, AccountId::KERNEL).unwrap();
        let pin = bench.memory().object_page(&object, 0, true).unwrap();
        pin.write(0, b"held");
        let space = bench.space();
        bench.map(&space, BASE, 512, Backing::Anonymous, false);
        for round in 0..3 {
            (0..512).for_each(|n| _ = bench.touch(&space, page(n), Some(round)).expect("room"));
        }
        let mut bytes = [0; 4];
        pin.read(0, &mut bytes);
        assert_eq!((&bytes, bench.memory().stats().oom_kills), (b"held", 0));
        drop(pin);
        bench.memory().object_retire(&object);
        bench.memory().audit().unwrap();
    }
}

/// What is locked stays while everything else is swapped; with the mapping goes the lock.
#[test]
fn locked_pages_stay_until_they_are_unmapped() {
    let bench = Bench::new(128, 1024);
    let space = bench.space();
    let file = Arc::new(SimFile::new(&bench.machine, 8 * 4096, 3, (0, 0)));
    let object = bench.memory().new_object_file(file, 8 * 4096).unwrap();
    bench.map(&space, page(1000), 8, Backing::Object { object: object.clone(), first: 0 }, true);
    bench.map(&space, BASE, 512, Backing::Anonymous, false);
    let locked =
        [PageRange::of_bytes(VirtAddr(BASE), 4 * 4096), PageRange::of_bytes(VirtAddr(page(1000)), 8 * 4096)];
    let locked = locked.map(|range| range.unwrap());
    for range in locked {
        bench.memory().wire(&space, range, true).unwrap();
    }
    (0..512).for_each(|n| _ = bench.touch(&space, page(n), Some(n)).unwrap());
    for range in locked {
        bench
            .memory()
            .residency(&space, range, &mut |page, here| assert!(here, "{page:?} is locked"))
            .unwrap();
        bench.memory().unmap(&space, range).unwrap();
    }
    assert_eq!(bench.memory().stats().wired, 0);
    (4..512).for_each(|n| assert_eq!(bench.touch(&space, page(n), None), Ok(n)));
    assert_eq!(object.resident(), 0, "the file's pages had to go like any other");
    bench.memory().audit().unwrap();
}

/// A page that a child shares, moved, swapped and written: each sees its own.
#[test]
fn fork_move_swap_write() {
    let bench = Bench::new(96, 1024);
    let parent = bench.space();
    bench.map(&parent, BASE, 64, Backing::Anonymous, false);
    (0..64).for_each(|n| _ = bench.touch(&parent, page(n), Some(n)).unwrap());
    let child = bench.memory().fork_space(&parent, bench.memory().open_account().unwrap()).unwrap();
    let to = VirtAddr(page(2000));
    let moved =
        bench.memory().remap(&child, VirtAddr(BASE), 64 * 4096, 64 * 4096, hafez_mm::RemapHow::Fixed(to));
    assert_eq!(moved, Ok(to));
    (0..64).for_each(|n| _ = bench.touch(&child, page(2000 + n), Some(1000 + n)).unwrap());
    (0..64).for_each(|n| assert_eq!(bench.touch(&parent, page(n), None), Ok(n)));
    (0..64).for_each(|n| assert_eq!(bench.touch(&child, page(2000 + n), None), Ok(1000 + n)));
    assert_eq!(bench.touch(&child, page(0), None), Err(FaultError::NotMapped));
    bench.memory().audit().unwrap();
    leave(&bench.machine, &child);
    (0..64).for_each(|n| assert_eq!(bench.touch(&parent, page(n), None), Ok(n)));
}

/// A child that goes leaves every leaf that it shared, however many there are and wherever in them the pages lie: the parent has
/// its pages alone again, and they go with it.
#[test]
fn a_child_leaves_all_that_it_shared() {
    const LEAVES: u64 = 80;
    let bench = Bench::new(1000, 0);
    let parent = bench.space();
    bench.map(&parent, BASE, LEAVES * 512, Backing::Anonymous, false);
    for leaf in 0..LEAVES {
        for n in [37, 300] {
            bench.touch(&parent, page(leaf * 512 + n), Some(word(&parent, n))).unwrap();
        }
    }
    let child = bench.memory().fork_space(&parent, bench.memory().open_account().unwrap()).unwrap();
    bench.touch(&child, page(37), Some(1)).unwrap();
    bench.memory().audit().unwrap();
    leave(&bench.machine, &child);
    bench.memory().audit().unwrap();
    assert_eq!(bench.touch(&parent, page(37), None), Ok(word(&parent, 37)));
    leave(&bench.machine, &parent);
    bench.memory().audit().unwrap();
}

/// A word here and there, asked for in huge pages, in less RAM than these are, and no swap: reclaim finds what was never used.
#[test]
fn sparse_huge_pages_cost_what_is_used() {
    const HUGE: u64 = 512;
    let bench = Bench::new(4000, 0);
    let space = bench.space();
    let first = BASE / 4096 / HUGE * HUGE + HUGE;
    bench.map(&space, first * 4096, 40 * HUGE, Backing::Anonymous, false);
    let range = PageRange::of_bytes(VirtAddr(first * 4096), 40 * HUGE * 4096).unwrap();
    bench.memory().advise(&space, range, hafez_mm::Advice::HugePage).unwrap();
    let at = |n: u64| (first + n * HUGE + n) * 4096;
    for n in 0..40 {
        bench.touch(&space, at(n), Some(word(&space, n))).expect("there is room for a page each");
        // What is left is then filled with small pages, and huge ones have to go.
        if n % 8 == 7 {
            bench.memory().audit().unwrap();
        }
    }
    let stats = bench.memory().stats();
    assert!(stats.huge_made >= 4 && stats.oom_kills == 0, "{stats:?}");
    (0..40).for_each(|n| assert_eq!(bench.touch(&space, at(n), None), Ok(word(&space, n))));
    // Beside them a small page each in all the RAM that there is: nothing but zeroes may be in the way.
    bench.map(&space, page(100_000), 3700, Backing::Anonymous, false);
    for n in 0..3700 {
        bench.touch(&space, page(100_000 + n), Some(word(&space, n))).expect("so many are free");
    }
    assert_eq!((bench.memory().stats().huge, bench.memory().stats().oom_kills), (0, 0));
    (0..40).for_each(|n| assert_eq!(bench.touch(&space, at(n), None), Ok(word(&space, n))));
    bench.memory().audit().unwrap();
}

/// One huge page, and every call that wants a part of it.
#[test]
fn a_huge_page_is_cut_up() {
    const HUGE: u64 = 512;
    let bench = Bench::new(6000, 1024);
    let space = bench.space();
    let first = BASE / 4096 / HUGE * HUGE + HUGE;
    let at = |n: u64| (first + n) * 4096;
    let part = |from: u64, pages: u64| PageRange::of_bytes(VirtAddr(at(from)), pages * 4096).unwrap();
    let huge = || bench.memory().stats().huge;
    bench.map(&space, at(0), 5 * HUGE, Backing::Anonymous, false);
    bench.memory().advise(&space, part(0, 3 * HUGE), hafez_mm::Advice::HugePage).unwrap();
    let faults = bench.memory().stats().minor;
    (0..3 * HUGE).for_each(|n| _ = bench.touch(&space, at(n), Some(word(&space, n))).unwrap());
    assert_eq!((huge(), bench.memory().stats().minor - faults), (3, 3));
    // Small pages, as nobody asked; and when they are full, a huge one unasked.
    (3 * HUGE..4 * HUGE + 1).for_each(|n| _ = bench.touch(&space, at(n), Some(7)).unwrap());
    assert_eq!(huge(), 4);
    // To look at it leaves it whole, to change something does not.
    let mut here = 0;
    bench
        .memory()
        .residency(&space, part(4 * HUGE, HUGE), &mut |_, resident| here += resident as u64)
        .unwrap();
    assert_eq!(
        (here, huge(), bench.memory().region_stat(&space, part(0, 5 * HUGE)).huge),
        (HUGE, 4, 4 * HUGE)
    );
    bench.memory().protect(&space, part(1, 1), Rights::READ).unwrap();
    assert_eq!((huge(), bench.touch(&space, at(1), Some(0))), (3, Err(FaultError::Denied)));
    bench.memory().unmap(&space, part(HUGE + 5, 1)).unwrap();
    assert_eq!((huge(), bench.touch(&space, at(HUGE + 5), None)), (2, Err(FaultError::NotMapped)));
    bench.memory().advise(&space, part(4 * HUGE, HUGE), hafez_mm::Advice::DontNeed).unwrap();
    assert_eq!((huge(), bench.touch(&space, at(4 * HUGE), None)), (1, Ok(0)));
    let child = bench.memory().fork_space(&space, bench.memory().open_account().unwrap()).unwrap();
    bench.touch(&child, at(2 * HUGE), Some(1)).unwrap();
    assert_eq!((huge(), bench.touch(&space, at(2 * HUGE), None)), (0, Ok(word(&space, 2 * HUGE))));
    for n in (0..3 * HUGE).filter(|&n| n != HUGE + 5) {
        assert_eq!(bench.touch(&space, at(n), None), Ok(word(&space, n)));
    }
    bench.memory().audit().unwrap();
}

/// Brings every second page, and leaves the others unanswered.
struct Server {
    bench: Arc<Bench>,
    space: Arc<Space>,
    asked: Mutex<Vec<(u64, bool)>>,
    guarded: Guarded,
}

impl Watcher for Server {
    fn guarded(&self) -> &Guarded {
        &self.guarded
    }

    fn wanted(
        &self,
        at: VirtAddr,
        write: bool,
        about: About,
        still: &dyn Fn() -> bool,
    ) -> Result<(), FaultError> {
        assert!(still());
        if about == About::Guarded {
            assert!(write);
            self.asked.lock().unwrap().push((at.0, write));
            let page = PageRange::new(at.page(), at.page().add(1));
            assert_eq!(self.bench.memory().guard(&self.space, page, false, false), Ok(()));
            assert!(!still());
            return Ok(());
        }
        self.asked.lock().unwrap().push((at.0, write));
        let number = (at.0 - BASE) / 4096;
        if number % 2 == 1 {
            return Err(FaultError::Unanswered);
        }
        let bytes = number.to_le_bytes().repeat(512);
        assert_eq!(self.bench.memory().place_page(&self.space, at.page(), Some(&bytes), false), Ok(()));
        assert!(!still());
        Ok(())
    }
}

/// Writes to guarded pages are told, each once, whatever has become of the page since: swapped, shared with a child, read again.
#[test]
fn writes_to_guarded_pages_are_told() {
    for shared in [false, true] {
        let bench = Arc::new(Bench::new(64, 1024));
        let space = bench.space();
        let memory = bench.memory();
        bench.map_watchable(&space, shared);
        let guarded = Guarded::default();
        let server = Server { bench: bench.clone(), space: space.clone(), asked: Mutex::default(), guarded };
        let server = Arc::new(server);
        let watched = Watched(server.clone());
        let range = PageRange::of_bytes(VirtAddr(BASE), 200 << 12).unwrap();
        let told = || server.asked.lock().unwrap().len();
        (0..100).for_each(|n| assert_eq!(bench.touch(&space, page(n), Some(n)), Ok(n)));
        assert_eq!(memory.guard(&space, range, true, false), Err(MmError::NotMapped));
        assert_eq!(memory.watch(&space, range, &watched, RegionFlags::GUARDED), Ok(()));
        assert_eq!(memory.guard(&space, range, true, false), Ok(()));
        memory.audit().unwrap();
        // More than there is RAM for: some of them have been in swap between.
        for round in 0..2 {
            (0..100).for_each(|n| assert_eq!(bench.touch(&space, page(n), None), Ok(n)));
            (200..300).for_each(|n| assert_eq!(bench.touch(&space, page(n), Some(round)), Ok(round)));
        }
        assert_eq!(told(), 0);
        let child = memory.fork_space(&space, memory.open_account().unwrap()).unwrap();
        (0..50).for_each(|n| assert_eq!(bench.touch(&space, page(n), Some(n + 1)), Ok(n + 1)));
        assert_eq!(told(), 50);
        (0..50).for_each(|n| assert_eq!(bench.touch(&space, page(n), Some(n + 2)), Ok(n + 2)));
        // What was not there is guarded where it may be there by way of others.
        (100..150).for_each(|n| assert_eq!(bench.touch(&space, page(n), Some(n)), Ok(n)));
        assert_eq!(told(), if shared { 100 } else { 50 });
        (50..100).for_each(|n| assert_eq!(bench.touch(&child, page(n), Some(7)), Ok(7)));
        assert_eq!(told(), if shared { 100 } else { 50 });
        leave(&bench.machine, &child);
        // Let go of as a whole.
        assert_eq!(memory.guard(&space, range, true, true), Ok(()));
        assert_eq!(memory.guard(&space, range, false, false), Ok(()));
        let before = told();
        (0..200).for_each(|n| assert_eq!(bench.touch(&space, page(n), Some(1)), Ok(1)));
        assert_eq!(told(), before);
        // What is not there, too; and thrown away, a page of one's own is as any other.
        assert_eq!(memory.advise(&space, range, Advice::DontNeed), Ok(()));
        assert_eq!(memory.guard(&space, range, true, true), Ok(()));
        assert_eq!(bench.touch(&space, page(5), Some(6)), Ok(6));
        assert_eq!(told(), before + 1);
        assert_eq!(memory.advise(&space, range, Advice::DontNeed), Ok(()));
        assert_eq!(bench.touch(&space, page(6), Some(6)), Ok(6));
        assert_eq!(told(), before + if shared { 2 } else { 1 });
        memory.unwatch(&space, &watched);
        (0..200).for_each(|n| assert_eq!(bench.touch(&space, page(n), Some(2)), Ok(2)));
        memory.audit().unwrap();
    }
}

/// Lets every write through.
#[derive(Default)]
struct Noter(Guarded);

impl Watcher for Noter {
    fn guarded(&self) -> &Guarded {
        &self.0
    }
    fn only_notes(&self) -> bool {
        true
    }
    fn wanted(&self, _: VirtAddr, _: bool, _: About, _: &dyn Fn() -> bool) -> Result<(), FaultError> {
        panic!("nobody is to be asked");
    }
}

/// Who scans and guards at once finds each page that was written since, and no other, whatever became of it in between.
#[test]
fn written_pages_are_found() {
    for shared in [false, true] {
        let bench = Arc::new(Bench::new(64, 1024));
        let space = bench.space();
        let memory = bench.memory();
        bench.map_watchable(&space, shared);
        let watched = Watched(Arc::new(Noter::default()));
        let range = PageRange::of_bytes(VirtAddr(BASE), 200 << 12).unwrap();
        assert_eq!(memory.watch(&space, range, &watched, RegionFlags::GUARDED), Ok(()));
        // Pages that are not guarded, by number; they are again.
        let scan = || {
            let (mut found, mut seen_to) = (Vec::new(), range.start);
            let mut tell = |seen: &Seen| {
                assert_eq!(seen.pages.start, seen_to);
                seen_to = seen.pages.end;
                if !seen.guarded {
                    assert_eq!(seen.pages.len(), 1);
                    found.push(seen.pages.start.0 - range.start.0);
                }
                Verdict { guard: seen.pages.len(), go_on: true }
            };
            assert_eq!(memory.scan(&space, range, true, &mut tell), Ok(range.end));
            assert_eq!(seen_to, range.end);
            found
        };
        (0..50).for_each(|n| assert_eq!(bench.touch(&space, page(n), Some(n)), Ok(n)));
        assert_eq!(scan(), (0..200).collect::<Vec<_>>());
        assert_eq!(scan(), []);
        for round in 0..5 {
            let written: Vec<u64> = (0..200).filter(|n| (n * 7 + round) % 11 == 0).collect();
            // More than there is RAM for, before and after.
            (0..50).for_each(|n| _ = bench.touch(&space, page(n), None).unwrap());
            (200..300).for_each(|n| assert_eq!(bench.touch(&space, page(n), Some(round)), Ok(round)));
            written.iter().for_each(|&n| assert_eq!(bench.touch(&space, page(n), Some(round)), Ok(round)));
            let child = memory.fork_space(&space, memory.open_account().unwrap()).unwrap();
            bench.touch(&child, page(written[0] + 1), Some(9)).unwrap();
            (200..300).for_each(|n| _ = bench.touch(&space, page(n), None).unwrap());
            assert_eq!(scan(), written);
            assert_eq!(scan(), []);
            leave(&bench.machine, &child);
        }
        // A scan that stops has guarded what it took, and no more.
        bench.touch(&space, page(3), Some(1)).unwrap();
        bench.touch(&space, page(4), Some(1)).unwrap();
        let mut first_of_two = |seen: &Seen| {
            let written = !seen.guarded;
            Verdict { guard: written as u64, go_on: !written }
        };
        memory.scan(&space, range, true, &mut first_of_two).unwrap();
        assert_eq!(scan(), [4]);
        memory.audit().unwrap();
    }
}

/// Pages of watched memory are brought by the watcher, once, also under want of RAM; a child's and moved ones are not its business.
#[test]
fn watched_pages_are_brought() {
    for shared in [false, true] {
        let bench = Arc::new(Bench::new(64, 1024));
        let space = bench.space();
        let memory = bench.memory();
        bench.map_watchable(&space, shared);
        let server = Arc::new(Server {
            bench: bench.clone(),
            space: space.clone(),
            asked: Mutex::default(),
            guarded: Guarded::default(),
        });
        let watched = Watched(server.clone());
        let other = Watched(Arc::new(Server {
            bench: bench.clone(),
            space: space.clone(),
            asked: Mutex::default(),
            guarded: Guarded::default(),
        }));
        let range = PageRange::of_bytes(VirtAddr(BASE), 200 << 12).unwrap();
        let at = |n: u64| VirtAddr(page(n)).page();
        assert_eq!(memory.place_page(&space, at(0), None, false), Err(PlaceError::NotWatched));
        assert_eq!(memory.watch(&space, range, &watched, RegionFlags::WATCHED), Ok(()));
        assert_eq!(memory.watch(&space, range, &other, RegionFlags::WATCHED), Err(MmError::Busy));
        (0..200).step_by(2).for_each(|n| assert_eq!(bench.touch(&space, page(n), None), Ok(n)));
        assert_eq!(bench.touch(&space, page(1), Some(9)), Err(FaultError::Unanswered));
        assert_eq!(bench.touch(&space, page(200), None), Ok(0));
        // What was brought is never asked for again, swapped or not.
        (0..200)
            .step_by(2)
            .for_each(|n| assert_eq!(bench.touch(&space, page(n) + 8, Some(n + 1)), Ok(n + 1)));
        (0..200).step_by(2).for_each(|n| assert_eq!(bench.touch(&space, page(n) + 8, None), Ok(n + 1)));
        assert_eq!(server.asked.lock().unwrap().len(), 101);
        assert_eq!(memory.place_page(&space, at(4), None, false), Err(PlaceError::Exists));
        assert_eq!(memory.place_page(&space, at(3), None, false), Ok(()));
        assert_eq!(bench.touch(&space, page(3), Some(5)), Ok(5));
        let child = memory.fork_space(&space, memory.open_account().unwrap()).unwrap();
        if !shared {
            assert_eq!(bench.touch(&child, page(5), None), Ok(0));
        }
        assert_eq!(bench.touch(&child, page(6), None), Ok(6));
        leave(&bench.machine, &child);
        memory.unwatch(&space, &watched);
        assert_eq!(bench.touch(&space, page(7), None), Ok(0));
        assert_eq!(memory.watch(&space, range, &other, RegionFlags::WATCHED), Ok(()));
        memory.unwatch(&space, &other);
        memory.audit().unwrap();
    }
}

/// Memory that a program can do without never costs a slot: a page of it holds what was written last, or zeroes. What lies beside it is
/// kept as ever, also a child's, and also where it was moved.
#[test]
fn droppable_pages_are_kept_or_zero() {
    let bench = Bench::new(64, 1024);
    let (space, memory) = (bench.space(), bench.memory());
    let map = |at: u64, pages, special| {
        let rights = Rights::READ | Rights::WRITE;
        let request = MapRequest {
            at: Where::Fixed(VirtAddr(page(at))),
            pages,
            rights,
            max_rights: rights,
            backing: Backing::Anonymous,
            shared: false,
            label: None,
            grows_down: None,
            wired: false,
            special,
            by: None,
        };
        memory.map(&space, request).unwrap();
    };
    map(0, 100, RegionFlags::empty());
    map(100, 100, memory.droppable(&space));
    map(200, 100, RegionFlags::empty());
    let range = |first: u64, pages: u64| PageRange::of_bytes(VirtAddr(page(first)), pages << 12).unwrap();
    assert_eq!(memory.wire(&space, range(100, 10), true), Ok(()));
    let how = hafez_mm::RemapHow::Fixed(VirtAddr(page(400)));
    (190..200).for_each(|n| _ = bench.touch(&space, page(n), Some(n)).unwrap());
    memory.remap(&space, VirtAddr(page(190)), 10 << 12, 10 << 12, how).unwrap();
    let mut gone = 0;
    for round in 1..20 {
        (100..190).for_each(|n| assert_eq!(bench.touch(&space, page(n), Some(n * round)), Ok(n * round)));
        (0..100).for_each(|n| assert_eq!(bench.touch(&space, page(n), Some(n * round)), Ok(n * round)));
        let child = memory.fork_space(&space, memory.open_account().unwrap()).unwrap();
        (200..300).for_each(|n| assert_eq!(bench.touch(&child, page(n), Some(n + round)), Ok(n + round)));
        (0..100).for_each(|n| assert_eq!(bench.touch(&child, page(n), None), Ok(n * round)));
        (100..190).for_each(|n| assert_eq!(bench.touch(&child, page(n), None), Ok(0)));
        for n in 100..190 {
            let found = bench.touch(&space, page(n), None).unwrap();
            assert!(found == 0 || found == n * round, "page {n} has {found}");
            gone += (found == 0) as u32;
        }
        for n in 400..410 {
            assert!([0, n - 210].contains(&bench.touch(&space, page(n), None).unwrap()));
        }
        (0..100).for_each(|n| assert_eq!(bench.touch(&space, page(n), None), Ok(n * round)));
        leave(&bench.machine, &child);
        let droppable = memory.region_stat(&space, range(100, 90));
        assert_eq!(droppable.swapped, 0);
        memory.audit().unwrap();
    }
    assert!(gone > 100, "only {gone} went");
}

/// Pages are carried to where they are missing, from RAM or from swap, and are theirs alone who carries them; whatever
/// happens to them then, they are found at their new place.
#[test]
fn pages_are_carried() {
    let bench = Arc::new(Bench::new(64, 1024));
    let space = bench.space();
    let memory = bench.memory();
    bench.map_watchable(&space, false);
    let noter = || Watched(Arc::new(Noter::default()));
    let (watched, other) = (noter(), noter());
    let range = |first: u64, pages: u64| PageRange::of_bytes(VirtAddr(page(first)), pages << 12).unwrap();
    let carry = |from: u64, to: u64| memory.carry_page(&space, range(from, 1), range(to, 1), &watched);
    assert_eq!(memory.watch(&space, range(0, 100), &watched, RegionFlags::WATCHED), Ok(()));
    for round in 1..6 {
        (100..200).for_each(|n| assert_eq!(bench.touch(&space, page(n), Some(n * round)), Ok(n * round)));
        assert_eq!(memory.carry_page(&space, range(100, 1), range(0, 1), &other), Err(PlaceError::NotAlike));
        assert_eq!(
            memory.carry_page(&space, range(199, 200), range(0, 200), &watched),
            Err(PlaceError::NotAlike)
        );
        // Some of them are in swap by now.
        (100..190).for_each(|n| assert_eq!(carry(n, n - 100), Ok(())));
        assert_eq!(carry(100, 99), Err(PlaceError::Nothing));
        assert_eq!(carry(195, 0), Err(PlaceError::Exists));
        memory.audit().unwrap();
        (100..190).for_each(|n| assert_eq!(bench.touch(&space, page(n), None), Ok(0)));
        let child = memory.fork_space(&space, memory.open_account().unwrap()).unwrap();
        (0..90).for_each(|n| assert_eq!(bench.touch(&child, page(n), None), Ok((n + 100) * round)));
        assert_eq!(carry(199, 99), Err(PlaceError::Shared));
        bench.touch(&space, page(199), Some(round)).unwrap();
        assert_eq!(carry(199, 99), Ok(()));
        (0..90).for_each(|n| assert_eq!(bench.touch(&space, page(n) + 8, Some(round)), Ok(round)));
        (0..90).for_each(|n| assert_eq!(bench.touch(&child, page(n) + 8, None), Ok(0)));
        leave(&bench.machine, &child);
        (0..90).for_each(|n| assert_eq!(bench.touch(&space, page(n), None), Ok((n + 100) * round)));
        assert_eq!(bench.touch(&space, page(99), None), Ok(round));
        memory.audit().unwrap();
        assert_eq!(memory.advise(&space, range(0, 200), Advice::DontNeed), Ok(()));
    }
}

/// What is sealed cannot go, move or change; what lies beside it can.
#[test]
fn sealed_memory_stays() {
    let bench = Bench::new(64, 256);
    let (space, memory) = (bench.space(), bench.memory());
    bench.map(&space, BASE, 10, Backing::Anonymous, false);
    (0..10).for_each(|n| _ = bench.touch(&space, page(n), Some(n)).unwrap());
    let range = |first: u64, pages: u64| PageRange::of_bytes(VirtAddr(page(first)), pages << 12).unwrap();
    assert_eq!(memory.seal(&space, range(8, 4)), Err(MmError::NotMapped));
    assert_eq!(memory.seal(&space, range(4, 2)), Ok(()));
    assert_eq!(memory.unmap(&space, range(2, 4)), Err(MmError::Sealed));
    assert_eq!(memory.protect(&space, range(5, 1), Rights::READ), Err(MmError::Sealed));
    let how = hafez_mm::RemapHow::MayMove;
    assert_eq!(memory.remap(&space, VirtAddr(page(4)), 4096, 4 << 12, how), Err(MmError::Sealed));
    let onto = hafez_mm::RemapHow::Fixed(VirtAddr(page(5)));
    assert_eq!(memory.remap(&space, VirtAddr(page(8)), 4096, 4096, onto), Err(MmError::Sealed));
    (0..10).for_each(|n| assert_eq!(bench.touch(&space, page(n), None), Ok(n)));
    let child = memory.fork_space(&space, memory.open_account().unwrap()).unwrap();
    assert_eq!(memory.unmap(&child, range(4, 1)), Err(MmError::Sealed));
    leave(&bench.machine, &child);
    assert_eq!(memory.unmap(&space, range(0, 4)), Ok(()));
    assert_eq!(memory.unmap(&space, range(6, 4)), Ok(()));
    memory.audit().unwrap();
}

/// The most that all held together counts, though each gives its memory up before it ends.
#[test]
fn the_peak_is_of_all_at_one_time() {
    let bench = Bench::new(2048, 0);
    let spaces = [bench.space(), bench.space()];
    let pages = 300;
    for space in &spaces {
        bench.map(space, 0x10_0000, pages, Backing::Anonymous, false);
        for page in 0..pages {
            bench.touch(space, 0x10_0000 + page * 4096, Some(1)).unwrap();
        }
    }
    for space in &spaces {
        let all = PageRange::of_bytes(VirtAddr(0x10_0000), pages * 4096).unwrap();
        bench.memory().unmap(space, all).unwrap();
        bench.machine.unload(space);
    }
    assert!(bench.memory().stats().peak >= 2 * pages, "{}", bench.memory().stats().peak);
}
