//! Turns what the coordinator reports into a log line, metrics and the status.

use std::sync::PoisonError;
use std::time::Instant;

use pgsluice_core::fault::{Decision, Fault};
use pgsluice_core::input::{Claim, Report};
use pgsluice_core::record::{NextOffset, Offset, TopicPartition};
use pgsluice_core::verdict::{Reason, Verdict};

use super::Telemetry;
use super::letters::LetterCount;

/// Retries of one group up to this are routine (a lock, a deadlock); later ones are logged at
/// WARN when their number is a power of two, so that a group that stays stuck stays visible.
const ROUTINE_ATTEMPTS: u32 = 4;

impl Telemetry {
    /// Makes a report of the coordinator visible.
    pub fn report(&self, report: &Report) {
        self.follow(report);
        match report {
            Report::Finished { partition, verdict, count } => {
                self.finished(partition, *verdict, *count);
            }
            Report::VersionGap(partition) => {
                if self.holds(partition) {
                    self.metrics().partition.version_gap(partition);
                }
                tracing::debug!(
                    event = "version_gap",
                    %partition,
                    "a group was applied although versions before it are missing"
                );
            }
            Report::Taken(partition, claim) => self.taken(partition, claim),
            Report::GivenUp(partition) => self.given_up(partition),
            Report::Fenced(partition) => {
                self.lock_status().fenced(partition);
                self.metrics().fenced();
                tracing::warn!(
                    event = "partition_fenced",
                    %partition,
                    "the partition has a newer owner; giving it up"
                );
            }
            Report::Halted { partition, reason, fault, at } => {
                self.halted(partition, *reason, fault.as_ref(), *at);
            }
            Report::HaltEnded(partition) => {
                self.lock_status().halt_ended(partition);
                self.metrics().partition.halt_ended(partition);
                tracing::info!(event = "partition_resumed", %partition, "halted partition resumed");
            }
            // The loss of the session that follows from it is counted as such.
            Report::Failed(Decision::WaitForDatabase, _) => {}
            Report::Failed(decision, fault) => self.metrics().fault(*decision, fault),
            Report::Retry { partition, attempts, fault } => {
                self.retried(partition, *attempts, fault);
            }
            Report::Advanced { partition, next } => {
                self.advanced(partition, *next);
                tracing::debug!(event = "advanced", %partition, next = next.0, "progress is durable");
            }
            Report::LettersWritten => self.log_letters(),
        }
    }

    fn finished(&self, partition: &TopicPartition, verdict: Verdict, count: u64) {
        // What comes late for a partition that is gone would bring its series back.
        if self.lock_status().finished(partition, verdict, count) {
            self.metrics().partition.finished(partition, verdict, count);
        }
        let (dead_lettered, parked) = match verdict {
            Verdict::DeadLettered => (count, 0),
            Verdict::Parked => (0, count),
            Verdict::Applied
            | Verdict::Rejected
            | Verdict::Duplicate
            | Verdict::Stale
            | Verdict::Skipped
            | Verdict::Discarded => return,
        };
        let mut letters = self.0.letters.lock().unwrap_or_else(PoisonError::into_inner);
        letters.add(dead_lettered, parked);
    }

    /// Tells of dead letters that no line has told of yet, unless the last line is too young.
    pub(super) fn log_letters(&self) {
        self.tell_letters(LetterCount::take);
    }

    /// Nothing is reported any more: what waited for its line is told now.
    pub fn ending(&self) {
        self.tell_letters(LetterCount::rest);
    }

    fn tell_letters(&self, which: fn(&mut LetterCount, Instant) -> Option<(u64, u64)>) {
        let letters = {
            let mut letters = self.0.letters.lock().unwrap_or_else(PoisonError::into_inner);
            which(&mut letters, Instant::now())
        };
        if let Some((dead_lettered, parked)) = letters {
            tracing::warn!(
                event = "dead_letters",
                dead_lettered,
                parked,
                "records were stored in dead_letter_t"
            );
        }
    }

    fn taken(&self, partition: &TopicPartition, claim: &Claim) {
        {
            let mut status = self.lock_status();
            let lag = status.taken(partition, claim);
            self.metrics().partitions_held(status.partitions.len());
            self.metrics().partition.taken(partition, claim.next);
            if let Some(lag) = lag {
                self.metrics().partition.lag(partition, lag);
            }
        }
        tracing::info!(
            event = "partition_taken",
            %partition,
            stream = claim.stream.0,
            owner_epoch = claim.epoch.0,
            next_offset = claim.next.0,
            "partition taken"
        );
    }

    fn advanced(&self, partition: &TopicPartition, next: NextOffset) {
        let mut status = self.lock_status();
        let Some(lag) = status.advanced(partition, next) else { return };
        self.metrics().partition.next_offset(partition, next);
        if let Some(lag) = lag {
            self.metrics().partition.lag(partition, lag);
        }
    }

    fn given_up(&self, partition: &TopicPartition) {
        let held = {
            let mut status = self.lock_status();
            status.partitions.remove(partition);
            status.partitions.len()
        };
        self.metrics().partitions_held(held);
        self.metrics().partition.given_up(partition);
        tracing::info!(event = "partition_given_up", %partition, held, "partition given up");
    }

