//! `dead_letter_t`: what could not be applied, and what waits behind it, byte for byte (INV-6).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::sql::binder::Bind;
use crate::sql::name::Schema;
use crate::sql::parameter::Cell;
use crate::sql::query::{Columns, Query, column};
use crate::store::notification::{self, Trouble};
use crate::store::sink::SinkId;
use pgsluice_core::envelope::EnvelopeField;
use pgsluice_core::event::Event;
use pgsluice_core::fault::{Fault, FaultKind};
use pgsluice_core::record::{Headers, Offset, StreamId};
use pgsluice_core::verdict::{Disposition, Reason};

/// A record on its way into the table.
#[derive(Debug)]
pub struct Letter<'a> {
    /// The sink it was read by.
    pub sink: SinkId,
    /// The stream it stands in.
    pub stream: StreamId,
    /// The record and what it says about itself.
    pub event: &'a Event,
    /// Poison or parked.
    pub disposition: Disposition,
    /// The reason.
    pub reason: Reason,
    /// What went wrong, by code and name.
    pub trouble: Trouble<'a>,
    /// Failed attempts, at least 1.
    pub attempts: u32,
    /// Seconds since the first of them.
    pub failing_for: f64,
    /// The name of the route it was meant for, where one was found.
    pub route: Option<&'a str>,
    /// The aggregate is stored with it; `false` where its id cannot be an index key.
    pub aggregate: bool,
}

/// The insert of letters. `gate` is a table that is empty where they must not be written. A letter
/// that is there already stays as it is.
pub fn insert<'a>(
    schema: &Schema,
    letters: &'a [Letter<'a>],
    gate: &str,
    query: &mut Query<'a>,
) -> String {
    let mut columns = columns(letters);
    let stored = columns.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ");
    let failing_for = column(letters, |letter| Cell::Float(letter.failing_for));
    columns.push(("failing_for", Bind::Float8, failing_for));
    let (names, rows) = query.rows(columns);
    format!(
        r#"insert into {} ({stored}, first_failed_at)
  select {stored}, pg_catalog.now() - pg_catalog.make_interval(secs => failing_for)
  from {rows} as r({names}), {gate}
  on conflict (stream, "offset") do nothing"#,
        schema.table("dead_letter_t"),
    )
}

fn columns<'a>(letters: &'a [Letter<'a>]) -> Columns<'a> {
    let of = |cell: fn(&'a Letter<'a>) -> Cell<'a>| column(letters, cell);
    vec![
        ("sink", Bind::Int2, of(|l| Cell::Int(l.sink.0.into()))),
        ("stream", Bind::Int4, of(|l| Cell::Int(l.stream.0.into()))),
        (r#""offset""#, Bind::Int8, of(|l| Cell::Int(l.event.offset().0))),
        ("record_ts", Bind::Int8, of(|l| Cell::int(l.event.record.timestamp))),
        (
            "timestamp_type",
            Bind::Text,
            of(|l| Cell::text(Some(l.event.record.timestamp_type.as_str()))),
        ),
        ("key", Bind::Bytea, of(|l| Cell::bytes(l.event.record.key()))),
        ("value", Bind::Bytea, of(|l| Cell::bytes(l.event.record.value()))),
        ("headers", Bind::Jsonb, of(|l| Cell::Json(headers(l.event.record.raw.headers()).into()))),
        ("aggregate_type", Bind::Text, of(|l| l.aggregate_text(|a| &a.aggregate_type))),
        ("aggregate_id", Bind::Text, of(|l| l.aggregate_text(|a| &a.id))),
        ("aggregate_version", Bind::Int8, of(|l| Cell::int(l.event.envelope.version.map(|v| v.0)))),
        ("event_id", Bind::Text, of(|l| notification::shown(l.event, EnvelopeField::EventId))),
        ("event_type", Bind::Text, of(|l| notification::shown(l.event, EnvelopeField::EventType))),
        ("disposition", Bind::Text, of(|l| Cell::text(Some(l.disposition.as_str())))),
        ("reason", Bind::Text, of(|l| Cell::text(Some(l.reason.as_str())))),
        ("sqlstate", Bind::Text, of(|l| l.trouble.sqlstate())),
        (
            "constraint_name",
            Bind::Text,
            of(|l| Cell::text(l.trouble.fault.and_then(|f| f.constraint.as_deref()))),
        ),
        ("route", Bind::Text, of(|l| Cell::text(l.route))),
        ("attempts", Bind::Int4, of(|l| Cell::Int(l.attempts.into()))),
    ]
}

impl<'a> Letter<'a> {
    fn aggregate_text(
        &'a self,
        part: fn(&'a pgsluice_core::event::AggregateKey) -> &'a std::sync::Arc<str>,
    ) -> Cell<'a> {
        let aggregate = self.event.envelope.aggregate.as_ref().filter(|_| self.aggregate);
        Cell::text(aggregate.map(|aggregate| &**part(aggregate)))
    }
}

/// Headers as stored: an array of `[name, value]` in their order, the value in base64 or null.
fn headers(headers: Headers<'_>) -> String {
    let pairs: Vec<_> =
        headers.map(|(name, value)| json!([name, value.map(|v| STANDARD.encode(v))])).collect();
    serde_json::Value::Array(pairs).to_string()
}

/// The letters among these records, as `offset` rows.
pub fn known<'a>(schema: &Schema, stream: StreamId, events: &'a [Event]) -> Query<'a> {
    let mut query = Query::default();
    let stream = query.one(Bind::Int4, Cell::Int(stream.0.into()));
    let offsets = query.many(Bind::Int8, column(events, |e| Cell::Int(e.offset().0)));
    query.text = format!(
        r#"select d."offset" from {} as d where d.stream = {stream} and d."offset" = any({offsets})"#,
        schema.table("dead_letter_t"),
    );
    query
}

/// The offset of a row of [`known`].
///
/// # Errors
///
/// [`FaultKind::Bug`] when the result does not have the column asked for.
pub fn offset(row: &tokio_postgres::Row) -> Result<Offset, Fault> {
    row.try_get(0).map(Offset).map_err(|_| Fault::new(FaultKind::Bug("offset of a letter")))
}
