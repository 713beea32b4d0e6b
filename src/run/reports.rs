//! What a report of the coordinator changes around it, beside what operators see.

use crate::store::letter::publication::OwnedStream;
use pgsluice_core::verdict::Reason;

use super::Pipeline;
use pgsluice_core::input::Report;

impl Pipeline {
    pub(super) fn on_report(&mut self, report: &Report) {
        self.telemetry.report(report);
        self.follow(report);
        match report {
            Report::LettersWritten => self.letters_written.notify_one(),
            Report::Halted {
                reason: Reason::SchemaMismatch | Reason::PermissionDenied, ..
            } => {
                self.plan_doubted = true;
            }
            Report::Taken(partition, claim) => {
                let owned = OwnedStream { stream: claim.stream, epoch: claim.epoch };
                self.owned.insert(partition.clone(), owned);
                self.tell_publisher();
            }
            Report::GivenUp(partition) | Report::Fenced(partition) => {
                self.owned.remove(partition);
                self.tell_publisher();
                // Another member's offset must not be overwritten by an older one of ours.
                self.mirror.forget(vec![partition.clone()]);
            }
            _ => {}
        }
    }

    fn tell_publisher(&self) {
        let streams = self.owned.values().copied().collect();
        self.desk.send_modify(|desk| desk.streams = streams);
    }
}
