//! The values that signals are made of: sets, infos, queues, actions.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use hafez_mm::lock::Mutex;
use linux_raw_sys::general as abi;

/// Signals are numbered 1 to 64.
pub const LAST: u32 = 64;
/// The first real-time signal, as the kernel counts.
pub const FIRST_REALTIME: u32 = abi::SIGRTMIN;

/// A set of signals: bit `n - 1` for signal `n`, as `rt_sigprocmask` has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SigSet(pub u64);

impl SigSet {
    /// No signal.
    pub const EMPTY: SigSet = SigSet(0);
    /// Those that nothing can block, catch or ignore.
    pub const UNBLOCKABLE: SigSet = SigSet::of(&[abi::SIGKILL, abi::SIGSTOP]);
    /// Those that stop a process.
    pub const STOPS: SigSet = SigSet::of(&[abi::SIGSTOP, abi::SIGTSTP, abi::SIGTTIN, abi::SIGTTOU]);
    /// Those that an instruction of the program itself brings about; they go first.
    pub const SYNCHRONOUS: SigSet =
        SigSet::of(&[abi::SIGSEGV, abi::SIGBUS, abi::SIGILL, abi::SIGTRAP, abi::SIGFPE, abi::SIGSYS]);
    /// Those whose default action is to do nothing.
    pub const IGNORED: SigSet = SigSet::of(&[abi::SIGCHLD, abi::SIGCONT, abi::SIGURG, abi::SIGWINCH]);

    /// Those whose default action is to end the process with a core file.
    pub const DUMPS: SigSet = SigSet::of(&[
        abi::SIGQUIT,
        abi::SIGILL,
        abi::SIGTRAP,
        abi::SIGABRT,
        abi::SIGFPE,
        abi::SIGSEGV,
        abi::SIGBUS,
        abi::SIGSYS,
        abi::SIGXCPU,
        abi::SIGXFSZ,
    ]);

    /// The set of these signals.
    pub const fn of(signals: &[u32]) -> SigSet {
        let mut set = 0;
        let mut i = 0;
        while i < signals.len() {
            set |= 1 << (signals[i] - 1);
            i += 1;
        }
        SigSet(set)
    }
    /// Whether the signal is in it.
    pub const fn has(self, signo: u32) -> bool {
        self.0 >> (signo - 1) & 1 != 0
    }
    /// With this signal too.
    pub const fn with(self, signo: u32) -> SigSet {
        SigSet(self.0 | 1 << (signo - 1))
    }
    /// All of both.
    pub const fn union(self, other: SigSet) -> SigSet {
        SigSet(self.0 | other.0)
    }
    /// Those of this set that are not in the other.
    pub const fn minus(self, other: SigSet) -> SigSet {
        SigSet(self.0 & !other.0)
    }
    /// Those in both.
    pub const fn both(self, other: SigSet) -> SigSet {
        SigSet(self.0 & other.0)
    }
    /// Whether it has none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// The one to deliver first: an instruction's own, else the lowest.
    pub fn first(self) -> Option<u32> {
        let urgent = self.both(SigSet::SYNCHRONOUS);
        let from = if urgent.is_empty() { self } else { urgent };
        (from.0 != 0).then(|| from.0.trailing_zeros() + 1)
    }
}

/// What happened: the kernel's form of `siginfo_t`.
///
/// `fields` is the union after the three numbers, as 64-bit words from byte 16 on; what lies past them is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigInfo {
    pub signo: u32,
    pub errno: i32,
    pub code: i32,
    pub fields: [u64; 6],
}

/// Bytes of a `siginfo_t`.
pub const SIGINFO_LEN: usize = abi::SI_MAX_SIZE as usize;

impl SigInfo {
    /// Of a timer's: its number.
    pub fn timer_number(&self) -> i32 {
        self.fields[0] as i32
    }
    /// Of a timer's: count `more` expirations into it; how many it then tells of.
    pub fn add_overrun(&mut self, more: u32) -> u32 {
        let count = ((self.fields[0] >> 32) as u32).saturating_add(more).min(i32::MAX as u32);
        self.fields[0] = pair(self.fields[0] as u32, count);
        count
    }
    /// Whether a timer sent it, or may have.
    #[inline]
    pub fn is_of_timer(&self) -> bool {
        self.code == abi::SI_TIMER
            || self.code == abi::SI_KERNEL as i32
                && matches!(self.signo, abi::SIGALRM | abi::SIGVTALRM | abi::SIGPROF)
    }
    /// About nothing.
    pub const NONE: SigInfo = SigInfo { signo: 0, errno: 0, code: 0, fields: [0; 6] };

