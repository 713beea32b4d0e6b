//! `notification_t`: the latest outcome of each record, for people and user interfaces. Nothing is
//! ever decided on it.

use std::borrow::Cow;

use crate::sql::append::{Append, Of};
use crate::sql::binder::{Bind, Binder, Slot};
use crate::sql::name::Schema;
use crate::sql::parameter::Cell;
use crate::sql::query::{Columns, Query, column};
use crate::store::ledger::Guard;
use pgsluice_core::envelope::{EnvelopeField, FIELDS, FieldValue};
use pgsluice_core::event::Event;
use pgsluice_core::fault::{Fault, FaultKind};
use pgsluice_core::record::{Record, StreamId};
use pgsluice_core::verdict::{Reason, Verdict};

/// What a notification of an applied event carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Notify {
    /// No notification is written.
    Nothing,
    /// One row per event.
    Row {
        /// With tenant, user, nonce, transaction, correlation and causation.
        context: bool,
        /// With the event as JSON.
        json: bool,
    },
}

/// The part of a statement that notes the events of the groups that moved as APPLIED; `None` when
/// none are to be written.
pub fn applied(schema: &Schema, guard: Guard, notify: Notify, b: &mut Binder) -> Option<String> {
    let Notify::Row { context, json } = notify else { return None };
    let mut columns = vec![
        ("stream", Of::Group(Slot::Stream, Bind::Int4)),
        (r#""offset""#, Of::Event(Slot::EventOffset, Bind::Int8)),
    ];
    let fields = FIELDS.iter().filter(|spec| context || !spec.field.is_context());
    columns.extend(fields.map(|spec| {
        let value = match spec.field {
            EnvelopeField::AggregateType => Of::Group(Slot::AggregateType, Bind::Text),
            EnvelopeField::AggregateId => Of::Group(Slot::AggregateId, Bind::Text),
            field => Of::Event(Slot::Field(field), Bind::of_field(spec.kind)),
        };
        (spec.column, value)
    }));
    if json {
        columns.push(("event_json", Of::Event(Slot::EventJson, Bind::Jsonb)));
    }
    columns.push(("status", Of::Expression("'APPLIED'")));
    let action = match guard {
        Guard::First => "do nothing",
        // A re-drive turns the outcome of the record it stands for.
        Guard::Seen => {
            "do update set status = excluded.status, reason = null, sqlstate = null, error = null, \
             process_ts = excluded.process_ts\n  where t.status in ('DEAD_LETTERED', 'PARKED')"
        }
    };
    let append = Append {
        name: "noted",
        table: schema.table("notification_t"),
        columns,
        conflict: format!(r#"on conflict (stream, "offset") {action}"#),
    };
    Some(append.write(b))
}

/// The outcome of one record, to be noted.
#[derive(Debug)]
pub struct Note<'a> {
    /// The stream the record stands in.
    pub stream: StreamId,
    /// The record.
    pub event: &'a Event,
    /// Its outcome.
    pub verdict: Verdict,
    /// The reason behind it.
    pub reason: Option<Reason>,
    /// What went wrong, by code and name.
    pub trouble: Trouble<'a>,
    /// With the event as JSON.
    pub json: bool,
}

/// What is known of a failure besides its reason.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trouble<'a> {
    /// What the database answered.
    pub fault: Option<&'a Fault>,
    /// The configured field, column or pointer that is at fault.
    pub field: Option<&'a str>,
}

impl Trouble<'_> {
    /// One line made of codes and names, never of values (INV-9).
    pub fn sentence(&self, reason: Reason) -> String {
        let mut text = reason.as_str().replace('_', " ");
        if let Some(field) = self.field {
            text.push_str(": ");
            text.push_str(field);
        }
        if let Some(fault) = self.fault {
            text.push_str(": ");
            text.push_str(&fault.to_string());
        }
        text
    }
}

/// The insert of notes. `gate` is a table that is empty where they must not be written. The outcome
/// of a record is noted once; only a re-drive changes it.
pub fn insert<'a>(
    schema: &Schema,
    notes: &'a [Note<'a>],
    gate: Option<&str>,
    query: &mut Query<'a>,
) -> String {
    let (names, rows) = query.rows(columns(notes));
    let gate = gate.map_or(String::new(), |gate| format!(", {gate}"));
    format!(
        r#"insert into {} ({names})
  select r.* from {rows} as r({names}){gate}
  on conflict (stream, "offset") do nothing"#,
        schema.table("notification_t"),
    )
}

