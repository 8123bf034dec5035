//! The messages themselves.

use crate::frames::header;
use crate::wire::{DecodeError, Reader, Writer};
use alloc::string::String;
use alloc::vec::Vec;

/// Everything the first program needs to know about the world outside it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Start {
    /// The program and its arguments. `argv[0]` without a slash is looked up in the `PATH` of `env`.
    pub argv: Vec<Vec<u8>>,
    /// `KEY=value` each.
    pub env: Vec<Vec<u8>>,
    /// Working directory, absolute, inside the root.
    pub cwd: Vec<u8>,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: u32,
    pub rlimits: Vec<Limit>,
    /// Whether descriptors 0, 1, 2 are terminals outside. One that is goes to the terminal port.
    pub tty: [bool; 3],
    /// Standard error is the same open file as standard output outside: both go to one port, so that their order stays.
    pub merged: bool,
    /// There is a standard input at all (not closed, not `/dev/null`); if not, reading it gives end of file at once.
    pub stdin: bool,
    pub window: WindowSize,
    /// Host name, for `uname`.
    pub hostname: Vec<u8>,
    /// Writable directories, mounted over the root in this order.
    pub mounts: Vec<Mount>,
    /// The root looks writable; what is written stays inside, and is gone at the end.
    pub overlay: bool,
    /// Wall-clock time at the moment of sending, ns since 1970.
    pub wall_ns: u64,
    /// Log each unsupported system call once.
    pub log_abi: bool,
    /// Check the memory core's invariants at every quiet point, and say so when they do not hold.
    pub audit: bool,
}

/// One `setrlimit` pair. `u64::MAX` means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// `RLIMIT_*`.
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// A writable 9p share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub tag: Vec<u8>,
    /// Where it appears, absolute.
    pub path: Vec<u8>,
}

/// `struct winsize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WindowSize {
    pub rows: u16,
    pub cols: u16,
    /// Pixels; 0 if unknown.
    pub width: u16,
    pub height: u16,
}

/// Host → guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToGuest {
    Start(Start),
    /// Someone sent `hafez` this signal: pass it to the foreground process group.
    Signal(u8),
    /// The terminal has a new size.
    WindowSize(WindowSize),
    /// Standard input ends after `total` bytes on the terminal port. It says how many, for the two ports race.
    StdinEnd {
        total: u64,
    },
}

/// How grave a log line is; the order is that of the `log` crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error = 1,
    Warn = 2,
    Info = 3,
    Debug = 4,
    Trace = 5,
}

/// Why the first program did not start. The words go ahead of it in an `Explain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartError {
    /// There is no such program (exit code 127).
    NotFound,
    /// It is there, but cannot be executed (126).
    NotExecutable,
    /// The kernel could not set it up (125).
    Failed,
}

/// How the first program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Exited(u8),
    /// Killed by this signal.
    Signalled(u8),
    NotStarted(StartError),
}

impl Ending {
    /// The exit code of `hafez`, as containers have it.
    pub const fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Signalled(signal) => 128u8.wrapping_add(signal & 0x7f),
            Self::NotStarted(StartError::NotFound) => 127,
            Self::NotStarted(StartError::NotExecutable) => 126,
            Self::NotStarted(StartError::Failed) => 125,
        }
    }
}

/// The figures of the last line. Bytes and ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// RAM that programs could have had: what the machine has, less what the kernel took at boot.
    pub usable: u64,
    /// Most that all processes held at one time, in RAM and in swap together.
    pub peak: u64,
    /// Most that they held in RAM at one time.
    pub peak_resident: u64,
    /// Faults solved without waiting for a device.
    pub minor_faults: u64,
    /// Faults that waited for a file.
    pub major_file: u64,
    /// Faults that waited for swap.
    pub major_swap: u64,
    /// Of the minor ones, those that copied a shared page.
    pub copies: u64,
    pub swapped_out: u64,
    pub swapped_in: u64,
    /// Pages of one repeated word that needed no disk, in bytes.
    pub same_filled: u64,
    /// Most swap in use at one time.
    pub peak_swap: u64,
    /// From reset to the first user instruction.
    pub boot_ns: u64,
    /// From the first user instruction to the end.
    pub run_ns: u64,
}

/// Guest → host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToHost {
    Log {
        level: Level,
        text: String,
    },
    /// Words for the user, on `hafez`'s standard error even with `-q`: why a program was killed, or did not start.
    Explain {
        text: String,
    },
    /// The first program is ready: its first instruction comes next.
    Started,
    Summary(Summary),
    /// The machine is done; it powers off after this.
    Exit(Ending),
    /// The kernel is broken. Return addresses in the text are raw; the host puts names to them.
    Panic {
        text: String,
    },
}

