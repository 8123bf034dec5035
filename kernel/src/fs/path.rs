//! From a path to a place: `path_resolution(7)`.
//!
//! A [`Location`] is a dentry seen through a mount. A [`Walker`] knows where paths begin (root, working directory) and
//! who asks; it goes name by name:
//!
//! ```text
//!   name     the directory's child (search permission needed), then down into whatever is mounted on it
//!   ..       up; from the root of a mount first to the directory that it covers; never above the root
//!   link     its text takes the name's place, at most 40 times in one walk; or the file says itself where it leads
//! ```
//!
//! `openat2(2)` can put [`Limits`] on a walk: no way out of a directory, no links, no other mount. "Out" is also where a
//! directory on the way was moved out meanwhile: so after each `..` the place must still be below the beginning.

use super::{
    cred::{Cred, want},
    dentry::Dentry,
    inode::{Inode, Kind},
    mount::{Flags, Mount},
    protected,
};
use crate::errno::{Errno, Result};
use crate::mem::TryPush;
use alloc::{sync::Arc, vec::Vec};
use hafez_mm::lock::Mutex;

bitflags::bitflags! {
    /// `RESOLVE_*`: what a walk may not do.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Limits: u32 {
        const NO_XDEV = 1;
        const NO_MAGICLINKS = 2;
        const NO_SYMLINKS = 4;
        const BENEATH = 8;
        const IN_ROOT = 16;
    }
}

/// The longest name.
pub const NAME_MAX: usize = 255;
/// Links followed in one walk before it is a loop.
const MAX_LINKS: u32 = 40;

/// A place in the tree.
#[derive(Clone)]
pub struct Location {
    pub mount: Arc<Mount>,
    pub dentry: Arc<Dentry>,
}

impl Location {
    /// For what has no path: `name` is what `/proc/PID/fd` shows.
    pub fn detached(mount: &Arc<Mount>, inode: Arc<dyn Inode>, name: &[u8]) -> Location {
        Location { mount: mount.clone(), dentry: Dentry::root(inode, name) }
    }
    pub fn inode(&self) -> &Arc<dyn Inode> {
        self.dentry.inode()
    }
    pub fn is_dir(&self) -> bool {
        self.inode().kind() == Kind::Dir
    }
    pub fn same(&self, other: &Location) -> bool {
        Arc::ptr_eq(&self.dentry, &other.dentry) && Arc::ptr_eq(&self.mount, &other.mount)
    }

    /// Whether it is where its mount begins.
    pub fn is_mount_root(&self) -> bool {
        Arc::ptr_eq(&self.dentry, self.mount.top())
    }

    /// The child of this name, in whatever is mounted there.
    pub fn child(&self, name: &[u8]) -> Result<Location> {
        let dentry = self.dentry.child(name)?;
        Ok(Location { mount: self.mount.clone(), dentry }.into_mounts())
    }
    fn into_mounts(mut self) -> Location {
        while let Some(mount) = self.dentry.covered(self.mount.id()) {
            self = mount.root();
        }
        self
    }
    /// The directory that it is in.
    pub fn parent(&self, root: &Location) -> Location {
        let mut at = self.clone();
        loop {
            if at.same(root) {
                return at;
            }
            if !at.is_mount_root()
                && let Some(dentry) = at.dentry.parent()
            {
                return Location { mount: at.mount, dentry }.into_mounts();
            }
            match at.mount.on() {
                Some(on) => at = on,
                None => return at,
            }
        }
    }

    /// Its path as seen from `root`; `None` if it is not below it (or in no tree).
    pub fn path_from(&self, root: &Location) -> Option<Vec<u8>> {
        let mut names: Vec<alloc::boxed::Box<[u8]>> = Vec::new();
        let mut at = self.clone();
        while !at.same(root) {
            match at.dentry.parent().filter(|_| !at.is_mount_root()) {
                Some(dentry) => {
                    names.try_push(at.dentry.name()).ok()?;
                    if !crate::mem::headroom(1024) {
                        return None;
                    }
                    at.dentry = dentry;
                }
                None => at = at.mount.on()?,
            }
        }
        let mut path = Vec::new();
        path.try_reserve(names.iter().map(|name| name.len() + 1).sum::<usize>().max(1)).ok()?;
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Some(path)
    }

    /// Its path for people and `/proc`: from the root of all, `(deleted)` behind it if it has been; the bare name of
    /// what is in no tree.
    pub fn display(&self) -> Vec<u8> {
        if self.mount.id() == 0 {
            return self.dentry.name().into_vec();
        }
        let path = super::root().and_then(|root| self.path_from(&root));
        let mut path = path.unwrap_or_else(|| self.dentry.name().into_vec());
        if self.dentry.is_removed() {
            path.extend_from_slice(b" (deleted)");
        }
        path
    }
}

/// A process's place in the tree. Shared by threads (CLONE_FS), copied by fork.
pub struct FsContext(Mutex<Places>);

#[derive(Clone)]
struct Places {
    root: Location,
    cwd: Location,
    umask: u32,
}

