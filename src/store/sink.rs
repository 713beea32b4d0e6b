//! `sink_t`: one row for each deployment that writes into this database.

use std::collections::HashMap;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::postgres::Session;
use pgsluice_core::fault::{Fault, FaultKind};
use pgsluice_core::record::{NextOffset, StreamId, TopicPartition};

/// The surrogate key of a deployment in `sink_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SinkId(pub i16);

/// A row of `sink_t`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SinkRow {
    /// The key.
    pub(crate) sink: SinkId,
    /// Kafka cluster the sink's positions belong to, `None` until it was known once.
    pub(crate) cluster_id: Option<String>,
}

impl SinkRow {
    /// The row of the sink whose name is `$1`.
    fn select(schema: &str) -> String {
        format!("select sink, cluster_id from {schema}.sink_t where name = $1")
    }

    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self { sink: SinkId(row.try_get(0)?), cluster_id: row.try_get(1)? })
    }
}

/// Why nothing can be written as this sink.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The sink's positions belong to another Kafka cluster: exit code 4.
    #[error("sink {sink} belongs to Kafka cluster {known}, but the brokers are cluster {found}")]
    ClusterMismatch {
        /// The sink's name.
        sink: String,
        /// Cluster id the sink was made for.
        known: String,
        /// Cluster id of the brokers.
        found: String,
    },
    /// The database did not answer or refused; a missing table means the migrations have not run.
    #[error("database session: {0}")]
    Database(#[from] Fault),
}

impl SinkError {
    /// The fault to report when there is no sink in a later session.
    pub fn into_fault(self) -> Fault {
        match self {
            Self::Database(fault) => fault,
            Self::ClusterMismatch { .. } => {
                Fault::new(FaultKind::Bug("the database belongs to another Kafka cluster"))
            }
        }
    }
}

/// Finds the sink's row or makes it, and remembers the cluster id when none was known.
/// `cluster_id` is the Kafka cluster's; `None` while it is not known, which is not compared.
///
/// # Errors
/// [`SinkError`].
pub async fn find_or_create(
    session: &Session,
    name: &str,
    cluster_id: Option<&str>,
) -> Result<SinkId, SinkError> {
    let schema = session.schema();
    let work = async {
        let connection = session.slow().await?;
        let row = found_or_created(&connection, schema, name, cluster_id).await;
        row.map_err(|error| crate::postgres::fault_of(&error))
    };
    let row = session.within(work).await?;
    match (row.cluster_id, cluster_id) {
        (Some(known), Some(found)) if known != found => Err(SinkError::ClusterMismatch {
            sink: name.to_owned(),
            known,
            found: found.to_owned(),
        }),
        _ => Ok(row.sink),
    }
}

/// Looks before it inserts: an insert that conflicts would use up a number of the `smallint`
/// identity at every start.
async fn found_or_created(
    client: &Client,
    schema: &str,
    name: &str,
    cluster_id: Option<&str>,
) -> Result<SinkRow, tokio_postgres::Error> {
    let insert = format!(
        "insert into {schema}.sink_t (name, cluster_id)
         select $1, $2 where not exists (select from {schema}.sink_t where name = $1)
         on conflict (name) do nothing"
    );
    let learn = format!(
        "update {schema}.sink_t set cluster_id = $2
         where name = $1 and cluster_id is null and $2 is not null"
    );
    let both: [(&(dyn ToSql + Sync), Type); 2] = [(&name, Type::TEXT), (&cluster_id, Type::TEXT)];
    client.query_typed(&insert, &both).await?;
    client.query_typed(&learn, &both).await?;
    SinkRow::read(&client.query_typed_one(&SinkRow::select(schema), &both[..1]).await?)
}

/// Finds the sink's row and makes none. `schema` is quoted.
///
/// # Errors
/// The driver's error, to be turned into a fault by the caller.
pub(crate) async fn find(
    client: &Client,
    schema: &str,
    name: &str,
) -> Result<Option<SinkRow>, tokio_postgres::Error> {
    let row = client.query_typed_opt(&SinkRow::select(schema), &[(&name, Type::TEXT)]).await?;
    row.as_ref().map(SinkRow::read).transpose()
}

/// What is stored of a sink: its key, and its newest stream of each partition with the position.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stored {
    /// The key; `None` for a sink that never ran.
    pub(crate) sink: Option<SinkId>,
    /// The streams.
    pub(crate) streams: HashMap<TopicPartition, (StreamId, Option<NextOffset>)>,
}

/// Reads what is stored of a sink and claims nothing. `schema` is quoted.
///
/// # Errors
/// The driver's error, to be turned into a fault by the caller.
pub(crate) async fn stored(
    client: &Client,
    schema: &str,
    name: &str,
) -> Result<Stored, tokio_postgres::Error> {
    let text = format!(
        "select k.sink, s.stream, s.topic, s.partition, s.next_offset
         from {schema}.sink_t k
         left join (
           select distinct on (sink, topic, partition) * from {schema}.stream_t
           order by sink, topic, partition, log_epoch desc) s using (sink)
         where k.name = $1"
    );
    let mut stored = Stored::default();
    for row in client.query_typed(&text, &[(&name, Type::TEXT)]).await? {
        stored.sink = Some(SinkId(row.try_get(0)?));
        let Some(stream) = row.try_get::<_, Option<i32>>(1)? else { continue };
        let topic: &str = row.try_get(2)?;
        let partition = TopicPartition { topic: topic.into(), partition: row.try_get(3)? };
        let next = row.try_get::<_, Option<i64>>(4)?.map(NextOffset);
        stored.streams.insert(partition, (StreamId(stream), next));
    }
    Ok(stored)
}
