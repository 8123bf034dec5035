//! Figures by name, as the programs of `guests/` print them.

use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// One operation's cost: instructions, unless its row says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    pub median: u64,
    pub least: u64,
    pub samples: u64,
}

impl Figure {
    /// Measured once.
    pub fn single(value: u64) -> Self {
        Self { median: value, least: value, samples: 1 }
    }

    /// Of several values; `None` of none.
    pub fn of(values: impl Iterator<Item = u64>) -> Option<Self> {
        let mut values: Vec<u64> = values.collect();
        values.sort_unstable();
        let samples = values.len() as u64;
        Some(Self { median: *values.get(values.len() / 2)?, least: *values.first()?, samples })
    }
}

#[derive(Clone, Default, Debug)]
pub struct Figures(BTreeMap<String, Figure>);

impl Figures {
    pub fn get(&self, name: &str) -> Option<Figure> {
        self.0.get(name).copied()
    }
    pub fn set(&mut self, name: &str, figure: Figure) {
        self.0.insert(name.into(), figure);
    }
    pub fn iter(&self) -> impl Iterator<Item = (&str, Figure)> {
        self.0.iter().map(|(name, figure)| (name.as_str(), *figure))
    }

    /// Takes in lines of `name median least samples`, or `name value`. `name none`, where nothing could be measured, is no figure.
    pub fn read(&mut self, text: &str) -> Result<()> {
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let mut words = line.split_ascii_whitespace();
            let name = words.next().context("an empty line")?;
            let numbers: Vec<&str> = words.collect();
            let number =
                |text: &str| text.parse().with_context(|| format!("not a line of figures: {line:?}"));
            let figure = match numbers[..] {
                ["none"] => continue,
                [value] => Figure::single(number(value)?),
                [median, least, samples] => {
                    Figure { median: number(median)?, least: number(least)?, samples: number(samples)? }
                }
                _ => anyhow::bail!("not a line of figures: {line:?}"),
            };
            self.set(name, figure);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_values_have_a_median() {
        assert_eq!(Figure::of([5, 1, 9].into_iter()), Some(Figure { median: 5, least: 1, samples: 3 }));
        assert_eq!(Figure::of(std::iter::empty()), None);
    }

    #[test]
    fn lines_are_read() {
        let mut figures = Figures::default();
        figures.read("null 105 104 2000\nboot 27\n\nhuge none\n").expect("figures");
        assert_eq!(figures.get("null"), Some(Figure { median: 105, least: 104, samples: 2000 }));
        assert_eq!(figures.get("boot"), Some(Figure::single(27)));
        assert_eq!(figures.get("huge"), None);
        assert!(figures.read("null many").is_err());
        assert!(figures.read("null 1 2").is_err());
    }
}
