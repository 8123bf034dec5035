//! Ports: who is bound to which, and who gets what arrives there.
//!
//! One table a protocol, by port. A socket is in it from `bind` (its own, or that which `connect` and `listen` make) until
//! it closes; connections that were accepted use their listener's port and are not in it: what they hold is in [`held`].

use super::super::{Common, Protocol, abi, options};
use super::held::{self, Sharing};
use crate::mem::TryPush;
use crate::{
    errno::{Errno, Result},
    random,
};
use alloc::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::net::{IpAddr, SocketAddr};
use hafez_mm::lock::{LazyLock, Mutex, Once};

/// Ports that are given to who names none (`net.ipv4.ip_local_port_range`).
const EPHEMERAL: core::ops::RangeInclusive<u16> = 32768..=60999;
/// Below, only root may bind.
const UNPRIVILEGED: u16 = 1024;

struct Entry {
    /// The socket's number.
    id: u64,
    ip: IpAddr,
    /// IPv6 "any" that takes IPv4 too.
    dual: bool,
    reuse: bool,
    share: bool,
    listening: bool,
    /// Only what comes from there (a connected UDP socket).
    peer: Option<SocketAddr>,
    socket: Weak<dyn Protocol>,
}

/// The bound sockets of one protocol.
pub struct Ports {
    by_port: LazyLock<Mutex<BTreeMap<u16, Vec<Entry>>>>,
    /// Two sockets that both have SO_REUSEADDR can share a port even if both hear (UDP).
    lenient: bool,
}

pub static TCP: Ports = Ports { by_port: LazyLock::new(Mutex::default), lenient: false };
pub static UDP: Ports = Ports { by_port: LazyLock::new(Mutex::default), lenient: true };
pub static UDPLITE: Ports = Ports { by_port: LazyLock::new(Mutex::default), lenient: true };

/// A number from two addresses that nobody outside the kernel can foretell.
fn scatter(to: SocketAddr, from: Option<SocketAddr>) -> u64 {
    static KEY: Once<u64> = Once::new();
    let word = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => u32::from(v4) as u64,
        IpAddr::V6(v6) => u128::from(v6) as u64 ^ (u128::from(v6) >> 64) as u64,
    };
    let ends = [Some(to), from].into_iter().flatten();
    let words = ends.flat_map(|end| [word(end.ip()), end.port() as u64]);
    // The steps of a well-known mixer (SplitMix64), a word at a time.
    words.fold(*KEY.call_once(random::u64), |sum, word| {
        let x = (sum ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    })
}

/// Whether two addresses, each with whether it is an IPv6 "any" that takes IPv4 too, hear an address both.
pub fn meets(one: (IpAddr, bool), other: (IpAddr, bool)) -> bool {
    if one.0.is_ipv4() == other.0.is_ipv4() {
        return one.0 == other.0 || one.0.is_unspecified() || other.0.is_unspecified();
    }
    let (six, four) = if one.0.is_ipv6() { (one, other) } else { (other, one) };
    six.1 && (six.0.is_unspecified() || four.0.is_unspecified())
}

impl Entry {
    fn new(common: &Common, ip: IpAddr, socket: Weak<dyn Protocol>) -> Entry {
        let dual = common.domain == abi::AF_INET6 && !common.has(options::V6ONLY) && ip.is_unspecified();
        let (reuse, share) = (common.has(abi::SO_REUSEADDR), common.has(abi::SO_REUSEPORT));
        Entry { id: common.number, ip, dual, reuse, share, listening: false, peer: None, socket }
    }

    /// Whether both hear an address.
    fn meets(&self, other: &Entry) -> bool {
        meets((self.ip, self.dual), (other.ip, other.dual))
    }

    fn excludes(&self, new: &Entry, lenient: bool) -> bool {
        let shared = self.share && new.share;
        let reused = self.reuse && new.reuse && (lenient || !self.listening);
        self.meets(new) && !shared && !reused
    }

    /// How well it fits what comes from `from` for `ip`; `None`: not at all.
    fn fits(&self, ip: IpAddr, from: Option<SocketAddr>) -> Option<u32> {
        // IPv4 goes to who asked for that before it goes to one that takes both.
        let same = u32::from(self.ip.is_ipv4() == ip.is_ipv4());
        let address = if self.ip == ip {
            4
        } else if self.ip.is_unspecified() && (self.ip.is_ipv4() == ip.is_ipv4() || self.dual && ip.is_ipv4())
        {
            2
        } else {
            return None;
        } + same;
        match self.peer {
            None => Some(address),
            Some(peer) if from == Some(peer) => Some(address + 8),
            Some(_) => None,
        }
    }
}