fn columns<'a>(notes: &'a [Note<'a>]) -> Columns<'a> {
    let of = |cell: fn(&'a Note<'a>) -> Cell<'a>| column(notes, cell);
    let mut columns = vec![
        ("stream", Bind::Int4, of(|n| Cell::Int(n.stream.0.into()))),
        (r#""offset""#, Bind::Int8, of(|n| Cell::Int(n.event.offset().0))),
        ("status", Bind::Text, of(|n| Cell::text(Some(n.verdict.as_str())))),
        ("reason", Bind::Text, of(|n| Cell::text(n.reason.map(Reason::as_str)))),
        ("sqlstate", Bind::Text, of(|n| n.trouble.sqlstate())),
        ("error", Bind::Text, of(Note::error)),
        ("event_json", Bind::Jsonb, of(Note::json)),
    ];
    columns.extend(FIELDS.iter().map(|spec| {
        let cells = column(notes, |note| shown(note.event, spec.field));
        (spec.column, Bind::of_field(spec.kind), cells)
    }));
    columns
}

/// What the event says about itself in one field, for people: it may be poison and hold anything.
pub(crate) fn shown(event: &Event, field: EnvelopeField) -> Cell<'_> {
    match event.field(field) {
        Some(FieldValue::Text(Cow::Borrowed(text))) => Cell::shown(Some(text)),
        value => value.map_or(Cell::Null, Cell::from),
    }
}

impl<'a> Note<'a> {
    fn error(&'a self) -> Cell<'a> {
        let failed = matches!(
            self.verdict,
            Verdict::DeadLettered | Verdict::Parked | Verdict::Rejected | Verdict::Discarded
        );
        match self.reason {
            Some(reason) if failed => Cell::Text(self.trouble.sentence(reason).into()),
            Some(_) | None => Cell::Null,
        }
    }

    fn json(&'a self) -> Cell<'a> {
        if self.json { event_json(&self.event.record) } else { Cell::Null }
    }
}

impl<'a> Trouble<'a> {
    /// The server's code.
    pub fn sqlstate(&self) -> Cell<'a> {
        match self.fault {
            Some(Fault { kind: FaultKind::Server(code), .. }) => Cell::text(Some(code.as_str())),
            _ => Cell::Null,
        }
    }
}

/// A record's value where `jsonb` can hold it, NULL otherwise: a notification must never be the
/// reason why an event fails.
pub fn event_json(record: &Record) -> Cell<'_> {
    let Some(bytes) = record.value() else { return Cell::Null };
    let Ok(text) = std::str::from_utf8(bytes) else { return Cell::Null };
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value) if fits_jsonb(&value) => Cell::Json(Cow::Borrowed(text)),
        Ok(_) | Err(_) => Cell::Null,
    }
}

/// Whether `jsonb` takes the value: no U+0000 in a text, no number beyond what `numeric` holds.
/// The parser has bounded the depth.
fn fits_jsonb(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null | serde_json::Value::Bool(_) => true,
        serde_json::Value::Number(number) => fits_numeric(number.as_str()),
        serde_json::Value::String(text) => !text.contains('\0'),
        serde_json::Value::Array(values) => values.iter().all(fits_jsonb),
        serde_json::Value::Object(members) => {
            members.iter().all(|(name, value)| !name.contains('\0') && fits_jsonb(value))
        }
    }
}

/// Far inside the limits of `numeric`, which are 131,072 digits before and 16,383 after the point.
fn fits_numeric(digits: &str) -> bool {
    const MOST: usize = 4_000;
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let exponent: Option<i32> = exponent.parse().ok();
    mantissa.len() <= MOST && exponent.is_some_and(|e| e.unsigned_abs() as usize <= MOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgsluice_core::fault::SqlState;

    fn record(value: &[u8]) -> Record {
        let partition = pgsluice_core::record::TopicPartition { topic: "t".into(), partition: 0 };
        Record {
            partition,
            offset: pgsluice_core::record::Offset(1),
            generation: pgsluice_core::record::Generation(1),
            timestamp: None,
            timestamp_type: pgsluice_core::record::TimestampType::NotAvailable,
            raw: pgsluice_core::record::Raw::pair(None, Some(value)),
        }
    }

    #[test]
    fn only_json_that_jsonb_takes_is_shown() {
        let shown = |value: &[u8]| event_json(&record(value)) != Cell::Null;
        assert!(shown(br#"{"a":[1.50,"x",null,true]}"#));
        for refused in [
            &br#"{"a":"\u0000"}"#[..],
            br#"{"\u0000":1}"#,
            br#"["\ud800"]"#,
            b"1e131072",
            b"1e-20000",
            b"{",
            b"",
            b"\xff",
        ] {
            assert!(!shown(refused), "{}", String::from_utf8_lossy(refused));
        }
    }

    #[test]
    fn the_sentence_is_made_of_codes_and_names() {
        let fault = Fault {
            constraint: Some("positive".into()),
            table: Some("public.stock".into()),
            ..Fault::new(FaultKind::Server(SqlState(*b"23514")))
        };
        let trouble = Trouble { fault: Some(&fault), field: None };
        assert_eq!(
            trouble.sentence(Reason::ConstraintViolation),
            "constraint violation: sqlstate 23514, constraint positive, table public.stock"
        );
        let trouble = Trouble { fault: None, field: Some("value:/eventId") };
        assert_eq!(trouble.sentence(Reason::FieldMissing), "field missing: value:/eventId");
    }
}
