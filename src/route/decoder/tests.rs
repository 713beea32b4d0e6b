use std::io::Write as _;

use proptest::prelude::*;

use super::*;
use crate::config::TableName;
use crate::route::{Catalog, Table, TableColumn};
use crate::sql::column_type::ColumnType;
use pgsluice_core::envelope::{EnvelopeField, FieldValue};
use pgsluice_core::event::{Json, LedgerEffect, RouteId, RowAction, RowWrite, Value, Write};
use pgsluice_core::record::{Generation, Offset, Raw, TimestampType, TopicPartition};

const ENVELOPE: &str = "[decode]\nformat = \"envelope\"\n";

/// Reads a configuration that has `text` beside what is required.
fn config(text: &str) -> Config {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let required = [
        ("PGSLUICE__KAFKA__BROKERS", "localhost:9092"),
        ("PGSLUICE__KAFKA__GROUP", "g"),
        ("PGSLUICE__KAFKA__TOPICS", "t"),
        ("PGSLUICE__POSTGRES__URL", "postgres://u@localhost/d"),
    ];
    let env = required.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    crate::config::load(Some(file.path()), env, &crate::config::AnyProperty).unwrap()
}

/// A catalog in which the table `x` has `id text`, `n integer`, `active boolean`, and `wide` has
/// columns of text as well.
fn catalog() -> Catalog {
    let column = |name: &str, ty| TableColumn {
        name: name.into(),
        ty: Some(ty),
        type_name: String::new(),
        generated: false,
        may_select: true,
        may_insert: true,
        may_update: true,
    };
    let text = ColumnType::Text { max_chars: None };
    let narrow = [("id", text.clone()), ("n", ColumnType::Int4), ("active", ColumnType::Bool)];
    let more = ["name", "city", "level", "note"].map(|name| (name, text.clone()));
    let wide = [&narrow[..], &more].concat();
    let table = |name: &str, columns: &[(&str, ColumnType)]| Table {
        schema: "public".into(),
        name: name.into(),
        is_table: true,
        has_rules: false,
        schema_usable: true,
        may_delete: true,
        columns: columns.iter().map(|(name, ty)| column(name, ty.clone())).collect(),
        unique: vec![vec!["id".into()]],
    };
    let tables = [table("x", &narrow), table("wide", &wide)];
    let named = |table: Table| (TableName { schema: None, name: table.name.clone() }, table);
    Catalog::from_tables(tables.map(named))
}

fn plan(config: &Config) -> Plan {
    Plan::compile(config, &catalog()).unwrap()
}

/// A decoder for a configuration that has `text` beside what is required.
pub(super) fn decoder(text: &str) -> Decoder {
    let config = config(text);
    Decoder::new(&plan(&config), &config)
}

pub(super) fn record(key: Option<&[u8]>, value: Option<&[u8]>) -> Record {
    Record {
        partition: TopicPartition { topic: "t".into(), partition: 3 },
        offset: Offset(7),
        generation: Generation(1),
        timestamp: Some(1_000),
        timestamp_type: TimestampType::CreateTime,
        raw: Raw::pair(key, value),
    }
}

fn decode(config: &str, key: &str, value: &str) -> Event {
    decoder(config).decode(record(Some(key.as_bytes()), Some(value.as_bytes())))
}

fn tombstone(config: &str, key: &str) -> Event {
    decoder(config).decode(record(Some(key.as_bytes()), None))
}

fn aggregate(event: &Event) -> Option<(&str, &str)> {
    event.envelope.aggregate.as_ref().map(|key| (&*key.aggregate_type, &*key.id))
}

/// What the event writes, beside the route.
fn written(event: &Event) -> (&LedgerEffect, &[RowWrite]) {
    match &event.content {
        Content::Write(write) => (&write.ledger, &write.rows),
        other => panic!("{other:?}"),
    }
}

/// What becomes of the state, by an event that writes nothing else.
fn state(event: &Event) -> &LedgerEffect {
    let (ledger, rows) = written(event);
    assert!(rows.is_empty(), "{rows:?}");
    ledger
}

