//! `SO_ATTACH_FILTER` and `SO_GET_FILTER`: programs of instructions as a program gives and gets them.
#![forbid(unsafe_code)]

use super::user;
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::net::{Protocol, Socket, abi, filter};
use alloc::vec::Vec;

fn of(file: &File) -> Result<&dyn Protocol> {
    Ok(&*file.ops_as::<Socket>().ok_or(Errno::ENOTSOCK)?.0)
}

/// `struct sock_fprog`: a count, and where the instructions are.
pub(super) fn attach(file: &File, value: &[u8]) -> Result<u64> {
    const LEN: usize = 16;
    let value: &[u8; LEN] = value.try_into().map_err(|_| Errno::EINVAL)?;
    let common = of(file)?.common();
    if common.kind == abi::SOCK_STREAM && common.domain != abi::AF_UNIX || common.domain == abi::AF_NETLINK {
        return Err(Errno::EOPNOTSUPP);
    }
    common.may_change_filter()?;
    let [low, high, _, _, _, _, _, _, a, b, c, d, e, f, g, h] = *value;
    let (count, at) = (u16::from_ne_bytes([low, high]), u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
    if count == 0 || usize::from(count) > filter::LONGEST || at == 0 {
        return Err(Errno::EINVAL);
    }
    let mut raw = crate::mem::zeroed(usize::from(count) * filter::BYTES)?;
    user::copy_from(&mut raw, at)?;
    let mut program = Vec::new();
    program.try_reserve_exact(count.into())?;
    program.extend(raw.as_chunks::<{ filter::BYTES }>().0.iter().map(
        |&[a, b, if_true, if_false, c, d, e, f]| {
            let (code, k) = (u16::from_ne_bytes([a, b]), u32::from_ne_bytes([c, d, e, f]));
            filter::Instruction { code, if_true, if_false, k }
        },
    ));
    common.set_filter(Some(filter::Filter::new(program)?))?;
    Ok(0)
}

/// `SO_GET_FILTER`, whose lengths count instructions.
pub(super) fn get(file: &File, at: u64, room: usize, len_at: u64) -> Result<u64> {
    let filter = of(file)?.common().filter();
    let program = filter.as_ref().map_or(&[][..], |filter| filter.program());
    if room > 0 {
        if room < program.len() {
            return Err(Errno::EINVAL);
        }
        for (i, step) in program.iter().enumerate() {
            let mut bytes = [0; filter::BYTES];
            bytes[..2].copy_from_slice(&step.code.to_ne_bytes());
            (bytes[2], bytes[3]) = (step.if_true, step.if_false);
            bytes[4..].copy_from_slice(&step.k.to_ne_bytes());
            user::copy_to(at + (i * filter::BYTES) as u64, &bytes)?;
        }
    }
    user::write_u32(len_at, program.len() as u32)?;
    Ok(0)
}
