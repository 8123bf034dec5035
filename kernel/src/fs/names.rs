//! Opening, and changing the tree: what `open`, `mkdir`, `rename` and their like mean, above any file system.
//!
//! The order of checks is Linux's, because programs see it in the error: what exists is found out before whether
//! the mount may be written (`mkdir` of an existing directory on a read-only disk is `EEXIST`), that before permissions.

use super::{
    cred::want,
    dentry,
    file::{File, OpenDir, PathOnly, open_mode},
    inode::{Inode, Kind, NewKind, NewNode, RenameFlags, SetAttr, Stat, Writing},
    inotify, lease,
    lock::SleepLock,
    path::{Last, Location, NAME_MAX, Walker},
    protected,
};
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::fs::mount::Flags;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as abi;

/// Held over every rename: nobody moves a directory while another checks that it does not go into itself.
static RENAME: SleepLock = SleepLock::new();

impl Walker {
    /// `openat(2)`. What a server has put in another's place meanwhile is looked up once more.
    pub fn open(&self, base: &Location, path: &[u8], flags: u32, mode: u32) -> Result<Arc<File>> {
        retry_stale(|| self.open_once(base, path, flags, mode))
    }

    fn open_once(&self, base: &Location, path: &[u8], flags: u32, mode: u32) -> Result<Arc<File>> {
        if flags & abi::O_PATH != 0 {
            let kept = abi::O_PATH | abi::O_DIRECTORY | abi::O_NOFOLLOW | abi::O_CLOEXEC;
            return self.open_path_only(base, path, flags & kept);
        }
        if flags & abi::__O_TMPFILE != 0 {
            return self.open_temporary(base, path, flags, mode);
        }
        if flags & abi::O_CREAT != 0 && flags & abi::O_DIRECTORY != 0 {
            return Err(Errno::EINVAL);
        }
        let exclusive = flags & abi::O_CREAT != 0 && flags & abi::O_EXCL != 0;
        if flags & abi::O_CREAT != 0 && path.ends_with(b"/") {
            let last = self.resolve_last(base, path)?;
            last.plain(Errno::EEXIST).or_else(|e| if exclusive { Err(e) } else { Ok(&[]) })?;
            return Err(Errno::EISDIR);
        }
        let follow = flags & abi::O_NOFOLLOW == 0 && !exclusive;
        let file = match self.resolve_open(base, path, follow)? {
            Ok(_) if exclusive => Err(Errno::EEXIST),
            Ok(place) => {
                protected::may_open(&self.cred, &place, flags)?;
                self.open_existing(place, flags)
            }
            Err(_) if flags & abi::O_CREAT == 0 => Err(Errno::ENOENT),
            Err(last) => self.open_new(last, flags, mode),
        }?;
        if flags & abi::O_DIRECT != 0 && !file.can_direct() { Err(Errno::EINVAL) } else { Ok(file) }
    }

    fn open_path_only(&self, base: &Location, path: &[u8], flags: u32) -> Result<Arc<File>> {
        let place = self.resolve(base, path, flags & abi::O_NOFOLLOW == 0)?;
        if flags & abi::O_DIRECTORY != 0 && !place.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        File::new(Arc::new(PathOnly), place, flags)
    }

    /// O_TMPFILE: a file without a name.
    fn open_temporary(&self, base: &Location, path: &[u8], flags: u32, mode: u32) -> Result<Arc<File>> {
        if flags & (abi::O_DIRECTORY | abi::O_CREAT) != abi::O_DIRECTORY || !open_mode(flags).write {
            return Err(Errno::EINVAL);
        }
        let dir = self.resolve(base, path, true)?;
        if !dir.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        dir.mount.check_writable()?;
        dir.inode().permission(&self.cred, want::WRITE | want::EXEC)?;
        let new = self.new_node(&dir, NewKind::File, mode)?;
        let inode = dir.inode().create_unnamed(&new, flags & abi::O_EXCL == 0)?;
        let ops = inode.clone().open(open_mode(flags))?;
        let dentry = dir.dentry.unnamed(inode);
        let file = File::new(ops, Location { mount: dir.mount, dentry }, flags)?;
        inotify::fire(file.place(), inotify::OPEN);
        Ok(file)
    }