impl FsContext {
    pub fn new(root: Location, cwd: Location, umask: u32) -> Arc<FsContext> {
        Arc::new(FsContext(Mutex::new(Places { root, cwd, umask })))
    }
    pub fn fork_copy(&self) -> Arc<FsContext> {
        Arc::new(FsContext(Mutex::new(self.0.lock().clone())))
    }
    pub fn root(&self) -> Location {
        self.0.lock().root.clone()
    }
    pub fn cwd(&self) -> Location {
        self.0.lock().cwd.clone()
    }
    pub fn umask(&self) -> u32 {
        self.0.lock().umask
    }
    /// Set the umask; the old one.
    pub fn set_umask(&self, umask: u32) -> u32 {
        core::mem::replace(&mut self.0.lock().umask, umask & 0o777)
    }
    pub fn set_cwd(&self, cwd: Location) {
        let old = core::mem::replace(&mut self.0.lock().cwd, cwd);
        drop(old);
    }
    pub fn set_root(&self, root: Location) {
        let old = core::mem::replace(&mut self.0.lock().root, root);
        drop(old);
    }
    /// One who walks for `cred` from here.
    pub fn walker(&self, cred: Arc<Cred>) -> Walker {
        let p = self.0.lock();
        let (root, cwd) = (p.root.clone(), p.cwd.clone());
        Walker { root, cwd, cred, umask: p.umask, limits: Limits::default(), beneath: None }
    }
}

/// Goes along paths for somebody.
#[derive(Clone)]
pub struct Walker {
    pub root: Location,
    pub cwd: Location,
    pub cred: Arc<Cred>,
    pub umask: u32,
    pub limits: Limits,
    /// With `Limits::BENEATH` or `IN_ROOT`: where the walk began.
    pub beneath: Option<Location>,
}

/// The end of a path that may not exist: a name in a directory.
pub struct Last {
    pub dir: Location,
    /// Empty for a path of slashes only; may be `.` or `..`.
    pub name: Vec<u8>,
    /// A slash followed: it must be a directory.
    pub slash: bool,
}

impl Last {
    /// The name, if it is one that can be made or taken away; `error` for `/`, `.` and `..`.
    pub fn plain(&self, error: Errno) -> Result<&[u8]> {
        match self.name.as_slice() {
            b"" | b"." | b".." => Err(error),
            name if name.len() > NAME_MAX => Err(Errno::ENAMETOOLONG),
            name => Ok(name),
        }
    }
}

impl Walker {
    /// The same, limited, for one walk from `base`.
    pub fn limited(&self, limits: Limits, base: &Location) -> Walker {
        let scoped = limits.intersects(Limits::BENEATH | Limits::IN_ROOT);
        let mut limited = Walker { limits, beneath: scoped.then(|| base.clone()), ..self.clone() };
        if limits.contains(Limits::IN_ROOT) {
            limited.root = base.clone();
        }
        limited
    }

    /// Where a path begins that is not given a directory.
    pub fn start(&self, path: &[u8]) -> Location {
        if path.first() == Some(&b'/') { self.root.clone() } else { self.cwd.clone() }
    }

    /// Where `path` leads; a link at its end is followed if `follow` (or if a slash comes after it).
    pub fn resolve(&self, base: &Location, path: &[u8], follow: bool) -> Result<Location> {
        let mut links = 0;
        let last = self.last(base, path, &mut links)?;
        self.finish(last, follow, &mut links)
    }

    /// The directory and the name that `path` ends with. Links are followed up to there, not the last.
    /// Whoever cannot search that directory learns nothing of the name.
    pub fn resolve_last(&self, base: &Location, path: &[u8]) -> Result<Last> {
        let last = self.last(base, path, &mut 0)?;
        self.may_search(&last.dir)?;
        Ok(last)
    }

    /// For `open`: the end of the path after following links, when that may not exist. `Ok(Ok)` is what exists.
    pub fn resolve_open(
        &self,
        base: &Location,
        path: &[u8],
        follow: bool,
    ) -> Result<core::result::Result<Location, Last>> {
        let mut links = 0;
        let mut last = self.last(base, path, &mut links)?;
        loop {
            let at = match self.step(&last.dir, &last.name) {
                Err(Errno::ENOENT) => return Ok(Err(last)),
                at => at?,
            };
            if at.inode().kind() != Kind::Link || !(follow || last.slash) {
                return if last.slash && !at.is_dir() { Err(Errno::ENOTDIR) } else { Ok(Ok(at)) };
            }
            protected::may_follow(&self.cred, &last.dir, &at)?;
            match self.follow(&at, &mut links)? {
                Target::Place(place) => return Ok(Ok(place)),
                Target::Text(mut text) => {
                    if last.slash {
                        text.push(b'/');
                    }
                    last = self.last_of_link(&last.dir, &text, &mut links)?;
                }
            }
        }
    }

