//! TCP: `tcp(7)`.
//!
//! ```text
//!   Fresh ── listen ──► Listening { queue, waiting }
//!     │ connect
//!     ├─ ours ────────► Inside(peer)        each writes into the other's inbox (inside.rs)
//!     └─ not ours ────► Outside(handle)     smoltcp has the buffers and the state machine (remote.rs)
//! ```
//!
//! What a program sees of a connection's state is the same for both kinds: whether the way out is shut, whether the other side
//! has said that no more will come (`fin`), and a pending error. A reset is an error and both of these.
//!
//! A connection inside is made at once, unless the listener's queue is full; then the client waits in `waiting`, and who
//! accepts one lets the next in. As on Linux, a `connect` that may not sleep says EINPROGRESS in any case.
//!
//! Lock: `state`, of one socket at a time, below that of the stack outside.

mod inside;
mod remote;

use super::super::{
    Address, Common, Incoming, Outgoing, Protocol, Shut, Target, Wait, abi, beside,
    inbox::{Account, Inbox},
    options::INQ,
    registry,
};
use super::{
    Row, canonical, groups, held, is_ours, is_reachable, named,
    options::{self, Set},
    outside, ports, shown, unspecified,
};
use crate::fs::caps::cap;
use crate::{
    errno::{Errno, Result},
    fs::{
        SleepLock,
        iobuf::{Sink, Source},
        poll::Events,
    },
};
use alloc::{
    collections::VecDeque,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::any::Any;
use core::net::SocketAddr;
use core::sync::atomic::Ordering::Relaxed;
use hafez_mm::lock::Mutex;
use linux_raw_sys::net as raw;
use outside::Handle;

/// What is told as SO_SNDBUF and SO_RCVBUF until somebody sets them: Linux's defaults for TCP.
const SEND_BUFFER: u32 = 16_384;
const RECEIVE_BUFFER: u32 = 131_072;
/// The most connections that wait for `accept` (`net.core.somaxconn`).
const SOMAXCONN: usize = 4096;

/// See the module.
pub struct Tcp {
    common: Common,
    me: Weak<Tcp>,
    inbox: Inbox,
    account: Arc<Account>,
    settings: Set,
    /// Of connections to the outside: one reader and one writer at a time.
    reading: SleepLock,
    writing: SleepLock,
    state: Mutex<State>,
}

struct State {
    local: Option<SocketAddr>,
    /// The port that it holds in the table.
    port: Option<u16>,
    /// Whether `bind` asked for it.
    bound: bool,
    /// What an accepted one holds of its listener's port.
    hold: Option<held::Hold>,
    /// It has closed its way before the other side did.
    first: bool,
    peer: Option<SocketAddr>,
    role: Role,
    /// Not connected yet.
    connecting: bool,
    /// Connected since, which `connect` has not been told.
    news: bool,
    shut: Shut,
    /// The other side has sent all that it will send.
    fin: bool,
    /// The other side has gone altogether.
    gone: bool,
    /// It broke the connection off; after it had sent all.
    reset: bool,
    reset_after_fin: bool,
    /// A `connect` failed that did not wait: one more call is to hear of it.
    failed: bool,
}

enum Role {
    Fresh,
    Listening { queue: VecDeque<Arc<Tcp>>, waiting: VecDeque<Weak<Tcp>>, most: usize },
    Inside(Weak<Tcp>),
    Outside(Handle),
    Closed,
}

/// The longest segment that is sent, where nobody has set one: without a connection (RFC 1122), within the machine (half of
/// Linux's first window), to the outside.
const UNSET_SEGMENT: i32 = 536;
const INSIDE_SEGMENT: i32 = 32_753;
const OUTSIDE_SEGMENT: i32 = 1460;
/// Bytes of a time stamp in each header.
const SEGMENT_OPTIONS: i32 = 12;

/// Where the bytes go.
enum Way {
    Inside(Weak<Tcp>),
    Outside(Handle),
}

const NEW: State = State {
    local: None,
    port: None,
    bound: false,
    hold: None,
    first: false,
    peer: None,
    role: Role::Fresh,
    connecting: false,
    news: false,
    shut: Shut { read: false, write: false },
    fin: false,
    gone: false,
    reset: false,
    reset_after_fin: false,
    failed: false,
};

impl Tcp {
    pub fn new(domain: u32) -> Arc<Tcp> {
        let common = Common::new(domain, abi::SOCK_STREAM, abi::IPPROTO_TCP);
        common.send_buffer.store(SEND_BUFFER, Relaxed);
        common.receive_buffer.store(RECEIVE_BUFFER, Relaxed);
        // Both ends' buffers together, as a real connection has them.
        let account = Account::new((SEND_BUFFER + RECEIVE_BUFFER) as usize, common.signal.clone());
        let new = Arc::new_cyclic(|me| Tcp {
            common,
            me: me.clone(),
            inbox: Inbox::new(),
            account,
            settings: Set::default(),
            reading: SleepLock::new(),
            writing: SleepLock::new(),
            state: Mutex::new(NEW),
        });
        registry::enter(&new);
        new
    }

    /// Where bytes go; `None` if not connected.
    fn way(&self) -> Option<Way> {
        let state = self.state.lock();
        match &state.role {
            Role::Inside(peer) => Some(Way::Inside(peer.clone())),
            Role::Outside(handle) => Some(Way::Outside(*handle)),
            _ => None,
        }
    }

    /// TCP_MAXSEG: what was set, and of a connection the least that either side set, less its own header's options.
    fn largest_segment(&self) -> i32 {
        let set = |tcp: &Tcp| {
            tcp.settings.changed(abi::IPPROTO_TCP, raw::TCP_MAXSEG).filter(|n| *n != UNSET_SEGMENT)
        };
        let own = set(self);
        let other = match self.way() {
            None => return own.unwrap_or(UNSET_SEGMENT),
            Some(Way::Inside(peer)) => {
                peer.upgrade().map_or(INSIDE_SEGMENT, |p| set(&p).unwrap_or(INSIDE_SEGMENT))
            }
            Some(Way::Outside(_)) => OUTSIDE_SEGMENT,
        };
        own.unwrap_or(other).min(other) - SEGMENT_OPTIONS
    }

    /// MSG_FASTOPEN: connect, and send at once. Nobody here remembers who may send before the connection is made, so it is always made first,
    /// as on Linux when a machine is spoken to for the first time.
    #[cold]
    #[inline(never)]
    fn open_fast(&self, out: &Outgoing, wait: Wait) -> Result<()> {
        match &out.to {
            Some(to) if to.address != Address::None => self.connect(to, wait),
            Some(_) => Err(Errno::EOPNOTSUPP),
            None if self.way().is_some() => Err(Errno::EISCONN),
            None => Err(Errno::EINVAL),
        }
    }

    /// Have an address: that which was bound, or any free port.
    fn bind_somewhere(&self, ip: core::net::IpAddr) -> Result<SocketAddr> {
        let (bound, port) = {
            let state = self.state.lock();
            (state.local, state.port)
        };
        if let (Some(at), Some(_)) = (bound, port) {
            return Ok(at);
        }
        let me = self.me.upgrade().ok_or(Errno::EINVAL)?;
        let at = SocketAddr::new(ip, ports::TCP.bind(&self.common, SocketAddr::new(ip, 0), weak(&me), true)?);
        let mut state = self.state.lock();
        (state.local, state.port) = (Some(at), Some(at.port()));
        Ok(at)
    }

    /// As an accepted connection, or as who is bound: SO_REUSEADDR, SO_REUSEPORT.
    fn sharing(&self) -> held::Sharing {
        held::Sharing { reuse: self.common.has(abi::SO_REUSEADDR), share: self.common.has(abi::SO_REUSEPORT) }
    }

    /// The connection ends: who ends it first keeps the address for a while.
    fn keep_address(&self, abort: bool) {
        let sharing = self.sharing();
        let (rests, hold, at) = {
            let mut state = self.state.lock();
            let ends = matches!(state.role, Role::Inside(_) | Role::Outside(_)) && !state.connecting;
            let first = state.first || !state.fin && !state.shut.write;
            let rests = ends && first && !abort && !state.reset;
            (rests, state.hold.take(), state.local.filter(|_| state.bound))
        };
        match (hold, at) {
            (Some(hold), _) if rests => hold.rest(),
            (None, Some(at)) if rests => held::rest(at, sharing),
            _ => {}
        }
    }

    fn release_port(&self) {
        let port = self.state.lock().port.take();
        if let Some(port) = port {
            ports::TCP.release(port, self.common.number);
        }
    }

    /// The connection is as good as never made: the socket can be used again.
    fn start_over(&self, error: Errno) {
        {
            let mut state = self.state.lock();
            state.role = Role::Closed;
            state.connecting = false;
            (state.fin, state.gone, state.failed) = (true, true, true);
        }
        self.common.fail(error);
        self.common.signal.notify();
    }

    /// Wait until a pending `connect` has come to its end.
    fn await_connection(&self, wait: Wait) -> Result<()> {
        let ready = || !self.state.lock().connecting || self.common.has_error();
        self.common.sleep(wait, ready)
    }

    /// Its line in `/proc/net/tcp`; a socket that neither listens nor is connected has none.
    pub(super) fn row(&self) -> Option<Row> {
        let (local, peer, waiting) = {
            let state = self.state.lock();
            let waiting = match &state.role {
                Role::Fresh | Role::Closed => return None,
                Role::Listening { queue, most, .. } => Some((queue.len(), *most)),
                _ => None,
            };
            (state.local, state.peer.filter(|_| waiting.is_none()), waiting)
        };
        let none = SocketAddr::new(unspecified(self.common.domain), 0);
        let unread = waiting.map_or_else(|| self.readable().unwrap_or(0), |(here, _)| here);
        let most = waiting.map_or(0, |(_, most)| most);
        let unsent = if waiting.is_some() { 0 } else { self.unsent() };
        let (local, peer) = (local.unwrap_or(none), peer.unwrap_or(none));
        Some(Row { local, peer, state: self.status_byte(), unsent, unread, most })
    }

    fn status_byte(&self) -> u8 {
        let state = self.state.lock();
        // TCP_ESTABLISHED and so on (`linux/tcp.h`, the states of RFC 9293).
        match (&state.role, state.connecting) {
            (Role::Listening { .. }, _) => 10,
            (_, true) => 2,
            (Role::Inside(_) | Role::Outside(_), _) => match (state.fin, state.shut.write) {
                (false, false) => 1,
                (true, false) => 8,
                (false, true) => 5,
                (true, true) => 7,
            },
            _ => 7,
        }
    }
}

fn weak(me: &Arc<Tcp>) -> Weak<dyn Protocol> {
    let weak: Weak<Tcp> = Arc::downgrade(me);
    weak
}

impl Protocol for Tcp {
    fn common(&self) -> &Common {
        &self.common
    }
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn bind(&self, to: &Target) -> Result<()> {
        let Address::Inet(at) = &to.address else { return Err(Errno::EAFNOSUPPORT) };
        let at = canonical(*at);
        if !at.ip().is_unspecified() && !is_ours(at.ip()) && !self.settings.binds_freely() {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let me = self.me.upgrade().ok_or(Errno::EINVAL)?;
        {
            let state = self.state.lock();
            if !matches!(state.role, Role::Fresh) || state.port.is_some() {
                return Err(Errno::EINVAL);
            }
        }
        let port = ports::TCP.bind(&self.common, at, weak(&me), to.walker.cred.may(cap::NET_BIND_SERVICE))?;
        let mut state = self.state.lock();
        (state.local, state.port) = (Some(SocketAddr::new(at.ip(), port)), Some(port));
        state.bound = true;
        Ok(())
    }

    fn listen(&self, backlog: usize) -> Result<()> {
        let most = backlog.min(SOMAXCONN);
        match &mut self.state.lock().role {
            Role::Fresh => {}
            Role::Listening { most: old, .. } => {
                *old = most;
                return Ok(());
            }
            _ => return Err(Errno::EINVAL),
        }
        let at = self.bind_somewhere(unspecified(self.common.domain))?;
        // Where there is no way out, only the machine itself can come.
        if is_reachable(at.ip()) && outside::start() == Err(Errno::ENOBUFS) {
            return Err(Errno::ENOBUFS);
        }
        ports::TCP.listen(at.port(), self.common.number)?;
        {
            let mut state = self.state.lock();
            state.role = Role::Listening { queue: VecDeque::new(), waiting: VecDeque::new(), most };
            state.shut = Shut { read: false, write: false };
        }
        self.common.signal.notify();
        Ok(())
    }

    fn accept(&self, wait: Wait) -> Result<Arc<dyn Protocol>> {
        Ok(self.accept_one(wait)?)
    }

    fn connect(&self, to: &Target, wait: Wait) -> Result<()> {
        if to.address == Address::None {
            return self.disconnect();
        }
        {
            let mut state = self.state.lock();
            let news = core::mem::take(&mut state.news);
            match &state.role {
                Role::Fresh => {}
                Role::Closed => {}
                Role::Listening { .. } => return Err(Errno::EISCONN),
                _ if state.connecting => {}
                _ if news => return Ok(()),
                _ => return Err(Errno::EISCONN),
            }
        }
        let closed = matches!(self.state.lock().role, Role::Closed);
        if closed {
            let failed = self.state.lock().failed;
            self.release_port();
            *self.state.lock() = NEW;
            self.common.take_error()?;
            if failed {
                return Err(Errno::ECONNABORTED);
            }
        }
        self.common.take_error()?;
        if self.state.lock().connecting {
            if wait == Wait::Never {
                return Err(Errno::EALREADY);
            }
        } else {
            let to = super::destination(named(&self.common, &to.address)?);
            if is_ours(to.ip()) {
                self.connect_inside(to)?
            } else {
                self.connect_outside(to)?
            }
            if wait == Wait::Never {
                return Err(Errno::EINPROGRESS);
            }
        }
        match self.await_connection(wait) {
            Err(Errno::EAGAIN) => return Err(Errno::EINPROGRESS),
            other => other?,
        }
        if let Err(e) = self.common.take_error() {
            self.release_port();
            *self.state.lock() = NEW;
            return Err(e);
        }
        self.state.lock().news = false;
        Ok(())
    }

    fn name(&self) -> Result<Address> {
        let local = self.state.lock().local;
        Ok(shown(local.unwrap_or(SocketAddr::new(unspecified(self.common.domain), 0)), self.common.domain))
    }
    fn peer_name(&self) -> Result<Address> {
        let state = self.state.lock();
        match (&state.role, state.peer) {
            (Role::Inside(_) | Role::Outside(_), Some(peer)) if !state.connecting && !state.reset => {
                Ok(shown(peer, self.common.domain))
            }
            _ => Err(Errno::ENOTCONN),
        }
    }

    fn shutdown(&self, how: Shut) -> Result<()> {
        if self.is_listening() {
            if how.read {
                self.stop_listening();
            }
            return Ok(());
        }
        let way = self.way().ok_or(Errno::ENOTCONN)?;
        {
            let mut state = self.state.lock();
            state.shut.read |= how.read;
            state.first |= how.write && !state.shut.write && !state.fin;
            state.shut.write |= how.write;
        }
        if how.write {
            match way {
                Way::Inside(peer) => {
                    if let Some(peer) = peer.upgrade() {
                        peer.hears_fin(false);
                    }
                }
                Way::Outside(handle) => outside::shut(handle),
            }
        }
        self.common.signal.notify();
        Ok(())
    }

    fn send(&self, from: &mut Source<'_>, out: Outgoing, wait: Wait) -> Result<()> {
        beside::ignore(&out.control, &self.common)?;
        if out.flags & abi::MSG_FASTOPEN != 0 {
            self.open_fast(&out, wait)?;
        }
        if self.state.lock().connecting {
            self.await_connection(wait)?;
        }
        self.common.take_error()?;
        if self.state.lock().shut.write {
            return Err(Errno::EPIPE);
        }
        match self.way() {
            Some(Way::Inside(peer)) if out.flags & abi::MSG_OOB != 0 => self.send_urgent(from, peer, wait),
            Some(Way::Inside(peer)) => self.send_inside(from, peer, wait),
            Some(Way::Outside(_)) if out.flags & abi::MSG_OOB != 0 => Err(Errno::EOPNOTSUPP),
            Some(Way::Outside(handle)) => self.send_outside(from, handle, wait),
            None => Err(Errno::EPIPE),
        }
    }

    fn receive(&self, to: &mut Sink<'_>, into: &mut Incoming, wait: Wait) -> Result<()> {
        if into.flags & abi::MSG_OOB != 0 {
            return self.receive_urgent(to, into);
        }
        if into.flags & abi::MSG_ERRQUEUE != 0 {
            return Err(Errno::EAGAIN);
        }
        if self.state.lock().connecting {
            self.await_connection(wait)?;
        }
        match self.way() {
            Some(Way::Inside(_)) => self.receive_inside(to, into, wait)?,
            Some(Way::Outside(handle)) => self.receive_outside(to, into, handle, wait)?,
            None => {
                self.common.take_error()?;
                // After a reset there is an end; before a connection there is none.
                if !self.state.lock().fin {
                    return Err(Errno::ENOTCONN);
                }
            }
        }
        if self.common.has(INQ) {
            let left = self.readable().unwrap_or(0) as i32;
            into.note(abi::IPPROTO_TCP, raw::TCP_CM_INQ, &left.to_ne_bytes());
        }
        Ok(())
    }

    fn holds(&self) -> usize {
        self.inbox.holds()
    }
    fn poll(&self) -> Events {
        let way = self.way();
        let mut events = Events::empty();
        events.set(Events::ERR, self.common.has_error());
        let (shut, fin, connecting) = {
            let state = self.state.lock();
            if let Role::Listening { queue, .. } = &state.role {
                events.set(Events::READABLE, !queue.is_empty());
                return events;
            }
            if matches!(state.role, Role::Fresh) {
                return events | Events::HUP | Events::WRITABLE;
            }
            (state.shut, state.fin, state.connecting)
        };
        if connecting {
            return events;
        }
        let (input, room, ended) = match way {
            Some(Way::Inside(_)) => {
                events.set(Events::PRI, self.inbox.is_urgent());
                let bytes = self.inbox.stream_bytes(self.common.has(abi::SO_OOBINLINE));
                (bytes > 0 && bytes >= self.common.low_water(), self.account.is_writable(), false)
            }
            Some(Way::Outside(handle)) => {
                let now = outside::status(handle);
                (now.readable >= self.common.low_water().max(1), now.room > 0, now.is_over())
            }
            None => (false, true, true),
        };
        let no_more = shut.read || fin || ended;
        events.set(Events::HUP, no_more && (shut.write || ended));
        events.set(Events::RDHUP, no_more);
        events.set(Events::READABLE, input || no_more);
        events.set(Events::WRITABLE, room || shut.write || ended);
        events
    }

    fn readable(&self) -> Result<usize> {
        match self.way() {
            Some(Way::Outside(handle)) => Ok(outside::status(handle).readable),
            _ if self.is_listening() => Err(Errno::EINVAL),
            _ => Ok(self.inbox.until_mark(self.common.has(abi::SO_OOBINLINE))),
        }
    }
    fn at_mark(&self) -> Result<bool> {
        Ok(self.inbox.at_mark())
    }
    fn unsent(&self) -> usize {
        match self.way() {
            Some(Way::Outside(handle)) => outside::status(handle).unsent,
            // Inside the machine what is written has arrived.
            _ => 0,
        }
    }

    fn option(&self, level: u32, name: u32) -> Result<Vec<u8>> {
        if (level, name) == (abi::IPPROTO_TCP, raw::TCP_INFO) {
            // `struct tcp_info`: the state, and figures of a kind that there are none of.
            let mut info = alloc::vec![0; 232];
            info[0] = self.status_byte();
            return Ok(info);
        }
        if (level, name) == (abi::IPPROTO_TCP, raw::TCP_CONGESTION) {
            return Ok(b"reno\0\0\0\0\0\0\0\0\0\0\0\0".to_vec());
        }
        if (level, name) == (abi::IPPROTO_TCP, raw::TCP_ULP) {
            return Ok(Vec::new());
        }
        if (level, name) == (abi::IPPROTO_TCP, raw::TCP_MAXSEG) {
            return Ok(self.largest_segment().to_ne_bytes().to_vec());
        }
        if options::is_mtu(level, name) {
            let peer = self.state.lock().peer;
            return options::mtu(level, &self.common, peer);
        }
        self.settings.get(&self.common, level, name)
    }
    fn set_option(&self, level: u32, name: u32, value: &[u8]) -> Result<()> {
        if (level, name) == (abi::IPPROTO_TCP, raw::TCP_CONGESTION) {
            return if value.starts_with(b"reno") { Ok(()) } else { Err(Errno::ENOENT) };
        }
        if (level, name) == (abi::IPPROTO_TCP, raw::TCP_ULP) {
            // There are no protocols above it, TLS included.
            return Err(if value.is_empty() { Errno::EINVAL } else { Errno::ENOENT });
        }
        if (level, name) == (abi::IPPROTO_TCP, raw::TCP_FASTOPEN_CONNECT)
            && !matches!(self.state.lock().role, Role::Fresh)
        {
            return Err(Errno::EINVAL);
        }
        if (level, name) == (abi::IPPROTO_IPV6, raw::IPV6_V6ONLY) && self.state.lock().port.is_some() {
            return Err(Errno::EINVAL);
        }
        if let Some(error) = groups::refused(level, name) {
            return Err(error);
        }
        let result = self.settings.set(&self.common, level, name, value);
        self.configure();
        result
    }
    fn options_changed(&self) {
        let port = self.state.lock().port;
        if let Some(port) = port {
            ports::TCP.refresh(port, &self.common);
        }
        self.configure();
    }
    fn send_limit(&self, bytes: usize) {
        self.account.set_limit(bytes + RECEIVE_BUFFER as usize);
    }
    fn is_listening(&self) -> bool {
        matches!(self.state.lock().role, Role::Listening { .. })
    }

    fn ways_shut(&self) -> Shut {
        self.state.lock().shut
    }
    fn close(&self) {
        let unread = self.inbox.close();
        let abort = unread || self.common.linger() == Some(0);
        self.keep_address(abort);
        self.release_port();
        let (role, how) = {
            let mut state = self.state.lock();
            let how = state.shut;
            state.shut = Shut { read: true, write: true };
            (core::mem::replace(&mut state.role, Role::Closed), how)
        };
        match role {
            Role::Inside(peer) => {
                if let Some(peer) = peer.upgrade() {
                    if abort {
                        peer.hears_reset(Errno::ECONNRESET);
                    } else {
                        peer.hears_fin(true);
                    }
                }
            }
            Role::Outside(handle) => outside::release(handle, abort && !how.write),
            Role::Listening { queue, waiting, .. } => turn_away(queue, waiting),
            _ => {}
        }
        self.common.signal.notify();
    }
}

/// The listener is gone: whoever waited for it hears so.
fn turn_away(queue: VecDeque<Arc<Tcp>>, waiting: VecDeque<Weak<Tcp>>) {
    for socket in queue {
        let peer = match socket.way() {
            Some(Way::Inside(peer)) => peer.upgrade(),
            _ => None,
        };
        if let Some(peer) = peer {
            peer.hears_reset(Errno::ECONNRESET);
        }
        socket.close();
    }
    for client in waiting.into_iter().filter_map(|w| w.upgrade()) {
        client.start_over(Errno::ECONNREFUSED);
    }
}
