//! What operators see while it runs: log lines, metrics, and the snapshot behind `/status`.
//!
//! Levels: ERROR means a human must act; WARN means unexpected, but handled; INFO is a change of
//! state. There is never a line for each record at INFO or above. Every line of ours carries
//! `event`, a code that alerts can match on. No payload, key or secret appears anywhere (INV-9).

#[cfg(test)]
mod codes;
mod heartbeat;
mod letters;
mod log;
mod lossy;
mod metrics;
mod publishing;
mod record_ages;
mod report;
mod status;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgsluice_core::fault::{Fault, FaultKind, PollFault};
use pgsluice_core::position::LogEnd;
use pgsluice_core::record::{SessionId, TopicPartition};

use letters::LetterCount;
use record_ages::RecordAges;

pub use heartbeat::Heartbeat;
pub(crate) use log::caught;
pub use log::{LogError, init_logs};
pub use lossy::flush_logs;
pub use metrics::{
    Connections, DEFINITIONS, Definition, Kind, Metrics, MetricsError, PartitionMetrics, Rebalance,
    SlowWork, WorkMetrics,
};
pub use publishing::Publishing;
pub use status::{Lag, NotReady, PartitionPhase, PartitionStatus, Stage, Status};

/// The one handle the pipeline reports through; clones share everything.
#[derive(Clone)]
pub struct Telemetry(Arc<Shared>);