    /// From the kernel, about nothing in particular.
    pub fn kernel(signo: u32) -> SigInfo {
        SigInfo { signo, errno: 0, code: abi::SI_KERNEL as i32, fields: [0; 6] }
    }
    /// An instruction or an access went wrong at `addr`.
    pub fn fault(signo: u32, code: i32, addr: u64) -> SigInfo {
        SigInfo { signo, errno: 0, code, fields: [addr, 0, 0, 0, 0, 0] }
    }
    /// From a process: `kill` (`SI_USER`), `tkill` (`SI_TKILL`).
    pub fn user(signo: u32, code: i32, pid: i32, uid: u32) -> SigInfo {
        SigInfo { signo, errno: 0, code, fields: [pair(pid as u32, uid), 0, 0, 0, 0, 0] }
    }
    /// A child ended, stopped or went on. Times in clock ticks.
    pub fn child(signo: u32, code: i32, pid: i32, uid: u32, status: i32, user: u64, system: u64) -> SigInfo {
        SigInfo {
            signo,
            errno: 0,
            code,
            fields: [pair(pid as u32, uid), status as u32 as u64, user, system, 0, 0],
        }
    }
    /// A filter did not let a system call through: where, which, of what machine, and what the filter added.
    pub fn seccomp(at: u64, number: u32, architecture: u32, with: u32) -> SigInfo {
        const SYS_SECCOMP: i32 = 1;
        let fields = [at, pair(number, architecture), 0, 0, 0, 0];
        SigInfo { signo: abi::SIGSYS, errno: with as i32, code: SYS_SECCOMP, fields }
    }
    /// A system call that the program wants to see itself.
    pub fn dispatch(at: u64, number: u32, architecture: u32) -> SigInfo {
        const SYS_USER_DISPATCH: i32 = 2;
        SigInfo { code: SYS_USER_DISPATCH, ..Self::seccomp(at, number, architecture, 0) }
    }
    /// A message has come to a queue.
    pub fn queue(signo: u32, pid: i32, uid: u32, value: u64) -> SigInfo {
        SigInfo { signo, errno: 0, code: abi::SI_MESGQ, fields: [pair(pid as u32, uid), value, 0, 0, 0, 0] }
    }
    /// A timer of the program's ran out.
    pub fn timer(signo: u32, timer: i32, overrun: i32, value: u64) -> SigInfo {
        SigInfo {
            signo,
            errno: 0,
            code: abi::SI_TIMER,
            fields: [pair(timer as u32, overrun as u32), value, 0, 0, 0, 0],
        }
    }
    /// As a program sees it, in words.
    pub fn to_words(self) -> [u64; SIGINFO_LEN / 8] {
        let mut words = [0; SIGINFO_LEN / 8];
        words[0] = pair(self.signo, self.errno as u32);
        words[1] = self.code as u32 as u64;
        words[2..8].copy_from_slice(&self.fields);
        words
    }
    /// As a program gave it (`rt_sigqueueinfo`); the caller sets `signo`.
    pub fn from_bytes(raw: &[u8; SIGINFO_LEN]) -> SigInfo {
        let int = |at: usize| i32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let mut fields = [0; 6];
        for (i, field) in fields.iter_mut().enumerate() {
            *field = int(16 + 8 * i) as u32 as u64 | (int(20 + 8 * i) as u32 as u64) << 32;
        }
        SigInfo { signo: int(0) as u32, errno: int(4), code: int(8), fields }
    }
}

fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// Signals that wait to be delivered.
///
/// Of a standard signal at most one waits: a second one adds nothing. Real-time signals queue up, each with its info, and
/// come out in the order they went in. Which wait can be seen without the queue's lock, under which it changes.
pub struct Pending {
    set: AtomicU64,
    queue: Mutex<VecDeque<SigInfo>>,
}

impl Pending {
    /// None.
    pub const fn new() -> Pending {
        Pending { set: AtomicU64::new(0), queue: Mutex::new(VecDeque::new()) }
    }
    /// Which signals wait.
    #[inline(always)]
    pub fn set(&self) -> SigSet {
        SigSet(self.set.load(SeqCst))
    }
    fn note(&self, set: SigSet) {
        self.set.store(set.0, SeqCst);
    }
    /// Signals in the queue.
    pub fn len(&self) -> usize {
        self.queue.lock().len()
    }
    /// Those from the `first` on, in the order in which they wait, each handed to `f` until that says no.
    pub fn look(&self, first: u64, f: &mut dyn FnMut(&SigInfo) -> bool) {
        let queue = self.queue.lock();
        let _ = queue.iter().skip(first as usize).all(f);
    }
    /// Add one. False if the queue is full, at `limit` or for want of memory, and the info is lost (the signal itself is not).
    pub fn push(&self, info: SigInfo, limit: u64) -> bool {
        let mut queue = self.queue.lock();
        let known = self.set().has(info.signo);
        if info.signo < FIRST_REALTIME && known {
            return true;
        }
        let room = info.signo < FIRST_REALTIME || (queue.len() as u64) < limit;
        let kept = room && queue.try_reserve(1).is_ok();
        if kept {
            queue.push_back(info);
        }
        self.note(self.set().with(info.signo));
        kept
    }
    /// Count `more` expirations into the waiting signal of a timer. False if none of this timer waits.
    pub fn add_overrun(&self, timer: i32, more: u32) -> bool {
        let of_timer = |i: &&mut SigInfo| i.code == abi::SI_TIMER && i.fields[0] as u32 == timer as u32;
        let mut queue = self.queue.lock();
        let Some(info) = queue.iter_mut().find(of_timer) else { return false };
        info.add_overrun(more);
        true
    }
    /// Take the most urgent one of those in `wanted`.
    #[inline(always)]
    pub fn take(&self, wanted: SigSet) -> Option<SigInfo> {
        if self.set().both(wanted).is_empty() { None } else { self.take_queued(wanted) }
    }
    fn take_queued(&self, wanted: SigSet) -> Option<SigInfo> {
        let mut queue = self.queue.lock();
        let signo = self.set().both(wanted).first()?;
        // Nearly always only one waits.
        let info = match queue.front() {
            Some(first) if first.signo == signo => queue.pop_front(),
            _ => queue.iter().position(|i| i.signo == signo).and_then(|at| queue.remove(at)),
        };
        // There was no room to say more of it than that it came.
        let info = info.unwrap_or(SigInfo::user(signo, 0, 0, 0));
        if signo < FIRST_REALTIME || !queue.iter().any(|i| i.signo == signo) {
            self.note(self.set().minus(SigSet::of(&[signo])));
        }
        Some(info)
    }
    /// Forget all of these.
    pub fn remove(&self, signals: SigSet) {
        if !self.set().both(signals).is_empty() {
            let mut queue = self.queue.lock();
            self.note(self.set().minus(signals));
            queue.retain(|i| !signals.has(i.signo));
        }
    }
}