const START: u8 = 1;
const SIGNAL: u8 = 2;
const WINDOW_SIZE: u8 = 3;
const STDIN_END: u8 = 4;
const LOG: u8 = 65;
const EXPLAIN: u8 = 66;
const SUMMARY: u8 = 67;
const EXIT: u8 = 68;
const STARTED: u8 = 70;
/// The kind of a panic frame. Its payload is bare text, so that a kernel without a heap can send it.
pub const KIND_PANIC: u8 = 69;

/// Appends a frame whose payload `write` puts down; the length is filled in afterwards.
fn frame(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Writer<'_>)) {
    let start = out.len();
    out.extend_from_slice(&header(kind, 0));
    write(&mut Writer(out));
    let payload = out.len() - start - crate::HEADER;
    out[start..start + crate::HEADER].copy_from_slice(&header(kind, payload));
}

impl ToGuest {
    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Start(start) => frame(out, START, |w| start.write(w)),
            Self::Signal(n) => frame(out, SIGNAL, |w| w.u8(*n)),
            Self::WindowSize(size) => frame(out, WINDOW_SIZE, |w| size.write(w)),
            Self::StdinEnd { total } => frame(out, STDIN_END, |w| w.u64(*total)),
        }
    }

    /// The message in a frame that [`crate::Frames`] cut out.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader(payload);
        let message = match kind {
            START => Self::Start(Start::read(&mut r)?),
            SIGNAL => match r.u8()? {
                n @ 1..=64 => Self::Signal(n),
                _ => return Err(DecodeError::BadValue),
            },
            WINDOW_SIZE => Self::WindowSize(WindowSize::read(&mut r)?),
            STDIN_END => Self::StdinEnd { total: r.u64()? },
            other => return Err(DecodeError::UnknownKind(other)),
        };
        r.end()?;
        Ok(message)
    }
}

impl ToHost {
    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Log { level, text } => frame(out, LOG, |w| {
                w.u8(*level as u8);
                w.bytes(text.as_bytes());
            }),
            Self::Explain { text } => frame(out, EXPLAIN, |w| w.bytes(text.as_bytes())),
            Self::Started => frame(out, STARTED, |_| ()),
            Self::Summary(summary) => {
                frame(out, SUMMARY, |w| summary.values().into_iter().for_each(|v| w.u64(v)))
            }
            Self::Exit(ending) => frame(out, EXIT, |w| ending.write(w)),
            Self::Panic { text } => frame(out, KIND_PANIC, |w| w.0.extend_from_slice(text.as_bytes())),
        }
    }

    /// The message in a frame that [`crate::Frames`] cut out.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader(payload);
        let message = match kind {
            LOG => Self::Log { level: Level::read(&mut r)?, text: r.text()? },
            EXPLAIN => Self::Explain { text: r.text()? },
            STARTED => Self::Started,
            SUMMARY => Self::Summary(Summary::read(&mut r)?),
            EXIT => Self::Exit(Ending::read(&mut r)?),
            KIND_PANIC => return Ok(Self::Panic { text: String::from_utf8_lossy(payload).into_owned() }),
            other => return Err(DecodeError::UnknownKind(other)),
        };
        r.end()?;
        Ok(message)
    }
}

impl Start {
    fn write(&self, w: &mut Writer<'_>) {
        w.list(&self.argv, |w, v| w.bytes(v));
        w.list(&self.env, |w, v| w.bytes(v));
        w.bytes(&self.cwd);
        w.u32(self.uid);
        w.u32(self.gid);
        w.list(&self.groups, |w, v| w.u32(*v));
        w.u32(self.umask);
        w.list(&self.rlimits, |w, limit| {
            w.u32(limit.resource);
            w.u64(limit.soft);
            w.u64(limit.hard);
        });
        self.tty.iter().for_each(|t| w.u8(u8::from(*t)));
        w.u8(u8::from(self.merged));
        w.u8(u8::from(self.stdin));
        self.window.write(w);
        w.bytes(&self.hostname);
        w.list(&self.mounts, |w, mount| {
            w.bytes(&mount.tag);
            w.bytes(&mount.path);
        });
        w.u64(self.wall_ns);
        w.u8(u8::from(self.log_abi));
        w.u8(u8::from(self.audit));
        w.u8(u8::from(self.overlay));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let start = Self {
            argv: r.list(4, Reader::bytes)?,
            env: r.list(4, Reader::bytes)?,
            cwd: r.bytes()?,
            uid: r.u32()?,
            gid: r.u32()?,
            groups: r.list(4, Reader::u32)?,
            umask: r.u32()?,
            rlimits: r.list(20, |r| Ok(Limit { resource: r.u32()?, soft: r.u64()?, hard: r.u64()? }))?,
            tty: [r.bool()?, r.bool()?, r.bool()?],
            merged: r.bool()?,
            stdin: r.bool()?,
            window: WindowSize::read(r)?,
            hostname: r.bytes()?,
            mounts: r.list(8, |r| Ok(Mount { tag: r.bytes()?, path: r.bytes()? }))?,
            wall_ns: r.u64()?,
            log_abi: r.bool()?,
            audit: r.bool()?,
            overlay: r.bool()?,
        };
        // What follows from these would be out of the program's reach to see or mend, so they are refused here.
        let no_nul = |v: &Vec<u8>| !v.contains(&0);
        let sound = !start.argv.is_empty()
            && start.argv.iter().chain(&start.env).all(no_nul)
            && start.cwd.first() == Some(&b'/')
            && start.mounts.iter().all(|m| m.path.first() == Some(&b'/'));
        if sound { Ok(start) } else { Err(DecodeError::BadValue) }
    }
}

