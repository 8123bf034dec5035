//! `/proc/sys`: the settings of the kernel (`sysctl(8)`).
//!
//! Programs read these to learn their limits. What can be changed works from then on; what nothing would come of cannot be
//! written.

use super::super::dump::pattern;
use super::super::sysv::{msg, sem, shm};
use super::super::{aio, commit, exec, fork, host, limits, mqueue, table};
use crate::errno::{Errno, Result};
use crate::fs::synth::{Dir, Entry, SynthDir};
use crate::fs::{inotify, kmsg, lease, pipe_share, protected, tty};
use crate::mem::memory;
use crate::random;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use hafez_mm::lock::Once;

/// What Linux keeps in an `int`.
const INT_MAX: u64 = i32::MAX as u64;

/// The tree.
pub fn directory() -> Arc<dyn SynthDir> {
    let root = Dir::new(0o555);
    for (path, value) in [
        ("kernel/ostype", host::SYSTEM),
        ("kernel/osrelease", host::RELEASE),
        ("kernel/version", host::VERSION),
        ("kernel/cap_last_cap", "40"),
        ("kernel/ngroups_max", "65536"),
        ("kernel/random/entropy_avail", "256"),
        ("kernel/random/poolsize", "256"),
    ] {
        add(&root, path, Entry::file(move || Ok(line(value))));
    }
    for (path, value) in [
        ("kernel/overflowuid", "65534"),
        ("kernel/overflowgid", "65534"),
        ("kernel/core_pipe_limit", "0"),
        ("kernel/kptr_restrict", "2"),
        ("kernel/perf_event_paranoid", "4"),
        ("kernel/printk", "4\t4\t1\t7"),
        ("kernel/panic", "0"),
        ("kernel/panic_on_oops", "1"),
        ("kernel/panic_on_warn", "0"),
        ("kernel/sysrq", "0"),
        ("kernel/tainted", "0"),
        ("kernel/sched_autogroup_enabled", "0"),
        ("kernel/sched_rr_timeslice_ms", "4"),
        ("kernel/sched_rt_period_us", "1000000"),
        ("kernel/seccomp/actions_avail", "kill_process kill_thread trap errno trace log allow"),
        ("kernel/shm_rmid_forced", "0"),
        ("vm/mmap_min_addr", "65536"),
        ("vm/swappiness", "60"),
        ("vm/page-cluster", "3"),
        ("vm/nr_hugepages", "0"),
        ("vm/dirty_ratio", "20"),
        ("vm/dirty_background_ratio", "10"),
        ("vm/legacy_va_layout", "0"),
        ("vm/laptop_mode", "0"),
        ("vm/oom_dump_tasks", "1"),
        ("vm/nr_overcommit_hugepages", "0"),
        ("vm/hugetlb_shm_group", "0"),
        ("vm/unprivileged_userfaultfd", "0"),
        ("vm/memfd_noexec", "0"),
        ("vm/oom_kill_allocating_task", "0"),
        ("vm/panic_on_oom", "0"),
        ("vm/vfs_cache_pressure", "100"),
        ("vm/zone_reclaim_mode", "0"),
        ("fs/file-max", "9223372036854775807"),
        ("fs/overflowuid", "65534"),
        ("fs/overflowgid", "65534"),
    ]
    .into_iter()
    .chain(crate::net::tables::SETTINGS.iter().copied())
    {
        add(&root, path, kept(value));
    }
    add(&root, "vm/overcommit_memory", setting(&commit::MODE, 0..=2, None));
    add(&root, "vm/overcommit_ratio", setting(&commit::RATIO, 0..=i32::MAX as u64, Some((&commit::KIB, 0))));
    add(&root, "vm/overcommit_kbytes", setting(&commit::KIB, 0..=u64::MAX >> 1, Some((&commit::RATIO, 0))));
    add(&root, "kernel/shmmax", setting(&shm::LARGEST, 0..=u64::MAX, None));
    add(&root, "kernel/shmall", setting(&shm::ALL, 0..=u64::MAX, None));
    add(&root, "kernel/shmmni", setting(&shm::MOST, 0..=32768, None));
    for (path, cell, range) in [
        ("kernel/pid_max", &table::PID_MAX, 301..=1 << 22),
        ("kernel/randomize_va_space", &exec::RANDOMIZE, 0..=2),
        ("kernel/dmesg_restrict", &kmsg::RESTRICTED, 0..=1),
        ("kernel/core_uses_pid", &pattern::USES_PID, 0..=INT_MAX),
        ("fs/suid_dumpable", &pattern::SUID, 0..=2),
        ("fs/lease-break-time", &lease::BREAK_TIME, 0..=INT_MAX),
        ("fs/leases-enable", &lease::ENABLED, 0..=1),
        ("kernel/msgmax", &msg::LONGEST, 0..=INT_MAX),
        ("kernel/msgmnb", &msg::ROOM, 0..=INT_MAX),
        ("kernel/msgmni", &msg::MOST, 0..=32768),
        ("fs/protected_symlinks", &protected::LINKS, 0..=1),
        ("fs/protected_hardlinks", &protected::NAMES, 0..=1),
        ("fs/protected_fifos", &protected::FIFOS, 0..=2),
        ("fs/protected_regular", &protected::FILES, 0..=2),
        ("fs/nr_open", &limits::NR_OPEN, 64..=1 << 24),
        ("fs/aio-max-nr", &aio::MOST, 0..=1 << 24),
        ("fs/pipe-max-size", &pipe_share::LARGEST, 4096..=1 << 31),
        ("fs/pipe-user-pages-soft", &pipe_share::SOFT, 0..=INT_MAX),
        ("fs/pipe-user-pages-hard", &pipe_share::HARD, 0..=INT_MAX),
        ("fs/mqueue/queues_max", &mqueue::QUEUES, 0..=INT_MAX),
        ("fs/mqueue/msg_max", &mqueue::MESSAGES, 1..=mqueue::MOST_MESSAGES),
        ("fs/mqueue/msgsize_max", &mqueue::BYTES, 128..=mqueue::MOST_BYTES),
        ("fs/mqueue/msg_default", &mqueue::UNASKED_MESSAGES, 1..=mqueue::MOST_MESSAGES),
        ("fs/mqueue/msgsize_default", &mqueue::UNASKED_BYTES, 128..=mqueue::MOST_BYTES),
        ("fs/inotify/max_user_watches", &inotify::MAX_WATCHES, 0..=INT_MAX),
        ("fs/inotify/max_user_instances", &inotify::MAX_INSTANCES, 0..=INT_MAX),
        ("fs/inotify/max_queued_events", &inotify::MAX_QUEUED, 0..=INT_MAX),
    ] {
        add(&root, path, setting(cell, range, None));
    }
    for (path, cell) in [
        ("kernel/shm_next_id", &shm::NEXT),
        ("kernel/sem_next_id", &sem::NEXT),
        ("kernel/msg_next_id", &msg::NEXT),
    ] {
        add(&root, path, next_number(cell));
    }
    add(&root, "kernel/sem", settings([&sem::LARGEST, &sem::ALL, &sem::MOST_CHANGES, &sem::MOST]));
    let threads = || Ok(line(fork::THREADS_MAX.load(Relaxed).min(*fork::max_tasks())));
    let take = |bytes: &[u8]| {
        fork::THREADS_MAX.store(figure(bytes, 20..=*fork::max_tasks())?, Relaxed);
        Ok(())
    };
    add(&root, "kernel/threads-max", Entry::writable(threads, guarded(take)));
    let regions = |bytes: &[u8]| {
        memory().set_most_regions(figure(bytes, 0..=i32::MAX as u64)? as usize);
        Ok(())
    };
    add(&root, "vm/max_map_count", Entry::writable(|| Ok(line(memory().most_regions())), guarded(regions)));
    let drop_caches = |bytes: &[u8]| {
        let what = figure(bytes, 1..=4)?;
        if what & 1 != 0 {
            memory().drop_caches();
        }
        if what & 2 != 0 {
            crate::fs::dentry::expire_all();
        }
        Ok(())
    };
    let nothing = || Err(Errno::EINVAL);
    add(&root, "vm/drop_caches", Entry::writable(nothing, guarded(drop_caches)).mode(0o200));
    add(&root, "vm/min_free_kbytes", computed(|| format!("{}\n", 4 * memory().watermarks().0)));
    add(&root, "vm/admin_reserve_kbytes", computed(|| format!("{}\n", 4 * commit::ADMIN_RESERVE)));
    add(&root, "vm/user_reserve_kbytes", computed(|| format!("{}\n", 4 * commit::USER_RESERVE)));
    add(&root, "kernel/pty/max", computed(|| format!("{}\n", tty::MAX_PAIRS)));
    add(&root, "kernel/pty/nr", computed(|| format!("{}\n", tty::pairs())));
    add(&root, "fs/file-nr", computed(|| format!("{}\t0\t9223372036854775807\n", crate::fs::file::count())));
    add(&root, "fs/aio-nr", computed(|| format!("{}\n", aio::asked())));
    add(&root, "kernel/ns_last_pid", computed(|| format!("{}\n", table::last_number())));
    add(&root, "kernel/random/boot_id", computed(|| format!("{}\n", BOOT.call_once(uuid))));
    add(&root, "kernel/random/uuid", computed(|| format!("{}\n", uuid())));
    add(&root, "kernel/core_pattern", name(pattern::get, pattern::set));
    add(&root, "kernel/hostname", name(host::name, host::set_name));
    add(&root, "kernel/domainname", name(host::domain, host::set_domain));
    root
}

