//! `stream_t`: what is read, how far, and who owns it.
//!
//! Every statement here runs on the lead ([`Session::durable`]): what it returns is
//! durable, and so is everything the session committed before.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::postgres::lock::HELD_HERE;
use crate::postgres::session::Session;
use crate::sql::binder::Bind;
use crate::sql::name::Schema;
use crate::sql::parameter::Cell;
use crate::sql::query::Query;
use crate::store::sink::SinkId;
use pgsluice_core::fault::{Fault, FaultKind};
use pgsluice_core::group::Progress;
use pgsluice_core::record::{Anchor, NextOffset, Offset, OwnerEpoch, StreamId, TopicPartition};

/// A stream that was just claimed, under its new owner epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRow {
    /// The key.
    pub stream: StreamId,
    /// The ownership that was just taken.
    pub epoch: OwnerEpoch,
    /// Where to read on; `None` while no position was ever known.
    pub next: Option<NextOffset>,
    /// The last finished record.
    pub anchor: Option<Anchor>,
}

/// A position that replaces the stored one, under the claim that was just made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewPosition {
    /// The stream.
    pub stream: StreamId,
    /// The claim.
    pub epoch: OwnerEpoch,
    /// Where to read on.
    pub next: NextOffset,
}

/// `own`: one row while we own the stream, which stays so until the transaction ends.
pub fn own(schema: &Schema, stream: StreamId, epoch: OwnerEpoch, query: &mut Query<'_>) -> String {
    let stream = query.one(Bind::Int4, Cell::Int(stream.0.into()));
    let epoch = query.one(Bind::Int8, Cell::Int(epoch.0));
    format!(
        "own as (\n  select 1 from {} where stream = {stream} and owner_epoch = {epoch} for share\n)",
        schema.table("stream_t"),
    )
}

/// Makes the rows that partitions read for the first time are missing.
///
/// # Errors
/// See [`Session::durable`].
pub async fn create_streams(
    session: &Session,
    sink: SinkId,
    partitions: &[TopicPartition],
) -> Result<(), Fault> {
    let schema = session.schema();
    let text = format!(
        "with lock as (select {HELD_HERE} as held),
         made as (
           insert into {schema}.stream_t (sink, topic, partition)
           select $3, w.topic, w.partition
           from unnest($4, $5) as w(topic, partition), lock
           where lock.held and not exists (
             select from {schema}.stream_t s
             where s.sink = $3 and s.topic = w.topic and s.partition = w.partition)
           order by w.topic, w.partition
           on conflict do nothing)
         select held from lock"
    );
    let (topics, numbers) = columns(partitions);
    session
        .durable(
            &text,
            &[Type::INT2, Type::TEXT_ARRAY, Type::INT4_ARRAY],
            &[&sink.0, &topics, &numbers],
        )
        .await?;
    Ok(())
}

/// Takes ownership of the newest stream of each partition: raises its `owner_epoch`, so that
/// whoever owned it before can move nothing any more (INV-10).
///
/// A stream whose row another transaction holds is left out, without waiting for it: the caller
/// asks again. That transaction is the old owner's proof of ownership while it dead-letters.
///
/// # Errors
/// See [`Session::durable`].
pub async fn claim(
    session: &Session,
    sink: SinkId,
    owner: &str,
    partitions: &[TopicPartition],
) -> Result<Vec<(TopicPartition, StreamRow)>, Fault> {
    let schema = session.schema();
    let text = format!(
        "with lock as (select {HELD_HERE} as held),
         free as (
           select s.stream
           from {schema}.stream_t s
           join unnest($4, $5) as w(topic, partition)
             on s.topic = w.topic and s.partition = w.partition
           where s.sink = $3
             and s.log_epoch = (
               select max(n.log_epoch) from {schema}.stream_t n
               where n.sink = s.sink and n.topic = s.topic and n.partition = s.partition)
             and (select held from lock)
           order by s.stream
           for update of s skip locked),
         taken as (
           update {schema}.stream_t s
           set owner_epoch = s.owner_epoch + 1, owner = $6
           from free
           where s.stream = free.stream
           returning s.*),
         {forgotten}
         select lock.held, t.stream, t.topic, t.partition, t.owner_epoch, t.next_offset,
                t.anchor_offset, t.anchor_time, t.anchor_crc
         from lock left join taken t on true",
        forgotten = forgotten(schema, "taken"),
    );
    let (topics, numbers) = columns(partitions);
    let rows = session
        .durable(
            &text,
            &[Type::INT2, Type::TEXT_ARRAY, Type::INT4_ARRAY, Type::TEXT],
            &[&sink.0, &topics, &numbers, &owner],
        )
        .await?;
    rows.iter().filter_map(|row| claimed(row).transpose()).collect()
}

