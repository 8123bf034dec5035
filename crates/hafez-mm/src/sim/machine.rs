//! The machine: RAM, processors, a disk, and the core that runs on them.
//!
//! RAM is one buffer, and the core's [`PhysMap`] lies over it. Frame 0 stays unused, the frame table comes next, then
//! a root with the kernel's half, then what the core may hand out. Processors are [`Cpu`]s, each behind a lock: an
//! access holds it from translation to the last byte, so a flush of that processor comes before or after the access,
//! as an interrupt does.
//!
//! What waits, wakes and dies is up to the [`Hooks`], for two uses: one thread that plays all (`tasks`), where every
//! interleaving comes from the seed; or real threads.

use super::disk::Disk;
use super::mmu::{Cpu, PageFault};
use super::random::Random;
use crate::account::AccountId;
use crate::addr::{PAGE_SIZE, Pfn, PfnRange, VirtAddr};
use crate::paging::{Flush, FlushPages};
use crate::reclaim::PolicyKind;
use crate::space::Space;
use crate::{Access, Config, Memory, OomReport, PhysMap, Platform};
use std::alloc::Layout;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};

/// What the machine leaves to its user.
pub trait Hooks: Send + Sync {
    fn wait(&self, machine: &Machine, key: usize, ready: &dyn Fn() -> bool);
    fn wake(&self, key: usize);
    /// On whose behalf the running thread runs.
    fn account(&self) -> AccountId {
        AccountId::KERNEL
    }
    fn kill(&self, account: AccountId, why: &OomReport);
    /// These translations are about to be taken back from this processor, which may still use them.
    fn before_flush(&self, _machine: &Machine, _cpu: usize, _flush: &Flush<'_>) {}
}

/// What the machine is built of.
pub struct Build {
    /// Frames for the core to hand out.
    pub frames: u32,
    pub cpus: usize,
    pub policy: PolicyKind,
    pub disk: Option<Disk>,
    pub seed: u64,
    pub hooks: Box<dyn Hooks>,
}

pub struct Machine {
    // The core first: it goes before the RAM that it lives in.
    memory: OnceLock<Memory<Host>>,
    cpus: Vec<Mutex<Processor>>,
    pub random: Random,
    pub disk: Option<Disk>,
    hooks: Box<dyn Hooks>,
    ram: Ram,
    /// Look at every translation before its use, and panic if the core should have flushed it. Only where one thread plays all:
    /// with real ones it may just be about to.
    pub strict: AtomicBool,
}

#[derive(Default)]
struct Processor {
    cpu: Cpu,
    /// Spaces whose translations it may hold, the last one loaded at the end.
    loaded: Vec<Arc<Space>>,
    /// The root that it goes by for a space that is known by another.
    ways: HashMap<Pfn, Pfn>,
}

impl Processor {
    /// For the space of this root: that one, and the one to go by.
    fn way(&self, root: Pfn) -> (Pfn, Pfn) {
        (root, *self.ways.get(&root).unwrap_or(&root))
    }
}

/// Spaces that a processor keeps translations of.
const LOADED: usize = 2;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// From now on this thread runs on that processor.
pub fn run_on(cpu: usize) {
    CURRENT.set(cpu);
}
/// The processor that this thread runs on.
pub fn current_cpu() -> usize {
    CURRENT.get()
}

impl Machine {
    pub fn new(build: Build) -> Arc<Machine> {
        let meta = 1 + Config::meta_frames(build.frames + 64);
        let total = 1 + meta + 1 + build.frames;
        let ram = Ram::new(total as usize);
        // SAFETY: `total` frames of zeroed memory begin there, which live as long as the machine, and so the core.
        let phys = unsafe { PhysMap::new(ram.base) };
        let root = Pfn(1 + meta);
        // What a program must never see, and what is not to be mistaken for a page of zeroes.
        (root.0 + 1..total).for_each(|n| phys.fill(Pfn(n), 0xA5A5_A5A5_A5A5_A5A5));
        // Something recognisable in the kernel's half.
        for n in 256..512 {
            phys.word(root, n).store((n as u64) << 12, core::sync::atomic::Ordering::Relaxed);
        }
        let machine = Arc::new(Machine {
            memory: OnceLock::new(),
            cpus: (0..build.cpus).map(|_| Mutex::default()).collect(),
            random: Random::new(build.seed),
            disk: build.disk,
            hooks: build.hooks,
            ram,
            strict: AtomicBool::new(true),
        });
        let usable = [PfnRange { start: Pfn(2 + meta), end: Pfn(total) }];
        let config = Config {
            phys,
            usable: &usable,
            meta: Pfn(1),
            total_frames: total,
            kernel_root: root,
            policy: build.policy,
            seed: build.seed,
        };
        // SAFETY: the frames named are the machine's, apart from each other, and used for nothing else.
        let memory = unsafe { Memory::new(Host(Arc::downgrade(&machine)), config) };
        if let Some(disk) = &machine.disk {
            disk.belong_to(&machine);
            memory.attach_swap(Box::leak(Box::new(disk.clone())));
        }
        (0..build.cpus).for_each(|cpu| memory.add_cpu(cpu));
        assert!(machine.memory.set(memory).is_ok());
        machine
    }

