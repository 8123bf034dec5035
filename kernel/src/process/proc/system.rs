//! What the machine is and how it fares: `meminfo`, `vmstat`, `stat`, `cpuinfo`, `mounts`, …

use super::super::sysv::shm;
use super::super::{host, table};
use super::{Text, escaped, kib, tables, zones};
use crate::arch;
use crate::clock::{self, SECOND};
use crate::errno::{Errno, Result};
use crate::fs::{mount, tmpfs};
use crate::mem::{self, TryPush, memory};
use crate::sched;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use hafez_mm::Stats;

/// Files directly in `/proc`.
pub const FILES: &[(&str, Text)] = &[
    ("buddyinfo", zones::buddyinfo),
    // No controllers, no disks that programs could use, no modules.
    ("cgroups", || String::from("#subsys_name\thierarchy\tnum_cgroups\tenabled\n")),
    ("cmdline", || String::from("\n")),
    ("cpuinfo", cpuinfo),
    ("crypto", String::new),
    ("devices", || {
        String::from("Character devices:\n  1 mem\n  5 /dev/tty\n 10 misc\n136 pts\n\nBlock devices:\n")
    }),
    ("diskstats", String::new),
    ("execdomains", || String::from("0-0\tLinux           \t[kernel]\n")),
    ("filesystems", || mount::KINDS.iter().map(|kind| format!("nodev\t{kind}\n")).collect()),
    ("loadavg", loadavg),
    #[cfg(feature = "contention")]
    ("lock_stat", lock_stat),
    ("locks", tables::locks),
    ("meminfo", meminfo),
    ("misc", || String::from("126 userfaultfd\n")),
    ("modules", String::new),
    ("partitions", || String::from("major minor  #blocks  name\n\n")),
    ("stat", stat),
    ("swaps", swaps),
    ("uptime", uptime),
    ("version", version),
    ("vmstat", vmstat),
    ("zoneinfo", zones::zoneinfo),
];

/// Those that only root may read.
pub const SECRET: &[(&str, Text)] = &[("pagetypeinfo", zones::pagetypeinfo), ("slabinfo", zones::slabinfo)];

/// Files in `/proc/sysvipc`.
pub const SYSV: &[(&str, Text)] = &[("msg", tables::queues), ("sem", tables::sets), ("shm", segments)];

/// A line a segment of shared memory (`shmget(2)`).
fn segments() -> String {
    let mut text = String::from(
        "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n",
    );
    let mut next = 0;
    while let Some((id, stat)) = shm::next(next) {
        let (p, [attached, detached, changed]) = (&stat.perm, stat.times);
        let (resident, swapped) = stat.pages();
        let _ = writeln!(
            text,
            "{:>10} {id:>10}  {:>4o} {:>21} {:>5} {:>5}  {:>5} {:>5} {:>5} {:>5} {:>5} {attached:>10} {detached:>10} {changed:>10} {:>21} {:>21}",
            p.key,
            p.mode,
            stat.size,
            stat.creator,
            stat.last,
            stat.mappings,
            p.uid,
            p.gid,
            p.creator_uid,
            p.creator_gid,
            resident * 4096,
            swapped * 4096,
        );
        let Some(after) = id.checked_add(1) else { break };
        next = after;
    }
    text
}

/// Files in `/proc/pressure`.
pub const PRESSURE: &[(&str, Text)] = &[("memory", pressure), ("cpu", pressure), ("io", pressure)];

fn version() -> String {
    format!("{} version {} (hafez) {}\n", host::SYSTEM, host::RELEASE, host::VERSION)
}

/// Seconds, two digits after the point.
fn hundredths(ns: u64) -> String {
    format!("{}.{:02}", ns / SECOND, ns % SECOND / (SECOND / 100))
}

fn uptime() -> String {
    format!("{} {}\n", hundredths(clock::monotonic()), hundredths(sched::idle_times()))
}

fn loadavg() -> String {
    let mut text = String::new();
    for load in host::loads() {
        let fraction = ((load & ((1 << host::LOAD_BITS) - 1)) * 100) >> host::LOAD_BITS;
        let _ = write!(text, "{}.{fraction:02} ", load >> host::LOAD_BITS);
    }
    let (active, all) = sched::counts();
    let last = table::each_process().last().map_or(0, |process| process.pid);
    let _ = writeln!(text, "{active}/{all} {last}");
    text
}

