//! `hafez doctor`: what this computer lacks, and the command that mends it.

use crate::{accel, kernel, run, size::Size};
use anyhow::Result;
use std::fs;
use std::process::Command;

/// The oldest QEMU that this is tested with.
const OLDEST_QEMU: (u32, u32) = (7, 2);
/// Room that a run with the default memory takes for swap.
const SWAP_ROOM: u64 = 512 << 20;
/// RAM for the default machine and QEMU itself.
const RAM: u64 = 256 << 20;

enum Finding {
    Good(String),
    /// Works, but could be better.
    Note(String),
    /// Cannot work: what, and the remedy.
    Bad(String, String),
}
use Finding::{Bad, Good, Note};

/// Exit code 0 if `hafez run` can work here.
pub fn run() -> Result<u8> {
    let findings = [
        ("kernel", embedded()),
        ("qemu", qemu()),
        ("speed", speed()),
        ("memory", memory()),
        ("swap", swap()),
        ("root", root()),
    ];
    let mut fit = true;
    for (name, finding) in findings {
        match finding {
            Good(text) => println!("  ok    {name:7} {text}"),
            Note(text) => println!("  note  {name:7} {text}"),
            Bad(text, remedy) => {
                fit = false;
                println!("  BAD   {name:7} {text}\n                mend it: {remedy}");
            }
        }
    }
    println!("{}", if fit { "hafez run will work here" } else { "hafez run cannot work here yet" });
    Ok(u8::from(!fit))
}

fn embedded() -> Finding {
    match kernel::elf() {
        Ok(elf) => Good(format!("embedded, {}", Size(elf.len() as u64))),
        Err(e) => Bad(e.to_string(), "cargo xtask install".into()),
    }
}

fn qemu() -> Finding {
    let install = || {
        let known = [
            ("apt-get", "sudo apt-get install -y qemu-system-x86"),
            ("dnf", "sudo dnf install -y qemu-system-x86-core"),
            ("pacman", "sudo pacman -S qemu-system-x86"),
            ("zypper", "sudo zypper install -y qemu-x86"),
            ("apk", "sudo apk add qemu-system-x86_64"),
        ];
        let path = std::env::var_os("PATH").unwrap_or_default();
        let has = |p: &str| std::env::split_paths(&path).any(|d| d.join(p).is_file());
        let found = known.iter().find(|(tool, _)| has(tool));
        found.map_or("install QEMU's x86-64 system emulator", |(_, command)| command).to_owned()
    };
    let path = match run::qemu::find() {
        Ok(path) => path,
        Err(_) => return Bad("qemu-system-x86_64 is not on the PATH".into(), install()),
    };
    let ask = |args: &[&str]| {
        let out = Command::new(&path).args(args).output().map_err(|e| e.to_string())?;
        let text = |b: &[u8]| String::from_utf8_lossy(b).trim().to_owned();
        if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
    };
    let version = match ask(&["--version"]) {
        Ok(text) => text,
        Err(e) => return Bad(format!("{} does not start: {e}", path.display()), install()),
    };
    let first = version.lines().next().unwrap_or_default().to_owned();
    let number = first.split_ascii_whitespace().find_map(version_of);
    match number {
        Some(n) if n < OLDEST_QEMU => {
            return Bad(format!("{first}: older than {}.{}", OLDEST_QEMU.0, OLDEST_QEMU.1), install());
        }
        _ => {}
    }
    for (what, args) in [("microvm machine", ["-M", "help"]), ("9p file sharing", ["-device", "help"])] {
        let needle = if what.starts_with("microvm") { "microvm" } else { "virtio-9p-device" };
        match ask(&args) {
            Ok(text) if text.contains(needle) => {}
            _ => return Bad(format!("{} has no {what}", path.display()), install()),
        }
    }
    Good(format!("{} ({first})", path.display()))
}

fn version_of(word: &str) -> Option<(u32, u32)> {
    let (major, rest) = word.split_once('.')?;
    let minor = rest.split('.').next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn speed() -> Finding {
    match accel::kvm() {
        Ok(()) => Good("KVM: programs run at the processor's own speed".into()),
        Err(why) if why.contains("Permission denied") => Note(format!(
            "emulation only, some 10 to 30 times slower: {why}; for KVM: sudo usermod -aG kvm $USER"
        )),
        Err(why) => Note(format!("emulation only, some 10 to 30 times slower: {why}")),
    }
}

fn memory() -> Finding {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = info.lines().find_map(|l| {
        let kib = l.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?;
        Some(kib.parse::<u64>().ok()? << 10)
    });
    match available {
        Some(bytes) if bytes < RAM => Bad(
            format!("{} available; the default machine takes 128 MiB and QEMU about as much", Size(bytes)),
            "end some programs, or run with -m 32M".into(),
        ),
        Some(bytes) => Good(format!("{} available", Size(bytes))),
        None => Note("cannot tell how much is available".into()),
    }
}

fn swap() -> Finding {
    let dir = run::swap_directory();
    let room = rustix::fs::statvfs(&dir).map(|v| v.f_bavail * v.f_frsize);
    let shown = dir.display();
    match (run::swap_probe(&dir), room) {
        (Err(e), _) => {
            Bad(format!("{e:#}"), "export TMPDIR=DIR, or hafez run --swap DIR, with a writable DIR".into())
        }
        (Ok(()), Ok(room)) if room < SWAP_ROOM => Bad(
            format!("{} left in {shown}; the default machine takes {}", Size(room), Size(SWAP_ROOM)),
            "export TMPDIR=DIR with more room, or hafez run --swap SIZE".into(),
        ),
        (Ok(()), Ok(room)) => Good(format!("{} left in {shown}", Size(room))),
        (Ok(()), Err(_)) => Good(format!("in {shown}")),
    }
}

fn root() -> Finding {
    if rustix::process::getuid().is_root() {
        Note("running as root: programs inside can read whatever root can (writing needs --rw)".into())
    } else {
        Good("programs inside read what you can read, and write nowhere without --rw".into())
    }
}
