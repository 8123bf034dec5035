//! Tables of what the machine has: `locks`, and in `sysvipc` the queues and sets.

use super::super::sysv::{msg, sem};
use crate::fs::lease::{self, Lease};
use crate::fs::locks::{self, Line};
use crate::mem::TryPush;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

/// A line of `/proc/locks` is of one lock, or of who waits for the one above it.
pub fn locks() -> String {
    let mut lines: Vec<Line> = Vec::new();
    // Without room for more the rest is not told.
    locks::each(&mut |line| drop(lines.try_push(line)));
    let mut text = String::new();
    let mut number = 0;
    for line in lines {
        number += !line.waits as u32;
        let waits = if line.waits { "-> " } else { "" };
        let how = if line.exclusive { "WRITE" } else { "READ" };
        let (major, minor) = device(line.id.dev);
        let _ = write!(
            text,
            "{number}: {waits}{:<6} ADVISORY  {how} {} {major:02x}:{minor:02x}:{} {} ",
            line.kind, line.pid, line.id.ino, line.start
        );
        let _ = match line.last {
            last if last >= i64::MAX as u64 => writeln!(text, "EOF"),
            last => writeln!(text, "{last}"),
        };
    }
    lease::each(&mut |id, pid, lease, breaking| {
        number += 1;
        let state = if breaking { "BREAKING" } else { "ACTIVE" };
        let what = match lease {
            Some(Lease::Write) => "WRITE",
            Some(Lease::Read) => "READ",
            None => "UNLCK",
        };
        let (major, minor) = device(id.dev);
        let _ = writeln!(
            text,
            "{number}: LEASE  {state:<8}  {what} {pid} {major:02x}:{minor:02x}:{} 0 EOF",
            id.ino
        );
    });
    text
}

/// The two numbers of a device.
fn device(dev: u64) -> (u64, u64) {
    (dev >> 8 & 0xfff, dev & 0xff | dev >> 12 & 0xfff00)
}

/// A line a queue of messages (`msgget(2)`).
pub fn queues() -> String {
    let mut text = String::from(
        "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n",
    );
    let mut next = 0;
    while let Some((id, stat)) = msg::next(next) {
        let p = &stat.perm;
        let [sent, received, changed] = stat.times;
        let _ = writeln!(
            text,
            "{:>10} {id:>10}  {:>4o}  {:>10} {:>10} {:>5} {:>5} {:>5} {:>5} {:>5} {:>5} {sent:>10} {received:>10} {changed:>10}",
            p.key,
            p.mode,
            stat.bytes,
            stat.count,
            stat.sender,
            stat.receiver,
            p.uid,
            p.gid,
            p.creator_uid,
            p.creator_gid,
        );
        let Some(after) = id.checked_add(1) else { break };
        next = after;
    }
    text
}

/// A line a set of semaphores (`semget(2)`).
pub fn sets() -> String {
    let mut text = String::from(
        "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n",
    );
    let mut next = 0;
    while let Some((id, stat)) = sem::next(next) {
        let p = &stat.perm;
        let (used, changed) = (stat.operated, stat.changed);
        let _ = writeln!(
            text,
            "{:>10} {id:>10}  {:>4o} {:>10} {:>5} {:>5} {:>5} {:>5} {used:>10} {changed:>10}",
            p.key, p.mode, stat.count, p.uid, p.gid, p.creator_uid, p.creator_gid,
        );
        let Some(after) = id.checked_add(1) else { break };
        next = after;
    }
    text
}
