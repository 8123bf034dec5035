//! Executing a program.
use super::run::Caller;
use crate::errno::{Errno, Result};

/// `personality(2)`: load everything at fixed addresses.
pub const ADDR_NO_RANDOMIZE: u32 = 0x0040000;

pub fn execve(
    _caller: &mut Caller,
    _dir: i32,
    _path: u64,
    _argv: u64,
    _envp: u64,
    _flags: u32,
) -> Result<u64> {
    Err(Errno::ENOSYS)
}
