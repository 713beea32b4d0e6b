//! Fills an envelope, field by field, by the table of fields.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;

use crate::config::NumberTime;
use crate::decode::source::{Found, Source};
use crate::decode::view::View;
use crate::decode::{Reader, number, time};
use pgsluice_core::envelope::{
    ContextValue, EnvelopeField, FIELDS, FieldKind, FieldSpec, Presence,
};
use pgsluice_core::event::{AggregateKey, AggregateVersion, Envelope, Poison};
use pgsluice_core::verdict::Reason;

/// Keeps the first problem: later ones mostly follow from it.
pub(super) struct Problems(pub(super) Option<Poison>);

impl Problems {
    pub(super) fn add(&mut self, reason: Reason, field: &'static str) {
        if self.0.is_none() {
            self.0 = Some(Poison::new(reason, Some(field.into())));
        }
    }
}

/// An envelope that is being filled.
pub(super) struct Filling<'v, 'a, 'p> {
    pub(super) reader: &'v Reader,
    pub(super) view: &'v View<'a>,
    /// The envelope's own fields cannot be built from each other.
    pub(super) blank: &'v Envelope,
    /// The record has no value.
    pub(super) tombstone: bool,
    pub(super) problems: &'p mut Problems,
}

/// An envelope with what is known of an aggregate whose id could not be told.
pub(super) struct Filled {
    pub(super) envelope: Envelope,
    pub(super) aggregate_type: Option<Arc<str>>,
}

impl<'v> Filling<'v, '_, '_> {
    /// Reads every field. What an event must have comes first: of several problems the first is
    /// reported.
    pub(super) fn fill(mut self) -> Filled {
        let must = |spec: &&FieldSpec| spec.presence != Presence::Optional;
        let mut filled = Filled { envelope: Envelope::default(), aggregate_type: None };
        let mut id = None;
        for spec in FIELDS.iter().filter(must) {
            match spec.field {
                EnvelopeField::AggregateId => id = self.text(spec),
                _ => self.field(spec, &mut filled),
            }
        }
        if let (Some(id), Some(kind)) = (id, &filled.aggregate_type) {
            filled.envelope.aggregate = self.aggregate(kind, &id);
        }
        for spec in FIELDS.iter().filter(|spec| !must(spec)) {
            self.field(spec, &mut filled);
        }
        filled
    }

    fn field(&mut self, spec: &FieldSpec, filled: &mut Filled) {
        let envelope = &mut filled.envelope;
        match spec.kind {
            FieldKind::Version => envelope.version = self.version(spec),
            FieldKind::Time => envelope.time = self.time(spec),
            FieldKind::WholeNumber => {
                if let Some(number) = self.number(spec) {
                    envelope.context.keep(spec.field, ContextValue::Number(number));
                }
            }
            FieldKind::Text | FieldKind::Identity => {
                let Some(text) = self.text(spec) else { return };
                let raw = &self.view.record.raw;
                match spec.field {
                    EnvelopeField::AggregateType => filled.aggregate_type = Some(self.kind(&text)),
                    EnvelopeField::EventType => {
                        envelope.event_type = Some(self.reader.types.share(&text));
                    }
                    EnvelopeField::EventId => envelope.event_id = Some(raw.text(text)),
                    field => envelope.context.keep(field, ContextValue::Text(raw.text(text))),
                }
            }
        }
    }

    /// The type of an aggregate: the topic's own name where it is the same.
    fn kind(&self, text: &str) -> Arc<str> {
        let topic = &self.view.record.partition.topic;
        if *text == **topic { Arc::clone(topic) } else { self.reader.types.share(text) }
    }

    fn sources(&self, spec: &FieldSpec) -> &'v [Source] {
        &self.reader.fields[spec.field as usize]
    }

    /// What the sources found, other than null.
    fn found(&mut self, spec: &FieldSpec) -> Result<Option<Found<'v>>, Reason> {
        let found = self.view.first(self.blank, self.sources(spec))?;
        Ok(found.filter(|found| !matches!(found, Found::Null)))
    }

    fn text(&mut self, spec: &FieldSpec) -> Option<Cow<'v, str>> {
        let found = self.found(spec);
        let text = found.and_then(|found| found.map_or(Ok(None), Found::into_identity));
        let identity = spec.kind == FieldKind::Identity;
        let reason = match text {
            // Two events with an empty id and one version would be the same event.
            Ok(Some(text)) if text.is_empty() && identity && self.reader.profile.strict => {
                Reason::FieldInvalid
            }
            Ok(Some(text)) => return Some(text),
            Ok(None) => match spec.presence {
                Presence::Optional => return None,
                Presence::UnlessTombstone if self.tombstone => return None,
                Presence::UnlessTombstone | Presence::Always => Reason::FieldMissing,
            },
            Err(reason) => reason,
        };
        self.problems.add(reason, spec.name);
        None
    }

    fn aggregate(&mut self, kind: &Arc<str>, id: &str) -> Option<AggregateKey> {
        let key = AggregateKey { aggregate_type: Arc::clone(kind), id: Arc::from(id) };
        if !key.is_storable() {
            self.problems.add(Reason::FieldInvalid, EnvelopeField::AggregateId.spec().name);
            return None;
        }
        Some(key)
    }

    /// A tombstone has no room for a version: it counts by its position.
    fn version(&mut self, spec: &FieldSpec) -> Option<AggregateVersion> {
        if self.sources(spec).is_empty() {
            return None;
        }
        let reason = match self.found(spec) {
            Ok(Some(found)) => match whole_number(found) {
                Some(version) => return Some(AggregateVersion(version)),
                None => Reason::VersionInvalid,
            },
            Ok(None) if self.tombstone => return None,
            Ok(None) => Reason::VersionMissing,
            Err(reason) => reason,
        };
        self.problems.add(reason, spec.name);
        None
    }

    fn number(&mut self, spec: &FieldSpec) -> Option<i64> {
        self.other(spec, whole_number)
    }

    fn time(&mut self, spec: &FieldSpec) -> Option<Timestamp> {
        let unit = self.reader.number_time;
        self.other(spec, |found| point_in_time(found, unit))
    }

    /// A field that may be absent but not in another form.
    fn other<T>(
        &mut self,
        spec: &FieldSpec,
        read: impl FnOnce(Found<'v>) -> Option<T>,
    ) -> Option<T> {
        let reason = match self.found(spec) {
            Ok(None) => return None,
            Ok(Some(found)) => match read(found) {
                Some(value) => return Some(value),
                None => Reason::FieldInvalid,
            },
            Err(reason) => reason,
        };
        self.problems.add(reason, spec.name);
        None
    }
}

/// A version or nonce: a JSON number or text, whole and not negative. The record's timestamp
/// counts by its milliseconds.
fn whole_number(found: Found<'_>) -> Option<i64> {
    match found {
        Found::Instant(time) => Some(time.as_millisecond()).filter(|millis| *millis >= 0),
        found => found.into_identity().ok().flatten().and_then(|text| number::whole(&text)),
    }
}

fn point_in_time(found: Found<'_>, unit: NumberTime) -> Option<Timestamp> {
    match found {
        Found::Instant(time) => Some(time),
        found => {
            let text = found.into_identity().ok().flatten()?;
            time::instant(&text).or_else(|| time::from_number(&text, unit))
        }
    }
}
