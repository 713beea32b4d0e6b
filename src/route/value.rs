//! Fits what a source found to a column's type, so that Postgres has nothing left to interpret.
//!
//! A column that is no JSON takes the value as text and reads it by the one form below. The text
//! of a JSON string is its content, of a number its digits, of a boolean its word; objects and
//! arrays have none. Null is SQL NULL for every type, `json` and `jsonb` included.
//!
//! | column | form |
//! | --- | --- |
//! | `boolean` | `true`, `false` |
//! | `smallint`, `integer`, `bigint` | digits with an optional minus, in range |
//! | `real`, `double precision` | a JSON number that neither overflows nor vanishes |
//! | `numeric` | a JSON number; its digits are kept |
//! | text types | any text that is not too long |
//! | enum | one of the labels |
//! | `uuid` | 8-4-4-4-12 hexadecimal digits |
//! | `timestamptz` | `2026-03-01T10:15:30.123Z`, or with an offset; never a number or a word |
//! | `timestamp` | the same, kept as UTC, or without a zone |
//! | `date`, `time` | `2026-03-01`, `10:15:30.123` |
//! | `json`, `jsonb` | any JSON; text from a header, constant or field becomes a JSON string |
//! | `bytea` | only the whole key or value, byte for byte: text has no one reading as bytes |
//!
//! The record's own timestamp and the envelope's time are points in time already and fit
//! `timestamptz`, `timestamp` and text. Fractions beyond microseconds are rounded as Postgres
//! rounds them; it does the same, itself, to digits beyond a declared scale or precision
//! (`numeric(10, 2)`, `timestamp(3)`).

use std::borrow::Cow;

use crate::decode::{self, Decimal, Document, Found, integer, json_text, micros, quoted, storable};
use crate::sql::column_type::ColumnType;
use pgsluice_core::event::Value;
use pgsluice_core::record::Raw;
use pgsluice_core::text::Text;

/// How deep JSON from a key may be nested; what comes from the value was checked with it.
const MAX_DEPTH: usize = 128;

/// Digits before the dot that `numeric` can hold.
const NUMERIC_WHOLE: i64 = 131_072;

/// Digits after the dot that `numeric` can hold.
const NUMERIC_FRACTION: i64 = 16_383;

/// The value for a column of this type; `None` when it does not fit. It was found in the record
/// `raw`, or made from it.
pub(crate) fn fit(found: Found<'_>, ty: &ColumnType, raw: &Raw) -> Option<Value> {
    if let Found::Null = found {
        return Some(Value::Null);
    }
    match (ty, found) {
        (ColumnType::Json | ColumnType::Jsonb, found) => json(found, raw).map(Value::Json),
        (ColumnType::Bytea, Found::Raw(bytes, _)) => Some(Value::Bytes(raw.slice(bytes))),
        (ColumnType::Timestamp | ColumnType::Timestamptz, Found::Instant(time)) => {
            Some(Value::Timestamp(micros(time)))
        }
        (_, found) => read(text(found)?, ty, raw),
    }
}

