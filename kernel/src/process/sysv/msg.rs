//! Message queues (`msgget(2)`, `msgsnd(2)`, `msgrcv(2)`): messages with a type, taken by type.

use super::{NOWAIT, Perm, Registry, Thing, now};
use crate::errno::{Errno, Result};
use crate::fs::Cred;
use crate::fs::caps::cap;
use crate::mem;
use crate::process::Pid;
use crate::sched::{WaitQueue, WaitResult};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hafez_mm::lock::Mutex;

/// Queues that there may be (`MSGMNI`), bytes in one (`MSGMNB`), bytes of a message (`MSGMAX`).
pub static MOST: AtomicU64 = AtomicU64::new(32000);
pub static ROOM: AtomicU64 = AtomicU64::new(16384);
pub static LONGEST: AtomicU64 = AtomicU64::new(8192);
/// Cut a message that is too long; take one of any other type.
const NOERROR: u32 = 0o10000;
const EXCEPT: u32 = 0o20000;
/// Look at the message of this number and leave it where it is.
const COPY: u32 = 0o40000;

struct Message {
    kind: i64,
    text: Vec<u8>,
}

struct Queue {
    perm: Perm,
    messages: VecDeque<Message>,
    bytes: u64,
    room: u64,
    /// When something was last sent, received, changed.
    times: [u64; 3],
    sender: Pid,
    receiver: Pid,
    waiting: Arc<Waiting>,
}

/// Where they wait for a queue to change. It outlives the queue.
struct Waiting {
    changes: AtomicU64,
    removed: AtomicBool,
    queue: WaitQueue,
}

impl Waiting {
    fn wake(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.queue.wake_all();
    }

    /// Sleep until the queue is not what it was when the counter read `seen`.
    fn wait(&self, seen: u64) -> Result<()> {
        let moved = || self.changes.load(Ordering::SeqCst) != seen;
        let result = self.queue.wait_until(moved, None, true);
        if self.removed.load(Ordering::SeqCst) {
            return Err(Errno::EIDRM);
        }
        // Never restarted (`signal(7)`).
        if result == WaitResult::Interrupted { Err(Errno::EINTR) } else { Ok(()) }
    }
}

impl Thing for Queue {
    fn perm(&self) -> &Perm {
        &self.perm
    }
}

/// What `IPC_STAT` tells.
pub struct Stat {
    pub perm: Perm,
    pub times: [u64; 3],
    pub bytes: u64,
    pub count: u64,
    pub room: u64,
    pub sender: Pid,
    pub receiver: Pid,
}

impl Stat {
    fn of(q: &Queue) -> Stat {
        let count = q.messages.len() as u64;
        let (sender, receiver) = (q.sender, q.receiver);
        Stat { perm: q.perm.clone(), times: q.times, bytes: q.bytes, count, room: q.room, sender, receiver }
    }
}

/// What number the next one shall have.
pub static NEXT: AtomicU64 = AtomicU64::new(super::ANY);

static QUEUES: Mutex<Registry<Queue>> = Mutex::new(Registry::new(&NEXT));

/// `msgget`.
pub fn get(key: i32, flags: u32, cred: &Cred) -> Result<i32> {
    if !mem::headroom(1024) {
        return Err(Errno::ENOMEM);
    }
    QUEUES.lock().find_or_make(
        (key, flags, cred),
        MOST.load(Ordering::Relaxed) as usize,
        |_| Ok(()),
        |perm| {
            let waiting = Waiting {
                changes: AtomicU64::new(0),
                removed: AtomicBool::new(false),
                queue: WaitQueue::new(),
            };
            Ok(Queue {
                perm,
                messages: VecDeque::new(),
                bytes: 0,
                room: ROOM.load(Ordering::Relaxed),
                times: [0, 0, now()],
                sender: 0,
                receiver: 0,
                waiting: Arc::new(waiting),
            })
        },
    )
}

/// `msgsnd`.
pub fn send(id: i32, kind: i64, text: Vec<u8>, flags: u32, cred: &Cred, by: Pid) -> Result<()> {
    if !mem::headroom(2 * text.len() + 256) {
        return Err(Errno::ENOMEM);
    }
    loop {
        let (waiting, seen) = {
            let mut queues = QUEUES.lock();
            let queue = queues.get(id)?;
            queue.perm.check(cred, super::WRITE)?;
            let len = text.len() as u64;
            if queue.bytes + len <= queue.room && (queue.messages.len() as u64) < queue.room {
                queue.messages.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
                queue.messages.push_back(Message { kind, text });
                queue.bytes += len;
                (queue.times[0], queue.sender) = (now(), by);
                let waiting = queue.waiting.clone();
                drop(queues);
                waiting.wake();
                return Ok(());
            }
            if flags & NOWAIT != 0 {
                return Err(Errno::EAGAIN);
            }
            (queue.waiting.clone(), queue.waiting.changes.load(Ordering::SeqCst))
        };
        waiting.wait(seen)?;
    }
}

