//! The notes of a core file: what is known of the process beside its memory.
//!
//! | note | of | what |
//! |---|---|---|
//! | `PRSTATUS` | each thread | numbers, times, signals, general registers |
//! | `PRPSINFO` | the process | name, arguments, user |
//! | `SIGINFO` | | the signal that ended it |
//! | `AUXV` | | the auxiliary vector |
//! | `FILE` | | which files are mapped where |
//! | `FPREGSET`, `X86_XSTATE` | each thread | the FPU's registers, as `fxsave` and `xsave` store them |
//!
//! The thread that wrote comes first; debuggers take it for the one that failed.

use super::super::process::Usage;
use super::super::run::Caller;
use super::super::signal::SigInfo;
use super::Thread;
use crate::arch::fpu;
use crate::errno::Result;
use crate::process::foreign;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use hafez_mm::{PAGE_SIZE, Vpn};

const NT_PRSTATUS: u32 = 1;
const NT_FPREGSET: u32 = 2;
const NT_PRPSINFO: u32 = 3;
const NT_AUXV: u32 = 6;
const NT_X86_XSTATE: u32 = 0x202;
const NT_FILE: u32 = 0x4649_4c45;
const NT_SIGINFO: u32 = 0x5349_4749;

/// More than this is not said of mapped files.
const MOST_FILES: usize = 4 << 20;
/// Bytes of arguments in `PRPSINFO`, the final zero included.
const ARGUMENTS: usize = 80;

/// The notes as they stand in the file.
pub struct Notes(Vec<u8>);

impl Notes {
    /// ENOMEM if there is no room for what cannot be left out.
    pub(super) fn new(caller: &Caller, info: &SigInfo, first: &Thread, others: &[Thread]) -> Result<Notes> {
        let mut notes = Notes(Vec::new());
        notes.add(b"CORE", NT_PRSTATUS, &prstatus(first, info.signo))?;
        notes.add(b"CORE", NT_PRPSINFO, &prpsinfo(caller))?;
        notes.add(b"CORE", NT_SIGINFO, info.to_words().map(u64::to_ne_bytes).as_flattened())?;
        let layout = caller.image.layout();
        let mut auxv = Vec::new();
        auxv.try_reserve_exact(8 * layout.auxv.len())?;
        layout.auxv.iter().for_each(|word| auxv.extend_from_slice(&word.to_ne_bytes()));
        notes.add(b"CORE", NT_AUXV, &auxv)?;
        if let Ok(files) = files(caller) {
            notes.add(b"CORE", NT_FILE, &files)?;
        }
        notes.add_fpu(first)?;
        for thread in others {
            notes.add(b"CORE", NT_PRSTATUS, &prstatus(thread, info.signo))?;
            notes.add_fpu(thread)?;
        }
        Ok(notes)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn add_fpu(&mut self, thread: &Thread) -> Result<()> {
        self.add(b"CORE", NT_FPREGSET, &thread.shown.legacy())?;
        if fpu::xcr0() != 0 {
            let (state, len) = thread.shown.xstate();
            self.add(b"LINUX", NT_X86_XSTATE, &state[..len])?;
        }
        Ok(())
    }

    /// Lengths and kind, the name, the rest; the last two each filled up to four bytes.
    fn add(&mut self, name: &[u8], kind: u32, what: &[u8]) -> Result<()> {
        self.0.try_reserve(32 + what.len())?;
        for word in [name.len() as u32 + 1, what.len() as u32, kind] {
            self.0.extend_from_slice(&word.to_ne_bytes());
        }
        for part in [name, &[0], what] {
            self.0.extend_from_slice(part);
            if part != name {
                self.0.resize(self.0.len().next_multiple_of(4), 0);
            }
        }
        Ok(())
    }
}

/// A struct of C, filled from its beginning on.
struct Fields<const N: usize>([u8; N], usize);

impl<const N: usize> Fields<N> {
    fn new() -> Self {
        Fields([0; N], 0)
    }
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        let end = (self.1 + bytes.len()).min(N);
        self.0[self.1..end].copy_from_slice(&bytes[..end - self.1]);
        self.1 = end;
        self
    }
    fn ints(&mut self, values: &[i32]) -> &mut Self {
        values.iter().for_each(|value| {
            self.put(&value.to_ne_bytes());
        });
        self
    }
    fn longs(&mut self, values: &[u64]) -> &mut Self {
        values.iter().for_each(|value| {
            self.put(&value.to_ne_bytes());
        });
        self
    }
}

