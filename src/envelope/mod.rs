//! From a record to what it says about itself: the formats `plain` and `envelope`.
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

mod json;
mod number;
mod source;
mod time;
mod view;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::Arc;

use jiff::Timestamp;

pub(crate) use json::{Document, Pointer, quoted};
#[cfg(any(test, fuzzing))]
pub(crate) use json::{canonical, string_content};
pub(crate) use number::{Decimal, integer, whole};
pub(crate) use source::{Found, Source, json_text, storable};
pub(crate) use time::{
    date_time_micros, days, from_number, instant, instant_micros, micros, time_of_day,
};
use view::{Body, Payload, View};

use crate::config::{DecodeConfig, Format, NumberTime, VersionSource};
use crate::event::{AggregateKey, AggregateVersion, Envelope, Poison};
use crate::record::Record;
use crate::verdict::Reason;

/// Reads records of one format. Immutable; made once per configuration.
#[derive(Debug)]
pub(crate) struct Reader {
    format: Format,
    number_time: NumberTime,
    max_depth: usize,
    max_bytes: usize,
    fields: Fields,
    /// Top-level members of the value that carry the envelope itself.
    own_members: Box<[Box<str>]>,
}

/// The sources of every field.
#[derive(Debug)]
struct Fields {
    event_id: Box<[Source]>,
    event_type: Box<[Source]>,
    aggregate_id: Box<[Source]>,
    aggregate_type: Box<[Source]>,
    /// `None` where events carry no version.
    version: Option<Box<[Source]>>,
    time: Box<[Source]>,
    payload: Box<[Source]>,
    tenant: Box<[Source]>,
    user: Box<[Source]>,
    nonce: Box<[Source]>,
    transaction_id: Box<[Source]>,
    correlation_id: Box<[Source]>,
    causation_id: Box<[Source]>,
}

/// What was read of a record.
pub(crate) struct Draft<'a> {
    /// The fields that could be told.
    pub(crate) envelope: Envelope,
    /// The aggregate's type, which may be known where its id is not.
    pub(crate) aggregate_type: Option<Arc<str>>,
    /// The record has no value.
    pub(crate) tombstone: bool,
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

    /// The payload's JSON text, digit for digit as the producer wrote it.
    pub(crate) fn payload(&self) -> Option<Cow<'a, str>> {
        self.view.payload_text()
    }

    /// Whether the payload is a JSON object.
    pub(crate) fn payload_is_object(&self) -> bool {
        self.view.payload_is_object()
    }
}

impl Reader {
    /// Prepares reading by this configuration; records larger than `max_bytes` are not parsed.
    pub(crate) fn new(config: &DecodeConfig, max_bytes: usize) -> Self {
        let mut fields = Fields {
            event_id: Source::all(&config.event_id),
            event_type: Source::all(&config.event_type),
            aggregate_id: Source::all(&config.aggregate_id),
            aggregate_type: Source::all(&config.aggregate_type),
            version: match &config.version {
                VersionSource::None => None,
                VersionSource::From(sources) => Some(Source::all(sources)),
            },
            time: Source::all(&config.time),
            payload: Source::all(&config.payload),
            tenant: Source::all(&config.tenant),
            user: Source::all(&config.user),
            nonce: Source::all(&config.nonce),
            transaction_id: Source::all(&config.transaction_id),
            correlation_id: Source::all(&config.correlation_id),
            causation_id: Source::all(&config.causation_id),
        };
        if config.format == Format::Plain {
            for source in &mut fields.aggregate_id {
                if matches!(source, Source::Key) {
                    *source = Source::KeyAsId;
                }
            }
        }
        Self {
            format: config.format,
            number_time: config.number_time,
            max_depth: config.max_depth,
            max_bytes,
            own_members: fields.own_members(),
            fields,
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
        let (envelope, aggregate_type) = self.envelope(&view, tombstone, &mut problems);
        Draft { envelope, aggregate_type, tombstone, problem: problems.0, view }
    }

    fn body<'a>(&self, record: &'a Record) -> (Body<'a>, Option<Poison>) {
        let poison = |reason| Some(Poison::new(reason, None));
        let size = record.key.as_ref().map_or(0, |key| key.len())
            + record.value.as_ref().map_or(0, |value| value.len());
        if size > self.max_bytes {
            return (Body::Unreadable, poison(Reason::RecordTooLarge));
        }
        let Some(value) = &record.value else { return (Body::Null, None) };
        let reading = Document::read(value, self.max_depth);
        let Some(document) = reading.document else {
            return (Body::Unreadable, reading.problem.and_then(poison));
        };
        if document.is_null() {
            return (Body::Null, None);
        }
        let shape = self.format == Format::Envelope && !document.is_object();
        let problem = reading.problem.or(shape.then_some(Reason::JsonShape));
        (Body::Json(document), problem.and_then(poison))
    }

