//! A program's segments (Intel SDM vol. 3, chapter 3): its local descriptor table, and the selectors in its data segment registers.
//!
//! A 64-bit program has no use for segments but the bases of FS and GS. One that runs 32-bit code within (an emulator, an old program's
//! code) does: it jumps through a descriptor with a base and a limit, and the processor checks each of its accesses against that.
//!
//! ```text
//!   Arc<Table>   what `modify_ldt` makes; never changed, each call makes another
//!      │  the image has one, and each of its threads' `UserContext`
//!      ▼
//!   GDT[10..12] ─► LDTR        while a context with a table is armed; no table otherwise
//! ```
//!
//! So the table that a CPU has loaded is that of the context which is armed there, and is kept by it. Whoever disarms the context takes
//! the table out. What a program has in CS, SS, DS, ES, FS, GS is checked against the table before it is loaded ([`descriptor`]):
//! a selector that names nothing any more would fault in ring 0.
//!
//! Descriptors are code and data of ring 3, of 32 bits; never gates, never 64-bit code.

use super::descriptors;
use super::percpu::PerCpu;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::arch::asm;

/// Descriptors that a table has at most.
pub const MOST: usize = 8192;

/// A local descriptor table.
pub struct Table(Vec<u64>);

/// A segment as a program describes it.
#[derive(Clone, Copy, Default)]
pub struct Segment {
    pub base: u32,
    /// In bytes, or in pages.
    pub limit: u32,
    pub limit_in_pages: bool,
    /// 0: data, 1: data that extends downwards, 2: code, 3: conforming code.
    pub kind: u32,
    /// Code that may not be read, or data that may not be written.
    pub plain: bool,
    pub present: bool,
    /// A bit that means something to the program alone.
    pub own: bool,
}

const ACCESSED: u64 = 1 << 40;
const MAY_MORE: u64 = 1 << 41;
const CODE: u64 = 1 << 43;
const NO_GATE: u64 = 1 << 44;
const RING_3: u64 = 3 << 45;
const PRESENT: u64 = 1 << 47;
const OWN: u64 = 1 << 52;
const BITS_64: u64 = 1 << 53;
const BITS_32: u64 = 1 << 54;
const PAGES: u64 = 1 << 55;

impl Segment {
    /// As the processor reads it.
    pub fn descriptor(&self) -> u64 {
        let bit = |on: bool, bit: u64| if on { bit } else { 0 };
        let (base, limit) = (self.base as u64, self.limit as u64);
        (limit & 0xFFFF)
            | (base & 0xFF_FFFF) << 16
            | (limit >> 16 & 0xF) << 48
            | (base >> 24) << 56
            // Noted as accessed from the start: the processor need not write to the table.
            | ACCESSED
            | NO_GATE
            | RING_3
            | BITS_32
            | bit(!self.plain, MAY_MORE)
            | (self.kind as u64 & 3) << 42
            | bit(self.present, PRESENT)
            | bit(self.own, OWN)
            | bit(self.limit_in_pages, PAGES)
    }
}

impl Table {
    /// The same with another descriptor; `None` if there is no memory for it.
    pub fn with(old: Option<&Table>, at: usize, descriptor: u64) -> Option<Table> {
        let old = old.map_or(&[][..], |table| &table.0);
        let len = old.len().max(at + 1);
        let mut entries = Vec::new();
        if !crate::mem::headroom(len * size_of::<u64>()) || entries.try_reserve_exact(len).is_err() {
            return None;
        }
        entries.extend_from_slice(old);
        entries.resize(len, 0);
        entries[at] = descriptor;
        Some(Table(entries))
    }

    pub fn entries(&self) -> &[u64] {
        &self.0
    }
}

/// What a program has in the registers that the kernel does not use.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Selectors {
    pub ds: u16,
    pub es: u16,
    pub fs: u16,
    pub gs: u16,
}

impl Selectors {
    /// Whether all are null, as nearly every 64-bit program has them.
    #[inline(always)]
    pub fn are_null(self) -> bool {
        self.ds | self.es | self.fs | self.gs == 0
    }
}

/// The descriptor that a program's selector names; 0 for none.
fn descriptor(table: Option<&Arc<Table>>, selector: u16) -> u64 {
    const LOCAL: u16 = 4;
    let at = selector as usize >> 3;
    if selector & LOCAL == 0 {
        return descriptors::of_programs(at);
    }
    table.and_then(|table| table.0.get(at)).copied().unwrap_or(0)
}

