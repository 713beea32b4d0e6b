//! The formats a record can have, as far as the configuration goes: names and defaults. How a
//! record of each is read is `decode/format`.

use crate::config::section::decode::Tombstone;
use crate::config::section::route::DocumentState;
use pgsluice_core::envelope::EnvelopeField;

/// A wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Any JSON.
    Plain,
    /// A JSON domain event with its envelope as members.
    Envelope,
}

/// What a format means where the configuration says nothing else.
#[derive(Debug, Clone, Copy)]
pub struct FormatDefaults {
    /// The format.
    pub format: Format,
    /// Its name in `decode.format`.
    pub name: &'static str,
    /// What a null value means.
    pub tombstone: Tombstone,
    /// What the document route does with a payload.
    pub document: DocumentState,
    /// The sources of the fields that it reads, as `[decode.fields]` would have them.
    pub fields: &'static [(EnvelopeField, &'static [&'static str])],
    /// The sources of the payload. Empty: the value without the members that fields are taken from.
    pub payload: &'static [&'static str],
}

/// All formats.
pub const FORMATS: [FormatDefaults; 2] = [
    // Any JSON: type = topic, id = key, identity = position, the payload is the whole value.
    FormatDefaults {
        format: Format::Plain,
        name: "plain",
        tombstone: Tombstone::Delete,
        document: DocumentState::Replace,
        fields: &[
            (EnvelopeField::AggregateId, &["key"]),
            (EnvelopeField::AggregateType, &["topic"]),
            (EnvelopeField::EventType, &["const:record"]),
            (EnvelopeField::Time, &["timestamp"]),
        ],
        payload: &["value"],
    },
    // A JSON domain event: the envelope's members stand beside the payload's.
    FormatDefaults {
        format: Format::Envelope,
        name: "envelope",
        tombstone: Tombstone::Skip,
        document: DocumentState::Merge,
        fields: &[
            (EnvelopeField::AggregateId, &["value:/aggregateId", "key"]),
            (EnvelopeField::AggregateType, &["value:/aggregateType"]),
            (EnvelopeField::EventType, &["value:/eventType"]),
            (EnvelopeField::Version, &["value:/sequenceNumber"]),
            (EnvelopeField::Time, &["value:/timestamp"]),
            (EnvelopeField::EventId, &["value:/eventId"]),
        ],
        payload: &[],
    },
];

impl Format {
    /// The format's defaults.
    pub fn defaults(self) -> &'static FormatDefaults {
        &FORMATS[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FieldSource;

    #[test]
    fn every_format_has_its_own_defaults_with_sources_that_can_be_read() {
        for (position, defaults) in FORMATS.iter().enumerate() {
            assert_eq!(defaults.format as usize, position, "{}", defaults.name);
            let sources = defaults.fields.iter().flat_map(|(_, sources)| *sources);
            for source in sources.chain(defaults.payload) {
                assert!(FieldSource::parse(source).is_ok(), "{source}");
            }
        }
    }
}
