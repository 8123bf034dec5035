//! Filters on sockets: small programs that say of each packet whether, and how much of it, it is taken (`SO_ATTACH_FILTER`, `socket(7)`).
//!
//! The machine is the one of packet capture ("classic BPF": McCanne and Jacobson, 1993): an accumulator, an index, sixteen words of memory, jumps
//! forwards only. It sees the packet as the receiver's protocol gets it: UDP's with its header, a raw IPv4 socket's with IP's, a Unix
//! datagram as it was sent. Numbers in it are read as the network writes them. What reads past the end is answered by 0: nothing of it
//! is taken. Streams have no packets here; those of Unix sockets have none on Linux either.
//!
//! Beside the packet a program may ask for its length, its protocol, its kind and its interface. Other places outside of the packet
//! (headers below the protocol's, marks, hashes) are not there: a program that names one is refused.

use crate::errno::{Errno, Result};
use crate::mem;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// One instruction, as `struct sock_filter` has it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Instruction {
    pub code: u16,
    pub if_true: u8,
    pub if_false: u8,
    pub k: u32,
}

/// Instructions that a program can have, and bytes of one.
pub const LONGEST: usize = 4096;
pub const BYTES: usize = 8;
const WORDS: usize = 16;

/// Places outside of the packet (`SKF_AD_OFF`), and what stands there.
const BESIDE: u32 = -0x1000i32 as u32;
const PROTOCOL: u32 = BESIDE;
const KIND: u32 = BESIDE + 4;
const INTERFACE: u32 = BESIDE + 8;
/// `ETH_P_*` of the two networks.
pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;
/// The highest offset within a packet: what is above means headers below it, or what stands beside.
const WITHIN: u32 = i32::MAX as u32;

const LD: u16 = 0;
const LDX: u16 = 1;
const ST: u16 = 2;
const STX: u16 = 3;
const ALU: u16 = 4;
const JMP: u16 = 5;
const RET: u16 = 6;
const ABS: u16 = 0x20;
const IND: u16 = 0x40;
const MEM: u16 = 0x60;
const LEN: u16 = 0x80;
/// Four times the low half of a byte: the length of an IPv4 header.
const MSH: u16 = 0xa0;
const HALF: u16 = 0x08;
const BYTE: u16 = 0x10;
/// The operand is the index, not the constant.
const X: u16 = 8;
const DIVIDE: u16 = 0x30;
const LEFT: u16 = 0x60;
const RIGHT: u16 = 0x70;
const NEGATE: u16 = 0x80;
const REMAINDER: u16 = 0x90;
const XOR: u16 = 0xa0;

/// A packet as a filter sees it.
pub struct View<'a> {
    /// What comes before the bytes: a header that is not kept with them.
    pub head: &'a [u8],
    pub bytes: &'a [u8],
    /// `ETH_P_*`; 0 for what is of no network.
    pub protocol: u16,
    pub interface: u32,
}

impl View<'_> {
    fn len(&self) -> usize {
        self.head.len() + self.bytes.len()
    }
    fn byte(&self, at: usize) -> Option<u32> {
        let byte = match at.checked_sub(self.head.len()) {
            None => self.head.get(at),
            Some(at) => self.bytes.get(at),
        };
        byte.map(|&byte| byte.into())
    }
    /// `None` past the end.
    fn load(&self, at: u32, size: u16) -> Option<u32> {
        match at {
            PROTOCOL => return Some(self.protocol.into()),
            // To this machine.
            KIND => return Some(0),
            INTERFACE => return Some(self.interface),
            _ if at > WITHIN => return None,
            _ => {}
        }
        let count = match size {
            BYTE => 1,
            HALF => 2,
            _ => 4,
        };
        (0..count).try_fold(0, |sum, i| Some(sum << 8 | self.byte(at as usize + i)?))
    }
}

/// A program that is sound.
pub struct Filter(Vec<Instruction>);

impl Filter {
    /// As it was given (`SO_GET_FILTER`).
    pub fn program(&self) -> &[Instruction] {
        &self.0
    }

    /// EINVAL for a program that is not sound.
    pub fn new(program: Vec<Instruction>) -> Result<Arc<Filter>> {
        if program.is_empty() || program.len() > LONGEST {
            return Err(Errno::EINVAL);
        }
        check(&program)?;
        if !mem::headroom(1024) {
            return Err(Errno::ENOMEM);
        }
        Ok(Arc::new(Filter(program)))
    }

    /// How many bytes of the packet are taken, all of them for more than it has; 0: it is as if it had not come.
    pub fn run(&self, packet: &View<'_>) -> usize {
        self.answer(packet).unwrap_or(0) as usize
    }

