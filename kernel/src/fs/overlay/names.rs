//! The names of a directory: those below, and what has changed about them.
//!
//! A name that is taken away stands in the list of changes as such, if there is one below that it must hide; one that is
//! new, or means another file now, stands there with its node. A directory that was made here has nothing below.
//!
//! Reading a directory gives first what is below, from a list that is taken when the reading begins, then what is new. A
//! cursor is a place in that list, or (from [`NEW`] on) the number of a change: neither moves when other names go.

use super::Node;
use crate::errno::{Errno, Result};
use crate::fs::inode::*;
use crate::mem::TryPush;
use alloc::{boxed::Box, collections::BTreeMap, sync::Arc, vec::Vec};
use core::sync::atomic::Ordering::Relaxed;

/// Cursors of names that are not from below.
const NEW: u64 = 1 << 40;
/// What a change takes of the kernel's heap, roughly.
const COST: usize = 512;

/// See the module.
pub struct Names {
    changes: BTreeMap<Arc<[u8]>, Change>,
    new: BTreeMap<u64, Arc<[u8]>>,
    last: u64,
    /// What is below shows through.
    shows: bool,
    /// Its own name is gone: nothing can be made in it.
    removed: bool,
    below: Arc<Vec<Listed>>,
}

/// The number of a change, and where the name leads now; `None`: nowhere.
type Change = (u64, Option<Arc<Node>>);

/// An entry below.
struct Listed {
    name: Box<[u8]>,
    ino: u64,
    kind: Option<Kind>,
}

impl Names {
    pub fn new(shows: bool) -> Names {
        Names {
            changes: BTreeMap::new(),
            new: BTreeMap::new(),
            last: NEW,
            shows,
            removed: false,
            below: Arc::default(),
        }
    }

    fn set(&mut self, name: &[u8], to: Option<Arc<Node>>) -> Option<Arc<Node>> {
        let old = self.unset(name);
        self.last += 1;
        let key: Arc<[u8]> = name.into();
        if to.is_some() {
            self.new.insert(self.last, key.clone());
        }
        self.changes.insert(key, (self.last, to));
        old
    }

    fn unset(&mut self, name: &[u8]) -> Option<Arc<Node>> {
        let (number, node) = self.changes.remove(name)?;
        self.new.remove(&number);
        node
    }
}

impl Node {
    fn dir(&self) -> Result<()> {
        if self.kind == Kind::Dir { Ok(()) } else { Err(Errno::ENOTDIR) }
    }

    /// What is below under this name, if that shows.
    fn find_below(&self, name: &[u8]) -> Result<Option<Arc<dyn Inode>>> {
        let shows = self.names.lock().shows;
        match self.below.as_ref().filter(|_| shows).map(|below| below.lookup(name)) {
            None | Some(Err(Errno::ENOENT)) => Ok(None),
            Some(found) => found.map(Some),
        }
    }

    /// Where a name leads.
    pub(super) fn find(&self, name: &[u8]) -> Result<Arc<Node>> {
        self.dir()?;
        if let Some((_, to)) = self.names.lock().changes.get(name) {
            return to.clone().ok_or(Errno::ENOENT);
        }
        self.fs.node_of(self.find_below(name)?.ok_or(Errno::ENOENT)?)
    }

    /// A new name. With `tree` held, as for all that follow.
    pub(super) fn add(&self, name: &[u8], node: &Arc<Node>) -> Result<()> {
        match self.find(name) {
            Ok(_) => return Err(Errno::EEXIST),
            Err(Errno::ENOENT) => {}
            Err(e) => return Err(e),
        }
        if self.names.lock().removed {
            return Err(Errno::ENOENT);
        }
        self.touch()?;
        self.put(name, node)
    }

    fn put(&self, name: &[u8], node: &Arc<Node>) -> Result<()> {
        if !crate::mem::headroom(COST) {
            return Err(Errno::ENOSPC);
        }
        let old = self.names.lock().set(name, Some(node.clone()));
        drop(old);
        self.links.fetch_add((node.kind == Kind::Dir) as i32, Relaxed);
        self.keep();
        // A node from below that has moved is no longer found by its old name alone.
        node.keep();
        Ok(())
    }

    /// Take a name away that leads to `node`.
    pub(super) fn take(&self, name: &[u8], node: &Node) -> Result<()> {
        if !crate::mem::headroom(COST) {
            return Err(Errno::ENOSPC);
        }
        self.touch()?;
        let hides = self.find_below(name)?.is_some();
        let old = {
            let mut names = self.names.lock();
            if hides { names.set(name, None) } else { names.unset(name) }
        };
        drop(old);
        self.links.fetch_sub((node.kind == Kind::Dir) as i32, Relaxed);
        self.keep();
        Ok(())
    }

