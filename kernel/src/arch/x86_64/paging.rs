//! The kernel's half of every address space, and the translation buffer.
//!
//! ```text
//!   0xFFFF_8000_0000_0000  direct map: all RAM, and device registers (uncached)   NX, writable; image's text and rodata: read-only
//!   0xFFFF_C000_0000_0000  kernel stacks, a hole below each                      NX, writable
//!   0xFFFF_D000_0000_0000  kernel heap, a frame at a time                        NX, writable
//!   0xFFFF_FFFF_8000_0000  the image                                             each part with its one kind of access
//! ```
//!
//! The four entries of the root exist from boot and never change, so a new space copies them and is done. The direct
//! map uses 2 MiB pages (1 GiB where the CPU has them and RAM fills one), but 4 KiB pages where the image lies, for its
//! read-only parts must be read-only there too.
//!
//! All kernel entries are global: they outlive a change of space in the translation buffer. They are never removed,
//! except those of stacks and of the heap, which are flushed on every CPU.

use super::{boot::VirtioMmio, cpu, entry, percpu, regs, shootdown};
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use hafez_mm::{
    Flush, FlushPages, Leaving, PAGE_SIZE, Pfn, PfnRange, PhysMap, SpaceId, VirtAddr, Vpn, lock::Mutex,
};

/// Where frame 0 is seen.
pub const DIRECT_MAP: u64 = 0xFFFF_8000_0000_0000;
/// Where kernel stacks are.
pub const STACKS: u64 = 0xFFFF_C000_0000_0000;

/// Where the kernel heap is, and how long it may grow.
pub const HEAP: u64 = 0xFFFF_D000_0000_0000;
const HEAP_BYTES: u64 = 512 << 30;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const WRITE_THROUGH: u64 = 1 << 3;
const UNCACHED: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const HUGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// Accessed and dirty are set from the start, so that the processor never has to write them.
const KERNEL: u64 = PRESENT | GLOBAL | ACCESSED | DIRTY;
const TEXT: u64 = KERNEL;
const RODATA: u64 = KERNEL | NO_EXECUTE;
const DATA: u64 = KERNEL | NO_EXECUTE | WRITABLE;
const DEVICE: u64 = DATA | UNCACHED | WRITE_THROUGH;
/// Entries above the last level: rights are decided below.
const TABLE: u64 = PRESENT | WRITABLE | ACCESSED;

const PAGE: u64 = PAGE_SIZE as u64;
const MIB2: u64 = 2 << 20;
const GIB: u64 = 1 << 30;

/// Above this many pages, reloading CR3 is cheaper than forgetting them one by one.
const FLUSH_ONE_BY_ONE: usize = 32;

static KERNEL_ROOT: AtomicU32 = AtomicU32::new(0);

/// For whoever changes the kernel's own tables.
static KERNEL_TABLES: Mutex<()> = Mutex::new(());

/// All of RAM, and the device registers below 4 GiB (uncached).
#[inline(always)]
pub const fn phys() -> PhysMap {
    // SAFETY: the direct map covers every frame that the loader told and lives as long as the kernel.
    unsafe { PhysMap::new(DIRECT_MAP as *mut u8) }
}

/// The root of the kernel's own space: its upper half is what every space has.
pub fn kernel_root() -> Pfn {
    Pfn(KERNEL_ROOT.load(Ordering::Relaxed))
}

/// A table's entry.
fn entry(table: Pfn, index: usize) -> *mut u64 {
    // Any 9-bit index is inside the frame.
    phys().ptr(table).cast::<u64>().wrapping_add(index & 511)
}

/// Gives frames for tables; `None` when there are none.
type Source<'a> = &'a mut dyn FnMut() -> Option<Pfn>;

