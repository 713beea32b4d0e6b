//! Where the logs of partitions end, asked of the brokers beside the consumer.
//!
//! librdkafka's statistics know it as well, but only from its fetches: of a partition that is
//! paused, because it is halted or because too much of it is in memory, they keep telling what was
//! true at its last fetch, and of one that was never fetched nothing. Those are the ones whose lag
//! matters most, so all are asked for alike: two requests to each broker, whatever is on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, KafkaResult};

use super::faults::describe;
use super::log::LogOnly;
use super::positions::{self, Positions};
use super::settings;
use crate::config::KafkaConfig;
use pgsluice_core::position::LogEnd;
use pgsluice_core::record::TopicPartition;

/// How long the brokers of one topic may take to answer each question.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// The client that asks.
pub struct LogEnds {
    /// Sees committed records only.
    positions: Arc<Positions>,
    /// Sees everything.
    all: BaseConsumer<LogOnly>,
}

impl std::fmt::Debug for LogEnds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogEnds").finish_non_exhaustive()
    }
}

impl LogEnds {
    /// A client for the configured cluster. Nothing is asked yet.
    ///
    /// # Errors
    /// When librdkafka refuses a setting.
    pub fn connect(config: &KafkaConfig, positions: Arc<Positions>) -> Result<Self, KafkaError> {
        let all = settings::log_ends(config).create_with_context(LogOnly)?;
        Ok(Self { positions, all })
    }

    /// Where the logs of partitions end. Blocks. What could not be asked is missing in the answer;
    /// a topic that is gone costs the others nothing but time.
    pub fn fetch(&self, partitions: &[TopicPartition]) -> HashMap<TopicPartition, LogEnd> {
        positions::serve(&self.all);
        let mut topics: BTreeMap<&str, Vec<TopicPartition>> = BTreeMap::new();
        for partition in partitions {
            topics.entry(&partition.topic).or_default().push(partition.clone());
        }
        let mut found = HashMap::new();
        for partitions in topics.values() {
            match self.topic(partitions) {
                Ok(ends) => found.extend(ends),
                Err(error) => tracing::debug!(
                    event = "offsets_client",
                    error = describe(&error),
                    "ends of logs not known yet"
                ),
            }
        }
        found
    }

    fn topic(&self, partitions: &[TopicPartition]) -> KafkaResult<Vec<(TopicPartition, LogEnd)>> {
        // In this order nothing that was written in between looks like an open transaction.
        let ends = positions::latest(&self.all, partitions, ASK_TIMEOUT)?;
        let stable = self.positions.stable_ends(partitions, ASK_TIMEOUT)?;
        Ok(ends
            .into_iter()
            .filter_map(|(partition, end)| {
                let stable = *stable.get(&partition)?;
                Some((partition, LogEnd { end: end.max(stable), stable }))
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

    use super::*;

    fn partition(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition { topic: topic.into(), partition }
    }

    fn config(brokers: &str) -> KafkaConfig {
        let given = [
            ("PGSLUICE__KAFKA__BROKERS", brokers),
            ("PGSLUICE__KAFKA__GROUP", "sink"),
            ("PGSLUICE__KAFKA__TOPICS", "events"),
            ("PGSLUICE__POSTGRES__URL", "postgres://nobody@localhost/unused"),
        ];
        let variables = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
        crate::config::load(None, variables.into_iter(), &crate::config::AnyProperty).unwrap().kafka
    }

    #[test]
    fn a_topic_that_is_gone_does_not_hide_where_others_end() {
        let broker = MockCluster::new(1).unwrap();
        broker.create_topic("here", 2, 1).unwrap();
        let config = config(&broker.bootstrap_servers());
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", &config.brokers).create().unwrap();
        for _ in 0..3 {
            let record = BaseRecord::<str, str>::to("here").partition(1).payload("{}");
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(10)).unwrap();

        let positions = Arc::new(Positions::connect(&config).unwrap());
        let ends = LogEnds::connect(&config, positions).unwrap();
        let asked = [partition("gone", 0), partition("here", 0), partition("here", 1)];
        let found = ends.fetch(&asked);

        let end = |end| LogEnd { end, stable: end };
        let expected = [(partition("here", 0), end(0)), (partition("here", 1), end(3))];
        assert_eq!(found, HashMap::from(expected));
        assert_eq!(ends.fetch(&[]), HashMap::new());
    }
}
