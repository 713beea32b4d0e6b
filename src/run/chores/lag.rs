//! Looks at the ends of the logs now and then, for the lag in metrics and `/status`.
//!
//! The calls block, so each is made on a thread of its own: neither the poll loop nor a drain waits
//! for them.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Chore;
use crate::telemetry::Telemetry;
use pgsluice_core::backoff::Backoff;
use pgsluice_core::fault::{Fault, FaultKind};
use pgsluice_core::source::Source;

/// How often to look whether partitions came, while there are none.
const IDLE: Duration = Duration::from_millis(500);

/// Asks and shows.
pub(in crate::run) struct Lag {
    source: Arc<dyn Source>,
    telemetry: Telemetry,
}

impl Lag {
    /// For the partitions that the telemetry knows to be held.
    pub(in crate::run) fn new(source: Arc<dyn Source>, telemetry: Telemetry) -> Self {
        Self { source, telemetry }
    }
}

impl Chore<()> for Lag {
    const NAME: &'static str = "lag";
    /// How old the ends may be.
    const INTERVAL: Duration = Duration::from_secs(5);
    /// What the brokers do not answer is missing, no failure: only a bug is one.
    const AFTER_FAILURE: Backoff =
        Backoff { initial: Duration::from_secs(10), max: Duration::from_secs(60) };

    async fn turn(&mut self, (): &()) -> Result<(), Fault> {
        let mut held = self.telemetry.partitions_held();
        while held.is_empty() {
            sleep(IDLE).await;
            held = self.telemetry.partitions_held();
        }
        let source = Arc::clone(&self.source);
        let ends = spawn_blocking(move || source.ends(&held)).await;
        let ends = ends.map_err(|_| Fault::new(FaultKind::Bug("asking for the ends of logs")))?;
        self.telemetry.log_ends(&ends);
        Ok(())
    }
}
