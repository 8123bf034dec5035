//! `/sys/class/net`: a directory an interface, reached by a link, as programs look for interfaces that need no socket.
//!
//! Nothing can be changed. What an interface has no answer to (the speed of the loopback) is EINVAL, as on Linux; packets are not
//! counted for the loopback, which has none, and counted by the card for the other.

use super::{inet, interfaces};
use crate::{
    errno::Errno,
    fs::synth::{Dir, Entry},
};
use alloc::{format, string::String, sync::Arc};

/// What is counted: received and sent.
const COUNTED: [&str; 23] = [
    "collisions",
    "multicast",
    "rx_bytes",
    "rx_compressed",
    "rx_crc_errors",
    "rx_dropped",
    "rx_errors",
    "rx_fifo_errors",
    "rx_frame_errors",
    "rx_length_errors",
    "rx_missed_errors",
    "rx_nohandler",
    "rx_over_errors",
    "rx_packets",
    "tx_aborted_errors",
    "tx_bytes",
    "tx_carrier_errors",
    "tx_compressed",
    "tx_dropped",
    "tx_errors",
    "tx_fifo_errors",
    "tx_heartbeat_errors",
    "tx_packets",
];

fn colons(bytes: &[u8]) -> String {
    let each = bytes.iter().map(|byte| format!("{byte:02x}"));
    each.reduce(|all, one| all + ":" + &one).unwrap_or_default()
}

/// Inside the machine there are no packets.
fn count(name: &str, loopback: bool) -> u64 {
    let n = if loopback { inet::Counted::default() } else { inet::counted() };
    match name {
        "rx_packets" => n.packets_in,
        "rx_bytes" => n.bytes_in,
        "tx_packets" => n.packets_out,
        "tx_bytes" => n.bytes_out,
        _ => 0,
    }
}

/// All interfaces, below the root of a `/sys`.
pub fn fill(root: &Arc<Dir>) {
    let class = root.below("class/net");
    for one in inet::interfaces() {
        let loopback = one.index == inet::LOOPBACK;
        let place = if loopback {
            format!("devices/virtual/net/{}", one.name)
        } else {
            format!("devices/platform/virtio-mmio/virtio0/net/{}", one.name)
        };
        let target = format!("../../{place}").into_bytes();
        class.add(one.name, Entry::link(move || Ok(target.clone())));
        let dir = root.below(&place);
        let line = |name: &str, text: String| {
            let bytes = (text + "\n").into_bytes();
            dir.add(name, Entry::file(move || Ok(bytes.clone())));
        };
        line("address", colons(&one.hardware));
        line("broadcast", colons(&[if loopback { 0 } else { 0xff }; 6]));
        line("addr_len", format!("{}", one.hardware.len()));
        line("mtu", format!("{}", one.mtu));
        // As the kernel keeps them: without what it adds for `SIOCGIFFLAGS` (that it runs).
        line("flags", format!("{:#x}", interfaces::flags(&one) & !interfaces::RUNNING));
        line("ifindex", format!("{}", one.index));
        line("iflink", format!("{}", one.index));
        line("type", format!("{}", interfaces::hardware_type(&one)));
        line("operstate", (if loopback { "unknown" } else { "up" }).into());
        line("tx_queue_len", "1000".into());
        line("uevent", format!("INTERFACE={}\nIFINDEX={}", one.name, one.index));
        for (name, text) in [
            ("ifalias", ""),
            ("carrier", "1\n"),
            ("carrier_changes", "0\n"),
            ("dormant", "0\n"),
            ("dev_id", "0x0\n"),
            ("dev_port", "0\n"),
            ("link_mode", "0\n"),
            ("netdev_group", "0\n"),
            ("testing", "0\n"),
        ] {
            dir.add(name, Entry::text(text));
        }
        for name in ["speed", "duplex"] {
            dir.add(name, Entry::file(|| Err(Errno::EINVAL)));
        }
        let statistics = dir.below("statistics");
        for name in COUNTED {
            statistics
                .add(name, Entry::file(move || Ok(format!("{}\n", count(name, loopback)).into_bytes())));
        }
        let subsystem = if loopback { "../../../../class/net" } else { "../../../../../../class/net" };
        dir.add("subsystem", Entry::link(move || Ok(subsystem.into())));
    }
}
