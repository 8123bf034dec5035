//! What is looked at twice in directories that everybody may write to (`/tmp`): the `fs.protected_*` settings of `proc_sys_fs(5)`.
//!
//! There anybody can put a name in the way of another's program: a link to where that may write, a FIFO or a file that it takes for
//! its own. So such links are followed, and such files opened by who would have made them, only by their owner or where the
//! directory is its owner's. Whoever asks, root included: it is root whom this is for.

use super::{
    cred::Cred,
    inode::{Kind, Stat},
    path::Location,
};
use crate::errno::{Errno, Result};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use linux_raw_sys::general as abi;

/// Follow no strangers' links.
pub static LINKS: AtomicU64 = AtomicU64::new(0);
/// Make no more names for strangers' files.
pub static NAMES: AtomicU64 = AtomicU64::new(1);
/// Do not open, where they could have been made, strangers' FIFOs and files: 1 where everybody may write, 2 where a group may.
pub static FIFOS: AtomicU64 = AtomicU64::new(0);
pub static FILES: AtomicU64 = AtomicU64::new(0);

const STICKY: u32 = 0o1000;
const EVERYBODY: u32 = 0o002;
const GROUP: u32 = 0o020;

/// EACCES if `link`, found in `dir` at a path's end, is one that nobody should follow.
#[inline]
pub fn may_follow(cred: &Cred, dir: &Location, link: &Location) -> Result<()> {
    if LINKS.load(Relaxed) == 0 { Ok(()) } else { judge_link(cred, dir, link) }
}

#[cold]
fn judge_link(cred: &Cred, dir: &Location, link: &Location) -> Result<()> {
    let (around, found) = (dir.inode().stat()?, link.inode().stat()?);
    let open = around.mode & (STICKY | EVERYBODY) == STICKY | EVERYBODY;
    if !open || [cred.fsuid, around.uid].contains(&found.uid) { Ok(()) } else { Err(Errno::EACCES) }
}

/// EACCES if `place`, which is there already, is one that who would have made it should not open.
#[inline]
pub fn may_open(cred: &Cred, place: &Location, flags: u32) -> Result<()> {
    if flags & abi::O_CREAT == 0 || FIFOS.load(Relaxed) | FILES.load(Relaxed) == 0 {
        return Ok(());
    }
    judge_file(cred, place)
}

#[cold]
fn judge_file(cred: &Cred, place: &Location) -> Result<()> {
    let setting = match place.inode().kind() {
        Kind::Fifo => FIFOS.load(Relaxed),
        Kind::File => FILES.load(Relaxed),
        _ => 0,
    };
    let Some(dir) = place.dentry.parent().filter(|_| setting > 0) else { return Ok(()) };
    let (around, found): (Stat, Stat) = (dir.inode().stat()?, place.inode().stat()?);
    let open = if setting > 1 { EVERYBODY | GROUP } else { EVERYBODY };
    let guarded = around.mode & STICKY != 0 && around.mode & open != 0;
    if !guarded || [cred.fsuid, around.uid].contains(&found.uid) { Ok(()) } else { Err(Errno::EACCES) }
}
