//! Real text of a wanted size: this computer's own documentation, headers and sources, in a fixed order.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Where text is found, best first.
fn places() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| home.map(|h| h.join(".cargo")));
    let mut places: Vec<PathBuf> = [
        "/usr/include",
        "/usr/share/perl",
        "/usr/lib/python3",
        "/usr/lib/python3.11",
        "/usr/share/doc",
        "/usr/share/common-licenses",
    ]
    .map(PathBuf::from)
    .into();
    places.extend(cargo.map(|c| c.join("registry/src")));
    places.push("/usr/share".into());
    places
}

/// Writes `bytes` of text to `to`: whole files of plain ASCII or UTF-8, one after another. If the computer has not enough,
/// it begins again from the first, with the number of the round before each line, so that no line is there twice.
pub fn collect(to: &Path, bytes: u64) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(to)?);
    let mut left = bytes;
    for round in 0_u32.. {
        let before = left;
        for place in places() {
            walk(&place, &mut |file| add(file, round, &mut left, &mut out))?;
            if left == 0 {
                return out.flush();
            }
        }
        if left == before {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no text on this computer"));
        }
    }
    Ok(())
}

/// Adds the text of one file, cut where `left` ends. Whether more is wanted.
fn add(file: &Path, round: u32, left: &mut u64, out: &mut impl Write) -> io::Result<bool> {
    // What cannot be read, is huge or is not text is passed over.
    let small = fs::metadata(file).is_ok_and(|m| m.is_file() && m.len() < 8 << 20);
    let Some(text) = small.then(|| fs::read(file).ok()).flatten() else { return Ok(true) };
    if text.contains(&0) || std::str::from_utf8(&text).is_err() {
        return Ok(true);
    }
    for line in text.split_inclusive(|b| *b == b'\n') {
        let mut whole = if round == 0 { Vec::new() } else { format!("{round} ").into_bytes() };
        whole.extend_from_slice(line);
        if !whole.ends_with(b"\n") {
            whole.push(b'\n');
        }
        if whole.len() as u64 >= *left {
            // The last line ends where the text does.
            whole.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            whole.pop();
            whole.push(b'\n');
        }
        out.write_all(&whole)?;
        *left -= whole.len() as u64;
        if *left == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Visits the files below `dir` in the order of their names, until `visit` says no.
fn walk(dir: &Path, visit: &mut impl FnMut(&Path) -> io::Result<bool>) -> io::Result<bool> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(true) };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        let more = match path.symlink_metadata() {
            Ok(m) if m.is_dir() => walk(&path, visit)?,
            Ok(m) if m.is_file() => visit(&path)?,
            _ => true,
        };
        if !more {
            return Ok(false);
        }
    }
    Ok(true)
}
