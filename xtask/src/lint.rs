//! Formatting, clippy and rustdoc; a warning is an error.

use crate::shell::{cargo, sh};
use crate::{Options, toolchain};
use anyhow::Result;

pub fn run(options: &Options) -> Result<()> {
    sh(cargo().args(["fmt", "--all", "--check"]))?;
    sh(cargo().args(["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"]))?;
    let sim = ["clippy", "--quiet", "--package", "hafez-mm", "--features", "sim,mutants", "--all-targets"];
    sh(cargo().args(sim).args(["--", "-D", "warnings"]))?;
    let model =
        ["clippy", "--quiet", "--package", "hafez-mm", "--features", "model,mutants", "--test", "model"];
    sh(cargo().args(model).args(["--", "-D", "warnings"]))?;
    sh(cargo()
        .args(["doc", "--quiet", "--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-Dwarnings"))?;
    let toolchain = toolchain::choose(options.toolchain, None)?;
    // Debian's compiler for browsers comes without clippy; the kernel is linted where rustup's is at hand.
    if toolchain == toolchain::Toolchain::Installed {
        sh(toolchain.cargo("clippy").args(["--quiet", "--release", "--", "-D", "warnings"]))?;
        let mut doc = toolchain.cargo("doc");
        sh(doc.args(["--quiet", "--no-deps", "--document-private-items"]).env("RUSTDOCFLAGS", "-Dwarnings"))?;
    }
    Ok(())
}
