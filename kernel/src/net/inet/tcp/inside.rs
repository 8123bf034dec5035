//! Connections within the machine: what one side writes is at once in the other's inbox.

use super::super::{held, ports, source_for};
use super::{NEW, Role, Shut, Tcp, turn_away};
use crate::{
    errno::{Errno, Result},
    fs::iobuf::{Sink, Source},
    net::{
        Incoming, Protocol, Ucred, Wait, abi,
        inbox::{Older, Reading},
    },
};
use alloc::sync::{Arc, Weak};
use core::net::SocketAddr;

impl Tcp {
    /// Connect to a listener on this machine. Afterwards the socket is connected, or `connecting`, or has an error.
    pub(super) fn connect_inside(&self, to: SocketAddr) -> Result<()> {
        let bound = self.state.lock().local;
        let from = self.bind_somewhere(source_for(to.ip()))?;
        let ip = if from.ip().is_unspecified() { source_for(to.ip()) } else { from.ip() };
        if bound.is_some() && ip.is_ipv4() != to.is_ipv4() {
            return Err(Errno::EINVAL);
        }
        let me = SocketAddr::new(ip, from.port());
        {
            let mut state = self.state.lock();
            (state.local, state.peer) = (Some(me), Some(to));
            state.connecting = true;
        }
        let listener = ports::TCP.find(to, Some(me), true);
        let Some(listener) = listener.as_ref().and_then(|l| l.as_any().downcast_ref::<Tcp>()) else {
            self.start_over(Errno::ECONNREFUSED);
            return Ok(());
        };
        if let Some(this) = self.me.upgrade() {
            listener.take_in(&this);
        }
        Ok(())
    }

    /// A client comes: into the queue if there is room, else it waits.
    fn take_in(&self, client: &Arc<Tcp>) {
        let room = {
            let mut state = self.state.lock();
            match &mut state.role {
                Role::Listening { queue, waiting, most } => {
                    if queue.len() <= *most {
                        Some(true)
                    } else {
                        // Where there is no room to remember who waits, he is turned away.
                        let kept = waiting.try_reserve(1).is_ok();
                        kept.then(|| waiting.push_back(Arc::downgrade(client))).map(|()| false)
                    }
                }
                _ => None,
            }
        };
        match room {
            Some(true) => self.establish(client),
            Some(false) => {}
            None => client.start_over(Errno::ECONNREFUSED),
        }
    }

    /// Make the client's other side, and queue it for `accept`.
    fn establish(&self, client: &Arc<Tcp>) {
        let other = Tcp::new(self.common.domain);
        other.common.inherit(&self.common);
        other.settings.inherit(&self.settings);
        other.account.set_limit(self.account.limit());
        {
            let mut mine = client.state.lock();
            if !mine.connecting {
                return;
            }
            mine.role = Role::Inside(Arc::downgrade(&other));
            (mine.connecting, mine.news) = (false, true);
            let mut theirs = other.state.lock();
            theirs.role = Role::Inside(client.me.clone());
            (theirs.local, theirs.peer) = (mine.peer, mine.local);
            theirs.hold = theirs.local.and_then(|at| held::Hold::new(at, other.sharing()));
        }
        if let Some(lost) = self.queue_up(other) {
            lost.close();
            client.hears_reset(Errno::ECONNRESET);
        }
        client.common.signal.notify();
        self.common.signal.notify();
    }

    /// Put a connection into the queue for `accept`; it comes back if nobody listens any more.
    pub(super) fn queue_up(&self, other: Arc<Tcp>) -> Option<Arc<Tcp>> {
        match &mut self.state.lock().role {
            Role::Listening { queue, .. } => match queue.try_reserve(1) {
                Ok(()) => {
                    queue.push_back(other);
                    None
                }
                Err(_) => Some(other),
            },
            _ => Some(other),
        }
    }

    pub(super) fn accept_one(&self, wait: Wait) -> Result<Arc<Tcp>> {
        let mut taken = None;
        let mut next = None;
        let mut listens = true;
        self.common.sleep(wait, || {
            let mut state = self.state.lock();
            match &mut state.role {
                Role::Listening { queue, waiting, .. } => {
                    taken = queue.pop_front();
                    if taken.is_some() {
                        next = waiting.pop_front();
                    }
                }
                _ => listens = false,
            }
            !listens || taken.is_some()
        })?;
        if let Some(client) = next.as_ref().and_then(Weak::upgrade) {
            self.establish(&client);
        }
        taken.ok_or(Errno::EINVAL)
    }

    /// `shutdown` of a listener: it is an ordinary socket again.
    pub(super) fn stop_listening(&self) {
        let role = {
            let mut state = self.state.lock();
            state.shut = Shut { read: true, write: true };
            core::mem::replace(&mut state.role, Role::Fresh)
        };
        if let Role::Listening { queue, waiting, .. } = role {
            turn_away(queue, waiting);
        }
        self.common.signal.notify();
    }

    /// `connect` to no address: the connection ends, and the socket can be used anew.
    pub(super) fn disconnect(&self) -> Result<()> {
        let role = core::mem::replace(&mut self.state.lock().role, Role::Fresh);
        match role {
            Role::Inside(peer) => {
                if let Some(peer) = peer.upgrade() {
                    peer.hears_reset(Errno::ECONNRESET);
                }
            }
            Role::Outside(handle) => super::outside::release(handle, true),
            Role::Listening { queue, waiting, .. } => turn_away(queue, waiting),
            _ => {}
        }
        self.inbox.clear();
        self.release_port();
        *self.state.lock() = NEW;
        self.common.signal.notify();
        Ok(())
    }

