//! Field sources: where a field of the envelope or a column takes its value from, as the
//! configuration writes it.

use config::Value;

use super::load::near::suggestion;
use super::load::reader::texts;
use pgsluice_core::envelope::{EnvelopeField, FIELDS, FieldSpec};

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
    /// A field of the envelope, as decoded; in routes.
    Envelope(EnvelopeField),
    /// `payload`: the whole payload.
    Payload,
}

/// Sources that are one word beside the names of fields, with the word.
const WORDS: [(&str, FieldSource); 7] = [
    ("key", FieldSource::Key),
    ("value", FieldSource::Value),
    ("payload", FieldSource::Payload),
    ("topic", FieldSource::Topic),
    ("partition", FieldSource::Partition),
    ("offset", FieldSource::Offset),
    ("timestamp", FieldSource::Timestamp),
];

/// The fields that are sources in routes.
fn sources_in_routes() -> impl Iterator<Item = &'static FieldSpec> {
    FIELDS.iter().filter(|spec| spec.in_routes)
}

/// Sources with a JSON pointer behind a colon.
const POINTED: [&str; 3] = ["key", "value", "payload"];

impl FieldSource {
    /// Reads a source as it is written in the configuration.
    ///
    /// # Errors
    /// A sentence for the operator when the text is no source.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some((_, source)) = WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(source.clone());
        }
        if let Some(spec) = sources_in_routes().find(|spec| spec.name == text) {
            return Ok(Self::Envelope(spec.field));
        }
        match text.split_once(':') {
            Some(("const", text)) => Ok(Self::Const(text.to_owned())),
            Some(("header", "")) => Err("header: needs a header name after it".to_owned()),
            Some(("header", name)) => Ok(Self::Header(name.to_owned())),
            Some(("key", pointer)) => Ok(Self::KeyPointer(json_pointer("key", pointer)?)),
            Some(("value", pointer)) => Ok(Self::ValuePointer(json_pointer("value", pointer)?)),
            Some(("payload", pointer)) => {
                Ok(Self::PayloadPointer(json_pointer("payload", pointer)?))
            }
            _ => Err(unknown_source(text)),
        }
    }

    /// Whether the source is a decoded field, which exists only once decoding is done.
    pub(super) fn needs_decoding(&self) -> bool {
        matches!(self, Self::Envelope(_))
    }

    /// Whether the source is the payload or a part of it.
    pub(super) fn is_payload(&self) -> bool {
        matches!(self, Self::Payload | Self::PayloadPointer(_))
    }
}

/// Why a text is no source, with what was meant where that can be guessed.
fn unknown_source(text: &str) -> String {
    // `payload.name` or `payload/name` for `payload:/name`.
    let pointed = POINTED.iter().find_map(|word| {
        let path = text.strip_prefix(word)?.strip_prefix(['.', '/'])?;
        Some(format!("{word}:/{}", path.replace('.', "/")))
    });
    let pointed = pointed.or_else(|| text.starts_with('/').then(|| format!("payload:{text}")));
    // `customer.name` or `customer/name`: no source is written so.
    let pointed = pointed.or_else(|| {
        let path = text.contains(['.', '/']) && !text.contains(':');
        path.then(|| format!("payload:/{}", text.trim_start_matches("$.").replace('.', "/")))
    });
    if let Some(meant) = pointed {
        return format!("{text:?} is not a field source, did you mean {meant:?}?");
    }
    let fields: Vec<&str> = sources_in_routes().map(|spec| spec.name).collect();
    let near = suggestion(text, &[&WORDS.map(|(word, _)| word)[..], &fields].concat());
    if near.is_empty() {
        format!(
            "{text:?} is not a field source: expected key, key:/pointer, value, value:/pointer, \
             payload, payload:/pointer, header:name, const:text, topic, partition, offset, \
             timestamp, or in a route {}",
            fields.join(", ")
        )
    } else {
        format!("{text:?} is not a field source{near}")
    }
}

/// Checks a JSON pointer (RFC 6901): members after slashes, `~0` and `~1` as the only escapes.
fn json_pointer(word: &str, pointer: &str) -> Result<String, String> {
    let known =
        |(at, _): (usize, &str)| matches!(pointer.as_bytes().get(at + 1), Some(b'0' | b'1'));
    if pointer.is_empty() {
        return Err(format!(
            "{word}: needs a JSON pointer after it, such as {word}:/customer/name"
        ));
    }
    if !pointer.starts_with('/') {
        let meant = format!("{word}:/{}", pointer.replace('.', "/"));
        return Err(format!("a JSON pointer begins with a slash, did you mean {meant:?}?"));
    }
    if pointer.match_indices('~').all(known) {
        Ok(pointer.to_owned())
    } else {
        Err("in a JSON pointer, write ~ as ~0 and / within a name as ~1".to_owned())
    }
}

impl FieldSources {
    /// The sources of a table of defaults, see [`crate::config::format`].
    pub(super) fn of_defaults(texts: &[&str]) -> Self {
        // A test parses all of them.
        Self(texts.iter().filter_map(|text| FieldSource::parse(text).ok()).collect())
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
            ("causation_id", FieldSource::Envelope(EnvelopeField::CausationId)),
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

    #[test]
    fn what_was_meant_is_suggested_where_it_can_be_guessed() {
        for (text, meant) in [
            ("agregate_id", "\"aggregate_id\""),
            ("payload.customer.name", "\"payload:/customer/name\""),
            ("value/name", "\"value:/name\""),
            ("/name", "\"payload:/name\""),
            ("payload:name", "\"payload:/name\""),
            ("customer.name", "\"payload:/customer/name\""),
            ("$.customer.name", "\"payload:/customer/name\""),
        ] {
            let message = FieldSource::parse(text).expect_err(text);
            assert!(message.contains(&format!("did you mean {meant}?")), "{message}");
        }
        let message = FieldSource::parse("x").expect_err("no source");
        assert!(message.contains("payload:/pointer") && message.contains("tenant"), "{message}");
    }
}
