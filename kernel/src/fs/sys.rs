//! `/sys`: the little of it that programs read to learn about processors and memory.

use super::{
    inode::Inode,
    synth::{Dir, Entry},
};
use crate::arch;
use crate::errno::{Errno, Result};
use alloc::{format, sync::Arc, vec::Vec};
use hafez_mm::{HugeWish, lock::Once};

/// `0` or `0-3`: the processors.
fn cpus() -> Vec<u8> {
    match arch::cpu::count() {
        0 | 1 => b"0\n".to_vec(),
        n => format!("0-{}\n", n - 1).into_bytes(),
    }
}

/// The same as a bit mask.
fn mask() -> Vec<u8> {
    format!("{:x}\n", (1u64 << arch::cpu::count().clamp(1, 63)) - 1).into_bytes()
}

fn node_memory() -> Vec<u8> {
    let stats = crate::mem::memory().stats();
    let kib = |pages: u64| pages * (hafez_mm::PAGE_SIZE as u64 / 1024);
    let (total, free) = (kib(stats.total), kib(stats.free));
    let lines = [("MemTotal", total), ("MemFree", free), ("MemUsed", total - free.min(total))];
    let lines = lines.map(|(name, n)| format!("Node 0 {:16}{n:8} kB\n", format!("{name}:")));
    lines.concat().into_bytes()
}

const WISHES: [(HugeWish, &str); 3] =
    [(HugeWish::Always, "always"), (HugeWish::Asked, "madvise"), (HugeWish::Never, "never")];

fn huge_wish() -> Vec<u8> {
    let now = crate::mem::memory().huge_wish();
    let shown = WISHES.map(|(wish, name)| if wish == now { format!("[{name}]") } else { name.into() });
    (shown.join(" ") + "\n").into_bytes()
}

fn set_huge_wish(text: &[u8]) -> Result<()> {
    let text = text.trim_ascii();
    let (wish, _) = WISHES.iter().find(|(_, name)| name.as_bytes() == text).ok_or(Errno::EINVAL)?;
    crate::mem::memory().set_huge_wish(*wish);
    Ok(())
}

static NETWORK: Once<fn(&Arc<Dir>)> = Once::new();

/// Tell who adds the network's interfaces.
pub fn set_network(fill: fn(&Arc<Dir>)) {
    NETWORK.call_once(|| fill);
}

/// The contents.
pub fn tree() -> Arc<dyn Inode> {
    let root = Dir::new(0o555);
    let cpu = root.below("devices/system/cpu");
    for name in ["online", "possible", "present"] {
        cpu.add(name, Entry::file(|| Ok(cpus())));
    }
    cpu.add("offline", Entry::text("\n"));
    cpu.add("kernel_max", Entry::text("63\n"));
    for n in 0..arch::cpu::count() {
        let one = cpu.below(&format!("cpu{n}"));
        one.add("online", Entry::text("1\n"));
        let topology = one.below("topology");
        topology.add("core_id", Entry::file(move || Ok(format!("{n}\n").into_bytes())));
        topology.add("physical_package_id", Entry::text("0\n"));
        topology.add("die_id", Entry::text("0\n"));
        for name in ["thread_siblings_list", "core_cpus_list"] {
            topology.add(name, Entry::file(move || Ok(format!("{n}\n").into_bytes())));
        }
        for name in ["thread_siblings", "core_cpus"] {
            topology.add(name, Entry::file(move || Ok(format!("{:x}\n", 1u64 << n).into_bytes())));
        }
        for name in ["core_siblings_list", "package_cpus_list"] {
            topology.add(name, Entry::file(|| Ok(cpus())));
        }
        for name in ["core_siblings", "package_cpus"] {
            topology.add(name, Entry::file(|| Ok(mask())));
        }
    }
    let node = root.below("devices/system/node");
    for name in ["online", "possible", "has_cpu", "has_memory", "has_normal_memory"] {
        node.add(name, Entry::text("0\n"));
    }
    let one = node.below("node0");
    one.add("cpulist", Entry::file(|| Ok(cpus())));
    one.add("cpumap", Entry::file(|| Ok(mask())));
    one.add("distance", Entry::text("10\n"));
    one.add("meminfo", Entry::file(|| Ok(node_memory())));
    cpu.add("isolated", Entry::text("\n"));
    let threads = cpu.below("smt");
    threads.add("active", Entry::text("0\n"));
    threads.add("control", Entry::text("notsupported\n"));
    let huge = root.below("kernel/mm/transparent_hugepage");
    huge.add("enabled", Entry::writable(|| Ok(huge_wish()), set_huge_wish));
    huge.add("defrag", Entry::text("always defer defer+madvise madvise [never]\n"));
    huge.add("use_zero_page", Entry::text("0\n"));
    huge.add("shmem_enabled", Entry::text("always within_size advise [never] deny force\n"));
    huge.add("hpage_pmd_size", Entry::text("2097152\n"));
    root.below("block");
    root.below("class/net");
    if let Some(fill) = NETWORK.get() {
        fill(&root);
    }
    root.below("fs");
    root.inode()
}
