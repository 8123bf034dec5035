//! Cutting the byte stream into frames.

use crate::wire::DecodeError;
use alloc::vec::Vec;

/// Bytes before the payload: the length (`u32`) and the kind (`u8`).
pub const HEADER: usize = 5;

/// The longest frame after its length field, bytes. Arguments and environment are the only long things; Linux allows 2 MiB of
/// them by default, and this leaves as much again.
pub const MAX_FRAME: usize = 4 << 20;

/// The header of a frame, for a sender that has no heap (a panicking kernel): send this, then `payload` bytes.
pub const fn header(kind: u8, payload: usize) -> [u8; HEADER] {
    let n = (payload as u32 + 1).to_le_bytes();
    [n[0], n[1], n[2], n[3], kind]
}

/// Why a stream cannot be read on. There is no way to find the next frame after any of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// A frame claims this many bytes: none, or more than [`MAX_FRAME`].
    BadLength(u32),
    /// There is no memory to collect it.
    NoMemory,
}

impl core::fmt::Display for FrameError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::BadLength(n) => write!(f, "a frame of {n} bytes on the control port"),
            Self::NoMemory => f.write_str("no memory for a frame of the control port"),
        }
    }
}

impl core::error::Error for FrameError {}

impl From<FrameError> for DecodeError {
    fn from(e: FrameError) -> Self {
        match e {
            FrameError::BadLength(_) => Self::BadValue,
            FrameError::NoMemory => Self::NoMemory,
        }
    }
}

/// Collects bytes as they arrive and yields whole frames.
///
/// ```
/// # use hafez_link::*;
/// let mut frames = Frames::new();
/// let mut bytes = Vec::new();
/// ToGuest::Signal(2).encode(&mut bytes);
/// frames.feed(&bytes)?;
/// let (kind, payload) = frames.next()?.unwrap();
/// assert_eq!(ToGuest::decode(kind, &payload), Ok(ToGuest::Signal(2)));
/// # Ok::<(), FrameError>(())
/// ```
#[derive(Default)]
pub struct Frames {
    bytes: Vec<u8>,
    at: usize,
}

impl Frames {
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), at: 0 }
    }

    /// Takes bytes as they came from the port.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.try_reserve(bytes.len()).map_err(|_| FrameError::NoMemory)?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole frame: its kind and payload.
    #[expect(clippy::should_implement_trait, reason = "an iterator ends; this one waits for bytes")]
    pub fn next(&mut self) -> Result<Option<(u8, Vec<u8>)>, FrameError> {
        let rest = &self.bytes[self.at..];
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let n = u32::from_le_bytes(*length);
        if n == 0 || n as usize > MAX_FRAME {
            return Err(FrameError::BadLength(n));
        }
        let Some(frame) = rest.get(..n as usize) else { return Ok(None) };
        let mut payload = Vec::new();
        payload.try_reserve_exact(frame.len() - 1).map_err(|_| FrameError::NoMemory)?;
        payload.extend_from_slice(&frame[1..]);
        let kind = frame[0];
        self.at += 4 + n as usize;
        if self.at == self.bytes.len() {
            // The one long frame (`Start`) should not keep its buffer for the rest of a small machine's life.
            self.bytes = Vec::new();
            self.at = 0;
        }
        Ok(Some((kind, payload)))
    }

    /// Whether a frame is half received.
    pub fn pending(&self) -> bool {
        self.at < self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ToGuest, WindowSize};
    use alloc::vec;

    #[test]
    fn frames_survive_any_cut() {
        let messages = [
            ToGuest::Signal(15),
            ToGuest::StdinEnd { total: u64::MAX },
            ToGuest::WindowSize(WindowSize { rows: 24, cols: 80, width: 0, height: 0 }),
        ];
        let mut bytes = vec![];
        for m in &messages {
            m.encode(&mut bytes);
        }
        for step in 1..=bytes.len() {
            let mut frames = Frames::new();
            let mut seen = vec![];
            for piece in bytes.chunks(step) {
                frames.feed(piece).unwrap();
                while let Some((kind, payload)) = frames.next().unwrap() {
                    seen.push(ToGuest::decode(kind, &payload).unwrap());
                }
            }
            assert_eq!(seen, messages);
            assert!(!frames.pending());
        }
    }

    #[test]
    fn lengths_out_of_bounds_are_refused() {
        for n in [0, MAX_FRAME as u32 + 1, u32::MAX] {
            let mut frames = Frames::new();
            frames.feed(&n.to_le_bytes()).unwrap();
            assert_eq!(frames.next(), Err(FrameError::BadLength(n)));
        }
    }

    #[test]
    fn a_heapless_header_is_the_same_frame() {
        let text = b"at 0xffffffff80100000";
        let mut frames = Frames::new();
        let mut bytes = header(crate::KIND_PANIC, text.len()).to_vec();
        bytes.extend_from_slice(text);
        frames.feed(&bytes).unwrap();
        let (kind, payload) = frames.next().unwrap().unwrap();
        let expected = crate::ToHost::Panic { text: "at 0xffffffff80100000".into() };
        assert_eq!(crate::ToHost::decode(kind, &payload), Ok(expected));
    }
}
