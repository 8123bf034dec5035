//! What is known of a file of the host, and how long it is believed.
//!
//! The inode has a *name fid*, by which it asks the server for attributes and walks on; it is replaced whenever the name is
//! looked up again, because the server finds files by path and the old path may be gone. A regular file's open fids
//! are its [`Handle`]'s.
//!
//! *Attributes* are trusted for [`TRUST`], and asked anew when a file is opened. If the server tells of another size or
//! modification time than the cached pages were read under, and the change is not ours, the pages are dropped. If the name
//! has come to mean another file, the answer is `ESTALE`: look the name up again.
//!
//! *Own changes.* [`State::changed`] says when the program last wrote; until write-back has sent it all, size and times are
//! the object's and the clock's.
//!
//! Locks: `opening` (sleeps) makes opening, write-back and truncation one step each; `state` and `object` are spin locks over plain
//! fields; `writing` is the callers' (see [`Inode::write_lock`]) and never taken here.
use super::Share;
use super::client::Fid;
use super::handle::Handle;
use super::wire::Qid;
use crate::clock;
use crate::errno::{Errno, Result};
use crate::fs::inode::*;
use crate::fs::lock::SleepLock;
use crate::mem::memory;
use alloc::{sync::Arc, vec::Vec};
use hafez_mm::Object;
use hafez_mm::lock::Mutex;

/// How long an answer of the server is believed, ns. The host's files seldom change under a running program, and a look
/// costs tens of microseconds; a second is as long as anyone will wait for a file to show up.
pub const TRUST: u64 = 1_000_000_000;

/// What an inode costs of the kernel's heap, with its object, generously.
const ROOM: usize = 4096;

/// See the module.
pub struct P9Inode {
    pub(super) share: &'static Share,
    pub(super) path: u64,
    pub(super) kind: Kind,
    pub(super) state: Mutex<State>,
    pub(super) handle: Arc<Handle>,
    pub(super) object: Mutex<Option<Arc<Object>>>,
    pub(super) opening: SleepLock,
    pub(super) writing: SleepLock,
    pub(super) writers: Writers,
}

pub(super) struct State {
    pub(super) name: Arc<Fid>,
    /// The name fid has been opened. Newer servers then tell the attributes of what is open, not of what the name means by now.
    pub(super) name_open: bool,
    pub(super) stat: Stat,
    /// When `stat` was fetched, ns; 0: never, or not to be believed any more.
    pub(super) fetched: u64,
    /// Nobody has opened the file since then.
    pub(super) unused: bool,
    /// Size and modification time that the cached pages belong to.
    pub(super) pages_of: (u64, Time),
    /// When the program last wrote what the server does not have yet.
    pub(super) changed: Option<Time>,
    /// The server's version of the file when its name was last looked up.
    pub(super) version: u32,
    /// We have taken its last name away: nobody can be asked about it any more.
    pub(super) gone: bool,
    /// A link's text, as of that version.
    pub(super) target: Option<Vec<u8>>,
    /// The fid that a directory is being read by, and the cursor at which the server said that nothing follows.
    pub(super) listing: Option<Arc<Fid>>,
    pub(super) end: Option<u64>,
}

impl P9Inode {
    /// The inode of what `fid` names: the known one if there is one.
    pub(super) fn of(share: &'static Share, fid: Fid, qid: Qid) -> Result<Arc<P9Inode>> {
        let linked = [(Qid::DIR, Kind::Dir), (Qid::LINK, Kind::Link)];
        let told = linked.into_iter().find(|(bit, _)| qid.kind & bit != 0).map(|(_, kind)| kind);
        if let Some(known) = share.table.get(qid.path)
            && told.map_or(!matches!(known.kind, Kind::Dir | Kind::Link), |kind| kind == known.kind)
        {
            known.renamed(fid, qid);
            return Ok(known);
        }
        // Files can be known by the thousand: leave the kernel room for what it cannot do without.
        if !crate::mem::headroom(ROOM) {
            share.table.forget_recent();
            if !crate::mem::headroom(ROOM) {
                return Err(Errno::ENOMEM);
            }
        }
        // Whether it is a regular file only its mode tells.
        let attr = if told.is_some() { None } else { Some(fid.attr()?) };
        let stat = attr.map_or(Stat::default(), |a| a.stat);
        let kind = told.or(stat.kind()).ok_or(Errno::EIO)?;
        let state = State {
            name: Arc::new(fid),
            name_open: false,
            stat,
            fetched: attr.map_or(0, |_| clock::monotonic()),
            unused: true,
            pages_of: (stat.size, stat.mtime),
            changed: None,
            version: qid.version,
            gone: false,
            target: None,
            listing: None,
            end: None,
        };
        let inode = Arc::new(P9Inode {
            share,
            path: qid.path,
            kind,
            state: Mutex::new(state),
            handle: Arc::default(),
            object: Mutex::new(None),
            opening: SleepLock::new(),
            writing: SleepLock::new(),
            writers: Writers::default(),
        });
        Ok(share.table.insert(inode))
    }

