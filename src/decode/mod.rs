//! From a record to what it says about itself. A format (`format`) says what a document means as
//! an event, an encoding (`encoding`) how bytes become a document; the fields are filled by one
//! table (`filling`).
//!
//! Reading is pure and never gives up half way: of a record that is poison as much as possible is
//! told anyway, because a poison event whose aggregate is known parks that aggregate (INV-8).
//! Nothing is guessed: a field that is there in a wrong form is poison, not absent.
//!
//! Decisions where the wire leaves a choice:
//!
//! | case | outcome |
//! | --- | --- |
//! | the value is the four bytes `null` | a tombstone: producers write them for a null |
//! | a byte order mark before the JSON | poison `json_syntax` |
//! | `plain`, null key and null value | skipped: there is nothing to delete |
//! | no event id | the position stands in: `topic/partition/offset` |
//! | a time that is not one | poison `field_invalid` |
//! | an empty id or type in `envelope` | poison `field_invalid` |
//! | aggregate type and id longer than the ledger's index can hold | poison `field_invalid` |

mod encoding;
mod filling;
mod format;
mod number;
mod source;
mod time;
mod types;
mod view;

use std::cell::OnceCell;
use std::sync::Arc;

pub(crate) use encoding::json::{Document, Pointer, quoted};
#[cfg(any(test, fuzzing))]
pub(crate) use encoding::{canonical::canonical, json::string_content};
#[cfg(any(test, fuzzing))]
pub(crate) use number::whole;
pub(crate) use number::{Decimal, integer};
pub(crate) use source::{Found, Source, json_text, storable};
pub(crate) use time::{date_time_micros, days, instant_micros, micros, time_of_day};
#[cfg(any(test, fuzzing))]
pub(crate) use time::{from_number, instant};

use self::encoding::Encoding;
use self::filling::{Filled, Filling, Problems};
use self::format::Profile;
use self::types::Types;
use self::view::{Body, Payload, View};
use crate::config::{DecodeConfig, NumberTime};
use pgsluice_core::envelope::{EnvelopeField, FIELDS};
use pgsluice_core::event::{Envelope, Json, Poison};
use pgsluice_core::record::Record;
use pgsluice_core::verdict::Reason;

/// Reads records of one format and encoding. Made once per configuration; all it remembers is which
/// types it has seen, so that events share them.
#[derive(Debug)]
pub(crate) struct Reader {
    profile: &'static Profile,
    encoding: Encoding,
    number_time: NumberTime,
    max_depth: usize,
    max_bytes: usize,
    /// The sources of every field, in the order of [`FIELDS`].
    fields: [Box<[Source]>; FIELDS.len()],
    payload: Box<[Source]>,
    types: Types,
    /// Top-level members of the value that carry the envelope itself.
    own_members: Box<[Box<str>]>,
}

/// What was read of a record.
pub(crate) struct Draft<'a> {
    /// The fields that could be told.
    pub(crate) envelope: Envelope,
    /// The aggregate's type, which may be known where its id is not.
    pub(crate) aggregate_type: Option<Arc<str>>,
    /// The record has no value.
    pub(crate) tombstone: bool,
    /// The record names something that can be deleted, should it be a tombstone.
    pub(crate) deletes: bool,
    /// The first thing that is wrong with it.
    pub(crate) problem: Option<Poison>,
    view: View<'a>,
}

impl<'a> Draft<'a> {
    /// What the first of these sources that has a value found, see [`View::first`].
    ///
    /// # Errors
    /// Why a source cannot be read.
    pub(crate) fn first<'f>(&'f self, sources: &'f [Source]) -> Result<Option<Found<'f>>, Reason> {
        self.view.first(&self.envelope, sources)
    }

    /// The payload, digit for digit as the producer wrote it.
    pub(crate) fn payload(&self) -> Option<Json> {
        self.view.payload_json()
    }

    /// The record.
    pub(crate) fn record(&self) -> &'a Record {
        self.view.record
    }

    /// Whether the payload is a JSON object.
    pub(crate) fn payload_is_object(&self) -> bool {
        self.view.payload_is_object()
    }
}

