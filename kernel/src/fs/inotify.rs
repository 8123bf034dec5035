//! Telling programs what happens to files: `inotify(7)`.
//!
//! ```text
//!   names.rs, file.rs ── fire(place, what) ──► watches on the file itself, and on the directory it is in (with its name)
//!                                                 └──► the queue of each watch's Instance ──► read
//! ```
//!
//! Watches stand in one table by file; as long as it is empty, [`fire`] costs one load. A watch holds its inode, so that its
//! identity is nobody else's meanwhile. On a 9p share only what is done through this kernel is seen: the host does not tell.
//!
//! Locks: the table's, then an instance's; no call into a file system under either.

use super::{
    dentry::Dentry,
    file::{FileOps, How},
    inode::{Inode, InodeId, Kind},
    iobuf::{Sink, Source},
    path::Location,
    poll::{Events, Signal, Watchers},
};
use crate::errno::{Errno, Result};
use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Weak},
    vec::Vec,
};
use core::any::Any;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use hafez_mm::lock::{LazyLock, Mutex};
use linux_raw_sys::general as abi;

pub const ACCESS: u32 = 0x1;
pub const MODIFY: u32 = 0x2;
pub const ATTRIB: u32 = 0x4;
pub const CLOSE_WRITE: u32 = 0x8;
pub const CLOSE_NOWRITE: u32 = 0x10;
pub const OPEN: u32 = 0x20;
pub const MOVED_FROM: u32 = 0x40;
pub const MOVED_TO: u32 = 0x80;
pub const CREATE: u32 = 0x100;
pub const DELETE: u32 = 0x200;
pub const DELETE_SELF: u32 = 0x400;
pub const MOVE_SELF: u32 = 0x800;
const ALL: u32 = 0xfff;
const OVERFLOW: u32 = 0x4000;
const IGNORED: u32 = 0x8000;
pub const ONLYDIR: u32 = 0x0100_0000;
pub const DONT_FOLLOW: u32 = 0x0200_0000;
const EXCL_UNLINK: u32 = 0x0400_0000;
const MASK_CREATE: u32 = 0x1000_0000;
const MASK_ADD: u32 = 0x2000_0000;
const ISDIR: u32 = 0x4000_0000;
const ONESHOT: u32 = 0x8000_0000;

/// `/proc/sys/fs/inotify/*`.
pub static MAX_QUEUED: AtomicU64 = AtomicU64::new(16384);
pub static MAX_INSTANCES: AtomicU64 = AtomicU64::new(128);
pub static MAX_WATCHES: AtomicU64 = AtomicU64::new(65536);

/// Bytes of an event before its name; names are padded to this too.
const RECORD: usize = 16;

static TABLE: LazyLock<Mutex<BTreeMap<InodeId, Vec<Arc<Watch>>>>> = LazyLock::new(Mutex::default);
/// Watches there are.
static COUNT: AtomicUsize = AtomicUsize::new(0);
static INSTANCES: AtomicUsize = AtomicUsize::new(0);

/// One instance's interest in one file.
struct Watch {
    number: i32,
    mask: AtomicU32,
    owner: Weak<Instance>,
    inode: Arc<dyn Inode>,
}

struct Event {
    watch: i32,
    mask: u32,
    cookie: u32,
    name: Box<[u8]>,
}

impl Event {
    fn len(&self) -> usize {
        RECORD + if self.name.is_empty() { 0 } else { (self.name.len() + 1).next_multiple_of(RECORD) }
    }
    fn encode(&self, out: &mut Vec<u8>) {
        let padded = self.len() - RECORD;
        out.extend_from_slice(&self.watch.to_ne_bytes());
        for word in [self.mask, self.cookie, padded as u32] {
            out.extend_from_slice(&word.to_ne_bytes());
        }
        out.extend_from_slice(&self.name);
        out.resize(out.len() + padded - self.name.len(), 0);
    }
}

/// What `inotify_init` makes.
pub struct Instance {
    state: Mutex<State>,
    changed: Arc<Signal>,
    me: Weak<Instance>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Event>,
    watches: BTreeMap<i32, Arc<Watch>>,
    last: i32,
}

impl Instance {
    /// `EMFILE` if there are too many.
    pub fn new() -> Result<Arc<Instance>> {
        if INSTANCES.fetch_add(1, Relaxed) as u64 >= MAX_INSTANCES.load(Relaxed) {
            INSTANCES.fetch_sub(1, Relaxed);
            return Err(Errno::EMFILE);
        }
        if !crate::mem::headroom(1024) {
            INSTANCES.fetch_sub(1, Relaxed);
            return Err(Errno::ENOMEM);
        }
        Ok(Arc::new_cyclic(|me| Instance { state: Mutex::default(), changed: Signal::new(), me: me.clone() }))
    }

