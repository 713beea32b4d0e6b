//! Positions as Kafka knows them, read beside the consumer: committed offsets with their
//! metadata, what the logs hold, and where `start_from` points to.
//!
//! All calls block, each at most for the given time; they belong on a thread of their own, never
//! on the poll thread or the runtime.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};

use super::faults::describe;
use super::log::LogOnly;
use super::settings;
use crate::config::{KafkaConfig, StartFrom};
use crate::telemetry::caught;
use pgsluice_core::position::{Committed, KafkaPosition};
use pgsluice_core::record::TopicPartition;

/// The offsets client: it has the sink's group but never joins it.
pub struct Positions {
    client: BaseConsumer<LogOnly>,
    start_from: StartFrom,
}

impl std::fmt::Debug for Positions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Positions").field("start_from", &self.start_from).finish_non_exhaustive()
    }
}

impl Positions {
    /// A client for the configured cluster. Nothing is asked yet.
    ///
    /// # Errors
    /// When librdkafka refuses a setting.
    pub fn connect(config: &KafkaConfig) -> Result<Self, KafkaError> {
        let client = settings::offsets(config).create_with_context(LogOnly)?;
        Ok(Self { client, start_from: config.start_from })
    }

    /// The cluster's id; `None` when no broker answered in time, or it has none.
    pub fn cluster_id(&self, timeout: Duration) -> Option<String> {
        // The client's log lines and errors come out of its poll only.
        self.serve();
        self.client.client().fetch_cluster_id(timeout)
    }

    /// Partitions of a topic; `None` when no broker answered in time or there is no such topic.
    pub fn partition_count(&self, topic: &str, timeout: Duration) -> Option<usize> {
        self.serve();
        let metadata = self.client.fetch_metadata(Some(topic), timeout).ok()?;
        let topic = metadata.topics().iter().find(|found| found.name() == topic)?;
        topic.error().is_none().then(|| topic.partitions().len())
    }

    /// What Kafka knows of each partition. One that is missing in the answer could not be asked
    /// in time, or was refused: ask again later.
    ///
    /// `timeout` bounds the whole call.
    ///
    /// # Errors
    /// When the committed offsets of the group could not be read at all.
    pub fn fetch(
        &self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Result<HashMap<TopicPartition, KafkaPosition>, KafkaError> {
        self.serve();
        let deadline = Instant::now() + timeout;
        let left = || deadline.saturating_duration_since(Instant::now());
        let committed =
            self.client.committed_offsets(list(partitions, Offset::Invalid)?, left())?;
        let mut found = HashMap::new();
        for partition in partitions {
            match self.position(partition, &committed, left()) {
                Ok(position) => {
                    found.insert(partition.clone(), position);
                }
                Err(error) => tracing::debug!(
                    event = "offsets_client", error = describe(&error), %partition, "position not known yet"
                ),
            }
        }
        Ok(found)
    }

    fn position(
        &self,
        partition: &TopicPartition,
        committed: &TopicPartitionList,
        timeout: Duration,
    ) -> KafkaResult<KafkaPosition> {
        if timeout.is_zero() {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut));
        }
        let TopicPartition { topic, partition: number } = partition;
        let committed = match committed.find_partition(topic, *number) {
            Some(entry) => committed_of(&entry)?,
            None => None,
        };
        let (low, high) = self.client.fetch_watermarks(topic, *number, timeout)?;
        let start = match self.start_from {
            StartFrom::Earliest => Some(low),
            StartFrom::Latest => Some(high),
            StartFrom::Error => None,
            // Asked for only where it may be needed.
            StartFrom::At(_) if committed.is_some() => None,
            StartFrom::At(time) => {
                Some(self.at(partition, time.as_millisecond(), timeout)?.unwrap_or(high))
            }
        };
        Ok(KafkaPosition { committed, low, high, start })
    }

    /// The first offset at or after a time in milliseconds; `None` when all records are older.
    fn at(
        &self,
        partition: &TopicPartition,
        time: i64,
        timeout: Duration,
    ) -> KafkaResult<Option<i64>> {
        let times = list(std::slice::from_ref(partition), Offset::Offset(time.max(0)))?;
        let found = self.client.offsets_for_times(times, timeout)?;
        let Some(entry) = found.find_partition(&partition.topic, partition.partition) else {
            return Ok(None);
        };
        entry.error()?;
        Ok(match entry.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        })
    }

    /// Last stable offsets. One that is missing in the answer could not be told.
    ///
    /// # Errors
    /// When the brokers could not be asked in time.
    pub(super) fn stable_ends(
        &self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> KafkaResult<HashMap<TopicPartition, i64>> {
        self.serve();
        latest(&self.client, partitions, timeout)
    }

    fn serve(&self) {
        serve(&self.client);
    }
}

/// Lets a client say what it has to say.
pub(super) fn serve(client: &BaseConsumer<LogOnly>) {
    // Never a member, so a poll brings no records, only log lines and errors.
    while let Some(Err(error)) = client.poll(Duration::ZERO) {
        tracing::debug!(event = "offsets_client", error = describe(&error), "offsets client");
    }
}

/// The ends of logs as the client's isolation level sees them, one request to each broker.
pub(super) fn latest(
    client: &BaseConsumer<LogOnly>,
    partitions: &[TopicPartition],
    timeout: Duration,
) -> KafkaResult<HashMap<TopicPartition, i64>> {
    // In this request of the protocol the end is a time, spelled as librdkafka spells the offset.
    let found = client.offsets_for_times(list(partitions, Offset::End)?, timeout)?;
    let mut ends = HashMap::with_capacity(partitions.len());
    for partition in partitions {
        let entry = found.find_partition(&partition.topic, partition.partition);
        if let Some(entry) = entry
            && entry.error().is_ok()
            && let Offset::Offset(end) = entry.offset()
        {
            ends.insert(partition.clone(), end);
        }
    }
    Ok(ends)
}

/// A committed offset with its metadata, `None` when nothing is committed.
fn committed_of(entry: &TopicPartitionListElem<'_>) -> KafkaResult<Option<Committed>> {
    entry.error()?;
    let Offset::Offset(next) = entry.offset() else { return Ok(None) };
    // The accessor panics on metadata that is not UTF-8. Ours always is, so it is somebody
    // else's, which is all that matters.
    let metadata = caught(|| entry.metadata().to_owned());
    Ok(Some(Committed { next, metadata: metadata.unwrap_or_default() }))
}

fn list(partitions: &[TopicPartition], offset: Offset) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition_offset(&partition.topic, partition.partition, offset)?;
    }
    Ok(list)
}
