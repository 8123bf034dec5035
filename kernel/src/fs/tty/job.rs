//! Whose terminal it is: sessions, controlling terminals, foreground groups (`credentials(7)`, `tty_ioctl(4)`).
//!
//! A session has at most one controlling terminal, and a terminal controls at most one session: both stand in one
//! table under one lock, so the two can never disagree. Processes are above this layer; what must be known of
//! them comes through [`Processes`], which nobody calls with the table's lock held.
//!
//! | what happens | who hears of it |
//! |---|---|
//! | a key sends a signal | the foreground group |
//! | one in the background reads, writes (TOSTOP) or sets something | its own group is stopped by SIGTTIN, SIGTTOU |
//! | the session's leader ends, or gives the terminal up | the foreground group: SIGHUP |
//! | the other end of the terminal goes away | the leader: SIGHUP, SIGCONT; when it ends, the group that was in the foreground |

use super::Terminal;
use crate::errno::{Errno, Result};
use alloc::{collections::BTreeMap, sync::Arc};
use hafez_mm::lock::{Mutex, Once};
use linux_raw_sys::general as abi;

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Job {
    pub pid: u32,
    pub group: u32,
    pub session: u32,
    /// It has given up its session's terminal.
    pub detached: bool,
    pub root: bool,
    /// As whom it makes files.
    pub user: u32,
}

impl Job {
    fn leads(&self) -> bool {
        self.pid != 0 && self.pid == self.session
    }
}

/// What the process layer does for terminals.
pub trait Processes: Send + Sync {
    /// The calling process.
    fn caller(&self) -> Job;
    /// Send a signal to every process of a group.
    fn signal_group(&self, group: u32, signo: u32);
    fn signal_process(&self, pid: u32, signo: u32);
    /// The session of a group; `None` if there is no such group.
    fn session_of(&self, group: u32) -> Option<u32>;
    /// Whether the calling task blocks or ignores the signal.
    fn is_deaf_to(&self, signo: u32) -> bool;
    /// Whether nobody is left to do job control on the group.
    fn is_orphaned(&self, group: u32) -> bool;
    /// The calling process gives up its session's terminal.
    fn detach(&self);
}

static PROCESSES: Once<&'static dyn Processes> = Once::new();

/// Tell how to reach processes.
pub fn set_processes(processes: &'static dyn Processes) {
    PROCESSES.call_once(|| processes);
}

fn processes() -> Option<&'static dyn Processes> {
    PROCESSES.get().copied()
}

fn caller() -> Job {
    processes().map(|p| p.caller()).unwrap_or_default()
}

/// Send to a group, if there is one.
pub fn signal_group(group: u32, signo: u32) {
    if let Some(p) = processes().filter(|_| group != 0) {
        p.signal_group(group, signo);
    }
}

/// What a session has.
enum Holder {
    Terminal(Arc<Terminal>),
    /// Its terminal was hung up, while this group was in the foreground.
    HungUp {
        group: u32,
    },
}

static SESSIONS: Mutex<BTreeMap<u32, Holder>> = Mutex::new(BTreeMap::new());

/// Of a terminal: whom it controls. Written with [`SESSIONS`] locked.
#[derive(Default, Clone, Copy)]
pub struct Control {
    pub session: u32,
    /// 0: none.
    pub foreground: u32,
}

/// The controlling terminal of a session.
pub fn terminal_of(session: u32) -> Option<Arc<Terminal>> {
    match SESSIONS.lock().get(&session) {
        Some(Holder::Terminal(terminal)) => Some(terminal.clone()),
        _ => None,
    }
}

/// The calling process's (`/dev/tty`).
pub fn own() -> Option<Arc<Terminal>> {
    let caller = caller();
    terminal_of(caller.session).filter(|_| !caller.detached)
}

/// Whether the terminal controls the calling process.
pub fn controls(terminal: &Terminal, caller: &Job) -> bool {
    let control = terminal.control();
    control.session != 0 && control.session == caller.session && !caller.detached
}

fn give(terminal: &Arc<Terminal>, session: u32, group: u32) -> Option<Holder> {
    let mut sessions = SESSIONS.lock();
    let before = terminal.control().session;
    let old = if before != session { sessions.remove(&before) } else { None };
    terminal.set_control(Control { session, foreground: group });
    let older = sessions.insert(session, Holder::Terminal(terminal.clone()));
    drop(sessions);
    drop(older);
    old
}

/// A session gets it as its controlling terminal, whatever was before.
pub fn set_owner(terminal: &Arc<Terminal>, session: u32, group: u32) {
    drop(give(terminal, session, group));
}

/// A terminal was opened without O_NOCTTY: a leader without a terminal takes it, if it is free.
pub fn opened(terminal: &Arc<Terminal>) {
    let caller = caller();
    if caller.leads() && terminal_of(caller.session).is_none() && terminal.control().session == 0 {
        set_owner(terminal, caller.session, caller.group);
    }
}