    /// Open what is there.
    pub fn open_existing(&self, place: Location, flags: u32) -> Result<Arc<File>> {
        let inode = place.inode().clone();
        let mode = open_mode(flags);
        place.mount.used();
        // Good for requests to devices only, but for who could do both.
        let neither = flags & abi::O_ACCMODE == abi::O_ACCMODE;
        let changes = mode.write || neither || flags & abi::O_TRUNC != 0;
        match inode.kind() {
            Kind::Link => {
                return Err(if flags & abi::O_DIRECTORY != 0 { Errno::ENOTDIR } else { Errno::ELOOP });
            }
            Kind::Dir if changes || flags & abi::O_CREAT != 0 => return Err(Errno::EISDIR),
            Kind::Dir => {}
            _ if flags & abi::O_DIRECTORY != 0 => return Err(Errno::ENOTDIR),
            Kind::File if changes => place.mount.check_writable()?,
            Kind::Char | Kind::Block if place.mount.flags().contains(Flags::NODEV) => {
                return Err(Errno::EACCES);
            }
            Kind::Fifo if neither => return Err(Errno::EINVAL),
            _ => {}
        }
        let reads = mode.read || neither;
        let wanted = (if reads { want::READ } else { 0 }) | (if changes { want::WRITE } else { 0 });
        if !self.cred.passes() && wanted != 0 {
            inode.permission(&self.cred, wanted)?;
        }
        if flags & abi::O_NOATIME != 0 {
            self.cred.check_owner(&inode.stat()?)?;
        }
        if inode.kind() == Kind::Socket {
            return Err(Errno::ENXIO);
        }
        if inode.kind() == Kind::Dir {
            inotify::fire(&place, inotify::OPEN);
            return File::new(Arc::new(OpenDir), place, flags);
        }
        let _writing = if mode.write { Some(Writing::new(&inode)?) } else { None };
        if inode.kind() == Kind::File {
            lease::give_way(&inode, mode.write, mode.nonblock)?;
        }
        let _truncating = if changes && !mode.write { Some(Writing::new(&inode)?) } else { None };
        let ops = inode.clone().open(mode)?;
        let file = File::new(ops, place, flags)?;
        inotify::fire(file.place(), inotify::OPEN);
        if flags & abi::O_TRUNC != 0 && inode.kind() == Kind::File {
            truncate(&inode, 0)?;
            inotify::fire(file.place(), inotify::MODIFY);
        }
        Ok(file)
    }

    fn open_new(&self, last: Last, flags: u32, mode: u32) -> Result<Arc<File>> {
        if last.slash {
            return Err(Errno::EISDIR);
        }
        let name = last.plain(Errno::EISDIR)?;
        let place = match self.make(&last.dir, name, NewKind::File, mode) {
            Ok(place) => place,
            // Another was first: open what it made.
            Err(Errno::EEXIST) if flags & abi::O_EXCL == 0 => {
                last.dir.dentry.forget(name);
                return self.open_existing(last.dir.child(name)?, flags);
            }
            Err(e) => return Err(e),
        };
        // Whoever makes a file may open it, whatever mode he gave it.
        let ops = place.inode().clone().open(open_mode(flags))?;
        let file = File::new(ops, place, flags)?;
        file.set_made();
        inotify::fire(file.place(), inotify::OPEN);
        Ok(file)
    }

