//! Kafka as a source of records: the member, the mirror and the clients beside them, behind the
//! port that the run loop knows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::KafkaError;
use tokio::sync::mpsc::UnboundedSender;

use super::consumer::{Budget, Consumer};
use super::ends::LogEnds;
use super::faults::describe;
use super::mirror::Mirror;
use super::positions::Positions;
use crate::config::Config;
use crate::telemetry::Telemetry;
use pgsluice_core::input::MirrorPosition;
use pgsluice_core::position::{KafkaPosition, LogEnd};
use pgsluice_core::record::TopicPartition;
use pgsluice_core::source::{Command, PollEvent, Source};

/// A member of the group, and what goes with it. Dropping it leaves the group, without a farewell.
#[derive(Debug)]
pub struct Kafka {
    consumer: Consumer,
    mirror: Mirror,
    positions: Arc<Positions>,
    ends: LogEnds,
    budget: Arc<Budget>,
}

impl Kafka {
    /// Joins the group. Nothing is read before the first [`Command::Decode`].
    ///
    /// # Errors
    /// When librdkafka refuses a setting or a topic name, or the operating system a thread.
    /// Unreachable brokers are no error: they are reported as [`PollEvent::Unreachable`].
    pub fn start(
        config: &Config,
        events: UnboundedSender<PollEvent>,
        telemetry: Telemetry,
    ) -> Result<Self, KafkaError> {
        let limit = usize::try_from(config.limits.in_flight_bytes.0).unwrap_or(usize::MAX);
        let budget = Arc::new(Budget::new(limit));
        let positions = Arc::new(Positions::connect(&config.kafka)?);
        let ends = LogEnds::connect(&config.kafka, Arc::clone(&positions))?;
        let consumer = Consumer::start(config, events, Arc::clone(&budget))?;
        let mirror = Mirror::start(&consumer, telemetry)
            .map_err(|_| KafkaError::ClientCreation("no thread for the mirror".to_owned()))?;
        Ok(Self { consumer, mirror, positions, ends, budget })
    }
}

impl Source for Kafka {
    fn send(&self, command: Command) {
        self.consumer.send(command);
    }

    fn free(&self, weight: usize) {
        self.budget.free(weight);
    }

    fn in_flight(&self) -> usize {
        self.budget.in_flight()
    }

    fn mirror(&self, positions: Vec<MirrorPosition>) {
        self.mirror.commit(positions);
    }

    fn forget(&self, partition: TopicPartition) {
        self.mirror.forget(vec![partition]);
    }

    fn flush(&self, timeout: Duration) -> bool {
        self.mirror.flush(timeout)
    }

    fn positions(
        &self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> HashMap<TopicPartition, KafkaPosition> {
        self.positions.fetch(partitions, timeout).unwrap_or_else(|error| {
            tracing::debug!(
                event = "offsets_client",
                error = describe(&error),
                "positions not known yet"
            );
            HashMap::new()
        })
    }

    fn cluster_id(&self, timeout: Duration) -> Option<String> {
        self.positions.cluster_id(timeout)
    }

    fn ends(&self, partitions: &[TopicPartition]) -> HashMap<TopicPartition, LogEnd> {
        self.ends.fetch(partitions)
    }
}
