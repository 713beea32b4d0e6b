//! Every metric: name, help and labels stand in this file and nowhere else.
//!
//! Label values come from closed sets, or from partitions that are held; the series of a
//! partition are removed when it is given up (INV-11).

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::fault::{Fault, FaultKind};
use crate::record::{NextOffset, TopicPartition};
use crate::verdict::{Reason, Verdict};

use super::lossy;

/// A metric as documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// Full name.
    pub name: &'static str,
    /// What it counts or shows.
    pub help: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
}

const fn define(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Definition {
    Definition { name, help, labels }
}

const PARTITION: &[&str] = &["topic", "partition"];

const BUILD: Definition =
    define("pgsluice_build_info", &["version"], "Always 1; the label tells the version");
const RECORDS: Definition = define(
    "pgsluice_records_total",
    &["topic", "partition", "verdict"],
    "Records that reached their outcome",
);
const VERSION_GAPS: Definition = define(
    "pgsluice_version_gaps_total",
    PARTITION,
    "Groups that were applied although versions were missing before them",
);
const NEXT_OFFSET: Definition = define(
    "pgsluice_next_offset",
    PARTITION,
    "Durable progress: every record below has its outcome",
);
const PARTITION_HALTED: Definition = define(
    "pgsluice_partition_halted",
    &["topic", "partition", "reason"],
    "1 while a partition stands still and an operator must act",
);
const HALTS: Definition =
    define("pgsluice_halts_total", &["reason"], "Times that a partition was halted");
const RETRIES: Definition = define(
    "pgsluice_retries_total",
    &["cause"],
    "Groups that failed and are tried again, by sqlstate or by the word for another cause",
);
const PARTITIONS: Definition =
    define("pgsluice_partitions", &[], "Partitions assigned to this member");
const FENCED: Definition = define(
    "pgsluice_partitions_fenced_total",
    &[],
    "Times that the database knew a newer owner of a partition",
);
const SESSION_OPEN: Definition =
    define("pgsluice_session_open", &[], "1 while a database session is open");
const SESSIONS_OPENED: Definition =
    define("pgsluice_sessions_opened_total", &[], "Database sessions opened");
const SESSIONS_LOST: Definition = define(
    "pgsluice_sessions_lost_total",
    &["cause"],
    "Database sessions that ended or could not be opened, by sqlstate or by the word for another \
     cause",
);
const IN_FLIGHT_BYTES: Definition = define(
    "pgsluice_in_flight_bytes",
    &[],
    "Weight of the records in memory, bounded by limits.in_flight_bytes",
);
const LETTERS_PUBLISHED: Definition =
    define("pgsluice_letters_published_total", &[], "Dead letters published to their topic");
const LETTERS_STUCK: Definition = define(
    "pgsluice_letters_stuck_seconds",
    &[],
    "How long dead letters have been waiting for their topic, 0 while publishing works",
);
const LOG_LINES_DROPPED: Definition = define(
    "pgsluice_log_lines_dropped_total",
    &[],
    "Log lines dropped because stderr was blocked or closed",
);
const KAFKA_REACHABLE: Definition =
    define("pgsluice_kafka_reachable", &[], "0 while no broker can be reached");
const KAFKA_ERRORS: Definition = define(
    "pgsluice_kafka_errors_total",
    &["code"],
    "Errors of the Kafka client that did not mend themselves unseen, at most one a minute for each",
);

/// All metrics of pgsluice, beside those of the process.
pub const DEFINITIONS: [Definition; 18] = [
    BUILD,
    RECORDS,
    VERSION_GAPS,
    NEXT_OFFSET,
    PARTITION_HALTED,
    HALTS,
    RETRIES,
    PARTITIONS,
    FENCED,
    SESSION_OPEN,
    SESSIONS_OPENED,
    SESSIONS_LOST,
    IN_FLIGHT_BYTES,
    LETTERS_PUBLISHED,
    LETTERS_STUCK,
    KAFKA_REACHABLE,
    KAFKA_ERRORS,
    LOG_LINES_DROPPED,
];

/// How many different causes become labels; users may raise any code, so the rest is `other`.
const MAX_CAUSES: usize = 64;

/// The metrics cannot be registered or written: a bug.
#[derive(Debug, thiserror::Error)]
#[error("metrics")]
pub struct MetricsError(#[from] prometheus::Error);

/// The metrics, in a registry of their own.
pub struct Metrics {
    registry: Registry,
    records: IntCounterVec,
    version_gaps: IntCounterVec,
    next_offset: IntGaugeVec,
    partition_halted: IntGaugeVec,
    halts: IntCounterVec,
    retries: IntCounterVec,
    partitions: IntGauge,
    fenced: IntCounter,
    session_open: IntGauge,
    sessions_opened: IntCounter,
    sessions_lost: IntCounterVec,
    in_flight_bytes: IntGauge,
    letters_published: IntCounter,
    letters_stuck: IntGauge,
    kafka_reachable: IntGauge,
    kafka_errors: IntCounterVec,
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
            records: counters(&registry, RECORDS)?,
            version_gaps: counters(&registry, VERSION_GAPS)?,
            next_offset: gauges(&registry, NEXT_OFFSET)?,
            partition_halted: gauges(&registry, PARTITION_HALTED)?,
            halts: counters(&registry, HALTS)?,
            retries: counters(&registry, RETRIES)?,
            partitions: gauge(&registry, PARTITIONS)?,
            fenced: counter(&registry, FENCED)?,
            session_open: gauge(&registry, SESSION_OPEN)?,
            sessions_opened: counter(&registry, SESSIONS_OPENED)?,
            sessions_lost: counters(&registry, SESSIONS_LOST)?,
            in_flight_bytes: gauge(&registry, IN_FLIGHT_BYTES)?,
            letters_published: counter(&registry, LETTERS_PUBLISHED)?,
            letters_stuck: gauge(&registry, LETTERS_STUCK)?,
            kafka_reachable,
            kafka_errors: counters(&registry, KAFKA_ERRORS)?,
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

    /// Records of a partition reached their outcome.
    pub fn finished(&self, partition: &TopicPartition, verdict: Verdict, count: u64) {
        let number = partition.partition.to_string();
        self.records
            .with_label_values(&[&partition.topic, &*number, verdict.as_str()])
            .inc_by(count);
    }

    /// A group was applied although versions were missing before it.
    pub fn version_gap(&self, partition: &TopicPartition) {
        let number = partition.partition.to_string();
        self.version_gaps.with_label_values(&[&*partition.topic, &*number]).inc();
    }

    /// Progress became durable.
    pub fn next_offset(&self, partition: &TopicPartition, next: NextOffset) {
        let number = partition.partition.to_string();
        self.next_offset.with_label_values(&[&*partition.topic, &*number]).set(next.0);
    }

    /// A partition stands still.
    pub fn halted(&self, partition: &TopicPartition, reason: Reason) {
        self.halt_ended(partition);
        let number = partition.partition.to_string();
        let labels = [&*partition.topic, &*number, reason.as_str()];
        self.partition_halted.with_label_values(&labels).set(1);
        self.halts.with_label_values(&[reason.as_str()]).inc();
    }

    /// A halted partition goes on.
    pub fn halt_ended(&self, partition: &TopicPartition) {
        remove_series(&self.partition_halted, partition, |labels| {
            self.partition_halted.remove_label_values(labels)
        });
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

    /// A partition was given up: its series go.
    pub fn given_up(&self, partition: &TopicPartition) {
        remove_series(&self.records, partition, |labels| self.records.remove_label_values(labels));
        remove_series(&self.version_gaps, partition, |labels| {
            self.version_gaps.remove_label_values(labels)
        });
        remove_series(&self.next_offset, partition, |labels| {
            self.next_offset.remove_label_values(labels)
        });
        self.halt_ended(partition);
    }

    /// A database session is open.
    pub fn session_opened(&self) {
        self.session_open.set(1);
        self.sessions_opened.inc();
    }

    /// A database session ended or could not be opened.
    pub fn session_lost(&self, fault: &Fault) {
        self.session_open.set(0);
        self.sessions_lost.with_label_values(&[&*self.cause(fault)]).inc();
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

    /// Whether a broker can be reached.
    pub fn kafka_reachable(&self, reachable: bool) {
        self.kafka_reachable.set(i64::from(reachable));
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
            FaultKind::PlanChanged => "plan_changed".to_owned(),
            FaultKind::LockNotSeen => "lock_not_seen".to_owned(),
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

/// Removes every series of a metric whose `topic` and `partition` labels are the partition's.
fn remove_series(
    metric: &impl Collector,
    partition: &TopicPartition,
    remove: impl Fn(&[&str]) -> prometheus::Result<()>,
) {
    let number = partition.partition.to_string();
    let label_order: Vec<&str> = metric
        .desc()
        .first()
        .map(|desc| desc.variable_labels.iter().map(String::as_str).collect())
        .unwrap_or_default();
    for family in metric.collect() {
        for series in family.get_metric() {
            let value = |name: &str| {
                series.get_label().iter().find(|pair| pair.name() == name).map_or("", |p| p.value())
            };
            if value("topic") != &*partition.topic || value("partition") != number {
                continue;
            }
            let labels: Vec<&str> = label_order.iter().map(|name| value(name)).collect();
            // The series was listed a moment ago; only another removal could have been faster.
            drop(remove(&labels));
        }
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, MetricsError> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counter(registry: &Registry, metric: Definition) -> Result<IntCounter, MetricsError> {
    add(registry, IntCounter::new(metric.name, metric.help)?)
}

fn gauge(registry: &Registry, metric: Definition) -> Result<IntGauge, MetricsError> {
    add(registry, IntGauge::new(metric.name, metric.help)?)
}

fn counters(registry: &Registry, metric: Definition) -> Result<IntCounterVec, MetricsError> {
    add(registry, IntCounterVec::new(Opts::new(metric.name, metric.help), metric.labels)?)
}

fn gauges(registry: &Registry, metric: Definition) -> Result<IntGaugeVec, MetricsError> {
    add(registry, IntGaugeVec::new(Opts::new(metric.name, metric.help), metric.labels)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::SqlState;

    fn partition(number: i32) -> TopicPartition {
        TopicPartition { topic: "orders".into(), partition: number }
    }

    /// `docs/metrics.md` as it has to be.
    fn manual() -> String {
        let mut text =
            "# Metrics\n\nServed at `/metrics` on the admin port, beside Prometheus' own \
            `process_*` metrics. The series of a partition are removed when it is given up.\n\n\
            | name | labels | meaning |\n| --- | --- | --- |\n"
                .to_owned();
        for metric in DEFINITIONS {
            let Definition { name, help, labels } = metric;
            text += &format!("| `{name}` | {} | {help} |\n", labels.join(", "));
        }
        text
    }

    #[test]
    fn the_manual_names_every_metric() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        if std::env::var_os("PGSLUICE_WRITE_DOCS").is_some() {
            std::fs::write(path, manual()).expect("docs/metrics.md");
        }
        let written = std::fs::read_to_string(path).expect("docs/metrics.md");
        assert_eq!(written, manual(), "run this test with PGSLUICE_WRITE_DOCS=1 and commit");
    }

    #[test]
    fn every_name_carries_our_prefix_and_the_suffix_of_its_kind() {
        for metric in DEFINITIONS {
            assert!(metric.name.starts_with("pgsluice_"), "{}", metric.name);
            let suffixes = metric.name.matches("_total").count();
            assert!(suffixes == 0 || metric.name.ends_with("_total"), "{}", metric.name);
            assert!(!metric.help.ends_with('.'), "{}", metric.name);
        }
    }

    #[test]
    fn a_partition_that_is_given_up_leaves_no_series() {
        let metrics = Metrics::try_new().expect("metrics");
        for number in [1, 11] {
            metrics.finished(&partition(number), Verdict::Applied, 3);
            metrics.finished(&partition(number), Verdict::Stale, 1);
            metrics.version_gap(&partition(number));
            metrics.next_offset(&partition(number), NextOffset(7));
            metrics.halted(&partition(number), Reason::LogChanged);
        }
        metrics.given_up(&partition(1));
        let text = metrics.encode().expect("text");
        assert!(!text.contains("partition=\"1\""), "{text}");
        assert_eq!(text.matches("partition=\"11\"").count(), 5, "{text}");
    }

    #[test]
    fn a_partition_is_halted_for_one_reason_at_a_time() {
        let metrics = Metrics::try_new().expect("metrics");
        metrics.halted(&partition(0), Reason::SchemaMismatch);
        metrics.halted(&partition(0), Reason::PermissionDenied);
        let text = metrics.encode().expect("text");
        assert_eq!(text.matches("pgsluice_partition_halted{").count(), 1, "{text}");
        assert!(text.contains("reason=\"permission_denied\""));
    }

    #[test]
    fn codes_raised_by_users_cannot_make_series_without_bound() {
        let metrics = Metrics::try_new().expect("metrics");
        for number in 0..200 {
            let code = SqlState::parse(&format!("U{number:04}")).expect("code");
            metrics.retry(&Fault::new(FaultKind::Server(code)));
        }
        let text = metrics.encode().expect("text");
        assert_eq!(text.matches("pgsluice_retries_total{").count(), MAX_CAUSES + 1);
        assert!(text.contains("pgsluice_retries_total{cause=\"other\"} 136"), "{text}");
    }
}
