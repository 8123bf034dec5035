//! Numbers of the socket interface. Those that live in the C library's headers only, and so in no list of the kernel's, are
//! written out here; the rest comes from `linux-raw-sys`.
#![allow(dead_code, unused_imports, reason = "numbers are listed whole")]

pub use linux_raw_sys::net::{
    IPV6_V6ONLY, SO_ACCEPTCONN, SO_ATTACH_FILTER, SO_BINDTODEVICE, SO_BPF_EXTENSIONS, SO_BROADCAST,
    SO_BUF_LOCK, SO_BUSY_POLL, SO_COOKIE, SO_DEBUG, SO_DETACH_FILTER, SO_DOMAIN, SO_DONTROUTE, SO_ERROR,
    SO_GET_FILTER, SO_INCOMING_CPU, SO_INCOMING_NAPI_ID, SO_KEEPALIVE, SO_LINGER, SO_LOCK_FILTER, SO_MARK,
    SO_MEMINFO, SO_NETNS_COOKIE, SO_NO_CHECK, SO_OOBINLINE, SO_PASSCRED, SO_PASSPIDFD, SO_PASSSEC,
    SO_PEERCRED, SO_PEERGROUPS, SO_PEERNAME, SO_PEERPIDFD, SO_PEERSEC, SO_PREFER_BUSY_POLL, SO_PRIORITY,
    SO_PROTOCOL, SO_RCVBUF, SO_RCVBUFFORCE, SO_RCVLOWAT, SO_RCVTIMEO_NEW, SO_RCVTIMEO_OLD, SO_REUSEADDR,
    SO_REUSEPORT, SO_RXQ_OVFL, SO_SNDBUF, SO_SNDBUFFORCE, SO_SNDLOWAT, SO_SNDTIMEO_NEW, SO_SNDTIMEO_OLD,
    SO_TIMESTAMP_NEW, SO_TIMESTAMP_OLD, SO_TIMESTAMPING_NEW, SO_TIMESTAMPING_OLD, SO_TIMESTAMPNS_NEW,
    SO_TIMESTAMPNS_OLD, SO_TXTIME, SO_TYPE, SOL_SOCKET,
};

pub const AF_UNSPEC: u32 = 0;
pub const AF_UNIX: u32 = 1;
pub const AF_INET: u32 = 2;
pub const AF_INET6: u32 = 10;
pub const AF_NETLINK: u32 = 16;
/// One more than the highest family there is.
pub const AF_MAX: u32 = 46;

pub const SOCK_STREAM: u32 = 1;
pub const SOCK_DGRAM: u32 = 2;
pub const SOCK_RAW: u32 = 3;
pub const SOCK_RDM: u32 = 4;
pub const SOCK_SEQPACKET: u32 = 5;
pub const SOCK_DCCP: u32 = 6;
pub const SOCK_PACKET: u32 = 10;
/// The bits of a type that name it; above are flags.
pub const SOCK_TYPE_MASK: u32 = 0xf;
pub const SOCK_CLOEXEC: u32 = linux_raw_sys::general::O_CLOEXEC;
pub const SOCK_NONBLOCK: u32 = linux_raw_sys::general::O_NONBLOCK;

pub const IPPROTO_IP: u32 = 0;
pub const IPPROTO_ICMP: u32 = 1;
pub const IPPROTO_TCP: u32 = 6;
pub const IPPROTO_UDP: u32 = 17;
pub const IPPROTO_IPV6: u32 = 41;
pub const IPPROTO_ICMPV6: u32 = 58;
pub const IPPROTO_UDPLITE: u32 = 136;
pub const IPPROTO_RAW: u32 = 255;
pub const IPPROTO_MAX: u32 = 263;

pub const MSG_OOB: u32 = 1;
pub const MSG_PEEK: u32 = 2;
pub const MSG_CTRUNC: u32 = 8;
pub const MSG_TRUNC: u32 = 0x20;
pub const MSG_DONTWAIT: u32 = 0x40;
pub const MSG_EOR: u32 = 0x80;
pub const MSG_WAITALL: u32 = 0x100;
pub const MSG_ERRQUEUE: u32 = 0x2000;
pub const MSG_NOSIGNAL: u32 = 0x4000;
pub const MSG_MORE: u32 = 0x8000;
pub const MSG_WAITFORONE: u32 = 0x10000;
pub const MSG_FASTOPEN: u32 = 0x2000_0000;
pub const MSG_CMSG_CLOEXEC: u32 = 0x4000_0000;
pub const MSG_CMSG_COMPAT: u32 = 0x8000_0000;

pub const SCM_RIGHTS: u32 = 1;
pub const SCM_CREDENTIALS: u32 = 2;
pub const SCM_PIDFD: u32 = 4;
/// Whether such time stamps are in nanoseconds, not microseconds.
pub fn is_nanoseconds(option: u32) -> bool {
    matches!(option, SO_TIMESTAMPNS_OLD | SO_TIMESTAMPNS_NEW)
}
/// Most descriptors in one message (SCM_MAX_FD).
pub const SCM_MAX_FD: usize = 253;
