//! How the pipeline ends: drain, limits, farewell.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::exit::ExitReason;
use pgsluice_core::fault::{Fault, FaultKind};

use super::Pipeline;
use pgsluice_core::input::Input;
use pgsluice_core::source::{Command, PollEvent};

/// How long the last commit to Kafka and the consumer's farewell may take, each.
const FAREWELL: Duration = Duration::from_secs(5);

impl Pipeline {
    /// Ends when a start or a drain takes longer than it may.
    pub(super) fn watch_limits(&mut self) {
        let now = Instant::now();
        if self.first_session_by.is_some_and(|by| now >= by) {
            tracing::error!(
                event = "startup_timeout",
                "the database and the brokers did not both answer within postgres.startup_timeout"
            );
            self.end(ExitReason::DependencyUnavailable);
        }
        if self.drain_by.is_some_and(|by| now >= by) {
            let unfinished = self.state.unfinished();
            tracing::error!(
                event = "drain_expired",
                unfinished,
                "shutdown.drain_timeout passed with unfinished records; the next start reads them \
                 again"
            );
            self.end(ExitReason::Interrupted);
        }
    }

    /// Stops polling and lets the coordinator finish what it has.
    pub(super) fn drain(&mut self) {
        self.telemetry.draining();
        self.drain_by = Some(Instant::now() + self.around.config.shutdown.drain_timeout);
        self.first_session_by = None;
        self.source.send(Command::StopPolling);
        self.feed(Input::Drain);
    }

    /// Ends the loop after this turn; the first reason counts.
    pub(super) fn end(&mut self, reason: ExitReason) {
        self.exit.get_or_insert(reason);
    }

    /// Ends the loop because continuing would do harm.
    pub(super) fn stop(&mut self, fault: &Fault) {
        let reason = reason_to_stop(fault);
        if reason == ExitReason::Bug {
            tracing::error!(event = "inconsistent", error = %fault, "pgsluice's own state is wrong");
        } else {
            tracing::error!(event = "corruption", error = %fault, "the database reports damage");
        }
        self.end(reason);
    }

    /// Ends the loop because a part that it cannot do without has ended.
    pub(super) fn end_of(&mut self, part: &'static str) {
        self.telemetry.part_ended(part);
        self.end(ExitReason::Bug);
    }

    /// The last commit to Kafka, the farewell to the group, the end of the session.
    pub(super) async fn leave(mut self, reason: ExitReason) -> ExitReason {
        if reason == ExitReason::Fenced {
            // Closing a fenced consumer never ends: leave it to the end of the process.
            return reason;
        }
        let source = Arc::clone(&self.source);
        let flushed = tokio::task::spawn_blocking(move || source.flush(FAREWELL)).await;
        if !matches!(flushed, Ok(true)) {
            tracing::warn!(event = "mirror_late", "the last commit to Kafka was not confirmed");
        }
        self.source.send(Command::Close);
        let closed = async {
            while let Some(event) = self.events.recv().await {
                match event {
                    PollEvent::Closed => break,
                    PollEvent::Revoked { ticket, .. } => {
                        self.source.send(Command::Released { ticket, commits: Vec::new() });
                    }
                    _ => {}
                }
            }
        };
        if tokio::time::timeout(FAREWELL, closed).await.is_err() {
            tracing::warn!(event = "consumer_late", "the consumer did not leave the group in time");
        }
        if let Some(live) = self.live {
            live.session.close();
        }
        reason
    }
}

/// Why the process ends at [`Action::Stop`](super::input::Action::Stop).
fn reason_to_stop(fault: &Fault) -> ExitReason {
    match fault.kind {
        FaultKind::Bug(_) => ExitReason::Bug,
        _ => ExitReason::Corruption,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgsluice_core::fault::SqlState;

    #[test]
    fn a_bug_of_ours_and_damage_of_the_database_have_exit_codes_of_their_own() {
        let code = |kind| reason_to_stop(&Fault::new(kind)).code();
        assert_eq!(code(FaultKind::Bug("one verdict is missing")), 70);
        assert_eq!(code(FaultKind::Server(SqlState(*b"XX001"))), 5);
    }
}
