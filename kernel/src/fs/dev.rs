//! `/dev`: the devices that programs expect, and device numbers.
//!
//! | node | number | reads | writes |
//! |---|---|---|---|
//! | null | 1:3 | end of file | vanish |
//! | zero | 1:5 | zero bytes; a mapping of it is anonymous memory | vanish |
//! | full | 1:7 | zero bytes | ENOSPC |
//! | random, urandom | 1:8, 1:9 | the kernel's generator | stir it |
//! | kmsg | 1:11 | what the kernel has said | say more ([`super::kmsg`]) |
//! | tty | 5:0 | the terminal that controls the caller | the same |
//! | console | 5:1 | the terminal that `hafez` runs on | the same |
//! | userfaultfd | 10:126 | nothing; `ioctl` makes a descriptor (`userfaultfd(2)`) | nothing |
//! | ptmx, pts/N | 5:2, 136:N | a new pseudoterminal's master, its other side | ([`super::tty`]) |

use super::{
    file::{FileOps, How, Mapping},
    inode::{Kind, OpenMode},
    iobuf::{Sink, Source},
    synth::{Dir, Entry},
    tty,
};
use crate::{
    arch::user,
    errno::{Errno, Result},
    random,
};
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A device number as `st_rdev` has it (`makedev(3)`).
pub const fn makedev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    minor & 0xff | (major & 0xfff) << 8 | (minor & !0xff) << 12 | (major & !0xfff) << 32
}

/// What `/dev/userfaultfd` is.
pub const USERFAULT: u64 = makedev(10, 126);

/// A device number for a file system that is on no device: major 0.
pub fn next_anonymous() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(32);
    NEXT.fetch_add(1, Relaxed)
}

/// The memory devices.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mem {
    Null,
    Zero,
    Full,
    Random,
    Userfault,
}

/// Bytes of randomness that one go makes: the rest of a long read comes in further ones.
const RANDOM_CHUNK: usize = 1024;

/// What the generator holds once it is ready (`entropy_avail`).
const ENTROPY_BITS: u32 = 256;

impl FileOps for Mem {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _: u64, to: &mut Sink<'_>, _: How) -> Result<()> {
        match self {
            Mem::Null => {}
            Mem::Userfault => return Err(Errno::EINVAL),
            Mem::Zero | Mem::Full => {
                let all = to.remaining();
                to.put_zeroes(all);
            }
            Mem::Random => {
                let mut bytes = [0; RANDOM_CHUNK];
                while to.remaining() > 0 {
                    let n = bytes.len().min(to.remaining());
                    random::fill(&mut bytes[..n]);
                    to.put(&bytes[..n]);
                }
            }
        }
        Ok(())
    }
    fn write(&self, _: u64, from: &mut Source<'_>, _: How) -> Result<()> {
        match self {
            Mem::Userfault => return Err(Errno::EINVAL),
            Mem::Full if from.remaining() > 0 => return Err(Errno::ENOSPC),
            Mem::Random => {
                let mut bytes = [0; RANDOM_CHUNK];
                while from.remaining() > 0 {
                    let n = from.take(&mut bytes);
                    random::mix(&bytes[..n]);
                }
            }
            _ => from.skip_all(),
        }
        Ok(())
    }
    fn seekable(&self) -> bool {
        true
    }
    fn counts(&self) -> bool {
        false
    }
    fn seek_data(&self, _: u64, _: bool) -> Result<u64> {
        Err(Errno::ENXIO)
    }
    fn ioctl(&self, request: u32, argument: u64) -> Result<usize> {
        /// How much randomness there is, in bits.
        const RNDGETENTCNT: u32 = 0x8004_5200;
        match (self, request) {
            (Mem::Random, RNDGETENTCNT) => {
                user::write_u32(argument, ENTROPY_BITS).map(|()| 0).map_err(Errno::from)
            }
            (Mem::Random | Mem::Userfault, _) => Err(Errno::EINVAL),
            _ => Err(Errno::ENOTTY),
        }
    }
    fn mapping(&self, _: bool) -> Result<Mapping> {
        if *self == Mem::Zero { Ok(Mapping::Zero) } else { Err(Errno::ENODEV) }
    }
}

/// Open a character device by number (a node that `mknod` made).
pub fn open_number(rdev: u64, how: OpenMode) -> Result<Arc<dyn FileOps>> {
    const NULL: u64 = makedev(1, 3);
    const ZERO: u64 = makedev(1, 5);
    const FULL: u64 = makedev(1, 7);
    const RANDOM: u64 = makedev(1, 8);
    const URANDOM: u64 = makedev(1, 9);
    const KMSG: u64 = makedev(1, 11);
    const TTY: u64 = makedev(5, 0);
    const CONSOLE: u64 = makedev(5, 1);
    const PTMX: u64 = makedev(5, 2);
    Ok(match rdev {
        NULL => Arc::new(Mem::Null),
        ZERO => Arc::new(Mem::Zero),
        FULL => Arc::new(Mem::Full),
        RANDOM | URANDOM => Arc::new(Mem::Random),
        USERFAULT => Arc::new(Mem::Userfault),
        KMSG => return super::kmsg::open(how),
        TTY => return tty::open_own(how),
        CONSOLE => return tty::console(how),
        PTMX => return tty::new_pair(),
        _ => return tty::open_pts(rdev, how),
    })
}

/// The contents of `/dev`.
pub fn tree() -> Arc<dyn super::Inode> {
    let dir = Dir::new(0o755);
    let nodes = [
        ("null", 1, 3, 0o666),
        ("zero", 1, 5, 0o666),
        ("full", 1, 7, 0o666),
        ("random", 1, 8, 0o666),
        ("urandom", 1, 9, 0o666),
        ("kmsg", 1, 11, 0o644),
        ("userfaultfd", 10, 126, 0o600),
        ("tty", 5, 0, 0o666),
        ("console", 5, 1, 0o600),
        ("ptmx", 5, 2, 0o666),
    ];
    for (name, major, minor, mode) in nodes {
        let rdev = makedev(major, minor);
        dir.add(name, Entry::device(Kind::Char, mode, rdev, move |how| open_number(rdev, how)));
    }
    let links = [
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("fd", "/proc/self/fd"),
    ];
    for (name, target) in links {
        dir.add(name, Entry::link(move || Ok(target.as_bytes().to_vec())));
    }
    dir.add("shm", Entry::dir(Dir::new(0o1777)));
    dir.add("pts", Entry::dir(Dir::new(0o755)));
    dir.inode()
}
