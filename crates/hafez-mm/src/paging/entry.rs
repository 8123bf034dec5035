//! One entry of a page table: what *is*, as the processor reads it.
//!
//! ```text
//!   present   frame << 12 | rights | accessed | dirty | 1        the processor translates
//!   hidden    frame << 12 | accessed | dirty | 2                 a page is there, but the region forbids all access
//!   swap      slot << 12 | 4                                     the bytes are in a slot
//!   absent    0                                                  never touched, or given back
//! ```
//!
//! The decoding is total: whatever 64 bits stand in a table, [`Entry::decode`] gives exactly one reading. No other
//! code looks at the bits. A page whose bytes are on their way is not told here but at the one place that all who
//! want it meet: the frame in the object's page map, or in the swap cache, that carries [`Flags::READING`].
//!
//! [`Flags::READING`]: crate::frame::meta::Flags::READING
//!
//! An entry of an upper node links to the next node, or, one level above the leaf, may say what all 512 entries of the leaf
//! say together ([`super::huge`]).

use crate::Rights;
use crate::addr::Pfn;

const PRESENT: u64 = 1 << 0;
const HIDDEN: u64 = 1 << 1;
const SWAP: u64 = 1 << 2;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXEC: u64 = 1 << 63;
const FRAME: u64 = 0xFFFF_FFFF << 12;

/// What an entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    Absent,
    Present {
        frame: Pfn,
        /// No rights at all: the page is kept but hidden from every access (`PROT_NONE`).
        rights: Rights,
        accessed: bool,
        dirty: bool,
    },
    Swap {
        slot: u32,
    },
}

impl Entry {
    /// A page that has not been used yet through this entry.
    #[inline]
    pub const fn fresh(frame: Pfn, rights: Rights) -> Entry {
        Entry::Present { frame, rights, accessed: false, dirty: false }
    }

    #[inline]
    pub fn decode(bits: u64) -> Entry {
        let frame = Pfn(((bits & FRAME) >> 12) as u32);
        let (accessed, dirty) = (bits & ACCESSED != 0, bits & DIRTY != 0);
        if bits & PRESENT != 0 {
            let mut rights = Rights::READ;
            rights.set(Rights::WRITE, bits & WRITE != 0);
            rights.set(Rights::EXEC, bits & NO_EXEC == 0);
            Entry::Present { frame, rights, accessed, dirty }
        } else if bits & HIDDEN != 0 {
            Entry::Present { frame, rights: Rights::empty(), accessed, dirty }
        } else if bits & SWAP != 0 {
            Entry::Swap { slot: frame.0 }
        } else {
            Entry::Absent
        }
    }

    #[inline(always)]
    pub fn encode(self) -> u64 {
        match self {
            Entry::Absent => 0,
            Entry::Swap { slot } => (slot as u64) << 12 | SWAP,
            Entry::Present { frame, rights, accessed, dirty } => {
                let used = if accessed { ACCESSED } else { 0 } | if dirty { DIRTY } else { 0 };
                (frame.0 as u64) << 12 | used | access_bits(rights)
            }
        }
    }
}

/// Whether processors may write through it.
#[inline(always)]
pub fn is_writable(bits: u64) -> bool {
    bits & (PRESENT | WRITE) == PRESENT | WRITE
}

/// The same page for another user, who has not used it yet and may not write to it.
#[inline(always)]
pub fn inherited(bits: u64) -> u64 {
    let unwritten = if is_writable(bits) { bits & !WRITE } else { bits };
    unwritten & !USED
}

/// The same page with other rights; `None` where there is no page.
#[inline]
pub fn with_rights(bits: u64, rights: Rights) -> Option<u64> {
    named(bits).map(|_| bits & (FRAME | USED) | access_bits(rights))
}

/// x86 knows no page that can be written or executed but not read, so any right implies reading.
fn access_bits(rights: Rights) -> u64 {
    if rights.is_empty() {
        return HIDDEN;
    }
    let mut bits = PRESENT | USER;
    if rights.contains(Rights::WRITE) {
        bits |= WRITE;
    }
    if !rights.contains(Rights::EXEC) {
        bits |= NO_EXEC;
    }
    bits
}

/// The bits by which the processor notes use: what a racing access may still set in a present entry.
pub const USED: u64 = ACCESSED | DIRTY;
/// The accessed bit alone.
pub const ACCESSED_BIT: u64 = ACCESSED;
/// The dirty bit alone.
pub const DIRTY_BIT: u64 = DIRTY;
/// The right to write alone, in a present entry.
pub const WRITE_BIT: u64 = WRITE;

/// The frame that a present entry names.
#[inline]
pub fn named(bits: u64) -> Option<Pfn> {
    (bits & (PRESENT | HIDDEN) != 0).then_some(Pfn(((bits & FRAME) >> 12) as u32))
}

/// An entry of an upper node: the next node's frame, all rights (the last level decides).
pub fn link(node: Pfn) -> u64 {
    (node.0 as u64) << 12 | PRESENT | WRITE | USER | ACCESSED
}

/// As [`link`], to a leaf that other spaces may link to as well: nobody writes through this way.
pub fn guarded_link(node: Pfn) -> u64 {
    link(node) & !WRITE
}

/// Whether an upper entry is a guarded link.
pub fn is_guarded(bits: u64) -> bool {
    bits & WRITE == 0
}

/// The node that an upper entry links to; none where it is large or closed.
#[inline]
pub fn linked(bits: u64) -> Option<Pfn> {
    (bits & (PRESENT | LARGE) == PRESENT).then_some(Pfn(((bits & FRAME) >> 12) as u32))
}

/// An entry of the node above a leaf: 512 frames in a row from `first` on, used and written.
pub fn large(first: Pfn, rights: Rights) -> u64 {
    Entry::Present { frame: first, rights, accessed: true, dirty: true }.encode() | LARGE
}

/// The first of the frames that an upper entry names, if it is large.
#[inline]
pub fn large_frame(bits: u64) -> Option<Pfn> {
    (bits & (PRESENT | LARGE) == PRESENT | LARGE).then_some(Pfn(((bits & FRAME) >> 12) as u32))
}

/// A link that no processor follows yet.
pub fn closed_link(leaf: Pfn) -> u64 {
    link(leaf) & !PRESENT
}

/// The leaf that a closed link would lead to.
pub fn closed(bits: u64) -> Option<Pfn> {
    (bits != 0 && bits & PRESENT == 0).then_some(Pfn(((bits & FRAME) >> 12) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_survives_encoding() {
        for bits in 0..32u8 {
            let rights = Rights::from_bits_truncate(bits & 7);
            let rights = if rights.is_empty() { rights } else { rights | Rights::READ };
            let entry = Entry::Present {
                frame: Pfn(0xABCD_EF01),
                rights,
                accessed: bits & 8 != 0,
                dirty: bits & 16 != 0,
            };
            assert_eq!(Entry::decode(entry.encode()), entry);
        }
        for entry in [Entry::Absent, Entry::Swap { slot: 0 }, Entry::Swap { slot: u32::MAX }] {
            assert_eq!(Entry::decode(entry.encode()), entry);
        }
    }
}
