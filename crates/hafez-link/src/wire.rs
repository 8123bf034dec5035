//! Reading and writing the plain values that messages are made of.

use alloc::string::String;
use alloc::vec::Vec;

/// Why a payload is not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// It ends in the middle of a value.
    Short,
    /// Bytes are left over after the last value.
    Long,
    /// No message has this kind.
    UnknownKind(u8),
    /// A value is outside what its field allows.
    BadValue,
    /// There is no memory for it.
    NoMemory,
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Short => f.write_str("the message ends too early"),
            Self::Long => f.write_str("the message has bytes left over"),
            Self::UnknownKind(kind) => write!(f, "no message has the kind {kind}"),
            Self::BadValue => f.write_str("a value is out of range"),
            Self::NoMemory => f.write_str("no memory for the message"),
        }
    }
}

impl core::error::Error for DecodeError {}

pub(crate) struct Writer<'a>(pub &'a mut Vec<u8>);

impl Writer<'_> {
    pub fn u8(&mut self, v: u8) {
        self.0.push(v);
    }
    pub fn u16(&mut self, v: u16) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    pub fn u32(&mut self, v: u32) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    pub fn u64(&mut self, v: u64) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    pub fn bytes(&mut self, v: &[u8]) {
        // No message comes near 4 GiB: `Frames` on the other side takes at most MAX_FRAME.
        self.u32(v.len() as u32);
        self.0.extend_from_slice(v);
    }
    pub fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.u32(items.len() as u32);
        for item in items {
            each(self, item);
        }
    }
}

pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(DecodeError::Short)?;
        self.0 = tail;
        Ok(head)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.0.split_first_chunk().ok_or(DecodeError::Short)?;
        self.0 = tail;
        Ok(*head)
    }
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_le_bytes)
    }
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::BadValue),
        }
    }
    pub fn bytes(&mut self) -> Result<Vec<u8>, DecodeError> {
        let n = self.u32()? as usize;
        let from = self.take(n)?;
        let mut v = Vec::new();
        v.try_reserve_exact(n).map_err(|_| DecodeError::NoMemory)?;
        v.extend_from_slice(from);
        Ok(v)
    }
    /// Text for people: bytes that are not UTF-8 are replaced, not refused.
    pub fn text(&mut self) -> Result<String, DecodeError> {
        let n = self.u32()? as usize;
        Ok(String::from_utf8_lossy(self.take(n)?).into_owned())
    }
    /// A list whose items take at least `least` bytes each, so that a wild count cannot ask for more memory than the
    /// bytes at hand could fill.
    pub fn list<T>(
        &mut self,
        least: usize,
        mut each: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let n = self.u32()? as usize;
        if n > self.0.len() / least {
            return Err(DecodeError::Short);
        }
        let mut v = Vec::new();
        v.try_reserve_exact(n).map_err(|_| DecodeError::NoMemory)?;
        for _ in 0..n {
            v.push(each(self)?);
        }
        Ok(v)
    }
    pub fn end(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Long) }
    }
}
