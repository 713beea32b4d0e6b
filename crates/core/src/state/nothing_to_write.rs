//! What becomes of records that never enter the queue: there is nothing to write for them.

use crate::event::{Content, Event};
use crate::verdict::Verdict;

use super::State;
use crate::input::{Action, Report};

impl State {
    /// The configuration says to stop at this record: nothing after it is accepted, and the
    /// partition halts once everything before it is finished.
    pub(super) fn stop_at(&mut self, event: Event) {
        self.free(event.weight());
        let Content::Halt(reason) = event.content else { return };
        if let Some(partition) = self.partitions.get_mut(&event.record.partition) {
            partition.halt_when_finished = Some((reason, event.record.offset));
        }
    }

    pub(super) fn finish_skip(&mut self, event: &Event) {
        if let Some(partition) = self.partitions.get_mut(&event.record.partition) {
            partition.frontier.finish(&event.record);
        }
        self.free(event.weight());
        self.out.push(Action::Report(Report::Finished {
            partition: event.record.partition.clone(),
            verdict: Verdict::Skipped,
            count: 1,
        }));
    }
}
