//! Kernel first, then the command that carries it.

use crate::shell::{cargo, root, sh, target_dir};
use crate::{Options, setup, toolchain};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::Command;

/// What a build gives.
pub struct Built {
    pub toolchain: toolchain::Toolchain,
    /// The kernel's ELF file.
    pub kernel: PathBuf,
    /// The `hafez` command, with the kernel embedded.
    pub hafez: PathBuf,
    /// Our own programs for the inside, one static ELF file each.
    pub guests: PathBuf,
}

pub fn all(options: &Options) -> Result<Built> {
    if options.setup {
        setup::run(options)?;
    }
    let toolchain = toolchain::choose(options.toolchain, None)?;
    let kernel = toolchain.build_kernel()?;
    sh(cargo().args(["build", "--release", "--quiet", "--package", "hafez"]).env("HAFEZ_KERNEL", &kernel))?;
    Ok(Built { toolchain, kernel, hafez: target_dir().join("release/hafez"), guests: guests()? })
}

/// Builds each `guests/NAME.c` into `target/guests/NAME`, if it is newer. A first line `// flags: …` names more compiler flags.
fn guests() -> Result<PathBuf> {
    let to = target_dir().join("guests");
    std::fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
    let from = root().join("guests");
    for entry in std::fs::read_dir(&from).with_context(|| format!("cannot read {}", from.display()))? {
        let source = entry?.path();
        let Some(name) = source.file_stem().filter(|_| source.extension().is_some_and(|e| e == "c")) else {
            continue;
        };
        let program = to.join(name);
        let newer = |a: &std::fs::Metadata, b: std::fs::Metadata| a.modified().ok() > b.modified().ok();
        if program.metadata().is_ok_and(|p| source.metadata().is_ok_and(|s| newer(&p, s))) {
            continue;
        }
        let text =
            std::fs::read_to_string(&source).with_context(|| format!("cannot read {}", source.display()))?;
        let flags = text.lines().next().and_then(|line| line.strip_prefix("// flags: ")).unwrap_or_default();
        sh(Command::new("gcc")
            .args(["-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&program)
            .arg(&source)
            .args(flags.split_ascii_whitespace()))?;
    }
    Ok(to)
}
