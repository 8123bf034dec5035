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
    sched,
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

/// How many files each user has in flight, of whatever kind.
static USERS: LazyLock<Mutex<BTreeMap<u32, usize>>> = LazyLock::new(Mutex::default);

/// Files in flight, in a packet.
#[derive(Default)]
pub struct Flight {
    files: Vec<Arc<File>>,
    /// Who sent them.
    user: u32,
}

impl Flight {
    /// `ENOBUFS` where the table of those in flight cannot grow, `ETOOMANYREFS` where the sender has more in flight than it may
    /// have open.
    pub fn new(files: Vec<Arc<File>>) -> Result<Flight> {
        if files.is_empty() {
            return Ok(Flight::default());
        }
        let sender = super::super::sender();
        {
            let mut users = USERS.lock();
            let count = users.entry(sender.uid).or_insert(0);
            if *count > sender.most {
                return Err(Errno::ETOOMANYREFS);
            }
            *count += files.len();
        }
        // From here on what is dropped is counted back.
        let flight = Flight { files, user: sender.uid };
        let room = mem::headroom(96 * flight.files.len());
        for file in flight.files.iter().filter(|f| unix(f).is_some()) {
            FLYING.lock().entry(file.id()).or_insert_with(|| (Arc::downgrade(file), 0)).1 += 1;
            ANY.store(true, SeqCst);
        }
        if room { Ok(flight) } else { Err(Errno::ENOBUFS) }
    }
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
    /// They have arrived.
    pub fn land(&mut self) -> Vec<Arc<File>> {
        if let Some(count) = USERS.lock().get_mut(&self.user) {
            *count -= self.files.len();
        }
        for file in self.files.iter().filter(|f| unix(f).is_some()) {
            let mut flying = FLYING.lock();
            if let Some(entry) = flying.get_mut(&file.id()) {
                entry.1 -= 1;
                if entry.1 == 0 {
                    flying.remove(&file.id());
                }
            }
            ANY.store(!flying.is_empty(), SeqCst);
        }
        core::mem::take(&mut self.files)
    }
    /// The same files once more, for one who only looks (MSG_PEEK).
    pub fn copies(&self) -> impl Iterator<Item = Arc<File>> {
        self.files.iter().cloned()
    }
    fn numbers(&self) -> impl Iterator<Item = u64> {
        self.files.iter().map(|f| f.id())
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.files.is_empty() {
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
    // What waits at each of them. The table is in order, and so are the candidates.
    let mut waiting: Vec<Vec<usize>> = Vec::new();
    for at in 0..all.len() {
        let numbers = waiting_at(&all[at].file)?;
        let mut places = Vec::new();
        for number in numbers {
            if let Ok(place) = all.binary_search_by_key(&number, |c| c.number) {
                all[place].from_candidates += 1;
                places.try_push(place)?;
            }
        }
        waiting.try_push(places)?;
        breathe(at);
    }
    // Whatever waits at one that is alive can still be received.
    let mut next = Vec::new();
    for (at, candidate) in all.iter_mut().enumerate() {
        candidate.alive = candidate.from_candidates != candidate.flying;
        if candidate.alive {
            next.try_push(at)?;
        }
    }
    while let Some(at) = next.pop() {
        for place in core::mem::take(&mut waiting[at]) {
            if !core::mem::replace(&mut all[place].alive, true) {
                next.try_push(place)?;
            }
        }
        breathe(at);
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

/// Now and then let others run: how many there are, a program decides.
fn breathe(at: usize) {
    if at % 256 == 255 {
        sched::yield_now();
    }
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
