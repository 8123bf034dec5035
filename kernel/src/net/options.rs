//! What all sockets have in common, and the options of SOL_SOCKET: `socket(7)`.

use super::filter::{Filter, View};
use super::inbox::Packet;
use super::{Protocol, Ucred, Wait, abi, registry};
use crate::{
    clock,
    errno::{Errno, Result},
    fs::poll::Signal,
    sched::WaitResult,
};
use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use hafez_mm::lock::Mutex;

/// Linux's defaults and limits for buffers, in bytes (`net.core.wmem_default` and its kin).
pub const BUFFER: u32 = 212_992;
const BUFFER_MAX: u32 = 212_992;
const SEND_MIN: u32 = 4_608;
const RECEIVE_MIN: u32 = 2_304;

/// See the module.
pub struct Common {
    pub domain: u32,
    /// SOCK_*.
    pub kind: u32,
    pub protocol: u32,
    /// Unique: the inode number.
    pub number: u64,
    pub signal: Arc<Signal>,
    /// The user it belongs to.
    owner: AtomicU32,
    /// What went wrong since it was last asked; 0: nothing.
    error: AtomicU32,
    /// One bit for each option that is on or off, in the order of [`FLAGS`].
    flags: AtomicU32,
    receive_timeout: AtomicU64,
    send_timeout: AtomicU64,
    pub send_buffer: AtomicU32,
    pub receive_buffer: AtomicU32,
    low_water: AtomicU32,
    priority: AtomicU32,
    /// Which of the buffers' sizes were set: SOCK_SNDBUF_LOCK, SOCK_RCVBUF_LOCK.
    set_buffers: AtomicU32,
    /// Hints that are kept and told: there are no queues of a card to choose among, and none to poll.
    incoming_cpu: AtomicU32,
    busy_poll: AtomicU32,
    mark: AtomicU32,
    linger_seconds: AtomicU32,
    linger: AtomicBool,
    /// The option that asks for time stamps; 0: none does.
    stamp: AtomicU32,
    /// SOF_TIMESTAMPING_*: which time stamps are made and told in the form of SO_TIMESTAMPING.
    stamping: AtomicU32,
    /// What SO_TXTIME set: the clock, and the flags above it; `u64::MAX`: nothing.
    send_time: AtomicU64,
    /// Packets that found no room.
    drops: AtomicU32,
    /// Permission bits: what `bind` makes has them.
    mode: AtomicU32,
    /// What decides which packets are taken; and that it stays as it is (SO_LOCK_FILTER).
    filter: Mutex<Option<Arc<Filter>>>,
    has_filter: AtomicBool,
    filter_stays: AtomicBool,
}

/// The permission bits of a new socket.
pub const MODE: u32 = 0o777;

/// `SOF_TIMESTAMPING_RX_SOFTWARE`, `SOF_TIMESTAMPING_SOFTWARE`.
const STAMP_RECEIVED: u32 = 8;
const TELL_STAMPS: u32 = 16;
/// `SOF_TIMESTAMPING_RX_HARDWARE`, `_SYS_HARDWARE`, `_RAW_HARDWARE`: may be asked for, and no card here makes any.
const HARDWARE_STAMPS: u32 = 4 | 32 | 64;

/// What SO_BUF_LOCK calls the buffers whose sizes were set.
const SEND_SET: u32 = 1;
const RECEIVE_SET: u32 = 2;
/// What filters have beyond the classic machine, as Linux counts it (`SKF_AD_MAX`).
const FILTER_EXTENSIONS: i64 = 64;

/// The options that are on or off.
const FLAGS: [u32; 17] = [
    abi::SO_REUSEADDR,
    abi::SO_REUSEPORT,
    abi::SO_KEEPALIVE,
    abi::SO_BROADCAST,
    abi::SO_OOBINLINE,
    abi::SO_PASSCRED,
    abi::SO_PASSPIDFD,
    abi::SO_DONTROUTE,
    abi::SO_DEBUG,
    abi::SO_NO_CHECK,
    abi::SO_RXQ_OVFL,
    // There are no security labels to be told of.
    abi::SO_PASSSEC,
    // Nothing is polled without end here.
    abi::SO_PREFER_BUSY_POLL,
    // Of other levels, but kept here: they are flags too.
    V6ONLY,
    NODELAY,
    CORK,
    INQ,
];
/// Numbers that SOL_SOCKET has not, for flags of other levels.
pub const V6ONLY: u32 = 1 << 16 | 26;
pub const NODELAY: u32 = 1 << 16 | 1;
pub const CORK: u32 = 1 << 16 | 3;
pub const INQ: u32 = 1 << 16 | 36;

