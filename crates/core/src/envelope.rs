//! What an event says about itself, and the table of all its fields.
//!
//! Whatever has to know every field goes through [`FIELDS`]: the keys of `[decode.fields]`, the
//! decoder that fills an [`Envelope`], the sources that routes may name, the columns of
//! `notification_t`, what `check` lists. A further field that is not needed for a decision is a
//! variant of [`EnvelopeField`], its line in the table, a migration that adds the column, and its
//! line in `config/default.toml`.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use crate::event::{AggregateKey, AggregateVersion};
use crate::record::Record;
use crate::text::{Buffer, Text};

/// A field of the envelope. In the order of [`FIELDS`]; from [`EnvelopeField::Tenant`] on they are
/// context: kept and shown, never decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EnvelopeField {
    /// Id of the aggregate.
    AggregateId,
    /// Type of the aggregate.
    AggregateType,
    /// Identity of the event.
    EventId,
    /// Type of the event.
    EventType,
    /// Version of the aggregate after the event.
    Version,
    /// When the event happened.
    Time,
    /// Tenant.
    Tenant,
    /// User who caused the event.
    User,
    /// The producer's nonce.
    Nonce,
    /// The command or transaction that produced the event.
    TransactionId,
    /// Correlation id.
    CorrelationId,
    /// Causation id.
    CausationId,
}

/// What a field holds, and so how it is read and in which type of column it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldKind {
    /// Text.
    Text,
    /// Text that names one thing: where a format is strict it is not empty.
    Identity,
    /// A whole number from 0 on.
    WholeNumber,
    /// The whole number that orders the events of an aggregate. Whether events have one is said in
    /// the configuration.
    Version,
    /// A point in time.
    Time,
}

/// Whether an event that lacks a field can be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presence {
    /// It can.
    Optional,
    /// Only a tombstone can: it has no value that could tell the field.
    UnlessTombstone,
    /// It cannot.
    Always,
}

/// One line of the table of fields.
#[derive(Debug, Clone, Copy)]
pub struct FieldSpec {
    /// The field.
    pub field: EnvelopeField,
    /// Its name in `[decode.fields]`, in routes and in messages.
    pub name: &'static str,
    /// What it holds.
    pub kind: FieldKind,
    /// Whether it has to be there.
    pub presence: Presence,
    /// Whether routes may name it as a source.
    pub in_routes: bool,
    /// Its column in `notification_t`.
    pub column: &'static str,
}

/// Every field, in the order in which they are listed.
pub const FIELDS: [FieldSpec; 12] = {
    use EnvelopeField::{
        AggregateId, AggregateType, CausationId, CorrelationId, EventId, EventType, Nonce, Tenant,
        Time, TransactionId, User, Version,
    };
    use Presence::{Always, Optional, UnlessTombstone};
    const fn line(
        field: EnvelopeField,
        (name, column): (&'static str, &'static str),
        kind: FieldKind,
        presence: Presence,
    ) -> FieldSpec {
        FieldSpec { field, name, kind, presence, in_routes: true, column }
    }
    const fn text(field: EnvelopeField, name: &'static str, column: &'static str) -> FieldSpec {
        line(field, (name, column), FieldKind::Text, Optional)
    }
    [
        line(AggregateId, ("aggregate_id", "aggregate_id"), FieldKind::Identity, Always),
        line(AggregateType, ("aggregate_type", "aggregate_type"), FieldKind::Identity, Always),
        line(EventId, ("event_id", "event_id"), FieldKind::Identity, Optional),
        line(EventType, ("event_type", "event_type"), FieldKind::Identity, UnlessTombstone),
        line(Version, ("version", "aggregate_version"), FieldKind::Version, UnlessTombstone),
        line(Time, ("time", "event_ts"), FieldKind::Time, Optional),
        text(Tenant, "tenant", "host_id"),
        text(User, "user", "user_id"),
        FieldSpec {
            in_routes: false,
            ..line(Nonce, ("nonce", "nonce"), FieldKind::WholeNumber, Optional)
        },
        text(TransactionId, "transaction_id", "transaction_id"),
        text(CorrelationId, "correlation_id", "correlation_id"),
        text(CausationId, "causation_id", "causation_id"),
    ]
};

