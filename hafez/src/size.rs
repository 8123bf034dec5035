//! SIZE, as people write it: `64M`, `1.5G`, `262144k`, `128MiB`, `1GB`, or plain bytes.
//!
//! One letter and the `iB` forms count by 1024, as memory does; `kB`, `MB`, `GB`, `TB` count by 1000, as the units' standard has it.

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const RIGHT: &str = "a size is a number and a unit, such as 64M, 1.5G or 512MiB";
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let (power, base) = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => (0, 1024_u64),
            "k" | "kib" => (1, 1024),
            "m" | "mib" => (2, 1024),
            "g" | "gib" => (3, 1024),
            "t" | "tib" => (4, 1024),
            "kb" => (1, 1000),
            "mb" => (2, 1000),
            "gb" => (3, 1000),
            "tb" => (4, 1000),
            _ if number.is_empty() => return Err(RIGHT.into()),
            _ => {
                return Err(format!(
                    "no unit is called {unit:?}; there are K, M, G, T and KiB, MiB, GiB, TiB"
                ));
            }
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || part.contains('.') || number.ends_with('.') {
            return Err(RIGHT.into());
        }
        let scale = u128::from(base.pow(power));
        let too_big = || "that is more than 16 EiB".to_owned();
        let whole: u128 = whole.parse().map_err(|_| too_big())?;
        let mut bytes = whole.checked_mul(scale).ok_or_else(too_big)?;
        if !part.is_empty() {
            let digits = &part[..part.len().min(15)];
            bytes += digits.parse::<u128>().map_err(|_| RIGHT.to_owned())? * scale
                / 10_u128.pow(digits.len() as u32);
        }
        u64::try_from(bytes).map(Self).map_err(|_| too_big())
    }
}

impl std::fmt::Display for Size {
    /// The largest unit that shows it without a fraction; else one decimal of the largest unit that is not below one.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
        let unit = (0..UNITS.len()).rev().find(|u| self.0 >> (10 * u) > 0).unwrap_or(0);
        let whole = 1_u64 << (10 * unit);
        if self.0.is_multiple_of(whole) {
            write!(f, "{} {}", self.0 / whole, UNITS[unit])
        } else {
            write!(f, "{:.1} {}", self.0 as f64 / whole as f64, UNITS[unit])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Result<u64, String> {
        text.parse::<Size>().map(|s| s.0)
    }

    #[test]
    fn sizes_as_people_write_them() {
        for (text, expected) in [
            ("0", 0),
            ("4096", 4096),
            ("64M", 64 << 20),
            ("64m", 64 << 20),
            ("64MiB", 64 << 20),
            ("64MB", 64_000_000),
            ("1.5G", 3 << 29),
            ("0.5k", 512),
            ("1T", 1 << 40),
            ("262144K", 256 << 20),
            ("7b", 7),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for text in [
            "",
            "M",
            "-1",
            "1..5G",
            ".5G",
            "5.",
            "1 G",
            "12Q",
            "1e3",
            "99999999999T",
            "9".repeat(60).as_str(),
        ] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert!(bytes("12Q").unwrap_err().contains("\"Q\""));
    }

    #[test]
    fn shown_in_the_unit_that_fits() {
        for (n, shown) in [
            (0, "0 bytes"),
            (64 << 20, "64 MiB"),
            (3 << 29, "1.5 GiB"),
            (4096, "4 KiB"),
            (1000, "1000 bytes"),
        ] {
            assert_eq!(Size(n).to_string(), shown);
        }
    }
}