    fn finish(&self, last: Last, follow: bool, links: &mut u32) -> Result<Location> {
        let mut last = last;
        loop {
            let at = self.step(&last.dir, &last.name)?;
            if at.inode().kind() == Kind::Link && (follow || last.slash) {
                protected::may_follow(&self.cred, &last.dir, &at)?;
                match self.follow(&at, links)? {
                    Target::Place(place) => {
                        return if last.slash && !place.is_dir() { Err(Errno::ENOTDIR) } else { Ok(place) };
                    }
                    Target::Text(text) => {
                        let slash = last.slash;
                        last = self.last_of_link(&last.dir, &text, links)?;
                        last.slash |= slash;
                    }
                }
                continue;
            }
            return if last.slash && !at.is_dir() { Err(Errno::ENOTDIR) } else { Ok(at) };
        }
    }

    /// As `last`, for the text of a link that was found in `dir`.
    fn last_of_link(&self, dir: &Location, text: &[u8], links: &mut u32) -> Result<Last> {
        if text.first() == Some(&b'/') && !self.limits.is_empty() {
            self.check_jump(dir)?;
        }
        self.last(dir, text, links)
    }

    /// Walk all but the last name.
    fn last(&self, base: &Location, path: &[u8], links: &mut u32) -> Result<Last> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let mut at = match path[0] {
            b'/' if self.limits.contains(Limits::BENEATH) => return Err(Errno::EXDEV),
            b'/' => self.root.clone(),
            _ => base.clone(),
        };
        let mut rest = path.to_vec();
        let mut pos = 0;
        loop {
            while rest.get(pos) == Some(&b'/') {
                pos += 1;
            }
            let len = rest[pos..].iter().position(|c| *c == b'/').unwrap_or(rest.len() - pos);
            let name = &rest[pos..pos + len];
            if !at.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            let slash = pos + len < rest.len();
            let more = rest[pos + len..].iter().any(|c| *c != b'/');
            if !more {
                return Ok(Last { dir: at, name: name.to_vec(), slash });
            }
            let next = self.step(&at, name)?;
            pos += len;
            if next.inode().kind() != Kind::Link {
                at = next;
                continue;
            }
            match self.follow(&next, links)? {
                Target::Place(place) => at = place,
                Target::Text(mut text) => {
                    if text.first() == Some(&b'/') {
                        self.check_jump(&at)?;
                        at = self.root.clone();
                    }
                    text.extend_from_slice(&rest[pos..]);
                    rest = text;
                    pos = 0;
                }
            }
        }
    }

    /// One name from `dir`.
    fn step(&self, dir: &Location, name: &[u8]) -> Result<Location> {
        if !dir.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        self.may_search(dir)?;
        match name {
            b"" | b"." => Ok(dir.clone()),
            b".." if self.limits.is_empty() => Ok(dir.parent(&self.root)),
            b".." => self.limited_parent(dir),
            _ if name.len() > NAME_MAX => Err(Errno::ENAMETOOLONG),
            _ if self.limits.is_empty() => dir.child(name),
            _ => self.check_mount(dir, dir.child(name)?),
        }
    }

    fn limited_parent(&self, dir: &Location) -> Result<Location> {
        let start = self.beneath.as_ref();
        if start.is_some_and(|start| dir.same(start)) {
            return if self.limits.contains(Limits::BENEATH) { Err(Errno::EXDEV) } else { Ok(dir.clone()) };
        }
        let parent = dir.parent(&self.root);
        if start.is_some_and(|start| parent.path_from(start).is_none()) {
            return Err(Errno::EAGAIN);
        }
        self.check_mount(dir, parent)
    }

    fn check_mount(&self, from: &Location, to: Location) -> Result<Location> {
        let other = !Arc::ptr_eq(&from.mount, &to.mount);
        if other && self.limits.contains(Limits::NO_XDEV) { Err(Errno::EXDEV) } else { Ok(to) }
    }

    /// A link leads from `at` to the root.
    fn check_jump(&self, at: &Location) -> Result<()> {
        if self.limits.contains(Limits::BENEATH) {
            return Err(Errno::EXDEV);
        }
        self.check_mount(at, self.root.clone()).map(|_| ())
    }

    fn may_search(&self, dir: &Location) -> Result<()> {
        if self.cred.passes() { Ok(()) } else { dir.inode().permission(&self.cred, want::EXEC) }
    }

    fn follow(&self, link: &Location, links: &mut u32) -> Result<Target> {
        *links += 1;
        if *links > MAX_LINKS {
            return Err(Errno::ELOOP);
        }
        if self.limits.contains(Limits::NO_SYMLINKS) || link.mount.flags().contains(Flags::NOSYMFOLLOW) {
            return Err(Errno::ELOOP);
        }
        if let Some(place) = link.inode().follow() {
            if self.limits.contains(Limits::NO_MAGICLINKS) {
                return Err(Errno::ELOOP);
            }
            if self.beneath.is_some() {
                return Err(Errno::EXDEV);
            }
            return self.check_mount(link, place?).map(Target::Place);
        }
        let text = link.inode().readlink()?;
        if text.is_empty() { Err(Errno::ENOENT) } else { Ok(Target::Text(text)) }
    }
}

enum Target {
    Place(Location),
    Text(Vec<u8>),
}