/// Where context begins in [`FIELDS`].
const CONTEXT: usize = EnvelopeField::Tenant as usize;

impl EnvelopeField {
    /// The field's line in the table.
    pub fn spec(self) -> &'static FieldSpec {
        &FIELDS[self as usize]
    }

    /// Whether the field is kept and shown only, and decides nothing.
    pub fn is_context(self) -> bool {
        self as usize >= CONTEXT
    }

    /// The field's place among those of context.
    fn context_index(self) -> Option<usize> {
        (self as usize).checked_sub(CONTEXT)
    }
}

/// A value of context, as it is kept.
#[derive(Clone, PartialEq)]
pub enum ContextValue {
    /// Of a text.
    Text(Text),
    /// Of a whole number.
    Number(i64),
}

/// A value of any field, as it is looked at.
#[derive(Clone, PartialEq)]
pub enum FieldValue<'a> {
    /// Of a text or an identity.
    Text(Cow<'a, str>),
    /// Of a whole number or a version.
    Number(i64),
    /// Of a point in time.
    Time(Timestamp),
}

impl<'a> FieldValue<'a> {
    fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

/// What an event says about itself. Everything is optional because a poisoned record may tell
/// only part of it; an event that is to be written has an aggregate.
#[derive(Clone, Default, PartialEq)]
pub struct Envelope {
    /// Identity of the event across re-sends by its producer. Without one it is the record's
    /// position, see [`Envelope::id`].
    pub event_id: Option<Text>,
    /// Type of the event, e.g. `CustomerRegistered`.
    pub event_type: Option<Arc<str>>,
    /// The aggregate, when it can be told.
    pub aggregate: Option<AggregateKey>,
    /// Version of the aggregate after the event; `None` for unversioned producers.
    pub version: Option<AggregateVersion>,
    /// When the event happened, by its producer's clock.
    pub time: Option<Timestamp>,
    /// What is kept and shown, and decides nothing.
    pub context: Context,
}

/// The context of an event. Most producers send none, so it costs one pointer until there is some.
#[derive(Clone, Default, PartialEq)]
pub struct Context(Option<Box<[Option<ContextValue>; FIELDS.len() - CONTEXT]>>);

impl Context {
    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Keeps a value. A field that is not context has a place of its own in the envelope.
    pub fn keep(&mut self, field: EnvelopeField, value: ContextValue) {
        debug_assert!(field.is_context(), "{field:?} has a place of its own");
        let values = self.0.get_or_insert_default();
        if let Some(place) = field.context_index().and_then(|index| values.get_mut(index)) {
            *place = Some(value);
        }
    }

    /// What it holds in memory beside itself and `shared`.
    fn weight_beside(&self, shared: &Buffer) -> usize {
        let Some(values) = &self.0 else { return 0 };
        let own = |value: &ContextValue| match value {
            ContextValue::Text(text) => text.weight_beside(shared),
            ContextValue::Number(_) => 0,
        };
        size_of_val(&**values) + values.iter().flatten().map(own).sum::<usize>()
    }

    fn get(&self, field: EnvelopeField) -> Option<FieldValue<'_>> {
        let value = self.0.as_ref()?.get(field.context_index()?)?.as_ref()?;
        Some(match value {
            ContextValue::Text(text) => FieldValue::text(text.as_str()),
            ContextValue::Number(number) => FieldValue::Number(*number),
        })
    }
}

impl Envelope {
    /// What identifies the event: its own id, else the position of its record.
    pub fn id(&self, record: &Record) -> Cow<'_, str> {
        match &self.event_id {
            Some(id) => Cow::Borrowed(id.as_str()),
            None => Cow::Owned(record.position()),
        }
    }

    /// The value of a field, where there is one. The record is the event's.
    pub fn get(&self, field: EnvelopeField, record: &Record) -> Option<FieldValue<'_>> {
        match field {
            EnvelopeField::AggregateId => {
                self.aggregate.as_ref().map(|key| FieldValue::text(&key.id))
            }
            EnvelopeField::AggregateType => {
                self.aggregate.as_ref().map(|key| FieldValue::text(&key.aggregate_type))
            }
            EnvelopeField::EventType => self.event_type.as_deref().map(FieldValue::text),
            EnvelopeField::EventId => Some(FieldValue::Text(self.id(record))),
            EnvelopeField::Version => self.version.map(|version| FieldValue::Number(version.0)),
            EnvelopeField::Time => self.time.map(FieldValue::Time),
            context => self.context.get(context),
        }
    }
}

