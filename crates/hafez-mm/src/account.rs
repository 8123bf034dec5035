//! Who pays: every frame and every slot is charged to one account, and each process has one.
//!
//! Account 0 is the kernel's. Charges outlive their process: a page that a child still shares, or a file page that
//! stays cached, keeps the number of the process that brought it in. So a closed account is reused only when its last
//! charge has gone, and the sums always equal the machine's (invariant I6).
//!
//! The peak is exact though no fault pays for it: it is brought up to date before anything decreases, and when asked.
//!
//! Threads of one process on several CPUs are charged to one account. So each CPU keeps what its faults have changed of the
//! account that they were last charged to on a line of its own, and hands it over when it turns to another account, or when it has
//! become much (`MUCH`). A sum is what the account says and what all CPUs keep for it; a part of it may be less than nothing.

use crate::MAX_CPUS;
use crate::lock::{Mutex, Once};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::*};

/// The number of an account.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct AccountId(pub u16);

impl AccountId {
    /// The kernel's own.
    pub const KERNEL: AccountId = AccountId(0);
}

/// What is charged: each is counted apart, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Charge {
    /// Anonymous and shared pages in RAM, which swap can take.
    Resident,
    /// File pages in RAM, cached or mapped.
    File,
    /// Nodes of page tables.
    Table,
    /// Slots of swap.
    Slot,
}

/// One process's sums, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountStat {
    /// Anonymous and shared pages in RAM.
    pub resident: u64,
    /// File pages in RAM.
    pub file: u64,
    /// Slots of swap held.
    pub swapped: u64,
    /// Frames of page tables.
    pub tables: u64,
    /// The most that resident + file were at any time.
    pub peak: u64,
    /// Faults that needed no I/O.
    pub minor: u64,
    /// Faults that had a page read.
    pub major: u64,
}

/// A cache line: two processes on two CPUs have none in common.
#[repr(align(64))]
struct Account {
    sums: [AtomicU32; 4],
    peak: AtomicU32,
    minor: AtomicU32,
    major: AtomicU32,
    /// Pages' worth of the kernel's things that are there for it, when it was last asked.
    things: AtomicU32,
    open: AtomicBool,
    /// Nobody runs on it any more, though others still look at its space: nobody is there to go.
    left: AtomicBool,
}

/// What a CPU's faults have changed, and is not in the account yet. Only that CPU writes it.
#[repr(align(64))]
struct Line {
    /// Which; [`NOBODY`] while it keeps nothing.
    account: AtomicU32,
    /// Pages in RAM more, modulo 2^32.
    resident: AtomicU32,
    /// Faults that needed no I/O: of the account, and since boot.
    minor: AtomicU32,
    faults: AtomicU64,
}

const NOBODY: u32 = u32::MAX;

/// So many pages are handed over: what a peak may miss for each CPU but the one that looks.
const MUCH: u32 = 512;

const CHUNK: usize = 64;
const CHUNKS: usize = 256;

/// Where the next number is looked for, if not even that of the account closed last is free: in turn among those below `end`. When
/// none of these is free there are half as many more, so that however many are in use few are looked at for each that is found.
struct Search {
    next: usize,
    end: usize,
}

/// All accounts; 64 at a time come from the heap.
pub struct Accounts {
    chunks: Box<[Once<Box<[Account; CHUNK]>>]>,
    /// One search for a free number at a time.
    opening: Mutex<Search>,
    /// The account that was closed last, until another is opened; else 0.
    closed: AtomicU32,
    /// Numbers from here on have never been used.
    unused: AtomicU32,
    lines: [Line; MAX_CPUS],
    /// CPUs from this one on have charged nothing.
    end: AtomicU32,
}

impl Accounts {
    pub fn new() -> Self {
        let accounts = Accounts {
            chunks: (0..CHUNKS).map(|_| Once::new()).collect(),
            opening: Mutex::new(Search { next: 1, end: 8 }),
            closed: AtomicU32::new(0),
            unused: AtomicU32::new(1),
            lines: [const { Line::new() }; MAX_CPUS],
            end: AtomicU32::new(0),
        };
        accounts.chunk(0)[0].open.store(true, Relaxed);
        accounts
    }

