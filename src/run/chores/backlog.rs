//! Shows how much waits for somebody: parked aggregates and unpublished letters.
//!
//! Asks the database at long intervals, with bounded work, and only while there is a session; where
//! asking fails it asks less and less often. Nothing depends on the answer.

use std::time::Duration;

use tokio::sync::watch;

use crate::postgres::Session;
use crate::relay::Desk;
use crate::store::backlog::{self, Waiting};
use crate::telemetry::Telemetry;

/// How old the numbers may be.
const INTERVAL: Duration = Duration::from_secs(10);

/// The longest wait after failures.
const LONGEST: Duration = Duration::from_secs(10 * 60);

/// Asks and shows.
pub(in crate::run) struct Counting {
    /// Where the session lies.
    pub(in crate::run) desk: watch::Receiver<Desk<Session>>,
    /// The sink's name.
    pub(in crate::run) sink: String,
    pub(in crate::run) telemetry: Telemetry,
    /// Letters have a topic to go to: otherwise all of them stay unpublished, as configured.
    pub(in crate::run) publishes: bool,
}

impl Counting {
    /// Ends when the desk's other end is dropped.
    pub(in crate::run) async fn run(mut self) {
        let mut shown = None;
        let mut wait = INTERVAL;
        loop {
            let session = self.desk.borrow_and_update().letters.clone();
            let Some(session) = session else {
                // A session that is not there is waited for, not asked.
                if self.desk.changed().await.is_err() {
                    return;
                }
                continue;
            };
            match backlog::count(&session, &self.sink, shown).await {
                Ok(found) => {
                    shown = Some(found);
                    wait = INTERVAL;
                    self.show(found);
                }
                Err(fault) => {
                    wait = LONGEST.min(wait * 2);
                    tracing::debug!(event = "waiting_uncounted", error = %fault, "what waits could not be counted");
                }
            }
            drop(session);
            tokio::time::sleep(wait).await;
            if self.desk.has_changed().is_err() {
                return;
            }
        }
    }

    fn show(&self, found: Waiting) {
        let unpublished = if self.publishes { found.unpublished } else { 0 };
        self.telemetry.metrics().waiting(found.parked, unpublished);
    }
}
