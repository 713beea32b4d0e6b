//! What events take in memory: little more than their record's bytes, once.

use super::tests::{decoder, record};
use pgsluice_core::event::{Content, Event, RowWrite, Value};

/// What an event takes beside the bytes of its record: itself, and the id of its aggregate.
const BESIDE: usize = 340;

/// An envelope of 400 bytes with its key, as Jackson writes it: the type first, and again.
fn envelope_value() -> String {
    let id = "7d8e52c1-9f0a-4b57-8c3e-2f64b1a0d9e5";
    let head = format!(
        r#"{{"eventType":"CustomerRegistered","eventId":"{id}","timestamp":"2026-03-01T10:15:30.123456789Z","aggregateId":"{id}","aggregateType":"Customer","sequenceNumber":12,"name":"Jane Doe","city":"Vienna","level":3,"note":""#
    );
    let tail = r#"","active":true,"eventType":"CustomerRegistered"}"#;
    let fill = 400 - 36 - head.len() - tail.len();
    format!("{head}{}{tail}", "x".repeat(fill))
}

fn event(config: &str, value: &str) -> Event {
    let key = b"7d8e52c1-9f0a-4b57-8c3e-2f64b1a0d9e5";
    let event = decoder(config).decode(record(Some(key), Some(value.as_bytes())));
    assert!(matches!(event.content, Content::Write(_)), "{:?}", event.content);
    assert_eq!(key.len() + value.len(), 400);
    event
}

#[test]
fn an_envelope_event_is_its_record_once() {
    let weight = event("[decode]\nformat = \"envelope\"", &envelope_value()).weight();
    assert!(weight <= 400 + BESIDE, "{weight}");
}

#[test]
fn a_plain_event_is_its_record_once() {
    let value = format!("{{\"text\":\"{}\"}}", "x".repeat(400 - 36 - 11));
    let weight = event("", &value).weight();
    assert!(weight <= 400 + BESIDE, "{weight}");
}

#[test]
fn an_upsert_adds_a_row_of_small_values() {
    let columns = ["name", "city", "level", "note", "active"];
    let columns = columns.map(|name| format!("{name} = \"payload:/{name}\"")).join(", ");
    let config = format!(
        "[decode]\nformat = \"envelope\"\n[[route]]\n[route.upsert]\ntable = \"wide\"\n\
         key = {{ id = \"aggregate_id\" }}\ncolumns = {{ {columns} }}\n"
    );
    let event = event(&config, &envelope_value());
    let row = event.write().map(|write| &write.rows[0]).unwrap();
    assert_eq!(row.columns.len(), 5);
    let values = 6 * size_of::<Option<Value>>() + size_of::<RowWrite>();
    // The key comes from the aggregate's id, which is no part of the record any more.
    let key = 36 + 32;
    assert!(event.weight() <= 400 + BESIDE + values + key, "{}", event.weight());
}

#[test]
fn what_was_converted_and_what_is_rare_counts_as_well() {
    let config = "[decode.fields]\ntenant = \"value:/text\"";
    let plain = |text: &str| {
        let value = format!("{{\"text\":\"{text}\"}}");
        decoder(config).decode(record(Some(b"k"), Some(value.as_bytes()))).weight()
    };
    // The escape makes the tenant a text of its own, two bytes shorter than it stands in the record.
    let (slice, converted) = (plain(&"x".repeat(100)), plain(&format!("{}\\n", "x".repeat(98))));
    assert!(converted >= slice + 99, "{slice} {converted}");
    let without = decoder("").decode(record(Some(b"k"), Some(b"{}"))).weight();
    assert!(slice > without + 108 + 2 * size_of::<Value>(), "{without} {slice}");
}