fn write(route: u16, ledger: LedgerEffect, row: Option<RowWrite>) -> Content {
    let rows = row.into_iter().collect();
    Content::Write(Write { route: RouteId(route), ledger, rows })
}

fn row(action: RowAction, columns: &[Option<Value>]) -> Option<RowWrite> {
    Some(RowWrite { action, key: Box::new([text("c-1")]), columns: columns.into() })
}

fn poisoned(event: &Event) -> (Reason, Option<&str>) {
    match &event.content {
        Content::Poison(poison) => (poison.reason, poison.field.as_deref()),
        other => panic!("{other:?}"),
    }
}

fn replaced(text: &str) -> LedgerEffect {
    LedgerEffect::Set(Json::Value(text.into()))
}

fn merged(text: &str) -> LedgerEffect {
    LedgerEffect::Merge(Json::Value(text.into()))
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

const RENAMED: &str = r#"{"eventId":"e1","eventType":"Renamed","aggregateId":"c-1",
    "aggregateType":"Customer","sequenceNumber":2,"timestamp":"2026-03-01T10:15:30Z","n":5}"#;

/// [`RENAMED`] with one member changed, or taken out by an empty value.
fn renamed(member: &str, value: &str) -> String {
    let mut tree: serde_json::Value = serde_json::from_str(RENAMED).unwrap();
    let members = tree.as_object_mut().unwrap();
    members.remove(member);
    let mut text = tree.to_string();
    if !value.is_empty() {
        text.truncate(text.len() - 1);
        text += &format!(",\"{member}\":{value}}}");
    }
    text
}

#[test]
fn plain_takes_any_json_as_the_state_of_its_key() {
    let event = decode("", "c-1", " [1.10, {\"a\":1e400}]\n");
    assert_eq!(state(&event), &replaced("[1.10, {\"a\":1e400}]"));
    assert_eq!(aggregate(&event), Some(("t", "c-1")));
    assert_eq!(event.id(), "t/3/7");
    assert_eq!(event.envelope.event_type.as_deref(), Some("record"));
    assert_eq!(event.envelope.version, None);
    assert_eq!(event.envelope.time, Some(jiff::Timestamp::from_second(1).unwrap()));
}

#[test]
fn plain_keys_name_their_aggregate_in_one_way() {
    for (key, id) in [
        ("\"c-1\"", "c-1"),
        ("42", "42"),
        ("{ \"b\":1, \"a\":2 }", "{\"a\":2,\"b\":1}"),
        ("", ""),
        ("{broken", "{broken"),
    ] {
        assert_eq!(aggregate(&decode("", key, "{}")), Some(("t", id)));
    }
    let event = decoder("").decode(record(None, Some(b"{}")));
    assert_eq!(aggregate(&event), Some(("t", "3/7")));
    for key in [&b"\xff"[..], b"a\0b"] {
        let event = decoder("").decode(record(Some(key), Some(b"{}")));
        assert_eq!(poisoned(&event), (Reason::KeyEncoding, Some("aggregate_id")));
        assert_eq!(aggregate(&event), None);
    }
}

#[test]
fn a_plain_tombstone_deletes_and_a_null_key_has_nothing_to_delete() {
    assert_eq!(state(&tombstone("", "c-1")), &LedgerEffect::Clear);
    assert_eq!(state(&decode("", "c-1", " null ")), &LedgerEffect::Clear);
    let nothing = decoder("").decode(record(None, None));
    assert_eq!(nothing.content, Content::Skip(Reason::Tombstone));
    let skip = tombstone("[decode]\ntombstone = \"skip\"", "c-1");
    assert_eq!(skip.content, Content::Skip(Reason::Tombstone));
    let refused = tombstone("[decode]\ntombstone = \"dead-letter\"", "c-1");
    assert_eq!(poisoned(&refused), (Reason::TombstoneRefused, None));
    assert_eq!(aggregate(&refused), Some(("t", "c-1")));
}

