//! Memory nodes (`numa(7)`): `mbind`, `set_mempolicy`, `get_mempolicy`, `move_pages`, `migrate_pages`.
//!
//! The machine has one node, number 0, which has all memory. So every policy comes to the same, every page is where it was asked to
//! be, and nothing ever moves. But what a program says is checked as on a machine with many, kept with its task or its
//! regions, and told again to who asks.
//!
//! ```text
//!   a policy, in one word    63 .......... 16 | 15 14 13 |   8   | 2 1 0
//!                            nodes as named     flags      home    mode          0: none, which is "the task's", or "here"
//! ```
#![forbid(unsafe_code)]

use super::residence::{in_user_half, range};
use super::{Calls, foreign, words};
use crate::arch::user;
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::mem::memory;
use crate::process::run::Caller;
use crate::process::{Image, table};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;
use hafez_mm::{Access, MmError, PAGE_SIZE, VirtAddr};
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[
    (abi::__NR_mbind, mbind),
    (abi::__NR_set_mempolicy, set_mempolicy),
    (abi::__NR_get_mempolicy, get_mempolicy),
    (abi::__NR_set_mempolicy_home_node, set_home_node),
    (abi::__NR_move_pages, move_pages),
    (abi::__NR_migrate_pages, migrate_pages),
];

/// Nodes that a mask may name; all but the first have no memory.
const NODES: u64 = 1024;
/// Nodes of a mask that are kept as they were named.
const KEPT: u64 = (1 << (64 - KEPT_SHIFT)) - 1;
const KEPT_SHIFT: u32 = 16;

// Ways to choose a node, and what may be said beside.
const DEFAULT: u64 = 0;
const PREFERRED: u64 = 1;
const BIND: u64 = 2;
const INTERLEAVE: u64 = 3;
const LOCAL: u64 = 4;
const PREFERRED_MANY: u64 = 5;
const WEIGHTED: u64 = 6;
const STATIC: u64 = 1 << 15;
const RELATIVE: u64 = 1 << 14;
const BALANCING: u64 = 1 << 13;
const MODE_FLAGS: u64 = STATIC | RELATIVE | BALANCING;
const HOME: u64 = 1 << 8;
const MODE: u64 = 7;

// What `mbind` and `move_pages` shall do with pages that are elsewhere.
const MOVE: u32 = 1 << 1;
const MOVE_ALL: u32 = 1 << 2;
const STRICT: u32 = 1 << 0;
// What `get_mempolicy` is asked for.
const ASK_NODE: u64 = 1 << 0;
const ASK_ADDR: u64 = 1 << 1;
const ASK_ALLOWED: u64 = 1 << 2;

/// A set of nodes as a program names it.
#[derive(Default)]
struct Nodes {
    /// The lowest of them.
    low: u64,
    /// Whether there are any.
    some: bool,
}

impl Nodes {
    /// The mask at `at`, of `count` bits less one.
    fn read(at: u64, count: u64) -> Result<Nodes> {
        let count = count.wrapping_sub(1);
        let mut nodes = Nodes::default();
        if count == 0 || at == 0 {
            return Ok(nodes);
        }
        if count > PAGE_SIZE as u64 * 8 {
            return Err(Errno::EINVAL);
        }
        for n in 0..count.div_ceil(64) {
            let [mut word] = words::get(at.wrapping_add(8 * n))?;
            if n == count / 64 {
                word &= (1 << (count % 64)) - 1;
            }
            if word != 0 && 64 * n >= NODES {
                return Err(Errno::EINVAL);
            }
            nodes.some |= word != 0;
            if n == 0 {
                nodes.low = word;
            }
        }
        Ok(nodes)
    }

    fn has_ours(&self) -> bool {
        self.low & 1 != 0
    }
}