    fn payload<'a>(&'a self, view: &View<'a>, problems: &mut Problems) -> Payload<'a> {
        if self.fields.payload.is_empty() {
            return Payload::Value(&self.own_members);
        }
        for source in &self.fields.payload {
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

    fn envelope(
        &self,
        view: &View<'_>,
        tombstone: bool,
        problems: &mut Problems,
    ) -> (Envelope, Option<Arc<str>>) {
        let fields = &self.fields;
        let blank = Envelope::default();
        let mut filling = Filling { view, blank: &blank, problems, strict: self.is_strict() };
        let id = filling.required("aggregate_id", &fields.aggregate_id, false);
        let aggregate_type = filling
            .required("aggregate_type", &fields.aggregate_type, false)
            .map(|text| shared(&text, &view.record.partition.topic));
        let event_type = filling.required("event_type", &fields.event_type, tombstone);
        let version = filling.version(fields.version.as_deref(), tombstone);
        let time = filling.time(&fields.time, self.number_time);
        let aggregate = match (id, &aggregate_type) {
            (Some(id), Some(kind)) => filling.aggregate(kind, &id),
            _ => None,
        };
        let event_id = filling.event_id(&fields.event_id).map_or_else(
            || format!("{}/{}", view.record.partition, view.record.offset.0).into(),
            Box::from,
        );
        let envelope = Envelope {
            event_id: Some(event_id),
            event_type: event_type.map(Arc::from),
            aggregate,
            version,
            time,
            tenant: filling.text("tenant", &fields.tenant).map(Box::from),
            user: filling.text("user", &fields.user).map(Box::from),
            nonce: filling.nonce(&fields.nonce),
            transaction_id: filling.text("transaction_id", &fields.transaction_id).map(Box::from),
            correlation_id: filling.text("correlation_id", &fields.correlation_id).map(Box::from),
            causation_id: filling.text("causation_id", &fields.causation_id).map(Box::from),
        };
        (envelope, aggregate_type)
    }

    fn is_strict(&self) -> bool {
        match self.format {
            Format::Plain => false,
            Format::Envelope => true,
        }
    }
}

impl Fields {
    /// The members of the value that carry the six fields every event has.
    fn own_members(&self) -> Box<[Box<str>]> {
        let version = self.version.as_deref().unwrap_or_default();
        [&self.event_id, &self.event_type, &self.aggregate_id, &self.aggregate_type, &self.time]
            .into_iter()
            .flatten()
            .chain(version)
            .filter_map(|source| source.own_member().map(Box::from))
            .collect()
    }
}

/// Keeps the first problem: later ones mostly follow from it.
struct Problems(Option<Poison>);

impl Problems {
    fn add(&mut self, reason: Reason, field: &'static str) {
        if self.0.is_none() {
            self.0 = Some(Poison::new(reason, Some(field.into())));
        }
    }
}

/// Fills the envelope's fields one by one.
struct Filling<'v, 'a, 'p> {
    view: &'v View<'a>,
    /// The envelope's own fields cannot be built from each other.
    blank: &'v Envelope,
    problems: &'p mut Problems,
    /// Empty identities are refused.
    strict: bool,
}

impl<'v> Filling<'v, '_, '_> {
    /// What the sources found, other than null.
    fn found(&mut self, field: &'static str, sources: &'v [Source]) -> Option<Found<'v>> {
        match self.view.first(self.blank, sources) {
            Ok(found) => found.filter(|found| !matches!(found, Found::Null)),
            Err(reason) => {
                self.problems.add(reason, field);
                None
            }
        }
    }

