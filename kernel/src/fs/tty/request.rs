//! What can be asked of a terminal and set on it (`ioctl_tty(2)`), from either end.

use super::{Screen, Terminal, job, line::Termios, pty};
use crate::{
    arch::user,
    errno::{Errno, Result},
};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::{general as abi, ioctl};

/// Bytes of `struct termios`, `struct termios2` and the old `struct termio`.
const TERMIOS: usize = 36;
const TERMIOS2: usize = 44;
const TERMIO: usize = 18;
/// Control characters in a `struct termio`.
const TERMIO_KEYS: usize = 8;

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Program { readable: bool },
    Master,
}

/// The requests that both ends know.
pub fn serve(terminal: &Arc<Terminal>, code: u32, at: u64, end: End) -> Result<usize> {
    let master = end == End::Master;
    match code {
        ioctl::TCGETS => put_termios(at, &settings(terminal), TERMIOS)?,
        ioctl::TCGETS2 => put_termios(at, &settings(terminal), TERMIOS2)?,
        ioctl::TCGETA => put_termio(at, &settings(terminal))?,
        ioctl::TCSETS | ioctl::TCSETSW => set(terminal, at, TERMIOS, false)?,
        ioctl::TCSETSF => set(terminal, at, TERMIOS, true)?,
        ioctl::TCSETS2 | ioctl::TCSETSW2 => set(terminal, at, TERMIOS2, false)?,
        ioctl::TCSETSF2 => set(terminal, at, TERMIOS2, true)?,
        ioctl::TCSETA | ioctl::TCSETAW => set(terminal, at, TERMIO, false)?,
        ioctl::TCSETAF => set(terminal, at, TERMIO, true)?,
        ioctl::TIOCGWINSZ => {
            let window = *terminal.window.lock();
            user::copy_to(at, &words(window))?
        }
        ioctl::TIOCSWINSZ => {
            let mut b = [0; 8];
            user::copy_from(&mut b, at)?;
            let word = |i: usize| u16::from_ne_bytes([b[2 * i], b[2 * i + 1]]);
            terminal.resize([word(0), word(1), word(2), word(3)]);
        }
        ioctl::TIOCGPGRP => user::write_u32(at, job::ask(terminal, master)?.foreground)?,
        ioctl::TIOCSPGRP => {
            // The number counts only for one who may set it at all.
            let group = user::read_u32(at);
            job::set_foreground(terminal, group? as i32)?
        }
        ioctl::TIOCGSID => match job::ask(terminal, master)?.session {
            0 => return Err(Errno::ENOTTY),
            session => user::write_u32(at, session)?,
        },
        ioctl::TIOCSCTTY => match end {
            End::Program { readable } => job::take(terminal, readable, at == 1)?,
            End::Master => return Err(Errno::EPERM),
        },
        ioctl::TIOCNOTTY if master => return Err(Errno::ENOTTY),
        ioctl::TIOCNOTTY => job::give_up(terminal)?,
        ioctl::FIONREAD => {
            let n = match (&terminal.screen, end) {
                (Screen::Pair(queue), End::Master) => queue.len(),
                _ => terminal.line.lock().available(),
            };
            user::write_u32(at, n as u32)?
        }
        // Output does not stay here: it has been sent, or stands in the master's queue.
        ioctl::TIOCOUTQ => user::write_u32(at, 0)?,
        ioctl::TCFLSH => flush(terminal, at as u32, master)?,
        ioctl::TCXONC => flow(terminal, at as u32)?,
        ioctl::TCSBRK | ioctl::TCSBRKP | ioctl::TIOCSBRK | ioctl::TIOCCBRK => {
            job::check(terminal, abi::SIGTTOU)?
        }
        ioctl::TIOCEXCL => terminal.exclusive.store(true, Relaxed),
        ioctl::TIOCNXCL => terminal.exclusive.store(false, Relaxed),
        ioctl::TIOCGEXCL => user::write_u32(at, terminal.exclusive.load(Relaxed) as u32)?,
        ioctl::TIOCGETD => user::write_u32(at, 0)?,
        // N_TTY is the only line discipline.
        ioctl::TIOCSETD if user::read_u32(at)? == 0 => {}
        ioctl::TIOCSETD => return Err(Errno::EINVAL),
        ioctl::TIOCGDEV => user::write_u32(at, terminal.device as u32)?,
        ioctl::TIOCSTI if !job::may_type(terminal) => return Err(Errno::EPERM),
        ioctl::TIOCSTI => {
            let mut key = [0];
            user::copy_from(&mut key, at)?;
            terminal.keys(&key);
        }
        ioctl::TIOCVHANGUP if !job::is_root() => return Err(Errno::EPERM),
        ioctl::TIOCVHANGUP => terminal.hang_up(),
        _ => return Err(Errno::ENOTTY),
    }
    Ok(0)
}

fn settings(terminal: &Terminal) -> Termios {
    terminal.line.lock().termios
}

