//! Who compiles the kernel.
//!
//! Its target is `x86_64-unknown-none`, which stable Rust has, as a component that rustup downloads. A machine without rustup, or
//! without a way to its server, has another: Debian packages a current compiler for its browsers (`rustc-web`) together with the
//! library's sources (`rust-web-src`), from which `core` and `alloc` are built here. That takes half a minute more and the
//! unstable `-Zbuild-std`; hence it is the second choice.
//!
//! Everything that runs on the host builds with the plain stable `cargo` that runs this program.

use crate::shell::{cargo, output, sh, step, succeeds, target_dir, which};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

pub const TARGET: &str = "x86_64-unknown-none";

/// Debian packages of the second way.
pub const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld"];
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_SOURCES: &str = "/usr/lib/rustlib/src/rust/library/core/src/lib.rs";

/// The oldest compiler that knows edition 2024 and what the kernel uses of the language.
const OLDEST_MINOR: u32 = 89;

/// Seconds that rustup may take: without a network it may try for ever.
const RUSTUP_PATIENCE: &str = "180";

/// Installs Debian packages.
pub type Install = fn(&[&str]) -> Result<()>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    Auto,
    Rustup,
    Debian,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Toolchain {
    /// The target's libraries are installed beside the compiler.
    Installed,
    /// Debian's compiler, libraries from source.
    Debian,
}

/// Whether the running toolchain has the target's libraries.
fn has_target() -> bool {
    let libdir = output(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]));
    libdir.is_ok_and(|dir| {
        std::fs::read_dir(Path::new(&dir))
            .is_ok_and(|d| d.flatten().any(|f| f.file_name().to_string_lossy().starts_with("libcore")))
    })
}

fn has_debian() -> bool {
    Path::new(DEBIAN_SOURCES).exists()
        && which("ld.lld").is_some()
        && Path::new(DEBIAN_CARGO).exists()
        && minor_version(DEBIAN_RUSTC).is_some_and(|minor| minor >= OLDEST_MINOR)
}

fn minor_version(rustc: &str) -> Option<u32> {
    let version = Command::new(rustc).arg("--version").output().ok()?;
    let version = String::from_utf8(version.stdout).ok()?;
    version.strip_prefix("rustc 1.")?.split('.').next()?.parse().ok()
}

/// Finds a way, installing what it needs with `install` if there is one.
pub fn choose(choice: Choice, install: Option<Install>) -> Result<Toolchain> {
    if choice != Choice::Debian {
        if has_target() {
            return Ok(Toolchain::Installed);
        }
        if install.is_some() && which("rustup").is_some() {
            step(&format!("rustup target add {TARGET}"));
            let mut add = Command::new("timeout");
            add.args([RUSTUP_PATIENCE, "rustup", "target", "add", TARGET]);
            if succeeds(&mut add) && has_target() {
                return Ok(Toolchain::Installed);
            }
            step("rustup cannot add it");
        }
        if choice == Choice::Rustup {
            bail!("the target {TARGET} is not installed: rustup target add {TARGET}");
        }
    }
    if !has_debian() {
        match install {
            Some(install) => install(&DEBIAN_PACKAGES)?,
            None => bail!("no compiler for {TARGET}: run `cargo xtask setup`"),
        }
    }
    if !has_debian() {
        let found = minor_version(DEBIAN_RUSTC).map_or("none".into(), |minor| format!("1.{minor}"));
        bail!(
            "Debian's packages {} did not give a compiler for {TARGET}: rustc 1.{OLDEST_MINOR} or later is needed, \
             {DEBIAN_RUSTC} is {found}; the suite that Debian's security updates come from (bookworm-security) has a newer one",
            DEBIAN_PACKAGES.join(" ")
        );
    }
    Ok(Toolchain::Debian)
}

impl Toolchain {
    /// A cargo command for the kernel: `build`, `clippy`… Its flags are in `.cargo/config.toml`.
    pub fn cargo(self, command: &str) -> Command {
        let mut c = cargo();
        if self == Self::Debian {
            c = Command::new(DEBIAN_CARGO);
            c.current_dir(crate::shell::root());
            c.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
            // rustup's proxies would put these in the way.
            c.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
        }
        // Flags in the environment would replace those of .cargo/config.toml.
        c.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        c.args([command, "--package", "hafez-kernel", "--target", TARGET]);
        if self == Self::Debian {
            c.args([
                "-Zbuild-std=core,alloc,compiler_builtins",
                "-Zbuild-std-features=compiler-builtins-mem",
            ]);
            c.args(["--config", &format!("target.{TARGET}.linker='ld.lld'")]);
            c.args(["--config", &format!("target.{TARGET}.rustflags=['-Clinker-flavor=ld.lld']")]);
        }
        c
    }

    /// Two compilers in one target directory would rebuild each other's work.
    fn target_dir(self) -> PathBuf {
        match self {
            Self::Installed => target_dir(),
            Self::Debian => target_dir().join("debian"),
        }
    }

    /// Builds the kernel: where its ELF file is.
    pub fn build_kernel(self) -> Result<PathBuf> {
        self.build_kernel_with(&[], self.target_dir())
    }

    /// The same, with more arguments for cargo, in this directory.
    pub fn build_kernel_with(self, more: &[&str], directory: PathBuf) -> Result<PathBuf> {
        let mut build = self.cargo("build");
        sh(build.args(["--release", "--quiet"]).args(more).arg("--target-dir").arg(&directory))?;
        Ok(directory.join(TARGET).join("release/hafez-kernel"))
    }
}
