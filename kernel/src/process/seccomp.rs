//! Filters that a thread puts before its own system calls (`seccomp(2)`): small programs, which see a call's number and arguments and
//! say what shall become of it.
//!
//! ```text
//!   strict     read, write, _exit, rt_sigreturn; anything else is the end
//!   filters    a list, the newest first; all are asked, and the most severe answer counts
//! ```
//!
//! A filter is never taken off, and children and new programs have it too. A thread without one pays nothing: one with a filter has an
//! empty table of calls (`Caller::calls`), so each of its calls goes the way of unknown ones, which asks here first.
//!
//! Programs are those of the classic packet filter, without what reads packets: two registers, sixteen words of memory, jumps
//! forward only, so that each ends. [`Filter::new`] takes none that could do otherwise.
#![forbid(unsafe_code)]

use super::asked::Listener;
use crate::errno::{Errno, Result};
use crate::mem::TryPush;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

pub use crate::net::filter::{Instruction, LONGEST};

/// Instructions of all filters that a call passes, each filter four more than it has.
const LONGEST_PATH: usize = 32768;
const COST: usize = 4;

/// Bytes of what a filter looks at, `struct seccomp_data`: number, architecture, instruction pointer, six arguments.
pub const DATA: usize = 64;
pub const ARCHITECTURE: u32 = 0xC000_003E;

/// What a filter says, the most severe first as signed numbers go; the lower half goes with it.
pub mod action {
    pub const KILL_PROCESS: u32 = 0x8000_0000;
    pub const KILL_THREAD: u32 = 0;
    pub const TRAP: u32 = 0x0003_0000;
    pub const ERRNO: u32 = 0x0005_0000;
    /// Another process decides (see [`asked`](super::super::asked)).
    pub const ASK: u32 = 0x7fc0_0000;
    pub const TRACE: u32 = 0x7ff0_0000;
    pub const LOG: u32 = 0x7ffc_0000;
    pub const ALLOW: u32 = 0x7fff_0000;
    pub const MASK: u32 = 0xffff_0000;
    /// All that mean something here.
    pub const KNOWN: [u32; 8] = [KILL_PROCESS, KILL_THREAD, TRAP, ERRNO, ASK, TRACE, LOG, ALLOW];
}

/// What stands before a thread's calls.
#[derive(Clone, Default)]
pub enum Guard {
    #[default]
    Nothing,
    Strict,
    Filters(Arc<Filter>),
}

impl Guard {
    /// As `prctl(PR_GET_SECCOMP)` and `/proc/PID/status` tell it, and how many filters there are.
    pub fn told(&self) -> (u32, usize) {
        match self {
            Guard::Nothing => (0, 0),
            Guard::Strict => (1, 0),
            Guard::Filters(newest) => (2, newest.all().count()),
        }
    }

    /// Whether one with this guard may be given `newest` in its place: all its own are among those.
    pub fn precedes(&self, newest: &Filter) -> bool {
        match self {
            Guard::Nothing => true,
            Guard::Strict => false,
            Guard::Filters(own) => newest.all().any(|filter| core::ptr::eq(filter, &**own)),
        }
    }

    /// What shall become of a call, and which filter says so.
    pub fn judge(&self, number: u32, data: &[u8; DATA]) -> (u32, Option<&Filter>) {
        match self {
            Guard::Nothing => (action::ALLOW, None),
            Guard::Strict => match number {
                abi::__NR_read | abi::__NR_write | abi::__NR_exit | abi::__NR_rt_sigreturn => {
                    (action::ALLOW, None)
                }
                _ => (action::KILL_THREAD, None),
            },
            Guard::Filters(newest) => {
                let answers = newest.all().map(|filter| (filter.run(data), Some(filter)));
                // Of equals the newest counts, which comes first.
                let most_severe = answers.min_by_key(|(answer, _)| (answer & action::MASK) as i32);
                most_severe.unwrap_or((action::KILL_PROCESS, None))
            }
        }
    }
}

/// One filter, and those before it.
pub struct Filter {
    program: Vec<Instruction>,
    before: Option<Arc<Filter>>,
    path: usize,
    /// Whom it asks ([`action::ASK`]), and that what it does not allow is to be logged.
    listener: Option<Arc<Listener>>,
    logs: bool,
}