    fn text(&mut self, field: &'static str, sources: &'v [Source]) -> Option<Cow<'v, str>> {
        match self.found(field, sources)?.into_identity() {
            Ok(text) => text,
            Err(reason) => {
                self.problems.add(reason, field);
                None
            }
        }
    }

    /// An empty id would make any two events of one version the same event.
    fn event_id(&mut self, sources: &'v [Source]) -> Option<Cow<'v, str>> {
        let id = self.text("event_id", sources)?;
        if id.is_empty() && self.strict {
            self.problems.add(Reason::FieldInvalid, "event_id");
            return None;
        }
        Some(id)
    }

    /// Like [`Self::text`], of a field that an event must have unless it is a tombstone.
    fn required(
        &mut self,
        field: &'static str,
        sources: &'v [Source],
        optional: bool,
    ) -> Option<Cow<'v, str>> {
        let found = self.view.first(self.blank, sources);
        let text = found.and_then(|found| found.map_or(Ok(None), Found::into_identity));
        let reason = match text {
            Ok(Some(text)) if text.is_empty() && self.strict => Reason::FieldInvalid,
            Ok(Some(text)) => return Some(text),
            Ok(None) if optional => return None,
            Ok(None) => Reason::FieldMissing,
            Err(reason) => reason,
        };
        self.problems.add(reason, field);
        None
    }

    fn aggregate(&mut self, kind: &Arc<str>, id: &str) -> Option<AggregateKey> {
        let key = AggregateKey { aggregate_type: Arc::clone(kind), id: Arc::from(id) };
        if !key.is_storable() {
            self.problems.add(Reason::FieldInvalid, "aggregate_id");
            return None;
        }
        Some(key)
    }

    /// A tombstone has no room for a version: it counts by its position.
    fn version(
        &mut self,
        sources: Option<&'v [Source]>,
        tombstone: bool,
    ) -> Option<AggregateVersion> {
        let Some(found) = self.found("version", sources?) else {
            if !tombstone {
                self.problems.add(Reason::VersionMissing, "version");
            }
            return None;
        };
        let version = whole_number(found);
        if version.is_none() {
            self.problems.add(Reason::VersionInvalid, "version");
        }
        version.map(AggregateVersion)
    }

    fn nonce(&mut self, sources: &'v [Source]) -> Option<i64> {
        let nonce = whole_number(self.found("nonce", sources)?);
        if nonce.is_none() {
            self.problems.add(Reason::FieldInvalid, "nonce");
        }
        nonce
    }

    fn time(&mut self, sources: &'v [Source], unit: NumberTime) -> Option<Timestamp> {
        let time = match self.found("time", sources)? {
            Found::Instant(time) => Some(time),
            found => found
                .into_identity()
                .ok()
                .flatten()
                .and_then(|text| instant(&text).or_else(|| from_number(&text, unit))),
        };
        if time.is_none() {
            self.problems.add(Reason::FieldInvalid, "time");
        }
        time
    }
}

/// A version or nonce: a JSON number or text, whole and not negative. The record's timestamp
/// counts by its milliseconds.
fn whole_number(found: Found<'_>) -> Option<i64> {
    match found {
        Found::Instant(time) => Some(time.as_millisecond()).filter(|millis| *millis >= 0),
        found => found.into_identity().ok().flatten().and_then(|text| whole(&text)),
    }
}

/// The text, shared with the topic's name where it is the same.
fn shared(text: &str, topic: &Arc<str>) -> Arc<str> {
    if *text == **topic { Arc::clone(topic) } else { Arc::from(text) }
}
