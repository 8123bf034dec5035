//! Frames: between the card and smoltcp, and what one begins.

use crate::drivers::net::{Card, FRAME};
use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket,
};

/// Frames that came and went, and their bytes.
#[derive(Clone, Copy, Default)]
pub struct Counted {
    pub packets_in: u64,
    pub bytes_in: u64,
    pub packets_out: u64,
    pub bytes_out: u64,
}
static COUNTED: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

pub fn count_in(bytes: usize) {
    COUNTED[0].fetch_add(1, Relaxed);
    COUNTED[1].fetch_add(bytes as u64, Relaxed);
}
pub fn counted() -> Counted {
    let [packets_in, bytes_in, packets_out, bytes_out] = core::array::from_fn(|i| COUNTED[i].load(Relaxed));
    Counted { packets_in, bytes_in, packets_out, bytes_out }
}

/// One frame on its way into smoltcp, and the card for what it sends.
pub struct Port<'a> {
    pub card: &'static Card,
    pub frame: Option<&'a [u8]>,
    /// The card had no room for something: smoltcp keeps it.
    pub full: bool,
}
pub struct Received<'a>(&'a [u8]);
pub struct Sender(&'static Card);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}
impl TxToken for Sender {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = [0; FRAME];
        let frame = &mut frame[..len.min(FRAME)];
        let result = f(frame);
        // `transmit` has seen that there is room; a broken card loses it, as a wire would.
        if self.0.send(frame) {
            COUNTED[2].fetch_add(1, Relaxed);
            COUNTED[3].fetch_add(len as u64, Relaxed);
        }
        result
    }
}
impl Device for Port<'_> {
    type RxToken<'b>
        = Received<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Sender
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sender)> {
        let frame = self.frame.take()?;
        Some((Received(frame), Sender(self.card)))
    }
    fn transmit(&mut self, _: Instant) -> Option<Sender> {
        self.full = !self.card.can_send();
        (!self.full).then_some(Sender(self.card))
    }
    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ethernet;
        caps.max_transmission_unit = FRAME;
        caps
    }
}

/// What a frame begins: the addresses of a TCP connection's first packet, or of a datagram.
pub enum Opening {
    Connection { from: SocketAddr, to: SocketAddr },
    Datagram { to: SocketAddr, hops: u8, class: u8 },
}

pub fn opening(frame: &[u8]) -> Option<Opening> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let (from, to, protocol, payload, hops, class): (IpAddr, IpAddr, _, _, _, _) = match frame.ethertype() {
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
            let class = packet.dscp() << 2 | packet.ecn();
            let ends = (packet.src_addr().into(), packet.dst_addr().into());
            (ends.0, ends.1, packet.next_header(), packet.payload(), packet.hop_limit(), class)
        }
        EthernetProtocol::Ipv6 => {
            let packet = Ipv6Packet::new_checked(frame.payload()).ok()?;
            let ends = (packet.src_addr().into(), packet.dst_addr().into());
            let class = packet.traffic_class();
            (ends.0, ends.1, packet.next_header(), packet.payload(), packet.hop_limit(), class)
        }
        _ => return None,
    };
    match protocol {
        IpProtocol::Tcp => {
            let packet = TcpPacket::new_checked(payload).ok()?;
            (packet.syn() && !packet.ack()).then(|| Opening::Connection {
                from: SocketAddr::new(from, packet.src_port()),
                to: SocketAddr::new(to, packet.dst_port()),
            })
        }
        IpProtocol::Udp => {
            let packet = UdpPacket::new_checked(payload).ok()?;
            Some(Opening::Datagram { to: SocketAddr::new(to, packet.dst_port()), hops, class })
        }
        _ => None,
    }
}
