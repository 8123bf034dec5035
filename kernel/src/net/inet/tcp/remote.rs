//! Connections to the outside: smoltcp keeps the buffers, we copy to and from them.
//!
//! Its buffers are under the stack's spin lock, and a program's memory may sleep: so bytes go by way of a small buffer of
//! the kernel's. A reader looks at them first and takes them out only when they have arrived.

use super::{Role, Tcp};
use crate::{
    clock,
    errno::{Errno, Result},
    fs::iobuf::{Sink, Source},
    net::{
        Incoming, Wait, abi,
        inet::{held, options, outside, ports},
        options::NODELAY,
    },
};
use alloc::sync::Arc;
use core::net::SocketAddr;
use linux_raw_sys::net as raw;
use outside::Handle;

/// Bytes copied at a time.
const PIECE: usize = 4096;

impl Tcp {
    /// Begin to connect to another machine. Afterwards the socket is `connecting`.
    pub(super) fn connect_outside(&self, to: SocketAddr) -> Result<()> {
        outside::start()?;
        let source = outside::source(to.ip()).ok_or(Errno::ENETUNREACH)?;
        let from = self.bind_somewhere(source)?;
        if from.ip().is_loopback() || !from.ip().is_unspecified() && from.is_ipv4() != to.is_ipv4() {
            return Err(Errno::EINVAL);
        }
        let me = SocketAddr::new(source, from.port());
        let this = self.me.upgrade().ok_or(Errno::EINVAL)?;
        {
            let mut state = self.state.lock();
            (state.local, state.peer) = (Some(me), Some(to));
            state.connecting = true;
        }
        match outside::connect(me, to, &this) {
            Ok(handle) => {
                self.state.lock().role = Role::Outside(handle);
                self.configure();
                outside::flush();
                Ok(())
            }
            Err(e) => {
                self.state.lock().connecting = false;
                Err(e)
            }
        }
    }

    /// Tell smoltcp the options that it knows.
    pub(super) fn configure(&self) {
        let handle = match self.state.lock().role {
            Role::Outside(handle) => handle,
            _ => return,
        };
        let number = |name| options::Set::number(&self.settings, abi::IPPROTO_TCP, name);
        let keep_alive = self.common.has(abi::SO_KEEPALIVE);
        let interval = number(raw::TCP_KEEPIDLE).unwrap_or(7200) as u64;
        let give_up = number(raw::TCP_USER_TIMEOUT).unwrap_or(0) as u64;
        outside::configure(
            handle,
            outside::Settings {
                nodelay: self.common.has(NODELAY),
                keep_alive: keep_alive.then_some(interval),
                give_up: (give_up != 0).then_some(give_up),
            },
        );
    }