impl Common {
    pub fn new(domain: u32, kind: u32, protocol: u32) -> Common {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Common {
            domain,
            kind,
            protocol,
            number: NEXT.fetch_add(1, Relaxed),
            signal: Signal::new(),
            owner: AtomicU32::new(0),
            error: AtomicU32::new(0),
            flags: AtomicU32::new(0),
            receive_timeout: AtomicU64::new(u64::MAX),
            send_timeout: AtomicU64::new(u64::MAX),
            send_buffer: AtomicU32::new(BUFFER),
            receive_buffer: AtomicU32::new(BUFFER),
            low_water: AtomicU32::new(1),
            priority: AtomicU32::new(0),
            set_buffers: AtomicU32::new(0),
            incoming_cpu: AtomicU32::new(0),
            busy_poll: AtomicU32::new(0),
            mark: AtomicU32::new(0),
            linger_seconds: AtomicU32::new(0),
            linger: AtomicBool::new(false),
            stamp: AtomicU32::new(0),
            stamping: AtomicU32::new(0),
            send_time: AtomicU64::new(u64::MAX),
            drops: AtomicU32::new(0),
            mode: AtomicU32::new(MODE),
            filter: Mutex::default(),
            has_filter: AtomicBool::new(false),
            filter_stays: AtomicBool::new(false),
        }
    }

    /// What an accepted socket has from its listener.
    pub fn inherit(&self, from: &Common) {
        let copy = |to: &AtomicU32, from: &AtomicU32| to.store(from.load(Relaxed), Relaxed);
        copy(&self.flags, &from.flags);
        copy(&self.send_buffer, &from.send_buffer);
        copy(&self.receive_buffer, &from.receive_buffer);
        copy(&self.priority, &from.priority);
        copy(&self.set_buffers, &from.set_buffers);
        copy(&self.incoming_cpu, &from.incoming_cpu);
        copy(&self.busy_poll, &from.busy_poll);
        copy(&self.mark, &from.mark);
        copy(&self.linger_seconds, &from.linger_seconds);
        copy(&self.stamp, &from.stamp);
        self.send_time.store(from.send_time.load(Relaxed), Relaxed);
        self.linger.store(from.linger.load(Relaxed), Relaxed);
        self.receive_timeout.store(from.receive_timeout.load(Relaxed), Relaxed);
        self.send_timeout.store(from.send_timeout.load(Relaxed), Relaxed);
    }

    /// SO_ATTACH_FILTER; `None`: SO_DETACH_FILTER. EPERM where it is to stay, ENOENT where there is none to take away.
    pub fn set_filter(&self, filter: Option<Arc<Filter>>) -> Result<()> {
        self.may_change_filter()?;
        let (none, mut place) = (filter.is_none(), self.filter.lock());
        if none && place.is_none() {
            return Err(Errno::ENOENT);
        }
        self.has_filter.store(!none, Relaxed);
        let old = core::mem::replace(&mut *place, filter);
        drop(place);
        drop(old);
        Ok(())
    }

    pub fn may_change_filter(&self) -> Result<()> {
        if self.filter_stays.load(Relaxed) { Err(Errno::EPERM) } else { Ok(()) }
    }
    pub fn filter(&self) -> Option<Arc<Filter>> {
        self.filter.lock().clone()
    }

    /// Ask the filter about a packet, and cut it; false: it is to be forgotten. `around`: the header that is not kept with it, its protocol, its
    /// interface.
    #[inline]
    pub fn lets_in(&self, packet: &mut Packet, around: impl FnOnce(&Packet) -> (Vec<u8>, u16, u32)) -> bool {
        !self.has_filter.load(Relaxed) || self.ask_filter(packet, around(packet))
    }
    #[cold]
    fn ask_filter(&self, packet: &mut Packet, (head, protocol, interface): (Vec<u8>, u16, u32)) -> bool {
        let Some(filter) = self.filter() else { return true };
        let taken = filter.run(&View { head: &head, bytes: packet.bytes(), protocol, interface });
        packet.cut(taken.saturating_sub(head.len()));
        taken != 0
    }

