//! Futexes: wait until somebody changes a word of memory (`futex(2)`).
//!
//! A word in user memory is the state; the kernel keeps only who sleeps on it. Sleepers are found by a [`Key`]:
//!
//! ```text
//!   private memory              (space, address)
//!   MAP_SHARED of an object     (object, byte offset): the same word for each space that maps it, wherever
//! ```
//!
//! A key hashes to one of [`BUCKETS`] buckets: a spin lock and a list of waiters, oldest first, of all keys that hash there.
//!
//! # No wake-up is lost
//!
//! A sleeper reads the word *under its bucket's lock* and enters the list before it lets go. A waker changes the word
//! first, then takes the same lock. So either the sleeper saw the new value and does not sleep, or the waker sees the
//! sleeper. The word may be swapped out, and nobody may sleep with a spin lock held; so the read under the lock is
//! `peek_u32`, which takes no fault: where it fails, the lock is dropped, the page brought in, and all begins again.
//!
//! A sleeper has a queue of its own, and sleeps until it is *fired*. Who fires it has taken its entry off the list, under
//! the lock. A sleeper that gives up (time-out, signal) takes itself off, under the lock as well; if it finds itself
//! off already, the wake-up came first, and counts. A requeue moves a waiter to another list and notes so in it (`place`),
//! with both buckets locked, lower index first.
//!
//! Locks: buckets in order of their index; `place` under a bucket's lock; nothing else inside.
#![forbid(unsafe_code)]

use crate::arch::user;
use crate::errno::{Errno, Result};
use crate::sched::timer::Deadline;
use crate::sched::{WaitQueue, WaitResult};
use alloc::sync::Arc;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicUsize, Ordering};
use hafez_mm::lock::{Mutex, MutexGuard};
use hafez_mm::{Space, SpaceId, VirtAddr};
use linux_raw_sys::general as abi;

const BUCKETS: usize = 64;

/// What a sleeper sleeps on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Key {
    Private { space: SpaceId, at: u64 },
    Shared { object: u32, offset: u64 },
}

impl Key {
    /// The key of the word at `at`. `private`: the caller promises that no other space shares the word, so that
    /// nobody need look at its region. EINVAL if `at` is not a multiple of four, EFAULT where nothing is mapped.
    pub fn of(space: &Space, at: u64, private: bool) -> Result<Key> {
        if at & 3 != 0 {
            return Err(Errno::EINVAL);
        }
        if !user::in_user_half(at, 4) {
            return Err(Errno::EFAULT);
        }
        if !private {
            let region = space.region_at(VirtAddr(at)).ok_or(Errno::EFAULT)?;
            if let (true, Some(object)) = (region.shared, region.object) {
                let offset = region.offset + (at - region.range.start.addr().0);
                return Ok(Key::Shared { object, offset });
            }
        }
        Ok(Key::Private { space: space.id(), at })
    }

    pub(super) fn bucket(&self) -> usize {
        let word = match *self {
            Key::Private { space, at } => at ^ (u64::from(space.0) << 40),
            Key::Shared { object, offset } => !offset ^ (u64::from(object) << 32),
        };
        // Fibonacci hashing: the top bits of the product depend on all bits of the word.
        ((word >> 2).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58) as usize % BUCKETS
    }
}

/// A thread asleep on one or more keys.
struct Sleeper {
    queue: WaitQueue,
    /// Which of its words woke it, or [`NOBODY`]. Set once: that is the claim to have woken this sleeper.
    by: AtomicUsize,
}

const NOBODY: usize = usize::MAX;

