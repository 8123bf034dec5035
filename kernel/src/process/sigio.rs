//! The signals that open files send: SIGIO, SIGURG, or the one that was chosen (`fs::owner`).
#![forbid(unsafe_code)]

use super::Process;
use super::signal::{self, SigInfo, SigSet};
use super::table;
use crate::errno::Result;
use crate::fs::owner::{News, Target, Telling, Who};
use alloc::sync::Arc;
use linux_raw_sys::general as abi;

/// Tell them.
pub fn send(who: Who, telling: Telling) {
    let hears = |process: &Arc<Process>| {
        process.any_task().is_some_and(|task| {
            let cred = task.cred();
            who.euid == 0 || [who.uid, who.euid].iter().any(|uid| [cred.suid, cred.uid].contains(uid))
        })
    };
    let tell = |send: &dyn Fn(SigInfo) -> Result<()>| {
        let detailed = !telling.urgent && telling.signal != 0;
        // Where there is no room for what happened, there is for that something did.
        if !detailed || send(io_info(&telling)).is_err() {
            let _ = send(SigInfo::kernel(if telling.urgent { abi::SIGURG } else { abi::SIGIO }));
        }
    };
    match who.target {
        Target::Task => {
            let task = table::task(who.number).filter(|task| hears(&task.process));
            if let Some(task) = task {
                tell(&|info| signal::to_task(&task, info));
            }
        }
        Target::Process => {
            if let Some(process) = table::process(who.number).filter(hears) {
                tell(&|info| signal::to_process(&process, info));
            }
        }
        Target::Group => {
            for process in table::group_members(who.number).filter(hears) {
                tell(&|info| signal::to_process(&process, info));
            }
        }
    }
}

/// What a chosen signal says: what happened, to which descriptor.
fn io_info(telling: &Telling) -> SigInfo {
    // Those that have codes of their own say no other's.
    const OWN_CODES: SigSet = SigSet::SYNCHRONOUS.with(abi::SIGCHLD);
    let code = if OWN_CODES.has(telling.signal) { abi::SI_SIGIO } else { telling.news as i32 };
    let band = match telling.news {
        News::In => abi::POLLIN | abi::POLLRDNORM,
        News::Out => abi::POLLOUT | abi::POLLWRNORM | abi::POLLWRBAND,
        News::Message => abi::POLLIN | abi::POLLRDNORM | abi::POLLMSG,
        News::Error => abi::POLLERR,
        News::Hangup => abi::POLLHUP | abi::POLLERR,
    };
    SigInfo { signo: telling.signal, errno: 0, code, fields: [band.into(), telling.fd.into(), 0, 0, 0, 0] }
}