impl Ports {
    /// Bind to a port, or to any free one if it is 0; the port.
    pub fn bind(
        &self,
        common: &Common,
        at: SocketAddr,
        socket: Weak<dyn Protocol>,
        root: bool,
    ) -> Result<u16> {
        let new = Entry::new(common, at.ip(), socket);
        if at.port() != 0 {
            if at.port() < UNPRIVILEGED && !root {
                return Err(Errno::EACCES);
            }
            return self.enter(at.port(), new).map(|()| at.port()).map_err(|_| Errno::EADDRINUSE);
        }
        let count = EPHEMERAL.len() as u64;
        let first = random::u64() % count;
        let mut new = new;
        // A port of one's own: sharing is for those who ask for a certain one.
        let wishes = (new.reuse, new.share);
        (new.reuse, new.share) = (false, false);
        for i in 0..count {
            let port = EPHEMERAL.start() + ((first + i) % count) as u16;
            match self.enter(port, new) {
                Ok(()) => {
                    self.change(port, common.number, |e| (e.reuse, e.share) = wishes);
                    return Ok(port);
                }
                Err(back) => new = back,
            }
        }
        Err(Errno::EADDRINUSE)
    }

    fn enter(&self, port: u16, new: Entry) -> core::result::Result<(), Entry> {
        let mut ports = self.by_port.lock();
        let entries = ports.entry(port).or_default();
        entries.retain(|e| e.socket.strong_count() > 0);
        let wish = Sharing { reuse: new.reuse, share: new.share };
        let held = || !self.lenient && held::blocks(SocketAddr::new(new.ip, port), new.dual, wish);
        if entries.iter().any(|e| e.excludes(&new, self.lenient)) || held() {
            return Err(new);
        }
        entries.push(new);
        Ok(())
    }

    /// The socket's options have changed.
    pub fn refresh(&self, port: u16, common: &Common) {
        let (reuse, share) = (common.has(abi::SO_REUSEADDR), common.has(abi::SO_REUSEPORT));
        self.change(port, common.number, |e| (e.reuse, e.share) = (reuse, share));
    }

    fn change(&self, port: u16, id: u64, change: impl Fn(&mut Entry)) {
        if let Some(entries) = self.by_port.lock().get_mut(&port) {
            entries.iter_mut().filter(|e| e.id == id).for_each(change);
        }
    }

    /// The socket listens: `EADDRINUSE` if another does that it may not share with.
    pub fn listen(&self, port: u16, id: u64) -> Result<()> {
        let mut ports = self.by_port.lock();
        let entries = ports.get_mut(&port).ok_or(Errno::EINVAL)?;
        let at = entries.iter().position(|e| e.id == id).ok_or(Errno::EINVAL)?;
        let clash =
            |e: &Entry| e.id != id && e.listening && e.meets(&entries[at]) && !(e.share && entries[at].share);
        if entries.iter().any(clash) {
            return Err(Errno::EADDRINUSE);
        }
        entries[at].listening = true;
        Ok(())
    }

    /// The socket hears only this peer, or everybody again; and is bound to this address.
    pub fn set_peer(&self, port: u16, id: u64, ip: IpAddr, peer: Option<SocketAddr>) {
        self.change(port, id, |e| (e.ip, e.peer) = (ip, peer));
    }

    /// The socket is gone.
    pub fn release(&self, port: u16, id: u64) {
        let mut ports = self.by_port.lock();
        if let Some(entries) = ports.get_mut(&port) {
            entries.retain(|e| e.id != id);
            if entries.is_empty() {
                ports.remove(&port);
            }
        }
    }

    /// Whether anybody is bound to the port.
    pub fn in_use(&self, port: u16) -> bool {
        self.by_port.lock().contains_key(&port)
    }

    /// All that are bound to the port: who hears what many hear. Where there is no room for them all, as many as there is.
    pub fn all(&self, port: u16) -> Vec<Arc<dyn Protocol>> {
        let mut found = Vec::new();
        let ports = self.by_port.lock();
        for entry in ports.get(&port).into_iter().flatten() {
            if let Some(socket) = entry.socket.upgrade()
                && found.try_push(socket).is_err()
            {
                break;
            }
        }
        found
    }

    /// Who gets what comes from `from` for `to`. Of several that share the port (SO_REUSEPORT) the two addresses decide, so that
    /// one who speaks is always heard by the same; of others the last to come.
    pub fn find(
        &self,
        to: SocketAddr,
        from: Option<SocketAddr>,
        listening: bool,
    ) -> Option<Arc<dyn Protocol>> {
        let ports = self.by_port.lock();
        let entries = ports.get(&to.port())?;
        let fitting = || {
            let candidates = entries.iter().filter(|e| !listening || e.listening);
            candidates.filter_map(|e| Some((e.fits(to.ip(), from)?, e)))
        };
        let best = fitting().map(|(score, _)| score).max()?;
        let equal = || fitting().filter(|(score, _)| *score == best).map(|(_, entry)| entry);
        let count = equal().count();
        let pick = match count {
            0 | 1 => 0,
            _ if equal().all(|e| e.share) => scatter(to, from) as usize % count,
            _ => count - 1,
        };
        equal().nth(pick)?.socket.upgrade()
    }
}
