//! Points in time as producers write them: ISO 8601 text or numbers, read by their digits.
//!
//! Only full, unambiguous forms are understood. What Postgres would interpret (`now`, `today`,
//! `infinity`, dates without zone, names of zones) is refused, as are years outside 1–9999.
//!
//! A [`Timestamp`] ends two hours before the last day of the year 9999 does, so that any offset can
//! be applied to it. Columns hold that day all the same, which many producers write for "no end":
//! what goes into one is counted in microseconds and never passes through a [`Timestamp`].

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};

use crate::config::NumberTime;
use crate::decode::number::{Decimal, integer};

/// 0001-01-01T00:00:00Z.
const FIRST_SECOND: i64 = -62_135_596_800;

/// 9999-12-31T23:59:59Z.
const LAST_SECOND: i64 = 253_402_300_799;

/// 1970-01-01.
const EPOCH: Date = Date::constant(1970, 1, 1);

/// Reads `2026-03-01T10:15:30.123456789Z` or the same with an offset such as `+02:00`: the
/// extended ISO 8601 format with seconds, up to nine fraction digits and a zone.
pub(crate) fn instant(text: &str) -> Option<Timestamp> {
    let (civil, zone) = split_zone(text)?;
    is_date_time(civil).then_some(())?;
    let sound = zone == "Z" || has_form(zone.get(1..)?, "00:00");
    if !sound {
        return None;
    }
    text.parse().ok().filter(in_range)
}

/// Reads what [`instant`] reads, and the last hours of the year 9999: microseconds since 1970.
pub(crate) fn instant_micros(text: &str) -> Option<i64> {
    let (civil, zone) = split_zone(text)?;
    rounded_micros(date_time(civil)?, offset_seconds(zone)?)
}

/// Reads `2026-03-01T10:15:30.123456789`, the same without a zone, as UTC: microseconds since 1970.
pub(crate) fn date_time_micros(text: &str) -> Option<i64> {
    rounded_micros(date_time(text)?, 0)
}

fn date_time(text: &str) -> Option<DateTime> {
    is_date_time(text).then(|| text.parse().ok()).flatten()
}

/// Reads `2026-03-01`: days since 1970-01-01.
pub(crate) fn days(text: &str) -> Option<i32> {
    let date: Date = is_date(text).then(|| text.parse().ok()).flatten()?;
    i32::try_from(date.duration_since(EPOCH).as_hours() / 24).ok()
}

/// Reads `10:15:30` with up to nine fraction digits.
pub(crate) fn time_of_day(text: &str) -> Option<jiff::civil::Time> {
    is_time(text).then(|| text.parse().ok()).flatten()
}

/// Reads a number: with a fraction it is seconds since 1970, without one the configured unit
/// since 1970. More than nine fraction digits are refused unless the rest is zeros.
pub(crate) fn from_number(text: &str, unit: NumberTime) -> Option<Timestamp> {
    let decimal = Decimal::parse(text)?;
    if decimal.exponent.is_some() {
        return None;
    }
    let time = match (decimal.fraction, unit) {
        (Some(fraction), _) => seconds(&decimal, fraction)?,
        (None, NumberTime::Seconds) => Timestamp::from_second(integer(text)?).ok()?,
        (None, NumberTime::Millis) => Timestamp::from_millisecond(integer(text)?).ok()?,
    };
    Some(time).filter(in_range)
}

fn seconds(decimal: &Decimal<'_>, fraction: &str) -> Option<Timestamp> {
    let seconds: i64 = decimal.whole.parse().ok()?;
    let (digits, rest) = fraction.split_at(fraction.len().min(9));
    if rest.bytes().any(|digit| digit != b'0') {
        return None;
    }
    let nanos = digits.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos: i32 = nanos.fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0'));
    let sign = if decimal.negative { -1 } else { 1 };
    Timestamp::new(i64::from(sign) * seconds, sign * nanos).ok()
}

/// Microseconds since 1970, rounded to the nearest as Postgres rounds text with more digits.
pub(crate) fn micros(time: Timestamp) -> i64 {
    let nanos = time.as_nanosecond();
    // Within the years 1–9999 microseconds fit 64 bits by far.
    i64::try_from((nanos + 500).div_euclid(1_000)).unwrap_or(i64::MAX)
}