    pub fn owner(&self) -> u32 {
        self.owner.load(Relaxed)
    }
    pub fn set_owner(&self, uid: u32) {
        self.owner.store(uid, Relaxed);
    }

    pub fn mode(&self) -> u32 {
        self.mode.load(Relaxed)
    }
    pub fn set_mode(&self, mode: u32) {
        self.mode.store(mode, Relaxed);
    }

    /// Whether an option of [`FLAGS`] is on.
    pub fn has(&self, flag: u32) -> bool {
        let bit = FLAGS.iter().position(|f| *f == flag);
        bit.is_some_and(|bit| self.flags.load(Relaxed) & 1 << bit != 0)
    }
    pub fn set(&self, flag: u32, on: bool) {
        let Some(bit) = FLAGS.iter().position(|f| *f == flag) else { return };
        if on {
            self.flags.fetch_or(1 << bit, Relaxed);
        } else {
            self.flags.fetch_and(!(1 << bit), Relaxed);
        }
    }

    /// Something went wrong that the next call is to say.
    pub fn fail(&self, error: Errno) {
        self.error.store(error.code() as u32, Relaxed);
    }
    pub fn has_error(&self) -> bool {
        self.error.load(Relaxed) != 0
    }
    /// What went wrong, once.
    pub fn take_error(&self) -> Result<()> {
        match self.error.swap(0, Relaxed) {
            0 => Ok(()),
            code => Err(Errno::from_code(code)),
        }
    }

    /// The option that asks for time stamps, or 0.
    pub fn stamp(&self) -> u32 {
        self.stamp.load(Relaxed)
    }
    /// Whether what comes is to have the time with it.
    pub fn is_stamped(&self) -> bool {
        self.stamp() != 0 || self.stamping.load(Relaxed) & STAMP_RECEIVED != 0
    }
    /// Whether the time is told in the form of SO_TIMESTAMPING.
    pub fn tells_stamps(&self) -> bool {
        self.stamping.load(Relaxed) & TELL_STAMPS != 0
    }
    /// Whether datagrams may say when they are to go.
    pub fn has_send_time(&self) -> bool {
        self.send_time.load(Relaxed) != u64::MAX
    }
    fn set_stamping(&self, wish: u32) -> Result<()> {
        // Only what comes is stamped, and only of UDP.
        if self.kind != abi::SOCK_DGRAM || self.protocol != abi::IPPROTO_UDP {
            return Err(Errno::ENOPROTOOPT);
        }
        if wish & !(STAMP_RECEIVED | TELL_STAMPS | HARDWARE_STAMPS) != 0 {
            return Err(Errno::EINVAL);
        }
        self.stamping.store(wish, Relaxed);
        Ok(())
    }
    fn set_send_time(&self, value: &[u8], root: bool) -> Result<()> {
        let (clock, flags) = (int_of(value)?, int_of(value.get(4..).ok_or(Errno::EINVAL)?)? as u32);
        if value.len() != 8 || flags & !3 != 0 {
            return Err(Errno::EINVAL);
        }
        use linux_raw_sys::general::{CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_TAI};
        if !matches!(clock as u32, CLOCK_REALTIME | CLOCK_MONOTONIC | CLOCK_TAI) {
            return Err(Errno::EINVAL);
        }
        if clock as u32 != CLOCK_MONOTONIC && !root {
            return Err(Errno::EPERM);
        }
        self.send_time.store(clock as u32 as u64 | (flags as u64) << 32, Relaxed);
        Ok(())
    }

    /// A packet found no room.
    pub fn drop_one(&self) {
        self.drops.fetch_add(1, Relaxed);
    }
    pub fn drops(&self) -> u32 {
        self.drops.load(Relaxed)
    }

    pub fn low_water(&self) -> usize {
        self.low_water.load(Relaxed) as usize
    }
    /// How long `close` waits (SO_LINGER), in seconds.
    pub fn linger(&self) -> Option<u32> {
        self.linger.load(Relaxed).then(|| self.linger_seconds.load(Relaxed))
    }

    pub fn receive_wait(&self, nonblock: bool) -> Wait {
        wait(nonblock, self.receive_timeout.load(Relaxed))
    }
    pub fn send_wait(&self, nonblock: bool) -> Wait {
        wait(nonblock, self.send_timeout.load(Relaxed))
    }

