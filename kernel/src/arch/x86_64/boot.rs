//! What the loader told: memory map, command line, devices. And the order in which the machine comes up.
//!
//! The frames behind the image are laid out here, before there is an allocator:
//!
//! ```text
//!   1 MiB          image_end                                                   first free
//!   | image ........ | page tables of the kernel half | frame table (hafez-mm) | usable …
//! ```

use super::{console, cpu, entry, paging, percpu, smp, time};
use arrayvec::ArrayVec;
use core::cell::UnsafeCell;
use hafez_mm::lock::Once;
use hafez_mm::{Config, PAGE_SIZE, Pfn, PfnRange};

/// Ranges of RAM that we can remember; QEMU tells three to five.
const MAX_RANGES: usize = 32;
/// QEMU's microvm has at most 24 slots a controller, two controllers.
const MAX_VIRTIO: usize = 48;
/// A Linux kernel takes 2048 bytes.
const MAX_COMMAND_LINE: usize = 2048;

/// One virtio-mmio device, as `virtio_mmio.device=512@0xfeb00e00:12` on the command line told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioMmio {
    /// Physical address of its registers.
    pub base: u64,
    /// Bytes of them.
    pub size: u64,
    /// Its interrupt line (GSI).
    pub irq: u8,
}

/// What the loader told.
pub struct BootInfo {
    /// RAM that is free for use: without the kernel's image, its page tables and the frame table.
    pub usable: ArrayVec<PfnRange, MAX_RANGES>,
    /// Where the frame table goes.
    pub frame_table: Pfn,
    /// Frames from 0 to the last one that is RAM.
    pub total_frames: u32,
    /// Frames of RAM there are in all, the kernel's own included.
    pub ram_frames: u32,
    /// The kernel's command line.
    pub command_line: &'static str,
    /// The virtio-mmio slots, empty ones included.
    pub virtio: ArrayVec<VirtioMmio, MAX_VIRTIO>,
}

static INFO: Once<BootInfo> = Once::new();

/// The command line's bytes, saved before their frames are given away.
struct CommandLine(UnsafeCell<[u8; MAX_COMMAND_LINE]>);
// SAFETY: written once, at boot.
unsafe impl Sync for CommandLine {}
static COMMAND_LINE: CommandLine = CommandLine(UnsafeCell::new([0; MAX_COMMAND_LINE]));

impl BootInfo {
    /// The value of `key=value` on the command line.
    pub fn option(&self, key: &str) -> Option<&'static str> {
        option_of(self.command_line, key)
    }
}

/// The value of `key=value` in the text.
pub(super) fn option_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// The one that this kernel was started with.
pub fn info() -> &'static BootInfo {
    INFO.get().expect("boot information is read first")
}

/// `hvm_start_info`, version 1 (Xen: public/arch-x86/hvm/start_info.h).
#[repr(C)]
#[derive(Clone, Copy)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    nr_modules: u32,
    modlist: u64,
    cmdline: u64,
    rsdp: u64,
    memmap: u64,
    memmap_entries: u32,
    _reserved: u32,
}
const START_MAGIC: u32 = 0x336E_C578;

#[repr(C)]
#[derive(Clone, Copy)]
struct MapEntry {
    addr: u64,
    size: u64,
    kind: u32,
    _reserved: u32,
}
const KIND_RAM: u32 = 1;

unsafe extern "C" {
    /// The rest of the kernel (`main.rs`), with the machine up.
    fn kernel_main() -> !;
}

/// The first Rust: on the boot stack, with the first page tables.
pub(super) extern "C" fn start(start_info: u64) -> ! {
    percpu::enter(0);
    let raw = read_start_info(start_info);
    cpu::init();
    let image = entry::image();
    let mut next = Pfn(((image.end - entry::BASE) / PAGE_SIZE as u64) as u32);
    paging::init(&raw.ram, &raw.virtio, &mut next);
    let frame_table = next;
    let meta_end = Pfn(next.0 + Config::meta_frames(raw.total_frames));
    let guard = Pfn(((image.stack_guard - entry::BASE) / PAGE_SIZE as u64) as u32);
    let tables = image.boot_tables;
    let tables = [tables.0, tables.1].map(|at| Pfn(((at - entry::BASE) / PAGE_SIZE as u64) as u32));
    // With several CPUs the first page tables and a frame below 1 MiB are kept, to start the others with.
    let others = smp::wanted(raw.command_line) > 1;
    let keep = |(start, end): (Pfn, Pfn)| if others { (start, start) } else { (start, end) };
    let spare_tables = keep((tables[0], tables[1]));
    let start_page = if others { (smp::START_PAGE, Pfn(smp::START_PAGE.0 + 1)) } else { (Pfn(1), Pfn(1)) };
    let mut usable = ArrayVec::new();
    let mut ram_frames = 0;
    for range in &raw.ram {
        ram_frames += range.len();
        // Frame 0 stays out, so that no frame has address 0.
        let holes = [
            (Pfn(0), Pfn(1)),
            start_page,
            (Pfn(((image.start - entry::BASE) / PAGE_SIZE as u64) as u32), spare_tables.0),
            (spare_tables.1, guard),
            (Pfn(guard.0 + 1), meta_end),
        ];
        let mut from = range.start;
        for (start, end) in holes {
            let part = PfnRange { start: from, end: Pfn(start.0.min(range.end.0)) };
            if !part.is_empty() && !usable.is_full() {
                usable.push(part);
            }
            from = Pfn(from.0.max(end.0));
        }
        let part = PfnRange { start: from, end: range.end };
        if !part.is_empty() && !usable.is_full() {
            usable.push(part);
        }
    }
    INFO.call_once(|| BootInfo {
        usable,
        frame_table,
        total_frames: raw.total_frames,
        ram_frames,
        command_line: raw.command_line,
        virtio: raw.virtio,
    });
    percpu::init_tables();
    super::apic::init();
    time::init(info().option("hafez.tsc_hz").and_then(|hz| hz.parse().ok()));
    super::user::init();
    smp::init();
    // SAFETY: defined in main.rs with this signature.
    unsafe { kernel_main() }
}