    #[cold]
    fn chunk(&self, n: usize) -> &[Account; CHUNK] {
        self.chunks[n].call_once(|| Box::new([const { Account::new() }; CHUNK]))
    }

    #[inline]
    fn get(&self, id: AccountId) -> &Account {
        let n = id.0 as usize;
        match self.chunks[n / CHUNK].get() {
            Some(chunk) => &chunk[n % CHUNK],
            None => &self.chunk(n / CHUNK)[n % CHUNK],
        }
    }

    /// A number that nothing is charged to.
    pub fn open(&self) -> Option<AccountId> {
        let mut search = self.opening.lock();
        let closed = AccountId(self.closed.swap(0, AcqRel) as u16);
        let id = match closed != AccountId::KERNEL && self.is_free(closed) {
            true => closed,
            false => self.search(&mut search)?,
        };
        let account = self.get(id);
        for count in [&account.peak, &account.major, &account.things] {
            count.store(0, Relaxed);
        }
        // What a CPU still keeps of its last life is taken off.
        account.minor.store(0u32.wrapping_sub(self.kept(id).1), Relaxed);
        account.left.store(false, Relaxed);
        account.open.store(true, Release);
        self.unused.fetch_max(id.0 as u32 + 1, AcqRel);
        Some(id)
    }

    fn search(&self, search: &mut Search) -> Option<AccountId> {
        if let Some(id) = (1..search.end).find_map(|_| self.try_next(search)) {
            return Some(id);
        }
        let (end, more) = (search.end, (search.end / 2).min(CHUNK * CHUNKS - search.end));
        if more > 0 {
            *search = Search { next: end, end: end + more };
        }
        (0..more).find_map(|_| self.try_next(search))
    }

    /// The number whose turn it is, if it is free.
    #[inline]
    fn try_next(&self, search: &mut Search) -> Option<AccountId> {
        let id = AccountId(search.next as u16);
        search.next = if search.next + 1 < search.end { search.next + 1 } else { 1 };
        self.is_free(id).then_some(id)
    }

    fn is_free(&self, id: AccountId) -> bool {
        !self.get(id).open.load(Acquire) && self.pays_nothing(id)
    }

    /// The process is gone; what is still charged to it stays so.
    pub fn close(&self, id: AccountId) {
        self.get(id).open.store(false, Release);
        self.closed.store(id.0 as u32, Release);
    }

    /// Its process has gone, or is not there yet: it is not to go when memory has run out.
    pub fn leave(&self, id: AccountId) {
        self.get(id).left.store(true, Release);
    }
    /// A task runs on it.
    pub fn join(&self, id: AccountId) {
        let left = &self.get(id).left;
        if left.load(Acquire) {
            left.store(false, Release);
        }
    }
    /// Whether its process may be told to go.
    pub fn can_go(&self, id: AccountId) -> bool {
        !self.get(id).left.load(Acquire)
    }

    #[inline]
    pub fn charge(&self, id: AccountId, what: Charge, pages: u32) {
        self.get(id).sums[what as usize].fetch_add(pages, Relaxed);
    }

    /// This CPU's line, with what it keeps for the account.
    #[inline(always)]
    fn line(&self, cpu: usize, id: AccountId) -> &Line {
        let line = &self.lines[cpu % MAX_CPUS];
        if line.account.load(Relaxed) != id.0 as u32 {
            self.hand_over(cpu, id);
        }
        line
    }

    /// What this CPU keeps goes to its account; from here on it keeps what is charged to this one.
    #[cold]
    fn hand_over(&self, cpu: usize, next: AccountId) {
        self.end.fetch_max(cpu as u32 + 1, AcqRel);
        let line = &self.lines[cpu % MAX_CPUS];
        let before = line.account.load(Relaxed);
        if before != NOBODY {
            let account = self.get(AccountId(before as u16));
            account.sums[Charge::Resident as usize].fetch_add(line.resident.load(Relaxed), Relaxed);
            line.resident.store(0, Release);
            account.minor.fetch_add(line.minor.load(Relaxed), Relaxed);
            line.minor.store(0, Release);
        }
        line.account.store(next.0 as u32, Release);
        self.note_peak(next);
    }

