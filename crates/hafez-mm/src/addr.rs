//! Addresses: five newtypes, so that no arithmetic crosses from one kind to another by accident.
//!
//! ```text
//!   VirtAddr  a byte in a space          Vpn = VirtAddr / 4096   a page
//!   PhysAddr  a byte of the machine      Pfn = PhysAddr / 4096   a frame
//!   PageRange [start, end) of pages      PfnRange [start, end) of frames
//! ```
//!
//! A `Pfn` has 32 bits: 16 TiB of RAM. A user `Vpn` has 35 (47-bit addresses).

use core::fmt;

/// Bytes of a page and of a frame.
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// The lowest page a program may map (64 KiB, as Linux's `vm.mmap_min_addr`): a null pointer with an offset still faults.
pub const USER_START: Vpn = Vpn(16);
/// The first page past the user half: the last page below 2^47 stays unused, as on Linux, because a `sysret` to a
/// non-canonical address would fault in the kernel.
pub const USER_END: Vpn = Vpn(0x7_FFFF_FFFF);

/// The number of a frame: physical address / 4096.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Pfn(pub u32);

/// The number of a page: virtual address / 4096.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Vpn(pub u64);

/// A virtual address in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct VirtAddr(pub u64);

/// A physical address in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct PhysAddr(pub u64);

impl Pfn {
    /// The address of the frame's first byte.
    pub const fn addr(self) -> PhysAddr {
        PhysAddr((self.0 as u64) << PAGE_SHIFT)
    }
    /// The `n`th frame after this one.
    #[inline]
    pub const fn add(self, n: u32) -> Pfn {
        Pfn(self.0 + n)
    }
}

impl PhysAddr {
    /// The frame that holds this byte.
    pub const fn frame(self) -> Pfn {
        Pfn((self.0 >> PAGE_SHIFT) as u32)
    }
}

impl Vpn {
    /// The address of the page's first byte.
    pub const fn addr(self) -> VirtAddr {
        VirtAddr(self.0 << PAGE_SHIFT)
    }
    /// The `n`th page after this one.
    #[inline]
    pub const fn add(self, n: u64) -> Vpn {
        Vpn(self.0 + n)
    }
    /// Pages from `start` to this one. The caller knows that `start <= self`.
    #[inline]
    pub const fn since(self, start: Vpn) -> u64 {
        self.0 - start.0
    }
}

impl VirtAddr {
    /// The page that holds this byte.
    pub const fn page(self) -> Vpn {
        Vpn(self.0 >> PAGE_SHIFT)
    }
    /// Offset of the byte in its page.
    pub const fn offset(self) -> usize {
        (self.0 & (PAGE_SIZE as u64 - 1)) as usize
    }
    /// Whether the address is the first byte of a page.
    pub const fn is_aligned(self) -> bool {
        self.offset() == 0
    }
}

impl fmt::Debug for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
impl fmt::Debug for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{:#x}", self.0)
    }
}

/// The pages `start <= page < end`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PageRange {
    /// First page.
    pub start: Vpn,
    /// First page after the range.
    pub end: Vpn,
}

impl PageRange {
    /// `[start, end)`; empty if `end <= start`.
    pub const fn new(start: Vpn, end: Vpn) -> Self {
        PageRange { start, end }
    }
    /// The `pages` pages from `start` on. `None` where that overflows.
    pub fn sized(start: Vpn, pages: u64) -> Option<Self> {
        Some(PageRange { start, end: Vpn(start.0.checked_add(pages)?) })
    }
    /// The pages that hold the bytes `[at, at + len)`, `at` rounded down and the end rounded up. `None` where that overflows.
    pub fn of_bytes(at: VirtAddr, len: u64) -> Option<Self> {
        let end = at.0.checked_add(len)?.checked_add(PAGE_SIZE as u64 - 1)? >> PAGE_SHIFT;
        Some(PageRange { start: at.page(), end: Vpn(end) })
    }
    /// How many pages.
    #[inline]
    pub const fn len(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }
    /// Whether no page is in it.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.end.0 <= self.start.0
    }
    /// Whether `page` is in it.
    #[inline]
    pub const fn contains(&self, page: Vpn) -> bool {
        self.start.0 <= page.0 && page.0 < self.end.0
    }
    /// Whether all of `other` is in it.
    pub const fn covers(&self, other: &PageRange) -> bool {
        self.start.0 <= other.start.0 && other.end.0 <= self.end.0
    }
    /// The pages in both.
    pub fn intersect(&self, other: &PageRange) -> PageRange {
        PageRange { start: self.start.max(other.start), end: self.end.min(other.end) }
    }
    /// Whether all of it lies where programs may map.
    pub const fn in_user_half(&self) -> bool {
        self.start.0 >= USER_START.0 && self.end.0 <= USER_END.0 && self.start.0 <= self.end.0
    }
    /// Each page in turn.
    pub fn iter(&self) -> impl Iterator<Item = Vpn> + use<> {
        (self.start.0..self.end.0).map(Vpn)
    }
}

/// The frames `start <= frame < end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PfnRange {
    /// First frame.
    pub start: Pfn,
    /// First frame after the range.
    pub end: Pfn,
}

impl PfnRange {
    /// How many frames.
    #[inline]
    pub const fn len(&self) -> u32 {
        self.end.0.saturating_sub(self.start.0)
    }
    /// Whether no frame is in it.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.end.0 <= self.start.0
    }
}
