//! Numbers by their digits. Nothing here goes through a double.

/// A whole number that is not negative, as producers write versions and nonces: decimal digits
/// only, leading zeros allowed (padded sequences), within 64 bits with sign.
pub(crate) fn whole(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// A whole number with an optional minus: no plus, no fraction, no exponent.
pub(crate) fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// A decimal number taken apart by JSON's grammar, which knows neither `NaN` nor `Infinity`, no
/// plus before the number, no leading zeros and no bare dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decimal<'a> {
    /// A minus stands before it.
    pub(crate) negative: bool,
    /// Digits before the dot, at least one.
    pub(crate) whole: &'a str,
    /// Digits after the dot; `None` without a dot.
    pub(crate) fraction: Option<&'a str>,
    /// Digits after `e` with their sign; `None` without an exponent.
    pub(crate) exponent: Option<&'a str>,
}

impl<'a> Decimal<'a> {
    /// Reads a number by JSON's grammar.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (unsigned, None),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (mantissa, None),
        };
        let sound = digits(whole)
            && (whole == "0" || !whole.starts_with('0'))
            && fraction.is_none_or(digits)
            && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)));
        sound.then_some(Self { negative, whole, fraction, exponent })
    }

    /// Whether every digit is zero.
    pub(crate) fn is_zero(&self) -> bool {
        self.whole.bytes().chain(self.fraction.unwrap_or("").bytes()).all(|digit| digit == b'0')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_numbers_are_digits_within_64_bits() {
        assert_eq!(whole("0"), Some(0));
        assert_eq!(whole("0007"), Some(7));
        assert_eq!(whole("9223372036854775807"), Some(i64::MAX));
        for text in ["", "-1", "-0", "+1", "9.0", "1e3", "9223372036854775808", " 1", "1_000", "١"]
        {
            assert_eq!(whole(text), None, "{text}");
        }
        assert_eq!(integer("-9223372036854775808"), Some(i64::MIN));
        for text in ["", "-", "--1", "+1", "1.0"] {
            assert_eq!(integer(text), None, "{text}");
        }
    }

    #[test]
    fn decimals_follow_the_grammar_of_json() {
        let decimal = Decimal::parse("-12.50e+3").unwrap();
        assert!(decimal.negative);
        assert_eq!(
            (decimal.whole, decimal.fraction, decimal.exponent),
            ("12", Some("50"), Some("+3"))
        );
        assert!(Decimal::parse("0.00e9").unwrap().is_zero());
        for text in
            ["", "-", "+1", "01", ".5", "5.", "1e", "1e+", "NaN", "Infinity", "1 ", "0x1", "1e5e5"]
        {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn decimals_are_exactly_what_a_json_parser_takes_for_numbers(text in "[-+0-9.eE]{0,8}") {
            let json = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            prop_assert_eq!(Decimal::parse(&text).is_some(), json);
        }
    }
}
