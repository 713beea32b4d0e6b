//! What follows from a group's reply.

use crate::fault::{Decision, Fault};
use crate::group::{Failure, Group, GroupReply};
use crate::record::SessionId;
use crate::verdict::Verdict;

use super::super::input::{Action, Lane, Report};
use super::super::partition::Phase;
use super::State;

impl State {
    pub(super) fn on_replied(
        &mut self,
        session: SessionId,
        lane: Lane,
        groups: Vec<(Group, GroupReply)>,
    ) {
        if !self.current_session(session) {
            // The session is gone, and with it the keys, counts and weight of its groups.
            return;
        }
        let in_flight = match lane {
            Lane::Fast => &mut self.fast_in_flight,
            Lane::Slow => &mut self.slow_in_flight,
        };
        *in_flight = in_flight.saturating_sub(1);
        for (group, reply) in groups {
            self.weight_in_flight = self.weight_in_flight.saturating_sub(group.weight());
            self.settle(session, lane, group, reply);
        }
    }

    fn settle(&mut self, session: SessionId, lane: Lane, group: Group, reply: GroupReply) {
        let name = group.origin.partition.clone();
        let Some(partition) = self.current(&name, group.origin.generation) else {
            self.discard(group);
            return;
        };
        partition.in_flight = partition.in_flight.saturating_sub(1);
        // A partition that halts or is being taken away starts nothing new.
        let reading = partition.phase == Phase::Reading;
        match reply {
            GroupReply::Done { verdicts, gap } => self.finish(group, &verdicts, gap),
            GroupReply::NotOwner => {
                self.discard(group);
                self.fence(&name);
            }
            GroupReply::Failed(fault) => self.on_failed(session, lane, group, fault),
            GroupReply::Refused if reading => self.to_read.push_back(group),
            GroupReply::Unsettled if reading => self.to_resolve.push_back(group),
            GroupReply::Refused | GroupReply::Unsettled => self.discard(group),
        }
    }

    /// Every event has its outcome.
    fn finish(&mut self, group: Group, verdicts: &[Verdict], gap: i64) {
        debug_assert_eq!(verdicts.len(), group.events.len(), "one verdict an event (INV-5)");
        if let Some(partition) = self.partitions.get_mut(&group.origin.partition) {
            for event in &group.events {
                partition.frontier.finish(&event.record);
            }
        }
        for verdict in Verdict::ALL {
            let count = verdicts.iter().filter(|v| **v == verdict).count() as u64;
            if count > 0 {
                self.out.push(Action::Report(Report::Finished {
                    partition: group.origin.partition.clone(),
                    verdict,
                    count,
                }));
            }
        }
        if gap > 0 {
            self.out.push(Action::Report(Report::VersionGap(group.origin.partition.clone())));
        }
        let letter = |v: &Verdict| matches!(v, Verdict::DeadLettered | Verdict::Parked);
        if verdicts.iter().any(letter) {
            self.out.push(Action::Report(Report::LettersWritten));
        }
        self.discard(group);
    }

    fn on_failed(&mut self, session: SessionId, lane: Lane, mut group: Group, fault: Fault) {
        let name = group.origin.partition.clone();
        match (self.config.decide)(&fault) {
            Decision::WaitForDatabase => {
                self.discard(group);
                self.lose_session(session, fault);
            }
            Decision::Stop => {
                self.discard(group);
                self.out.push(Action::Stop(fault));
            }
            Decision::Halt(reason) => {
                let at = Some(group.first().offset());
                self.discard(group);
                self.halt(&name, reason, Some(fault), at);
            }
            Decision::RetryAfter | Decision::Isolate(_) => {
                let first = group.failure.is_none();
                let (attempts, since) =
                    group.failure.as_ref().map_or((0, self.now), |f| (f.attempts, f.since));
                let attempts = attempts + 1;
                self.out.push(Action::Report(Report::Retry {
                    partition: name.clone(),
                    attempts,
                    fault: fault.clone(),
                }));
                group.failure = Some(Failure { attempts, since, fault });
                let reading = self.partitions.get(&name).is_some_and(|p| p.phase == Phase::Reading);
                if !reading {
                    self.discard(group);
                } else if first && lane == Lane::Fast {
                    // The slow lane has the patience that a shared connection must not have.
                    self.to_resolve.push_back(group);
                } else {
                    let wait = self.config.retry.wait(attempts, &mut self.random);
                    self.retries.push((self.now + wait, group));
                }
            }
        }
    }

    /// The group leaves memory; its key may give the next one.
    pub(super) fn discard(&mut self, group: Group) {
        self.queue.release(&group.order);
        self.free(group.weight());
    }
}
