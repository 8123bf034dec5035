//! The line discipline of a terminal: what happens between the keys and the program (`termios(3)`).
//!
//! ```text
//!   keys ──► input(): signals (ISIG), CR/NL (ICRNL…), erase/kill (ICANON), echo ──► line being edited ─ newline ─► lines to read
//!                                                                                  (not ICANON: bytes to read at once)
//!   program ──► output(): NL becomes CR NL (OPOST, ONLCR) ──► screen
//! ```
//!
//! It is a plain value: no lock, no sleep. What it wants echoed or signalled it hands back; the terminal does it.

use alloc::{collections::VecDeque, vec::Vec};
use linux_raw_sys::general as abi;
pub use linux_raw_sys::general::termios2 as Termios;

/// The longest line, and the most that waits to be read, as on Linux: further keys are dropped with a bell.
const MAX_INPUT: usize = 4095;

/// What keys can send to the foreground processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeySignal {
    Interrupt,
    Quit,
    Stop,
}

/// What `input` leads to.
#[derive(Default)]
pub struct Reaction {
    pub echo: Vec<u8>,
    pub signals: Vec<KeySignal>,
}

/// See the module.
pub struct Line {
    pub termios: Termios,
    /// Being edited.
    edit: Vec<u8>,
    /// To be read.
    ready: VecDeque<u8>,
    /// In canonical mode: the lengths of the lines in `ready`. 0 is an end of file.
    lines: VecDeque<usize>,
    /// The next key is taken as it is (VLNEXT).
    literal: bool,
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

impl Line {
    pub fn new() -> Line {
        Line {
            termios: fresh(),
            edit: Vec::new(),
            ready: VecDeque::new(),
            lines: VecDeque::new(),
            literal: false,
        }
    }

    fn local(&self, flag: u32) -> bool {
        self.termios.c_lflag & flag != 0
    }
    fn is_key(&self, key: u32, byte: u8) -> bool {
        // 0 is _POSIX_VDISABLE.
        byte != 0 && self.termios.c_cc[key as usize] == byte
    }

    /// Set the attributes; going into or out of canonical mode takes what was typed along.
    pub fn set(&mut self, new: Termios) {
        let was = self.local(abi::ICANON);
        self.termios = new;
        match (was, self.local(abi::ICANON)) {
            (true, false) => {
                self.ready.extend(self.edit.drain(..));
                self.lines.clear();
            }
            (false, true) if !self.ready.is_empty() => self.lines.push_back(self.ready.len()),
            _ => {}
        }
    }

    /// Keys were pressed.
    pub fn input(&mut self, bytes: &[u8]) -> Reaction {
        let mut reaction = Reaction::default();
        for byte in bytes {
            self.key(*byte, &mut reaction);
        }
        reaction
    }

    fn key(&mut self, byte: u8, to: &mut Reaction) {
        let flags = self.termios.c_iflag;
        let byte = if flags & abi::ISTRIP != 0 { byte & 0x7f } else { byte };
        if core::mem::take(&mut self.literal) {
            return self.take(byte, to);
        }
        if self.local(abi::ISIG) && self.signal(byte, to) {
            return;
        }
        let byte = match byte {
            b'\r' if flags & abi::IGNCR != 0 => return,
            b'\r' if flags & abi::ICRNL != 0 => b'\n',
            b'\n' if flags & abi::INLCR != 0 => b'\r',
            other => other,
        };
        if self.local(abi::ICANON) { self.edit_key(byte, to) } else { self.take(byte, to) }
    }

    fn signal(&mut self, byte: u8, to: &mut Reaction) -> bool {
        let signal = if self.is_key(abi::VINTR, byte) {
            KeySignal::Interrupt
        } else if self.is_key(abi::VQUIT, byte) {
            KeySignal::Quit
        } else if self.is_key(abi::VSUSP, byte) {
            KeySignal::Stop
        } else {
            return false;
        };
        if !self.local(abi::NOFLSH) {
            self.flush();
        }
        self.echo(byte, to);
        to.signals.push(signal);
        true
    }

