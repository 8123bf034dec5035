//! Threads of the machine on one thread of the host: coroutines, a scheduler that throws dice, and nothing else.
//!
//! A task runs until it waits ([`wait`]) or offers to be interrupted ([`pause`]); then the dice say who goes on, or which
//! request the disk answers. So a seed names one interleaving of everything, and repeats it.
//!
//! A waiting task goes on only after a wake-up of its key, as it would in a kernel. Where nobody can go on and the
//! disk owes nothing, the machine has hung: that is a finding, told with who waits for what, and whether the
//! condition holds already (then a wake-up was lost).

use super::disk::Disk;
use super::machine::{current_cpu, run_on};
use super::random::Random;
use corosensei::{Coroutine, CoroutineResult, Yielder, stack::DefaultStack};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Why a task gave up the processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rest {
    /// It could go on.
    Paused,
    /// It waits for a wake-up of the key.
    Waits { key: usize, since: usize, ready: bool },
    /// It is between two operations.
    Between,
}

type Body = Coroutine<(), Rest, ()>;

struct Task {
    name: String,
    body: Body,
    rest: Rest,
    cpu: usize,
    /// The process that it works for; 0: the kernel.
    process: u64,
    /// Its yielder, once it runs.
    yielder: *const Yielder<(), Rest>,
    /// Works for others: that it waits is no hang.
    daemon: bool,
}

thread_local! {
    /// The running task's way back to the scheduler.
    static YIELDER: Cell<*const Yielder<(), Rest>> = const { Cell::new(std::ptr::null()) };
    /// For whom the running task works.
    static FOR: Cell<u64> = const { Cell::new(0) };
    /// Keys woken since the scheduler last looked.
    static WOKEN: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

fn rest(why: Rest) {
    let yielder = YIELDER.get();
    // SAFETY: set by the scheduler to the yielder of the task that runs, which outlives this call as it is on the
    // task's own stack.
    unsafe { &*yielder }.suspend(why);
}

fn in_task() -> bool {
    !YIELDER.get().is_null()
}

/// Sleep until `ready()`, which is looked at again at each wake-up of the key. Outside of tasks, only the disk can help.
pub fn wait(disk: Option<&Disk>, key: usize, ready: &dyn Fn() -> bool) {
    while !ready() {
        if in_task() {
            // What was woken before is no wake-up for this wait.
            let since = WOKEN.with_borrow(Vec::len);
            rest(Rest::Waits { key, since, ready: false });
        } else if !disk.is_some_and(Disk::answer_one) {
            panic!("hang: waiting for key {key:#x} with nothing under way");
        }
    }
}

/// Note a wake-up.
pub fn wake(key: usize) {
    WOKEN.with_borrow_mut(|woken| woken.push(key));
}

/// The process that the running task works for; 0 for the kernel.
pub fn working_for() -> u64 {
    FOR.get()
}

/// Others may go on here.
pub fn pause() {
    if in_task() {
        rest(Rest::Paused);
    }
}

/// A task calls this between two operations.
pub fn between() {
    rest(Rest::Between);
}

/// The tasks and the dice.
pub struct Scheduler {
    tasks: RefCell<Vec<Task>>,
    starting: RefCell<Vec<Task>>,
    random: Rc<Random>,
    disk: Option<Disk>,
}

const STACK: usize = 256 << 10;

impl Scheduler {
    pub fn new(random: Rc<Random>, disk: Option<Disk>) -> Self {
        WOKEN.with_borrow_mut(Vec::clear);
        Scheduler { tasks: RefCell::default(), starting: RefCell::default(), random, disk }
    }

    /// A new task, from outside or from another task.
    pub fn spawn(&self, name: String, process: u64, daemon: bool, body: impl FnOnce() + 'static) {
        let stack = DefaultStack::new(STACK).expect("room for a stack");
        let body = Coroutine::with_stack(stack, move |yielder: &Yielder<(), Rest>, ()| {
            YIELDER.set(yielder);
            body();
        });
        self.starting.borrow_mut().push(Task {
            name,
            body,
            rest: Rest::Between,
            cpu: 0,
            process,
            yielder: std::ptr::null(),
            daemon,
        });
    }

    /// Go on for so many steps, or until all but daemons have ended.
    pub fn run(&self, steps: usize) -> bool {
        for _ in 0..steps {
            if !self.step(true) {
                return false;
            }
        }
        true
    }

    /// Bring every task to the end of its operation and the disk to rest.
    pub fn quiesce(&self) {
        // Where a task waits for another to end, that one has to begin once more; but not for ever.
        for _ in 0..100_000 {
            if !self.step(false) {
                return;
            }
        }
        self.tell_hang(self.tasks.borrow_mut());
    }

    /// One step: a task goes on, or the disk answers. False if there was nothing to do. `begin`: tasks may begin operations.
    fn step(&self, begin: bool) -> bool {
        self.tasks.borrow_mut().append(&mut self.starting.borrow_mut());
        let woken = WOKEN.with_borrow_mut(std::mem::take);
        let mut tasks = self.tasks.borrow_mut();
        for task in tasks.iter_mut() {
            if let Rest::Waits { key, since, ready } = &mut task.rest {
                *ready |= woken[*since..].contains(key);
                *since = 0;
            }
        }
        let able = |task: &Task| match task.rest {
            Rest::Paused => true,
            Rest::Waits { ready, .. } => ready,
            Rest::Between => begin,
        };
        let able: Vec<usize> = (0..tasks.len()).filter(|&n| able(&tasks[n])).collect();
        let pending = self.disk.as_ref().map_or(0, Disk::pending);
        if able.is_empty() && pending == 0 {
            let stuck = tasks.iter().any(|t| !t.daemon && matches!(t.rest, Rest::Waits { .. }));
            let idle = tasks.iter().any(|t| t.rest == Rest::Between);
            if stuck && idle && !begin {
                // Who was told to go has to begin for that.
                drop(tasks);
                return self.step(true);
            }
            if stuck {
                self.tell_hang(tasks);
            }
            return false;
        }
        let choice = self.random.below((able.len() + pending.min(2)) as u64) as usize;
        let Some(&chosen) = able.get(choice) else {
            drop(tasks);
            return self.disk.as_ref().is_some_and(Disk::answer_one);
        };
        let mut task = tasks.swap_remove(chosen);
        drop(tasks);
        if self.resume(&mut task) {
            self.tasks.borrow_mut().push(task);
        }
        true
    }

    /// Whether it goes on later.
    fn resume(&self, task: &mut Task) -> bool {
        run_on(task.cpu);
        // A task sets this itself at its start, and finds it set after each rest.
        YIELDER.set(task.yielder);
        FOR.set(task.process);
        let result = task.body.resume(());
        task.yielder = YIELDER.get();
        YIELDER.set(std::ptr::null());
        FOR.set(0);
        task.cpu = current_cpu();
        match result {
            CoroutineResult::Yield(rest) => task.rest = rest,
            CoroutineResult::Return(()) => return false,
        }
        true
    }

    fn tell_hang(&self, tasks: std::cell::RefMut<'_, Vec<Task>>) -> ! {
        let waiting: Vec<String> = tasks.iter().map(|t| format!("{}: {:?}", t.name, t.rest)).collect();
        drop(tasks);
        panic!("hang: nobody can go on and the disk owes nothing:\n  {}", waiting.join("\n  "));
    }
}
