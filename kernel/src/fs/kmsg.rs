//! `/dev/kmsg`: a record a read, and what is written becomes one.
//!
//! A record is told as `gravity,number,microseconds,-;text`. A write may begin with `<N>`: the gravity, and above its three bits who says it; what a
//! program says is never told as the kernel's own.

use super::caps::cap;
use super::cred::Cred;
use super::file::{FileOps, How};
use super::inode::OpenMode;
use super::iobuf::{Sink, Source};
use super::poll::{Events, Signal, Watchers};
use crate::errno::{Errno, Result};
use crate::kmsg::{self, LONGEST};
use alloc::format;
use alloc::sync::Arc;
use core::any::Any;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use hafez_mm::lock::{LazyLock, Mutex, Once};
use linux_raw_sys::general as abi;

/// `kernel.dmesg_restrict`: only who may (`CAP_SYSLOG`) reads.
pub static RESTRICTED: AtomicU64 = AtomicU64::new(1);
/// Programs are this facility, if they do not say otherwise; and say so much without one.
const USER: u16 = 1 << 3;
const DEFAULT: u16 = kmsg::WARNING;

static CHANGED: LazyLock<Arc<Signal>> = LazyLock::new(Signal::new);
static CALLER: Once<fn() -> Arc<Cred>> = Once::new();

/// Tell who calls: processes are a room above.
pub fn set_caller(caller: fn() -> Arc<Cred>) {
    CALLER.call_once(|| caller);
}

/// Notified when there are more records.
pub fn changed() -> &'static Arc<Signal> {
    &CHANGED
}

/// Say something, from where others can be woken.
pub fn say(gravity: u16, text: fmt::Arguments<'_>) {
    kmsg::say(gravity, text);
    changed().notify();
}

/// EPERM for who may not read what the kernel said.
pub fn may_read(cred: &Cred, open_to_all: bool) -> Result<()> {
    let free = open_to_all && RESTRICTED.load(Relaxed) == 0;
    if free || cred.may(cap::SYSLOG) || cred.may(cap::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
}

/// An open one: the number of the record to be read next.
struct Reader(Mutex<u64>);

/// See the module.
pub fn open(how: OpenMode) -> Result<Arc<dyn FileOps>> {
    if how.read
        && let Some(caller) = CALLER.get()
    {
        may_read(&caller(), true)?;
    }
    Ok(Arc::new(Reader(Mutex::new(kmsg::range().0))))
}

impl FileOps for Reader {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _: u64, to: &mut Sink<'_>, how: How) -> Result<()> {
        let mut text = [0; LONGEST];
        loop {
            let wanted = *self.0.lock();
            let Some(record) = kmsg::get(wanted, &mut text) else {
                if how.nonblock {
                    return Err(Errno::EAGAIN);
                }
                changed().wait(|| kmsg::range().1 > *self.0.lock())?;
                continue;
            };
            if record.number != wanted {
                // It was too slow, and is told so once.
                *self.0.lock() = record.number;
                return Err(Errno::EPIPE);
            }
            let head = format!("{},{},{},-;", record.gravity, record.number, record.at / 1000);
            if to.remaining() < head.len() + record.len + 1 {
                return Err(Errno::EINVAL);
            }
            {
                let mut next = self.0.lock();
                if *next != wanted {
                    continue; // another thread had it
                }
                *next += 1;
            }
            to.put(head.as_bytes());
            to.put(&text[..record.len]);
            to.put(b"\n");
            return Ok(());
        }
    }
    fn write(&self, _: u64, from: &mut Source<'_>, _: How) -> Result<()> {
        let mut bytes = [0; LONGEST];
        if from.remaining() > LONGEST {
            return Err(Errno::EINVAL);
        }
        let len = from.take(&mut bytes);
        if from.faulted() {
            return Ok(());
        }
        let (gravity, text) = marked(&bytes[..len]);
        kmsg::put(gravity, text.strip_suffix(b"\n").unwrap_or(text));
        changed().notify();
        Ok(())
    }
    fn poll(&self) -> Events {
        let more = kmsg::range().1 > *self.0.lock();
        if more { Events::READABLE } else { Events::empty() }
    }
    fn watch(&self, watchers: &mut Watchers) {
        watchers.add(changed());
    }
    /// To the oldest record, or behind the newest: there are no other places.
    fn seek_nowhere(&self, offset: i64, whence: u32) -> Result<u64> {
        if offset != 0 {
            return Err(Errno::ESPIPE);
        }
        let (first, next) = kmsg::range();
        *self.0.lock() = match whence {
            abi::SEEK_SET | abi::SEEK_DATA => first,
            abi::SEEK_END => next,
            _ => return Err(Errno::EINVAL),
        };
        Ok(0)
    }
}

/// The `<N>` that a text begins with, as far as a program can say that, and the rest.
fn marked(text: &[u8]) -> (u16, &[u8]) {
    let number = || {
        let end = text.iter().position(|&byte| byte == b'>')?;
        let digits = core::str::from_utf8(text.get(1..end)?).ok().filter(|_| text[0] == b'<')?;
        Some((digits.parse::<u16>().ok()?, &text[end + 1..]))
    };
    match number() {
        Some((said, rest)) if said >> 3 != 0 => (said, rest),
        Some((said, rest)) => (said & 7 | USER, rest),
        None => (DEFAULT | USER, text),
    }
}