    /// What all CPUs keep for an account: pages in RAM, and faults.
    fn kept(&self, id: AccountId) -> (u32, u32) {
        let lines = self.lines[..self.end.load(Acquire) as usize].iter();
        let own = lines.filter(|line| line.account.load(Acquire) == id.0 as u32);
        own.fold((0, 0), |(pages, faults): (u32, u32), line| {
            let add = |sum: u32, more: &AtomicU32| sum.wrapping_add(more.load(Relaxed));
            (add(pages, &line.resident), add(faults, &line.minor))
        })
    }

    /// One of its sums.
    fn sum(&self, id: AccountId, what: Charge) -> u32 {
        let sum = self.get(id).sums[what as usize].load(Acquire);
        if what == Charge::Resident { sum.wrapping_add(self.kept(id).0) } else { sum }
    }

    fn pays_nothing(&self, id: AccountId) -> bool {
        [Charge::Resident, Charge::File, Charge::Table, Charge::Slot]
            .iter()
            .all(|&what| self.sum(id, what) == 0)
    }

    /// As [`Accounts::charge`] of a page in RAM, by a fault on this CPU.
    #[inline]
    pub fn charge_page(&self, cpu: usize, id: AccountId) {
        let line = self.line(cpu, id);
        let pages = line.resident.load(Relaxed).wrapping_add(1);
        line.resident.store(pages, Relaxed);
        if pages == MUCH {
            self.hand_over(cpu, id);
        }
    }

    /// As [`Accounts::uncharge`] of pages in RAM, by somebody on this CPU.
    #[inline]
    pub fn uncharge_pages(&self, cpu: usize, id: AccountId, pages: u32) {
        let line = &self.lines[cpu % MAX_CPUS];
        if line.account.load(Relaxed) != id.0 as u32 {
            return self.uncharge(id, Charge::Resident, pages);
        }
        let account = self.get(id);
        let kept = line.resident.load(Relaxed);
        account.note_peak(kept);
        let left = kept.wrapping_sub(pages);
        line.resident.store(left, Relaxed);
        if (left as i32) < -(MUCH as i32) {
            self.hand_over(cpu, id);
        }
    }

    /// A fault that needed no I/O, on this CPU.
    #[inline]
    pub fn count_minor(&self, cpu: usize, id: AccountId) {
        let line = self.line(cpu, id);
        line.minor.store(line.minor.load(Relaxed).wrapping_add(1), Relaxed);
        line.faults.store(line.faults.load(Relaxed) + 1, Relaxed);
    }
    /// A fault that had a page read.
    pub fn count_major(&self, id: AccountId) {
        self.get(id).major.fetch_add(1, Relaxed);
    }
    /// All that [`Accounts::count_minor`] has counted.
    pub fn minor_faults(&self) -> u64 {
        self.lines.iter().map(|line| line.faults.load(Relaxed)).sum()
    }

    /// So much of what the kernel holds is there for this process.
    pub fn note_things(&self, id: AccountId, pages: u64) {
        self.get(id).things.store(pages.min(u32::MAX as u64) as u32, Relaxed);
    }
    /// What was last noted.
    pub fn things(&self, id: AccountId) -> u64 {
        self.get(id).things.load(Relaxed) as u64
    }

    #[inline]
    pub fn uncharge(&self, id: AccountId, what: Charge, pages: u32) {
        if matches!(what, Charge::Resident | Charge::File) {
            self.note_peak(id);
        }
        let before = self.get(id).sums[what as usize].fetch_sub(pages, Relaxed);
        // Of pages in RAM a CPU may keep some.
        debug_assert!(
            before >= pages || what == Charge::Resident,
            "uncharged {what:?} more than was charged"
        );
    }

    fn note_peak(&self, id: AccountId) {
        self.get(id).note_peak(self.kept(id).0);
    }

    /// All accounts' numbers are below this.
    pub fn end(&self) -> usize {
        self.unused.load(Acquire) as usize
    }

    /// The sums of one account.
    pub fn stat(&self, id: AccountId) -> AccountStat {
        let account = self.get(id);
        self.note_peak(id);
        // Who looks between two steps of others may see less than nothing.
        let sum = |c: Charge| (self.sum(id, c) as i32).max(0) as u64;
        AccountStat {
            resident: sum(Charge::Resident),
            file: sum(Charge::File),
            swapped: sum(Charge::Slot),
            tables: sum(Charge::Table),
            peak: account.peak.load(Relaxed) as u64,
            minor: account.minor.load(Relaxed).wrapping_add(self.kept(id).1) as u64,
            major: account.major.load(Relaxed) as u64,
        }
    }

