//! Binds values in Postgres' binary form, so that no text of an event is ever interpreted by the
//! server.
//!
//! The parameter types are declared when a statement is prepared and a [`Cell`] is encoded for
//! exactly that type; anything else is an error before a byte is sent, and means that the target
//! changed under us ([`pgsluice_core::fault::FaultKind::DriverType`]). Only digits of a `numeric` and
//! enum labels travel as text: both were checked against the column, and the statement casts them.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use bytes::{BufMut, BytesMut};
use postgres_protocol::types::{ArrayDimension, array_to_sql};
use tokio_postgres::types::{IsNull, Kind, ToSql, Type, to_sql_checked};

use pgsluice_core::envelope::FieldValue;
use pgsluice_core::event::Value;

/// Microseconds from 1970-01-01 to 2000-01-01, where Postgres counts from.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// Days from 1970-01-01 to 2000-01-01.
const EPOCH_DAYS: i32 = 10_957;
/// The only version of `jsonb`'s binary form.
const JSONB_VERSION: u8 = 1;

/// One value of a parameter or of an element of an array parameter.
///
/// `Debug` shows the kind only (INV-9).
#[derive(Clone, PartialEq)]
pub enum Cell<'a> {
    /// SQL NULL, of any type.
    Null,
    /// `boolean`.
    Bool(bool),
    /// `smallint`, `integer` or `bigint`, whichever is declared; out of range is an error.
    Int(i64),
    /// `real` or `double precision`.
    Float(f64),
    /// `text`.
    Text(Cow<'a, str>),
    /// `json` or `jsonb`; checked JSON text.
    Json(Cow<'a, str>),
    /// `bytea`.
    Bytes(&'a [u8]),
    /// `timestamp` or `timestamptz`: microseconds since 1970-01-01 UTC.
    Timestamp(i64),
    /// `date`: days since 1970-01-01.
    Date(i32),
    /// `time`: microseconds since midnight.
    Time(i64),
    /// `uuid`.
    Uuid([u8; 16]),
}

impl<'a> Cell<'a> {
    /// Text, or NULL for `None`.
    pub fn text(text: Option<&'a str>) -> Self {
        text.map_or(Self::Null, |text| Self::Text(Cow::Borrowed(text)))
    }

    /// Text of a record that may hold anything, for people: U+0000, which no text column takes,
    /// becomes the replacement character.
    pub fn shown(text: Option<&'a str>) -> Self {
        match text {
            Some(text) if text.contains('\0') => Self::Text(text.replace('\0', "\u{fffd}").into()),
            text => Self::text(text),
        }
    }

    /// A whole number, or NULL for `None`.
    pub fn int(number: Option<i64>) -> Self {
        number.map_or(Self::Null, Self::Int)
    }

    /// Bytes, or NULL for `None`; empty stays empty (INV-6).
    pub fn bytes(bytes: Option<&'a [u8]>) -> Self {
        bytes.map_or(Self::Null, Self::Bytes)
    }

    fn encode(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Mismatch> {
        match self {
            Self::Null => return Ok(IsNull::Yes),
            Self::Bool(value) if *ty == Type::BOOL => out.put_u8(u8::from(*value)),
            Self::Int(value) => encode_int(*value, ty, out)?,
            #[expect(clippy::cast_possible_truncation, reason = "rounded as the column would")]
            Self::Float(value) if *ty == Type::FLOAT4 => out.put_f32(*value as f32),
            Self::Float(value) if *ty == Type::FLOAT8 => out.put_f64(*value),
            Self::Text(text) if *ty == Type::TEXT => out.put_slice(text.as_bytes()),
            Self::Json(text) if *ty == Type::JSON => out.put_slice(text.as_bytes()),
            Self::Json(text) if *ty == Type::JSONB => {
                out.put_u8(JSONB_VERSION);
                out.put_slice(text.as_bytes());
            }
            Self::Bytes(bytes) if *ty == Type::BYTEA => out.put_slice(bytes),
            Self::Timestamp(micros) if matches!(*ty, Type::TIMESTAMP | Type::TIMESTAMPTZ) => {
                out.put_i64(micros.checked_sub(EPOCH_MICROS).ok_or(Mismatch)?);
            }
            Self::Date(days) if *ty == Type::DATE => {
                out.put_i32(days.checked_sub(EPOCH_DAYS).ok_or(Mismatch)?);
            }
            Self::Time(micros) if *ty == Type::TIME => out.put_i64(*micros),
            Self::Uuid(bytes) if *ty == Type::UUID => out.put_slice(bytes),
            Self::Bool(_)
            | Self::Float(_)
            | Self::Text(_)
            | Self::Json(_)
            | Self::Bytes(_)
            | Self::Timestamp(_)
            | Self::Date(_)
            | Self::Time(_)
            | Self::Uuid(_) => return Err(Mismatch),
        }
        Ok(IsNull::No)
    }
}

fn encode_int(value: i64, ty: &Type, out: &mut BytesMut) -> Result<(), Mismatch> {
    if *ty == Type::INT8 {
        out.put_i64(value);
    } else if *ty == Type::INT4 {
        out.put_i32(i32::try_from(value).map_err(|_| Mismatch)?);
    } else if *ty == Type::INT2 {
        out.put_i16(i16::try_from(value).map_err(|_| Mismatch)?);
    } else {
        return Err(Mismatch);
    }
    Ok(())
}

impl<'a> From<&'a Value> for Cell<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Int(*value),
            Value::Float(value) => Self::Float(*value),
            Value::Text(text) => Self::Text(Cow::Borrowed(text.as_str())),
            Value::Json(text) => Self::Json(Cow::Borrowed(text.as_str())),
            Value::Bytes(bytes) => Self::Bytes(bytes.as_bytes()),
            Value::Timestamp(micros) => Self::Timestamp(*micros),
            Value::Date(days) => Self::Date(*days),
            Value::Time(micros) => Self::Time(*micros),
            Value::Uuid(bytes) => Self::Uuid(*bytes),
        }
    }
}

