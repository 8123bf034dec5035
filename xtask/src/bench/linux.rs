//! Linux in the same QEMU: the opponents.
//!
//! *Debian* is the newest cloud kernel that Debian packages; *tuned* is Debian's source of the same series, built with
//! `guests/linux-small.config` and nothing else. Both boot without mitigations and without zeroing on allocation, with our static
//! programs as all there is in their initial file system.
//!
//! What is fetched and built is kept in `~/.cache/hafez/bench` (`XDG_CACHE_HOME`): the tuned kernel takes from five minutes to an
//! hour, once. Where a kernel cannot be had, the reason is said and the table shows what was measured earlier.

use super::figures::{Figure, Figures};
use super::machine::{BIG, Model, ROOMY, STARTS, SWAP, SWAPPING};
use crate::shell::{output, root, sh, step, which};
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The way to the disk that the `hafez` command takes.
#[path = "../../../hafez/src/aio.rs"]
mod aio;

const QEMU: &str = "qemu-system-x86_64";
/// The series that is measured against.
const SERIES: &str = "6.12";
/// What building it needs, as programs and Debian's packages.
const TOOLS: [(&str, &str); 5] =
    [("flex", "flex"), ("bison", "bison"), ("bc", "bc"), ("make", "make"), ("xz", "xz-utils")];
const ELF_HEADER: &str = "/usr/include/libelf.h";
pub const ARGUMENTS: &str = "console=ttyS0 quiet reboot=t panic=-1 mitigations=off init_on_alloc=0";
/// As Hafez's machine, with the old devices that Linux needs to know the time, and a serial line to speak on.
const MACHINE: &str = "microvm,acpi=off,isa-serial=on,x-option-roms=off,auto-kernel-cmdline=on";
/// The largest machine that is tried for the smallest, in MiB.
const SMALL: u64 = 128;

/// A Linux to measure.
pub struct Linux {
    kernel: PathBuf,
    /// The package's version.
    pub version: String,
    /// Whether it has a driver for the swap disk built in.
    swaps: bool,
}

fn cache() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let base = base.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    let dir = base.context("no home directory to keep kernels in")?.join("hafez/bench");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// Names of packages that begin so, newest last as versions go.
fn packages(prefix: &str, suffix: &str) -> Result<Vec<String>> {
    let list = output(Command::new("apt-cache").args(["pkgnames", prefix]))?;
    let numbers = |name: &str| -> Vec<u64> {
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    let rest = |name: &str| name.strip_prefix(prefix).and_then(|n| n.strip_suffix(suffix)).map(str::to_owned);
    let mut names: Vec<String> = list
        .lines()
        .filter(|name| {
            rest(name).is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()) && r.contains('.'))
        })
        .map(str::to_owned)
        .collect();
    names.sort_by_key(|name| numbers(name));
    Ok(names)
}

/// Downloads a package and unpacks it into `to`; its version.
fn unpack(package: &str, to: &Path) -> Result<String> {
    fs::create_dir_all(to)?;
    sh(Command::new("apt-get").args(["-q", "download", package]).current_dir(to))?;
    let file =
        fs::read_dir(to)?.flatten().map(|f| f.path()).find(|p| p.extension().is_some_and(|e| e == "deb"));
    let file = file.with_context(|| format!("apt-get did not download {package}"))?;
    sh(Command::new("dpkg-deb").arg("-x").arg(&file).arg(to))?;
    let version = output(Command::new("dpkg-deb").arg("-f").arg(&file).arg("Version"))?;
    fs::remove_file(file)?;
    Ok(version)
}

/// Keeps what `make` makes as NAME and NAME.version; makes it only where it is not there yet.
fn kept(name: &str, swaps: bool, make: impl FnOnce(&Path, &Path) -> Result<String>) -> Result<Linux> {
    let dir = cache()?;
    let (kernel, note) = (dir.join(name), dir.join(format!("{name}.version")));
    if !kernel.exists() || !note.exists() {
        let scratch = dir.join(format!("{name}.making"));
        if scratch.exists() {
            fs::remove_dir_all(&scratch)?;
        }
        let version = make(&scratch, &kernel)?;
        fs::write(&note, version)?;
        fs::remove_dir_all(&scratch)?;
    }
    let version = fs::read_to_string(note)?.trim().to_owned();
    Ok(Linux { kernel, version, swaps })
}

/// Debian's newest cloud kernel.
pub fn debian() -> Result<Linux> {
    kept("linux-debian", false, |scratch, kernel| {
        let names = packages("linux-image-", "-cloud-amd64")?;
        let name = names.last().context("Debian's package lists have no cloud kernel")?;
        step(&format!("fetching {name}"));
        let version = unpack(name, scratch)?;
        let boot = fs::read_dir(scratch.join("boot"))?.flatten().map(|f| f.path());
        let image = boot.into_iter().find(|p| p.to_string_lossy().contains("/vmlinuz-"));
        uncompress(&image.context("the package has no kernel")?, kernel)?;
        Ok(version)
    })
}