struct Shared {
    metrics: Metrics,
    status: Mutex<Status>,
    letters: Mutex<LetterCount>,
    /// When records were read that are not durable yet.
    ages: Mutex<RecordAges>,
    heartbeat: Heartbeat,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Telemetry of a sink that is about to start.
    ///
    /// # Errors
    /// The metrics cannot be registered, which is a bug: their names clash.
    pub fn try_new(sink: &str) -> Result<Self, MetricsError> {
        Ok(Self(Arc::new(Shared {
            metrics: Metrics::try_new()?,
            status: Mutex::new(Status::new(sink)),
            letters: Mutex::default(),
            ages: Mutex::default(),
            heartbeat: Heartbeat::new(),
        })))
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The sign of life that `/live` looks at.
    pub fn heartbeat(&self) -> &Heartbeat {
        &self.0.heartbeat
    }

    /// A copy of the current state.
    pub fn status(&self) -> Status {
        self.lock_status().clone()
    }

    /// Whether records are being moved.
    ///
    /// # Errors
    /// Why not.
    pub fn readiness(&self) -> Result<(), NotReady> {
        self.lock_status().readiness()
    }

    /// The pipeline's loop turned. To be called at least every second.
    pub fn beat(&self) {
        self.0.heartbeat.beat();
        self.log_letters();
    }

    /// The pipeline starts.
    pub fn started(&self) {
        self.lock_status().stage = Stage::Running;
        tracing::info!(event = "started", version = env!("CARGO_PKG_VERSION"), "pipeline started");
    }

    /// The group gave these partitions to this member; they may be none.
    pub fn assigned(&self, partitions: &[TopicPartition]) {
        let (held, first) = {
            let mut status = self.lock_status();
            let first = !status.joined;
            status.assigned(partitions);
            (status.partitions.len(), first)
        };
        self.0.metrics.partitions_held(held);
        self.0.metrics.work.rebalance(Rebalance::Assigned);
        let count = partitions.len();
        // A rebalance that brings nothing is frequent and, but for the first, no news.
        if count > 0 || first {
            tracing::info!(event = "partitions_assigned", count, held, "partitions assigned");
        }
    }

    /// Kafka takes partitions away; `lost`: ownership is gone already.
    pub fn revoked(&self, lost: bool) {
        let kind = if lost { Rebalance::Lost } else { Rebalance::Revoked };
        self.0.metrics.work.rebalance(kind);
    }

    /// Partitions assigned to this member.
    pub fn partitions_held(&self) -> Vec<TopicPartition> {
        self.lock_status().partitions.keys().cloned().collect()
    }

    /// Where the logs of partitions end.
    pub fn log_ends(&self, ends: &HashMap<TopicPartition, LogEnd>) {
        // Told by another thread than the rest: under the lock, so that no series is set after the
        // partition was given up.
        let mut status = self.lock_status();
        for (partition, end) in ends {
            if let Some(lag) = status.log_end(partition, *end) {
                self.0.metrics.partition.lag(partition, lag);
            }
        }
    }

    /// A database session is ready.
    pub fn session_opened(&self, session: SessionId) {
        self.lock_status().session_opened();
        self.0.metrics.session_opened();
        tracing::info!(event = "session_opened", session = session.0, "database session opened");
    }

    /// A database session ended, or could not be opened. An outage is one line, not one for each
    /// attempt: only the first failure and a failure of another kind are news.
    pub fn session_lost(&self, session: SessionId, fault: &Fault) {
        let news = self.lock_status().session_lost(fault);
        self.0.metrics.session_lost(fault);
        let session = session.0;
        // Silent brokers were told of where they were missed.
        if news && fault.kind != FaultKind::BrokersSilent {
            tracing::warn!(
                event = "session_lost",
                session,
                error = %fault,
                "database session lost; reconnecting"
            );
        } else {
            tracing::debug!(
                event = "session_lost",
                session,
                error = %fault,
                "still no database session"
            );
        }
    }

    /// A drain began: no record is polled any more.
    pub fn draining(&self) {
        self.lock_status().stage = Stage::Draining;
        tracing::info!(event = "draining", "draining: finishing the work in flight");
    }

    /// The drain ended: everything that can be finished is, and is durable.
    pub fn drained(&self) {
        tracing::info!(event = "drained", "drained");
    }

    /// Weight of the records in memory.
    pub fn in_flight_bytes(&self, bytes: usize) {
        self.0.metrics.in_flight_bytes(bytes);
    }

    /// How publishing dead letters goes; to be told again while it goes on, for readiness looks at
    /// how long it has been stuck.
    pub fn publishing(&self, letters: &Publishing) {
        let stuck = letters.stuck_since.map(|since| since.elapsed());
        self.lock_status().publishing(letters.published, stuck, letters.error.as_deref());
        self.0.metrics.publishing(letters.published, stuck);
    }

    /// No broker can be reached; what is in memory goes on to the database.
    pub fn kafka_unreachable(&self) {
        self.lock_status().kafka.reachable = false;
        self.0.metrics.kafka_reachable(false);
        tracing::warn!(event = "kafka_unreachable", "cannot reach any broker; will retry");
    }

    /// A broker answers again.
    pub fn kafka_reachable(&self) {
        self.lock_status().kafka.reachable = true;
        self.0.metrics.kafka_reachable(true);
        tracing::info!(event = "kafka_reachable", "a broker answers again");
    }

    /// These topics, and no others, cannot be read.
    pub fn topics_refused(&self, topics: &[(Arc<str>, Box<str>)]) {
        let now: BTreeMap<String, String> =
            topics.iter().map(|(topic, code)| (topic.to_string(), code.to_string())).collect();
        self.0.metrics.topics_refused(now.len());
        let before = std::mem::replace(&mut self.lock_status().kafka.refused, now.clone());
        for (topic, error) in now.iter().filter(|(topic, code)| before.get(*topic) != Some(code)) {
            self.0.metrics.kafka_error(error);
            tracing::error!(
                event = "topic_refused",
                topic,
                error,
                "cannot read the topic; reading resumes automatically once it exists and access is \
                 granted"
            );
        }
        for topic in before.keys().filter(|topic| !now.contains_key(*topic)) {
            tracing::info!(event = "topic_readable", topic, "the topic can be read again");
        }
    }

    /// An error of the Kafka client that does not mend itself unseen, by the name of its code: the
    /// client's own text stays out.
    pub fn kafka_trouble(&self, error: &str, fault: PollFault) {
        self.0.metrics.kafka_error(error);
        match fault {
            PollFault::Corrupt | PollFault::Operator | PollFault::Exit => {
                tracing::error!(event = "kafka_trouble", error, class = ?fault, "the Kafka client \
                                                                                 reported an error \
                                                                                 that an operator \
                                                                                 must fix");
            }
            PollFault::Notice
            | PollFault::Transient
            | PollFault::LostOwnership
            | PollFault::Reposition => {
                tracing::warn!(event = "kafka_trouble", error, class = ?fault, "the Kafka client \
                                                                                reported an error");
            }
        }
        self.lock_status().kafka.last_error = Some(error.to_owned());
    }

    /// Another process took this member's static name, or the client is otherwise spent.
    pub fn member_fenced(&self, error: &str) {
        self.0.metrics.kafka_error(error);
        tracing::error!(
            event = "member_fenced",
            error,
            "another process uses this member's kafka.instance_id, or the Kafka client can no \
             longer be used"
        );
    }

    /// A part that runs as long as the process has ended by itself.
    pub fn part_ended(&self, part: &'static str) {
        tracing::error!(event = "part_ended", part, "a part of pgsluice ended unexpectedly");
    }

    fn lock_status(&self) -> MutexGuard<'_, Status> {
        // Every change of the snapshot is complete in itself: a panic elsewhere spoils nothing.
        self.0.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
