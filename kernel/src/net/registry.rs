//! All sockets there are, by number: for who lists them (`/proc/net`).
//!
//! A socket enters when it is made and leaves when it is dropped. Who goes through them holds no lock between one and the
//! next, nor a list of them all: sockets that come and go meanwhile may be seen or not.

use super::Protocol;
use alloc::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};
use hafez_mm::lock::{LazyLock, Mutex};

static ALL: LazyLock<Mutex<BTreeMap<u64, Weak<dyn Protocol>>>> = LazyLock::new(Mutex::default);

/// A new socket.
pub fn enter<P: Protocol + 'static>(socket: &Arc<P>) {
    let weak: Weak<P> = Arc::downgrade(socket);
    ALL.lock().insert(socket.common().number, weak);
}

/// It is gone.
pub fn leave(number: u64) {
    ALL.lock().remove(&number);
}

/// Every socket.
pub fn each() -> impl Iterator<Item = Arc<dyn Protocol>> {
    let mut last = 0;
    core::iter::from_fn(move || {
        let all = ALL.lock();
        let mut rest = all.range(last + 1..);
        let (number, socket) = rest.find_map(|(number, socket)| Some((*number, socket.upgrade()?)))?;
        last = number;
        Some(socket)
    })
}
