//! Metrics of single partitions. Their series are removed when the partition is given up.

use std::time::Duration;

use prometheus::{IntCounterVec, IntGaugeVec, Registry};

use crate::telemetry::status::Lag;
use pgsluice_core::record::{NextOffset, TopicPartition};
use pgsluice_core::verdict::{Reason, Verdict};

use super::MetricsError;
use super::definition::{
    HALTS, LAG, LAG_STABLE, LOG_UNSTABLE, NEXT_OFFSET, OLDEST_UNFINISHED, PARTITION_HALTED,
    RECORDS, VERSION_GAPS,
};
use super::register::{counters, gauges, remove_series};

/// Metrics of single partitions.
#[derive(Debug)]
pub struct PartitionMetrics {
    records: IntCounterVec,
    version_gaps: IntCounterVec,
    next_offset: IntGaugeVec,
    lag: IntGaugeVec,
    lag_stable: IntGaugeVec,
    log_unstable: IntGaugeVec,
    oldest_unfinished: IntGaugeVec,
    halted: IntGaugeVec,
    halts: IntCounterVec,
}

impl PartitionMetrics {
    pub(super) fn try_new(registry: &Registry) -> Result<Self, MetricsError> {
        Ok(Self {
            records: counters(registry, RECORDS)?,
            version_gaps: counters(registry, VERSION_GAPS)?,
            next_offset: gauges(registry, NEXT_OFFSET)?,
            lag: gauges(registry, LAG)?,
            lag_stable: gauges(registry, LAG_STABLE)?,
            log_unstable: gauges(registry, LOG_UNSTABLE)?,
            oldest_unfinished: gauges(registry, OLDEST_UNFINISHED)?,
            halted: gauges(registry, PARTITION_HALTED)?,
            halts: counters(registry, HALTS)?,
        })
    }

    /// A partition was taken. Its counters begin at 0: a rise from nothing to the first dead letter
    /// would be no rise to Prometheus.
    pub fn taken(&self, partition: &TopicPartition, next: NextOffset) {
        for verdict in Verdict::ALL {
            self.finished(partition, verdict, 0);
        }
        self.next_offset(partition, next);
    }

    /// Records reached their outcome.
    pub fn finished(&self, partition: &TopicPartition, verdict: Verdict, count: u64) {
        let number = partition.partition.to_string();
        self.records
            .with_label_values(&[&partition.topic, &*number, verdict.as_str()])
            .inc_by(count);
    }

    /// A group was applied although versions were missing before one of its events.
    pub fn version_gap(&self, partition: &TopicPartition) {
        let number = partition.partition.to_string();
        self.version_gaps.with_label_values(&[&*partition.topic, &*number]).inc();
    }

    /// Progress became durable.
    pub fn next_offset(&self, partition: &TopicPartition, next: NextOffset) {
        set(&self.next_offset, partition, next.0);
    }

    /// How far durable progress is behind.
    pub fn lag(&self, partition: &TopicPartition, lag: Lag) {
        set(&self.lag, partition, lag.end);
        set(&self.lag_stable, partition, lag.stable);
        set(&self.log_unstable, partition, lag.unstable);
    }

    /// For how long the oldest record without a durable outcome has been known.
    pub fn oldest_unfinished(&self, partition: &TopicPartition, age: Duration) {
        set(&self.oldest_unfinished, partition, i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
    }

    /// A partition stands still.
    pub fn halted(&self, partition: &TopicPartition, reason: Reason) {
        self.halt_ended(partition);
        let number = partition.partition.to_string();
        let labels = [&*partition.topic, &*number, reason.as_str()];
        self.halted.with_label_values(&labels).set(1);
        self.halts.with_label_values(&[reason.as_str()]).inc();
    }

    /// A halted partition goes on.
    pub fn halt_ended(&self, partition: &TopicPartition) {
        remove_series(&self.halted, partition);
    }

    /// A partition was given up: its series go.
    pub fn given_up(&self, partition: &TopicPartition) {
        remove_series(&self.records, partition);
        remove_series(&self.version_gaps, partition);
        for gauges in [
            &self.next_offset,
            &self.lag,
            &self.lag_stable,
            &self.log_unstable,
            &self.oldest_unfinished,
            &self.halted,
        ] {
            remove_series(gauges, partition);
        }
    }
}

/// Sets a gauge whose labels are the partition's.
fn set(gauges: &IntGaugeVec, partition: &TopicPartition, value: i64) {
    let number = partition.partition.to_string();
    gauges.with_label_values(&[&*partition.topic, &*number]).set(value);
}
