//! A world: a machine, its tasks, its programs and objects, and the oracle that knows what they must see.
//!
//! Each process has a space and one or two threads; a thread does one random operation after another ([`super::ops`]).
//! What the core kills leaves at its threads' next step. A process that ends is replaced, so that a world never
//! runs dry.
//!
//! Nothing of the world is borrowed while the core is called: the core may wait, and then others run.

use super::disk::{Disk, Faults};
use super::file::SimFile;
use super::machine::{Build, Hooks, Machine, current_cpu};
use super::mmu::PageFault;
use super::oracle::{Cell, Cells, Content, Oracle, Page, Verdict, WORDS};
use super::random::Random;
use super::tasks::{self, Scheduler};
use crate::account::AccountId;
use crate::addr::{PAGE_SIZE, Pfn, VirtAddr, Vpn};
use crate::frame::meta::State as FrameState;
use crate::object::Object;
use crate::paging::{Flush, FlushPages};
use crate::reclaim::PolicyKind;
use crate::space::{FaultError, MmError, Space};
use crate::{Access, Memory, OomReport};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How a world is made.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub seed: u64,
    /// Frames for programs' pages; what page tables and the reserve take comes on top.
    pub frames: u32,
    pub cpus: usize,
    pub policy: PolicyKind,
    /// Blocks of the swap disk; 0: none.
    pub swap: u32,
    /// One in so many requests to the disk waits; 0: all are answered at once.
    pub delayed: u32,
    pub faults: Faults,
    /// Odds of errors when files are read and written.
    pub file_errors: (u32, u32),
    pub processes: usize,
    pub threads: usize,
    /// Whether to run a reclaim thread.
    pub kreclaim: bool,
    /// Whether an out-of-memory kill is an error.
    pub roomy: bool,
    /// Objects of each kind.
    pub objects: usize,
    /// Whether programs also map regions that huge pages fit in.
    pub wide: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            seed: 1,
            frames: 32,
            cpus: 2,
            policy: PolicyKind::Generations,
            swap: 1024,
            delayed: 2,
            faults: Faults::default(),
            file_errors: (0, 0),
            processes: 3,
            threads: 1,
            kreclaim: true,
            roomy: false,
            objects: 2,
            wide: false,
        }
    }
}

pub struct Process {
    pub number: u64,
    pub space: Arc<Space>,
    pub account: AccountId,
    pub cells: Cells,
    /// First page of the stack as it is now, and the lowest it may grow to.
    pub stack: (u64, u64),
    pub threads: usize,
    /// It is to end as soon as its threads can.
    pub ending: bool,
}

/// An object and what is behind it.
#[derive(Clone)]
pub struct Known {
    pub object: Arc<Object>,
    pub file: Option<Arc<SimFile>>,
    /// Its number in the oracle.
    pub number: usize,
}

/// What happened, for tests that want to know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub operations: u64,
    pub loads: u64,
    pub stores: u64,
    pub faults: u64,
    pub stale_stores: u64,
    pub kills: u64,
    pub io_errors: u64,
    pub audits: u64,
    pub exits: u64,
    pub forks: u64,
}

#[derive(Default)]
pub struct State {
    pub processes: BTreeMap<u64, Process>,
    pub objects: Vec<Known>,
    pub oracle: Oracle,
    /// Objects whose size or bytes a call is changing: one such call at a time.
    pub locked: Vec<usize>,
    /// Objects that calls under way use, once for each.
    pub used: Vec<usize>,
    pub tally: Tally,
    next_process: u64,
}

pub struct World {
    pub setup: Setup,
    pub machine: Arc<Machine>,
    pub random: Rc<Random>,
    pub state: RefCell<State>,
    pub scheduler: Scheduler,
    pub stopping: std::cell::Cell<bool>,
    /// Processes begin nothing, but still end when they are told to.
    pub resting: std::cell::Cell<bool>,
    trace: bool,
}

thread_local! {
    static WORLD: RefCell<Weak<World>> = const { RefCell::new(Weak::new()) };
}

/// What the machine asks of the world.
struct Ask {
    disk: Option<Disk>,
    kills: AtomicU64,
}

