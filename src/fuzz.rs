//! What holds for every input: one function for each fuzz target.
//!
//! `fuzz/` calls them with what libFuzzer makes up. The test below calls the same functions with the
//! committed corpus, so that `make test` runs it without a nightly compiler. Compiled for these two
//! only. Each function panics when a promise is broken, and accepts any bytes.

use std::path::Path;

use jiff::Timestamp;
use postgres_protocol::escape::escape_identifier;
use serde_json::Value;
use serde_json::value::RawValue;
use toml::de::{DeTable, DeValue};

use crate::config::{FieldSource, NumberTime, TableName, load_text};
use crate::decode::{
    Decimal, Document, Pointer, canonical, date_time_micros, days, from_number, instant,
    instant_micros, integer, micros, quoted, string_content, time_of_day, whole,
};
use pgsluice_core::verdict::Reason;

/// Panics when a promise is broken, whatever the bytes are.
pub type Target = fn(&[u8]);

/// Every target, by its name in `fuzz/fuzz_targets/` and `fuzz/corpus/`.
pub const TARGETS: [(&str, Target); 6] = [
    ("configuration", configuration),
    ("field_source", field_source),
    ("json", json),
    ("number", number),
    ("table_name", table_name),
    ("time", time),
];

/// How deep documents may be nested here; below serde_json's own limit, which its tree has.
const DEPTH: usize = 64;

/// Names by which serde_json's tree marks numbers and raw values: it reads such objects as those.
const MARK: &str = "$serde_json::private";

/// A secret in the configuration's corpus holds this word, so that it is told from other text.
const SECRET: &str = "canary";

/// A JSON document and a pointer into it: the pointer on the first line, the document after it.
///
/// - What is neither read nor refused does not exist.
/// - A pointer finds a slice of the document, and the same value that serde_json's tree has there.
/// - What is accepted holds no text that Postgres cannot store.
/// - A member that is taken out is gone, and the rest is the same document.
/// - Canonical text is its own canonical text, and means the same.
pub fn json(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n');
    let (pointer, bytes) = end.map_or((&data[..0], data), |end| (&data[..end], &data[end + 1..]));
    let pointer = std::str::from_utf8(pointer).ok().filter(|pointer| is_pointer(pointer));
    let reading = Document::read(bytes, DEPTH);
    let Some(document) = reading.document else {
        assert!(reading.problem.is_some(), "neither read nor refused");
        return;
    };
    assert!(is_slice(document.text, bytes), "the document is not a slice of the record");
    let found = pointer.and_then(|pointer| Pointer::new(pointer).resolve(&document));
    if let Some(found) = found {
        assert!(is_slice(found, bytes), "a pointer finds what is not in the record");
        assert_ne!(Document::parse(found).err(), Some(Reason::JsonSyntax), "{found}");
    }
    if reading.problem.is_some() || document.text.contains(MARK) {
        return;
    }
    let Ok(tree) = serde_json::from_str::<Value>(document.text) else {
        panic!("accepted, and not JSON: {}", document.text);
    };
    assert!(is_storable(&tree), "accepted, and Postgres cannot store it: {}", document.text);
    if let Some(pointer) = pointer {
        assert_eq!(found.map(tree_of), tree.pointer(pointer).cloned(), "{pointer}");
        if let Some(name) = Pointer::new(pointer).first() {
            without_member(&document, name);
        }
    }
    canonical_form(&document, &tree);
}

fn is_pointer(text: &str) -> bool {
    text.is_empty() || FieldSource::parse(&format!("value:{text}")).is_ok()
}

/// Whether `part` lies in the memory of `whole`.
fn is_slice(part: &str, whole: &[u8]) -> bool {
    let (part, whole) = (part.as_bytes().as_ptr_range(), whole.as_ptr_range());
    whole.start <= part.start && part.end <= whole.end
}

fn tree_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("not JSON: {text}"))
}

