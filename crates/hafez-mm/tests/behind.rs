//! Who comes while reclaim is behind: an entry has been taken, and processors may still use what it said.
//!
//! ```text
//!   reclaim:  entry := in swap ......................... flush ... frame is written out
//!   a call:                     unmap, protect, fork ...
//! ```
//!
//! The call finds no present entry, so there is nothing for it to take back; and yet, when it returns, no processor may reach the
//! page by what it had. Here reclaim is stopped just before its flush, a processor makes the call, and then a program on another tries
//! what the call has forbidden. Each of these must be noticed if calls do not flush for reclaim (`Mutant::SweepNotAwaited`).
#![cfg(feature = "sim")]

mod common;

use hafez_mm::RemapHow::Fixed;
use hafez_mm::sim::machine::{Host, current_cpu, run_on};
use hafez_mm::sim::{Build, Disk, Faults, Hooks, Machine, tasks};
use hafez_mm::{
    Access, AccountId, Advice, FaultError, Flush, Memory, OomReport, PAGE_SIZE, PageRange, PolicyKind,
    Rights, Space, VirtAddr, Where,
};
use std::sync::{Arc, Mutex};

type Visit = Box<dyn FnOnce() + Send>;

/// Stops reclaim before its flushes.
struct Between {
    disk: Disk,
    /// The space whose page reclaim is to take, once it has been used for the last time.
    watched: Arc<Mutex<Option<Arc<Space>>>>,
    /// What is done when it has.
    visit: Arc<Mutex<Option<Visit>>>,
}

impl Hooks for Between {
    fn wait(&self, _: &Machine, key: usize, ready: &dyn Fn() -> bool) {
        tasks::wait(Some(&self.disk), key, ready);
    }
    fn wake(&self, _: usize) {}
    fn kill(&self, _: AccountId, why: &OomReport) {
        panic!("there is enough: {why:?}");
    }
    fn before_flush(&self, machine: &Machine, _: usize, _: &Flush<'_>) {
        // Taken out first: what is done here flushes too.
        let Some(space) = self.watched.lock().unwrap().take() else { return };
        if machine.memory().is_resident(&space, PLACE) == Some(false) {
            let visit = self.visit.lock().unwrap().take().expect("once");
            return visit();
        }
        // The first to come has taken the mark of use back, which is not flushed yet either. The second, on the other processor,
        // finds a page that nobody uses.
        *self.watched.lock().unwrap() = Some(space);
        on_processor(1, || machine.memory().reclaim_some());
    }
}

/// Do it as that processor, whose turn it is only for so long.
fn on_processor<R>(cpu: usize, f: impl FnOnce() -> R) -> R {
    let before = current_cpu();
    run_on(cpu);
    let result = f();
    run_on(before);
    result
}

const PLACE: VirtAddr = VirtAddr(0x10_0000);
const ELSEWHERE: VirtAddr = VirtAddr(0x90_0000);
const OLD: u64 = 0x0DD;

/// A space whose page at `PLACE` the processors 0 and 1 have used; a neighbour keeps the tables around it in being.
#[derive(Clone)]
struct Program {
    machine: Arc<Machine>,
    space: Arc<Space>,
}

impl Program {
    fn memory(&self) -> &Memory<Host> {
        self.machine.memory()
    }

    fn range(&self) -> PageRange {
        PageRange::sized(PLACE.page(), 1).unwrap()
    }

    fn map(&self, pages: u64) {
        self.memory().map(&self.space, common::anonymous(Where::Fixed(PLACE), pages)).unwrap();
    }

    /// An access of the space by a processor, as a program makes it: a store, or a load.
    fn on(&self, cpu: usize, space: &Arc<Space>, store: Option<u64>) -> Result<u64, FaultError> {
        on_processor(cpu, || {
            let access = Access { write: store.is_some(), exec: false };
            let phys = self.machine.phys();
            loop {
                self.machine.load(cpu, space);
                let done = self.machine.access(cpu, space.root(), PLACE, access, |frame, offset| {
                    let mut bytes = [0; 8];
                    if let Some(word) = store {
                        phys.write(frame, offset, &word.to_le_bytes());
                    }
                    phys.read(frame, offset, &mut bytes);
                    u64::from_le_bytes(bytes)
                });
                match done {
                    Ok(word) => return Ok(word),
                    Err(_) => self.memory().fault(space, PLACE, access)?,
                }
            }
        })
    }

