//! Installing what is missing, and only that. Debian and its kin have `apt-get`; elsewhere the names of what is missing are said.

use crate::shell::{sh, step, succeeds, which};
use crate::{Options, toolchain};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// How to see that something is there.
enum Probe {
    Program(&'static str),
    File(&'static str),
}

impl Probe {
    fn found(&self) -> bool {
        match self {
            Self::Program(name) => which(name).is_some(),
            Self::File(path) => Path::new(path).exists(),
        }
    }
}

/// What a run needs: the machine.
const MACHINE: &[(Probe, &str)] = &[(Probe::Program("qemu-system-x86_64"), "qemu-system-x86")];

/// The real programs that the demo and the tests run, which nobody here wrote.
const PROGRAMS: &[(Probe, &str)] = &[
    (Probe::Program("python3"), "python3"),
    (Probe::Program("sqlite3"), "sqlite3"),
    (Probe::Program("busybox"), "busybox-static"),
    (Probe::Program("ip"), "iproute2"),
    (Probe::Program("xz"), "xz-utils"),
    (Probe::Program("perl"), "perl"),
    (Probe::Program("gcc"), "gcc"),
    (Probe::File("/usr/lib/x86_64-linux-gnu/libc.a"), "libc6-dev"),
    (Probe::Program("bash"), "bash"),
    (Probe::Program("awk"), "mawk"),
    (Probe::Program("find"), "findutils"),
    (Probe::Program("tar"), "tar"),
    (Probe::Program("gzip"), "gzip"),
    (Probe::Program("git"), "git"),
    (Probe::Program("java"), "default-jre-headless"),
    (Probe::Program("lua5.4"), "lua5.4"),
    (Probe::Program("make"), "make"),
    (Probe::Program("node"), "nodejs"),
    (Probe::Program("openssl"), "openssl"),
    (Probe::Program("convert"), "imagemagick"),
    (Probe::Program("stress-ng"), "stress-ng"),
    (Probe::File("/usr/share/doc/zlib1g-dev/examples/zpipe.c"), "zlib1g-dev"),
    (Probe::Program("redis-server"), "redis-server"),
    (Probe::Program("redis-benchmark"), "redis-tools"),
    (Probe::Program("nginx"), "nginx-light"),
    (Probe::Program("ab"), "apache2-utils"),
    (Probe::Program("curl"), "curl"),
    (Probe::File("/usr/share/postgresql-common/pg_wrapper"), "postgresql"),
];

/// What only the long tests run.
const LONG: &[(Probe, &str)] = &[(Probe::Program("javac"), "default-jdk-headless")];

pub fn run(options: &Options) -> Result<()> {
    let long = if options.all { LONG } else { &[] };
    let missing: Vec<&str> = MACHINE
        .iter()
        .chain(PROGRAMS)
        .chain(long)
        .filter(|(probe, _)| !probe.found())
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        install(&missing)?;
    }
    if options.all {
        pythons_tests()?;
    }
    let toolchain = toolchain::choose(options.toolchain, Some(install))?;
    let kernel = match toolchain {
        toolchain::Toolchain::Installed => "the installed target",
        toolchain::Toolchain::Debian => "Debian's compiler and the library's sources",
    };
    step(&format!("everything is here; the kernel builds with {kernel}"));
    Ok(())
}

/// Python's own tests are a package of the version that is there.
fn pythons_tests() -> Result<()> {
    let ask = "import sys; print('%d.%d' % sys.version_info[:2])";
    let answer =
        Command::new("/usr/bin/python3").args(["-c", ask]).output().context("python3 does not start")?;
    let package = format!("libpython{}-testsuite", String::from_utf8_lossy(&answer.stdout).trim());
    if Path::new("/usr/share/doc").join(&package).exists() { Ok(()) } else { install(&[&package]) }
}

/// Installs Debian packages, as root or through sudo.
pub fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if which("apt-get").is_none() {
        bail!("missing: {list} (Debian's names). This machine has no apt-get; install them by its own means");
    }
    let root = succeeds(Command::new("test").args(["-w", "/var/lib/dpkg/lock"]));
    if !root && which("sudo").is_none() {
        bail!("missing: {list}. As root: apt-get install {list}");
    }
    let apt = || {
        let mut command = if root {
            Command::new("env")
        } else {
            let mut sudo = Command::new("sudo");
            sudo.arg("env");
            sudo
        };
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]);
        command
    };
    step(&format!("missing: {list}"));
    // Old package lists are not always fatal; the install below says what is.
    if let Err(e) = sh(apt().arg("update")) {
        step(&format!("{e:#}; trying to install all the same"));
    }
    sh(apt().args(["install", "-y", "--no-install-recommends"]).args(packages))
}
