//! What Unix sockets are called: by a file of kind socket, or by an abstract name.
//!
//! A file says only that there may be a socket; which one is in a table here, by the file's identity. The bound socket
//! holds the file's place, so that no other file gets that identity while it lives. Whoever removes the file does not
//! close the socket, and whoever closes the socket does not remove the file.

use super::{Address, Target, Unix};
use crate::{
    errno::{Errno, Result},
    fs::{
        Kind, Location,
        cred::want,
        inode::{InodeId, NewKind},
    },
};
use alloc::{
    collections::BTreeMap,
    format,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use hafez_mm::lock::{LazyLock, Mutex};

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    File(InodeId),
    Abstract(Vec<u8>),
}

/// A name that a socket was bound to.
pub struct Name {
    pub address: Address,
    key: Key,
    /// Keeps the file's identity its own.
    _place: Option<Location>,
    socket: Weak<Unix>,
}

impl Name {
    /// Whether it is this socket's own, not one that it has from its listener.
    pub fn is_of(&self, socket: &Unix) -> bool {
        core::ptr::eq(self.socket.as_ptr(), socket)
    }
}

static NAMES: LazyLock<Mutex<BTreeMap<Key, Weak<Unix>>>> = LazyLock::new(Mutex::default);

fn enter(key: &Key, socket: &Arc<Unix>) -> Result<()> {
    let mut names = NAMES.lock();
    if names.get(key).is_some_and(|s| s.strong_count() > 0) {
        return Err(Errno::EADDRINUSE);
    }
    if !crate::mem::headroom(1024) {
        return Err(Errno::ENOMEM);
    }
    names.insert(key.clone(), Arc::downgrade(socket));
    Ok(())
}

/// Bind the socket to what the address says.
pub fn claim(to: &Target, socket: &Arc<Unix>) -> Result<Arc<Name>> {
    let (address, key, place) = match &to.address {
        Address::Path(path) => {
            let base = to.walker.start(path);
            let made =
                to.walker.create(&base, path, NewKind::Socket, socket.common.mode()).map_err(
                    |e| match e {
                        Errno::EEXIST => Errno::EADDRINUSE,
                        e => e,
                    },
                )?;
            let key = Key::File(made.inode().id());
            enter(&key, socket)?;
            (to.address.clone(), key, Some(made))
        }
        Address::Abstract(name) => {
            let key = Key::Abstract(name.clone());
            enter(&key, socket)?;
            (to.address.clone(), key, None)
        }
        Address::Unnamed => {
            let name = pick(socket)?;
            (Address::Abstract(name.clone()), Key::Abstract(name), None)
        }
        _ => return Err(Errno::EINVAL),
    };
    Ok(Arc::new(Name { address, key, _place: place, socket: Arc::downgrade(socket) }))
}

/// Whether a file has the name.
pub fn is_taken(to: &Target) -> bool {
    match &to.address {
        Address::Path(path) => to.walker.resolve(&to.walker.start(path), path, false).is_ok(),
        _ => false,
    }
}

/// "Autobind": five hexadecimal digits that nobody has.
fn pick(socket: &Arc<Unix>) -> Result<Vec<u8>> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1 << 20 {
        let name = format!("{:05x}", NEXT.fetch_add(1, Relaxed) & 0xfffff).into_bytes();
        match enter(&Key::Abstract(name.clone()), socket) {
            Err(Errno::EADDRINUSE) => {}
            other => return other.map(|()| name),
        }
    }
    Err(Errno::ENOSPC)
}

/// The name's socket is gone.
pub fn release(name: &Name) {
    let mut names = NAMES.lock();
    if names.get(&name.key).is_some_and(|s| s.ptr_eq(&name.socket)) {
        names.remove(&name.key);
    }
}

/// The socket that the address names, for one who wants to send there.
pub fn find(to: &Target) -> Result<Arc<Unix>> {
    let key = match &to.address {
        Address::Path(path) => {
            let place = to.walker.resolve(&to.walker.start(path), path, true)?;
            place.inode().permission(&to.walker.cred, want::WRITE)?;
            if place.inode().kind() != Kind::Socket {
                return Err(Errno::ECONNREFUSED);
            }
            Key::File(place.inode().id())
        }
        Address::Abstract(name) => Key::Abstract(name.clone()),
        _ => return Err(Errno::EINVAL),
    };
    let found = NAMES.lock().get(&key).and_then(Weak::upgrade);
    found.ok_or(Errno::ECONNREFUSED)
}