/// Frames that can be had without swapping anything out: free ones, and cached file pages that are clean.
fn available(stats: &Stats) -> u64 {
    stats.free + stats.file.saturating_sub(stats.dirty)
}

fn meminfo() -> String {
    let stats = memory().stats();
    let mut text = String::new();
    let (limit, promised) = zones::promises();
    for (name, pages) in [
        ("MemTotal", stats.total),
        ("MemFree", stats.free),
        ("MemAvailable", available(&stats)),
        ("Buffers", 0),
        // Linux counts shared memory as cached.
        ("Cached", stats.file + stats.shared),
        ("SwapCached", stats.swap_cached),
        ("Active", stats.active[0] + stats.active[1]),
        ("Inactive", stats.inactive[0] + stats.inactive[1]),
        ("Active(anon)", stats.active[0]),
        ("Inactive(anon)", stats.inactive[0]),
        ("Active(file)", stats.active[1]),
        ("Inactive(file)", stats.inactive[1]),
        ("Unevictable", stats.wired),
        ("Mlocked", stats.wired),
        ("SwapTotal", stats.swap_total),
        ("SwapFree", stats.swap_free),
        ("Dirty", stats.dirty),
        ("Writeback", 0),
        ("AnonPages", stats.anonymous),
        ("Mapped", stats.file),
        ("Shmem", stats.shared),
        ("KReclaimable", 0),
        ("Slab", stats.kernel),
        ("SReclaimable", 0),
        ("SUnreclaim", stats.kernel),
        ("KernelStack", 4 * sched::counts().1 as u64),
        ("PageTables", stats.tables),
        ("SecPageTables", 0),
        ("NFS_Unstable", 0),
        ("Bounce", 0),
        ("WritebackTmp", 0),
        ("CommitLimit", limit),
        ("Committed_AS", promised),
        ("VmallocTotal", 0x7_FFFF_FFFF),
        ("VmallocUsed", 0),
        ("VmallocChunk", 0),
        ("Percpu", 0),
        ("AnonHugePages", stats.huge * 512),
        ("ShmemHugePages", 0),
        ("ShmemPmdMapped", 0),
    ] {
        let size = if name == "VmallocTotal" { pages } else { kib(pages) };
        let _ = writeln!(text, "{:<15} {size:>8} kB", format!("{name}:"));
    }
    for name in ["Total", "Free", "Rsvd", "Surp"] {
        let _ = writeln!(text, "{:<15} {:>8}", format!("HugePages_{name}:"), 0);
    }
    let _ = writeln!(text, "Hugepagesize:       2048 kB\nHugetlb:               0 kB");
    text
}

/// What the audit of memory says now; only there where the start asked for audits.
pub(super) fn audit() -> String {
    match crate::mem::audit() {
        Some(Ok(())) => String::from("ok\n"),
        Some(Err(why)) => format!("{}\n", why.0),
        None => String::from("the machine is never quiet\n"),
    }
}

/// How often a lock was found taken, by the place in the source that wanted it.
#[cfg(feature = "contention")]
fn lock_stat() -> String {
    let mut text = String::new();
    hafez_mm::lock::contention::each(&mut |file, line, count| {
        let _ = writeln!(text, "{count} {file}:{line}");
    });
    text
}

fn vmstat() -> String {
    let stats = memory().stats();
    let mut text = String::new();
    for (name, value) in [
        ("nr_free_pages", stats.free),
        ("nr_zone_inactive_anon", stats.inactive[0]),
        ("nr_zone_active_anon", stats.active[0]),
        ("nr_zone_inactive_file", stats.inactive[1]),
        ("nr_zone_active_file", stats.active[1]),
        ("nr_inactive_anon", stats.inactive[0]),
        ("nr_active_anon", stats.active[0]),
        ("nr_inactive_file", stats.inactive[1]),
        ("nr_active_file", stats.active[1]),
        ("nr_unevictable", stats.wired),
        ("nr_slab_reclaimable", 0),
        ("nr_slab_unreclaimable", stats.kernel),
        ("workingset_refault_anon", stats.refaults),
        ("nr_anon_pages", stats.anonymous),
        ("nr_mapped", stats.file),
        ("nr_file_pages", stats.file + stats.shared),
        ("nr_dirty", stats.dirty),
        ("nr_writeback", 0),
        ("nr_shmem", stats.shared),
        ("nr_page_table_pages", stats.tables),
        ("nr_swapcached", stats.swap_cached),
        // In KiB, unlike the rest.
        ("pgpgin", kib(stats.file_in + stats.swapped_in)),
        ("pgpgout", kib(stats.file_out + stats.swapped_out)),
        ("pswpin", stats.swapped_in),
        ("pswpout", stats.swapped_out),
        ("pgfault", stats.minor + stats.major_file + stats.major_swap),
        ("pgmajfault", stats.major_file + stats.major_swap),
        ("pgscan_kswapd", stats.scanned),
        ("pgsteal_kswapd", stats.reclaimed),
        ("pgscan_direct", 0),
        ("pgsteal_direct", 0),
        ("oom_kill", stats.oom_kills),
        ("nr_anon_transparent_hugepages", stats.huge),
        ("thp_fault_alloc", stats.huge_made),
        ("thp_split_pmd", stats.huge_opened),
        ("hafez_peak", stats.peak),
        ("hafez_swap_corrupt", stats.corrupt),
        ("hafez_read_errors", stats.read_errors),
        ("hafez_write_errors", stats.write_errors),
    ] {
        let _ = writeln!(text, "{name} {value}");
    }
    text
}