    /// The peak of the account is what it holds now.
    pub fn reset_peak(&self, id: AccountId) {
        self.get(id).peak.store(0, Relaxed);
        self.note_peak(id);
    }

    /// Pages in RAM and slots that processes hold.
    pub fn held(&self) -> u64 {
        let used = self.unused.load(Acquire) as usize;
        let chunks = self.chunks.iter().map_while(Once::get);
        let accounts = chunks.flat_map(|chunk| chunk.iter()).take(used).skip(1);
        let held = |account: &Account, what: Charge| account.sums[what as usize].load(Relaxed) as i32 as i64;
        let kept = |line: &Line| match line.account.load(Acquire) {
            0 | NOBODY => 0,
            _ => line.resident.load(Relaxed) as i32 as i64,
        };
        let sum: i64 = accounts.map(|a| held(a, Charge::Resident) + held(a, Charge::Slot)).sum();
        (sum + self.lines.iter().map(kept).sum::<i64>()).max(0) as u64
    }

    /// Each account that is open or still pays for something.
    pub fn for_each(&self, mut f: impl FnMut(AccountId, bool, AccountStat)) {
        for (c, chunk) in self.chunks.iter().enumerate() {
            let Some(chunk) = chunk.get() else { continue };
            let used = (self.unused.load(Acquire) as usize).saturating_sub(c * CHUNK);
            for (i, account) in chunk.iter().enumerate().take(used) {
                let id = AccountId((c * CHUNK + i) as u16);
                let open = account.open.load(Acquire);
                if open || !self.pays_nothing(id) {
                    f(id, open, self.stat(id));
                }
            }
        }
    }
}

impl Line {
    const fn new() -> Self {
        Line {
            account: AtomicU32::new(NOBODY),
            resident: AtomicU32::new(0),
            minor: AtomicU32::new(0),
            faults: AtomicU64::new(0),
        }
    }
}

impl Account {
    const fn new() -> Self {
        Account {
            sums: [const { AtomicU32::new(0) }; 4],
            peak: AtomicU32::new(0),
            minor: AtomicU32::new(0),
            major: AtomicU32::new(0),
            things: AtomicU32::new(0),
            open: AtomicBool::new(false),
            left: AtomicBool::new(false),
        }
    }

    /// `kept`: pages in RAM that are not in its sum yet.
    #[inline]
    fn note_peak(&self, kept: u32) {
        let sum = |what: Charge| self.sums[what as usize].load(Relaxed);
        let now = sum(Charge::Resident).wrapping_add(kept).wrapping_add(sum(Charge::File));
        // Who looks between two steps of others may see less than nothing.
        if now > self.peak.load(Relaxed) && now as i32 > 0 {
            self.peak.store(now, Relaxed);
        }
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    /// A number is given out again when its account is closed and nothing is charged to it, however many there are; and not before.
    #[test]
    fn a_number_is_one_account_s_at_a_time() {
        let accounts = Accounts::new();
        let mut open: BTreeSet<u16> = core::iter::from_fn(|| accounts.open()).map(|id| id.0).collect();
        assert_eq!(open.len(), CHUNK * CHUNKS - 1);
        assert!(!open.contains(&AccountId::KERNEL.0));
        let closed: BTreeSet<u16> = open.iter().copied().filter(|n| n % 7 == 3).collect();
        for &n in &closed {
            accounts.charge(AccountId(n), Charge::File, (n % 2) as u32);
            accounts.close(AccountId(n));
            open.remove(&n);
        }
        let again: BTreeSet<u16> = core::iter::from_fn(|| accounts.open()).map(|id| id.0).collect();
        assert_eq!(again, closed.iter().copied().filter(|n| n % 2 == 0).collect());
        let owing = *closed.iter().find(|n| *n % 2 == 1).unwrap();
        accounts.uncharge(AccountId(owing), Charge::File, 1);
        assert_eq!(accounts.open(), Some(AccountId(owing)));
        assert_eq!(accounts.open(), None);
    }
}
