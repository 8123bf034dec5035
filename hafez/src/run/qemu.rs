//! The machine, as a QEMU command line, and its start.
//!
//! Nothing of it has a name on the disk: the kernel is a memory file, ports are socket pairs, swap is an unlinked file, and QEMU
//! inherits them as descriptors. So however this command ends, even by `kill -9`, there is nothing to clean up. And QEMU must not
//! outlive it: a small launcher, which is this program again, asks the system to kill QEMU when its parent dies, and then becomes QEMU.

use super::plan::{Plan, Verbosity};
use super::swap::Swap;
use crate::accel::{self, Accel};
use crate::aio;
use crate::cli::{AccelChoice, Policy, RunArgs};
use anyhow::{Context, Result, bail};
use hafez_link::{Level, port};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The first argument that makes this program the launcher.
pub const LAUNCHER: &str = "__machine";
const QEMU: &str = "qemu-system-x86_64";

/// Emulated processor. `max` has everything the emulator can do, less four things. With AVX2, the C library takes string functions that
/// the emulator runs some 15 % slower than those for SSE2 (programs decide by themselves, few need it; for those: `--qemu-arg=-cpu
/// --qemu-arg=max`). With ERMS, string instructions are advertised as fast, but here they take one step a byte. LA57 is a fifth level of
/// page tables that nobody here fills, and SVM would only lengthen the list.
const CPU_EMULATED: &str = "max,-avx2,-erms,-la57,-svm";
/// Under `--icount` counts should repeat on any QEMU, and be comparable: its plain, old model.
const CPU_COUNTED: &str = "qemu64";
/// The one instruction rate under `--icount`: a nanosecond each.
const ICOUNT_HZ: u64 = 1_000_000_000;

/// A machine that has been started, and our ends of its wires.
pub struct Machine {
    pub child: Child,
    pub control: UnixStream,
    pub tty: UnixStream,
    pub out: UnixStream,
    pub err: UnixStream,
    /// What the kernel says before (and after) its ports work.
    pub early: UnixStream,
    /// The kernel's ELF file, for names.
    pub kernel: PathBuf,
    /// Keeps `kernel` valid.
    pub kernel_file: OwnedFd,
}

impl Machine {
    pub fn start(args: &RunArgs, plan: &Plan, swap: Swap, verbosity: &Verbosity) -> Result<Self> {
        let qemu = find()?;
        let accel = match args.accel {
            AccelChoice::Tcg => Accel::Tcg,
            AccelChoice::Auto if args.icount || accel::kvm().is_err() => Accel::Tcg,
            AccelChoice::Auto => Accel::Kvm,
            AccelChoice::Kvm => {
                accel::kvm().map_err(|why| anyhow::anyhow!("--accel kvm: {why}; --accel tcg emulates"))?;
                Accel::Kvm
            }
        };
        let mut line = Line::default();
        let kernel = memory_file("hafez-kernel", crate::kernel::elf()?)?;
        line.machine(args, accel);
        line.add("-kernel", path_of(&kernel));
        line.add("-append", kernel_arguments(args, verbosity));
        let [control, tty, out, err, early] = line.ports()?;
        for share in &plan.shares {
            let mode = if share.writable { "" } else { ",readonly=on" };
            let mut fsdev = OsString::from(format!("local,id={},path=", share.tag));
            fsdev.push(escape(share.path.as_os_str()));
            fsdev.push(format!(",security_model=none,multidevs=remap{mode}"));
            line.add("-fsdev", fsdev);
            line.device(format!("virtio-9p-device,fsdev={0},mount_tag={0}", share.tag));
        }
        line.swap(&swap, aio::best(&qemu))?;
        line.network(args)?;
        line.args.extend(args.qemu_arg.iter().cloned());
        line.inherit(&kernel)?;

        let mut command = Command::new("/proc/self/exe");
        command.arg(LAUNCHER).arg(getpid().as_raw_pid().to_string()).arg(&qemu).args(&line.args);
        // Its own process group: what the terminal sends to ours is for the program inside, and goes there by way of us.
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().context("cannot start QEMU")?;
        // Our own path to the file: QEMU's descriptors are its own.
        let path = format!("/proc/{}/fd/{}", std::process::id(), kernel.as_raw_fd()).into();
        Ok(Self { child, control, tty, out, err, early, kernel: path, kernel_file: kernel })
    }
}

