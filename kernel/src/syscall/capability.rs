//! Capabilities: `capget`, `capset`, and what `prctl` does to them. The rules are [`Caps`]'s.
#![forbid(unsafe_code)]

use super::{Calls, identity, user};
use crate::errno::{Errno, Result};
use crate::fs::caps::{self, Caps};
use crate::process::run::Caller;
use crate::process::table;
use linux_raw_sys::general as abi;
use linux_raw_sys::prctl;

pub const CALLS: &Calls = &[(abi::__NR_capget, capget), (abi::__NR_capset, capset)];

/// How many pairs of 32-bit words the version in the header wants. If it is none that exists, the header is told which
/// one is, and the call fails, unless it only asked (`None`).
fn capability_words(header: u64, data: u64) -> Result<Option<usize>> {
    match user::read_u32(header)? {
        abi::_LINUX_CAPABILITY_VERSION_1 => Ok(Some(1)),
        abi::_LINUX_CAPABILITY_VERSION_2 | abi::_LINUX_CAPABILITY_VERSION_3 => Ok(Some(2)),
        _ => {
            user::write_u32(header, abi::_LINUX_CAPABILITY_VERSION_3)?;
            if data == 0 { Ok(None) } else { Err(Errno::EINVAL) }
        }
    }
}

fn capget(caller: &mut Caller) -> Result<u64> {
    let [header, data, ..] = caller.args();
    let Some(words) = capability_words(header, data)? else { return Ok(0) };
    let pid = user::read_u32(header + 4)? as i32;
    let task = match pid {
        ..0 => return Err(Errno::EINVAL),
        0 => caller.task.clone(),
        pid => table::task(pid).ok_or(Errno::ESRCH)?,
    };
    if data == 0 {
        return Ok(0);
    }
    let Caps { effective, permitted, inheritable, .. } = task.cred().caps;
    for i in 0..words {
        let mut entry = [0; 12];
        for (place, set) in entry.chunks_exact_mut(4).zip([effective, permitted, inheritable]) {
            place.copy_from_slice(&((set >> (32 * i)) as u32).to_ne_bytes());
        }
        user::copy_to(data + 12 * i as u64, &entry)?;
    }
    Ok(0)
}

fn capset(caller: &mut Caller) -> Result<u64> {
    let [header, data, ..] = caller.args();
    let words = capability_words(header, data)?.ok_or(Errno::EINVAL)?;
    let pid = user::read_u32(header + 4)? as i32;
    if pid != 0 && pid != caller.task.tid() {
        return Err(Errno::EPERM);
    }
    let mut sets = [0u64; 3];
    for i in 0..words {
        for (n, set) in sets.iter_mut().enumerate() {
            *set |= (user::read_u32(data + 12 * i as u64 + 4 * n as u64)? as u64) << (32 * i);
        }
    }
    let [effective, permitted, inheritable] = sets.map(|set| set & caps::ALL);
    alter(caller, |caps| caps.set(effective, permitted, inheritable))
}

/// Change the caller's, all or nothing.
fn alter(caller: &Caller, edit: impl FnOnce(&mut Caps) -> Result<()>) -> Result<u64> {
    let mut new = caller.task.cred().caps;
    edit(&mut new)?;
    identity::change(caller, |cred| cred.caps = new)
}

/// The requests of `prctl` that are about capabilities.
pub(super) fn request(caller: &Caller, what: u32, [a, b, c, d]: [u64; 4]) -> Option<Result<u64>> {
    let have = caller.task.cred().caps;
    let shown = |set: u64, number: u64| caps::bit(number).map(|bit| (set & bit != 0) as u64);
    Some(match what {
        prctl::PR_CAPBSET_READ => shown(have.bounding, a),
        prctl::PR_CAPBSET_DROP => alter(caller, |caps| caps.drop_from_bounding(a)),
        prctl::PR_GET_SECUREBITS => Ok(have.secure as u64),
        prctl::PR_SET_SECUREBITS => alter(caller, |caps| caps.set_secure(a)),
        prctl::PR_GET_KEEPCAPS => Ok(have.keeps() as u64),
        prctl::PR_SET_KEEPCAPS => alter(caller, |caps| caps.keep(a)),
        prctl::PR_CAP_AMBIENT => match a as u32 {
            prctl::PR_CAP_AMBIENT_CLEAR_ALL if b | c | d == 0 => alter(caller, |caps| {
                caps.ambient = 0;
                Ok(())
            }),
            prctl::PR_CAP_AMBIENT_IS_SET if c | d == 0 => shown(have.ambient, b),
            prctl::PR_CAP_AMBIENT_RAISE if c | d == 0 => alter(caller, |caps| caps.raise(b)),
            prctl::PR_CAP_AMBIENT_LOWER if c | d == 0 => alter(caller, |caps| {
                caps.ambient &= !caps::bit(b)?;
                Ok(())
            }),
            _ => Err(Errno::EINVAL),
        },
        _ => return None,
    })
}