/// `struct timeval`.
fn time(ns: u64) -> [u64; 2] {
    [ns / 1_000_000_000, ns % 1_000_000_000 / 1000]
}

/// `struct elf_prstatus`.
fn prstatus(thread: &Thread, signo: u32) -> [u8; 336] {
    let (task, process) = (&thread.task, &thread.task.process);
    // The first thread answers for all, as elsewhere.
    let own: Usage = if task.tid() == process.pid { process.usage() } else { task.usage() };
    let children = process.times.lock().children;
    let mut fields = Fields::new();
    fields.ints(&[signo as i32, 0, 0, signo as i32 & 0xffff]);
    fields.longs(&[task.pending_set().0, task.mask().0]);
    fields.ints(&[task.tid(), process.parent(), process.group(), process.session()]);
    for ns in [own.user, own.system, children.user, children.system] {
        fields.longs(&time(ns));
    }
    fields.longs(thread.shown.words()).ints(&[1]);
    fields.0
}

/// `struct elf_prpsinfo`.
fn prpsinfo(caller: &Caller) -> [u8; 136] {
    let (task, process) = (&caller.task, &caller.task.process);
    let cred = task.cred();
    let nice = task.nice.load(Relaxed);
    let mut fields = Fields::new();
    fields.put(&[0, b'R', 0, nice as u8, 0, 0, 0, 0]).longs(&[0]);
    fields.ints(&[cred.uid as i32, cred.gid as i32]);
    fields.ints(&[process.pid, process.parent(), process.group(), process.session()]);
    fields.put(&task.name()).put(&arguments(caller));
    fields.0
}

/// The beginning of its arguments, with blanks between them.
fn arguments(caller: &Caller) -> [u8; ARGUMENTS] {
    let (start, end) = caller.image.layout().args;
    let mut text = [0; ARGUMENTS];
    let len = (end.saturating_sub(start) as usize).min(ARGUMENTS - 1);
    if foreign::read(&caller.image, start, &mut text[..len]).is_err() {
        return [0; ARGUMENTS];
    }
    text[..len].iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
    text
}

/// How many, the unit of offsets; of each mapping where it begins and ends, and the offset; then the names.
fn files(caller: &Caller) -> Result<Vec<u8>> {
    let (mut table, mut names, mut count) = (Vec::new(), Vec::new(), 0u64);
    table.try_reserve(16)?;
    table.resize(16, 0);
    let mut next = Vpn(0);
    loop {
        let mut found = None;
        caller.space().regions_from(next, &mut |region| {
            found = Some(region.clone());
            false
        });
        let Some(region) = found else { break };
        next = region.range.end;
        let Some(label) = region.label.as_ref().filter(|label| label.is_of_file()) else { continue };
        if table.len() + names.len() + label.path.len() + 32 > MOST_FILES {
            break;
        }
        table.try_reserve(24)?;
        names.try_reserve(label.path.len() + 1)?;
        let page = PAGE_SIZE as u64;
        for word in [region.range.start.addr().0, region.range.end.addr().0, region.offset / page] {
            table.extend_from_slice(&word.to_ne_bytes());
        }
        names.extend_from_slice(&label.path);
        names.push(0);
        count += 1;
    }
    table[..8].copy_from_slice(&count.to_ne_bytes());
    table[8..16].copy_from_slice(&(PAGE_SIZE as u64).to_ne_bytes());
    table.try_reserve(names.len())?;
    table.extend_from_slice(&names);
    Ok(table)
}
