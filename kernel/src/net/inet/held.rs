//! TCP ports that are held though nobody is bound to them: by connections that a listener accepted, and, for a while, by those that have
//! ended.
//!
//! ```text
//!   accepted ─────────► living += 1 ──── closed first ────► until = now + a minute     (TIME-WAIT, RFC 9293)
//!                                   └─── closed second, or broken off ──► nothing stays
//! ```
//!
//! Who ends a connection first keeps its address for a minute, so that nothing late of the old connection can be taken for the new
//! one's. Inside the machine nothing is ever late; but programs see the rule (a server that is started again without SO_REUSEADDR is
//! refused), and tests of them look for it. A port that `connect` chose is not held: nobody asks for such a port by its number.
//!
//! Connections of one port with the same address and options are one record, so that accepting costs the same however many there are.
//!
//! Lock: the table's, taken last.

use super::ports::meets;
use crate::{clock, errno::Result, mem::TryPush};
use alloc::{collections::BTreeMap, vec::Vec};
use core::net::{IpAddr, SocketAddr};
use hafez_mm::lock::{LazyLock, Mutex};

/// How long who closed first keeps the address, in ns.
const REST: u64 = 60 * clock::SECOND;
/// The most records that rest; further ones are let go at once, as Linux does above `net.ipv4.tcp_max_tw_buckets`.
const MOST_RESTING: usize = 4096;

/// A port whose sockets can be used together: SO_REUSEADDR, SO_REUSEPORT.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sharing {
    pub reuse: bool,
    pub share: bool,
}

struct Record {
    ip: IpAddr,
    sharing: Sharing,
    living: u32,
    /// Until when (ns, monotonic) those that have ended hold it; 0: none does.
    until: u64,
}

#[derive(Default)]
struct Table {
    by_port: BTreeMap<u16, Vec<Record>>,
    /// Records that have a time.
    resting: usize,
}

static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);

impl Table {
    fn record(&mut self, at: SocketAddr, sharing: Sharing) -> Result<&mut Record> {
        let records = self.by_port.entry(at.port()).or_default();
        let place = match records.iter().position(|r| r.ip == at.ip() && r.sharing == sharing) {
            Some(place) => place,
            None => {
                records.try_push(Record { ip: at.ip(), sharing, living: 0, until: 0 })?;
                records.len() - 1
            }
        };
        Ok(&mut records[place])
    }

    /// Forget what holds nothing any more.
    fn purge(&mut self, port: u16, now: u64) {
        let Some(records) = self.by_port.get_mut(&port) else { return };
        for record in records.iter_mut().filter(|r| r.until != 0 && r.until <= now) {
            record.until = 0;
            self.resting -= 1;
        }
        records.retain(|r| r.living > 0 || r.until != 0);
        if records.is_empty() {
            self.by_port.remove(&port);
        }
    }

    fn rest(&mut self, at: SocketAddr, sharing: Sharing) {
        let now = clock::monotonic();
        if self.resting >= MOST_RESTING {
            let ports: Vec<u16> = self.by_port.keys().copied().collect();
            ports.into_iter().for_each(|port| self.purge(port, now));
        }
        let full = self.resting >= MOST_RESTING;
        let Ok(record) = self.record(at, sharing) else { return };
        let new = record.until == 0;
        if !(new && full) {
            record.until = now + REST;
            self.resting += new as usize;
        }
        self.purge(at.port(), now);
    }
}

/// One connection's hold on its port. Dropped, it is gone; [`Hold::rest`] keeps it for a while.
pub struct Hold {
    at: SocketAddr,
    sharing: Sharing,
}

impl Hold {
    /// `None` where there is no room to note it.
    pub fn new(at: SocketAddr, sharing: Sharing) -> Option<Hold> {
        TABLE.lock().record(at, sharing).ok()?.living += 1;
        Some(Hold { at, sharing })
    }
    pub fn rest(self) {
        TABLE.lock().rest(self.at, self.sharing);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut table = TABLE.lock();
        if let Ok(record) = table.record(self.at, self.sharing) {
            record.living = record.living.saturating_sub(1);
        }
        table.purge(self.at.port(), clock::monotonic());
    }
}

/// Keep an address for a while that a socket was bound to which ended its connection.
pub fn rest(at: SocketAddr, sharing: Sharing) {
    TABLE.lock().rest(at, sharing);
}

/// Whether somebody who wants this address has to wait. `dual`: an IPv6 "any" that takes IPv4 too.
pub fn blocks(at: SocketAddr, dual: bool, wish: Sharing) -> bool {
    let mut table = TABLE.lock();
    if table.by_port.is_empty() {
        return false;
    }
    table.purge(at.port(), clock::monotonic());
    let Some(records) = table.by_port.get(&at.port()) else { return false };
    records.iter().any(|r| {
        let together = r.sharing.reuse && wish.reuse || r.sharing.share && wish.share;
        !together && meets((r.ip, false), (at.ip(), dual))
    })
}
