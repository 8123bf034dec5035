//! Connections: `listen`, `accept`, `connect`, and what a stream sends and receives.

use super::{Peer, Role, Unix, name};
use crate::{
    errno::{Errno, Result},
    fs::iobuf::{Sink, Source},
    net::{
        Incoming, Outgoing, Target, Wait, abi,
        inbox::{Older, Reading},
        options,
    },
};
use alloc::{collections::VecDeque, sync::Arc};

impl Unix {
    pub(super) fn start_listening(&self, most: usize) -> Result<()> {
        if self.is_datagram() {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state.lock();
        if state.name.is_none() {
            return Err(Errno::EINVAL);
        }
        match &mut state.role {
            Role::Fresh => state.role = Role::Listening { queue: VecDeque::new(), most },
            Role::Listening { most: old, .. } => *old = most,
            _ => return Err(Errno::EINVAL),
        }
        // Who connects is told who listens, not who accepts.
        state.peer_cred = Some(Peer::caller());
        drop(state);
        self.common.signal.notify();
        Ok(())
    }

    pub(super) fn accept_one(&self, wait: Wait) -> Result<Arc<Unix>> {
        if self.is_datagram() {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut taken = None;
        let mut gone = false;
        self.common.sleep(wait, || {
            let mut state = self.state.lock();
            match &mut state.role {
                Role::Listening { queue, .. } => taken = queue.pop_front(),
                _ => gone = true,
            }
            gone |= state.shut.read && taken.is_none();
            gone || taken.is_some()
        })?;
        match taken {
            Some(socket) => {
                // Somebody may wait for room in the queue.
                self.common.signal.notify();
                Ok(socket)
            }
            None => Err(Errno::EINVAL),
        }
    }

    pub(super) fn connect_to(&self, to: &Target, wait: Wait) -> Result<()> {
        let me = self.me.upgrade().ok_or(Errno::EINVAL)?;
        loop {
            let listener = name::find(to)?;
            match self.state.lock().role {
                Role::Fresh => {}
                Role::Connected(_) => return Err(Errno::EISCONN),
                _ => return Err(Errno::EINVAL),
            }
            if listener.common.kind != self.common.kind {
                return Err(Errno::EPROTOTYPE);
            }
            let other = Unix::new(self.common.kind);
            other.common.inherit(&listener.common);
            let (name, cred) = {
                let state = listener.state.lock();
                (state.name.clone(), state.peer_cred.clone())
            };
            {
                let mut state = other.state.lock();
                state.role = Role::Connected(self.me.clone());
                state.name = name.clone();
                state.peer_cred = Some(Peer::caller());
                state.peer_name = self.state.lock().name.clone();
            }
            // Connected first, then in the queue: whoever accepts may answer at once.
            {
                let mut mine = self.state.lock();
                if !matches!(mine.role, Role::Fresh) {
                    return Err(Errno::EISCONN);
                }
                mine.role = Role::Connected(Arc::downgrade(&other));
                mine.peer_cred = cred;
                mine.peer_name = name;
            }
            let place = {
                let mut state = listener.state.lock();
                let shut = state.shut.read;
                match &mut state.role {
                    Role::Listening { queue, most } if !shut && queue.len() <= *most => {
                        let room = queue.try_reserve(1).map_err(|_| Errno::ENOBUFS);
                        room.map(|()| {
                            queue.push_back(other);
                            true
                        })
                    }
                    Role::Listening { .. } if !shut => Ok(false),
                    _ => Err(Errno::ECONNREFUSED),
                }
            };
            if place != Ok(true) {
                self.state.lock().role = Role::Fresh;
            }
            let full = !place?;
            if !full {
                listener.common.signal.notify();
                me.common.signal.notify();
                return Ok(());
            }
            let deadline = match wait {
                Wait::Never => return Err(Errno::EAGAIN),
                Wait::Until(deadline) => deadline,
            };
            let ready = || match &listener.state.lock().role {
                Role::Listening { queue, most } => queue.len() <= *most,
                _ => true,
            };
            let queue = listener.common.signal.queue();
            options::ended(queue.wait_until(ready, deadline, true), deadline)?;
        }
    }

    /// The error of a way that is closed.
    fn sending_ends(&self) -> Result<()> {
        self.common.take_error()?;
        let state = self.state.lock();
        match state.role {
            Role::Connected(_) if state.shut.write => Err(Errno::EPIPE),
            Role::Connected(_) => Ok(()),
            _ => Err(Errno::ENOTCONN),
        }
    }

    /// Wait for room to send; an error if there is no point in it.
    pub(super) fn await_room(&self, wait: Wait) -> Result<()> {
        self.sending_ends()?;
        if self.account.has_room() {
            return Ok(());
        }
        let ready = || self.account.is_writable() || self.shut().write || self.common.has_error();
        if wait == Wait::Never {
            return Err(Errno::EAGAIN);
        }
        self.common.sleep(wait, ready)?;
        self.sending_ends()
    }

    pub(super) fn send_stream(&self, from: &mut Source<'_>, mut out: Outgoing, wait: Wait) -> Result<()> {
        if out.to.is_some() {
            return Err(if self.is_connected() { Errno::EISCONN } else { Errno::EOPNOTSUPP });
        }
        self.sending_ends()?;
        let cred = self.sender(&out);
        let mut unsaid = false;
        while from.remaining() > 0 {
            if unsaid && !self.account.has_room() {
                // What is there already is to be read while we wait.
                if let Some(peer) = self.peer() {
                    peer.common.signal.notify();
                }
            }
            self.await_room(wait)?;
            let Some(peer) = self.peer() else { return Err(Errno::EPIPE) };
            let result = peer.inbox.send_stream(from, &self.account, cred, &mut out.rights);
            unsaid = true;
            if result.is_err() || from.remaining() == 0 {
                peer.common.signal.notify();
                return result;
            }
        }
        Ok(())
    }

    /// MSG_OOB: the last byte is urgent.
    pub(super) fn send_urgent(&self, from: &mut Source<'_>, mut out: Outgoing, wait: Wait) -> Result<()> {
        if self.common.kind != abi::SOCK_STREAM || from.remaining() == 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let cred = self.sender(&out);
        out.flags &= !abi::MSG_OOB;
        from.hold_back(1);
        self.send_stream(from, out, wait)?;
        from.let_go(1);
        if from.remaining() != 1 {
            return Ok(());
        }
        self.await_room(wait)?;
        let Some(peer) = self.peer() else { return Err(Errno::EPIPE) };
        peer.inbox.send_urgent(from, &self.account, cred, Older::GivenOnce)?;
        peer.common.signal.urge();
        Ok(())
    }

    pub(super) fn receive_stream(&self, to: &mut Sink<'_>, into: &mut Incoming, wait: Wait) -> Result<()> {
        if !self.is_connected() {
            return Err(Errno::EINVAL);
        }
        let inline = self.common.has(abi::SO_OOBINLINE);
        let how = Reading { peek: into.peeks(), by_sender: self.tells_sender(), inline, once: true };
        let all = into.flags & abi::MSG_WAITALL != 0;
        let wanted = to.remaining();
        // Who wants nothing waits all the same until there is something.
        let least = if all || wanted == 0 { 1 } else { self.common.low_water().min(wanted) };
        loop {
            let moved =
                (self.inbox.bytes() >= least || self.shut().read) && self.inbox.read_stream(to, into, how);
            if wanted == 0 && !self.inbox.is_empty() {
                return Ok(());
            }
            let full = to.remaining() == 0 || !into.rights.is_empty() || self.inbox.at_mark();
            if to.faulted() || moved && (!all || how.peek || full) {
                return Ok(());
            }
            if !moved {
                self.common.take_error()?;
                if self.shut().read && self.inbox.stream_bytes(inline) == 0 {
                    return Ok(());
                }
                self.await_input(least, wait)?;
            }
        }
    }
}
