//! What the run loop itself measures. Nothing is decided by it.

use std::time::Duration;

use tokio::time::Instant;

use super::Pipeline;
use pgsluice_core::input::Input;

/// How often gauges are set that only a look at all partitions can tell.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

impl Pipeline {
    /// Sets the gauges, some of them once a second only.
    pub(super) fn measure(&mut self) {
        self.telemetry.in_flight_bytes(self.source.in_flight());
        if let Some(publishing) = &self.publishing {
            self.telemetry.publishing(&publishing.borrow());
        }
        let now = Instant::now();
        if now < self.measure_due {
            return;
        }
        self.measure_due = now + MEASURE_INTERVAL;
        self.telemetry.oldest_unfinished();
        let open = self.live.as_ref().map(|live| live.session.connections());
        self.telemetry.metrics().connections(open.unwrap_or_default());
    }

    /// A piece of work brought something for the coordinator.
    pub(super) fn note(&self, input: &Input) {
        if let Input::Taken(_, replies) = input {
            for (_, _, reply) in replies {
                self.telemetry.metrics().work.take(reply);
            }
        }
    }
}
