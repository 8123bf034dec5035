//! Moving the program's bytes, one thread for each direction of each port.
//!
//! A pump reads only when it can write: sockets and pipes do the flow control, so a reader that does not read stops the program
//! inside, as it would outside. Nothing is looked at or changed on the way.

use super::event::Event;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::{Errno, read, write};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

/// Bytes moved at a time: more than a socket holds by default would not help.
const CHUNK: usize = 64 << 10;

/// From the guest's `port` to one of our own descriptors, to the end. When nobody reads there any more, the port is
/// closed, which the program inside learns as it would from a pipe. Other errors are for the user to know.
pub fn out(
    name: &'static str,
    port: UnixStream,
    to: BorrowedFd<'static>,
    events: Sender<Event>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = match read(&port, &mut buffer) {
                Ok(0) | Err(Errno::CONNRESET) => return,
                Ok(n) => n,
                Err(Errno::INTR) => continue,
                Err(_) => return,
            };
            if let Err(error) = write_all(to, &buffer[..n]) {
                if error != Errno::PIPE {
                    let _ = events.send(Event::OutputFailed { name, error: error.into() });
                }
                return;
            }
        }
    })
}

/// Our standard input to the guest, to its end; then how many bytes that were.
pub fn input(from: BorrowedFd<'static>, port: UnixStream, events: Sender<Event>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        let mut total = 0;
        loop {
            match read(from, &mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    // The machine is gone: nobody needs the rest, nor its length.
                    if write_all(&port, &buffer[..n]).is_err() {
                        return;
                    }
                    total += n as u64;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    // Somebody set the descriptor to return at once; wait for it here instead.
                    let mut fds = [rustix::event::PollFd::new(&from, rustix::event::PollFlags::IN)];
                    let _ = rustix::event::poll(&mut fds, None);
                }
                Err(error) => {
                    let _ = events.send(Event::InputFailed(error.into()));
                    break;
                }
            }
        }
        let _ = events.send(Event::InputEnded { total });
    });
}

/// Reads a port whose bytes have nowhere to go, to the end.
pub fn discard(mut port: UnixStream) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut port, &mut std::io::sink());
    })
}

/// Everything that comes, kept up to a bound: the end is what matters.
pub fn collect(mut from: impl Read + Send + 'static, bound: usize, show: bool) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            if show {
                let _ = write_all(rustix::stdio::stderr(), &buffer[..n]);
            }
            kept.extend_from_slice(&buffer[..n]);
            if kept.len() > 2 * bound {
                kept.drain(..kept.len() - bound);
            }
        }
        kept
    })
}

fn write_all(to: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match write(&to, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [rustix::event::PollFd::new(&to, rustix::event::PollFlags::OUT)];
                rustix::event::poll(&mut fds, None)?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
