//! What the brakes count and hold: `brake_t`, `stale_t`, `acceptance_t`, and the dead letters of
//! the last while. Counted by the server's clock, over all processes of a sink.

use std::time::Duration;

use serde::Serialize;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::sql::binder::Bind;
use crate::sql::name::Schema;
use crate::sql::parameter::Cell;
use crate::sql::query::Query;
use crate::store::sink::SinkId;
use pgsluice_core::course::Counted;
use pgsluice_core::event::AggregateKey;
use pgsluice_core::fault::{Fault, FaultKind};
use pgsluice_core::record::{Offset, RecordId};

/// What a brake counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrakeKind {
    /// Aggregates that are dead-lettered.
    DeadLetters,
    /// Stale events.
    Stale,
}

impl BrakeKind {
    /// The word in the tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeadLetters => "dead_letters",
            Self::Stale => "stale",
        }
    }
}

/// What is asked before an event becomes a dead letter, or before events end as stale.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The sink.
    pub sink: SinkId,
    /// The first event concerned.
    pub id: RecordId,
    /// The name of its route, where one was found.
    pub route: Option<&'a str>,
    /// How far back is counted.
    pub window: Duration,
}

/// The name of a route as a parameter: empty for none.
fn route_cell(route: Option<&str>) -> Cell<'_> {
    Cell::text(Some(route.unwrap_or_default()))
}

/// Counts the dead letters of a route. A record whose aggregate cannot be told counts as one.
pub fn dead_letters<'a>(schema: &Schema, question: Question<'a>) -> Query<'a> {
    let mut query = Query::default();
    let asked = Asked::bind(question, BrakeKind::DeadLetters, &mut query);
    let Asked { sink, stream, offset, route, window, .. } = &asked;
    query.text = format!(
        r#"with {first},
recent as (
  select d.stream, d."offset", d.aggregate_type, d.aggregate_id
  from {letters} as d, accepted
  where not accepted.yes and d.sink = {sink} and d.disposition = 'poison'
    and coalesce(d.route, '') = {route}
    and d.failed_at > greatest(pg_catalog.now() - {window}, accepted.until)),
stretch as (
  select pg_catalog.max(r."offset") - pg_catalog.min(r."offset") + 1 as records
  from (select stream, "offset" from recent union all select {stream}, {offset}) as r
  group by r.stream)
select accepted.yes, holds.yes,
  (select pg_catalog.count(distinct (aggregate_type, aggregate_id))
     filter (where aggregate_id is not null)
     + pg_catalog.count(*) filter (where aggregate_id is null) from recent),
  (select pg_catalog.count(*) from recent),
  (select pg_catalog.sum(records)::bigint from stretch),
  0::double precision
from accepted, holds"#,
        first = asked.accepted_and_holds(schema),
        letters = schema.table("dead_letter_t"),
    );
    query
}

/// Counts the stale events of a route, in whole minutes: what was counted in the minute in which the
/// window begins is part of it.
pub fn stale<'a>(schema: &Schema, question: Question<'a>) -> Query<'a> {
    let mut query = Query::default();
    let asked = Asked::bind(question, BrakeKind::Stale, &mut query);
    let Asked { sink, stream, offset, route, window, .. } = &asked;
    query.text = format!(
        r#"with {first},
recent as (
  select t.stream, t.minute, t.events, t.first_offset, t.last_offset
  from {counts} as t join {streams} as s using (stream), accepted
  where not accepted.yes and s.sink = {sink} and t.route = {route}
    and t.minute > greatest(
      pg_catalog.now() - {window} - pg_catalog.make_interval(mins => 1), accepted.until)),
stretch as (
  select pg_catalog.max(r.last) - pg_catalog.min(r.first) + 1 as records
  from (select stream, first_offset as first, last_offset as last from recent
        union all select {stream}, {offset}, {offset}) as r
  group by r.stream)
select accepted.yes, holds.yes,
  (select coalesce(pg_catalog.sum(events), 0)::bigint from recent),
  (select coalesce(pg_catalog.sum(events), 0)::bigint from recent),
  (select pg_catalog.sum(records)::bigint from stretch),
  (select coalesce(extract(epoch from pg_catalog.now() - pg_catalog.min(minute)), 0)::double precision
     from recent)
from accepted, holds"#,
        first = asked.accepted_and_holds(schema),
        counts = schema.table("stale_t"),
        streams = schema.table("stream_t"),
    );
    query
}

/// Reads the row of [`dead_letters`] or [`stale`].
///
/// # Errors
///
/// [`FaultKind::Bug`] when the result does not have the columns asked for.
pub fn counted(rows: &[Row]) -> Result<Counted, Fault> {
    let bug = || Fault::new(FaultKind::Bug("row of a brake's count"));
    let row = rows.first().ok_or_else(bug)?;
    let parse = || -> Result<Counted, tokio_postgres::Error> {
        Ok(Counted {
            accepted: row.try_get(0)?,
            holds: row.try_get(1)?,
            count: row.try_get(2)?,
            records: row.try_get(3)?,
            stretch: row.try_get::<_, Option<i64>>(4)?.unwrap_or(1),
            lasting: row.try_get(5)?,
        })
    };
    parse().map_err(|_| bug())
}

