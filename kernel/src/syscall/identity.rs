//! Who a task acts as: user and group numbers (`credentials(7)`).
//!
//! Who has the capability may take any number; others may only go between their real, effective and saved ones.

use super::{Calls, user};
use crate::errno::{Errno, Result};
use crate::fs::Cred;
use crate::fs::caps::cap;
use crate::process::run::Caller;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

pub const CALLS: &Calls = &[
    (abi::__NR_getuid, getuid),
    (abi::__NR_geteuid, geteuid),
    (abi::__NR_getgid, getgid),
    (abi::__NR_getegid, getegid),
    (abi::__NR_getresuid, getresuid),
    (abi::__NR_getresgid, getresgid),
    (abi::__NR_setuid, setuid),
    (abi::__NR_setgid, setgid),
    (abi::__NR_setreuid, setreuid),
    (abi::__NR_setregid, setregid),
    (abi::__NR_setresuid, setresuid),
    (abi::__NR_setresgid, setresgid),
    (abi::__NR_setfsuid, setfsuid),
    (abi::__NR_setfsgid, setfsgid),
    (abi::__NR_getgroups, getgroups),
    (abi::__NR_setgroups, setgroups),
];

/// "Leave it as it is" in the calls that set several.
const KEEP: u32 = u32::MAX;
/// `NGROUPS_MAX`.
const MAX_GROUPS: usize = 65536;

/// Real, effective, saved, and the one for files.
#[derive(Clone, Copy)]
struct Ids {
    real: u32,
    effective: u32,
    saved: u32,
    file: u32,
}

