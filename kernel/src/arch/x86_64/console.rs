//! Early output: bytes to port 0xE9, which QEMU's debug console prints. For the log before the control port works,
//! and for the last words of a panic.

use core::fmt::{self, Write};

const PORT: u16 = 0xE9;

/// Print the text.
pub fn write(text: &str) {
    // SAFETY: the port has the debug console behind it, or nothing.
    unsafe {
        core::arch::asm!("rep outsb", in("dx") PORT, inout("rsi") text.as_ptr() => _, inout("rcx") text.len() => _,
            options(readonly, nostack, preserves_flags));
    }
}

/// `core::fmt` to the debug console.
pub struct Out;

impl Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write(text);
        Ok(())
    }
}

/// Print a formatted line to the debug console.
#[macro_export]
macro_rules! early_println {
    ($($arg:tt)*) => {{
        use core::fmt::Write as _;
        let _ = writeln!($crate::arch::console::Out, $($arg)*);
    }};
}
