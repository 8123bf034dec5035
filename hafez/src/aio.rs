//! How QEMU shall read and write the swap file.
//!
//! `threads` works everywhere: each request goes to a thread and back. `io_uring` answers from the host's page cache without a
//! second thread, which takes a quarter off the time of a swapped page; but a QEMU that lacks it, or a sandbox that forbids it, ends
//! with an error instead of falling back. So it is taken only where everything says that it works.

use std::fs;
use std::io::Read;
use std::path::Path;

/// The first Linux whose rings do not count against the limit of locked memory.
const OLDEST_LINUX: (u32, u32) = (5, 12);

/// The value of QEMU's `aio=`.
pub fn best(qemu: &Path) -> &'static str {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let status = read("/proc/self/status");
    let allowed = status.lines().any(|l| l.split_ascii_whitespace().eq(["Seccomp:", "0"]))
        && matches!(read("/proc/sys/kernel/io_uring_disabled").trim(), "" | "0")
        && release(&read("/proc/sys/kernel/osrelease")).is_some_and(|r| r >= OLDEST_LINUX);
    if allowed && links_to_io_uring(qemu) { "io_uring" } else { "threads" }
}

fn release(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The names of a program's shared libraries stand in its file, before the code.
fn links_to_io_uring(program: &Path) -> bool {
    const NAME: &[u8] = b"liburing.so";
    const BEGINNING: u64 = 1 << 20;
    let mut bytes = Vec::new();
    let read = fs::File::open(program).and_then(|file| file.take(BEGINNING).read_to_end(&mut bytes));
    read.is_ok() && bytes.starts_with(b"\x7fELF") && bytes.windows(NAME.len()).any(|window| window == NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        assert_eq!(release("6.12.48+deb13-cloud-amd64\n"), Some((6, 12)));
        assert_eq!(release("5.4"), Some((5, 4)));
        assert_eq!(release("unknown"), None);
    }

    #[test]
    fn only_programs_that_link_to_it() {
        assert!(!links_to_io_uring(Path::new("/nowhere")));
        // A script that stands for QEMU tells nothing of what it starts.
        assert!(!links_to_io_uring(Path::new("/etc/passwd")));
    }
}