impl Sleeper {
    fn fire(&self, by: usize) -> bool {
        self.by.compare_exchange(NOBODY, by, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
    fn fired(&self) -> Option<usize> {
        Some(self.by.load(Ordering::Acquire)).filter(|&by| by != NOBODY)
    }
}

/// A sleeper's entry for one key. It is in the list of the bucket that `place` names, or in none.
struct Waiter {
    sleeper: Arc<Sleeper>,
    index: usize,
    bits: u32,
    place: Mutex<Option<Key>>,
}

type List = Vec<Arc<Waiter>>;

static TABLE: [Mutex<List>; BUCKETS] = [const { Mutex::new(Vec::new()) }; BUCKETS];

/// How many sleepers one pass of a wake-up takes off a list before it drops the lock and wakes them.
const BATCH: usize = 32;
type Woken = ArrayVec<Arc<Sleeper>, BATCH>;

/// Take the oldest sleepers on `key` that wait for any of `bits` off the list, `most` at most.
fn take(list: &mut List, key: Key, bits: u32, most: usize, woken: &mut Woken) {
    let most = most.min(woken.remaining_capacity());
    let mut taken = 0;
    list.retain(|waiter| {
        let mut place = waiter.place.lock();
        if taken == most || *place != Some(key) || waiter.bits & bits == 0 {
            return true;
        }
        *place = None;
        // A sleeper on several words is woken, and counted, once.
        if waiter.sleeper.fire(waiter.index) {
            woken.push(waiter.sleeper.clone());
            taken += 1;
        }
        false
    });
}

fn rouse(woken: Woken) -> usize {
    let count = woken.len();
    for sleeper in woken {
        sleeper.queue.wake_all();
    }
    count
}

/// Wake up to `most` sleepers on `key` that wait for any of `bits`. How many there were.
pub fn wake(key: Key, most: usize, bits: u32) -> usize {
    let mut total = 0;
    while total < most {
        let mut woken = Woken::new();
        let bucket = &TABLE[key.bucket()];
        take(&mut bucket.lock(), key, bits, most - total, &mut woken);
        let full = woken.is_full();
        total += rouse(woken);
        if !full {
            break;
        }
    }
    total
}

/// As `FUTEX_WAKE` for one sleeper on the word at `at`, whoever shares it; for a dying thread's `clear_child_tid`.
pub fn wake_word(space: &Space, at: u64) {
    if let Ok(key) = Key::of(space, at, false) {
        wake(key, 1, abi::FUTEX_BITSET_MATCH_ANY);
    }
}

/// One word to wait for, in [`wait`].
#[derive(Clone, Copy)]
pub struct Word {
    pub at: u64,
    pub expected: u32,
    pub private: bool,
    pub bits: u32,
}

/// Sleep until a wake-up of one of `words`, and say which. EAGAIN if a word differs from what is expected; ETIMEDOUT
/// from `deadline` on; EINTR for a signal; EFAULT for a word that cannot be read.
pub fn wait(space: &Space, words: &[Word], deadline: Option<Deadline>) -> Result<usize> {
    let sleeper = Arc::new(Sleeper { queue: WaitQueue::new(), by: AtomicUsize::new(NOBODY) });
    let mut waiters = Vec::with_capacity(words.len());
    for (index, word) in words.iter().enumerate() {
        let entered = enter(space, word, index, &sleeper);
        match entered {
            Ok(waiter) => waiters.push(waiter),
            Err(error) => return leave(&waiters, &sleeper).ok_or(error),
        }
    }
    let end = sleeper.queue.wait_till(|| sleeper.fired().is_some(), deadline, true);
    let woken = leave(&waiters, &sleeper);
    match end {
        _ if woken.is_some() => woken.ok_or(Errno::EINTR),
        WaitResult::TimedOut => Err(Errno::ETIMEDOUT),
        _ => Err(Errno::EINTR),
    }
}

/// The list of `key`'s bucket, locked, with room for `more` entries: memory is asked for without the lock.
fn lock_with_room(key: Key, more: usize) -> MutexGuard<'static, List> {
    let bucket = &TABLE[key.bucket()];
    loop {
        let list = bucket.lock();
        let need = list.len() + more;
        if need <= list.capacity() {
            return list;
        }
        drop(list);
        let mut larger = Vec::with_capacity(need.next_power_of_two());
        let mut list = bucket.lock();
        if list.len() <= larger.capacity() {
            larger.append(&mut list);
            core::mem::swap(&mut *list, &mut larger);
        }
        drop(list);
    }
}

/// Compare and enter the list, as one step.
fn enter(space: &Space, word: &Word, index: usize, sleeper: &Arc<Sleeper>) -> Result<Arc<Waiter>> {
    loop {
        let key = Key::of(space, word.at, word.private)?;
        let waiter = Arc::new(Waiter {
            sleeper: sleeper.clone(),
            index,
            bits: word.bits,
            place: Mutex::new(Some(key)),
        });
        let mut list = lock_with_room(key, 1);
        match user::peek_u32(word.at) {
            Ok(value) if value != word.expected => return Err(Errno::EAGAIN),
            Ok(_) => {
                list.push(waiter.clone());
                return Ok(waiter);
            }
            Err(_) => drop(list),
        }
        user::read_u32(word.at)?;
    }
}

/// Take the sleeper's entries off their lists. Which word woke it, if one did.
fn leave(waiters: &[Arc<Waiter>], sleeper: &Sleeper) -> Option<usize> {
    for waiter in waiters {
        // A requeue may move the entry between the look at its place and the lock: then look again.
        loop {
            let Some(key) = *waiter.place.lock() else { break };
            let mut list = TABLE[key.bucket()].lock();
            let mut place = waiter.place.lock();
            if *place == Some(key) {
                *place = None;
                list.retain(|other| !Arc::ptr_eq(other, waiter));
                break;
            }
        }
    }
    // With all entries off, nobody can fire it any more. A wake-up that came before counts, or it would be lost.
    sleeper.fired()
}

/// Whether anybody sleeps on it.
pub(super) fn is_awaited(key: Key) -> bool {
    TABLE[key.bucket()].lock().iter().any(|waiter| *waiter.place.lock() == Some(key))
}

/// Two buckets, locked in order of their index; the second is `None` where both keys are in one.
fn lock_two(a: Key, b: Key) -> (MutexGuard<'static, List>, Option<MutexGuard<'static, List>>) {
    let (a, b) = (a.bucket(), b.bucket());
    if a == b {
        (TABLE[a].lock(), None)
    } else if a < b {
        let first = TABLE[a].lock();
        (first, Some(TABLE[b].lock()))
    } else {
        let second = TABLE[b].lock();
        (TABLE[a].lock(), Some(second))
    }
}

/// Wake up to `wakes` sleepers on `from`, and let up to `moves` others sleep on `to` from now on. With `expected`, only while the
/// word at `at` (that of `from`) has this value, or EAGAIN. Returns (woken, moved).
pub fn requeue(
    (from, at): (Key, u64),
    to: Key,
    wakes: usize,
    moves: usize,
    expected: Option<u32>,
) -> Result<(usize, usize)> {
    let mut total = 0;
    loop {
        let mut woken = Woken::new();
        let (mut source, mut target) = lock_two(from, to);
        if let Some(expected) = expected.filter(|_| total == 0) {
            match user::peek_u32(at) {
                Ok(value) if value != expected => return Err(Errno::EAGAIN),
                Ok(_) => {}
                Err(_) => {
                    drop((source, target));
                    user::read_u32(at)?;
                    continue;
                }
            }
        }
        take(&mut source, from, u32::MAX, wakes - total, &mut woken);
        if woken.is_full() && total + woken.len() < wakes {
            drop((source, target));
            total += rouse(woken);
            continue;
        }
        total += woken.len();
        let moved = transfer(&mut source, target.as_deref_mut(), from, to, moves);
        drop((source, target));
        rouse(woken);
        match moved {
            Some(moved) => return Ok((total, moved)),
            None => drop(lock_with_room(to, sleepers(from))),
        }
    }
}

/// `None`, and nothing done, if the target has no room.
fn transfer(source: &mut List, target: Option<&mut List>, from: Key, to: Key, moves: usize) -> Option<usize> {
    let mut moved = 0;
    let mut moves_on = |waiter: &mut Arc<Waiter>| {
        let mut place = waiter.place.lock();
        let moves_on = moved < moves && *place == Some(from);
        if moves_on {
            *place = Some(to);
            moved += 1;
        }
        moves_on
    };
    match target {
        None => source.iter_mut().for_each(|waiter| _ = moves_on(waiter)),
        Some(target) if target.capacity() - target.len() < source.len().min(moves) => return None,
        Some(target) => target.extend(source.extract_if(.., moves_on)),
    }
    Some(moved)
}

fn sleepers(key: Key) -> usize {
    TABLE[key.bucket()].lock().len()
}

/// Wake up to `wakes` sleepers on the word at `at`; change the word at `other` as `operation` says (see `FUTEX_WAKE_OP`), and if its
/// old value compares, up to `others` of its sleepers too. How many were woken.
pub fn wake_op(
    (key, other): (Key, Key),
    at: u64,
    wakes: usize,
    others: usize,
    operation: u32,
) -> Result<usize> {
    let old = apply(at, operation)?;
    let also = compares(old, operation)?;
    let mut total = wake(key, wakes, u32::MAX);
    if also {
        total += wake(other, others, u32::MAX);
    }
    Ok(total)
}

/// `operation` packs, from the top bit down: shift the argument (1 bit), operation (3), comparison (4), argument (12, signed),
/// comparand (12, signed).
fn apply(at: u64, operation: u32) -> Result<u32> {
    let mut argument = sign12(operation >> 12);
    if operation & (abi::FUTEX_OP_OPARG_SHIFT << 28) != 0 {
        argument = 1u32.wrapping_shl(argument);
    }
    let mut old = user::read_u32(at)?;
    loop {
        let new = match operation >> 28 & 7 {
            abi::FUTEX_OP_SET => argument,
            abi::FUTEX_OP_ADD => old.wrapping_add(argument),
            abi::FUTEX_OP_OR => old | argument,
            abi::FUTEX_OP_ANDN => old & !argument,
            abi::FUTEX_OP_XOR => old ^ argument,
            _ => return Err(Errno::ENOSYS),
        };
        let seen = user::cmpxchg_u32(at, old, new)?;
        if seen == old {
            return Ok(old);
        }
        old = seen;
    }
}

fn compares(old: u32, operation: u32) -> Result<bool> {
    let (old, with) = (old as i32, sign12(operation) as i32);
    Ok(match operation >> 24 & 15 {
        abi::FUTEX_OP_CMP_EQ => old == with,
        abi::FUTEX_OP_CMP_NE => old != with,
        abi::FUTEX_OP_CMP_LT => old < with,
        abi::FUTEX_OP_CMP_GE => old >= with,
        abi::FUTEX_OP_CMP_LE => old <= with,
        abi::FUTEX_OP_CMP_GT => old > with,
        _ => return Err(Errno::ENOSYS),
    })
}

fn sign12(field: u32) -> u32 {
    (((field << 20) as i32) >> 20) as u32
}

/// What a dying thread `tid` still holds: walk its list of robust futexes (`get_robust_list(2)`), mark each held one as
/// orphaned, and wake one who waits for it. `head` is the address that `set_robust_list` gave; the thread's space must be loaded.
/// The list is the program's and may be garbage: a word that cannot be read ends the walk, and so does
/// [`abi::ROBUST_LIST_LIMIT`].
pub fn exit_robust_list(space: &Space, head: u64, tid: u32) {
    let _ = walk_robust_list(space, head, tid);
}

fn walk_robust_list(space: &Space, head: u64, tid: u32) -> Result<()> {
    // struct robust_list_head { next, futex_offset, list_op_pending }; bit 0 of a pointer says: a PI futex.
    let mut entry = user::read_u64(head)?;
    let offset = user::read_u64(head.wrapping_add(8))?;
    let pending = user::read_u64(head.wrapping_add(16))?;
    let word = |entry: u64| (entry & !1).wrapping_add(offset);
    for _ in 0..abi::ROBUST_LIST_LIMIT {
        if entry & !1 == head {
            break;
        }
        // Read on before the word is released: its new owner may free the entry.
        let next = user::read_u64(entry & !1);
        if entry & !1 != pending & !1 {
            orphan(space, word(entry), tid, entry & 1 != 0, false)?;
        }
        entry = next?;
    }
    if pending & !1 != 0 {
        orphan(space, word(pending), tid, pending & 1 != 0, true)?;
    }
    Ok(())
}

fn orphan(space: &Space, at: u64, tid: u32, pi: bool, pending: bool) -> Result<()> {
    if at & 3 != 0 {
        return Err(Errno::EINVAL);
    }
    let mut value = user::read_u32(at)?;
    // It died between the unlock and the wake-up: the wake-up would be lost.
    if pending && !pi && value == 0 {
        wake_word(space, at);
        return Ok(());
    }
    while value & abi::FUTEX_TID_MASK == tid {
        let seen = user::cmpxchg_u32(at, value, value & abi::FUTEX_WAITERS | abi::FUTEX_OWNER_DIED)?;
        if seen == value {
            if !pi && value & abi::FUTEX_WAITERS != 0 {
                wake_word(space, at);
            }
            break;
        }
        value = seen;
    }
    Ok(())
}