impl WindowSize {
    fn write(&self, w: &mut Writer<'_>) {
        [self.rows, self.cols, self.width, self.height].into_iter().for_each(|v| w.u16(v));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { rows: r.u16()?, cols: r.u16()?, width: r.u16()?, height: r.u16()? })
    }
}

impl Level {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match r.u8()? {
            1 => Self::Error,
            2 => Self::Warn,
            3 => Self::Info,
            4 => Self::Debug,
            5 => Self::Trace,
            _ => return Err(DecodeError::BadValue),
        })
    }
}

impl Ending {
    fn write(self, w: &mut Writer<'_>) {
        let (how, value) = match self {
            Self::Exited(code) => (0, code),
            Self::Signalled(signal) => (1, signal),
            Self::NotStarted(StartError::NotFound) => (2, 0),
            Self::NotStarted(StartError::NotExecutable) => (2, 1),
            Self::NotStarted(StartError::Failed) => (2, 2),
        };
        w.u8(how);
        w.u8(value);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match (r.u8()?, r.u8()?) {
            (0, code) => Self::Exited(code),
            (1, signal @ 1..=64) => Self::Signalled(signal),
            (2, 0) => Self::NotStarted(StartError::NotFound),
            (2, 1) => Self::NotStarted(StartError::NotExecutable),
            (2, 2) => Self::NotStarted(StartError::Failed),
            _ => return Err(DecodeError::BadValue),
        })
    }
}

