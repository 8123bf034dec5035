//! Mounts: which file system covers which directory.
//!
//! A [`FileSystem`] is a tree of files; a [`Mount`] shows it, or a part of it, at a place. One file system can be seen in several places
//! (`mount --bind`): the dentries are the same, the mounts are not, and a [`Location`] is always both. So what covers a directory is
//! asked of the directory *as seen through a mount*.
//!
//! ```text
//!   Location(mount, dentry) ── covered? ──► Mount { root dentry, flags, file system } ── its own Locations …
//!            ▲                                  │
//!            └────────────── on ────────────────┘
//! ```
//!
//! What may be done is said twice: by the mount (`nosuid`, `nodev`, `noexec`, `ro`, …), for this way in, and by the file system (`ro`),
//! for all. The host's own files are read-only for good: no remount changes that.
//!
//! Whoever uses a mount (an open file, a working directory, a mount upon it) holds it; one that nobody holds but the tree
//! can go. There is one tree for all: nothing is ever propagated, every mount is private.
//!
//! Locks: `TREE` over every change; the list and what covers a dentry are spin locks, each taken alone.

use super::{
    SleepLock,
    dentry::{self, Dentry},
    inode::Inode,
    path::Location,
};
use crate::errno::{Errno, Result};
use crate::mem::{self, TryPush};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use hafez_mm::lock::RwLock;

bitflags::bitflags! {
    /// What holds for files that are reached through a mount: numbers of `mount(2)`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Flags: u32 {
        const READ_ONLY = 1;
        const NOSUID = 2;
        const NODEV = 4;
        const NOEXEC = 8;
        const NOSYMFOLLOW = 256;
        const NOATIME = 1024;
        const NODIRATIME = 2048;
        const UNBINDABLE = 1 << 17;
        const RELATIME = 1 << 21;
    }
}

/// A tree of files, wherever it is mounted.
pub struct FileSystem {
    /// `9p`, `tmpfs`, …, as `/proc/mounts` names it.
    pub kind: &'static str,
    pub source: Box<[u8]>,
    root: Arc<Dentry>,
    read_only: AtomicBool,
    /// It is read-only for good.
    fixed: bool,
    /// Files that are open for writing.
    writers: AtomicU32,
}

impl FileSystem {
    pub fn new(root: Arc<dyn Inode>, kind: &'static str, source: &[u8], fixed: bool) -> Arc<FileSystem> {
        Arc::new(FileSystem {
            kind,
            source: source.into(),
            root: Dentry::root(root, b"/"),
            read_only: AtomicBool::new(fixed),
            fixed,
            writers: AtomicU32::new(0),
        })
    }
    pub fn root(&self) -> &Arc<Dentry> {
        &self.root
    }
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Relaxed)
    }
    /// For all who use it. EROFS if it cannot be written, EBUSY if it is being written.
    pub fn set_read_only(&self, to: bool) -> Result<()> {
        if !to && self.fixed {
            return Err(Errno::EROFS);
        }
        if to && !self.is_read_only() && self.writers.load(Relaxed) > 0 {
            return Err(Errno::EBUSY);
        }
        self.read_only.store(to, Relaxed);
        Ok(())
    }
}

/// A file system, or a directory of it, at a place in the tree.
pub struct Mount {
    system: Arc<FileSystem>,
    root: Arc<Dentry>,
    /// The directory that it covers; `None` for the root of all, and for what is in no tree.
    on: RwLock<Option<Location>>,
    flags: AtomicU32,
    writers: AtomicU32,
    /// `umount2` with MNT_EXPIRE has found it idle, and nobody has come by since.
    idle: AtomicBool,
    id: u32,
}

/// The kinds that there are, none of them on a disk.
pub const KINDS: [&str; 7] = ["proc", "sysfs", "tmpfs", "devtmpfs", "devpts", "pipefs", "9p"];

/// Mounts that there may be. Their list is copied whole wherever it is gone through, and must stay a small block.
const MOST: usize = 1000;

static NEXT_ID: AtomicU32 = AtomicU32::new(1);
static ALL: RwLock<Vec<Arc<Mount>>> = RwLock::new(Vec::new());
/// One change of the tree at a time.
static TREE: SleepLock = SleepLock::new();

impl Mount {
    fn make(system: Arc<FileSystem>, root: Arc<Dentry>, flags: Flags, id: u32) -> Arc<Mount> {
        Arc::new(Mount {
            system,
            root,
            on: RwLock::new(None),
            flags: AtomicU32::new(flags.bits()),
            writers: AtomicU32::new(0),
            idle: AtomicBool::new(false),
            id,
        })
    }