#[test]
fn a_value_that_does_not_decode_still_parks_the_aggregate_of_its_key() {
    let deep = "[".repeat(200) + &"]".repeat(200);
    let long = format!("\"{}\"", "x".repeat(2_000));
    let small = "[limits]\nrecord_bytes = \"1KiB\"";
    for (config, value, reason) in [
        ("", "{", Reason::JsonSyntax),
        ("", "", Reason::JsonSyntax),
        ("", deep.as_str(), Reason::JsonDepth),
        ("", r#""\u0000""#, Reason::JsonText),
        ("", r#"{"\ud800":1}"#, Reason::JsonText),
        (small, long.as_str(), Reason::RecordTooLarge),
    ] {
        let event = decode(config, "c-1", value);
        assert_eq!(poisoned(&event), (reason, None));
        assert_eq!(aggregate(&event), Some(("t", "c-1")));
    }
}

#[test]
fn an_envelope_is_taken_apart() {
    let event = decode(ENVELOPE, "ignored", RENAMED);
    assert_eq!(state(&event), &merged("{\"n\":5}"));
    assert_eq!(aggregate(&event), Some(("Customer", "c-1")));
    assert_eq!(event.envelope.version.map(|v| v.0), Some(2));
    assert_eq!(event.envelope.time, Some("2026-03-01T10:15:30Z".parse().unwrap()));
}

#[test]
fn an_envelope_field_in_a_wrong_form_is_poison() {
    use Reason::{FieldInvalid, FieldMissing, JsonShape, VersionInvalid, VersionMissing};
    for (member, value, reason, field) in [
        ("eventType", "", FieldMissing, "event_type"),
        ("eventType", "null", FieldMissing, "event_type"),
        ("eventType", "{}", FieldInvalid, "event_type"),
        ("eventType", "\"\"", FieldInvalid, "event_type"),
        ("aggregateType", "", FieldMissing, "aggregate_type"),
        ("aggregateId", "true", FieldInvalid, "aggregate_id"),
        ("eventId", "[]", FieldInvalid, "event_id"),
        // Two events of one version would be the same one.
        ("eventId", r#""""#, FieldInvalid, "event_id"),
        ("sequenceNumber", "", VersionMissing, "version"),
        ("sequenceNumber", "null", VersionMissing, "version"),
        ("sequenceNumber", "1.0", VersionInvalid, "version"),
        ("sequenceNumber", "1e3", VersionInvalid, "version"),
        ("sequenceNumber", "-1", VersionInvalid, "version"),
        ("sequenceNumber", "\"x\"", VersionInvalid, "version"),
        ("sequenceNumber", "9223372036854775808", VersionInvalid, "version"),
        ("timestamp", "\"now\"", FieldInvalid, "time"),
        ("timestamp", "1e9", FieldInvalid, "time"),
    ] {
        let event = decode(ENVELOPE, "c-1", &renamed(member, value));
        assert_eq!(poisoned(&event), (reason, Some(field)), "{member} {value}");
    }
    assert_eq!(poisoned(&decode(ENVELOPE, "c-1", "[1]")), (JsonShape, None));
}

#[test]
fn an_aggregate_that_the_ledger_cannot_hold_is_poison_alone() {
    let id = format!("\"{}\"", "x".repeat(2_600));
    let event = decode(ENVELOPE, "c-1", &renamed("aggregateId", &id));
    assert_eq!(poisoned(&event), (Reason::FieldInvalid, Some("aggregate_id")));
    assert_eq!(aggregate(&event), None);
}

#[test]
fn fallbacks_stand_in_for_what_is_absent_or_null_but_not_for_what_is_broken() {
    let fields = format!(
        "{ENVELOPE}[decode.fields]\ntenant = [\"header:h\", \"value:/tenant\", \"const:none\"]"
    );
    let decoder = decoder(&fields);
    let tenant = |value: &str, header: Option<Option<&[u8]>>| {
        let mut record = record(None, Some(value.as_bytes()));
        let headers: Vec<_> = header.into_iter().map(|value| ("h", value)).collect();
        record.raw = Raw::new(None, record.value(), headers);
        decoder.decode(record)
    };
    let of = |event: &Event| match event.field(EnvelopeField::Tenant) {
        Some(FieldValue::Text(tenant)) => Some(tenant.into_owned()),
        _ => None,
    };
    let named = renamed("tenant", "\"acme\"");
    assert_eq!(of(&tenant(RENAMED, None)).as_deref(), Some("none"));
    assert_eq!(of(&tenant(&named, None)).as_deref(), Some("acme"));
    assert_eq!(of(&tenant(&named, Some(None))).as_deref(), Some("acme"));
    assert_eq!(of(&tenant(&named, Some(Some(b"h1")))).as_deref(), Some("h1"));
    for bytes in [&b"\xff"[..], b"\0"] {
        let event = tenant(&named, Some(Some(bytes)));
        assert_eq!(poisoned(&event), (Reason::HeaderEncoding, Some("tenant")));
        assert_eq!(aggregate(&event), Some(("Customer", "c-1")));
    }
}

#[test]
fn versions_and_nonces_are_whole_numbers_from_anywhere() {
    let fields = "[decode.fields]\nversion = \"timestamp\"\nnonce = \"value:/nonce\"";
    let event = decode(fields, "c-1", "{\"nonce\":\"0042\"}");
    assert_eq!(event.envelope.version.map(|v| v.0), Some(1_000));
    assert_eq!(event.field(EnvelopeField::Nonce), Some(FieldValue::Number(42)));
    let broken = decode(fields, "c-1", "{\"nonce\":1.5}");
    assert_eq!(poisoned(&broken), (Reason::FieldInvalid, Some("nonce")));
}

#[test]
fn a_configured_payload_is_taken_whole() {
    let fields = format!("{ENVELOPE}[decode.fields]\npayload = \"value:/data\"");
    let data = renamed("data", "{\"eventType\":\"kept\"}");
    assert_eq!(state(&decode(&fields, "c-1", &data)), &merged("{\"eventType\":\"kept\"}"));
    for (value, reason) in [("", Reason::FieldMissing), ("[1]", Reason::JsonShape)] {
        let event = decode(&fields, "c-1", &renamed("data", value));
        assert_eq!(poisoned(&event), (reason, Some("payload")));
    }
}

const ROUTES: &str = r#"
[decode]
format = "envelope"
tombstone = "delete"
[decode.fields]
aggregate_type = ["value:/aggregateType", "const:Customer"]
[[route]]
event_type = "Removed"
[route.delete]
table = "x"
key = { id = "aggregate_id" }
soft = { active = "const:false" }
[[route]]
topic = "noise"
skip = true
[[route]]
aggregate_type = "Customer"
[route.upsert]
table = "x"
key = { id = "aggregate_id" }
columns = { n = "payload:/n" }
"#;

#[test]
fn the_first_route_that_matches_wins() {
    let upsert = decode(ROUTES, "c-1", RENAMED);
    let columns = [Some(Value::Int(5))];
    assert_eq!(upsert.content, write(2, LedgerEffect::Keep, row(RowAction::Upsert, &columns)));

    let removed = decode(ROUTES, "c-1", &renamed("eventType", "\"Removed\""));
    let columns = [Some(Value::Bool(false))];
    assert_eq!(removed.content, write(0, LedgerEffect::Clear, row(RowAction::Mark, &columns)));
}

#[test]
fn columns_are_left_alone_set_to_null_or_poison() {
    let columns = |value: &str| match written(&decode(ROUTES, "c-1", &renamed("n", value))) {
        (LedgerEffect::Keep, [row]) => row.columns[0].clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(columns(""), None);
    assert_eq!(columns("null"), Some(Value::Null));
    let event = decode(ROUTES, "c-1", &renamed("n", "2147483648"));
    assert_eq!(poisoned(&event), (Reason::ColumnValue, Some("n")));
    assert_eq!(aggregate(&event), Some(("Customer", "c-1")));

    let by_payload = ROUTES.replace("\"aggregate_id\" }\ncolumns", "\"payload:/k\" }\ncolumns");
    let event = decode(&by_payload, "c-1", RENAMED);
    assert_eq!(poisoned(&event), (Reason::ColumnKeyMissing, Some("id")));
    let event = decode(&by_payload, "c-1", &renamed("k", "null"));
    assert_eq!(poisoned(&event), (Reason::ColumnKeyMissing, Some("id")));
}

#[test]
fn automatic_columns_are_the_members_of_their_names() {
    let auto = ROUTES.replace("{ n = \"payload:/n\" }", "\"auto\"");
    let event = decode(&auto, "c-1", RENAMED);
    let (LedgerEffect::Keep, [row]) = written(&event) else { panic!() };
    assert_eq!(*row.columns, [Some(Value::Int(5)), None]);
}

#[test]
fn a_tombstone_deletes_through_the_route_it_can_match() {
    let event = tombstone(ROUTES, "c-1");
    assert_eq!(event.content, write(2, LedgerEffect::Clear, row(RowAction::Remove, &[])));
}

#[test]
fn a_tombstone_whose_aggregate_type_cannot_be_told_is_poison() {
    let event = tombstone(&format!("{ENVELOPE}tombstone = \"delete\""), "c-1");
    assert_eq!(poisoned(&event), (Reason::FieldMissing, Some("aggregate_type")));
}

#[test]
fn an_event_without_route_ends_as_configured_and_says_what_it_is() {
    let other = renamed("aggregateType", "\"Order\"");
    let with =
        |policy: &str| decode(&format!("on_unmatched = \"{policy}\"\n{ROUTES}"), "o", &other);
    let event = with("dead-letter");
    assert_eq!(poisoned(&event), (Reason::Unmatched, None));
    assert_eq!(aggregate(&event), Some(("Order", "c-1")));
    assert_eq!(with("skip").content, Content::Skip(Reason::Unmatched));
    assert_eq!(with("halt").content, Content::Halt(Reason::UnmatchedHalt));
}

#[test]
fn a_skip_route_takes_broken_records_only_when_no_earlier_route_may_want_them() {
    let noise = |config: &str| {
        let mut record = record(None, Some(b"beat"));
        record.partition.topic = "noise".into();
        decoder(config).decode(record)
    };
    // The first route asks for the event type, which broken JSON does not tell.
    assert_eq!(poisoned(&noise(ROUTES)).0, Reason::JsonSyntax);
    let certain = ROUTES.replace("event_type", "topic = \"t\"\nevent_type");
    assert_eq!(noise(&certain).content, Content::Skip(Reason::SkipRoute));
}

#[test]
fn a_record_from_beyond_the_calendar_is_read_and_has_no_time() {
    let config = "[decode.fields]\ntime = \"timestamp\"";
    for timestamp in [None, Some(i64::MIN), Some(-1), Some(i64::MAX)] {
        let mut record = record(Some(b"c-1"), Some(b"{}"));
        record.timestamp = timestamp;
        let event = decoder(config).decode(record);
        assert_eq!(event.envelope.time, None, "{timestamp:?}");
        assert_eq!(*state(&event), replaced("{}"), "{timestamp:?}");
    }
}

proptest! {
    #[test]
    fn no_record_makes_the_decoder_panic(
        key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
        value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
    ) {
        for config in ["", ROUTES] {
            let event = decoder(config).decode(record(key.as_deref(), value.as_deref()));
            prop_assert!(!event.id().is_empty());
        }
    }

    #[test]
    fn whatever_is_written_has_an_aggregate(
        member in "eventType|aggregateId|aggregateType|sequenceNumber|timestamp|n",
        value in r#"|null|true|-?[0-9]{1,20}(\.[0-9]{1,3})?|"[a-zA-Z0-9\\]{0,5}"|\[\]|\{\}"#,
    ) {
        let event = decode(ROUTES, "c-1", &renamed(&member, &value));
        if matches!(event.content, Content::Write(_)) {
            prop_assert!(event.envelope.aggregate.is_some());
            prop_assert!(event.envelope.version.is_some());
        }
    }
}
