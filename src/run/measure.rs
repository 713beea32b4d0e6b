//! What the run loop itself measures. Nothing is decided by it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use pgsluice_core::group::Group;

use super::Pipeline;
use pgsluice_core::input::{Input, Report};

/// How often gauges are set that only a look at all partitions can tell.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

impl Pipeline {
    /// Sets the gauges, some of them once a second only.
    pub(super) fn measure(&mut self) {
        self.telemetry.in_flight_bytes(self.budget.in_flight());
        if let Some(publishing) = &self.publishing {
            self.telemetry.publishing(&publishing.borrow());
        }
        let now = Instant::now();
        if now < self.measure_due {
            return;
        }
        self.measure_due = now + MEASURE_INTERVAL;
        let metrics = self.telemetry.metrics();
        for (partition, read) in self.passage.oldest() {
            let age = read.map_or(Duration::ZERO, |read| read.elapsed());
            metrics.partition.oldest_unfinished(partition, age);
        }
        let open = self.live.as_ref().map(|live| live.session.connections());
        metrics.connections(open.unwrap_or_default());
    }

    /// Groups are about to be sent to a fast lane together.
    pub(super) fn sent(&self, groups: &[Group]) {
        if let Some(read) = groups.first().and_then(|group| self.passage.read_at(group)) {
            self.telemetry.metrics().work.queued(read.elapsed());
        }
    }

    /// A piece of work brought something for the coordinator.
    pub(super) fn note(&self, input: &Input) {
        if let Input::Taken(_, replies) = input {
            for (_, _, reply) in replies {
                self.telemetry.metrics().work.take(reply);
            }
        }
    }

    /// The coordinator reported something that records pass through.
    pub(super) fn follow(&mut self, report: &Report) {
        match report {
            Report::Taken(partition, claim) => self.passage.taken(partition, claim.next),
            Report::GivenUp(partition) => self.passage.forget(partition),
            Report::Advanced { partition, next } => {
                let passed = self.passage.durable(partition, *next);
                if passed.is_empty() {
                    return;
                }
                let now = Timestamp::now();
                for happened in passed {
                    // A producer's clock may be ahead of ours: such an event is as fresh as can be.
                    let age = Duration::try_from(now.duration_since(happened)).unwrap_or_default();
                    self.telemetry.metrics().work.fresh(age);
                }
            }
            _ => {}
        }
    }
}
