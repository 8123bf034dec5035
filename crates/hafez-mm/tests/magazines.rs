//! What CPUs keep of the free frames for themselves is there for all when it is wanted.
#![cfg(feature = "sim")]

mod common;

use hafez_mm::sim::machine::{Host, run_on};
use hafez_mm::sim::{Build, Disk, Faults, Hooks, Machine, tasks};
use hafez_mm::{
    Access, AccountId, Memory, OomReport, PAGE_SIZE, PageRange, PolicyKind, Space, VirtAddr, Where,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::*};

const FRAMES: u32 = 16_384;
const CPUS: usize = 8;
const BASE: VirtAddr = VirtAddr(0x10_0000);

struct Plain {
    disk: Disk,
    /// Whether anybody was woken: of those that wait here, only the reclaim thread.
    woken: Arc<AtomicBool>,
}

impl Hooks for Plain {
    fn wait(&self, _: &Machine, key: usize, ready: &dyn Fn() -> bool) {
        tasks::wait(Some(&self.disk), key, ready);
    }
    fn wake(&self, _: usize) {
        self.woken.store(true, Relaxed);
    }
    fn kill(&self, _: AccountId, why: &OomReport) {
        panic!("there is enough: {why:?}");
    }
}

fn machine(woken: &Arc<AtomicBool>) -> Arc<Machine> {
    let disk = Disk::new(FRAMES, 0, Faults::default(), 1);
    let hooks = Box::new(Plain { disk: disk.clone(), woken: woken.clone() });
    let policy = PolicyKind::Generations;
    Machine::new(Build { frames: FRAMES, cpus: CPUS, policy, disk: Some(disk), seed: 1, hooks })
}

fn new_space(memory: &Memory<Host>) -> Arc<Space> {
    memory.new_space(memory.open_account().unwrap()).unwrap()
}

fn map(memory: &Memory<Host>, space: &Arc<Space>, pages: u64) {
    memory.map(space, common::anonymous(Where::Fixed(BASE), pages)).unwrap();
}

fn write(memory: &Memory<Host>, space: &Arc<Space>, page: u64) {
    let at = VirtAddr(BASE.0 + page * PAGE_SIZE as u64);
    memory.fault(space, at, Access { write: true, exec: false }).unwrap();
}

/// Every CPU uses memory and gives it back: its magazine keeps some of it. Then one CPU uses up the machine's RAM.
#[test]
fn no_page_is_evicted_for_frames_that_lie_in_magazines() {
    let woken = Arc::new(AtomicBool::new(false));
    let machine = machine(&woken);
    let memory = machine.memory();
    let before = memory.stats().free;
    for cpu in 0..CPUS {
        run_on(cpu);
        let space = new_space(memory);
        map(memory, &space, 700);
        (0..700).for_each(|page| write(memory, &space, page));
        machine.load(cpu, &space);
        memory.unmap(&space, PageRange::sized(BASE.page(), 700).unwrap()).unwrap();
        machine.unload(&space);
        memory.destroy_space(&space);
        memory.close_account(space.account());
    }
    let kept = before - memory.stats().free;
    assert!(kept < 64, "{kept} frames are neither free nor in use");
    memory.audit().unwrap();

    run_on(0);
    woken.store(false, Relaxed);
    let space = new_space(memory);
    map(memory, &space, FRAMES as u64);
    let (_, low, _) = memory.watermarks();
    let mut page = 0;
    while memory.stats().free > low as u64 + 64 {
        write(memory, &space, page);
        page += 1;
        assert!(!woken.load(Relaxed), "frames are wanted, with {} free", memory.stats().free);
    }
    assert!(page > FRAMES as u64 * 9 / 10);
    memory.audit().unwrap();
}
