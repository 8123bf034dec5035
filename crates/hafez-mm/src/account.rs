//! Who pays: every frame and every slot is charged to one account, and each process has one.
//!
//! Account 0 is the kernel's. Charges outlive their process: a page that a child still shares, or a file page that
//! stays cached, keeps the number of the process that brought it in. So a closed account is reused only when its last
//! charge has gone, and the sums always equal the machine's (invariant I6).
//!
//! The peak is exact though no fault pays for it: it is brought up to date before anything decreases, and when asked.

use crate::lock::{Mutex, Once};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::*};

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
    /// Faults that waited for a page to come in.
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
}

const CHUNK: usize = 64;
const CHUNKS: usize = 256;

/// All accounts; 64 at a time come from the heap.
pub struct Accounts {
    chunks: Box<[Once<Box<[Account; CHUNK]>>]>,
    /// One search for a free number at a time.
    opening: Mutex<()>,
    /// Numbers from here on have never been used.
    unused: AtomicU32,
}

impl Accounts {
    pub fn new() -> Self {
        let accounts = Accounts {
            chunks: (0..CHUNKS).map(|_| Once::new()).collect(),
            opening: Mutex::new(()),
            unused: AtomicU32::new(1),
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
        let _one = self.opening.lock();
        for n in 1..CHUNK * CHUNKS {
            let account = &self.chunk(n / CHUNK)[n % CHUNK];
            let free = !account.open.load(Acquire) && account.sums.iter().all(|s| s.load(Acquire) == 0);
            if free {
                for count in [&account.peak, &account.minor, &account.major, &account.things] {
                    count.store(0, Relaxed);
                }
                account.open.store(true, Release);
                self.unused.fetch_max(n as u32 + 1, AcqRel);
                return Some(AccountId(n as u16));
            }
        }
        None
    }

    /// The process is gone; what is still charged to it stays so.
    pub fn close(&self, id: AccountId) {
        self.get(id).open.store(false, Release);
    }

    #[inline]
    pub fn charge(&self, id: AccountId, what: Charge, pages: u32) {
        self.get(id).sums[what as usize].fetch_add(pages, Relaxed);
    }

    #[inline]
    pub fn count_fault(&self, id: AccountId, major: bool) {
        let account = self.get(id);
        let count = if major { &account.major } else { &account.minor };
        count.fetch_add(1, Relaxed);
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
        let account = self.get(id);
        account.note_peak();
        let before = account.sums[what as usize].fetch_sub(pages, Relaxed);
        debug_assert!(before >= pages, "uncharged {what:?} more than was charged");
    }

    /// All accounts' numbers are below this.
    pub fn end(&self) -> usize {
        self.unused.load(Acquire) as usize
    }

    /// The sums of one account.
    pub fn stat(&self, id: AccountId) -> AccountStat {
        let account = self.get(id);
        account.note_peak();
        let sum = |c: Charge| account.sums[c as usize].load(Relaxed) as u64;
        AccountStat {
            resident: sum(Charge::Resident),
            file: sum(Charge::File),
            swapped: sum(Charge::Slot),
            tables: sum(Charge::Table),
            peak: account.peak.load(Relaxed) as u64,
            minor: account.minor.load(Relaxed) as u64,
            major: account.major.load(Relaxed) as u64,
        }
    }

    /// The peak of the account is what it holds now.
    pub fn reset_peak(&self, id: AccountId) {
        let account = self.get(id);
        account.peak.store(0, Relaxed);
        account.note_peak();
    }

    /// Pages in RAM and slots that processes hold.
    pub fn held(&self) -> u64 {
        let used = self.unused.load(Acquire) as usize;
        let chunks = self.chunks.iter().map_while(Once::get);
        let accounts = chunks.flat_map(|chunk| chunk.iter()).take(used).skip(1);
        let held = |account: &Account, what: Charge| account.sums[what as usize].load(Relaxed) as u64;
        accounts.map(|a| held(a, Charge::Resident) + held(a, Charge::Slot)).sum()
    }

    /// Each account that is open or still pays for something.
    pub fn for_each(&self, mut f: impl FnMut(AccountId, bool, AccountStat)) {
        for (c, chunk) in self.chunks.iter().enumerate() {
            let Some(chunk) = chunk.get() else { continue };
            let used = (self.unused.load(Acquire) as usize).saturating_sub(c * CHUNK);
            for (i, account) in chunk.iter().enumerate().take(used) {
                let id = AccountId((c * CHUNK + i) as u16);
                let open = account.open.load(Acquire);
                if open || account.sums.iter().any(|s| s.load(Relaxed) != 0) {
                    f(id, open, self.stat(id));
                }
            }
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
        }
    }

    #[inline]
    fn note_peak(&self) {
        let now = self.sums[Charge::Resident as usize].load(Relaxed)
            + self.sums[Charge::File as usize].load(Relaxed);
        if now > self.peak.load(Relaxed) {
            self.peak.store(now, Relaxed);
        }
    }
}
