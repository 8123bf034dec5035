//! Who is asking: the identity that file permissions are checked against (`credentials(7)`, `path_resolution(7)`).

use super::caps::{Caps, cap};
use super::inode::Stat;
use crate::errno::{Errno, Result};
use alloc::{sync::Arc, vec::Vec};

/// User and group identity of a process. Immutable: a `set*id` call installs a new one.
#[derive(Clone, Debug, Default)]
pub struct Cred {
    pub uid: u32,
    pub euid: u32,
    pub suid: u32,
    /// What file accesses are checked against; follows `euid` unless `setfsuid` said otherwise.
    pub fsuid: u32,
    pub gid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    /// Supplementary groups.
    pub groups: Arc<Vec<u32>>,
    /// What it may do beyond that.
    pub caps: Caps,
}

/// What one wants to do with a file: the bits of one `rwx` triple, and of `access(2)`.
pub mod want {
    pub const READ: u32 = 4;
    pub const WRITE: u32 = 2;
    pub const EXEC: u32 = 1;
}

impl Cred {
    /// One user and group in all roles.
    pub fn new(uid: u32, gid: u32, groups: Vec<u32>) -> Cred {
        let groups = Arc::new(groups);
        let caps = Caps::of(uid);
        Cred { uid, euid: uid, suid: uid, fsuid: uid, gid, egid: gid, sgid: gid, fsgid: gid, groups, caps }
    }

    /// Whether it has this capability (`cap::*`).
    #[inline]
    pub fn may(&self, capability: u32) -> bool {
        self.caps.has(capability)
    }

    /// Passes every permission check of files, but execution of one that nobody may execute.
    pub fn passes(&self) -> bool {
        self.may(cap::DAC_OVERRIDE)
    }

    /// Whether the group is the primary or a supplementary one.
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.contains(&gid)
    }

    /// The same person as `access(2)` wants it: by real ids.
    pub fn as_real(&self) -> Cred {
        Cred { fsuid: self.uid, fsgid: self.gid, caps: self.caps.as_real(self.uid), ..self.clone() }
    }

    /// `EACCES` unless all `wanted` bits are granted to this identity.
    pub fn check(&self, stat: &Stat, wanted: u32) -> Result<()> {
        let mode = stat.mode;
        if self.passes() {
            let nobody_may = wanted & want::EXEC != 0 && !stat.is_dir() && mode & 0o111 == 0;
            return if nobody_may { Err(Errno::EACCES) } else { Ok(()) };
        }
        let only_looks = wanted == want::READ || stat.is_dir() && wanted & want::WRITE == 0;
        if only_looks && self.may(cap::DAC_READ_SEARCH) {
            return Ok(());
        }
        let granted = if self.fsuid == stat.uid {
            mode >> 6
        } else if self.in_group(stat.gid) {
            mode >> 3
        } else {
            mode
        };
        if wanted & !granted & 7 == 0 { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// `EPERM` unless this is the file's owner, or may do as owners do.
    pub fn check_owner(&self, stat: &Stat) -> Result<()> {
        if self.fsuid == stat.uid || self.may(cap::FOWNER) { Ok(()) } else { Err(Errno::EPERM) }
    }
}
