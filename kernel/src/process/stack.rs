//! The first stack of a program: arguments, environment, auxiliary vector.
//!
//! ```text
//!    top     ─ 8 zero bytes
//!              path that was executed, "x86_64", 16 random bytes
//!              environment strings
//!              argument strings
//!              auxiliary vector, pairs up to AT_NULL
//!              envp[0] … NULL
//!              argv[0] … NULL
//!    rsp     ─ argc                                     (rsp is a multiple of 16)
//! ```
//!
//! The strings wait in [`Strings`] while the old program's memory is still there to read them from, and go to the new
//! stack in one piece.

use super::elf;
use crate::arch::user;
use crate::errno::{Errno, Result};
use crate::mem::memory;
use crate::random;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hafez_mm::{Backing, Label, MapRequest, PAGE_SIZE, Rights, Space, USER_END, VirtAddr, Where};
use linux_raw_sys::auxvec as aux;

/// The longest single string, its NUL included (`MAX_ARG_STRLEN`).
pub const MAX_STRING: usize = 32 * PAGE_SIZE;
/// Pages below the strings that are there from the start.
const FIRST_PAGES: u64 = 33;
/// Pages by which the top of the stack is moved down at random: 16 GiB.
const RANDOM_PAGES: u64 = (1 << 22) - 1;
/// A stack without limit gets this much all the same: mappings must lie somewhere.
const MOST: u64 = 1 << 34;

/// Strings one after the other, each with its NUL.
#[derive(Default, Clone)]
pub struct Strings {
    bytes: Vec<u8>,
    pub count: usize,
}

impl Strings {
    /// Add one; without NUL. E2BIG if it is too long, or the sum is.
    pub fn push(&mut self, text: &[u8], limit: usize) -> Result<()> {
        if text.len() >= MAX_STRING || self.bytes.len() + text.len() + 1 + 8 * (self.count + 1) > limit {
            return Err(Errno::E2BIG);
        }
        self.bytes.try_reserve(text.len() + 1).map_err(|_| Errno::ENOMEM)?;
        self.bytes.extend_from_slice(text);
        self.bytes.push(0);
        self.count += 1;
        Ok(())
    }

    /// The strings, without their NULs.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.split(|b| *b == 0).take(self.count)
    }

    /// Bytes, and the pointers to them, as they count against the limit.
    pub fn size(&self) -> usize {
        self.bytes.len() + 8 * self.count
    }

    /// Replace the first string by several.
    pub fn replace_first(&mut self, by: &[&[u8]], limit: usize) -> Result<()> {
        let old = core::mem::take(self);
        for text in by {
            self.push(text, limit)?;
        }
        for text in old.iter().skip(1) {
            self.push(text, limit)?;
        }
        Ok(())
    }

    /// Addresses of the strings when the first byte is at `at`.
    fn addresses(&self, at: u64) -> impl Iterator<Item = u64> {
        let mut next = at;
        self.iter().map(move |text| {
            let here = next;
            next += text.len() as u64 + 1;
            here
        })
    }
}

/// What goes to the stack.
pub struct Contents<'a> {
    pub args: &'a Strings,
    pub env: &'a Strings,
    /// The path that was executed.
    pub path: &'a [u8],
    /// The auxiliary vector but for what points into the stack itself.
    pub aux: &'a [(u32, u64)],
}

/// Where things went.
pub struct Stack {
    pub pointer: u64,
    pub args: (u64, u64),
    pub env: (u64, u64),
    pub aux: Box<[u64]>,
}

/// The highest address of the stack.
pub fn top(randomize: bool) -> u64 {
    let down = if randomize { random::u64() & RANDOM_PAGES } else { 0 };
    USER_END.addr().0 - down * PAGE_SIZE as u64
}

/// Map a stack below `top` in the loaded space and fill it. `limit`: bytes it may grow to.
#[inline(never)]
pub fn build(
    space: &Arc<Space>,
    top: u64,
    exec: bool,
    limit: u64,
    randomize: bool,
    what: &Contents<'_>,
) -> Result<Stack> {
    let strings = what.args.size() + what.env.size() + what.path.len();
    let pages = FIRST_PAGES + (strings / PAGE_SIZE) as u64 + 1;
    let mut rights = Rights::READ | Rights::WRITE;
    rights.set(Rights::EXEC, exec);
    let at = Where::Fixed(VirtAddr(top - pages * PAGE_SIZE as u64));
    let label = Arc::new(Label { path: Box::from(&b"[stack]"[..]), dev: 0, ino: 0 });
    let most = (limit.min(MOST) / PAGE_SIZE as u64).max(pages);
    let request = elf::request(at, pages, rights, Backing::Anonymous, Some(label));
    memory().map(space, MapRequest { grows_down: Some(most), ..request })?;

    let mut at = top - 8;
    let mut place = |bytes: &[u8]| -> Result<u64> {
        at -= bytes.len() as u64;
        user::copy_to(at, bytes)?;
        Ok(at)
    };
    let path = place(&[what.path, b"\0"].concat())?;
    let env = place(&what.env.bytes)?;
    let args = place(&what.args.bytes)?;
    let platform = place(b"x86_64\0")?;
    let mut seed = [0u8; 16];
    random::fill(&mut seed);
    let seed = place(&seed)?;
    if randomize {
        // Programs shall not find their frames at one place in the page.
        at -= random::u64() % 8192 / 16 * 16;
    }

    let mut aux: Vec<u64> = what.aux.iter().flat_map(|(key, value)| [*key as u64, *value]).collect();
    for (key, value) in
        [(aux::AT_RANDOM, seed), (aux::AT_EXECFN, path), (aux::AT_PLATFORM, platform), (aux::AT_NULL, 0)]
    {
        aux.extend([key as u64, value]);
    }
    let (args_end, env_end) = (args + what.args.bytes.len() as u64, env + what.env.bytes.len() as u64);
    let mut words: Vec<u64> = Vec::new();
    words.try_reserve(what.args.count + what.env.count + aux.len() + 3).map_err(|_| Errno::ENOMEM)?;
    words.push(what.args.count as u64);
    words.extend(what.args.addresses(args));
    words.push(0);
    words.extend(what.env.addresses(env));
    words.push(0);
    words.extend(&aux);
    let pointer = (at - 8 * words.len() as u64) & !15;
    for (i, piece) in words.chunks(64).enumerate() {
        let mut bytes = [0u8; 512];
        for (slot, word) in bytes.chunks_exact_mut(8).zip(piece) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        user::copy_to(pointer + 512 * i as u64, &bytes[..8 * piece.len()])?;
    }
    Ok(Stack { pointer, args: (args, args_end), env: (env, env_end), aux: aux.into_boxed_slice() })
}