/// Microseconds since 1970, rounded like [`micros`], of a clock that is ahead of UTC by `offset`
/// seconds.
fn rounded_micros(civil: DateTime, offset: i64) -> Option<i64> {
    let since = civil.duration_since(EPOCH.at(0, 0, 0, 0));
    let nanos = since.as_nanos() - i128::from(offset) * 1_000_000_000;
    let second = i64::try_from(nanos.div_euclid(1_000_000_000)).ok()?;
    if !(FIRST_SECOND..=LAST_SECOND).contains(&second) {
        return None;
    }
    i64::try_from((nanos + 500).div_euclid(1_000)).ok()
}

/// `Z`, or an offset such as `+02:00`, in seconds.
fn offset_seconds(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, clock) = match zone.split_at_checked(1)? {
        ("+", clock) => (1, clock),
        ("-", clock) => (-1, clock),
        _ => return None,
    };
    let (hours, minutes) = has_form(clock, "00:00").then(|| clock.split_once(':')).flatten()?;
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    // As far as an offset of `instant` may go.
    (hours <= 25 && minutes <= 59).then_some(sign * (hours * 3_600 + minutes * 60))
}

fn in_range(time: &Timestamp) -> bool {
    time.as_second() >= FIRST_SECOND
}

/// Splits at the `Z` or at the sign of the offset.
fn split_zone(text: &str) -> Option<(&str, &str)> {
    // The sign of an offset stands behind the date, whose own dashes end at the tenth byte.
    let from = text.get(10..)?.find(['Z', '+', '-'])? + 10;
    Some(text.split_at(from))
}

fn is_date_time(text: &str) -> bool {
    text.get(..10).is_some_and(is_date)
        && text.get(10..11) == Some("T")
        && text.get(11..).is_some_and(is_time)
}

fn is_date(text: &str) -> bool {
    has_form(text, "0000-00-00") && !text.starts_with("0000")
}

