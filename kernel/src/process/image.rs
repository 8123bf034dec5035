//! The image: an address space and the program that was loaded into it.
//!
//! Tasks that share memory (`CLONE_VM`: threads, and the child of a `vfork` until it executes) share one image. The
//! image owns the space and the account that its frames are charged to; when the last task lets go of it, both end.
//! Others (`/proc`) hold it only for as long as they look.

use crate::arch::segments::Table;
use crate::fs::inode::Running;
use crate::fs::path::Location;
use crate::mem::memory;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};
use hafez_mm::lock::{Mutex, Once};
use hafez_mm::{AccountId, MmError, Space};

/// What `exec` knows about the program that it loaded; `/proc` shows it.
#[derive(Default)]
pub struct Layout {
    /// The program's file.
    pub place: Option<Location>,
    /// Nobody can write that while it runs.
    pub _running: Option<Running>,
    /// Where the argument strings begin and end.
    pub args: (u64, u64),
    /// Where the environment strings begin and end.
    pub env: (u64, u64),
    /// The auxiliary vector as the program got it.
    pub auxv: Box<[u64]>,
    /// Code: first byte, first byte after.
    pub code: (u64, u64),
    /// Initialised data: first byte, first byte after.
    pub data: (u64, u64),
    /// The first byte of the heap.
    pub heap: u64,
    /// The first stack pointer.
    pub stack: u64,
}

/// An address space with a program in it.
pub struct Image {
    space: Arc<Space>,
    account: AccountId,
    layout: Once<Arc<Layout>>,
    /// See [`flags`].
    pub flags: AtomicU32,
    /// The program's own segments (`modify_ldt`). Its threads have it from here, each time that it changes.
    segments: Mutex<Option<Arc<Table>>>,
}

/// Bits of [`Image::flags`]. A fork's child has the [`INHERITED`](flags::INHERITED) ones.
pub mod flags {
    /// New mappings are wired (`mlockall`).
    pub const LOCK_FUTURE: u32 = 1;
    /// Registered for `membarrier`.
    pub const MEMBARRIER: u32 = 2;
    /// With `LOCK_FUTURE`: each page as it comes, none before.
    pub const LOCK_ON_FAULT: u32 = 4;
    /// As `MEMBARRIER`, for the barrier over code that was changed, and for the one over all that registered.
    pub const MEMBARRIER_CORE: u32 = 8;
    pub const MEMBARRIER_GLOBAL: u32 = 16;
    /// Registered for `MEMBARRIER` or `MEMBARRIER_CORE`: asked what it registered for, Linux says the first for either.
    pub const MEMBARRIER_TOLD: u32 = 32;
    /// It has segments of its own.
    pub const SEGMENTS: u32 = 64;
    /// Those that a fork's child has too.
    pub const INHERITED: u32 = MEMBARRIER | MEMBARRIER_CORE | MEMBARRIER_GLOBAL | MEMBARRIER_TOLD | SEGMENTS;
}

impl Image {
    /// An empty space with an account of its own.
    pub fn new() -> Result<Image, MmError> {
        let account = memory().open_account()?;
        match memory().new_space(account) {
            Ok(space) => Ok(Image {
                space,
                account,
                layout: Once::new(),
                flags: AtomicU32::new(0),
                segments: Mutex::new(None),
            }),
            Err(e) => {
                memory().close_account(account);
                Err(e)
            }
        }
    }

    /// A copy of this space, page for page, copied when written.
    pub fn fork(&self) -> Result<Image, MmError> {
        let account = memory().open_account()?;
        match memory().fork_space(&self.space, account) {
            Ok(space) => {
                let flags = AtomicU32::new(self.flags.load(Ordering::Relaxed) & flags::INHERITED);
                let segments = Mutex::new(self.segments());
                let copy = Image { space, account, layout: Once::new(), flags, segments };
                copy.set_layout(self.layout());
                Ok(copy)
            }
            Err(e) => {
                memory().close_account(account);
                Err(e)
            }
        }
    }

    /// The address space.
    #[inline(always)]
    pub fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// Whom its frames are charged to.
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// The program's own segments, if it has any.
    pub fn segments(&self) -> Option<Arc<Table>> {
        self.segments.lock().clone()
    }

    /// Make others of them: what `next` makes of those that there are. Threads have to be told.
    pub fn change_segments<E>(
        &self,
        next: impl FnOnce(Option<&Table>) -> core::result::Result<Table, E>,
    ) -> core::result::Result<(), E> {
        let mut segments = self.segments.lock();
        let new = next(segments.as_deref())?;
        let old = segments.replace(Arc::new(new));
        self.flags.fetch_or(flags::SEGMENTS, Ordering::SeqCst);
        drop(segments);
        drop(old);
        Ok(())
    }

    /// What was loaded; empty until `exec` is through.
    pub fn layout(&self) -> Arc<Layout> {
        self.layout.get().cloned().unwrap_or_default()
    }

    pub(super) fn set_layout(&self, layout: Arc<Layout>) {
        self.layout.call_once(|| layout);
    }
}

impl Drop for Image {
    /// Unmaps everything: may take long and may sleep, so never drop an image under a lock.
    fn drop(&mut self) {
        memory().destroy_space(&self.space);
        memory().close_account(self.account);
    }
}