/// Debian's source, built small.
pub fn tuned(may_install: bool) -> Result<Linux> {
    kept("linux-tuned", true, |scratch, kernel| {
        let missing: Vec<&str> = TOOLS
            .iter()
            .filter(|(program, _)| which(program).is_none())
            .map(|(_, package)| *package)
            .chain((!Path::new(ELF_HEADER).exists()).then_some("libelf-dev"))
            .collect();
        if !missing.is_empty() {
            if !may_install {
                bail!("it needs {} to be built", missing.join(" "));
            }
            crate::setup::install(&missing)?;
        }
        let sources = packages("linux-source-", "")?;
        let series = format!("linux-source-{SERIES}");
        let name = sources.iter().find(|name| **name == series).or(sources.last());
        let name = name.context("Debian's package lists have no Linux source")?;
        step(&format!("fetching {name}; building it takes a while, once"));
        let version = unpack(name, scratch)?;
        let archive = scratch.join(format!("usr/src/{name}.tar.xz"));
        sh(Command::new("tar").arg("-C").arg(scratch).arg("-xf").arg(archive))?;
        let source = scratch.join(name);
        let config = root().join("guests/linux-small.config");
        let make = || {
            let mut make = Command::new("nice");
            make.args(["make", "-s", "-C"]).arg(&source).stdout(Stdio::null());
            make
        };
        sh(make().arg("allnoconfig").arg(format!("KCONFIG_ALLCONFIG={}", config.display())))?;
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        sh(make().arg(format!("-j{jobs}")).arg("vmlinux"))?;
        fs::copy(source.join("vmlinux"), kernel)?;
        Ok(version)
    })
}

/// The ELF file in a compressed kernel image: it starts without running a decompressor inside the machine.
fn uncompress(image: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(image)?;
    let kinds: [(&[u8], &str); 4] = [
        (&[0xFD, b'7', b'z', b'X', b'Z', 0], "xz"),
        (&[0x28, 0xB5, 0x2F, 0xFD], "zstd"),
        (&[0x1F, 0x8B, 8], "gzip"),
        (&[0x02, 0x21, 0x4C, 0x18], "lz4"),
    ];
    for (magic, program) in kinds {
        let Some(at) = bytes.windows(magic.len()).position(|window| window == magic) else { continue };
        let mut child = Command::new(program)
            .args(["-dc"])
            .stdin(Stdio::piped())
            .stdout(File::create(to)?)
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        // Other things follow the compressed part, which the program need not read; its complaint about them does not count.
        let _ = child.stdin.take().map(|mut pipe| pipe.write_all(&bytes[at..]));
        child.wait()?;
        let mut head = [0; 4];
        let _ = std::io::Read::read(&mut File::open(to)?, &mut head)?;
        if head == *b"\x7fELF" {
            return Ok(());
        }
    }
    let _ = fs::remove_file(to);
    bail!("{}: no kernel found in it", image.display())
}

