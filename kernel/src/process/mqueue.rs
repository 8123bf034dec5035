//! POSIX message queues (`mq_overview(7)`): messages with a priority, the most urgent first, in queues with names.
//!
//! A queue is a file without a place in the tree: its descriptor can be polled, passed on and closed like any other. The name
//! is one thing, the queue another: a queue lives while it has a name or somebody has it open.
//!
//! ```text
//!   NAMES    name ─► Queue { attributes, State { messages, who is told } }
//!   QueueFile (one for each mq_open) ─► Queue
//! ```
//!
//! What the queues of a user may hold counts against `RLIMIT_MSGQUEUE` when the queue is made, as if it were full; the messages
//! themselves take memory only when they come.
//!
//! One process at a time can be told that a message has come to a queue that was empty, once ([`Queue::register`]). It is not if
//! somebody waits for the message already. Closing any descriptor of the queue gives that up.
//!
//! Locks, all leaves: the names, a queue's state, what users hold. None over a wait, a user copy or a signal.
#![forbid(unsafe_code)]

use super::process::Process;
use super::signal::{self, SigInfo};
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::fs::cred::want;
use crate::fs::file::{File, FileOps, How};
use crate::fs::inode::{Inode, InodeId, Kind, OpenMode, SetAttr, Stat, StatFs, Time};
use crate::fs::iobuf::Sink;
use crate::fs::mount::Mount;
use crate::fs::path::Location;
use crate::fs::poll::{Events, Signal, Watchers};
use crate::fs::{Cred, anon};
use crate::mem;
use crate::net::Protocol;
use crate::sched::WaitResult;
use crate::sched::timer::Deadline;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::cmp::Reverse;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use hafez_mm::lock::{LazyLock, Mutex};
use linux_raw_sys::general as abi;

/// Priorities are below this.
pub const PRIORITIES: u32 = 32768;
/// Queues that there may be, messages in one and bytes in a message, without `CAP_SYS_RESOURCE`; and what one gets who asks for
/// nothing. `/proc/sys/fs/mqueue` changes them.
pub static QUEUES: AtomicU64 = AtomicU64::new(256);
pub static MESSAGES: AtomicU64 = AtomicU64::new(10);
pub static BYTES: AtomicU64 = AtomicU64::new(8192);
pub static UNASKED_MESSAGES: AtomicU64 = AtomicU64::new(10);
pub static UNASKED_BYTES: AtomicU64 = AtomicU64::new(8192);
/// With it, and the most that those can be set to.
pub const MOST_MESSAGES: u64 = 65536;
pub const MOST_BYTES: u64 = 16 << 20;
/// What a message is charged beside its bytes; and the tree that sorts them, for as many as there are priorities at most.
const OVERHEAD: u64 = 48;
/// Bytes of the file that tells how a queue fares.
const TOLD: u64 = 80;
/// Bytes that a thread of the C library wants to get back when a message has come (`SIGEV_THREAD`); the last says why.
pub const COOKIE: usize = 32;
const WOKEN: u8 = 1;
const REMOVED: u8 = 2;

const DEV: u64 = 18;
static MOUNT: LazyLock<Arc<Mount>> = LazyLock::new(|| {
    let id = InodeId { dev: DEV, ino: 1 };
    Mount::detached(Arc::new(QueueInode::new(id, 0o1777, (0, 0), Time::default())), "mqueue")
});
static NAMES: Mutex<BTreeMap<Vec<u8>, Arc<Queue>>> = Mutex::new(BTreeMap::new());
static COUNT: AtomicUsize = AtomicUsize::new(0);
static NEXT: AtomicU64 = AtomicU64::new(2);
/// Bytes that the queues of a user may come to hold.
static CHARGED: Mutex<BTreeMap<u32, u64>> = Mutex::new(BTreeMap::new());

struct QueueInode {
    id: InodeId,
    attributes: anon::Attributes,
}

impl QueueInode {
    fn new(id: InodeId, mode: u32, owner: (u32, u32), made: Time) -> QueueInode {
        let mode = Kind::File as u32 | mode;
        QueueInode { id, attributes: anon::Attributes::new(id, mode, owner, made) }
    }
}

