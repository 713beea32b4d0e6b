//! Whether topics may be read: who may see a topic may not always read it.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::config::Config;
use crate::kafka::faults::on_poll;
use crate::kafka::log::LogOnly;
use crate::kafka::settings;
use pgsluice_core::fault::PollFault;

use super::kafka::ASK_TIMEOUT;

/// A client that reads nothing but ends of logs. It joins no group and commits nothing.
pub(super) struct Reader {
    client: Option<BaseConsumer<LogOnly>>,
    /// All topics together may take so long; those that are left then are not proved.
    deadline: Instant,
}

impl Reader {
    pub(super) fn new(config: &Config) -> Self {
        let client = settings::sample(&config.kafka).create_with_context(LogOnly);
        // The same properties made a client before.
        Self { client: client.ok(), deadline: Instant::now() + ASK_TIMEOUT }
    }

    /// What an operator has to mend before the topic can be read. `None` where it can be read, and
    /// where that cannot be told now.
    pub(super) fn refused(&self, topic: &MetadataTopic) -> Option<RDKafkaErrorCode> {
        let client = self.client.as_ref()?;
        let led = topic.partitions().iter().find(|partition| partition.leader() >= 0)?;
        let mut end = TopicPartitionList::new();
        end.add_partition_offset(topic.name(), led.id(), Offset::End).ok()?;
        client.assign(&end).ok()?;
        while let Some(left) = self.deadline.checked_duration_since(Instant::now()) {
            match client.poll(left.min(Duration::from_secs(1))) {
                // At the end of the log, or a record that came at this moment: it can be read.
                Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return None,
                Some(Err(error)) => {
                    let code = error.rdkafka_error_code()?;
                    if on_poll(code) == PollFault::Operator {
                        return Some(code);
                    }
                }
                None => {}
            }
        }
        None
    }
}
