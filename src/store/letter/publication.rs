//! Letters on their way from `dead_letter_t` to their topic: read, claimed, marked.
//!
//! | step | connection | why |
//! | --- | --- | --- |
//! | read | slow lane | values may be large, and the lead must stay free for the barrier |
//! | claim | lead | nothing that was read leaves before a synchronous, WAL-writing commit made after the read, on a server that still holds the session's lock (INV-14) |
//! | mark | slow lane | a mark that is lost only means that the letter is sent again |
//!
//! Reading and claiming both ask for the ownership of the stream, so that a process that lost it
//! does not send letters its successor sends too (INV-10).

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::postgres::lock::HELD_HERE;
use crate::postgres::session::Session;
use pgsluice_core::fault::{Fault, FaultKind};
use pgsluice_core::record::{Header, Offset, OwnerEpoch, RecordId, StreamId};

/// A stream whose letters are this process's to publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnedStream {
    /// The stream.
    pub stream: StreamId,
    /// The ownership.
    pub epoch: OwnerEpoch,
}

/// How much one reading may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portion {
    /// Letters of one stream, at most.
    pub letters_per_stream: i64,
    /// Bytes of keys, values and headers together; the letter that reaches it is the last one.
    pub bytes: i64,
}

/// A row of `dead_letter_t` with the names that its surrogate keys stand for.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredLetter {
    /// Where the record stood.
    pub id: RecordId,
    /// The sink's name, which is the consumer group.
    pub group: String,
    /// The Kafka cluster the record comes from, where it is known.
    pub cluster_id: Option<String>,
    /// Topic of the record.
    pub topic: String,
    /// Partition of the record.
    pub partition: i32,
    /// Which of the partition's logs it stood in.
    pub log_epoch: i32,
    /// The record's timestamp in milliseconds.
    pub timestamp: Option<i64>,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value.
    pub value: Option<Vec<u8>>,
    /// The record's headers.
    pub headers: Vec<Header>,
    /// Aggregate type, where it could be told.
    pub aggregate_type: Option<String>,
    /// Aggregate id, where it could be told.
    pub aggregate_id: Option<String>,
    /// Aggregate version, where the event had one.
    pub aggregate_version: Option<i64>,
    /// `poison` or `parked`.
    pub disposition: String,
    /// Reason code.
    pub reason: String,
    /// SQLSTATE of the refusal, when the database refused it.
    pub sqlstate: Option<String>,
    /// Constraint that refused it.
    pub constraint: Option<String>,
    /// Failed attempts.
    pub attempts: i32,
    /// How often it was sent through again by an operator.
    pub redrives: i32,
    /// When it failed first.
    pub first_failed_at: Timestamp,
    /// When it was given up.
    pub failed_at: Timestamp,
}

impl std::fmt::Debug for StoredLetter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // INV-9: key, value, headers and aggregate id stay out.
        f.debug_struct("StoredLetter").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Letters of the streams that no publisher has finished, claimed for this one, in the order of
/// each stream. A stream whose ownership is no longer the given one has none.
///
/// # Errors
/// The fault; the session may be over, see [`Session::durable`].
pub async fn claim(
    session: &Session,
    streams: &[OwnedStream],
    portion: Portion,
) -> Result<Vec<StoredLetter>, Fault> {
    let mut letters = session.within(read(session, streams, portion)).await?;
    if !letters.is_empty() {
        let claimed = take(session, streams, &letters).await?;
        letters.retain(|letter| claimed.contains(&letter.id));
    }
    Ok(letters)
}

/// The letters of owned streams that are not published, oldest first.
async fn read(
    session: &Session,
    streams: &[OwnedStream],
    portion: Portion,
) -> Result<Vec<StoredLetter>, Fault> {
    let schema = session.schema();
    let text = format!(
        r#"select * from (
             select l.stream, l."offset", k.name, k.cluster_id, s.topic, s.partition, s.log_epoch,
                    l.record_ts, l.key, l.value, l.headers::text, l.aggregate_type,
                    l.aggregate_id, l.aggregate_version, l.disposition, l.reason, l.sqlstate,
                    l.constraint_name, l.attempts, l.redrives,
                    (extract(epoch from l.first_failed_at) * 1000000)::bigint,
                    (extract(epoch from l.failed_at) * 1000000)::bigint,
                    pg_catalog.sum(l.size) over (
                      order by l.stream, l."offset" rows unbounded preceding) - l.size as before
             from unnest($1, $2) as o(stream, epoch)
             join {schema}.stream_t s on s.stream = o.stream and s.owner_epoch = o.epoch
             join {schema}.sink_t k on k.sink = s.sink
             cross join lateral (
               select d.*, coalesce(pg_catalog.octet_length(d.key), 0)
                           + coalesce(pg_catalog.octet_length(d.value), 0)
                           + pg_catalog.octet_length(d.headers::text) as size
               from {schema}.dead_letter_t d
               where d.sink = s.sink and d.stream = s.stream and d.published_at is null
               order by d."offset" limit $3) l
           ) r
           where r.before < $4
           order by r.stream, r."offset""#
    );
    let (names, epochs) = owned(streams);
    let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
        (&names, Type::INT4_ARRAY),
        (&epochs, Type::INT8_ARRAY),
        (&portion.letters_per_stream, Type::INT8),
        (&portion.bytes, Type::INT8),
    ];
    let connection = session.slow().await?;
    let rows = connection.query_typed(&text, &parameters).await;
    let rows = rows.map_err(|error| crate::postgres::fault_of(&error))?;
    rows.iter().map(letter).collect()
}

