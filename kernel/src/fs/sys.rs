//! `/sys`: the little of it that programs read to learn about processors and memory.

use super::{
    inode::Inode,
    synth::{Dir, Entry},
};
use crate::arch;
use alloc::{format, sync::Arc, vec::Vec};

/// `0` or `0-3`: the processors.
fn cpus() -> Vec<u8> {
    match arch::cpu::count() {
        0 | 1 => b"0\n".to_vec(),
        n => format!("0-{}\n", n - 1).into_bytes(),
    }
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
        topology.add("thread_siblings_list", Entry::file(move || Ok(format!("{n}\n").into_bytes())));
    }
    let node = root.below("devices/system/node");
    for name in ["online", "possible", "has_memory"] {
        node.add(name, Entry::text("0\n"));
    }
    node.below("node0").add("cpulist", Entry::file(|| Ok(cpus())));
    let huge = root.below("kernel/mm/transparent_hugepage");
    huge.add("enabled", Entry::text("always madvise [never]\n"));
    huge.add("defrag", Entry::text("always defer defer+madvise madvise [never]\n"));
    huge.add("hpage_pmd_size", Entry::text("2097152\n"));
    root.below("kernel/mm/hugepages");
    root.below("block");
    root.below("class/net");
    root.below("fs");
    root.inode()
}
