//! Files on their way from one socket to another (SCM_RIGHTS), and rings of them that nobody can reach any more.
//!
//! A socket can be sent through itself, or two through each other; when the program then closes them, each waits in an inbox
//! that only the other could read. So every Unix socket in flight is counted here, and when one is closed the rings are looked for:
//!
//! ```text
//!   candidate   all who hold the file are packets: as many holders as times in flight
//!   alive       not a candidate; or a packet holds it that waits at a socket that is alive
//!   the others  their inboxes are emptied, and with that they go
//! ```
//!
//! Whoever is just taking a file out of a packet, or looking at a descriptor, is one more holder or one packet less: such a
//! socket counts as alive, and what it is part of is found the next time.
//!
//! Lock: the table's, taken alone.

use super::Unix;
use crate::{
    errno::{Errno, Result},
    fs::File,
    mem::{self, TryPush},
    net::Socket,
};
use alloc::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use hafez_mm::lock::{LazyLock, Mutex};

/// Unix sockets in flight, by their files' numbers, and how often each is.
static FLYING: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);
type Table = BTreeMap<u64, (Weak<File>, usize)>;
/// Whether there are any.
static ANY: AtomicBool = AtomicBool::new(false);
/// One looks at a time; who comes meanwhile leaves it to him.
static LOOKING: AtomicBool = AtomicBool::new(false);

fn unix(file: &File) -> Option<&Unix> {
    file.ops_as::<Socket>()?.0.as_any().downcast_ref()
}

/// Files in flight, in a packet.
#[derive(Default)]
pub struct Flight(Vec<Arc<File>>);

impl Flight {
    /// `ENOBUFS` where the table of those in flight cannot grow.
    pub fn new(files: Vec<Arc<File>>) -> Result<Flight> {
        if files.is_empty() {
            return Ok(Flight::default());
        }
        if !mem::headroom(96 * files.len()) {
            return Err(Errno::ENOBUFS);
        }
        for file in files.iter().filter(|f| unix(f).is_some()) {
            FLYING.lock().entry(file.id()).or_insert_with(|| (Arc::downgrade(file), 0)).1 += 1;
            ANY.store(true, SeqCst);
        }
        Ok(Flight(files))
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// They have arrived.
    pub fn land(&mut self) -> Vec<Arc<File>> {
        for file in self.0.iter().filter(|f| unix(f).is_some()) {
            let mut flying = FLYING.lock();
            if let Some(entry) = flying.get_mut(&file.id()) {
                entry.1 -= 1;
                if entry.1 == 0 {
                    flying.remove(&file.id());
                }
            }
            ANY.store(!flying.is_empty(), SeqCst);
        }
        core::mem::take(&mut self.0)
    }
    /// The same files once more, for one who only looks (MSG_PEEK).
    pub fn copies(&self) -> impl Iterator<Item = Arc<File>> {
        self.0.iter().cloned()
    }
    fn numbers(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|f| f.id())
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            drop(self.land());
        }
    }
}

/// One that only packets hold.
struct Candidate {
    number: u64,
    file: Weak<File>,
    /// Times in flight.
    flying: usize,
    /// Of these, in packets that wait at candidates.
    from_candidates: usize,
    alive: bool,
}

/// A socket is about to be made: where many are in flight, those that nobody can reach make room. A ring is closed without any
/// socket hearing of it, so to look only where one closes is not enough.
pub fn make_room() {
    static NEXT: AtomicUsize = AtomicUsize::new(FEW);
    const FEW: usize = 64;
    if ANY.load(SeqCst) && FLYING.lock().len() >= NEXT.load(SeqCst) {
        collect();
        NEXT.store((2 * FLYING.lock().len()).max(FEW), SeqCst);
    }
}

/// Look for rings, and let them go. Not with any lock held.
pub fn collect() {
    if !ANY.load(SeqCst) || LOOKING.swap(true, SeqCst) {
        return;
    }
    // Where there is no room to look, the next one tries.
    let _ = look();
    LOOKING.store(false, SeqCst);
}

fn look() -> Result<()> {
    let mut all: Vec<Candidate> = Vec::new();
    {
        let flying = FLYING.lock();
        for (number, (file, count)) in flying.iter().filter(|(_, (file, n))| file.strong_count() == *n) {
            all.try_push(Candidate {
                number: *number,
                file: file.clone(),
                flying: *count,
                from_candidates: 0,
                alive: false,
            })?;
        }
    }
    // What waits at each of them.
    let mut waiting: Vec<Vec<u64>> = Vec::new();
    for candidate in &all {
        waiting.try_push(waiting_at(&candidate.file)?)?;
    }
    for number in waiting.iter().flatten() {
        if let Some(candidate) = all.iter_mut().find(|c| c.number == *number) {
            candidate.from_candidates += 1;
        }
    }
    for candidate in &mut all {
        candidate.alive = candidate.from_candidates != candidate.flying;
    }
    // Whatever waits at one that is alive can still be received.
    while let Some(at) = (0..all.len()).find(|&at| {
        let reached = |n: &u64| all.iter().any(|c| c.number == *n && !c.alive);
        all[at].alive && waiting[at].iter().any(reached)
    }) {
        for candidate in all.iter_mut().filter(|c| waiting[at].contains(&c.number)) {
            candidate.alive = true;
        }
    }
    for candidate in all.iter().filter(|c| !c.alive) {
        if let Some(file) = candidate.file.upgrade()
            && let Some(socket) = unix(&file)
        {
            socket.forget_all();
        }
    }
    Ok(())
}

/// The files in packets that wait at a socket, or at those that wait for it to accept them.
fn waiting_at(file: &Weak<File>) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    let mut room = true;
    if let Some(file) = file.upgrade()
        && let Some(socket) = unix(&file)
    {
        socket.each_flight(&mut |flight: &Flight| {
            room &= flight.numbers().all(|number| found.try_push(number).is_ok());
        });
    }
    if room { Ok(found) } else { Err(Errno::ENOBUFS) }
}