/// Claims what was read; gives back what is still there to be published.
async fn take(
    session: &Session,
    streams: &[OwnedStream],
    letters: &[StoredLetter],
) -> Result<HashSet<RecordId>, Fault> {
    let schema = session.schema();
    let text = format!(
        r#"with lock as (select {HELD_HERE} as held),
           claimed as (
             update {schema}.dead_letter_t l set claimed_at = pg_catalog.now()
             from lock,
                  unnest($3, $4) as c(stream, "offset"),
                  unnest($5, $6) as o(stream, epoch)
                  join {schema}.stream_t s on s.stream = o.stream and s.owner_epoch = o.epoch
             where lock.held and o.stream = c.stream
               and l.stream = c.stream and l."offset" = c."offset" and l.published_at is null
             returning l.stream, l."offset")
           select lock.held, claimed.stream, claimed."offset"
           from lock left join claimed on true"#
    );
    let (names, offsets) = keys(letters.iter().map(|letter| letter.id));
    let (owned, epochs) = owned(streams);
    let rows = session
        .durable(
            &text,
            &[Type::INT4_ARRAY, Type::INT8_ARRAY, Type::INT4_ARRAY, Type::INT8_ARRAY],
            &[&names, &offsets, &owned, &epochs],
        )
        .await?;
    let mut claimed = HashSet::new();
    for row in rows {
        let stream: Option<i32> = column(&row, 1)?;
        let offset: Option<i64> = column(&row, 2)?;
        if let (Some(stream), Some(offset)) = (stream, offset) {
            claimed.insert(RecordId { stream: StreamId(stream), offset: Offset(offset) });
        }
    }
    Ok(claimed)
}

/// Marks letters that their topic has.
///
/// # Errors
/// The fault. Letters that are not marked are published again: at least once.
pub async fn mark(session: &Session, published: &[RecordId]) -> Result<(), Fault> {
    let text = format!(
        r#"update {}.dead_letter_t l set published_at = pg_catalog.now()
           from unnest($1, $2) as p(stream, "offset")
           where l.stream = p.stream and l."offset" = p."offset" and l.published_at is null"#,
        session.schema()
    );
    let (names, offsets) = keys(published.iter().copied());
    let work = async {
        let connection = session.slow().await?;
        let parameters: [(&(dyn ToSql + Sync), Type); 2] =
            [(&names, Type::INT4_ARRAY), (&offsets, Type::INT8_ARRAY)];
        let done = connection.query_typed(&text, &parameters).await;
        done.map(|_| ()).map_err(|error| crate::postgres::fault_of(&error))
    };
    session.within(work).await
}

fn owned(streams: &[OwnedStream]) -> (Vec<i32>, Vec<i64>) {
    streams.iter().map(|owned| (owned.stream.0, owned.epoch.0)).unzip()
}

fn keys(ids: impl Iterator<Item = RecordId>) -> (Vec<i32>, Vec<i64>) {
    ids.map(|id| (id.stream.0, id.offset.0)).unzip()
}

fn letter(row: &Row) -> Result<StoredLetter, Fault> {
    let stored: String = column(row, 10)?;
    let stream = StreamId(column(row, 0)?);
    Ok(StoredLetter {
        id: RecordId { stream, offset: Offset(column(row, 1)?) },
        group: column(row, 2)?,
        cluster_id: column(row, 3)?,
        topic: column(row, 4)?,
        partition: column(row, 5)?,
        log_epoch: column(row, 6)?,
        timestamp: column(row, 7)?,
        key: column(row, 8)?,
        value: column(row, 9)?,
        headers: headers(&stored).ok_or_else(|| unreadable("headers of a dead letter"))?,
        aggregate_type: column(row, 11)?,
        aggregate_id: column(row, 12)?,
        aggregate_version: column(row, 13)?,
        disposition: column(row, 14)?,
        reason: column(row, 15)?,
        sqlstate: column(row, 16)?,
        constraint: column(row, 17)?,
        attempts: column(row, 18)?,
        redrives: column(row, 19)?,
        first_failed_at: time(column(row, 20)?)?,
        failed_at: time(column(row, 21)?)?,
    })
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    index: usize,
) -> Result<T, Fault> {
    row.try_get(index).map_err(|error| crate::postgres::fault_of(&error))
}

fn time(micros: i64) -> Result<Timestamp, Fault> {
    Timestamp::from_microsecond(micros).map_err(|_| unreadable("time of a dead letter"))
}

fn unreadable(what: &'static str) -> Fault {
    Fault::new(FaultKind::Bug(what))
}

/// Reads headers as they are stored: `[[name, base64 or null], …]`.
fn headers(stored: &str) -> Option<Vec<Header>> {
    let pairs: Vec<(String, Option<String>)> = serde_json::from_str(stored).ok()?;
    pairs
        .into_iter()
        .map(|(name, value)| {
            let value = match value {
                Some(text) => Some(STANDARD.decode(text).ok()?.into_boxed_slice()),
                None => None,
            };
            Some(Header { name: name.into(), value })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves INV-6.
    #[test]
    fn stored_headers_keep_order_duplicates_and_nulls() {
        let found = headers(r#"[["a","MQ=="],["b",null],["a",""]]"#).unwrap();
        let header = |name: &str, value: Option<&[u8]>| Header {
            name: name.into(),
            value: value.map(Box::from),
        };
        assert_eq!(found, [header("a", Some(b"1")), header("b", None), header("a", Some(b""))]);
    }

    #[test]
    fn headers_of_another_shape_are_refused() {
        for stored in [r#"{"a":"MQ=="}"#, r#"[["a"]]"#, r#"[["a","*"]]"#] {
            assert_eq!(headers(stored), None, "{stored}");
        }
    }
}