/// Mode and flags of what a program asks for.
fn mode(word: u64) -> Result<u64> {
    let word = word as u32 as u64;
    let (mode, flags) = (word & !MODE_FLAGS, word & MODE_FLAGS);
    let both = flags & STATIC != 0 && flags & RELATIVE != 0;
    let balances = flags & BALANCING != 0 && mode != BIND && mode != PREFERRED_MANY;
    if mode > WEIGHTED || both || balances { Err(Errno::EINVAL) } else { Ok(word) }
}

/// The policy of this mode over these nodes.
fn policy(word: u64, nodes: &Nodes) -> Result<u64> {
    let (mode, fixed) = (word & MODE, word & (STATIC | RELATIVE));
    match mode {
        DEFAULT if nodes.some => return Err(Errno::EINVAL),
        DEFAULT => return Ok(DEFAULT),
        PREFERRED if !nodes.some && fixed == 0 => return Ok(LOCAL),
        LOCAL if nodes.some || fixed != 0 => return Err(Errno::EINVAL),
        LOCAL => return Ok(LOCAL),
        _ => {}
    }
    // Relative ones are numbers among those that there are: each is the one.
    let chosen = if word & RELATIVE != 0 { nodes.some } else { nodes.has_ours() };
    if !chosen {
        return Err(Errno::EINVAL);
    }
    let named = if fixed != 0 { nodes.low & KEPT } else { 1 };
    Ok(word | named << KEPT_SHIFT)
}

fn set_mempolicy(caller: &mut Caller) -> Result<u64> {
    let [word, at, count, ..] = caller.args();
    let word = mode(word)?;
    let policy = policy(word, &Nodes::read(at, count)?)?;
    caller.task.nodes.store(policy, Relaxed);
    Ok(0)
}

