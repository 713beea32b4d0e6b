//! A record looked at through its format: where field sources find their values.

use std::borrow::Cow;
use std::cell::OnceCell;

use jiff::Timestamp;

use crate::decode::encoding::json::{Document, Pointer, Rest};
use crate::decode::source::{Found, Source, storable};
use pgsluice_core::envelope::{Envelope, FieldValue};
use pgsluice_core::event::Json;
use pgsluice_core::record::Record;
use pgsluice_core::verdict::Reason;

/// What a record's value is.
pub(crate) enum Body<'a> {
    /// Null, or JSON's `null`: producers write the four bytes for a null too.
    Null,
    /// One JSON value.
    Json(Document<'a>),
    /// Nothing that can be read.
    Unreadable,
}

/// The payload of an event.
pub(crate) enum Payload<'a> {
    /// There is none.
    Absent,
    /// The value, without these members if it is an object: they are the envelope's own.
    Value(&'a [Box<str>]),
    /// A part of the value, or JSON from elsewhere.
    Part(Document<'a>),
}

/// A record and what was told of it so far.
pub(crate) struct View<'a> {
    pub(crate) record: &'a Record,
    pub(crate) body: Body<'a>,
    pub(crate) payload: Payload<'a>,
    /// How deep a JSON key may be nested.
    pub(crate) max_depth: usize,
    /// The key as JSON, parsed when first asked for.
    pub(crate) key: OnceCell<Option<Document<'a>>>,
}

impl<'a> View<'a> {
    /// The first source that finds something other than null; else null if one found that.
    ///
    /// # Errors
    /// Why a source that had to be asked cannot be read. The next one does not stand in then: it
    /// might tell another story.
    pub(crate) fn first<'f>(
        &'f self,
        envelope: &'f Envelope,
        sources: &'f [Source],
    ) -> Result<Option<Found<'f>>, Reason> {
        let mut null = None;
        for source in sources {
            match self.find(envelope, source)? {
                None => {}
                Some(Found::Null) => null = Some(Found::Null),
                found => return Ok(found),
            }
        }
        Ok(null)
    }

    fn find<'f>(
        &'f self,
        envelope: &'f Envelope,
        source: &'f Source,
    ) -> Result<Option<Found<'f>>, Reason> {
        let record = self.record;
        let found = match source {
            Source::Key => Some(raw(record.key(), Reason::KeyEncoding)),
            Source::KeyAsId(id_of_key) => Some(Found::Text(id_of_key(record)?)),
            Source::KeyPointer(pointer) => {
                self.key().and_then(|key| pointer.resolve(key)).map(Found::json)
            }
            Source::Value => match &self.body {
                Body::Null => Some(Found::Null),
                Body::Json(_) | Body::Unreadable => Some(raw(record.value(), Reason::JsonSyntax)),
            },
            Source::ValuePointer(pointer) => {
                self.value().and_then(|value| pointer.resolve(value)).map(Found::json)
            }
            Source::Payload => self.payload_text().map(Found::Json),
            Source::PayloadPointer(pointer) => self.in_payload(pointer).map(Found::json),
            Source::Header(name) => match record.header(name) {
                None => None,
                Some(None) => Some(Found::Null),
                Some(Some(value)) => {
                    let text = storable(value).ok_or(Reason::HeaderEncoding)?;
                    Some(Found::Text(Cow::Borrowed(text)))
                }
            },
            Source::Const(text) => Some(Found::Text(Cow::Borrowed(text))),
            Source::Topic => Some(Found::Text(Cow::Borrowed(&*record.partition.topic))),
            Source::Partition => Some(Found::Int(record.partition.partition.into())),
            Source::Offset => Some(Found::Int(record.offset.0)),
            Source::Timestamp => record_time(record).map(Found::Instant),
            Source::Envelope(field) => envelope.get(*field, record).map(|value| match value {
                FieldValue::Text(text) => Found::Text(text),
                FieldValue::Number(number) => Found::Int(number),
                FieldValue::Time(time) => Found::Instant(time),
            }),
        };
        Ok(found)
    }

    /// The value as JSON.
    pub(crate) fn value(&self) -> Option<&Document<'a>> {
        match &self.body {
            Body::Json(document) => Some(document),
            Body::Null | Body::Unreadable => None,
        }
    }

    /// The payload's JSON text.
    fn payload_text(&self) -> Option<Cow<'a, str>> {
        self.payload_rest().map(Rest::into_text)
    }

    /// The payload as an event keeps it.
    pub(crate) fn payload_json(&self) -> Option<Json> {
        let raw = &self.record.raw;
        self.payload_rest().map(|rest| match rest {
            Rest::Value(text) => Json::Value(raw.text(Cow::Borrowed(text))),
            Rest::Members(text) => Json::Members(raw.text(Cow::Borrowed(text))),
            Rest::Built(text) => Json::Value(text.into()),
        })
    }

    fn payload_rest(&self) -> Option<Rest<'a>> {
        match &self.payload {
            Payload::Absent => None,
            Payload::Value(own) => self.value().map(|value| value.without(own)),
            Payload::Part(payload) => Some(Rest::Value(payload.text)),
        }
    }

    /// Whether the payload is a JSON object.
    pub(crate) fn payload_is_object(&self) -> bool {
        match &self.payload {
            Payload::Absent => false,
            Payload::Value(_) => self.value().is_some_and(Document::is_object),
            Payload::Part(payload) => payload.is_object(),
        }
    }

    fn in_payload(&self, pointer: &Pointer) -> Option<&'a str> {
        match &self.payload {
            Payload::Absent => None,
            Payload::Value(own) => {
                let own = |first: &str| own.iter().any(|name| **name == *first);
                self.value()
                    .filter(|_| !pointer.first().is_some_and(own))
                    .and_then(|value| pointer.resolve(value))
            }
            Payload::Part(payload) => pointer.resolve(payload),
        }
    }

    /// The key as JSON.
    pub(crate) fn key(&self) -> Option<&Document<'a>> {
        self.key.get_or_init(|| self.read_key()).as_ref()
    }

    /// A key that is no JSON, or JSON that cannot be stored, has nothing to point at.
    fn read_key(&self) -> Option<Document<'a>> {
        let reading = Document::read(self.record.key()?, self.max_depth);
        reading.document.filter(|_| reading.problem.is_none())
    }
}

fn raw(bytes: Option<&[u8]>, refused: Reason) -> Found<'_> {
    bytes.map_or(Found::Null, |bytes| Found::Raw(bytes, refused))
}

/// The record's timestamp; `None` where the topic has none or it is beyond the calendar.
fn record_time(record: &Record) -> Option<Timestamp> {
    // Producers may leave the timestamp unset, which the broker keeps as -1.
    let millis = record.timestamp.filter(|millis| *millis >= 0)?;
    Timestamp::from_millisecond(millis).ok()
}
