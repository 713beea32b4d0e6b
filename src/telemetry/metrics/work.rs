//! Metrics of the work itself: how often, how long, and what went wrong.
//!
//! What is counted for each transaction has its series made once, so that counting costs no lookup.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, Registry};

use pgsluice_core::input::TakeReply;
use pgsluice_core::verdict::{Disposition, Reason};

use super::MetricsError;
use super::definition::{
    BARRIER, FAST_LANE, FRESHNESS, LETTERS_WRITTEN, MIRROR, MIRROR_COMMITS, QUEUE, REBALANCES,
    SLOW_LANE, TAKES, TRANSACTIONS,
};
use super::register::{counters, histogram, histograms};

/// How Kafka changed the assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebalance {
    /// Partitions were given to this member; they may be none.
    Assigned,
    /// Partitions are taken away, with time to finish.
    Revoked,
    /// Partitions are gone.
    Lost,
}

/// What the slow lane does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlowWork {
    /// Looks at the ledger rows of refused groups.
    Read,
    /// Decides a group in a transaction of its own.
    Resolve,
}

/// Committed and failed transactions of one lane.
#[derive(Debug)]
struct Transactions {
    committed: IntCounter,
    failed: IntCounter,
}

impl Transactions {
    fn of(counters: &IntCounterVec, lane: &str) -> Self {
        let outcome = |outcome: &str| counters.with_label_values(&[lane, outcome]);
        Self { committed: outcome("committed"), failed: outcome("failed") }
    }

    fn count(&self, committed: bool) {
        if committed { self.committed.inc() } else { self.failed.inc() }
    }
}

/// Metrics of the work itself.
#[derive(Debug)]
pub struct WorkMetrics {
    fast: Transactions,
    slow: Transactions,
    queue: Histogram,
    fast_lane: Histogram,
    read: Histogram,
    resolve: Histogram,
    barrier: Histogram,
    mirror: Histogram,
    mirrored: IntCounter,
    not_mirrored: IntCounter,
    freshness: Histogram,
    takes: IntCounterVec,
    assigned: IntCounter,
    revoked: IntCounter,
    lost: IntCounter,
    letters_written: IntCounterVec,
}

impl WorkMetrics {
    pub(super) fn try_new(registry: &Registry) -> Result<Self, MetricsError> {
        let transactions = counters(registry, TRANSACTIONS)?;
        let slow_lane = histograms(registry, SLOW_LANE)?;
        let commits = counters(registry, MIRROR_COMMITS)?;
        let rebalances = counters(registry, REBALANCES)?;
        Ok(Self {
            fast: Transactions::of(&transactions, "fast"),
            slow: Transactions::of(&transactions, "slow"),
            queue: histogram(registry, QUEUE)?,
            fast_lane: histogram(registry, FAST_LANE)?,
            read: slow_lane.with_label_values(&["read"]),
            resolve: slow_lane.with_label_values(&["resolve"]),
            barrier: histogram(registry, BARRIER)?,
            mirror: histogram(registry, MIRROR)?,
            mirrored: commits.with_label_values(&["ok"]),
            not_mirrored: commits.with_label_values(&["failed"]),
            freshness: histogram(registry, FRESHNESS)?,
            takes: counters(registry, TAKES)?,
            assigned: rebalances.with_label_values(&["assigned"]),
            revoked: rebalances.with_label_values(&["revoked"]),
            lost: rebalances.with_label_values(&["lost"]),
            letters_written: counters(registry, LETTERS_WRITTEN)?,
        })
    }

    /// A group waited so long before it was sent to a fast lane.
    pub fn queued(&self, time: Duration) {
        self.queue.observe(time.as_secs_f64());
    }

    /// A transaction on a fast lane was answered.
    pub fn fast_lane(&self, time: Duration, committed: bool) {
        self.fast_lane.observe(time.as_secs_f64());
        self.fast.count(committed);
    }

    /// Work on the slow lane ended.
    pub fn slow_lane(&self, work: SlowWork, time: Duration, committed: bool) {
        match work {
            SlowWork::Read => self.read.observe(time.as_secs_f64()),
            SlowWork::Resolve => {
                self.resolve.observe(time.as_secs_f64());
                self.slow.count(committed);
            }
        }
    }

    /// The barrier was answered.
    pub fn barrier(&self, time: Duration) {
        self.barrier.observe(time.as_secs_f64());
    }

    /// A commit of offsets to Kafka was answered.
    pub fn mirrored(&self, time: Duration, done: bool) {
        self.mirror.observe(time.as_secs_f64());
        if done { self.mirrored.inc() } else { self.not_mirrored.inc() }
    }

    /// The outcome of a record became durable so long after its event.
    pub fn fresh(&self, age: Duration) {
        self.freshness.observe(age.as_secs_f64());
    }

    /// The database answered to an attempt to take a partition.
    pub fn take(&self, reply: &TakeReply) {
        let outcome = match reply {
            TakeReply::Claimed(_) => "claimed",
            TakeReply::Busy => "busy",
            TakeReply::Halted(..) => "halted",
        };
        self.takes.with_label_values(&[outcome]).inc();
    }

    /// Kafka changed the assignment.
    pub fn rebalance(&self, kind: Rebalance) {
        match kind {
            Rebalance::Assigned => self.assigned.inc(),
            Rebalance::Revoked => self.revoked.inc(),
            Rebalance::Lost => self.lost.inc(),
        }
    }

    /// A dead letter was written and committed. `route` is the name of its route, where one was
    /// found: there are as many values as routes.
    pub fn letter(&self, disposition: Disposition, reason: Reason, route: Option<&str>) {
        let labels = [disposition.as_str(), reason.as_str(), route.unwrap_or_default()];
        self.letters_written.with_label_values(&labels).inc();
    }
}
