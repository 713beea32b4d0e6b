//! How a record is read: the format, and from where each field of the envelope comes.

use config::Value;

use super::read::{Section, texts};

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

/// Where a field comes from: the first source that the record has; empty means never.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSources(pub Vec<FieldSource>);

/// One place a field can come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FieldSource {
    /// `key`: the record's key.
    Key,
    /// `key:/pointer`: a member of a JSON key, by JSON pointer.
    KeyPointer(String),
    /// `value`: the whole value.
    Value,
    /// `value:/pointer`: a member of a JSON value.
    ValuePointer(String),
    /// `payload:/pointer`: a member of the payload.
    PayloadPointer(String),
    /// `header:name`: the last header of that name.
    Header(String),
    /// `const:text`: always this text.
    Const(String),
    /// `topic`: the record's topic.
    Topic,
    /// `partition`: the record's partition.
    Partition,
    /// `offset`: the record's offset.
    Offset,
    /// `timestamp`: the record's timestamp.
    Timestamp,
    /// `aggregate_id`, as decoded; in routes.
    AggregateId,
    /// `aggregate_type`, as decoded; in routes.
    AggregateType,
    /// `event_id`, as decoded; in routes.
    EventId,
    /// `event_type`, as decoded; in routes.
    EventType,
    /// `version`, as decoded; in routes.
    Version,
    /// `time`, as decoded; in routes.
    Time,
    /// `tenant`, as decoded; in routes.
    Tenant,
    /// `user`, as decoded; in routes.
    User,
    /// `transaction_id`, as decoded; in routes.
    TransactionId,
    /// `correlation_id`, as decoded; in routes.
    CorrelationId,
    /// `causation_id`, as decoded; in routes.
    CausationId,
    /// `payload`: the whole payload.
    Payload,
}

/// Sources that are one word, with the word.
const WORDS: [(&str, FieldSource); 18] = [
    ("key", FieldSource::Key),
    ("value", FieldSource::Value),
    ("payload", FieldSource::Payload),
    ("topic", FieldSource::Topic),
    ("partition", FieldSource::Partition),
    ("offset", FieldSource::Offset),
    ("timestamp", FieldSource::Timestamp),
    ("aggregate_id", FieldSource::AggregateId),
    ("aggregate_type", FieldSource::AggregateType),
    ("event_id", FieldSource::EventId),
    ("event_type", FieldSource::EventType),
    ("version", FieldSource::Version),
    ("time", FieldSource::Time),
    ("tenant", FieldSource::Tenant),
    ("user", FieldSource::User),
    ("transaction_id", FieldSource::TransactionId),
    ("correlation_id", FieldSource::CorrelationId),
    ("causation_id", FieldSource::CausationId),
];

impl FieldSource {
    /// Reads a source as it is written in the configuration.
    ///
    /// # Errors
    /// A sentence for the operator when the text is no source.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some((_, source)) = WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(source.clone());
        }
        match text.split_once(':') {
            Some(("const", text)) => Ok(Self::Const(text.to_owned())),
            Some(("header", "")) => Err("header: needs the header's name after it".to_owned()),
            Some(("header", name)) => Ok(Self::Header(name.to_owned())),
            Some(("key", pointer)) => Ok(Self::KeyPointer(json_pointer(pointer)?)),
            Some(("value", pointer)) => Ok(Self::ValuePointer(json_pointer(pointer)?)),
            Some(("payload", pointer)) => Ok(Self::PayloadPointer(json_pointer(pointer)?)),
            _ => {
                Err("expected a field source: key, key:/pointer, value, value:/pointer, payload, \
                      payload:/pointer, header:name, const:text, topic, partition, offset, \
                      timestamp, or in a route the name of an envelope field"
                    .to_owned())
            }
        }
    }

    /// Whether the source is a decoded field, which exists only once decoding is done.
    fn needs_decoding(&self) -> bool {
        match self {
            Self::AggregateId
            | Self::AggregateType
            | Self::EventId
            | Self::EventType
            | Self::Version
            | Self::Time
            | Self::Tenant
            | Self::User
            | Self::TransactionId
            | Self::CorrelationId
            | Self::CausationId => true,
            Self::Key
            | Self::KeyPointer(_)
            | Self::Value
            | Self::ValuePointer(_)
            | Self::PayloadPointer(_)
            | Self::Header(_)
            | Self::Const(_)
            | Self::Topic
            | Self::Partition
            | Self::Offset
            | Self::Timestamp
            | Self::Payload => false,
        }
    }

    /// Whether the source is the payload or a part of it.
    fn is_payload(&self) -> bool {
        matches!(self, Self::Payload | Self::PayloadPointer(_))
    }
}

/// Checks a JSON pointer (RFC 6901): members after slashes, `~0` and `~1` as the only escapes.
fn json_pointer(pointer: &str) -> Result<String, String> {
    let explain = || "expected a JSON pointer such as /customer/name after the colon".to_owned();
    if !pointer.starts_with('/') {
        return Err(explain());
    }
    let escapes_known = pointer
        .match_indices('~')
        .all(|(at, _)| matches!(pointer.as_bytes().get(at + 1), Some(b'0' | b'1')));
    if escapes_known { Ok(pointer.to_owned()) } else { Err(explain()) }
}

impl FieldSources {
    fn one(source: FieldSource) -> Self {
        Self(vec![source])
    }

    fn value(pointer: &str) -> Self {
        Self::one(FieldSource::ValuePointer(pointer.to_owned()))
    }

    /// Reads one source or a list of fallbacks.
    pub(super) fn read(value: &Value) -> Result<Self, String> {
        let texts = texts(value).ok_or("expected a field source or a list of them")?;
        if texts.is_empty() {
            return Err("needs at least one field source".to_owned());
        }
        texts.iter().map(|text| FieldSource::parse(text)).collect::<Result<_, _>>().map(Self)
    }
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

    pub(super) fn read(mut section: Section<'_>) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_field_source_is_read() {
        for (text, source) in [
            ("key", FieldSource::Key),
            ("key:/id", FieldSource::KeyPointer("/id".into())),
            ("value:/a~1b/0", FieldSource::ValuePointer("/a~1b/0".into())),
            ("payload:/newName", FieldSource::PayloadPointer("/newName".into())),
            ("header:host:id", FieldSource::Header("host:id".into())),
            ("const:", FieldSource::Const(String::new())),
            ("timestamp", FieldSource::Timestamp),
            ("causation_id", FieldSource::CausationId),
        ] {
            assert_eq!(FieldSource::parse(text), Ok(source), "{text}");
        }
    }

    #[test]
    fn a_field_source_that_cannot_be_meant_is_refused() {
        for text in ["", "keys", "value:name", "value:/a~2", "header:", "json:/a", "value:"] {
            assert!(FieldSource::parse(text).is_err(), "{text}");
        }
    }
}