impl Summary {
    const fn values(&self) -> [u64; 13] {
        [
            self.usable,
            self.peak,
            self.peak_resident,
            self.minor_faults,
            self.major_file,
            self.major_swap,
            self.copies,
            self.swapped_out,
            self.swapped_in,
            self.same_filled,
            self.peak_swap,
            self.boot_ns,
            self.run_ns,
        ]
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            usable: r.u64()?,
            peak: r.u64()?,
            peak_resident: r.u64()?,
            minor_faults: r.u64()?,
            major_file: r.u64()?,
            major_swap: r.u64()?,
            copies: r.u64()?,
            swapped_out: r.u64()?,
            swapped_in: r.u64()?,
            same_filled: r.u64()?,
            peak_swap: r.u64()?,
            boot_ns: r.u64()?,
            run_ns: r.u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Frames;
    use alloc::vec;

    fn start() -> Start {
        Start {
            argv: vec![b"python3".to_vec(), b"-c".to_vec(), b"print('\xff')".to_vec()],
            env: vec![b"PATH=/bin".to_vec(), b"EMPTY=".to_vec()],
            cwd: b"/home/someone".to_vec(),
            uid: 1000,
            gid: 100,
            groups: vec![4, 24, 27],
            umask: 0o22,
            rlimits: vec![Limit { resource: 3, soft: 8 << 20, hard: u64::MAX }],
            tty: [true, false, true],
            merged: true,
            stdin: true,
            window: WindowSize { rows: 50, cols: 132, width: 1, height: 2 },
            hostname: b"keeper".to_vec(),
            mounts: vec![Mount { tag: b"rw0".to_vec(), path: b"/work".to_vec() }],
            wall_ns: 1_800_000_000_000_000_000,
            log_abi: true,
            audit: false,
            overlay: true,
        }
    }

    fn all_to_guest() -> Vec<ToGuest> {
        vec![
            ToGuest::Start(start()),
            ToGuest::Signal(1),
            ToGuest::Signal(64),
            ToGuest::WindowSize(WindowSize { rows: 1, cols: 2, width: 3, height: 4 }),
            ToGuest::StdinEnd { total: 1 << 40 },
        ]
    }

    fn all_to_host() -> Vec<ToHost> {
        let summary = Summary { usable: 1, peak: 2, run_ns: 13, ..Summary::default() };
        vec![
            ToHost::Log { level: Level::Warn, text: "مَن حافظ‌ام".into() },
            ToHost::Explain { text: String::new() },
            ToHost::Started,
            ToHost::Summary(summary),
            ToHost::Exit(Ending::Exited(0)),
            ToHost::Exit(Ending::Exited(255)),
            ToHost::Exit(Ending::Signalled(9)),
            ToHost::Exit(Ending::NotStarted(StartError::NotFound)),
            ToHost::Exit(Ending::NotStarted(StartError::NotExecutable)),
            ToHost::Exit(Ending::NotStarted(StartError::Failed)),
            ToHost::Panic { text: "kernel panic\n 0: 0xffffffff80101234".into() },
        ]
    }

    fn cut(bytes: &[u8]) -> (u8, Vec<u8>) {
        let mut frames = Frames::new();
        frames.feed(bytes).unwrap();
        let frame = frames.next().unwrap().unwrap();
        assert!(!frames.pending());
        frame
    }

    #[test]
    fn every_message_comes_back_as_it_went() {
        for message in all_to_guest() {
            let mut bytes = vec![];
            message.encode(&mut bytes);
            let (kind, payload) = cut(&bytes);
            assert_eq!(ToGuest::decode(kind, &payload), Ok(message));
        }
        for message in all_to_host() {
            let mut bytes = vec![];
            message.encode(&mut bytes);
            let (kind, payload) = cut(&bytes);
            assert_eq!(ToHost::decode(kind, &payload), Ok(message));
        }
    }

    #[test]
    fn a_message_cut_short_or_grown_is_refused() {
        for message in all_to_guest() {
            let mut bytes = vec![];
            message.encode(&mut bytes);
            let (kind, mut payload) = cut(&bytes);
            for n in 0..payload.len() {
                assert!(ToGuest::decode(kind, &payload[..n]).is_err(), "{message:?} cut to {n}");
            }
            payload.push(0);
            assert_eq!(ToGuest::decode(kind, &payload), Err(DecodeError::Long));
        }
    }

    #[test]
    fn no_single_damaged_byte_does_harm() {
        let mut bytes = vec![];
        ToGuest::Start(start()).encode(&mut bytes);
        let (kind, payload) = cut(&bytes);
        for at in 0..payload.len() {
            for bit in 0..8 {
                let mut damaged = payload.clone();
                damaged[at] ^= 1 << bit;
                // Either refused, or another valid message; never a panic or a huge allocation.
                let _ = ToGuest::decode(kind, &damaged);
            }
        }
    }

    #[test]
    fn wild_counts_are_refused_before_memory_is_asked_for() {
        let payload = u32::MAX.to_le_bytes();
        assert_eq!(ToGuest::decode(START, &payload), Err(DecodeError::Short));
        assert_eq!(ToHost::decode(EXPLAIN, &payload), Err(DecodeError::Short));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        assert_eq!(ToGuest::decode(SIGNAL, &[0]), Err(DecodeError::BadValue));
        assert_eq!(ToGuest::decode(SIGNAL, &[65]), Err(DecodeError::BadValue));
        assert_eq!(ToHost::decode(EXIT, &[3, 0]), Err(DecodeError::BadValue));
        assert_eq!(ToHost::decode(EXIT, &[1, 0]), Err(DecodeError::BadValue));
        assert_eq!(ToHost::decode(LOG, &[9, 0, 0, 0, 0]), Err(DecodeError::BadValue));
        assert_eq!(ToGuest::decode(99, &[]), Err(DecodeError::UnknownKind(99)));
        for broken in [
            Start { argv: vec![], ..start() },
            Start { argv: vec![b"a\0b".to_vec()], ..start() },
            Start { cwd: b"relative".to_vec(), ..start() },
        ] {
            let mut bytes = vec![];
            ToGuest::Start(broken).encode(&mut bytes);
            let (kind, payload) = cut(&bytes);
            assert_eq!(ToGuest::decode(kind, &payload), Err(DecodeError::BadValue));
        }
    }

    #[test]
    fn exit_codes_are_those_of_containers() {
        assert_eq!(Ending::Exited(3).code(), 3);
        assert_eq!(Ending::Signalled(9).code(), 137);
        assert_eq!(Ending::NotStarted(StartError::NotFound).code(), 127);
        assert_eq!(Ending::NotStarted(StartError::NotExecutable).code(), 126);
        assert_eq!(Ending::NotStarted(StartError::Failed).code(), 125);
    }
}