impl Filter {
    /// EINVAL for a program that is not sound; ENOMEM if a call would pass too many instructions.
    pub fn new(
        program: Vec<Instruction>,
        before: Option<Arc<Filter>>,
        listener: Option<Arc<Listener>>,
        logs: bool,
    ) -> Result<Arc<Filter>> {
        check(&program)?;
        let path = program.len() + COST + before.as_ref().map_or(0, |before| before.path);
        if path > LONGEST_PATH || !crate::mem::headroom(1024) {
            return Err(Errno::ENOMEM);
        }
        Ok(Arc::new(Filter { program, before, path, listener, logs }))
    }

    /// The newest first.
    fn all(&self) -> impl Iterator<Item = &Filter> {
        core::iter::successors(Some(self), |filter| filter.before.as_deref())
    }

    /// The `n`th, the oldest being 0. ENOENT without it.
    pub fn nth(&self, n: u64) -> Result<&Filter> {
        let back = (self.all().count() as u64).checked_sub(n).and_then(|left| left.checked_sub(1));
        self.all().nth(back.ok_or(Errno::ENOENT)? as usize).ok_or(Errno::ENOENT)
    }

    pub fn program(&self) -> &[Instruction] {
        &self.program
    }

    pub fn logs(&self) -> bool {
        self.logs
    }

    pub fn listener(&self) -> Option<&Arc<Listener>> {
        self.listener.as_ref()
    }

    /// Whether a call is asked about already.
    pub fn asks(&self) -> bool {
        self.all().any(|filter| filter.listener.is_some())
    }

    fn run(&self, data: &[u8; DATA]) -> u32 {
        let (mut a, mut x, mut memory) = (0u32, 0u32, [0u32; 16]);
        let mut at = 0;
        loop {
            // `check` has seen to it that there is always a next one.
            let Some(&Instruction { code, if_true, if_false, k }) = self.program.get(at) else {
                return action::KILL_PROCESS;
            };
            at += 1;
            let place = k as usize % memory.len();
            let operand = if code & op::X != 0 { x } else { k };
            match code {
                op::RETURN_K => return k,
                op::RETURN_A => return a,
                op::LOAD_DATA => a = load(data, k),
                op::LOAD_LEN => a = DATA as u32,
                op::LOADX_LEN => x = DATA as u32,
                op::LOAD => a = k,
                op::LOADX => x = k,
                op::LOAD_MEMORY => a = memory[place],
                op::LOADX_MEMORY => x = memory[place],
                op::STORE => memory[place] = a,
                op::STOREX => memory[place] = x,
                op::A_TO_X => x = a,
                op::X_TO_A => a = x,
                op::JUMP => at += k as usize,
                _ if code & 7 == op::JUMP => {
                    let holds = match code & 0xf0 {
                        op::EQUAL => a == operand,
                        op::GREATER => a > operand,
                        op::NOT_LESS => a >= operand,
                        _ => a & operand != 0,
                    };
                    at += usize::from(if holds { if_true } else { if_false });
                }
                _ => match compute(code & 0xf0, a, operand) {
                    Some(result) => a = result,
                    // Divided by nothing.
                    None => return action::KILL_THREAD,
                },
            }
        }
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.is_unused();
        }
        // One after the other: a long list would else go as deep as it is long.
        let mut next = self.before.take();
        while let Some(mut filter) = next.and_then(Arc::into_inner) {
            next = filter.before.take();
        }
    }
}

