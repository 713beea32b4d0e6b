//! How a record is read: the format, and from where each field of the envelope comes.

use crate::config::field_source::{FieldSource, FieldSources};
use crate::config::load::reader::{Section, texts};

/// How records are read: the format's own defaults with `[decode.fields]` on top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeConfig {
    /// The wire format.
    pub format: Format,
    /// What a null value means.
    pub tombstone: Tombstone,
    /// The unit of a whole number that stands for a time; a number with a fraction is seconds.
    pub number_time: NumberTime,
    /// How deep JSON may be nested; deeper is poison `json_depth`.
    pub max_depth: usize,
    /// Identity of the event. Empty: its position, `topic/partition/offset`.
    pub event_id: FieldSources,
    /// Type of the event.
    pub event_type: FieldSources,
    /// Id of the aggregate. In the `plain` format a record without key is its own aggregate.
    pub aggregate_id: FieldSources,
    /// Type of the aggregate.
    pub aggregate_type: FieldSources,
    /// Version of the aggregate after the event.
    pub version: VersionSource,
    /// When the event happened.
    pub time: FieldSources,
    /// What is written by the document route and what `payload:/…` looks into. Empty: the
    /// format's own, which for `envelope` is the value without the members that the other fields
    /// are taken from.
    pub payload: FieldSources,
    /// Tenant.
    pub tenant: FieldSources,
    /// User who caused the event.
    pub user: FieldSources,
    /// The producer's nonce.
    pub nonce: FieldSources,
    /// The command or transaction that produced the event.
    pub transaction_id: FieldSources,
    /// Correlation id.
    pub correlation_id: FieldSources,
    /// Causation id.
    pub causation_id: FieldSources,
}

/// A wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Any JSON.
    Plain,
    /// A JSON domain event with its envelope as members.
    Envelope,
}

/// What a null value means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tombstone {
    /// The aggregate ends.
    Delete,
    /// Nothing; ends as SKIPPED.
    Skip,
    /// Poison `tombstone_refused`.
    DeadLetter,
}

/// The unit of a whole number that stands for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NumberTime {
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Millis,
}

/// Whether events carry a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionSource {
    /// They do not: their order in the log is all there is.
    None,
    /// They do; an event without one is poison `version_missing`.
    From(FieldSources),
}

impl DecodeConfig {
    /// What a format reads without `[decode.fields]`.
    fn of_format(format: Format) -> Self {
        let (tombstone, mut config) = match format {
            Format::Plain => (Tombstone::Delete, Self::plain()),
            Format::Envelope => (Tombstone::Skip, Self::envelope()),
        };
        config.format = format;
        config.tombstone = tombstone;
        config
    }

    /// Any JSON: type = topic, id = key, identity = position, the payload is the whole value.
    fn plain() -> Self {
        let none = FieldSources::default;
        Self {
            format: Format::Plain,
            tombstone: Tombstone::Delete,
            number_time: NumberTime::Millis,
            max_depth: 0,
            event_id: none(),
            event_type: FieldSources::one(FieldSource::Const("record".to_owned())),
            aggregate_id: FieldSources::one(FieldSource::Key),
            aggregate_type: FieldSources::one(FieldSource::Topic),
            version: VersionSource::None,
            time: FieldSources::one(FieldSource::Timestamp),
            payload: FieldSources::one(FieldSource::Value),
            tenant: none(),
            user: none(),
            nonce: none(),
            transaction_id: none(),
            correlation_id: none(),
            causation_id: none(),
        }
    }

    /// A JSON domain event: the envelope's members stand beside the payload's.
    fn envelope() -> Self {
        Self {
            event_id: FieldSources::value("/eventId"),
            event_type: FieldSources::value("/eventType"),
            aggregate_id: FieldSources(vec![
                FieldSource::ValuePointer("/aggregateId".to_owned()),
                FieldSource::Key,
            ]),
            aggregate_type: FieldSources::value("/aggregateType"),
            version: VersionSource::From(FieldSources::value("/sequenceNumber")),
            time: FieldSources::value("/timestamp"),
            payload: FieldSources::default(),
            ..Self::plain()
        }
    }

    pub(in crate::config) fn read(mut section: Section<'_>) -> Self {
        let format = section.choice(
            "format",
            &[("plain", Format::Plain), ("envelope", Format::Envelope)],
            &["cloudevents", "debezium-outbox", "debezium-change"],
        );
        let mut config = Self::of_format(format);
        let tombstones = [
            ("delete", Tombstone::Delete),
            ("skip", Tombstone::Skip),
            ("dead-letter", Tombstone::DeadLetter),
        ];
        if let Some(tombstone) = section.optional_choice("tombstone", &tombstones, &[]) {
            config.tombstone = tombstone;
        }
        let units = [("milliseconds", NumberTime::Millis), ("seconds", NumberTime::Seconds)];
        config.number_time = section.choice("number_time", &units, &[]);
        config.max_depth = section.count("max_depth", 1..=1000);
        config.read_fields(section.table("fields"));
        section.finish();
        config
    }

    /// Lays `[decode.fields]` over the format's own sources.
    fn read_fields(&mut self, mut section: Section<'_>) {
        if let Some(sources) = read_version(&mut section) {
            self.version = sources;
        }
        for (key, field) in [
            ("event_id", &mut self.event_id),
            ("event_type", &mut self.event_type),
            ("aggregate_id", &mut self.aggregate_id),
            ("aggregate_type", &mut self.aggregate_type),
            ("time", &mut self.time),
            ("payload", &mut self.payload),
            ("tenant", &mut self.tenant),
            ("user", &mut self.user),
            ("nonce", &mut self.nonce),
            ("transaction_id", &mut self.transaction_id),
            ("correlation_id", &mut self.correlation_id),
            ("causation_id", &mut self.causation_id),
        ] {
            if let Some(sources) = read_field(&mut section, key) {
                *field = sources;
            }
        }
        section.finish();
    }
}

/// Reads `version`, where the word `none` says that events carry no version.
fn read_version(section: &mut Section<'_>) -> Option<VersionSource> {
    let value = section.raw("version")?;
    if texts(value).is_some_and(|texts| texts == ["none"]) {
        return Some(VersionSource::None);
    }
    read_field(section, "version").map(VersionSource::From)
}

/// Reads the sources of one envelope field and refuses those that would refer to themselves.
fn read_field(section: &mut Section<'_>, key: &'static str) -> Option<FieldSources> {
    let value = section.raw(key)?;
    match FieldSources::read(value) {
        Ok(sources) if sources.0.iter().any(FieldSource::needs_decoding) => {
            section.problem(key, "an envelope field cannot be taken from another envelope field");
            None
        }
        Ok(sources) if key == "payload" && sources.0.iter().any(FieldSource::is_payload) => {
            section.problem(key, "the payload cannot be taken from itself; use value:/pointer");
            None
        }
        Ok(sources) => Some(sources),
        Err(message) => {
            section.problem(key, message);
            None
        }
    }
}