/// Follow `at` from the kernel's root down to the table of `level` (3: of 1 GiB pages, 2: of 2 MiB, 1: of 4 KiB), making
/// the tables that are missing; the entry of `at` there.
fn walk(at: u64, level: u32, source: Source<'_>) -> Option<*mut u64> {
    let mut table = kernel_root();
    for above in (level + 1..=4).rev() {
        let slot = entry(table, (at >> (12 + 9 * (above - 1))) as usize);
        // SAFETY: tables of the kernel half are frames of ours; entries are only written here, and only added.
        unsafe {
            if *slot & PRESENT == 0 {
                let new = source()?;
                phys().zero(new);
                *slot = new.addr().0 | TABLE;
            }
            assert!(above == 4 || *slot & HUGE == 0, "a large page where a table was expected");
            table = Pfn(((*slot & ADDRESS) >> 12) as u32);
        }
    }
    Some(entry(table, (at >> (12 + 9 * (level - 1))) as usize))
}

fn put(at: u64, level: u32, value: u64, source: Source<'_>) -> Option<()> {
    let slot = walk(at, level, source)?;
    // SAFETY: from `walk`.
    unsafe { *slot = if level > 1 { value | HUGE } else { value } };
    Some(())
}

/// Build the kernel half and change to it. Frames for the tables are taken from `next` on.
pub(super) fn init(ram: &[PfnRange], virtio: &[VirtioMmio], next: &mut Pfn) {
    let source: Source<'_> = &mut || {
        let frame = *next;
        next.0 += 1;
        Some(frame)
    };
    let root = source().expect("endless");
    phys().zero(root);
    KERNEL_ROOT.store(root.0, Ordering::Relaxed);

    let image = entry::image();
    let physical = |at: u64| at - entry::BASE;
    let rights = |at: u64| match at {
        at if at < image.text_end => TEXT,
        at if at < image.rodata_end => RODATA,
        _ => DATA,
    };

    let mut at = image.start;
    while at < image.end {
        if at != image.stack_guard && !(image.boot_tables.0..image.boot_tables.1).contains(&at) {
            put(at, 1, physical(at) | rights(at), source);
        }
        at += PAGE;
    }

    // Read-only parts of the image are small-paged in the direct map too.
    let small_until = physical(image.rodata_end).next_multiple_of(MIB2);
    for range in ram {
        let (mut at, end) = (range.start.addr().0, range.end.addr().0);
        while at < end {
            if at < small_until {
                let inside = (physical(image.start)..physical(image.rodata_end)).contains(&at);
                put(DIRECT_MAP + at, 1, at | if inside { RODATA } else { DATA }, source);
                at += PAGE;
            } else if cpu::features().huge_1g && at.is_multiple_of(GIB) && at + GIB <= end {
                put(DIRECT_MAP + at, 3, at | DATA, source);
                at += GIB;
            } else {
                // A last part of less than 2 MiB has nothing behind it that could be reached by accident.
                put(DIRECT_MAP + at, 2, (at & !(MIB2 - 1)) | DATA, source);
                at = (at + MIB2) & !(MIB2 - 1);
            }
        }
    }
    // These tables exist from boot, as every space copies their entries.
    walk(STACKS, 3, source);
    walk(HEAP, 3, source);

    for base in [super::apic::LOCAL, super::apic::IO, super::apic::IO + 0x1_0000] {
        map_device(base, PAGE, source);
    }
    for device in virtio {
        map_device(device.base, device.size, source);
    }
    load_kernel_space();
    enable();
}

/// With the kernel's tables in use: global pages, and tags where the CPU has them.
pub(super) fn enable() {
    let pcid = cpu::features().pcid;
    // SAFETY: the new tables map all that the kernel uses; global pages are now allowed.
    unsafe { regs::set_cr4(regs::cr4() | 1 << 7 | (pcid as u64) << 17) };
    TAGGED.store(pcid, Ordering::Relaxed);
}

/// Whether the processor keeps translations of several spaces apart.
static TAGGED: AtomicBool = AtomicBool::new(false);

/// Device registers, uncached, in the direct map.
fn map_device(base: u64, size: u64, source: Source<'_>) {
    let mut at = base & !(MIB2 - 1);
    while at < base + size {
        put(DIRECT_MAP + at, 2, at | DEVICE, source);
        at += MIB2;
    }
}

/// Map one page of a kernel stack. `false` where a table was needed and `tables` is empty.
pub fn map_stack_page(at: u64, frame: Pfn, tables: &mut ArrayVec<Pfn, 2>) -> bool {
    assert!((STACKS..STACKS + GIB).contains(&at));
    map_page(at, frame, tables)
}