struct Raw {
    ram: ArrayVec<PfnRange, 16>,
    total_frames: u32,
    command_line: &'static str,
    virtio: ArrayVec<VirtioMmio, MAX_VIRTIO>,
}

fn read_start_info(at: u64) -> Raw {
    /// The loader's structures lie in the first GiB, which the first page tables map.
    fn read<T: Copy>(at: u64) -> T {
        assert!(at < 1 << 30);
        // SAFETY: mapped (checked), and plain data in every bit pattern.
        unsafe { core::ptr::read_unaligned((paging::DIRECT_MAP + at) as *const T) }
    }
    let info: StartInfo = read(at);
    assert!(info.magic == START_MAGIC, "not started by a PVH loader");
    assert!(info.version >= 1 && info.memmap_entries > 0, "the loader gave no memory map");
    let mut ram = ArrayVec::new();
    for i in 0..info.memmap_entries as u64 {
        let entry: MapEntry = read(info.memmap + i * size_of::<MapEntry>() as u64);
        if entry.kind != KIND_RAM || ram.is_full() {
            continue;
        }
        let page = PAGE_SIZE as u64;
        let start = Pfn(entry.addr.div_ceil(page) as u32);
        let end = Pfn(((entry.addr + entry.size) / page) as u32);
        if start < end {
            ram.push(PfnRange { start, end });
        }
    }
    let total_frames = ram.iter().map(|r| r.end.0).max().unwrap_or(0);
    // SAFETY: nobody else looks yet.
    let saved = unsafe { &mut *COMMAND_LINE.0.get() };
    let mut length = 0;
    while info.cmdline != 0 && length < MAX_COMMAND_LINE {
        match read::<u8>(info.cmdline + length as u64) {
            0 => break,
            byte => saved[length] = if byte.is_ascii() { byte } else { b'?' },
        }
        length += 1;
    }
    let command_line = core::str::from_utf8(&saved[..length]).unwrap_or("");
    let virtio = command_line.split_ascii_whitespace().filter_map(parse_virtio).take(MAX_VIRTIO).collect();
    Raw { ram, total_frames, command_line, virtio }
}

/// `virtio_mmio.device=SIZE@BASE:IRQ[:ID]`; the size may have a K.
fn parse_virtio(word: &str) -> Option<VirtioMmio> {
    fn number(text: &str) -> Option<u64> {
        match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        }
    }
    let (size, rest) = word.strip_prefix("virtio_mmio.device=")?.split_once('@')?;
    let mut rest = rest.split(':');
    let base = number(rest.next()?)?;
    let irq = number(rest.next()?)?.try_into().ok()?;
    let size = match size.strip_suffix(['K', 'k']) {
        Some(kib) => number(kib)? << 10,
        None => number(size)?,
    };
    Some(VirtioMmio { base, size, irq })
}

/// What the boot stack had for the start alone, as address and bytes: everything but its uppermost part, which becomes the
/// idle thread's, with a hole below. Once, on the uppermost part.
pub fn spare_stack() -> (*mut u8, usize) {
    let image = entry::image();
    let hole = image.stack_top - super::STACK_BYTES as u64 - PAGE_SIZE as u64;
    paging::unmap_image_page(hole);
    let start = image.stack_guard + PAGE_SIZE as u64;
    (start as *mut u8, (hole - start) as usize)
}

/// Say that the machine cannot be started, before anything works.
pub(super) fn cannot_start(why: &str) -> ! {
    console::write("hafez: ");
    console::write(why);
    console::write("\n");
    super::exit(super::EXIT_FAILED)
}
