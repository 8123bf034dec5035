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

use super::{
    cred::{Cred, want},
    dentry::Dentry,
    inode::{Inode, Kind},
    mount::Mount,
};
use crate::errno::{Errno, Result};
use alloc::{sync::Arc, vec::Vec};
use hafez_mm::lock::Mutex;

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

    /// The child of this name, in whatever is mounted there.
    pub fn child(&self, name: &[u8]) -> Result<Location> {
        let dentry = self.dentry.child(name)?;
        Ok(Location { mount: self.mount.clone(), dentry }.into_mounts())
    }
    fn into_mounts(mut self) -> Location {
        while let Some(mount) = self.dentry.covered() {
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
            if let Some(dentry) = at.dentry.parent() {
                return Location { mount: at.mount, dentry }.into_mounts();
            }
            match at.mount.on().cloned() {
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
            match at.dentry.parent() {
                Some(dentry) => {
                    names.push(at.dentry.name());
                    at.dentry = dentry;
                }
                None => at = at.mount.on().cloned()?,
            }
        }
        let mut path = Vec::new();
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
        Walker { root: p.root.clone(), cwd: p.cwd.clone(), cred, umask: p.umask }
    }
}

/// Goes along paths for somebody.
#[derive(Clone)]
pub struct Walker {
    pub root: Location,
    pub cwd: Location,
    pub cred: Arc<Cred>,
    pub umask: u32,
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
            name => Ok(name),
        }
    }
}

impl Walker {
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
    pub fn resolve_last(&self, base: &Location, path: &[u8]) -> Result<Last> {
        self.last(base, path, &mut 0)
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
            match self.follow(&at, &mut links)? {
                Target::Place(place) => return Ok(Ok(place)),
                Target::Text(mut text) => {
                    if last.slash {
                        text.push(b'/');
                    }
                    last = self.last(&last.dir.clone(), &text, &mut links)?;
                }
            }
        }
    }

    fn finish(&self, last: Last, follow: bool, links: &mut u32) -> Result<Location> {
        let mut last = last;
        loop {
            let at = self.step(&last.dir, &last.name)?;
            if at.inode().kind() == Kind::Link && (follow || last.slash) {
                match self.follow(&at, links)? {
                    Target::Place(place) => {
                        return if last.slash && !place.is_dir() { Err(Errno::ENOTDIR) } else { Ok(place) };
                    }
                    Target::Text(text) => {
                        let slash = last.slash;
                        last = self.last(&last.dir.clone(), &text, links)?;
                        last.slash |= slash;
                    }
                }
                continue;
            }
            return if last.slash && !at.is_dir() { Err(Errno::ENOTDIR) } else { Ok(at) };
        }
    }

    /// Walk all but the last name.
    fn last(&self, base: &Location, path: &[u8], links: &mut u32) -> Result<Last> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let mut at = if path[0] == b'/' { self.root.clone() } else { base.clone() };
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
            if name.len() > NAME_MAX {
                return Err(Errno::ENAMETOOLONG);
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
            b".." => Ok(dir.parent(&self.root)),
            _ if name.len() > NAME_MAX => Err(Errno::ENAMETOOLONG),
            _ => dir.child(name),
        }
    }

    fn may_search(&self, dir: &Location) -> Result<()> {
        if self.cred.is_root() { Ok(()) } else { dir.inode().permission(&self.cred, want::EXEC) }
    }

    fn follow(&self, link: &Location, links: &mut u32) -> Result<Target> {
        *links += 1;
        if *links > MAX_LINKS {
            return Err(Errno::ELOOP);
        }
        if let Some(place) = link.inode().follow() {
            return place.map(Target::Place);
        }
        let text = link.inode().readlink()?;
        if text.is_empty() { Err(Errno::ENOENT) } else { Ok(Target::Text(text)) }
    }
}

enum Target {
    Place(Location),
    Text(Vec<u8>),
}