    /// A connection from outside has been made: for the listener's queue.
    pub(in crate::net::inet) fn arrived(
        listener: &Arc<Tcp>,
        handle: Handle,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Option<Arc<Tcp>> {
        let new = Tcp::new(listener.common.domain);
        new.common.inherit(&listener.common);
        new.settings.inherit(&listener.settings);
        {
            let mut state = new.state.lock();
            state.role = Role::Outside(handle);
            (state.local, state.peer) = (Some(local), Some(peer));
            state.hold = held::Hold::new(local, new.sharing());
        }
        match listener.queue_up(new.clone()) {
            None => Some(new),
            Some(_) => None,
        }
    }

    /// Whether another connection may be begun for the listener on this address.
    pub(in crate::net::inet) fn listener(to: SocketAddr, from: SocketAddr) -> Option<Arc<Tcp>> {
        let found = ports::TCP.find(to, Some(from), true)?;
        let tcp = found.as_any().downcast_ref::<Tcp>()?.me.upgrade()?;
        let room = match &tcp.state.lock().role {
            Role::Listening { queue, most, .. } => queue.len() <= *most,
            _ => false,
        };
        room.then_some(tcp)
    }

    /// The stack has news of the connection: it is made, the other side sends no more, or it is over. Under the stack's lock.
    pub(in crate::net::inet) fn hears(&self, now: &outside::Status, began: u64) {
        let failure = {
            let mut state = self.state.lock();
            if !matches!(state.role, Role::Outside(_)) {
                return;
            }
            if state.connecting && now.established {
                (state.connecting, state.news) = (false, true);
            }
            state.fin |= now.fin;
            let broken = now.closed && !(state.fin && state.shut.write) && !state.gone;
            if broken {
                (state.gone, state.fin, state.reset) = (true, true, true);
                state.shut.write = true;
            }
            let was = state.connecting;
            state.connecting &= !broken;
            broken.then(|| match was {
                true if clock::monotonic().saturating_sub(began) >= outside::GIVE_UP => Errno::ETIMEDOUT,
                true => Errno::ECONNREFUSED,
                false => Errno::ECONNRESET,
            })
        };
        if let Some(error) = failure {
            self.common.fail(error);
        }
    }

    /// Something came for the listener.
    pub(in crate::net::inet) fn news(&self) {
        self.common.signal.notify();
    }

    pub(in crate::net::inet) fn signal(&self) -> Arc<crate::fs::poll::Signal> {
        self.common.signal.clone()
    }

    pub(super) fn send_outside(&self, from: &mut Source<'_>, handle: Handle, wait: Wait) -> Result<()> {
        let _one = self.writing.lock();
        let mut buffer = crate::mem::zeroed(from.remaining().min(PIECE))?;
        let result = self.send_pieces(from, &mut buffer, handle, wait);
        outside::flush();
        result
    }

    fn send_pieces(
        &self,
        from: &mut Source<'_>,
        buffer: &mut [u8],
        handle: Handle,
        wait: Wait,
    ) -> Result<()> {
        while from.remaining() > 0 {
            self.common.take_error()?;
            if self.state.lock().shut.write {
                return Err(Errno::EPIPE);
            }
            let room = outside::status(handle).room;
            if room == 0 {
                outside::flush();
                if wait == Wait::Never {
                    return Err(Errno::EAGAIN);
                }
                let ready = || {
                    outside::status(handle).room > 0
                        || self.state.lock().shut.write
                        || self.common.has_error()
                };
                self.common.sleep(wait, ready)?;
                continue;
            }
            let len = room.min(buffer.len());
            let n = from.take(&mut buffer[..len]);
            outside::send(handle, &buffer[..n]);
            if from.faulted() {
                return Ok(());
            }
        }
        Ok(())
    }

    pub(super) fn receive_outside(
        &self,
        to: &mut Sink<'_>,
        into: &mut Incoming,
        handle: Handle,
        wait: Wait,
    ) -> Result<()> {
        let wanted = to.remaining();
        if wanted == 0 {
            return Ok(());
        }
        let peek = into.flags & abi::MSG_PEEK != 0;
        let all = into.flags & abi::MSG_WAITALL != 0 && !peek;
        let mut buffer = crate::mem::zeroed(wanted.min(PIECE))?;
        loop {
            let turn = self.reading.lock();
            while to.remaining() > 0 {
                let most = buffer.len().min(to.remaining());
                let n = outside::peek(handle, &mut buffer[..most]);
                if n == 0 {
                    break;
                }
                let put = to.put(&buffer[..n]);
                if !peek {
                    outside::consume(handle, put);
                }
                if peek || to.faulted() {
                    return Ok(());
                }
            }
            drop(turn);
            if to.done() > 0 {
                // There is room again: the other side is to hear of it.
                outside::flush();
            }
            if to.done() > 0 && (!all || to.remaining() == 0) {
                return Ok(());
            }
            self.common.take_error()?;
            let ended = || {
                let state = self.state.lock();
                state.fin || state.shut.read
            };
            if ended() && outside::status(handle).readable == 0 {
                return Ok(());
            }
            let ready = || outside::status(handle).readable > 0 || ended() || self.common.has_error();
            self.common.sleep(wait, ready)?;
        }
    }
}