impl Inode for QueueInode {
    fn id(&self) -> InodeId {
        self.id
    }
    fn kind(&self) -> Kind {
        Kind::File
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn stat(&self) -> Result<Stat> {
        Ok(Stat { size: TOLD, ..self.attributes.stat() })
    }
    fn setattr(&self, set: &SetAttr) -> Result<()> {
        self.attributes.set(set)
    }
    fn statfs(&self) -> Result<StatFs> {
        Ok(anon::statfs(MAGIC))
    }
    fn open(self: Arc<Self>, _: OpenMode) -> Result<Arc<dyn FileOps>> {
        Err(Errno::ENXIO)
    }
}

/// `MQUEUE_MAGIC`
const MAGIC: u32 = 0x1980_0202;

/// One queue.
pub struct Queue {
    /// Messages, and bytes in each, that there may be.
    pub most: usize,
    pub longest: usize,
    inode: Arc<QueueInode>,
    /// Whom it is charged to, and what.
    user: u32,
    charge: u64,
    changed: Arc<Signal>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The most urgent first, and of those the oldest.
    messages: BTreeMap<(Reverse<u32>, u64), Vec<u8>>,
    next: u64,
    bytes: usize,
    /// Who waits for a message.
    receivers: usize,
    told: Option<Registration>,
}

/// Who is told of a message, and how.
pub struct Registration {
    /// Whose descriptors these are: closing one of the queue's ends it.
    pub table: u64,
    pub process: Weak<Process>,
    pub by: By,
}

pub enum By {
    Nothing,
    Signal {
        signo: u32,
        value: u64,
    },
    /// A message to a socket, which a thread of the program reads.
    Socket {
        socket: Arc<dyn Protocol>,
        cookie: [u8; COOKIE],
    },
}

/// Who sends, as the one who is told sees it.
#[derive(Clone, Copy)]
pub struct Sender {
    pub pid: i32,
    pub uid: u32,
}

impl Registration {
    fn tell(self, from: Sender) {
        match self.by {
            By::Nothing => {}
            By::Signal { signo, value } => {
                if let Some(process) = self.process.upgrade().filter(|_| signo != 0) {
                    let _ = signal::to_process(&process, SigInfo::queue(signo, from.pid, from.uid, value));
                }
            }
            By::Socket { .. } => self.post(WOKEN),
        }
    }

    /// The socket is told why it hears of the queue no more.
    fn post(self, why: u8) {
        if let By::Socket { socket, mut cookie } = self.by {
            cookie[COOKIE - 1] = why;
            let _ = socket.post(&cookie);
        }
    }
}

/// What `mq_open` asks for if it makes the queue: messages, bytes in each. EINVAL if that cannot be.
fn attributes(asked: Option<[i64; 2]>, cred: &Cred) -> Result<[i64; 2]> {
    let (most, longest) = (MESSAGES.load(Relaxed) as i64, BYTES.load(Relaxed) as i64);
    let unasked = [UNASKED_MESSAGES.load(Relaxed) as i64, UNASKED_BYTES.load(Relaxed) as i64];
    let [messages, bytes] = asked.unwrap_or([unasked[0].min(most), unasked[1].min(longest)]);
    let free = cred.may(cap::SYS_RESOURCE);
    let (most, longest) = if free { (MOST_MESSAGES as i64, MOST_BYTES as i64) } else { (most, longest) };
    if (1..=most).contains(&messages) && (1..=longest).contains(&bytes) {
        Ok([messages, bytes])
    } else {
        Err(Errno::EINVAL)
    }
}

/// What is asked for, and by whom, of `mq_open`.
pub struct Request<'a> {
    pub name: Vec<u8>,
    pub flags: u32,
    /// With the umask taken off.
    pub mode: u32,
    pub attributes: Option<[i64; 2]>,
    pub cred: &'a Cred,
    /// `RLIMIT_MSGQUEUE`
    pub limit: u64,
}

/// What a name in the one directory of all queues may be.
fn check_name(name: &[u8]) -> Result<()> {
    match name {
        [] => Err(Errno::ENOENT),
        b"." | b".." => Err(Errno::EACCES),
        _ if name.contains(&b'/') => Err(Errno::EACCES),
        _ if name.len() > abi::NAME_MAX as usize => Err(Errno::ENAMETOOLONG),
        _ => Ok(()),
    }
}

/// `mq_open`
pub fn open(request: Request) -> Result<Arc<File>> {
    check_name(&request.name)?;
    if !mem::headroom(2048) {
        return Err(Errno::ENOMEM);
    }
    let queue = find_or_make(&request)?;
    let access = request.flags & (abi::O_ACCMODE | abi::O_NONBLOCK);
    let shown = [b"/", &request.name[..]].concat();
    let place = Location::detached(&MOUNT, queue.inode.clone(), &shown);
    File::new(Arc::new(QueueFile { queue }), place, access)
}