/// What to do when a signal comes: `struct sigaction`, as the kernel gets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Action {
    /// Address of the handler, or [`Action::DEFAULT`] or [`Action::IGNORE`].
    pub handler: u64,
    pub flags: u64,
    pub restorer: u64,
    pub mask: SigSet,
}

impl Action {
    /// `SIG_DFL`.
    pub const DEFAULT: u64 = 0;
    /// `SIG_IGN`.
    pub const IGNORE: u64 = 1;

    /// Whether the flag (`SA_*`) is set.
    pub fn is(&self, flag: u32) -> bool {
        self.flags & flag as u64 != 0
    }
    /// Whether this action on this signal does nothing.
    pub fn ignores(&self, signo: u32) -> bool {
        self.handler == Action::IGNORE || self.handler == Action::DEFAULT && SigSet::IGNORED.has(signo)
    }
}

/// The actions of a process. In a box: 2 KiB are much for a kernel stack to pass around.
pub struct Actions(Box<[Action; LAST as usize]>);

impl Clone for Actions {
    fn clone(&self) -> Actions {
        // A clone of the array would pass through the stack.
        let copy: Box<[Action]> = Box::from(&self.0[..]);
        Actions(copy.try_into().expect("as many as there were"))
    }
}

impl Actions {
    /// All default.
    pub fn new() -> Actions {
        Actions(Box::new([Action::default(); LAST as usize]))
    }
    /// The action on a signal.
    pub fn get(&self, signo: u32) -> Action {
        self.0[Self::index(signo)]
    }
    /// The same, to be changed.
    pub fn of(&mut self, signo: u32) -> &mut Action {
        &mut self.0[Self::index(signo)]
    }
    /// Signals are 1 to 64: so what is left of a number after the mask is itself.
    #[inline(always)]
    fn index(signo: u32) -> usize {
        (signo as usize - 1) % LAST as usize
    }
    /// The signals that are ignored, and those that have a handler.
    pub fn ignored_and_caught(&self) -> (SigSet, SigSet) {
        let (mut ignored, mut caught) = (SigSet::EMPTY, SigSet::EMPTY);
        for (signo, action) in (1..).zip(&*self.0) {
            match action.handler {
                Action::DEFAULT => {}
                Action::IGNORE => ignored = ignored.with(signo),
                _ => caught = caught.with(signo),
            }
        }
        (ignored, caught)
    }
    /// A new program cannot have the old one's handlers: they become the default. What was ignored stays ignored.
    pub fn reset_handlers(&mut self) {
        for action in self.0.iter_mut() {
            let handler = if action.handler == Action::IGNORE { Action::IGNORE } else { Action::DEFAULT };
            *action = Action { handler, ..Action::default() };
        }
    }
    /// All default (`CLONE_CLEAR_SIGHAND`).
    pub fn clear_handlers(&mut self) {
        self.reset_handlers();
    }
}

/// The alternate signal stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AltStack {
    pub base: u64,
    pub size: u64,
    /// `SS_DISABLE`, `SS_AUTODISARM`.
    pub flags: u32,
}

impl AltStack {
    /// None.
    pub const NONE: AltStack = AltStack { base: 0, size: 0, flags: abi::SS_DISABLE };

    /// Whether this stack pointer is on it.
    pub fn holds(&self, sp: u64) -> bool {
        self.flags & abi::SS_DISABLE == 0
            && self.flags & SS_AUTODISARM == 0
            && sp > self.base
            && sp - self.base <= self.size
    }
}

/// Disable the alternate stack while a handler runs on it.
pub const SS_AUTODISARM: u32 = 1 << 31;