/// Map one page of the heap. `false` where a table was needed and `tables` is empty, or the window is full.
pub fn map_heap_page(at: u64, frame: Pfn, tables: &mut ArrayVec<Pfn, 2>) -> bool {
    (HEAP..HEAP + HEAP_BYTES).contains(&at) && map_page(at, frame, tables)
}

fn map_page(at: u64, frame: Pfn, tables: &mut ArrayVec<Pfn, 2>) -> bool {
    let _tables = KERNEL_TABLES.lock();
    put(at, 1, frame.addr().0 | DATA, &mut || tables.pop()).is_some()
}

/// Pages that can be unmapped at once.
pub const UNMAP_AT_ONCE: usize = 16;

/// Unmap up to [`UNMAP_AT_ONCE`] pages of a kernel stack from `at` on; `freed` gets their frames, when no CPU can use them any more.
pub fn unmap_stack_pages(at: u64, count: usize, freed: &mut dyn FnMut(Pfn)) {
    assert!((STACKS..STACKS + GIB).contains(&at));
    unmap_pages(at, count, freed);
}

/// The same for the heap.
pub fn unmap_heap_pages(at: u64, count: usize, freed: &mut dyn FnMut(Pfn)) {
    assert!((HEAP..HEAP + HEAP_BYTES).contains(&at));
    unmap_pages(at, count, freed);
}

fn unmap_pages(at: u64, count: usize, freed: &mut dyn FnMut(Pfn)) {
    let mut pages: ArrayVec<Vpn, UNMAP_AT_ONCE> = ArrayVec::new();
    let mut frames: ArrayVec<Pfn, UNMAP_AT_ONCE> = ArrayVec::new();
    {
        let _tables = KERNEL_TABLES.lock();
        for at in (0..count).map(|page| at + page as u64 * PAGE) {
            let Some(slot) = walk(at, 1, &mut || None) else { continue };
            // SAFETY: from `walk`; by the callers, nobody uses what is there.
            let old = unsafe { core::mem::replace(&mut *slot, 0) };
            if old & PRESENT != 0 {
                regs::invlpg(at);
                pages.push(VirtAddr(at).page());
                frames.push(Pfn(((old & ADDRESS) >> 12) as u32));
            }
        }
    }
    shootdown::kernel(&pages);
    frames.into_iter().for_each(freed);
}

/// Make a hole in the image's data.
pub(super) fn unmap_image_page(at: u64) {
    let slot = walk(at, 1, &mut || None).expect("the image is mapped");
    // SAFETY: from `walk`; the caller knows that nobody uses the page.
    unsafe { *slot = 0 };
    regs::invlpg(at);
}

/// Spaces whose translations the buffer keeps apart, where it can (process-context identifiers). Few do: a program that
/// ran six others ago has lost its translations anyhow.
pub const MAX_TAGS: usize = 6;

/// Per CPU: whose translations each tag has, as the space's number + 1; 0 where they must not be used any more. Others write
/// nothing but 0.
pub struct Tags([AtomicU64; MAX_TAGS]);

impl Tags {
    pub const fn new() -> Self {
        Tags([const { AtomicU64::new(0) }; MAX_TAGS])
    }
    /// What the buffer keeps of this space is not to be used again.
    pub fn disown(&self, id: SpaceId) {
        for tag in &self.0 {
            let _ = tag.compare_exchange(id.0 as u64 + 1, 0, Ordering::SeqCst, Ordering::Relaxed);
        }
    }
}

/// In CR3: keep the tag's translations.
const NO_FLUSH: u64 = 1 << 63;

