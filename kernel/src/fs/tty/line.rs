//! The line discipline of a terminal: what happens between the keys and the program (`termios(3)`).
//!
//! ```text
//!   keys ──► input(): signals (ISIG), stop and start (IXON), CR/NL (ICRNL…)
//!              ├─ ICANON: editing (erase, kill, …), echo ──► line being edited ─ newline ─► lines to read
//!              └─ else: bytes to read at once
//!   program ──► output(): NL becomes CR NL (OPOST, ONLCR), tabs, columns (output.rs) ──► screen
//! ```
//!
//! It is a plain value: no lock, no sleep. What it wants echoed it hands back, and at a key that means more than
//! itself (Ctrl-C, Ctrl-S) it stops and says so; the terminal acts and goes on with the next key.

use super::output::Columns;
use alloc::{collections::VecDeque, vec::Vec};
use linux_raw_sys::general as abi;
pub use linux_raw_sys::general::termios2 as Termios;

/// The longest line, and the most that waits to be read, as on Linux.
const MAX_INPUT: usize = 4095;

/// A key that the terminal must act on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// To the foreground processes; with `flush` what was typed and what was written so far is forgotten.
    Signal { signo: u32, flush: bool },
    /// Output stops.
    Stop,
    /// Output goes on.
    Start,
}

/// See the module.
pub struct Line {
    pub termios: Termios,
    pub(super) columns: Columns,
    /// Being edited.
    edit: Vec<u8>,
    /// The column where that began.
    edit_column: usize,
    /// To be read.
    ready: VecDeque<u8>,
    /// In canonical mode: the lengths of the lines in `ready`. 0 is an end of file.
    lines: VecDeque<usize>,
    /// The next key is taken as it is (VLNEXT).
    literal: bool,
    /// Output is stopped (Ctrl-S, `tcflow`).
    pub stopped: bool,
}

/// The settings of a fresh Linux terminal.
fn fresh() -> Termios {
    let mut c_cc = [0; 19];
    let keys = [
        (abi::VINTR, 3),
        (abi::VQUIT, 28),
        (abi::VERASE, 127),
        (abi::VKILL, 21),
        (abi::VEOF, 4),
        (abi::VMIN, 1),
        (abi::VSTART, 17),
        (abi::VSTOP, 19),
        (abi::VSUSP, 26),
        (abi::VREPRINT, 18),
        (abi::VDISCARD, 15),
        (abi::VWERASE, 23),
        (abi::VLNEXT, 22),
    ];
    for (index, key) in keys {
        c_cc[index as usize] = key;
    }
    Termios {
        c_iflag: abi::ICRNL | abi::IXON,
        c_oflag: abi::OPOST | abi::ONLCR,
        c_cflag: abi::B38400 | abi::CS8 | abi::CREAD,
        c_lflag: abi::ISIG
            | abi::ICANON
            | abi::ECHO
            | abi::ECHOE
            | abi::ECHOK
            | abi::ECHOCTL
            | abi::ECHOKE
            | abi::IEXTEN,
        c_line: 0,
        c_cc,
        c_ispeed: 38400,
        c_ospeed: 38400,
    }
}

fn is_control(byte: u8) -> bool {
    byte < 32 || byte == 127
}

/// Whether it is a byte of a UTF-8 character that is not the first.
fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

impl Line {
    pub fn new() -> Line {
        Line {
            termios: fresh(),
            columns: Columns::default(),
            edit: Vec::new(),
            edit_column: 0,
            ready: VecDeque::new(),
            lines: VecDeque::new(),
            literal: false,
            stopped: false,
        }
    }

    pub fn local(&self, flag: u32) -> bool {
        self.termios.c_lflag & flag != 0
    }
    pub fn input_flag(&self, flag: u32) -> bool {
        self.termios.c_iflag & flag != 0
    }
    fn is_key(&self, key: u32, byte: u8) -> bool {
        // 0 is _POSIX_VDISABLE.
        byte != 0 && self.termios.c_cc[key as usize] == byte
    }

    /// Set the attributes; going into or out of canonical mode takes what was typed along.
    pub fn set(&mut self, new: Termios) {
        let was = self.local(abi::ICANON);
        self.termios = new;
        self.literal = false;
        match (was, self.local(abi::ICANON)) {
            (true, false) => {
                self.ready.extend(self.edit.drain(..));
                self.lines.clear();
            }
            (false, true) if !self.ready.is_empty() => self.lines.push_back(self.ready.len()),
            _ => {}
        }
    }

    /// How many more keys can come. A line that is too long still takes keys, and drops them: else none could end it.
    pub fn room(&self) -> usize {
        let left = MAX_INPUT.saturating_sub(self.ready.len() + self.edit.len());
        if left == 0 && self.local(abi::ICANON) && self.lines.is_empty() { usize::MAX } else { left }
    }

    /// Keys were pressed: how many of them were taken, and what the terminal is to do before the next. What is to appear
    /// on the screen is added to `echo`.
    pub fn input(&mut self, bytes: &[u8], echo: &mut Vec<u8>) -> (usize, Option<Event>) {
        for (at, byte) in bytes.iter().enumerate() {
            if self.room() == 0 {
                return (at, None);
            }
            if let Some(event) = self.key(*byte, echo) {
                return (at + 1, Some(event));
            }
        }
        (bytes.len(), None)
    }