/// TCFLSH: what was typed and not read, what was written and not taken.
fn flush(terminal: &Terminal, which: u32, master: bool) -> Result<()> {
    if which > abi::TCIOFLUSH {
        return Err(Errno::EINVAL);
    }
    job::check(terminal, abi::SIGTTOU)?;
    // Seen from the master, input is what the program has written.
    let (typed, written) = match which {
        abi::TCIFLUSH => (!master, master),
        abi::TCOFLUSH => (master, !master),
        _ => (true, true),
    };
    if typed {
        terminal.line.lock().flush();
        terminal.report(pty::PKT_FLUSHREAD);
    }
    if written {
        terminal.drop_output();
    }
    terminal.changed.notify();
    Ok(())
}

/// TCXONC: stop output or let it go on; send a stop or start key.
fn flow(terminal: &Terminal, what: u32) -> Result<()> {
    job::check(terminal, abi::SIGTTOU)?;
    let key = |index: u32| terminal.line.lock().termios.c_cc[index as usize];
    match what {
        abi::TCOOFF => terminal.stop_output(),
        abi::TCOON => terminal.start_output(),
        abi::TCIOFF | abi::TCION => {
            let key = key(if what == abi::TCIOFF { abi::VSTOP } else { abi::VSTART });
            if key != 0 {
                terminal.show(&[key], true)?;
            }
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

fn set(terminal: &Terminal, at: u64, len: usize, flush: bool) -> Result<()> {
    job::check(terminal, abi::SIGTTOU)?;
    let mut b = [0; TERMIOS2];
    user::copy_from(&mut b[..len], at)?;
    let word = |i: usize| u32::from_ne_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
    let half = |i: usize| u16::from_ne_bytes([b[i], b[i + 1]]) as u32;
    let mut line = terminal.line.lock();
    let old = line.termios;
    let mut new = old;
    if len == TERMIO {
        let low = |old: u32, i: usize| old & 0xffff_0000 | half(i);
        new.c_iflag = low(old.c_iflag, 0);
        new.c_oflag = low(old.c_oflag, 2);
        new.c_cflag = low(old.c_cflag, 4);
        new.c_lflag = low(old.c_lflag, 6);
        new.c_cc[..TERMIO_KEYS].copy_from_slice(&b[9..9 + TERMIO_KEYS]);
    } else {
        (new.c_iflag, new.c_oflag, new.c_cflag, new.c_lflag) = (word(0), word(4), word(8), word(12));
        new.c_cc.copy_from_slice(&b[17..36]);
    }
    if len == TERMIOS2 {
        (new.c_ispeed, new.c_ospeed) = (word(36), word(40));
    }
    if !matches!(terminal.screen, Screen::Port(_)) {
        // A pair has eight bits and no parity, and says so.
        new.c_cflag = new.c_cflag & !(abi::CSIZE | abi::PARENB) | abi::CS8 | abi::CREAD;
    }
    if flush {
        line.flush();
    }
    line.set(new);
    drop(line);
    follow_flow_keys(terminal, &old, &new);
    terminal.changed.notify();
    if let Screen::Pair(queue) = &terminal.screen {
        queue.changed.notify();
    }
    Ok(())
}

/// Output that a key has stopped goes on when keys can no longer start it; a master in packet mode hears whether
/// the usual keys do it.
fn follow_flow_keys(terminal: &Terminal, old: &Termios, new: &Termios) {
    let keys = |t: &Termios| {
        t.c_iflag & abi::IXON != 0 && t.c_cc[abi::VSTOP as usize] == 19 && t.c_cc[abi::VSTART as usize] == 17
    };
    if old.c_iflag & abi::IXON != 0 && new.c_iflag & abi::IXON == 0 {
        terminal.start_output();
    }
    match (keys(old), keys(new)) {
        (true, false) => terminal.report(pty::PKT_NOSTOP),
        (false, true) => terminal.report(pty::PKT_DOSTOP),
        _ => {}
    }
}

fn put_termios(at: u64, t: &Termios, len: usize) -> Result<()> {
    let mut b = [0; TERMIOS2];
    let words =
        [(0, t.c_iflag), (4, t.c_oflag), (8, t.c_cflag), (12, t.c_lflag), (36, t.c_ispeed), (40, t.c_ospeed)];
    for (i, word) in words {
        b[i..i + 4].copy_from_slice(&word.to_ne_bytes());
    }
    b[16] = t.c_line;
    b[17..36].copy_from_slice(&t.c_cc);
    user::copy_to(at, &b[..len])?;
    Ok(())
}

fn put_termio(at: u64, t: &Termios) -> Result<()> {
    let mut b = [0; TERMIO];
    for (i, word) in [t.c_iflag, t.c_oflag, t.c_cflag, t.c_lflag].into_iter().enumerate() {
        b[2 * i..2 * i + 2].copy_from_slice(&(word as u16).to_ne_bytes());
    }
    b[8] = t.c_line;
    b[9..9 + TERMIO_KEYS].copy_from_slice(&t.c_cc[..TERMIO_KEYS]);
    user::copy_to(at, &b)?;
    Ok(())
}

fn words(window: [u16; 4]) -> [u8; 8] {
    let mut b = [0; 8];
    for (i, w) in window.iter().enumerate() {
        b[2 * i..2 * i + 2].copy_from_slice(&w.to_ne_bytes());
    }
    b
}
