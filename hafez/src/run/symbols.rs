//! Names for the addresses in a kernel's last words.
//!
//! The kernel walks its stack and prints bare addresses, which needs no memory and no tables there. The names and lines are in the
//! ELF file that it was started from, and that is still here.

use std::fmt::Write;
use std::path::Path;

/// Every address of the kernel's text begins so: it lies in the top 2 GiB.
const PREFIX: &str = "ffffffff8";
/// Hexadecimal digits of an address.
const DIGITS: usize = 16;

/// `text` with a name and a place after each address of the kernel in it.
pub fn name_addresses(text: &str, elf: &Path) -> String {
    let Ok(loader) = addr2line::Loader::new(elf) else { return text.to_owned() };
    let code = loader.get_section_range(b".text");
    annotate(text, |address, alone| {
        if !code.as_ref().is_some_and(|s| (s.begin..s.end).contains(&address)) {
            return None;
        }
        let names = names(&loader, address);
        // In the middle of a line there is room for one name only: that of the function which the symbol table has.
        let names = if alone { names } else { names.into_iter().next_back().into_iter().collect() };
        Some(names.join("\n                   ")).filter(|n| !n.is_empty())
    })
}

/// The function at `address`, after those that were inlined into it there: innermost first.
fn names(loader: &addr2line::Loader, address: u64) -> Vec<String> {
    // The symbol table has a full path for the outermost; the debug information has places, and short names for the rest.
    let symbol = loader.find_symbol(address).map(|n| addr2line::demangle_auto(n.into(), None).into_owned());
    let mut names = Vec::new();
    if let Ok(mut frames) = loader.find_frames(address) {
        while let Ok(Some(frame)) = frames.next() {
            let name = frame.function.and_then(|f| Some(f.demangle().ok()?.into_owned())).unwrap_or_default();
            let place = frame.location.and_then(|l| Some(format!(" at {}:{}", short(l.file?), l.line?)));
            names.push((name, place.unwrap_or_default()));
        }
    }
    match (names.last_mut(), symbol) {
        (Some(last), Some(symbol)) => last.0 = symbol,
        (None, Some(symbol)) => names.push((symbol, String::new())),
        (_, None) => {}
    }
    names.into_iter().map(|(name, place)| name + &place).collect()
}

/// The path from the workspace (or the library's sources) on, as one would open it there.
fn short(file: &str) -> &str {
    ["/kernel/src/", "/crates/", "/library/"]
        .iter()
        .find_map(|p| file.rfind(p))
        .map_or(file, |i| &file[i + 1..])
}

/// `name` is told an address, and whether its line ends after it.
fn annotate(text: &str, name: impl Fn(u64, bool) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(PREFIX) {
        let (before, found) = rest.split_at(at);
        let end = found.bytes().take(DIGITS).take_while(u8::is_ascii_hexdigit).count();
        let (digits, after) = found.split_at(end);
        out.push_str(before);
        out.push_str(digits);
        // A return address points behind the call, which may be another line, or another function.
        let known = u64::from_str_radix(digits, 16)
            .ok()
            .and_then(|a| name(a - 1, after.is_empty() || after.starts_with('\n')));
        if let Some(known) = known {
            let _ = write!(out, " {known}");
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_names_and_all_else_stays() {
        let known = |a: u64, _: bool| (a == 0xffff_ffff_8010_0fff).then(|| "start".to_owned());
        for (text, expected) in [
            ("at 0xffffffff80101000\n", "at 0xffffffff80101000 start\n"),
            ("ffffffff80101000", "ffffffff80101000 start"),
            ("0xffffffff80101001 é 0xffffffff8", "0xffffffff80101001 é 0xffffffff8"),
            ("cr2 0x0000000000001000", "cr2 0x0000000000001000"),
            ("0xffffffff801010000", "0xffffffff80101000 start0"),
            ("0xffffffff8é", "0xffffffff8é"),
        ] {
            assert_eq!(annotate(text, known), expected);
        }
    }
}