impl Hooks for Ask {
    fn wait(&self, _: &Machine, key: usize, ready: &dyn Fn() -> bool) {
        tasks::wait(self.disk.as_ref(), key, ready);
    }
    fn wake(&self, key: usize) {
        tasks::wake(key);
    }
    fn account(&self) -> AccountId {
        let Some(world) = WORLD.with_borrow(Weak::upgrade) else { return AccountId::KERNEL };
        let state = world.state.borrow();
        state.processes.get(&tasks::working_for()).map_or(AccountId::KERNEL, |p| p.account)
    }
    fn kill(&self, account: AccountId, why: &OomReport) {
        self.kills.fetch_add(1, Relaxed);
        if let Some(world) = WORLD.with_borrow(Weak::upgrade) {
            world.killed(account, why);
        }
    }
    fn before_flush(&self, machine: &Machine, cpu: usize, flush: &Flush<'_>) {
        if let Some(world) = WORLD.with_borrow(Weak::upgrade) {
            world.last_stores(machine, cpu, flush);
        }
    }
}

/// Frames that one space's page tables take in this world, at most.
const TABLES: u32 = 10;

impl World {
    pub fn new(setup: Setup) -> Rc<World> {
        let disk =
            (setup.swap > 0).then(|| Disk::new(setup.swap, setup.delayed, setup.faults, setup.seed ^ 0xD15C));
        let frames = {
            let tables = if setup.wide { TABLES + 8 } else { TABLES };
            let fixed = setup.frames + setup.processes as u32 * tables + setup.swap / 64 + 8;
            // The reserve is an eighth, 24 at the most.
            fixed + (fixed / 7).min(24)
        };
        let machine = Machine::new(Build {
            frames,
            cpus: setup.cpus,
            policy: setup.policy,
            disk: disk.clone(),
            seed: setup.seed,
            hooks: Box::new(Ask { disk: disk.clone(), kills: AtomicU64::new(0) }),
        });
        let random = Rc::new(Random::new(setup.seed));
        let world = Rc::new(World {
            setup,
            machine,
            scheduler: Scheduler::new(random.clone(), disk),
            random,
            state: RefCell::default(),
            stopping: std::cell::Cell::new(false),
            resting: std::cell::Cell::new(false),
            trace: std::env::var_os("SIM_TRACE").is_some(),
        });
        WORLD.set(Rc::downgrade(&world));
        for n in 0..setup.objects {
            world.add_object(n % 2 == 0);
        }
        if setup.kreclaim {
            let machine = world.machine.clone();
            world.scheduler.spawn("kreclaim".into(), 0, true, move || machine.memory().kreclaim());
        }
        for _ in 0..setup.processes {
            world.start_process();
        }
        world
    }

    pub fn memory(&self) -> &Memory<super::machine::Host> {
        self.machine.memory()
    }