/// TIOCSCTTY; `steal`: from another session, which only root may.
pub fn take(terminal: &Arc<Terminal>, readable: bool, steal: bool) -> Result<()> {
    let caller = caller();
    let owner = terminal.control().session;
    if caller.leads() && owner == caller.session {
        return Ok(());
    }
    if !caller.leads() || terminal_of(caller.session).is_some() {
        return Err(Errno::EPERM);
    }
    if (owner != 0 && !(steal && caller.root)) || !(readable || caller.root) {
        return Err(Errno::EPERM);
    }
    set_owner(terminal, caller.session, caller.group);
    Ok(())
}

/// TIOCNOTTY: of a leader, the whole session loses it.
pub fn give_up(terminal: &Arc<Terminal>) -> Result<()> {
    let caller = caller();
    if !controls(terminal, &caller) {
        return Err(Errno::ENOTTY);
    }
    if !caller.leads() {
        if let Some(p) = processes() {
            p.detach();
        }
        return Ok(());
    }
    let group = release(caller.session);
    signal_group(group, abi::SIGHUP);
    signal_group(group, abi::SIGCONT);
    Ok(())
}

/// The session has no terminal any more; the group that was in its foreground.
fn release(session: u32) -> u32 {
    let mut sessions = SESSIONS.lock();
    let old = sessions.remove(&session);
    let group = match &old {
        Some(Holder::Terminal(terminal)) => {
            let control = terminal.control();
            terminal.set_control(Control::default());
            control.foreground
        }
        _ => 0,
    };
    drop(sessions);
    drop(old);
    group
}

/// The leader of this session has ended.
pub fn leader_ends(session: u32) {
    let left = match SESSIONS.lock().get(&session) {
        Some(Holder::HungUp { group }) => Some(*group),
        Some(Holder::Terminal(_)) => None,
        None => return,
    };
    let group = release(session);
    match left {
        Some(group) => {
            signal_group(group, abi::SIGHUP);
            signal_group(group, abi::SIGCONT);
        }
        None => signal_group(group, abi::SIGHUP),
    }
}

/// The terminal has no other end any more.
pub fn hang_up(terminal: &Terminal) {
    let session = {
        let mut sessions = SESSIONS.lock();
        let Control { session, foreground } = terminal.control();
        terminal.set_control(Control::default());
        let old = (session != 0).then(|| sessions.insert(session, Holder::HungUp { group: foreground }));
        drop(sessions);
        drop(old);
        session
    };
    if let Some(p) = processes().filter(|_| session != 0) {
        p.signal_process(session, abi::SIGHUP);
        p.signal_process(session, abi::SIGCONT);
    }
}

/// One in the background may not read, or set: its group is stopped by `signo` (SIGTTIN, SIGTTOU), and the call is made again when it
/// goes on. Nobody could let an orphaned group go on: `EIO`.
pub fn check(terminal: &Terminal, signo: u32) -> Result<()> {
    let Some(processes) = processes() else { return Ok(()) };
    let caller = processes.caller();
    let foreground = terminal.control().foreground;
    if !controls(terminal, &caller) || foreground == 0 || foreground == caller.group {
        return Ok(());
    }
    if processes.is_deaf_to(signo) {
        return if signo == abi::SIGTTIN { Err(Errno::EIO) } else { Ok(()) };
    }
    if processes.is_orphaned(caller.group) {
        return Err(Errno::EIO);
    }
    processes.signal_group(caller.group, signo);
    Err(Errno::RESTART)
}

/// TIOCSPGRP.
pub fn set_foreground(terminal: &Terminal, group: i32) -> Result<()> {
    check(terminal, abi::SIGTTOU).map_err(|e| if e == Errno::EIO { Errno::ENOTTY } else { e })?;
    let group = u32::try_from(group).map_err(|_| Errno::EINVAL)?;
    let caller = caller();
    if !controls(terminal, &caller) {
        return Err(Errno::ENOTTY);
    }
    match processes().and_then(|p| p.session_of(group)) {
        None => return Err(Errno::ESRCH),
        Some(session) if session != caller.session => return Err(Errno::EPERM),
        Some(_) => {}
    }
    let _sessions = SESSIONS.lock();
    let control = terminal.control();
    if control.session != caller.session {
        return Err(Errno::ENOTTY);
    }
    terminal.set_control(Control { foreground: group, ..control });
    Ok(())
}

/// TIOCGPGRP and TIOCGSID; `master`: asked through the other end, which need not be a controlling terminal.
pub fn ask(terminal: &Terminal, master: bool) -> Result<Control> {
    if !master && !controls(terminal, &caller()) {
        return Err(Errno::ENOTTY);
    }
    Ok(terminal.control())
}

/// Whether the terminal controls the calling process, which may then type for itself (TIOCSTI).
pub fn may_type(terminal: &Terminal) -> bool {
    let caller = caller();
    caller.root || controls(terminal, &caller)
}

/// Whether the calling process is privileged.
pub fn is_root() -> bool {
    caller().root
}

/// As whom the calling process makes files.
pub fn user() -> u32 {
    caller().user
}
