//! Shows how much waits for somebody: parked aggregates and unpublished letters.
//!
//! Asks the database at long intervals, with bounded work. Nothing depends on the answer.

use std::time::Duration;

use super::Chore;
use crate::postgres::Session;
use crate::store::backlog::{self, Waiting};
use crate::telemetry::Telemetry;
use pgsluice_core::backoff::Backoff;
use pgsluice_core::fault::Fault;

/// Counts and shows.
pub(in crate::run) struct Counting {
    sink: String,
    telemetry: Telemetry,
    /// Letters have a topic to go to: otherwise all of them stay unpublished, as configured.
    publishes: bool,
    /// What was shown last.
    shown: Option<Waiting>,
}

impl Counting {
    /// For the sink of that name. `publishes`: its letters have a topic to go to.
    pub(in crate::run) fn new(sink: String, publishes: bool, telemetry: Telemetry) -> Self {
        Self { sink, telemetry, publishes, shown: None }
    }
}

impl Chore<Session> for Counting {
    const NAME: &'static str = "counting";
    const INTERVAL: Duration = Duration::from_secs(10);
    const AFTER_FAILURE: Backoff =
        Backoff { initial: Duration::from_secs(20), max: Duration::from_secs(10 * 60) };

    async fn turn(&mut self, session: &Session) -> Result<(), Fault> {
        let found = backlog::count(session, &self.sink, self.shown).await?;
        self.shown = Some(found);
        let unpublished = if self.publishes { found.unpublished } else { 0 };
        self.telemetry.metrics().waiting(found.parked, unpublished);
        Ok(())
    }
}
