//! The one recovery, and the ways a partition stops being read.
//!
//! Whatever went wrong with the database, the answer is the same: close the session, forget what
//! was in memory, open a session, take the partitions again, read again from what is durable. The
//! ledger makes the second attempt harmless.

use crate::fault::Fault;
use crate::record::{Offset, SessionId, TopicPartition};
use crate::verdict::Reason;

use super::State;
use super::partition::{Halt, Partition, Phase};
use crate::input::{Action, Report, RevokeTicket};

impl State {
    /// Closes the session and forgets everything that was learned through it.
    pub(super) fn lose_session(&mut self, session: SessionId, fault: Fault) {
        if self.sessions.id() != session {
            return;
        }
        let freed = self.work.clear();
        self.free(freed);
        self.barrier.clear();
        self.out.push(Action::CloseSession(session, fault));
        self.give_up_revoking();
        let names: Vec<_> = self.partitions.keys().cloned().collect();
        for name in names {
            let generation = self.next_generation();
            if let Some(partition) = self.partitions.get_mut(&name) {
                partition.begin(generation, Phase::Waiting);
                self.out.push(Action::Pause(name));
            }
        }
        let (next, failed) = self.sessions.lost();
        let after = self.config.reopen.wait(failed, &mut self.random);
        self.out.push(Action::OpenSession { session: next, after });
    }

    /// Without a session nothing of a partition that is being taken away can become durable.
    fn give_up_revoking(&mut self) {
        let names: Vec<_> = self
            .partitions
            .iter()
            .filter(|(_, p)| matches!(p.phase, Phase::Revoking { .. }))
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            self.give_up(&name);
        }
    }

    /// Stops reading a partition until an operator mended what is wrong; tries again by itself.
    ///
    /// `at` is the record that stopped it; the halt ends when progress has passed it. Without one
    /// it ends when the partition is taken again.
    pub(super) fn halt(
        &mut self,
        name: &TopicPartition,
        reason: Reason,
        fault: Option<Fault>,
        at: Option<Offset>,
    ) {
        self.drop_work(name);
        let Some(partition) = self.partitions.get_mut(name) else { return };
        if matches!(partition.phase, Phase::Revoking { .. } | Phase::Paused { .. }) {
            return;
        }
        partition.halts += 1;
        let told = partition.halted.as_ref();
        let news = told.is_none_or(|halt| halt.reason != reason || halt.fault != fault);
        partition.halted = Some(Halt { reason, fault: fault.clone(), at });
        let wait = self.config.halt.wait(partition.halts, &mut self.random);
        partition.phase = Phase::Paused { until: self.now + self.config.halt.initial + wait };
        self.out.push(Action::Pause(name.clone()));
        if matches!(reason, Reason::SchemaMismatch | Reason::PermissionDenied) {
            self.out.push(Action::DoubtPlan);
        }
        if news {
            let partition = name.clone();
            self.out.push(Action::Report(Report::Halted { partition, reason, fault, at }));
        }
    }

    /// The database knows a newer owner: forget the partition's work. If it is still assigned
    /// after a while, the group protocol says that it is ours, and it is taken again.
    pub(super) fn fence(&mut self, name: &TopicPartition) {
        self.drop_work(name);
        let generation = self.next_generation();
        let until = self.now + self.config.fenced_wait;
        let Some(partition) = self.partitions.get_mut(name) else { return };
        let revoking = matches!(partition.phase, Phase::Revoking { .. });
        if revoking {
            partition.origin = None;
            self.give_up(name);
        } else {
            partition.begin(generation, Phase::Paused { until });
            self.out.push(Action::Pause(name.clone()));
            self.out.push(Action::Disown(name.clone()));
        }
        self.out.push(Action::Report(Report::Fenced(name.clone())));
    }

    pub(super) fn on_revoked(
        &mut self,
        partitions: &[TopicPartition],
        ticket: RevokeTicket,
        lost: bool,
    ) {
        let deadline = self.now + self.config.revoke_budget;
        for name in partitions {
            self.drop_work(name);
            let Some(partition) = self.partitions.get_mut(name) else { continue };
            if lost || partition.owned().is_none() {
                let removed = self.remove(name);
                self.forget_revocation(removed.as_ref());
            } else {
                partition.phase = Phase::Revoking { ticket, deadline };
            }
        }
        self.answer(ticket);
    }

    /// Gives up partitions whose groups in flight are finished and durable, or whose time is up,
    /// and answers the tickets that no partition waits for any more.
    pub(super) fn release_revoked(&mut self) {
        let now = self.now;
        let ready: Vec<_> = self
            .partitions
            .iter()
            .filter(|(_, p)| match p.phase {
                Phase::Revoking { deadline, .. } => {
                    now >= deadline || (p.in_flight == 0 && !p.behind())
                }
                Phase::Waiting | Phase::Taking | Phase::Reading | Phase::Paused { .. } => false,
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in ready {
            self.give_up(&name);
        }
    }

    fn give_up(&mut self, name: &TopicPartition) {
        let Some(partition) = self.remove(name) else { return };
        let Phase::Revoking { ticket, .. } = partition.phase else { return };
        let commits = self.released.entry(ticket).or_default();
        commits.extend(partition.mirror_position());
        self.answer(ticket);
    }

    /// Answers a revocation once none of its partitions is held any more.
    fn answer(&mut self, ticket: RevokeTicket) {
        let waits = self
            .partitions
            .values()
            .any(|p| matches!(p.phase, Phase::Revoking { ticket: t, .. } if t == ticket));
        if !waits {
            let commits = self.released.remove(&ticket).unwrap_or_default();
            self.out.push(Action::Released(ticket, commits));
        }
    }

    /// A partition that was being taken away was lost or came back before it was given up: the group
    /// continued without our answer, and nobody waits for it.
    pub(super) fn forget_revocation(&mut self, partition: Option<&Partition>) {
        if let Some(Phase::Revoking { ticket, .. }) = partition.map(|partition| partition.phase) {
            self.released.remove(&ticket);
        }
    }

    fn remove(&mut self, name: &TopicPartition) -> Option<Partition> {
        let partition = self.partitions.remove(name)?;
        self.patience.forget(name);
        self.out.push(Action::Disown(name.clone()));
        self.out.push(Action::Report(Report::GivenUp(name.clone())));
        Some(partition)
    }

    /// Drops what waits for a lane. What is in flight comes back and is judged by its reading.
    pub(super) fn drop_work(&mut self, name: &TopicPartition) {
        let freed = self.work.drop_partition(name);
        self.free(freed);
    }
}