impl<'a> From<FieldValue<'a>> for Cell<'a> {
    fn from(value: FieldValue<'a>) -> Self {
        match value {
            FieldValue::Text(text) => Self::Text(text),
            FieldValue::Number(number) => Self::Int(number),
            FieldValue::Time(time) => Self::Timestamp(time.as_microsecond()),
        }
    }
}

impl fmt::Debug for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "Null",
            Self::Bool(_) => "Bool",
            Self::Int(_) => "Int",
            Self::Float(_) => "Float",
            Self::Text(_) => "Text",
            Self::Json(_) => "Json",
            Self::Bytes(_) => "Bytes",
            Self::Timestamp(_) => "Timestamp",
            Self::Date(_) => "Date",
            Self::Time(_) => "Time",
            Self::Uuid(_) => "Uuid",
        })
    }
}

/// A value that cannot be bound as the declared type. Says nothing of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("value does not fit the declared parameter type")]
pub struct Mismatch;

/// What is bound to one parameter: a value, or an array of values.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter<'a> {
    /// A scalar.
    One(Cell<'a>),
    /// A one-dimensional array.
    Many(Vec<Cell<'a>>),
}

impl ToSql for Parameter<'_> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::One(cell) => Ok(cell.encode(ty, out)?),
            Self::Many(cells) => {
                let Kind::Array(member) = ty.kind() else { return Err(Box::new(Mismatch)) };
                let dimension = ArrayDimension { len: i32::try_from(cells.len())?, lower_bound: 1 };
                array_to_sql(
                    Some(dimension),
                    member.oid(),
                    cells,
                    |cell, out| {
                        Ok(match cell.encode(member, out)? {
                            IsNull::Yes => postgres_protocol::IsNull::Yes,
                            IsNull::No => postgres_protocol::IsNull::No,
                        })
                    },
                    out,
                )?;
                Ok(IsNull::No)
            }
        }
    }

    /// Always: whether a value fits is decided by value and type together, when it is encoded.
    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(cell: &Cell<'_>, ty: &Type) -> Result<Vec<u8>, Mismatch> {
        let mut out = BytesMut::new();
        cell.encode(ty, &mut out).map(|_| out.to_vec())
    }

    #[test]
    fn whole_numbers_take_the_declared_width_and_refuse_what_does_not_fit() {
        assert_eq!(bytes(&Cell::Int(-2), &Type::INT2), Ok(vec![0xff, 0xfe]));
        assert_eq!(bytes(&Cell::Int(1), &Type::INT4), Ok(vec![0, 0, 0, 1]));
        assert_eq!(bytes(&Cell::Int(i64::MAX), &Type::INT8).map(|b| b.len()), Ok(8));
        assert_eq!(bytes(&Cell::Int(32_768), &Type::INT2), Err(Mismatch));
        assert_eq!(bytes(&Cell::Int(1), &Type::TEXT), Err(Mismatch));
    }

    #[test]
    fn times_count_from_the_year_2000() {
        assert_eq!(
            bytes(&Cell::Timestamp(EPOCH_MICROS + 1), &Type::TIMESTAMPTZ),
            Ok(1i64.to_be_bytes().to_vec())
        );
        assert_eq!(bytes(&Cell::Date(0), &Type::DATE), Ok((-10_957i32).to_be_bytes().to_vec()));
        assert_eq!(bytes(&Cell::Timestamp(i64::MIN), &Type::TIMESTAMP), Err(Mismatch));
        assert_eq!(bytes(&Cell::Date(i32::MIN), &Type::DATE), Err(Mismatch));
    }

    #[test]
    fn jsonb_is_the_version_byte_and_the_text_digit_for_digit() {
        let json = Cell::Json("12345678901234567890.10".into());
        assert_eq!(bytes(&json, &Type::JSON).unwrap(), b"12345678901234567890.10");
        assert_eq!(bytes(&json, &Type::JSONB).unwrap(), b"\x0112345678901234567890.10");
    }

    #[test]
    fn text_is_never_sent_where_a_date_or_a_number_is_declared() {
        for ty in [Type::TIMESTAMPTZ, Type::DATE, Type::NUMERIC, Type::INT8, Type::JSONB] {
            assert_eq!(bytes(&Cell::Text("now".into()), &ty), Err(Mismatch), "{ty}");
        }
    }

    #[test]
    fn an_array_holds_nulls_beside_values() {
        let array = Parameter::Many(vec![Cell::Text("a".into()), Cell::Null]);
        let mut out = BytesMut::new();
        array.to_sql(&Type::TEXT_ARRAY, &mut out).unwrap();
        let text = i32::try_from(Type::TEXT.oid()).unwrap();
        // dimensions, has nulls, element type, length, lower bound, then the elements
        let mut expected: Vec<u8> = [1, 1, text, 2, 1, 1].map(i32::to_be_bytes).concat();
        expected.extend(b"a");
        expected.extend((-1i32).to_be_bytes());
        assert_eq!(out.to_vec(), expected);
    }

    #[test]
    fn an_array_is_refused_where_a_scalar_is_declared() {
        let mut out = BytesMut::new();
        assert!(Parameter::Many(vec![]).to_sql(&Type::TEXT, &mut out).is_err());
    }

    /// Proves INV-9.
    #[test]
    fn debug_shows_no_value() {
        let shown = format!("{:?}", Parameter::One(Cell::Text("secret".into())));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