    fn new_node<'a>(&self, dir: &Location, node: NewKind<'a>, mode: u32) -> Result<NewNode<'a>> {
        let mut new =
            NewNode { node, mode: mode & 0o7777 & !self.umask, uid: self.cred.fsuid, gid: self.cred.fsgid };
        let dir = dir.inode().stat()?;
        if dir.mode & abi::S_ISGID != 0 {
            new.gid = dir.gid;
            if node == NewKind::Dir {
                new.mode |= abi::S_ISGID;
            }
        }
        Ok(new)
    }

    /// Make a node in a directory where it is known not to be.
    fn make(&self, dir: &Location, name: &[u8], node: NewKind<'_>, mode: u32) -> Result<Location> {
        if dir.inode().only_known_names() {
            return Err(Errno::ENOENT);
        }
        dir.mount.check_writable()?;
        self.may_change(dir)?;
        // A character device of number 0 is none: what stands for a name that was taken away.
        const NONE: NewKind = NewKind::Device { block: false, rdev: 0 };
        if matches!(node, NewKind::Device { .. }) && node != NONE && !self.cred.may(cap::MKNOD) {
            return Err(Errno::EPERM);
        }
        let new = self.new_node(dir, node, mode)?;
        let inode = dir.inode().create(name, &new)?;
        inotify::fire_entry(dir, name, inotify::CREATE, node == NewKind::Dir);
        Ok(Location { mount: dir.mount.clone(), dentry: dir.dentry.created(name, inode) })
    }

    fn may_change(&self, dir: &Location) -> Result<()> {
        if dir.dentry.is_removed() {
            return Err(Errno::ENOENT);
        }
        dir.inode().permission(&self.cred, want::WRITE | want::EXEC)
    }

    /// `mknodat(2)`, `mkdirat(2)`, `symlinkat(2)`.
    pub fn create(&self, base: &Location, path: &[u8], node: NewKind<'_>, mode: u32) -> Result<Location> {
        let last = self.resolve_last(base, path)?;
        let name = last.plain(Errno::EEXIST)?;
        match last.dir.child(name) {
            Ok(_) => return Err(Errno::EEXIST),
            Err(Errno::ENOENT) => {}
            Err(e) => return Err(e),
        }
        if last.slash && node != NewKind::Dir {
            return Err(Errno::ENOENT);
        }
        let result = self.make(&last.dir, name, node, mode);
        if result.as_ref().is_err_and(|e| *e == Errno::EEXIST) {
            last.dir.dentry.forget(name);
        }
        result
    }

    /// `linkat(2)`.
    pub fn link(&self, target: &Location, base: &Location, path: &[u8]) -> Result<()> {
        let last = self.resolve_last(base, path)?;
        let name = last.plain(Errno::EEXIST)?;
        match last.dir.child(name) {
            Ok(_) => return Err(Errno::EEXIST),
            Err(Errno::ENOENT) if last.slash => return Err(Errno::ENOENT),
            Err(Errno::ENOENT) => {}
            Err(e) => return Err(e),
        }
        if last.dir.inode().only_known_names() {
            return Err(Errno::ENOENT);
        }
        if !Arc::ptr_eq(&target.mount, &last.dir.mount) {
            return Err(Errno::EXDEV);
        }
        last.dir.mount.check_writable()?;
        self.may_change(&last.dir)?;
        if target.is_dir() {
            return Err(Errno::EPERM);
        }
        self.may_link(target)?;
        last.dir.inode().link(name, target.inode())?;
        last.dir.dentry.created(name, target.inode().clone());
        inotify::fire_self(target.inode(), inotify::ATTRIB);
        inotify::fire_entry(&last.dir, name, inotify::CREATE, false);
        Ok(())
    }

    /// `fs.protected_hardlinks` (proc(5)): another's file may be linked only by who can read and write it.
    fn may_link(&self, target: &Location) -> Result<()> {
        let stat = target.inode().stat()?;
        if protected::NAMES.load(Relaxed) == 0 || self.cred.check_owner(&stat).is_ok() {
            return Ok(());
        }
        let suid = stat.mode & abi::S_ISUID != 0
            || stat.mode & (abi::S_ISGID | abi::S_IXGRP) == abi::S_ISGID | abi::S_IXGRP;
        let safe = stat.kind() == Some(Kind::File) && !suid;
        let open = target.inode().permission(&self.cred, want::READ | want::WRITE);
        if safe && open.is_ok() { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// `unlinkat(2)` without AT_REMOVEDIR.
    pub fn unlink(&self, base: &Location, path: &[u8]) -> Result<()> {
        let last = self.resolve_last(base, path)?;
        let name = last.plain(Errno::EISDIR)?;
        let victim = last.dir.child(name)?;
        if last.slash {
            return Err(if victim.is_dir() { Errno::EISDIR } else { Errno::ENOTDIR });
        }
        last.dir.mount.check_writable()?;
        self.may_delete(&last.dir, &victim)?;
        if victim.is_dir() {
            return Err(Errno::EISDIR);
        }
        if !Arc::ptr_eq(&victim.mount, &last.dir.mount) {
            return Err(Errno::EBUSY);
        }
        last.dir.inode().unlink(name)?;
        victim.inode().unlinked();
        inotify::fire_self(victim.inode(), inotify::ATTRIB);
        last.dir.dentry.deleted(name);
        drop(victim);
        inotify::fire_entry(&last.dir, name, inotify::DELETE, false);
        Ok(())
    }

    /// `rmdir(2)`.
    pub fn rmdir(&self, base: &Location, path: &[u8]) -> Result<()> {
        let last = self.resolve_last(base, path)?;
        let name = match last.name.as_slice() {
            b"." => return Err(Errno::EINVAL),
            b".." => return Err(Errno::ENOTEMPTY),
            b"" => return Err(Errno::EBUSY),
            name if name.len() > NAME_MAX => return Err(Errno::ENAMETOOLONG),
            name => name,
        };
        let victim = last.dir.child(name)?;
        last.dir.mount.check_writable()?;
        self.may_delete(&last.dir, &victim)?;
        if !victim.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        if !Arc::ptr_eq(&victim.mount, &last.dir.mount) {
            return Err(Errno::EBUSY);
        }
        last.dir.inode().rmdir(name)?;
        victim.inode().unlinked();
        last.dir.dentry.deleted(name);
        drop(victim);
        inotify::fire_entry(&last.dir, name, inotify::DELETE, true);
        Ok(())
    }

    /// Whether `victim` may leave `dir`: both writable, and in a sticky directory one's own.
    fn may_delete(&self, dir: &Location, victim: &Location) -> Result<()> {
        self.may_change(dir)?;
        if victim.dentry.is_covered() {
            return Err(Errno::EBUSY);
        }
        if self.cred.may(cap::FOWNER) {
            return Ok(());
        }
        let stat = dir.inode().stat()?;
        if stat.mode & abi::S_ISVTX == 0 || stat.uid == self.cred.fsuid {
            return Ok(());
        }
        self.cred.check_owner(&victim.inode().stat()?)
    }

    /// `renameat2(2)`.
    pub fn rename(&self, from: (&Location, &[u8]), to: (&Location, &[u8]), how: RenameFlags) -> Result<()> {
        if how.contains(RenameFlags::EXCHANGE) && how != RenameFlags::EXCHANGE {
            return Err(Errno::EINVAL);
        }
        let from = self.resolve_last(from.0, from.1)?;
        let to = self.resolve_last(to.0, to.1)?;
        if !Arc::ptr_eq(&from.dir.mount, &to.dir.mount) {
            return Err(Errno::EXDEV);
        }
        let keeps = how.contains(RenameFlags::NOREPLACE);
        let name = from.plain(Errno::EBUSY)?;
        let to_name = to.plain(if keeps { Errno::EEXIST } else { Errno::EBUSY })?;
        let _one = RENAME.lock();
        let moved = from.dir.child(name)?;
        let target = match to.dir.child(to_name) {
            Ok(_) if keeps => return Err(Errno::EEXIST),
            Ok(target) => Some(target),
            Err(Errno::ENOENT) if how.contains(RenameFlags::EXCHANGE) => return Err(Errno::ENOENT),
            Err(Errno::ENOENT) => None,
            Err(e) => return Err(e),
        };
        from.dir.mount.check_writable()?;
        self.check_rename(&from, &moved, &to, target.as_ref(), how)?;
        if target.as_ref().is_some_and(|t| Arc::ptr_eq(t.inode(), moved.inode())) {
            return Ok(());
        }
        from.dir.inode().rename(name, to.dir.inode(), to_name, how)?;
        from.dir.dentry.renamed(name, &to.dir.dentry, to_name, how);
        inotify::fire_move(&from.dir, name, &to.dir, to_name, &moved);
        if let Some(target) = target {
            if !how.contains(RenameFlags::EXCHANGE) {
                target.inode().unlinked();
            }
            if how.contains(RenameFlags::EXCHANGE) {
                inotify::fire_move(&to.dir, to_name, &from.dir, name, &target);
            } else {
                inotify::fire_self(target.inode(), inotify::ATTRIB);
            }
        }
        Ok(())
    }

    fn check_rename(
        &self,
        from: &Last,
        moved: &Location,
        to: &Last,
        target: Option<&Location>,
        how: RenameFlags,
    ) -> Result<()> {
        let exchange = how.contains(RenameFlags::EXCHANGE);
        if !moved.is_dir() && (from.slash || (to.slash && !exchange)) {
            return Err(Errno::ENOTDIR);
        }
        if exchange && to.slash && target.is_some_and(|target| !target.is_dir()) {
            return Err(Errno::ENOTDIR);
        }
        if !Arc::ptr_eq(&moved.mount, &from.dir.mount) {
            return Err(Errno::EBUSY);
        }
        if moved.is_dir() && moved.dentry.is_above(&to.dir.dentry) {
            return Err(Errno::EINVAL);
        }
        if target.is_some_and(|target| Arc::ptr_eq(target.inode(), moved.inode())) {
            return Ok(());
        }
        self.may_delete(&from.dir, moved)?;
        // Where a directory goes elsewhere its `..` is another.
        let elsewhere = !Arc::ptr_eq(&from.dir.dentry, &to.dir.dentry);
        if elsewhere && moved.is_dir() {
            moved.inode().permission(&self.cred, want::WRITE)?;
        }
        let Some(target) = target else { return self.may_change(&to.dir) };
        if elsewhere && exchange && target.is_dir() {
            target.inode().permission(&self.cred, want::WRITE)?;
        }
        if !Arc::ptr_eq(&target.mount, &to.dir.mount) {
            return Err(Errno::EBUSY);
        }
        if target.is_dir() && target.dentry.is_above(&from.dir.dentry) {
            return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
        self.may_delete(&to.dir, target)?;
        match (exchange, moved.is_dir(), target.is_dir()) {
            (false, true, false) => Err(Errno::ENOTDIR),
            (false, false, true) => Err(Errno::EISDIR),
            _ => Ok(()),
        }
    }

    /// `truncate(2)` of what the path led to.
    pub fn truncate(&self, place: &Location, size: u64) -> Result<()> {
        match place.inode().kind() {
            Kind::File => {}
            Kind::Dir => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
        place.mount.check_writable()?;
        place.inode().permission(&self.cred, want::WRITE)?;
        let _writing = Writing::new(place.inode())?;
        lease::give_way(place.inode(), true, false)?;
        truncate(place.inode(), size)?;
        inotify::fire(place, inotify::MODIFY);
        Ok(())
    }

    /// `chmod(2)`.
    pub fn chmod(&self, place: &Location, mode: u32) -> Result<()> {
        if place.inode().kind() == Kind::Link {
            return Err(Errno::EOPNOTSUPP);
        }
        place.mount.check_writable()?;
        let stat = place.inode().stat()?;
        self.cred.check_owner(&stat)?;
        let mut mode = mode & 0o7777;
        if !self.cred.may(cap::FSETID) && !self.cred.in_group(stat.gid) {
            mode &= !abi::S_ISGID;
        }
        place.inode().setattr(&SetAttr { mode: Some(mode), ..SetAttr::default() })?;
        inotify::fire(place, inotify::ATTRIB);
        Ok(())
    }

    /// `chown(2)`; `None` leaves one as it is.
    pub fn chown(&self, place: &Location, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        place.mount.check_writable()?;
        let stat = place.inode().stat()?;
        let owns = self.cred.fsuid == stat.uid;
        let may = self.cred.may(cap::CHOWN)
            || uid.is_none_or(|u| owns && u == stat.uid)
                && gid.is_none_or(|g| owns && (g == stat.gid || self.cred.in_group(g)));
        if !may {
            return Err(Errno::EPERM);
        }
        place.inode().setattr(&SetAttr { uid, gid, mode: without_suid(&stat), ..SetAttr::default() })?;
        inotify::fire(place, inotify::ATTRIB);
        Ok(())
    }
}

/// Do it again, with fresh names, if what we knew turns out to be stale.
pub fn retry_stale<T>(mut step: impl FnMut() -> Result<T>) -> Result<T> {
    match step() {
        Err(Errno::ESTALE) => {
            dentry::expire_all();
            step()
        }
        result => result,
    }
}

/// The mode that a file keeps when another may have come to own it.
pub fn without_suid(stat: &Stat) -> Option<u32> {
    if stat.kind() != Some(Kind::File) || stat.mode & (abi::S_ISUID | abi::S_ISGID) == 0 {
        return None;
    }
    let group = if stat.mode & abi::S_IXGRP != 0 { abi::S_ISGID } else { 0 };
    Some(stat.mode & 0o7777 & !(abi::S_ISUID | group))
}

/// Set a regular file's size, as one step for its writers.
pub fn truncate(inode: &Arc<dyn Inode>, size: u64) -> Result<()> {
    let _one = inode.write_lock().map(SleepLock::lock);
    inode.setattr(&SetAttr { size: Some(size), ..SetAttr::default() })
}