fn find_or_make(request: &Request) -> Result<Arc<Queue>> {
    let found = NAMES.lock().get(&request.name).cloned();
    if let Some(queue) = found {
        return queue.may_open(request).map(|()| queue);
    }
    if request.flags & abi::O_CREAT == 0 {
        return Err(Errno::ENOENT);
    }
    let fresh = Arc::new(Queue::new(request)?);
    let mut names = NAMES.lock();
    if let Some(queue) = names.get(&request.name).cloned() {
        drop(names);
        // Somebody was faster.
        return queue.may_open(request).map(|()| queue);
    }
    names.insert(request.name.clone(), fresh.clone());
    Ok(fresh)
}

/// `mq_unlink`. As in a directory with the sticky bit, only who owns the queue may.
pub fn unlink(name: &[u8], cred: &Cred) -> Result<()> {
    check_name(name)?;
    let gone = {
        let mut names = NAMES.lock();
        let queue = names.get(name).ok_or(Errno::ENOENT)?;
        cred.check_owner(&queue.inode.stat()?)?;
        names.remove(name)
    };
    drop(gone);
    Ok(())
}

impl Queue {
    fn new(request: &Request) -> Result<Queue> {
        if COUNT.load(Relaxed) as u64 >= QUEUES.load(Relaxed) && !request.cred.may(cap::SYS_RESOURCE) {
            return Err(Errno::ENOSPC);
        }
        let [messages, bytes] = attributes(request.attributes, request.cred)?.map(|n| n as u64);
        let sorting = messages.min(PRIORITIES.into()) * OVERHEAD;
        let charge = messages * (bytes + OVERHEAD) + sorting;
        let user = request.cred.uid;
        {
            let mut charged = CHARGED.lock();
            let all = charged.entry(user).or_default();
            if *all + charge > request.limit {
                return Err(Errno::EMFILE);
            }
            *all += charge;
        }
        COUNT.fetch_add(1, Relaxed);
        let id = InodeId { dev: DEV, ino: NEXT.fetch_add(1, Relaxed) };
        let owner = (request.cred.fsuid, request.cred.fsgid);
        Ok(Queue {
            most: messages as usize,
            longest: bytes as usize,
            inode: Arc::new(QueueInode::new(id, request.mode & 0o777, owner, Time::now())),
            user,
            charge,
            changed: Signal::new(),
            state: Mutex::default(),
        })
    }

    fn may_open(&self, request: &Request) -> Result<()> {
        if request.flags & (abi::O_CREAT | abi::O_EXCL) == abi::O_CREAT | abi::O_EXCL {
            return Err(Errno::EEXIST);
        }
        let wanted = match request.flags & abi::O_ACCMODE {
            abi::O_RDONLY => want::READ,
            abi::O_WRONLY => want::WRITE,
            abi::O_RDWR => want::READ | want::WRITE,
            _ => return Err(Errno::EINVAL),
        };
        request.cred.check(&self.inode.stat()?, wanted)
    }

    /// Messages in it.
    pub fn len(&self) -> usize {
        self.state.lock().messages.len()
    }

    /// Put a message in, if there is room. Whoever is to be told is handed back.
    fn put(&self, text: &mut Vec<u8>, priority: u32) -> Option<Option<Registration>> {
        let mut state = self.state.lock();
        if state.messages.len() >= self.most {
            return None;
        }
        let serial = state.next;
        state.next += 1;
        state.bytes += text.len();
        let was_empty = state.messages.is_empty();
        state.messages.insert((Reverse(priority), serial), core::mem::take(text));
        Some(if was_empty && state.receivers == 0 { state.told.take() } else { None })
    }

    fn take(&self) -> Option<(Vec<u8>, u32)> {
        let mut state = self.state.lock();
        let ((Reverse(priority), _), text) = state.messages.pop_first()?;
        state.bytes -= text.len();
        Some((text, priority))
    }