    fn halted(
        &self,
        partition: &TopicPartition,
        reason: Reason,
        fault: Option<&Fault>,
        at: Option<Offset>,
    ) {
        // Each attempt that fails for the same reason reports again.
        if !self.lock_status().halted(partition, reason, fault) {
            tracing::debug!(event = "partition_halted", %partition, "partition is still halted");
            return;
        }
        self.metrics().partition.halted(partition, reason);
        tracing::error!(
            event = "partition_halted",
            %partition,
            reason = reason.as_str(),
            offset = at.map(|offset| offset.0),
            error = fault.map(tracing::field::display),
            "partition halted; it resumes automatically once the cause is fixed"
        );
    }

    fn retried(&self, partition: &TopicPartition, attempts: u32, fault: &Fault) {
        self.lock_status().retried(partition, fault);
        self.metrics().retry(fault);
        if attempts > ROUTINE_ATTEMPTS && attempts.is_power_of_two() {
            tracing::warn!(
                event = "retry",
                %partition,
                attempts,
                error = %fault,
                "an aggregate keeps failing; will retry"
            );
        } else {
            tracing::debug!(
                event = "retry",
                %partition,
                attempts,
                error = %fault,
                "a group failed; will retry"
            );
        }
    }

    fn holds(&self, partition: &TopicPartition) -> bool {
        self.lock_status().partitions.contains_key(partition)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::telemetry::PartitionPhase;
    use pgsluice_core::fault::{FaultKind, SqlState};
    use pgsluice_core::position::LogEnd;
    use pgsluice_core::record::{NextOffset, OwnerEpoch, StreamId};

    fn partition() -> TopicPartition {
        TopicPartition { topic: "orders".into(), partition: 0 }
    }

    fn claim() -> Claim {
        Claim { stream: StreamId(5), epoch: OwnerEpoch(1), next: NextOffset(10), anchor: None }
    }

    fn telemetry() -> Telemetry {
        Telemetry::try_new("sink").expect("metrics")
    }

    #[test]
    fn outcomes_are_counted_by_verdict() {
        let telemetry = telemetry();
        telemetry.report(&Report::Taken(partition(), claim()));
        for _ in 0..2 {
            telemetry.report(&Report::Finished {
                partition: partition(),
                verdict: Verdict::Duplicate,
                count: 4,
            });
        }
        let text = telemetry.metrics().encode().expect("text");
        let series =
            "pgsluice_records_total{partition=\"0\",topic=\"orders\",verdict=\"DUPLICATE\"} 8";
        assert!(text.contains(series), "{text}");
        assert_eq!(telemetry.status().partitions[&partition()].records["DUPLICATE"], 8);
    }

    #[test]
    fn a_late_report_does_not_bring_a_given_up_partition_back() {
        let telemetry = telemetry();
        telemetry.report(&Report::Taken(partition(), claim()));
        telemetry.report(&Report::GivenUp(partition()));
        telemetry.report(&Report::Fenced(partition()));
        telemetry.report(&Report::VersionGap(partition()));
        telemetry.report(&Report::Advanced { partition: partition(), next: NextOffset(11) });
        let end = LogEnd { end: 12, stable: 12 };
        telemetry.log_ends(&HashMap::from([(partition(), end)]));
        telemetry.report(&Report::Finished {
            partition: partition(),
            verdict: Verdict::Applied,
            count: 1,
        });
        assert!(telemetry.status().partitions.is_empty());
        assert!(!telemetry.metrics().encode().expect("text").contains("topic=\"orders\""));
    }

    #[test]
    fn a_halt_shows_its_reason_and_fault_until_it_ends() {
        let telemetry = telemetry();
        let code = SqlState::parse("42501").expect("code");
        telemetry.report(&Report::Halted {
            partition: partition(),
            reason: Reason::PermissionDenied,
            fault: Some(Fault::new(FaultKind::Server(code))),
            at: None,
        });
        let counted = |telemetry: &Telemetry| {
            let text = telemetry.metrics().encode().expect("text");
            text.contains("pgsluice_halts_total{reason=\"permission_denied\"} 1\n")
        };
        assert!(counted(&telemetry));
        // The attempt that fails in the same way is no other halt.
        telemetry.report(&Report::Halted {
            partition: partition(),
            reason: Reason::PermissionDenied,
            fault: Some(Fault::new(FaultKind::Server(code))),
            at: None,
        });
        assert!(counted(&telemetry));
        let halted = telemetry.status().partitions[&partition()].clone();
        assert_eq!(halted.phase, PartitionPhase::Halted);
        assert_eq!(halted.reason, Some("permission_denied"));
        assert_eq!(halted.last_error.as_deref(), Some("sqlstate 42501 (permission denied)"));
        telemetry.report(&Report::Taken(partition(), claim()));
        telemetry.report(&Report::HaltEnded(partition()));
        let resumed = telemetry.status().partitions[&partition()].clone();
        assert_eq!((resumed.phase, resumed.reason), (PartitionPhase::Reading, None));
        assert!(!telemetry.metrics().encode().expect("text").contains("partition_halted{"));
    }
}