    fn load(&self) -> Result<u64, FaultError> {
        self.on(0, &self.space, None)
    }
    fn store(&self, word: u64) -> Result<u64, FaultError> {
        self.on(0, &self.space, Some(word))
    }
}

/// Reclaim takes the page, and before its flush processor 1 does this. What it makes of it: whether all was as it must be.
fn between(call: Call) -> bool {
    let disk = Disk::new(64, 0, Faults::default(), 1);
    let (visit, watched) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
    let hooks = Between { disk: disk.clone(), visit: visit.clone(), watched: watched.clone() };
    // A hand that comes round: it walks no tables, so every flush but the one that is waited for finds the page in its place.
    let machine = Machine::new(Build {
        frames: 64,
        cpus: 2,
        policy: PolicyKind::Clock,
        disk: Some(disk),
        seed: 3,
        hooks: Box::new(hooks),
    });
    // What the program would see, not what only the machine can.
    machine.strict.store(false, std::sync::atomic::Ordering::Relaxed);
    let memory = machine.memory();
    let space = memory.new_space(memory.open_account().unwrap()).unwrap();
    let program = Program { machine: machine.clone(), space: space.clone() };
    program.map(2);
    memory.fault(&space, VirtAddr(PLACE.0 + PAGE_SIZE as u64), Access { write: true, exec: false }).unwrap();
    for cpu in [1, 0] {
        assert_eq!(program.on(cpu, &space, Some(OLD)), Ok(OLD));
    }
    let good = Arc::new(Mutex::new(None));
    *visit.lock().unwrap() = Some(Box::new({
        let (good, program) = (good.clone(), program.clone());
        move || {
            *good.lock().unwrap() = Some(on_processor(1, || call(&program)));
        }
    }));
    *watched.lock().unwrap() = Some(space.clone());
    memory.reclaim_some();
    let good = good.lock().unwrap().take().expect("reclaim took the page");
    machine.unload(&space);
    memory.destroy_space(&space);
    memory.close_account(space.account());
    good
}

/// The page is given up, and another mapped in its place: it is empty.
fn unmap(program: &Program) -> bool {
    program.memory().unmap(&program.space, program.range()).unwrap();
    let gone = program.load() == Err(FaultError::NotMapped);
    program.map(1);
    gone && program.load() == Ok(0)
}

fn map_over(program: &Program) -> bool {
    program.map(1);
    program.load() == Ok(0)
}

fn throw_away(program: &Program) -> bool {
    program.memory().advise(&program.space, program.range(), Advice::DontNeed).unwrap();
    program.load() == Ok(0)
}

fn protect(program: &Program) -> bool {
    program.memory().protect(&program.space, program.range(), Rights::READ).unwrap();
    program.store(1) == Err(FaultError::Denied) && program.load() == Ok(OLD)
}

fn move_away(program: &Program) -> bool {
    let page = PAGE_SIZE as u64;
    program.memory().remap(&program.space, PLACE, page, page, Fixed(ELSEWHERE)).unwrap();
    program.load() == Err(FaultError::NotMapped)
}

/// What the parent writes after the fork is not the child's.
fn fork(program: &Program) -> bool {
    let memory = program.memory();
    let child = memory.fork_space(&program.space, memory.open_account().unwrap()).unwrap();
    assert_eq!(program.store(1), Ok(1));
    let was = program.on(1, &child, None);
    program.machine.unload(&child);
    memory.destroy_space(&child);
    memory.close_account(child.account());
    was == Ok(OLD)
}

/// Make the call, and try what it forbids: whether all is as it must be.
type Call = fn(&Program) -> bool;

const CALLS: [(&str, Call); 5] = [
    ("unmap", unmap),
    ("map over", map_over),
    ("throw away", throw_away),
    ("protect", protect),
    ("move away", move_away),
];

#[test]
fn what_a_call_forbids_is_over_when_it_returns() {
    for (name, call) in CALLS {
        assert!(between(call), "{name}: a processor still had the page");
    }
    // It takes every right to write back, whether reclaim is behind or not.
    assert!(between(fork), "fork: the parent still wrote to what it shares");
}

#[cfg(feature = "mutants")]
#[test]
fn a_sweep_that_is_not_awaited_is_noticed() {
    use hafez_mm::mutant::{Mutant, set};
    for (name, call) in CALLS {
        set(Some(Mutant::SweepNotAwaited));
        let good = between(call);
        set(None);
        assert!(!good, "{name}: nobody noticed");
    }
}