    pub fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{}", what());
        }
    }

    /// An object of a few pages, the last one in part: a file, or shared memory.
    pub fn add_object(&self, file: bool) -> usize {
        let size = self.random.range(1, 20 * PAGE_SIZE as u64);
        let mut content = Content { size, ..Content::default() };
        let number = self.state.borrow().oracle.objects.len();
        let (object, file) = if file {
            let seed = self.random.next();
            let file = Arc::new(SimFile::new(&self.machine, size, seed, self.setup.file_errors));
            for index in 0..content.end() {
                content.pages.insert(index, Rc::new(words(&file.page(index))));
            }
            (self.memory().new_object_file(file.clone(), size), Some(file))
        } else {
            (self.memory().new_object_shared(size, AccountId::KERNEL), None)
        };
        let object = object.expect("an object needs nothing");
        let mut state = self.state.borrow_mut();
        state.oracle.objects.push(content);
        state.objects.push(Known { object, file, number });
        number
    }

    // ---- processes ----

    /// A new process with one thread, if there is memory for one.
    pub fn start_process(self: &Rc<Self>) {
        let Ok(account) = self.memory().open_account() else { return };
        match self.memory().new_space(account) {
            Ok(space) => {
                self.adopt(space, account, Cells::new(), (super::ops::STACK_TOP, super::ops::STACK_TOP - 8));
            }
            Err(_) => self.memory().close_account(account),
        }
    }

    pub fn adopt(
        self: &Rc<Self>,
        space: Arc<Space>,
        account: AccountId,
        cells: Cells,
        stack: (u64, u64),
    ) -> u64 {
        space.set_map_top(VirtAddr(super::ops::MAP_TOP << 12));
        if self.random.one_in(2) {
            let (block, shift) = super::ops::SECTIONS;
            self.memory().divide_into(&space, block, shift);
        }
        // Views take frames for every processor.
        if self.setup.frames >= 64 && self.random.one_in(2) {
            self.memory().divide(&space, self.machine.cpus());
        }
        let number = {
            let mut state = self.state.borrow_mut();
            state.next_process += 1;
            let number = state.next_process;
            let process = Process { number, space, account, cells, stack, threads: 0, ending: false };
            state.processes.insert(number, process);
            number
        };
        self.start_thread(number);
        number
    }

    pub fn start_thread(self: &Rc<Self>, number: u64) {
        let thread = {
            let mut state = self.state.borrow_mut();
            let Some(process) = state.processes.get_mut(&number) else { return };
            process.threads += 1;
            process.threads
        };
        let world = Rc::downgrade(self);
        self.scheduler.spawn(format!("process {number}.{thread}"), number, false, move || {
            loop {
                let Some(world) = world.upgrade() else { return };
                if world.stopping.get() || !world.step(number) {
                    world.thread_ends(number);
                    return;
                }
                drop(world);
                tasks::between();
            }
        });
    }

    /// One operation; false when the process is to end.
    fn step(self: &Rc<Self>, number: u64) -> bool {
        let space = match self.state.borrow().processes.get(&number) {
            Some(process) if !process.ending => process.space.clone(),
            _ => return false,
        };
        if self.resting.get() {
            return true;
        }
        if self.random.one_in(4) {
            super::machine::run_on(self.random.below(self.setup.cpus as u64) as usize);
        }
        self.machine.load(current_cpu(), &space);
        self.state.borrow_mut().tally.operations += 1;
        super::ops::random(self, number);
        true
    }

    fn thread_ends(self: &Rc<Self>, number: u64) {
        let (last, few) = {
            let mut state = self.state.borrow_mut();
            let Some(process) = state.processes.get_mut(&number) else { return };
            process.threads -= 1;
            process.ending = true;
            let last = process.threads == 0;
            (
                if last { state.processes.remove(&number) } else { None },
                state.processes.len() < self.setup.processes,
            )
        };
        let Some(process) = last else { return };
        self.say(|| format!("{number}: ends"));
        self.machine.unload(&process.space);
        self.memory().destroy_space(&process.space);
        self.memory().close_account(process.account);
        self.state.borrow_mut().tally.exits += 1;
        if few && !self.stopping.get() && !self.resting.get() {
            self.start_process();
        }
    }

    fn killed(&self, account: AccountId, why: &OomReport) {
        let mut state = self.state.borrow_mut();
        state.tally.kills += 1;
        self.say(|| format!("killed: {account:?} {why:?}"));
        assert!(!self.setup.roomy, "out of memory where there is enough: {why:?}");
        let process = state.processes.values_mut().find(|p| p.account == account).expect("the victim lives");
        process.ending = true;
    }

    // ---- accesses ----

    /// A program's access: as hardware does it, with faults. `f` runs in the moment of the access.
    pub fn access<R>(
        &self,
        number: u64,
        at: VirtAddr,
        access: Access,
        f: impl Fn(&mut State, Pfn) -> R,
    ) -> Result<R, FaultError> {
        let Some(space) = self.state.borrow().processes.get(&number).map(|p| p.space.clone()) else {
            return Err(FaultError::OutOfMemory);
        };
        for _ in 0..1000 {
            // After a wait other spaces may have come in between.
            self.machine.load(current_cpu(), &space);
            let mut state = self.state.borrow_mut();
            match self
                .machine
                .access(current_cpu(), space.root(), at, access, |frame, _| f(&mut state, frame))
            {
                Ok(result) => return Ok(result),
                Err(PageFault) => state.tally.faults += 1,
            }
            drop(state);
            self.memory().fault(&space, at, access)?;
        }
        panic!("process {number} faults for ever at {at:?}, {access:?}");
    }

    /// See that a fault's error is the right one, now that it has been returned.
    pub fn check_error(&self, number: u64, page: Vpn, access: Access, error: FaultError) {
        let mut state = self.state.borrow_mut();
        let Some(process) = state.processes.get(&number) else { return };
        let cell = process.cells.get(&page.0);
        match error {
            FaultError::OutOfMemory => {
                assert!(process.ending, "no memory for process {number}, but it was not told to go");
            }
            FaultError::Io => {
                let file = cell
                    .and_then(|c| c.backing)
                    .and_then(|(o, _)| state.objects.iter().find(|k| k.number == o)?.file.clone());
                let allowed = self.machine.disk.as_ref().is_some_and(|d| d.faults().can_lose())
                    || file.is_some_and(|f| f.can_fail());
                assert!(allowed, "an I/O error on good disks, page {page:?}");
                state.tally.io_errors += 1;
            }
            error => match state.oracle.judge(cell, access) {
                Verdict::Unknown => {}
                Verdict::Fails(expected) => assert_eq!(error, expected, "page {page:?}, {access:?}"),
                Verdict::Works => {
                    panic!("process {number} gets {error:?} at {page:?}, {access:?}: it may do that")
                }
            },
        }
    }

    /// What processors still do before one of them forgets translations: through those, and in other spaces.
    fn last_stores(&self, machine: &Machine, cpu: usize, flush: &Flush<'_>) {
        if std::thread::panicking() {
            return;
        }
        let named = |page: Vpn| match flush.pages {
            FlushPages::All => true,
            FlushPages::List(pages) => pages.contains(&page),
        };
        for (page, frame) in machine.translations(cpu, flush.root) {
            let free = matches!(
                self.memory().spaces.frames.meta(frame).word().state(),
                FrameState::Idle | FrameState::FreeHead | FrameState::Inner
            );
            assert!(!free, "I5: {frame:?} is free, and cpu {cpu} still has page {page:x?} there");
        }
        let Ok(mut state) = self.state.try_borrow_mut() else { return };
        if self.random.one_in(2) {
            for (page, _) in machine.writable(cpu, flush.root).into_iter().filter(|(page, _)| named(*page)) {
                self.last_store(&mut state, machine, cpu, flush.root, page);
            }
        }
        // Another processor runs another space at the same time: it may use any page that it has.
        for _ in 0..self.random.below(3) {
            let cpu = self.random.below(machine.cpus() as u64) as usize;
            let roots =
                machine.loaded(cpu).into_iter().filter(|&root| root != flush.root).collect::<Vec<_>>();
            if roots.is_empty() {
                continue;
            }
            let root = roots[self.random.below(roots.len() as u64) as usize];
            let Some(process) = state.processes.values().find(|p| p.space.root() == root) else { continue };
            let from = self.random.below(super::ops::top(self));
            let page = process
                .cells
                .range(from..)
                .next()
                .or_else(|| process.cells.iter().next())
                .map(|(&page, _)| page);
            if let Some(page) = page {
                self.last_store(&mut state, machine, cpu, root, Vpn(page));
            }
        }
    }

    /// A store by a processor that takes no fault: where it cannot, it does not.
    fn last_store(&self, state: &mut State, machine: &Machine, cpu: usize, root: Pfn, page: Vpn) {
        let State { processes, oracle, tally, .. } = state;
        let cell = |p: &super::world::Process| {
            p.cells.get(&page.0).and_then(|cell| cell.backing.filter(|_| cell.shared))
        };
        let object_page = processes.values().find(|p| p.space.root() == root).and_then(cell);
        // Private copies of this very page may just have been made, which the oracle will hear of when the call that made them ends.
        let copied = |c: &Cell| !c.shared && c.backing == object_page;
        if object_page.is_some() && processes.values().any(|p| p.cells.values().any(copied)) {
            return;
        }
        let Some(process) = processes.values_mut().find(|p| p.space.root() == root) else { return };
        let Some(cell) = process.cells.get_mut(&page.0) else { return };
        let n = self.random.below(WORDS as u64) as usize;
        let access = Access { write: true, exec: false };
        if !matches!(oracle.judge(Some(cell), access), Verdict::Works) || !oracle.storable(cell, n..n + 1) {
            return;
        }
        let word = self.random.next();
        let stored = machine.use_translation(cpu, root, page, |frame| {
            machine.phys().write(frame, n * 8, &word.to_le_bytes());
        });
        if stored.is_ok() {
            oracle.store(cell, n, &[word]);
            tally.stale_stores += 1;
        }
    }

    // ---- running ----

    /// Run about so many operations, with an audit at quiet points.
    pub fn run(self: &Rc<Self>, operations: u64) {
        while self.state.borrow().tally.operations < operations {
            if !self.scheduler.run(self.random.range(20, 400) as usize) {
                self.start_process();
            }
            self.audit();
        }
    }

    /// Come to rest and look at everything.
    pub fn audit(&self) {
        self.scheduler.quiesce();
        self.state.borrow_mut().tally.audits += 1;
        if let Err(error) = self.memory().audit() {
            panic!("audit: {}", error.0);
        }
        if let Err(error) = self.machine.check_translations() {
            panic!("{error}");
        }
    }

    /// Read every page of every process once more, end them all, and see that nothing is left.
    pub fn finish(self: &Rc<Self>) -> Tally {
        self.scheduler.quiesce();
        self.resting.set(true);
        let done = Rc::new(std::cell::Cell::new(false));
        let (world, ended) = (self.clone(), done.clone());
        self.scheduler.spawn("last look".into(), 0, false, move || {
            world.look_at_everything();
            ended.set(true);
        });
        while !done.get() {
            self.scheduler.run(100);
        }
        self.stopping.set(true);
        while self.scheduler.run(1000) {}
        self.audit();
        self.check_empty();
        self.state.borrow().tally
    }

    fn look_at_everything(self: &Rc<Self>) {
        let numbers: Vec<u64> = self.state.borrow().processes.keys().copied().collect();
        for number in numbers {
            let pages: Vec<u64> = match self.state.borrow().processes.get(&number) {
                Some(process) => process.cells.keys().copied().collect(),
                None => continue,
            };
            for page in pages {
                super::ops::load_page(self, number, Vpn(page));
            }
        }
    }

    /// When all processes have gone, nothing may be charged to anyone, and swap holds shared objects' pages only.
    fn check_empty(&self) {
        let state = self.state.borrow();
        assert!(state.processes.is_empty());
        assert_eq!(
            self.memory().stats().wired,
            0,
            "pages are locked in memory, and nobody is there who locked them"
        );
        for known in &state.objects {
            if let Some(file) = &known.file {
                file.set_odds(0, 0);
            }
            let _ = self.memory().object_sync(&known.object);
            self.memory().object_retire(&known.object);
        }
        let stats = self.memory().stats();
        let left = (stats.anonymous, stats.file, stats.shared, stats.tables, stats.swap_used_slots);
        assert_eq!(left, (0, 0, 0, 0, 0), "left behind: anonymous, file, shared, tables, slots");
        if let Err(error) = self.memory().audit() {
            panic!("audit of an empty machine: {}", error.0);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Tasks hold the machine's memory by reference: let them go while it is there.
        self.stopping.set(true);
    }
}

/// A page's bytes as words.
pub fn words(bytes: &[u8; PAGE_SIZE]) -> Page {
    let mut page = [0; WORDS];
    for (word, chunk) in page.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
    }
    page
}

/// Results that mean that the process is going.
pub fn is_out(result: Result<impl Sized, MmError>) -> bool {
    matches!(result, Err(MmError::NoMemory))
}

pub fn anonymous(rights: crate::Rights) -> Cell {
    Cell {
        rights,
        max_rights: crate::Rights::all(),
        shared: false,
        backing: None,
        private: None,
        dont_fork: false,
        wipe_on_fork: false,
        wired: false,
        vague: false,
        random: false,
        sequential: false,
        huge: None,
    }
}
