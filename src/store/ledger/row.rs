//! Ledger rows as the slow lane reads and parks them.

use tokio_postgres::Row;

use crate::sql::binder::Bind;
use crate::sql::name::Schema;
use crate::sql::parameter::Cell;
use crate::sql::query::{Query, column};
use crate::store::sink::SinkId;
use pgsluice_core::event::{AggregateKey, AggregateVersion, Event};
use pgsluice_core::fault::{Fault, FaultKind};
use pgsluice_core::record::{Offset, RecordId, StreamId};
use pgsluice_core::verdict::{LedgerRow, Reason};

/// An aggregate of a sink, and the stream its events come from now.
#[derive(Debug, Clone, Copy)]
pub struct Address<'a> {
    /// The sink.
    pub sink: SinkId,
    /// The aggregate.
    pub key: &'a AggregateKey,
    /// The stream.
    pub stream: StreamId,
}

/// The aggregate, where it can be a key of the ledger. One that cannot never got a ledger row, so
/// its letters stand alone.
pub fn storable(aggregate: Option<&AggregateKey>) -> Option<&AggregateKey> {
    aggregate.filter(|key| key.is_storable())
}

/// The columns of a ledger row `a`, for events of the stream `stream` (an expression).
fn columns(schema: &Schema, stream: &str) -> String {
    format!(
        r#"a.version, a.event_id, a.stream, a."offset", a.deleted, a.parked_at is not null,
  a.stream <> {stream} and exists (
    select 1 from {table} as old join {table} as new using (sink, topic, partition)
    where old.stream = a.stream and new.stream = {stream} and old.log_epoch < new.log_epoch)"#,
        table = schema.table("stream_t"),
    )
}

/// Reads an aggregate's row and keeps it locked until the transaction ends.
pub fn lock<'a>(schema: &Schema, address: Address<'a>) -> Query<'a> {
    let mut query = Query::default();
    let sink = query.one(Bind::Int2, Cell::Int(address.sink.0.into()));
    let aggregate_type = query.one(Bind::Text, Cell::text(Some(&address.key.aggregate_type)));
    let id = query.one(Bind::Text, Cell::text(Some(&address.key.id)));
    let stream = query.one(Bind::Int4, Cell::Int(address.stream.0.into()));
    query.text = format!(
        "select {}\nfrom {} as a\nwhere a.sink = {sink} and a.aggregate_type = {aggregate_type} \
         and a.aggregate_id = {id}\nfor update of a",
        columns(schema, &stream),
        schema.table("aggregate_t"),
    );
    query
}

/// One group of a set-based look.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// The aggregate, where there is one.
    pub key: Option<&'a AggregateKey>,
    /// The stream the events stand in.
    pub stream: StreamId,
    /// The group's events.
    pub events: &'a [Event],
}

/// Reads the rows of many groups without locking them: one row a group, in their order, with the
/// offsets of the letters between its first and last record at the end. The lateral joins keep the
/// planner from reading a whole table.
pub fn look<'a>(schema: &Schema, sink: SinkId, groups: &'a [Look<'a>]) -> Query<'a> {
    let mut query = Query::default();
    let sink = query.one(Bind::Int2, Cell::Int(sink.0.into()));
    let offset = |event: Option<&Event>| Cell::int(event.map(|event| event.offset().0));
    let (names, rows) = query.rows(vec![
        (
            "aggregate_type",
            Bind::Text,
            column(groups, |g| Cell::text(g.key.map(|key| &*key.aggregate_type))),
        ),
        ("aggregate_id", Bind::Text, column(groups, |g| Cell::text(g.key.map(|key| &*key.id)))),
        ("stream", Bind::Int4, column(groups, |g| Cell::Int(g.stream.0.into()))),
        ("first_offset", Bind::Int8, column(groups, |g| offset(g.events.first()))),
        ("last_offset", Bind::Int8, column(groups, |g| offset(g.events.last()))),
    ]);
    query.text = format!(
        r#"select {columns}, l.offsets
from {rows} with ordinality as i({names}, n)
left join lateral (
  select * from {aggregates} as t
  where t.sink = {sink} and t.aggregate_type = i.aggregate_type and t.aggregate_id = i.aggregate_id
  limit 1) as a on true
cross join lateral (
  select pg_catalog.array_agg(d."offset") as offsets from {letters} as d
  where d.stream = i.stream and d."offset" between i.first_offset and i.last_offset) as l
order by i.n"#,
        columns = columns(schema, "i.stream"),
        aggregates = schema.table("aggregate_t"),
        letters = schema.table("dead_letter_t"),
    );
    query
}

/// The ledger row at the beginning of a result row; `None` where the aggregate has none.
///
/// # Errors
///
/// [`FaultKind::Bug`] when the result does not have the columns asked for.
pub fn read(row: &Row) -> Result<Option<LedgerRow>, Fault> {
    let parse = || {
        let Some(stream) = row.try_get::<_, Option<i32>>(2)? else { return Ok(None) };
        Ok(Some(LedgerRow {
            version: row.try_get::<_, Option<i64>>(0)?.map(AggregateVersion),
            event_id: row.try_get::<_, Option<String>>(1)?.map(String::into_boxed_str),
            position: RecordId { stream: StreamId(stream), offset: Offset(row.try_get(3)?) },
            deleted: row.try_get(4)?,
            parked: row.try_get(5)?,
            earlier_log: row.try_get(6)?,
        }))
    };
    parse()
        .map_err(|_: tokio_postgres::Error| Fault::new(FaultKind::Bug("columns of a ledger row")))
}

/// What parks an aggregate.
#[derive(Debug, Clone, Copy)]
pub struct Parking<'a> {
    /// The aggregate.
    pub address: Address<'a>,
    /// Where its row stands; `None` where there is none.
    pub seen: Option<RecordId>,
    /// The last record decided.
    pub position: RecordId,
    /// Why, unless it is parked already.
    pub reason: Reason,
}

/// Parks an aggregate and moves its position, if its row still stands where it was seen. `gate` is
/// a table that is empty where we do not own the stream.
pub fn park<'a>(
    schema: &Schema,
    parking: Parking<'a>,
    gate: &str,
    query: &mut Query<'a>,
) -> String {
    let Parking { address, seen, position, reason } = parking;
    let values = [
        query.one(Bind::Int2, Cell::Int(address.sink.0.into())),
        query.one(Bind::Text, Cell::text(Some(&address.key.aggregate_type))),
        query.one(Bind::Text, Cell::text(Some(&address.key.id))),
        query.one(Bind::Int4, Cell::Int(position.stream.0.into())),
        query.one(Bind::Int8, Cell::Int(position.offset.0)),
        query.one(Bind::Text, Cell::text(Some(reason.as_str()))),
    ]
    .join(", ");
    let seen_stream = query.one(Bind::Int4, Cell::int(seen.map(|id| id.stream.0.into())));
    let seen_offset = query.one(Bind::Int8, Cell::int(seen.map(|id| id.offset.0)));
    format!(
        r#"insert into {} as t (sink, aggregate_type, aggregate_id, stream, "offset", parked_reason, parked_at)
  select {values}, pg_catalog.now() from {gate}
  on conflict (sink, aggregate_type, aggregate_id) do update set
    stream = excluded.stream,
    "offset" = excluded."offset",
    parked_at = coalesce(t.parked_at, excluded.parked_at),
    parked_reason = coalesce(t.parked_reason, excluded.parked_reason),
    updated_at = excluded.updated_at
  where t.stream = {seen_stream} and t."offset" = {seen_offset}
  returning 1"#,
        schema.table("aggregate_t"),
    )
}
