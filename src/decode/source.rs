//! Field sources, made ready for evaluation: pointers split, constants shared.
//!
//! | source | finds | absent when |
//! | --- | --- | --- |
//! | `key`, `value` | the bytes | null |
//! | `key:/p`, `value:/p`, `payload:/p` | the JSON value there | no JSON, or nothing there |
//! | `header:h` | UTF-8 text of the last header of that name | no such header, or its value is null |
//! | `const:t`, `topic`, `partition`, `offset`, `timestamp` | what it says | the topic has no timestamps |
//! | `payload` | the payload's JSON | there is none |
//! | `aggregate_id` and the other names | the envelope's field | the event has none |

use std::borrow::Cow;

use jiff::Timestamp;

use crate::config::{FieldSource, FieldSources};
use crate::decode::encoding::json::{Pointer, is_number, string_content};
use crate::decode::format::IdOfKey;
use pgsluice_core::envelope::EnvelopeField;
use pgsluice_core::verdict::Reason;

/// One source of a field or column.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// The key's bytes.
    Key,
    /// The key as the format reads the id of an aggregate from it.
    KeyAsId(IdOfKey),
    /// A value in the JSON key.
    KeyPointer(Pointer),
    /// The value's bytes.
    Value,
    /// A value in the JSON value.
    ValuePointer(Pointer),
    /// The payload.
    Payload,
    /// A value in the payload.
    PayloadPointer(Pointer),
    /// A header.
    Header(Box<str>),
    /// A constant.
    Const(Box<str>),
    /// The topic's name.
    Topic,
    /// The partition's number.
    Partition,
    /// The record's offset.
    Offset,
    /// The record's timestamp.
    Timestamp,
    /// A field of the envelope.
    Envelope(EnvelopeField),
}

impl Source {
    /// The sources of one field, in the order in which they stand in for each other.
    pub(crate) fn all(sources: &FieldSources) -> Box<[Self]> {
        sources.0.iter().map(Self::new).collect()
    }

    fn new(source: &FieldSource) -> Self {
        match source {
            FieldSource::Key => Self::Key,
            FieldSource::KeyPointer(pointer) => Self::KeyPointer(Pointer::new(pointer)),
            FieldSource::Value => Self::Value,
            FieldSource::ValuePointer(pointer) => Self::ValuePointer(Pointer::new(pointer)),
            FieldSource::PayloadPointer(pointer) => Self::PayloadPointer(Pointer::new(pointer)),
            FieldSource::Header(name) => Self::Header(name.as_str().into()),
            FieldSource::Const(text) => Self::Const(text.as_str().into()),
            FieldSource::Topic => Self::Topic,
            FieldSource::Partition => Self::Partition,
            FieldSource::Offset => Self::Offset,
            FieldSource::Timestamp => Self::Timestamp,
            FieldSource::Payload => Self::Payload,
            FieldSource::Envelope(field) => Self::Envelope(*field),
        }
    }

    /// The top-level member of the value that the source takes whole.
    pub(crate) fn own_member(&self) -> Option<&str> {
        match self {
            Self::ValuePointer(pointer) => pointer.top_level(),
            _ => None,
        }
    }
}

/// What a source found. Absent is `None` around it.
#[derive(Clone)]
pub(crate) enum Found<'f> {
    /// Null: JSON's, or a null key, value or header.
    Null,
    /// Text from outside of JSON.
    Text(Cow<'f, str>),
    /// The text of a JSON value other than null. What it holds was checked with the record.
    Json(Cow<'f, str>),
    /// The bytes of the key or the value, and the reason to give when they are no text.
    Raw(&'f [u8], Reason),
    /// A whole number that the record carries as one.
    Int(i64),
    /// A point in time that the record carries as one.
    Instant(Timestamp),
}

impl<'f> Found<'f> {
    /// A JSON value.
    pub(crate) fn json(text: &'f str) -> Self {
        if text == "null" { Self::Null } else { Self::Json(Cow::Borrowed(text)) }
    }

    /// The value as the text of an identity: text as it is, a JSON string's content, a number's
    /// digits. Booleans, objects and arrays are no identities.
    ///
    /// # Errors
    /// The reason why it is none.
    pub(crate) fn into_identity(self) -> Result<Option<Cow<'f, str>>, Reason> {
        let text = match self {
            Self::Null => return Ok(None),
            Self::Text(text) => text,
            Self::Json(json) => json_text(json).ok_or(Reason::FieldInvalid)?,
            Self::Raw(bytes, refused) => Cow::Borrowed(storable(bytes).ok_or(refused)?),
            Self::Int(number) => Cow::Owned(number.to_string()),
            Self::Instant(time) => Cow::Owned(time.to_string()),
        };
        // Only JSON that is poison already can hold it, and then the text cannot be stored.
        if text.contains('\0') { Err(Reason::JsonText) } else { Ok(Some(text)) }
    }
}

/// The content of a JSON string, or the digits of a number.
pub(crate) fn json_text(json: Cow<'_, str>) -> Option<Cow<'_, str>> {
    if is_number(&json) {
        return Some(json);
    }
    match json {
        Cow::Borrowed(text) => string_content(text),
        Cow::Owned(text) => string_content(&text).map(|content| Cow::Owned(content.into_owned())),
    }
}

/// The bytes as text that Postgres can store: UTF-8 without NUL.
pub(crate) fn storable(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}