fn add(root: &Arc<Dir>, path: &str, entry: Entry) {
    match path.rsplit_once('/') {
        Some((dir, name)) => root.below(dir).add(name, entry),
        None => root.add(path, entry),
    }
}

fn line(value: impl core::fmt::Display) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

/// The number that was written, if it is one of these.
fn figure(bytes: &[u8], range: RangeInclusive<u64>) -> Result<u64> {
    let text = core::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
    let value = text.trim_matches(['\0', '\n', ' ', '\t']).parse().map_err(|_| Errno::EINVAL)?;
    if range.contains(&value) { Ok(value) } else { Err(Errno::EINVAL) }
}

/// Only for who may administer the machine.
fn guarded(
    take: impl Fn(&[u8]) -> Result<()> + Send + Sync + 'static,
) -> impl Fn(&[u8]) -> Result<()> + Send + Sync + 'static {
    move |bytes| if super::caller()?.cred().euid == 0 { take(bytes) } else { Err(Errno::EPERM) }
}

/// Several numbers on one line; those that are left out stay as they are.
fn settings<const N: usize>(cells: [&'static AtomicU64; N]) -> Entry {
    let text = move || {
        let words: Vec<String> = cells.iter().map(|cell| format!("{}", cell.load(Relaxed))).collect();
        Ok(line(words.join("\t")))
    };
    let take = move |bytes: &[u8]| {
        let words =
            bytes.split(|byte| matches!(byte, b'\0' | b'\n' | b' ' | b'\t')).filter(|word| !word.is_empty());
        let values: Vec<u64> = words.map(|word| figure(word, 0..=INT_MAX)).collect::<Result<_>>()?;
        for (cell, value) in cells.iter().zip(values) {
            cell.store(value, Relaxed);
        }
        Ok(())
    };
    Entry::writable(text, guarded(take))
}

/// A setting that nothing depends on: it can be set to what it is, as those do who put settings back, and to nothing else.
fn kept(value: &'static str) -> Entry {
    let take = move |bytes: &[u8]| {
        let words = |text: &'_ [u8]| -> Vec<Vec<u8>> {
            let parts = text.split(|byte| byte.is_ascii_whitespace() || *byte == 0);
            parts.filter(|word| !word.is_empty()).map(Vec::from).collect()
        };
        if words(bytes) == words(value.as_bytes()) { Ok(()) } else { Err(Errno::EINVAL) }
    };
    Entry::writable(move || Ok(line(value)), guarded(take))
}