    /// A mount of a new file system nowhere, or (`on`) over a directory: whoever walks there from now on is in it.
    pub fn new(
        root: Arc<dyn Inode>,
        on: Option<Location>,
        kind: &'static str,
        source: &[u8],
        read_only: bool,
    ) -> Arc<Mount> {
        let system = FileSystem::new(root, kind, source, read_only);
        let root = system.root.clone();
        let mount = Mount::make(system, root, Flags::RELATIME, NEXT_ID.fetch_add(1, Relaxed));
        if let Some(on) = on {
            mount.cover(on);
        }
        ALL.write().push(mount.clone());
        mount
    }

    /// For what is in no tree: pipes, memfds. Not listed.
    pub fn detached(root: Arc<dyn Inode>, kind: &'static str) -> Arc<Mount> {
        let system = FileSystem::new(root, kind, kind.as_bytes(), false);
        let root = Dentry::root(system.root.inode().clone(), b"");
        Mount::make(system, root, Flags::empty(), 0)
    }

    fn cover(self: &Arc<Self>, on: Location) {
        *self.on.write() = Some(on.clone());
        on.dentry.cover(on.mount.id, self);
    }
    /// The directory is as it was; where that is.
    fn uncover(self: &Arc<Self>) -> Option<Location> {
        let on = self.on.write().take()?;
        let held = on.dentry.uncover(self);
        drop(held);
        Some(on)
    }

    pub fn root(self: &Arc<Self>) -> Location {
        Location { mount: self.clone(), dentry: self.root.clone() }
    }
    /// The dentry where it begins.
    pub fn top(&self) -> &Arc<Dentry> {
        &self.root
    }
    pub fn on(&self) -> Option<Location> {
        self.on.read().clone()
    }
    pub fn system(&self) -> &Arc<FileSystem> {
        &self.system
    }
    pub fn id(&self) -> u32 {
        self.id
    }
    /// Somebody has come by: it is not idle.
    pub fn used(&self) {
        if self.idle.load(Relaxed) {
            self.idle.store(false, Relaxed);
        }
    }
    pub fn flags(&self) -> Flags {
        Flags::from_bits_truncate(self.flags.load(Relaxed))
    }
    pub fn is_read_only(&self) -> bool {
        self.flags().contains(Flags::READ_ONLY) || self.system.is_read_only()
    }
    /// `EROFS` if nothing may be changed in it.
    pub fn check_writable(&self) -> Result<()> {
        if self.is_read_only() { Err(Errno::EROFS) } else { Ok(()) }
    }
    /// One more file is open for writing, or one less.
    pub(super) fn writes(&self, one: bool) {
        for count in [&self.writers, &self.system.writers] {
            if one {
                count.fetch_add(1, Relaxed)
            } else {
                count.fetch_sub(1, Relaxed)
            };
        }
    }

    /// Let other flags hold. EBUSY if it is to be read-only and is being written.
    pub fn set_flags(&self, flags: Flags) -> Result<()> {
        let gains = flags.contains(Flags::READ_ONLY) && !self.flags().contains(Flags::READ_ONLY);
        if gains && self.writers.load(Relaxed) > 0 {
            return Err(Errno::EBUSY);
        }
        self.flags.store(flags.bits(), Relaxed);
        Ok(())
    }

    /// The mounts upon it.
    fn children(&self) -> Vec<Arc<Mount>> {
        let upon = |m: &&Arc<Mount>| m.on().is_some_and(|on| core::ptr::eq(&*on.mount, self));
        all().iter().filter(upon).cloned().collect()
    }
}

/// All mounts, oldest first.
pub fn all() -> Vec<Arc<Mount>> {
    ALL.read().clone()
}

/// Show `system` (from `root` on) at `on`.
pub fn attach(system: Arc<FileSystem>, root: Arc<Dentry>, on: Location, flags: Flags) -> Result<Arc<Mount>> {
    let _one = TREE.lock();
    // The same upon itself says nothing new.
    if Arc::ptr_eq(&on.mount.system, &system) && on.is_mount_root() {
        return Err(Errno::EBUSY);
    }
    attach_locked(system, root, on, flags)
}

