//! Mounts: which file system covers which directory.

use super::{dentry::Dentry, inode::Inode, path::Location};
use crate::errno::{Errno, Result};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use hafez_mm::lock::RwLock;

/// A file system at its place in the tree.
pub struct Mount {
    root: Arc<Dentry>,
    /// The directory that it covers; `None` for the root of all.
    on: Option<Location>,
    read_only: AtomicBool,
    id: u32,
    /// `9p`, `tmpfs`, …, as `/proc/mounts` names it.
    pub kind: &'static str,
    pub source: Box<[u8]>,
}

static NEXT_ID: AtomicU32 = AtomicU32::new(1);
static ALL: RwLock<Vec<Arc<Mount>>> = RwLock::new(Vec::new());

impl Mount {
    /// A mount of nothing anywhere, or (`on`) over a directory: whoever walks there from now on is in it.
    pub fn new(
        root: Arc<dyn Inode>,
        on: Option<Location>,
        kind: &'static str,
        source: &[u8],
        read_only: bool,
    ) -> Arc<Mount> {
        let mount = Arc::new(Mount {
            root: Dentry::root(root, b"/"),
            on: on.clone(),
            read_only: AtomicBool::new(read_only),
            id: NEXT_ID.fetch_add(1, Relaxed),
            kind,
            source: source.into(),
        });
        if let Some(on) = on {
            on.dentry.cover(Some(mount.clone()));
        }
        ALL.write().push(mount.clone());
        mount
    }

    /// For what is in no tree: pipes, memfds. Not listed.
    pub fn detached(root: Arc<dyn Inode>, kind: &'static str) -> Arc<Mount> {
        Arc::new(Mount {
            root: Dentry::root(root, b""),
            on: None,
            read_only: AtomicBool::new(false),
            id: 0,
            kind,
            source: kind.as_bytes().into(),
        })
    }

    pub fn root(self: &Arc<Self>) -> Location {
        Location { mount: self.clone(), dentry: self.root.clone() }
    }
    pub fn on(&self) -> Option<&Location> {
        self.on.as_ref()
    }
    pub fn id(&self) -> u32 {
        self.id
    }
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Relaxed)
    }
    /// `EROFS` if nothing may be changed in it.
    pub fn check_writable(&self) -> Result<()> {
        if self.is_read_only() { Err(Errno::EROFS) } else { Ok(()) }
    }
}

/// All mounts, oldest first.
pub fn all() -> Vec<Arc<Mount>> {
    ALL.read().clone()
}