/// Which message `msgrcv` is to take.
fn choose(messages: &VecDeque<Message>, kind: i64, flags: u32) -> Option<usize> {
    match kind {
        0 => (!messages.is_empty()).then_some(0),
        1.. if flags & EXCEPT != 0 => messages.iter().position(|m| m.kind != kind),
        1.. => messages.iter().position(|m| m.kind == kind),
        // The first of the lowest type that is not above.
        _ => {
            let most = kind.unsigned_abs();
            let lowest = messages.iter().map(|m| m.kind).filter(|k| *k as u64 <= most).min()?;
            messages.iter().position(|m| m.kind == lowest)
        }
    }
}

/// `msgrcv`: the type, and as much of the text as there is room for.
pub fn receive(id: i32, room: usize, kind: i64, flags: u32, cred: &Cred, by: Pid) -> Result<(i64, Vec<u8>)> {
    if flags & COPY != 0 && (flags & EXCEPT != 0 || flags & NOWAIT == 0) {
        return Err(Errno::EINVAL);
    }
    loop {
        let (waiting, seen) = {
            let mut queues = QUEUES.lock();
            let queue = queues.get(id)?;
            queue.perm.check(cred, super::READ)?;
            if flags & COPY != 0 {
                let at = usize::try_from(kind).map_err(|_| Errno::ENOMSG)?;
                let message = queue.messages.get(at).ok_or(Errno::ENOMSG)?;
                if message.text.len() > room && flags & NOERROR == 0 {
                    return Err(Errno::E2BIG);
                }
                // A part of a message is no copy.
                if message.text.len() > room {
                    return Err(Errno::EINVAL);
                }
                let mut text = Vec::new();
                text.try_reserve_exact(message.text.len()).map_err(|_| Errno::ENOMEM)?;
                text.extend_from_slice(&message.text);
                return Ok((message.kind, text));
            }
            if let Some(at) = choose(&queue.messages, kind, flags) {
                if queue.messages[at].text.len() > room && flags & NOERROR == 0 {
                    return Err(Errno::E2BIG);
                }
                let Some(mut message) = queue.messages.remove(at) else { return Err(Errno::ENOMSG) };
                queue.bytes -= message.text.len() as u64;
                (queue.times[1], queue.receiver) = (now(), by);
                let waiting = queue.waiting.clone();
                drop(queues);
                waiting.wake();
                message.text.truncate(room);
                return Ok((message.kind, message.text));
            }
            if flags & NOWAIT != 0 {
                return Err(Errno::ENOMSG);
            }
            (queue.waiting.clone(), queue.waiting.changes.load(Ordering::SeqCst))
        };
        waiting.wait(seen)?;
    }
}

/// `IPC_STAT`.
pub fn stat(id: i32, cred: &Cred) -> Result<Stat> {
    let mut queues = QUEUES.lock();
    let q = queues.get(id)?;
    q.perm.check(cred, super::READ)?;
    Ok(Stat::of(q))
}

/// The first queue whose number is `from` or above.
pub fn next(from: i32) -> Option<(i32, Stat)> {
    QUEUES.lock().things.range(from..).next().map(|(id, queue)| (*id, Stat::of(queue)))
}

/// The highest number in use; how many queues there are, messages in them, bytes in those.
pub fn totals() -> (i32, u32, u32, u32) {
    let queues = QUEUES.lock();
    let messages = queues.all().map(|q| q.messages.len() as u32).sum();
    let bytes = queues.all().map(|q| q.bytes as u32).sum();
    (queues.highest(), queues.things.len() as u32, messages, bytes)
}

/// `IPC_SET`. More room than usual is for root to give.
pub fn set(id: i32, cred: &Cred, [uid, gid, mode]: [u32; 3], room: u64) -> Result<()> {
    let mut queues = QUEUES.lock();
    let queue = queues.get(id)?;
    queue.perm.check_owner(cred)?;
    if room > ROOM.load(Ordering::Relaxed) && !cred.may(cap::SYS_RESOURCE) {
        return Err(Errno::EPERM);
    }
    queue.perm.set(uid, gid, mode);
    queue.room = room;
    queue.times[2] = now();
    let waiting = queue.waiting.clone();
    drop(queues);
    waiting.wake();
    Ok(())
}

/// `IPC_RMID`. Those who wait hear EIDRM.
pub fn remove(id: i32, cred: &Cred) -> Result<()> {
    let queue = {
        let mut queues = QUEUES.lock();
        queues.get(id)?.perm.check_owner(cred)?;
        queues.remove(id)
    };
    if let Some(queue) = queue {
        queue.waiting.removed.store(true, Ordering::SeqCst);
        queue.waiting.wake();
    }
    Ok(())
}
