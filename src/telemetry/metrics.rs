//! The metrics, in a registry of their own. What there is stands in [`definition`].
//!
//! Label values come from closed sets, or from partitions that are held; the series of a
//! partition are removed when it is given up (INV-11).

mod definition;
mod partition;
mod register;
#[cfg(test)]
mod tests;
mod work;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};

use pgsluice_core::fault::{Decision, Fault, FaultKind};

use super::lossy;

use self::definition::{
    AGGREGATES_PARKED, BUILD, CONNECTIONS, FAULTS, FENCED, IN_FLIGHT_BYTES, KAFKA_ERRORS,
    KAFKA_REACHABLE, LETTERS_PUBLISHED, LETTERS_STUCK, LETTERS_UNPUBLISHED, LOG_LINES_DROPPED,
    PARTITIONS, RETRIES, SESSION_OPEN, SESSIONS_LOST, SESSIONS_OPENED, TOPICS_REFUSED,
};
pub use self::definition::{DEFINITIONS, Definition, Kind};
pub use self::partition::PartitionMetrics;
use self::register::{counter, counters, gauge, gauges};
pub use self::work::{Rebalance, SlowWork, WorkMetrics};

/// How many different causes become labels; users may raise any code, so the rest is `other`.
const MAX_CAUSES: usize = 64;

/// The metrics cannot be registered or written: a bug.
#[derive(Debug, thiserror::Error)]
#[error("metrics")]
pub struct MetricsError(#[from] prometheus::Error);

/// How many connections a session has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Connections {
    /// The lead.
    pub lead: usize,
    /// The fast lanes.
    pub lanes: usize,
    /// The slow lane; its pool opens them when they are first needed.
    pub slow: usize,
}