fn mbind(caller: &mut Caller) -> Result<u64> {
    let [at, len, word, mask, count, flags] = caller.args();
    let word = mode(word)?;
    let nodes = Nodes::read(mask, count)?;
    let flags = flags as u32;
    if flags & !(STRICT | MOVE | MOVE_ALL) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & MOVE_ALL != 0 && !caller.task.cred().may(cap::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let range = range(at, len, Errno::EINVAL)?;
    if range.is_empty() {
        return Ok(0);
    }
    let policy = policy(word, &nodes)?;
    let (part, whole) = in_user_half(range);
    // Going back to none may pass over holes, but there must be something.
    let strict = policy != DEFAULT;
    if part.is_empty() || strict && !whole {
        return Err(Errno::EFAULT);
    }
    let mut any = false;
    let done = memory().set_nodes(caller.space(), part, strict, &mut |_| {
        any = true;
        Ok(policy)
    });
    match done {
        Ok(()) if any => Ok(0),
        Ok(()) | Err(MmError::NotMapped) => Err(Errno::EFAULT),
        Err(error) => Err(error.into()),
    }
}

fn get_mempolicy(caller: &mut Caller) -> Result<u64> {
    let [mode_at, mask, count, at, flags, _] = caller.args();
    let invalid = mask != 0 && count < 1
        || flags & !(ASK_NODE | ASK_ADDR | ASK_ALLOWED) != 0
        || flags & ASK_ALLOWED != 0 && flags & (ASK_NODE | ASK_ADDR) != 0
        || flags & (ASK_ADDR | ASK_ALLOWED) == 0 && at != 0;
    if invalid {
        return Err(Errno::EINVAL);
    }
    let (mut answer, nodes);
    if flags & ASK_ALLOWED != 0 {
        (answer, nodes) = (0, 1);
    } else {
        let policy = match flags & ASK_ADDR {
            0 => caller.task.nodes.load(Relaxed),
            _ => caller.space().region_at(VirtAddr(at)).ok_or(Errno::EFAULT)?.nodes,
        };
        answer = policy & (MODE | MODE_FLAGS);
        nodes = policy >> KEPT_SHIFT;
        if flags & ASK_NODE != 0 {
            let spread = matches!(policy & MODE, INTERLEAVE | WEIGHTED);
            match flags & ASK_ADDR {
                0 if !spread => return Err(Errno::EINVAL),
                0 => {}
                _ => memory()
                    .fault(caller.space(), VirtAddr(at), Access { write: false, exec: false })
                    .map_err(|_| Errno::EFAULT)?,
            }
            // The node of the page, or where the next page would go.
            answer = 0;
        }
    }
    if mode_at != 0 {
        user::write_u32(mode_at, answer as u32)?;
    }
    if mask != 0 {
        let bytes = (count - 1).div_ceil(64).saturating_mul(8);
        if bytes > PAGE_SIZE as u64 {
            return Err(Errno::EINVAL);
        }
        for n in 0..bytes / 8 {
            words::put(mask.wrapping_add(8 * n), [if n == 0 { nodes } else { 0 }])?;
        }
    }
    Ok(0)
}

fn set_home_node(caller: &mut Caller) -> Result<u64> {
    let [at, len, node, flags, ..] = caller.args();
    if flags != 0 || node != 0 {
        return Err(Errno::EINVAL);
    }
    let range = range(at, len, Errno::EINVAL)?;
    if range.is_empty() {
        return Ok(0);
    }
    let mut found = false;
    let done =
        memory().set_nodes(caller.space(), in_user_half(range).0, false, &mut |old| match old & MODE {
            DEFAULT => Ok(old),
            BIND | PREFERRED_MANY => {
                found = true;
                Ok(old | HOME)
            }
            _ => Err(MmError::Unsupported),
        });
    done?;
    if found { Ok(0) } else { Err(Errno::ENOENT) }
}

/// The memory of another, whom the caller may look into; of himself for 0.
fn image_of(caller: &Caller, pid: u64) -> Result<Arc<Image>> {
    if pid as i32 == 0 {
        return Ok(caller.image.clone());
    }
    let task = table::task(pid as i32).ok_or(Errno::ESRCH)?;
    foreign::may_look(caller, &task)?;
    task.image().ok_or(Errno::EINVAL)
}

fn move_pages(caller: &mut Caller) -> Result<u64> {
    let [pid, count, pages, nodes, status, flags] = caller.args();
    let flags = flags as u32;
    if flags & !(MOVE | MOVE_ALL) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & MOVE_ALL != 0 && !caller.task.cred().may(cap::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let image = image_of(caller, pid)?;
    for n in 0..count {
        let at = user::read_u64(pages.wrapping_add(8 * n))?;
        if nodes != 0 {
            let node = user::read_u32(nodes.wrapping_add(4 * n))?;
            if node != 0 {
                return Err(Errno::ENODEV);
            }
        }
        // It is where it is wanted; or it is nowhere.
        let here = match memory().is_resident(image.space(), VirtAddr(at)) {
            Some(true) => 0,
            Some(false) => -(Errno::ENOENT.code() as i32),
            None => -(Errno::EFAULT.code() as i32),
        };
        user::write_u32(status.wrapping_add(4 * n), here as u32)?;
        if n % 512 == 511 && caller.task.has_work() {
            // A list may be as long as it likes.
            if caller.task.is_ending() {
                return Err(Errno::EINTR);
            }
        }
    }
    Ok(0)
}

fn migrate_pages(caller: &mut Caller) -> Result<u64> {
    let [pid, count, from, to, ..] = caller.args();
    Nodes::read(from, count)?;
    let to = Nodes::read(to, count)?;
    let image = image_of(caller, pid);
    if let Err(error @ (Errno::ESRCH | Errno::EPERM)) = image {
        return Err(error);
    }
    let others = to.low & !1 != 0 || to.some && to.low == 0;
    if others && !caller.task.cred().may(cap::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    if !to.has_ours() {
        return Err(Errno::EINVAL);
    }
    // All pages are on the one node already.
    image.map(|_| 0)
}
