//! Names of other computers, inside.
//!
//! The machine sees this computer's `/etc/resolv.conf`, and asks the servers named there over the network. One thing cannot work: a
//! server on a loopback address (systemd-resolved, dnsmasq, Docker's), for inside that is the machine's own loopback. Then
//! the machine is told the address by which QEMU's network asks in its stead, as containers are told their engine's.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// Who answers for this computer's own name server on QEMU's user network.
pub const NETWORKS_OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// Whether the name servers of this root are all on loopback addresses. Without any, the C library asks one there, too.
pub fn is_out_of_reach(root: &Path) -> bool {
    std::fs::read_to_string(root.join("etc/resolv.conf")).is_ok_and(|text| all_are_loopback(&text))
}

fn all_are_loopback(text: &str) -> bool {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()
    });
    // An IPv6 address may have a zone behind it.
    let parsed = servers.map(|s| s.split('%').next().unwrap_or(s).parse::<IpAddr>());
    parsed.flatten().all(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_out_of_reach() {
        assert!(all_are_loopback("nameserver 127.0.0.53\noptions edns0\nsearch lan\n"));
        assert!(all_are_loopback("# nothing\n"));
        assert!(all_are_loopback("nameserver ::1\nnameserver 127.0.0.1"));
        assert!(!all_are_loopback("nameserver 127.0.0.1\nnameserver 192.168.1.1\n"));
        assert!(!all_are_loopback("nameserver fe80::1%eth0\n"));
    }
}
