//! How a record is read: the format, and from where each field of the envelope comes.

use crate::config::field_source::{FieldSource, FieldSources};
use crate::config::format::{FORMATS, Format};
use crate::config::load::reader::{Section, texts};
use pgsluice_core::envelope::{EnvelopeField, FIELDS, FieldKind, FieldSpec};

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
    /// Where the fields of the envelope come from.
    pub fields: EnvelopeSources,
    /// What is written by the document route and what `payload:/…` looks into. Empty: the
    /// format's own, which for `envelope` is the value without the members that the other fields
    /// are taken from.
    pub payload: FieldSources,
}

/// The sources of each field of the envelope. Without any a field is not read; an event without an
/// id of its own is identified by its position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvelopeSources([FieldSources; FIELDS.len()]);

impl EnvelopeSources {
    /// The sources of one field.
    pub fn of(&self, field: EnvelopeField) -> &FieldSources {
        &self.0[field as usize]
    }

    fn set(&mut self, field: EnvelopeField, sources: FieldSources) {
        self.0[field as usize] = sources;
    }
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

impl DecodeConfig {
    /// What a format reads without `[decode.fields]`.
    fn of_format(format: Format) -> Self {
        let defaults = format.defaults();
        let mut fields = EnvelopeSources::default();
        for (field, sources) in defaults.fields {
            fields.set(*field, FieldSources::of_defaults(sources));
        }
        Self {
            format,
            tombstone: defaults.tombstone,
            number_time: NumberTime::Millis,
            max_depth: 0,
            fields,
            payload: FieldSources::of_defaults(defaults.payload),
        }
    }

    /// Whether events carry a version; one without it is then poison `version_missing`. If not,
    /// their order in the log is all there is.
    pub fn is_versioned(&self) -> bool {
        !self.fields.of(EnvelopeField::Version).0.is_empty()
    }

    pub(in crate::config) fn read(mut section: Section<'_>) -> Self {
        let format = section.choice(
            "format",
            &FORMATS.map(|defaults| (defaults.name, defaults.format)),
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
        for FieldSpec { field, name, kind, .. } in &FIELDS {
            let sources = match kind {
                FieldKind::Version => read_version(&mut section, name),
                _ => read_field(&mut section, name),
            };
            if let Some(sources) = sources {
                self.fields.set(*field, sources);
            }
        }
        if let Some(sources) = read_field(&mut section, "payload") {
            self.payload = sources;
        }
        section.finish();
    }
}

/// Reads `version`, where the word `none` says that events carry no version.
fn read_version(section: &mut Section<'_>, key: &'static str) -> Option<FieldSources> {
    let value = section.raw(key)?;
    if texts(value).is_some_and(|texts| texts == ["none"]) {
        return Some(FieldSources::default());
    }
    read_field(section, key)
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