/// Whether no text in it holds the character that Postgres refuses.
fn is_storable(tree: &Value) -> bool {
    match tree {
        Value::String(text) => !text.contains('\0'),
        Value::Array(elements) => elements.iter().all(is_storable),
        Value::Object(members) => {
            members.iter().all(|(name, value)| !name.contains('\0') && is_storable(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

fn without_member(document: &Document<'_>, name: &str) {
    let mut expected = tree_of(document.text);
    if let Value::Object(members) = &mut expected {
        members.remove(name);
    }
    assert_eq!(tree_of(&document.without(&[name.into()]).into_text()), expected, "{name}");
}

fn canonical_form(document: &Document<'_>, tree: &Value) {
    let Some(text) = canonical(document.text) else { return };
    if let Value::String(content) = tree {
        assert_eq!(&text, content, "a string is not its own content");
        assert_eq!(string_content(&quoted(&text)).as_deref(), Some(text.as_str()));
        assert_eq!(canonical(&quoted(&text)).as_ref(), Some(&text));
    } else {
        assert_eq!(tree_of(&text), *tree, "canonical text means something else");
        assert_eq!(canonical(&text).as_ref(), Some(&text));
    }
}

/// A number.
///
/// - The grammar is exactly JSON's, and the parts put together are the text.
/// - Whole numbers are what their digits say.
/// - A point in time that was read from a number is read again from its seconds.
pub fn number(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let decimal = Decimal::parse(text);
    let starts = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let ends = text.ends_with(|last: char| last.is_ascii_digit());
    let json = starts && ends && serde_json::from_str::<&RawValue>(text).is_ok();
    assert_eq!(decimal.is_some(), json, "{text}");
    if let Some(decimal) = decimal {
        assert_eq!(written(&decimal), text.replace('E', "e"));
    }
    if let Some(value) = whole(text) {
        let digits = text.trim_start_matches('0');
        assert_eq!(value.to_string(), if digits.is_empty() { "0" } else { digits });
        assert_eq!(integer(text), Some(value), "{text}");
    }
    if let Some(value) = integer(text) {
        assert_eq!(text.parse(), Ok(value));
        assert_eq!(whole(text).is_some(), !text.starts_with('-'), "{text}");
        assert_eq!(integer(&value.to_string()), Some(value));
    }
    for unit in [NumberTime::Seconds, NumberTime::Millis] {
        let Some(time) = from_number(text, unit) else { continue };
        assert!(decimal.is_some() || integer(text).is_some(), "{text}");
        assert_eq!(from_number(&in_seconds(time), unit), Some(time), "{text}");
    }
}

fn written(decimal: &Decimal<'_>) -> String {
    let mut text = String::from(if decimal.negative { "-" } else { "" });
    text += decimal.whole;
    if let Some(fraction) = decimal.fraction {
        text += ".";
        text += fraction;
    }
    if let Some(exponent) = decimal.exponent {
        text += "e";
        text += exponent;
    }
    text
}

/// A point in time as a number of seconds with nine digits after the dot.
fn in_seconds(time: Timestamp) -> String {
    let nanos = time.as_nanosecond();
    let (sign, nanos) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    format!("{sign}{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

/// A point in time as text, or a part of one.
///
/// - What is read is written in a form that is read as the same.
/// - The reader for columns agrees with the one for the envelope, and reads a few hours more.
/// - A day is its midnight, and a date-time without a zone is that of UTC.
pub fn time(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match (instant(text), instant_micros(text)) {
        (Some(time), column) => {
            assert_eq!(instant(&time.to_string()), Some(time), "{text}");
            assert_eq!(column, Some(micros(time)), "{text}");
        }
        (None, Some(_)) => assert!(text.starts_with("9999-12-3"), "{text}"),
        (None, None) => {}
    }
    if let Some(value) = date_time_micros(text) {
        assert_eq!(instant_micros(&format!("{text}Z")), Some(value), "{text}");
    }
    if let Some(days) = days(text) {
        let midnight = date_time_micros(&format!("{text}T00:00:00"));
        assert_eq!(midnight, Some(i64::from(days) * 86_400_000_000), "{text}");
    }
    if let Some(clock) = time_of_day(text) {
        assert_eq!(time_of_day(&clock.to_string()), Some(clock), "{text}");
        assert!(date_time_micros(&format!("2026-03-01T{text}")).is_some(), "{text}");
    }
}

/// A field source as it is written in the configuration.
///
/// - A source is written back as what was read.
/// - A pointer can be resolved in any document.
/// - A refusal is one line that says something.
pub fn field_source(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let source = match FieldSource::parse(text) {
        Ok(source) => source,
        Err(message) => {
            assert!(!message.is_empty() && !message.contains('\n'), "{message:?}");
            return;
        }
    };
    assert_eq!(spelled(&source), text);
    if let FieldSource::KeyPointer(pointer)
    | FieldSource::ValuePointer(pointer)
    | FieldSource::PayloadPointer(pointer) = &source
    {
        let pointer = Pointer::new(pointer);
        assert!(pointer.first().is_some(), "{text} points to everything");
        for document in ["{}", "[[1],2]", "\"text\"", "null"] {
            let Ok(document) = Document::parse(document) else { panic!("{document}") };
            let found = pointer.resolve(&document);
            assert!(found.is_none_or(|found| is_slice(found, document.text.as_bytes())));
        }
    }
}

fn spelled(source: &FieldSource) -> String {
    let word = match source {
        FieldSource::KeyPointer(pointer) => return format!("key:{pointer}"),
        FieldSource::ValuePointer(pointer) => return format!("value:{pointer}"),
        FieldSource::PayloadPointer(pointer) => return format!("payload:{pointer}"),
        FieldSource::Header(name) => return format!("header:{name}"),
        FieldSource::Const(text) => return format!("const:{text}"),
        FieldSource::Key => "key",
        FieldSource::Value => "value",
        FieldSource::Payload => "payload",
        FieldSource::Topic => "topic",
        FieldSource::Partition => "partition",
        FieldSource::Offset => "offset",
        FieldSource::Timestamp => "timestamp",
        FieldSource::Envelope(field) => field.spec().name,
    };
    word.to_owned()
}

/// The name of a table.
///
/// - A name that was read, quoted as it is quoted in SQL, is read as the same name.
/// - Each of its parts is one that Postgres can have: 1 to 63 bytes without NUL.
pub fn table_name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let name = match TableName::parse(text) {
        Ok(name) => name,
        Err(message) => {
            assert!(!message.is_empty() && !message.contains('\n'), "{message:?}");
            return;
        }
    };
    let parts = name.schema.iter().chain([&name.name]);
    for part in parts.clone() {
        assert!((1..=63).contains(&part.len()) && !part.contains('\0'), "{part:?}");
    }
    let quoted: Vec<String> = parts.map(|part| escape_identifier(part)).collect();
    assert_eq!(TableName::parse(&quoted.join(".")), Ok(name), "{text}");
}

/// A configuration file.
///
/// - It loads, or every problem has a message, and a key or a place.
/// - Neither a message nor what `Debug` prints holds a secret of the file, nor a message about
///   broken syntax any of its text.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // The fuzzer would wait for what such files never end to say.
    if text.contains("/dev/") || text.contains("/proc/") {
        return;
    }
    let loaded = load_text(
        Some((Path::new("pgsluice.toml"), text)),
        std::iter::empty(),
        &crate::kafka::Librdkafka,
    );
    let said = match &loaded {
        Ok(config) => format!("{config:?}"),
        Err(problems) => {
            assert!(!problems.0.is_empty(), "refused without a problem");
            for problem in &problems.0 {
                assert!(!problem.message.is_empty(), "{problem:?}");
                assert!(!problem.key.is_empty() || problem.place.is_some(), "{problem:?}");
            }
            problems.to_string()
        }
    };
    match DeTable::parse(text) {
        Ok(document) => {
            let mut secrets = Vec::new();
            collect_secrets(document.get_ref(), &mut secrets);
            // One that is written elsewhere as well is no secret.
            for secret in secrets.iter().filter(|secret| text.matches(secret.as_str()).count() == 1)
            {
                assert!(!said.contains(secret), "a secret is shown");
            }
        }
        Err(_) => assert!(!said.contains(SECRET), "broken syntax is shown"),
    }
}

/// The marked secrets of a file: passwords of librdkafka, and the one in the database's URL.
fn collect_secrets(table: &DeTable<'_>, secrets: &mut Vec<String>) {
    for (name, value) in table {
        secrets_of(name.get_ref(), value.get_ref(), secrets);
    }
}

fn secrets_of(name: &str, value: &DeValue<'_>, secrets: &mut Vec<String>) {
    match value {
        DeValue::Table(inner) => collect_secrets(inner, secrets),
        // A list is a mistake there, and its elements are secrets all the same.
        DeValue::Array(elements) => {
            elements.iter().for_each(|element| secrets_of(name, element.get_ref(), secrets));
        }
        DeValue::String(text) => {
            let secret = match name {
                "url" => password(text),
                name if name.ends_with("password") || name.ends_with("secret") => Some(&**text),
                _ => None,
            };
            secrets.extend(secret.filter(|text| text.contains(SECRET)).map(str::to_owned));
        }
        _ => {}
    }
}

/// The password in a connection URL.
fn password(url: &str) -> Option<&str> {
    let (credentials, _) = url.split_once("://")?.1.rsplit_once('@')?;
    credentials.split_once(':').map(|(_, password)| password)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::panic::catch_unwind;
    use std::path::PathBuf;

    use super::*;

    fn package(path: &str) -> PathBuf {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz")).join(path)
    }

    fn names(path: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(package(path)).expect(path).map(|entry| entry.expect(path));
        entries.map(|entry| entry.path().file_stem().expect(path).display().to_string()).collect()
    }

    #[test]
    fn every_target_keeps_its_promises_on_its_corpus() {
        let mut broken = Vec::new();
        for (target, run) in TARGETS {
            let mut count = 0;
            for entry in fs::read_dir(package("corpus").join(target)).expect(target) {
                let path = entry.expect(target).path();
                let data = fs::read(&path).expect("a file");
                // The panic itself is printed; this names the input.
                if catch_unwind(|| run(&data)).is_err() {
                    broken.push(path);
                }
                count += 1;
            }
            assert!(count >= 10, "{target}: only {count} inputs");
        }
        assert!(broken.is_empty(), "{broken:#?}");
    }

    #[test]
    fn every_target_is_a_program_with_a_corpus() {
        let targets: BTreeSet<String> = TARGETS.map(|(name, _)| name.to_owned()).into();
        assert_eq!(names("fuzz_targets"), targets);
        assert_eq!(names("corpus"), targets);
        let manifest = fs::read_to_string(package("Cargo.toml")).expect("a manifest");
        for (name, _) in TARGETS {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
            let program =
                fs::read_to_string(package("fuzz_targets").join(name).with_extension("rs"));
            let call = format!("pgsluice::fuzz::{name}(data)");
            assert!(program.expect("a program").contains(&call), "{name}");
        }
    }
}
