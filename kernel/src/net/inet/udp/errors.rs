//! Datagrams that came back: what an ICMP message would say (`ip(7)`, IP_RECVERR).
//!
//! A socket that is connected hears of it as an error of its next call. One that asked for it (IP_RECVERR, IPV6_RECVERR) is
//! told even if it is not connected, and can read what came back with MSG_ERRQUEUE: the bytes, whom they were for, and
//! `struct sock_extended_err` with who said so behind it.

use super::super::super::{Incoming, Ucred, abi, boxed, inbox::Packet};
use super::super::{header::Wants, shown};
use super::Udp;
use crate::{
    errno::{Errno, Result},
    fs::iobuf::{Sink, Source},
    net::Address,
};
use core::net::SocketAddr;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::net as raw;

/// An ICMP message has so much of the datagram that it is about.
const KEPT_IPV4: usize = 520;
const KEPT_IPV6: usize = 1184;
/// `SO_EE_ORIGIN_ICMP`, `SO_EE_ORIGIN_ICMP6`.
const ICMP: u8 = 2;
const ICMP6: u8 = 3;

impl Udp {
    /// Nobody is at `to`.
    pub(super) fn came_back(&self, from: &mut Source<'_>, to: SocketAddr) -> Result<()> {
        let peer = self.state.lock().peer;
        let wanted = if to.is_ipv4() { Wants::ERRORS } else { Wants::ERRORS6 };
        let asked = self.settings.wants().contains(wanted) && peer.is_none_or(|peer| peer == to);
        if asked {
            self.keep(from, to)?;
        }
        // It would have been read all the same.
        Udp::collect(from)?;
        if asked || peer == Some(to) {
            self.common.fail(Errno::ECONNREFUSED);
            self.common.signal.notify();
        }
        Ok(())
    }

    fn keep(&self, from: &mut Source<'_>, to: SocketAddr) -> Result<()> {
        let len = from.remaining().min(if to.is_ipv4() { KEPT_IPV4 } else { KEPT_IPV6 });
        if self.account.used() + len > self.common.receive_buffer.load(Relaxed) as usize {
            return Ok(());
        }
        let Ok(mut packet) = Packet::new(from, len, &self.account, Ucred::default()) else { return Ok(()) };
        if from.faulted() {
            from.uncount(packet.len());
            return Err(Errno::EFAULT);
        }
        packet.source = boxed(Address::Inet(to));
        let _ = self.errors.push(packet);
        Ok(())
    }

    /// `recvmsg` with MSG_ERRQUEUE: never waits.
    pub(super) fn receive_error(&self, to: &mut Sink<'_>, into: &mut Incoming) -> Result<()> {
        let whole = self.errors.receive(to, into, false).ok_or(Errno::EAGAIN)?;
        into.whole = Some(whole);
        into.told |= abi::MSG_ERRQUEUE;
        // The next error is that of the next that came back.
        let _ = self.common.take_error();
        if !self.errors.is_empty() {
            self.common.fail(Errno::ECONNREFUSED);
        }
        let Some(Address::Inet(about)) = into.from.take() else { return Ok(()) };
        let domain = self.common.domain;
        into.from = Some(shown(about, domain));
        // Error number, origin, type and code: "port unreachable".
        let (origin, kind, code) = if about.is_ipv4() { (ICMP, 3, 3) } else { (ICMP6, 1, 4) };
        let mut note = [0; 16 + 28];
        note[..4].copy_from_slice(&(Errno::ECONNREFUSED.code() as u32).to_ne_bytes());
        (note[4], note[5], note[6]) = (origin, kind, code);
        let said_by = shown(SocketAddr::new(about.ip(), 0), domain).bytes();
        note[16..16 + said_by.len()].copy_from_slice(&said_by);
        let (level, name) = match domain {
            abi::AF_INET => (abi::IPPROTO_IP, raw::IP_RECVERR),
            _ => (abi::IPPROTO_IPV6, raw::IPV6_RECVERR),
        };
        into.note(level, name, &note[..16 + said_by.len()]);
        Ok(())
    }
}
