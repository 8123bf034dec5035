//! The host's files: a 9P2000.L client.
//!
//! ```text
//!   inode   each call on a file: lookup, attributes, directories      implements fs::Inode
//!   known   what is known of a file, and how long it is believed
//!   handle  a file's contents: open fids, filling and writing pages   implements hafez_mm::Pager
//!   table   one inode for each file of the server, and the recent ones kept
//!   client  each call of the protocol                                  wire: its messages
//!     └───► drivers::p9, the transport
//! ```
//!
//! *Identity.* The server names a file by `qid.path`. There is one [`known::P9Inode`] for it, and one memory object, so a
//! file that several programs map is in RAM once.
//!
//! *What is cached, and when it is looked at again.* Every call leaves the machine, so answers are kept: names for
//! [`known::TRUST`] (by the directory cache above), attributes as long, contents for as long as memory lasts. The host
//! may change files at any time; opening a file asks anew, and drops cached pages if size or modification time differ. That is
//! "close to open" consistency, as NFS has it: who opens after the change sees it.
//!
//! *Writing.* Pages are written back when memory is short, at `fsync`, when the last writer closes, and at the end of the run
//! ([`sync_all`]). While a file has changes of ours, our size and times count, not the server's.

pub mod client;
mod handle;
mod inode;
pub mod known;
mod specials;
mod table;
mod wire;

use super::inode::Inode;
use crate::drivers;
use crate::errno::{Errno, Result};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use client::{Client, Fid};
use hafez_mm::lock::Mutex;
use known::P9Inode;
use specials::Specials;
use table::Table;
use wire::Qid;

/// A mounted share: the server, and the files of it that we know.
pub struct Share {
    client: Client,
    table: Table,
    specials: Specials,
}

static SHARES: Mutex<Vec<&'static Share>> = Mutex::new(Vec::new());

/// Mount the share with this tag; its files are of device `dev`. The root directory.
pub fn mount(tag: &[u8], dev: u64) -> Result<Arc<dyn Inode>> {
    let channel = drivers::share(tag).ok_or(Errno::ENODEV)?;
    let (client, root, qid) = Client::connect(channel, dev)?;
    if qid.kind & Qid::DIR == 0 {
        return Err(Errno::ENOTDIR);
    }
    let share: &'static Share =
        Box::leak(Box::new(Share { client, table: Table::new(), specials: Specials::default() }));
    SHARES.lock().push(share);
    let fid = Fid::from_raw(&share.client, root);
    Ok(P9Inode::of(share, fid, qid)?)
}

/// Write everything back to the host; the first error, if any.
pub fn sync_all() -> Result<()> {
    let shares = SHARES.lock().clone();
    let mut result = Ok(());
    for share in shares {
        let mut from = 0;
        while let Some((next, inode)) = share.table.next(from) {
            result = result.and(inode.write_back());
            from = next;
        }
    }
    result
}