impl Envelope {
    /// What it holds in memory beside itself, the record and what it shares with other events.
    pub(crate) fn weight_beside(&self, record: &Record) -> usize {
        let shared = record.raw.buffer();
        let of_type = |name: &Arc<str>| {
            let counted =
                name.len() > SHARED_TYPE_BYTES && !Arc::ptr_eq(name, &record.partition.topic);
            if counted { COUNTS_BYTES + name.len() } else { 0 }
        };
        let aggregate = self.aggregate.as_ref();
        self.event_id.as_ref().map_or(0, |id| id.weight_beside(shared))
            + self.event_type.as_ref().map_or(0, of_type)
            + aggregate.map_or(0, |key| of_type(&key.aggregate_type) + COUNTS_BYTES + key.id.len())
            + self.context.weight_beside(shared)
    }
}

/// The two counts of a shared text.
const COUNTS_BYTES: usize = 2 * size_of::<usize>();

/// Up to this length, decoders share one text among all events of the same event or aggregate type,
/// within a limit on the number of types. A longer type is stored once per event.
pub const SHARED_TYPE_BYTES: usize = 128;

impl fmt::Debug for ContextValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // INV-9: the kind only.
        f.write_str(match self {
            Self::Text(_) => "Text",
            Self::Number(_) => "Number",
        })
    }
}

impl fmt::Debug for FieldValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // INV-9: the kind only.
        f.write_str(match self {
            Self::Text(_) => "Text",
            Self::Number(_) => "Number",
            Self::Time(_) => "Time",
        })
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("aggregate", &self.aggregate)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Generation, Offset, Raw, TimestampType, TopicPartition};

    fn record() -> Record {
        Record {
            partition: TopicPartition { topic: "t".into(), partition: 1 },
            offset: Offset(2),
            generation: Generation(1),
            timestamp: None,
            timestamp_type: TimestampType::NotAvailable,
            raw: Raw::default(),
        }
    }

    #[test]
    fn the_table_lists_every_field_at_its_own_place_and_names_it_once() {
        let mut names = std::collections::BTreeSet::new();
        let mut columns = std::collections::BTreeSet::new();
        for (position, spec) in FIELDS.iter().enumerate() {
            assert_eq!(spec.field as usize, position, "{}", spec.name);
            assert_eq!(spec.field.spec().name, spec.name);
            assert!(names.insert(spec.name) && columns.insert(spec.column), "{}", spec.name);
        }
    }

    #[test]
    fn context_is_kept_by_field_and_absent_until_there_is_some() {
        let (mut envelope, record) = (Envelope::default(), record());
        assert!(envelope.context.is_empty());
        for spec in FIELDS.iter().filter(|spec| spec.field != EnvelopeField::EventId) {
            assert_eq!(envelope.get(spec.field, &record), None, "{}", spec.name);
        }
        envelope.context.keep(EnvelopeField::CausationId, ContextValue::Text("c".into()));
        envelope.context.keep(EnvelopeField::Nonce, ContextValue::Number(7));
        assert!(!envelope.context.is_empty());
        let get = |field| envelope.get(field, &record);
        assert_eq!(get(EnvelopeField::CausationId), Some(FieldValue::text("c")));
        assert_eq!(get(EnvelopeField::Nonce), Some(FieldValue::Number(7)));
        assert_eq!(get(EnvelopeField::Tenant), None);
    }

    #[test]
    fn an_event_without_an_id_of_its_own_is_identified_by_its_position() {
        let (mut envelope, record) = (Envelope::default(), record());
        assert_eq!(envelope.id(&record), "t/1/2");
        envelope.event_id = Some("e1".into());
        assert_eq!(envelope.id(&record), "e1");
    }
}
