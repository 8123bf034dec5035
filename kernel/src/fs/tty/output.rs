//! Output processing: what the screen gets for the bytes of a program, or of an echo (`termios(3)`, OPOST and after).
//!
//! The cursor's column is kept because some of it depends on that: where a tab leads, whether a carriage return is
//! needed, what erasing a tab takes back.

use super::line::Line;
use alloc::vec::Vec;
use linux_raw_sys::general as abi;

/// Where the cursor stands, as far as output processing knows.
#[derive(Default, Clone, Copy)]
pub struct Columns(usize);

impl Columns {
    pub fn now(self) -> usize {
        self.0
    }
}

impl Line {
    /// Process `bytes` and add what comes of them to `screen`.
    pub fn output(&mut self, bytes: &[u8], screen: &mut Vec<u8>) {
        if self.termios.c_oflag & abi::OPOST == 0 {
            screen.extend_from_slice(bytes);
            return;
        }
        for byte in bytes {
            self.output_byte(*byte, screen);
        }
    }

    fn output_byte(&mut self, byte: u8, screen: &mut Vec<u8>) {
        let has = |flag: u32| self.termios.c_oflag & flag != 0;
        let column = &mut self.columns.0;
        match byte {
            b'\n' if has(abi::ONLCR) => {
                *column = 0;
                screen.extend_from_slice(b"\r\n");
            }
            b'\n' => {
                if has(abi::ONLRET) {
                    *column = 0;
                }
                screen.push(b'\n');
            }
            b'\r' if has(abi::ONOCR) && *column == 0 => {}
            b'\r' if has(abi::OCRNL) => {
                if has(abi::ONLRET) {
                    *column = 0;
                }
                screen.push(b'\n');
            }
            b'\r' => {
                *column = 0;
                screen.push(b'\r');
            }
            b'\t' => {
                let spaces = 8 - (*column & 7);
                *column += spaces;
                if self.termios.c_oflag & abi::TABDLY == abi::XTABS {
                    screen.extend(core::iter::repeat_n(b' ', spaces));
                } else {
                    screen.push(b'\t');
                }
            }
            8 => {
                *column = column.saturating_sub(1);
                screen.push(8);
            }
            other => {
                let inside = self.termios.c_iflag & abi::IUTF8 != 0 && other & 0xc0 == 0x80;
                if other >= 32 && other != 127 && !inside {
                    *column += 1;
                }
                screen.push(if has(abi::OLCUC) { other.to_ascii_uppercase() } else { other });
            }
        }
    }
}