fn stat() -> String {
    let tick = SECOND / 100;
    let line = |[user, system, idle]: [u64; 3]| {
        format!("{} 0 {} {} 0 0 0 0 0 0\n", user / tick, system / tick, idle / tick)
    };
    let times: Vec<[u64; 3]> = (0..arch::cpu::count()).map(sched::cpu_times).collect();
    let sum = |which: usize| times.iter().map(|times| times[which]).sum();
    let mut text = format!("cpu  {}", line([sum(0), sum(1), sum(2)]));
    for (cpu, times) in times.iter().enumerate() {
        let _ = write!(text, "cpu{cpu} {}", line(*times));
    }
    let (active, _) = sched::counts();
    let _ = write!(text, "intr 0\nctxt {}\nbtime {}\n", 0, clock::at_reset() / SECOND);
    let _ = write!(
        text,
        "processes {}\nprocs_running {}\nprocs_blocked 0\n",
        table::last_number(),
        active.max(1)
    );
    text.push_str("softirq 0 0 0 0 0 0 0 0 0 0 0\n");
    text
}

fn cpuinfo() -> String {
    let identity = arch::cpu::identity();
    let name = |bytes: &[u8]| {
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        String::from(String::from_utf8_lossy(&bytes[..end]).trim())
    };
    let mhz = arch::time::tsc_hz() / 1000;
    let count = arch::cpu::count();
    let mut text = String::new();
    for cpu in 0..count {
        let _ = writeln!(text, "processor\t: {cpu}\nvendor_id\t: {}", name(&identity.vendor));
        let _ = writeln!(text, "cpu family\t: {}\nmodel\t\t: {}", identity.family, identity.model);
        let brand = name(&identity.brand);
        let brand = if brand.is_empty() { "x86-64" } else { &brand };
        let _ = writeln!(text, "model name\t: {brand}\nstepping\t: {}", identity.stepping);
        let _ = writeln!(text, "cpu MHz\t\t: {}.{:03}\ncache size\t: 512 KB", mhz / 1000, mhz % 1000);
        let _ =
            writeln!(text, "physical id\t: 0\nsiblings\t: {count}\ncore id\t\t: {cpu}\ncpu cores\t: {count}");
        let _ =
            writeln!(text, "apicid\t\t: {cpu}\ninitial apicid\t: {cpu}\nfpu\t\t: yes\nfpu_exception\t: yes");
        let _ = writeln!(
            text,
            "cpuid level\t: 13\nwp\t\t: yes\nflags\t\t: {}\nbugs\t\t:",
            identity.flags.join(" ")
        );
        let bogomips = 2 * mhz / 10;
        let _ = writeln!(text, "bogomips\t: {}.{:02}", bogomips / 100, bogomips % 100);
        let _ = writeln!(text, "clflush size\t: 64\ncache_alignment\t: 64");
        let _ = writeln!(text, "address sizes\t: 44 bits physical, 48 bits virtual\npower management:\n");
    }
    text
}

