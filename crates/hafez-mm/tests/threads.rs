//! Real threads, a processor each, on one machine: they fault, map, move, protect, unmap and fork at random with memory at twice
//! the RAM, and check every word. What the coroutines of the other tests cannot show: what happens between two instructions.
//!
//! They meet at each lock that a space has: at its regions, at the shape of its tables, at single leaves (each has pages of his own
//! and a word of his own in pages of all), and work alone, on ranges of several leaves.
//!
//! From time to time all stop, and the audit looks at everything.
#![cfg(feature = "sim")]

mod common;

use hafez_mm::RemapHow::MayMove;
use hafez_mm::sim::machine::{Host, run_on};
use hafez_mm::sim::random::Random;
use hafez_mm::sim::{Build, Disk, Faults, Hooks, Machine, SimFile};
use hafez_mm::{
    Access, AccountId, Advice, Backing, FaultError, MapRequest, Memory, MmError, Object, OomReport,
    PAGE_SIZE, PageRange, PolicyKind, Rights, Space, VirtAddr, Where,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Waiting and waking for real threads. A wake-up is a new number; conditions are asked without the lock, as they take others.
#[derive(Default)]
struct Bell {
    number: AtomicU64,
    lock: Mutex<()>,
    rung: Condvar,
}

struct Real(Arc<Bell>);

impl Hooks for Real {
    fn wait(&self, _: &Machine, _: usize, ready: &dyn Fn() -> bool) {
        loop {
            let seen = self.0.number.load(SeqCst);
            if ready() {
                return;
            }
            let mut lock = self.0.lock.lock().unwrap();
            while self.0.number.load(SeqCst) == seen {
                lock = self.0.rung.wait(lock).unwrap();
            }
        }
    }
    fn wake(&self, _: usize) {
        self.0.number.fetch_add(1, SeqCst);
        drop(self.0.lock.lock().unwrap());
        self.0.rung.notify_all();
    }
    fn kill(&self, account: AccountId, why: &OomReport) {
        panic!("{account:?} is to go, with swap free: {why:?}");
    }
}

const PAGE: u64 = PAGE_SIZE as u64;
const BASE: u64 = 0x1000_0000;
/// Pages of each thread's share, and of the range that it maps and unmaps.
const SHARE: u64 = 90;
const PLAY: u64 = 40;
/// Pages in one leaf that all threads use, each its own word of each.
const COMMON: u64 = 60;
const COMMON_AT: u64 = BASE - 0x40_0000 + 10 * PAGE;
/// Pages of the file, and of the shared memory, that all use, each its own word of a page.
const OBJECT: u64 = 50;

#[derive(Clone, Copy)]
struct Plan {
    threads: usize,
    frames: u32,
    seconds: u64,
    forks: bool,
    /// Each processor has a section of the space, where its thread's share is, and its own way there.
    divided: bool,
    /// Ranges of many MiB, which get huge pages.
    wide: bool,
}

/// One program's thread.
struct Runner {
    machine: Arc<Machine>,
    cpu: usize,
    random: Random,
    /// What each page of its share must hold.
    versions: Vec<u64>,
    /// A file, and shared memory.
    objects: [Arc<Object>; 2],
    /// What its own word in each of their pages must hold, once it has written one.
    words: [[Option<u64>; OBJECT as usize]; 2],
    /// What its own word in each of the common pages must hold.
    common: [u64; COMMON as usize],
    wide: bool,
    operations: u64,
}

impl Runner {
    fn memory(&self) -> &Memory<Host> {
        self.machine.memory()
    }

    /// An access as a program makes it: again after each fault, until it succeeds or may not be.
    fn access(&self, space: &Arc<Space>, at: u64, write: Option<u64>) -> Result<u64, FaultError> {
        let (at, access) = (VirtAddr(at), Access { write: write.is_some(), exec: false });
        loop {
            let phys = self.machine.phys();
            let done = self.machine.access(self.cpu, space.root(), at, access, |frame, offset| {
                let mut bytes = write.unwrap_or(0).to_le_bytes();
                match write {
                    Some(_) => phys.write(frame, offset, &bytes),
                    None => phys.read(frame, offset, &mut bytes),
                }
                u64::from_le_bytes(bytes)
            });
            match done {
                Ok(value) => return Ok(value),
                Err(_) => self.memory().fault(space, at, access)?,
            }
        }
    }

    fn read(&self, space: &Arc<Space>, at: u64) -> u64 {
        self.access(space, at, None).expect("a page to read")
    }
    fn write(&self, space: &Arc<Space>, at: u64, value: u64) {
        self.access(space, at, Some(value)).expect("a page to write");
    }

    fn page(&self, n: u64) -> u64 {
        BASE + (self.cpu as u64 * 1024 + n) * PAGE
    }
    /// Words of a page that are looked at: its first, and two within.
    fn places(&self, n: u64) -> [u64; 3] {
        let at = self.page(n);
        [at, at + (8 * n) % PAGE, at + PAGE - 8]
    }
    fn word(&self, n: u64, version: u64) -> u64 {
        if version == 0 { 0 } else { (self.cpu as u64 + 1) << 48 | (n + 1) << 32 | version }
    }

    fn check(&self, space: &Arc<Space>, n: u64) {
        let version = self.versions[n as usize];
        for at in self.places(n) {
            let found = self.read(space, at);
            assert_eq!(
                found,
                self.word(n, version),
                "thread {} finds page {n} at {at:#x} in another state",
                self.cpu
            );
        }
    }
    fn rewrite(&mut self, space: &Arc<Space>, n: u64) {
        self.versions[n as usize] += 1;
        for at in self.places(n) {
            self.write(space, at, self.word(n, self.versions[n as usize]));
        }
    }

    /// Some of the pages that all threads use.
    fn meet(&mut self, space: &Arc<Space>) {
        for _ in 0..self.random.below(20) {
            let n = self.random.below(COMMON);
            let at = COMMON_AT + n * PAGE + 8 * self.cpu as u64;
            assert_eq!(
                self.read(space, at),
                self.common[n as usize],
                "thread {}'s word of common page {n}",
                self.cpu
            );
            if self.random.one_in(2) {
                self.common[n as usize] = self.random.next();
                self.write(space, at, self.common[n as usize]);
            }
        }
        let first = self.random.below(COMMON);
        let range = PageRange::sized(VirtAddr(COMMON_AT + first * PAGE).page(), COMMON - first).unwrap();
        match self.random.below(8) {
            0 => self.memory().advise(space, range, Advice::PageOut).unwrap(),
            1 => self.memory().protect(space, range, Rights::READ | Rights::WRITE).unwrap(),
            2 => self.memory().advise(space, range, Advice::Cold).unwrap(),
            _ => {}
        }
    }

    /// A range of several leaves, used here and there, or all of it where it gets huge pages.
    fn stretch(&mut self, space: &Arc<Space>) {
        let (pages, key) = (self.random.range(500, 2200), self.random.next() | 1);
        let at = self.map(space, pages);
        let range =
            |first: u64, end: u64| PageRange::sized(VirtAddr(at + first * PAGE).page(), end - first).unwrap();
        let step = if self.wide { 1 } else { 37 };
        if self.wide && self.random.one_in(2) {
            self.memory().advise(space, range(0, pages), Advice::HugePage).unwrap();
        }
        let mut used = vec![0; pages as usize];
        for n in (0..pages).step_by(step) {
            assert_eq!(self.read(space, at + n * PAGE), 0, "a new page");
            self.write(space, at + n * PAGE, key ^ n);
            used[n as usize] = key ^ n;
        }
        for _ in 0..3 {
            let first = self.random.below(pages);
            let end = (first + self.random.range(1, 900)).min(pages);
            let (part, rights) = (range(first, end), Rights::READ | Rights::WRITE);
            match self.random.below(5) {
                0 => self.memory().advise(space, part, Advice::PageOut).unwrap(),
                1 => self.memory().protect(space, part, Rights::READ).unwrap(),
                2 => {
                    self.memory().advise(space, part, Advice::DontNeed).unwrap();
                    used[first as usize..end as usize].fill(0);
                }
                3 => {
                    self.memory().unmap(space, part).unwrap();
                    let there = Where::FixedNoReplace(VirtAddr(at + first * PAGE));
                    // Another thread may have a range there by now.
                    match self.memory().map(space, anonymous(there, end - first, rights)) {
                        Ok(_) => used[first as usize..end as usize].fill(0),
                        Err(_) => {
                            let (before, after) = (range(0, first), range(end, pages));
                            let left = [before, after].into_iter().filter(|part| !part.is_empty());
                            left.for_each(|part| self.memory().unmap(space, part).unwrap());
                            return;
                        }
                    }
                }
                _ => self.memory().protect(space, part, rights).unwrap(),
            }
            for n in (first..end).step_by(step) {
                assert_eq!(self.read(space, at + n * PAGE), used[n as usize], "page {n} of a long range");
            }
        }
        self.memory().unmap(space, range(0, pages)).unwrap();
    }

    fn map(&self, space: &Arc<Space>, pages: u64) -> u64 {
        let rights = Rights::READ | Rights::WRITE;
        let at = Where::Anywhere { hint: None };
        self.memory().map(space, anonymous(at, pages, rights)).expect("room").0
    }

    /// A range that comes and goes.
    fn play(&mut self, space: &Arc<Space>) {
        let (mut pages, key) = (self.random.range(1, PLAY), self.random.next());
        let mut at = self.map(space, pages);
        let range = |at: u64, pages: u64| PageRange::sized(VirtAddr(at).page(), pages).unwrap();
        for n in (0..pages).step_by(1 + self.random.below(3) as usize) {
            assert_eq!(self.read(space, at + n * PAGE), 0, "a new page");
            self.write(space, at + n * PAGE, key ^ n);
        }
        match self.random.below(4) {
            0 => {
                let moved =
                    self.memory().remap(space, VirtAddr(at), pages * PAGE, (pages + 3) * PAGE, MayMove);
                (at, pages) = (moved.expect("room to move").0, pages + 3);
            }
            1 => {
                self.memory().protect(space, range(at, pages), Rights::READ).unwrap();
                assert_eq!(self.access(space, at, Some(1)), Err(FaultError::Denied));
                self.memory().protect(space, range(at, pages), Rights::READ | Rights::WRITE).unwrap();
            }
            2 => {
                self.memory().advise(space, range(at, 1), Advice::DontNeed).unwrap();
                assert_eq!(self.read(space, at), 0, "thrown away");
            }
            _ => self.memory().advise(space, range(at, pages), Advice::PageOut).unwrap(),
        }
        for n in 0..pages {
            let found = self.read(space, at + n * PAGE);
            assert!(found == 0 || found == key ^ n, "page {n} of a new mapping holds {found:#x}");
        }
        self.memory().unmap(space, range(at, pages)).unwrap();
    }

    /// A child that finds this thread's pages as they were, and changes some for itself.
    fn fork(&mut self, space: &Arc<Space>) {
        let account = self.memory().open_account().unwrap();
        let child = match self.memory().fork_space(space, account) {
            Ok(child) => child,
            Err(MmError::NoMemory) => return self.memory().close_account(account),
            Err(error) => panic!("fork: {error:?}"),
        };
        let before = self.versions.clone();
        self.machine.load(self.cpu, &child);
        for _ in 0..self.random.below(12) {
            let n = self.random.below(SHARE);
            self.check(&child, n);
            self.rewrite(&child, n);
        }
        for n in 0..self.random.below(COMMON) {
            let at = COMMON_AT + n * PAGE + 8 * self.cpu as u64;
            assert_eq!(self.read(&child, at), self.common[n as usize], "a child's common page {n}");
            self.write(&child, at, !self.common[n as usize]);
        }
        let of_child = std::mem::replace(&mut self.versions, before);
        self.machine.load(self.cpu, space);
        for _ in 0..self.random.below(6) {
            let n = self.random.below(SHARE);
            self.check(space, n);
            self.rewrite(space, n);
        }
        let of_parent = std::mem::replace(&mut self.versions, of_child);
        self.machine.load(self.cpu, &child);
        (0..self.random.below(SHARE)).for_each(|n| self.check(&child, n));
        self.versions = of_parent;
        self.machine.load(self.cpu, space);
        self.machine.unload(&child);
        self.memory().destroy_space(&child);
        self.memory().close_account(account);
    }

    /// Some pages of an object that all map, write and read, and of which one writes back what is dirty meanwhile.
    fn share(&mut self, space: &Arc<Space>) {
        let which = self.random.below(2) as usize;
        let object = self.objects[which].clone();
        let first = self.random.below(OBJECT);
        let pages = self.random.range(1, OBJECT - first + 1);
        let backing = Backing::Object { object: object.clone(), first };
        let rights = Rights::READ | Rights::WRITE;
        let request = anonymous(Where::Anywhere { hint: None }, pages, rights);
        let at = self.memory().map(space, MapRequest { backing, shared: true, ..request }).expect("room").0;
        for _ in 0..self.random.below(12) {
            let n = self.random.below(pages);
            let (place, page) = (at + n * PAGE + 8 * self.cpu as u64, (first + n) as usize);
            let found = self.read(space, place);
            let wanted = self.words[which][page].unwrap_or(found);
            assert_eq!(found, wanted, "thread {}'s word of page {page} of object {which}", self.cpu);
            if self.random.one_in(2) {
                let word = self.random.next();
                self.write(space, place, word);
                self.words[which][page] = Some(word);
            }
        }
        match self.random.below(6) {
            0 => self.memory().object_sync(&object).expect("a file to write"),
            1 => {
                let range = PageRange::sized(VirtAddr(at).page(), pages).unwrap();
                self.memory().advise(space, range, Advice::PageOut).unwrap();
            }
            2 => {
                let mut bytes = [0; 8];
                let pin = self.memory().object_page(&object, first, false).expect("a page to read");
                pin.read(8 * self.cpu, &mut bytes);
                let found = u64::from_le_bytes(bytes);
                assert_eq!(found, self.words[which][first as usize].unwrap_or(found), "by a call");
            }
            _ => {}
        }
        self.memory().unmap(space, PageRange::sized(VirtAddr(at).page(), pages).unwrap()).unwrap();
    }

    fn step(&mut self, space: &Arc<Space>, forks: bool) {
        self.operations += 1;
        match self.random.below(100) {
            0..8 => self.share(space),
            8..28 => self.meet(space),
            28..30 => self.stretch(space),
            30..80 => {
                let n = self.random.below(SHARE);
                self.check(space, n);
                if self.random.one_in(2) {
                    self.rewrite(space, n);
                }
            }
            80..98 => self.play(space),
            _ if forks && self.random.one_in(4) => self.fork(space),
            _ => {
                // Ageing and eviction, whoever needs it.
                self.memory().reclaim_to_high();
            }
        }
    }
}

fn anonymous(at: Where, pages: u64, rights: Rights) -> MapRequest {
    MapRequest {
        rights,
        by: Some(hafez_mm::sim::machine::current_cpu() as u32),
        ..common::anonymous(at, pages)
    }
}

fn fight(plan: Plan, seed: u64) {
    #[cfg(feature = "mutants")]
    let bug = bug();
    hafez_mm::lock::set_idler(std::thread::yield_now);
    // The others may wait for what a thread that fails holds.
    std::panic::set_hook(Box::new(|why| {
        eprintln!("{why}\n{}", std::backtrace::Backtrace::force_capture());
        std::process::exit(101)
    }));
    let bell = Arc::new(Bell::default());
    let disk = Disk::new(4096, 3, Faults::default(), seed);
    let machine = Machine::new(Build {
        frames: plan.frames,
        cpus: plan.threads,
        policy: PolicyKind::Generations,
        disk: Some(disk.clone()),
        seed,
        hooks: Box::new(Real(bell.clone())),
    });
    machine.strict.store(false, Relaxed);
    let memory = machine.memory();
    let space = memory.new_space(memory.open_account().unwrap()).unwrap();
    if plan.divided {
        let first = VirtAddr(BASE).page();
        let block = PageRange::new(first, first.add((plan.threads as u64) << 10));
        memory.divide_into(&space, block, 10);
        memory.divide(&space, plan.threads);
    }
    let (stop, resting, barrier) =
        (AtomicBool::new(false), AtomicBool::new(false), Barrier::new(plan.threads + 1));
    let rights = Rights::READ | Rights::WRITE;
    let file = Arc::new(SimFile::new(&machine, OBJECT * PAGE, seed, (0, 0)));
    let objects = [
        memory.new_object_file(file, OBJECT * PAGE).unwrap(),
        memory.new_object_shared(OBJECT * PAGE, AccountId::KERNEL).unwrap(),
    ];
    let common = Where::Fixed(VirtAddr(COMMON_AT));
    memory.map(&space, anonymous(common, COMMON, rights)).unwrap();
    let (mut operations, over) = (0, &AtomicBool::new(false));
    std::thread::scope(|scope| {
        // The disk answers when it likes, until all is over.
        let answers = scope.spawn({
            let disk = disk.clone();
            move || {
                run_on(plan.threads);
                while !over.load(Relaxed) {
                    disk.answer_one();
                    std::thread::yield_now();
                }
            }
        });
        let runners: Vec<_> = (0..plan.threads)
            .map(|cpu| {
                let (machine, space, stop, resting, barrier) =
                    (machine.clone(), space.clone(), &stop, &resting, &barrier);
                let objects = objects.clone();
                scope.spawn(move || {
                    run_on(cpu);
                    let random = Random::new(seed * 100 + cpu as u64);
                    let versions = vec![0; SHARE as usize];
                    let words = [[None; OBJECT as usize]; 2];
                    let (common, wide) = ([0; COMMON as usize], plan.wide);
                    let mut runner = Runner {
                        machine,
                        cpu,
                        random,
                        versions,
                        objects,
                        words,
                        common,
                        wide,
                        operations: 0,
                    };
                    #[cfg(feature = "mutants")]
                    hafez_mm::mutant::set(bug);
                    runner.machine.load(cpu, &space);
                    let share = Where::Fixed(VirtAddr(runner.page(0)));
                    runner.memory().map(&space, anonymous(share, SHARE, rights)).unwrap();
                    while !stop.load(Relaxed) {
                        if resting.load(Relaxed) {
                            barrier.wait();
                            barrier.wait();
                        }
                        runner.step(&space, plan.forks);
                    }
                    (0..SHARE).for_each(|n| runner.check(&space, n));
                    runner.operations
                })
            })
            .collect();
        let end = Instant::now() + Duration::from_secs(plan.seconds);
        while Instant::now() < end {
            // How long they fight between two audits; nothing is waited for.
            std::thread::sleep(Duration::from_millis(300));
            resting.store(true, Relaxed);
            barrier.wait();
            while !memory.is_quiet() {
                std::thread::yield_now();
            }
            memory.audit().expect("the invariants");
            machine.check_translations().expect("translations that the tables tell");
            resting.store(false, Relaxed);
            barrier.wait();
        }
        stop.store(true, Relaxed);
        for runner in runners {
            operations += runner.join().unwrap();
        }
        over.store(true, Relaxed);
        answers.join().unwrap();
    });
    machine.unload(&space);
    memory.destroy_space(&space);
    memory.close_account(space.account());
    objects.iter().for_each(|object| memory.object_retire(object));
    while disk.answer_one() {}
    memory.audit().expect("an empty machine");
    println!("{operations} operations, {:?} pages of disk traffic", disk.traffic());
}

fn seconds(usual: u64) -> u64 {
    std::env::var("SIM_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(usual)
}
fn seed() -> u64 {
    std::env::var("SIM_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1)
}

#[test]
fn threads_of_one_space() {
    fight(
        Plan { threads: 4, frames: 260, seconds: seconds(4), forks: false, divided: false, wide: false },
        seed(),
    );
}

#[test]
fn threads_that_fork() {
    fight(
        Plan { threads: 4, frames: 330, seconds: seconds(4), forks: true, divided: false, wide: false },
        seed() + 1,
    );
}

#[test]
fn threads_with_sections() {
    fight(
        Plan { threads: 4, frames: 400, seconds: seconds(4), forks: true, divided: true, wide: false },
        seed() + 3,
    );
}

#[test]
fn threads_with_huge_pages() {
    fight(
        Plan { threads: 3, frames: 9_000, seconds: seconds(4), forks: true, divided: true, wide: true },
        seed() + 2,
    );
}

/// The bug that the runners of this process are to have.
#[cfg(feature = "mutants")]
fn bug() -> Option<hafez_mm::mutant::Mutant> {
    use hafez_mm::mutant::Mutant::*;
    let named = std::env::var("SIM_MUTANT").ok()?;
    [WriterDoesNotWait, LeafNotLocked, NoteOutlivesChange].into_iter().find(|bug| format!("{bug:?}") == named)
}

/// Locks that do not keep out whom they should: a run with one of these bugs must fail. As it may do so in any way, it runs in a
/// process of its own.
#[cfg(feature = "mutants")]
#[test]
fn locks_that_let_others_in_are_noticed() {
    let bugs = [
        ("WriterDoesNotWait", "threads_of_one_space", 60),
        ("LeafNotLocked", "threads_of_one_space", 60),
        ("NoteOutlivesChange", "threads_that_fork", 10),
    ];
    for (bug, test, seconds) in bugs {
        let mut run = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env("SIM_MUTANT", bug)
            .env("SIM_SECONDS", seconds.to_string())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // It may also hang: a lock that was freed by the wrong one is never free again.
        let end = Instant::now() + Duration::from_secs(seconds + 30);
        let status = loop {
            match run.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if Instant::now() > end => break None,
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        let _ = run.kill();
        let _ = run.wait();
        assert!(status.is_none_or(|status| !status.success()), "{bug} lives: nobody noticed");
    }
}
