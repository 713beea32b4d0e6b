//! The decoder against records captured from real producers.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value as Tree;

use super::tests::{decoder, record};
use super::*;
use pgsluice_core::event::LedgerEffect;
use pgsluice_core::record::{Offset, Raw, TimestampType};

const OWN: [&str; 6] =
    ["eventId", "eventType", "aggregateId", "aggregateType", "sequenceNumber", "timestamp"];

/// The captured records of one file with what is expected of them.
fn captured(name: &str) -> Vec<(Record, Tree)> {
    let lines = |name: &str| {
        let path = format!("{}/tests/fixtures/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Tree>>()
    };
    let expected = lines(&format!("{name}.expected"));
    lines(name)
        .iter()
        .map(read_record)
        .zip(expected.into_iter().map(|line| line["expect"].clone()))
        .collect()
}

fn read_record(line: &Tree) -> Record {
    let bytes = |field: &Tree| -> Option<Box<[u8]>> {
        Some(BASE64_STANDARD.decode(field.as_str()?).unwrap().into())
    };
    let generated = line.get("value_generator").map(|generator| {
        let part = |name: &str| generator[name].as_str().unwrap();
        let count = generator["count"].to_string().parse().unwrap();
        let text = format!("{}{}{}", part("prefix"), part("fill").repeat(count), part("suffix"));
        text.into_bytes().into_boxed_slice()
    });
    let headers: Vec<_> = line["headers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|header| (header[0].as_str().unwrap(), bytes(&header[1])))
        .collect();
    let mut record = record(None, None);
    record.partition.topic = line["topic"].as_str().unwrap().into();
    record.offset = Offset(line["offset"].as_i64().unwrap());
    record.timestamp = line["timestamp"].as_i64();
    record.timestamp_type = TimestampType::CreateTime;
    let (key, value) = (bytes(&line["key_b64"]), generated.or_else(|| bytes(&line["value_b64"])));
    let headers = headers.iter().map(|(name, value)| (*name, value.as_deref()));
    record.raw = Raw::new(key.as_deref(), value.as_deref(), headers);
    record
}

fn assert_envelope(event: &Event, expected: &Tree) {
    let at = format!("{}/{}", event.record.partition, event.record.offset.0);
    let envelope = &event.envelope;
    let text = |name: &str| expected[name].as_str();
    let id = text("event_id").unwrap_or(&at);
    assert_eq!(event.id(), id, "{at}");
    assert_eq!(envelope.event_type.as_deref(), text("event_type"), "{at}");
    let aggregate = envelope.aggregate.as_ref();
    assert_eq!(aggregate.map(|key| &*key.id), text("aggregate_id"), "{at}");
    assert_eq!(aggregate.map(|key| &*key.aggregate_type), text("aggregate_type"), "{at}");
    assert_eq!(envelope.version.map(|v| v.0), expected["version"].as_i64(), "{at}");
    assert_eq!(envelope.time, text("time").map(|time| time.parse().unwrap()), "{at}");
}

/// The payload is what the producer wrote, number for number, without the envelope's members.
fn assert_payload(event: &Event, expected: &Tree) {
    let Some(mut wanted) = expected.get("payload").cloned() else { return };
    wanted.as_object_mut().unwrap().retain(|name, _| !OWN.contains(&name.as_str()));
    let Content::Write(write) = &event.content else { panic!("{:?}", event.content) };
    let LedgerEffect::Merge(json) = &write.ledger else { panic!("{:?}", write.ledger) };
    assert_eq!(serde_json::from_str::<Tree>(&json.text()).unwrap(), wanted);
}

fn assert_all(name: &str, decoder: &Decoder) {
    for (record, expected) in captured(name) {
        let event = decoder.decode(record);
        assert_envelope(&event, &expected);
        assert_payload(&event, &expected);
    }
}

#[test]
fn jackson_events_with_iso_times_are_read() {
    assert_all("envelope-jackson", &decoder("[decode]\nformat = \"envelope\""));
}

#[test]
fn jackson_events_with_decimal_seconds_are_read() {
    assert_all("envelope-jackson-seconds", &decoder("[decode]\nformat = \"envelope\""));
}

#[test]
fn jackson_events_with_milliseconds_are_read() {
    assert_all("envelope-jackson-millis", &decoder("[decode]\nformat = \"envelope\""));
}

#[test]
fn odd_records_end_as_decided() {
    let decoder = decoder("[decode]\nformat = \"envelope\"");
    let mut seen = 0;
    for (record, expected) in captured("odd") {
        let offset = record.offset.0;
        let event = decoder.decode(record);
        seen += 1;
        match expected["outcome"].as_str().unwrap() {
            // The escape of U+0000: an event, but none that Postgres could store.
            "event" if [10, 11].contains(&offset) => {
                assert!(
                    matches!(&event.content, Content::Poison(p) if p.reason == Reason::JsonText)
                );
                assert_envelope(&event, &expected);
            }
            "event" => {
                assert!(matches!(event.content, Content::Write(_)), "{offset}: {event:?}");
                assert_envelope(&event, &expected);
            }
            "no_value" => {
                assert_eq!(event.content, Content::Skip(Reason::Tombstone), "{offset}");
            }
            "poison" | "either" => {
                assert!(matches!(event.content, Content::Poison(_)), "{offset}: {event:?}");
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(seen, 39);
}

#[test]
fn big_numbers_of_a_payload_survive_digit_for_digit() {
    let decoder = decoder("[decode]\nformat = \"envelope\"");
    let (record, _) = captured("odd").swap_remove(12);
    let Content::Write(write) = decoder.decode(record).content else { panic!() };
    let LedgerEffect::Merge(json) = write.ledger else { panic!() };
    let numbers = "[9223372036854775808,18446744073709551616,123456789012345678901234567890,\
                   1e400,-0,-0.0,0.100000000000000000000000000001,1E-400,1.0,9007199254740993]";
    assert_eq!(json.text(), format!("{{\"n\":{numbers}}}"));
}
