//! The disk that stands behind memory.
//!
//! Whatever can be wrong with the place is found before the machine starts: a program killed after an hour because a directory
//! was full all along is a cruel way to say it. So a temporary file gets its blocks at once, where the file system can do that.
//!
//! A file or device that was there before may hold somebody's data. It is taken only if its first block is empty, is that of a Linux
//! swap area, or says that Hafez has used it before; and that block is left alone, so the next run knows it again.

use crate::size::Size;
use anyhow::{Context, Result, bail};
use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

/// Swap, if nothing else is asked for, as a multiple of the memory.
const DEFAULT_FACTOR: u64 = 4;
/// The kernel swaps in blocks of a page.
const BLOCK: u64 = 4096;
/// What the first block of a used file or device says, so that it is taken again.
const MARK: &[u8] = b"hafez swap\n";

/// Schemes that QEMU's block layer speaks.
const SCHEMES: [&str; 8] = ["nbd:", "nbd+unix:", "nbds:", "rbd:", "iscsi:", "iser:", "ssh:", "json:"];

pub enum Swap {
    None,
    /// An open file or device: `size` bytes from `offset` on.
    Open {
        file: OwnedFd,
        offset: u64,
        size: u64,
    },
    /// QEMU opens this itself.
    Uri(OsString),
}

/// Opens what `--swap` names.
pub fn open(asked: Option<&OsStr>, memory: Size) -> Result<Swap> {
    let default = Size(memory.0 * DEFAULT_FACTOR);
    let Some(asked) = asked else {
        return temporary(&temporary_directory(), default)
            .context("no room for swap (--swap 0 does without, --swap DIR puts it elsewhere)");
    };
    let said = || format!("--swap {}", asked.to_string_lossy());
    if let Some(text) = asked.to_str() {
        if SCHEMES.iter().any(|s| text.starts_with(s)) {
            return Ok(Swap::Uri(asked.to_owned()));
        }
        let is_path = text.contains('/') || Path::new(text).exists();
        if !is_path {
            return match text.parse::<Size>() {
                Ok(Size(0)) => Ok(Swap::None),
                Ok(size) => temporary(&temporary_directory(), size).with_context(said),
                Err(_) if text.starts_with(|c: char| c.is_ascii_digit()) => {
                    bail!("{}: not a size; write 256M, 1G, 0 for none, or a path or URI", said())
                }
                Err(_) => {
                    bail!("{}: no size, URI or existing path; for a new file: fallocate -l 1G FILE", said())
                }
            };
        }
    }
    let path = Path::new(asked);
    if path.is_dir() { temporary(path, default) } else { existing(path) }.with_context(said)
}

/// A place on a disk if there is one: `/tmp` is often RAM, which swap is to spare.
pub fn temporary_directory() -> PathBuf {
    if let Some(dir) = std::env::var_os("TMPDIR").filter(|d| !d.is_empty()) {
        return dir.into();
    }
    let var = PathBuf::from("/var/tmp");
    if rustix::fs::access(&var, rustix::fs::Access::WRITE_OK).is_ok() { var } else { "/tmp".into() }
}

/// A file without a name: it is gone when the last of us is, however that comes.
fn temporary(dir: &Path, size: Size) -> Result<Swap> {
    let size = Size(size.0 / BLOCK * BLOCK);
    if size.0 == 0 {
        bail!("swap is kept in blocks of 4096 bytes; give at least that");
    }
    let file =
        tempfile::tempfile_in(dir).with_context(|| format!("cannot make a file in {}", dir.display()))?;
    let room = fstatvfs(&file).map(|v| Size(v.f_bavail * v.f_frsize));
    let full = |room: &str| anyhow::anyhow!("{} has no room for {size} of swap{room}", dir.display());
    if let Ok(room) = room
        && room < size
    {
        return Err(full(&format!(", only for {room}")));
    }
    match fallocate(&file, FallocateFlags::empty(), 0, size.0) {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP) => file.set_len(size.0).context("cannot set its size")?,
        Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => return Err(full("")),
        Err(e) => return Err(e).with_context(|| format!("cannot take {size} in {}", dir.display())),
    }
    Ok(Swap::Open { file: file.into(), offset: 0, size: size.0 })
}

/// A file or block device that is there.
fn existing(path: &Path) -> Result<Swap> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let kind = file.metadata()?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        bail!("it is neither a file, a block device nor a directory");
    }
    let size = file.seek(SeekFrom::End(0))? / BLOCK * BLOCK;
    if size < 2 * BLOCK {
        bail!("it is too small; make it larger with: fallocate -l 1G {}", path.display());
    }
    let mut first = [0; BLOCK as usize];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut first)?;
    match look(&first) {
        First::Linux | First::Ours => {}
        First::Empty => {
            file.write_all_at(MARK, 0)?;
            file.flush()?;
        }
        First::Data => {
            bail!(
                "it holds data, which swapping would overwrite; if it may go: dd if=/dev/zero of={} bs=4096 count=1 conv=notrunc",
                path.display()
            )
        }
    }
    Ok(Swap::Open { file: file.into(), offset: BLOCK, size: size - BLOCK })
}

#[derive(Debug, PartialEq, Eq)]
enum First {
    Empty,
    Ours,
    Linux,
    Data,
}

fn look(block: &[u8; BLOCK as usize]) -> First {
    if block.iter().all(|b| *b == 0) {
        First::Empty
    } else if block.starts_with(MARK) {
        First::Ours
    } else if block.ends_with(b"SWAPSPACE2") {
        First::Linux
    } else {
        First::Data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: Size = Size(16 << 20);

    fn with(asked: &Path) -> Result<Swap> {
        open(Some(asked.as_os_str()), MEMORY)
    }

    #[test]
    fn nothing_and_default() {
        assert!(matches!(open(Some(OsStr::new("0")), MEMORY), Ok(Swap::None)));
        let Ok(Swap::Open { size, offset: 0, .. }) = open(None, MEMORY) else { panic!("no default swap") };
        assert_eq!(size, 64 << 20);
        let Ok(Swap::Open { size, .. }) = open(Some(OsStr::new("1M")), MEMORY) else {
            panic!("no sized swap")
        };
        assert_eq!(size, 1 << 20);
    }

    #[test]
    fn a_directory_holds_a_nameless_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(with(dir.path()), Ok(Swap::Open { .. })));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn data_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("letters");
        std::fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        let error = with(&path).err().expect("a file with data was taken");
        assert!(format!("{error:#}").contains("holds data"));
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        for _ in 0..2 {
            let Ok(Swap::Open { offset, size, .. }) = with(&path) else {
                panic!("an empty file was refused")
            };
            assert_eq!((offset, size), (BLOCK, (1 << 20) - BLOCK));
        }
        let mut area = vec![0; 8192];
        area[4086..4096].copy_from_slice(b"SWAPSPACE2");
        std::fs::write(&path, &area).unwrap();
        assert!(with(&path).is_ok());
        assert_eq!(std::fs::read(&path).unwrap(), area);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (asked, part) in [
            ("256X", "not a size"),
            ("nowhere", "no size, URI or existing path"),
            ("/nowhere/at/all", "No such file"),
            ("/dev/null", "neither a file"),
            ("8192T", "no room"),
            ("1000", "blocks of 4096"),
        ] {
            let error =
                open(Some(OsStr::new(asked)), MEMORY).err().unwrap_or_else(|| panic!("{asked} was taken"));
            let line = format!("{error:#}");
            assert!(line.contains(part) && line.contains(asked), "{asked}: {line}");
        }
    }
}
