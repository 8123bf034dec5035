//! Frames: between the card and smoltcp, and what one begins.

use crate::drivers::net::{Card, FRAME};
use core::net::{IpAddr, SocketAddr};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket,
};

/// One frame on its way into smoltcp, and the card for what it sends.
pub struct Port<'a> {
    pub card: &'static Card,
    pub frame: Option<&'a [u8]>,
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
        let _ = self.0.send(frame);
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
        self.card.can_send().then_some(Sender(self.card))
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
    Datagram { to: SocketAddr },
}

pub fn opening(frame: &[u8]) -> Option<Opening> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let (from, to, protocol, payload): (IpAddr, IpAddr, _, _) = match frame.ethertype() {
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
            (packet.src_addr().into(), packet.dst_addr().into(), packet.next_header(), packet.payload())
        }
        EthernetProtocol::Ipv6 => {
            let packet = Ipv6Packet::new_checked(frame.payload()).ok()?;
            (packet.src_addr().into(), packet.dst_addr().into(), packet.next_header(), packet.payload())
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
            Some(Opening::Datagram { to: SocketAddr::new(to, packet.dst_port()) })
        }
        _ => None,
    }
}
