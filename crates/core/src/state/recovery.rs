//! The one recovery, and the ways a partition stops being read.
//!
//! Whatever went wrong with the database, the answer is the same: close the session, forget what
//! was in memory, open a session, take the partitions again, read again from what is durable. The
//! ledger makes the second attempt harmless.

use crate::fault::Fault;
use crate::group::Group;
use crate::record::{Offset, SessionId, TopicPartition};
use crate::verdict::Reason;

use super::{Session, State};
use crate::input::{Action, Report, RevokeTicket};
use crate::partition::{Halt, Partition, Phase};

impl State {
    /// Closes the session and forgets everything that was learned through it.
    pub(super) fn lose_session(&mut self, session: SessionId, fault: Fault) {
        if self.session.id() != session {
            return;
        }
        let mut freed = self.queue.clear();
        let groups = self.to_read.drain(..).chain(self.to_resolve.drain(..));
        freed += groups.map(|g| g.weight()).sum::<usize>();
        freed += self.retries.drain(..).map(|(_, g)| g.weight()).sum::<usize>();
        freed += std::mem::take(&mut self.weight_in_flight);
        self.free(freed);
        self.fast_in_flight = 0;
        self.slow_in_flight = 0;
        self.advancing = None;
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
        // One that moved no progress is no better than one that could not be opened: a full disk
        // lets sessions open, too.
        self.failed_opens += 1;
        let after = self.config.reopen.wait(self.failed_opens, &mut self.random);
        let next = SessionId(session.0 + 1);
        self.session = Session::Opening(next);
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
                self.remove(name);
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

    fn remove(&mut self, name: &TopicPartition) -> Option<Partition> {
        let partition = self.partitions.remove(name)?;
        self.failing.retain(|_, (of, _)| of != name);
        self.out.push(Action::Disown(name.clone()));
        self.out.push(Action::Report(Report::GivenUp(name.clone())));
        Some(partition)
    }

    /// Drops what waits for a lane. What is in flight comes back and is judged by its reading.
    pub(super) fn drop_work(&mut self, name: &TopicPartition) {
        let freed = self.queue.drop_partition(name);
        self.free(freed);
        let of_partition = |group: &mut Group| group.origin.partition == *name;
        let mut dropped: Vec<Group> = Vec::new();
        for waiting in [&mut self.to_read, &mut self.to_resolve] {
            let (gone, kept): (Vec<_>, Vec<_>) =
                waiting.drain(..).partition(|g| g.origin.partition == *name);
            waiting.extend(kept);
            dropped.extend(gone);
        }
        dropped.extend(self.retries.extract_if(.., |(_, g)| of_partition(g)).map(|(_, g)| g));
        for group in dropped {
            self.discard(group);
        }
    }
}