    /// Sleep until `ready()`, which is asked first.
    pub fn sleep(&self, wait: Wait, mut ready: impl FnMut() -> bool) -> Result<()> {
        match wait {
            Wait::Never if ready() => Ok(()),
            Wait::Never => Err(Errno::EAGAIN),
            Wait::Until(deadline) => ended(self.signal.queue().wait_until(ready, deadline, true), deadline),
        }
    }
}

impl Drop for Common {
    fn drop(&mut self) {
        registry::leave(self.number);
    }
}

/// How a wait's end looks to the program: one with a time limit is not started again (`signal(7)`).
pub fn ended(result: WaitResult, deadline: Option<u64>) -> Result<()> {
    match result {
        WaitResult::Ready => Ok(()),
        WaitResult::TimedOut => Err(Errno::EAGAIN),
        WaitResult::Interrupted if deadline.is_some() => Err(Errno::EINTR),
        WaitResult::Interrupted => Err(Errno::RESTART),
    }
}

fn wait(nonblock: bool, timeout: u64) -> Wait {
    if nonblock {
        return Wait::Never;
    }
    Wait::Until((timeout != u64::MAX).then(|| clock::monotonic().saturating_add(timeout)))
}

/// An `int` option.
pub fn int(value: i64) -> Vec<u8> {
    (value as i32).to_ne_bytes().to_vec()
}