    fn key(&mut self, byte: u8, to: &mut Vec<u8>) -> Option<Event> {
        let byte = if self.input_flag(abi::ISTRIP) { byte & 0x7f } else { byte };
        let byte = match byte.to_ascii_lowercase() {
            lower if self.input_flag(abi::IUCLC) && self.local(abi::IEXTEN) => lower,
            _ => byte,
        };
        if core::mem::take(&mut self.literal) {
            self.take(byte, to);
            return None;
        }
        if let Some(event) = self.flow(byte).or_else(|| self.signal(byte)) {
            return Some(event);
        }
        // Any key lets stopped output go on (IXANY), and counts itself too.
        let restart = self.stopped && self.input_flag(abi::IXON) && self.input_flag(abi::IXANY);
        match byte {
            b'\r' if self.input_flag(abi::IGNCR) => {}
            b'\r' if self.input_flag(abi::ICRNL) => self.plain(b'\n', to),
            b'\n' if self.input_flag(abi::INLCR) => self.plain(b'\r', to),
            other => self.plain(other, to),
        }
        restart.then_some(Event::Start)
    }

    fn flow(&mut self, byte: u8) -> Option<Event> {
        if !self.input_flag(abi::IXON) {
            None
        } else if self.is_key(abi::VSTART, byte) {
            Some(Event::Start)
        } else if self.is_key(abi::VSTOP, byte) {
            Some(Event::Stop)
        } else {
            None
        }
    }

    fn signal(&mut self, byte: u8) -> Option<Event> {
        if !self.local(abi::ISIG) {
            return None;
        }
        let keys = [(abi::VINTR, abi::SIGINT), (abi::VQUIT, abi::SIGQUIT), (abi::VSUSP, abi::SIGTSTP)];
        let (_, signo) = keys.into_iter().find(|(key, _)| self.is_key(*key, byte))?;
        let flush = !self.local(abi::NOFLSH);
        if flush {
            self.flush();
        }
        Some(Event::Signal { signo, flush })
    }

    /// The echo of a key that has sent a signal: it comes after what the signal has flushed.
    pub fn echo_signal(&self, signo: u32, to: &mut Vec<u8>) {
        let key = match signo {
            abi::SIGINT => abi::VINTR,
            abi::SIGQUIT => abi::VQUIT,
            _ => abi::VSUSP,
        };
        self.echo(self.termios.c_cc[key as usize], to);
    }

    fn plain(&mut self, byte: u8, to: &mut Vec<u8>) {
        if self.local(abi::ICANON) { self.edit_key(byte, to) } else { self.take(byte, to) }
    }

    fn edit_key(&mut self, byte: u8, to: &mut Vec<u8>) {
        let extended = self.local(abi::IEXTEN);
        if self.is_key(abi::VERASE, byte) {
            self.erase(to);
        } else if self.is_key(abi::VKILL, byte) {
            self.kill(to);
        } else if extended && self.is_key(abi::VWERASE, byte) {
            self.erase_word(to);
        } else if extended && self.is_key(abi::VLNEXT, byte) {
            self.literal = true;
            if self.local(abi::ECHO) && self.local(abi::ECHOCTL) {
                to.extend_from_slice(b"^\x08");
            }
        } else if extended && self.local(abi::ECHO) && self.is_key(abi::VREPRINT, byte) {
            self.echo(byte, to);
            to.push(b'\n');
            for byte in &self.edit {
                self.echo(*byte, to);
            }
        } else if self.is_key(abi::VEOF, byte) {
            self.end_line();
        } else {
            let end =
                byte == b'\n' || self.is_key(abi::VEOL, byte) || extended && self.is_key(abi::VEOL2, byte);
            if self.edit.len() >= MAX_INPUT && !end {
                if self.input_flag(abi::IMAXBEL) {
                    to.push(7);
                }
                return;
            }
            self.take(byte, to);
            if end {
                self.end_line();
            }
        }
    }

    /// Take a byte with no meaning of its own.
    fn take(&mut self, byte: u8, to: &mut Vec<u8>) {
        if self.edit.is_empty() {
            self.edit_column = self.columns.now();
        }
        self.echo(byte, to);
        if self.local(abi::ICANON) {
            self.edit.push(byte);
        } else {
            self.ready.push_back(byte);
        }
    }

    fn end_line(&mut self) {
        self.lines.push_back(self.edit.len());
        self.ready.extend(self.edit.drain(..));
    }

    /// Take the last character back, a whole one if it is UTF-8.
    fn erase(&mut self, to: &mut Vec<u8>) {
        let Some(last) = self.drop_last() else { return };
        if !self.local(abi::ECHO) {
            return;
        }
        if !self.local(abi::ECHOE) {
            return self.echo(self.termios.c_cc[abi::VERASE as usize], to);
        }
        self.rub_out(last, to);
    }