/// The end of a list of common table expressions: what was counted as stale at or beyond the
/// `next_offset` of the streams in `positions` is forgotten, because it is read again and counted
/// then. A partition that is taken again and again would seem to have ever more of it.
fn forgotten(schema: &str, positions: &str) -> String {
    format!(
        "again as (
           select c.stream, c.route, c.minute
           from {schema}.stale_t c join {positions} p on p.stream = c.stream
           where c.first_offset >= p.next_offset
           for update of c skip locked),
         forgotten as (
           delete from {schema}.stale_t c using again
           where c.stream = again.stream and c.route = again.route and c.minute = again.minute)"
    )
}

/// Writes positions that Kafka or the operator decided, and forgets the anchor: nothing before
/// such a position was read by us. Brakes that were lifted by progress beyond their records must
/// not hold again where it goes back; one that has reason to trips anew. Returns the streams that
/// are still ours.
///
/// # Errors
/// See [`Session::durable`].
pub async fn reposition(
    session: &Session,
    positions: &[NewPosition],
) -> Result<Vec<StreamId>, Fault> {
    let schema = session.schema();
    let text = format!(
        "with lock as (select {HELD_HERE} as held),
         moved as (
           update {schema}.stream_t s
           set next_offset = p.next_offset, anchor_offset = null, anchor_time = null,
               anchor_crc = null, progressed_at = pg_catalog.now()
           from unnest($3, $4, $5) as p(stream, owner_epoch, next_offset)
           where s.stream = p.stream and s.owner_epoch = p.owner_epoch
             and (select held from lock)
           returning s.stream, s.next_offset),
         lifted as (
           update {schema}.brake_t b set \"offset\" = -1 from moved where b.stream = moved.stream),
         {forgotten}
         select lock.held, moved.stream from lock left join moved on true",
        forgotten = forgotten(schema, "moved"),
    );
    let streams: Vec<i32> = positions.iter().map(|p| p.stream.0).collect();
    let epochs: Vec<i64> = positions.iter().map(|p| p.epoch.0).collect();
    let next: Vec<i64> = positions.iter().map(|p| p.next.0).collect();
    let rows = session
        .durable(
            &text,
            &[Type::INT4_ARRAY, Type::INT8_ARRAY, Type::INT8_ARRAY],
            &[&streams, &epochs, &next],
        )
        .await?;
    moved(&rows)
}

/// The barrier: moves progress where the owner epoch is still ours, and returns the streams that
/// moved. It really writes WAL for each of them, which makes everything the session committed
/// before durable too. Progress never moves back; an entry without an anchor keeps the old one.
///
/// # Errors
/// See [`Session::durable`].
pub async fn advance(session: &Session, progress: &[Progress]) -> Result<Vec<StreamId>, Fault> {
    let schema = session.schema();
    let text = format!(
        "with lock as (select {HELD_HERE} as held),
         moved as (
           update {schema}.stream_t s
           set next_offset = p.next_offset,
               anchor_offset = case when p.anchored then p.anchor_offset else s.anchor_offset end,
               anchor_time = case when p.anchored then p.anchor_time else s.anchor_time end,
               anchor_crc = case when p.anchored then p.anchor_crc else s.anchor_crc end,
               progressed_at = pg_catalog.now()
           from (
             select *, anchor_offset is not null as anchored
             from unnest($3, $4, $5, $6, $7, $8)
               as u(stream, owner_epoch, next_offset, anchor_offset, anchor_time, anchor_crc)) p
           where s.stream = p.stream and s.owner_epoch = p.owner_epoch
             and s.next_offset <= p.next_offset
             and (select held from lock)
           returning s.stream)
         select lock.held, moved.stream from lock left join moved on true"
    );
    // Two sessions that update the same rows in the same order cannot deadlock.
    let mut progress: Vec<&Progress> = progress.iter().collect();
    progress.sort_by_key(|p| p.stream);
    let anchors = || progress.iter().map(|p| p.anchor.as_ref());
    let streams: Vec<i32> = progress.iter().map(|p| p.stream.0).collect();
    let epochs: Vec<i64> = progress.iter().map(|p| p.epoch.0).collect();
    let next: Vec<i64> = progress.iter().map(|p| p.next.0).collect();
    let anchor_offsets: Vec<Option<i64>> = anchors().map(|a| a.map(|a| a.offset.0)).collect();
    let anchor_times: Vec<Option<i64>> = anchors().map(|a| a.and_then(|a| a.timestamp)).collect();
    let anchor_crcs: Vec<Option<i64>> = anchors().map(|a| a.map(|a| i64::from(a.crc))).collect();
    let longs = || Type::INT8_ARRAY;
    let rows = session
        .durable(
            &text,
            &[Type::INT4_ARRAY, longs(), longs(), longs(), longs(), longs()],
            &[&streams, &epochs, &next, &anchor_offsets, &anchor_times, &anchor_crcs],
        )
        .await?;
    moved(&rows)
}

fn columns(partitions: &[TopicPartition]) -> (Vec<&str>, Vec<i32>) {
    partitions.iter().map(|p| (&*p.topic, p.partition)).unzip()
}

/// The streams in the second column; a lone null means none.
fn moved(rows: &[Row]) -> Result<Vec<StreamId>, Fault> {
    rows.iter()
        .filter_map(|row| row.try_get::<_, Option<i32>>(1).transpose())
        .map(|stream| stream.map(StreamId).map_err(|error| crate::postgres::fault_of(&error)))
        .collect()
}

/// One claimed stream; `None` for the row that only carries the lock's answer.
fn claimed(row: &Row) -> Result<Option<(TopicPartition, StreamRow)>, Fault> {
    let read = || -> Result<Option<_>, tokio_postgres::Error> {
        let Some(stream) = row.try_get::<_, Option<i32>>(1)? else { return Ok(None) };
        let topic: &str = row.try_get(2)?;
        let partition = TopicPartition { topic: topic.into(), partition: row.try_get(3)? };
        let anchor: (Option<i64>, Option<i64>, Option<i64>) =
            (row.try_get(6)?, row.try_get(7)?, row.try_get(8)?);
        let epoch = OwnerEpoch(row.try_get(4)?);
        let next = row.try_get::<_, Option<i64>>(5)?.map(NextOffset);
        Ok(Some((partition, StreamId(stream), epoch, next, anchor)))
    };
    let Some((partition, stream, epoch, next, (offset, timestamp, crc))) =
        read().map_err(|error| crate::postgres::fault_of(&error))?
    else {
        return Ok(None);
    };
    let anchor = match (offset, crc.map(u32::try_from)) {
        (Some(offset), Some(Ok(crc))) => Some(Anchor { offset: Offset(offset), timestamp, crc }),
        (None, None) => None,
        _ => return Err(Fault::new(FaultKind::Bug("anchor of an impossible shape"))),
    };
    Ok(Some((partition, StreamRow { stream, epoch, next, anchor })))
}
