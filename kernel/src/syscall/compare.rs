//! `kcmp(2)`: whether two processes share something.
#![forbid(unsafe_code)]

use super::Calls;
use super::foreign::may_look;
use crate::errno::{Errno, Result};
use crate::process::run::Caller;
use crate::process::table;
use crate::random;
use alloc::sync::Arc;
use core::cmp::Ordering;
use hafez_mm::lock::Once;
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[(abi::__NR_kcmp, kcmp)];

const FILE: u32 = 0;
const MEMORY: u32 = 1;
const FILES: u32 = 2;
const FS: u32 = 3;
const ACTIONS: u32 = 4;
/// What the next two share there is only one of here: none.
const IO: u32 = 5;

fn kcmp(caller: &mut Caller) -> Result<u64> {
    let [one, other, what, first, second, _] = caller.args();
    let task = |pid: u64| table::task(pid as i32).ok_or(Errno::ESRCH);
    let (one, other) = (task(one)?, task(other)?);
    may_look(caller, &one)?;
    may_look(caller, &other)?;
    let order = match what as u32 {
        FILE => {
            let (a, b) = (one.files().get_any(first as u32)?, other.files().get_any(second as u32)?);
            order(Arc::as_ptr(&a).addr(), Arc::as_ptr(&b).addr())
        }
        MEMORY => {
            let space = |task: &crate::process::task::Task| {
                task.image().map_or(0, |image| image.space().id().0 as usize + 1)
            };
            order(space(&one), space(&other))
        }
        FILES => order(Arc::as_ptr(&one.files()).addr(), Arc::as_ptr(&other.files()).addr()),
        FS => order(Arc::as_ptr(&one.fs()).addr(), Arc::as_ptr(&other.fs()).addr()),
        ACTIONS => {
            order(Arc::as_ptr(&one.process.actions()).addr(), Arc::as_ptr(&other.process.actions()).addr())
        }
        IO => Ordering::Equal,
        _ => return Err(Errno::EINVAL),
    };
    Ok(match order {
        Ordering::Equal => 0,
        Ordering::Less => 1,
        Ordering::Greater => 2,
    })
}

/// Any order will do that stays the same; this one tells nothing of where things are.
fn order(a: usize, b: usize) -> Ordering {
    static SECRET: Once<[u64; 2]> = Once::new();
    let [mask, factor] = SECRET.call_once(|| {
        let mut bytes = [[0; 8]; 2];
        bytes.iter_mut().for_each(|word| random::fill(word));
        bytes.map(u64::from_ne_bytes)
    });
    let mixed = |at: usize| (at as u64 ^ mask).wrapping_mul(factor | 1);
    mixed(a).cmp(&mixed(b))
}