/// The value as text, where it has one.
fn text(found: Found<'_>) -> Option<Cow<'_, str>> {
    match found {
        Found::Null => None,
        Found::Text(text) => Some(text),
        Found::Json(json) if matches!(&*json, "true" | "false") => Some(json),
        Found::Json(json) => json_text(json),
        Found::Raw(bytes, _) => storable(bytes).map(Cow::Borrowed),
        Found::Int(number) => Some(Cow::Owned(number.to_string())),
        Found::Instant(time) => Some(Cow::Owned(time.to_string())),
    }
}

fn read(text: Cow<'_, str>, ty: &ColumnType, raw: &Raw) -> Option<Value> {
    match ty {
        ColumnType::Bool => match &*text {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            _ => None,
        },
        ColumnType::Int2 => within(&text, i16::MIN.into(), i16::MAX.into()),
        ColumnType::Int4 => within(&text, i32::MIN.into(), i32::MAX.into()),
        ColumnType::Int8 => within(&text, i64::MIN, i64::MAX),
        ColumnType::Float4 => float(&text, |text| text.parse::<f32>().ok().map(f64::from)),
        ColumnType::Float8 => float(&text, |text| text.parse().ok()),
        ColumnType::Numeric => numeric(&text).then(|| Value::Text(raw.text(text))),
        ColumnType::Text { max_chars } | ColumnType::Char { max_chars } => {
            let fits = max_chars.is_none_or(|max| has_at_most(&text, max));
            fits.then(|| Value::Text(raw.text(text)))
        }
        ColumnType::Citext { .. } => Some(Value::Text(raw.text(text))),
        ColumnType::Enum { labels, .. } => {
            let known = labels.iter().any(|label| **label == *text);
            known.then(|| Value::Text(raw.text(text)))
        }
        ColumnType::Uuid => uuid(&text).map(Value::Uuid),
        ColumnType::Timestamptz => decode::instant_micros(&text).map(Value::Timestamp),
        ColumnType::Timestamp => decode::instant_micros(&text)
            .or_else(|| decode::date_time_micros(&text))
            .map(Value::Timestamp),
        ColumnType::Date => decode::days(&text).map(Value::Date),
        ColumnType::Time => decode::time_of_day(&text).map(|time| {
            let nanos = i64::from(time.hour()) * 3_600_000_000_000
                + i64::from(time.minute()) * 60_000_000_000
                + i64::from(time.second()) * 1_000_000_000
                + i64::from(time.subsec_nanosecond());
            Value::Time((nanos + 500) / 1_000)
        }),
        // Taken care of before: their values are not read from text.
        ColumnType::Json | ColumnType::Jsonb | ColumnType::Bytea => None,
    }
}

/// Any JSON as it is; text becomes a JSON string.
fn json(found: Found<'_>, raw: &Raw) -> Option<Text> {
    Some(match found {
        Found::Null => return None,
        Found::Json(json) => raw.text(json),
        Found::Raw(bytes, _) => {
            let reading = Document::read(bytes, MAX_DEPTH);
            let document = reading.document.filter(|_| reading.problem.is_none())?;
            raw.text(Cow::Borrowed(document.text))
        }
        Found::Int(number) => number.to_string().into(),
        Found::Text(text) => quoted(&text).into(),
        Found::Instant(time) => quoted(&time.to_string()).into(),
    })
}

fn within(text: &str, min: i64, max: i64) -> Option<Value> {
    integer(text).filter(|number| (min..=max).contains(number)).map(Value::Int)
}

/// A floating point number. Postgres refuses numbers that overflow and such that become zero;
/// `read` alone would let both pass.
fn float(text: &str, read: impl Fn(&str) -> Option<f64>) -> Option<Value> {
    let decimal = Decimal::parse(text)?;
    let number = read(text)?;
    let vanished = number == 0.0 && !decimal.is_zero();
    (number.is_finite() && !vanished).then_some(Value::Float(number))
}

/// Whether `text` is a number that `numeric` without precision can hold with all its digits.
fn numeric(text: &str) -> bool {
    let Some(decimal) = Decimal::parse(text) else { return false };
    let exponent: i64 = match decimal.exponent.map(str::parse) {
        None => 0,
        Some(Ok(exponent)) => exponent,
        Some(Err(_)) => return false,
    };
    // Lengths are bounded by the record's size and cannot overflow; exponents can.
    let length = |digits: &str| i64::try_from(digits.len()).unwrap_or(i64::MAX);
    let whole = length(decimal.whole).saturating_add(exponent);
    let fraction = length(decimal.fraction.unwrap_or("")).saturating_sub(exponent);
    whole <= NUMERIC_WHOLE && fraction <= NUMERIC_FRACTION
}

fn has_at_most(text: &str, max: u32) -> bool {
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    text.len() <= max || text.chars().count() <= max
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let sound = text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    if !sound {
        return None;
    }
    let number = u128::from_str_radix(&text.replace('-', ""), 16).ok()?;
    Some(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use pgsluice_core::verdict::Reason;

    fn fit(found: Found<'_>, ty: &ColumnType) -> Option<Value> {
        super::fit(found, ty, &Raw::default())
    }

    fn enum_type() -> ColumnType {
        ColumnType::Enum { sql: "\"public\".\"mood\"".into(), labels: vec!["ok".into()] }
    }

    const TEXT: ColumnType = ColumnType::Text { max_chars: None };

    fn all_types() -> Vec<ColumnType> {
        use ColumnType::*;
        vec![
            Bool,
            Int2,
            Int4,
            Int8,
            Float4,
            Float8,
            Numeric,
            TEXT,
            Char { max_chars: None },
            Citext { schema: "public".into() },
            Json,
            Jsonb,
            Bytea,
            Timestamp,
            Timestamptz,
            Date,
            Time,
            Uuid,
            enum_type(),
        ]
    }

    fn of_json(json: &str, ty: &ColumnType) -> Option<Value> {
        fit(Found::json(json), ty)
    }

    fn of_text(text: &str, ty: &ColumnType) -> Option<Value> {
        fit(Found::Text(Cow::Borrowed(text)), ty)
    }

    fn text_value(text: &str) -> Option<Value> {
        Some(Value::Text(text.into()))
    }

    #[test]
    fn null_is_sql_null_for_every_type() {
        for ty in all_types() {
            assert_eq!(of_json("null", &ty), Some(Value::Null), "{ty:?}");
        }
    }

    #[test]
    fn words_that_postgres_would_interpret_fit_only_text() {
        let words =
            ["now", "today", "infinity", "-infinity", "NaN", "Infinity", "epoch", "allballs", "t"];
        for ty in all_types() {
            let takes_text = matches!(
                ty,
                ColumnType::Text { .. }
                    | ColumnType::Char { .. }
                    | ColumnType::Citext { .. }
                    | ColumnType::Json
                    | ColumnType::Jsonb
            );
            for word in words {
                let json = format!("\"{word}\"");
                assert_eq!(of_json(&json, &ty).is_some(), takes_text, "{word} in {ty:?}");
                assert_eq!(of_text(word, &ty).is_some(), takes_text, "{word} in {ty:?}");
            }
        }
    }

    #[test]
    fn integers_are_checked_against_their_range() {
        let fits = |json, ty| of_json(json, &ty).is_some();
        assert_eq!(of_json("-32768", &ColumnType::Int2), Some(Value::Int(-32768)));
        assert!(!fits("32768", ColumnType::Int2));
        assert!(fits("2147483647", ColumnType::Int4) && !fits("2147483648", ColumnType::Int4));
        assert!(!fits("9223372036854775808", ColumnType::Int8));
        assert_eq!(of_json("\"42\"", &ColumnType::Int8), Some(Value::Int(42)));
        assert_eq!(fit(Found::Int(7), &ColumnType::Int2), Some(Value::Int(7)));
        for json in ["1.0", "1e3", "true", "\"\"", "\"+1\"", "\" 1\"", "[]", "{}"] {
            assert!(!fits(json, ColumnType::Int8), "{json}");
        }
    }

    #[test]
    fn numeric_keeps_every_digit() {
        for json in
            ["0.100000000000000000000000000001", "1e400", "-0.0", "1.10", "18446744073709551616"]
        {
            assert_eq!(of_json(json, &ColumnType::Numeric), text_value(json));
        }
        assert_eq!(of_json("\"1.10\"", &ColumnType::Numeric), text_value("1.10"));
        for json in
            ["1e200000", "1e-20000", "1e99999999999999999999", "\"1,5\"", "\"0x10\"", "true"]
        {
            assert_eq!(of_json(json, &ColumnType::Numeric), None, "{json}");
        }
    }

    #[test]
    fn floats_neither_overflow_nor_vanish() {
        assert_eq!(of_json("1.5", &ColumnType::Float4), Some(Value::Float(1.5)));
        assert_eq!(of_json("0e-999", &ColumnType::Float8), Some(Value::Float(0.0)));
        for (json, ty) in [
            ("1e39", ColumnType::Float4),
            ("1e-60", ColumnType::Float4),
            ("1e400", ColumnType::Float8),
            ("1e-400", ColumnType::Float8),
        ] {
            assert_eq!(of_json(json, &ty), None, "{json}");
        }
    }

    #[test]
    fn text_takes_scalars_and_counts_characters() {
        let short = ColumnType::Text { max_chars: Some(3) };
        assert_eq!(of_json("\"žof\"", &short), text_value("žof"));
        assert_eq!(of_json("\"four\"", &short), None);
        assert_eq!(of_json("1.10", &TEXT), text_value("1.10"));
        assert_eq!(of_json("true", &TEXT), text_value("true"));
        assert_eq!(of_json(r#""a\n\u00e9""#, &TEXT), text_value("a\né"));
        assert_eq!(of_json("{}", &TEXT), None);
        assert_eq!(of_json("[1]", &TEXT), None);
        assert_eq!(fit(Found::Raw(b"c-1", Reason::KeyEncoding), &TEXT), text_value("c-1"));
        for bytes in [&b"\xff"[..], b"a\0b"] {
            assert_eq!(fit(Found::Raw(bytes, Reason::KeyEncoding), &TEXT), None);
        }
    }

    #[test]
    fn times_are_read_strictly() {
        let day = 86_400_000_000;
        let cases = [
            ("1970-01-02T00:00:00Z", ColumnType::Timestamptz, Some(Value::Timestamp(day))),
            ("1970-01-02T02:00:00+02:00", ColumnType::Timestamp, Some(Value::Timestamp(day))),
            ("1970-01-02T00:00:00.5", ColumnType::Timestamp, Some(Value::Timestamp(day + 500_000))),
            ("1970-01-02T00:00:00", ColumnType::Timestamptz, None),
            ("1970-01-02", ColumnType::Timestamp, None),
            ("1970-01-02", ColumnType::Date, Some(Value::Date(1))),
            ("1969-12-31", ColumnType::Date, Some(Value::Date(-1))),
            ("9999-12-31", ColumnType::Date, Some(Value::Date(2_932_896))),
            (
                "9999-12-31T23:59:59Z",
                ColumnType::Timestamptz,
                Some(Value::Timestamp(253_402_300_799_000_000)),
            ),
            ("1970-01-02T00:00:00Z", ColumnType::Date, None),
            ("00:00:01.0000005", ColumnType::Time, Some(Value::Time(1_000_001))),
            ("24:00:00", ColumnType::Time, None),
            ("10:15", ColumnType::Time, None),
        ];
        for (text, ty, value) in cases {
            assert_eq!(of_text(text, &ty), value, "{text} as {ty:?}");
        }
        for ty in [ColumnType::Timestamp, ColumnType::Timestamptz, ColumnType::Date] {
            assert_eq!(of_json("1772360130123", &ty), None, "{ty:?}");
        }
        let time = jiff::Timestamp::from_millisecond(5).unwrap();
        let ty = ColumnType::Timestamptz;
        assert_eq!(fit(Found::Instant(time), &ty), Some(Value::Timestamp(5_000)));
        assert_eq!(fit(Found::Instant(time), &ColumnType::Date), None);
    }

    #[test]
    fn uuids_and_labels_are_exact() {
        let text = "\"7D8E0000-0000-4000-8000-0000000000fF\"";
        let Some(Value::Uuid(bytes)) = of_json(text, &ColumnType::Uuid) else { panic!() };
        assert_eq!((bytes[0], bytes[15]), (0x7d, 0xff));
        for text in [
            "{7d8e0000-0000-4000-8000-0000000000ff}",
            "7d8e0000000040008000000000000000",
            "+d8e0000-0000-4000-8000-0000000000ff",
        ] {
            assert_eq!(of_text(text, &ColumnType::Uuid), None, "{text}");
        }
        assert_eq!(of_text("ok", &enum_type()), text_value("ok"));
        assert_eq!(of_text("OK", &enum_type()), None);
    }

    #[test]
    fn json_takes_anything_and_quotes_text() {
        let as_json = |found| match fit(found, &ColumnType::Jsonb) {
            Some(Value::Json(json)) => Some(json.as_str().to_owned()),
            _ => None,
        };
        assert_eq!(as_json(Found::json("1.0e5")).as_deref(), Some("1.0e5"));
        assert_eq!(as_json(Found::Int(3)).as_deref(), Some("3"));
        assert_eq!(as_json(Found::Text("a\"b".into())).as_deref(), Some(r#""a\"b""#));
        assert_eq!(as_json(Found::Raw(b" {} ", Reason::KeyEncoding)).as_deref(), Some("{}"));
        assert_eq!(as_json(Found::Raw(b"c-1", Reason::KeyEncoding)), None);
        assert_eq!(as_json(Found::Raw(br#""\u0000""#, Reason::KeyEncoding)), None);
    }

    #[test]
    fn bytea_takes_only_the_raw_key_or_value() {
        let raw = Found::Raw(b"\xff\0", Reason::KeyEncoding);
        assert_eq!(fit(raw, &ColumnType::Bytea), Some(Value::Bytes((&[0xff, 0][..]).into())));
        assert_eq!(of_json("\"AAEC\"", &ColumnType::Bytea), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_fitting_panic(text in "\\PC{0,40}") {
            for ty in all_types() {
                of_text(&text, &ty);
            }
        }

        #[test]
        fn numbers_survive_or_are_refused(number in proptest::num::f64::NORMAL) {
            let text = format!("{number:e}");
            let value = of_text(&text, &ColumnType::Float8);
            prop_assert_eq!(value, Some(Value::Float(number)));
        }
    }
}