fn is_time(text: &str) -> bool {
    let Some((clock, fraction)) = text.split_at_checked(8) else { return false };
    let fraction_sound = match fraction.strip_prefix('.') {
        Some(digits) => {
            (1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
        }
        None => fraction.is_empty(),
    };
    // Second 60 is valid ISO, but no clock in the database has it.
    has_form(clock, "00:00:00") && fraction_sound && !clock.ends_with("60")
}

/// Whether `text` has digits where `form` has zeros, and is the same elsewhere.
fn has_form(text: &str, form: &str) -> bool {
    text.len() == form.len()
        && text
            .bytes()
            .zip(form.bytes())
            .all(|(byte, place)| if place == b'0' { byte.is_ascii_digit() } else { byte == place })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text_of(time: Option<Timestamp>) -> Option<String> {
        time.map(|time| time.to_string())
    }

    #[test]
    fn iso_text_needs_seconds_and_a_zone() {
        for (text, same) in [
            ("2026-03-01T10:15:30Z", "2026-03-01T10:15:30Z"),
            ("2026-03-01T10:15:30.123Z", "2026-03-01T10:15:30.123Z"),
            ("2026-03-01T10:15:30.123456789Z", "2026-03-01T10:15:30.123456789Z"),
            ("2026-05-01T02:00:00.5+02:00", "2026-05-01T00:00:00.5Z"),
            ("2026-05-01T02:00:00-02:30", "2026-05-01T04:30:00Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(text_of(instant(text)).as_deref(), Some(same), "{text}");
        }
        for text in [
            "",
            "now",
            "today",
            "infinity",
            "2026-03-01",
            "2026-03-01T10:15:30",
            "2026-03-01T10:15Z",
            "2026-03-01 10:15:30Z",
            "2026-03-01t10:15:30z",
            "20260301T101530Z",
            "2026-02-30T10:15:30Z",
            "2026-03-01T24:00:00Z",
            "2026-03-01T23:59:60Z",
            "2026-03-01T10:15:30.Z",
            "2026-03-01T10:15:30,5Z",
            "2026-03-01T10:15:30.1234567890Z",
            "2026-03-01T10:15:30+0200",
            "2026-03-01T10:15:30+02:00[Europe/Berlin]",
            "0000-01-01T00:00:00Z",
            "-000001-01-01T00:00:00Z",
            "+12026-03-01T10:15:30Z",
            "0001-01-01T00:00:00+01:00",
            "2026-03-01T10:15:3\u{660}Z",
        ] {
            assert_eq!(instant(text), None, "{text}");
        }
    }

    #[test]
    fn decimal_numbers_are_seconds_digit_for_digit() {
        let read = |text| text_of(from_number(text, NumberTime::Millis));
        assert_eq!(read("1772360130.123456789").as_deref(), Some("2026-03-01T10:15:30.123456789Z"));
        assert_eq!(read("-0.500000000").as_deref(), Some("1969-12-31T23:59:59.5Z"));
        assert_eq!(read("-1.25").as_deref(), Some("1969-12-31T23:59:58.75Z"));
        assert_eq!(read("0.0000000010").as_deref(), Some("1970-01-01T00:00:00.000000001Z"));
        for text in ["0.0000000001", "1e3", "1.5e3", "99999999999999999999.5", "-99999999999.0"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn whole_numbers_have_the_configured_unit() {
        let time = text_of(from_number("1772360130123", NumberTime::Millis));
        assert_eq!(time.as_deref(), Some("2026-03-01T10:15:30.123Z"));
        let time = text_of(from_number("-500", NumberTime::Millis));
        assert_eq!(time.as_deref(), Some("1969-12-31T23:59:59.5Z"));
        let time = text_of(from_number("1772360130", NumberTime::Seconds));
        assert_eq!(time.as_deref(), Some("2026-03-01T10:15:30Z"));
        assert_eq!(from_number("9223372036854775807", NumberTime::Seconds), None);
        assert_eq!(from_number("1772360130123", NumberTime::Seconds), None);
    }

    #[test]
    fn microseconds_are_rounded_to_the_nearest() {
        let micros_at = |text: &str| micros(text.parse().unwrap());
        assert_eq!(micros_at("1970-01-01T00:00:00.000001499Z"), 1);
        assert_eq!(micros_at("1970-01-01T00:00:00.0000015Z"), 2);
        assert_eq!(micros_at("1969-12-31T23:59:59.9999984Z"), -2);
        assert_eq!(date_time_micros("1970-01-02T00:00:00"), Some(86_400_000_000));
        assert_eq!(instant_micros("1970-01-01T00:00:00.0000015Z"), Some(2));
        assert_eq!(instant_micros("1969-12-31T23:59:59.9999984Z"), Some(-2));
    }

    #[test]
    fn columns_hold_the_whole_of_the_years_1_to_9999() {
        let last = 253_402_300_799_000_000;
        assert_eq!(days("9999-12-31"), Some(2_932_896));
        assert_eq!(days("0001-01-01"), Some(-719_162));
        assert_eq!(days("1969-12-31"), Some(-1));
        assert_eq!(date_time_micros("9999-12-31T23:59:59"), Some(last));
        assert_eq!(instant_micros("9999-12-31T23:59:59Z"), Some(last));
        assert_eq!(instant_micros("9999-12-31T23:59:59.999999Z"), Some(last + 999_999));
        assert_eq!(instant_micros("9999-12-31T23:59:59+14:00"), Some(last - 14 * 3_600_000_000));
        assert_eq!(instant_micros("0001-01-01T00:00:00Z"), Some(-62_135_596_800_000_000));
        for text in [
            "9999-12-31T23:59:59-00:01",
            "0001-01-01T00:00:00+00:01",
            "2026-01-01T00:00:00+26:00",
            "2026-01-01T00:00:00Z01:00",
        ] {
            assert_eq!(instant_micros(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text in "\\PC{0,40}") {
            instant(&text);
            date_time_micros(&text);
            days(&text);
            time_of_day(&text);
            from_number(&text, NumberTime::Seconds);
        }

        #[test]
        fn what_jiff_writes_is_read_back(nanos in -62_135_596_800_000_000_000_i128..253_402_207_200_000_000_000) {
            let time = Timestamp::from_nanosecond(nanos).unwrap();
            prop_assert_eq!(instant(&time.to_string()), Some(time));
        }

        #[test]
        fn both_readers_of_an_instant_agree(
            text in "[0-9]{4}-(0[1-9]|1[0-3])-(0[1-9]|[12][0-9]|3[01])T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-][0-2][0-9]:[0-6][0-9])"
        ) {
            if let Some(time) = instant(&text) {
                prop_assert_eq!(instant_micros(&text), Some(micros(time)), "{}", text);
            } else if !text.starts_with("9999-12-3") {
                prop_assert_eq!(instant_micros(&text), None, "{}", text);
            }
        }
    }
}