    /// `inotify_add_watch(2)`: watch this file, or change what an earlier watch on it is for. The watch's number.
    pub fn add(&self, inode: &Arc<dyn Inode>, mask: u32) -> Result<i32> {
        let kept = mask & (ALL | EXCL_UNLINK | ONESHOT);
        let mut table = TABLE.lock();
        let of_file = table.entry(inode.id()).or_default();
        let mine = of_file.iter().find(|w| w.owner.ptr_eq(&self.me));
        if let Some(watch) = mine {
            if mask & MASK_CREATE != 0 {
                return Err(Errno::EEXIST);
            }
            let old = if mask & MASK_ADD != 0 { watch.mask.load(Relaxed) } else { 0 };
            watch.mask.store(old | kept, Relaxed);
            return Ok(watch.number);
        }
        if COUNT.load(Relaxed) as u64 >= MAX_WATCHES.load(Relaxed) || !crate::mem::headroom(1024) {
            if of_file.is_empty() {
                table.remove(&inode.id());
            }
            return Err(Errno::ENOSPC);
        }
        let mut state = self.state.lock();
        state.last += 1;
        let number = state.last;
        let mask = AtomicU32::new(kept);
        let watch = Arc::new(Watch { number, mask, owner: self.me.clone(), inode: inode.clone() });
        state.watches.insert(number, watch.clone());
        of_file.push(watch);
        COUNT.fetch_add(1, Relaxed);
        Ok(number)
    }

    /// `inotify_rm_watch(2)`.
    pub fn remove(&self, number: i32) -> Result<()> {
        let watch = self.state.lock().watches.remove(&number).ok_or(Errno::EINVAL)?;
        forget(&watch);
        self.push(Event { watch: number, mask: IGNORED, cookie: 0, name: Box::default() });
        Ok(())
    }

    fn push(&self, event: Event) {
        {
            let queue = &mut self.state.lock().queue;
            let again = queue
                .back()
                .is_some_and(|e| (e.watch, e.mask, &e.name) == (event.watch, event.mask, &event.name));
            match queue.len() {
                _ if again => return,
                // Room for two, so that there is always room to say that something was lost.
                n if (n as u64) < MAX_QUEUED.load(Relaxed)
                    && queue.try_reserve(2).is_ok()
                    && crate::mem::headroom(512) =>
                {
                    queue.push_back(event)
                }
                n if n > 0 && n < queue.capacity() && queue.back().is_some_and(|e| e.mask != OVERFLOW) => {
                    queue.push_back(Event { watch: -1, mask: OVERFLOW, cookie: 0, name: Box::default() })
                }
                _ => return,
            }
        }
        self.changed.notify();
    }

    fn has_events(&self) -> bool {
        !self.state.lock().queue.is_empty()
    }
}

/// Take a watch off its file.
fn forget(watch: &Arc<Watch>) {
    let mut table = TABLE.lock();
    let id = watch.inode.id();
    let Some(of_file) = table.get_mut(&id) else { return };
    let before = of_file.len();
    of_file.retain(|w| !Arc::ptr_eq(w, watch));
    COUNT.fetch_sub(before - of_file.len(), Relaxed);
    if of_file.is_empty() {
        table.remove(&id);
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        INSTANCES.fetch_sub(1, Relaxed);
        let watches = core::mem::take(&mut self.state.get_mut().watches);
        for watch in watches.values() {
            forget(watch);
        }
    }
}

impl FileOps for Instance {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _: u64, to: &mut Sink<'_>, how: How) -> Result<()> {
        if !self.has_events() {
            if how.nonblock {
                return Err(Errno::EAGAIN);
            }
            self.changed.wait(|| self.has_events())?;
        }
        let mut out = Vec::new();
        {
            let queue = &mut self.state.lock().queue;
            while let Some(event) = queue.front() {
                if out.len() + event.len() > to.remaining() || out.try_reserve(event.len()).is_err() {
                    break;
                }
                event.encode(&mut out);
                queue.pop_front();
            }
        }
        if out.is_empty() && self.has_events() {
            return Err(Errno::EINVAL);
        }
        to.put(&out);
        Ok(())
    }
    fn write(&self, _: u64, _: &mut Source<'_>, _: How) -> Result<()> {
        Err(Errno::EBADF)
    }
    fn holds(&self) -> usize {
        let state = self.state.lock();
        let names: usize = state.queue.iter().map(|e| size_of::<Event>() + e.name.len()).sum();
        1024 + names + state.watches.len() * 512
    }
    fn seek_nowhere(&self, _: i64, _: u32) -> Result<u64> {
        Ok(0)
    }
    fn poll(&self) -> Events {
        if self.has_events() { Events::READABLE } else { Events::empty() }
    }
    fn watch(&self, watchers: &mut Watchers) {
        watchers.add(&self.changed);
    }
    fn ioctl(&self, request: u32, argument: u64) -> Result<usize> {
        if request != linux_raw_sys::ioctl::FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let bytes: usize = self.state.lock().queue.iter().map(Event::len).sum();
        crate::arch::user::write_u32(argument, bytes as u32)?;
        Ok(0)
    }
}

