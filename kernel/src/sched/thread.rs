//! A thread of the kernel: a stack, a place in it, and the space whose lower half it sees.

use super::{NoMemory, run, stack::Stack};
use crate::{arch::context::Context, mem};
use alloc::{boxed::Box, sync::Arc};
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use hafez_mm::Space;
use hafez_mm::lock::Mutex;

/// What a thread belongs to, in the eyes of the room above: it downcasts.
pub type Owner = Arc<dyn Any + Send + Sync>;

type Body = Box<dyn FnOnce() + Send>;

/// Where a thread stands. Changed under the run queue's lock only, but for `Running → Waiting`, which the thread itself
/// does before it looks at its condition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum State {
    /// On the CPU.
    Running,
    /// On the run queue.
    Ready,
    /// About to give up the CPU, or has; whoever wakes it makes it `Ready` (or `Running`, if it had not left yet).
    Waiting,
    /// Never runs again.
    Dead,
}

/// A thread of the kernel; a program's thread is one whose body runs the trap loop.
pub struct Thread {
    id: u64,
    name: Box<str>,
    owner: Option<Owner>,
    pub(super) context: Context,
    /// Gone once it is dead.
    pub(super) stack: Mutex<Option<Stack>>,
    space: Mutex<Option<Arc<Space>>>,
    /// Where the space is, or null: lets the switch see at a glance whether another must be loaded.
    pub(super) space_at: AtomicPtr<Space>,
    body: Mutex<Option<Body>>,
    state: AtomicU8,
    pub(super) interruptible: AtomicBool,
    interrupted: AtomicBool,
    pub(super) cpu_ns: AtomicU64,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Thread {
    /// The thread that runs already, on the boot stack: it becomes the idle thread.
    pub(super) fn boot() -> Self {
        Self::with(0, "idle", None, Context::running(), None, None, State::Running)
    }

    /// A thread that will run `body` when it is first scheduled.
    pub(super) fn new(name: &str, body: Body, owner: Option<Owner>) -> Result<Arc<Self>, NoMemory> {
        if !mem::headroom(size_of::<Self>() + name.len() + 256) {
            return Err(NoMemory);
        }
        let stack = Stack::take().ok_or(NoMemory)?;
        // SAFETY: the stack was just taken and is kept until the thread is dead.
        let context = unsafe { Context::new(stack.top(), begin, 0) };
        let id = NEXT_ID.fetch_add(1, Relaxed);
        Ok(Arc::new(Self::with(id, name, owner, context, Some(stack), Some(body), State::Waiting)))
    }

    fn with(
        id: u64,
        name: &str,
        owner: Option<Owner>,
        context: Context,
        stack: Option<Stack>,
        body: Option<Body>,
        state: State,
    ) -> Self {
        Thread {
            id,
            name: name.into(),
            owner,
            context,
            stack: Mutex::new(stack),
            space: Mutex::new(None),
            space_at: AtomicPtr::new(core::ptr::null_mut()),
            body: Mutex::new(body),
            state: AtomicU8::new(state as u8),
            interruptible: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            cpu_ns: AtomicU64::new(0),
        }
    }

    /// Unique, never reused.
    pub fn id(&self) -> u64 {
        self.id
    }
    pub fn name(&self) -> &str {
        &self.name
    }
    pub fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }
    /// The space whose lower half it runs in (loaded at once if the thread is current). A space must be left by all its
    /// threads this way before it is destroyed.
    pub fn set_space(&self, space: Option<Arc<Space>>) {
        self.space_at.store(super::run::address(space.as_ref()).cast_mut(), Relaxed);
        let old = core::mem::replace(&mut *self.space.lock(), space);
        if core::ptr::eq(self, &*super::current()) {
            run::load_own_space();
        }
        drop(old);
    }
    pub fn space(&self) -> Option<Arc<Space>> {
        self.space.lock().clone()
    }
    pub(super) fn with_space<R>(&self, f: impl FnOnce(Option<&Arc<Space>>) -> R) -> R {
        f(self.space.lock().as_ref())
    }
    /// End its interruptible wait, now or the next one, until it calls [`super::clear_interrupt`].
    pub fn interrupt(self: &Arc<Self>) {
        self.set_interrupted();
        if self.interruptible.load(SeqCst) {
            run::wake(self);
        }
    }
    pub(super) fn set_interrupted(&self) {
        self.interrupted.store(true, SeqCst);
    }
    /// Whether `interrupt` was called since the last `clear_interrupt`.
    #[inline(always)]
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(SeqCst)
    }
    pub(super) fn clear_interrupt(&self) {
        self.interrupted.store(false, SeqCst);
    }
    /// Nanoseconds it has run, up to now.
    pub fn cpu_time(&self) -> u64 {
        self.cpu_ns.load(Relaxed) + run::time_since_switch(self)
    }

    /// Whether it runs, or would if it had the CPU.
    pub fn is_runnable(&self) -> bool {
        matches!(self.state(), State::Running | State::Ready)
    }

    pub(super) fn state(&self) -> State {
        match self.state.load(SeqCst) {
            0 => State::Running,
            1 => State::Ready,
            2 => State::Waiting,
            _ => State::Dead,
        }
    }
    pub(super) fn set_state(&self, state: State) {
        self.state.store(state as u8, SeqCst);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // A thread that never ran still has its stack; one that did gave it back when it died.
        if let Some(stack) = self.stack.get_mut().take() {
            stack.give_back();
        }
    }
}

/// The first code of every thread.
extern "sysv64" fn begin(_: usize) -> ! {
    run::after_switch();
    let body = super::current().body.lock().take();
    if let Some(body) = body {
        body();
    }
    super::exit()
}