    fn drop_last(&mut self) -> Option<u8> {
        let mut last = self.edit.pop()?;
        while self.input_flag(abi::IUTF8) && is_continuation(last) && !self.edit.is_empty() {
            last = self.edit.pop()?;
        }
        Some(last)
    }

    /// Take a character off the screen that has just been taken off the line.
    fn rub_out(&self, last: u8, to: &mut Vec<u8>) {
        if last == b'\t' {
            let before = self.column_after_edit();
            let back = (before | 7) + 1 - before;
            to.extend(core::iter::repeat_n(8, back));
            return;
        }
        let columns = match is_control(last) {
            true if self.local(abi::ECHOCTL) => 2,
            true => 0,
            false => 1,
        };
        for _ in 0..columns {
            to.extend_from_slice(b"\x08 \x08");
        }
    }

    /// Where the cursor stands after the echo of the line as it is now.
    fn column_after_edit(&self) -> usize {
        let utf8 = self.input_flag(abi::IUTF8);
        self.edit.iter().fold(self.edit_column, |at, byte| match *byte {
            b'\t' => (at | 7) + 1,
            b if is_control(b) => at + if self.local(abi::ECHOCTL) { 2 } else { 0 },
            b if utf8 && is_continuation(b) => at,
            _ => at + 1,
        })
    }

    fn kill(&mut self, to: &mut Vec<u8>) {
        let visible = [abi::ECHO, abi::ECHOK, abi::ECHOKE, abi::ECHOE].iter().all(|f| self.local(*f));
        if visible {
            while let Some(last) = self.drop_last() {
                self.rub_out(last, to);
            }
            return;
        }
        if core::mem::take(&mut self.edit).is_empty() || !self.local(abi::ECHO) {
            return;
        }
        self.echo(self.termios.c_cc[abi::VKILL as usize], to);
        if self.local(abi::ECHOK) {
            to.push(b'\n');
        }
    }

    /// Letters and digits, and what stands between them and the cursor.
    fn erase_word(&mut self, to: &mut Vec<u8>) {
        let mut seen = false;
        while let Some(byte) = self.edit.last() {
            let of_word = byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80;
            if seen && !of_word {
                return;
            }
            seen |= of_word;
            if let Some(last) = self.drop_last()
                && self.local(abi::ECHO)
            {
                self.rub_out(last, to);
            }
        }
    }

    fn echo(&self, byte: u8, to: &mut Vec<u8>) {
        let newline = byte == b'\n';
        if !(self.local(abi::ECHO) || newline && self.local(abi::ECHONL) && self.local(abi::ICANON)) {
            return;
        }
        if is_control(byte) && self.local(abi::ECHOCTL) && !matches!(byte, b'\n' | b'\t') {
            to.extend_from_slice(&[b'^', byte ^ 0x40]);
        } else {
            to.push(byte);
        }
    }

    /// Forget what was typed and not read.
    pub fn flush(&mut self) {
        self.edit.clear();
        self.ready.clear();
        self.lines.clear();
    }

    /// Bytes that a read would find now.
    pub fn available(&self) -> usize {
        if self.local(abi::ICANON) { self.lines.iter().sum() } else { self.ready.len() }
    }

    /// Whether there is anything to return: a line (or end of file), or a byte.
    pub fn has_input(&self) -> bool {
        if self.local(abi::ICANON) { !self.lines.is_empty() } else { !self.ready.is_empty() }
    }

    /// VMIN and VTIME (in tenths of a second) where they count.
    pub fn least(&self) -> Option<(usize, u64)> {
        let cc = &self.termios.c_cc;
        (!self.local(abi::ICANON)).then(|| (cc[abi::VMIN as usize] as usize, cc[abi::VTIME as usize] as u64))
    }

    /// Whether `poll` calls it readable: VMIN counts unless time does.
    pub fn readable(&self) -> bool {
        match self.least() {
            Some((min, 0)) => self.ready.len() >= min.max(1),
            _ => self.has_input(),
        }
    }

    /// Bytes for a read of at most `most`: one line, or what is there. `None`: nothing; empty: an end of file.
    pub fn read(&mut self, most: usize) -> Option<Vec<u8>> {
        if !self.local(abi::ICANON) {
            let n = most.min(self.ready.len());
            return (n > 0).then(|| self.ready.drain(..n).collect());
        }
        let left = self.lines.front_mut()?;
        let n = most.min(*left);
        *left -= n;
        if *left == 0 {
            self.lines.pop_front();
        }
        Some(self.ready.drain(..n).collect())
    }

    /// Bytes that could not be handed over after all come back to the front.
    pub fn unread(&mut self, bytes: &[u8], line_was_over: bool) {
        for byte in bytes.iter().rev() {
            self.ready.push_front(*byte);
        }
        if self.local(abi::ICANON) && !bytes.is_empty() {
            match self.lines.front_mut() {
                Some(first) if !line_was_over => *first += bytes.len(),
                _ => self.lines.push_front(bytes.len()),
            }
        }
    }

    /// Lines that wait.
    pub fn lines(&self) -> usize {
        self.lines.len()
    }
}
