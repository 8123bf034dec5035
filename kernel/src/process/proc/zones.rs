//! RAM as Linux's allocators would tell of it: one node, one zone, blocks of frames by size.

use super::super::commit;
use crate::mem::memory;
use alloc::format;
use alloc::string::String;
use core::fmt::Write;

/// Block sizes that readers count on: one frame up to 1024.
const ORDERS: usize = 11;

fn blocks() -> [u64; ORDERS] {
    let mut orders = [0; ORDERS];
    for (order, &count) in memory().free_blocks().iter().enumerate() {
        // Blocks that are larger than readers know count as several.
        let shown = order.min(ORDERS - 1);
        orders[shown] += u64::from(count) << (order - shown);
    }
    orders
}

fn columns(orders: &[u64; ORDERS]) -> String {
    orders.iter().fold(String::new(), |mut text, count| {
        let _ = write!(text, "{count:>6} ");
        text
    })
}

pub fn buddyinfo() -> String {
    format!("Node 0, zone   Normal {}\n", columns(&blocks()))
}

/// Frames are not kept apart by how long they will be used: all are of one kind.
pub fn pagetypeinfo() -> String {
    let orders = columns(&blocks());
    format!(
        "Page block order: 9\nPages per block:  512\n\n\
         Free pages count per migrate type at order       0      1      2      3      4      5      6      7      8      9     10 \n\
         Node    0, zone   Normal, type      Movable {orders}\n\n\
         Number of blocks type      Movable \nNode 0, zone   Normal {:>12} \n",
        memory().stats().total / 512
    )
}

pub fn zoneinfo() -> String {
    let stats = memory().stats();
    let (min, low, high) = memory().watermarks();
    let mut text = String::from("Node 0, zone   Normal\n  per-node stats\n");
    for (name, value) in [
        ("nr_inactive_anon", stats.inactive[0]),
        ("nr_active_anon", stats.active[0]),
        ("nr_inactive_file", stats.inactive[1]),
        ("nr_active_file", stats.active[1]),
        ("nr_unevictable", stats.wired),
        ("nr_anon_pages", stats.anonymous),
        ("nr_file_pages", stats.file + stats.shared),
        ("nr_dirty", stats.dirty),
        ("nr_shmem", stats.shared),
    ] {
        let _ = writeln!(text, "      {name:<12} {value}");
    }
    let _ = writeln!(text, "  pages free     {}", stats.free);
    for (name, value) in [
        ("min", u64::from(min)),
        ("low", u64::from(low)),
        ("high", u64::from(high)),
        ("spanned", memory().frame_end()),
        ("present", memory().frame_end()),
        ("managed", stats.total),
    ] {
        let _ = writeln!(text, "        {name:<8} {value}");
    }
    let _ = writeln!(text, "        protection: (0)\n      nr_free_pages {}", stats.free);
    let _ = writeln!(text, "  node_unreclaimable:  0\n  start_pfn:           0");
    text
}

/// The kernel's heap knows no caches by name.
pub fn slabinfo() -> String {
    String::from(
        "slabinfo - version: 2.1\n# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> \
         : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>\n",
    )
}

/// The lines of `meminfo` on promises: what may be promised, and what has been, in pages.
pub fn promises() -> (u64, u64) {
    (commit::limit(), memory().promised())
}