    /// `mq_timedsend` of a text that there was room for: EAGAIN, ETIMEDOUT while it is full.
    pub fn send(
        &self,
        mut text: Vec<u8>,
        priority: u32,
        (nonblock, deadline): (bool, Option<Deadline>),
        from: Sender,
    ) -> Result<()> {
        let mut told = self.put(&mut text, priority);
        if told.is_none() && nonblock {
            return Err(Errno::EAGAIN);
        }
        while told.is_none() {
            let room = || self.len() < self.most;
            ended(self.changed.queue().wait_till(room, deadline, true))?;
            told = self.put(&mut text, priority);
        }
        if let Some(registration) = told.flatten() {
            registration.tell(from);
        }
        self.changed.notify();
        Ok(())
    }

    /// `mq_timedreceive`: EAGAIN, ETIMEDOUT while it is empty.
    pub fn receive(&self, nonblock: bool, deadline: Option<Deadline>) -> Result<(Vec<u8>, u32)> {
        let mut taken = self.take();
        if taken.is_none() && nonblock {
            return Err(Errno::EAGAIN);
        }
        if taken.is_none() {
            self.state.lock().receivers += 1;
            let result = loop {
                let end = self.changed.queue().wait_till(|| self.len() > 0, deadline, true);
                taken = self.take();
                match ended(end) {
                    _ if taken.is_some() => break Ok(()),
                    Ok(()) => {}
                    error => break error,
                }
            };
            self.state.lock().receivers -= 1;
            result?;
        }
        self.changed.notify();
        taken.ok_or(Errno::EAGAIN)
    }

    /// `mq_notify`: EBUSY if somebody is to be told already.
    pub fn register(&self, registration: Registration) -> Result<()> {
        let mut state = self.state.lock();
        if state.told.as_ref().is_some_and(|told| told.process.strong_count() > 0) {
            return Err(Errno::EBUSY);
        }
        let dead = state.told.replace(registration);
        drop(state);
        drop(dead);
        Ok(())
    }

    /// Who registered with this table of descriptors hears no more.
    pub fn unregister(&self, table: u64) {
        let gone = {
            let mut state = self.state.lock();
            let own = state.told.as_ref().is_some_and(|told| told.table == table);
            if own { state.told.take() } else { None }
        };
        if let Some(registration) = gone {
            registration.post(REMOVED);
        }
    }
}

fn ended(end: WaitResult) -> Result<()> {
    match end {
        WaitResult::Ready => Ok(()),
        WaitResult::TimedOut => Err(Errno::ETIMEDOUT),
        WaitResult::Interrupted => Err(Errno::RESTART),
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Relaxed);
        let mut charged = CHARGED.lock();
        if let Some(all) = charged.get_mut(&self.user) {
            *all = all.saturating_sub(self.charge);
            if *all == 0 {
                charged.remove(&self.user);
            }
        }
    }
}

/// A queue that is open.
pub struct QueueFile {
    pub queue: Arc<Queue>,
}

impl FileOps for QueueFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    /// How the queue fares, as a line.
    fn read(&self, at: u64, to: &mut Sink<'_>, _: How) -> Result<()> {
        let line = {
            let state = self.queue.state.lock();
            let (how, signo) = match state.told.as_ref().map(|told| &told.by) {
                None => (0, 0),
                Some(By::Nothing) => (abi::SIGEV_NONE, 0),
                Some(By::Signal { signo, .. }) => (abi::SIGEV_SIGNAL, *signo),
                Some(By::Socket { .. }) => (abi::SIGEV_THREAD, 0),
            };
            let process = state.told.as_ref().and_then(|told| told.process.upgrade());
            let pid = process.map_or(0, |process| process.pid);
            format!("QSIZE:{:<10} NOTIFY:{how:<5} SIGNO:{signo:<5} NOTIFY_PID:{pid:<6}\n", state.bytes)
        };
        to.put(line.as_bytes().get(at as usize..).unwrap_or_default());
        Ok(())
    }
    fn seekable(&self) -> bool {
        true
    }
    fn size(&self) -> Result<u64> {
        Ok(TOLD)
    }
    fn holds(&self) -> usize {
        let state = self.queue.state.lock();
        let all = state.bytes + 128 * state.messages.len();
        all / Arc::strong_count(&self.queue).max(1)
    }
    fn poll(&self) -> Events {
        let len = self.queue.len();
        let mut events = Events::empty();
        events.set(Events::READABLE, len > 0);
        events.set(Events::WRITABLE, len < self.queue.most);
        events
    }
    fn watch(&self, watchers: &mut Watchers) {
        watchers.add(&self.queue.changed);
    }
    fn tells_all(&self) -> bool {
        true
    }
    fn let_go(&self, table: u64) {
        self.queue.unregister(table);
    }
}