/// Use this space's translations from now on, under a tag below [`MAX_TAGS`]. If the tag was last used for the same space,
/// what the buffer kept of it is used again; if not, nothing of it is, and `anew` says by which root to go from now on. The space is known by its own
/// root, whatever a CPU goes by; `name` is what [`loaded`] will say.
#[inline(always)]
pub fn load_space(
    root: Pfn,
    id: SpaceId,
    tag: usize,
    name: *const (),
    way: &mut Pfn,
    anew: impl FnOnce() -> Pfn,
) {
    let area = percpu::this();
    let whose = id.0 as u64 + 1;
    area.loaded.set(name);
    // Told first, then the tag looked at, then loaded (see `shootdown`).
    area.shared.loaded.swap(root.0, Ordering::SeqCst);
    let kept = area.shared.tags.0[tag].swap(whose, Ordering::SeqCst) == whose;
    if !kept {
        *way = anew();
    }
    let value = if TAGGED.load(Ordering::Relaxed) {
        // Tag 0 of the processor is the kernel's own root.
        way.addr().0 | (tag as u64 + 1) | if kept { NO_FLUSH } else { 0 }
    } else {
        way.addr().0
    };
    // SAFETY: every root has the kernel's half.
    unsafe { regs::set_cr3(value) };
}

/// What was given with the space that is loaded; null for the kernel's own.
#[inline(always)]
pub fn loaded() -> *const () {
    percpu::this().loaded.get()
}

/// Whether the thread that runs has no space of its own: then what is loaded is nobody's need, and may go when it is flushed.
#[inline(always)]
pub fn set_lazy(lazy: bool) {
    percpu::this().lazy.set(lazy);
}

/// Use the kernel's own root: the lower half is empty.
pub fn load_kernel_space() {
    // SAFETY: the kernel's half is in it.
    unsafe { regs::set_cr3(kernel_root().addr().0) };
    let area = percpu::this();
    area.loaded.set(core::ptr::null());
    area.shared.loaded.store(0, Ordering::SeqCst);
}

/// Make no CPU in `flush.cpus` use an old translation of these pages.
#[inline]
pub fn flush(flush: &Flush<'_>) {
    let others = flush.cpus.0 & !(1 << percpu::this().id.get());
    if others == 0 {
        forget_own(flush);
    } else {
        shootdown::space(others, flush, || forget_own(flush));
    }
}

fn forget_own(flush: &Flush<'_>) {
    if percpu::this().shared.loaded.load(Ordering::Relaxed) != flush.root.0 {
        // Not in use: what a tag keeps of it is not used again.
        percpu::this().shared.tags.disown(flush.space);
        return;
    }
    match flush.pages {
        FlushPages::List(pages) if pages.len() <= FLUSH_ONE_BY_ONE => {
            for page in pages {
                regs::invlpg(page.addr().0);
            }
        }
        // SAFETY: what is loaded is loaded again, under the same tag, which forgets all but global translations.
        _ => unsafe { regs::set_cr3(regs::cr3()) },
    }
}

/// Another CPU has changed pages (`None`: any) of the space with this root, or (root 0) of the kernel's half; and this one is perhaps to
/// give up its way there.
pub(super) fn forget_here(id: SpaceId, root: Pfn, pages: Option<&[Vpn]>, leaving: Option<&Leaving<'_>>) {
    let Some(leaving) = leaving else { return forget_pages(id, root, pages) };
    let here = percpu::this().id.get() as usize;
    leaving.cut(here);
    forget_pages(id, root, None);
    leaving.done(here);
}

fn forget_pages(id: SpaceId, root: Pfn, pages: Option<&[Vpn]>) {
    if root.0 != 0 && percpu::this().shared.loaded.load(Ordering::Relaxed) != root.0 {
        // It was in use when the request was posted: what its tag keeps is not used again.
        return percpu::this().shared.tags.disown(id);
    }
    if root.0 != 0 && percpu::this().lazy.get() {
        return leave_space();
    }
    match pages {
        Some(pages) if pages.len() <= FLUSH_ONE_BY_ONE => {
            for page in pages {
                regs::invlpg(page.addr().0);
            }
        }
        // SAFETY: as above.
        _ => unsafe { regs::set_cr3(regs::cr3()) },
    }
}

/// Leave a space that nobody here needs, or that is to be loaded anew; nothing of it is used again.
pub fn leave_space() {
    let tags = &percpu::this().shared.tags;
    if TAGGED.load(Ordering::Relaxed) {
        let tag = (regs::cr3() & 0xFFF) as usize;
        if let Some(tag) = tag.checked_sub(1).and_then(|tag| tags.0.get(tag)) {
            tag.store(0, Ordering::SeqCst);
        }
    }
    load_kernel_space();
}