    pub fn memory(&self) -> &Memory<Host> {
        self.memory.get().expect("the core is there from the start")
    }
    pub fn phys(&self) -> PhysMap {
        // SAFETY: as in `new`.
        unsafe { PhysMap::new(self.ram.base) }
    }
    pub fn cpus(&self) -> usize {
        self.cpus.len()
    }

    fn processor(&self, cpu: usize) -> MutexGuard<'_, Processor> {
        self.cpus[cpu].lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The processor runs the space from now on. It may keep translations of the one before.
    pub fn load(&self, cpu: usize, space: &Arc<Space>) {
        let mut gone = None;
        {
            let mut processor = self.processor(cpu);
            if let Some(at) = processor.loaded.iter().position(|s| s.id() == space.id()) {
                let space = processor.loaded.remove(at);
                processor.loaded.push(space.clone());
                drop(processor);
                return self.take_way(cpu, &space);
            }
            if processor.loaded.len() >= LOADED {
                let old = processor.loaded.remove(0);
                processor.cpu.forget_space(old.root());
                gone = Some(old);
            }
        }
        if let Some(old) = gone {
            self.memory().deactivate(&old, cpu);
        }
        self.memory().activate(space, cpu);
        self.processor(cpu).loaded.push(space.clone());
        self.take_way(cpu, space);
    }

    /// Go by the root that the core says.
    fn take_way(&self, cpu: usize, space: &Space) {
        let mut processor = self.processor(cpu);
        if !processor.ways.contains_key(&space.root()) || self.random.one_in(8) {
            processor.cpu.forget_space(space.root());
            let root = self.memory().take_way(space, cpu);
            processor.ways.insert(space.root(), root);
        }
    }

    /// No processor runs the space any more.
    pub fn unload(&self, space: &Space) {
        for cpu in 0..self.cpus.len() {
            let mut processor = self.processor(cpu);
            processor.ways.remove(&space.root());
            let Some(at) = processor.loaded.iter().position(|s| s.id() == space.id()) else { continue };
            processor.loaded.remove(at);
            processor.cpu.forget_space(space.root());
            drop(processor);
            self.memory().deactivate(space, cpu);
        }
    }

    /// One access by a program: translate, and use the frame before anyone can take the translation back.
    pub fn access<R>(
        &self,
        cpu: usize,
        root: Pfn,
        at: VirtAddr,
        access: Access,
        f: impl FnOnce(Pfn, usize) -> R,
    ) -> Result<R, PageFault> {
        let phys = self.phys();
        let mut processor = self.processor(cpu);
        if self.strict.load(Relaxed)
            && let Some(why) = processor.cpu.stale_at(&phys, root, at.page())
        {
            panic!("I5: cpu {cpu} uses a stale translation of page {:#x}: {why}", at.page().0);
        }
        let way = processor.way(root);
        let frame =
            processor.cpu.translate(&phys, &self.random, way, at.page(), access.write, access.exec)?;
        assert!(frame.0 < self.ram.frames(), "I5: cpu {cpu} is sent to {frame:?}, where there is no memory");
        Ok(f(frame, at.offset()))
    }

    /// A store of the processor's, whatever translation it has by now: no look at whether it should have it.
    pub fn use_translation<R>(
        &self,
        cpu: usize,
        root: Pfn,
        page: crate::Vpn,
        f: impl FnOnce(Pfn) -> R,
    ) -> Result<R, PageFault> {
        let mut processor = self.processor(cpu);
        let way = processor.way(root);
        Ok(f(processor.cpu.translate(&self.phys(), &self.random, way, page, true, false)?))
    }