    fn edit_key(&mut self, byte: u8, to: &mut Reaction) {
        if self.is_key(abi::VERASE, byte) {
            self.erase(to);
        } else if self.is_key(abi::VKILL, byte) {
            while !self.edit.is_empty() {
                self.erase(to);
            }
        } else if self.local(abi::IEXTEN) && self.is_key(abi::VWERASE, byte) {
            while self.edit.last().is_some_and(u8::is_ascii_whitespace) {
                self.erase(to);
            }
            while self.edit.last().is_some_and(|b| !b.is_ascii_whitespace()) {
                self.erase(to);
            }
        } else if self.local(abi::IEXTEN) && self.is_key(abi::VLNEXT, byte) {
            self.literal = true;
        } else if self.local(abi::IEXTEN) && self.is_key(abi::VREPRINT, byte) {
            to.echo.push(b'\n');
            to.echo.extend_from_slice(&self.edit);
        } else if self.is_key(abi::VEOF, byte) {
            self.end_line();
        } else {
            let ends = byte == b'\n' || self.is_key(abi::VEOL, byte) || self.is_key(abi::VEOL2, byte);
            if self.edit.len() >= MAX_INPUT && !ends {
                to.echo.push(7);
                return;
            }
            self.edit.push(byte);
            self.echo(byte, to);
            if ends {
                self.end_line();
            }
        }
    }

    /// Take a byte with no meaning of its own.
    fn take(&mut self, byte: u8, to: &mut Reaction) {
        self.echo(byte, to);
        if self.local(abi::ICANON) {
            self.edit.push(byte);
        } else if self.ready.len() < MAX_INPUT {
            self.ready.push_back(byte);
        }
    }

    fn end_line(&mut self) {
        if self.ready.len() + self.edit.len() > 2 * MAX_INPUT {
            self.edit.clear();
            return;
        }
        self.lines.push_back(self.edit.len());
        self.ready.extend(self.edit.drain(..));
    }

    /// Take the last character back, a whole one if it is UTF-8.
    fn erase(&mut self, to: &mut Reaction) {
        let Some(mut last) = self.edit.pop() else { return };
        while self.termios.c_iflag & abi::IUTF8 != 0 && last & 0xc0 == 0x80 {
            match self.edit.pop() {
                Some(byte) => last = byte,
                None => break,
            }
        }
        if !self.local(abi::ECHO) || !self.local(abi::ECHOE) {
            return;
        }
        let columns = if last < 32 && self.local(abi::ECHOCTL) { 2 } else { 1 };
        for _ in 0..columns {
            to.echo.extend_from_slice(b"\x08 \x08");
        }
    }

    fn echo(&self, byte: u8, to: &mut Reaction) {
        let newline = byte == b'\n';
        if !(self.local(abi::ECHO) || newline && self.local(abi::ECHONL) && self.local(abi::ICANON)) {
            return;
        }
        if (byte < 32 || byte == 127) && self.local(abi::ECHOCTL) && !matches!(byte, b'\n' | b'\t') {
            to.echo.extend_from_slice(&[b'^', byte ^ 0x40]);
        } else {
            to.echo.push(byte);
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
        if self.local(abi::ICANON) { self.lines.front().copied().unwrap_or(0) } else { self.ready.len() }
    }

    /// Whether a read would have something to return: a line (or end of file), or VMIN bytes.
    pub fn readable(&self) -> bool {
        if self.local(abi::ICANON) {
            !self.lines.is_empty()
        } else {
            self.ready.len() >= (self.termios.c_cc[abi::VMIN as usize] as usize).max(1)
        }
    }

    /// Bytes for a read of at most `most`: one line, or what is there. Only when `readable`, or after a timeout.
    pub fn read(&mut self, most: usize) -> Vec<u8> {
        if !self.local(abi::ICANON) {
            let n = most.min(self.ready.len());
            return self.ready.drain(..n).collect();
        }
        let Some(left) = self.lines.front_mut() else { return Vec::new() };
        let n = most.min(*left);
        *left -= n;
        if *left == 0 {
            self.lines.pop_front();
        }
        self.ready.drain(..n).collect()
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

    /// What the screen is to get for these bytes of a program's, or of an echo.
    pub fn output(&self, bytes: &[u8], screen: &mut Vec<u8>) {
        let flags = self.termios.c_oflag;
        if flags & abi::OPOST == 0 {
            screen.extend_from_slice(bytes);
            return;
        }
        for byte in bytes {
            match byte {
                b'\n' if flags & abi::ONLCR != 0 => screen.extend_from_slice(b"\r\n"),
                b'\r' if flags & abi::OCRNL != 0 => screen.push(b'\n'),
                other => screen.push(*other),
            }
        }
    }
}
