//! Putting `hafez` where the shell finds it.

use crate::shell::step;
use crate::{Options, build};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

pub fn run(options: &Options) -> Result<()> {
    let built = build::all(options)?;
    let place = places().into_iter().find(|p| writable(p));
    let Some(place) = place else {
        bail!("none of the directories on the PATH is writable; the command is {}", built.hafez.display());
    };
    // A new file renamed into place: a `hafez` that runs just now keeps its own.
    let new = place.join(".hafez.new");
    std::fs::copy(&built.hafez, &new).with_context(|| format!("cannot write {}", new.display()))?;
    std::fs::rename(&new, place.join("hafez"))
        .with_context(|| format!("cannot write to {}", place.display()))?;
    step(&format!("installed {}", place.join("hafez").display()));
    let on_path =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|p| p == place));
    if !on_path {
        step(&format!("it is not on your PATH yet: export PATH=\"{}:$PATH\"", place.display()));
    }
    Ok(())
}

/// Cargo's own directory of programs, then the usual ones.
fn places() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let cargo =
        std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| home.as_ref().map(|h| h.join(".cargo")));
    let local = home.map(|h| h.join(".local/bin"));
    let mut places: Vec<PathBuf> =
        [cargo.map(|c| c.join("bin")), Some("/usr/local/bin".into()), local.clone()]
            .into_iter()
            .flatten()
            .collect();
    // Those that are on the PATH come first: sorting is stable.
    let path: Vec<PathBuf> =
        std::env::var_os("PATH").map(|p| std::env::split_paths(&p).collect()).unwrap_or_default();
    places.sort_by_key(|p| !path.contains(p));
    places
}

fn writable(place: &Path) -> bool {
    let probe = place.join(".hafez.new");
    let made = place.is_dir() && std::fs::write(&probe, "").is_ok();
    if made {
        let _ = std::fs::remove_file(&probe);
    }
    made
}