/// The parameters of a question, as `$n`.
struct Asked {
    sink: String,
    stream: String,
    offset: String,
    route: String,
    kind: String,
    /// An interval.
    window: String,
}

impl Asked {
    fn bind<'a>(question: Question<'a>, kind: BrakeKind, query: &mut Query<'a>) -> Self {
        let window = query.one(Bind::Float8, Cell::Float(question.window.as_secs_f64()));
        Self {
            sink: query.one(Bind::Int2, Cell::Int(question.sink.0.into())),
            stream: query.one(Bind::Int4, Cell::Int(question.id.stream.0.into())),
            offset: query.one(Bind::Int8, Cell::Int(question.id.offset.0)),
            route: query.one(Bind::Text, route_cell(question.route)),
            kind: query.one(Bind::Text, Cell::text(Some(kind.as_str()))),
            window: format!("pg_catalog.make_interval(secs => {window})"),
        }
    }

    /// `accepted(yes, until)` and `holds(yes)`. What came while an operator accepted it is never
    /// counted, also when that is over; `until` is null where nothing was ever accepted.
    fn accepted_and_holds(&self, schema: &Schema) -> String {
        let Self { sink, stream, route, kind, .. } = self;
        format!(
            r#"accepted as materialized (
  select coalesce(pg_catalog.max(a.accepted_until) > pg_catalog.now(), false) as yes,
    pg_catalog.max(a.accepted_until) as until
  from {acceptances} as a
  where a.sink = {sink} and a.kind = {kind} and a.route in ('', {route})),
holds as (
  select exists (
    select 1 {holding}
      and b.stream = {stream} and b.kind = {kind}) as yes)"#,
            acceptances = schema.table("acceptance_t"),
            holding = holding(schema),
        )
    }
}

/// The brakes `b` that hold, with their streams `s`. A brake holds until the record that tripped it
/// is behind the progress of its stream, has a letter, or took effect: then its aggregate stands at
/// it or beyond.
fn holding(schema: &Schema) -> String {
    format!(
        r#"from {brakes} as b join {streams} as s using (stream)
    where coalesce(s.next_offset, 0) <= b."offset"
      and not exists (
        select 1 from {letters} as d where d.stream = b.stream and d."offset" = b."offset")
      and not exists (
        select 1 from {aggregates} as g
        where g.sink = s.sink and g.aggregate_type = b.aggregate_type
          and g.aggregate_id = b.aggregate_id and g.stream = b.stream
          and g."offset" >= b."offset")"#,
        brakes = schema.table("brake_t"),
        streams = schema.table("stream_t"),
        letters = schema.table("dead_letter_t"),
        aggregates = schema.table("aggregate_t"),
    )
}

/// A brake that holds, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Topic and partition.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The record that tripped it.
    pub offset: i64,
    /// What it counts, as in `brake_t.kind`.
    pub kind: String,
    /// The route's name, empty for none.
    pub route: String,
    /// What it had counted.
    pub counted: i64,
    /// When it tripped.
    pub tripped_at: String,
}

