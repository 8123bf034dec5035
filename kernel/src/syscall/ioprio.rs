//! `ioprio_set(2)`: how urgent a task's input and output are. Requests go to the host's files and disk in the order in which they are
//! made, as under Linux's `none` scheduler, so the choice is kept, inherited and told, and changes no order.
#![forbid(unsafe_code)]

use super::Calls;
use crate::errno::{Errno, Result};
use crate::fs::caps::cap;
use crate::process::run::Caller;
use crate::process::table;
use crate::process::task::Task;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as abi;

/// The calls of this family.
pub const CALLS: &Calls = &[(abi::__NR_ioprio_get, ioprio_get), (abi::__NR_ioprio_set, ioprio_set)];

/// Whose: a task's, a group's, a user's.
const TASK: u32 = 1;
const GROUP: u32 = 2;
const USER: u32 = 3;
/// Classes, above bit 13; below it hints, and a level in three bits.
const CLASS: u32 = 13;
const NONE: u32 = 0;
const REAL_TIME: u32 = 1;
const BEST_EFFORT: u32 = 2;
const IDLE: u32 = 3;
const LEVEL: u32 = 7;

/// Do it with each of the tasks that are named. ESRCH if there is none.
fn each(
    caller: &Caller,
    [which, who]: [u64; 2],
    mut act: impl FnMut(&Arc<Task>) -> Result<()>,
) -> Result<()> {
    let who = who as i32;
    let own = &caller.task;
    match which as u32 {
        TASK if who == 0 => act(own),
        TASK => act(&table::task(who).ok_or(Errno::ESRCH)?),
        GROUP | USER => {
            let by_group = which as u32 == GROUP;
            let wanted = match who {
                0 if by_group => own.process.group(),
                0 => own.cred().uid as i32,
                who => who,
            };
            let mut found = false;
            for process in table::each_process() {
                for task in process.tasks() {
                    let here = if by_group { process.group() } else { task.cred().uid as i32 };
                    if here == wanted {
                        found = true;
                        act(&task)?;
                    }
                }
            }
            if found { Ok(()) } else { Err(Errno::ESRCH) }
        }
        _ => Err(Errno::EINVAL),
    }
}

fn ioprio_set(caller: &mut Caller) -> Result<u64> {
    let [which, who, value, ..] = caller.args();
    let value = value as u32;
    let cred = caller.task.cred();
    match value >> CLASS & 7 {
        REAL_TIME if !cred.may(cap::SYS_ADMIN) && !cred.may(cap::SYS_NICE) => return Err(Errno::EPERM),
        REAL_TIME | BEST_EFFORT | IDLE => {}
        NONE if value & LEVEL == 0 => {}
        _ => return Err(Errno::EINVAL),
    }
    each(caller, [which, who], |task| {
        let theirs = task.cred();
        if theirs.uid != cred.euid && theirs.uid != cred.uid && !cred.may(cap::SYS_NICE) {
            return Err(Errno::EPERM);
        }
        task.io_priority.store(value & 0xffff, Relaxed);
        Ok(())
    })?;
    Ok(0)
}

fn ioprio_get(caller: &mut Caller) -> Result<u64> {
    let [which, who, ..] = caller.args();
    let mut best = u32::MAX;
    each(caller, [which, who], |task| {
        // Of one, what was chosen, if anything; of several, what holds.
        let own = if which as u32 == TASK { task.io_priority.load(Relaxed) } else { holds(task) };
        best = best.min(own);
        Ok(())
    })?;
    Ok(best.into())
}

/// What was chosen; else what the policy and the nice value make of it.
fn holds(task: &Task) -> u32 {
    let chosen = task.io_priority.load(Relaxed);
    if chosen >> CLASS != NONE {
        return chosen;
    }
    let class = match task.policy.load(Relaxed) {
        abi::SCHED_FIFO | abi::SCHED_RR => REAL_TIME,
        abi::SCHED_IDLE => IDLE,
        _ => BEST_EFFORT,
    };
    let level = (task.nice.load(Relaxed) + 20) as u32 / 5;
    (class << CLASS) + level
}