impl Reader {
    /// Prepares reading by this configuration; records larger than `max_bytes` are not parsed.
    pub(crate) fn new(config: &DecodeConfig, max_bytes: usize) -> Self {
        let profile = Profile::of(config.format);
        let mut fields = FIELDS.map(|spec| Source::all(config.fields.of(spec.field)));
        if let Some(id_of_key) = profile.id_of_key {
            for source in &mut fields[EnvelopeField::AggregateId as usize] {
                if matches!(source, Source::Key) {
                    *source = Source::KeyAsId(id_of_key);
                }
            }
        }
        Self {
            profile,
            encoding: Encoding::Json,
            number_time: config.number_time,
            max_depth: config.max_depth,
            max_bytes,
            own_members: own_members(&fields),
            fields,
            payload: Source::all(&config.payload),
            types: Types::default(),
        }
    }

    /// Reads one record. Never panics, whatever the bytes are.
    pub(crate) fn read<'a>(&'a self, record: &'a Record) -> Draft<'a> {
        let (body, problem) = self.body(record);
        let tombstone = matches!(body, Body::Null);
        let mut view = View {
            record,
            body,
            payload: Payload::Absent,
            max_depth: self.max_depth,
            key: OnceCell::new(),
        };
        let mut problems = Problems(problem);
        view.payload = self.payload(&view, &mut problems);
        let (blank, problems_of) = (Envelope::default(), &mut problems);
        let filling =
            Filling { reader: self, view: &view, blank: &blank, tombstone, problems: problems_of };
        let Filled { envelope, aggregate_type } = filling.fill();
        let deletes = (self.profile.deletes)(record);
        Draft { envelope, aggregate_type, tombstone, deletes, problem: problems.0, view }
    }

    fn body<'a>(&self, record: &'a Record) -> (Body<'a>, Option<Poison>) {
        let poison = |reason| Some(Poison::new(reason, None));
        let size = record.key().map_or(0, <[u8]>::len) + record.value().map_or(0, <[u8]>::len);
        if size > self.max_bytes {
            return (Body::Unreadable, poison(Reason::RecordTooLarge));
        }
        let Some(value) = record.value() else { return (Body::Null, None) };
        let reading = self.encoding.read(value, self.max_depth);
        let Some(document) = reading.document else {
            return (Body::Unreadable, reading.problem.and_then(poison));
        };
        if document.is_null() {
            return (Body::Null, None);
        }
        let problem = reading.problem.or_else(|| (self.profile.misshapen)(&document));
        (Body::Json(document), problem.and_then(poison))
    }

    fn payload<'a>(&'a self, view: &View<'a>, problems: &mut Problems) -> Payload<'a> {
        if self.payload.is_empty() {
            return Payload::Value(&self.own_members);
        }
        for source in &self.payload {
            let text = match source {
                Source::Value if view.value().is_some() => return Payload::Value(&[]),
                Source::ValuePointer(pointer) => view.value().and_then(|all| pointer.resolve(all)),
                Source::Key => view.key().map(|key| key.text),
                Source::KeyPointer(pointer) => view.key().and_then(|key| pointer.resolve(key)),
                Source::Const(text) => Some(&**text),
                // Other sources are no JSON.
                _ => None,
            };
            let Some(text) = text.filter(|text| *text != "null") else { continue };
            let reading = Document::read(text.as_bytes(), self.max_depth);
            if let Some(reason) = reading.problem {
                problems.add(reason, "payload");
            }
            return reading.document.map_or(Payload::Absent, Payload::Part);
        }
        Payload::Absent
    }
}

/// The members of the value that carry the fields every event has.
fn own_members(fields: &[Box<[Source]>; FIELDS.len()]) -> Box<[Box<str>]> {
    let own = FIELDS.iter().zip(fields).filter(|(spec, _)| !spec.field.is_context());
    own.flat_map(|(_, sources)| sources)
        .filter_map(|source| source.own_member().map(Box::from))
        .collect()
}
