//! What one may do beyond what everybody may: `capabilities(7)`.
//!
//! ```text
//!   bounding ──── what an execve can ever give
//!   inheritable ─ what stays over an execve if the program's file says so (here: for user 0 alone)
//!   ambient ───── what stays over an execve of any program; within permitted and inheritable
//!   permitted ─── what may be switched on          effective ── what is on: the only set that is checked
//! ```
//!
//! Each thread has its own. Files carry none: what a program gets at execve comes from user 0, and from the ambient set.
//! The secure bits say how much user 0 means.

use crate::errno::{Errno, Result};
use linux_raw_sys::general as abi;

/// The numbers of those that something here depends on.
pub mod cap {
    pub const CHOWN: u32 = 0;
    pub const DAC_OVERRIDE: u32 = 1;
    pub const DAC_READ_SEARCH: u32 = 2;
    pub const FOWNER: u32 = 3;
    pub const FSETID: u32 = 4;
    pub const KILL: u32 = 5;
    pub const SETGID: u32 = 6;
    pub const SETUID: u32 = 7;
    pub const SETPCAP: u32 = 8;
    const LINUX_IMMUTABLE: u32 = 9;
    pub const NET_BIND_SERVICE: u32 = 10;
    pub const NET_ADMIN: u32 = 12;
    pub const NET_RAW: u32 = 13;
    pub const IPC_LOCK: u32 = 14;
    pub const IPC_OWNER: u32 = 15;
    pub const SYS_RAWIO: u32 = 17;
    pub const SYS_CHROOT: u32 = 18;
    pub const SYS_PTRACE: u32 = 19;
    pub const SYS_PACCT: u32 = 20;
    pub const SYS_ADMIN: u32 = 21;
    pub const SYS_NICE: u32 = 23;
    pub const SYS_RESOURCE: u32 = 24;
    pub const WAKE_ALARM: u32 = 35;
    pub const SYS_TIME: u32 = 25;
    pub const MKNOD: u32 = 27;
    pub const LEASE: u32 = 28;
    const MAC_OVERRIDE: u32 = 32;
    pub const SYSLOG: u32 = 34;
    /// `CAP_CHECKPOINT_RESTORE`, the last one.
    pub const LAST: u32 = 40;

    /// Those that go and come with the user number for files (`setfsuid`).
    pub(super) const OF_FILES: u64 = 1 << CHOWN
        | 1 << DAC_OVERRIDE
        | 1 << DAC_READ_SEARCH
        | 1 << FOWNER
        | 1 << FSETID
        | 1 << LINUX_IMMUTABLE
        | 1 << MKNOD
        | 1 << MAC_OVERRIDE;
}

/// Every capability there is.
pub const ALL: u64 = (1 << (cap::LAST + 1)) - 1;

/// User 0 gets nothing at execve.
pub const NOROOT: u32 = 1;
/// A change of user numbers changes no capabilities.
const NO_SETUID_FIXUP: u32 = 1 << 2;
/// Permitted ones stay when the last user number 0 goes.
const KEEP: u32 = 1 << 4;
const KEEP_LOCKED: u32 = 1 << 5;
const NO_AMBIENT_RAISE: u32 = 1 << 6;
/// Every second bit locks the one below it.
const LOCKS: u32 = 0xaa;
const KNOWN: u32 = 0xff;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub bounding: u64,
    pub ambient: u64,
    pub secure: u32,
}

impl Default for Caps {
    fn default() -> Caps {
        Caps { effective: 0, permitted: 0, inheritable: 0, bounding: ALL, ambient: 0, secure: 0 }
    }
}

impl Caps {
    /// Of user 0, or of another.
    pub fn of(uid: u32) -> Caps {
        let all = if uid == 0 { ALL } else { 0 };
        Caps { effective: all, permitted: all, ..Caps::default() }
    }

    /// Whether it is on.
    #[inline]
    pub fn has(&self, number: u32) -> bool {
        self.effective >> number & 1 != 0
    }

