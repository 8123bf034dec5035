//! The console: the terminal that `hafez` runs on.
//!
//! Outside, the host command has put its terminal in raw mode and passes bytes both ways through the port `hafez.tty`; echo,
//! line editing and Ctrl-C happen here. A thread takes keys as they come, for Ctrl-C has to work when
//! nobody reads. If standard input is no terminal, the port's input is that stream's, and the terminal has output only.

use super::{Screen, Terminal, job};
use crate::{
    drivers::console::Port,
    errno::{Errno, Result},
    fs::{dev, file::FileOps, inode::OpenMode, stdio},
    sched,
};
use alloc::{boxed::Box, sync::Arc};
use core::sync::atomic::Ordering::Relaxed;
use hafez_link::port;
use hafez_mm::lock::{Mutex, Once};
use linux_raw_sys::general as abi;

static CONSOLE: Once<Arc<Terminal>> = Once::new();
static WINDOW: Mutex<[u16; 4]> = Mutex::new([24, 80, 0, 0]);

/// Take the terminal into use, with its keys if `input`.
pub fn start(input: bool) -> Result<()> {
    let port = stdio::wait_for(port::TTY)?;
    let mut first = false;
    let terminal = CONSOLE.call_once(|| {
        first = true;
        let terminal = Terminal::new(dev::makedev(5, 1), Screen::Port(port), *WINDOW.lock());
        // What shows it outside is a terminal of today.
        terminal.line.lock().termios.c_iflag |= abi::IUTF8;
        Arc::new(terminal)
    });
    if first && input {
        port.listen().map_err(|_| Errno::EIO)?;
        let terminal = terminal.clone();
        sched::spawn("tty", Box::new(move || listen(&terminal, port)), None).map_err(|_| Errno::ENOMEM)?;
    }
    Ok(())
}

/// The thread that takes keys.
fn listen(terminal: &Terminal, port: &'static Port) {
    let mut bytes = [0; 256];
    while let Some(n) = port.read(&mut bytes, false) {
        if n == 0 {
            break;
        }
        let mut keys = &bytes[..n];
        loop {
            keys = &keys[terminal.keys(keys)..];
            if keys.is_empty() {
                break;
            }
            // As much as goes has been typed ahead: the rest waits outside.
            terminal.changed.queue().wait(|| terminal.line.lock().room() > 0);
        }
    }
    terminal.hang_up();
}

/// `/dev/console`: `ENXIO` where there is no terminal outside.
pub fn open(how: OpenMode) -> Result<Arc<dyn FileOps>> {
    // As on Linux it becomes nobody's controlling terminal just by being opened.
    CONSOLE.get().ok_or(Errno::ENXIO)?.open(OpenMode { controlling: false, ..how })
}

/// The first program's session gets it as its controlling terminal.
pub fn set_owner(session: u32, group: u32) {
    if let Some(terminal) = CONSOLE.get().filter(|t| !t.hung_up.load(Relaxed)) {
        job::set_owner(terminal, session, group);
    }
}

/// The host's terminal has this many rows and columns, and pixels of width and height.
pub fn set_window(window: [u16; 4]) {
    *WINDOW.lock() = window;
    if let Some(terminal) = CONSOLE.get() {
        terminal.resize(window);
    }
}