/// Whether a mask says what to watch for.
pub fn is_mask(mask: u32) -> bool {
    mask & ALL != 0 && mask & (MASK_ADD | MASK_CREATE) != MASK_ADD | MASK_CREATE
}

/// Whether anybody watches anything.
#[inline(always)]
pub fn active() -> bool {
    COUNT.load(Relaxed) != 0
}

/// Something happened to an open or named file: told to who watches it, and to who watches its directory.
#[inline]
pub fn fire(place: &Location, what: u32) {
    if active() {
        fire_slow(&place.dentry, what);
    }
}

#[cold]
fn fire_slow(dentry: &Arc<Dentry>, what: u32) {
    let inode = dentry.inode();
    let what = what | if inode.kind() == Kind::Dir { ISDIR } else { 0 };
    if let Some(parent) = dentry.parent() {
        tell(parent.inode().id(), what, 0, &dentry.name(), dentry.is_removed());
    }
    tell(inode.id(), what, 0, &[], dentry.is_removed());
}

/// Something happened in a directory: `what` to the entry `name`.
#[inline]
pub fn fire_entry(dir: &Location, name: &[u8], what: u32, is_dir: bool) {
    if active() {
        tell(dir.inode().id(), what | if is_dir { ISDIR } else { 0 }, 0, name, false);
    }
}

/// `name` in `from` is `to_name` in `to` now.
pub fn fire_move(from: &Location, name: &[u8], to: &Location, to_name: &[u8], moved: &Location) {
    static COOKIE: AtomicU32 = AtomicU32::new(1);
    if !active() {
        return;
    }
    let cookie = COOKIE.fetch_add(1, Relaxed);
    let dir = if moved.is_dir() { ISDIR } else { 0 };
    tell(from.inode().id(), MOVED_FROM | dir, cookie, name, false);
    tell(to.inode().id(), MOVED_TO | dir, cookie, to_name, false);
    tell(moved.inode().id(), MOVE_SELF, 0, &[], false);
}

/// Only the file itself is concerned: its number of links has changed.
pub fn fire_self(inode: &Arc<dyn Inode>, what: u32) {
    if active() {
        tell(inode.id(), what, 0, &[], false);
    }
}

/// The last user of a removed name is gone: if the file had no other, so is the file.
#[cold]
pub fn gone(inode: &Arc<dyn Inode>) {
    if !TABLE.lock().contains_key(&inode.id()) || !inode.stat().is_ok_and(|s| s.nlink == 0) {
        return;
    }
    tell(inode.id(), DELETE_SELF, 0, &[], false);
    let watches = TABLE.lock().get(&inode.id()).cloned().unwrap_or_default();
    for watch in watches {
        if let Some(owner) = watch.owner.upgrade() {
            let _ = owner.remove(watch.number);
        }
    }
}

fn tell(id: InodeId, what: u32, cookie: u32, name: &[u8], unlinked: bool) {
    let watches = TABLE.lock().get(&id).cloned().unwrap_or_default();
    for watch in watches {
        let mask = watch.mask.load(Relaxed);
        if mask & what & ALL == 0 || unlinked && !name.is_empty() && mask & EXCL_UNLINK != 0 {
            continue;
        }
        let Some(owner) = watch.owner.upgrade() else { continue };
        owner.push(Event { watch: watch.number, mask: what, cookie, name: name.into() });
        if mask & ONESHOT != 0 {
            let _ = owner.remove(watch.number);
        }
    }
}

/// As whom a File is closed.
pub fn closed(place: &Location, written: bool) {
    fire(place, if written { CLOSE_WRITE } else { CLOSE_NOWRITE });
}

const _: () = assert!(abi::IN_ACCESS | abi::IN_MOVE_SELF == ACCESS | MOVE_SELF);
