//! Sockets that keep messages apart: datagrams and SOCK_SEQPACKET.

use super::{Peer, Role, Unix, flight::Flight, name};
use crate::{
    clock,
    errno::{Errno, Result},
    fs::iobuf::{Sink, Source},
    net::{Address, Incoming, Outgoing, Target, Ucred, Wait, boxed, inbox::Packet, options},
    sched,
};
use alloc::{sync::Arc, vec::Vec};

/// Datagrams that wait at one receiver before senders do (`net.unix.max_dgram_qlen`).
const MAX_WAITING: usize = 10;

/// `socketpair(2)`: connect two new ones.
pub fn join(one: &Unix, two: &Unix) {
    let cred = Peer::caller();
    for (this, other) in [(one, two), (two, one)] {
        let mut state = this.state.lock();
        state.role = Role::Connected(other.me.clone());
        state.peer_cred = Some(cred.clone());
    }
}

impl Unix {
    /// `connect` of a datagram socket: where it sends to from now on, and whom alone it hears.
    pub(super) fn associate(&self, to: &Target) -> Result<()> {
        let role = match &to.address {
            Address::None => Role::Fresh,
            _ => {
                let other = name::find(to)?;
                self.check_datagram(&other)?;
                let name = other.state.lock().name.clone();
                self.state.lock().peer_name = name;
                Role::Connected(Arc::downgrade(&other))
            }
        };
        self.state.lock().role = role;
        self.inbox.clear();
        self.common.signal.notify();
        Ok(())
    }

    /// Whether `other` takes datagrams from here.
    fn check_datagram(&self, other: &Arc<Unix>) -> Result<()> {
        if other.common.kind != self.common.kind {
            return Err(Errno::EPROTOTYPE);
        }
        match &other.state.lock().role {
            Role::Connected(peer) if !peer.ptr_eq(&self.me) => Err(Errno::EPERM),
            _ => Ok(()),
        }
    }

    /// Whether a datagram to the connected receiver would find room there.
    pub(super) fn peer_has_room(&self) -> bool {
        !self.is_datagram() || self.peer().is_none_or(|peer| self.has_place_at(&peer))
    }
    fn has_place_at(&self, other: &Arc<Unix>) -> bool {
        // Of two that talk only to each other the account bounds what is under way.
        let mutual = matches!(&other.state.lock().role, Role::Connected(p) if p.ptr_eq(&self.me));
        mutual || other.inbox.packets() <= MAX_WAITING || other.shut().read
    }

    pub(super) fn send_datagram(&self, from: &mut Source<'_>, out: Outgoing, wait: Wait) -> Result<()> {
        self.common.take_error()?;
        if self.shut().write {
            return Err(Errno::EPIPE);
        }
        let other = match &out.to {
            Some(to) => name::find(to)?,
            None => match &self.state.lock().role {
                Role::Connected(peer) => peer.upgrade().ok_or(Errno::ECONNREFUSED)?,
                _ => return Err(Errno::ENOTCONN),
            },
        };
        self.check_datagram(&other)?;
        let cred = self.sender(&out);
        let mut packet = self.packet(from, out, cred, wait)?;
        if other.common.stamp() != 0 {
            packet.at = clock::realtime();
        }
        if !self.has_place_at(&other) {
            let deadline = match wait {
                Wait::Never => {
                    from.take_back();
                    return Err(Errno::EAGAIN);
                }
                Wait::Until(deadline) => deadline,
            };
            let room = other.room.clone().ok_or(Errno::ECONNREFUSED)?;
            let result = room.queue().wait_until(|| self.has_place_at(&other), deadline, true);
            if result != sched::WaitResult::Ready {
                from.take_back();
                return options::ended(result, deadline);
            }
        }
        if other.shut().read {
            from.take_back();
            return Err(if matches!(other.state.lock().role, Role::Closed) {
                Errno::ECONNREFUSED
            } else {
                Errno::EPIPE
            });
        }
        // What its filter does not let in is gone; the sender does not hear of it.
        if !other.common.lets_in(&mut packet, |_| (Vec::new(), 0, 0)) {
            return Ok(());
        }
        if other.inbox.push(packet).is_err() {
            from.take_back();
            return Err(Errno::ECONNREFUSED);
        }
        other.common.signal.notify();
        Ok(())
    }

    /// All that the source has, as one packet, when the account has room.
    fn packet(&self, from: &mut Source<'_>, out: Outgoing, cred: Ucred, wait: Wait) -> Result<Packet> {
        let len = from.remaining();
        if len + 32 > self.account.limit() {
            return Err(Errno::EMSGSIZE);
        }
        if !self.account.has_room() {
            if wait == Wait::Never {
                return Err(Errno::EAGAIN);
            }
            let ready = || self.account.is_writable() || self.shut().write || self.common.has_error();
            self.common.sleep(wait, ready)?;
        }
        // What may fail comes before the bytes are taken.
        let rights = Flight::new(out.rights)?;
        let mut packet = Packet::new(from, len, &self.account, cred)?;
        if from.faulted() {
            from.uncount(packet.len());
            return Err(Errno::EFAULT);
        }
        let name = self.state.lock().name.clone();
        packet.source = name.and_then(|n| boxed(n.address.clone()));
        packet.rights = rights;
        Ok(packet)
    }

    pub(super) fn send_record(&self, from: &mut Source<'_>, mut out: Outgoing, wait: Wait) -> Result<()> {
        if !self.is_connected() {
            return Err(Errno::ENOTCONN);
        }
        out.to = None;
        self.await_room(wait)?;
        let cred = self.sender(&out);
        let mut packet = self.packet(from, out, cred, wait)?;
        let pushed = match self.peer() {
            Some(peer) if !peer.common.lets_in(&mut packet, |_| (Vec::new(), 0, 0)) => true,
            Some(peer) => peer.inbox.push(packet).map(|()| peer.common.signal.notify()).is_ok(),
            None => false,
        };
        if !pushed {
            from.take_back();
            return Err(Errno::EPIPE);
        }
        Ok(())
    }

    pub(super) fn receive_packet(&self, to: &mut Sink<'_>, into: &mut Incoming, wait: Wait) -> Result<()> {
        if !self.is_datagram() && !self.is_connected() {
            return Err(Errno::ENOTCONN);
        }
        loop {
            if let Some(whole) = self.inbox.receive(to, into, into.peeks()) {
                into.whole = Some(whole);
                if let Some(room) = &self.room {
                    room.notify();
                }
                return Ok(());
            }
            self.common.take_error()?;
            if self.shut().read {
                return Ok(());
            }
            self.await_input(0, wait)?;
        }
    }
}