/// What number the next thing of a kind shall have; -1 for none in particular, which can only be read.
fn next_number(cell: &'static AtomicU64) -> Entry {
    let take = |bytes: &[u8]| {
        cell.store(figure(bytes, 0..=INT_MAX)?, Relaxed);
        Ok(())
    };
    Entry::writable(|| Ok(line(cell.load(Relaxed) as i64)), guarded(take))
}

/// A number that can be set within a range. Setting it may give another its value for "not this one".
fn setting(
    cell: &'static AtomicU64,
    range: RangeInclusive<u64>,
    instead: Option<(&'static AtomicU64, u64)>,
) -> Entry {
    let take = move |bytes: &[u8]| {
        cell.store(figure(bytes, range.clone())?, Relaxed);
        if let Some((other, value)) = instead {
            other.store(value, Relaxed);
        }
        Ok(())
    };
    Entry::writable(move || Ok(line(cell.load(Relaxed))), guarded(take))
}

fn computed(text: fn() -> String) -> Entry {
    Entry::file(move || Ok(text().into_bytes()))
}

fn name(get: fn() -> Vec<u8>, set: fn(&[u8]) -> Result<()>) -> Entry {
    let text = move || {
        let mut line = get();
        line.push(b'\n');
        Ok(line)
    };
    let take = move |bytes: &[u8]| {
        if super::caller()?.cred().euid != 0 {
            return Err(Errno::EPERM);
        }
        let end = bytes.iter().position(|&byte| byte == b'\n' || byte == 0).unwrap_or(bytes.len());
        set(&bytes[..end])
    };
    Entry::writable(text, take)
}

static BOOT: Once<String> = Once::new();

/// A random UUID (RFC 9562, version 4).
fn uuid() -> String {
    let mut bytes = [0u8; 16];
    random::fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
