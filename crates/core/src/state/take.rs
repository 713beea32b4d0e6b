//! How reading of a partition begins: assigned, taken, positioned.

use std::sync::Arc;

use crate::fault::{Fault, FaultKind};
use crate::group::Origin;
use crate::record::{Generation, SessionId, TopicPartition};

use super::State;
use super::partition::{Partition, Phase};
use crate::frontier::Frontier;
use crate::input::{Action, Claim, Report, TakeReply};

impl State {
    pub(super) fn on_assigned(&mut self, partitions: Vec<TopicPartition>) {
        for partition in partitions {
            let generation = self.next_generation();
            self.drop_work(&partition);
            let before = self.partitions.insert(partition, Partition::new(generation));
            self.forget_revocation(before.as_ref());
        }
    }

    pub(super) fn on_session_opened(&mut self, session: SessionId) {
        if !self.sessions.opened(session) {
            let unwanted = Fault::new(FaultKind::Bug("a session that was not requested"));
            self.out.push(Action::CloseSession(session, unwanted));
        }
    }

    pub(super) fn on_taken(
        &mut self,
        session: SessionId,
        replies: Vec<(TopicPartition, Generation, TakeReply)>,
    ) {
        if !self.sessions.is_current(session) {
            return;
        }
        for (name, generation, reply) in replies {
            let retake = self.now + self.config.retake;
            let Some(partition) = self.current(&name, generation) else { continue };
            if partition.phase != Phase::Taking {
                continue;
            }
            match reply {
                TakeReply::Claimed(claim) => self.begin_reading(&name, generation, claim),
                TakeReply::Busy => partition.phase = Phase::Paused { until: retake },
                TakeReply::Halted(reason, fault) => self.halt(&name, reason, fault, None),
            }
        }
    }

    fn begin_reading(&mut self, name: &TopicPartition, generation: Generation, claim: Claim) {
        let Some(partition) = self.partitions.get_mut(name) else { return };
        partition.phase = Phase::Reading;
        partition.origin = Some(Arc::new(Origin {
            partition: name.clone(),
            stream: claim.stream,
            epoch: claim.epoch,
            generation,
        }));
        partition.frontier = Frontier::new(claim.next, claim.anchor);
        partition.durable = claim.next;
        let halt_ended = partition.passed_halt();
        self.out.push(Action::Seek {
            partition: name.clone(),
            generation,
            next: claim.next,
            anchor: claim.anchor,
        });
        self.out.push(Action::Own(name.clone(), claim.clone()));
        // At once: until an operator's own offset is replaced by ours it would be obeyed again, and
        // of an idle partition lag tools would see nothing, or what an earlier owner told last.
        self.out.extend(partition.mirror_position().map(|position| Action::Mirror(vec![position])));
        self.out.push(Action::Report(Report::Taken(name.clone(), claim)));
        if halt_ended {
            self.out.push(Action::Report(Report::HaltEnded(name.clone())));
        }
    }
}