/// A `cpio` archive in the form that Linux unpacks at its start: directories and executable files.
fn archive(to: &Path, directories: &[&str], files: &[(&str, PathBuf)]) -> Result<()> {
    let mut bytes = Vec::new();
    let mut entry = |number: usize, mode: u32, name: &str, content: &[u8]| {
        let fields =
            [number as u32, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        bytes.extend_from_slice(b"070701");
        for field in fields {
            bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    };
    let mut number = 1;
    for name in directories {
        entry(number, 0o040755, name, &[]);
        number += 1;
    }
    for (name, path) in files {
        entry(number, 0o100755, name, &fs::read(path)?);
        number += 1;
    }
    entry(0, 0, "TRAILER!!!", &[]);
    fs::write(to, bytes)?;
    Ok(())
}

impl Linux {
    /// Makes what it boots with: our programs in `guests`, each kind of run with an archive of its own in `scratch`, and a swap disk.
    pub fn prepare(&self, guests: &Path, scratch: &Path) -> Result<()> {
        let directories = ["dev", "proc", "sys", "tmp"];
        let archives: [(&str, &[&str]); 3] =
            [("all.cpio", &["meter", "tiny"]), ("first.cpio", &["first"]), ("hello.cpio", &["hello"])];
        for (name, programs) in archives {
            let files: Vec<(&str, PathBuf)> =
                programs.iter().map(|name| (*name, guests.join(name))).collect();
            archive(&scratch.join(name), &directories, &files)?;
        }
        if self.swaps {
            let disk = scratch.join("swap");
            File::create(&disk)?.set_len(512 << 20)?;
            sh(Command::new("/sbin/mkswap").arg("-q").arg(&disk))?;
        }
        Ok(())
    }

    /// What the paths through the kernel cost, with what was prepared in `scratch`.
    pub fn paths(&self, scratch: &Path, model: Model) -> Result<Figures> {
        let mut figures = Figures::default();
        let all = scratch.join("all.cpio");
        let mut run = |mib, more: &str, disk: Option<&Path>| {
            let arguments = format!("{ARGUMENTS} rdinit=/meter {more}");
            figures.read(&self.run(model, mib, &all, arguments.trim(), disk, "600")?)
        };
        run(ROOMY, "", None)?;
        run(ROOMY, &format!("METER={}", BIG.join(",")), None)?;
        if self.swaps {
            let (ram, touched) = SWAPPING;
            let wall = if model == Model::Wall { " WALL=1" } else { "" };
            let swap = format!("METER={} SWAP_MIB={touched} SWAP_DEVICE=/dev/vda{wall}", SWAP.join(","));
            run(ram, &swap, Some(&scratch.join("swap")))?;
        }
        Ok(figures)
    }

    /// All its figures.
    pub fn measure(&self, guests: &Path, scratch: &Path, model: Model) -> Result<Figures> {
        self.prepare(guests, scratch)?;
        let mut figures = self.paths(scratch, model)?;
        let first = scratch.join("first.cpio");
        let mut ticks = Vec::new();
        for _ in 0..STARTS.min(3) {
            let arguments = format!("{ARGUMENTS} rdinit=/first");
            figures.read(&self.run(model, ROOMY, &first, &arguments, None, "600")?)?;
            ticks.push(figures.get("boot").context("the first program did not tell when it began")?.median);
        }
        let samples = ticks.len() as u64;
        let least = ticks.into_iter().min().context("nothing was started")?;
        figures.set("boot", Figure { median: least, least, samples });
        let free = figures.get("free").context("the first program did not tell what is free")?;
        figures.set("gone", Figure::single((ROOMY << 20).saturating_sub(free.median)));
        if model == Model::Plain {
            figures.set("smallest", Figure::single(self.smallest(&scratch.join("hello.cpio"))? << 20));
        }
        Ok(figures)
    }

    /// The smallest whole number of MiB in which a static program says hello, by halving.
    fn smallest(&self, archive: &Path) -> Result<u64> {
        let arguments = format!("{ARGUMENTS} rdinit=/hello");
        let works = |mib| {
            let text = self.run(Model::Plain, mib, archive, &arguments, None, "30");
            text.is_ok_and(|text| text.lines().any(|line| line.trim() == "hello"))
        };
        let (mut fails, mut runs) = (0, SMALL);
        if !works(runs) {
            bail!("a static program does not run in {SMALL} MiB");
        }
        while runs - fails > 1 {
            let middle = (fails + runs) / 2;
            if works(middle) { runs = middle } else { fails = middle }
        }
        Ok(runs)
    }

    /// What QEMU is told.
    pub fn line(
        &self,
        model: Model,
        mib: u64,
        archive: &Path,
        arguments: &str,
        disk: Option<&Path>,
    ) -> Vec<String> {
        let cpu = if model == Model::Max { "max" } else { "qemu64" };
        let mut line: Vec<String> =
            ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", MACHINE]
                .map(Into::into)
                .into();
        line.extend(
            ["-global", "virtio-mmio.force-legacy=false", "-accel", "tcg", "-cpu", cpu].map(Into::into),
        );
        if model != Model::Wall {
            line.extend(["-icount", "shift=0,sleep=off"].map(Into::into));
        }
        line.extend(["-serial", "stdio"].map(Into::into));
        line.extend(["-m".into(), format!("{mib}M"), "-kernel".into(), self.kernel.display().to_string()]);
        line.extend(["-initrd".into(), archive.display().to_string()]);
        if let Some(disk) = disk {
            let aio = which(QEMU).map_or("threads", |qemu| aio::best(&qemu));
            let drive = format!("if=none,id=swap,format=raw,cache=unsafe,aio={aio},file={}", disk.display());
            line.extend(["-drive".into(), drive]);
            line.extend(["-device", "virtio-blk-device,drive=swap"].map(Into::into));
        }
        line.extend(["-append".into(), arguments.into()]);
        line
    }

    /// What the program prints.
    fn run(
        &self,
        model: Model,
        mib: u64,
        archive: &Path,
        arguments: &str,
        disk: Option<&Path>,
        patience: &str,
    ) -> Result<String> {
        let mut command = Command::new("timeout");
        command.args(["-k", "1", patience, QEMU]);
        command.args(self.line(model, mib, archive, arguments, disk));
        let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output()?;
        if !output.status.success() {
            bail!("Linux with {arguments:?} at {mib} MiB: {}", output.status);
        }
        // The kernel has things to say, too.
        let text = String::from_utf8_lossy(&output.stdout);
        let own: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.starts_with('[')).collect();
        Ok(own.join("\n"))
    }
}