/// QEMU, from `HAFEZ_QEMU` or the PATH.
pub fn find() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("HAFEZ_QEMU") {
        return Ok(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|d| d.join(QEMU)).find(|p| p.is_file());
    found.with_context(|| format!("{QEMU} is not on the PATH; `hafez doctor` says how to get it"))
}

/// What the launcher does: bind this process's life to its parent's, then become QEMU. Returns only if it fails.
pub fn launch(mut args: impl Iterator<Item = OsString>) -> anyhow::Error {
    let mut prepare = || -> Result<Command> {
        let parent: i32 = args.next().and_then(|p| p.to_str()?.parse().ok()).context("no parent given")?;
        let qemu = args.next().context("no program given")?;
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have died before the line above.
        if getppid() != Pid::from_raw(parent) {
            bail!("the parent is gone");
        }
        let mut command = Command::new(qemu);
        command.args(args.by_ref());
        Ok(command)
    };
    match prepare() {
        Ok(mut command) => {
            let program = command.get_program().to_string_lossy().into_owned();
            anyhow::Error::new(command.exec()).context(format!("cannot run {program}"))
        }
        Err(e) => e,
    }
}

fn kernel_arguments(args: &RunArgs, verbosity: &Verbosity) -> String {
    let policy = match args.policy {
        Policy::Generations => "generations",
        Policy::Clock => "clock",
    };
    let hz = if args.icount { ICOUNT_HZ } else { crate::tsc::hz() };
    let log = match verbosity.level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let cpus = args.cpus;
    let resolver = if super::resolver::is_out_of_reach(&args.root) {
        format!(" hafez.resolver={}", super::resolver::NETWORKS_OWN)
    } else {
        String::new()
    };
    format!("hafez.policy={policy} hafez.tsc_hz={hz} hafez.log={log} hafez.cpus={cpus}{resolver}")
}

/// QEMU reads a comma as the end of an option; two stand for one.
fn escape(text: &OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    OsString::from_vec(
        text.as_bytes()
            .iter()
            .flat_map(|b| std::iter::repeat_n(*b, if *b == b',' { 2 } else { 1 }))
            .collect(),
    )
}

fn memory_file(name: &str, content: &[u8]) -> Result<OwnedFd> {
    let make = || -> std::io::Result<OwnedFd> {
        let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
        file.write_all(content)?;
        Ok(file.into())
    };
    make().with_context(|| format!("cannot make the memory file {name}"))
}