/// What a program gave for an `int` option.
pub fn int_of(value: &[u8]) -> Result<i32> {
    let bytes = value.get(..4).ok_or(Errno::EINVAL)?;
    Ok(i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// `struct timeval`: 16 bytes; at least a microsecond where it is not 0, which means for ever.
fn timeout_of(value: &[u8]) -> Result<u64> {
    let word = |at: usize| Some(i64::from_ne_bytes(value.get(at..at + 8)?.try_into().ok()?));
    let (sec, micro) = (word(0).ok_or(Errno::EINVAL)?, word(8).ok_or(Errno::EINVAL)?);
    if !(0..1_000_000).contains(&micro) {
        return Err(Errno::EDOM);
    }
    if sec < 0 {
        return Ok(0);
    }
    if (sec, micro) == (0, 0) {
        return Ok(u64::MAX);
    }
    Ok((sec as u64).saturating_mul(clock::SECOND).saturating_add(micro as u64 * 1000))
}

fn timeout_bytes(ns: u64) -> Vec<u8> {
    let (sec, micro) = if ns == u64::MAX { (0, 0) } else { (ns / clock::SECOND, ns % clock::SECOND / 1000) };
    [sec.to_ne_bytes(), micro.to_ne_bytes()].concat()
}

/// Where nobody is known.
pub const NOBODY: Ucred = Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX, began: 0 };

/// `struct ucred`.
pub fn cred_bytes(cred: &Ucred) -> Vec<u8> {
    [cred.pid.to_ne_bytes(), cred.uid.to_ne_bytes(), cred.gid.to_ne_bytes()].concat()
}

/// `SK_MEMINFO_*`: bytes in and limit, bytes out and limit, what is set aside, what waits to go, and so on; packets that were lost.
#[cold]
pub fn meminfo(socket: &dyn Protocol) -> Vec<u8> {
    let c = socket.common();
    let (inward, outward) = (socket.holds() as u32, socket.unsent() as u32);
    let limits = (c.receive_buffer.load(Relaxed), c.send_buffer.load(Relaxed));
    let words = [inward, limits.0, outward, limits.1, 0, outward, 0, 0, c.drops()];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Which lengths of a value's room the option takes; others are cut or left as they are.
pub fn check_room(level: u32, name: u32, room: usize, len: usize) -> Result<()> {
    let fits = match (level, name) {
        (abi::SOL_SOCKET, abi::SO_COOKIE) => room >= len,
        (abi::SOL_SOCKET, abi::SO_NETNS_COOKIE) => room == len,
        (abi::SOL_SOCKET, abi::SO_PEERNAME) => room <= len,
        _ => true,
    };
    if fits { Ok(()) } else { Err(Errno::EINVAL) }
}

/// `getsockopt(2)`.
pub fn get(socket: &dyn Protocol, level: u32, name: u32) -> Result<Vec<u8>> {
    let c = socket.common();
    match socket.option(level, name) {
        Err(Errno::ENOPROTOOPT) if level == abi::SOL_SOCKET => {}
        other => return other,
    }
    Ok(match name {
        abi::SO_TYPE => int(c.kind as i64),
        abi::SO_DOMAIN => int(c.domain as i64),
        abi::SO_PROTOCOL => int(c.protocol as i64),
        abi::SO_ERROR => int(c.take_error().map_or_else(|e| e.code() as i64, |()| 0)),
        abi::SO_ACCEPTCONN => int(socket.is_listening() as i64),
        abi::SO_SNDBUF => int(c.send_buffer.load(Relaxed) as i64),
        abi::SO_RCVBUF => int(c.receive_buffer.load(Relaxed) as i64),
        abi::SO_RCVLOWAT => int(c.low_water() as i64),
        abi::SO_SNDLOWAT => int(1),
        abi::SO_PRIORITY => int(c.priority.load(Relaxed) as i64),
        abi::SO_MARK => int(c.mark.load(Relaxed) as i64),
        abi::SO_INCOMING_CPU => int(c.incoming_cpu.load(Relaxed) as i32 as i64),
        abi::SO_BUSY_POLL => int(c.busy_poll.load(Relaxed) as i64),
        // No interface has such queues.
        abi::SO_INCOMING_NAPI_ID => int(0),
        abi::SO_BUF_LOCK => int(c.set_buffers.load(Relaxed) as i64),
        abi::SO_BPF_EXTENSIONS => int(FILTER_EXTENSIONS),
        abi::SO_COOKIE => c.number.to_ne_bytes().to_vec(),
        // The only network there is.
        abi::SO_NETNS_COOKIE => 1u64.to_ne_bytes().to_vec(),
        abi::SO_MEMINFO => meminfo(socket),
        abi::SO_PEERGROUPS => return Err(Errno::ENODATA),
        abi::SO_PEERNAME => socket.peer_name().map_err(|_| Errno::ENOTCONN)?.bytes(),
        abi::SO_BINDTODEVICE => Vec::new(),
        abi::SO_LOCK_FILTER => int(c.filter_stays.load(Relaxed) as i64),
        abi::SO_LINGER => {
            let (on, seconds) = (c.linger.load(Relaxed) as u32, c.linger_seconds.load(Relaxed));
            [on.to_ne_bytes(), seconds.to_ne_bytes()].concat()
        }
        abi::SO_RCVTIMEO_OLD | abi::SO_RCVTIMEO_NEW => timeout_bytes(c.receive_timeout.load(Relaxed)),
        abi::SO_SNDTIMEO_OLD | abi::SO_SNDTIMEO_NEW => timeout_bytes(c.send_timeout.load(Relaxed)),
        // What is in no family but one answers as Linux does for the others.
        abi::SO_PEERCRED => cred_bytes(&NOBODY),
        abi::SO_TIMESTAMP_OLD | abi::SO_TIMESTAMP_NEW | abi::SO_TIMESTAMPNS_OLD | abi::SO_TIMESTAMPNS_NEW => {
            int((c.stamp() == name) as i64)
        }
        abi::SO_TIMESTAMPING_OLD | abi::SO_TIMESTAMPING_NEW => {
            [c.stamping.load(Relaxed).to_ne_bytes(), [0; 4]].concat()
        }
        abi::SO_TXTIME => {
            let set = c.send_time.load(Relaxed);
            (if set == u64::MAX { 0 } else { set }).to_ne_bytes().to_vec()
        }
        flag if FLAGS.contains(&flag) => int(c.has(flag) as i64),
        _ => return Err(Errno::ENOPROTOOPT),
    })
}

/// `setsockopt(2)`; `root`: the caller may do what needs CAP_NET_ADMIN.
pub fn set(socket: &dyn Protocol, level: u32, name: u32, value: &[u8], root: bool) -> Result<()> {
    let c = socket.common();
    match socket.set_option(level, name, value) {
        Err(Errno::ENOPROTOOPT) if level == abi::SOL_SOCKET => {}
        other => return other,
    }
    if name == abi::SO_BINDTODEVICE {
        // To the only way out there is, or to none in particular.
        let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
        return match &value[..end] {
            b"" => Ok(()),
            _ if !root => Err(Errno::EPERM),
            _ => Err(Errno::ENODEV),
        };
    }
    let number = int_of(value)?;
    match name {
        abi::SO_SNDBUF | abi::SO_SNDBUFFORCE => {
            if name == abi::SO_SNDBUFFORCE && !root {
                return Err(Errno::EPERM);
            }
            let bytes = (number as u32).min(BUFFER_MAX).saturating_mul(2).max(SEND_MIN);
            c.send_buffer.store(bytes, Relaxed);
            c.set_buffers.fetch_or(SEND_SET, Relaxed);
            socket.send_limit(bytes as usize);
        }
        abi::SO_RCVBUF | abi::SO_RCVBUFFORCE => {
            if name == abi::SO_RCVBUFFORCE && !root {
                return Err(Errno::EPERM);
            }
            let bytes = (number as u32).min(BUFFER_MAX).saturating_mul(2).max(RECEIVE_MIN);
            c.receive_buffer.store(bytes, Relaxed);
            c.set_buffers.fetch_or(RECEIVE_SET, Relaxed);
        }
        abi::SO_BUF_LOCK if number as u32 & !(SEND_SET | RECEIVE_SET) != 0 => return Err(Errno::EINVAL),
        abi::SO_BUF_LOCK => c.set_buffers.store(number as u32, Relaxed),
        abi::SO_INCOMING_CPU => c.incoming_cpu.store(number as u32, Relaxed),
        abi::SO_BUSY_POLL if number < 0 => return Err(Errno::EINVAL),
        abi::SO_BUSY_POLL if !root && number as u32 > c.busy_poll.load(Relaxed) => return Err(Errno::EPERM),
        abi::SO_BUSY_POLL => c.busy_poll.store(number as u32, Relaxed),
        abi::SO_PREFER_BUSY_POLL if number != 0 && !root => return Err(Errno::EPERM),
        abi::SO_REUSEPORT if number != 0 && !matches!(c.domain, abi::AF_INET | abi::AF_INET6) => {
            return Err(Errno::EOPNOTSUPP);
        }
        abi::SO_RCVLOWAT => {
            c.low_water.store(if number < 0 { i32::MAX } else { number.max(1) } as u32, Relaxed)
        }
        abi::SO_PRIORITY if root || (0..=6).contains(&number) => c.priority.store(number as u32, Relaxed),
        abi::SO_PRIORITY => return Err(Errno::EPERM),
        abi::SO_MARK if root => c.mark.store(number as u32, Relaxed),
        abi::SO_MARK => return Err(Errno::EPERM),
        abi::SO_LINGER => {
            let seconds = int_of(value.get(4..).ok_or(Errno::EINVAL)?)?;
            c.linger.store(number != 0, Relaxed);
            c.linger_seconds.store(seconds as u32, Relaxed);
        }
        abi::SO_RCVTIMEO_OLD | abi::SO_RCVTIMEO_NEW => c.receive_timeout.store(timeout_of(value)?, Relaxed),
        abi::SO_SNDTIMEO_OLD | abi::SO_SNDTIMEO_NEW => c.send_timeout.store(timeout_of(value)?, Relaxed),
        abi::SO_DETACH_FILTER => c.set_filter(None)?,
        abi::SO_LOCK_FILTER if number == 0 && c.filter_stays.load(Relaxed) => return Err(Errno::EPERM),
        abi::SO_LOCK_FILTER => c.filter_stays.store(number != 0, Relaxed),
        abi::SO_DEBUG if number != 0 && !root => return Err(Errno::EACCES),
        abi::SO_TIMESTAMP_OLD | abi::SO_TIMESTAMP_NEW | abi::SO_TIMESTAMPNS_OLD | abi::SO_TIMESTAMPNS_NEW => {
            c.stamp.store(if number != 0 { name } else { 0 }, Relaxed)
        }
        abi::SO_TIMESTAMPING_OLD | abi::SO_TIMESTAMPING_NEW => c.set_stamping(number as u32)?,
        // No queue here holds packets back, so the time is as it is for a card without such a queue: not looked at.
        abi::SO_TXTIME => c.set_send_time(value, root)?,
        V6ONLY | NODELAY | CORK | INQ => return Err(Errno::ENOPROTOOPT),
        flag if FLAGS.contains(&flag) => c.set(flag, number != 0),
        _ => return Err(Errno::ENOPROTOOPT),
    }
    socket.options_changed();
    Ok(())
}