impl Ids {
    fn users(cred: &Cred) -> Ids {
        Ids { real: cred.uid, effective: cred.euid, saved: cred.suid, file: cred.fsuid }
    }
    fn groups(cred: &Cred) -> Ids {
        Ids { real: cred.gid, effective: cred.egid, saved: cred.sgid, file: cred.fsgid }
    }
    fn has(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    /// `setuid`, `setgid`.
    fn set(self, id: u32, root: bool) -> Result<Ids> {
        match id {
            KEEP => Err(Errno::EINVAL),
            _ if root => Ok(Ids { real: id, effective: id, saved: id, file: id }),
            _ if id == self.real || id == self.saved => Ok(Ids { effective: id, file: id, ..self }),
            _ => Err(Errno::EPERM),
        }
    }

    /// `setreuid`, `setregid`: the saved one follows when the real one is set, or the effective one to another than that.
    fn set_two(self, real: u32, effective: u32, root: bool) -> Result<Ids> {
        let real_ok = real == KEEP || real == self.real || real == self.effective;
        let effective_ok = effective == KEEP || self.has(effective);
        if !(root || real_ok && effective_ok) {
            return Err(Errno::EPERM);
        }
        let new_real = if real == KEEP { self.real } else { real };
        let new_effective = if effective == KEEP { self.effective } else { effective };
        let follows = real != KEEP || effective != KEEP && effective != self.real;
        let saved = if follows { new_effective } else { self.saved };
        Ok(Ids { real: new_real, effective: new_effective, saved, file: new_effective })
    }

    /// `setresuid`, `setresgid`.
    fn set_three(self, real: u32, effective: u32, saved: u32, root: bool) -> Result<Ids> {
        if !root && [real, effective, saved].iter().any(|id| *id != KEEP && !self.has(*id)) {
            return Err(Errno::EPERM);
        }
        let pick = |new: u32, old: u32| if new == KEEP { old } else { new };
        let effective = pick(effective, self.effective);
        Ok(Ids { real: pick(real, self.real), effective, saved: pick(saved, self.saved), file: effective })
    }
}

/// Change who the caller is.
pub(super) fn change(caller: &Caller, edit: impl FnOnce(&mut Cred)) -> Result<u64> {
    let mut cred = Cred::clone(&caller.task.cred());
    edit(&mut cred);
    caller.task.set_cred(Arc::new(cred));
    Ok(0)
}

fn put_users(caller: &Caller, ids: Ids) -> Result<u64> {
    change(caller, |c| {
        let old = [c.uid, c.euid, c.suid];
        (c.uid, c.euid, c.suid, c.fsuid) = (ids.real, ids.effective, ids.saved, ids.file);
        c.caps.users_changed(old, [c.uid, c.euid, c.suid]);
    })
}

fn put_groups(caller: &Caller, ids: Ids) -> Result<u64> {
    change(caller, |c| (c.gid, c.egid, c.sgid, c.fsgid) = (ids.real, ids.effective, ids.saved, ids.file))
}

fn getuid(caller: &mut Caller) -> Result<u64> {
    Ok(caller.task.cred().uid as u64)
}

fn geteuid(caller: &mut Caller) -> Result<u64> {
    Ok(caller.task.cred().euid as u64)
}

fn getgid(caller: &mut Caller) -> Result<u64> {
    Ok(caller.task.cred().gid as u64)
}

fn getegid(caller: &mut Caller) -> Result<u64> {
    Ok(caller.task.cred().egid as u64)
}

fn write_three(to: [u64; 3], ids: Ids) -> Result<u64> {
    for (at, id) in to.into_iter().zip([ids.real, ids.effective, ids.saved]) {
        user::write_u32(at, id)?;
    }
    Ok(0)
}

fn getresuid(caller: &mut Caller) -> Result<u64> {
    let [a, b, c, ..] = caller.args();
    write_three([a, b, c], Ids::users(&caller.task.cred()))
}

fn getresgid(caller: &mut Caller) -> Result<u64> {
    let [a, b, c, ..] = caller.args();
    write_three([a, b, c], Ids::groups(&caller.task.cred()))
}

fn setuid(caller: &mut Caller) -> Result<u64> {
    let cred = caller.task.cred();
    put_users(caller, Ids::users(&cred).set(caller.args()[0] as u32, cred.may(cap::SETUID))?)
}

fn setgid(caller: &mut Caller) -> Result<u64> {
    let cred = caller.task.cred();
    put_groups(caller, Ids::groups(&cred).set(caller.args()[0] as u32, cred.may(cap::SETGID))?)
}

fn setreuid(caller: &mut Caller) -> Result<u64> {
    let cred = caller.task.cred();
    let [real, effective, ..] = caller.args().map(|v| v as u32);
    put_users(caller, Ids::users(&cred).set_two(real, effective, cred.may(cap::SETUID))?)
}

fn setregid(caller: &mut Caller) -> Result<u64> {
    let cred = caller.task.cred();
    let [real, effective, ..] = caller.args().map(|v| v as u32);
    put_groups(caller, Ids::groups(&cred).set_two(real, effective, cred.may(cap::SETGID))?)
}

fn setresuid(caller: &mut Caller) -> Result<u64> {
    let cred = caller.task.cred();
    let [real, effective, saved, ..] = caller.args().map(|v| v as u32);
    put_users(caller, Ids::users(&cred).set_three(real, effective, saved, cred.may(cap::SETUID))?)
}

fn setresgid(caller: &mut Caller) -> Result<u64> {
    let cred = caller.task.cred();
    let [real, effective, saved, ..] = caller.args().map(|v| v as u32);
    put_groups(caller, Ids::groups(&cred).set_three(real, effective, saved, cred.may(cap::SETGID))?)
}

/// Answers the old number, whether it could be changed or not.
fn setfsuid(caller: &mut Caller) -> Result<u64> {
    let cred = caller.task.cred();
    let id = caller.args()[0] as u32;
    let ids = Ids::users(&cred);
    if id != KEEP && (cred.may(cap::SETUID) || ids.has(id) || id == ids.file) {
        change(caller, |c| {
            c.caps.file_user_changed(c.fsuid, id);
            c.fsuid = id;
        })?;
    }
    Ok(ids.file as u64)
}

fn setfsgid(caller: &mut Caller) -> Result<u64> {
    let cred = caller.task.cred();
    let id = caller.args()[0] as u32;
    let ids = Ids::groups(&cred);
    if id != KEEP && (cred.may(cap::SETGID) || ids.has(id) || id == ids.file) {
        put_groups(caller, Ids { file: id, ..ids })?;
    }
    Ok(ids.file as u64)
}

fn getgroups(caller: &mut Caller) -> Result<u64> {
    let [room, at, ..] = caller.args();
    let cred = caller.task.cred();
    let count = cred.groups.len();
    if (room as i32) < 0 || room as i32 != 0 && (room as usize) < count {
        return Err(Errno::EINVAL);
    }
    if room as i32 != 0 {
        for (i, group) in cred.groups.iter().enumerate() {
            user::write_u32(at.wrapping_add(4 * i as u64), *group)?;
        }
    }
    Ok(count as u64)
}

fn setgroups(caller: &mut Caller) -> Result<u64> {
    let [count, at, ..] = caller.args();
    if !caller.task.cred().may(cap::SETGID) {
        return Err(Errno::EPERM);
    }
    let count = count as u32 as usize;
    if count > MAX_GROUPS {
        return Err(Errno::EINVAL);
    }
    let mut groups = Vec::new();
    groups.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    for i in 0..count as u64 {
        groups.push(user::read_u32(at.wrapping_add(4 * i))?);
    }
    groups.sort_unstable();
    change(caller, |c| c.groups = Arc::new(groups))
}