    pub(super) fn path(&self) -> u64 {
        self.path
    }
    pub(super) fn same_kind(&self, other: &P9Inode) -> bool {
        self.kind == other.kind
    }

    pub(super) fn name(&self) -> Arc<Fid> {
        self.state.lock().name.clone()
    }

    /// The file was found under a name: that is how to reach it from now on.
    pub(super) fn renamed(&self, fid: Fid, qid: Qid) {
        let mut state = self.state.lock();
        state.gone = false;
        let old = core::mem::replace(&mut state.name, Arc::new(fid));
        state.name_open = false;
        if state.version != qid.version {
            state.version = qid.version;
            state.fetched = 0;
            state.target = None;
        }
        drop(state);
        drop(old);
    }

    /// The next one who wants attributes has to ask.
    pub(super) fn outdated(&self) {
        let mut state = self.state.lock();
        state.fetched = 0;
        state.end = None;
    }

    /// Ask the server, and drop cached pages that are no longer true. `ours`: what changed, we changed.
    pub(super) fn refresh(&self, ours: bool) -> Result<Stat> {
        let attr = match self.unopened_name().and_then(|name| name.attr()) {
            Ok(attr) => attr,
            // Its name is gone, but we have it open: it lives on without one.
            Err(Errno::ENOENT) if self.handle.is_open(true, false) => {
                let mut state = self.state.lock();
                state.stat.nlink = 0;
                return Ok(state.stat);
            }
            Err(error) => return Err(error),
        };
        if attr.qid.path != self.path || attr.stat.kind() != Some(self.kind) {
            return Err(Errno::ESTALE);
        }
        let ours = self.handle.take_wrote() || ours;
        let mut state = self.state.lock();
        state.stat = attr.stat;
        state.fetched = clock::monotonic();
        state.unused = !ours;
        let now = (attr.stat.size, attr.stat.mtime);
        let foreign = state.changed.is_none() && !ours && state.pages_of != now;
        if state.changed.is_none() {
            state.pages_of = now;
        }
        drop(state);
        let object = self.object.lock().clone();
        if foreign && let Some(object) = object {
            memory().object_invalidate(&object);
            memory().object_resize(&object, attr.stat.size)?;
        }
        Ok(attr.stat)
    }

    /// The name fid, or if that has been opened, a new one.
    fn unopened_name(&self) -> Result<Arc<Fid>> {
        let (name, open) = {
            let state = self.state.lock();
            (state.name.clone(), state.name_open)
        };
        if !open {
            return Ok(name);
        }
        let twin = Arc::new(name.twin()?);
        let mut state = self.state.lock();
        state.name = twin.clone();
        state.name_open = false;
        drop(state);
        Ok(twin)
    }

    /// Attributes that are recent enough.
    pub(super) fn recent(&self, age: u64) -> Result<Stat> {
        let state = self.state.lock();
        if state.gone || state.fetched != 0 && clock::monotonic().saturating_sub(state.fetched) < age {
            return Ok(state.stat);
        }
        drop(state);
        self.refresh(false)
    }
}

impl Drop for P9Inode {
    fn drop(&mut self) {
        self.share.table.remove(self.path);
        if let Some(object) = self.object.get_mut().take() {
            memory().object_retire(&object);
        }
    }
}