    fn need(&self, number: u32) -> Result<()> {
        if self.has(number) { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// `capset(2)`.
    pub fn set(&mut self, effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
        let within = |part: u64, whole: u64| if part & !whole == 0 { Ok(()) } else { Err(Errno::EPERM) };
        if !self.has(cap::SETPCAP) {
            within(inheritable, self.inheritable | self.permitted)?;
        }
        within(inheritable, self.inheritable | self.bounding)?;
        within(permitted, self.permitted)?;
        within(effective, permitted)?;
        (self.effective, self.permitted, self.inheritable) = (effective, permitted, inheritable);
        self.ambient &= permitted & inheritable;
        Ok(())
    }

    /// The user numbers (real, effective, saved) have changed.
    pub fn users_changed(&mut self, old: [u32; 3], new: [u32; 3]) {
        if self.secure & NO_SETUID_FIXUP != 0 {
            return;
        }
        if old.contains(&0) && !new.contains(&0) {
            if self.secure & KEEP == 0 {
                (self.permitted, self.effective) = (0, 0);
            }
            self.ambient = 0;
        }
        match (old[1] == 0, new[1] == 0) {
            (true, false) => self.effective = 0,
            (false, true) => self.effective = self.permitted,
            _ => {}
        }
    }

    /// The user number for files has changed (`setfsuid`).
    pub fn file_user_changed(&mut self, old: u32, new: u32) {
        if self.secure & NO_SETUID_FIXUP != 0 {
            return;
        }
        match (old == 0, new == 0) {
            (true, false) => self.effective &= !cap::OF_FILES,
            (false, true) => self.effective |= self.permitted & cap::OF_FILES,
            _ => {}
        }
    }

    /// A program begins, as these users; `set_id` if its file changed them.
    pub fn exec(&mut self, uid: u32, euid: u32, set_id: bool) {
        if set_id {
            self.ambient = 0;
        }
        let root = self.secure & NOROOT == 0;
        self.permitted = self.ambient;
        if root && (uid == 0 || euid == 0) {
            self.permitted |= self.inheritable | self.bounding;
        }
        self.effective = if root && euid == 0 { self.permitted } else { self.ambient };
        self.secure &= !KEEP;
    }

    /// As `access(2)` looks: with what the real user would have.
    pub fn as_real(&self, uid: u32) -> Caps {
        if self.secure & NO_SETUID_FIXUP != 0 {
            return *self;
        }
        Caps { effective: if uid == 0 { self.permitted } else { 0 }, ..*self }
    }

    /// `PR_CAPBSET_DROP`.
    pub fn drop_from_bounding(&mut self, number: u64) -> Result<()> {
        self.need(cap::SETPCAP)?;
        self.bounding &= !bit(number)?;
        Ok(())
    }

    /// `PR_SET_SECUREBITS`.
    pub fn set_secure(&mut self, new: u64) -> Result<()> {
        let old = self.secure as u64;
        let locked = (old & LOCKS as u64) >> 1;
        if locked & (old ^ new) != 0 || old & LOCKS as u64 & !new != 0 || new & !(KNOWN as u64) != 0 {
            return Err(Errno::EPERM);
        }
        self.need(cap::SETPCAP)?;
        self.secure = new as u32;
        Ok(())
    }

    /// `PR_GET_KEEPCAPS`.
    pub fn keeps(&self) -> bool {
        self.secure & KEEP != 0
    }

    /// `PR_SET_KEEPCAPS`.
    pub fn keep(&mut self, keep: u64) -> Result<()> {
        if keep > 1 {
            return Err(Errno::EINVAL);
        }
        if self.secure & KEEP_LOCKED != 0 {
            return Err(Errno::EPERM);
        }
        self.secure = self.secure & !KEEP | if keep == 1 { KEEP } else { 0 };
        Ok(())
    }

    /// `PR_CAP_AMBIENT_RAISE`.
    pub fn raise(&mut self, number: u64) -> Result<()> {
        let bit = bit(number)?;
        if self.permitted & self.inheritable & bit == 0 || self.secure & NO_AMBIENT_RAISE != 0 {
            return Err(Errno::EPERM);
        }
        self.ambient |= bit;
        Ok(())
    }
}

/// The bit of a capability; EINVAL if there is none of this number.
pub fn bit(number: u64) -> Result<u64> {
    if number <= cap::LAST as u64 { Ok(1 << number) } else { Err(Errno::EINVAL) }
}

const _: () = assert!(abi::CAP_SYS_ADMIN == cap::SYS_ADMIN && abi::CAP_LAST_CAP == cap::LAST);