    /// The other side sends no more; it may be gone altogether.
    pub(super) fn hears_fin(&self, gone: bool) {
        {
            let mut state = self.state.lock();
            state.fin = true;
            state.gone |= gone;
        }
        self.common.signal.notify();
    }

    /// The other side broke the connection off.
    pub(super) fn hears_reset(&self, error: Errno) {
        {
            let mut state = self.state.lock();
            state.reset_after_fin |= state.fin && !state.reset;
            (state.fin, state.gone, state.reset) = (true, true, true);
            state.shut.write = true;
        }
        self.common.fail(error);
        self.common.signal.notify();
    }

    /// Whether the way out is closed, and why.
    fn sending_ends(&self) -> Result<()> {
        self.common.take_error()?;
        if self.state.lock().shut.write { Err(Errno::EPIPE) } else { Ok(()) }
    }

    pub(super) fn send_inside(&self, from: &mut Source<'_>, peer: Weak<Tcp>, wait: Wait) -> Result<()> {
        let mut unsaid = false;
        while from.remaining() > 0 {
            if !self.account.has_room() {
                if let Some(peer) = peer.upgrade().filter(|_| unsaid) {
                    // What is there already is to be read while we wait.
                    peer.common.signal.notify();
                }
                if wait == Wait::Never {
                    return Err(Errno::EAGAIN);
                }
                let ready = || {
                    let state = self.state.lock();
                    self.account.is_writable() || state.shut.write || state.gone
                };
                self.common.sleep(wait, ready)?;
                self.sending_ends()?;
            }
            let gone = self.state.lock().gone;
            let Some(peer) = peer.upgrade().filter(|_| !gone) else {
                self.send_to_nobody(from);
                return Ok(());
            };
            let result =
                peer.inbox.send_stream(from, &self.account, Ucred::default(), &mut Default::default());
            unsaid = true;
            if result.is_err() || from.remaining() == 0 {
                peer.common.signal.notify();
                return match result {
                    // It closed just now.
                    Err(Errno::EPIPE) => self.sending_ends().and(Err(Errno::ECONNRESET)),
                    other => other,
                };
            }
        }
        Ok(())
    }

    /// The bytes go, as many as can be under way, and a reset comes back: the next write is told.
    fn send_to_nobody(&self, from: &mut Source<'_>) {
        let rest = from.remaining().saturating_sub(self.account.limit());
        from.hold_back(rest);
        from.skip_all();
        from.let_go(rest);
        self.hears_reset(Errno::EPIPE);
    }

    /// MSG_OOB: the last byte is urgent.
    pub(super) fn send_urgent(&self, from: &mut Source<'_>, peer: Weak<Tcp>, wait: Wait) -> Result<()> {
        if from.remaining() == 0 {
            return Ok(());
        }
        from.hold_back(1);
        self.send_inside(from, peer.clone(), wait)?;
        from.let_go(1);
        if from.remaining() != 1 {
            return Ok(());
        }
        let gone = self.state.lock().gone;
        let Some(peer) = peer.upgrade().filter(|_| !gone) else {
            self.send_to_nobody(from);
            return Ok(());
        };
        let older = if peer.common.has(abi::SO_OOBINLINE) { Older::Stays } else { Older::Skipped };
        peer.inbox.send_urgent(from, &self.account, Ucred::default(), older)?;
        peer.common.signal.urge();
        Ok(())
    }

    /// The urgent byte alone; never waits for one.
    pub(super) fn receive_urgent(&self, to: &mut Sink<'_>, into: &mut Incoming) -> Result<()> {
        if self.common.has(abi::SO_OOBINLINE) {
            return Err(Errno::EINVAL);
        }
        into.receive_urgent(&self.inbox, to)
    }

    pub(super) fn receive_inside(&self, to: &mut Sink<'_>, into: &mut Incoming, wait: Wait) -> Result<()> {
        let wanted = to.remaining();
        let inline = self.common.has(abi::SO_OOBINLINE);
        let how = Reading { peek: into.flags & abi::MSG_PEEK != 0, by_sender: false, inline, once: false };
        let all = into.flags & abi::MSG_WAITALL != 0;
        // Who wants nothing waits all the same until there is something.
        let least = if all || wanted == 0 { 1 } else { self.common.low_water().min(wanted) };
        let ended = || {
            let state = self.state.lock();
            state.fin || state.shut.read
        };
        loop {
            if self.inbox.bytes() >= least || ended() {
                let moved = self.inbox.read_stream(to, into, how);
                if wanted == 0 && !self.inbox.is_empty() {
                    return Ok(());
                }
                if to.faulted() || moved && (!all || how.peek || to.remaining() == 0 || self.inbox.at_mark())
                {
                    return Ok(());
                }
            }
            if self.inbox.stream_bytes(inline) == 0 {
                // Who had sent all there was to read ended that in order, whatever came of it: the error is for who sends.
                if !self.state.lock().reset_after_fin {
                    self.common.take_error()?;
                }
                if ended() {
                    return Ok(());
                }
            }
            let ready = || self.inbox.stream_bytes(inline) >= least || ended() || self.common.has_error();
            self.common.sleep(wait, ready)?;
        }
    }
}