/// The brakes of a sink that hold, `None` for a sink that is not known.
///
/// # Errors
/// What the server said; a missing table means the migrations have not run.
pub async fn standing(
    client: &Client,
    schema: &Schema,
    sink: &str,
) -> Result<Option<Vec<Standing>>, Fault> {
    let known = format!("select 1 from {} where name = $1", schema.table("sink_t"));
    let brakes = format!(
        r#"select s.topic, s.partition, b."offset", b.kind, b.route, b.counted,
  pg_catalog.to_char(b.tripped_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') {holding}
      and s.sink = (select sink from {sinks} where name = $1)
order by 1, 2, 4"#,
        holding = holding(schema),
        sinks = schema.table("sink_t"),
    );
    let run = async {
        if client.query_typed_opt(&known, &[(&sink, Type::TEXT)]).await?.is_none() {
            return Ok(None);
        }
        let rows = client.query_typed(&brakes, &[(&sink, Type::TEXT)]).await?;
        let read = |row: &Row| {
            Ok(Standing {
                topic: row.try_get(0)?,
                partition: row.try_get(1)?,
                offset: row.try_get(2)?,
                kind: row.try_get(3)?,
                route: row.try_get(4)?,
                counted: row.try_get(5)?,
                tripped_at: row.try_get(6)?,
            })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map(Some)
    };
    run.await.map_err(|error: tokio_postgres::Error| crate::postgres::fault_of(&error))
}

/// Lifts the brake of a kind for a while, for the route of a name or for all. Gives back until when.
///
/// # Errors
/// What the server said.
pub async fn accept(
    client: &Client,
    schema: &Schema,
    sink: &str,
    (kind, route): (BrakeKind, Option<&str>),
    lasting: Duration,
) -> Result<String, Fault> {
    let route = route.unwrap_or_default();
    let insert = format!(
        r#"insert into {} as t (sink, kind, route, accepted_until)
select sink, $2, $3, pg_catalog.now() + pg_catalog.make_interval(secs => $4)
from {} where name = $1
on conflict (sink, kind, route) do update set
  accepted_at = excluded.accepted_at, accepted_until = excluded.accepted_until
returning pg_catalog.to_char(t.accepted_until at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"#,
        schema.table("acceptance_t"),
        schema.table("sink_t"),
    );
    let seconds = lasting.as_secs_f64();
    let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
        (&sink, Type::TEXT),
        (&kind.as_str(), Type::TEXT),
        (&route, Type::TEXT),
        (&seconds, Type::FLOAT8),
    ];
    let row = client.query_typed_one(&insert, &parameters).await;
    row.and_then(|row| row.try_get(0)).map_err(|error| crate::postgres::fault_of(&error))
}

/// A brake that trips now.
#[derive(Debug, Clone, Copy)]
pub struct Trip<'a> {
    /// What it counts.
    pub kind: BrakeKind,
    /// The record that tripped it.
    pub id: RecordId,
    /// The name of its route, where one was found.
    pub route: Option<&'a str>,
    /// Its aggregate, where there is one that can be stored.
    pub aggregate: Option<&'a AggregateKey>,
    /// How much was counted.
    pub count: i64,
}

/// Remembers that a brake tripped. `gate` is a table that is empty where we do not own the stream.
pub fn trip<'a>(schema: &Schema, trip: Trip<'a>, gate: &str, query: &mut Query<'a>) -> String {
    let values = [
        query.one(Bind::Int4, Cell::Int(trip.id.stream.0.into())),
        query.one(Bind::Text, Cell::text(Some(trip.kind.as_str()))),
        query.one(Bind::Int8, Cell::Int(trip.id.offset.0)),
        query.one(Bind::Text, route_cell(trip.route)),
        query.one(Bind::Text, Cell::text(trip.aggregate.map(|key| &*key.aggregate_type))),
        query.one(Bind::Text, Cell::text(trip.aggregate.map(|key| &*key.id))),
        query.one(Bind::Int8, Cell::Int(trip.count)),
    ]
    .join(", ");
    format!(
        r#"insert into {} as t
    (stream, kind, "offset", route, aggregate_type, aggregate_id, counted)
  select {values} from {gate}
  on conflict (stream, kind) do update set
    "offset" = excluded."offset", route = excluded.route, counted = excluded.counted,
    aggregate_type = excluded.aggregate_type, aggregate_id = excluded.aggregate_id,
    tripped_at = excluded.tripped_at"#,
        schema.table("brake_t"),
    )
}

/// Stale events of one group, all of one route.
#[derive(Debug, Clone, Copy)]
pub struct StaleCount<'a> {
    /// The first of them.
    pub first: RecordId,
    /// The last one's offset.
    pub last: Offset,
    /// The name of their route, where one was found.
    pub route: Option<&'a str>,
    /// How many.
    pub events: usize,
}

/// Counts stale events, and forgets those of their stream of more than a day ago, whatever their
/// route: one that was renamed counts no more.
pub fn count_stale<'a>(schema: &Schema, count: StaleCount<'a>, query: &mut Query<'a>) -> String {
    let events = i64::try_from(count.events).unwrap_or(i64::MAX);
    let stream = query.one(Bind::Int4, Cell::Int(count.first.stream.0.into()));
    let route = query.one(Bind::Text, route_cell(count.route));
    let events = query.one(Bind::Int8, Cell::Int(events));
    let first = query.one(Bind::Int8, Cell::Int(count.first.offset.0));
    let last = query.one(Bind::Int8, Cell::Int(count.last.0));
    let table = schema.table("stale_t");
    format!(
        r#"forgotten as (
  delete from {table}
  where stream = {stream}
    and minute < pg_catalog.now() - pg_catalog.make_interval(days => 1)),
counted as (
  insert into {table} as t (stream, route, minute, events, first_offset, last_offset)
  values ({stream}, {route}, pg_catalog.date_trunc('minute', pg_catalog.now()), {events}, {first},
    {last})
  on conflict (stream, route, minute) do update set
    events = t.events + excluded.events,
    first_offset = least(t.first_offset, excluded.first_offset),
    last_offset = greatest(t.last_offset, excluded.last_offset))"#
    )
}

/// Counts the parked records of a sink, up to `limit`.
pub fn parked(schema: &Schema, sink: SinkId, limit: usize) -> Query<'static> {
    let mut query = Query::default();
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let sink = query.one(Bind::Int2, Cell::Int(sink.0.into()));
    let most = query.one(Bind::Int8, Cell::Int(most));
    query.text = format!(
        "select pg_catalog.count(*) from (\n  select 1 from {}\n  where sink = {sink} and \
         disposition = 'parked' and resolved_at is null limit {most}) as p",
        schema.table("dead_letter_t"),
    );
    query
}