fn swaps() -> String {
    let stats = memory().stats();
    let mut text = String::from("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
    if stats.swap_total > 0 {
        let (size, used) = (kib(stats.swap_total), kib(stats.swap_total - stats.swap_free));
        let gap = |n: u64| if n < 10_000_000 { "\t" } else { "" };
        let _ = writeln!(text, "{:<40}partition\t{size}{}\t{used}{}\t-2", "/dev/vda", gap(size), gap(used));
    }
    text
}

/// How long tasks have been kept waiting is not measured.
fn pressure() -> String {
    let line = "avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
    format!("some {line}full {line}")
}

/// `/proc/PID/mounts`: one line a mount, in the form of fstab(5).
pub fn mounts() -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for mount in mount::all() {
        room_for_a_line(&text)?;
        let (source, place, kind) = described(&mount);
        let access = access(mount.is_read_only());
        text.extend_from_slice(&source);
        text.push(b' ');
        text.extend_from_slice(&place);
        let (flags, own) = (flags(&mount), tmpfs::told(mount.system().root().inode()));
        text.extend_from_slice(format!(" {kind} {access}{flags}{own} 0 0\n").as_bytes());
    }
    Ok(text)
}

/// `/proc/PID/mountstats`: no file system here counts anything more.
pub fn mountstats() -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for mount in mount::all() {
        room_for_a_line(&text)?;
        let (source, place, kind) = described(&mount);
        for part in
            [b"device ", &source[..], b" mounted on ", &place, b" with fstype ", kind.as_bytes(), b"\n"]
        {
            text.extend_from_slice(part);
        }
    }
    Ok(text)
}

/// `/proc/PID/mountinfo`.
pub fn mountinfo() -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for mount in mount::all() {
        room_for_a_line(&text)?;
        let (source, place, kind) = described(&mount);
        let parent = mount.on().map_or(0, |on| on.mount.id());
        let (flags, own) = (flags(&mount), tmpfs::told(mount.system().root().inode()));
        let shown = access(mount.is_read_only());
        let dev = mount.root().inode().id().dev;
        let (major, minor) = (dev >> 8 & 0xfff, dev & 0xff | dev >> 12 & 0xfff00);
        text.extend_from_slice(format!("{} {parent} {major}:{minor} ", mount.id()).as_bytes());
        text.extend_from_slice(&escaped(&part(&mount), b" \t\n\\"));
        text.push(b' ');
        text.extend_from_slice(&place);
        let optional = if mount.flags().contains(mount::Flags::UNBINDABLE) { " unbindable" } else { "" };
        text.extend_from_slice(format!(" {shown}{flags}{optional} - {kind} ").as_bytes());
        text.extend_from_slice(&source);
        let access = access(mount.system().is_read_only());
        text.extend_from_slice(format!(" {access}{own}\n").as_bytes());
    }
    Ok(text)
}

/// The text is copied as it grows: when it has grown long, there must be room for another.
fn room_for_a_line(text: &[u8]) -> Result<()> {
    let next = if text.len() < 4096 { 8 << 10 } else { 3 * text.len() };
    if mem::headroom(next) { Ok(()) } else { Err(Errno::ENOMEM) }
}

/// Source, mount point and kind of a mount, as these files write them.
fn described(mount: &alloc::sync::Arc<mount::Mount>) -> (Vec<u8>, Vec<u8>, &'static str) {
    let escape = |path: &[u8]| escaped(path, b" \t\n\\");
    let place = mount.on().map_or_else(|| b"/".to_vec(), |on| on.display());
    (escape(&mount.system().source), escape(&place), mount.system().kind)
}

fn access(read_only: bool) -> &'static str {
    if read_only { "ro" } else { "rw" }
}

/// The flags of a mount, each after a comma.
fn flags(mount: &mount::Mount) -> String {
    use mount::Flags;
    let mut text = String::new();
    for (flag, name) in [
        (Flags::NOSUID, ",nosuid"),
        (Flags::NODEV, ",nodev"),
        (Flags::NOEXEC, ",noexec"),
        (Flags::NOATIME, ",noatime"),
        (Flags::NODIRATIME, ",nodiratime"),
        (Flags::RELATIME, ",relatime"),
        (Flags::NOSYMFOLLOW, ",nosymfollow"),
    ] {
        text.push_str(if mount.flags().contains(flag) { name } else { "" });
    }
    text
}

/// The directory of its file system that a mount begins with.
fn part(mount: &mount::Mount) -> Vec<u8> {
    let mut names = Vec::new();
    let mut at = mount.top().clone();
    while let Some(parent) = at.parent() {
        if names.try_push(at.name()).is_err() {
            break;
        }
        at = parent;
    }
    let mut path = Vec::new();
    for name in names.iter().rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if path.is_empty() { b"/".to_vec() } else { path }
}