/// The metrics, in a registry of their own.
pub struct Metrics {
    /// Those of single partitions.
    pub partition: PartitionMetrics,
    /// Those of the work itself.
    pub work: WorkMetrics,
    registry: Registry,
    faults: IntCounterVec,
    retries: IntCounterVec,
    partitions: IntGauge,
    fenced: IntCounter,
    session_open: IntGauge,
    sessions_opened: IntCounter,
    sessions_lost: IntCounterVec,
    connections: IntGaugeVec,
    in_flight_bytes: IntGauge,
    letters_published: IntCounter,
    letters_stuck: IntGauge,
    letters_unpublished: IntGauge,
    aggregates_parked: IntGauge,
    kafka_reachable: IntGauge,
    kafka_errors: IntCounterVec,
    topics_refused: IntGauge,
    log_lines_dropped: IntCounter,
    causes: Mutex<BTreeSet<String>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Registers every metric, and those of the process.
    ///
    /// # Errors
    /// Two metrics have one name.
    pub fn try_new() -> Result<Self, MetricsError> {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(ProcessCollector::for_self()))?;
        gauges(&registry, BUILD)?.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let kafka_reachable = gauge(&registry, KAFKA_REACHABLE)?;
        kafka_reachable.set(1);
        Ok(Self {
            partition: PartitionMetrics::try_new(&registry)?,
            work: WorkMetrics::try_new(&registry)?,
            faults: counters(&registry, FAULTS)?,
            retries: counters(&registry, RETRIES)?,
            partitions: gauge(&registry, PARTITIONS)?,
            fenced: counter(&registry, FENCED)?,
            session_open: gauge(&registry, SESSION_OPEN)?,
            sessions_opened: counter(&registry, SESSIONS_OPENED)?,
            sessions_lost: counters(&registry, SESSIONS_LOST)?,
            connections: gauges(&registry, CONNECTIONS)?,
            in_flight_bytes: gauge(&registry, IN_FLIGHT_BYTES)?,
            letters_published: counter(&registry, LETTERS_PUBLISHED)?,
            letters_stuck: gauge(&registry, LETTERS_STUCK)?,
            letters_unpublished: gauge(&registry, LETTERS_UNPUBLISHED)?,
            aggregates_parked: gauge(&registry, AGGREGATES_PARKED)?,
            kafka_reachable,
            kafka_errors: counters(&registry, KAFKA_ERRORS)?,
            topics_refused: gauge(&registry, TOPICS_REFUSED)?,
            log_lines_dropped: counter(&registry, LOG_LINES_DROPPED)?,
            causes: Mutex::default(),
            registry,
        })
    }

    /// All series in Prometheus' text format.
    ///
    /// # Errors
    /// A series cannot be written, which is a bug.
    pub fn encode(&self) -> Result<String, MetricsError> {
        // Counted where nobody can be told of it: the line that would tell is dropped, too.
        let new = lossy::dropped().saturating_sub(self.log_lines_dropped.get());
        self.log_lines_dropped.inc_by(new);
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }

    /// An attempt failed, and this was decided.
    pub fn fault(&self, decision: Decision, fault: &Fault) {
        let decision = match decision {
            Decision::RetryAfter => "retry",
            Decision::WaitForDatabase => "wait_for_database",
            Decision::Isolate(_) => "isolate",
            Decision::Halt(_) => "halt",
            Decision::Stop => "stop",
        };
        self.faults.with_label_values(&[decision, &*self.cause(fault)]).inc();
    }

    /// A group will be tried again.
    pub fn retry(&self, fault: &Fault) {
        self.retries.with_label_values(&[&*self.cause(fault)]).inc();
    }

    /// So many partitions are assigned to this member.
    pub fn partitions_held(&self, count: usize) {
        self.partitions.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The database knows a newer owner of a partition.
    pub fn fenced(&self) {
        self.fenced.inc();
    }

    /// A database session is open.
    pub fn session_opened(&self) {
        self.session_open.set(1);
        self.sessions_opened.inc();
    }

    /// A database session ended or could not be opened. Whatever said so, this is what follows.
    pub fn session_lost(&self, fault: &Fault) {
        self.session_open.set(0);
        self.sessions_lost.with_label_values(&[&*self.cause(fault)]).inc();
        self.fault(Decision::WaitForDatabase, fault);
    }

    /// Connections to the database now.
    pub fn connections(&self, open: Connections) {
        for (role, count) in [("lead", open.lead), ("lane", open.lanes), ("slow", open.slow)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.connections.with_label_values(&[role]).set(count);
        }
    }

    /// Weight of the records in memory.
    pub fn in_flight_bytes(&self, bytes: usize) {
        self.in_flight_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// So many letters were published by this process, and how long the others are stuck.
    pub fn publishing(&self, published: u64, stuck: Option<Duration>) {
        let new = published.saturating_sub(self.letters_published.get());
        self.letters_published.inc_by(new);
        let seconds = stuck.map_or(0, |stuck| stuck.as_secs());
        self.letters_stuck.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// What waits for somebody in the tables.
    pub fn waiting(&self, parked: i64, unpublished: i64) {
        self.aggregates_parked.set(parked);
        self.letters_unpublished.set(unpublished);
    }

    /// Whether a broker can be reached.
    pub fn kafka_reachable(&self, reachable: bool) {
        self.kafka_reachable.set(i64::from(reachable));
    }

    /// How many topics cannot be read.
    pub fn topics_refused(&self, count: usize) {
        self.topics_refused.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The Kafka client reported an error; `code` is its name in the client's closed list.
    pub fn kafka_error(&self, code: &str) {
        self.kafka_errors.with_label_values(&[code]).inc();
    }

    /// The label for a fault: a sqlstate or a word; `other` once there are too many.
    fn cause(&self, fault: &Fault) -> String {
        let cause = match fault.kind {
            FaultKind::Server(code) => code.to_string(),
            FaultKind::Connection => "connection".to_owned(),
            FaultKind::Deadline => "deadline".to_owned(),
            FaultKind::DriverType => "driver_type".to_owned(),
            FaultKind::Encode => "encode".to_owned(),
            FaultKind::Route => "route".to_owned(),
            FaultKind::Brake => "brake".to_owned(),
            FaultKind::PlanChanged => "plan_changed".to_owned(),
            FaultKind::LockNotSeen => "lock_not_seen".to_owned(),
            FaultKind::BrokersSilent => "brokers_silent".to_owned(),
            FaultKind::Tls(_) => "tls".to_owned(),
            FaultKind::Bug(_) => "bug".to_owned(),
        };
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        if causes.contains(&cause) {
            return cause;
        }
        if causes.len() >= MAX_CAUSES {
            return "other".to_owned();
        }
        causes.insert(cause.clone());
        cause
    }
}
