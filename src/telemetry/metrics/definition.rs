//! Every metric: name, kind, labels and help stand in this file and nowhere else.

/// What kind of metric it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Counts up from the start of the process.
    Counter,
    /// Shows how it is now.
    Gauge,
    /// Distribution over buckets with these upper bounds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// Prometheus' word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// A metric as documented.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Definition {
    /// Full name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it counts or shows.
    pub help: &'static str,
}

/// Declares the constants and [`DEFINITIONS`], so that neither can lack a metric of the other.
macro_rules! metrics {
    ($($constant:ident: $kind:ident $(($buckets:expr))? $name:literal, $labels:expr, $help:expr;)*) => {
        $(pub(super) const $constant: Definition = Definition {
            name: $name,
            kind: Kind::$kind $(($buckets))?,
            labels: $labels,
            help: $help,
        };)*

        /// All metrics of pgsluice, beside those of the process.
        pub const DEFINITIONS: &[Definition] = &[$($constant),*];
    };
}

/// Seconds of work that is done in milliseconds when all is well.
const WORK: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Seconds between an event and its effect: from at once to a day.
const DELAY: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
    14400.0, 86400.0,
];

const NONE: &[&str] = &[];
const PARTITION: &[&str] = &["topic", "partition"];

metrics! {
    BUILD: Gauge "pgsluice_build_info", &["version"],
        "Always 1; the label has the version";

    // Records.
    RECORDS: Counter "pgsluice_records_total", &["topic", "partition", "verdict"],
        "Records that reached their outcome";
    VERSION_GAPS: Counter "pgsluice_version_gaps_total", PARTITION,
        "Groups that were applied although versions were missing before one of their events";
    FRESHNESS: Histogram(DELAY) "pgsluice_freshness_seconds", NONE,
        "Time from an event (its own time, or else the record's timestamp) to its durable outcome; \
         sampled: the last record of each partition in each poll";

    // Partitions.
    PARTITIONS: Gauge "pgsluice_partitions", NONE,
        "Partitions assigned to this member";
    NEXT_OFFSET: Gauge "pgsluice_next_offset", PARTITION,
        "Durable progress: every record below it has its outcome";
    LAG: Gauge "pgsluice_lag", PARTITION,
        "Offsets from durable progress to the end of the log, which is up to 5 s old";
    LAG_STABLE: Gauge "pgsluice_lag_stable", PARTITION,
        "Offsets from durable progress to the last stable offset: what can be read and is not \
         durable; the last stable offset is up to 5 s old";
    LOG_UNSTABLE: Gauge "pgsluice_log_unstable", PARTITION,
        "Offsets from the last stable offset to the end of the log: held back by producers' open \
         transactions";
    OLDEST_UNFINISHED: Gauge "pgsluice_oldest_unfinished_seconds", PARTITION,
        "Time since this process first read the oldest record whose outcome is not durable; 0 if \
         there is none";
    PARTITION_HALTED: Gauge "pgsluice_partition_halted", &["topic", "partition", "reason"],
        "1 while a partition is halted and an operator must act";
    HALTS: Counter "pgsluice_halts_total", &["reason"],
        "Number of times that a partition was halted";
    TAKES: Counter "pgsluice_takes_total", &["outcome"],
        "Attempts to take a partition in the database: claimed, busy (retried) or halted";
    REBALANCES: Counter "pgsluice_rebalances_total", &["kind"],
        "Rebalances as reported by Kafka: assigned, revoked, or lost (ownership was already gone)";
    FENCED: Counter "pgsluice_partitions_fenced_total", NONE,
        "Number of times that the database knew a newer owner of a partition";

    // Work in flight.
    IN_FLIGHT_BYTES: Gauge "pgsluice_in_flight_bytes", NONE,
        "Weight of the records in memory, bounded by limits.in_flight_bytes";
    QUEUE: Histogram(WORK) "pgsluice_queue_seconds", NONE,
        "From the poll that read a group's first record to sending the group to a fast lane; one \
         observation per transaction";
    FAST_LANE: Histogram(WORK) "pgsluice_fast_lane_seconds", NONE,
        "Time from sending a transaction on a fast lane to its answer";
    SLOW_LANE: Histogram(WORK) "pgsluice_slow_lane_seconds", &["work"],
        "Time of work on the slow lane, including the wait for a connection: read (reading the \
         rows of refused groups) or resolve (deciding a group in its own transaction)";
    BARRIER: Histogram(WORK) "pgsluice_barrier_seconds", NONE,
        "Time of the synchronous write that makes commits and progress durable";
    MIRROR: Histogram(WORK) "pgsluice_mirror_seconds", NONE,
        "Time to commit offsets to Kafka";
    MIRROR_COMMITS: Counter "pgsluice_mirror_commits_total", &["outcome"],
        "Commits of offsets to Kafka: ok or failed; commits during a rebalance are not counted";
    TRANSACTIONS: Counter "pgsluice_transactions_total", &["lane", "outcome"],
        "Transactions with the groups' own work, by lane (fast or slow): committed (including \
         those that wrote nothing) or failed";

    // Faults.
    FAULTS: Counter "pgsluice_faults_total", &["decision", "cause"],
        "Failed attempts by the decision (retry, isolate, halt, wait_for_database, stop) and by \
         SQLSTATE or another cause";
    RETRIES: Counter "pgsluice_retries_total", &["cause"],
        "Groups that failed and are retried, by SQLSTATE or another cause";
    SESSION_OPEN: Gauge "pgsluice_session_open", NONE,
        "1 while a database session is open";
    SESSIONS_OPENED: Counter "pgsluice_sessions_opened_total", NONE,
        "Database sessions opened";
    SESSIONS_LOST: Counter "pgsluice_sessions_lost_total", &["cause"],
        "Database sessions that ended or could not be opened, by SQLSTATE or another cause";
    CONNECTIONS: Gauge "pgsluice_connections_open", &["role"],
        "Open connections to the database: lead, lane or slow";

    // Dead letters.
    LETTERS_WRITTEN: Counter "pgsluice_letters_written_total", &["disposition", "reason", "route"],
        "Rows that this process wrote to dead_letter_t, poison or parked, by reason and by the \
         name of the route, which is empty if none was found";
    LETTERS_PUBLISHED: Counter "pgsluice_letters_published_total", NONE,
        "Dead letters published to their topic";
    LETTERS_STUCK: Gauge "pgsluice_letters_stuck_seconds", NONE,
        "How long dead letters have been waiting to be published to their topic; 0 while \
         publishing works";

    LETTERS_UNPUBLISHED: Gauge "pgsluice_letters_unpublished", NONE,
        "Rows of dead_letter_t that wait to be published, counted up to 10000 for the whole sink \
         every 10 s (every member shows the same number: take the maximum); 0 if no topic is \
         configured";
    AGGREGATES_PARKED: Gauge "pgsluice_aggregates_parked", NONE,
        "Aggregates whose events are parked, counted in aggregate_t in the same way";

    // Kafka and the process.
    KAFKA_REACHABLE: Gauge "pgsluice_kafka_reachable", NONE,
        "0 while no broker can be reached";
    KAFKA_ERRORS: Counter "pgsluice_kafka_errors_total", &["code"],
        "Errors of the Kafka client from which it did not recover silently; each counted at most \
         once per minute";
    TOPICS_REFUSED: Gauge "pgsluice_topics_refused", NONE,
        "Topics that are missing or that may not be read; /status names them";
    LOG_LINES_DROPPED: Counter "pgsluice_log_lines_dropped_total", NONE,
        "Log lines dropped because stderr was blocked or closed";
}