/// Whether data can be read through it: what DS, ES, FS and GS may have. The null selector too.
fn is_data(table: Option<&Arc<Table>>, selector: u16) -> bool {
    let d = descriptor(table, selector);
    selector & !3 == 0 || d & PRESENT != 0 && (d & CODE == 0 || d & MAY_MORE != 0)
}

/// Whether SS may have it.
pub(super) fn is_stack(table: Option<&Arc<Table>>, selector: u16) -> bool {
    let d = descriptor(table, selector);
    selector & 3 == 3 && d & PRESENT != 0 && d & CODE == 0 && d & MAY_MORE != 0
}

/// Whether a program may go on at `rip` with this in CS.
pub(super) fn is_code(table: Option<&Arc<Table>>, selector: u16, rip: u64) -> bool {
    let d = descriptor(table, selector);
    if selector & 3 != 3 || d & PRESENT == 0 || d & CODE == 0 {
        return false;
    }
    let limit = (d & 0xFFFF) | (d >> 48 & 0xF) << 16;
    let limit = if d & PAGES != 0 { limit << 12 | 0xFFF } else { limit };
    d & BITS_64 != 0 || rip <= limit
}

/// What the registers have now.
#[inline(always)]
pub(super) fn read() -> Selectors {
    let (ds, es, fs, gs): (u16, u16, u16, u16);
    // SAFETY: reading them changes nothing.
    unsafe {
        asm!("mov {:x}, ds", "mov {:x}, es", "mov {:x}, fs", "mov {:x}, gs",
            out(reg) ds, out(reg) es, out(reg) fs, out(reg) gs, options(nomem, nostack, preserves_flags));
    }
    Selectors { ds, es, fs, gs }
}

/// Whether the registers have anything: the quick look of each switch of threads.
#[inline(always)]
pub(super) fn are_set() -> bool {
    let any: u32;
    // SAFETY: as above.
    unsafe {
        asm!("mov {any:e}, ds", "mov {one:e}, es", "or {any:e}, {one:e}", "mov {one:e}, fs", "or {any:e}, {one:e}",
            "mov {one:e}, gs", "or {any:e}, {one:e}", any = out(reg) any, one = out(reg) _, options(nomem, nostack));
    }
    any as u16 != 0
}

/// Load them; null where one names nothing that is there. The bases of FS and GS are lost: they are to be loaded after.
///
/// # Safety
/// The table, if any, is the one that this CPU has loaded; interrupts are off.
#[cold]
pub(super) unsafe fn write(selectors: Selectors, table: Option<&Arc<Table>>) {
    let sound = |selector: u16| if is_data(table, selector) { selector as u32 } else { 0 };
    let Selectors { ds, es, fs, gs } = selectors;
    // SAFETY: each is null, or names a present data segment of ring 3 (or code that can be read). What loading GS does to its base is
    // done to the program's: the kernel's own is away meanwhile, and nothing that needs it can come in between.
    unsafe {
        asm!("mov ds, {:e}", "mov es, {:e}", "mov fs, {:e}", "swapgs", "mov gs, {:e}", "swapgs",
            in(reg) sound(ds), in(reg) sound(es), in(reg) sound(fs), in(reg) sound(gs),
            options(nostack, preserves_flags));
    }
}

/// Have this CPU use the table, or none.
///
/// # Safety
/// The table stays as it is until another one is loaded here, or none.
#[cold]
pub(super) unsafe fn load(area: &PerCpu, table: Option<&Arc<Table>>) {
    let selector = match table {
        Some(table) => {
            let base = table.0.as_ptr() as u64;
            let limit = (table.0.len() * size_of::<u64>()) as u64 - 1;
            const LOCAL_TABLE: u64 = 0x82;
            let low = (limit & 0xFFFF)
                | (base & 0xFF_FFFF) << 16
                | LOCAL_TABLE << 40
                | (limit >> 16 & 0xF) << 48
                | (base >> 24 & 0xFF) << 56;
            // SAFETY: only this CPU uses its own table of descriptors, and nothing refers to these words but what is loaded here.
            unsafe { (*area.gdt.get()).set_local(low, base >> 32) };
            descriptors::LOCAL
        }
        None => 0,
    };
    // SAFETY: null, or the descriptor made just now, of a table that stays, by the caller.
    unsafe { asm!("lldt {:x}", in(reg) selector, options(nostack, preserves_flags)) };
    area.has_table.set(table.is_some());
}