fn attach_locked(
    system: Arc<FileSystem>,
    root: Arc<Dentry>,
    on: Location,
    flags: Flags,
) -> Result<Arc<Mount>> {
    use super::inode::Kind;
    if on.dentry.is_removed() || on.mount.id == 0 {
        return Err(Errno::ENOENT);
    }
    if on.is_dir() != (root.inode().kind() == Kind::Dir) {
        return Err(Errno::ENOTDIR);
    }
    if ALL.read().len() >= MOST {
        return Err(Errno::ENOSPC);
    }
    if !mem::headroom(16 << 10) {
        return Err(Errno::ENOMEM);
    }
    let mount = Mount::make(system, root, flags, NEXT_ID.fetch_add(1, Relaxed));
    ALL.write().try_push(mount.clone())?;
    mount.cover(on);
    Ok(mount)
}

/// `mount --bind`: show at `on` what is at `from`; with what is mounted below it, if `deep`.
pub fn bind(from: &Location, on: Location, deep: bool) -> Result<()> {
    let _one = TREE.lock();
    if from.mount.id == 0 || from.mount.flags().contains(Flags::UNBINDABLE) {
        return Err(Errno::EINVAL);
    }
    let below = if deep { from.mount.children() } else { Vec::new() };
    let top = attach_locked(from.mount.system.clone(), from.dentry.clone(), on, from.mount.flags())?;
    let mut left: Vec<(Arc<Mount>, Arc<Mount>)> = Vec::new();
    for child in below {
        if child.on().is_some_and(|on| from.dentry.is_above(&on.dentry)) {
            left.try_push((child, top.clone()))?;
        }
    }
    while let Some((mount, parent)) = left.pop() {
        let Some(at) = mount.on().filter(|_| !mount.flags().contains(Flags::UNBINDABLE)) else { continue };
        let on = Location { mount: parent, dentry: at.dentry };
        let copy = attach_locked(mount.system.clone(), mount.root.clone(), on, mount.flags())?;
        for child in mount.children() {
            left.try_push((child, copy.clone()))?;
        }
    }
    Ok(())
}

/// `mount --move`: what is mounted at `from` goes to `on`.
pub fn move_to(from: Location, on: Location) -> Result<()> {
    let _one = TREE.lock();
    let mount = from.mount;
    if !Arc::ptr_eq(&from.dentry, &mount.root) || mount.on().is_none() || on.mount.id == 0 {
        return Err(Errno::EINVAL);
    }
    if on.is_dir() != mount.root().is_dir() {
        return Err(Errno::EINVAL);
    }
    let mut at = on.mount.clone();
    loop {
        if Arc::ptr_eq(&at, &mount) {
            return Err(Errno::ELOOP);
        }
        match at.on() {
            Some(place) => at = place.mount,
            None => break,
        }
    }
    let old = mount.uncover();
    mount.cover(on);
    drop(old);
    Ok(())
}

/// How `umount2(2)` is to go about it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Only if nobody uses it.
    Idle,
    /// Only if nobody uses it, and nobody has since this was asked before.
    Expired,
    /// From the tree at once, with what is mounted below; gone when the last user is.
    Detached,
}

/// Take away the mount that `place` is the root of.
pub fn detach(place: Location, how: Leave) -> Result<()> {
    let _one = TREE.lock();
    let mount = place.mount;
    if !Arc::ptr_eq(&place.dentry, &mount.root) || mount.id == 0 {
        return Err(Errno::EINVAL);
    }
    drop(place.dentry);
    if mount.on().is_none() {
        // The root of all stays, and what has left the tree already cannot leave it again.
        return Err(if all().iter().any(|m| Arc::ptr_eq(m, &mount)) && how == Leave::Idle {
            Errno::EBUSY
        } else {
            Errno::EINVAL
        });
    }
    if how == Leave::Detached {
        let mut left = alloc::vec![mount];
        while let Some(mount) = left.pop() {
            for child in mount.children() {
                left.try_push(child)?;
            }
            forget(&mount);
        }
        return Ok(());
    }
    // The list's, the directory's, and ours.
    if Arc::strong_count(&mount) > 3 {
        mount.idle.store(false, Relaxed);
        return Err(Errno::EBUSY);
    }
    if how == Leave::Expired && !mount.idle.swap(true, Relaxed) {
        return Err(Errno::EAGAIN);
    }
    forget(&mount);
    Ok(())
}

fn forget(mount: &Arc<Mount>) {
    let on = mount.uncover();
    let gone = {
        let mut all = ALL.write();
        let at = all.iter().position(|m| Arc::ptr_eq(m, mount));
        at.map(|at| all.remove(at))
    };
    drop((on, gone));
    let last = !all().iter().any(|m| Arc::ptr_eq(&m.system, &mount.system));
    if last {
        dentry::forget_below(&mount.system.root);
    }
}