/// How QEMU opens a descriptor that it inherits.
fn path_of(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// The command line as it grows, and the descriptors that must live until QEMU has them.
#[derive(Default)]
struct Line {
    args: Vec<OsString>,
    inherited: Vec<OwnedFd>,
}

impl Line {
    fn add(&mut self, option: &str, value: impl Into<OsString>) {
        self.args.push(option.into());
        self.args.push(value.into());
    }

    fn device(&mut self, device: impl Into<OsString>) {
        self.add("-device", device);
    }

    /// Lets QEMU have `fd` under the same number. No other child is started, so none can inherit it by mistake.
    fn inherit(&self, fd: &OwnedFd) -> Result<()> {
        fcntl_setfd(fd, FdFlags::empty()).context("cannot pass a descriptor on")
    }

    fn machine(&mut self, args: &RunArgs, accel: Accel) {
        for option in ["-nodefaults", "-no-user-config", "-no-reboot"] {
            self.args.push(option.into());
        }
        self.add("-display", "none");
        // A program that breaks out of the machine finds a QEMU that cannot start others or gain rights.
        self.add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny");
        // No legacy devices: the kernel uses the APIC's timer and virtio, and the list of these is on its command line.
        self.add(
            "-machine",
            "microvm,acpi=off,pit=off,pic=off,rtc=off,isa-serial=off,x-option-roms=off,auto-kernel-cmdline=on",
        );
        self.add("-global", "virtio-mmio.force-legacy=false");
        match accel {
            Accel::Kvm => {
                self.add("-accel", "kvm");
                self.add("-cpu", "host");
            }
            Accel::Tcg => {
                self.add("-accel", if args.cpus > 1 { "tcg,thread=multi" } else { "tcg" });
                self.add("-cpu", if args.icount { CPU_COUNTED } else { CPU_EMULATED });
            }
        }
        if args.icount {
            // Asleep, the machine skips to its next timer instead of waiting for it.
            self.add("-icount", "shift=0,sleep=off");
        }
        self.add("-smp", args.cpus.to_string());
        self.add("-m", format!("{}k", args.memory.0 >> 20 << 10));
        self.device("isa-debug-exit,iobase=0x501,iosize=2");
        // It is asked once, and arms a timer as it answers. On counted time a machine that sleeps leaps to the next timer: let that
        // be a millisecond away, not QEMU's 65 seconds.
        self.device("virtio-rng-device,period=1");
    }

    /// The console's ports and the early console: our ends, as control, tty, out, err, early.
    fn ports(&mut self) -> Result<[UnixStream; 5]> {
        self.device("virtio-serial-device,max_ports=8");
        let control = self.port(port::CTL, 1)?;
        let tty = self.port(port::TTY, 2)?;
        let out = self.port(port::OUT, 3)?;
        let err = self.port(port::ERR, 4)?;
        let early = self.wire("early")?;
        self.device("isa-debugcon,iobase=0xe9,chardev=early");
        Ok([control, tty, out, err, early])
    }

    fn port(&mut self, name: &str, number: u32) -> Result<UnixStream> {
        let id = name.replace('.', "-");
        let ours = self.wire(&id)?;
        self.device(format!("virtserialport,nr={number},name={name},chardev={id}"));
        Ok(ours)
    }

    fn wire(&mut self, id: &str) -> Result<UnixStream> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .context("no socket")?;
        self.inherit(&theirs)?;
        self.add("-chardev", format!("socket,id={id},fd={}", theirs.as_raw_fd()));
        self.inherited.push(theirs);
        Ok(ours.into())
    }

    /// The user network: QEMU speaks for the machine, with no rights but this user's. It costs nothing until a program inside
    /// wants out, or somebody comes by a published port.
    fn network(&mut self, args: &RunArgs) -> Result<()> {
        let mut network = String::from("user,id=net");
        for port in &args.publish {
            port.check().map_err(|why| anyhow::anyhow!(why))?;
            network.push(',');
            network.push_str(&port.forward());
        }
        self.add("-netdev", network);
        self.device("virtio-net-device,netdev=net");
        Ok(())
    }

    fn swap(&mut self, swap: &Swap, aio: &str) -> Result<()> {
        // Swap need not survive a power cut, so no flush ever reaches the disk below. An error goes to the guest, which knows what
        // to do; QEMU's default would stop the machine.
        let disk = "if=none,id=swap,format=raw,cache=unsafe,discard=unmap,werror=report,rerror=report";
        match swap {
            Swap::None => return Ok(()),
            Swap::Open { file, offset, size } => {
                self.inherit(file)?;
                self.add(
                    "-drive",
                    format!("{disk},aio={aio},offset={offset},size={size},file={}", path_of(file)),
                );
            }
            Swap::Uri(uri) => {
                let mut drive = OsString::from(format!("{disk},file="));
                drive.push(escape(uri));
                self.add("-drive", drive);
            }
        }
        self.device(format!("virtio-blk-device,drive=swap,serial={}", hafez_link::SWAP_SERIAL));
        Ok(())
    }
}
