//! The line at the end.

use crate::size::Size;
use hafez_link::Summary;

/// One line: time, RAM given, peak resident and swapped, faults by kind, bytes swapped.
pub fn line(s: &Summary, memory: Size) -> String {
    let time = s.run_ns as f64 / 1e9;
    let mut line = format!(
        "{time:.2} s in {memory} of RAM; peak {} ({} resident); faults: {} minor, {} file, {} swap",
        Size(s.peak),
        Size(s.peak_resident),
        thousands(s.minor_faults),
        thousands(s.major_file),
        thousands(s.major_swap),
    );
    if s.swapped_out + s.swapped_in + s.same_filled > 0 {
        line += &format!("; swap: {} out, {} in", Size(s.swapped_out), Size(s.swapped_in));
    }
    line
}

fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_one_line() {
        let s = Summary {
            peak: 312 << 20,
            peak_resident: 58 << 20,
            minor_faults: 81_234,
            major_file: 31,
            major_swap: 1_000_000,
            swapped_out: 640 << 20,
            swapped_in: 612 << 20,
            run_ns: 12_340_000_000,
            ..Summary::default()
        };
        assert_eq!(
            line(&s, Size(64 << 20)),
            "12.34 s in 64 MiB of RAM; peak 312 MiB (58 MiB resident); faults: 81,234 minor, 31 file, 1,000,000 swap; swap: 640 MiB out, 612 MiB in"
        );
    }
}
