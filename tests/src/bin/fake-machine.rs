//! A stand-in for QEMU and the kernel: it takes QEMU's command line, finds the ports in it, and behaves as the "program" in the
//! `Start` message says. With it the host command is tested for what a healthy kernel never does.

use anyhow::{Context, Result, bail};
use hafez_link::{Ending, Frames, Level, Start, StartError, Summary, ToGuest, ToHost, port};
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixStream;

/// The socket that QEMU would connect to the port of this name.
fn connect(name: &str) -> Result<UnixStream> {
    let prefix = format!("socket,id={},fd=", name.replace('.', "-"));
    let number = std::env::args().find_map(|a| a.strip_prefix(&prefix)?.parse().ok());
    let number = number.with_context(|| format!("no port {name} on the command line"))?;
    // SAFETY: the command line gives each descriptor to exactly one port, this program takes each port once, and nothing else
    // here opens or owns descriptors by number.
    Ok(unsafe { UnixStream::from_raw_fd(number) })
}

struct Peer {
    control: UnixStream,
    frames: Frames,
}

impl Peer {
    fn next(&mut self) -> Result<ToGuest> {
        let mut buffer = [0; 4096];
        loop {
            if let Some((kind, payload)) = self.frames.next()? {
                return Ok(ToGuest::decode(kind, &payload)?);
            }
            match self.control.read(&mut buffer)? {
                0 => bail!("the control port ended"),
                n => self.frames.feed(&buffer[..n])?,
            }
        }
    }

    fn say(&mut self, message: &ToHost) -> Result<()> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        Ok(self.control.write_all(&bytes)?)
    }

    fn exit(&mut self, ending: Ending) -> Result<()> {
        self.say(&ToHost::Summary(Summary { peak: 1 << 20, ..Summary::default() }))?;
        self.say(&ToHost::Exit(ending))
    }
}

fn main() -> Result<()> {
    let mut peer = Peer { control: connect(port::CTL)?, frames: Frames::new() };
    let (mut tty, mut out) = (connect(port::TTY)?, connect(port::OUT)?);
    let (mut err, mut early) = (connect(port::ERR)?, connect("early")?);
    let ToGuest::Start(start) = peer.next()? else { bail!("the first message is not Start") };
    peer.say(&ToHost::Started)?;
    let argument =
        |n: usize| start.argv.get(n).map(|a| String::from_utf8_lossy(a).into_owned()).unwrap_or_default();
    match argument(0).as_str() {
        "exit" => peer.exit(Ending::Exited(argument(1).parse()?)),
        "killed" => {
            peer.say(&ToHost::Explain { text: "out of memory: it held all there was".into() })?;
            peer.exit(Ending::Signalled(9))
        }
        "absent" => peer.exit(Ending::NotStarted(StartError::NotFound)),
        "echo" => echo(&mut peer, &mut tty, &mut out, &mut err),
        "start" => {
            write!(out, "{}", describe(&start))?;
            peer.exit(Ending::Exited(0))
        }
        "signal" => {
            writeln!(out, "ready")?;
            match peer.next()? {
                ToGuest::Signal(n) => peer.exit(Ending::Signalled(n)),
                other => bail!("{other:?} instead of a signal"),
            }
        }
        "deaf" => {
            writeln!(out, "ready")?;
            loop {
                peer.next()?;
            }
        }
        // Writes until nobody reads any more, as `yes` does.
        "flood" => {
            while out.write_all(&[b'y'; 4096]).is_ok() {}
            peer.exit(Ending::Signalled(13))
        }
        "panic" => {
            writeln!(early, "early words")?;
            peer.say(&ToHost::Panic { text: "page 7 is lost\n  0x0000000000000007".into() })
        }
        "early-panic" => Ok(writeln!(early, "booting\nKERNEL PANIC: no memory\nbacktrace:")?),
        "die" => {
            eprintln!("qemu: cannot go on");
            std::process::exit(1)
        }
        "garbage" => Ok(peer.control.write_all(&[0xff; 64])?),
        "log" => {
            for level in [Level::Error, Level::Warn, Level::Info] {
                peer.say(&ToHost::Log { level, text: format!("{level:?}") })?;
            }
            peer.exit(Ending::Exited(0))
        }
        other => bail!("there is no behaviour {other}"),
    }
}

/// Standard input to standard output, its length to standard error.
fn echo(peer: &mut Peer, tty: &mut UnixStream, out: &mut UnixStream, err: &mut UnixStream) -> Result<()> {
    let reader = std::thread::spawn({
        let (mut tty, mut out) = (tty.try_clone()?, out.try_clone()?);
        move || -> Result<()> {
            let mut buffer = [0; 4096];
            while let n @ 1.. = tty.read(&mut buffer)? {
                out.write_all(&buffer[..n])?;
            }
            Ok(())
        }
    });
    let ToGuest::StdinEnd { total } = peer.next()? else { bail!("no end of input") };
    // The bytes race the message; this end of the wire is ours, so shutting it ends the reader once all are read.
    tty.shutdown(std::net::Shutdown::Read)?;
    reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    write!(err, "{total}")?;
    peer.exit(Ending::Exited(0))
}

fn describe(start: &Start) -> String {
    let text = |b: &Vec<u8>| String::from_utf8_lossy(b).into_owned();
    format!(
        "argv={:?}\nenv={:?}\ncwd={}\nuid={}\numask={:o}\ntty={:?}\nmerged={}\nstdin={}\nmounts={:?}\n",
        start.argv.iter().map(text).collect::<Vec<_>>(),
        start.env.iter().map(text).collect::<Vec<_>>(),
        text(&start.cwd),
        start.uid,
        start.umask,
        start.tty,
        start.merged,
        start.stdin,
        start.mounts.iter().map(|m| (text(&m.tag), text(&m.path))).collect::<Vec<_>>(),
    )
}