    /// Roots of the spaces that a processor has loaded.
    pub fn loaded(&self, cpu: usize) -> Vec<Pfn> {
        self.processor(cpu).loaded.iter().map(|space| space.root()).collect()
    }

    /// All translations of a space that a processor holds.
    pub fn translations(&self, cpu: usize, root: Pfn) -> Vec<(crate::Vpn, Pfn)> {
        self.processor(cpu).cpu.of_space(root).into_iter().map(|(page, c)| (page, c.frame)).collect()
    }

    /// Writable translations of a space that a processor could write through without a look at the tables.
    pub fn writable(&self, cpu: usize, root: Pfn) -> Vec<(crate::Vpn, Pfn)> {
        let processor = self.processor(cpu);
        let usable = processor.cpu.of_space(root).into_iter().filter(|(_, c)| c.writable && c.dirty);
        usable.map(|(page, c)| (page, c.frame)).collect()
    }

    /// Every processor's translations against the tables.
    pub fn check_translations(&self) -> Result<(), String> {
        for cpu in 0..self.cpus.len() {
            if let Some(why) = self.processor(cpu).cpu.stale(&self.phys()) {
                return Err(format!("I5: cpu {cpu} holds a stale translation: {why}"));
            }
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(disk) = &self.disk {
            disk.end();
        }
    }
}

/// The machine as the core sees it.
pub struct Host(Weak<Machine>);

impl Host {
    fn machine(&self) -> Option<Arc<Machine>> {
        self.0.upgrade()
    }
}

impl Platform for Host {
    fn cpu() -> usize {
        current_cpu()
    }

    fn flush(&self, flush: &Flush<'_>) {
        let Some(machine) = self.machine() else { return };
        for cpu in 0..machine.cpus.len() {
            if flush.cpus.0 & 1 << cpu == 0 {
                continue;
            }
            machine.hooks.before_flush(&machine, cpu, flush);
            let mut processor = machine.processor(cpu);
            // Where threads are real, the processor's own may be on its way there.
            if let Some(leaving) = flush.leaving
                && cpu != current_cpu()
                && machine.strict.load(Relaxed)
            {
                leaving.cut(cpu);
                processor.cpu.forget_space(flush.root);
                leaving.done(cpu);
                continue;
            }
            match flush.pages {
                FlushPages::All => processor.cpu.forget_space(flush.root),
                FlushPages::List(pages) => {
                    pages.iter().for_each(|&page| processor.cpu.forget_page(flush.root, page))
                }
            }
        }
    }

    fn wait(&self, key: usize, ready: &dyn Fn() -> bool) {
        if let Some(machine) = self.machine() {
            machine.hooks.wait(&machine, key, ready);
        }
    }

    fn wake(&self, key: usize) {
        if let Some(machine) = self.machine() {
            machine.hooks.wake(key);
        }
    }

    fn random(&self) -> u64 {
        self.machine().map_or(0, |machine| machine.random.next())
    }

    fn headroom(&self, _: usize) -> bool {
        true
    }

    fn account(&self) -> AccountId {
        self.machine().map_or(AccountId::KERNEL, |machine| machine.hooks.account())
    }

    fn holdings(&self, _: &mut dyn FnMut(AccountId, u64)) {}

    fn kill(&self, account: AccountId, why: &OomReport) {
        if let Some(machine) = self.machine() {
            machine.hooks.kill(account, why);
        }
    }
}

/// So many frames of memory.
struct Ram {
    base: *mut u8,
    layout: Layout,
}

// SAFETY: a plain piece of memory; who may touch which byte when is the core's to keep.
unsafe impl Send for Ram {}
// SAFETY: as above.
unsafe impl Sync for Ram {}

impl Ram {
    fn frames(&self) -> u32 {
        (self.layout.size() / PAGE_SIZE) as u32
    }

    fn new(frames: usize) -> Ram {
        let layout = Layout::from_size_align(frames * PAGE_SIZE, PAGE_SIZE).expect("a sensible size");
        // SAFETY: the size is not zero.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        assert!(!base.is_null(), "no memory for the machine");
        Ram { base, layout }
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; the core that used it has gone before (field order).
        unsafe { std::alloc::dealloc(self.base, self.layout) }
    }
}
