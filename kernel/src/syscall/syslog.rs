//! `syslog(2)`: the kernel's log as text, a line a record; all of it, or what nobody has read yet.
#![forbid(unsafe_code)]

use super::{Calls, user};
use crate::errno::{Errno, Result};
use crate::fs::kmsg::{changed, may_read};
use crate::kmsg::{self, LONGEST, Record};
use crate::process::run::Caller;
use alloc::format;
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use hafez_mm::lock::Mutex;
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[(abi::__NR_syslog, syslog)];

const CLOSE: i32 = 0;
const OPEN: i32 = 1;
const READ: i32 = 2;
const READ_ALL: i32 = 3;
const READ_CLEAR: i32 = 4;
const CLEAR: i32 = 5;
const CONSOLE_OFF: i32 = 6;
const CONSOLE_ON: i32 = 7;
const CONSOLE_LEVEL: i32 = 8;
const SIZE_UNREAD: i32 = 9;
const SIZE_BUFFER: i32 = 10;

/// The record that `READ` comes to next, and how much of its line is read; and the one that `READ_ALL` begins with since it was cleared.
static UNREAD: Mutex<(u64, usize)> = Mutex::new((0, 0));
static CLEARED: AtomicU64 = AtomicU64::new(0);

fn syslog(caller: &mut Caller) -> Result<u64> {
    let [what, at, len, ..] = caller.args();
    let (what, len) = (what as i32, len as i32);
    let cred = caller.task.cred();
    may_read(&cred, matches!(what, READ_ALL | SIZE_BUFFER))?;
    match what {
        // There is no console that the log would go to.
        CLOSE | OPEN | CONSOLE_OFF | CONSOLE_ON => Ok(0),
        CONSOLE_LEVEL if (1..=8).contains(&len) => Ok(0),
        CONSOLE_LEVEL => Err(Errno::EINVAL),
        READ | READ_ALL | READ_CLEAR => {
            if at == 0 || len < 0 {
                return Err(Errno::EINVAL);
            }
            if len == 0 {
                return Ok(0);
            }
            if !crate::arch::user::in_user_half(at, len as usize) {
                return Err(Errno::EFAULT);
            }
            if what == READ { read(at, len as usize) } else { read_all(at, len as usize, what == READ_CLEAR) }
        }
        CLEAR => {
            CLEARED.store(kmsg::range().1, Relaxed);
            Ok(0)
        }
        SIZE_UNREAD => Ok(unread()),
        SIZE_BUFFER => Ok(kmsg::SIZE as u64),
        _ => Err(Errno::EINVAL),
    }
}

/// A record as a line.
fn line(record: &Record, text: &[u8; LONGEST]) -> String {
    let (seconds, rest) = (record.at / 1_000_000_000, record.at % 1_000_000_000 / 1000);
    let text = String::from_utf8_lossy(&text[..record.len]);
    format!("<{}>[{seconds:5}.{rest:06}] {text}\n", record.gravity)
}

/// Lines from the record `from` on, until `f` says no.
fn each(from: u64, f: &mut dyn FnMut(u64, &str) -> Result<bool>) -> Result<()> {
    let (mut next, mut text) = (from, [0; LONGEST]);
    while let Some(record) = kmsg::get(next, &mut text) {
        if !f(record.number, &line(&record, &text))? {
            break;
        }
        next = record.number + 1;
    }
    Ok(())
}

/// What nobody has read yet: waits until there is something.
fn read(at: u64, len: usize) -> Result<u64> {
    changed().wait(|| kmsg::range().1 > UNREAD.lock().0)?;
    let (first, skip) = *UNREAD.lock();
    let (mut done, mut place) = (0, (first, skip));
    each(first, &mut |number, line| {
        let begin = if number == first { skip.min(line.len()) } else { 0 };
        let rest = &line.as_bytes()[begin..];
        let n = rest.len().min(len - done);
        user::copy_to(at + done as u64, &rest[..n])?;
        done += n;
        place = if n == rest.len() { (number + 1, 0) } else { (number, begin + n) };
        Ok(done < len)
    })?;
    *UNREAD.lock() = place;
    Ok(done as u64)
}

fn unread() -> u64 {
    let (first, skip) = *UNREAD.lock();
    let mut sum = 0;
    let _ = each(first, &mut |_, line| {
        sum += line.len();
        Ok(true)
    });
    sum.saturating_sub(skip) as u64
}

/// The newest lines that fit, of those since it was cleared.
fn read_all(at: u64, len: usize, clear: bool) -> Result<u64> {
    let cleared = CLEARED.load(Relaxed);
    let (mut sum, mut end) = (0, 0);
    each(cleared, &mut |number, line| {
        sum += line.len();
        end = number + 1;
        Ok(true)
    })?;
    let mut done = 0;
    each(cleared, &mut |number, line| {
        if number >= end {
            return Ok(false);
        }
        if sum > len {
            sum -= line.len();
            return Ok(true);
        }
        user::copy_to(at + done as u64, line.as_bytes())?;
        done += line.len();
        Ok(true)
    })?;
    if clear {
        CLEARED.store(end.max(cleared), Relaxed);
    }
    Ok(done as u64)
}
