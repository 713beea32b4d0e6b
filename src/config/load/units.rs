//! Sizes and durations as they are written: always with their unit.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A number of bytes, written with its unit, e.g. `8MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// Bounds of every size that is set: one KiB to a TiB. Zero would stop everything, more is a mistake.
pub(in crate::config) const SIZES: RangeInclusive<Bytes> = Bytes(1 << 10)..=Bytes(1 << 40);

/// Units in the order in which they are tried; a longer suffix comes before its own ending.
const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

impl Bytes {
    /// So many binary megabytes.
    pub const fn mebibytes(count: u64) -> Self {
        Self(count << 20)
    }

    /// Reads a whole number with a unit (`B`, `kB`, `MB`, `GB`, `KiB`, `MiB`, `GiB`).
    ///
    /// # Errors
    /// A sentence for the operator when the text has another form or does not fit 64 bits.
    pub fn parse(text: &str) -> Result<Self, String> {
        let explain = || "expected a size with its unit, such as \"8MiB\" or \"512KiB\"".to_owned();
        let text = text.trim();
        let (number, factor) = UNITS
            .iter()
            .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
            .ok_or_else(explain)?;
        let number: u64 = number.trim_end().parse().map_err(|_| explain())?;
        number.checked_mul(factor).map(Self).ok_or_else(explain)
    }

    /// The number of bytes as this platform counts memory; saturates on 32-bit platforms.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
            .into_iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match exact {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// Reads a duration with its unit, e.g. `5ms`, `30s`, `1m 30s`.
///
/// # Errors
/// A sentence for the operator when the text has another form.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| {
        "expected a duration with its unit, such as \"5ms\", \"30s\" or \"15m\"".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_with_binary_and_decimal_units() {
        assert_eq!(Bytes::parse("8MiB"), Ok(Bytes(8 << 20)));
        assert_eq!(Bytes::parse("8 MB"), Ok(Bytes(8_000_000)));
        assert_eq!(Bytes::parse("512KiB"), Ok(Bytes(512 << 10)));
        assert_eq!(Bytes::parse("17B"), Ok(Bytes(17)));
    }

    #[test]
    fn a_size_without_a_unit_or_beyond_64_bits_is_refused() {
        for text in ["8", "", "MiB", "-1MiB", "1.5MiB", "99999999999999GiB", "8mib"] {
            assert!(Bytes::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_prints_in_its_largest_exact_unit() {
        assert_eq!(Bytes(8 << 20).to_string(), "8MiB");
        assert_eq!(Bytes(1_000_000).to_string(), "1000000B");
        assert_eq!(Bytes(0).to_string(), "0B");
    }

    #[test]
    fn a_duration_needs_its_unit() {
        assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(parse_duration("30").is_err());
    }
}