    /// One of its names is gone.
    pub(super) fn lost_name(&self) -> Result<()> {
        if self.kind == Kind::Dir {
            return Ok(());
        }
        self.links.fetch_sub(1, Relaxed);
        if self.nlink()? == 0 {
            self.forget();
            return Ok(());
        }
        self.keep();
        self.touch_names();
        Ok(())
    }

    /// See that a directory is empty, and that it stays so.
    pub(super) fn seal_empty(&self) -> Result<()> {
        self.dir()?;
        let mut empty = true;
        self.list(0, &mut |entry| {
            empty &= matches!(entry.name, b"." | b"..");
            empty
        })?;
        if !empty {
            return Err(Errno::ENOTEMPTY);
        }
        let mut names = self.names.lock();
        (names.removed, names.shows) = (true, false);
        drop(names);
        self.links.store(-(self.nlink()? as i32) + self.links.load(Relaxed), Relaxed);
        self.forget();
        Ok(())
    }

    pub(super) fn move_name(&self, name: &[u8], to: &Node, to_name: &[u8], how: RenameFlags) -> Result<()> {
        let node = self.find(name)?;
        let target = match to.find(to_name) {
            Ok(target) => Some(target),
            Err(Errno::ENOENT) => None,
            Err(e) => return Err(e),
        };
        let exchange = how.contains(RenameFlags::EXCHANGE);
        if to.names.lock().removed || exchange && target.is_none() {
            return Err(Errno::ENOENT);
        }
        if target.is_some() && how.contains(RenameFlags::NOREPLACE) {
            return Err(Errno::EEXIST);
        }
        let whiteout = match how.contains(RenameFlags::WHITEOUT) {
            true => {
                let device = NewKind::Device { block: false, rdev: 0 };
                Some(self.fs.make(&NewNode { node: device, mode: 0, uid: 0, gid: 0 })?)
            }
            false => None,
        };
        if let Some(target) = &target {
            if target.kind == Kind::Dir && !exchange {
                target.seal_empty()?;
            }
            to.take(to_name, target)?;
            if !exchange {
                target.lost_name()?;
            }
        }
        self.take(name, &node)?;
        to.put(to_name, &node)?;
        to.touch()?;
        if let Some(left) = target.filter(|_| exchange).or(whiteout) {
            self.put(name, &left)?;
        }
        node.touch_names();
        Ok(())
    }

    /// `readdir`.
    pub(super) fn list(&self, from: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        self.dir()?;
        if from == 0 {
            self.look_below()?;
        }
        for (at, name) in [(0, &b"."[..]), (1, b"..")] {
            // What is above is known to who walks there; the number is seldom looked at.
            if from <= at && !emit(&DirEntry { name, ino: self.ino, kind: Some(Kind::Dir), next: at + 1 }) {
                return Ok(());
            }
        }
        let (below, shows) = {
            let names = self.names.lock();
            (names.below.clone(), names.shows)
        };
        let first = from.max(2) - 2;
        for (at, entry) in (first..).zip(below.iter().skip(first as usize)).filter(|_| shows) {
            if self.names.lock().changes.contains_key(&*entry.name) {
                continue;
            }
            let entry = DirEntry { name: &entry.name, ino: entry.ino, kind: entry.kind, next: at + 3 };
            if !emit(&entry) {
                return Ok(());
            }
        }
        let names = self.names.lock();
        for (number, name) in names.new.range(from.max(NEW)..) {
            let Some((_, Some(node))) = names.changes.get(name) else { continue };
            let entry = DirEntry { name, ino: node.ino, kind: Some(node.kind), next: number + 1 };
            if !emit(&entry) {
                break;
            }
        }
        Ok(())
    }

    /// Take a list of what is below.
    fn look_below(&self) -> Result<()> {
        let shows = self.names.lock().shows;
        let Some(below) = self.below.as_ref().filter(|_| shows) else { return Ok(()) };
        let mut list = Vec::new();
        let mut full = false;
        below.readdir(0, &mut |entry| {
            if !matches!(entry.name, b"." | b"..") {
                full = !crate::mem::headroom(entry.name.len() + 128)
                    || list
                        .try_push(Listed { name: entry.name.into(), ino: entry.ino, kind: entry.kind })
                        .is_err();
            }
            !full
        })?;
        if full {
            return Err(Errno::ENOMEM);
        }
        let old = core::mem::replace(&mut self.names.lock().below, Arc::new(list));
        drop(old);
        Ok(())
    }
}