fn load(data: &[u8; DATA], at: u32) -> u32 {
    data.get(at as usize..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

fn compute(what: u16, a: u32, b: u32) -> Option<u32> {
    Some(match what {
        op::ADD => a.wrapping_add(b),
        op::SUBTRACT => a.wrapping_sub(b),
        op::MULTIPLY => a.wrapping_mul(b),
        op::DIVIDE => a.checked_div(b)?,
        op::OR => a | b,
        op::AND => a & b,
        op::XOR => a ^ b,
        op::SHIFT_LEFT => a.wrapping_shl(b),
        op::SHIFT_RIGHT => a.wrapping_shr(b),
        _ => a.wrapping_neg(),
    })
}

/// Codes of instructions, and parts of them.
mod op {
    pub const LOAD: u16 = 0;
    pub const LOADX: u16 = 1;
    pub const STORE: u16 = 2;
    pub const STOREX: u16 = 3;
    pub const LOAD_DATA: u16 = 0x20;
    pub const LOAD_MEMORY: u16 = 0x60;
    pub const LOADX_MEMORY: u16 = 0x61;
    pub const LOAD_LEN: u16 = 0x80;
    pub const LOADX_LEN: u16 = 0x81;
    pub const COMPUTE: u16 = 4;
    pub const JUMP: u16 = 5;
    pub const RETURN_K: u16 = 6;
    pub const RETURN_A: u16 = 0x16;
    pub const A_TO_X: u16 = 7;
    pub const X_TO_A: u16 = 0x87;
    /// The operand is X, not the constant.
    pub const X: u16 = 8;
    pub const ADD: u16 = 0;
    pub const SUBTRACT: u16 = 0x10;
    pub const MULTIPLY: u16 = 0x20;
    pub const DIVIDE: u16 = 0x30;
    pub const OR: u16 = 0x40;
    pub const AND: u16 = 0x50;
    pub const SHIFT_LEFT: u16 = 0x60;
    pub const SHIFT_RIGHT: u16 = 0x70;
    pub const NEGATE: u16 = 0x80;
    pub const XOR: u16 = 0xa0;
    pub const EQUAL: u16 = 0x10;
    pub const GREATER: u16 = 0x20;
    pub const NOT_LESS: u16 = 0x30;
    pub const ANY_BIT: u16 = 0x40;
}

/// EINVAL unless the program is made of known instructions, stays within itself and its memory, reads no word of that which it has
/// not written, and ends with an answer.
fn check(program: &[Instruction]) -> Result<()> {
    let len = program.len();
    let inside = |at: usize| if at < len { Ok(at) } else { Err(Errno::EINVAL) };
    let sound = |ok: bool| if ok { Ok(()) } else { Err(Errno::EINVAL) };
    // Which words are written on every way to an instruction.
    let mut ways = Vec::new();
    ways.try_reserve_exact(len)?;
    for _ in 0..len {
        ways.try_push(u16::MAX)?;
    }
    let mut written = 0u16;
    for (at, &Instruction { code, if_true, if_false, k }) in program.iter().enumerate() {
        written &= ways[at];
        match code {
            op::LOAD_DATA => sound(k % 4 == 0 && (k as usize) < DATA)?,
            op::STORE | op::STOREX => {
                sound(k < 16)?;
                written |= 1 << k;
            }
            op::LOAD_MEMORY | op::LOADX_MEMORY => sound(k < 16 && written >> k & 1 != 0)?,
            op::JUMP => {
                let to = inside((at + 1).saturating_add(k as usize))?;
                ways[to] &= written;
                written = u16::MAX;
            }
            _ if code & 7 == op::JUMP => {
                sound(matches!(code & !op::X & !7, op::EQUAL | op::GREATER | op::NOT_LESS | op::ANY_BIT))?;
                for more in [if_true, if_false] {
                    let to = inside(at + 1 + usize::from(more))?;
                    ways[to] &= written;
                }
                written = u16::MAX;
            }
            _ if code & 7 == op::COMPUTE => match code & !7 {
                op::NEGATE => {}
                op::DIVIDE => sound(k != 0)?,
                op::SHIFT_LEFT | op::SHIFT_RIGHT => sound(k < 32)?,
                other => sound(matches!(
                    other & !op::X,
                    op::ADD
                        | op::SUBTRACT
                        | op::MULTIPLY
                        | op::DIVIDE
                        | op::OR
                        | op::AND
                        | op::XOR
                        | op::SHIFT_LEFT
                        | op::SHIFT_RIGHT
                ))?,
            },
            op::LOAD
            | op::LOADX
            | op::LOAD_LEN
            | op::LOADX_LEN
            | op::RETURN_K
            | op::RETURN_A
            | op::A_TO_X
            | op::X_TO_A => {}
            _ => return Err(Errno::EINVAL),
        }
    }
    sound(program.last().is_some_and(|last| matches!(last.code, op::RETURN_K | op::RETURN_A)))
}