    fn answer(&self, packet: &View<'_>) -> Option<u32> {
        let (mut a, mut x, mut memory) = (0u32, 0u32, [0u32; WORDS]);
        let mut at = 0;
        loop {
            let &Instruction { code, if_true, if_false, k } = self.0.get(at)?;
            at += 1;
            let operand = if code & X != 0 { x } else { k };
            let place = k as usize % WORDS;
            match code & 7 {
                LD | LDX => {
                    let value = match code & 0xe0 {
                        ABS => packet.load(k, code & 0x18)?,
                        IND => packet.load(x.wrapping_add(k), code & 0x18)?,
                        MEM => memory[place],
                        LEN => packet.len() as u32,
                        MSH => (packet.load(k, BYTE)? & 15) * 4,
                        _ => k,
                    };
                    *(if code & 7 == LD { &mut a } else { &mut x }) = value;
                }
                ST => memory[place] = a,
                STX => memory[place] = x,
                ALU => a = compute(code & 0xf0, a, operand)?,
                JMP if code & 0xf0 == 0 => at += k as usize,
                JMP => {
                    let holds = match code & 0xf0 {
                        0x10 => a == operand,
                        0x20 => a > operand,
                        0x30 => a >= operand,
                        _ => a & operand != 0,
                    };
                    at += usize::from(if holds { if_true } else { if_false });
                }
                RET => return Some(if code & 0x18 == 0x10 { a } else { k }),
                _ if code & 0xf8 == 0x80 => a = x,
                _ => x = a,
            }
        }
    }
}

/// `None` for a division by nothing.
fn compute(what: u16, a: u32, b: u32) -> Option<u32> {
    Some(match what {
        0x00 => a.wrapping_add(b),
        0x10 => a.wrapping_sub(b),
        0x20 => a.wrapping_mul(b),
        DIVIDE => a.checked_div(b)?,
        0x40 => a | b,
        0x50 => a & b,
        LEFT => a.wrapping_shl(b),
        RIGHT => a.wrapping_shr(b),
        REMAINDER => a.checked_rem(b)?,
        XOR => a ^ b,
        _ => a.wrapping_neg(),
    })
}

/// EINVAL unless each instruction is one, no jump leaves the program, no word of memory is read that may not have been written, and the last
/// one answers.
fn check(program: &[Instruction]) -> Result<()> {
    let sound = |ok: bool| if ok { Ok(()) } else { Err(Errno::EINVAL) };
    let len = program.len();
    let mut ways = mem::zeroed(2 * len)?;
    ways.fill(0xff);
    let narrow = |ways: &mut [u8], at: usize, written: u16| {
        let [low, high] = written.to_le_bytes();
        ways[2 * at] &= low;
        ways[2 * at + 1] &= high;
    };
    let mut written = 0u16;
    for (at, &Instruction { code, if_true, if_false, k }) in program.iter().enumerate() {
        written &= u16::from_le_bytes([ways[2 * at], ways[2 * at + 1]]);
        let beside = k > WITHIN;
        match code {
            // LD of a word, half or byte by place; LD and LDX of a constant, a word of memory, the length; LDX of a header's length.
            0x20 | 0x28 | 0x30 => sound(!beside || matches!(k, PROTOCOL | KIND | INTERFACE))?,
            0x40 | 0x48 | 0x50 => {}
            0xb1 => sound(!beside)?,
            0x00 | 0x01 | 0x80 | 0x81 => {}
            0x60 | 0x61 => sound(k < WORDS as u32 && written >> k & 1 != 0)?,
            ST | STX => {
                sound(k < WORDS as u32)?;
                written |= 1 << k;
            }
            _ if code & 7 == ALU && code <= 0xff => {
                let (what, constant) = (code & 0xf0, code & X == 0);
                sound(what <= XOR && (what != NEGATE || constant))?;
                sound(!constant || !matches!(what, DIVIDE | REMAINDER) || k != 0)?;
                sound(!constant || !matches!(what, LEFT | RIGHT) || k < 32)?;
            }
            JMP => {
                let to = (at + 1).saturating_add(k as usize);
                sound(to < len)?;
                narrow(&mut ways, to, written);
                written = u16::MAX;
            }
            _ if code & 7 == JMP && code <= 0x4d && code & 0xf0 != 0 => {
                for more in [if_true, if_false] {
                    let to = at + 1 + usize::from(more);
                    sound(to < len)?;
                    narrow(&mut ways, to, written);
                }
                written = u16::MAX;
            }
            // RET of the constant or the accumulator; TAX, TXA.
            0x06 | 0x16 | 0x07 | 0x87 => {}
            _ => return Err(Errno::EINVAL),
        }
    }
    let last = program[len - 1].code;
    sound(last == RET || last == RET | 0x10)
}
